//! A drive that remembers what was written to it, and how much the index's log held by then; and that log, batch by batch.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kvtier::media::{Device, Io, MemDevice, Op};

/// A write as it reached the drive.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the index's log before it.
    pub(crate) log: usize,
}

/// Carries out every job before `submit` returns, on the thread that submits it.
pub(crate) struct Recording {
    drive: MemDevice,
    index: PathBuf,
    writes: Arc<Mutex<Vec<Written>>>,
}

impl Recording {
    /// A drive of `size` bytes beside the index in the folder `index`.
    pub(crate) fn new(size: u64, index: &Path) -> Self {
        Self { drive: MemDevice::inline(size), index: index.into(), writes: Arc::default() }
    }

    pub(crate) fn writes(&self) -> Arc<Mutex<Vec<Written>>> {
        Arc::clone(&self.writes)
    }
}

impl Device for Recording {
    fn submit(&self, io: Io) -> Result<(), Io> {
        if io.op == Op::Write {
            let bytes = io.buffer.span().part(0, io.length as usize).unwrap().to_vec();
            let log = log_of(&self.index).metadata().unwrap().len() as usize;
            self.writes.lock().unwrap().push(Written { offset: io.offset, bytes, log });
        }
        self.drive.submit(io)
    }

    fn kind(&self) -> &'static str {
        "recording"
    }

    fn size(&self) -> u64 {
        self.drive.size()
    }

    fn stop(&self) {
        self.drive.stop();
    }
}

/// The write-ahead log of a database that has only one: all of the run is in it.
pub(crate) fn log_of(index: &Path) -> PathBuf {
    let files = std::fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path());
    let mut logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
    let log = logs.next().expect("the index has a log");
    assert!(logs.next().is_none(), "the index has one log: the script is short");
    log
}

/// Where each batch of a log ends. The format is that of RocksDB's wiki, "Write Ahead Log File Format": blocks of 32 KiB,
/// in which a record, or a part of one, follows a checksum, its length and its kind.
pub(crate) fn batches(log: &[u8]) -> Vec<usize> {
    const BLOCK: usize = 32_768;
    const HEADER: usize = 7;
    const WHOLE: u8 = 1;
    const LAST: u8 = 4;
    let (mut at, mut ends) = (0, Vec::new());
    while at + HEADER <= log.len() {
        if BLOCK - at % BLOCK < HEADER {
            at = at.next_multiple_of(BLOCK);
            continue;
        }
        let (length, kind) = (usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]])), log[at + 6]);
        assert!((WHOLE..=LAST).contains(&kind), "a record of kind {kind}, which no log of ours has");
        at += HEADER + length;
        if matches!(kind, WHOLE | LAST) {
            ends.push(at);
        }
    }
    assert_eq!(ends.last(), Some(&log.len()), "the log ends with a whole batch");
    ends
}
