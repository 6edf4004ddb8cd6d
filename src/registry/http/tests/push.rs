//! Uploads that go well, break off and go on; lists page by page; mirrors and proxies.

use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use super::*;
use crate::error::Result;
use crate::registry::{BlobStream, RegistryProvider, Upload, UploadSource};

const SESSION: &str = "/v2/app/blobs/uploads/1";

#[derive(Debug)]
struct Text(Bytes);

#[async_trait]
impl UploadSource for Text {
    async fn open(&self, offset: u64) -> Result<BlobStream> {
        let rest = self.0.slice(usize::try_from(offset).unwrap()..);
        let pieces: Vec<Result<Bytes>> = rest
            .chunks(7000)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        Ok(stream::iter(pieces).boxed())
    }
}

fn letters() -> Bytes {
    (0..100_000u32).map(|n| b'a' + (n % 26) as u8).collect()
}

/// The upload of a blob, and the positions it told of.
fn upload_of(bytes: &Bytes) -> (Upload, Arc<Mutex<Vec<u64>>>) {
    let reached: Arc<Mutex<Vec<u64>>> = Arc::default();
    let told = Arc::clone(&reached);
    let upload = Upload {
        source: Arc::new(Text(bytes.clone())),
        reached: Arc::new(move |position| told.lock().unwrap().push(position)),
    };
    (upload, reached)
}

fn begun() -> Reply {
    Reply::new(202).header("location", format!("{SESSION}?state=x"))
}

fn methods(mock: &Mock) -> Vec<String> {
    mock.seen().into_iter().map(|seen| seen.method).collect()
}

#[tokio::test]
async fn c3_a_blob_goes_in_one_request() {
    let mock = Mock::start(|seen| match seen.method.as_str() {
        "POST" => begun(),
        "PUT" => Reply::new(201),
        _ => Reply::new(404),
    })
    .await;
    let bytes = letters();
    let blob = blob_of(&bytes);
    let (upload, reached) = upload_of(&bytes);
    registry(&mock).upload("app", &blob, upload).await.unwrap();
    let seen = mock.seen();
    assert_eq!(methods(&mock), ["POST", "PUT"]);
    assert_eq!(seen[0].path, "/v2/app/blobs/uploads/");
    assert_eq!((seen[1].path.as_str(), seen[1].body.as_bytes()), (SESSION, &bytes[..]));
    let digest = blob.digest.to_string().replace(':', "%3A");
    assert_eq!(
        seen[1].query,
        format!("state=x&digest={digest}"),
        "what the registry put into the address stays"
    );
    assert_eq!(reached.lock().unwrap().last(), Some(&100_000));
}

#[tokio::test]
async fn c3_what_broke_off_goes_on_where_the_registry_says() {
    let mock = by_turn(|turn| match turn {
        0 => begun(),
        1 => Reply::new(503),
        // Is it there? How far did it get?
        2 => Reply::new(404),
        3 => Reply::new(204)
            .header("range", "0-39999")
            .header("location", format!("{SESSION}?state=y")),
        4 => Reply::new(202).header("location", format!("{SESSION}?state=z")),
        _ => Reply::new(201),
    })
    .await;
    let bytes = letters();
    let (upload, _) = upload_of(&bytes);
    registry(&mock).upload("app", &blob_of(&bytes), upload).await.unwrap();
    assert_eq!(methods(&mock), ["POST", "PUT", "HEAD", "GET", "PATCH", "PUT"]);
    let seen = mock.seen();
    assert_eq!(seen[4].body.as_bytes(), &bytes[40_000..]);
    assert!(seen[4].query.contains("state=y") && seen[5].query.contains("state=z"));
    assert_eq!(seen[5].body, "");
}

#[tokio::test]
async fn c3_a_registry_that_forgot_gets_the_blob_anew() {
    let mock = by_turn(|turn| match turn {
        0 | 4 => begun(),
        1 => Reply::new(500),
        2 | 3 => Reply::new(404),
        _ => Reply::new(201),
    })
    .await;
    let bytes = letters();
    let (upload, _) = upload_of(&bytes);
    registry(&mock).upload("app", &blob_of(&bytes), upload).await.unwrap();
    assert_eq!(methods(&mock), ["POST", "PUT", "HEAD", "GET", "POST", "PUT"]);
}

#[tokio::test]
async fn c3_a_blob_goes_in_pieces_where_that_is_asked_for() {
    let mock = Mock::start(|seen| match seen.method.as_str() {
        "PUT" => Reply::new(201),
        _ => begun(),
    })
    .await;
    let bytes = letters();
    let options = fast().plain_http(PlainHttp::Always).upload_chunk(30_000);
    let registry = HttpRegistry::new(&mock.host(), options).unwrap();
    let (upload, reached) = upload_of(&bytes);
    registry.upload("app", &blob_of(&bytes), upload).await.unwrap();
    assert_eq!(methods(&mock), ["POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"]);
    let lengths: Vec<usize> = mock.seen().iter().map(|seen| seen.body.len()).collect();
    assert_eq!(lengths, [0, 30_000, 30_000, 30_000, 10_000, 0]);
    assert_eq!(reached.lock().unwrap().last(), Some(&100_000));
}

#[tokio::test]
async fn c3_an_upload_that_is_refused_is_given_up() {
    let mock = Mock::start(|seen| match seen.method.as_str() {
        "POST" => begun(),
        "DELETE" => Reply::new(204),
        _ => Reply::new(403),
    })
    .await;
    let bytes = letters();
    let (upload, _) = upload_of(&bytes);
    let error = registry(&mock)
        .upload("app", &blob_of(&bytes), upload)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied);
    assert_eq!(methods(&mock), ["POST", "PUT", "DELETE"]);
}

#[derive(Debug)]
struct Silent;

#[async_trait]
impl UploadSource for Silent {
    async fn open(&self, _offset: u64) -> Result<BlobStream> {
        Ok(stream::pending().boxed())
    }
}

#[derive(Debug)]
struct Lost;

#[async_trait]
impl UploadSource for Lost {
    async fn open(&self, _offset: u64) -> Result<BlobStream> {
        Ok(stream::iter([Err(Error::new(ErrorKind::Corrupt, "the disk ate it"))]).boxed())
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_or_has_no_source_ends() {
    let mock = Mock::start(|seen| {
        if seen.method == "POST" {
            begun()
        } else {
            Reply::new(404)
        }
    })
    .await;
    let bytes = letters();
    let with = |source: Arc<dyn UploadSource>| Upload {
        source,
        reached: Arc::new(|_| {}),
    };
    let error = registry(&mock)
        .upload("app", &blob_of(&bytes), with(Arc::new(Silent)))
        .await;
    assert_eq!(error.unwrap_err().kind(), &ErrorKind::Timeout);
    let error = registry(&mock)
        .upload("app", &blob_of(&bytes), with(Arc::new(Lost)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt, "{}", error.report());
}

#[tokio::test]
async fn c3_a_mount_is_taken_or_left() {
    let blob = blob_of(b"x");
    for (status, expected, requests) in [(201, true, 1), (202, false, 2), (403, false, 1), (404, false, 1)] {
        let mock = Mock::start(move |seen| match seen.method.as_str() {
            "POST" => Reply::new(status).header("location", SESSION),
            _ => Reply::new(204),
        })
        .await;
        let mounted = registry(&mock).mount_blob("app", &blob, "team/base").await.unwrap();
        assert_eq!((mounted, mock.seen().len()), (expected, requests), "{status}");
        assert!(
            mock.seen()[0].query.ends_with("&from=team%2Fbase"),
            "{}",
            mock.seen()[0].query
        );
    }
}

#[tokio::test]
async fn c3_a_token_for_a_push_allows_both() {
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let mock = Mock::start(move |seen| {
        if seen.path == "/token" {
            return Reply::ok(r#"{"token":"t"}"#);
        }
        match (seen.authorization.as_deref(), seen.method.as_str()) {
            (None, _) => Reply::new(401).header(
                "www-authenticate",
                format!(r#"Bearer realm="http://{}/token",service="mock""#, own.get().unwrap()),
            ),
            (_, "HEAD") => Reply::new(404),
            (_, "POST") => begun(),
            _ => Reply::new(201),
        }
    })
    .await;
    address.set(mock.host()).unwrap();
    let registry = registry(&mock);
    let bytes = letters();
    assert!(!registry.has_blob("app", &blob_of(&bytes)).await.unwrap());
    let (upload, _) = upload_of(&bytes);
    registry.upload("app", &blob_of(&bytes), upload).await.unwrap();
    registry.mount_blob("app", &blob_of(&bytes), "base").await.unwrap();
    let tokens: Vec<_> = mock
        .seen()
        .into_iter()
        .filter(|seen| seen.path == "/token")
        .map(|seen| seen.query)
        .collect();
    assert_eq!(
        tokens,
        [
            "scope=repository%3Aapp%3Apull%2Cpush&service=mock",
            "scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull&service=mock"
        ]
    );
}

#[tokio::test]
async fn c12_tags_come_page_by_page() {
    let mock =
        Mock::start(|seen| match (seen.path.as_str(), seen.query.as_str()) {
            ("/v2/app/tags/list", "") => Reply::ok(r#"{"name":"app","tags":["1","2"]}"#)
                .header("link", r#"</v2/app/tags/list?last=2>; rel="next""#),
            ("/v2/app/tags/list", "last=2") => Reply::ok(r#"{"tags":["3"]}"#)
                .header("link", r#"<http://elsewhere.example/v2/app/tags/list>; rel="next""#),
            ("/v2/_catalog", _) => Reply::ok(r#"{"repositories":["app","b/c"]}"#),
            ("/v2/none/tags/list", _) => Reply::ok(r#"{"tags":null}"#),
            ("/v2/bad/tags/list", _) => Reply::ok("<html>"),
            _ => Reply::new(404),
        })
        .await;
    let registry = registry(&mock);
    assert_eq!(registry.tags("app").await.unwrap(), ["1", "2", "3"]);
    assert_eq!(registry.tags("none").await.unwrap(), [""; 0]);
    assert_eq!(registry.repositories().await.unwrap(), ["app", "b/c"]);
    assert!(registry.tags("missing").await.unwrap_err().is_not_found());
    assert_eq!(registry.tags("bad").await.unwrap_err().kind(), &ErrorKind::Unavailable);
}

#[tokio::test]
async fn c9_referrers_come_from_the_api_or_the_tag() {
    let subject = Digest::of(b"subject");
    let signature = Digest::of(b"signature");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{signature}","size":3,"artifactType":"sig"}},{{"mediaType":"m"}}]}}"#
    );
    for api in [true, false] {
        let (index, tag) = (index.clone(), format!("/v2/app/manifests/sha256-{}", subject.hex()));
        let mock = Mock::start(move |seen| match seen.path.as_str() {
            path if api && path.contains("/referrers/") => Reply::ok(index.clone()),
            path if !api && path == tag => Reply::ok(index.clone()),
            _ => Reply::new(404),
        })
        .await;
        let found = registry(&mock).referrers("app", &subject).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].descriptor.digest, found[0].artifact_type.as_deref()),
            (signature, Some("sig"))
        );
        assert_eq!(
            registry(&mock).referrers("app", &signature).await.unwrap().len(),
            usize::from(api)
        );
    }
}

#[tokio::test]
async fn c4_mirrors_are_asked_in_order_and_the_dead_are_left_out() {
    let dead = {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap().to_string()
    };
    let lacking = Mock::start(|_| Reply::new(404)).await;
    let second = Mock::start(|seen| match seen.path.as_str() {
        "/v2/app/manifests/1" => Reply::ok(r#"{"a":1}"#),
        _ => Reply::new(404),
    })
    .await;
    let origin = Mock::start(|_| Reply::ok(r#"{"b":2}"#)).await;
    let plain = || fast().plain_http(PlainHttp::Always);
    let registries = HttpRegistries::new(plain())
        .with_mirror(origin.host(), dead.clone())
        .with_mirror(origin.host(), lacking.host())
        .with_mirror(origin.host(), second.host());
    for turn in 1..=2 {
        let registry = registries.open(&origin.host(), &Credentials::Anonymous).await.unwrap();
        let found = registry.manifest("app", &tag("1")).await.unwrap();
        assert_eq!(found.bytes, r#"{"a":1}"#);
        assert_eq!(
            (lacking.seen().len(), second.seen().len(), origin.seen().len()),
            (turn, turn, 0)
        );
    }
    // Nobody but the host itself has this one.
    let registry = registries.open(&origin.host(), &Credentials::Anonymous).await.unwrap();
    assert_eq!(registry.manifest("app", &tag("2")).await.unwrap().bytes, r#"{"b":2}"#);
}

#[tokio::test]
async fn c4_a_mirror_does_not_see_the_host_s_credentials() {
    let mirror = Mock::start(|_| Reply::new(401).header("www-authenticate", "Basic realm=x")).await;
    let origin = Mock::start(|seen| match seen.authorization {
        Some(_) => Reply::ok("{}"),
        None => Reply::new(401).header("www-authenticate", "Basic realm=x"),
    })
    .await;
    let registries =
        HttpRegistries::new(fast().plain_http(PlainHttp::Always)).with_mirror(origin.host(), mirror.host());
    let registry = registries
        .open(&origin.host(), &Credentials::password("u", "p"))
        .await
        .unwrap();
    registry.manifest("app", &tag("1")).await.unwrap();
    assert!(mirror.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn c14_a_proxy_is_used_but_for_its_exceptions() {
    let proxy = Mock::start(|_| Reply::ok(r#"{"by":"proxy"}"#)).await;
    let direct = Mock::start(|_| Reply::ok(r#"{"by":"itself"}"#)).await;
    let options = || {
        fast()
            .plain_http(PlainHttp::Always)
            .proxy(format!("http://{}", proxy.host()))
    };
    let far = HttpRegistry::new("registry.example:80", options().no_proxy(["127.0.0.1"])).unwrap();
    assert_eq!(far.manifest("app", &tag("1")).await.unwrap().bytes, r#"{"by":"proxy"}"#);
    let near = HttpRegistry::new(&direct.host(), options().no_proxy(["127.0.0.1"])).unwrap();
    assert_eq!(
        near.manifest("app", &tag("1")).await.unwrap().bytes,
        r#"{"by":"itself"}"#
    );
    let shown = format!("{:?}", fast().proxy("http://me:secret@proxy:3128"));
    assert!(shown.contains("proxy:3128") && !shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn c2_a_login_is_checked() {
    let mock = Mock::start(|seen| match seen.authorization.as_deref() {
        Some("Basic dTpw") => Reply::ok("{}"),
        _ => Reply::new(401).header("www-authenticate", "Basic realm=x"),
    })
    .await;
    for (password, good) in [("p", true), ("q", false)] {
        let options = fast()
            .plain_http(PlainHttp::Always)
            .credentials(Credentials::password("u", password));
        let checked = HttpRegistry::new(&mock.host(), options).unwrap().check_login().await;
        match checked {
            Ok(()) => assert!(good),
            Err(error) => assert!(!good && error.kind() == &ErrorKind::Denied, "{error}"),
        }
    }
}

#[tokio::test]
async fn c2_the_embedder_s_source_is_asked_by_host() {
    let mock = Mock::start(|seen| match seen.authorization.as_deref() {
        Some("Basic dTpw") => Reply::ok("{}"),
        _ => Reply::new(401).header("www-authenticate", "Basic realm=x"),
    })
    .await;
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, mock.host());
    let file = AuthFile::parse(text.as_bytes()).unwrap();
    let registries = HttpRegistries::new(fast().plain_http(PlainHttp::Always)).with_credentials(Arc::new(file));
    let registry = registries.open(&mock.host(), &Credentials::Anonymous).await.unwrap();
    registry.manifest("app", &tag("1")).await.unwrap();
}
