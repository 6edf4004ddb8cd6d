//! Where builds put what they make: layouts, archives, registries, several platforms; and caches that are elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use longshore::build::{
    BuildOutput, BuildResult, BuildSpec, CacheMode, CacheSource, CacheTarget, ContextSource, PruneCache, Secret,
    StepFailure,
};
use longshore::containers::CommitOptions;
use longshore::images::{ArchiveFormat, Credentials};
use longshore::progress::BuildEvent;
use longshore::types::{Digest, Platform, Reference, reader_stream};
use longshore::{ContainerSpec, Engine, ErrorKind, NetworkMode, ProgressEvent, Pull};
use serde_json::{Value, json};

use crate::build::{cleared, context, result, spec, world};
use crate::cancel::{Scene, each_drop, under};
use crate::frame::{Check, Stop, block_on, fail};
use crate::longshored::Daemon;
use crate::support::image::Files;
use crate::support::registry::Registry;
use crate::support::root::TempRoot;
use crate::support::scratch;
use crate::support::wire;
use crate::support::world::{World, text};
use crate::tests;

tests! { "build_out":
    kernel [
        f16_the_client_puts_it_where_it_is_told,
        f15_the_api_looks_into_images,
        f18_an_engine_elsewhere_builds,
    ]
    kernel_async [
        f16_images_go_into_layouts_and_archives,
        f16_an_image_is_pushed_as_it_is_built,
        f15_a_directory_keeps_what_is_known,
        f15_a_cache_is_no_further_believed_than_its_digests,
        f15_a_registry_keeps_what_is_known,
        f15_an_image_has_its_cache_in_it,
        f17_several_platforms_are_one_index,
        f17_what_nobody_can_run_is_told_before_anything_runs,
        f12_what_a_command_prints_is_covered,
        f11_caches_are_pruned_unless_they_are_in_use,
        a9_a_dropped_build_with_outputs,
        f20_an_attestation_is_a_warning,
        f19_p16_verify_names_the_first_file_that_differs,
    ]
}

const TEXT: &str = "FROM busybox\nWORKDIR /w\nCOPY x ./\nRUN head -c 16 /dev/urandom > once && cat x > said\nCMD [\"cat\", \"/w/said\"]\n";

async fn engine() -> Result<(Engine, TempRoot), Stop> {
    let root = TempRoot::new();
    Ok((Engine::open(root.path()).await?, root))
}

/// What an image's own command prints, in another engine.
pub async fn runs(engine: &Engine, image: &str) -> Result<String, Stop> {
    let spec = ContainerSpec::image(image).network(NetworkMode::None);
    let output = engine.run(spec).pull(Pull::Never).output().await?;
    Ok(text(&output.stdout))
}

fn json_of(path: &Path) -> Result<Value, Stop> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

async fn f16_images_go_into_layouts_and_archives() -> Check {
    let world = world().await?;
    let (dir, out) = (context(&[("x", "of a build")])?, scratch::fresh("out"));
    let (layout, docker, oci) = (
        out.path().join("a/layout"),
        out.path().join("docker.tar"),
        out.path().join("oci.tar"),
    );
    fs::write(&docker, "an older one")?;
    let spec = || spec(dir.path()).dockerfile_text(TEXT);
    let asked = spec()
        .tag("made:1")
        .tag("made:2")
        .output(BuildOutput::Layout(layout.clone()))
        .output(BuildOutput::Archive(docker.clone(), ArchiveFormat::Docker))
        .output(BuildOutput::Archive(oci.clone(), ArchiveFormat::Oci));
    let built = result(&world.engine, asked).await?;
    let missing = world.engine.images().inspect(&built.id.to_string()).await;
    assert!(missing.unwrap_err().is_not_found(), "the engine lists nothing");
    let Some(descriptor) = &built.descriptor else {
        return fail("no manifest");
    };
    let index = json_of(&layout.join("index.json"))?;
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["annotations"]["org.opencontainers.image.ref.name"].as_str())
        .collect();
    assert_eq!(names, ["docker.io/library/made:1", "docker.io/library/made:2"]);
    assert_eq!(index["manifests"][0]["digest"], json!(descriptor.digest));
    // The very image, wherever it goes.
    let (other, _root) = engine().await?;
    let pulled = other
        .pull(format!("oci:{}:docker.io/library/made:2", layout.display()))
        .await?;
    assert_eq!(*pulled.id(), built.id);
    assert_eq!(runs(&other, &built.id.to_string()).await?, "of a build");
    for archive in [&docker, &oci] {
        let (other, _root) = engine().await?;
        let loaded = other.load(reader_stream(fs::File::open(archive)?)?).await?;
        assert_eq!(loaded.len(), 1);
        let names: Vec<String> = loaded[0].tags.iter().map(Reference::familiar).collect();
        assert_eq!((loaded[0].id, names.join(" ")), (built.id, "made:1 made:2".into()));
        assert_eq!(runs(&other, "made:1").await?, "of a build");
        other.close().await;
    }
    assert_eq!(fs::read_dir(out.path())?.count(), 3, "nothing half-written");
    // Without a name, and beside the engine's own.
    let (plain, listed) = (out.path().join("plain"), spec().output(BuildOutput::Image));
    let both = result(&world.engine, listed.output(BuildOutput::Layout(plain.clone()))).await?;
    assert_eq!((both.id, both.cached), (built.id, 3));
    world.engine.images().inspect(&both.id.to_string()).await?;
    let pulled = other.pull(format!("oci:{}", plain.display())).await?;
    assert_eq!(*pulled.id(), built.id);
    // A place that is none: an error, and no image.
    let nowhere = spec()
        .tag("never")
        .output(BuildOutput::Layout(out.path().join("docker.tar/x")));
    assert!(result(&world.engine, nowhere.output(BuildOutput::Image)).await.is_err());
    assert!(world.engine.images().inspect("never").await.unwrap_err().is_not_found());
    other.close().await;
    Ok(())
}

async fn f16_an_image_is_pushed_as_it_is_built() -> Check {
    let registry = Registry::plain()?;
    let world = world().await?;
    let dir = context(&[("x", "pushed")])?;
    let spec = || spec(dir.path()).dockerfile_text(TEXT).output(BuildOutput::Push);
    let (one, other) = (registry.reference("app:1"), registry.reference("again:2"));
    let built = result(&world.engine, spec().tag(&one).tag(&other)).await?;
    let Some(descriptor) = &built.descriptor else {
        return fail("no manifest");
    };
    let images = world.engine.images();
    for name in [&one, &other] {
        let held = images.distribution(&name.parse()?, Credentials::Anonymous).await?;
        assert_eq!(held.descriptor.digest, descriptor.digest);
    }
    let metadata = built.metadata();
    assert_eq!(metadata["containerimage.digest"], json!(descriptor.digest));
    assert_eq!(metadata["image.name"], format!("{one},{other}"));
    let here = images.inspect(&one).await?;
    assert_eq!((here.id, here.manifest.digest), (built.id, descriptor.digest));
    assert!(
        here.layers
            .iter()
            .all(|layer| layer.descriptor.media_type.0.ends_with("+gzip")),
        "a registry gets layers compressed"
    );
    let (elsewhere, _root) = engine().await?;
    assert_eq!(*elsewhere.pull(&one).await?.id(), built.id);
    assert_eq!(runs(&elsewhere, &one).await?, "pushed");
    elsewhere.close().await;
    // The same again is the same manifest, and nothing is sent.
    let sent = registry.uploads();
    let again = result(&world.engine, spec().tag(&one)).await?;
    assert_eq!((&again.descriptor, registry.uploads()), (&built.descriptor, sent));
    let nameless = result(&world.engine, spec()).await.unwrap_err();
    assert_eq!(nameless.kind(), &ErrorKind::InvalidArgument, "{}", nameless.report());
    drop(registry);
    let lost = result(&world.engine, spec().tag(&one)).await.unwrap_err();
    assert_eq!(lost.kind(), &ErrorKind::Unavailable, "{}", lost.report());
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

/// An engine on a root of its own that knows nothing of earlier builds.
async fn fresh() -> Result<World, Stop> {
    let world = World::alone().await?;
    world.image.tag(&"busybox:latest".parse()?).await?;
    Ok(world)
}

const STAGES: &str = "FROM busybox AS made\n\
    RUN head -c 16 /dev/urandom > /once\n\
    FROM busybox\n\
    COPY --from=made /once /copied\n\
    COPY x /x\n\
    RUN head -c 100000 /dev/urandom > /other\n\
    RUN true\n";

fn directory(place: &Path) -> CacheSource {
    CacheSource::Directory(place.to_path_buf(), None)
}

async fn f15_a_directory_keeps_what_is_known() -> Check {
    let (dir, out) = (context(&[("x", "1")])?, scratch::fresh("cache"));
    let place = out.path().join("cache");
    let spec = || spec(dir.path()).dockerfile_text(STAGES);
    let target = |mode| CacheTarget::Directory(place.clone(), None, mode);
    let first = fresh().await?;
    let made = result(&first.engine, spec().cache_to(target(CacheMode::Max))).await?;
    assert_eq!((made.steps, made.cached), (5, 0));
    // Another root: not a single command runs.
    let second = fresh().await?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let building = second.engine.build(spec().cache_from(directory(&place)));
    let known = building
        .progress(move |event| listener.lock().unwrap().push(event))
        .result()
        .await?;
    assert_eq!(
        (known.id, known.steps, known.cached),
        (made.id, 5, 5),
        "{:?}",
        known.warnings
    );
    assert_eq!(known.descriptor, made.descriptor, "to the byte");
    assert_eq!(known.warnings, [""; 0]);
    let ended = told.lock().unwrap().iter().filter(|event| is_cached(event)).count();
    assert_eq!(ended, 5);
    assert_eq!(runs(&second.engine, &known.id.to_string()).await?, "");
    // It counts for who asks for it alone: the next build believes nothing of it, but for what it did itself.
    assert_eq!(second.engine.builds().cache().await?, []);
    let alone = result(&second.engine, spec()).await?;
    assert!(alone.cached == 0 && alone.id != made.id, "{alone:?}");
    // What is exported of an import is whole; and a change counts from its step on.
    let third = fresh().await?;
    let again = out.path().join("again");
    let passed = spec().cache_from(directory(&place)).cache_to(CacheTarget::Directory(
        again.clone(),
        Some("mine".into()),
        CacheMode::Max,
    ));
    assert_eq!(result(&third.engine, passed).await?.cached, 5);
    fs::write(dir.path().join("x"), "2")?;
    let fourth = fresh().await?;
    let tagged = CacheSource::Directory(again, Some("mine".into()));
    let changed = result(&fourth.engine, spec().cache_from(tagged)).await?;
    assert_eq!((changed.steps, changed.cached), (5, 2), "{:?}", changed.warnings);
    // The steps of the image alone.
    let least = out.path().join("least");
    let min = CacheTarget::Directory(least.clone(), None, CacheMode::Min);
    let lean = result(&fourth.engine, spec().cache_to(min)).await?;
    assert_eq!(
        lean.cached, 0,
        "what was imported is not known here, and the rest stands on it"
    );
    let fifth = fresh().await?;
    let lean_again = result(&fifth.engine, spec().cache_from(directory(&least))).await?;
    assert!(lean_again.cached < 5, "the first stage is not in it: {lean_again:?}");
    for world in [first, second, third, fourth, fifth] {
        assert!(world.engine.audit().await?.is_clean());
        world.engine.close().await;
    }
    Ok(())
}

fn is_cached(event: &ProgressEvent) -> bool {
    matches!(event, ProgressEvent::Build(BuildEvent::Ended { cached: true, .. }))
}

async fn f15_a_cache_is_no_further_believed_than_its_digests() -> Check {
    let (dir, out) = (context(&[("x", "1")])?, scratch::fresh("cache"));
    let place = out.path().join("cache");
    // The same whenever it is made.
    let text = "FROM busybox\nCOPY x /x\nRUN echo one > /one\nRUN echo two > /two\n";
    let spec = || spec(dir.path()).dockerfile_text(text);
    let first = fresh().await?;
    let target = CacheTarget::Directory(place.clone(), None, CacheMode::Max);
    let made = result(&first.engine, spec().cache_to(target)).await?;
    first.engine.close().await;
    let index = json_of(&place.join("index.json"))?;
    let manifest_file = blob(&place, index["manifests"][0]["digest"].as_str().unwrap_or_default());
    let manifest = json_of(&manifest_file)?;
    let config_file = blob(&place, manifest["config"]["digest"].as_str().unwrap_or_default());
    let layers: Vec<PathBuf> = manifest["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|layer| blob(&place, layer["digest"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(layers.len(), 3);
    let build = async || -> Result<BuildResult, Stop> {
        let world = fresh().await?;
        let built = result(&world.engine, spec().cache_from(directory(&place))).await?;
        assert_eq!(built.id, made.id, "whatever the cache says, it is the same image");
        assert!(world.engine.audit().await?.is_clean());
        world.engine.close().await;
        Ok(built)
    };
    assert_eq!(build().await?.cached, 3);
    // Each file damaged in turn: flipped, cut, longer, gone.
    let files: Vec<&PathBuf> = [&manifest_file, &config_file].into_iter().chain(&layers[..1]).collect();
    for (number, file) in files.iter().enumerate() {
        let good = fs::read(file)?;
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let longer = [&good[..], b"more"].concat();
        for bad in [Some(&flipped[..]), Some(&good[..middle]), Some(&longer[..]), None] {
            match bad {
                Some(bad) => fs::write(file, bad)?,
                None => fs::remove_file(file)?,
            }
            let built = build().await?;
            assert_eq!(built.cached, if number < 2 { 0 } else { 2 }, "{number} {bad:?}");
            assert_eq!(built.warnings.len(), 1, "{:?}", built.warnings);
            fs::write(file, &good)?;
        }
    }
    // One that lies: the layer of one step is said to be that of another, with its own digests in order.
    let mut lying = manifest.clone();
    lying["layers"][0] = manifest["layers"][1].clone();
    lie(&place, &index, &lying)?;
    let built = build().await?;
    assert_eq!(
        built.cached, 2,
        "its bytes are not what the step is said to have made: {built:?}"
    );
    assert!(built.warnings[0].contains("hashes to"), "{:?}", built.warnings);
    // What is no cache at all.
    for (config, words) in [
        (json!({"version": 1, "steps": 7}), "is no cache"),
        (json!({"version": 9, "steps": {}}), "version 9"),
        (json!({"version": 1, "steps": {}, "layers": []}), "not as many layers"),
    ] {
        let bytes = serde_json::to_vec(&config)?;
        let digest = Digest::of(&bytes).to_string();
        fs::write(blob(&place, &digest), &bytes)?;
        let mut other = manifest.clone();
        other["config"]["digest"] = json!(digest);
        other["config"]["size"] = json!(bytes.len());
        lie(&place, &index, &other)?;
        let built = build().await?;
        assert!(
            built.cached == 0 && built.warnings[0].contains(words),
            "{:?}",
            built.warnings
        );
    }
    fs::remove_dir_all(&place)?;
    let gone = build().await?;
    assert_eq!((gone.cached, gone.warnings.len()), (0, 1), "{:?}", gone.warnings);
    Ok(())
}

/// Puts another manifest in the place of the one under its name.
fn lie(place: &Path, index: &Value, manifest: &Value) -> Check {
    let bytes = serde_json::to_vec(manifest)?;
    let digest = Digest::of(&bytes).to_string();
    fs::write(blob(place, &digest), &bytes)?;
    let mut index = index.clone();
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(bytes.len());
    Ok(fs::write(place.join("index.json"), serde_json::to_vec(&index)?)?)
}

async fn f15_a_registry_keeps_what_is_known() -> Check {
    let registry = Registry::plain()?;
    let dir = context(&[("x", "1")])?;
    let name: Reference = registry.reference("cache:main").parse()?;
    let spec = || spec(dir.path()).dockerfile_text(STAGES);
    let first = fresh().await?;
    // The first time there is none to take from.
    let both = spec()
        .cache_from(CacheSource::Registry(name.clone()))
        .cache_to(CacheTarget::Registry(name.clone(), CacheMode::Max));
    let made = result(&first.engine, both).await?;
    assert_eq!((made.cached, made.warnings.len()), (0, 1), "{:?}", made.warnings);
    first.engine.close().await;
    let second = fresh().await?;
    let known = result(&second.engine, spec().cache_from(CacheSource::Registry(name.clone()))).await?;
    assert_eq!((known.id, known.cached), (made.id, 5), "{:?}", known.warnings);
    let asked = registry.requests();
    let never = spec().no_cache(true).cache_from(CacheSource::Registry(name.clone()));
    assert_eq!(result(&second.engine, never).await?.cached, 0);
    assert_eq!(registry.requests(), asked, "nobody is asked for what is not wanted");
    drop(registry);
    let third = fresh().await?;
    let lost = spec().cache_from(CacheSource::Registry(name.clone()));
    let alone = result(&third.engine, lost).await?;
    assert_eq!((alone.cached, alone.warnings.len()), (0, 1), "{:?}", alone.warnings);
    let unsent = spec()
        .tag("unsent")
        .cache_to(CacheTarget::Registry(name, CacheMode::Max));
    let failed = result(&third.engine, unsent).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::Unavailable, "{}", failed.report());
    assert!(
        third
            .engine
            .images()
            .inspect("unsent")
            .await
            .unwrap_err()
            .is_not_found()
    );
    for world in [second, third] {
        assert!(world.engine.audit().await?.is_clean());
        world.engine.close().await;
    }
    Ok(())
}

async fn f15_an_image_has_its_cache_in_it() -> Check {
    let registry = Registry::plain()?;
    let dir = context(&[("x", "1")])?;
    let name = registry.reference("app:1");
    let spec = || spec(dir.path()).dockerfile_text(TEXT).cache_to(CacheTarget::Inline);
    let first = fresh().await?;
    let plain = result(&first.engine, self::spec(dir.path()).dockerfile_text(TEXT)).await?;
    let made = result(&first.engine, spec().tag(&name).output(BuildOutput::Push)).await?;
    assert_ne!(made.id, plain.id, "its config says more");
    let again = result(&first.engine, spec().tag(&name)).await?;
    assert_eq!((again.id, again.cached), (made.id, 3), "and always the same");
    // From the registry, and from an image that is here.
    let second = fresh().await?;
    let source = || CacheSource::Image(name.parse().expect("a name"));
    let known = result(&second.engine, spec().cache_from(source())).await?;
    assert_eq!((known.id, known.cached), (made.id, 3), "{:?}", known.warnings);
    let third = fresh().await?;
    third.engine.pull(&name).await?;
    drop(registry);
    let known = result(&third.engine, spec().cache_from(source())).await?;
    assert_eq!((known.id, known.cached), (made.id, 3), "{:?}", known.warnings);
    // An image that is made of it has none.
    let container = third
        .engine
        .create(ContainerSpec::image(&name).network(NetworkMode::None))
        .await?;
    let committed = container.commit(CommitOptions::default()).await?;
    container.remove(crate::support::world::FORCE).await?;
    let document = third.engine.images().inspect(&committed.id().to_string()).await?;
    assert!(!serde_json::to_string(&document.config)?.contains("dev.longshore.build.cache"));
    let without = CacheSource::Image("busybox".parse()?);
    let warned = result(&third.engine, spec().no_cache(false).cache_from(without)).await?;
    assert!(
        warned.warnings[0].contains("has no build cache in it"),
        "{:?}",
        warned.warnings
    );
    for world in [first, second, third] {
        world.engine.close().await;
    }
    Ok(())
}

/// A processor that no host runs.
const FOREIGN: &str = "linux/mips";

fn platforms() -> [Platform; 2] {
    [Platform::host(), FOREIGN.parse().expect("a platform")]
}

const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox AS made\n\
    ARG TARGETPLATFORM\n\
    RUN echo $TARGETPLATFORM > /which\n\
    FROM scratch\n\
    COPY --from=made /which /which\n\
    CMD [\"/which\"]\n";

async fn f17_several_platforms_are_one_index() -> Check {
    let world = world().await?;
    let (dir, out) = (context(&[])?, scratch::fresh("out"));
    let spec = || spec(dir.path()).dockerfile_text(CROSS).platforms(platforms());
    let built = result(&world.engine, spec().tag("both:1")).await?;
    let [host, foreign] = platforms();
    let of: Vec<&Platform> = built.images.iter().map(|image| &image.platform).collect();
    assert_eq!(of, [&host, &foreign]);
    let images = world.engine.images();
    let document = images.document("both:1").await?;
    assert_eq!(
        Some(&document.descriptor.digest),
        built.descriptor.as_ref().map(|top| &top.digest)
    );
    assert_eq!(document.manifests.len(), 2);
    for image in &built.images {
        let listed = document.manifests.iter().find(|entry| entry.image == Some(image.id));
        let listed = listed.and_then(|entry| entry.descriptor.platform.clone());
        assert_eq!(listed.as_ref(), Some(&image.platform));
    }
    // The same again, in whatever order.
    let turned = spec().platforms([foreign.clone(), host.clone()]).tag("both:1");
    let again = result(&world.engine, turned).await?;
    assert_eq!((&again.descriptor, again.cached), (&built.descriptor, again.steps));
    // Each has its own files; pushed, saved and in a directory.
    let files = out.path().join("files");
    let registry = Registry::plain()?;
    let name = registry.reference("both:1");
    let asked = spec()
        .tag(&name)
        .output(BuildOutput::Directory(files.clone()))
        .output(BuildOutput::Layout(out.path().join("layout")))
        .output(BuildOutput::Push);
    let sent = result(&world.engine, asked).await?;
    for platform in [&host, &foreign] {
        let dir = files.join(platform.to_string().replace('/', "_"));
        assert_eq!(fs::read_to_string(dir.join("which"))?.trim(), platform.to_string());
    }
    let held = images.distribution(&name.parse()?, Credentials::Anonymous).await?;
    assert_eq!(
        Some(&held.descriptor.digest),
        sent.descriptor.as_ref().map(|top| &top.digest)
    );
    assert_eq!(held.platforms.len(), 2);
    let (other, _root) = engine().await?;
    let layout = format!("oci:{}:{name}", out.path().join("layout").display());
    let pulled = other.pull(layout).platform(foreign.clone()).await?;
    assert_eq!(*pulled.id(), built.images[1].id);
    other.close().await;
    for (wrong, words) in [
        (spec().platforms([host.clone(), host.clone()]), "twice"),
        (spec().output(BuildOutput::Tar(out.path().join("tar"))), "one platform"),
        (
            spec().dockerfile_text("FROM --platform=$BUILDPLATFORM busybox\n"),
            "are both for",
        ),
    ] {
        let refused = result(&world.engine, wrong).await.unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{}", refused.report());
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn f17_what_nobody_can_run_is_told_before_anything_runs() -> Check {
    let world = world().await?;
    let dir = context(&[])?;
    let text = "FROM --platform=$BUILDPLATFORM busybox AS first\nRUN echo it runs\nFROM scratch AS base\nFROM base\nCOPY --from=first /bin /bin\nRUN true\n";
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let building = world.engine.build(
        spec(dir.path())
            .dockerfile_text(text)
            .platforms(platforms())
            .tag("never"),
    );
    let failed = building
        .progress(move |event| listener.lock().unwrap().push(event))
        .await
        .unwrap_err();
    assert!(failed.is_unsupported(), "{}", failed.report());
    assert!(
        failed.to_string().starts_with("Dockerfile:6: RUN true") && failed.report().contains("binfmt_misc"),
        "{}",
        failed.report()
    );
    {
        let told = told.lock().unwrap();
        assert!(matches!(told.as_slice(), [ProgressEvent::Failed { .. }]), "{told:?}");
    }
    // A stage that the target does not need is nobody's concern.
    let unneeded = "FROM scratch AS other\nRUN true\nFROM scratch\nCOPY <<EOF /x\n1\nEOF\n";
    let asked = spec(dir.path()).dockerfile_text(unneeded).platforms(platforms());
    assert_eq!(result(&world.engine, asked).await?.images.len(), 2);
    Ok(())
}

async fn f12_what_a_command_prints_is_covered() -> Check {
    const SECRET: &str = "hunter2-of-the-tide";
    let world = fresh().await?;
    let dir = context(&[])?;
    let text = "FROM busybox\n\
        RUN --mount=type=secret,id=key cat /run/secrets/key; printf 'hunt''er2-of'; sleep 0.3; printf -- '-the-tide and more'; \
        cat /run/secrets/key >&2; exit 3\n";
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let building = world.engine.build(
        spec(dir.path())
            .dockerfile_text(text)
            .secret("key", Secret::new(format!("{SECRET}\n"))),
    );
    let failed = building
        .progress(move |event| {
            if let ProgressEvent::Build(BuildEvent::Output { bytes, .. }) = event {
                listener.lock().unwrap().extend_from_slice(&bytes);
            }
        })
        .await
        .unwrap_err();
    let said = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(said.contains("***\n") && said.contains("*** and more"), "{said}");
    let Some(failure) = StepFailure::of(&failed) else {
        return fail(failed.report());
    };
    assert!(failure.log_tail.contains("*** and more"), "{}", failure.log_tail);
    for text in [said, format!("{failed:?}"), failed.report(), failure.log_tail.clone()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    world.engine.close().await;
    Ok(())
}

async fn a9_a_dropped_build_with_outputs() -> Check {
    let scene = Scene::new().await?;
    let (dir, out) = (context(&[("x", "y")])?, scratch::fresh("out"));
    let text = "FROM scratch\nCOPY x /x\nWORKDIR /w\n";
    let (archive, cache, layout) = (
        out.path().join("archive.tar"),
        out.path().join("cache"),
        out.path().join("layout"),
    );
    each_drop(async |drop| {
        let spec = spec(dir.path())
            .dockerfile_text(text)
            .platforms(platforms())
            .tag("dropped:1")
            .cache_to(CacheTarget::Directory(cache.clone(), None, CacheMode::Max))
            .output(BuildOutput::Archive(archive.clone(), ArchiveFormat::Docker))
            .output(BuildOutput::Layout(layout.clone()))
            .output(BuildOutput::Image);
        let engine = scene.engine().clone();
        let building = async move { engine.build(spec).result().await.map(|_| ()) };
        let ended = under(scene.engine(), drop, Box::pin(building)).await?;
        cleared(&scene).await?;
        // What is there is whole, and there is nothing beside it.
        if archive.exists() {
            archived(&fs::read(&archive)?, "manifest.json")?;
            fs::remove_file(&archive)?;
        }
        for place in [&cache, &layout].into_iter().filter(|place| place.exists()) {
            json_of(&place.join("index.json"))?;
            let half = fs::read_dir(place)?
                .flatten()
                .find(|entry| entry.file_name().to_string_lossy().starts_with('.'));
            assert!(half.is_none(), "{half:?}");
            fs::remove_dir_all(place)?;
        }
        assert_eq!(fs::read_dir(out.path())?.count(), 0);
        Ok(ended)
    })
    .await
}

async fn f11_caches_are_pruned_unless_they_are_in_use() -> Check {
    let world = fresh().await?;
    let dir = context(&[])?;
    let build = async |text: &str| result(&world.engine, spec(dir.path()).dockerfile_text(text)).await;
    build("FROM busybox\nRUN --mount=type=cache,id=old,target=/c head -c 300000 /dev/zero > /c/x\n").await?;
    let builds = world.engine.builds();
    let mounts = builds.mounts().await?;
    assert_eq!(mounts.len(), 1);
    assert!(mounts[0].size_bytes >= 300_000, "{mounts:?}");
    let usage = world.engine.system().disk_usage().await?;
    assert!(usage.caches_bytes >= 300_000, "{usage:?}");
    let kept = builds.prune(PruneCache::all().keep(longshore::Bytes::gib(1))).await?;
    assert_eq!(kept.mounts, [""; 0]);
    // One that a command has stays, with all that is in it.
    let text = "FROM busybox\nRUN --mount=type=cache,id=used,target=/c echo 1 > /c/x; sleep 3; cat /c/x > /seen\n";
    let using = build(text);
    let pruning = async {
        loop {
            if builds.mounts().await?.len() == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        builds.prune(PruneCache::all()).await
    };
    let (built, pruned) = futures_util::future::join(using, pruning).await;
    let (built, pruned) = (built?, pruned?);
    assert_eq!(pruned.mounts, [mounts[0].name.clone()]);
    assert!(pruned.freed_bytes >= 300_000, "{pruned:?}");
    let seen = ContainerSpec::image(built.id.to_string()).command(["cat", "/seen"]);
    assert_eq!(world.says(seen).await?, "1");
    assert_eq!(builds.prune(PruneCache::all()).await?.mounts.len(), 1);
    assert_eq!(fs::read_dir(world.root.path().join("caches"))?.count(), 0);
    // It begins anew.
    let again = build("FROM busybox\nRUN --mount=type=cache,id=old,target=/c ls /c > /list; echo 2 > /c/x\n").await?;
    let list = ContainerSpec::image(again.id.to_string()).command(["cat", "/list"]);
    assert_eq!(world.says(list).await?, "");
    assert!(world.engine.audit().await?.is_clean());
    world.engine.close().await;
    Ok(())
}

/// Another root, another storage driver: only what a command makes differently each time differs.
async fn f19_p16_verify_names_the_first_file_that_differs() -> Check {
    let world = fresh().await?;
    let other = TempRoot::new();
    let builder = || Engine::builder(other.path()).additional_store(world.root.path());
    let again = builder().snapshotter("vfs").open().await?;
    let dir = context(&[("x", "1")])?;
    let same = "FROM busybox AS made\nWORKDIR /w\nCOPY x ./\nRUN cat x > y && mkdir d && ln y d/z\n\
        FROM scratch\nCOPY --from=made /w /w\n";
    let spec = |text: &str| spec(dir.path()).dockerfile_text(text);
    let verified = world.engine.build(spec(same)).verify(&again).await?;
    assert_eq!(
        verified.difference,
        None,
        "{:?}",
        verified.difference.as_ref().map(ToString::to_string)
    );
    // What is known here is compared, too: the other does it anew.
    let verified = world.engine.build(spec(same)).verify(&again).await?;
    assert_eq!((verified.difference, verified.result.cached), (None, 4));
    // The stage that the difference comes from, although the image has it from a copy alone.
    let random = "FROM busybox AS made\nRUN echo same > /a\nRUN echo same > /b; head -c 8 /dev/urandom > /c; echo x > /d\n\
        FROM scratch\nCOPY --from=made /c /c\n";
    let verified = world.engine.build(spec(random)).verify(&again).await?;
    let Some(difference) = verified.difference else {
        return fail("random bytes are the same twice");
    };
    assert_eq!(
        (difference.stage.as_str(), difference.file.as_deref()),
        ("made", Some("c"))
    );
    assert!(difference.step.starts_with("RUN echo same > /b"), "{difference}");
    assert_eq!(difference.what, "its content differs");
    let gone = "FROM busybox\nRUN touch /$(head -c 8 /dev/urandom | wc -c) /file-$(cat /proc/sys/kernel/random/uuid)\n";
    let verified = world.engine.build(spec(gone)).verify(&again).await?;
    let difference = verified
        .difference
        .map(|difference| difference.to_string())
        .unwrap_or_default();
    assert!(difference.contains("only in the first build"), "{difference}");
    let stream = BuildSpec::new(ContextSource::Tar(Box::pin(futures_util::stream::empty())));
    let refused = world.engine.build(stream).verify(&again).await.unwrap_err();
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{}", refused.report());
    again.close().await;
    world.engine.close().await;
    Ok(())
}

fn f18_an_engine_elsewhere_builds() -> Check {
    let mut daemon = Daemon::start(&[])?;
    block_on(builds_elsewhere(&daemon))?;
    daemon.stop()
}

async fn builds_elsewhere(daemon: &Daemon) -> Check {
    let far = Engine::connect(format!("unix://{}", daemon.socket.display())).await?;
    let dir = context(&[
        (
            "Dockerfile",
            "FROM busybox AS a\nARG WORD\nCOPY . /all\nRUN echo $WORD; ls -A /all > /list\nCMD [\"cat\", \"/list\"]\nFROM a\n",
        ),
        ("kept", "1"),
        ("left/out", "2"),
        (".dockerignore", "left\nDockerfile\n"),
    ])?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let asked = || spec(dir.path()).tag("far:1").argument("WORD", "hello").label("a", "b");
    let built = far
        .build(asked())
        .progress(move |event| listener.lock().unwrap().push(event))
        .result()
        .await?;
    let image = far.images().inspect("far:1").await?;
    assert_eq!((image.id, built.images.len()), (built.id, 1));
    assert_eq!(
        image
            .config
            .config
            .labels
            .as_ref()
            .and_then(|labels| labels.get("a"))
            .map(String::as_str),
        Some("b")
    );
    assert_eq!(runs(&far, "far:1").await?, ".dockerignore\nkept");
    {
        let told = told.lock().unwrap();
        let said = |wanted: &str| told.iter().any(|event| event.to_string().contains(wanted));
        assert!(said("RUN echo $WORD") && said("hello"), "{told:?}");
        assert!(matches!(told.last(), Some(ProgressEvent::Done { image }) if *image == built.id));
    }
    let again = far
        .build(asked().dockerfile_text("FROM busybox\nCOPY . /all\n"))
        .result()
        .await?;
    assert!(again.cached <= again.steps);
    let files = ContainerSpec::image(again.id.to_string())
        .command(["ls", "-A", "/all"])
        .network(NetworkMode::None);
    let files = far.run(files).output().await?;
    assert_eq!(
        text(&files.stdout),
        ".dockerignore\nkept",
        "the Dockerfile is not in the context"
    );
    let failed = far
        .build(asked().dockerfile_text("FROM busybox\nRUN exit 3\n"))
        .await
        .unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::BuildFailed, "{}", failed.report());
    let bad = far
        .build(asked().dockerfile_text("FROM busybox\nRUM\n"))
        .await
        .unwrap_err();
    assert_eq!(bad.kind(), &ErrorKind::InvalidArgument, "{}", bad.report());
    let unsaid = far.build(asked().secret("a", Secret::new("b"))).await.unwrap_err();
    assert!(unsaid.is_unsupported(), "{}", unsaid.report());
    assert!(!far.builds().cache().await?.is_empty());
    let pruned = far.builds().prune(PruneCache::all()).await?;
    assert!(!pruned.steps.is_empty(), "{pruned:?}");
    assert_eq!(far.builds().cache().await?, []);
    Ok(())
}

async fn f20_an_attestation_is_a_warning() -> Check {
    let world = world().await?;
    let asked = BuildSpec::new(ContextSource::Empty).dockerfile_text("FROM busybox\n");
    let plain = result(&world.engine, asked.attestation("type=sbom")).await?;
    assert!(plain.warnings[0].contains("sbom"), "{:?}", plain.warnings);
    Ok(())
}

fn f16_the_client_puts_it_where_it_is_told() -> Check {
    let client = crate::platforms::client()?;
    let root = crate::faults::filled_root()?;
    let registry = Registry::plain()?;
    let name = registry.reference("app:1");
    let dir = context(&[("Dockerfile", TEXT), ("x", "told")])?;
    let run = |words: &[&str], out: Stdio| -> Result<String, Stop> {
        let mut command = Command::new(&client);
        command
            .current_dir(dir.path())
            .arg("--root")
            .arg(root.path())
            .args(words);
        let output = command.stdin(Stdio::null()).stdout(out).output()?;
        let code = output.status.code().unwrap_or(-1);
        let said = [output.stdout, output.stderr].concat();
        Ok(format!("{code} {}", String::from_utf8_lossy(&said)))
    };
    let says = |words: &[&str]| run(words, Stdio::piped());
    let build = ["build", "-q", "--network=none"];
    let built = says(
        &[
            &build[..],
            &[
                "-o",
                "type=oci,dest=out.tar",
                "-o",
                "type=local,dest=files",
                "--metadata-file",
                "meta.json",
                "--iidfile",
                "id",
                "-t",
                "made:1",
                "--provenance=true",
                ".",
            ],
        ]
        .concat(),
    )?;
    assert!(built.starts_with("0 sha256:"), "{built}");
    let metadata = json_of(&dir.path().join("meta.json"))?;
    let id = fs::read_to_string(dir.path().join("id"))?;
    assert_eq!(metadata["containerimage.config.digest"], json!(id));
    assert_eq!(metadata["image.name"], "docker.io/library/made:1");
    let index = archived(&fs::read(dir.path().join("out.tar"))?, "index.json")?;
    assert_eq!(index["manifests"][0]["digest"], metadata["containerimage.digest"]);
    assert_eq!(fs::read_to_string(dir.path().join("files/w/said"))?, "told");
    assert!(metadata["buildx.build.warnings"].to_string().contains("provenance"));
    // A tar on stdout, and nothing else there.
    let poured = fs::File::create(dir.path().join("poured.tar"))?;
    let said = run(&[&build[..], &["-o", "-", "."]].concat(), poured.into())?;
    assert_eq!(said, "0 ");
    let bytes = fs::read(dir.path().join("poured.tar"))?;
    let mut archive = tar::Archive::new(&bytes[..]);
    let has = archive
        .entries()?
        .flatten()
        .any(|entry| entry.path().is_ok_and(|path| path == Path::new("w/said")));
    assert!(has);
    let pushed = says(
        &[
            &build[..],
            &["--push", "-t", &name, "--cache-to", "type=local,dest=cache", "."],
        ]
        .concat(),
    )?;
    assert!(pushed.starts_with("0 sha256:"), "{pushed}");
    let other = TempRoot::new();
    crate::faults::fill(other.path())?;
    let again = Command::new(&client)
        .current_dir(dir.path())
        .arg("--root")
        .arg(other.path())
        .args([
            "build",
            "--network=none",
            "--cache-from",
            "type=local,src=cache",
            "-t",
            "from:cache",
            ".",
        ])
        .output()?;
    let told = String::from_utf8_lossy(&again.stderr);
    assert_eq!(told.matches(" cached").count(), 3, "{told}");
    assert_eq!(text(&again.stdout), id.trim());
    let two = says(
        &[
            &build[..],
            &["--platform", "linux/amd64,linux/mips", "-t", "two", "-f-", "."],
        ]
        .concat(),
    )?;
    assert!(!two.starts_with("0 "), "an empty Dockerfile is none: {two}");
    for wrong in [
        ["-o", "type=none"],
        ["--cache-from", "type=gha"],
        ["--cache-to", "type=local"],
    ] {
        let refused = says(&[&build[..], &wrong[..], &["."]].concat())?;
        assert!(refused.starts_with("125 "), "{refused}");
    }
    let df = says(&["system", "df"])?;
    assert!(df.contains("Build Cache"), "{df}");
    Ok(())
}

/// A file of a tar, as JSON.
fn archived(bytes: &[u8], wanted: &str) -> Result<Value, Stop> {
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.path()? == Path::new(wanted) {
            return Ok(serde_json::from_reader(entry)?);
        }
    }
    fail(format!("{wanted} is not in the archive"))
}

fn f15_the_api_looks_into_images() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let files = Files::new().file(
        "Dockerfile",
        0o644,
        "FROM busybox\nRUN --mount=type=cache,target=/c echo 1 > /c/x\n",
    );
    let tar = files.tar()?;
    let send = |query: &str| -> Result<wire::Answer, Stop> {
        let head = format!(
            "POST /v1.44/build?networkmode=none&{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            tar.len()
        );
        let bytes = [head.as_bytes(), &tar].concat();
        wire::Answer::parse(&wire::exchange(wire::connect(&daemon.socket)?, &bytes)?)
    };
    // An image without a cache is a warning, whatever is no list of names an error.
    let built = send("cachefrom=%5B%22busybox%22%5D")?.expect(200)?;
    assert!(built.body.contains("[Warning] busybox"), "{}", built.body);
    send("cachefrom=busybox")?.expect(400)?;
    let df = daemon.ask("GET", "/v1.44/system/df", "")?.expect(200)?.json()?;
    let kinds: Vec<&str> = df["BuildCache"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|line| line["Type"].as_str())
        .collect();
    assert_eq!(kinds, ["regular", "exec.cachemount"]);
    let pruned = daemon
        .ask("POST", "/v1.44/build/prune?all=1", "")?
        .expect(200)?
        .json()?;
    assert_eq!(pruned["CachesDeleted"].as_array().map(Vec::len), Some(2), "{pruned}");
    daemon.stop()
}
