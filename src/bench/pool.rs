//! Memory that a worker shares with the daemon: blocks copied into its own pool by the daemon, and stored from staging memory.

use std::time::{Duration, Instant};

use super::BenchError;
use super::memory::Memory;
use super::prompt::Prompt;
use super::rounds::{Effort, Rounds, both, gigabytes, in_turn};
use super::worker::Worker;
use crate::client::{LoadIntoOptions, Pool, RegionPlaces, SpanMut, Staging};

/// A load's deadline: longer than any should take.
const DEADLINE: Option<Duration> = Some(Duration::from_secs(60));
/// Staging memory: halves that no cache holds.
const STAGING_BYTES: u64 = 64 << 20;

/// The daemon fills a pool from RAM, as large as what `memcpy` copies to; against that.
pub(super) fn load_into_ram(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    let line = &worker.uds;
    let pool = worker.runtime.block_on(line.client.attach_pool(&line.session, worker.figures.window_bytes))?;
    let pool = pool.ok_or_else(unshared)?;
    let blocks = worker.figures.window_bytes / u64::from(worker.figures.block_bytes);
    let blocks = usize::try_from(blocks).unwrap_or(usize::MAX).min(worker.prompt.keys.len());
    let bytes = blocks as u64 * u64::from(worker.figures.block_bytes);
    let mut memory = Memory::new(worker.figures.window_bytes as usize, worker.figures.block_bytes as usize);
    let taken = in_turn(effort, |ours_first| {
        let ours = |_: &mut Memory| Ok(gigabytes(bytes, fill(worker, &pool, blocks)?));
        let limit = |memory: &mut Memory| Ok(gigabytes(bytes, memory.copy(blocks)));
        both(ours_first, &mut memory, ours, limit)
    });
    worker.runtime.block_on(line.client.detach_region(&line.session, pool.region()))?;
    taken
}

fn fill(worker: &Worker, pool: &Pool, blocks: usize) -> Result<Duration, BenchError> {
    let (request, line) = (worker.request()?, &worker.uds);
    let chain = worker.prompt.by_key.head(blocks);
    let step = u64::from(worker.figures.block_bytes);
    let places = RegionPlaces {
        region: pool.region(),
        offsets: (0..blocks as u64).map(|block| block * step).collect(),
        lengths: Vec::new(),
    };
    let began = Instant::now();
    worker.runtime.block_on(async {
        let options = LoadIntoOptions { lease: None, deadline: DEADLINE };
        let asked = line.client.load_into(&line.session, &request, &chain, places, options);
        let end = asked.await?.end().await?;
        let time = began.elapsed();
        let mut last = [0; 64];
        let is_there = pool.read((blocks as u64 - 1) * step, &mut last) && last == worker.payload[..64];
        if end.blocks as usize == blocks && is_there {
            return Ok(time);
        }
        Err(BenchError::Lost(format!("of {blocks} blocks {end:?} came into the pool")))
    })
}

/// A worker writes blocks into staging memory and has them stored: its own writing is counted. Against `memcpy`.
pub(super) fn put_shared(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    let line = &worker.uds;
    let staging = worker.runtime.block_on(line.client.stage(&line.session, STAGING_BYTES))?.ok_or_else(unshared)?;
    let blocks = worker.figures.put_blocks as usize;
    let bytes = blocks as u64 * u64::from(worker.figures.block_bytes);
    let mut memory = Memory::new(worker.figures.window_bytes as usize, worker.figures.block_bytes as usize);
    let taken = in_turn(effort, |ours_first| {
        let ours = |_: &mut Memory| Ok(gigabytes(bytes, store(worker, &staging)?));
        let limit = |memory: &mut Memory| Ok(gigabytes(bytes, memory.copy(blocks)));
        both(ours_first, &mut memory, ours, limit)
    });
    worker.runtime.block_on(line.client.detach_region(&line.session, staging.region()))?;
    taken
}

fn store(worker: &Worker, staging: &Staging) -> Result<Duration, BenchError> {
    let (request, line) = (worker.request()?, &worker.uds);
    let prompt = Prompt::new(worker.fingerprint, worker.number(), worker.figures.put_blocks)?;
    let fill = |_: u32, to: &mut SpanMut<'_>| if to.write(0, &worker.payload) { worker.figures.block_bytes } else { 0 };
    let began = Instant::now();
    let put = line.client.put_staged(staging, &request, &prompt.chain, worker.figures.block_bytes, fill);
    let stored = worker.runtime.block_on(put)?;
    let time = began.elapsed();
    worker.runtime.block_on(line.client.evict(&prompt.chain, 0))?;
    if stored.accepted_blocks == prompt.blocks() && stored.stored_through == prompt.blocks() {
        return Ok(time);
    }
    Err(BenchError::Lost(format!("a put of {} blocks ended with {stored:?}", prompt.blocks())))
}

fn unshared() -> BenchError {
    BenchError::Lost("the daemon shares no memory".to_owned())
}
