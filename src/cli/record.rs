//! `kvtier replay --out`: where the run's record goes.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::CliError;
use crate::replay::{Record, RecordedTrace, ReplayReport};
use crate::vocab::{Clock, SystemClock};

/// Begun before the run, so that an hour's replay is not lost to a folder that is not there; there whole or not at all.
pub(super) struct RecordFile {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl RecordFile {
    pub(super) fn begin(path: &Path) -> Result<Self, CliError> {
        if path.exists() && !path.is_file() {
            return Err(CliError::usage("--out", &path.display(), "the name of a file"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As a plain file: what the umask leaves.
        let begun = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
        let file = begun.map_err(|source| CliError::File { path: path.into(), source })?;
        Ok(Self { path: path.into(), file })
    }

    pub(super) fn end(
        mut self,
        trace: RecordedTrace,
        options: Map<String, Value>,
        report: &ReplayReport,
    ) -> Result<(), CliError> {
        let record = Record::of(SystemClock.now(), trace, options, report);
        let written = serde_json::to_vec(&record).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            self.file.write_all(&text)
        });
        let path = self.path;
        let failed = |source| CliError::File { path: path.clone(), source };
        written.map_err(failed)?;
        self.file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Tally, Trace};

    #[test]
    fn a_record_is_there_whole_or_what_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "before").unwrap();
        drop(RecordFile::begin(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        let trace = RecordedTrace::of("t".to_owned(), &Trace::default());
        let report = Tally::default().report("lru", 1);
        RecordFile::begin(&path).unwrap().end(trace, Map::new(), &report).unwrap();
        let record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(record["trace"]["name"], "t");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_where_no_file_can_be_is_refused_before_the_run() {
        let folder = tempfile::tempdir().unwrap();
        assert!(RecordFile::begin(folder.path()).is_err());
        assert!(RecordFile::begin(&folder.path().join("absent/a.json")).is_err());
        assert!(RecordFile::begin(Path::new("/dev/null")).is_err(), "it would be replaced");
    }
}
