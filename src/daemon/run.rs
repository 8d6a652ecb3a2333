//! A daemon's life: start, serve, drain, stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config::{Config, ConfigError};
use super::{access, ledger, record, scrape, serve, tls};
use crate::access::Gatekeeper;
use crate::cache::flush::Flushed;
use crate::cache::{Cache, Parts, StartError as CacheError};
use crate::handover;
use crate::ledger::{Ledger, LedgerOptions};
use crate::rpc::Gate;
use crate::tiers::{Catalog, Folder, FolderError, IndexError, NvmeShelf, RamShelf};
use crate::vocab::limits::DRAIN_MAX;
use crate::vocab::{SystemClock, TierShape};

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

/// What is open below the cache.
struct Opened {
    cache: Arc<Cache>,
    planner: std::thread::JoinHandle<()>,
    nvme: Option<Arc<NvmeShelf>>,
    recording: Option<std::thread::JoinHandle<()>>,
    /// Held for its lock.
    _folder: Folder,
}

/// A running daemon.
pub struct Daemon {
    opened: Opened,
    closing: CancellationToken,
    serving: Vec<tokio::task::JoinHandle<Result<(), tonic::transport::Error>>>,
    tcp: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    /// The Unix socket that it listens on, and the one that hands the arena over.
    sockets: Vec<PathBuf>,
    flush_max: Duration,
}

impl Daemon {
    /// Opens the folder, recovers what it holds, and serves; serving when it returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let Config { listen, socket, metrics, scrub, flush_max, prefault, access, tls, .. } = config.clone();
        let keeper = access::keeper(access.as_deref())?;
        let tls = tls.as_ref().map(tls::read).transpose()?;
        let usage = LedgerOptions { bytes_max: config.ledger_max, retention: config.usage_retention };
        let opened = tokio::task::spawn_blocking(move || open(&config)).await??;
        tokio::spawn(ledger::open_late(Arc::downgrade(&opened.cache), opened._folder.ledger(), usage));
        if prefault {
            make_pages(&opened.cache);
        }
        tokio::spawn(Arc::clone(&opened.cache).keep_time());
        tokio::spawn(Arc::clone(&opened.cache).keep_books());
        let closing = CancellationToken::new();
        let handover = match &socket {
            Some(path) => hand_over(path, &opened.cache, &keeper, &closing).await,
            None => None,
        };
        let gate = Gate::new(Arc::clone(&keeper), Arc::new(SystemClock));
        let routes = serve::routes(&opened.cache, &keeper, handover.as_deref(), &closing).await?;
        let mut daemon =
            Self { opened, closing, serving: Vec::new(), tcp: None, metrics: None, sockets: Vec::new(), flush_max };
        if let Some(address) = listen {
            let closing = daemon.closing.clone();
            let (bound, serving) = serve::tcp(address, routes.clone(), gate.clone(), tls, closing).await?;
            (daemon.tcp, daemon.serving) = (Some(bound), vec![serving]);
        }
        if let Some(path) = socket {
            daemon.serving.push(serve::unix(&path, routes, gate, daemon.closing.clone()).await?);
            daemon.sockets.push(path);
        }
        daemon.sockets.extend(handover);
        if let Some(address) = metrics {
            let routes = scrape::routes(&daemon.opened.cache);
            let (bound, serving) = serve::http(address, routes, daemon.closing.clone()).await?;
            daemon.metrics = Some(bound);
            daemon.serving.push(serving);
        }
        tokio::spawn(Arc::clone(daemon.cache()).keep_scrubbing(scrub, daemon.closing.clone()));
        Ok(daemon)
    }

    /// The TCP address it listens on.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// The TCP address that serves metrics.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The Unix socket it listens on.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.sockets.first().map(PathBuf::as_path)
    }

    /// The cache behind the gate: for programs that embed a daemon.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.opened.cache
    }

    /// Takes no more requests, ends those under way, writes what only RAM has and what is being written, each within a time
    /// limit, and closes the folder.
    pub async fn stop(self) {
        let Self { opened, closing, serving, sockets, flush_max, .. } = self;
        closing.cancel();
        // One limit for all servers, which drain at the same time.
        let until = tokio::time::Instant::now() + DRAIN_MAX;
        for mut serving in serving {
            if tokio::time::timeout_at(until, &mut serving).await.is_err() {
                tracing::warn!("requests were still under way after {} s: cut off", DRAIN_MAX.as_secs());
                serving.abort();
            }
        }
        if !flush_max.is_zero()
            && let Ok(Flushed { written, left }) = opened.cache.flush(flush_max).await
        {
            tracing::info!(written, left, "blocks that only RAM had were written to the drives");
        }
        let quiet = opened.cache.quiesce(DRAIN_MAX).await.unwrap_or(false);
        for path in sockets {
            std::fs::remove_file(path).ok();
        }
        let closed = tokio::task::spawn_blocking(move || close(opened)).await;
        tracing::info!(quiet, closed = closed.is_ok(), "stopped");
    }
}

/// Makes RAM's pages on a thread of its own, which ends with the daemon.
fn make_pages(cache: &Arc<Cache>) {
    let (ram, of) = (Arc::downgrade(cache.ram()), Arc::downgrade(cache));
    let make = move || {
        let Some(ram) = ram.upgrade() else { return };
        if let Err(error) = ram.populate(|| of.strong_count() > 0) {
            tracing::warn!(%error, "RAM's pages could not be made ahead: they come with their first use, or not");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("prefault".into()).spawn(make) {
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
    tokio::spawn(handover::serve(listener, parts, sessions, trusts, closing.clone()));
    Some(path)
}

/// SIGXFSZ: a file would have become longer than it may.
const XFSZ: i32 = 25;

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// See [`StartError`].
pub async fn run_until_signal(config: Config) -> Result<(), StartError> {
    let refused = |error: std::io::Error| StartError::Listen { address: "signals".into(), why: error.to_string() };
    let (mut term, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(refused)?, signal(SignalKind::interrupt()).map_err(refused)?);
    // A limit on the size of files (ulimit -f) is then an error of the write, as a full disk is, and not the end.
    let _too_large = signal(SignalKind::from_raw(XFSZ)).map_err(refused)?;
    let daemon = Daemon::start(config).await?;
    let (tcp, metrics, socket) = (daemon.tcp(), daemon.metrics(), daemon.socket().map(Path::display));
    tracing::info!(?tcp, ?metrics, socket = socket.map(tracing::field::display), "ready");
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    daemon.stop().await;
    Ok(())
}

fn open(config: &Config) -> Result<Opened, StartError> {
    let clock = Arc::new(SystemClock);
    let mut folder = Folder::open(&config.data_dir, &config.nvme, &*clock)?;
    // Before anything is there to stay.
    let ram = RamShelf::counting_from(TierShape::carve(config.ram), rand::random()).map_err(StartError::Ram)?;
    let devices = folder.open_devices(config.io, Some(&ram))?;
    let has_drives = devices.iter().any(Option::is_some);
    let options = LedgerOptions { bytes_max: config.ledger_max, retention: config.usage_retention };
    let (ledger, missing) = match Ledger::open_with(&folder.ledger(), options) {
        Ok(ledger) => (Some(Arc::new(ledger)), None),
        Err(error) => {
            tracing::error!(%error, "billing is refused while caching goes on");
            (None, Some(error))
        }
    };
    let mut catalog = Catalog::open(&folder.catalog())?.catalog;
    match folder.forget_replaced(&catalog) {
        Err(IndexError::Damaged(why)) => {
            drop(catalog);
            catalog = Catalog::rebuild(&folder.catalog(), &why)?;
        }
        forgotten => forgotten?,
    }
    let recording = config.record.as_deref().map(|path| record::start(path, config.record_max, &*clock)).transpose()?;
    let (recorder, recording) = recording.unzip();
    loop {
        let shelf = |catalog| Arc::new(NvmeShelf::striped(devices.clone(), Arc::new(catalog), folder.shape()));
        let nvme = has_drives.then(|| shelf(catalog));
        let parts = Parts {
            ram: Arc::clone(&ram),
            nvme: nvme.clone(),
            places: folder.drives().collect(),
            ledger: ledger.clone(),
            policy: config.policy,
            admission: config.admission,
            wear_bytes_per_day: config.wear_budget.map(|bytes| bytes.0),
            clock: clock.clone(),
            recorder: recorder.clone(),
        };
        match Cache::start(parts) {
            Ok((cache, planner)) => {
                missing.into_iter().for_each(|error| cache.miss_ledger(error));
                return Ok(Opened { cache, planner, nvme, recording, _folder: folder });
            }
            Err(CacheError::Index(IndexError::Damaged(why))) => {
                drop(nvme);
                catalog = Catalog::rebuild(&folder.catalog(), &why)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long the planner's thread is waited for: it ends when the last task that was cut off has let go of the cache.
const JOIN_MAX: Duration = Duration::from_secs(5);

fn close(opened: Opened) {
    let Opened { cache, planner, nvme, recording, _folder } = opened;
    cache.save_books();
    drop(cache);
    let started = std::time::Instant::now();
    let is_over = || planner.is_finished() && recording.as_ref().is_none_or(std::thread::JoinHandle::is_finished);
    while !is_over() && started.elapsed() < JOIN_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some(nvme) = nvme {
        nvme.stop();
    }
}
