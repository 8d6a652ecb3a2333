//! Claims about the arena, the last one under several threads.

use std::sync::atomic::AtomicBool;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::*;
use crate::vocab::ByteCount;

fn class(bytes: u32) -> SlotClass {
    SlotClass::of_bytes(bytes).unwrap()
}

fn arena() -> Arc<Arena> {
    Arena::new(TierShape::carve(ByteCount(16 * 64 * 1024))).unwrap()
}

fn slot(index: u16) -> SlotId {
    SlotId { extent: 3, index }
}

fn freed(arena: &Arena) -> Vec<SlotId> {
    let mut slots = Vec::new();
    arena.take_freed(&mut slots);
    slots
}

#[test]
fn published_bytes_are_read_under_their_generation_only() {
    let (arena, class) = (arena(), class(8192));
    let mut writer = arena.writer(slot(1), class).unwrap();
    assert!(writer.write_at(3, b"payload"));
    assert!(!writer.write_at(8190, b"payload"));
    let promised = writer.generation();
    assert!(arena.pin(slot(1), class, promised, 10).is_none());
    let generation = writer.publish();
    assert_eq!(generation, promised);
    let pin = arena.pin(slot(1), class, generation, 10).unwrap();
    assert_eq!(&pin[3..], b"payload");
    assert!(arena.pin(slot(1), class, generation + 2, 10).is_none());
    assert!(arena.pin(slot(2), class, generation, 10).is_none());
    assert!(arena.pin(slot(1), class, generation, 8193).is_none());
}

#[test]
fn a_slot_waits_for_its_last_pin_and_wakes_the_planner() {
    let (arena, class) = (arena(), class(4096));
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    arena.set_wake(Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let generation = arena.writer(slot(0), class).unwrap().publish();
    let pin = arena.pin(slot(0), class, generation, 4096).unwrap();
    let bytes = arena.pin(slot(0), class, generation, 100).unwrap().into_bytes();
    let part = bytes.slice(10..20);
    drop(bytes);
    assert_eq!(arena.pins(), 2);
    assert!(!arena.retire(slot(0)));
    assert!(arena.pin(slot(0), class, generation, 1).is_none());
    assert!(arena.writer(slot(0), class).is_none());
    drop(pin);
    assert_eq!((freed(&arena), woken.load(Ordering::Relaxed)), (vec![], 0));
    drop(part);
    assert_eq!((freed(&arena), woken.load(Ordering::Relaxed)), (vec![slot(0)], 1));
    assert_eq!(arena.pins(), 0);
    assert!(arena.writer(slot(0), class).is_some());
}

#[test]
fn a_dropped_writer_leaves_nothing_readable_and_the_slot_usable() {
    let (arena, class) = (arena(), class(4096));
    let writer = arena.writer(slot(0), class).unwrap();
    let promised = writer.generation();
    assert!(arena.writer(slot(0), class).is_none());
    drop(writer);
    assert!(arena.retire(slot(0)));
    let generation = arena.writer(slot(0), class).unwrap().publish();
    assert_ne!(generation, promised);
    assert!(arena.retire(slot(0)));
    assert_eq!(freed(&arena), vec![]);
}

#[test]
fn a_slot_retired_under_its_writer_is_freed_when_the_writer_ends() {
    let (arena, class) = (arena(), class(4096));
    let writer = arena.writer(slot(0), class).unwrap();
    assert!(!arena.retire(slot(0)));
    let generation = writer.publish();
    assert!(arena.pin(slot(0), class, generation, 1).is_none());
    assert_eq!(freed(&arena), vec![slot(0)]);
}

#[test]
fn an_extent_changes_class_only_when_nobody_holds_a_slot_of_it() {
    let arena = arena();
    let generation = arena.writer(slot(1), class(4096)).unwrap().publish();
    assert!(arena.writer(slot(0), class(8192)).is_none());
    assert!(arena.pin(slot(1), class(8192), generation, 1).is_none());
    assert_eq!(arena.pins(), 0);
    let pin = arena.pin(slot(1), class(4096), generation, 1).unwrap();
    assert!(!arena.retire(slot(1)));
    assert!(arena.writer(slot(0), class(8192)).is_none());
    drop(pin);
    assert!(arena.writer(slot(0), class(8192)).is_some());
}

#[test]
fn a_slot_outside_of_the_arena_is_neither_written_nor_read() {
    let arena = arena();
    assert!(arena.writer(SlotId { extent: 16, index: 0 }, class(4096)).is_none());
    assert!(arena.writer(slot(16), class(4096)).is_none());
    assert!(arena.writer(slot(8), class(8192)).is_none());
    assert!(arena.pin(slot(8), class(8192), 1, 1).is_none());
    assert_eq!(Arena::new(TierShape::NONE).unwrap().segments().len(), 0);
}

#[test]
fn what_one_arena_has_published_names_nothing_in_another() {
    let (shape, class) = (TierShape::carve(ByteCount(16 * 64 * 1024)), class(4096));
    let lives = |first| {
        let arena = Arena::counting_from(shape, first).unwrap();
        let publish = || {
            let generation = arena.writer(slot(0), class).unwrap().publish();
            assert!(arena.pin(slot(0), class, generation, 1).is_some());
            assert!(arena.retire(slot(0)));
            generation
        };
        [publish(), publish(), publish()]
    };
    assert_eq!(lives(0), [1, 3, 5]);
    assert_eq!(lives(1_001), [1_001, 1_003, 1_005]);
    assert_eq!(lives(u64::MAX)[0].leading_zeros(), 64 - 39, "half of all generations are to come");
}

/// What a slot holds at a generation: every byte depends on both.
fn pattern(slot: u16, generation: u64) -> u8 {
    (generation.wrapping_mul(0x9e37_79b9).wrapping_add(u64::from(slot) * 31) >> 3) as u8
}

const SLOTS: u16 = 4;

fn read_at_random(arena: &Arc<Arena>, published: &[AtomicU64], stop: &AtomicBool, seed: u64) -> u64 {
    let mut random = Pcg64::seed_from_u64(seed);
    let (mut held, mut reads) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let index = random.random_range(0..SLOTS);
        let generation = published[usize::from(index)].load(Ordering::Relaxed);
        if let Some(pin) = arena.pin(slot(index), class(4096), generation, 4096) {
            held.push((pin, pattern(index, generation)));
        }
        if held.len() > 2 || random.random_bool(0.3) {
            for (pin, byte) in held.drain(..) {
                assert!(pin.iter().all(|read| *read == byte), "bytes of another generation");
                reads += 1;
            }
        }
    }
    reads
}

#[test]
fn no_reader_ever_sees_bytes_of_another_generation() {
    const LIVES: u64 = if cfg!(miri) { 20 } else { 20_000 };
    const WAITED: usize = if cfg!(miri) { 2 } else { 100 };
    let (arena, stop) = (arena(), AtomicBool::new(false));
    let published: Vec<_> = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
    let mut random = Pcg64::seed_from_u64(7);
    let (mut free, mut live): (Vec<u16>, Vec<u16>) = ((0..SLOTS).collect(), Vec::new());
    let (mut lives, mut waited, mut reads) = (0, 0, 0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (1..=3)
            .map(|seed| {
                scope.spawn({
                    let (arena, published, stop) = (&arena, &published, &stop);
                    move || read_at_random(arena, published, stop, seed)
                })
            })
            .collect();
        // Until enough retirements met a reader, however the threads are scheduled.
        while (lives < LIVES || waited < WAITED)
            && lives < 1_000 * LIVES
            && !readers.iter().any(std::thread::ScopedJoinHandle::is_finished)
        {
            let ended = freed(&arena);
            waited += ended.len();
            free.extend(ended.iter().map(|slot| slot.index));
            if let Some(index) = free.pop() {
                let mut writer = arena.writer(slot(index), class(4096)).expect("a freed slot is free");
                let byte = pattern(index, writer.generation());
                writer.as_mut_slice().fill(byte);
                published[usize::from(index)].store(writer.publish(), Ordering::Relaxed);
                live.push(index);
                lives += 1;
            } else {
                std::thread::yield_now();
            }
            if !live.is_empty() && (free.is_empty() || random.random_bool(0.5)) {
                let index = live.swap_remove(random.random_range(0..live.len()));
                if arena.retire(slot(index)) {
                    free.push(index);
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        reads = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    });
    assert!(reads > 0 && waited > 0, "{reads} reads, {waited} slots waited for a pin");
    assert_eq!(arena.pins(), 0);
}

#[test]
fn pages_are_made_ahead_until_all_are_there_or_nobody_wants_them() {
    let arena = Arena::new(TierShape::carve(ByteCount(16 << 20))).unwrap();
    arena.populate(|| false).unwrap();
    assert_eq!(arena.populated_bytes(), 0);
    arena.populate(|| true).unwrap();
    assert_eq!((arena.populated_bytes(), arena.is_shareable()), (16 << 20, true));
}
