//! The crate itself, in a process of its own.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use longshore::build::{BuildSpec, PruneCache};
use longshore::containers::{CommitOptions, CopyInOptions};
use longshore::images::{ByteStream, RemoveImageOptions};
use longshore::logs::LogQuery;
use longshore::types::Filter;
use longshore::{
    AttachOptions, ContainerSpec, CreateVolume, Engine, ExecSpec, Lifetime, ListOptions, LogConfig, NetworkMode, Pull,
    RemoveOptions, WaitCondition,
};

use crate::building::BUILT;
use crate::changed::{NAME, SCRIPT, WRITTEN};
use crate::keeping::DATABASE;
use crate::living::{FLOOD, FLOOD_BYTES};
use crate::networks;
use crate::worker::Deed;

/// Opens an engine on `root`, in a process that holds so many megabytes of touched memory beside it.
pub fn role(root: &Path, ballast_mb: usize) -> Deed {
    let ballast = vec![1_u8; ballast_mb << 20];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let engine = runtime.block_on(Engine::open(root));
    let root = root.to_path_buf();
    Box::new(move |line| {
        std::hint::black_box(&ballast);
        let engine = engine.as_ref().map_err(longshore::Error::report)?;
        let words: Vec<&str> = line.split(' ').collect();
        let done = match words.as_slice() {
            ["adopt", count] => runtime.block_on(adopt(&root, number(count))),
            words => runtime.block_on(deed(engine, words)),
        };
        done.map_err(|error| error.report())
    })
}

async fn deed(engine: &Engine, words: &[&str]) -> longshore::Result<Duration> {
    let begin = Instant::now();
    match words {
        ["start", image] => {
            have(engine, image).await?;
            return start(engine, image).await;
        }
        ["parallel", count, image] => {
            have(engine, image).await?;
            let begin = Instant::now();
            let starts = (0..number(count)).map(|_| start(engine, image));
            for time in futures_util::future::join_all(starts).await {
                time?;
            }
            return Ok(begin.elapsed());
        }
        ["mounts", image, file] => {
            have(engine, image).await?;
            let seen = mounts(engine, image).await?;
            std::fs::write(file, seen).map_err(|error| longshore::Error::os("write what is mounted", error))?;
        }
        ["pull", image] => drop(engine.pull(*image).await?),
        ["changed", image] => changed(engine, image, SCRIPT).await?,
        ["written", image] => changed(engine, image, WRITTEN).await?,
        ["push-commit", name] => return push_commit(engine, name).await,
        ["diff"] => drop(engine.containers().diff(NAME).await?),
        ["commit"] => {
            let options = CommitOptions::new().name(NAME.parse()?);
            let image = engine.containers().commit(NAME, options).await?;
            let time = begin.elapsed();
            let options = RemoveImageOptions::default().force(true);
            engine.images().remove(&image.to_string(), options).await?;
            return Ok(time);
        }
        ["build-cold" | "build-anew", dir] => {
            build(engine, dir, words[0] == "build-anew").await?;
            let time = begin.elapsed();
            let options = RemoveImageOptions::default().force(true);
            engine.images().remove(BUILT, options).await?;
            engine.builds().prune(PruneCache::all()).await?;
            return Ok(time);
        }
        ["build-cached", dir] => build(engine, dir, false).await?,
        ["cp-in", file] => {
            let options = CopyInOptions::new();
            let archive = pieces_of(Path::new(file))?;
            engine.containers().copy_in(LIVING, "/", archive, options).await?;
        }
        ["cp-out"] => {
            let mut archive = engine.containers().copy_out(LIVING, "/data").await?.archive;
            let mut bytes = 0;
            while let Some(piece) = archive.next().await {
                bytes += piece?.len();
            }
            if bytes < 200 << 20 {
                return Err(longshore::Error::internal(format!("{bytes} bytes came out")));
            }
        }
        ["volume"] => drop(engine.create_volume(CreateVolume::named("data")).await?),
        ["volume-snapshot"] => {
            let into = CreateVolume::named("copy");
            let copy = engine.volume("data").await?.snapshot(into).await?;
            let time = begin.elapsed();
            copy.remove().await?;
            return Ok(time);
        }
        ["template", image] => {
            have(engine, image).await?;
            let spec = ContainerSpec::image(*image).name(NAME).command(["sh", "-c", DATABASE]);
            engine.run(spec).pull(Pull::Never).await?.wait().await?;
        }
        ["plain", count, image] => {
            let spec = ContainerSpec::image(*image).command(["sleep", "1000"]);
            return many(engine, spec, number(count)).await;
        }
        ["forks", count, _] => {
            let template = engine.container(NAME).await?.template().await?;
            let spec = template.spec().command(["sleep", "1000"]);
            // A template is made once: that it is being written to the disk meanwhile is not what counts.
            nix::unistd::sync();
            let time = many(engine, spec, number(count)).await?;
            template.remove().await?;
            return Ok(time);
        }
        ["tag", image, name] => {
            engine.images().tag(image, &name.parse()?).await?;
        }
        ["push", name] => drop(engine.push(*name).await?),
        ["save", image, file] => save(engine, image, Path::new(file)).await?,
        ["load", file] => load(engine, Path::new(file)).await?,
        ["list", count] => {
            let found = engine.list_images(Filter::new()).await?.len();
            if found != number(count) {
                return Err(longshore::Error::internal(format!("{found} images are listed")));
            }
        }
        ["fill-images", layouts] => fill_images(engine, Path::new(layouts)).await?,
        ["fill", layouts] => fill(engine, Path::new(layouts)).await?,
        ["have", image] => have(engine, image).await?,
        ["living", image] => {
            have(engine, image).await?;
            let spec = ContainerSpec::image(*image).name(LIVING).command(["sleep", "100000"]);
            engine.run(spec).pull(Pull::Never).await?;
        }
        ["exec"] => exec(engine).await?,
        ["outliving", count, image] => {
            have(engine, image).await?;
            for _ in 0..number(count) {
                let spec = ContainerSpec::image(*image).command(["sleep", "100000"]);
                engine.run(spec.lifetime(Lifetime::Detached)).pull(Pull::Never).await?;
            }
        }
        ["remove-all"] => {
            for container in engine.list(ListOptions::default()).await? {
                engine
                    .containers()
                    .remove(container.id.as_str(), RemoveOptions::force())
                    .await?;
            }
        }
        ["flood", driver, image] => {
            let container = engine.run(flood(image, driver)).pull(Pull::Never).await?;
            container.wait().await?;
            let time = begin.elapsed();
            container.remove(RemoveOptions::force()).await?;
            return Ok(time);
        }
        ["flooded", driver, image] => {
            have(engine, image).await?;
            let mut spec = flood(image, driver).name(LIVING);
            spec.log = LogConfig::driver(*driver).option("max-size", "-1");
            engine.run(spec).pull(Pull::Never).await?.wait().await?;
        }
        ["read"] => read(engine).await?,
        ["make", count, image] => {
            have(engine, image).await?;
            for _ in 0..number(count) {
                engine.create(ContainerSpec::image(*image).command(["true"])).await?;
            }
        }
        ["ps", count] => {
            let all = ListOptions {
                all: true,
                ..ListOptions::default()
            };
            let found = engine.list(all).await?.len();
            if found != number(count) {
                return Err(longshore::Error::internal(format!("{found} containers are listed")));
            }
        }
        ["running", count, image] => {
            have(engine, image).await?;
            for _ in 0..number(count) {
                let spec = ContainerSpec::image(*image).command(["sleep", "100000"]);
                engine.run(spec).pull(Pull::Never).await?;
            }
        }
        ["open", root] => {
            let opened = Engine::open(*root).await?;
            let time = begin.elapsed();
            drop(opened);
            return Ok(time);
        }
        words => match networks::ours::deed(engine, words).await? {
            Some(time) => return Ok(time),
            None => return Err(longshore::Error::invalid("no such deed")),
        },
    }
    Ok(begin.elapsed())
}

/// The container of the jobs that want one.
const LIVING: &str = "living";

async fn exec(engine: &Engine) -> longshore::Result<()> {
    let containers = engine.containers();
    let exec = containers.exec_create(LIVING, ExecSpec::new(["true"])).await?;
    let mut attached = containers.exec_start(&exec.id, AttachOptions::default()).await?;
    while attached.output.next().await.is_some() {}
    match containers.exec_wait(&exec.id).await?.success() {
        true => Ok(()),
        false => Err(longshore::Error::internal("true is not true")),
    }
}

fn flood(image: &str, driver: &str) -> ContainerSpec {
    let spec = ContainerSpec::image(image).command(["sh", "-c", FLOOD]);
    spec.log(LogConfig::driver(driver))
}

async fn read(engine: &Engine) -> longshore::Result<()> {
    let mut entries = engine.containers().logs(LIVING, LogQuery::default()).await?;
    let mut bytes = 0;
    while let Some(entry) = entries.next().await {
        bytes += entry?.bytes.len();
    }
    match bytes == FLOOD_BYTES {
        true => Ok(()),
        false => Err(longshore::Error::internal(format!("{bytes} bytes were read back"))),
    }
}

/// A container that has changed files of its image.
async fn changed(engine: &Engine, image: &str, script: &str) -> longshore::Result<()> {
    have(engine, image).await?;
    let spec = ContainerSpec::image(image).name(NAME).command(["sh", "-c", script]);
    let status = engine.run(spec).pull(Pull::Never).await?.wait().await?.status;
    let changes = engine.containers().diff(NAME).await?.len();
    // The files, the directories above the changed ones, and the new one.
    if status.success() && changes >= 100 {
        return Ok(());
    }
    Err(longshore::Error::internal(format!("{status}, {changes} changes")))
}

/// As `docker build` does it, without a network.
async fn build(engine: &Engine, dir: &str, anew: bool) -> longshore::Result<()> {
    let spec = BuildSpec::new(dir).network(NetworkMode::None).no_cache(anew).tag(BUILT);
    engine.build(spec).await.map(drop)
}

/// The push of a new image of the container. What it packed goes with the image, so that the next has to do it again.
async fn push_commit(engine: &Engine, name: &str) -> longshore::Result<Duration> {
    let options = CommitOptions::new().name(name.parse()?);
    engine.containers().commit(NAME, options).await?;
    let begin = Instant::now();
    engine.push(name).await?;
    let time = begin.elapsed();
    engine
        .images()
        .remove(name, RemoveImageOptions::default().force(true))
        .await?;
    Ok(time)
}

/// Into a file, as `save -o` does.
async fn save(engine: &Engine, image: &str, file: &Path) -> longshore::Result<()> {
    let failed = |error| longshore::Error::os("write an archive", error);
    let mut archive = engine.save([image]).await?;
    let mut out = std::fs::File::create(file).map_err(failed)?;
    while let Some(piece) = archive.next().await {
        out.write_all(&piece?).map_err(failed)?;
    }
    Ok(())
}

/// Creates and starts so many, one after the other, and removes them outside of the time.
async fn many(engine: &Engine, spec: ContainerSpec, count: usize) -> longshore::Result<Duration> {
    let begin = Instant::now();
    let mut all = Vec::new();
    for _ in 0..count {
        let container = engine.create(spec.clone()).await?;
        container.start().await?;
        all.push(container);
    }
    let time = begin.elapsed();
    for container in all {
        container.remove(RemoveOptions::force()).await?;
    }
    Ok(time)
}

/// From a file, as `load -i` does.
async fn load(engine: &Engine, file: &Path) -> longshore::Result<()> {
    engine.load(pieces_of(file)?).await.map(drop)
}

/// A file as a stream.
fn pieces_of(file: &Path) -> longshore::Result<ByteStream> {
    let file = std::fs::File::open(file).map_err(|error| longshore::Error::os("open an archive", error))?;
    longshore::types::reader_stream(file)
}

/// An image of each layout, with a name of its own.
async fn fill_images(engine: &Engine, layouts: &Path) -> longshore::Result<()> {
    let failed = |error| longshore::Error::os("list the layouts", error);
    for (number, entry) in std::fs::read_dir(layouts).map_err(failed)?.enumerate() {
        let layout = entry.map_err(failed)?.path();
        let image = engine.pull(format!("oci:{}", layout.display())).await?;
        image.tag(&format!("held-{number}").parse()?).await?;
    }
    Ok(())
}

pub fn number(text: &str) -> usize {
    text.parse().unwrap_or(0)
}

/// The image is pulled at the first run, which warms up.
pub async fn have(engine: &Engine, image: &str) -> longshore::Result<()> {
    if engine.image(image).await.is_ok() {
        return Ok(());
    }
    engine.pull(image).policy(Pull::Missing).await.map(drop)
}

async fn start(engine: &Engine, image: &str) -> longshore::Result<Duration> {
    let begin = Instant::now();
    let output = engine
        .run(ContainerSpec::image(image).command(["true"]))
        .pull(Pull::Never)
        .output()
        .await?;
    let time = begin.elapsed();
    if !output.status.success() {
        return Err(longshore::Error::internal("true is not true"));
    }
    Ok(time)
}

/// What a program in a container sees mounted.
async fn mounts(engine: &Engine, image: &str) -> longshore::Result<Vec<u8>> {
    let spec = ContainerSpec::image(image).command(["cat", "/proc/self/mountinfo"]);
    Ok(engine.run(spec).pull(Pull::Never).output().await?.stdout)
}

/// An image of each layout, with a name and a layer of its own, and a container of each that was never started.
async fn fill(engine: &Engine, layouts: &Path) -> longshore::Result<()> {
    let failed = |error| longshore::Error::os("list the layouts", error);
    for (number, entry) in std::fs::read_dir(layouts).map_err(failed)?.enumerate() {
        let layout = entry.map_err(failed)?.path();
        let image = engine.pull(format!("oci:{}", layout.display())).await?;
        image.tag(&format!("held-{number}").parse()?).await?;
        engine
            .create(ContainerSpec::image(image.id().to_string()).command(["true"]))
            .await?;
    }
    Ok(())
}

/// Another engine finds them all, and is connected to each when it waits for it.
async fn adopt(root: &Path, count: usize) -> longshore::Result<Duration> {
    let begin = Instant::now();
    let engine = Engine::open(root).await?;
    let found = engine.list(ListOptions::default()).await?;
    let waits = found.iter().map(|summary| async {
        let container = engine.container(summary.id.as_str()).await?;
        container.wait_for(WaitCondition::NextExit).await
    });
    let waits: Vec<_> = futures_util::future::try_join_all(waits).await?;
    let time = begin.elapsed();
    drop(waits);
    engine.close().await;
    if found.len() != count {
        return Err(longshore::Error::internal(format!("{} are found", found.len())));
    }
    Ok(time)
}
