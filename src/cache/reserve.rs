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
use crate::vocab::limits::{KEYS_AT_ONCE, RESERVATIONS_PER_SESSION_MAX};
use crate::vocab::{BlockKey, RequestId};

/// Staging memory granted for a chain.
#[derive(Debug)]
struct Reservation {
    request: u128,
    /// Its keys are known.
    chain: Chain,
    payload: u32,
    /// Numbers of the blocks that have a part, in order.
    blocks: Arc<[usize]>,
    region: Arc<Region>,
    grant: Arc<Grant>,
    /// It is being stored: it is here only so that its blocks are not granted again.
    committing: bool,
}

/// Blocks of a chain that have a part, by their numbers.
type Granted = (Chain, Arc<[usize]>);

/// All reservations, by session. Each session has a lock of its own, and nothing that grows with a chain is done under one.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    numbered: AtomicU64,
    sessions: Mutex<HashMap<u64, Arc<OfSession>>>,
}

/// Those of one session.
#[derive(Debug)]
struct OfSession {
    instance: InstanceNo,
    /// Whose turn it is to reserve: two calls at once for one request would grant the same blocks.
    turn: Arc<tokio::sync::Mutex<()>>,
    held: Mutex<HashMap<u64, Reservation>>,
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
    pub async fn reserve(
        &self,
        session: &Session,
        request: &RequestId,
        chain: &Chain,
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
        let request = request.digest();
        let own = self.reservations.of(session);
        let _turn = own.turn.lock().await;
        let granted = own.granted(request)?;
        let chain = chain.with_keys(chain.keys_in_turns(chain.len()).await);
        let wanted = self.wanted(&chain, &granted).await;
        let grant = Arc::new(staging.grant(wanted.len().min(blocks_max), payload));
        let offsets = grant.offsets().to_vec();
        let number = self.reservations.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        let blocks = wanted[..offsets.len()].into();
        let reservation = Reservation { request, chain, payload, blocks, region, grant, committing: false };
        own.lock().insert(number, reservation);
        if self.sessions.get(session.id).is_err() {
            self.end_reservations_of(session.id);
        }
        Ok(Reserved { number, wanted, offsets })
    }

    /// Numbers of the blocks that are neither here nor granted, in order.
    async fn wanted(&self, chain: &Chain, granted: &[Granted]) -> Vec<usize> {
        let mut has_part = HashSet::<BlockKey>::new();
        for (chain, blocks) in granted {
            for some in blocks.chunks(KEYS_AT_ONCE) {
                has_part.extend(some.iter().map(|at| chain.key(*at)));
                tokio::task::yield_now().await;
            }
        }
        let mut wanted = Vec::new();
        for start in (0..chain.len()).step_by(KEYS_AT_ONCE) {
            let some = start..chain.len().min(start + KEYS_AT_ONCE);
            wanted.extend(some.filter(|at| {
                let key = chain.key(*at);
                self.residency.get(&key).is_none() && !has_part.contains(&key)
            }));
            tokio::task::yield_now().await;
        }
        wanted
    }

    /// Stores what was filled. The staging memory is free again when this returns, stored or not.
    ///
    /// # Errors
    /// For a reservation that has ended, or is another session's, and as [`put_from`](Self::put_from).
    pub async fn commit(self: &Arc<Self>, session: &Session, number: u64, filled: Filled) -> Result<PutResult, Error> {
        let refused = || {
            let why = "it is committed once, and ends with its request and its session";
            Error::Refused(format!("reservation {number} is not held by this session: {why}"))
        };
        let own = self.reservations.known(session.id).ok_or_else(refused)?;
        let (request, chain, payload, blocks, region, grant) = own.commit(number).ok_or_else(refused)?;
        let writer = (session.instance.digest(), request);
        // Whatever comes, the staging memory is free again in the end.
        let _ended = Committing { own: &own, number };
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
        self.reservations.all().iter().map(|own| own.lock().len()).sum()
    }

    /// Ends the reservations of a request.
    pub(super) fn end_reservations(&self, instance: InstanceNo, request: u128) {
        for own in self.reservations.all().into_iter().filter(|own| own.instance == instance) {
            let ended: Vec<_> = own.lock().extract_if(|_, one| one.request == request).collect();
            // Not under the lock: their chains are long.
            drop(ended);
        }
    }

    /// Ends the reservations of a session.
    pub(super) fn end_reservations_of(&self, session: u64) {
        let ended = self.reservations.lock().remove(&session);
        if let Some(own) = ended {
            // Also where a call under way still has it.
            let held = std::mem::take(&mut *own.lock());
            drop(held);
        }
    }
}

/// Ends a reservation.
struct Committing<'a> {
    own: &'a OfSession,
    number: u64,
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        let ended = self.own.lock().remove(&self.number);
        drop(ended);
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
    /// Those of this session, which may have none yet.
    fn of(&self, session: &Session) -> Arc<OfSession> {
        let new = || OfSession { instance: session.number, turn: Arc::default(), held: Mutex::default() };
        Arc::clone(self.lock().entry(session.id).or_insert_with(|| Arc::new(new())))
    }

    /// Held, it is as if this session were reserving.
    #[cfg(test)]
    pub(super) fn turn_of(&self, session: &Session) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.of(session).turn)
    }

    fn known(&self, session: u64) -> Option<Arc<OfSession>> {
        self.lock().get(&session).cloned()
    }

    fn all(&self) -> Vec<Arc<OfSession>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<OfSession>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a commit needs: request, chain, bytes of a payload, blocks, and where they lie.
type Committed = (u128, Chain, u32, Arc<[usize]>, Arc<Region>, Arc<Grant>);

impl OfSession {
    /// Which blocks of which chains are granted to a request.
    ///
    /// # Errors
    /// Where the session has as many reservations as it may.
    fn granted(&self, request: u128) -> Result<Vec<Granted>, Error> {
        let held = self.lock();
        if held.len() >= RESERVATIONS_PER_SESSION_MAX {
            let most = RESERVATIONS_PER_SESSION_MAX;
            return Err(Error::Full(format!("the session holds {most} reservations, which is the limit: commit them")));
        }
        let of_request = held.values().filter(|one| one.request == request);
        Ok(of_request.map(|one| (one.chain.clone(), Arc::clone(&one.blocks))).collect())
    }

    /// From now on it is being stored; `None` where there is none, or it is already.
    fn commit(&self, number: u64) -> Option<Committed> {
        let mut held = self.lock();
        let one = held.get_mut(&number).filter(|one| !one.committing)?;
        one.committing = true;
        let (region, grant) = (Arc::clone(&one.region), Arc::clone(&one.grant));
        Some((one.request, one.chain.clone(), one.payload, Arc::clone(&one.blocks), region, grant))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Reservation>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
