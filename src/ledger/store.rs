//! The database itself: its kinds of rows in one key space, written in synced batches. No other file of the room but
//! `view.rs` and `database.rs` knows that it is RocksDB.
//!
//! | key | value |
//! |---|---|
//! | `m` name | what the database knows of itself: its format, the key of its delivery receipts, what exporters have, the counters of all records, up to when deliveries may have been billed by records that are gone, that it was healed |
//! | `r` sequence (big-endian) | a record |
//! | `i` tenant 0 billing id | the sequence of its record: the identity that makes a settle happen once; of a correction, a digest of what was asked for, too |
//! | `c` tenant 0 billing id | what a corrected record comes to by now |
//! | `u` tenant 0 namespace 0 hour fingerprint (user 0 key 0) | sums of its records |
//! | `b` as `u` | of these sums, what came from records that were deleted |
//! | `o` digest of tenant, instance and request | what is known of a delivery: how much records have told of, and whose hits it is |
//! | `d` tenant 0 billing id | a claim that was refused because it was more than was delivered |
//! | `q` account | what it may keep |
//! | `s` account 0 namespace 0 hour class | tokens × milliseconds held |

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use rocksdb::{DB, Direction, IteratorMode};

use super::codec::DecodeError;
use super::correction::Standing;
use super::database::{Before, Database, database, folder_error, has_log, unreadable};
use super::delivery::{Delivery, DeliveryKey};
use super::record::UsageRecord;
use super::rollup::{RollupKey, Usage};
use super::view::View;
use super::{Divergence, LedgerError, ReceiptKey};
use crate::vocab::{BillingId, TenantName, Timestamp};

/// Format of the key space; a change of any row's meaning makes another one.
/// 2: records and sums may say more than in 1. 3: a record may be a correction. 4: deliveries are consumed. Older ones are read
/// and go on as 4.
const FORMAT: u32 = 4;
const FORMAT_KEY: &[u8] = b"mformat";
const RECEIPT_KEY: &[u8] = b"mreceipt_key";
pub(super) const ACKNOWLEDGED_KEY: &[u8] = b"macknowledged";
pub(super) const COUNTERS_KEY: &[u8] = b"mcounters";
pub(super) const FORGOTTEN_KEY: &[u8] = b"mforgotten";
/// Kinds of rows.
pub(super) const RECORD: u8 = b'r';
pub(super) const IDENTITY: u8 = b'i';
pub(super) const ROLLUP: u8 = b'u';
pub(super) const QUOTA: u8 = b'q';
pub(super) const STORAGE: u8 = b's';
pub(super) const DELETED: u8 = b'b';
pub(super) const DIVERGENCE: u8 = b'd';
pub(super) const STANDING: u8 = b'c';
pub(super) const DELIVERY: u8 = b'o';

/// The open database.
pub(super) struct Store(Database);

/// The open database, held for one answer.
pub(super) struct Held(Arc<DB>);

/// Digest of what a correction was asked for with.
pub(super) type Asked = [u8; 16];

/// Rows to be written together.
#[derive(Default)]
pub(super) struct Rows(rocksdb::WriteBatch);

impl Rows {
    pub(super) fn record(&mut self, record: &UsageRecord, asked: Option<Asked>) {
        self.0.put(record_key(record.sequence), record.encode());
        let sequence = record.sequence.to_be_bytes();
        let named = [&sequence[..], asked.as_ref().map_or(&[], |asked| &asked[..])].concat();
        self.0.put(identity_key(&record.tenant, &record.billing_id), named);
    }

    pub(super) fn delivery(&mut self, key: &DeliveryKey, delivery: &Delivery) {
        self.0.put(keyed(DELIVERY, &key.0), delivery.encode());
    }

    /// Takes away what is known of deliveries, all of them made up to this time.
    pub(super) fn forget(&mut self, deliveries: &[DeliveryKey], until: Timestamp) {
        deliveries.iter().for_each(|key| self.0.delete(keyed(DELIVERY, &key.0)));
        self.0.put(FORGOTTEN_KEY, until.0.to_be_bytes());
    }

    /// What a corrected record comes to.
    pub(super) fn standing(&mut self, tenant: &TenantName, corrects: &BillingId, standing: &Standing) {
        self.0.put(identity(STANDING, tenant, corrects), standing.encode());
    }

    pub(super) fn rollup(&mut self, key: &RollupKey, usage: &Usage) {
        self.0.put(keyed(ROLLUP, &key.encode()), usage.encode());
    }

    /// What all records come to.
    pub(super) fn counters(&mut self, usage: &Usage) {
        self.0.put(COUNTERS_KEY, usage.encode());
    }

    pub(super) fn storage(&mut self, key: &[u8], sum: &[u8]) {
        self.0.put(keyed(STORAGE, key), sum);
    }

    pub(super) fn secret(&mut self, name: &str, bytes: &[u8]) {
        self.0.put(secret_key(name), bytes);
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.0.size_in_bytes() as u64
    }

    pub(super) fn divergence(&mut self, divergence: &Divergence) {
        let key = identity(DIVERGENCE, &divergence.tenant, &divergence.billing_id);
        self.0.put(key, divergence.encode());
    }

    /// What was deleted of the sums.
    pub(super) fn deleted(&mut self, key: &RollupKey, usage: &Usage) {
        self.0.put(keyed(DELETED, &key.encode()), usage.encode());
    }

    /// Takes away the identities of records, and all records up to the last of them.
    pub(super) fn delete(&mut self, records: &[UsageRecord]) {
        let Some(last) = records.last() else { return };
        for record in records {
            self.0.delete(identity_key(&record.tenant, &record.billing_id));
            // Without the record nobody may correct it any more.
            self.0.delete(identity(STANDING, &record.tenant, &record.billing_id));
        }
        self.0.delete_range(record_key(0), record_key(last.sequence + 1));
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
        Database::open(path, create).map(Self)
    }

    /// Why writes are refused.
    pub(super) fn trouble(&self) -> Option<String> {
        self.0.trouble()
    }

    /// Opens it again after a write has failed; it is in trouble until [`healed`](Self::healed).
    pub(super) fn reopen(&self) -> Result<(), LedgerError> {
        let path = self.0.path();
        if !has_log(path).map_err(|error| folder_error(path, &error))? {
            return Err(unreadable(path, "its write-ahead log is missing"));
        }
        self.0.reopen()?;
        self.check_format()
    }

    /// Ends the trouble, unless another write has failed; how long it was.
    pub(super) fn healed(&self) -> Option<Duration> {
        self.0.healed()
    }

    /// The key of delivery receipts, which lives as long as the ledger does.
    pub(super) fn receipt_key(&self) -> Result<ReceiptKey, LedgerError> {
        let bytes = self.get(RECEIPT_KEY)?.ok_or_else(|| self.unreadable("the receipt key is missing"))?;
        let bytes = bytes.try_into().map_err(|_| self.unreadable("the receipt key is not 32 bytes"))?;
        Ok(ReceiptKey::new(bytes))
    }

    /// Tokens × milliseconds so far.
    pub(super) fn storage(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        self.get(&keyed(STORAGE, key))
    }

    /// Bytes that are kept under a name.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        self.get(&secret_key(name))
    }

    /// Sequence of the last record; 0 where there is none.
    pub(super) fn last_sequence(&self) -> Result<u64, LedgerError> {
        let beyond = [RECORD + 1];
        let db = self.0.hold()?;
        let mut rows = db.iterator(IteratorMode::From(&beyond, Direction::Reverse));
        match rows.next() {
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

    /// What all records come to; nothing in a ledger that has not counted yet.
    pub(super) fn counters(&self) -> Result<Option<Usage>, LedgerError> {
        let row = self.get(COUNTERS_KEY)?;
        row.map(|row| Usage::decode(&row).map_err(|error| row_error("counters", COUNTERS_KEY, error))).transpose()
    }

    /// The record of an identity, and what was asked for, if it is a correction.
    pub(super) fn find(
        &self,
        tenant: &TenantName,
        billing_id: &BillingId,
    ) -> Result<Option<(UsageRecord, Option<Asked>)>, LedgerError> {
        let identity = identity_key(tenant, billing_id);
        let Some(named) = self.get(&identity)? else { return Ok(None) };
        let (sequence, asked) = named_of(&named, &identity)?;
        let key = record_key(sequence);
        let dangling = DecodeError { what: "its record is missing", at: 0 };
        let row = self.get(&key)?.ok_or_else(|| row_error("identity", &identity, dangling))?;
        let record = UsageRecord::decode(&row).map_err(|source| row_error("record", &key, source))?;
        Ok(Some((record, asked)))
    }

    /// What a corrected record comes to; nothing where it never was.
    pub(super) fn standing(&self, tenant: &TenantName, corrects: &BillingId) -> Result<Option<Standing>, LedgerError> {
        let key = identity(STANDING, tenant, corrects);
        let row = self.get(&key)?.map(|row| Standing::decode(&row).map_err(|error| row_error("standing", &key, error)));
        row.transpose()
    }

    /// What is known of a delivery; nothing where no record has told of it.
    pub(super) fn delivery(&self, key: &DeliveryKey) -> Result<Option<Delivery>, LedgerError> {
        let key = keyed(DELIVERY, &key.0);
        let row = self.get(&key)?.map(|row| Delivery::decode(&row).map_err(|error| row_error("delivery", &key, error)));
        row.transpose()
    }

    /// Up to when deliveries may have been billed by records that are gone; nothing where none is gone.
    pub(super) fn forgotten(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.get(FORGOTTEN_KEY)?.map(|until| sequence_of(&until, "forgotten", FORGOTTEN_KEY).map(Timestamp)).transpose()
    }

    /// The sums so far.
    pub(super) fn rollup(&self, key: &RollupKey) -> Result<Usage, LedgerError> {
        self.sums(ROLLUP, "rollup", key)
    }

    /// What was deleted of them.
    pub(super) fn deleted(&self, key: &RollupKey) -> Result<Usage, LedgerError> {
        self.sums(DELETED, "deleted", key)
    }

    fn sums(&self, kind: u8, row: &'static str, key: &RollupKey) -> Result<Usage, LedgerError> {
        let key = keyed(kind, &key.encode());
        let Some(value) = self.get(&key)? else { return Ok(Usage::default()) };
        Usage::decode(&value).map_err(|source| row_error(row, &key, source))
    }

    /// Whether a refused claim of this identity is kept.
    pub(super) fn has_divergence(&self, tenant: &TenantName, billing_id: &BillingId) -> Result<bool, LedgerError> {
        self.get(&identity(DIVERGENCE, tenant, billing_id)).map(|row| row.is_some())
    }

    /// Bytes of all files of the folder.
    pub(super) fn bytes(&self) -> Result<u64, LedgerError> {
        let sum = || {
            let mut sum = 0;
            for entry in fs::read_dir(self.0.path())? {
                // A file that the database has just deleted takes nothing.
                sum += entry?.metadata().map_or(0, |file| file.len());
            }
            Ok(sum)
        };
        sum().map_err(|error: io::Error| folder_error(self.0.path(), &error))
    }

    /// Gives the room of the records up to `through` back to the drive, and, where `all`, that of all deleted rows, which
    /// takes as long as reading what is left.
    pub(super) fn compact(&self, through: u64, all: bool) {
        // In trouble there is no room to be had this way.
        let Ok(db) = self.0.hold() else { return };
        db.compact_range(Some(record_key(0)), Some(record_key(through)));
        if all {
            db.compact_range(Some([IDENTITY]), Some([RECORD + 1]));
        }
    }

    /// Writes the rows, all or none, and returns when they are on disk. After an error they may be there or not.
    pub(super) fn write(&self, rows: Rows) -> Result<(), LedgerError> {
        self.0.write(rows.0, Vec::new())
    }

    /// Replaces the value of a key; where that fails, it is as before.
    pub(super) fn replace(&self, key: Vec<u8>, value: &[u8]) -> Result<(), LedgerError> {
        let before: Before = vec![(key.clone(), self.get(&key)?)];
        let mut rows = Rows::default();
        rows.0.put(key, value);
        self.0.write(rows.0, before)
    }

    /// Holds it for reads that belong together. It can't be opened again before it is let go.
    pub(super) fn hold(&self) -> Result<Held, LedgerError> {
        self.0.hold().map(Held)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LedgerError> {
        self.0.hold()?.get(key).map_err(|error| database("read", &error))
    }

    fn check_format(&self) -> Result<(), LedgerError> {
        let format = self.get(FORMAT_KEY)?.ok_or_else(|| self.unreadable("it has no format: it is no ledger"))?;
        let found =
            format.try_into().map(u32::from_le_bytes).map_err(|_| self.unreadable("its format is no number"))?;
        if found > FORMAT {
            return Err(LedgerError::Newer { path: self.0.path().to_owned(), found, known: FORMAT });
        }
        if found < FORMAT {
            // An older program must refuse it from here on.
            let mut rows = Rows::default();
            rows.0.put(FORMAT_KEY, FORMAT.to_le_bytes());
            self.write(rows)?;
        }
        Ok(())
    }

    fn unreadable(&self, detail: &str) -> LedgerError {
        unreadable(self.0.path(), detail)
    }
}

impl Held {
    /// One moment of it.
    pub(super) fn view(&self) -> View<'_> {
        View::new(self.0.snapshot())
    }
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

pub(super) fn row_error(row: &'static str, key: &[u8], source: DecodeError) -> LedgerError {
    LedgerError::Row { row, key: key.escape_ascii().to_string(), source }
}

pub(super) fn keyed(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(rest);
    key
}

pub(super) fn secret_key(name: &str) -> Vec<u8> {
    [b"msecret:", name.as_bytes()].concat()
}

fn record_key(sequence: u64) -> Vec<u8> {
    keyed(RECORD, &sequence.to_be_bytes())
}

pub(super) fn identity_key(tenant: &TenantName, billing_id: &BillingId) -> Vec<u8> {
    identity(IDENTITY, tenant, billing_id)
}

pub(super) fn identity(kind: u8, tenant: &TenantName, billing_id: &BillingId) -> Vec<u8> {
    let mut key = keyed(kind, tenant.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(billing_id.as_str().as_bytes());
    key
}

/// The sequence that an identity names, and the digest of what was asked for.
pub(super) fn named_of(bytes: &[u8], key: &[u8]) -> Result<(u64, Option<Asked>), LedgerError> {
    let (sequence, asked) = bytes.split_at_checked(8).unwrap_or((bytes, &[]));
    let sequence = sequence_of(sequence, "identity", key)?;
    let wrong = DecodeError { what: "a digest that is not 16 bytes", at: 8 };
    let asked = (!asked.is_empty()).then(|| asked.try_into().map_err(|_| row_error("identity", key, wrong)));
    Ok((sequence, asked.transpose()?))
}

pub(super) fn sequence_of(bytes: &[u8], row: &'static str, key: &[u8]) -> Result<u64, LedgerError> {
    let wrong = DecodeError { what: "a sequence that is not 8 bytes", at: 0 };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| row_error(row, key, wrong))
}

#[cfg(test)]
impl Rows {
    /// As in a ledger of a version that did not count.
    pub(super) fn forget_counters(&mut self) {
        self.0.delete(COUNTERS_KEY);
    }
}

#[cfg(test)]
impl Store {
    /// What a test makes fail below it.
    pub(super) fn faults(&self) -> &super::faults::Faults {
        &self.0.faults
    }

    /// How often the log was synced.
    pub(super) fn synced_writes(&self) -> u64 {
        self.0.options.get_ticker_count(rocksdb::statistics::Ticker::WalFileSynced)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
