//! What the planner counts. Plain numbers: it is the only writer.

use crate::vocab::{AccountId, NamespaceId, Quota};

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks whose bytes a put brought.
    pub blocks_stored: u64,
    /// Blocks that a put brought in vain, or offered and never sent.
    pub blocks_dropped: u64,
    /// Blocks written to NVMe.
    pub nvme_written: u64,
    /// Writes to NVMe not begun: no room, queue full, not worth what would go, or an ancestor missing there.
    pub nvme_write_dropped: u64,
    /// Blocks that the admission policy or a wear budget kept from NVMe at their first use.
    pub nvme_write_deferred: u64,
    /// Blocks that RAM, where it is the only tier, did not take in: what would have gone for them was worth more.
    pub ram_not_admitted: u64,
    /// Blocks that NVMe did not take in for the same reason.
    pub nvme_not_admitted: u64,
    /// Writes to NVMe that failed.
    pub nvme_write_failed: u64,
    /// Blocks copied up to RAM.
    pub promoted: u64,
    /// Blocks read past RAM because it had no room.
    pub peeked: u64,
    /// Blocks let go from RAM.
    pub ram_evicted: u64,
    /// Blocks let go from NVMe.
    pub nvme_evicted: u64,
    /// Blocks whose bytes could not be read or did not match their checksum.
    pub lost: u64,
    /// Blocks whose time to live was over.
    pub expired: u64,
    /// Blocks erased by an admin.
    pub removed: u64,
    /// Extents that went from one size class to another, in either tier.
    pub extents_moved: u64,
    /// Blocks that were lost with their drive.
    pub drive_lost: u64,
    /// Blocks written to NVMe because the daemon was about to stop.
    pub flushed: u64,
    /// Blocks not taken in, or not written, because their account was at its limit and had nothing of its own to let go.
    pub over_limit: u64,
    /// Leases granted.
    pub leases_granted: u64,
    /// Leases that ended by their time limit or with their instance.
    pub leases_lapsed: u64,
    /// Leases ended because their instance had pinned more than its share and RAM had no room.
    pub leases_revoked: u64,
}

impl Counters {
    /// Each by its name, in a fixed order.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 22] {
        [
            ("blocks_stored", self.blocks_stored),
            ("blocks_dropped", self.blocks_dropped),
            ("nvme_written", self.nvme_written),
            ("nvme_write_dropped", self.nvme_write_dropped),
            ("nvme_write_deferred", self.nvme_write_deferred),
            ("ram_not_admitted", self.ram_not_admitted),
            ("nvme_not_admitted", self.nvme_not_admitted),
            ("nvme_write_failed", self.nvme_write_failed),
            ("promoted", self.promoted),
            ("peeked", self.peeked),
            ("ram_evicted", self.ram_evicted),
            ("nvme_evicted", self.nvme_evicted),
            ("lost", self.lost),
            ("expired", self.expired),
            ("removed", self.removed),
            ("extents_moved", self.extents_moved),
            ("drive_lost", self.drive_lost),
            ("flushed", self.flushed),
            ("over_limit", self.over_limit),
            ("leases_granted", self.leases_granted),
            ("leases_lapsed", self.leases_lapsed),
            ("leases_revoked", self.leases_revoked),
        ]
    }
}

/// What one account holds now, and may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountHoldings {
    /// Whose.
    pub account: AccountId,
    /// Bytes of RAM slots that it has or was promised.
    pub ram_bytes: u64,
    /// Bytes of NVMe slots that it has or was promised.
    pub nvme_bytes: u64,
    /// Of those on NVMe, bytes that may not be evicted for a time.
    pub kept_bytes: u64,
    /// What it may hold.
    pub quota: Quota,
}

/// Blocks of one account in one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBlocks {
    /// Whose.
    pub account: AccountId,
    /// Of which layout.
    pub namespace: NamespaceId,
    /// That some tier has.
    pub blocks: u64,
    /// Of those, blocks that are kept for a guaranteed lifetime or a pin.
    pub kept: u64,
}

/// What the planner holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Bytes of RAM slots in use.
    pub ram_used_bytes: u64,
    /// Bytes of NVMe slots in use.
    pub nvme_used_bytes: u64,
    /// Blocks resident in RAM.
    pub ram_blocks: u64,
    /// Blocks resident on NVMe.
    pub nvme_blocks: u64,
    /// Blocks with bytes whose ancestors are gone.
    pub orphans: u64,
    /// Prefixes with a guaranteed lifetime or a pin.
    pub promises: u64,
    /// Blocks with a time to live.
    pub expiring: u64,
    /// Leases held.
    pub leases: u64,
    /// Puts under way.
    pub puts: u64,
    /// Blocks that a put has offered and not yet filled.
    pub reservations: u64,
    /// Loads, writes and erasures under way.
    pub background: u64,
}
