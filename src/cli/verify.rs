//! `kvtier verify`: every slot of a stopped folder against the index, or every block of a running server.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::output::Output;
use super::progress::Bar;
use super::server::{Shown, runtime};
use super::table::{numbers, thousands};
use super::{CliError, size};
use crate::client::{Client, ServerAddress, VerifyReply};
use crate::offline::{VerifyReport, verify};
use crate::vocab::ByteCount;

/// Problems shown to people; the JSON lists more.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(super) struct Verify {
    /// The data folder, on which no daemon runs.
    #[arg(long, value_name = "DIR", group = "what")]
    data_dir: Option<PathBuf>,
    /// A running daemon, which reads all its blocks once, after those who wait: host:port, a URL, or unix:PATH. A block
    /// that went bad is a miss from then on.
    #[arg(long, value_name = "ADDRESS", group = "what", value_parser = ServerAddress::parse)]
    server: Option<ServerAddress>,
    #[command(flatten)]
    shown: Shown,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What a running server has found, as programs see it: the same fields as far as they mean something there.
#[derive(Serialize)]
struct Online {
    blocks: u64,
    bytes: u64,
    corrupt: u64,
    /// A daemon has none: it drops them when it starts.
    stale: u64,
    orphaned: u64,
    /// It alone knows, and does not say.
    unreferenced_slots: Option<u64>,
    problems: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    key: String,
    what: String,
}

impl Verify {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let (corrupt, blocks) = match (&self.server, &self.data_dir) {
            (Some(server), _) => self.online(server, output)?,
            (None, Some(dir)) => self.offline(dir, output)?,
            (None, None) => return Err(CliError::usage("--data-dir", &"absent", "given, or --server")),
        };
        if corrupt == 0 {
            return Ok(());
        }
        Err(CliError::Bad(format!("{corrupt} of {blocks} blocks are corrupt")))
    }

    fn offline(&self, dir: &Path, output: &mut Output) -> Result<(u64, u64), CliError> {
        let bar = Bar::new(0, "bytes");
        let report = verify(dir, |done, total| {
            bar.of(total.0);
            bar.at(done.0);
        })?;
        drop(bar);
        if self.json {
            output.json(&report)?
        } else {
            output.text(text(&report))?
        }
        Ok((report.corrupt, report.blocks))
    }

    fn online(&self, server: &ServerAddress, output: &mut Output) -> Result<(u64, u64), CliError> {
        let credentials = self.shown.credentials()?;
        let (bar, mut problems) = (Bar::new(0, "blocks"), Vec::new());
        let (found, orphaned) = runtime()?.block_on(async {
            let client = Client::connect_as(server, &credentials).await.map_err(CliError::NoDaemon)?;
            let progress = |found: &VerifyReply| {
                bar.of(found.of_blocks);
                bar.at(found.blocks);
                let key = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                problems.extend(found.problems.iter().map(|bad| Found { key: key(&bad.key), what: bad.what.clone() }));
            };
            let found = client.verify(progress).await?;
            Ok::<_, CliError>((found, client.status().await?.orphans))
        })?;
        drop(bar);
        let VerifyReply { blocks, bytes, corrupt, .. } = found;
        let report = Online { blocks, bytes, corrupt, stale: 0, orphaned, unreferenced_slots: None, problems };
        if self.json {
            output.json(&report)?
        } else {
            output.text(report.text())?
        }
        Ok((corrupt, blocks))
    }
}

impl Online {
    fn text(&self) -> String {
        let row = |name: &str, number: u64, meaning: &str| [name.to_owned(), thousands(number), meaning.to_owned()];
        let rows = [
            row("blocks", self.blocks, "read from the drives"),
            ["bytes".to_owned(), size::human(ByteCount(self.bytes)), "of their payloads".to_owned()],
            row("corrupt", self.corrupt, "could not be read, or were changed: misses from now on"),
            row("orphaned", self.orphaned, "an ancestor is gone: unreachable, first to be evicted, not read"),
        ];
        let mut lines = vec![table(rows)];
        let problem = |bad: &Found| format!("corrupt: block {}: {}", bad.key, bad.what);
        lines.extend(self.problems.iter().take(SHOWN).map(problem));
        let more = self.corrupt.saturating_sub(self.problems.len().min(SHOWN) as u64);
        if more > 0 {
            lines.push(format!("and {} more, of which --json lists up to 1,000", thousands(more)));
        }
        lines.join("\n")
    }
}

fn table(rows: impl IntoIterator<Item = [String; 3]>) -> String {
    let mut table = numbers(["verify", "", "meaning"], rows);
    if let Some(meaning) = table.column_mut(2) {
        meaning.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    table.to_string()
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
    let mut lines = vec![table(rows)];
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
