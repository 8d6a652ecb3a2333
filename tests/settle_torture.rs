//! Settles from 64 tasks, repeated, raced and cut off, while the daemon is killed again and again: in the end the sum of the
//! records is the sum of the distinct settles, to the token, and the audit is clean.
//!
//! And deliveries that 64 clients settle under several ids each: no more of any is billed than was delivered.
//!
//! Beside it, the same while the ledger's own disk fills up and is emptied, or cuts a write off in the middle: by a limit on the
//! size of files, which needs nobody's permission, and by a small file system of its own, which only root may mount.
//!
//! `KVTIER_SETTLES` sets how many calls are made, `KVTIER_DELIVERIES` of how many deliveries, `KVTIER_KILLS` how often the daemon
//! dies, `KVTIER_FILLS` how often the disk fills up in each life of the daemon, `KVTIER_SETTLE_SEED` the seed. The seed fixes what
//! each task asks for, not how the tasks meet.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should stop")]
#![expect(clippy::print_stderr, reason = "figures of a run belong beside its result")]
#![expect(clippy::disallowed_methods, reason = "the environment makes a run longer")]

#[path = "settle_torture/claims.rs"]
mod claims;
#[path = "settle_torture/disk.rs"]
mod disk;
#[path = "shared/process.rs"]
mod process;
#[path = "settle_torture/tasks.rs"]
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claims::{Claimer, Claims};
use kvtier::client::{Client, UsageFilter, UsageRecord};
use kvtier::replay::live::namespace_spec;
use kvtier::vocab::{Fingerprint, NamespaceName};
use process::Process;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tasks::{Shared, Task, request};
use tokio::task::JoinSet;

const SETTLES: u64 = 4_000;
const DELIVERIES: u64 = 800;
const KILLS: u64 = 2;
const SEED: u64 = 5;
const TASKS: u64 = 64;
/// All connect at once, each with a connection of its own.
const PATIENCE: Duration = Duration::from_secs(120);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn serve(dir: &std::path::Path) -> (Process, Client, Fingerprint, kvtier::client::ServerAddress) {
    let (process, address) = Process::start(dir, &["--ram", "1MiB", "--nvme", "0"]).await;
    let client = Client::connect(&address).await.unwrap();
    let name = NamespaceName::parse("billed").unwrap();
    let spec = namespace_spec(16, 4096).unwrap();
    let (fingerprint, _) = client.register_namespace(None, &name, &spec, None).await.unwrap();
    (process, client, fingerprint, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_settle_is_billed_exactly_once_whatever_happens() {
    let settles = number("KVTIER_SETTLES").unwrap_or(SETTLES);
    let kills = number("KVTIER_KILLS").unwrap_or(KILLS);
    let seed = number("KVTIER_SETTLE_SEED").unwrap_or(SEED);
    let dir = tempfile::tempdir().unwrap();
    let shared = Arc::new(Shared::default());
    for round in 0..=kills {
        let (mut process, _client, fingerprint, address) = serve(dir.path()).await;
        let until = settles * (round + 1) / (kills + 1);
        let mut running = JoinSet::new();
        for task in 0..TASKS {
            let task = Task::new(seed, round, task, fingerprint, &address, Arc::clone(&shared));
            running.spawn(task.run(if round == kills { until } else { u64::MAX }));
        }
        if round < kills {
            let reached = async {
                while shared.calls.load(Ordering::Relaxed) < until {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(PATIENCE, reached).await.expect("settles go on");
            process.kill();
        }
        running.join_all().await;
    }
    finish(dir.path(), &shared).await;
}

/// What a disk does to a daemon: it fills up and is emptied again and again, under load, with kills in between.
async fn torture_the_disk(dir: &std::path::Path, disk: &disk::Disk, fills: u64) {
    let (fills, seed) = (number("KVTIER_FILLS").unwrap_or(fills), number("KVTIER_SETTLE_SEED").unwrap_or(SEED));
    let shared = Arc::new(Shared::default());
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut slowest, rounds) = (Duration::ZERO, 3);
    for round in 0..rounds {
        let (mut process, client, fingerprint, address) = serve(dir).await;
        let mut running = JoinSet::new();
        for task in 0..TASKS {
            let task = Task::new(seed, round, task, fingerprint, &address, Arc::clone(&shared));
            running.spawn(task.run(u64::MAX));
        }
        for _ in 0..fills {
            let settled = shared.settled();
            until(&process, "settles go on", || shared.settled() > settled + 100).await;
            let refused = shared.unavailable.load(Ordering::Relaxed);
            disk.fill(&process, &mut random);
            until(&process, "the disk is full", || {
                disk.stay_full();
                shared.unavailable.load(Ordering::Relaxed) > refused + 200
            })
            .await;
            let status = client.status().await.unwrap().ledger.unwrap();
            assert!(!status.writable && !status.trouble.is_empty(), "{status:?}");
            disk.empty(&process);
            let (settled, emptied) = (shared.settled(), std::time::Instant::now());
            until(&process, "settles go on by themselves", || shared.settled() > settled + 100).await;
            slowest = slowest.max(emptied.elapsed());
        }
        if round + 1 < rounds {
            // In the middle of its trouble.
            let refused = shared.unavailable.load(Ordering::Relaxed);
            disk.fill(&process, &mut random);
            until(&process, "the disk is full", || {
                disk.stay_full();
                shared.unavailable.load(Ordering::Relaxed) > refused
            })
            .await;
        }
        process.kill();
        running.join_all().await;
        disk.empty(&process);
    }
    eprintln!("{} fills; after the slowest, 100 more settles took {slowest:?}", rounds * fills);
    finish(dir, &shared).await;
}

async fn until(of: &Process, what: &str, is_so: impl Fn() -> bool) {
    let look = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{what}:\n{}", of.log()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_settle_is_billed_once_whatever_writes_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    torture_the_disk(dir.path(), &disk::Disk::limited(), 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_settle_is_billed_once_however_often_the_ledgers_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, ..) = serve(dir.path()).await;
    process.kill();
    let Some(disk) = disk::Disk::mount(&dir.path().join("data/ledger")) else { return };
    torture_the_disk(dir.path(), &disk, 1).await;
}

/// After the last restart: what was in doubt is settled once more, and all is compared.
async fn finish(dir: &std::path::Path, shared: &Shared) {
    let (process, client, fingerprint, _) = serve(dir).await;
    let in_doubt = shared.in_doubt();
    let mut written = 0;
    for (identity, asked) in &in_doubt {
        // Where two with other numbers were under way, either may have been the first.
        let first = if *asked == 2 { 1 } else { 0 };
        match client.settle(&request(fingerprint, *identity, first)).await {
            Ok(settled) => {
                written += u64::from(settled.repeated);
                shared.acknowledge(*identity, &settled.record);
            }
            Err(error) if *asked == 3 => {
                assert_eq!(error.code(), Some(tonic::Code::AlreadyExists), "{error}");
                let settled = client.settle(&request(fingerprint, *identity, 1)).await.unwrap();
                assert!(settled.repeated);
                written += 1;
                shared.acknowledge(*identity, &settled.record);
            }
            Err(error) => panic!("{identity}: {error}"),
        }
    }
    let records = records(&client).await;
    let acknowledged = shared.acknowledged();
    let sum = |tokens: fn(&UsageRecord) -> i64, of: &BTreeMap<u64, UsageRecord>| {
        of.values().map(tokens).sum::<i64>().unsigned_abs()
    };
    assert_eq!(records.keys().collect::<Vec<_>>(), acknowledged.keys().collect::<Vec<_>>(), "each once, and no others");
    for (identity, record) in &acknowledged {
        assert_eq!(&records[identity], record, "as it was acknowledged");
    }
    let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap();
    let by = UsageFilter { group_by: vec!["user".into(), "hour".into()], ..UsageFilter::default() };
    let by_user = client.summarize_usage(&by).await.unwrap().rows;
    for (tokens, summed) in [
        (sum(|record| record.prompt_tokens, &acknowledged), total.prompt_tokens),
        (sum(|record| record.output_tokens, &acknowledged), total.output_tokens),
        (sum(|record| record.miss_tokens, &acknowledged), by_user.iter().map(|row| row.miss_tokens).sum()),
    ] {
        assert_eq!(tokens, summed, "the sum of the records is the sum of the acknowledged settles");
    }
    drop(process);
    let audit = kvtier::offline::audit(&dir.join("data")).unwrap();
    assert_eq!((audit.differences, audit.records), (0, acknowledged.len() as u64), "{:?}", audit.examples);
    assert_eq!(audit.prompt_tokens.unsigned_abs(), total.prompt_tokens);
    let (doubt, users) = (in_doubt.len(), by_user.len());
    eprintln!(
        "{shared}; {doubt} in doubt after the kills, {written} of them written; {} records, {users} rows",
        audit.records
    );
    shared.check_it_was_a_torture();
}

/// All records by the number of their request; panics where one comes twice.
async fn records(client: &Client) -> BTreeMap<u64, UsageRecord> {
    let mut export = client.export_usage(Some(0)).await.unwrap();
    let mut records = BTreeMap::new();
    while let Some(record) = export.next().await.unwrap() {
        let number = record.billing_id.parse().unwrap();
        assert_eq!(record.sequence, records.len() as u64 + 1);
        let before = records.insert(number, record);
        assert!(before.is_none(), "{number} is billed twice");
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_delivery_is_billed_than_it_had_whoever_settles_it_and_whatever_happens() {
    let settles = number("KVTIER_SETTLES").unwrap_or(SETTLES);
    let deliveries = number("KVTIER_DELIVERIES").unwrap_or(DELIVERIES);
    let kills = number("KVTIER_KILLS").unwrap_or(KILLS);
    let dir = tempfile::tempdir().unwrap();
    let claims = Arc::new(Claims::default());
    for round in 0..=kills {
        let (mut process, client, fingerprint, address) = serve(dir.path()).await;
        claims::store(&client, fingerprint).await;
        let until = settles * (round + 1) / (kills + 1);
        let mut running = JoinSet::new();
        for task in 0..TASKS {
            let (name, address, claims) = (format!("engine-{round}-{task}"), address.clone(), Arc::clone(&claims));
            running.spawn(async move {
                let to_deliver = deliveries.div_ceil(TASKS * (kills + 1));
                let claimer = Claimer::connect(&name, &address, fingerprint, to_deliver, &claims).await;
                if let Some(claimer) = claimer {
                    claimer.run(if round == kills { until } else { u64::MAX }).await;
                }
            });
        }
        if round < kills {
            let reached = async {
                while claims.calls.load(Ordering::Relaxed) < until {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(PATIENCE, reached).await.expect("settles go on");
            process.kill();
        }
        running.join_all().await;
    }
    let (process, client, ..) = serve(dir.path()).await;
    let billed = billed_by_delivery(&client, &claims).await;
    let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap();
    drop(process);
    let audit = kvtier::offline::audit(&dir.path().join("data")).unwrap();
    assert_eq!(audit.differences, 0, "{:?}", audit.examples);
    let joined = audit.deliveries;
    assert_eq!((joined.billed_tokens, total.hit_tokens, joined.unproven_records), (billed, billed, 0));
    assert!(billed > 0 && billed <= joined.delivered_tokens, "{joined:?}");
    let delivered: u64 = claims.deliveries.lock().unwrap().iter().map(|delivery| delivery.tokens).sum();
    assert!(joined.delivered_tokens <= delivered, "{joined:?}, {delivered} were delivered");
    eprintln!("{claims}; {billed} of {delivered} tokens billed, {} deliveries with an owner", joined.billed);
    claims.check_it_was_a_torture();
}

/// Tokens that are billed as hits, after a look at each delivery on its own: at all records of its request.
async fn billed_by_delivery(client: &Client, claims: &Claims) -> u64 {
    let mut billed: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut settled = claims.settled.lock().unwrap().clone();
    let mut export = client.export_usage(Some(0)).await.unwrap();
    while let Some(record) = export.next().await.unwrap() {
        if let Some(acknowledged) = settled.remove(&record.billing_id) {
            assert_eq!(record.hit_tokens, acknowledged, "as it was acknowledged: {record:?}");
        }
        *billed.entry((record.instance, record.request_id)).or_default() += record.hit_tokens;
    }
    assert_eq!(settled, BTreeMap::new(), "acknowledged, and not there");
    let deliveries = claims.deliveries.lock().unwrap();
    for delivery in deliveries.iter() {
        let key = (delivery.instance.to_string(), delivery.request.to_string());
        let tokens = billed.get(&key).copied().unwrap_or_default();
        assert!((0..=delivery.tokens.cast_signed()).contains(&tokens), "{tokens} billed of {delivery:?}");
    }
    billed.values().sum::<i64>().unsigned_abs()
}
