//! A disk that fills up and is emptied while a daemon writes to it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::RngExt;
use rand::rngs::SmallRng;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::process::Process;

/// The disk.
pub(crate) enum Disk {
    /// The daemon's files may be so long at most: a write past it is cut off there, and fails with EFBIG.
    Limited,
    /// A file system in memory.
    Small(PathBuf),
}

impl Disk {
    pub(crate) fn limited() -> Self {
        Self::Limited
    }

    /// Mounts one where a ledger is, and moves the ledger there; nothing where only root may. Root must be able to.
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: a file system is mounted by root only; the same is done with a limit on files");
            return None;
        }
        let before = at.with_extension("before");
        std::fs::rename(at, &before).unwrap();
        std::fs::create_dir(at).unwrap();
        // The log reserves 17 MB that are written also when nothing else is free, and compaction takes as much again as there is.
        run("mount", &["-t", "tmpfs", "-o", "size=384m", "kvtier-test"], at);
        for entry in std::fs::read_dir(before).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), at.join(entry.file_name())).unwrap();
        }
        Some(Self::Small(at.to_owned()))
    }

    /// So that little or nothing more can be written.
    pub(crate) fn fill(&self, process: &Process, random: &mut SmallRng) {
        match self {
            Self::Limited => {
                // Mostly within the log that is being written, so that a record of it is torn.
                let bytes = [0, random.random_range(1..4_096), random.random_range(1..1 << 18)];
                limit(process, Some(bytes[random.random_range(0..3)]));
            }
            Self::Small(_) => self.stay_full(),
        }
    }

    /// Takes the room, too, that the database has made since: what it compacts it deletes.
    pub(crate) fn stay_full(&self) {
        if let Self::Small(at) = self {
            let mut filler = File::options().create(true).append(true).open(at.join("filler")).unwrap();
            while filler.write_all(&[1; 4_096]).is_ok() {}
        }
    }

    pub(crate) fn empty(&self, process: &Process) {
        match self {
            Self::Limited => limit(process, None),
            // Absent where it was not filled.
            Self::Small(at) => drop(std::fs::remove_file(at.join("filler"))),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Small(at) = self {
            run("umount", &["-l"], at);
        }
    }
}

/// Of a process that is gone there is nothing to be limited.
fn limit(process: &Process, current: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(process.child.id()).unwrap()).unwrap();
    prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: None }).ok();
}

fn run(program: &str, args: &[&str], on: &Path) {
    let output = Command::new(program).args(args).arg(on).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
