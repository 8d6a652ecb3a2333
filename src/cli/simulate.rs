//! `kvtier replay --simulate`: how many blocks the simulated tiers hold, and the run.

use super::CliError;
use super::machine::Predicted;
use super::progress::{Bar, STEP};
use super::table::percent;
use crate::replay::{
    self, Hosts, HostsOptions, Machine, ReplayReport, Requests, SimulateOptions, Tally, Trace, TraceDigest,
    simulate_requests,
};
use crate::vocab::{ByteCount, TierShape};

/// Replays a trace, as it comes, on the planner. Which trace that was, too.
pub(super) fn run(requests: Requests, options: SimulateOptions) -> Result<(TraceDigest, ReplayReport), CliError> {
    let bar = Bar::of_trace(&requests);
    let mut digest = TraceDigest::new(requests.block_tokens());
    let report = simulate_requests(requests, options, |done, request, tally| {
        digest.add(request);
        bar.step(done);
        say(&bar, done, tally);
    })?;
    Ok((digest, report))
}

/// Replays `trace` on a tier of so many blocks that knows the future.
pub(super) fn optimum(trace: &Trace, blocks: u64) -> ReplayReport {
    with_progress(trace, |progress| replay::optimum(trace, blocks, progress))
}

/// Runs a replay of `trace` with a progress bar.
pub(super) fn with_progress<R>(trace: &Trace, replay: impl FnOnce(&mut dyn FnMut(u64, &Tally)) -> R) -> R {
    let bar = Bar::new(trace.len() as u64, "requests");
    replay(&mut |done, tally| {
        if done.is_multiple_of(STEP) {
            bar.at(done);
        }
        say(&bar, done, tally);
    })
}

fn say(bar: &Bar, done: u64, tally: &Tally) {
    if done.is_multiple_of(STEP) {
        bar.say(format!("hit rate {}", percent(tally.hit_rate())));
    }
}

/// Replays `trace` on one host with sizes and speeds.
pub(super) fn predicted(trace: &Trace, options: SimulateOptions, machine: Machine) -> Predicted {
    let mut host = Hosts::new(HostsOptions::alone(options, machine), trace.block_tokens());
    with_progress(trace, |progress| host.run(trace.requests(), progress));
    Predicted { replay: host.replay(), prediction: host.prediction() }
}

/// How many blocks of `block_bytes` a server with tiers of these sizes would hold, in RAM and on NVMe.
pub(super) fn as_a_server(ram: ByteCount, nvme: ByteCount, block_bytes: u32) -> Result<(u64, u64), CliError> {
    let ram_blocks = blocks("--ram", ram, block_bytes)?;
    let nvme_blocks = if nvme == ByteCount::ZERO { 0 } else { blocks("--nvme", nvme, block_bytes)? };
    Ok((ram_blocks, nvme_blocks))
}

/// Slots of a tier of `size` bytes for blocks of `block_bytes`; a tier without one is refused.
fn blocks(field: &'static str, size: ByteCount, block_bytes: u32) -> Result<u64, CliError> {
    let shape = TierShape::carve(size);
    let class = shape.class_for(block_bytes);
    let extents = u16::try_from(shape.extents().saturating_sub(1)).unwrap_or(u16::MAX);
    let slots: u64 = (0..=extents).map(|extent| u64::from(shape.slots(extent, class))).sum();
    if slots > 0 {
        return Ok(slots);
    }
    let rule = format!("large enough for a block of {block_bytes} bytes in each of 16 extents");
    Err(CliError::usage(field, &size, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_hold_what_a_server_of_their_size_would() {
        assert_eq!(as_a_server(ByteCount(256 << 20), ByteCount(1 << 30), 64 << 10).unwrap(), (4_096, 16_384));
        // 17 KiB take slots of 20 KiB, and each of 16 extents of 1 MiB holds 51 of them.
        assert_eq!(as_a_server(ByteCount(16 << 20), ByteCount::ZERO, 17 << 10).unwrap(), (16 * 51, 0));
    }

    #[test]
    fn a_tier_that_holds_no_block_is_refused() {
        let error = as_a_server(ByteCount(1 << 20), ByteCount::ZERO, 1 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--ram is 1048576 bytes, it must be large enough for a block of 1048576 bytes in each of 16 extents"
        );
        assert!(as_a_server(ByteCount(1 << 30), ByteCount(1), 4_096).is_err());
        assert!(as_a_server(ByteCount::ZERO, ByteCount(1 << 30), 4_096).is_err());
    }
}
