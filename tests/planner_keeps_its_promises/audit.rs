//! What must hold after every event, seen from outside the planner.

use std::collections::BTreeMap;

use kvtier::plan::Command;
use kvtier::vocab::{BlockKey, SlotId};

use super::world::World;

/// Bytes of a block's payload and their checksum, in this world.
pub(crate) fn payload(key: &BlockKey) -> (u32, u64) {
    (1_000 + u32::from(key.as_bytes()[9]), key.hash64())
}

impl World {
    pub(crate) fn audit(&self) {
        if let Err(broken) = self.planner.check() {
            panic!("{broken}");
        }
        let (in_ram, on_nvme) = (self.ram.residents(), self.nvme.residents());
        for node in &self.prompts.nodes {
            self.audit_block(&node.key, &in_ram, &on_nvme);
        }
        self.audit_leases();
        self.audit_promises();
        self.audit_holdings(in_ram.len(), on_nvme.len());
        for (key, slot) in &on_nvme {
            let row = self.rows.get(key).map(|row| row.slot);
            assert_eq!(row, Some(*slot), "{key:?} is on NVMe, and its row must say so");
        }
        for (key, row) in &self.rows {
            assert!(self.nvme.get(row.slot).is_some(), "the row of {key:?} names {}, which is free", row.slot);
        }
    }

    fn audit_block(&self, key: &BlockKey, in_ram: &BTreeMap<BlockKey, SlotId>, on_nvme: &BTreeMap<BlockKey, SlotId>) {
        let (told, known) = (self.published.get(key), self.planner.inspect(key));
        let readable = known.is_some_and(|known| known.readable);
        assert_eq!(told.is_some(), readable, "{key:?} is published exactly when readable");
        let places = known.map_or((None, None), |known| (known.ram_slot, known.nvme_slot));
        assert_eq!(places, (in_ram.get(key).copied(), on_nvme.get(key).copied()), "places of {key:?}");
        let (Some(told), Some(known)) = (told, known) else { return };
        assert_eq!(told.nvme, known.nvme_slot.is_some(), "{key:?} on NVMe, as published");
        assert_eq!(told.ram.map(|place| place.slot), known.ram_slot, "{key:?} in RAM, as published");
        assert_eq!((known.length, known.crc), payload(key), "{key:?}");
        if let Some(place) = told.ram {
            assert_eq!((place.length, place.crc), payload(key), "{key:?}");
            assert_eq!(self.generations.get(&place.slot), Some(&place.generation), "generation of {key:?}");
        }
        if self.planner.is_working() {
            // What hangs on a block that has come or gone is still to be worked out.
            return;
        }
        let above = known.parent.and_then(|parent| self.published.get(&parent));
        assert!(known.first || above.is_some(), "{key:?} is readable and its parent is not");
        let run_above = known.first || above.and_then(|above| above.ram).is_some_and(|above| above.run);
        assert_eq!(
            told.ram.is_some_and(|place| place.run),
            told.ram.is_some() && run_above,
            "{key:?} is in RAM with all its ancestors"
        );
    }

    fn audit_leases(&self) {
        for held in self.leases.iter().filter(|held| !held.excused) {
            let lost = held.prefix.iter().find(|key| !self.published.contains_key(key));
            assert_eq!(lost, None, "lease {} of {:?} protects what is not readable", held.lease, held.prefix);
        }
    }

    fn audit_holdings(&self, in_ram: usize, on_nvme: usize) {
        let held = self.planner.holdings();
        let found = (held.puts, held.ram_blocks, held.nvme_blocks);
        let expected = (self.writers.len() as u64, in_ram as u64, on_nvme as u64);
        assert_eq!(found, expected, "puts, blocks in RAM, on NVMe");
        if self.planner.is_working() {
            // Leases may still end, and slots of puts be given back.
            return;
        }
        assert_eq!(held.leases, self.leases.len() as u64, "leases");
        assert_eq!(held.ram_used_bytes, self.ram.used_bytes(), "bytes of RAM slots in use");
        assert_eq!(held.nvme_used_bytes, self.nvme.used_bytes(), "bytes of NVMe slots in use");
        assert_eq!(held.background == 0, self.jobs.is_empty(), "{} is under way", held.background);
        if self.jobs.is_empty() {
            assert!(self.writers.iter().all(|writer| writer.promised.is_empty()), "a slot was promised and none comes");
            assert!(self.awaited.is_empty(), "{:?} were said to be coming", self.awaited);
        }
    }

    /// Lookups are told of a block's coming or going once, not of both in one breath.
    pub(crate) fn audit_news(commands: &[Command]) {
        let gone = commands.iter().filter_map(|command| match command {
            Command::Unpublish { key, .. } => Some(key),
            _ => None,
        });
        for gone in gone {
            let both = |command: &Command| matches!(command, Command::Publish { key, .. } if key == gone);
            assert!(!commands.iter().any(both), "{gone:?} is published and unpublished by one event");
        }
    }

    /// What is let go to make room is a leaf: nothing that is kept hangs on it.
    pub(crate) fn audit_evictions(&self, commands: &[Command]) {
        for command in commands {
            let Command::Unpublish { key, .. } = command else { continue };
            let hangs = |child: &BlockKey| {
                let known = self.planner.inspect(child);
                known.is_some_and(|known| {
                    known.parent == Some(*key) && (known.ram_slot.is_some() || known.nvme_slot.is_some())
                })
            };
            let child = self.prompts.nodes.iter().map(|node| node.key).find(hangs);
            assert_eq!(child, None, "{key:?} was let go, and the block that hangs on it was not");
        }
    }

    /// The leading run of `keys` that is published, and of it the run in RAM. `None` where a contradicting writer has
    /// put a later block of the chain elsewhere, so that a search by halving may find any of them.
    pub(crate) fn run(&self, keys: &[BlockKey]) -> Option<(u32, u32)> {
        let run = |holds: &dyn Fn(&BlockKey) -> bool| {
            let run = keys.iter().take_while(|key| holds(key)).count();
            keys[run..].iter().all(|key| !holds(key)).then_some(run as u32)
        };
        let hit = run(&|key| self.published.contains_key(key))?;
        let ram = run(&|key| self.published.get(key).and_then(|place| place.ram).is_some_and(|place| place.run))?;
        Some((hit, ram))
    }
}
