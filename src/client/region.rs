//! An engine's own host pool, shared with the daemon: blocks are read straight into it, and stored from it.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::time::Instant;
use tonic::Streaming;

use super::fetch::{FetchEnd, outcome};
use super::lookup::millis;
use super::memory::Memory;
use super::put::{PutResult, put_result};
use super::{Chain, Client, ClientError, Session};
use crate::proto::{
    AttachRegionRequest, DetachRegionRequest, LoadIntoReply, LoadIntoRequest, LoadRequest, PutFromRequest, PutOffer,
};
use crate::vocab::limits::{CALL_MAX, DEADLINE_GRACE, FETCH_DEADLINE_DEFAULT, HANDOVER_MAX};
use crate::vocab::{LeaseId, REGION_OFFER, RequestId};

/// Names attached memory in later calls; it is attached as long as the session that did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionId(pub u64);

/// Memory of this process that the daemon reads and writes, too.
#[derive(Debug)]
pub struct Pool {
    memory: Memory,
    region: RegionId,
}

/// Where a chain's blocks lie in a region, or are to lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPlaces {
    /// Which region.
    pub region: RegionId,
    /// Where each block begins; to be loaded, at a multiple of 4,096 with room for the namespace's largest payload.
    pub offsets: Vec<u64>,
    /// To be stored: bytes of each; empty where all have as many as the namespace allows.
    pub lengths: Vec<u32>,
}

/// What a load into a region asks besides the chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadIntoOptions {
    /// A lease over the blocks.
    pub lease: Option<LeaseId>,
    /// What has not been read by then is a miss; `None` for ten seconds.
    pub deadline: Option<Duration>,
}

/// A load into a region under way. Dropping it ends it soon; [`Client::finish_request`] says when.
#[derive(Debug)]
pub struct LoadInto {
    client: Client,
    replies: Streaming<LoadIntoReply>,
    loaded: u32,
    end: Option<FetchEnd>,
    patience: Duration,
    until: Instant,
}

impl Client {
    /// Makes a pool of `bytes` (whole pages) and attaches it; `None` where the daemon shares no memory with this process.
    ///
    /// # Errors
    /// When there is no memory, and as [`attach_region`](Self::attach_region).
    pub async fn attach_pool(&self, session: &Session, bytes: u64) -> Result<Option<Pool>, ClientError> {
        let memory = tokio::task::spawn_blocking(move || Memory::make(bytes)).await;
        let memory = memory.map_err(|error| ClientError::protocol(error.to_string()))?;
        let memory = memory.map_err(|error| ClientError::protocol(format!("no memory for a pool: {error}")))?;
        let region = self.attach_region(session, memory.fd(), bytes).await?;
        Ok(region.map(|region| Pool { memory, region }))
    }

    /// Attaches memory that this process has: a memfd, sealed against shrinking. `None` where the daemon shares no memory
    /// with this process.
    ///
    /// # Errors
    /// For memory that can't be shared, or more than a session may attach.
    pub async fn attach_region(
        &self,
        session: &Session,
        fd: BorrowedFd<'_>,
        bytes: u64,
    ) -> Result<Option<RegionId>, ClientError> {
        let Some(path) = session.arena_socket().map(str::to_owned) else { return Ok(None) };
        let own = fd.try_clone_to_owned().map_err(|error| ClientError::protocol(error.to_string()))?;
        let id = session.id();
        let handed = tokio::task::spawn_blocking(move || hand_over(&path, id, own.as_fd())).await;
        let handle = match handed.map_err(|error| ClientError::protocol(error.to_string()))? {
            Ok(handle) => handle,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(ClientError::protocol(format!("memory can't be handed over: {error}"))),
        };
        self.attach_handle(session, handle, bytes).await.map(Some)
    }

    pub(super) async fn attach_handle(
        &self,
        session: &Session,
        handle: u64,
        bytes: u64,
    ) -> Result<RegionId, ClientError> {
        let request = AttachRegionRequest { session_id: session.id(), bytes, handle };
        let mut service = self.cache_service();
        // The daemon maps every page of it.
        let most = CALL_MAX.saturating_mul(10);
        let attached = async { service.attach_region(request).await.map(tonic::Response::into_inner) };
        Ok(RegionId(self.within("AttachRegion", most, attached).await?.region))
    }

    /// Detaches memory; whether this call did it.
    ///
    /// # Errors
    /// When the daemon can't be asked.
    pub async fn detach_region(&self, session: &Session, region: RegionId) -> Result<bool, ClientError> {
        let request = DetachRegionRequest { session_id: session.id(), region: region.0 };
        Ok(self.answer("DetachRegion", self.cache_service().detach_region(request)).await?.detached)
    }

    /// Has a chain's blocks read into a region.
    ///
    /// # Errors
    /// As [`Client::fetch`], and for offsets that break the rule.
    pub async fn load_into(
        &self,
        session: &Session,
        request_id: &RequestId,
        chain: &Chain,
        places: RegionPlaces,
        options: LoadIntoOptions,
    ) -> Result<LoadInto, ClientError> {
        let LoadIntoOptions { lease, deadline } = options;
        let load = LoadRequest {
            session_id: session.id(),
            request_id: request_id.as_str().to_owned(),
            chain: Some(chain.to_wire()),
            lease_id: lease.map_or(0, |lease| lease.0),
            // 0 would mean the default.
            deadline_ms: deadline.map_or(0, |most| u32::try_from(millis(most).max(1)).unwrap_or(u32::MAX)),
        };
        let request = LoadIntoRequest { load: Some(load), region: places.region.0, offset: places.offsets };
        let patience = deadline.unwrap_or(FETCH_DEADLINE_DEFAULT).saturating_add(DEADLINE_GRACE);
        let until = Instant::now() + patience;
        let mut service = self.cache_service();
        let asked = async { service.load_into(request).await.map(tonic::Response::into_inner) };
        let replies = self.within("LoadInto", patience, asked).await?;
        Ok(LoadInto { client: self.clone(), replies, loaded: 0, end: None, patience, until })
    }

    /// Stores a chain's blocks from a region. The memory must stay as it is until this returns.
    ///
    /// # Errors
    /// As [`Client::put`], and for places past the region's end.
    pub async fn put_from(
        &self,
        session: &Session,
        request_id: &RequestId,
        chain: &Chain,
        places: RegionPlaces,
    ) -> Result<PutResult, ClientError> {
        let request_id = request_id.as_str().to_owned();
        let offer = PutOffer { session_id: session.id(), request_id, chain: Some(chain.to_wire()) };
        let RegionPlaces { region, offsets, lengths } = places;
        let request = PutFromRequest { offer: Some(offer), region: region.0, offset: offsets, length: lengths };
        let mut service = self.cache_service();
        let stored = async { service.put_from(request).await.map(tonic::Response::into_inner) };
        Ok(put_result(self.within("PutFrom", CALL_MAX.saturating_mul(2), stored).await?))
    }
}

fn hand_over(path: &str, session: u64, fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(HANDOVER_MAX))?;
    stream.set_write_timeout(Some(HANDOVER_MAX))?;
    let hello = [&REGION_OFFER[..], &session.to_le_bytes()].concat();
    let descriptors = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("a descriptor does not fit its message"));
    }
    // A socket with a timeout is interrupted by every signal.
    let send = || sendmsg(&stream, &[IoSlice::new(&hello)], &mut ancillary, SendFlags::NOSIGNAL);
    if rustix::io::retry_on_intr(send)? != hello.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut handle = [0; 8];
    stream.read_exact(&mut handle)?;
    match u64::from_le_bytes(handle) {
        0 => Err(io::Error::other("too many of this session's descriptors wait to be attached")),
        handle => Ok(handle),
    }
}

impl Pool {
    /// Names it in [`Client::load_into`] and [`Client::put_from`].
    #[must_use]
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// Copies out of it; false past its end.
    #[must_use]
    pub fn read(&self, at: u64, to: &mut [u8]) -> bool {
        self.memory.read(at, to)
    }

    /// Copies into it; false past its end.
    #[must_use]
    pub fn write(&self, at: u64, from: &[u8]) -> bool {
        self.memory.write(at, from)
    }

    /// Where `len` bytes from `at` are; `None` past its end. The daemon writes there while a load is under way.
    #[must_use]
    pub fn address(&self, at: u64, len: usize) -> Option<*mut u8> {
        self.memory.address(at, len)
    }
}

impl LoadInto {
    /// Waits for more blocks: how many are there now, counted from the first; `None` after the last word.
    ///
    /// # Errors
    /// When the connection breaks, or the daemon neither tells nor ends in time.
    pub async fn progress(&mut self) -> Result<Option<u32>, ClientError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let reply = match tokio::time::timeout_at(self.until, self.replies.message()).await {
            Ok(reply) => reply.map_err(|status| self.client.error(&status))?,
            Err(_) => return Err(ClientError::TimedOut { call: "LoadInto", after: self.patience }),
        };
        let Some(reply) = reply else { return Err(ClientError::protocol("a load without an end")) };
        self.loaded = reply.loaded_blocks;
        let Some(end) = reply.end else { return Ok(Some(self.loaded)) };
        self.client.hang_up(&mut self.replies).await;
        self.end = Some(FetchEnd {
            outcome: outcome(end.outcome()),
            blocks: self.loaded,
            blocks_ram: end.blocks_ram,
            blocks_nvme: end.blocks_nvme,
            tokens: end.tokens,
            corrupt: 0,
            receipt: end.receipt,
        });
        Ok(None)
    }

    /// Waits for the end: nothing is written to the region any more.
    ///
    /// # Errors
    /// As [`progress`](Self::progress).
    pub async fn end(mut self) -> Result<FetchEnd, ClientError> {
        while self.progress().await?.is_some() {}
        self.end.take().ok_or_else(|| ClientError::protocol("a load without an end"))
    }
}
