//! The world of one seed: what the daemon is made of, what is under way, and what is known from outside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvtier::media::{Faults, FaultyDevice};
use kvtier::plan::{AdmissionKind, Answer, Event, InstanceNo, Options, Planner, PolicyKind, Residence};
use kvtier::replay::payload;
use kvtier::tiers::{Catalog, NvmeShelf, RamShelf, Row, SlotPin};
use kvtier::vocab::{BlockKey, SlotId, TierShape, Timestamp};

use crate::chance::Chance;
use crate::drive::{Disk, Drive};
use crate::hands::Finished;
use crate::prompts::{PAYLOADS, Prompts};
use crate::writers::Writer;

/// What a seed makes likely.
#[derive(Debug)]
pub(crate) struct Temper {
    pub(crate) faults: Faults,
    /// Jobs served and ends reported, of a hundred steps; the others are new events.
    pub(crate) haste: u64,
    /// Steps that the end of a job may come late.
    pub(crate) delay: u64,
    /// Purges, of a hundred of those others.
    pub(crate) purges: u64,
    /// Crashes, of a thousand steps.
    pub(crate) crashes: u64,
    /// Power losses, of a hundred crashes.
    pub(crate) power_losses: u64,
    /// Jobs that may wait for the drive.
    pub(crate) room: usize,
}

/// A change of the catalog, to be undone by a power loss.
#[derive(Debug)]
pub(crate) enum Change {
    Put(BlockKey),
    Deleted(BlockKey, Row),
}

/// A lease as its holder sees it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) instance: InstanceNo,
    pub(crate) prefix: Vec<BlockKey>,
    pub(crate) ends: Timestamp,
    /// Bytes of it were purged or lost: it protects no more.
    pub(crate) excused: bool,
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) temper: Temper,
    pub(crate) prompts: Prompts,
    pub(crate) options: Options,
    pub(crate) planner: Planner,
    pub(crate) disk: Disk,
    pub(crate) drive: Arc<Drive>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) shelf: NvmeShelf,
    /// The shelf has given up the drive, and the planner does not know yet.
    pub(crate) went_out: Arc<AtomicBool>,
    pub(crate) ram: Arc<RamShelf>,
    pub(crate) now: Timestamp,
    pub(crate) step: u64,
    /// Where callbacks of the shelf leave what has ended.
    pub(crate) ended: Arc<Mutex<Vec<Finished>>>,
    /// What has ended and is not yet reported, each with the step before which it is not.
    pub(crate) late: Vec<(u64, Finished)>,
    /// Rows that were put and not deleted.
    pub(crate) rows: BTreeMap<BlockKey, SlotId>,
    /// The last changes of the catalog.
    pub(crate) changes: VecDeque<Change>,
    /// A power loss, or a lie of the drive, may have changed any byte: blocks may be lost without an error.
    pub(crate) lied_to: bool,
    pub(crate) published: BTreeMap<BlockKey, Residence>,
    pub(crate) writers: Vec<Writer>,
    /// Blocks being read from RAM, each until a step.
    pub(crate) pins: Vec<(u64, BlockKey, SlotPin)>,
    pub(crate) leases: BTreeMap<kvtier::vocab::LeaseId, Held>,
    /// Wants that were answered `Coming`.
    pub(crate) awaited: BTreeSet<BlockKey>,
    pub(crate) numbers: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    log: blake3::Hasher,
    pub(crate) recent: VecDeque<String>,
}

/// The bytes of a block.
pub(crate) fn payload_of(key: &BlockKey) -> Vec<u8> {
    let max = u64::from(PAYLOADS[usize::from(key.as_bytes()[8])]);
    let mut bytes = vec![0; (max - key.hash64() % (max / 2)) as usize];
    payload::fill(key, &mut bytes);
    bytes
}

impl World {
    pub(crate) fn new(seed: u64, catalog: Arc<Catalog>) -> Self {
        let mut chance = Chance::new(seed);
        let slot = 4_096;
        let nvme = TierShape::with_extent((6 + chance.below(30)) * slot, 4 * slot);
        let ram = TierShape::with_extent((6 + chance.below(20)) * slot, 4 * slot);
        let admission = chance.pick(&[AdmissionKind::Always, AdmissionKind::SecondUse, AdmissionKind::RamEviction]);
        let wear_bytes_per_day = chance.pick(&[None, None, None, Some(86_400 * slot / 4)]);
        // Leases that are ended to make room are the planner's own tests' affair.
        let pin_grace = Duration::from_secs(1 << 30);
        let policy = PolicyKind::ALL[seed as usize % PolicyKind::ALL.len()];
        let options = Options { boot: 1, policy, admission, wear_bytes_per_day, pin_grace, ..Options::new(ram, nvme) };
        let temper = Temper {
            faults: faults(&mut chance),
            haste: chance.pick(&[30, 50, 50, 70]),
            delay: chance.pick(&[0, 5, 40]),
            purges: chance.pick(&[0, 0, 1, 3]),
            crashes: chance.pick(&[0, 4, 10]),
            power_losses: chance.pick(&[0, 0, 50]),
            room: chance.pick(&[usize::MAX, usize::MAX, 3, 8]),
        };
        let disk = Disk::of(nvme.total().0);
        let drive = Arc::new(Drive::new(&disk, faulty(&disk, &temper, seed), temper.room));
        let went_out = Arc::default();
        Self {
            prompts: Prompts::grow(&mut chance),
            temper,
            chance,
            options,
            planner: Planner::new(options),
            shelf: shelf(&drive, &catalog, nvme, &went_out),
            went_out,
            disk,
            drive,
            catalog,
            ram: RamShelf::new(ram).unwrap(),
            now: Timestamp(1_000_000),
            step: 0,
            ended: Arc::default(),
            late: Vec::new(),
            rows: BTreeMap::new(),
            changes: VecDeque::new(),
            lied_to: false,
            published: BTreeMap::new(),
            writers: Vec::new(),
            pins: Vec::new(),
            leases: BTreeMap::new(),
            awaited: BTreeSet::new(),
            numbers: 0,
            counts: BTreeMap::new(),
            log: blake3::Hasher::new(),
            recent: VecDeque::new(),
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Tells the planner, does what follows from it, and checks everything.
    pub(crate) fn tell(&mut self, event: Event) -> Answer {
        let answer = self.tell_only(event);
        self.check();
        answer
    }

    /// Tells the planner and does what follows: the caller has books to keep before all is checked.
    pub(crate) fn tell_only(&mut self, event: Event) -> Answer {
        self.note(&event);
        let mut commands = Vec::new();
        let mut answer = self.planner.on(self.now, event, &mut commands);
        self.note(&answer);
        self.carry_out(commands);
        while self.planner.is_working() {
            let mut commands = Vec::new();
            let proceeded = self.planner.on(self.now, Event::Proceed, &mut commands);
            self.note(&proceeded);
            self.carry_out(commands);
            if let Answer::Proceeded(Some((job, removed))) = proceeded
                && answer == Answer::Removing(job)
            {
                answer = Answer::Removed(removed);
            }
        }
        answer
    }

    pub(crate) fn check(&self) {
        if let Err(broken) = self.planner.check() {
            panic!("{broken}");
        }
        for (id, held) in self.leases.iter().filter(|(_, held)| !held.excused) {
            let lost = held.prefix.iter().find(|key| !self.published.contains_key(key));
            assert_eq!(lost, None, "lease {id} of {:?} protects what is not readable", held.prefix);
        }
    }

    /// What is lost or purged is protected no more.
    pub(crate) fn excuse(&mut self, lost: impl Fn(&BlockKey) -> bool) {
        for held in self.leases.values_mut() {
            held.excused |= held.prefix.iter().any(&lost);
        }
    }

    pub(crate) fn note(&mut self, what: &dyn Debug) {
        let line = format!("{} {what:?}", self.now);
        self.log.update(line.as_bytes());
        self.recent.push_back(line);
        if self.recent.len() > 60 {
            self.recent.pop_front();
        }
    }

    /// Stands for every event, answer, command and job so far.
    pub(crate) fn digest(&self) -> String {
        self.log.finalize().to_hex().to_string()
    }
}

/// The shelf over a drive.
pub(crate) fn shelf(
    drive: &Arc<Drive>,
    catalog: &Arc<Catalog>,
    shape: TierShape,
    went_out: &Arc<AtomicBool>,
) -> NvmeShelf {
    let shelf = NvmeShelf::new(Arc::<Drive>::clone(drive), Arc::clone(catalog), shape);
    let went_out = Arc::clone(went_out);
    shelf.on_lost(Box::new(move |_| went_out.store(true, Ordering::Relaxed)));
    shelf
}

/// A drive that does all of `temper`, from now on.
pub(crate) fn faulty(disk: &Disk, temper: &Temper, seed: u64) -> FaultyDevice {
    FaultyDevice::new(Arc::<kvtier::media::MemDevice>::clone(&disk.0), temper.faults, seed)
}

/// None, errors only, errors and lies, or a drive that is dying.
fn faults(chance: &mut Chance) -> Faults {
    if chance.chance(1, 16) {
        return Faults { read_error: 0.4, write_error: 0.5, ..Faults::default() };
    }
    let kind = chance.below(3);
    let (errs, lies) = (kind > 0, kind > 1);
    let late_by = 1 + chance.below(6);
    let mut rate = |some: bool| {
        let rate = if chance.chance(1, 2) { chance.pick(&[0.01, 0.03, 0.1]) } else { 0.0 };
        if some { rate } else { 0.0 }
    };
    Faults {
        read_error: rate(errs),
        short_read: rate(errs),
        write_error: rate(errs),
        no_space: rate(errs),
        short_write: rate(errs),
        bit_flip: rate(lies),
        lost_write: rate(lies),
        torn_write: rate(lies),
        held: rate(true),
        late: rate(true),
        late_by,
    }
}

/// Whether a drive of such faults may give other bytes than were written, without an error.
pub(crate) fn lies(faults: &Faults) -> bool {
    faults.bit_flip + faults.lost_write + faults.torn_write > 0.0
}
