//! The HTTP backend against servers that behave in every way there is, and against a real registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::TryStreamExt;

use self::mock::{End, Mock, Reply};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::registry::Credentials;
use crate::types::{Digest, MediaType};

mod auth;
mod mock;
mod push;
mod real;
mod tls;

fn fast() -> HttpOptions {
    HttpOptions {
        native_roots: false,
        first_retry_wait: Duration::from_millis(2),
        max_retry_wait: Duration::from_secs(2),
        stall_timeout: Duration::from_millis(300),
        resumes: 2,
        ..HttpOptions::default()
    }
}

fn registry(mock: &Mock) -> HttpRegistry {
    HttpRegistry::new(&mock.host(), fast().plain_http(PlainHttp::Always)).unwrap()
}

fn tag(tag: &str) -> ManifestKey {
    ManifestKey::Tag(tag.to_owned())
}

fn blob_of(bytes: &[u8]) -> Descriptor {
    let media_type = MediaType("application/octet-stream".into());
    Descriptor {
        media_type,
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    }
}

fn some_bytes() -> Vec<u8> {
    (0..100_000u32).map(|n| (n % 251) as u8).collect()
}

async fn read(registry: &HttpRegistry, descriptor: &Descriptor, offset: u64) -> Result<Vec<u8>, Error> {
    let chunks: Vec<Bytes> = registry.blob("app", descriptor, offset).await?.try_collect().await?;
    Ok(chunks.concat())
}

/// Replies to the nth request (from 0) as told.
async fn by_turn(reply: impl Fn(u32) -> Reply + Send + Sync + 'static) -> Mock {
    let turn = AtomicU32::new(0);
    Mock::start(move |_| reply(turn.fetch_add(1, Ordering::SeqCst))).await
}

#[tokio::test]
async fn a_manifest_comes_with_its_own_digest_and_type() {
    let body = r#"{"schemaVersion":2}"#;
    let mock = Mock::start(move |_| {
        let lie = Digest::of(b"a lie").to_string();
        Reply::ok(body)
            .header(
                "content-type",
                "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
            )
            .header("docker-content-digest", lie)
    })
    .await;
    let manifest = registry(&mock).manifest("library/app", &tag("1")).await.unwrap();
    assert_eq!(manifest.bytes, body);
    assert_eq!(manifest.descriptor.digest, Digest::of(body.as_bytes()));
    assert_eq!(
        manifest.descriptor.media_type.0,
        "application/vnd.oci.image.manifest.v1+json"
    );
    let seen = &mock.seen()[0];
    assert_eq!(seen.path, "/v2/library/app/manifests/1");
    assert!(seen.accept.as_ref().unwrap().contains("manifest.list.v2+json"));
}

#[tokio::test]
async fn a_type_that_is_not_stated_is_read_from_inside() {
    let body = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
    let mock = Mock::start(move |_| Reply::ok(body).header("content-type", "application/json")).await;
    let manifest = registry(&mock).manifest("app", &tag("1")).await.unwrap();
    assert_eq!(
        manifest.descriptor.media_type.0,
        "application/vnd.oci.image.index.v1+json"
    );
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let mock = Mock::start(|_| Reply::ok("{}")).await;
    let error = registry(&mock)
        .manifest("app", &ManifestKey::Digest(Digest::of(b"x")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::DigestMismatch);
}

#[tokio::test]
async fn an_endless_manifest_is_not_read_to_its_end() {
    let announced = Mock::start(|_| Reply::ok("{").length(5 << 20).end(End::Stall)).await;
    let endless = Mock::start(|_| Reply::ok(vec![b' '; 64 << 10]).end(End::Never)).await;
    for mock in [announced, endless] {
        let error = registry(&mock).manifest("app", &tag("1")).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{error:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    let mock = Mock::start(move |_| Reply::new(404).body(body)).await;
    let registry = registry(&mock);
    let error = registry.manifest("app", &tag("nope")).await.unwrap_err();
    assert!(error.is_not_found());
    let text = error.to_string();
    assert!(
        text.contains(&format!("{}/app:nope", mock.host())) && text.contains("manifest unknown"),
        "{text}"
    );
    let error = registry.blob("app", &blob_of(b"x"), 0).await.err().unwrap();
    assert!(error.is_not_found() && error.to_string().contains(&Digest::of(b"x").to_string()));
}

#[tokio::test]
async fn c7_a_busy_registry_is_asked_again() {
    let mock = by_turn(|turn| match turn {
        0 => Reply::new(503),
        1 => Reply::new(429).header("retry-after", "0"),
        2 => Reply::new(500),
        _ => Reply::ok("{}"),
    })
    .await;
    registry(&mock).manifest("app", &tag("1")).await.unwrap();
    assert_eq!(mock.seen().len(), 4);
}

#[tokio::test]
async fn c7_patience_ends_with_the_time_to_come_back() {
    let busy = Mock::start(|_| Reply::new(503)).await;
    let error = registry(&busy).manifest("app", &tag("1")).await.unwrap_err();
    assert_eq!((error.kind(), busy.seen().len()), (&ErrorKind::Unavailable, 4));

    let limited = Mock::start(|_| Reply::new(429)).await;
    let error = registry(&limited).manifest("app", &tag("1")).await.unwrap_err();
    assert_eq!(
        (error.kind(), limited.seen().len()),
        (&ErrorKind::RateLimited { retry_at: None }, 4)
    );

    let later = Mock::start(|_| Reply::new(429).header("retry-after", "3600")).await;
    let error = registry(&later).manifest("app", &tag("1")).await.unwrap_err();
    let ErrorKind::RateLimited { retry_at: Some(at) } = error.kind() else {
        panic!("{error:?}")
    };
    let wait = at.duration_since(SystemTime::now()).unwrap();
    assert!(wait > Duration::from_secs(3500) && wait <= Duration::from_secs(3600));
    assert_eq!(later.seen().len(), 1);
}

#[tokio::test]
async fn c7_who_says_when_is_not_asked_before() {
    let mock = by_turn(|turn| match turn {
        0 => Reply::new(429).header("retry-after", "1"),
        _ => Reply::ok("{}"),
    })
    .await;
    let begun = std::time::Instant::now();
    registry(&mock).manifest("app", &tag("1")).await.unwrap();
    // A least time, which no load can shorten.
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(mock.seen().len(), 2);
}

#[tokio::test]
async fn c7_a_slow_drip_is_no_stall() {
    let bytes = some_bytes()[..3000].to_vec();
    let served = bytes.clone();
    // Every piece in time, all together much longer than the registry may be silent.
    let mock = Mock::start(move |_| Reply::ok(served.clone()).length(3000).end(End::Drip)).await;
    let begun = std::time::Instant::now();
    assert_eq!(read(&registry(&mock), &blob_of(&bytes), 0).await.unwrap(), bytes);
    assert!(begun.elapsed() > fast().stall_timeout);
}

#[tokio::test]
async fn a_blob_comes_whole_or_from_an_offset() {
    let bytes = some_bytes();
    let blob = blob_of(&bytes);
    let served = bytes.clone();
    let mock = Mock::start(move |seen| ranged(&served, seen.range.as_deref())).await;
    let registry = registry(&mock);
    assert_eq!(read(&registry, &blob, 0).await.unwrap(), bytes);
    assert_eq!(read(&registry, &blob, 60_000).await.unwrap(), bytes[60_000..]);
    assert_eq!(read(&registry, &blob, 100_000).await.unwrap(), b"");
    assert!(read(&registry, &blob, 100_001).await.is_err());
    assert_eq!(mock.seen().len(), 2);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let mock = Mock::start(|_| Reply::ok("").length(0)).await;
    assert_eq!(read(&registry(&mock), &blob_of(b""), 0).await.unwrap(), b"");
}

fn ranged(bytes: &[u8], range: Option<&str>) -> Reply {
    let Some(range) = range else {
        return Reply::ok(bytes.to_vec()).length(bytes.len() as u64);
    };
    let first: usize = range
        .strip_prefix("bytes=")
        .unwrap()
        .strip_suffix('-')
        .unwrap()
        .parse()
        .unwrap();
    let header = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::ok(bytes[first..].to_vec())
        .status(206)
        .header("content-range", header)
}

#[tokio::test]
async fn a_broken_blob_is_resumed_where_it_broke() {
    let bytes = some_bytes();
    let (served, turn) = (bytes.clone(), AtomicU32::new(0));
    let mock = Mock::start(move |seen| match turn.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::ok(served[..30_000].to_vec()).length(100_000).end(End::Break),
        1 => ranged(&served[..], seen.range.as_deref()).end(End::Break),
        _ => ranged(&served[..], seen.range.as_deref()),
    })
    .await;
    assert_eq!(read(&registry(&mock), &blob_of(&bytes), 0).await.unwrap(), bytes);
    let ranges: Vec<_> = mock.seen().into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges[..2], [None, Some("bytes=30000-".to_owned())]);
}

#[tokio::test]
async fn a_server_without_ranges_is_read_again() {
    let bytes = some_bytes();
    let served = bytes.clone();
    let mock = by_turn(move |turn| match turn {
        0 => Reply::ok(served[..30_000].to_vec()).length(100_000).end(End::Break),
        _ => Reply::ok(served.clone()).length(100_000),
    })
    .await;
    assert_eq!(read(&registry(&mock), &blob_of(&bytes), 0).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_blob_that_always_breaks_fails_after_bounded_tries() {
    let bytes = some_bytes();
    let served = bytes.clone();
    let mock = Mock::start(move |_| Reply::ok(served[..1000].to_vec()).length(100_000).end(End::Break)).await;
    let error = read(&registry(&mock), &blob_of(&bytes), 0).await.unwrap_err();
    assert_eq!((error.kind(), mock.seen().len()), (&ErrorKind::Unavailable, 3));
    let served = bytes.clone();
    let short = Mock::start(move |_| Reply::ok(served[..1000].to_vec())).await;
    let error = read(&registry(&short), &blob_of(&bytes), 0).await.unwrap_err();
    assert_eq!((error.kind(), short.seen().len()), (&ErrorKind::Unavailable, 3));
}

#[tokio::test]
async fn c6_where_a_registry_gives_another_part_or_none_the_whole_is_read_again() {
    let bytes = some_bytes();
    for status in [206, 416] {
        let served = bytes.clone();
        let mock = Mock::start(move |seen| match &seen.range {
            None => Reply::ok(served.clone()).length(100_000),
            Some(_) if status == 416 => Reply::new(416).header("content-range", "bytes */100000"),
            Some(_) => Reply::ok(served[20_000..].to_vec())
                .status(206)
                .header("content-range", "bytes 20000-99999/100000"),
        })
        .await;
        assert_eq!(
            read(&registry(&mock), &blob_of(&bytes), 30_000).await.unwrap(),
            bytes[30_000..]
        );
        assert_eq!(mock.seen().len(), 2);
    }
    // One that gives it even to who asks for the whole has had its chance.
    let served = bytes.clone();
    let stubborn = Mock::start(move |_| {
        Reply::ok(served[20_000..].to_vec())
            .status(206)
            .header("content-range", "bytes 20000-99999/100000")
    })
    .await;
    let error = read(&registry(&stubborn), &blob_of(&bytes), 30_000).await.unwrap_err();
    assert_eq!((error.kind(), stubborn.seen().len()), (&ErrorKind::Unavailable, 2));
}

#[tokio::test]
async fn c6_a_connection_may_break_anywhere() {
    let bytes: Vec<u8> = some_bytes()[..3000].to_vec();
    for position in [0, 1, 2, 1499, 1500, 2998, 2999] {
        let (served, turn) = (bytes.clone(), AtomicU32::new(0));
        let mock = Mock::start(move |seen| match turn.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::ok(served[..position].to_vec()).length(3000).end(End::Break),
            _ => ranged(&served, seen.range.as_deref()),
        })
        .await;
        assert_eq!(
            read(&registry(&mock), &blob_of(&bytes), 0).await.unwrap(),
            bytes,
            "{position}"
        );
    }
}

#[tokio::test]
async fn a_blob_of_another_size_is_refused() {
    let bytes = some_bytes();
    let blob = blob_of(&bytes);
    for length in [99_999, 100_001] {
        let mock = Mock::start(move |_| Reply::ok("x").length(length).end(End::Stall)).await;
        assert_eq!(
            read(&registry(&mock), &blob, 0).await.unwrap_err().kind(),
            &ErrorKind::DigestMismatch
        );
    }
    let endless = Mock::start(|_| Reply::ok(vec![0; 64 << 10]).end(End::Never)).await;
    assert_eq!(
        read(&registry(&endless), &blob, 0).await.unwrap_err().kind(),
        &ErrorKind::DigestMismatch
    );
}

#[tokio::test]
async fn c7_silence_is_a_timeout() {
    let bytes = some_bytes();
    let served = bytes.clone();
    let mock = Mock::start(move |_| Reply::ok(served[..1000].to_vec()).length(100_000).end(End::Stall)).await;
    let error = read(&registry(&mock), &blob_of(&bytes), 0).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{error:?}");
    let error = registry(&mock).manifest("app", &tag("1")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{error:?}");
}

#[tokio::test]
async fn nobody_at_home_is_unavailable() {
    let mock = Mock::start(|_| Reply::ok("")).await;
    let host = mock.host();
    drop(mock);
    tokio::task::yield_now().await;
    let error = HttpRegistry::new(&host, fast())
        .unwrap()
        .manifest("app", &tag("1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn redirects_lose_the_sign_in_and_keep_the_range() {
    let bytes = some_bytes();
    let served = bytes.clone();
    let store = Arc::new(Mock::start(move |seen| ranged(&served, seen.range.as_deref())).await);
    let target = format!("http://{}/elsewhere?signature=secret", store.host());
    let mock = Mock::start(move |seen| match &seen.authorization {
        None => Reply::new(401).header("www-authenticate", "Basic realm=\"r\""),
        Some(_) => Reply::new(307).header("location", target.clone()),
    })
    .await;
    let options = fast()
        .plain_http(PlainHttp::Always)
        .credentials(Credentials::password("me", "pw"));
    let registry = HttpRegistry::new(&mock.host(), options).unwrap();
    assert_eq!(read(&registry, &blob_of(&bytes), 10).await.unwrap(), bytes[10..]);
    let seen = store.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].authorization.as_deref(), seen[0].range.as_deref()),
        (None, Some("bytes=10-"))
    );
}

#[tokio::test]
async fn c2_a_token_that_runs_out_in_the_middle_is_fetched_anew() {
    let bytes = some_bytes();
    let (served, turn) = (bytes.clone(), AtomicU32::new(0));
    let mock = Mock::start(move |seen| {
        if seen.path == "/token" {
            let number = turn.fetch_add(1, Ordering::SeqCst);
            return Reply::ok(format!(r#"{{"token":"t{number}"}}"#));
        }
        let host = seen.host.clone().unwrap_or_default();
        let asks = format!(r#"Bearer realm="http://{host}/token",service="r",scope="repository:app:pull""#);
        match (seen.authorization.as_deref(), &seen.range) {
            (Some("Bearer t0"), None) => Reply::ok(served[..30_000].to_vec()).length(100_000).end(End::Break),
            // From now on the first token is too old.
            (Some("Bearer t1"), range) => ranged(&served, range.as_deref()),
            _ => Reply::new(401).header("www-authenticate", asks),
        }
    })
    .await;
    assert_eq!(read(&registry(&mock), &blob_of(&bytes), 0).await.unwrap(), bytes);
    assert_eq!(mock.count("/token"), 2);
    assert_eq!(mock.seen().last().unwrap().range.as_deref(), Some("bytes=30000-"));
}

#[tokio::test]
async fn a_redirect_in_a_circle_ends() {
    let mock = Mock::start(|_| Reply::new(302).header("location", "/v2/app/manifests/1")).await;
    let error = registry(&mock).manifest("app", &tag("1")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert!(mock.seen().len() < 12);
}
