use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A TLS server for 127.0.0.1 with an authority of its own, and the authority's PEM.
pub(super) fn server() -> (TlsAcceptor, String) {
    let (tls, pem, _) = server_for(false);
    (tls, pem)
}

/// As [`server`]; one that wants a certificate of that authority from its clients, too. And such a certificate, with its key.
fn server_for(clients: bool) -> (TlsAcceptor, String, ClientIdentity) {
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
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = if clients {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(vec!["client".into()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let identity = ClientIdentity::pem(client.pem(), key.serialize_pem());
    (TlsAcceptor::from(Arc::new(config)), authority.pem(), identity)
}

#[tokio::test]
async fn c4_a_registry_that_wants_a_certificate_gets_the_one_of_its_host() {
    let (tls, pem, identity) = server_for(true);
    let mock = Mock::start_tls(tls, |_| Reply::ok("{}")).await;
    let known = fast().ca_pem(pem.clone()).identity(identity.clone());
    let printed = format!("{known:?}");
    assert!(printed.contains("hidden") && !printed.contains("PRIVATE"), "{printed}");
    let registry = HttpRegistry::new(&mock.host(), known).unwrap();
    registry.manifest("app", &tag("1")).await.unwrap();
    let nobody = HttpRegistry::new(&mock.host(), fast().ca_pem(pem.clone())).unwrap();
    let error = nobody.manifest("app", &tag("1")).await.unwrap_err();
    assert!(!error.is_not_found(), "{error:?}");
    // One of another authority is not taken, and what is no certificate is refused at once.
    let (_, _, stranger) = server_for(true);
    let stranger = HttpRegistry::new(&mock.host(), fast().ca_pem(pem.clone()).identity(stranger)).unwrap();
    stranger.manifest("app", &tag("1")).await.unwrap_err();
    for bad in [
        ClientIdentity::pem("none", "none"),
        ClientIdentity::pem(pem.clone(), "none"),
    ] {
        let refused = async {
            HttpRegistry::new(&mock.host(), fast().identity(bad))?
                .manifest("app", &tag("1"))
                .await
        };
        assert_eq!(refused.await.unwrap_err().kind(), &ErrorKind::InvalidArgument);
    }
    assert_eq!(
        mock.seen()
            .iter()
            .filter(|seen| seen.path.contains("manifests"))
            .count(),
        1
    );
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
