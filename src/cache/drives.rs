//! The drives as people see them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Cache;
use crate::tiers::{DrivePlace, Gauges, NvmeStats};
use crate::vocab::ByteCount;

/// Whether a drive is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveState {
    /// It is.
    Ok,
    /// It kept failing and was taken out.
    Out,
    /// It was not there at the start, or could not be opened.
    Missing,
}

/// One drive now.
#[derive(Clone, Debug)]
pub struct DriveStatus {
    /// Its number.
    pub number: u16,
    /// Its directory; empty where that is nobody's business.
    pub dir: PathBuf,
    /// How bytes reach it.
    pub kind: String,
    /// What people should know of it, such as why it is missing.
    pub note: String,
    /// Whether it is used.
    pub state: DriveState,
    /// Bytes of its slots.
    pub capacity: ByteCount,
    /// Bytes of its slots in use.
    pub used: ByteCount,
    /// What it is doing now.
    pub gauges: Gauges,
    /// What it has done since the start.
    pub stats: NvmeStats,
    /// Bytes written to it since the store was begun.
    pub written_total: ByteCount,
    /// Bytes written to it in the last 24 hours.
    pub written_day: ByteCount,
    /// Bytes a day that it may be written.
    pub wear_budget: Option<ByteCount>,
}

impl DriveStatus {
    fn missing(place: &DrivePlace) -> Self {
        Self {
            number: place.number,
            dir: place.dir.clone(),
            kind: String::new(),
            note: place.missing.clone().unwrap_or_default(),
            state: DriveState::Missing,
            capacity: ByteCount::ZERO,
            used: ByteCount::ZERO,
            gauges: Gauges::default(),
            stats: NvmeStats::default(),
            written_total: ByteCount::ZERO,
            written_day: ByteCount::ZERO,
            wear_budget: None,
        }
    }
}

impl Cache {
    /// Every drive that the store has or had, by number; `used`: what the planner says of their slots.
    pub(super) fn drives(&self, used: &[u64]) -> Vec<DriveStatus> {
        let missing = |place: &DrivePlace| (place.number, DriveStatus::missing(place));
        let mut drives: BTreeMap<u16, DriveStatus> = self.places.iter().map(missing).collect();
        let Some(nvme) = &self.nvme else { return drives.into_values().collect() };
        let capacities: Vec<u64> = nvme.shape().drives().collect();
        let worn = self.wears.look(nvme, self.clock.now());
        for (number, device, stats, out) in nvme.drives() {
            let Some(device) = device else { continue };
            let nowhere = DrivePlace { number, dir: PathBuf::new(), missing: None };
            let drive = drives.entry(number).or_insert_with(|| DriveStatus::missing(&nowhere));
            let (_, total, day) = worn.iter().find(|(drive, ..)| *drive == number).copied().unwrap_or_default();
            drive.kind = device.kind().to_owned();
            drive.state = if out { DriveState::Out } else { DriveState::Ok };
            let drawback = || device.drawback().unwrap_or_default();
            drive.note = if out { "it kept failing and was taken out".into() } else { drawback() };
            drive.capacity = ByteCount(capacities.get(usize::from(number)).copied().unwrap_or_default());
            drive.used = ByteCount(used.get(usize::from(number)).copied().unwrap_or_default());
            (drive.stats, drive.gauges) = (stats, device.gauges());
            (drive.written_total, drive.written_day) = (ByteCount(total), ByteCount(day));
            drive.wear_budget = self.wear_budget;
        }
        drives.into_values().collect()
    }
}
