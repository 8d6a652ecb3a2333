//! Everything the planner learns comes in as an [`Event`]; everything it causes goes out as a
//! [`Command`](super::Command).
//!
//! An event also has an [`Answer`], for the caller who waits. Whoever carries out a command reports its end with the
//! event that the command names.

use std::sync::Arc;
use std::time::Duration;

use crate::vocab::{
    AccountId, BlockKey, ByteCount, GroupId, Hints, LeaseId, Lifetime, NamespaceId, OwnerPath, Promise, Quota,
    QuotaError, Retention, SlotClass, SlotId,
};

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

/// Work that is too long for one event, as the planner numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

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
    /// The put is about to receive this block: it needs a RAM slot. Answer: `Done`, or `NoRoom`. Leads to [`Command::Fill`](super::Command::Fill).
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
    /// The end of a [`Command::Write`](super::Command::Write).
    Wrote {
        /// Which block.
        block: BlockRef,
        /// How it ended; the generation means nothing here.
        outcome: Transfer,
    },
    /// The end of a [`Command::Erase`](super::Command::Erase): the row is gone.
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
    /// The end of a [`Command::Retire`](super::Command::Retire): nobody reads the slot any more.
    RamFreed {
        /// Which slot.
        slot: SlotId,
    },
    /// A reader wants this block in RAM. Answer: [`Answer::Wanted`]. May lead to [`Command::Load`](super::Command::Load).
    Want {
        /// Which block.
        key: BlockKey,
    },
    /// The end of a [`Command::Load`](super::Command::Load).
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
        /// It was read under a lease, with which the chain counts as used already: only the order is that of now.
        leased: bool,
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
    /// The instance's last process is gone: its leases end, and blocks that could not outlive it go. Answer: `Done` or
    /// [`Answer::Removing`].
    InstanceGone {
        /// Which instance.
        instance: InstanceNo,
        /// Namespaces whose weights only it knew.
        namespaces: Vec<NamespaceId>,
    },
    /// Time has passed: leases may have ended.
    Tick,
    /// The next step of what is too long for one event: to be sent as long as [`Planner::is_working`](super::Planner::is_working)
    /// says so, between other events. Answer: [`Answer::Proceeded`].
    Proceed,
    /// A drive was taken out: its blocks are lost, its slots are not used again.
    DriveLost {
        /// Its number.
        drive: u16,
    },
    /// An admin says what an account may hold; both none takes it away. Answer: [`Answer::QuotaSet`]. What is above a lowered
    /// limit goes by and by, with this event and with ticks.
    SetQuota {
        /// Whose.
        account: AccountId,
        /// What.
        quota: Quota,
    },
    /// A prefix is to stay on NVMe for a time, or until an admin lets it go. Blocks that are not there are written. Answer:
    /// [`Answer::Kept`].
    Keep {
        /// Its last block.
        deepest: BlockKey,
        /// For how long from now; `None` for a pin.
        lifetime: Option<Lifetime>,
    },
    /// A pin is taken away, or a promise that nobody was told of. Answer: [`Answer::Unkept`].
    Unkeep {
        /// Its last block.
        deepest: BlockKey,
        /// Whether it is the pin.
        pin: bool,
    },
    /// The daemon is about to stop: write what only RAM has, the hottest first, as far as the write queue has room.
    /// Answer: [`Answer::Flushing`]; to be sent again as writes end.
    Flush,
    /// An admin evicts a block and its descendants. Answer: [`Answer::Removed`] or [`Answer::Removing`].
    Evict {
        /// The first block to go.
        key: BlockKey,
    },
    /// An admin erases what matches, leased or not. Answer: [`Answer::Removed`] or [`Answer::Removing`]. All goes that matches
    /// now; what comes in before the end may go, too. At the end nothing of it can be read, or is still to be written.
    Purge(Filter),
}

impl Event {
    /// Whether it depends on the order in which blocks go, or changes it. What is about leases and uses does not.
    #[must_use]
    pub fn asks_for_order(&self) -> bool {
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
    /// Whose blocks, along the chain.
    pub owners: OwnerPath,
    /// How long they are kept. What it guarantees is asked for with [`Event::Keep`] once they are stored.
    pub retention: Retention,
    /// What the writer says of the request.
    pub hints: Hints,
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
    /// To [`Event::Keep`].
    Kept(Result<Kept, KeepError>),
    /// To [`Event::Unkeep`]: whether there was one.
    Unkept(bool),
    /// To [`Event::SetQuota`].
    QuotaSet(Result<(), QuotaError>),
    /// To [`Event::Evict`] and [`Event::Purge`].
    Removed(Removed),
    /// To the same, where that takes more than one event: an [`Answer::Proceeded`] will say what was removed.
    Removing(JobId),
    /// To [`Event::Proceed`]: what has ended, if anything has.
    Proceeded(Option<(JobId, Removed)>),
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Blocks removed.
    pub blocks: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Blocks kept because they, or descendants, are leased or being moved.
    pub kept: u64,
}

/// What becomes of a [`Event::Want`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is in RAM.
    Ready,
    /// It is on its way: this event or an earlier one started a [`Command::Load`](super::Command::Load).
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

/// A prefix that is promised to stay. Nobody may be told before its last block is written and the promise is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its last block.
    pub block: BlockRef,
    /// What is promised.
    pub promise: Promise,
    /// Blocks of it that are still being written.
    pub writing: u64,
    /// Whether nothing was promised of it before.
    pub is_new: bool,
}

/// Why a prefix can't be promised to stay. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// It is not readable here.
    #[error("the prefix is not readable here")]
    Gone,
    /// It has a block that may be in RAM only.
    #[error("the prefix has blocks that may be in RAM only")]
    RamOnly,
    /// It has a block that NVMe has no room for, or that could not be written.
    #[error("the prefix has blocks that NVMe has not and can't take now")]
    NotWritten,
    /// The account's guaranteed share does not reach.
    #[error("{wanted} are to be guaranteed, and {left} of the account's NVMe share are not yet promised")]
    NoShare {
        /// Whose share.
        account: AccountId,
        /// Bytes of the slots that are to be guaranteed.
        wanted: ByteCount,
        /// Bytes of the share that are left.
        left: ByteCount,
    },
}
