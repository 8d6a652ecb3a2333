//! `kvtier replay --simulate --hosts N`: the same trace on several hosts, by one routing rule or by all of them side by side.

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::machine::{MachineArgs, millis, positive};
use super::replayed;
use super::simulate::with_progress;
use super::table::{numbers, percent, thousands};
use crate::replay::prediction::{HostFigures, HostsReport};
use crate::replay::routing::HOSTS_MAX;
use crate::replay::{Extent, Hosts, HostsOptions, Routing, SimulateOptions, Trace};

/// `--routing`: a comparison.
const ALL: &str = "all";

#[derive(Debug, Args)]
#[command(next_help_heading = "Simulated hosts")]
pub(super) struct HostsArgs {
    /// So many hosts, each with the simulated tiers, and an engine whose requests wait for each other.
    #[arg(long, value_name = "N", requires_all = ["simulate", "prefill_rate"], conflicts_with = "crash_after")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=HOSTS_MAX as i64))]
    hosts: Option<u16>,
    /// Which host a request goes to: round-robin, least-loaded, session-sticky, cache-aware or cache-approximate; `all` compares them
    /// [default: cache-aware].
    #[arg(long, value_name = "NAME", requires = "hosts", value_parser = routing)]
    routing: Option<Rules>,
    /// Requests come as fast as keeps the hosts busy for this share of the time if nothing is cached (0.8; more than 1 is more than they
    /// can do without a cache).
    #[arg(long, value_name = "SHARE", requires = "hosts", conflicts_with = "speed", value_parser = positive)]
    load: Option<f64>,
}

/// One rule, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    One(Routing),
    All,
}

fn routing(name: &str) -> Result<Rules, String> {
    let rules = Routing::from_name(name).map(Rules::One).or_else(|| (name == ALL).then_some(Rules::All));
    let names = Routing::ALL.map(Routing::name).join(", ");
    rules.ok_or_else(|| format!("it must be one of {names}, or {ALL}"))
}

/// One rule's report, or those of all with what hosts without a cache would do.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum HostsReports {
    One(Box<HostsReport>),
    All(Box<Comparison>),
}

/// Rules side by side. Field names are a contract: add, never rename.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// Hosts.
    hosts: usize,
    /// How many times as fast as recorded the requests came.
    speed: f64,
    /// Share of the time for which the hosts would be busy without a cache.
    load_without_cache: Option<f64>,
    /// The same requests without a cache, by the least loaded host.
    without_cache: HostsReport,
    /// By each rule.
    routings: Vec<HostsReport>,
}

impl HostsArgs {
    /// How many, where several are asked for.
    pub(super) fn count(&self) -> Option<usize> {
        self.hosts.map(usize::from)
    }

    /// Replays a trace on so many hosts.
    pub(super) fn run(
        &self,
        hosts: usize,
        machine: &MachineArgs,
        tiers: SimulateOptions,
        trace: &Trace,
        speed: Option<f64>,
    ) -> Result<HostsReports, CliError> {
        let extent = Extent::of(trace.requests());
        let rate = machine.prefill_rate().unwrap_or(f64::INFINITY);
        let speed = match self.load {
            None => speed.unwrap_or(1.0),
            Some(load) => {
                let rule = "for a trace whose requests come at different times, and have tokens";
                extent.speed_for(load, hosts, rate).ok_or_else(|| CliError::usage("--load", &load, rule))?
            }
        };
        let machine = machine.machine()?;
        let options =
            |routing| HostsOptions { hosts, routing, queued: true, speed, ..HostsOptions::alone(tiers, machine) };
        let report = |options: HostsOptions| {
            let mut hosts = Hosts::new(options, trace.block_tokens());
            with_progress(trace, |progress| {
                hosts.run(trace.requests(), |done, tally| progress(done, tally));
                hosts.report()
            })
        };
        match self.routing.unwrap_or(Rules::One(Routing::CacheAware)) {
            Rules::One(routing) => Ok(HostsReports::One(Box::new(report(options(routing))))),
            Rules::All => Ok(HostsReports::All(Box::new(Comparison {
                hosts,
                speed,
                load_without_cache: extent.load_at(speed, hosts, rate),
                without_cache: report(HostsOptions { cached: false, ..options(Routing::LeastLoaded) }),
                routings: Routing::ALL.map(|routing| report(options(routing))).into(),
            }))),
        }
    }
}

impl HostsReports {
    /// For people.
    pub(super) fn text(&self, note: Option<String>) -> String {
        let text = match self {
            Self::One(report) => one(report),
            Self::All(comparison) => comparison.text(),
        };
        note.map_or(text.clone(), |note| format!("{text}\n{note}"))
    }
}

/// A rule as a row.
fn row(name: &str, report: &HostsReport) -> [String; 8] {
    let times = report.prediction.times.map(|times| times.ttft_us);
    let time = |of: Option<u64>| of.map_or_else(|| "-".to_owned(), millis);
    [
        name.to_owned(),
        percent(report.replay.hit_rate),
        time(times.map(|ttft| ttft.mean)),
        time(times.map(|ttft| ttft.p50)),
        time(times.map(|ttft| ttft.p99)),
        percent(report.utilisation),
        format!("{:.2}", report.imbalance.computing.max_over_mean),
        percent(report.duplicated),
    ]
}

const HEADER: [&str; 8] = ["routing", "hit rate", "TTFT mean", "p50", "p99", "busy", "max / mean", "duplicated"];

const LEGEND: &str = "busy: share of the time for which engines compute; max / mean: the busiest against the average; \
                      duplicated: blocks that another host has, too.";

impl Comparison {
    fn text(&self) -> String {
        let named = |report: &HostsReport| row(report.routing, report);
        let without = row("(no cache)", &self.without_cache);
        let rows = std::iter::once(without).chain(self.routings.iter().map(named));
        let busy = self
            .load_without_cache
            .map_or_else(String::new, |load| format!(", {} busy without a cache", percent(load)));
        let best =
            self.routings.iter().filter_map(|report| Some((report.prediction.times?.ttft_us.mean, report.routing)));
        let best =
            best.min().map_or_else(String::new, |(_, name)| format!("\nThe first token comes soonest by {name}."));
        format!(
            "{} hosts, requests {:.2} times as fast as recorded{busy}.\n{}\n{LEGEND}{best}",
            self.hosts,
            self.speed,
            numbers(HEADER, rows),
        )
    }
}

fn one(report: &HostsReport) -> String {
    let host = |(number, host): (usize, &HostFigures)| {
        [
            number.to_string(),
            thousands(host.requests),
            thousands(host.prompt_tokens),
            percent(host.hit_rate),
            percent(host.utilisation),
        ]
    };
    let header = ["host", "requests", "prompt tokens", "hit rate", "busy"];
    let hosts = numbers(header, report.by_host.iter().enumerate().map(host));
    let rule = numbers(HEADER, [row(report.routing, report)]);
    format!("{}\n{hosts}\n{rule}\n{LEGEND}", replayed::text(&report.replay))
}
