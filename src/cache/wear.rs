//! How much each drive has been written, kept in the catalog so that it outlives the daemon, and how much of what this
//! process has written was asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Cache;
use crate::tiers::{Catalog, IndexError, NvmeShelf, Wear, written_by_process};
use crate::vocab::Timestamp;
use crate::vocab::limits::WEAR_SAVE_EVERY;
use crate::watch::Part;

/// One drive's.
struct Worn {
    drive: u16,
    wear: Wear,
    /// What its shelf had counted at the last look.
    seen: u64,
    /// The total that is stored.
    saved: u64,
}

/// The drives' wear.
pub(super) struct Wears {
    drives: Mutex<Vec<Worn>>,
    catalog: Option<Arc<Catalog>>,
    /// What this process had written before.
    before: Option<u64>,
}

impl Wears {
    /// What the catalog knows of these drives. What it can't read counts from here on.
    pub(super) fn open(nvme: Option<&NvmeShelf>) -> Result<Self, IndexError> {
        let (mut drives, catalog) = (Vec::new(), nvme.map(|nvme| Arc::clone(nvme.catalog())));
        for (drive, ..) in nvme.iter().flat_map(|nvme| nvme.drives()) {
            let stored = catalog.as_ref().map(|catalog| catalog.meta(&key(drive))).transpose()?.flatten();
            let wear = stored.as_deref().and_then(Wear::decode).unwrap_or_default();
            drives.push(Worn { drive, saved: wear.total(), seen: 0, wear });
        }
        Ok(Self { drives: Mutex::new(drives), catalog, before: written_by_process() })
    }

    /// Takes in what was written since the last look. The bytes in all, and of the last 24 hours, of each drive.
    pub(super) fn look(&self, nvme: &NvmeShelf, now: Timestamp) -> Vec<(u16, u64, u64)> {
        let mut drives = self.lock();
        for (drive, _, stats, _) in nvme.drives() {
            if let Some(worn) = drives.iter_mut().find(|worn| worn.drive == drive) {
                let more = stats.device_written_bytes.saturating_sub(worn.seen);
                worn.seen += more;
                if more > 0 {
                    worn.wear.add(now.hour(), more);
                }
            }
        }
        drives.iter().map(|worn| (worn.drive, worn.wear.total(), worn.wear.day(now.hour()))).collect()
    }

    /// Stores what has changed.
    fn save(&self) -> Result<(), IndexError> {
        let Some(catalog) = &self.catalog else { return Ok(()) };
        let changed = |worn: &&Worn| worn.saved != worn.wear.total();
        let changed: Vec<_> = self.lock().iter().filter(changed).map(|worn| (worn.drive, worn.wear.clone())).collect();
        // Without the lock: the database may take its time.
        for (drive, wear) in changed {
            catalog.put_meta(&key(drive), &wear.encode())?;
            if let Some(worn) = self.lock().iter_mut().find(|worn| worn.drive == drive) {
                worn.saved = wear.total();
            }
        }
        Ok(())
    }

    /// Bytes that this process has sent to devices since it opened the drives, the databases' included.
    pub(super) fn written_by_process(&self) -> Option<u64> {
        Some(written_by_process()?.saturating_sub(self.before?))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Worn>> {
        self.drives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(drive: u16) -> String {
    format!("wear/{drive}")
}

impl Cache {
    /// Stores the drives' wear and how far the scrub has come, so that the next start goes on from there.
    pub fn save_books(&self) {
        let Some(nvme) = &self.nvme else { return };
        self.wears.look(nvme, self.clock.now());
        if let Err(error) = self.wears.save().and_then(|()| self.save_scrub()) {
            tracing::warn!(%error, "the drives' wear could not be stored: the next start goes on from the last time that it was");
        }
    }

    /// Does so now and then, and has old records of the ledger deleted, until the cache is gone. To be run as the task of
    /// `part`, which is told of a panic on the thread that waits for the database.
    pub async fn keep_books(self: Arc<Self>, part: Part) {
        let cache = Arc::downgrade(&self);
        drop(self);
        loop {
            tokio::time::sleep(WEAR_SAVE_EVERY).await;
            let Some(cache) = cache.upgrade() else { return };
            let held = cache.stored_tokens().await;
            // It may wait for the database.
            let keep = move || {
                cache.save_books();
                cache.sweep_usage();
                cache.meter_storage(held);
            };
            let part = part.clone();
            tokio::task::spawn_blocking(move || part.attempt(keep)).await.ok();
        }
    }
}
