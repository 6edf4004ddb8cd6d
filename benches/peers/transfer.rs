//! The jobs `pull-again`, `push-unchanged`, `save`, `load` and `list-images`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::changed::WRITTEN;
use crate::host::{self, Host};
use crate::images;
use crate::measure::{Contestant, Job, Run, timed};
use crate::peers::docker::docker_command;
use crate::peers::podman::{LIMITS, podman};
use crate::peers::{installed, sh};
use crate::support::image::Layout;
use crate::support::registry::Registry;
use crate::worker::Worker;

const LARGE: &str = "7 layers, 640 MB of a distribution's files";
const PAUSE: Duration = Duration::from_millis(500);

fn job(about: String, rounds: usize, contestants: Vec<Contestant>) -> Job {
    Job {
        about,
        rounds,
        pause: PAUSE,
        contestants,
        between: Box::new(nix::unistd::sync),
    }
}

/// A worker of ours on a root of its own, which was told a line before.
fn ours(root: &Path, first: &str) -> Result<Worker, String> {
    let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
    worker.tell(first)?;
    Ok(worker)
}

fn large(host: &Host) -> Result<Layout, String> {
    host.image("large", images::large)
}

/// A pull of what is there: the registry is asked what the tag points at.
pub fn pull_again(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let line = format!("pull {image}");
    let ours = ours(&host.dir("ours-again"), &line).map(|mut worker| -> Run { Box::new(move || worker.tell(&line)) });
    let mut contestants = vec![Contestant::maybe("longshore", ours)];
    let docker = host
        .docker
        .as_ref()
        .map_err(Clone::clone)
        .map(|docker| docker.socket.clone());
    contestants.push(Contestant::maybe(
        "docker pull",
        docker.map(|socket| -> Run {
            let image = image.clone();
            Box::new(move || timed(|| sh(&mut docker_command(&socket, &["pull", "--quiet", &image]))))
        }),
    ));
    contestants.push(Contestant::maybe(
        "podman pull",
        installed("podman").map(|()| -> Run {
            let (dir, image) = (host.disk.dir.clone(), image.clone());
            Box::new(move || timed(|| sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", &image]))))
        }),
    ));
    let about = "pull busybox, which is there: ours in-process, the others as whole clients".to_owned();
    Job {
        pause: Duration::from_millis(60),
        ..job(about, 15, contestants)
    }
}

/// Into an empty registry each time, so that nobody finds blobs there that the last one left.
pub fn push_unchanged(host: &mut Host) -> Job {
    let contestants = match large(host) {
        Err(reason) => vec![Contestant::maybe("longshore", Err(reason))],
        Ok(layout) => vec![
            Contestant::maybe("longshore", ours_push(host)),
            Contestant::maybe("skopeo copy", skopeo_push(&layout)),
            Contestant::maybe("docker push", docker_push(host)),
            Contestant::maybe("podman push", podman_push(host)),
        ],
    };
    job(
        format!("push {LARGE}, as they were pulled, to an empty registry"),
        3,
        contestants,
    )
}

fn empty() -> Result<(Registry, String), String> {
    let registry = Registry::plain().map_err(host::stop)?;
    let name = registry.reference("large:1");
    Ok((registry, name))
}

fn ours_push(host: &Host) -> Result<Run, String> {
    let image = host.reference("large");
    let mut worker = ours(&host.dir("ours-push"), &format!("pull {image}"))?;
    Ok(Box::new(move || {
        let (_registry, name) = empty()?;
        worker.tell(&format!("tag {image} {name}"))?;
        worker.tell(&format!("push {name}"))
    }))
}

fn skopeo_push(layout: &Layout) -> Result<Run, String> {
    installed("skopeo")?;
    let from = format!("oci:{}:latest", layout.dir.display());
    Ok(Box::new(move || {
        let (_registry, name) = empty()?;
        let to = format!("docker://{name}");
        timed(|| sh(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", &from, &to])))
    }))
}

fn docker_push(host: &Host) -> Result<Run, String> {
    let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
    let image = host.reference("large");
    sh(&mut docker_command(&socket, &["pull", "--quiet", &image]))?;
    Ok(Box::new(move || {
        let (_registry, name) = empty()?;
        sh(&mut docker_command(&socket, &["tag", &image, &name]))?;
        timed(|| sh(&mut docker_command(&socket, &["push", "--quiet", &name])))
    }))
}

fn podman_push(host: &Host) -> Result<Run, String> {
    installed("podman")?;
    let (dir, image) = (host.disk.dir.clone(), host.reference("large"));
    sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", &image]))?;
    Ok(Box::new(move || {
        let (_registry, name) = empty()?;
        timed(|| {
            sh(&mut podman(
                &dir,
                &["push", "--quiet", "--tls-verify=false", &image, &name],
            ))
        })
    }))
}

/// What a container wrote, as a new image over one that the registry has.
pub fn push_changed(host: &mut Host) -> Job {
    let made = host.image("tree", images::tree).map(drop);
    let ready = || made.clone();
    let contestants = vec![
        Contestant::maybe("longshore", ready().and_then(|()| ours_push_changed(host))),
        Contestant::maybe("docker push", ready().and_then(|()| docker_push_changed(host))),
        Contestant::maybe("podman push", ready().and_then(|()| podman_push_changed(host))),
    ];
    job(
        "push 50,000 new files, 100 MB, over an image that the registry has".to_owned(),
        3,
        contestants,
    )
}

/// A registry of its own, and names in it for the image below and for the new one.
fn with_base() -> Result<(Registry, String, String), String> {
    let registry = Registry::plain().map_err(host::stop)?;
    let (base, new) = (registry.reference("tree:base"), registry.reference("tree:new"));
    Ok((registry, base, new))
}

fn ours_push_changed(host: &Host) -> Result<Run, String> {
    let image = host.reference("tree");
    let mut worker = ours(&host.dir("ours-push-changed"), &format!("written {image}"))?;
    Ok(Box::new(move || {
        let (_registry, base, new) = with_base()?;
        worker.tell(&format!("tag {image} {base}"))?;
        worker.tell(&format!("push {base}"))?;
        worker.tell(&format!("push-commit {new}"))
    }))
}

fn docker_push_changed(host: &Host) -> Result<Run, String> {
    let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
    let (image, name) = (host.reference("tree"), "written");
    let docker = move |words: &[&str]| sh(&mut docker_command(&socket, words));
    docker(&["run", "--name", name, "--network", "none", &image, "sh", "-c", WRITTEN])?;
    Ok(Box::new(move || {
        let (_registry, base, new) = with_base()?;
        docker(&["tag", &image, &base])?;
        docker(&["push", "--quiet", &base])?;
        docker(&["commit", name, &new])?;
        let time = timed(|| docker(&["push", "--quiet", &new]))?;
        docker(&["rmi", &new]).map(|()| time)
    }))
}

fn podman_push_changed(host: &Host) -> Result<Run, String> {
    installed("podman")?;
    let (dir, image, name) = (host.disk.dir.clone(), host.reference("tree"), "written");
    let podman = move |words: &[&str]| sh(&mut podman(&dir, words));
    podman(&["pull", "--quiet", "--tls-verify=false", &image])?;
    let run = [
        &["run", "--name", name, "--network", "none"],
        &LIMITS[..],
        &[&image, "sh", "-c", WRITTEN],
    ];
    podman(&run.concat())?;
    Ok(Box::new(move || {
        let (_registry, base, new) = with_base()?;
        podman(&["push", "--quiet", "--tls-verify=false", &image, &base])?;
        podman(&["commit", "--quiet", name, &new])?;
        let time = timed(|| podman(&["push", "--quiet", "--tls-verify=false", &new]))?;
        podman(&["rmi", &new]).map(|()| time)
    }))
}

pub fn save(host: &mut Host) -> Job {
    let file = |name: &str| host.dir("archives").join(name).display().to_string();
    let (image, made) = (host.reference("large"), large(host).map(drop));
    let ours = made.clone().and_then(|_| {
        let mut worker = ours(&host.dir("ours-save"), &format!("pull {image}"))?;
        let line = format!("save {image} {}", file("ours.tar"));
        Ok(Box::new(move || worker.tell(&line)) as Run)
    });
    let docker = made.clone().and_then(|_| {
        let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
        sh(&mut docker_command(&socket, &["pull", "--quiet", &image]))?;
        let (image, file) = (image.clone(), file("docker.tar"));
        Ok(Box::new(move || timed(|| sh(&mut docker_command(&socket, &["save", "-o", &file, &image])))) as Run)
    });
    let podman = made.and_then(|_| {
        installed("podman")?;
        let (dir, file, image) = (host.disk.dir.clone(), file("podman.tar"), image.clone());
        sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", &image]))?;
        Ok(Box::new(move || {
            let _ = std::fs::remove_file(&file);
            timed(|| sh(&mut podman(&dir, &["save", "--quiet", "-o", &file, &image])))
        }) as Run)
    });
    let contestants = vec![
        Contestant::maybe("longshore", ours),
        Contestant::maybe("docker save", docker),
        Contestant::maybe("podman save", podman),
    ];
    job(format!("save {LARGE}, into a file"), 3, contestants)
}

/// Everybody loads what docker saved, whose layers are plain tars; without docker what ours saved.
pub fn load(host: &mut Host) -> Job {
    let contestants = match archive(host) {
        Err(reason) => vec![Contestant::maybe("longshore", Err(reason))],
        Ok(file) => vec![
            Contestant::maybe("longshore", Ok(ours_load(host, &file))),
            Contestant::maybe("docker load", docker_load(host, &file)),
            Contestant::maybe("podman load", podman_load(host, &file)),
        ],
    };
    job(
        format!("load {LARGE}, from a file, into an empty store"),
        3,
        contestants,
    )
}

fn archive(host: &Host) -> Result<PathBuf, String> {
    large(host)?;
    let (file, image) = (host.dir("archives").join("load.tar"), host.reference("large"));
    let shown = file.display().to_string();
    match &host.docker {
        Ok(docker) => {
            sh(&mut docker.docker(&["pull", "--quiet", &image]))?;
            sh(&mut docker.docker(&["save", "-o", &shown, &image]))?;
            sh(&mut docker.docker(&["rmi", &image]))?;
        }
        Err(_) => {
            let mut worker = ours(&host.dir("ours-archive"), &format!("pull {image}"))?;
            worker.tell(&format!("save {image} {shown}"))?;
        }
    }
    Ok(file)
}

fn ours_load(host: &Host, file: &Path) -> Run {
    let (disk, line) = (host.disk.dir.clone(), format!("load {}", file.display()));
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let root = disk.join(format!("ours-load-{round}"));
        let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
        let time = worker.tell(&line)?;
        drop(worker);
        std::fs::remove_dir_all(&root).map_err(|error| error.to_string())?;
        Ok(time)
    })
}

fn docker_load(host: &Host, file: &Path) -> Result<Run, String> {
    let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
    let (file, image) = (file.display().to_string(), host.reference("large"));
    Ok(Box::new(move || {
        let time = timed(|| sh(&mut docker_command(&socket, &["load", "--quiet", "-i", &file])))?;
        sh(&mut docker_command(&socket, &["rmi", &image]))?;
        Ok(time)
    }))
}

fn podman_load(host: &Host, file: &Path) -> Result<Run, String> {
    installed("podman")?;
    let (dir, file, image) = (
        host.disk.dir.clone(),
        file.display().to_string(),
        host.reference("large"),
    );
    Ok(Box::new(move || {
        let time = timed(|| sh(&mut podman(&dir, &["load", "--quiet", "-i", &file])))?;
        sh(&mut podman(&dir, &["rmi", &image]))?;
        Ok(time)
    }))
}

const HELD: usize = 1000;

pub fn list_images(host: &mut Host) -> Job {
    let root = host.dir("ours-list");
    let ours = host.small_layouts(HELD).and_then(|layouts| {
        let mut worker = ours(&root, &format!("fill-images {}", layouts.display()))?;
        Ok(Box::new(move || worker.tell(&format!("list {HELD}"))) as Run)
    });
    Job {
        pause: Duration::from_millis(20),
        between: Box::new(|| {}),
        ..job(
            format!("list {HELD} images that share nothing"),
            30,
            vec![Contestant::maybe("longshore", ours)],
        )
    }
}
