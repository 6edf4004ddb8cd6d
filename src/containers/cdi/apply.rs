//! Puts what devices change into a plan. Nodes are devices of the plan like any other: `devices.rs`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use oci_spec::OciSpecError;
use oci_spec::runtime::{Hook, HookBuilder, HooksBuilder, Mount, MountBuilder, Spec};

use super::Edits;
use super::spec::{CdiHook, CdiMount};
use crate::containers::start::Ground;
use crate::error::{Error, ErrorKind, ObjectKind, Result};

/// Variables, mounts and hooks.
pub(in crate::containers) fn apply(planned: &mut Spec, edits: &Edits) -> Result<()> {
    set_env(planned, &edits.env);
    let mut mounts = planned.mounts().clone().unwrap_or_default();
    for (device, mount) in &edits.mounts {
        let made = mount_of(device, mount)?;
        mounts.retain(|known| known.destination() != made.destination());
        mounts.push(made);
    }
    planned.set_mounts(Some(mounts));
    if edits.hooks.is_empty() {
        return Ok(());
    }
    let of = |kind: &str| edits.hooks.get(kind).cloned().unwrap_or_default();
    #[allow(deprecated, reason = "devices have them still")]
    let hooks = HooksBuilder::default().prestart(of("prestart"));
    let hooks = hooks
        .create_runtime(of("createRuntime"))
        .poststart(of("poststart"))
        .poststop(of("poststop"));
    planned.set_hooks(Some(hooks.build().map_err(build_error)?));
    Ok(())
}

/// The plan in the directory that hooks are told of, if there are any. Blocking.
pub(in crate::containers) fn write_bundle(planned: &Spec, ground: &Ground) -> Result<()> {
    if planned.hooks().is_none() || ground.in_use {
        return Ok(());
    }
    let mut told = planned.clone();
    if let Some(process) = told.process_mut().as_mut().filter(|_| !ground.tells_env) {
        process.set_env(None);
    }
    let text = serde_json::to_vec(&told)
        .map_err(|error| Error::internal("a plan that cannot be written down").with_source(error))?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(ground.dir.join("config.json"));
    let written = file.and_then(|mut file| file.write_all(&text));
    written.map_err(|error| Error::os("write the bundle of the hooks", error))
}

/// A later value of a name counts, in the place of the first.
fn set_env(planned: &mut Spec, more: &[String]) {
    let Some(process) = planned.process_mut() else { return };
    let mut env = process.env().clone().unwrap_or_default();
    for pair in more {
        let name = pair.split_once('=').map_or(pair.as_str(), |(name, _)| name);
        let same = |known: &&mut String| known.split_once('=').is_some_and(|(known, _)| known == name);
        match env.iter_mut().find(same) {
            Some(known) => known.clone_from(pair),
            None => env.push(pair.clone()),
        }
    }
    process.set_env(Some(env));
}

fn mount_of(device: &str, mount: &CdiMount) -> Result<Mount> {
    let kind = mount.kind.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("bind");
    if !matches!(kind, "bind" | "tmpfs") {
        let what = format!("a mount of type {kind} of the CDI device {device}");
        let needs = "a mount of type bind or tmpfs";
        return Err(Error::unsupported(what, needs).with_object(ObjectKind::CdiDevice, device));
    }
    let mut words = mount.options.clone();
    if kind == "bind" && !words.iter().any(|word| word == "bind" || word == "rbind") {
        words.insert(0, "rbind".to_owned());
    }
    MountBuilder::default()
        .typ(kind)
        .source(&mount.host_path)
        .destination(&mount.container_path)
        .options(words)
        .build()
        .map_err(build_error)
}

pub(super) fn hook_of(hook: &CdiHook) -> Result<Hook> {
    let mut made = HookBuilder::default().path(&hook.path);
    if !hook.args.is_empty() {
        made = made.args(hook.args.clone());
    }
    if !hook.env.is_empty() {
        made = made.env(hook.env.clone());
    }
    if let Some(seconds) = hook.timeout {
        made = made.timeout(seconds);
    }
    made.build().map_err(build_error)
}

fn build_error(error: OciSpecError) -> Error {
    let message = "what a CDI device says does not make a part of the OCI runtime spec";
    Error::new(ErrorKind::Internal, message).with_source(error)
}
