//! A disk that is full, one that becomes read-only, a slot file that somebody cuts short, all while the daemon runs: hits
//! where the bytes are there, misses where they are not, a line or two in the log, and a process that lives and does not
//! grow. When the disk is well again, so is the daemon: by itself where only the index could not be written, after a
//! restart where the drive was taken out.
//!
//! What needs root is skipped without it, and says so.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kvtier::offline::verify;
use kvtier::proto::{self, DriveState};
use tonic::Code;

use crate::process::Process;
use crate::support::{Gate, chain, payload, spec};

const MIB: u64 = 1 << 20;
/// Room for 256 blocks in RAM and 512 on the drive. What a scrub reads is not let go, and here each block counts.
// By LRU: what came last is there.
const TIERS: [&str; 8] = ["--ram", "1MiB", "--nvme", "2MiB", "--scrub", "0", "--policy", "lru"];
/// Blocks of a prompt.
const BLOCKS: u32 = 16;
/// Prompts that RAM holds.
const FEW: u32 = 10;
/// Prompts that fill the drive twice over.
const MANY: u32 = 64;
/// Lines that a trouble may cost: one for each kind that it shows itself in.
const LINES_MAX: usize = 5;
/// What the process may grow while thousands of blocks can't be stored: an allocator's caches.
const GROWTH_MAX: u64 = 48 * MIB;
/// How long the daemon may take to notice that a disk is well again.
const NOTICE: Duration = Duration::from_secs(30);

/// Whether a command worked; why not is printed.
fn works(program: &str, args: &[&str], on: &Path) -> bool {
    let output = Command::new(program).args(args).arg(on).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            false
        }
    }
}

/// A file system of its own, small, in memory.
struct Small(PathBuf);

impl Small {
    /// Mounts it on `at`; `None`, with a word, where that is not allowed.
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = works("mount", &["-t", "tmpfs", "-o", "size=48m", "kvtier-test"], &at);
        if !mounted {
            eprintln!("skipped: a full disk needs a file system of its own, which only root may mount");
        }
        mounted.then_some(Self(at))
    }

    /// Fills it to the last page but `left` bytes.
    fn fill(&self, left: u64) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        let page = [1; 4096];
        while free(&self.0) > left && filler.write_all(&page).is_ok() {}
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        works("umount", &["-l"], &self.0);
    }
}

fn free(path: &Path) -> u64 {
    kvtier::media::files::free_bytes(path).unwrap()
}

/// A folder that nobody may write to; until dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn freeze(folder: PathBuf) -> Option<Self> {
        let frozen = works("chattr", &["-R", "+i"], &folder);
        if !frozen {
            eprintln!("skipped: only root may make a folder immutable, on a file system that knows it");
        }
        // Also where it worked for some of the files.
        let frozen_folder = Self(folder);
        frozen.then_some(frozen_folder)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        works("chattr", &["-R", "-i"], &self.0);
    }
}

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

    /// Stores prompts: whatever the disk does, no put fails.
    async fn put(&self, seeds: Range<u32>) {
        for seed in seeds {
            let prompt = chain(&self.layout, seed, BLOCKS);
            self.gate.put(self.session, prompt, |block| payload(seed, block)).await;
        }
    }

    /// Fetches prompts: how many blocks came, each of them right.
    async fn fetch(&self, seeds: Range<u32>) -> u64 {
        let mut came = 0;
        for seed in seeds {
            let prompt = chain(&self.layout, seed, BLOCKS);
            let (payloads, _) = self.gate.fetch(self.session, &format!("r{seed}"), prompt).await;
            let right = (0..).zip(&payloads).all(|(block, bytes)| *bytes == payload(seed, block));
            assert!(right, "wrong bytes of prompt {seed}");
            came += payloads.len() as u64;
        }
        came
    }

    async fn on_drive(&self) -> u64 {
        self.gate.status().await.nvme.unwrap().blocks
    }

    async fn drive(&self) -> DriveState {
        self.gate.status().await.drives[0].state()
    }

    fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Asserts that the log is short and that one line of it has all these parts.
    fn says(&self, parts: &[&str]) {
        let log = self.process.log();
        let lines: Vec<&str> = log.lines().collect();
        assert!(
            lines.len() <= LINES_MAX,
            "{} lines, the first of them:\n{}",
            lines.len(),
            lines[..LINES_MAX].join("\n")
        );
        let said = lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(said, "no line says {parts:?}:\n{log}");
    }

    async fn until_it_says(&self, words: &str) {
        let started = Instant::now();
        while !self.process.log().contains(words) {
            assert!(started.elapsed() < NOTICE, "it does not say {words:?}:\n{}", self.process.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stores more than the drive holds, no faster than it takes them: all of it is there, and right.
    async fn is_well(&self, seeds: Range<u32>) {
        for seed in seeds.clone().step_by(4) {
            self.put(seed..seed + 4).await;
            self.gate.quiesce().await;
        }
        let status = self.gate.status().await;
        assert_eq!(self.on_drive().await, 512, "the drive is full of blocks: {status:#?}\n{}", self.process.log());
        let came = self.fetch(seeds.end - 32..seeds.end).await;
        assert_eq!(came, 512, "the newest are there: {status:#?}\n{}", self.process.log());
    }
}

/// Nothing is wrong with the folder of a daemon that was killed.
fn whole(dir: &Path) {
    let report = verify(&dir.join("data"), |_, _| {}).unwrap();
    assert_eq!((report.corrupt, report.stale), (0, 0), "{report:#?}");
    assert!(report.blocks > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_blocks_stay_in_ram_until_it_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(dir.path().join("small")) else { return };
    std::fs::create_dir(small.0.join("data")).unwrap();
    std::os::unix::fs::symlink(small.0.join("data"), dir.path().join("data")).unwrap();
    // Too full for the databases to reserve what they will write.
    small.fill(8 * MIB);
    let mut patient = Patient::start(dir.path()).await;
    patient.put(0..FEW).await;
    patient.gate.quiesce().await;
    assert_eq!(patient.on_drive().await, 160);
    let before = patient.resident_bytes();

    small.fill(0);
    for turn in 1..4 {
        patient.put(turn * 100..turn * 100 + MANY).await;
        assert_eq!(patient.fetch(0..FEW).await, 160, "what is on the drive is read as before");
        assert!(patient.fetch(turn * 100 + MANY - 4..turn * 100 + MANY).await > 0, "RAM goes on");
    }
    patient.says(&["No space left on device", "catalog"]);
    assert_eq!(patient.drive().await, DriveState::Ok, "the drive is not to blame");
    assert!(patient.resident_bytes() < before + GROWTH_MAX, "{} bytes, {before} before", patient.resident_bytes());
    refuses_a_settle(&patient).await;

    std::fs::remove_file(small.filler()).unwrap();
    patient.until_it_says("the catalog can be written again").await;
    patient.until_it_says("the ledger can be written again").await;
    patient.gate.usage().settle(settle(&patient, "b-later")).await.expect("settles go on by themselves");
    patient.is_well(1000..1000 + MANY).await;
    patient.process.kill();
    whole(dir.path());
    assert_eq!(kvtier::offline::audit(&dir.path().join("data")).unwrap().differences, 0);
}

fn settle(patient: &Patient, billing_id: &str) -> proto::SettleRequest {
    proto::SettleRequest {
        tenant: "acme".into(),
        billing_id: billing_id.into(),
        instance: "engine".into(),
        request_id: "r0".into(),
        fingerprint: patient.layout.clone(),
        prompt_tokens: 256,
        cached_tokens: u64::from(billing_id == "b-0"),
        ..Default::default()
    }
}

/// Nothing can be billed that can't be kept; a few may still fit what the ledger's last page has left.
async fn refuses_a_settle(patient: &Patient) {
    for nth in 0..200 {
        if let Err(status) = patient.gate.usage().settle(settle(patient, &format!("b-{nth}"))).await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            assert!(status.message().contains("ledger"), "{status:?}");
            return;
        }
    }
    panic!("200 settles were acknowledged on a full disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_whose_log_has_no_room_goes_on_without_it() {
    let dir = tempfile::tempdir().unwrap();
    // Socket, log and data are all on it.
    let Some(small) = Small::mount(dir.path().join("small")) else { return };
    small.fill(8 * MIB);
    let mut patient = Patient::start(&small.0).await;
    patient.put(0..FEW).await;
    patient.gate.quiesce().await;
    small.fill(0);
    patient.put(100..100 + MANY).await;
    assert_eq!(patient.fetch(0..FEW).await, 160);
    std::fs::remove_file(small.filler()).unwrap();
    patient.until_it_says("the catalog can be written again").await;
    patient.is_well(1000..1000 + MANY).await;
    patient.process.kill();
    whole(&small.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_becomes_read_only_leaves_a_cache_in_ram() {
    let dir = tempfile::tempdir().unwrap();
    let mut patient = Patient::start(dir.path()).await;
    patient.put(0..FEW).await;
    patient.gate.quiesce().await;
    let before = patient.resident_bytes();
    let Some(frozen) = Frozen::freeze(dir.path().join("data")) else { return };

    for turn in 1..4 {
        patient.put(turn * 100..turn * 100 + MANY).await;
        let last = turn * 100 + MANY - 4..turn * 100 + MANY;
        assert_eq!(patient.fetch(last).await, 64, "RAM goes on");
        patient.fetch(0..FEW).await;
    }
    assert_eq!(patient.drive().await, DriveState::Out);
    patient.says(&["a drive keeps failing and is taken out", "Operation not permitted"]);
    assert!(patient.resident_bytes() < before + GROWTH_MAX, "{} bytes, {before} before", patient.resident_bytes());
    drop(frozen);
    patient.process.kill();

    let mut patient = Patient::start(dir.path()).await;
    assert_eq!(patient.drive().await, DriveState::Ok, "a restart tries it again");
    patient.is_well(1000..1000 + MANY).await;
    patient.process.kill();
    whole(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_file_that_is_cut_short_is_misses_and_whole_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let slots = dir.path().join("data/slots/0.kv");
    let mut patient = Patient::start(dir.path()).await;
    patient.put(0..MANY).await;
    patient.gate.quiesce().await;
    let before = patient.resident_bytes();

    File::options().write(true).open(&slots).unwrap().set_len(0).unwrap();
    for turn in 1..4 {
        patient.fetch(0..MANY).await;
        patient.put(turn * 100..turn * 100 + 8).await;
        assert_eq!(patient.fetch(turn * 100..turn * 100 + 8).await, 128, "RAM goes on");
    }
    patient.says(&["a block is lost: served as a miss"]);
    assert!(patient.resident_bytes() < before + GROWTH_MAX, "{} bytes, {before} before", patient.resident_bytes());
    patient.process.kill();

    let mut patient = Patient::start(dir.path()).await;
    assert_eq!(slots.metadata().unwrap().len(), 2 * MIB, "preallocated again");
    patient.fetch(0..MANY).await;
    patient.is_well(1000..1000 + MANY).await;
    patient.process.kill();
    let report = verify(&dir.path().join("data"), |_, _| {}).unwrap();
    assert_eq!(report.corrupt, 0, "what was cut off was never written, as far as the drive knows: {report:#?}");
}
