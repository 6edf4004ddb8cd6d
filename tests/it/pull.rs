//! Images from a real registry and from layouts: what is fetched, what is checked, what is kept.

use std::collections::{BTreeMap, BTreeSet};
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

use crate::frame::{Check, Stop, fail};
use crate::support::embedder::Embedder;
use crate::support::image::{self, Files, Layout, busybox_files};
use crate::support::mock::{Mock, Reply, image_reply};
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
        c1_docker_media_types_and_a_choice_of_platforms,
        c1_damaged_manifests_and_oversized_blobs,
        c2_basic_authentication,
        c2_the_environment_is_not_read,
        c2_one_token_for_each_scope,
        c2_a_token_needs_the_right_password,
        c5_twenty_pulls_fetch_each_blob_once,
        c5_processes_fetch_each_blob_once,
        c8_never_asks_nobody,
        c8_always_asks_and_a_digest_is_final,
        e9_layers_are_settled_in_the_background,
        e9_what_was_not_settled_is_unpacked_anew,
        c11_zstd_gzip_and_plain_layers_are_the_same,
        c11_foreign_layers_stay_where_they_came_from,
        c13_a_layout_needs_no_network,
        d1_the_last_tag_takes_the_blobs_along,
        e8_a_layer_cannot_leave_its_root,
    ]
}

/// An engine as after a reboot.
async fn in_next_boot(root: &TempRoot, driver: &str) -> Result<Engine, Stop> {
    use longshore::storage::ownership::Ownership;
    use longshore::storage::snapshot::{overlayfs::Overlayfs, vfs::Vfs};
    let builder = Engine::builder(root.path()).snapshotter(driver.to_owned());
    let engine = match driver {
        "vfs" => builder.with_snapshotter("vfs", |cx| {
            Ok(Vfs::open(cx.dir(), cx.ownership().clone())?.in_boot("next"))
        }),
        _ => builder.with_snapshotter("overlayfs", |cx| {
            let user_xattr = !matches!(cx.ownership(), Ownership::Direct);
            Ok(Overlayfs::open(cx.dir(), user_xattr, cx.ownership().clone())?.in_boot("next"))
        }),
    };
    Ok(engine.open().await?)
}

/// Waits until all layers are known to be on the disk; the file that says so.
async fn settled(snapshots: &Path) -> Result<std::path::PathBuf, Stop> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let file = snapshots.join("s").join(boot.trim());
    let begun = std::time::Instant::now();
    while !file.exists() || fs::read_dir(snapshots.join("p"))?.count() > 0 {
        if begun.elapsed() > std::time::Duration::from_secs(60) {
            return fail("nobody put the layers on the disk");
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(file)
}

/// Empties a file in each layer that has it; whether there was one.
fn tear(snapshots: &Path, name: &str) -> Result<bool, Stop> {
    let mut torn = false;
    for tree in fs::read_dir(snapshots.join("l"))? {
        let file = tree?.path().join(name);
        if file.is_file() {
            fs::File::create(file)?;
            torn = true;
        }
    }
    Ok(torn)
}

/// What nobody waited for is done all the same, and a loss of power after it takes nothing away.
async fn e9_layers_are_settled_in_the_background() -> Check {
    let (engine, root) = engine().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let id = image.id().to_string();
    let snapshots = root.path().join("snapshots");
    let driver = engine.system().info().await?.storage_driver;
    settled(&snapshots).await?;
    drop((image, engine));
    // Whoever unpacked this layer anew would mend it.
    assert!(tear(&snapshots, "etc/passwd")?);
    let engine = in_next_boot(&root, &driver).await?;
    let spec = ContainerSpec::image(&id).command(["/bin/cat", "/etc/passwd"]);
    let output = engine.run(spec).output().await?;
    assert_eq!((output.status.code(), text(&output.stdout)), (0, String::new()));
    Ok(())
}

/// The power went before anybody said that the layers are on the disk: some of their files are empty.
async fn e9_what_was_not_settled_is_unpacked_anew() -> Check {
    let (engine, root) = engine().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let id = image.id().to_string();
    let snapshots = root.path().join("snapshots");
    let driver = engine.system().info().await?.storage_driver;
    let mark = settled(&snapshots).await?;
    drop((image, engine));
    fs::remove_file(mark)?;
    assert!(tear(&snapshots, "etc/passwd")? && tear(&snapshots, "bin/busybox")?);
    let engine = in_next_boot(&root, &driver).await?;
    let spec = ContainerSpec::image(&id).command(["/bin/cat", "/etc/passwd"]);
    let output = engine.run(spec).output().await?;
    assert!(text(&output.stdout).contains("root:"), "{}", text(&output.stderr));
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
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
    use ErrorKind::{DigestMismatch, Unavailable};
    let flip: fn(&mut Vec<u8>) = |blob| blob[5000] ^= 1;
    let cut: fn(&mut Vec<u8>) = |blob| blob.truncate(blob.len() / 2);
    let damages = [(flip, &[DigestMismatch][..]), (cut, &[DigestMismatch, Unavailable][..])];
    for (damage, expected) in damages {
        let registry = serve(layout)?;
        let mut blob = layout.blob(digest)?;
        damage(&mut blob);
        fs::write(registry.blob_file(digest), blob)?;
        let (engine, root) = engine().await?;
        let error = engine
            .pull(registry.reference("busybox:1"))
            .await
            .expect_err("a damaged blob");
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

/// Proxies, passwords and authorities are what the embedder hands in, whatever its environment says.
async fn c2_the_environment_is_not_read() -> Check {
    let layout = image::shared()?;
    let protected = |tls| {
        let options = Options { tls, basic_auth: !tls };
        Registry::with(options, &[(layout, "busybox", "1")])
    };
    let (plain, with_password, with_tls) = (serve(layout)?, protected(false)?, protected(true)?);
    let scratch = scratch::fresh("environment");
    // The base64 of sailor:knots.
    let login = "c2FpbG9yOmtub3Rz";
    let auths = json!({ "auths": { with_password.addr.to_string(): { "auth": login } } }).to_string();
    fs::write(scratch.path().join("config.json"), &auths)?;
    let dir = scratch.path().display();
    let mut environment = vec![
        "env".to_owned(),
        format!("HOME={dir}"),
        format!("DOCKER_CONFIG={dir}"),
        format!("REGISTRY_AUTH_FILE={dir}/config.json"),
        format!("DOCKER_AUTH_CONFIG={auths}"),
        format!("SSL_CERT_FILE={}", with_tls.authority().display()),
    ];
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        environment.push(format!("{name}=http://127.0.0.1:9"));
    }
    let environment: Vec<&str> = environment.iter().map(String::as_str).collect();
    let pulled = |registry: &Registry| -> Result<String, Stop> {
        let (root, reference) = (TempRoot::new(), registry.reference("busybox:1"));
        let arguments = [root.path().display().to_string(), reference, "/".to_owned()];
        let arguments = arguments.each_ref().map(String::as_str);
        let puller = Embedder::start_under(&environment, "pull-once", &arguments)?;
        let patience = std::time::Duration::from_secs(30);
        assert_eq!(puller.line(patience)?, "open");
        puller.line(patience)
    };
    assert_eq!(pulled(&plain)?, format!("pulled {}", layout.config));
    let refused = pulled(&with_password)?;
    assert!(
        refused.contains("credentials") || refused.contains("login"),
        "{refused}"
    );
    let untrusted = pulled(&with_tls)?;
    assert!(untrusted.contains("certificate"), "{untrusted}");
    Ok(())
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

async fn c8_always_asks_and_a_digest_is_final() -> Check {
    let (first, registry) = (image::shared()?, serve(image::shared()?)?);
    let (engine, _root) = engine().await?;
    let reference = registry.reference("busybox:1");
    let old = engine.pull(&reference).policy(Pull::Missing).await?;
    let (_dir, second) = three_layers()?;
    second.push(registry.addr, "busybox", "1")?;
    let pulled = async |policy| Ok::<_, Stop>(*engine.pull(&reference).policy(policy).await?.id());
    assert_eq!(&pulled(Pull::Missing).await?, old.id(), "it is not asked for again");
    let before = registry.requests();
    assert_eq!(
        pulled(Pull::Always).await?.to_string(),
        second.config,
        "the tag has moved"
    );
    assert!(registry.requests() > before);
    assert_eq!(pulled(Pull::Newer).await?.to_string(), second.config);
    // What a digest names cannot move.
    let pinned = registry.reference(&format!("busybox@{}", first.manifest));
    assert_eq!(engine.pull(&pinned).policy(Pull::Always).await?.id(), old.id());
    let before = registry.requests();
    for policy in [Pull::Missing, Pull::Never] {
        assert_eq!(engine.pull(&pinned).policy(policy).await?.id(), old.id());
    }
    assert_eq!(registry.requests(), before, "it is here");
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
    let of_the_first = blobs(root.path())?;
    let second = engine.pull(source(&two)).await?;
    assert!(blobs(root.path())?.len() > of_the_first.len());
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
    assert_eq!(
        blobs(root.path())?,
        of_the_first,
        "exactly what only the second had is gone"
    );
    runs(&engine, "first").await?;
    remove("first").await?;
    assert_eq!(blobs(root.path())?, BTreeSet::new(), "nobody needs them any more");
    assert!(engine.list_images(Filter::new()).await?.is_empty());
    Ok(())
}

/// The blobs of a root.
fn blobs(root: &Path) -> Result<BTreeSet<String>, Stop> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root.join("content/blobs/sha256"))? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// One image packed in three ways has the same layers, whichever came first.
async fn c11_zstd_gzip_and_plain_layers_are_the_same() -> Check {
    let dir = scratch::fresh("twins");
    let tar = image::busybox_files()?.file("twin", 0o640, "the same").tar()?;
    let plain = "application/vnd.oci.image.layer.v1.tar";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar)?;
    let packed = [
        ("zstd", format!("{plain}+zstd"), zstd::encode_all(&tar[..], 3)?),
        ("gzip", format!("{plain}+gzip"), gzip.finish()?),
        ("plain", plain.to_owned(), tar.clone()),
    ];
    let mut seen = Vec::new();
    for (name, media_type, blob) in packed {
        let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": { "packed": name } });
        let layers = vec![(image::digest(&tar), blob)];
        let layout = image::write_packed_as(&dir.path().join(name), &media_type, layers, &config)?;
        let registry = serve(&layout)?;
        let (engine, _root) = engine().await?;
        let image = engine.pull(registry.reference("busybox:1")).await?;
        let info = image.inspect().await?;
        // Not the files that each start writes into /etc: they have the time of the start.
        let script = "ls -lR /bin /etc/passwd /etc/secret /twin && cat /twin";
        let spec = ContainerSpec::image(image.id().to_string()).command(["sh", "-c", script]);
        let listing = engine.run(spec).output().await?;
        assert!(listing.status.success());
        // Bytes come back as they were packed.
        assert_eq!(info.layers[0].descriptor.media_type.0, media_type);
        seen.push((info.chain, info.layers[0].diff_id, listing.stdout));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    Ok(())
}

/// A layer that may not be distributed comes from the registry if that has it, and does not go out with a push.
async fn c11_foreign_layers_stay_where_they_came_from() -> Check {
    let dir = scratch::fresh("foreign");
    let tar = image::busybox_files()?.tar()?;
    let media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] });
    let layers = vec![(image::digest(&tar), tar)];
    let layout = image::write_packed_as(dir.path(), media_type, layers, &config)?;
    let registry = serve(&layout)?;
    let (engine, _root) = engine().await?;
    let name = registry.reference("busybox:1");
    engine.pull(&name).await?;
    runs(&engine, &name).await?;
    let other = registry.reference("elsewhere:1");
    engine.images().tag(&name, &other.parse()?).await?;
    let before = registry.blobs_received();
    // A registry may insist on having all blobs.
    match engine.push(&other).await {
        Ok(_) => {}
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound),
            "{}",
            error.report()
        ),
    }
    assert!(registry.blobs_received() - before <= 1, "the config alone");
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

/// An image of several layers, so that several requests are under way at once.
fn three_layers() -> Result<(tempfile::TempDir, Layout), Stop> {
    let dir = scratch::fresh("layout");
    let layer = |name: &str| Files::new().file(name, 0o644, name.repeat(5000));
    let layers = [busybox_files()?, layer("one"), layer("two")];
    let layout = image::write_layout(dir.path(), &layers, &json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] }))?;
    Ok((dir, layout))
}

/// A registry that wants a token for each repository; `password` is what its token service wants, if anything.
fn with_tokens(layout: Layout, password: Option<&'static str>) -> Result<Mock, Stop> {
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let denied = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}"#;
    let mock = Mock::serve(move |asked| {
        if asked.path == "/token" {
            if password.is_some_and(|password| asked.authorization.as_deref() != Some(password)) {
                return Reply::new(401, "application/json", denied);
            }
            let token = json!({ "token": format!("for {}", asked.query), "expires_in": 300 });
            return Reply::new(200, "application/json", token.to_string());
        }
        let repository = asked
            .path
            .trim_start_matches("/v2/")
            .split('/')
            .next()
            .unwrap_or_default();
        let scope = format!("repository:{repository}:pull");
        let carried = asked.authorization.as_deref().unwrap_or_default().replace("%3A", ":");
        if carried.starts_with("Bearer for ") && carried.contains(&scope) {
            return image_reply(&layout, asked);
        }
        let host = own.get().map(String::as_str).unwrap_or_default();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="mock",scope="{scope}""#);
        Reply::new(401, "application/json", denied).header("WWW-Authenticate", challenge)
    })?;
    let _ = address.set(mock.addr.to_string());
    Ok(mock)
}

fn token_queries(mock: &Mock) -> Vec<String> {
    let asked = mock.asked().into_iter().filter(|asked| asked.path == "/token");
    asked.map(|asked| asked.query.replace("%3A", ":")).collect()
}

async fn c2_one_token_for_each_scope() -> Check {
    let (_dir, layout) = three_layers()?;
    let mock = with_tokens(layout, None)?;
    let (engine, _root) = engine().await?;
    engine.pull(mock.reference("first:1")).await?;
    let queries = token_queries(&mock);
    assert_eq!(queries.len(), 1, "{queries:?}");
    assert!(queries[0].contains("scope=repository:first:pull"), "{queries:?}");
    assert!(queries[0].contains("service=mock"), "{queries:?}");
    runs(&engine, &mock.reference("first:1")).await?;
    let more = ["second:1", "second:2", "third:1"].map(|name| engine.pull(mock.reference(name)).into_future());
    for pull in futures_util::future::join_all(more).await {
        pull?;
    }
    let mut queries = token_queries(&mock);
    queries.sort();
    assert_eq!(queries.len(), 3, "one for each scope: {queries:?}");
    assert!(
        queries[1].contains("second") && queries[2].contains("third"),
        "{queries:?}"
    );
    Ok(())
}

async fn c2_a_token_needs_the_right_password() -> Check {
    let (_dir, layout) = three_layers()?;
    // Basic, and the base64 of sailor:knots.
    let mock = with_tokens(layout, Some("Basic c2FpbG9yOmtub3Rz"))?;
    let (engine, _root) = engine().await?;
    let reference = mock.reference("private:1");
    let stranger = engine.pull(&reference).await.expect_err("a password is needed");
    assert_eq!(stranger.kind(), &ErrorKind::Denied, "{}", stranger.report());
    let wrong = engine
        .pull(&reference)
        .credentials(Credentials::password(LOGIN.0, "wrong"))
        .await;
    assert_eq!(wrong.expect_err("a wrong password").kind(), &ErrorKind::Denied);
    assert!(engine.list_images(Filter::new()).await?.is_empty());
    let before = token_queries(&mock).len();
    engine
        .pull(&reference)
        .credentials(Credentials::password(LOGIN.0, LOGIN.1))
        .await?;
    assert_eq!(token_queries(&mock).len(), before + 1);
    Ok(())
}

async fn c1_docker_media_types_and_a_choice_of_platforms() -> Check {
    const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let (_dir, layout) = three_layers()?;
    let mut manifest: serde_json::Value = serde_json::from_slice(&layout.blob(&layout.manifest)?)?;
    manifest["mediaType"] = DOCKER.into();
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    for layer in manifest["layers"].as_array_mut().into_iter().flatten() {
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    }
    let manifest = serde_json::to_vec(&manifest)?;
    let entry = |architecture: &str, digest: &str| {
        json!({
            "mediaType": DOCKER, "digest": digest, "size": manifest.len(),
            "platform": { "architecture": architecture, "os": "linux" },
        })
    };
    let digest = image::digest(&manifest);
    let other = image::digest(b"another");
    let list = json!({
        "schemaVersion": 2, "mediaType": LIST,
        "manifests": [entry("s390x", &other), entry(image::architecture(), &digest)],
    });
    let config = layout.config.clone();
    let mock = Mock::serve(move |asked| {
        if asked.path.ends_with("/manifests/1") {
            return Reply::new(200, LIST, list.to_string());
        }
        if asked.path.ends_with(&digest) {
            return Reply::new(200, DOCKER, manifest.clone());
        }
        match asked.path.contains("/manifests/") {
            true => Reply::new(404, "application/json", "{}"),
            false => image_reply(&layout, asked),
        }
    })?;
    let (engine, _root) = engine().await?;
    let reference = mock.reference("app:1");
    assert_eq!(engine.pull(&reference).await?.id().to_string(), config);
    runs(&engine, &reference).await?;
    let missing = engine
        .pull(&reference)
        .platform("linux/riscv64".parse()?)
        .await
        .expect_err("no such platform");
    assert_eq!(missing.kind(), &ErrorKind::NotFound, "{}", missing.report());
    assert!(
        missing.report().contains("s390x"),
        "what there is: {}",
        missing.report()
    );
    assert_eq!(engine.list_images(Filter::new()).await?.len(), 1);
    Ok(())
}

/// A way to spoil an image: what is said about a manifest, and about a blob.
struct Damage {
    what: &'static str,
    by_digest: bool,
    manifest: fn(Vec<u8>) -> Vec<u8>,
    blob: fn(Vec<u8>) -> Vec<u8>,
    expected: &'static [ErrorKind],
}

async fn c1_damaged_manifests_and_oversized_blobs() -> Check {
    use ErrorKind::{DigestMismatch, InvalidArgument, Unavailable, UnsafeArchive};
    let same: fn(Vec<u8>) -> Vec<u8> = |bytes| bytes;
    let half: fn(Vec<u8>) -> Vec<u8> = |bytes| bytes[..bytes.len() / 2].to_vec();
    let padded: fn(Vec<u8>) -> Vec<u8> = |mut bytes| {
        bytes.extend_from_slice(&[0; 4096]);
        bytes
    };
    let endless: fn(Vec<u8>) -> Vec<u8> = |mut bytes| {
        bytes.resize(64 << 20, b' ');
        bytes
    };
    let damage = |what, by_digest, manifest, blob, expected| Damage {
        what,
        by_digest,
        manifest,
        blob,
        expected,
    };
    let refused: &[ErrorKind] = &[InvalidArgument, Unavailable];
    let damages = [
        damage("half a manifest", false, half, same, refused),
        damage("half a manifest by digest", true, half, same, &[DigestMismatch]),
        damage("another manifest by digest", true, padded, same, &[DigestMismatch]),
        damage(
            "an endless manifest",
            false,
            endless,
            same,
            &[InvalidArgument, Unavailable, DigestMismatch],
        ),
        damage(
            "half a blob",
            false,
            same,
            half,
            &[DigestMismatch, Unavailable, UnsafeArchive],
        ),
        damage("more than a blob", false, same, padded, &[DigestMismatch, Unavailable]),
        damage("an endless blob", false, same, endless, &[DigestMismatch, Unavailable]),
    ];
    for Damage {
        what,
        by_digest,
        manifest,
        blob,
        expected,
    } in damages
    {
        let (_dir, layout) = three_layers()?;
        let name = match by_digest {
            true => format!("app@{}", layout.manifest),
            false => "app:1".to_owned(),
        };
        let spoilt = layout.layers[1].0.clone();
        let mock = Mock::serve(move |asked| {
            let mut reply = image_reply(&layout, asked);
            if asked.path.contains("/manifests/") {
                reply.body = manifest(reply.body);
            } else if asked.path.ends_with(&spoilt) {
                reply.body = blob(reply.body);
            }
            reply
        })?;
        let (engine, root) = engine().await?;
        let pulled = engine.pull(mock.reference(&name)).await;
        let error = pulled.err().ok_or_else(|| Stop::Fail(format!("{what} was taken")))?;
        assert!(
            expected.contains(error.kind()),
            "{what}: {:?}: {}",
            error.kind(),
            error.report()
        );
        assert!(engine.list_images(Filter::new()).await?.is_empty(), "{what}");
        engine.reconcile().await?;
        let audit = engine.audit().await?;
        assert!(audit.is_clean(), "{what}: {:?}", audit.findings);
        let blobs = root.path().join("content/blobs/sha256");
        assert_eq!(fs::read_dir(&blobs)?.count(), 0, "{what}: something was kept");
        assert_eq!(
            fs::read_dir(root.path().join("content/ingest"))?.count(),
            0,
            "{what}: half a blob was kept"
        );
    }
    Ok(())
}

/// Pulls once, when it is told to by a file that appears.
pub fn role_pull(arguments: &[String]) -> i32 {
    let [root, reference, go] = arguments else { return 125 };
    crate::frame::block_on(async {
        let engine = match Engine::open(root.clone()).await {
            Ok(engine) => engine,
            Err(error) => {
                println!("error {}", error.report());
                return 1;
            }
        };
        println!("open");
        while !Path::new(go).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        match engine.pull(reference).await {
            Ok(image) => println!("pulled {}", image.id()),
            Err(error) => println!("error {}", error.report()),
        }
        0
    })
}

async fn c5_processes_fetch_each_blob_once() -> Check {
    let (_dir, layout) = three_layers()?;
    let registry = serve(&layout)?;
    let (root, signal) = (TempRoot::new(), scratch::fresh("signal"));
    let go = signal.path().join("go");
    let arguments = [
        root.path().to_path_buf(),
        registry.reference("busybox:1").into(),
        go.clone(),
    ];
    let arguments = arguments.map(|path| path.display().to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let pullers = (0..4)
        .map(|_| Embedder::start("pull-once", &arguments))
        .collect::<Result<Vec<_>, _>>()?;
    let patience = std::time::Duration::from_secs(30);
    for puller in &pullers {
        assert_eq!(puller.line(patience)?, "open");
    }
    fs::write(&go, "")?;
    for puller in pullers {
        assert_eq!(puller.line(patience)?, format!("pulled {}", layout.config));
        assert_eq!(puller.finish()?, 0);
    }
    for digest in layout.layers.iter().map(|(digest, _)| digest).chain([&layout.config]) {
        assert_eq!(registry.downloads(digest), 1, "{digest}");
    }
    Ok(())
}
