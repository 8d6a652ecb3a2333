//! A daemon's life: start, serve, drain, stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::config::{Config, ConfigError};
use super::door::{Front, Guards};
use super::health::Keeper;
use super::open::{Opened, close, ledger_options, open};
use super::{access, ledger, serve, tls};
use crate::access::Gatekeeper;
use crate::cache::flush::Flushed;
use crate::cache::{Cache, StartError as CacheError};
use crate::handover;
use crate::ledger::LedgerOptions;
use crate::tiers::{FolderError, IndexError};
use crate::vocab::ByteCount;
use crate::vocab::limits::{DRAIN_MAX, FAILURE_TOLD};
use crate::watch::{Failure, Health, Watch};

/// Why a daemon can't start. Nothing was changed unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder can't be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The catalog can't be opened, and can't be made anew.
    #[error("catalog: {0}")]
    Catalog(#[from] IndexError),
    /// The cache can't be started.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The RAM tier can't be had.
    #[error("ram: {0}")]
    Ram(std::io::Error),
    /// Nobody can be served there.
    #[error("listen on {address}: {why}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        why: String,
    },
    /// A file of TLS can't be used.
    #[error("{0}")]
    Tls(String),
    /// The access file can't be used.
    #[error("access {path}: {why}")]
    Access {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Lookups can't be recorded there.
    #[error("record {path}: {why}")]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// The contract's descriptors can't be read: a broken build.
    #[error("reflection: {0}")]
    Reflection(String),
    /// A task of this program failed.
    #[error("start: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A running daemon.
pub struct Daemon {
    opened: Opened,
    front: Front,
    watch: Watch,
    health: Health,
    flush_max: Duration,
}

impl Daemon {
    /// Takes its addresses, opens the folder, recovers what it holds, and serves; serving when it returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Watch::default(), Health::default()).await
    }

    /// The same, with a watch and a board that others look at, too.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(config: Config, watch: Watch, health: Health) -> Result<Self, StartError> {
        config.check()?;
        let keeper = access::keeper(config.access.as_deref(), &watch)?;
        let tls = config.tls.as_ref().map(tls::read).transpose()?;
        // Before the folder is touched: a wrong address is refused at once, and whoever asks is told that it starts.
        let guards = Guards { keeper: Arc::clone(&keeper), tls, watch: watch.clone(), health: health.clone() };
        let mut front = Front::bind(&config, guards).await?;
        let (to_open, of_open) = (config.clone(), (watch.clone(), health.clone()));
        let opening = tokio::task::spawn_blocking(move || open(&to_open, &of_open.0, &of_open.1));
        let opened = match opening.await.map_err(StartError::from).flatten() {
            Ok(opened) => opened,
            Err(error) => {
                health.stop(&error.to_string());
                front.close(tokio::time::Instant::now() + FAILURE_TOLD).await;
                return Err(error);
            }
        };
        if config.prefault {
            make_pages(&opened.cache, &watch);
        }
        let handover = match &config.socket {
            Some(path) => hand_over(path, &opened.cache, &keeper, &front.closing, &watch).await,
            None => None,
        };
        let routes = serve::routes(&opened.cache, &keeper, handover.as_deref(), &front.closing, &health)?;
        front.sockets.extend(handover);
        let daemon = Self { opened, front, watch, health, flush_max: config.flush_max };
        daemon.keep_up(config.scrub, ledger_options(&config));
        daemon.front.open(routes, daemon.cache());
        daemon.health.serve();
        Ok(daemon)
    }

    /// Starts the tasks that go on until the daemon stops.
    fn keep_up(&self, scrub: ByteCount, usage: LedgerOptions) {
        let (cache, closing) = (self.cache(), self.front.closing.clone());
        tokio::spawn(self.watch.vital("time").task(Arc::clone(cache).keep_time()));
        let books = self.watch.vital("books");
        tokio::spawn(books.clone().task(Arc::clone(cache).keep_books(books)));
        let late = ledger::open_late(Arc::downgrade(cache), self.opened.folder.ledger(), usage, self.watch.clone());
        tokio::spawn(self.watch.vital("late ledger").task(late));
        let scrubbing = Arc::clone(cache).keep_scrubbing(scrub, closing.clone());
        // What it would find is found by whoever reads the block.
        tokio::spawn(self.watch.optional("scrub").task(scrubbing));
        let (health, watch) = (self.health.clone(), self.watch.clone());
        let keeper = Keeper { cache: Arc::downgrade(cache), health, watch, rebuilt: self.opened.rebuilt };
        keeper.look(cache);
        tokio::spawn(self.watch.vital("health").task(keeper.keep(closing)));
    }

    /// The TCP address it listens on.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.front.tcp
    }

    /// The TCP address that serves metrics.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.front.metrics
    }

    /// The Unix socket it listens on.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.front.sockets.first().map(PathBuf::as_path)
    }

    /// The cache behind the gate: for programs that embed a daemon.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.opened.cache
    }

    /// Waits until a part of it has ended on its own. From then on it says that it does not serve; a program that embeds it
    /// stops it, or ends.
    pub async fn failed(&self) -> Failure {
        self.watch.failed().await
    }

    /// Takes no more requests, ends those under way, writes what only RAM has and what is being written, each within a time
    /// limit, and closes the folder. One of which a part has [failed](Self::failed) writes nothing more.
    pub async fn stop(self) {
        let Self { opened, mut front, watch, health, flush_max } = self;
        health.stop("it was told to stop");
        // One limit for all servers, which drain at the same time.
        if !front.close(tokio::time::Instant::now() + DRAIN_MAX).await {
            tracing::warn!("requests were still under way after {} s: cut off", DRAIN_MAX.as_secs());
        }
        let is_whole = watch.failure().is_none();
        if is_whole
            && !flush_max.is_zero()
            && let Ok(Flushed { written, left }) = opened.cache.flush(flush_max).await
        {
            tracing::info!(written, left, "blocks that only RAM had were written to the drives");
        }
        let quiet = is_whole && opened.cache.quiesce(DRAIN_MAX).await.unwrap_or(false);
        // The services have the cache, and the planner ends when nobody has it any more.
        drop(front);
        let closed = tokio::task::spawn_blocking(move || close(opened)).await;
        tracing::info!(quiet, closed = closed.is_ok(), "stopped");
    }
}

/// Makes RAM's pages on a thread of its own, which ends with the daemon.
fn make_pages(cache: &Arc<Cache>, watch: &Watch) {
    let (ram, of) = (Arc::downgrade(cache.ram()), Arc::downgrade(cache));
    let make = move || {
        let Some(ram) = ram.upgrade() else { return };
        if let Err(error) = ram.populate(|| of.strong_count() > 0) {
            tracing::warn!(%error, "RAM's pages could not be made ahead: they come with their first use, or not");
        }
    };
    let part = watch.optional("prefault");
    if let Err(error) = std::thread::Builder::new().name(part.name()).spawn(move || part.run(make)) {
        tracing::warn!(%error, "no thread to make RAM's pages");
    }
}

/// Hands the arena over beside the socket that serves; at which path. Where that can't be, workers get their bytes through
/// gRPC, as those of other hosts do.
async fn hand_over(
    socket: &Path,
    cache: &Arc<Cache>,
    keeper: &Arc<Gatekeeper>,
    closing: &CancellationToken,
    watch: &Watch,
) -> Option<PathBuf> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".arena");
    // Workers may have another working directory.
    let path = std::path::absolute(name).ok()?;
    if !cache.ram().is_shareable() {
        tracing::warn!("RAM is not shared with workers of this host: its kernel can't seal memory (Linux 5.1 can)");
        return None;
    }
    let parts = handover::Parts::of(cache.ram().parts()).map_err(StartError::Ram);
    let bound = match parts {
        Ok(parts) => serve::bind(&path).await.map(|listener| (listener, parts)),
        Err(error) => Err(error),
    };
    let (listener, parts) =
        bound.inspect_err(|error| tracing::warn!(%error, "RAM is not shared with workers of this host")).ok()?;
    let sessions = Arc::downgrade(cache.sessions());
    let keeper = Arc::clone(keeper);
    let trusts = handover::Trust::new(move |uid| keeper.may_map(uid));
    let closing = closing.clone();
    let served = async move {
        handover::serve(listener, parts, sessions, trusts, closing.clone()).await;
        if closing.is_cancelled() { Ok(()) } else { Err("it hands no more memory over") }
    };
    tokio::spawn(watch.vital("arena socket").task(served));
    Some(path)
}
