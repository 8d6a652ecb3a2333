//! The daemon's RAM as a worker of the same host sees it: mapped once, read without asking.

use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::time::Instant;

use super::mapping::Mapping;
use super::turns::Turns;
use super::{Client, ClientError, Place, Session};
use crate::copy::held;
use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::{HANDOVER_MAX, HANDOVER_PARTS, TURN_BYTES};
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
    // A socket with a timeout is interrupted by every signal, also by the one that ends a pause of this process.
    let came = retry_on_intr(|| recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags))?.bytes;
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

    /// The same on a thread that has other tasks, too: they have their turn after every [`TURN_BYTES`], and what is not copied
    /// at `until` is false as well.
    pub(super) async fn copy_in_turns(
        &self,
        place: &Place,
        key: &BlockKey,
        to: &mut [u8],
        until: Instant,
        turns: &mut Turns,
    ) -> bool {
        let Some(segment) = self.segments.get(place.segment as usize) else { return false };
        if to.len() != place.length as usize {
            return false;
        }
        let (mut crc, mut at) = (PayloadCrc::new(key), place.offset);
        for part in to.chunks_mut(TURN_BYTES) {
            turns.rest().await;
            if Instant::now() > until || !segment.copy(at, part, Some(&mut crc)) {
                return false;
            }
            turns.took(part.len());
            at += part.len() as u64;
        }
        self.holds(place) && crc.finish() == place.crc
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::vocab::GENERATION_SHIFT;
    use crate::vocab::crc::payload_crc;

    const BLOCK: usize = 8 * TURN_BYTES + 17;

    fn part(bytes: &[u8]) -> Mapping {
        let fd = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, bytes.len() as u64).unwrap();
        rustix::io::write(fd.as_fd(), bytes).unwrap();
        Mapping::new(&fd, bytes.len() as u64).unwrap()
    }

    /// An arena of one block, where it lies, its key and its bytes.
    fn arena() -> (Arena, Place, BlockKey, Vec<u8>) {
        let bytes: Vec<u8> = (0..BLOCK).map(|at| (at % 251) as u8).collect();
        let (key, generation) = (BlockKey::from_bytes([3; 32]), 7_u64);
        let arena =
            Arena { words: part(&(generation << GENERATION_SHIFT).to_le_bytes()), segments: vec![part(&bytes)] };
        let (length, crc) = (BLOCK as u32, payload_crc(&key, &bytes));
        (arena, Place { index: 0, segment: 0, offset: 0, length, word: 0, generation, crc }, key, bytes)
    }

    #[tokio::test]
    async fn a_long_copy_lets_other_tasks_have_the_thread_after_each_turn_and_ends_at_its_deadline() {
        let (arena, place, key, bytes) = arena();
        let until = Instant::now() + Duration::from_secs(60);
        let (mut to, mut turns, mut rests) = (vec![0; BLOCK], Turns::default(), 0);
        {
            let mut copying = pin!(arena.copy_in_turns(&place, &key, &mut to, until, &mut turns));
            while copying.as_mut().poll(&mut Context::from_waker(Waker::noop())) != Poll::Ready(true) {
                rests += 1;
                assert!(rests < 100, "it ends");
            }
        }
        assert_eq!((rests, to == bytes), (8, true));

        let (mut to, until) = (vec![0; BLOCK], Instant::now() + Duration::from_secs(1));
        let mut copying = pin!(arena.copy_in_turns(&place, &key, &mut to, until, &mut turns));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(copying.as_mut().poll(&mut context), Poll::Pending);
        std::thread::sleep(Duration::from_millis(1_100));
        assert_eq!(copying.as_mut().poll(&mut context), Poll::Ready(false), "within a block, too");
    }

    #[tokio::test]
    async fn a_copy_in_turns_is_of_the_right_block_or_none() {
        let (arena, place, key, bytes) = arena();
        let until = Instant::now() + Duration::from_secs(60);
        let mut to = vec![0; BLOCK];
        for (wrong, wrong_key) in [
            (Place { generation: 8, ..place }, key),
            (Place { crc: 1, ..place }, key),
            (Place { offset: 1, ..place }, key),
            (Place { segment: 1, ..place }, key),
            (Place { length: 9, ..place }, key),
            (place, BlockKey::from_bytes([4; 32])),
        ] {
            assert!(!arena.copy_in_turns(&wrong, &wrong_key, &mut to, until, &mut Turns::default()).await, "{wrong:?}");
        }
        assert!(arena.copy_in_turns(&place, &key, &mut to, until, &mut Turns::default()).await && to == bytes);
    }
}
