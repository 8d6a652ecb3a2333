//! Claims about the rows' writer.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use super::*;
use crate::index::{CODEC_RAW, ShardRow};
use crate::vocab::{Owner, SlotClass};

/// Sends the slots whose rows are gone.
struct Sends(SyncSender<SlotId>);

impl RowsWatch for Sends {
    fn erased(&self, slots: &[SlotId]) {
        slots.iter().for_each(|slot| self.0.send(*slot).unwrap());
    }

    fn undeleted(&self, _: &BlockKey, _: SlotId, _: &IndexError) {}

    fn unmended(&self, _: &IndexError) {}
}

fn key(byte: u8) -> BlockKey {
    BlockKey::from_bytes([byte; 32])
}

fn slot(index: u16) -> SlotId {
    SlotId { extent: 0, index }
}

fn row(index: u16) -> Row {
    Row {
        slot: slot(index),
        class: SlotClass::of_bytes(4_096).unwrap(),
        length: 9,
        codec: CODEC_RAW,
        owner: Owner::default(),
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length: 9, crc: 1 }],
        parent: None,
        depth: 0,
        retention: 0,
        created_s: 1,
        last_use_s: 1,
        expires_s: 0,
    }
}

struct Bench {
    rows: Arc<Rows>,
    thread: JoinHandle<()>,
    erased: std::sync::mpsc::Receiver<SlotId>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap().catalog;
        let (sender, erased) = sync_channel(10_000);
        let rows = Rows::new(Arc::new(catalog));
        let thread = rows.start(Box::new(Sends(sender)), &Watch::default()).unwrap();
        Self { rows, thread, erased, _folder: folder }
    }

    /// Waits until all is done that was asked for; whether all rows are gone that should be.
    fn pass(&self) -> bool {
        let (sender, passed) = sync_channel(1);
        self.rows.passed(move |good| sender.send(good).unwrap());
        passed.recv().unwrap()
    }
}

#[test]
fn a_row_that_is_put_again_is_not_overtaken_by_its_deletion_however_slow_the_catalog_is() {
    let bench = Bench::new();
    bench.rows.catalog.put(key(1), &row(1)).unwrap();
    bench.rows.catalog.slow_down(Duration::from_millis(2));
    for round in 2..40 {
        bench.rows.delete(key(1), slot(round - 1));
        bench.rows.put(key(1), row(round), |put| put.unwrap());
        if round % 7 == 0 {
            assert!(bench.pass());
            assert_eq!(bench.rows.catalog.get(key(1)).unwrap(), Some(row(round)));
        }
    }
    assert!(bench.pass());
    assert_eq!(bench.rows.catalog.get(key(1)).unwrap(), Some(row(39)));
    assert_eq!(
        bench.erased.try_iter().collect::<Vec<_>>(),
        (1..39).map(slot).collect::<Vec<_>>(),
        "each once, in order"
    );
}

#[test]
fn whoever_asks_waits_for_no_write() {
    let bench = Bench::new();
    bench.rows.catalog.slow_down(Duration::from_secs(3));
    bench.rows.delete(key(1), slot(1));
    // More than one write takes, while the first is under way: were it done here, this would take an hour.
    for index in 2..1_500 {
        bench.rows.delete(key(2), slot(index));
    }
    assert!(bench.erased.try_recv().is_err(), "nothing can be gone yet");
    bench.rows.catalog.slow_down(Duration::ZERO);
    assert!(bench.pass());
    assert_eq!(bench.erased.try_iter().count(), 1_499);
}

#[test]
fn a_slot_is_free_only_once_its_row_is_gone_also_where_that_failed_first() {
    let bench = Bench::new();
    for byte in 1..=3 {
        bench.rows.catalog.put(key(byte), &row(byte.into())).unwrap();
    }
    bench.rows.catalog.db_lies(true);
    bench.rows.delete(key(1), slot(1));
    assert!(!bench.pass(), "whoever waits is told that rows are left");
    assert!(bench.erased.try_recv().is_err() && bench.rows.is_troubled());
    bench.rows.delete(key(2), slot(2));
    let (sender, told) = sync_channel(1);
    bench.rows.put(key(4), row(4), move |put| sender.send(put.is_err()).unwrap());
    assert!(told.recv().unwrap() && !bench.pass());
    bench.rows.catalog.db_lies(false);
    let mut gone = [0; 2].map(|_| bench.erased.recv_timeout(Duration::from_secs(20)).unwrap().index);
    gone.sort_unstable();
    assert_eq!(gone, [1, 2], "it is tried again until it works");
    while bench.rows.is_troubled() {
        std::thread::yield_now();
    }
    assert!(bench.pass());
    let left = [1, 2, 3, 4].map(|byte| bench.rows.catalog.get(key(byte)).unwrap().is_some());
    assert_eq!(left, [false, false, true, false]);
}

#[test]
fn of_a_promise_the_last_word_counts_and_who_waits_is_told_once_it_is_written() {
    let bench = Bench::new();
    bench.rows.catalog.slow_down(Duration::from_millis(20));
    let promise = |until_s| Promise { until_s, refresh: None, pinned: false };
    for until_s in 1..200 {
        bench.rows.promise(key(1), Some(promise(until_s)));
        bench.rows.promise(key(2), Some(promise(until_s)));
    }
    assert!(bench.rows.lock().promises.len() <= 2, "one a block, however often it changes");
    bench.rows.promise(key(2), None);
    let (sender, told) = sync_channel(1);
    bench.rows.promise_synced(key(3), promise(7), move |written| sender.send(written).unwrap());
    assert_eq!(told.recv().unwrap(), Ok(()));
    assert_eq!(bench.rows.catalog.promises().unwrap(), [(key(1), promise(199)), (key(3), promise(7))]);
}

#[test]
fn what_was_asked_for_is_written_before_the_thread_ends_and_later_by_who_asks() {
    let Bench { rows, thread, erased, _folder } = Bench::new();
    rows.catalog.put(key(1), &row(1)).unwrap();
    rows.catalog.slow_down(Duration::from_millis(5));
    (0..100).for_each(|index| rows.delete(key(1), slot(index)));
    rows.close();
    thread.join().unwrap();
    assert_eq!((erased.try_iter().count(), rows.catalog.get(key(1)).unwrap()), (100, None));
    rows.put(key(2), row(2), |put| put.unwrap());
    assert_eq!(rows.catalog.get(key(2)).unwrap(), Some(row(2)));
}
