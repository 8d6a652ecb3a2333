//! The ledger database: what was settled, who pays for it, and the receipts of what was delivered.
//!
//! A settle is acknowledged after it is on disk, written once under its identity (tenant, billing id), and never changed by
//! the program: what was wrong is corrected by a record of its own. It is deleted only once exporters have it and its time is over, while its sums stay. A database that can't be read is an error, and is never rebuilt empty.

mod audit;
mod bound;
mod codec;
mod correction;
mod counts;
mod database;
mod delivery;
mod divergence;
mod error;
mod exports;
#[cfg(test)]
mod faults;
mod gateway;
mod grouping;
mod heal;
mod joined;
#[expect(clippy::module_inception, reason = "the file is named with its noun, and so is the room")]
mod ledger;
pub mod price;
mod quotas;
mod receipt;
mod record;
mod refused;
mod rollup;
mod row;
#[cfg(test)]
mod sample;
mod secrets;
pub mod shape;
mod storage;
mod store;
mod sweep;
mod view;
mod writer;

pub use audit::Audit;
pub use codec::DecodeError;
pub use correction::{Amendment, Correction, Truth};
pub use counts::Counts;
pub use delivery::Claim;
pub use divergence::{Divergence, Divergences, Diverging};
pub use error::{AcknowledgeError, LedgerError, SettleError};
pub use exports::{ExportReport, Exports};
pub use gateway::{GatewayError, GatewayReport, Reconciliation};
pub use grouping::{Dimension, Grouping};
pub use joined::Joined;
pub use ledger::{Acknowledged, Ledger, LedgerFill, LedgerOptions};
pub use receipt::{DeliveryReceipt, ReceiptError, ReceiptFlaw, ReceiptKey};
pub use record::{Delivered, Settled, Settlement, UsageRecord};
pub use refused::Refused;
pub use rollup::{Usage, UsageFilter, UsageRow, UsageSummary};
pub use storage::{StorageKey, StorageRow};
pub use writer::Reply;

#[cfg(test)]
mod correct_tests;
#[cfg(test)]
mod delivery_tests;
#[cfg(test)]
mod heal_tests;
#[cfg(test)]
mod life_tests;
