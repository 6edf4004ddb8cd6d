//! A container's places in networks: taken at its start, left at its end, and changed by `connect` and `disconnect`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::LinuxNamespaceType;

use super::local::Shared;
use super::plan::ImageDefaults;
use super::record::Record;
use super::spec::{ContainerSpec, NetworkMode};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::SharedNamespace;
#[cfg(feature = "network")]
use crate::sys::blocking::blocking;
#[cfg(feature = "network")]
use crate::types::PortBinding;
use crate::types::{ContainerId, Endpoint, EndpointSpec, Outcome, Port, PublishedPort, Shaping};

/// What a container that is to start got of networks.
#[derive(Debug, Default)]
pub(crate) struct Places {
    namespace: Option<Arc<OwnedFd>>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<PublishedPort>,
    /// What `host-gateway` stands for.
    pub(crate) host_gateway: Option<IpAddr>,
}

impl Places {
    /// The network namespace to be in, if it is not one of the container's own making.
    pub(crate) fn namespace(&self) -> Option<SharedNamespace> {
        let namespace = Arc::clone(self.namespace.as_ref()?);
        Some(SharedNamespace::Of(LinuxNamespaceType::Network, namespace))
    }
}

/// Ports that a container says to listen at: the image's and its own. What an image writes that is no port says nothing.
pub(crate) fn exposed(spec: &ContainerSpec, image: &ImageDefaults) -> Vec<Port> {
    let of_image = image.exposed.iter().filter_map(|text| text.parse().ok());
    let published = spec.ports.iter().map(|binding| binding.port);
    let all: BTreeSet<Port> = of_image.chain(spec.expose.iter().copied()).chain(published).collect();
    all.into_iter().collect()
}

/// What is to be published: what was asked for, and with `publish_all` every exposed port that was not.
#[cfg(feature = "network")]
fn to_publish(spec: &ContainerSpec, image: &ImageDefaults) -> Vec<PortBinding> {
    let mut all = spec.ports.clone();
    if spec.publish_all {
        let missing = exposed(spec, image)
            .into_iter()
            .filter(|port| !spec.ports.iter().any(|one| one.port == *port));
        all.extend(missing.map(|port| PortBinding::new(port, 0)));
    }
    all
}

/// Its networks in the order of its interfaces: first the one that it was created with.
fn networks(spec: &ContainerSpec) -> Vec<(String, EndpointSpec)> {
    let NetworkMode::Named(first) = &spec.network else {
        return Vec::new();
    };
    let of_first = spec.endpoints.get(first).cloned().unwrap_or_default();
    let others = spec.endpoints.iter().filter(|(name, _)| *name != first);
    let others = others.map(|(name, endpoint)| (name.clone(), endpoint.clone()));
    std::iter::once((first.clone(), of_first)).chain(others).collect()
}

#[cfg(not(feature = "network"))]
fn without() -> Error {
    Error::unsupported("bridge networks", "longshore with its feature `network`")
}

impl Shared {
    /// Puts names in the place of ids, and refuses networks that are not there.
    pub(super) async fn name_networks(&self, spec: &mut ContainerSpec) -> Result<()> {
        if !matches!(spec.network, NetworkMode::Named(_)) {
            return Ok(());
        }
        let all = networks(spec);
        let names = self
            .names_of(all.iter().map(|(name, _)| name.clone()).collect())
            .await?;
        if let Some(first) = names.first() {
            spec.network = NetworkMode::Named(first.clone());
        }
        spec.endpoints = names
            .into_iter()
            .zip(all)
            .map(|(name, (_, endpoint))| (name, endpoint))
            .collect();
        Ok(())
    }

    #[cfg(feature = "network")]
    async fn names_of(&self, networks: Vec<String>) -> Result<Vec<String>> {
        let manager = self.parts.networks.clone();
        blocking(move || networks.iter().map(|network| manager.name_of(network)).collect()).await
    }

    #[cfg(not(feature = "network"))]
    async fn names_of(&self, _networks: Vec<String>) -> Result<Vec<String>> {
        Err(without())
    }

    /// Takes a container's places; what fails leaves nothing.
    #[cfg(feature = "network")]
    pub(super) async fn join_networks(&self, record: &Record) -> Result<Places> {
        use crate::networks::{LocalNetworks, Request};
        let (spec, image) = (&record.body.spec, &record.body.image);
        let wanted = spec.extra_hosts.iter().any(|line| line.ends_with("host-gateway"));
        let beside = || if wanted { LocalNetworks::host_address() } else { None };
        let NetworkMode::Named(_) = &spec.network else {
            return Ok(Places {
                host_gateway: beside(),
                ..Places::default()
            });
        };
        let request = Request {
            name: record.name.to_string(),
            endpoints: networks(spec),
            ports: to_publish(spec, image),
            dns: spec.dns.clone(),
            host_ports: spec.host_ports.clone(),
        };
        let (manager, id) = (self.parts.networks.clone(), record.id.clone());
        let attached = blocking(move || manager.attach(&id, request)).await?;
        Ok(Places {
            namespace: Some(attached.namespace),
            host_gateway: attached.host_gateway.or_else(beside),
            endpoints: attached.endpoints,
            ports: attached.ports,
        })
    }

    #[cfg(not(feature = "network"))]
    pub(super) async fn join_networks(&self, record: &Record) -> Result<Places> {
        match &record.body.spec.network {
            NetworkMode::Named(_) => Err(without()),
            _ => Ok(Places::default()),
        }
    }

    /// Leaves a container's places. Its published ports are free when this returns.
    #[cfg(feature = "network")]
    pub(super) async fn leave_networks(&self, id: &ContainerId) {
        let (manager, id) = (self.parts.networks.clone(), id.clone());
        let left = blocking(move || {
            manager.release(&id);
            Ok(())
        });
        if let Err(error) = left.await {
            tracing::warn!(error = error.report(), "a container's networks could not be left");
        }
    }

    #[cfg(not(feature = "network"))]
    pub(super) async fn leave_networks(&self, _id: &ContainerId) {}

    /// Where the files for `/etc` are of the container whose network this one shares.
    pub(super) fn dir_of_peer(&self, spec: &ContainerSpec) -> Option<PathBuf> {
        let NetworkMode::Container(peer) = &spec.network else {
            return None;
        };
        Some(self.dir_of(&peer.parse().ok()?))
    }

    /// Puts a container on one more network: at once if it runs, else from its next start on.
    pub(super) async fn connect(&self, name: &str, network: &str, endpoint: EndpointSpec) -> Result<()> {
        endpoint.shaping.check()?;
        let (id, slot) = self.own_slot(name, "connect").await?;
        let _turn = slot.turn.lock().await;
        let mut record = self.read(&id).await?;
        refuse_other_modes(&record)?;
        let network = self.names_of(vec![network.to_owned()]).await?.pop().unwrap_or_default();
        if record.state.is_alive() {
            let made = self.connect_now(&id, &network, &endpoint).await?;
            record.body.endpoints.push(made);
        } else if networks(&record.body.spec).iter().any(|(name, _)| *name == network) {
            let message = format!("endpoint with name {} already exists in network {network}", record.name);
            return Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, name));
        }
        let spec = &mut record.body.spec;
        if spec.network == NetworkMode::None {
            spec.network = NetworkMode::Named(network.clone());
        }
        spec.endpoints.insert(network.clone(), endpoint);
        let kept = self.keep_networks(&record).await;
        if kept.is_err() && record.state.is_alive() {
            let _ = self.disconnect_now(&id, &network).await;
        }
        kept
    }

    /// Takes a container out of a network.
    pub(super) async fn disconnect(&self, name: &str, network: &str) -> Result<Outcome> {
        let (id, slot) = self.own_slot(name, "disconnect").await?;
        let _turn = slot.turn.lock().await;
        let mut record = self.read(&id).await?;
        refuse_other_modes(&record)?;
        let network = self.names_of(vec![network.to_owned()]).await?.pop().unwrap_or_default();
        if !networks(&record.body.spec).iter().any(|(name, _)| *name == network) {
            return Err(not_connected(&record, network));
        }
        if record.state.is_alive() {
            match self.disconnect_now(&id, &network).await {
                // It is out already, and that could not be written down then.
                Err(error) if error.is_not_found() => {}
                gone => gone?,
            }
        }
        let spec = &mut record.body.spec;
        spec.endpoints.remove(&network);
        if spec.network == NetworkMode::Named(network.clone()) {
            spec.network = match spec.endpoints.keys().next() {
                Some(next) => NetworkMode::Named(next.clone()),
                None => NetworkMode::None,
            };
        }
        record.body.endpoints.retain(|endpoint| endpoint.network != network);
        self.keep_networks(&record).await?;
        Ok(Outcome::Done)
    }

    /// Shapes a container's link to a network: at once if it runs, and from its next start on.
    pub(super) async fn shape(&self, name: &str, network: &str, shaping: Shaping) -> Result<()> {
        shaping.check()?;
        let (id, slot) = self.own_slot(name, "shape").await?;
        let _turn = slot.turn.lock().await;
        let mut record = self.read(&id).await?;
        refuse_other_modes(&record)?;
        let network = self.names_of(vec![network.to_owned()]).await?.pop().unwrap_or_default();
        if !networks(&record.body.spec).iter().any(|(name, _)| *name == network) {
            return Err(not_connected(&record, network));
        }
        let place = record.body.spec.endpoints.entry(network.clone()).or_default();
        let before = std::mem::replace(&mut place.shaping, shaping);
        if record.state.is_alive() {
            self.shape_now(&id, &network, shaping).await?;
        }
        let kept = self.keep_networks(&record).await;
        if kept.is_err() && record.state.is_alive() {
            let _ = self.shape_now(&id, &network, before).await;
        }
        kept
    }

    /// Keeps two containers apart, or no longer.
    pub(super) async fn keep_apart(&self, name: &str, other: &str, apart: bool) -> Result<()> {
        let (id, _) = self.own_slot(name, "partition").await?;
        let (other_id, _) = self.own_slot(other, "partition").await?;
        if id == other_id {
            let message = format!("container {name} cannot be kept from itself");
            return Err(Error::invalid(message).with_object(ObjectKind::Container, name));
        }
        self.keep_apart_now(id, other_id, apart).await
    }

    /// Has others find a container that runs by its new name.
    #[cfg(feature = "network")]
    pub(super) async fn rename_in_networks(&self, record: &mut Record, old: &str) -> Result<()> {
        if record.body.endpoints.is_empty() {
            return Ok(());
        }
        let (manager, id, name) = (self.parts.networks.clone(), record.id.clone(), record.name.to_string());
        for endpoint in &mut record.body.endpoints {
            endpoint.rename(old, &name);
        }
        blocking(move || {
            manager.rename(&id, &name);
            Ok(())
        })
        .await?;
        self.keep_networks(record).await
    }

    #[cfg(not(feature = "network"))]
    pub(super) async fn rename_in_networks(&self, _record: &mut Record, _old: &str) -> Result<()> {
        Ok(())
    }

    async fn keep_networks(&self, record: &Record) -> Result<()> {
        let (id, state, body) = (record.id.clone(), record.state.as_str(), record.body.to_json()?);
        self.parts
            .store
            .call(move |store| store.update_container(&id, state, state, &body, &[]).map(|_| ()))
            .await
    }

    #[cfg(feature = "network")]
    async fn connect_now(&self, id: &ContainerId, network: &str, endpoint: &EndpointSpec) -> Result<Endpoint> {
        let (manager, id, network) = (self.parts.networks.clone(), id.clone(), network.to_owned());
        let endpoint = endpoint.clone();
        blocking(move || manager.connect(&id, &network, &endpoint)).await
    }

    #[cfg(feature = "network")]
    async fn disconnect_now(&self, id: &ContainerId, network: &str) -> Result<()> {
        let (manager, id, network) = (self.parts.networks.clone(), id.clone(), network.to_owned());
        blocking(move || manager.disconnect(&id, &network)).await
    }

    #[cfg(feature = "network")]
    async fn shape_now(&self, id: &ContainerId, network: &str, shaping: Shaping) -> Result<()> {
        let (manager, id, network) = (self.parts.networks.clone(), id.clone(), network.to_owned());
        blocking(move || manager.shape(&id, &network, shaping)).await
    }

    #[cfg(feature = "network")]
    async fn keep_apart_now(&self, one: ContainerId, other: ContainerId, apart: bool) -> Result<()> {
        let manager = self.parts.networks.clone();
        blocking(move || manager.keep_apart(&one, &other, apart)).await
    }

    #[cfg(not(feature = "network"))]
    async fn shape_now(&self, _id: &ContainerId, _network: &str, _shaping: Shaping) -> Result<()> {
        Err(without())
    }

    #[cfg(not(feature = "network"))]
    async fn keep_apart_now(&self, _one: ContainerId, _other: ContainerId, _apart: bool) -> Result<()> {
        Err(without())
    }

    #[cfg(not(feature = "network"))]
    async fn connect_now(&self, _id: &ContainerId, _network: &str, _endpoint: &EndpointSpec) -> Result<Endpoint> {
        Err(without())
    }

    #[cfg(not(feature = "network"))]
    async fn disconnect_now(&self, _id: &ContainerId, _network: &str) -> Result<()> {
        Err(without())
    }
}

fn not_connected(record: &Record, network: String) -> Error {
    // Docker's words.
    let message = format!("container {} is not connected to the network {network}", record.id);
    Error::new(ErrorKind::NotFound, message)
        .with_object(ObjectKind::Network, network)
        .with_step("not connected")
}

/// A container that shares another's network, or the host's, has no places of its own. Source: moby,
/// `daemon/container_operations.go`.
fn refuse_other_modes(record: &Record) -> Result<()> {
    let message = match &record.body.spec.network {
        NetworkMode::Named(_) => return Ok(()),
        NetworkMode::None if !record.state.is_alive() => return Ok(()),
        NetworkMode::None => {
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        }
        NetworkMode::Host => "container cannot be disconnected from host network or connected to host network",
        NetworkMode::Container(_) => {
            "container sharing network namespace with another container or host cannot be connected to any other network"
        }
    };
    Err(Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, record.id.as_str()))
}
