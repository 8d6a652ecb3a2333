//! The state of the cache as Prometheus reads it: made from the same [`Status`] that people see, when it is asked for.
//!
//! Names follow Prometheus' conventions: base units, `_total` for what only grows, one label a question that people ask.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::cache::TurnTimes;
use crate::cache::admin::Status;
use crate::cache::drives::{DriveState, DriveStatus};
use crate::ledger::Counts;
use crate::watch::{Board, ServiceHealth, State};

/// What a scrape answers with: OpenMetrics text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The state as text; of a daemon that is starting, there is its health alone.
pub(super) fn text(status: Option<Status>, health: Board) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("kvtier");
    registry.register_collector(Box::new(Scrape(status, health)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(Option<Status>, Board);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Metrics(encoder);
        to.info("build", "The program", &[("version", env!("CARGO_PKG_VERSION"))])?;
        health(&mut to, &self.1)?;
        let Some(status) = &self.0 else { return Ok(()) };
        to.gauge("uptime_seconds", "Time since the start", status.uptime.as_secs_f64())?;
        tiers(&mut to, status)?;
        to.gauge("sessions", "Processes connected", status.sessions)?;
        to.gauge("leases", "Leases held", status.holdings.leases)?;
        to.gauge("puts", "Puts under way", status.holdings.puts)?;
        to.gauge("reservations", "Slots held by blocks not yet complete", status.holdings.reservations)?;
        to.gauge("pins", "Slots that bytes are being sent from", status.pins)?;
        to.gauge("orphans", "Blocks whose ancestors are gone", status.holdings.orphans)?;
        to.gauge("background_jobs", "Loads, writes and erasures under way", status.holdings.background)?;
        turns(&mut to, &status.turns)?;
        to.counter("hit_tokens", "Tokens found by lookups", status.tokens.0)?;
        to.counter("miss_tokens", "Tokens missed by lookups", status.tokens.1)?;
        // Those of devices are told drive by drive.
        for (name, count) in status.counters.iter().filter(|(name, _)| !name.starts_with("device_")) {
            to.counter(name, "See kvtier status", *count)?;
        }
        if let Some(factor) = status.write_amplification {
            let help = "Bytes sent to block devices over payload bytes written to drives, since the start";
            to.gauge("write_amplification_ratio", help, factor)?;
        }
        let writable = status.ledger.as_ref().is_some_and(|ledger| ledger.trouble.is_none());
        to.gauge("ledger_writable", "1 while the ledger of usage takes new settles", u64::from(writable))?;
        if let Some(ledger) = &status.ledger {
            let refused = ledger.refused.named().map(|(reason, count)| ([("reason", reason)], count));
            to.counters("settles_refused", "Settles and corrections that were refused", refused)?;
            to.gauge("ledger_bytes", "Bytes that the ledger of usage takes", ledger.bytes)?;
            to.gauge("ledger_limit_bytes", "Bytes at which it refuses new settles", ledger.bytes_max)?;
        }
        // Nothing is said of what can't be read: a zero would be a number.
        if let Some(counters) = status.ledger.as_ref().and_then(|ledger| ledger.counters) {
            let help = "Requests settled and corrections made since the ledger was begun";
            let kinds = [("settle", counters.records), ("correction", counters.corrections)];
            to.gauges("ledger_records", help, kinds.map(|(kind, records)| ([("kind", kind)], records)))?;
            let tokens = Counts::NAMES.into_iter().zip(counters.counts.each());
            let tokens = tokens.map(|(name, tokens)| ([("kind", name)], u64::try_from(tokens).unwrap_or(0)));
            to.gauges("ledger_tokens", "What they come to: corrections taken off", tokens)?;
        }
        drives(&mut to, &status.drives)?;
        let scrub = status.scrub;
        to.gauge("scrub_limit_bytes_per_second", "What the scrub may read; 0 where it is off", scrub.bytes_per_second)?;
        to.gauge("scrub_progress_ratio", "How far the pass under way has come", scrub.progress)?;
        to.counter("scrub_passes", "Passes over all blocks that the scrub has finished", scrub.passes)?;
        to.counter("scrub_blocks", "Blocks read to be checked", scrub.blocks)?;
        to.counter("scrub_bytes", "Bytes read to be checked", scrub.bytes)?;
        to.counter("scrub_corrupt_blocks", "Blocks that went bad, found by reading them again", scrub.corrupt)
    }
}

fn health(to: &mut Metrics<'_>, board: &Board) -> fmt::Result {
    let all = board.all();
    let name = |service: &ServiceHealth| if service.name.is_empty() { "daemon" } else { service.name };
    let states = all.iter().flat_map(|service| {
        let is = |state| u64::from(service.state == state);
        State::ALL.map(|state| ([("service", name(service)), ("state", state.name())], is(state)))
    });
    to.gauges("health", "1 for what a service, or the daemon as a whole, is; 0 for what it is not", states)?;
    let serving = all.iter().map(|service| ([("service", name(service))], u64::from(service.serves)));
    to.gauges("health_serving", "1 where grpc.health.v1 says SERVING", serving)
}

fn tiers(to: &mut Metrics<'_>, status: &Status) -> fmt::Result {
    let held = status.holdings;
    let both = |ram: u64, nvme: u64| [([("tier", "ram")], ram), ([("tier", "nvme")], nvme)];
    let used = both(held.ram_used_bytes, held.nvme_used_bytes);
    to.gauges("used_bytes", "Bytes of slots in use", used)?;
    to.gauges("capacity_bytes", "Bytes of a tier", both(status.ram.0, status.nvme.0))?;
    to.gauges("blocks", "Blocks readable from a tier", both(held.ram_blocks, held.nvme_blocks))
}

fn turns(to: &mut Metrics<'_>, turns: &TurnTimes) -> fmt::Result {
    let help = "Time between two looks of the planner's thread at its inbox while it has work: what it may keep a request waiting";
    let buckets: Vec<(f64, u64)> = turns.buckets().collect();
    to.histogram("planner_turn_seconds", help, turns.sum().as_secs_f64(), &buckets)?;
    let help = "The longest of them since the start";
    to.gauge("planner_turn_max_seconds", help, turns.max().as_secs_f64())
}

fn drives(to: &mut Metrics<'_>, drives: &[DriveStatus]) -> fmt::Result {
    type Label = [(&'static str, String); 1];
    let each = |value: fn(&DriveStatus) -> u64| {
        drives.iter().map(move |drive| -> (Label, u64) { ([("drive", drive.number.to_string())], value(drive)) })
    };
    let kinds = drives.iter().map(|drive| {
        let dir = drive.dir.display().to_string();
        [("drive", drive.number.to_string()), ("kind", drive.kind.clone()), ("note", drive.note.clone()), ("dir", dir)]
    });
    to.infos("io_backend", "How bytes reach a drive, and why", kinds)?;
    let out = |drive: &DriveStatus| u64::from(drive.state == DriveState::Out);
    let missing = |drive: &DriveStatus| u64::from(drive.state == DriveState::Missing);
    to.gauges("drive_out", "1 for a drive that kept failing and was taken out", each(out))?;
    to.gauges("drive_missing", "1 for a drive that was not there at the start", each(missing))?;
    to.gauges("drive_capacity_bytes", "Bytes of a drive's slots", each(|drive| drive.capacity.0))?;
    to.gauges("drive_used_bytes", "Bytes of a drive's slots in use", each(|drive| drive.used.0))?;
    to.gauges("drive_inflight_bytes", "Bytes that a drive works on", each(|drive| drive.gauges.inflight_bytes))?;
    to.gauges("drive_queued_jobs", "Jobs that wait for a drive", each(|drive| drive.gauges.queued as u64))?;
    to.gauges("drive_written_day_bytes", "Sent to a drive in the last 24 hours", each(|drive| drive.written_day.0))?;
    let budget = |drive: &DriveStatus| drive.wear_budget.unwrap_or_default().0;
    to.gauges("drive_wear_budget_bytes_per_day", "What a drive may be written; 0 for any number", each(budget))?;
    let ever = "Sent to a drive since the store was begun";
    to.counters("drive_lifetime_written_bytes", ever, each(|drive| drive.written_total.0))?;
    to.counters("nvme_reads", "Blocks read and right", each(|drive| drive.stats.reads))?;
    to.counters("nvme_read_bytes", "Bytes of blocks read and right", each(|drive| drive.stats.read_bytes))?;
    to.counters("nvme_writes", "Blocks written", each(|drive| drive.stats.writes))?;
    to.counters("nvme_stored_bytes", "Payload bytes of blocks written", each(|drive| drive.stats.written_bytes))?;
    let sent = "Bytes sent to a drive: payloads in whole 4 KiB, failed writes included";
    to.counters("nvme_written_bytes", sent, each(|drive| drive.stats.device_written_bytes))?;
    to.counters("nvme_read_errors", "Reads that a drive failed", each(|drive| drive.stats.read_errors))?;
    to.counters("nvme_write_errors", "Writes that failed", each(|drive| drive.stats.write_errors))?;
    to.counters("nvme_corrupt_blocks", "Reads of other bytes than were written", each(|drive| drive.stats.corrupt))?;
    to.counters("nvme_dropped_jobs", "Jobs dropped since too much was waiting", each(|drive| drive.stats.dropped))
}

/// Writes metrics one by one.
struct Metrics<'a>(DescriptorEncoder<'a>);

impl Metrics<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// `buckets`: the upper end of each, and how many it has that none before it has.
    fn histogram(&mut self, name: &str, help: &str, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.0
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values.into_iter().try_for_each(|(labels, value)| {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn infos<L: EncodeLabelSet>(&mut self, name: &str, help: &str, all: impl IntoIterator<Item = L>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        all.into_iter().try_for_each(|labels| metric.encode_info(&labels))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::cache::TurnTimes;
    use crate::cache::scrub::ScrubStatus;
    use crate::ledger::{LedgerFill, Refused, Usage};
    use crate::plan::Holdings;
    use crate::tiers::{Gauges, NvmeStats};
    use crate::vocab::ByteCount;

    fn fill(counters: Option<Usage>) -> LedgerFill {
        LedgerFill {
            bytes: 5,
            bytes_max: 7,
            counters,
            trouble: counters.is_none().then(|| "no room".into()),
            refused: Refused { unavailable: 3, ..Refused::default() },
        }
    }

    #[test]
    fn a_scrape_during_a_start_has_health_alone() {
        let starting = text(None, crate::watch::Health::default().board()).unwrap();
        assert!(starting.contains("kvtier_health{service=\"daemon\",state=\"starting\"} 1\n"), "{starting}");
        assert!(starting.contains("kvtier_health_serving{service=\"kvtier.v1.Usage\"} 0\n"), "{starting}");
        assert!(!starting.contains("kvtier_uptime"), "{starting}");
    }

    #[test]
    fn a_scrape_reads_like_this() {
        let drive = |number, state, note: &str| DriveStatus {
            number,
            dir: "/mnt/\"a\"".into(),
            kind: "pread, O_DIRECT".into(),
            note: note.into(),
            state,
            capacity: ByteCount(8),
            used: ByteCount(4),
            gauges: Gauges { queued: 3, ..Gauges::default() },
            stats: NvmeStats { device_written_bytes: 4_096, ..NvmeStats::default() },
            written_total: ByteCount(9_000),
            written_day: ByteCount(5_000),
            wear_budget: None,
        };
        let status = |counters| Status {
            uptime: Duration::from_millis(1_500),
            ram: ByteCount(16),
            nvme: ByteCount(32),
            nvme_kind: "pread, O_DIRECT",
            holdings: Holdings::default(),
            sessions: 2,
            pins: 0,
            tokens: (7, 8),
            drives: vec![drive(0, DriveState::Ok, ""), drive(3, DriveState::Out, "it kept failing")],
            write_amplification: Some(1.25),
            process: None,
            rules: Default::default(),
            turns: TurnTimes::default(),
            scrub: ScrubStatus { passes: 2, ..ScrubStatus::default() },
            ledger: Some(fill(counters)),
            counters: BTreeMap::from([("device_reads", 1), ("lost", 5)]),
        };
        let counters = Usage { records: 3, corrections: 1, counts: Counts::of([9, 1, 2, 0, 6, 4, 5]) };
        let health = crate::watch::Health::default();
        health.serve();
        let text = |status| text(Some(status), health.board());
        let unread = text(status(None)).unwrap();
        assert!(unread.contains("kvtier_ledger_bytes 5\n") && !unread.contains("kvtier_ledger_records"), "{unread}");
        assert!(unread.contains("kvtier_ledger_writable 0\n"), "{unread}");
        let text = text(status(Some(counters))).unwrap();
        for expected in [
            "# HELP kvtier_uptime_seconds Time since the start\n# TYPE kvtier_uptime_seconds gauge\nkvtier_uptime_seconds 1.5\n",
            "kvtier_capacity_bytes{tier=\"nvme\"} 32\n",
            "# TYPE kvtier_lost counter\nkvtier_lost_total 5\n",
            "kvtier_write_amplification_ratio 1.25\n",
            "kvtier_io_backend_info{drive=\"0\",kind=\"pread, O_DIRECT\",note=\"\",dir=\"/mnt/\\\"a\\\"\"} 1\n",
            "kvtier_drive_out{drive=\"0\"} 0\nkvtier_drive_out{drive=\"3\"} 1\n",
            "kvtier_nvme_written_bytes_total{drive=\"3\"} 4096\n",
            "kvtier_drive_lifetime_written_bytes_total{drive=\"0\"} 9000\n",
            "kvtier_drive_queued_jobs{drive=\"3\"} 3\n",
            "kvtier_scrub_passes_total 2\n",
            "kvtier_health{service=\"kvtier.v1.Cache\",state=\"serving\"} 1\n",
            "kvtier_health{service=\"kvtier.v1.Cache\",state=\"starting\"} 0\n",
            "kvtier_ledger_bytes 5\n",
            "kvtier_ledger_writable 1\n",
            "kvtier_settles_refused_total{reason=\"unavailable\"} 3\n",
            "kvtier_ledger_limit_bytes 7\n",
            "kvtier_ledger_records{kind=\"correction\"} 1\n",
            "kvtier_ledger_tokens{kind=\"hit_tokens_nvme\"} 2\n",
        ] {
            assert!(text.contains(expected), "{expected}is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n") && !text.contains("device_"), "{text}");
    }
}
