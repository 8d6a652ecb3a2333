//! A replay on the planner alone, with a virtual clock: all work that the planner commands is done at once.
//!
//! It sends the planner the events that a live replay causes, in the same order, so that both count the same hits:
//! lease what is readable, promote what of it is not in RAM, offer the whole chain, fill what is wanted, release.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::crash::{REQUESTS_AFTER_CRASH, Rows};
use super::lru::LruTier;
use super::report::CrashFigures;
use super::{ReplayReport, RequestView, Requests, Tally, Trace, TraceError};
use crate::plan::{
    AdmissionKind, Answer, BlockRef, Command, Event, InstanceNo, LeaseError, Offer, Options, Planner, PolicyKind,
    PutId, Transfer,
};
use crate::vocab::limits::PUT_AHEAD;
use crate::vocab::{BlockKey, Hints, Owner, OwnerPath, Retention, SlotClass, TierCounts, TierShape, Timestamp};

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct SimulateOptions {
    /// Blocks that RAM holds.
    pub ram_blocks: u64,
    /// Blocks that NVMe holds; 0 for a single tier.
    pub nvme_blocks: u64,
    /// What goes first.
    pub policy: PolicyKind,
    /// What is written to NVMe.
    pub admission: AdmissionKind,
    /// Blocks a day that the drive may be written before its wear budget counts.
    pub wear_blocks_per_day: Option<u64>,
    /// The daemon is killed after so many requests and starts again at once.
    pub crash_after: Option<u64>,
}

impl SimulateOptions {
    /// The same with LRU, whose order is known from elsewhere.
    #[must_use]
    pub fn lru(ram_blocks: u64, nvme_blocks: u64) -> Self {
        Self { policy: PolicyKind::Lru, ..Self::new(ram_blocks, nvme_blocks) }
    }

    /// Tiers of so many blocks with the daemon's defaults.
    #[must_use]
    pub fn new(ram_blocks: u64, nvme_blocks: u64) -> Self {
        Self {
            ram_blocks,
            nvme_blocks,
            policy: PolicyKind::default(),
            admission: AdmissionKind::default(),
            wear_blocks_per_day: None,
            crash_after: None,
        }
    }

    /// Whether nothing but the order of touches decides what is hit.
    fn is_lru_of_one_tier(&self) -> bool {
        self.policy == PolicyKind::Lru && self.nvme_blocks == 0 && self.crash_after.is_none()
    }

    fn planner(&self) -> Planner {
        let tier = |blocks| {
            SlotClass::of_bytes(SLOT_BYTES).map_or(TierShape::NONE, |class| TierShape::of_slots(blocks, class))
        };
        Planner::new(Options {
            policy: self.policy,
            admission: self.admission,
            wear_bytes_per_day: self.wear_blocks_per_day.map(|blocks| blocks.saturating_mul(SLOT_BYTES.into())),
            write_queue_bytes: u64::MAX,
            ..Options::new(tier(self.ram_blocks), tier(self.nvme_blocks))
        })
    }
}

/// A cache without bytes.
pub struct Simulation {
    planner: Planner,
    options: SimulateOptions,
    commands: Vec<Command>,
    pending: Vec<Event>,
    /// Blocks of the put that have their slots and not yet their bytes, in order.
    slots: VecDeque<BlockRef>,
    requests: u64,
    tally: Tally,
    /// Blocks written to NVMe before the last crash.
    written: u64,
    rows: Option<Rows>,
    /// Blocks recovered by the start after the crash, and the tally when it happened and at the end of what it is judged by.
    crash: Option<(u64, Tally, Tally)>,
}

/// Slots of simulated tiers: the smallest there are, since nothing is put into them.
const SLOT_BYTES: u32 = 4096;

impl Simulation {
    /// An empty cache.
    #[must_use]
    pub fn new(options: SimulateOptions) -> Self {
        Self {
            planner: options.planner(),
            options,
            commands: Vec::new(),
            pending: Vec::new(),
            slots: VecDeque::new(),
            requests: 0,
            tally: Tally::default(),
            written: 0,
            rows: options.crash_after.map(|_| Rows::default()),
            crash: None,
        }
    }

    /// Replays one request. How its blocks were found.
    pub fn request(&mut self, request: &RequestView<'_>, block_tokens: u32) -> TierCounts {
        self.chain(Timestamp(request.timestamp_ms), request, &chain_keys(request), block_tokens)
    }

    /// The same, where its keys are known, and at a time that need not be the trace's.
    pub fn chain(
        &mut self,
        now: Timestamp,
        request: &RequestView<'_>,
        keys: &Arc<[BlockKey]>,
        block_tokens: u32,
    ) -> TierCounts {
        let counts = self.visit(now, keys, request.hints());
        self.tally.add(request, counts, block_tokens);
        if self.options.crash_after == Some(self.requests) {
            self.die();
        } else if let Some((_, _, after)) = &mut self.crash
            && self.options.crash_after.is_some_and(|died| self.requests <= died + REQUESTS_AFTER_CRASH)
        {
            *after = self.tally;
        }
        counts
    }

    fn die(&mut self) {
        self.written += self.planner.counters().nvme_written;
        let planner = self.options.planner();
        let recovered;
        (self.planner, recovered) = match &self.rows {
            Some(rows) => rows.restart(planner),
            None => (planner, 0),
        };
        self.crash = Some((recovered, self.tally, self.tally));
    }

    /// Looks a chain up, loads what is hit, stores what is missed.
    pub fn visit(&mut self, now: Timestamp, keys: &Arc<[BlockKey]>, hints: Hints) -> TierCounts {
        let counts = self.planner.prefix(keys);
        let instance = InstanceNo(0);
        self.requests += 1;
        let ttl = Duration::from_secs(60);
        let leased = self.on(now, Event::Lease { instance, request: self.requests.into(), keys: keys.clone(), ttl });
        for key in &keys[counts.ram as usize..counts.hit() as usize] {
            self.on(now, Event::Want { key: *key });
        }
        if counts.nvme > 0
            && let Some(deepest) = keys[..counts.hit() as usize].last()
        {
            // As `Cache::used` does.
            self.on(now, Event::Used { deepest: *deepest, leased: true });
        }
        let put = PutId(self.requests);
        let (owners, retention) = (OwnerPath::all(Owner::default()), Retention::default());
        let (keys, payload_max) = (keys.clone(), SLOT_BYTES);
        let offer = Offer { put, parent: None, depth: 0, keys, payload_max, owners, retention, hints };
        let mut all_wanted = Vec::new();
        let mut answer = self.on(now, Event::Offer(offer));
        while let Answer::Offered { wanted, more, .. } = answer {
            all_wanted.extend(wanted.into_iter().flatten());
            if !more {
                break;
            }
            answer = self.on(now, Event::OfferMore { put });
        }
        self.fill(now, &all_wanted);
        self.on(now, Event::PutEnded { put });
        self.slots.clear();
        if let Answer::Leased(Ok::<_, LeaseError>(Some(leased))) = leased {
            self.on(now, Event::Release { instance, lease: leased.lease });
        }
        counts
    }

    /// Fills the blocks that a put wants, in order, with slots asked for as far ahead as a daemon does, and drops the rest of
    /// the chain from the first one on that gets none.
    fn fill(&mut self, now: Timestamp, wanted: &[BlockRef]) {
        let mut needed = 0;
        for (at, block) in wanted.iter().enumerate() {
            while needed < wanted.len().min(at + PUT_AHEAD) {
                self.on(now, Event::Need { block: wanted[needed] });
                needed += 1;
            }
            if self.slots.pop_front_if(|slot| slot == block).is_none() {
                return;
            }
            self.on(now, Event::Filled { block: *block, generation: 0, length: SLOT_BYTES, crc: 0 });
        }
    }

    /// Tells the planner, and does at once whatever it commands.
    fn on(&mut self, now: Timestamp, event: Event) -> Answer {
        let answer = self.on_event(now, event);
        while self.planner.is_working() {
            self.on_event(now, Event::Proceed);
        }
        answer
    }

    fn on_event(&mut self, now: Timestamp, event: Event) -> Answer {
        let answer = self.planner.on(now, event, &mut self.commands);
        while !self.commands.is_empty() {
            if let Some(rows) = &mut self.rows {
                self.commands.iter().for_each(|command| rows.follow(command, now));
            }
            for command in self.commands.drain(..) {
                match command {
                    Command::Fill { block, .. } => self.slots.push_back(block),
                    command => self.pending.extend(done(command)),
                }
            }
            for event in self.pending.drain(..) {
                self.planner.on(now, event, &mut self.commands);
            }
        }
        answer
    }

    /// The planner, for its invariants' check and its counters.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// What was counted so far.
    #[must_use]
    pub fn report(&self) -> ReplayReport {
        let SimulateOptions { ram_blocks, nvme_blocks, policy, .. } = self.options;
        let capacity = if nvme_blocks > 0 { nvme_blocks } else { ram_blocks };
        let mut report = self.tally.report(policy.name(), capacity);
        if nvme_blocks > 0 {
            (report.ram_blocks, report.nvme_blocks) = (Some(ram_blocks), Some(nvme_blocks));
            report.blocks_written = Some(self.written + self.planner.counters().nvme_written);
        }
        report.crash = self.crash.map(|(blocks_recovered, before, after)| CrashFigures {
            after_requests: before.requests(),
            blocks_recovered,
            next_requests: after.requests() - before.requests(),
            next_hit_rate: after.hit_rate_since(&before),
        });
        report
    }

    /// Tokens hit so far, of how many.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// The event with which a command ends, in a world where everything succeeds at once.
fn done(command: Command) -> Option<Event> {
    match command {
        Command::Write(write) => Some(Event::Wrote { block: write.block, outcome: Transfer::Done(0) }),
        Command::Load(load) => Some(Event::Loaded { block: load.block, outcome: Transfer::Done(0) }),
        Command::Erase { slot, .. } => Some(Event::Erased { slot }),
        Command::Retire { slot, .. } => Some(Event::RamFreed { slot }),
        Command::Fill { .. }
        | Command::Publish { .. }
        | Command::Unpublish { .. }
        | Command::Unloadable { .. }
        | Command::Refuse { .. }
        | Command::Promise { .. }
        | Command::Unpromise { .. } => None,
    }
}

/// Replays a whole trace. `progress` is called after each request with how many are done.
pub fn simulate(trace: &Trace, options: SimulateOptions, mut progress: impl FnMut(u64, &Tally)) -> ReplayReport {
    let mut simulation = Simulation::new(options);
    for (done, request) in (1..).zip(trace.requests()) {
        simulation.request(&request, trace.block_tokens());
        progress(done, simulation.tally());
    }
    simulation.report()
}

/// The same of a trace that is read as it comes, of any size. LRU of one tier needs no planner to count the same.
///
/// # Errors
/// The first request that can't be read.
pub fn simulate_requests(
    requests: Requests,
    options: SimulateOptions,
    mut progress: impl FnMut(u64, &RequestView<'_>, &Tally),
) -> Result<ReplayReport, TraceError> {
    let block_tokens = requests.block_tokens();
    if options.is_lru_of_one_tier() {
        let (mut tier, mut tally) = (LruTier::new(options.ram_blocks), Tally::default());
        for (done, request) in (1..).zip(requests) {
            let request = request?;
            tally.add(&request.view(), tier.visit(&request.view()), block_tokens);
            progress(done, &request.view(), &tally);
        }
        return Ok(tally.report(options.policy.name(), options.ram_blocks));
    }
    let mut simulation = Simulation::new(options);
    for (done, request) in (1..).zip(requests) {
        let request = request?;
        simulation.request(&request.view(), block_tokens);
        progress(done, &request.view(), simulation.tally());
    }
    Ok(simulation.report())
}

/// The keys of a request's blocks.
#[must_use]
pub fn chain_keys(request: &RequestView<'_>) -> Arc<[BlockKey]> {
    request.hash_ids.iter().map(|id| trace_key(*id)).collect()
}

/// The key of one block of a trace.
#[must_use]
pub fn trace_key(id: u64) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&id.to_le_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::{GenerateOptions, Generator, reference, shared};
    use super::*;

    fn hit_rate(trace: &Trace, ram_blocks: u64, nvme_blocks: u64) -> f64 {
        let options = SimulateOptions::lru(ram_blocks, nvme_blocks);
        simulate(trace, options, |_, _| {}).hit_rate
    }

    fn generated() -> Trace {
        let options = GenerateOptions { requests: 300, ..GenerateOptions::default() };
        let generator = Generator::new(options).unwrap();
        Trace::collect(GenerateOptions::default().block_tokens, generator)
    }

    #[test]
    fn the_planner_meets_every_golden_lru_figure_to_four_digits() {
        let Some(path) = shared::find("reference/golden/lru_hit_rates.json") else { return };
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (name, figures) in golden["traces"].as_object().unwrap() {
            let Some(trace) = shared::mooncake(name) else { return };
            for point in figures["points"].as_array().unwrap() {
                let capacity = point["capacity_blocks"].as_u64().unwrap();
                let found = hit_rate(&trace, capacity, 0);
                let expected = point["lru"].as_f64().unwrap();
                assert!((found - expected).abs() < 0.000_05, "{name} {capacity}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn with_two_tiers_the_larger_one_bounds_what_is_hit() {
        let trace = generated();
        for capacity in [300, 700, 2_000] {
            let (hit, prompt) = reference::lru_tokens(&trace, capacity);
            #[expect(clippy::cast_precision_loss, reason = "a ratio of small counts")]
            let expected = hit as f64 / prompt as f64;
            assert_eq!(hit_rate(&trace, 250, capacity as u64), expected, "{capacity}");
        }
    }

    #[test]
    fn after_a_crash_what_was_always_written_is_warm_and_what_was_written_late_is_not() {
        let trace = generated();
        let next = |admission| {
            let options = SimulateOptions { admission, crash_after: Some(150), ..SimulateOptions::lru(250, 2_000) };
            simulate(&trace, options, |_, _| {}).crash.unwrap()
        };
        let [always, second, eviction] = AdmissionKind::ALL.map(next);
        assert_eq!((always.after_requests, always.next_requests), (150, 150));
        assert!(
            always.blocks_recovered > second.blocks_recovered && always.blocks_recovered > eviction.blocks_recovered
        );
        assert!(always.next_hit_rate > second.next_hit_rate, "{always:?} {second:?}");
        assert!(always.next_hit_rate > eviction.next_hit_rate, "{always:?} {eviction:?}");
        let uncrashed = simulate(&trace, SimulateOptions::lru(250, 2_000), |_, _| {});
        let crashed = SimulateOptions { crash_after: Some(150), ..SimulateOptions::lru(250, 2_000) };
        let crashed = simulate(&trace, crashed, |_, _| {});
        assert_eq!(crashed.hit_tokens, uncrashed.hit_tokens, "nothing that NVMe has is lost by a crash");
        assert!(crashed.by_tier.ram < uncrashed.by_tier.ram);
    }

    #[test]
    fn the_invariants_hold_after_every_event_of_a_replay() {
        let trace = generated();
        let mut simulation = Simulation::new(SimulateOptions::lru(250, 600));
        for request in trace.requests() {
            simulation.request(&request, trace.block_tokens());
            simulation.planner().check().unwrap();
            assert!(simulation.planner().is_quiet());
        }
    }
}
