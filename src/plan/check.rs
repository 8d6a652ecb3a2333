//! The planner's invariants, as code that can be run. Tests call it after every event.

use std::collections::{BTreeMap, BTreeSet};

use super::active::{Active, NO_PUT};
use super::entry::{Entry, Nvme, ROOT, Ram, Reach, is_block};
use super::namespaces::Namespaces;
use super::planner::Planner;
use super::shelf::Shelf;
use crate::vocab::{SlotId, Tier};

impl Planner {
    /// Runs every invariant over the whole state: O(blocks).
    ///
    /// # Errors
    /// The first invariant that does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        let fail = |number: u32, what: &str| {
            let (key, entry, active) = (self.catalog.key(number), &self.catalog[number], self.catalog.active(number));
            Err(format!("block {number} {key:?} {entry:?} {active:?}: {what}"))
        };
        let below: BTreeSet<u32> = self.chores.below.iter().map(|below| below.parent).collect();
        for (number, entry) in self.catalog.iter() {
            let active = self.catalog.active(number);
            let children = || self.catalog.children(number);
            let in_ram = children().filter(|child| self.catalog[*child].ram != Ram::Absent).count();
            let on_nvme = children().filter(|child| self.catalog[*child].nvme != Nvme::Absent).count();
            if (in_ram, on_nvme) != (entry.ram_children as usize, entry.nvme_children as usize) {
                return fail(number, "children are miscounted");
            }
            let above = match entry.parent {
                ROOT => Some((true, true)),
                parent if is_block(parent) => {
                    Some((self.catalog[parent].is_readable(), self.catalog[parent].is_ram_run()))
                }
                _ => None,
            };
            let has_bytes = entry.has_bytes() && !entry.doomed;
            // What hangs on a block that has come or gone is still to be worked out.
            let is_open = is_block(entry.parent) && below.contains(&entry.parent);
            let readable = has_bytes && above.is_some_and(|(readable, _)| readable);
            if !is_open && entry.is_readable() != readable {
                return fail(number, "readable exactly when it and all ancestors have bytes");
            }
            let run = readable && entry.ram == Ram::Resident && above.is_some_and(|(_, run)| run);
            if !is_open && entry.is_ram_run() != run {
                return fail(number, "a run in RAM exactly when it and all ancestors are in RAM");
            }
            if !is_open && entry.is_orphan() != (has_bytes && !readable) {
                return fail(number, "an orphan exactly when it has bytes and an ancestor has none");
            }
            if entry.is_ghost()
                && active.leases == 0
                && active.promises == 0
                && !is_block(entry.first_child)
                && active.reads == 0
            {
                return fail(number, "a ghost without children is forgotten");
            }
            if entry.doomed && !self.catalog.is_moving(number) {
                return fail(number, "what is doomed goes when nothing moves it any more");
            }
            if entry.ram == Ram::Offered && active.put == NO_PUT {
                return fail(number, "what is offered has a put that offers it");
            }
            if active.reads > 0 && entry.nvme != Nvme::Resident {
                return fail(number, "what is being read stays on NVMe");
            }
            if matches!(entry.nvme, Nvme::Waiting | Nvme::Writing) && entry.ram != Ram::Resident {
                return fail(number, "what is being written stays in RAM");
            }
            let is_put = self.puts.contains_key(&active.put) || self.chores.endings.contains_key(&active.put);
            if active.put != NO_PUT && !is_put {
                return fail(number, "a reservation ends with its put");
            }
            let depth_above = is_block(entry.parent).then(|| self.catalog[entry.parent].depth + 1);
            if depth_above.is_some_and(|depth| depth != entry.depth) {
                return fail(number, "one deeper than its parent");
            }
        }
        self.check_wholes()
    }

    /// What is kept of all blocks together.
    fn check_wholes(&self) -> Result<(), String> {
        self.catalog.check()?;
        self.check_leases()?;
        self.check_slots(&self.ram, "RAM", |entry, active| {
            let has_slot = matches!(entry.ram, Ram::Filling | Ram::Resident);
            has_slot.then_some((entry.ram_class, active.ram_slot))
        })?;
        self.check_slots(&self.nvme, "NVMe", |entry, _| {
            let has_slot = matches!(entry.nvme, Nvme::Writing | Nvme::Resident);
            has_slot.then_some((entry.nvme_class, entry.nvme_slot))
        })?;
        self.check_drives(&self.ram)?;
        self.check_drives(&self.nvme)?;
        self.check_counts()
    }

    fn check_drives(&self, shelf: &Shelf) -> Result<(), String> {
        let space = &shelf.space;
        let mut used = vec![0; space.used_bytes_of_drives().len()];
        for (number, extent) in space.extents() {
            let bytes = u64::from(extent.used) * u64::from(space.class(extent.class).bytes());
            used[usize::from(space.shape().drive_of(number))] += bytes;
        }
        let kept = space.used_bytes_of_drives();
        if kept == used { Ok(()) } else { Err(format!("drives have {kept:?} bytes in use, and have {used:?}")) }
    }

    fn check_leases(&self) -> Result<(), String> {
        let pinned: u64 = self.catalog.iter().map(|(number, _)| u64::from(self.catalog.active(number).leases)).sum();
        if pinned != self.leases.len() {
            return Err(format!("{pinned} pins for {} leases", self.leases.len()));
        }
        let lost = self.leases.pinned().find(|number| self.catalog.active(*number).leases == 0);
        lost.map_or(Ok(()), |number| Err(format!("block {number} is leased and not pinned")))
    }

    /// Each slot belongs to one block, to the free list, or to the world; and its extent knows which.
    fn check_slots(
        &self,
        shelf: &Shelf,
        tier: &str,
        place: impl Fn(&Entry, &Active) -> Option<(u8, SlotId)>,
    ) -> Result<(), String> {
        let space = &shelf.space;
        let mut held = vec![0_u64; space.class_count()];
        let mut leaving = vec![0_u64; space.class_count()];
        for (number, entry) in self.catalog.iter() {
            let Some((class, slot)) = place(entry, self.catalog.active(number)) else { continue };
            let extent = space.extent(slot.extent).filter(|extent| extent.owner(slot.index) == Some(number));
            if extent.is_none_or(|extent| extent.class != class) {
                return Err(format!("{tier}: slot {slot} is not its block's, {number}"));
            }
            held[usize::from(class)] += 1;
            leaving[usize::from(class)] += u64::from(tier == "RAM" && self.catalog.active(number).leaving);
        }
        for class in 0..u8::try_from(space.class_count()).unwrap_or(u8::MAX) {
            let at = usize::from(class);
            self.check_class(shelf, class, held[at], leaving[at])
                .map_err(|what| format!("{tier}: class {class}: {what}"))?;
        }
        Ok(())
    }

    fn check_class(&self, shelf: &Shelf, class: u8, held: u64, leaving: u64) -> Result<(), String> {
        let space = &shelf.space;
        let free = space.free(class);
        let distinct: BTreeSet<SlotId> = free.iter().copied().collect();
        let owned = |slot: &SlotId| space.extent(slot.extent).is_none_or(|extent| extent.owner(slot.index).is_some());
        if distinct.len() != free.len() || free.iter().any(owned) {
            return Err("a slot is free twice, or free and a block's".into());
        }
        let (mut slots, mut owners, mut used, mut coming, mut kept) = (0, 0, 0, leaving, 0);
        for (number, extent) in space.extents() {
            let lost = space.is_lost(number);
            if extent.leaving == Some(class) && !lost {
                coming += u64::from(space.shape().slots(number, space.class(class)));
            }
            if extent.class != class {
                continue;
            }
            owners += extent.blocks().count() as u64;
            used += u64::from(extent.used);
            if extent.leaving.is_none() && !lost {
                kept += 1;
                slots += u64::from(space.shape().slots(number, space.class(class))) - u64::from(extent.used);
                coming += u64::from(extent.draining());
            }
        }
        let (promised, wanted) = shelf.promised(class);
        let found = [
            ("blocks in slots", held, owners),
            ("slots used", space.used(class), used),
            ("free slots", free.len() as u64, slots),
            ("extents", u64::from(space.extents_of(class)), kept),
            ("slots promised", promised, coming),
            ("blocks waiting, at most", wanted.max(promised), promised),
        ];
        if let Some((what, kept, counted)) = found.iter().find(|(_, kept, counted)| kept != counted) {
            return Err(format!("{what}: kept as {kept}, is {counted}"));
        }
        if shelf.is_bounded(class) { Ok(()) } else { Err("the queue for slots grows".into()) }
    }

    /// Each account is charged for the slots that its blocks have or were promised, and holds no more than it may.
    fn check_accounts(&self) -> Result<(), String> {
        let mut held = BTreeMap::new();
        for (number, entry) in self.catalog.iter() {
            let in_ram = matches!(entry.ram, Ram::Waiting | Ram::Filling | Ram::Resident);
            let in_ram = in_ram && !self.catalog.active(number).leaving;
            for (tier, there) in [(Tier::Ram, in_ram), (Tier::Nvme, entry.nvme != Nvme::Absent)] {
                if there {
                    let held = held.entry((self.catalog.account(number), tier)).or_insert(0);
                    *held += self.slot_bytes(tier, number);
                }
            }
        }
        for known in self.accounts.holdings() {
            for (tier, kept) in [(Tier::Ram, known.ram_bytes), (Tier::Nvme, known.nvme_bytes)] {
                let counted = held.remove(&(known.account, tier)).unwrap_or(0);
                if counted != kept {
                    return Err(format!("{:?} is charged {kept} bytes of {tier} for {counted}", known.account));
                }
            }
        }
        let mut stored = BTreeMap::new();
        for (number, entry) in self.catalog.iter() {
            let owner = self.catalog.owner(number);
            let (blocks, kept) = stored.entry((owner.account, owner.namespace)).or_insert((0, 0));
            *blocks += u64::from(entry.reach != Reach::Nobody);
            *kept += u64::from(self.catalog.active(number).promises > 0);
        }
        stored.retain(|_, counts| *counts != (0, 0));
        let known = self.accounts.stored().into_iter();
        let known: BTreeMap<_, _> =
            known.map(|known| ((known.account, known.namespace), (known.blocks, known.kept))).collect();
        if known != stored {
            return Err(format!("blocks stored are kept as {known:?} and are {stored:?}"));
        }
        held.first_key_value().map_or(Ok(()), |(who, bytes)| Err(format!("{bytes} bytes of {who:?} are not charged")))
    }

    fn check_counts(&self) -> Result<(), String> {
        let blocks = || self.catalog.iter().map(|(number, entry)| (entry, self.catalog.active(number)));
        let count = |holds: &dyn Fn(&Entry, &Active) -> bool| {
            blocks().filter(|(entry, active)| holds(entry, active)).count() as u64
        };
        let pending = |state| matches!(state, Nvme::Waiting | Nvme::Writing);
        let reads: u64 = blocks().map(|(_, active)| u64::from(active.reads)).sum();
        let slot_bytes = |entry: &Entry| u64::from(self.nvme.class(entry.nvme_class).bytes());
        let writing: u64 = blocks().filter(|(entry, _)| pending(entry.nvme)).map(|(entry, _)| slot_bytes(entry)).sum();
        let found = [
            ("ram_blocks", self.held.ram_blocks, count(&|entry, _| entry.ram == Ram::Resident)),
            ("nvme_blocks", self.held.nvme_blocks, count(&|entry, _| entry.nvme == Nvme::Resident)),
            ("orphans", self.held.orphans, count(&|entry, _| entry.reach == Reach::Orphan)),
            ("reservations", self.held.reservations, count(&|_, active| active.put != NO_PUT)),
            ("moving", self.held.moving, reads + count(&|entry, _| pending(entry.nvme))),
            ("writing_bytes", self.writing_bytes, writing),
        ];
        self.check_accounts()?;
        let mut namespaces = Namespaces::default();
        for (number, entry) in self.catalog.iter().filter(|(_, entry)| entry.is_readable()) {
            namespaces.count(self.catalog.owner(number).namespace, entry.length, true);
        }
        if namespaces != self.namespaces {
            return Err(format!("namespaces are kept as {:?} and are {namespaces:?}", self.namespaces));
        }
        self.check_promises()?;
        match found.iter().find(|(_, kept, counted)| kept != counted) {
            Some((name, kept, counted)) => Err(format!("{name} is kept as {kept} and is {counted}")),
            None => Ok(()),
        }
    }
}
