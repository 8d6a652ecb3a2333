//! A planned stop leaves a warm drive whatever the admission: what only RAM has is written first, unless there is no time.

use std::time::Duration;

use kvtier::daemon::{Config, Daemon};
use kvtier::plan::AdmissionKind;

use crate::support::{Gate, Server, chain, config, payload, spec};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_ram_has_is_there_after_a_stop_that_has_time_and_not_after_one_that_has_none() {
    for (flush_max, expected) in [(Duration::from_secs(30), 40), (Duration::ZERO, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let config = || Config { admission: AdmissionKind::RamEviction, flush_max, ..config(dir.path(), MIB, MIB) };
        let start = async || {
            let daemon = Daemon::start(config()).await.unwrap();
            Server { daemon, gate: Gate::connect(&dir.path().join("kvtier.sock")).await }
        };
        let server = start().await;
        let (session, stream) = server.session("engine").await;
        let layout = server.register(spec()).await;
        for seed in 0..4 {
            server.put(session, chain(&layout, seed, 10), |block| payload(seed, block)).await;
        }
        server.quiesce().await;
        let status = server.status().await;
        assert_eq!((status.ram.unwrap().blocks, status.nvme.unwrap().blocks), (40, 0), "RAM lets nothing go yet");
        drop(stream);
        server.stop().await;

        let server = start().await;
        let (session, _stream) = server.session("engine").await;
        let mut found = 0;
        for seed in 0..4 {
            let (payloads, _) = server.fetch(session, &format!("r{seed}"), chain(&layout, seed, 10)).await;
            let right = (0..payloads.len() as u32).map(|block| payload(seed, block)).collect::<Vec<_>>();
            assert!(payloads == right, "{seed}");
            found += payloads.len();
        }
        assert_eq!(found, expected, "with {flush_max:?} to write");
        server.stop().await;
    }
}
