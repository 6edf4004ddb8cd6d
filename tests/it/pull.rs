//! Images from a real registry and from layouts: what is fetched, what is checked, what is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use longshore::images::{Pull, RemoveImageOptions};
use longshore::progress::ProgressEvent;
use longshore::registry::Credentials;
use longshore::registry::http::{HttpOptions, HttpRegistries};
use longshore::types::{Filter, Reference};
use longshore::{ContainerSpec, Engine, ErrorKind};
use serde_json::json;

use crate::frame::{Check, Stop};
use crate::support::image::{self, Files, Layout, busybox_files};
use crate::support::registry::{LOGIN, Options, Registry};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::world::{source, text};
use crate::tests;

tests! { "pull":
    kernel_async [
        a8_progress_adds_up,
        c1_by_tag_and_by_digest,
        c1_damaged_blobs_are_refused,
        c1_what_is_not_there,
        c1_a_custom_authority_over_tls,
        c2_basic_authentication,
        c5_twenty_pulls_fetch_each_blob_once,
        c8_never_asks_nobody,
        c13_a_layout_needs_no_network,
        d1_the_last_tag_takes_the_blobs_along,
        e8_a_layer_cannot_leave_its_root,
    ]
}

async fn engine() -> Result<(Engine, TempRoot), Stop> {
    let root = TempRoot::new();
    Ok((Engine::open(root.path()).await?, root))
}

fn serve(layout: &Layout) -> Result<Registry, Stop> {
    Registry::with(Options::default(), &[(layout, "busybox", "1")])
}

async fn runs(engine: &Engine, image: &str) -> Check {
    let output = engine
        .run(ContainerSpec::image(image).command(["echo", "runs"]))
        .output()
        .await?;
    assert_eq!(text(&output.stdout), "runs");
    Ok(())
}

async fn a8_progress_adds_up() -> Check {
    let layout = image::shared()?;
    let registry = serve(layout)?;
    let (engine, _root) = engine().await?;
    let events: Arc<Mutex<Vec<ProgressEvent>>> = Arc::default();
    let sink = Arc::clone(&events);
    engine
        .pull(registry.reference("busybox:1"))
        .progress(move |event| sink.lock().expect("not poisoned").push(event))
        .await?;
    let events = events.lock().expect("not poisoned");
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    let mut ends = 0;
    for event in events.iter() {
        match event {
            ProgressEvent::Downloaded {
                digest, bytes: more, ..
            } => *bytes.entry(digest.to_string()).or_default() += more,
            ProgressEvent::Exists { digest, size } => *bytes.entry(digest.to_string()).or_default() += size,
            ProgressEvent::Done { .. } | ProgressEvent::Failed { .. } => ends += 1,
            ProgressEvent::Resolved { total_bytes, .. } => assert_eq!(*total_bytes, layout.total_bytes()?),
            _ => {}
        }
    }
    assert_eq!(ends, 1, "{events:?}");
    assert!(matches!(events.last(), Some(ProgressEvent::Done { .. })), "{events:?}");
    assert_eq!(bytes.values().sum::<u64>(), layout.total_bytes()?, "{events:?}");
    Ok(())
}

async fn c1_by_tag_and_by_digest() -> Check {
    let layout = image::shared()?;
    let registry = serve(layout)?;
    let (engine, _root) = engine().await?;
    let by_tag = engine.pull(registry.reference("busybox:1")).await?;
    assert_eq!(by_tag.id().to_string(), layout.config);
    let by_digest = engine
        .pull(registry.reference(&format!("busybox@{}", layout.manifest)))
        .await?;
    assert_eq!(by_digest.id(), by_tag.id());
    runs(&engine, &registry.reference("busybox:1")).await
}

async fn c1_damaged_blobs_are_refused() -> Check {
    let layout = image::shared()?;
    let digest = &layout.layers[0].0;
    let damages: [fn(&mut Vec<u8>); 2] = [|blob| blob[5000] ^= 1, |blob| blob.truncate(blob.len() / 2)];
    for damage in damages {
        let registry = serve(layout)?;
        let mut blob = layout.blob(digest)?;
        damage(&mut blob);
        fs::write(registry.blob_file(digest), blob)?;
        let (engine, root) = engine().await?;
        let error = engine
            .pull(registry.reference("busybox:1"))
            .await
            .expect_err("a damaged blob");
        let expected = [
            ErrorKind::DigestMismatch,
            ErrorKind::UnsafeArchive,
            ErrorKind::Unavailable,
        ];
        assert!(expected.contains(error.kind()), "{}", error.report());
        assert!(engine.list_images(Filter::new()).await?.is_empty());
        assert!(!holds(root.path(), digest), "a damaged blob was kept");
    }
    Ok(())
}

/// Whether a file named by the digest is anywhere below.
fn holds(dir: &Path, digest: &str) -> bool {
    let hex = digest.trim_start_matches("sha256:");
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        entry.file_name().to_string_lossy() == hex && entry.path().is_file()
            || entry.file_type().is_ok_and(|kind| kind.is_dir()) && holds(&entry.path(), digest)
    })
}

async fn c1_what_is_not_there() -> Check {
    let registry = serve(image::shared()?)?;
    let (engine, _root) = engine().await?;
    let tag = engine
        .pull(registry.reference("busybox:2"))
        .await
        .expect_err("no such tag");
    assert_eq!(tag.kind(), &ErrorKind::NotFound, "{}", tag.report());
    let repository = engine
        .pull(registry.reference("nothing:1"))
        .await
        .expect_err("no such repository");
    assert!(
        matches!(repository.kind(), ErrorKind::NotFound | ErrorKind::Denied),
        "{}",
        repository.report()
    );
    let nobody = crate::support::registry::free_port()?;
    let host = engine
        .pull(format!("{nobody}/busybox:1"))
        .await
        .expect_err("no such host");
    assert_eq!(host.kind(), &ErrorKind::Unavailable, "{}", host.report());
    Ok(())
}

async fn c1_a_custom_authority_over_tls() -> Check {
    let options = Options {
        tls: true,
        basic_auth: true,
    };
    let registry = Registry::with(options, &[(image::shared()?, "busybox", "1")])?;
    let reference = registry.reference("busybox:1");
    let login = || Credentials::password(LOGIN.0, LOGIN.1);
    let (stranger, _root) = engine().await?;
    let untrusted = stranger
        .pull(&reference)
        .credentials(login())
        .await
        .expect_err("an unknown authority");
    assert!(
        matches!(untrusted.kind(), ErrorKind::Unavailable | ErrorKind::Denied),
        "{}",
        untrusted.report()
    );
    let http = HttpOptions::new()
        .ca_pem(fs::read(registry.authority())?)
        .credentials(login());
    let registries = HttpRegistries::new(HttpOptions::new()).with_host(registry.addr.to_string(), http);
    let root = TempRoot::new();
    let engine = Engine::builder(root.path())
        .registries(Arc::new(registries))
        .open()
        .await?;
    engine.pull(&reference).await?;
    runs(&engine, &reference).await
}

async fn c2_basic_authentication() -> Check {
    let layout = image::shared()?;
    let registry = Registry::with(
        Options {
            basic_auth: true,
            tls: false,
        },
        &[(layout, "busybox", "1")],
    )?;
    let (engine, _root) = engine().await?;
    let reference = registry.reference("busybox:1");
    let stranger = engine.pull(&reference).await.expect_err("a password is needed");
    assert_eq!(stranger.kind(), &ErrorKind::Denied, "{}", stranger.report());
    let wrong = engine
        .pull(&reference)
        .credentials(Credentials::password(LOGIN.0, "wrong"))
        .await;
    assert_eq!(wrong.expect_err("a wrong password").kind(), &ErrorKind::Denied);
    engine
        .pull(&reference)
        .credentials(Credentials::password(LOGIN.0, LOGIN.1))
        .await?;
    runs(&engine, &reference).await
}

async fn c5_twenty_pulls_fetch_each_blob_once() -> Check {
    let layout = image::shared()?;
    let registry = serve(layout)?;
    let (engine, _root) = engine().await?;
    let pulls = (0..20).map(|_| engine.pull(registry.reference("busybox:1")).into_future());
    for pull in futures_util::future::join_all(pulls).await {
        pull?;
    }
    for digest in [&layout.layers[0].0, &layout.config] {
        assert_eq!(registry.downloads(digest), 1, "{digest}");
    }
    Ok(())
}

async fn c8_never_asks_nobody() -> Check {
    let registry = serve(image::shared()?)?;
    let (engine, _root) = engine().await?;
    let reference = registry.reference("busybox:1");
    let before = registry.requests();
    let absent = engine
        .pull(&reference)
        .policy(Pull::Never)
        .await
        .expect_err("it is not here");
    assert_eq!(absent.kind(), &ErrorKind::NotFound, "{}", absent.report());
    assert_eq!(registry.requests(), before);
    engine.pull(&reference).policy(Pull::Missing).await?;
    let before = registry.requests();
    engine.pull(&reference).policy(Pull::Missing).await?;
    engine.pull(&reference).policy(Pull::Never).await?;
    assert_eq!(registry.requests(), before, "what is here is not asked for again");
    Ok(())
}

async fn c13_a_layout_needs_no_network() -> Check {
    let (engine, _root) = engine().await?;
    let image = source(image::shared()?);
    runs(&engine, &image).await
}

async fn d1_the_last_tag_takes_the_blobs_along() -> Check {
    let (engine, root) = engine().await?;
    let dir = scratch::fresh("layouts");
    let extra = Files::new().file("extra", 0o644, "only in the second image");
    let one = image::shared()?;
    let settings = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] });
    let two = image::write_layout(dir.path(), &[busybox_files()?, extra], &settings)?;
    let first = engine.pull(source(one)).await?;
    let second = engine.pull(source(&two)).await?;
    assert_eq!(one.layers[0], two.layers[0], "they share a layer");
    for (image, name) in [(&first, "first"), (&first, "other"), (&second, "second")] {
        image.tag(&name.parse::<Reference>()?).await?;
    }
    let remove = |name: &'static str| {
        let images = Arc::clone(engine.images());
        async move { images.remove(name, RemoveImageOptions::default()).await }
    };
    // The name that both layouts gave.
    remove("latest").await?;
    remove("other").await?;
    runs(&engine, "first").await?;
    remove("second").await?;
    assert!(
        !holds(root.path(), &two.layers[1].0),
        "the layer of the removed image alone is gone"
    );
    assert!(holds(root.path(), &two.layers[0].0) || engine.image("first").await.is_ok());
    runs(&engine, "first").await?;
    remove("first").await?;
    assert!(!holds(root.path(), &one.layers[0].0), "nobody needs it any more");
    assert!(engine.list_images(Filter::new()).await?.is_empty());
    Ok(())
}

async fn e8_a_layer_cannot_leave_its_root() -> Check {
    let (engine, root) = engine().await?;
    let outside = root.path().parent().expect("a parent").join("escaped");
    let evil = [
        Files::new()
            .link("out", root.path().parent().expect("a parent").display().to_string())
            .file("out/escaped", 0o644, "x"),
        Files::new()
            .link("up", "../../../../../../../../../../tmp")
            .file("up/longshore-escaped", 0o644, "x"),
    ];
    for files in evil {
        let dir = scratch::fresh("layout");
        let layout = image::write_layout(dir.path(), &[busybox_files()?, files], &json!({ "Cmd": ["sh"] }))?;
        let pulled = engine.pull(source(&layout)).await;
        assert!(
            !outside.exists() && !Path::new("/tmp/longshore-escaped").exists(),
            "a file got out"
        );
        if let Err(error) = pulled {
            assert_eq!(error.kind(), &ErrorKind::UnsafeArchive, "{}", error.report());
        }
    }
    Ok(())
}
