//! Leases: each pins the deepest block of a prefix, which protects its ancestors by leaf-first eviction, and each ends:
//! by release, with its instance, or by its time limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::chores::DROP;
use super::event::{InstanceNo, LeaseError, Leased};
use super::planner::Planner;
use super::policy::Use;
use crate::vocab::limits::{LEASE_TTL_MAX, LEASES_PER_INSTANCE_MAX, PIN_BUDGET_SHARE};
use crate::vocab::{BlockKey, LeaseId, Timestamp};

#[derive(Clone, Copy, Debug)]
struct Lease {
    instance: InstanceNo,
    request: u128,
    /// The block that it pins; a leased block keeps its number.
    deepest: u32,
    blocks: u32,
    ends: Timestamp,
    /// When it was granted or renewed last.
    since: Timestamp,
}

/// What an instance holds.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    leases: usize,
    /// Blocks of all its leases; those of several leases count for each.
    blocks: u64,
}

/// The leases held.
#[derive(Debug)]
pub(super) struct Leases {
    boot: u32,
    granted: u32,
    by_id: BTreeMap<LeaseId, Lease>,
    by_request: BTreeMap<(InstanceNo, u128), LeaseId>,
    by_end: BTreeSet<(Timestamp, LeaseId)>,
    /// Each instance's, in the order in which they were granted or renewed last.
    by_age: BTreeSet<(InstanceNo, Timestamp, LeaseId)>,
    /// What each instance holds, of those that hold any.
    held: BTreeMap<InstanceNo, Holding>,
}

impl Leases {
    pub(super) fn new(boot: u32) -> Self {
        Self {
            boot,
            granted: 0,
            by_id: BTreeMap::new(),
            by_request: BTreeMap::new(),
            by_end: BTreeSet::new(),
            by_age: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.by_id.len() as u64
    }

    /// Blocks pinned, one for each lease.
    pub(super) fn pinned(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_id.values().map(|lease| lease.deepest)
    }

    fn of_instance(&self, instance: InstanceNo) -> impl Iterator<Item = LeaseId> + '_ {
        self.by_request.range((instance, 0)..=(instance, u128::MAX)).map(|(_, id)| *id)
    }

    fn owned(&self, instance: InstanceNo, id: LeaseId) -> Result<Lease, LeaseError> {
        let lease = self.by_id.get(&id).ok_or(LeaseError::Ended(id))?;
        if lease.instance == instance { Ok(*lease) } else { Err(LeaseError::Foreign(id)) }
    }

    fn put(&mut self, id: LeaseId, lease: Lease) {
        self.take(id);
        let Lease { instance, request, blocks, ends, since, .. } = lease;
        let held = self.held.entry(instance).or_default();
        (held.leases, held.blocks) = (held.leases + 1, held.blocks + u64::from(blocks));
        self.by_id.insert(id, lease);
        self.by_request.insert((instance, request), id);
        self.by_end.insert((ends, id));
        self.by_age.insert((instance, since, id));
    }

    fn take(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        let Lease { instance, request, blocks, ends, since, .. } = lease;
        self.by_request.remove(&(instance, request));
        self.by_end.remove(&(ends, id));
        self.by_age.remove(&(instance, since, id));
        if let Some(held) = self.held.get_mut(&instance) {
            (held.leases, held.blocks) = (held.leases - 1, held.blocks - u64::from(blocks));
            if held.leases == 0 {
                self.held.remove(&instance);
            }
        }
        Some(lease)
    }

    /// The oldest lease of the instance that holds most, if that is more than `budget` blocks and the lease was not heard of
    /// since `before`.
    fn over_budget(&self, budget: u64, before: Timestamp) -> Option<LeaseId> {
        let (instance, held) = self.held.iter().max_by_key(|(_, held)| held.blocks)?;
        let oldest = (*instance, Timestamp(0), LeaseId(0));
        let (of, since, id) = self.by_age.range(oldest..).next()?;
        (held.blocks > budget && of == instance && *since <= before).then_some(*id)
    }

    fn next_id(&mut self) -> LeaseId {
        self.granted = self.granted.wrapping_add(1);
        LeaseId((u64::from(self.boot) << 32) | u64::from(self.granted))
    }
}

impl Planner {
    pub(super) fn lease(
        &mut self,
        instance: InstanceNo,
        request: u128,
        keys: &[BlockKey],
        ttl: Duration,
    ) -> Result<Option<Leased>, LeaseError> {
        let blocks = self.hit(keys);
        let known = self.leases.by_request.get(&(instance, request)).copied();
        let deepest = (blocks as usize).checked_sub(1).and_then(|last| self.catalog.find(keys.get(last)?));
        let Some(deepest) = deepest else { return Ok(None) };
        if known.is_none() && self.leases.held.get(&instance).is_some_and(|held| held.leases >= LEASES_PER_INSTANCE_MAX)
        {
            return Err(LeaseError::TooMany(LEASES_PER_INSTANCE_MAX));
        }
        self.catalog.active_mut(deepest).leases += 1;
        let id = known.unwrap_or_else(|| self.leases.next_id());
        let before = self.leases.by_id.get(&id).map(|lease| lease.deepest);
        let ends = self.now + ttl.min(LEASE_TTL_MAX);
        self.leases.put(id, Lease { instance, request, deepest, blocks, ends, since: self.now });
        match before {
            Some(before) => self.unpin(before),
            None => self.counters.leases_granted += 1,
        }
        // After the answer: a long chain takes hundreds of microseconds.
        self.touch_later(deepest, Use::Read, None);
        self.admit_at_second_use(deepest);
        Ok(Some(Leased { lease: id, blocks }))
    }

    pub(super) fn release(&mut self, instance: InstanceNo, id: LeaseId) -> Result<bool, LeaseError> {
        match self.leases.owned(instance, id) {
            Ok(_) => {}
            Err(LeaseError::Ended(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        self.end_lease(id);
        Ok(true)
    }

    pub(super) fn request_over(&mut self, instance: InstanceNo, request: u128) -> bool {
        let held = self.leases.by_request.get(&(instance, request)).copied();
        held.into_iter().for_each(|id| self.end_lease(id));
        held.is_some()
    }

    pub(super) fn renew(&mut self, instance: InstanceNo, id: LeaseId, ttl: Duration) -> Result<Leased, LeaseError> {
        let lease = self.leases.owned(instance, id)?;
        self.leases.put(id, Lease { ends: self.now + ttl.min(LEASE_TTL_MAX), since: self.now, ..lease });
        Ok(Leased { lease: id, blocks: lease.blocks })
    }

    /// Whether this lease is held, and by this instance.
    ///
    /// # Errors
    /// When it has ended, or is another's.
    pub fn check_lease(&self, instance: InstanceNo, id: LeaseId) -> Result<(), LeaseError> {
        self.leases.owned(instance, id).map(drop)
    }

    /// Ends leases of an instance, as far as this event may. Whether none is left.
    pub(super) fn end_leases_of(&mut self, instance: InstanceNo) -> bool {
        loop {
            let first = self.leases.of_instance(instance).next();
            let Some(id) = first else { return true };
            if !self.chores.has_steps() {
                return false;
            }
            self.chores.spend(DROP);
            self.counters.leases_lapsed += 1;
            self.end_lease(id);
        }
    }

    /// Ends leases whose time is over, as far as this event may.
    pub(super) fn end_leases_due(&mut self) {
        while self.chores.has_steps() {
            let due = self.leases.by_end.first().filter(|(ends, _)| *ends <= self.chores.tick.at);
            let Some((_, id)) = due.copied() else { return };
            self.chores.spend(DROP);
            self.counters.leases_lapsed += 1;
            self.end_lease(id);
        }
    }

    /// RAM has no room because everything in it is leased: an instance that leaks leases loses its oldest ones, so that its
    /// pin budget ends its own luck and nobody else's. Whether one ended.
    pub(super) fn end_leaked_lease(&mut self, class: u8) -> bool {
        let slots = self.ram.space.shape().total().0 / u64::from(self.ram.class(class).bytes());
        let silent =
            Timestamp(self.now.0.saturating_sub(u64::try_from(self.pin_grace.as_millis()).unwrap_or(u64::MAX)));
        let Some(id) = self.leases.over_budget(slots / PIN_BUDGET_SHARE, silent) else { return false };
        self.counters.leases_revoked += 1;
        self.end_lease(id);
        true
    }

    fn end_lease(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.take(id) {
            self.unpin(lease.deepest);
        }
    }

    fn unpin(&mut self, number: u32) {
        self.catalog.active_mut(number).leases -= 1;
        self.prune(number);
    }
}
