//! Claims about the data folder.

use std::collections::BTreeMap;

use super::*;
use crate::vocab::{ByteCount, VirtualClock};

const MIB: u64 = 1 << 20;

/// A folder with one drive of so many bytes in it, or none.
pub(super) fn open(dir: &Path, nvme: u64) -> Result<Folder, FolderError> {
    let here = DriveSpec::here(ByteCount(nvme));
    open_on(dir, if nvme == 0 { &[] } else { std::slice::from_ref(&here) })
}

pub(super) fn open_on(dir: &Path, drives: &[DriveSpec]) -> Result<Folder, FolderError> {
    Folder::open_within(dir, drives, &VirtualClock::default(), Duration::ZERO)
}

/// Opens and closes it, drives and all.
pub(super) fn start(dir: &Path, drives: &[DriveSpec]) -> Result<Folder, FolderError> {
    let mut folder = open_on(dir, drives)?;
    folder.open_devices(IoOptions::default(), None)?;
    Ok(folder)
}

/// Every file below `dir` with what is in it.
pub(super) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
            files.insert(path, Vec::new());
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

fn total(folder: &Folder) -> u64 {
    folder.shape().total().0
}

#[test]
fn a_store_keeps_its_identity_and_its_carving() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/for/it");
    let mut first = open(&dir, 16 * MIB).unwrap();
    let (store, extent) = (first.store().clone(), first.shape().extent_bytes());
    assert_eq!((store.to_string().len(), extent), (32, MIB));
    assert_eq!(first.open_devices(IoOptions::default(), None).unwrap().len(), 1);
    drop(first);
    let larger = open(&dir, 32 * MIB).unwrap();
    assert_eq!((larger.store(), larger.shape().extent_bytes(), total(&larger)), (&store, extent, 32 * MIB));
    drop(larger);
    let looked = Folder::inspect(&dir).unwrap();
    assert_eq!((looked.store(), total(&looked)), (&store, 16 * MIB));
}

#[test]
fn a_store_without_a_drive_is_carved_when_it_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut none = open(dir.path(), 0).unwrap();
    assert_eq!(none.shape(), TierShape::NONE);
    assert!(none.open_devices(IoOptions::default(), None).unwrap().is_empty());
    drop(none);
    let carved = TierShape::striped(&[64 * MIB], 4 * MIB, 16);
    assert_eq!(open(dir.path(), 64 * MIB).unwrap().shape(), carved);
    drop(start(dir.path(), &[DriveSpec::here(ByteCount(64 * MIB))]).unwrap());
    assert_eq!(total(&open(dir.path(), 0).unwrap()), 0);
    assert_eq!(open(dir.path(), 64 * MIB).unwrap().shape(), carved);
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &[DriveSpec::here(ByteCount(MIB))]).unwrap());
    std::fs::write(dir.path().join(FORMAT), br#"{"format": 3, "shape": "something new"}"#).unwrap();
    let before = contents(dir.path());
    for refused in [open(dir.path(), MIB), Folder::inspect(dir.path())] {
        let error = refused.unwrap_err();
        assert!(matches!(error, FolderError::NewerFormat { found: 3, known: 2, .. }), "{error}");
    }
    assert_eq!(contents(dir.path()), before);
    let store = "00000000000000000000000000000000";
    for bad in [
        "{".to_owned(),
        r#"{"format": 0}"#.to_owned(),
        format!(
            r#"{{"format": 2, "store": "{store}", "extent_bytes": 4096, "stride": 0, "drives": [], "created_ms": 0}}"#
        ),
        format!(
            r#"{{"format": 2, "store": "{store}", "extent_bytes": 1, "stride": 1, "drives": [], "created_ms": 0}}"#
        ),
    ] {
        std::fs::write(dir.path().join(FORMAT), &bad).unwrap();
        assert!(matches!(open(dir.path(), MIB), Err(FolderError::BadFormat { .. })), "{bad}");
    }
}

#[test]
fn format_1_is_migrated_with_its_drive_as_it_was_once_the_drive_is_open() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &[DriveSpec::here(ByteCount(4 * MIB))]).unwrap());
    let store = "0123456789abcdef0123456789abcdef";
    let format = format!(r#"{{"format": 1, "store": "{store}", "extent_bytes": 262144, "created_ms": 7}}"#);
    std::fs::write(dir.path().join(FORMAT), &format).unwrap();
    std::fs::write(dir.path().join("slots/0.kv"), vec![9; 4 << 20]).unwrap();
    let looked = Folder::inspect(dir.path()).unwrap();
    assert_eq!(
        (looked.store().to_string().as_str(), looked.shape()),
        (store, TierShape::with_extent(4 * MIB, MIB / 4))
    );
    drop(looked);
    let before = contents(dir.path());
    drop(open(dir.path(), 4 * MIB).unwrap());
    assert_eq!(contents(dir.path())[&dir.path().join(FORMAT)], before[&dir.path().join(FORMAT)], "not before");
    let folder = start(dir.path(), &[DriveSpec::here(ByteCount(4 * MIB))]).unwrap();
    assert_eq!(
        (folder.store().to_string().as_str(), folder.shape()),
        (store, TierShape::with_extent(4 * MIB, MIB / 4))
    );
    let after = contents(dir.path());
    let changed: Vec<_> = after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).collect();
    assert_eq!(changed.len(), 1, "nothing but FORMAT");
    let written: serde_json::Value = serde_json::from_slice(changed[0].1).unwrap();
    let expected = serde_json::json!({
        "format": 2, "store": store, "extent_bytes": 262_144, "stride": 1, "drives": [{"dir": null}], "created_ms": 7,
    });
    assert_eq!(written, expected);
}

#[test]
fn a_folder_in_use_is_refused_and_its_holder_named() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), MIB).unwrap();
    for refused in [open(dir.path(), MIB), Folder::inspect(dir.path())] {
        let text = refused.unwrap_err().to_string();
        let end = format!("is in use by process {}", std::process::id());
        assert!(text.ends_with(&end) && text.contains(&*dir.path().to_string_lossy()), "{text}");
    }
    drop(first);
    open(dir.path(), MIB).unwrap();
}

#[test]
fn a_size_that_does_not_fit_is_refused_with_what_would() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path(), 60 << 40).unwrap_err();
    assert!(error.to_string().starts_with("nvme: 60.0 TiB does not fit: "), "{error}");
    assert!(matches!(error, FolderError::TooLarge { free, .. } if free.0 > 0));
    drop(start(dir.path(), &[DriveSpec::here(ByteCount(MIB))]).unwrap());
    let error = open(dir.path(), 5 << 30).unwrap_err();
    assert!(matches!(error, FolderError::Unaddressable { most: ByteCount(268_435_456), .. }), "{error}");
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("made/for/it");
    open(&deep, 60 << 40).unwrap_err();
    assert!(contents(dir.path()).is_empty(), "a size that does not fit");
    drop(open(&deep, MIB).unwrap());
    assert!(contents(dir.path()).is_empty(), "a start that went no further");
    std::fs::create_dir_all(&deep).unwrap();
    open(&deep, 60 << 40).unwrap_err();
    assert_eq!(contents(dir.path()).len(), 3, "a folder that was there stays, and is empty");
    let nowhere = DriveSpec { dir: Some(dir.path().join("nowhere")), bytes: ByteCount(MIB) };
    let error = open_on(&deep, &[nowhere]).unwrap_err().to_string();
    assert!(error.contains("mount the drive there before it is given for the first time"), "{error}");
    assert_eq!(contents(dir.path()).len(), 3);
    drop(start(&deep, &[DriveSpec::here(ByteCount(MIB))]).unwrap());
    let before = contents(dir.path());
    open(&deep, 5 << 30).unwrap_err();
    assert_eq!(contents(dir.path()), before, "and a store stays as it is");
}

#[test]
fn somebody_elses_folder_is_not_made_a_store() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), b"mine").unwrap();
    let before = contents(dir.path());
    assert!(matches!(open(dir.path(), MIB), Err(FolderError::NotAStore { .. })));
    assert!(matches!(Folder::inspect(dir.path()), Err(FolderError::NoStore { .. })));
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_look_creates_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &[DriveSpec::here(ByteCount(MIB))]).unwrap());
    let before = contents(dir.path());
    let mut looked = Folder::inspect(dir.path()).unwrap();
    assert_eq!(looked.open_devices(IoOptions::default(), None).unwrap().iter().flatten().count(), 1);
    drop(looked);
    assert_eq!(contents(dir.path()), before);
    assert!(matches!(Folder::inspect(&dir.path().join("nowhere")), Err(FolderError::NoStore { .. })));
    assert_eq!(contents(dir.path()), before);
}
