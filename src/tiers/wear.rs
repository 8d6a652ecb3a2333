//! What a drive has been written: in all since the store was begun, and in each of the last 24 hours.

use crate::vocab::limits::WEAR_HOURS;

/// The version of the encoding.
const VERSION: u8 = 1;
const ENCODED: usize = 1 + 8 + 4 + 8 * WEAR_HOURS;

/// Bytes written to one drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wear {
    total: u64,
    /// Hours since 1970 of the newest bin.
    hour: u32,
    /// Hour `h` is in bin `h % 24`.
    bins: [u64; WEAR_HOURS],
}

impl Wear {
    /// Bytes were written in this hour since 1970. What a clock that went back calls an earlier hour is the newest one.
    pub fn add(&mut self, hour: u32, bytes: u64) {
        if hour > self.hour {
            let passed = (hour - self.hour).min(WEAR_HOURS as u32);
            for gone in 0..passed {
                self.bins[bin(hour - gone)] = 0;
            }
            self.hour = hour;
        }
        self.total = self.total.saturating_add(bytes);
        let bin = &mut self.bins[bin(self.hour)];
        *bin = bin.saturating_add(bytes);
    }

    /// Bytes since the store was begun.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of this hour and the 23 before it.
    #[must_use]
    pub fn day(&self, hour: u32) -> u64 {
        let back = 0..WEAR_HOURS as u32;
        let recent = back.filter_map(|back| self.hour.checked_sub(back)).filter(|own| own + WEAR_HOURS as u32 > hour);
        recent.map(|hour| self.bins[bin(hour)]).fold(0, u64::saturating_add)
    }

    /// As it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENCODED);
        bytes.push(VERSION);
        bytes.extend(self.total.to_le_bytes());
        bytes.extend(self.hour.to_le_bytes());
        bytes.extend(self.bins.iter().flat_map(|bin| bin.to_le_bytes()));
        bytes
    }

    /// What was stored; `None` for what was not stored by this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(&[VERSION]).filter(|_| bytes.len() == ENCODED)?;
        let (total, bytes) = bytes.split_first_chunk()?;
        let (hour, bytes) = bytes.split_first_chunk()?;
        let mut wear = Self { total: u64::from_le_bytes(*total), hour: u32::from_le_bytes(*hour), ..Self::default() };
        for (bin, bytes) in wear.bins.iter_mut().zip(bytes.as_chunks().0) {
            *bin = u64::from_le_bytes(*bytes);
        }
        Some(wear)
    }
}

fn bin(hour: u32) -> usize {
    hour as usize % WEAR_HOURS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_the_last_24_hours_and_the_total_forgets_nothing() {
        let mut wear = Wear::default();
        for hour in 1_000..1_100 {
            wear.add(hour, 1);
            wear.add(hour, u64::from(hour));
        }
        let day = |hour: u64| (hour - 23..=hour).map(|hour| hour + 1).sum::<u64>();
        assert_eq!((wear.total(), wear.day(1_099)), ((1_000..1_100_u64).map(|hour| hour + 1).sum(), day(1_099)));
        assert_eq!(wear.day(1_100), day(1_099) - 1_077, "an hour without a write takes the oldest along");
        assert_eq!((wear.day(1_122), wear.day(1_123), wear.day(u32::MAX - 99)), (1_100, 0, 0));
        wear.add(1_200, 5);
        assert_eq!((wear.day(1_200), wear.day(1_223), wear.day(1_224)), (5, 5, 0), "a pause leaves nothing of before");
    }

    #[test]
    fn a_clock_that_goes_back_loses_no_byte() {
        let mut wear = Wear::default();
        wear.add(1_000, 7);
        wear.add(990, 2);
        assert_eq!((wear.total(), wear.day(1_000), wear.day(990)), (9, 9, 9));
        wear.add(1_001, 1);
        assert_eq!(wear.day(1_001), 10);
    }

    #[test]
    fn what_is_stored_comes_back_and_nothing_else_does() {
        let mut wear = Wear::default();
        (5_000..5_030).for_each(|hour| wear.add(hour, u64::MAX >> 8 >> (hour % 8)));
        let bytes = wear.encode();
        assert_eq!(Wear::decode(&bytes), Some(wear));
        assert_eq!(Wear::decode(&bytes[1..]), None);
        assert_eq!(Wear::decode(&[&[2], &bytes[1..]].concat()), None);
        assert_eq!(Wear::decode(&[]), None);
    }
}
