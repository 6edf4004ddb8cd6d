//! The jobs `diff` and `commit`: a container with 100 changed files over an image of 25,000, which has ended.

use std::time::Duration;

use crate::host::Host;
use crate::images;
use crate::measure::{Contestant, Job, Run, timed};
use crate::peers::docker::docker_command;
use crate::peers::podman::{LIMITS, podman};
use crate::peers::{installed, sh};
use crate::worker::Worker;

/// Changes 50 files and adds 50.
pub const SCRIPT: &str = "for f in $(find /srv/app/modules/1* -type f | sort | head -n 50); do echo more >> $f; done; \
                          mkdir /new; for i in $(seq 50); do echo $i > /new/$i; done";
/// Writes 50,000 files, about 100 MB.
pub const WRITTEN: &str = "cp -a /srv /one && cp -a /srv /two";
/// The name of the container, and of the image that is made of it.
pub const NAME: &str = "changed";

#[derive(Clone, Copy)]
enum Verb {
    Diff,
    Commit,
}

pub fn diff(host: &mut Host) -> Job {
    job(host, Verb::Diff)
}

pub fn commit(host: &mut Host) -> Job {
    job(host, Verb::Commit)
}

fn job(host: &mut Host, verb: Verb) -> Job {
    let made = host.image("tree", images::tree);
    let image = host.reference("tree");
    let ready = || made.as_ref().map(|_| ()).map_err(Clone::clone);
    let word = match verb {
        Verb::Diff => "diff",
        Verb::Commit => "commit",
    };
    let contestants = vec![
        Contestant::maybe("longshore", ready().and_then(|()| ours(host, &image, word))),
        Contestant::maybe(
            format!("docker {word}"),
            ready().and_then(|()| docker(host, &image, verb)),
        ),
        Contestant::maybe(
            format!("podman {word}"),
            ready().and_then(|()| with_podman(host, &image, verb)),
        ),
    ];
    Job {
        about: format!("{word} of an ended container with 100 changed files over an image of 25,000"),
        rounds: 10,
        pause: Duration::from_millis(100),
        contestants,
        // Ours waits for the disk: what the others left unwritten is not a part of it.
        between: Box::new(nix::unistd::sync),
    }
}

fn ours(host: &Host, image: &str, word: &str) -> Result<Run, String> {
    // A root per job: the container of the job before is still there.
    let root = host.disk.dir.join(format!("ours-{word}"));
    let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
    worker.tell(&format!("changed {image}"))?;
    let word = word.to_owned();
    Ok(Box::new(move || worker.tell(&word)))
}

fn docker(host: &Host, image: &str, verb: Verb) -> Result<Run, String> {
    let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
    let run = ["run", "--name", NAME, "--network", "none", image, "sh", "-c", SCRIPT];
    let _ = sh(&mut docker_command(&socket, &["rm", "-f", NAME]));
    sh(&mut docker_command(&socket, &run))?;
    Ok(Box::new(move || match verb {
        Verb::Diff => timed(|| sh(&mut docker_command(&socket, &["diff", NAME]))),
        Verb::Commit => {
            let time = timed(|| sh(&mut docker_command(&socket, &["commit", NAME, NAME])))?;
            sh(&mut docker_command(&socket, &["rmi", NAME]))?;
            Ok(time)
        }
    }))
}

fn with_podman(host: &Host, image: &str, verb: Verb) -> Result<Run, String> {
    installed("podman")?;
    let dir = host.disk.dir.clone();
    sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", image]))?;
    let _ = sh(&mut podman(&dir, &["rm", "-f", NAME]));
    let run = [
        &["run", "--name", NAME, "--network", "none"],
        &LIMITS[..],
        &[image, "sh", "-c", SCRIPT],
    ];
    sh(&mut podman(&dir, &run.concat()))?;
    Ok(Box::new(move || match verb {
        Verb::Diff => timed(|| sh(&mut podman(&dir, &["diff", NAME]))),
        Verb::Commit => {
            let time = timed(|| sh(&mut podman(&dir, &["commit", "--quiet", NAME, NAME])))?;
            sh(&mut podman(&dir, &["rmi", NAME]))?;
            Ok(time)
        }
    }))
}
