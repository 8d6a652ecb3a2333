//! How one usage record reads for others: kvtier's own line, providers' usage fields, and metering systems.
//!
//! Pure. kvtier's line and the event that carries it are exact; a provider's shape follows the provider's [`Rules`]. What
//! a rule rounds away is billed as computed, never as a hit. In providers' shapes a hit is what kvtier delivered: tokens
//! that the engine skipped from its own GPU cache (attested) count as computed, unless [`Rules::attested_as_hit`].

mod columns;
mod event;
mod line;
mod providers;
mod refusal;
mod rules;
mod time;

pub use columns::{Columns, PARQUET_BEGINS, read_columns};
pub use line::Line;
pub use refusal::LineError;
pub use rules::Rules;

use serde_json::Value;

use super::UsageRecord;

/// Whose words a record is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// kvtier's own, exact and lossless: [`Line`].
    Kvtier,
    /// `DeepSeek`: hit + miss = prompt.
    DeepSeek,
    /// `OpenAI`: cached and written tokens are parts of the prompt.
    OpenAi,
    /// Anthropic: input without what was read from the cache or written to it.
    Anthropic,
    /// Google: cached content is a part of the prompt.
    Google,
    /// `CloudEvents` 1.0 around kvtier's line, as `OpenMeter` takes it.
    CloudEvents,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 6] =
        [Self::Kvtier, Self::DeepSeek, Self::OpenAi, Self::Anthropic, Self::Google, Self::CloudEvents];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvtier => "kvtier",
            Self::DeepSeek => "deepseek",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::CloudEvents => "cloudevents",
        }
    }

    /// The shape of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }
}

/// A moment as exports write it: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn moment(at: crate::vocab::Timestamp) -> String {
    time::written(at)
}

/// A record in the words of `shape`. The rules say nothing about kvtier's line and the event, which are exact.
#[must_use]
pub fn shaped(record: &UsageRecord, shape: Shape, rules: Rules) -> Value {
    match shape {
        Shape::Kvtier => line::value(record),
        Shape::DeepSeek => providers::deepseek(record, rules),
        Shape::OpenAi => providers::openai(record, rules),
        Shape::Anthropic => providers::anthropic(record, rules),
        Shape::Google => providers::google(record, rules),
        Shape::CloudEvents => event::cloud_event(record),
    }
}
