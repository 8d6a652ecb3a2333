//! Where tests find the published traces and golden figures, which are not part of the project.

use std::path::{Path, PathBuf};

use super::{Trace, TraceOptions, read_trace};

/// A file beside the project, or `None` (and a line that says so) where it is absent.
#[expect(clippy::print_stderr, reason = "a skipped test says that it was skipped")]
pub(super) fn find(path: &str) -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let found = shared.join(path);
    if shared.join("traces").is_dir() && found.is_file() {
        return Some(found);
    }
    eprintln!("skipped: ../shared/traces not present");
    None
}

/// A published Mooncake trace by its short name: `conversation` or `synthetic`.
pub(super) fn mooncake(name: &str) -> Option<Trace> {
    let path = find(&format!("traces/mooncake/{name}_trace.jsonl"))?;
    Some(read_trace(&path, &TraceOptions::default()).unwrap())
}
