//! What the planner causes: commands, to be carried out by whoever has the hands, in their order.

use super::event::{BlockRef, PutId};
use crate::vocab::{BlockKey, Owner, Promise, SlotClass, SlotId};

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
    /// Which block; named in [`Event::Wrote`](super::Event::Wrote).
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
    /// When its time to live is over, in seconds since 1970; 0 for never.
    pub expires_s: u32,
}

/// A block to be read from NVMe into RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Which block; named in [`Event::Loaded`](super::Event::Loaded).
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
    /// The put may write this block's bytes into the slot. Ends with [`Event::Filled`](super::Event::Filled) or the put's end.
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
    /// Ends with [`Event::Wrote`](super::Event::Wrote).
    Write(Write),
    /// Ends with [`Event::Loaded`](super::Event::Loaded).
    Load(Load),
    /// A load that was promised can't be tried: its readers are told.
    Unloadable {
        /// Which block.
        key: BlockKey,
    },
    /// Delete the row. Ends with [`Event::Erased`](super::Event::Erased).
    Erase {
        /// Which block.
        key: BlockKey,
        /// The slot that it had.
        slot: SlotId,
        /// Its class.
        class: SlotClass,
    },
    /// Note in the index, by and by, what is promised of a block.
    Promise {
        /// Which block.
        key: BlockKey,
        /// What.
        promise: Promise,
    },
    /// Note in the index that nothing is promised of a block any more.
    Unpromise {
        /// Which block.
        key: BlockKey,
    },
    /// Let no new reader into the slot. Ends with [`Event::RamFreed`](super::Event::RamFreed).
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
