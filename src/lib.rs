//! kvtier keeps prefix-hashed KV blocks of LLM prompts in a GPU host's RAM and on its NVMe drives, tells inference
//! workers before prefill how long a prefix they can skip, hands over the bytes, and meters the tokens skipped.
//!
//! It is a cache and a meter: it may forget, but never lie; it may miss a charge, but never charges twice. It is not a
//! database, not a file store, and not a router.
//!
//! The rooms, from the ground up (a room imports only rooms above it in this list; `tests/tidy.rs` holds it):
//! [`vocab`] words · `copy` memory that processes share · [`proto`] the wire · [`plan`] the mind, pure · `watch` parts that must not end, and health · `media` the hands: memory and devices · `index` the
//! catalog database · `ledger` the usage database · `access` who may do what · `tiers` shelves without opinions · `session` engine instances ·
//! `cache` the walks · `rpc` the gate · `handover` memory for same-host workers · [`client`] what workers use · `replay` traces · `offline` stopped folders ·
//! `daemon` wiring · `bench` this machine's limits · `cli` one file a subcommand.

pub mod client;
mod copy;
pub mod plan;
pub mod proto;
pub mod vocab;

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod bench;
#[cfg(feature = "server")]
pub mod cache;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod handover;
#[cfg(feature = "server")]
pub mod index;
#[cfg(feature = "server")]
pub mod ledger;
#[cfg(feature = "media")]
pub mod media;
#[cfg(feature = "server")]
pub mod offline;
#[cfg(feature = "server")]
pub mod replay;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod tiers;
#[cfg(feature = "server")]
pub mod watch;
