//! Where a daemon listens, as people write it.

use std::fmt;
use std::str::FromStr;

/// Bytes of a Unix socket's path: what `sockaddr_un` holds, with its closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// `host:port`; an IPv6 address stands in brackets.
    Tcp(String),
    /// The same, with TLS.
    Tls(String),
    /// The path of a Unix socket.
    Unix(String),
}

/// An address that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("server address {value:?} {rule}; write host:port, http://host:port, https://host:port or unix:PATH")]
pub struct AddressError {
    /// What was given.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl ServerAddress {
    /// Reads `host:port`, `http://host:port`, `https://host:port` or `unix:PATH`.
    ///
    /// # Errors
    /// Names the value and the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let fail = |rule| Err(AddressError { value: text.to_owned(), rule });
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.len() {
                0 => fail("must name a path after unix:"),
                1..=SOCKET_PATH_BYTES_MAX if !path.contains('\0') => Ok(Self::Unix(path.to_owned())),
                1..=SOCKET_PATH_BYTES_MAX => fail("must not hold a zero byte"),
                _ => fail("must have a path of at most 107 bytes, which is what a Unix socket takes"),
            };
        }
        let (rest, is_tls) = match text.split_once("://") {
            None => (text, false),
            Some((scheme @ ("http" | "https"), rest)) => (rest.strip_suffix('/').unwrap_or(rest), scheme == "https"),
            Some(_) => return fail("must be of the scheme http, https or unix"),
        };
        let Some((host, port)) = rest.rsplit_once(':') else { return fail("must name a port") };
        let bracketed = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        if host.is_empty() || bracketed == Some("") {
            return fail("must name a host");
        }
        if bracketed.unwrap_or(host).contains(|c: char| !(c.is_ascii_alphanumeric() || "-._:%".contains(c))) {
            return fail("must have a host name or an IP address before the port, and nothing after it");
        }
        if bracketed.is_none() && host.contains(':') {
            return fail("must have its IPv6 address in brackets");
        }
        match port.parse::<u16>() {
            Ok(1..) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
                Ok(if is_tls { Self::Tls(rest.to_owned()) } else { Self::Tcp(rest.to_owned()) })
            }
            _ => fail("must have a port of 1 to 65535, and nothing after it"),
        }
    }

    /// The form that tonic's endpoint takes.
    pub(super) fn endpoint(&self) -> String {
        match self {
            Self::Tcp(authority) => format!("http://{authority}"),
            Self::Tls(authority) => format!("https://{authority}"),
            Self::Unix(path) => format!("unix:{path}"),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Tls(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways_to_write_an_address_are_read_and_written_back() {
        for (text, expected) in [
            ("127.0.0.1:7400", "127.0.0.1:7400"),
            ("http://gpu-3.rack.local:7400", "gpu-3.rack.local:7400"),
            ("http://localhost:7400/", "localhost:7400"),
            ("https://gpu-3:7400/", "https://gpu-3:7400"),
            ("[::1]:7400", "[::1]:7400"),
            ("unix:/run/kvtier.sock", "unix:/run/kvtier.sock"),
            ("unix:///run/kvtier.sock", "unix:/run/kvtier.sock"),
            ("unix:kvtier.sock", "unix:kvtier.sock"),
        ] {
            let address = ServerAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), expected);
            assert_eq!(expected.parse(), Ok(address));
        }
    }

    #[test]
    fn a_bad_address_names_value_and_rule() {
        for (text, rule) in [
            ("", "must name a port"),
            ("localhost", "must name a port"),
            (":7400", "must name a host"),
            ("[]:7400", "must name a host"),
            ("::1:7400", "IPv6 address in brackets"),
            ("host:0", "port of 1 to 65535"),
            ("host:65536", "port of 1 to 65535"),
            ("host:+80", "port of 1 to 65535"),
            ("http://host:80/path", "port of 1 to 65535"),
            ("two words:80", "host name or an IP address"),
            ("user@host:80", "host name or an IP address"),
            ("ftp://host:21", "scheme http, https or unix"),
            ("unix:", "must name a path"),
            (&format!("unix:/{}", "x".repeat(107)), "at most 107 bytes"),
        ] {
            let error = ServerAddress::parse(text).unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
            assert_eq!(error.value, text);
        }
    }
}
