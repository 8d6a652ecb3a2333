//! `kvtier usage audit`: whether records, identities and sums of a stopped folder's ledger agree.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::output::Output;
use super::table::{numbers, thousands};
use crate::offline::{AuditReport, GatewayReport, audit, reconcile};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// The data folder, on which no daemon runs.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Compare it with a gateway's log, too: JSON lines with tenant, billing_id, prompt_tokens, cached_tokens (from kvtier,
    /// as settled) and output_tokens. Records that were deleted count as missing.
    #[arg(long, value_name = "FILE")]
    gateway_log: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let audited = audit(&self.data_dir)?;
        let gateway = self.gateway_log.as_ref().map(|log| reconcile(&self.data_dir, log)).transpose()?;
        let report = Report { audited, gateway };
        if self.json {
            output.json(&report)?
        } else {
            let compared = report.gateway.as_ref().map_or_else(String::new, gateway_text);
            output.text(text(&report.audited) + &compared)?
        }
        let Report { audited: report, gateway } = report;
        if report.differences == 0 {
            return gateway.map_or(Ok(()), agrees);
        }
        let first = report.examples.first().map_or("", String::as_str);
        Err(CliError::Bad(format!("the ledger disagrees with itself {} times: {first}", report.differences)))
    }
}

/// What is found, as programs see it.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    audited: AuditReport,
    /// Absent where no log was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<GatewayReport>,
}

fn agrees(report: GatewayReport) -> Result<(), CliError> {
    let differences = report.differences();
    let Some(first) = report.examples.into_iter().next().filter(|_| differences > 0) else { return Ok(()) };
    Err(CliError::Bad(format!("the ledger and the gateway's log disagree {differences} times: {first}")))
}

fn gateway_text(report: &GatewayReport) -> String {
    let row = |name: &str, number: u64, meaning: &str| [name.to_owned(), thousands(number), meaning.to_owned()];
    let rows = vec![
        row("the same", report.same, "requests of the ledger and of the gateway's log"),
        row("differing", report.differing, "in both, with other numbers"),
        row("only in the ledger", report.only_in_ledger, "settled, and not in the log"),
        row("only in the log", report.only_in_log, "not settled"),
        row("repeated", report.repeated, "lines of the log that say the same again"),
    ];
    let table = format!("\n{}", numbers(["gateway's log", "", ""], rows));
    report.examples.iter().fold(table, |text, example| format!("{text}\n{example}"))
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
