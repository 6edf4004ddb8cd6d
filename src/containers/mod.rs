//! Containers: what callers ask for ([`ContainerSpec`]), what they hold, and the verbs, one file each.
//!
//! [`ContainerManager`] is what an engine (in-process, remote or fake) can do with containers. `LocalContainers` is the
//! in-process one: it takes an image's config and layer stack as data, records what it intends, lets the storage driver
//! and the runtime act, and records what came of it.

mod attach;
mod create;
mod etc;
mod exec;
mod execs;
mod feed;
mod inspect;
mod kill;
mod list;
mod local;
mod logs;
mod manager;
mod monitor;
mod names;
mod options;
mod output;
mod pause;
mod peer;
mod plan;
mod prune;
mod record;
mod remove;
mod rename;
mod restart;
mod spec;
mod start;
mod state;
mod stats;
mod stdin;
mod stop;
mod stubs;
mod sweep;
#[cfg(test)]
mod tests;
mod top;
mod until;
mod update;
mod validate;
mod views;
mod wait;

pub(crate) use self::etc::FILES as ETC_FILES;
pub(crate) use self::local::{LocalContainers, Parts};
pub use self::manager::ContainerManager;
pub use self::options::{
    AttachOptions, ExecSpec, ListOptions, RemoveOptions, SlowReader, StatsOptions, StopOptions, WaitCondition,
};
pub(crate) use self::peer::identify;
pub(crate) use self::record::Record;
pub(crate) use self::remove::patiently;
pub use self::spec::{BindMount, ContainerSpec, Lifetime, Limits, NetworkMode, Seccomp, Tmpfs, Ulimit};
pub use self::state::ContainerState;
#[cfg(feature = "remote")]
pub(crate) use self::output::{chunks, reader};
#[cfg(feature = "remote")]
pub(crate) use self::stdin::Stdin;
pub use self::views::{
    Attached, BlockStats, BoxStream, ContainerExit, ContainerInfo, ContainerSummary, CpuStats, Created, Exec, ExecInfo,
    Exiting, Input, MemoryStats, PidsStats, Pruned, Stats, Top,
};
