//! The words of the house: plain values, parsed once at the door and trusted everywhere inside.
//!
//! Knows nothing of files, tasks, databases or the wire. Everything here builds without the `server` feature, so that
//! a worker's client speaks the same words as the daemon.

pub mod account;
pub mod arena;
pub mod block;
pub mod clock;
pub mod crc;
pub mod hints;
pub mod ids;
pub mod key;
pub mod limits;
pub mod namespace;
pub mod quota;
pub mod retention;
pub mod scope;
pub mod units;
pub mod usage;

pub use account::AccountName;
pub use arena::{
    ARENA_HELLO, GENERATION_SHIFT, PLACE_BYTES, REGION_OFFER, STAGING_HELLO, SlotClass, SlotId, TierShape,
};
pub use block::{GroupId, Owner, OwnerPath, Tier, TierCounts};
pub use clock::{Clock, SystemClock, Timestamp, VirtualClock};
pub use hints::Hints;
pub use ids::{
    AccountId, ApiKeyId, BillingId, ClassName, DomainName, InstanceId, LeaseId, NamespaceId, NamespaceName, RequestId,
    TenantName, UserName, WordError,
};
pub use key::{BlockKey, ChainRoot};
pub use namespace::{Fingerprint, NamespaceSpec};
pub use quota::{Quota, QuotaError, TierQuota};
pub use retention::{Furthest, Lifetime, Promise, Retention};
pub use scope::{Scope, ScopePath};
pub use units::{ByteCount, TokenCount};
pub use usage::{FinishReason, NodeRole, UsageDetail};
