//! Claims about a tier's free slots.

use super::*;
use crate::vocab::ByteCount;

fn taken(space: &mut Space, class: u8) -> Vec<SlotId> {
    std::iter::from_fn(|| space.take(class, 1)).collect()
}

fn let_go(space: &mut Space, slot: SlotId) -> Option<(u8, u32)> {
    space.disown(slot);
    space.give(slot)
}

#[test]
fn every_slot_is_given_once_and_comes_back_in_order() {
    let mut space = Space::new(TierShape::with_extent(64 << 10, 16 << 10));
    let class = space.class_number(4096).unwrap();
    let slots = taken(&mut space, class);
    assert_eq!(slots.len(), 16);
    let_go(&mut space, slots[3]);
    let_go(&mut space, slots[1]);
    assert_eq!(taken(&mut space, class), [slots[3], slots[1]]);
    assert_eq!(space.used_bytes(), 64 << 10);
}

#[test]
fn two_sizes_live_side_by_side() {
    let mut space = Space::new(TierShape::carve(ByteCount(1 << 20)));
    let (small, large) = (space.class_number(4096).unwrap(), space.class_number(60 << 10).unwrap());
    assert_ne!(space.take(small, 1).unwrap().extent, space.take(large, 2).unwrap().extent);
}

#[test]
fn drives_take_turns_and_a_tired_one_waits_for_the_others() {
    let mut space = Space::new(TierShape::striped(&[32 << 10, 32 << 10, 16 << 10], 16 << 10, 4));
    let class = space.class_number(4096).unwrap();
    let drive = |slot: SlotId| slot.extent % 4;
    let first: Vec<u16> = (0..6).map(|_| drive(space.take(class, 1).unwrap())).collect();
    assert_eq!(first, [0, 1, 2, 0, 1, 2]);
    space.spare(|drive| drive == 1);
    let rest: Vec<u16> = taken(&mut space, class).into_iter().map(drive).collect();
    assert_eq!(rest.len(), 14);
    assert!(rest[8..].iter().all(|drive| *drive == 1), "{rest:?}");
}

#[test]
fn an_extent_that_leaves_changes_hands_with_its_last_slot() {
    let mut space = Space::new(TierShape::with_extent(32 << 10, 16 << 10));
    let (small, large) = (space.class_number(4096).unwrap(), space.class_number(8192).unwrap());
    let slots: Vec<_> = (0..6).map(|block| space.take(small, block).unwrap()).collect();
    let extent = slots[5].extent;
    assert_eq!(space.extent(extent).unwrap().blocks().collect::<Vec<_>>(), [4, 5]);
    assert_eq!(space.leave(extent, large), 2);
    assert_eq!(space.take(small, 9), None, "its free slots are handed out no more");
    assert_eq!(let_go(&mut space, slots[4]), None);
    assert_eq!((space.take(small, 9), space.take(large, 9)), (None, None));
    assert_eq!(let_go(&mut space, slots[5]), Some((large, 2)));
    assert_eq!(taken(&mut space, large).len(), 2);
    assert_eq!((space.extents_of(small), space.extents_of(large)), (1, 1));
}

#[test]
fn a_lost_drives_slots_are_not_used_again() {
    let mut space = Space::new(TierShape::striped(&[16 << 10, 16 << 10], 16 << 10, 2));
    let class = space.class_number(4096).unwrap();
    let slots: Vec<_> = (0..4).map(|block| space.take(class, block).unwrap()).collect();
    assert_eq!(space.lose_drive(1), [1]);
    assert_eq!(space.lose_drive(1), [0; 0], "once");
    for slot in slots {
        let_go(&mut space, slot);
    }
    let left = taken(&mut space, class);
    assert_eq!((left.len(), left.iter().any(|slot| slot.extent == 1)), (4, false));
}

#[test]
fn rows_of_a_restart_occupy_their_slots_and_bad_ones_are_refused() {
    let mut space = Space::new(TierShape::with_extent(32 << 10, 16 << 10));
    let class = SlotClass::of_bytes(4096).unwrap();
    let slot = |extent, index| (SlotId { extent, index }, class);
    let other = (SlotId { extent: 0, index: 0 }, SlotClass::of_bytes(8192).unwrap());
    let rows = [slot(0, 1), slot(0, 1), slot(0, 4), slot(7, 0), other];
    let accepted = rows.map(|(slot, class)| space.occupy(slot, class, 5));
    assert_eq!(accepted, [true, false, false, false, false]);
    space.occupied();
    let number = space.class_of(rows[0].0).unwrap();
    let free = taken(&mut space, number);
    assert_eq!(free.len(), 7);
    assert!(!free.contains(&rows[0].0));
}
