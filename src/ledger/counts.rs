//! Tokens by what they are billed as, of one record or of a sum.

use std::ops::{Add, AddAssign, Neg, Sub};

use super::codec::{DecodeError, Reader, Writer};
use crate::vocab::TokenCount;

/// Tokens by what they are billed as. Below zero only in a correction, which takes something back; a sum over records and
/// their corrections never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of the prompt: the sum of hit, attested and miss.
    pub prompt: i64,
    /// Delivered by kvtier from RAM and skipped by the engine.
    pub hit_ram: i64,
    /// Delivered by kvtier from NVMe and skipped by the engine.
    pub hit_nvme: i64,
    /// Skipped from the engine's own GPU cache.
    pub attested: i64,
    /// Computed.
    pub miss: i64,
    /// Stored.
    pub written: i64,
    /// Generated.
    pub output: i64,
}

impl Counts {
    /// What each is called in settles, lines and refusals, in their order.
    pub const NAMES: [&str; 7] = [
        "prompt_tokens",
        "hit_tokens_ram",
        "hit_tokens_nvme",
        "attested_tokens",
        "miss_tokens",
        "written_tokens",
        "output_tokens",
    ];

    /// Billed as a hit.
    #[must_use]
    pub fn hit(&self) -> i64 {
        self.hit_ram + self.hit_nvme
    }

    /// All, in the order of their names.
    #[must_use]
    pub fn each(&self) -> [i64; 7] {
        [self.prompt, self.hit_ram, self.hit_nvme, self.attested, self.miss, self.written, self.output]
    }

    /// Of numbers in the order of the names.
    #[must_use]
    pub fn of([prompt, hit_ram, hit_nvme, attested, miss, written, output]: [i64; 7]) -> Self {
        Self { prompt, hit_ram, hit_nvme, attested, miss, written, output }
    }

    /// Whether the parts of the prompt are all of it.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.prompt == self.hit() + self.attested + self.miss
    }

    /// Whether nothing is below zero.
    #[must_use]
    pub fn is_of_usage(&self) -> bool {
        self.each().iter().all(|tokens| *tokens >= 0)
    }

    fn with(self, other: Self, op: fn(i64, i64) -> i64) -> Self {
        let other = other.each();
        let mut at = 0;
        Self::of(self.each().map(|tokens| {
            at += 1;
            op(tokens, other[at - 1])
        }))
    }

    /// As eight bytes each.
    pub(super) fn encode(&self, row: Writer) -> Writer {
        self.each().into_iter().fold(row, |row, tokens| row.u64(tokens.cast_unsigned()))
    }

    pub(super) fn decode(row: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut each = [0; 7];
        for tokens in &mut each {
            *tokens = row.u64()?.cast_signed();
        }
        Ok(Self::of(each))
    }
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.with(other, |one, other| one + other)
    }
}

impl Sub for Counts {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.with(other, |one, other| one - other)
    }
}

impl Neg for Counts {
    type Output = Self;
    fn neg(self) -> Self {
        Self::default() - self
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// As a count that may be taken back. More than 2⁶³ tokens, which no settle may have, are as many.
pub(super) fn signed(tokens: TokenCount) -> i64 {
    i64::try_from(tokens.get()).unwrap_or(i64::MAX)
}

/// As a count, where it is not below zero.
pub(super) fn count(tokens: i64) -> TokenCount {
    TokenCount(u64::try_from(tokens).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_together_and_arithmetic_is_by_kind() {
        let counts = Counts::of([15, 1, 2, 4, 8, 16, 32]);
        assert!(counts.adds_up() && counts.is_of_usage());
        assert_eq!((Counts::NAMES[1], counts.each()[1], counts.hit()), ("hit_tokens_ram", 1, 3));
        assert_eq!(counts + counts - counts, counts);
        assert_eq!((-counts + counts, (-counts).is_of_usage()), (Counts::default(), false));
        assert!(!Counts { miss: 9, ..counts }.adds_up());
        let bytes = (-counts).encode(Writer::default()).finish();
        assert_eq!(Counts::decode(&mut Reader::new(&bytes)), Ok(-counts));
    }
}
