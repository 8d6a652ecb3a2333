//! A folder of Parquet files, which together are an export: each is named by the sequences of its first and last record, and is
//! there whole or not at all. One that was begun by an export that was killed is begun again.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::CliError;
use crate::ledger::UsageRecord;
use crate::ledger::shape::Columns;
use crate::vocab::limits::PARQUET_FILE_RECORDS;

/// What a file is called until it is whole.
const BEGUN: &str = "usage.begun";

/// The folder, and the file that is being written.
pub(super) struct Parts {
    folder: PathBuf,
    /// Sequence of the last record that the folder has.
    last: Option<u64>,
    begun: Option<Begun>,
}

struct Begun {
    columns: Columns<BufWriter<File>>,
    first: u64,
    last: u64,
    records: u64,
}

impl Parts {
    /// Opens or makes a folder.
    ///
    /// # Errors
    /// When it can't be, has something else in it, or a file between two others is missing.
    pub(super) fn open(folder: &Path) -> Result<Self, CliError> {
        let failed = |source| CliError::File { path: folder.to_owned(), source };
        let bad = |why: String| CliError::Bad(format!("{}: {why}; it was left as it is", folder.display()));
        fs::create_dir_all(folder).map_err(failed)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            match sequences(&name) {
                Some(part) => found.push(part),
                None if name == BEGUN => {}
                None => return Err(bad(format!("{name} is no part of an export"))),
            }
        }
        found.sort_unstable();
        if let Some(pair) = found.windows(2).find(|pair| pair[1].0 != pair[0].1 + 1) {
            return Err(bad(format!("after record {} comes record {}", pair[0].1, pair[1].0)));
        }
        Ok(Self { folder: folder.to_owned(), last: found.last().map(|(_, last)| *last), begun: None })
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    pub(super) fn write(&mut self, record: &UsageRecord) -> io::Result<()> {
        if self.begun.is_none() {
            let columns = Columns::new(BufWriter::new(File::create(self.folder.join(BEGUN))?))?;
            self.begun = Some(Begun { columns, first: record.sequence, last: record.sequence, records: 0 });
        }
        if let Some(begun) = &mut self.begun {
            begun.columns.write(record)?;
            begun.last = record.sequence;
            begun.records += 1;
            if begun.records >= PARQUET_FILE_RECORDS {
                self.finish()?;
            }
        }
        Ok(())
    }

    /// Ends the file that is being written: on the disk, and under its name, when this returns.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(Begun { columns, first, last, .. }) = self.begun.take() else { return Ok(()) };
        columns.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(self.folder.join(BEGUN), self.folder.join(name(first, last)))?;
        File::open(&self.folder)?.sync_all()?;
        self.last = Some(last);
        Ok(())
    }
}

/// Sorted as the records are.
fn name(first: u64, last: u64) -> String {
    format!("usage-{first:020}-{last:020}.parquet")
}

fn sequences(file: &str) -> Option<(u64, u64)> {
    let (first, last) = file.strip_prefix("usage-")?.strip_suffix(".parquet")?.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (file == name(first, last) && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64) -> UsageRecord {
        let line = crate::ledger::shape::Line {
            sequence,
            tenant: "acme".into(),
            billing_id: format!("b-{sequence}"),
            instance: "engine".into(),
            fingerprint: "07".repeat(32),
            namespace: "model".into(),
            settled_at: "2026-01-01T00:00:00Z".into(),
            role: "unified".into(),
            ..Default::default()
        };
        line.record().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_part_is_there_whole_or_not_at_all_and_the_next_goes_on_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let mut parts = Parts::open(&path).unwrap();
        assert_eq!(parts.last(), None);
        parts.finish().unwrap();
        assert_eq!(names(&path), [""; 0], "nothing new is no file");
        (1..=3).for_each(|sequence| parts.write(&record(sequence)).unwrap());
        parts.finish().unwrap();
        parts.write(&record(4)).unwrap();
        drop(parts); // killed
        let mut parts = Parts::open(&path).unwrap();
        assert_eq!(parts.last(), Some(3));
        parts.write(&record(4)).unwrap();
        parts.finish().unwrap();
        assert_eq!(names(&path), [name(1, 3), name(4, 4)]);
    }

    #[test]
    fn a_folder_of_something_else_or_with_a_gap_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |file: String| {
            fs::write(folder.path().join(&file), "").unwrap();
            let error = Parts::open(folder.path()).err().map(|error| error.to_string());
            fs::remove_file(folder.path().join(file)).unwrap();
            error.unwrap_or_default()
        };
        assert!(refused("notes.txt".into()).contains("notes.txt is no part of an export; it was left as it is"));
        assert!(refused("usage-1-2.parquet".into()).contains("is no part"));
        fs::write(folder.path().join(name(1, 2)), "").unwrap();
        assert!(refused(name(4, 5)).contains("after record 2 comes record 4"));
        assert!(refused(name(2, 5)).contains("after record 2 comes record 2"));
        assert_eq!(Parts::open(folder.path()).unwrap().last(), Some(2));
    }
}
