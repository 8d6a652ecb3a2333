//! A worker's tie to its daemon: made again whenever it breaks, and given up for a while when calls keep failing, so that a
//! request never waits for a daemon that is slow or gone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::{Arena, Client, ClientError, Session, Staging, WorkerOptions};
use crate::vocab::limits::{BREAKER_FAILURES, BREAKER_PAUSE, BREAKER_PAUSE_MAX};

/// What a worker has of a daemon while it is there.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) client: Client,
    pub(super) session: Session,
    /// Mapped once its pages are there; bytes come over the socket until then, and where it is not shared.
    pub(super) arena: OnceLock<Arena>,
    pub(super) staging: OnceLock<Staging>,
    /// Calls in a row that had no answer.
    failures: AtomicU32,
    broken: Notify,
}

/// The tie. Dropped, it lets the daemon go.
#[derive(Debug)]
pub(super) struct Link {
    up: watch::Receiver<Option<Arc<Up>>>,
    trouble: Arc<Mutex<String>>,
    upkeep: JoinHandle<()>,
}

impl Link {
    /// Begins to look for the daemon, and answers at once.
    pub(super) fn start(options: WorkerOptions) -> Self {
        let (sender, up) = watch::channel(None);
        let trouble = Arc::new(Mutex::new("the daemon was not reached yet".to_owned()));
        let upkeep = tokio::spawn(keep(options, sender, Arc::clone(&trouble)));
        Self { up, trouble, upkeep }
    }

    /// The daemon, where it is there: a look, no call.
    pub(super) fn up(&self) -> Option<Arc<Up>> {
        self.up.borrow().clone()
    }

    /// Waits until it is there.
    pub(super) async fn wait(&self) -> Option<Arc<Up>> {
        let mut up = self.up.clone();
        up.wait_for(Option::is_some).await.ok().and_then(|up| up.clone())
    }

    /// Why it was not there last.
    pub(super) fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A call has ended so. Refusals are answers: only silence counts against the daemon.
    pub(super) fn judge<T>(&self, up: &Up, answer: &Result<T, ClientError>) {
        match answer {
            Err(error @ (ClientError::Unreachable { .. } | ClientError::TimedOut { .. })) => {
                say(&self.trouble, error);
                if up.failures.fetch_add(1, Ordering::Relaxed) + 1 >= BREAKER_FAILURES {
                    up.broken.notify_one();
                }
            }
            Ok(_) | Err(_) => up.failures.store(0, Ordering::Relaxed),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

fn say(trouble: &Mutex<String>, what: &impl ToString) {
    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = what.to_string();
}

async fn keep(options: WorkerOptions, sender: watch::Sender<Option<Arc<Up>>>, trouble: Arc<Mutex<String>>) {
    let mut pause = BREAKER_PAUSE;
    loop {
        match connect(&options).await {
            Ok(up) => {
                let up = Arc::new(up);
                sender.send_replace(Some(Arc::clone(&up)));
                pause = BREAKER_PAUSE;
                let mapping = tokio::spawn(map(Arc::clone(&up), options.staging_bytes));
                tokio::select! {
                    why = up.session.closed() => say(&trouble, &why),
                    () = up.broken.notified() => {}
                }
                mapping.abort();
                sender.send_replace(None);
            }
            Err(error) => {
                say(&trouble, &error);
                pause = (pause * 2).min(BREAKER_PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn connect(options: &WorkerOptions) -> Result<Up, ClientError> {
    let client = Client::connect_as(&options.address, &options.credentials).await?;
    let session = client.open_session(&options.instance, &options.process).await?;
    client.register_namespace(Some(&session), &options.namespace, &options.spec, None).await?;
    let (arena, staging) = (OnceLock::new(), OnceLock::new());
    Ok(Up { client, session, arena, staging, failures: AtomicU32::new(0), broken: Notify::new() })
}

/// Maps what the daemon shares, where it shares it.
async fn map(up: Arc<Up>, staging_bytes: u64) {
    // Without it everything works, slower.
    if let Ok(Some(arena)) = up.client.attach(&up.session).await {
        up.arena.set(arena).ok();
    }
    if staging_bytes > 0
        && let Ok(Some(staging)) = up.client.stage(&up.session, staging_bytes).await
    {
        up.staging.set(staging).ok();
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
