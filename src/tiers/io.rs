//! How a drive is to be read and written, as configured.

pub use crate::media::DeviceEngine as IoEngine;
use crate::vocab::limits::DEVICE_INFLIGHT_BYTES;

/// How each drive is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoOptions {
    /// What carries out its jobs.
    pub engine: IoEngine,
    /// Bytes in flight towards one drive at most.
    pub inflight_bytes: u64,
}

impl Default for IoOptions {
    fn default() -> Self {
        Self { engine: IoEngine::default(), inflight_bytes: DEVICE_INFLIGHT_BYTES }
    }
}
