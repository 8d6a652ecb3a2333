//! Checks every slot of a stopped folder against the index.
//!
//! *Corrupt* is a slot whose bytes are not those that its only row was written for: the drive or something else changed
//! them. *Stale* is a row that can't be true, as a power loss leaves behind. Both are misses to a daemon, never answers.
//! Once the machine has gone down under a daemon, a row without its bytes is no sign of damage (see `index/life.rs`).

use std::path::Path;
use std::sync::{Arc, mpsc};

use hashbrown::HashSet;
use serde::Serialize;

use super::judge::{self, Found};
use super::{OfflineError, open_catalog, unreadable};
use crate::tiers::{Folder, IoOptions, NvmeShelf, ReadError, ReadInto};
use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::{VERIFY_PROBLEMS_MAX, VERIFY_READS};
use crate::vocab::{BlockKey, ByteCount};

/// What a verification found. Field names are a contract with other programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Rows of the index.
    pub blocks: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Slots whose bytes are not those that their only row was written for, or that the drive can't read.
    pub corrupt: u64,
    /// Rows that can't be true, as after a power loss. They are misses.
    pub stale: u64,
    /// Blocks with an ancestor that has no row which can be true: unreachable, first to go.
    pub orphaned: u64,
    /// Slots of extents in use that no row names: free.
    pub unreferenced_slots: u64,
    /// Rows that can't be decoded: a daemon deletes them.
    pub undecodable_rows: u64,
    /// The machine has gone down while a daemon ran, and nobody has compared all rows since: rows without their bytes are
    /// stale.
    pub after_power_loss: bool,
    /// The first of what is wrong, corrupt ones ahead.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub problems_omitted: u64,
}

/// Something wrong with one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The block's key in hexadecimal digits.
    pub key: String,
    /// Its slot on the drive, `extent:index`.
    pub slot: String,
    /// How bad it is.
    pub kind: ProblemKind,
    /// What is wrong.
    pub what: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// Bytes were changed.
    Corrupt,
    /// A row that can't be true.
    Stale,
    /// An ancestor is gone.
    Orphaned,
}

/// Checks the folder `dir`. `progress` is told how many bytes of how many have been read.
///
/// # Errors
/// When the folder is in use, is no data folder, or its catalog can't be read.
pub fn verify(dir: &Path, mut progress: impl FnMut(ByteCount, ByteCount)) -> Result<VerifyReport, OfflineError> {
    let mut folder = Folder::inspect(dir)?;
    let Some(catalog) = open_catalog(&folder)? else { return Ok(VerifyReport::default()) };
    // First, since a drive that can't be opened has no slots.
    let devices = folder.open_devices(IoOptions::default(), None)?;
    let path = folder.catalog();
    let mut rows = Vec::new();
    let scanned = catalog.scan(|key, row| rows.push(Found::new(key, &row))).map_err(unreadable(&path))?;
    let known: HashSet<u16> =
        catalog.namespaces().map_err(unreadable(&path))?.iter().map(|namespace| namespace.id.0).collect();
    judge::mark(&mut rows, folder.shape(), &known);

    let mut findings = Findings::default();
    for row in &rows {
        if let Some(why) = row.stale {
            findings.add(row, ProblemKind::Stale, why.to_owned());
        }
    }
    let unreferenced_slots = judge::unreferenced_slots(&rows, folder.shape());
    findings.after_power_loss = catalog.is_doubtful().map_err(unreadable(&path))?;
    let shelf = NvmeShelf::striped(devices, Arc::new(catalog), folder.shape());
    check_slots(&shelf, &mut rows, &mut findings, &mut progress);
    shelf.stop();
    for (row, _) in rows.iter().zip(judge::orphans(&rows)).filter(|(_, orphan)| *orphan) {
        findings.add(row, ProblemKind::Orphaned, "one of its ancestors is gone".to_owned());
    }
    Ok(VerifyReport {
        blocks: rows.len() as u64,
        bytes: rows.iter().map(|row| u64::from(row.length)).sum(),
        unreferenced_slots,
        undecodable_rows: scanned.undecodable,
        ..findings.report()
    })
}

/// Reads every slot that a row may be right about, in the order of the drive.
fn check_slots(
    shelf: &NvmeShelf,
    rows: &mut [Found],
    findings: &mut Findings,
    progress: &mut impl FnMut(ByteCount, ByteCount),
) {
    let mut order: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].stale.is_none()).collect();
    order.sort_unstable_by_key(|at| rows[*at].slot);
    let total = ByteCount(order.iter().map(|at| u64::from(rows[*at].length)).sum());
    let mut done = ByteCount::ZERO;
    // As many answers as reads under way: a device thread never waits for room.
    let (answer, answers) = mpsc::sync_channel(VERIFY_READS);
    let mut waiting = order.into_iter();
    let mut under_way = 0;
    loop {
        while under_way < VERIFY_READS
            && let Some(at) = waiting.next()
        {
            let Some(place) = rows[at].place else { continue };
            let answer = answer.clone();
            let tell = move |read: Result<_, ReadError>| drop(answer.send((at, read.map(drop))));
            shelf.read(rows[at].key, place, ReadInto::Heap, tell);
            under_way += 1;
        }
        if under_way == 0 {
            break;
        }
        let Ok((at, read)) = answers.recv() else { break };
        under_way -= 1;
        done += ByteCount(u64::from(rows[at].length));
        if let Err(error) = read {
            judge_read(&mut rows[at], &error, findings);
        }
        progress(done, total);
    }
}

fn judge_read(row: &mut Found, error: &ReadError, findings: &mut Findings) {
    let stale = match error {
        ReadError::Corrupt { .. } if row.contested => Some("another row names its slot, and the bytes are not its own"),
        ReadError::Corrupt { found, .. } if *found == crc_of_zeroes(&row.key, row.length) => {
            Some("its slot was never written")
        }
        ReadError::Corrupt { .. } if findings.after_power_loss => {
            Some("its bytes are not in its slot, as after the machine went down while a daemon ran")
        }
        _ => None,
    };
    match stale {
        Some(why) => {
            row.stale = Some(why);
            findings.add(row, ProblemKind::Stale, why.to_owned());
        }
        None => findings.add(row, ProblemKind::Corrupt, error.to_string()),
    }
}

fn crc_of_zeroes(key: &BlockKey, length: u32) -> u64 {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut crc = PayloadCrc::new(key);
    let mut left = length as usize;
    while left > 0 {
        let piece = left.min(ZEROES.len());
        crc.update(&ZEROES[..piece]);
        left -= piece;
    }
    crc.finish()
}

/// Problems by kind; of each, as many as may be listed.
#[derive(Default)]
struct Findings {
    after_power_loss: bool,
    corrupt: u64,
    stale: u64,
    orphaned: u64,
    listed: [Vec<Problem>; 3],
}

impl Findings {
    fn add(&mut self, row: &Found, kind: ProblemKind, what: String) {
        let (count, list) = match kind {
            ProblemKind::Corrupt => (&mut self.corrupt, &mut self.listed[0]),
            ProblemKind::Stale => (&mut self.stale, &mut self.listed[1]),
            ProblemKind::Orphaned => (&mut self.orphaned, &mut self.listed[2]),
        };
        *count += 1;
        if list.len() < VERIFY_PROBLEMS_MAX {
            list.push(Problem { key: row.key.to_string(), slot: row.slot.to_string(), kind, what });
        }
    }

    fn report(self) -> VerifyReport {
        let mut problems: Vec<Problem> = self.listed.into_iter().flatten().collect();
        problems.truncate(VERIFY_PROBLEMS_MAX);
        let all = self.corrupt + self.stale + self.orphaned;
        VerifyReport {
            corrupt: self.corrupt,
            stale: self.stale,
            orphaned: self.orphaned,
            after_power_loss: self.after_power_loss,
            problems_omitted: all - problems.len() as u64,
            problems,
            ..VerifyReport::default()
        }
    }
}
