//! For tests of this program only: makes one part panic, or one step wait, when the test says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// What goes wrong, and whether it does yet.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) part: String,
    armed: AtomicBool,
    waiting: Mutex<()>,
    changed: Condvar,
}

impl Fault {
    pub(super) fn new(part: &str) -> Self {
        let (armed, waiting, changed) = (AtomicBool::new(false), Mutex::default(), Condvar::new());
        Self { part: part.into(), armed, waiting, changed }
    }

    pub(super) fn arm(&self) {
        // Under the lock, so that nobody misses it between its look and its wait.
        let _waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.armed.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    pub(super) fn wait(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(waiting, |()| !self.is_armed()));
    }
}
