//! What to let go first, as a trait: one policy object a tier, with lists for size classes and accounts.

/// How a block enters a policy's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// Just used.
    Hot,
    /// Unreachable, or of no further use: first to go.
    Cold,
}

/// Orders the blocks of one tier, each list by itself, by how soon they should go. A list holds the blocks of one size class
/// and one account, or of all accounts without a quota.
///
/// The planner owns the blocks and their tree; a policy knows them by number only. The caller guarantees that a block
/// is inserted before it is touched or removed, never twice, and always named with the list that it is in.
pub trait Policy: Send + Sync {
    /// Its name on the command line and in reports.
    fn name(&self) -> &'static str;
    /// A block has come in.
    fn insert(&mut self, list: u16, block: u32, heat: Heat);
    /// A block was used.
    fn touch(&mut self, list: u16, block: u32);
    /// A block should go before all others.
    fn chill(&mut self, list: u16, block: u32);
    /// A block has gone.
    fn remove(&mut self, block: u32);
    /// The first block in a list's order of going that `evictable` accepts. It stays in until removed.
    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32>;
    /// Takes the blocks that `moves` accepts from list `from` to list `to`, where they are in the same order. O(blocks of
    /// `from`).
    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool);
    /// Bytes of memory that it takes.
    fn bytes(&self) -> usize;
}

/// Which policy to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// Least recently used goes first. With chains touched from tail to head, leaves always go before their ancestors.
    #[default]
    Lru,
}

impl PolicyKind {
    /// All of them, the default first.
    pub const ALL: [Self; 1] = [Self::Lru];

    /// A new policy of this kind.
    #[must_use]
    pub fn build(self) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(super::lru::Lru::default()),
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
        }
    }

    /// The policy of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        (name == "lru").then_some(Self::Lru)
    }
}
