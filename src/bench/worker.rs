//! A process beside the daemon, as an inference worker is one: it stores a prompt, maps the daemon's RAM, and takes the
//! figures that it is asked for.
//!
//! It is this program again. It reads one [`Job`] from its standard input and answers with lines of JSON on its standard
//! output: one when it is ready, then one a row.

use std::cell::Cell;
use std::io::{BufRead, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::prompt::{self, Prompt};
use super::rounds::{Effort, Rounds};
use super::rows::{self, By};
use super::{BenchError, Figures};
use crate::client::{Arena, Client, Lease, LeaseOptions, LookupOptions, ServerAddress, Session};
use crate::vocab::limits::LEASE_TTL_MAX;
use crate::vocab::{Fingerprint, InstanceId, NamespaceName, RequestId};

/// What a worker is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// The daemon's addresses.
    pub(super) uds: String,
    pub(super) tcp: String,
    pub(super) figures: Figures,
    /// Names of the rows.
    pub(super) rows: Vec<String>,
    pub(super) rounds: u32,
    pub(super) time: Duration,
}

/// A connection with its session.
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) session: Session,
}

/// What the rows are taken with.
pub(super) struct Worker {
    pub(super) runtime: Runtime,
    pub(super) figures: Figures,
    pub(super) uds: Line,
    pub(super) tcp: Line,
    pub(super) arena: Arena,
    pub(super) fingerprint: Fingerprint,
    /// In RAM, and kept there by a lease.
    pub(super) prompt: Prompt,
    /// A block's bytes.
    pub(super) payload: Bytes,
    named: Cell<u64>,
}

/// Does the job on `input`.
///
/// # Errors
/// When nobody takes its answers; what else goes wrong is an answer.
pub fn work(mut input: impl Read, mut output: impl Write) -> Result<(), BenchError> {
    let mut text = String::new();
    input.read_to_string(&mut text)?;
    let job: Job = serde_json::from_str(&text).map_err(std::io::Error::from)?;
    let mut say = |line: Result<Option<Rounds>, String>| {
        let mut line = serde_json::to_vec(&line).map_err(std::io::Error::from)?;
        line.push(b'\n');
        output.write_all(&line).and_then(|()| output.flush())
    };
    let worker = match Worker::start(&job) {
        Ok(worker) => worker,
        Err(error) => return Ok(say(Err(error.to_string()))?),
    };
    say(Ok(None))?;
    for row in rows::wanted(&job.rows)? {
        let By::Worker(take) = row.by else { continue };
        let effort = Effort { rounds: job.rounds, time: job.time };
        let taken = worker.hold().and_then(|_| take(&worker, effort));
        say(taken.map(Some).map_err(|error| format!("{}: {error}", row.name)))?;
    }
    Ok(())
}

/// What a worker said next: rounds, or nothing where it only got ready.
pub(super) fn answer(from: &mut impl BufRead) -> Result<Option<Rounds>, BenchError> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(BenchError::Worker("it ended early".to_owned()));
    }
    let said: Result<Option<Rounds>, String> = serde_json::from_str(&line).map_err(std::io::Error::from)?;
    said.map_err(BenchError::Worker)
}

impl Worker {
    fn start(job: &Job) -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let figures = job.figures;
        let (uds, tcp) = (runtime.block_on(Line::open(&job.uds))?, runtime.block_on(Line::open(&job.tcp))?);
        let (name, spec) = (NamespaceName::parse("bench")?, prompt::spec(figures.block_bytes));
        let registered = runtime.block_on(uds.client.register_namespace(Some(&uds.session), &name, &spec, None));
        let (fingerprint, _) = registered?;
        let prompt = Prompt::new(fingerprint, 0, figures.blocks)?;
        let mut payload = vec![0; figures.block_bytes as usize];
        Pcg64::seed_from_u64(1).fill_bytes(&mut payload);
        let payload = Bytes::from(payload);
        runtime.block_on(uds.put(&RequestId::parse("put-0")?, &prompt, &payload))?;
        let arena = runtime.block_on(uds.client.attach(&uds.session))?;
        let arena = arena.ok_or_else(|| BenchError::Lost("the daemon hands over no RAM".to_owned()))?;
        Ok(Self { runtime, figures, uds, tcp, arena, fingerprint, prompt, payload, named: Cell::new(0) })
    }

    /// A number that nothing else has had.
    pub(super) fn number(&self) -> u64 {
        self.named.set(self.named.get() + 1);
        self.named.get()
    }

    /// A name for a request, used by no other.
    pub(super) fn request(&self) -> Result<RequestId, BenchError> {
        Ok(RequestId::parse(&format!("r{}", self.number()))?)
    }

    /// Keeps the prompt in RAM while a row is taken, whatever is stored meanwhile.
    fn hold(&self) -> Result<Lease, BenchError> {
        self.runtime.block_on(self.lease(&RequestId::parse("hold")?))
    }

    /// A lease on the whole prompt.
    pub(super) async fn lease(&self, request_id: &RequestId) -> Result<Lease, BenchError> {
        let lease = Some(LeaseOptions { session: &self.uds.session, request_id, ttl: LEASE_TTL_MAX });
        let options = LookupOptions { lease, ..LookupOptions::default() };
        let found = self.uds.client.lookup(&self.prompt.by_key, &options).await?;
        let whole = found.lease.filter(|lease| lease.blocks == self.prompt.blocks());
        whole
            .ok_or_else(|| BenchError::Lost(format!("of {} blocks {:?} are there", self.prompt.blocks(), found.counts)))
    }

    /// Ends a lease.
    pub(super) async fn release(&self, lease: &Lease) -> Result<(), BenchError> {
        self.uds.client.release(&self.uds.session, lease.id).await?;
        Ok(())
    }
}

impl Line {
    pub(super) async fn open(address: &str) -> Result<Self, BenchError> {
        let client = Client::connect(&ServerAddress::parse(address).map_err(std::io::Error::other)?).await?;
        let session = client.open_session(&InstanceId::parse("bench")?, "bench").await?;
        Ok(Self { client, session })
    }

    /// Stores a prompt whose blocks all have the same bytes.
    pub(super) async fn put(&self, request: &RequestId, prompt: &Prompt, payload: &Bytes) -> Result<(), BenchError> {
        let stored = self.client.put(&self.session, request, &prompt.chain, |_| payload.clone()).await?;
        if stored.stored_through == prompt.blocks() && stored.accepted_blocks == prompt.blocks() {
            return Ok(());
        }
        Err(BenchError::Lost(format!("a put of {} blocks ended with {stored:?}", prompt.blocks())))
    }
}
