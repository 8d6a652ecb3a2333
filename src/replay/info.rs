//! What a trace is like before any cache is chosen: how much there is of it, how often blocks come back and after how
//! long, and the hit rate that an infinite cache would have.

use hashbrown::HashMap;
use serde::Serialize;

use super::recording::RecordedHits;
use super::spread::Spread;
use super::{RequestView, Requests, Trace, TraceError};

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
    /// What was hit when a daemon recorded it; absent for other formats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedHits>,
}

/// Quantiles by nearest rank: each is a value that occurs, or, of more than a million values, off by a ten-thousandth at most.
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
    /// Of a trace in memory.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let mut survey = Survey::new(trace.block_tokens());
        trace.requests().for_each(|request| survey.add(&request));
        survey.conclude()
    }

    /// Of a trace that is read as it comes. `progress` is called after each request with how many are done.
    ///
    /// # Errors
    /// The first that can't be read.
    pub fn of_requests(requests: &mut Requests, mut progress: impl FnMut(u64)) -> Result<Self, TraceError> {
        let mut survey = Survey::new(requests.block_tokens());
        for request in &mut *requests {
            survey.add(&request?.view());
            progress(survey.requests);
        }
        Ok(Self { recorded: requests.recorded(), ..survey.conclude() })
    }
}

/// Counts requests, in order of time, in some 60 bytes a distinct block.
#[derive(Default)]
pub struct Survey {
    block_tokens: u32,
    requests: u64,
    first_ms: u64,
    last_ms: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    hit_tokens: u64,
    block_references: u64,
    misplaced_references: u64,
    reused_blocks: u64,
    uses: HashMap<u64, Use>,
    gaps_requests: Spread,
    gaps_ms: Spread,
    prefix_depths: Spread,
    request_blocks: Spread,
}

/// The last use of a block.
struct Use {
    at_ms: u64,
    /// The request's number, as far as it fits: gaps of four thousand million requests are none of a trace's.
    request: u32,
    /// Which block comes before it, as far as 31 bits tell, and whether it was used again.
    parent_and_reused: u32,
}

/// Set in [`Use::parent_and_reused`] where it was.
const REUSED: u32 = 1 << 31;

impl Use {
    fn parent(parent: Option<u64>) -> u32 {
        let mixed = parent.map_or(0, |id| (id.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33);
        u32::try_from(mixed).unwrap_or_default()
    }
}

impl Survey {
    /// Of nothing yet.
    #[must_use]
    pub fn new(block_tokens: u32) -> Self {
        Self { block_tokens, ..Self::default() }
    }

    /// Counts the next request.
    pub fn add(&mut self, request: &RequestView<'_>) {
        if self.requests == 0 {
            self.first_ms = request.timestamp_ms;
        }
        self.last_ms = request.timestamp_ms;
        self.prompt_tokens += request.input_length;
        self.output_tokens += request.output_length;
        self.block_references += request.blocks();
        self.request_blocks.add(request.blocks());
        let run = request.hash_ids.iter().take_while(|id| self.uses.contains_key(*id)).count() as u64;
        self.prefix_depths.add(run);
        self.hit_tokens += request.hit_tokens(run, self.block_tokens);
        self.note_uses(request.timestamp_ms, request.hash_ids);
        self.requests += 1;
    }

    fn note_uses(&mut self, at_ms: u64, ids: &[u64]) {
        #[expect(clippy::cast_possible_truncation, reason = "see Use::request")]
        let request = self.requests as u32;
        let mut before = None;
        for id in ids {
            let parent = Use::parent(before);
            let last = self.uses.entry(*id).or_insert(Use { at_ms, request, parent_and_reused: parent });
            if last.request != request {
                self.gaps_requests.add(u64::from(request.wrapping_sub(last.request)));
                self.gaps_ms.add(at_ms.saturating_sub(last.at_ms));
                self.reused_blocks += u64::from(last.parent_and_reused & REUSED == 0);
                self.misplaced_references += u64::from(last.parent_and_reused & !REUSED != parent);
                (last.request, last.at_ms) = (request, at_ms);
                last.parent_and_reused |= REUSED;
            }
            before = Some(*id);
        }
    }

    /// All are counted.
    #[must_use]
    pub fn conclude(self) -> TraceInfo {
        let (distinct_blocks, span_ms) = (self.uses.len() as u64, self.last_ms - self.first_ms);
        TraceInfo {
            requests: self.requests,
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            block_tokens: self.block_tokens,
            block_references: self.block_references,
            distinct_blocks,
            span_ms,
            requests_per_second: (span_ms > 0).then(|| self.requests as f64 * 1_000.0 / span_ms as f64),
            infinite_hit_rate: share(self.hit_tokens, self.prompt_tokens),
            reused_block_share: share(self.reused_blocks, distinct_blocks),
            misplaced_references: self.misplaced_references,
            reuse_gap_requests: self.gaps_requests.quantiles(),
            reuse_gap_ms: self.gaps_ms.quantiles(),
            prefix_depth_blocks: self.prefix_depths.quantiles(),
            request_blocks: self.request_blocks.quantiles(),
            recorded: None,
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
