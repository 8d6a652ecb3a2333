//! The catalog database: which block lies in which slot of the drive, and whose it is. Knows words only.
//!
//! Disposable: what can't be read is a miss, and a database that can't be read is rebuilt empty. No type of RocksDB
//! leaves this room.

mod catalog;
mod changes;
mod database;
mod life;
mod namespace;
mod promise;
mod row;
mod scan;
mod store;

pub use catalog::{Catalog, Opened, Scanned};
pub use changes::RowChange;
pub use namespace::NamespaceRow;
pub use row::{CODEC_RAW, Row, RowError, ShardRow};
pub use store::IndexError;
