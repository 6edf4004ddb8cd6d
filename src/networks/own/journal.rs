//! What is written down of networks of an embedder's drivers before the driver is asked, so that whoever comes after a kill knows
//! what to take back:
//!
//! ```text
//! networks/ID/network.json        the network
//! networks/ID/endpoints/ID.json   a container's place, and the engine whose container it is
//! networks/ID/driver/             the driver's own
//! ```
//!
//! A directory is made under another name and renamed, and renamed before it is removed: one that counts is whole. All of it blocks.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::networks::LinkAddress;
use crate::networks::driver::EndpointContext;
use crate::networks::spec::NetworkRecord;
use crate::types::{ContainerId, NetworkId, OwnerId, PublishedPort};

const NETWORK: &str = "network.json";
const ENDPOINTS: &str = "endpoints";
const DRIVER: &str = "driver";
/// How names of directories begin that are being made: the engine that makes them follows.
const UNBORN: &str = ".new.";
/// How names of directories begin that are being removed.
const GONE: &str = ".gone.";
/// More than any of the files has.
const LARGEST: u64 = 1 << 20;

/// The directory of all of them.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
}

/// A container's place as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NotedPlace {
    /// The engine whose container it is.
    pub(super) owner: OwnerId,
    id: String,
    container: ContainerId,
    container_name: String,
    interface: String,
    addresses: Vec<(IpAddr, u8)>,
    requested: Vec<IpAddr>,
    gateway: Option<Ipv4Addr>,
    gateway_v6: Option<Ipv6Addr>,
    mac: Option<[u8; 6]>,
    options: std::collections::BTreeMap<String, String>,
    ports: Vec<PublishedPort>,
}

impl NotedPlace {
    fn of(endpoint: &EndpointContext, owner: &OwnerId) -> Self {
        let of = endpoint.clone();
        Self {
            owner: owner.clone(),
            id: of.id,
            container: of.container,
            container_name: of.container_name,
            interface: of.interface,
            addresses: of.addresses.iter().map(|one| (one.address, one.prefix_len)).collect(),
            requested: of.requested,
            gateway: of.gateway,
            gateway_v6: of.gateway_v6,
            mac: of.mac,
            options: of.options,
            ports: of.ports,
        }
    }

    pub(super) fn into_endpoint(self) -> EndpointContext {
        let address = |(address, prefix_len)| LinkAddress { address, prefix_len };
        EndpointContext {
            id: self.id,
            container: self.container,
            container_name: self.container_name,
            interface: self.interface,
            addresses: self.addresses.into_iter().map(address).collect(),
            requested: self.requested,
            gateway: self.gateway,
            gateway_v6: self.gateway_v6,
            mac: self.mac,
            options: self.options,
            ports: self.ports,
        }
    }
}

fn os(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::os(step, error)
}

fn private(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(os("make a directory for a network"))
}

impl Journal {
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn of(&self, network: &NetworkId) -> PathBuf {
        self.dir.join(network.as_str())
    }

    /// The driver's own directory.
    pub(super) fn data(&self, network: &NetworkId) -> PathBuf {
        self.of(network).join(DRIVER)
    }

    /// Writes a network down, unless it is.
    pub(super) fn begin(&self, record: &NetworkRecord, maker: &OwnerId) -> Result<()> {
        let path = self.of(&record.id);
        if path.join(NETWORK).is_file() {
            return Ok(());
        }
        let unborn = self.dir.join(format!("{UNBORN}{maker}.{}", record.id));
        private(&unborn.join(ENDPOINTS))?;
        private(&unborn.join(DRIVER))?;
        write(&unborn.join(NETWORK), record)?;
        fs::rename(&unborn, &path).map_err(os("note a network"))?;
        sync(&self.dir)
    }

    /// Removes all that is written down of a network.
    pub(super) fn forget(&self, network: &NetworkId) -> Result<()> {
        let gone = self.dir.join(format!("{GONE}{network}"));
        match fs::rename(self.of(network), &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(os("forget a network"))?,
        }
        remove_tree(&gone)
    }

    /// Writes a place down.
    pub(super) fn note(&self, network: &NetworkId, endpoint: &EndpointContext, owner: &OwnerId) -> Result<()> {
        let dir = self.of(network).join(ENDPOINTS);
        let unborn = dir.join(format!("{UNBORN}{}", endpoint.id));
        write(&unborn, &NotedPlace::of(endpoint, owner))?;
        fs::rename(&unborn, dir.join(format!("{}.json", endpoint.id))).map_err(os("note a place in a network"))?;
        sync(&dir)
    }

    pub(super) fn forget_place(&self, network: &NetworkId, endpoint: &str) -> Result<()> {
        match fs::remove_file(self.of(network).join(ENDPOINTS).join(format!("{endpoint}.json"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(os("forget a place in a network")),
        }
    }

    /// All networks that are written down.
    pub(super) fn networks(&self) -> Result<Vec<NetworkId>> {
        let names = names(&self.dir)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// A network; `None` if it went meanwhile.
    pub(super) fn network(&self, id: &NetworkId) -> Result<Option<NetworkRecord>> {
        read(&self.of(id).join(NETWORK))
    }

    /// Places in a network. One that cannot be read is told of, and goes with the network.
    pub(super) fn places(&self, network: &NetworkId) -> Result<Vec<NotedPlace>> {
        let dir = self.of(network).join(ENDPOINTS);
        let mut places = Vec::new();
        for name in names(&dir)?.iter().filter(|name| !name.starts_with('.')) {
            match read::<NotedPlace>(&dir.join(name)) {
                Ok(place) => places.extend(place.filter(|place| *name == format!("{}.json", place.id))),
                Err(error) => {
                    tracing::warn!(network = %network, error = error.report(), "a place in a network is unknown")
                }
            }
        }
        Ok(places)
    }

    /// Removes what was being made by engines that are dead, and what was being removed.
    pub(super) fn tidy(&self, is_dead: impl Fn(&OwnerId) -> bool) -> Result<()> {
        for name in names(&self.dir)? {
            let unborn = name.strip_prefix(UNBORN).and_then(|rest| rest.split_once('.'));
            let dead = unborn.is_some_and(|(maker, _)| maker.parse().is_ok_and(|maker| is_dead(&maker)));
            if dead || name.starts_with(GONE) {
                remove_tree(&self.dir.join(name))?;
            }
        }
        Ok(())
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        // Somebody else is at it, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(os("remove what is left of a network")),
    }
}

/// Names in a directory; none where there is no directory.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(os("list networks that are written down"))?,
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

fn sync(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(os("write what is noted of a network to the disk"))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Error::internal("what is noted of a network cannot be written").with_source(error))?;
    let written = File::create(path).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.map_err(os("write what is noted of a network"))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(os("read what is noted of a network"))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let message = format!("{} is unreadable: remove it, if its network is gone", path.display());
        Error::new(ErrorKind::Corrupt, message)
            .with_object(ObjectKind::Network, path.display().to_string())
            .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::NetworkSpec;

    fn record() -> NetworkRecord {
        NetworkRecord {
            id: NetworkId::random(),
            created_ns: 1,
            spec: NetworkSpec::bridge("n"),
        }
    }

    fn endpoint() -> EndpointContext {
        EndpointContext {
            id: ContainerId::random().to_string(),
            container: ContainerId::random(),
            container_name: "c".into(),
            interface: "eth0".into(),
            addresses: vec![LinkAddress {
                address: [10, 0, 0, 2].into(),
                prefix_len: 24,
            }],
            requested: vec![[10, 0, 0, 2].into()],
            gateway: Some([10, 0, 0, 1].into()),
            gateway_v6: None,
            mac: Some([2, 0, 0, 0, 0, 1]),
            options: [("a".to_owned(), "b".to_owned())].into(),
            ports: vec![PublishedPort {
                port: crate::types::Port::udp(53),
                host_ip: [127, 0, 0, 1].into(),
                host_port: 5353,
            }],
        }
    }

    #[test]
    fn k8_what_is_written_down_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("networks"));
        assert_eq!(journal.networks().unwrap(), []);
        let (record, owner, place) = (record(), OwnerId::random(), endpoint());
        journal.begin(&record, &owner).unwrap();
        // Again, by another: the first stays.
        let later = NetworkRecord {
            created_ns: 2,
            ..record.clone()
        };
        journal.begin(&later, &OwnerId::random()).unwrap();
        assert_eq!(journal.network(&record.id).unwrap().unwrap(), record);
        assert!(journal.data(&record.id).is_dir());
        journal.note(&record.id, &place, &owner).unwrap();
        let places = journal.places(&record.id).unwrap();
        assert_eq!(places[0].owner, owner);
        assert_eq!(places[0].clone().into_endpoint(), place);
        journal.forget_place(&record.id, &place.id).unwrap();
        journal.forget_place(&record.id, &place.id).unwrap();
        assert!(journal.places(&record.id).unwrap().is_empty());
        journal.forget(&record.id).unwrap();
        journal.forget(&record.id).unwrap();
        assert_eq!(journal.networks().unwrap(), []);
    }

    #[test]
    fn k8_what_is_half_done_or_damaged_is_not_taken_for_whole() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().to_owned());
        let (record, owner) = (record(), OwnerId::random());
        journal.begin(&record, &owner).unwrap();
        let endpoints = dir.path().join(record.id.as_str()).join(ENDPOINTS);
        fs::write(endpoints.join(".new.x"), "{").unwrap();
        fs::write(endpoints.join("x.json"), "{").unwrap();
        let place = endpoint();
        journal.note(&record.id, &place, &owner).unwrap();
        // Under another's name.
        fs::copy(endpoints.join(format!("{}.json", place.id)), endpoints.join("y.json")).unwrap();
        assert_eq!(journal.places(&record.id).unwrap().len(), 1);
        let (dead, alive) = (OwnerId::random(), OwnerId::random());
        for name in [
            format!("{UNBORN}{dead}.1"),
            format!("{UNBORN}{alive}.2"),
            format!("{GONE}3"),
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        journal.tidy(|owner| *owner == dead).unwrap();
        let left = names(dir.path()).unwrap();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::write(dir.path().join(record.id.as_str()).join(NETWORK), "{").unwrap();
        assert_eq!(journal.network(&record.id).unwrap_err().kind(), &ErrorKind::Corrupt);
    }
}
