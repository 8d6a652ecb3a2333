//! Why a data folder can't be used, in sentences that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use crate::vocab::ByteCount;

/// Why a data folder can't be used. Nothing that was in it is changed, and nothing new is left in it.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("data folder {dir} is in use{}", holder.map_or(String::new(), |pid| format!(" by process {pid}")))]
    InUse {
        /// Which folder.
        dir: PathBuf,
        /// Who, where it left its number.
        holder: Option<u32>,
    },
    /// A newer kvtier wrote it.
    #[error(
        "data folder {dir} has format {found}, and this kvtier reads up to {known}: use a newer one, or another folder"
    )]
    NewerFormat {
        /// Which folder.
        dir: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
    /// Its `FORMAT` can't be read.
    #[error("{path} is no kvtier format file: {why}")]
    BadFormat {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is something else in it.
    #[error("{dir} is no kvtier data folder: it has no FORMAT file, and is not empty")]
    NotAStore {
        /// Which folder.
        dir: PathBuf,
    },
    /// There is no store in it.
    #[error("{dir} is no kvtier data folder: it has no FORMAT file")]
    NoStore {
        /// Which folder.
        dir: PathBuf,
    },
    /// A drive is too small.
    #[error("nvme: {} does not fit: {} free on the file system of {dir}", ByteSize(asked.0), ByteSize(free.0))]
    TooLarge {
        /// The size asked.
        asked: ByteCount,
        /// The most that would fit.
        free: ByteCount,
        /// Which folder.
        dir: PathBuf,
    },
    /// The store was carved for a much smaller size.
    #[error(
        "nvme: {} is more than data folder {dir} can address on one drive, since it was begun much smaller: at most {}, or begin a new folder",
        ByteSize(asked.0), ByteSize(most.0)
    )]
    Unaddressable {
        /// The size asked.
        asked: ByteCount,
        /// The most that its extents allow.
        most: ByteCount,
        /// Which folder.
        dir: PathBuf,
    },
    /// The store was carved for fewer drives.
    #[error(
        "nvme: {drive} would be drive {} of data folder {dir}, whose extents are numbered for {most} at most: begin a new folder",
        u32::from(*most) + 1
    )]
    TooManyDrives {
        /// The drive that is one too many.
        drive: PathBuf,
        /// Which folder.
        dir: PathBuf,
        /// The most drives that it can have, those included that are missing now.
        most: u16,
    },
    /// A drive that the store does not know yet can't be begun.
    #[error("nvme: {drive}: {source}: mount the drive there before it is given for the first time")]
    NoDirectory {
        /// The directory given.
        drive: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Two names of one directory.
    #[error("nvme: {drive} is given twice")]
    Twice {
        /// The directory given.
        drive: PathBuf,
    },
    /// A drive's folder is another drive's.
    #[error(
        "nvme: {path} says that it is {found}, and {expected} is expected there: give each drive its own directory"
    )]
    OtherDrive {
        /// Its marker.
        path: PathBuf,
        /// Whose it is by its marker.
        found: String,
        /// Whose it is by the data folder's `FORMAT`.
        expected: String,
    },
    /// A drive's folder holds something else.
    #[error("nvme: {path} is not as kvtier leaves it: {why}")]
    BadDrive {
        /// Which folder or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// All drives that were given are missing.
    #[error("nvme: no drive can be used: {why}")]
    NoDrive {
        /// Each with its reason.
        why: String,
    },
    /// io_uring, which alone was wanted, can't be had.
    #[error("nvme: {path}: io is io_uring, which can't be had: {why}")]
    NoUring {
        /// Which file.
        path: PathBuf,
        /// Why not, and what to do about it.
        why: String,
    },
    /// The file system refused something.
    #[error("{path}: {doing}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// What a file system refused.
pub(super) fn fail(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { path: path.into(), doing, source }
}
