//! The docker command through our daemon, and through Docker's.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use crate::host::Host;
use crate::jobs::{MakeCommand, built, docker_run, once};
use crate::measure::{Contestant, Job};
use crate::peers::docker::docker_command;
use crate::peers::{await_daemon, daemon, end, installed, sh};
use crate::support::names_in;

/// Long enough for what a container left in memory to be given back.
const REST: Duration = Duration::from_secs(3);

/// `longshored`; ended when dropped.
struct Longshored(Child);

impl Drop for Longshored {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

pub fn run_api(host: &mut Host) -> Job {
    let ours = through_ours(host);
    let theirs = docker_run(host);
    let about = "`docker run --rm --network none busybox true` through either daemon; 60 ms between runs";
    let about = match (&ours, &theirs) {
        (Ok((_, daemon)), Ok(_)) => format!("{about}; idle memory: {}", memory(host, daemon.0.id())),
        _ => about.to_owned(),
    };
    let ours = ours.map(|(mut command, daemon)| -> MakeCommand {
        Box::new(move |serial| {
            let _daemon = &daemon;
            command(serial)
        })
    });
    Job {
        about,
        rounds: 15,
        pause: Duration::from_millis(60),
        contestants: vec![
            Contestant::maybe("longshored", ours.map(once)),
            Contestant::maybe("dockerd", theirs.map(once)),
        ],
        between: Box::new(|| {}),
    }
}

fn through_ours(host: &Host) -> Result<(MakeCommand, Longshored), String> {
    installed("docker")?;
    let dir = host.dir("ours-api");
    let program = built("longshored", "longshored")?;
    let socket = dir.join("sock");
    let mut command = daemon(&program.display().to_string(), &dir.join("log"))?;
    command.arg("--root").arg(dir.join("root"));
    command.arg("--host").arg(format!("unix://{}", socket.display()));
    let mut running = Longshored(command.spawn().map_err(|error| error.to_string())?);
    let answers = || sh(&mut docker_command(&socket, &["version"])).is_ok();
    await_daemon(&mut running.0, answers).map_err(|error| format!("longshored {error}"))?;
    let image = host.reference("busybox");
    sh(&mut docker_command(&socket, &["pull", "--quiet", &image]))?;
    let run = move |_| docker_command(&socket, &["run", "--rm", "--network", "none", &image, "true"]);
    Ok((Box::new(run), running))
}

/// What the daemons hold when they have just pulled an image and nothing runs: the resident memory of each process with all
/// that descend from it.
fn memory(host: &Host, ours: u32) -> String {
    std::thread::sleep(REST);
    let theirs: u64 = [
        host.docker.as_ref().map(|docker| docker.pid()),
        host.containerd.as_ref().map(|containerd| containerd.pid()),
    ]
    .into_iter()
    .flatten()
    .map(resident_kib)
    .sum();
    let ours = resident_kib(ours);
    format!(
        "longshored {:.1} MB, dockerd + containerd {:.1} MB, {:.1} times",
        ours as f64 / 1024.0,
        theirs as f64 / 1024.0,
        theirs as f64 / ours.max(1) as f64
    )
}

fn resident_kib(root: u32) -> u64 {
    let mut family = vec![root];
    let all: Vec<(u32, u32)> = names_in(Path::new("/proc"))
        .iter()
        .filter_map(|name| parent(name))
        .collect();
    while let Some((pid, _)) = all
        .iter()
        .find(|(pid, parent)| family.contains(parent) && !family.contains(pid))
    {
        family.push(*pid);
    }
    family.iter().map(|pid| field(*pid, "VmRSS:").unwrap_or(0)).sum()
}

fn parent(name: &str) -> Option<(u32, u32)> {
    let pid = name.parse().ok()?;
    let parent = field(pid, "PPid:")?;
    Some((pid, u32::try_from(parent).ok()?))
}

/// The number of a line of a process's status.
fn field(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
