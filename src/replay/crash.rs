//! A crash in a simulated replay: RAM is gone, and NVMe is what its rows say.

use hashbrown::HashMap;

use crate::plan::{Command, Planner, Recovered, Recovery, Write};
use crate::vocab::{BlockKey, Timestamp};

/// Requests after a crash whose hits say how warm the start was: ten minutes of the published conversation trace's hour.
pub(super) const REQUESTS_AFTER_CRASH: u64 = 600;

/// The rows that a daemon's catalog would have.
#[derive(Default)]
pub(super) struct Rows(HashMap<BlockKey, (Write, Timestamp)>);

impl Rows {
    /// What a command that was carried out does to the rows.
    pub(super) fn follow(&mut self, command: &Command, now: Timestamp) {
        match command {
            Command::Write(write) => drop(self.0.insert(write.key, (*write, now))),
            Command::Erase { key, .. } => drop(self.0.remove(key)),
            _ => {}
        }
    }

    /// A planner's start from the rows, in the order of their keys as a catalog gives them. Blocks recovered.
    pub(super) fn restart(&self, planner: Planner) -> (Planner, u64) {
        let row = |(write, now): &(Write, Timestamp)| Recovered {
            key: write.key,
            slot: write.to.0,
            class: write.to.1,
            length: write.length,
            crc: write.crc,
            owner: write.owner,
            payload_max: write.to.1.bytes(),
            parent: write.parent,
            depth: write.depth,
            created_s: now.seconds(),
            last_use_s: now.seconds(),
            expires_s: write.expires_s,
        };
        let mut rows: Vec<Recovered> = self.0.values().map(row).collect();
        rows.sort_unstable_by_key(|row| row.key);
        let mut recovery = Recovery::new(planner, rows.len() as u64);
        let recovered = rows.iter().filter(|row| recovery.row(row)).count();
        (recovery.finish(), recovered as u64)
    }
}
