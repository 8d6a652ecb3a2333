//! The wear budget: how much may be written to each drive a day, so that it lives as long as it was bought for.
//!
//! A bucket a drive that fills at the budget's rate and holds an hour of it: a burst of long prompts is written at once,
//! a day of them is not. Past it heads of chains are still written (they are shared the most), tails on second use only.

use crate::vocab::limits::WEAR_BURST;
use crate::vocab::{ByteCount, Timestamp};

const DAY_MS: u128 = 86_400_000;

/// What each drive may still be written.
#[derive(Clone, Debug)]
pub(super) struct Wear {
    per_day: Option<u64>,
    /// Bytes left for each drive; below 0 it is over.
    left: Vec<i128>,
    filled: Timestamp,
}

impl Wear {
    pub(super) fn new(per_day: Option<u64>, drives: u16) -> Self {
        let mut wear = Self { per_day, left: vec![0; drives.into()], filled: Timestamp(0) };
        let most = wear.most();
        wear.left.fill(most);
        wear
    }

    pub(super) fn is_limited(&self) -> bool {
        self.per_day.is_some()
    }

    fn most(&self) -> i128 {
        let share = u128::from(self.per_day.unwrap_or_default()) * WEAR_BURST.as_millis() / DAY_MS;
        i128::try_from(share).unwrap_or(i128::MAX)
    }

    /// Time passes: buckets fill.
    pub(super) fn fill(&mut self, now: Timestamp) {
        let Some(per_day) = self.per_day else { return };
        let earned = u128::from(per_day) * now.since(self.filled).as_millis() / DAY_MS;
        if earned == 0 {
            // The fraction of a byte is earned later.
            return;
        }
        self.filled = now;
        let (earned, most) = (i128::try_from(earned).unwrap_or(i128::MAX), self.most());
        self.left.iter_mut().for_each(|left| *left = left.saturating_add(earned).min(most));
    }

    /// Bytes are written to a drive.
    pub(super) fn spend(&mut self, drive: u16, bytes: ByteCount) {
        if self.per_day.is_some()
            && let Some(left) = self.left.get_mut(usize::from(drive))
        {
            *left -= i128::from(bytes.0);
        }
    }

    /// Whether the drive has been written all that it may for now.
    pub(super) fn is_over(&self, drive: u16) -> bool {
        self.per_day.is_some() && self.left.get(usize::from(drive)).is_none_or(|left| *left < 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_drive_takes_an_hour_of_its_budget_at_once_and_then_as_much_as_time_brings() {
        let mut wear = Wear::new(Some(24_000), 2);
        wear.fill(Timestamp(1));
        wear.spend(0, ByteCount(1_000));
        assert!(!wear.is_over(0));
        wear.spend(0, ByteCount(1));
        assert_eq!((wear.is_over(0), wear.is_over(1)), (true, false));
        wear.fill(Timestamp(1) + Duration::from_secs(3));
        assert!(wear.is_over(0), "not a whole byte yet");
        wear.fill(Timestamp(1) + Duration::from_secs(4));
        assert!(!wear.is_over(0), "what was earned in fractions is not lost");
        wear.fill(Timestamp(1) + Duration::from_secs(86_400 * 30));
        wear.spend(0, ByteCount(1_001));
        assert!(wear.is_over(0), "a quiet month is no licence for a burst");
    }

    #[test]
    fn without_a_budget_nothing_is_ever_over() {
        let mut wear = Wear::new(None, 1);
        wear.spend(0, ByteCount(u64::MAX));
        assert!(!wear.is_over(0) && !wear.is_limited());
    }
}
