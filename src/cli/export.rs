//! `kvtier usage export`: settled requests one by one, to a file that grows by what is new each time it is asked for.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::CliError;
use super::chain::hex;
use super::exported::Exported;
use super::output::Output;
use super::server::Server;
use super::table::thousands;
use crate::client::{Client, UsageRecord};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Where to; a file that has records already gets those that follow. Without it, standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How a record is written: a line of JSON, or of CSV with labels as JSON.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only records after this sequence.
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "unacknowledged")]
    after: Option<u64>,
    /// Only records after the last that was acknowledged.
    #[arg(long)]
    unacknowledged: bool,
    /// Once they are safely in the file, tell the daemon so.
    #[arg(long, requires = "output")]
    acknowledge: bool,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document about it.
    #[arg(long, requires = "output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Jsonl,
    Csv,
}

/// A record as it is exported. Field names are a contract: add, never rename.
#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    tenant: &'a str,
    billing_id: &'a str,
    attempt: u32,
    instance: &'a str,
    fingerprint: String,
    namespace: &'a str,
    /// RFC 3339, UTC, with milliseconds.
    settled_at: String,
    prompt_tokens: u64,
    hit_tokens: u64,
    hit_tokens_ram: u64,
    hit_tokens_nvme: u64,
    attested_tokens: u64,
    miss_tokens: u64,
    written_tokens: u64,
    output_tokens: u64,
    labels: Labels<'a>,
}

/// An object where the format has such, else its text.
#[derive(Serialize)]
#[serde(untagged)]
enum Labels<'a> {
    Object(BTreeMap<&'a str, &'a str>),
    Text(String),
}

#[derive(Debug, Default, Serialize)]
struct Report {
    records: u64,
    /// Sequence of the last record that the file has now.
    last: u64,
    /// Records up to this sequence are acknowledged; absent where that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<u64>,
}

impl Export {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let Some(path) = &self.output else {
            let mut sink = Sink::new(BufWriter::new(io::stdout()), self.format, true);
            self.server.ask(async |client| self.export(&client, self.after, &mut sink).await)?;
            return sink.finish().map(drop).map_err(CliError::Stdout);
        };
        let failed = |source| CliError::File { path: path.clone(), source };
        let exported = Exported::open(path, self.format)?;
        let after = match (exported.last, self.after) {
            (Some(last), Some(after)) => {
                let rule = format!("left out: {} goes on after its last record, {last}", path.display());
                return Err(CliError::Usage { field: "--after", value: after.to_string(), rule });
            }
            (last, after) => last.or(after),
        };
        let mut sink = Sink::new(BufWriter::new(exported.file), self.format, exported.is_empty);
        let asked = self.server.ask(async |client| {
            let mut report = self.export(&client, after, &mut sink).await?;
            // On the disk before anybody may forget them.
            sink.finish()
                .and_then(|file| file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all())
                .map_err(failed)?;
            if self.acknowledge {
                report.acknowledged = Some(client.acknowledge_usage(report.last).await?.through);
            }
            Ok(report)
        });
        let report = asked?;
        if self.json {
            return output.json(&report);
        }
        let acknowledged = if report.acknowledged.is_some() { ", acknowledged" } else { "" };
        let records = thousands(report.records);
        output.text(format!("{records} records to {}, the last is {}{acknowledged}", path.display(), report.last))
    }

    async fn export<W: Write>(
        &self,
        client: &Client,
        after: Option<u64>,
        sink: &mut Sink<W>,
    ) -> Result<Report, CliError> {
        let after = if self.unacknowledged { after } else { Some(after.unwrap_or(0)) };
        let mut report = Report { last: after.unwrap_or(0), ..Report::default() };
        let mut export = client.export_usage(after).await?;
        while let Some(record) = export.next().await? {
            sink.write(&record).map_err(|source| self.cannot_write(source))?;
            report.records += 1;
            report.last = record.sequence;
        }
        Ok(report)
    }

    fn cannot_write(&self, source: io::Error) -> CliError {
        match &self.output {
            Some(path) => CliError::File { path: path.clone(), source },
            None => CliError::Stdout(source),
        }
    }
}

/// Records as lines.
enum Sink<W: Write> {
    Jsonl(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Sink<W> {
    /// `is_new` where a header is due, if the format has one.
    fn new(to: W, format: Format, is_new: bool) -> Self {
        match format {
            Format::Jsonl => Self::Jsonl(to),
            Format::Csv => Self::Csv(Box::new(csv::WriterBuilder::new().has_headers(is_new).from_writer(to))),
        }
    }

    fn write(&mut self, record: &UsageRecord) -> io::Result<()> {
        let labels = record.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match self {
            Self::Jsonl(to) => {
                serde_json::to_writer(&mut *to, &Line::of(record, Labels::Object(labels)))?;
                to.write_all(b"\n")
            }
            Self::Csv(to) => {
                let labels = Labels::Text(serde_json::to_string(&labels)?);
                to.serialize(Line::of(record, labels)).map_err(io::Error::other)
            }
        }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Jsonl(mut to) => to.flush().map(|()| to),
            Self::Csv(to) => to.into_inner().map_err(|error| io::Error::other(error.to_string())),
        }
    }
}

impl<'a> Line<'a> {
    fn of(record: &'a UsageRecord, labels: Labels<'a>) -> Self {
        let at = i64::try_from(record.settled_at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        Self {
            sequence: record.sequence,
            tenant: &record.tenant,
            billing_id: &record.billing_id,
            attempt: record.attempt,
            instance: &record.instance,
            fingerprint: hex(&record.fingerprint),
            namespace: &record.namespace,
            settled_at: format!("{:.3}", at.unwrap_or(jiff::Timestamp::MAX)),
            prompt_tokens: record.prompt_tokens,
            hit_tokens: record.hit_tokens,
            hit_tokens_ram: record.hit_tokens_ram,
            hit_tokens_nvme: record.hit_tokens_nvme,
            attested_tokens: record.attested_tokens,
            miss_tokens: record.miss_tokens,
            written_tokens: record.written_tokens,
            output_tokens: record.output_tokens,
            labels,
        }
    }
}
