//! Several hosts, each with a planner of its own, a drive and an engine, and a router before them; or one host, for its times.

use std::sync::Arc;

use super::machine::{Busy, Machine, Served};
use super::pace::Arrivals;
use super::report::{ReplayReport, TierTokens};
use super::routing::{Routing, Sent, Sessions, cost, least};
use super::simulate::{SimulateOptions, Simulation, chain_keys, trace_key};
use super::{RequestView, Tally};
use crate::vocab::{BlockKey, TierCounts, Timestamp};

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct HostsOptions {
    /// The tiers of each host.
    pub tiers: SimulateOptions,
    /// Its sizes and speeds.
    pub machine: Machine,
    /// How many hosts there are, 64 at most.
    pub hosts: usize,
    /// Which one a request goes to.
    pub routing: Routing,
    /// Requests wait for an engine that computes others' prompts, first come, first served. Else each finds it idle.
    pub queued: bool,
    /// Whether there is a cache at all.
    pub cached: bool,
    /// How many times as fast as recorded the requests come.
    pub speed: f64,
}

impl HostsOptions {
    /// One host whose engine is always idle.
    #[must_use]
    pub fn alone(tiers: SimulateOptions, machine: Machine) -> Self {
        Self { tiers, machine, hosts: 1, routing: Routing::RoundRobin, queued: false, cached: true, speed: 1.0 }
    }
}

/// One host.
pub(super) struct Host {
    pub simulation: Simulation,
    pub busy: Busy,
    /// What was loaded of what was hit.
    pub loaded: TierTokens,
    /// Seconds that its engine has computed.
    pub computed_s: f64,
}

/// A run's hosts, and the times of its requests.
pub struct Hosts {
    pub(super) options: HostsOptions,
    pub(super) block_tokens: u32,
    pub(super) hosts: Vec<Host>,
    pub(super) tally: Tally,
    /// Microseconds to each request's first token, and those that computing its whole prompt on an idle engine takes.
    pub(super) first_tokens_us: Vec<u64>,
    pub(super) computing_us: Vec<u64>,
    /// When the last request came.
    pub(super) span_s: f64,
    given_s: Vec<f64>,
    turn: usize,
    sessions: Sessions,
    sent: Sent,
}

impl Hosts {
    /// Empty and idle.
    #[must_use]
    pub fn new(options: HostsOptions, block_tokens: u32) -> Self {
        let host = || Host {
            simulation: Simulation::new(options.tiers),
            busy: Busy::default(),
            loaded: TierTokens::default(),
            computed_s: 0.0,
        };
        Self {
            options,
            block_tokens,
            hosts: std::iter::repeat_with(host).take(options.hosts.max(1)).collect(),
            tally: Tally::default(),
            first_tokens_us: Vec::new(),
            computing_us: Vec::new(),
            span_s: 0.0,
            given_s: vec![0.0; options.hosts.max(1)],
            turn: 0,
            sessions: Sessions::default(),
            sent: Sent::default(),
        }
    }

    /// Replays requests in order of their timestamps. `progress` is called after each with how many are done.
    pub fn run<'a>(&mut self, requests: impl Iterator<Item = RequestView<'a>>, mut progress: impl FnMut(u64, &Tally)) {
        for (done, (at_s, request)) in (1..).zip(Arrivals::new(requests, self.options.speed)) {
            self.request(at_s, &request);
            progress(done, &self.tally);
        }
    }

    fn request(&mut self, at_s: f64, request: &RequestView<'_>) {
        let keys = chain_keys(request);
        let at = self.route(at_s, request, &keys);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time at another pace is a time")]
        let now = Timestamp(if self.options.speed == 1.0 {
            request.timestamp_ms
        } else {
            (request.timestamp_ms as f64 / self.options.speed) as u64
        });
        let found = if self.options.cached {
            self.hosts[at].simulation.chain(now, request, &keys, self.block_tokens)
        } else {
            TierCounts::default()
        };
        let served = self.serve(at, at_s, request, found);
        let host = &mut self.hosts[at];
        host.busy = served.busy;
        host.loaded.ram += served.loaded.ram;
        host.loaded.nvme += served.loaded.nvme;
        host.computed_s += served.computing_s;
        self.given_s[at] = host.computed_s;
        self.tally.add(request, found, self.block_tokens);
        self.first_tokens_us.push(micros(served.first_token_s - at_s));
        self.computing_us.push(micros(self.options.machine.computing_s(request.input_length)));
        self.span_s = at_s;
        if self.hosts.len() > 1 {
            self.sent.sent(request.hash_ids, at);
        }
        if self.options.routing == Routing::SessionSticky {
            self.sessions.sent(request.hash_ids, at);
        }
    }

    /// How a host would serve a request of which it has so much.
    fn serve(&self, host: usize, at_s: f64, request: &RequestView<'_>, found: TierCounts) -> Served {
        let mut busy = self.hosts[host].busy;
        if !self.options.queued {
            busy.engine_s = 0.0;
        }
        let hit = TierTokens::of(request, found, self.block_tokens);
        self.options.machine.serve(at_s, request.input_length, hit, busy)
    }

    fn route(&mut self, at_s: f64, request: &RequestView<'_>, keys: &Arc<[BlockKey]>) -> usize {
        match self.options.routing {
            Routing::RoundRobin => {
                self.turn += 1;
                (self.turn - 1) % self.hosts.len()
            }
            Routing::LeastLoaded => self.idlest(at_s),
            Routing::SessionSticky => self.sessions.host_of(request.hash_ids).unwrap_or_else(|| self.idlest(at_s)),
            Routing::CacheAware => {
                self.cheapest(at_s, request, |host| self.hosts[host].simulation.planner().prefix(keys))
            }
            Routing::CacheApproximate => self.cheapest(at_s, request, |host| {
                // Where in a host it is, is not known either: in its larger tier.
                let run = u32::try_from(self.sent.run(request.hash_ids, host)).unwrap_or(u32::MAX);
                let has_drive = self.options.tiers.nvme_blocks > 0;
                let (ram, nvme) = if has_drive { (0, run) } else { (run, 0) };
                TierCounts { ram, nvme, ..TierCounts::default() }
            }),
        }
    }

    fn idlest(&self, at_s: f64) -> usize {
        least(self.hosts.iter().map(|host| (host.busy.engine_s - at_s).max(0.0)), &self.given_s)
    }

    fn cheapest(&self, at_s: f64, request: &RequestView<'_>, has: impl Fn(usize) -> TierCounts) -> usize {
        let least_given_s = self.given_s.iter().copied().fold(f64::INFINITY, f64::min);
        let of = |(host, given_s): (usize, &f64)| {
            let served = self.serve(host, at_s, request, has(host));
            cost(served.first_token_s - at_s, served.computing_s, given_s - least_given_s)
        };
        least(self.given_s.iter().enumerate().map(of), &self.given_s)
    }

    /// Blocks that hosts have, and how many different ones these are.
    pub(super) fn held(&self) -> (u64, u64) {
        let has = |host: usize, key: &BlockKey| {
            self.hosts[host].simulation.planner().inspect(key).is_some_and(|block| block.readable)
        };
        self.sent.blocks().fold((0, 0), |(held, distinct), (id, hosts)| {
            let key = trace_key(id);
            let copies = hosts.filter(|host| has(*host, &key)).count() as u64;
            (held + copies, distinct + u64::from(copies > 0))
        })
    }

    /// What all hosts hit together, as a simulation of one says it.
    pub(super) fn replayed(&self) -> ReplayReport {
        let mut reports = self.hosts.iter().map(|host| host.simulation.report());
        let Some(first) = reports.next() else { return self.tally.report("", 0) };
        let mut sum = ReplayReport { crash: first.crash, ..self.tally.report(&first.policy, 0) };
        for report in std::iter::once(first).chain(reports) {
            sum.capacity_blocks += report.capacity_blocks;
            for (sum, part) in [
                (&mut sum.ram_blocks, report.ram_blocks),
                (&mut sum.nvme_blocks, report.nvme_blocks),
                (&mut sum.blocks_written, report.blocks_written),
            ] {
                *sum = part.map(|part| sum.unwrap_or(0) + part);
            }
        }
        sum
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time to wait is not below zero")]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
