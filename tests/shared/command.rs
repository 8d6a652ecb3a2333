//! The program as scripts run it: what it prints and how it exits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the program, without a server of the environment's.
pub(crate) fn kvtier(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
    command.env_remove("KVTIER_SERVER").env("XDG_RUNTIME_DIR", "/nonexistent").stdin(Stdio::null());
    command.args(args).output().unwrap()
}

/// Its exit status.
pub(crate) fn status(output: &Output) -> Option<i32> {
    output.status.code()
}

/// What it says on stderr, having printed nothing.
pub(crate) fn refusal(args: &[&str], code: i32) -> String {
    let output = kvtier(args);
    let words = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(status(&output), Some(code), "{args:?}: {words}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
    assert!(words.starts_with("error: "), "{args:?}: {words}");
    words
}

/// The one document on stdout.
pub(crate) fn json(args: &[&str]) -> Value {
    let output = kvtier(args);
    assert_eq!(status(&output), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// Each field is there.
pub(crate) fn has(report: &Value, fields: &[&str]) {
    for field in fields {
        assert!(report.get(field).is_some(), "{field} is not in {report}");
    }
}
