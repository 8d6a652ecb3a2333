//! The walk of a put through staging memory: parts of it are granted for what is not here yet, filled by the worker, and
//! stored from there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Cache;
use super::chain::Chain;
use super::error::Error;
use super::put::PutResult;
use super::put_from::Part;
use crate::plan::InstanceNo;
use crate::session::{Grant, Region, Session};
use crate::vocab::limits::RESERVATIONS_PER_SESSION_MAX;
use crate::vocab::{BlockKey, RequestId};

/// Staging memory granted for a chain.
#[derive(Debug)]
struct Reservation {
    session: u64,
    instance: InstanceNo,
    request: u128,
    chain: Chain,
    payload: u32,
    /// Numbers of the blocks that have a part, in order.
    blocks: Vec<usize>,
    region: Arc<Region>,
    grant: Arc<Grant>,
    /// It is being stored: it is here only so that its blocks are not granted again.
    committing: bool,
}

/// All reservations.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    numbered: AtomicU64,
    all: Mutex<HashMap<u64, Reservation>>,
}

/// What a reservation grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Names it in a commit.
    pub number: u64,
    /// Numbers of the blocks that are not here, in order.
    pub wanted: Vec<usize>,
    /// Where in the staging memory the first of them go.
    pub offsets: Vec<u64>,
}

/// Which blocks of a reservation were filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// The first so many of those with a part; `None`: all.
    pub blocks: Option<usize>,
    /// Bytes of each; empty: as was reserved.
    pub lengths: Vec<u32>,
}

impl Cache {
    /// Grants staging memory for the blocks of a chain that are not here, or for the first of them.
    ///
    /// # Errors
    /// For a session without staging memory, or with too many reservations.
    pub fn reserve(
        &self,
        session: &Session,
        request: &RequestId,
        chain: Chain,
        payload: Option<u32>,
        blocks_max: usize,
    ) -> Result<Reserved, Error> {
        let most = chain.namespace.spec.max_payload_bytes;
        let payload = payload.unwrap_or(most);
        if payload == 0 || payload > most {
            let rule = format!("it must be 1 to max_payload_bytes ({most})");
            return Err(Error::Invalid(format!("payload_bytes is {payload}, {rule}")));
        }
        let Some((region, staging)) = self.sessions.regions().staging(session.id) else {
            let why = "the session has no staging memory: call AttachRegion with handle 0";
            return Err(Error::Refused(why.into()));
        };
        let (instance, request) = (session.number, request.digest());
        let mut all = self.reservations.lock();
        let of_session = || all.values().filter(|one| one.session == session.id);
        if of_session().count() >= RESERVATIONS_PER_SESSION_MAX {
            let most = RESERVATIONS_PER_SESSION_MAX;
            return Err(Error::Full(format!("the session holds {most} reservations, which is the limit: commit them")));
        }
        let granted: HashSet<BlockKey> = of_session()
            .filter(|one| one.request == request)
            .flat_map(|one| one.blocks.iter().map(|at| one.chain.key(*at)))
            .collect();
        let wants = |at: &usize| {
            let key = chain.key(*at);
            self.residency.get(&key).is_none() && !granted.contains(&key)
        };
        let wanted: Vec<usize> = (0..chain.len()).filter(wants).collect();
        let grant = Arc::new(staging.grant(wanted.len().min(blocks_max), payload));
        let offsets = grant.offsets().to_vec();
        let number = self.reservations.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        let blocks = wanted[..offsets.len()].to_vec();
        let (session, committing) = (session.id, false);
        all.insert(
            number,
            Reservation { session, instance, request, chain, payload, blocks, region, grant, committing },
        );
        Ok(Reserved { number, wanted, offsets })
    }

    /// Stores what was filled. The staging memory is free again when this returns, stored or not.
    ///
    /// # Errors
    /// For a reservation that has ended, or is another session's, and as [`put_from`](Self::put_from).
    pub async fn commit(self: &Arc<Self>, session: &Session, number: u64, filled: Filled) -> Result<PutResult, Error> {
        let (writer, chain, payload, blocks, region, grant) = {
            let mut all = self.reservations.lock();
            let own = all.get_mut(&number).filter(|one| one.session == session.id && !one.committing);
            let Some(one) = own else {
                let why = "it is committed once, and ends with its request and its session";
                return Err(Error::Refused(format!("reservation {number} is not held by this session: {why}")));
            };
            one.committing = true;
            let writer = (session.instance.digest(), one.request);
            (
                writer,
                one.chain.clone(),
                one.payload,
                one.blocks.clone(),
                Arc::clone(&one.region),
                Arc::clone(&one.grant),
            )
        };
        // Whatever comes, the staging memory is free again in the end.
        let _ended = Committing { reservations: &self.reservations, number };
        let parts = parts(&chain, payload, &blocks, &grant, &filled)?;
        let mut stored = self.copy_parts(writer, &chain, &region, &parts).await?;
        if stored.stored_through as usize == parts.len() {
            // What comes after the last part may have been here all the time.
            stored.stored_through = self.residency.prefix(chain.len(), |at| chain.key(at)).hit();
        }
        Ok(stored)
    }

    /// Reservations held now.
    #[must_use]
    pub fn reservations(&self) -> usize {
        self.reservations.lock().len()
    }

    /// Ends the reservations of a request.
    pub(super) fn end_reservations(&self, instance: InstanceNo, request: u128) {
        self.reservations.lock().retain(|_, one| (one.instance, one.request) != (instance, request));
    }

    /// Ends the reservations of a session.
    pub(super) fn end_reservations_of(&self, session: u64) {
        self.reservations.lock().retain(|_, one| one.session != session);
    }
}

/// Ends a reservation.
struct Committing<'a> {
    reservations: &'a Reservations,
    number: u64,
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.reservations.lock().remove(&self.number);
    }
}

/// Where each block of a chain lies that was filled.
fn parts(
    chain: &Chain,
    payload: u32,
    blocks: &[usize],
    grant: &Grant,
    filled: &Filled,
) -> Result<Vec<Option<Part>>, Error> {
    let count = filled.blocks.unwrap_or(blocks.len());
    if count > blocks.len() || !(filled.lengths.is_empty() || filled.lengths.len() == count) {
        let (parts, lengths) = (blocks.len(), filled.lengths.len());
        let rule = format!("the reservation has {parts} parts, and length one entry for each block or none");
        return Err(Error::Invalid(format!("blocks is {count} with {lengths} entries in length: {rule}")));
    }
    if let Some(at) = filled.lengths.iter().position(|length| *length == 0 || *length > payload) {
        let (length, rule) = (filled.lengths[at], format!("it must be 1 to payload_bytes ({payload})"));
        return Err(Error::Invalid(format!("length[{at}] is {length}, {rule}")));
    }
    let last = count.checked_sub(1).map_or(0, |last| blocks[last] + 1);
    let mut parts = vec![None; last.min(chain.len())];
    for (at, (block, offset)) in blocks.iter().zip(grant.offsets()).take(count).enumerate() {
        let length = filled.lengths.get(at).copied().unwrap_or(payload);
        parts[*block] = Some(Part { offset: *offset, length });
    }
    Ok(parts)
}

impl Reservations {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Reservation>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
