//! The planner itself: its state, and which rule answers which event.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::accounts::Accounts;
use super::admission::AdmissionKind;
use super::catalog::Catalog;
use super::chores::Chores;
use super::command::Command;
use super::counters::{AccountHoldings, Counters, Holdings, StoredBlocks};
use super::entry::{Nvme, ROOT, Ram, is_block};
use super::event::{Answer, BlockRef, Event};
use super::expire::Expiries;
use super::keep::Promises;
use super::keys::Keys;
use super::lease::Leases;
use super::namespaces::Namespaces;
use super::order::Untouched;
use super::policy::{PolicyKind, Visit};
use super::put::Put;
use super::seen::Seen;
use super::shelf::Shelf;
use super::wear::Wear;
use crate::vocab::limits::{OFFERED_AT_ONCE, PIN_GRACE, STEPS_AT_ONCE, UNTOUCHED_CHAINS_MAX, WRITE_QUEUE_BYTES};
use crate::vocab::{AccountId, BlockKey, NamespaceId, TierCounts, TierShape, Timestamp};

/// What a planner is made for. Never changes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The RAM tier.
    pub ram: TierShape,
    /// The NVMe tier; [`TierShape::NONE`] for none.
    pub nvme: TierShape,
    /// What goes first.
    pub policy: PolicyKind,
    /// What is written to NVMe.
    pub admission: AdmissionKind,
    /// Bytes a day that each drive may be written; past it, heads of chains are still written, tails on second use.
    pub wear_bytes_per_day: Option<u64>,
    /// Upper half of lease ids: one number a start, so that ids from before name nothing.
    pub boot: u32,
    /// Bytes of slots that writes to NVMe may hold at a time.
    pub write_queue_bytes: u64,
    /// How long a lease is safe after it was granted or renewed, however much its instance has pinned.
    pub pin_grace: Duration,
    /// Blocks of an offered chain that one event goes through.
    pub offered_at_once: usize,
    /// Steps that one event takes of what is too long for one: a look at a block is one, to let a block go are 32.
    pub steps_at_once: usize,
}

impl Options {
    /// Tiers of these shapes with the default policy and limits.
    #[must_use]
    pub fn new(ram: TierShape, nvme: TierShape) -> Self {
        Self {
            ram,
            nvme,
            policy: PolicyKind::default(),
            admission: AdmissionKind::default(),
            wear_bytes_per_day: None,
            boot: 0,
            write_queue_bytes: WRITE_QUEUE_BYTES,
            pin_grace: PIN_GRACE,
            offered_at_once: OFFERED_AT_ONCE,
            steps_at_once: STEPS_AT_ONCE,
        }
    }
}

/// Decides, never does: no I/O, no clock, no locks, no tasks. The same events give the same commands.
///
/// A decision is taken whole when its event comes in; only the handing over of slots waits for the world. So a daemon
/// whose work is done (quiesced) and a simulation that does all work at once have taken the same decisions.
pub struct Planner {
    pub(super) catalog: Catalog,
    pub(super) ram: Shelf,
    pub(super) nvme: Shelf,
    pub(super) leases: Leases,
    pub(super) puts: BTreeMap<u64, Put>,
    pub(super) now: Timestamp,
    pub(super) counters: Counters,
    pub(super) commands: Vec<Command>,
    pub(super) write_queue_bytes: u64,
    pub(super) pin_grace: Duration,
    pub(super) offered_at_once: usize,
    pub(super) steps_at_once: usize,
    pub(super) writing_bytes: u64,
    pub(super) admission: AdmissionKind,
    pub(super) wear: Wear,
    pub(super) seen: Seen,
    /// Rows can't be written: nothing is admitted to NVMe.
    pub(super) index_failing: bool,
    /// Used chains not yet touched, each from the block on that is next; see `catch_up`.
    pub(super) untouched: VecDeque<Untouched>,
    pub(super) used_chains: u64,
    /// What is known of the request whose blocks come in with this event.
    pub(super) visit: Visit,
    /// Extents of lost drives whose blocks have not all been let go yet, each with the first slot not yet looked at.
    pub(super) lost_extents: Vec<(u16, u32)>,
    /// What is too long for one event.
    pub(super) chores: Chores,
    pub(super) held: Held,
    pub(super) namespaces: Namespaces,
    pub(super) accounts: Accounts,
    pub(super) promises: Promises,
    pub(super) expiries: Expiries,
    /// Working memory of walks over the tree.
    pub(super) stack: Vec<u32>,
}

/// Running counts of what the catalog holds, so that asking costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub ram_blocks: u64,
    pub nvme_blocks: u64,
    pub orphans: u64,
    pub reservations: u64,
    pub moving: u64,
}

impl Planner {
    /// An empty planner.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            catalog: Catalog::default(),
            ram: Shelf::new(options.ram, options.policy),
            nvme: Shelf::new(options.nvme, options.policy),
            leases: Leases::new(options.boot),
            puts: BTreeMap::new(),
            now: Timestamp(0),
            counters: Counters::default(),
            commands: Vec::new(),
            write_queue_bytes: options.write_queue_bytes,
            pin_grace: options.pin_grace,
            offered_at_once: options.offered_at_once,
            steps_at_once: options.steps_at_once,
            writing_bytes: 0,
            admission: options.admission,
            wear: Wear::new(options.wear_bytes_per_day, options.nvme.stride()),
            seen: Seen::default(),
            index_failing: false,
            untouched: VecDeque::new(),
            used_chains: 0,
            visit: Visit::default(),
            lost_extents: Vec::new(),
            chores: Chores::default(),
            namespaces: Namespaces::default(),
            held: Held::default(),
            accounts: Accounts::new(options.ram.total(), options.nvme.total()),
            promises: Promises::default(),
            expiries: Expiries::default(),
            stack: Vec::new(),
        }
    }

    /// Takes in one event and appends what follows from it to `commands`, in the order to do it. What lookups are to be
    /// told is to be done before the next event.
    pub fn on(&mut self, now: Timestamp, event: Event, commands: &mut Vec<Command>) -> Answer {
        if self.untouched.len() >= UNTOUCHED_CHAINS_MAX {
            self.catch_up(usize::MAX);
        }
        self.on_after(u64::MAX, now, event, commands)
    }

    /// The same, where it is known of how many chains the event came after their use: of [`used_chains`](Self::used_chains), so many
    /// are touched before it is decided. So whoever takes events in may let what asks for no order overtake.
    pub fn on_after(&mut self, used: u64, now: Timestamp, event: Event, commands: &mut Vec<Command>) -> Answer {
        self.now = self.now.max(now);
        // What touching has caused between two events.
        commands.append(&mut self.commands);
        std::mem::swap(&mut self.commands, commands);
        while event.asks_for_order() && !self.has_touched(used) {
            self.catch_up(1);
        }
        self.catalog.begin();
        self.chores.begin(self.steps_at_once, !matches!(event, Event::Proceed));
        self.visit = Visit::default();
        let answer = self.decide(event);
        std::mem::swap(&mut self.commands, commands);
        answer
    }

    fn decide(&mut self, event: Event) -> Answer {
        match event {
            Event::Offer(offer) => self.offer(offer),
            Event::OfferMore { put } => self.offer_more(put),
            Event::Need { block } => self.need(block),
            Event::Filled { block, generation, length, crc } => self.filled(block, generation, length, crc),
            Event::PutEnded { put } => self.put_ended(put),
            Event::Wrote { block, outcome } => self.wrote(block, outcome),
            Event::Erased { slot } => self.nvme_freed(slot),
            Event::RamFreed { slot } => self.ram_freed(slot),
            Event::Want { key } => Answer::Wanted(self.want(&key)),
            Event::Loaded { block, outcome } => self.loaded(block, outcome),
            Event::Peek { key } => Answer::Peek(self.peek(&key)),
            Event::Peeked { block, outcome } => self.peeked(block, outcome),
            Event::Used { deepest, leased } => self.used(&deepest, leased),
            Event::Lease { instance, request, keys, ttl } => Answer::Leased(self.lease(instance, request, &keys, ttl)),
            Event::Release { instance, lease } => Answer::Released(self.release(instance, lease)),
            Event::RequestOver { instance, request } => Answer::Released(Ok(self.request_over(instance, request))),
            Event::Renew { instance, lease, ttl } => Answer::Renewed(self.renew(instance, lease, ttl)),
            Event::InstanceGone { instance, namespaces } => self.instance_gone(instance, &namespaces),
            Event::Tick => self.tick(),
            Event::Proceed => Answer::Proceeded(self.proceed()),
            Event::DriveLost { drive } => self.lose_drive(drive),
            Event::IndexFailing { failing } => {
                self.index_failing = failing;
                Answer::Done
            }
            Event::SetQuota { account, quota } => Answer::QuotaSet(self.set_quota(account, quota)),
            Event::Keep { deepest, lifetime } => Answer::Kept(self.keep(&deepest, lifetime)),
            Event::Unkeep { deepest, pin } => Answer::Unkept(self.unkeep(&deepest, pin)),
            Event::Flush => self.flush(),
            Event::Evict { key } => self.evict(&key),
            Event::Purge(filter) => self.purge(filter),
        }
    }

    /// How much of a chain is readable, by tier. The search gallops: each tier is prefix-closed, and what is not
    /// reachable does not count as readable.
    #[must_use]
    pub fn prefix(&self, keys: &[BlockKey]) -> TierCounts {
        let known = |at: usize| keys.get(at).and_then(|key| self.catalog.find(key));
        let hit = super::gallop(keys.len(), |at| known(at).is_some_and(|number| self.catalog[number].is_readable()));
        let ram = super::gallop(hit, |at| known(at).is_some_and(|number| self.catalog[number].is_ram_run()));
        let count = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
        TierCounts { engine: 0, ram: count(ram), nvme: count(hit - ram), missed: count(keys.len() - hit) }
    }

    /// The keys of all blocks by number, for those who look them up.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(self.catalog.keys())
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is held now.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        Holdings {
            ram_used_bytes: self.ram.space.used_bytes(),
            nvme_used_bytes: self.nvme.space.used_bytes(),
            ram_blocks: self.held.ram_blocks,
            nvme_blocks: self.held.nvme_blocks,
            orphans: self.held.orphans,
            promises: self.promises.len(),
            expiring: self.expiries.len(),
            leases: self.leases.len(),
            puts: self.puts.len() as u64,
            reservations: self.held.reservations,
            background: self.held.moving
                + self.ram.moving()
                + self.nvme.moving()
                + self.lost_extents.len() as u64
                + self.chores.len(),
        }
    }

    /// What each account holds, and may hold, of those that hold anything or have a quota.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountHoldings> {
        self.accounts.holdings()
    }

    /// The same among so many accounts from number `first` on; and how many numbers there are.
    #[must_use]
    pub fn accounts_among(&self, first: AccountId, accounts: usize) -> (Vec<AccountHoldings>, usize) {
        (self.accounts.holdings_among(first, accounts), self.accounts.len())
    }

    /// Blocks that are stored, by account and namespace: at most so many of these, from the first one after a known one on.
    #[must_use]
    pub fn stored_after(&self, after: Option<(AccountId, NamespaceId)>, most: usize) -> Vec<StoredBlocks> {
        self.accounts.stored_after(after, most)
    }

    /// Whether nothing is under way but what puts and readers hold.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.holdings().background == 0
    }

    /// Whether the block has a RAM slot that a put is filling: then, and only then, its bytes may be published.
    #[must_use]
    pub fn awaits(&self, block: BlockRef) -> bool {
        let filling = |number: u32| self.catalog[number].ram == Ram::Filling && self.is_being_put(number);
        self.catalog.resolve(block).is_some_and(filling)
    }

    /// What is known of a block: for inspection.
    #[must_use]
    pub fn inspect(&self, key: &BlockKey) -> Option<Inspection> {
        let number = self.catalog.find(key)?;
        let (entry, active) = (&self.catalog[number], self.catalog.active(number));
        let (in_ram, on_nvme) = (entry.ram == Ram::Resident, entry.nvme == Nvme::Resident);
        Some(Inspection {
            readable: entry.is_readable(),
            ram_slot: in_ram.then_some(active.ram_slot),
            nvme_slot: on_nvme.then_some(entry.nvme_slot),
            length: entry.length,
            crc: entry.crc,
            parent: is_block(entry.parent).then(|| self.catalog.key(entry.parent)),
            first: entry.parent == ROOT,
            owner: self.catalog.owner(number),
            leases: active.leases,
            promises: active.promises,
            promise: self.promises.get(number),
            expires_s: self.expiries.get(number),
            created_s: entry.created_s,
        })
    }

    /// Blocks and payload bytes of each namespace that has any, by number.
    #[must_use]
    pub fn namespaces(&self) -> BTreeMap<u16, (u64, u64)> {
        self.namespaces.counts()
    }

    pub(super) fn reference(&self, number: u32) -> BlockRef {
        self.catalog.reference(number)
    }
}

/// What is known of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// It and all its ancestors have bytes here.
    pub readable: bool,
    /// Its place in RAM.
    pub ram_slot: Option<crate::vocab::SlotId>,
    /// Its place on NVMe.
    pub nvme_slot: Option<crate::vocab::SlotId>,
    /// Bytes of its payload.
    pub length: u32,
    /// Its checksum.
    pub crc: u64,
    /// The block before it, where known.
    pub parent: Option<BlockKey>,
    /// It is the first of its chain.
    pub first: bool,
    /// Whose it is.
    pub owner: crate::vocab::Owner,
    /// Leases whose deepest block it is.
    pub leases: u32,
    /// Promises of a lifetime, and pins, on it or on what hangs on it.
    pub promises: u32,
    /// The one whose deepest block it is.
    pub promise: Option<crate::vocab::Promise>,
    /// When its time to live is over, in seconds since 1970; 0 for never.
    pub expires_s: u32,
    /// When it was stored, in seconds.
    pub created_s: u32,
}
