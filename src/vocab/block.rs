//! What is known of a block apart from its bytes.

use std::fmt;

use super::{AccountId, NamespaceId};

/// Where bytes are kept: a value, never a type parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The host's memory.
    Ram,
    /// The host's drives.
    Nvme,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ram => "ram",
            Self::Nvme => "nvme",
        })
    }
}

/// Layers that share a hit rule. Only group 0, `ALL` (full attention), is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u8);

/// Whose a block is and who wrote it. Users and writers are 32-bit digests: a collision makes a purge forget more
/// than it had to, never less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The layout of its bytes.
    pub namespace: NamespaceId,
    /// The tenant whose account it counts against.
    pub account: AccountId,
    /// Digest of the end user; 0 for none.
    pub user: u32,
    /// Digest of the engine instance that wrote it.
    pub writer: u32,
    /// Which layers it holds.
    pub group: GroupId,
    /// Who may see it: 0 everybody, 1 its tenant, 2 its user.
    pub scope: u8,
    /// Its bytes may not outlive the daemon: the weights' digest is unknown.
    pub ram_only: bool,
}

/// The owners along one chain: from which of its blocks each holds. Most chains have one, none more than three (a public
/// domain, a tenant, a user of it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerPath {
    first: Owner,
    /// Ordered by block.
    later: Vec<(u32, Owner)>,
}

impl OwnerPath {
    /// One owner for the whole chain.
    #[must_use]
    pub const fn all(owner: Owner) -> Self {
        Self { first: owner, later: Vec::new() }
    }

    /// The same, with another owner from block `from` on, which must be after all before it.
    #[must_use]
    pub fn then(mut self, from: u32, owner: Owner) -> Self {
        debug_assert!(self.later.last().is_none_or(|(before, _)| *before < from), "owners come in order");
        self.later.push((from, owner));
        self
    }

    /// Whose block `at` of the whole chain is.
    #[must_use]
    pub fn at(&self, at: u32) -> Owner {
        self.later.iter().rev().find(|(from, _)| *from <= at).map_or(self.first, |(_, owner)| *owner)
    }

    /// Whose the chain's last blocks are.
    #[must_use]
    pub fn last(&self) -> Owner {
        self.later.last().map_or(self.first, |(_, owner)| *owner)
    }
}

/// Blocks of one lookup by where they were found. They add up to the blocks asked (invariant 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierCounts {
    /// Already in the engine's own GPU memory, by its own word.
    pub engine: u32,
    /// In RAM with all its ancestors.
    pub ram: u32,
    /// On NVMe.
    pub nvme: u32,
    /// Not readable here.
    pub missed: u32,
}

impl TierCounts {
    /// Blocks that can be skipped.
    #[must_use]
    pub const fn hit(self) -> u32 {
        self.engine + self.ram + self.nvme
    }

    /// Blocks asked for.
    #[must_use]
    pub const fn asked(self) -> u32 {
        self.hit() + self.missed
    }
}
