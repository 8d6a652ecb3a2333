//! The walk of a promise: a prefix is to stay on NVMe. Nobody is told before all of it is written and the promise is on
//! disk; what can't be kept is refused with the reason.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::{Cache, Chain, unexpected};
use crate::plan::{Answer, Event, KeepError, Kept};
use crate::vocab::limits::{KEEP_LOOK_EVERY, KEEP_MAX};
use crate::vocab::{BlockKey, Lifetime, Promise};

/// Why a prefix is not kept: for people, and for whoever asked for it.
pub type NotKept = String;

/// Promises under way, by their deepest block: one at a time each, or one that fails would take back what another has told.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    blocks: Mutex<HashSet<BlockKey>>,
    ended: Notify,
}

/// The only promise under way for its block. It ends with this.
struct Turn<'a>(&'a Keeping, BlockKey);

impl Keeping {
    /// Waits until no other is under way for the block; nothing if that takes too long.
    async fn begin(&self, deepest: BlockKey, until: Instant) -> Option<Turn<'_>> {
        loop {
            let mut ended = pin!(self.ended.notified());
            // Before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            if self.blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(deepest) {
                return Some(Turn(self, deepest));
            }
            timeout_at(until, ended).await.ok()?;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Self(Keeping { blocks, ended }, deepest) = self;
        blocks.lock().unwrap_or_else(PoisonError::into_inner).remove(deepest);
        ended.notify_waiters();
    }
}

impl Cache {
    /// Keeps the prefix that ends with a block for a lifetime, or until it is unpinned. What is promised is on disk when it
    /// returns.
    ///
    /// # Errors
    /// When the daemon is stopping. That it can't be kept is no error, but the inner result.
    pub(super) async fn keep(
        &self,
        deepest: BlockKey,
        lifetime: Option<Lifetime>,
    ) -> Result<Result<Promise, NotKept>, Error> {
        let until = Instant::now() + KEEP_MAX;
        let late = || format!("its blocks could not be written within {} s", KEEP_MAX.as_secs());
        let Some(_turn) = self.keeping.begin(deepest, until).await else { return Ok(Err(late())) };
        let mut is_new = None;
        let kept = loop {
            let kept = match self.ask_to_keep(deepest, lifetime).await? {
                Ok(kept) => kept,
                Err(why) => return Ok(Err(self.in_words(&why))),
            };
            let is_new = *is_new.get_or_insert(kept.is_new);
            if kept.writing == 0 {
                break kept;
            }
            if Instant::now() >= until {
                self.take_back(deepest, is_new).await?;
                return Ok(Err(late()));
            }
            self.until_written(deepest, until).await?;
        };
        let is_new = is_new.unwrap_or(kept.is_new);
        if let Err(why) = self.note(deepest, kept.promise).await {
            self.take_back(deepest, is_new).await?;
            return Ok(Err(why));
        }
        Ok(Ok(kept.promise))
    }

    async fn ask_to_keep(
        &self,
        deepest: BlockKey,
        lifetime: Option<Lifetime>,
    ) -> Result<Result<Kept, KeepError>, Error> {
        match self.driver.ask(Event::Keep { deepest, lifetime }).await? {
            Answer::Kept(kept) => Ok(kept),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Waits until the block is written or will not be. Blocks are written in the order of their chain, so it is among the
    /// last of its own.
    async fn until_written(&self, deepest: BlockKey, until: Instant) -> Result<(), Error> {
        loop {
            tokio::time::sleep(KEEP_LOOK_EVERY).await;
            let known = self.driver.look(move |planner| planner.inspect(&deepest)).await?;
            let writing = known.is_some_and(|known| known.promise.is_some() && known.nvme_slot.is_none());
            if !writing || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Has the drives and the index keep it over a power cut.
    async fn note(&self, deepest: BlockKey, promise: Promise) -> Result<(), NotKept> {
        let Some(nvme) = self.nvme.clone() else { return Err("this daemon has no NVMe tier".into()) };
        let (reply, written) = oneshot::channel();
        nvme.rows().promise_synced(deepest, promise, move |written| drop(reply.send(written)));
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the promise can't be written: {error}")),
            Err(_) => Err("the promise can't be written: the daemon is stopping".into()),
        }
    }

    /// Waits until the index has what was noted before: nobody is to be told what a restart would take back.
    async fn until_rows_are_written(&self) {
        let Some(nvme) = &self.nvme else { return };
        let (reply, written) = oneshot::channel();
        nvme.rows().passed(move |_| {
            reply.send(()).ok();
        });
        written.await.ok();
    }

    /// Nobody was told of it.
    async fn take_back(&self, deepest: BlockKey, is_new: bool) -> Result<(), Error> {
        if is_new {
            self.driver.ask(Event::Unkeep { deepest, pin: false }).await?;
        }
        Ok(())
    }

    fn in_words(&self, why: &KeepError) -> NotKept {
        match why {
            KeepError::NoShare { account, wanted, left } => {
                let whose = self.names.account_name(*account);
                let whose = whose.map_or_else(|| "an account".to_owned(), |name| name.to_string());
                format!("{wanted} are to be guaranteed, and {left} of the NVMe share of {whose} are not yet promised")
            }
            why => why.to_string(),
        }
    }

    /// Pins a chain, all of which must be readable. Blocks that are kept.
    ///
    /// # Errors
    /// When it can't be kept, or the daemon is stopping.
    pub async fn pin_chain(&self, chain: &Chain) -> Result<u32, Error> {
        let deepest = deepest(chain)?;
        match self.keep(deepest, None).await? {
            Ok(_) => Ok(chain.depth.saturating_add(u32::try_from(chain.len()).unwrap_or(u32::MAX))),
            Err(why) => Err(Error::Refused(format!("the chain can't be pinned: {why}"))),
        }
    }

    /// Takes a pin away. Whether there was one.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn unpin_chain(&self, chain: &Chain) -> Result<bool, Error> {
        match self.driver.ask(Event::Unkeep { deepest: deepest(chain)?, pin: true }).await? {
            Answer::Unkept(was) => {
                self.until_rows_are_written().await;
                Ok(was)
            }
            answer => Err(unexpected(&answer)),
        }
    }
}

fn deepest(chain: &Chain) -> Result<BlockKey, Error> {
    let last = chain.len().checked_sub(1).ok_or_else(|| Error::Invalid("chain names no block".into()))?;
    Ok(chain.key(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn promises_of_one_block_take_turns_and_wait_no_longer_than_they_may() {
        let keeping = Keeping::default();
        let soon = || Instant::now() + KEEP_MAX;
        let (one, other) = (BlockKey::from_bytes([1; 32]), BlockKey::from_bytes([2; 32]));
        let first = keeping.begin(one, soon()).await.unwrap();
        assert!(keeping.begin(other, soon()).await.is_some(), "another block's");
        assert!(keeping.begin(one, Instant::now() + KEEP_LOOK_EVERY).await.is_none(), "the first is still under way");
        let second = async { keeping.begin(one, soon()).await.is_some() };
        // Polled in this order: the second waits before the first ends.
        assert!(tokio::join!(second, async { drop(first) }).0);
        assert!(keeping.begin(one, soon()).await.is_some(), "a turn that is over leaves nothing");
    }
}
