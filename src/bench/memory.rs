//! How fast this machine copies memory: the limit of everything that is served from RAM.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::BenchError;
use super::rounds::{Effort, Rounds, gigabytes, in_turn};

/// Larger than any cache that one core has to itself.
const BYTES: usize = 64 << 20;

/// Copies, on one core.
pub(super) fn copies(effort: Effort) -> Result<Rounds, BenchError> {
    let mut memory = Memory::new(BYTES, BYTES);
    in_turn(effort, |_| Ok((gigabytes(BYTES as u64, memory.copy(1)), None)))
}

/// A source and a destination, both with their pages.
pub(super) struct Memory {
    from: Vec<u8>,
    to: Vec<u8>,
    piece: usize,
}

impl Memory {
    /// As many `bytes` on both sides, to be copied in pieces.
    pub(super) fn new(bytes: usize, piece: usize) -> Self {
        Self { from: vec![1; bytes], to: vec![2; bytes], piece }
    }

    /// Where piece number `at` goes; after the last comes the first again.
    pub(super) fn destination(&mut self, at: usize) -> &mut [u8] {
        let at = at % (self.to.len() / self.piece) * self.piece;
        &mut self.to[at..at + self.piece]
    }

    /// Copies so many pieces.
    pub(super) fn copy(&mut self, pieces: usize) -> Duration {
        let began = Instant::now();
        let places = self.from.len() / self.piece;
        for at in (0..pieces).map(|at| at % places * self.piece) {
            self.to[at..at + self.piece].copy_from_slice(black_box(&self.from[at..at + self.piece]));
        }
        black_box(&mut self.to);
        began.elapsed()
    }
}
