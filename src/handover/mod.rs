//! Hands the arena's descriptors to workers of the same host: a small Unix socket beside the one that serves gRPC, which can
//! carry no descriptors. What goes over it is written at `ArenaDescription` in `proto/kvtier/v1/session.proto`.
//!
//! The segments show the blocks of all tenants, so they go to processes of the daemon's own user and of root only, and to
//! sessions only. What is handed out can be read and nothing else: the segments are sealed.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::vocab::ARENA_HELLO;
use crate::vocab::limits::{HANDOVER_MAX, HANDOVER_PARTS, HANDOVERS_AT_ONCE};

/// The parts of the arena: the words, then the segments, with their bytes.
#[derive(Debug)]
pub struct Parts(Arc<[(OwnedFd, u64)]>);

impl Parts {
    /// Keeps descriptors of its own.
    ///
    /// # Errors
    /// When the process may open no more.
    pub fn of<'a>(parts: impl Iterator<Item = (BorrowedFd<'a>, u64)>) -> io::Result<Self> {
        Ok(Self(parts.map(|(fd, bytes)| Ok((fd.try_clone_to_owned()?, bytes))).collect::<io::Result<_>>()?))
    }
}

/// Serves until `closing`: hands `parts` to each process that names a session which `admits` knows.
pub async fn serve(
    listener: UnixListener,
    parts: Parts,
    admits: impl Fn(u64) -> bool + Clone + Send + 'static,
    closing: CancellationToken,
) {
    let turns = Arc::new(Semaphore::new(HANDOVERS_AT_ONCE));
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: others must let go of some first.
            tokio::time::sleep(HANDOVER_MAX).await;
            continue;
        };
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let (parts, admits) = (Parts(Arc::clone(&parts.0)), admits.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = stream.into_std().and_then(|stream| hand_over(stream, &parts, admits)) {
                tracing::debug!(%error, "the arena was not handed over");
            }
            drop(turn);
        });
    }
}

fn hand_over(mut stream: UnixStream, parts: &Parts, admits: impl Fn(u64) -> bool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HANDOVER_MAX))?;
    stream.set_write_timeout(Some(HANDOVER_MAX))?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return refused("it is another user's process");
    }
    let mut hello = [0; 16];
    stream.read_exact(&mut hello)?;
    let (word, session) = hello.split_at(ARENA_HELLO.len());
    let session = session.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte));
    if word != ARENA_HELLO || !admits(session) {
        return refused("it names no open session");
    }
    for some in parts.0.chunks(HANDOVER_PARTS) {
        send(&stream, some)?;
    }
    send(&stream, &[])
}

/// Sends some parts, or the end.
fn send(stream: &UnixStream, parts: &[(OwnedFd, u64)]) -> io::Result<()> {
    let sizes: Vec<u8> = match parts {
        [] => 0_u64.to_le_bytes().to_vec(),
        parts => parts.iter().flat_map(|(_, bytes)| bytes.to_le_bytes()).collect(),
    };
    let descriptors: Vec<BorrowedFd<'_>> = parts.iter().map(|(fd, _)| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_PARTS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("the descriptors of one message do not fit it"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(&sizes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == sizes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
