//! How a drive is to be read and written, as configured.

use crate::vocab::limits::IO_INFLIGHT_BYTES;

/// Which body of a device is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoEngine {
    /// io_uring where the host lets us, else `pread` and `pwrite`.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// `pread` and `pwrite` on threads.
    Pread,
}

impl IoEngine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Uring, Self::Pread];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "io_uring",
            Self::Pread => "pread",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

/// How each drive is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoOptions {
    /// Which body.
    pub engine: IoEngine,
    /// Bytes in flight towards one drive at most.
    pub inflight_bytes: u64,
}

impl Default for IoOptions {
    fn default() -> Self {
        Self { engine: IoEngine::default(), inflight_bytes: IO_INFLIGHT_BYTES }
    }
}
