//! The drives in `kvtier status`.

use comfy_table::CellAlignment;
use serde::Serialize;

use super::size;
use super::table::{numbers, percent, thousands};
use crate::client::{DriveState, DriveStatus};
use crate::vocab::ByteCount;

/// One drive, as programs see it. Field names are a contract: add, never rename.
#[derive(Serialize)]
pub(super) struct Drive {
    number: u32,
    dir: String,
    kind: String,
    note: String,
    /// `ok`, `out` or `missing`.
    state: &'static str,
    capacity_bytes: u64,
    used_bytes: u64,
    reads: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
    device_written_bytes: u64,
    read_errors: u64,
    write_errors: u64,
    corrupt: u64,
    dropped: u64,
    written_bytes_total: u64,
    written_bytes_day: u64,
    wear_budget_bytes_per_day: Option<u64>,
    inflight_bytes: u64,
    queued_jobs: u64,
    registered_bytes: u64,
}

impl From<DriveStatus> for Drive {
    fn from(drive: DriveStatus) -> Self {
        let state = match drive.state() {
            DriveState::Ok => "ok",
            DriveState::Out => "out",
            DriveState::Missing => "missing",
            DriveState::Unspecified => "unknown",
        };
        Self {
            number: drive.number,
            dir: drive.dir,
            kind: drive.kind,
            note: drive.note,
            state,
            capacity_bytes: drive.capacity_bytes,
            used_bytes: drive.used_bytes,
            reads: drive.reads,
            read_bytes: drive.read_bytes,
            writes: drive.writes,
            written_bytes: drive.written_bytes,
            device_written_bytes: drive.device_written_bytes,
            read_errors: drive.read_errors,
            write_errors: drive.write_errors,
            corrupt: drive.corrupt,
            dropped: drive.dropped,
            written_bytes_total: drive.written_bytes_total,
            written_bytes_day: drive.written_bytes_day,
            wear_budget_bytes_per_day: Some(drive.wear_budget_bytes_per_day).filter(|budget| *budget > 0),
            inflight_bytes: drive.inflight_bytes,
            queued_jobs: drive.queued_jobs,
            registered_bytes: drive.registered_bytes,
        }
    }
}

/// Each drive and its wear, and a line for each of which something is to be said.
pub(super) fn text(drives: &[Drive]) -> String {
    let human = |bytes| size::human(ByteCount(bytes));
    let state = |drive: &Drive| {
        [
            drive.number.to_string(),
            drive.dir.clone(),
            drive.state.to_owned(),
            drive.kind.clone(),
            human(drive.used_bytes),
            human(drive.capacity_bytes),
            thousands(drive.read_errors + drive.write_errors),
            thousands(drive.corrupt),
        ]
    };
    let header = ["drive", "at", "state", "by", "used", "of", "errors", "corrupt"];
    let mut states = numbers(header, drives.iter().map(state));
    for words in 1..=3 {
        if let Some(column) = states.column_mut(words) {
            column.set_cell_alignment(CellAlignment::Left);
        }
    }
    let wear = |drive: &Drive| {
        let budget = drive.wear_budget_bytes_per_day;
        [
            drive.number.to_string(),
            human(drive.read_bytes),
            human(drive.device_written_bytes),
            human(drive.written_bytes_day),
            budget.map_or("-".to_owned(), |budget| percent(drive.written_bytes_day as f64 / budget as f64)),
            human(drive.written_bytes_total),
        ]
    };
    let header = ["drive", "read", "written", "in 24 hours", "of its budget", "ever"];
    let used = drives.iter().filter(|drive| drive.capacity_bytes > 0);
    let noted = drives.iter().filter(|drive| !drive.note.is_empty());
    let notes = noted.map(|drive| format!("\ndrive {} ({}): {}", drive.number, drive.state, drive.note));
    format!("{states}\n{}{}", numbers(header, used.map(wear)), notes.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_look_like_this() {
        let ok = DriveStatus {
            dir: "/var/lib/kvtier".into(),
            kind: "pread, O_DIRECT".into(),
            state: DriveState::Ok.into(),
            capacity_bytes: 8 << 40,
            used_bytes: 3 << 40,
            read_bytes: 5 << 30,
            device_written_bytes: 1 << 30,
            written_bytes_day: 512 << 30,
            wear_budget_bytes_per_day: 1 << 40,
            written_bytes_total: 40 << 40,
            corrupt: 1_234,
            ..DriveStatus::default()
        };
        let missing = DriveStatus {
            number: 1,
            dir: "/mnt/b".into(),
            state: DriveState::Missing.into(),
            note: "not mounted".into(),
            ..DriveStatus::default()
        };
        let expected = "\
╭───────┬─────────────────┬─────────┬─────────────────┬─────────┬─────────┬────────┬─────────╮
│ drive ┆ at              ┆ state   ┆ by              ┆    used ┆      of ┆ errors ┆ corrupt │
╞═══════╪═════════════════╪═════════╪═════════════════╪═════════╪═════════╪════════╪═════════╡
│ 0     ┆ /var/lib/kvtier ┆ ok      ┆ pread, O_DIRECT ┆   3 TiB ┆   8 TiB ┆      0 ┆   1,234 │
│ 1     ┆ /mnt/b          ┆ missing ┆                 ┆ 0 bytes ┆ 0 bytes ┆      0 ┆       0 │
╰───────┴─────────────────┴─────────┴─────────────────┴─────────┴─────────┴────────┴─────────╯
╭───────┬───────┬─────────┬─────────────┬───────────────┬────────╮
│ drive ┆  read ┆ written ┆ in 24 hours ┆ of its budget ┆   ever │
╞═══════╪═══════╪═════════╪═════════════╪═══════════════╪════════╡
│ 0     ┆ 5 GiB ┆   1 GiB ┆     512 GiB ┆        50.0 % ┆ 40 TiB │
╰───────┴───────┴─────────┴─────────────┴───────────────┴────────╯
drive 1 (missing): not mounted";
        let shown = text(&[ok.into(), missing.into()]);
        assert_eq!(shown, expected, "{shown}");
    }
}
