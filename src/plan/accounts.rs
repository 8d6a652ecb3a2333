//! What each account holds in each tier and may hold there, and whose blocks go when room is needed.
//!
//! Accounts without a quota share one order of going, and have no share that would protect them: among them it is the
//! policy's word alone. An account with a quota has a *lane*, an order of its own, so that a search for a victim never walks
//! past what it may not take.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::counters::{AccountHoldings, StoredBlocks};
use crate::vocab::limits::{QUOTAS_MAX, SHARES_OF_HUNDRED};
use crate::vocab::{AccountId, ByteCount, NamespaceId, Owner, Quota, QuotaError, Tier};

/// The order of going of all accounts without a quota.
pub(super) const COMMON: u16 = 0;

/// What one account holds and may hold.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Bytes of slots that it has or was promised, by tier.
    held: [u64; 2],
    /// Bytes of NVMe slots of its blocks that may not be evicted for a time.
    kept: u64,
    quota: Quota,
    lane: u16,
}

/// Blocks of one account in one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stored {
    /// That some tier has.
    blocks: u64,
    /// That are kept for a guaranteed lifetime or a pin.
    kept: u64,
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// By number; those that hold nothing may be missing.
    accounts: Vec<Account>,
    /// Whose lane each is, from lane 1 on. A lane stays its account's when the quota is taken away: with neither share nor
    /// limit it changes nothing.
    lanes: Vec<AccountId>,
    /// Blocks that some tier has, by account and namespace: what storage is metered by.
    stored: BTreeMap<(AccountId, NamespaceId), Stored>,
    /// Bytes that all accounts hold.
    all: [u64; 2],
    /// Bytes of each tier.
    capacity: [u64; 2],
}

const fn at(tier: Tier) -> usize {
    match tier {
        Tier::Ram => 0,
        Tier::Nvme => 1,
    }
}

impl Accounts {
    pub(super) fn new(ram: ByteCount, nvme: ByteCount) -> Self {
        Self { capacity: [ram.0, nvme.0], ..Self::default() }
    }

    fn get(&self, account: AccountId) -> Account {
        self.accounts.get(usize::from(account.0)).copied().unwrap_or_default()
    }

    fn get_mut(&mut self, account: AccountId) -> &mut Account {
        let number = usize::from(account.0);
        if self.accounts.len() <= number {
            self.accounts.resize(number + 1, Account::default());
        }
        &mut self.accounts[number]
    }

    /// The account has a slot more, or was promised one.
    pub(super) fn charge(&mut self, account: AccountId, tier: Tier, bytes: u64) {
        self.get_mut(account).held[at(tier)] += bytes;
        self.all[at(tier)] += bytes;
    }

    /// It has one less.
    pub(super) fn discharge(&mut self, account: AccountId, tier: Tier, bytes: u64) {
        self.get_mut(account).held[at(tier)] -= bytes;
        self.all[at(tier)] -= bytes;
    }

    /// The order of going that an account's blocks are in.
    pub(super) fn lane(&self, account: AccountId) -> u16 {
        if self.lanes.is_empty() { COMMON } else { self.get(account).lane }
    }

    /// Whether no account ever had a quota: then nothing is protected or limited.
    pub(super) fn are_equal(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Every lane but the common one, with its account.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (u16, AccountId)> + '_ {
        (1..).zip(self.lanes.iter().copied())
    }

    /// Every lane but the common one, with its account and by how many bytes that is above its share.
    pub(super) fn surpluses(&self, tier: Tier) -> impl Iterator<Item = (u16, AccountId, u64)> + '_ {
        self.lanes().map(move |(lane, account)| {
            let known = self.get(account);
            (lane, account, known.held[at(tier)].saturating_sub(known.quota.of(tier).share.0))
        })
    }

    /// Bytes that all accounts without a lane hold.
    pub(super) fn common(&self, tier: Tier) -> u64 {
        self.all[at(tier)] - self.lanes.iter().map(|account| self.get(*account).held[at(tier)]).sum::<u64>()
    }

    /// Whether the account holds more than `bytes` above its share, so that others may take a slot of so many from it.
    pub(super) fn may_give(&self, account: AccountId, tier: Tier, bytes: u64) -> bool {
        let known = self.get(account);
        known.held[at(tier)] >= known.quota.of(tier).share.0.saturating_add(bytes)
    }

    /// By how much the account would be above its limit with `bytes` more.
    pub(super) fn excess(&self, account: AccountId, tier: Tier, bytes: u64) -> u64 {
        if self.lanes.is_empty() {
            return 0;
        }
        let known = self.get(account);
        let limit = known.quota.of(tier).limit.map_or(u64::MAX, |limit| limit.0);
        (known.held[at(tier)] + bytes).saturating_sub(limit)
    }

    /// What is still to be promised of the account's share of NVMe.
    pub(super) fn left_to_keep(&self, account: AccountId) -> u64 {
        let known = self.get(account);
        known.quota.nvme.share.0.saturating_sub(known.kept)
    }

    /// A block of an account may not be evicted for a time, or may again.
    pub(super) fn keep(&mut self, owner: Owner, bytes: u64) {
        self.get_mut(owner.account).kept += bytes;
        self.stored.entry((owner.account, owner.namespace)).or_default().kept += 1;
    }

    pub(super) fn keep_no_more(&mut self, owner: Owner, bytes: u64) {
        self.get_mut(owner.account).kept -= bytes;
        self.change_stored(owner, |stored| stored.kept -= 1);
    }

    /// Some tier has a block of an account that none had, or none has it any more.
    pub(super) fn store(&mut self, owner: Owner) {
        self.stored.entry((owner.account, owner.namespace)).or_default().blocks += 1;
    }

    pub(super) fn store_no_more(&mut self, owner: Owner) {
        self.change_stored(owner, |stored| stored.blocks -= 1);
    }

    fn change_stored(&mut self, owner: Owner, change: impl FnOnce(&mut Stored)) {
        let key = (owner.account, owner.namespace);
        let stored = self.stored.entry(key).or_default();
        change(stored);
        if *stored == Stored::default() {
            self.stored.remove(&key);
        }
    }

    /// Blocks that are stored, by account and namespace.
    pub(super) fn stored(&self) -> Vec<StoredBlocks> {
        self.stored_after(None, usize::MAX)
    }

    /// As [`stored`](Self::stored), at most so many, from the first one after a known one on.
    pub(super) fn stored_after(&self, after: Option<(AccountId, NamespaceId)>, most: usize) -> Vec<StoredBlocks> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known = self.stored.range((from, Bound::Unbounded)).take(most);
        known
            .map(|((account, namespace), stored)| StoredBlocks {
                account: *account,
                namespace: *namespace,
                blocks: stored.blocks,
                kept: stored.kept,
            })
            .collect()
    }

    /// Gives an account a quota, or takes it away. Whether it has a lane now that it had not.
    pub(super) fn set(&mut self, account: AccountId, quota: Quota) -> Result<bool, QuotaError> {
        for tier in [Tier::Ram, Tier::Nvme] {
            self.check(account, tier, quota)?;
        }
        let is_new = self.get(account).lane == COMMON && !quota.is_none();
        if is_new {
            if self.lanes.len() >= QUOTAS_MAX {
                return Err(QuotaError::TooMany(QUOTAS_MAX));
            }
            self.lanes.push(account);
            self.get_mut(account).lane = u16::try_from(self.lanes.len()).unwrap_or(COMMON);
        }
        self.get_mut(account).quota = quota;
        Ok(is_new)
    }

    fn check(&self, account: AccountId, tier: Tier, quota: Quota) -> Result<(), QuotaError> {
        let share = quota.of(tier).share;
        if let Some(limit) = quota.of(tier).limit.filter(|limit| share > *limit) {
            return Err(QuotaError::ShareAboveLimit { tier, share, limit });
        }
        let all: u64 = self.lanes.iter().map(|of| self.get(*of).quota.of(tier).share.0).sum();
        let others = all - self.get(account).quota.of(tier).share.0;
        let capacity = self.capacity[at(tier)];
        let most = u64::try_from(u128::from(capacity) * u128::from(SHARES_OF_HUNDRED) / 100).unwrap_or(u64::MAX);
        let left = most.saturating_sub(others);
        // What was guaranteed to others before a tier became smaller stays theirs; nothing can be added to it.
        if share.0 > left && share > self.get(account).quota.of(tier).share {
            let [others, left, capacity] = [others, left, capacity].map(ByteCount);
            return Err(QuotaError::Overcommitted { tier, share, others, left, capacity });
        }
        let kept = ByteCount(self.get(account).kept);
        if tier == Tier::Nvme && share < kept {
            return Err(QuotaError::Promised { share, kept });
        }
        Ok(())
    }

    /// Every account that holds something or has a quota.
    pub(super) fn holdings(&self) -> Vec<AccountHoldings> {
        self.holdings_among(AccountId(0), usize::MAX)
    }

    /// The same among so many accounts from one on.
    pub(super) fn holdings_among(&self, first: AccountId, accounts: usize) -> Vec<AccountHoldings> {
        let numbers = (0..=u16::MAX).map(AccountId).zip(&self.accounts);
        let known = numbers.skip(first.0.into()).take(accounts);
        known
            .filter(|(_, known)| known.held != [0; 2] || !known.quota.is_none())
            .map(|(account, known)| AccountHoldings {
                account,
                ram_bytes: known.held[0],
                nvme_bytes: known.held[1],
                kept_bytes: known.kept,
                quota: known.quota,
            })
            .collect()
    }

    /// Numbers of accounts that were seen so far.
    pub(super) fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.accounts.capacity() * size_of::<Account>() + self.lanes.capacity() * size_of::<AccountId>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::TierQuota;

    fn nvme(share: u64, limit: Option<u64>) -> Quota {
        let nvme = TierQuota { share: ByteCount(share), limit: limit.map(ByteCount) };
        Quota { nvme, ..Quota::default() }
    }

    #[test]
    fn shares_add_up_to_four_fifths_at_most_and_stay_below_limits() {
        let mut accounts = Accounts::new(ByteCount(0), ByteCount(1_000));
        assert_eq!(accounts.set(AccountId(1), nvme(500, Some(600))), Ok(true));
        let error = accounts.set(AccountId(2), nvme(301, None)).unwrap_err().to_string();
        assert!(
            error.starts_with("nvme.share is 301 bytes, at most 300 bytes can be guaranteed: others have 500"),
            "{error}"
        );
        assert_eq!(accounts.set(AccountId(2), nvme(300, None)), Ok(true));
        let error = accounts.set(AccountId(1), nvme(7, Some(6))).unwrap_err().to_string();
        assert_eq!(error, "nvme.share is 7 bytes, it must be at most nvme.limit (6 bytes)");
        // Its own share counts once when it changes, and a refusal has changed nothing.
        assert!(accounts.set(AccountId(1), nvme(501, None)).is_err());
        assert_eq!(accounts.set(AccountId(1), nvme(100, None)), Ok(false));
        assert_eq!(accounts.set(AccountId(2), nvme(700, None)), Ok(false));
    }

    #[test]
    fn a_share_covers_what_is_promised() {
        let mut accounts = Accounts::new(ByteCount(0), ByteCount(1_000));
        accounts.set(AccountId(1), nvme(500, None)).unwrap();
        accounts.keep(Owner { account: AccountId(1), ..Owner::default() }, 200);
        assert_eq!(accounts.left_to_keep(AccountId(1)), 300);
        let error = accounts.set(AccountId(1), nvme(199, None)).unwrap_err().to_string();
        assert!(error.starts_with("nvme.share is 199 bytes, it must be at least 200 bytes"), "{error}");
        assert_eq!(accounts.set(AccountId(1), nvme(200, None)), Ok(false));
    }

    #[test]
    fn only_what_is_above_a_share_can_be_taken_and_nothing_goes_above_a_limit() {
        let mut accounts = Accounts::new(ByteCount(1_000), ByteCount(1_000));
        accounts.charge(AccountId(1), Tier::Nvme, 150);
        assert_eq!(
            (accounts.may_give(AccountId(1), Tier::Nvme, 100), accounts.excess(AccountId(1), Tier::Nvme, 1)),
            (true, 0)
        );
        accounts.set(AccountId(1), nvme(100, Some(200))).unwrap();
        assert!(accounts.may_give(AccountId(1), Tier::Nvme, 50));
        assert!(!accounts.may_give(AccountId(1), Tier::Nvme, 51));
        assert_eq!(
            (accounts.excess(AccountId(1), Tier::Nvme, 50), accounts.excess(AccountId(1), Tier::Nvme, 51)),
            (0, 1)
        );
    }
}
