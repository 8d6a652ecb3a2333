//! One tier as the planner sees it: free slots, the order of going, and blocks that wait for a slot being freed.

use std::collections::VecDeque;

use super::accounts::COMMON;
use super::column::Column;
use super::event::BlockRef;
use super::policy::{Ask, Facts, Heat, Policy, PolicyKind, Use, Visit};
use super::space::Space;
use crate::vocab::limits::LISTS_MAX;
use crate::vocab::{SlotClass, SlotId, TierShape, Timestamp};

/// What a size class of the tier waits for.
struct Queue {
    /// Blocks that were promised a slot; those that gave up since are skipped by their stamp or state.
    waiting: VecDeque<BlockRef>,
    /// Of those, how many still want it.
    wanted: u64,
    /// Slots being freed.
    coming: u64,
}

/// The policy's lists: a class's own number is that of its common one, those of lanes are given as they are needed.
#[derive(Debug)]
struct Lists {
    /// By lane, from lane 1 on, and by class; the common one where there is none.
    of_lanes: Vec<Vec<u16>>,
    given: u16,
}

impl Lists {
    fn find(&self, class: u8, lane: u16) -> u16 {
        let lane = usize::from(lane).checked_sub(1).and_then(|lane| self.of_lanes.get(lane));
        lane.and_then(|lane| lane.get(usize::from(class))).copied().unwrap_or(class.into())
    }

    /// As [`find`](Self::find), having given the lane a list of its own where there is one to give.
    fn open(&mut self, class: u8, lane: u16) -> u16 {
        let found = self.find(class, lane);
        if lane == COMMON || found != u16::from(class) || self.given >= LISTS_MAX {
            return found;
        }
        let lane = usize::from(lane) - 1;
        if self.of_lanes.len() <= lane {
            self.of_lanes.resize_with(lane + 1, Vec::new);
        }
        let lists = &mut self.of_lanes[lane];
        (u8::try_from(lists.len()).unwrap_or(u8::MAX)..=class).for_each(|class| lists.push(class.into()));
        lists[usize::from(class)] = self.given;
        self.given += 1;
        self.given - 1
    }
}

/// A block's size class, and its account's lane.
pub(super) type Place = (u8, u16);

/// How a block comes into the order of going.
pub(super) struct Entrance<'a> {
    pub heat: Heat,
    /// Nothing of the tier hangs on it.
    pub leaf: bool,
    pub ask: Ask<'a>,
    pub visit: Visit,
}

/// Places in a queue, beyond as many as still want a slot, that may belong to blocks that gave up.
const SKIPPED_MAX: u64 = 64;

/// One tier.
pub(super) struct Shelf {
    pub space: Space,
    queues: Vec<Queue>,
    policy: Box<dyn Policy>,
    lists: Lists,
    /// When each block was used last, in seconds, by its number in the order of going.
    used_s: Column<u32>,
    /// Before this, no other class is looked at for an extent that it needs less.
    pub next_look: Timestamp,
}

/// What a block gets that asks for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// This slot.
    Now(SlotId),
    /// One of those being freed.
    Later,
    /// Nothing, unless this many victims are found: always one.
    AfterEviction,
}

impl Shelf {
    pub(super) fn new(shape: TierShape, kind: PolicyKind) -> Self {
        let (policy, used_s) = (kind.build(), Column::new(0));
        let lists = Lists { of_lanes: Vec::new(), given: u16::from(u8::MAX) + 1 };
        Self { space: Space::new(shape), queues: Vec::new(), policy, lists, used_s, next_look: Timestamp(0) }
    }

    /// Whether the tier exists at all.
    pub(super) fn exists(&self) -> bool {
        self.space.shape().extents() > 0
    }

    /// The number of the class for payloads of this size.
    pub(super) fn class_number(&mut self, payload_bytes: u32) -> Option<u8> {
        let number = self.space.class_number(payload_bytes)?;
        self.open_queues();
        Some(number)
    }

    /// Has a queue for each class.
    pub(super) fn open_queues(&mut self) {
        while self.queues.len() < self.space.class_count() {
            self.queues.push(Queue { waiting: VecDeque::new(), wanted: 0, coming: 0 });
        }
    }

    pub(super) fn class(&self, number: u8) -> SlotClass {
        self.space.class(number)
    }

    /// Asks for a slot. On `Later` the block is in the queue.
    pub(super) fn ask(&mut self, number: u8, block: BlockRef) -> Grant {
        let queue = &mut self.queues[usize::from(number)];
        if queue.wanted == 0
            && let Some(slot) = self.space.take(number, block.number)
        {
            return Grant::Now(slot);
        }
        if queue.wanted < queue.coming {
            queue.wanted += 1;
            queue.waiting.push_back(block);
            return Grant::Later;
        }
        self.space.take(number, block.number).map_or(Grant::AfterEviction, Grant::Now)
    }

    /// A block in the queue wants no slot any more. Its place is skipped later; only when most places are like that are
    /// they taken out, so that the queue stays bounded by what is awaited.
    pub(super) fn give_up(&mut self, number: u8, wants: impl Fn(BlockRef) -> bool) {
        let queue = &mut self.queues[usize::from(number)];
        queue.wanted -= 1;
        if queue.waiting.len() as u64 > 2 * queue.wanted + SKIPPED_MAX {
            queue.waiting.retain(|block| wants(*block));
        }
    }

    /// Whether the queue is as short as promised: for the invariants' check.
    pub(super) fn is_bounded(&self, number: u8) -> bool {
        let queue = &self.queues[usize::from(number)];
        queue.waiting.len() as u64 <= 2 * queue.coming + SKIPPED_MAX
    }

    /// Its block lets the slot go: it is being freed, and promised to the class, unless its extent is leaving it.
    pub(super) fn expect(&mut self, slot: SlotId) {
        self.space.disown(slot);
        if let Some(extent) = self.space.extent(slot.extent)
            && extent.leaving.is_none()
            && !self.space.is_lost(slot.extent)
        {
            self.promise(extent.class, 1);
        }
    }

    /// So many slots will be free, which are not yet.
    pub(super) fn promise(&mut self, number: u8, slots: u32) {
        self.queues[usize::from(number)].coming += u64::from(slots);
    }

    /// A slot that was promised will not come. Who waited for it, if that leaves more waiting than will come.
    pub(super) fn break_promise(&mut self, number: u8, mut wants: impl FnMut(BlockRef) -> Option<u32>) -> Option<u32> {
        let queue = &mut self.queues[usize::from(number)];
        queue.coming -= 1;
        while queue.wanted > queue.coming {
            let Some(block) = queue.waiting.pop_back() else { break };
            if let Some(number) = wants(block) {
                queue.wanted -= 1;
                return Some(number);
            }
        }
        None
    }

    /// A slot that was being freed is free: the class in whose queue [`pass_on`](Self::pass_on) may find somebody.
    pub(super) fn freed(&mut self, slot: SlotId) -> Option<u8> {
        let (number, slots) = self.space.give(slot)?;
        self.queues[usize::from(number)].coming -= u64::from(slots);
        Some(number)
    }

    /// A slot is free that nobody was promised.
    pub(super) fn give_back(&mut self, slot: SlotId) -> Option<u8> {
        let leaving = self.space.extent(slot.extent).is_some_and(|extent| extent.leaving.is_some());
        let (number, slots) = self.space.give(slot)?;
        if leaving {
            self.queues[usize::from(number)].coming -= u64::from(slots);
        }
        Some(number)
    }

    /// Gives a free slot to the first in the queue that still `wants` one.
    pub(super) fn pass_on(
        &mut self,
        number: u8,
        mut wants: impl FnMut(BlockRef) -> Option<u32>,
    ) -> Option<(u32, SlotId)> {
        let queue = &mut self.queues[usize::from(number)];
        while let Some(block) = queue.waiting.front().copied() {
            if let Some(number_of_block) = wants(block) {
                let slot = self.space.take(number, number_of_block)?;
                queue.waiting.pop_front();
                queue.wanted -= 1;
                return Some((number_of_block, slot));
            }
            queue.waiting.pop_front();
        }
        None
    }

    /// A drive is gone: its extents, and the classes that were promised a slot of it, once for each slot.
    pub(super) fn lose_drive(&mut self, drive: u16) -> (Vec<u16>, Vec<u8>) {
        let extents = self.space.lose_drive(drive);
        let mut broken = Vec::new();
        for number in &extents {
            let Some(extent) = self.space.extent(*number) else { continue };
            let (class, slots) = match extent.leaving {
                Some(next) => (next, self.space.shape().slots(*number, self.space.class(next))),
                None => (extent.class, extent.draining()),
            };
            broken.extend(std::iter::repeat_n(class, slots as usize));
        }
        (extents, broken)
    }

    /// The first block in the order of going, whether or not it may go, and when it was used last.
    pub(super) fn coldest(&mut self, number: u8, lane: u16) -> Option<(u32, Timestamp)> {
        let coldest = self.policy.oldest(self.lists.find(number, lane))?;
        Some((coldest, self.used(coldest)))
    }

    /// When a block that is in the order of going was used last.
    pub(super) fn used(&self, block: u32) -> Timestamp {
        Timestamp(u64::from(self.used_s[block]) * 1_000)
    }

    /// The same in seconds; 0 for a block that never was.
    pub(super) fn used_s(&self, block: u32) -> u32 {
        self.used_s.get(block)
    }

    /// Notes that a block was used no earlier than this, whether or not it is in the order of going yet. False where
    /// that is known.
    pub(super) fn use_later(&mut self, block: u32, used_s: u32) -> bool {
        self.used_s.reach(block);
        let later = self.used_s[block] < used_s;
        if later {
            self.used_s[block] = used_s;
        }
        later
    }

    /// As [`insert`](Self::insert), for a block of which it is known when it was used.
    pub(super) fn enter(&mut self, (number, lane): Place, block: u32, entrance: Entrance<'_>) {
        let Entrance { heat, leaf, ask, visit } = entrance;
        let list = self.lists.open(number, lane);
        self.policy.insert(list, block, heat, ask, &visit);
        if !leaf {
            self.policy.leaf(list, block, false);
        }
    }

    pub(super) fn insert(&mut self, place: Place, block: u32, entrance: Entrance<'_>, used: Timestamp) {
        self.used_s.reach(block);
        self.used_s[block] = used.seconds();
        self.enter(place, block, entrance);
    }

    pub(super) fn touch(&mut self, (number, lane): Place, block: u32, now: Timestamp, ask: Ask<'_>, why: Use) {
        self.used_s[block] = now.seconds();
        self.policy.touch(self.lists.find(number, lane), block, ask, why);
    }

    /// Whether anything hangs on a block of the order of going has changed.
    pub(super) fn leaf(&mut self, (number, lane): Place, block: u32, leaf: bool) {
        self.policy.leaf(self.lists.find(number, lane), block, leaf);
    }

    /// A request begins.
    pub(super) fn tick(&mut self) {
        self.policy.tick();
    }

    /// Whether a block that is not there is remembered.
    pub(super) fn remembers(&self, key: u64) -> bool {
        self.policy.remembers(key)
    }

    /// Whether a block is worth what would go for it.
    pub(super) fn admits(&mut self, (number, lane): Place, facts: &Facts, visit: &Visit) -> bool {
        self.policy.admits(self.lists.find(number, lane), facts, visit)
    }

    /// A block came by and was not taken in.
    pub(super) fn pass(&mut self, facts: &Facts, visit: &Visit) {
        self.policy.pass(facts, visit);
    }

    pub(super) fn chill(&mut self, number: u8, lane: u16, block: u32) {
        self.policy.chill(self.lists.find(number, lane), block);
    }

    /// A lane is new: takes the blocks that `moves` accepts from the common lists to its own, in their order.
    pub(super) fn relist(&mut self, lane: u16, moves: &mut dyn FnMut(u32) -> bool) {
        for class in 0..u8::try_from(self.space.class_count()).unwrap_or(u8::MAX) {
            let list = self.lists.open(class, lane);
            if list != u16::from(class) {
                self.policy.relist(class.into(), list, moves);
            }
        }
    }

    pub(super) fn remove(&mut self, block: u32, ask: Ask<'_>) {
        self.policy.remove(block, ask);
    }

    pub(super) fn victim(&mut self, number: u8, lane: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        self.policy.victim(self.lists.find(number, lane), evictable)
    }

    /// Bytes that the order of going takes.
    pub(super) fn order_bytes(&self) -> usize {
        self.policy.bytes() + self.used_s.bytes()
    }

    /// Slots being freed, and blocks waiting for them, in all classes.
    pub(super) fn moving(&self) -> u64 {
        self.queues.iter().map(|queue| queue.coming + queue.wanted).sum::<u64>() + self.space.ebbing()
    }

    /// Slots of a class that are being freed, and blocks that wait for them.
    pub(super) fn promised(&self, number: u8) -> (u64, u64) {
        let queue = &self.queues[usize::from(number)];
        (queue.coming, queue.wanted)
    }
}
