//! A daemon on several drives: blocks take turns on them, and what became of each is in the status, also after a restart.

use std::path::Path;

use kvtier::daemon::{Config, Daemon, DriveSpec};
use kvtier::proto::{self, DriveState};
use kvtier::vocab::ByteCount;

use crate::support::{Gate, Server, chain, config, payload, spec};

const MIB: u64 = 1 << 20;

/// A drive in the data folder and one in `dir/second`.
pub(crate) fn two_drives(dir: &Path, ram: u64, nvme: u64) -> Config {
    let second = dir.join("second");
    std::fs::create_dir_all(&second).unwrap();
    let drive = DriveSpec { dir: Some(second), bytes: ByteCount(nvme) };
    let mut config = config(dir, ram, nvme);
    config.nvme.push(drive);
    config
}

async fn start(dir: &Path, config: Config) -> Server {
    let daemon = Daemon::start(config).await.unwrap();
    Server { daemon, gate: Gate::connect(&dir.join("kvtier.sock")).await }
}

fn states(status: &proto::Status) -> Vec<DriveState> {
    status.drives.iter().map(proto::DriveStatus::state).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_a_drive_between_two_starts_loses_its_blocks_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let config = || two_drives(dir.path(), MIB, MIB);
    let server = start(dir.path(), config()).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    // Prompts of one block, so that each is hit or missed by itself; more than one extent of 128 KiB holds.
    for seed in 0..100 {
        server.put(session, chain(&layout, seed, 1), |block| payload(seed, block)).await;
    }
    server.quiesce().await;
    let status = server.status().await;
    assert_eq!(states(&status), [DriveState::Ok, DriveState::Ok]);
    let written: Vec<u64> = status.drives.iter().map(|drive| drive.writes).collect();
    assert!(written.iter().sum::<u64>() == 100 && written.iter().all(|writes| *writes >= 32), "{written:?}");
    assert_eq!(status.nvme.unwrap().capacity_bytes, 2 * MIB);
    drop(stream);
    server.stop().await;

    std::fs::rename(dir.path().join("second"), dir.path().join("aside")).unwrap();
    std::fs::create_dir(dir.path().join("second")).unwrap();
    let server = start(dir.path(), config()).await;
    let (session, _stream) = server.session("engine").await;
    let status = server.status().await;
    assert_eq!((states(&status), status.orphans), (vec![DriveState::Ok, DriveState::Missing], 0));
    assert!(status.drives[1].note.contains("run: mkdir"), "{}", status.drives[1].note);
    let nvme = status.nvme.unwrap();
    assert_eq!((nvme.blocks, nvme.capacity_bytes), (written[0], MIB));
    let mut hit = 0;
    for seed in 0..100 {
        let (payloads, _) = server.fetch(session, &format!("r{seed}"), chain(&layout, seed, 1)).await;
        assert!(payloads.iter().all(|bytes| *bytes == payload(seed, 0)), "{seed}");
        hit += payloads.len() as u64;
    }
    assert_eq!(hit, written[0], "the blocks of the other drive are all there");
    server.stop().await;
    assert_eq!(
        std::fs::read_dir(dir.path().join("second")).unwrap().count(),
        0,
        "nothing is written below the mount point"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drive_was_written_is_counted_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let budget = Some(ByteCount(10 * MIB));
    let config = || Config { wear_budget: budget, ..two_drives(dir.path(), MIB, MIB) };
    let mut expected = [0; 2];
    for round in 0..3 {
        let server = start(dir.path(), config()).await;
        let (session, stream) = server.session("engine").await;
        let layout = server.register(spec()).await;
        server.put(session, chain(&layout, round, 40), |block| payload(round, block)).await;
        server.quiesce().await;
        let status = server.status().await;
        for (drive, total) in status.drives.iter().zip(&mut expected) {
            *total += drive.device_written_bytes;
            assert_eq!(
                (drive.written_bytes_total, drive.written_bytes_day),
                (*total, *total),
                "drive {}",
                drive.number
            );
            assert_eq!(drive.wear_budget_bytes_per_day, 10 * MIB);
        }
        let written: u64 = status.drives.iter().map(|drive| drive.device_written_bytes).sum();
        assert_eq!(written, 40 * 4096, "round {round}");
        // What the databases write beside these few small blocks is no measure; that it is counted is.
        if let Some(factor) = status.write_amplification {
            assert!(factor >= 1.0, "{factor}");
        }
        drop(stream);
        server.stop().await;
    }
}
