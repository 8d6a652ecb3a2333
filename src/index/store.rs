//! RocksDB, tuned for a small, write-heavy, disposable index; and what its errors mean to us.

use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, ErrorKind, LogLevel,
    Options,
};

use crate::vocab::limits::{CATALOG_CACHE_BYTES, CATALOG_WAL_BYTES, CATALOG_WRITE_BUFFER_BYTES};

pub(super) const BLOCKS: &str = "blocks";
pub(super) const NAMESPACES: &str = "namespaces";
pub(super) const TENANTS: &str = "tenants";
pub(super) const META: &str = "meta";

/// Why the catalog did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Its files hold what it did not write. Rebuild it: it is a cache.
    #[error("the catalog is damaged: {0}")]
    Damaged(String),
    /// The file system refused; the catalog may be whole.
    #[error("the catalog can't be read or written: {0}")]
    Io(String),
    /// A write failed before; nothing was tried. It has to be mended.
    #[error("the catalog takes no writes: {0}")]
    Failing(String),
    /// A folder could not be moved aside.
    #[error("{path}: {why}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl From<rocksdb::Error> for IndexError {
    fn from(error: rocksdb::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            // A file that the manifest names and that is gone is damage, whatever RocksDB calls it.
            ErrorKind::IOError if text.contains("No such file") => Self::Damaged(text),
            ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound | ErrorKind::NotSupported => {
                Self::Damaged(text)
            }
            _ => Self::Io(text),
        }
    }
}

/// Opens the database; creates it, where that is wanted.
pub(super) fn open(path: &Path, create: bool) -> Result<DB, IndexError> {
    let families = [BLOCKS, NAMESPACES, TENANTS, META];
    let families = families.map(|name| ColumnFamilyDescriptor::new(name, options()));
    let mut options = options();
    options.create_if_missing(create);
    Ok(DB::open_cf_descriptors(&options, path, families)?)
}

/// Opens the database for a look at it: nothing in it is changed, and none is created.
pub(super) fn open_read_only(path: &Path) -> Result<DB, IndexError> {
    let families = [BLOCKS, NAMESPACES, TENANTS, META];
    let families = families.map(|name| ColumnFamilyDescriptor::new(name, options()));
    Ok(DB::open_cf_descriptors_read_only(&options(), path, families, false)?)
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_size(CATALOG_WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_compression_type(DBCompressionType::None);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(128);
    // On, never flushed by hand, not synced: a killed process loses nothing, a power failure some rows.
    options.set_max_total_wal_size(CATALOG_WAL_BYTES);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CATALOG_CACHE_BYTES / 4));
    table.set_cache_index_and_filter_blocks(true);
    options.set_block_based_table_factory(&table);
    options
}
