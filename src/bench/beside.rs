//! A daemon in this process with a RAM tier of its own, and the worker beside it that takes figures.

use std::io::{BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::rounds::{Effort, Rounds};
use super::rows::Row;
use super::worker::{self, Job};
use super::{BenchError, Figures, WORKER_COMMAND};
use crate::daemon::{Config, Daemon};
use crate::vocab::ByteCount;

/// This program, also after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";
/// How long a worker may take to end once it has answered all.
const END_MAX: Duration = Duration::from_secs(10);

/// Takes rows with a worker; `say` is told which is under way.
pub(super) fn measure(
    rows: &[&'static Row],
    figures: Figures,
    effort: Effort,
    say: &dyn Fn(&'static str),
) -> Result<Vec<(&'static str, Rounds)>, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // In the system's own folder, because a socket's path is short.
    let folder = tempfile::Builder::new().prefix("kvtier-bench-").tempdir()?;
    let socket = folder.path().join("s");
    let config = Config {
        socket: Some(socket.clone()),
        listen: Some(([127, 0, 0, 1], 0).into()),
        ..Config::new(folder.path().join("data"), figures.ram())
    };
    let daemon = runtime.block_on(Daemon::start(config))?;
    let tcp = daemon.tcp().map(|address| address.to_string()).unwrap_or_default();
    let job = Job {
        uds: format!("unix:{}", socket.display()),
        tcp,
        figures,
        rows: rows.iter().map(|row| row.name.to_owned()).collect(),
        rounds: effort.rounds,
        time: effort.time,
    };
    let taken = ask(&job, rows, say);
    runtime.block_on(daemon.stop());
    taken
}

fn ask(
    job: &Job,
    rows: &[&'static Row],
    say: &dyn Fn(&'static str),
) -> Result<Vec<(&'static str, Rounds)>, BenchError> {
    say("a prompt in RAM");
    let started = Command::new(PROGRAM).arg(WORKER_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut process = Process(started?);
    let missing = || BenchError::Worker("it has no pipes".to_owned());
    let (mut input, output) =
        (process.0.stdin.take().ok_or_else(missing)?, process.0.stdout.take().ok_or_else(missing)?);
    input.write_all(&serde_json::to_vec(job).map_err(std::io::Error::from)?)?;
    drop(input);
    let mut output = BufReader::new(output);
    worker::answer(&mut output)?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        say(row.name);
        let rounds = worker::answer(&mut output)?;
        taken.push((row.name, rounds.ok_or_else(|| BenchError::Worker(format!("no rounds of {}", row.name)))?));
    }
    process.end();
    Ok(taken)
}

/// The worker's process, which does not outlive its turn.
struct Process(Child);

impl Process {
    /// Waits until it has closed its session by itself.
    fn end(&mut self) {
        let began = std::time::Instant::now();
        while began.elapsed() < END_MAX && !matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is only collected.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Figures {
    /// The RAM tier for them: the prompt, one that is stored beside it, and slots for what is under way. Whole slots in
    /// each of its sixteen extents.
    pub(super) fn ram(&self) -> ByteCount {
        let slots = (self.blocks + self.put_blocks + 16).next_multiple_of(16);
        ByteCount(u64::from(slots) * u64::from(self.block_bytes))
    }
}
