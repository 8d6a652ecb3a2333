//! What is asked for: per namespace a random tree of blocks, whose paths are prompts with shared heads.

use std::ops::Range;

use kvtier::vocab::{AccountId, BlockKey, GroupId, NamespaceId, Owner};

use super::chance::Chance;

/// Namespaces differ in payload, so in size class; the last one may not outlive the daemon.
pub(crate) const PAYLOADS: [u32; 3] = [4_096, 8_000, 3_000];
const RAM_ONLY: usize = 2;
const BLOCKS: usize = 22;

/// A block of a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) key: BlockKey,
    pub(crate) parent: Option<usize>,
    pub(crate) namespace: usize,
}

/// All prompts of a seed.
#[derive(Debug)]
pub(crate) struct Prompts {
    pub(crate) nodes: Vec<Node>,
    /// Which of them are asked for: in some seeds one namespace, in some only its first blocks.
    asked: Range<usize>,
}

impl Prompts {
    pub(crate) fn grow(chance: &mut Chance) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        for namespace in 0..PAYLOADS.len() {
            let first = nodes.len();
            for number in 0..BLOCKS {
                let parent = match number {
                    0 => None,
                    _ if chance.chance(1, 12) => None,
                    // Mostly long chains, some forks.
                    _ if chance.chance(3, 4) => Some(first + number - 1),
                    _ => Some(first + chance.index(number)),
                };
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&chance.next().to_le_bytes());
                bytes[8] = namespace as u8;
                bytes[9] = number as u8;
                nodes.push(Node { key: BlockKey::from_bytes(bytes), parent, namespace });
            }
        }
        let first = BLOCKS * chance.index(PAYLOADS.len());
        let asked = match chance.below(4) {
            0 => 0..nodes.len(),
            1 => first..first + BLOCKS / 2,
            _ => first..first + BLOCKS,
        };
        Self { nodes, asked }
    }

    /// A prompt: the path from a first block down to a random one.
    pub(crate) fn prompt(&self, chance: &mut Chance) -> (usize, Vec<BlockKey>) {
        let deepest = self.asked.start + chance.index(self.asked.len());
        let mut path = Vec::new();
        let mut at = Some(deepest);
        while let Some(node) = at {
            path.push(self.nodes[node].key);
            at = self.nodes[node].parent;
        }
        path.reverse();
        (self.nodes[deepest].namespace, path)
    }

    pub(crate) fn any_key(&self, chance: &mut Chance) -> BlockKey {
        self.nodes[self.asked.start + chance.index(self.asked.len())].key
    }

    pub(crate) fn owner(namespace: usize, chance: &mut Chance) -> Owner {
        Owner {
            namespace: NamespaceId(namespace as u16),
            account: AccountId(chance.below(2) as u16),
            user: chance.below(3) as u32,
            writer: chance.below(3) as u32,
            group: GroupId(0),
            ram_only: namespace == RAM_ONLY,
            ..Owner::default()
        }
    }
}
