//! The recording of lookups (`kvtier serve --record`): one thread, which writes what the cache tells it.
//!
//! A recording has no tokens and no keys. An id is 64 bits of a block's key, hashed under 32 random bytes that live as long as the
//! recording and are written nowhere: nobody can try a prompt against the file, and two recordings have no id in common. Namespaces and
//! tenants are numbered as they come. What it does show: when requests came, how long they were, and which of them share how much.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::run::StartError;
use crate::cache::record::{Asker, Heard, LookedUp, Outcome, Recorded, Recorder, recording};
use crate::replay::recording::{RecordLine, write_header, write_output, write_record};
use crate::vocab::limits::{ACCOUNTS_MAX, RECORD_FLUSH_EVERY, RECORD_REMEMBERED, REQUEST_BLOCKS_MAX};
use crate::vocab::{BlockKey, ByteCount, Clock, Timestamp};
use crate::watch::{Part, Watch};

/// Recordings of one name before somebody should look.
const NAMES_MAX: u32 = 10_000;
/// How often the log says that lookups were not recorded.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Begins a recording in a new file; what tells it, and its thread, which ends when the cache is gone.
pub(super) fn start(
    path: &Path,
    bytes_max: ByteCount,
    clock: &dyn Clock,
    watch: &Watch,
) -> Result<(Recorder, JoinHandle<()>), StartError> {
    let refused = |why| StartError::Record { path: path.to_owned(), why };
    let (file, path) = create(path).map_err(refused)?;
    let written = Arc::<AtomicU64>::default();
    let began = clock.now();
    let file = Counted { file, written: Arc::clone(&written) };
    let out = open(file, &path, began).map_err(refused)?;
    let (recorder, recorded) = recording();
    let book = Book { salt: rand::random(), began, known: known(), numbers: Numbers::default(), next: 0 };
    let writer = Writer { out: Some(out), written, bytes_max, path: path.clone(), book, recorded };
    let part = watch.optional("record");
    let thread = std::thread::Builder::new().name(part.name());
    let thread = thread.spawn(move || part.run(|| writer.run(&part))).map_err(refused)?;
    tracing::info!(path = %path.display(), most = %bytes_max, "lookups are recorded");
    Ok((recorder, thread))
}

/// A file that was not there: `name`, or `name-2` and so on, with the number before what the name ends with.
fn create(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ends) =
        name.split_once('.').map_or((name.as_str(), String::new()), |(stem, ends)| (stem, format!(".{ends}")));
    for number in 1..=NAMES_MAX {
        let numbered =
            if number == 1 { path.to_owned() } else { path.with_file_name(format!("{stem}-{number}{ends}")) };
        // Who reads it sees how much users have in common: it is for its owner.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&numbered) {
            Ok(file) => return Ok((file, numbered)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

type Out = Box<dyn Write + Send>;

fn open(file: Counted, path: &Path, began: Timestamp) -> io::Result<Out> {
    let is_packed = path.extension().is_some_and(|end| end == "zst");
    let mut out: Out =
        if is_packed { Box::new(zstd::Encoder::new(file, 0)?.auto_finish()) } else { Box::new(BufWriter::new(file)) };
    write_header(&mut out, began.0)?;
    out.flush()?;
    Ok(out)
}

/// A file, and how much was written to it.
struct Counted {
    file: File,
    written: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Writer {
    /// Until the recording is full, or can't be written.
    out: Option<Out>,
    written: Arc<AtomicU64>,
    bytes_max: ByteCount,
    path: PathBuf,
    book: Book,
    recorded: Recorded,
}

impl Writer {
    fn run(mut self, part: &Part) {
        let (mut flushed, mut warned, mut dropped) = (Instant::now(), None::<Instant>, 0);
        let mut dirty = false;
        loop {
            let heard = self.recorded.from().recv_timeout(RECORD_FLUSH_EVERY);
            part.beat();
            let is_over = matches!(heard, Err(RecvTimeoutError::Disconnected));
            if let Ok(heard) = heard {
                self.hear(&heard);
                dirty = true;
            }
            if dirty && (is_over || flushed.elapsed() >= RECORD_FLUSH_EVERY) {
                self.attempt(|out, _| out.flush());
                (flushed, dirty) = (Instant::now(), false);
            }
            let now = self.recorded.dropped();
            if self.out.is_some() && now > dropped && warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
                tracing::warn!(
                    requests = now - dropped,
                    "lookups were not recorded: they came faster than they are written"
                );
                (warned, dropped) = (Some(Instant::now()), now);
            }
            if is_over {
                return;
            }
        }
    }

    fn hear(&mut self, heard: &Heard) {
        match heard {
            Heard::LookedUp(lookup) => {
                let mut outcome = Outcome::Dropped;
                self.attempt(|out, book| {
                    outcome = book.looked_up(out, lookup)?;
                    Ok(())
                });
                let outcome = if self.out.is_none() { Outcome::Dropped } else { outcome };
                self.recorded.done(lookup, outcome);
            }
            Heard::Output(asker, tokens) => self.attempt(|out, book| book.output(out, *asker, *tokens)),
            Heard::Over(asker) => self.book.over(*asker),
            Heard::Gone(instance) => self.book.gone(*instance),
        }
    }

    /// Does it unless the recording has ended; ends it when it fails, or is as large as it may be.
    fn attempt(&mut self, job: impl FnOnce(&mut Out, &mut Book) -> io::Result<()>) {
        let Some(out) = &mut self.out else { return };
        let path = self.path.display();
        if let Err(error) = job(out, &mut self.book) {
            tracing::error!(%path, %error, "the recording ends: it can't be written");
            self.out = None;
        } else if self.written.load(Ordering::Relaxed) >= self.bytes_max.0 {
            tracing::warn!(%path, most = %self.bytes_max, "the recording ends: it is as large as it may be (--record-max)");
            self.out = None;
        }
    }
}

/// A request that has its line.
struct Line {
    number: u64,
    /// The next lookup of its name is another request.
    over: bool,
}

/// What a recording knows of requests.
struct Book {
    salt: [u8; 32],
    began: Timestamp,
    known: LruCache<Asker, Line>,
    numbers: Numbers,
    next: u64,
}

fn known() -> LruCache<Asker, Line> {
    LruCache::new(NonZeroUsize::new(RECORD_REMEMBERED).unwrap_or(NonZeroUsize::MIN))
}

impl Book {
    fn looked_up(&mut self, out: &mut Out, lookup: &LookedUp) -> io::Result<Outcome> {
        if self.known.get(&lookup.asker).is_some_and(|line| !line.over) {
            return Ok(Outcome::Known);
        }
        let number = self.next;
        let line = self.line(number, lookup);
        if !are_unique(&line.hash_ids) {
            // Keys that no prompt has: a trace could not be read any more.
            return Ok(Outcome::Dropped);
        }
        self.next += 1;
        self.known.put(lookup.asker, Line { number, over: false });
        write_record(out, &line)?;
        Ok(Outcome::Written)
    }

    fn line(&mut self, number: u64, lookup: &LookedUp) -> RecordLine {
        let LookedUp { counts, block_tokens, .. } = lookup;
        // No more than a trace's request may have, whatever an engine says.
        let prompt_tokens = &lookup.prompt_tokens.min(REQUEST_BLOCKS_MAX as u64 * u64::from(*block_tokens));
        let tokens = |blocks: u32| (u64::from(blocks) * u64::from(*block_tokens)).min(*prompt_tokens);
        let [engine, ram, all] = [counts.engine, counts.engine + counts.ram, counts.hit()].map(tokens);
        // A chain that is longer than its prompt would be none of a trace.
        let blocks = usize::try_from(prompt_tokens.div_ceil(u64::from(*block_tokens).max(1))).unwrap_or(usize::MAX);
        RecordLine {
            timestamp: lookup.at.0.saturating_sub(self.began.0),
            request: number,
            namespace: Numbers::of(&mut self.numbers.namespaces, lookup.namespace.into()),
            tenant: Numbers::of(&mut self.numbers.tenants, lookup.tenant),
            block_tokens: *block_tokens,
            input_length: *prompt_tokens,
            output_length: 0,
            hash_ids: (0..lookup.keys.len().min(blocks)).map(|at| self.id(&lookup.keys.key(at))).collect(),
            hit_engine: engine,
            hit_ram: ram.saturating_sub(engine),
            hit_nvme: all.saturating_sub(ram),
        }
    }

    fn id(&self, key: &BlockKey) -> u64 {
        BlockKey::from_bytes(*blake3::keyed_hash(&self.salt, key.as_bytes()).as_bytes()).hash64()
    }

    fn output(&mut self, out: &mut Out, asker: Asker, tokens: u64) -> io::Result<()> {
        match self.known.get(&asker) {
            Some(line) => write_output(out, line.number, tokens),
            None => Ok(()),
        }
    }

    fn over(&mut self, asker: Asker) {
        if let Some(line) = self.known.get_mut(&asker) {
            line.over = true;
        }
    }

    fn gone(&mut self, instance: u128) {
        self.known.iter_mut().filter(|(asker, _)| asker.instance() == instance).for_each(|(_, line)| line.over = true);
    }
}

fn are_unique(ids: &[u64]) -> bool {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}

/// Small numbers for names.
#[derive(Default)]
struct Numbers {
    namespaces: HashMap<u128, u32>,
    tenants: HashMap<u128, u32>,
}

impl Numbers {
    fn of(known: &mut HashMap<u128, u32>, name: u128) -> u32 {
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        // A daemon has no more accounts than that; names that were only asked for would fill memory.
        if known.len() >= ACCOUNTS_MAX {
            known.get(&name).copied().unwrap_or(next)
        } else {
            *known.entry(name).or_insert(next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Keys;
    use crate::replay::{TraceOptions, TraceRequest, open_trace};
    use crate::vocab::{InstanceId, RequestId, TierCounts};

    #[test]
    fn a_recording_that_is_there_stays_and_the_next_gets_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day.jsonl.zst");
        let names: Vec<String> =
            (0..3).map(|_| create(&path).unwrap().1.file_name().unwrap().to_string_lossy().into()).collect();
        assert_eq!(names, ["day.jsonl.zst", "day-2.jsonl.zst", "day-3.jsonl.zst"]);
        assert!(create(&folder.path().join("absent/x")).is_err());
    }

    fn book() -> Book {
        Book { salt: rand::random(), began: Timestamp(0), known: known(), numbers: Numbers::default(), next: 0 }
    }

    fn asker(request: u32) -> Asker {
        let id = RequestId::parse(&request.to_string()).unwrap();
        Asker::new(&InstanceId::parse("engine").unwrap(), &id)
    }

    fn lookup(request: u32) -> LookedUp {
        let key = |byte: u8| BlockKey::from_bytes([byte; 32]);
        LookedUp {
            asker: asker(request),
            at: Timestamp(7),
            namespace: 9,
            tenant: 99,
            block_tokens: 16,
            prompt_tokens: 40,
            keys: Keys::Known([key(1), key(2)].into()),
            counts: TierCounts { engine: 0, ram: 1, nvme: 1, missed: 0 },
        }
    }

    /// What is read of a recording that heard this, and what came of its lookups.
    fn recorded(heard: Vec<Heard>, bytes_max: u64) -> (Vec<TraceRequest>, [u64; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = create(&folder.path().join("record.jsonl")).unwrap();
        let written = Arc::<AtomicU64>::default();
        let out = open(Counted { file, written: Arc::clone(&written) }, &path, Timestamp(0)).unwrap();
        let (recorder, recorded) = recording();
        let bytes_max = ByteCount(bytes_max);
        let mut writer = Writer { out: Some(out), written, bytes_max, path: path.clone(), book: book(), recorded };
        heard.iter().for_each(|heard| writer.hear(heard));
        drop(writer);
        let requests = open_trace(&path, &TraceOptions::default()).unwrap();
        (requests.map(Result::unwrap).collect(), recorder.named().map(|(_, count)| count))
    }

    #[test]
    fn a_request_that_looks_up_again_is_one_line_until_it_is_over() {
        let looked = |request| Heard::LookedUp(Box::new(lookup(request)));
        let heard =
            vec![looked(1), looked(2), looked(1), Heard::Over(asker(1)), Heard::Output(asker(1), 50), looked(1)];
        let (requests, counts) = recorded(heard, u64::MAX);
        let outputs: Vec<u64> = requests.iter().map(|request| request.output_length).collect();
        assert_eq!((outputs.as_slice(), counts), (&[50, 0, 0][..], [3, 0]));
        assert_eq!((requests[0].timestamp_ms, requests[0].input_length, requests[0].hash_ids.len()), (7, 40, 2));
        let gone = vec![looked(1), Heard::Gone(asker(1).instance()), looked(1)];
        assert_eq!(recorded(gone, u64::MAX).1, [2, 0]);
    }

    #[test]
    fn a_recording_that_is_full_ends_and_keys_of_no_prompt_are_left_out() {
        let looked = |request| Heard::LookedUp(Box::new(lookup(request)));
        let (requests, counts) = recorded(vec![looked(1), looked(2), looked(3)], 1);
        assert_eq!((requests.len(), counts), (1, [0, 3]), "the last line is there, but nobody waits for more");
        let twice = LookedUp { keys: Keys::Known([BlockKey::from_bytes([1; 32]); 2].into()), ..lookup(4) };
        let (requests, counts) = recorded(vec![Heard::LookedUp(Box::new(twice)), looked(5)], u64::MAX);
        assert_eq!((requests.len(), counts), (1, [1, 1]));
    }

    #[test]
    fn what_was_hit_is_told_by_tier_with_the_partial_block_as_long_as_it_is() {
        let line = |counts| book().line(0, &LookedUp { counts, prompt_tokens: 30, ..lookup(1) });
        let hits = |line: RecordLine| [line.hit_engine, line.hit_ram, line.hit_nvme];
        assert_eq!(hits(line(TierCounts { engine: 0, ram: 1, nvme: 1, missed: 0 })), [0, 16, 14]);
        assert_eq!(hits(line(TierCounts { engine: 1, ram: 1, nvme: 0, missed: 0 })), [16, 14, 0]);
    }

    #[test]
    fn ids_are_of_their_recording() {
        let (one, other, key) = (book(), book(), BlockKey::from_bytes([3; 32]));
        assert_eq!(one.id(&key), one.id(&key));
        assert_ne!(one.id(&key), other.id(&key));
        assert_ne!(one.id(&key), key.hash64());
    }
}
