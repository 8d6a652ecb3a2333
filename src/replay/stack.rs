//! The LRU hit rate of every capacity in one pass: stack distances (Mattson et al., "Evaluation techniques for storage hierarchies",
//! IBM Systems Journal 9(2), 1970).
//!
//! A request's blocks are touched from tail to head, so along a chain the blocks lie deeper and deeper in the stack, and the run that
//! a capacity hits ends with the first that lies deeper than it. What a request hits at any capacity is so known by the depth of each
//! of its blocks. A block's depth is how many distinct blocks were touched since: a Fenwick tree over the touches counts them.

use hashbrown::HashMap;

use super::{RequestView, Trace};

/// Hit tokens of an LRU of one tier, from cold, by how many blocks it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitCurve {
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// For each number of blocks at which something more is hit, in order: what is hit with so many.
    steps: Vec<(u64, u64)>,
}

impl HitCurve {
    /// Goes over the trace once. `progress` is called after each request with how many are done.
    #[must_use]
    pub fn of_lru(trace: &Trace, mut progress: impl FnMut(u64)) -> Self {
        let mut maker = CurveMaker::new(trace.block_tokens());
        for (done, request) in (1..).zip(trace.requests()) {
            maker.add(&request);
            progress(done);
        }
        maker.finish()
    }

    /// Tokens hit with so many blocks.
    #[must_use]
    pub fn hit_tokens(&self, blocks: u64) -> u64 {
        let at = self.steps.partition_point(|(needed, _)| *needed <= blocks);
        at.checked_sub(1).map_or(0, |at| self.steps[at].1)
    }

    /// The same over all prompt tokens.
    #[must_use]
    pub fn hit_rate(&self, blocks: u64) -> f64 {
        self.rate(self.hit_tokens(blocks))
    }

    /// What no capacity can exceed.
    #[must_use]
    pub fn ceiling(&self) -> f64 {
        self.rate(self.steps.last().map_or(0, |(_, tokens)| *tokens))
    }

    /// The fewest blocks with which this share of what can be hit is hit.
    #[must_use]
    pub fn blocks_for(&self, share: f64) -> u64 {
        let most = self.steps.last().map_or(0, |(_, tokens)| *tokens);
        let at = self.steps.partition_point(|(_, tokens)| (*tokens as f64) < share * most as f64);
        self.steps.get(at).or(self.steps.last()).map_or(0, |(blocks, _)| *blocks)
    }

    /// The fewest blocks that hit at least this share of all prompt tokens; nothing where no capacity does.
    #[must_use]
    pub fn blocks_to_hit(&self, rate: f64) -> Option<u64> {
        let at = self.steps.partition_point(|(_, tokens)| self.rate(*tokens) < rate);
        self.steps.get(at).map(|(blocks, _)| *blocks)
    }

    fn rate(&self, tokens: u64) -> f64 {
        super::info::share(tokens, self.prompt_tokens)
    }
}

/// Makes the curve of requests that come one by one, in order of time, in some 60 bytes a distinct block.
#[derive(Default)]
pub struct CurveMaker {
    block_tokens: u32,
    stack: Stack,
    /// What each depth adds to what is hit; as long as the deepest that was hit.
    gained: Vec<u64>,
    prompt_tokens: u64,
}

impl CurveMaker {
    /// Of nothing yet.
    #[must_use]
    pub fn new(block_tokens: u32) -> Self {
        Self { block_tokens, ..Self::default() }
    }

    /// Counts the next request.
    pub fn add(&mut self, request: &RequestView<'_>) {
        self.prompt_tokens += request.input_length;
        let (mut deepest, mut hit) = (0, 0);
        for (run, id) in (1..).zip(request.hash_ids) {
            let Some(depth) = self.stack.depth(*id) else { break };
            deepest = depth.max(deepest);
            let with = request.hit_tokens(run, self.block_tokens);
            self.gain(deepest, with - hit);
            hit = with;
        }
        request.hash_ids.iter().rev().for_each(|id| self.stack.touch(*id));
    }

    fn gain(&mut self, depth: usize, tokens: u64) {
        if self.gained.len() <= depth {
            // Not twice as much each time: of many blocks that would be most of the memory.
            let more = (depth + 1 - self.gained.len()).max(self.gained.len() / 8);
            self.gained.reserve_exact(more);
            self.gained.resize(depth + 1, 0);
        }
        self.gained[depth] += tokens;
    }

    /// All are counted.
    #[must_use]
    pub fn finish(self) -> HitCurve {
        let Self { stack, gained, prompt_tokens, .. } = self;
        drop(stack);
        let mut sum = 0;
        let mut steps = Vec::new();
        for (blocks, tokens) in (0..).zip(gained).filter(|(_, tokens)| *tokens > 0) {
            sum += tokens;
            steps.push((blocks, sum));
        }
        HitCurve { prompt_tokens, steps }
    }
}

/// Blocks by when they were touched last. Touches that were followed by another of the same block count nothing; when most of them are
/// such, the others are numbered anew.
#[derive(Default)]
struct Stack {
    /// By id, in halves: a place of 12 bytes and not 16.
    touched: HashMap<[u32; 2], u32>,
    /// A Fenwick tree with a one for each touch that is its block's last.
    tree: Vec<u32>,
    next: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "halves")]
fn halves(id: u64) -> [u32; 2] {
    [(id >> 32) as u32, id as u32]
}

/// Touches before the first renumbering.
const TOUCHES_MIN: usize = 1 << 16;

impl Stack {
    /// How many blocks there are from the top to this one, itself included; nothing for one that was never touched.
    fn depth(&self, id: u64) -> Option<usize> {
        let at = *self.touched.get(&halves(id))?;
        Some(self.touched.len() - self.before(at) as usize)
    }

    fn touch(&mut self, id: u64) {
        if self.next as usize >= self.tree.len() {
            self.renumber();
        }
        let at = self.next;
        self.next += 1;
        if let Some(before) = self.touched.insert(halves(id), at) {
            self.add(before, u32::MAX);
        }
        self.add(at, 1);
    }

    /// Last touches before this one.
    fn before(&self, at: u32) -> u32 {
        let (mut sum, mut place) = (0_u32, at as usize);
        while place > 0 {
            sum = sum.wrapping_add(self.tree[place - 1]);
            place &= place - 1;
        }
        sum
    }

    fn add(&mut self, at: u32, number: u32) {
        let mut place = at as usize + 1;
        while place <= self.tree.len() {
            self.tree[place - 1] = self.tree[place - 1].wrapping_add(number);
            place += place & place.wrapping_neg();
        }
    }

    fn renumber(&mut self) {
        let mut order: Vec<(u32, [u32; 2])> = self.touched.iter().map(|(id, at)| (*at, *id)).collect();
        order.sort_unstable();
        let places = (order.len() * 2).max(TOUCHES_MIN);
        self.tree.clear();
        self.tree.reserve_exact(places);
        self.tree.resize(places, 0);
        self.next = 0;
        for (_, id) in order {
            self.touched.insert(id, self.next);
            self.add(self.next, 1);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{GenerateOptions, Generator, TraceRequest, reference, shared};
    use super::*;

    #[test]
    fn the_curve_meets_every_golden_lru_figure_to_four_digits() {
        let Some(path) = shared::find("reference/golden/lru_hit_rates.json") else { return };
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (name, figures) in golden["traces"].as_object().unwrap() {
            let Some(trace) = shared::mooncake(name) else { return };
            let curve = HitCurve::of_lru(&trace, |_| {});
            for point in figures["points"].as_array().unwrap() {
                let capacity = point["capacity_blocks"].as_u64().unwrap();
                let (found, expected) = (curve.hit_rate(capacity), point["lru"].as_f64().unwrap());
                assert_eq!(format!("{found:.4}"), format!("{expected:.4}"), "{name} {capacity}");
            }
            assert!(curve.hit_rate(curve.blocks_for(0.9)) >= 0.9 * curve.ceiling());
            assert!(curve.hit_rate(curve.blocks_for(0.9) - 1) < 0.9 * curve.ceiling());
        }
    }

    #[test]
    fn it_is_that_of_an_obvious_lru_at_any_capacity_over_renumberings() {
        let options = GenerateOptions { requests: 2_500, ..GenerateOptions::default() };
        let trace = Trace::collect(512, Generator::new(options).unwrap());
        assert!(trace.block_references() > TOUCHES_MIN / 4, "{}", trace.block_references());
        let curve = HitCurve::of_lru(&trace, |_| {});
        for capacity in [0, 1, 7, 100, 500, 1_000, 2_000, 5_000, 1 << 20] {
            let (hit, prompt) = reference::lru_tokens(&trace, capacity);
            assert_eq!((curve.hit_tokens(capacity as u64), curve.prompt_tokens), (hit, prompt), "{capacity}");
        }
        assert_eq!(HitCurve::of_lru(&Trace::collect(512, []), |_| {}).ceiling(), 0.0);
    }

    proptest! {
        #[test]
        fn of_any_trace_every_capacity_is_that_of_an_obvious_lru(
            chains in prop::collection::vec((0..4_u64, 1..12_usize, 0..10_u64), 1..60),
        ) {
            let request = |(root, blocks, partial): (u64, usize, u64)| {
                let hash_ids: Vec<u64> = (0..blocks as u64).map(|depth| root * 100 + depth).collect();
                let input_length = blocks as u64 * 10 - partial;
                TraceRequest { timestamp_ms: 0, input_length, output_length: 1, hash_ids }
            };
            let trace = Trace::collect(10, chains.into_iter().map(request));
            let curve = HitCurve::of_lru(&trace, |_| {});
            for capacity in 0..50 {
                prop_assert_eq!(curve.hit_tokens(capacity as u64), reference::lru_tokens(&trace, capacity).0);
            }
        }
    }
}
