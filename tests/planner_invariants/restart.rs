//! What a planner makes of the rows that it starts from.

use kvtier::plan::{Options, Planner, Recovered, Recovery};
use kvtier::vocab::{BlockKey, Owner, SlotClass, SlotId, TierShape};

use super::cache::{Cache, SLOT, key};

/// The row of a block in the slot of its own number.
fn row(number: u8, parent: Option<u8>, depth: u32, last_use_s: u32) -> Recovered {
    Recovered {
        key: key(number),
        slot: SlotId { extent: u16::from(number / 4), index: u16::from(number % 4) },
        class: SlotClass::of_bytes(SLOT).unwrap(),
        length: SLOT,
        crc: 0,
        owner: Owner::default(),
        payload_max: SLOT,
        parent: parent.map(key),
        depth,
        created_s: 0,
        last_use_s,
        expires_s: 0,
    }
}

/// Restarts from these rows. Keys of those that are stale.
fn recover(cache: &mut Cache, rows: &[Recovered]) -> Vec<BlockKey> {
    let nothing = Planner::new(Options::new(TierShape::NONE, TierShape::NONE));
    let mut recovery = Recovery::new(std::mem::replace(&mut cache.planner, nothing), rows.len() as u64);
    let mut stale = Vec::new();
    // In pieces, so that one piece ends between a child and its parent.
    rows.chunks(3).for_each(|rows| recovery.rows(rows, |key| stale.push(key)));
    cache.planner = recovery.finish();
    cache.planner.check().unwrap();
    stale
}

/// The order in which these blocks leave NVMe when as many others come, one by one.
fn order_of_going(cache: &mut Cache, blocks: u8) -> Vec<u8> {
    let mut gone = Vec::new();
    for other in 0..blocks {
        cache.put([100 + other]);
        let left = (0..blocks).filter(|number| !cache.places(*number).1 && !gone.contains(number));
        gone.extend(left.collect::<Vec<_>>());
        assert_eq!(gone.len(), usize::from(other) + 1, "one goes for one that comes");
    }
    gone
}

#[test]
fn a_restart_keeps_the_order_of_going() {
    let mut cache = Cache::new(4, 8);
    let chain = |first: u8| {
        let row = move |at: u8| row(first + at, at.checked_sub(1).map(|above| first + above), at.into(), first.into());
        (0..4).map(row)
    };
    let rows: Vec<Recovered> = chain(0).chain(chain(4)).collect();
    assert_eq!(recover(&mut cache, &rows), []);
    assert_eq!((cache.hit(0..4), cache.hit(4..8)), (4, 4));
    for (other, left) in [(20, 3), (21, 2), (22, 1), (23, 0)] {
        cache.put([other]);
        assert_eq!((cache.hit(0..4), cache.hit(4..8)), (left, 4), "the chain that was used before goes first");
    }
}

#[test]
fn after_a_restart_orphans_go_before_all_others() {
    let mut cache = Cache::new(4, 4);
    // Block 1 hangs on 0, and 2 on 1; the row of 0 is lost. Block 3 was used long before them.
    let rows = [row(1, Some(0), 1, 50), row(2, Some(1), 2, 50), row(3, None, 0, 1)];
    assert_eq!(recover(&mut cache, &rows), []);
    assert_eq!(cache.planner.holdings().orphans, 2);
    cache.put([10]);
    for (other, orphans) in [(11, 1), (12, 0)] {
        cache.put([other]);
        assert_eq!((cache.planner.holdings().orphans, cache.hit([3])), (orphans, 1));
    }
}

#[test]
fn what_was_written_long_ago_and_hung_on_lately_was_used_lately() {
    let mut cache = Cache::new(4, 4);
    // A head from the first second with a tail from the hundredth, and what was written between them.
    let rows = [row(0, None, 0, 1), row(1, Some(0), 1, 100), row(2, None, 0, 50), row(3, None, 0, 60)];
    assert_eq!(recover(&mut cache, &rows), []);
    assert_eq!(order_of_going(&mut cache, 4), [2, 3, 1, 0]);
}

#[test]
fn rows_in_any_order_are_the_same_start() {
    // A head of two with two tails of two, one of which forks again, and an orphan.
    let rows = [
        row(0, None, 0, 0),
        row(1, Some(0), 1, 1),
        row(2, Some(1), 2, 2),
        row(3, Some(2), 3, 30),
        row(4, Some(1), 2, 40),
        row(5, Some(4), 3, 50),
        row(6, Some(4), 3, 60),
        row(7, Some(99), 5, 70),
    ];
    let mut order: Vec<usize> = (0..rows.len()).collect();
    for turn in 0..300_u64 {
        let shuffled: Vec<Recovered> = order.iter().map(|at| rows[*at].clone()).collect();
        let mut cache = Cache::new(8, 8);
        assert_eq!(recover(&mut cache, &shuffled), []);
        assert_eq!((cache.hit([0, 1, 2, 3]), cache.hit([0, 1, 4, 6])), (4, 4), "{order:?}");
        assert_eq!(order_of_going(&mut cache, 8), [7, 3, 2, 5, 6, 4, 1, 0], "{order:?}");
        let draw = blake3::hash(&turn.to_le_bytes());
        (1..order.len()).for_each(|at| order.swap(at, usize::from(draw.as_bytes()[at]) % (at + 1)));
    }
}

#[test]
fn rows_that_contradict_each_other_hang_on_nothing() {
    // Block 1 says that it comes right after 0 and that five blocks come before it.
    let rows = [row(0, None, 0, 1), row(1, Some(0), 5, 2), row(2, Some(1), 6, 3), row(3, Some(0), 1, 4)];
    for order in [[0, 1, 2, 3], [1, 0, 3, 2], [2, 1, 0, 3], [3, 2, 1, 0], [2, 3, 1, 0]] {
        let mut cache = Cache::new(4, 8);
        let rows = order.map(|at: usize| rows[at].clone());
        assert_eq!(recover(&mut cache, &rows), []);
        assert_eq!((cache.hit([0, 3]), cache.hit([0, 1])), (2, 1), "{order:?}");
        assert_eq!(cache.planner.holdings().orphans, 2, "{order:?}");
    }
}

#[test]
fn rows_that_can_not_be_true_are_stale_and_leave_nothing_behind() {
    let mut cache = Cache::new(4, 8);
    let elsewhere = |number: u8, extent, index, bytes| Recovered {
        slot: SlotId { extent, index },
        class: SlotClass::of_bytes(bytes).unwrap(),
        ..row(number, None, 0, 1)
    };
    let rows = [
        row(0, None, 0, 1),
        elsewhere(1, 0, 0, SLOT),
        elsewhere(2, 0, 4, SLOT),
        elsewhere(3, 2, 0, SLOT),
        elsewhere(4, 0, 1, 2 * SLOT),
        row(5, Some(4), 1, 1),
    ];
    assert_eq!(recover(&mut cache, &rows), [1, 2, 3, 4].map(key));
    let known: Vec<bool> = (0..6).map(|number| cache.places(number).1).collect();
    assert_eq!(known, [true, false, false, false, false, true]);
    assert_eq!((cache.planner.holdings().nvme_blocks, cache.planner.holdings().orphans), (2, 1));
}
