//! `kvtier usage correct`: a settled request gets other numbers, or is taken back, by a record of its own.

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::export::record;
use super::output::Output;
use super::server::Server;
use crate::client::{Correction, Settled, WrittenByClass};
use crate::ledger::shape::Line;
use crate::vocab::{BillingId, ClassName, TenantName};

#[derive(Debug, Args)]
pub(super) struct Correct {
    /// The billing id of the request.
    #[arg(value_name = "BILLING_ID", value_parser = BillingId::parse)]
    corrects: BillingId,
    /// Who pays.
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: TenantName,
    /// A billing id for the correction itself: the same again changes nothing.
    #[arg(long = "as", value_name = "BILLING_ID", value_parser = BillingId::parse)]
    billing_id: BillingId,
    /// Why, in a few words; the record keeps them.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Take everything back.
    #[arg(long, conflicts_with_all = ["prompt_tokens", "cached_tokens", "attested_tokens", "written_tokens", "output_tokens", "written_class"])]
    refund: bool,
    /// What it should have been; what is not named stands as it is.
    #[arg(long, value_name = "TOKENS")]
    prompt_tokens: Option<u64>,
    /// Taken from kvtier: at most what was delivered.
    #[arg(long, value_name = "TOKENS")]
    cached_tokens: Option<u64>,
    /// Skipped from the engine's own GPU cache.
    #[arg(long, value_name = "TOKENS")]
    attested_tokens: Option<u64>,
    /// Stored.
    #[arg(long, value_name = "TOKENS")]
    written_tokens: Option<u64>,
    /// Generated.
    #[arg(long, value_name = "TOKENS")]
    output_tokens: Option<u64>,
    /// Stored, by retention class: all classes, once each.
    #[arg(long, value_name = "CLASS=TOKENS", value_parser = class)]
    written_class: Vec<(String, u64)>,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

fn class(text: &str) -> Result<(String, u64), String> {
    let rule = || "it must be a class and its tokens, such as 1h=4096".to_owned();
    let (name, tokens) = text.split_once('=').ok_or_else(rule)?;
    ClassName::parse(name).map_err(|error| error.to_string())?;
    tokens.parse().map(|tokens| (name.to_owned(), tokens)).map_err(|_| rule())
}

/// The record of the correction, as programs see it: fields as in an export.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    record: Line,
    /// Whether it had been made before.
    repeated: bool,
}

impl Correct {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let tokens: std::collections::HashMap<_, _> = self.written_class.iter().cloned().collect();
        if tokens.len() < self.written_class.len() {
            return Err(CliError::usage("--written-class", &"given twice", "each class once"));
        }
        let correction = Correction {
            tenant: self.tenant.to_string(),
            billing_id: self.billing_id.to_string(),
            corrects: self.corrects.to_string(),
            reason: self.reason.clone(),
            refund: self.refund,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            attested_tokens: self.attested_tokens,
            written_tokens: self.written_tokens,
            output_tokens: self.output_tokens,
            written_by_class: (!tokens.is_empty()).then_some(WrittenByClass { tokens }),
        };
        let Settled { record: made, repeated } =
            self.server.ask(async |client| Ok(client.correct_usage(correction.clone()).await?))?;
        let line = Line::of(&record(made)?);
        if self.json {
            return output.json(&Report { record: line, repeated });
        }
        output.text(text(&line, repeated))
    }
}

fn text(line: &Line, repeated: bool) -> String {
    let changes = [
        ("prompt", line.prompt_tokens),
        ("hit", line.hit_tokens),
        ("attested", line.attested_tokens),
        ("computed", line.miss_tokens),
        ("written", line.written_tokens),
        ("output", line.output_tokens),
    ];
    let classes = line.written_by_class.iter().map(|(class, tokens)| format!("{tokens:+} written for {class}"));
    let changes = changes.iter().filter(|(_, tokens)| *tokens != 0).map(|(name, tokens)| format!("{tokens:+} {name}"));
    let changes = changes.chain(classes).collect::<Vec<_>>().join(", ");
    let again = if repeated { " (made before: nothing changed now)" } else { "" };
    let Line { tenant, corrects, billing_id, sequence, .. } = line;
    format!("{tenant} {corrects}: {changes} tokens, by record {sequence}, {billing_id}{again}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_with_its_sign() {
        let line = Line {
            sequence: 9,
            tenant: "acme".into(),
            billing_id: "c-1".into(),
            corrects: "b-1".into(),
            hit_tokens: -300,
            miss_tokens: 300,
            written_by_class: [("1h".to_owned(), -16)].into(),
            ..Line::default()
        };
        let told = text(&line, false);
        assert_eq!(told, "acme b-1: -300 hit, +300 computed, -16 written for 1h tokens, by record 9, c-1");
        assert!(text(&line, true).ends_with("c-1 (made before: nothing changed now)"));
        assert_eq!(class("1h=5"), Ok(("1h".to_owned(), 5)));
        assert!([class("1h"), class("1h=x"), class("=5")].iter().all(Result::is_err));
    }
}
