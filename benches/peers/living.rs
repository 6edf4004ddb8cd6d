//! The jobs about containers that live: commands in them, what they log, lists of many, and a start beside a thousand.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::host::Host;
use crate::measure::{Contestant, Job, Run, timed};
use crate::peers::docker::docker_command;
use crate::peers::podman::{LIMITS, podman};
use crate::peers::{installed, runc, sh};
use crate::worker::Worker;

/// Prints 200 MB in lines of 100 bytes. busybox makes lines no faster than they are written down here, but copies files fast:
/// what is measured is the log.
pub const FLOOD: &str = "cd /tmp; \
                         yes 012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678 \
                         | head -c 10000000 > a; cat a a > b; cat b b b b b b b b b b";
/// What it prints.
pub const FLOOD_BYTES: usize = 200_000_000;
/// How many are listed, and how many run.
const LISTED: usize = 200;
const RUNNING: usize = 1000;
/// How many are found again.
const ADOPTED: usize = 200;
const NAME: &str = "living";

/// A worker on a root of its own that has done something first.
fn ours(host: &Host, name: &str, first: &str) -> Result<Worker, String> {
    let root = host.dir(&format!("ours-{name}"));
    let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
    if !first.is_empty() {
        worker.tell(first)?;
    }
    Ok(worker)
}

fn again(mut worker: Worker, line: String) -> Run {
    Box::new(move || worker.tell(&line))
}

/// A client's command, again and again.
fn repeat(make: impl Fn() -> Command + 'static) -> Run {
    Box::new(move || timed(|| sh(&mut make())))
}

pub fn exec(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let worker = ours(host, "exec", &format!("living {image}"));
    let contestants = vec![
        Contestant::maybe("longshore", worker.map(|worker| again(worker, "exec".to_owned()))),
        Contestant::maybe("docker exec", docker_exec(host, &image)),
        Contestant::maybe("podman exec", podman_exec(host, &image)),
        Contestant::maybe("runc exec", runc_exec(host)),
    ];
    Job {
        about: "`true` in a running container, its output and status awaited; 60 ms between runs".to_owned(),
        rounds: 15,
        pause: Duration::from_millis(60),
        contestants,
        between: Box::new(|| {}),
    }
}

fn docker_exec(host: &Host, image: &str) -> Result<Run, String> {
    let docker = host.docker.as_ref().map_err(Clone::clone)?;
    let socket = docker.socket.clone();
    sh(&mut docker.docker(&["pull", "--quiet", image]))?;
    let _ = sh(&mut docker_command(&socket, &["rm", "-f", NAME]));
    let run = [
        "run",
        "-d",
        "--name",
        NAME,
        "--network",
        "none",
        image,
        "sleep",
        "100000",
    ];
    sh(&mut docker_command(&socket, &run))?;
    Ok(repeat(move || docker_command(&socket, &["exec", NAME, "true"])))
}

fn podman_exec(host: &Host, image: &str) -> Result<Run, String> {
    installed("podman")?;
    let dir = host.disk.dir.clone();
    sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", image]))?;
    let _ = sh(&mut podman(&dir, &["rm", "-f", NAME]));
    let run = [
        &["run", "-d", "--name", NAME, "--network", "none"],
        &LIMITS[..],
        &[image, "sleep", "100000"],
    ]
    .concat();
    sh(&mut podman(&dir, &run))?;
    Ok(repeat(move || podman(&dir, &["exec", NAME, "true"])))
}

fn runc_exec(host: &Host) -> Result<Run, String> {
    let dir = host.dir("runc-exec");
    let bundle = runc::bundle(&dir, &host.rootfs)?;
    let file = bundle.join("config.json");
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let text = text.replace("[\"true\"]", "[\"sleep\",\"100000\"]");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let mut run = runc::run(&dir, &bundle, NAME);
    run.arg("--detach")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    let status = run
        .stderr(std::process::Stdio::null())
        .status()
        .map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("runc run: {status}"));
    }
    let ended = Ended(dir.join("runc"));
    Ok(Box::new(move || {
        timed(|| sh(&mut ended.command(&["exec", NAME, "true"])))
    }))
}

/// Removes runc's container when the job is over.
struct Ended(PathBuf);

impl Ended {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&self.0).args(arguments);
        command
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = sh(&mut self.command(&["delete", "--force", NAME]));
    }
}

pub fn logs_write(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let mut contestants = Vec::new();
    for driver in ["local", "json-file"] {
        let worker = ours(host, &format!("logs-{driver}"), &format!("have {image}"));
        let line = format!("flood {driver} {image}");
        contestants.push(Contestant::maybe(
            format!("longshore, {driver}"),
            worker.map(|worker| again(worker, line)),
        ));
    }
    for driver in ["local", "json-file"] {
        contestants.push(Contestant::maybe(
            format!("docker run, {driver}"),
            docker_flood(host, &image, driver),
        ));
    }
    contestants.push(Contestant::maybe("podman run, k8s-file", podman_flood(host, &image)));
    Job {
        about: "a container prints 200 MB in lines of 100 bytes: start, end, the log written".to_owned(),
        rounds: 3,
        pause: Duration::from_millis(500),
        contestants,
        between: Box::new(|| {}),
    }
}

fn docker_flood(host: &Host, image: &str, driver: &'static str) -> Result<Run, String> {
    let docker = host.docker.as_ref().map_err(Clone::clone)?;
    let (socket, image) = (docker.socket.clone(), image.to_owned());
    sh(&mut docker.docker(&["pull", "--quiet", &image]))?;
    let name = format!("flood-{driver}");
    Ok(Box::new(move || {
        let _ = sh(&mut docker_command(&socket, &["rm", "-f", &name]));
        let options = ["--network", "none", "--log-driver", driver];
        let run = [
            &["run", "-d", "--name", &name],
            &options[..],
            &[&image, "sh", "-c", FLOOD],
        ]
        .concat();
        timed(|| {
            sh(&mut docker_command(&socket, &run))?;
            sh(&mut docker_command(&socket, &["wait", &name]))
        })
    }))
}

fn podman_flood(host: &Host, image: &str) -> Result<Run, String> {
    installed("podman")?;
    let (dir, image) = (host.disk.dir.clone(), image.to_owned());
    sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", &image]))?;
    Ok(Box::new(move || {
        let _ = sh(&mut podman(&dir, &["rm", "-f", "flood"]));
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--log-driver",
            "k8s-file",
        ];
        let run = ["run", "-d", "--name", "flood", "--network", "none"];
        let run = [&run[..], &limits, &[&image, "sh", "-c", FLOOD]].concat();
        timed(|| {
            sh(&mut podman(&dir, &run))?;
            sh(&mut podman(&dir, &["wait", "flood"]))
        })
    }))
}

pub fn logs_read(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let mut contestants = Vec::new();
    for driver in ["local", "json-file"] {
        let worker = ours(host, &format!("read-{driver}"), &format!("flooded {driver} {image}"));
        contestants.push(Contestant::maybe(
            format!("longshore, {driver}"),
            worker.map(|worker| again(worker, "read".to_owned())),
        ));
    }
    let docker = docker_flood(host, &image, "json-file").and_then(|mut flood| {
        flood()?;
        let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
        // The client writes to a pipe that is read to its end.
        Ok(repeat(move || docker_command(&socket, &["logs", "flood-json-file"])))
    });
    contestants.push(Contestant::maybe("docker logs, json-file", docker));
    Job {
        about: "read 200 MB of logs back, all of it in one log without rotation".to_owned(),
        rounds: 3,
        pause: Duration::from_millis(500),
        contestants,
        between: Box::new(|| {}),
    }
}

pub fn list_containers(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let worker = ours(host, "list-containers", &format!("make {LISTED} {image}"));
    let docker = host.docker.as_ref().map_err(Clone::clone).and_then(|docker| {
        let socket = docker.socket.clone();
        sh(&mut docker.docker(&["pull", "--quiet", &image]))?;
        for number in 0..LISTED {
            let name = format!("listed-{number}");
            let _ = sh(&mut docker_command(&socket, &["rm", "-f", &name]));
            sh(&mut docker_command(
                &socket,
                &["create", "--name", &name, "--network", "none", &image, "true"],
            ))?;
        }
        Ok(repeat(move || docker_command(&socket, &["ps", "-aq", "--no-trunc"])))
    });
    Job {
        about: format!("list {LISTED} containers"),
        rounds: 30,
        pause: Duration::from_millis(20),
        contestants: vec![
            Contestant::maybe("longshore", worker.map(|worker| again(worker, format!("ps {LISTED}")))),
            Contestant::maybe("docker ps", docker),
        ],
        between: Box::new(|| {}),
    }
}

pub fn many(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let mut contestants = Vec::new();
    for running in [RUNNING, 0] {
        let worker = ours(host, &format!("many-{running}"), &format!("running {running} {image}"));
        contestants.push(Contestant::maybe(
            format!("longshore, {running} running"),
            worker.map(|worker| again(worker, format!("start {image}"))),
        ));
    }
    Job {
        about: format!("`start` beside {RUNNING} running containers of the same engine, and beside none"),
        rounds: 15,
        pause: Duration::from_millis(60),
        contestants,
        between: Box::new(|| {}),
    }
}

/// Containers that outlive whoever started them: they are removed at the end.
struct Outliving(Worker);

impl Drop for Outliving {
    fn drop(&mut self) {
        let _ = self.0.tell("remove-all");
    }
}

pub fn adopt(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let worker = ours(host, "adopt", &format!("outliving {ADOPTED} {image}")).map(Outliving);
    let again = worker.map(|mut worker| -> Run { Box::new(move || worker.0.tell(&format!("adopt {ADOPTED}"))) });
    Job {
        about: format!(
            "open a root with {ADOPTED} running containers of a program that has gone, list and connect to all"
        ),
        rounds: 15,
        pause: Duration::from_millis(60),
        contestants: vec![Contestant::maybe("longshore", again)],
        between: Box::new(|| {}),
    }
}
