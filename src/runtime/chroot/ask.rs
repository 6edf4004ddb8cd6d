//! From a launch to what can be had of it without namespaces and mounts. Pure: what cannot be had and was asked for is refused, what
//! every container has by default is left out.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, LinuxNamespaceType, Mount as SpecMount, Process, Spec};

use super::LOST;
use super::host::Host;
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::caps::CapabilitySet;
use crate::runtime::native::plan::capability_bits;
use crate::runtime::{ExecLaunch, Launch, SharedNamespace, defaults};
use crate::types::{Mount, MountSource};

/// Files of the engine's that other containers have shown over those of their image. The host name is the host's, and so is its file.
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
const HOSTNAME: &str = "/etc/hostname";

/// What leads out of a directory, or makes what does: CAP_SYS_CHROOT and CAP_MKNOD.
const AWAY: CapabilitySet = CapabilitySet::from_bits(1 << 18 | 1 << 27);
/// Signals to other users' processes.
const KILL: CapabilitySet = CapabilitySet::from_bits(1 << 5);

/// What is started.
#[derive(Debug)]
pub(super) struct Asked {
    /// The launch as far as it can be had.
    pub(super) launch: Launch,
    /// What shows the root directory.
    pub(super) root: Mount,
    /// Files to put into it: where they are on the host, and where in the container.
    pub(super) files: Vec<(PathBuf, PathBuf)>,
    /// What is left out.
    pub(super) warnings: Vec<String>,
}

/// Takes a launch apart.
///
/// # Errors
/// `Unsupported` that names the first thing that cannot be had, `InvalidArgument` for a launch that no runtime could start.
pub(super) fn ask(mut launch: Launch, host: Host) -> Result<Asked> {
    let root = root_of(&launch)?;
    refuse(&launch)?;
    refuse_in(&launch.spec, &launch)?;
    let files = files_of(&launch)?;
    let mut warnings: Vec<String> = LOST.map(str::to_owned).into();
    warnings.extend(host.open_sides().map(str::to_owned));
    let mut process = launch.spec.process().clone();
    if let Some(process) = &mut process {
        warnings.extend(confine(process, host)?);
    }
    launch.spec.set_process(process);
    strip(&mut launch);
    Ok(Asked {
        launch,
        root,
        files,
        warnings,
    })
}

/// The same for a command in a running container.
pub(super) fn ask_exec(mut exec: ExecLaunch, host: Host) -> Result<ExecLaunch> {
    confine(&mut exec.process, host)?;
    exec.marked = false;
    Ok(exec)
}

/// What is not there with this runtime.
fn without(what: impl AsRef<str>) -> Error {
    let what = what.as_ref();
    Error::unsupported(
        format!("{what} with the runtime \"chroot\""),
        "the native runtime, on a host that grants namespaces; or leave it out",
    )
    .with_object(ObjectKind::Option, what)
}

fn root_of(launch: &Launch) -> Result<Mount> {
    let [root] = launch.rootfs.as_slice() else {
        return Err(Error::invalid(format!(
            "{} mounts for the root; one is needed",
            launch.rootfs.len()
        )));
    };
    if root.read_only {
        return Err(without("a read-only root"));
    }
    if !matches!(root.source, MountSource::Bind { .. }) {
        return Err(Error::unsupported(
            "the runtime \"chroot\" with files that have to be mounted",
            "a root directory of the engine's that was made with the storage driver \"vfs\" (EngineBuilder::snapshotter)",
        )
        .with_object(ObjectKind::Backend, super::NAME));
    }
    Ok(root.clone())
}

fn refuse(launch: &Launch) -> Result<()> {
    if launch.privileged {
        return Err(without("a privileged container, or rules for devices,"));
    }
    if launch.hold {
        return Err(Error::internal(
            "the runtime chroot starts no container that runs nothing",
        ));
    }
    if let Some(mount) = launch.mounts.first() {
        return Err(without(format!("the mount at {}", mount.target.display())));
    }
    for shared in &launch.shared {
        match shared {
            // They are anyway.
            SharedNamespace::Host(_) => {}
            SharedNamespace::Of(LinuxNamespaceType::Network, _) => {
                return Err(without("a network other than the host's"));
            }
            SharedNamespace::Of(kind, _) => return Err(without(format!("the {kind} namespace of another container"))),
            SharedNamespace::SharedMemory(_) => return Err(without("the shared memory of another container")),
        }
    }
    Ok(())
}

fn refuse_in(spec: &Spec, launch: &Launch) -> Result<()> {
    let own_name = |name: &String| name != launch.id.short();
    if spec.hostname().as_ref().is_some_and(own_name) || spec.domainname().is_some() {
        return Err(without("a host name of the container's own"));
    }
    if spec.hooks().as_ref().is_some_and(|hooks| *hooks != Hooks::default()) {
        return Err(without("hooks"));
    }
    if let Some(process) = spec.process() {
        let labels = [process.apparmor_profile(), process.selinux_label()];
        if labels.into_iter().any(Option::is_some) {
            return Err(without("a label of a security module"));
        }
        if process.oom_score_adj().is_some() {
            return Err(without("an adjustment of the OOM killer's score"));
        }
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    for namespace in linux.namespaces().iter().flatten() {
        match (namespace.typ(), namespace.path()) {
            (kind, Some(_)) => return Err(without(format!("a {kind} namespace"))),
            (LinuxNamespaceType::Network, _) => return Err(without("a network other than the host's")),
            (LinuxNamespaceType::User, _) => return Err(without("a user namespace of the container's own")),
            // Every container has those, and here none does.
            _ => {}
        }
    }
    for (paths, usual, what) in [
        (
            linux.masked_paths(),
            defaults::masked_paths(),
            "masked paths of one's own",
        ),
        (
            linux.readonly_paths(),
            defaults::readonly_paths(),
            "read-only paths of one's own",
        ),
    ] {
        if paths.as_ref().is_some_and(|paths| !paths.is_empty() && *paths != usual) {
            return Err(without(what));
        }
    }
    if linux.sysctl().as_ref().is_some_and(|all| !all.is_empty()) {
        return Err(without("sysctls"));
    }
    let rules = linux
        .resources()
        .as_ref()
        .and_then(|resources| resources.devices().as_ref());
    if linux.devices().as_ref().is_some_and(|all| !all.is_empty()) || rules.is_some_and(|all| !all.is_empty()) {
        return Err(without("devices"));
    }
    Ok(())
}

/// The engine's own files. Mounts that every container has are not there, and any other is refused.
fn files_of(launch: &Launch) -> Result<Vec<(PathBuf, PathBuf)>> {
    let usual = defaults::mounts();
    let mut files = Vec::new();
    for mount in launch.spec.mounts().iter().flatten() {
        let target = mount.destination();
        match own_file(mount, launch.bundle.as_deref()) {
            Some(_) if target == Path::new(HOSTNAME) => {}
            Some(source) => files.push((source, target.clone())),
            None if usual.contains(mount) => {}
            None => return Err(without(format!("the mount at {}", target.display()))),
        }
    }
    Ok(files)
}

fn own_file(mount: &SpecMount, directory: Option<&Path>) -> Option<PathBuf> {
    let known = FILES
        .iter()
        .chain([&HOSTNAME])
        .any(|file| mount.destination() == Path::new(file));
    let source = mount.source().as_ref()?;
    (known && source.parent() == directory).then(|| source.clone())
}

/// No new privileges, and no capability that leads out. What this process could not give is told.
///
/// # Errors
/// `Unsupported` for a capability that Docker does not give either.
fn confine(process: &mut Process, host: Host) -> Result<Vec<String>> {
    process.set_no_new_privileges(Some(true));
    let Some(mut sets) = process.capabilities().clone() else {
        return Ok(Vec::new());
    };
    let of = |set: &Option<_>| CapabilitySet::from_bits(set.as_ref().map_or(0, capability_bits));
    let wanted = of(sets.bounding()).union(of(sets.permitted()));
    if let Some(name) = wanted.minus(CapabilitySet::docker()).names().next() {
        return Err(without(name));
    }
    let away = if host.has_scopes() { AWAY } else { AWAY.union(KILL) };
    let kept = |set: &Option<_>| Some(of(set).minus(away).intersection(host.own).to_oci());
    let (bounding, effective, permitted) = (kept(sets.bounding()), kept(sets.effective()), kept(sets.permitted()));
    let (inheritable, ambient) = (kept(sets.inheritable()), kept(sets.ambient()));
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted)
        .set_inheritable(inheritable)
        .set_ambient(ambient);
    process.set_capabilities(Some(sets));
    let mut warnings = Vec::new();
    if !host.has_scopes() && wanted.contains(KILL) {
        warnings.push("CAP_KILL is taken away: nothing would keep its signals in the container".to_owned());
    }
    let lacking: Vec<&str> = wanted.minus(away).minus(host.own).names().collect();
    if !lacking.is_empty() {
        warnings.push(format!("this process has none of {} to give", lacking.join(", ")));
    }
    Ok(warnings)
}

/// Leaves to the helper what it does.
fn strip(launch: &mut Launch) {
    launch
        .spec
        .set_mounts(None)
        .set_hostname(None)
        .set_domainname(None)
        .set_hooks(None);
    if let Some(linux) = launch.spec.linux_mut() {
        linux
            .set_namespaces(None)
            .set_masked_paths(None)
            .set_readonly_paths(None);
    }
    launch.shared.clear();
    // Its warden reaps what its processes leave behind, and none of them has the number 1, which signals pass by.
    launch.init = false;
}

#[cfg(test)]
mod tests;
