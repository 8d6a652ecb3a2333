//! A warm start: what the catalog holds is readable before the first request comes in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::driver::{Driver, Hands};
use super::keep::Keeping;
use super::residency::Residency;
use super::{Cache, Error, Names};
use crate::ledger::Ledger;
use crate::plan::{AdmissionKind, Event, Options, Planner, PolicyKind, Recovered, Recovery};
use crate::tiers::{Catalog, DrivePlace, NvmeShelf, Place, RamShelf, Row};
use crate::vocab::limits::{SCAN_THREADS, STALE_BATCH_ROWS};
use crate::vocab::{AccountId, AccountName, BlockKey, ByteCount, Clock, Quota, TierQuota, TierShape, Timestamp};
use crate::watch::{Health, Watch};

/// How often leases are looked at for their end.
const TICK: Duration = Duration::from_millis(250);

/// What a cache is made of; whoever opens a data folder makes them.
pub struct Parts {
    /// The RAM tier.
    pub ram: Arc<RamShelf>,
    /// The NVMe tier.
    pub nvme: Option<Arc<NvmeShelf>>,
    /// Where its drives are, missing ones too: for people.
    pub places: Vec<DrivePlace>,
    /// The ledger; `None` where it can't be opened, see [`Cache::miss_ledger`].
    pub ledger: Option<Arc<Ledger>>,
    /// What goes first.
    pub policy: PolicyKind,
    /// What is written to the drives.
    pub admission: AdmissionKind,
    /// Bytes a day that each drive may be written.
    pub wear_bytes_per_day: Option<u64>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who hears of requests.
    pub recorder: Option<super::record::Recorder>,
}

/// Why a cache can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The names can't be read or written.
    #[error(transparent)]
    Cache(#[from] Error),
    /// The catalog can't be read.
    #[error("catalog: {0}")]
    Index(#[from] crate::tiers::IndexError),
    /// No thread can be started.
    #[error("the planner's thread can't be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl Cache {
    /// As [`start_watched`](Self::start_watched), where nobody is told how far it has come, or that the planner has ended.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub fn start(parts: Parts) -> Result<(Arc<Self>, JoinHandle<()>), StartError> {
        Self::start_watched(parts, &Watch::default(), &Health::default())
    }

    /// Recovers what the catalog holds and starts the planner. The planner's thread ends when the last user of the cache
    /// is gone; joining it makes sure that nothing is written any more.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub fn start_watched(
        parts: Parts,
        watch: &Watch,
        health: &Health,
    ) -> Result<(Arc<Self>, JoinHandle<()>), StartError> {
        let Parts { ram, nvme, places, ledger, policy, admission, wear_bytes_per_day, clock, recorder } = parts;
        let catalog = nvme.as_ref().map(|nvme| Arc::clone(nvme.catalog()));
        let names = Names::open(catalog.clone())?;
        let shape = nvme.as_ref().map_or(TierShape::NONE, |nvme| nvme.shape());
        let boot = rand::random::<u32>();
        let options = Options { policy, admission, wear_bytes_per_day, boot, ..Options::new(ram.shape(), shape) };
        let mut planner = Planner::new(options);
        let residency = Arc::new(Residency::new(planner.keys()));
        let quotas = ledger.as_deref().map_or_else(Vec::new, |ledger| quotas(ledger, &names));
        if let Some(catalog) = &catalog {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SCAN_THREADS);
            let tell = |done, of| health.starting(format!("recovering {done} of about {of} blocks"));
            tell(0, catalog.estimated_blocks()?);
            watch.step("recovery");
            planner = recover(planner, catalog, &names, &quotas, (threads, &tell))?;
            take_promises(&mut planner, catalog, clock.now())?;
            // Before anybody can ask: what was recovered is readable from the first lookup on.
            residency.fill(&planner, threads);
        } else {
            let mut recovery = Recovery::new(planner, 0);
            enforce(&mut recovery, &quotas);
            planner = recovery.finish();
        }
        let (flights, complaints) = (Arc::default(), Arc::<super::complaints::Complaints>::default());
        let hands = Hands {
            ram: Arc::clone(&ram),
            nvme: nvme.clone(),
            residency: Arc::clone(&residency),
            flights: Arc::clone(&flights),
            clock: Arc::clone(&clock),
            complaints: Arc::clone(&complaints),
        };
        let (driver, thread) = Driver::start(planner, hands, watch)?;
        let started = clock.now();
        let ram_bytes = ram.shape().total();
        let cache = Self {
            driver,
            complaints,
            residency,
            flights,
            ram,
            wears: super::wear::Wears::open(nvme.as_deref())?,
            nvme,
            places,
            wear_budget: wear_bytes_per_day.map(ByteCount),
            rules: (policy, admission),
            scrub: super::scrub::Scrub::default(),
            names,
            sessions: Arc::default(),
            deliveries: super::delivery::Deliveries::default(),
            ledger: super::late::Place::of(ledger),
            meter: super::meter::Meter::default(),
            clock,
            started,
            puts: AtomicU64::new(0),
            writing: super::regions::Writing::default(),
            reservations: super::reserve::Reservations::default(),
            tickets: super::ticket::Tickets::new(ram_bytes),
            keeping: Keeping::default(),
            recorder,
            quotas: tokio::sync::Mutex::default(),
        };
        Ok((Arc::new(cache), thread))
    }

    /// Ends leases in time, until the cache is gone. To be run as a task.
    pub async fn keep_time(self: Arc<Self>) {
        let cache = Arc::downgrade(&self);
        drop(self);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(cache) = cache.upgrade() else { return };
            if cache.driver.tell(Event::Tick).await.is_err() {
                return;
            }
        }
    }
}

/// What accounts may keep. Where it can't be read, caching goes on without.
pub(super) fn quotas(ledger: &Ledger, names: &Names) -> Vec<(AccountId, Quota)> {
    let known = ledger.quotas().unwrap_or_else(|error| {
        tracing::error!(%error, "quotas can't be read: there are none until they are set again");
        Vec::new()
    });
    let numbered = |(name, quota): (AccountName, Quota)| match names.account(&name) {
        Ok(account) => Some((account, quota)),
        Err(error) => {
            tracing::error!(account = %name, %error, "its quota can't be kept");
            None
        }
    };
    known.into_iter().filter_map(numbered).collect()
}

fn enforce(recovery: &mut Recovery, quotas: &[(AccountId, Quota)]) {
    for (account, quota) in quotas {
        if let Err(error) = recovery.quota(*account, *quota) {
            // A tier became smaller. The limit holds; what can't be guaranteed is not.
            tracing::error!(account = account.0, %error, "its guaranteed share can't be kept: set its quota again");
            let without = |tier: TierQuota| TierQuota { share: ByteCount::ZERO, ..tier };
            let rest = Quota { ram: without(quota.ram), nvme: without(quota.nvme) };
            recovery.quota(*account, rest).ok();
        }
    }
}

/// Goes on keeping what was promised before.
fn take_promises(planner: &mut Planner, catalog: &Catalog, now: Timestamp) -> Result<(), StartError> {
    let (mut kept, mut over) = (0_u64, Vec::new());
    for (key, promise) in catalog.promises()? {
        if planner.recover_promise(&key, promise, now.seconds()) {
            kept += 1;
        } else {
            over.push(key);
        }
    }
    over.iter().try_for_each(|key| catalog.delete_promise(key))?;
    if kept > 0 || !over.is_empty() {
        tracing::info!(kept, over = over.len(), "promises of a lifetime, and pins");
    }
    Ok(())
}

/// Takes in what the catalog holds, on so many threads, and tells how many blocks of about how many it has. Rows that can't be
/// true are deleted on the way.
fn recover(
    planner: Planner,
    catalog: &Catalog,
    names: &Names,
    quotas: &[(AccountId, Quota)],
    (threads, tell): (usize, &dyn Fn(u64, u64)),
) -> Result<Planner, StartError> {
    let started = Instant::now();
    let payloads: HashMap<u16, u32> =
        names.namespaces().iter().map(|namespace| (namespace.id.0, namespace.spec.max_payload_bytes)).collect();
    // A namespace that is not known any more, or shards that this version can't read: nobody can ask for it.
    let pick = |key, row| recovered(key, &row, &payloads).ok_or(key);
    let (of, mut done) = (catalog.estimated_blocks()?, 0);
    let mut recovery = Recovery::new(planner, of);
    enforce(&mut recovery, quotas);
    let (mut stale, mut all_stale, mut deleted) = (Vec::new(), 0_u64, Ok(()));
    let take = |rows: Vec<Result<Recovered, BlockKey>>| {
        done += rows.len() as u64;
        tell(done, of.max(done));
        let before = stale.len();
        let rows = rows.into_iter().filter_map(|row| row.map_err(|key| stale.push(key)).ok()).collect::<Vec<_>>();
        recovery.rows(&rows, |key| stale.push(key));
        all_stale += (stale.len() - before) as u64;
        if stale.len() >= STALE_BATCH_ROWS {
            let batch = std::mem::take(&mut stale);
            deleted = std::mem::replace(&mut deleted, Ok(())).and_then(|()| catalog.delete_batch(batch));
        }
    };
    catalog.scan_on(threads, pick, take)?;
    deleted?;
    catalog.delete_batch(stale)?;
    if all_stale > 0 {
        tracing::warn!(rows = all_stale, "stale rows of the catalog were deleted: their blocks are misses");
    }
    let planner = recovery.finish();
    let (held, seconds) = (planner.holdings(), started.elapsed().as_secs_f64());
    tracing::info!(blocks = held.nvme_blocks, orphans = held.orphans, seconds, "recovered");
    Ok(planner)
}

fn recovered(key: BlockKey, row: &Row, payloads: &HashMap<u16, u32>) -> Option<Recovered> {
    let place = Place::of(row)?;
    Some(Recovered {
        key,
        slot: place.slot,
        class: place.class,
        length: place.length,
        crc: place.crc,
        owner: row.owner,
        payload_max: *payloads.get(&row.owner.namespace.0)?,
        parent: row.parent,
        depth: row.depth,
        created_s: row.created_s,
        last_use_s: row.last_use_s,
        expires_s: row.expires_s,
    })
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
