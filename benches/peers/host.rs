//! What all jobs stand on: a journaled disk, a registry with the images, busybox unpacked, and the peers' daemons.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::peers::{containerd::Containerd, docker::Docker, networked::Networked, sh};
use crate::support::image::{self, Files, Layout};
use crate::support::registry::Registry;
use crate::support::{is_root, scratch};

/// Room for two images in five stores.
const DISK_BYTES: u64 = 24 << 30;

/// Dropped in the order of the fields: daemons, registry, disk, files.
pub struct Host {
    pub docker: Result<Docker, String>,
    networked: OnceCell<Result<Networked, String>>,
    pub containerd: Result<Containerd, String>,
    pub registry: Registry,
    pub disk: Disk,
    /// Busybox unpacked, for those that take a directory.
    pub rootfs: PathBuf,
    pub busybox: Layout,
    layouts: TempDir,
    scratch: TempDir,
}

impl Host {
    pub fn prepare() -> Result<Self, String> {
        if !is_root() {
            return Err("the peers need root".to_owned());
        }
        let scratch = scratch::enter();
        let disk = Disk::mount(scratch.path())?;
        let layouts = scratch::fresh("layouts");
        let busybox = image::busybox(&layouts.path().join("busybox")).map_err(stop)?;
        let registry = Registry::plain().map_err(stop)?;
        busybox.push(registry.addr, "busybox", "latest").map_err(stop)?;
        let rootfs = disk.dir.join("rootfs");
        fs::create_dir_all(&rootfs).map_err(|error| error.to_string())?;
        let layer = busybox.blob(&busybox.layers[0].0).map_err(|error| error.to_string())?;
        tar::Archive::new(flate2::read::GzDecoder::new(&layer[..]))
            .unpack(&rootfs)
            .map_err(|error| error.to_string())?;
        let containerd = Containerd::start(&disk.dir);
        let docker = match &containerd {
            Ok(containerd) => Docker::start(&disk.dir, containerd),
            Err(reason) => Err(reason.clone()),
        };
        Ok(Self {
            docker,
            networked: OnceCell::new(),
            containerd,
            registry,
            disk,
            rootfs,
            busybox,
            layouts,
            scratch,
        })
    }

    /// An image in the registry, made at the first call.
    pub fn image(&self, name: &str, make: impl FnOnce(&Path) -> Result<Layout, String>) -> Result<Layout, String> {
        let layout = make(&self.layouts.path().join(name))?;
        layout.push(self.registry.addr, name, "latest").map_err(stop)?;
        Ok(layout)
    }

    /// A directory with so many layouts, of an image each that shares nothing with the others.
    pub fn small_layouts(&self, count: usize) -> Result<PathBuf, String> {
        let dir = self.layouts.path().join(format!("small-{count}"));
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        for number in 0..count {
            let files = Files::new().file("number", 0o644, number.to_string());
            let config = serde_json::json!({ "Cmd": ["true"], "Labels": { "number": number.to_string() } });
            image::write_layout(&dir.join(number.to_string()), &[files], &config).map_err(stop)?;
        }
        Ok(dir)
    }

    /// The dockerd of the jobs about networks, started at the first call.
    pub fn networked(&self) -> Result<&Networked, String> {
        let started = self
            .networked
            .get_or_init(|| Networked::start(&self.disk.dir, &self.busybox));
        started.as_ref().map_err(Clone::clone)
    }

    /// A fresh directory on the journaled disk.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.disk.dir.join(name);
        let _ = fs::create_dir_all(&dir);
        dir
    }

    pub fn reference(&self, name: &str) -> String {
        self.registry.reference(&format!("{name}:latest"))
    }
}

pub fn stop(stop: crate::frame::Stop) -> String {
    match stop {
        crate::frame::Stop::Skip(reason) | crate::frame::Stop::Fail(reason) => reason,
    }
}

/// A journaled ext4 on a loop file. Without a journal, creating files in a directory group where many were just deleted is
/// twenty times slower (the kernel passes over recently freed inodes one by one), and a benchmark deletes all the time. The
/// loop goes past the cache of the file below, where it can: a disk does not copy what it is given with the processor.
pub struct Disk {
    pub dir: PathBuf,
}

impl Disk {
    fn mount(scratch: &Path) -> Result<Self, String> {
        let file = scratch.join("disk.img");
        let dir = scratch.join("disk");
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let image = fs::File::create(&file).map_err(|error| error.to_string())?;
        image.set_len(DISK_BYTES).map_err(|error| error.to_string())?;
        sh(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "has_journal", "-E", "lazy_itable_init=1"])
            .arg(&file))?;
        sh(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&dir))?;
        let disk = Self { dir };
        if let Err(error) = disk.go_direct() {
            println!("the disk of the stores is a loop with a cache of its own: {error}");
        }
        Ok(disk)
    }
}

impl Disk {
    fn go_direct(&self) -> Result<(), String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let shown = self.dir.display().to_string();
        let of_ours = |line: &&str| line.split(' ').nth(1) == Some(&shown);
        let device = mounts.lines().find(of_ours).and_then(|line| line.split(' ').next());
        let device = device.ok_or("its mount is not listed")?;
        sh(Command::new("losetup").arg("--direct-io=on").arg(device))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for attempt in 0..50 {
            if sh(Command::new("umount").arg(&self.dir)).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            if attempt == 40 {
                let _ = sh(Command::new("umount").arg("--lazy").arg(&self.dir));
            }
        }
    }
}
