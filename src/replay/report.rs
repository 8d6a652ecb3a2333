//! What a replay, simulated or live, says at its end. Field names are a contract with other programs: add, never
//! rename.

use serde::Serialize;

use super::RequestView;
use super::info::share;
use super::live_report::LiveFigures;
use super::predict::Predicted;
use crate::vocab::TierCounts;

/// The end of a replay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Requests replayed.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Tokens that need no prefill.
    pub hit_tokens: u64,
    /// The rest.
    pub miss_tokens: u64,
    /// `hit_tokens / prompt_tokens`, from a cold start.
    pub hit_rate: f64,
    /// Blocks of the prompts.
    pub blocks_asked: u64,
    /// Blocks of their unbroken resident runs.
    pub blocks_hit: u64,
    /// What decided whom to evict.
    pub policy: String,
    /// Distinct blocks that the cache can hold: NVMe's where there is one, since it has what RAM has.
    pub capacity_blocks: u64,
    /// Hit tokens by the fastest tier that had them.
    pub by_tier: TierTokens,
    /// Blocks that fit the RAM tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_blocks: Option<u64>,
    /// Blocks that fit the NVMe tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvme_blocks: Option<u64>,
    /// Blocks written to NVMe: what wears the drive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks_written: Option<u64>,
    /// Where the daemon was killed on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash: Option<CrashFigures>,
    /// What only a run with real bytes has; its fields stand beside the others.
    #[serde(flatten)]
    pub live: Option<LiveFigures>,
    /// What the simulation says of the same requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
    /// Why it says nothing, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_predicted: Option<String>,
}

/// How warm the start after a crash was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CrashFigures {
    /// Requests before it.
    pub after_requests: u64,
    /// Blocks that NVMe had.
    pub blocks_recovered: u64,
    /// Requests after it that are looked at.
    pub next_requests: u64,
    /// Their token-weighted hit rate.
    pub next_hit_rate: f64,
}

/// Tokens by tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TierTokens {
    /// In memory.
    pub ram: u64,
    /// On a drive.
    pub nvme: u64,
}

impl TierTokens {
    /// Of one request whose blocks were found as `counts` says. RAM has the head of the run and NVMe what follows, as the counts of a
    /// lookup are defined, so that a partial last block counts where it lies.
    #[must_use]
    pub fn of(request: &RequestView<'_>, counts: TierCounts, block_tokens: u32) -> Self {
        let ram_blocks = u64::from(counts.ram).min(request.blocks());
        let run = (ram_blocks + u64::from(counts.nvme)).min(request.blocks());
        let ram = request.hit_tokens(ram_blocks, block_tokens);
        Self { ram, nvme: request.hit_tokens(run, block_tokens) - ram }
    }

    /// In either tier.
    #[must_use]
    pub const fn all(self) -> u64 {
        self.ram + self.nvme
    }
}

/// What a replay counts as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    requests: u64,
    prompt_tokens: u64,
    blocks_asked: u64,
    blocks_hit: u64,
    hits: TierTokens,
}

impl Tally {
    /// Counts one request whose blocks were found as `counts` says.
    pub fn add(&mut self, request: &RequestView<'_>, counts: TierCounts, block_tokens: u32) {
        let hits = TierTokens::of(request, counts, block_tokens);
        self.requests += 1;
        self.prompt_tokens += request.input_length;
        self.blocks_asked += request.blocks();
        self.blocks_hit += u64::from(counts.ram + counts.nvme).min(request.blocks());
        self.hits.ram += hits.ram;
        self.hits.nvme += hits.nvme;
    }

    /// Tokens hit so far, of how many.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        share(self.hits.ram + self.hits.nvme, self.prompt_tokens)
    }

    /// Tokens hit so far.
    #[must_use]
    pub fn hit_tokens(&self) -> u64 {
        self.hits.ram + self.hits.nvme
    }

    /// Tokens of the prompts so far.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The hit rate of the requests after `earlier`.
    #[must_use]
    pub fn hit_rate_since(&self, earlier: &Self) -> f64 {
        let hits = |tally: &Self| tally.hits.ram + tally.hits.nvme;
        share(hits(self) - hits(earlier), self.prompt_tokens - earlier.prompt_tokens)
    }

    /// The report, without what only some replays have.
    #[must_use]
    pub fn report(&self, policy: &str, capacity_blocks: u64) -> ReplayReport {
        let hit_tokens = self.hits.ram + self.hits.nvme;
        ReplayReport {
            requests: self.requests,
            prompt_tokens: self.prompt_tokens,
            hit_tokens,
            miss_tokens: self.prompt_tokens - hit_tokens,
            hit_rate: self.hit_rate(),
            blocks_asked: self.blocks_asked,
            blocks_hit: self.blocks_hit,
            policy: policy.to_owned(),
            capacity_blocks,
            by_tier: self.hits,
            ram_blocks: None,
            nvme_blocks: None,
            blocks_written: None,
            crash: None,
            live: None,
            predicted: None,
            not_predicted: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ram: u32, nvme: u32, missed: u32) -> TierCounts {
        TierCounts { ram, nvme, missed, ..TierCounts::default() }
    }

    fn report() -> ReplayReport {
        let request = RequestView { timestamp_ms: 0, input_length: 25, output_length: 1, hash_ids: &[0, 1, 2] };
        let mut tally = Tally::default();
        tally.add(&request, counts(0, 0, 3), 10);
        tally.add(&request, counts(1, 2, 0), 10);
        tally.add(&request, counts(3, 0, 0), 10);
        tally.add(&request, counts(1, 1, 1), 10);
        tally.report("lru", 100)
    }

    #[test]
    fn tokens_by_tier_add_up_and_the_partial_block_counts_where_it_lies() {
        let report = report();
        assert_eq!(report.by_tier, TierTokens { ram: 10 + 25 + 10, nvme: 15 + 10 });
        assert_eq!((report.hit_tokens, report.miss_tokens, report.prompt_tokens), (70, 30, 100));
        assert_eq!((report.blocks_hit, report.blocks_asked, report.hit_rate), (8, 12, 0.7));
    }

    #[test]
    fn a_simulated_report_has_exactly_the_promised_fields() {
        let expected = r#"{"requests":4,"prompt_tokens":100,"hit_tokens":70,"miss_tokens":30,"hit_rate":0.7,"blocks_asked":12,"blocks_hit":8,"policy":"lru","capacity_blocks":100,"by_tier":{"ram":45,"nvme":25}}"#;
        assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
    }
}
