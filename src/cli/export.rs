//! `kvtier usage export`: settled requests one by one, to a file that grows by what is new each time it is asked for.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::CliError;
use super::chain::hex;
use super::exported::Exported;
use super::output::Output;
use super::parts::Parts;
use super::server::Server;
use super::table::thousands;
use crate::client::{Client, UsageRecord as WireRecord};
use crate::ledger::UsageRecord;
use crate::ledger::shape::{self, Line, Rules, Shape, shaped};
use crate::vocab::{FinishReason, NodeRole, Timestamp};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Where to; a file that has records already gets those that follow, and so does a folder of Parquet. Without it, standard
    /// output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How a record is written: a line of JSON, of CSV with labels as JSON, or a row of Parquet, of which -o is a folder of files.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// In whose words: kvtier, deepseek, openai, anthropic, google or cloudevents.
    #[arg(long, value_name = "NAME", default_value = "kvtier", value_parser = shape_named)]
    shape: Shape,
    /// Hits are rounded down to whole units of this many tokens; by default what the provider of the shape has published.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    hit_unit: Option<u64>,
    /// A prompt with fewer tokens has no hits; by default what the provider of the shape has published.
    #[arg(long, value_name = "TOKENS")]
    hit_minimum: Option<u64>,
    /// Tokens that the engine skipped from its own GPU cache are hits, too.
    #[arg(long)]
    attested_as_hit: bool,
    /// Only records after this sequence.
    #[arg(long, value_name = "SEQUENCE", conflicts_with = "unacknowledged")]
    after: Option<u64>,
    /// Only records after the last that was acknowledged.
    #[arg(long)]
    unacknowledged: bool,
    /// Once they are safely in the file, tell the daemon so: with all before them, which is why not with --after.
    #[arg(long, requires = "output", conflicts_with = "after")]
    acknowledge: bool,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document about it.
    #[arg(long, requires = "output")]
    json: bool,
}

fn shape_named(name: &str) -> Result<Shape, String> {
    let names = || Shape::ALL.map(Shape::name).join(", ");
    Shape::named(name).ok_or_else(|| format!("it must be one of {}", names()))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Jsonl,
    Csv,
    Parquet,
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
        let needs_kvtier = [("-o", self.output.is_some()), ("--format csv or parquet", self.format != Format::Jsonl)];
        if let (Some((flag, _)), false) = (needs_kvtier.iter().find(|(_, given)| *given), self.shape == Shape::Kvtier) {
            let rule = format!("kvtier with {flag}: other shapes are lines of JSON for standard output");
            return Err(CliError::Usage { field: "--shape", value: self.shape.name().to_owned(), rule });
        }
        let Some(path) = &self.output else {
            if self.format == Format::Parquet {
                return Err(CliError::usage("-o", &"missing", "a folder, with --format parquet"));
            }
            let to = BufWriter::new(io::stdout());
            let mut sink = match self.shape {
                Shape::Kvtier => Sink::new(to, self.format, true)?,
                shape => Sink::Shaped(to, shape, self.rules(shape)),
            };
            self.server.ask(async |client| {
                self.export(&client, self.after, &mut |record: &UsageRecord| sink.write(record)).await
            })?;
            return sink.finish().map(drop).map_err(CliError::Stdout);
        };
        let report = if self.format == Format::Parquet { self.to_folder(path)? } else { self.to_file(path)? };
        if self.json {
            return output.json(&report);
        }
        let acknowledged = if report.acknowledged.is_some() { ", acknowledged" } else { "" };
        let records = thousands(report.records);
        output.text(format!("{records} records to {}, the last is {}{acknowledged}", path.display(), report.last))
    }

    fn to_file(&self, path: &Path) -> Result<Report, CliError> {
        let exported = Exported::open(path, self.format)?;
        let after = self.goes_on(path, exported.last)?;
        let mut sink = Sink::new(BufWriter::new(exported.file), self.format, exported.is_empty)?;
        self.server.ask(async |client| {
            let report = self.export(&client, after, &mut |record: &UsageRecord| sink.write(record)).await?;
            let synced = sink
                .finish()
                .and_then(|file| file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all())
                .map_err(|source| self.cannot_write(source));
            self.acknowledged(&client, report, synced).await
        })
    }

    fn to_folder(&self, path: &Path) -> Result<Report, CliError> {
        let mut parts = Parts::open(path)?;
        let after = self.goes_on(path, parts.last())?;
        self.server.ask(async |client| {
            let report = self.export(&client, after, &mut |record: &UsageRecord| parts.write(record)).await?;
            let synced = parts.finish().map_err(|source| self.cannot_write(source));
            self.acknowledged(&client, report, synced).await
        })
    }

    /// After which record: what is there already says so itself.
    fn goes_on(&self, path: &Path, last: Option<u64>) -> Result<Option<u64>, CliError> {
        match (last, self.after) {
            (Some(last), Some(after)) => {
                let rule = format!("left out: {} goes on after its last record, {last}", path.display());
                Err(CliError::Usage { field: "--after", value: after.to_string(), rule })
            }
            (last, after) => Ok(last.or(after)),
        }
    }

    /// Tells the daemon, where that is asked for: records must be on the disk before anybody may forget them.
    async fn acknowledged(
        &self,
        client: &Client,
        mut report: Report,
        synced: Result<(), CliError>,
    ) -> Result<Report, CliError> {
        synced?;
        if self.acknowledge {
            report.acknowledged = Some(client.acknowledge_usage(report.last).await?.through);
        }
        Ok(report)
    }

    async fn export(
        &self,
        client: &Client,
        after: Option<u64>,
        write: &mut impl FnMut(&UsageRecord) -> io::Result<()>,
    ) -> Result<Report, CliError> {
        let after = if self.unacknowledged { after } else { Some(after.unwrap_or(0)) };
        let mut report = Report { last: after.unwrap_or(0), ..Report::default() };
        let mut export = client.export_usage(after).await?;
        while let Some(wire) = export.next().await? {
            let record = record(wire)?;
            write(&record).map_err(|source| self.cannot_write(source))?;
            report.records += 1;
            report.last = record.sequence;
        }
        Ok(report)
    }

    fn rules(&self, shape: Shape) -> Rules {
        let published = Rules::of(shape);
        Rules {
            unit: self.hit_unit.unwrap_or(published.unit),
            minimum: self.hit_minimum.unwrap_or(published.minimum),
            attested_as_hit: self.attested_as_hit,
        }
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
    /// Each in the words of another, for standard output.
    Shaped(W, Shape, Rules),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Sink<W> {
    /// `is_new` where a header is due, if the format has one.
    fn new(to: W, format: Format, is_new: bool) -> Result<Self, CliError> {
        Ok(match format {
            // Parquet is no stream of lines: see `Parts`.
            Format::Jsonl | Format::Parquet => Self::Jsonl(to),
            Format::Csv => {
                let mut to = Box::new(csv::Writer::from_writer(to));
                if is_new {
                    to.write_record(Line::FIELDS).map_err(|error| CliError::Stdout(io::Error::other(error)))?;
                }
                Self::Csv(to)
            }
        })
    }

    fn write(&mut self, record: &UsageRecord) -> io::Result<()> {
        let (to, value) = match self {
            Self::Jsonl(to) => {
                serde_json::to_writer(&mut *to, &Line::of(record))?;
                return to.write_all(b"\n");
            }
            Self::Csv(to) => return to.write_record(cells(record)).map_err(io::Error::other),
            Self::Shaped(to, shape, rules) => (to, shaped(record, *shape, *rules)),
        };
        serde_json::to_writer(&mut *to, &value)?;
        to.write_all(b"\n")
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Jsonl(mut to) | Self::Shaped(mut to, _, _) => to.flush().map(|()| to),
            Self::Csv(to) => to.into_inner().map_err(|error| io::Error::other(error.to_string())),
        }
    }
}

/// The fields of kvtier's line in their order, labels as the JSON that they are there.
fn cells(record: &UsageRecord) -> Vec<String> {
    let line = serde_json::to_value(Line::of(record)).unwrap_or_default();
    let text = |field: &str| match &line[field] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Line::FIELDS.into_iter().map(text).collect()
}

/// The record as the daemon has it.
pub(super) fn record(wire: WireRecord) -> Result<UsageRecord, CliError> {
    let sequence = wire.sequence;
    let code = |code: i32| u8::try_from(code).unwrap_or(u8::MAX);
    let line = Line {
        sequence,
        tenant: wire.tenant,
        billing_id: wire.billing_id,
        attempt: wire.attempt,
        instance: wire.instance,
        fingerprint: hex(&wire.fingerprint),
        namespace: wire.namespace,
        settled_at: shape::moment(Timestamp(wire.settled_at_ms)),
        prompt_tokens: wire.prompt_tokens,
        hit_tokens: wire.hit_tokens,
        hit_tokens_ram: wire.hit_tokens_ram,
        hit_tokens_nvme: wire.hit_tokens_nvme,
        attested_tokens: wire.attested_tokens,
        miss_tokens: wire.miss_tokens,
        written_tokens: wire.written_tokens,
        output_tokens: wire.output_tokens,
        labels: wire.labels.into_iter().collect(),
        user: wire.user,
        api_key_id: wire.api_key_id,
        finish_reason: FinishReason::of_code(code(wire.finish_reason)).map_or("unknown", FinishReason::name).to_owned(),
        role: NodeRole::of_code(code(wire.role)).map_or("unknown", NodeRole::name).to_owned(),
        written_by_class: wire.written_by_class.into_iter().collect(),
        preempted_tokens: wire.preempted_tokens,
        delivered_tokens_ram: wire.delivered_tokens_ram,
        delivered_tokens_nvme: wire.delivered_tokens_nvme,
        corrects_settled_at: match wire.corrects.as_str() {
            "" => String::new(),
            _ => shape::moment(Timestamp(wire.corrects_settled_at_ms)),
        },
        corrects: wire.corrects,
        correction_reason: wire.correction_reason,
    };
    line.record().map_err(|error| CliError::Bad(format!("record {sequence}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_can_not_be_one_is_refused_by_its_sequence_and_field() {
        let good = WireRecord {
            sequence: 7,
            tenant: "acme".into(),
            billing_id: "b-1".into(),
            instance: "engine".into(),
            namespace: "model".into(),
            fingerprint: vec![7; 32].into(),
            ..WireRecord::default()
        };
        assert_eq!(record(good.clone()).unwrap().sequence, 7);
        let said = |wire| record(wire).unwrap_err().to_string();
        let short = said(WireRecord { fingerprint: vec![7; 31].into(), ..good.clone() });
        assert!(
            short.contains("record 7: fingerprint is 0707") && short.contains("it must be 64 hex digits"),
            "{short}"
        );
        let later = said(WireRecord { finish_reason: 9, ..good.clone() });
        assert!(later.contains("record 7: finish_reason is unknown"), "{later}");
        assert!(
            said(WireRecord { hit_tokens: 1, ..good }).contains("hit_tokens is 1, it must be the sum of its tiers, 0")
        );
    }
}
