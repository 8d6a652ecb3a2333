//! What the kernel says that this process has written.

/// Bytes that this process has sent towards block devices, its databases' included; `None` where the kernel does not say.
/// Source: `write_bytes` of proc_pid_io(5), which counts what is written past the page cache, and what it makes dirty.
#[must_use]
pub fn written_by_process() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_shows() {
        let Some(before) = written_by_process() else { return };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), vec![7; 1 << 20]).unwrap();
        let written = written_by_process().unwrap() - before;
        // A file system in memory has no device to write to.
        assert!(written == 0 || written >= 1 << 20, "{written}");
    }
}
