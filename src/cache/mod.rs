//! The walks: what happens to a request between the gate and the shelves, one file a walk.
//!
//! [`lookup`] reads the published map and never waits; [`load`] sends blocks and promotes them on the way; [`put`] takes
//! them in; [`settle`] turns deliveries into a record. Decisions are the planner's, which runs on the [`driver`]'s
//! thread; nothing here knows a policy.

pub mod admin;
pub mod chain;
mod complaints;
mod delivery;
mod driver;
pub mod drives;
mod error;
mod flight;
pub mod flush;
pub mod footprint;
pub mod keep;
mod late;
pub mod load;
pub mod load_into;
pub mod lookup;
pub mod meter;
pub mod names;
mod offers;
mod peek;
pub mod places;
pub mod put;
pub mod put_from;
pub mod quota;
pub mod record;
mod regions;
pub mod reserve;
pub mod residency;
pub mod scrub;
pub mod settle;
mod start;
mod storage;
pub mod ticket;
mod troubles;
#[cfg(test)]
mod waits_tests;
mod wear;
mod worth;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub use chain::{Chain, Keys};
pub use driver::TurnTimes;
pub use error::Error;
pub use names::{Names, Namespace};
pub use start::{Parts, StartError};

pub use crate::plan::{Filter, Inspection, LeaseError, Leased};
pub use crate::tiers::ProcessCost;

use crate::plan::{AdmissionKind, Answer, Event, PolicyKind};
use crate::session::{Gone, Session, SessionError, Sessions};
use crate::tiers::{DrivePlace, NvmeShelf, RamShelf};
use crate::vocab::{ByteCount, Clock, InstanceId, NamespaceName, NamespaceSpec, Timestamp};

/// The cache: everything behind the gate.
pub struct Cache {
    driver: driver::Driver,
    complaints: Arc<complaints::Complaints>,
    residency: Arc<residency::Residency>,
    flights: Arc<flight::Flights>,
    ram: Arc<RamShelf>,
    nvme: Option<Arc<NvmeShelf>>,
    places: Vec<DrivePlace>,
    wears: wear::Wears,
    wear_budget: Option<ByteCount>,
    /// What is evicted first, and what is written to NVMe.
    rules: (PolicyKind, AdmissionKind),
    scrub: scrub::Scrub,
    names: Names,
    sessions: Arc<Sessions>,
    deliveries: delivery::Deliveries,
    ledger: late::Place,
    meter: meter::Meter,
    clock: Arc<dyn Clock>,
    started: Timestamp,
    puts: AtomicU64,
    writing: regions::Writing,
    reservations: reserve::Reservations,
    tickets: ticket::Tickets,
    keeping: keep::Keeping,
    recorder: Option<record::Recorder>,
    /// Held while a quota is changed.
    quotas: tokio::sync::Mutex<()>,
}

impl Cache {
    /// The names known here.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The RAM tier's memory.
    #[must_use]
    pub fn ram(&self) -> &Arc<RamShelf> {
        &self.ram
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Who is there.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// The session of this number.
    ///
    /// # Errors
    /// When it is not open.
    pub fn session(&self, id: u64) -> Result<Session, SessionError> {
        self.sessions.get(id)
    }

    /// Opens a session for `owner`, who alone may name it.
    ///
    /// # Errors
    /// When too many are open, or the instance is another's.
    pub fn open_session(&self, instance: InstanceId, owner: &str) -> Result<Session, SessionError> {
        self.sessions.open(instance, owner)
    }

    /// A process is gone; with its instance's last one go the instance's leases.
    pub fn close_session(&self, id: u64) {
        let session = self.recorder.as_ref().and_then(|recorder| Some((recorder, self.sessions.get(id).ok()?)));
        let gone = self.sessions.close(id);
        // After it: what a call under way begins meanwhile finds the session gone, or is found here.
        self.end_tickets_of(id);
        self.end_reservations_of(id);
        if let Some(Gone { instance, number, namespaces }) = gone {
            if let Some((recorder, session)) = session {
                recorder.gone(&session.instance);
            }
            let sessions = Arc::clone(&self.sessions);
            let gone = Event::InstanceGone { instance: number, namespaces };
            self.driver.tell_soon_and(gone, move || sessions.has_left(&instance));
        }
    }

    /// Registers a layout; whether it is new. One whose weights are unknown lives as long as the session's instance.
    ///
    /// # Errors
    /// When it is not persistent and the session is not open, or there are too many.
    pub fn register(
        &self,
        session: Option<u64>,
        name: NamespaceName,
        spec: NamespaceSpec,
    ) -> Result<(Arc<Namespace>, bool), Error> {
        let persistent = spec.persistent();
        self.check_fits(&spec)?;
        let (namespace, created) = self.names.register(name, spec)?;
        if !persistent {
            self.sessions.bind(session.unwrap_or_default(), namespace.id)?;
        }
        Ok((namespace, created))
    }
}

impl Cache {
    /// Refuses a layout of which no tier could ever hold a block: silence would look like a cache that never hits.
    fn check_fits(&self, spec: &NamespaceSpec) -> Result<(), Error> {
        let nvme = self.nvme.as_ref().filter(|_| spec.persistent()).map(|nvme| ("nvme", nvme.shape()));
        for (tier, shape) in [Some(("ram", self.ram.shape())), nvme].into_iter().flatten() {
            let payload = spec.max_payload_bytes;
            let class = shape.class_for(payload);
            // A drive's first extent is its largest.
            if (0..shape.stride()).all(|extent| shape.slots(extent, class) == 0) {
                let extent = shape.extent_bytes();
                return Err(Error::Refused(format!(
                    "spec.max_payload_bytes is {payload}, a slot of this daemon's {tier} tier has at most {extent} bytes \
                     (a sixteenth of the tier): start it with a larger --{tier}"
                )));
            }
        }
        Ok(())
    }
}

/// The planner answered another question: a mistake of this program, which a caller can only report.
fn unexpected(answer: &Answer) -> Error {
    Error::Broken(format!("the planner gave an answer out of place: {answer:?}"))
}
