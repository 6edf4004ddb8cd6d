//! One start: the cgroup from the engine's driver, the bundle, `create`, the helper takes the first process over, `start`.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};
use tokio::sync::oneshot;

use super::bundle::{self, Held, Place};
use super::call::{Call, Flavour, Program, Work, pid_in};
use super::console::Console;
use super::identity::{self, Identity, Wanted};
use super::task::{OciTask, Parts};
use super::{cgroup, gone};
use crate::error::{Error, Result};
use crate::runtime::caps::CapabilitySet;
use crate::runtime::cgroups::{Cgroup, CgroupMode};
use crate::runtime::native::NativeRuntime;
use crate::runtime::native::parent::{self, Announced};
use crate::runtime::native::plan::Plan;
use crate::runtime::native::start::{self, Ends, Setup, Stdio};
use crate::runtime::native::tool::{self, Adopted, Bench};
use crate::runtime::{Launch, SharedNamespace, Started, StdioPlan};
use crate::sys::blocking::blocking;
use crate::types::{Mount, MountSource, Signal};

/// What a start needs.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) bench: Bench,
    pub(super) native: Arc<NativeRuntime>,
    pub(super) name: String,
    pub(super) program: Program,
}

/// All that is made before the runtime is run.
struct Ready {
    work: Arc<Work>,
    place: Place,
    cgroup: Option<Arc<dyn Cgroup>>,
    warnings: Vec<String>,
    /// As if the native runtime started it: what must be known of it later.
    plan: Plan,
    create: (Plan, String),
    console: Option<Console>,
    _announced: Option<Announced>,
}

impl Job {
    /// In a task of its own, so that a caller who goes away leaves nothing.
    pub(super) async fn run_detached(self, launch: Launch) -> Result<Started> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(Ok(unwanted)) = sender.send(self.run(launch).await) {
                let _ = unwanted.task.signal(Signal::KILL, false).await;
                let _ = unwanted.task.wait().await;
                let _ = unwanted.task.remove().await;
            }
        });
        receiver.await.map_err(|_| gone())?
    }

    async fn run(self, launch: Launch) -> Result<Started> {
        let (making, launch) = (self.clone(), Arc::new(launch));
        let wanted = Arc::clone(&launch);
        let ready = blocking(move || making.ready(&wanted)).await?;
        let (work, cgroup) = (Arc::clone(&ready.work), ready.cgroup.clone());
        let started = self.started(&launch, ready).await;
        if started.is_err() {
            self.undo(&launch, &work, cgroup).await;
        }
        started
    }

    /// Whatever a start in vain has left.
    async fn undo(&self, launch: &Launch, work: &Arc<Work>, cgroup: Option<Arc<dyn Cgroup>>) {
        if work.file("s").join(launch.id.as_str()).exists() {
            let call = self.call(launch, work);
            let _ = call.verb("delete", &["delete", "--force", launch.id.as_str()]).await;
        }
        let work = Arc::clone(work);
        let _ = blocking(move || {
            if let Some(cgroup) = &cgroup {
                let _ = cgroup.kill();
            }
            start::remove_cgroup(cgroup);
            work.remove()
        })
        .await;
    }

    fn call<'a>(&'a self, launch: &'a Launch, work: &'a Work) -> Call<'a> {
        Call {
            bench: &self.bench,
            program: &self.program,
            name: &self.name,
            id: &launch.id,
            work,
        }
    }

    /// Blocking.
    fn ready(&self, launch: &Launch) -> Result<Ready> {
        let host = self.bench.host;
        let directory = launch.bundle.as_deref();
        let directory =
            directory.ok_or_else(|| Error::invalid("a bundle's directory is needed for an external runtime"))?;
        let plan = start::plan_of(&without_hooks(launch), host, None, false)?;
        let place = self.place(launch);
        let identity = self.identity(launch, host.single_id)?;
        let work = Arc::new(Work::make(directory)?);
        let made = self.placed(launch, &work, place, identity, plan);
        if made.is_err() {
            let _ = work.remove();
        }
        made
    }

    /// Makes the cgroup, and what is told of it. Blocking.
    fn placed(&self, launch: &Launch, work: &Arc<Work>, place: Place, identity: Identity, plan: Plan) -> Result<Ready> {
        let announced = Announced::of(&self.bench.zygote, launch, self.bench.cgroups.as_deref())?;
        let (cgroup, warnings) = start::cgroup_of(&self.with_device_rules(launch)?, self.bench.cgroups.as_deref())?;
        let cgroup: Option<Arc<dyn Cgroup>> = cgroup.map(Arc::from);
        match self.laid_out(launch, work, place, &identity, plan, (cgroup.clone(), warnings)) {
            Ok(ready) => Ok(Ready {
                _announced: announced,
                ..ready
            }),
            Err(error) => {
                start::remove_cgroup(cgroup);
                Err(error)
            }
        }
    }

    /// Blocking.
    fn laid_out(
        &self,
        launch: &Launch,
        work: &Arc<Work>,
        place: Place,
        identity: &Identity,
        mut plan: Plan,
        (cgroup, warnings): (Option<Arc<dyn Cgroup>>, Vec<String>),
    ) -> Result<Ready> {
        let directories = self.directories(launch, cgroup.as_deref());
        let held = cgroup
            .as_deref()
            .filter(|_| !directories.is_empty())
            .map(|cgroup| Held {
                mode: cgroup.mode(),
                directories: &directories,
            });
        if held.is_none() && place.flavour == Flavour::Runc && !place.rootless {
            let needs = "a cgroup driver: it makes cgroups of its own otherwise, which nobody removes after a crash";
            return Err(Error::unsupported(
                format!("the runtime {:?} as root", self.name),
                needs,
            ));
        }
        let mode = held.map_or(CgroupMode::None, |held| held.mode);
        let staged = bundle::stage(launch, place, mode)?;
        let config = bundle::config(launch, staged.mounts, place, identity, held)?;
        write_config(work, &config)?;
        let console = launch.stdio.terminal.map(|_| Console::listen(work)).transpose()?;
        let (bundle, pid) = (super::call::own(""), super::call::own("pid"));
        let mut verb = vec!["create", "--bundle", bundle.trim_end_matches('/'), "--pid-file", &pid];
        let socket = console.as_ref().map(Console::place);
        if let Some(socket) = &socket {
            verb.extend(["--console-socket", socket]);
        }
        verb.push(launch.id.as_str());
        let (mut create, log) = self.call(launch, work).plan(&verb)?;
        create.stage_for_runtime(&staged.launch, self.bench.host)?;
        for plan in [&mut plan, &mut create] {
            parent::add_clean_ups(plan, &launch.id, cgroup.as_deref())?;
        }
        Ok(Ready {
            work: Arc::clone(work),
            place,
            cgroup,
            warnings,
            plan,
            create: (create, log),
            console,
            _announced: None,
        })
    }

    /// The container's cgroups, and where there are none because nothing is limited, where they would be: as root, runc makes some.
    fn directories(&self, launch: &Launch, cgroup: Option<&dyn Cgroup>) -> Vec<PathBuf> {
        let made = cgroup.map(|cgroup| cgroup.directories().to_vec()).unwrap_or_default();
        if !made.is_empty() || self.bench.host.bind_devices {
            return made;
        }
        let parents = self.bench.cgroups.as_ref().map(|driver| driver.owner_directories());
        let first = parents.into_iter().flatten().next();
        first
            .map(|parent| parent.join(launch.id.as_str()))
            .into_iter()
            .collect()
    }

    fn place(&self, launch: &Launch) -> Place {
        let host = self.bench.host;
        let linux = launch.spec.linux().as_ref();
        let namespaces = linux
            .and_then(|linux| linux.namespaces().as_deref())
            .unwrap_or_default();
        let own = namespaces.iter().any(|one| one.typ() == LinuxNamespaceType::Network);
        Place {
            flavour: self.program.flavour,
            rootless: host.bind_devices,
            single_id: host.single_id,
            foreign_network: !own && !super::joins_network(launch),
            ceiling: if host.bind_devices {
                CapabilitySet::ALL
            } else {
                bounding_set()
            },
        }
    }

    /// crun is told to leave cgroups alone, and the driver keeps devices away in its place. Where the engine is in a user
    /// namespace no node works anyway, and nobody could load the rules.
    fn with_device_rules(&self, launch: &Launch) -> Result<Launch> {
        let mut launch = launch.clone();
        if self.program.flavour != Flavour::Crun || self.bench.host.bind_devices || launch.privileged {
            return Ok(launch);
        }
        let Some(linux) = launch.spec.linux_mut() else {
            return Ok(launch);
        };
        let devices = linux.devices().clone().unwrap_or_default();
        let rules = cgroup::device_rules(linux.resources().as_ref(), &devices, false);
        let rules = rules.map_err(|error| Error::internal("the rules for devices").with_source(error))?;
        let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
        resources.set_devices(Some(rules));
        linux.set_resources(Some(resources));
        Ok(launch)
    }

    /// Blocking.
    fn identity(&self, launch: &Launch, single_id: bool) -> Result<Identity> {
        let process = launch.spec.process().as_ref();
        let process = process.ok_or_else(|| Error::invalid("the spec has no process"))?;
        let wanted = Wanted {
            user: launch.user.as_deref(),
            extra: &launch.extra_groups,
            usual: process.user(),
        };
        let root: Option<OwnedFd> = match wanted.needs_files() {
            true => Some(self.native.mount(&[layers_of(launch)?])?),
            false => None,
        };
        let found = identity::look_up(wanted, root.as_ref().map(|root| root.as_fd()))?;
        Ok(if single_id { found.alone() } else { found })
    }

    async fn started(&self, launch: &Launch, ready: Ready) -> Result<Started> {
        let call = self.call(launch, &ready.work);
        // Without a terminal always a pipe: what this process has as its stdin is the host's.
        let ends = Ends::new(StdioPlan {
            stdin: true,
            ..launch.stdio
        })?;
        let pipes = ends.pipes()?;
        let with = {
            let trees = start::trees(launch).collect();
            let (mut positions, mut fds) = call.positions(&ends, trees, ready.cgroup.as_deref())?;
            join_network(launch, &mut positions, &mut fds)?;
            (positions, fds)
        };
        let clean_up = ready.plan.clean_ups().to_vec();
        let (run, [stdin, stdout, stderr]) = call.run("create", ready.create, ends, with).await?;
        let (file, console, size) = (ready.work.file("pid"), ready.console, launch.stdio.terminal);
        let (inner, terminal) = blocking(move || {
            let terminal = console.zip(size).map(|(console, size)| console.take(size)).transpose();
            Ok((pid_in(&file)?, terminal))
        })
        .await?;
        let first = tool::adopt(&self.bench.zygote, inner, &clean_up).await?;
        drop(run);
        let setup = Setup {
            terminal: terminal?,
            ..Setup::with_warnings(ready.warnings)
        };
        let streams: Stdio = [stdin.filter(|_| launch.stdio.stdin), stdout, stderr];
        let cgroup = ready.cgroup.clone();
        let mut started = self
            .native_task(launch, first, &ready.plan, (streams, pipes), (cgroup, setup))
            .await?;
        let parts = Parts {
            job: self.clone(),
            id: launch.id.clone(),
            work: Arc::clone(&ready.work),
            place: ready.place,
            cgroup: ready.cgroup.clone(),
            seccomp: launch
                .spec
                .linux()
                .as_ref()
                .is_some_and(|linux| linux.seccomp().is_some()),
        };
        started.task = Arc::new(OciTask::new(parts, Arc::clone(&started.task)));
        if let Err(error) = call.verb("start", &["start", launch.id.as_str()]).await {
            let _ = started.task.signal(Signal::KILL, false).await;
            let _ = started.task.wait().await;
            let _ = started.task.remove().await;
            return Err(error);
        }
        Ok(started)
    }

    /// The container as the native runtime would have it: its process, its streams, its cgroup.
    async fn native_task(
        &self,
        launch: &Launch,
        first: Adopted,
        plan: &Plan,
        streams: (Stdio, start::Pipes),
        with: (Option<Arc<dyn Cgroup>>, Setup),
    ) -> Result<Started> {
        first
            .started(launch.id.clone(), self.bench.host, plan, streams, with)
            .await
    }
}

/// The root to look at, as all of its layers show it. Not as it will be mounted: a `volatile` overlay can be mounted once.
fn layers_of(launch: &Launch) -> Result<Mount> {
    let root = launch
        .rootfs
        .first()
        .ok_or_else(|| Error::invalid("no mount for the root"))?;
    let source = match &root.source {
        MountSource::Overlay {
            lower,
            upper,
            user_xattr,
            ..
        } => MountSource::Overlay {
            lower: upper.iter().chain(lower).cloned().collect(),
            upper: None,
            work: None,
            user_xattr: *user_xattr,
            volatile: false,
        },
        other => other.clone(),
    };
    Ok(Mount {
        source,
        read_only: true,
    })
}

/// The runtime runs them itself.
fn without_hooks(launch: &Launch) -> Launch {
    let mut launch = launch.clone();
    launch.spec.set_hooks(None);
    launch
}

/// The network of others, for the runtime to run in.
fn join_network(
    launch: &Launch,
    positions: &mut crate::runtime::native::plan::FdPositions,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    for shared in &launch.shared {
        if let SharedNamespace::Of(LinuxNamespaceType::Network, network) = shared {
            positions.shared[2] = fds.len() as u32;
            fds.extend(tool::copies(std::iter::once(network.as_fd()))?);
        }
    }
    Ok(())
}

/// Blocking.
fn write_config(work: &Work, config: &Spec) -> Result<()> {
    let text = serde_json::to_vec(config).map_err(|error| Error::internal("a bundle's config").with_source(error))?;
    write(&work.file("config.json"), &text)
}

/// Blocking.
pub(super) fn write(file: &Path, text: &[u8]) -> Result<()> {
    fs::write(file, text).map_err(|error| Error::os("write a bundle", error))
}

/// The capabilities that this process could give. Where it cannot tell, all: the runtime says what it cannot do.
fn bounding_set() -> CapabilitySet {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bits = bits.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.map_or(CapabilitySet::ALL, CapabilitySet::from_bits)
}
