//! Prices: a book in TOML, and what records cost by it.
//!
//! Pure and stateless: the same book, named by its hash, and the same records give the same invoice, in any order, on any
//! host. Money is integers of a millionth of a millionth of the currency; it is rounded when an invoice is written, and never before.

mod book;
mod calendar;
mod canonical;
mod check;
mod error;
mod fields;
mod invoice;
mod money;
mod parse;
mod tally;
mod week;

pub use book::Book;
pub use calendar::Days;
pub use error::{BookError, PriceError};
pub use invoice::{Invoice, InvoiceLine, TenantInvoice, token_hours};
pub use money::{Money, Price};
pub use tally::Tally;
pub use week::MeanPrices;

#[cfg(test)]
mod tests;
