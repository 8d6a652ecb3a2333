//! The table of figures: what each is called, who takes it, and what is looked for.

use super::rounds::{Effort, Rounds};
use super::worker::Worker;
use super::{BenchError, BenchOptions, cold, gate, hashing, memory, pool, shared};

/// What is looked for: of the ratio, or of the value where there is no limit to compare with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    /// Of times: how many times the limit it may take.
    AtMost(f64),
    None,
}

/// Who takes a figure.
pub(super) enum By {
    /// `nvme`, which takes all of them on one file.
    Drive,
    /// This process.
    Here(fn(Effort) -> Result<Rounds, BenchError>),
    /// This process, on a folder of the drive that is measured.
    Folder(fn(&BenchOptions, Effort) -> Result<Rounds, BenchError>),
    /// A process of its own, as an inference worker is one, beside a daemon with a prompt in RAM.
    Worker(fn(&Worker, Effort) -> Result<Rounds, BenchError>),
}

/// One figure.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) target: Target,
    pub(super) by: By,
}

const fn row(name: &'static str, unit: &'static str, target: Target, by: By) -> Row {
    Row { name, unit, target, by }
}

const SPEED: &str = "GB/s";
const TIME: &str = "µs";

/// All of them, in the order of the report.
pub(super) const ROWS: &[Row] = &[
    row("nvme_read_1mib", SPEED, Target::AtLeast(0.95), By::Drive),
    row("nvme_read_4mib", SPEED, Target::AtLeast(0.95), By::Drive),
    row("nvme_write_1mib", SPEED, Target::AtLeast(0.90), By::Drive),
    row("nvme_write_4mib", SPEED, Target::AtLeast(0.90), By::Drive),
    row("memcpy", SPEED, Target::None, By::Here(memory::copies)),
    row("hash_tokens", "Mtokens/s", Target::AtLeast(80.0), By::Here(hashing::tokens)),
    row("ram_load_shared", SPEED, Target::AtLeast(0.85), By::Worker(shared::load)),
    row("ram_load_shared_unverified", SPEED, Target::AtLeast(0.90), By::Worker(shared::load_unverified)),
    row("ram_handover", TIME, Target::AtMost(10.0), By::Worker(shared::handover)),
    row("load_into_ram", SPEED, Target::AtLeast(0.85), By::Worker(pool::load_into_ram)),
    row("load_into_nvme", SPEED, Target::AtLeast(0.95), By::Folder(cold::load_into)),
    row("put_shared", SPEED, Target::AtLeast(0.40), By::Worker(pool::put_shared)),
    row("lookup_4096", TIME, Target::AtMost(4.0), By::Worker(gate::lookup)),
    row("fetch_uds", SPEED, Target::AtLeast(0.45), By::Worker(gate::fetch_uds)),
    row("fetch_tcp", SPEED, Target::AtLeast(0.65), By::Worker(gate::fetch_tcp)),
    row("fetch_into_uds", SPEED, Target::AtLeast(0.30), By::Worker(gate::fetch_into_uds)),
    row("put_uds", SPEED, Target::AtLeast(0.25), By::Worker(gate::put_uds)),
    row("put_tcp", SPEED, Target::AtLeast(0.40), By::Worker(gate::put_tcp)),
];

/// The rows of these names, or all; refused where there is none of a name.
pub(super) fn wanted(only: &[String]) -> Result<Vec<&'static Row>, BenchError> {
    let known = |name: &&String| ROWS.iter().any(|row| row.name == **name);
    if let Some(name) = only.iter().find(|name| !known(name)) {
        let names = ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        return Err(BenchError::Unknown { name: name.clone(), names });
    }
    Ok(ROWS.iter().filter(|row| only.is_empty() || only.iter().any(|name| row.name == name)).collect())
}

impl Target {
    /// Whether a figure is what is looked for; nothing where nothing is.
    pub(super) fn met(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(figure >= least),
            Self::AtMost(most) => Some(figure <= most),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_pick_rows_in_the_order_of_the_table_and_no_two_are_alike() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            wanted(&only).map(|rows| rows.iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["put_tcp", "memcpy"]).unwrap(), ["memcpy", "put_tcp"]);
        let mut all = names(&[]).unwrap();
        assert_eq!(all.len(), ROWS.len());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), ROWS.len());
        let refused = names(&["memcpy", "speed"]).unwrap_err().to_string();
        assert!(refused.starts_with("--only is \"speed\", it must be ") && refused.contains("put_tcp"), "{refused}");
    }

    #[test]
    fn a_target_is_met_from_its_own_side() {
        assert_eq!((Target::AtLeast(0.9).met(0.9), Target::AtLeast(0.9).met(0.89)), (Some(true), Some(false)));
        assert_eq!((Target::AtMost(4.0).met(4.0), Target::AtMost(4.0).met(4.1)), (Some(true), Some(false)));
        assert_eq!(Target::None.met(1.0), None);
    }
}
