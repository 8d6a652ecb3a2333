//! The hands: memory segments and devices. All `unsafe`, and all file I/O apart from the databases' own.
//!
//! [`Arena`] is the RAM tier's memory, cut into slots that are written once and read under pins. [`Device`] is a drive as
//! a queue of reads and writes; [`open`] gives the best body that this host allows: [`UringDevice`], or [`PosixDevice`] where
//! io_uring is forbidden. [`MemDevice`] is the plain one, [`FaultyDevice`] the one that lies, [`CrashAt`] the one that dies.

mod arena;
mod buffer;
mod copy;
mod crash;
mod device;
mod end;
mod engine;
mod fault;
pub mod files;
mod flights;
mod holders;
mod inbox;
mod memory;
mod open;
mod pool;
mod posix;
mod pread;
mod queue;
mod raw;
mod refusal;
mod region;
mod registered;
mod reports;
mod ring;
mod segment;
mod slot;
mod slot_file;
mod uring;
mod word;
mod words;

#[cfg(test)]
mod contract_tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use arena::Arena;
pub use buffer::AlignedBuf;
pub use copy::copy_with_crc;
pub use crash::CrashAt;
pub use device::{Buffer, Completion, Device, Gauges, Io, Op};
pub use end::end_process;
pub use fault::{Faults, FaultyDevice};
pub use memory::MemDevice;
pub use open::{DeviceEngine, DeviceOptions, open};
pub use posix::PosixDevice;
pub use raw::{RawDrive, RawMemory};
pub use region::{Region, RegionError, RegionWriter};
pub use segment::Segment;
pub use slot::{SlotPin, SlotWriter};
pub use slot_file::OpenError;
pub use uring::UringDevice;

pub use crate::copy::{Span, SpanMut};

/// Locks, whatever happened to the holder before: what these mutexes guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
