//! Drives as people write them: `8GiB` for one in the data folder, `/mnt/nvme1=7TiB` for one of its own.

use super::{CliError, size};
use crate::daemon::DriveSpec;
use crate::vocab::ByteCount;

/// What a drive must be.
const RULE: &str = "SIZE or DIR=SIZE, where SIZE is such as 256MiB, 8GiB, 1GB or a plain number of bytes, and DIR an existing directory";

/// Reads one `--nvme`.
pub(super) fn parse(text: &str) -> Result<DriveSpec, CliError> {
    let refuse = || CliError::usage("nvme", &format!("{text:?}"), RULE);
    // The last one, since a directory may be called anything.
    let (dir, size) = match text.rsplit_once('=') {
        Some(("", _)) => return Err(refuse()),
        Some((dir, size)) => (Some(dir.into()), size),
        None => (None, text),
    };
    Ok(DriveSpec { dir, bytes: size::parse("nvme", size).map_err(|_| refuse())? })
}

/// All that were given; a lone 0 is for none.
pub(super) fn all(drives: Vec<DriveSpec>) -> Vec<DriveSpec> {
    if drives == [DriveSpec::here(ByteCount::ZERO)] { Vec::new() } else { drives }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_reads_as_people_write_it() {
        let drive = |dir: &str, bytes| DriveSpec { dir: Some(dir.into()), bytes: ByteCount(bytes) };
        assert_eq!(parse("8GiB").unwrap(), DriveSpec::here(ByteCount(8 << 30)));
        assert_eq!(parse("/mnt/nvme1=7TiB").unwrap(), drive("/mnt/nvme1", 7 << 40));
        assert_eq!(parse("disks/a=b=1KiB").unwrap(), drive("disks/a=b", 1_024));
        assert_eq!(all(vec![parse("0").unwrap()]), []);
        assert_eq!(all(vec![parse("/a=0").unwrap()]), [drive("/a", 0)], "a drive of nothing is a mistake");
        for bad in ["", "=1GiB", "/mnt/nvme1=", "/mnt/nvme1", "/mnt/nvme1=much"] {
            let said = parse(bad).unwrap_err().to_string();
            assert_eq!(said, format!("nvme is {bad:?}, it must be {RULE}"));
        }
    }
}
