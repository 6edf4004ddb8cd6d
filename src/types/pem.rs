//! Certificates and keys in PEM, as callers hand them in for TLS.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, ObjectKind, Result};

/// The certificates of `pem`, of which there must be some; errors call them `what`.
pub(crate) fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| bad(what, error))?;
    if all.is_empty() {
        return Err(Error::invalid(format!("invalid TLS {what}: no certificate in the PEM"))
            .with_object(ObjectKind::Option, "tls"));
    }
    Ok(all)
}

/// The certificates of `pem` as authorities.
pub(crate) fn authorities(what: &str, pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, pem)? {
        roots.add(certificate).map_err(|error| bad(what, error))?;
    }
    Ok(roots)
}

pub(crate) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| bad("key", error))
}

/// The caller's error, with what TLS makes of it.
pub(crate) fn bad(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(format!("invalid TLS {what}"))
        .with_object(ObjectKind::Option, "tls")
        .with_source(error)
}
