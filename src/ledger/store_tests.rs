//! Claims of the database: what a crash leaves, and what is no ledger.

use std::collections::BTreeSet;

use super::super::sample::settlement;
use super::*;

fn write(store: &Store, sequence: u64) {
    let record = UsageRecord::of(settlement("acme", &format!("b-{sequence}")), sequence).unwrap();
    let mut rows = Rows::default();
    rows.record(&record, None);
    store.write(rows).unwrap();
}

/// A copy of the folder as a killed process leaves it: everything still in the log.
fn killed(records: u64) -> tempfile::TempDir {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(folder.path()).unwrap();
    (1..=records).for_each(|sequence| write(&store, sequence));
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn log_of(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap()
}

fn unreadable(folder: &Path) -> String {
    match Store::open(folder).map(|_| ()) {
        Err(LedgerError::Unreadable { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_synced_survives_a_kill() {
    let folder = killed(5);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.last_sequence(), Ok(5));
    assert_eq!(store.hold().unwrap().view().records(0).count(), 5);
}

#[test]
fn a_torn_last_write_is_dropped_and_what_precedes_it_stays() {
    let folder = killed(5);
    let log = log_of(folder.path());
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 7]).unwrap();
    assert_eq!(Store::open(folder.path()).unwrap().last_sequence(), Ok(4));
}

// With RocksDB's default the ledger would open, and end silently before the damage.
#[test]
fn a_damaged_log_is_an_error_and_no_shorter_ledger() {
    let folder = killed(5);
    let log = log_of(folder.path());
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, &bytes).unwrap();
    assert!(unreadable(folder.path()).contains("Corruption"));
    assert_eq!(fs::read(&log).unwrap(), bytes, "left as it is");
}

#[test]
fn a_ledger_that_lost_files_is_an_error_and_never_made_anew() {
    for lost in ["CURRENT", "MANIFEST", ".sst", ".log"] {
        let folder = killed(5);
        drop(Store::open(folder.path()).unwrap());
        write(&Store::open(folder.path()).unwrap(), 6);
        let names = || fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let gone = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().contains(lost);
        names().filter(gone).for_each(|path| fs::remove_file(path).unwrap());
        let size = |path: PathBuf| (path.metadata().unwrap().len(), path);
        let rest =
            || names().map(size).filter(|(_, path)| !path.to_string_lossy().contains("LOG")).collect::<BTreeSet<_>>();
        let before = rest();
        unreadable(folder.path());
        assert!(rest().is_superset(&before), "{lost}: {before:?} {:?}", rest());
    }
}

#[test]
fn garbage_is_no_ledger() {
    let folder = killed(1);
    fs::write(folder.path().join("CURRENT"), b"nonsense").unwrap();
    unreadable(folder.path());
}

#[test]
fn another_database_is_no_ledger() {
    let folder = tempfile::tempdir().unwrap();
    DB::open_default(folder.path()).unwrap().put(b"key", b"value").unwrap();
    assert!(unreadable(folder.path()).contains("no ledger"));
}

#[test]
fn a_later_format_is_refused_by_number() {
    let folder = killed(1);
    let store = Store::open(folder.path()).unwrap();
    store.0.hold().unwrap().put(FORMAT_KEY, (FORMAT + 1).to_le_bytes()).unwrap();
    drop(store);
    let error = Store::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, LedgerError::Newer { found, known: FORMAT, .. } if found == FORMAT + 1), "{error}");
}

#[test]
fn a_ledger_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let _owner = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, LedgerError::InUse { .. }), "{error}");
}

#[test]
fn a_maker_that_died_halfway_is_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open_at(&folder.path().join("ledger.new"), true).unwrap());
    let store = Store::open(&folder.path().join("ledger")).unwrap();
    assert!(store.receipt_key().is_ok());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_row_that_does_not_read_names_itself() {
    let folder = killed(2);
    let store = Store::open(folder.path()).unwrap();
    store.0.hold().unwrap().put(record_key(2), b"\x01short").unwrap();
    let error = store.find(&TenantName::parse("acme").unwrap(), &BillingId::parse("b-2").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), r"ledger record row r\x00\x00\x00\x00\x00\x00\x00\x02: ends too early at byte 1");
}
