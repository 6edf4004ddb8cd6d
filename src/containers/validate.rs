//! Checks of a [`ContainerSpec`] that need nothing but the spec: a value that can never work is refused at create.

use std::path::{Component, Path};

use super::options::ExecSpec;
use super::spec::{ContainerSpec, Limits, Ulimit};
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::caps::CapabilitySet;
use crate::types::{Bytes, ContainerName};

/// Docker's least memory limit: below it not even the set-up of a container fits.
const MIN_MEMORY: Bytes = Bytes::mib(6);
/// `HOST_NAME_MAX`. Source: sethostname(2).
const MAX_HOSTNAME: usize = 64;

/// Refuses what can never work.
pub(crate) fn validate(spec: &ContainerSpec) -> Result<()> {
    if spec.image.is_empty() {
        return Err(option("image", "an image is needed"));
    }
    if let Some(name) = &spec.name {
        name.parse::<ContainerName>()?;
    }
    for (name, value) in &spec.env {
        check_env(name, value)?;
    }
    for text in spec.command.iter().chain(&spec.entrypoint).flatten() {
        no_nul("command", text)?;
    }
    if let Some(dir) = &spec.working_dir {
        absolute("working_dir", dir)?;
    }
    for host in [&spec.hostname, &spec.domainname].into_iter().flatten() {
        check_hostname(host)?;
    }
    check_paths(spec)?;
    check_limits(&spec.limits)?;
    spec.ulimits.iter().try_for_each(check_ulimit)?;
    CapabilitySet::docker().tweak(&spec.cap_add, &spec.cap_drop)?;
    if let Some(score) = spec.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        return Err(option("oom_score_adj", format!("{score} is not within -1000 and 1000")));
    }
    Ok(())
}

/// Refuses a command that can never work.
pub(crate) fn validate_exec(spec: &ExecSpec) -> Result<()> {
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(option("command", "no program is named"));
    }
    spec.command.iter().try_for_each(|text| no_nul("command", text))?;
    for (name, value) in &spec.env {
        check_env(name, value)?;
    }
    if let Some(dir) = &spec.working_dir {
        absolute("working_dir", dir)?;
    }
    spec.user.iter().try_for_each(|user| no_nul("user", user))
}

fn option(name: &'static str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("invalid {name}: {why}")).with_object(ObjectKind::Option, name)
}

fn no_nul(name: &'static str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(option(name, "it holds a NUL byte"));
    }
    Ok(())
}

fn check_env(name: &str, value: &str) -> Result<()> {
    if name.is_empty() || name.contains('=') {
        return Err(option("env", format!("{name:?} cannot be the name of a variable")));
    }
    no_nul("env", name)?;
    no_nul("env", value)
}

fn absolute(name: &'static str, path: &Path) -> Result<()> {
    no_nul(name, &path.to_string_lossy())?;
    if path.is_absolute() {
        return Ok(());
    }
    Err(option(name, format!("{} is not an absolute path", path.display())))
}

fn check_hostname(host: &str) -> Result<()> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !host.is_empty() && host.len() <= MAX_HOSTNAME && host.bytes().all(ok) {
        return Ok(());
    }
    Err(option(
        "hostname",
        format!("{host:?} (1 to {MAX_HOSTNAME} letters, digits, '-', '.')"),
    ))
}

fn check_paths(spec: &ContainerSpec) -> Result<()> {
    for bind in &spec.binds {
        absolute("mount source", &bind.source)?;
        check_target(&bind.target)?;
    }
    for path in spec.tmpfs.keys() {
        check_target(path)?;
    }
    let listed = spec.masked_paths.iter().chain(&spec.readonly_paths).flatten();
    listed
        .into_iter()
        .try_for_each(|path| absolute("masked or read-only path", path))
}

fn check_target(path: &Path) -> Result<()> {
    absolute("mount target", path)?;
    if path.components().any(|part| part == Component::ParentDir) || path == Path::new("/") {
        return Err(option(
            "mount target",
            format!("{} is the root or leads out of it", path.display()),
        ));
    }
    Ok(())
}

pub(crate) fn check_limits(limits: &Limits) -> Result<()> {
    if let Some(memory) = limits.memory.filter(|memory| memory.get() != 0)
        && memory < MIN_MEMORY
    {
        return Err(option(
            "memory limit",
            format!("{} bytes; at least 6 MiB are needed", memory.get()),
        ));
    }
    if let (Some(swap), Some(memory)) = (limits.memory_swap, limits.memory)
        && swap > 0
        && (swap as u64) < memory.get()
    {
        return Err(option(
            "memory_swap",
            "it counts memory and swap together, so it cannot be less than memory",
        ));
    }
    if limits.memory_swap.is_some_and(|swap| swap < -1) {
        return Err(option("memory_swap", "it is a number of bytes, or -1 for no limit"));
    }
    if let Some(cpus) = limits.nano_cpus.filter(|cpus| *cpus != 0)
        && cpus < 10_000_000
    {
        return Err(option("cpus", "at least 0.01 is needed"));
    }
    if limits
        .cpu_shares
        .is_some_and(|shares| shares != 0 && !(2..=262_144).contains(&shares))
    {
        return Err(option("cpu_shares", "2 to 262144"));
    }
    let cpuset_ok = |set: &String| set.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b','));
    if !limits.cpuset_cpus.as_ref().is_none_or(cpuset_ok) {
        return Err(option("cpuset_cpus", "a list such as 0-2,4"));
    }
    Ok(())
}

fn check_ulimit(limit: &Ulimit) -> Result<()> {
    super::plan::rlimit_type(&limit.name)?;
    if limit.soft > limit.hard {
        return Err(option(
            "ulimit",
            format!(
                "{}: the soft limit {} is above the hard one {}",
                limit.name, limit.soft, limit.hard
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_can_never_work_is_refused() {
        let good = || ContainerSpec::image("busybox");
        let bad = [
            ContainerSpec::image(""),
            good().name("-x"),
            good().env("A=B", "x"),
            good().env("", "x"),
            good().env("A", "x\0y"),
            good().command(["a\0b"]),
            good().working_dir("relative"),
            good().hostname("a b"),
            good().bind("relative", "/x"),
            good().bind("/x", "/"),
            good().bind("/x", "/a/../.."),
            good().memory(Bytes::mib(1)),
            good().cpus(0.001),
            good().cap_add("NOPE"),
            good().ulimit("nofile", 10, 5),
            good().ulimit("nope", 1, 1),
        ];
        for spec in bad {
            assert_eq!(
                validate(&spec).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{spec:?}"
            );
        }
        validate(
            &good()
                .env("A", "b=c")
                .memory(Bytes::mib(6))
                .cpus(0.5)
                .bind("/x", "/y")
                .hostname("web-1"),
        )
        .unwrap();
    }
}
