//! `kvtier replay` with real bytes, against a server or an embedded one.

use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value};

use super::CliError;
use super::progress::Bar;
use super::server::Shown;
use super::table::{percent, span};
use crate::client::{Credentials, ServerAddress};
use crate::replay::live::{LiveOptions, Pace, replay};
use crate::replay::{ReplayReport, Tally, Trace, predict};
use crate::vocab::TenantName;

/// Requests between two looks at the progress bar of a prediction.
const STEP: u64 = 64;

#[derive(Debug, Args)]
#[command(next_help_heading = "Live replay")]
pub(super) struct Live {
    /// The daemon to replay against: host:port, a URL, or unix:PATH. Where absent, a server is embedded: a replay fills
    /// a cache, so the environment does not choose one for it.
    #[arg(long, value_name = "ADDRESS", value_parser = ServerAddress::parse)]
    pub(super) server: Option<ServerAddress>,
    #[command(flatten)]
    shown: Shown,
    /// Requests under way at a time, in a closed loop: each worker starts the next one when it is done with its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(conflicts_with = "simulate")]
    workers: u16,
    /// Start requests at the trace's times, whatever is still under way; times are measured from when a request was due,
    /// too.
    #[arg(long, conflicts_with_all = ["simulate", "workers", "quiesce"])]
    open_loop: bool,
    /// Requests under way at a time in an open loop, at most: what has to wait for that is counted.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    #[arg(requires = "open_loop")]
    in_flight: u16,
    /// Wait after each request until the server's background work is done: then hits are those of a simulation.
    #[arg(long, conflicts_with = "simulate")]
    quiesce: bool,
    /// Settle each request, so that it is on the bill.
    #[arg(long, conflicts_with = "simulate")]
    settle: bool,
    /// Whose blocks they are.
    #[arg(long, value_name = "NAME", default_value = "replay", value_parser = TenantName::parse)]
    #[arg(conflicts_with = "simulate")]
    tenant: TenantName,
    /// Another seed names other blocks: a cold start on a warm server.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "simulate")]
    seed: u64,
    /// Stop after this many requests.
    #[arg(long, value_name = "N", conflicts_with = "simulate")]
    max_requests: Option<u64>,
    /// Don't compare with what the simulation says of the same requests.
    #[arg(long, conflicts_with = "simulate")]
    no_prediction: bool,
}

impl Live {
    /// How to replay blocks of so many bytes.
    pub(super) fn options(&self, block_bytes: u32, speed: Option<f64>) -> Result<LiveOptions, CliError> {
        let embedded = self.server.is_none();
        // An embedded server asks nobody.
        let credentials = if embedded { Credentials::default() } else { self.shown.credentials()? };
        Ok(LiveOptions {
            block_bytes,
            pace: self.pace(speed),
            quiesce_between: self.quiesce,
            settle: self.settle,
            billing_prefix: billing_prefix(),
            seed: self.seed,
            max_requests: self.max_requests,
            embedded,
            credentials,
            ..LiveOptions::new(self.tenant.clone())
        })
    }

    /// Whether requests come at their times.
    pub(super) const fn is_open(&self) -> bool {
        self.open_loop
    }

    fn pace(&self, speed: Option<f64>) -> Pace {
        if self.open_loop {
            Pace::Open { speed: speed.unwrap_or(1.0), in_flight: self.in_flight.into() }
        } else {
            Pace::Closed { workers: self.workers.into() }
        }
    }

    /// What a record says of these flags.
    pub(super) fn recorded(&self, speed: Option<f64>) -> Map<String, Value> {
        let mut options = Map::new();
        let mut say = |name: &str, value: Value| drop(options.insert(name.to_owned(), value));
        say("mode", "live".into());
        say("server", if self.server.is_some() { "another process" } else { "embedded" }.into());
        match self.pace(speed) {
            Pace::Closed { workers } => say("workers", workers.into()),
            Pace::Open { speed, in_flight } => {
                say("speed", speed.into());
                say("in_flight", in_flight.into());
            }
        }
        say("quiesce", self.quiesce.into());
        say("settle", self.settle.into());
        say("seed", self.seed.into());
        say("max_requests", self.max_requests.into());
        options
    }

    /// Replays `trace`, and simulates the same requests beside it.
    pub(super) async fn run(
        &self,
        address: &ServerAddress,
        trace: &Trace,
        options: &LiveOptions,
    ) -> Result<ReplayReport, CliError> {
        let mut report = run(address, trace, options).await?;
        if !self.no_prediction {
            foretell(trace, &mut report);
        }
        Ok(report)
    }
}

/// Replays `trace`, with a bar on stderr.
pub(super) async fn run(
    address: &ServerAddress,
    trace: &Trace,
    options: &LiveOptions,
) -> Result<ReplayReport, CliError> {
    let requests = options.max_requests.unwrap_or(u64::MAX).min(trace.len() as u64);
    let schedule = options.pace.span(trace, requests);
    let bar = if schedule.is_some() { Bar::of_a_schedule(requests) } else { Bar::new(requests, "requests") };
    let started = Instant::now();
    let progress = |done: u64, tally: &Tally| {
        bar.at(done);
        let (took, hit_rate) = (started.elapsed(), percent(tally.hit_rate()));
        let speed = done as f64 / took.as_secs_f64().max(1e-3);
        // How many came says nothing of how many are to come: the last one's time does.
        let left = schedule.map(|schedule| span(schedule.saturating_sub(took).as_millis() as u64));
        let left = left.map(|left| format!(", {left} left")).unwrap_or_default();
        bar.say(format!("{speed:.1}/s, hit rate {hit_rate}{left}"));
    };
    Ok(replay(address, trace, options, progress).await?)
}

/// Sets what the simulation says of the same requests beside the replay.
pub(super) fn foretell(trace: &Trace, report: &mut ReplayReport) {
    let bar = Bar::new(report.requests, "requests simulated");
    let said = predict(trace, report, |done| {
        if done % STEP == 0 {
            bar.at(done);
        }
    });
    match said {
        Ok(predicted) => report.predicted = Some(predicted),
        Err(why) => report.not_predicted = Some(why),
    }
}

/// What a report of a live replay must say to be believed.
pub(super) fn check(report: &ReplayReport) -> Result<(), CliError> {
    match report.live.as_ref().map_or(0, |live| live.mismatched_blocks) {
        0 => Ok(()),
        wrong => Err(CliError::Bad(format!("{wrong} blocks had bytes that are not what their key says"))),
    }
}

/// A word that no replay before had in its billing ids.
pub(super) fn billing_prefix() -> String {
    format!("replay-{:016x}-", rand::random::<u64>())
}

/// `--speed`.
pub(super) fn speed(text: &str) -> Result<f64, String> {
    let speed: Option<f64> = text.parse().ok();
    let rule = || format!("--speed is {text}, it must be a number from 0.001 to 1000000");
    speed.filter(|speed| (0.001..=1e6).contains(speed)).ok_or_else(rule)
}
