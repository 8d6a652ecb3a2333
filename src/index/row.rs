//! A block's row: fixed little-endian fields, then 16 bytes a shard. What does not decode exactly is no row.

use crate::vocab::limits::SHARDS_MAX;
use crate::vocab::{AccountId, BlockKey, GroupId, NamespaceId, Owner, SlotClass, SlotId};

/// The format of a row without an end.
const VERSION: u8 = 1;
/// The same, followed by the end of its time to live.
const VERSION_ENDING: u8 = 2;
const END_BYTES: usize = 4;
const HEAD_BYTES: usize = 84;
const SHARD_BYTES: usize = 16;

/// The payload is stored as it came.
pub const CODEC_RAW: u8 = 0;

/// What the catalog holds of a block on the drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which slot.
    pub slot: SlotId,
    /// The slot's size, without which its number is no place.
    pub class: SlotClass,
    /// Bytes of the payload.
    pub length: u32,
    /// How the payload is stored; [`CODEC_RAW`] is built.
    pub codec: u8,
    /// Whose it is. Blocks that may not outlive the daemon have no row, so `ram_only` is not stored.
    pub owner: Owner,
    /// Shards that were written.
    pub shard_bitmap: u64,
    /// Where each of them lies within the slot, in bitmap order.
    pub shards: Vec<ShardRow>,
    /// The block before it; none for block 0 and for keys that are independent of each other.
    pub parent: Option<BlockKey>,
    /// Blocks before it.
    pub depth: u32,
    /// Its retention class.
    pub retention: u8,
    /// Seconds since the Unix epoch.
    pub created_s: u32,
    /// Seconds since the Unix epoch; coarse.
    pub last_use_s: u32,
    /// When its time to live is over, in seconds since the Unix epoch; 0 for never.
    pub expires_s: u32,
}

/// One shard of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// From the start of the slot.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// CRC-64/NVME of its bytes, seeded with the block's key.
    pub crc: u64,
}

/// Why bytes are no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Written by another version.
    #[error("row version {0} is not known")]
    Version(u8),
    /// Too short, too long, or not as long as its shards ask.
    #[error("{0} bytes are no row")]
    Size(usize),
    /// A field that no row can have.
    #[error("{0} is out of range")]
    Field(&'static str),
}

impl Row {
    /// The bytes of today's format.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + SHARD_BYTES * self.shards.len());
        let version = if self.expires_s == 0 { VERSION } else { VERSION_ENDING };
        bytes.extend([version, self.codec, self.owner.scope, self.retention, self.owner.group.0]);
        bytes.push(u8::from(self.parent.is_some()));
        bytes.extend(u16::try_from(self.shards.len()).unwrap_or(u16::MAX).to_le_bytes());
        for number in [self.slot.extent, self.slot.index, self.owner.namespace.0, self.owner.account.0] {
            bytes.extend(number.to_le_bytes());
        }
        let words = [self.class.bytes(), self.length, self.owner.user, self.owner.writer];
        for number in words.into_iter().chain([self.depth, self.created_s, self.last_use_s]) {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.shard_bitmap.to_le_bytes());
        bytes.extend(self.parent.map_or([0; 32], |key| *key.as_bytes()));
        for shard in &self.shards {
            bytes.extend(shard.offset.to_le_bytes());
            bytes.extend(shard.length.to_le_bytes());
            bytes.extend(shard.crc.to_le_bytes());
        }
        if self.expires_s > 0 {
            bytes.extend(self.expires_s.to_le_bytes());
        }
        bytes
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// Unless every byte is as that would have written it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let size = || RowError::Size(bytes.len());
        let mut fields = Fields(bytes);
        let [version, codec, scope, retention, group, has_parent] = fields.take().ok_or_else(size)?;
        let end = match version {
            VERSION => 0,
            VERSION_ENDING => END_BYTES,
            other => return Err(RowError::Version(other)),
        };
        if bytes.len() < HEAD_BYTES {
            return Err(size());
        }
        let shards = usize::from(fields.u16());
        if bytes.len() != HEAD_BYTES + SHARD_BYTES * shards + end {
            return Err(size());
        }
        let slot = SlotId { extent: fields.u16(), index: fields.u16() };
        let (namespace, account) = (NamespaceId(fields.u16()), AccountId(fields.u16()));
        let class = SlotClass::of_bytes(fields.u32()).ok_or(RowError::Field("class"))?;
        let length = fields.u32();
        let (user, writer) = (fields.u32(), fields.u32());
        let row = Self {
            slot,
            class,
            length,
            codec,
            owner: Owner { namespace, account, user, writer, group: GroupId(group), scope, ram_only: false },
            retention,
            depth: fields.u32(),
            created_s: fields.u32(),
            last_use_s: fields.u32(),
            shard_bitmap: fields.u64(),
            parent: fields.parent(has_parent)?,
            shards: (0..shards).map(|_| fields.shard()).collect(),
            // Zero past the end of a row that has none.
            expires_s: fields.u32(),
        };
        if (row.expires_s > 0) != (version == VERSION_ENDING) {
            return Err(RowError::Field("expires_s"));
        }
        row.check()?;
        Ok(row)
    }

    /// Checks what must hold between the fields.
    ///
    /// # Errors
    /// Names the field that breaks it.
    pub fn check(&self) -> Result<(), RowError> {
        let inside = |offset: u32, length: u32| {
            offset.checked_add(length).is_some_and(|end| length > 0 && end <= self.class.bytes())
        };
        if self.codec != CODEC_RAW {
            return Err(RowError::Field("codec"));
        }
        if self.owner.ram_only {
            return Err(RowError::Field("ram_only"));
        }
        if !inside(0, self.length) {
            return Err(RowError::Field("length"));
        }
        if self.shards.is_empty() || self.shards.len() > SHARDS_MAX {
            return Err(RowError::Field("shards"));
        }
        if self.shard_bitmap.count_ones() as usize != self.shards.len() {
            return Err(RowError::Field("shard_bitmap"));
        }
        if !self.shards.iter().all(|shard| inside(shard.offset, shard.length)) {
            return Err(RowError::Field("shard"));
        }
        Ok(())
    }
}

/// What is left to read; zeroes past the end, which the size check has excluded.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> u16 {
        self.take().map_or(0, u16::from_le_bytes)
    }

    fn u32(&mut self) -> u32 {
        self.take().map_or(0, u32::from_le_bytes)
    }

    fn u64(&mut self) -> u64 {
        self.take().map_or(0, u64::from_le_bytes)
    }

    fn parent(&mut self, has_parent: u8) -> Result<Option<BlockKey>, RowError> {
        let key: [u8; 32] = self.take().unwrap_or_default();
        match has_parent {
            1 => Ok(Some(BlockKey::from_bytes(key))),
            0 if key == [0; 32] => Ok(None),
            _ => Err(RowError::Field("parent")),
        }
    }

    fn shard(&mut self) -> ShardRow {
        ShardRow { offset: self.u32(), length: self.u32(), crc: self.u64() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::index) fn row() -> Row {
        Row {
            slot: SlotId { extent: 0x0102, index: 0x0304 },
            class: SlotClass::of_bytes(0x2000).unwrap(),
            length: 0x1234,
            codec: CODEC_RAW,
            owner: Owner {
                namespace: NamespaceId(0x0506),
                account: AccountId(0x0708),
                user: 0x0a0b_0c0d,
                writer: 0x0e0f_1011,
                group: GroupId(5),
                scope: 1,
                ram_only: false,
            },
            shard_bitmap: 1,
            shards: vec![ShardRow { offset: 0, length: 0x1234, crc: 0x1122_3344_5566_7788 }],
            parent: Some(BlockKey::from_bytes([0xee; 32])),
            depth: 7,
            retention: 2,
            created_s: 0x6000_0000,
            last_use_s: 0x6000_0001,
            expires_s: 0,
        }
    }

    /// Pinned: a change here needs a new version, and the old one must still be refused or read.
    #[test]
    fn the_format_of_today_is_pinned_byte_by_byte() {
        let hex: String = row().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = [
            "010001020501",
            "0100",
            "02010403",
            "06050807",
            "00200000",
            "34120000",
            "0d0c0b0a",
            "11100f0e",
            "07000000",
            "00000060",
            "01000060",
            "0100000000000000",
            &"ee".repeat(32),
            "00000000",
            "34120000",
            "8877665544332211",
        ];
        assert_eq!(hex, golden.concat());
        let ending = Row { expires_s: 0x6000_0e10, ..row() }.encode();
        let hex: String = ending.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("02{}100e0060", &golden.concat()[2..]));
    }

    #[test]
    fn another_version_and_every_other_size_are_refused() {
        let bytes = row().encode();
        let newer = [&[3], &bytes[1..]].concat();
        assert_eq!(Row::decode(&newer), Err(RowError::Version(3)));
        let endless = [&[2], &bytes[1..], &[0; 4]].concat();
        assert_eq!(Row::decode(&endless), Err(RowError::Field("expires_s")));
        for len in 0..bytes.len() {
            assert_eq!(Row::decode(&bytes[..len]), Err(RowError::Size(len)));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Row::decode(&longer), Err(RowError::Size(longer.len())));
    }

    #[test]
    fn a_field_that_no_row_can_have_is_refused() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = row().encode();
            bytes[at] = byte;
            Row::decode(&bytes)
        };
        assert_eq!(changed(1, 9), Err(RowError::Field("codec")));
        assert_eq!(changed(5, 0), Err(RowError::Field("parent")));
        assert_eq!(changed(5, 2), Err(RowError::Field("parent")));
        assert_eq!(changed(16, 1), Err(RowError::Field("class")));
        assert_eq!(changed(22, 1), Err(RowError::Field("length")));
        assert_eq!(changed(44, 3), Err(RowError::Field("shard_bitmap")));
        assert_eq!(changed(86, 1), Err(RowError::Field("shard")));
    }

    prop_compose! {
        fn any_row()(
            (extent, index, namespace, account) in any::<(u16, u16, u16, u16)>(),
            (user, writer, depth, created_s, last_use_s) in any::<(u32, u32, u32, u32, u32)>(),
            expires_s in any::<u32>(),
            (group, scope, retention) in any::<(u8, u8, u8)>(),
            parent in any::<Option<[u8; 32]>>(),
            pages in 1_u32..=16_384,
            bits in 1_u32..=64,
            seed in any::<u64>(),
        ) -> Row {
            let class = SlotClass::of_bytes(pages * 4096).unwrap();
            let length = 1 + u32::try_from(seed % u64::from(class.bytes())).unwrap();
            let shard = |at: u32| ShardRow { offset: at, length: class.bytes() - at, crc: seed ^ u64::from(at) };
            Row {
                slot: SlotId { extent, index },
                class,
                length,
                codec: CODEC_RAW,
                owner: Owner {
                    namespace: NamespaceId(namespace),
                    account: AccountId(account),
                    user,
                    writer,
                    group: GroupId(group),
                    scope,
                    ram_only: false,
                },
                shard_bitmap: u64::MAX >> (64 - bits),
                shards: (0..bits).map(shard).collect(),
                parent: parent.map(BlockKey::from_bytes),
                depth,
                retention,
                created_s,
                last_use_s,
                expires_s,
            }
        }
    }

    proptest! {
        #[test]
        fn every_row_reads_back(row in any_row()) {
            prop_assert_eq!(Row::decode(&row.encode()), Ok(row));
        }

        #[test]
        fn bytes_that_decode_are_what_their_row_encodes_to(mut bytes in any_row().prop_map(|row| row.encode()), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(row) = Row::decode(&bytes) {
                prop_assert_eq!(row.encode(), bytes);
            }
        }
    }
}
