//! Guaranteed lifetimes, pins, and times to live.

use std::time::Duration;

use kvtier::plan::{Answer, Event, Filter, KeepError, Kept, Removed, Transfer};
use kvtier::vocab::{AccountId, Lifetime, Owner, OwnerPath, Retention};

use super::cache::{Cache, all_is_done, key, writes_fail, writes_wait};
use super::quotas::{quota, set};

const HOUR: Option<Lifetime> = Some(Lifetime { seconds: 3_600, refreshed: false });

fn keep(cache: &mut Cache, deepest: u8, lifetime: Option<Lifetime>) -> Result<Kept, KeepError> {
    match cache.tell(Event::Keep { deepest: key(deepest), lifetime }) {
        Answer::Kept(kept) => kept,
        answer => panic!("{answer:?}"),
    }
}

fn unkeep(cache: &mut Cache, deepest: u8, pin: bool) -> bool {
    cache.tell(Event::Unkeep { deepest: key(deepest), pin }) == Answer::Unkept(true)
}

fn later(cache: &mut Cache, seconds: u64) {
    cache.now = cache.now + Duration::from_secs(seconds);
    cache.tell(Event::Tick);
}

fn kept_slots(cache: &Cache) -> u64 {
    cache.planner.accounts().iter().map(|known| known.kept_bytes / 4_096).sum()
}

/// An account with so much of NVMe guaranteed.
fn with_share(slots: u64) -> Cache {
    let mut cache = Cache::new(10, 20);
    set(&mut cache, 1, quota((0, None), (slots, None))).unwrap();
    cache.be(1);
    cache
}

fn flood(cache: &mut Cache) {
    for number in 100..200 {
        cache.put([number]);
    }
}

#[test]
fn what_is_guaranteed_stays_in_a_flood_of_its_own_account_until_its_time_is_over() {
    let mut cache = with_share(5);
    cache.put(0..3);
    let kept = keep(&mut cache, 2, HOUR).unwrap();
    assert_eq!((kept.promise.until_s, kept.writing, kept_slots(&cache)), (3_601, 0, 3));
    flood(&mut cache);
    assert_eq!((cache.hit(0..3), cache.planner.holdings().promises), (3, 1));
    later(&mut cache, 3_600);
    assert_eq!((kept_slots(&cache), cache.planner.holdings().promises), (0, 0));
    flood(&mut cache);
    assert_eq!(cache.hit(0..3), 0);
}

#[test]
fn ancestors_are_kept_and_charged_once_for_the_longest_of_their_descendants() {
    let mut cache = with_share(8);
    cache.put(0..3);
    cache.put([0, 1, 10, 11]);
    keep(&mut cache, 2, Some(Lifetime { seconds: 60, refreshed: false })).unwrap();
    keep(&mut cache, 11, HOUR).unwrap();
    assert_eq!(kept_slots(&cache), 5, "0, 1, 2, 10, 11");
    later(&mut cache, 60);
    assert_eq!(kept_slots(&cache), 4);
    flood(&mut cache);
    assert_eq!((cache.hit(0..3), cache.hit([0, 1, 10, 11])), (2, 4));
}

#[test]
fn a_guarantee_draws_on_the_guaranteed_share_and_is_refused_whole_past_it() {
    let mut cache = with_share(3);
    cache.put(0..2);
    cache.put(10..12);
    keep(&mut cache, 1, HOUR).unwrap();
    let error = keep(&mut cache, 11, HOUR).unwrap_err();
    assert_eq!(
        error.to_string(),
        "8192 bytes are to be guaranteed, and 4096 bytes of the account's NVMe share are not yet promised"
    );
    assert_eq!(kept_slots(&cache), 2, "nothing of it is kept");
    assert!(keep(&mut cache, 10, HOUR).is_ok());
    assert!(matches!(keep(&mut cache, 99, HOUR), Err(KeepError::Gone)));
    // Without a quota there is no share to draw on.
    cache.be(7);
    cache.put([50]);
    assert!(matches!(keep(&mut cache, 50, HOUR), Err(KeepError::NoShare { account: AccountId(7), .. })));
}

#[test]
fn blocks_before_the_tenants_own_draw_on_the_share_of_their_own_account() {
    let mut cache = with_share(4);
    let own = |account| Owner { account: AccountId(account), ..Owner::default() };
    cache.owners = OwnerPath::all(own(9)).then(2, own(1));
    cache.put(0..4);
    assert!(matches!(keep(&mut cache, 3, HOUR), Err(KeepError::NoShare { account: AccountId(9), .. })));
    set(&mut cache, 9, quota((0, None), (2, None))).unwrap();
    keep(&mut cache, 3, HOUR).unwrap();
    let kept: Vec<u64> = cache.planner.accounts().iter().map(|known| known.kept_bytes / 4_096).collect();
    assert_eq!(kept, [2, 2]);
}

#[test]
fn a_guarantee_of_what_is_being_written_says_so_and_ends_when_the_write_fails() {
    let mut cache = with_share(5);
    cache.end = writes_wait;
    cache.put(0..3);
    assert_eq!(keep(&mut cache, 2, HOUR).unwrap().writing, 3);
    cache.finish(all_is_done);
    assert_eq!((kept_slots(&cache), keep(&mut cache, 2, HOUR).unwrap().writing), (3, 0));
    cache.end = writes_wait;
    cache.put(10..12);
    keep(&mut cache, 11, HOUR).unwrap();
    cache.finish(writes_fail);
    assert_eq!((kept_slots(&cache), cache.planner.holdings().promises), (3, 1));
    // What could not be written at first is written for the sake of the promise.
    cache.end = all_is_done;
    assert_eq!(keep(&mut cache, 11, HOUR).map(|kept| kept.writing), Ok(2));
    assert_eq!((kept_slots(&cache), cache.places(11)), (5, (true, true)));
}

#[test]
fn what_may_only_be_in_ram_is_guaranteed_nothing() {
    let mut cache = with_share(5);
    let owner = Owner { account: AccountId(1), ram_only: true, ..Owner::default() };
    cache.owners = OwnerPath::all(owner);
    cache.put(0..2);
    assert_eq!(keep(&mut cache, 1, HOUR), Err(KeepError::RamOnly));
    // Another request of the account may take it further.
    cache.be(1);
    cache.put(0..2);
    assert!(keep(&mut cache, 1, HOUR).is_ok());
}

#[test]
fn a_use_begins_the_time_anew_where_the_class_says_so() {
    for (refreshed, left) in [(true, 1), (false, 0)] {
        let mut cache = with_share(5);
        cache.put([0]);
        keep(&mut cache, 0, Some(Lifetime { seconds: 100, refreshed })).unwrap();
        later(&mut cache, 60);
        let lease = cache.lease([0]);
        cache.release(lease);
        later(&mut cache, 60);
        assert_eq!(cache.planner.holdings().promises, left);
        later(&mut cache, 60);
        assert_eq!(cache.planner.holdings().promises, 0);
    }
}

#[test]
fn a_pin_stays_until_it_is_taken_away_and_a_guarantee_beside_it_goes_on() {
    let mut cache = with_share(5);
    cache.put(0..2);
    keep(&mut cache, 1, None).unwrap();
    later(&mut cache, 400 * 86_400);
    flood(&mut cache);
    assert_eq!((cache.hit(0..2), kept_slots(&cache)), (2, 2));
    keep(&mut cache, 1, HOUR).unwrap();
    assert!(unkeep(&mut cache, 1, true));
    assert!(!unkeep(&mut cache, 1, true), "it is pinned no more");
    assert_eq!(kept_slots(&cache), 2);
    later(&mut cache, 3_600);
    assert_eq!(kept_slots(&cache), 0);
}

#[test]
fn an_admin_evicts_nothing_that_is_kept_and_purges_it_all_the_same() {
    let mut cache = with_share(5);
    cache.put(0..3);
    keep(&mut cache, 1, HOUR).unwrap();
    let Answer::Removed(Removed { blocks, kept, .. }) = cache.tell(Event::Evict { key: key(0) }) else { panic!() };
    assert_eq!((blocks, kept), (1, 2));
    cache.tell(Event::Purge(Filter { account: Some(AccountId(1)), ..Filter::default() }));
    assert_eq!((cache.hit(0..3), kept_slots(&cache), cache.planner.holdings().promises), (0, 0, 0));
}

#[test]
fn a_promise_ends_with_bytes_that_went_bad_and_so_do_those_that_hang_on_them() {
    let mut cache = with_share(8);
    cache.put(0..4);
    keep(&mut cache, 3, HOUR).unwrap();
    let Answer::Peek(Some(peek)) = cache.tell(Event::Peek { key: key(1) }) else { panic!() };
    cache.tell(Event::Peeked { block: peek.block, outcome: Transfer::Failed });
    assert_eq!((kept_slots(&cache), cache.planner.holdings().promises), (0, 0));
}

#[test]
fn a_time_to_live_is_over_when_it_is_though_there_is_room() {
    let mut cache = Cache::new(10, 10);
    cache.retention = Retention::parse("ttl:1m").unwrap();
    cache.put(0..3);
    assert_eq!(cache.planner.inspect(&key(2)).unwrap().expires_s, 61);
    later(&mut cache, 59);
    assert_eq!(cache.hit(0..3), 3);
    later(&mut cache, 1);
    assert_eq!((cache.hit(0..3), cache.planner.holdings().expiring, cache.planner.counters().expired), (0, 0, 3));
    assert_eq!(cache.planner.holdings().nvme_used_bytes, 0);
}

#[test]
fn a_shared_prefix_lives_as_long_as_the_longest_request_through_it() {
    let mut cache = Cache::new(20, 20);
    cache.put(0..2);
    cache.retention = Retention::parse("ttl:1m").unwrap();
    cache.put(0..4);
    cache.put(10..14);
    later(&mut cache, 30);
    cache.put(10..12);
    later(&mut cache, 30);
    assert_eq!((cache.hit(0..4), cache.hit(10..14)), (2, 2), "what had no limit stays, what was put again too");
    cache.retention = Retention::BestEffort;
    cache.put([10]);
    later(&mut cache, 3_600);
    assert_eq!((cache.hit(0..2), cache.hit(10..12)), (2, 1));
}

#[test]
fn what_is_leased_outlives_its_time_by_as_long_as_it_is_leased() {
    let mut cache = Cache::new(10, 10);
    cache.retention = Retention::parse("ttl:10s").unwrap();
    cache.put(0..2);
    let lease = cache.lease(0..2);
    later(&mut cache, 20);
    assert_eq!(cache.hit(0..2), 2);
    cache.release(lease);
    later(&mut cache, 2);
    assert_eq!(cache.hit(0..2), 0);
}
