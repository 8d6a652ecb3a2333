//! The daemon's RAM as a worker of the same host sees it: mapped once, read without asking.

use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::mapping::Mapping;
use super::{Client, ClientError, Place, Session};
use crate::copy::held;
use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::{HANDOVER_MAX, HANDOVER_PARTS};
use crate::vocab::{ARENA_HELLO, BlockKey};

/// The arena, mapped read-only. Where it came from must be alive for its places to mean anything, not for it to be safe.
#[derive(Debug)]
pub struct Arena {
    words: Mapping,
    segments: Vec<Mapping>,
}

impl Client {
    /// Maps the daemon's RAM; `None` where it hands none over, or is on another host. Then use [`Client::fetch`].
    ///
    /// # Errors
    /// When it is handed over there and this process can't take it: it is another user's, another daemon listens at a path of
    /// the same name, or there is no memory to map.
    pub async fn attach(&self, session: &Session) -> Result<Option<Arena>, ClientError> {
        let Some(path) = session.arena_socket().map(str::to_owned) else { return Ok(None) };
        let id = session.id();
        let taken = tokio::task::spawn_blocking(move || take(&path, id)).await;
        match taken.map_err(|error| ClientError::protocol(error.to_string()))? {
            Ok(arena) => Ok(Some(arena)),
            // Nobody there: its host is another.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(ClientError::protocol(format!("the arena can't be had: {error}"))),
        }
    }
}

fn take(path: &str, session: u64) -> io::Result<Arena> {
    let parts = take_parts(path, &[&ARENA_HELLO[..], &session.to_le_bytes()].concat())?;
    let mut parts = parts.iter().map(|(fd, bytes)| Mapping::new(fd, *bytes));
    let words = parts.next().ok_or_else(|| io::Error::other("the daemon refuses: another user's process?"))??;
    Ok(Arena { words, segments: parts.collect::<io::Result<_>>()? })
}

/// Says `hello` at the daemon's small socket, and takes the parts that it answers with, each with its bytes.
pub(super) fn take_parts(path: &str, hello: &[u8]) -> io::Result<Vec<(OwnedFd, u64)>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(HANDOVER_MAX))?;
    stream.set_write_timeout(Some(HANDOVER_MAX))?;
    stream.write_all(hello)?;
    let mut parts = Vec::new();
    while receive(&stream, &mut parts)? {}
    Ok(parts)
}

/// Takes some parts; false at the end.
fn receive(stream: &UnixStream, parts: &mut Vec<(OwnedFd, u64)>) -> io::Result<bool> {
    let mut bytes = [0; HANDOVER_PARTS * 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_PARTS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let came = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?.bytes;
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
    let sizes: Vec<u64> = bytes[..came]
        .chunks_exact(8)
        .map(|size| size.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
        .collect();
    // The last message has no descriptors, and may have come together with nothing before it.
    if !came.is_multiple_of(8) || sizes.iter().filter(|size| **size > 0).count() != descriptors.len() {
        return Err(io::Error::other(format!("{came} bytes came with {} parts", descriptors.len())));
    }
    parts.extend(descriptors.into_iter().zip(sizes.iter().copied()));
    Ok(came > 0 && !sizes.contains(&0))
}

impl Arena {
    /// Copies a block to `to`, which must be as long as its payload. False: it is gone, or its bytes are not those of
    /// `key`; what `to` holds is worth nothing then, and the block is a miss. Without a key the checksum is not compared:
    /// a lease, and the daemon's own check when the block came into RAM, are all there is.
    #[must_use]
    pub fn copy(&self, place: &Place, key: Option<&BlockKey>, to: &mut [u8]) -> bool {
        let Some(segment) = self.segments.get(place.segment as usize) else { return false };
        if to.len() != place.length as usize {
            return false;
        }
        let mut crc = key.map(PayloadCrc::new);
        self.held(place, || segment.copy(place.offset, to, crc.as_mut())) == Some(true)
            && crc.is_none_or(|crc| crc.finish() == place.crc)
    }

    /// Lets `read` look at a block's bytes where they are: what it gives back, or `None` where they may have changed
    /// before its last look. It gets an address and a length, no slice, because the daemon may write there.
    pub fn in_place<T>(&self, place: &Place, read: impl FnOnce(*const u8, usize) -> T) -> Option<T> {
        let segment = self.segments.get(place.segment as usize)?;
        let address = segment.address(place.offset, place.length as usize)?;
        self.held(place, || read(address, place.length as usize))
    }

    /// Whether the slot still holds the block that the place names: all reads before this were of its bytes.
    #[must_use]
    pub fn holds(&self, place: &Place) -> bool {
        self.held(place, || ()).is_some()
    }

    /// What `read` makes of the slot's bytes, if they were those of the block that the place names to the last.
    fn held<T>(&self, place: &Place, read: impl FnOnce() -> T) -> Option<T> {
        held(self.words.word(place.word)?, place.generation, read)
    }
}
