use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A TLS server for 127.0.0.1 with an authority of its own, and the authority's PEM.
pub(super) fn server() -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

#[tokio::test]
async fn an_authority_of_one_s_own_is_trusted_where_it_is_given() {
    let (tls, pem) = server();
    let mock = Mock::start_tls(tls, |_| Reply::ok("{}")).await;
    let trusting = HttpRegistry::new(&mock.host(), fast().ca_pem(pem)).unwrap();
    trusting.manifest("app", &tag("1")).await.unwrap();
    let strict = HttpRegistry::new(&mock.host(), fast()).unwrap();
    let error = strict.manifest("app", &tag("1")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("not trusted"), "{error}");
    // Not even a loopback host is spoken to in the clear once it has shown a certificate: one request asked, one probed.
    assert!(mock.seen().iter().all(|seen| seen.path.starts_with("/v2/")));
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}

#[tokio::test]
async fn plain_http_on_loopback_needs_no_option() {
    let mock = Mock::start(|_| Reply::ok("{}")).await;
    HttpRegistry::new(&mock.host(), fast())
        .unwrap()
        .manifest("app", &tag("1"))
        .await
        .unwrap();
    let never = HttpRegistry::new(&mock.host(), fast().plain_http(PlainHttp::Never)).unwrap();
    assert_eq!(
        never.manifest("app", &tag("1")).await.unwrap_err().kind(),
        &ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn redirects_do_not_leave_tls_for_strangers_nor_tokens_for_the_clear() {
    let (tls, pem) = server();
    let mock = Mock::start_tls(tls, |_| Reply::new(307).header("location", "http://registry.invalid/x")).await;
    let registry = HttpRegistry::new(&mock.host(), fast().ca_pem(pem)).unwrap();
    let error = registry.manifest("app", &tag("1")).await.unwrap_err();
    assert!(error.report().contains("from TLS to plain HTTP"), "{}", error.report());

    let (tls, pem) = server();
    let challenge = r#"Bearer realm="http://token.invalid/""#;
    let mock = Mock::start_tls(tls, move |_| Reply::new(401).header("www-authenticate", challenge)).await;
    let registry = HttpRegistry::new(&mock.host(), fast().ca_pem(pem)).unwrap();
    assert_eq!(
        registry.manifest("app", &tag("1")).await.unwrap_err().kind(),
        &ErrorKind::Denied
    );
}
