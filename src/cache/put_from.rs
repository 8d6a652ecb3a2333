//! The walk of a put from memory that the daemon shares with the writer: no socket, one copy, its checksum in the same pass.

use std::sync::Arc;

use super::Cache;
use super::chain::Chain;
use super::error::Error;
use super::put::PutResult;
use super::regions::check_offset;
use crate::session::{Region, Session};
use crate::vocab::RequestId;

/// Where a block's payload lies in shared memory. The writer must leave it as it is until the put has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u32,
}

/// The parts that two columns name: one offset for each block of the chain, and as many lengths, or none where all are as
/// long as the namespace allows.
///
/// # Errors
/// For columns that do not fit the chain or the memory.
pub fn parts(chain: &Chain, region: &Region, offsets: &[u64], lengths: &[u32]) -> Result<Vec<Option<Part>>, Error> {
    let (blocks, most) = (chain.len(), chain.namespace.spec.max_payload_bytes);
    if offsets.len() != blocks || !(lengths.is_empty() || lengths.len() == blocks) {
        let given = format!("offset has {} entries and length {}", offsets.len(), lengths.len());
        let rule = format!("the chain names {blocks} blocks: one offset for each, and one length or none at all");
        return Err(Error::Invalid(format!("{given}, {rule}")));
    }
    let part = |(at, offset): (usize, &u64)| {
        let length = lengths.get(at).copied().unwrap_or(most);
        if length == 0 || length > most {
            let rule = format!("it must be 1 to max_payload_bytes ({most})");
            return Err(Error::Invalid(format!("length[{at}] is {length}, {rule}")));
        }
        check_offset(region, at, *offset, length.into())?;
        Ok(Some(Part { offset: *offset, length }))
    };
    offsets.iter().enumerate().map(part).collect()
}

impl Cache {
    /// Stores the first blocks of a chain from shared memory, as many as `parts` has entries. The put ends before the first
    /// block that is wanted and has none.
    ///
    /// # Errors
    /// When the daemon is stopping, or the request is over.
    pub async fn put_from(
        self: &Arc<Self>,
        session: &Session,
        request: &RequestId,
        chain: &Chain,
        region: &Arc<Region>,
        parts: &[Option<Part>],
    ) -> Result<PutResult, Error> {
        // Whoever ends the request waits for this: bytes must not be stored that the engine has put there for another.
        let guard = self.writing.begin(session.number, request.digest());
        tokio::select! {
            biased;
            () = guard.stop().cancelled() => Err(Error::Refused(format!("request_id {request} was finished meanwhile"))),
            stored = self.copy_parts((session.instance.digest(), request.digest()), chain, region, parts) => stored,
        }
    }

    /// `writer` is the digests of instance and request.
    pub(super) async fn copy_parts(
        self: &Arc<Self>,
        writer: (u128, u128),
        chain: &Chain,
        region: &Arc<Region>,
        parts: &[Option<Part>],
    ) -> Result<PutResult, Error> {
        let head = chain.with_keys(chain.keys_in_turns(parts.len()).await);
        let (mut walk, _) = self.put(&head).await?;
        walk.written_by(writer.0, writer.1, chain.depth);
        for at in walk.wanted().collect::<Vec<_>>() {
            let Some(Part { offset, length }) = parts.get(at).copied().flatten() else { break };
            let fill = |start, part: &mut [u8], crc: &mut _| region.copy_out(offset + start, part, crc);
            if !walk.block(length, fill).await? {
                break;
            }
        }
        walk.finish().await
    }
}
