//! Python's grpcio shares no code with the daemon: what it stores and reads back is what anybody's client does.

use std::process::Command;

use kvtier::daemon::{Config, Daemon};

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
