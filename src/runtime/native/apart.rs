//! A zygote that makes no namespaces, for the runtime `chroot`: it forks a warden for each container, and looks after what a dead one
//! leaves (`helper/warden.rs`).

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use super::helper::wire::op;
use super::idmap::IdMapping;
use super::parent;
use super::plan::{clean_absolute, push_string};
use super::zygote::{self, ExitWatch, Zygote};
use super::{NativeRuntime, start};
use crate::error::{Error, Result};
use crate::runtime::Launch;
use crate::sys::blocking::blocking;
use crate::sys::{pidfd, socket};
use crate::types::{Mount, MountSource};

/// How long a warden may take to end what is killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What only a helper with namespaces can do.
#[cold]
pub(crate) fn no_namespaces(what: &str) -> Error {
    Error::unsupported(
        format!("{what} of an engine that was opened for the runtime \"chroot\""),
        "an engine that is opened without that default runtime, on a host that grants namespaces",
    )
}

/// A mount that shows a directory is that directory, opened; anything else cannot be had.
#[cold]
pub(crate) fn directory(mount: &Mount) -> Result<OwnedFd> {
    let MountSource::Bind { path } = &mount.source else {
        return Err(no_namespaces("a mount"));
    };
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path);
    let opened = opened.map_err(|error| Error::os(format!("open {}", path.display()), error))?;
    Ok(opened.into())
}

/// A container's warden.
#[derive(Debug)]
pub(crate) struct Warden {
    /// Its client: it ends what it keeps, and then itself, when the last one is dropped.
    zygote: Arc<Zygote>,
    /// Its pid.
    pub(crate) pid: u32,
    process: OwnedFd,
    main: Arc<Zygote>,
    req: u64,
    exit: ExitWatch,
}

/// What is asked of a warden.
#[derive(Debug)]
pub(crate) struct Keep {
    /// The container's root directory.
    pub(crate) root: OwnedFd,
    /// The version of Landlock's interface to restrict the container with; 0 is none.
    pub(crate) landlock: u32,
    /// What is deleted if this process dies, as [`NativeRuntime::clean_ups`] has it.
    pub(crate) clean_up: Vec<u8>,
}

impl NativeRuntime {
    /// What is to go if this process dies, for the zygote's ledger: a warden could not remove anything outside of the container's
    /// root. The engine's own cgroups are known to the zygote; one in a parent that the launch names is not. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that is not absolute, `Unsupported` for a parent that cannot be had.
    pub(crate) fn clean_ups(&self, launch: &Launch) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        for directory in &launch.scratch {
            let mut item = vec![b's'];
            item.extend_from_slice(clean_absolute(directory, "a directory to clean up")?);
            push_string(&mut list, &item)?;
        }
        let driver = self.shared.options.cgroups.as_deref();
        list.extend(parent::list_ahead(launch, driver)?);
        Ok(list)
    }

    /// Has the zygote fork a warden.
    ///
    /// # Errors
    /// `Unavailable` if the zygote is gone, `Os` with the step that failed.
    ///
    /// # Cancel safety
    /// A warden whose client is gone ends.
    pub(crate) async fn keep(&self, keep: Keep) -> Result<Warden> {
        let main = self.awake().await?;
        let asking = Arc::clone(&main);
        let (control, req, exit, process) = blocking(move || ask(&asking, &keep)).await?;
        let pid = pidfd::pid(process.as_fd()).map_err(|error| Error::os("look at a container's warden", error));
        let client = pid.and_then(|pid| Ok((pid, Zygote::over(control, IdMapping::Root, pid)?)));
        let (pid, client) = client.inspect_err(|_| main.tell(req, op::FORGET))?;
        let client = client.with_agent(main.agent());
        Ok(Warden {
            zygote: Arc::new(client),
            pid,
            process,
            main,
            req,
            exit,
        })
    }

    /// What a start by a warden needs.
    pub(crate) fn kept_job(&self, warden: &Warden) -> start::Job {
        start::Job {
            host: self.shared.host(IdMapping::Root),
            zygote: Arc::clone(&warden.zygote),
            cgroups: self.shared.options.cgroups.clone(),
            ids: None,
        }
    }

    /// Refuses what its helper cannot do without namespaces.
    ///
    /// # Errors
    /// `Unsupported` if it makes none.
    pub(crate) fn needs_namespaces(&self, what: &str) -> Result<()> {
        match self.is_apart() {
            true => Err(no_namespaces(what)),
            false => Ok(()),
        }
    }

    /// Whether it makes no namespaces.
    pub(crate) fn is_apart(&self) -> bool {
        self.shared.apart()
    }
}

type Asked = (OwnedFd, u64, ExitWatch, OwnedFd);

/// Blocks.
fn ask(main: &Zygote, keep: &Keep) -> Result<Asked> {
    let (ours, theirs) = socket::pair().map_err(|error| Error::os("make a warden's socket", error))?;
    let blob = [&keep.landlock.to_ne_bytes(), keep.clean_up.as_slice()].concat();
    let req = main.request();
    let exit = main.watch_exit(req);
    let fds = [theirs.as_fd(), keep.root.as_fd()];
    let reply = main.send_blocking(req, op::APART, &blob, &fds)?;
    let reply = reply.blocking_recv().map_err(|_| zygote::gone())?;
    let process = zygote::check(reply).and_then(|reply| reply.descriptor("take a container's warden"));
    // Without its descriptor it has no client either, and ends with the socket.
    let process = process.inspect_err(|_| main.tell(req, op::FORGET))?;
    Ok((ours, req, exit, process))
}

impl Warden {
    /// Waits until nothing is left of the container, whose end was told or whose warden has lost its client.
    pub(crate) async fn gone(&self) {
        let mut exit = self.exit.clone();
        let _ = exit.wait_for(Option::is_some).await;
    }

    /// Waits for the end of what it keeps, which has begun; kills it if that takes too long. A program of the container may have
    /// stopped it; what it leaves is the zygote's to end.
    pub(crate) async fn overcome(&self) {
        let told = tokio::time::timeout(PATIENCE, self.gone()).await.is_ok();
        if told && !pidfd::has_ended(self.process.as_fd()) {
            // The helper has gone before it.
            tokio::time::sleep(PATIENCE).await;
        }
        let _ = pidfd::send_signal(self.process.as_fd(), libc::SIGKILL);
    }

    /// Ends it, with what it keeps.
    pub(crate) async fn end(&self) {
        self.zygote.hang_up();
        self.gone().await;
        self.forget();
    }

    /// What it was to clean up is the caller's again.
    pub(crate) fn forget(&self) {
        self.main.tell(self.req, op::FORGET);
    }
}
