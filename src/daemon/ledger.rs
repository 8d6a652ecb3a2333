//! Opens a ledger later that could not be opened at the start: a disk that was full then, or a folder that nobody could read.

use std::path::PathBuf;
use std::sync::Weak;

use crate::cache::Cache;
use crate::ledger::{Ledger, LedgerOptions};
use crate::vocab::limits::{LEDGER_HEAL_PAUSE, LEDGER_HEAL_PAUSE_MAX};
use crate::watch::Watch;

/// Tries it until it is open, a person has to look, or the cache is gone. To be run as a task.
pub(super) async fn open_late(cache: Weak<Cache>, path: PathBuf, options: LedgerOptions, watch: Watch) {
    let mut pause = LEDGER_HEAL_PAUSE;
    loop {
        if !cache.upgrade().is_some_and(|cache| cache.waits_for_ledger()) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LEDGER_HEAL_PAUSE_MAX);
        let (path, options, watch) = (path.clone(), options.clone(), watch.clone());
        let opened = tokio::task::spawn_blocking(move || Ledger::open_watched(&path, options, &watch)).await;
        let (Some(cache), Ok(opened)) = (cache.upgrade(), opened) else { return };
        if let Err(error) = &opened
            && !error.may_pass()
        {
            tracing::error!(%error, "billing is refused until a person has looked, and the daemon is restarted");
        }
        cache.adopt_ledger(opened).await;
    }
}
