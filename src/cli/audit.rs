//! `kvtier usage audit`: whether records, identities and sums of a stopped folder's ledger agree.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::output::Output;
use super::table::{numbers, thousands};
use crate::offline::{AuditReport, audit};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// The data folder, on which no daemon runs.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let report = audit(&self.data_dir)?;
        if self.json {
            output.json(&report)?
        } else {
            output.text(text(&report))?
        }
        if report.differences == 0 {
            return Ok(());
        }
        let first = report.examples.first().map_or("", String::as_str);
        Err(CliError::Bad(format!("the ledger disagrees with itself {} times: {first}", report.differences)))
    }
}

fn text(report: &AuditReport) -> String {
    let row = |name: &str, number: u64, meaning: &str| [name.to_owned(), thousands(number), meaning.to_owned()];
    let rows = vec![
        row("records", report.records, "settled requests"),
        row("identities", report.identities, "tenant and billing id: one a record"),
        row("sums", report.rollups, "by tenant, namespace and hour"),
        row("prompt tokens", report.prompt_tokens, "hit, attested and computed"),
        row("hit tokens", report.hit_tokens, "delivered and skipped"),
        row("acknowledged", report.acknowledged, "exporters have the records up to this one"),
        row("differences", report.differences, "between them"),
    ];
    let table = numbers(["", "", ""], rows).to_string();
    report.examples.iter().fold(table, |text, example| format!("{text}\n{example}"))
}
