//! A registry of our own that does what no registry should: each of its ways ends in a typed error, or is put up with. Nothing
//! wrong is listed, nothing is left, and no secret is told.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use longshore::registry::Credentials;
use longshore::registry::http::{HttpOptions, HttpRegistries};
use longshore::types::Filter;
use longshore::{Engine, ErrorKind};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::frame::{Check, Stop, fail};
use crate::support::image::{self, Files, Layout, MANIFEST};
use crate::support::mock::{Asked, Mock, Reply, image_reply};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::warnings;
use crate::tests;

tests! { "misbehaving":
    kernel_async [
        c1_manifests_that_lie_are_refused,
        c1_index_bombs_end,
        c1_a_layer_that_is_there_twice_is_fetched_once,
        c1_redirects_end_and_take_no_credentials_along,
        c7_errors_that_do_not_end,
        c6_a_reset_anywhere_is_got_over,
        c1_a_second_pull_is_one_request,
    ]
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SECRET: &str = "a-secret-of-the-sailor";

fn two_layers() -> Result<(TempDir, Layout), Stop> {
    let dir = scratch::fresh("misbehaving");
    let layer = |name: &str| Files::new().file(name, 0o644, name.repeat(3000));
    let layout = image::write_layout(
        &dir.path().join("image"),
        &[layer("one"), layer("two")],
        &json!({ "Cmd": ["one"] }),
    )?;
    Ok((dir, layout))
}

/// An engine whose patience is short.
async fn engine() -> Result<(Engine, TempRoot), Stop> {
    engine_that_waits(Duration::from_millis(300)).await
}

async fn engine_that_waits(stall: Duration) -> Result<(Engine, TempRoot), Stop> {
    let mut options = HttpOptions::new();
    options.stall_timeout = stall;
    options.first_retry_wait = Duration::from_millis(1);
    let root = TempRoot::new();
    let engine = Engine::builder(root.path())
        .registries(Arc::new(HttpRegistries::new(options)))
        .open()
        .await?;
    Ok((engine, root))
}

/// Pulls with a password that nobody may see, and expects one of these errors. Nothing is left of it.
async fn refused(what: &str, mock: &Mock, name: &str, expected: &[ErrorKind]) -> Check {
    drop(warnings::take());
    let (engine, root) = engine().await?;
    let pull = engine
        .pull(mock.reference(name))
        .credentials(Credentials::password("sailor", SECRET));
    let said = format!("{pull:?}");
    let limit = Duration::from_secs(60);
    let Ok(pulled) = tokio::time::timeout(limit, pull).await else {
        return fail(format!("{what}: no end within {limit:?}"));
    };
    let Err(error) = pulled else {
        return fail(format!("{what} was taken"));
    };
    let is_expected = expected
        .iter()
        .any(|kind| std::mem::discriminant(kind) == std::mem::discriminant(error.kind()));
    assert!(is_expected, "{what}: {:?}: {}", error.kind(), error.report());
    for text in [said, error.report(), format!("{error:?}")]
        .into_iter()
        .chain(warnings::take())
    {
        assert!(!text.contains(SECRET), "{what}: the password is told: {text}");
    }
    assert!(engine.list_images(Filter::new()).await?.is_empty(), "{what}");
    engine.reconcile().await?;
    let audit = engine.audit().await?;
    assert!(audit.is_clean(), "{what}: {:?}", audit.findings);
    for place in ["content/blobs/sha256", "content/ingest"] {
        assert_eq!(
            fs::read_dir(root.path().join(place))?.count(),
            0,
            "{what}: something is left in {place}"
        );
    }
    Ok(())
}

/// Serves an image whose manifest and config were changed, and fit each other again.
fn changed(manifest: impl Fn(&mut Value), config: impl Fn(&mut Value)) -> Result<Mock, Stop> {
    let (dir, layout) = two_layers()?;
    let mut body: Value = serde_json::from_slice(&layout.blob(&layout.config)?)?;
    config(&mut body);
    let config = serde_json::to_vec(&body)?;
    let digest = image::digest(&config);
    let mut body: Value = serde_json::from_slice(&layout.blob(&layout.manifest)?)?;
    body["config"]["digest"] = digest.clone().into();
    body["config"]["size"] = config.len().into();
    manifest(&mut body);
    let kind = body["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
    let manifest = serde_json::to_vec(&body)?;
    Ok(Mock::serve(move |asked| {
        let _dir = &dir;
        if asked.path.contains("/manifests/") {
            return Reply::new(200, &kind, manifest.clone());
        }
        if asked.path.ends_with(&digest) {
            return Reply::new(200, "application/octet-stream", config.clone());
        }
        image_reply(&layout, asked)
    })?)
}

async fn c1_manifests_that_lie_are_refused() -> Check {
    use ErrorKind::{DigestMismatch, InvalidArgument, UnsafeArchive};
    let unsupported = || ErrorKind::Unsupported { needs: String::new() };
    type Change = fn(&mut Value);
    let same: Change = |_| {};
    let lies: Vec<(&str, Change, Change, Vec<ErrorKind>)> = vec![
        (
            "a layer that does not unpack to its diff ID",
            same,
            |config| config["rootfs"]["diff_ids"][1] = format!("sha256:{}", "7".repeat(64)).into(),
            vec![DigestMismatch],
        ),
        (
            "diff IDs in another order",
            same,
            |config| config["rootfs"]["diff_ids"].as_array_mut().expect("a list").reverse(),
            vec![DigestMismatch],
        ),
        (
            "fewer diff IDs than layers",
            same,
            |config| drop(config["rootfs"]["diff_ids"].as_array_mut().expect("a list").pop()),
            vec![InvalidArgument],
        ),
        (
            "a layer more than diff IDs",
            |manifest| {
                let again = manifest["layers"][0].clone();
                manifest["layers"].as_array_mut().expect("a list").push(again);
            },
            same,
            vec![InvalidArgument],
        ),
        (
            "ten thousand layers",
            |manifest| manifest["layers"] = vec![manifest["layers"][0].clone(); 10_000].into(),
            |config| config["rootfs"]["diff_ids"] = vec![config["rootfs"]["diff_ids"][0].clone(); 10_000].into(),
            vec![InvalidArgument],
        ),
        (
            "a layer of a negative size",
            |manifest| manifest["layers"][0]["size"] = (-1).into(),
            same,
            vec![InvalidArgument],
        ),
        (
            "a layer of eight exabytes",
            |manifest| manifest["layers"][0]["size"] = i64::MAX.into(),
            same,
            vec![InvalidArgument, DigestMismatch, ErrorKind::Unavailable],
        ),
        (
            "a digest that leads elsewhere",
            |manifest| manifest["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into(),
            same,
            vec![InvalidArgument],
        ),
        (
            "a digest by another algorithm",
            |manifest| manifest["layers"][0]["digest"] = format!("md5:{}", "0".repeat(32)).into(),
            same,
            vec![InvalidArgument, unsupported()],
        ),
        (
            "a config that is no image's",
            |manifest| manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into(),
            same,
            vec![unsupported(), InvalidArgument],
        ),
        (
            "layers that are no tars",
            |manifest| manifest["layers"][0]["mediaType"] = "application/vnd.wasm.content.layer.v1+wasm".into(),
            same,
            vec![unsupported(), InvalidArgument, UnsafeArchive],
        ),
        (
            "an encrypted layer",
            |manifest| {
                manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into();
            },
            same,
            vec![unsupported()],
        ),
        (
            "a manifest of the first schema",
            |manifest| {
                *manifest = json!({
                    "schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws",
                    "fsLayers": [], "history": [],
                });
            },
            same,
            vec![unsupported()],
        ),
        (
            "a page for people",
            |manifest| *manifest = json!({ "mediaType": "text/html" }),
            same,
            vec![InvalidArgument, unsupported(), ErrorKind::Unavailable],
        ),
        (
            "a config that nests without end",
            same,
            |config| {
                let mut nested = json!(1);
                for _ in 0..100 {
                    nested = json!([nested]);
                }
                config["config"] = nested;
            },
            vec![InvalidArgument],
        ),
    ];
    for (what, manifest, config, expected) in lies {
        refused(what, &changed(manifest, config)?, "app:1", &expected).await?;
    }
    Ok(())
}

async fn c1_index_bombs_end() -> Check {
    let entry = |digest: &str, size: usize, kind: &str| {
        json!({ "mediaType": kind, "digest": digest, "size": size,
                "platform": { "architecture": image::architecture(), "os": "linux" } })
    };
    // Each has another one in it.
    let mut chain: Vec<(String, Vec<u8>)> = Vec::new();
    let mut inner = entry(&image::digest(b"end"), 3, MANIFEST);
    for _ in 0..200 {
        let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [inner] })
            .to_string()
            .into_bytes();
        let digest = image::digest(&body);
        inner = entry(&digest, body.len(), INDEX);
        chain.push((digest, body));
    }
    let top = chain.last().map(|(_, body)| body.clone()).unwrap_or_default();
    let mock = Mock::serve(move |asked| {
        let there = chain.iter().find(|(digest, _)| asked.path.ends_with(digest));
        match (asked.path.contains("/manifests/"), there) {
            (true, Some((_, body))) => Reply::new(200, INDEX, body.clone()),
            (true, None) if asked.path.ends_with("/1") => Reply::new(200, INDEX, top.clone()),
            _ => Reply::new(404, "application/json", "{}"),
        }
    })?;
    refused(
        "two hundred indexes in each other",
        &mock,
        "app:1",
        &[ErrorKind::InvalidArgument],
    )
    .await?;
    let asked = mock
        .asked()
        .iter()
        .filter(|asked| asked.path.contains("/manifests/"))
        .count();
    assert!(asked <= 10, "{asked} indexes were asked for");

    // As many entries as the limit of a manifest's size lets through, none of them for anybody.
    let other = json!({ "mediaType": MANIFEST, "digest": image::digest(b"x"), "size": 1,
                        "platform": { "architecture": "s390x", "os": "linux" } });
    let count = (4 << 20) / (other.to_string().len() + 2);
    let wide = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": vec![other; count] }).to_string();
    let mock = Mock::serve(move |_| Reply::new(200, INDEX, wide.clone()))?;
    refused(
        "an index of four megabytes",
        &mock,
        "app:1",
        &[ErrorKind::NotFound, ErrorKind::InvalidArgument],
    )
    .await?;
    assert!(mock.asked().len() <= 4, "{:?}", mock.asked());

    for body in [
        "{}",
        r#"{"manifests":[]}"#,
        r#"{"schemaVersion":2,"manifests":[{}]}"#,
        r#"{"schemaVersion":2,"manifests":7}"#,
    ] {
        let mock = Mock::serve(move |_| Reply::new(200, INDEX, body))?;
        refused(body, &mock, "app:1", &[ErrorKind::NotFound, ErrorKind::InvalidArgument]).await?;
    }
    Ok(())
}

async fn c1_a_layer_that_is_there_twice_is_fetched_once() -> Check {
    let twice = |list: &mut Value| {
        let first = list[0].clone();
        list.as_array_mut().expect("a list").push(first);
    };
    let mock = changed(
        |manifest| twice(&mut manifest["layers"]),
        |config| twice(&mut config["rootfs"]["diff_ids"]),
    )?;
    let (engine, _root) = engine().await?;
    let image = engine.pull(mock.reference("app:1")).await?;
    assert_eq!(image.inspect().await?.layers.len(), 3);
    let mut blobs: Vec<String> = mock
        .asked()
        .into_iter()
        .map(|asked| asked.path)
        .filter(|path| path.contains("/blobs/"))
        .collect();
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    assert_eq!((blobs.len(), all), (3, 3), "the config and two layers, each once");
    Ok(())
}

async fn c1_redirects_end_and_take_no_credentials_along() -> Check {
    let (dir, layout) = two_layers()?;
    let served = layout.clone();
    let mock = Mock::serve(move |asked| match asked.path.contains("/blobs/") {
        true => Reply::new(307, "text/plain", "").header("Location", asked.path.clone()),
        false => image_reply(&served, asked),
    })?;
    refused("a redirect to itself", &mock, "app:1", &[ErrorKind::Unavailable]).await?;
    assert!(mock.asked().len() < 100, "{} requests", mock.asked().len());

    // The blobs are elsewhere, and who keeps them is not told who asks.
    let elsewhere = {
        let layout = layout.clone();
        Mock::serve(move |asked| image_reply(&layout, asked))?
    };
    let there = elsewhere.addr.port();
    let basic = |asked: &Asked| {
        asked
            .authorization
            .as_deref()
            .is_some_and(|text| text.starts_with("Basic "))
    };
    let mock = Mock::serve(move |asked| match (basic(asked), asked.path.contains("/blobs/")) {
        (false, _) => Reply::new(401, "application/json", "{}").header("WWW-Authenticate", "Basic realm=\"tests\""),
        (true, true) => {
            // Another host by its name, which is what counts.
            let place = format!("http://localhost:{there}{}", asked.path);
            Reply::new(307, "text/plain", "").header("Location", place)
        }
        (true, false) => image_reply(&layout, asked),
    })?;
    let (engine, _root) = engine().await?;
    let pulled = engine
        .pull(mock.reference("app:1"))
        .credentials(Credentials::password("sailor", SECRET))
        .await?;
    assert_eq!(pulled.inspect().await?.layers.len(), 2);
    let asked = elsewhere.asked();
    assert!(asked.len() >= 3, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.authorization.is_none()), "{asked:?}");
    drop(dir);
    Ok(())
}

async fn c7_errors_that_do_not_end() -> Check {
    let (_dir, layout) = two_layers()?;
    let limited = ErrorKind::RateLimited { retry_at: None };
    for (status, expected) in [
        (500, vec![ErrorKind::Unavailable]),
        (503, vec![ErrorKind::Unavailable]),
        (429, vec![limited]),
        (401, vec![ErrorKind::Denied]),
        (403, vec![ErrorKind::Denied]),
        (404, vec![ErrorKind::NotFound]),
        (418, vec![ErrorKind::Unavailable, ErrorKind::InvalidArgument]),
    ] {
        for part in ["/manifests/", "/blobs/"] {
            let layout = layout.clone();
            let mock = Mock::serve(move |asked| match asked.path.contains(part) {
                true => Reply::new(status, "application/json", "{}"),
                false => image_reply(&layout, asked),
            })?;
            refused(&format!("{status} for {part}"), &mock, "app:1", &expected).await?;
            assert!(
                mock.asked().len() < 60,
                "{status} for {part}: {} requests",
                mock.asked().len()
            );
        }
    }
    // Silence in the middle of a blob, each time.
    let layout = layout.clone();
    let mock = Mock::serve(move |asked| {
        let reply = image_reply(&layout, asked);
        match asked.path.contains("/blobs/") {
            true => {
                let half = reply.body.len() / 2;
                reply.stalls_after(half)
            }
            false => reply,
        }
    })?;
    refused("silence", &mock, "app:1", &[ErrorKind::Timeout, ErrorKind::Unavailable]).await
}

async fn c1_a_second_pull_is_one_request() -> Check {
    let (_dir, layout) = two_layers()?;
    let mock = {
        let layout = layout.clone();
        Mock::serve(move |asked| image_reply(&layout, asked))?
    };
    let (engine, _root) = engine().await?;
    let first = engine.pull(mock.reference("app:1")).await?;
    let counted = Arc::new(AtomicUsize::new(mock.asked().len()));
    for _ in 0..3 {
        let again = engine
            .pull(mock.reference("app:1"))
            .policy(longshore::images::Pull::Always)
            .await?;
        assert_eq!(again.id(), first.id());
        let now = mock.asked().len();
        assert_eq!(now - counted.swap(now, Ordering::SeqCst), 1, "{:?}", mock.asked());
    }
    Ok(())
}

/// Each first answer to a path ends at the same place: in its status line, its headers, between these and the body, and in the
/// body. The connection is reset there, and what is asked again is answered as it should be.
async fn c6_a_reset_anywhere_is_got_over() -> Check {
    let (_dir, layout) = two_layers()?;
    let body = layout.blob(&layout.config)?.len();
    // The same head for all, but for digits of a length.
    let reply_to = |digest: &str| {
        let asked = Asked {
            path: format!("/v2/app/blobs/{digest}"),
            query: String::new(),
            authorization: None,
            range: None,
        };
        image_reply(&layout, &asked)
    };
    let head = reply_to(&layout.config).head().len();
    let places = [
        0,
        1,
        8,
        9,
        16,
        17,
        18,
        19,
        40,
        head - 5,
        head - 4,
        head - 3,
        head - 2,
        head - 1,
        head,
        head + 1,
        head + body / 2,
        head + body - 1,
    ];
    for place in places {
        let (served, seen) = (layout.clone(), Mutex::new(HashSet::new()));
        let mock = Mock::serve(move |asked| {
            let reply = image_reply(&served, asked);
            match seen.lock().expect("not poisoned").insert(asked.path.clone()) {
                true => reply.resets_after(place),
                false => reply,
            }
        })?;
        // Nothing stalls here, however busy the machine is.
        let (engine, _root) = engine_that_waits(Duration::from_secs(20)).await?;
        let pulled = engine.pull(mock.reference("app:1")).await;
        let image = pulled.or_else(|error| fail(format!("reset after {place} bytes: {}", error.report())))?;
        assert_eq!(image.inspect().await?.layers.len(), 2, "{place}");
        let asked = mock.asked();
        for digest in layout.layers.iter().map(|layer| &layer.0).chain([&layout.config]) {
            let path = format!("/v2/app/blobs/{digest}");
            let tries = asked.iter().filter(|asked| asked.path == path).count();
            let reply = reply_to(digest);
            // A small one may have been sent as a whole.
            if place < reply.head().len() + reply.body.len() {
                assert_eq!(tries, 2, "{path}, reset after {place} bytes");
            }
        }
        // Every blob is read and checked again.
        let id = image.id().to_string();
        let saved: Result<Vec<_>, _> = engine.save([id.as_str()]).await?.try_collect().await;
        saved?;
    }
    Ok(())
}
