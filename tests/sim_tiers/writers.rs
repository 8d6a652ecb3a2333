//! Writers: they offer chains, fill some of the slots that they get, and die when they please.

use std::sync::Arc;

use kvtier::plan::{Answer, BlockRef, Event, Offer, PutId};
use kvtier::tiers::{SlotWriter, copy_with_crc};
use kvtier::vocab::crc::PayloadCrc;
use kvtier::vocab::{BlockKey, Hints, OwnerPath, Retention};

use crate::prompts::{PAYLOADS, Prompts};
use crate::world::{World, payload_of};

const WRITERS_MAX: usize = 4;

/// A put as its writer sees it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) put: PutId,
    /// Wanted and not yet needed; the next one is the last.
    wanted: Vec<(BlockRef, BlockKey)>,
    /// Promised a slot.
    pub(crate) promised: Vec<(BlockRef, BlockKey)>,
    /// Has a slot.
    filling: Vec<(BlockRef, BlockKey, SlotWriter)>,
    /// Blocks that it sends before it dies.
    breath: u64,
}

impl Writer {
    pub(crate) fn granted(&mut self, block: BlockRef, slot: SlotWriter) {
        let at = self.promised.iter().position(|(of, _)| *of == block).expect("a slot that nobody needed");
        let (block, key) = self.promised.swap_remove(at);
        self.filling.push((block, key, slot));
    }

    /// The slot that was promised does not come; the block may be asked for again.
    pub(crate) fn refused(&mut self, block: BlockRef) {
        let at = self.promised.iter().position(|(of, _)| *of == block).expect("a block that was promised nothing");
        let refused = self.promised.swap_remove(at);
        self.wanted.insert(0, refused);
    }
}

impl World {
    pub(crate) fn put(&mut self) {
        if self.writers.len() < WRITERS_MAX && self.chance.chance(1, 5) {
            self.offer();
        } else if !self.writers.is_empty() {
            let at = self.chance.index(self.writers.len());
            self.go_on(at);
        }
    }

    fn offer(&mut self) {
        let (namespace, prompt) = self.prompts.prompt(&mut self.chance);
        let owner = Prompts::owner(namespace, &mut self.chance);
        let put = PutId(self.number());
        let keys: Arc<[BlockKey]> = prompt.into();
        let payload_max = PAYLOADS[namespace];
        let (owners, retention) = (OwnerPath::all(owner), Retention::default());
        let offer = Offer {
            put,
            parent: None,
            depth: 0,
            keys: Arc::clone(&keys),
            payload_max,
            owners,
            retention,
            hints: Hints::default(),
        };
        let answer = self.tell_only(Event::Offer(offer));
        let Answer::Offered { wanted, .. } = answer else { panic!("{answer:?} to an offer") };
        let wanted = wanted.iter().zip(keys.iter()).rev();
        let wanted = wanted.filter_map(|(block, key)| Some(((*block)?, *key))).collect();
        let breath = if self.chance.chance(1, 4) { self.chance.below(4) } else { u64::MAX };
        self.writers.push(Writer { put, wanted, promised: Vec::new(), filling: Vec::new(), breath });
        self.check();
    }

    fn go_on(&mut self, at: usize) {
        let writer = &mut self.writers[at];
        if writer.breath == 0 {
            self.count("writer died");
            return self.end_put(at);
        }
        if !writer.filling.is_empty() && self.chance.chance(2, 3) {
            let which = self.chance.index(writer.filling.len());
            let (block, key, slot) = writer.filling.swap_remove(which);
            if writer.breath < u64::MAX {
                writer.breath -= 1;
            }
            self.fill(block, key, slot);
        } else if let Some((block, key)) = writer.wanted.pop() {
            writer.promised.push((block, key));
            if self.tell(Event::Need { block }) == Answer::NoRoom {
                self.writers[at].promised.pop();
                self.end_put(at);
            }
        } else if writer.filling.is_empty() && (writer.promised.is_empty() || self.chance.chance(1, 20)) {
            self.end_put(at);
        }
    }

    fn fill(&mut self, block: BlockRef, key: BlockKey, mut slot: SlotWriter) {
        let payload = payload_of(&key);
        let mut crc = PayloadCrc::new(&key);
        copy_with_crc(&mut slot.as_mut_slice()[..payload.len()], &payload, &mut crc);
        if self.planner.awaits(block) {
            let (generation, length) = (slot.publish(), payload.len() as u32);
            self.tell(Event::Filled { block, generation, length, crc: crc.finish() });
            self.count("block filled");
        }
    }

    pub(crate) fn end_put(&mut self, at: usize) {
        let Writer { put, filling, .. } = self.writers.swap_remove(at);
        // Its slots first: the planner may hand them out again as soon as it knows.
        drop(filling);
        self.tell(Event::PutEnded { put });
    }
}
