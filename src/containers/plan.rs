//! From a spec and an image's config to an OCI runtime spec. Pure: no I/O, the same input gives the same output.
//!
//! Docker's rules of merging: FEATURES H1, and <https://docs.docker.com/reference/dockerfile/#understand-how-cmd-and-entrypoint-interact>.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, Linux, LinuxBlockIoBuilder, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpu, LinuxHugepageLimit,
    LinuxHugepageLimitBuilder, LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, LinuxSeccomp, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, ProcessBuilder, Spec, SpecBuilder, User, UserBuilder,
};
use serde::{Deserialize, Serialize};

use super::mounts::MountFrom;
use super::options::ExecSpec;
use super::spec::{ContainerSpec, Limits, NamespaceMode, NetworkMode, Seccomp, Tmpfs};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::HealthConfig;
use crate::runtime::caps::CapabilitySet;
use crate::runtime::{ExecLaunch, StdioPlan, defaults};
use crate::types::{Bytes, CgroupParent, ContainerId, Signal};

/// What an image says of its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageDefaults {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: Option<String>,
    /// Ports that its programs listen at, as written.
    #[serde(default)]
    pub(crate) exposed: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthConfig>,
    /// What lines are run with, where it is not the usual shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) shell: Vec<String>,
}

const DEFAULT_SIZE: (u16, u16) = (24, 80);
const CPU_PERIOD: u64 = 100_000;

/// The program and its arguments.
///
/// # Errors
/// `InvalidArgument` if neither the caller nor the image names one.
pub(crate) fn arguments(spec: &ContainerSpec, image: &ImageDefaults) -> Result<Vec<String>> {
    let entrypoint = spec.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let command = match (&spec.command, &spec.entrypoint) {
        (Some(command), _) => command.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => image.command.as_slice(),
    };
    let arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if arguments.first().is_none_or(String::is_empty) {
        return Err(
            Error::invalid("no command specified: neither the request nor the image names a program to run")
                .with_object(ObjectKind::Option, "command"),
        );
    }
    Ok(arguments)
}

/// The environment: PATH and HOSTNAME, then the image's, then the caller's; TERM with a terminal. HOME is the runtime's, which
/// knows the user.
pub(crate) fn environment(spec: &ContainerSpec, image: &ImageDefaults, hostname: &str) -> Vec<String> {
    let mut env: Vec<(String, String)> = vec![
        ("PATH".into(), defaults::PATH.into()),
        ("HOSTNAME".into(), hostname.into()),
    ];
    if spec.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    let given = spec.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let of_image = image.env.iter().map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    });
    for (name, value) in of_image.chain(given) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(slot) => slot.1 = value,
            None => env.push((name, value)),
        }
    }
    env.retain(|(name, _)| !spec.env_remove.contains(name));
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What `stop` sends, and how long it waits.
pub(crate) fn stop_plan(spec: &ContainerSpec, image: &ImageDefaults) -> (Signal, Duration) {
    let of_image = image.stop_signal.as_deref().and_then(|text| text.parse().ok());
    let signal = spec.stop_signal.or(of_image).unwrap_or(Signal::TERM);
    (signal, spec.stop_timeout.unwrap_or(Duration::from_secs(10)))
}

/// The user as written, by the caller or the image.
pub(crate) fn user(spec: &ContainerSpec, image: &ImageDefaults) -> Option<String> {
    spec.user
        .clone()
        .or_else(|| image.user.clone())
        .filter(|user| !user.is_empty())
}

/// The container's host name.
pub(crate) fn hostname(spec: &ContainerSpec, id: &ContainerId) -> String {
    if spec.uts_mode == NamespaceMode::Host {
        return host_name().unwrap_or_else(|| id.short().to_owned());
    }
    spec.hostname.clone().unwrap_or_else(|| id.short().to_owned())
}

/// The host's name.
fn host_name() -> Option<String> {
    let names = nix::sys::utsname::uname().ok()?;
    names.nodename().to_str().map(str::to_owned)
}

/// Standard streams of the first process.
pub(crate) fn stdio(spec: &ContainerSpec) -> StdioPlan {
    StdioPlan {
        stdin: spec.open_stdin,
        terminal: spec.tty.then(|| spec.tty_size.unwrap_or(DEFAULT_SIZE)),
    }
}

/// Docker's set, changed as asked for; a privileged container has all, whatever is asked for.
pub(crate) fn capabilities(spec: &ContainerSpec) -> Result<CapabilitySet> {
    let asked = CapabilitySet::docker().tweak(&spec.cap_add, &spec.cap_drop)?;
    Ok(if spec.privileged { CapabilitySet::ALL } else { asked })
}

/// Whether a plan can be made of what is asked for.
pub(crate) fn check(id: &ContainerId, spec: &ContainerSpec, image: &ImageDefaults) -> Result<()> {
    planned(id, spec, image, capabilities(spec)?).map(drop)
}

/// The whole OCI spec. `root` is left out: the storage driver's mounts stand in its place.
pub(crate) fn oci_spec(id: &ContainerId, spec: &ContainerSpec, image: &ImageDefaults) -> Result<Spec> {
    let capabilities = capabilities(spec)?;
    let mut planned = planned(id, spec, image, capabilities)?;
    let profile = seccomp(spec, capabilities)?;
    // Last: builders copy what they are given, and this is the largest part by far.
    if let (Some(linux), Some(profile)) = (planned.linux_mut(), profile) {
        linux.set_seccomp(Some(profile));
    }
    Ok(planned)
}

fn planned(id: &ContainerId, spec: &ContainerSpec, image: &ImageDefaults, capabilities: CapabilitySet) -> Result<Spec> {
    let hostname = hostname(spec, id);
    let process = process(spec, image, &hostname, capabilities)?;
    let mut mounts = defaults::mounts();
    if spec.privileged {
        mounts.iter_mut().for_each(make_writable);
    }
    if spec.ipc_mode == NamespaceMode::Host {
        let place = Path::new("/dev/shm");
        replace_mount(&mut mounts, bind_mount(place, place, false)?);
    }
    if let Some(size) = spec.shm_size.filter(|_| spec.ipc_mode != NamespaceMode::Host) {
        replace_mount(&mut mounts, defaults::shm_mount(size.get()));
    }
    for (path, options) in &spec.tmpfs {
        replace_mount(&mut mounts, tmpfs_mount(path, options)?);
    }
    for mount in &spec.mounts {
        if let MountFrom::Tmpfs(options) = &mount.source {
            let mut made = tmpfs_mount(&mount.target, options)?;
            if mount.read_only {
                add_word(&mut made, "ro");
            }
            replace_mount(&mut mounts, made);
        }
    }
    make_room_in(&mut mounts, spec.binds.iter().map(|bind| bind.target.as_path()));
    let mut builder = SpecBuilder::default()
        .process(process)
        .hostname(hostname)
        .mounts(mounts)
        .linux(linux(spec, id)?);
    if let Some(domain) = &spec.domainname {
        builder = builder.domainname(domain);
    }
    if !spec.annotations.is_empty() {
        let annotations = spec.annotations.clone().into_iter();
        builder = builder.annotations(annotations.collect::<HashMap<_, _>>());
    }
    let mut planned = builder.build().map_err(build_error)?;
    if spec.uts_mode == NamespaceMode::Host {
        // Not the container's to set.
        planned.set_hostname(None).set_domainname(None);
    }
    planned.set_root(None);
    Ok(planned)
}

fn build_error(error: OciSpecError) -> Error {
    Error::new(ErrorKind::Internal, "the plan does not make an OCI runtime spec").with_source(error)
}

fn process(
    spec: &ContainerSpec,
    image: &ImageDefaults,
    hostname: &str,
    capabilities: CapabilitySet,
) -> Result<Process> {
    let set = capabilities.to_oci();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(CapabilitySet::EMPTY.to_oci())
        .ambient(CapabilitySet::EMPTY.to_oci())
        .build()
        .map_err(build_error)?;
    let cwd = spec
        .working_dir
        .clone()
        .or_else(|| image.working_dir.clone().filter(|dir| !dir.is_empty()).map(Into::into));
    let rlimits = spec.ulimits.iter().map(rlimit).collect::<Result<Vec<_>>>()?;
    let mut builder = ProcessBuilder::default()
        .terminal(spec.tty)
        .user(first_user(spec)?)
        .args(arguments(spec, image)?)
        .env(environment(spec, image, hostname))
        .cwd(cwd.unwrap_or_else(|| PathBuf::from("/")))
        .capabilities(capabilities)
        .rlimits(rlimits)
        .no_new_privileges(spec.no_new_privileges);
    if let Some((rows, columns)) = stdio(spec).terminal {
        let size = BoxBuilder::default()
            .height(u64::from(rows))
            .width(u64::from(columns))
            .build()
            .map_err(build_error)?;
        builder = builder.console_size(size);
    }
    if let Some(score) = spec.oom_score_adj {
        builder = builder.oom_score_adj(score);
    }
    if let Some(profile) = super::lsm::profile(spec) {
        builder = builder.apparmor_profile(profile);
    }
    builder.build().map_err(build_error)
}

/// Root, until the helper has found the user in the container's own files.
fn first_user(spec: &ContainerSpec) -> Result<User> {
    let mut user = UserBuilder::default().uid(0u32).gid(0u32);
    if let Some(mask) = spec.umask {
        user = user.umask(mask);
    }
    user.build().map_err(build_error)
}

/// A command for a running container: the container's own environment, limits and rights, and what the caller changes.
pub(crate) fn exec(
    id: &ContainerId,
    container: &ContainerSpec,
    image: &ImageDefaults,
    exec: &ExecSpec,
) -> Result<ExecLaunch> {
    let mut spec = container.clone();
    spec.entrypoint = Some(Vec::new());
    spec.command = Some(exec.command.clone());
    spec.env.extend(exec.env.clone());
    spec.working_dir = exec.working_dir.clone().or(spec.working_dir);
    spec.tty = exec.tty;
    spec.tty_size = exec.tty_size;
    spec.open_stdin = exec.stdin;
    let own = self::capabilities(container)?;
    let capabilities = if exec.privileged { CapabilitySet::ALL } else { own };
    let seccomp = match exec.privileged {
        true => None,
        false => seccomp(container, own)?,
    };
    Ok(ExecLaunch {
        process: process(&spec, image, &hostname(container, id), capabilities)?,
        user: exec.user.clone().or_else(|| user(container, image)),
        extra_groups: container.groups.clone(),
        seccomp,
        stdio: stdio(&spec),
        marked: false,
    })
}

/// The kernel's limit of a name that Docker knows.
pub(crate) fn rlimit_type(name: &str) -> Result<PosixRlimitType> {
    let known = format!("RLIMIT_{}", name.to_ascii_uppercase());
    serde_json::from_value(serde_json::Value::String(known)).map_err(|_| {
        Error::invalid(format!(
            "invalid ulimit: {name:?} is not a resource limit (nofile, nproc, core, …)"
        ))
        .with_object(ObjectKind::Option, "ulimit")
    })
}

fn rlimit(limit: &super::spec::Ulimit) -> Result<PosixRlimit> {
    let typ = rlimit_type(&limit.name)?;
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(limit.soft)
        .hard(limit.hard)
        .build()
        .map_err(build_error)
}

/// The kernel's own file systems are read-only for who is not privileged.
fn make_writable(mount: &mut Mount) {
    let words = mount.options().iter().flatten();
    let words = words.map(|word| if word == "ro" { "rw".to_owned() } else { word.clone() });
    let words: Vec<String> = words.collect();
    mount.set_options(Some(words));
}

fn replace_mount(mounts: &mut Vec<Mount>, mount: Mount) {
    mounts.retain(|known| known.destination() != mount.destination());
    mounts.push(mount);
}

fn add_word(mount: &mut Mount, word: &str) {
    let mut words = mount.options().clone().unwrap_or_default();
    words.push(word.to_owned());
    mount.set_options(Some(words));
}

/// Takes out mounts whose places others have.
pub(crate) fn make_room<'a>(spec: &mut Spec, targets: impl Iterator<Item = &'a Path>) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    make_room_in(&mut mounts, targets);
    spec.set_mounts(Some(mounts));
}

fn make_room_in<'a>(mounts: &mut Vec<Mount>, targets: impl Iterator<Item = &'a Path>) {
    for target in targets {
        mounts.retain(|known| known.destination() != target);
    }
}

fn tmpfs_mount(path: &Path, options: &Tmpfs) -> Result<Mount> {
    let mut words: Vec<String> = ["nosuid", "nodev"].map(Into::into).into();
    words.push(if options.exec { "exec" } else { "noexec" }.into());
    words.push(format!("mode={:o}", options.mode.unwrap_or(0o1777)));
    words.extend(options.size.map(|size| format!("size={}", size.get())));
    words.extend(options.uid.map(|uid| format!("uid={uid}")));
    words.extend(options.gid.map(|gid| format!("gid={gid}")));
    MountBuilder::default()
        .destination(path)
        .typ("tmpfs")
        .source("tmpfs")
        .options(words)
        .build()
        .map_err(build_error)
}

/// A bind mount of the runtime spec.
pub(crate) fn bind_mount(source: &Path, target: &Path, read_only: bool) -> Result<Mount> {
    let access = if read_only { "ro" } else { "rw" };
    let words: Vec<String> = ["rbind", "rprivate", access].map(Into::into).into();
    MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(source)
        .options(words)
        .build()
        .map_err(build_error)
}

fn linux(spec: &ContainerSpec, id: &ContainerId) -> Result<Linux> {
    let text = |paths: &Option<Vec<PathBuf>>, default: fn() -> Vec<String>| match paths {
        None if spec.privileged => Vec::new(),
        Some(paths) => paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        None => default(),
    };
    let mut linux = LinuxBuilder::default();
    if let Some(parent) = &spec.cgroup_parent {
        linux = linux.cgroups_path(parent.parse::<CgroupParent>()?.path_of(id));
    }
    linux
        .namespaces(namespaces(spec)?)
        .resources(resources(&spec.limits)?)
        .masked_paths(text(&spec.masked_paths, defaults::masked_paths))
        .readonly_paths(text(&spec.readonly_paths, defaults::readonly_paths))
        .sysctl(spec.sysctls.clone().into_iter().collect::<HashMap<_, _>>())
        .build()
        .map_err(build_error)
}

fn seccomp(spec: &ContainerSpec, capabilities: CapabilitySet) -> Result<Option<LinuxSeccomp>> {
    Ok(match &spec.seccomp {
        Seccomp::Default if spec.privileged => None,
        Seccomp::Default => Some(crate::runtime::native::seccomp::default_profile(&capabilities)),
        Seccomp::Unconfined => None,
        Seccomp::Custom(profile) => Some(profile.as_ref().clone()),
        Seccomp::Profile(profile) => Some(profile.resolve(&capabilities)?),
    })
}

fn namespaces(spec: &ContainerSpec) -> Result<Vec<oci_spec::runtime::LinuxNamespace>> {
    use LinuxNamespaceType as Ns;
    let mut kinds = vec![Ns::Mount, Ns::Pid, Ns::Ipc, Ns::Uts, Ns::Cgroup];
    if spec.network == NetworkMode::None {
        kinds.push(Ns::Network);
    }
    if spec.user_namespace {
        kinds.push(Ns::User);
    }
    kinds
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().map_err(build_error))
        .collect()
}

/// Docker's limits in the runtime spec's units.
pub(crate) fn resources(limits: &Limits) -> Result<LinuxResources> {
    let mut builder = LinuxResourcesBuilder::default();
    if let Some(memory) = memory(limits)? {
        builder = builder.memory(memory);
    }
    if let Some(cpu) = cpu(limits) {
        builder = builder.cpu(cpu);
    }
    if let Some(pids) = limits.pids.filter(|pids| *pids > 0) {
        builder = builder.pids(LinuxPidsBuilder::default().limit(pids).build().map_err(build_error)?);
    }
    if let Some(weight) = limits.blkio_weight.filter(|weight| *weight != 0) {
        builder = builder.block_io(
            LinuxBlockIoBuilder::default()
                .weight(weight)
                .build()
                .map_err(build_error)?,
        );
    }
    let pages = limits.huge_pages.iter().map(huge_pages).collect::<Result<Vec<_>>>()?;
    if !pages.is_empty() {
        builder = builder.hugepage_limits(pages);
    }
    builder.build().map_err(build_error)
}

fn huge_pages((size, limit): (&String, &Bytes)) -> Result<LinuxHugepageLimit> {
    let limit = i64::try_from(limit.get()).unwrap_or(i64::MAX);
    let built = LinuxHugepageLimitBuilder::default()
        .page_size(size)
        .limit(limit)
        .build();
    built.map_err(build_error)
}

/// Time, weight and sets of CPUs, if any of them is limited. Zero is no limit.
fn cpu(limits: &Limits) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    match limits.nano_cpus.filter(|cpus| *cpus != 0) {
        Some(cpus) => {
            cpu.set_quota(Some((cpus / 1000 * CPU_PERIOD / 1_000_000) as i64))
                .set_period(Some(CPU_PERIOD));
        }
        None => {
            cpu.set_quota(limits.cpu_quota_us.filter(|quota| *quota != 0))
                .set_period(limits.cpu_period_us.filter(|period| *period != 0));
        }
    }
    cpu.set_shares(limits.cpu_shares.filter(|shares| *shares != 0))
        .set_realtime_runtime(limits.cpu_rt_runtime_us.filter(|runtime| *runtime != 0))
        .set_realtime_period(limits.cpu_rt_period_us.filter(|period| *period != 0))
        .set_cpus(limits.cpuset_cpus.clone())
        .set_mems(limits.cpuset_mems.clone());
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn memory(limits: &Limits) -> Result<Option<oci_spec::runtime::LinuxMemory>> {
    let bytes = |size: Option<Bytes>| size.map(|size| size.get() as i64).filter(|size| *size != 0);
    let (limit, reservation) = (bytes(limits.memory), bytes(limits.memory_reservation));
    // Docker's default: as much swap again as memory.
    let swap = limits
        .memory_swap
        .filter(|swap| *swap != 0)
        .or_else(|| limit.map(|limit| limit.saturating_mul(2)));
    let oom_kill_disable = limits.oom_kill_disable.filter(|disable| *disable);
    let others = limits.memory_swap.is_some() || limits.memory_swappiness.is_some() || oom_kill_disable.is_some();
    if limit.is_none() && reservation.is_none() && !others {
        return Ok(None);
    }
    let mut builder = LinuxMemoryBuilder::default();
    if let Some(limit) = limit {
        builder = builder.limit(limit);
    }
    if let Some(reservation) = reservation {
        builder = builder.reservation(reservation);
    }
    if let Some(swap) = swap {
        builder = builder.swap(swap);
    }
    if let Some(swappiness) = limits.memory_swappiness {
        builder = builder.swappiness(swappiness);
    }
    if let Some(disable) = oom_kill_disable {
        builder = builder.disable_oom_killer(disable);
    }
    builder.build().map(Some).map_err(build_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageDefaults {
        ImageDefaults {
            entrypoint: vec!["/entry".into()],
            command: vec!["default".into()],
            env: vec!["PATH=/x".into(), "A=1".into()],
            ..ImageDefaults::default()
        }
    }

    #[test]
    fn h1_entrypoint_and_command_merge_as_docker_does() {
        let spec = ContainerSpec::image("x");
        let cases = [
            (spec.clone(), vec!["/entry", "default"]),
            (spec.clone().command(["a", "b"]), vec!["/entry", "a", "b"]),
            (spec.clone().entrypoint(["/other"]), vec!["/other"]),
            (spec.clone().entrypoint(["/other"]).command(["a"]), vec!["/other", "a"]),
        ];
        for (spec, expected) in cases {
            assert_eq!(arguments(&spec, &image()).unwrap(), expected);
        }
        assert_eq!(
            arguments(&spec, &ImageDefaults::default()).unwrap_err().kind(),
            &ErrorKind::InvalidArgument
        );
    }

    #[test]
    fn h1_environment_is_merged_in_order() {
        let spec = ContainerSpec::image("x").env("A", "2").env("B", "3");
        assert_eq!(
            environment(&spec, &image(), "h"),
            ["PATH=/x", "HOSTNAME=h", "A=2", "B=3"]
        );
    }

    #[test]
    fn h15_h16_limits_in_the_units_of_the_runtime_spec() {
        let limits = ContainerSpec::image("x")
            .memory(Bytes::mib(64))
            .cpus(1.5)
            .pids_limit(20)
            .limits;
        let planned = resources(&limits).unwrap();
        let memory = planned.memory().as_ref().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        let cpu = planned.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
        assert_eq!(planned.pids().as_ref().unwrap().limit(), 20);
        let none = resources(&Limits::default()).unwrap();
        assert!(none.memory().is_none() && none.cpu().is_none() && none.pids().is_none());
    }

    #[test]
    fn host_network_is_the_only_namespace_left_out() {
        let id = ContainerId::random();
        let count = |spec: &ContainerSpec| {
            let planned = oci_spec(&id, spec, &image()).unwrap();
            planned.linux().as_ref().unwrap().namespaces().as_ref().unwrap().len()
        };
        let spec = ContainerSpec::image("x");
        assert_eq!(count(&spec.clone().network(NetworkMode::Host)) + 1, count(&spec));
    }
}
