//! What a connection may have pinned: slots whose bytes are on their way out can't be evicted, and a reader decides when
//! they have left. So a fetch says before its first block how much it will pin at most, waits while its connection has
//! too much, and a reader that keeps bytes from leaving long after its deadline loses its connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::vocab::limits::{ALIGNMENT, CONNECTION_PINNED_BYTES, FETCH_STALL_STEP};

/// Budgets are counted in units of the smallest slot.
const UNIT: u64 = ALIGNMENT;

/// One connection's budget, and the way to end it. Clones are the same connection's.
#[derive(Clone, Debug)]
pub struct ConnectionPins {
    budget: Arc<Semaphore>,
    cut: CancellationToken,
}

impl Default for ConnectionPins {
    fn default() -> Self {
        let budget = Arc::new(Semaphore::new(units(CONNECTION_PINNED_BYTES) as usize));
        Self { budget, cut: CancellationToken::new() }
    }
}

impl ConnectionPins {
    /// Told when the connection has to end.
    #[must_use]
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// The right to pin so many bytes; waits until there is room for them. More than the whole budget is the whole
    /// budget: then nothing else of the connection is under way.
    pub(super) async fn hold(&self, bytes: u64) -> Hold {
        let units = units(bytes.min(CONNECTION_PINNED_BYTES));
        let room = Arc::clone(&self.budget).acquire_many_owned(units).await.ok();
        Hold { _room: room, ended: CancellationToken::new() }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// A part of a connection's budget, shared by all bytes that are on their way out under it.
#[derive(Debug)]
pub(super) struct Hold {
    _room: Option<OwnedSemaphorePermit>,
    ended: CancellationToken,
}

impl Hold {
    /// Told when the last of its bytes have left.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// The same bytes, not copied; the hold lasts until they are dropped.
    pub(super) fn keep(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _hold: Arc::clone(self) })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Whether the last bytes of a hold leave within `patience`, in time in which this process runs: a daemon that was paused has
/// not sent them meanwhile, and its readers are not to blame.
pub(super) async fn have_left(ended: &CancellationToken, patience: Duration) -> bool {
    have_left_in_steps(ended, patience, FETCH_STALL_STEP).await
}

async fn have_left_in_steps(ended: &CancellationToken, patience: Duration, step: Duration) -> bool {
    let mut waited = Duration::ZERO;
    while waited < patience {
        if timeout(step, ended.cancelled()).await.is_ok() {
            return true;
        }
        // However long it took: more than a step is a pause.
        waited += step;
    }
    false
}

struct Held {
    // First: the pin is back before the budget is.
    bytes: Bytes,
    _hold: Arc<Hold>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn what_is_over_the_budget_waits_until_the_last_bytes_have_left() {
        let pins = ConnectionPins::default();
        let hold = Arc::new(pins.hold(CONNECTION_PINNED_BYTES - UNIT).await);
        let (bytes, ended) = (hold.keep(Bytes::from_static(b"payload")), hold.ended());
        let part = bytes.slice(3..);
        assert_eq!((&*part, part.as_ptr()), (&b"load"[..], bytes[3..].as_ptr()));
        let mut more = pin!(pins.hold(2 * UNIT));
        let mut cx = Context::from_waker(Waker::noop());
        drop((hold, bytes));
        assert!(more.as_mut().poll(&mut cx).is_pending() && !ended.is_cancelled());
        drop(part);
        assert!(more.as_mut().poll(&mut cx).is_ready() && ended.is_cancelled());
    }

    #[tokio::test]
    async fn a_pause_of_the_daemon_is_not_its_readers_stall_and_a_stall_is_found_all_the_same() {
        let (ended, patience, step) = (CancellationToken::new(), Duration::from_millis(50), Duration::from_millis(10));
        let mut left = pin!(have_left_in_steps(&ended, patience, step));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(left.as_mut().poll(&mut cx).is_pending());
        // Every timer fires at the end of a pause.
        std::thread::sleep(2 * patience);
        tokio::task::yield_now().await;
        assert!(left.as_mut().poll(&mut cx).is_pending(), "the reader has a chance to take them");
        ended.cancel();
        assert!(left.await);
        assert!(!have_left_in_steps(&CancellationToken::new(), patience, step).await);
    }

    #[tokio::test]
    async fn a_block_larger_than_the_budget_takes_it_whole_and_another_connection_has_its_own() {
        let pins = ConnectionPins::default();
        let _all = pins.hold(3 * CONNECTION_PINNED_BYTES).await;
        assert!(pin!(pins.hold(1)).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        ConnectionPins::default().hold(CONNECTION_PINNED_BYTES).await;
    }
}
