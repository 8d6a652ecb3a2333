//! A verification's stream: how far it has come, and what it has found.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status::status;
use crate::cache::scrub::Verified;
use crate::cache::{Cache, Error};
use crate::proto;
use crate::vocab::limits::VERIFY_CHANNEL;

/// The stream.
pub(super) type Replies = Pin<Box<dyn Stream<Item = Result<proto::VerifyReply, Status>> + Send>>;

/// Verifies until it is done, the reader is gone, or the daemon stops.
pub(super) fn verify(cache: Arc<Cache>, closing: CancellationToken) -> Replies {
    let (found, stream) = mpsc::channel(VERIFY_CHANNEL);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = cache.verify(&found) => ended,
            () = closing.cancelled() => Err(Error::Closing),
        };
        if let Err(error) = ended {
            found.send(Err(error)).await.ok();
        }
    });
    Box::pin(ReceiverStream::new(stream).map(|found| found.map(reply).map_err(status)))
}

fn reply(verified: Verified) -> proto::VerifyReply {
    let Verified { of_blocks, blocks, bytes, corrupt, problems, done } = verified;
    let problem = |(key, what): (crate::vocab::BlockKey, String)| {
        let key = key.as_bytes().to_vec().into();
        proto::CorruptBlock { key, what }
    };
    let problems = problems.into_iter().map(problem).collect();
    proto::VerifyReply { of_blocks, blocks, bytes, corrupt, problems, done }
}
