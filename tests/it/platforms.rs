//! One name for images of several platforms: held, chosen, sent and removed by platform; indexes that are made here.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use longshore::images::{ArchiveFormat, IndexEntry, IndexRequest, RemoveImageOptions};
use longshore::registry::Credentials;
use longshore::types::{Digest, Filter, Reference};
use longshore::{ContainerSpec, Engine, ErrorKind, Platform};
use serde_json::json;
use tempfile::TempDir;

use crate::frame::{Check, Stop, skip};
use crate::support::image::{self, Layout, MANIFEST, busybox_files};
use crate::support::mock::{Mock, Reply, image_reply};
use crate::support::registry::{LOGIN, Options, Registry};
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::world::{FORCE, source, text};
use crate::tests;

tests! { "platforms":
    kernel_async [
        d7_the_second_platform_comes_without_the_first,
        h25_an_image_of_another_processor_is_told_at_create,
        d7_a_platform_is_removed_alone,
        d7_all_platforms_are_pushed_and_saved,
        d8_an_index_of_two_tags_is_pushed,
        d8_what_makes_no_index_is_refused,
        d7_platforms_over_the_api,
        d7_what_a_registry_holds_is_seen_without_a_pull,
        d8_the_client_s_manifest_commands,
    ]
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Another processor, in whose name the host's programs run.
const OTHER: &str = "mips64le";

/// Busybox for this host and, by its label, for another one. Each says which it is.
struct Two {
    _dir: TempDir,
    host: Layout,
    other: Layout,
}

impl Two {
    fn make() -> Result<Self, Stop> {
        let dir = scratch::fresh("platforms");
        let of = |name: &str, architecture: &str| {
            let files = busybox_files()?.file("which", 0o644, name);
            let config = json!({ "Cmd": ["cat", "/which"], "Env": ["PATH=/bin"] });
            image::write_layout_for(&dir.path().join(name), architecture, &[files], &config)
        };
        let (host, other) = (of("host", image::architecture())?, of("other", OTHER)?);
        Ok(Self { _dir: dir, host, other })
    }

    fn index(&self) -> String {
        let entry = |layout: &Layout, architecture: &str| {
            let size = layout.blob(&layout.manifest).map_or(0, |bytes| bytes.len());
            json!({
                "mediaType": MANIFEST, "digest": layout.manifest, "size": size,
                "platform": { "architecture": architecture, "os": "linux" },
            })
        };
        let manifests = [entry(&self.host, image::architecture()), entry(&self.other, OTHER)];
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string()
    }

    /// A registry that has both under one tag.
    fn serve(self) -> Result<Mock, Stop> {
        let index = self.index();
        // In one piece: the directory must live as long as the registry.
        let both = std::sync::Arc::new(self);
        Ok(Mock::serve(move |asked| {
            if asked.path.ends_with("/manifests/1") {
                return Reply::new(200, INDEX, index.clone());
            }
            let last = asked.path.rsplit('/').next().unwrap_or_default();
            let layout = match both.other.blob(last).is_ok() {
                true => &both.other,
                false => &both.host,
            };
            image_reply(layout, asked)
        })?)
    }
}

async fn engine() -> Result<(Engine, TempRoot), Stop> {
    let root = TempRoot::new();
    Ok((Engine::open(root.path()).await?, root))
}

fn other() -> Result<Platform, Stop> {
    Ok(format!("linux/{OTHER}").parse()?)
}

async fn says(engine: &Engine, image: &str, platform: Option<Platform>) -> Result<String, Stop> {
    let mut spec = ContainerSpec::image(image);
    spec.platform = platform;
    let output = engine.run(spec).pull(longshore::Pull::Never).output().await?;
    Ok(text(&output.stdout))
}

async fn d7_the_second_platform_comes_without_the_first() -> Check {
    let two = Two::make()?;
    let (host_layer, other_layer) = (two.host.layers[0].0.clone(), two.other.layers[0].0.clone());
    let mock = two.serve()?;
    let name = mock.reference("app:1");
    let fetched = |digest: &str| mock.asked().iter().filter(|asked| asked.path.ends_with(digest)).count();
    let (engine, _root) = engine().await?;
    let first = engine.pull(&name).await?;
    assert_eq!((fetched(&host_layer), fetched(&other_layer)), (1, 0));
    let missing = says(&engine, &name, Some(other()?)).await;
    assert!(matches!(missing, Err(Stop::Fail(reason)) if reason.contains("is not here for")));
    let second = engine.pull(&name).platform(other()?).await?;
    assert_eq!((fetched(&host_layer), fetched(&other_layer)), (1, 1));
    // Each is there under the one name: listed, told apart, run.
    assert_ne!(first.id(), second.id());
    let listed = engine.list_images(Filter::new().with("reference", &name)).await?;
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|line| line.tags.len() == 1 && line.digests.len() == 1)
    );
    let variants = engine.images().variants(&name).await?;
    assert_eq!((variants[0].id, variants[1].id), (*first.id(), *second.id()));
    assert_eq!(engine.images().inspect(&name).await?.id, *first.id());
    assert_eq!(says(&engine, &name, None).await?, "host");
    assert_eq!(says(&engine, &name, Some(other()?)).await?, "other");
    let document = engine.images().document(&name).await?;
    assert_eq!(document.descriptor.media_type.0, INDEX);
    assert!(document.manifests.iter().all(|entry| entry.image.is_some()));
    // A pull of what is here asks nobody for a blob; another tag takes all platforms along.
    engine.pull(&name).platform(other()?).await?;
    assert_eq!((fetched(&host_layer), fetched(&other_layer)), (1, 1));
    let copy: Reference = "copy:1".parse()?;
    engine.images().tag(&name, &copy).await?;
    assert_eq!(engine.images().variants("copy:1").await?.len(), 2);
    Ok(())
}

/// Docker warns, too: such images are run nevertheless where what they say of themselves is wrong.
async fn h25_an_image_of_another_processor_is_told_at_create() -> Check {
    let mock = Two::make()?.serve()?;
    let name = mock.reference("app:1");
    let (engine, _root) = engine().await?;
    engine.pull(&name).await?;
    engine.pull(&name).platform(other()?).await?;
    let of = async |platform: Option<Platform>| -> Result<Vec<String>, Stop> {
        let mut spec = ContainerSpec::image(&name);
        spec.platform = platform;
        let container = engine.create(spec).await?;
        let warnings = container.warnings().to_vec();
        container.remove(FORCE).await?;
        Ok(warnings)
    };
    assert_eq!(of(None).await?, [] as [String; 0]);
    if std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-mips64el").exists() {
        return skip("this host runs programs of that processor");
    }
    let warnings = of(Some(other()?)).await?;
    let host = format!("linux/{}", image::architecture());
    let both = |warning: &String| warning.contains(&format!("linux/{OTHER}")) && warning.contains(&host);
    assert!(warnings.iter().any(both), "{warnings:?}");
    // One that is not here is refused, and those that are are named.
    let missing = ContainerSpec::image(&name);
    let nowhere: Platform = "linux/riscv64".parse()?;
    let refused = engine.create(missing.platform(nowhere)).await;
    let said = refused.expect_err("it is not here").report();
    assert!(said.contains("linux/riscv64") && said.contains(&host), "{said}");
    Ok(())
}

async fn d7_a_platform_is_removed_alone() -> Check {
    let mock = Two::make()?.serve()?;
    let name = mock.reference("app:1");
    let (engine, root) = engine().await?;
    engine.pull(&name).await?;
    let second = engine.pull(&name).platform(other()?).await?;
    let wrong = RemoveImageOptions::default().platform("linux/riscv64".parse()?);
    let error = engine
        .images()
        .remove(&name, wrong)
        .await
        .expect_err("no such platform");
    assert!(
        error.is_not_found() && error.report().contains(OTHER),
        "{}",
        error.report()
    );
    let only = RemoveImageOptions::default().platform(other()?);
    let removed = engine.images().remove(&name, only).await?;
    assert!(
        removed.contains(&longshore::images::Removed::Deleted(*second.id())),
        "{removed:?}"
    );
    assert!(second.inspect().await.is_err());
    assert_eq!(says(&engine, &name, None).await?, "host");
    // What is left goes with the name, the index too.
    engine.pull(&name).platform(other()?).await?;
    engine.images().remove(&name, RemoveImageOptions::default()).await?;
    assert!(engine.list_images(Filter::new()).await?.is_empty());
    let blobs = std::fs::read_dir(root.path().join("content/blobs/sha256"))?.count();
    assert_eq!(blobs, 0, "blobs of nobody");
    Ok(())
}

async fn d7_all_platforms_are_pushed_and_saved() -> Check {
    let mock = Two::make()?.serve()?;
    let name = mock.reference("app:1");
    let (engine, _root) = engine().await?;
    engine.pull(&name).await?;
    engine.pull(&name).platform(other()?).await?;
    let whole = engine.images().document(&name).await?;
    let registry = Registry::plain()?;
    let there: Reference = registry.reference("both/app:1").parse()?;
    engine.images().tag(&name, &there).await?;
    let pushed = engine.push(there.to_string()).await?;
    assert_eq!(pushed.manifest.digest, whole.descriptor.digest, "the index as it came");
    // One platform alone goes by its own manifest.
    let alone: Reference = registry.reference("one/app:1").parse()?;
    engine.images().tag(&name, &alone).await?;
    let one = engine.push(alone.to_string()).platform(other()?).await?;
    assert_eq!(one.manifest.digest, whole.manifests[1].descriptor.digest);
    let (fresh, _fresh_root) = self::engine().await?;
    fresh.pull(there.to_string()).platform(other()?).await?;
    fresh.pull(there.to_string()).await?;
    assert_eq!(says(&fresh, &there.to_string(), Some(other()?)).await?, "other");
    assert_eq!(says(&fresh, &there.to_string(), None).await?, "host");
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let archive: Vec<Bytes> = engine.save([name.as_str()]).format(format).await?.try_collect().await?;
        let (last, _last_root) = self::engine().await?;
        let pieces = archive.clone().into_iter().map(Ok);
        let loaded = last.load(stream::iter(pieces).boxed()).await?;
        assert_eq!(loaded.len(), 2, "{format:?}: {loaded:?}");
        assert_eq!(says(&last, &name, Some(other()?)).await?, "other");
        assert_eq!(says(&last, &name, None).await?, "host");
        let document = last.images().document(&name).await?;
        assert_eq!(document.descriptor.digest, whole.descriptor.digest);
        // And of the same archive one platform alone.
        let (last, _last_root) = self::engine().await?;
        let pieces = archive.into_iter().map(Ok);
        last.load(stream::iter(pieces).boxed()).platform(other()?).await?;
        assert_eq!(last.images().variants(&name).await?.len(), 1);
        assert_eq!(says(&last, &name, None).await?, "other");
    }
    Ok(())
}

async fn d8_an_index_of_two_tags_is_pushed() -> Check {
    let two = Two::make()?;
    let (engine, _root) = engine().await?;
    for (layout, tag) in [(&two.host, "app:host"), (&two.other, "app:other")] {
        let image = engine.pull(source(layout)).platform(layout_platform(layout)?).await?;
        image.tag(&tag.parse()?).await?;
    }
    let registry = Registry::plain()?;
    let name: Reference = registry.reference("made/app:1").parse()?;
    let entries = ["app:host", "app:other"].map(IndexEntry::new);
    let request = IndexRequest::new(name.clone(), entries).annotation("org.example.note", "both");
    let made = engine.images().make_index(request).await?;
    // Said again otherwise: another index in the place of the first.
    let entries = [
        IndexEntry::new("app:host"),
        IndexEntry::new("app:other")
            .platform(format!("linux/{OTHER}/v2").parse()?)
            .annotation("org.example.of", "the other"),
    ];
    let again = engine
        .images()
        .make_index(IndexRequest::new(name.clone(), entries))
        .await?;
    assert_ne!(made.digest, again.digest);
    let pushed = engine.push(name.to_string()).await?;
    assert_eq!(pushed.manifest.digest, again.digest);
    let (fresh, _fresh_root) = self::engine().await?;
    fresh.pull(name.to_string()).await?;
    let document = fresh.images().document(&name.to_string()).await?;
    assert_eq!(document.descriptor.digest, again.digest);
    let digests: Vec<_> = document
        .manifests
        .iter()
        .map(|entry| entry.descriptor.digest.to_string())
        .collect();
    assert_eq!(digests, [two.host.manifest.clone(), two.other.manifest.clone()]);
    assert_eq!(
        document.manifests[1].descriptor.annotations["org.example.of"],
        "the other"
    );
    assert!(document.manifests[0].image.is_some() && document.manifests[1].image.is_none());
    assert_eq!(says(&fresh, &name.to_string(), None).await?, "host");
    // The index goes, its images stay under the names that they had.
    engine
        .images()
        .remove(&name.to_string(), RemoveImageOptions::default())
        .await?;
    assert_eq!(says(&engine, "app:host", None).await?, "host");
    assert_eq!(engine.list_images(Filter::new()).await?.len(), 2);
    Ok(())
}

/// What a layout says that it is for.
fn layout_platform(layout: &Layout) -> Result<Platform, Stop> {
    let config: serde_json::Value = serde_json::from_slice(&layout.blob(&layout.config)?)?;
    let architecture = config["architecture"].as_str().unwrap_or_default();
    Ok(format!("linux/{architecture}").parse()?)
}

async fn d8_what_makes_no_index_is_refused() -> Check {
    let two = Two::make()?;
    let (engine, _root) = engine().await?;
    engine.pull(source(&two.host)).await?.tag(&"app:host".parse()?).await?;
    let made = |name: &str, entries: Vec<IndexEntry>| {
        let name: Result<Reference, _> = name.parse();
        let engine = engine.clone();
        async move { engine.images().make_index(IndexRequest::new(name?, entries)).await }
    };
    let twice = vec![IndexEntry::new("app:host"), IndexEntry::new("app:host")];
    for (name, entries, kind) in [
        ("list:1", Vec::new(), ErrorKind::InvalidArgument),
        ("list:1", twice, ErrorKind::InvalidArgument),
        ("list:1", vec![IndexEntry::new("nobody")], ErrorKind::NotFound),
    ] {
        let error = made(name, entries).await.expect_err("no index");
        assert_eq!(error.kind(), &kind, "{}", error.report());
    }
    assert!(engine.images().inspect("list:1").await.is_err());
    Ok(())
}

/// In this process and over the API: an index, an image behind a password, and what is not there.
async fn d7_what_a_registry_holds_is_seen_without_a_pull() -> Check {
    let two = Two::make()?;
    let (index, host_manifest) = (Digest::of(two.index().as_bytes()), two.host.manifest.clone());
    let options = Options {
        basic_auth: true,
        ..Options::default()
    };
    let locked = Registry::with(options, &[(&two.other, "app", "1")])?;
    let mock = two.serve()?;
    let (engine, root) = engine().await?;
    let path = root.path().join("api.sock");
    let server = longshore::api::Server::new(engine.clone())
        .unix(&path, longshore::api::Mode(0o600))
        .bind()
        .await?;
    let serving = tokio::spawn(server.serve_until(std::future::pending::<()>()));
    let far = Engine::connect(format!("unix://{}", path.display())).await?;
    for engine in [&engine, &far] {
        let ask = async |name: String, credentials| {
            let name = name.parse().expect("a reference");
            engine.images().distribution(&name, credentials).await
        };
        let both = ask(mock.reference("app:1"), Credentials::Anonymous).await?;
        assert_eq!(both.descriptor.digest, index);
        assert_eq!(both.descriptor.media_type.0, INDEX);
        assert_eq!(both.platforms, [Platform::host(), other()?]);
        let pinned = mock.reference(&format!("app@{host_manifest}"));
        let one = ask(pinned, Credentials::Anonymous).await?;
        assert_eq!(one.descriptor.digest.to_string(), host_manifest);
        assert_eq!(one.platforms, [Platform::host()], "as its config says");
        let login = Credentials::password(LOGIN.0, LOGIN.1);
        let behind = ask(locked.reference("app:1"), login.clone()).await?;
        assert_eq!(behind.platforms, [other()?]);
        let denied = ask(locked.reference("app:1"), Credentials::password(LOGIN.0, "wrong")).await;
        assert_eq!(denied.expect_err("the password is wrong").kind(), &ErrorKind::Denied);
        let missing = ask(locked.reference("app:2"), login).await.expect_err("no such tag");
        assert!(missing.is_not_found(), "{}", missing.report());
    }
    let layers = mock
        .asked()
        .iter()
        .filter(|asked| asked.path.contains("/blobs/"))
        .count();
    assert_eq!(layers, 2, "a config for each engine, and nothing else");
    assert!(engine.list_images(Filter::new()).await?.is_empty());
    serving.abort();
    let _ = serving.await;
    Ok(())
}

/// What the Engine API says of platforms, by hand and through an engine elsewhere.
async fn d7_platforms_over_the_api() -> Check {
    let mock = Two::make()?.serve()?;
    let name = mock.reference("app:1");
    let (engine, root) = engine().await?;
    let first = *engine.pull(&name).await?.id();
    let path = root.path().join("api.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = longshore::api::Server::new(engine.clone())
        .unix(&path, longshore::api::Mode(0o600))
        .bind()
        .await?;
    let serving = tokio::spawn(server.serve_until(async {
        let _ = stopped.await;
    }));
    let far = Engine::connect(format!("unix://{}", path.display())).await?;
    // The other platform comes over the API too.
    let second = *far.pull(&name).platform(other()?).await?.id();
    let ids = |images: Vec<longshore::images::ImageInfo>| images.into_iter().map(|image| image.id).collect::<Vec<_>>();
    let near = ids(engine.images().variants(&name).await?);
    assert_eq!(near.len(), 2);
    assert_eq!(near[0], first);
    let mut told = ids(far.images().variants(&name).await?);
    told.sort();
    let mut here = near.clone();
    here.sort();
    assert_eq!(told, here);
    // An index itself is not told of by the API: that is said.
    let error = far
        .images()
        .document(&name)
        .await
        .expect_err("the API has no such thing");
    assert!(
        matches!(error.kind(), ErrorKind::Unsupported { .. }),
        "{}",
        error.report()
    );
    let entries = [IndexEntry::new(&name)];
    let error = far
        .images()
        .make_index(IndexRequest::new("made:1".parse()?, entries))
        .await;
    assert!(matches!(
        error.expect_err("nor this").kind(),
        ErrorKind::Unsupported { .. }
    ));
    // By hand, as clients ask.
    let ask = async |method: &str, target: String| -> Result<(u16, serde_json::Value), Stop> {
        let (path, method) = (path.clone(), method.to_owned());
        let answer =
            tokio::task::spawn_blocking(move || crate::support::wire::ask(&path, &method, &target, "")).await??;
        Ok((answer.code, answer.json()?))
    };
    let image = format!("/v1.52/images/{name}");
    let wanted = format!("%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22{OTHER}%22%7D");
    let (status, told) = ask("GET", format!("{image}/json?platform={wanted}")).await?;
    assert_eq!((status, told["Architecture"].as_str()), (200, Some(OTHER)), "{told}");
    let (status, told) = ask("GET", format!("{image}/json?manifests=1")).await?;
    assert_eq!(status, 200);
    let listed = told["Manifests"].as_array().cloned().unwrap_or_default();
    assert_eq!(listed.len(), 2, "{told}");
    assert!(
        listed
            .iter()
            .all(|one| one["Available"] == true && one["Kind"] == "image"),
        "{told}"
    );
    let (status, told) = ask("GET", format!("{image}/json?manifests=1&platform={wanted}")).await?;
    assert_eq!(status, 400, "{told}");
    for (platform, expected) in [(String::new(), first), (format!("?platform={wanted}"), second)] {
        let (status, told) = ask("GET", format!("{image}/history{platform}")).await?;
        assert_eq!(
            (status, told[0]["Id"].as_str()),
            (200, Some(expected.to_string().as_str())),
            "{told}"
        );
    }
    let nobody = wanted.replace(OTHER, "riscv64");
    for target in [
        format!("{image}/history?platform={nobody}"),
        format!("{image}/json?platform={nobody}"),
    ] {
        assert_eq!(ask("GET", target).await?.0, 404);
    }
    assert_eq!(
        ask("GET", format!("{image}/history?platform=%7B%22os%22%3A7%7D"))
            .await?
            .0,
        400
    );
    // One platform goes, the other stays.
    let (status, told) = ask("DELETE", format!("{image}?platforms={wanted}")).await?;
    assert_eq!(status, 200, "{told}");
    assert_eq!(ids(engine.images().variants(&name).await?), [first]);
    drop((far, stop));
    serving.await?;
    Ok(())
}

/// The client's commands for indexes.
async fn d8_the_client_s_manifest_commands() -> Check {
    let program = client()?;
    let two = Two::make()?;
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    for (layout, name) in [(&two.host, "host:1"), (&two.other, "other:1")] {
        engine.pull(source(layout)).await?.tag(&name.parse()?).await?;
    }
    let run = async |words: &[&str]| -> Result<String, Stop> {
        let mut command = std::process::Command::new(&program);
        command.arg("--root").arg(root.path()).args(words);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(Stop::Fail(format!("{}: {}", output.status, text(&output.stderr)))),
        }
    };
    run(&["manifest", "create", "both:1", "host:1"]).await?;
    let said = run(&["manifest", "create", "--amend", "both:1", "other:1"]).await?;
    assert!(said.contains("both:1"), "{said}");
    run(&[
        "manifest",
        "annotate",
        "--os",
        "linux",
        "--annotation",
        "a=b",
        "both:1",
        "other:1",
    ])
    .await?;
    let index: serde_json::Value = serde_json::from_str(&run(&["manifest", "inspect", "both:1"]).await?)?;
    assert_eq!(index["mediaType"], INDEX, "{index}");
    let entries = index["manifests"].as_array().cloned().unwrap_or_default();
    let digests: Vec<_> = entries.iter().filter_map(|entry| entry["digest"].as_str()).collect();
    assert_eq!(digests, [two.host.manifest.as_str(), two.other.manifest.as_str()]);
    assert_eq!(entries[1]["platform"], json!({ "architecture": OTHER, "os": "linux" }));
    assert_eq!(entries[1]["annotations"]["a"], "b");
    let registry = Registry::plain()?;
    let there = registry.reference("both:1");
    run(&["tag", "both:1", &there]).await?;
    run(&["push", &there]).await?;
    let (fresh, _fresh_root) = self::engine().await?;
    fresh.pull(&there).platform(other()?).await?;
    fresh.pull(&there).await?;
    assert_eq!(fresh.images().variants(&there).await?.len(), 2);
    run(&["manifest", "rm", "both:1"]).await?;
    let gone = run(&["manifest", "inspect", "both:1"]).await;
    assert!(matches!(gone, Err(Stop::Fail(reason)) if reason.contains("both:1")));
    assert!(run(&["manifest", "inspect", "host:1"]).await?.contains(MANIFEST));
    Ok(())
}

/// Our client, where cargo puts it.
pub fn client() -> Result<std::path::PathBuf, Stop> {
    let here = std::env::current_exe()?;
    let mut places = here.ancestors().skip(1).take(2).map(|dir| dir.join("longshore"));
    let found = places.find(|file| file.is_file());
    found.map_or_else(
        || crate::frame::skip("the client is not built: cargo build --package longshore-cli"),
        Ok,
    )
}
