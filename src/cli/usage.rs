//! `kvtier usage`: the bill, summed by tenant, namespace and hour, or request by request.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::CliError;
use super::audit::Audit;
use super::chain::hex;
use super::correct::Correct;
use super::export::Export;
use super::filter::Filter;
use super::output::Output;
use super::price::Price;
use super::server::Server;
use super::storage::Storage;
use super::table::{numbers, percent, thousands, without};
use crate::client::{UsageRow, UsageSummary};

#[derive(Debug, Args)]
pub(super) struct Usage {
    #[command(subcommand)]
    command: UsageCommand,
}

#[derive(Debug, Subcommand)]
enum UsageCommand {
    /// Settled usage, summed by tenant, namespace and hour.
    Summary(Summary),
    /// Storage held: token-hours by account, namespace, class and hour.
    Storage(Storage),
    /// Settled requests one by one, to a file that grows by what is new.
    Export(Export),
    /// Give a settled request other numbers, or take it back: a record of its own.
    Correct(Correct),
    /// Whether the ledger of a stopped folder agrees with itself.
    Audit(Audit),
    /// What exported records cost by a price book: the invoice of a period.
    Price(Price),
}

#[derive(Debug, Args)]
struct Summary {
    #[command(flatten)]
    filter: Filter,
    /// What rows are told apart by: tenant, namespace, hour, user, api_key, with commas between [default:
    /// tenant,namespace,hour].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = ["tenant", "namespace", "hour", "user", "api_key"])]
    by: Vec<String>,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// The bill, as programs see it. Field names are a contract: add, never rename.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    total: Sums,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    tenant: String,
    namespace: String,
    fingerprint: String,
    /// Hours since 1970.
    hour: u32,
    /// The same for people: `2026-01-31 17:00 UTC`.
    hour_utc: String,
    user: String,
    api_key_id: String,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Serialize)]
struct Sums {
    records: u64,
    corrections: u64,
    prompt_tokens: u64,
    hit_tokens: u64,
    hit_tokens_ram: u64,
    hit_tokens_nvme: u64,
    attested_tokens: u64,
    miss_tokens: u64,
    written_tokens: u64,
    output_tokens: u64,
}

impl Usage {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        match &self.command {
            UsageCommand::Summary(summary) => summary.run(output),
            UsageCommand::Storage(storage) => storage.run(output),
            UsageCommand::Export(export) => export.run(output),
            UsageCommand::Correct(correct) => correct.run(output),
            UsageCommand::Audit(audit) => audit.run(output),
            UsageCommand::Price(price) => price.run(output),
        }
    }
}

impl Summary {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let filter = self.filter.request(&self.by);
        let summary = self.server.ask(async |client| Ok(client.summarize_usage(&filter).await?))?;
        let report = Report::of(&summary);
        if self.json { output.json(&report) } else { output.text(report.text()) }
    }
}

impl Report {
    pub(super) fn of(summary: &UsageSummary) -> Self {
        let row = |row: &UsageRow| Row {
            tenant: row.tenant.clone(),
            namespace: row.namespace.clone(),
            fingerprint: hex(&row.fingerprint),
            hour: row.hour,
            hour_utc: hour_utc(row.hour),
            user: row.user.clone(),
            api_key_id: row.api_key_id.clone(),
            sums: Sums::of(row),
        };
        let total = Sums::of(&summary.total.clone().unwrap_or_default());
        Self { total, rows: summary.rows.iter().map(row).collect() }
    }

    pub(super) fn text(&self) -> String {
        if self.rows.is_empty() {
            return "No request has been settled.".to_owned();
        }
        let numbers_of = |sums: &Sums| {
            let share = if sums.prompt_tokens == 0 { 0.0 } else { sums.hit_tokens as f64 / sums.prompt_tokens as f64 };
            let tokens = [sums.records, sums.prompt_tokens, sums.hit_tokens, sums.miss_tokens, sums.written_tokens];
            (tokens.map(thousands), percent(share))
        };
        let line = |names: [String; 5], sums: &Sums| {
            let ([records, prompt, hit, miss, written], share) = numbers_of(sums);
            let [tenant, namespace, hour, user, key] = names;
            [tenant, namespace, hour, user, key, records, prompt, hit, share, miss, written]
        };
        let names =
            |row: &Row| [&row.tenant, &row.namespace, &row.hour_utc, &row.user, &row.api_key_id].map(String::clone);
        let mut rows: Vec<_> = self.rows.iter().map(|row| line(names(row), &row.sums)).collect();
        rows.push(line(["all", "", "", "", ""].map(str::to_owned), &self.total));
        let names = ["tenant", "namespace", "hour", "user", "api key"];
        let counts = ["requests", "prompt tokens", "hit", "share", "computed", "written"];
        let [tenant, namespace, hour, user, key] = names;
        let [records, prompt, hit, share, miss, written] = counts;
        // Columns of names that no row has are left out; the first says what the last row is.
        let is_empty = |at: &usize| rows.iter().all(|row| row[*at].is_empty());
        let hidden: Vec<usize> = (0..names.len()).filter(is_empty).collect();
        let header = [tenant, namespace, hour, user, key, records, prompt, hit, share, miss, written];
        without(numbers(header, rows), &hidden).to_string()
    }
}

impl Sums {
    fn of(row: &UsageRow) -> Self {
        Self {
            records: row.records,
            corrections: row.corrections,
            prompt_tokens: row.prompt_tokens,
            hit_tokens: row.hit_tokens,
            hit_tokens_ram: row.hit_tokens_ram,
            hit_tokens_nvme: row.hit_tokens_nvme,
            attested_tokens: row.attested_tokens,
            miss_tokens: row.miss_tokens,
            written_tokens: row.written_tokens,
            output_tokens: row.output_tokens,
        }
    }
}

/// Nothing for no hour: rows that are not by hour.
fn hour_utc(hour: u32) -> String {
    if hour == 0 {
        return String::new();
    }
    match jiff::Timestamp::from_second(i64::from(hour) * 3_600) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => hour.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_has_exactly_the_promised_fields() {
        let row =
            UsageRow { tenant: "acme".into(), hour: 490_000, prompt_tokens: 10, hit_tokens: 4, ..UsageRow::default() };
        let report = Report::of(&UsageSummary { total: Some(row.clone()), rows: vec![row] });
        let json = serde_json::to_value(&report).unwrap();
        for field in ["records", "prompt_tokens", "hit_tokens", "miss_tokens", "written_tokens", "rows"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        let row = &json["rows"][0];
        assert_eq!((&row["tenant"], &row["hour"], &row["hit_tokens"]), (&"acme".into(), &490_000.into(), &4.into()));
        assert_eq!(row["hour_utc"], "2025-11-24 16:00 UTC");
        assert!(report.text().contains("40.0 %"), "{}", report.text());
    }
}
