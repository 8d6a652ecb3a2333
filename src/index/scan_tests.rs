//! Claims about the pass on several threads, on a real database.

use super::super::row::tests::row;
use super::*;

fn key(number: u32) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn filled(path: &std::path::Path, rows: u32) -> Catalog {
    let catalog = Catalog::open(path).unwrap().catalog;
    let rows: Vec<(BlockKey, Row)> = (0..rows).map(|depth| (key(depth), Row { depth, ..row() })).collect();
    catalog.put_batch(rows.iter().map(|(key, row)| (*key, row))).unwrap();
    catalog
}

/// As for many rows.
const RANGES: Ranges = Ranges { bits: Ranges::BITS_MAX };

#[test]
fn every_row_comes_once_and_in_the_order_of_keys_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let rows = 40_000;
    let catalog = filled(&folder.path().join("catalog"), rows);
    let mut orders = Vec::new();
    for threads in [1, 2, 3, 16, 40] {
        let mut order = Vec::new();
        let scanned =
            catalog.scan_in(RANGES, threads, |key, row| (key, row.depth), |picked| order.extend(picked)).unwrap();
        assert_eq!(scanned, Scanned { rows: rows.into(), undecodable: 0 });
        orders.push(order);
    }
    let mut expected: Vec<(BlockKey, u32)> = (0..rows).map(|depth| (key(depth), depth)).collect();
    expected.sort_unstable();
    assert!(orders.iter().all(|order| *order == expected), "each row once, in the order of keys");
}

#[test]
fn rows_and_keys_that_can_not_be_read_are_counted_and_deleted_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = filled(&folder.path().join("catalog"), 100);
    for bad in [&[][..], &[0], &[0x10], &[0x7f; 32], &[0xff], &[0xff; 3_000]] {
        catalog.db.put(BLOCKS, bad, b"no row").unwrap();
    }
    for undecodable in [6, 0] {
        let mut rows = 0;
        let scanned = catalog.scan_in(RANGES, 3, |_, _| (), |some| rows += some.len()).unwrap();
        assert_eq!((rows, scanned), (100, Scanned { rows: 100, undecodable }));
    }
}

#[test]
fn an_empty_catalog_has_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = filled(&folder.path().join("catalog"), 0);
    assert_eq!(catalog.scan_in(RANGES, 2, |_, _| (), |_| panic!("rows")).unwrap(), Scanned::default());
    assert_eq!(catalog.estimated_blocks().unwrap(), 0);
}
