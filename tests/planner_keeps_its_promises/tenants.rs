//! Accounts with shares and limits that change, prefixes that are promised to stay, blocks with a time to live.

use kvtier::plan::{AccountHoldings, AdmissionKind, Answer, Event, KeepError};
use kvtier::vocab::{AccountId, BlockKey, ByteCount, Lifetime, Owner, Quota, Retention, TierQuota, Timestamp};

use super::world::World;

/// A promise that its holder was told of.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) prefix: Vec<BlockKey>,
    /// `None` for a pin.
    pub(crate) until: Option<Timestamp>,
    /// Bytes of it were purged or lost.
    pub(crate) excused: bool,
}

/// What accounts held before an event, and who caused it.
pub(crate) struct Before {
    held: Vec<AccountHoldings>,
    actor: Option<AccountId>,
    takes_away: bool,
}

impl World {
    pub(crate) fn retention(&mut self) -> Retention {
        let seconds = 1 + self.chance.below(60) as u32;
        let lifetime = Lifetime { seconds, refreshed: self.chance.chance(1, 2) };
        if self.chance.chance(self.temper.tenants, 20) { Retention::Ttl(lifetime) } else { Retention::BestEffort }
    }

    pub(crate) fn manage(&mut self) {
        match self.chance.below(4) {
            0 => self.set_quota(),
            1 | 2 => self.keep(),
            _ => self.unpin(),
        }
    }

    fn set_quota(&mut self) {
        let account = AccountId(self.chance.below(2) as u16);
        let (ram, nvme) = (self.options.ram.total(), self.options.nvme.total());
        let mut tier = |total: ByteCount| {
            let part = |chance: u64| ByteCount(total.0 / 10 * chance);
            let limit = self.chance.chance(1, 3).then(|| part(1 + self.chance.below(9)));
            TierQuota { share: part(self.chance.below(7)), limit }
        };
        let quota = Quota { ram: tier(ram), nvme: tier(nvme) };
        let before = self.planner.accounts();
        let answer = self.tell(Event::SetQuota { account, quota });
        let Answer::QuotaSet(set) = answer else { panic!("{answer:?} to a quota") };
        if set.is_err() {
            assert_eq!(self.planner.accounts(), before, "a quota that is refused changes nothing");
        }
    }

    fn keep(&mut self) {
        let (_, keys) = self.prompts.prompt(&mut self.chance);
        let hit = self.planner.prefix(&keys).hit() as usize;
        let Some(deepest) = hit.checked_sub(1).map(|last| keys[last]) else { return };
        let seconds = 1 + self.chance.below(120) as u32;
        let lifetime = self.chance.chance(4, 5).then_some(Lifetime { seconds, refreshed: self.chance.chance(1, 3) });
        let until = lifetime.map(|lifetime| Timestamp(u64::from(self.now.seconds() + lifetime.seconds) * 1_000));
        match self.tell(Event::Keep { deepest, lifetime }) {
            // Told only when all of it is written.
            Answer::Kept(Ok(kept)) if kept.writing == 0 => {
                self.promised.insert(deepest, kept.promise);
                self.told.push(Told { prefix: self.chain_to(deepest), until, excused: false });
            }
            Answer::Kept(Ok(kept)) if kept.is_new => {
                assert_eq!(self.tell(Event::Unkeep { deepest, pin: false }), Answer::Unkept(true));
            }
            Answer::Kept(Ok(_) | Err(KeepError::RamOnly | KeepError::NotWritten | KeepError::NoShare { .. })) => {}
            other => panic!("{other:?} to {deepest:?}, which is readable"),
        }
    }

    fn chain_to(&self, deepest: BlockKey) -> Vec<BlockKey> {
        let above = |key: &BlockKey| self.planner.inspect(key).and_then(|known| known.parent);
        std::iter::successors(Some(deepest), above).collect()
    }

    fn unpin(&mut self) {
        let key = self.prompts.any_key(&mut self.chance);
        let pinned = self.planner.inspect(&key).and_then(|known| known.promise).is_some_and(|promise| promise.pinned);
        self.told.retain(|told| told.until.is_some() || told.prefix.first() != Some(&key));
        assert_eq!(self.tell(Event::Unkeep { deepest: key, pin: true }), Answer::Unkept(pinned));
    }

    /// What was promised is there.
    pub(crate) fn audit_promises(&self) {
        for told in self.told.iter().filter(|told| !told.excused && told.until.is_none_or(|until| self.now < until)) {
            let there = |key: &BlockKey| self.published.get(key).is_some_and(|place| place.nvme);
            let lost = told.prefix.iter().find(|key| !there(key));
            assert_eq!(lost, None, "promised and not there: {told:?}");
        }
    }

    pub(crate) fn before(&self, event: &Event) -> Before {
        let of = |key: &BlockKey| self.planner.inspect(key).map(|known| known.owner.account);
        let offering = |number: u32| {
            let key = self.writers.iter().flat_map(|writer| writer.wanted.iter().chain(&writer.promised));
            key.into_iter().find(|(block, _)| block.number() == number).and_then(|(_, key)| of(key))
        };
        let filling = |number: u32| {
            let blocks = self.writers.iter().flat_map(|writer| &writer.filling);
            blocks.into_iter().find(|(block, ..)| block.number() == number).and_then(|(_, key, _)| of(key))
        };
        let actor = match event {
            Event::Need { block } => offering(block.number()),
            Event::Filled { block, .. } => filling(block.number()),
            Event::Want { key } => of(key),
            _ => None,
        };
        let takes_away = actor.is_none() || self.options.admission == AdmissionKind::RamEviction;
        Before { held: self.planner.accounts(), actor, takes_away }
    }

    /// Nobody goes above its limit, and nobody is pushed below its share by another.
    pub(crate) fn audit_quotas(&self, before: &Before, event: &str) {
        for now in self.planner.accounts() {
            let was = before.held.iter().find(|was| was.account == now.account);
            let was = was.map_or([0, 0], |was| [was.ram_bytes, was.nvme_bytes]);
            let tiers = [(now.ram_bytes, now.quota.ram), (now.nvme_bytes, now.quota.nvme)];
            for ((held, quota), was) in tiers.into_iter().zip(was) {
                let limit = quota.limit.map_or(u64::MAX, |limit| limit.0);
                // A block that was leaving RAM and is leased meanwhile stays, whatever else came in its place.
                let stays = self.options.admission == AdmissionKind::RamEviction;
                assert!(held <= limit.max(was) || stays, "{event} took {now:?} above its limit");
                let pushed = !before.takes_away && before.actor != Some(now.account) && held < was;
                assert!(
                    !pushed || held >= quota.share.0,
                    "{event} of {:?} pushed {now:?} below its share",
                    before.actor
                );
            }
        }
    }

    /// Owners of a chain: sometimes its head is another account's.
    pub(crate) fn owners(&mut self, owner: Owner) -> kvtier::vocab::OwnerPath {
        let path = kvtier::vocab::OwnerPath::all(Owner { account: AccountId(0), user: 0, ..owner });
        match self.chance.below(4) {
            0 => path.then(1 + self.chance.below(3) as u32, owner),
            _ => kvtier::vocab::OwnerPath::all(owner),
        }
    }
}
