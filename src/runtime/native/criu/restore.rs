//! Makes a container of what was written down.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::outside::Outside;
use super::tool::failure;
use super::{IMAGES, WORK, Work, only_for_root, program, staged};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::cgroups::Cgroup;
use crate::runtime::native::helper::wire::TOOL_FDS;
use crate::runtime::native::hooks::Hooks;
use crate::runtime::native::parent::{self, Announced};
use crate::runtime::native::plan::Plan;
use crate::runtime::native::start::{self, Ends};
use crate::runtime::native::tool::{self, Bench, Run};
use crate::runtime::{Launch, Restore, Started};
use crate::sys::blocking::blocking;
use crate::types::Signal;

/// What a restore needs.
pub(crate) struct Job(pub(crate) Bench);

/// All that is made before CRIU runs.
struct Ready {
    work: Work,
    cgroup: Arc<dyn Cgroup>,
    warnings: Vec<String>,
    /// As if it were started: what commands must know of it.
    plan: Plan,
    tool: Plan,
    clean_up: Vec<u8>,
    _announced: Option<Announced>,
}

impl Job {
    /// In a task of its own, so that a caller who goes away leaves nothing.
    pub(crate) async fn run_detached(self, launch: Launch, from: Restore) -> Result<Started> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(Ok(unwanted)) = sender.send(self.run(launch, from).await) {
                let _ = unwanted.task.signal(Signal::KILL, false).await;
                let _ = unwanted.task.wait().await;
                let _ = unwanted.task.remove().await;
            }
        });
        receiver
            .await
            .map_err(|_| Error::new(ErrorKind::Cancelled, "the runtime of the engine was shut down"))?
    }

    async fn run(self, launch: Launch, from: Restore) -> Result<Started> {
        only_for_root(self.0.host.bind_devices)?;
        if Hooks::of(&launch)?.is_some() {
            let needs = "a container without hooks: what they did is not in a checkpoint";
            return Err(Error::unsupported("going on from a checkpoint with hooks", needs));
        }
        let program = program()?;
        let job = Arc::new(self);
        let (making, launch) = (Arc::clone(&job), Arc::new(launch));
        let wanted = Arc::clone(&launch);
        let ready = blocking(move || making.ready(program, &wanted, &from)).await?;
        let cgroup = Arc::clone(&ready.cgroup);
        let restored = job.restored(&launch, ready).await;
        if restored.is_err() {
            // Whatever CRIU has left of a failed restore, killed in the middle of it, say.
            let _ = blocking(move || {
                let _ = cgroup.kill();
                start::remove_cgroup(Some(cgroup));
                Ok(())
            })
            .await;
        }
        restored
    }

    /// Blocking.
    fn ready(&self, program: &'static str, launch: &Launch, from: &Restore) -> Result<Ready> {
        let outside = Outside::read(&from.directory)?;
        let mut plan = start::plan_of(launch, self.0.host, None, false)?;
        let (laid_out, places) = lay_out(launch);
        let work = Work::make(&from.work)?;
        let words = outside.restored(&places, staged, TOOL_FDS)?;
        let mut arguments: Vec<String> = [
            program,
            "restore",
            "-v4",
            "-W",
            &staged(WORK),
            "-o",
            "log",
            "-D",
            &staged(IMAGES),
            "--pidfile",
            "pid",
            "--root",
            &staged("r"),
        ]
        .map(str::to_owned)
        .to_vec();
        // As a sibling, so that it is the zygote's child; stopped, so that it cannot end before somebody waits for its end.
        let how = [
            "--restore-detached",
            "--restore-sibling",
            "--leave-stopped",
            "--manage-cgroups=ignore",
            "--file-locks",
        ];
        arguments.extend(how.map(str::to_owned));
        arguments.extend(words);
        let mut tool = work.plan(&arguments, Some(&from.directory))?;
        tool.stage(&laid_out, self.0.host)?;
        let announced = Announced::of(&self.0.zygote, launch, self.0.cgroups.as_deref())?;
        let (cgroup, warnings) = start::cgroup_of(launch, self.0.cgroups.as_deref())?;
        let needs = || Error::unsupported("going on from a checkpoint", "a cgroup driver");
        let cgroup: Arc<dyn Cgroup> = cgroup.map(Arc::from).ok_or_else(needs)?;
        for plan in [&mut plan, &mut tool] {
            parent::add_clean_ups(plan, &launch.id, Some(&*cgroup))?;
        }
        Ok(Ready {
            work,
            cgroup,
            warnings,
            clean_up: plan.clean_ups().to_vec(),
            plan,
            tool,
            _announced: announced,
        })
    }

    async fn restored(&self, launch: &Launch, ready: Ready) -> Result<Started> {
        let ends = Ends::new(launch.stdio)?;
        let pipes = ends.pipes()?;
        let with = {
            let (mut positions, mut fds) = ends.positions(start::trees(launch), Some(&*ready.cgroup));
            start::add_shared(launch, &mut positions, &mut fds);
            (positions, tool::copies(fds.into_iter())?)
        };
        let (zygote, host, id) = (&self.0.zygote, self.0.host, &launch.id);
        let (run, status, stdio) = Run::to_end(zygote, ready.tool, host, id, ends, with).await?;
        if status.code() != 0 {
            return Err(failure(zygote, host, id, &ready.work, "restore", status).await);
        }
        let file = ready.work.file("pid");
        let inner = blocking(move || pid_of(&file)).await?;
        let adopted = tool::adopt(zygote, inner, &ready.clean_up).await?;
        drop(run);
        let started = adopted
            .started(
                id.clone(),
                host,
                &ready.plan,
                (stdio, pipes),
                (Some(ready.cgroup), start::Setup::with_warnings(ready.warnings)),
            )
            .await?;
        started.task.signal(Signal::CONT, true).await?;
        Ok(started)
    }
}

fn pid_of(file: &Path) -> Result<i32> {
    let text = fs::read_to_string(file).map_err(|error| Error::os("read what criu has restored", error))?;
    text.trim().parse().map_err(|_| Error::internal("criu wrote no pid"))
}

/// The container's mounts as they are laid out for CRIU: each at a number, and which is where in the container. What CRIU
/// makes by itself is not among them.
fn lay_out(launch: &Launch) -> (Launch, BTreeMap<PathBuf, String>) {
    let mut staged = launch.clone();
    let mut places = BTreeMap::new();
    let mut mounts = staged.spec.mounts().clone().unwrap_or_default();
    mounts.retain(|mount| {
        !matches!(
            mount.typ().as_deref(),
            Some("proc" | "sysfs" | "devpts" | "mqueue" | "tmpfs")
        )
    });
    let mut next = |target: &Path| {
        let name = (places.len() + 1).to_string();
        places.insert(target.to_owned(), name.clone());
        PathBuf::from("/").join(name)
    };
    for mount in &mut mounts {
        let place = next(mount.destination());
        mount.set_destination(place);
    }
    for mount in &mut staged.mounts {
        mount.target = next(&mount.target);
    }
    staged.spec.set_mounts(Some(mounts));
    (staged, places)
}
