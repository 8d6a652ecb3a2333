//! How much the figures are taken with, and how much of that this host's memory holds.

use serde::{Deserialize, Serialize};

/// What rows are taken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Blocks of the prompt.
    pub(super) blocks: u32,
    /// Bytes of each.
    pub(super) block_bytes: u32,
    /// Blocks that one round fetches.
    pub(super) fetch_blocks: u32,
    /// Blocks that one round stores.
    pub(super) put_blocks: u32,
    /// Bytes that blocks are copied to, and that `memcpy` copies from: so many each.
    pub(super) window_bytes: u64,
    /// Calls of one round.
    pub(super) calls: u32,
}

/// A prompt of 1 MiB blocks, as the targets have it.
const BLOCKS: u32 = 4_096;
const BLOCK_BYTES: u32 = 1 << 20;
/// Blocks of a round that goes through a socket: long beside the start of a stream.
const FETCH_BLOCKS: u32 = 1_024;
const PUT_BLOCKS: u32 = 512;
/// Far beyond every cache.
const WINDOW_BYTES: u64 = 1 << 30;
/// Calls of a round: their median is steady, and a round still short.
const CALLS: u32 = 100;
/// The smallest prompt worth a figure.
const BLOCKS_MIN: u32 = 64;
/// What else the processes need, databases and messages under way.
const BESIDES_BYTES: u64 = 512 << 20;

impl Figures {
    /// Those of the targets.
    pub(super) const FULL: Self = Self::of(BLOCKS, CALLS);
    /// To see that it works.
    pub(super) const QUICK: Self = Self::of(32, 3);

    const fn of(blocks: u32, calls: u32) -> Self {
        let prompt = blocks as u64 * BLOCK_BYTES as u64;
        Self {
            blocks,
            block_bytes: BLOCK_BYTES,
            fetch_blocks: if blocks < FETCH_BLOCKS { blocks } else { FETCH_BLOCKS },
            put_blocks: if blocks / 4 < PUT_BLOCKS { blocks / 4 } else { PUT_BLOCKS },
            window_bytes: if prompt < WINDOW_BYTES { prompt } else { WINDOW_BYTES },
            calls,
        }
    }

    /// Memory that they take.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.blocks + self.put_blocks) * u64::from(self.block_bytes) + 2 * self.window_bytes + BESIDES_BYTES
    }

    /// The same with as long a prompt as `available` bytes hold, halved as often as it takes; `None` where none is worth it.
    pub(super) fn within(self, available: u64) -> Option<Self> {
        if self.bytes() <= available {
            return Some(self);
        }
        let half = self.blocks / 2;
        (half >= BLOCKS_MIN).then(|| Self::of(half, self.calls)).and_then(|half| half.within(available))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_host_with_little_memory_has_a_shorter_prompt_and_one_with_none_has_no_figure() {
        let full = Figures::FULL;
        assert_eq!(full.within(16 * GIB), Some(full));
        for available in [full.bytes() - 1, 6 * GIB, 4 * GIB, 2 * GIB, GIB] {
            let fits = full.within(available).unwrap();
            assert!(fits.blocks < full.blocks && fits.bytes() <= available, "{fits:?}");
            assert!(Figures::of(fits.blocks * 2, 1).bytes() > available, "no longer one would do: {fits:?}");
        }
        assert_eq!(full.within(BESIDES_BYTES), None);
        assert!(Figures::QUICK.within(GIB).is_some());
    }

    #[test]
    fn what_a_round_moves_is_part_of_the_prompt() {
        for figures in [Figures::FULL, Figures::QUICK, Figures::of(BLOCKS_MIN, 1)] {
            assert!(figures.fetch_blocks <= figures.blocks && figures.put_blocks > 0, "{figures:?}");
            assert!(figures.window_bytes >= u64::from(figures.block_bytes), "{figures:?}");
        }
        const { assert!(Figures::FULL.window_bytes >= GIB && Figures::FULL.blocks == 4_096) };
    }
}
