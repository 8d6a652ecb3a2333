//! What the planner's knowledge costs in memory, by what it is.

use super::planner::Planner;

impl Planner {
    /// Bytes of memory that each part of what is known of blocks takes, by its name: what was asked of the allocator. Puts,
    /// leases and queues, which are as long as what is under way, are not in it.
    #[must_use]
    pub fn footprint(&self) -> [(&'static str, usize); 7] {
        let [keys, entries, by_key] = self.catalog.bytes();
        [
            ("keys", keys),
            ("entries", entries),
            ("numbers by key", by_key),
            ("owners", self.catalog.owners.bytes() + self.accounts.bytes()),
            ("orders of going", self.ram.order_bytes() + self.nvme.order_bytes()),
            ("blocks by slot", self.ram.space.bytes() + self.nvme.space.bytes()),
            ("active blocks", self.catalog.actives.bytes()),
        ]
    }
}
