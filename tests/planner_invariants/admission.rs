//! What is written to NVMe and when, who gets whose room, and what a lost drive takes with it: each rule in the smallest
//! cache that shows it.

use std::time::Duration;

use kvtier::plan::{AdmissionKind, Answer, Command, Event, Options};
use kvtier::vocab::TierShape;

use super::cache::{Cache, SLOT, all_is_done, chain, key, writes_fail, writes_wait};

const BYTES: u64 = SLOT as u64;

fn cache(admission: AdmissionKind, ram_slots: u64, nvme_slots: u64) -> Cache {
    let tier = |slots| TierShape::with_extent(slots * BYTES, 4 * BYTES);
    Cache::of(Options { admission, ..Options::new(tier(ram_slots), tier(nvme_slots)) })
}

fn flush(cache: &mut Cache) -> (u64, u64) {
    match cache.tell(Event::Flush) {
        Answer::Flushing { begun, left } => (begun, left),
        other => panic!("{other:?}"),
    }
}

fn sleep(cache: &mut Cache, seconds: u64) {
    cache.now = cache.now + Duration::from_secs(seconds);
}

#[test]
fn on_second_use_what_is_used_once_is_never_written_and_a_shared_head_is() {
    let mut cache = cache(AdmissionKind::SecondUse, 8, 8);
    cache.put(0..4);
    assert_eq!((cache.places(0), cache.planner.counters().nvme_write_deferred), ((true, false), 4));
    cache.put([0, 1, 10]);
    assert_eq!([0, 1, 2, 10].map(|number| cache.places(number).1), [true, true, false, false]);
    let lease = cache.lease(0..4);
    assert_eq!([2, 3, 10].map(|number| cache.places(number).1), [true, true, false], "a lease is a use");
    cache.release(lease);
}

#[test]
fn a_second_use_is_known_as_one_when_ram_has_forgotten_the_first() {
    let mut cache = cache(AdmissionKind::SecondUse, 4, 8);
    cache.put(0..2);
    cache.put(10..14);
    assert_eq!((cache.hit(0..2), cache.places(0)), (0, (false, false)), "RAM has forgotten it");
    cache.put(0..2);
    assert_eq!([0, 1, 10].map(|number| cache.places(number).1), [true, true, false]);
}

#[test]
fn on_ram_eviction_a_block_is_written_when_it_goes_its_ancestors_first() {
    let mut cache = cache(AdmissionKind::RamEviction, 4, 8);
    cache.put(0..4);
    cache.put(0..4);
    assert_eq!(cache.planner.holdings().nvme_blocks, 0, "not even on second use");
    cache.put([10]);
    assert_eq!(
        [0, 1, 2, 3].map(|number| cache.places(number)),
        [(true, true), (true, true), (true, true), (false, true)]
    );
    assert_eq!((cache.hit(0..4), cache.hit([10])), (4, 1));
}

#[test]
fn a_block_that_leaves_ram_is_readable_until_it_is_written() {
    let mut cache = cache(AdmissionKind::RamEviction, 2, 8);
    cache.put(0..2);
    cache.end = writes_wait;
    let (_, wanted) = cache.offer(&chain([10]));
    assert_eq!(cache.tell(Event::Need { block: wanted[0].unwrap() }), Answer::Done, "its slot is promised");
    assert_eq!((cache.hit(0..2), cache.hit([10])), (2, 0));
    cache.finish(all_is_done);
    assert_eq!((cache.hit(0..2), cache.hit([10]), cache.places(1)), (2, 1, (false, true)));
}

#[test]
fn a_block_that_is_leased_while_it_leaves_stays_and_who_waited_is_refused() {
    let mut cache = cache(AdmissionKind::RamEviction, 2, 8);
    cache.put(0..2);
    cache.end = writes_wait;
    let (put, wanted) = cache.offer(&chain([10]));
    let block = wanted[0].unwrap();
    cache.tell(Event::Need { block });
    let lease = cache.lease(0..2);
    cache.finish(writes_fail);
    assert_eq!((cache.hit(0..2), cache.places(1)), (2, (true, false)), "the lease keeps it");
    assert!(cache.open.contains(&Command::Refuse { put, block }));
    cache.tell(Event::PutEnded { put });
    cache.release(lease);
}

#[test]
fn past_the_wear_budget_heads_are_written_and_tails_on_second_use() {
    let tier = TierShape::with_extent(64 * BYTES, 16 * BYTES);
    let hour = 24 * 10 * BYTES;
    let mut cache = Cache::of(Options { wear_bytes_per_day: Some(hour), ..Options::new(tier, tier) });
    cache.put(0..16);
    let written =
        |cache: &Cache, numbers: std::ops::Range<u8>| numbers.filter(|number| cache.places(*number).1).count();
    assert_eq!(written(&cache, 0..16), 11, "as long as the drive was within its budget");
    cache.put(20..40);
    assert_eq!(written(&cache, 20..40), 8, "the head of the next chain");
    cache.put(20..40);
    assert_eq!(written(&cache, 20..40), 20, "all of it on second use");
    sleep(&mut cache, 86_400);
    cache.put(50..56);
    assert_eq!(written(&cache, 50..56), 6);
}

#[test]
fn a_size_that_comes_late_gets_the_extent_that_was_used_longest_ago() {
    let mut cache = cache(AdmissionKind::Always, 16, 16);
    for first in [0, 10, 20, 30] {
        sleep(&mut cache, 10);
        cache.put(first..first + 4);
    }
    sleep(&mut cache, 10);
    cache.put(0..4);
    cache.payload = 2 * SLOT;
    assert_eq!((cache.put([100]), cache.places(100)), (1, (true, true)));
    assert_eq!([0, 10, 20, 30].map(|first| cache.hit(first..first + 4)), [4, 0, 4, 4], "the coldest went");
    assert_eq!(cache.planner.counters().extents_moved, 2, "one of each tier");
}

#[test]
fn an_extent_with_a_leased_block_stays_where_it_is() {
    let mut cache = cache(AdmissionKind::Always, 8, 8);
    cache.put(0..4);
    sleep(&mut cache, 10);
    cache.put(10..14);
    let lease = cache.lease(0..1);
    cache.put(10..14);
    sleep(&mut cache, 10);
    cache.payload = 2 * SLOT;
    assert_eq!((cache.put([100]), cache.hit(0..4), cache.hit(10..14)), (1, 4, 0));
    cache.release(lease);
}

#[test]
fn room_is_not_made_by_letting_go_what_the_new_block_hangs_on() {
    let mut cache = cache(AdmissionKind::Always, 16, 8);
    cache.put(0..4);
    sleep(&mut cache, 10);
    cache.put(10..14);
    sleep(&mut cache, 10);
    cache.payload = 2 * SLOT;
    // Its head lies in the extent that was used longest ago.
    assert_eq!(cache.put(0..5), 5);
    assert_eq!((cache.places(4), cache.hit(0..5), cache.hit(10..14)), ((true, true), 5, 0));
}

#[test]
fn a_size_that_is_not_used_any_more_gives_all_its_room_back() {
    let mut cache = cache(AdmissionKind::Always, 32, 32);
    for first in 0..8 {
        cache.put(first * 4..first * 4 + 4);
    }
    cache.payload = 2 * SLOT;
    for number in 100..116 {
        sleep(&mut cache, 2);
        assert_eq!(cache.put([number]), 1);
    }
    let held = cache.planner.holdings();
    assert_eq!((held.nvme_blocks, held.nvme_used_bytes), (16, 32 * BYTES));
    assert_eq!((100..116).filter(|number| cache.hit([*number]) == 1).count(), 16);
}

#[test]
fn a_size_in_full_use_keeps_its_extents() {
    let mut cache = cache(AdmissionKind::Always, 16, 16);
    cache.put(0..8);
    cache.payload = 2 * SLOT;
    cache.put(100..104);
    for round in 0..50 {
        sleep(&mut cache, 2);
        cache.payload = SLOT;
        cache.put(0..8);
        cache.payload = 2 * SLOT;
        cache.put([110 + round % 40]);
    }
    assert_eq!((cache.hit(0..8), cache.planner.counters().extents_moved), (8, 0));
}

#[test]
fn a_flush_writes_what_only_ram_has_the_hottest_first_as_far_as_the_queue_has_room() {
    let mut cache = cache(AdmissionKind::RamEviction, 8, 8);
    cache.put(0..3);
    sleep(&mut cache, 5);
    cache.put([10]);
    cache.end = writes_wait;
    assert_eq!(flush(&mut cache), (4, 0));
    let first = cache.open.iter().find_map(|command| match command {
        Command::Write(write) => Some(write.key),
        _ => None,
    });
    assert_eq!(first, Some(key(10)));
    cache.finish(all_is_done);
    assert_eq!((flush(&mut cache), cache.planner.holdings().nvme_blocks), ((0, 0), 4));
}

#[test]
fn a_flush_displaces_nothing_that_is_hotter() {
    let mut cache = cache(AdmissionKind::SecondUse, 8, 4);
    cache.put([20]);
    sleep(&mut cache, 5);
    cache.put(0..4);
    cache.put(0..4);
    assert_eq!(flush(&mut cache), (0, 1));
    assert_eq!((cache.places(20), cache.planner.holdings().nvme_blocks), ((true, false), 4));
}

#[test]
fn a_lost_drive_takes_its_own_blocks_and_none_else() {
    let nvme = TierShape::striped(&[4 * BYTES, 4 * BYTES], 4 * BYTES, 2);
    let mut cache = Cache::of(Options::new(TierShape::with_extent(2 * BYTES, 2 * BYTES), nvme));
    for number in 0..8 {
        cache.put([number]);
    }
    assert_eq!((0..8).filter(|number| cache.hit([*number]) == 1).count(), 8);
    cache.tell(Event::DriveLost { drive: 1 });
    let left: Vec<u8> = (0..8).filter(|number| cache.hit([*number]) == 1).collect();
    assert_eq!(left, [0, 2, 4, 6, 7], "its own, but for the one that RAM has too");
    for number in 20..30 {
        assert_eq!(cache.put([number]), 1, "the cache goes on with the rest");
    }
    assert_eq!((cache.planner.holdings().nvme_blocks, cache.planner.is_quiet()), (4, true));
    assert_eq!(cache.planner.nvme_used_bytes_of_drives(), [4 * BYTES, 0]);
}
