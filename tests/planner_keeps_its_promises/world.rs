//! A world in which nothing is done at once: commands wait in a list and end in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kvtier::plan::{
    AdmissionKind, Answer, BlockRef, Command, Event, InstanceNo, JobId, Load, Options, Peek, Planner, PolicyKind,
    PutId, Removed, Residence, Transfer, Write,
};
use kvtier::vocab::limits::{OFFERED_AT_ONCE, PIN_GRACE, STEPS_AT_ONCE};
use kvtier::vocab::{BlockKey, LeaseId, Promise, SlotClass, SlotId, TierShape, Timestamp};

use super::chance::Chance;
use super::prompts::Prompts;
use super::slots::Slots;
use super::temper::Temper;
use super::tenants::Told;

/// A command under way.
#[derive(Debug)]
pub(crate) enum Job {
    Write(Write),
    Load(Load),
    Erase { key: BlockKey, slot: SlotId },
    Retire { slot: SlotId },
    Peek(Peek, BlockKey),
}

/// A put as its writer sees it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) put: PutId,
    pub(crate) keys: Arc<[BlockKey]>,
    /// Wanted and not yet needed; the next one is the last.
    pub(crate) wanted: Vec<(BlockRef, BlockKey)>,
    /// Promised a slot.
    pub(crate) promised: Vec<(BlockRef, BlockKey)>,
    /// Has a slot.
    pub(crate) filling: Vec<(BlockRef, BlockKey, SlotId)>,
    /// Blocks that it sends before it dies.
    pub(crate) breath: u64,
}

/// A lease as its holder sees it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) instance: InstanceNo,
    pub(crate) request: u128,
    pub(crate) lease: LeaseId,
    pub(crate) prefix: Vec<BlockKey>,
    pub(crate) ends: Timestamp,
    /// When it was granted or renewed last.
    pub(crate) since: Timestamp,
    /// Bytes of it were purged or lost: it protects no more.
    pub(crate) excused: bool,
}

/// A row of the index.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) slot: SlotId,
    pub(crate) class: SlotClass,
    pub(crate) write: Write,
    pub(crate) payload_max: u32,
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) temper: Temper,
    pub(crate) prompts: Prompts,
    pub(crate) options: Options,
    pub(crate) planner: Planner,
    pub(crate) now: Timestamp,
    pub(crate) step: u64,
    /// Each with the step before which it does not end.
    pub(crate) jobs: Vec<(u64, Job)>,
    pub(crate) ram: Slots,
    pub(crate) nvme: Slots,
    /// Generation of each RAM slot's bytes.
    pub(crate) generations: BTreeMap<SlotId, u64>,
    pub(crate) rows: BTreeMap<BlockKey, Row>,
    /// Blocks whose row names bytes that are not theirs.
    pub(crate) tainted: BTreeSet<BlockKey>,
    pub(crate) published: BTreeMap<BlockKey, Residence>,
    pub(crate) writers: Vec<Writer>,
    /// Blocks of puts that have ended.
    pub(crate) strays: Vec<BlockRef>,
    pub(crate) leases: Vec<Held>,
    /// Wants that were answered `Coming`.
    pub(crate) awaited: BTreeSet<BlockKey>,
    pub(crate) lost_drives: BTreeSet<u16>,
    /// Rows of promises.
    pub(crate) promised: BTreeMap<BlockKey, Promise>,
    pub(crate) told: Vec<Told>,
    /// Jobs that have ended, and what they have removed.
    pub(crate) ended: BTreeMap<JobId, Removed>,
    pub(crate) numbers: u64,
    pub(crate) events: u64,
    log: blake3::Hasher,
    pub(crate) recent: VecDeque<String>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let slot = 4_096;
        let nvme = match chance.below(8) {
            0 => TierShape::NONE,
            1 | 2 => {
                let drives = [0; 3].map(|_| (4 + chance.below(12)) * slot);
                TierShape::striped(&drives, 4 * slot, 4)
            }
            _ => TierShape::with_extent((4 + chance.below(32)) * slot, 4 * slot),
        };
        let ram = TierShape::with_extent((4 + chance.below(24)) * slot, 4 * slot);
        let write_queue_bytes = chance.pick(&[2 * slot, 8 * slot, 16 * slot, u64::MAX]);
        let admission = chance.pick(&[
            AdmissionKind::Always,
            AdmissionKind::Always,
            AdmissionKind::SecondUse,
            AdmissionKind::RamEviction,
        ]);
        // From none to some blocks in the seconds that a seed lasts.
        let wear_bytes_per_day = chance.pick(&[None, None, Some(24 * 6 * slot), Some(86_400 * slot / 4)]);
        let pin_grace = chance.pick(&[PIN_GRACE, PIN_GRACE, Duration::from_millis(500)]);
        let offered_at_once = chance.pick(&[OFFERED_AT_ONCE, 1, 2, 3]);
        let steps_at_once = chance.pick(&[STEPS_AT_ONCE, 1, 10, 40, 100]);
        let options = Options {
            write_queue_bytes,
            boot: 1,
            admission,
            wear_bytes_per_day,
            pin_grace,
            offered_at_once,
            steps_at_once,
            policy: PolicyKind::ALL[seed as usize % PolicyKind::ALL.len()],
            ..Options::new(ram, nvme)
        };
        let temper = Temper::of(&mut chance);
        Self {
            prompts: Prompts::grow(&mut chance),
            lost_drives: BTreeSet::new(),
            promised: BTreeMap::new(),
            told: Vec::new(),
            ended: BTreeMap::new(),
            temper,
            chance,
            options,
            planner: Planner::new(options),
            now: Timestamp(1_000_000),
            step: 0,
            jobs: Vec::new(),
            ram: Slots::default(),
            nvme: Slots::default(),
            generations: BTreeMap::new(),
            rows: BTreeMap::new(),
            tainted: BTreeSet::new(),
            published: BTreeMap::new(),
            writers: Vec::new(),
            strays: Vec::new(),
            leases: Vec::new(),
            awaited: BTreeSet::new(),
            numbers: 0,
            events: 0,
            log: blake3::Hasher::new(),
            recent: VecDeque::new(),
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Tells the planner, takes its commands, and checks everything.
    pub(crate) fn tell(&mut self, event: Event) -> Answer {
        let answer = self.tell_only(event);
        self.audit();
        if self.temper.lingers { answer } else { self.settle(answer) }
    }

    /// What is too long for one event goes on.
    pub(crate) fn proceed(&mut self) -> Answer {
        let answer = self.tell_only(Event::Proceed);
        self.audit();
        answer
    }

    /// All of it goes on as far as it can; the answer of a job that has ended with it is what that has removed.
    pub(crate) fn settle(&mut self, answer: Answer) -> Answer {
        while self.planner.is_working() {
            self.proceed();
        }
        let Answer::Removing(job) = answer else { return answer };
        self.ended.remove(&job).map_or(answer, Answer::Removed)
    }

    /// What was removed: it waits for the job's end, while commands end.
    pub(crate) fn removed(&mut self, mut answer: Answer) -> Removed {
        for _ in 0..10_000 {
            answer = self.settle(answer);
            if let Answer::Removed(removed) = answer {
                return removed;
            }
            self.step = self.step.saturating_add(1);
            self.work();
        }
        panic!("{answer:?} for ever")
    }

    /// Tells the planner and takes its commands: the caller has books to keep before all is checked.
    pub(crate) fn tell_only(&mut self, event: Event) -> Answer {
        self.events += 1;
        self.note(&event);
        let loses = matches!(
            event,
            Event::Purge(_)
                | Event::InstanceGone { .. }
                | Event::Evict { .. }
                | Event::DriveLost { .. }
                | Event::Proceed
        ) || matches!(event, Event::Loaded { outcome, .. } | Event::Peeked { outcome, .. } if outcome == Transfer::Failed);
        // Where room is made, a block may lose one place and then be chosen to lose the other.
        let makes_no_room = loses && !matches!(event, Event::Proceed)
            || matches!(event, Event::Wrote { .. } | Event::Loaded { .. } | Event::Peeked { .. });
        let wants_room = matches!(event, Event::Need { .. } | Event::Want { .. });
        let mut commands = Vec::new();
        let (before, name, open) = (self.before(&event), format!("{event:?}"), self.planner.is_working());
        let answer = self.planner.on(self.now, event, &mut commands);
        self.audit_quotas(&before, &name);
        if wants_room {
            self.drop_leaked();
        }
        self.note(&answer);
        if let Answer::Proceeded(Some((job, removed))) = answer {
            self.ended.insert(job, removed);
        }
        // The blocks of a lost drive go one by one, each with its own news of what hangs on it.
        if makes_no_room && self.lost_drives.is_empty() {
            Self::audit_news(&commands);
        }
        // What hangs on a block that has gone is told with whatever comes first.
        if !(loses || open) {
            self.audit_evictions(&commands);
        }
        self.take_all(commands);
        answer
    }

    pub(crate) fn take_all(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.note(&command);
            self.take(command);
        }
    }

    fn note(&mut self, what: &dyn Debug) {
        let line = format!("{} {what:?}", self.now);
        self.log.update(line.as_bytes());
        self.recent.push_back(line);
        if self.recent.len() > 60 {
            self.recent.pop_front();
        }
    }

    /// Stands for every event, answer and command so far.
    pub(crate) fn digest(&self) -> String {
        self.log.finalize().to_hex().to_string()
    }

    fn take(&mut self, command: Command) {
        let job = match command {
            Command::Fill { put, block, slot, class } => return self.grant(put, block, slot, class),
            Command::Refuse { put, block } => return self.refuse(put, block),
            Command::Write(write) => {
                self.begin_write(&write);
                Job::Write(write)
            }
            Command::Load(load) => {
                self.nvme.begin_read(load.from.0, load.key);
                self.ram.hand_out(load.to.0, load.to.1, load.key);
                Job::Load(load)
            }
            Command::Erase { key, slot, class: _ } => {
                self.nvme.going(slot);
                Job::Erase { key, slot }
            }
            Command::Retire { slot, class: _ } => {
                let open = self.published.values().any(|place| place.ram.is_some_and(|place| place.slot == slot));
                assert!(!open, "RAM slot {slot} is closed before lookups were told");
                self.ram.going(slot);
                Job::Retire { slot }
            }
            Command::Publish { block: _, key, residence } => {
                self.published.insert(key, residence);
                if residence.ram.is_some() {
                    self.awaited.remove(&key);
                }
                return;
            }
            Command::Unpublish { block: _, key } => {
                assert!(self.published.remove(&key).is_some(), "{key:?} is unpublished twice");
                return;
            }
            Command::Promise { key, promise } => {
                self.promised.insert(key, promise);
                return;
            }
            Command::Unpromise { key } => {
                self.promised.remove(&key);
                return;
            }
            Command::Unloadable { key } => {
                self.awaited.remove(&key);
                return;
            }
        };
        self.start(job);
    }

    pub(crate) fn start(&mut self, job: Job) {
        let not_before = self.step.saturating_add(self.chance.below(self.temper.delay + 1));
        self.jobs.push((not_before, job));
    }

    fn grant(&mut self, put: PutId, block: BlockRef, slot: SlotId, class: SlotClass) {
        let writer = self.writers.iter_mut().find(|writer| writer.put == put).expect("a slot for a put that has ended");
        let at = writer.promised.iter().position(|(of, _)| *of == block).expect("a slot that nobody needed");
        let (block, key) = writer.promised.swap_remove(at);
        writer.filling.push((block, key, slot));
        self.ram.hand_out(slot, class, key);
    }

    /// The block may be asked for again while its put lives.
    fn refuse(&mut self, put: PutId, block: BlockRef) {
        let writer = self.writers.iter_mut().find(|writer| writer.put == put).expect("a put that has ended is refused");
        let at = writer.promised.iter().position(|(of, _)| *of == block).expect("a block that was promised nothing");
        let refused = writer.promised.swap_remove(at);
        writer.wanted.insert(0, refused);
    }

    fn begin_write(&mut self, write: &Write) {
        assert!(!write.owner.ram_only, "{:?} may not outlive the daemon", write.key);
        assert_eq!(self.generations.get(&write.from.0), Some(&write.from.2), "written from an older generation");
        self.ram.begin_read(write.from.0, write.key);
        self.nvme.hand_out(write.to.0, write.to.1, write.key);
        let queued = self.jobs.iter().map(|(_, job)| match job {
            Job::Write(other) => u64::from(other.to.1.bytes()),
            _ => 0,
        });
        let bytes = queued.sum::<u64>() + u64::from(write.to.1.bytes());
        assert!(bytes <= self.options.write_queue_bytes, "{bytes} bytes are being written");
    }

    /// Some command ends. Whether one could.
    pub(crate) fn work(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.jobs.len()).filter(|at| self.jobs[*at].0 <= self.step).collect();
        if ready.is_empty() {
            return false;
        }
        let (_, job) = self.jobs.swap_remove(self.chance.pick(&ready));
        self.end(job);
        true
    }

    fn end(&mut self, job: Job) {
        let event = match job {
            Job::Write(write) => self.end_write(write),
            Job::Load(load) => self.end_load(&load),
            Job::Peek(peek, key) => {
                self.nvme.end_read(peek.slot);
                let outcome = self.outcome_of_read(key, 0);
                Event::Peeked { block: peek.block, outcome }
            }
            Job::Erase { key, slot } => {
                self.rows.retain(|of, row| *of != key || row.slot != slot);
                self.nvme.gone(slot);
                Event::Erased { slot }
            }
            Job::Retire { slot } => {
                self.ram.gone(slot);
                self.generations.remove(&slot);
                Event::RamFreed { slot }
            }
        };
        self.tell(event);
    }

    fn end_write(&mut self, write: Write) -> Event {
        self.ram.end_read(write.from.0);
        let mut outcome = self.outcome(self.temper.write_troubles, 0);
        let drive = self.options.nvme.drive_of(write.to.0.extent);
        // What was on its way when the drive went may just have come through.
        if self.lost_drives.contains(&drive) && self.chance.chance(3, 4) {
            outcome = Transfer::Failed;
        }
        if matches!(outcome, Transfer::Done(_)) {
            self.nvme.filled(write.to.0);
            self.write_row(write);
        } else {
            self.nvme.given_up(write.to.0);
        }
        Event::Wrote { block: write.block, outcome }
    }

    pub(crate) fn write_row(&mut self, write: Write) {
        let payload_max = write.to.1.bytes();
        self.tainted.remove(&write.key);
        self.rows.insert(write.key, Row { slot: write.to.0, class: write.to.1, write, payload_max });
    }

    fn end_load(&mut self, load: &Load) -> Event {
        self.nvme.end_read(load.from.0);
        let generation = self.number();
        let outcome = self.outcome_of_read(load.key, generation);
        if matches!(outcome, Transfer::Done(_)) {
            self.ram.filled(load.to.0);
            self.generations.insert(load.to.0, generation);
        } else {
            self.ram.given_up(load.to.0);
        }
        Event::Loaded { block: load.block, outcome }
    }

    fn outcome(&mut self, troubles: u64, generation: u64) -> Transfer {
        if !self.chance.chance(troubles, 100) {
            Transfer::Done(generation)
        } else if self.chance.chance(1, 2) {
            Transfer::Failed
        } else {
            Transfer::Refused
        }
    }

    /// A checksum that does not match is found, and excuses the leases on what is lost.
    fn outcome_of_read(&mut self, key: BlockKey, generation: u64) -> Transfer {
        let mut outcome = self.outcome(self.temper.read_troubles, generation);
        if self.tainted.contains(&key) {
            outcome = Transfer::Failed;
        }
        if outcome == Transfer::Failed {
            self.excuse(|lost| *lost == key);
        }
        outcome
    }

    /// What is lost or purged is protected no more.
    pub(crate) fn excuse(&mut self, lost: impl Fn(&BlockKey) -> bool) {
        for held in &mut self.leases {
            held.excused |= held.prefix.iter().any(&lost);
        }
        for told in &mut self.told {
            told.excused |= told.prefix.iter().any(&lost);
        }
    }
}
