//! A drive that fails while the daemon runs goes out alone: its blocks are misses, all others are hit, puts go on, and the
//! status and a metric say so.

use std::time::Duration;

use kvtier::cache::drives::DriveState;
use kvtier::daemon::{Config, Daemon};
use kvtier::media::Faults;
use kvtier::proto;

use crate::host::{Host, RAM, key};
use crate::metrics::{ask, parse};
use crate::several_drives::two_drives;
use crate::support::{Gate, chain, payload, spec};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_keeps_failing_loses_its_own_blocks_and_the_cache_goes_on_with_the_rest() {
    let host = Host::new();
    host.put(0..100).await;
    let mut drives = Vec::new();
    for seed in 0..100 {
        drives.push(host.drive(seed).await);
    }
    let on = |drive| drives.iter().filter(|on| **on == Some(drive)).count();
    assert!(on(0) >= 32 && on(1) >= 32 && on(0) + on(1) == 100, "{drives:?}");

    host.second.set_faults(Faults { read_error: 1.0, write_error: 1.0, ..Faults::default() });
    for (seed, drive) in (0..100).zip(&drives) {
        let came = host.fetch(seed).await;
        assert!(came || *drive == Some(1), "block {seed} of the drive that works");
    }
    assert!(host.cache.quiesce(Duration::from_secs(10)).await.unwrap(), "what is lost is let go in the end");
    let status = host.cache.status().await.unwrap();
    let states: Vec<DriveState> = status.drives.iter().map(|drive| drive.state).collect();
    assert_eq!(states, [DriveState::Ok, DriveState::Out]);
    assert!(status.drives[1].note.contains("taken out") && status.drives[1].stats.read_errors >= 16, "{status:?}");
    assert_eq!(status.drives[1].used.0, 0, "nothing is kept on a drive that is out");
    for (seed, drive) in (0..100).zip(&drives) {
        // Those that RAM had kept are readable from there.
        let in_ram = host.cache.inspect(key(seed)).await.unwrap().is_some_and(|known| known.ram_slot.is_some());
        assert_eq!(host.found(seed).await, *drive == Some(0) || in_ram, "{seed}");
    }

    let writes = status.drives[1].stats;
    host.put(100..130).await;
    for seed in 100..130 {
        assert_eq!(host.drive(seed).await, Some(0), "{seed} goes to the drive that is left");
    }
    for seed in 100..130 {
        assert!(host.fetch(seed).await, "{seed}");
    }
    let status = host.cache.status().await.unwrap();
    assert_eq!(status.drives[1].stats, writes, "nothing is tried on a drive that is out");
    host.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drives_file_that_is_cut_off_from_outside_is_a_drive_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { metrics: "127.0.0.1:0".parse().ok(), ..two_drives(dir.path(), RAM, MIB) };
    let daemon = Daemon::start(config).await.unwrap();
    let gate = Gate::connect(&dir.path().join("kvtier.sock")).await;
    let (session, stream) = gate.session("engine").await;
    let layout = gate.register(spec()).await;
    for seed in 0..100 {
        gate.put(session, chain(&layout, seed, 1), |block| payload(seed, block)).await;
        gate.quiesce().await;
    }
    let before = gate.status().await;
    let own = std::fs::read_dir(dir.path().join("second")).unwrap().next().unwrap().unwrap().path();
    std::fs::File::options().write(true).open(own.join("1.kv")).unwrap().set_len(0).unwrap();
    let mut hit = 0;
    for seed in 0..100 {
        let (payloads, _) = gate.fetch(session, &format!("r{seed}"), chain(&layout, seed, 1)).await;
        assert!(payloads.iter().all(|bytes| *bytes == payload(seed, 0)), "{seed}");
        hit += payloads.len() as u64;
    }
    gate.quiesce().await;
    let status = gate.status().await;
    assert_eq!(status.drives[1].state(), proto::DriveState::Out);
    assert_eq!(status.drives[0].state(), proto::DriveState::Ok);
    assert!(
        hit >= before.drives[0].writes && hit < 100,
        "{hit} of 100, {} on the drive that is left",
        before.drives[0].writes
    );
    let samples = parse(&ask(daemon.metrics().unwrap(), "GET", "/metrics").await.2);
    assert_eq!(samples["kvtier_drive_out{drive=\"1\"}"], 1.0);
    assert_eq!(samples["kvtier_drive_out{drive=\"0\"}"], 0.0);
    assert!(samples["kvtier_nvme_read_errors_total{drive=\"1\"}"] >= 16.0);
    // Told within a second, since that is how often it is looked at.
    let out = proto::HealthState::Degraded;
    let asked = std::time::Instant::now();
    let health = loop {
        assert!(asked.elapsed() < Duration::from_secs(60), "nobody is told of it");
        let health = gate.status().await.health;
        if health.iter().any(|health| health.state() == out) {
            break health;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let cache = health.iter().find(|health| health.service == "kvtier.v1.Cache").unwrap();
    assert!(cache.serving && cache.reasons.len() == 1, "{health:?}");
    assert!(cache.reasons[0].starts_with("drive 1 (") && cache.reasons[0].contains("is out"), "{health:?}");
    let again = gate.put(session, chain(&layout, 200, 1), |block| payload(200, block)).await;
    assert_eq!(again.stored_through, 1, "puts go on");
    drop((stream, gate));
    daemon.stop().await;
}
