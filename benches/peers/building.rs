//! The jobs `build-cold`, `build-run6`, `build-cached` and `build-context`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::host::Host;
use crate::images;
use crate::measure::{Contestant, Job, Run, timed};
use crate::peers::docker::docker_command;
use crate::peers::podman::podman;
use crate::peers::{installed, sh};
use crate::worker::Worker;

/// The name of what is built.
pub const BUILT: &str = "built";
/// Files of the context, of 40 kB: 25 MB.
const FILES: usize = 650;
const FILE_BYTES: usize = 40_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Six steps, none of which is known.
    Cold,
    /// Six commands that do nothing, none of which is known.
    Run6,
    /// The six steps of the first, all of them known.
    Cached,
    /// One step that copies a context of very many files, and is not known.
    Context,
}

pub fn cold(host: &mut Host) -> Job {
    job(host, Kind::Cold)
}

pub fn run6(host: &mut Host) -> Job {
    job(host, Kind::Run6)
}

pub fn cached(host: &mut Host) -> Job {
    job(host, Kind::Cached)
}

pub fn many_files(host: &mut Host) -> Job {
    job(host, Kind::Context)
}

fn job(host: &mut Host, kind: Kind) -> Job {
    let made = host.image("tree", images::tree);
    let image = host.reference("tree");
    let dir = made.and_then(|_| context(host, kind, &image));
    let of = |run: fn(&Host, &Path, &str, Kind) -> Result<Run, String>| {
        dir.as_ref()
            .map_err(Clone::clone)
            .and_then(|dir| run(host, dir, &image, kind))
    };
    let contestants = vec![
        Contestant::maybe("longshore", of(ours)),
        Contestant::maybe("docker build", of(with_docker)),
        Contestant::maybe("buildah build", of(with_buildah)),
    ];
    let about = match kind {
        Kind::Cold => "six steps over an image of 25,000 files, with 25 MB of context: nothing is known",
        Kind::Run6 => "FROM and six times RUN true over an image of 25,000 files: nothing is known",
        Kind::Cached => "six steps over an image of 25,000 files, with 25 MB of context: all is known",
        Kind::Context => "COPY of a context of 50,000 files, 86 MB: nothing is known",
    };
    Job {
        about: format!("{about}; docker's own builder, buildah with the chroot isolation"),
        rounds: if kind == Kind::Context { 3 } else { 5 },
        pause: Duration::from_millis(500),
        contestants,
        between: Box::new(nix::unistd::sync),
    }
}

/// Files of the large context: so many, and so many bytes in all.
const MANY: usize = 50_000;
const MANY_BYTES: usize = 86_000_000;

/// The context of a job. The words differ from file to file, so that nothing is found twice.
fn context(host: &Host, kind: Kind, image: &str) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| error.to_string();
    let name = match kind {
        Kind::Run6 => "context-run6",
        Kind::Context => "context-many",
        _ => "context",
    };
    let dir = host.dir(name);
    let steps = match kind {
        Kind::Run6 => "RUN true\n".repeat(6),
        Kind::Context => {
            // From nearly nothing to twice the mean.
            files(&dir, MANY, 500, |number| {
                number * 7919 % MANY * 2 * MANY_BYTES / MANY / MANY
            })
            .map_err(failed)?;
            "COPY src /src\n".to_owned()
        }
        Kind::Cold | Kind::Cached => {
            files(&dir, FILES, 13, |_| FILE_BYTES).map_err(failed)?;
            "ENV MODE=fast\nWORKDIR /build\nCOPY src src\nRUN find src -type f | wc -l > count\n\
             RUN mkdir out && cp -a src/1 src/2 out\nCMD [\"cat\", \"/build/count\"]\n"
                .to_owned()
        }
    };
    fs::write(dir.join("Dockerfile"), format!("FROM {image}\n{steps}")).map_err(failed)?;
    Ok(dir)
}

/// Files below `src`, spread over directories.
fn files(dir: &Path, count: usize, directories: usize, bytes: impl Fn(usize) -> usize) -> std::io::Result<()> {
    for number in 0..count {
        let text = format!("{number} {} ", number * 7919);
        let place = dir.join(format!("src/{}", number % directories));
        fs::create_dir_all(&place)?;
        let words: String = text.chars().cycle().take(bytes(number)).collect();
        fs::write(place.join(number.to_string()), words)?;
    }
    Ok(())
}

fn ours(host: &Host, dir: &Path, image: &str, kind: Kind) -> Result<Run, String> {
    let mut worker = Worker::start("ours", &[&host.dir("ours-build").display().to_string(), "0"])?;
    worker.tell(&format!("pull {image}"))?;
    let deed = match kind {
        Kind::Cached => "build-cached",
        // Six times the same: what the first of them did is known to the next unless nothing is to be.
        Kind::Run6 => "build-anew",
        Kind::Cold | Kind::Context => "build-cold",
    };
    let line = format!("{deed} {}", dir.display());
    if kind == Kind::Cached {
        worker.tell(&line)?;
    }
    Ok(Box::new(move || worker.tell(&line)))
}

fn with_docker(host: &Host, dir: &Path, image: &str, kind: Kind) -> Result<Run, String> {
    let docker = host.docker.as_ref().map_err(Clone::clone)?;
    sh(&mut docker.docker(&["pull", "--quiet", image]))?;
    let (socket, dir) = (docker.socket.clone(), dir.display().to_string());
    let build = move || {
        let mut words = vec!["build", "--quiet", "--network", "none", "--tag", BUILT];
        words.extend((kind != Kind::Cached).then_some("--no-cache"));
        words.push(&dir);
        let mut command = docker_command(&socket, &words);
        command.env("DOCKER_BUILDKIT", "0");
        let time = timed(|| sh(&mut command))?;
        if kind != Kind::Cached {
            sh(&mut docker_command(&socket, &["rmi", "--force", BUILT]))?;
        }
        Ok(time)
    };
    once_before(kind, Box::new(build))
}

fn with_buildah(host: &Host, dir: &Path, image: &str, kind: Kind) -> Result<Run, String> {
    installed("buildah")?;
    let (disk, dir) = (host.disk.dir.clone(), dir.display().to_string());
    sh(&mut podman(&disk, &["pull", "--quiet", "--tls-verify=false", image]))?;
    let build = move || {
        let mut words = vec![
            "build",
            "--quiet",
            "--layers",
            "--isolation",
            "chroot",
            // It has no other with that isolation.
            "--network",
            "host",
        ];
        words.extend(["--pull-never", "--tag", BUILT]);
        words.extend((kind != Kind::Cached).then_some("--no-cache"));
        words.push(&dir);
        let time = timed(|| sh(&mut buildah(&disk, &words)))?;
        if kind != Kind::Cached {
            sh(&mut buildah(&disk, &["rmi", "--force", BUILT]))?;
        }
        Ok(time)
    };
    once_before(kind, Box::new(build))
}

/// What is to be known is built once, which does not count.
fn once_before(kind: Kind, mut build: Run) -> Result<Run, String> {
    if kind == Kind::Cached {
        build()?;
    }
    Ok(build)
}

/// A buildah command on podman's store.
fn buildah(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("buildah");
    command
        .arg("--root")
        .arg(dir.join("podman/root"))
        .arg("--runroot")
        .arg(dir.join("podman/run"))
        .args(["--storage-driver", "overlay"])
        .args(arguments);
    command
}
