//! `kvtier replay --simulate` with a model and a machine: how large blocks are, and what a host would load, write, save and wear.

use clap::Args;
use serde::Serialize;

use super::replayed;
use super::size::human;
use super::table::{numbers, percent, thousands};
use super::{CliError, plan, simulate};
use crate::replay::prediction::{Prediction, Spread, Times};
use crate::replay::{Machine, Model, ReplayReport};
use crate::vocab::ByteCount;
use crate::vocab::limits::{NVME_SPEED_GUESS, PAYLOAD_BYTES_MAX, RAM_SPEED_GUESS};

const GB: f64 = 1e9;
/// Milliseconds of a load beside its bytes: a lookup (0.2 ms) and a load of some blocks (0.3 ms), as README's tables have them.
const LOAD_LATENCY_MS: f64 = 0.5;

#[derive(Debug, Args)]
#[command(next_help_heading = "Simulated machine")]
pub(super) struct MachineArgs {
    /// The model that is served: it says how many bytes a token takes, and so how many blocks --ram and --nvme hold.
    #[arg(long, value_name = "NAME", requires = "simulate", value_parser = plan::model)]
    #[arg(conflicts_with_all = ["bytes_per_token", "block_bytes"])]
    model: Option<Model>,
    /// Bytes of a token's KV cache, of a model that has no name here.
    #[arg(long, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u64).range(1..=1 << 26))]
    #[arg(conflicts_with = "block_bytes")]
    bytes_per_token: Option<u64>,
    /// Tokens a second that a host computes: adds times to the first token, and a hit slower than computing it is not loaded.
    /// No default: it is the engine's, its hardware's and the model's (V3 on an H800 node: 32,244, the computed part of the 73,700 that DeepSeek has published).
    #[arg(long, value_name = "TOKENS/S", value_parser = positive)]
    prefill_rate: Option<f64>,
    /// GB a second that a host's drives read [default: 1, what the daemon assumes until it has seen them; `kvtier bench` measures].
    #[arg(long, value_name = "GB/S", value_parser = positive)]
    nvme_read: Option<f64>,
    /// GB a second that they write: adds how busy they are with it.
    #[arg(long, value_name = "GB/S", value_parser = positive)]
    nvme_write: Option<f64>,
    /// GB a second from RAM to the engine [default: 3, what the daemon assumes; `kvtier bench` measures it].
    #[arg(long, value_name = "GB/S", value_parser = positive)]
    ram_bandwidth: Option<f64>,
    /// GB a second of a network between the cache and the engine, where they are on different hosts.
    #[arg(long, value_name = "GB/S", value_parser = positive)]
    network: Option<f64>,
    /// Milliseconds that a load takes beside its bytes [default: 0.5].
    #[arg(long, value_name = "MS", value_parser = at_least_zero)]
    load_latency: Option<f64>,
}

/// A number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= 1e12);
    number.ok_or_else(|| "it must be a number above 0".to_owned())
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| (0.0..=1e6).contains(number));
    number.ok_or_else(|| "it must be a number, at least 0".to_owned())
}

/// A plain replay's report with what its machine makes of it.
#[derive(Debug, Serialize)]
pub(super) struct Predicted {
    #[serde(flatten)]
    pub replay: ReplayReport,
    #[serde(flatten)]
    pub prediction: Prediction,
}

impl MachineArgs {
    /// Bytes of a token, where they are said.
    fn said(&self) -> Option<u64> {
        self.bytes_per_token.or(self.model.map(Model::bytes_per_token))
    }

    /// Whether anything is asked that a replay without sizes does not say.
    pub(super) fn is_given(&self) -> bool {
        self.said().is_some() || self.first_given().is_some()
    }

    /// A flag that needs to know what a token takes.
    fn first_given(&self) -> Option<(&'static str, f64)> {
        let Self { prefill_rate, nvme_read, nvme_write, ram_bandwidth, network, load_latency, .. } = self;
        let flags = [
            ("--prefill-rate", prefill_rate),
            ("--nvme-read", nvme_read),
            ("--nvme-write", nvme_write),
            ("--ram-bandwidth", ram_bandwidth),
            ("--network", network),
            ("--load-latency", load_latency),
        ];
        flags.into_iter().find_map(|(flag, given)| Some((flag, (*given)?)))
    }

    /// Tokens a second, where they are said.
    pub(super) fn prefill_rate(&self) -> Option<f64> {
        self.prefill_rate
    }

    /// The machine, where a token's bytes are known.
    pub(super) fn machine(&self) -> Result<Machine, CliError> {
        let Some(bytes_per_token) = self.said() else {
            let (flag, value) = self.first_given().unwrap_or(("--prefill-rate", 0.0));
            return Err(CliError::usage(flag, &value, "with --model NAME or --bytes-per-token N"));
        };
        let gigabytes = |given: Option<f64>, otherwise: f64| given.map_or(otherwise, |speed| speed * GB);
        Ok(Machine {
            bytes_per_token: bytes_per_token as f64,
            prefill_rate: self.prefill_rate,
            ram: gigabytes(self.ram_bandwidth, RAM_SPEED_GUESS),
            nvme_read: gigabytes(self.nvme_read, NVME_SPEED_GUESS),
            nvme_write: self.nvme_write.map(|speed| speed * GB),
            network: self.network.map(|speed| speed * GB),
            load_latency_s: self.load_latency.unwrap_or(LOAD_LATENCY_MS) / 1e3,
        })
    }

    /// How many of a trace's blocks a server with tiers of these sizes would hold. A payload that is larger than a server takes is cut in
    /// halves until it is not, as an operator would choose smaller blocks.
    pub(super) fn blocks(&self, ram: ByteCount, nvme: ByteCount, block_tokens: u32) -> Result<(u64, u64), CliError> {
        let bytes = self.machine()?.bytes_per_token * f64::from(block_tokens);
        let mut parts = 1_u64;
        while bytes / parts as f64 > f64::from(PAYLOAD_BYTES_MAX) {
            parts *= 2;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 64 MiB by now")]
        let part_bytes = (bytes / parts as f64).ceil() as u32;
        let (ram_parts, nvme_parts) = simulate::as_a_server(ram, nvme, part_bytes)?;
        let blocks = (ram_parts / parts, nvme_parts / parts);
        if blocks.0 == 0 || (nvme_parts > 0 && blocks.1 == 0) {
            let rule = format!("large enough for a block of {} in {parts} parts", human(whole(bytes)));
            let (flag, size) = if blocks.0 == 0 { ("--ram", ram) } else { ("--nvme", nvme) };
            return Err(CliError::usage(flag, &size, rule));
        }
        Ok(blocks)
    }

    /// What is not counted of the model's cache.
    pub(super) fn note(&self) -> Option<String> {
        let model = self.model.filter(|model| model.is_hybrid())?;
        let name = model.name;
        Some(format!("{name}: only the layers that keep every token are counted; windows and states come on top."))
    }
}

impl Predicted {
    /// For people.
    pub(super) fn text(&self, note: Option<String>) -> String {
        let sizes = pairs(&self.prediction, self.replay.nvme_blocks.is_some());
        let mut text = format!("{}\n{}", replayed::text(&self.replay), numbers(["machine", ""], sizes));
        if let Some(times) = &self.prediction.times {
            text += &format!("\n{}\n{}", times_table(times), self.sentence(times));
        }
        if self.prediction.nvme_read_busy.is_some_and(|busy| busy > 1.0) {
            text += "\nThe drives can't read as much as is asked of them: loads wait, or are computed.";
        }
        if self.prediction.nvme_write_busy.is_some_and(|busy| busy > 1.0) {
            text += "\nThe drives can't write as much as comes in: a server would drop writes and hit less than this.";
        }
        note.map_or(text.clone(), |note| format!("{text}\n{note}"))
    }

    fn sentence(&self, times: &Times) -> String {
        let Times { ttft_us, ttft_computed_us, prefill_seconds_saved_per_day, .. } = times;
        let saved = prefill_seconds_saved_per_day.map_or_else(String::new, |seconds| {
            let engines = seconds / 86_400.0;
            format!(
                "; a day of this saves {:.1} hours of computing, as much as {engines:.2} engines do",
                seconds / 3_600.0
            )
        });
        let (mean, computed) = (millis(ttft_us.mean), millis(ttft_computed_us.mean));
        format!(
            "With an idle engine the first token comes after {mean} on average, without the cache after {computed}{saved}."
        )
    }
}

/// Times with the cache and without.
fn times_table(times: &Times) -> String {
    let row = |name: &str, Spread { mean, p50, p99 }: Spread| [name.to_owned(), millis(mean), millis(p50), millis(p99)];
    let rows = [row("with the cache", times.ttft_us), row("all computed", times.ttft_computed_us)];
    numbers(["time to first token", "mean", "p50", "p99"], rows).to_string()
}

fn pairs(prediction: &Prediction, has_drive: bool) -> Vec<[String; 2]> {
    let bytes = |bytes: u64| human(ByteCount(bytes));
    let mut rows = vec![
        ["bytes a token".to_owned(), thousands(whole(prediction.bytes_per_token).0)],
        ["loaded".to_owned(), bytes(prediction.bytes_loaded)],
        ["stored in ram".to_owned(), bytes(prediction.bytes_stored)],
    ];
    if has_drive {
        rows.push(["read from nvme".to_owned(), bytes(prediction.nvme_bytes_read)]);
        rows.push(["written to nvme".to_owned(), bytes(prediction.nvme_bytes_written)]);
        let a_day = prediction.nvme_bytes_written_per_day.zip(prediction.drive_writes_per_day);
        rows.extend(a_day.map(|(written, drives)| {
            ["  a day".to_owned(), format!("{}, {drives:.2} drive writes", human(whole(written)))]
        }));
        rows.extend(prediction.nvme_read_busy.map(|busy| ["nvme busy reading".to_owned(), percent(busy)]));
        rows.extend(prediction.nvme_write_busy.map(|busy| ["nvme busy writing".to_owned(), percent(busy)]));
    }
    if let Some(times) = &prediction.times {
        let not_worth = thousands(times.hit_tokens_not_worth_loading);
        rows.push(["tokens hit, but sooner computed".to_owned(), not_worth]);
    }
    rows
}

/// Microseconds as people compare them, in one unit.
pub(super) fn millis(microseconds: u64) -> String {
    format!("{} ms", thousands((microseconds + 500) / 1_000))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size is not below zero")]
fn whole(bytes: f64) -> ByteCount {
    ByteCount(bytes.round() as u64)
}
