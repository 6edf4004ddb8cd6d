//! The jobs. Each says what it measures and who takes part; ours comes first.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::api;
use crate::building;
use crate::changed;
use crate::host::Host;
use crate::keeping;
use crate::limits;
use crate::living;
use crate::measure::{Contestant, Job, Run, timed};
use crate::networks;
use crate::peers::containerd::ctr;
use crate::peers::docker::docker_command;
use crate::peers::podman::{LIMITS, podman};
use crate::peers::{at_once, installed, runc, sh};
use crate::pull;
use crate::transfer;
use crate::worker::{self, Worker};

pub type Prepare = fn(&mut Host) -> Job;

pub const NAMES: [&str; 38] = [
    "start",
    "start-parallel",
    "run-cli",
    "run-api",
    "pull-large",
    "pull-files",
    "diff",
    "commit",
    "build-cold",
    "build-run6",
    "build-cached",
    "build-context",
    "cp-in",
    "cp-out",
    "volume-snapshot",
    "forks",
    "pull-zstd",
    "pull-again",
    "push-unchanged",
    "push-changed",
    "save",
    "load",
    "list-images",
    "open",
    "exec",
    "logs-write",
    "logs-read",
    "list-containers",
    "many",
    "adopt-200",
    "net-throughput",
    "net-published",
    "net-connections",
    "net-dns",
    "net-dns-at-once",
    "net-start",
    "net-start-parallel",
    "net-many",
];

pub fn by_name(name: &str) -> Option<Prepare> {
    match name {
        "start" => Some(start),
        "start-parallel" => Some(start_parallel),
        "run-cli" => Some(run_cli),
        "run-api" => Some(api::run_api),
        "pull-large" => Some(pull::large),
        "pull-files" => Some(pull::files),
        "diff" => Some(changed::diff),
        "commit" => Some(changed::commit),
        "build-cold" => Some(building::cold),
        "build-run6" => Some(building::run6),
        "build-cached" => Some(building::cached),
        "build-context" => Some(building::many_files),
        "cp-in" => Some(keeping::cp_in),
        "cp-out" => Some(keeping::cp_out),
        "volume-snapshot" => Some(keeping::volume_snapshot),
        "forks" => Some(keeping::forks),
        "pull-zstd" => Some(pull::zstd),
        "pull-again" => Some(transfer::pull_again),
        "push-unchanged" => Some(transfer::push_unchanged),
        "push-changed" => Some(transfer::push_changed),
        "save" => Some(transfer::save),
        "load" => Some(transfer::load),
        "list-images" => Some(transfer::list_images),
        "open" => Some(open),
        "exec" => Some(living::exec),
        "logs-write" => Some(living::logs_write),
        "logs-read" => Some(living::logs_read),
        "list-containers" => Some(living::list_containers),
        "many" => Some(living::many),
        "adopt-200" => Some(living::adopt),
        "net-throughput" => Some(networks::throughput),
        "net-published" => Some(networks::published),
        "net-connections" => Some(networks::connections),
        "net-dns" => Some(networks::dns),
        "net-dns-at-once" => Some(networks::dns_at_once),
        "net-start" => Some(networks::start),
        "net-start-parallel" => Some(networks::start_parallel),
        "net-many" => Some(networks::many),
        _ => None,
    }
}

const AT_ONCE: usize = 50;

/// A worker that is told one line per run.
fn told(role: &str, arguments: &[&Path], ballast: Option<usize>, line: String) -> Result<Run, String> {
    let mut strings: Vec<String> = arguments.iter().map(|path| path.display().to_string()).collect();
    strings.extend(ballast.map(|ballast| ballast.to_string()));
    let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
    let mut worker = Worker::start(role, &strings)?;
    Ok(Box::new(move || worker.tell(&line)))
}

fn ours(host: &Host, ballast: usize, line: String) -> Result<Run, String> {
    told("ours", &[&host.dir(&format!("ours-{ballast}"))], Some(ballast), line)
}

/// Says how what the limit mounts differs from what ours does: the ratio means what it says only where nothing does.
fn compare_mounts(host: &Host) {
    let differences = || -> Result<Vec<String>, String> {
        let file = host.dir("limit").join("ours-mountinfo");
        let line = format!("mounts {} {}", host.reference("busybox"), file.display());
        ours(host, 0, line)?()?;
        let ours = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let limit = worker::starter(&host.dir("limit"), &host.rootfs).and_then(|starter| starter.mounts());
        let (ours, limit) = (mounted(&ours), mounted(&limit.map_err(|error| error.to_string())?));
        let only_ours = ours.iter().filter(|line| !limit.contains(line));
        let only_limit = limit.iter().filter(|line| !ours.contains(line));
        let only_ours = only_ours.map(|line| format!("ours alone has {line}"));
        Ok(only_ours
            .chain(only_limit.map(|line| format!("the limit alone has {line}")))
            .collect())
    };
    match differences() {
        Ok(list) if list.is_empty() => println!("  (ours and the limit mount the same)"),
        Ok(list) => list.iter().for_each(|line| println!("  ({line})")),
        Err(reason) => println!("  (what is mounted could not be compared: {reason})"),
    }
}

/// Place, type and access of each mount. Source: proc_pid_mountinfo(5).
fn mounted(mountinfo: &str) -> Vec<String> {
    let line = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let access = fields.get(5)?.split(',').next()?;
        let kind = rest.split(' ').next()?;
        // A bind of a file or of a node is one, whatever it lies on.
        let node = fields.get(4)?.starts_with("/dev/") && kind != "devpts" && kind != "mqueue" && access == "rw";
        let bind = node && *fields.get(4)? != "/dev/shm";
        Some(format!(
            "{} {} {access}",
            fields.get(4)?,
            if bind { "bind" } else { kind }
        ))
    };
    let mut all: Vec<String> = mountinfo.lines().filter_map(line).collect();
    all.sort();
    all
}

fn start(host: &mut Host) -> Job {
    compare_mounts(host);
    let pull = format!("start {}", host.reference("busybox"));
    let mut contestants = vec![
        Contestant::maybe("longshore", ours(host, 0, pull.clone())),
        Contestant::maybe("longshore in 500 MB", ours(host, 500, pull)),
    ];
    contestants.extend(peers_once(host));
    let limit = told("limit", &[&host.dir("limit"), &host.rootfs], None, "start".to_owned());
    contestants.push(Contestant::maybe("limit", limit));
    Job {
        about: "create to removed, `true` in busybox, no network; 60 ms between runs".to_owned(),
        rounds: 15,
        pause: Duration::from_millis(60),
        contestants,
        between: Box::new(|| {}),
    }
}

/// `run` of each peer, as its client does it.
fn peers_once(host: &Host) -> Vec<Contestant> {
    peer_commands(host)
        .into_iter()
        .map(|(name, command)| Contestant::maybe(name, command.map(once)))
        .collect()
}

pub type MakeCommand = Box<dyn FnMut(usize) -> Command>;

pub fn once(mut command: MakeCommand) -> Run {
    let mut serial = 0;
    Box::new(move || {
        serial += 1;
        let mut command = command(serial);
        timed(|| sh(&mut command))
    })
}

fn peer_commands(host: &Host) -> Vec<(&'static str, Result<MakeCommand, String>)> {
    vec![
        ("docker run", docker_run(host)),
        ("podman run", podman_run(host)),
        ("ctr run", ctr_run(host)),
        ("runc run", runc_run(host)),
    ]
}

pub fn docker_run(host: &Host) -> Result<MakeCommand, String> {
    let docker = host.docker.as_ref().map_err(Clone::clone)?;
    let image = host.reference("busybox");
    sh(&mut docker.docker(&["pull", "--quiet", &image]))?;
    let socket = docker.socket.clone();
    Ok(Box::new(move |_| {
        docker_command(&socket, &["run", "--rm", "--network", "none", &image, "true"])
    }))
}

fn podman_run(host: &Host) -> Result<MakeCommand, String> {
    installed("podman")?;
    let (dir, image) = (host.disk.dir.clone(), host.reference("busybox"));
    sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", &image]))?;
    Ok(Box::new(move |_| {
        let run = ["run", "--rm", "--network", "none", "--pull", "never"];
        podman(&dir, &[&run, &LIMITS[..], &[&image, "true"]].concat())
    }))
}

fn ctr_run(host: &Host) -> Result<MakeCommand, String> {
    let containerd = host.containerd.as_ref().map_err(Clone::clone)?;
    let image = host.reference("busybox");
    sh(&mut containerd.ctr(&["images", "pull", "--plain-http", &image]))?;
    let socket = containerd.socket.clone();
    Ok(Box::new(move |serial| {
        ctr(&socket, &["run", "--rm", &image, &format!("bench-{serial}"), "true"])
    }))
}

fn runc_run(host: &Host) -> Result<MakeCommand, String> {
    let dir = host.dir("runc");
    let bundle = runc::bundle(&dir, &host.rootfs)?;
    Ok(Box::new(move |serial| {
        runc::run(&dir, &bundle, &format!("bench-{serial}"))
    }))
}

fn start_parallel(host: &mut Host) -> Job {
    let line = format!("parallel {AT_ONCE} {}", host.reference("busybox"));
    let mut contestants = vec![Contestant::maybe("longshore", ours(host, 0, line))];
    for (name, command) in peer_commands(host) {
        let run = command.map(|mut command| -> Run {
            let mut round = 0;
            Box::new(move || {
                round += 1;
                at_once(AT_ONCE, |number| command(1000 * round + number))
            })
        });
        contestants.push(Contestant::maybe(name, run));
    }
    let limit = told(
        "limit",
        &[&host.dir("limit"), &host.rootfs],
        None,
        format!("start {AT_ONCE}"),
    );
    contestants.push(Contestant::maybe("limit", limit));
    Job {
        about: format!("{AT_ONCE} containers with `true` at once, until the last is removed"),
        rounds: 3,
        pause: Duration::from_millis(500),
        contestants,
        between: Box::new(|| {}),
    }
}

fn run_cli(host: &mut Host) -> Job {
    let mut contestants = vec![Contestant::maybe("longshore run", client(host).map(once))];
    contestants.extend(peers_once(host));
    let arguments = [
        host.dir("limit").display().to_string(),
        host.rootfs.display().to_string(),
    ];
    contestants.push(Contestant::new("limit", move || {
        let arguments = arguments.each_ref().map(String::as_str);
        timed(|| sh(&mut worker::command("limit-once", &arguments)))
    }));
    Job {
        about: "`run --rm --network none busybox true` as a whole process; 60 ms between runs".to_owned(),
        rounds: 15,
        pause: Duration::from_millis(60),
        contestants,
        between: Box::new(|| {}),
    }
}

/// Our client.
fn client(host: &Host) -> Result<MakeCommand, String> {
    let (program, root) = (built("longshore-cli", "longshore")?, host.dir("ours-cli"));
    let image = host.reference("busybox");
    sh(Command::new(&program).arg("--root").arg(&root).args(["pull", &image]))?;
    Ok(Box::new(move |_| {
        let mut command = Command::new(&program);
        command
            .arg("--root")
            .arg(&root)
            .args(["run", "--rm", "--network", "none", &image, "true"]);
        command
    }))
}

/// A program of ours, in the release profile.
pub fn built(package: &str, program: &str) -> Result<PathBuf, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    sh(cargo
        .current_dir(manifest)
        .args(["build", "--quiet", "--release", "--package", package]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| manifest.join("target"), PathBuf::from);
    Ok(target.join("release").join(program))
}

fn open(host: &mut Host) -> Job {
    let mut contestants = Vec::new();
    for held in [0, 1000] {
        let root = host.dir(&format!("ours-open-{held}"));
        let run = ours_open(host, held, &root);
        contestants.push(Contestant::maybe(format!("longshore, {held} held"), run));
    }
    let dir = host.dir("limit-open");
    contestants.push(Contestant::new("limit", move || {
        let start = Instant::now();
        limits::open::open(&dir).map_err(|error| error.to_string())?;
        Ok(start.elapsed())
    }));
    Job {
        about: "open a root and close it again; with nothing in it, and with 1,000 images and containers".to_owned(),
        rounds: 30,
        pause: Duration::from_millis(20),
        contestants,
        between: Box::new(|| {}),
    }
}

/// The containers are their maker's, who therefore stays while others open the root.
fn ours_open(host: &Host, held: usize, root: &Path) -> Result<Run, String> {
    let mut maker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
    maker.tell(&format!("fill {}", host.small_layouts(held)?.display()))?;
    let mut open = told(
        "ours",
        &[&host.dir("unused")],
        Some(0),
        format!("open {}", root.display()),
    )?;
    Ok(Box::new(move || {
        let _maker = &maker;
        open()
    }))
}
