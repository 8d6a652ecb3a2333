//! Ends of requests that the daemon could not be told at once: kept, and told when it answers again, so that it does not keep
//! leases until their time is over. Bounded by number, and by how long such a lease lives.
//!
//! A lookup that was given up may be worked on all the same, and take a lease after the request's end was told. So the end of
//! such a request is told a while later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::BreakerState;
use super::breaker::by_chance;
use super::link::{Up, is_silence, within};
use crate::vocab::RequestId;
use crate::vocab::limits::{
    BREAKER_PAUSE, KEPT_FINISHES_AT_ONCE, KEPT_FINISHES_MAX, LATE_LOOKUP_MAX, LEASE_TTL_DEFAULT,
};

/// Requests that are over.
#[derive(Debug, Default)]
pub(super) struct Kept {
    requests: Mutex<Requests>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Requests {
    over: HashMap<RequestId, Over>,
    /// Lookups that were given up, until a lease that they take has ended by itself.
    late: HashMap<RequestId, Instant>,
    lost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Over {
    completed: bool,
    from: Instant,
    /// Its leases have ended by themselves then.
    until: Instant,
}

/// A lookup under way. Dropped before it was answered, it may take a lease that nobody hears of.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    kept: &'a Kept,
    request: Option<&'a RequestId>,
}

impl Asking<'_> {
    /// The daemon has answered.
    pub(super) fn answered(mut self) {
        self.request = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.kept.late(request, Instant::now());
        }
    }
}

/// The end of a request on its way to the daemon. Dropped before the daemon has answered, it is kept.
#[derive(Debug)]
pub(super) struct Telling<'a> {
    kept: &'a Kept,
    request: Option<(RequestId, Over)>,
}

impl Telling<'_> {
    /// The daemon knows.
    pub(super) fn told(mut self) {
        self.request = None;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some((request, over)) = self.request.take() {
            self.kept.keep(request, over, Instant::now());
        }
    }
}

impl Kept {
    /// A request is over; `None` where it is told later, because a lookup of it was given up.
    pub(super) fn over(&self, request: &RequestId, completed: bool) -> Option<Telling<'_>> {
        let now = Instant::now();
        let late = self.lock().late.remove(request).is_some();
        let from = if late { now + LATE_LOOKUP_MAX } else { now };
        let telling = Telling {
            kept: self,
            request: Some((request.clone(), Over { completed, from, until: now + LEASE_TTL_DEFAULT })),
        };
        // Dropped here, it is kept.
        (!late).then_some(telling)
    }

    /// A request is looked up. If it was over, it goes on after all: its end would take the lease that it is about to have.
    pub(super) fn asking<'a>(&'a self, request: &'a RequestId) -> Asking<'a> {
        let mut requests = self.lock();
        if !requests.over.is_empty() {
            requests.over.remove(request);
        }
        Asking { kept: self, request: Some(request) }
    }

    fn late(&self, request: &RequestId, now: Instant) {
        let mut requests = self.lock();
        if requests.late.len() >= KEPT_FINISHES_MAX {
            requests.late.retain(|_, until| *until > now);
        }
        if requests.late.len() < KEPT_FINISHES_MAX {
            requests.late.insert(request.clone(), now + LEASE_TTL_DEFAULT);
        }
    }

    /// How many wait, and how many were never told.
    pub(super) fn counts(&self) -> (usize, u64) {
        let requests = self.lock();
        (requests.over.len(), requests.lost)
    }

    fn keep(&self, request: RequestId, over: Over, now: Instant) {
        let mut requests = self.lock();
        if requests.over.len() >= KEPT_FINISHES_MAX {
            let before = requests.over.len();
            requests.over.retain(|_, over| over.until > now);
            requests.lost += (before - requests.over.len()) as u64;
        }
        if requests.over.len() >= KEPT_FINISHES_MAX {
            requests.lost += 1;
        } else {
            requests.over.insert(request, over);
        }
        drop(requests);
        self.came.notify_one();
    }

    /// Some of them; none whose time is over.
    fn some(&self, now: Instant) -> Vec<(RequestId, Over)> {
        let mut requests = self.lock();
        let before = requests.over.len();
        requests.over.retain(|_, over| over.until > now);
        requests.lost += (before - requests.over.len()) as u64;
        let ready = requests.over.iter().filter(|(_, over)| over.from <= now);
        ready.take(KEPT_FINISHES_AT_ONCE).map(|(request, over)| (request.clone(), *over)).collect()
    }

    fn told(&self, request: &RequestId, told: Over) {
        let mut requests = self.lock();
        if requests.over.get(request) == Some(&told) {
            requests.over.remove(request);
        }
    }

    /// Tells the daemon while it answers, and never ends. Any session of the instance may.
    pub(super) async fn tell(&self, up: &Arc<Up>, patience: Duration) {
        loop {
            if up.breaker.state() != BreakerState::Closed {
                up.breaker.closed().await;
                // Now the daemon works through what has come during its pause.
                tokio::time::sleep(LATE_LOOKUP_MAX).await;
                continue;
            }
            let mut calls = JoinSet::new();
            for (request, over) in self.some(Instant::now()) {
                let up = Arc::clone(up);
                calls.spawn(async move {
                    let told = up.client.finish_request(&up.session, &request, over.completed);
                    let answer = within("FinishRequest", patience, told).await;
                    (request, over, answer)
                });
            }
            if calls.is_empty() {
                let later = async {
                    match self.counts().0 {
                        0 => std::future::pending().await,
                        _ => tokio::time::sleep(LATE_LOOKUP_MAX).await,
                    }
                };
                tokio::select! {
                    () = self.came.notified() => {}
                    () = later => {}
                }
                continue;
            }
            let mut in_vain = false;
            while let Some(call) = calls.join_next().await {
                let Ok((request, over, answer)) = call else { continue };
                if answer.as_ref().is_err_and(is_silence) {
                    in_vain = true;
                } else {
                    self.told(&request, over);
                }
            }
            if in_vain {
                tokio::time::sleep(by_chance(BREAKER_PAUSE)).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: usize) -> RequestId {
        RequestId::parse(&format!("r{number}")).unwrap()
    }

    fn end(kept: &Kept, number: usize) {
        drop(kept.over(&request(number), true).expect("no lookup of it was given up"));
    }

    #[test]
    fn what_was_not_told_is_kept_until_it_is_bounded_by_number_and_time() {
        let kept = Kept::default();
        kept.over(&request(0), true).unwrap().told();
        assert_eq!(kept.counts(), (0, 0), "the daemon knows");
        (0..KEPT_FINISHES_MAX + 5).for_each(|number| end(&kept, number));
        assert_eq!(kept.counts(), (KEPT_FINISHES_MAX, 5));
        kept.asking(&request(1)).answered();
        assert_eq!(kept.counts(), (KEPT_FINISHES_MAX - 1, 5), "a request that is looked up again");
        let some = kept.some(Instant::now());
        assert_eq!(some.len(), KEPT_FINISHES_AT_ONCE);
        let (request_id, over) = some[0].clone();
        kept.told(&request_id, Over { completed: false, ..over });
        assert_eq!(kept.counts().0, KEPT_FINISHES_MAX - 1, "it has ended once more meanwhile");
        kept.told(&request_id, over);
        assert_eq!(kept.counts().0, KEPT_FINISHES_MAX - 2);
        assert!(kept.some(Instant::now() + LEASE_TTL_DEFAULT).is_empty(), "their leases have ended by themselves");
        assert_eq!(kept.counts(), (0, 5 + KEPT_FINISHES_MAX as u64 - 2));
    }

    #[test]
    fn the_end_of_a_request_whose_lookup_was_given_up_is_told_when_that_can_take_no_lease_any_more() {
        let kept = Kept::default();
        kept.asking(&request(1)).answered();
        end(&kept, 1);
        assert_eq!(kept.some(Instant::now()).len(), 1, "an answered one is told at once");
        drop(kept.asking(&request(2)));
        assert!(kept.over(&request(2), true).is_none(), "it is told later");
        let told = |after: Duration| {
            let some = kept.some(Instant::now() + after);
            some.iter().any(|(id, _)| *id == request(2))
        };
        assert_eq!((told(Duration::ZERO), told(LATE_LOOKUP_MAX)), (false, true));
        end(&kept, 2);
        assert!(told(Duration::ZERO), "it has ended once more, without a lookup");
        (0..KEPT_FINISHES_MAX + 5).for_each(|number| drop(kept.asking(&request(number))));
        assert_eq!(kept.lock().late.len(), KEPT_FINISHES_MAX);
    }
}
