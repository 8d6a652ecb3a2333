//! The smallest cache around a planner: its world does what is commanded at once, or when told to.

use std::sync::Arc;
use std::time::Duration;

use kvtier::plan::{
    Answer, BlockRef, Command, Event, Filter, InstanceNo, Leased, Offer, Options, Planner, PolicyKind, PutId, Transfer,
};
use kvtier::vocab::{AccountId, BlockKey, Hints, LeaseId, Owner, OwnerPath, Retention, TierShape, Timestamp};

pub(crate) const SLOT: u32 = 4_096;

pub(crate) fn key(number: u8) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&[number]).as_bytes())
}

pub(crate) fn chain(numbers: impl IntoIterator<Item = u8>) -> Arc<[BlockKey]> {
    numbers.into_iter().map(key).collect()
}

/// How commands end.
pub(crate) type End = fn(&Command) -> Option<Event>;

pub(crate) fn all_is_done(command: &Command) -> Option<Event> {
    match command {
        Command::Fill { block, .. } => Some(Event::Filled { block: *block, generation: 1, length: SLOT, crc: 0 }),
        Command::Write(write) => Some(Event::Wrote { block: write.block, outcome: Transfer::Done(0) }),
        Command::Load(load) => Some(Event::Loaded { block: load.block, outcome: Transfer::Done(1) }),
        Command::Erase { slot, .. } => Some(Event::Erased { slot: *slot }),
        Command::Retire { slot, .. } => Some(Event::RamFreed { slot: *slot }),
        Command::Publish { .. }
        | Command::Unpublish { .. }
        | Command::Unloadable { .. }
        | Command::Refuse { .. }
        | Command::Promise { .. }
        | Command::Unpromise { .. } => None,
    }
}

pub(crate) fn writes_fail(command: &Command) -> Option<Event> {
    match command {
        Command::Write(write) => Some(Event::Wrote { block: write.block, outcome: Transfer::Failed }),
        other => all_is_done(other),
    }
}

pub(crate) fn writes_wait(command: &Command) -> Option<Event> {
    if matches!(command, Command::Write(_)) { None } else { all_is_done(command) }
}

pub(crate) struct Cache {
    pub(crate) planner: Planner,
    pub(crate) puts: u64,
    pub(crate) end: End,
    /// Commands that have no end yet.
    pub(crate) open: Vec<Command>,
    pub(crate) owners: OwnerPath,
    pub(crate) retention: Retention,
    pub(crate) payload: u32,
    pub(crate) now: Timestamp,
}

impl Cache {
    pub(crate) fn new(ram_slots: u64, nvme_slots: u64) -> Self {
        let tier = |slots: u64| match slots {
            0 => TierShape::NONE,
            _ => TierShape::with_extent(slots * u64::from(SLOT), 4 * u64::from(SLOT)),
        };
        Self::of(Options::new(tier(ram_slots), tier(nvme_slots)))
    }

    pub(crate) fn of(options: Options) -> Self {
        // The tests name who goes first: by LRU.
        let planner = Planner::new(Options { policy: PolicyKind::Lru, ..options });
        Self {
            planner,
            puts: 0,
            end: all_is_done,
            open: Vec::new(),
            owners: OwnerPath::all(Owner::default()),
            retention: Retention::default(),
            payload: SLOT,
            now: Timestamp(1_000),
        }
    }

    pub(crate) fn tell(&mut self, event: Event) -> Answer {
        let mut answer = self.tell_once(event);
        while self.planner.is_working() {
            if let Answer::Proceeded(Some((job, removed))) = self.tell_once(Event::Proceed)
                && answer == Answer::Removing(job)
            {
                answer = Answer::Removed(removed);
            }
        }
        answer
    }

    /// The same, and what is too long for one event does not go on.
    pub(crate) fn tell_once(&mut self, event: Event) -> Answer {
        let mut commands = Vec::new();
        let answer = self.planner.on(self.now, event, &mut commands);
        self.planner.check().unwrap();
        for command in commands {
            match (self.end)(&command) {
                Some(end) => drop(self.tell_once(end)),
                None => self.open.push(command),
            }
        }
        answer
    }

    /// Ends what is open in this way.
    pub(crate) fn finish(&mut self, end: End) {
        self.end = end;
        for command in std::mem::take(&mut self.open) {
            if let Some(end) = end(&command) {
                self.tell(end);
            }
        }
    }

    pub(crate) fn offer(&mut self, keys: &Arc<[BlockKey]>) -> (PutId, Vec<Option<BlockRef>>) {
        self.puts += 1;
        let put = PutId(self.puts);
        let (keys, owners, payload_max) = (Arc::clone(keys), self.owners.clone(), self.payload);
        let retention = self.retention;
        let offer =
            Offer { put, parent: None, depth: 0, keys, payload_max, owners, retention, hints: Hints::default() };
        let answer = self.tell(Event::Offer(offer));
        let Answer::Offered { wanted, .. } = answer else { panic!("{answer:?}") };
        (put, wanted)
    }

    /// Puts what is wanted of a chain. Blocks readable from its first one on.
    pub(crate) fn put(&mut self, numbers: impl IntoIterator<Item = u8>) -> u32 {
        let keys = chain(numbers);
        let (put, wanted) = self.offer(&keys);
        for block in wanted.into_iter().flatten() {
            if self.tell(Event::Need { block }) == Answer::NoRoom {
                break;
            }
        }
        let answer = self.tell(Event::PutEnded { put });
        let Answer::Stored { through } = answer else { panic!("{answer:?}") };
        through
    }

    /// Whose what is put from now on is.
    pub(crate) fn be(&mut self, account: u16) {
        self.owners = OwnerPath::all(Owner { account: AccountId(account), ..Owner::default() });
    }

    pub(crate) fn be_user(&mut self, user: u32) {
        self.owners = OwnerPath::all(Owner { user, ..Owner::default() });
    }

    pub(crate) fn hit(&self, numbers: impl IntoIterator<Item = u8>) -> u32 {
        self.planner.prefix(&chain(numbers)).hit()
    }

    pub(crate) fn lease(&mut self, numbers: impl IntoIterator<Item = u8>) -> LeaseId {
        let (keys, instance) = (chain(numbers), InstanceNo(1));
        let answer = self.tell(Event::Lease { instance, request: 1, keys, ttl: Duration::from_secs(60) });
        let Answer::Leased(Ok(Some(Leased { lease, .. }))) = answer else { panic!("{answer:?}") };
        lease
    }

    pub(crate) fn release(&mut self, lease: LeaseId) {
        assert_eq!(self.tell(Event::Release { instance: InstanceNo(1), lease }), Answer::Released(Ok(true)));
    }

    pub(crate) fn places(&self, number: u8) -> (bool, bool) {
        let known = self.planner.inspect(&key(number));
        known.map_or((false, false), |known| (known.ram_slot.is_some(), known.nvme_slot.is_some()))
    }

    pub(crate) fn purge_user(&mut self, user: u32) {
        self.tell(Event::Purge(Filter { user: Some(user), ..Filter::default() }));
    }
}
