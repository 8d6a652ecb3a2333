//! One crash: a folder with what was done by then, the daemon's own recovery on it, and what came of it.

use std::collections::BTreeSet;
use std::path::Path;

use kvtier::cache::load::FetchOutcome;
use kvtier::offline::{ProblemKind, VerifyReport, verify};
use kvtier::tiers::{Catalog, DriveSpec, Folder, Place};
use kvtier::vocab::{BlockKey, SystemClock};

use crate::prompts::{PROMPTS, Prompt, payload_of};
use crate::recording::log_of;
use crate::rig::{NVME, Rig};
use crate::script::Recorded;

const PAGE: usize = 4096;

/// What a crash leaves.
#[derive(Clone, Debug)]
pub(crate) struct Crash {
    /// Writes to the drive that were begun.
    writes: usize,
    /// Of the last of them, pages that were done; `None`: all of them.
    pages_of_last: Option<usize>,
    /// Of those begun, writes that a power loss has taken back: (which, pages that stayed).
    taken_back: Vec<(usize, usize)>,
    /// Bytes of the index's log.
    log: usize,
    /// The power went.
    power: bool,
}

/// What was found in crashes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) rows: u64,
    pub(crate) read: u64,
    pub(crate) orphaned: u64,
    pub(crate) corrupt: u64,
    pub(crate) stale: u64,
    /// Blocks that readers found to be gone.
    pub(crate) lost: u64,
}

impl Found {
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.read += other.read;
        self.orphaned += other.orphaned;
        self.corrupt += other.corrupt;
        self.stale += other.stale;
        self.lost += other.lost;
    }
}

/// Every moment at which the run can have stopped: (writes done, bytes of the log).
fn moments(recorded: &Recorded) -> Vec<(usize, usize)> {
    let ends = || [0].into_iter().chain(recorded.batches.iter().copied());
    let mut moments = Vec::new();
    for writes in 0..=recorded.writes.len() {
        let from = writes.checked_sub(1).map_or(0, |last| recorded.writes[last].log);
        let until = recorded.writes.get(writes).map_or(recorded.log.len(), |next| next.log);
        moments.extend(ends().filter(|end| (from..=until).contains(end)).map(|end| (writes, end)));
    }
    moments
}

/// A kill at each moment, and in the middle of what comes next: a write with some of its pages, a batch cut in two.
pub(crate) fn crashes(recorded: &Recorded) -> Vec<Crash> {
    let mut crashes = Vec::new();
    for (writes, log) in moments(recorded) {
        let at = Crash { writes, pages_of_last: None, taken_back: Vec::new(), log, power: false };
        match recorded.writes.get(writes).filter(|next| next.log == log) {
            Some(next) => {
                let pages = 1 + writes % (next.bytes.len() / PAGE - 1).max(1);
                crashes.push(Crash { writes: writes + 1, pages_of_last: Some(pages), ..at.clone() });
            }
            None => {
                let next = recorded.batches.iter().find(|end| **end > log);
                crashes.extend(next.map(|end| Crash { log: log + (end - log) / 2, ..at.clone() }));
            }
        }
        crashes.push(at);
    }
    crashes
}

/// A power loss at each moment: the last writes are gone or torn and their rows are there, or the last batches are gone
/// and the writes are there.
pub(crate) fn power_losses(recorded: &Recorded) -> Vec<Crash> {
    let mut losses = Vec::new();
    for (at, (writes, log)) in moments(recorded).into_iter().enumerate() {
        let whole = Crash { writes, pages_of_last: None, taken_back: Vec::new(), log, power: true };
        let (how_many, pages) = (1 + at % 3, [0, 2][at / 3 % 2]);
        let taken_back: Vec<_> = (writes.saturating_sub(how_many)..writes).map(|write| (write, pages)).collect();
        if !taken_back.is_empty() {
            losses.push(Crash { taken_back, ..whole.clone() });
        }
        let ends: Vec<usize> = recorded.batches.iter().copied().filter(|end| *end < log).collect();
        if let Some(earlier) = ends.len().checked_sub([1, 2, 5, 12][at % 4]) {
            losses.push(Crash { log: ends[earlier], ..whole });
        }
    }
    losses
}

impl Crash {
    /// Lets it happen in `dir`, and recovers from it.
    pub(crate) async fn happen(&self, recorded: &Recorded, dir: &Path) -> Found {
        let image = self.image(recorded);
        self.leave(recorded, &image, dir);
        let report = verify(dir, |_, _| {}).unwrap();
        assert_eq!(report.undecodable_rows, 0, "{self:?}");
        let (rows, wrong) = rows(dir, &image);
        let blamed =
            |kind| report.problems.iter().filter(move |found| found.kind == kind).map(|found| found.key.clone());
        let blamed: BTreeSet<_> = blamed(ProblemKind::Corrupt).chain(blamed(ProblemKind::Stale)).collect();
        let expected: BTreeSet<_> = wrong.iter().map(BlockKey::to_string).collect();
        assert_eq!(blamed, expected, "{self:?}: verify blames the rows whose bytes are not theirs");
        assert_eq!(report.blocks, rows.len() as u64, "{self:?}");
        if !self.power {
            self.compare_with_rests(recorded, &rows);
        }
        self.recover(dir, &report, &rows).await
    }

    /// The drive as the crash leaves it.
    fn image(&self, recorded: &Recorded) -> Vec<u8> {
        let mut image = vec![0; NVME.0 as usize];
        for (at, write) in recorded.writes[..self.writes].iter().enumerate() {
            let last = self.pages_of_last.filter(|_| at + 1 == self.writes);
            let taken_back = self.taken_back.iter().find(|(which, _)| *which == at).map(|(_, pages)| *pages);
            let bytes = last.or(taken_back).map_or(write.bytes.len(), |pages| (pages * PAGE).min(write.bytes.len()));
            let from = write.offset as usize;
            image[from..from + bytes].copy_from_slice(&write.bytes[..bytes]);
        }
        image
    }

    fn leave(&self, recorded: &Recorded, image: &[u8], dir: &Path) {
        let index = dir.join("catalog");
        if index.exists() {
            std::fs::remove_dir_all(&index).unwrap();
        }
        std::fs::create_dir_all(&index).unwrap();
        std::fs::create_dir_all(dir.join("slots")).unwrap();
        for name in ["FORMAT", "LOCK"] {
            std::fs::copy(recorded.folder().join(name), dir.join(name)).unwrap();
        }
        for path in std::fs::read_dir(recorded.folder().join("catalog")).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&path, index.join(path.file_name().unwrap())).unwrap();
        }
        std::fs::write(log_of(&index), &recorded.log[..self.log]).unwrap();
        std::fs::write(dir.join("slots/0.kv"), image).unwrap();
    }

    /// What every moment of rest around the crash has on the drive is there, and what none has is not.
    fn compare_with_rests(&self, recorded: &Recorded, rows: &BTreeSet<BlockKey>) {
        let rests = &recorded.rests;
        let before = rests.iter().rev().find(|rest| rest.log <= self.log && rest.writes <= self.writes);
        let after = rests.iter().find(|rest| rest.log >= self.log && rest.writes >= self.writes);
        let (Some(before), Some(after)) = (before, after) else { return };
        let lost = before.on_drive.intersection(&after.on_drive).find(|key| !rows.contains(*key));
        assert_eq!(
            lost, None,
            "{self:?}, between {:?} and {:?}: a block that was there is gone",
            before.step, after.step
        );
        if (before.log, before.writes) == (after.log, after.writes) && self.pages_of_last.is_none() {
            assert_eq!(rows, &before.on_drive, "{self:?}: at rest after {:?}", before.step);
        }
    }

    /// Opens the folder as a daemon does, reads all that it says it has, and uses it.
    async fn recover(&self, dir: &Path, report: &VerifyReport, rows: &BTreeSet<BlockKey>) -> Found {
        let mut rig = Rig::open(dir, None);
        let mut read = 0;
        for prompt in &PROMPTS {
            let (came, outcome) = rig.fetch(prompt, false).await;
            assert!(outcome == FetchOutcome::Miss || came == prompt.blocks, "{self:?}: {outcome:?} after {came}");
            let reachable = prompt.keys().iter().take_while(|key| rows.contains(*key)).count() as u32;
            assert!(came <= reachable, "{self:?}: {} has {came} blocks of {reachable} with rows", prompt.name);
            assert!(self.power || came == reachable, "{self:?}: {} has {came} blocks of {reachable}", prompt.name);
            read += u64::from(came);
        }
        let status = rig.cache.status().await.unwrap();
        let lost = status.counters["lost"];
        assert_eq!(status.counters["device_read_errors"], 0, "{self:?}");
        for prompt in [&PROMPTS[2], &PROMPTS[4]] {
            self.use_again(&mut rig, prompt).await;
        }
        rig.close();
        let VerifyReport { blocks, corrupt, stale, orphaned, .. } = *report;
        Found { rows: blocks, read, orphaned, corrupt, stale, lost }
    }
}

impl Crash {
    /// It goes on as if nothing had happened: whatever was lost is stored again. After a power loss that takes several
    /// turns, since each fetch ends at the first block whose bytes are gone, and only then is it asked for.
    async fn use_again(&self, rig: &mut Rig, prompt: &Prompt) {
        let turns = if self.power { prompt.blocks + 1 } else { 1 };
        let mut last = String::new();
        for _ in 0..turns {
            // What the last fetch read ahead may still be found wanting.
            rig.quiesce().await;
            let stored = rig.put(prompt).await;
            assert_eq!(stored.stored_through, prompt.blocks, "{self:?}: {}: {stored:?}", prompt.name);
            rig.quiesce().await;
            let (came, outcome) = rig.fetch(prompt, true).await;
            if came == prompt.blocks {
                return;
            }
            last = format!("{outcome:?} after {came} blocks, {}", rig.places(prompt).await);
        }
        panic!("{self:?}: {} is not there after {turns} turns: {last}", prompt.name);
    }
}

/// The blocks that the index names, and those of them whose slots hold other bytes.
fn rows(dir: &Path, image: &[u8]) -> (BTreeSet<BlockKey>, BTreeSet<BlockKey>) {
    let shape = Folder::open(dir, &[DriveSpec::here(NVME)], &SystemClock).unwrap().shape();
    let (mut rows, mut wrong) = (BTreeSet::new(), BTreeSet::new());
    let visit = |key: BlockKey, row| {
        let place = Place::of(&row).unwrap();
        let (from, payload) = (shape.offset(place.slot, place.class) as usize, payload_of(&key));
        rows.insert(key);
        if image[from..from + place.length as usize] != payload[..] {
            wrong.insert(key);
        }
    };
    Catalog::open_existing(&dir.join("catalog")).unwrap().scan(visit).unwrap();
    (rows, wrong)
}
