//! Claims about the data folder.

use std::collections::BTreeMap;

use super::*;
use crate::vocab::VirtualClock;

const MIB: u64 = 1 << 20;

fn open(dir: &Path, nvme: u64) -> Result<Folder, FolderError> {
    Folder::open_within(dir, ByteCount(nvme), &VirtualClock::default(), Duration::ZERO)
}

/// Every file below `dir` with what is in it.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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

#[test]
fn a_store_keeps_its_identity_and_its_carving() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/for/it");
    let first = open(&dir, 16 * MIB).unwrap();
    let (store, extent) = (first.store().clone(), first.shape().extent_bytes());
    assert_eq!((store.to_string().len(), first.shape().extents()), (32, 16));
    drop(first.open_device().unwrap().unwrap());
    drop(first);
    let larger = open(&dir, 32 * MIB).unwrap();
    assert_eq!((larger.store(), larger.shape().extent_bytes()), (&store, extent));
    assert_eq!((larger.shape().extents(), larger.shape().total()), (32, ByteCount(32 * MIB)));
    drop(larger);
    let looked = Folder::inspect(&dir).unwrap();
    assert_eq!((looked.store(), looked.shape().total()), (&store, ByteCount(16 * MIB)));
}

#[test]
fn a_store_without_a_drive_is_carved_when_it_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let none = open(dir.path(), 0).unwrap();
    assert_eq!(none.shape().total(), ByteCount::ZERO);
    assert!(none.open_device().unwrap().is_none());
    drop(none);
    assert_eq!(open(dir.path(), 64 * MIB).unwrap().shape(), TierShape::carve(ByteCount(64 * MIB)));
    assert_eq!(open(dir.path(), 0).unwrap().shape().total(), ByteCount::ZERO);
    assert_eq!(open(dir.path(), 64 * MIB).unwrap().shape(), TierShape::carve(ByteCount(64 * MIB)));
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), MIB).unwrap());
    std::fs::write(dir.path().join(FORMAT), br#"{"format": 2, "shape": "something new"}"#).unwrap();
    let before = contents(dir.path());
    for refused in [open(dir.path(), MIB), Folder::inspect(dir.path())] {
        let error = refused.unwrap_err();
        assert!(matches!(error, FolderError::NewerFormat { found: 2, known: 1, .. }), "{error}");
    }
    assert_eq!(contents(dir.path()), before);
    std::fs::write(dir.path().join(FORMAT), b"{").unwrap();
    assert!(matches!(open(dir.path(), MIB), Err(FolderError::BadFormat { .. })));
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
    let folder = open(dir.path(), MIB).unwrap();
    assert_eq!(folder.shape().extent_bytes(), MIB / 16);
    drop(folder);
    let error = open(dir.path(), 5 << 30).unwrap_err();
    assert!(matches!(error, FolderError::Unaddressable { most: ByteCount(4_294_967_296), .. }), "{error}");
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
    drop(open(dir.path(), MIB).unwrap());
    let before = contents(dir.path());
    drop(Folder::inspect(dir.path()).unwrap());
    assert_eq!(contents(dir.path()), before);
    assert!(matches!(Folder::inspect(&dir.path().join("nowhere")), Err(FolderError::NoStore { .. })));
    assert_eq!(contents(dir.path()), before);
}
