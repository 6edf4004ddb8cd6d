//! The suite for network drivers: [`NetworkDriver`](crate::networks::NetworkDriver)s of one's own, by way of an engine that was
//! given them, and those that every engine has. It panics with what is wrong.

use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;

use crate::containers::{ContainerSpec, ExecSpec, NetworkMode, RemoveOptions};
use crate::engine::{Container, Engine, Output};
use crate::error::{ErrorKind, Result};
use crate::networks::{NetworkInfo, NetworkSpec};
use crate::types::{Endpoint, EndpointSpec, Outcome};

/// How long what was given up may take to be gone, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// What every network driver does, with an engine of the suite's own.
pub struct Networks<'a> {
    engine: &'a Engine,
    image: &'a str,
    make: &'a (dyn Fn(&str) -> NetworkSpec + Sync),
    peers: bool,
    chosen: bool,
}

impl std::fmt::Debug for Networks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Networks").finish_non_exhaustive()
    }
}

impl<'a> Networks<'a> {
    /// Networks that `make` names the driver of, with containers of an image that has busybox's `sh`, `ip`, `ping` and `nslookup`.
    /// No other container is in the engine.
    pub fn new(engine: &'a Engine, image: &'a str, make: &'a (dyn Fn(&str) -> NetworkSpec + Sync)) -> Self {
        Self {
            engine,
            image,
            make,
            peers: true,
            chosen: true,
        }
    }

    /// Containers on such a network do not reach each other.
    #[must_use]
    pub fn without_peers(mut self) -> Self {
        self.peers = false;
        self
    }

    /// Nobody can choose the address of a container.
    #[must_use]
    pub fn without_chosen_addresses(mut self) -> Self {
        self.chosen = false;
        self
    }

    /// Runs the suite. In a tokio runtime.
    ///
    /// # Panics
    /// Where the driver does not behave.
    #[allow(clippy::missing_panics_doc)]
    pub async fn run(self) {
        self.is_made_and_removed().await;
        self.gives_places().await;
        self.takes_places_back().await;
        self.is_joined_and_left_by_one_that_runs().await;
        self.undoes_what_nobody_waits_for().await;
        let left = self.engine.audit().await.expect("audit");
        assert!(left.is_clean(), "the audit finds {left:?}");
    }

    async fn made(&self, name: &str) -> NetworkInfo {
        let spec = (self.make)(name);
        let (driver, options) = (spec.driver.clone(), spec.options.clone());
        self.engine.networks().create(spec).await.expect("create");
        let info = self.engine.networks().inspect(name).await.expect("inspect");
        assert_eq!(info.driver, driver, "the driver is told");
        for (option, value) in &options {
            assert_eq!(info.spec.options.get(option), Some(value), "its options are told");
        }
        info
    }

    async fn gone(&self, name: &str) {
        let removed = self.engine.networks().remove(name).await.expect("remove");
        assert_eq!(removed, Outcome::Done);
    }

    fn sleeper(&self, network: &str) -> ContainerSpec {
        ContainerSpec::image(self.image)
            .command(["sleep", "1000"])
            .network(NetworkMode::Named(network.to_owned()))
    }

    async fn started(&self, network: &str) -> Container {
        self.engine.run(self.sleeper(network)).await.expect("start")
    }

    async fn removed(&self, container: Container) {
        container
            .remove(RemoveOptions::force())
            .await
            .expect("remove a container");
    }

    async fn is_made_and_removed(&self) {
        let info = self.made("suite-made").await;
        assert!(info.containers.is_empty(), "nobody is on a new network");
        let twice = self.engine.networks().create((self.make)("suite-made")).await;
        assert!(twice.expect_err("a name that is taken").is_conflict());
        self.gone("suite-made").await;
        let again = self.engine.networks().remove("suite-made").await;
        assert!(again.expect_err("it is gone").is_not_found());
        // The name is free, and nothing of the first is in the way of the second.
        self.made("suite-made").await;
        self.gone("suite-made").await;
    }

    /// Each container has the link that it is told to have, with addresses of its own, and names.
    async fn gives_places(&self) {
        self.made("suite-places").await;
        let (one, other) = (self.started("suite-places").await, self.started("suite-places").await);
        let (first, second) = (place(&one, "suite-places").await, place(&other, "suite-places").await);
        assert_eq!(first.interface, "eth0");
        for (container, place) in [(&one, &first), (&other, &second)] {
            has(container, place).await;
        }
        assert_ne!(first.id, second.id);
        if first.ipv4.is_some() {
            assert_ne!(first.ipv4, second.ipv4, "each has an address of its own");
        }
        let info = self.engine.networks().inspect("suite-places").await.expect("inspect");
        assert_eq!(info.containers.len(), 2, "inspect tells who is there");
        let name = other.inspect().await.expect("inspect").name;
        if let Some((address, _)) = second.ipv4 {
            let found = says(&one, &format!("nslookup {name} 127.0.0.11")).await;
            assert!(found.contains(&address.to_string()), "{name} is at {address}: {found}");
            if self.peers {
                says(&one, &format!("ping -c 1 -W 5 {address}")).await;
            }
        }
        let busy = self.engine.networks().remove("suite-places").await;
        assert!(busy.expect_err("it is in use").is_conflict());
        let found = self.engine.audit().await.expect("audit");
        assert!(found.is_clean(), "the audit of what is in use finds {found:?}");
        self.removed(one).await;
        self.removed(other).await;
        self.gone("suite-places").await;
    }

    /// What a start took that failed, or a container had that ended, is free again.
    async fn takes_places_back(&self) {
        self.made("suite-back").await;
        let failing = self.sleeper("suite-back").command(["/no/such/program"]);
        let failed = self.engine.run(failing).await.expect_err("there is no such program");
        assert_eq!(failed.kind(), &ErrorKind::CommandNotFound, "{}", failed.report());
        let info = self.engine.networks().inspect("suite-back").await.expect("inspect");
        assert!(info.containers.is_empty(), "a start that failed left its place");
        let first = self.started("suite-back").await;
        let address = place(&first, "suite-back").await.ipv4;
        self.removed(first).await;
        if let Some((address, _)) = address.filter(|_| self.chosen) {
            let chosen = EndpointSpec {
                ipv4: Some(address),
                ..EndpointSpec::default()
            };
            let spec = || self.sleeper("suite-back").endpoint("suite-back", chosen.clone());
            let second = self
                .engine
                .run(spec())
                .await
                .expect("start with an address that is free again");
            let there = place(&second, "suite-back").await;
            assert_eq!(there.ipv4.map(|(address, _)| address), Some(address));
            has(&second, &there).await;
            let taken = self.engine.run(spec()).await.expect_err("the address is in use");
            assert!(taken.is_conflict(), "{}", taken.report());
            self.removed(second).await;
        }
        self.gone("suite-back").await;
    }

    async fn is_joined_and_left_by_one_that_runs(&self) {
        self.made("suite-first").await;
        self.made("suite-second").await;
        let container = self.started("suite-first").await;
        let (containers, id) = (self.engine.containers(), container.id().to_string());
        for interface in ["eth1", "eth2"] {
            containers
                .connect(&id, "suite-second", EndpointSpec::default())
                .await
                .expect("connect");
            let there = place(&container, "suite-second").await;
            assert_eq!(there.interface, interface);
            has(&container, &there).await;
            let twice = containers.connect(&id, "suite-second", EndpointSpec::default()).await;
            assert!(twice.expect_err("it is there").is_conflict());
            containers.disconnect(&id, "suite-second").await.expect("disconnect");
            let links = says(&container, "ls /sys/class/net").await;
            assert!(!links.contains(interface), "its link is gone: {links}");
            has(&container, &place(&container, "suite-first").await).await;
        }
        let info = self.engine.networks().inspect("suite-second").await.expect("inspect");
        assert!(info.containers.is_empty(), "it has left");
        self.removed(container).await;
        self.gone("suite-first").await;
        self.gone("suite-second").await;
    }

    /// A caller that goes away leaves nothing, and keeps nobody from asking again.
    async fn undoes_what_nobody_waits_for(&self) {
        for pause in [0, 1, 5, 20] {
            let mut call = Box::pin(self.engine.networks().create((self.make)("suite-dropped")));
            match poll!(call.as_mut()) {
                Poll::Pending => tokio::time::sleep(Duration::from_millis(pause)).await,
                // Too quick to be given up.
                Poll::Ready(made) => {
                    made.expect("create");
                    self.gone("suite-dropped").await;
                }
            }
            drop(call);
            self.made_again("suite-dropped").await;
            self.gone("suite-dropped").await;
        }
    }

    /// The name is free, once what had it is undone.
    async fn made_again(&self, name: &str) {
        let mut refused = String::new();
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            match self.engine.networks().create((self.make)(name)).await {
                Err(error) if error.is_conflict() => refused = error.report(),
                made => {
                    made.expect("create after one that was given up");
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("a network is there that nobody waited for: {refused}");
    }
}

/// What `none` is: loopback, and nothing else.
///
/// # Panics
/// Where it is not.
#[allow(clippy::missing_panics_doc)]
pub async fn none(engine: &Engine, image: &str) {
    let spec = ContainerSpec::image(image)
        .command(["sleep", "1000"])
        .network(NetworkMode::None);
    let container = engine.run(spec).await.expect("start");
    assert_eq!(says(&container, "ls /sys/class/net").await, "lo");
    assert!(container.inspect().await.expect("inspect").endpoints.is_empty());
    container
        .remove(RemoveOptions::force())
        .await
        .expect("remove a container");
}

async fn place(container: &Container, network: &str) -> Endpoint {
    let info = container.inspect().await.expect("inspect");
    let mut places = info.endpoints.into_iter();
    places
        .find(|place| place.network == network)
        .expect("a place in the network")
}

/// The container has what is told of its place.
async fn has(container: &Container, place: &Endpoint) {
    let link = &place.interface;
    let mac = says(container, &format!("cat /sys/class/net/{link}/address")).await;
    assert_eq!(mac, place.mac, "the hardware address is told");
    let shown = says(container, &format!("ip -o addr show dev {link}")).await;
    let ipv4 = place.ipv4.map(|(address, prefix)| (IpAddr::V4(address), prefix));
    let ipv6 = place.ipv6.map(|(address, prefix)| (IpAddr::V6(address), prefix));
    for (address, prefix) in ipv4.into_iter().chain(ipv6) {
        assert!(
            shown.contains(&format!(" {address}/{prefix} ")),
            "{address}/{prefix} in {shown}"
        );
    }
    let up = says(container, &format!("ip link show dev {link}")).await;
    assert!(up.contains("UP"), "the link is up: {up}");
}

async fn says(container: &Container, script: &str) -> String {
    let output = run(container, script).await.expect("a command");
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

async fn run(container: &Container, script: &str) -> Result<Output> {
    container.exec(ExecSpec::new(["sh", "-c", script])).output().await
}
