//! Looking inside and taking out, by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::TurnTimes;
use super::chain::Chain;
use super::drives::DriveStatus;
use super::error::Error;
use super::names::Namespace;
use super::record::Recorder;
use super::scrub::ScrubStatus;
use super::{Cache, ProcessCost};
use crate::ledger::LedgerFill;
use crate::plan::{AdmissionKind, Counters, Event, Filter, Holdings, Inspection, Planner, PolicyKind};
use crate::vocab::limits::{INSPECT_ROWS_MAX, INSPECTED_AT_ONCE};
use crate::vocab::{BlockKey, ByteCount};

/// The state of the cache now.
#[derive(Clone, Debug)]
pub struct Status {
    /// Since the start.
    pub uptime: Duration,
    /// Bytes of the RAM tier.
    pub ram: ByteCount,
    /// Bytes of the NVMe tier.
    pub nvme: ByteCount,
    /// How bytes reach the drive.
    pub nvme_kind: &'static str,
    /// What the planner holds.
    pub holdings: Holdings,
    /// Sessions open.
    pub sessions: usize,
    /// Slots that bytes are being sent from.
    pub pins: usize,
    /// Tokens that lookups found and missed.
    pub tokens: (u64, u64),
    /// Each drive.
    pub drives: Vec<DriveStatus>,
    /// Bytes that this process has sent to devices since the start over payload bytes that it has written to the drives;
    /// `None` before the first.
    pub write_amplification: Option<f64>,
    /// What this process takes of its host; `None` where the kernel does not say.
    pub process: Option<ProcessCost>,
    /// What is evicted first, and what is written to NVMe.
    pub rules: (PolicyKind, AdmissionKind),
    /// How long the planner's turns have taken.
    pub turns: TurnTimes,
    /// What is read to find blocks that went bad.
    pub scrub: ScrubStatus,
    /// How full the ledger is; `None` where it can't be read.
    pub ledger: Option<LedgerFill>,
    /// Everything else that is counted.
    pub counters: BTreeMap<&'static str, u64>,
}

impl Cache {
    /// The state now.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn status(&self) -> Result<Status, Error> {
        let look = |planner: &Planner| -> (Holdings, Counters, Vec<u64>) {
            (planner.holdings(), planner.counters(), planner.nvme_used_bytes_of_drives())
        };
        let (holdings, counted, used) = self.driver.look(look).await?;
        let mut counters: BTreeMap<_, _> = counted.named().into_iter().chain(self.meter.named()).collect();
        counters.extend(self.recorder.iter().flat_map(Recorder::named));
        if let Some(nvme) = &self.nvme {
            let stats = nvme.stats();
            counters.extend([
                ("device_reads", stats.reads),
                ("device_read_bytes", stats.read_bytes),
                ("device_writes", stats.writes),
                ("device_written_bytes", stats.written_bytes),
                ("device_read_errors", stats.read_errors),
                ("device_write_errors", stats.write_errors),
                ("device_corrupt", stats.corrupt),
                ("device_dropped", stats.dropped),
            ]);
        }
        Ok(Status {
            uptime: self.clock.now().since(self.started),
            ram: self.ram.shape().total(),
            nvme: self.nvme.as_ref().map_or(ByteCount::ZERO, |nvme| nvme.shape().total()),
            nvme_kind: self
                .nvme
                .as_ref()
                .and_then(|nvme| nvme.drives().find_map(|(_, device, ..)| device.map(|device| device.kind())))
                .unwrap_or("none"),
            holdings,
            sessions: self.sessions.len(),
            pins: self.ram.pins(),
            drives: self.drives(&used),
            write_amplification: self.write_amplification(),
            process: ProcessCost::now(),
            rules: self.rules,
            turns: self.driver.turns(),
            scrub: self.scrub.status(),
            tokens: self.meter.tokens(),
            ledger: self.ledger_fill(),
            counters,
        })
    }

    fn write_amplification(&self) -> Option<f64> {
        let asked = self.nvme.as_ref()?.stats().written_bytes;
        let sent = self.wears.written_by_process()?;
        (asked > 0).then(|| sent as f64 / asked as f64)
    }

    /// Namespaces with the blocks and payload bytes of each.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn namespaces(&self) -> Result<Vec<(Arc<Namespace>, u64, u64)>, Error> {
        let held = self.driver.look(Planner::namespaces).await?;
        let with_held = |namespace: Arc<Namespace>| {
            let (blocks, bytes) = held.get(&namespace.id.0).copied().unwrap_or_default();
            (namespace, blocks, bytes)
        };
        Ok(self.names.namespaces().into_iter().map(with_held).collect())
    }

    /// What is known of a block.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn inspect(&self, key: BlockKey) -> Result<Option<Inspection>, Error> {
        self.driver.look(move |planner| planner.inspect(&key)).await
    }

    /// What is known of each block of a chain.
    ///
    /// # Errors
    /// When the chain is longer than one answer may be, or the daemon is stopping.
    pub async fn inspect_chain(&self, chain: &Chain) -> Result<Vec<(BlockKey, Option<Inspection>)>, Error> {
        let keys = chain.keys(chain.len());
        if keys.len() > INSPECT_ROWS_MAX {
            let rule =
                format!("chain names {} blocks, an answer has {INSPECT_ROWS_MAX}: send it in pieces", keys.len());
            return Err(Error::Invalid(rule));
        }
        let mut rows = Vec::with_capacity(keys.len());
        for from in (0..keys.len()).step_by(INSPECTED_AT_ONCE) {
            let keys = Arc::clone(&keys);
            let look = move |planner: &Planner| -> Vec<_> {
                let some = keys[from..].iter().take(INSPECTED_AT_ONCE);
                some.map(|key| (*key, planner.inspect(key))).collect()
            };
            rows.extend(self.driver.look(look).await?);
        }
        Ok(rows)
    }

    /// Erases what matches: blocks and payload bytes. When it returns, none of it can be read, also not after a restart. What is
    /// put meanwhile may be erased, too.
    ///
    /// # Errors
    /// When rows can't be deleted now, or the daemon is stopping.
    pub async fn purge(&self, filter: Filter) -> Result<(u64, u64), Error> {
        let removed = self.driver.remove(Event::Purge(filter)).await?;
        Ok((removed.blocks, removed.bytes))
    }

    /// Waits until background work is done; false when time ran out.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn quiesce(&self, timeout: Duration) -> Result<bool, Error> {
        self.driver.quiesce(timeout).await
    }
}
