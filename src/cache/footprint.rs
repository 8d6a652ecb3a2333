//! What knowing the blocks costs in memory, by what it is.

use super::Cache;
use super::error::Error;

impl Cache {
    /// Bytes of memory that each part of what is known of blocks takes, by its name, as asked of the allocator.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn footprint(&self) -> Result<Vec<(&'static str, usize)>, Error> {
        let mut parts: Vec<_> = self.driver.look(|planner| planner.footprint()).await?.into();
        let [readable, in_ram] = self.residency.bytes();
        parts.extend([("readable blocks", readable), ("places in RAM", in_ram)]);
        Ok(parts)
    }
}
