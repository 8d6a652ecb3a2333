//! What people and scripts ask of a running daemon.

use std::time::Duration;

use bytes::Bytes;

use super::lookup::millis;
use super::{Chain, Client, ClientError};
pub use crate::proto::{
    BlockInfo, DriveState, DriveStatus, EvictReply as Evicted, HealthState, LedgerStatus, MemoryStatus, NamespaceInfo,
    ProcessStatus, PurgeReply as Purged, ScrubStatus, ServiceHealth, Status, TierStatus, VerifyReply,
};
use crate::proto::{
    EvictRequest, GetStatusRequest, InspectBlockRequest, InspectNamespacesRequest, InspectPrefixRequest, PurgeRequest,
    QuiesceRequest, VerifyRequest,
};
use crate::vocab::limits::{CALL_MAX, DEADLINE_GRACE};
use crate::vocab::{BlockKey, Fingerprint, InstanceId, TenantName, UserName};

/// Which blocks to remove: all that match every field given, of which there must be one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeFilter {
    /// Blocks of this layout.
    pub fingerprint: Option<Fingerprint>,
    /// Blocks of this tenant.
    pub tenant: Option<TenantName>,
    /// Blocks of this user of that tenant.
    pub user: Option<UserName>,
    /// Blocks written by this engine instance.
    pub writer: Option<InstanceId>,
    /// Blocks written at or after this time, in seconds since 1970.
    pub since_s: Option<u32>,
}

impl Client {
    /// The daemon's state now.
    ///
    /// # Errors
    /// When the daemon can't be asked.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.answer("GetStatus", self.admin_service().get_status(GetStatusRequest {})).await
    }

    /// Namespaces and what each holds, in the order of their registration.
    ///
    /// # Errors
    /// When the daemon can't be asked.
    pub async fn inspect_namespaces(&self) -> Result<Vec<NamespaceInfo>, ClientError> {
        let mut service = self.admin_service();
        let asked = service.inspect_namespaces(InspectNamespacesRequest {});
        Ok(self.answer("InspectNamespaces", asked).await?.namespaces)
    }

    /// Each block of a chain: where it is and what is known of it.
    ///
    /// # Errors
    /// As [`Client::lookup`].
    pub async fn inspect_prefix(&self, chain: &Chain) -> Result<Vec<BlockInfo>, ClientError> {
        let request = InspectPrefixRequest { chain: Some(chain.to_wire()) };
        Ok(self.answer("InspectPrefix", self.admin_service().inspect_prefix(request)).await?.blocks)
    }

    /// One block by its key; nothing when it is not cached.
    ///
    /// # Errors
    /// When the daemon can't be asked.
    pub async fn inspect_block(&self, key: &BlockKey) -> Result<Option<BlockInfo>, ClientError> {
        let request = InspectBlockRequest { key: Bytes::copy_from_slice(key.as_bytes()) };
        match self.answer("InspectBlock", self.admin_service().inspect_block(request)).await {
            Ok(info) => Ok(Some(info)),
            Err(ClientError::Refused { code: tonic::Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes blocks of a chain from number `from_block` on, with all their descendants; leased ones stay.
    ///
    /// # Errors
    /// As [`Client::lookup`].
    pub async fn evict(&self, chain: &Chain, from_block: u32) -> Result<Evicted, ClientError> {
        let request = EvictRequest { chain: Some(chain.to_wire()), from_block };
        self.answer("Evict", self.admin_service().evict(request)).await
    }

    /// Removes every block that matches, leased ones too.
    ///
    /// # Errors
    /// For a filter without a field, or a user without a tenant.
    pub async fn purge(&self, filter: &PurgeFilter) -> Result<Purged, ClientError> {
        let word = |word: Option<&str>| word.unwrap_or_default().to_owned();
        let request = PurgeRequest {
            fingerprint: filter.fingerprint.map_or_else(Bytes::new, |given| Bytes::copy_from_slice(&given.0)),
            tenant: word(filter.tenant.as_ref().map(TenantName::as_str)),
            user: word(filter.user.as_ref().map(UserName::as_str)),
            writer: word(filter.writer.as_ref().map(InstanceId::as_str)),
            since_s: filter.since_s.unwrap_or(0),
        };
        self.answer("Purge", self.admin_service().purge(request)).await
    }

    /// Has the daemon read every block on its drives once, and check it. `progress` is told what was found since the last
    /// time; the last of it is given back.
    ///
    /// # Errors
    /// When a verification is under way already, or the daemon can't be asked.
    pub async fn verify(&self, mut progress: impl FnMut(&VerifyReply)) -> Result<VerifyReply, ClientError> {
        let mut replies = self.answer("Verify", self.admin_service().verify(VerifyRequest {})).await?;
        loop {
            let reply = self.within("Verify", CALL_MAX, replies.message()).await?;
            let Some(reply) = reply else {
                return Err(ClientError::protocol("a verification's last message must be `done`"));
            };
            progress(&reply);
            if reply.done {
                self.hang_up(&mut replies).await;
                return Ok(reply);
            }
        }
    }

    /// Waits until background writes and erasures are done, but no longer than `timeout`; whether they are.
    ///
    /// # Errors
    /// When the daemon can't be asked.
    pub async fn quiesce(&self, timeout: Duration) -> Result<bool, ClientError> {
        let timeout_ms = u32::try_from(millis(timeout).max(1)).unwrap_or(u32::MAX);
        let mut service = self.admin_service();
        let asked = async { service.quiesce(QuiesceRequest { timeout_ms }).await.map(tonic::Response::into_inner) };
        Ok(self.within("Quiesce", timeout.saturating_add(DEADLINE_GRACE), asked).await?.quiet)
    }
}
