//! Opens what is below the cache, and closes it again.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::config::Config;
use super::record;
use super::run::StartError;
use crate::cache::{Cache, Parts, StartError as CacheError};
use crate::ledger::{Ledger, LedgerError, LedgerOptions};
use crate::tiers::{Catalog, Folder, IndexError, NvmeShelf, RamShelf};
use crate::vocab::{SystemClock, TierShape};
use crate::watch::{Health, Watch};

/// What is open.
pub(super) struct Opened {
    pub(super) cache: Arc<Cache>,
    planner: JoinHandle<()>,
    nvme: Option<Arc<NvmeShelf>>,
    recording: Option<JoinHandle<()>>,
    /// When the catalog was begun anew because it could not be read.
    pub(super) rebuilt: Option<Instant>,
    /// Held for its lock, too.
    pub(super) folder: Folder,
}

/// Opens the folder and recovers what it holds; says meanwhile how far it has come.
pub(super) fn open(config: &Config, watch: &Watch, health: &Health) -> Result<Opened, StartError> {
    let clock = Arc::new(SystemClock);
    let mut folder = Folder::open(&config.data_dir, &config.nvme, &*clock)?.watched(watch);
    // Before anything is there to stay.
    let ram = RamShelf::counting_from(TierShape::carve(config.ram), rand::random()).map_err(StartError::Ram)?;
    health.starting("opening the drives".into());
    let devices = folder.open_devices(config.io, Some(&ram))?;
    let has_drives = devices.iter().any(Option::is_some);
    health.starting("opening the ledger".into());
    let (ledger, missing) = ledger(config, &folder, watch);
    health.starting("opening the catalog".into());
    let opened = Catalog::open(&folder.catalog())?;
    let (mut catalog, mut rebuilt) = (opened.catalog, opened.rebuilt.then(Instant::now));
    match folder.forget_replaced(&catalog) {
        Err(IndexError::Damaged(why)) => {
            drop(catalog);
            (catalog, rebuilt) = (Catalog::rebuild(&folder.catalog(), &why)?, Some(Instant::now()));
        }
        forgotten => forgotten?,
    }
    let record = |path| record::start(path, config.record_max, &*clock, watch);
    let (recorder, recording) = config.record.as_deref().map(record).transpose()?.unzip();
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
        match Cache::start_watched(parts, watch, health) {
            Ok((cache, planner)) => {
                missing.into_iter().for_each(|error| cache.miss_ledger(error));
                return Ok(Opened { cache, planner, nvme, recording, rebuilt, folder });
            }
            Err(CacheError::Index(IndexError::Damaged(why))) => {
                drop(nvme);
                (catalog, rebuilt) = (Catalog::rebuild(&folder.catalog(), &why)?, Some(Instant::now()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the ledger may take, and for how long it keeps records.
pub(super) fn ledger_options(config: &Config) -> LedgerOptions {
    LedgerOptions { bytes_max: config.ledger_max, retention: config.usage_retention }
}

/// The ledger, or why it can't be opened now.
fn ledger(config: &Config, folder: &Folder, watch: &Watch) -> (Option<Arc<Ledger>>, Option<LedgerError>) {
    match Ledger::open_watched(&folder.ledger(), ledger_options(config), watch) {
        Ok(ledger) => (Some(Arc::new(ledger)), None),
        Err(error) => {
            tracing::error!(%error, "billing is refused while caching goes on");
            (None, Some(error))
        }
    }
}

/// How long the planner's thread is waited for: it ends when the last task that was cut off has let go of the cache.
const JOIN_MAX: Duration = Duration::from_secs(5);

/// Closes it all.
pub(super) fn close(opened: Opened) {
    let Opened { cache, planner, nvme, recording, rebuilt: _, folder: _folder } = opened;
    cache.save_books();
    drop(cache);
    let started = Instant::now();
    let is_over = || planner.is_finished() && recording.as_ref().is_none_or(JoinHandle::is_finished);
    while !is_over() && started.elapsed() < JOIN_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some(nvme) = nvme {
        nvme.stop();
    }
}
