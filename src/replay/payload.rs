//! Payload bytes that follow from a block's key, so that a replay can check every byte it gets back without keeping
//! any: what a worker is handed is right exactly when it is what the key says.
//!
//! Word `i` of a payload is wyrand's output for state `s + i × increment`
//! (<https://github.com/wangyi-fudan/wyhash>): one 64 × 64 → 128 bit multiplication for eight bytes, and no word needs
//! the one before it, so that the processor computes several at once and any part of a payload can be checked alone.
//! Vectors don't help here: a 64-bit multiplication is slower in SSE than in the scalar unit.

use crate::vocab::BlockKey;

const INCREMENT: u64 = 0xa076_1d64_78bd_642f;
const SECRET: u64 = 0xe703_7ed1_a0b4_28db;
const WORD: usize = 8;
/// Words computed together: what keeps the multiplier busy.
const LANES: usize = 8;
const GROUP: usize = WORD * LANES;

/// Writes the payload of `key` into `out`.
pub fn fill(key: &BlockKey, out: &mut [u8]) {
    Payload::new(key).fill(0, out);
}

/// Whether `bytes` are the payload of `key`, from its first byte.
#[must_use]
pub fn check(key: &BlockKey, bytes: &[u8]) -> bool {
    Payload::new(key).check(0, bytes)
}

/// The payload of one block, as long as anyone asks.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    start: u64,
    secret: u64,
}

impl Payload {
    /// The payload of `key`: every byte depends on all 32 bytes of it, and on its own position.
    #[must_use]
    pub fn new(key: &BlockKey) -> Self {
        let (words, _) = key.as_bytes().as_chunks::<WORD>();
        let absorb = |state: u64, word: &[u8; WORD]| folded(state ^ u64::from_le_bytes(*word), SECRET ^ state);
        let start = words.iter().fold(INCREMENT, absorb);
        let secret = words.iter().rev().fold(start, absorb);
        Self { start, secret }
    }

    /// Writes the bytes from `offset` on, which must be a multiple of 8.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        debug_assert!(offset.is_multiple_of(WORD as u64));
        let mut state = self.state_at(offset);
        let (groups, rest) = out.as_chunks_mut::<GROUP>();
        for group in groups {
            *group = self.group(state);
            state = state.wrapping_add(INCREMENT.wrapping_mul(LANES as u64));
        }
        let last = self.group(state);
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Whether `bytes` are those from `offset` on, which must be a multiple of 8.
    #[must_use]
    pub fn check(&self, offset: u64, bytes: &[u8]) -> bool {
        debug_assert!(offset.is_multiple_of(WORD as u64));
        let mut state = self.state_at(offset);
        let (groups, rest) = bytes.as_chunks::<GROUP>();
        for group in groups {
            if self.differs(state, group) {
                return false;
            }
            state = state.wrapping_add(INCREMENT.wrapping_mul(LANES as u64));
        }
        let last = self.group(state);
        rest == &last[..rest.len()]
    }

    /// Word by word in registers: to write a group out and compare it takes twice as long.
    #[inline(always)]
    fn differs(&self, mut state: u64, group: &[u8; GROUP]) -> bool {
        let mut difference = 0;
        let (words, _) = group.as_chunks::<WORD>();
        for word in words {
            difference |= u64::from_le_bytes(*word) ^ folded(state, state ^ self.secret);
            state = state.wrapping_add(INCREMENT);
        }
        difference != 0
    }

    fn state_at(&self, offset: u64) -> u64 {
        self.start.wrapping_add(INCREMENT.wrapping_mul(offset / WORD as u64 + 1))
    }

    #[inline(always)]
    fn group(&self, mut state: u64) -> [u8; GROUP] {
        let mut group = [0; GROUP];
        let (words, _) = group.as_chunks_mut::<WORD>();
        for word in words {
            *word = folded(state, state ^ self.secret).to_le_bytes();
            state = state.wrapping_add(INCREMENT);
        }
        group
    }
}

#[inline(always)]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> BlockKey {
        BlockKey::from_bytes([seed; 32])
    }

    fn payload(key: &BlockKey, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        fill(key, &mut bytes);
        bytes
    }

    #[test]
    fn a_payload_of_any_length_checks_and_one_flipped_bit_does_not() {
        for length in [0, 1, 7, 8, 63, 64, 65, 1_000, 4_096] {
            let mut bytes = payload(&key(1), length);
            assert!(check(&key(1), &bytes), "{length}");
            for at in 0..length {
                bytes[at] ^= 0x10;
                assert!(!check(&key(1), &bytes), "byte {at} of {length}");
                bytes[at] ^= 0x10;
            }
        }
    }

    #[test]
    fn every_bit_of_the_key_changes_about_all_bytes() {
        let base = payload(&key(1), 4_096);
        for bit in 0..256 {
            let mut changed = *key(1).as_bytes();
            changed[bit / 8] ^= 1 << (bit % 8);
            let other = payload(&BlockKey::from_bytes(changed), 4_096);
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 64, "bit {bit}: {same} of 4096 bytes are the same");
        }
    }

    #[test]
    fn positions_differ_too() {
        let bytes = payload(&key(1), 1 << 20);
        let mut pages: Vec<&[u8]> = bytes.chunks(64).collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), (1 << 20) / 64);
        let mut counts = [0_u32; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (3_700..4_500).contains(count)), "4096 of each are expected: {counts:?}");
    }

    #[test]
    fn a_part_is_the_same_as_in_the_whole() {
        let whole = payload(&key(1), 1_000);
        for offset in (0..1_000).step_by(8) {
            let mut part = vec![0; (1_000 - offset).min(100)];
            Payload::new(&key(1)).fill(offset as u64, &mut part);
            assert_eq!(part, whole[offset..offset + part.len()]);
            assert!(Payload::new(&key(1)).check(offset as u64, &part));
        }
    }

    #[test]
    fn the_bytes_are_pinned_so_that_an_old_server_can_be_checked_by_a_new_program() {
        assert_eq!(payload(&key(1), 8), [152, 73, 151, 167, 225, 185, 131, 15]);
    }

    #[test]
    #[ignore = "a measurement: run it alone and read what it prints"]
    #[expect(clippy::print_stderr, reason = "a measurement is read by a person")]
    fn speed() {
        let mut bytes = vec![0; 1 << 20];
        let gigabytes = |elapsed: std::time::Duration| 4_096.0 * f64::from(1 << 20) / elapsed.as_secs_f64() / 1e9;
        let started = std::time::Instant::now();
        for _ in 0..4_096 {
            fill(&key(1), std::hint::black_box(&mut bytes));
        }
        let filled = gigabytes(started.elapsed());
        let started = std::time::Instant::now();
        for _ in 0..4_096 {
            assert!(check(&key(1), std::hint::black_box(&bytes)));
        }
        eprintln!("fill {filled:.1} GB/s, check {:.1} GB/s", gigabytes(started.elapsed()));
    }
}
