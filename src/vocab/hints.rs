//! What a writer may say of a request beside its blocks.

/// No rule depends on any of it: the daemon learns what it is worth, and goes on without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Tokens of its output.
    pub output_tokens: Option<u32>,
    /// Whether the chain will be used again, as far as its writer knows: a gateway's word, a stop reason, a kind of workload.
    pub again: Option<bool>,
}
