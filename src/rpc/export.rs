//! An export's stream: records in order, from the ledger by pages.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status::status;
use super::usage::wire;
use crate::cache::{Cache, Error};
use crate::ledger::UsageRecord;
use crate::proto;
use crate::vocab::limits::EXPORT_CHANNEL;

/// The stream.
pub(super) type Replies = Pin<Box<dyn Stream<Item = Result<proto::UsageRecord, Status>> + Send>>;

/// Sends the records after the cursor, up to the last of now. It ends early where the reader is gone or the daemon stops.
pub(super) fn export(cache: Arc<Cache>, request: &proto::ExportUsageRequest, closing: CancellationToken) -> Replies {
    let (records, stream) = mpsc::channel(EXPORT_CHANNEL);
    let after = (!request.unacknowledged).then_some(request.after);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = send(cache, after, &records) => ended,
            () = closing.cancelled() => Err(Error::Closing),
        };
        if let Err(error) = ended {
            records.send(Err(error)).await.ok();
        }
    });
    Box::pin(ReceiverStream::new(stream).map(|record| record.map(wire).map_err(status)))
}

async fn send(
    cache: Arc<Cache>,
    after: Option<u64>,
    records: &mpsc::Sender<Result<UsageRecord, Error>>,
) -> Result<(), Error> {
    let of = Arc::clone(&cache);
    let cursors = page(move || of.usage_cursors()).await?;
    let mut after = after.unwrap_or(cursors.through);
    while after < cursors.last {
        let from = Arc::clone(&cache);
        let found = page(move || from.usage_records(after)).await?;
        let Some(last) = found.last() else { return Ok(()) };
        after = last.sequence;
        for record in found.into_iter().take_while(|record| record.sequence <= cursors.last) {
            if records.send(Ok(record)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads the ledger's database, which may wait for a drive.
async fn page<T: Send + 'static>(read: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(read).await.map_err(|error| Error::Broken(error.to_string()))?
}
