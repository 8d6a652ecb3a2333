//! Reads every block on the drives again, slowly and without end, so that one that went bad is a miss before anybody waits
//! for it; or once and at full speed, when somebody asks.
//!
//! A walk goes through the catalog in the order of keys, which costs the planner nothing, and asks the planner for each
//! block as a reader past RAM does, so that no slot is reused under it. Keys are hashes: how far a walk has come shows in
//! the first bits of the key that it is at.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Cache;
use super::error::Error;
use crate::plan::{Peek, Transfer};
use crate::tiers::{IndexError, NvmeShelf, Place, ReadError, ReadInto};
use crate::vocab::limits::{
    ALIGNMENT, SCRUB_BATCH, SCRUB_PASS_EVERY, SCRUB_REPORTS_MAX, VERIFY_PROBLEMS_MAX, VERIFY_READS,
};
use crate::vocab::{BlockKey, ByteCount};

/// Where the catalog keeps how far the scrub has come.
const POSITION: &str = "scrub";
/// Timers are not finer than this.
const PACE: Duration = Duration::from_millis(10);

/// What was read to be checked, since the start.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    bytes_per_second: AtomicU64,
    passes: AtomicU64,
    blocks: AtomicU64,
    bytes: AtomicU64,
    corrupt: AtomicU64,
    /// The last key that the endless walk has read; `None` at its beginning.
    position: Mutex<Option<BlockKey>>,
    /// Held by the one who walks at full speed.
    verifying: tokio::sync::Mutex<()>,
}

/// The same, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScrubStatus {
    /// What it may read; 0 where it is off.
    pub bytes_per_second: u64,
    /// Passes over all blocks that it has finished.
    pub passes: u64,
    /// Blocks read, those of verifications included.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, blocks that could not be read or were not what was written.
    pub corrupt: u64,
    /// How far the pass under way has come: 0 to 1.
    pub progress: f64,
}

/// What a verification has found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blocks on the drives when it began.
    pub of_blocks: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, blocks that could not be read or were not what was written. They are misses from now on.
    pub corrupt: u64,
    /// Bad blocks found since the last message, and why: the first thousand of a verification.
    pub problems: Vec<(BlockKey, String)>,
    /// Whether it is over.
    pub done: bool,
}

/// What became of one block.
enum Checked {
    /// It has gone, nobody can reach it, or its drive is too busy.
    Skipped,
    Good(u32),
    Bad(u32, ReadError),
}

/// A walk through the catalog.
struct Walk {
    after: Option<BlockKey>,
    batch: VecDeque<BlockKey>,
    reported: u64,
}

impl Walk {
    fn from(after: Option<BlockKey>) -> Self {
        Self { after, batch: VecDeque::new(), reported: 0 }
    }

    /// The next key; `None` at the end.
    async fn next(&mut self, nvme: &Arc<NvmeShelf>) -> Result<Option<BlockKey>, IndexError> {
        if self.batch.is_empty() {
            let (catalog, after) = (Arc::clone(nvme.catalog()), self.after);
            let read = tokio::task::spawn_blocking(move || catalog.keys_after(after, SCRUB_BATCH));
            self.batch = match read.await {
                Ok(read) => read?.into(),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The program is ending.
                Err(_) => VecDeque::new(),
            };
        }
        let next = self.batch.pop_front();
        self.after = next.or(self.after);
        Ok(next)
    }

    /// Logs a bad block, unless many were.
    fn report(&mut self, key: BlockKey, error: &ReadError) {
        self.reported += 1;
        if self.reported <= SCRUB_REPORTS_MAX {
            tracing::warn!(%key, %error, "a block went bad on its drive: it is a miss from now on");
        }
    }

    fn end(&self, what: &str) {
        if self.reported > SCRUB_REPORTS_MAX {
            tracing::warn!(blocks = self.reported, "{what} found more blocks that went bad than were logged");
        }
    }
}

impl Scrub {
    fn count(&self, checked: &Checked) {
        let (Checked::Good(length) | Checked::Bad(length, _)) = checked else { return };
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(u64::from(*length), Ordering::Relaxed);
        self.corrupt.fetch_add(u64::from(matches!(checked, Checked::Bad(..))), Ordering::Relaxed);
    }

    pub(super) fn status(&self) -> ScrubStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ScrubStatus {
            bytes_per_second: get(&self.bytes_per_second),
            passes: get(&self.passes),
            blocks: get(&self.blocks),
            bytes: get(&self.bytes),
            corrupt: get(&self.corrupt),
            progress: self.position().map_or(0.0, |key| share(&key)),
        }
    }

    fn position(&self) -> Option<BlockKey> {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_position(&self, position: Option<BlockKey>) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }
}

/// Which share of all keys comes before this one.
fn share(key: &BlockKey) -> f64 {
    let first = key.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first) as f64 / u64::MAX as f64
}

impl Cache {
    /// Reads one block in the background and checks it.
    async fn check(&self, nvme: &NvmeShelf, key: BlockKey) -> Checked {
        let Ok(Some(permit)) = self.driver.peek(key).await else { return Checked::Skipped };
        let Peek { slot, class, length, crc, .. } = permit.peek();
        let (reply, read) = oneshot::channel();
        nvme.read(key, Place { slot, class, length, crc }, ReadInto::Scrub, move |result| {
            let outcome = match &result {
                // To the planner nothing was read: nobody was served.
                Ok(_) | Err(ReadError::QueueFull) => Transfer::Refused,
                Err(_) => Transfer::Failed,
            };
            permit.end(outcome);
            reply.send(result.map(drop)).ok();
        });
        let checked = match read.await {
            Ok(Ok(())) => Checked::Good(length),
            Ok(Err(ReadError::QueueFull)) | Err(_) => Checked::Skipped,
            Ok(Err(error)) => Checked::Bad(length, error),
        };
        self.scrub.count(&checked);
        checked
    }

    /// Walks over all blocks, at most `rate` bytes a second, until the cache is gone or closes. To be run as a task.
    pub async fn keep_scrubbing(self: Arc<Self>, rate: ByteCount, closing: CancellationToken) {
        let Some(nvme) = self.nvme.as_ref().filter(|_| rate > ByteCount::ZERO) else { return };
        self.scrub.bytes_per_second.store(rate.0, Ordering::Relaxed);
        let stored = nvme.catalog().meta(POSITION).ok().flatten();
        let position = stored.and_then(|bytes| bytes.try_into().ok()).map(BlockKey::from_bytes);
        self.scrub.set_position(position);
        let cache = Arc::downgrade(&self);
        drop(self);
        let mut walk = Walk::from(position);
        let (mut began, mut due) = (Instant::now(), Instant::now());
        loop {
            let Some(cache) = cache.upgrade() else { return };
            match cache.scrub_one(&mut walk).await {
                Some(bytes) => {
                    due = due.max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate.0 as f64);
                }
                None => {
                    walk.end("the scrub");
                    walk = Walk::from(None);
                    due = (began + SCRUB_PASS_EVERY).max(Instant::now());
                    began = due;
                }
            }
            drop(cache);
            if due > Instant::now() + PACE {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = closing.cancelled() => return,
                }
            } else if closing.is_cancelled() {
                return;
            }
        }
    }

    /// The next block of the endless walk: the bytes that it counts for, `None` at the end of a pass.
    async fn scrub_one(&self, walk: &mut Walk) -> Option<u64> {
        let nvme = self.nvme.as_ref()?;
        let next = walk.next(nvme).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the scrub can't read the catalog: it begins again later");
            None
        });
        self.scrub.set_position(next);
        let Some(key) = next else {
            self.scrub.passes.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let bytes = match self.check(nvme, key).await {
            Checked::Skipped => 0,
            Checked::Good(length) => length,
            Checked::Bad(length, error) => {
                walk.report(key, &error);
                length
            }
        };
        // One that is skipped costs its question.
        Some(u64::from(bytes).max(ALIGNMENT))
    }

    /// Stores how far the scrub has come, so that the next start goes on from there.
    pub(super) fn save_scrub(&self) -> Result<(), IndexError> {
        let Some(nvme) = self.nvme.as_ref().filter(|_| self.scrub.status().bytes_per_second > 0) else { return Ok(()) };
        let position = self.scrub.position();
        nvme.catalog().put_meta(POSITION, position.as_ref().map_or(&[][..], |key| key.as_bytes()))
    }

    /// Reads every block on the drives once, at full speed, and sends what it has found so far now and then. Ends early
    /// where whoever reads that is gone.
    ///
    /// # Errors
    /// When one is under way already, or the catalog can't be read.
    pub async fn verify(self: &Arc<Self>, found: &mpsc::Sender<Result<Verified, Error>>) -> Result<(), Error> {
        let Ok(_alone) = self.scrub.verifying.try_lock() else {
            return Err(Error::Full("a verification is under way: one reads the drives at full speed".into()));
        };
        let of_blocks = self.driver.look(|planner| planner.holdings().nvme_blocks).await?;
        let mut verified = Verified { of_blocks, ..Verified::default() };
        if let Some(nvme) = &self.nvme {
            let mut walk = Walk::from(None);
            let (mut checks, mut looked, mut ended) = (JoinSet::new(), 0_usize, false);
            loop {
                while !ended && checks.len() < VERIFY_READS {
                    match walk.next(nvme).await.map_err(|error| Error::Broken(format!("catalog: {error}")))? {
                        Some(key) => {
                            let (cache, nvme) = (Arc::clone(self), Arc::clone(nvme));
                            checks.spawn(async move { (key, cache.check(&nvme, key).await) });
                        }
                        None => ended = true,
                    }
                }
                let Some(checked) = checks.join_next().await else { break };
                // It must not look like the end of all blocks.
                let (key, checked) = checked.map_err(|error| Error::Broken(format!("a check ended: {error}")))?;
                verified.add(key, checked, &mut walk);
                looked += 1;
                if looked.is_multiple_of(SCRUB_BATCH) && found.send(Ok(verified.so_far())).await.is_err() {
                    return Ok(());
                }
            }
            walk.end("a verification");
        }
        found.send(Ok(Verified { done: true, ..verified })).await.ok();
        Ok(())
    }
}

impl Verified {
    /// What is known now; its problems are told once.
    fn so_far(&mut self) -> Self {
        let problems = std::mem::take(&mut self.problems);
        Self { problems, ..self.clone() }
    }

    fn add(&mut self, key: BlockKey, checked: Checked, walk: &mut Walk) {
        let length = match checked {
            Checked::Skipped => return,
            Checked::Good(length) => length,
            Checked::Bad(length, error) => {
                walk.report(key, &error);
                self.corrupt += 1;
                if self.corrupt <= VERIFY_PROBLEMS_MAX as u64 {
                    self.problems.push((key, error.to_string()));
                }
                length
            }
        };
        self.blocks += 1;
        self.bytes += u64::from(length);
    }
}
