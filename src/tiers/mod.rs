//! Shelves without opinions: a data folder, the RAM shelf and the NVMe shelf. They carry out what the planner decided
//! and say what became of it.
//!
//! The RAM shelf is the arena itself: there is nothing to add to it. What the rooms above need of `media` and `index`
//! is handed through here.

mod begun;
mod drive;
mod folder;
mod folder_error;
mod format;
mod io;
mod nvme;
mod process;
mod rows;
mod site;
mod wear;

pub use crate::index::{CODEC_RAW, Catalog, IndexError, NamespaceRow, Opened, Row, RowError, ShardRow};
pub use crate::media::{Arena as RamShelf, Device, Gauges, RegionWriter, SlotPin, SlotWriter, copy_with_crc};
pub use drive::{DriveLost, NvmeStats};
pub use folder::{Devices, Folder};
pub use folder_error::FolderError;
pub use format::StoreId;
pub use io::{IoEngine, IoOptions};
pub use nvme::{NvmeShelf, Place, ReadDone, ReadError, ReadInto, WriteError};
pub use process::{ProcessCost, written_by_process};
pub use rows::{Rows, RowsWatch};
pub use site::{DrivePlace, DriveSpec};
pub use wear::Wear;
