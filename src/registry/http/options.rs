//! Options of the HTTP backend.

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

/// How to reach one registry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Who asks. Default: nobody.
    pub credentials: Credentials,
    /// Whether the host's own list of certificate authorities is trusted. Default: yes.
    pub native_roots: bool,
    /// More authorities to trust, each a PEM file's bytes with one or more certificates.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// When plain HTTP is allowed.
    pub plain_http: PlainHttp,
    /// What the registry is told about the program.
    pub user_agent: String,
    /// A proxy for all requests, `http://host:port`. The environment's proxy variables are never read. Default: none.
    pub proxy: Option<String>,
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
            proxy: None,
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

    /// Uploads blobs in pieces.
    #[must_use]
    pub fn upload_chunk(mut self, bytes: u64) -> Self {
        self.upload_chunk = Some(bytes);
        self
    }
}
