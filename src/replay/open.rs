//! Opening a trace: from a file, a folder or standard input, compressed or not, in whichever format it is.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::mooncake::{TraceError, TraceFault, TraceReader};
use super::{Trace, TraceRequest, sessions};
use crate::vocab::limits::{SESSION_BYTES_MAX, TRACE_READ_BYTES};

/// A format that traces come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// Mooncake's: lines of JSON, milliseconds, ids of whole prefixes.
    Mooncake,
    /// Alibaba's usage traces: lines of JSON, seconds, chats.
    Bailian,
    /// kv-cache-tester's: a file of JSON a session, a folder of them a trace.
    Sessions,
}

impl TraceFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mooncake, Self::Bailian, Self::Sessions];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mooncake => "mooncake",
            Self::Bailian => "bailian",
            Self::Sessions => "sessions",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Tokens of a block where nobody says otherwise: those of the published files.
    #[must_use]
    pub const fn block_tokens(self) -> u32 {
        match self {
            Self::Mooncake => 512,
            Self::Bailian => 16,
            Self::Sessions => 64,
        }
    }

    /// By what only one of them has in its first bytes.
    fn of(head: &[u8]) -> Self {
        let has = |word: &[u8]| head.windows(word.len()).any(|part| part == word);
        match (has(b"\"chat_id\""), has(b"\"requests\"") || has(b"\"block_size\"")) {
            (true, _) => Self::Bailian,
            (false, true) => Self::Sessions,
            (false, false) => Self::Mooncake,
        }
    }
}

/// How to read a trace; what is absent is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// Its format.
    pub format: Option<TraceFormat>,
    /// Tokens of a block; sessions say so themselves.
    pub block_tokens: Option<u32>,
    /// Milliseconds from the start of one session of a folder to the start of the next: the files don't say when they began.
    pub session_every_ms: u64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { format: None, block_tokens: None, session_every_ms: 60_000 }
    }
}

/// Reads a whole trace from the file or folder at `path`, or from standard input where it is `-`. Files may be gzip or zstd.
///
/// # Errors
/// When it can't be read, is empty, or a line breaks a rule; the message names file, line, field, value and rule.
pub fn read_trace(path: &Path, options: &TraceOptions) -> Result<Trace, TraceError> {
    let name = path.display().to_string();
    let named = |fault| TraceError { trace: name.clone(), line: 0, fault };
    if path == Path::new("-") {
        return read(Box::new(io::stdin().lock()), "standard input", options);
    }
    if path.is_dir() {
        return read_sessions(&files(path).map_err(named)?, options);
    }
    let file = File::open(path).map_err(|error| named(TraceFault::Unreadable(error)))?;
    read(Box::new(BufReader::with_capacity(TRACE_READ_BYTES, file)), &name, options)
}

fn read(packed: Box<dyn BufRead>, name: &str, options: &TraceOptions) -> Result<Trace, TraceError> {
    let unreadable = |error| TraceError { trace: name.to_owned(), line: 0, fault: TraceFault::Unreadable(error) };
    let mut input = unpacked(packed).map_err(unreadable)?;
    let format = match options.format {
        Some(format) => format,
        None => TraceFormat::of(input.fill_buf().map_err(unreadable)?),
    };
    if format == TraceFormat::Sessions {
        let mut sessions = Sessions::default();
        sessions.add(&mut input, name, options)?;
        return sessions.trace(name);
    }
    let block_tokens = options.block_tokens.unwrap_or(format.block_tokens());
    Trace::try_collect(block_tokens, TraceReader::of(input, format, block_tokens).named(name))
}

/// What is in it, whatever it is packed in.
fn unpacked(mut packed: Box<dyn BufRead>) -> io::Result<Box<dyn BufRead>> {
    let unpacked: Box<dyn Read> = match packed.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(packed)?),
        _ => return Ok(packed),
    };
    Ok(Box::new(BufReader::with_capacity(TRACE_READ_BYTES, unpacked)))
}

/// The files of a folder of sessions, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, TraceFault> {
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

fn read_sessions(files: &[PathBuf], options: &TraceOptions) -> Result<Trace, TraceError> {
    let mut sessions = Sessions::default();
    let mut folder = String::new();
    for path in files {
        let name = path.display().to_string();
        let unreadable = |error| TraceError { trace: name.clone(), line: 0, fault: TraceFault::Unreadable(error) };
        let file = File::open(path).map_err(unreadable)?;
        let mut input = unpacked(Box::new(BufReader::with_capacity(TRACE_READ_BYTES, file))).map_err(unreadable)?;
        sessions.add(&mut input, &name, options)?;
        folder = path.parent().unwrap_or(path).display().to_string();
    }
    sessions.trace(&folder)
}

/// Sessions, one after the other.
#[derive(Default)]
struct Sessions {
    begun: u64,
    requests: Vec<TraceRequest>,
    sizes: HashMap<u32, String>,
}

impl Sessions {
    fn add(&mut self, input: &mut dyn Read, name: &str, options: &TraceOptions) -> Result<(), TraceError> {
        let refused = |fault| TraceError { trace: name.to_owned(), line: 0, fault };
        let mut bytes = Vec::new();
        let read = input.take(SESSION_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| refused(TraceFault::Unreadable(error)))?;
        if bytes.len() as u64 > SESSION_BYTES_MAX {
            return Err(refused(TraceFault::LongSession));
        }
        let start_ms = self.begun.saturating_mul(options.session_every_ms);
        let file = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        let (block, requests) = sessions::parse(&bytes, &file, start_ms).map_err(refused)?;
        if options.block_tokens.is_some_and(|said| said != block) {
            return Err(refused(TraceFault::OtherBlockTokens { said: options.block_tokens.unwrap_or(block), block }));
        }
        self.begun += 1;
        self.sizes.entry(block).or_insert_with(|| name.to_owned());
        self.requests.extend(requests);
        Ok(())
    }

    fn trace(self, name: &str) -> Result<Trace, TraceError> {
        let refused = |fault| TraceError { trace: name.to_owned(), line: 0, fault };
        let block_tokens = sessions::one_size(&self.sizes).map_err(refused)?;
        if self.requests.is_empty() {
            return Err(refused(TraceFault::Empty));
        }
        Ok(Trace::collect(block_tokens, self.requests))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::replay::TraceInfo;

    const MOONCAKE: &str = r#"{"timestamp": 3, "input_length": 513, "output_length": 7, "hash_ids": [4, 9]}"#;
    const BAILIAN: &str = r#"{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 33, "output_length": 7, "type": "text", "turn": 1, "hash_ids": [4, 9]}"#;
    const SESSION: &str = r#"{"block_size": 64, "requests": [{"t": 1, "in": 130, "out": 7, "hash_ids": [4, 9]}, {"t": 2, "in": 192, "out": 1, "hash_ids": [4, 9, 5]}]}"#;

    fn gzip(text: &str) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    fn of(bytes: &[u8], options: &TraceOptions) -> Result<Trace, TraceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        fs::write(&path, bytes).unwrap();
        read_trace(&path, options)
    }

    #[test]
    fn a_format_is_found_out_whatever_it_is_packed_in() {
        for (text, block_tokens, requests) in [(MOONCAKE, 512, 1), (BAILIAN, 16, 1), (SESSION, 64, 2)] {
            let plain = of(text.as_bytes(), &TraceOptions::default()).unwrap();
            assert_eq!((plain.block_tokens(), plain.len()), (block_tokens, requests));
            let zstd = zstd::encode_all(text.as_bytes(), 0).unwrap();
            // Files that were packed one after the other are one.
            let twice = if requests == 1 { [gzip(text), gzip("\n")].concat() } else { gzip(text) };
            for packed in [zstd, twice] {
                assert_eq!(of(&packed, &TraceOptions::default()).unwrap(), plain);
            }
        }
        let said = TraceOptions { block_tokens: Some(257), ..TraceOptions::default() };
        assert_eq!(of(MOONCAKE.as_bytes(), &said).unwrap().block_tokens(), 257);
    }

    #[test]
    fn sessions_of_a_folder_begin_one_after_the_other_and_share_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.json"), SESSION).unwrap();
        fs::write(folder.path().join("a.json.gz"), gzip(SESSION)).unwrap();
        fs::write(folder.path().join("notes.txt"), "no session").unwrap();
        let options = TraceOptions { session_every_ms: 1_500, ..TraceOptions::default() };
        let trace = read_trace(folder.path(), &options).unwrap();
        let times: Vec<u64> = trace.requests().map(|request| request.timestamp_ms).collect();
        assert_eq!(times, [1_000, 2_000, 2_500, 3_500]);
        let info = TraceInfo::of(&trace);
        assert_eq!((info.distinct_blocks, info.misplaced_references, info.block_tokens), (6, 0, 64));
        fs::write(
            folder.path().join("c.json"),
            SESSION.replace("64,", "16,").replace("192", "48").replace("130", "33"),
        )
        .unwrap();
        let mixed = read_trace(folder.path(), &options).unwrap_err().to_string();
        assert!(mixed.contains("block_size is 64 in") && mixed.contains("it is 16 in"), "{mixed}");
    }

    #[test]
    fn what_can_not_be_read_says_where_and_why() {
        let said = |bytes: &[u8], options: &TraceOptions| of(bytes, options).unwrap_err().to_string();
        let forced = |format| TraceOptions { format: Some(format), ..TraceOptions::default() };
        assert!(said(MOONCAKE.as_bytes(), &forced(TraceFormat::Bailian)).contains("line 1: hash_ids is 2 ids"));
        assert!(said(MOONCAKE.as_bytes(), &forced(TraceFormat::Sessions)).contains("is not JSON: missing field"));
        let other = TraceOptions { block_tokens: Some(16), ..TraceOptions::default() };
        assert!(said(SESSION.as_bytes(), &other).contains("block_tokens is 16, it must be 64, as the session says"));
        let cut = gzip(MOONCAKE);
        assert!(said(&cut[..cut.len() - 9], &TraceOptions::default()).contains("can't be read: "));
        let empty = tempfile::tempdir().unwrap();
        let nothing = read_trace(empty.path(), &TraceOptions::default()).unwrap_err().to_string();
        assert!(nothing.ends_with("is empty, it must have at least one request"), "{nothing}");
        assert!(TraceFormat::ALL.into_iter().all(|format| TraceFormat::from_name(format.name()) == Some(format)));
    }
}
