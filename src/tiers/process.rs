//! What the kernel says that this process has written, and takes of its host.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Bytes that this process has sent towards block devices, its databases' included; `None` where the kernel does not say.
/// Source: `write_bytes` of proc_pid_io(5), which counts what is written past the page cache, and what it makes dirty.
#[must_use]
pub fn written_by_process() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// What this process takes of its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCost {
    /// Processor time of all its threads since the start.
    pub cpu: Duration,
    /// Memory that is there now, shared memory included.
    pub resident_bytes: u64,
    /// The most that was there at a time since the start.
    pub resident_bytes_max: u64,
}

impl ProcessCost {
    /// Now; `None` where the kernel does not say. Source: `VmRSS` and `VmHWM` of proc_pid_status(5).
    #[must_use]
    pub fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/status").ok()?;
        let (resident_bytes, resident_bytes_max) = (kib(&text, "VmRSS:")?, kib(&text, "VmHWM:")?);
        let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()?;
        // The kernel counts pages of each thread by itself, so that the peak can be behind.
        Some(Self { cpu, resident_bytes, resident_bytes_max: resident_bytes_max.max(resident_bytes) })
    }
}

/// Bytes of a line such as `VmRSS:     9544 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
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

    #[test]
    fn a_line_of_memory_is_read_with_its_unit() {
        let text = "Name:\tx\nVmHWM:\t   20 kB\nVmRSS:\t   16 kB\nVmData:\t 4 MB\n";
        assert_eq!((kib(text, "VmHWM:"), kib(text, "VmRSS:")), (Some(20_480), Some(16_384)));
        assert_eq!((kib(text, "VmData:"), kib(text, "VmSwap:")), (None, None));
    }

    #[test]
    fn memory_that_is_touched_and_time_that_is_spent_show() {
        let Some(before) = ProcessCost::now() else { return };
        let mut memory = vec![0_u8; 64 << 20];
        memory.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
        let after = ProcessCost::now().unwrap();
        assert!(after.cpu > before.cpu && after.resident_bytes_max >= after.resident_bytes);
        assert!(after.resident_bytes_max >= (64 << 20) + u64::from(memory[0]) - 1, "{after:?}");
    }
}
