//! The jobs `pull-large`, `pull-zstd` and `pull-files`.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::host::Host;
use crate::images;
use crate::limits;
use crate::measure::{Contestant, Job, Run, timed};
use crate::peers::containerd::ctr;
use crate::peers::docker::docker_command;
use crate::peers::podman::podman;
use crate::peers::{installed, sh};
use crate::support::image::Layout;
use crate::worker::{Worker, cpu_of};

pub fn large(host: &mut Host) -> Job {
    pull(
        host,
        "large",
        "7 layers, 640 MB of a distribution's files",
        images::large,
    )
}

pub fn zstd(host: &mut Host) -> Job {
    let mut job = pull(
        host,
        "zstd",
        "7 layers, 640 MB of a distribution's files, packed with zstd",
        images::large_zstd,
    );
    for contestant in &mut job.contestants {
        // Graph drivers of Docker before 23 take no zstd.
        if contestant.name == "docker pull" && docker_is_old() {
            contestant.run = Err("this docker reads no zstd layers".to_owned());
        }
    }
    job
}

fn docker_is_old() -> bool {
    let version = std::process::Command::new("dockerd").arg("--version").output();
    let text = version.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let major = text.split("version ").nth(1).and_then(|rest| rest.split('.').next());
    major
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major < 23)
}

pub fn files(host: &mut Host) -> Job {
    pull(host, "files", "busybox and 50,000 small files", images::files)
}

fn pull(host: &mut Host, name: &str, about: &str, make: impl FnOnce(&Path) -> Result<Layout, String>) -> Job {
    let image = host.reference(name);
    let layout = match host.image(name, make) {
        Ok(layout) => layout,
        Err(reason) => return nothing(about, reason),
    };
    let megabytes = layout.layers.iter().map(|(_, size)| size >> 20).sum::<u64>();
    let least = Least::default();
    let contestants = vec![
        Contestant::maybe("longshore", ours_pull(host, &image, &least)),
        Contestant::maybe("docker pull", docker_pull(host, &image, &least)),
        Contestant::maybe("podman pull", podman_pull(host, &image)),
        Contestant::maybe("ctr images pull", ctr_pull(host, &image)),
        Contestant::new("limit", limit_pull(host, name, layout)),
    ];
    Job {
        about: format!("pull and unpack {about}, {megabytes} MB compressed; journaled ext4, empty store"),
        rounds: 3,
        pause: Duration::from_millis(500),
        contestants,
        between: Box::new(nix::unistd::sync),
    }
}

fn nothing(about: &str, reason: String) -> Job {
    let contestants = vec![Contestant::maybe("longshore", Err(reason))];
    Job {
        about: about.to_owned(),
        rounds: 0,
        pause: Duration::ZERO,
        contestants,
        between: Box::new(|| {}),
    }
}

/// A worker and a root per pull: the store is empty each time. Says what the worker's memory peaked at.
fn ours_pull(host: &Host, image: &str, least: &Least) -> Result<Run, String> {
    let least = Rc::clone(least);
    let (disk, line) = (host.disk.dir.clone(), format!("pull {image}"));
    let peak = Rc::new(RefCell::new(0));
    let mut round = 0;
    Ok(Box::new(move || {
        round += 1;
        let root = disk.join(format!("ours-pull-{round}"));
        let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
        let begun = worker.cpu();
        let time = worker.tell(&line)?;
        let cpu = worker.cpu().saturating_sub(begun);
        let so_far = least.get().unwrap_or(cpu);
        least.set(Some(so_far.min(cpu)));
        println!("  (longshore: {:.2} s of processor time)", cpu.as_secs_f64());
        let bytes = worker.resident_bytes().unwrap_or(0);
        if bytes > peak.replace_with(|peak| bytes.max(*peak)) {
            println!("  (longshore: peak memory {} MB)", bytes >> 20);
        }
        drop(worker);
        std::fs::remove_dir_all(&root).map_err(|error| error.to_string())?;
        Ok(time)
    }))
}

/// The least processor time that a pull of ours took.
type Least = Rc<Cell<Option<Duration>>>;

/// Says also how many times ours that is.
fn say_cpu(who: &str, time: Duration, ours: Option<Duration>) {
    let seconds = time.as_secs_f64();
    let times = ours.map_or(f64::NAN, |ours| seconds / ours.as_secs_f64());
    println!("  ({who}: {seconds:.2} s of processor time, {times:.1} times ours)");
}

fn docker_pull(host: &Host, image: &str, least: &Least) -> Result<Run, String> {
    let least = Rc::clone(least);
    let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
    let image = image.to_owned();
    let mut daemons: Vec<u32> = host.docker.iter().map(|docker| docker.pid()).collect();
    daemons.extend(host.containerd.iter().map(|containerd| containerd.pid()));
    let cpu = move || daemons.iter().map(|pid| cpu_of(*pid)).sum::<Duration>();
    Ok(Box::new(move || {
        let begun = cpu();
        let time = timed(|| sh(&mut docker_command(&socket, &["pull", "--quiet", &image])))?;
        say_cpu("docker and containerd", cpu().saturating_sub(begun), least.get());
        sh(&mut docker_command(&socket, &["rmi", &image]))?;
        Ok(time)
    }))
}

fn podman_pull(host: &Host, image: &str) -> Result<Run, String> {
    installed("podman")?;
    let (dir, image) = (host.disk.dir.clone(), image.to_owned());
    Ok(Box::new(move || {
        let time = timed(|| sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", &image])))?;
        sh(&mut podman(&dir, &["rmi", &image]))?;
        Ok(time)
    }))
}

fn ctr_pull(host: &Host, image: &str) -> Result<Run, String> {
    let socket = host.containerd.as_ref().map_err(Clone::clone)?.socket.clone();
    let image = image.to_owned();
    Ok(Box::new(move || {
        let time = timed(|| sh(&mut ctr(&socket, &["images", "pull", "--plain-http", &image])))?;
        sh(&mut ctr(&socket, &["images", "rm", "--sync", &image]))?;
        Ok(time)
    }))
}

fn limit_pull(host: &Host, name: &str, layout: Layout) -> impl FnMut() -> Result<Duration, String> + 'static {
    let (from, disk, name) = (host.registry.addr, host.disk.dir.clone(), name.to_owned());
    let mut round = 0;
    move || {
        round += 1;
        let dir = disk.join(format!("limit-pull-{round}"));
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let time = timed(|| limits::pull::pull(from, &name, &layout.layers, &dir))?;
        std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
        Ok(time)
    }
}
