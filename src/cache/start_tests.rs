//! What knowing many blocks costs. How fast they are known again is what `benches/reopen.rs` measures.

use super::*;
use crate::vocab::{NamespaceId, Owner, SlotClass, SlotId};

/// Bytes of RAM that a block of one shard may cost while it is on NVMe only: 128, and 8 a shard.
const BLOCK_BYTES_MAX: usize = 128 + 8;
const SLOT_BYTES: u32 = 1 << 20;
const CHAIN: u32 = 64;

fn key(number: u32) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn row(number: u32) -> Recovered {
    let depth = number % CHAIN;
    Recovered {
        key: key(number),
        slot: SlotId { extent: (number >> 10) as u16, index: (number % 1_024) as u16 },
        class: SlotClass::of_bytes(SLOT_BYTES).unwrap(),
        length: SLOT_BYTES,
        crc: 7,
        owner: Owner { namespace: NamespaceId(1), user: number / CHAIN % 64, ..Owner::default() },
        payload_max: SLOT_BYTES,
        parent: (depth > 0).then(|| key(number - 1)),
        depth,
        created_s: number / 50,
        last_use_s: number / 50,
        expires_s: 0,
    }
}

/// What there is before the first block: tables in many parts.
fn empty() -> usize {
    let planner = Planner::new(Options::new(TierShape::carve(ByteCount(16 << 20)), TierShape::NONE));
    let bytes = planner.footprint().iter().map(|(_, bytes)| bytes).sum::<usize>();
    let bytes = bytes + Residency::new(planner.keys()).bytes()[0];
    assert!(bytes <= 3 << 20, "{bytes} bytes for no block");
    bytes
}

/// Whatever their number: a table that has just grown is half empty, and costs each block twice as much.
#[test]
fn a_block_on_nvme_costs_no_more_ram_than_promised_however_many_there_are() {
    let mut worst = 0.0_f64;
    for blocks in [250_000, 330_000, 450_000, 600_000, 800_000, 1_000_000] {
        let mut rows: Vec<Recovered> = (0..blocks).map(row).collect();
        rows.sort_unstable_by_key(|row| row.key);
        let nvme = TierShape::with_extent(u64::from(blocks.div_ceil(1_024)) << 30, 1 << 30);
        let ram = TierShape::carve(ByteCount(16 << 20));
        let mut recovery = Recovery::new(Planner::new(Options::new(ram, nvme)), blocks.into());
        rows.chunks(1_000).for_each(|rows| recovery.rows(rows, |key| panic!("{key} is stale")));
        drop(rows);
        let planner = recovery.finish();
        assert_eq!((planner.holdings().nvme_blocks, planner.holdings().orphans), (blocks.into(), 0));
        let residency = Residency::new(planner.keys());
        residency.fill(&planner, 2);
        assert!((0..blocks).step_by(1_009).all(|number| residency.get(&key(number)).is_some()));
        let parts = planner.footprint();
        let bytes = parts.iter().map(|(_, bytes)| bytes).sum::<usize>() + residency.bytes()[0] - empty();
        assert!(bytes <= BLOCK_BYTES_MAX * blocks as usize, "{bytes} bytes for {blocks} blocks: {parts:?}");
        worst = worst.max(bytes as f64 / f64::from(blocks));
    }
    assert!(worst > 120.0, "something is not counted: {worst} bytes a block");
}
