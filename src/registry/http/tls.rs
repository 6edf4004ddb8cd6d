//! The TLS side of a client: authorities and versions. The cryptography is passed in by hand, so neither a process-wide
//! default of the embedder is needed, nor is one made.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::options::{ClientIdentity, HttpOptions};
use crate::error::{Error, ErrorKind, Result};

/// Where hosts keep the authorities they trust, in one file: Debian, Fedora and its kin, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// And where hosts without such a file keep one for each.
const SINGLE: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The client side of TLS for one registry. Blocking: it reads the host's certificates.
pub(super) fn client_config(options: &HttpOptions) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("the TLS provider has no usable version").with_source(error))?
        .with_root_certificates(roots(options)?);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (certificates, key) = own(identity)?;
            let config = builder.with_client_auth_cert(certificates, key);
            config.map_err(|error| bad_identity("the certificate and the key do not fit").with_source(error))?
        }
    };
    // A connection for each of the few blobs that are fetched at a time is as fast as one for all of them in HTTP/2, and every
    // registry has it: that protocol's code would be half a megabyte in every embedder, and one more thing to attack.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The client's own certificate and key.
fn own(identity: &ClientIdentity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&identity.certificates_pem).collect();
    let certificates = certificates.map_err(|_| bad_identity("its certificate is not PEM"))?;
    if certificates.is_empty() {
        return Err(bad_identity("no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem);
    Ok((certificates, key.map_err(|_| bad_identity("its key is not PEM"))?))
}

fn bad_identity(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the client's certificate is unusable: {why}"),
    )
}

fn roots(options: &HttpOptions) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    if options.native_roots {
        // A certificate of the host that cannot be read or parsed is skipped: every other TLS program does the same.
        store.add_parsable_certificates(of_the_host());
    }
    for pem in &options.extra_ca_pem {
        add_pem(&mut store, pem)?;
    }
    Ok(store)
}

/// What `load_native_certs` would give, but for its variables `SSL_CERT_FILE` and `SSL_CERT_DIR`: the environment is the
/// embedder's.
fn of_the_host() -> Vec<CertificateDer<'static>> {
    let first = |names: &'static [&'static str]| names.iter().map(Path::new).find(|path| path.exists());
    let (file, dir) = match first(&BUNDLES) {
        None => (None, first(&SINGLE)),
        bundle => (bundle, None),
    };
    rustls_native_certs::load_certs_from_paths(file, dir).certs
}

/// What the caller gave must be right, to the last certificate.
fn add_pem(store: &mut RootCertStore, pem: &[u8]) -> Result<()> {
    let bad = |why: String| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("a certificate authority is unusable: {why}"),
        )
    };
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(format!("not PEM ({error})")))?;
        store.add(certificate).map_err(|error| bad(error.to_string()))?;
        found = true;
    }
    if !found {
        return Err(bad("no certificate in it".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_provider_is_installed_and_none_is_needed() {
        assert!(client_config(&HttpOptions::default()).is_ok());
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }

    #[test]
    fn a_bad_authority_is_the_caller_s_error() {
        for pem in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = client_config(&HttpOptions::default().ca_pem(pem)).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{pem:?}");
        }
    }
}
