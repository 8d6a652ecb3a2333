//! Python's grpcio shares no code with the daemon: what it stores and reads back is what anybody's client does.

use std::path::Path;
use std::process::Command;

use kvtier::daemon::{Config, Daemon};

use crate::process::Process;
use crate::support::config;

/// With the Python that `KVTIER_PYTHON` names, or `python3`. Where it has no grpcio this says so, and claims nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_grpcio_stores_and_reads_over_both_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let listen = Some(([127, 0, 0, 1], 0).into());
    let daemon = Daemon::start(Config { listen, ..config(dir.path(), 256 << 20, 0) }).await.unwrap();
    let unix = format!("unix:{}", daemon.socket().unwrap().display());
    for server in [unix, daemon.tcp().unwrap().to_string()] {
        let python = std::env::var("KVTIER_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/check_grpcio.py");
        let ran = move || Command::new(python).args(["-B", script, "--server", &server]).output();
        let output = match tokio::task::spawn_blocking(ran).await.unwrap() {
            Ok(output) => output,
            Err(error) => return eprintln!("skipped: no Python here ({error})"),
        };
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.code() == Some(2) {
            return eprintln!("{complained}");
        }
        assert!(output.status.success() && said.contains("all equal"), "{said}{complained}");
        eprintln!("{said}");
    }
    daemon.stop().await;
}

/// What a Python script of `tools` prints that found all right; nothing where there is no Python or no grpcio, which it says.
fn python(script: &str, args: &[&str]) -> Option<String> {
    let python = std::env::var("KVTIER_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(script);
    let output = match Command::new(python).arg("-B").arg(script).args(args).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: no Python here ({error})");
            return None;
        }
    };
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(2) {
        eprintln!("{complained}");
        return None;
    }
    assert!(output.status.success(), "{said}{complained}");
    Some(said.into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_grpcio_is_billed_once_for_a_delivery_also_over_a_kill_and_by_receipts_only() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, server) = (dir.path().join("kept"), format!("unix:{}", dir.path().join("s").display()));
    let kept = kept.to_str().unwrap();
    let args = ["--ram", "1MiB", "--nvme", "0"];
    for (first, is_killed) in [(vec![], false), (vec![], true), (vec!["--unsettled"], true)] {
        let (mut process, _) = Process::start(dir.path(), &args).await;
        let before = [&["--server", &server, "--keep", kept][..], &first].concat();
        let Some(said) = python("check_one_bill.py", &before) else { return };
        if is_killed {
            process.kill();
            process = Process::start(dir.path(), &args).await.0;
        }
        let after = python("check_one_bill.py", &["--server", &server, "--kept", kept]).unwrap();
        eprintln!("{}, {}{after}", said.trim_end(), if is_killed { "killed, " } else { "" });
        process.kill();
        let audit = kvtier::offline::audit(&dir.path().join("data")).unwrap();
        assert_eq!((audit.differences, audit.deliveries.unproven_records), (0, 0), "{:?}", audit.examples);
    }
}
