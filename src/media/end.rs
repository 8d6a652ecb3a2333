//! The end of the process without ceremony.
#![expect(unsafe_code, reason = "calls the C library")]

use std::ffi::c_int;

// SAFETY: POSIX's `_exit`: takes any number, needs nothing to be true, and does not return.
unsafe extern "C" {
    safe fn _exit(status: c_int) -> !;
}

/// Ends the process now, as `kill -9` does, but with a status. `std::process::exit` would run what C++ libraries have
/// registered for the end, and RocksDB waits there for compactions that are under way.
pub fn end_process(status: u8) -> ! {
    _exit(status.into())
}
