//! The run: puts until the drive is full and blocks make room for others, promotions, evictions by hand, a purge.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use kvtier::plan::Filter;
use kvtier::tiers::{DriveSpec, Folder, IoOptions};
use kvtier::vocab::{BlockKey, SystemClock};

use crate::prompts::{PROMPTS, Prompt};
use crate::recording::{Recording, Written, batches, log_of};
use crate::rig::{NVME, Rig};

/// A moment at which nothing was under way.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// After which step of the script.
    pub(crate) step: String,
    /// Writes until then.
    pub(crate) writes: usize,
    /// Bytes of the index's log.
    pub(crate) log: usize,
    /// Blocks on the drive, by the planner's word.
    pub(crate) on_drive: BTreeSet<BlockKey>,
}

/// The run as it was.
pub(crate) struct Recorded {
    /// The folder as it was opened; its index has the whole log.
    folder: tempfile::TempDir,
    pub(crate) log: Vec<u8>,
    pub(crate) writes: Vec<Written>,
    /// Where each batch of the log ends.
    pub(crate) batches: Vec<usize>,
    pub(crate) rests: Vec<Rest>,
}

impl Recorded {
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// What the catalog remembers when the machine goes down after all of this.
const ANOTHER_BOOT: &[u8] = br#"{"boot":"before","open":true,"doubtful":false}"#;

/// Runs the script, in this life of the machine or in one that has ended since.
pub(crate) fn record(machine_lives: bool) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // The folder's format is made first: the drive stands beside it.
    let mut begun = Folder::open(folder.path(), &[DriveSpec::here(NVME)], &SystemClock).unwrap();
    drop(begun.open_devices(IoOptions::default(), None).unwrap());
    drop(begun);
    let index = folder.path().join("catalog");
    let drive = Recording::new(NVME.0, &index);
    let writes = drive.writes();
    let mut rig = Rig::open(folder.path(), Some(Arc::new(drive)));
    if !machine_lives {
        rig.catalog().put_meta("life", ANOTHER_BOOT).unwrap();
    }
    let mut rests = Vec::new();
    runtime.block_on(async {
        for step in STEPS {
            take(&mut rig, step).await;
            rig.quiesce().await;
            let log = log_of(&index).metadata().unwrap().len() as usize;
            let writes = writes.lock().unwrap().len();
            rests.push(Rest { step: step.join(" "), writes, log, on_drive: on_drive(&rig).await });
        }
    });
    let log = std::fs::read(log_of(&index)).unwrap();
    rig.close();
    let writes = std::mem::take(&mut *writes.lock().unwrap());
    let batches = batches(&log);
    Recorded { folder, log, writes, batches, rests }
}

/// What happens, step by step.
const STEPS: &[&[&str]] = &[
    &["rest"],
    &["put", "a"],
    &["put", "b"],
    &["put", "c"],
    &["fetch", "a"],
    &["put", "d"],
    &["fetch", "c"],
    &["put", "e"],
    &["evict", "b"],
    &["put", "b"],
    &["fetch", "d"],
    &["put", "f"],
    &["put", "a"],
    &["evict", "f"],
    &["put", "c"],
    &["fetch", "e"],
    &["purge"],
    &["put", "d"],
    &["put", "f"],
];

async fn take(rig: &mut Rig, step: &[&str]) {
    match step {
        ["put", name] => {
            let prompt = Prompt::named(name);
            assert_eq!(rig.put(&prompt).await.stored_through, prompt.blocks, "{name} is stored");
        }
        ["fetch", name] => drop(rig.fetch(&Prompt::named(name), true).await),
        ["evict", name] => {
            let prompt = Prompt::named(name);
            let own = prompt.head.map_or(0, |(_, blocks)| blocks) as usize;
            rig.cache.evict(prompt.keys()[own]).await.unwrap();
        }
        ["purge"] => drop(rig.cache.purge(Filter::default()).await.unwrap()),
        _ => {}
    }
}

async fn on_drive(rig: &Rig) -> BTreeSet<BlockKey> {
    let mut found = BTreeSet::new();
    for key in PROMPTS.iter().flat_map(|prompt| prompt.keys().to_vec()) {
        if rig.is_on_drive(key).await {
            found.insert(key);
        }
    }
    found
}
