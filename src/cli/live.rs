//! `kvtier replay` with real bytes, against a server or an embedded one.

use super::CliError;
use super::progress::Bar;
use super::table::percent;
use crate::client::ServerAddress;
use crate::replay::live::{LiveOptions, replay};
use crate::replay::{ReplayReport, Trace};

/// Replays `trace`, with a bar on stderr.
pub(super) async fn run(
    address: &ServerAddress,
    trace: &Trace,
    options: &LiveOptions,
) -> Result<ReplayReport, CliError> {
    let requests = options.max_requests.map_or(u64::MAX, |most| most).min(trace.len() as u64);
    let bar = Bar::new(requests, "requests");
    let progress = |done, tally: &crate::replay::Tally| {
        bar.at(done);
        bar.say(format!("hit rate {}", percent(tally.hit_rate())));
    };
    Ok(replay(address, trace, options, progress).await?)
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
