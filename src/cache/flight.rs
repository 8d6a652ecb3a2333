//! One load a block: whoever wants a block that is on its way waits for the same landing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::vocab::BlockKey;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// It is in RAM.
    Ready,
    /// RAM has no room for it; read it past RAM.
    NoRoom,
    /// It is not here.
    Gone,
}

type Waiters = HashMap<BlockKey, Vec<oneshot::Sender<Landing>>>;

/// Who waits for which block.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<Waiters>);

impl Flights {
    /// Waits for a block. Call before asking the planner for it, or the landing may be missed.
    pub(super) fn join(self: &Arc<Self>, key: BlockKey) -> Waiter {
        let (sender, landing) = oneshot::channel();
        self.lock().entry(key).or_default().push(sender);
        Waiter { key, landing: Some(landing), flights: Arc::clone(self) }
    }

    /// Tells all who wait for a block.
    pub(super) fn land(&self, key: &BlockKey, landing: Landing) {
        // Taken out first: whoever wakes must not find the lock held.
        let waiters = self.lock().remove(key).unwrap_or_default();
        for waiter in waiters {
            // One who has given up meanwhile needs no answer.
            waiter.send(landing).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Waiter {
    key: BlockKey,
    landing: Option<oneshot::Receiver<Landing>>,
    flights: Arc<Flights>,
}

impl Waiter {
    /// The landing; `Gone` when the daemon is stopping.
    pub(super) async fn landed(mut self) -> Landing {
        match self.landing.as_mut() {
            Some(landing) => landing.await.unwrap_or(Landing::Gone),
            None => Landing::Gone,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        drop(self.landing.take());
        let mut waiters = self.flights.lock();
        if let Some(waiting) = waiters.get_mut(&self.key) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                waiters.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_land_together_and_one_who_leaves_leaves_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let flights = Arc::new(Flights::default());
        let key = BlockKey::from_bytes([1; 32]);
        let (one, other, gone) = (flights.join(key), flights.join(key), flights.join(key));
        drop(gone);
        flights.land(&key, Landing::Ready);
        assert_eq!(runtime.block_on(one.landed()), Landing::Ready);
        assert_eq!(runtime.block_on(other.landed()), Landing::Ready);
        drop(flights.join(key));
        assert!(flights.lock().is_empty());
    }
}
