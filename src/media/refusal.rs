//! Why io_uring can't be had here, and what to do about it: words for the one log line that says so.

use std::io;

use rustix::io::Errno;

/// Where the kernel says who may use io_uring (since Linux 6.6).
const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

/// Why there is no ring.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A call of the setup failed.
    Setup(io::Error),
    /// The kernel has io_uring, but not all that is used of it.
    Incomplete,
    /// No thread for it.
    Thread(io::Error),
}

impl Refusal {
    /// One sentence for the operator.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Incomplete => {
                "the kernel's io_uring lacks read and write (it is older than 5.6): update it".to_owned()
            }
            Self::Thread(error) => format!("no thread for io_uring can be started: {error}"),
            Self::Setup(error) => explain(error, std::fs::read_to_string(SYSCTL).ok().as_deref()),
        }
    }
}

/// What an error of `io_uring_setup` means. `sysctl` is what `kernel.io_uring_disabled` holds, where there is one.
fn explain(error: &io::Error, sysctl: Option<&str>) -> String {
    let disabled = sysctl.map(str::trim).filter(|value| matches!(*value, "1" | "2"));
    match (Errno::from_io_error(error), disabled) {
        (Some(Errno::PERM | Errno::ACCESS), Some(value)) => {
            format!("kernel.io_uring_disabled is {value}: set it to 0 with sysctl")
        }
        (Some(Errno::PERM | Errno::ACCESS), None) => {
            "a seccomp profile forbids io_uring, as those of containers do: allow io_uring_setup, io_uring_enter and \
             io_uring_register"
                .to_owned()
        }
        (Some(Errno::NOSYS), _) => {
            "the kernel has no io_uring (it is older than 5.1, or a seccomp profile hides it): update it, or allow \
             io_uring_setup, io_uring_enter and io_uring_register"
                .to_owned()
        }
        (Some(Errno::NOMEM), _) => {
            "the limit on locked memory is too low for a ring: raise it (LimitMEMLOCK, ulimit -l)".to_owned()
        }
        (Some(Errno::MFILE | Errno::NFILE), _) => {
            "no file descriptor is left for a ring: raise the limit (LimitNOFILE, ulimit -n)".to_owned()
        }
        _ => format!("io_uring_setup failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        for (errno, sysctl, words) in [
            (Errno::PERM, Some("2\n"), "kernel.io_uring_disabled is 2: set it to 0"),
            (Errno::PERM, Some("1\n"), "kernel.io_uring_disabled is 1: set it to 0"),
            (Errno::PERM, Some("0\n"), "a seccomp profile forbids io_uring"),
            (Errno::PERM, None, "a seccomp profile forbids io_uring"),
            (Errno::NOSYS, None, "older than 5.1"),
            (Errno::NOMEM, Some("0\n"), "LimitMEMLOCK"),
            (Errno::MFILE, None, "LimitNOFILE"),
            (Errno::INVAL, None, "io_uring_setup failed: Invalid argument"),
        ] {
            let said = explain(&errno.into(), sysctl);
            assert!(said.contains(words), "{errno:?}, {sysctl:?}: {said}");
        }
        assert!(Refusal::Incomplete.sentence().contains("older than 5.6"));
        assert!(Refusal::Thread(Errno::AGAIN.into()).sentence().starts_with("no thread"));
    }
}
