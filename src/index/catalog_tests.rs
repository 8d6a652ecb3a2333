//! Claims about the catalog, on a real database.

use std::path::PathBuf;

use super::super::namespace::tests::row as namespace;
use super::super::row::tests::row;
use super::*;
use crate::vocab::TenantName;
use crate::vocab::namespace::{HashScheme, Weights};

fn key(byte: u8) -> BlockKey {
    BlockKey::from_bytes([byte; 32])
}

fn keys(catalog: &Catalog) -> Vec<BlockKey> {
    let mut keys = Vec::new();
    catalog
        .scan(|key, read| {
            assert_eq!(read, row());
            keys.push(key);
        })
        .unwrap();
    keys
}

fn opened(path: &Path) -> Catalog {
    let opened = Catalog::open(path).unwrap();
    assert!(!opened.rebuilt);
    opened.catalog
}

fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

#[test]
fn rows_come_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let tokens = namespace(3, Weights::Digest(Box::new([7; 32])), HashScheme::Tokens);
    let acme = AccountName::Tenant(TenantName::parse("acme").unwrap());
    let catalog = opened(&path);
    catalog.put_batch([(key(1), &row()), (key(2), &row()), (key(3), &row()), (key(4), &row())]).unwrap();
    catalog.put(key(5), &row()).unwrap();
    catalog.delete(key(1)).unwrap();
    catalog.delete_batch([key(2), key(9)]).unwrap();
    catalog.put_namespace(&tokens).unwrap();
    catalog.put_account(AccountId(300), &acme).unwrap();
    catalog.put_meta("boot", b"7").unwrap();
    drop(catalog);

    let catalog = opened(&path);
    assert_eq!(keys(&catalog), vec![key(3), key(4), key(5)]);
    assert_eq!((catalog.get(key(3)).unwrap(), catalog.get(key(1)).unwrap()), (Some(row()), None));
    assert_eq!(catalog.namespaces().unwrap(), vec![tokens]);
    assert_eq!(catalog.accounts().unwrap(), vec![(AccountId(300), acme)]);
    assert_eq!(catalog.meta("boot").unwrap().as_deref(), Some(&b"7"[..]));
}

#[test]
fn rows_that_cannot_be_read_are_counted_and_deleted_and_never_misread() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = opened(&folder.path().join("catalog"));
    let newer = [&[9], &row().encode()[1..]].concat();
    catalog.put(key(1), &row()).unwrap();
    catalog.db.put(BLOCKS, key(2).as_bytes(), &newer).unwrap();
    catalog.db.put(BLOCKS, b"short key", &row().encode()).unwrap();
    catalog.db.put(NAMESPACES, &[0, 1], b"{}").unwrap();
    catalog.db.put(TENANTS, &[0, 1], b"two words").unwrap();
    assert_eq!(catalog.get(key(2)).unwrap(), None);
    assert_eq!(catalog.scan(|_, _| {}).unwrap(), Scanned { rows: 1, undecodable: 2 });
    assert_eq!(catalog.scan(|_, _| {}).unwrap(), Scanned { rows: 1, undecodable: 0 });
    assert_eq!((catalog.namespaces().unwrap(), catalog.accounts().unwrap()), (vec![], vec![]));
}

#[test]
fn after_a_failed_write_none_is_tried_until_it_is_mended_and_what_was_put_in_vain_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let catalog = opened(&path);
    catalog.put_batch([(key(1), &row()), (key(2), &row())]).unwrap();
    catalog.db.lie(true);
    assert!(matches!(catalog.put(key(3), &row()), Err(IndexError::Io(_))));
    assert_eq!(catalog.get(key(3)).unwrap(), Some(row()), "it is there, by the database's log");
    for error in [catalog.put(key(4), &row()), catalog.delete(key(1)), catalog.put_meta("boot", b"7")] {
        assert!(matches!(error, Err(IndexError::Failing(_))), "{error:?}");
    }
    assert!(catalog.is_failing());
    catalog.db.lie(false);
    assert!(catalog.put(key(4), &row()).is_err(), "nobody knows what the first one has left");

    catalog.mend().unwrap();
    assert!(!catalog.is_failing());
    assert_eq!(keys(&catalog), [key(1), key(2)]);
    catalog.put(key(4), &row()).unwrap();
    catalog.delete(key(1)).unwrap();
    drop(catalog);
    assert_eq!(keys(&opened(&path)), [key(2), key(4)]);
}

#[test]
fn what_can_not_be_opened_is_not_mended_and_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("catalog"), folder.path().join("away"));
    let catalog = opened(&path);
    catalog.put(key(1), &row()).unwrap();
    catalog.db.lie(true);
    catalog.put(key(2), &row()).unwrap_err();
    catalog.db.lie(false);
    std::fs::rename(&path, &away).unwrap();
    catalog.mend().unwrap_err();
    assert!(catalog.is_failing());
    assert!(matches!(catalog.get(key(1)), Err(IndexError::Failing(_))));
    assert!(matches!(catalog.scan(|_, _| {}), Err(IndexError::Failing(_))));
    drop(std::fs::remove_dir_all(&path));
    std::fs::rename(&away, &path).unwrap();
    catalog.mend().unwrap();
    assert_eq!(keys(&catalog), [key(1)]);
}

#[test]
fn an_unreadable_catalog_is_moved_aside_and_rebuilt_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    for damage in ["manifest cut", "manifest gone", "a file in its place"] {
        drop(std::fs::remove_dir_all(&path));
        opened(&path).put(key(1), &row()).unwrap();
        let manifest = files(&path, "").into_iter().find(|path| path.to_string_lossy().contains("MANIFEST")).unwrap();
        match damage {
            "manifest cut" => std::fs::write(manifest, b"nonsense that is no manifest").unwrap(),
            "manifest gone" => std::fs::remove_file(manifest).unwrap(),
            _ => std::fs::write(path.join("CURRENT"), b"MANIFEST-999999\n").unwrap(),
        }
        let Opened { catalog, rebuilt } = Catalog::open(&path).unwrap();
        assert!(rebuilt, "{damage}");
        assert_eq!(keys(&catalog), vec![], "{damage}");
        catalog.put(key(2), &row()).unwrap();
        drop(catalog);
        assert_eq!(keys(&opened(&path)), vec![key(2)], "{damage}");
        assert!(folder.path().join("catalog.damaged").is_dir());
    }
}

#[test]
fn damage_that_a_scan_meets_is_reported_and_can_be_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let catalog = opened(&path);
    let row = row();
    catalog.put_batch((0..200).map(|byte| (key(byte), &row))).unwrap();
    catalog.db.with(|db| Ok(db.flush_cf(family_of(db, BLOCKS)?)?)).unwrap();
    drop(catalog);
    let table = files(&path, ".sst").into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&table, bytes).unwrap();

    let catalog = opened(&path);
    let error = catalog.scan(|_, _| {}).unwrap_err();
    assert!(matches!(error, IndexError::Damaged(_)), "{error}");
    assert_eq!(catalog.scan_on(2, |_, _| (), |_| {}).unwrap_err(), error);
    drop(catalog);
    assert_eq!(keys(&Catalog::rebuild(&path, &error.to_string()).unwrap()), vec![]);
}

#[test]
fn a_catalog_in_use_is_refused_and_not_taken_for_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let first = opened(&path);
    first.put(key(1), &row()).unwrap();
    let error = Catalog::open(&path).unwrap_err();
    assert!(matches!(error, IndexError::Io(_)), "{error}");
    assert_eq!(keys(&first), vec![key(1)]);
}

#[test]
fn another_schema_means_to_start_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    let catalog = opened(&path);
    catalog.put(key(1), &row()).unwrap();
    catalog.put_meta(SCHEMA_KEY, b"2").unwrap();
    drop(catalog);
    let Opened { catalog, rebuilt } = Catalog::open(&path).unwrap();
    assert!(rebuilt);
    assert_eq!(keys(&catalog), vec![]);
}

#[test]
fn a_look_changes_nothing_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog");
    assert!(matches!(Catalog::open_existing(&path), Err(IndexError::Damaged(_))));
    assert!(!path.join("CURRENT").exists());
    let catalog = opened(&path);
    catalog.put(key(1), &row()).unwrap();
    catalog.db.put(BLOCKS, b"short", b"no row").unwrap();
    catalog.db.put(NAMESPACES, b"no", b"namespace").unwrap();
    drop(catalog);
    for _ in 0..2 {
        let look = Catalog::open_existing(&path).unwrap();
        assert_eq!(look.scan(|_, _| {}).unwrap(), Scanned { rows: 1, undecodable: 1 });
        assert_eq!(look.namespaces().unwrap(), vec![]);
        assert!(look.put(key(2), &row()).is_err());
    }
}

#[test]
fn a_walk_by_keys_meets_each_once_whatever_comes_and_goes_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = opened(&folder.path().join("catalog"));
    (1..=9).for_each(|byte| catalog.put(key(byte), &row()).unwrap());
    let keys = |bytes: &[u8]| bytes.iter().copied().map(key).collect::<Vec<_>>();
    assert_eq!(catalog.keys_after(None, 4).unwrap(), keys(&[1, 2, 3, 4]));
    catalog.delete(key(4)).unwrap();
    catalog.put(key(0), &row()).unwrap();
    assert_eq!(catalog.keys_after(Some(key(4)), 4).unwrap(), keys(&[5, 6, 7, 8]));
    assert_eq!(catalog.keys_after(Some(key(8)), 4).unwrap(), keys(&[9]));
    assert_eq!(catalog.keys_after(Some(key(9)), 4).unwrap(), []);
}
