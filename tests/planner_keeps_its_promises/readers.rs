//! Readers: instances that look up, lease, want and peek, and die.

use std::sync::Arc;
use std::time::Duration;

use kvtier::plan::{Answer, Event, InstanceNo, LeaseError, Leased, Wanted};
use kvtier::vocab::{BlockKey, LeaseId, NamespaceId};

use super::world::{Held, Job, World};

const INSTANCES: u64 = 3;

impl World {
    pub(crate) fn lease(&mut self) {
        let (_, mut keys) = self.prompts.prompt(&mut self.chance);
        keys.truncate(1 + self.chance.index(keys.len()));
        let mut who = (InstanceNo(self.chance.below(INSTANCES) as u32), u128::from(self.number()));
        if !self.leases.is_empty() && self.chance.chance(1, 4) {
            let known = &self.leases[self.chance.index(self.leases.len())];
            who = (known.instance, known.request);
            if self.chance.chance(1, 2) {
                keys.clone_from(&known.prefix);
            }
        }
        self.take_lease(who, keys.into());
    }

    fn take_lease(&mut self, (instance, request): (InstanceNo, u128), keys: Arc<[BlockKey]>) {
        let ttl = Duration::from_millis(1 + self.chance.below(20_000));
        let counts = self.planner.prefix(&keys);
        assert_eq!(counts.asked() as usize, keys.len(), "tiers and misses add up");
        if let Some((hit, ram)) = self.run(&keys) {
            assert_eq!((counts.hit(), counts.ram), (hit, ram), "a lookup counts what is published");
        }
        let known = self.leases.iter().position(|held| (held.instance, held.request) == (instance, request));
        // What a purge is still to come to, or hangs on what has gone, is published and not leased.
        let open = self.planner.is_working();
        let answer = self.tell_only(Event::Lease { instance, request, keys: Arc::clone(&keys), ttl });
        match answer {
            Answer::Leased(Ok(None)) => assert!(open || counts.hit() == 0),
            Answer::Leased(Ok(Some(Leased { lease, blocks }))) => {
                assert!(blocks == counts.hit() || (open && blocks < counts.hit()), "what is readable is leased");
                let prefix = keys[..blocks as usize].to_vec();
                let excused = !self.is_one_chain(&prefix);
                let (ends, since) = (self.now + ttl, self.now);
                let held = Held { instance, request, lease, prefix, ends, since, excused };
                match known {
                    Some(at) => {
                        assert_eq!(self.leases[at].lease, lease, "the same request has the same lease");
                        self.leases[at] = held;
                    }
                    None => {
                        assert!(self.leases.iter().all(|other| other.lease != lease), "a lease of its own");
                        self.leases.push(held);
                    }
                }
            }
            other => panic!("{other:?} to a lease"),
        }
        self.audit();
    }

    /// Where contradicting writers were at work, the keys of a prompt may lie elsewhere.
    fn is_one_chain(&self, keys: &[BlockKey]) -> bool {
        let above = std::iter::once(None).chain(keys.iter().copied().map(Some));
        keys.iter().zip(above).all(|(key, above)| {
            self.planner.inspect(key).is_some_and(|known| known.parent == above && known.first == above.is_none())
        })
    }

    /// Leases that were ended to make room: old ones, of an instance that has pinned more than half of RAM.
    pub(crate) fn drop_leaked(&mut self) {
        let ended = |held: &Held| self.planner.check_lease(held.instance, held.lease).is_err();
        let gone: Vec<usize> = (0..self.leases.len()).filter(|at| ended(&self.leases[*at])).collect();
        // In the largest slots that there are.
        let half = self.options.ram.total().0 / 8_192 / 2;
        let pinned = |instance| -> usize {
            let of_instance = self.leases.iter().filter(|held| held.instance == instance);
            of_instance.map(|held| held.prefix.len()).sum()
        };
        let before: Vec<usize> = gone.iter().map(|at| pinned(self.leases[*at].instance)).collect();
        for (at, pinned) in gone.into_iter().zip(before).rev() {
            let held = self.leases.swap_remove(at);
            assert!(pinned as u64 > half, "{pinned} of {half} blocks were pinned before {held:?} was ended");
            assert!(held.since + self.options.pin_grace <= self.now, "{held:?} is young and was ended");
        }
    }

    pub(crate) fn release_or_renew(&mut self) {
        if self.leases.is_empty() {
            let instance = InstanceNo(0);
            let lease = LeaseId(self.chance.next());
            assert_eq!(self.tell(Event::Release { instance, lease }), Answer::Released(Ok(false)));
            return;
        }
        let at = self.chance.index(self.leases.len());
        let (instance, lease, blocks) =
            (self.leases[at].instance, self.leases[at].lease, self.leases[at].prefix.len() as u32);
        let other = InstanceNo(instance.0 + 1);
        let ttl = Duration::from_millis(1 + self.chance.below(20_000));
        match self.chance.below(5) {
            0 => {
                let foreign = LeaseError::Foreign(lease);
                let answer = self.tell(Event::Release { instance: other, lease });
                assert_eq!(answer, Answer::Released(Err(foreign)));
                let answer = self.tell(Event::Renew { instance: other, lease, ttl });
                assert_eq!(answer, Answer::Renewed(Err(foreign)));
            }
            1 => {
                (self.leases[at].ends, self.leases[at].since) = (self.now + ttl, self.now);
                let answer = self.tell(Event::Renew { instance, lease, ttl });
                assert_eq!(answer, Answer::Renewed(Ok(Leased { lease, blocks })));
            }
            _ => {
                self.leases.swap_remove(at);
                assert_eq!(self.tell(Event::Release { instance, lease }), Answer::Released(Ok(true)));
                let answer = self.tell(Event::Renew { instance, lease, ttl });
                assert_eq!(answer, Answer::Renewed(Err(LeaseError::Ended(lease))));
            }
        }
    }

    pub(crate) fn want(&mut self) {
        let (_, keys) = self.prompts.prompt(&mut self.chance);
        // Mostly in order from where RAM ends, as loads do.
        let from = if self.chance.chance(3, 4) { self.planner.prefix(&keys).ram as usize } else { 0 };
        let count = 1 + self.chance.index(4);
        let mut last = None;
        for key in keys.into_iter().skip(from).take(count) {
            last = Some(key);
            let (told, open) = (self.published.get(&key).copied(), self.planner.is_working());
            let answer = self.tell_only(Event::Want { key });
            match answer {
                Answer::Wanted(Wanted::Ready) => assert!(told.is_some_and(|told| told.ram.is_some())),
                Answer::Wanted(Wanted::Gone) => assert!(open || told.is_none(), "{key:?} is gone"),
                Answer::Wanted(Wanted::Coming) => drop(self.awaited.insert(key)),
                Answer::Wanted(Wanted::NoRoom) => assert!(told.is_some()),
                other => panic!("{other:?} to a want"),
            }
            self.audit();
        }
        // Some readers go away before the end.
        if let Some(deepest) = last.filter(|_| self.chance.chance(2, 3)) {
            assert_eq!(self.tell(Event::Used { deepest, leased: false }), Answer::Done);
        }
    }

    pub(crate) fn peek(&mut self) {
        let key = self.key_to_peek();
        let on_nvme = self.published.get(&key).is_some_and(|told| told.nvme);
        let open = self.planner.is_working();
        match self.tell_only(Event::Peek { key }) {
            Answer::Peek(Some(peek)) => {
                assert!(on_nvme, "{key:?} is peeked at and not published");
                self.nvme.begin_read(peek.slot, key);
                self.start(Job::Peek(peek, key));
            }
            Answer::Peek(None) => assert!(open || !on_nvme, "{key:?} can't be peeked at and is published"),
            other => panic!("{other:?} to a peek"),
        }
        self.audit();
    }

    /// Mostly one that is there; often one that others read too.
    fn key_to_peek(&mut self) -> BlockKey {
        let reading = self.jobs.iter().filter_map(|(_, job)| match job {
            Job::Peek(_, key) => Some(*key),
            Job::Load(load) => Some(load.key),
            _ => None,
        });
        let reading: Vec<BlockKey> = reading.collect();
        let there: Vec<BlockKey> = self.published.keys().copied().collect();
        match self.chance.below(4) {
            0 if !reading.is_empty() => self.chance.pick(&reading),
            0 | 1 if !there.is_empty() => self.chance.pick(&there),
            _ => self.prompts.any_key(&mut self.chance),
        }
    }

    pub(crate) fn instance_gone(&mut self) {
        let instance = InstanceNo(self.chance.below(INSTANCES) as u32);
        self.leases.retain(|held| held.instance != instance);
        let namespaces = if self.chance.chance(1, 3) { vec![NamespaceId(2)] } else { Vec::new() };
        let lost = |key: &BlockKey| namespaces.iter().any(|gone| self.namespace_of(key) == Some(*gone));
        let lost: Vec<BlockKey> = self.prompts.nodes.iter().map(|node| node.key).filter(lost).collect();
        self.excuse(|key| lost.contains(key));
        self.tell(Event::InstanceGone { instance, namespaces });
        // A number is never an instance's again: no lease of it comes before the last one has ended.
        while self.planner.holdings().leases > self.leases.len() as u64 && self.planner.is_working() {
            self.proceed();
        }
    }

    fn namespace_of(&self, key: &BlockKey) -> Option<NamespaceId> {
        self.planner.inspect(key).map(|known| known.owner.namespace)
    }

    pub(crate) fn tick(&mut self) {
        self.leases.retain(|held| held.ends > self.now);
        self.tell(Event::Tick);
    }
}
