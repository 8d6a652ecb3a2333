//! Troubles that can come with every block, told once in a while with how many were kept back: a disk that fails must not
//! fill another one with lines. How many there were is in the counters.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::vocab::limits::COMPLAIN_EVERY;
use crate::vocab::{BlockKey, SlotId};

/// One kind of trouble.
#[derive(Debug, Default)]
struct Complaint(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    kept_back: u64,
}

/// The troubles.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    unwritten: Complaint,
    lost: Complaint,
    undeleted: Complaint,
    unmended: Complaint,
}

impl Complaint {
    /// How many were kept back since the last one that was told, where this one is to be told.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.duration_since(last) < COMPLAIN_EVERY) {
            told.kept_back += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.kept_back))
    }
}

impl Complaints {
    pub(super) fn unwritten(&self, key: &BlockKey, slot: SlotId, error: &dyn Display) {
        if let Some(kept_back) = self.unwritten.due(Instant::now()) {
            tracing::warn!(%key, %slot, %error, kept_back, "a block could not be written: it stays in RAM only");
        }
    }

    pub(super) fn lost(&self, key: &BlockKey, slot: SlotId, error: &dyn Display) {
        if let Some(kept_back) = self.lost.due(Instant::now()) {
            tracing::warn!(%key, %slot, %error, kept_back, "a block is lost: served as a miss");
        }
    }

    pub(super) fn undeleted(&self, key: &BlockKey, slot: SlotId, error: &dyn Display) {
        if let Some(kept_back) = self.undeleted.due(Instant::now()) {
            tracing::error!(%key, %slot, %error, kept_back, "a row could not be deleted: its slot is not used until it is");
        }
    }

    pub(super) fn unmended(&self, error: &dyn Display) {
        if let Some(kept_back) = self.unmended.due(Instant::now()) {
            tracing::error!(%error, kept_back, "the catalog can't be written: nothing comes to the drives until it can");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_many_troubles_the_first_is_told_and_later_one_with_how_many_came_between() {
        let (complaint, begin) = (Complaint::default(), Instant::now());
        let told = (0..10_000).filter_map(|nth| complaint.due(begin + Duration::from_micros(nth)));
        assert_eq!(told.collect::<Vec<_>>(), [0]);
        assert_eq!(complaint.due(begin + COMPLAIN_EVERY), Some(9_999));
        assert_eq!(complaint.due(begin + 2 * COMPLAIN_EVERY), Some(0));
    }
}
