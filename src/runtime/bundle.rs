//! Bundles of the OCI runtime specification: a directory with `config.json` and a root file system, as a [`Launch`].
//!
//! What the specification lets a configuration say, and no runtime here does, is `Unsupported` by name: a container must not seem to
//! have what it does not. Who runs a bundle trusts its configuration, which names paths and programs (hooks) of the host; nobody need
//! trust what is in its root. Source: the specification, `bundle.md`, `config.md` and `config-linux.md`, at
//! <https://github.com/opencontainers/runtime-spec>.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{
    Linux, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxIdMapping, LinuxNamespace,
    LinuxNamespaceType, Process, Spec,
};

use super::{Launch, SharedNamespace, StdioPlan, defaults};
use crate::error::{Error, ObjectKind, Result};
use crate::types::{ContainerId, Mount};

/// The configuration's name in a bundle.
pub const CONFIG: &str = "config.json";
/// The longest configuration, in bytes: what a person or a program writes is a thousandth of it.
const LONGEST: u64 = 16 << 20;
/// The size of a terminal where nothing is said of it: rows and columns.
const TERMINAL: (u16, u16) = (24, 80);
/// What is in a namespace of its own unless the configuration says otherwise; here always.
const SHARED: [LinuxNamespaceType; 5] = [
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Cgroup,
];

/// Reads a bundle. Namespaces that it names by their paths are opened, and its root is looked at; nothing else is touched. Blocking.
///
/// `name` is what the container is called by whoever runs it, in the state that hooks get, too. Streams are pipes, or a terminal if
/// the process has one. Its cgroup is below `linux.cgroupsPath`, under the id of [`Launch::id`], which is fresh.
///
/// # Errors
/// `NotFound` without a configuration or a root; `InvalidArgument` for a configuration that is not one; `Unsupported` for what no
/// container here can have.
pub fn launch(bundle: &Path, name: &str) -> Result<Launch> {
    let bundle = bundle
        .canonicalize()
        .map_err(|error| Error::os(format!("open the bundle {}", bundle.display()), error))?;
    let spec = read(&bundle.join(CONFIG))?;
    let root = root(&bundle, &spec)?;
    plan(bundle, name, spec, root)
}

/// Reads a configuration.
fn read(path: &Path) -> Result<Spec> {
    let failed = |error: std::io::Error| Error::os(format!("read {}", path.display()), error);
    let mut options = OpenOptions::new();
    // A pipe in its place is told by its kind, and not waited for.
    let file: File = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::invalid(format!("{} is no regular file", path.display())));
    }
    let mut text = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(Error::invalid(format!(
            "{} is longer than {LONGEST} bytes",
            path.display()
        )));
    }
    parse(&text).map_err(|error| error.context(format!("read {}", path.display())))
}

fn parse(text: &[u8]) -> Result<Spec> {
    let spec: Spec = serde_json::from_slice(text).map_err(|error| {
        Error::invalid(format!(
            "it is no configuration of the OCI runtime specification: {error}"
        ))
    })?;
    let mut numbers = spec.version().split('.');
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some("1"), Some(_), Some(_)) => Ok(spec),
        _ => {
            let what = format!("version {:?} of the OCI runtime specification", spec.version());
            Err(Error::unsupported(what, "a configuration of version 1"))
        }
    }
}

/// The root of a container's file system, and whether nothing is written to it.
fn root(bundle: &Path, spec: &Spec) -> Result<(PathBuf, bool)> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::invalid("the configuration has no root"))?;
    // Without a slash at its end, with which a link would not be seen.
    let path: PathBuf = bundle.join(root.path()).components().collect();
    let found = path
        .canonicalize()
        .map_err(|error| Error::os(format!("find the root {}", path.display()), error))?;
    if !found.is_dir() {
        return Err(Error::invalid(format!("the root {} is no directory", path.display())));
    }
    // What is in a bundle may have come from elsewhere. Source: runc, `rootfs` of libcontainer's validator.
    if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink()) {
        return Err(Error::invalid(format!(
            "the root {} is a symbolic link",
            path.display()
        )));
    }
    Ok((found, root.readonly().unwrap_or(false)))
}

/// From a configuration to a launch. Opens namespaces.
fn plan(bundle: PathBuf, name: &str, mut spec: Spec, (root, read_only): (PathBuf, bool)) -> Result<Launch> {
    refuse(&spec)?;
    let stdio = match spec.process() {
        Some(process) => {
            refuse_of_process(process)?;
            stdio(process)
        }
        None => return Err(Error::invalid("the configuration has no process")),
    };
    let id = ContainerId::random();
    let mut shared = Vec::new();
    // Without it nothing is the container's own; the library's default of it would say otherwise.
    let Some(mut linux) = spec.linux().clone() else {
        return Err(own_mounts());
    };
    refuse_of_linux(&linux)?;
    let namespaces = linux.namespaces().clone().unwrap_or_default();
    share(&namespaces, &mut shared)?;
    let own = namespaces.into_iter().filter(|one| one.path().is_none());
    linux.set_namespaces(Some(own.collect()));
    // Who writes an empty one says nothing, to runc neither.
    let named = linux
        .cgroups_path()
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty());
    let path = named.map(|path| cgroup(path, &id)).transpose()?;
    linux.set_cgroups_path(path);
    allow_usual_devices(&mut linux)?;
    spec.set_linux(Some(linux));
    sources(&bundle, &mut spec);
    Ok(Launch {
        id,
        spec,
        user: None,
        extra_groups: Vec::new(),
        rootfs: vec![Mount::bind(root, read_only)],
        stdio,
        init: false,
        scratch: Vec::new(),
        best_effort_limits: false,
        shared,
        privileged: false,
        mounts: Vec::new(),
        hold: false,
        bundle: Some(bundle),
        name: Some(name.to_owned()),
        notes: None,
    })
}

fn stdio(process: &Process) -> StdioPlan {
    let size = process.console_size();
    let length = |said: u64, usual: u16| u16::try_from(said).ok().filter(|said| *said > 0).unwrap_or(usual);
    let size = size.map(|size| (length(size.height(), TERMINAL.0), length(size.width(), TERMINAL.1)));
    StdioPlan {
        stdin: true,
        terminal: process.terminal().unwrap_or(false).then(|| size.unwrap_or(TERMINAL)),
    }
}

/// Where a container's own cgroup is: below the one that is named.
fn cgroup(path: &Path, id: &ContainerId) -> Result<PathBuf> {
    let text = path.to_string_lossy();
    if text.matches(':').count() == 2 {
        let what = format!("the cgroup {text} of systemd's");
        return Err(Error::unsupported(
            what,
            "a path in linux.cgroupsPath: no service is asked for cgroups",
        ));
    }
    let parent: crate::types::CgroupParent = text.parse()?;
    Ok(parent.path_of(id))
}

/// A source that is relative is so to the bundle.
fn sources(bundle: &Path, spec: &mut Spec) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let words = mount.options().as_deref().unwrap_or_default();
        let bind = mount.typ().as_deref() == Some("bind") || words.iter().any(|word| word == "bind" || word == "rbind");
        let source = mount.source().clone().filter(|source| bind && source.is_relative());
        if let Some(source) = source {
            mount.set_source(Some(bundle.join(source)));
        }
    }
}

/// Which namespaces are not the container's own.
fn share(namespaces: &[LinuxNamespace], shared: &mut Vec<SharedNamespace>) -> Result<()> {
    for (place, one) in namespaces.iter().enumerate() {
        if namespaces[..place].iter().any(|before| before.typ() == one.typ()) {
            return Err(Error::invalid(format!("the namespace {} is there twice", one.typ())));
        }
        if let Some(path) = one.path() {
            shared.push(SharedNamespace::Of(one.typ(), Arc::new(open(one.typ(), path)?)));
        }
    }
    let has = |kind| namespaces.iter().any(|one| one.typ() == kind);
    if !has(LinuxNamespaceType::Mount) {
        return Err(own_mounts());
    }
    let missing = SHARED.into_iter().filter(|kind| !has(*kind));
    shared.extend(missing.map(SharedNamespace::Host));
    Ok(())
}

fn own_mounts() -> Error {
    Error::unsupported(
        "a container in the host's mount namespace",
        "a mount namespace of its own in linux.namespaces",
    )
}

/// Who has rules for devices has the usual ones, and those of its own, whatever the rules say: the specification has the runtime
/// make them. Source: `config-linux.md`, "Default Devices".
fn allow_usual_devices(linux: &mut Linux) -> Result<()> {
    let own = linux.devices().clone().unwrap_or_default();
    let Some(resources) = linux.resources_mut() else {
        return Ok(());
    };
    let mut rules = resources.devices().clone().unwrap_or_default();
    if rules.is_empty() {
        return Ok(());
    }
    rules.extend(defaults::devices().iter().chain(&own).map(LinuxDeviceCgroup::from));
    // Terminals: /dev/ptmx, and those of devpts. Source: the kernel's Documentation/admin-guide/devices.txt.
    for (major, minor) in [(5, Some(2)), (136, None)] {
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .access("rwm");
        if let Some(minor) = minor {
            rule = rule.minor(minor);
        }
        let rule = rule.build();
        rules.push(rule.map_err(|error| Error::internal("the rule for a device").with_source(error))?);
    }
    resources.set_devices(Some(rules));
    Ok(())
}

fn open(kind: LinuxNamespaceType, path: &Path) -> Result<OwnedFd> {
    if !path.is_absolute() {
        return Err(Error::invalid(format!(
            "the namespace {}: an absolute path is needed",
            path.display()
        )));
    }
    let failed = |error: std::io::Error| Error::os(format!("open the {kind} namespace {}", path.display()), error);
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    Ok(file.into())
}

/// What no container of Linux has, or none here.
fn refuse(spec: &Spec) -> Result<()> {
    for (there, name) in [
        (spec.solaris().is_some(), "solaris"),
        (spec.windows().is_some(), "windows"),
        (spec.vm().is_some(), "vm"),
        (spec.zos().is_some(), "zos"),
        (spec.mounts().iter().flatten().any(has_own_ids), "mounts.uidMappings"),
    ] {
        if there {
            return no(name);
        }
    }
    Ok(())
}

/// Whether owners are to be others in a mount than in what is mounted.
fn has_own_ids(mount: &oci_spec::runtime::Mount) -> bool {
    let any = |ids: &Option<Vec<LinuxIdMapping>>| ids.as_ref().is_some_and(|ids| !ids.is_empty());
    any(mount.uid_mappings()) || any(mount.gid_mappings())
}

fn refuse_of_process(process: &Process) -> Result<()> {
    for (there, name) in [
        (process.io_priority().is_some(), "process.ioPriority"),
        (process.scheduler().is_some(), "process.scheduler"),
        (process.exec_cpu_affinity().is_some(), "process.execCPUAffinity"),
    ] {
        if there {
            return no(name);
        }
    }
    Ok(())
}

fn refuse_of_linux(linux: &Linux) -> Result<()> {
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    for (there, name) in [
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (linux.personality().is_some(), "linux.personality"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (
            linux.net_devices().as_ref().is_some_and(|all| !all.is_empty()),
            "linux.netDevices",
        ),
        (
            linux.time_offsets().as_ref().is_some_and(|all| !all.is_empty()),
            "linux.timeOffsets",
        ),
        (
            !matches!(propagation, "" | "private" | "rprivate"),
            "linux.rootfsPropagation",
        ),
    ] {
        if there {
            return no(name);
        }
    }
    Ok(())
}

fn no(name: &str) -> Result<()> {
    let needs = "a configuration without it: no runtime here does that";
    Err(Error::unsupported(name, needs).with_object(ObjectKind::Option, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": true},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
            "mounts": [
                {"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]},
                {"destination": "/proc", "type": "proc", "source": "proc"},
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}]},
        })
    }

    fn bundle(config: &Value) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        dir
    }

    fn made(config: &Value) -> Result<Launch> {
        launch(bundle(config).path(), "box")
    }

    #[test]
    fn oci_a_bundle_is_a_launch() {
        let dir = bundle(&config());
        let launch = launch(dir.path(), "box").unwrap();
        let place = dir.path().canonicalize().unwrap();
        assert_eq!(launch.rootfs, [Mount::bind(place.join("rootfs"), true)]);
        assert_eq!(
            (launch.name.as_deref(), launch.bundle),
            (Some("box"), Some(place.clone()))
        );
        let sources: Vec<_> = launch
            .spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mount.source().clone())
            .collect();
        assert_eq!(sources, [Some(place.join("data")), Some(PathBuf::from("proc"))]);
        let hosts: Vec<_> = launch
            .shared
            .iter()
            .map(|one| match one {
                SharedNamespace::Host(kind) => *kind,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            hosts,
            [
                LinuxNamespaceType::Ipc,
                LinuxNamespaceType::Network,
                LinuxNamespaceType::Cgroup
            ]
        );
        assert_eq!(launch.stdio.terminal, None);
    }

    #[test]
    fn oci_a_terminal_has_a_size() {
        let of = |more: Value| {
            let mut config = config();
            config["process"]
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            made(&config).unwrap().stdio.terminal
        };
        assert_eq!(of(json!({"terminal": true})), Some((24, 80)));
        assert_eq!(
            of(json!({"terminal": true, "consoleSize": {"height": 3, "width": 0}})),
            Some((3, 80))
        );
        assert_eq!(of(json!({"consoleSize": {"height": 3, "width": 4}})), None);
    }

    #[test]
    fn oci_namespaces_by_their_paths() {
        let mut config = config();
        config["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "network", "path": "/proc/self/ns/net"}, {"type": "pid"}, {"type": "ipc"},
            {"type": "uts"}, {"type": "cgroup"},
        ]);
        let launch = made(&config).unwrap();
        assert!(matches!(
            launch.shared[..],
            [SharedNamespace::Of(LinuxNamespaceType::Network, _)]
        ));
        let own = launch.spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        assert!(own.iter().all(|one| one.path().is_none()) && own.len() == 5);
        for (bad, kind) in [
            (
                json!([{"type": "mount"}, {"type": "network", "path": "/nowhere/net"}]),
                ErrorKind::NotFound,
            ),
            (
                json!([{"type": "mount"}, {"type": "network", "path": "net"}]),
                ErrorKind::InvalidArgument,
            ),
            (
                json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]),
                ErrorKind::InvalidArgument,
            ),
        ] {
            config["linux"]["namespaces"] = bad.clone();
            assert_eq!(made(&config).unwrap_err().kind(), &kind, "{bad}");
        }
        config["linux"]["namespaces"] = json!([{"type": "pid"}]);
        assert!(made(&config).unwrap_err().is_unsupported());
    }

    #[test]
    fn oci_a_cgroup_is_below_the_one_that_is_named() {
        let mut config = config();
        config["linux"]["cgroupsPath"] = json!("/web/box");
        let launch = made(&config).unwrap();
        let path = launch.spec.linux().as_ref().unwrap().cgroups_path().clone().unwrap();
        assert_eq!(path, Path::new("/web/box").join(launch.id.as_str()));
        config["linux"]["cgroupsPath"] = json!("");
        let launch = made(&config).unwrap();
        assert_eq!(launch.spec.linux().as_ref().unwrap().cgroups_path(), &None);
        config["linux"]["cgroupsPath"] = json!("/web/../box");
        assert_eq!(made(&config).unwrap_err().kind(), &ErrorKind::InvalidArgument);
        config["linux"]["cgroupsPath"] = json!("system.slice:runc:box");
        assert!(made(&config).unwrap_err().is_unsupported());
    }

    #[test]
    fn oci_rules_for_devices_let_the_usual_ones_be() {
        let rules = |more: Value| {
            let mut config = config();
            config["linux"]
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let launch = made(&config).unwrap();
            let resources = launch.spec.linux().as_ref().unwrap().resources().clone();
            resources
                .and_then(|resources| resources.devices().clone())
                .unwrap_or_default()
        };
        assert!(rules(json!({"resources": {"pids": {"limit": 7}}})).is_empty());
        let made = rules(json!({
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        }));
        assert!(!made[0].allow() && made[1..].iter().all(|rule| rule.allow()));
        for (major, minor) in [(1, 3), (5, 2), (10, 229)] {
            let allowed = |rule: &LinuxDeviceCgroup| rule.major() == Some(major) && rule.minor() == Some(minor);
            assert!(made.iter().any(allowed), "{major}:{minor}");
        }
    }

    #[test]
    fn oci_what_cannot_be_had_is_named() {
        for (pointer, value, name) in [
            (
                "/process",
                json!({"scheduler": {"policy": "SCHED_BATCH"}}),
                "process.scheduler",
            ),
            (
                "/process",
                json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}}),
                "process.ioPriority",
            ),
            ("/linux", json!({"intelRdt": {"closID": "a"}}), "linux.intelRdt"),
            (
                "/linux",
                json!({"personality": {"domain": "LINUX32"}}),
                "linux.personality",
            ),
            (
                "/linux",
                json!({"rootfsPropagation": "shared"}),
                "linux.rootfsPropagation",
            ),
            ("", json!({"vm": {"kernel": {"path": "/k"}}}), "vm"),
            (
                "/mounts/0",
                json!({"uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}]}),
                "mounts.uidMappings",
            ),
        ] {
            let mut config = config();
            let place = config.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            place.extend(value.as_object().unwrap().clone());
            let refused = made(&config).unwrap_err();
            assert!(refused.is_unsupported(), "{name}: {}", refused.report());
            assert_eq!(refused.object().unwrap().1, name);
        }
    }

    #[test]
    fn oci_what_is_no_bundle() {
        assert_eq!(
            launch(Path::new("/nowhere"), "box").unwrap_err().kind(),
            &ErrorKind::NotFound
        );
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(launch(empty.path(), "box").unwrap_err().kind(), &ErrorKind::NotFound);
        for (key, value) in [
            ("root", Value::Null),
            ("process", Value::Null),
            ("ociVersion", json!(7)),
        ] {
            let mut config = config();
            config[key] = value;
            assert_eq!(made(&config).unwrap_err().kind(), &ErrorKind::InvalidArgument, "{key}");
        }
        let mut bare = config();
        bare["linux"] = Value::Null;
        assert!(made(&bare).unwrap_err().is_unsupported());
        let mut config = config();
        for old in ["0.5.0", "2.0.0", "1", ""] {
            config["ociVersion"] = json!(old);
            assert!(made(&config).unwrap_err().is_unsupported(), "{old}");
        }
        config["ociVersion"] = json!("1.2.0");
        config["root"]["path"] = json!("elsewhere");
        assert_eq!(made(&config).unwrap_err().kind(), &ErrorKind::NotFound);
        // Nor is a link to a root one.
        let linked = bundle(&config);
        std::os::unix::fs::symlink("rootfs", linked.path().join("elsewhere")).unwrap();
        for path in ["elsewhere", "elsewhere/", "./elsewhere/."] {
            config["root"]["path"] = json!(path);
            std::fs::write(linked.path().join(CONFIG), config.to_string()).unwrap();
            let refused = launch(linked.path(), "box").unwrap_err();
            assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{path}");
        }
        // Nobody writes to it: it is not waited for.
        let pipe = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&pipe.path().join(CONFIG), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(
            launch(pipe.path(), "box").unwrap_err().kind(),
            &ErrorKind::InvalidArgument
        );
    }
}
