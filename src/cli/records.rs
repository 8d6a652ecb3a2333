//! Exported records, from files of whatever format: lines of JSON, Parquet, or a folder of Parquet files.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::CliError;
use crate::ledger::UsageRecord;
use crate::ledger::shape::{Line, PARQUET_BEGINS, read_columns};
use crate::vocab::limits::EXPORT_LINE_BYTES_MAX;

/// What is done with each record; a refusal is told with the record's place.
pub(super) type Taken = Result<(), String>;

/// Reads all records of a file, of a folder's Parquet files by their names, or of standard input (`-`).
///
/// # Errors
/// Names the file and the line, or the row, of what is no record or was refused.
pub(super) fn read(path: &Path, take: &mut impl FnMut(&UsageRecord) -> Taken) -> Result<(), CliError> {
    if path == Path::new("-") {
        return read_lines(path, BufReader::new(io::stdin().lock()), take);
    }
    if path.is_dir() {
        return parts(path)?.iter().try_for_each(|part| read(part, take));
    }
    let fail = |source| CliError::File { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(fail)?);
    // Looked at, not taken: a pipe by a name can't go back.
    if file.fill_buf().map_err(fail)?.starts_with(PARQUET_BEGINS) {
        return read_rows(path, file.into_inner(), take);
    }
    read_lines(path, file, take)
}

fn parts(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let fail = |source| CliError::File { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut parts: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect();
    parts.sort();
    if parts.is_empty() {
        return Err(CliError::Bad(format!("{}: it is a folder without Parquet files", folder.display())));
    }
    Ok(parts)
}

fn read_rows(path: &Path, file: File, take: &mut impl FnMut(&UsageRecord) -> Taken) -> Result<(), CliError> {
    let fail = |source| CliError::File { path: path.to_owned(), source };
    for (row, line) in (1_u64..).zip(read_columns(file).map_err(fail)?) {
        let record = line.map_err(fail)?.and_then(|line| line.record()).map_err(|error| error.to_string());
        let taken = record.and_then(|record| take(&record));
        taken.map_err(|why| CliError::Record { path: path.to_owned(), line: row, why })?;
    }
    Ok(())
}

fn read_lines(
    path: &Path,
    mut reader: impl BufRead,
    take: &mut impl FnMut(&UsageRecord) -> Taken,
) -> Result<(), CliError> {
    let mut text = Vec::new();
    for line in 1_u64.. {
        text.clear();
        let limit = EXPORT_LINE_BYTES_MAX as u64 + 1;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut text);
        if read.map_err(|source| CliError::File { path: path.to_owned(), source })? == 0 {
            break;
        }
        let taken = record(&text).and_then(|record| record.map_or(Ok(()), |record| take(&record)));
        taken.map_err(|why| CliError::Record { path: path.to_owned(), line, why })?;
    }
    Ok(())
}

/// Nothing for an empty line.
fn record(text: &[u8]) -> Result<Option<UsageRecord>, String> {
    if text.len() > EXPORT_LINE_BYTES_MAX {
        return Err(format!("the line is longer than {EXPORT_LINE_BYTES_MAX} bytes, it must be one record"));
    }
    if text.starts_with(PARQUET_BEGINS) {
        return Err("it is Parquet, which must be read from a file".to_owned());
    }
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    Line::parse(text).and_then(|line| line.record()).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_pipe_by_a_name_is_read_from_its_first_byte_and_gives_nothing_that_was_not_in_it() {
        for (text, told) in [("\n\n", None), ("{}", Some("1")), ("\n\n\n\n\n{}\n", Some("6"))] {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            drop(writer);
            let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
            let line = match read(&path, &mut |_| Ok(())) {
                Err(CliError::Record { line, .. }) => Some(line.to_string()),
                read => read.map(|()| None).unwrap(),
            };
            assert_eq!(line.as_deref(), told, "{text:?}");
        }
    }
}
