//! A disk that is full, one that becomes read-only, a file that somebody truncates, all while the daemon runs: misses,
//! one clear line each, a process that lives and does not grow, and one that is as before when the disk is.
//!
//! What needs root is skipped without it, and says so.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kvtier::proto;

use crate::process::Process;
use crate::support::{Gate, chain, payload, spec};

/// Room for 256 blocks in RAM and 512 on the drive.
const TIERS: [&str; 4] = ["--ram", "1MiB", "--nvme", "2MiB"];
/// Blocks of a prompt.
const BLOCKS: u32 = 16;
/// Prompts that fill the drive twice over.
const MANY: u32 = 64;

/// A daemon that is looked at from outside.
struct Patient {
    process: Process,
    gate: Gate,
    layout: bytes::Bytes,
    session: u64,
    _stream: tonic::Streaming<proto::SessionEvent>,
}

impl Patient {
    async fn start(dir: &Path) -> Self {
        let (process, _) = Process::start(dir, &TIERS).await;
        let gate = Gate::connect(&dir.join("s")).await;
        let layout = gate.register(spec()).await;
        let (session, stream) = gate.session("engine").await;
        Self { process, gate, layout, session, _stream: stream }
    }

    /// Stores prompts; nothing that the disk does makes a put fail.
    async fn put(&self, seeds: std::ops::Range<u32>) {
        for seed in seeds {
            let prompt = chain(&self.layout, seed, BLOCKS);
            self.gate.put(self.session, prompt, |block| payload(seed, block)).await;
        }
    }

    /// Fetches prompts: how many blocks came, each of them right.
    async fn fetch(&self, seeds: std::ops::Range<u32>) -> usize {
        let mut came = 0;
        for seed in seeds {
            let prompt = chain(&self.layout, seed, BLOCKS);
            let (payloads, _) = self.gate.fetch(self.session, &format!("r{seed}"), prompt).await;
            let right = (0..).zip(&payloads).all(|(block, bytes)| *bytes == payload(seed, block));
            assert!(right, "wrong bytes of prompt {seed}");
            came += payloads.len();
        }
        came
    }

    async fn on_drive(&self) -> u64 {
        self.gate.status().await.nvme.unwrap().blocks
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn try_out() {
    let dir = tempfile::tempdir().unwrap();
    let kind = std::env::var("KVTIER_TRY").unwrap_or_default();
    let root = dir.path().to_path_buf();
    if kind == "full" {
        std::fs::create_dir(root.join("mnt")).unwrap();
        println!(
            "{:?}",
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "kvtier-test"]).arg(root.join("mnt")).status()
        );
        std::fs::create_dir(root.join("mnt/data")).unwrap();
        std::os::unix::fs::symlink(root.join("mnt/data"), root.join("data")).unwrap();
        std::fs::write(root.join("mnt/filler"), vec![1u8; 40 << 20]).unwrap();
    }
    let patient = Patient::start(&root).await;
    patient.put(0..10).await;
    patient.gate.quiesce().await;
    println!("on drive {}", patient.on_drive().await);
    match kind.as_str() {
        "full" => {
            let mut filler = File::options().append(true).open(root.join("mnt/filler")).unwrap();
            let mut n = 0;
            let page = vec![1u8; 4096];
            while filler.write_all(&page).is_ok() {
                n += 1;
            }
            println!("filled {n} pages");
        }
        "ro" => println!("{:?}", Command::new("chattr").args(["-R", "+i"]).arg(root.join("data")).status()),
        "trunc" => File::options().write(true).open(root.join("data/slots/0.kv")).unwrap().set_len(0).unwrap(),
        _ => {}
    }
    let t = Instant::now();
    patient.put(100..100 + MANY).await;
    println!(
        "put in {:?}; quiet {:?}",
        t.elapsed(),
        patient.gate.admin().quiesce(proto::QuiesceRequest { timeout_ms: 3000 }).await.unwrap().into_inner().quiet
    );
    println!("old came {} new came {}", patient.fetch(0..10).await, patient.fetch(100..100 + MANY).await);
    println!("{:#?}", patient.gate.status().await);
    let log = patient.process.log();
    println!("LOG {} lines", log.lines().count());
    for line in log.lines().take(8).chain(log.lines().rev().take(3)) {
        println!("{line}");
    }
    match kind.as_str() {
        "full" => std::fs::remove_file(root.join("mnt/filler")).unwrap(),
        "ro" => println!("{:?}", Command::new("chattr").args(["-R", "-i"]).arg(root.join("data")).status()),
        _ => {}
    }
    for i in 0..4 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        patient.put(1000 + i * 100..1000 + i * 100 + MANY).await;
        println!(
            "after {i}: quiet {:?} on drive {} came {}",
            patient.gate.admin().quiesce(proto::QuiesceRequest { timeout_ms: 3000 }).await.unwrap().into_inner().quiet,
            patient.on_drive().await,
            patient.fetch(1000 + i * 100..1000 + i * 100 + MANY).await
        );
    }
    println!("{:#?}", patient.gate.status().await);
    let log = patient.process.log();
    println!("LOG {} lines", log.lines().count());
    for line in log.lines().rev().take(5) {
        println!("{line}");
    }
    drop(patient);
    if kind == "full" {
        println!("{:?}", Command::new("umount").arg("-l").arg(root.join("mnt")).status());
    }
}
