//! `kvtier verify`: every slot of a stopped folder against the index.

use std::path::PathBuf;

use clap::Args;

use super::output::Output;
use super::progress::Bar;
use super::table::{numbers, thousands};
use super::{CliError, size};
use crate::offline::{VerifyReport, verify};
use crate::vocab::ByteCount;

/// Problems shown to people; the JSON lists more.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The data folder, on which no daemon runs.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let bar = Bar::new(0, "bytes");
        let report = verify(&self.data_dir, |done, total| {
            bar.of(total.0);
            bar.at(done.0);
        })?;
        drop(bar);
        if self.json {
            output.json(&report)?
        } else {
            output.text(text(&report))?
        }
        if report.corrupt == 0 {
            return Ok(());
        }
        Err(CliError::Bad(format!("{} of {} blocks are corrupt", report.corrupt, report.blocks)))
    }
}

fn text(report: &VerifyReport) -> String {
    let row = |name: &str, number: u64, meaning: &str| [name.to_owned(), thousands(number), meaning.to_owned()];
    let rows = [
        row("blocks", report.blocks, "rows of the index"),
        ["bytes".to_owned(), size::human(ByteCount(report.bytes)), "of their payloads".to_owned()],
        row("corrupt", report.corrupt, "bytes were changed: the drive lied, or somebody wrote to it"),
        row("stale", report.stale, "rows that can't be true, as after a power loss: misses, no harm"),
        row("orphaned", report.orphaned, "an ancestor is gone: unreachable, first to be evicted"),
        row("undecodable", report.undecodable_rows, "rows that can't be read: a daemon drops them"),
        row("unreferenced slots", report.unreferenced_slots, "free slots of extents in use"),
    ];
    let mut table = numbers(["verify", "", "meaning"], rows);
    if let Some(meaning) = table.column_mut(2) {
        meaning.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let mut lines = vec![table.to_string()];
    for problem in report.problems.iter().take(SHOWN) {
        let kind = format!("{:?}", problem.kind).to_lowercase();
        lines.push(format!("{kind}: block {} in slot {}: {}", problem.key, problem.slot, problem.what));
    }
    let more = report.problems.len().saturating_sub(SHOWN) as u64 + report.problems_omitted;
    if more > 0 {
        lines.push(format!("and {} more, of which --json lists up to 1,000", thousands(more)));
    }
    if report.after_power_loss {
        lines.push("The machine went down while a daemon ran: rows without their bytes count as stale.".to_owned());
    }
    lines.push(if report.corrupt > 0 {
        "A daemon serves none of these: what can't be proven right is a miss.".to_owned()
    } else if report.stale > 0 {
        "Every block that a daemon would serve is whole; stale rows are misses.".to_owned()
    } else {
        "Every block is whole.".to_owned()
    });
    lines.join("\n")
}
