//! How much of a hit is worth loading: a hit slower than recomputing is no hit.

use std::sync::Mutex;
use std::time::Duration;

use crate::vocab::TierCounts;
use crate::vocab::limits::{NVME_SPEED_GUESS, RAM_SPEED_GUESS};

/// What weighs a load against a prefill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scales {
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Tokens a second that the engine computes; 0 where unknown.
    pub prefill_rate: u32,
    /// Bytes a second from RAM.
    pub ram: f64,
    /// Bytes a second from the drives.
    pub nvme: f64,
}

impl Scales {
    /// Blocks of the hit, counted from the chain's start, that save more time than they take: all of it, the part in RAM, or
    /// what the engine has. Within a tier each block costs the same, so it is all or nothing.
    pub(super) fn worth(&self, counts: &TierCounts) -> u32 {
        if self.prefill_rate == 0 {
            return counts.hit();
        }
        let saved = f64::from(self.block_tokens) / f64::from(self.prefill_rate);
        let wins = |speed: f64| f64::from(self.block_bytes) / speed < saved;
        match (wins(self.ram), wins(self.nvme)) {
            (true, true) => counts.hit(),
            (true, false) => counts.engine + counts.ram,
            (false, _) => counts.engine,
        }
    }
}

/// How fast the drives were seen to be, under the load that there was.
#[derive(Debug)]
pub(super) struct Speed(Mutex<f64>);

impl Default for Speed {
    fn default() -> Self {
        Self(Mutex::new(NVME_SPEED_GUESS))
    }
}

impl Speed {
    /// How much the latest load counts against all before it.
    const WEIGHT: f64 = 0.2;

    /// Bytes a second.
    pub(super) fn get(&self) -> f64 {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A load has moved so many bytes in this time.
    pub(super) fn seen(&self, bytes: u64, time: Duration) {
        if bytes == 0 || time.is_zero() {
            return;
        }
        let mut speed = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *speed += Self::WEIGHT * (bytes as f64 / time.as_secs_f64() - *speed);
    }
}

/// The speed of a copy from RAM to an engine.
pub(super) const RAM_SPEED: f64 = RAM_SPEED_GUESS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_trimmed_where_recomputing_is_faster() {
        let counts = TierCounts { engine: 2, ram: 10, nvme: 20, missed: 3 };
        let scales =
            |prefill_rate| Scales { block_bytes: 1 << 20, block_tokens: 64, prefill_rate, ram: 3e9, nvme: 1e9 };
        // A block takes 1.05 ms from the drive and 0.35 ms from RAM; 64 tokens take as long at 61,000 and 183,000 a second.
        for (rate, blocks) in [(0, 32), (10_000, 32), (60_000, 32), (62_000, 12), (180_000, 12), (190_000, 2)] {
            assert_eq!(scales(rate).worth(&counts), blocks, "at {rate} tokens a second");
        }
    }

    #[test]
    fn the_speed_follows_what_is_seen() {
        let speed = Speed::default();
        (0..50).for_each(|_| speed.seen(4_000_000_000, Duration::from_secs(1)));
        assert!((speed.get() - 4e9).abs() < 1e6);
        speed.seen(0, Duration::from_secs(1));
        speed.seen(1, Duration::ZERO);
        assert!((speed.get() - 4e9).abs() < 1e6, "nothing was moved");
    }
}
