//! A file of exported records, and where it ends: an export that was killed in the middle of a line goes on as if it had
//! not begun that line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::CliError;
use super::export::Format;
use crate::ledger::shape::Line;

/// How far from its end a file is read: longer than two of the longest lines.
const TAIL_BYTES: u64 = 256 << 10;
/// How a file of JSON begins, and each of its lines. One of CSV begins with the names of its fields: all of them, or lines
/// of another version would follow that say more than its header.
const JSONL_BEGINS: &[u8] = b"{\"sequence\":";

/// A file to go on with.
#[derive(Debug)]
pub(super) struct Exported {
    /// At its end.
    pub(super) file: File,
    /// Sequence of its last record.
    pub(super) last: Option<u64>,
    pub(super) is_empty: bool,
}

impl Exported {
    /// Opens or makes a file, and cuts a last line that is not whole.
    ///
    /// # Errors
    /// When it can't be opened, or has something else in it: then it is left as it is.
    pub(super) fn open(path: &Path, format: Format) -> Result<Self, CliError> {
        let failed = |source| CliError::File { path: path.to_owned(), source };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let whole = whole_lines(&mut file, format).map_err(failed)?;
        let Some((len, last)) = whole else {
            let why = format!("it is no export of this format ({format:?}) and version, and was left as it is");
            return Err(CliError::Bad(format!("{}: {why}", path.display())));
        };
        file.set_len(len).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        Ok(Self { file, last, is_empty: len == 0 })
    }
}

/// Bytes of the file's whole lines, and the sequence of the last record; `None` where it is another kind of file.
fn whole_lines(file: &mut File, format: Format) -> io::Result<Option<(u64, Option<u64>)>> {
    let size = file.seek(SeekFrom::End(0))?;
    let header = Line::FIELDS.join(",") + "\n";
    let begins = match format {
        Format::Jsonl | Format::Parquet => JSONL_BEGINS,
        Format::Csv => header.as_bytes(),
    };
    let mut head = vec![0; begins.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut head)?;
    if !begins.starts_with(&head) {
        return Ok(None);
    }
    let start = size.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // Not even a first line, or one longer than any record.
        return Ok((start == 0).then_some((0, None)));
    };
    let line = tail[..end].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let len = start + end as u64 + 1;
    let sequence = match format {
        Format::Jsonl | Format::Parquet => line.strip_prefix(JSONL_BEGINS),
        Format::Csv if line == header.trim_end().as_bytes() => return Ok(Some((len, None))),
        Format::Csv => Some(line),
    };
    let digits = sequence.and_then(|rest| rest.split(|byte| *byte == b',').next());
    let sequence = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok(sequence.map(|sequence| (len, Some(sequence))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(format: Format, content: &str) -> Option<(Option<u64>, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        std::fs::write(&path, content).unwrap();
        let opened = Exported::open(&path, format);
        let left = std::fs::read_to_string(&path).unwrap();
        match opened {
            Ok(exported) => {
                assert_eq!(exported.is_empty, left.is_empty());
                Some((exported.last, left))
            }
            Err(_) => {
                assert_eq!(left, content, "left as it is");
                None
            }
        }
    }

    #[test]
    fn a_line_that_is_not_whole_is_cut_and_the_last_whole_one_counts() {
        let line = |sequence: u64| format!("{{\"sequence\":{sequence},\"tenant\":\"a\"}}\n");
        let (one, two) = (line(1), line(1) + &line(22));
        for torn in ["", "{", "{\"sequence\":23,\"ten"] {
            assert_eq!(opened(Format::Jsonl, torn), Some((None, String::new())));
            assert_eq!(opened(Format::Jsonl, &(one.clone() + torn)), Some((Some(1), one.clone())));
            assert_eq!(opened(Format::Jsonl, &(two.clone() + torn)), Some((Some(22), two.clone())));
        }
        let header = Line::FIELDS.join(",") + "\n";
        let row = header.clone() + "7,a\n";
        for torn in ["", "8", "8,\"b"] {
            assert_eq!(opened(Format::Csv, &(header.clone() + torn)), Some((None, header.clone())));
            assert_eq!(opened(Format::Csv, &(row.clone() + torn)), Some((Some(7), row.clone())));
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_as_it_is() {
        for other in ["hello\n", "{\"a\":1}\n", "{\"sequence\":x}\n", "\n"] {
            assert_eq!(opened(Format::Jsonl, other), None, "{other:?}");
            assert_eq!(opened(Format::Csv, other), None, "{other:?}");
        }
        assert_eq!(opened(Format::Csv, "{\"sequence\":1}\n"), None);
        assert_eq!(opened(Format::Csv, &(Line::FIELDS[..17].join(",") + "\n1,a\n")), None, "of an older version");
        assert_eq!(opened(Format::Jsonl, "sequence,tenant\n1,a\n"), None);
    }
}
