//! Whether rows may have outlived their bytes.
//!
//! Neither rows nor payloads are synced. A killed process loses none of them: the kernel has the rows, the drive the
//! payloads. When the machine goes down, the last payloads may be gone whose rows are there, and the last batches may be
//! gone, so that rows are back whose slots hold other blocks by now. Bytes that are not their row's are then no sign of
//! damage. So the catalog remembers in which life of the machine it was opened, and whether it was closed.

use serde::{Deserialize, Serialize};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the catalog knows of its own life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    /// The life of the machine in which it was opened last; empty where the kernel does not say.
    boot: String,
    /// It was not closed since.
    open: bool,
    /// The machine has gone down while it was open, and no row was compared with its bytes since.
    doubtful: bool,
}

impl Life {
    /// One that begins now. `before` is what the catalog remembers; `None`: nothing, as in one that `is_new`, or in one
    /// that was begun before this was remembered.
    pub(super) fn begin(before: Option<&[u8]>, is_new: bool) -> Self {
        let doubtful = !is_new && before.is_none_or(Self::is_doubtful);
        Self { boot: this_boot(), open: true, doubtful }
    }

    pub(super) fn closed(self) -> Self {
        Self { open: false, ..self }
    }

    pub(super) fn trusted(self) -> Self {
        Self { doubtful: false, ..self }
    }

    /// Whether rows of a catalog that remembers this may be without their bytes, through no damage.
    pub(super) fn is_doubtful(remembered: &[u8]) -> bool {
        Self::decode(remembered).is_none_or(|life| life.doubtful || life.open && life.boot != this_boot())
    }

    pub(super) fn decode(remembered: &[u8]) -> Option<Self> {
        serde_json::from_slice(remembered).ok()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // A string and two flags always serialize; nothing at all would read as doubtful.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The kernel's name for the time since it was started.
fn this_boot() -> String {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn another_boot(life: &Life) -> Vec<u8> {
        Life { boot: "another".into(), ..life.clone() }.encode()
    }

    #[test]
    fn a_new_catalog_is_beyond_doubt_and_one_without_a_memory_is_not() {
        assert!(!Life::is_doubtful(&Life::begin(None, true).encode()));
        assert!(Life::is_doubtful(&Life::begin(None, false).encode()));
        assert!(Life::is_doubtful(b"nonsense"));
    }

    #[test]
    fn doubt_comes_with_a_machine_that_went_down_and_stays_until_rows_were_compared() {
        let life = Life::begin(None, true);
        assert!(!Life::begin(Some(&life.encode()), false).doubtful, "the process was killed, and the machine lives");
        assert!(
            !Life::is_doubtful(&another_boot(&life.clone().closed())),
            "it was closed before the machine went down"
        );
        let lost = another_boot(&life);
        assert!(Life::is_doubtful(&lost));
        let next = Life::begin(Some(&lost), false);
        let closed = next.clone().closed();
        assert!(next.doubtful && Life::begin(Some(&closed.encode()), false).doubtful, "a restart proves nothing");
        assert!(!Life::begin(Some(&next.trusted().encode()), false).doubtful);
    }
}
