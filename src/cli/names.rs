//! Flags and fields that take one of a few names.

use super::CliError;
use crate::daemon::IoEngine;
use crate::replay::{AdmissionKind, OPTIMUM, PolicyKind, TraceFormat, Workload};
use crate::vocab::Furthest;

/// What `--policy` takes.
const POLICIES: [&str; PolicyKind::ALL.len()] = {
    let mut names = [""; PolicyKind::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = PolicyKind::ALL[at].name();
        at += 1;
    }
    names
};

/// `--policy`.
pub(super) fn policy(name: &str) -> Result<PolicyKind, CliError> {
    PolicyKind::from_name(name).ok_or_else(|| refuse("policy", name, &POLICIES))
}

/// `--policy` of a replay: one of the daemon's, or the optimum, which only a simulation can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayPolicy {
    /// A daemon's.
    Daemon(PolicyKind),
    /// Knows the future.
    Optimum,
}

/// `--policy` of a replay.
pub(super) fn replay_policy(name: &str) -> Result<ReplayPolicy, CliError> {
    let daemons = PolicyKind::from_name(name).map(ReplayPolicy::Daemon);
    let known = daemons.or_else(|| (name == OPTIMUM).then_some(ReplayPolicy::Optimum));
    known.ok_or_else(|| refuse("policy", name, &[&POLICIES[..], &[OPTIMUM]].concat()))
}

/// `--kind` of a generated trace.
pub(super) fn workload(name: &str) -> Result<Workload, CliError> {
    Workload::from_name(name).ok_or_else(|| refuse("kind", name, &Workload::ALL.map(Workload::name)))
}

/// `--format` of a trace.
pub(super) fn trace_format(name: &str) -> Result<TraceFormat, CliError> {
    TraceFormat::from_name(name).ok_or_else(|| refuse("format", name, &TraceFormat::ALL.map(TraceFormat::name)))
}

/// `--admission`.
pub(super) fn admission(name: &str) -> Result<AdmissionKind, CliError> {
    AdmissionKind::from_name(name)
        .ok_or_else(|| refuse("admission", name, &AdmissionKind::ALL.map(AdmissionKind::name)))
}

/// `--io`.
pub(super) fn engine(name: &str) -> Result<IoEngine, CliError> {
    IoEngine::from_name(name).ok_or_else(|| refuse("io", name, &IoEngine::ALL.map(IoEngine::name)))
}

/// `--furthest-tier`.
pub(super) fn furthest(name: &str) -> Result<Furthest, CliError> {
    match name {
        "none" => Ok(Furthest::Nothing),
        "ram" => Ok(Furthest::Ram),
        "nvme" => Ok(Furthest::Nvme),
        other => Err(refuse("furthest tier", other, &["none", "ram", "nvme"])),
    }
}

fn refuse(field: &'static str, name: &str, names: &[&str]) -> CliError {
    let rule = match names {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        names => names.concat(),
    };
    CliError::usage(field, &format!("{name:?}"), rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_is_refused_with_those_that_are() {
        assert_eq!(
            policy("magic").unwrap_err().to_string(),
            "policy is \"magic\", it must be lru, s3-fifo, sieve, w-tinylfu, arc, gdsf or gittins"
        );
        let of_replay = replay_policy("magic").unwrap_err().to_string();
        assert_eq!(
            of_replay,
            "policy is \"magic\", it must be lru, s3-fifo, sieve, w-tinylfu, arc, gdsf, gittins or belady"
        );
        let said = admission("never").unwrap_err().to_string();
        assert_eq!(said, "admission is \"never\", it must be always, second-use or ram-eviction");
        assert_eq!(engine("aio").unwrap_err().to_string(), "io is \"aio\", it must be auto, io_uring or pread");
        assert_eq!(
            (admission("second-use").unwrap(), engine("pread").unwrap()),
            (AdmissionKind::SecondUse, IoEngine::Posix)
        );
    }
}
