//! A worker's tie to its daemon: one session, opened again when its stream has ended and at no other time, and calls, which
//! are sent while the daemon answers them (`breaker.rs`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::breaker::{Breaker, Takes, Waiting, by_chance};
use super::kept::Kept;
use super::{Arena, BreakerState, Client, ClientError, Session, Staging, WorkerOptions};
use crate::vocab::LeaseId;
use crate::vocab::limits::{RECONNECT_PAUSE, RECONNECT_PAUSE_MAX};

/// What a worker has of a daemon while its session lasts.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) client: Client,
    pub(super) session: Session,
    /// Mapped once its pages are there; bytes come over the socket until then, and where it is not shared.
    pub(super) arena: OnceLock<Arena>,
    pub(super) staging: OnceLock<Staging>,
    pub(super) breaker: Breaker,
}

impl Up {
    /// Begins a call, where calls are sent.
    pub(super) fn call(&self, takes: Takes) -> Option<Waiting<'_>> {
        self.breaker.begin(takes)
    }
}

/// What a worker has done beside its calls, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Sessions opened: the first one, and one for each time that the daemon was lost.
    pub sessions: u64,
    /// How often calls were stopped because none was answered.
    pub opened: u64,
    /// Probes sent meanwhile.
    pub probes: u64,
    /// Calls that were answered without the daemon, because it was silent or not there.
    pub paused_calls: u64,
    /// Ended requests of which the daemon is still to be told.
    pub kept_finishes: usize,
    /// Ended requests of which it never was: their leases have ended by their time limit.
    pub lost_finishes: u64,
}

/// The tie. Dropped, it lets the daemon go.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    upkeep: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    up: watch::Sender<Option<Arc<Up>>>,
    trouble: Mutex<(Instant, String)>,
    kept: Kept,
    sessions: AtomicU64,
    paused: AtomicU64,
    /// Of the sessions before: calls stopped, and probes.
    opened: AtomicU64,
    probes: AtomicU64,
}

impl Link {
    /// Begins to look for the daemon, and answers at once.
    pub(super) fn start(options: WorkerOptions) -> Self {
        let shared = Arc::new(Shared {
            up: watch::Sender::new(None),
            trouble: Mutex::new((Instant::now(), "the daemon was not reached yet".to_owned())),
            kept: Kept::default(),
            sessions: AtomicU64::new(0),
            paused: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            probes: AtomicU64::new(0),
        });
        let upkeep = tokio::spawn(keep(options, Arc::clone(&shared)));
        Self { shared, upkeep }
    }

    /// The daemon, where a session is open, whether it answers or not: a look, no call.
    pub(super) fn up(&self) -> Option<Arc<Up>> {
        self.shared.up.borrow().clone()
    }

    /// The daemon, where it is there and calls are sent.
    pub(super) fn answering(&self) -> Option<Arc<Up>> {
        let up = self.up().filter(|up| up.breaker.state() == BreakerState::Closed);
        if up.is_none() {
            self.shared.paused.fetch_add(1, Ordering::Relaxed);
        }
        up
    }

    /// Waits until it is there and calls are sent.
    pub(super) async fn wait(&self) -> Option<Arc<Up>> {
        let mut ups = self.shared.up.subscribe();
        loop {
            let up = ups.wait_for(Option::is_some).await.ok().and_then(|up| up.clone())?;
            tokio::select! {
                () = up.breaker.closed() => return Some(up),
                _ = ups.changed() => {}
            }
        }
    }

    /// Whether calls are sent; open as well where no session is.
    pub(super) fn breaker(&self) -> BreakerState {
        match self.up() {
            Some(up) => up.breaker.state(),
            None => {
                let (since, why) = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
                BreakerState::Open { since, why }
            }
        }
    }

    /// Ends of requests that the daemon is to be told.
    pub(super) fn kept(&self) -> &Kept {
        &self.shared.kept
    }

    /// What was done so far.
    pub(super) fn counts(&self) -> WorkerCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let shared = &self.shared;
        let (opened, probes) = self.up().map_or((0, 0), |up| up.breaker.counts());
        let (kept_finishes, lost_finishes) = shared.kept.counts();
        WorkerCounts {
            sessions: of(&shared.sessions),
            opened: of(&shared.opened) + opened,
            probes: of(&shared.probes) + probes,
            paused_calls: of(&shared.paused),
            kept_finishes,
            lost_finishes,
        }
    }

    /// Why it was not there, or did not answer, last.
    pub(super) fn trouble(&self) -> String {
        match self.breaker() {
            BreakerState::Open { why, .. } | BreakerState::HalfOpen { why, .. } => why,
            BreakerState::Closed => self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).1.clone(),
        }
    }

    /// A call that had a patience of its own has ended so: only an answer says something of the daemon.
    pub(super) fn judge<T>(&self, up: &Up, answer: &Result<T, ClientError>) {
        match answer {
            Err(error) if is_silence(error) => self.shared.say(error),
            Ok(_) | Err(_) => up.breaker.heard(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

impl Shared {
    fn say(&self, what: &impl ToString) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), what.to_string());
    }

    /// A session has ended; what its breaker counted stays counted.
    fn ended(&self, up: &Up, why: &str) {
        self.say(&why);
        let (opened, probes) = up.breaker.counts();
        self.opened.fetch_add(opened, Ordering::Relaxed);
        self.probes.fetch_add(probes, Ordering::Relaxed);
        self.up.send_replace(None);
    }
}

/// Whether nobody has answered. Refusals are answers.
pub(super) fn is_silence(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { .. } | ClientError::TimedOut { .. })
}

async fn keep(options: WorkerOptions, shared: Arc<Shared>) {
    let mut pause = RECONNECT_PAUSE;
    loop {
        match connect(&options).await {
            Ok(up) => {
                let up = Arc::new(up);
                shared.sessions.fetch_add(1, Ordering::Relaxed);
                shared.up.send_replace(Some(Arc::clone(&up)));
                pause = RECONNECT_PAUSE;
                let why = tokio::select! {
                    why = up.session.closed() => why,
                    why = attend(&up, &options, &shared.kept) => why,
                };
                shared.ended(&up, &why);
            }
            Err(error) => {
                shared.say(&error);
                pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
            }
        }
        tokio::time::sleep(by_chance(pause)).await;
    }
}

/// What is done beside the calls while a session lasts.
async fn attend(up: &Arc<Up>, options: &WorkerOptions, kept: &Kept) -> String {
    let probe = || async {
        // It goes where a leased lookup goes, to the planner and back, and ends no lease, because none has this number.
        up.client.release(&up.session, LeaseId(0)).await.map(drop)
    };
    tokio::join!(map(up, options.staging_bytes), up.breaker.mend(probe), kept.tell(up, options.load_deadline));
    "nobody attends to the session".to_owned()
}

async fn connect(options: &WorkerOptions) -> Result<Up, ClientError> {
    let client = Client::connect_as(&options.address, &options.credentials).await?;
    let session = client.open_session(&options.instance, &options.process).await?;
    client.register_namespace(Some(&session), &options.namespace, &options.spec, None).await?;
    let (arena, staging) = (OnceLock::new(), OnceLock::new());
    Ok(Up { client, session, arena, staging, breaker: Breaker::default() })
}

/// Maps what the daemon shares, where it shares it. Without it everything works, slower: what fails is tried again, since a
/// daemon that was busy for two seconds must not be read over its socket from then on.
async fn map(up: &Up, staging_bytes: u64) {
    let mut pause = RECONNECT_PAUSE;
    loop {
        let mut failed = false;
        if up.arena.get().is_none() {
            match up.client.attach(&up.session).await {
                Ok(Some(arena)) => drop(up.arena.set(arena)),
                Ok(None) => return,
                Err(_) => failed = true,
            }
        }
        if staging_bytes > 0 && up.staging.get().is_none() {
            match up.client.stage(&up.session, staging_bytes).await {
                Ok(Some(staging)) => drop(up.staging.set(staging)),
                Ok(None) => {}
                Err(_) => failed = true,
            }
        }
        if !failed {
            return;
        }
        tokio::time::sleep(by_chance(pause)).await;
        pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
    }
}

/// Runs a call within a deadline of this side's own.
pub(super) async fn within<T>(
    call: &'static str,
    after: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(after, answer).await.unwrap_or(Err(ClientError::TimedOut { call, after }))
}
