//! Options of the HTTP backend.

use std::fmt;
use std::time::Duration;

use crate::registry::Credentials;

/// When a registry may be spoken to without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PlainHttp {
    /// Hosts on the loopback interface (127.0.0.0/8, ::1, `localhost`) only, and there only if TLS does not answer: Docker's rule.
    #[default]
    Loopback,
    /// Never.
    Never,
    /// This host speaks plain HTTP; TLS is not even tried.
    Always,
}

/// A certificate of the client's own, with its key. Printed without the key.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    pub(super) certificates_pem: Vec<u8>,
    pub(super) key_pem: Vec<u8>,
}

impl ClientIdentity {
    /// From PEM files' bytes: the certificate with those that lead to its authority, and its key.
    pub fn pem(certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self {
            certificates_pem: certificates.into(),
            key_pem: key.into(),
        }
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity { key: <hidden> }")
    }
}

/// How to reach one registry.
#[derive(Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Who asks. Default: nobody.
    pub credentials: Credentials,
    /// Whether the host's own list of certificate authorities is trusted, as its distribution keeps it below `/etc`. The
    /// variables `SSL_CERT_FILE` and `SSL_CERT_DIR` are never read: hand such a file in as one of the next. Default: yes.
    pub native_roots: bool,
    /// More authorities to trust, each a PEM file's bytes with one or more certificates.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// When plain HTTP is allowed.
    pub plain_http: PlainHttp,
    /// What the registry is told about the program.
    pub user_agent: String,
    /// A certificate to show the registry where it asks for one. Default: none.
    pub identity: Option<ClientIdentity>,
    /// A proxy for all requests, `http://host:port`. The environment's proxy variables are never read. Default: none.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy: names with their subdomains, addresses, `10.0.0.0/8`, as in the variable
    /// `NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// How long to wait for a connection, TLS included. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long the registry may send nothing at all before it counts as stalled. Default: 30 s.
    pub stall_timeout: Duration,
    /// How often a request is made in all where the registry is busy or the connection breaks. Default: 4.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles with each one, up to `max_retry_wait`. Default: 250 ms.
    pub first_retry_wait: Duration,
    /// The longest pause. A registry that asks for a longer one makes the verb fail with `RateLimited`. Default: 15 s.
    pub max_retry_wait: Duration,
    /// How often one blob is resumed where its connection breaks. Default: 5.
    pub resumes: u32,
    /// Uploads blobs in pieces of so many bytes, for registries behind a proxy that limits requests. Default: in one.
    pub upload_chunk: Option<u64>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::Anonymous,
            native_roots: true,
            extra_ca_pem: Vec::new(),
            plain_http: PlainHttp::default(),
            user_agent: concat!("longshore/", env!("CARGO_PKG_VERSION")).to_owned(),
            identity: None,
            proxy: None,
            no_proxy: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            attempts: 4,
            first_retry_wait: Duration::from_millis(250),
            max_retry_wait: Duration::from_secs(15),
            resumes: 5,
            upload_chunk: None,
        }
    }
}

/// A proxy's address may carry a password.
impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("credentials", &self.credentials)
            .field("plain_http", &self.plain_http)
            .field("identity", &self.identity)
            .field("proxy", &self.proxy.as_deref().map(without_password))
            .field("stall_timeout", &self.stall_timeout)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// An address without who signs in there.
pub(super) fn without_password(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() {
        host.to_owned()
    } else {
        format!("{scheme}://{host}")
    }
}

impl HttpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Signs in with these credentials.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Trusts the certificates of a PEM file in addition.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_ca_pem.push(pem.into());
        self
    }

    /// Says when plain HTTP is allowed.
    #[must_use]
    pub fn plain_http(mut self, plain_http: PlainHttp) -> Self {
        self.plain_http = plain_http;
        self
    }

    /// Sends everything through a proxy.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Reaches these hosts without the proxy.
    #[must_use]
    pub fn no_proxy<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.no_proxy.extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Shows a certificate of the client's own.
    #[must_use]
    pub fn identity(mut self, identity: ClientIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Uploads blobs in pieces.
    #[must_use]
    pub fn upload_chunk(mut self, bytes: u64) -> Self {
        self.upload_chunk = Some(bytes);
        self
    }
}
