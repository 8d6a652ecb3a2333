//! Whether a worker's calls are sent. A daemon that says nothing is not asked again and again, each time for a deadline: calls
//! are answered "no hit" at once, and one probe waits for the daemon's first word. It stops calls and nothing else: the session,
//! its leases and the mapped memory stay, because only the end of the session's stream ends those.
//!
//! What counts is time and not calls: eight lookups that are late in the same stall are one piece of evidence. Only silence
//! counts: a refusal is an answer, and a broken connection is the session's affair.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ClientError;
use crate::vocab::limits::{BREAKER_PAUSE, BREAKER_PAUSE_MAX, BREAKER_PROBE_MAX, BREAKER_SILENCE};

/// Whether a [`Worker`](super::Worker)'s calls are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They are.
    Closed,
    /// They are not, and answer "no hit" at once: the daemon is not there, or was just found silent.
    Open {
        /// Since when.
        since: Instant,
        /// Why, for logs.
        why: String,
    },
    /// They are not; one probe waits for an answer, which lets calls through again.
    HalfOpen {
        /// Since when calls are not sent.
        since: Instant,
        /// Why, for logs.
        why: String,
    },
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// A look at memory: while such a call waits, silence counts.
    Moments,
    /// What a drive, a queue or other work takes: its own deadline says when it is too long.
    Long,
}

/// The breaker of one session.
#[derive(Debug)]
pub(super) struct Breaker(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    stopped: Option<Stopped>,
    silence: Silence,
    /// When the daemon last answered a call.
    heard: Option<Instant>,
    /// How often in a row calls were stopped without an answer to any of them in between.
    in_vain: u32,
    opened: u64,
    probes: u64,
}

#[derive(Clone, Debug)]
struct Stopped {
    since: Instant,
    why: String,
    probing: bool,
}

/// For how long calls have waited without an answer to any of them. Time in which none waits does not count, and time in
/// which several wait counts once.
#[derive(Debug, Default)]
struct Silence {
    waiting: u32,
    since: Option<Instant>,
    before: Duration,
}

impl Silence {
    fn begin(&mut self, now: Instant) {
        if self.waiting == 0 {
            self.since = Some(now);
        }
        self.waiting += 1;
    }

    /// A call has ended, in vain or not; how long the silence is.
    fn end(&mut self, now: Instant) -> Duration {
        let lasted = self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            (self.before, self.since) = (lasted, None);
        }
        lasted
    }

    fn heard(&mut self, now: Instant) {
        (self.before, self.since) = (Duration::ZERO, (self.waiting > 0).then_some(now));
    }
}

impl State {
    fn stop(&mut self, now: Instant, why: String) {
        self.stopped = Some(Stopped { since: now, why, probing: false });
        self.opened += 1;
        self.in_vain = self.in_vain.saturating_add(1);
    }

    /// A call was answered.
    fn answered(&mut self, now: Instant) {
        self.in_vain = 0;
        self.go_on(now);
    }

    fn go_on(&mut self, now: Instant) {
        self.heard = Some(now);
        self.silence.heard(now);
        self.stopped = None;
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self(watch::Sender::new(State::default()))
    }
}

impl Breaker {
    /// Whether calls are sent.
    pub(super) fn state(&self) -> BreakerState {
        match self.0.borrow().stopped.clone() {
            None => BreakerState::Closed,
            Some(Stopped { since, why, probing: false }) => BreakerState::Open { since, why },
            Some(Stopped { since, why, probing: true }) => BreakerState::HalfOpen { since, why },
        }
    }

    /// How often calls were stopped, and how many probes were sent.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.0.borrow();
        (state.opened, state.probes)
    }

    /// Begins a call, if calls are sent.
    pub(super) fn begin(&self, takes: Takes) -> Option<Waiting<'_>> {
        let (now, mut goes) = (Instant::now(), false);
        self.0.send_if_modified(|state| {
            goes = state.stopped.is_none();
            if goes && takes == Takes::Moments {
                state.silence.begin(now);
            }
            false
        });
        goes.then_some(Waiting { breaker: self, takes, began: now, over: false })
    }

    /// The daemon has answered a call.
    pub(super) fn heard(&self) {
        let now = Instant::now();
        self.0.send_if_modified(|state| {
            let stopped = state.stopped.is_some();
            state.answered(now);
            stopped
        });
    }

    /// Waits until calls are sent.
    pub(super) async fn closed(&self) {
        self.0.subscribe().wait_for(|state| state.stopped.is_none()).await.ok();
    }

    /// Waits until they are not.
    pub(super) async fn opened(&self) {
        self.0.subscribe().wait_for(|state| state.stopped.is_some()).await.ok();
    }

    /// Sends a probe whenever calls are stopped, one at a time, and never ends. Its answer is the daemon's first word after a
    /// pause, so that no call has to find out.
    pub(super) async fn mend<Answer>(&self, probe: impl Fn() -> Answer)
    where
        Answer: Future<Output = Result<(), ClientError>>,
    {
        loop {
            self.opened().await;
            let in_vain = self.0.borrow().in_vain;
            tokio::time::sleep(pause(in_vain)).await;
            if !self.half_open() {
                continue;
            }
            let answer = tokio::select! {
                answer = tokio::time::timeout(BREAKER_PROBE_MAX, probe()) => answer,
                // By the late answer of a call.
                () = self.closed() => continue,
            };
            let now = Instant::now();
            let answered =
                matches!(&answer, Ok(Ok(()) | Err(ClientError::Refused { .. } | ClientError::Protocol { .. })));
            self.0.send_modify(|state| match &mut state.stopped {
                Some(_) if answered => state.go_on(now),
                Some(stopped) => {
                    stopped.probing = false;
                    // A connection that refuses at once must not be asked without a pause.
                    state.in_vain = state.in_vain.saturating_add(u32::from(answer.is_ok()));
                }
                None => {}
            });
        }
    }

    fn half_open(&self) -> bool {
        self.0.send_if_modified(|state| {
            let Some(stopped) = &mut state.stopped else { return false };
            stopped.probing = true;
            state.probes += 1;
            true
        })
    }
}

/// How long to wait before a probe: not at all at first; where probes are answered and calls are not, longer each time.
/// Somewhat less by chance, so that the workers of a fleet do not ask together.
fn pause(in_vain: u32) -> Duration {
    let doublings = in_vain.saturating_sub(2).min(16);
    let most = BREAKER_PAUSE.saturating_mul(1 << doublings).min(BREAKER_PAUSE_MAX);
    if in_vain < 2 { Duration::ZERO } else { by_chance(most) }
}

/// Between half of a pause and all of it.
pub(super) fn by_chance(most: Duration) -> Duration {
    most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// A call that waits for its answer. Dropped without one, the time that it has waited counts.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    breaker: &'a Breaker,
    takes: Takes,
    began: Instant,
    over: bool,
}

impl Waiting<'_> {
    /// The daemon has said something, and goes on.
    pub(super) fn heard(&self) {
        self.breaker.heard();
    }

    /// The call has ended so.
    pub(super) fn end<T>(mut self, answer: &Result<T, ClientError>) {
        match answer {
            Ok(_) | Err(ClientError::Refused { .. } | ClientError::Protocol { .. }) => {
                self.breaker.heard();
                self.leave(None);
            }
            Err(ClientError::Unreachable { .. }) => self.leave(None),
            Err(error @ ClientError::TimedOut { .. }) => self.leave(Some(error.to_string())),
        }
    }

    /// It waits no longer; `in_vain` says why that is the daemon's fault.
    fn leave(&mut self, in_vain: Option<String>) {
        self.over = true;
        let (now, began, takes) = (Instant::now(), self.began, self.takes);
        self.breaker.0.send_if_modified(|state| {
            let (lasted, too_long) = match takes {
                Takes::Moments => {
                    let lasted = state.silence.end(now);
                    (lasted, lasted >= BREAKER_SILENCE)
                }
                // Its deadline has passed, and nobody else has heard anything meanwhile.
                Takes::Long => (now - began, state.heard.is_none_or(|heard| heard <= began)),
            };
            let Some(why) = in_vain.filter(|_| too_long && state.stopped.is_none()) else { return false };
            state.stop(now, format!("no call was answered for {lasted:.3?}: {why}"));
            true
        });
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            let in_vain = (self.takes == Takes::Moments).then(|| "a call was given up unanswered".to_owned());
            self.leave(in_vain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Result<(), ClientError> =
        Err(ClientError::TimedOut { call: "Lookup", after: Duration::from_millis(20) });

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn silence_is_time_in_which_calls_wait_and_several_at_once_are_one() {
        let (began, mut silence) = (Instant::now(), Silence::default());
        // Eight calls of the same stall.
        (0..8).for_each(|at| silence.begin(began + ms(at)));
        (0..8).for_each(|at| assert!(silence.end(began + ms(20 + at)) <= ms(27)));
        // Nobody waits for an hour, then one call does.
        silence.begin(began + ms(3_600_000));
        assert_eq!(silence.end(began + ms(3_600_020)), ms(47));
        // An answer ends it, also for who waits on.
        silence.begin(began + ms(4_000_000));
        silence.begin(began + ms(4_000_000));
        silence.heard(began + ms(4_000_010));
        assert_eq!(silence.end(began + ms(4_000_010)), Duration::ZERO);
        assert_eq!(silence.end(began + ms(4_000_030)), ms(20));
    }

    #[tokio::test]
    async fn eight_late_calls_of_one_stall_are_one_piece_of_evidence_and_a_longer_stall_stops_calls() {
        // Again where this thread was held up itself.
        let breaker = loop {
            let (breaker, began) = (Breaker::default(), Instant::now());
            let calls: Vec<_> = (0..8).map(|_| breaker.begin(Takes::Moments).unwrap()).collect();
            calls.into_iter().for_each(|call| call.end(&LATE));
            if began.elapsed() < BREAKER_SILENCE {
                break breaker;
            }
        };
        assert_eq!((breaker.state(), breaker.counts()), (BreakerState::Closed, (0, 0)), "they have not waited long");
        let (one, other) = (breaker.begin(Takes::Moments).unwrap(), breaker.begin(Takes::Moments).unwrap());
        std::thread::sleep(BREAKER_SILENCE);
        one.end(&LATE);
        let BreakerState::Open { why, .. } = breaker.state() else { panic!("{breaker:?}") };
        assert!(why.contains("no call was answered for") && why.contains("Lookup had no answer within 20ms"), "{why}");
        assert!(breaker.begin(Takes::Moments).is_none() && breaker.begin(Takes::Long).is_none());
        // An answer that is late is an answer.
        other.end(&Ok(()));
        assert_eq!((breaker.state(), breaker.counts()), (BreakerState::Closed, (1, 0)));
    }

    #[tokio::test]
    async fn only_silence_stops_calls() {
        let breaker = Breaker::default();
        let refused = Err::<(), _>(ClientError::Refused { code: tonic::Code::Unavailable, message: "stopping".into() });
        let broken = || {
            let address = crate::client::ServerAddress::Tcp("host:1".into());
            Err::<(), _>(ClientError::Unreachable { address, why: "reset".into() })
        };
        for answer in [Ok(()), refused, Err(ClientError::protocol("odd")), broken()] {
            let call = breaker.begin(Takes::Moments).unwrap();
            std::thread::sleep(BREAKER_SILENCE);
            call.end(&answer);
            assert_eq!(breaker.state(), BreakerState::Closed, "{answer:?}");
        }
        // A long call past its deadline, during which others were answered.
        let long = breaker.begin(Takes::Long).unwrap();
        breaker.heard();
        long.end(&LATE);
        assert_eq!(breaker.state(), BreakerState::Closed);
        let long = breaker.begin(Takes::Long).unwrap();
        long.end(&LATE);
        assert!(matches!(breaker.state(), BreakerState::Open { .. }), "and one during which none was");
    }

    #[tokio::test]
    async fn who_gives_up_its_lookups_before_their_deadline_has_waited_all_the_same() {
        let breaker = Breaker::default();
        while breaker.state() == BreakerState::Closed {
            let call = breaker.begin(Takes::Moments).unwrap();
            tokio::time::sleep(ms(5)).await;
            drop(call);
        }
        assert_eq!(breaker.counts(), (1, 0));
    }

    /// Stops calls, as a stall would.
    async fn stop(breaker: &Breaker) {
        let call = breaker.begin(Takes::Moments).unwrap();
        tokio::time::sleep(BREAKER_SILENCE).await;
        call.end(&LATE);
        assert_ne!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test]
    async fn one_probe_waits_for_the_daemons_first_word_and_its_answer_lets_calls_through() {
        let (breaker, answer) = (Breaker::default(), tokio::sync::Notify::new());
        let probe = || async {
            answer.notified().await;
            Ok(())
        };
        let test = async {
            for stall in 1..4 {
                stop(&breaker).await;
                while !matches!(breaker.state(), BreakerState::HalfOpen { .. }) {
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(4 * BREAKER_SILENCE).await;
                assert_eq!(breaker.counts(), (stall, stall), "one probe a stall, however long it lasts");
                answer.notify_one();
                breaker.closed().await;
                breaker.begin(Takes::Moments).unwrap().end(&Ok(()));
            }
        };
        tokio::select! {
            () = breaker.mend(probe) => {}
            () = test => {}
        }
    }

    #[tokio::test]
    async fn where_probes_are_answered_and_calls_are_not_calls_pause_longer_each_time() {
        assert_eq!((pause(0), pause(1)), (Duration::ZERO, Duration::ZERO), "the first probe goes out at once");
        for in_vain in 2..40 {
            let most = BREAKER_PAUSE_MAX.min(BREAKER_PAUSE * (1 << (in_vain - 2).min(10)));
            assert!((most / 2..=most).contains(&pause(in_vain)), "{in_vain}: {:?}", pause(in_vain));
        }
        let breaker = Breaker::default();
        let in_vain = || breaker.0.borrow().in_vain;
        let test = async {
            for stall in 1..4 {
                stop(&breaker).await;
                breaker.closed().await;
                assert_eq!(in_vain(), stall);
            }
            breaker.begin(Takes::Moments).unwrap().end(&Ok(()));
            assert_eq!(in_vain(), 0, "an answered call ends that");
        };
        tokio::select! {
            () = breaker.mend(|| async { Ok(()) }) => {}
            () = test => {}
        }
    }

    #[tokio::test]
    async fn a_probe_that_fails_is_sent_again_after_a_pause_and_one_that_is_refused_is_answered() {
        let (breaker, sent) = (Breaker::default(), std::cell::Cell::new(0));
        let probe = || {
            sent.set(sent.get() + 1);
            let answer = match sent.get() {
                1 | 2 => LATE,
                _ => Err(ClientError::Refused { code: tonic::Code::NotFound, message: "no such session".into() }),
            };
            async { answer }
        };
        stop(&breaker).await;
        tokio::select! {
            () = breaker.mend(probe) => {}
            () = breaker.closed() => {}
        }
        assert_eq!((sent.get(), breaker.counts()), (3, (1, 3)));
    }
}
