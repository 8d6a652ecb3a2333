//! One tier as the planner sees it: free slots, the order of going, and blocks that wait for a slot being freed.

use std::collections::VecDeque;

use super::event::BlockRef;
use super::policy::{Heat, Policy, PolicyKind};
use super::space::Space;
use crate::vocab::{SlotClass, SlotId, TierShape};

/// What a size class of the tier waits for.
struct Queue {
    /// Blocks that were promised a slot; those that gave up since are skipped by their stamp or state.
    waiting: VecDeque<BlockRef>,
    /// Of those, how many still want it.
    wanted: u64,
    /// Slots being freed.
    coming: u64,
}

/// Places in a queue, beyond as many as still want a slot, that may belong to blocks that gave up.
const SKIPPED_MAX: u64 = 64;

/// One tier.
pub(super) struct Shelf {
    pub space: Space,
    queues: Vec<Queue>,
    policy: Box<dyn Policy>,
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
        Self { space: Space::new(shape), queues: Vec::new(), policy: kind.build() }
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
            && let Some(slot) = self.space.take(number)
        {
            return Grant::Now(slot);
        }
        if queue.wanted < queue.coming {
            queue.wanted += 1;
            queue.waiting.push_back(block);
            return Grant::Later;
        }
        self.space.take(number).map_or(Grant::AfterEviction, Grant::Now)
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

    /// A slot is being freed.
    pub(super) fn expect(&mut self, number: u8) {
        self.queues[usize::from(number)].coming += 1;
    }

    /// A slot that was being freed is free. Gives it to the first in the queue that `wants` it.
    pub(super) fn freed(
        &mut self,
        number: u8,
        slot: SlotId,
        wants: impl FnMut(BlockRef) -> Option<u32>,
    ) -> Option<(u32, SlotId)> {
        self.queues[usize::from(number)].coming -= 1;
        self.pass_on(number, slot, wants)
    }

    /// A slot is free that nobody was promised.
    pub(super) fn give_back(
        &mut self,
        number: u8,
        slot: SlotId,
        wants: impl FnMut(BlockRef) -> Option<u32>,
    ) -> Option<(u32, SlotId)> {
        self.pass_on(number, slot, wants)
    }

    fn pass_on(
        &mut self,
        number: u8,
        slot: SlotId,
        mut wants: impl FnMut(BlockRef) -> Option<u32>,
    ) -> Option<(u32, SlotId)> {
        self.space.give(number, slot);
        let queue = &mut self.queues[usize::from(number)];
        while let Some(block) = queue.waiting.pop_front() {
            let Some(block) = wants(block) else { continue };
            queue.wanted -= 1;
            return self.space.take(number).map(|slot| (block, slot));
        }
        None
    }

    pub(super) fn insert(&mut self, number: u8, block: u32, heat: Heat) {
        self.policy.insert(number, block, heat);
    }

    pub(super) fn touch(&mut self, number: u8, block: u32) {
        self.policy.touch(number, block);
    }

    pub(super) fn chill(&mut self, number: u8, block: u32) {
        self.policy.chill(number, block);
    }

    pub(super) fn remove(&mut self, block: u32) {
        self.policy.remove(block);
    }

    pub(super) fn victim(&mut self, number: u8, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        self.policy.victim(number, evictable)
    }

    /// Bytes that the order of going takes.
    pub(super) fn order_bytes(&self) -> usize {
        self.policy.bytes()
    }

    /// Slots being freed, and blocks waiting for them, in all classes.
    pub(super) fn moving(&self) -> u64 {
        self.queues.iter().map(|queue| queue.coming + queue.wanted).sum()
    }

    /// Slots of a class that are being freed, and blocks that wait for them.
    pub(super) fn promised(&self, number: u8) -> (u64, u64) {
        let queue = &self.queues[usize::from(number)];
        (queue.coming, queue.wanted)
    }
}
