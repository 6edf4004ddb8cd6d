//! Devices of the Container Device Interface: what a vendor's files in `/etc/cdi` and `/var/run/cdi` say that a container
//! needs for a device, by the device's name, `vendor.com/class=name`.
//!
//! The files are read anew for each start of a container that has such devices. Of two directories the later one counts; a
//! device that two files of one directory have is a conflict, for that device alone. A file that cannot be used is told where
//! a device is missed, and hurts no device of another file. They are JSON: what is YAML and not JSON is such a file.
//! Source: <https://github.com/cncf-tags/container-device-interface>, SPEC.md, and `pkg/cdi/cache.go` of the reference.

mod apply;
mod name;
mod read;
mod spec;
#[cfg(test)]
mod tests;

pub(super) use self::apply::{apply, write_bundle};
pub(crate) use self::name::check_name;
#[cfg(feature = "api")]
pub(crate) use self::name::is_name;
pub(crate) use self::spec::DeviceNode;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::Hook;

use self::spec::{CdiMount, CdiSpec, ContainerEdits};
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// Where specifications are, unless whoever opens the engine says otherwise.
pub(crate) const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// How much an error shows of what there is.
const SHOWN: usize = 20;

/// What is in the directories.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    directories: Vec<PathBuf>,
    devices: BTreeMap<String, Found>,
    /// Files and directories that could not be used, and why.
    faults: Vec<(PathBuf, String)>,
}

/// Where a device is.
#[derive(Debug, Clone)]
struct Found {
    /// The place of its directory: a later one counts.
    priority: usize,
    /// Several: a conflict.
    files: Vec<PathBuf>,
    spec: Arc<CdiSpec>,
    /// Its place in the file.
    index: usize,
}

/// What devices change in a container, all together.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    pub(super) env: Vec<String>,
    /// With the name of the device that brings it.
    pub(super) nodes: Vec<(String, DeviceNode)>,
    mounts: Vec<(String, CdiMount)>,
    /// By the names of their kinds.
    hooks: BTreeMap<String, Vec<Hook>>,
    pub(super) gids: BTreeSet<u32>,
}

impl Registry {
    /// Reads all specifications. Blocking.
    pub(crate) fn load(directories: &[PathBuf]) -> Self {
        let mut registry = Self {
            directories: directories.to_vec(),
            ..Self::default()
        };
        for (priority, directory) in directories.iter().enumerate() {
            registry.take_directory(priority, directory);
        }
        registry
    }

    fn take_directory(&mut self, priority: usize, directory: &std::path::Path) {
        let (files, faults) = read::files(directory);
        self.faults.extend(faults);
        for path in files {
            match read::file(&path) {
                Ok(spec) => self.take(priority, path, Arc::new(spec)),
                Err(why) => self.faults.push((path, why)),
            }
        }
    }

    fn take(&mut self, priority: usize, path: PathBuf, spec: Arc<CdiSpec>) {
        for (index, device) in spec.devices.iter().enumerate() {
            let name = format!("{}={}", spec.kind, device.name);
            match self.devices.get_mut(&name) {
                Some(known) if known.priority == priority => known.files.push(path.clone()),
                _ => {
                    let found = Found {
                        priority,
                        files: vec![path.clone()],
                        spec: Arc::clone(&spec),
                        index,
                    };
                    self.devices.insert(name, found);
                }
            }
        }
    }

    /// The devices that can be had.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let usable = self.devices.iter().filter(|(_, found)| found.files.len() == 1);
        usable.map(|(name, _)| name.as_str())
    }

    #[cfg(feature = "build")]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// What devices change together; what a specification says for all its devices counts once.
    ///
    /// # Errors
    /// `NotFound` with the directories and what is there; `Conflict` for a device that two files have; `Unsupported` for what
    /// no container here can have.
    pub(crate) fn edits(&self, names: &[String]) -> Result<Edits> {
        let mut edits = Edits::default();
        let mut seen: Vec<*const CdiSpec> = Vec::new();
        let mut given = BTreeSet::new();
        for name in names.iter().filter(|name| given.insert(*name)) {
            check_name(name)?;
            let found = self.devices.get(name).ok_or_else(|| self.missing(name))?;
            if let [one, other, ..] = found.files.as_slice() {
                let (one, other) = (one.display(), other.display());
                let message = format!("the CDI device {name} is in two files: {one} and {other}");
                return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::CdiDevice, name));
            }
            if !seen.contains(&Arc::as_ptr(&found.spec)) {
                seen.push(Arc::as_ptr(&found.spec));
                edits.add(name, &found.spec.container_edits)?;
            }
            if let Some(device) = found.spec.devices.get(found.index) {
                edits.add(name, &device.container_edits)?;
            }
        }
        Ok(edits)
    }

    fn missing(&self, name: &str) -> Error {
        let looked: Vec<String> = self.directories.iter().map(|dir| dir.display().to_string()).collect();
        let mut there: Vec<&str> = self.names().take(SHOWN + 1).collect();
        if there.len() > SHOWN {
            there[SHOWN] = "...";
        }
        let there = if there.is_empty() {
            "none".to_owned()
        } else {
            there.join(", ")
        };
        let mut message = format!(
            "no such CDI device: {name}; looked in {}; there are: {there}",
            looked.join(", ")
        );
        for (path, why) in self.faults.iter().take(SHOWN) {
            message.push_str(&format!("; not used: {}: {why}", path.display()));
        }
        Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::CdiDevice, name)
    }
}

impl Edits {
    fn add(&mut self, name: &str, more: &ContainerEdits) -> Result<()> {
        let unsupported = |what: &str, needs: &str| {
            let what = format!("{what} of the CDI device {name}");
            Err(Error::unsupported(what, needs).with_object(ObjectKind::CdiDevice, name))
        };
        if more.intel_rdt.is_some() {
            return unsupported("intelRdt", "a device without: longshore does not set resctrl groups up");
        }
        if !more.net_devices.is_empty() {
            return unsupported(
                "netDevices",
                "a device without: longshore does not move the host's network devices",
            );
        }
        for hook in &more.hooks {
            if matches!(hook.hook_name.as_str(), "createContainer" | "startContainer") {
                let needs = "a hook of the kinds prestart, createRuntime, poststart and poststop: these run outside the container";
                return unsupported(&format!("the hook {} ({})", hook.hook_name, hook.path.display()), needs);
            }
            let hooks = self.hooks.entry(hook.hook_name.clone()).or_default();
            hooks.push(apply::hook_of(hook)?);
        }
        self.env.extend(more.env.iter().cloned());
        let nodes = more.device_nodes.iter();
        self.nodes.extend(nodes.map(|node| (name.to_owned(), node.clone())));
        let mounts = more.mounts.iter();
        self.mounts.extend(mounts.map(|mount| (name.to_owned(), mount.clone())));
        // Group 0 is nobody's gain. Source: the reference, `pkg/cdi/container-edits.go`.
        self.gids.extend(more.additional_gids.iter().filter(|gid| **gid != 0));
        Ok(())
    }
}
