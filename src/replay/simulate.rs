//! A replay on the planner alone, with a virtual clock: all work that the planner commands is done at once.
//!
//! It sends the planner the events that a live replay causes, in the same order, so that both count the same hits:
//! lease what is readable, promote what of it is not in RAM, offer the whole chain, fill what is wanted, release.

use std::sync::Arc;
use std::time::Duration;

use super::{ReplayReport, RequestView, Tally, Trace};
use crate::plan::{
    AdmissionKind, Answer, Command, Event, InstanceNo, LeaseError, Offer, Options, Planner, PolicyKind, PutId, Transfer,
};
use crate::vocab::{BlockKey, Owner, SlotClass, TierCounts, TierShape, Timestamp};

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
}

impl SimulateOptions {
    /// Tiers of so many blocks with the daemon's defaults.
    #[must_use]
    pub fn lru(ram_blocks: u64, nvme_blocks: u64) -> Self {
        Self { ram_blocks, nvme_blocks, policy: PolicyKind::Lru, admission: AdmissionKind::default() }
    }
}

/// A cache without bytes.
pub struct Simulation {
    planner: Planner,
    options: SimulateOptions,
    commands: Vec<Command>,
    pending: Vec<Event>,
    requests: u64,
    tally: Tally,
}

/// Slots of simulated tiers: the smallest there are, since nothing is put into them.
const SLOT_BYTES: u32 = 4096;

impl Simulation {
    /// An empty cache.
    #[must_use]
    pub fn new(options: SimulateOptions) -> Self {
        let tier = |blocks| {
            SlotClass::of_bytes(SLOT_BYTES).map_or(TierShape::NONE, |class| TierShape::of_slots(blocks, class))
        };
        let planner = Planner::new(Options {
            policy: options.policy,
            admission: options.admission,
            write_queue_bytes: u64::MAX,
            ..Options::new(tier(options.ram_blocks), tier(options.nvme_blocks))
        });
        Self { planner, options, commands: Vec::new(), pending: Vec::new(), requests: 0, tally: Tally::default() }
    }

    /// Replays one request.
    pub fn request(&mut self, request: &RequestView<'_>, block_tokens: u32) {
        let keys: Arc<[BlockKey]> = request.hash_ids.iter().map(|id| trace_key(*id)).collect();
        let counts = self.visit(Timestamp(request.timestamp_ms), &keys);
        self.tally.add(request, counts, block_tokens);
    }

    /// Looks a chain up, loads what is hit, stores what is missed.
    pub fn visit(&mut self, now: Timestamp, keys: &Arc<[BlockKey]>) -> TierCounts {
        let counts = self.planner.prefix(keys);
        let instance = InstanceNo(0);
        self.requests += 1;
        let ttl = Duration::from_secs(60);
        let leased = self.on(now, Event::Lease { instance, request: self.requests.into(), keys: keys.clone(), ttl });
        for key in &keys[counts.ram as usize..counts.hit() as usize] {
            self.on(now, Event::Want { key: *key });
        }
        let put = PutId(self.requests);
        let owner = Owner::default();
        let offer = Offer { put, parent: None, depth: 0, keys: keys.clone(), payload_max: SLOT_BYTES, owner };
        if let Answer::Offered { wanted, .. } = self.on(now, Event::Offer(offer)) {
            for block in wanted.into_iter().flatten() {
                self.on(now, Event::Need { block });
            }
        }
        self.on(now, Event::PutEnded { put });
        if let Answer::Leased(Ok::<_, LeaseError>(Some(leased))) = leased {
            self.on(now, Event::Release { instance, lease: leased.lease });
        }
        counts
    }

    /// Tells the planner, and does at once whatever it commands.
    fn on(&mut self, now: Timestamp, event: Event) -> Answer {
        let answer = self.planner.on(now, event, &mut self.commands);
        while !self.commands.is_empty() {
            self.pending.extend(self.commands.drain(..).filter_map(done));
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
        }
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
        Command::Fill { block, .. } => Some(Event::Filled { block, generation: 0, length: SLOT_BYTES, crc: 0 }),
        Command::Write(write) => Some(Event::Wrote { block: write.block, outcome: Transfer::Done(0) }),
        Command::Load(load) => Some(Event::Loaded { block: load.block, outcome: Transfer::Done(0) }),
        Command::Erase { slot, .. } => Some(Event::Erased { slot }),
        Command::Retire { slot, .. } => Some(Event::RamFreed { slot }),
        Command::Publish { .. } | Command::Unpublish { .. } | Command::Unloadable { .. } | Command::Refuse { .. } => {
            None
        }
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

fn trace_key(id: u64) -> BlockKey {
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
