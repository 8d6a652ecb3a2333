//! `kill -9` in the middle of a replay: nothing corrupt, the drive's blocks are hit again, every acknowledged settle is
//! there once. The daemon is a process of its own here, and dies without a word.
//!
//! `KVTIER_KILLS` sets how often (each on the folder that the one before left).

use kvtier::client::{Client, UsageFilter};
use kvtier::offline::verify;
use kvtier::replay::live::{LiveOptions, replay};
use kvtier::replay::{GenerateOptions, Generator, Trace};
use kvtier::vocab::TenantName;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::process::Process;

const TIERS: [&str; 4] = ["--ram", "4MiB", "--nvme", "64MiB"];

fn options(quiesce_between: bool, settle: bool, round: u64) -> LiveOptions {
    LiveOptions {
        block_bytes: 8192,
        quiesce_between,
        settle,
        billing_prefix: format!("round-{round}-"),
        ..LiveOptions::new(TenantName::parse("crash").unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_comes_back_warm_right_and_with_every_acknowledged_settle() {
    let kills = std::env::var("KVTIER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let generate = GenerateOptions { requests: 200, ..GenerateOptions::default() };
    let block_tokens = generate.block_tokens;
    let trace = Trace::collect(block_tokens, Generator::new(generate).unwrap());
    let mut random = SmallRng::seed_from_u64(9);
    let (mut acknowledged, mut reached, mut stored) = (0, 0, 0);
    for round in 0..kills {
        // Every other round, all that a request stored is on the drive before the next one begins.
        let quiesced = round % 2 == 0;
        let die_at: u64 = random.random_range(5..trace.len() as u64);
        let (mut process, address) = Process::start(dir.path(), &TIERS).await;
        let mut done = 0;
        let settling = options(quiesced, true, round);
        let run = replay(&address, &trace, &settling, |requests, _| {
            done = requests;
            if requests == die_at {
                process.kill();
            }
        });
        run.await.expect_err("the daemon was killed");
        drop(process);
        assert!(done >= die_at);
        acknowledged += done;

        let report = verify(&dir.path().join("data"), |_, _| {}).unwrap();
        assert_eq!((report.corrupt, report.stale), (0, 0), "{report:?}");
        let (process, address) = Process::start(dir.path(), &TIERS).await;
        let client = Client::connect(&address).await.unwrap();
        let nvme = client.status().await.unwrap().nvme.unwrap();
        assert_eq!(nvme.blocks, report.blocks, "what verify finds is what the daemon has");
        if quiesced {
            // The requests that were done are hit in full, each byte right.
            let again = LiveOptions { max_requests: Some(done), ..options(true, false, round) };
            let again = replay(&address, &trace, &again, |_, _| {}).await.unwrap();
            let figures = again.live.unwrap();
            assert_eq!((figures.mismatched_blocks, figures.blocks_not_delivered, figures.bytes_stored), (0, 0, 0));
            assert_eq!((again.blocks_hit, again.miss_tokens), (again.blocks_asked, 0));
            reached += again.blocks_hit;
            stored += again.blocks_asked;
        }
        let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap_or_default();
        // One settle a round may have been written and not acknowledged.
        let most = acknowledged + round + 1;
        assert!(
            (acknowledged..=most).contains(&total.records),
            "{} records, {acknowledged} acknowledged",
            total.records
        );
        drop(process);
    }
    eprintln!("{kills} kills: {reached} of {stored} blocks hit again, {acknowledged} acknowledged settles all there");
}
