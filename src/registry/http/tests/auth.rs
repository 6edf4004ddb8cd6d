use super::*;

const DENIED: &str = r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;

/// A registry with a token service beside it. Tokens are `t0`, `t1`, …; those below `valid_from` are refused.
async fn with_tokens(expires_in: u64, valid_from: Arc<AtomicU32>) -> Mock {
    let given = AtomicU32::new(0);
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let mock = Mock::start(move |seen| {
        if seen.path == "/token" {
            let n = given.fetch_add(1, Ordering::SeqCst);
            return Reply::ok(format!(r#"{{"access_token":"t{n}","expires_in":{expires_in}}}"#));
        }
        let token = seen
            .authorization
            .as_deref()
            .and_then(|text| text.strip_prefix("Bearer t"))
            .and_then(|n| n.parse::<u32>().ok());
        if token.is_some_and(|n| n >= valid_from.load(Ordering::SeqCst)) {
            return Reply::ok("{}");
        }
        let challenge = format!(
            r#"Bearer realm="http://{}/token",service="mock",scope="repository:x:pull""#,
            own.get().unwrap()
        );
        Reply::new(401).header("www-authenticate", challenge).body(DENIED)
    })
    .await;
    address.set(mock.host()).unwrap();
    mock
}

#[tokio::test]
async fn one_token_for_each_scope_however_many_ask() {
    let mock = with_tokens(300, Arc::default()).await;
    let registry = Arc::new(registry(&mock));
    let pulls = (0..40).map(|n| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            registry
                .manifest(if n % 2 == 0 { "app" } else { "other" }, &tag("1"))
                .await
        })
    });
    for pull in futures_util::future::join_all(pulls).await {
        pull.unwrap().unwrap();
    }
    let tokens: Vec<_> = mock.seen().into_iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(tokens.len(), 2);
    let scopes: Vec<&str> = tokens.iter().map(|seen| seen.query.as_str()).collect();
    assert!(
        scopes.contains(&"scope=repository%3Aapp%3Apull&service=mock"),
        "{scopes:?}"
    );
    assert!(tokens.iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn a_token_that_ran_out_is_replaced_before_it_is_shown() {
    let mock = with_tokens(1, Arc::default()).await;
    let registry = registry(&mock);
    registry.manifest("app", &tag("1")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    registry.manifest("app", &tag("1")).await.unwrap();
    assert_eq!((mock.count("/token"), mock.count("/v2/")), (2, 3));
}

#[tokio::test]
async fn a_token_refused_in_the_middle_of_a_pull_is_replaced() {
    let valid_from = Arc::new(AtomicU32::new(0));
    let mock = with_tokens(300, Arc::clone(&valid_from)).await;
    let registry = registry(&mock);
    registry.manifest("app", &tag("1")).await.unwrap();
    valid_from.store(1, Ordering::SeqCst);
    registry.manifest("app", &tag("1")).await.unwrap();
    assert_eq!(mock.count("/token"), 2);
}

#[tokio::test]
async fn a_token_that_is_not_enough_is_denied_after_one_try() {
    let mock = with_tokens(300, Arc::new(AtomicU32::new(u32::MAX))).await;
    let error = registry(&mock).manifest("app", &tag("1")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied);
    assert!(
        error.to_string().contains("not yours") && error.to_string().contains("credentials"),
        "{error}"
    );
    assert_eq!(mock.count("/token"), 1);
}

#[tokio::test]
async fn passwords_and_identity_tokens_go_to_the_token_service() {
    let mock = with_tokens(300, Arc::default()).await;
    let options = || fast().plain_http(PlainHttp::Always);
    let password = options().credentials(Credentials::password("me", "secret"));
    HttpRegistry::new(&mock.host(), password)
        .unwrap()
        .manifest("app", &tag("1"))
        .await
        .unwrap();
    let identity = options().credentials(Credentials::IdentityToken("a+b".into()));
    HttpRegistry::new(&mock.host(), identity)
        .unwrap()
        .manifest("app", &tag("1"))
        .await
        .unwrap();
    let tokens: Vec<_> = mock.seen().into_iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(
        (tokens[0].method.as_str(), tokens[0].authorization.as_deref()),
        ("GET", Some("Basic bWU6c2VjcmV0"))
    );
    assert_eq!(tokens[1].method, "POST");
    assert!(tokens[1].body.contains("grant_type=refresh_token") && tokens[1].body.contains("refresh_token=a%2Bb"));
    let shown: Vec<_> = mock
        .seen()
        .into_iter()
        .filter(|seen| seen.path.starts_with("/v2/"))
        .filter_map(|seen| seen.authorization)
        .collect();
    assert!(shown.iter().all(|text| text.starts_with("Bearer ")), "{shown:?}");
}

#[tokio::test]
async fn without_credentials_basic_is_denied_with_the_remedy() {
    let mock = Mock::start(|_| Reply::new(401).header("www-authenticate", "Basic realm=x")).await;
    let error = registry(&mock).manifest("app", &tag("1")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied);
    assert!(error.to_string().contains("user name and a password"), "{error}");
    assert_eq!(mock.seen().len(), 1);

    let mute = Mock::start(|_| Reply::new(401)).await;
    assert_eq!(
        registry(&mute).manifest("app", &tag("1")).await.unwrap_err().kind(),
        &ErrorKind::Denied
    );
}

#[tokio::test]
async fn a_wrong_password_is_denied_without_asking_for_ever() {
    let mock = Mock::start(|_| Reply::new(401).header("www-authenticate", "Basic realm=x")).await;
    let options = fast()
        .plain_http(PlainHttp::Always)
        .credentials(Credentials::password("me", "wrong"));
    let error = HttpRegistry::new(&mock.host(), options)
        .unwrap()
        .manifest("app", &tag("1"))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), mock.seen().len()), (&ErrorKind::Denied, 2));
    assert!(!format!("{error:?}").contains("wrong"));
}

#[tokio::test]
async fn a_challenge_from_behind_a_redirect_gets_nothing() {
    let thief = Mock::start(|_| Reply::new(401).header("www-authenticate", "Basic realm=x")).await;
    let target = format!("http://{}/", thief.host());
    let mock = Mock::start(move |_| Reply::new(307).header("location", target.clone())).await;
    let options = fast()
        .plain_http(PlainHttp::Always)
        .credentials(Credentials::password("me", "secret"));
    let error = HttpRegistry::new(&mock.host(), options)
        .unwrap()
        .manifest("app", &tag("1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied);
    assert!(
        thief
            .seen()
            .iter()
            .chain(&mock.seen())
            .all(|seen| seen.authorization.is_none())
    );
}

#[tokio::test]
async fn a_token_service_that_talks_nonsense_is_unavailable() {
    for answer in ["", "{}", "[]", r#"{"token":7}"#, "{\"token\":\"a\\nb\"}"] {
        let address = Arc::new(std::sync::OnceLock::<String>::new());
        let own = Arc::clone(&address);
        let mock = Mock::start(move |seen| match seen.path.as_str() {
            "/token" => Reply::ok(answer),
            _ => Reply::new(401).header(
                "www-authenticate",
                format!(r#"Bearer realm="http://{}/token""#, own.get().unwrap()),
            ),
        })
        .await;
        address.set(mock.host()).unwrap();
        let error = registry(&mock).manifest("app", &tag("1")).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{answer:?}: {error:?}");
    }
}
