//! What a caller shows a daemon that asks who it is.

use std::fmt;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Error, Identity};

use super::{ClientError, ServerAddress};

/// What a caller shows. By default nothing: enough on a host whose daemon serves nobody else.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// A bearer token, `kvt_…`.
    pub token: Option<String>,
    /// PEM of the authority that the daemon's certificate must be of, for `https://` addresses.
    pub authority: Option<Vec<u8>>,
    /// PEM of a client certificate and of its private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (token, identity) = (self.token.is_some(), self.identity.is_some());
        write!(f, "Credentials {{ token: {token}, authority: {}, identity: {identity} }}", self.authority.is_some())
    }
}

impl Credentials {
    /// TLS as an address wants it; `None` for one without.
    pub(super) fn tls(&self, address: &ServerAddress) -> Result<Option<ClientTlsConfig>, ClientError> {
        let ServerAddress::Tls(_) = address else { return Ok(None) };
        let refuse = |why: &str| ClientError::Unreachable { address: address.clone(), why: why.into() };
        let authority = self.authority.as_ref().ok_or_else(|| {
            refuse(
                "an https address needs the authority of the daemon's certificate (--tls-ca, Credentials::authority)",
            )
        })?;
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        Ok(Some(match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }))
    }

    /// The header that shows the token.
    pub(super) fn header(&self, address: &ServerAddress) -> Result<Option<http::HeaderValue>, ClientError> {
        let Some(token) = &self.token else { return Ok(None) };
        let header = http::HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let mut header = header.map_err(|_| ClientError::Unreachable {
            address: address.clone(),
            why: "the token has characters that no token has".into(),
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// A channel that shows a token with each call.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    channel: Channel,
    header: Option<http::HeaderValue>,
}

impl Shown {
    pub(super) fn new(channel: Channel, header: Option<http::HeaderValue>) -> Self {
        Self { channel, header }
    }
}

impl Service<http::Request<Body>> for Shown {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(header) = &self.header {
            request.headers_mut().insert(http::header::AUTHORIZATION, header.clone());
        }
        self.channel.call(request)
    }
}
