//! Before a planned stop: what only RAM has is written to the drives, so that the next start is warm.

use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use super::{Cache, unexpected};
use crate::plan::{Answer, Event};

/// How often the planner is asked for more writes: a fraction of what its queue holds.
const AGAIN: Duration = Duration::from_millis(20);

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Blocks written.
    pub written: u64,
    /// Blocks worth writing that were not: no room, no time, or the drives failed.
    pub left: u64,
}

impl Cache {
    /// Writes what only RAM has and NVMe has room for, until nothing is left, nothing moves any more, or the time is up.
    /// Nobody should put anything any more.
    ///
    /// # Errors
    /// When the daemon is stopping already.
    pub async fn flush(&self, within: Duration) -> Result<Flushed, Error> {
        let until = Instant::now() + within;
        let written = async || self.driver.look(|planner| planner.counters().nvme_written).await;
        let before = written().await?;
        let left = loop {
            let (begun, left) = match self.driver.ask(Event::Flush).await? {
                Answer::Flushing { begun, left } => (begun, left),
                answer => return Err(unexpected(&answer)),
            };
            let time = until.saturating_duration_since(Instant::now());
            if left == 0 || time.is_zero() {
                self.driver.quiesce(time).await?;
                break left;
            }
            let quiet = self.driver.quiesce(time.min(AGAIN)).await?;
            // Nothing was begun, and nothing that was has made room meanwhile.
            if begun == 0 && quiet {
                break left;
            }
        };
        Ok(Flushed { written: written().await?.saturating_sub(before), left })
    }
}
