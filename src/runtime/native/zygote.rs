//! The library's end of a zygote: spawns it, sends requests, and hands replies and exits to whoever waits.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
#[cfg(feature = "engine")]
use tokio::sync::Semaphore;
use tokio::sync::{oneshot, watch};

use super::helper::wire::{
    FLAG_APART, FLAG_BIND_DEVICES, FLAG_JOIN_USERNS, FLAG_MEMFD, FLAG_SHIM, FLAG_USERNS, HEADER, Header, INLINE,
    LARGEST, op, u32_at,
};
use super::idmap::{self, IdMapping};
use super::seccomp::SeccompAgent;
use super::step;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::socket::Received;
use crate::sys::spawn::{Program, Spawn};
use crate::sys::{self, memfd, pidfd, socket};

/// The programs that `build.rs` makes of the helper: a zygote's, and a shim's, which can all that a zygote can.
static ZYGOTE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/longshore-helper"));
#[cfg(feature = "engine")]
static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/longshore-shim"));

/// A reply: its header, its bytes and its descriptors.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) header: Header,
    pub(crate) fds: Vec<OwnedFd>,
    /// A descriptor came along, and this process had no place for it.
    cut: bool,
}

impl Reply {
    /// The descriptor that must have come along.
    pub(crate) fn descriptor(self, what: &'static str) -> Result<OwnedFd> {
        if self.cut {
            return Err(no_place(what));
        }
        let first = self.fds.into_iter().next();
        first.ok_or_else(|| Error::internal("the helper sent no descriptor").with_step(what))
    }

    /// The descriptor, if one came along.
    pub(crate) fn descriptor_if_any(self, what: &'static str) -> Result<Option<OwnedFd>> {
        if self.cut {
            return Err(no_place(what));
        }
        Ok(self.fds.into_iter().next())
    }
}

/// A descriptor that the helper sent, and this process could not take.
pub(crate) fn no_place(what: &'static str) -> Error {
    Error::os(what, io::Error::from_raw_os_error(libc::EMFILE))
}

/// The raw wait status of a container's first process, once it has ended.
pub(crate) type ExitWatch = watch::Receiver<Option<i32>>;

/// A running zygote. It goes, and everything in it, when the last handle does, or the process.
#[derive(Debug)]
pub(crate) struct Zygote {
    shared: Arc<Shared>,
    mapping: IdMapping,
    warning: Option<String>,
    pid: u32,
    agent: Option<Arc<dyn SeccompAgent>>,
    /// Turns of tools that leave something behind, each until that has been taken over.
    #[cfg(feature = "engine")]
    pub(crate) turns: Semaphore,
}

/// How many tools may have left something behind that nobody has taken over yet. The helper remembers how the last 32 children
/// ended that it did not know (`helper/zygote.rs`), and a run leaves up to four: with more at once, an end would be forgotten
/// before it is asked for.
#[cfg(feature = "engine")]
const TURNS: usize = 8;

#[derive(Debug)]
struct Shared {
    control: OwnedFd,
    next: AtomicU64,
    state: Mutex<State>,
    /// Set once the zygote is dead and reaped, or has hung up and lives on for what outlives its owner.
    reaped: watch::Sender<bool>,
    /// Whether something may outlive its owner.
    kept: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    dead: bool,
    replies: HashMap<u64, oneshot::Sender<Reply>>,
    exits: HashMap<u64, watch::Sender<Option<i32>>>,
    /// What there was no room for in the socket: to be told with the next message either way.
    untold: VecDeque<(u64, u16)>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket in the reactor of the runtime that polls the caller.
    fn watch(&self, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
        sys::poll::watch(self.control.try_clone()?, interest)
    }

    /// Tells something that has no reply; a zygote that is gone needs not be told.
    fn tell(&self, req: u64, op: u16) {
        let mut state = self.state();
        if !state.dead {
            state.untold.push_back((req, op));
        }
        self.tell_rest(&mut state);
    }

    /// Where there is no room, the zygote has much to do, and answers to come: then it is tried again.
    fn tell_rest(&self, state: &mut State) {
        while let Some((req, op)) = state.untold.front().copied() {
            let header = Header {
                op,
                req,
                len: 0,
                arg: 0,
                flags: 0,
            };
            match socket::send(self.control.as_fd(), [&header.encode(), &[]], &[]) {
                Err(error) if is_full(&error) => return,
                _ => state.untold.pop_front(),
            };
        }
    }

    /// Asks the zygote to end everything and itself.
    fn hang_up(&self) {
        socket::finish(self.control.as_fd());
    }
}

/// Whether a message found no room, now.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM))
}

/// The zygote's process, to be reaped by whoever holds this last.
struct Process {
    shared: Arc<Shared>,
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// Waits for the end, which has begun.
    fn reap(mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            match self.shared.kept.load(Ordering::Acquire) {
                true => later(pidfd),
                false => drop(pidfd::reap(pidfd.as_fd())),
            }
            self.shared.reaped.send_replace(true);
        }
    }
}

/// Has one thread reap it, with the shims that nobody else waits for.
#[cold]
fn later(pidfd: OwnedFd) {
    #[cfg(feature = "engine")]
    super::shim::reap::leave(pidfd);
    #[cfg(not(feature = "engine"))]
    drop(pidfd);
}

impl Drop for Process {
    /// The runtime that watched the zygote is gone, so that nobody can use it any more. It needs some milliseconds to clean
    /// up, for which a drop does not wait.
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        bury(&self.shared);
        self.shared.hang_up();
        if self.shared.kept.load(Ordering::Acquire) {
            return later(pidfd);
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("longshore-reap".into());
        let waiting = thread.spawn(move || {
            crate::sys::signals::block_all();
            let _ = pidfd::reap(pidfd.as_fd());
            shared.reaped.send_replace(true);
        });
        if waiting.is_err() {
            // It ends all the same, and this process' end reaps it.
            self.shared.reaped.send_replace(true);
        }
    }
}

/// What a zygote is started with.
#[derive(Debug)]
pub(crate) struct ZygoteOptions<'a> {
    /// Held open until the zygote has cleaned up.
    pub(crate) lock: Option<BorrowedFd<'a>>,
    /// Make a user namespace.
    pub(crate) userns: bool,
    /// Live in this one instead.
    pub(crate) join_userns: Option<BorrowedFd<'a>>,
    /// Devices cannot be made.
    pub(crate) bind_devices: bool,
    /// A list of directories to remove at the end, as in [`Section::Cleanup`](super::helper::wire::Section::Cleanup).
    pub(crate) clean_up: &'a [u8],
    /// Who answers calls that a seccomp profile hands out.
    pub(crate) agent: Option<&'a Arc<dyn SeccompAgent>>,
    /// It is a shim: in this process' own pid namespace.
    pub(crate) shim: bool,
    /// It makes no namespace, of its own or of a container's.
    pub(crate) apart: bool,
    /// What it is, if not what this library brings along.
    pub(crate) program: Option<BorrowedFd<'a>>,
    /// Where its socket is listened to: not in whatever runtime it happens to be first needed in, which may be one of a
    /// moment, or none.
    pub(crate) reactor: Option<&'a tokio::runtime::Handle>,
}

/// A zygote or shim that has been spawned and mapped, before its socket is in a reactor.
pub(crate) struct Spawned {
    pub(crate) control: OwnedFd,
    pub(crate) child: crate::sys::spawn::Child,
    pub(crate) mapping: IdMapping,
    warning: Option<String>,
}

impl Zygote {
    /// Spawns a zygote and waits until it is ready. Blocks for a few milliseconds (with ranges: the time of two set-uid
    /// programs). To be called in a runtime with I/O, or on its blocking pool.
    ///
    /// # Errors
    /// `Unsupported` where the kernel forbids the namespaces; `Os` with the step that failed.
    pub(crate) fn start(options: &ZygoteOptions<'_>) -> Result<Self> {
        let runtime = match options.reactor {
            Some(named) => named.clone(),
            None => tokio::runtime::Handle::try_current().map_err(|_| gone())?,
        };
        let spawned = spawn(options)?;
        let pid = spawned.child.pid;
        let shared = Arc::new(Shared {
            control: spawned.control,
            next: AtomicU64::new(1),
            state: Mutex::default(),
            reaped: watch::Sender::new(false),
            kept: AtomicBool::new(false),
        });
        let process = Process {
            shared: Arc::clone(&shared),
            pidfd: Some(spawned.child.pidfd),
        };
        let setup = |error: io::Error| Error::os("set the socket up", error);
        socket::set_nonblocking(shared.control.as_fd()).map_err(setup)?;
        let control = shared.control.try_clone().map_err(setup)?;
        // The socket goes into the reactor in that task, not here: a blocking call can outlive the reactor of its runtime.
        runtime.spawn(receive(process, control));
        Ok(Self {
            shared,
            mapping: spawned.mapping,
            warning: spawned.warning,
            pid,
            agent: options.agent.cloned(),
            #[cfg(feature = "engine")]
            turns: Semaphore::new(TURNS),
        })
    }

    /// The client of a zygote that another process has made, and that lives as long as this: a shim's session, or a container's
    /// warden. To be called in a runtime with I/O.
    #[cfg(feature = "engine")]
    pub(crate) fn over(control: OwnedFd, mapping: IdMapping, pid: u32) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| gone())?;
        let setup = |error: io::Error| Error::os("set the session's socket up", error);
        socket::set_nonblocking(control.as_fd()).map_err(setup)?;
        let copy = control.try_clone().map_err(setup)?;
        let shared = Arc::new(Shared {
            control,
            next: AtomicU64::new(1),
            state: Mutex::default(),
            reaped: watch::Sender::new(false),
            kept: AtomicBool::new(false),
        });
        let process = Process {
            shared: Arc::clone(&shared),
            pidfd: None,
        };
        runtime.spawn(receive(process, copy));
        Ok(Self {
            shared,
            mapping,
            warning: None,
            pid,
            agent: None,
            turns: Semaphore::new(TURNS),
        })
    }

    /// The same, with whoever answers the calls that seccomp profiles hand out.
    #[cfg(feature = "engine")]
    pub(crate) fn with_agent(mut self, agent: Option<Arc<dyn SeccompAgent>>) -> Self {
        self.agent = agent;
        self
    }

    /// Who answers calls that a seccomp profile hands out.
    pub(crate) fn agent(&self) -> Option<Arc<dyn SeccompAgent>> {
        self.agent.clone()
    }

    pub(crate) fn mapping(&self) -> IdMapping {
        self.mapping
    }

    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.shared.state().dead
    }

    /// Asks the zygote to end everything and to end itself, and waits until it is reaped.
    pub(crate) async fn close(&self) {
        self.shared.hang_up();
        let _ = self.shared.reaped.subscribe().wait_for(|reaped| *reaped).await;
    }

    /// Asks it to end everything and itself.
    #[cfg(feature = "engine")]
    pub(crate) fn hang_up(&self) {
        self.shared.hang_up();
    }

    /// A fresh request number.
    pub(crate) fn request(&self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers interest in the exit of the container that `req` starts.
    pub(crate) fn watch_exit(&self, req: u64) -> ExitWatch {
        let (sender, receiver) = watch::channel(None);
        self.shared.state().exits.insert(req, sender);
        receiver
    }

    /// Takes the interest back: there will be no exit.
    pub(crate) fn unwatch_exit(&self, req: u64) {
        self.shared.state().exits.remove(&req);
    }

    /// Sends a request and returns where its reply will come.
    pub(crate) async fn send(
        &self,
        req: u64,
        op: u16,
        blob: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<oneshot::Receiver<Reply>> {
        let message = Message::new(req, op, blob)?;
        let fds = message.descriptors(fds);
        let expected = self.expect(req)?;
        loop {
            match socket::send(self.shared.control.as_fd(), [&message.head, message.body], &fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let room = self.shared.watch(Interest::WRITABLE).map_err(lost)?;
                    room.writable().await.map_err(lost)?.retain_ready();
                }
                result => return result.map(|()| expected.sent()).map_err(lost),
            }
        }
    }

    /// Sends a request and waits for its reply. For the blocking pool.
    pub(crate) fn call_blocking(&self, op: u16, blob: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        let receiver = self.send_blocking(self.request(), op, blob, fds)?;
        check(receiver.blocking_recv().map_err(|_| gone())?)
    }

    /// Sends a request and returns where its reply will come. For the blocking pool: waits while the zygote is busy.
    pub(crate) fn send_blocking(
        &self,
        req: u64,
        op: u16,
        blob: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<oneshot::Receiver<Reply>> {
        let message = Message::new(req, op, blob)?;
        let fds = message.descriptors(fds);
        let expected = self.expect(req)?;
        let control = self.shared.control.as_fd();
        loop {
            match socket::send(control, [&message.head, message.body], &fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut wanted = [PollFd::new(control, PollFlags::POLLOUT)];
                    match poll(&mut wanted, PollTimeout::NONE) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(errno) => return Err(lost(errno.into())),
                    }
                }
                result => return result.map(|()| expected.sent()).map_err(lost),
            }
        }
    }

    /// Lets the container of a start outlive this process, and this zygote with it. Over the socket it says so, and in the end how
    /// the container ended.
    ///
    /// # Cancel safety
    /// None: whoever drops the call does not know what became of it.
    #[cfg(feature = "engine")]
    pub(crate) async fn keep(&self, req: u64, line: BorrowedFd<'_>) -> Result<()> {
        // Before: whatever becomes of the answer, nobody may wait for the end of this zygote.
        self.shared.kept.store(true, Ordering::Release);
        let reply = self.send(self.request(), op::KEEP, &req.to_ne_bytes(), &[line]).await?;
        // Who waits for its exit goes on to, and is told no more than the end of the zygote.
        check(reply.await.map_err(|_| gone())?).map(drop)
    }

    /// Kills what a request started whose descriptor did not arrive. If there is nothing, that is well too.
    pub(crate) async fn kill(&self, req: u64) {
        if let Ok(killed) = self.send(req, op::KILL, &[], &[]).await {
            let _ = killed.await;
        }
    }

    /// Tells something that has no reply; a zygote that is gone needs not be told.
    pub(crate) fn tell(&self, req: u64, op: u16) {
        self.shared.tell(req, op);
    }

    fn expect(&self, req: u64) -> Result<Expected<'_>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.shared.state();
        if state.dead {
            return Err(gone());
        }
        state.replies.insert(req, sender);
        Ok(Expected {
            shared: &self.shared,
            req,
            receiver: Some(receiver),
        })
    }
}

/// Where a reply will come. Forgotten, unless its request was sent.
struct Expected<'a> {
    shared: &'a Shared,
    req: u64,
    receiver: Option<oneshot::Receiver<Reply>>,
}

impl Expected<'_> {
    fn sent(mut self) -> oneshot::Receiver<Reply> {
        self.receiver.take().unwrap_or_else(|| oneshot::channel().1)
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if self.receiver.is_some() {
            let mut state = self.shared.state();
            state.replies.remove(&self.req);
            state.exits.remove(&self.req);
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Its end of the socket sees this, or the process's death, whichever comes first.
        self.shared.hang_up();
    }
}

/// A reply that is no refusal.
pub(crate) fn check(reply: Reply) -> Result<Reply> {
    if reply.header.op != op::FAILED {
        return Ok(reply);
    }
    let errno = io::Error::from_raw_os_error(reply.header.arg);
    Err(Error::os(step::words(reply.header.flags), errno))
}

pub(crate) fn gone() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the engine's helper process is gone, and every container with it",
    )
}

/// What failed at a helper that is gone has failed for that: what `/proc` said of it, say.
pub(crate) fn killed(helper: BorrowedFd<'_>, error: Error) -> Error {
    match pidfd::has_ended(helper) {
        true => gone().with_source(error),
        false => error,
    }
}

/// What a failed exchange means: the helper is gone, or this process could not send (no descriptor left, say).
fn lost(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPIPE | libc::ECONNRESET) => gone().with_source(error),
        _ => Error::os("ask the helper", error),
    }
}

/// A request as it goes over the socket: large blobs in a sealed file.
struct Message<'a> {
    head: [u8; HEADER],
    body: &'a [u8],
    file: Option<OwnedFd>,
}

impl<'a> Message<'a> {
    fn new(req: u64, op: u16, blob: &'a [u8]) -> Result<Self> {
        if blob.len() > LARGEST {
            return Err(Error::invalid(format!(
                "arguments, environment and mounts of {} bytes",
                blob.len()
            )));
        }
        let large = blob.len() > INLINE;
        let flags = if large { FLAG_MEMFD } else { 0 };
        let head = Header {
            op,
            req,
            len: blob.len() as u32,
            arg: 0,
            flags,
        }
        .encode();
        if !large {
            return Ok(Self {
                head,
                body: blob,
                file: None,
            });
        }
        let file = memfd::sealed(c"longshore-plan", blob).map_err(|error| Error::os("make the plan's file", error))?;
        Ok(Self {
            head,
            body: &[],
            file: Some(file),
        })
    }

    fn descriptors<'b>(&'b self, fds: &[BorrowedFd<'b>]) -> Vec<BorrowedFd<'b>> {
        fds.iter().copied().chain(self.file.as_ref().map(AsFd::as_fd)).collect()
    }
}

/// A program that is ready to be executed; made once per process, and not before it is needed: until then its bytes are in the
/// library's file alone.
pub(crate) fn image(shim: bool) -> Result<BorrowedFd<'static>> {
    static FILES: [OnceLock<OwnedFd>; 2] = [const { OnceLock::new() }; 2];
    let [zygotes, shims] = &FILES;
    #[cfg(feature = "engine")]
    let (slot, bytes) = if shim { (shims, SHIM) } else { (zygotes, ZYGOTE) };
    #[cfg(not(feature = "engine"))]
    let (slot, bytes) = if shim { (shims, &[][..]) } else { (zygotes, ZYGOTE) };
    if let Some(file) = slot.get() {
        return Ok(file.as_fd());
    }
    if bytes.is_empty() {
        return Err(Error::unsupported("the native runtime", "a build for Linux"));
    }
    let file = memfd::program(c"longshore", bytes).map_err(|error| Error::os("store the helper", error))?;
    Ok(slot.get_or_init(|| file).as_fd())
}

pub(crate) fn spawn(options: &ZygoteOptions<'_>) -> Result<Spawned> {
    let os = |step: &'static str| move |error: io::Error| Error::os(step, error);
    let (ours, theirs) = socket::pair().map_err(os("make the zygote's socket"))?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(os("open /dev/null"))?;
    let null = null.as_fd();
    let own = pidfd::open(std::process::id()).map_err(os("open the own process"))?;
    let mut slots = vec![(null, 0), (null, 1), (null, 2), (theirs.as_fd(), 3), (own.as_fd(), 4)];
    slots.push((options.lock.unwrap_or(null), 5));
    let mut namespaces = match options.shim || options.apart {
        true => 0,
        false => libc::CLONE_NEWPID,
    };
    let new_userns = options.userns && options.join_userns.is_none();
    if new_userns {
        namespaces |= libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    }
    let spawn = Spawn {
        program: Program::Fd(options.program.map_or_else(|| image(options.shim), Ok)?),
        argv: &[if options.shim {
            c"longshore-shim"
        } else {
            c"longshore-zygote"
        }],
        slots: &slots,
        namespaces,
        keep_capabilities: new_userns,
    };
    let child = spawn.run().map_err(|error| spawn_error(error, options.userns))?;
    drop(theirs);
    let result = greet(&ours, &child, options);
    match result {
        Ok((mapping, warning)) => Ok(Spawned {
            control: ours,
            child,
            mapping,
            warning,
        }),
        Err(error) => {
            drop(ours);
            let _ = pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
            let _ = pidfd::reap(child.pidfd.as_fd());
            Err(error)
        }
    }
}

fn spawn_error(error: io::Error, userns: bool) -> Error {
    let needs = match (error.raw_os_error(), userns) {
        (Some(libc::EPERM), true) => {
            "unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, or \
             kernel.apparmor_restrict_unprivileged_userns=0, or a seccomp profile around this process that allows clone"
        }
        (Some(libc::ENOSPC), true) => "sysctl user.max_user_namespaces above 0, and at most 32 nested namespaces",
        (Some(libc::EINVAL), true) => "a kernel with CONFIG_USER_NS, and a process outside of any chroot",
        (Some(libc::EPERM), false) => "CAP_SYS_ADMIN, or a run as an ordinary user",
        _ => return Error::os("spawn the zygote", error),
    };
    Error::unsupported("making namespaces", needs).with_source(error)
}

/// Writes the id map, unless there is one, and waits until the zygote has set itself up.
fn greet(
    control: &OwnedFd,
    child: &crate::sys::spawn::Child,
    options: &ZygoteOptions<'_>,
) -> Result<(IdMapping, Option<String>)> {
    let (mapping, warning) = match options.join_userns {
        None if options.userns => idmap::write(child.pid)?,
        // Root of a user namespace of somebody else's making may have one id alone.
        None if options.bind_devices => (idmap::of_root(child.pid)?, None),
        _ => (IdMapping::Root, None),
    };
    let mut flags = 0;
    for (wanted, flag) in [
        (options.userns, FLAG_USERNS),
        (options.bind_devices, FLAG_BIND_DEVICES),
        (options.shim, FLAG_SHIM),
        (options.apart, FLAG_APART),
    ] {
        flags |= if wanted { flag } else { 0 };
    }
    if let Some(userns) = options.join_userns {
        let header = Header {
            op: op::HELLO,
            req: 0,
            len: 0,
            arg: 0,
            flags: flags | FLAG_JOIN_USERNS,
        };
        socket::send(control.as_fd(), [&header.encode(), &[]], &[userns]).map_err(lost)?;
    }
    ask(control, (op::HELLO, flags), &[], &[])?;
    let mapping = match options.join_userns {
        Some(_) => idmap::of(child.pid).map_err(|error| killed(child.pidfd.as_fd(), error))?,
        None => mapping,
    };
    // Before anything can be made in them: then no death of this process leaves them.
    if !options.clean_up.is_empty() {
        ask(control, (op::SCRATCH, 0), options.clean_up, &[])?;
    }
    Ok((mapping, warning))
}

/// A request on a socket that blocks, and its reply.
pub(crate) fn ask(control: &OwnedFd, order: (u16, u32), blob: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    exchange(control, order, (blob.len(), blob), fds)
}

/// As [`ask`], about a blob of so many bytes in the last descriptor.
#[cfg(feature = "engine")]
pub(crate) fn ask_about(control: &OwnedFd, order: (u16, u32), length: usize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    exchange(control, order, (length, &[]), fds)
}

fn exchange(
    control: &OwnedFd,
    (op, flags): (u16, u32),
    (length, blob): (usize, &[u8]),
    fds: &[BorrowedFd<'_>],
) -> Result<()> {
    let header = Header {
        op,
        req: 0,
        len: length as u32,
        arg: 0,
        flags,
    }
    .encode();
    socket::send(control.as_fd(), [&header, blob], fds).map_err(lost)?;
    let mut buffer = [0u8; HEADER + 16];
    let received = socket::receive(control.as_fd(), &mut buffer).map_err(lost)?;
    check(decode(&buffer, received).ok_or_else(gone)?).map(|_| ())
}

/// The step of a refusal is carried in `flags` from here on.
fn decode(buffer: &[u8], received: Received) -> Option<Reply> {
    let bytes = buffer.get(..received.len)?;
    let mut header = Header::decode(bytes)?;
    header.flags = u32_at(bytes, HEADER).unwrap_or(0);
    Some(Reply {
        header,
        fds: received.fds,
        cut: received.cut,
    })
}

/// Hands out replies and exits until the zygote is gone, and reaps it.
async fn receive(process: Process, control: OwnedFd) {
    let shared = Arc::clone(&process.shared);
    match sys::poll::watch(control, Interest::READABLE) {
        Ok(control) => hand_out_all(&shared, &control).await,
        Err(error) => tracing::warn!(%error, "the helper cannot be listened to, and has to end"),
    }
    bury(&shared);
    shared.hang_up();
    // It closes its socket by dying; the wait is short.
    let _ = tokio::task::spawn_blocking(move || process.reap()).await;
}

async fn hand_out_all(shared: &Shared, control: &AsyncFd<OwnedFd>) {
    let mut buffer = vec![0u8; HEADER + 64];
    while let Ok(mut ready) = control.readable().await {
        match socket::receive(control.as_fd(), &mut buffer) {
            Ok(Received { len: 0, .. }) => return,
            Ok(received) => {
                if let Some(reply) = decode(&buffer, received) {
                    hand_out(shared, reply);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            // It died with requests unread; what it said before is still there to be read. Source: unix(7).
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => {
                tracing::warn!(%error, "the helper is not understood, and has to end");
                return;
            }
        }
    }
}

fn hand_out(shared: &Shared, reply: Reply) {
    let mut state = shared.state();
    shared.tell_rest(&mut state);
    if reply.header.op == op::EXITED {
        if let Some(sender) = state.exits.remove(&reply.header.req) {
            sender.send_replace(Some(reply.header.arg));
        }
        return;
    }
    if reply.header.op == op::FAILED {
        // Nothing was started that could end.
        state.exits.remove(&reply.header.req);
    }
    if let Some(sender) = state.replies.remove(&reply.header.req) {
        let _ = sender.send(reply);
    }
}

/// The kernel has killed every container of a zygote that is gone.
fn bury(shared: &Shared) {
    let mut state = shared.state();
    state.dead = true;
    state.untold.clear();
    state.replies.clear();
    for (_, sender) in state.exits.drain() {
        sender.send_replace(Some(libc::SIGKILL));
    }
}
