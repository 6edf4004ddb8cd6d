//! Where an engine is, and how to get there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::error::{Error, ObjectKind, Result};
use crate::types::pem;

/// Docker's ports. Source: docker/cli, `opts/hosts.go`.
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A unix socket, `unix:///run/docker.sock`.
    Unix(PathBuf),
    /// A host and a port, `tcp://build-box:2375`.
    Tcp {
        /// Name or address.
        host: String,
        /// Port; Docker's without one.
        port: Option<u16>,
    },
}

impl Endpoint {
    /// The port to connect to.
    pub(super) fn port(port: Option<u16>, tls: bool) -> u16 {
        port.unwrap_or(if tls { TLS_PORT } else { PORT })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "tcp://{open}{host}{close}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            Error::invalid(format!(
                "invalid endpoint {text:?}: {why}; say unix:///PATH or tcp://HOST:PORT"
            ))
            .with_object(ObjectKind::Option, "endpoint")
        };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(bad("the socket's path is not absolute"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let Some(rest) = text.strip_prefix("tcp://") else {
            return Err(bad("neither a unix socket nor a TCP address"));
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| bad("a bracket is not closed"))?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(bad("there is no host in it"));
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(bad("what follows the host is no port")),
            Some(port) => Some(port.parse().map_err(|_| bad("the port is no number up to 65535"))?),
        };
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

/// How a client knows the other end, and shows who it is itself.
#[derive(Clone)]
pub struct ClientTls {
    pub(super) connector: TlsConnector,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// The authorities whose servers are trusted, and no others, and with `identity` the certificate chain and key that the
    /// client shows; all in PEM.
    ///
    /// # Errors
    /// `InvalidArgument` for PEM that does not hold what it should.
    pub fn from_pem(authorities: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self> {
        // By hand, so that a process-wide default is neither needed nor made.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("no version of TLS").with_source(error))?
            .with_root_certificates(pem::authorities("authorities", authorities)?);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = pem::certificates("certificate", chain)?;
                let config = config.with_client_auth_cert(chain, pem::key(key)?);
                config.map_err(|error| pem::bad("certificate and key", error))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }
}

/// The name that the server's certificate must have.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|error| pem::bad("server name", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let tcp = |host: &str, port| Endpoint::Tcp {
            host: host.to_owned(),
            port,
        };
        for (text, expected) in [
            ("unix:///run/docker.sock", Endpoint::Unix("/run/docker.sock".into())),
            ("tcp://box:2375", tcp("box", Some(2375))),
            ("tcp://box", tcp("box", None)),
            ("tcp://[::1]:80", tcp("::1", Some(80))),
        ] {
            let parsed: Endpoint = text.parse().unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
        }
        for bad in [
            "",
            "docker.sock",
            "unix://run",
            "tcp://",
            "tcp://:80",
            "tcp://a:b",
            "tcp://[::1",
            "tcp://a:99999",
            "tcp://a/b",
            "tcp://[::1]80",
            "http://a",
            "ssh://a",
        ] {
            assert_eq!(
                bad.parse::<Endpoint>().unwrap_err().kind().as_str(),
                "invalid_argument",
                "{bad}"
            );
        }
    }

    #[test]
    fn bad_pem_is_the_caller_s_error() {
        for pem in [&b""[..], b"hello"] {
            let error = ClientTls::from_pem(pem, None).unwrap_err();
            assert_eq!(error.kind().as_str(), "invalid_argument");
        }
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }
}
