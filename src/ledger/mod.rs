//! The ledger database: what was settled, who pays for it, and the receipts of what was delivered.
//!
//! A settle is acknowledged after it is on disk, written once under its identity (tenant, billing id), and never
//! deleted or changed by the program. A database that can't be read is an error, and is never rebuilt empty.

mod audit;
mod codec;
mod error;
#[expect(clippy::module_inception, reason = "the file is named with its noun, and so is the room")]
mod ledger;
pub mod price;
mod quotas;
mod receipt;
mod record;
mod rollup;
#[cfg(test)]
mod sample;
pub mod shape;
mod store;
mod writer;

pub use audit::Audit;
pub use codec::DecodeError;
pub use error::{AcknowledgeError, LedgerError, SettleError};
pub use ledger::{Acknowledged, Ledger};
pub use receipt::{DeliveryReceipt, ReceiptError, ReceiptKey};
pub use record::{Delivered, Settled, Settlement, UsageRecord};
pub use rollup::{Usage, UsageFilter, UsageRow, UsageSummary};
pub use writer::Reply;
