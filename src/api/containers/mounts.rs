//! What a container sees of the host, and of memory: `Binds`, `Mounts`, `Tmpfs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error::Failure;
use super::super::object::Object;
use crate::containers::{BindFrom, BindMount, ContainerSpec, MountFrom, MountPoint, MountSpec, Tmpfs};
use crate::types::{Bytes, Propagation, VolumeName};

/// Takes all there are: `Binds`, `Mounts`, `Tmpfs` and `VolumesFrom`, and the paths of `Volumes`.
pub(super) fn take(host: &mut Object, volumes: Vec<PathBuf>, spec: &mut ContainerSpec) -> Result<(), Failure> {
    let driver = host.text("VolumeDriver")?;
    for text in host.take_or_default::<Vec<String>>("Binds")? {
        let mut mount = bind(&text)?;
        if let MountFrom::Volume(volume) = &mut mount.source {
            volume.driver.clone_from(&driver);
        }
        spec.mounts.push(mount);
    }
    for mount in host.take_or_default::<Vec<Mount>>("Mounts")? {
        spec.mounts.push(long(mount)?);
    }
    for (path, options) in host.take_or_default::<BTreeMap<PathBuf, String>>("Tmpfs")? {
        let made = tmpfs(&options)?;
        if spec.tmpfs.insert(path.clone(), made).is_some() {
            return Err(twice(&path));
        }
    }
    spec.volumes_from = host.take_or_default("VolumesFrom")?;
    once(spec)?;
    for path in volumes {
        let there = spec.targets().any(|target| target == path);
        if !there {
            let mut mount = MountSpec::anonymous(path);
            mount.short = true;
            spec.mounts.push(mount);
        }
    }
    Ok(())
}

/// Two things cannot be seen at one place. Source: moby, `daemon/volumes_unix.go`.
fn once(spec: &ContainerSpec) -> Result<(), Failure> {
    let mut taken: BTreeSet<&Path> = BTreeSet::new();
    match spec.targets().find(|target| !taken.insert(target)) {
        None => Ok(()),
        Some(target) => Err(twice(target)),
    }
}

fn twice(target: &Path) -> Failure {
    Failure::bad(format!("Duplicate mount point: {}", target.display()))
}

/// `source:target[:options]`, or a target alone. Source: moby, `volume/mounts/linux_parser.go`.
fn bind(text: &str) -> Result<MountSpec, Failure> {
    let bad = || Failure::bad(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [target] if target.starts_with('/') && target.len() > 1 => {
            let mut mount = MountSpec::anonymous(target);
            mount.short = true;
            return Ok(mount);
        }
        _ => return Err(bad()),
    };
    if source.is_empty() || target.is_empty() {
        return Err(bad());
    }
    let mut mount = match source.starts_with('/') {
        true => MountSpec::bind(source, target).create_source(),
        false => MountSpec::volume(volume_name(source)?, target),
    };
    mount.short = true;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match (option, &mut mount.source, Propagation::parse(option)) {
            ("ro", ..) => mount.read_only = true,
            // z and Z label files for SELinux, where there is one.
            ("rw" | "z" | "Z", ..) => {}
            ("nocopy", MountFrom::Volume(volume), _) => volume.no_copy = true,
            (_, MountFrom::Bind(bind), Some(propagation)) => bind.propagation = propagation,
            _ => return Err(Failure::bad(format!("invalid mode: {option}"))),
        }
    }
    Ok(mount)
}

fn volume_name(name: &str) -> Result<String, Failure> {
    match name.parse::<VolumeName>() {
        Ok(name) => Ok(name.to_string()),
        Err(_) => Err(Failure::bad(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ))),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    #[serde(rename = "Type")]
    kind: String,
    source: Option<String>,
    target: PathBuf,
    read_only: Option<bool>,
    bind_options: Option<BindOptions>,
    volume_options: Option<VolumeOptions>,
    image_options: Option<ImageOptions>,
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
struct VolumeOptions {
    no_copy: Option<bool>,
    labels: Option<BTreeMap<String, String>>,
    driver_config: Option<DriverConfig>,
    subpath: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DriverConfig {
    name: Option<String>,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ImageOptions {
    subpath: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TmpfsOptions {
    size_bytes: Option<u64>,
    mode: Option<u32>,
    options: Option<Vec<Vec<String>>>,
}

/// One of `Mounts`. Source: moby, `daemon/volume/mounts/linux_parser.go`.
fn long(mount: Mount) -> Result<MountSpec, Failure> {
    let kind = mount.kind.as_str();
    if mount.target.as_os_str().is_empty() {
        return Err(bad_mount(kind, "field Target must not be empty"));
    }
    let source = mount.source.filter(|source| !source.is_empty());
    let mut made = match kind {
        "bind" => {
            let source = source.ok_or_else(|| bad_mount("bind", "field Source must not be empty"))?;
            let mut made = MountSpec::bind(source, mount.target);
            if let MountFrom::Bind(bind) = &mut made.source {
                bind_options(bind, mount.bind_options.unwrap_or_default())?;
            }
            made
        }
        "volume" => {
            let name = source.map(|name| volume_name(&name)).transpose()?;
            let options = mount.volume_options.unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            let mut made = MountSpec::anonymous(mount.target);
            if let MountFrom::Volume(volume) = &mut made.source {
                volume.name = name;
                volume.no_copy = options.no_copy.unwrap_or_default();
                volume.labels = options.labels.unwrap_or_default();
                volume.driver = driver.name.filter(|name| !name.is_empty());
                volume.options = driver.options.unwrap_or_default();
            }
            made.subpath = options.subpath.filter(|path| !path.as_os_str().is_empty());
            made
        }
        "image" => {
            let source = source.ok_or_else(|| bad_mount("image", "field Source must not be empty"))?;
            let mut made = MountSpec::image(source, mount.target);
            let part = mount.image_options.and_then(|options| options.subpath);
            made.subpath = part.filter(|path| !path.as_os_str().is_empty());
            made
        }
        "tmpfs" => {
            if source.is_some() {
                return Err(bad_mount("tmpfs", "field Source must not be specified"));
            }
            let asked = mount.tmpfs_options.unwrap_or_default();
            let words = asked.options.unwrap_or_default();
            let words: Vec<String> = words.into_iter().map(|pair| pair.join("=")).collect();
            let mut options = tmpfs(&words.join(","))?;
            options.size = asked
                .size_bytes
                .filter(|size| *size > 0)
                .map(Bytes::new)
                .or(options.size);
            options.mode = asked.mode.filter(|mode| *mode > 0).or(options.mode);
            MountSpec::tmpfs(mount.target, options)
        }
        kind @ ("cluster" | "npipe") => {
            let option = format!("a mount of type {kind:?}");
            return Err(Failure::option(&option, "an engine that has it: swarms and Windows do"));
        }
        kind => return Err(bad_mount(kind, "mount type unknown")),
    };
    made.read_only = mount.read_only.unwrap_or_default();
    Ok(made)
}

/// Source: moby, `daemon/volume/mounts/validate.go`.
fn bad_mount(kind: &str, why: &str) -> Failure {
    Failure::bad(format!("invalid mount config for type {kind:?}: {why}"))
}

fn bind_options(bind: &mut BindFrom, options: BindOptions) -> Result<(), Failure> {
    if let Some(word) = options.propagation.as_deref().filter(|word| !word.is_empty()) {
        bind.propagation =
            Propagation::parse(word).ok_or_else(|| bad_mount("bind", &format!("invalid propagation mode: {word}")))?;
    }
    bind.non_recursive = options.non_recursive.unwrap_or_default();
    bind.create = options.create_mountpoint.unwrap_or_default();
    bind.read_only_top = options.read_only_non_recursive.unwrap_or_default();
    bind.read_only_all = options.read_only_force_recursive.unwrap_or_default();
    if bind.read_only_top && bind.read_only_all {
        let why = "ReadOnlyForceRecursive and ReadOnlyNonRecursive cannot be both true";
        return Err(bad_mount("bind", why));
    }
    Ok(())
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
pub(super) fn shown(binds: &[BindMount], mounts: &[MountPoint]) -> Vec<Value> {
    let binds = binds.iter().map(|bind| {
        json!({
            "Type": "bind",
            "Source": bind.source,
            "Destination": bind.target,
            "Mode": if bind.read_only { "ro" } else { "" },
            "RW": !bind.read_only,
            "Propagation": "rprivate",
        })
    });
    binds.chain(mounts.iter().map(shown_point)).collect()
}

fn shown_point(point: &MountPoint) -> Value {
    let spec = &point.spec;
    let mut value = json!({
        "Type": spec.kind(),
        "Source": point.source.clone().unwrap_or_default(),
        "Destination": spec.target,
        "Mode": if spec.read_only && spec.short { "ro" } else { "" },
        "RW": !spec.read_only,
        "Propagation": "",
    });
    match &spec.source {
        MountFrom::Bind(bind) => value["Propagation"] = json!(bind.propagation.as_str()),
        MountFrom::Volume(volume) => {
            value["Name"] = json!(volume.name.as_deref().unwrap_or_default());
            value["Driver"] = json!(point.driver.as_deref().unwrap_or_default());
        }
        MountFrom::Image(image) => {
            value["Source"] = json!(image);
            value["RW"] = json!(false);
        }
        MountFrom::Tmpfs(_) => {}
    }
    value
}

/// Whether it is a volume without a name.
pub(super) fn is_anonymous(mount: &MountSpec) -> bool {
    matches!(&mount.source, MountFrom::Volume(volume) if volume.name.is_none())
}

/// Binds as they were given.
pub(super) fn as_binds(spec: &ContainerSpec) -> Vec<String> {
    let text = |bind: &BindMount| {
        let options = if bind.read_only { ":ro" } else { "" };
        format!("{}:{}{options}", bind.source.display(), bind.target.display())
    };
    let short = spec.mounts.iter().filter(|mount| mount.short).filter_map(short_text);
    spec.binds.iter().map(text).chain(short).collect()
}

fn short_text(mount: &MountSpec) -> Option<String> {
    let mut words = Vec::new();
    if mount.read_only {
        words.push("ro");
    }
    let source = match &mount.source {
        MountFrom::Bind(bind) => {
            if bind.propagation != Propagation::default() {
                words.push(bind.propagation.as_str());
            }
            bind.source.display().to_string()
        }
        MountFrom::Volume(volume) => {
            if volume.no_copy {
                words.push("nocopy");
            }
            volume.name.clone()?
        }
        MountFrom::Tmpfs(_) | MountFrom::Image(_) => return None,
    };
    let options = if words.is_empty() {
        String::new()
    } else {
        format!(":{}", words.join(","))
    };
    Some(format!("{source}:{}{options}", mount.target.display()))
}

/// What was given as `Mounts`, with every field that says something.
pub(super) fn as_mounts(spec: &ContainerSpec) -> Vec<Value> {
    spec.mounts
        .iter()
        .filter(|mount| !mount.short)
        .map(long_value)
        .collect()
}

fn long_value(mount: &MountSpec) -> Value {
    let mut value = json!({"Type": mount.kind(), "Target": mount.target});
    if mount.read_only {
        value["ReadOnly"] = json!(true);
    }
    match &mount.source {
        MountFrom::Bind(bind) => {
            value["Source"] = json!(bind.source);
            let mut options = flags(&[
                ("NonRecursive", bind.non_recursive),
                ("CreateMountpoint", bind.create),
                ("ReadOnlyNonRecursive", bind.read_only_top),
                ("ReadOnlyForceRecursive", bind.read_only_all),
            ]);
            if bind.propagation != Propagation::default() {
                options.insert("Propagation".to_owned(), json!(bind.propagation.as_str()));
            }
            put(&mut value, "BindOptions", options);
        }
        MountFrom::Volume(volume) => {
            if let Some(name) = &volume.name {
                value["Source"] = json!(name);
            }
            let mut options = flags(&[("NoCopy", volume.no_copy)]);
            if !volume.labels.is_empty() {
                options.insert("Labels".to_owned(), json!(volume.labels));
            }
            if volume.driver.is_some() || !volume.options.is_empty() {
                let config = json!({"Name": volume.driver.as_deref().unwrap_or_default(), "Options": volume.options});
                options.insert("DriverConfig".to_owned(), config);
            }
            if let Some(part) = &mount.subpath {
                options.insert("Subpath".to_owned(), json!(part));
            }
            put(&mut value, "VolumeOptions", options);
        }
        MountFrom::Image(image) => {
            value["Source"] = json!(image);
            if let Some(part) = &mount.subpath {
                value["ImageOptions"] = json!({"Subpath": part});
            }
        }
        MountFrom::Tmpfs(made) => {
            let mut options = Map::new();
            if let Some(size) = made.size {
                options.insert("SizeBytes".to_owned(), json!(size.get()));
            }
            if let Some(mode) = made.mode {
                options.insert("Mode".to_owned(), json!(mode));
            }
            let uid = made.uid.map(|uid| json!(["uid", uid.to_string()]));
            let gid = made.gid.map(|gid| json!(["gid", gid.to_string()]));
            let words: Vec<Value> = uid
                .into_iter()
                .chain(gid)
                .chain(made.exec.then(|| json!(["exec"])))
                .collect();
            if !words.is_empty() {
                options.insert("Options".to_owned(), json!(words));
            }
            put(&mut value, "TmpfsOptions", options);
        }
    }
    value
}

fn flags(all: &[(&str, bool)]) -> Map<String, Value> {
    let set = all.iter().filter(|(_, set)| *set);
    set.map(|(name, _)| ((*name).to_owned(), json!(true))).collect()
}

fn put(value: &mut Value, name: &str, options: Map<String, Value>) {
    if !options.is_empty() {
        value[name] = Value::Object(options);
    }
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

    fn short(text: &str) -> MountSpec {
        bind(text).unwrap()
    }

    #[test]
    fn h14_binds_as_docker_writes_them() {
        let mut expected = MountSpec::bind("/a", "/b").create_source().read_only();
        expected.short = true;
        assert_eq!(short("/a:/b:ro,z"), expected);
        let mut expected = MountSpec::volume("data", "/b").no_copy();
        expected.short = true;
        assert_eq!(short("data:/b:nocopy"), expected);
        let MountFrom::Bind(slave) = short("/a:/b:rslave").source else {
            panic!()
        };
        assert_eq!(slave.propagation, Propagation::Rslave);
        assert!(matches!(short("/a").source, MountFrom::Volume(volume) if volume.name.is_none()));
        for bad in [
            "/",
            ":/b",
            "/a:",
            "/a:/b:x",
            "/a:/b:ro:x",
            "../x:/b",
            "data:/b:rshared",
            "/a:/b:nocopy",
        ] {
            assert_eq!(bind(bad).map(|_| ()).unwrap_err().status, 400, "{bad}");
        }
    }

    /// What a client sends comes back in an inspection, field by field.
    #[test]
    fn h14_every_field_of_a_mount_comes_back() {
        let sent = json!([
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rslave",
                "NonRecursive": true, "CreateMountpoint": true, "ReadOnlyNonRecursive": true}},
            {"Type": "bind", "Source": "/a", "Target": "/f", "BindOptions": {"ReadOnlyForceRecursive": true}},
            {"Type": "volume", "Source": "data", "Target": "/c", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"},
                "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs"}}, "Subpath": "x/y"}},
            {"Type": "volume", "Target": "/anonymous"},
            {"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448,
                "Options": [["uid", "5"], ["exec"]]}},
            {"Type": "image", "Source": "busybox", "Target": "/e", "ImageOptions": {"Subpath": "bin"}},
        ]);
        let mut spec = ContainerSpec::image("x");
        let Value::Object(host) = json!({"Mounts": sent, "VolumesFrom": ["a:ro"]}) else {
            panic!()
        };
        take(
            &mut Object::new("HostConfig", host),
            vec!["/c".into(), "/v".into()],
            &mut spec,
        )
        .unwrap();
        assert_eq!(json!(as_mounts(&spec)), sent);
        assert_eq!(
            (spec.volumes_from.as_slice(), as_binds(&spec)),
            (&["a:ro".to_owned()][..], Vec::new())
        );
        assert_eq!(spec.mounts.last().unwrap().target, Path::new("/v"));
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
