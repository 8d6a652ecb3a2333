//! The open sessions, by the number that requests carry.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::outbox::Outbox;
use super::regions::Regions;
use crate::plan::InstanceNo;
use crate::vocab::limits::SESSIONS_MAX;
use crate::vocab::{InstanceId, NamespaceId};

/// One process of an engine instance, while its session's stream is open.
#[derive(Clone, Debug)]
pub struct Session {
    /// Names it in requests.
    pub id: u64,
    /// Which instance.
    pub instance: InstanceId,
    /// The planner's number for it.
    pub number: InstanceNo,
    /// Who opened it: nobody else may name it.
    pub owner: Arc<str>,
    /// What its stream is to be told.
    pub outbox: Arc<Outbox>,
}

/// An instance whose last session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its name.
    pub instance: InstanceId,
    /// Which instance.
    pub number: InstanceNo,
    /// Namespaces that go with it: their weights were known to it alone.
    pub namespaces: Vec<NamespaceId>,
}

/// Why no session was opened or found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// As many as may be are open.
    #[error("{SESSIONS_MAX} sessions are open, which is the limit")]
    TooMany,
    /// Another principal has open sessions of the instance.
    #[error("instance {0} is in use by another principal: each instance has a name of its own")]
    Foreign(InstanceId),
    /// It is not open (any more).
    #[error("session_id {0} is not open: a session lasts as long as its OpenSession stream")]
    Unknown(u64),
}

/// All open sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
    /// An instance has left.
    left: Notify,
    regions: Regions,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: BTreeMap<u64, Session>,
    instances: BTreeMap<InstanceId, Instance>,
    /// Instances numbered so far; a number is never used again.
    numbered: u32,
    /// Instances that are gone and whose blocks, of weights that only they knew, are still being erased.
    leaving: BTreeSet<InstanceId>,
}

#[derive(Debug)]
struct Instance {
    number: InstanceNo,
    owner: Arc<str>,
    sessions: usize,
    namespaces: Vec<NamespaceId>,
}

impl Sessions {
    /// Opens a session of `instance` for `owner`.
    ///
    /// # Errors
    /// When too many are open, or the instance is another's.
    pub fn open(&self, instance: InstanceId, owner: &str) -> Result<Session, SessionError> {
        let mut inner = self.lock();
        if inner.sessions.len() >= SESSIONS_MAX {
            return Err(SessionError::TooMany);
        }
        if !inner.instances.contains_key(&instance) {
            inner.numbered += 1;
            let number = InstanceNo(inner.numbered);
            let new = Instance { number, owner: owner.into(), sessions: 0, namespaces: Vec::new() };
            inner.instances.insert(instance.clone(), new);
        }
        let Some(known) = inner.instances.get_mut(&instance) else { return Err(SessionError::TooMany) };
        if &*known.owner != owner {
            return Err(SessionError::Foreign(instance));
        }
        known.sessions += 1;
        let (number, owner) = (known.number, Arc::clone(&known.owner));
        let taken = |id: &u64| *id == 0 || inner.sessions.contains_key(id);
        let id = std::iter::repeat_with(rand::random::<u64>).find(|id| !taken(id)).unwrap_or_default();
        let session = Session { id, instance, number, owner, outbox: Arc::default() };
        inner.sessions.insert(id, session.clone());
        Ok(session)
    }

    /// The session of this number.
    ///
    /// # Errors
    /// When it is not open.
    pub fn get(&self, id: u64) -> Result<Session, SessionError> {
        self.lock().sessions.get(&id).cloned().ok_or(SessionError::Unknown(id))
    }

    /// Binds a namespace to the life of a session's instance.
    ///
    /// # Errors
    /// When the session is not open.
    pub fn bind(&self, id: u64, namespace: NamespaceId) -> Result<(), SessionError> {
        let mut inner = self.lock();
        let instance = inner.sessions.get(&id).ok_or(SessionError::Unknown(id))?.instance.clone();
        if let Some(known) = inner.instances.get_mut(&instance)
            && !known.namespaces.contains(&namespace)
        {
            known.namespaces.push(namespace);
        }
        Ok(())
    }

    /// The memory that is shared with them.
    #[must_use]
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Closes a session. The instance, if it was its last.
    pub fn close(&self, id: u64) -> Option<Gone> {
        self.regions.close(id);
        let mut inner = self.lock();
        let session = inner.sessions.remove(&id)?;
        let known = inner.instances.get_mut(&session.instance)?;
        known.sessions -= 1;
        if known.sessions > 0 {
            return None;
        }
        let Instance { number, namespaces, .. } = inner.instances.remove(&session.instance)?;
        if !namespaces.is_empty() {
            inner.leaving.insert(session.instance.clone());
        }
        Some(Gone { instance: session.instance, number, namespaces })
    }

    /// All that had to go with an instance that is gone has gone.
    pub fn has_left(&self, instance: &InstanceId) {
        self.lock().leaving.remove(instance);
        self.left.notify_waiters();
    }

    /// Waits until what had to go with an instance of this name has gone: whoever comes back under it may have other
    /// weights, and must find no block of the former ones.
    pub async fn until_left(&self, instance: &InstanceId) {
        loop {
            let mut left = pin!(self.left.notified());
            // Before the look, so that an end in between is not missed.
            left.as_mut().enable();
            if !self.lock().leaving.contains(instance) {
                return;
            }
            left.await;
        }
    }

    /// Sessions open now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_gone_with_its_last_session_and_comes_back_as_another() {
        let sessions = Sessions::default();
        let instance = InstanceId::parse("engine-1").unwrap();
        let (scheduler, rank) =
            (sessions.open(instance.clone(), "a").unwrap(), sessions.open(instance.clone(), "a").unwrap());
        assert_eq!(sessions.open(instance.clone(), "b").unwrap_err(), SessionError::Foreign(instance.clone()));
        assert_eq!(scheduler.number, rank.number);
        sessions.bind(rank.id, NamespaceId(7)).unwrap();
        assert_eq!(sessions.close(scheduler.id), None);
        let gone = sessions.close(rank.id).unwrap();
        assert_eq!((gone.number, gone.namespaces), (rank.number, vec![NamespaceId(7)]));
        assert_eq!(sessions.get(rank.id).unwrap_err(), SessionError::Unknown(rank.id));
        assert_ne!(sessions.open(instance, "b").unwrap().number, rank.number);
    }

    #[tokio::test]
    async fn who_comes_back_waits_until_the_blocks_of_its_former_weights_are_gone() {
        let sessions = Sessions::default();
        let [instance, other] = ["engine-1", "engine-2"].map(|name| InstanceId::parse(name).unwrap());
        let session = sessions.open(instance.clone(), "a").unwrap();
        sessions.bind(session.id, NamespaceId(7)).unwrap();
        sessions.close(session.id).unwrap();
        sessions.until_left(&other).await;
        let mut back = pin!(sessions.until_left(&instance));
        tokio::select! {
            biased;
            () = &mut back => panic!("it is let in before all is erased"),
            () = async {} => sessions.has_left(&instance),
        }
        back.await;
        sessions.until_left(&instance).await;
    }
}
