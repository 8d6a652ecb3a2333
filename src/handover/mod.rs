//! Hands the arena's descriptors to workers of the same host: a small Unix socket beside the one that serves gRPC, which can
//! carry no descriptors. What goes over it is written at `ArenaDescription` in `proto/kvtier/v1/session.proto`.
//!
//! The segments show the blocks of all tenants, so they go to processes of the daemon's own user, of root, and of users who
//! are trusted with that, and to sessions only. What is handed out of them can be read and nothing else: the segments are sealed. Memory of the engines' own
//! comes in here, and staging memory goes out, which both sides may write.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::session::Sessions;
use crate::vocab::limits::{HANDOVER_MAX, HANDOVER_PARTS, HANDOVERS_AT_ONCE};
use crate::vocab::{ARENA_HELLO, REGION_OFFER, STAGING_HELLO};

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

/// Which other users' processes are trusted with all tenants' memory.
#[derive(Clone)]
pub struct Trust(Arc<dyn Fn(u32) -> bool + Send + Sync>);

impl Trust {
    /// Those of whom this holds.
    pub fn new(trusts: impl Fn(u32) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(trusts))
    }
}

/// Serves until `closing`: hands `parts` to each process that names an open session, and takes and gives the memory that
/// both sides write.
pub async fn serve(
    listener: UnixListener,
    parts: Parts,
    sessions: Weak<Sessions>,
    trusts: Trust,
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
        let Some(sessions) = sessions.upgrade() else { return };
        let (parts, trusts) = (Parts(Arc::clone(&parts.0)), trusts.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = stream.into_std().and_then(|stream| answer(stream, &parts, &sessions, &trusts)) {
                tracing::debug!(%error, "no memory was handed over");
            }
            drop(turn);
        });
    }
}

fn answer(mut stream: UnixStream, parts: &Parts, sessions: &Sessions, trusts: &Trust) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HANDOVER_MAX))?;
    stream.set_write_timeout(Some(HANDOVER_MAX))?;
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    let is_own = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
    if !is_own && !(trusts.0)(peer.uid.as_raw()) {
        return refused("it is another user's process");
    }
    let (hello, descriptor) = hear(&mut stream)?;
    let (word, session) = hello.split_at(ARENA_HELLO.len());
    let session = number(session);
    if sessions.get(session).is_err() {
        return refused("it names no open session");
    }
    if word == ARENA_HELLO {
        for some in parts.0.chunks(HANDOVER_PARTS) {
            send(&stream, some)?;
        }
        send(&stream, &[])
    } else if word == REGION_OFFER {
        let Some(descriptor) = descriptor else { return refused("it sent no descriptor") };
        let handle = sessions.regions().offer(session, descriptor).unwrap_or_default();
        stream.write_all(&handle.to_le_bytes())
    } else if word == STAGING_HELLO {
        let mut region = [0; 8];
        stream.read_exact(&mut region)?;
        if let Some(part) = sessions.regions().descriptor(session, number(&region)) {
            send(&stream, &[part])?;
        }
        send(&stream, &[])
    } else {
        refused("it speaks another protocol")
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// What a process asks for, and the descriptor that came with its first byte.
fn hear(stream: &mut UnixStream) -> io::Result<([u8; 16], Option<OwnedFd>)> {
    let mut hello = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    // A socket with a timeout is interrupted by every signal, also by the one that ends a pause of the daemon.
    let receive = || recvmsg(&*stream, &mut [IoSliceMut::new(&mut hello)], &mut ancillary, flags);
    let came = retry_on_intr(receive)?.bytes;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if came == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut hello[came..])?;
    Ok((hello, descriptor))
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
    let sent = retry_on_intr(|| sendmsg(stream, &[IoSlice::new(&sizes)], &mut ancillary, SendFlags::NOSIGNAL))?;
    if sent == sizes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
