//! One request of a trace, owned or borrowed, and the rule that turns its hit blocks into hit tokens.

use crate::vocab::Hints;

/// A request, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceRequest {
    /// When it arrived, in milliseconds from the trace's own zero.
    pub timestamp_ms: u64,
    /// Tokens of its prompt.
    pub input_length: u64,
    /// Tokens of its output.
    pub output_length: u64,
    /// One id a block of its prompt; each stands for the whole prefix up to and including its block, the last of which
    /// may be partial.
    pub hash_ids: Vec<u64>,
}

impl TraceRequest {
    /// What a gateway knows of it when it stores its blocks.
    #[must_use]
    pub fn hints(&self) -> Hints {
        self.view().hints()
    }

    /// The same, borrowed.
    #[must_use]
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            timestamp_ms: self.timestamp_ms,
            input_length: self.input_length,
            output_length: self.output_length,
            hash_ids: &self.hash_ids,
        }
    }

    /// See [`RequestView::hit_tokens`].
    #[must_use]
    pub fn hit_tokens(&self, run: u64, block_tokens: u32) -> u64 {
        self.view().hit_tokens(run, block_tokens)
    }
}

/// A request whose ids belong to a [`Trace`](super::Trace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestView<'a> {
    /// When it arrived, in milliseconds from the trace's own zero.
    pub timestamp_ms: u64,
    /// Tokens of its prompt.
    pub input_length: u64,
    /// Tokens of its output.
    pub output_length: u64,
    /// One id a block, head first.
    pub hash_ids: &'a [u64],
}

impl RequestView<'_> {
    /// Tokens skipped by an unbroken run of `run` blocks from the first: the last block may be partial, so it counts
    /// only for what the prompt has.
    #[must_use]
    pub fn hit_tokens(&self, run: u64, block_tokens: u32) -> u64 {
        run.saturating_mul(u64::from(block_tokens)).min(self.input_length)
    }

    /// What a gateway knows of it when it stores its blocks: the output's length, where the trace has one.
    #[must_use]
    pub fn hints(&self) -> Hints {
        let output_tokens = u32::try_from(self.output_length).ok().filter(|tokens| *tokens > 0);
        Hints { output_tokens, again: None }
    }

    /// How many blocks it asks for.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.hash_ids.len() as u64
    }

    /// The same, owned.
    #[must_use]
    pub fn to_owned(&self) -> TraceRequest {
        TraceRequest {
            timestamp_ms: self.timestamp_ms,
            input_length: self.input_length,
            output_length: self.output_length,
            hash_ids: self.hash_ids.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_last_block_counts_for_the_tokens_it_has() {
        let request = TraceRequest { input_length: 1_100, hash_ids: vec![0, 1, 2], ..TraceRequest::default() };
        let hits: Vec<u64> = (0..4).map(|run| request.hit_tokens(run, 512)).collect();
        assert_eq!(hits, [0, 512, 1_024, 1_100]);
    }
}
