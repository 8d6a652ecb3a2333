//! Chance that is the same on every machine: integers of a pinned generator (PCG XSL 128/64,
//! <https://www.pcg-random.org>), from which numbers are drawn with comparisons and the four basic operations, whose
//! results IEEE 754 fixes, and never with a logarithm, whose last bit depends on the C library.

use rand::Rng;
use rand_pcg::Pcg64;

/// Chance, from integers alone.
#[derive(Debug)]
pub(super) struct Chance(Pcg64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds would start neighbouring streams: spread them over the state first.
        let state = u128::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Self(Pcg64::new(state, 0xa02_bdbf_7bb3_c0a7))
    }

    /// From 0 to below 1, in steps of 2^-53.
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to below `bound`, by Lemire's multiplication; its bias is bound / 2^64.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Exponential with mean 1, by comparisons (von Neumann 1951): a falling run of odd length accepts its first number.
    pub(super) fn exponential(&mut self) -> f64 {
        let mut whole = 0.0;
        loop {
            let first = self.unit();
            let (mut last, mut odd) = (first, true);
            loop {
                let next = self.unit();
                if next >= last {
                    break;
                }
                (last, odd) = (next, !odd);
            }
            if odd {
                return whole + first;
            }
            whole += 1.0;
        }
    }

    /// Exponential in whole tokens, at least 1.
    pub(super) fn length(&mut self, mean: u64) -> u64 {
        ((self.exponential() * mean as f64) as u64).max(1)
    }

    /// Geometric with this mean, at least 1.
    pub(super) fn geometric(&mut self, mean: f64) -> u64 {
        let mut turns = 1;
        while self.unit() * mean >= 1.0 {
            turns += 1;
        }
        turns
    }

    /// An index below `count`, index k with weight 1 / (k + 1).
    pub(super) fn harmonic(&mut self, count: usize) -> usize {
        let weight = |index: usize| 1.0 / (index + 1) as f64;
        let mut left = self.unit() * (0..count).map(weight).sum::<f64>();
        for index in 0..count {
            left -= weight(index);
            if left < 0.0 {
                return index;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_was_asked() {
        let mut chance = Chance::new(7);
        let mut mean =
            |draw: &mut dyn FnMut(&mut Chance) -> f64| (0..50_000).map(|_| draw(&mut chance)).sum::<f64>() / 5e4;
        assert!((mean(&mut |chance| chance.exponential()) - 1.0).abs() < 0.02);
        assert!((mean(&mut |chance| chance.geometric(4.0) as f64) - 4.0).abs() < 0.08);
        assert!((mean(&mut |chance| chance.below(11) as f64) - 5.0).abs() < 0.08);
        assert!((mean(&mut |chance| chance.harmonic(2) as f64) - 1.0 / 3.0).abs() < 0.02);
    }
}
