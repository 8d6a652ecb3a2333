//! Text as tokens, and tokens as ids of blocks.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::Tokenizer;

use super::mooncake::{TraceError, TraceFault};
use crate::vocab::key::TokenChain;
use crate::vocab::{ChainRoot, Fingerprint, GroupId, Scope, ScopePath};

/// Ids of the blocks of prompts, hashed as those of live requests are.
#[derive(Debug)]
pub(super) struct BlockIds {
    root: ChainRoot,
    scopes: ScopePath,
}

impl Default for BlockIds {
    fn default() -> Self {
        // Of no namespace that a daemon has: ids of a trace are no keys of its blocks.
        let root = ChainRoot::new(&Fingerprint(*blake3::hash(b"kvtier trace of chats").as_bytes()), b"", GroupId(0));
        Self { root, scopes: ScopePath::all(Scope::Public) }
    }
}

impl BlockIds {
    /// One id a block, the last of which may be partial: two prompts have the same id at a block where all their tokens up to its end
    /// are the same.
    pub(super) fn of(&self, tokens: &[u32], block_tokens: u32) -> Vec<u64> {
        let mut chain = TokenChain::new(self.root, &self.scopes);
        let blocks = tokens.chunks(block_tokens.max(1) as usize);
        blocks.map(|block| chain.push(block, b"").hash64()).collect()
    }
}

/// A tokenizer, and what it made of the few texts that come all the time.
#[derive(Debug)]
pub(super) struct Words {
    tokenizer: Tokenizer,
    markers: HashMap<String, Vec<u32>>,
}

impl Words {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn open(path: &Path) -> Result<Self, TraceError> {
        let refused = |fault| TraceError { trace: path.display().to_string(), line: 0, fault };
        let bytes = std::fs::read(path).map_err(|error| refused(TraceFault::Unreadable(error)))?;
        let tokenizer = Tokenizer::from_bytes(bytes);
        let tokenizer = tokenizer.map_err(|error| refused(TraceFault::Tokenizer(error.to_string())))?;
        Ok(Self { tokenizer, markers: HashMap::new() })
    }

    /// Adds the tokens of a text, without those that a model wants around it.
    ///
    /// # Errors
    /// When the tokenizer has no token for a part of it.
    pub(super) fn add(&self, text: &str, to: &mut Vec<u32>) -> Result<(), String> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| error.to_string())?;
        to.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// Adds the tokens of the line that says who speaks.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub(super) fn add_marker(&mut self, role: &str, to: &mut Vec<u32>) -> Result<(), String> {
        if let Some(tokens) = self.markers.get(role) {
            to.extend_from_slice(tokens);
            return Ok(());
        }
        let mut tokens = Vec::new();
        self.add(&format!("{role}:\n"), &mut tokens)?;
        to.extend_from_slice(&tokens);
        // Roles are few, unless the file is none of chats.
        if self.markers.len() < MARKERS_MAX {
            self.markers.insert(role.to_owned(), tokens);
        }
        Ok(())
    }
}

const MARKERS_MAX: usize = 64;
