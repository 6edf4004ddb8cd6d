//! The host's interfaces, asked of the kernel over netlink. Source: rtnetlink(7).

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::{Link, LinkAddress};
use crate::error::{Error, Result};
use crate::sys::netlink::Socket;

/// A socket for messages of rtnetlink in the network namespace that this process is in.
pub(super) fn route_socket() -> std::io::Result<Socket> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    Socket::new(fd)
}

/// All links of the network namespace that this process is in, by number.
pub(super) async fn links() -> Result<Vec<Link>> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| Error::os("open a netlink socket", error))?;
    let serving = tokio::spawn(connection);
    let answers = async {
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        let addresses: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
        Ok((links, addresses))
    };
    let answers: std::result::Result<_, rtnetlink::Error> = answers.await;
    serving.abort();
    let (links, addresses) = answers.map_err(|error| {
        Error::new(crate::error::ErrorKind::Os, "list links and addresses failed").with_source(error)
    })?;
    Ok(join(links, addresses))
}

fn join(links: Vec<LinkMessage>, addresses: Vec<AddressMessage>) -> Vec<Link> {
    let mut by_index: BTreeMap<u32, Link> = links
        .into_iter()
        .map(|message| (message.header.index, link(message)))
        .collect();
    for message in addresses {
        if let (Some(link), Some(address)) = (by_index.get_mut(&message.header.index), address(&message)) {
            link.addresses.push(address);
        }
    }
    by_index.into_values().collect()
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        hardware_address: Vec::new(),
        addresses: Vec::new(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) => link.hardware_address = address,
            _ => {}
        }
    }
    link
}

/// The address itself: on a point-to-point link that is the local one, and `Address` is the peer's.
fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    let address = find(true).or_else(|| find(false))?;
    Some(LinkAddress {
        address,
        prefix_len: message.header.prefix_len,
    })
}
