//! Namespaces of the host and of other containers.
//!
//! A container of this engine can join what another one of it has: both are below one zygote. A container of another
//! process is below another, and no process can enter a pid namespace beside its own (setns(2)).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use oci_spec::runtime::LinuxNamespaceType as Kind;

use super::local::Shared;
use super::peer;
use super::plan;
use super::record::{ProcessIdentity, Record};
use super::spec::{ContainerSpec, NamespaceMode, NetworkMode};
use super::state::ContainerState;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::SharedNamespace;
use crate::runtime::caps::CapabilitySet;
use crate::sys::blocking::blocking;

/// A kind of namespace, with Docker's word for it and its file below `/proc/PID/ns`.
const PID: (Kind, &str, &str) = (Kind::Pid, "PID", "pid");
const IPC: (Kind, &str, &str) = (Kind::Ipc, "IPC", "ipc");
const NETWORK: (Kind, &str, &str) = (Kind::Network, "network namespace", "net");

/// Whoever may trace a process that is being set up has what that holds of the host.
const SYS_PTRACE: CapabilitySet = CapabilitySet::from_bits(1 << 19);

impl Shared {
    /// Puts ids in the place of names: a container that is meant now must not become another one's by a rename.
    ///
    /// # Errors
    /// `NotFound` for a container that is not there.
    pub(super) async fn name_peers(&self, spec: &mut ContainerSpec) -> Result<()> {
        if let NetworkMode::Container(name) = &mut spec.network {
            *name = self.find(name).await?.id.to_string();
        }
        for mode in [&mut spec.pid_mode, &mut spec.ipc_mode] {
            if let NamespaceMode::Container(name) = mode {
                *name = self.find(name).await?.id.to_string();
            }
        }
        Ok(())
    }

    /// Opens the namespaces that a container is to share.
    ///
    /// # Errors
    /// `Conflict` for a container that does not run, `Unsupported` for one of another process.
    pub(super) async fn shared_namespaces(&self, spec: &ContainerSpec) -> Result<Vec<SharedNamespace>> {
        let mut shared = Vec::new();
        for (mode, kind) in [
            (&spec.pid_mode, Kind::Pid),
            (&spec.ipc_mode, Kind::Ipc),
            (&spec.uts_mode, Kind::Uts),
            (&spec.cgroup_mode, Kind::Cgroup),
        ] {
            if *mode == NamespaceMode::Host {
                shared.push(SharedNamespace::Host(kind));
            }
        }
        if let NamespaceMode::Container(name) = &spec.pid_mode {
            let peer = self.peer(name, PID.1).await?;
            if plan::capabilities(&peer.body.spec)?.contains(SYS_PTRACE) {
                return Err(Error::unsupported(
                    format!(
                        "the pid namespace of container {}, which may trace processes",
                        peer.id.short()
                    ),
                    "a container without CAP_SYS_PTRACE: one that has it could look into the start of another",
                )
                .with_object(ObjectKind::Option, "pid_mode"));
            }
            shared.push(SharedNamespace::Of(PID.0, open(&peer, PID.2).await?));
        }
        if let NamespaceMode::Container(name) = &spec.ipc_mode {
            let peer = self.peer(name, IPC.1).await?;
            if peer.body.spec.ipc_mode != NamespaceMode::Shareable {
                // Docker's words. Source: moby, `daemon/container_operations_unix.go`.
                let message = format!(
                    "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    peer.id
                );
                return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Option, "ipc_mode"));
            }
            shared.push(SharedNamespace::Of(IPC.0, open(&peer, IPC.2).await?));
            shared.push(SharedNamespace::SharedMemory(open(&peer, "mnt").await?));
        }
        if let NetworkMode::Container(name) = &spec.network {
            let peer = self.peer(name, NETWORK.1).await?;
            match peer.body.spec.network {
                // What it shares is the host's, or another's, and so is this one's.
                NetworkMode::None | NetworkMode::Named(_) => {
                    shared.push(SharedNamespace::Of(NETWORK.0, open(&peer, NETWORK.2).await?))
                }
                NetworkMode::Host => {}
                NetworkMode::Container(_) => {
                    let message = format!("cannot join network of container {}: it has another's itself", peer.id);
                    return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Option, "network"));
                }
            }
        }
        Ok(shared)
    }

    /// The host name of a container: that of the one whose network it has, as Docker gives it.
    pub(super) async fn hostname_of_peer(&self, spec: &ContainerSpec) -> Result<Option<String>> {
        let NetworkMode::Container(name) = &spec.network else {
            return Ok(None);
        };
        if spec.uts_mode == NamespaceMode::Host {
            return Ok(None);
        }
        let peer = self.find(name).await?;
        Ok(Some(plan::hostname(&peer.body.spec, &peer.id)))
    }

    /// A container of ours that runs.
    async fn peer(&self, name: &str, what: &str) -> Result<Record> {
        let record = self.find(name).await?;
        if !self.is_ours(&record) {
            return Err(Error::unsupported(
                format!(
                    "sharing a namespace of container {}, which belongs to another process",
                    record.id.short()
                ),
                "containers of one engine",
            )
            .with_object(ObjectKind::Container, record.id.as_str()));
        }
        if record.body.spec.user_namespace {
            return Err(Error::unsupported(
                format!(
                    "sharing a namespace of container {}, which has a user namespace of its own",
                    record.id.short()
                ),
                "containers in the engine's user namespace",
            )
            .with_object(ObjectKind::Container, record.id.as_str()));
        }
        if self.is_bare(&record.body.spec) {
            return Err(Error::unsupported(
                format!(
                    "sharing a namespace of container {}, whose namespaces are those around the engine",
                    record.id.short()
                ),
                "containers with namespaces, or the host's by name",
            )
            .with_object(ObjectKind::Container, record.id.as_str()));
        }
        match record.state {
            ContainerState::Running | ContainerState::Paused => Ok(record),
            _ => {
                let message = format!("cannot join {what} of a non running container: {}", record.id);
                Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, record.id.as_str()))
            }
        }
    }
}

/// Opens a namespace of a container's first process, and makes sure that it was that one's.
async fn open(record: &Record, file: &'static str) -> Result<Arc<OwnedFd>> {
    let ended = {
        let id = record.id.clone();
        move || {
            let message = format!("cannot join a namespace of a non running container: {id}");
            Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, id.as_str())
        }
    };
    let Some(process) = record.body.process else {
        return Err(ended());
    };
    blocking(move || open_of(process, file)?.ok_or_else(ended)).await
}

/// `None`: the process has ended. Blocks.
fn open_of(process: ProcessIdentity, file: &str) -> Result<Option<Arc<OwnedFd>>> {
    let opened = File::open(format!("/proc/{}/ns/{file}", process.pid));
    if peer::identify(process.pid) != Some(process) {
        return Ok(None);
    }
    let opened = opened.map_err(|error| Error::os("open a namespace of the container", error))?;
    Ok(Some(Arc::new(opened.into())))
}
