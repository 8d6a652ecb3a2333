//! What goes through gRPC: lookups, and blocks by one connection in either direction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::BenchError;
use super::prompt::Prompt;
use super::rounds::{Effort, Rounds, both, gigabytes, in_turn, median_us};
use super::sockets::{self, Socket};
use super::worker::{Line, Worker};
use crate::client::{FetchOptions, LookupOptions};
use crate::vocab::BlockKey;

/// A fetch's deadline: longer than any should take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A lookup of the whole prompt, all of it resident; against an empty call.
pub(super) fn lookup(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    calls_in_turn(worker, effort, |worker| {
        let began = Instant::now();
        let options = LookupOptions::default();
        let asked = worker.uds.client.lookup(&worker.prompt.chain, &options);
        let found = worker.runtime.block_on(asked)?;
        let time = began.elapsed();
        if found.counts.hit() == worker.prompt.blocks() {
            return Ok(time);
        }
        Err(BenchError::Lost(format!("of {} blocks {:?} are there", worker.prompt.blocks(), found.counts)))
    })
}

/// In each round some calls, then as many empty ones or before: the medians of both, in microseconds. Not one by one in
/// turn, because an empty call that follows another waits for what that has left to do.
pub(super) fn calls_in_turn(
    worker: &Worker,
    effort: Effort,
    call: impl Fn(&Worker) -> Result<Duration, BenchError>,
) -> Result<Rounds, BenchError> {
    let median = |call: &dyn Fn(&Worker) -> Result<Duration, BenchError>| {
        let times: Result<Vec<_>, _> = (0..worker.figures.calls).map(|_| call(worker)).collect();
        times.map(median_us)
    };
    in_turn(effort, |ours_first| both(ours_first, &mut (), |()| median(&call), |()| median(&empty_call)))
}

/// The cheapest call there is.
fn empty_call(worker: &Worker) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let serves = worker.runtime.block_on(worker.uds.client.serves())?;
    let time = began.elapsed();
    if serves { Ok(time) } else { Err(BenchError::Lost("the daemon does not serve".to_owned())) }
}

/// Blocks fetched through the Unix socket.
pub(super) fn fetch_uds(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    fetch(worker, effort, &worker.uds, Socket::Unix)
}

/// Blocks fetched through TCP.
pub(super) fn fetch_tcp(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    fetch(worker, effort, &worker.tcp, Socket::Tcp)
}

/// Bytes of the memory that blocks are fetched into, over and over: far beyond every cache.
const INTO_BYTES: usize = 256 << 20;

/// Blocks fetched through the Unix socket into this process's memory, each with its checksum compared, as a worker does it that
/// shares none with the daemon.
pub(super) fn fetch_into_uds(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    let (line, blocks) = (&worker.uds, worker.figures.fetch_blocks as usize);
    let (chain, keys) = (worker.prompt.by_key.head(blocks), worker.prompt.keys.get(..blocks));
    let keys: Arc<[BlockKey]> = keys.unwrap_or_default().into();
    let block_bytes = worker.figures.block_bytes as usize;
    let mut memory = vec![1; INTO_BYTES.next_multiple_of(block_bytes)];
    let ours = || {
        let request = worker.request()?;
        let began = Instant::now();
        let fetched = worker.runtime.block_on(async {
            let options = FetchOptions {
                deadline: Some(DEADLINE),
                verify_with: Some(Arc::clone(&keys)),
                ..FetchOptions::default()
            };
            let mut fetch = line.client.fetch(&line.session, &request, &chain, options).await?;
            let places = memory.len() / block_bytes;
            for block in 0..blocks {
                let at = block % places * block_bytes;
                if fetch.next_block_into(&mut memory[at..at + block_bytes]).await?.is_none() {
                    break;
                }
            }
            let end = fetch.end().await?;
            Ok::<_, BenchError>(end.blocks as usize)
        })?;
        let time = began.elapsed();
        if fetched == blocks { Ok(time) } else { Err(BenchError::Lost(format!("{fetched} of {blocks} blocks came"))) }
    };
    against_socket(effort, (blocks * block_bytes) as u64, ours, Socket::Unix)
}

fn fetch(worker: &Worker, effort: Effort, line: &Line, socket: Socket) -> Result<Rounds, BenchError> {
    let chain = worker.prompt.chain.head(worker.figures.fetch_blocks as usize);
    let bytes = u64::from(worker.figures.fetch_blocks) * u64::from(worker.figures.block_bytes);
    let ours = || {
        let request = worker.request()?;
        let began = Instant::now();
        let fetched = worker.runtime.block_on(async {
            let options = FetchOptions { deadline: Some(DEADLINE), ..FetchOptions::default() };
            let mut fetch = line.client.fetch(&line.session, &request, &chain, options).await?;
            let mut fetched = 0;
            while let Some(block) = fetch.next_block().await? {
                fetched += block.bytes.len() as u64;
            }
            Ok::<_, BenchError>(fetched)
        })?;
        let time = began.elapsed();
        if fetched == bytes { Ok(time) } else { Err(BenchError::Lost(format!("{fetched} of {bytes} bytes came"))) }
    };
    against_socket(effort, bytes, ours, socket)
}

/// Blocks stored through the Unix socket.
pub(super) fn put_uds(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    put(worker, effort, &worker.uds, Socket::Unix)
}

/// Blocks stored through TCP.
pub(super) fn put_tcp(worker: &Worker, effort: Effort) -> Result<Rounds, BenchError> {
    put(worker, effort, &worker.tcp, Socket::Tcp)
}

/// What a round has stored goes again before the next, which then has the slots and not the search for them.
fn put(worker: &Worker, effort: Effort, line: &Line, socket: Socket) -> Result<Rounds, BenchError> {
    let bytes = u64::from(worker.figures.put_blocks) * u64::from(worker.figures.block_bytes);
    let ours = || {
        let request = worker.request()?;
        let prompt = Prompt::new(worker.fingerprint, worker.number(), worker.figures.put_blocks)?;
        let began = Instant::now();
        worker.runtime.block_on(line.put(&request, &prompt, &worker.payload))?;
        let time = began.elapsed();
        worker.runtime.block_on(line.client.evict(&prompt.chain, 0))?;
        Ok(time)
    };
    against_socket(effort, bytes, ours, socket)
}

fn against_socket(
    effort: Effort,
    bytes: u64,
    mut ours: impl FnMut() -> Result<Duration, BenchError>,
    socket: Socket,
) -> Result<Rounds, BenchError> {
    in_turn(effort, |ours_first| {
        let ours = |(): &mut ()| Ok(gigabytes(bytes, ours()?));
        let limit = |(): &mut ()| Ok(gigabytes(bytes, sockets::send(socket, bytes)?));
        both(ours_first, &mut (), ours, limit)
    })
}
