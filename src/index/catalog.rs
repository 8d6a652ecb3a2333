//! The catalog: blocks by key, namespaces and tenants by number.

use std::fmt;
use std::path::Path;

use rocksdb::{Direction, IteratorMode, ReadOptions, WriteOptions};

use super::database::{Database, family_of};
use super::life::Life;
use super::namespace::NamespaceRow;
use super::row::Row;
use super::store::{BLOCKS, IndexError, META, NAMESPACES, TENANTS};
use crate::vocab::{AccountId, AccountName, BlockKey, NamespaceId};

/// What the whole database is written in; another one means to start empty.
const SCHEMA: &[u8] = b"1";
const SCHEMA_KEY: &str = "schema";
/// When it was opened, and whether it was closed: see [`Life`].
const LIFE_KEY: &str = "life";
/// Rows that can't be read are deleted this many at a time.
const DELETE_BATCH: usize = 1024;

/// The catalog of one data folder.
pub struct Catalog {
    pub(super) db: Database,
    /// Opened for a look only: rows that can't be read are counted and kept.
    read_only: bool,
    /// It has begun a life of its own, which ends when it is dropped.
    alive: bool,
}

/// A catalog, and whether it had to be rebuilt.
#[derive(Debug)]
pub struct Opened {
    /// The catalog.
    pub catalog: Catalog,
    /// What was there could not be read and was moved aside: the drive's blocks are forgotten.
    pub rebuilt: bool,
}

/// What a pass over all blocks met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Rows given out.
    pub rows: u64,
    /// Rows that could not be read; deleted, unless the catalog was opened for a look only.
    pub undecodable: u64,
}

impl Catalog {
    /// Opens the catalog in the folder `path`, or creates it. One that can't be read is moved aside to `path.damaged`
    /// (replacing an earlier one) and begun anew, with a warning: it is a cache.
    ///
    /// # Errors
    /// When the file system refuses, which says nothing about what is in it.
    pub fn open(path: &Path) -> Result<Opened, IndexError> {
        match Self::open_whole(path) {
            Ok(catalog) => Ok(Opened { catalog, rebuilt: false }),
            Err(IndexError::Damaged(why)) => Ok(Opened { catalog: Self::rebuild(path, &why)?, rebuilt: true }),
            Err(error) => Err(error),
        }
    }

    /// Begins anew what turned out to be damaged after it was opened (and dropped): as [`open`](Self::open) does.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn rebuild(path: &Path, why: &str) -> Result<Self, IndexError> {
        tracing::warn!(path = %path.display(), why, "the catalog is unreadable: starting empty, the drive's blocks are forgotten");
        let aside = path.with_extension("damaged");
        let refused = |error: std::io::Error| IndexError::Folder { path: path.into(), why: error.to_string() };
        remove(&aside).map_err(refused)?;
        std::fs::rename(path, &aside).map_err(refused)?;
        Self::open_whole(path)
    }

    /// Opens the catalog that is in the folder `path` for a look at it, and changes nothing, whatever is found.
    ///
    /// # Errors
    /// `Damaged` where there is none, or one that can't be read.
    pub fn open_existing(path: &Path) -> Result<Self, IndexError> {
        let catalog = Self { db: Database::open_read_only(path)?, read_only: true, alive: false };
        match catalog.meta(SCHEMA_KEY)? {
            Some(schema) if schema != SCHEMA => Err(IndexError::Damaged("its schema is of another version".into())),
            // Its maker died before it had written anything: it is empty, as a daemon would find it.
            _ => Ok(catalog),
        }
    }

    fn open_whole(path: &Path) -> Result<Self, IndexError> {
        let mut catalog = Self { db: Database::open(path)?, read_only: false, alive: false };
        let schema = catalog.meta(SCHEMA_KEY)?;
        match &schema {
            Some(schema) if schema == SCHEMA => {}
            Some(_) => return Err(IndexError::Damaged("its schema is of another version".into())),
            None => catalog.put_meta(SCHEMA_KEY, SCHEMA)?,
        }
        let life = Life::begin(catalog.meta(LIFE_KEY)?.as_deref(), schema.is_none());
        catalog.put_meta(LIFE_KEY, &life.encode())?;
        catalog.alive = true;
        Ok(catalog)
    }

    /// Whether rows may be without their bytes through no damage: the machine went down while the catalog was open, and
    /// nobody has compared all rows since.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn is_doubtful(&self) -> Result<bool, IndexError> {
        Ok(self.meta(LIFE_KEY)?.as_deref().is_none_or(Life::is_doubtful))
    }

    /// Every row was compared with its bytes, and those that were not true are gone: from here on, bytes that are not
    /// their row's are damage.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn trust(&self) -> Result<(), IndexError> {
        self.change_life(Life::trusted, &WriteOptions::default())
    }

    fn change_life(&self, change: impl FnOnce(Life) -> Life, options: &WriteOptions) -> Result<(), IndexError> {
        let Some(life) = self.meta(LIFE_KEY)?.as_deref().and_then(Life::decode) else { return Ok(()) };
        self.db.write(options, |db, batch| {
            batch.put_cf(family_of(db, META)?, LIFE_KEY, change(life).encode());
            Ok(())
        })
    }

    /// Whether a write has failed: all are refused until the catalog was [mended](Self::mend).
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.db.is_failing()
    }

    /// Opens the database again after a write has failed. Rows whose put failed are not there afterwards; deletions that
    /// failed have to be repeated. While it is being opened, which takes as long as at a start, every call fails.
    ///
    /// # Errors
    /// When it can't be opened or written to: then it is still failing.
    pub fn mend(&self) -> Result<(), IndexError> {
        self.db.mend()
    }

    /// Remembers a block whose payload was written.
    ///
    /// # Errors
    /// When the database refuses; then there is no row, or none after it was [mended](Self::mend).
    pub fn put(&self, key: BlockKey, row: &Row) -> Result<(), IndexError> {
        self.db.put(BLOCKS, key.as_bytes(), &row.encode())
    }

    /// Remembers all of these blocks or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn put_batch<'a>(&self, rows: impl IntoIterator<Item = (BlockKey, &'a Row)>) -> Result<(), IndexError> {
        self.db.write(&WriteOptions::default(), |db, batch| {
            let blocks = family_of(db, BLOCKS)?;
            rows.into_iter().for_each(|(key, row)| batch.put_cf(blocks, key.as_bytes(), row.encode()));
            Ok(())
        })
    }

    /// Forgets a block; known or not.
    ///
    /// # Errors
    /// When the database refuses; then the row may still be there, and its slot must not be reused.
    pub fn delete(&self, key: BlockKey) -> Result<(), IndexError> {
        self.delete_batch([key])
    }

    /// Forgets all of these blocks or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn delete_batch(&self, keys: impl IntoIterator<Item = BlockKey>) -> Result<(), IndexError> {
        self.db.write(&WriteOptions::default(), |db, batch| {
            let blocks = family_of(db, BLOCKS)?;
            keys.into_iter().for_each(|key| batch.delete_cf(blocks, key.as_bytes()));
            Ok(())
        })
    }

    /// A block's row; `None` also where it can't be decoded.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn get(&self, key: BlockKey) -> Result<Option<Row>, IndexError> {
        self.db.with(|db| {
            let bytes = db.get_pinned_cf(family_of(db, BLOCKS)?, key.as_bytes())?;
            Ok(bytes.and_then(|bytes| Row::decode(&bytes).ok()))
        })
    }

    /// Gives every block to `visit`, in the order of keys. Rows that can't be decoded are counted and deleted.
    ///
    /// # Errors
    /// `Damaged` when the pass met bytes that RocksDB itself refuses: what was visited is good, what was not is lost, and
    /// the catalog should be [rebuilt](Self::rebuild).
    pub fn scan(&self, mut visit: impl FnMut(BlockKey, Row)) -> Result<Scanned, IndexError> {
        let (mut scanned, mut bad) = (Scanned::default(), Vec::new());
        self.db.with(|db| {
            for entry in db.iterator_cf_opt(family_of(db, BLOCKS)?, one_pass(), IteratorMode::Start) {
                let (key, bytes) = entry?;
                match (<[u8; 32]>::try_from(&key[..]), Row::decode(&bytes)) {
                    (Ok(key), Ok(row)) => {
                        scanned.rows += 1;
                        visit(BlockKey::from_bytes(key), row);
                    }
                    _ => {
                        scanned.undecodable += 1;
                        bad.push(key);
                        if bad.len() >= DELETE_BATCH {
                            self.delete_raw(BLOCKS, &mut bad)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        self.delete_raw(BLOCKS, &mut bad)?;
        self.tell_undecodable(scanned);
        Ok(scanned)
    }

    pub(super) fn tell_undecodable(&self, scanned: Scanned) {
        if scanned.undecodable > 0 && !self.read_only {
            tracing::warn!(rows = scanned.undecodable, "catalog rows that could not be read were deleted");
        }
    }

    /// Up to `most` keys of blocks, in their order: those after `key`, or from the first on.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn keys_after(&self, key: Option<BlockKey>, most: usize) -> Result<Vec<BlockKey>, IndexError> {
        let start = key.as_ref().map(|key| IteratorMode::From(key.as_bytes(), Direction::Forward));
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut keys = Vec::with_capacity(most);
        self.db.with(|db| {
            for entry in db.iterator_cf_opt(family_of(db, BLOCKS)?, options, start.unwrap_or(IteratorMode::Start)) {
                let (found, _) = entry?;
                let found = <[u8; 32]>::try_from(&found[..]).map(BlockKey::from_bytes);
                keys.extend(found.ok().filter(|found| Some(*found) != key));
                if keys.len() >= most {
                    break;
                }
            }
            Ok(())
        })?;
        Ok(keys)
    }

    /// Remembers a namespace under its number.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn put_namespace(&self, row: &NamespaceRow) -> Result<(), IndexError> {
        self.db.put(NAMESPACES, &row.id.0.to_be_bytes(), &row.encode())
    }

    /// All namespaces by number. Rows that can't be read are deleted: blocks whose namespace is not listed are to be
    /// deleted too, before their number is given to another.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn namespaces(&self) -> Result<Vec<NamespaceRow>, IndexError> {
        self.list(NAMESPACES, |id, bytes| NamespaceRow::decode(NamespaceId(id), bytes))
    }

    /// Remembers an account under its number.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn put_account(&self, id: AccountId, name: &AccountName) -> Result<(), IndexError> {
        self.db.put(TENANTS, &id.0.to_be_bytes(), name.encode().as_bytes())
    }

    /// All accounts by number; as [`namespaces`](Self::namespaces).
    ///
    /// # Errors
    /// When the database refuses.
    pub fn accounts(&self) -> Result<Vec<(AccountId, AccountName)>, IndexError> {
        self.list(TENANTS, |id, bytes| {
            let name = AccountName::decode(std::str::from_utf8(bytes).ok()?).ok()?;
            Some((AccountId(id), name))
        })
    }

    /// A value that is neither block, namespace nor tenant.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        self.db.with(|db| Ok(db.get_cf(family_of(db, META)?, key)?))
    }

    /// Remembers such a value.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn put_meta(&self, key: &str, value: &[u8]) -> Result<(), IndexError> {
        self.db.write(&WriteOptions::default(), |db, batch| {
            batch.put_cf(family_of(db, META)?, key, value);
            Ok(())
        })
    }

    fn list<T>(&self, family: &str, decode: impl Fn(u16, &[u8]) -> Option<T>) -> Result<Vec<T>, IndexError> {
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        self.db.with(|db| {
            for entry in db.iterator_cf_opt(family_of(db, family)?, one_pass(), IteratorMode::Start) {
                let (key, bytes) = entry?;
                let id = <[u8; 2]>::try_from(&key[..]).map(u16::from_be_bytes);
                match id.ok().and_then(|id| decode(id, &bytes)) {
                    Some(row) => rows.push(row),
                    None => bad.push(key),
                }
            }
            Ok(())
        })?;
        if !bad.is_empty() && !self.read_only {
            tracing::warn!(family, rows = bad.len(), "catalog rows that could not be read were deleted");
            self.delete_raw(family, &mut bad)?;
        }
        Ok(rows)
    }

    pub(super) fn delete_raw(&self, family: &str, keys: &mut Vec<Box<[u8]>>) -> Result<(), IndexError> {
        if self.read_only {
            keys.clear();
            return Ok(());
        }
        self.db.write(&WriteOptions::default(), |db, batch| {
            let family = family_of(db, family)?;
            keys.drain(..).for_each(|key| batch.delete_cf(family, key));
            Ok(())
        })
    }
}

/// Whoever writes to the drive holds the catalog until the row is put: with its last holder, nothing is under way. Synced,
/// so that a machine that goes down afterwards takes nothing along.
impl Drop for Catalog {
    fn drop(&mut self) {
        if self.alive {
            let mut synced = WriteOptions::default();
            synced.set_sync(true);
            // Not written, it reads as if the process had been killed: true as well.
            self.change_life(Life::closed, &synced).ok();
        }
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("path", &self.db.path()).finish()
    }
}

/// Reads each block of the database once, past its small cache.
pub(super) fn one_pass() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(1 << 20);
    options
}

/// Removes a folder or file, there or not.
fn remove(path: &Path) -> std::io::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
