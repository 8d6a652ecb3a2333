//! The `kvtier` program: everything is in the library, so that tests and benches drive the same code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// glibc gives the memory of a freed message of 1 MiB back to the kernel, which then clears pages for the next one: a third
/// of a fetch's time.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    kvtier::cli::run(std::env::args_os())
}
