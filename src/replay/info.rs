//! What a trace is like before any cache is chosen: how much there is of it, how often blocks come back and after how
//! long, and the hit rate that an infinite cache would have.

use hashbrown::HashMap;
use serde::Serialize;

use super::Trace;

/// A trace in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceInfo {
    /// Requests.
    pub requests: u64,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Tokens of all outputs.
    pub output_tokens: u64,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Blocks that requests refer to, with repetitions.
    pub block_references: u64,
    /// Different blocks among them.
    pub distinct_blocks: u64,
    /// From the first timestamp to the last, in milliseconds.
    pub span_ms: u64,
    /// Requests a second over the span; absent where all came at once.
    pub requests_per_second: Option<f64>,
    /// Hit tokens of an infinite cache from cold over prompt tokens: what no capacity can exceed.
    pub infinite_hit_rate: f64,
    /// Share of the distinct blocks that are referred to more than once.
    pub reused_block_share: f64,
    /// References whose id followed another id, or stood at another place, when it first came. 0 unless the ids don't
    /// stand for whole prefixes.
    pub misplaced_references: u64,
    /// Requests between two uses of a block.
    pub reuse_gap_requests: Option<Quantiles>,
    /// Milliseconds between two uses of a block.
    pub reuse_gap_ms: Option<Quantiles>,
    /// Blocks of a request that an infinite cache has.
    pub prefix_depth_blocks: Option<Quantiles>,
    /// Blocks of a request.
    pub request_blocks: Option<Quantiles>,
}

/// Quantiles by nearest rank: each is a value that occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: u64,
    /// Nine tenths are at most this.
    pub p90: u64,
    /// All but a hundredth are at most this.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

impl Quantiles {
    /// Of `values`, which it sorts; `None` where there are none.
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let at = |percent: usize| values.get((values.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { p50: at(50)?, p90: at(90)?, p99: at(99)?, max: at(100)? })
    }
}

impl TraceInfo {
    /// Goes over the trace once.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let mut survey = Survey::default();
        for (number, request) in trace.requests().enumerate() {
            survey.prompt_tokens += request.input_length;
            survey.output_tokens += request.output_length;
            survey.block_references += request.blocks();
            survey.request_blocks.push(request.blocks());
            let run = request.hash_ids.iter().take_while(|id| survey.uses.contains_key(*id)).count() as u64;
            survey.prefix_depths.push(run);
            survey.hit_tokens += request.hit_tokens(run, trace.block_tokens());
            survey.note_uses(number as u64, request.timestamp_ms, request.hash_ids);
        }
        let times = || trace.requests().map(|request| request.timestamp_ms);
        let span_ms = times().next_back().unwrap_or(0) - times().next().unwrap_or(0);
        survey.conclude(trace, span_ms)
    }
}

#[derive(Default)]
struct Survey {
    prompt_tokens: u64,
    output_tokens: u64,
    hit_tokens: u64,
    block_references: u64,
    misplaced_references: u64,
    reused_blocks: u64,
    uses: HashMap<u64, Use>,
    gaps_requests: Vec<u64>,
    gaps_ms: Vec<u64>,
    prefix_depths: Vec<u64>,
    request_blocks: Vec<u64>,
}

struct Use {
    parent: Option<u64>,
    request: u64,
    at_ms: u64,
    reused: bool,
}

impl Survey {
    fn note_uses(&mut self, request: u64, at_ms: u64, ids: &[u64]) {
        let mut parent = None;
        for id in ids {
            let fresh = Use { parent, request, at_ms, reused: false };
            let last = self.uses.entry(*id).or_insert(fresh);
            if last.request < request {
                self.gaps_requests.push(request - last.request);
                self.gaps_ms.push(at_ms - last.at_ms);
                self.reused_blocks += u64::from(!last.reused);
                self.misplaced_references += u64::from(last.parent != parent);
                (last.request, last.at_ms, last.reused) = (request, at_ms, true);
            }
            parent = Some(*id);
        }
    }

    fn conclude(self, trace: &Trace, span_ms: u64) -> TraceInfo {
        let distinct_blocks = self.uses.len() as u64;
        TraceInfo {
            requests: trace.len() as u64,
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            block_tokens: trace.block_tokens(),
            block_references: self.block_references,
            distinct_blocks,
            span_ms,
            requests_per_second: (span_ms > 0).then(|| trace.len() as f64 * 1_000.0 / span_ms as f64),
            infinite_hit_rate: share(self.hit_tokens, self.prompt_tokens),
            reused_block_share: share(self.reused_blocks, distinct_blocks),
            misplaced_references: self.misplaced_references,
            reuse_gap_requests: Quantiles::of(self.gaps_requests),
            reuse_gap_ms: Quantiles::of(self.gaps_ms),
            prefix_depth_blocks: Quantiles::of(self.prefix_depths),
            request_blocks: Quantiles::of(self.request_blocks),
        }
    }
}

/// `part` of `whole`; 0 of nothing.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{TraceRequest, shared};

    fn request(timestamp_ms: u64, input_length: u64, hash_ids: &[u64]) -> TraceRequest {
        TraceRequest { timestamp_ms, input_length, output_length: 5, hash_ids: hash_ids.to_vec() }
    }

    #[test]
    fn a_small_trace_has_the_numbers_that_one_counts_by_hand() {
        let requests = [request(0, 25, &[0, 1, 2]), request(10, 20, &[0, 3]), request(40, 25, &[0, 1, 2])];
        let info = TraceInfo::of(&Trace::collect(10, requests));
        assert_eq!((info.requests, info.prompt_tokens, info.output_tokens), (3, 70, 15));
        assert_eq!((info.block_references, info.distinct_blocks, info.span_ms), (8, 4, 40));
        assert_eq!(info.infinite_hit_rate, 35.0 / 70.0);
        assert_eq!(info.reused_block_share, 0.75);
        assert_eq!(info.misplaced_references, 0);
        assert_eq!(info.reuse_gap_requests, Quantiles::of(vec![1, 1, 2, 2]));
        assert_eq!(info.reuse_gap_ms, Quantiles::of(vec![10, 30, 40, 40]));
        assert_eq!(info.prefix_depth_blocks, Some(Quantiles { p50: 1, p90: 3, p99: 3, max: 3 }));
        assert_eq!(info.requests_per_second, Some(75.0));
    }

    #[test]
    fn ids_that_do_not_stand_for_prefixes_are_noticed() {
        let info = TraceInfo::of(&Trace::collect(10, [request(0, 20, &[0, 1]), request(1, 20, &[2, 1])]));
        assert_eq!(info.misplaced_references, 1);
    }

    #[test]
    fn nothing_has_no_rates() {
        let info = TraceInfo::of(&Trace::collect(10, []));
        assert_eq!((info.infinite_hit_rate, info.requests_per_second, info.reuse_gap_ms), (0.0, None, None));
    }

    #[test]
    fn the_published_traces_have_their_published_numbers() {
        let golden = [
            (
                "conversation",
                12_031,
                144_793_823,
                4_122_048,
                288_500,
                182_790,
                3_536_999,
                "0.3736",
                "0.242",
                [113_999, 519_000, 1_578_000],
            ),
            (
                "synthetic",
                3_993,
                61_194_628,
                595_432,
                121_877,
                43_924,
                1_022_025,
                "0.6512",
                "0.416",
                [59_387, 281_764, 582_892],
            ),
        ];
        for (name, requests, prompt, output, references, distinct, span, rate, reused, gaps) in golden {
            let Some(trace) = shared::mooncake(name) else { return };
            let info = TraceInfo::of(&trace);
            assert_eq!((info.requests, info.prompt_tokens, info.output_tokens), (requests, prompt, output));
            assert_eq!((info.block_references, info.distinct_blocks, info.span_ms), (references, distinct, span));
            assert_eq!(format!("{:.4}", info.infinite_hit_rate), rate);
            assert_eq!(format!("{:.3}", info.reused_block_share), reused);
            assert_eq!(info.misplaced_references, 0);
            let Quantiles { p50, p90, p99, .. } = info.reuse_gap_ms.unwrap();
            assert_eq!([p50, p90, p99], gaps);
        }
    }
}
