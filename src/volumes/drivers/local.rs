//! Volumes of this host: a directory below the root, or whatever `type`, `o` and `device` name. Source: moby,
//! `volume/local/local_unix.go`; mount(8).

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::{Error, ObjectKind, Result};
use crate::storage::files::make_dirs;
use crate::storage::snapshot::{chmod, copy_tree};
use crate::sys::blocking::blocking;
use crate::types::Outcome;
use crate::volumes::{VolumeContext, VolumeDriver, VolumeSource};

/// Where a volume's files are, in its directory.
pub(crate) const DATA: &str = "_data";
const KNOWN: [&str; 3] = ["type", "o", "device"];

/// The driver `local`.
#[derive(Debug)]
pub(crate) struct LocalDriver;

/// What the options ask for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Plain,
    Bind(PathBuf),
    Mount(VolumeSource),
}

fn bad(name: &str, why: &str) -> Error {
    Error::invalid(format!("invalid volume option {name:?}: {why}")).with_object(ObjectKind::Option, name)
}

fn wanted(volume: &VolumeContext) -> Result<Wanted> {
    let options = &volume.options;
    if options.contains_key("size") {
        let needs = "a volume of the driver tmpfs, which has a size; directories are as large as their disk";
        return Err(Error::unsupported("a quota for a volume", needs).with_object(ObjectKind::Option, "size"));
    }
    if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(bad(unknown, "the driver local knows type, o and device"));
    }
    let get = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let words: Vec<&str> = get("o").into_iter().flat_map(|words| words.split(',')).collect();
    let (kind, device) = (get("type"), get("device"));
    if kind.is_none() && device.is_none() && words.is_empty() {
        return Ok(Wanted::Plain);
    }
    let device = device.ok_or_else(|| bad("device", "it is missing"))?;
    let binds = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
    if binds || kind == Some("bind") {
        let path = PathBuf::from(device);
        if !path.is_absolute() {
            return Err(bad("device", "an absolute path is needed"));
        }
        return Ok(Wanted::Bind(path));
    }
    let kind = kind
        .filter(|kind| *kind != "none")
        .ok_or_else(|| bad("type", "it is missing"))?;
    // What a mount call knows as flags, and what only mount(8) knows.
    let of_helper = |word: &&str| {
        !matches!(
            *word,
            "" | "rw" | "defaults" | "auto" | "noauto" | "_netdev" | "nofail" | "user"
        )
    };
    let own = words.into_iter().filter(of_helper).map(str::to_owned).collect();
    Ok(Wanted::Mount(VolumeSource::FileSystem {
        kind: kind.to_owned(),
        source: device.to_owned(),
        options: own,
    }))
}

/// Makes the directory that a volume's files are in. Anybody may enter it, as Docker has it; what is above it is private.
pub(crate) fn make_data(dir: &Path) -> Result<()> {
    let data = dir.join(DATA);
    make_dirs(&data)?;
    chmod(&data, 0o755)
}

#[async_trait]
impl VolumeDriver for LocalDriver {
    async fn create(&self, volume: &VolumeContext) -> Result<Outcome> {
        if wanted(volume)? != Wanted::Plain {
            return Ok(Outcome::Done);
        }
        let dir = volume.dir.clone();
        blocking(move || match dir.join(DATA).is_dir() {
            true => Ok(Outcome::Already),
            false => make_data(&dir).map(|()| Outcome::Done),
        })
        .await
    }

    async fn remove(&self, _volume: &VolumeContext) -> Result<()> {
        Ok(())
    }

    async fn mount(&self, volume: &VolumeContext) -> Result<VolumeSource> {
        match wanted(volume)? {
            Wanted::Plain => {
                self.create(volume).await?;
                Ok(VolumeSource::Directory(volume.dir.join(DATA)))
            }
            Wanted::Bind(path) => Ok(VolumeSource::Directory(path)),
            Wanted::Mount(source) => Ok(source),
        }
    }

    fn directory(&self, volume: &VolumeContext) -> Option<PathBuf> {
        match wanted(volume) {
            Ok(Wanted::Plain) => Some(volume.dir.join(DATA)),
            _ => None,
        }
    }

    async fn clone_volume(&self, volume: &VolumeContext, into: &VolumeContext) -> Result<()> {
        let (Wanted::Plain, Wanted::Plain) = (wanted(volume)?, wanted(into)?) else {
            let needs = "a volume that is a directory of the root";
            return Err(Error::unsupported(
                "a snapshot of a volume that is somewhere else",
                needs,
            ));
        };
        let (from, to) = (volume.dir.join(DATA), into.dir.join(DATA));
        blocking(move || {
            make_dirs(&to)?;
            copy_tree(&from, &to, nix::unistd::geteuid().is_root())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(options: &[(&str, &str)]) -> Result<Wanted> {
        let options: BTreeMap<_, _> = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        wanted(&VolumeContext {
            name: "data".parse().unwrap(),
            dir: "/r".into(),
            options,
        })
    }

    #[test]
    fn j5_options_as_mount_has_them() {
        assert_eq!(of(&[]).unwrap(), Wanted::Plain);
        let bind = of(&[("type", "none"), ("o", "bind"), ("device", "/a")]);
        assert_eq!(bind.unwrap(), Wanted::Bind("/a".into()));
        let nfs = of(&[("type", "nfs"), ("o", "addr=10.0.0.1,rw,vers=4"), ("device", ":/x")]);
        let expected = VolumeSource::FileSystem {
            kind: "nfs".into(),
            source: ":/x".into(),
            options: vec!["addr=10.0.0.1".into(), "vers=4".into()],
        };
        assert_eq!(nfs.unwrap(), Wanted::Mount(expected));
        for bad in [
            &[("type", "nfs")][..],
            &[("device", "/a")],
            &[("o", "bind"), ("device", "a")],
            &[("nope", "1")],
        ] {
            assert_eq!(
                of(bad).unwrap_err().kind(),
                &crate::error::ErrorKind::InvalidArgument,
                "{bad:?}"
            );
        }
        assert!(of(&[("size", "1g")]).unwrap_err().is_unsupported());
    }
}
