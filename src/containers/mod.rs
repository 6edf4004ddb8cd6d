//! Containers: what callers ask for ([`ContainerSpec`]), what they hold, and the verbs, one file each.
//!
//! [`ContainerManager`] is what an engine (in-process, remote or fake) can do with containers. `LocalContainers` is the
//! in-process one: it takes an image's config and layer stack as data, records what it intends, lets the storage driver
//! and the runtime act, and records what came of it.

#[cfg(feature = "engine")]
mod asking;
#[cfg(feature = "engine")]
mod attach;
#[cfg(feature = "engine")]
pub(crate) mod cdi;
#[cfg(feature = "engine")]
mod checkpoint;
#[cfg(feature = "engine")]
mod commit;
#[cfg(feature = "engine")]
mod connect;
#[cfg(feature = "engine")]
mod copy;
#[cfg(feature = "engine")]
mod create;
#[cfg(feature = "engine")]
pub(crate) mod detached;
pub(crate) mod device;
#[cfg(feature = "engine")]
mod devices;
#[cfg(feature = "engine")]
mod diff;
#[cfg(feature = "engine")]
mod etc;
#[cfg(feature = "engine")]
mod exec;
#[cfg(feature = "engine")]
mod execs;
#[cfg(feature = "engine")]
mod feed;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod health;
#[cfg(feature = "engine")]
mod inspect;
mod keys;
#[cfg(feature = "engine")]
mod kill;
#[cfg(feature = "engine")]
mod list;
#[cfg(feature = "engine")]
mod listed;
#[cfg(feature = "engine")]
mod local;
#[cfg(feature = "engine")]
mod logs;
#[cfg(feature = "engine")]
pub(crate) mod lsm;
mod manager;
#[cfg(feature = "engine")]
mod monitor;
#[cfg(feature = "engine")]
mod mounting;
mod mounts;
#[cfg(feature = "engine")]
mod names;
#[cfg(feature = "engine")]
mod namespaces;
mod options;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod output;
#[cfg(feature = "engine")]
mod owned;
#[cfg(feature = "engine")]
mod pause;
#[cfg(feature = "engine")]
mod peer;
#[cfg(feature = "engine")]
mod plan;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod policy;
#[cfg(feature = "engine")]
mod probe;
#[cfg(feature = "engine")]
mod prune;
#[cfg(feature = "engine")]
mod record;
#[cfg(feature = "engine")]
mod remove;
#[cfg(feature = "engine")]
mod rename;
#[cfg(feature = "engine")]
mod restart;
#[cfg(feature = "engine")]
mod revive;
#[cfg(feature = "engine")]
pub(crate) mod runtimes;
#[cfg(feature = "engine")]
mod served;
mod spec;
#[cfg(feature = "engine")]
mod start;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod state;
#[cfg(feature = "engine")]
mod stats;
#[cfg_attr(not(feature = "engine"), allow(dead_code, reason = "for the engine in this process"))]
mod stdin;
#[cfg(all(feature = "engine", feature = "build"))]
pub(crate) mod step;
#[cfg(feature = "engine")]
mod stop;
#[cfg(feature = "engine")]
mod stubs;
#[cfg(feature = "engine")]
mod sweep;
#[cfg(all(test, feature = "engine"))]
mod tests;
#[cfg(feature = "engine")]
mod top;
#[cfg(feature = "engine")]
mod update;
#[cfg(feature = "engine")]
mod users;
#[cfg(feature = "engine")]
mod validate;
mod views;
#[cfg(feature = "engine")]
mod wait;
#[cfg(feature = "engine")]
mod zone;

#[cfg(feature = "engine")]
pub(crate) use self::detached::nobody_of;
pub use self::device::{DeviceAccess, DeviceMapping, DeviceRate, DeviceRule, DeviceWeight};
#[cfg(feature = "engine")]
pub(crate) use self::etc::FILES as ETC_FILES;
pub use self::health::{Health, HealthCheck, HealthStatus, OnUnhealthy, Probe, ProbeResult};
pub use self::keys::{DetachKeys, KeyScanner};
#[cfg(feature = "engine")]
pub(crate) use self::local::{LocalContainers, Parts};
pub use self::manager::ContainerManager;
pub use self::mounts::{BindFrom, FileSpec, MountFrom, MountPoint, MountSpec, VolumeFrom};
pub use self::options::{
    AttachOptions, CheckpointOptions, CommitOptions, CopyInOptions, ExecSpec, ListOptions, RemoveOptions, SlowReader,
    StatsOptions, StopOptions, WaitCondition,
};
#[cfg(feature = "remote")]
pub(crate) use self::output::{chunks, reader};
#[cfg(feature = "engine")]
pub(crate) use self::peer::identify;
pub use self::policy::RestartPolicy;
#[cfg(feature = "engine")]
pub(crate) use self::record::Record;
#[cfg(feature = "engine")]
pub(crate) use self::remove::patiently;
pub use self::spec::{
    BindMount, ContainerSpec, Lifetime, Limits, LogConfig, NamespaceMode, NetworkMode, Seccomp, Tmpfs, Ulimit,
};
pub use self::state::ContainerState;
#[cfg(feature = "remote")]
pub(crate) use self::stdin::Stdin;
pub use self::views::{
    Attached, BlockStats, BoxStream, ContainerExit, ContainerInfo, ContainerSummary, CopiedOut, CpuStats, Created,
    Exec, ExecInfo, Exiting, Input, MemoryStats, PathStat, PidsStats, Pruned, Stats, Top,
};
pub use crate::runtime::native::seccomp::SeccompProfile;
