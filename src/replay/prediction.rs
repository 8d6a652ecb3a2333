//! What a simulation with sizes and speeds says: bytes, wear of the drives, times to the first token; and of several hosts, how alike
//! they are. Field names are a contract with other programs: add, never rename.

use serde::Serialize;

use super::hosts::{Host, Hosts};
use super::info::{Quantiles, share};
use super::machine::Machine;
use super::report::{ReplayReport, TierTokens};

const SECONDS_PER_DAY: f64 = 86_400.0;

/// What the hosts of a run moved and how long their requests took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Bytes of a token's KV cache.
    pub bytes_per_token: f64,
    /// From the first request to the last, at the pace of the run.
    pub seconds: f64,
    /// Bytes that reached engines, from either tier.
    pub bytes_loaded: u64,
    /// Bytes of the blocks that were missed, computed and put into RAM. A partial block takes a whole one's, here and on drives.
    pub bytes_stored: u64,
    /// Of the bytes loaded, those read from drives.
    pub nvme_bytes_read: u64,
    /// Bytes written to drives.
    pub nvme_bytes_written: u64,
    /// The same a day; absent where all requests came at once.
    pub nvme_bytes_written_per_day: Option<f64>,
    /// How many times a day the drives' capacity is written (DWPD); absent without drives.
    pub drive_writes_per_day: Option<f64>,
    /// Share of the time for which the busiest host's drives read, and more than 1 where they can't.
    pub nvme_read_busy: Option<f64>,
    /// The same of writing; absent where their speed was not said.
    pub nvme_write_busy: Option<f64>,
    /// Times; absent without a prefill rate.
    #[serde(flatten)]
    pub times: Option<Times>,
}

/// Times to the first token, against computing whole prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Tokens a second that a host computes.
    pub prefill_tokens_per_second: f64,
    /// Tokens that were loaded.
    pub loaded_tokens: u64,
    /// Tokens that were hit and computed all the same, since loading them would have taken longer.
    pub hit_tokens_not_worth_loading: u64,
    /// From a request's arrival until its prompt was loaded and computed.
    pub ttft_us: Spread,
    /// What computing the same prompts whole takes on an idle engine.
    pub ttft_computed_us: Spread,
    /// Seconds of computing that loads saved a day, over all hosts; absent where all requests came at once.
    pub prefill_seconds_saved_per_day: Option<f64>,
}

/// A mean and quantiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: u64,
    /// The median.
    pub p50: u64,
    /// All but a hundredth are at most this.
    pub p99: u64,
}

/// Several hosts under one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostsReport {
    /// Which host a request goes to.
    pub routing: &'static str,
    /// How many times as fast as recorded the requests came.
    pub speed: f64,
    /// Share of the time for which the hosts' engines computed, on average.
    pub utilisation: f64,
    /// What they hit together.
    #[serde(flatten)]
    pub replay: ReplayReport,
    /// What they moved and how long it took.
    #[serde(flatten)]
    pub prediction: Prediction,
    /// How unlike they are.
    pub imbalance: Imbalance,
    /// Blocks that they have in the end, and the different ones among them.
    pub blocks_held: u64,
    /// See above.
    pub distinct_blocks_held: u64,
    /// Share of the blocks that another host has, too: 1 - distinct / held.
    pub duplicated: f64,
    /// One by one.
    pub by_host: Vec<HostFigures>,
}

/// One of several hosts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HostFigures {
    /// Requests that it got.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Of these hit.
    pub hit_tokens: u64,
    /// `hit_tokens / prompt_tokens`.
    pub hit_rate: f64,
    /// Share of the time for which its engine computed.
    pub utilisation: f64,
}

/// How unlike the hosts are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Imbalance {
    /// By requests.
    pub requests: Unlike,
    /// By prompt tokens.
    pub prompt_tokens: Unlike,
    /// By seconds of computing.
    pub computing: Unlike,
}

/// How unlike some numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Unlike {
    /// The largest over the mean.
    pub max_over_mean: f64,
    /// The standard deviation over the mean.
    pub variation: f64,
}

impl Hosts {
    /// What they hit together.
    #[must_use]
    pub fn replay(&self) -> ReplayReport {
        self.replayed()
    }

    /// What they moved and how long it took.
    #[must_use]
    pub fn prediction(&self) -> Prediction {
        let Machine { bytes_per_token, nvme_write, prefill_rate, .. } = self.options.machine;
        let machine = &self.options.machine;
        let block_bytes = bytes_per_token * f64::from(self.block_tokens);
        let replay = self.replayed();
        let loaded = self.loaded();
        let written = replay.blocks_written.map_or(0.0, |blocks| blocks as f64 * block_bytes);
        let days = (self.span_s > 0.0).then(|| self.span_s / SECONDS_PER_DAY);
        let capacity = replay.nvme_blocks.map(|blocks| blocks as f64 * block_bytes);
        let busiest = |seconds: &dyn Fn(&Host) -> f64| {
            let most = self.hosts.iter().map(seconds).fold(0.0, f64::max);
            (replay.nvme_blocks.is_some() && self.span_s > 0.0).then(|| most / self.span_s)
        };
        let host_written = |host: &Host| host.simulation.report().blocks_written.unwrap_or(0) as f64 * block_bytes;
        let times = prefill_rate.map(|rate| Times {
            prefill_tokens_per_second: rate,
            loaded_tokens: loaded.all(),
            hit_tokens_not_worth_loading: replay.hit_tokens - loaded.all(),
            ttft_us: Spread::of(self.first_tokens_us.clone()),
            ttft_computed_us: Spread::of(self.computing_us.clone()),
            prefill_seconds_saved_per_day: days.map(|days| machine.computing_s(loaded.all()) / days),
        });
        Prediction {
            bytes_per_token,
            seconds: self.span_s,
            bytes_loaded: whole(machine.bytes(loaded.all())),
            bytes_stored: whole((replay.blocks_asked - replay.blocks_hit) as f64 * block_bytes),
            nvme_bytes_read: whole(machine.bytes(loaded.nvme)),
            nvme_bytes_written: whole(written),
            nvme_bytes_written_per_day: days.map(|days| written / days),
            drive_writes_per_day: days.zip(capacity).map(|(days, capacity)| written / days / capacity),
            nvme_read_busy: busiest(&|host| machine.bytes(host.loaded.nvme) / machine.nvme_read),
            nvme_write_busy: nvme_write.and_then(|write| busiest(&|host| host_written(host) / write)),
            times,
        }
    }

    /// All of it, host by host, too.
    #[must_use]
    pub fn report(&self) -> HostsReport {
        let tallies: Vec<ReplayReport> = self.hosts.iter().map(|host| host.simulation.report()).collect();
        let busy = |computed_s: f64| if self.span_s > 0.0 { computed_s / self.span_s } else { 0.0 };
        let figures = |(host, tally): (&Host, &ReplayReport)| HostFigures {
            requests: tally.requests,
            prompt_tokens: tally.prompt_tokens,
            hit_tokens: tally.hit_tokens,
            hit_rate: tally.hit_rate,
            utilisation: busy(host.computed_s),
        };
        let by_host: Vec<HostFigures> = self.hosts.iter().zip(&tallies).map(figures).collect();
        let unlike = |of: &dyn Fn(&HostFigures) -> f64| Unlike::of(&by_host.iter().map(of).collect::<Vec<_>>());
        let imbalance = Imbalance {
            requests: unlike(&|host| host.requests as f64),
            prompt_tokens: unlike(&|host| host.prompt_tokens as f64),
            computing: unlike(&|host| host.utilisation),
        };
        let (blocks_held, distinct_blocks_held) = self.held();
        HostsReport {
            routing: self.options.routing.name(),
            speed: self.options.speed,
            utilisation: by_host.iter().map(|host| host.utilisation).sum::<f64>() / by_host.len() as f64,
            replay: self.replayed(),
            prediction: self.prediction(),
            imbalance,
            blocks_held,
            distinct_blocks_held,
            duplicated: share(blocks_held - distinct_blocks_held, blocks_held),
            by_host,
        }
    }

    fn loaded(&self) -> TierTokens {
        let add = |sum: TierTokens, host: &Host| TierTokens {
            ram: sum.ram + host.loaded.ram,
            nvme: sum.nvme + host.loaded.nvme,
        };
        self.hosts.iter().fold(TierTokens::default(), add)
    }
}

impl Spread {
    fn of(values: Vec<u64>) -> Self {
        let mean = share(values.iter().sum(), values.len() as u64);
        let Some(Quantiles { p50, p99, .. }) = Quantiles::of(values) else { return Self::default() };
        Self { mean: whole(mean), p50, p99 }
    }
}

impl Unlike {
    fn of(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if values.is_empty() || mean <= 0.0 {
            return Self { max_over_mean: 1.0, variation: 0.0 };
        }
        let most = values.iter().copied().fold(0.0, f64::max);
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        Self { max_over_mean: most / mean, variation: variance.sqrt() / mean }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes and times are not below zero")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_unlike_numbers_are_is_what_one_works_out_by_hand() {
        let unlike = Unlike::of(&[1.0, 3.0]);
        assert_eq!((unlike.max_over_mean, unlike.variation), (1.5, 0.5));
        assert_eq!(Unlike::of(&[0.0, 0.0]), Unlike { max_over_mean: 1.0, variation: 0.0 });
        assert_eq!(Spread::of(vec![4, 1, 1]), Spread { mean: 2, p50: 1, p99: 4 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
