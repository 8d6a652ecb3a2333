//! Long work on a thread that has other tasks, too: copies of gigabytes are cut into turns.

use crate::vocab::limits::TURN_BYTES;

/// How much was done since others have had the thread.
#[derive(Debug, Default)]
pub(super) struct Turns {
    bytes: usize,
}

impl Turns {
    /// So many bytes were copied or checksummed.
    pub(super) fn took(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Lets other tasks have the thread, if this one has had it long enough. To be asked before the next work and not after
    /// the last, so that who is given up here has lost nothing.
    pub(super) async fn rest(&mut self) {
        if self.bytes >= TURN_BYTES {
            self.bytes = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn others_have_the_thread_after_every_turns_bytes_and_not_before() {
        let mut rested = 0;
        let work = async {
            let mut turns = Turns::default();
            for _ in 0..12 {
                turns.rest().await;
                turns.took(TURN_BYTES / 4);
            }
        };
        let mut work = pin!(work);
        while work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            rested += 1;
        }
        assert_eq!(rested, 2, "three turns have two rests between them");
    }
}
