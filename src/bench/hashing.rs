//! Keys from tokens, which an engine waits for before it can ask anything.

use std::hint::black_box;
use std::time::Instant;

use super::BenchError;
use super::rounds::{Effort, Rounds, in_turn};
use crate::vocab::key::TokenChain;
use crate::vocab::{ChainRoot, Fingerprint, GroupId, Scope, ScopePath};

/// Tokens of a block: the least that an engine uses, so the dearest a token.
const BLOCK_TOKENS: usize = 16;
/// Tokens of one round's prompt: some milliseconds.
const PROMPT_TOKENS: u32 = 1 << 20;

/// Millions of tokens a second, on one core.
pub(super) fn tokens(effort: Effort) -> Result<Rounds, BenchError> {
    let prompt: Vec<u32> = (0..PROMPT_TOKENS).map(|token| token.wrapping_mul(2_654_435_761) >> 15).collect();
    let scopes = ScopePath::all(Scope::Public);
    in_turn(effort, |_| {
        let began = Instant::now();
        let mut chain = TokenChain::new(ChainRoot::new(&Fingerprint([7; 32]), b"", GroupId(0)), &scopes);
        // Each key depends on all before it.
        black_box(black_box(&prompt[..]).chunks_exact(BLOCK_TOKENS).map(|tokens| chain.push(tokens, b"")).last());
        Ok((f64::from(PROMPT_TOKENS) / 1e6 / began.elapsed().as_secs_f64(), None))
    })
}
