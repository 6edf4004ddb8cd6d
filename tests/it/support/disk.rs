//! File systems of one's own, for root: small ones that can be filled, and ones that share blocks.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use super::{is_root, program, runtime, scratch};
use crate::frame::{Check, Stop, fail, skip};

/// A mounted file system; gone when it is dropped.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    /// In memory.
    pub fn tmpfs(bytes: u64) -> Result<Self, Stop> {
        let disk = Self::place()?;
        let options = format!("size={bytes},mode=755");
        let place = disk.dir.path().join("mounted");
        mount(
            Some("none"),
            &place,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
        Ok(disk)
    }

    /// On a file, made by `mkfs.KIND`.
    pub fn of_kind(kind: &str, bytes: u64) -> Result<Self, Stop> {
        let disk = Self::place()?;
        let image = disk.dir.path().join("image");
        fs::File::create(&image)?.set_len(bytes)?;
        run(Command::new(program(&format!("mkfs.{kind}"))?).arg("-q").arg(&image))?;
        let place = disk.dir.path().join("mounted");
        run(Command::new(program("mount")?)
            .args(["-o", "loop", "-t", kind])
            .arg(&image)
            .arg(place))?;
        Ok(disk)
    }

    fn place() -> Result<Self, Stop> {
        if !is_root() {
            return skip("only root can mount a file system in the host's namespace");
        }
        runtime::namespaces()?;
        let dir = scratch::fresh("disk");
        fs::create_dir(dir.path().join("mounted"))?;
        Ok(Self { dir })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    /// Bytes that are free.
    pub fn free(&self) -> Result<u64, Stop> {
        let now = statvfs(&self.path())?;
        Ok(now.blocks_available() * now.fragment_size())
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills it until so much is free, more or less.
    pub fn leave(&self, free: u64) -> Check {
        let mut file = fs::File::create(self.ballast())?;
        let more = self.free()?.saturating_sub(free);
        let filled = std::io::copy(&mut std::io::repeat(1).take(more), &mut file).and_then(|_| file.flush());
        match filled {
            Err(error) if error.kind() != std::io::ErrorKind::StorageFull => Err(error.into()),
            // ext4 gives what is really there at the next sync only; what a full disk does not take then is no matter.
            _ => {
                let _ = file.sync_all();
                Ok(())
            }
        }
    }

    /// Takes what fills it away.
    pub fn give_back(&self) -> Check {
        Ok(fs::remove_file(self.ballast())?)
    }

    /// From now on nobody can write.
    pub fn read_only(&self) -> Check {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        Ok(mount(None::<&str>, &self.path(), None::<&str>, flags, None::<&str>)?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
    }
}

fn run(command: &mut Command) -> Check {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A host without the file system or without loop devices is no failure of ours.
    match said.contains("unknown filesystem") || said.contains("loop device") {
        true => skip(said.trim()),
        false => fail(format!("{command:?}: {said}")),
    }
}

/// An overlay over directories of the scratch directory: what the root of a container looks like to a program in it.
#[derive(Debug)]
pub struct OverlayRoot {
    dir: TempDir,
}

impl OverlayRoot {
    pub fn new() -> Result<Self, Stop> {
        if !is_root() {
            return skip("only root can mount an overlay in the host's namespace");
        }
        runtime::namespaces()?;
        let dir = scratch::fresh("overlay");
        let part = |name: &str| -> std::io::Result<PathBuf> {
            let path = dir.path().join(name);
            fs::create_dir(&path)?;
            Ok(path)
        };
        let (lower, upper, work, merged) = (part("lower")?, part("upper")?, part("work")?, part("merged")?);
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        mount(
            Some("none"),
            &merged,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
        Ok(Self { dir })
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("merged")
    }
}

impl Drop for OverlayRoot {
    fn drop(&mut self) {
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
    }
}
