//! One round: start on what the last one left, check all that was promised, storm, kill, look at the folder.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kvtier::client::{Client, FetchOptions, ServerAddress, Status};
use kvtier::offline::{VerifyReport, verify};
use kvtier::vocab::{InstanceId, RequestId, TenantName};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::bills::Bills;
use crate::keeper::{Keeper, all_there};
use crate::process::Process;
use crate::prompts::{PROMPTS, Prompts};
use crate::storm::{Storm, Tally};

/// The drive holds about a quarter of what is asked for, RAM a quarter of that.
const TIERS: [&str; 4] = ["--ram", "1MiB", "--nvme", "4MiB"];
const CLIENTS: u64 = 6;
/// How long a storm blows, in milliseconds.
const STORM_MS: std::ops::Range<u64> = 20..300;
/// Every so many rounds all that is left on the drive is read through the gate.
const SWEEP_EVERY: u64 = 5;
/// How long clients of a dead daemon may take to notice.
const NOTICE: Duration = Duration::from_secs(60);

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) rounds: u64,
    pub(crate) killed_in_puts: u64,
    pub(crate) killed_in_writes: u64,
    pub(crate) stored: u64,
    pub(crate) read: u64,
    pub(crate) read_from_nvme: u64,
    pub(crate) evicted: u64,
    pub(crate) nvme_evicted: u64,
    pub(crate) purged: u64,
    pub(crate) verified: u64,
    pub(crate) orphaned: u64,
    pub(crate) kept: u64,
    pub(crate) settled: u64,
    pub(crate) in_doubt: u64,
}

pub(crate) struct Torture {
    seed: u64,
    round: u64,
    random: SmallRng,
    bills: Bills,
    figures: Figures,
    /// What the last round has left.
    left: Option<(Tally, VerifyReport)>,
    /// Last: kept when a round fails.
    folder: Folder,
}

/// The folder of the run; kept, and named, when the test fails.
struct Folder(Option<tempfile::TempDir>);

impl Folder {
    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Torture {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.0.take_if(|_| std::thread::panicking()) {
            let (seed, round) = (self.seed, self.round);
            eprintln!("seed {seed}, round {round}: the folder is kept in {}", folder.keep().display());
        }
    }
}

impl Torture {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            round: 0,
            random: SmallRng::seed_from_u64(seed),
            bills: Bills::default(),
            figures: Figures::default(),
            left: None,
            folder: Folder(Some(tempfile::tempdir().unwrap())),
        }
    }

    pub(crate) async fn round(&mut self, round: u64) {
        self.round = round;
        let (mut process, address) = Process::start(self.folder.path(), &TIERS).await;
        let client = Client::connect(&address).await.unwrap();
        let prompts = Prompts::register(self.seed, &client).await;
        self.check_what_is_left(&client, &prompts).await;
        let keeper = Keeper::new(&client, round).await;
        let in_peace = keeper.store_in_peace(&prompts).await;
        let mut tally = self.storm(&mut process, address, prompts, keeper).await;
        tally.kept.extend(in_peace);
        assert!(tally.troubles.is_empty(), "{:#?}", tally.troubles);
        judge_log(&process.log());
        drop(process);
        let report = verify(&self.folder.path().join("data"), |_, _| {}).unwrap();
        let wrong = (report.corrupt, report.stale, report.undecodable_rows);
        assert_eq!(wrong, (0, 0, 0), "corrupt, stale and undecodable: {report:#?}");
        self.count(&tally, &report);
        self.left = Some((tally, report));
    }

    /// The last round's promises are kept; then the ledger itself is read.
    pub(crate) async fn end(&mut self) -> Figures {
        let (mut process, address) = Process::start(self.folder.path(), &TIERS).await;
        let client = Client::connect(&address).await.unwrap();
        let prompts = Prompts::register(self.seed, &client).await;
        self.check_what_is_left(&client, &prompts).await;
        process.kill();
        self.bills.compare_records(&self.folder.path().join("data/ledger"));
        Figures { settled: self.bills.all.len() as u64, ..self.figures }
    }

    async fn check_what_is_left(&mut self, client: &Client, prompts: &Prompts) {
        let Some((tally, report)) = self.left.take() else { return };
        let nvme = client.status().await.unwrap().nvme.unwrap();
        assert_eq!(nvme.blocks, report.blocks, "what verify finds is what the daemon has");
        self.figures.kept += all_there(client, &tally.kept).await;
        self.bills.present_again(client, tally.settled, tally.in_doubt, &mut self.random).await;
        self.bills.compare_sums(client).await;
        if self.round.is_multiple_of(SWEEP_EVERY) {
            self.figures.read += sweep(client, prompts).await;
        }
        judge(&client.status().await.unwrap());
    }

    /// Lets it blow for a while, and kills the daemon in the middle of it.
    async fn storm(
        &mut self,
        process: &mut Process,
        address: ServerAddress,
        prompts: Prompts,
        keeper: Keeper,
    ) -> Tally {
        let client = Client::connect(&address).await.unwrap();
        let storm = Arc::new(Storm {
            address,
            prompts,
            round: self.round,
            killed: false.into(),
            putting: 0.into(),
            tally: Default::default(),
        });
        let mut clients = tokio::task::JoinSet::new();
        clients.spawn(keeper.store_in_storm(Arc::clone(&storm)));
        for number in 0..CLIENTS {
            clients.spawn(Arc::clone(&storm).blow(number, self.seed));
        }
        tokio::time::sleep(Duration::from_millis(self.random.random_range(STORM_MS))).await;
        let status = client.status().await.unwrap();
        storm.killed.store(true, Ordering::SeqCst);
        let putting = storm.putting.load(Ordering::SeqCst);
        process.kill();
        tokio::time::timeout(NOTICE, clients.join_all()).await.expect("clients of a dead daemon notice");
        self.figures.killed_in_puts += u64::from(putting > 0);
        self.figures.killed_in_writes += u64::from(status.background > 0);
        self.figures.nvme_evicted += status.counters["nvme_evicted"];
        self.figures.read_from_nvme += status.counters["device_reads"];
        judge(&status);
        std::mem::take(&mut *storm.tally.lock().unwrap())
    }

    fn count(&mut self, tally: &Tally, report: &VerifyReport) {
        let figures = &mut self.figures;
        figures.rounds += 1;
        figures.stored += tally.stored;
        figures.read += tally.read;
        figures.evicted += tally.evicted;
        figures.purged += tally.purged;
        figures.in_doubt += tally.in_doubt.len() as u64;
        figures.verified += report.blocks;
        figures.orphaned += report.orphaned;
    }
}

/// Nothing injects faults here, so a block that was lost, though served as a miss, is a mistake.
fn judge(status: &Status) {
    for counter in ["lost", "device_corrupt", "device_read_errors", "device_write_errors", "nvme_write_failed"] {
        assert_eq!(status.counters[counter], 0, "{counter}: {:?}", status.counters);
    }
}

fn judge_log(log: &str) {
    let bad = |line: &&str| line.contains("panicked") || line.contains("ERROR") || line.contains("WARN");
    let bad: Vec<&str> = log.lines().filter(bad).collect();
    assert!(bad.is_empty(), "the daemon complained:\n{}", bad.join("\n"));
}

/// Reads all that is left of every prompt past RAM; how many blocks, all right.
async fn sweep(client: &Client, prompts: &Prompts) -> u64 {
    let session = client.open_session(&InstanceId::parse("sweep").unwrap(), "sweep").await.unwrap();
    let mut read = 0;
    for number in 0..PROMPTS {
        let prompt = prompts.of_storm(number);
        let chain = prompt.chain(&TenantName::parse("acme").unwrap());
        let options = FetchOptions { do_not_promote: true, ..FetchOptions::default() };
        let request = RequestId::parse(&format!("sweep-{number}")).unwrap();
        let mut fetch = client.fetch(&session, &request, &chain, options).await.unwrap();
        while let Some(block) = fetch.next_block().await.unwrap() {
            assert!(
                prompt.is(block.index as usize, &block.bytes),
                "wrong bytes of block {} of {prompt:?}",
                block.index
            );
            read += 1;
        }
        fetch.end().await.unwrap();
    }
    read
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, killed_in_puts, killed_in_writes, stored, read, read_from_nvme, .. } = self;
        let Self { evicted, nvme_evicted, purged, verified, orphaned, kept, settled, in_doubt, .. } = self;
        writeln!(f, "{rounds} rounds, {killed_in_puts} killed in puts, {killed_in_writes} in writes to the drive;")?;
        writeln!(f, "{stored} blocks stored, {read} read right, {read_from_nvme} of them from the drive;")?;
        writeln!(f, "{nvme_evicted} evicted for want of room, {evicted} by hand, {purged} purged;")?;
        writeln!(f, "{verified} rows verified, {orphaned} without an ancestor, 0 corrupt, 0 stale;")?;
        write!(f, "{kept} blocks acknowledged as durable and all there; ")?;
        write!(
            f,
            "{settled} settles acknowledged, {in_doubt} of them after a kill had left them in doubt, each there once"
        )
    }
}
