//! What can be wrong with a book, and with what is priced by it.

use crate::vocab::{BillingId, NamespaceName, TenantName};

/// A book that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// It is no TOML.
    #[error("{0}")]
    Syntax(String),
    /// A field breaks its rule.
    #[error("{field} is {value}, it must be {rule}")]
    Field {
        /// The path of the field, such as `price[2].peak.hours[0].until`; periods are counted from 0.
        field: String,
        /// What it held, shortened.
        value: String,
        /// What it must be.
        rule: String,
    },
}

/// A record that can't be priced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// No period has a price for it.
    #[error(
        "no period of the book covers record {billing_id} of {tenant}: namespace {namespace}, settled at {at} \
         (in the book's time zone); add a [[price]] that does, nothing is priced at zero without one"
    )]
    NotCovered {
        /// Who would pay.
        tenant: TenantName,
        /// The request.
        billing_id: BillingId,
        /// Its namespace.
        namespace: NamespaceName,
        /// When it was settled.
        at: String,
    },
    /// No period has a price for storage held then.
    #[error(
        "no period of the book has a price for storage that {tenant} held in {namespace} in the hour from {at} (in the book's \
         time zone): add storage_hour to the [[price]] of then that asks for no labels; 0 where it is free"
    )]
    StorageNotCovered {
        /// Who would pay.
        tenant: TenantName,
        /// Of which namespace.
        namespace: NamespaceName,
        /// The start of the hour.
        at: String,
    },
    /// An hour of storage came again with another number.
    #[error(
        "storage of {tenant} in {namespace} in the hour from {at} came twice, and the second differs: it was exported before \
         the hour was over; export whole days (usage storage --from-hour --until-hour)"
    )]
    StorageDiffers {
        /// Who pays.
        tenant: TenantName,
        /// Of which namespace.
        namespace: NamespaceName,
        /// The start of the hour.
        at: String,
    },
    /// An identity came again with another charge.
    #[error(
        "record {billing_id} of {tenant} came twice, and the second differs in what is charged (tokens, namespace, or the \
         price of its moment): it is charged once, and kvtier does not guess which"
    )]
    Differs {
        /// Who pays.
        tenant: TenantName,
        /// The request.
        billing_id: BillingId,
    },
    /// The tokens of a line do not fit 64 bits, or its token-milliseconds 128.
    #[error("the tokens of {tenant} in {namespace} add up to more than an invoice can hold")]
    TooMany {
        /// Who pays.
        tenant: TenantName,
        /// The namespace.
        namespace: NamespaceName,
    },
}
