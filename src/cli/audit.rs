//! `kvtier usage audit`: whether records, identities, deliveries and sums of a stopped folder's ledger agree.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::output::Output;
use super::records;
use super::table::{numbers, signed, thousands};
use crate::ledger::{Reconciliation, UsageRecord};
use crate::offline::{AuditReport, ExportReport, GatewayReport, OfflineError, StoppedLedger};

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// The data folder, on which no daemon runs.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Compare it with a gateway's log, too: JSON lines with tenant, billing_id, prompt_tokens, cached_tokens (from kvtier,
    /// as settled) and output_tokens. A corrected request is what its records come to. Requests whose records were deleted are
    /// found where --exported has them.
    #[arg(long, value_name = "FILE")]
    gateway_log: Option<PathBuf>,
    /// Compare it with what was exported from it, too: JSON lines or Parquet, or a folder of Parquet. Proves the sums of records
    /// that were deleted since.
    #[arg(long, value_name = "FILE")]
    exported: Vec<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let ledger = StoppedLedger::open(&self.data_dir)?;
        let audited = ledger.audit()?;
        let mut gateway = self.gateway_log.as_ref().map(|log| ledger.compare_log(log)).transpose()?;
        let exported = self.compare_exports(&ledger, &mut gateway)?;
        if let Some(gateway) = &mut gateway {
            ledger.records().try_for_each(|record| record.map(|record| gateway.add(&record)))?;
        }
        let report = Report { audited, exported, gateway: gateway.map(Reconciliation::finish) };
        if self.json {
            output.json(&report)?
        } else {
            let exported = report.exported.as_ref().map_or_else(String::new, exported_text);
            let compared = report.gateway.as_ref().map_or_else(String::new, gateway_text);
            output.text(text(&report.audited) + &exported + &compared)?
        }
        report.verdict()
    }

    /// What of the exports the ledger has deleted goes to the comparison with the gateway's log, too.
    fn compare_exports(
        &self,
        ledger: &StoppedLedger,
        gateway: &mut Option<Reconciliation>,
    ) -> Result<Option<ExportReport>, CliError> {
        if self.exported.is_empty() {
            return Ok(None);
        }
        let mut exports = ledger.compare_exports()?;
        let mut add = |record: &UsageRecord| {
            let is_deleted = exports.add(record).map_err(|error| error.to_string())?;
            if let Some(gateway) = gateway.as_mut().filter(|_| is_deleted) {
                gateway.add(record);
            }
            Ok(())
        };
        self.exported.iter().try_for_each(|path| records::read(path, &mut add))?;
        Ok(Some(exports.finish().map_err(OfflineError::from)?))
    }
}

/// What is found, as programs see it.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    audited: AuditReport,
    /// Absent where no export was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    exported: Option<ExportReport>,
    /// Absent where no log was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<GatewayReport>,
}

impl Report {
    /// The first that disagrees.
    fn verdict(&self) -> Result<(), CliError> {
        let Self { audited, exported, gateway } = self;
        let bad = |what: &str, differences: u64, examples: &[String], hint: &str| {
            let first = examples.first().map_or("", String::as_str);
            CliError::Bad(format!("{what} {differences} times: {first}{hint}"))
        };
        if audited.differences > 0 {
            return Err(bad("the ledger disagrees with itself", audited.differences, &audited.examples, ""));
        }
        if let Some(exported) = exported.as_ref().filter(|report| report.differences > 0) {
            let what = "the ledger and what was exported disagree";
            return Err(bad(what, exported.differences, &exported.examples, ""));
        }
        match gateway.as_ref().filter(|report| report.differences() > 0) {
            None => Ok(()),
            Some(gateway) => {
                let hint = match (audited.deleted, exported) {
                    (deleted @ 1.., None) => format!(
                        " (the ledger has deleted {deleted} acknowledged records: name their exports with --exported)"
                    ),
                    _ => String::new(),
                };
                let what = "the ledger and the gateway's log disagree";
                Err(bad(what, gateway.differences(), &gateway.examples, &hint))
            }
        }
    }
}

fn exported_text(report: &ExportReport) -> String {
    let rows = vec![
        row("the same", report.same, "records of the ledger and of its exports"),
        row("deleted since", report.deleted, "records that only the exports have"),
        row("missing", report.missing, "of the deleted ones, in no export that was named"),
        row("repeated", report.repeated, "records that were exported more than once"),
        row("differences", report.differences, "between them"),
    ];
    compared("exports", rows, &report.examples)
}

fn gateway_text(report: &GatewayReport) -> String {
    let rows = vec![
        row("the same", report.same, "requests of the ledger and of the gateway's log"),
        row("differing", report.differing, "in both, with other numbers"),
        row("only in the ledger", report.only_in_ledger, "settled, and not in the log"),
        row("only in the log", report.only_in_log, "not settled"),
        row("repeated", report.repeated, "lines of the log that say the same again"),
    ];
    compared("gateway's log", rows, &report.examples)
}

fn row(name: &str, number: u64, meaning: &str) -> [String; 3] {
    [name.to_owned(), thousands(number), meaning.to_owned()]
}

/// What a comparison with `what` has found.
fn compared(what: &str, rows: Vec<[String; 3]>, examples: &[String]) -> String {
    format!("\n{}{}", numbers([what, "", ""], rows), lines(examples))
}

fn lines(examples: &[String]) -> String {
    examples.iter().map(|example| format!("\n{example}")).collect()
}

fn text(report: &AuditReport) -> String {
    let tokens = |name: &str, number: i64, meaning: &str| [name.to_owned(), signed(number), meaning.to_owned()];
    let (found, joined) = (&report.divergences, &report.deliveries);
    let rows = vec![
        row("records", report.records, "settled requests"),
        row("identities", report.identities, "tenant and billing id: one a record"),
        row("sums", report.rollups, "by tenant, namespace and hour"),
        row("corrections", report.corrections, "of records, by records of their own"),
        tokens("prompt tokens", report.prompt_tokens, "hit, attested and computed"),
        tokens("hit tokens", report.hit_tokens, "delivered and skipped"),
        row("deleted", report.deleted, "of all these: acknowledged, old, and still in the sums"),
        row("deliveries", joined.known, "of requests, that the kept records tell of"),
        row("… their tokens", joined.delivered_tokens, "delivered"),
        row("… billed", joined.billed, "by one billing id each"),
        row("… billed tokens", joined.billed_tokens, "as hits, with corrections: never more than was delivered"),
        row("not proven", joined.unproven_records, "records with hits from before deliveries were kept"),
        row("… their tokens", joined.unproven_tokens, "billed as hits"),
        row(
            "refused claims",
            found.overclaimed_requests,
            "to more than was delivered, or to what another has: not billed",
        ),
        row("… their tokens", found.overclaimed_tokens, "too many"),
        row("unclaimed", found.unclaimed_requests, "more was delivered than the engine claimed: its claim is billed"),
        row("… their tokens", found.unclaimed_tokens, "delivered and not billed"),
        row("acknowledged", report.acknowledged, "exporters have the records up to this one"),
        row("storage hours", report.storage_hours, "metered, by account, namespace and class"),
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
    table + &lines(&report.examples)
}
