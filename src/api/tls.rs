//! TLS for TCP, and who may come in.

use std::fmt;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};
use crate::types::pem;

/// How a server shows who it is, and whom it lets in.
#[derive(Clone)]
pub struct Tls {
    pub(super) acceptor: TlsAcceptor,
    pub(super) verifies: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verifies = self.verifies;
        f.debug_struct("Tls")
            .field("verifies", &verifies)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// A certificate chain and its key, and with `client_ca` the authorities whose clients alone are let in; all in PEM.
    ///
    /// # Errors
    /// `InvalidArgument` for PEM that does not hold what it should.
    pub fn from_pem(chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("no version of TLS").with_source(error))?;
        let config = match client_ca {
            None => config.with_no_client_auth(),
            Some(authorities) => {
                let roots = Arc::new(pem::authorities("client authorities", authorities)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                config.with_client_cert_verifier(verifier.map_err(|error| pem::bad("client authorities", error))?)
            }
        };
        let mut config = config
            .with_single_cert(pem::certificates("certificate", chain)?, pem::key(key)?)
            .map_err(|error| pem::bad("certificate and key", error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            verifies: client_ca.is_some(),
        })
    }
}
