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

/// Where the tool finds what a container is made of, and where it leaves its log.
pub(crate) struct Work(PathBuf);

impl Work {
    /// Makes the directories. Blocking.
    fn make(directory: &Path) -> Result<Self> {
        let work = Self(directory.to_owned());
        let made = std::fs::create_dir_all(work.stage());
        made.map_err(|error| Error::os("make a directory for criu", error))?;
        Ok(work)
    }

    fn stage(&self) -> PathBuf {
        self.0.join("stage")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The place of something in the stage, as the tool sees it.
    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.stage().display())
    }

    fn text(&self) -> String {
        self.0.display().to_string()
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
        assert_eq!(program_of(&["/nowhere/criu", "/proc/self/exe"]).unwrap(), "/proc/self/exe");
    }

    #[test]
    fn g13_an_ordinary_user_is_told() {
        assert!(only_for_root(true).unwrap_err().is_unsupported());
        only_for_root(false).unwrap();
    }
}
