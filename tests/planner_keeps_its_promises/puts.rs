//! Writers: they offer chains, send some of what is wanted, and die when they please.

use std::sync::Arc;

use kvtier::plan::{Answer, BlockRef, Command, Event, Offer, PutId};
use kvtier::vocab::{BlockKey, Hints, SlotId};

use super::audit::payload;
use super::prompts::{PAYLOADS, Prompts};
use super::world::{World, Writer};

const WRITERS_MAX: usize = 5;

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
        let (parent, depth, keys) = self.chain(prompt);
        let keys: Arc<[BlockKey]> = keys.into();
        let payload_max = PAYLOADS[namespace];
        let (owners, retention) = (self.owners(owner), self.retention());
        let offer = Offer {
            put,
            parent,
            depth,
            keys: Arc::clone(&keys),
            payload_max,
            owners,
            retention,
            hints: Hints::default(),
        };
        let before = self.planner.holdings().puts;
        let answer = self.tell_only(Event::Offer(offer));
        let Answer::Offered { mut wanted, mut complete, more } = answer else { panic!("{answer:?} to an offer") };
        let refused = self.planner.holdings().puts == before;
        if refused {
            assert!(parent.is_some(), "a chain from its first block on can always be offered");
            assert!(wanted.iter().all(Option::is_none) && !complete, "a chain without its parent is not wanted");
        } else {
            // Known to the books while the rest of the chain is offered.
            self.writers.push(Writer {
                put,
                keys: Arc::clone(&keys),
                wanted: Vec::new(),
                promised: Vec::new(),
                filling: Vec::new(),
                breath: 0,
            });
            let mut has_more = more;
            while has_more {
                // Whatever else happens meanwhile.
                if self.chance.chance(1, 2) {
                    self.work();
                }
                if self.chance.chance(1, 8) {
                    self.evict();
                }
                let answer = self.tell_only(Event::OfferMore { put });
                let Answer::Offered { wanted: next, complete: is_complete, more } = answer else {
                    panic!("{answer:?}")
                };
                wanted.extend(next);
                (complete, has_more) = (is_complete, more);
            }
            wanted.resize(keys.len(), None);
            self.writers.pop();
            self.begin_put(put, keys, &wanted, complete);
        }
        self.audit();
    }

    /// The offered chain: whole, a piece, or nonsense.
    fn chain(&mut self, mut prompt: Vec<BlockKey>) -> (Option<BlockKey>, u32, Vec<BlockKey>) {
        if self.chance.chance(self.temper.contradictions, 100) {
            let at = self.chance.index(prompt.len());
            match self.chance.below(4) {
                0 => prompt[at] = self.prompts.any_key(&mut self.chance),
                1 => prompt.insert(at, prompt[self.chance.index(prompt.len())]),
                2 if prompt.len() > 1 => drop(prompt.remove(at)),
                _ => {
                    let parent = self.prompts.any_key(&mut self.chance);
                    return (Some(parent), self.chance.below(4) as u32, prompt);
                }
            }
        }
        if prompt.len() > 1 && self.chance.chance(1, 4) {
            let cut = 1 + self.chance.index(prompt.len() - 1);
            let rest = prompt.split_off(cut);
            return (prompt.last().copied(), cut as u32, rest);
        }
        (None, 0, prompt)
    }

    fn begin_put(&mut self, put: PutId, keys: Arc<[BlockKey]>, wanted: &[Option<BlockRef>], complete: bool) {
        assert_eq!(wanted.len(), keys.len());
        let known = |key: &BlockKey| self.planner.inspect(key).is_some();
        assert!(!complete || keys.iter().all(known), "a complete chain is here or on its way");
        let pairs = wanted.iter().zip(keys.iter()).rev();
        let mut wanted: Vec<(BlockRef, BlockKey)> = pairs.filter_map(|(block, key)| Some(((*block)?, *key))).collect();
        for (_, key) in &wanted {
            assert!(!self.published.contains_key(key), "{key:?} is wanted and readable");
            let sent = self.writers.iter().any(|other| other.filling.iter().any(|(_, of, _)| of == key));
            assert!(!sent, "{key:?} is wanted from two");
        }
        let breath = if self.chance.chance(1, 3) { self.chance.below(4) } else { u64::MAX };
        // Most writers send in order, some do not.
        if self.chance.chance(1, 6) && wanted.len() > 1 {
            let at = self.chance.index(wanted.len());
            wanted.swap_remove(at);
        }
        self.writers.push(Writer { put, keys, wanted, promised: Vec::new(), filling: Vec::new(), breath });
    }

    fn go_on(&mut self, at: usize) {
        let writer = &mut self.writers[at];
        if writer.breath == 0 || self.chance.chance(1, 60) {
            return self.end_put(at);
        }
        if !writer.filling.is_empty() && self.chance.chance(2, 3) {
            let which = self.chance.index(writer.filling.len());
            let (block, key, slot) = writer.filling.swap_remove(which);
            if writer.breath < u64::MAX {
                writer.breath -= 1;
            }
            self.strays.push(block);
            self.fill(block, key, slot);
        } else if let Some((block, key)) = writer.wanted.pop() {
            writer.promised.push((block, key));
            self.need(at, block);
        } else if writer.filling.is_empty() && (writer.promised.is_empty() || self.chance.chance(1, 20)) {
            self.end_put(at);
        }
    }

    fn need(&mut self, at: usize, block: BlockRef) {
        let answer = self.tell_only(Event::Need { block });
        if answer == Answer::NoRoom {
            // It may be asked for again while the put lives.
            let refused = self.writers[at].promised.pop();
            self.writers[at].wanted.splice(0..0, refused);
        } else {
            assert_eq!(answer, Answer::Done);
        }
        self.audit();
        if answer == Answer::NoRoom && self.chance.chance(1, 2) {
            self.end_put(at);
        }
    }

    fn fill(&mut self, block: BlockRef, key: BlockKey, slot: SlotId) {
        let generation = self.number();
        self.ram.filled(slot);
        self.generations.insert(slot, generation);
        let (length, crc) = payload(&key);
        self.tell(Event::Filled { block, generation, length, crc });
    }

    pub(crate) fn end_put(&mut self, at: usize) {
        let writer = self.writers.swap_remove(at);
        for (_, _, slot) in &writer.filling {
            self.ram.given_up(*slot);
        }
        let given_up = writer.filling.iter().map(|(block, ..)| *block);
        let never_sent = writer.promised.iter().chain(&writer.wanted).map(|(block, _)| *block);
        self.strays.extend(given_up.chain(never_sent));
        let answer = self.tell(Event::PutEnded { put: writer.put });
        let Answer::Stored { through } = answer else { panic!("{answer:?} to a put's end") };
        if let Some((hit, _)) = self.run(&writer.keys) {
            assert!(through == hit || (self.planner.is_working() && through < hit), "stored through what is readable");
        }
    }

    /// A completion of a put that has ended comes late: it finds nothing.
    pub(crate) fn stray(&mut self) {
        if self.strays.is_empty() {
            return;
        }
        let at = self.chance.index(self.strays.len());
        let block = self.strays.swap_remove(at);
        let mut commands = Vec::new();
        let late = match self.chance.chance(1, 2) {
            true => Event::Need { block },
            false => Event::Filled { block, generation: 0, length: 0, crc: 0 },
        };
        let told = format!("{late:?}");
        self.planner.on(self.now, late, &mut commands);
        // Chains used before it are touched first, which may move what was promised of them.
        let (moved, found): (Vec<_>, Vec<_>) =
            commands.into_iter().partition(|command| matches!(command, Command::Promise { .. }));
        assert_eq!(found, [], "a late completion finds nothing: {told}");
        self.take_all(moved);
        self.audit();
    }
}
