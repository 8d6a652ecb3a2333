//! How fast this machine copies memory: the limit of everything that is served from RAM.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{BenchError, Measured, gigabytes, in_turn};

/// Larger than any cache that one core has to itself.
const BYTES: usize = 64 << 20;

/// Copies for `time`, on one core.
pub(super) fn copies(time: Duration) -> Result<Measured, BenchError> {
    let (from, mut to) = (vec![1_u8; BYTES], vec![0_u8; BYTES]);
    in_turn("memcpy", "GB/s", time, |_| {
        let began = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        Ok((gigabytes(BYTES as u64, began.elapsed()), None))
    })
}
