//! Claims about verification, on real folders made by hand.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{OfflineError, ProblemKind, VerifyReport, namespaces, verify};
use crate::tiers::{CODEC_RAW, Catalog, DriveSpec, Folder, IoOptions, NamespaceRow, Row, ShardRow};
use crate::vocab::crc::payload_crc;
use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{
    BlockKey, ByteCount, NamespaceId, NamespaceName, NamespaceSpec, Owner, SlotClass, SlotId, SystemClock, TierShape,
};

const NVME: ByteCount = ByteCount(4 << 20);
const LENGTH: usize = 5_000;

struct Store(tempfile::TempDir);

impl Store {
    /// A folder with one namespace and blocks 1, 2 and 3 of one chain in slots 0, 1 and 2 of extent 0.
    fn new() -> Self {
        let store = Self(tempfile::tempdir().unwrap());
        store.open(&[DriveSpec::here(NVME)]);
        store.catalog().put_namespace(&namespace()).unwrap();
        for nth in 1..=3 {
            store.put(nth, nth - 1, (nth > 1).then(|| nth - 1));
        }
        store
    }

    fn open(&self, drives: &[DriveSpec]) {
        let mut folder = Folder::open(self.dir(), drives, &SystemClock).unwrap();
        drop(folder.open_devices(IoOptions::default(), None).unwrap());
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(&self.dir().join("catalog")).unwrap().catalog
    }

    fn overwrite(&self, index: u8, payload: &[u8]) {
        let at = shape().offset(SlotId { extent: 0, index: index.into() }, class());
        File::options().write(true).open(self.dir().join("slots/0.kv")).unwrap().write_all_at(payload, at).unwrap();
    }

    fn put(&self, nth: u8, index: u8, parent: Option<u8>) {
        self.overwrite(index, &payload(nth));
        self.catalog().put(key(nth), &row(nth, index, parent)).unwrap();
    }

    fn verify(&self) -> VerifyReport {
        verify(self.dir(), |_, _| {}).unwrap()
    }

    /// (corrupt, stale, orphaned)
    fn wrong(&self) -> (u64, u64, u64) {
        let report = self.verify();
        let listed = |kind| report.problems.iter().filter(|problem| problem.kind == kind).count() as u64;
        let kinds = [ProblemKind::Corrupt, ProblemKind::Stale, ProblemKind::Orphaned];
        assert_eq!(kinds.map(listed), [report.corrupt, report.stale, report.orphaned]);
        (report.corrupt, report.stale, report.orphaned)
    }
}

fn shape() -> TierShape {
    let (extent, stride) = TierShape::plan(&[NVME.0]);
    TierShape::striped(&[NVME.0], extent, stride)
}

fn class() -> SlotClass {
    shape().class_for(LENGTH as u32)
}

fn namespace() -> NamespaceRow {
    let spec = NamespaceSpec {
        weights: Weights::Digest(Box::new([7; 32])),
        dtype: "bf16".into(),
        layout: "test".into(),
        block_tokens: 64,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes: LENGTH as u32,
        prefill_tokens_per_second: 0,
    };
    let fingerprint = spec.fingerprint();
    NamespaceRow { id: NamespaceId(1), name: NamespaceName::parse("llama").unwrap(), spec, fingerprint }
}

fn key(nth: u8) -> BlockKey {
    BlockKey::from_bytes([nth; 32])
}

fn payload(nth: u8) -> Vec<u8> {
    (0..LENGTH).map(|at| (at % 251) as u8 ^ nth).collect()
}

fn row(nth: u8, index: u8, parent: Option<u8>) -> Row {
    let length = LENGTH as u32;
    Row {
        slot: SlotId { extent: 0, index: index.into() },
        class: class(),
        length,
        codec: CODEC_RAW,
        owner: Owner { namespace: NamespaceId(1), ..Owner::default() },
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length, crc: payload_crc(&key(nth), &payload(nth)) }],
        parent: parent.map(key),
        depth: (nth - 1).into(),
        retention: 0,
        created_s: 1,
        last_use_s: 1,
        expires_s: 0,
    }
}

#[test]
fn a_whole_store_has_nothing_wrong_and_its_free_slots_are_counted() {
    let slots = u64::from(shape().slots(0, class()));
    let expected =
        VerifyReport { blocks: 3, bytes: 3 * LENGTH as u64, unreferenced_slots: slots - 3, ..VerifyReport::default() };
    assert_eq!(Store::new().verify(), expected);
}

#[test]
fn one_flipped_bit_is_a_corrupt_block_named_with_its_slot() {
    let store = Store::new();
    let mut changed = payload(2);
    changed[LENGTH - 1] ^= 1;
    store.overwrite(1, &changed);
    assert_eq!(store.wrong(), (1, 0, 0));
    let problem = store.verify().problems.remove(0);
    assert_eq!((problem.key, problem.slot.as_str()), (key(2).to_string(), "0:1"));
    assert!(problem.what.contains("checksum"), "{}", problem.what);
}

#[test]
fn of_two_rows_that_name_one_slot_the_one_whose_bytes_are_gone_is_stale() {
    let store = Store::new();
    // As if the row's deletion was lost with the power, and the slot had been used again.
    store.put(9, 2, None);
    assert_eq!(store.wrong(), (0, 1, 0));
    assert_eq!(store.verify().problems[0].key, key(3).to_string());
}

#[test]
fn a_slot_that_was_never_written_and_rows_that_no_daemon_would_take_are_stale() {
    let store = Store::new();
    store.overwrite(2, &[0; LENGTH]);
    assert_eq!(store.wrong(), (0, 1, 0));
    let outside = Row { slot: SlotId { extent: 1, index: 0 }, ..row(4, 3, None) };
    let unknown = Row { owner: Owner { namespace: NamespaceId(9), ..Owner::default() }, ..row(5, 4, None) };
    let class = SlotClass::of_bytes(16_384).unwrap();
    let other_size = Row { slot: SlotId { extent: 0, index: 9 }, class, ..row(6, 9, None) };
    store.catalog().put_batch([(key(4), &outside), (key(5), &unknown), (key(6), &other_size)]).unwrap();
    assert_eq!(store.wrong(), (0, 4, 0));
}

#[test]
fn once_the_machine_has_gone_down_under_a_daemon_a_row_without_its_bytes_is_stale_until_all_were_compared() {
    let store = Store::new();
    store.overwrite(1, &payload(8));
    assert_eq!((store.wrong(), store.verify().after_power_loss), ((1, 0, 0), false));
    // Left open in another life of the machine, as `index/life.rs` remembers it. The copy is made before it is closed.
    let catalog = store.catalog();
    catalog.put_meta("life", br#"{"boot":"before","open":true,"doubtful":false}"#).unwrap();
    let after = tempfile::tempdir().unwrap();
    copy(store.dir(), after.path());
    drop(catalog);
    let report = verify(after.path(), |_, _| {}).unwrap();
    assert_eq!((report.corrupt, report.stale, report.after_power_loss), (0, 1, true));
    // The next daemon does not know better; whoever has compared all rows does.
    drop(Catalog::open(&after.path().join("catalog")).unwrap());
    assert!(verify(after.path(), |_, _| {}).unwrap().after_power_loss);
    Catalog::open(&after.path().join("catalog")).unwrap().catalog.trust().unwrap();
    let report = verify(after.path(), |_, _| {}).unwrap();
    assert_eq!((report.corrupt, report.stale, report.after_power_loss), (1, 0, false));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn blocks_behind_a_missing_or_stale_ancestor_are_orphans() {
    let store = Store::new();
    store.catalog().delete(key(1)).unwrap();
    assert_eq!(store.wrong(), (0, 0, 2));
    let store = Store::new();
    store.overwrite(0, &[0; LENGTH]);
    assert_eq!(store.wrong(), (0, 1, 2));
}

#[test]
fn every_drive_is_read_and_the_blocks_of_a_missing_one_are_stale() {
    let store = Store::new();
    let second = tempfile::tempdir().unwrap();
    store.open(&[DriveSpec::here(NVME), DriveSpec { dir: Some(second.path().into()), bytes: NVME }]);
    let own = std::fs::read_dir(second.path()).unwrap().next().unwrap().unwrap().path();
    File::options().write(true).open(own.join("1.kv")).unwrap().write_all_at(&payload(4), 0).unwrap();
    let on_second = Row { slot: SlotId { extent: 1, index: 0 }, ..row(4, 0, Some(3)) };
    store.catalog().put(key(4), &on_second).unwrap();
    assert_eq!((store.verify().blocks, store.wrong()), (4, (0, 0, 0)));
    File::options().write(true).open(own.join("1.kv")).unwrap().write_all_at(&[0xff], 0).unwrap();
    assert_eq!((store.verify().problems[0].slot.as_str(), store.wrong()), ("1:0", (1, 0, 0)));
    std::fs::remove_dir_all(own).unwrap();
    assert_eq!(store.wrong(), (0, 1, 0));
    assert!(store.verify().problems[0].what.contains("on no drive that is here"));
}

#[test]
fn verifying_twice_says_the_same_and_loses_no_row() {
    let store = Store::new();
    store.overwrite(1, &payload(8));
    assert_eq!(store.verify(), store.verify());
    assert!(store.catalog().get(key(2)).unwrap().is_some());
}

#[test]
fn a_catalog_that_can_not_be_read_is_said_to_be_so_and_kept() {
    let store = Store::new();
    let current = store.dir().join("catalog/CURRENT");
    std::fs::write(&current, b"MANIFEST-999999\n").unwrap();
    let error = verify(store.dir(), |_, _| {}).unwrap_err();
    assert!(matches!(error, OfflineError::Catalog { source: crate::tiers::IndexError::Damaged(_), .. }), "{error}");
    assert_eq!(std::fs::read(current).unwrap(), b"MANIFEST-999999\n");
    assert!(!store.dir().join("catalog.damaged").exists());
}

#[test]
fn a_folder_in_use_and_one_that_is_no_store_are_refused() {
    let store = Store::new();
    let daemon = Folder::open(store.dir(), &[DriveSpec::here(NVME)], &SystemClock).unwrap();
    let error = verify(store.dir(), |_, _| {}).unwrap_err().to_string();
    assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
    drop(daemon);
    let error = verify(tempfile::tempdir().unwrap().path(), |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("is no kvtier data folder"), "{error}");
}

#[test]
fn progress_ends_with_all_bytes_read() {
    let store = Store::new();
    let mut last = (ByteCount(0), ByteCount(0));
    verify(store.dir(), |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (ByteCount(3 * LENGTH as u64), ByteCount(3 * LENGTH as u64)));
}

#[test]
fn namespaces_are_listed_with_what_they_hold() {
    let found = namespaces(Store::new().dir()).unwrap();
    assert_eq!((found.len(), found[0].name.as_str(), found[0].blocks), (1, "llama", 3));
    assert_eq!((found[0].bytes, found[0].fingerprint), (ByteCount(3 * LENGTH as u64), namespace().fingerprint));
}
