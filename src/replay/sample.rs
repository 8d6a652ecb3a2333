//! A part of a trace that stands for the whole: spatial sampling (SHARDS: Waldspurger et al., "Efficient MRC construction with SHARDS",
//! FAST 2015). What is kept or left out by a hash is a whole conversation, because a hit is an unbroken run of blocks; a cache of so
//! many blocks is then one of as many times the rate.
//!
//! A conversation is known by a block near its head, and not by the first: system prompts are at the head of many, or all (each request
//! of Mooncake's traces begins with the same block), and a hash of the first block would keep everything or nothing.

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use super::{RequestView, Trace};

/// A block that more than one in so many requests have is the head of several conversations, if they part below it.
const CROWD_ONE_IN: usize = 50;
/// Conversations part at a block that is followed by more than so many different ones; fewer are a conversation that forks.
const FORKS_MAX: u32 = 8;

/// Some conversations of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Their requests.
    pub trace: Trace,
    /// Their distinct blocks, of one of all: capacities are multiplied by it.
    pub rate: f64,
}

/// How far a sample is off, measured with LRU, whose hit rates are known and which is estimated in the same way for this: in hit rate,
/// over all capacities of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SampleError {
    /// Distinct blocks that were sampled, of one of all.
    pub rate: f64,
    /// Requests that were sampled.
    pub requests: u64,
    /// The largest difference.
    pub lru_error_max: f64,
    /// The mean of all.
    pub lru_error_mean: f64,
}

impl Sample {
    /// Keeps about `rate` of all conversations, from 0 to 1: the same ones each time.
    #[must_use]
    pub fn of(trace: &Trace, rate: f64) -> Self {
        let tree = Tree::of(trace);
        let is_kept =
            |request: &RequestView<'_>| tree.conversation(request.hash_ids).is_some_and(|id| place(id) < rate);
        let kept =
            Trace::collect(trace.block_tokens(), trace.requests().filter(is_kept).map(|request| request.to_owned()));
        let distinct: HashSet<u64> = kept.requests().flat_map(|request| request.hash_ids.iter().copied()).collect();
        Self { trace: kept, rate: distinct.len() as f64 / tree.blocks.len().max(1) as f64 }
    }

    /// How many blocks of the sample stand for so many of the trace.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the blocks of the trace")]
    pub fn blocks(&self, blocks: u64) -> u64 {
        ((blocks as f64 * self.rate).round() as u64).max(1)
    }
}

/// How a trace's blocks follow each other.
struct Tree {
    /// Requests that have a block, and how many different blocks follow it.
    blocks: HashMap<u64, (u32, u32)>,
    /// In more requests than this is a crowd.
    crowd: usize,
}

impl Tree {
    fn of(trace: &Trace) -> Self {
        let mut blocks: HashMap<u64, (u32, u32)> = HashMap::new();
        for request in trace.requests() {
            let mut before = None;
            for id in request.hash_ids {
                let (uses, _) = blocks.entry(*id).or_default();
                *uses += 1;
                // An id stands for its whole prefix, so it follows one other.
                if let (1, Some((_, followers))) = (*uses, before.and_then(|before| blocks.get_mut(&before))) {
                    *followers += 1;
                }
                before = Some(*id);
            }
        }
        Self { blocks, crowd: trace.len() / CROWD_ONE_IN }
    }

    /// The block by which a request's conversation is known: its first, or, while a crowd has that, the first below the next parting.
    fn conversation(&self, ids: &[u64]) -> Option<u64> {
        let of = |id: &u64| self.blocks.get(id).copied().unwrap_or_default();
        let mut known_by = ids.first()?;
        for (block, next) in ids.iter().zip(ids.iter().skip(1)) {
            if of(known_by).0 as usize <= self.crowd {
                break;
            }
            if of(block).1 > FORKS_MAX {
                known_by = next;
            }
        }
        Some(*known_by)
    }
}

/// Where a block's hash lies, from 0 to 1.
fn place(id: u64) -> f64 {
    let hash = blake3::hash(&id.to_le_bytes());
    let (head, _) = hash.as_bytes().split_at(8);
    let number = head.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    number as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::super::{GenerateOptions, Generator, TraceRequest};
    use super::*;

    #[test]
    fn a_conversation_is_in_with_all_its_requests_or_not_at_all() {
        let options = GenerateOptions { requests: 3_000, ..GenerateOptions::default() };
        let trace = Trace::collect(512, Generator::new(options).unwrap());
        let sample = Sample::of(&trace, 0.25);
        assert!((0.15..0.35).contains(&sample.rate), "{}", sample.rate);
        // What a request of the sample could hit in the whole trace it can hit in the sample.
        let mut seen: HashSet<u64> = HashSet::new();
        let mut runs: HashMap<Vec<u64>, Vec<usize>> = HashMap::new();
        for (of_sample, trace) in [(false, &trace), (true, &sample.trace)] {
            seen.clear();
            for request in trace.requests() {
                let run = request.hash_ids.iter().take_while(|id| seen.contains(*id)).count();
                seen.extend(request.hash_ids);
                if of_sample {
                    let expected = runs.get_mut(request.hash_ids).unwrap().remove(0);
                    assert!(run <= expected, "no more than in the whole");
                    // All but the part that many share.
                    assert!(expected - run <= 8, "{run} of {expected}");
                } else {
                    runs.entry(request.hash_ids.to_vec()).or_default().push(run);
                }
            }
        }
        assert_eq!(Sample::of(&trace, 1.0).trace, trace);
        assert_eq!((Sample::of(&trace, 1.0).rate, Sample::of(&trace, 1.0).blocks(77)), (1.0, 77));
        assert_eq!(sample, Sample::of(&trace, 0.25), "the same each time");
    }

    #[test]
    fn a_block_that_all_have_in_common_does_not_decide() {
        let request =
            |id: u64| TraceRequest { timestamp_ms: id, input_length: 2, output_length: 1, hash_ids: vec![0, id] };
        let trace = Trace::collect(1, (1..=4_000).map(request));
        let sample = Sample::of(&trace, 0.5);
        assert!((1_900..2_100).contains(&sample.trace.len()), "{}", sample.trace.len());
        assert!((sample.rate - 0.5).abs() < 0.03 && sample.blocks(1) == 1);
        let none = Sample::of(&Trace::collect(1, []), 0.5);
        assert!(none.trace.is_empty() && none.rate == 0.0);
    }
}
