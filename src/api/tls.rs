//! TLS for TCP, and who may come in.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, ObjectKind, Result};

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
            Some(pem) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider).build();
                config.with_client_cert_verifier(verifier.map_err(|error| bad("client authorities", error))?)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad("key", error))?;
        let mut config = config
            .with_single_cert(certificates("certificate", chain)?, key)
            .map_err(|error| bad("certificate and key", error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            verifies: client_ca.is_some(),
        })
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client authorities", pem)? {
        roots
            .add(certificate)
            .map_err(|error| bad("client authorities", error))?;
    }
    Ok(roots)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| bad(what, error))?;
    if all.is_empty() {
        return Err(Error::invalid(format!("invalid TLS {what}: no certificate in the PEM")));
    }
    Ok(all)
}

fn bad(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(format!("invalid TLS {what}"))
        .with_object(ObjectKind::Option, "tls")
        .with_source(error)
}
