//! The database itself: four kinds of rows in one key space, written in synced batches. No other file of the room
//! knows that it is RocksDB.
//!
//! | key | value |
//! |---|---|
//! | `m` name | what the database knows of itself: its format, the key of its delivery receipts, what exporters have |
//! | `r` sequence (big-endian) | a record |
//! | `i` tenant 0 billing id | the sequence of its record: the identity that makes a settle happen once |
//! | `u` tenant 0 namespace 0 hour fingerprint | sums of its records |
//! | `q` account | what it may keep |

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rocksdb::{BlockBasedOptions, DB, DBRecoveryMode, Direction, ErrorKind, IteratorMode, Options, WriteOptions};

use super::codec::DecodeError;
use super::record::UsageRecord;
use super::rollup::{RollupKey, Usage};
use super::{LedgerError, ReceiptKey};
use crate::vocab::limits::LEDGER_BUFFER_BYTES;
use crate::vocab::{BillingId, TenantName};

/// Format of the key space; a change of any row's meaning makes another one.
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"mformat";
const RECEIPT_KEY: &[u8] = b"mreceipt_key";
const ACKNOWLEDGED_KEY: &[u8] = b"macknowledged";
/// Kinds of rows.
pub(super) const RECORD: u8 = b'r';
pub(super) const IDENTITY: u8 = b'i';
pub(super) const ROLLUP: u8 = b'u';
pub(super) const QUOTA: u8 = b'q';

/// The open database.
pub(super) struct Store {
    db: DB,
    path: PathBuf,
    #[cfg(test)]
    options: Options,
    #[cfg(test)]
    failing: std::sync::atomic::AtomicBool,
}

/// Rows to be written together.
#[derive(Default)]
pub(super) struct Rows(rocksdb::WriteBatch);

/// One moment of the database, for reads that belong together.
pub(super) struct View<'a>(rocksdb::Snapshot<'a>);

/// A row without the kind in its key.
pub(super) type Row = (Box<[u8]>, Box<[u8]>);

impl Rows {
    pub(super) fn record(&mut self, record: &UsageRecord) {
        self.0.put(record_key(record.sequence), record.encode());
        self.0.put(identity_key(&record.tenant, &record.billing_id), record.sequence.to_be_bytes());
    }

    pub(super) fn rollup(&mut self, key: &RollupKey, usage: &Usage) {
        self.0.put(keyed(ROLLUP, &key.encode()), usage.encode());
    }

    pub(super) fn quota(&mut self, account: &[u8], quota: &[u8]) {
        self.0.put(keyed(QUOTA, account), quota);
    }

    pub(super) fn secret(&mut self, name: &str, bytes: &[u8]) {
        self.0.put(secret_key(name), bytes);
    }

    /// Exporters have all records up to this sequence.
    pub(super) fn acknowledged(&mut self, through: u64) {
        self.0.put(ACKNOWLEDGED_KEY, through.to_be_bytes());
    }
}

impl Store {
    /// Opens the database, or makes one where the folder is absent or empty.
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        if is_empty(path).map_err(|error| folder_error(path, &error))? {
            make(path)?;
        } else if !has_log(path).map_err(|error| folder_error(path, &error))? {
            // An open database always has one, and opens without a complaint when it is gone.
            return Err(unreadable(path, "its write-ahead log is missing"));
        }
        let store = Self::open_at(path, false)?;
        store.check_format()?;
        Ok(store)
    }

    fn open_at(path: &Path, create: bool) -> Result<Self, LedgerError> {
        let options = options(create);
        let db = DB::open(&options, path).map_err(|error| open_error(path, &error))?;
        Ok(Self {
            db,
            path: path.to_owned(),
            #[cfg(test)]
            options,
            #[cfg(test)]
            failing: Default::default(),
        })
    }

    /// The key of delivery receipts, which lives as long as the ledger does.
    pub(super) fn receipt_key(&self) -> Result<ReceiptKey, LedgerError> {
        let bytes = self.get(RECEIPT_KEY)?.ok_or_else(|| self.unreadable("the receipt key is missing"))?;
        let bytes = bytes.try_into().map_err(|_| self.unreadable("the receipt key is not 32 bytes"))?;
        Ok(ReceiptKey::new(bytes))
    }

    /// Bytes that are kept under a name.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        self.get(&secret_key(name))
    }

    /// Sequence of the last record; 0 where there is none.
    pub(super) fn last_sequence(&self) -> Result<u64, LedgerError> {
        let beyond = [RECORD + 1];
        match self.db.iterator(IteratorMode::From(&beyond, Direction::Reverse)).next() {
            None => Ok(0),
            Some(Err(error)) => Err(database("read the last record", &error)),
            Some(Ok((key, _))) if key.first() == Some(&RECORD) => sequence_of(&key[1..], "record", &key),
            Some(Ok(_)) => Ok(0),
        }
    }

    /// Up to which sequence exporters have all records; 0 where they have none.
    pub(super) fn acknowledged(&self) -> Result<u64, LedgerError> {
        self.get(ACKNOWLEDGED_KEY)?.map_or(Ok(0), |sequence| sequence_of(&sequence, "acknowledged", ACKNOWLEDGED_KEY))
    }

    /// The record of an identity.
    pub(super) fn find(&self, tenant: &TenantName, billing_id: &BillingId) -> Result<Option<UsageRecord>, LedgerError> {
        let identity = identity_key(tenant, billing_id);
        let Some(sequence) = self.get(&identity)? else { return Ok(None) };
        let sequence = sequence_of(&sequence, "identity", &identity)?;
        let key = record_key(sequence);
        let dangling = DecodeError { what: "its record is missing", at: 0 };
        let row = self.get(&key)?.ok_or_else(|| row_error("identity", &identity, dangling))?;
        UsageRecord::decode(&row).map(Some).map_err(|source| row_error("record", &key, source))
    }

    /// The sums so far.
    pub(super) fn rollup(&self, key: &RollupKey) -> Result<Usage, LedgerError> {
        let key = keyed(ROLLUP, &key.encode());
        let Some(row) = self.get(&key)? else { return Ok(Usage::default()) };
        Usage::decode(&row).map_err(|source| row_error("rollup", &key, source))
    }

    /// Writes the rows, all or none, and returns when they are on disk.
    pub(super) fn write(&self, rows: Rows) -> Result<(), LedgerError> {
        #[cfg(test)]
        if self.failing.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(LedgerError::Database { doing: "write", detail: "told to fail by a test".into() });
        }
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db.write_opt(rows.0, &synced).map_err(|error| database("write", &error))
    }

    pub(super) fn view(&self) -> View<'_> {
        View(self.db.snapshot())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        self.db.get(key).map_err(|error| database("read", &error))
    }

    fn check_format(&self) -> Result<(), LedgerError> {
        let format = self.get(FORMAT_KEY)?.ok_or_else(|| self.unreadable("it has no format: it is no ledger"))?;
        let found =
            format.try_into().map(u32::from_le_bytes).map_err(|_| self.unreadable("its format is no number"))?;
        if found > FORMAT {
            return Err(LedgerError::Newer { path: self.path.clone(), found, known: FORMAT });
        }
        Ok(())
    }

    fn unreadable(&self, detail: &str) -> LedgerError {
        unreadable(&self.path, detail)
    }
}

impl<'s> View<'s> {
    /// Rows of a kind whose keys start with `prefix`, from `from` on, in order of their keys.
    pub(super) fn rows(
        &self,
        kind: u8,
        prefix: &[u8],
        from: &[u8],
    ) -> impl Iterator<Item = Result<Row, LedgerError>> + use<'s> {
        let prefix = keyed(kind, prefix);
        let start = keyed(kind, from).max(prefix.clone());
        self.0
            .iterator(IteratorMode::From(&start, Direction::Forward))
            .map(|row| row.map_err(|error| database("read", &error)))
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)))
            .map(|row| row.map(|(key, value)| (key[1..].into(), value)))
    }

    /// Records after a sequence, in order.
    pub(super) fn records(&self, after: u64) -> impl Iterator<Item = Result<UsageRecord, LedgerError>> + use<'s> {
        self.rows(RECORD, &[], &after.saturating_add(1).to_be_bytes()).map(|row| {
            let (key, value) = row?;
            let record = UsageRecord::decode(&value).map_err(|source| row_error("record", &key, source))?;
            if record.sequence.to_be_bytes() != *key {
                return Err(row_error("record", &key, DecodeError { what: "another record's sequence", at: 1 }));
            }
            Ok(record)
        })
    }

    /// Sums whose keys start with `prefix`, in order.
    pub(super) fn rollups(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(RollupKey, Usage), LedgerError>> + use<'s> {
        self.rows(ROLLUP, prefix, &[]).map(|row| {
            let (key, value) = row?;
            let read = || Ok((RollupKey::decode(&key)?, Usage::decode(&value)?));
            read().map_err(|source| row_error("rollup", &key, source))
        })
    }

    /// Sequence that an identity names.
    pub(super) fn identity(&self, record: &UsageRecord) -> Result<Option<u64>, LedgerError> {
        let key = identity_key(&record.tenant, &record.billing_id);
        let row = self.0.get(&key).map_err(|error| database("read", &error))?;
        row.map(|sequence| sequence_of(&sequence, "identity", &key)).transpose()
    }
}

fn options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    // A torn last write is what a crash leaves, and was never acknowledged. Anything else that is wrong in the log is
    // lost usage, and must be an error: the default would silently stop there and forget what follows.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A log file that is gone is an error, too; the last one is not covered by this, see `has_log`.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_size(LEDGER_BUFFER_BYTES);
    options.set_max_background_jobs(2);
    options.set_stats_dump_period_sec(0);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    #[cfg(test)]
    options.enable_statistics();
    let mut tables = BlockBasedOptions::default();
    // Nearly every settle asks for an identity that is not there.
    tables.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&tables);
    options
}

/// Makes an empty ledger beside its place and moves it there, so that a folder with anything in it is a whole ledger
/// or a damaged one, and never one that was half made.
fn make(path: &Path) -> Result<(), LedgerError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let prepare = || {
        if beside.try_exists()? {
            // Left by a maker that died: nobody has settled in it.
            fs::remove_dir_all(&beside)?;
        }
        // It will hold the key of receipts.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&beside)
    };
    prepare().map_err(|error| folder_error(&beside, &error))?;
    let mut rows = Rows::default();
    rows.0.put(FORMAT_KEY, FORMAT.to_le_bytes());
    rows.0.put(RECEIPT_KEY, rand::random::<[u8; 32]>());
    Store::open_at(&beside, true)?.write(rows)?;
    let put_in_place = || {
        fs::rename(&beside, path)?;
        // Or a power cut takes the folder with everything that is settled in it.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent)?.sync_all()
    };
    put_in_place().map_err(|error| folder_error(path, &error))
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(!path.try_exists()? || fs::read_dir(path)?.next().is_none())
}

fn has_log(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if entry?.path().extension().is_some_and(|end| end == "log") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn unreadable(path: &Path, detail: &str) -> LedgerError {
    LedgerError::Unreadable { path: path.to_owned(), detail: detail.to_owned() }
}

fn folder_error(path: &Path, error: &io::Error) -> LedgerError {
    LedgerError::Folder { path: path.to_owned(), detail: error.to_string() }
}

fn open_error(path: &Path, error: &rocksdb::Error) -> LedgerError {
    let (path, detail) = (path.to_owned(), error.to_string());
    let locked =
        error.kind() == ErrorKind::IOError && (detail.contains("lock hold by") || detail.contains("lock file"));
    if locked { LedgerError::InUse { path, detail } } else { LedgerError::Unreadable { path, detail } }
}

fn database(doing: &'static str, error: &rocksdb::Error) -> LedgerError {
    LedgerError::Database { doing, detail: error.to_string() }
}

pub(super) fn row_error(row: &'static str, key: &[u8], source: DecodeError) -> LedgerError {
    LedgerError::Row { row, key: key.escape_ascii().to_string(), source }
}

fn keyed(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(rest);
    key
}

fn secret_key(name: &str) -> Vec<u8> {
    [b"msecret:", name.as_bytes()].concat()
}

fn record_key(sequence: u64) -> Vec<u8> {
    keyed(RECORD, &sequence.to_be_bytes())
}

fn identity_key(tenant: &TenantName, billing_id: &BillingId) -> Vec<u8> {
    let mut key = keyed(IDENTITY, tenant.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(billing_id.as_str().as_bytes());
    key
}

fn sequence_of(bytes: &[u8], row: &'static str, key: &[u8]) -> Result<u64, LedgerError> {
    let wrong = DecodeError { what: "a sequence that is not 8 bytes", at: 0 };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| row_error(row, key, wrong))
}

#[cfg(test)]
impl Store {
    /// Whether every later write fails.
    pub(super) fn fail_writes(&self, failing: bool) {
        self.failing.store(failing, std::sync::atomic::Ordering::Relaxed);
    }

    /// How often the log was synced.
    pub(super) fn synced_writes(&self) -> u64 {
        self.options.get_ticker_count(rocksdb::statistics::Ticker::WalFileSynced)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sample::settlement;
    use super::*;

    fn write(store: &Store, sequence: u64) {
        let record = UsageRecord::of(settlement("acme", &format!("b-{sequence}")), sequence).unwrap();
        let mut rows = Rows::default();
        rows.record(&record);
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
        assert_eq!(store.view().records(0).count(), 5);
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
            let rest = || {
                names().map(size).filter(|(_, path)| !path.to_string_lossy().contains("LOG")).collect::<BTreeSet<_>>()
            };
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
        store.db.put(FORMAT_KEY, 2_u32.to_le_bytes()).unwrap();
        drop(store);
        let error = Store::open(folder.path()).map(|_| ()).unwrap_err();
        assert!(matches!(error, LedgerError::Newer { found: 2, known: FORMAT, .. }), "{error}");
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
        store.db.put(record_key(2), b"\x01short").unwrap();
        let error = store.find(&TenantName::parse("acme").unwrap(), &BillingId::parse("b-2").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), r"ledger record row r\x00\x00\x00\x00\x00\x00\x00\x02: ends too early at byte 1");
    }
}
