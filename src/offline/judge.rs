//! What can be said of the index's rows before any byte is read, and which blocks have lost an ancestor.
//!
//! The rules are those of a daemon that starts: what it would leave out as stale is stale here.

use hashbrown::{HashMap, HashSet};

use crate::tiers::{Place, Row};
use crate::vocab::{BlockKey, SlotId, TierShape};

/// A row, and what is known against it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) key: BlockKey,
    pub(super) slot: SlotId,
    /// `None` for shards that this version can't read.
    pub(super) place: Option<Place>,
    pub(super) length: u32,
    parent: Option<BlockKey>,
    depth: u32,
    namespace: u16,
    /// Why it can't be true.
    pub(super) stale: Option<&'static str>,
    /// Another row names its slot too.
    pub(super) contested: bool,
}

impl Found {
    pub(super) fn new(key: BlockKey, row: &Row) -> Self {
        Self {
            key,
            slot: row.slot,
            place: Place::of(row),
            length: row.length,
            parent: row.parent,
            depth: row.depth,
            namespace: row.owner.namespace.0,
            stale: None,
            contested: false,
        }
    }
}

/// Marks rows that can't be true whatever the drive holds, and slots that several rows name.
pub(super) fn mark(rows: &mut [Found], shape: TierShape, namespaces: &HashSet<u16>) {
    for row in rows.iter_mut() {
        row.stale = if row.place.is_none() {
            Some("its shards are not of this version")
        } else if !namespaces.contains(&row.namespace) {
            Some("its namespace is not known")
        } else if !inside(row, shape) {
            Some("its slot lies on no drive that is here")
        } else {
            None
        };
    }
    let classes = classes(rows);
    for row in rows.iter_mut().filter(|row| row.stale.is_none()) {
        let class = row.place.map_or(0, |place| place.class.bytes());
        if classes.get(&row.slot.extent) != Some(&class) {
            row.stale = Some("its slot is not of its extent's size");
        }
    }
    let mut named: HashMap<SlotId, u32> = HashMap::new();
    for row in rows.iter().filter(|row| row.stale.is_none()) {
        *named.entry(row.slot).or_default() += 1;
    }
    for row in rows.iter_mut().filter(|row| row.stale.is_none()) {
        row.contested = named.get(&row.slot).is_some_and(|rows| *rows > 1);
    }
}

fn inside(row: &Found, shape: TierShape) -> bool {
    let fits = |place: Place| u32::from(place.slot.index) < shape.slots(place.slot.extent, place.class);
    u32::from(row.slot.extent) < shape.extents() && row.place.is_some_and(fits)
}

/// The slot size of each extent that has rows: that of most of them.
fn classes(rows: &[Found]) -> HashMap<u16, u32> {
    let mut votes: HashMap<(u16, u32), u64> = HashMap::new();
    for row in rows.iter().filter(|row| row.stale.is_none()) {
        if let Some(place) = row.place {
            *votes.entry((row.slot.extent, place.class.bytes())).or_default() += 1;
        }
    }
    let mut votes: Vec<_> = votes.into_iter().collect();
    votes.sort_unstable_by_key(|((extent, class), rows)| (*extent, *rows, *class));
    votes.into_iter().map(|((extent, class), _)| (extent, class)).collect()
}

/// Slots of extents in use that no row names.
pub(super) fn unreferenced_slots(rows: &[Found], shape: TierShape) -> u64 {
    let named: HashMap<SlotId, _> =
        rows.iter().filter(|row| row.stale.is_none()).filter_map(|row| Some((row.slot, row.place?.class))).collect();
    let extents: HashMap<u16, _> = named.iter().map(|(slot, class)| (slot.extent, *class)).collect();
    let slots: u64 = extents.iter().map(|(extent, class)| u64::from(shape.slots(*extent, *class))).sum();
    slots - named.len() as u64
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Chain {
    Unknown,
    Whole,
    Broken,
}

/// Which rows have an ancestor without a row that can be true. `rows` are in the order of their keys.
pub(super) fn orphans(rows: &[Found]) -> Vec<bool> {
    let parent_of = |row: &Found| {
        let parent = rows.binary_search_by_key(&row.parent?, |row| row.key).ok()?;
        let follows = rows[parent].stale.is_none() && rows[parent].depth.checked_add(1) == Some(row.depth);
        follows.then_some(parent)
    };
    let mut chains = vec![Chain::Unknown; rows.len()];
    let mut path = Vec::new();
    for start in 0..rows.len() {
        let mut at = start;
        // Ends: every step up lessens the depth.
        let end = loop {
            if chains[at] != Chain::Unknown {
                break chains[at];
            }
            path.push(at);
            match (rows[at].parent, parent_of(&rows[at])) {
                (None, _) => break Chain::Whole,
                (Some(_), None) => break Chain::Broken,
                (Some(_), Some(parent)) => at = parent,
            }
        };
        path.drain(..).for_each(|row| chains[row] = end);
    }
    let broken = |(row, chain): (&Found, &Chain)| row.stale.is_none() && *chain == Chain::Broken;
    rows.iter().zip(&chains).map(broken).collect()
}
