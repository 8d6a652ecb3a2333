//! A rank of an engine in a process of its own, which can be stopped and killed: this program again, told what to do by lines
//! on its standard input. It ends with whoever started it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use kvtier::client::{LeaseOptions, LookupOptions, Place, Pool, Staging};
use kvtier::proto::ReserveRequest;
use rustix::process::{Pid, Signal, kill_process};

use crate::shared_arena::Mapped;
use crate::shared_pool::load;
use crate::support::{Gate, chain};
use crate::worker::{Worker, request};

const BLOCKS: u32 = 16;
const MIB: u64 = 1 << 20;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What begins an answer; the test harness says things of its own.
const ANSWER: &str = "=> ";

/// The process, seen from the test that started it.
pub(crate) struct Rank {
    child: Child,
    answers: Receiver<String>,
}

impl Rank {
    /// A rank of `instance` at the daemon of `dir`, with its session open and the arena mapped when this returns.
    pub(crate) fn start(dir: &Path, instance: &str, layout: &bytes::Bytes) -> Self {
        let layout: Vec<String> = layout.iter().map(u8::to_string).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "rank::a_rank_works_until_it_is_killed"])
            .env("KVTIER_RANK", format!("{}\n{instance}\n{}", dir.display(), layout.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = sync_channel(16);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let answer = line.split_once(ANSWER).map(|(_, answer)| answer.to_owned());
                if answer.is_some_and(|answer| sender.send(answer).is_err()) {
                    break;
                }
            }
        });
        let rank = Self { child, answers };
        rank.answer("start");
        rank
    }

    fn answer(&self, to: &str) -> Vec<u64> {
        let answer = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no answer to {to:?}: {error}"));
        answer.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// Has it do something, and waits for its figures.
    pub(crate) fn ask(&mut self, what: &str) -> Vec<u64> {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.answer(what)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }
}

impl Drop for Rank {
    /// `kill -9`.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the process has.
struct Own {
    mapped: Arc<Mapped>,
    gate: Gate,
    shared: Option<(Pool, Staging)>,
    places: (u32, Vec<Place>),
    race: Option<Race>,
}

/// Copies that go on until they are to stop; how many were right, and how many too late.
struct Race {
    stop: Arc<AtomicBool>,
    copies: std::thread::JoinHandle<(u64, u64)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of its own, which other tests start"]
async fn a_rank_works_until_it_is_killed() {
    let Ok(told) = std::env::var("KVTIER_RANK") else { return };
    let [dir, instance, layout] = told.split('\n').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let (dir, layout) = (Path::new(dir), layout.split(' ').map(|byte| byte.parse::<u8>().unwrap()));
    let worker = Worker::start(dir, instance, layout.collect()).await;
    let gate = Gate::connect(&dir.join("kvtier.sock")).await;
    let mapped = Arc::new(Mapped::of(worker).await);
    let mut own = Own { mapped, gate, shared: None, places: (0, Vec::new()), race: None };
    let answer = |figures: &[u64]| {
        let figures: Vec<String> = figures.iter().map(u64::to_string).collect();
        writeln!(std::io::stdout(), "{ANSWER}{}", figures.join(" ")).unwrap();
    };
    answer(&[]);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        answer(&own.work(&line.split(' ').collect::<Vec<_>>()).await);
    }
}

impl Own {
    async fn work(&mut self, words: &[&str]) -> Vec<u64> {
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        match words[0] {
            "share" => self.share().await,
            "lease" => vec![self.lease(number(1), Duration::from_millis(number(2).into())).await],
            "find" => {
                self.places = (number(1), self.mapped.places(number(1)).await.0);
                vec![self.places.1.len() as u64]
            }
            "copy" => vec![self.mapped.copy(self.places.0, &self.places.1) as u64],
            "fill" => {
                let (pool, _) = self.shared.as_ref().unwrap();
                vec![load(&self.mapped, pool, number(1), 0).await.blocks.into()]
            }
            "race" => self.race(),
            "halt" => {
                let race = self.race.take().unwrap();
                race.stop.store(true, Ordering::Relaxed);
                let (held, gone) = race.copies.join().unwrap();
                vec![held, gone]
            }
            other => panic!("{other:?} is not understood"),
        }
    }

    /// Shares a pool, has staging memory made, and reserves parts of it.
    async fn share(&mut self) -> Vec<u64> {
        let Worker { client, session, layout } = &self.mapped.worker;
        let pool = client.attach_pool(session, MIB).await.unwrap().unwrap();
        let staging = client.stage(session, MIB).await.unwrap().unwrap();
        let reserve = ReserveRequest {
            session_id: session.id(),
            chain: Some(chain(layout, 1_000, BLOCKS)),
            request_id: "reserved".into(),
            ..Default::default()
        };
        let reserved = self.gate.cache().reserve(reserve).await.unwrap().into_inner();
        self.shared = Some((pool, staging));
        vec![reserved.offset.len() as u64]
    }

    async fn lease(&self, seed: u32, ttl: Duration) -> u64 {
        let Worker { client, session, .. } = &self.mapped.worker;
        let request_id = &request(&format!("of-{}", session.id()));
        let options =
            LookupOptions { lease: Some(LeaseOptions { session, request_id, ttl }), ..LookupOptions::default() };
        let found = client.lookup(&self.mapped.chain(seed, BLOCKS), &options).await.unwrap();
        found.lease.map_or(0, |lease| lease.blocks.into())
    }

    /// Copies from places that were told a while ago, over and over; a wrong byte ends the process.
    fn race(&mut self) -> Vec<u64> {
        let (stop, mapped, runtime) =
            (Arc::new(AtomicBool::new(false)), Arc::clone(&self.mapped), tokio::runtime::Handle::current());
        let stopped = Arc::clone(&stop);
        let copies = move || {
            let (mut held, mut gone) = (0, 0);
            for seed in (0..50).cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (places, _) = runtime.block_on(mapped.places(seed));
                for _ in 0..100 {
                    let copied = mapped.copy(seed, &places);
                    (held, gone) = (held + copied as u64, gone + (places.len() - copied) as u64);
                }
            }
            (held, gone)
        };
        self.race = Some(Race { stop, copies: std::thread::spawn(copies) });
        vec![]
    }
}
