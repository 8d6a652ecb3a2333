//! Sessions, one after the other: each file is read when its first request may be the next, so that no more of them are in memory than
//! overlap in time.

use std::collections::{BinaryHeap, VecDeque};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::mooncake::{TraceError, TraceFault};
use super::open::{TraceOptions, open_file};
use super::requests::{Input, Waiting, Watch};
use super::{TraceRequest, line, sessions};
use crate::vocab::limits::SESSION_BYTES_MAX;

/// The requests of sessions, in order of time.
pub(super) struct SessionFiles {
    name: String,
    files: VecDeque<PathBuf>,
    every_ms: u64,
    said: Option<u32>,
    watch: Watch,
    begun: u64,
    nth: u64,
    found_one: bool,
    block: Option<(u32, String)>,
    waiting: BinaryHeap<Waiting>,
}

/// The files of a folder of sessions, by name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, TraceFault> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(TraceFault::Unreadable)? {
        let path = entry.map_err(TraceFault::Unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if [".json", ".json.gz", ".json.zst"].iter().any(|end| name.ends_with(end)) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(TraceFault::Empty) } else { Ok(files) }
}

impl SessionFiles {
    /// Of these files.
    pub(super) fn new(name: &str, files: Vec<PathBuf>, options: &TraceOptions, watch: Watch) -> Self {
        Self {
            name: name.to_owned(),
            files: files.into(),
            every_ms: options.session_every_ms,
            said: options.block_tokens,
            watch,
            begun: 0,
            nth: 0,
            found_one: false,
            block: None,
            waiting: BinaryHeap::new(),
        }
    }

    /// Tokens of a block: the first session says so.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn block_tokens(&mut self) -> Result<u32, TraceError> {
        if self.block.is_none() {
            self.read_next()?;
        }
        let empty = || TraceError { trace: self.name.clone(), line: 0, fault: TraceFault::Empty };
        self.block.as_ref().map(|(block, _)| *block).ok_or_else(empty)
    }

    fn read_next(&mut self) -> Result<(), TraceError> {
        let Some(path) = self.files.pop_front() else { return Ok(()) };
        let name = path.display().to_string();
        let input = open_file(&path, &self.watch)?;
        self.add(input, &name)
    }

    /// Takes in one session.
    ///
    /// # Errors
    /// Names the session.
    pub(super) fn add(&mut self, input: Input, name: &str) -> Result<(), TraceError> {
        let refused = |fault| TraceError { trace: name.to_owned(), line: 0, fault };
        let mut bytes = Vec::new();
        let read = input.take(SESSION_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| refused(TraceFault::Unreadable(error)))?;
        if bytes.len() as u64 > SESSION_BYTES_MAX {
            return Err(refused(TraceFault::LongSession));
        }
        let file = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        let (block, requests) = sessions::parse(&bytes, &file, self.begins()).map_err(refused)?;
        if let Some(said) = self.said.filter(|said| *said != block) {
            return Err(refused(TraceFault::OtherBlockTokens { said, block }));
        }
        let (known, first) = self.block.get_or_insert_with(|| (block, name.to_owned()));
        if *known != block {
            let rule = format!("the same in all sessions: it is {known} in {first}");
            return Err(refused(line::field("block_size", &block, &rule)));
        }
        self.begun += 1;
        for request in requests {
            self.waiting.push(Waiting { request, nth: self.nth });
            self.nth += 1;
        }
        Ok(())
    }

    /// When the next session begins.
    fn begins(&self) -> u64 {
        self.begun.saturating_mul(self.every_ms)
    }

    fn pull(&mut self) -> Result<Option<TraceRequest>, TraceError> {
        // A later session's request of the same time comes after.
        while self.waiting.peek().is_none_or(|next| next.request.timestamp_ms > self.begins()) && !self.files.is_empty()
        {
            self.read_next()?;
        }
        match self.waiting.pop() {
            Some(next) => {
                self.found_one = true;
                Ok(Some(next.request))
            }
            None if self.found_one => Ok(None),
            None => Err(TraceError { trace: self.name.clone(), line: 0, fault: TraceFault::Empty }),
        }
    }
}

impl Iterator for SessionFiles {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let pulled = self.pull();
        if pulled.is_err() {
            // It ends after an error.
            self.files.clear();
            self.waiting.clear();
            self.found_one = true;
        }
        pulled.transpose()
    }
}
