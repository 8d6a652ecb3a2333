//! The planner's rules one by one, each in the smallest cache that shows it.

#[cfg(test)]
#[path = "planner_invariants/admission.rs"]
mod admission;
#[cfg(test)]
#[path = "planner_invariants/cache.rs"]
mod cache;
#[cfg(test)]
#[path = "planner_invariants/quotas.rs"]
mod quotas;
#[cfg(test)]
#[path = "planner_invariants/restart.rs"]
mod restart;
#[cfg(test)]
#[path = "planner_invariants/retention.rs"]
mod retention;
#[cfg(test)]
#[path = "planner_invariants/steps.rs"]
mod steps;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kvtier::plan::{Answer, BlockRef, Command, Event, Filter, InstanceNo, Options, Wanted};
    use kvtier::vocab::limits::PIN_GRACE;
    use kvtier::vocab::{LeaseId, SlotClass, TierShape, Timestamp};

    use super::cache::{Cache, SLOT, all_is_done, chain, key, writes_fail, writes_wait};

    #[test]
    fn the_leaf_goes_first() {
        let mut cache = Cache::new(4, 0);
        assert_eq!(cache.put(0..4), 4);
        for (other, left) in [(10, 3), (11, 2), (12, 1), (13, 0)] {
            cache.put([other]);
            assert_eq!(cache.hit(0..4), left);
        }
    }

    #[test]
    fn what_is_leased_stays_until_its_lease_ends() {
        let mut cache = Cache::new(4, 0);
        cache.put(0..4);
        let lease = cache.lease(0..4);
        assert_eq!((cache.put([10]), cache.hit(0..4)), (0, 4), "a put finds no room");
        cache.release(lease);
        assert_eq!((cache.put([10]), cache.hit(0..4)), (1, 3));
    }

    #[test]
    fn who_leaks_leases_loses_them_once_ram_is_full_of_them_and_nobody_else_does() {
        let mut cache = Cache::new(8, 0);
        let lease = |cache: &mut Cache, instance, number: u8| {
            let (instance, keys) = (InstanceNo(instance), chain([number]));
            let event = Event::Lease { instance, request: number.into(), keys, ttl: Duration::from_secs(600) };
            let Answer::Leased(Ok(Some(leased))) = cache.tell(event) else { panic!("not leased") };
            leased.lease
        };
        (0..8).for_each(|number| assert_eq!(cache.put([number]), 1));
        // Three of the eight are another's, leased before.
        let others: Vec<LeaseId> = (0..3).map(|number| lease(&mut cache, 2, number)).collect();
        let leaked: Vec<LeaseId> = (3..8).map(|number| lease(&mut cache, 1, number)).collect();
        let held = |cache: &Cache, instance, leases: &[LeaseId]| {
            leases.iter().filter(|id| cache.planner.check_lease(InstanceNo(instance), **id).is_ok()).count()
        };
        assert_eq!(cache.put([20]), 0, "a lease is safe for a while");
        cache.now = cache.now + PIN_GRACE;
        assert_eq!((cache.put([20]), cache.hit([3])), (1, 0), "the oldest of the leaker's goes");
        assert_eq!((held(&cache, 1, &leaked), held(&cache, 2, &others)), (4, 3));
        assert_eq!((cache.put([21]), cache.hit([20])), (1, 0), "then what is not leased goes");
        lease(&mut cache, 2, 21);
        assert_eq!(cache.put([22]), 0, "half of RAM is not too much");
        assert_eq!((held(&cache, 1, &leaked), held(&cache, 2, &others)), (4, 3));
        assert_eq!(cache.planner.counters().leases_revoked, 1);
    }

    #[test]
    fn what_was_leased_counts_as_used_before_anything_can_go_for_it() {
        let mut cache = Cache::new(4, 0);
        cache.put(0..2);
        cache.put([10]);
        cache.put([11]);
        // The chain is touched after the answer, some of it by and by.
        let lease = cache.lease(0..2);
        assert!(cache.planner.catch_up(1));
        cache.release(lease);
        cache.put([12]);
        assert_eq!((cache.hit([10]), cache.hit([11]), cache.hit(0..2)), (0, 1, 2));
        assert!(!cache.planner.catch_up(9));
    }

    #[test]
    fn a_lease_of_two_blocks_leaves_the_third_to_go() {
        let mut cache = Cache::new(4, 0);
        cache.put(0..4);
        cache.lease(0..2);
        cache.put([10]);
        cache.put([11]);
        assert_eq!((cache.put([12]), cache.hit(0..4)), (1, 2));
    }

    #[test]
    fn an_orphan_is_unreachable_and_first_to_go() {
        let mut cache = Cache::new(8, 8);
        cache.put(20..24);
        cache.be_user(7);
        cache.put([0]);
        cache.be_user(8);
        cache.put(0..4);
        cache.purge_user(7);
        assert_eq!((cache.hit(0..4), cache.planner.holdings().orphans), (0, 3));
        // One slot is free; then the orphans go, though the other chain was used before them.
        cache.put(30..34);
        assert_eq!((cache.planner.holdings().orphans, cache.hit(20..24), cache.hit(30..34)), (0, 4, 4));
    }

    #[test]
    fn an_orphan_that_is_healed_is_not_the_first_to_go_any_more() {
        let mut cache = Cache::new(8, 8);
        cache.be_user(7);
        cache.put([0]);
        cache.be_user(8);
        cache.put(0..4);
        cache.purge_user(7);
        cache.put(20..24);
        let (_, wanted) = cache.offer(&chain(0..4));
        cache.tell(Event::Need { block: wanted[0].unwrap() });
        // The put has not ended; another one needs room.
        assert_eq!((cache.put([30]), cache.hit(0..4), cache.hit(20..24)), (1, 4, 3));
    }

    #[test]
    fn an_orphan_is_healed_by_a_new_put_of_its_parent() {
        let mut cache = Cache::new(8, 8);
        cache.be_user(7);
        cache.put([0]);
        cache.be_user(8);
        cache.put(0..4);
        cache.purge_user(7);
        assert_eq!(cache.hit(0..4), 0);
        let (_, wanted) = cache.offer(&chain(0..4));
        let asked: Vec<bool> = wanted.iter().map(Option::is_some).collect();
        assert_eq!(asked, [true, false, false, false], "only the ancestor is sent again");
        cache.tell(Event::Need { block: wanted[0].unwrap() });
        assert_eq!((cache.hit(0..4), cache.planner.holdings().orphans), (4, 0));
    }

    #[test]
    fn a_dropped_write_drops_the_rest_of_its_chain() {
        let options = Options::new(TierShape::of_slots(8, SlotClass::of_bytes(SLOT).unwrap()), TierShape::NONE);
        let mut cache = Cache::of(Options { nvme: options.ram, write_queue_bytes: u64::from(SLOT), ..options });
        cache.end = writes_wait;
        let (put, wanted) = cache.offer(&chain(0..3));
        let wanted: Vec<BlockRef> = wanted.into_iter().flatten().collect();
        cache.tell(Event::Need { block: wanted[0] });
        cache.tell(Event::Need { block: wanted[1] });
        cache.finish(all_is_done);
        // There is room in the queue again, but nothing to hang it on.
        cache.tell(Event::Need { block: wanted[2] });
        assert_eq!(cache.tell(Event::PutEnded { put }), Answer::Stored { through: 3 });
        assert_eq!([0, 1, 2].map(|number| cache.places(number)), [(true, true), (true, false), (true, false)]);
        assert_eq!(cache.planner.counters().nvme_write_dropped, 2);
        // Each gets another chance when the chain comes by; the queue has room for one.
        cache.put(0..3);
        cache.put(0..3);
        assert_eq!([1, 2].map(|number| cache.places(number)), [(true, true), (true, true)]);
    }

    #[test]
    fn what_leaves_nvme_leaves_ram_too() {
        let mut cache = Cache::new(8, 4);
        cache.put(0..4);
        assert_eq!(cache.planner.holdings().ram_blocks, 4);
        cache.put([10]);
        assert_eq!((cache.places(3), cache.places(2), cache.places(10)), ((false, false), (true, true), (true, true)));
    }

    #[test]
    fn two_payload_sizes_live_side_by_side() {
        let mut cache = Cache::new(16, 32);
        cache.put(0..4);
        cache.payload = 2 * SLOT;
        cache.put(10..14);
        assert_eq!((cache.hit(0..4), cache.hit(10..14)), (4, 4));
        let held = cache.planner.holdings();
        assert_eq!((held.ram_used_bytes, held.nvme_used_bytes), (12 * u64::from(SLOT), 12 * u64::from(SLOT)));
    }

    #[test]
    fn a_put_larger_than_ram_stores_a_prefix() {
        let mut cache = Cache::new(4, 0);
        assert_eq!(cache.put(0..7), 4);
        assert_eq!((cache.hit(0..7), cache.planner.holdings().reservations), (4, 0));
    }

    #[test]
    fn a_failed_write_leaves_the_block_in_ram_readable_and_is_tried_again() {
        let mut cache = Cache::new(4, 4);
        cache.end = writes_fail;
        assert_eq!(cache.put([0]), 1);
        assert_eq!((cache.places(0), cache.hit([0])), ((true, false), 1));
        cache.end = all_is_done;
        cache.put([0]);
        assert_eq!(cache.places(0), (true, true));
    }

    /// The head's write fails after the tail's has succeeded and RAM has let the tail go.
    fn head_in_ram_over_a_tail_on_nvme() -> Cache {
        let mut cache = Cache::new(2, 8);
        cache.end = writes_wait;
        cache.put(0..2);
        let tail = cache.open.pop().unwrap();
        cache.tell(all_is_done(&tail).unwrap());
        cache.put([10]);
        assert_eq!((cache.places(0), cache.places(1)), ((true, false), (false, true)));
        cache.finish(writes_fail);
        cache
    }

    #[test]
    fn the_only_copy_of_a_head_stays_while_a_tail_hangs_on_it() {
        let mut cache = head_in_ram_over_a_tail_on_nvme();
        let lease = cache.lease(0..2);
        for other in 20..26 {
            cache.put([other]);
            assert_eq!(cache.hit(0..2), 2);
        }
        cache.release(lease);
    }

    #[test]
    fn the_only_copy_of_a_head_is_written_when_its_turn_to_go_has_come() {
        let mut cache = head_in_ram_over_a_tail_on_nvme();
        cache.end = all_is_done;
        for other in 20..24 {
            cache.put([other]);
        }
        assert_eq!((cache.places(0), cache.places(1), cache.hit(0..2)), ((false, true), (false, true), 2));
    }

    #[test]
    fn nvme_keeps_what_a_block_in_ram_hangs_on() {
        let mut cache = Cache::new(2, 4);
        cache.put([0]);
        cache.put([10, 11]);
        assert_eq!(cache.places(0), (false, true));
        cache.end = writes_fail;
        cache.put([0, 1]);
        assert_eq!((cache.places(0), cache.places(1)), ((false, true), (true, false)));
        cache.end = all_is_done;
        cache.lease(0..2);
        for other in 20..26 {
            cache.put([other]);
            assert_eq!(cache.hit(0..2), 2);
        }
    }

    #[test]
    fn as_many_may_read_a_block_as_like() {
        let mut cache = Cache::new(1, 4);
        cache.put([0]);
        cache.put([10]);
        assert_eq!(cache.places(0), (false, true));
        cache.end = |_| None;
        let mut commands = Vec::new();
        let mut peek =
            |cache: &mut Cache| cache.planner.on(Timestamp(1_000), Event::Peek { key: key(0) }, &mut commands);
        let reads = (0..70_000).filter(|_| matches!(peek(&mut cache), Answer::Peek(Some(_)))).count();
        assert!(reads > 60_000);
        assert_eq!(cache.tell(Event::Want { key: key(0) }), Answer::Wanted(Wanted::Coming));
    }

    #[test]
    fn a_chain_that_was_read_into_ram_goes_before_what_came_after_it() {
        let mut cache = Cache::new(8, 64);
        cache.put(0..4);
        (10..18).for_each(|other| assert_eq!(cache.put([other]), 1));
        assert_eq!(cache.places(0), (false, true));
        (0..4).for_each(|number| drop(cache.tell(Event::Want { key: key(number) })));
        assert_eq!(cache.tell(Event::Used { deepest: key(3), leased: false }), Answer::Done);
        let left = |cache: &Cache| (0..4).filter(|number| cache.places(*number).0).count();
        for (other, expected) in (30..38).zip([4, 4, 4, 4, 3, 2, 1, 0]) {
            cache.put([other]);
            assert_eq!(left(&cache), expected, "after {other}");
        }
    }

    #[test]
    fn a_failed_search_for_room_leaves_the_order_of_going_as_it_was() {
        let mut cache = Cache::new(5, 0);
        for number in 0..5 {
            cache.put([number]);
        }
        let leases: Vec<LeaseId> = (0..5_u8)
            .map(|number| {
                let event = Event::Lease {
                    instance: InstanceNo(1),
                    request: u128::from(number),
                    keys: chain([number]),
                    ttl: Duration::from_secs(60),
                };
                let Answer::Leased(Ok(Some(leased))) = cache.tell(event) else { panic!("not leased") };
                leased.lease
            })
            .collect();
        assert_eq!(cache.put([9]), 0);
        leases.into_iter().for_each(|lease| cache.release(lease));
        cache.put([9]);
        assert_eq!([0, 1, 2, 3, 4].map(|number| cache.hit([number])), [0, 1, 1, 1, 1]);
    }

    #[test]
    fn writers_that_give_up_do_not_make_the_queue_for_slots_grow() {
        let mut cache = Cache::new(2, 0);
        cache.put([0]);
        cache.put([1]);
        cache.end = |_| None;
        for _ in 0..1_000 {
            let (put, wanted) = cache.offer(&chain([10]));
            assert_eq!(cache.tell(Event::Need { block: wanted[0].unwrap() }), Answer::Done);
            cache.tell(Event::PutEnded { put });
        }
        assert_eq!(cache.open.iter().filter(|command| matches!(command, Command::Retire { .. })).count(), 1);
    }

    #[test]
    fn those_who_wait_for_a_load_are_told_when_the_block_was_purged() {
        let mut cache = Cache::new(1, 4);
        cache.put([0]);
        cache.put([10]);
        cache.end = |_| None;
        assert_eq!(cache.tell(Event::Want { key: key(0) }), Answer::Wanted(Wanted::Coming));
        let retire = cache.open.iter().find(|command| matches!(command, Command::Retire { .. })).cloned().unwrap();
        cache.tell(all_is_done(&retire).unwrap());
        let load = cache.open.iter().find(|command| matches!(command, Command::Load(_))).cloned().unwrap();
        cache.tell(Event::Purge(Filter::default()));
        cache.open.clear();
        cache.tell(all_is_done(&load).unwrap());
        assert!(cache.open.contains(&Command::Unloadable { key: key(0) }));
        assert!(!cache.open.iter().any(|command| matches!(command, Command::Publish { .. })), "purged stays purged");
    }
}
