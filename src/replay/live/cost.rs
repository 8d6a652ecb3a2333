//! What a live replay costs the server: what it says of itself before, meanwhile and after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::super::live_report::ServerFigures;
use crate::client::{Client, DriveStatus, ProcessStatus, Status};

/// The server's memory is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at the server's memory until it is dropped.
pub(super) struct Watch {
    now: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    _looking: JoinSet<()>,
}

impl Watch {
    pub(super) fn start(client: Client) -> Self {
        let (now, most) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let seen = (Arc::clone(&now), Arc::clone(&most));
        let mut looking = JoinSet::new();
        looking.spawn(async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // It may not be asked, or does not say.
                let Ok(Status { process: Some(process), .. }) = client.status().await else { return };
                seen.0.store(process.resident_bytes, Ordering::Relaxed);
                seen.1.fetch_max(process.resident_bytes, Ordering::Relaxed);
            }
        });
        Self { now, most, _looking: looking }
    }

    /// Its memory at the last look; 0 where it does not tell.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The most at any look.
    pub(super) fn resident_bytes_max(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// What lies between two statuses. `seen_max` is the most memory that was seen between them.
pub(super) fn between(before: &Status, after: &Status, seen_max: u64, embedded: bool) -> ServerFigures {
    let drives = |of: fn(&DriveStatus) -> u64| {
        let sum = |status: &Status| status.drives.iter().map(of).sum::<u64>();
        // A server that was started again counts from zero.
        sum(after).saturating_sub(sum(before))
    };
    let blocks = before.nvme.iter().chain(&before.ram).map(|tier| tier.blocks).max();
    let mut figures = ServerFigures {
        drive_read_bytes: drives(|drive| drive.read_bytes),
        drive_written_bytes: drives(|drive| drive.device_written_bytes),
        blocks_before: blocks.unwrap_or_default(),
        wear_budget_bytes_per_day: after.drives.iter().map(|drive| drive.wear_budget_bytes_per_day).sum(),
        ..ServerFigures::default()
    };
    let (Some(begun), Some(ended)) = (&before.process, &after.process) else { return figures };
    let cpu = Some((ended.cpu_seconds - begun.cpu_seconds).max(0.0));
    let (now, most) = (Some(ended.resident_bytes), Some(peak(begun, ended, seen_max)));
    if embedded {
        (figures.process_cpu_seconds, figures.process_resident_bytes, figures.process_resident_bytes_max) =
            (cpu, now, most);
    } else {
        (figures.server_cpu_seconds, figures.server_resident_bytes, figures.server_resident_bytes_max) =
            (cpu, now, most);
    }
    figures
}

/// The most memory of a run. A process knows the most of its life, which was of this run if it grew meanwhile.
fn peak(begun: &ProcessStatus, ended: &ProcessStatus, seen_max: u64) -> u64 {
    let seen = seen_max.max(ended.resident_bytes);
    if ended.resident_bytes_max > begun.resident_bytes_max { ended.resident_bytes_max.max(seen) } else { seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::TierStatus;

    fn status(cpu_seconds: f64, memory: (u64, u64), drives: &[(u64, u64)]) -> Status {
        let drive = |(read_bytes, device_written_bytes): &(u64, u64)| DriveStatus {
            read_bytes: *read_bytes,
            device_written_bytes: *device_written_bytes,
            ..DriveStatus::default()
        };
        let (resident_bytes, resident_bytes_max) = memory;
        Status {
            process: Some(ProcessStatus { cpu_seconds, resident_bytes, resident_bytes_max }),
            drives: drives.iter().map(drive).collect(),
            nvme: Some(TierStatus { blocks: 7, ..TierStatus::default() }),
            ..Status::default()
        }
    }

    #[test]
    fn a_run_costs_what_the_server_counted_meanwhile_on_all_drives() {
        let (before, after) = (status(2.0, (50, 90), &[(1, 10), (2, 20)]), status(5.5, (60, 90), &[(4, 40), (8, 80)]));
        let figures = between(&before, &after, 70, false);
        assert_eq!((figures.drive_read_bytes, figures.drive_written_bytes, figures.blocks_before), (9, 90, 7));
        assert_eq!((figures.server_cpu_seconds, figures.server_resident_bytes), (Some(3.5), Some(60)));
        assert_eq!(figures.server_resident_bytes_max, Some(70), "90 was before the run");
        assert_eq!(figures.process_cpu_seconds, None);
    }

    #[test]
    fn a_peak_between_two_looks_is_the_runs_and_an_embedded_servers_costs_are_called_the_processs() {
        let figures = between(&status(2.0, (50, 90), &[]), &status(2.5, (60, 95), &[]), 70, true);
        assert_eq!((figures.process_resident_bytes_max, figures.process_cpu_seconds), (Some(95), Some(0.5)));
        assert_eq!(figures.server_cpu_seconds, None);
        let silent = Status { process: None, ..status(0.0, (0, 0), &[]) };
        assert_eq!(between(&silent, &silent, 0, true).process_cpu_seconds, None);
    }
}
