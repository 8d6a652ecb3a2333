//! How a world is: what a seed makes likely in it.

use super::chance::Chance;

/// What a seed makes likely.
#[derive(Debug)]
pub(crate) struct Temper {
    /// Writes to NVMe that do not succeed, of a hundred.
    pub(crate) write_troubles: u64,
    /// Reads from NVMe that do not succeed, of a hundred.
    pub(crate) read_troubles: u64,
    /// Offers that contradict themselves or others, of a hundred.
    pub(crate) contradictions: u64,
    /// Ends of commands, of a hundred steps; the others are new events.
    pub(crate) haste: u64,
    /// Steps that a command may take beyond its turn.
    pub(crate) delay: u64,
    /// Purges, of a hundred of those others.
    pub(crate) purges: u64,
    /// Restarts, of a thousand steps.
    pub(crate) restarts: u64,
    /// Drives that go, of a thousand steps.
    pub(crate) losses: u64,
    /// Quotas and promises, of a hundred of those others.
    pub(crate) tenants: u64,
    /// What is too long for one event goes on late.
    pub(crate) lingers: bool,
}

impl Temper {
    pub(crate) fn of(chance: &mut Chance) -> Self {
        Self {
            write_troubles: chance.pick(&[0, 0, 5, 40]),
            read_troubles: chance.pick(&[0, 0, 5, 25]),
            contradictions: chance.pick(&[0, 0, 5, 20]),
            haste: chance.pick(&[20, 45, 45, 70]),
            delay: chance.pick(&[0, 5, 40]),
            purges: chance.pick(&[0, 0, 1, 3]),
            restarts: chance.pick(&[0, 0, 5, 15]),
            losses: chance.pick(&[0, 2, 5]),
            tenants: chance.pick(&[0, 0, 4, 12]),
            lingers: chance.chance(1, 2),
        }
    }
}
