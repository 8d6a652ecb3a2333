//! Shares and limits: what no neighbour can take, and what nobody exceeds.

use std::time::Duration;

use kvtier::plan::{Answer, Event};
use kvtier::vocab::limits::EXPIRED_A_TICK;
use kvtier::vocab::{AccountId, ByteCount, Quota, QuotaError, TierQuota};

use super::cache::{Cache, SLOT};

/// So many slots of each tier as share and limit.
pub(crate) fn quota(ram: (u64, Option<u64>), nvme: (u64, Option<u64>)) -> Quota {
    let tier = |(share, limit): (u64, Option<u64>)| TierQuota {
        share: ByteCount(share * u64::from(SLOT)),
        limit: limit.map(|slots| ByteCount(slots * u64::from(SLOT))),
    };
    Quota { ram: tier(ram), nvme: tier(nvme) }
}

pub(crate) fn set(cache: &mut Cache, account: u16, quota: Quota) -> Result<(), QuotaError> {
    match cache.tell(Event::SetQuota { account: AccountId(account), quota }) {
        Answer::QuotaSet(set) => set,
        answer => panic!("{answer:?}"),
    }
}

/// Slots that an account holds in RAM and on NVMe.
fn held(cache: &Cache, account: u16) -> (u64, u64) {
    let known = cache.planner.accounts().into_iter().find(|known| known.account == AccountId(account));
    known.map_or((0, 0), |known| (known.ram_bytes / u64::from(SLOT), known.nvme_bytes / u64::from(SLOT)))
}

#[test]
fn a_share_is_safe_from_a_flood_and_what_is_above_it_is_not() {
    let mut cache = Cache::new(10, 20);
    set(&mut cache, 1, quota((2, None), (4, None))).unwrap();
    cache.be(1);
    (0..6).for_each(|number| assert_eq!(cache.put([number]), 1));
    cache.be(2);
    cache.now = cache.now + Duration::from_secs(1);
    (100..200).for_each(|number| assert_eq!(cache.put([number]), 1));
    assert_eq!(held(&cache, 1), (2, 4), "the coldest two are gone from NVMe, and all but two from RAM");
    assert_eq!((0..6).map(|number| cache.hit([number])).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 1]);
    assert_eq!(held(&cache, 2), (8, 16), "the flood has all the rest");
}

#[test]
fn an_account_at_its_limit_makes_room_from_its_own() {
    let mut cache = Cache::new(20, 20);
    set(&mut cache, 1, quota((0, Some(3)), (0, Some(5)))).unwrap();
    cache.be(2);
    (100..104).for_each(|number| assert_eq!(cache.put([number]), 1));
    cache.be(1);
    for number in 0..50 {
        assert_eq!(cache.put([number]), 1);
        let (ram, nvme) = held(&cache, 1);
        assert!(ram <= 3 && nvme <= 5, "{ram} and {nvme} slots");
    }
    assert_eq!(held(&cache, 1), (3, 5));
    assert_eq!(held(&cache, 2), (4, 4), "though the neighbour's are colder");
    assert_eq!((cache.hit([44]), cache.hit([45])), (0, 1), "the newest are there");
}

#[test]
fn at_its_limit_with_all_of_it_leased_an_account_is_refused_and_nobody_else() {
    let mut cache = Cache::new(20, 0);
    set(&mut cache, 1, quota((0, Some(3)), (0, None))).unwrap();
    cache.be(1);
    cache.put(0..3);
    let lease = cache.lease(0..3);
    assert_eq!(cache.put([10]), 0);
    assert_eq!(cache.planner.counters().over_limit, 1);
    cache.be(2);
    assert_eq!(cache.put([20]), 1);
    cache.be(1);
    cache.release(lease);
    assert_eq!(cache.put([10]), 1);
}

#[test]
fn a_chain_longer_than_the_limit_is_stored_as_far_as_it_goes() {
    let mut cache = Cache::new(20, 20);
    set(&mut cache, 1, quota((0, Some(8)), (0, Some(4)))).unwrap();
    cache.be(1);
    assert_eq!(cache.put(0..6), 6);
    assert_eq!(held(&cache, 1), (6, 4));
    assert_eq!(cache.places(3), (true, true));
    assert_eq!(cache.places(4), (true, false));
}

#[test]
fn a_lowered_limit_is_reached_in_steps_and_a_lifted_one_is_used() {
    let mut cache = Cache::new(20, 20);
    cache.be(1);
    (0..12).for_each(|number| assert_eq!(cache.put([number]), 1));
    set(&mut cache, 1, quota((0, Some(6)), (0, Some(7)))).unwrap();
    // One step is enough here.
    const { assert!(12 <= EXPIRED_A_TICK) };
    assert_eq!(held(&cache, 1), (6, 7), "the coldest have gone");
    assert_eq!((cache.hit([4]), cache.hit([5])), (0, 1));
    set(&mut cache, 1, Quota::default()).unwrap();
    (20..30).for_each(|number| assert_eq!(cache.put([number]), 1));
    assert_eq!(held(&cache, 1), (16, 17));
}

#[test]
fn what_was_there_before_the_quota_is_within_it() {
    let mut cache = Cache::new(10, 10);
    cache.be(1);
    (0..4).for_each(|number| assert_eq!(cache.put([number]), 1));
    set(&mut cache, 1, quota((4, None), (4, None))).unwrap();
    cache.be(2);
    (100..130).for_each(|number| assert_eq!(cache.put([number]), 1));
    assert_eq!((0..4).map(|number| cache.hit([number])).sum::<u32>(), 4);
}

#[test]
fn an_extent_within_a_share_stays_where_it_is() {
    // All of the tier is one class's; another class finds nothing that it may take.
    let mut cache = Cache::new(16, 0);
    set(&mut cache, 1, quota((12, None), (0, None))).unwrap();
    cache.be(1);
    (0..16).for_each(|number| assert_eq!(cache.put([number]), 1));
    cache.be(2);
    cache.payload = 2 * SLOT;
    assert_eq!(cache.put([100]), 1, "one extent of four is above the share");
    let stored = (101..110).map(|number| cache.put([number])).sum::<u32>();
    assert!(stored > 0, "in its own class it goes on");
    assert_eq!(held(&cache, 1).0, 12);
}

#[test]
fn what_is_within_a_share_of_ram_is_not_taken_from_nvme_since_it_would_leave_ram_too() {
    let mut cache = Cache::new(8, 8);
    set(&mut cache, 1, quota((4, None), (0, None))).unwrap();
    cache.be(1);
    (0..6).for_each(|number| assert_eq!(cache.put([number]), 1));
    cache.be(2);
    cache.now = cache.now + Duration::from_secs(1);
    (100..150).for_each(|number| assert_eq!(cache.put([number]), 1));
    assert_eq!(held(&cache, 1), (4, 4));
    assert_eq!((0..6).map(|number| cache.hit([number])).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 1]);
}
