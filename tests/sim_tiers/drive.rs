//! The drive: a queue whose jobs are served when the seed says, in any order, by a device that errs and lies; and what is
//! really on the disk, for whoever wants to judge.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use kvtier::media::{AlignedBuf, Buffer, Device, FaultyDevice, Io, MemDevice, Op};

const PAGE: usize = 4096;
/// Writes that a drive may hold in a cache that a power loss empties.
const CACHED: usize = 8;

/// The disk itself: what outlives the daemon.
pub(crate) struct Disk(pub(crate) Arc<MemDevice>);

/// What a write has replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    offset: u64,
    bytes: Vec<u8>,
}

/// A drive as a daemon opens it.
pub(crate) struct Drive {
    pub(crate) faulty: FaultyDevice,
    disk: Disk,
    room: usize,
    waiting: Mutex<Vec<Io>>,
    replaced: Mutex<VecDeque<Replaced>>,
}

impl Disk {
    pub(crate) fn of(size: u64) -> Self {
        Self(Arc::new(MemDevice::inline(size)))
    }

    fn again(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    pub(crate) fn read(&self, offset: u64, length: u32) -> Vec<u8> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&found);
        let done = Box::new(move |buffer: Buffer, result: std::io::Result<()>| {
            result.unwrap();
            to.lock().unwrap().extend_from_slice(&buffer.span().to_vec()[..length as usize]);
        });
        let buffer = Buffer::Heap(AlignedBuf::with_room_for(length));
        assert!(self.0.submit(Io::read(offset, length, buffer, done)).is_ok());
        std::mem::take(&mut *found.lock().unwrap())
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap();
        let mut buffer = AlignedBuf::with_room_for(length);
        buffer[..bytes.len()].copy_from_slice(bytes);
        let io = Io::write(offset, length, Buffer::Heap(buffer), Box::new(|_, result| result.unwrap()));
        assert!(self.0.submit(io).is_ok());
    }
}

impl Drive {
    /// At most `room` jobs wait.
    pub(crate) fn new(disk: &Disk, faulty: FaultyDevice, room: usize) -> Self {
        Self { faulty, disk: disk.again(), room, waiting: Mutex::default(), replaced: Mutex::default() }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().len()
    }

    /// Serves the job in this place of the queue; what it was.
    pub(crate) fn serve(&self, at: usize) -> String {
        let io = self.waiting.lock().unwrap().swap_remove(at);
        let what = format!("served: {io:?}");
        if io.op == Op::Write {
            self.remember(&io);
        }
        assert!(self.faulty.submit(io).is_ok(), "a drive in memory takes every job");
        what
    }

    fn remember(&self, io: &Io) {
        let mut replaced = self.replaced.lock().unwrap();
        if replaced.len() == CACHED {
            replaced.pop_front();
        }
        replaced.push_back(Replaced { offset: io.offset, bytes: self.disk.read(io.offset, io.length) });
    }

    /// The process is gone: jobs under way were served or not, or half; nobody is told. `fate` says it for each: how many
    /// of its pages were done.
    pub(crate) fn die(&self, mut fate: impl FnMut(Op, usize) -> usize) {
        for io in std::mem::take(&mut *self.waiting.lock().unwrap()) {
            let pages = io.length as usize / PAGE;
            let done = fate(io.op, pages).min(pages) * PAGE;
            if io.op == Op::Write && done > 0 {
                self.remember(&io);
                self.disk.write(io.offset, &io.buffer.span().to_vec()[..done]);
            }
        }
    }

    /// The power is gone: `fate` says of each write that the drive had not yet put away, the newest first, how many of its
    /// pages stay. What was written over by one that stays is not seen again.
    pub(crate) fn lose_power(&self, mut fate: impl FnMut(usize) -> usize) {
        let mut kept = BTreeSet::new();
        for Replaced { offset, bytes } in self.replaced.lock().unwrap().drain(..).rev() {
            let stays = fate(bytes.len() / PAGE);
            for (nth, page) in bytes.chunks_exact(PAGE).enumerate() {
                let at = offset + (nth * PAGE) as u64;
                if nth < stays {
                    kept.insert(at);
                } else if !kept.contains(&at) {
                    self.disk.write(at, page);
                }
            }
        }
    }
}

impl Device for Drive {
    fn submit(&self, io: Io) -> Result<(), Io> {
        let mut waiting = self.waiting.lock().unwrap();
        if waiting.len() >= self.room {
            return Err(io);
        }
        waiting.push(io);
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn size(&self) -> u64 {
        self.disk.0.size()
    }

    fn stop(&self) {}
}
