//! Who is calling, and what they may do: principals with roles, the tenants that they may act for, and how they are known.
//!
//! Knows words only. The gate asks it ([`Gatekeeper::identify`], [`Role::may`]); it serves nobody itself. Every refusal leaves
//! one line in the log, under the target `kvtier::access`.

mod audit;
mod book;
mod erasure;
mod gatekeeper;
mod grant;
mod principal;
mod token;

pub use audit::{Audit, Refusal, Refused};
pub use book::{Book, BookError};
pub use erasure::{Erasure, ErasureKey, verify as verify_erasure};
pub use gatekeeper::{Credentials, Gatekeeper};
pub use grant::{Grant, GrantError, GrantKey, GrantSigner};
pub use principal::{Permission, Principal, Role, Tenants};
pub use token::{MintedToken, Token, TokenHash};
