//! Memory shared with engines' processes, each piece for as long as the session of its process.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::registry::Session;
use super::staging::Staging;
use crate::media::{Region, RegionError};
use crate::plan::InstanceNo;
use crate::vocab::limits::{
    OFFERED_PER_SESSION_MAX, REGIONS_PER_SESSION_MAX, STAGING_BYTES_MAX, STAGING_TOTAL_BYTES_MAX,
};

/// Why there is no such region.
#[derive(Debug, thiserror::Error)]
pub enum SharingError {
    /// No descriptor of that number was handed over by this session.
    #[error("handle {0} is not waiting: a descriptor is handed over at SessionOpened.arena.socket, and attached once")]
    UnknownHandle(u64),
    /// It is not attached (any more).
    #[error("region {0} is not attached: a region lasts as long as the session that attached it")]
    UnknownRegion(u64),
    /// It is another instance's.
    #[error("region {0} belongs to another engine instance")]
    Foreign(u64),
    /// It was made to store through.
    #[error("region {0} is staging memory: it is written by its worker alone, and stored from by Reserve and Commit")]
    Staging(u64),
    /// The session has as many as it may.
    #[error("the session has attached {REGIONS_PER_SESSION_MAX} regions, which is the limit")]
    TooMany,
    /// More staging memory than there may be.
    #[error(
        "bytes is {asked}, staging memory may have {left} more (a session {STAGING_BYTES_MAX}, all together \
             {STAGING_TOTAL_BYTES_MAX})"
    )]
    TooMuch {
        /// What was asked.
        asked: u64,
        /// What is left.
        left: u64,
    },
    /// It is no memory to share.
    #[error("region: {0}")]
    Region(#[from] RegionError),
}

/// All regions.
#[derive(Debug, Default)]
pub struct Regions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    numbered: u64,
    /// Descriptors handed over and not attached yet.
    offered: BTreeMap<u64, (u64, OwnedFd)>,
    regions: BTreeMap<u64, Attached>,
    /// Of all staging memory.
    staging_bytes: u64,
}

#[derive(Debug)]
struct Attached {
    session: u64,
    instance: InstanceNo,
    region: Arc<Region>,
    staging: Option<Arc<Staging>>,
}

impl Regions {
    /// Keeps a descriptor that a session has handed over until it is attached; its number. `None` where the session
    /// leaves too many waiting.
    pub fn offer(&self, session: u64, fd: OwnedFd) -> Option<u64> {
        let mut inner = self.lock();
        if inner.offered.values().filter(|(of, _)| *of == session).count() >= OFFERED_PER_SESSION_MAX {
            return None;
        }
        let handle = inner.number();
        inner.offered.insert(handle, (session, fd));
        Some(handle)
    }

    /// Maps a descriptor that was handed over; the region's number. Takes as long as the kernel takes to map its pages.
    ///
    /// # Errors
    /// For an unknown handle, memory that can't be shared, or too many regions.
    pub fn attach(&self, session: &Session, handle: u64, bytes: u64) -> Result<u64, SharingError> {
        let fd = {
            let mut inner = self.lock();
            inner.check_room(session)?;
            let known = inner.offered.get(&handle).is_some_and(|(of, _)| *of == session.id);
            let taken = known.then(|| inner.offered.remove(&handle)).flatten();
            taken.ok_or(SharingError::UnknownHandle(handle))?.1
        };
        let region = Region::attach(fd, bytes)?;
        Ok(self.lock().add(session, region, None))
    }

    /// Makes staging memory for a session; the region's number.
    ///
    /// # Errors
    /// For more than there may be, or when the kernel has none.
    pub fn make(&self, session: &Session, bytes: u64) -> Result<u64, SharingError> {
        {
            let mut inner = self.lock();
            inner.check_room(session)?;
            let of_session: u64 =
                inner.of(session.id).filter_map(|one| one.staging.as_ref()).map(|one| one.size()).sum();
            let left = (STAGING_TOTAL_BYTES_MAX - inner.staging_bytes).min(STAGING_BYTES_MAX - of_session);
            if bytes > left {
                return Err(SharingError::TooMuch { asked: bytes, left });
            }
            inner.staging_bytes += bytes;
        }
        match Region::make(bytes) {
            Ok(region) => Ok(self.lock().add(session, region, Some(Arc::new(Staging::new(bytes))))),
            Err(error) => {
                self.lock().staging_bytes -= bytes;
                Err(error.into())
            }
        }
    }

    /// An engine's own memory, for a process of the instance that attached it.
    ///
    /// # Errors
    /// Where it is not attached, another instance's, or staging memory.
    pub fn get(&self, session: &Session, number: u64) -> Result<Arc<Region>, SharingError> {
        let inner = self.lock();
        let attached = inner.regions.get(&number).ok_or(SharingError::UnknownRegion(number))?;
        if attached.instance != session.number {
            return Err(SharingError::Foreign(number));
        }
        if attached.staging.is_some() {
            return Err(SharingError::Staging(number));
        }
        Ok(Arc::clone(&attached.region))
    }

    /// A session's staging memory and who has which part of it; `None` where it has none.
    #[must_use]
    pub fn staging(&self, session: u64) -> Option<(Arc<Region>, Arc<Staging>)> {
        let inner = self.lock();
        let found = inner.of(session).find_map(|one| Some((&one.region, one.staging.as_ref()?)));
        found.map(|(region, staging)| (Arc::clone(region), Arc::clone(staging)))
    }

    /// A descriptor of memory that was made for this session, and its size.
    #[must_use]
    pub fn descriptor(&self, session: u64, number: u64) -> Option<(OwnedFd, u64)> {
        let inner = self.lock();
        let one = inner.regions.get(&number).filter(|one| one.session == session && one.staging.is_some())?;
        Some((one.region.fd().try_clone_to_owned().ok()?, one.region.size() as u64))
    }

    /// Detaches a region that this session attached; whether there was one. What is being written to it ends first: the
    /// memory stays mapped so long.
    pub fn detach(&self, session: u64, number: u64) -> bool {
        let mut inner = self.lock();
        let known = inner.regions.get(&number).is_some_and(|one| one.session == session);
        known && inner.remove(number)
    }

    /// A session has ended: its memory goes.
    pub(super) fn close(&self, session: u64) {
        let mut inner = self.lock();
        inner.offered.retain(|_, (of, _)| *of != session);
        let numbers: Vec<u64> =
            inner.regions.iter().filter(|(_, one)| one.session == session).map(|(number, _)| *number).collect();
        for number in numbers {
            inner.remove(number);
        }
    }

    /// Regions attached now, and bytes of staging memory.
    #[must_use]
    pub fn held(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.regions.len(), inner.staging_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    fn of(&self, session: u64) -> impl Iterator<Item = &Attached> {
        self.regions.values().filter(move |one| one.session == session)
    }

    fn check_room(&self, session: &Session) -> Result<(), SharingError> {
        if self.of(session.id).count() >= REGIONS_PER_SESSION_MAX { Err(SharingError::TooMany) } else { Ok(()) }
    }

    fn add(&mut self, session: &Session, region: Arc<Region>, staging: Option<Arc<Staging>>) -> u64 {
        let number = self.number();
        self.regions.insert(number, Attached { session: session.id, instance: session.number, region, staging });
        number
    }

    fn remove(&mut self, number: u64) -> bool {
        let Some(one) = self.regions.remove(&number) else { return false };
        self.staging_bytes -= one.staging.map_or(0, |staging| staging.size());
        true
    }
}
