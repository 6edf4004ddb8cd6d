//! Checkpoints: CRIU writes a container's processes down, and makes them again. It is started by its command line: what its
//! protocol could say beside that (`criu swrk`) is not needed here, and a program that everybody can run by hand is easier to
//! look into. The helper runs it in the zygote's pid namespace and makes what it restores a container; see `docs/process-model.md`.

mod dump;
mod outside;
mod restore;
mod tool;

pub(crate) use self::dump::{Subject, dump};
pub(crate) use self::restore::Job;

use std::path::{Path, PathBuf};

use super::plan::Plan;
use crate::error::{Error, Result};

/// Where hosts have it.
const PLACES: [&str; 4] = [
    "/usr/sbin/criu",
    "/usr/bin/criu",
    "/usr/local/sbin/criu",
    "/usr/local/bin/criu",
];

/// CRIU, if the host has it.
fn program() -> Result<&'static str> {
    program_of(&PLACES)
}

fn program_of(places: &[&'static str]) -> Result<&'static str> {
    let found = places.iter().find(|path| Path::new(path).is_file());
    found.copied().ok_or_else(|| Error::unsupported("checkpoints", "criu"))
}

/// Only the host's root may do what CRIU does.
pub(crate) fn only_for_root(bind_devices: bool) -> Result<()> {
    if bind_devices {
        let needs = "root on the host: criu needs its capabilities, which a user namespace does not give";
        return Err(Error::unsupported("checkpoints", needs));
    }
    Ok(())
}

/// Where a tool finds what it needs. CRIU makes a directory in `/tmp` for a moment: there, it is gone with the tool however
/// that ends, as it is a memory file system of the tool's own.
const STAGE: &str = "/tmp";
/// The directories in it: of images, and of what the tool leaves.
const IMAGES: &str = "images";
const WORK: &str = "work";

/// The place of something in the stage.
fn staged(name: &str) -> String {
    format!("{STAGE}/{name}")
}

/// Where a tool leaves its log.
pub(crate) struct Work(PathBuf);

impl Work {
    /// Makes the directory. Blocking.
    fn make(directory: &Path) -> Result<Self> {
        let made = std::fs::create_dir_all(directory);
        made.map_err(|error| Error::os("make a directory for criu", error))?;
        Ok(Self(directory.to_owned()))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The plan of a run.
    fn plan(&self, arguments: &[String], images: Option<&Path>) -> Result<Plan> {
        let images = images.map(|images| (IMAGES, images));
        let directories: Vec<_> = images.into_iter().chain([(WORK, self.0.as_path())]).collect();
        Plan::tool(arguments, Path::new(STAGE), &directories)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn g13_without_criu_it_is_named() {
        let needs = ErrorKind::Unsupported { needs: "criu".into() };
        // A directory of that name is no program.
        for places in [&["/nowhere/criu", "/usr"] as &[&'static str], &[]] {
            assert_eq!(program_of(places).unwrap_err().kind(), &needs);
        }
        assert_eq!(
            program_of(&["/nowhere/criu", "/proc/self/exe"]).unwrap(),
            "/proc/self/exe"
        );
    }

    #[test]
    fn g13_an_ordinary_user_is_told() {
        assert!(only_for_root(true).unwrap_err().is_unsupported());
        only_for_root(false).unwrap();
    }
}
