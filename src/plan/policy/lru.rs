//! Least recently used.

use super::queues::Queues;
use super::{Ask, Heat, Policy, Use, Visit};
use crate::vocab::limits::REQUEST_BLOCKS_MAX;

/// How many blocks that can't go are passed over before giving up: one leased chain of the greatest length. More in a row
/// mean that nearly everything is pinned.
pub(super) const PASSED_OVER_MAX: usize = REQUEST_BLOCKS_MAX;

/// A queue a list, in the order of use.
#[derive(Debug, Default)]
pub(super) struct Lru {
    queues: Queues<1>,
}

impl Lru {
    const fn queue(list: u16) -> u32 {
        Queues::<1>::of(list, 0)
    }

    /// As [`Policy::insert`].
    pub(super) fn enter(&mut self, list: u16, block: u32, heat: Heat) {
        match heat {
            Heat::Hot => self.queues.link_hot(Self::queue(list), block),
            Heat::Cold => self.queues.link_cold(Self::queue(list), block),
        }
    }

    /// As [`Policy::touch`].
    pub(super) fn warm(&mut self, list: u16, block: u32) {
        self.queues.warm(Self::queue(list), block);
    }

    /// As [`Policy::remove`].
    pub(super) fn leave(&mut self, block: u32) {
        self.queues.unlink(block);
    }
}

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat, _ask: Ask<'_>, _visit: &Visit) {
        self.enter(list, block, heat);
    }

    fn touch(&mut self, list: u16, block: u32, _ask: Ask<'_>, _why: Use) {
        self.warm(list, block);
    }

    fn chill(&mut self, list: u16, block: u32) {
        self.queues.chill(Self::queue(list), block);
    }

    fn remove(&mut self, block: u32, _ask: Ask<'_>) {
        self.leave(block);
    }

    fn oldest(&self, list: u16) -> Option<u32> {
        self.queues.coldest(Self::queue(list))
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let queue = Self::queue(list);
        let coldest = self.queues.coldest(queue)?;
        let mut block = coldest;
        for passed in 0..PASSED_OVER_MAX {
            // Having passed over all of them has changed nothing: they are in the order in which they were.
            if passed > 0 && block == coldest {
                return None;
            }
            if evictable(block) {
                return Some(block);
            }
            // What can't go now is protected by a use that has not ended. Counting it as used keeps this search short
            // for the next caller.
            let hotter = self.queues.hotter(block);
            self.queues.warm(queue, block);
            block = hotter.unwrap_or(coldest);
        }
        None
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        self.queues.relist(Self::queue(from), Self::queue(to), moves);
    }

    fn bytes(&self) -> usize {
        self.queues.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lru: &mut Lru) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(block) = lru.victim(0, &mut |_| true) {
            lru.leave(block);
            order.push(block);
        }
        order
    }

    #[test]
    fn the_least_recent_goes_first_and_cold_ones_before_it() {
        let mut lru = Lru::default();
        for block in 0..4 {
            lru.enter(0, block, Heat::Hot);
        }
        lru.enter(0, 9, Heat::Cold);
        lru.warm(0, 1);
        lru.chill(0, 3);
        assert_eq!(order(&mut lru), [3, 9, 0, 2, 1]);
    }

    #[test]
    fn lists_of_one_tier_do_not_see_each_other() {
        let mut lru = Lru::default();
        for block in 0..6 {
            lru.enter((block % 2) as u16, block, Heat::Hot);
        }
        lru.warm(1, 1);
        assert_eq!(lru.victim(1, &mut |_| true), Some(3));
        assert_eq!(order(&mut lru), [0, 2, 4]);
    }

    #[test]
    fn blocks_change_lists_in_their_order() {
        let mut lru = Lru::default();
        (0..6).for_each(|block| lru.enter(1, block, Heat::Hot));
        lru.warm(1, 2);
        lru.relist(1, 0, &mut |block| block % 2 == 0);
        assert_eq!(lru.victim(1, &mut |_| true), Some(1));
        assert_eq!(order(&mut lru), [0, 4, 2]);
    }

    #[test]
    fn what_may_not_go_is_passed_over() {
        let mut lru = Lru::default();
        for block in 0..4 {
            lru.enter(0, block, Heat::Hot);
        }
        assert_eq!(lru.victim(0, &mut |block| block >= 2), Some(2));
        assert_eq!(order(&mut lru), [2, 3, 0, 1]);
    }

    #[test]
    fn a_leased_chain_of_any_length_does_not_hide_what_may_go() {
        let (mut lru, leased) = (Lru::default(), u32::try_from(REQUEST_BLOCKS_MAX).unwrap() - 1);
        (0..=leased).for_each(|block| lru.enter(0, block, Heat::Hot));
        assert_eq!(lru.victim(0, &mut |block| block >= leased), Some(leased));
    }

    #[test]
    fn a_search_in_vain_asks_once_and_changes_nothing() {
        for blocks in 0..5 {
            let mut lru = Lru::default();
            (0..blocks).for_each(|block| lru.enter(0, block, Heat::Hot));
            let mut asked = Vec::new();
            let mut never = |block| {
                asked.push(block);
                false
            };
            assert_eq!(lru.victim(0, &mut never), None);
            assert_eq!(asked, (0..blocks).collect::<Vec<_>>());
            assert_eq!(order(&mut lru), asked);
        }
    }
}
