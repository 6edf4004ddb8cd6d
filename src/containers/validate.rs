//! Checks of a [`ContainerSpec`] that need nothing but the spec: a value that can never work is refused at create.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxNamespaceType;

use super::etc::extra_host;
use super::lsm;
use super::mounts::{MountFrom, MountSpec};
use super::options::ExecSpec;
use super::policy::RestartPolicy;
use super::spec::{ContainerSpec, Lifetime, Limits, NamespaceMode, NetworkMode, Ulimit};
use super::zone;
use crate::error::{Error, ObjectKind, Result};
use crate::runtime::caps::CapabilitySet;
use crate::runtime::sysctls;
use crate::types::{Bytes, CgroupParent, ContainerName, PortBinding, VolumeName};

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
    check_namespaces(spec)?;
    check_networks(spec)?;
    check_limits(&spec.limits)?;
    spec.ulimits.iter().try_for_each(check_ulimit)?;
    check_sysctls(spec)?;
    check_devices(spec)?;
    if spec.umask.is_some_and(|mask| mask > 0o777) {
        return Err(option("umask", "permission bits alone, 0 to 0o777"));
    }
    spec.timezone.as_deref().map_or(Ok(()), zone::check_name)?;
    if let Some(parent) = &spec.cgroup_parent {
        parent.parse::<CgroupParent>()?;
    }
    for (name, value) in &spec.annotations {
        if name.is_empty() {
            return Err(option("annotation", "it has no name"));
        }
        no_nul("annotation", name)?;
        no_nul("annotation", value)?;
    }
    if spec.privileged && spec.user_namespace {
        return Err(option(
            "privileged",
            "it goes with no user namespace of the container's own",
        ));
    }
    lsm::validate(spec)?;
    check_restart(spec)?;
    spec.health.validate()?;
    CapabilitySet::docker().tweak(&spec.cap_add, &spec.cap_drop)?;
    if let Some(score) = spec.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        return Err(option("oom_score_adj", format!("{score} is not within -1000 and 1000")));
    }
    Ok(())
}

/// Refuses a policy that can never work.
pub(crate) fn check_restart(spec: &ContainerSpec) -> Result<()> {
    if !spec.auto_remove || spec.restart == RestartPolicy::No {
        return Ok(());
    }
    Err(option(
        "restart",
        "a container that is removed when it has ended cannot be started again; leave one of the two out",
    ))
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

/// What says something of networks needs one. Source: moby, `daemon/container_operations.go` and `runconfig`.
fn check_networks(spec: &ContainerSpec) -> Result<()> {
    if let Some(line) = spec.extra_hosts.iter().find(|line| extra_host(line).is_none()) {
        return Err(option(
            "extra_hosts",
            format!("bad format for add-host: {line:?} (NAME:ADDRESS, or NAME:host-gateway)"),
        ));
    }
    for text in spec.dns_search.iter().chain(&spec.dns_options) {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(option("dns", format!("{text:?} is not one word")));
        }
    }
    let mut ports = spec.ports.iter().map(|binding| &binding.port).chain(&spec.expose);
    if ports.any(|port| port.number == 0) {
        return Err(option("ports", "invalid port number: a container has no port 0"));
    }
    let turned = |range: &&PortBinding| range.host_port_end != 0 && range.host_port_end < range.host_port;
    if let Some(range) = spec.ports.iter().find(turned) {
        let (first, last) = (range.host_port, range.host_port_end);
        return Err(option(
            "ports",
            format!("invalid range of ports: {last} comes before {first}"),
        ));
    }
    let shared = matches!(spec.network, NetworkMode::Container(_));
    let ports = !spec.ports.is_empty() || spec.publish_all;
    if shared && (ports || !spec.expose.is_empty()) {
        return Err(option(
            "ports",
            "conflicting options: port publishing and the container type network mode",
        ));
    }
    if shared && !(spec.dns.is_empty() && spec.extra_hosts.is_empty()) {
        return Err(option(
            "dns",
            "conflicting options: dns or custom host-to-IP mapping and the network mode",
        ));
    }
    let named = matches!(spec.network, NetworkMode::Named(_));
    if !named && !spec.endpoints.is_empty() {
        return Err(option(
            "endpoints",
            format!(
                "a container with the network mode {} is on no other network",
                spec.network
            ),
        ));
    }
    spec.endpoints
        .values()
        .try_for_each(|endpoint| endpoint.shaping.check())?;
    if !named && !spec.host_ports.is_empty() {
        return Err(option(
            "host_ports",
            "they are reached at the gateway of a bridge network, which the container is not on",
        ));
    }
    Ok(())
}

/// Docker's rules, in its words where it has some. Source: moby, `daemon/container.go` and `runconfig`.
fn check_namespaces(spec: &ContainerSpec) -> Result<()> {
    use NamespaceMode::{Container, Host, Private, Shareable};
    let conflict = |what: &str, mode: &str| option("namespaces", format!("conflicting options: {what} and the {mode}"));
    let named = spec.hostname.is_some() || spec.domainname.is_some();
    if named && spec.uts_mode == Host {
        return Err(conflict("hostname", "UTS mode"));
    }
    if spec.hostname.is_some() && matches!(spec.network, NetworkMode::Container(_)) {
        return Err(conflict("hostname", "network mode"));
    }
    let known = matches!(spec.uts_mode, Private | Host)
        && matches!(spec.cgroup_mode, Private | Host)
        && spec.pid_mode != Shareable;
    if !known {
        return Err(option(
            "namespaces",
            "UTS and cgroup namespaces are private or the host's, and shareable is a word of IPC alone",
        ));
    }
    let modes = [&spec.pid_mode, &spec.ipc_mode, &spec.uts_mode, &spec.cgroup_mode];
    let shared = modes.iter().any(|mode| matches!(mode, Host | Container(_)));
    if spec.user_namespace && (shared || matches!(spec.network, NetworkMode::Container(_) | NetworkMode::Named(_))) {
        return Err(option(
            "namespaces",
            "a user namespace of the container's own goes with no shared ones",
        ));
    }
    if spec.pid_mode == Host && spec.lifetime != Some(Lifetime::Detached) {
        return Err(Error::unsupported(
            "the host's pid namespace",
            "a container that outlives its engine (Lifetime::Detached): one that is bound to it lives in a pid namespace of the \
             engine's, which is what ends it",
        )
        .with_object(ObjectKind::Option, "pid_mode"));
    }
    Ok(())
}

/// What is not the container's own is the host's, or another container's, which set it itself.
fn check_sysctls(spec: &ContainerSpec) -> Result<()> {
    for (name, value) in &spec.sysctls {
        sysctls::path(name)?;
        no_nul("sysctl", value)?;
        let (namespace, whose) = sysctls::namespace(name);
        let private = match namespace {
            LinuxNamespaceType::Network => spec.network == NetworkMode::None,
            LinuxNamespaceType::Uts => spec.uts_mode == NamespaceMode::Private,
            _ => matches!(spec.ipc_mode, NamespaceMode::Private | NamespaceMode::Shareable),
        };
        if !private {
            return Err(sysctls::of_the_host(name, whose));
        }
    }
    Ok(())
}

fn check_devices(spec: &ContainerSpec) -> Result<()> {
    for mapping in &spec.devices {
        absolute("device", &mapping.source)?;
        check_target(&mapping.target)?;
    }
    spec.cdi_devices
        .iter()
        .try_for_each(|name| super::cdi::check_name(name))?;
    let limits = &spec.limits;
    let rates = [
        &limits.device_read_bps,
        &limits.device_write_bps,
        &limits.device_read_iops,
        &limits.device_write_iops,
    ];
    let paths = rates.into_iter().flatten().map(|rate| &rate.path);
    let paths = paths.chain(limits.blkio_weight_devices.iter().map(|weight| &weight.path));
    paths.into_iter().try_for_each(|path| absolute("device", path))
}

/// Source: moby, `daemon/daemon_unix.go`; Documentation/admin-guide/cgroup-v1/blkio-controller.rst.
fn check_block_io(limits: &Limits) -> Result<()> {
    let bad = |weight: u16| weight != 0 && !(10..=1000).contains(&weight);
    let mut weights = limits.blkio_weight_devices.iter().map(|device| device.weight);
    if limits.blkio_weight.is_some_and(bad) || weights.any(bad) {
        return Err(option("blkio_weight", "Range of blkio weight is from 10 to 1000"));
    }
    let unit = |size: &str| {
        size.trim_end_matches(|c: char| c.is_ascii_uppercase())
            .parse::<u64>()
            .is_ok()
    };
    match limits
        .huge_pages
        .keys()
        .find(|size| !size.ends_with('B') || !unit(size))
    {
        Some(size) => Err(option(
            "huge_pages",
            format!("{size:?} is no size of pages; say it as 2MB or 1GB"),
        )),
        None => Ok(()),
    }
}

fn check_paths(spec: &ContainerSpec) -> Result<()> {
    for bind in &spec.binds {
        absolute("mount source", &bind.source)?;
    }
    let mut taken = BTreeSet::new();
    for target in spec.targets() {
        check_target(target)?;
        if !taken.insert(target.components().collect::<PathBuf>()) {
            return Err(option("mount target", format!("{} is there twice", target.display())));
        }
    }
    spec.mounts.iter().try_for_each(check_mount)?;
    for (path, file) in &spec.files {
        check_target(path)?;
        if file.mode > 0o7777 {
            return Err(option("file", format!("{:o} are no permission bits", file.mode)));
        }
    }
    let listed = spec.masked_paths.iter().chain(&spec.readonly_paths).flatten();
    listed
        .into_iter()
        .try_for_each(|path| absolute("masked or read-only path", path))
}

/// Source: moby, `volume/mounts/linux_parser.go`, `validateMountConfigImpl`.
fn check_mount(mount: &MountSpec) -> Result<()> {
    match &mount.source {
        MountFrom::Bind(bind) => {
            absolute("mount source", &bind.source)?;
            if bind.source.components().any(|part| part == Component::ParentDir) {
                return Err(option(
                    "mount source",
                    format!("{} has \"..\" in it", bind.source.display()),
                ));
            }
        }
        MountFrom::Volume(volume) => {
            if let Some(name) = &volume.name {
                name.parse::<VolumeName>()?;
            }
        }
        MountFrom::Tmpfs(_) => {}
        MountFrom::Image(image) if image.is_empty() => return Err(option("mount source", "an image is needed")),
        MountFrom::Image(_) => {}
    }
    let Some(part) = &mount.subpath else { return Ok(()) };
    no_nul("mount subpath", &part.to_string_lossy())?;
    let plain = part
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || part.as_os_str().is_empty() || matches!(mount.source, MountFrom::Bind(_) | MountFrom::Tmpfs(_)) {
        let why = format!(
            "{}: a relative path without \"..\", of a volume or an image",
            part.display()
        );
        return Err(option("mount subpath", why));
    }
    Ok(())
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
    let set_ok = |set: &String| set.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b','));
    if !limits.cpuset_cpus.as_ref().is_none_or(set_ok) {
        return Err(option("cpuset_cpus", "a list such as 0-2,4"));
    }
    if !limits.cpuset_mems.as_ref().is_none_or(set_ok) {
        return Err(option("cpuset_mems", "a list such as 0-1"));
    }
    if limits.memory_swappiness.is_some_and(|swappiness| swappiness > 100) {
        return Err(option("memory_swappiness", "0 to 100"));
    }
    check_block_io(limits)?;
    check_periods(limits)
}

/// Source: Documentation/scheduler/sched-bwc.rst and sched-rt-group.rst of the kernel; moby, `verifyPlatformContainerResources`.
fn check_periods(limits: &Limits) -> Result<()> {
    let (quota, period) = (
        limits.cpu_quota_us.filter(|quota| *quota != 0),
        limits.cpu_period_us.filter(|period| *period != 0),
    );
    if limits.nano_cpus.is_some_and(|cpus| cpus != 0) && (quota.is_some() || period.is_some()) {
        let why = "nano_cpus is set already, and says the same";
        return Err(option("cpu_quota_us or cpu_period_us", why));
    }
    if period.is_some_and(|period| !(1_000..=1_000_000).contains(&period)) {
        return Err(option("cpu_period_us", "1,000 to 1,000,000"));
    }
    if quota.is_some_and(|quota| quota != -1 && quota < 1_000) {
        return Err(option("cpu_quota_us", "at least 1,000, or -1 for no limit"));
    }
    let (runtime, period) = (
        limits.cpu_rt_runtime_us.unwrap_or(0),
        limits.cpu_rt_period_us.filter(|period| *period != 0),
    );
    if runtime < -1 || period.is_some_and(|period| runtime > 0 && runtime.unsigned_abs() > period) {
        return Err(option("cpu_rt_runtime_us", "it cannot be more than its period"));
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
        let limited = |set: fn(&mut Limits)| {
            let mut spec = good();
            set(&mut spec.limits);
            spec
        };
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
            good().annotation("", "x"),
            limited(|limits| limits.cpuset_mems = Some("a".to_owned())),
            limited(|limits| limits.memory_swappiness = Some(101)),
            limited(|limits| limits.cpu_period_us = Some(999)),
            limited(|limits| limits.cpu_quota_us = Some(1)),
            limited(|limits| (limits.nano_cpus, limits.cpu_quota_us) = (Some(1_000_000_000), Some(50_000))),
            limited(|limits| (limits.cpu_rt_period_us, limits.cpu_rt_runtime_us) = (Some(10), Some(11))),
            good().ulimit("nofile", 10, 5),
            good().ulimit("nope", 1, 1),
            good().sysctl("kernel.panic", "1"),
            good().sysctl("net.core.somaxconn", "1\0"),
            good().sysctl("net.core.somaxconn", "1").network(NetworkMode::Host),
            good().sysctl("kernel.shmmax", "1").ipc_mode(NamespaceMode::Host),
            good().device("dev/null"),
            good().cdi_device("vendor.com/class"),
            good().umask(0o1000u32),
            good().cgroup_parent("../host"),
            good().cgroup_parent(""),
            limited(|limits| limits.blkio_weight = Some(9)),
            limited(|limits| limits.huge_pages = [("big".to_owned(), Bytes::mib(2))].into()),
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
