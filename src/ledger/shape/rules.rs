//! A provider's minimum and rounding: which of the tokens that were skipped the customer sees as a hit.

use super::super::UsageRecord;
use super::Shape;

/// The rules of a provider's usage fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Hits are rounded down to a multiple of this many tokens; 0 and 1 round nothing.
    pub unit: u64,
    /// A prompt with fewer tokens has no hits.
    pub minimum: u64,
    /// Whether tokens that the engine skipped from its own GPU cache are hits, too.
    pub attested_as_hit: bool,
}

impl Rules {
    /// No rounding and no minimum.
    pub const EXACT: Self = Self { unit: 1, minimum: 0, attested_as_hit: false };

    /// What the provider of that shape has published: `DeepSeek` stores units of 64 tokens; `OpenAI` caches prompts of 1,024
    /// tokens and more, in steps of 128; Anthropic and Google name a minimum by model, of which 1,024 is a common one.
    #[must_use]
    pub fn of(shape: Shape) -> Self {
        match shape {
            Shape::Kvtier | Shape::CloudEvents => Self::EXACT,
            Shape::DeepSeek => Self { unit: 64, ..Self::EXACT },
            Shape::OpenAi => Self { unit: 128, minimum: 1_024, ..Self::EXACT },
            Shape::Anthropic | Shape::Google => Self { minimum: 1_024, ..Self::EXACT },
        }
    }

    /// The hits of a record by these rules: never more than were skipped. Of a correction exactly what it adds to them.
    pub(super) fn hit(self, record: &UsageRecord) -> i64 {
        let counts = &record.counts;
        let skipped = counts.hit() + if self.attested_as_hit { counts.attested } else { 0 };
        if record.correction.is_some() {
            return skipped;
        }
        if counts.prompt < i64::try_from(self.minimum).unwrap_or(i64::MAX) {
            return 0;
        }
        skipped - skipped % i64::try_from(self.unit.max(1)).unwrap_or(i64::MAX)
    }
}
