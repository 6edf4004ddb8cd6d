//! One start, from launch to running task.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, LinuxResources, Spec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::created::{self, Created, Gate};
use super::helper::wire::{RECORD, RECORD_TEXT, Record, Step, op};
use super::hooks::Hooks;
use super::idmap::ContainerIds;
use super::parent::{self, Announced};
use super::plan::{FdPositions, Filters, Host, Names, Plan};
use super::seccomp::{SeccompAgent, agent};
use super::step;
use super::task::{Inside, NativeTask, Origin};
#[cfg(feature = "engine")]
use super::tool::Adopted;
use super::zygote::{self, ExitWatch, Reply, Zygote};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::cgroups::{Cgroup, CgroupDriver};
use crate::runtime::{Launch, LaunchSource, SharedNamespace, Started, StdioPlan, Task};
use crate::sys::blocking::blocking;
use crate::sys::socket::Received;
use crate::sys::{boot, pidfd, poll, socket, terminal};
use crate::types::{ContainerId, Signal};

/// A container's cgroup, where there is one, and what of the limits could not be.
pub(crate) type Placed = (Option<Box<dyn Cgroup>>, Vec<String>);

/// What a start needs.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) zygote: Arc<Zygote>,
    pub(crate) host: Host,
    pub(crate) cgroups: Option<Arc<dyn CgroupDriver>>,
    /// Of a container with a user namespace of its own.
    pub(crate) ids: Option<ContainerIds>,
}

/// The container's and the caller's ends of everything.
pub(crate) struct Ends {
    pub(crate) status_ours: OwnedFd,
    status_theirs: OwnedFd,
    pub(crate) stdin: Option<(OwnedFd, OwnedFd)>,
    stdout: Option<(OwnedFd, OwnedFd)>,
    stderr: Option<(OwnedFd, OwnedFd)>,
    /// Of a container that has no terminals of its own: the other side.
    master: Option<OwnedFd>,
}

/// A start that the zygote was asked for.
struct Asked {
    zygote: Arc<Zygote>,
    host: Host,
    id: ContainerId,
    req: u64,
    /// When it was asked for, in ticks since the boot.
    ticks: Option<u64>,
    reply: oneshot::Receiver<Reply>,
    exit: ExitWatch,
    status: OwnedFd,
    stdio: Stdio,
    terminal: Option<OwnedFd>,
    pipes: Pipes,
    names: Names,
    namespaces: u32,
    own_processes: bool,
    root: [u32; 2],
    cgroup: Option<Arc<dyn Cgroup>>,
    hooks: Option<Arc<Hooks>>,
    warnings: Vec<String>,
    announced: Option<Announced>,
    gate: Option<Gate>,
}

impl Job {
    /// Runs the start in a task of its own, so that a caller who goes away leaves nothing: a container that nobody takes
    /// is killed and forgotten. Everything up to the request is done on one thread of the pool.
    pub(crate) async fn run_detached(self, launch: Launch) -> Result<Started> {
        let started = self.begin(launch, None).await?;
        started
            .await
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime of the engine was shut down"))?
    }

    /// The same as far as the program, which runs once somebody says so.
    pub(crate) async fn create(self, launch: Launch) -> Result<Created> {
        let (gate, keeper) = created::gate();
        let started = self.begin(launch, Some(gate)).await?;
        keeper.created(started).await
    }

    /// Asks for the start; where its outcome will come.
    async fn begin(self, launch: Launch, gate: Option<Gate>) -> Result<oneshot::Receiver<Result<Started>>> {
        let (sender, receiver) = oneshot::channel();
        let ask = move || {
            let asked = self.ask(&launch, gate)?;
            // Before this thread is left: whatever becomes of the caller, somebody follows the start to its end.
            tokio::spawn(async move {
                if let Err(Ok(unwanted)) = sender.send(asked.started().await) {
                    let _ = unwanted.task.signal(Signal::KILL, false).await;
                    let _ = unwanted.task.wait().await;
                    let _ = unwanted.task.remove().await;
                }
            });
            Ok(())
        };
        blocking(ask).await?;
        Ok(receiver)
    }

    /// Makes what the container needs and asks the zygote for it. Blocking.
    fn ask(self, launch: &Launch, gate: Option<Gate>) -> Result<Asked> {
        let mut plan = plan_of(launch, self.host, self.ids.as_ref(), self.zygote.agent().is_some())?;
        if gate.is_some() {
            plan.wait();
        }
        // A warden's own zygote has been told before.
        let announced = match self.host.apart {
            true => None,
            false => Announced::of(&self.zygote, launch, self.cgroups.as_deref())?,
        };
        let (cgroup, warnings) = cgroup_of(launch, self.cgroups.as_deref())?;
        let cgroup: Option<Arc<dyn Cgroup>> = cgroup.map(Arc::from);
        match self.ask_zygote(launch, &mut plan, cgroup.clone(), warnings) {
            Ok(asked) => Ok(Asked {
                announced,
                gate,
                ..asked
            }),
            Err(error) => {
                remove_cgroup(cgroup);
                Err(error)
            }
        }
    }

    fn ask_zygote(
        self,
        launch: &Launch,
        plan: &mut Plan,
        cgroup: Option<Arc<dyn Cgroup>>,
        warnings: Vec<String>,
    ) -> Result<Asked> {
        parent::add_clean_ups(plan, &launch.id, cgroup.as_deref())?;
        let hooks = Hooks::of(launch)?.map(Arc::new);
        let mut ends = Ends::of(launch.stdio, self.host)?;
        let names = plan.names.clone();
        let req = self.zygote.request();
        let exit = self.zygote.watch_exit(req);
        let ticks = boot::ticks();
        let reply = {
            let (mut positions, mut fds) = ends.positions(trees(launch), cgroup.as_deref());
            add_shared(launch, &mut positions, &mut fds);
            let blob = plan.encode(positions);
            self.zygote.send_blocking(req, op::START, &blob, &fds)?
        };
        // The kernel likes to wake the zygote on this processor, to run once this thread has nothing to do. Nobody waits for
        // what follows here; everybody waits for the zygote.
        std::thread::yield_now();
        let pipes = ends.pipes()?;
        let terminal = ends.take_master();
        let (status, [stdin, stdout, stderr]) = ends.split();
        let wanted = launch.stdio.stdin && launch.stdio.terminal.is_none();
        let stdio = [stdin.filter(|_| wanted), stdout, stderr];
        Ok(Asked {
            zygote: self.zygote,
            host: self.host,
            id: launch.id.clone(),
            req,
            ticks,
            reply,
            exit,
            status,
            stdio,
            terminal,
            pipes,
            names,
            namespaces: plan.all_namespaces(),
            own_processes: plan.own_processes(),
            root: plan.root(),
            cgroup,
            hooks,
            warnings,
            announced: None,
            gate: None,
        })
    }
}

/// The plan of a launch; `agent`: whether somebody answers the calls that its seccomp profile hands out.
pub(crate) fn plan_of(launch: &Launch, host: Host, ids: Option<&ContainerIds>, agent: bool) -> Result<Plan> {
    let profile = launch.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let filters = Filters::new(profile, launch.spec.process().as_ref(), host, agent)?;
    let mut plan = Plan::new(launch, host, filters, ids)?;
    if let Some(ids) = ids {
        plan.user_namespace(ids, names_ids(&launch.spec))?;
    }
    plan.read_only_root(launch.rootfs.iter().any(|mount| mount.read_only));
    Ok(plan)
}

/// Whether a specification says itself which ids its user namespace has.
fn names_ids(spec: &Spec) -> bool {
    let some = |maps: &Option<Vec<LinuxIdMapping>>| maps.as_ref().is_some_and(|maps| !maps.is_empty());
    let linux = spec.linux().as_ref();
    linux.is_some_and(|linux| some(linux.uid_mappings()) || some(linux.gid_mappings()))
}

/// Makes the container's cgroup. Blocking.
pub(crate) fn cgroup_of(launch: &Launch, driver: Option<&dyn CgroupDriver>) -> Result<Placed> {
    let resources = launch
        .spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().clone())
        .unwrap_or_default();
    let parent = parent::named(launch)?;
    let Some(driver) = driver else {
        if let Some(parent) = parent {
            return Err(Error::unsupported(
                format!("the cgroup parent {parent}"),
                "a cgroup driver",
            ));
        }
        return match (limits(&resources), launch.best_effort_limits) {
            (false, _) => Ok((None, Vec::new())),
            (true, true) => Ok((None, vec!["no cgroups: limits are left out".to_owned()])),
            (true, false) => Err(Error::unsupported("limits", "a cgroup driver")),
        };
    };
    let best_effort = launch.best_effort_limits;
    let cgroup = match &parent {
        Some(parent) => driver.create_in(parent, &launch.id, &resources, best_effort)?,
        None => driver.create(&launch.id, &resources, best_effort)?,
    };
    let warnings = cgroup.warnings().to_vec();
    Ok((Some(cgroup), warnings))
}

/// The open mounts that a launch brings along, in order.
pub(crate) fn trees(launch: &Launch) -> impl Iterator<Item = BorrowedFd<'_>> {
    launch.mounts.iter().filter_map(|mount| match &mount.source {
        LaunchSource::Tree(tree) | LaunchSource::Given(tree) => Some(tree.as_fd()),
        _ => None,
    })
}

/// Adds the namespaces of others to what travels with a plan.
pub(crate) fn add_shared<'a>(launch: &'a Launch, positions: &mut FdPositions, fds: &mut Vec<BorrowedFd<'a>>) {
    for shared in &launch.shared {
        let (place, fd) = match shared {
            SharedNamespace::Of(LinuxNamespaceType::Pid, fd) => (0, fd),
            SharedNamespace::Of(LinuxNamespaceType::Ipc, fd) => (1, fd),
            SharedNamespace::Of(LinuxNamespaceType::Network, fd) => (2, fd),
            SharedNamespace::SharedMemory(fd) => (3, fd),
            // The plan has refused all others.
            _ => continue,
        };
        positions.shared[place] = fds.len() as u32;
        fds.push(fd.as_fd());
    }
}

impl Asked {
    /// Follows the start to its end. A failed one leaves nothing.
    async fn started(mut self) -> Result<Started> {
        // Until the zygote has it from the plan, or it is gone.
        let _announced = self.announced.take();
        let (cgroup, hooks) = (self.cgroup.clone(), self.hooks.clone());
        let result = self.follow().await;
        if result.is_err() {
            // What it waits for may take a moment.
            let _ = tokio::task::spawn_blocking(move || remove_cgroup(cgroup)).await;
            if let Some(hooks) = hooks {
                hooks.stopped().await;
            }
        }
        result
    }

    async fn follow(mut self) -> Result<Started> {
        let reply = zygote::check(self.reply.await.map_err(|_| zygote::gone())?)?;
        // It was made in between: mostly within one tick.
        let start_ticks = self.ticks.filter(|ticks| boot::ticks() == Some(*ticks));
        let inner = reply.header.arg;
        let process = match reply.descriptor("take the container's process") {
            Ok(process) => process,
            Err(error) => {
                end_unknown(&self.zygote, self.req, self.exit).await;
                return Err(error);
            }
        };
        let waiting = Waiting {
            hooks: self.hooks.as_deref(),
            process: process.as_fd(),
            gate: self.gate.take(),
        };
        let outcome = outcome(
            self.status,
            &self.names,
            self.host,
            (self.zygote.agent(), &self.id),
            Some(waiting),
        )
        .await;
        let outcome = outcome.and_then(|setup| setup.ok_or_else(died_in_setup));
        let outcome = outcome.map(|setup| setup.with_terminal(self.terminal));
        let child = Child {
            zygote: self.zygote,
            req: self.req,
            process,
            inner,
            start_ticks,
            exit: self.exit,
            host: self.host,
            namespaces: self.namespaces,
            own_processes: self.own_processes,
            root: self.root,
            hooks: self.hooks,
        };
        match outcome.and_then(|setup| child.known(setup)) {
            Ok(mut known) => {
                known.setup.warnings.extend(self.warnings);
                if let Some(hooks) = &child.hooks {
                    known.setup.warnings.extend(hooks.started(known.pid).await);
                }
                Ok(child.started(self.id, known, (self.stdio, self.pipes), self.cgroup))
            }
            Err(error) => Err(child.failed(error, self.cgroup).await),
        }
    }
}

/// What a container's first process waits for before its program.
pub(crate) struct Waiting<'a> {
    hooks: Option<&'a Hooks>,
    process: BorrowedFd<'a>,
    gate: Option<Gate>,
}

impl Waiting<'_> {
    async fn over(&mut self, found: &mut Setup, status: &AsyncFd<OwnedFd>) -> Result<()> {
        let pid = pid_of(self.process)?;
        found.pid = Some(pid);
        if let Some(hooks) = self.hooks {
            hooks.before(pid).await?;
        }
        match self.gate.take() {
            Some(gate) => gate.pass(pid, self.process, found.terminal.as_ref(), status).await,
            None => Ok(()),
        }
    }
}

/// Reads records until the program has been executed (READY, then the socket closes) or a step has failed. The terminal's
/// master comes on the way. `None`: neither came.
pub(crate) async fn outcome(
    status: OwnedFd,
    names: &Names,
    host: Host,
    (agent, id): (Option<Arc<dyn SeccompAgent>>, &ContainerId),
    mut waiting: Option<Waiting<'_>>,
) -> Result<Option<Setup>> {
    let setup = |error: io::Error| Error::os("read the start's status", error);
    socket::set_nonblocking(status.as_fd()).map_err(setup)?;
    let status = poll::watch(status, Interest::READABLE).map_err(setup)?;
    let mut buffer = [0u8; RECORD + RECORD_TEXT];
    let mut found = Setup::default();
    let mut ready = false;
    loop {
        let mut readable = status.readable().await.map_err(setup)?;
        let Received { len, fds, cut } = match socket::receive(status.as_fd(), &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                readable.clear_ready();
                continue;
            }
            result => result.map_err(setup)?,
        };
        if len == 0 {
            break;
        }
        if cut {
            return Err(zygote::no_place("take the container's terminal"));
        }
        let bytes = &buffer[..len];
        let record = Record::decode(bytes).ok_or_else(|| Error::internal("a malformed step record"))?;
        let text = bytes.get(RECORD..).unwrap_or(&[]);
        if let Some(warning) = step::warning(&record, text, names) {
            found.warnings.push(warning);
            continue;
        }
        if record.errno != 0 || record.aux != 0 {
            return Err(step::error(&record, text, names, host));
        }
        if record.step == Step::Ready as u32 {
            ready = true;
        } else if record.step == Step::Hooks as u32 {
            if let Some(waiting) = &mut waiting {
                waiting.over(&mut found, &status).await?;
            }
            socket::send(status.as_fd(), [b"h", b""], &[]).map_err(setup)?;
        } else if record.step == Step::Seccomp as u32 {
            // At once: the next step may wait for an answer already.
            if let (Some(listener), Some(agent)) = (fds.into_iter().next(), &agent) {
                agent::serve(listener, Arc::clone(agent), id.clone())?;
            }
        } else if record.step == Step::Join as u32 {
            found.mark = fds.into_iter().next();
        } else if let Some(master) = fds.into_iter().next() {
            found.terminal = Some(master);
        }
    }
    Ok(ready.then_some(found))
}

fn pid_of(process: BorrowedFd<'_>) -> Result<u32> {
    pidfd::pid(process).map_err(|error| Error::os("look at the container's process", error))
}

/// What the helper sent on the way to the program.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) terminal: Option<OwnedFd>,
    /// The process' pid, if somebody has looked before the program ran: afterwards it may have ended.
    pub(crate) pid: Option<u32>,
    /// The namespace that a command was given to be known by.
    pub(crate) mark: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
}

impl Setup {
    /// Takes a terminal that the helper has not made.
    pub(crate) fn with_terminal(mut self, own: Option<OwnedFd>) -> Self {
        self.terminal = self.terminal.or(own);
        self
    }
}

#[cfg(feature = "engine")]
impl Setup {
    /// Of a container that was set up by others.
    pub(crate) fn with_warnings(warnings: Vec<String>) -> Self {
        Self {
            warnings,
            ..Self::default()
        }
    }
}

pub(crate) fn died_in_setup() -> Error {
    Error::new(
        ErrorKind::Os,
        "the container's first process was killed before it could run its program",
    )
    .with_step("set the container up")
}

/// Ends a container whose process did not arrive: nobody could end it later.
async fn end_unknown(zygote: &Zygote, req: u64, mut exit: ExitWatch) {
    zygote.kill(req).await;
    let _ = exit.wait_for(Option::is_some).await;
    zygote.tell(req, op::FORGET);
}

/// A cloned child whose start has been decided.
struct Child {
    zygote: Arc<Zygote>,
    req: u64,
    process: OwnedFd,
    /// As the zygote knows it.
    inner: i32,
    /// When it was started, if that is known.
    start_ticks: Option<u64>,
    exit: ExitWatch,
    host: Host,
    namespaces: u32,
    own_processes: bool,
    root: [u32; 2],
    hooks: Option<Arc<Hooks>>,
}

#[cfg(feature = "engine")]
impl Adopted {
    /// The container that it is the first process of: `plan` is the one by which it would have been started.
    pub(crate) async fn started(
        self,
        id: ContainerId,
        host: Host,
        plan: &Plan,
        streams: (Stdio, Pipes),
        (cgroup, setup): (Option<Arc<dyn Cgroup>>, Setup),
    ) -> Result<Started> {
        let process = self.process.ok_or_else(died_in_setup)?;
        let child = Child {
            zygote: self.zygote,
            req: self.req,
            process,
            inner: self.inner,
            start_ticks: None,
            exit: self.exit,
            host,
            namespaces: plan.all_namespaces(),
            own_processes: plan.own_processes(),
            root: plan.root(),
            hooks: None,
        };
        match child.known(setup) {
            Ok(known) => Ok(child.started(id, known, streams, cgroup)),
            Err(error) => Err(child.failed(error, cgroup).await),
        }
    }
}

/// What is known of a container whose program runs.
struct Known {
    pid: u32,
    setup: Setup,
    /// A second descriptor of its terminal.
    copy: Option<OwnedFd>,
}

pub(crate) type Stdio = [Option<OwnedFd>; 3];

/// The inodes of the pipes that are a container's standard streams: both ends have the same.
pub(crate) type Pipes = [Option<u64>; 3];

impl Child {
    /// What can fail still, once the program runs.
    fn known(&self, setup: Setup) -> Result<Known> {
        let pid = match setup.pid {
            Some(pid) => pid,
            None => self.pid()?,
        };
        let copy = setup.terminal.as_ref().map(OwnedFd::try_clone).transpose();
        let copy = copy.map_err(|error| Error::os("keep the terminal", error))?;
        Ok(Known { pid, setup, copy })
    }

    /// 0: it has ended already.
    fn pid(&self) -> Result<u32> {
        match pidfd::pid(self.process.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(0),
            pid => pid.map_err(|error| Error::os("look at the container's process", error)),
        }
    }

    fn started(
        self,
        id: ContainerId,
        known: Known,
        (stdio, pipes): (Stdio, Pipes),
        cgroup: Option<Arc<dyn Cgroup>>,
    ) -> Started {
        let Known { pid, setup, copy } = known;
        let Setup { terminal, warnings, .. } = setup;
        let task: Arc<dyn Task> = Arc::new(NativeTask::new(
            id,
            pid,
            self.zygote,
            self.req,
            self.process,
            self.exit,
            copy,
            cgroup,
            Inside {
                host: self.host,
                namespaces: self.namespaces,
                own_processes: self.own_processes,
                root: self.root,
            },
            Origin {
                inner: self.inner,
                pipes,
                start_ticks: self.start_ticks,
            },
            self.hooks,
        ));
        let [stdin, stdout, stderr] = stdio;
        Started {
            task,
            stdin,
            stdout,
            stderr,
            terminal,
            warnings,
        }
    }

    /// Waits for the end of a child whose start failed, and forgets it.
    async fn failed(mut self, mut error: Error, cgroup: Option<Arc<dyn Cgroup>>) -> Error {
        let _ = pidfd::send_signal(self.process.as_fd(), libc::SIGKILL);
        let _ = self.exit.wait_for(Option::is_some).await;
        if let Some(cgroup) = cgroup {
            let killed = blocking(move || cgroup.oom_kills()).await.ok().flatten().unwrap_or(0) > 0;
            if killed && error.errno().is_none() {
                error = error.context("the memory limit is too small to start a container");
            }
        }
        self.zygote.tell(self.req, op::FORGET);
        error
    }
}

impl Ends {
    /// What a container on such a host is given. One without namespaces has neither terminals nor a `/dev/null` that are not the
    /// host's: a terminal is made here, and stdin is a pipe always, to which nobody writes who has not asked for it.
    pub(crate) fn of(stdio: StdioPlan, host: Host) -> Result<Self> {
        if !host.apart {
            return Self::new(stdio);
        }
        let mut ends = Self::new(StdioPlan { stdin: true, ..stdio })?;
        if let Some((rows, columns)) = stdio.terminal {
            let made = terminal::open(rows, columns).map_err(|error| Error::os("make a terminal", error))?;
            let ours = made.master.try_clone();
            let ours = ours.map_err(|error| Error::os("make a terminal", error))?;
            // The one place of a stream is enough: it is all three.
            ends.stdin = Some((made.peer, ours));
            ends.master = Some(made.master);
        }
        Ok(ends)
    }

    /// The terminal's side that is not the container's, if one was made here.
    pub(crate) fn take_master(&mut self) -> Option<OwnedFd> {
        self.master.take()
    }

    pub(crate) fn new(stdio: StdioPlan) -> Result<Self> {
        let os = |error: io::Error| Error::os("make the standard streams", error);
        // (read, write); the container's end first.
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| os(errno.into()));
        let (status_ours, status_theirs) = socket::pair().map_err(os)?;
        let mut ends = Self {
            status_ours,
            status_theirs,
            stdin: None,
            stdout: None,
            stderr: None,
            master: None,
        };
        if stdio.terminal.is_some() {
            return Ok(ends);
        }
        if stdio.stdin {
            ends.stdin = Some(pipe()?);
        }
        let swap = |(read, write)| (write, read);
        ends.stdout = Some(swap(pipe()?));
        ends.stderr = Some(swap(pipe()?));
        Ok(ends)
    }

    pub(crate) fn positions<'a>(
        &'a self,
        trees: impl Iterator<Item = BorrowedFd<'a>>,
        cgroup: Option<&'a dyn Cgroup>,
    ) -> (FdPositions, Vec<BorrowedFd<'a>>) {
        let mut fds = vec![self.status_theirs.as_fd()];
        // At once behind it: the plan counts on that.
        fds.extend(trees);
        let mut positions = FdPositions::default();
        for (stream, position) in [
            (&self.stdin, &mut positions.stdin),
            (&self.stdout, &mut positions.stdout),
            (&self.stderr, &mut positions.stderr),
        ] {
            if let Some((theirs, _)) = stream {
                *position = fds.len() as u32;
                fds.push(theirs.as_fd());
            }
        }
        let Some(cgroup) = cgroup else {
            return (positions, fds);
        };
        if let Some(directory) = cgroup.v2_dir() {
            positions.cgroup = fds.len() as u32;
            fds.push(directory);
        }
        positions.v1_first = fds.len() as u32;
        positions.v1_count = cgroup.v1_procs().len() as u32;
        fds.extend(cgroup.v1_procs().iter().map(AsFd::as_fd));
        (positions, fds)
    }

    /// What the streams are called by their inodes.
    pub(crate) fn pipes(&self) -> Result<Pipes> {
        let mut pipes = Pipes::default();
        for (pipe, ends) in pipes.iter_mut().zip([&self.stdin, &self.stdout, &self.stderr]) {
            if let Some((_, ours)) = ends {
                let stat = nix::sys::stat::fstat(ours).map_err(|errno| Error::os("look at a stream", errno))?;
                *pipe = Some(stat.st_ino);
            }
        }
        Ok(pipes)
    }

    /// Keeps the caller's ends; closes the container's.
    pub(crate) fn split(self) -> (OwnedFd, Stdio) {
        let ours = |stream: Option<(OwnedFd, OwnedFd)>| stream.map(|(_, ours)| ours);
        (
            self.status_ours,
            [ours(self.stdin), ours(self.stdout), ours(self.stderr)],
        )
    }
}

/// Whether anything is limited.
fn limits(resources: &LinuxResources) -> bool {
    resources.memory().is_some()
        || resources.cpu().is_some()
        || resources.pids().is_some()
        || resources.block_io().is_some()
        || resources.devices().as_ref().is_some_and(|rules| !rules.is_empty())
        || resources
            .hugepage_limits()
            .as_ref()
            .is_some_and(|limits| !limits.is_empty())
}

/// Blocking.
pub(crate) fn remove_cgroup(cgroup: Option<Arc<dyn Cgroup>>) {
    let Some(cgroup) = cgroup else { return };
    if let Err(error) = cgroup.remove() {
        tracing::warn!(error = error.report(), "a cgroup stays behind");
    }
}
