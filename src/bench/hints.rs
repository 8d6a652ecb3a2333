//! What to change on this host, worked out from what the kernel says of it.

use std::fs;
use std::path::Path;

use crate::vocab::ByteCount;

/// Where the kernel says whether shared memory may have huge pages.
const SHMEM_HUGE: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// The capability under which no limit on locked memory holds (`CAP_IPC_LOCK`).
const IPC_LOCK: u32 = 14;

/// What matters of a host; `None` where it doesn't say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Memory that programs can have without swapping.
    pub(super) available: Option<u64>,
    /// What this process's control groups allow.
    pub(super) cgroup_limit: Option<u64>,
    /// Bytes that may be locked; `None` for any number.
    pub(super) memlock: Option<u64>,
    /// Huge pages reserved.
    pub(super) huge_pages: Option<u64>,
    /// Which transparent huge pages shared memory has.
    pub(super) shmem_huge: Option<String>,
    /// `kernel.io_uring_disabled`.
    pub(super) io_uring_disabled: Option<u64>,
}

impl Host {
    /// This one.
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let meminfo = text("/proc/meminfo");
        Self {
            available: kibibytes(&meminfo, "MemAvailable:"),
            cgroup_limit: cgroup_limit(&text("/proc/self/cgroup"), |path| fs::read_to_string(path).ok()),
            memlock: memlock(&text("/proc/self/limits"), &text("/proc/self/status")),
            huge_pages: field(&meminfo, "HugePages_Total:"),
            shmem_huge: chosen(&text(SHMEM_HUGE)),
            io_uring_disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
        }
    }

    /// Memory that this process can have.
    pub(super) fn memory(&self) -> u64 {
        self.available.unwrap_or(u64::MAX).min(self.cgroup_limit.unwrap_or(u64::MAX))
    }

    /// Sentences for its owner. `ram` is the RAM tier that was measured, `wanted` the memory that all figures would take.
    pub(super) fn hints(&self, ram: ByteCount, wanted: u64) -> Vec<String> {
        [self.about_cgroup(wanted), self.about_memlock(ram), self.about_huge_pages(), self.about_io_uring()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn about_cgroup(&self, wanted: u64) -> Option<String> {
        let limit = self.cgroup_limit.filter(|limit| *limit < wanted)?;
        Some(format!(
            "the control group has {} MiB of memory, all figures take {} MiB: raise memory.max (docker run --memory), or a \
             RAM tier of that size is killed",
            limit >> 20,
            wanted >> 20
        ))
    }

    fn about_memlock(&self, ram: ByteCount) -> Option<String> {
        let limit = self.memlock.filter(|limit| *limit < ram.0)?;
        Some(format!(
            "{} MiB may be locked, the RAM tier has {} MiB: it is not registered with io_uring, and each transfer maps its \
             pages anew; raise the limit (LimitMEMLOCK=infinity, ulimit -l unlimited)",
            limit >> 20,
            ram.0 >> 20
        ))
    }

    fn about_huge_pages(&self) -> Option<String> {
        let chosen = self.shmem_huge.as_deref().filter(|chosen| matches!(*chosen, "never" | "deny"))?;
        (self.huge_pages.unwrap_or(0) == 0).then(|| {
            format!(
                "the RAM tier is in pages of 4 KiB: no huge ones are reserved, and shared memory may have none (it says \
                 {chosen}): echo advise > {SHMEM_HUGE}"
            )
        })
    }

    fn about_io_uring(&self) -> Option<String> {
        let disabled = self.io_uring_disabled.filter(|disabled| *disabled > 0)?;
        Some(format!("kernel.io_uring_disabled is {disabled}: set it to 0 with sysctl"))
    }
}

/// A drive whose file system keeps a cache in between.
pub(super) fn about_file_system(kind: &str, dir: &Path) -> Option<String> {
    kind.contains("buffered").then(|| {
        format!(
            "{} can't be read past the page cache: name a folder on ext4 or xfs with --dir (overlayfs, tmpfs and network file \
             systems have no O_DIRECT, or an emulated one)",
            dir.display()
        )
    })
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    field(meminfo, name).map(|kib| kib * 1024)
}

/// The word in brackets.
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// The limit on locked memory, unless the process is above it.
fn memlock(limits: &str, status: &str) -> Option<u64> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
    if effective >> IPC_LOCK & 1 == 1 { None } else { field(limits, "Max locked memory") }
}

/// The least limit of the control groups that a process is in: of its own and, in a container that sees no others, of the
/// root, in either version of the interface.
fn cgroup_limit(cgroups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let files = cgroups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // A group's limit holds for those below it.
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above.chain([path.trim_end_matches('/')]).map(|group| format!("{root}{group}/{file}")).collect()
    });
    files.filter_map(|file| read(&file)?.trim().parse().ok()).min().filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_the_kernel_says_is_read() {
        let meminfo = "MemTotal:       24684084 kB\nMemAvailable:   24198284 kB\nHugePages_Total:       3\n";
        assert_eq!(kibibytes(meminfo, "MemAvailable:"), Some(24_198_284 * 1024));
        assert_eq!((field(meminfo, "HugePages_Total:"), field(meminfo, "Nothing:")), (Some(3), None));
        assert_eq!(chosen("always within_size advise [never] deny force\n").as_deref(), Some("never"));
        assert_eq!(chosen(""), None);
        let limits = "Limit   Soft Limit   Hard Limit   Units\nMax locked memory         8388608    8388608    bytes\n";
        assert_eq!(memlock(limits, "CapEff:\t0000000000000000\n"), Some(8 << 20));
        assert_eq!(memlock(limits, "CapEff:\t000001fffeffffff\n"), None, "it may lock what it likes");
        assert_eq!(memlock("Max locked memory         unlimited    unlimited    bytes\n", ""), None);
        let here = Host::read();
        assert!(here.memory() > 0 && here.available.is_some(), "{here:?}");
    }

    #[test]
    fn the_least_limit_of_all_groups_above_holds() {
        let read = |files: &'static [(&str, &str)]| {
            move |path: &str| files.iter().find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned())
        };
        let second = "0::/kubepods/pod1/c1\n";
        let files = read(&[
            ("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "2147483648\n"),
            ("/sys/fs/cgroup/kubepods/memory.max", "8589934592\n"),
        ]);
        assert_eq!(cgroup_limit(second, files), Some(2 * GIB));
        let first = "9:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/\n";
        let inside = read(&[("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4294967296\n")]);
        assert_eq!(cgroup_limit(first, inside), Some(4 * GIB));
        let unlimited = read(&[("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(cgroup_limit(first, unlimited), None);
        assert_eq!(cgroup_limit("", read(&[])), None);
    }

    #[test]
    fn each_thing_to_change_has_a_sentence_that_says_how_and_a_good_host_has_none() {
        let good = Host {
            available: Some(64 * GIB),
            cgroup_limit: Some(32 * GIB),
            memlock: None,
            huge_pages: Some(0),
            shmem_huge: Some("advise".into()),
            io_uring_disabled: Some(0),
        };
        let hints = |host: Host| host.hints(ByteCount(4 * GIB), 8 * GIB);
        assert_eq!(hints(good.clone()), [""; 0]);
        for (host, words) in [
            (Host { cgroup_limit: Some(2 * GIB), ..good.clone() }, "has 2048 MiB of memory, all figures take 8192 MiB"),
            (Host { memlock: Some(8 << 20), ..good.clone() }, "8 MiB may be locked, the RAM tier has 4096 MiB"),
            (Host { shmem_huge: Some("never".into()), ..good.clone() }, "echo advise > /sys/kernel/mm/"),
            (Host { io_uring_disabled: Some(2), ..good }, "kernel.io_uring_disabled is 2: set it to 0"),
        ] {
            let hints = hints(host);
            assert!(hints.len() == 1 && hints[0].contains(words), "{hints:?}");
        }
        let reserved = Host { shmem_huge: Some("never".into()), huge_pages: Some(9), ..Host::default() };
        assert_eq!(hints(reserved), [""; 0]);
        assert_eq!(about_file_system("io_uring, O_DIRECT", Path::new("/a")), None);
        assert!(about_file_system("pread, buffered", Path::new("/a")).unwrap().starts_with("/a can't be read past"));
    }
}
