//! What each namespace has that lookups may find, as running counts.

use std::collections::BTreeMap;

use crate::vocab::NamespaceId;

/// Readable blocks and their payload bytes, by namespace; those that have none are not here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Namespaces(BTreeMap<u16, (u64, u64)>);

impl Namespaces {
    /// A block of so many bytes can be read from now on, or can't any more.
    pub(super) fn count(&mut self, namespace: NamespaceId, bytes: u32, readable: bool) {
        let held = self.0.entry(namespace.0).or_insert((0, 0));
        let bytes = u64::from(bytes);
        *held = if readable { (held.0 + 1, held.1 + bytes) } else { (held.0 - 1, held.1 - bytes) };
        if *held == (0, 0) {
            self.0.remove(&namespace.0);
        }
    }

    pub(super) fn counts(&self) -> BTreeMap<u16, (u64, u64)> {
        self.0.clone()
    }
}
