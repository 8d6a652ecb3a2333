//! Everything the planner learns comes in as an [`Event`]; everything it causes goes out as a [`Command`].
//!
//! An event also has an [`Answer`], for the caller who waits. Whoever carries out a command reports its end with the
//! event that the command names.

use std::sync::Arc;
use std::time::Duration;

use crate::vocab::{AccountId, BlockKey, GroupId, LeaseId, NamespaceId, Owner, SlotClass, SlotId};

/// A block of the planner's catalog: its record and how often that record has been used before, so that a completion
/// that comes late finds nothing instead of another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    pub(super) number: u32,
    pub(super) stamp: u32,
}

impl BlockRef {
    /// The record's number: distinct among blocks known at one time.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// An engine instance, as the session room numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceNo(pub u32);

/// One put, from offer to end. Numbered by whoever runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PutId(pub u64);

/// How a transfer of one block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The bytes are where they should be; readers of a RAM slot must name this generation.
    Done(u64),
    /// The bytes could not be moved. For a reader they are gone.
    Failed,
    /// There was no room in the queue: nothing was tried.
    Refused,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A writer offers a chain. Answer: [`Answer::Offered`], as far as one event goes through it.
    Offer(Offer),
    /// The next part of an offered chain. Answer: [`Answer::Offered`].
    OfferMore {
        /// Which put.
        put: PutId,
    },
    /// The put is about to receive this block: it needs a RAM slot. Answer: `Done`, or `NoRoom`. Leads to [`Command::Fill`].
    Need {
        /// A block that was wanted.
        block: BlockRef,
    },
    /// The block's bytes are in its RAM slot.
    Filled {
        /// Which block.
        block: BlockRef,
        /// Generation that readers must name.
        generation: u64,
        /// Bytes of the payload.
        length: u32,
        /// Checksum, seeded with the key.
        crc: u64,
    },
    /// No more bytes will come. What was not filled is given up. Answer: [`Answer::Stored`].
    PutEnded {
        /// Which put.
        put: PutId,
    },
    /// The end of a [`Command::Write`].
    Wrote {
        /// Which block.
        block: BlockRef,
        /// How it ended; the generation means nothing here.
        outcome: Transfer,
    },
    /// The end of a [`Command::Erase`]: the row is gone.
    Erased {
        /// The NVMe slot that it named.
        slot: SlotId,
    },
    /// Rows can't be put or deleted any more, or can again. Meanwhile nothing is admitted to NVMe, and nothing lets go of its
    /// slot there for that.
    IndexFailing {
        /// Whether it is so from now on.
        failing: bool,
    },
    /// The end of a [`Command::Retire`]: nobody reads the slot any more.
    RamFreed {
        /// Which slot.
        slot: SlotId,
    },
    /// A reader wants this block in RAM. Answer: [`Answer::Wanted`]. May lead to [`Command::Load`].
    Want {
        /// Which block.
        key: BlockKey,
    },
    /// The end of a [`Command::Load`].
    Loaded {
        /// Which block.
        block: BlockRef,
        /// How it ended.
        outcome: Transfer,
    },
    /// A reader wants this block's bytes without keeping them. Answer: [`Answer::Peek`].
    Peek {
        /// Which block.
        key: BlockKey,
    },
    /// The end of a read that [`Answer::Peek`] allowed.
    Peeked {
        /// Which block.
        block: BlockRef,
        /// How it ended; the generation means nothing here.
        outcome: Transfer,
    },
    /// A reader has read a chain up to this block: the chain counts as used, from its tail to its head.
    Used {
        /// The last block read.
        deepest: BlockKey,
    },
    /// An instance wants to protect a prefix. Idempotent by (instance, request). Answer: [`Answer::Leased`].
    Lease {
        /// Whose lease.
        instance: InstanceNo,
        /// Digest of the request's id.
        request: u128,
        /// The prefix; only the part that is still readable is leased.
        keys: Arc<[BlockKey]>,
        /// Until it ends by itself.
        ttl: Duration,
    },
    /// A lease ends. Answer: [`Answer::Released`].
    Release {
        /// Whose lease it must be.
        instance: InstanceNo,
        /// Which lease.
        lease: LeaseId,
    },
    /// A request is over: its lease ends. Answer: [`Answer::Released`].
    RequestOver {
        /// Whose request.
        instance: InstanceNo,
        /// Digest of its id.
        request: u128,
    },
    /// A lease gets more time. Answer: [`Answer::Renewed`].
    Renew {
        /// Whose lease it must be.
        instance: InstanceNo,
        /// Which lease.
        lease: LeaseId,
        /// From now.
        ttl: Duration,
    },
    /// The instance's last process is gone: its leases end, and blocks that could not outlive it go.
    InstanceGone {
        /// Which instance.
        instance: InstanceNo,
        /// Namespaces whose weights only it knew.
        namespaces: Vec<NamespaceId>,
    },
    /// Time has passed: leases may have ended.
    Tick,
    /// A drive was taken out: its blocks are lost, its slots are not used again.
    DriveLost {
        /// Its number.
        drive: u16,
    },
    /// The daemon is about to stop: write what only RAM has, the hottest first, as far as the write queue has room.
    /// Answer: [`Answer::Flushing`]; to be sent again as writes end.
    Flush,
    /// An admin evicts a block and its descendants. Answer: [`Answer::Removed`].
    Evict {
        /// The first block to go.
        key: BlockKey,
    },
    /// An admin erases what matches, leased or not. Answer: [`Answer::Removed`].
    Purge(Filter),
}

impl Event {
    /// Whether it depends on the order in which blocks go, or changes it. What is about leases and uses does not.
    pub(super) fn asks_for_order(&self) -> bool {
        !matches!(
            self,
            Self::Lease { .. }
                | Self::Release { .. }
                | Self::Renew { .. }
                | Self::RequestOver { .. }
                | Self::Used { .. }
        )
    }
}

/// A chain that a writer offers.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Names the put from now on.
    pub put: PutId,
    /// The block before the first key; `None` where the first key is block 0.
    pub parent: Option<BlockKey>,
    /// How many blocks come before the first key.
    pub depth: u32,
    /// The chain.
    pub keys: Arc<[BlockKey]>,
    /// The largest payload, which the slots are cut for.
    pub payload_max: u32,
    /// Whose blocks.
    pub owner: Owner,
}

/// Which blocks a purge erases: all fields that are given must match.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Of this namespace.
    pub namespace: Option<NamespaceId>,
    /// Of this tenant.
    pub account: Option<AccountId>,
    /// Of this user (digest).
    pub user: Option<u32>,
    /// By this writer (digest).
    pub writer: Option<u32>,
    /// Written at this second or later.
    pub since_s: Option<u32>,
    /// Of this group.
    pub group: Option<GroupId>,
}

/// What an event's sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// No slot can be had: everything is leased or being moved.
    NoRoom,
    /// To [`Event::Offer`] and [`Event::OfferMore`].
    Offered {
        /// For each key, as far as this event came: the block to send, or `None`.
        wanted: Vec<Option<BlockRef>>,
        /// Whether all that is not wanted is here or on its way, as far as this event came.
        complete: bool,
        /// Whether there is more, to be asked for with [`Event::OfferMore`].
        more: bool,
    },
    /// To [`Event::PutEnded`].
    Stored {
        /// Blocks of the chain readable from its first one on.
        through: u32,
    },
    /// To [`Event::Want`].
    Wanted(Wanted),
    /// To [`Event::Peek`]: where to read. `None`: nothing there.
    Peek(Option<Peek>),
    /// To [`Event::Lease`]. `None`: nothing readable, nothing leased.
    Leased(Result<Option<Leased>, LeaseError>),
    /// To [`Event::Release`] and [`Event::RequestOver`]: whether it was there.
    Released(Result<bool, LeaseError>),
    /// To [`Event::Renew`].
    Renewed(Result<Leased, LeaseError>),
    /// To [`Event::Flush`].
    Flushing {
        /// Writes begun by this event.
        begun: u64,
        /// Blocks worth writing that are not yet being written.
        left: u64,
    },
    /// To [`Event::Evict`] and [`Event::Purge`].
    Removed {
        /// Blocks removed.
        blocks: u64,
        /// Bytes of their payloads.
        bytes: u64,
        /// Blocks kept because they, or descendants, are leased or being moved.
        kept: u64,
    },
}

/// What becomes of a [`Event::Want`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is in RAM.
    Ready,
    /// It is on its way: this event or an earlier one started a [`Command::Load`].
    Coming,
    /// RAM has no room for it now; read it with [`Event::Peek`].
    NoRoom,
    /// It is not here.
    Gone,
}

/// Where to read a block on NVMe. The slot is not reused before [`Event::Peeked`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Which block.
    pub block: BlockRef,
    /// Where.
    pub slot: SlotId,
    /// Slot size.
    pub class: SlotClass,
    /// Bytes of the payload.
    pub length: u32,
    /// What the checksum must be.
    pub crc: u64,
}

/// A lease, as granted or renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Its name.
    pub lease: LeaseId,
    /// Blocks that it protects.
    pub blocks: u32,
}

/// Why a lease is not granted, renewed or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It has ended, or never was.
    #[error("lease_id {0} has ended: leases end by release, with their instance, or by their time limit")]
    Ended(LeaseId),
    /// It is another instance's.
    #[error("lease_id {0} belongs to another engine instance")]
    Foreign(LeaseId),
    /// The instance holds as many as it may.
    #[error("the engine instance holds {0} leases, which is the limit")]
    TooMany(usize),
}

/// Where a readable block is: what is published to readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residence {
    /// Its place in RAM.
    pub ram: Option<InRam>,
    /// Whether NVMe has it. Where is the planner's to say.
    pub nvme: bool,
}

/// A block's place in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InRam {
    /// Which slot.
    pub slot: SlotId,
    /// Its size.
    pub class: SlotClass,
    /// Generation that readers must name.
    pub generation: u64,
    /// Bytes of the payload.
    pub length: u32,
    /// Checksum, seeded with the key.
    pub crc: u64,
    /// Whether RAM has all its ancestors too: then it counts as a hit in RAM.
    pub run: bool,
}

/// A block to be written to NVMe with its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which block; named in [`Event::Wrote`].
    pub block: BlockRef,
    /// Its key.
    pub key: BlockKey,
    /// Where the bytes are in RAM: slot, class and generation.
    pub from: (SlotId, SlotClass, u64),
    /// Where they go.
    pub to: (SlotId, SlotClass),
    /// Bytes of the payload.
    pub length: u32,
    /// Checksum, seeded with the key.
    pub crc: u64,
    /// Whose it is.
    pub owner: Owner,
    /// The block before it.
    pub parent: Option<BlockKey>,
    /// How many blocks come before it.
    pub depth: u32,
    /// When it was stored.
    pub created_s: u32,
}

/// A block to be read from NVMe into RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Which block; named in [`Event::Loaded`].
    pub block: BlockRef,
    /// Its key.
    pub key: BlockKey,
    /// Where the bytes are.
    pub from: (SlotId, SlotClass),
    /// Where they go.
    pub to: (SlotId, SlotClass),
    /// Bytes of the payload.
    pub length: u32,
    /// What the checksum must be.
    pub crc: u64,
}

/// What must now be done, in the order of the commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The put may write this block's bytes into the slot. Ends with [`Event::Filled`] or the put's end.
    Fill {
        /// Whose put.
        put: PutId,
        /// Which block.
        block: BlockRef,
        /// Where.
        slot: SlotId,
        /// Slot size.
        class: SlotClass,
    },
    /// The slot that this block of a put waited for will not come.
    Refuse {
        /// Whose put.
        put: PutId,
        /// Which block.
        block: BlockRef,
    },
    /// Ends with [`Event::Wrote`].
    Write(Write),
    /// Ends with [`Event::Loaded`].
    Load(Load),
    /// A load that was promised can't be tried: its readers are told.
    Unloadable {
        /// Which block.
        key: BlockKey,
    },
    /// Delete the row. Ends with [`Event::Erased`].
    Erase {
        /// Which block.
        key: BlockKey,
        /// The slot that it had.
        slot: SlotId,
        /// Its class.
        class: SlotClass,
    },
    /// Let no new reader into the slot. Ends with [`Event::RamFreed`].
    Retire {
        /// Which slot.
        slot: SlotId,
        /// Its class.
        class: SlotClass,
    },
    /// Tell lookups that the block is readable.
    Publish {
        /// Which block.
        block: BlockRef,
        /// Its key.
        key: BlockKey,
        /// Where it is.
        residence: Residence,
    },
    /// Tell lookups that it is not.
    Unpublish {
        /// Which block.
        block: BlockRef,
        /// Its key.
        key: BlockKey,
    },
}
