//! Blocks that are on the drive only, read by the daemon straight into a worker's pool; in turn as many bytes of the same file
//! by a bare loop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use tokio::runtime::Runtime;

use super::prompt::{self, Prompt};
use super::rounds::{Effort, Rounds, gigabytes, in_turn};
use super::worker::Line;
use super::{BenchError, BenchOptions};
use crate::client::{LoadIntoOptions, RegionId, RegionPlaces};
use crate::daemon::{Config, Daemon, DriveSpec};
use crate::media::{Op, RawDrive, RawMemory, Region};
use crate::vocab::{ByteCount, Fingerprint, NamespaceName, RequestId, SlotClass};

const BLOCK_BYTES: u32 = 1 << 20;
/// Prompts, read in turn: what one has read, some cache may have kept.
const PROMPTS: u64 = 2;
/// RAM of the daemon that reads: next to nothing, since a pool is filled past it.
const RAM: ByteCount = ByteCount(64 << 20);
const DEADLINE: Option<Duration> = Some(Duration::from_secs(60));

/// Fills a pool from the drive; half of the file, whose size is the options'.
pub(super) fn load_into(options: &BenchOptions, effort: Effort) -> Result<Rounds, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let blocks = options.size.0 / PROMPTS / u64::from(BLOCK_BYTES);
    let bytes = blocks * u64::from(BLOCK_BYTES);
    let (blocks, data) = (u32::try_from(blocks).unwrap_or(u32::MAX), options.dir.join("cold"));
    runtime.block_on(store(options, &data, blocks))?;
    let (daemon, line, _socket) = runtime.block_on(start(options, &data, RAM))?;
    let fingerprint = runtime.block_on(layout(&line))?;
    let prompts = (0..PROMPTS).map(|number| Prompt::new(fingerprint, number, blocks)).collect::<Result<Vec<_>, _>>()?;
    // The bare loop reads to the same memory: where it lies can make a difference of two on virtual machines.
    let pool = Region::make(bytes).map_err(std::io::Error::other)?;
    let attached = runtime.block_on(line.client.attach_region(&line.session, pool.fd(), bytes))?;
    let attached = attached.ok_or_else(|| BenchError::Lost("the daemon shares no memory".to_owned()))?;
    let mut bare = Bare::open(&data.join("slots/0.kv"), options, blocks, &pool).ok();
    let mut round = 0;
    let taken = in_turn(effort, |ours_first| {
        round += 1;
        let prompt = &prompts[round % prompts.len()];
        let mut limit = || bare.as_mut().map(Bare::round).transpose();
        let (ours, limit) = if ours_first {
            let ours = fill(&runtime, &line, prompt, attached, round)?;
            (ours, limit()?)
        } else {
            let limit = limit()?;
            (fill(&runtime, &line, prompt, attached, round)?, limit)
        };
        Ok((gigabytes(bytes, ours), limit.map(|time| gigabytes(bytes, time))))
    });
    drop(line);
    runtime.block_on(daemon.stop());
    std::fs::remove_dir_all(&data)?;
    taken
}

/// Stores the prompts with a daemon that has RAM for one, and ends it: the next one has them on the drive only.
async fn store(options: &BenchOptions, data: &Path, blocks: u32) -> Result<(), BenchError> {
    let ram = ByteCount(u64::from(blocks + 32).next_multiple_of(16) * u64::from(BLOCK_BYTES));
    let (daemon, line, _socket) = start(options, data, ram).await?;
    let fingerprint = layout(&line).await?;
    let mut payload = vec![0; BLOCK_BYTES as usize];
    Pcg64::seed_from_u64(2).fill_bytes(&mut payload);
    let payload = Bytes::from(payload);
    for number in 0..PROMPTS {
        let prompt = Prompt::new(fingerprint, number, blocks)?;
        line.put(&RequestId::parse("store")?, &prompt, &payload).await?;
        daemon.cache().quiesce(DEADLINE.unwrap_or_default()).await.map_err(std::io::Error::other)?;
    }
    drop(line);
    daemon.stop().await;
    Ok(())
}

/// A daemon on this folder, and a line to it; its socket's folder lives as long as the last value.
async fn start(
    options: &BenchOptions,
    data: &Path,
    ram: ByteCount,
) -> Result<(Daemon, Line, tempfile::TempDir), BenchError> {
    // In the system's own folder, because a socket's path is short.
    let folder = tempfile::Builder::new().prefix("kvtier-bench-").tempdir()?;
    let socket = folder.path().join("s");
    let drive = ByteCount(options.size.0 + u64::from(BLOCK_BYTES) * 32);
    let config = Config {
        socket: Some(socket.clone()),
        nvme: vec![DriveSpec::here(drive)],
        scrub: ByteCount(0),
        ..Config::new(data.to_owned(), ram)
    };
    let daemon = Daemon::start(config).await?;
    let line = Line::open(&format!("unix:{}", socket.display())).await?;
    Ok((daemon, line, folder))
}

async fn layout(line: &Line) -> Result<Fingerprint, BenchError> {
    let (name, spec) = (NamespaceName::parse("bench")?, prompt::spec(BLOCK_BYTES));
    Ok(line.client.register_namespace(Some(&line.session), &name, &spec, None).await?.0)
}

fn fill(runtime: &Runtime, line: &Line, prompt: &Prompt, pool: RegionId, round: usize) -> Result<Duration, BenchError> {
    let request = RequestId::parse(&format!("cold-{round}"))?;
    let places = RegionPlaces {
        region: pool,
        offsets: (0..u64::from(prompt.blocks())).map(|block| block * u64::from(BLOCK_BYTES)).collect(),
        lengths: Vec::new(),
    };
    let began = Instant::now();
    let end = runtime.block_on(async {
        let options = LoadIntoOptions { lease: None, deadline: DEADLINE };
        let asked = line.client.load_into(&line.session, &request, &prompt.by_key, places, options);
        asked.await?.end().await
    })?;
    if end.blocks_nvme == prompt.blocks() {
        return Ok(began.elapsed());
    }
    Err(BenchError::Lost(format!("of {} blocks on the drive {end:?} came into the pool", prompt.blocks())))
}

/// The bare loop on the daemon's own file.
struct Bare {
    drive: RawDrive,
    offsets: Vec<u64>,
    blocks: usize,
    at_once: usize,
    random: Pcg64,
}

impl Bare {
    fn open(file: &Path, options: &BenchOptions, blocks: u32, pool: &Arc<Region>) -> Result<Self, BenchError> {
        let at_once = usize::try_from(options.inflight_bytes / u64::from(BLOCK_BYTES)).unwrap_or(usize::MAX).max(1);
        let drive = RawDrive::open(file, RawMemory::Region(Arc::clone(pool)))?;
        let offsets = (0..u64::from(blocks) * PROMPTS).map(|block| block * u64::from(BLOCK_BYTES)).collect();
        Ok(Self { drive, offsets, blocks: blocks as usize, at_once, random: Pcg64::seed_from_u64(3) })
    }

    /// As many blocks as one prompt has, from anywhere in the file.
    fn round(&mut self) -> Result<Duration, BenchError> {
        let class = SlotClass::of_bytes(BLOCK_BYTES).ok_or_else(|| BenchError::Lost("no slots of 1 MiB".to_owned()))?;
        self.offsets.shuffle(&mut self.random);
        Ok(self.drive.round(Op::Read, class, &self.offsets[..self.blocks], self.at_once)?)
    }
}
