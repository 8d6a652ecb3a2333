//! RAM as workers of the same host read it: blocks copied out of the daemon's memory, and blocks only located there.
//!
//! The prompt is named by kvtier's own keys, which a worker has that compares checksums; what it costs to hash an engine's is
//! in `lookup_4096` where keys are probed, and in `hash_tokens`.

use std::time::{Duration, Instant};

use super::BenchError;
use super::gate::calls_in_turn;
use super::memory::Memory;
use super::rounds::{Effort, Rounds, both, gigabytes, in_turn};
use super::worker::Worker;
use crate::client::Place;

/// A load's deadline: longer than any should take.
const DEADLINE: Option<Duration> = Some(Duration::from_secs(60));

/// Loads the prompt under a lease, and copies each block out with its checksum compared.
pub(super) fn load(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    copied(worker, effort, true)
}

/// The same, trusting the daemon's own check and the lease.
pub(super) fn load_unverified(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    copied(worker, effort, false)
}

/// Against `memcpy` of as many pieces as large, to the same destination, from memory of this process.
fn copied(worker: &Worker, effort: Effort, verified: bool) -> Result<Rounds, BenchError> {
    let blocks = worker.prompt.keys.len();
    let bytes = blocks as u64 * u64::from(worker.figures.block_bytes);
    let mut memory = Memory::new(worker.figures.window_bytes as usize, worker.figures.block_bytes as usize);
    in_turn(effort, |ours_first| {
        let ours = |memory: &mut Memory| Ok(gigabytes(bytes, copy_out(worker, memory, verified)?));
        let limit = |memory: &mut Memory| Ok(gigabytes(bytes, memory.copy(blocks)));
        both(ours_first, &mut memory, ours, limit)
    })
}

fn copy_out(worker: &Worker, memory: &mut Memory, verified: bool) -> Result<Duration, BenchError> {
    let request = worker.request()?;
    let began = Instant::now();
    worker.runtime.block_on(async {
        let lease = worker.lease(&request).await?;
        let line = &worker.uds;
        let asked = line.client.load(&line.session, &request, &worker.prompt.by_key, Some(lease.id), DEADLINE);
        let mut load = asked.await?;
        let mut copied = 0;
        loop {
            let places = load.next_places().await?;
            if places.is_empty() {
                break;
            }
            for place in &places {
                let key = worker.prompt.keys.get(copied).filter(|_| verified);
                if !worker.arena.copy(place, key, memory.destination(copied)) {
                    return Err(lost(copied));
                }
                copied += 1;
            }
        }
        let time = began.elapsed();
        load.end().await?;
        worker.release(&lease).await?;
        if copied == worker.prompt.keys.len() { Ok(time) } else { Err(lost(copied)) }
    })
}

/// The prompt leased, located, and each block ready to be read where it is; against an empty call.
pub(super) fn handover(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    calls_in_turn(worker, effort, hand_over)
}

fn hand_over(worker: &Worker) -> Result<Duration, BenchError> {
    let request = worker.request()?;
    let began = Instant::now();
    worker.runtime.block_on(async {
        let lease = worker.lease(&request).await?;
        let line = &worker.uds;
        let asked = line.client.load(&line.session, &request, &worker.prompt.by_key, Some(lease.id), DEADLINE);
        let mut load = asked.await?;
        let mut located = 0;
        while located < worker.prompt.keys.len() {
            let places = load.next_places().await?;
            let readable = |place: &&Place| worker.arena.in_place(place, |at, _| !at.is_null()) == Some(true);
            if places.is_empty() || places.iter().filter(readable).count() < places.len() {
                return Err(lost(located));
            }
            located += places.len();
        }
        let time = began.elapsed();
        // How it ended is told after all is there to be read.
        load.end().await?;
        worker.release(&lease).await?;
        Ok(time)
    })
}

fn lost(block: usize) -> BenchError {
    BenchError::Lost(format!("block {block} can't be read where it should lie"))
}
