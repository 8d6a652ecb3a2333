//! The threads that report what landed: a completion checks a payload or writes a row, and the ring must not wait for it.
//!
//! Two of them, so that a catalog that stalls its writers does not hold up reads. Neither line can be full: a job keeps
//! its place in the drive's queues until it was reported, and there are no more places than the lines have room.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::{io, iter};

use super::flights::Landed;
use super::inbox::Inbox;
use crate::vocab::limits::DEVICE_OPS;
use crate::watch::{Part, Watch};

/// Where the ring puts what landed.
pub(super) struct Reports {
    foreground: SyncSender<Landed>,
    background: SyncSender<Landed>,
}

impl Reports {
    /// Starts both threads, as parts of `watch`. They end when this is dropped and all was reported.
    pub(super) fn start(name: &str, inbox: &Arc<Inbox>, watch: &Watch) -> io::Result<(Self, [JoinHandle<()>; 2])> {
        let line = |end| {
            let (sender, receiver) = sync_channel(DEVICE_OPS);
            let inbox = Arc::clone(inbox);
            let part = watch.vital(format!("{name}-{end}"));
            let thread = thread::Builder::new().name(part.name());
            Ok::<_, io::Error>((sender, thread.spawn(move || part.run(|| report(&receiver, &inbox, &part)))?))
        };
        let ((foreground, first), (background, second)) = (line("done")?, line("wrote")?);
        Ok((Self { foreground, background }, [first, second]))
    }

    /// Has it reported.
    pub(super) fn send(&self, landed: Landed) {
        let line = if landed.io.background { &self.background } else { &self.foreground };
        // Fails only where the thread is gone, which it is not before this is dropped.
        if let Err(unsent) = line.send(landed) {
            let Landed { io, result, .. } = unsent.0;
            io.complete(result);
        }
    }
}

fn report(line: &Receiver<Landed>, inbox: &Inbox, part: &Part) {
    for Landed { io, weight, result } in iter::from_fn(|| line.recv().ok()) {
        part.beat();
        // One job's broken completion must not end the drive, and not be forgotten.
        part.attempt(|| io.complete(result));
        inbox.ended(weight);
    }
}
