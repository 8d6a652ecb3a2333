//! Readers: they hold what they read for a while, want and peek, lease, and look at every byte.

use std::time::Duration;

use kvtier::plan::{Answer, Event, Filter, InRam, InstanceNo, Leased, Peek, Removed, Wanted};
use kvtier::vocab::{AccountId, BlockKey};

use crate::world::{Held, World, payload_of};

impl World {
    /// Pins a block where lookups say that it is.
    pub(crate) fn read(&mut self) {
        let in_ram: Vec<BlockKey> =
            self.published.iter().filter(|(_, place)| place.ram.is_some()).map(|(key, _)| *key).collect();
        if in_ram.is_empty() {
            return;
        }
        let key = self.chance.pick(&in_ram);
        let place = self.published[&key];
        let InRam { slot, class, generation, length, .. } = place.ram.unwrap();
        let pin = self.ram.pin(slot, class, generation, length).expect("what is published can be read");
        assert!(*pin == payload_of(&key), "wrong bytes of {key:?} in RAM");
        self.count("block read from RAM");
        let until = self.step + self.chance.below(60);
        self.pins.push((until, key, pin));
    }

    /// Readers whose time has come let go; nothing has changed under them.
    pub(crate) fn unpin(&mut self) {
        let mut at = 0;
        while at < self.pins.len() {
            if self.pins[at].0 > self.step {
                at += 1;
                continue;
            }
            let (_, key, pin) = self.pins.swap_remove(at);
            assert!(*pin == payload_of(&key), "bytes of {key:?} changed while they were read");
        }
        self.take_freed();
    }

    pub(crate) fn want(&mut self) {
        let (_, keys) = self.prompts.prompt(&mut self.chance);
        let from = self.planner.prefix(&keys).ram as usize;
        let count = 1 + self.chance.index(4);
        let mut last = None;
        for key in keys.into_iter().skip(from).take(count) {
            last = Some(key);
            match self.tell_only(Event::Want { key }) {
                Answer::Wanted(Wanted::Coming) => drop(self.awaited.insert(key)),
                Answer::Wanted(Wanted::NoRoom) => {
                    self.count("peek of what RAM has no room for");
                    self.peek_at(key);
                }
                Answer::Wanted(Wanted::Ready | Wanted::Gone) => {}
                other => panic!("{other:?} to a want"),
            }
            self.check();
        }
        if let Some(deepest) = last {
            self.tell_only(Event::Used { deepest, leased: false });
        }
    }

    pub(crate) fn peek(&mut self) {
        let there: Vec<BlockKey> = self.published.keys().copied().collect();
        if !there.is_empty() {
            let key = self.chance.pick(&there);
            self.peek_at(key);
        }
    }

    fn peek_at(&mut self, key: BlockKey) {
        let answer = self.tell(Event::Peek { key });
        let Answer::Peek(peek) = answer else { panic!("{answer:?} to a peek") };
        if let Some(peek @ Peek { slot, .. }) = peek {
            assert_eq!(self.rows.get(&key), Some(&slot), "{key:?} is read where its row says that it is");
            self.count("peek");
            self.read_past_ram(peek, key);
        }
    }

    pub(crate) fn lease(&mut self) {
        let (_, keys) = self.prompts.prompt(&mut self.chance);
        let (instance, request) = (InstanceNo(self.chance.below(3) as u32), u128::from(self.number()));
        let ttl = Duration::from_millis(1 + self.chance.below(20_000));
        let (keys, before) = (keys.into(), self.planner.prefix(&[]).asked());
        assert_eq!(before, 0);
        let answer = self.tell_only(Event::Lease { instance, request, keys: std::sync::Arc::clone(&keys), ttl });
        if let Answer::Leased(Ok(Some(Leased { lease, blocks }))) = answer {
            self.count("lease");
            let prefix = keys[..blocks as usize].to_vec();
            self.leases.insert(lease, Held { instance, prefix, ends: self.now + ttl, excused: false });
        }
        self.check();
    }

    pub(crate) fn release(&mut self) {
        let held: Vec<_> = self.leases.keys().copied().collect();
        if held.is_empty() {
            return;
        }
        let lease = self.chance.pick(&held);
        let Held { instance, .. } = self.leases.remove(&lease).unwrap();
        assert_eq!(self.tell(Event::Release { instance, lease }), Answer::Released(Ok(true)));
    }

    pub(crate) fn tick(&mut self) {
        let (before, now) = (self.leases.len(), self.now);
        self.leases.retain(|_, held| held.ends > now);
        if self.leases.len() < before {
            self.count("lease lapsed");
        }
        self.tell(Event::Tick);
    }

    pub(crate) fn evict(&mut self) {
        let key = self.prompts.any_key(&mut self.chance);
        let answer = self.tell(Event::Evict { key });
        let Answer::Removed(Removed { blocks, .. }) = answer else { panic!("{answer:?} to an eviction") };
        if blocks > 0 {
            self.count("block evicted by hand");
        }
    }

    pub(crate) fn purge(&mut self, filter: Filter) {
        let gone = |key: &BlockKey, world: &Self| {
            let known = world.planner.inspect(key);
            known.is_some_and(|known| filter.account.is_none_or(|account| account == known.owner.account))
        };
        let gone: Vec<BlockKey> =
            self.prompts.nodes.iter().map(|node| node.key).filter(|key| gone(key, self)).collect();
        self.excuse(|key| gone.contains(key));
        let answer = self.tell(Event::Purge(filter));
        // A purge ends once nothing moves any more.
        let blocks = if let Answer::Removed(removed) = answer { removed.blocks } else { 0 };
        if blocks > 0 {
            self.count("block purged");
        }
        assert!(gone.iter().all(|key| !self.published.contains_key(key)), "purged and readable");
    }

    pub(crate) fn some_purge(&mut self) {
        let account = Some(AccountId(self.chance.below(2) as u16));
        self.purge(Filter { account, ..Filter::default() });
    }
}
