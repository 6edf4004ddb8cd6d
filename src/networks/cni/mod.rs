//! Networks that plugins of the Container Network Interface make: [`CniNetworks`], a [`NetworkDriver`]. Source: the CNI specification
//! 1.0.0, <https://www.cni.dev/docs/spec/>.
//!
//! Plugins are programs of the host's, which work in its network: the engine answers neither for what they make there nor for what they
//! leave. What it answers for: each ADD is followed by a DEL, with the same configuration and the result of the ADD, however the engine
//! ends; what plugins say is bounded and looked at; and one that hangs is killed.

mod kept;
mod list;
mod run;
mod said;

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::kept::Place;
use self::list::{List, Plugin};
use super::driver::{Addressing, EndpointContext, Joined, NetworkContext, NetworkDriver, NetworkSandbox};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::blocking::blocking;
use crate::types::Outcome;

/// How long the plugins of a list may take together.
const LIMIT: Duration = Duration::from_secs(30);
/// How much later the driver is given up itself.
const GRACE: Duration = Duration::from_secs(5);
/// The one option of such a network.
const CONFLIST: &str = "conflist";

/// A driver of networks that CNI plugins make. Needs root.
///
/// A network of it has the name of a network configuration list, or names it with the option `conflist`. It is made with the list as it
/// is at that moment: who changes the file changes networks that are made later. Subnets, MTU and all else of it is the list's business.
///
/// A plugin is told of the container's place by the place's own id (`CNI_CONTAINERID`), since a container may have been in the network
/// before, and by a path to its network namespace below `/proc`, which is there as long as the container runs. What a user asks for
/// reaches plugins that say that they can do it (`capabilities`): `ips`, `mac`, and `portMappings` for published ports. Where none can,
/// it is `Unsupported`. Resolvers of a result are not used: names are the engine's.
///
/// ```no_run
/// # async fn example() -> longshore::Result<()> {
/// use std::sync::Arc;
/// use longshore::Engine;
/// use longshore::networks::{CniNetworks, NetworkSpec};
/// let cni = CniNetworks::new("/etc/cni/net.d", "/usr/lib/cni");
/// let engine = Engine::builder("/var/lib/app").with_network_driver("cni", Arc::new(cni)).open().await?;
/// engine.networks().create(NetworkSpec::of_driver("cni", "web").driver_option("conflist", "mynet")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CniNetworks(Arc<Places>);

#[derive(Debug, Clone)]
struct Places {
    lists: PathBuf,
    programs: Vec<PathBuf>,
    limit: Duration,
}

impl CniNetworks {
    /// Reads lists (`*.conflist`) in one directory, and runs plugins of another; both by absolute paths. Nothing is read before the first
    /// network is made.
    pub fn new(lists: impl Into<PathBuf>, programs: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Places {
            lists: lists.into(),
            programs: vec![programs.into()],
            limit: LIMIT,
        }))
    }

    /// Looks for plugins in one more directory, behind the others.
    #[must_use]
    pub fn programs(mut self, directory: impl Into<PathBuf>) -> Self {
        Arc::make_mut(&mut self.0).programs.push(directory.into());
        self
    }

    /// How long the plugins of a list may take together, for a container that comes, goes, or is looked at. Default 30 seconds.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        Arc::make_mut(&mut self.0).limit = limit;
        self
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Places, Instant) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let places = Arc::clone(&self.0);
        blocking(move || work(&places, Instant::now() + places.limit)).await
    }
}

#[async_trait]
impl NetworkDriver for CniNetworks {
    fn addressing(&self) -> Addressing {
        Addressing::Driver
    }

    fn limit(&self) -> Duration {
        self.0.limit.saturating_add(GRACE)
    }

    fn publishes(&self, network: &NetworkContext) -> bool {
        kept::list(&network.dir).is_ok_and(|list| list.is_some_and(|list| list.can("portMappings")))
    }

    async fn create(&self, network: &NetworkContext) -> Result<Outcome> {
        let network = network.clone();
        self.work(move |places, _| places.create(&network)).await
    }

    /// Nothing of a network is there without containers; what is kept of it goes with its directory.
    async fn remove(&self, _network: &NetworkContext) -> Result<()> {
        Ok(())
    }

    async fn join(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: &NetworkSandbox,
    ) -> Result<Joined> {
        let (network, endpoint, sandbox) = (network.clone(), endpoint.clone(), sandbox.clone());
        self.work(move |places, until| places.add(&network, &endpoint, &sandbox, until))
            .await
    }

    async fn leave(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: Option<&NetworkSandbox>,
    ) -> Result<()> {
        let (network, endpoint, sandbox) = (network.clone(), endpoint.clone(), sandbox.cloned());
        self.work(move |places, until| places.delete(&network, &endpoint, sandbox.as_ref(), until))
            .await
    }

    async fn check(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: &NetworkSandbox,
    ) -> Result<()> {
        let (network, endpoint, sandbox) = (network.clone(), endpoint.clone(), sandbox.clone());
        self.work(move |places, until| places.check(&network, &endpoint, &sandbox, until))
            .await
    }
}

impl Places {
    fn create(&self, network: &NetworkContext) -> Result<Outcome> {
        if !nix::unistd::geteuid().is_root() {
            let needs = "root: CNI plugins change the host's network; an ordinary user has bridge networks";
            return Err(Error::unsupported("a network of CNI plugins", needs));
        }
        refuse_what_is_the_lists(network)?;
        if let Some(list) = kept::list(&network.dir)? {
            self.has_programs(&list)?;
            return Ok(Outcome::Already);
        }
        for path in std::iter::once(&self.lists).chain(&self.programs) {
            if !path.is_absolute() {
                let message = format!("{} is no absolute path of a directory of CNI", path.display());
                return Err(Error::invalid(message).with_object(ObjectKind::Backend, "cni"));
            }
        }
        let name = network.spec.options.get(CONFLIST).unwrap_or(&network.name);
        let files = kept::lists(&self.lists)?;
        let files = files.iter().map(|(file, text)| (file.clone(), text.as_slice()));
        let (text, list) = list::choose(files, name)?;
        self.has_programs(&list)?;
        kept::keep_list(&network.dir, text)?;
        Ok(Outcome::Done)
    }

    fn has_programs(&self, list: &List) -> Result<()> {
        list.programs()
            .into_iter()
            .try_for_each(|program| self.program(program).map(drop))
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        let mut paths = self.programs.iter().map(|dir| dir.join(name));
        paths.find(|path| path.is_file()).ok_or_else(|| {
            let needs = format!(
                "the program {name} in {} (Debian's package containernetworking-plugins)",
                self.path()
            );
            Error::unsupported(format!("the CNI plugin {name}"), needs).with_object(ObjectKind::Backend, name)
        })
    }

    /// `CNI_PATH`.
    fn path(&self) -> String {
        let all: Vec<String> = self.programs.iter().map(|dir| dir.display().to_string()).collect();
        all.join(":")
    }

    fn add(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: &NetworkSandbox,
        until: Instant,
    ) -> Result<Joined> {
        let list = kept::list(&network.dir)?.ok_or_else(|| lost(network))?;
        let call = Call {
            places: self,
            verb: "ADD",
            runtime: runtime(&list, endpoint)?,
            namespace: Some(path_of(sandbox)),
            list: &list,
            endpoint,
            until,
        };
        let place = Place::of(&network.dir, &endpoint.id);
        let mut stdin = place.lock(until)?;
        let mut previous = None;
        for plugin in &list.plugins {
            let said = call.run(plugin, previous.as_ref(), &mut stdin)?;
            previous = Some(said::result(&plugin.kind, &list, &said)?);
        }
        let result = previous.unwrap_or_default();
        place.keep(&result)?;
        let last = list.plugins.last().map_or("", |plugin| plugin.kind.as_str());
        let joined = said::joined(last, &list, &result, &endpoint.interface)?;
        gave_what_was_asked_for(endpoint, &joined)?;
        Ok(joined)
    }

    fn delete(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: Option<&NetworkSandbox>,
        until: Instant,
    ) -> Result<()> {
        let place = Place::of(&network.dir, &endpoint.id);
        if !place.is_known() {
            return Ok(());
        }
        let list = kept::list(&network.dir)?.ok_or_else(|| lost(network))?;
        let call = Call {
            places: self,
            verb: "DEL",
            runtime: runtime(&list, endpoint)?,
            namespace: sandbox.map(path_of),
            list: &list,
            endpoint,
            until,
        };
        let mut stdin = place.lock(until)?;
        let result = place.result()?;
        for plugin in list.plugins.iter().rev() {
            call.run(plugin, result.as_ref(), &mut stdin)?;
        }
        place.forget()
    }

    fn check(
        &self,
        network: &NetworkContext,
        endpoint: &EndpointContext,
        sandbox: &NetworkSandbox,
        until: Instant,
    ) -> Result<()> {
        let list = kept::list(&network.dir)?.ok_or_else(|| lost(network))?;
        if list.disable_check {
            return Ok(());
        }
        let call = Call {
            places: self,
            verb: "CHECK",
            runtime: runtime(&list, endpoint)?,
            namespace: Some(path_of(sandbox)),
            list: &list,
            endpoint,
            until,
        };
        let place = Place::of(&network.dir, &endpoint.id);
        let mut stdin = place.lock(until)?;
        let result = place.result()?.ok_or_else(|| lost(network))?;
        for plugin in &list.plugins {
            call.run(plugin, Some(&result), &mut stdin)?;
        }
        Ok(())
    }
}

/// One walk through the plugins of a list.
struct Call<'a> {
    places: &'a Places,
    verb: &'static str,
    list: &'a List,
    endpoint: &'a EndpointContext,
    runtime: Map<String, Value>,
    /// `None`: it is gone.
    namespace: Option<String>,
    until: Instant,
}

impl Call<'_> {
    /// Runs a plugin: what it says.
    fn run(&self, plugin: &Plugin, previous: Option<&Value>, stdin: &mut File) -> Result<Vec<u8>> {
        let program = self.places.program(&plugin.kind)?;
        let request = plugin.request(self.list, &self.runtime, previous).to_string();
        let answer = run::run(&program, &self.environment(), stdin, request.as_bytes(), self.until)?;
        match answer.success {
            true => Ok(answer.stdout),
            false => Err(said::failure(
                &plugin.kind,
                self.verb,
                self.list,
                &answer.stdout,
                &answer.stderr,
            )),
        }
    }

    /// Source: section 2, "Parameters".
    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("CNI_COMMAND", self.verb.to_owned()),
            ("CNI_CONTAINERID", self.endpoint.id.clone()),
            ("CNI_IFNAME", self.endpoint.interface.clone()),
            ("CNI_PATH", self.places.path()),
        ];
        if let Some(namespace) = &self.namespace {
            environment.push(("CNI_NETNS", namespace.clone()));
        }
        environment
    }
}

/// The same at ADD, CHECK and DEL, since plugins compare it: the descriptor is the container's as long as it runs.
fn path_of(sandbox: &NetworkSandbox) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), sandbox.namespace().as_raw_fd())
}

fn lost(network: &NetworkContext) -> Error {
    let message = format!(
        "what CNI plugins need to know of network {} is not in {}: remove the directory networks/{} of the root, and what the plugins made",
        network.name,
        network.dir.display(),
        network.id
    );
    Error::new(ErrorKind::Corrupt, message).with_object(ObjectKind::Network, network.name.clone())
}

/// What the list says, and nobody else.
fn refuse_what_is_the_lists(network: &NetworkContext) -> Result<()> {
    let spec = &network.spec;
    let asked = [
        ("subnet", !spec.pools.is_empty()),
        ("ipv6", spec.ipv6),
        ("internal", spec.internal),
        ("com.docker.network.driver.mtu", spec.mtu_bytes.is_some()),
        ("com.docker.network.bridge.enable_icc", !spec.between_containers),
    ];
    if let Some((option, _)) = asked.into_iter().find(|(_, asked)| *asked) {
        let what = format!("the option {option} of a network of CNI plugins");
        let needs = "a network configuration list that says so";
        return Err(Error::unsupported(what, needs).with_object(ObjectKind::Option, option));
    }
    match spec.options.keys().find(|name| *name != CONFLIST) {
        None => Ok(()),
        Some(name) => {
            let message = format!("a network of CNI plugins has no option {name}: it has {CONFLIST}");
            Err(Error::invalid(message).with_object(ObjectKind::Option, name.clone()))
        }
    }
}

/// What is known at run time, for plugins that can do something with it. Source: `CONVENTIONS.md` of the specification, "Dynamic plugin
/// specific fields".
///
/// # Errors
/// `Unsupported` for what no plugin of the list can do.
fn runtime(list: &List, endpoint: &EndpointContext) -> Result<Map<String, Value>> {
    let mut known = Map::new();
    let ports = ports(endpoint);
    let mac = endpoint.mac.map(super::parent::written);
    for (capability, what, asked, value) in [
        (
            "ips",
            "an address of one's choice",
            !endpoint.requested.is_empty(),
            json!(endpoint.requested),
        ),
        ("mac", "a hardware address of one's choice", mac.is_some(), json!(mac)),
        ("portMappings", "a published port", !ports.is_empty(), json!(ports)),
    ] {
        if !asked {
            continue;
        }
        if !list.can(capability) {
            let what = format!("{what} in the network of CNI plugins {}", list.name);
            let needs = format!("a plugin in its list that says that it has the capability {capability}");
            return Err(Error::unsupported(what, needs));
        }
        known.insert(capability.to_owned(), value);
    }
    match endpoint.options.keys().next() {
        None => Ok(known),
        Some(name) => {
            let message = format!("a place in a network of CNI plugins has no option {name}");
            Err(Error::invalid(message).with_object(ObjectKind::Option, name.clone()))
        }
    }
}

/// Published ports; one of all addresses once, and not for each family.
fn ports(endpoint: &EndpointContext) -> Vec<Value> {
    let mut all = Vec::new();
    for one in &endpoint.ports {
        let mut value = json!({
            "hostPort": one.host_port, "containerPort": one.port.number, "protocol": one.port.protocol.as_str(),
        });
        if !one.host_ip.is_unspecified() {
            value["hostIP"] = json!(one.host_ip);
        }
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

fn gave_what_was_asked_for(endpoint: &EndpointContext, joined: &Joined) -> Result<()> {
    let has = |asked: &&std::net::IpAddr| joined.addresses.iter().any(|one| one.address == **asked);
    match endpoint.requested.iter().find(|asked| !has(asked)) {
        None => Ok(()),
        Some(address) => {
            let message = format!("the CNI plugins gave another address than {address}, which was asked for");
            Err(Error::new(ErrorKind::Denied, message).with_object(ObjectKind::Option, "ip"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::networks::NetworkSpec;
    use crate::types::{ContainerId, NetworkId, Port, PublishedPort};

    fn network(dir: &Path, spec: NetworkSpec) -> NetworkContext {
        NetworkContext {
            id: NetworkId::random(),
            name: spec.name.clone(),
            spec,
            dir: dir.to_owned(),
        }
    }

    fn endpoint() -> EndpointContext {
        EndpointContext {
            id: "e".repeat(64),
            container: ContainerId::random(),
            container_name: "c".into(),
            interface: "eth0".into(),
            addresses: Vec::new(),
            requested: Vec::new(),
            gateway: None,
            gateway_v6: None,
            mac: None,
            options: Default::default(),
            ports: Vec::new(),
        }
    }

    fn list(capabilities: &str) -> List {
        let text = format!(
            r#"{{"cniVersion": "1.0.0", "name": "n", "plugins": [{{"type": "p", "capabilities": {capabilities}}}]}}"#
        );
        List::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn k8_what_is_asked_for_reaches_who_can_do_it() {
        let mut asked = endpoint();
        let able = list(r#"{"ips": true, "mac": true, "portMappings": true}"#);
        assert!(runtime(&able, &asked).unwrap().is_empty());
        asked.requested = vec![[10, 0, 0, 2].into()];
        asked.mac = Some([2, 0, 0, 0, 0, 7]);
        for host_ip in ["0.0.0.0", "::", "127.0.0.1"] {
            asked.ports.push(PublishedPort {
                port: Port::tcp(80),
                host_ip: host_ip.parse().unwrap(),
                host_port: 8080,
            });
        }
        let known = Value::Object(runtime(&able, &asked).unwrap());
        assert_eq!(
            known,
            json!({"ips": ["10.0.0.2"], "mac": "02:00:00:00:00:07", "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}]})
        );
        for left_out in ["ips", "mac", "portMappings"] {
            let others = ["ips", "mac", "portMappings"]
                .into_iter()
                .filter(|one| *one != left_out);
            let others: Map<String, Value> = others.map(|one| (one.to_owned(), json!(true))).collect();
            let unable = list(&Value::Object(others).to_string());
            let error = runtime(&unable, &asked).unwrap_err();
            assert!(
                error.is_unsupported() && error.report().contains(left_out),
                "{}",
                error.report()
            );
        }
        asked.options.insert("a".into(), "b".into());
        assert_eq!(runtime(&able, &asked).unwrap_err().kind(), &ErrorKind::InvalidArgument);
    }

    #[test]
    fn k8_what_the_list_says_is_nobody_else_s() {
        let dir = Path::new("/");
        let of = || NetworkSpec::of_driver("cni", "n");
        refuse_what_is_the_lists(&network(dir, of().driver_option(CONFLIST, "x"))).unwrap();
        for spec in [
            of().internal(true),
            of().ipv6(true),
            of().mtu_bytes(1400),
            of().between_containers(false),
            of().subnet("10.0.0.0/24".parse().unwrap()),
        ] {
            assert!(
                refuse_what_is_the_lists(&network(dir, spec))
                    .unwrap_err()
                    .is_unsupported()
            );
        }
        let error = refuse_what_is_the_lists(&network(dir, of().driver_option("parent", "x"))).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    }
}
