//! What a caller asks of a container: every option with its default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use super::device::{DeviceAccess, DeviceMapping, DeviceRate, DeviceRule, DeviceWeight};
use super::health::{HealthCheck, OnUnhealthy};
use super::mounts::{FileSpec, MountSpec};
use super::policy::RestartPolicy;
use crate::error::{Error, Result};
use crate::runtime::native::seccomp::SeccompProfile;
use crate::types::{Bytes, EndpointSpec, Platform, Port, PortBinding, Signal};

/// How long a container lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Lifetime {
    /// It cannot outlive the last handle of its engine, nor the process, however that ends.
    #[default]
    Bound,
    /// It survives its program, with its log and its exit status complete. Any later process that opens the root has it as if it
    /// had started it. See `docs/detached.md`.
    Detached,
}

/// What network a container sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NetworkMode {
    /// A network namespace of its own with nothing but loopback. The default until there are bridges.
    #[default]
    None,
    /// The host's network.
    Host,
    /// That of another container, by name or id: the same interfaces, addresses and ports.
    Container(String),
    /// A network of the engine: `bridge`, or one that was made, by name or id. There may be more in
    /// [`ContainerSpec::endpoints`].
    Named(String),
}

impl FromStr for NetworkMode {
    type Err = Error;

    /// Docker's words: `none`, `host`, `container:NAME`, or the name of a network.
    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("container:")) {
            ("none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            ("", _) | (_, Some(_)) => Err(Error::invalid(format!(
                "invalid network {text:?}: none, host, container:NAME or the name of a network"
            ))),
            (name, None) => Ok(Self::Named(name.to_owned())),
        }
    }
}

impl fmt::Display for NetworkMode {
    /// In Docker's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Whose namespace of a kind a container is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, and other containers may join it. Of IPC alone; the others can be joined anyway.
    Shareable,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
}

impl fmt::Display for NamespaceMode {
    /// In Docker's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("private"),
            Self::Shareable => f.write_str("shareable"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

impl FromStr for NamespaceMode {
    type Err = Error;

    /// Docker's words: `private` or nothing, `shareable`, `host`, `container:NAME`.
    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("container:")) {
            ("" | "private", _) => Ok(Self::Private),
            ("shareable", _) => Ok(Self::Shareable),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            _ => Err(Error::invalid(format!(
                "invalid namespace {text:?}: private, shareable, host or container:NAME"
            ))),
        }
    }
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// A profile in the OCI form.
    Custom(Box<LinuxSeccomp>),
    /// A profile in Docker's form.
    Profile(SeccompProfile),
}

/// A directory or file of the host to show in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute path on the host; it must exist.
    pub source: PathBuf,
    /// Absolute path in the container; made if it is missing.
    pub target: PathBuf,
    /// Whether the container may not write.
    pub read_only: bool,
}

/// A memory file system in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Most bytes it takes; `None` is the kernel's default, half of the memory.
    pub size: Option<Bytes>,
    /// Permission bits of its root; default `0o1777`.
    pub mode: Option<u32>,
    /// Owner of its root; default 0.
    pub uid: Option<u32>,
    /// Group of its root; default 0.
    pub gid: Option<u32>,
    /// Whether programs on it may be executed; default not.
    pub exec: bool,
}

/// A resource limit of processes. Source: setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name as `ulimit` and Docker know it: `nofile`, `nproc`, `core`, …
    pub name: String,
    /// The limit in force.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

/// Where a container's output is logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogConfig {
    /// Name of the driver: `local`, `json-file`, `none`, or one of the embedder's. Default the engine's.
    pub driver: Option<String>,
    /// Options in the driver's words, such as `max-size` and `max-file`. For every driver, `mode` is `blocking` or
    /// `non-blocking`, and `max-buffer-size` what may wait for the driver.
    pub options: BTreeMap<String, String>,
}

impl LogConfig {
    /// The driver of a name.
    pub fn driver(name: impl Into<String>) -> Self {
        Self {
            driver: Some(name.into()),
            options: BTreeMap::new(),
        }
    }

    /// Sets an option.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }
}

/// What a container may take. `None` and 0 mean no limit. `Limits::default()` limits nothing; set what is to be limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Limits {
    /// Most memory, in bytes.
    pub memory: Option<Bytes>,
    /// Memory that the kernel tries to leave it, in bytes.
    pub memory_reservation: Option<Bytes>,
    /// Most memory and swap together, in bytes; -1 is no limit. Docker's `--memory-swap`.
    pub memory_swap: Option<i64>,
    /// How readily the kernel swaps it out, 0 to 100. Version 1 of cgroups alone; elsewhere it is left out with a warning.
    pub memory_swappiness: Option<u64>,
    /// Whether a container that is out of memory waits for some instead of being killed. Version 1 of cgroups alone;
    /// elsewhere it is left out with a warning.
    pub oom_kill_disable: Option<bool>,
    /// CPU time in units of 1e-9 CPUs: 1.5 CPUs are 1,500,000,000.
    pub nano_cpus: Option<u64>,
    /// CPU time in each period, in microseconds; -1 is no limit. Another way to say `nano_cpus`, so not together with it.
    pub cpu_quota_us: Option<i64>,
    /// The period of `cpu_quota_us`, in microseconds: 1,000 to 1,000,000. The kernel's default is 100,000.
    pub cpu_period_us: Option<u64>,
    /// Time for realtime tasks in each realtime period, in microseconds. Version 1 of cgroups alone.
    pub cpu_rt_runtime_us: Option<i64>,
    /// The period of `cpu_rt_runtime_us`, in microseconds.
    pub cpu_rt_period_us: Option<u64>,
    /// Relative weight, 2 to 262144; Docker's default is 1024.
    pub cpu_shares: Option<u64>,
    /// CPUs to run on, `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, `0-1`.
    pub cpuset_mems: Option<String>,
    /// Most processes and threads.
    pub pids: Option<i64>,
    /// Relative weight of its block I/O, 10 to 1000. A host that has none leaves it out with a warning.
    #[serde(default)]
    pub blkio_weight: Option<u16>,
    /// The same for single devices.
    #[serde(default)]
    pub blkio_weight_devices: Vec<DeviceWeight>,
    /// Most bytes per second that it reads from a device. A host that cannot limit this leaves it out with a warning.
    #[serde(default)]
    pub device_read_bps: Vec<DeviceRate>,
    /// Most bytes per second that it writes to a device.
    #[serde(default)]
    pub device_write_bps: Vec<DeviceRate>,
    /// Most reads per second from a device.
    #[serde(default)]
    pub device_read_iops: Vec<DeviceRate>,
    /// Most writes per second to a device.
    #[serde(default)]
    pub device_write_iops: Vec<DeviceRate>,
    /// Most memory in huge pages, by their size as the kernel writes it: `2MB`, `1GB`. A host without pages of that size
    /// leaves it out with a warning.
    #[serde(default)]
    pub huge_pages: BTreeMap<String, Bytes>,
    /// Start without a limit that the host cannot set, with a warning, instead of refusing.
    pub best_effort: bool,
}

/// A container to create. Every field has Docker's default unless it says otherwise.
///
/// ```
/// use longshore::{Bytes, ContainerSpec};
/// let spec = ContainerSpec::image("busybox").command(["echo", "hello"]).memory(Bytes::mib(64));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Name or id of the image.
    pub image: String,
    /// The container's name; a random one is made without.
    pub name: Option<String>,
    /// Arguments, replacing the image's CMD.
    pub command: Option<Vec<String>>,
    /// The program, replacing the image's ENTRYPOINT (and clearing its CMD, as Docker does).
    pub entrypoint: Option<Vec<String>>,
    /// Environment, over the image's.
    pub env: BTreeMap<String, String>,
    /// Variables of the image's, or of ours, to leave out.
    #[serde(default)]
    pub env_remove: BTreeSet<String>,
    /// Working directory; default the image's, else `/`.
    pub working_dir: Option<PathBuf>,
    /// `name`, `uid`, `name:group` or `uid:gid`; default the image's USER, else root.
    pub user: Option<String>,
    /// Groups to add, by name or number.
    pub groups: Vec<String>,
    /// Host name; default the first twelve digits of the id.
    pub hostname: Option<String>,
    /// Domain name.
    pub domainname: Option<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's first size: rows and columns. Default 24 by 80.
    pub tty_size: Option<(u16, u16)>,
    /// Whether stdin stays open for an attached writer; otherwise it is empty.
    pub open_stdin: bool,
    /// Whether the end of an attached client's stdin is meant to be the container's. The engine leaves that to whoever
    /// attaches; the Engine API asks it here.
    #[serde(default)]
    pub stdin_once: bool,
    /// Labels, over the image's.
    pub labels: BTreeMap<String, String>,
    /// Annotations: what the OCI runtime spec passes on to runtimes and hooks. They are no labels: no list filters by them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What `stop` sends; default the image's STOPSIGNAL, else TERM.
    pub stop_signal: Option<Signal>,
    /// How long `stop` waits before it kills; default 10 seconds.
    pub stop_timeout: Option<Duration>,
    /// Whether a small init is pid 1, which passes signals on and reaps orphans.
    pub init: bool,
    /// Limits.
    pub limits: Limits,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Memory file systems by path.
    pub tmpfs: BTreeMap<PathBuf, Tmpfs>,
    /// Directories of the host.
    pub binds: Vec<BindMount>,
    /// Volumes, and whatever else is mounted with more to say of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountSpec>,
    /// Containers whose volumes and directories it takes: a name or an id, with `:ro` that nothing of them is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
    /// Files that are put into it before its first process runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<PathBuf, FileSpec>,
    /// Size of `/dev/shm`; default 64 MiB.
    pub shm_size: Option<Bytes>,
    /// How much it may write to its own layer. Needs a root directory with project quotas, and `overlayfs`; elsewhere making
    /// the container is `Unsupported`. Who writes more gets `ENOSPC`.
    #[serde(default)]
    pub storage_size: Option<Bytes>,
    /// The network.
    pub network: NetworkMode,
    /// Its places in networks, by name: that of `network`, if something is to be said of it, and more networks.
    #[serde(default)]
    pub endpoints: BTreeMap<String, EndpointSpec>,
    /// Ports at which the host answers for it.
    #[serde(default)]
    pub ports: Vec<PortBinding>,
    /// Whether every exposed port, of the image and of `expose`, is published at a free port of the host.
    #[serde(default)]
    pub publish_all: bool,
    /// Ports that it says to listen at, besides the image's.
    #[serde(default)]
    pub expose: BTreeSet<Port>,
    /// Resolvers for what is not in its networks; default the host's.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Domains in which short names are looked for; default the host's.
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5).
    #[serde(default)]
    pub dns_options: Vec<String>,
    /// Lines for `/etc/hosts`: `NAME:ADDRESS`, where the address may be `host-gateway`, at which the host answers.
    #[serde(default)]
    pub extra_hosts: Vec<String>,
    /// Ports of the host's loopback that it reaches at its gateway, which `host-gateway` stands for.
    #[serde(default)]
    pub host_ports: BTreeSet<u16>,
    /// Which processes it sees: its own, or those of another container too. The host's are `Unsupported` so far.
    #[serde(default)]
    pub pid_mode: NamespaceMode,
    /// Whose System V IPC, POSIX message queues and `/dev/shm` it uses.
    #[serde(default)]
    pub ipc_mode: NamespaceMode,
    /// Whose host name it has: its own, or the host's.
    #[serde(default)]
    pub uts_mode: NamespaceMode,
    /// What it takes for the root of the cgroups: its own, or the host's.
    #[serde(default)]
    pub cgroup_mode: NamespaceMode,
    /// Capabilities to add to Docker's default fourteen: `NET_ADMIN`, `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to take away: `CHOWN`, `ALL`.
    pub cap_drop: Vec<String>,
    /// Whether it is kept from next to nothing: all capabilities, no seccomp profile but one of its own, no masked and no
    /// read-only paths, a writable `/sys` and cgroup, device nodes that work, and the host's devices. For an ordinary
    /// user that is within his own rights: capabilities hold in the engine's user namespace alone, and of the
    /// host's devices there are those that he may open. Not together with `user_namespace`.
    #[serde(default)]
    pub privileged: bool,
    /// Whether setuid programs gain nothing. Default false, as Docker.
    pub no_new_privileges: bool,
    /// System calls.
    pub seccomp: Seccomp,
    /// AppArmor profile that its processes are under, by the name under which the host has it loaded; `unconfined` is none, the
    /// default. On a host that has no AppArmor, and with the native runtime, which leaves processes as they are, another is
    /// `Unsupported`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// SELinux label of its processes and files, in Docker's words: `user:`, `role:`, `type:`, `level:` and `filetype:` with a value
    /// each; `disable` is none, the default. Others are `Unsupported`: what is missing is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selinux: Vec<String>,
    /// Devices of the host that it gets, beside those that every container has.
    #[serde(default)]
    pub devices: Vec<DeviceMapping>,
    /// Devices of the Container Device Interface, by their whole names, `vendor.com/class=name`: the vendor's files in the
    /// engine's CDI directories say what each is. They are looked up at each start: one that is not there is `NotFound` then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cdi_devices: Vec<String>,
    /// What it may do with devices by number, its own nodes of them included. Needs root, as the kernel lets nobody else
    /// make nodes, and cgroups.
    #[serde(default)]
    pub device_rules: Vec<DeviceRule>,
    /// Kernel parameters of its namespaces, `net.core.somaxconn`, with their values. Those of the host are refused.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The first process's mask of file modes; default `0o022`.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Its time zone, `Europe/Paris` or `local` for the host's: the host's description of it is shown at `/etc/localtime`. Default
    /// what the image has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Resource limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Paths that show nothing; `None` is Docker's list.
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths that cannot be written; `None` is Docker's list.
    pub readonly_paths: Option<Vec<PathBuf>>,
    /// How readily the kernel kills it for memory, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Whether it gets a user namespace of its own inside the engine's: its root is nobody on the host. Files keep their
    /// owners by id-mapped mounts; in the directories of the host that it sees, its ids are the host's.
    pub user_namespace: bool,
    /// The cgroup in which its own is, made if it is not there: `/web` below the root of each hierarchy, `web` below the cgroup in
    /// which the engine makes its own ([`CgroupParent`](crate::types::CgroupParent)). The limits of the parent hold for all in it
    /// together. Default one of the engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Who starts it: `native`, `runc`, `crun`, or a name of [`EngineBuilder::with_oci_runtime`](crate::EngineBuilder::with_oci_runtime).
    /// Default what the engine was opened with. An external runtime needs [`Lifetime::Bound`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Removes it when it has ended.
    pub auto_remove: bool,
    /// Whether it is started again when it has ended. Not together with `auto_remove`.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How to see whether it is well; what is not said here is as the image has it.
    #[serde(default)]
    pub health: HealthCheck,
    /// What happens to it when it becomes unhealthy.
    #[serde(default)]
    pub on_unhealthy: OnUnhealthy,
    /// Where its output is logged; default where the engine logs.
    #[serde(default)]
    pub log: LogConfig,
    /// How long it lives; default what the engine was opened with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Lifetime>,
    /// Platform of the image to take, where it has several.
    pub platform: Option<Platform>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $target:expr;)*) => {
        impl ContainerSpec {
            $($(#[$doc])* #[must_use] pub fn $name(mut self, value: impl Into<$type>) -> Self {
                let set: fn(&mut Self, $type) = $target;
                set(&mut self, value.into());
                self
            })*
        }
    };
}

impl ContainerSpec {
    /// A container of an image, with everything else as Docker has it.
    pub fn image(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            ..Self::default()
        }
    }

    /// Arguments, replacing the image's CMD.
    #[must_use]
    pub fn command<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.command = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// The program, replacing the image's ENTRYPOINT and clearing its CMD.
    #[must_use]
    pub fn entrypoint<T: Into<String>>(mut self, program: impl IntoIterator<Item = T>) -> Self {
        self.entrypoint = Some(program.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Chooses who starts it, by name.
    #[must_use]
    pub fn runtime(mut self, name: impl Into<String>) -> Self {
        self.runtime = Some(name.into());
        self
    }

    /// Sets an annotation.
    #[must_use]
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// Shows a directory or file of the host, writable.
    #[must_use]
    pub fn bind(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.binds.push(BindMount {
            source: source.into(),
            target: target.into(),
            read_only: false,
        });
        self
    }

    /// Shows a directory or file of the host, read-only.
    #[must_use]
    pub fn bind_read_only(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.binds.push(BindMount {
            source: source.into(),
            target: target.into(),
            read_only: true,
        });
        self
    }

    /// Mounts a memory file system.
    #[must_use]
    pub fn tmpfs(mut self, path: impl Into<PathBuf>, options: Tmpfs) -> Self {
        self.tmpfs.insert(path.into(), options);
        self
    }

    /// Adds a capability.
    #[must_use]
    pub fn cap_add(mut self, name: impl Into<String>) -> Self {
        self.cap_add.push(name.into());
        self
    }

    /// Takes a capability away.
    #[must_use]
    pub fn cap_drop(mut self, name: impl Into<String>) -> Self {
        self.cap_drop.push(name.into());
        self
    }

    /// Gives it a device of the host, for reading and writing, at the same path.
    #[must_use]
    pub fn device(mut self, path: impl Into<PathBuf>) -> Self {
        let source = path.into();
        self.devices.push(DeviceMapping {
            target: source.clone(),
            source,
            access: DeviceAccess::default(),
        });
        self
    }

    /// Gives it a device of the Container Device Interface, by its whole name: `vendor.com/class=name`.
    #[must_use]
    pub fn cdi_device(mut self, name: impl Into<String>) -> Self {
        self.cdi_devices.push(name.into());
        self
    }

    /// Sets a kernel parameter of its namespaces.
    #[must_use]
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.insert(name.into(), value.into());
        self
    }

    /// Sets a resource limit of its processes.
    #[must_use]
    pub fn ulimit(mut self, name: impl Into<String>, soft: u64, hard: u64) -> Self {
        self.ulimits.push(Ulimit {
            name: name.into(),
            soft,
            hard,
        });
        self
    }

    /// Puts it on one more network, or says more of its place in one.
    #[must_use]
    pub fn endpoint(mut self, network: impl Into<String>, endpoint: EndpointSpec) -> Self {
        self.endpoints.insert(network.into(), endpoint);
        self
    }

    /// Publishes a port of the container at a port of the host; 0: the kernel chooses a free one, which `inspect` tells as
    /// soon as it has started.
    #[must_use]
    pub fn publish(mut self, port: Port, host_port: u16) -> Self {
        self.ports.push(PortBinding::new(port, host_port));
        self
    }

    /// Adds a line to its `/etc/hosts`: an address, or `host-gateway`.
    #[must_use]
    pub fn extra_host(mut self, name: impl fmt::Display, address: impl fmt::Display) -> Self {
        self.extra_hosts.push(format!("{name}:{address}"));
        self
    }

    /// Lets it reach a port of the host's loopback, at the address that `host-gateway` stands for.
    #[must_use]
    pub fn expose_host_port(mut self, port: u16) -> Self {
        self.host_ports.insert(port);
        self
    }

    /// Limits CPU time to so many CPUs; 1.5 is one and a half.
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.limits.nano_cpus = Some((cpus * 1e9).max(0.0) as u64);
        self
    }
}

setters! {
    /// Names the container.
    name: String => |spec, value| spec.name = Some(value);
    /// Sets the working directory.
    working_dir: PathBuf => |spec, value| spec.working_dir = Some(value);
    /// Sets the user: `name`, `uid`, `name:group` or `uid:gid`.
    user: String => |spec, value| spec.user = Some(value);
    /// Adds a group, by name or number.
    group: String => |spec, value| spec.groups.push(value);
    /// Sets the host name.
    hostname: String => |spec, value| spec.hostname = Some(value);
    /// Gives it a terminal.
    tty: bool => |spec, value| spec.tty = value;
    /// Keeps stdin open for an attached writer.
    open_stdin: bool => |spec, value| spec.open_stdin = value;
    /// Limits memory.
    memory: Bytes => |spec, value| spec.limits.memory = Some(value);
    /// Limits the number of processes and threads.
    pids_limit: i64 => |spec, value| spec.limits.pids = Some(value);
    /// Starts without limits that the host cannot set, with a warning.
    best_effort_limits: bool => |spec, value| spec.limits.best_effort = value;
    /// Makes the root file system read-only.
    read_only: bool => |spec, value| spec.read_only = value;
    /// Sets the size of `/dev/shm`.
    shm_size: Bytes => |spec, value| spec.shm_size = Some(value);
    /// Limits what it may write to its own layer.
    storage_size: Bytes => |spec, value| spec.storage_size = Some(value);
    /// Chooses the network.
    network: NetworkMode => |spec, value| spec.network = value;
    /// Chooses whose processes it sees.
    pid_mode: NamespaceMode => |spec, value| spec.pid_mode = value;
    /// Chooses whose IPC it uses.
    ipc_mode: NamespaceMode => |spec, value| spec.ipc_mode = value;
    /// Chooses whose host name it has.
    uts_mode: NamespaceMode => |spec, value| spec.uts_mode = value;
    /// Chooses what it takes for the root of the cgroups.
    cgroup_mode: NamespaceMode => |spec, value| spec.cgroup_mode = value;
    /// Chooses the cgroup in which its own is made.
    cgroup_parent: String => |spec, value| spec.cgroup_parent = Some(value);
    /// Keeps it from next to nothing.
    privileged: bool => |spec, value| spec.privileged = value;
    /// Lets setuid programs gain nothing.
    no_new_privileges: bool => |spec, value| spec.no_new_privileges = value;
    /// Sets the first process's mask of file modes.
    umask: u32 => |spec, value| spec.umask = Some(value);
    /// Sets its time zone.
    timezone: String => |spec, value| spec.timezone = Some(value);
    /// Chooses the seccomp profile.
    seccomp: Seccomp => |spec, value| spec.seccomp = value;
    /// Puts its processes under an AppArmor profile.
    apparmor: String => |spec, value| spec.apparmor = Some(value);
    /// Adds a part of the SELinux label of its processes and files.
    selinux: String => |spec, value| spec.selinux.push(value);
    /// Puts a small init in as pid 1.
    init: bool => |spec, value| spec.init = value;
    /// Sets what `stop` sends.
    stop_signal: Signal => |spec, value| spec.stop_signal = Some(value);
    /// Sets how long `stop` waits before it kills.
    stop_timeout: Duration => |spec, value| spec.stop_timeout = Some(value);
    /// Removes it when it has ended.
    auto_remove: bool => |spec, value| spec.auto_remove = value;
    /// Starts it again when it has ended.
    restart: RestartPolicy => |spec, value| spec.restart = value;
    /// Sets how to see whether it is well.
    health: HealthCheck => |spec, value| spec.health = value;
    /// Sets what happens when it becomes unhealthy.
    on_unhealthy: OnUnhealthy => |spec, value| spec.on_unhealthy = value;
    /// Chooses where its output is logged.
    log: LogConfig => |spec, value| spec.log = value;
    /// Chooses how long it lives.
    lifetime: Lifetime => |spec, value| spec.lifetime = Some(value);
    /// Gives it a user namespace of its own inside the engine's.
    user_namespace: bool => |spec, value| spec.user_namespace = value;
    /// Takes the image of another platform.
    platform: Platform => |spec, value| spec.platform = Some(value);
}
