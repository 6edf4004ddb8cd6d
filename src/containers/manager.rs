//! What an engine can do with containers.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;

use super::options::{
    AttachOptions, CheckpointOptions, CommitOptions, CopyInOptions, ExecSpec, ListOptions, RemoveOptions, StatsOptions,
    StopOptions, WaitCondition,
};
use super::policy::RestartPolicy;
use super::spec::{ContainerSpec, Limits};
use super::views::{
    Attached, BoxStream, ContainerExit, ContainerInfo, ContainerSummary, CopiedOut, Created, Exec, ExecInfo, Exiting,
    PathStat, Pruned, Stats, Top,
};
use crate::error::{Error, Result};
use crate::images::ByteStream;
use crate::logs::{LogEntries, LogQuery};
use crate::types::{Change, EndpointSpec, ExitStatus, Filter, ImageId, Outcome, Shaping, Signal};

/// What an engine can do with containers. Every verb has a default body that answers `Unsupported`, so that a new verb
/// breaks no implementation. `name` is a name, an id, or an unambiguous prefix of an id.
#[async_trait]
pub trait ContainerManager: Debug + Send + Sync + 'static {
    /// Makes a container of an image that is here.
    ///
    /// # Errors
    /// `NotFound` (image), `Conflict` (name taken), `InvalidArgument`, `Unsupported`, `NoSpace`.
    ///
    /// # Cancel safety
    /// A dropped call is undone.
    async fn create(&self, _spec: ContainerSpec) -> Result<Created> {
        Err(Error::unsupported_verb("container create"))
    }

    /// Starts a container. Returns once its program runs.
    ///
    /// # Errors
    /// `NotFound`, `CommandNotFound`, `CommandNotExecutable`, `InvalidArgument`, `Unsupported`, or `Os` with the step.
    ///
    /// # Cancel safety
    /// A dropped call is undone: what was started is killed.
    async fn start(&self, _name: &str) -> Result<Outcome> {
        Err(Error::unsupported_verb("container start"))
    }

    /// Attaches to a container and starts it, so that what it writes and reads is in hand from its first byte. The default
    /// attaches, and then starts.
    ///
    /// # Errors
    /// Those of [`attach`](Self::attach) and [`start`](Self::start).
    ///
    /// # Cancel safety
    /// A dropped call is undone: what was started is killed.
    async fn start_attached(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        let attached = self.attach(name, options).await?;
        self.start(name).await?;
        Ok(attached)
    }

    /// Registers for the end of a container; the future that comes back waits for it, so that a container started after
    /// this call cannot end unnoticed.
    ///
    /// # Errors
    /// `NotFound`; the future: `NotFound` when it is removed without ever having run, but for [`WaitCondition::Removed`].
    ///
    /// # Cancel safety
    /// Dropping the call or the future changes nothing.
    async fn wait(&self, _name: &str, _condition: WaitCondition) -> Result<Exiting> {
        Err(Error::unsupported_verb("container wait"))
    }

    /// Waits until a container that was started has ended, and removes it, so that nothing is left of it when this answers.
    /// The default waits, and then removes.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait) and [`remove`](Self::remove).
    ///
    /// # Cancel safety
    /// A container whose call was dropped may go with its end or stay.
    async fn wait_and_remove(&self, name: &str) -> Result<ContainerExit> {
        let exit = self.wait(name, WaitCondition::Exited).await?.await?;
        self.remove(name, RemoveOptions::force()).await?;
        Ok(exit)
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run.
    async fn kill(&self, _name: &str, _signal: Signal) -> Result<()> {
        Err(Error::unsupported_verb("container kill"))
    }

    /// Asks the first process to end, and kills the container if it does not in time.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` while it is being removed.
    ///
    /// # Cancel safety
    /// The signals already sent stay sent.
    async fn stop(&self, _name: &str, _options: StopOptions) -> Result<Outcome> {
        Err(Error::unsupported_verb("container stop"))
    }

    /// Removes a container with its writable layer and logs.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it runs and `force` is not given.
    ///
    /// # Cancel safety
    /// A removal once begun is finished.
    async fn remove(&self, _name: &str, _options: RemoveOptions) -> Result<Outcome> {
        Err(Error::unsupported_verb("container remove"))
    }

    /// Everything about one container.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` for an ambiguous prefix.
    async fn inspect(&self, _name: &str) -> Result<ContainerInfo> {
        Err(Error::unsupported_verb("container inspect"))
    }

    /// Containers, the newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    async fn list(&self, _options: ListOptions) -> Result<Vec<ContainerSummary>> {
        Err(Error::unsupported_verb("container list"))
    }

    /// What a container has written, and with `follow` what it will write.
    ///
    /// # Errors
    /// `NotFound`.
    async fn logs(&self, _name: &str, _query: LogQuery) -> Result<LogEntries> {
        Err(Error::unsupported_verb("container logs"))
    }

    /// Connects to standard streams. Attached before a start, no byte of it is missed: of a container that does not run,
    /// the output is that of the next start.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` while it is paused, `Unsupported` for `logs` where the log cannot be read back.
    async fn attach(&self, _name: &str, _options: AttachOptions) -> Result<Attached> {
        Err(Error::unsupported_verb("container attach"))
    }

    /// Makes a bound container that runs a detached one ([`Lifetime::Detached`](crate::Lifetime)): from then on it outlives its
    /// engine, with its log, its restart policy and its health check. Its processes do not notice. Docker has no such verb.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run, `Conflict` if another container has one of its namespaces, `Unsupported` for
    /// what no detached container can have: it is bound then, as before. `NoSpace` where the disk does not take its record: it is
    /// detached, and that is recorded as soon as there is room.
    ///
    /// # Cancel safety
    /// It is bound or detached, and never something in between.
    async fn promote(&self, _name: &str) -> Result<Outcome> {
        Err(Error::unsupported_verb("container promote"))
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run or has no terminal.
    async fn resize(&self, _name: &str, _rows: u16, _columns: u16) -> Result<()> {
        Err(Error::unsupported_verb("container resize"))
    }

    /// Stops a container, if it runs, and starts it.
    ///
    /// # Errors
    /// As `stop` and `start`.
    ///
    /// # Cancel safety
    /// A dropped call may leave it stopped.
    async fn restart(&self, _name: &str, _options: StopOptions) -> Result<()> {
        Err(Error::unsupported_verb("container restart"))
    }

    /// Stops its processes where they are, until `unpause`.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run or is paused, `Unsupported` where there is no freezer.
    ///
    /// # Cancel safety
    /// Done whole or not at all.
    async fn pause(&self, _name: &str) -> Result<()> {
        Err(Error::unsupported_verb("container pause"))
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it is not paused.
    ///
    /// # Cancel safety
    /// Done whole or not at all.
    async fn unpause(&self, _name: &str) -> Result<()> {
        Err(Error::unsupported_verb("container unpause"))
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` (its own name too), `Conflict` if another container has that name.
    ///
    /// # Cancel safety
    /// Done whole or not at all.
    async fn rename(&self, _name: &str, _new_name: &str) -> Result<()> {
        Err(Error::unsupported_verb("container rename"))
    }

    /// Writes a running container's processes down, under a name, so that [`ContainerManager::restore`] lets them go on. By
    /// default they end by that. It needs CRIU on the host, and root.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for a name that is taken, `InvalidState` if the container does not run, has commands running in it, or has
    /// something that CRIU cannot write down, in its words; `Unsupported`, which says what is missing. The container goes on
    /// as it was.
    ///
    /// # Cancel safety
    /// A dropped call is done to its end.
    async fn checkpoint(&self, _name: &str, _checkpoint: &str, _options: CheckpointOptions) -> Result<()> {
        Err(Error::unsupported_verb("container checkpoint"))
    }

    /// The names of a container's checkpoints, or of those in a directory.
    ///
    /// # Errors
    /// `NotFound`.
    async fn checkpoints(&self, _name: &str, _directory: Option<PathBuf>) -> Result<Vec<String>> {
        Err(Error::unsupported_verb("container checkpoints"))
    }

    /// Removes a checkpoint.
    ///
    /// # Errors
    /// `NotFound`, also if there is no such checkpoint.
    ///
    /// # Cancel safety
    /// A dropped call is done to its end.
    async fn remove_checkpoint(&self, _name: &str, _checkpoint: &str, _directory: Option<PathBuf>) -> Result<()> {
        Err(Error::unsupported_verb("container remove_checkpoint"))
    }

    /// Starts a container where a checkpoint of it was made. Its files are those that it has now, its network is joined anew.
    ///
    /// # Errors
    /// As [`ContainerManager::start`], and of [`ContainerManager::checkpoint`]; `Corrupt` for a damaged list. The container
    /// is as it was before.
    ///
    /// # Cancel safety
    /// As [`ContainerManager::start`].
    async fn restore(&self, _name: &str, _checkpoint: &str, _directory: Option<PathBuf>) -> Result<Outcome> {
        Err(Error::unsupported_verb("container restore"))
    }

    /// Gives a container another restart policy, which holds from its next end on. Docker's `update --restart`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for one that is removed when it has ended.
    ///
    /// # Cancel safety
    /// It is done or not.
    async fn set_restart(&self, _name: &str, _policy: RestartPolicy) -> Result<()> {
        Err(Error::unsupported_verb("container set_restart"))
    }

    /// Changes limits, of a running container at once. Fields that are `None` stay as they are. Returns warnings.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument`, `Unsupported`.
    ///
    /// # Cancel safety
    /// Each limit is changed or not; a second call settles it.
    async fn update(&self, _name: &str, _limits: Limits) -> Result<Vec<String>> {
        Err(Error::unsupported_verb("container update"))
    }

    /// Its processes. `arguments` are those of `ps`, default `-ef`.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run, `InvalidArgument` for arguments that are not understood.
    async fn top(&self, _name: &str, _arguments: &[String]) -> Result<Top> {
        Err(Error::unsupported_verb("container top"))
    }

    /// Readings of its counters. One that does not run has none.
    ///
    /// # Errors
    /// `NotFound`.
    async fn stats(&self, _name: &str, _options: StatsOptions) -> Result<BoxStream<Result<Stats>>> {
        Err(Error::unsupported_verb("container stats"))
    }

    /// Puts it on one more network: at once if it runs, else from its next start on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is on it already, for an address in use, and of a container that shares a network;
    /// `InvalidArgument` for an address that the network has not; `IpamExhausted`.
    ///
    /// # Cancel safety
    /// A dropped call goes on to its end.
    async fn connect(&self, _name: &str, _network: &str, _endpoint: EndpointSpec) -> Result<()> {
        Err(Error::unsupported_verb("container connect"))
    }

    /// Takes it out of a network.
    ///
    /// # Errors
    /// `NotFound`, also if it is not on it; `Conflict` of a container that shares a network.
    ///
    /// # Cancel safety
    /// A dropped call goes on to its end.
    async fn disconnect(&self, _name: &str, _network: &str) -> Result<Outcome> {
        Err(Error::unsupported_verb("container disconnect"))
    }

    /// Does this to its packets in a network, on purpose, and nothing else any more: at once if it runs, and from its next start on.
    /// The container can lift what is done to packets that it sends if it has `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `NotFound`, also if it is not on the network; `InvalidArgument` for what no kernel can do; `Unsupported` for what this one
    /// cannot, with the module that it needs; `Conflict` of a container that shares a network. What fails changes nothing.
    ///
    /// # Cancel safety
    /// A dropped call goes on to its end.
    async fn shape(&self, _name: &str, _network: &str, _shaping: Shaping) -> Result<()> {
        Err(Error::unsupported_verb("container shape"))
    }

    /// Keeps it from another container: from now on no packet goes from one to the other, on any network and however often they
    /// start, until [`ContainerManager::heal`] or until one of them is removed or this engine ends. What goes by a published port
    /// of the host's is not kept.
    ///
    /// # Errors
    /// `NotFound` for either; `InvalidArgument` if they are the same; `Unsupported` where the kernel has no nf_tables for bridges.
    ///
    /// # Cancel safety
    /// A dropped call goes on to its end.
    async fn partition(&self, _name: &str, _other: &str) -> Result<()> {
        Err(Error::unsupported_verb("container partition"))
    }

    /// Ends what [`ContainerManager::partition`] began.
    ///
    /// # Errors
    /// `NotFound` for either.
    ///
    /// # Cancel safety
    /// A dropped call goes on to its end.
    async fn heal(&self, _name: &str, _other: &str) -> Result<()> {
        Err(Error::unsupported_verb("container heal"))
    }

    /// Removes containers that do not run. Filters: `until`, `label`, `label!`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown filter.
    ///
    /// # Cancel safety
    /// What was removed stays removed.
    async fn prune(&self, _filter: Filter) -> Result<Pruned> {
        Err(Error::unsupported_verb("container prune"))
    }

    /// What differs from its image, by path: of a container in any state. What was mounted into it is not looked at. A
    /// directory in which something changed counts as changed, and stands before it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` for directories deeper than a layer can hold, `Unsupported` from a storage driver that
    /// cannot tell.
    async fn diff(&self, _name: &str) -> Result<Vec<Change>> {
        Err(Error::unsupported_verb("container diff"))
    }

    /// All that its root file system shows, as an uncompressed tar: of a container in any state. Of what was mounted into
    /// it there are the places alone. A container that runs goes on, so files may be caught half written.
    ///
    /// # Errors
    /// As `diff`; in the stream: `Os`, and `NotFound` if it is removed meanwhile.
    ///
    /// # Cancel safety
    /// Nothing changes. Dropping the stream ends the reading.
    async fn export(&self, _name: &str) -> Result<ByteStream> {
        Err(Error::unsupported_verb("container export"))
    }

    /// What is at a path in it: of a container in any state. The path is resolved inside its root, symbolic links too; a last
    /// one is not followed, unless the path ends with `/` or `/.`.
    ///
    /// # Errors
    /// `NotFound` for the container or the path, `Conflict` for one that does not run and belongs to another process.
    async fn stat_path(&self, _name: &str, _path: &str) -> Result<PathStat> {
        Err(Error::unsupported_verb("container stat_path"))
    }

    /// What is at a path in it as an uncompressed tar, under the name that the path ends with; of a directory named with `/.`
    /// under none. With what is mounted there.
    ///
    /// # Errors
    /// As `stat_path`; in the stream: `Os`.
    ///
    /// # Cancel safety
    /// Nothing changes. Dropping the stream ends the reading.
    async fn copy_out(&self, _name: &str, _path: &str) -> Result<CopiedOut> {
        Err(Error::unsupported_verb("container copy_out"))
    }

    /// Puts what a tar (plain or compressed) holds into a directory that is there: owners, modes, times and links as the tar
    /// says, all of it inside the container's root.
    ///
    /// # Errors
    /// `NotFound` for the container or the directory, `InvalidArgument` for a path that is no directory, `ReadOnly`,
    /// `UnsafeArchive`, `Denied`, `NoSpace`, `Os`; `Conflict` as in `stat_path`.
    ///
    /// # Cancel safety
    /// What was written stays.
    async fn copy_in(&self, _name: &str, _path: &str, _archive: ByteStream, _options: CopyInOptions) -> Result<()> {
        Err(Error::unsupported_verb("container copy_in"))
    }

    /// Makes an image of it: that of the container, with what it changed as one layer more. If nothing is changed, there
    /// is no further layer. The image's config is the container's, with the changes that are asked for.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a change that is not understood; `Conflict` while it is being removed, or if it
    /// is to be paused and runs in another process; `Unsupported` where it runs and there is no freezer to pause it with, or as `diff`;
    /// `NoSpace`, `Os`.
    ///
    /// # Cancel safety
    /// A dropped call leaves an image or none, and a container that goes on.
    async fn commit(&self, _name: &str, _options: CommitOptions) -> Result<ImageId> {
        Err(Error::unsupported_verb("container commit"))
    }

    /// Prepares a command in a running container.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run or is paused, `InvalidArgument`.
    ///
    /// # Cancel safety
    /// A dropped call is undone.
    async fn exec_create(&self, _name: &str, _spec: ExecSpec) -> Result<Exec> {
        Err(Error::unsupported_verb("exec create"))
    }

    /// Starts a prepared command; returns once its program runs, connected to its streams. Dropping the connection closes
    /// its stdin and lets it go on.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it was started before, `InvalidState` if the container does not run any more,
    /// `CommandNotFound`, `CommandNotExecutable`.
    ///
    /// # Cancel safety
    /// A dropped call is undone: what was started is killed.
    async fn exec_start(&self, _exec: &str, _options: AttachOptions) -> Result<Attached> {
        Err(Error::unsupported_verb("exec start"))
    }

    /// Waits for the end of a command that was started.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it was never started.
    async fn exec_wait(&self, _exec: &str) -> Result<ExitStatus> {
        Err(Error::unsupported_verb("exec wait"))
    }

    /// Everything about an exec. Known for five minutes after its end, unless its container is removed before.
    ///
    /// # Errors
    /// `NotFound`.
    async fn exec_inspect(&self, _exec: &str) -> Result<ExecInfo> {
        Err(Error::unsupported_verb("exec inspect"))
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// `NotFound`, `InvalidState` if it does not run or has no terminal.
    async fn exec_resize(&self, _exec: &str, _rows: u16, _columns: u16) -> Result<()> {
        Err(Error::unsupported_verb("exec resize"))
    }
}
