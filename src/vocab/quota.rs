//! What an account may keep in each tier.

use super::limits::SHARES_OF_HUNDRED;
use super::{ByteCount, Tier};

/// What an account may keep in one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierQuota {
    /// Bytes of slots that no other account can take from it.
    pub share: ByteCount,
    /// Bytes of slots that it never exceeds; `None` for the whole tier.
    pub limit: Option<ByteCount>,
}

/// What an account may keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// In RAM.
    pub ram: TierQuota,
    /// On NVMe.
    pub nvme: TierQuota,
}

/// Why a quota can't be had. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// A share larger than the limit would promise what is forbidden.
    #[error("{tier}.share is {share}, it must be at most {tier}.limit ({limit})")]
    ShareAboveLimit {
        /// In which tier.
        tier: Tier,
        /// The share asked for.
        share: ByteCount,
        /// The limit asked for.
        limit: ByteCount,
    },
    /// All shares together would be more than may be guaranteed.
    #[error(
        "{tier}.share is {share}, at most {left} can be guaranteed: others have {others}, and all shares together may be \
             {SHARES_OF_HUNDRED} % of the tier's {capacity}"
    )]
    Overcommitted {
        /// In which tier.
        tier: Tier,
        /// The share asked for.
        share: ByteCount,
        /// What others are guaranteed.
        others: ByteCount,
        /// What is left to be guaranteed.
        left: ByteCount,
        /// The tier's bytes.
        capacity: ByteCount,
    },
    /// Blocks have a guaranteed lifetime that the share must cover.
    #[error(
        "nvme.share is {share}, it must be at least {kept}: so much is promised to blocks with a guaranteed lifetime or a pin"
    )]
    Promised {
        /// The share asked for.
        share: ByteCount,
        /// What is promised.
        kept: ByteCount,
    },
    /// As many accounts as may be have one.
    #[error("{0} accounts have a quota, which is the limit")]
    TooMany(usize),
}

impl Quota {
    /// What it says of a tier.
    #[must_use]
    pub const fn of(&self, tier: Tier) -> TierQuota {
        match tier {
            Tier::Ram => self.ram,
            Tier::Nvme => self.nvme,
        }
    }

    /// Whether it says nothing: no share, no limit.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
