//! A put: a chain is offered, what is missing is wanted, slots are had one by one, bytes come in.

use super::active::NO_PUT;
use super::command::Command;
use super::entry::{ROOT, Ram, UNKNOWN};
use super::event::{Answer, BlockRef, Offer, PutId};
use super::keys::Keys;
use super::owner::Deed;
use super::planner::Planner;
use super::policy::{Heat, Visit};
use super::shelf::Grant;
use crate::vocab::limits::LEAKED_AT_ONCE;
use crate::vocab::{BlockKey, Owner, SlotId, Tier};

/// A put under way.
#[derive(Debug)]
pub(super) struct Put {
    pub offer: Offer,
    /// How many of its keys were gone through.
    pub offered: usize,
    pub wanted: Vec<BlockRef>,
    pub visit: Visit,
}

impl Planner {
    pub(super) fn offer(&mut self, offer: Offer) -> Answer {
        let put = offer.put;
        let is_new = self.ram.exists() && !self.puts.contains_key(&put.0);
        if !is_new || self.offered_below(&offer, 0).is_none() {
            return Answer::Offered { wanted: Vec::new(), complete: false, more: false };
        }
        let end = u32::try_from(offer.keys.len()).map_or(u32::MAX, |keys| offer.depth.saturating_add(keys));
        let deepest = end.saturating_sub(1);
        let visit = Visit { deepest, fresh: 0, hints: offer.hints };
        self.puts.insert(put.0, Put { offer, offered: 0, wanted: Vec::new(), visit });
        self.offer_more(put)
    }

    /// Goes through the next keys of an offer.
    pub(super) fn offer_more(&mut self, put: PutId) -> Answer {
        let mut answer = Vec::new();
        let Some(Put { offer, offered: from, mut wanted, mut visit }) = self.puts.remove(&put.0) else {
            return Answer::Offered { wanted: answer, complete: false, more: false };
        };
        let end = offer.keys.len().min(from.saturating_add(self.offered_at_once));
        let depth = offer.depth.saturating_add(u32::try_from(from).unwrap_or(u32::MAX));
        let mut owner = None;
        let mut parent = self.offered_below(&offer, from);
        for (depth, key) in (depth..).zip(&offer.keys[from..end]) {
            parent = parent.and_then(|parent| self.link(*key, parent, depth));
            let Some(number) = parent else { break };
            let is_wanted = self.catalog[number].is_ghost();
            if is_wanted && depth == 0 {
                // Nothing of it was there to be leased, which would have been the request's begin.
                self.tick_policies();
            }
            if is_wanted && !self.remembers(key) {
                visit.fresh += 1;
            }
            let owner = self.owner_at(&offer, depth, &mut owner);
            answer.push(is_wanted.then(|| self.reserve(number, &offer, owner)));
            if !is_wanted {
                self.widen(number, owner);
                // Also another chance for a block whose write was dropped.
                self.admit_at_second_use(number);
            }
        }
        if let Some((_, owner)) = owner {
            self.catalog.owners.release(owner);
        }
        wanted.extend(answer.iter().flatten());
        let (complete, more) = (parent.is_some(), parent.is_some() && end < offer.keys.len());
        self.puts.insert(put.0, Put { offer, offered: end, wanted, visit });
        Answer::Offered { wanted: answer, complete, more }
    }

    /// The owner of the block at a depth of an offered chain. It is held, in `held`, until another one is.
    fn owner_at(&mut self, offer: &Offer, depth: u32, held: &mut Option<(Owner, u32)>) -> u32 {
        let owner = offer.owners.at(depth);
        if let Some((of, number)) = held.filter(|(of, _)| *of == owner) {
            debug_assert_eq!(of, owner);
            return number;
        }
        let number = self.catalog.owners.hold(Deed { owner, payload_max: offer.payload_max });
        if let Some((_, before)) = held.replace((owner, number)) {
            self.catalog.owners.release(before);
        }
        number
    }

    /// A block that a request kept from NVMe may go there for this one.
    fn widen(&mut self, number: u32, owner: u32) {
        let (of, now) = (self.catalog.owner(number), self.catalog.owners.get(owner).owner);
        let widens = of.ram_only && !now.ram_only && (of.account, of.namespace) == (now.account, now.namespace);
        if widens && !self.is_being_purged(number) {
            self.catalog.give(number, owner);
        }
    }

    /// A ghost becomes a block that is offered.
    fn reserve(&mut self, number: u32, offer: &Offer, owner: u32) -> BlockRef {
        let entry = &mut self.catalog[number];
        // A ghost that stayed for its children's sake: completions of the put that gave it up find nothing.
        entry.stamp = entry.stamp.wrapping_add(1);
        entry.created_s = self.now.seconds();
        self.catalog.give(number, owner);
        self.begin_to_live(number, offer.retention);
        self.catalog.active_mut(number).put = offer.put.0;
        self.set_ram(number, Ram::Offered);
        self.reference(number)
    }

    /// The block that the offered chain hangs on from its key `from` on, where it can be stored at all.
    fn offered_below(&self, offer: &Offer, from: usize) -> Option<u32> {
        let parent = from.checked_sub(1).and_then(|before| offer.keys.get(before).copied()).or(offer.parent);
        let depth = offer.depth.saturating_add(u32::try_from(from).unwrap_or(u32::MAX));
        let Some(key) = parent else { return (depth == 0).then_some(ROOT) };
        let number = self.catalog.find(&key)?;
        let entry = &self.catalog[number];
        (!entry.is_ghost() && !entry.doomed && entry.depth + 1 == depth).then_some(number)
    }

    /// The block of this key under `parent`. `None` where the chain contradicts what is known: a key stands for its
    /// whole prefix, so it has one parent and one depth. (Depth that grows along each edge also rules out rings.)
    fn link(&mut self, key: BlockKey, parent: u32, depth: u32) -> Option<u32> {
        let Some(number) = self.catalog.find_below(parent, &key) else { return self.catalog.add(key, parent, depth) };
        let entry = &self.catalog[number];
        if entry.depth != depth || entry.doomed {
            return None;
        }
        if entry.parent == UNKNOWN {
            self.adopt(number, parent);
        }
        (self.catalog[number].parent == parent).then_some(number)
    }

    pub(super) fn need(&mut self, block: BlockRef) -> Answer {
        let Some(number) = self.catalog.resolve(block) else { return Answer::NoRoom };
        let entry = &self.catalog[number];
        if entry.ram != Ram::Offered || entry.doomed || !self.is_being_put(number) {
            return Answer::NoRoom;
        }
        self.visit = self.visit_of(number);
        if self.take_ram_slot(number, Heat::Hot) { Answer::Done } else { Answer::NoRoom }
    }

    /// Gets the block a RAM slot, now or soon, by evicting if need be. On success it is `Waiting` or `Filling`.
    pub(super) fn take_ram_slot(&mut self, number: u32, heat: Heat) -> bool {
        let Some(class) = self.ram.class_number(self.catalog.payload_max(number)) else { return false };
        if !self.fits_its_limit(Tier::Ram, class, number) {
            return false;
        }
        let block = self.reference(number);
        let grant = match self.ram.ask(class, block) {
            Grant::AfterEviction if self.is_worth_ram(class, number) && self.make_ram_room(class, number) => {
                self.ram.ask(class, block)
            }
            grant => grant,
        };
        if grant == Grant::AfterEviction {
            return false;
        }
        self.catalog[number].ram_class = class;
        let at = self.catalog.ram_number(number);
        self.enter_ram_order(number, at, heat);
        self.set_ram(number, Ram::Waiting);
        if let Grant::Now(slot) = grant {
            self.assign_ram(number, slot);
        }
        true
    }

    /// Whether what RAM has should go for a block that comes in. With NVMe below, RAM is the way there.
    fn is_worth_ram(&mut self, class: u8, number: u32) -> bool {
        if self.nvme.exists() || self.catalog.active(number).put == NO_PUT {
            return true;
        }
        let (place, facts) = ((class, self.lane(number)), self.catalog.facts(number));
        let is_worth = self.ram.admits(place, &facts, &self.visit);
        self.counters.ram_not_admitted += u64::from(!is_worth);
        is_worth
    }

    /// Whether a block that no tier has is remembered by one.
    fn remembers(&self, key: &BlockKey) -> bool {
        self.ram.remembers(Keys::hash(key)) || self.nvme.remembers(Keys::hash(key))
    }

    fn make_ram_room(&mut self, class: u8, number: u32) -> bool {
        let account = self.catalog.account(number);
        self.move_an_extent(Tier::Ram, class)
            || self.evict_from_ram(class, account)
            || (0..LEAKED_AT_ONCE).any(|_| self.end_leaked_lease(class) && self.evict_from_ram(class, account))
    }

    /// A waiting block has its slot: now the bytes may come, from a put or from NVMe.
    pub(super) fn assign_ram(&mut self, number: u32, slot: SlotId) {
        self.catalog.active_mut(number).ram_slot = slot;
        self.set_ram(number, Ram::Filling);
        self.ram.space.touch(slot, self.now);
        let active = self.catalog.active(number);
        if active.put == NO_PUT {
            self.load_into_slot(number);
        } else if self.is_being_put(number) {
            let put = PutId(active.put);
            let class = self.ram.class(self.catalog[number].ram_class);
            self.commands.push(Command::Fill { put, block: self.reference(number), slot, class });
        }
    }

    pub(super) fn filled(&mut self, block: BlockRef, generation: u64, length: u32, crc: u64) -> Answer {
        let Some(number) = self.catalog.resolve(block) else { return Answer::Done };
        if self.catalog[number].ram != Ram::Filling || !self.is_being_put(number) {
            return Answer::Done;
        }
        self.visit = self.visit_of(number);
        self.catalog.active_mut(number).generation = generation;
        let entry = &mut self.catalog[number];
        (entry.length, entry.crc) = (length, crc);
        self.set_ram(number, Ram::Resident);
        self.counters.blocks_stored += 1;
        self.refresh(number);
        if self.finish_doomed(number) {
            return Answer::Done;
        }
        self.chill_unreachable(number);
        self.admit_when_filled(number);
        Answer::Done
    }

    /// A block will not get its bytes in RAM after all.
    pub(super) fn abandon_ram(&mut self, number: u32) {
        let entry = &self.catalog[number];
        let (state, class, slot) = (entry.ram, entry.ram_class, self.catalog.active(number).ram_slot);
        self.set_ram(number, Ram::Absent);
        match state {
            Ram::Waiting => {
                let Self { ram, catalog, .. } = self;
                let waits = |number: u32| catalog[number].ram == Ram::Waiting;
                ram.give_up(class, |block| catalog.resolve(block).is_some_and(waits));
            }
            Ram::Filling => {
                let class = self.ram.give_back(slot);
                self.hand_ram_on(class);
            }
            Ram::Absent | Ram::Offered | Ram::Resident => {}
        }
        if matches!(state, Ram::Waiting | Ram::Filling) {
            let at = self.catalog.ram_number(number);
            self.leave_ram_order(number, at);
        }
        self.catalog[number].doomed = false;
        self.chill_descendants(number);
        self.prune(number);
    }

    pub(super) fn ram_freed(&mut self, slot: SlotId) -> Answer {
        let class = self.ram.freed(slot);
        self.hand_ram_on(class);
        Answer::Done
    }

    /// Gives the free slots of a class to blocks that wait for them.
    fn hand_ram_on(&mut self, class: Option<u8>) {
        let Some(class) = class else { return };
        loop {
            let Self { ram, catalog, .. } = self;
            let wants = |block| catalog.resolve(block).filter(|number| catalog[*number].ram == Ram::Waiting);
            let Some((number, slot)) = ram.pass_on(class, wants) else { return };
            self.assign_ram(number, slot);
        }
    }
}
