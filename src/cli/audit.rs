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
    let found = &report.divergences;
    let rows = vec![
        row("records", report.records, "settled requests"),
        row("identities", report.identities, "tenant and billing id: one a record"),
        row("sums", report.rollups, "by tenant, namespace and hour"),
        row("prompt tokens", report.prompt_tokens, "hit, attested and computed"),
        row("hit tokens", report.hit_tokens, "delivered and skipped"),
        row("deleted", report.deleted, "of the records: acknowledged, old, and still in the sums"),
        row("refused claims", found.overclaimed_requests, "an engine claimed more than was delivered: not billed"),
        row("… their tokens", found.overclaimed_tokens, "too many"),
        row("unclaimed", found.unclaimed_requests, "more was delivered than the engine claimed: its claim is billed"),
        row("… their tokens", found.unclaimed_tokens, "delivered and not billed"),
        row("acknowledged", report.acknowledged, "exporters have the records up to this one"),
        row("differences", report.differences, "between them"),
    ];
    let mut table = numbers(["", "", ""], rows).to_string();
    for tenant in &found.tenants {
        let [refused, too_many] = [tenant.overclaimed_requests, tenant.overclaimed_tokens].map(thousands);
        let [unclaimed, tokens] = [tenant.unclaimed_requests, tenant.unclaimed_tokens].map(thousands);
        let name = &tenant.tenant;
        table += &format!("\n{name}: {refused} refused ({too_many} tokens), {unclaimed} unclaimed ({tokens} tokens)");
    }
    for one in &found.largest {
        let (claimed, delivered) = (thousands(one.claimed_tokens), thousands(one.delivered_tokens));
        table += &format!("\n{} {}: {claimed} claimed, {delivered} delivered", one.tenant, one.billing_id);
    }
    report.examples.iter().fold(table, |text, example| format!("{text}\n{example}"))
}
