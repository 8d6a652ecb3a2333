//! The right to read a block's slot on its drive. The planner keeps the slot until it ends, so it ends whatever becomes of
//! its holder: also one who has left before being told, as a fetch does whose time is up.

use super::driver::Driver;
use crate::plan::{Peek, Transfer};

/// The right to read one slot. Dropped, it ends as if nothing had been tried.
pub(super) struct PeekPermit {
    peek: Peek,
    driver: Driver,
    ended: bool,
}

impl PeekPermit {
    pub(super) fn new(peek: Peek, driver: Driver) -> Self {
        Self { peek, driver, ended: false }
    }

    /// What may be read.
    pub(super) fn peek(&self) -> Peek {
        self.peek
    }

    /// The read has ended so.
    pub(super) fn end(mut self, outcome: Transfer) {
        self.ended = true;
        self.driver.peeked(self.peek.block, outcome);
    }
}

impl Drop for PeekPermit {
    fn drop(&mut self) {
        if !self.ended {
            self.driver.peeked(self.peek.block, Transfer::Refused);
        }
    }
}
