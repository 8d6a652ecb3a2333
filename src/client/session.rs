//! The presence of this process at a daemon: one stream that stays open for as long as the process wants to be there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Streaming;

use super::ticket::Board;
use super::{Client, ClientError};
use crate::proto::{OpenSessionRequest, SessionEvent, SessionOpened, session_event};
use crate::vocab::InstanceId;
use crate::vocab::limits::CALL_MAX;

/// The revision of the protocol that is spoken here.
const PROTOCOL_REVISION: u32 = 1;

/// What the daemon lets a caller ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Blocks of one request.
    pub request_blocks_max: u32,
    /// Payload of one block, in bytes.
    pub payload_bytes_max: u32,
    /// Life of a lease.
    pub lease_ttl_max: Duration,
    /// Payload bytes of one message that the daemon likes to get.
    pub message_payload_bytes: u32,
}

/// An open session. When it is dropped the daemon ends it, and with the instance's last one all of its leases.
#[derive(Debug)]
pub struct Session {
    id: u64,
    instance: InstanceId,
    limits: SessionLimits,
    version: String,
    features: Vec<String>,
    arena_socket: Option<String>,
    board: Arc<Board>,
    closed: watch::Receiver<Option<String>>,
    upkeep: JoinHandle<()>,
}

impl Client {
    /// Opens a session: `instance` is the same from all processes of an engine and another from every other engine;
    /// `process` is for people.
    ///
    /// # Errors
    /// When the daemon has too many, speaks another revision, or can't be reached.
    pub async fn open_session(&self, instance: &InstanceId, process: &str) -> Result<Session, ClientError> {
        let request = OpenSessionRequest {
            instance: instance.as_str().to_owned(),
            process: process.to_owned(),
            protocol_revision: PROTOCOL_REVISION,
            features: Vec::new(),
        };
        let mut events = self.answer("OpenSession", self.sessions_service().open_session(request)).await?;
        let first = self.within("OpenSession", CALL_MAX, events.message()).await?;
        let Some(session_event::Event::Opened(opened)) = first.and_then(|event| event.event) else {
            return Err(ClientError::protocol("a session's first event must be `opened`"));
        };
        if opened.protocol_revision != PROTOCOL_REVISION || opened.session_id == 0 {
            let SessionOpened { session_id, protocol_revision, .. } = opened;
            let what = format!("the daemon opened session {session_id} in revision {protocol_revision}, not 1");
            return Err(ClientError::Protocol { what });
        }
        let (gone, closed) = watch::channel(None);
        let board = Arc::<Board>::default();
        let upkeep = tokio::spawn(keep(events, Arc::clone(&board), gone));
        let limits = limits(&opened);
        let SessionOpened { session_id: id, version, features, arena, .. } = opened;
        let arena_socket = arena.map(|arena| arena.socket);
        Ok(Session { id, instance: instance.clone(), limits, version, features, arena_socket, board, closed, upkeep })
    }
}

/// Holds the stream until the daemon ends it; why it ended is left behind.
async fn keep(mut events: Streaming<SessionEvent>, board: Arc<Board>, gone: watch::Sender<Option<String>>) {
    let why = loop {
        match events.message().await {
            Ok(Some(SessionEvent { event: Some(session_event::Event::Ticket(update)) })) => board.tell(&update),
            Ok(Some(_)) => {}
            Ok(None) => break "the daemon ended the session".to_owned(),
            Err(status) => break status.message().to_owned(),
        }
    };
    gone.send_replace(Some(why));
}

fn limits(opened: &SessionOpened) -> SessionLimits {
    let limits = opened.limits.unwrap_or_default();
    SessionLimits {
        request_blocks_max: limits.request_blocks_max,
        payload_bytes_max: limits.payload_bytes_max,
        lease_ttl_max: Duration::from_millis(limits.lease_ttl_ms_max),
        message_payload_bytes: limits.message_payload_bytes,
    }
}

impl Session {
    /// Its number in requests.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The engine instance that it belongs to.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// What may be asked for.
    #[must_use]
    pub fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// The daemon's version, for people.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What the daemon can do.
    #[must_use]
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// The Unix socket that hands over the daemon's RAM, where it does.
    pub(super) fn arena_socket(&self) -> Option<&str> {
        self.arena_socket.as_deref()
    }

    /// What the daemon has told of this session's tickets.
    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Whether the daemon still holds it, as far as known here. Once it does not, its leases are gone: open another.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closed.borrow().is_none()
    }

    /// Waits until the daemon has ended it; why.
    pub async fn closed(&self) -> String {
        let mut closed = self.closed.clone();
        let why = closed.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the session's task has stopped".to_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The task owns the stream: with it goes the session.
        self.upkeep.abort();
    }
}
