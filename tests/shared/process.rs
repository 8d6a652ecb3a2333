//! A daemon in a process of its own, which can die without a word.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kvtier::client::{Client, ServerAddress};

/// How long a daemon may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Process {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Process {
    /// `kvtier serve` on the folder `data` of `dir`, with its socket and its log beside it; serving when this returns.
    pub(crate) async fn start(dir: &Path, args: &[&str]) -> (Self, ServerAddress) {
        let (socket, log) = (dir.join("s"), dir.join("daemon.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_kvtier"))
            .args(["serve", "--log", "warn", "--data-dir"])
            .arg(dir.join("data"))
            .arg("--socket")
            .arg(&socket)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut process = Self { child, log };
        let address = ServerAddress::parse(&format!("unix:{}", socket.display())).unwrap();
        let started = Instant::now();
        while !serves(&address).await {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon starts, but {ended:?}:\n{}", process.log());
            assert!(started.elapsed() < PATIENCE, "the daemon serves within a minute:\n{}", process.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (process, address)
    }

    /// What it has logged since its start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// `kill -9`. One that has ended by itself before is a failure.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it lived until it was killed:\n{}", self.log());
    }
}

/// Whether a daemon answers there, and takes requests.
async fn serves(address: &ServerAddress) -> bool {
    let Ok(client) = Client::connect(address).await else { return false };
    client.serves().await.unwrap_or(false)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
