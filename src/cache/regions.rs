//! Memory shared with engines, as the walks need it: attached, checked, and left alone once a request is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Cache;
use super::error::Error;
use crate::plan::InstanceNo;
use crate::session::{Region, Session};

impl Cache {
    /// Maps a descriptor that the session has handed over, or makes staging memory where `handle` is 0; the region's number.
    ///
    /// # Errors
    /// See [`SharingError`](crate::session::SharingError).
    pub async fn attach(self: &Arc<Self>, session: &Session, handle: u64, bytes: u64) -> Result<u64, Error> {
        let (cache, of) = (Arc::clone(self), session.clone());
        // The kernel makes the pages meanwhile: up to seconds a GiB.
        let attached = tokio::task::spawn_blocking(move || match handle {
            0 => cache.sessions.regions().make(&of, bytes),
            handle => cache.sessions.regions().attach(&of, handle, bytes),
        });
        let number = attached.await.map_err(|error| Error::Broken(error.to_string()))??;
        if let Err(ended) = self.sessions.get(session.id) {
            self.sessions.regions().detach(session.id, number);
            return Err(ended.into());
        }
        Ok(number)
    }

    /// A region that a process of the session's instance has attached.
    ///
    /// # Errors
    /// Where there is none, or it is another instance's.
    pub fn region(&self, session: &Session, region: u64) -> Result<Arc<Region>, Error> {
        Ok(self.sessions.regions().get(session, region)?)
    }

    /// Detaches a region; whether there was one.
    pub fn detach(&self, session: &Session, region: u64) -> bool {
        self.sessions.regions().detach(session.id, region)
    }
}

/// Checks that `room` bytes from the offset of block `at` lie in the region.
pub(super) fn check_offset(region: &Region, at: usize, offset: u64, room: u64) -> Result<(), Error> {
    let size = region.size() as u64;
    if offset.checked_add(room).is_some_and(|end| end <= size) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "offset[{at}] is {offset}: {room} bytes from there end past the region, which has {size}"
    )))
}

/// What writes to engines' memory now, by the request for which it does.
#[derive(Debug, Default)]
pub(super) struct Writing(Arc<Requests>);

/// Whose request writes, and what does. A request goes with the last of it, so that nobody walks through all of them.
type Requests = Mutex<HashMap<(InstanceNo, u128), Arc<UnderWay>>>;

#[derive(Debug, Default)]
struct UnderWay {
    /// Changed by whoever has the requests locked.
    loads: Mutex<usize>,
    stop: CancellationToken,
    ended: Notify,
}

/// Something that may write to an engine's memory. Whoever still does holds it, a drive's completion too.
#[derive(Debug)]
pub(super) struct WriteGuard {
    of: (InstanceNo, u128),
    under_way: Arc<UnderWay>,
    requests: Arc<Requests>,
}

impl Writing {
    pub(super) fn begin(&self, instance: InstanceNo, request: u128) -> Arc<WriteGuard> {
        let of = (instance, request);
        let mut requests = lock(&self.0);
        let under_way = Arc::clone(requests.entry(of).or_default());
        *lock(&under_way.loads) += 1;
        drop(requests);
        Arc::new(WriteGuard { of, under_way, requests: Arc::clone(&self.0) })
    }

    /// Waits until nothing of a request writes any more; with `stop`, it is told to end early.
    pub(super) async fn end(&self, instance: InstanceNo, request: u128, stop: bool) {
        let Some(under_way) = lock(&self.0).get(&(instance, request)).cloned() else { return };
        if stop {
            under_way.stop.cancel();
        }
        loop {
            let ended = under_way.ended.notified();
            if *lock(&under_way.loads) == 0 {
                break;
            }
            ended.await;
        }
    }
}

impl WriteGuard {
    /// Cancelled once its request wants no more.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.under_way.stop
    }
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        let mut requests = lock(&self.requests);
        let left = {
            let mut loads = lock(&self.under_way.loads);
            *loads -= 1;
            *loads
        };
        if left == 0 {
            requests.remove(&self.of);
        }
        drop(requests);
        self.under_way.ended.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_over_when_the_last_who_writes_for_it_has_ended() {
        let writing = Writing::default();
        let (instance, request) = (InstanceNo(1), 7);
        let (walk, read) = {
            let walk = writing.begin(instance, request);
            (Arc::clone(&walk), walk)
        };
        drop(walk);
        let mut over = std::pin::pin!(writing.end(instance, request, true));
        let waits = futures_poll(over.as_mut()).await;
        assert!(waits, "the drive still writes");
        assert!(read.stop().is_cancelled());
        drop(read);
        over.await;
        assert!(!writing.begin(instance, request).stop().is_cancelled(), "the next of that name is another");
        writing.end(instance, 8, true).await;
        assert!(lock(&writing.0).is_empty(), "what is over leaves nothing");
    }

    /// Whether a future is still pending.
    async fn futures_poll(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, future).await.is_err()
    }
}
