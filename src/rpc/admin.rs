//! `kvtier.v1.Admin`: looking inside, and taking out.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::access::Caller;
use super::accounts;
use super::chain::{self, low, user_digest};
use super::receipt;
use super::spec::{fingerprint, unparse};
use super::status::{invalid, not_built, status, word};
use super::verify;
use crate::access::Gatekeeper;
use crate::cache::drives::{DriveState, DriveStatus};
use crate::cache::scrub::ScrubStatus;
use crate::cache::{Cache, Chain, Error, Filter, Inspection, ProcessCost};
use crate::ledger::LedgerFill;
use crate::proto::scope_step::Scope as Step;
use crate::proto::{self, admin_server::Admin};
use crate::vocab::limits::{QUIESCE_DEFAULT, QUIESCE_MAX};
use crate::vocab::{AccountName, BlockKey, InstanceId, TenantName, UserName};
use crate::watch::{Health, State};

/// The service.
#[derive(Clone)]
pub struct AdminService {
    cache: Arc<Cache>,
    keeper: Arc<Gatekeeper>,
    /// Ends what takes long when the daemon stops.
    closing: CancellationToken,
    /// Whether same-host workers are handed the arena.
    hands_over: bool,
    health: Health,
}

impl AdminService {
    /// Over this cache, whose arena is handed to same-host workers, or not; what takes long ends when `closing` is cancelled.
    #[must_use]
    pub fn new(
        cache: Arc<Cache>,
        keeper: Arc<Gatekeeper>,
        hands_over: bool,
        closing: CancellationToken,
        health: Health,
    ) -> Self {
        Self { cache, keeper, closing, hands_over, health }
    }

    fn health(&self) -> Vec<proto::ServiceHealth> {
        let state = |state| match state {
            State::Starting => proto::HealthState::Starting,
            State::Serving => proto::HealthState::Serving,
            State::Degraded => proto::HealthState::Degraded,
            State::Stopping => proto::HealthState::Stopping,
        };
        let service = |service: crate::watch::ServiceHealth| proto::ServiceHealth {
            service: service.name.to_owned(),
            state: state(service.state).into(),
            serving: service.serves,
            reasons: service.reasons,
        };
        self.health.board().all().into_iter().map(service).collect()
    }

    fn memory(&self) -> proto::MemoryStatus {
        let (ram, (regions, staging_bytes)) = (self.cache.ram(), self.cache.sessions().regions().held());
        proto::MemoryStatus {
            huge_bytes: ram.huge_bytes(),
            prefaulted_bytes: ram.populated_bytes(),
            shared: self.hands_over,
            regions: regions as u64,
            staging_bytes,
            tickets: self.cache.tickets() as u64,
        }
    }

    fn block(&self, key: BlockKey, known: Option<Inspection>) -> proto::BlockInfo {
        let key = key.as_bytes().to_vec().into();
        let Some(known) = known else { return proto::BlockInfo { key, ..proto::BlockInfo::default() } };
        let names = self.cache.names();
        let namespace = names.namespaces().into_iter().find(|namespace| namespace.id == known.owner.namespace);
        let place = |slot: Option<crate::vocab::SlotId>| slot.map(|slot| slot.to_string()).unwrap_or_default();
        let has_bytes = known.ram_slot.is_some() || known.nvme_slot.is_some();
        proto::BlockInfo {
            key,
            readable: known.readable,
            in_ram: known.ram_slot.is_some(),
            on_nvme: known.nvme_slot.is_some(),
            ram_slot: place(known.ram_slot),
            nvme_slot: place(known.nvme_slot),
            length: known.length,
            crc: known.crc,
            parent: known.parent.map(|parent| parent.as_bytes().to_vec().into()).unwrap_or_default(),
            tenant: names.account_name(known.owner.account).map(accounts::word).unwrap_or_default(),
            fingerprint: namespace.map(|namespace| namespace.fingerprint.0.to_vec().into()).unwrap_or_default(),
            orphan: has_bytes && !known.readable,
            leases: known.leases,
            created_s: known.created_s,
        }
    }

    /// A chain whose last block the caller may keep, or keep no longer.
    async fn chain_of_own_end(&self, caller: &Caller, chain: Option<proto::Chain>) -> Result<Chain, Status> {
        let of_all = public_blocks(chain.as_ref());
        let chain = chain::parse(&self.cache, caller, chain, None).await?;
        check_own(caller, "chain's last block", chain.len().saturating_sub(1), of_all)?;
        Ok(chain)
    }

    /// What a purge matches; `None` where nothing can match.
    fn filter(&self, caller: &Caller, request: &proto::PurgeRequest) -> Result<Option<Filter>, Status> {
        let mut filter = Filter::default();
        caller.check_named(&request.tenant)?;
        if !request.fingerprint.is_empty() {
            let fingerprint = fingerprint("fingerprint", &request.fingerprint)?;
            let namespace = self.cache.names().namespace(&fingerprint);
            filter.namespace = Some(namespace.ok_or_else(|| status(Error::UnknownNamespace(fingerprint)))?.id);
        }
        if !request.tenant.is_empty() {
            let tenant = TenantName::parse(&request.tenant).map_err(word)?;
            let name = AccountName::Tenant(tenant);
            let Some(account) = self.cache.names().known_account(&name) else { return Ok(None) };
            filter.account = Some(account);
        }
        if !request.user.is_empty() {
            if request.tenant.is_empty() {
                return Err(invalid("user", &request.user, "given with its tenant"));
            }
            filter.user = Some(user_digest(&UserName::parse(&request.user).map_err(word)?));
        }
        if !request.writer.is_empty() {
            filter.writer = Some(low(InstanceId::parse(&request.writer).map_err(word)?.digest()));
        }
        filter.since_s = (request.since_s > 0).then_some(request.since_s);
        let empty = filter.namespace.is_none()
            && filter.account.is_none()
            && filter.writer.is_none()
            && filter.since_s.is_none();
        if empty {
            let rule = "at least one of fingerprint, tenant, writer, since_s: an empty purge would erase everything";
            return Err(invalid("purge", "without a filter", rule));
        }
        Ok(Some(filter))
    }
}

/// How many blocks of a chain, from its start, are of a public domain.
fn public_blocks(chain: Option<&proto::Chain>) -> usize {
    let private = |step: &&proto::ScopeStep| matches!(step.scope, Some(Step::Tenant(_) | Step::User(_)));
    let Some(scopes) = chain.map(|chain| &chain.scopes).filter(|scopes| !scopes.is_empty()) else { return 0 };
    scopes.iter().find(private).map_or(usize::MAX, |step| step.from_block as usize)
}

/// Refuses a block of a public domain to a caller that may not act for all who read it.
fn check_own(caller: &Caller, field: &str, block: usize, of_all: usize) -> Result<(), Status> {
    if block >= of_all || caller.acts_for_all() { Ok(()) } else { Err(caller.refuse_public(field, block)) }
}

fn scrub(scrub: ScrubStatus) -> proto::ScrubStatus {
    let ScrubStatus { bytes_per_second, passes, blocks, bytes, corrupt, progress } = scrub;
    proto::ScrubStatus { bytes_per_second, passes, blocks, bytes, corrupt, progress }
}

fn process(cost: ProcessCost) -> proto::ProcessStatus {
    let ProcessCost { cpu, resident_bytes, resident_bytes_max } = cost;
    proto::ProcessStatus { cpu_seconds: cpu.as_secs_f64(), resident_bytes, resident_bytes_max }
}

fn drive(drive: DriveStatus) -> proto::DriveStatus {
    let stats = drive.stats;
    let state = match drive.state {
        DriveState::Ok => proto::DriveState::Ok,
        DriveState::Out => proto::DriveState::Out,
        DriveState::Missing => proto::DriveState::Missing,
    };
    proto::DriveStatus {
        number: drive.number.into(),
        dir: drive.dir.display().to_string(),
        kind: drive.kind,
        note: drive.note,
        state: state.into(),
        capacity_bytes: drive.capacity.0,
        used_bytes: drive.used.0,
        reads: stats.reads,
        read_bytes: stats.read_bytes,
        writes: stats.writes,
        written_bytes: stats.written_bytes,
        device_written_bytes: stats.device_written_bytes,
        read_errors: stats.read_errors,
        write_errors: stats.write_errors,
        corrupt: stats.corrupt,
        dropped: stats.dropped,
        written_bytes_total: drive.written_total.0,
        written_bytes_day: drive.written_day.0,
        wear_budget_bytes_per_day: drive.wear_budget.unwrap_or_default().0,
        inflight_bytes: drive.gauges.inflight_bytes,
        queued_jobs: drive.gauges.queued as u64,
        registered_bytes: drive.gauges.registered_bytes,
    }
}

/// How full the ledger is.
fn ledger_fill(fill: Option<&LedgerFill>) -> impl Iterator<Item = (&'static str, u64)> {
    let named = |fill: &LedgerFill| [("ledger_bytes", fill.bytes), ("ledger_limit_bytes", fill.bytes_max)];
    fill.map(named).into_iter().flatten()
}

fn ledger(fill: Option<LedgerFill>, trouble: Option<String>) -> proto::LedgerStatus {
    let refused = fill.map(|fill| fill.refused).unwrap_or_default().named();
    proto::LedgerStatus {
        writable: trouble.is_none(),
        trouble: trouble.unwrap_or_default(),
        refused: refused.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn get_status(&self, _: Request<proto::GetStatusRequest>) -> Result<Response<proto::Status>, Status> {
        let now = self.cache.status().await.map_err(status)?;
        let held = now.holdings;
        let tier = |used_bytes, capacity_bytes, blocks, kind: &str| proto::TierStatus {
            used_bytes,
            capacity_bytes,
            blocks,
            kind: kind.into(),
        };
        Ok(Response::new(proto::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: now.uptime.as_secs(),
            ram: Some(tier(held.ram_used_bytes, now.ram.0, held.ram_blocks, "memfd")),
            nvme: Some(tier(held.nvme_used_bytes, now.nvme.0, held.nvme_blocks, now.nvme_kind)),
            sessions: now.sessions as u64,
            leases: held.leases,
            puts: held.puts,
            reservations: held.reservations,
            pins: now.pins as u64,
            orphans: held.orphans,
            background: held.background,
            hit_tokens: now.tokens.0,
            miss_tokens: now.tokens.1,
            drives: now.drives.into_iter().map(drive).collect(),
            write_amplification: now.write_amplification,
            scrub: Some(scrub(now.scrub)),
            memory: Some(self.memory()),
            process: now.process.map(process),
            policy: now.rules.0.name().into(),
            admission: now.rules.1.name().into(),
            health: self.health(),
            counters: now
                .counters
                .into_iter()
                .chain(self.keeper.audit.counts())
                .chain(ledger_fill(now.ledger.as_ref()))
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            ledger: Some(ledger(now.ledger, self.cache.ledger_trouble())),
        }))
    }

    async fn inspect_namespaces(
        &self,
        _: Request<proto::InspectNamespacesRequest>,
    ) -> Result<Response<proto::InspectNamespacesReply>, Status> {
        let namespaces = self.cache.namespaces().await.map_err(status)?;
        let info = |(namespace, blocks, bytes): (Arc<crate::cache::Namespace>, u64, u64)| proto::NamespaceInfo {
            name: namespace.name.as_str().into(),
            fingerprint: namespace.fingerprint.0.to_vec().into(),
            spec: Some(unparse(&namespace.spec)),
            blocks,
            bytes,
        };
        let namespaces = namespaces.into_iter().map(info).collect();
        Ok(Response::new(proto::InspectNamespacesReply { namespaces }))
    }

    async fn inspect_prefix(
        &self,
        request: Request<proto::InspectPrefixRequest>,
    ) -> Result<Response<proto::InspectPrefixReply>, Status> {
        let caller = Caller::of(&request)?;
        let chain = chain::parse(&self.cache, &caller, request.into_inner().chain, None).await?;
        let blocks = self.cache.inspect_chain(&chain).await.map_err(status)?;
        let blocks = blocks.into_iter().map(|(key, known)| self.block(key, known)).collect();
        Ok(Response::new(proto::InspectPrefixReply { blocks }))
    }

    async fn inspect_block(
        &self,
        request: Request<proto::InspectBlockRequest>,
    ) -> Result<Response<proto::BlockInfo>, Status> {
        let bytes = request.into_inner().key;
        let length = || invalid("key length", format!("{} bytes", bytes.len()), "32 bytes");
        let key = BlockKey::from_bytes(bytes[..].try_into().map_err(|_| length())?);
        match self.cache.inspect(key).await.map_err(status)? {
            Some(known) => Ok(Response::new(self.block(key, Some(known)))),
            None => Err(Status::not_found(format!("block {key} is not cached"))),
        }
    }

    async fn evict(&self, request: Request<proto::EvictRequest>) -> Result<Response<proto::EvictReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let of_all = public_blocks(request.chain.as_ref());
        let chain = chain::parse(&self.cache, &caller, request.chain, None).await?;
        if request.from_block as usize >= chain.len() {
            let rule = format!("below the number of blocks in the chain ({})", chain.len());
            return Err(invalid("from_block", request.from_block, &rule));
        }
        check_own(&caller, "from_block", request.from_block as usize, of_all)?;
        let key = chain.key(request.from_block as usize);
        let (blocks, _, kept) = self.cache.evict(key).await.map_err(status)?;
        Ok(Response::new(proto::EvictReply { blocks, kept }))
    }

    async fn purge(&self, request: Request<proto::PurgeRequest>) -> Result<Response<proto::PurgeReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let filter = self.filter(&caller, &request)?;
        let (blocks, bytes) = match filter {
            Some(filter) => self.cache.purge(filter).await.map_err(status)?,
            None => (0, 0),
        };
        let purged_at_ms = self.cache.clock().now().0;
        let mut reply = proto::PurgeReply { blocks, bytes, purged_at_ms, ..Default::default() };
        let cache = Arc::clone(&self.cache);
        let sign = move || {
            receipt::sign(&cache, &request, &mut reply);
            reply
        };
        let signed = tokio::task::spawn_blocking(sign).await;
        signed.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }

    async fn quiesce(&self, request: Request<proto::QuiesceRequest>) -> Result<Response<proto::QuiesceReply>, Status> {
        let timeout = match request.into_inner().timeout_ms {
            0 => QUIESCE_DEFAULT,
            ms => Duration::from_millis(ms.into()).min(QUIESCE_MAX),
        };
        let quiet = self.cache.quiesce(timeout).await.map_err(status)?;
        Ok(Response::new(proto::QuiesceReply { quiet }))
    }

    async fn pin(&self, request: Request<proto::PinRequest>) -> Result<Response<proto::PinReply>, Status> {
        let caller = Caller::of(&request)?;
        let chain = self.chain_of_own_end(&caller, request.into_inner().chain).await?;
        // A caller who goes away in the middle leaves no pin that was never noted.
        let cache = Arc::clone(&self.cache);
        let pinned = tokio::spawn(async move { cache.pin_chain(&chain).await }).await;
        let blocks = pinned.map_err(|error| Status::internal(error.to_string()))?.map_err(status)?;
        Ok(Response::new(proto::PinReply { blocks }))
    }

    async fn unpin(&self, request: Request<proto::UnpinRequest>) -> Result<Response<proto::UnpinReply>, Status> {
        let caller = Caller::of(&request)?;
        let chain = self.chain_of_own_end(&caller, request.into_inner().chain).await?;
        let unpinned = self.cache.unpin_chain(&chain).await.map_err(status)?;
        Ok(Response::new(proto::UnpinReply { unpinned }))
    }

    async fn retire(&self, _: Request<proto::RetireRequest>) -> Result<Response<proto::RetireReply>, Status> {
        Err(not_built("Retire"))
    }

    type VerifyStream = verify::Replies;

    async fn verify(&self, _: Request<proto::VerifyRequest>) -> Result<Response<verify::Replies>, Status> {
        Ok(Response::new(verify::verify(Arc::clone(&self.cache), self.closing.clone())))
    }

    async fn set_quota(
        &self,
        request: Request<proto::SetQuotaRequest>,
    ) -> Result<Response<proto::SetQuotaReply>, Status> {
        let (name, change) = accounts::change(&request.into_inner())?;
        let account = self.cache.set_quota(name, change).await.map_err(status)?;
        Ok(Response::new(proto::SetQuotaReply { account: Some(accounts::info(&account)) }))
    }

    async fn inspect_accounts(
        &self,
        _: Request<proto::InspectAccountsRequest>,
    ) -> Result<Response<proto::InspectAccountsReply>, Status> {
        let accounts = self.cache.accounts().await.map_err(status)?;
        let accounts = accounts.iter().map(accounts::info).collect();
        Ok(Response::new(proto::InspectAccountsReply { accounts }))
    }

    async fn drain(&self, _: Request<proto::DrainRequest>) -> Result<Response<proto::DrainReply>, Status> {
        Err(not_built("Drain (SIGTERM drains)"))
    }
}
