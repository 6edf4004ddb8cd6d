//! What a container sees of the host, and of memory: `Binds`, `Mounts`, `Tmpfs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::super::error::Failure;
use super::super::object::Object;
use crate::containers::{BindMount, ContainerSpec, Tmpfs};
use crate::types::Bytes;

const NO_VOLUMES: &str = "a version of longshore with volumes; bind a directory of the host";
const NO_PROPAGATION: &str = "the propagation rprivate, which is the default";

/// Takes all three.
pub(super) fn take(host: &mut Object, spec: &mut ContainerSpec) -> Result<(), Failure> {
    for text in host.take_or_default::<Vec<String>>("Binds")? {
        spec.binds.push(bind(&text)?);
    }
    for mount in host.take_or_default::<Vec<Mount>>("Mounts")? {
        add(mount, spec)?;
    }
    for (path, options) in host.take_or_default::<BTreeMap<PathBuf, String>>("Tmpfs")? {
        let made = tmpfs(&options)?;
        if spec.tmpfs.insert(path.clone(), made).is_some() {
            return Err(twice(&path));
        }
    }
    once(spec)
}

/// Two things cannot be seen at one place. Source: moby, `daemon/volumes_unix.go`.
fn once(spec: &ContainerSpec) -> Result<(), Failure> {
    let mut taken: BTreeSet<&Path> = spec.tmpfs.keys().map(PathBuf::as_path).collect();
    match spec.binds.iter().find(|bind| !taken.insert(&bind.target)) {
        None => Ok(()),
        Some(bind) => Err(twice(&bind.target)),
    }
}

fn twice(target: &Path) -> Failure {
    Failure::bad(format!("Duplicate mount point: {}", target.display()))
}

/// `source:target[:options]`. Source: moby, `volume/mounts/linux_parser.go`.
fn bind(text: &str) -> Result<BindMount, Failure> {
    let bad = || Failure::bad(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [target] if target.starts_with('/') => {
            return Err(Failure::option(&format!("an anonymous volume at {target}"), NO_VOLUMES));
        }
        _ => return Err(bad()),
    };
    if source.is_empty() || target.is_empty() {
        return Err(bad());
    }
    if !source.starts_with('/') {
        return Err(Failure::option(&format!("the volume {source:?}"), NO_VOLUMES));
    }
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // z and Z label files for SELinux, where there is one.
            "rw" | "z" | "Z" | "rprivate" | "private" => {}
            "shared" | "rshared" | "slave" | "rslave" => {
                return Err(Failure::option(&format!("the propagation {option:?}"), NO_PROPAGATION));
            }
            _ => return Err(Failure::bad(format!("invalid mode: {option}"))),
        }
    }
    Ok(BindMount {
        source: source.into(),
        target: target.into(),
        read_only,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    #[serde(rename = "Type")]
    kind: String,
    source: Option<PathBuf>,
    target: PathBuf,
    read_only: Option<bool>,
    bind_options: Option<BindOptions>,
    tmpfs_options: Option<TmpfsOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BindOptions {
    propagation: Option<String>,
    non_recursive: Option<bool>,
    create_mountpoint: Option<bool>,
    read_only_non_recursive: Option<bool>,
    read_only_force_recursive: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TmpfsOptions {
    size_bytes: Option<u64>,
    mode: Option<u32>,
    options: Option<Vec<Vec<String>>>,
}

fn add(mount: Mount, spec: &mut ContainerSpec) -> Result<(), Failure> {
    if mount.target.as_os_str().is_empty() {
        return Err(bad_mount(&mount.kind, "field Target must not be empty"));
    }
    match mount.kind.as_str() {
        "bind" => {
            let Some(source) = mount.source else {
                return Err(bad_mount("bind", "field Source must not be empty"));
            };
            check(&mount.bind_options.unwrap_or_default())?;
            spec.binds.push(BindMount {
                source,
                target: mount.target,
                read_only: mount.read_only.unwrap_or(false),
            });
            Ok(())
        }
        "tmpfs" => {
            let asked = mount.tmpfs_options.unwrap_or_default();
            let words = asked.options.unwrap_or_default();
            let words: Vec<String> = words.into_iter().map(|pair| pair.join("=")).collect();
            let mut made = tmpfs(&words.join(","))?;
            made.size = asked.size_bytes.filter(|size| *size > 0).map(Bytes::new).or(made.size);
            made.mode = asked.mode.filter(|mode| *mode > 0).or(made.mode);
            match spec.tmpfs.insert(mount.target.clone(), made) {
                None => Ok(()),
                Some(_) => Err(twice(&mount.target)),
            }
        }
        "volume" => Err(Failure::option("a mount of type \"volume\"", NO_VOLUMES)),
        kind @ ("image" | "cluster" | "npipe") => {
            let option = format!("a mount of type {kind:?}");
            Err(Failure::option(&option, "a version of longshore that has it"))
        }
        kind => Err(bad_mount(kind, "mount type unknown")),
    }
}

/// Source: moby, `daemon/volume/mounts/validate.go`.
fn bad_mount(kind: &str, why: &str) -> Failure {
    Failure::bad(format!("invalid mount config for type {kind:?}: {why}"))
}

fn check(options: &BindOptions) -> Result<(), Failure> {
    if let Some(word) = options.propagation.as_deref()
        && !matches!(word, "" | "rprivate" | "private")
    {
        return Err(Failure::option(&format!("the propagation {word:?}"), NO_PROPAGATION));
    }
    let asked = [
        ("BindOptions.NonRecursive", options.non_recursive),
        ("BindOptions.CreateMountpoint", options.create_mountpoint),
        ("BindOptions.ReadOnlyNonRecursive", options.read_only_non_recursive),
        ("BindOptions.ReadOnlyForceRecursive", options.read_only_force_recursive),
    ];
    match asked.into_iter().find(|(_, set)| *set == Some(true)) {
        None => Ok(()),
        Some((name, _)) => Err(Failure::option(name, "a version of longshore that has it")),
    }
}

/// `size=64m,mode=1777,exec`. Docker's defaults are ours: nosuid, nodev, noexec.
fn tmpfs(options: &str) -> Result<Tmpfs, Failure> {
    let mut made = Tmpfs::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let bad = || Failure::bad(format!("invalid tmpfs option {option:?}"));
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "size" => made.size = Some(size(value).ok_or_else(bad)?),
            "mode" => made.mode = Some(u32::from_str_radix(value, 8).map_err(|_| bad())?),
            "uid" => made.uid = Some(value.parse().map_err(|_| bad())?),
            "gid" => made.gid = Some(value.parse().map_err(|_| bad())?),
            "exec" => made.exec = true,
            "noexec" => made.exec = false,
            "rw" | "nosuid" | "nodev" => {}
            _ => {
                return Err(Failure::option(
                    &format!("the tmpfs option {option:?}"),
                    "one of size, mode, uid, gid, exec",
                ));
            }
        }
    }
    Ok(made)
}

/// `64m`, in the kernel's units.
fn size(text: &str) -> Option<Bytes> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(['k', 'm', 'g', 'b']);
    let unit: u64 = match lower.get(digits.len()..)? {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Bytes::new)
}

/// What an inspection shows of them.
pub(super) fn shown(binds: &[BindMount]) -> Vec<Value> {
    let binds = binds.iter().map(|bind| {
        serde_json::json!({
            "Type": "bind",
            "Source": bind.source,
            "Destination": bind.target,
            "Mode": if bind.read_only { "ro" } else { "" },
            "RW": !bind.read_only,
            "Propagation": "rprivate",
        })
    });
    binds.collect()
}

/// Binds as they were given.
pub(super) fn as_binds(spec: &ContainerSpec) -> Vec<String> {
    let text = |bind: &BindMount| {
        let options = if bind.read_only { ":ro" } else { "" };
        format!("{}:{}{options}", bind.source.display(), bind.target.display())
    };
    spec.binds.iter().map(text).collect()
}

/// Memory file systems as they were given.
pub(super) fn as_tmpfs(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let text = |made: &Tmpfs| {
        let size = made.size.map(|size| format!("size={}", size.get()));
        let mode = made.mode.map(|mode| format!("mode={mode:o}"));
        let uid = made.uid.map(|uid| format!("uid={uid}"));
        let gid = made.gid.map(|gid| format!("gid={gid}"));
        let exec = made.exec.then(|| "exec".to_owned());
        let words: Vec<String> = [size, mode, uid, gid, exec].into_iter().flatten().collect();
        words.join(",")
    };
    let all = spec
        .tmpfs
        .iter()
        .map(|(path, made)| (path.display().to_string(), text(made)));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_as_docker_writes_them() {
        let made = bind("/a:/b:ro,z").unwrap();
        assert_eq!(
            (made.source, made.target, made.read_only),
            ("/a".into(), "/b".into(), true)
        );
        for bad in ["/a", ":/b", "/a:", "/a:/b:x", "/a:/b:ro:x", "name:/b", "/a:/b:rshared"] {
            assert_eq!(bind(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn memory_file_systems_as_docker_writes_them() {
        let made = tmpfs("rw,size=64m,mode=1700,uid=5,exec").unwrap();
        let expected = Tmpfs {
            size: Some(Bytes::mib(64)),
            mode: Some(0o1700),
            uid: Some(5),
            gid: None,
            exec: true,
        };
        assert_eq!(made, expected);
        for bad in ["size=x", "mode=9", "huge=always", "size=99999999999g"] {
            assert_eq!(tmpfs(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
