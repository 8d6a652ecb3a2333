//! `kvtier status`: a server now.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::drives::Drive;
use super::health::{self, Health};
use super::output::Output;
use super::server::Server;
use super::table::{bar, numbers, percent, span, thousands};
use super::{CliError, drives, size};
use crate::client;
use crate::vocab::ByteCount;

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// A server's state, as programs see it. Field names are a contract: add, never rename.
#[derive(Serialize)]
struct Report {
    version: String,
    uptime_s: u64,
    health: Vec<Health>,
    tiers: Tiers,
    sessions: u64,
    leases: u64,
    hit_tokens: u64,
    miss_tokens: u64,
    hit_rate: Option<f64>,
    puts: u64,
    reservations: u64,
    pins: u64,
    orphans: u64,
    background: u64,
    drives: Vec<Drive>,
    write_amplification: Option<f64>,
    scrub: Scrub,
    memory: Memory,
    process: Option<Process>,
    policy: String,
    admission: String,
    ledger: Option<Ledger>,
    counters: BTreeMap<String, u64>,
}

/// Whether settles are taken.
#[derive(Serialize)]
struct Ledger {
    writable: bool,
    trouble: String,
    refused: BTreeMap<String, u64>,
}

impl From<client::LedgerStatus> for Ledger {
    fn from(status: client::LedgerStatus) -> Self {
        let client::LedgerStatus { writable, trouble, refused } = status;
        Self { writable, trouble, refused: refused.into_iter().collect() }
    }
}

impl Ledger {
    fn text(&self) -> String {
        if self.writable { "takes settles".to_owned() } else { format!("TAKES NO SETTLES: {}", self.trouble) }
    }
}

#[derive(Default, Serialize)]
struct Scrub {
    bytes_per_second: u64,
    passes: u64,
    blocks: u64,
    bytes: u64,
    corrupt: u64,
    progress: f64,
}

/// What the daemon's process takes of its host.
#[derive(Serialize)]
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    resident_bytes_max: u64,
}

impl From<client::ProcessStatus> for Process {
    fn from(process: client::ProcessStatus) -> Self {
        let client::ProcessStatus { cpu_seconds, resident_bytes, resident_bytes_max } = process;
        Self { cpu_seconds, resident_bytes, resident_bytes_max }
    }
}

impl Process {
    fn text(&self) -> String {
        let [now, most] = [self.resident_bytes, self.resident_bytes_max].map(|bytes| size::human(ByteCount(bytes)));
        format!("{now} of memory, {most} at most; {:.1} s of processors", self.cpu_seconds)
    }
}

#[derive(Default, Serialize)]
struct Memory {
    huge_bytes: u64,
    prefaulted_bytes: u64,
    shared: bool,
    regions: u64,
    staging_bytes: u64,
    tickets: u64,
}

impl Memory {
    fn of(status: client::MemoryStatus) -> Self {
        let client::MemoryStatus { huge_bytes, prefaulted_bytes, shared, regions, staging_bytes, tickets } = status;
        Self { huge_bytes, prefaulted_bytes, shared, regions, staging_bytes, tickets }
    }

    /// How RAM is had and who may map it.
    fn text(&self) -> String {
        let pages = if self.huge_bytes > 0 { "pages of 2 MiB" } else { "pages of 4 KiB" };
        let made = size::human(ByteCount(self.prefaulted_bytes));
        let shared = if self.shared { "workers may map it" } else { "not shared" };
        format!("{pages}, {made} made ahead, {shared}")
    }
}

#[derive(Serialize)]
struct Tiers {
    ram: Tier,
    nvme: Tier,
}

#[derive(Serialize)]
struct Tier {
    used_bytes: u64,
    capacity_bytes: u64,
    blocks: u64,
    kind: String,
}

impl Status {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let report = Report::of(self.server.ask(async |client| Ok(client.status().await?))?);
        if self.json { output.json(&report) } else { output.text(text(&report)) }
    }
}

impl Report {
    fn of(status: client::Status) -> Self {
        let tier = |tier: Option<client::TierStatus>| {
            let client::TierStatus { used_bytes, capacity_bytes, blocks, kind } = tier.unwrap_or_default();
            Tier { used_bytes, capacity_bytes, blocks, kind }
        };
        let asked = status.hit_tokens + status.miss_tokens;
        Self {
            version: status.version,
            uptime_s: status.uptime_s,
            health: status.health.into_iter().map(Health::from).collect(),
            tiers: Tiers { ram: tier(status.ram), nvme: tier(status.nvme) },
            sessions: status.sessions,
            leases: status.leases,
            hit_tokens: status.hit_tokens,
            miss_tokens: status.miss_tokens,
            hit_rate: (asked > 0).then(|| status.hit_tokens as f64 / asked as f64),
            puts: status.puts,
            reservations: status.reservations,
            pins: status.pins,
            orphans: status.orphans,
            background: status.background,
            drives: status.drives.into_iter().map(Drive::from).collect(),
            write_amplification: status.write_amplification,
            memory: status.memory.map(Memory::of).unwrap_or_default(),
            process: status.process.map(Process::from),
            policy: status.policy,
            admission: status.admission,
            ledger: status.ledger.map(Ledger::from),
            scrub: status.scrub.map_or_else(Scrub::default, Scrub::from),
            counters: status.counters.into_iter().collect(),
        }
    }
}

impl From<client::ScrubStatus> for Scrub {
    fn from(scrub: client::ScrubStatus) -> Self {
        let client::ScrubStatus { bytes_per_second, passes, blocks, bytes, corrupt, progress } = scrub;
        Self { bytes_per_second, passes, blocks, bytes, corrupt, progress }
    }
}

impl Scrub {
    fn text(&self) -> String {
        match self.bytes_per_second {
            0 => "off".to_owned(),
            rate => {
                let rate = size::human(ByteCount(rate));
                format!("pass {}, {} at {rate}/s", thousands(self.passes + 1), percent(self.progress))
            }
        }
    }
}

fn text(report: &Report) -> String {
    let row = |name: &str, tier: &Tier| {
        let share = if tier.capacity_bytes == 0 { 0.0 } else { tier.used_bytes as f64 / tier.capacity_bytes as f64 };
        let sizes = [tier.used_bytes, tier.capacity_bytes].map(|bytes| size::human(ByteCount(bytes)));
        let [used, capacity] = sizes;
        [name.to_owned(), thousands(tier.blocks), used, capacity, percent(share), bar(share)]
    };
    let header = ["tier", "blocks", "used", "of", "share", ""];
    let mut tiers = numbers(header, [row("ram", &report.tiers.ram), row("nvme", &report.tiers.nvme)]);
    if let Some(bars) = tiers.column_mut(5) {
        bars.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let amplification = report.write_amplification.map_or("-".to_owned(), |factor| format!("{factor:.3}"));
    let row = |name: &str, number: u64| [name.to_owned(), thousands(number)];
    let rows = [
        ["hit rate of lookups".to_owned(), report.hit_rate.map_or("-".to_owned(), percent)],
        row("  tokens hit", report.hit_tokens),
        row("  tokens missed", report.miss_tokens),
        ["RAM".to_owned(), report.memory.text()],
        ["process".to_owned(), report.process.as_ref().map_or("-".to_owned(), Process::text)],
        row("sessions", report.sessions),
        row("  regions attached", report.memory.regions),
        row("  tickets", report.memory.tickets),
        row("leases", report.leases),
        row("puts under way", report.puts),
        row("slots being filled", report.reservations),
        row("slots being sent", report.pins),
        row("orphaned blocks", report.orphans),
        row("writes and erasures under way", report.background),
        ["bytes written for a byte stored".to_owned(), amplification],
        ["ledger".to_owned(), report.ledger.as_ref().map_or_else(|| "not told".to_owned(), Ledger::text)],
        row("  settles refused", report.ledger.iter().flat_map(|ledger| ledger.refused.values()).sum()),
        ["scrub".to_owned(), report.scrub.text()],
        row("  blocks read to be checked", report.scrub.blocks),
        row("  of these, gone bad", report.scrub.corrupt),
    ];
    let (state, reasons) = health::text(&report.health);
    let head = format!("kvtier {}, up {}, {state}", report.version, span(report.uptime_s.saturating_mul(1_000)));
    let drives = if report.drives.is_empty() { String::new() } else { format!("\n{}", drives::text(&report.drives)) };
    format!("{head}\n{reasons}{tiers}{drives}\n{}", numbers(["since the start", ""], rows))
}
