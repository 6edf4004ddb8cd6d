//! The start of a container that outlives this process.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::check::Probing;
use super::connect;
use super::place::{self, Place};
use super::reap;
use super::task::ShimTask;
use super::{inside_words, restart_words};
use crate::error::{Error, ErrorKind, Result};
use crate::logs::{self, Handed};
use crate::runtime::cgroups::Cgroup;
use crate::runtime::detached::{Detach, DetachedLog, DetachedLogFormat};
use crate::runtime::native::helper::talk::{config, op as talk_op};
use crate::runtime::native::helper::wire::{FLAG_MEMFD, HEADER, Header, LARGEST, op};
use crate::runtime::native::hooks::Hooks;
use crate::runtime::native::parent;
use crate::runtime::native::plan::{Host, Names, Plan};
use crate::runtime::native::start::{self, Ends};
use crate::runtime::native::task::Inside;
use crate::runtime::native::zygote::{self, Spawned, ZygoteOptions};
use crate::runtime::native::{Shared, wants_user_namespace};
use crate::runtime::{Launch, LaunchSource};
use crate::sys::blocking::blocking;
use crate::sys::{memfd, socket};
use crate::types::ContainerId;

/// How long the shim of a failed start may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A start on its way. Dropped before its end, its connection closes, and the shim leaves nothing of it.
#[derive(Debug)]
pub(super) struct Begun {
    id: ContainerId,
    dir: PathBuf,
    control: OwnedFd,
    status: OwnedFd,
    names: Names,
    host: Host,
    cgroup: Option<Arc<dyn Cgroup>>,
    /// A reader of what it prints that was there before it.
    output: Option<OwnedFd>,
    warnings: Vec<String>,
}

/// Makes everything, spawns the shim, and asks it to start the container. Blocking.
pub(super) fn begin(shared: &Shared, launch: &Launch, detach: &Detach) -> Result<Begun> {
    check(launch)?;
    let reactor = reactor_of(shared)?;
    reap::sweep();
    let place = Place::make(&detach.dir, launch.stdio.stdin, detach.check.is_some())?;
    let begun =
        spawn(shared, &place, &reactor, None).and_then(|spawned| start(shared, launch, detach, &place, spawned));
    if begun.is_err() {
        place.undo();
    }
    begun
}

/// Where what belongs to a shim is listened to.
pub(super) fn reactor_of(shared: &Shared) -> Result<Handle> {
    match &shared.options.reactor {
        Some(named) => Ok(named.clone()),
        None => Handle::try_current().map_err(|_| zygote::gone()),
    }
}

/// Refuses what nobody can do for a container while no engine is there.
pub(super) fn check(launch: &Launch) -> Result<()> {
    if launch.hold {
        return Err(Error::unsupported(
            "a detached container that runs nothing",
            "a bound one",
        ));
    }
    let given = |source: &LaunchSource| matches!(source, LaunchSource::Given(_));
    if launch.mounts.iter().any(|mount| given(&mount.source)) {
        return Err(Error::unsupported(
            "a mount that this program serves in a container that outlives it",
            "a bound container",
        ));
    }
    if Hooks::of(launch)?.is_some() {
        let needs = "a container that is bound to its engine: nobody runs hooks while no engine is there";
        return Err(Error::unsupported(
            "hooks of a container that outlives its engine",
            needs,
        ));
    }
    Ok(())
}

/// Spawns a shim, in a user namespace that is there already if one is given.
pub(super) fn spawn(
    shared: &Shared,
    place: &Place,
    reactor: &Handle,
    join_userns: Option<BorrowedFd<'_>>,
) -> Result<(Spawned, Host)> {
    let mut spawned = zygote::spawn(&ZygoteOptions {
        lock: Some(place.lock.as_fd()),
        userns: shared.userns,
        join_userns,
        bind_devices: shared.bind_devices(),
        clean_up: &[],
        agent: None,
        shim: true,
        apart: false,
        program: shared.shim.as_ref().map(AsFd::as_fd),
        reactor: None,
    })?;
    let pidfd = spawned.child.pidfd.try_clone();
    let pidfd = pidfd.map_err(|error| Error::os("keep the shim's process", error))?;
    reap::watch(std::mem::replace(&mut spawned.child.pidfd, pidfd), reactor);
    let host = Host {
        host_pids: !shared.userns,
        ..shared.host(spawned.mapping)
    };
    Ok((spawned, host))
}

fn start(
    shared: &Shared,
    launch: &Launch,
    detach: &Detach,
    place: &Place,
    (spawned, host): (Spawned, Host),
) -> Result<Begun> {
    let ids = match wants_user_namespace(&launch.spec) {
        true => Some(shared.container_ids(spawned.child.pid, &launch.spec)?),
        false => None,
    };
    let mut plan = start::plan_of(launch, host, ids.as_ref(), false)?;
    let log = detach.log.format.is_some().then(|| open_log(&detach.log)).transpose()?;
    let (cgroup, warnings) = make_cgroup(shared, launch, &detach.dir)?;
    let cgroup: Option<Arc<dyn Cgroup>> = cgroup.map(Arc::from);
    let asked = Asking {
        launch,
        detach,
        place,
        control: &spawned.control,
        host,
        log: log.as_ref(),
        cgroup: cgroup.as_deref(),
        taken: None,
        given: None,
    };
    match asked.ask(&mut plan) {
        Ok((status, output)) => Ok(Begun {
            id: launch.id.clone(),
            dir: detach.dir.clone(),
            control: spawned.control,
            status,
            names: plan.names.clone(),
            host,
            cgroup,
            output,
            warnings,
        }),
        Err(error) => {
            drop(spawned);
            start::remove_cgroup(cgroup);
            Err(error)
        }
    }
}

/// A cgroup that is there already is what a shim, or a start, left behind that was killed: this process holds the lock. If
/// processes are still in it, it stays.
fn make_cgroup(shared: &Shared, launch: &Launch, dir: &Path) -> Result<start::Placed> {
    let driver = shared.options.detached_cgroups.as_deref();
    let before = parent::noted(dir);
    if let Some(driver) = driver.filter(|_| !before.is_empty()) {
        match driver.open_at(&launch.id, &before) {
            Ok(left) => left.remove()?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        parent::leave_former_owner(driver, &before);
    }
    let ahead = parent::note_ahead(launch, driver, Some(dir))?;
    match (start::cgroup_of(launch, driver), driver) {
        (Err(error), Some(driver)) if error.is_conflict() => {
            driver.open_at(&launch.id, &ahead)?.remove()?;
            start::cgroup_of(launch, Some(driver))
        }
        (made, _) => made,
    }
}

pub(super) fn open_log(log: &DetachedLog) -> Result<Handed> {
    let known_as = match &log.format {
        Some(DetachedLogFormat::Json { known_as }) => Some(known_as.as_str()),
        _ => None,
    };
    if known_as.is_some_and(|name| name.is_empty() || name.len() > 255 || name.contains(['/', '\0'])) {
        return Err(Error::invalid("the second name of a log is no file name"));
    }
    logs::hand_over(&log.dir, known_as)
}

/// What is asked of a shim that has been spawned.
pub(super) struct Asking<'a> {
    pub(super) launch: &'a Launch,
    pub(super) detach: &'a Detach,
    pub(super) place: &'a Place,
    pub(super) control: &'a OwnedFd,
    pub(super) host: Host,
    pub(super) log: Option<&'a Handed>,
    pub(super) cgroup: Option<&'a dyn Cgroup>,
    /// The first process of a container that runs, and is to be taken over.
    pub(super) taken: Option<BorrowedFd<'a>>,
    /// What comes along at once behind it where no shim was there before: see [`config::GIVEN`].
    pub(super) given: Option<&'a [BorrowedFd<'a>]>,
}

impl Asking<'_> {
    /// The socket over which the start is reported, and a reader of what it prints.
    pub(super) fn ask(&self, plan: &mut Plan) -> Result<(OwnedFd, Option<OwnedFd>)> {
        parent::add_clean_ups(plan, &self.launch.id, self.cgroup)?;
        let directories = self.cgroup.map_or(&[] as &[PathBuf], |cgroup| cgroup.directories());
        // Of one that is taken over they are noted, with more above them perhaps than are found there now.
        if self.taken.is_none() || self.given.is_some() {
            parent::note(&self.detach.dir, directories)?;
        }
        let own = |directory: &&PathBuf| directory.ends_with(self.launch.id.as_str());
        let own: Vec<&PathBuf> = directories.iter().filter(own).collect();
        self.tell(plan, &own)?;
        let output = match self.detach.attached {
            true => Some(connect::open(&self.detach.dir, talk_op::OUTPUT)?),
            false => None,
        };
        Ok((self.send_plan(plan)?, output))
    }

    /// Tells the shim what it is for.
    fn tell(&self, plan: &Plan, cgroups: &[&PathBuf]) -> Result<()> {
        let inside = Inside {
            host: self.host,
            namespaces: plan.all_namespaces(),
            own_processes: plan.own_processes(),
            root: plan.root(),
        };
        let mut words = [0u64; config::COUNT];
        let (format, known_as) = match &self.detach.log.format {
            None => (0, ""),
            Some(DetachedLogFormat::Frames) => (config::FRAMES, ""),
            Some(DetachedLogFormat::Json { known_as }) => (config::JSON, known_as.as_str()),
        };
        let stdio = self.launch.stdio;
        words[config::FLAGS] =
            format | if stdio.stdin { config::INPUT } else { 0 } | stdio.terminal.map_or(0, |_| config::TERMINAL);
        words[config::FLAGS] |= self.taken.map_or(0, |_| config::TAKEN) | self.given.map_or(0, |_| config::GIVEN);
        words[config::RESTART..config::LOG_FULL].copy_from_slice(&restart_words(self.detach.restart).words());
        words[config::LOG_FULL] = self.detach.log.max_size_bytes;
        words[config::LOG_FILES] = u64::from(self.detach.log.max_files.max(1));
        if let Some(log) = self.log {
            (
                words[config::LOG_NUMBER],
                words[config::LOG_SIZE],
                words[config::LOG_OLDEST],
            ) = (log.number, log.size, log.oldest);
        }
        [words[config::BOOT], words[config::BOOT + 1]] = self.place.boot;
        words[config::CHANGE] = self.place.change;
        words[config::INSIDE..][..config::INSIDE_COUNT].copy_from_slice(&inside_words(&inside));
        let probing = self.detach.check.as_ref();
        let probing = probing
            .map(|check| Probing::of(check, plan, self.host, self.cgroup))
            .transpose()?;
        if let Some(probing) = &probing {
            words[config::FLAGS] |= config::HEALTH;
            words[config::INTERVAL..].copy_from_slice(&probing.words);
        }
        let mut blob: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        blob.extend_from_slice(known_as.as_bytes());
        blob.push(0);
        let log_dir = place::open_dir(&self.detach.log.dir)?;
        let counter = cgroups.iter().find_map(|directory| oom_counter(directory));
        let place = self.place;
        let mut fds = vec![
            place.dir.as_fd(),
            place.listener.as_fd(),
            place.state.as_fd(),
            log_dir.as_fd(),
            self.log.map_or(place.dir.as_fd(), |log| log.file.as_fd()),
        ];
        fds.extend(counter.as_ref().map(AsFd::as_fd));
        if let (Some(probing), Some(results)) = (&probing, &place.results) {
            // Where there is no counter, something that is none.
            fds.resize(config::FD_PROBE as usize, place.dir.as_fd());
            fds.extend([probing.plan.as_fd(), results.as_fd()]);
        }
        zygote::ask(self.control, (op::SHIM, 0), &blob, &fds)
    }

    /// Always in a file: the shim keeps it for the next runs.
    fn send_plan(&self, plan: &Plan) -> Result<OwnedFd> {
        let ends = Ends::new(self.launch.stdio)?;
        {
            let (mut positions, mut fds) = ends.positions(start::trees(self.launch), self.cgroup);
            start::add_shared(self.launch, &mut positions, &mut fds);
            if let Some(process) = self.taken {
                positions.target = fds.len() as u32;
                fds.push(process);
                fds.extend(self.given.unwrap_or_default());
            }
            let blob = plan.encode(positions);
            if blob.len() > LARGEST {
                return Err(Error::invalid(format!(
                    "arguments, environment and mounts of {} bytes",
                    blob.len()
                )));
            }
            let file = memfd::sealed(c"longshore-plan", &blob);
            let file = file.map_err(|error| Error::os("make the plan's file", error))?;
            fds.push(file.as_fd());
            zygote::ask_about(self.control, (op::START, FLAG_MEMFD), blob.len(), &fds)?;
        }
        let (status, _) = ends.split();
        Ok(status)
    }
}

/// The file that counts kills for memory, of either version.
fn oom_counter(directory: &Path) -> Option<File> {
    let names = ["memory.events", "memory.oom_control"];
    names.iter().find_map(|name| File::open(directory.join(name)).ok())
}

impl Begun {
    /// Follows the start to its end.
    pub(super) async fn finish(self) -> Result<ShimTask> {
        let outcome = start::outcome(self.status, &self.names, self.host, (None, &self.id), None).await;
        let outcome = outcome.and_then(|setup| setup.ok_or_else(start::died_in_setup));
        let mut warnings = self.warnings;
        let connected = match outcome {
            // A terminal that comes along is the shim's to give.
            Ok(setup) => {
                warnings.extend(setup.warnings);
                ShimTask::connect(self.id, self.dir.clone(), self.cgroup.clone()).await
            }
            Err(error) => Err(error),
        };
        let kept = connected.and_then(|mut task| {
            task.started(self.output, warnings);
            keep(self.control.as_fd())?;
            Ok(task)
        });
        match kept {
            Ok(task) => Ok(task),
            Err(error) => Err(failed(error, self.control, self.cgroup, self.dir).await),
        }
    }
}

/// From here on the container outlives this process. No wait: whoever drops the start has dropped it before, or has a task.
fn keep(control: BorrowedFd<'_>) -> Result<()> {
    let header = Header {
        op: op::KEPT,
        req: 0,
        len: 0,
        arg: 0,
        flags: 0,
    };
    socket::send(control, [&header.encode(), &[]], &[]).map_err(connect::lost)
}

/// Waits until the shim has left nothing of a failed start.
async fn failed(mut error: Error, control: OwnedFd, cgroup: Option<Arc<dyn Cgroup>>, dir: PathBuf) -> Error {
    if let Some(cgroup) = cgroup.clone() {
        let killed = blocking(move || cgroup.oom_kills()).await.ok().flatten().unwrap_or(0) > 0;
        if killed && error.errno().is_none() && error.kind() == &ErrorKind::Os {
            error = error.context("the memory limit is too small to start a container");
        }
    }
    socket::finish(control.as_fd());
    let _ = tokio::time::timeout(PATIENCE, until_closed(control)).await;
    let _ = blocking(move || {
        start::remove_cgroup(cgroup);
        parent::forget(&dir);
        Ok(())
    })
    .await;
    error
}

async fn until_closed(control: OwnedFd) {
    let mut room = [0u8; HEADER + 16];
    let Ok(()) = socket::set_nonblocking(control.as_fd()) else {
        return;
    };
    let Ok(control) = connect::watched(control) else { return };
    while let Ok(mut ready) = control.readable().await {
        match socket::receive(control.as_fd(), &mut room) {
            Ok(received) if received.len > 0 => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => ready.clear_ready(),
            _ => return,
        }
    }
}
