//! The jobs `cp-in`, `cp-out`, `volume-snapshot` and `forks`: files and volumes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::changed::NAME;
use crate::host::{Host, stop};
use crate::measure::{Contestant, Job, Run, timed};
use crate::peers::docker::docker_command;
use crate::peers::podman::podman;
use crate::peers::{installed, sh};
use crate::support::disk::Disk;
use crate::worker::Worker;

/// Makes a database directory of 100 MB.
pub const DATABASE: &str =
    "mkdir /db; for i in $(seq 20); do dd if=/dev/urandom of=/db/$i bs=1M count=5 2>/dev/null; done";
/// How many forks.
pub const FORKS: usize = 50;
const VOLUME_BYTES: u64 = 1 << 30;

/// Twenty files of 10 MB, as a tar.
fn archive(dir: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| error.to_string();
    let file = dir.join("cp.tar");
    let mut archive = tar::Builder::new(File::create(&file).map_err(failed)?);
    let mut word = 1_u64;
    for number in 0..20 {
        let mut bytes = Vec::with_capacity(10 << 20);
        while bytes.len() < 10 << 20 {
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let path = format!("data/{number}");
        archive
            .append_data(&mut header, path, bytes.as_slice())
            .map_err(failed)?;
    }
    archive.into_inner().map_err(failed)?;
    Ok(file)
}

pub fn cp_in(host: &mut Host) -> Job {
    job(host, true)
}

pub fn cp_out(host: &mut Host) -> Job {
    job(host, false)
}

fn job(host: &mut Host, inward: bool) -> Job {
    let tar = archive(&host.disk.dir);
    let image = host.reference("busybox");
    let with =
        |make: &dyn Fn(&Path) -> Result<Run, String>| tar.as_ref().map_err(Clone::clone).and_then(|tar| make(tar));
    let contestants = vec![
        Contestant::maybe("longshore", with(&|tar| ours(host, &image, tar, inward))),
        Contestant::maybe("docker cp", with(&|tar| docker(host, &image, tar, inward))),
        Contestant::maybe("podman cp", with(&|tar| with_podman(host, &image, tar, inward))),
    ];
    Job {
        about: format!(
            "200 MB in 20 files {} a running container, as a tar",
            if inward { "into" } else { "out of" }
        ),
        rounds: 10,
        pause: Duration::from_millis(100),
        contestants,
        between: Box::new(nix::unistd::sync),
    }
}

fn ours(host: &Host, image: &str, tar: &Path, inward: bool) -> Result<Run, String> {
    let root = host.disk.dir.join(format!("ours-cp-{inward}"));
    let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
    worker.tell(&format!("living {image}"))?;
    let inside = format!("cp-in {}", tar.display());
    worker.tell(&inside)?;
    Ok(Box::new(move || worker.tell(if inward { &inside } else { "cp-out" })))
}

/// `cp - NAME:/` and `cp NAME:/data -` of a client.
fn copies(command: impl Fn(&[&str]) -> Command + 'static, tar: &Path, inward: bool) -> Run {
    let tar = tar.to_owned();
    let copy = move |inward: bool| {
        timed(|| {
            let mut command = match inward {
                true => command(&["cp", "-", &format!("{NAME}:/")]),
                false => command(&["cp", &format!("{NAME}:/data"), "-"]),
            };
            match inward {
                true => command.stdin(File::open(&tar).map_err(|error| error.to_string())?),
                false => command.stdin(Stdio::null()),
            };
            let status = command
                .stdout(Stdio::null())
                .status()
                .map_err(|error| error.to_string())?;
            if status.success() {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
    };
    let mut filled = false;
    Box::new(move || {
        if !filled {
            copy(true)?;
            filled = true;
        }
        copy(inward)
    })
}

fn docker(host: &Host, image: &str, tar: &Path, inward: bool) -> Result<Run, String> {
    let socket = host.docker.as_ref().map_err(Clone::clone)?.socket.clone();
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
    Ok(copies(move |arguments| docker_command(&socket, arguments), tar, inward))
}

fn with_podman(host: &Host, image: &str, tar: &Path, inward: bool) -> Result<Run, String> {
    installed("podman")?;
    let dir = host.disk.dir.clone();
    sh(&mut podman(&dir, &["pull", "--quiet", "--tls-verify=false", image]))?;
    let _ = sh(&mut podman(&dir, &["rm", "-f", NAME]));
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
    sh(&mut podman(&dir, &run))?;
    Ok(copies(move |arguments| podman(&dir, arguments), tar, inward))
}

/// On a disk of its own that shares blocks.
pub fn volume_snapshot(_host: &mut Host) -> Job {
    let contestants = match Disk::of_kind("xfs", 6 << 30) {
        Ok(disk) => {
            let root = disk.path().join("root");
            let copied = with_cp(disk.path());
            vec![
                Contestant::maybe("longshore", snapshots(&root, disk)),
                Contestant::maybe("limit: cp --reflink=always", copied),
            ]
        }
        Err(reason) => vec![Contestant::maybe("longshore", Err(stop(reason)))],
    };
    Job {
        about: "a snapshot of a volume with a file of 1 GiB and 1,000 small ones, on xfs".to_owned(),
        rounds: 10,
        pause: Duration::from_millis(100),
        contestants,
        between: Box::new(|| {}),
    }
}

fn fill(dir: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut file = File::create(dir.join("large")).map_err(failed)?;
    for number in 0..VOLUME_BYTES >> 20 {
        file.write_all(&vec![number as u8; 1 << 20]).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    for number in 0..1000 {
        fs::write(dir.join(number.to_string()), number.to_string().repeat(500)).map_err(failed)?;
    }
    Ok(())
}

fn snapshots(root: &Path, disk: Disk) -> Result<Run, String> {
    let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
    worker.tell("volume")?;
    fill(&root.join("volumes/data/_data"))?;
    // The disk goes when the worker has.
    Ok(Box::new(move || {
        let _mounted = &disk;
        worker.tell("volume-snapshot")
    }))
}

fn with_cp(disk: PathBuf) -> Result<Run, String> {
    let (from, to) = (disk.join("from"), disk.join("to"));
    fs::create_dir(&from).map_err(|error| error.to_string())?;
    fill(&from)?;
    Ok(Box::new(move || {
        let time = timed(|| sh(Command::new("cp").args(["-a", "--reflink=always"]).arg(&from).arg(&to)))?;
        fs::remove_dir_all(&to).map_err(|error| error.to_string())?;
        Ok(time)
    }))
}

/// The time of one of so many.
pub fn forks(host: &mut Host) -> Job {
    let image = host.reference("busybox");
    let begun = |deed: &'static str, name: &str| -> Result<Run, String> {
        let root = host.disk.dir.join(format!("ours-{name}"));
        let mut worker = Worker::start("ours", &[&root.display().to_string(), "0"])?;
        worker.tell(&format!("template {image}"))?;
        let line = format!("{deed} {FORKS} {image}");
        Ok(Box::new(move || worker.tell(&line).map(|time| time / FORKS as u32)))
    };
    let contestants = vec![
        Contestant::maybe("longshore: a plain create and start", begun("plain", "plain")),
        Contestant::maybe("longshore: a fork and its start", begun("forks", "forks")),
    ];
    Job {
        about: format!("one of {FORKS} forks of a container with a database directory of 100 MB, created and started"),
        rounds: 5,
        pause: Duration::from_millis(200),
        contestants,
        between: Box::new(|| {}),
    }
}
