//! Leases: each pins the deepest block of a prefix, which protects its ancestors by leaf-first eviction, and each ends:
//! by release, with its instance, or by its time limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{Answer, Filter, InstanceNo, LeaseError, Leased};
use super::planner::Planner;
use crate::vocab::limits::{LEASE_TTL_MAX, LEASES_PER_INSTANCE_MAX};
use crate::vocab::{BlockKey, LeaseId, NamespaceId, Timestamp};

#[derive(Clone, Copy, Debug)]
struct Lease {
    instance: InstanceNo,
    request: u128,
    /// The block that it pins; a leased block keeps its number.
    deepest: u32,
    blocks: u32,
    ends: Timestamp,
}

/// The leases held.
#[derive(Debug)]
pub(super) struct Leases {
    boot: u32,
    granted: u32,
    by_id: BTreeMap<LeaseId, Lease>,
    by_request: BTreeMap<(InstanceNo, u128), LeaseId>,
    by_end: BTreeSet<(Timestamp, LeaseId)>,
    /// How many each instance holds, of those that hold any.
    held: BTreeMap<InstanceNo, usize>,
}

impl Leases {
    pub(super) fn new(boot: u32) -> Self {
        Self {
            boot,
            granted: 0,
            by_id: BTreeMap::new(),
            by_request: BTreeMap::new(),
            by_end: BTreeSet::new(),
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
        if let Some(before) = self.by_id.insert(id, lease) {
            self.by_end.remove(&(before.ends, id));
        } else {
            *self.held.entry(lease.instance).or_default() += 1;
        }
        self.by_request.insert((lease.instance, lease.request), id);
        self.by_end.insert((lease.ends, id));
    }

    fn take(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.by_request.remove(&(lease.instance, lease.request));
        self.by_end.remove(&(lease.ends, id));
        if let Some(count) = self.held.get_mut(&lease.instance) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&lease.instance);
            }
        }
        Some(lease)
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
        let blocks = self.prefix(keys).hit();
        let known = self.leases.by_request.get(&(instance, request)).copied();
        let deepest = (blocks as usize).checked_sub(1).and_then(|last| self.catalog.find(keys.get(last)?));
        let Some(deepest) = deepest else { return Ok(None) };
        if known.is_none() && self.leases.held.get(&instance).is_some_and(|held| *held >= LEASES_PER_INSTANCE_MAX) {
            return Err(LeaseError::TooMany(LEASES_PER_INSTANCE_MAX));
        }
        self.catalog.active_mut(deepest).leases += 1;
        let id = known.unwrap_or_else(|| self.leases.next_id());
        let before = self.leases.by_id.get(&id).map(|lease| lease.deepest);
        let ends = self.now + ttl.min(LEASE_TTL_MAX);
        self.leases.put(id, Lease { instance, request, deepest, blocks, ends });
        match before {
            Some(before) => self.unpin(before),
            None => self.counters.leases_granted += 1,
        }
        self.touch_chain(deepest);
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
        self.leases.put(id, Lease { ends: self.now + ttl.min(LEASE_TTL_MAX), ..lease });
        Ok(Leased { lease: id, blocks: lease.blocks })
    }

    /// Whether this lease is held, and by this instance.
    ///
    /// # Errors
    /// When it has ended, or is another's.
    pub fn check_lease(&self, instance: InstanceNo, id: LeaseId) -> Result<(), LeaseError> {
        self.leases.owned(instance, id).map(drop)
    }

    pub(super) fn instance_gone(&mut self, instance: InstanceNo, namespaces: &[NamespaceId]) -> Answer {
        let leases: Vec<LeaseId> = self.leases.of_instance(instance).collect();
        for id in leases {
            self.counters.leases_lapsed += 1;
            self.end_lease(id);
        }
        for namespace in namespaces {
            self.purge(&Filter { namespace: Some(*namespace), ..Filter::default() });
        }
        Answer::Done
    }

    pub(super) fn tick(&mut self) -> Answer {
        while let Some((ends, id)) = self.leases.by_end.first().copied() {
            if ends > self.now {
                break;
            }
            self.counters.leases_lapsed += 1;
            self.end_lease(id);
        }
        self.sweep_lost_extents();
        Answer::Done
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
