//! What is stored, for the meter: tokens by account, layout and class, sampled once a minute.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::Cache;
use super::error::Error;
use crate::ledger::{LedgerError, StorageKey, StorageRow};
use crate::plan::{Planner, StoredBlocks};
use crate::vocab::NamespaceId;
use crate::vocab::limits::INSPECTED_AT_ONCE;

impl Cache {
    /// Tokens that are held now; nothing where the daemon is stopping.
    pub(super) async fn stored_tokens(&self) -> BTreeMap<StorageKey, u64> {
        let mut stored: Vec<StoredBlocks> = Vec::new();
        loop {
            let after = stored.last().map(|last| (last.account, last.namespace));
            let look = move |planner: &Planner| planner.stored_after(after, INSPECTED_AT_ONCE);
            let Ok(some) = self.driver.look(look).await else { return BTreeMap::new() };
            let is_last = some.len() < INSPECTED_AT_ONCE;
            stored.extend(some);
            if is_last {
                break;
            }
        }
        let known = self.names.namespaces();
        let known: HashMap<NamespaceId, _> = known.iter().map(|namespace| (namespace.id, namespace)).collect();
        let mut tokens = BTreeMap::new();
        for StoredBlocks { account, namespace, blocks, kept } in stored {
            let (Some(account), Some(namespace)) = (self.names.account_name(account), known.get(&namespace)) else {
                continue;
            };
            for (guaranteed, blocks) in [(false, blocks.saturating_sub(kept)), (true, kept)] {
                let key = StorageKey { account: account.clone(), namespace: namespace.name.clone(), guaranteed };
                // Two layouts may have one name.
                *tokens.entry(key).or_insert(0) += blocks * u64::from(namespace.spec.block_tokens);
            }
        }
        tokens.retain(|_, tokens| *tokens > 0);
        tokens
    }

    /// Counts what is held. What can't be counted is missed; a ledger in trouble has said so.
    pub(super) fn meter_storage(&self, held: BTreeMap<StorageKey, u64>) {
        if let Some(ledger) = self.ledger.get()
            && let Err(error) = ledger.meter_storage(self.clock.now(), held)
            && !matches!(error, LedgerError::Failing(_))
        {
            tracing::warn!(%error, "a minute of storage is not metered");
        }
    }

    /// Storage held in these hours since 1970.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn storage(&self, hours: Range<u32>) -> Result<(String, Vec<StorageRow>), Error> {
        let ledger = self.ledger.get().ok_or_else(|| Error::Broken("the ledger is unreadable".into()))?;
        let rows = ledger.storage(hours).map_err(|error| Error::Broken(error.to_string()))?;
        Ok((ledger.id(), rows))
    }
}
