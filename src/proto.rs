//! Generated protobuf; the contract, with its comments, is in `proto/kvtier/v1`. And how its messages are read.

#[expect(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the comments are in the .proto files"
)]
mod generated {
    tonic::include_proto!("kvtier.v1");
}

mod messages;
mod sliced;

pub use generated::*;
pub use messages::{Frames, FromFrames, Messages, RawBody};
pub use sliced::{SlicedPiece, SlicedReply};

/// The compiled descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kvtier.v1.bin"));
