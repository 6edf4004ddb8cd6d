//! The in-process network manager.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::net::{self, Attachment, Net, Wanted};
use super::own::{self, Driven, Own};
use super::spec::{AddressPool, NetworkRecord, NetworkSpec};
use super::{CreatedNetwork, NetworkInfo, NetworkManager, NetworkMember, Subnet, host, ipam, parent, proxy, route};
use crate::driver::Spawner;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::events::{Event, EventKind, now_ns};
use crate::runtime::native::NativeRuntime;
use crate::store::{NetworkRow, Store};
use crate::sys::blocking::blocking;
use crate::sys::order;
use crate::types::{ContainerId, Endpoint, EndpointSpec, Filter, NetworkId, Outcome, OwnerId, PortBinding, Shaping};

/// After what pauses an engine that was just opened looks for what dead ones had of networks: at once, and while the helper of one that was
/// killed at that moment may be clearing up, which takes longer on a busy machine.
const LOOKS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(40),
];

/// What the engine hands the manager.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) spawner: Spawner,
    pub(crate) store: Store,
    pub(crate) owner: OwnerId,
    pub(crate) native: Arc<NativeRuntime>,
    /// Where ports are published whose address is not said; everywhere without.
    pub(crate) publish_at: Option<IpAddr>,
    /// Drivers of the embedder's own.
    pub(crate) own: Option<Arc<Own>>,
}

/// What a container wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) name: String,
    /// Names of networks, in the order of its interfaces.
    pub(crate) endpoints: Vec<(String, EndpointSpec)>,
    pub(crate) ports: Vec<PortBinding>,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) host_ports: std::collections::BTreeSet<u16>,
}

/// Networks of this process, on one root.
#[derive(Debug, Clone)]
pub(crate) struct LocalNetworks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: Parts,
    /// Never held for long.
    net: Mutex<Option<Arc<Net>>>,
    /// Held by whoever makes it, or ends it.
    making: Mutex<()>,
    /// The default network: each engine has its own.
    default: Mutex<Option<NetworkRecord>>,
    /// The subnets of networks that were read once: they never change, and who makes a network must know those of all.
    subnets: Mutex<HashMap<NetworkId, Vec<Subnet>>>,
}

impl LocalNetworks {
    #[inline(always)] // To lie with its caller: docs/measuring.md, "Memory".
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            net: Mutex::default(),
            making: Mutex::default(),
            default: Mutex::default(),
            subnets: Mutex::default(),
        }))
    }

    /// Gives a container a network namespace with links to its networks. What fails leaves nothing. Blocks.
    ///
    /// # Errors
    /// `NotFound` for a network, `Conflict` for an address or a port in use, and those of the kernel.
    pub(crate) fn attach(&self, container: &ContainerId, request: Request) -> Result<Attachment> {
        self.0.attach(container, request)
    }

    /// Takes a container out of everything. Blocks.
    pub(crate) fn release(&self, container: &ContainerId) {
        let Some(net) = self.0.realised() else { return };
        for left in net.release(container) {
            self.0.tell_of(&left, "disconnect", container);
        }
    }

    /// Connects a container that runs. Blocks.
    pub(crate) fn connect(&self, container: &ContainerId, network: &str, spec: &EndpointSpec) -> Result<Endpoint> {
        let record = self.0.find(network)?;
        takes_options(&record, spec)?;
        let net = self.0.net()?;
        self.0.bridge(&net, &record)?;
        let endpoint = net.connect(container, &record.id, spec)?;
        self.0.tell(&record, "connect", Some(container));
        Ok(endpoint)
    }

    /// Disconnects a container that runs. Blocks.
    pub(crate) fn disconnect(&self, container: &ContainerId, network: &str) -> Result<()> {
        let record = self.0.find(network)?;
        let net = self.0.net()?;
        net.disconnect(container, &record.id)?;
        self.0.tell(&record, "disconnect", Some(container));
        Ok(())
    }

    /// Shapes a running container's link to a network. Blocks.
    pub(crate) fn shape(&self, container: &ContainerId, network: &str, shaping: Shaping) -> Result<()> {
        let record = self.0.find(network)?;
        self.0.net()?.shape(container, &record.id, shaping)
    }

    /// Keeps two containers apart, or no longer. Blocks.
    pub(crate) fn keep_apart(&self, one: &ContainerId, other: &ContainerId, apart: bool) -> Result<()> {
        match self.0.realised() {
            None if !apart => Ok(()),
            _ => self.0.net()?.keep_apart(one, other, apart),
        }
    }

    /// A container is gone for good.
    pub(crate) fn forget(&self, container: &ContainerId) {
        if let Some(net) = self.0.realised() {
            net.forget(container);
        }
    }

    /// A container has another name. Blocks.
    pub(crate) fn rename(&self, container: &ContainerId, name: &str) {
        if let Some(net) = self.0.realised() {
            net.rename(container, name);
        }
    }

    /// The name of a network that is meant by a name or an id. Blocks.
    pub(crate) fn name_of(&self, network: &str) -> Result<String> {
        Ok(self.0.find(network)?.spec.name)
    }

    /// An address of the host that containers' `host-gateway` stands for where they have no gateway.
    pub(crate) fn host_address() -> Option<IpAddr> {
        proxy::host_address()
    }

    /// What somebody removed by hand, and what dead owners left. Blocks.
    pub(crate) fn audit(&self) -> Result<Vec<(String, &'static str)>> {
        match self.0.realised() {
            Some(net) => net.audit(),
            None => Ok(Vec::new()),
        }
    }

    /// Takes back what dead engines had of networks of drivers that this engine was given: how many places and networks. Blocks.
    ///
    /// # Errors
    /// Those of the database, and of the directory in which it is written down.
    pub(crate) fn clear_left(&self) -> Result<usize> {
        match &self.0.parts.own {
            Some(own) => own.clear_left(&self.0.parts.store),
            None => Ok(0),
        }
    }

    /// The same for an engine that was just opened: nobody waits for it. Of an engine that was killed a moment ago the helper may be
    /// clearing up still, so it is looked again.
    #[cold]
    #[inline(never)]
    pub(crate) fn clear_left_later(&self) {
        let networks = self.clone();
        self.0.parts.spawner.background(async move {
            for pause in LOOKS {
                tokio::time::sleep(pause).await;
                let looking = networks.clone();
                match blocking(move || looking.look_for_left()).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::warn!(error = error.report(), "what dead engines had of networks is left"),
                }
            }
        });
    }

    /// Clears up; whether something of others is there.
    #[cold]
    fn look_for_left(&self) -> Result<bool> {
        self.clear_left()?;
        match &self.0.parts.own {
            Some(own) => own.sees_others(&self.0.parts.store),
            None => Ok(false),
        }
    }

    /// The engine ends: its containers are the first that go.
    pub(crate) fn will_end(&self) {
        if let Some(own) = &self.0.parts.own {
            own.will_end();
        }
    }

    /// Forgets everything of this engine's: it ends.
    pub(crate) async fn end(&self) {
        let shared = Arc::clone(&self.0);
        let ended = blocking(move || {
            if let Some(own) = &shared.parts.own
                && let Err(error) = shared.end_driven(own)
            {
                tracing::warn!(
                    error = error.report(),
                    "networks of drivers could not be removed at the end"
                );
            }
            let _making = lock(&shared.making);
            let ended = lock(&shared.net).take();
            drop(ended);
            shared.parts.store.drop_networks_of(&shared.parts.owner)
        });
        if let Err(error) = ended.await {
            tracing::warn!(
                error = error.report(),
                "records of networks could not be removed at the end"
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn realised(&self) -> Option<Arc<Net>> {
        lock(&self.net).clone()
    }

    /// The engine's network; made at the first use, and anew where the process that held it has ended.
    ///
    /// Whoever makes it waits for the zygote's answer, which the engine's thread brings: that thread, which looks whether there is a
    /// network, must find the place free meanwhile.
    fn net(&self) -> Result<Arc<Net>> {
        let _making = lock(&self.making);
        if let Some(net) = self.realised().filter(|net| net.is_alive()) {
            return Ok(net);
        }
        let net = Net::new(&self.parts.native, &self.parts.spawner)?;
        let ended = lock(&self.net).replace(Arc::clone(&net));
        drop(ended);
        Ok(net)
    }

    fn attach(&self, container: &ContainerId, request: Request) -> Result<Attachment> {
        let records = request
            .endpoints
            .into_iter()
            .map(|(name, spec)| Ok((self.find(&name)?, spec)));
        let endpoints = records.collect::<Result<Vec<_>>>()?;
        for (_, spec) in &endpoints {
            spec.mac.as_deref().map(net::parse_mac).transpose()?;
        }
        for (record, spec) in &endpoints {
            takes_options(record, spec)?;
        }
        let net = self.net()?;
        for (record, _) in &endpoints {
            self.bridge(&net, record)?;
        }
        let wanted = Wanted {
            container: container.clone(),
            name: request.name,
            endpoints,
            ports: request.ports,
            dns: request.dns,
            host_ports: request.host_ports,
        };
        let attached = net.attach(&wanted, self.parts.publish_at)?;
        for taken in &attached.endpoints {
            self.tell_of(taken, "connect", container);
        }
        Ok(attached)
    }

    /// The driver of the embedder's own that makes a network; `None` for one of ours.
    fn driven(&self, record: &NetworkRecord) -> Result<Option<Arc<Driven>>> {
        match &self.parts.own {
            Some(own) => own.network(record),
            None if own::is_ours(&record.spec.driver) => Ok(None),
            None => Err(own::unknown(&record.spec.driver, std::iter::empty())),
        }
    }

    /// Has a network made that was just recorded, or not recorded any more.
    #[cold]
    fn make_driven(&self, record: &NetworkRecord) -> Result<()> {
        let Some(driven) = self.driven(record)? else {
            return Ok(());
        };
        driven.make(record).inspect_err(|_| {
            let event = self.event(record, "destroy", None);
            let gone = self.parts.store.delete_network(&record.id, &self.parts.owner, &event);
            if let Err(error) = gone {
                tracing::warn!(
                    error = error.report(),
                    "the record of a network that was not made is there"
                );
            }
        })
    }

    /// Removes a network of a driver's.
    #[cold]
    fn remove_driven(&self, record: &NetworkRecord, driven: &Arc<Driven>) -> Result<Outcome> {
        let _turn = driven.turn()?;
        if let Some(net) = self.realised() {
            net.remove_bridge(&record.id)?;
        }
        match self.parts.store.home_network(&record.id, &self.parts.owner) {
            // Somebody was faster.
            Err(error) if error.is_not_found() => return Ok(Outcome::Already),
            home => home?,
        }
        let event = self.event(record, "destroy", None);
        driven.end(|| self.parts.store.delete_network(&record.id, &self.parts.owner, &event))
    }

    /// Has all networks of drivers removed that go with this engine.
    #[cold]
    fn end_driven(&self, own: &Own) -> Result<()> {
        if let Some(net) = self.realised() {
            net.release_driven();
        }
        for row in self.parts.store.networks()? {
            let ours = row.owner.as_ref() == Some(&self.parts.owner);
            let record: NetworkRecord = read(&row)?;
            if !ours || !own.has(&record.spec.driver) {
                continue;
            }
            if let Err(error) = self.remove(record.id.as_str()) {
                tracing::warn!(
                    network = record.spec.name,
                    error = error.report(),
                    "a network could not be removed at the end; the next engine with its driver does"
                );
            }
        }
        Ok(())
    }

    /// Has a driver's network there.
    #[cold]
    fn realise_driven(&self, net: &Net, record: &NetworkRecord, driven: &Arc<Driven>) -> Result<()> {
        if net.has(&record.id) {
            return Ok(());
        }
        let _turn = driven.turn()?;
        if net.has(&record.id) {
            return Ok(());
        }
        self.parts.store.home_network(&record.id, &self.parts.owner)?;
        driven.settle(record)?;
        net.note_driven(record, driven, true);
        Ok(())
    }

    fn bridge(&self, net: &Arc<Net>, record: &NetworkRecord) -> Result<()> {
        if let Some(driven) = self.driven(record)? {
            return self.realise_driven(net, record, &driven);
        }
        let named = record.spec.name != "bridge";
        net.bridge(record, named, || match named {
            // One engine at a time: its containers are on one bridge.
            true => self.parts.store.home_network(&record.id, &self.parts.owner),
            false => Ok(()),
        })
    }

    /// The record of a network that containers can be on: by name, id, or the beginning of an id.
    fn find(&self, name: &str) -> Result<NetworkRecord> {
        if name == "bridge" {
            return self.default();
        }
        if let Some(row) = self.parts.store.network(name)? {
            return read(&row);
        }
        let rows = self.parts.store.networks()?;
        let row = pick(&rows, name)?;
        read(row)
    }

    /// The default network.
    fn default(&self) -> Result<NetworkRecord> {
        let mut slot = lock(&self.default);
        if let Some(record) = &*slot {
            return Ok(record.clone());
        }
        let mut spec = NetworkSpec::bridge("bridge");
        let taken = self.parts.store.networks()?;
        spec.pools = ipam::plan(&spec, &self.subnets(&taken)?, &host_routes()?, [0; 5])?;
        let record = NetworkRecord {
            id: NetworkId::random(),
            created_ns: now_ns(),
            spec,
        };
        *slot = Some(record.clone());
        Ok(record)
    }

    /// The subnets of recorded networks.
    fn subnets(&self, rows: &[NetworkRow]) -> Result<Vec<Subnet>> {
        let mut known = lock(&self.subnets);
        if known.len() > rows.len() {
            // Some were removed.
            known.clear();
        }
        let mut found = Vec::new();
        for row in rows {
            if !known.contains_key(&row.id) {
                let pools = read::<Taken>(row)?.spec.pools;
                known.insert(row.id.clone(), pools.iter().filter_map(|pool| pool.subnet).collect());
            }
            found.extend(known.get(&row.id).into_iter().flatten());
        }
        Ok(found)
    }

    fn create(&self, spec: NetworkSpec) -> Result<CreatedNetwork> {
        let own = self.parts.own.as_ref();
        let mut spec = spec.checked(own.map(Arc::as_ref))?;
        let itself = own.is_some_and(|own| own.addresses_itself(&spec.driver));
        if let Some(on) = parent::read(&spec)? {
            net::check(&on)?;
        }
        let id = NetworkId::random();
        let event = Event::now(EventKind::Network, "create", id.as_str())
            .with("name", &spec.name)
            .with("type", &spec.driver);
        let routes = host_routes()?;
        let default = lock(&self.default).as_ref().map(|record| record.spec.pools.clone());
        let mut random = [0u8; 5];
        getrandom::fill(&mut random).map_err(|error| Error::internal(format!("no random numbers: {error}")))?;
        let owner = (!spec.persistent).then(|| self.parts.owner.clone());
        let name = spec.name.clone();
        // A network of another's is seen before it is made; nobody has it made beside.
        let turn = own
            .filter(|own| own.has(&spec.driver))
            .map(|own| own.turn(&id))
            .transpose()?;
        let row = self
            .parts
            .store
            .insert_network(&id, &name, owner.as_ref(), &event, |all| {
                let mut taken = self.subnets(all)?;
                taken.extend(default.iter().flatten().filter_map(|pool| pool.subnet));
                if !itself {
                    spec.pools = ipam::plan(&spec, &taken, &routes, random)?;
                }
                let record = NetworkRecord {
                    id: id.clone(),
                    created_ns: now_ns(),
                    spec,
                };
                serde_json::to_string(&record)
                    .map_err(|error| Error::internal("a network's record cannot be written").with_source(error))
            })?;
        if turn.is_some() {
            self.make_driven(&read(&row)?)?;
        }
        Ok(CreatedNetwork {
            id,
            warnings: Vec::new(),
        })
    }

    fn info(&self, record: NetworkRecord) -> NetworkInfo {
        let net = self.realised();
        let members = net.iter().flat_map(|net| net.members(&record.id));
        let containers = members.map(|(id, name, endpoint)| NetworkMember { id, name, endpoint });
        NetworkInfo {
            id: Some(record.id.clone()),
            name: record.spec.name.clone(),
            driver: record.spec.driver.clone(),
            created: Some(UNIX_EPOCH + Duration::from_nanos(record.created_ns.unsigned_abs())),
            containers: containers.collect(),
            links: Vec::new(),
            in_use: net.map(|net| net.in_use(&record.id)).unwrap_or_default(),
            spec: record.spec,
        }
    }

    fn recorded(&self) -> Result<Vec<NetworkInfo>> {
        self.parts.store.drop_dead_networks()?;
        let mut all = vec![self.info(self.default()?)];
        for row in self.parts.store.networks()? {
            all.push(self.info(read(&row)?));
        }
        Ok(all)
    }

    fn remove(&self, name: &str) -> Result<Outcome> {
        refuse_predefined(name)?;
        let record = self.find(name)?;
        if let Some(driven) = self.driven(&record)? {
            return self.remove_driven(&record, &driven);
        }
        if let Some(net) = self.realised() {
            net.remove_bridge(&record.id)?;
        }
        let event = self.event(&record, "destroy", None);
        self.parts.store.delete_network(&record.id, &self.parts.owner, &event)
    }

    fn prune(&self, filter: &Filter) -> Result<Vec<String>> {
        let filter = PruneFilter::of(filter)?;
        let unused = self
            .recorded()?
            .into_iter()
            .filter(|network| !network.is_predefined() && network.containers.is_empty());
        let mut removed = Vec::new();
        for network in unused {
            if !filter.takes(&network) {
                continue;
            }
            let id = network.id.as_ref().map_or(network.name.as_str(), NetworkId::as_str);
            match self.remove(id) {
                Ok(_) => removed.push(network.name),
                // Somebody came meanwhile, or another engine has it.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.record(&Event::now(EventKind::Network, "prune", "").with("reclaimed", "0"));
        Ok(removed)
    }

    fn event(&self, record: &NetworkRecord, action: &str, container: Option<&ContainerId>) -> Event {
        let event = Event::now(EventKind::Network, action, record.id.as_str())
            .with("name", &record.spec.name)
            .with("type", &record.spec.driver);
        match container {
            Some(container) => event.with("container", container.as_str()),
            None => event,
        }
    }

    fn tell(&self, record: &NetworkRecord, action: &str, container: Option<&ContainerId>) {
        self.record(&self.event(record, action, container));
    }

    /// Tells of a place that was taken with a container's start or left with its end.
    fn tell_of(&self, place: &Endpoint, action: &str, container: &ContainerId) {
        let net = self.realised();
        let driver = net.as_ref().and_then(|net| net.driver_of(&place.network_id));
        let event = Event::now(EventKind::Network, action, place.network_id.as_str())
            .with("name", &place.network)
            .with("type", driver.as_deref().unwrap_or("bridge"))
            .with("container", container.as_str());
        self.record(&event);
    }

    fn record(&self, event: &Event) {
        if let Err(error) = self.parts.store.record_event(event) {
            tracing::warn!(error = error.report(), "an event could not be recorded");
        }
    }
}

/// Options of a place are for drivers of the embedder's own.
fn takes_options(record: &NetworkRecord, spec: &EndpointSpec) -> Result<()> {
    let Some(name) = spec.options.keys().next().filter(|_| own::is_ours(&record.spec.driver)) else {
        return Ok(());
    };
    let what = format!(
        "the option {name} of a place in a network of the driver {}",
        record.spec.driver
    );
    Err(Error::unsupported(what, "a network of a driver that takes it").with_object(ObjectKind::Option, name.clone()))
}

fn refuse_predefined(name: &str) -> Result<()> {
    if !matches!(name, "bridge" | "host" | "none") {
        return Ok(());
    }
    let message = format!("{name} is a pre-defined network and cannot be removed");
    Err(Error::new(ErrorKind::Denied, message).with_object(ObjectKind::Network, name))
}

/// Docker's order: the whole id, the name, the beginning of an id.
fn pick<'a>(rows: &'a [NetworkRow], name: &str) -> Result<&'a NetworkRow> {
    let missing = || {
        // Docker's words.
        Error::new(ErrorKind::NotFound, format!("network {name} not found")).with_object(ObjectKind::Network, name)
    };
    let whole = rows
        .iter()
        .find(|row| row.id.as_str() == name)
        .or_else(|| rows.iter().find(|row| row.name == name));
    if let Some(row) = whole {
        return Ok(row);
    }
    if name.is_empty() {
        return Err(missing());
    }
    let mut by_prefix = rows.iter().filter(|row| row.id.as_str().starts_with(name));
    match (by_prefix.next(), by_prefix.next()) {
        (Some(row), None) => Ok(row),
        (None, _) => Err(missing()),
        (Some(_), Some(_)) => Err(Error::invalid(format!(
            "several networks have an id that begins with {name}; give more of it"
        ))
        .with_object(ObjectKind::Network, name)),
    }
}

fn read<T: serde::de::DeserializeOwned>(row: &NetworkRow) -> Result<T> {
    serde_json::from_slice(row.body.as_bytes()).map_err(|error| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the record of network {} is unreadable", row.name),
        )
        .with_object(ObjectKind::Network, row.name.clone())
        .with_source(error)
    })
}

/// The part of a record that the next network's subnet depends on: whoever makes one reads it of all that are there.
#[derive(serde::Deserialize)]
struct Taken {
    spec: Pools,
}

#[derive(serde::Deserialize)]
struct Pools {
    pools: Vec<AddressPool>,
}

/// Where routes of the host lead: no network of ours may hide what it reaches.
fn host_routes() -> Result<Vec<Subnet>> {
    let failed = |error: std::io::Error| Error::os("list the host's routes", error);
    let mut socket = host::route_socket().map_err(failed)?;
    let found = socket.dump(&route::all_routes()).map_err(failed)?;
    Ok(found.iter().filter_map(|body| route::read_route(body)).collect())
}

/// A filter of `prune`, understood before anything is removed.
struct PruneFilter<'a> {
    labels: &'a [String],
    not_labels: &'a [String],
    before: Vec<SystemTime>,
}

impl<'a> PruneFilter<'a> {
    fn of(filter: &'a Filter) -> Result<Self> {
        if let Some(key) = filter.keys().find(|key| !["label", "label!", "until"].contains(key)) {
            return Err(Error::invalid(format!("invalid filter '{key}'")).with_object(ObjectKind::Option, "filters"));
        }
        let moment = |until: &String| -> Result<SystemTime> {
            let until = crate::types::until::parse(until, now_ns())?;
            Ok(UNIX_EPOCH + Duration::from_nanos(until.unsigned_abs()))
        };
        Ok(Self {
            labels: filter.values("label"),
            not_labels: filter.values("label!"),
            before: filter.values("until").iter().map(moment).collect::<Result<_>>()?,
        })
    }

    fn takes(&self, network: &NetworkInfo) -> bool {
        let has = |wanted: &String| has_label(&network.spec.labels, wanted);
        let before = |until: &SystemTime| network.created.is_some_and(|created| created < *until);
        self.labels.iter().all(has) && !self.not_labels.iter().any(has) && self.before.iter().all(before)
    }
}

/// `name` or `name=value`.
pub(super) fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|own| own == value),
        None => labels.contains_key(wanted),
    }
}

impl LocalNetworks {
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = Arc::clone(&self.0);
        self.0
            .parts
            .spawner
            .call_blocking(async move { blocking(move || work(&shared)).await })
            .await
    }
}

#[async_trait]
impl NetworkManager for LocalNetworks {
    async fn create(&self, spec: NetworkSpec) -> Result<CreatedNetwork> {
        let (shared, undoing) = (Arc::clone(&self.0), Arc::clone(&self.0));
        let undo = move |made: CreatedNetwork| async move {
            let removed = blocking(move || undoing.remove(made.id.as_str())).await;
            if let Err(error) = removed {
                tracing::warn!(
                    error = error.report(),
                    "a network that nobody waits for could not be removed"
                );
            }
        };
        let work = |_| async move { blocking(move || shared.create(spec)).await };
        self.0.parts.spawner.tail(work, undo).await
    }

    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        let mut all = self.blocking(Shared::recorded).await?;
        all.push(self.host().await?);
        all.push(NetworkInfo::of("none", "null"));
        order::sort_by(&mut all, |a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn inspect(&self, name: &str) -> Result<NetworkInfo> {
        match name {
            "host" => self.host().await,
            "none" => Ok(NetworkInfo::of("none", "null")),
            _ => {
                let name = name.to_owned();
                self.blocking(move |shared| Ok(shared.info(shared.find(&name)?))).await
            }
        }
    }

    async fn remove(&self, name: &str) -> Result<Outcome> {
        let (shared, name) = (Arc::clone(&self.0), name.to_owned());
        let work = |_| async move { blocking(move || shared.remove(&name)).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }

    async fn prune(&self, filter: Filter) -> Result<Vec<String>> {
        let shared = Arc::clone(&self.0);
        let work = |_| async move { blocking(move || shared.prune(&filter)).await };
        self.0.parts.spawner.tail(work, |_| async {}).await
    }
}

impl LocalNetworks {
    async fn host(&self) -> Result<NetworkInfo> {
        let mut info = NetworkInfo::of("host", "host");
        info.links = self.0.parts.spawner.call(host::links()).await?;
        Ok(info)
    }
}
