//! What to let go first, as a trait: one policy object a tier, with lists for size classes and accounts.
//!
//! Whatever a policy says, only blocks go that nothing of the tier hangs on: the caller accepts no others, and says which
//! those are ([`Policy::leaf`]). So chains go from their tails, and a policy may look at leaves alone.

mod arc;
#[cfg(test)]
mod contract_tests;
mod gdsf;
mod ghosts;
mod gittins;
mod leaves;
mod lru;
mod per_list;
mod queues;
mod s3_fifo;
mod sieve;
mod tiny_lfu;

use crate::vocab::{Hints, Owner};

/// How a block enters a policy's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// Just used.
    Hot,
    /// Unreachable, or of no further use: first to go.
    Cold,
}

/// What is known of a block apart from its uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A part of its key: what it is known by once it has gone.
    pub key: u64,
    /// How many blocks come before it.
    pub depth: u32,
    /// Whose it is: tenant, user and namespace.
    pub owner: Owner,
}

/// What is known of the request that stores a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Depth of the chain's last block.
    pub deepest: u32,
    /// Blocks of it that were never heard of, as far as policies remember.
    pub fresh: u32,
    /// What its writer says of it.
    pub hints: Hints,
}

impl Default for Visit {
    /// Of a request of which nothing is known.
    fn default() -> Self {
        Self { deepest: u32::MAX, fresh: 0, hints: Hints::default() }
    }
}

/// Why a block is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A request reads it. Once a request.
    Read,
    /// The same request has read or stored it: no use of its own, but its chain's order is that of the request's end.
    Again,
    /// The request has stored what it had to store, and this is what is known of it now.
    Stored(Visit),
}

/// Says what is known of a block, where a policy asks.
pub type Ask<'a> = &'a dyn Fn() -> Facts;

/// Orders the blocks of one tier, each list by itself, by how soon they should go. A list holds the blocks of one size class
/// and one account, or of all accounts without a quota.
///
/// The planner owns the blocks and their tree; a policy knows them by number only. The caller guarantees that a block
/// is inserted before it is touched or removed, never twice, and always named with the list that it is in.
pub trait Policy: Send + Sync {
    /// Its name on the command line and in reports.
    fn name(&self) -> &'static str;
    /// A request begins: the clock of those who count in requests.
    fn tick(&mut self) {}
    /// Whether it remembers a block, by its key, that it has not.
    fn remembers(&self, _key: u64) -> bool {
        false
    }
    /// Whether a block is worth what would go for it. Asked where the list is full and the block has no other place to be.
    fn admits(&mut self, _list: u16, _facts: &Facts, _visit: &Visit) -> bool {
        true
    }
    /// A block came by and was not taken in.
    fn pass(&mut self, _facts: &Facts, _visit: &Visit) {}
    /// A block has come in, with nothing hanging on it.
    fn insert(&mut self, list: u16, block: u32, heat: Heat, ask: Ask<'_>, visit: &Visit);
    /// A block was used.
    fn touch(&mut self, list: u16, block: u32, ask: Ask<'_>, why: Use);
    /// A block should go before all others.
    fn chill(&mut self, list: u16, block: u32);
    /// A block has gone.
    fn remove(&mut self, block: u32, ask: Ask<'_>);
    /// Whether anything of the tier hangs on a block has changed.
    fn leaf(&mut self, _list: u16, _block: u32, _leaf: bool) {}
    /// The block of a list that was used longest ago, or would go first where that is not known; it may be one that can't go.
    fn oldest(&self, list: u16) -> Option<u32>;
    /// The first block in a list's order of going that `evictable` accepts. It stays in until removed.
    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32>;
    /// Takes the blocks that `moves` accepts from list `from` to list `to`, where they are in the same order. O(blocks of
    /// `from`).
    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool);
    /// Bytes of memory that it takes.
    fn bytes(&self) -> usize;
}

/// Which policy to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Least recently used goes first. With chains touched from tail to head, leaves always go before their ancestors.
    Lru,
    /// Three queues: what is used once leaves a small first one quickly. Yang et al., "FIFO queues are all you need for cache
    /// eviction" (SOSP 2023).
    S3Fifo,
    /// One queue and a hand that spares what was used since it came by. Zhang et al., "SIEVE is simpler than LRU" (NSDI 2024).
    Sieve,
    /// A window, a segmented LRU, and a sketch of frequencies that decides between them. Einziger et al., "TinyLFU: a highly
    /// efficient cache admission policy" (ACM TOS 2017).
    TinyLfu,
    /// Recency and frequency in a balance that hits on what has just gone move. Megiddo and Modha, "ARC: a self-tuning, low
    /// overhead replacement cache" (FAST 2003).
    Arc,
    /// Frequency times what a block costs to compute, ageing. Cherkasova, "Improving WWW proxies performance with
    /// greedy-dual-size-frequency caching policy" (HP Labs 1998).
    Gdsf,
    /// What is known of a block and its age say how likely it is to be used in the time that it would take: see
    /// `gittins/mod.rs`.
    #[default]
    Gittins,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Lru, Self::S3Fifo, Self::Sieve, Self::TinyLfu, Self::Arc, Self::Gdsf, Self::Gittins];

    /// A new policy of this kind.
    #[must_use]
    pub fn build(self) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(lru::Lru::default()),
            Self::S3Fifo => Box::new(s3_fifo::S3Fifo::default()),
            Self::Sieve => Box::new(sieve::Sieve::default()),
            Self::TinyLfu => Box::new(tiny_lfu::TinyLfu::default()),
            Self::Arc => Box::new(arc::Arc::default()),
            Self::Gdsf => Box::new(gdsf::Gdsf::default()),
            Self::Gittins => Box::new(gittins::Gittins::default()),
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::S3Fifo => "s3-fifo",
            Self::Sieve => "sieve",
            Self::TinyLfu => "w-tinylfu",
            Self::Arc => "arc",
            Self::Gdsf => "gdsf",
            Self::Gittins => "gittins",
        }
    }

    /// The policy of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
