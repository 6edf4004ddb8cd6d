//! A CDI specification as it is written, and whether it makes sense. Source: the Container Device Interface, SPEC.md and
//! schema/schema.json, at 1.1.0.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::name;

/// The versions that there are, the oldest first.
const VERSIONS: [&str; 8] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// What is wrong with one.
type Checked = std::result::Result<(), String>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CdiSpec {
    pub(super) cdi_version: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) devices: Vec<CdiDevice>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CdiDevice {
    pub(super) name: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

/// What a device changes in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ContainerEdits {
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) device_nodes: Vec<DeviceNode>,
    #[serde(default)]
    pub(super) net_devices: Vec<Value>,
    #[serde(default)]
    pub(super) hooks: Vec<CdiHook>,
    #[serde(default)]
    pub(super) mounts: Vec<CdiMount>,
    #[serde(default)]
    pub(super) intel_rdt: Option<Value>,
    #[serde(default, rename = "additionalGids")]
    pub(super) additional_gids: Vec<u32>,
}

/// A node of a device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceNode {
    /// In the container.
    pub(crate) path: PathBuf,
    /// On the host; the same without.
    #[serde(default)]
    pub(crate) host_path: Option<PathBuf>,
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) major: Option<i64>,
    #[serde(default)]
    pub(crate) minor: Option<i64>,
    #[serde(default)]
    pub(crate) file_mode: Option<u32>,
    #[serde(default)]
    pub(crate) permissions: Option<String>,
    #[serde(default)]
    pub(crate) uid: Option<u32>,
    #[serde(default)]
    pub(crate) gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CdiHook {
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    #[serde(default)]
    pub(super) timeout: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CdiMount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
}

impl CdiSpec {
    /// Reads one; the error says why it is none.
    pub(super) fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        let spec: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Checked {
        self.check_version()?;
        name::check_kind(&self.kind).map_err(|why| format!("the kind {:?}: {why}", self.kind))?;
        self.container_edits.check()?;
        let mut seen = std::collections::BTreeSet::new();
        for device in &self.devices {
            let of = |why: String| format!("device {:?}: {why}", device.name);
            name::check_device(&device.name).map_err(|why| of(why.to_owned()))?;
            device.container_edits.check().map_err(of)?;
            if !seen.insert(&device.name) {
                return Err(of("it is there twice".to_owned()));
            }
        }
        Ok(())
    }

    fn check_version(&self) -> Checked {
        let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
        let Some(own) = place(&self.cdi_version) else {
            let known = VERSIONS.join(", ");
            return Err(format!(
                "cdiVersion {:?} is not known: one of {known}",
                self.cdi_version
            ));
        };
        for (what, since) in self.uses() {
            if place(since).is_some_and(|needed| own < needed) {
                return Err(format!(
                    "{what} needs cdiVersion {since}, and this is {}",
                    self.cdi_version
                ));
            }
        }
        Ok(())
    }

    /// What newer versions brought and this has, with the version of each. Source: `pkg/cdi/version.go` of the reference.
    fn uses(&self) -> Vec<(&'static str, &'static str)> {
        let edits = || {
            let devices = self.devices.iter().map(|device| &device.container_edits);
            devices.chain([&self.container_edits])
        };
        let vendor_has_dots = self.kind.split_once('/').is_some_and(|(_, class)| class.contains('.'));
        let annotated =
            !self.annotations.is_empty() || self.devices.iter().any(|device| !device.annotations.is_empty());
        let digits = |device: &CdiDevice| device.name.starts_with(|c: char| c.is_ascii_digit());
        let found = [
            (
                edits().any(|edits| !edits.net_devices.is_empty()),
                ("netDevices", "1.1.0"),
            ),
            (edits().any(|edits| edits.intel_rdt.is_some()), ("intelRdt", "0.7.0")),
            (
                edits().any(|edits| !edits.additional_gids.is_empty()),
                ("additionalGids", "0.7.0"),
            ),
            (annotated, ("annotations", "0.6.0")),
            (vendor_has_dots, ("a class with a dot", "0.6.0")),
            (
                self.devices.iter().any(digits),
                ("a device that begins with a digit", "0.5.0"),
            ),
            (
                edits()
                    .flat_map(|edits| &edits.device_nodes)
                    .any(|node| node.host_path.is_some()),
                ("hostPath of a node", "0.5.0"),
            ),
            (
                edits()
                    .flat_map(|edits| &edits.mounts)
                    .any(|mount| mount.kind.is_some()),
                ("type of a mount", "0.4.0"),
            ),
        ];
        found
            .into_iter()
            .filter(|(is_there, _)| *is_there)
            .map(|(_, what)| what)
            .collect()
    }
}

impl ContainerEdits {
    fn check(&self) -> Checked {
        for pair in &self.env {
            if pair.find('=').is_none_or(|at| at == 0) || pair.contains('\0') {
                return Err(format!("env {pair:?} is not NAME=value"));
            }
        }
        self.device_nodes.iter().try_for_each(DeviceNode::check)?;
        self.hooks.iter().try_for_each(CdiHook::check)?;
        self.mounts.iter().try_for_each(CdiMount::check)
    }
}

impl DeviceNode {
    fn check(&self) -> Checked {
        check_path("the path of a node", &self.path)?;
        self.host_path
            .iter()
            .try_for_each(|path| check_path("hostPath of a node", path))?;
        match self.kind.as_deref() {
            None | Some("" | "b" | "c" | "u" | "p") => {}
            Some(other) => return Err(format!("a node of type {other:?}: one of b, c, u and p")),
        }
        let access = self.permissions.as_deref().unwrap_or_default();
        if !access.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
            return Err(format!("permissions {access:?}: some of the letters r, w and m"));
        }
        if [self.major, self.minor]
            .iter()
            .flatten()
            .any(|number| u32::try_from(*number).is_err())
        {
            return Err(format!("the numbers of {} are none", self.path.display()));
        }
        Ok(())
    }
}

impl CdiHook {
    /// The kinds that there are. Source: SPEC.md, "hooks".
    const KINDS: [&str; 6] = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];

    fn check(&self) -> Checked {
        if !Self::KINDS.contains(&self.hook_name.as_str()) {
            return Err(format!(
                "a hook {:?}: one of {}",
                self.hook_name,
                Self::KINDS.join(", ")
            ));
        }
        check_path("the path of a hook", &self.path)?;
        if self.timeout.is_some_and(|seconds| seconds <= 0) {
            return Err(format!(
                "the hook {} has a timeout that is no time",
                self.path.display()
            ));
        }
        let words = self.args.iter().chain(&self.env);
        match words.into_iter().find(|word| word.contains('\0')) {
            Some(word) => Err(format!("a word of a hook that is none: {word:?}")),
            None => Ok(()),
        }
    }
}

impl CdiMount {
    fn check(&self) -> Checked {
        check_path("hostPath of a mount", &self.host_path)?;
        check_path("containerPath of a mount", &self.container_path)?;
        match self.container_path.components().count() {
            1 => Err("a mount upon the root".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Absolute, and leading nowhere but where it says.
fn check_path(what: &str, path: &Path) -> Checked {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("{what} is not absolute: {shown}"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{what} has .. in it: {shown}"));
    }
    if path.to_string_lossy().contains('\0') {
        return Err(format!("{what} has a NUL in it: {shown:?}"));
    }
    Ok(())
}
