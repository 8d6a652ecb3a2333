//! The `kvtier` program: everything is in the library, so that tests and benches drive the same code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kvtier::cli::run(std::env::args_os())
}
