//! The gate's keeper: identifies who is calling before any service hears of it, and refuses what the caller may not do.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Status};
use tower_layer::Layer;

use super::permissions::{CALLS, KNOWN, OPEN, Reach};
use super::pins::ConnectionPins;
use crate::access::{Credentials, Gatekeeper, Grant, Principal, Refusal, Refused, Tenants};
use crate::cache::{Cache, Error};
use crate::session::{Session, SessionError};
use crate::vocab::scope::Scope;
use crate::vocab::{Clock, TenantName};

/// Who is at the other end of a connection, and what it may have pinned.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// What the connection may have pinned.
    pub pins: ConnectionPins,
    /// The user of the process, on a Unix socket.
    pub uid: Option<u32>,
    /// Its address, on TCP.
    pub address: Option<SocketAddr>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.uid) {
            (Some(address), _) => write!(f, "{address}"),
            (None, Some(uid)) => write!(f, "uid {uid}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// Who is calling: in the extensions of each request that a service hears of.
#[derive(Clone)]
pub(super) struct Caller {
    principal: Arc<Principal>,
    gate: Gate,
    peer: Peer,
    method: Arc<str>,
}

/// What callers are judged by.
#[derive(Clone)]
pub struct Gate {
    keeper: Arc<Gatekeeper>,
    clock: Arc<dyn Clock>,
}

impl Gate {
    /// By this keeper.
    #[must_use]
    pub fn new(keeper: Arc<Gatekeeper>, clock: Arc<dyn Clock>) -> Self {
        Self { keeper, clock }
    }

    fn refuse(&self, why: Refusal, principal: &str, peer: &Peer, method: &str, reason: &str) -> Status {
        let refused = Refused { why, principal, peer, method, reason };
        self.keeper.audit.refused(&refused, self.clock.now().0 / 1_000);
        if why == Refusal::Unauthenticated {
            Status::unauthenticated(reason)
        } else {
            Status::permission_denied(reason)
        }
    }
}

impl Caller {
    /// Who sent a request. One that did not come through the gate is nobody's.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| Status::unauthenticated("the request did not come through the gate"))
    }

    /// For whom it may act.
    pub(super) fn acts_for_all(&self) -> bool {
        self.principal.tenants == Tenants::All
    }

    /// Its name: who owns the sessions that it opens.
    pub(super) fn name(&self) -> &str {
        &self.principal.name
    }

    fn refuse(&self, why: Refusal, reason: &str) -> Status {
        self.gate.refuse(why, &self.principal.name, &self.peer, &self.method, reason)
    }

    /// What the grant of a request says; `None` where it has none.
    pub(super) fn grant(&self, text: &str) -> Result<Option<Arc<Grant>>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let grant = self.gate.keeper.grant(text, self.gate.clock.now());
        grant.map(Some).map_err(|error| self.refuse(Refusal::Grant, &error.to_string()))
    }

    /// Refuses a tenant that is not the caller's, neither by its own right nor by the grant of the request.
    pub(super) fn check_tenant(&self, tenant: &TenantName, grant: Option<&Grant>) -> Result<(), Status> {
        if let Some(grant) = grant {
            return self.agrees("tenant", tenant.as_str(), grant.tenant.as_str());
        }
        if self.principal.tenants.has(tenant) {
            return Ok(());
        }
        let reason = format!("principal {} may not act for tenant {tenant}", self.principal.name);
        Err(self.refuse(Refusal::Tenant, &reason))
    }

    /// Refuses a tenant that is not the caller's, and, where it may not act for all, none.
    pub(super) fn check_named(&self, tenant: &str) -> Result<(), Status> {
        if tenant.is_empty() {
            let reason =
                format!("tenant is absent, and principal {} may not act for every tenant", self.principal.name);
            return if self.acts_for_all() { Ok(()) } else { Err(self.refuse(Refusal::Tenant, &reason)) };
        }
        self.check_tenant(&TenantName::parse(tenant).map_err(super::status::word)?, None)
    }

    /// Refuses a request that says otherwise than its grant.
    pub(super) fn agrees(&self, field: &str, said: &str, granted: &str) -> Result<(), Status> {
        if said == granted {
            return Ok(());
        }
        Err(self.refuse(Refusal::Grant, &format!("{field} is {said}, the request's grant is for {granted}")))
    }

    /// Refuses a chain with a scope that its grant does not allow.
    pub(super) fn check_scopes<'a>(
        &self,
        scopes: impl Iterator<Item = &'a Scope>,
        grant: Option<&Grant>,
    ) -> Result<(), Status> {
        let Some(Grant { scopes: allowed, .. }) = grant.filter(|grant| !grant.scopes.is_empty()) else { return Ok(()) };
        for (at, kind) in scopes.map(Scope::kind).enumerate() {
            if !allowed.contains(&kind) {
                let allowed = allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return self.agrees(&format!("chain.scopes[{at}]"), &kind.to_string(), &allowed);
            }
        }
        Ok(())
    }

    /// Refuses keys that may be another tenant's.
    pub(super) fn refuse_keys(&self, field: &str) -> Status {
        let rule =
            "only a principal that may act for every tenant may give keys: give tokens or engine keys from block 0";
        self.refuse(Refusal::Tenant, &format!("{field} is given, {rule}"))
    }

    /// Refuses to change what is everybody's.
    pub(super) fn refuse_public(&self, field: &str, block: usize) -> Status {
        let name = &self.principal.name;
        let rule = "only a principal that may act for every tenant may change what everybody reads";
        self.refuse(Refusal::Tenant, &format!("{field} {block} is of a public domain, {rule}, and {name} may not"))
    }

    /// The session of this number, if it is the caller's own: another's is told to be not open.
    pub(super) fn session(&self, cache: &Cache, id: u64) -> Result<Session, Status> {
        let refused = |error: SessionError| super::status::status(Error::from(error));
        let session = cache.session(id).map_err(refused)?;
        if &*session.owner == self.name() {
            return Ok(session);
        }
        self.refuse(Refusal::Session, "the session is another principal's");
        Err(refused(SessionError::Unknown(id)))
    }

    /// Another principal has open sessions of this instance.
    pub(super) fn foreign_instance(&self, error: &SessionError) -> Status {
        self.refuse(Refusal::Session, &error.to_string())
    }
}

/// Puts the keeper before services.
#[derive(Clone)]
pub struct AccessLayer(Gate);

impl AccessLayer {
    /// With this gate.
    #[must_use]
    pub fn new(gate: Gate) -> Self {
        Self(gate)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, service: S) -> Access<S> {
        Access { service, gate: self.0.clone() }
    }
}

/// Services behind the keeper.
#[derive(Clone)]
pub struct Access<S> {
    service: S,
    gate: Gate,
}

type Body = tonic::body::Body;

impl<S> Service<http::Request<Body>> for Access<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match admit(&self.gate, &mut request) {
            Ok(()) => Box::pin(self.service.call(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// Lets a request through, with its caller in its extensions.
fn admit(gate: &Gate, request: &mut http::Request<Body>) -> Result<(), Status> {
    let method: Arc<str> = request.uri().path().into();
    let is_of = |services: &[&str]| services.iter().any(|service| method.starts_with(service));
    if is_of(OPEN) {
        return Ok(());
    }
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let certificate = request.extensions().get::<TlsConnectInfo<Peer>>().map(names).unwrap_or_default();
    let header = request.headers().get(http::header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    // Another scheme is shown as it is, and so refused.
    let bearer = header.map(|header| header.strip_prefix("Bearer ").unwrap_or(header));
    let shown = Credentials { bearer, certificate, uid: peer.uid };
    let principal = gate
        .keeper
        .identify(&shown, gate.clock.now())
        .map_err(|why| gate.refuse(Refusal::Unauthenticated, "nobody", &peer, &method, why))?;
    let call = CALLS.iter().find(|(path, ..)| *path == &*method);
    let denied = |reason: &str| Err(gate.refuse(Refusal::Role, &principal.name, &peer, &method, reason));
    match call {
        None if is_of(KNOWN) => {}
        None => return denied("there is no such call"),
        Some((_, permission, _)) if !principal.role.may(*permission) => {
            let (name, role, permission) = (&principal.name, principal.role.name(), permission.name());
            return denied(&format!("principal {name} is a {role}, which has not the permission {permission}"));
        }
        Some((_, _, Reach::Every)) if principal.tenants != Tenants::All => {
            let reason = "the call reaches every tenant's data, and principal may not act for all of them";
            return denied(&reason.replace("principal", &format!("principal {}", principal.name)));
        }
        Some(_) => {}
    }
    request.extensions_mut().insert(peer.pins.clone());
    request.extensions_mut().insert(Caller { principal, gate: gate.clone(), peer, method });
    Ok(())
}

/// DNS names and URIs of the client certificate, which TLS has verified.
fn names(info: &TlsConnectInfo<Peer>) -> Vec<String> {
    let Some(certificates) = info.peer_certs() else { return Vec::new() };
    let Some(parsed) = certificates.first().and_then(|first| webpki::EndEntityCert::try_from(first).ok()) else {
        return Vec::new();
    };
    parsed.valid_dns_names().chain(parsed.valid_uri_names()).map(str::to_owned).collect()
}
