//! A worker of the same host reads blocks where the daemon keeps them: right bytes or none, whatever becomes of the slots.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use kvtier::client::{Arena, Client, FetchOutcome, LeaseOptions, LookupOptions, Place, ServerAddress};
use kvtier::proto::LoadRequest;
use kvtier::vocab::{BlockKey, InstanceId, RequestId};
use tonic::Code;

use crate::support::{PAYLOAD, Server, chain, payload, refused, spec};
use crate::worker::Worker;

const MIB: u64 = 1 << 20;
/// Blocks of a prompt.
const BLOCKS: u32 = 16;

/// A worker that has mapped the daemon's RAM.
pub(crate) struct Mapped {
    pub(crate) worker: Worker,
    pub(crate) arena: Arena,
}

impl std::ops::Deref for Mapped {
    type Target = Worker;
    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl Mapped {
    async fn start(dir: &Path, layout: bytes::Bytes) -> Self {
        Self::of(Worker::start(dir, "worker", layout).await).await
    }

    pub(crate) async fn of(worker: Worker) -> Self {
        let arena = worker.client.attach(&worker.session).await.unwrap().expect("the daemon hands it over");
        Self { worker, arena }
    }

    pub(crate) async fn places(&self, seed: u32) -> (Vec<Place>, FetchOutcome) {
        let request = RequestId::parse(&format!("r{seed}")).unwrap();
        let deadline = Some(Duration::from_secs(10));
        let mut load =
            self.client.load(&self.session, &request, &self.chain(seed, BLOCKS), None, deadline).await.unwrap();
        let mut places = Vec::new();
        loop {
            let more = load.next_places().await.unwrap();
            if more.is_empty() {
                break;
            }
            places.extend(more);
        }
        (places, load.end().await.unwrap().outcome)
    }

    /// How many of the places still hold their blocks; the copies must be right.
    pub(crate) fn copy(&self, seed: u32, places: &[Place]) -> usize {
        let mut bytes = vec![0; PAYLOAD as usize];
        let right = |place: &&Place| {
            let held = self.arena.copy(place, None, &mut bytes);
            assert!(!held || bytes == payload(seed, place.index), "wrong bytes of block {} of {seed}", place.index);
            held
        };
        places.iter().filter(right).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_copies_blocks_from_the_daemons_ram_and_what_has_gone_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    // RAM for 256 blocks.
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    for seed in 0..40 {
        server.put(session, chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
        server.quiesce().await;
    }
    let worker = Mapped::start(dir.path(), layout.clone()).await;
    // The last prompt is in RAM, the first has to come from the drive.
    let mut known = Vec::new();
    for seed in [39, 0] {
        let (places, outcome) = worker.places(seed).await;
        assert_eq!((places.len(), outcome), (16, FetchOutcome::Complete), "{seed}");
        assert_eq!(worker.copy(seed, &places), 16);
        let in_place = |place| worker.arena.in_place(place, |address, length| (!address.is_null(), length));
        assert_eq!(places.iter().filter_map(in_place).collect::<Vec<_>>(), [(true, 4096); 16]);
        known.push((seed, places));
    }
    // A checksum that is compared: the key of another block refuses the bytes.
    let stranger = BlockKey::from_bytes([3; 32]);
    assert!(!worker.arena.copy(&known[0].1[0], Some(&stranger), &mut vec![0; PAYLOAD as usize]));
    assert!(!worker.arena.copy(&known[0].1[0], None, &mut [0; 5]), "a copy is as long as its payload");

    let all = kvtier::proto::PurgeRequest { tenant: "acme".into(), ..Default::default() };
    server.admin().purge(all).await.unwrap();
    for (seed, places) in &known {
        assert_eq!(worker.copy(*seed, places), 0, "the blocks of {seed} are gone, their bytes untouched");
    }
    // And when their slots hold others.
    for seed in 100..130 {
        server.put(session, chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
        server.quiesce().await;
    }
    for (seed, places) in &known {
        assert_eq!(worker.copy(*seed, places), 0, "{seed}");
    }
    drop((worker, stream));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_lease_no_slot_is_used_again_whatever_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 1, BLOCKS), |block| payload(1, block)).await;
    let worker = Mapped::start(dir.path(), layout.clone()).await;
    let request_id = &RequestId::parse("r1").unwrap();
    let lease = Some(LeaseOptions { session: &worker.session, request_id, ttl: Duration::from_secs(60) });
    let options = LookupOptions { lease, ..LookupOptions::default() };
    let found = worker.client.lookup(&worker.chain(1, BLOCKS), &options).await.unwrap();
    assert!(found.lease.is_some());
    let (places, _) = worker.places(1).await;
    for seed in 100..160 {
        server.put(session, chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
        assert_eq!(worker.copy(1, &places), 16, "after prompt {seed}");
    }
    drop((worker, stream));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_race_with_evictions_are_right_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let worker = Mapped::start(dir.path(), layout.clone()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let storing = async {
        for seed in 0..400 {
            server.put(session, chain(&layout, seed % 50, BLOCKS), |block| payload(seed % 50, block)).await;
        }
        stop.cancel();
    };
    let copying = async {
        let (mut held, mut gone) = (0, 0);
        // Places that were told a while ago: most of them hold other blocks by now.
        let mut told: VecDeque<(u32, Vec<Place>)> = VecDeque::new();
        for seed in (0..50).cycle() {
            if stop.is_cancelled() {
                break;
            }
            told.push_back((seed, worker.places(seed).await.0));
            for (seed, places) in &told {
                let copied = worker.copy(*seed, places);
                (held, gone) = (held + copied, gone + places.len() - copied);
            }
            if told.len() > 30 {
                told.pop_front();
            }
        }
        (held, gone)
    };
    let ((), (held, gone)) = tokio::join!(storing, copying);
    eprintln!("{held} blocks copied right, {gone} gone before the copy was done");
    assert!(held > 0 && gone > 0);
    drop((worker, stream));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_can_not_share_its_ram_serves_without() {
    let dir = tempfile::tempdir().unwrap();
    // As long as a socket's path may be, so that there is no room for another word.
    let name = "s".repeat(106 - dir.path().as_os_str().len());
    let socket = dir.path().join(name);
    let config =
        kvtier::daemon::Config { socket: Some(socket.clone()), ..crate::support::config(dir.path(), MIB, MIB) };
    let daemon = kvtier::daemon::Daemon::start(config).await.unwrap();
    let address = ServerAddress::parse(&format!("unix:{}", socket.display())).unwrap();
    let client = Client::connect(&address).await.unwrap();
    let session = client.open_session(&InstanceId::parse("worker").unwrap(), "rank 0").await.unwrap();
    assert!(client.attach(&session).await.unwrap().is_none());
    assert!(!session.features().contains(&"load".into()));
    let gate = crate::support::Gate::connect(&socket).await;
    let layout = gate.register(spec()).await;
    let load = LoadRequest { session_id: session.id(), chain: Some(chain(&layout, 1, 1)), ..LoadRequest::default() };
    refused(gate.cache().load(load).await.map(|_| ()), Code::FailedPrecondition, &["arena", "Fetch"]);
    drop((session, client, gate));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_arena_goes_to_open_sessions_only() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let answer = tokio::task::spawn_blocking({
        let path = dir.path().join("kvtier.sock.arena");
        move || {
            let mut answers = Vec::new();
            for hello in [*b"kvtier-1\x01\0\0\0\0\0\0\0", *b"nonsense\x01\0\0\0\0\0\0\0"] {
                let mut stream = UnixStream::connect(&path).unwrap();
                stream.write_all(&hello).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).ok();
                answers.push(answer.len());
            }
            answers
        }
    });
    assert_eq!(answer.await.unwrap(), [0, 0]);
    server.stop().await;
    assert!(!dir.path().join("kvtier.sock.arena").exists(), "it goes with the daemon");
}
