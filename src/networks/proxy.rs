//! The way out of the engine's network: what containers send elsewhere over TCP and UDP, by IPv4 and IPv6, arrives here, with its addresses as
//! they are, and goes on through sockets of the host's, as this process's own traffic does. So a container reaches what its
//! engine's process reaches, as root and as an ordinary user, and no route, rule or parameter of the host is changed for it.
//! Source: the kernel's `Documentation/networking/tproxy.rst`.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, bind, recvmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::net::{Destination, Net};
use super::publish::{FORGET, PEERS, join, reset};
use super::room::Room;
use crate::sys::blocking::blocking;
use crate::sys::poll;

/// How long a connection may take to come about. The container's own is there by then, so that a program which would go by IPv4 waits: many
/// hosts have a way out by IPv6 that leads nowhere.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_V6: Duration = Duration::from_secs(10);
const LARGEST: usize = 65535;

/// Where the host takes a packet for it; `None`: nowhere.
fn translated(net: &Weak<Net>, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
    let net = net.upgrade()?;
    match net.destination(from.ip(), to.ip(), to.port()) {
        Destination::Nowhere => None,
        Destination::Elsewhere => Some(to),
        Destination::HostLoopback => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), to.port())),
        Destination::Host => Some(SocketAddr::new(host_address()?, to.port())),
    }
}

/// An address of the host that is not loopback: that with which it would go elsewhere. No packet is sent for it.
pub(super) fn host_address() -> Option<IpAddr> {
    let socket = StdUdp::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of documentation (RFC 5737): it is nobody's.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// Whether the host's network leads elsewhere by IPv6. No packet is sent for it.
pub(super) fn leads_out_by_ipv6() -> bool {
    // An address of documentation (RFC 3849): it is nobody's.
    let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let socket = StdUdp::bind((Ipv6Addr::UNSPECIFIED, 0));
    socket.is_ok_and(|socket| socket.connect((elsewhere, 9)).is_ok())
}

/// Connections, until it is dropped.
pub(super) async fn tcp(net: Weak<Net>, room: Arc<Room>, socket: OwnedFd) {
    let Ok(listener) = TcpListener::from_std(StdListener::from(socket)) else {
        return;
    };
    let mut working = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while working.try_join_next().is_some() {}
        match accepted {
            Ok((client, peer)) => match room.take(peer.ip()) {
                Some(seat) => {
                    let net = net.clone();
                    working.spawn(async move {
                        let _ = connection(net, client, peer).await;
                        drop(seat);
                    });
                }
                None => reset(&client),
            },
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(net: Weak<Net>, mut client: TcpStream, peer: SocketAddr) -> io::Result<()> {
    // Its own address is the one that the container meant.
    let meant = client.local_addr()?;
    let connected = match translated(&net, peer, meant) {
        Some(to) => {
            let patience = if to.is_ipv6() { PATIENCE_V6 } else { PATIENCE };
            tokio::time::timeout(patience, TcpStream::connect(to)).await
        }
        None => Ok(Err(io::ErrorKind::NetworkUnreachable.into())),
    };
    drop(net);
    match connected {
        Ok(Ok(mut server)) => join(&mut client, &mut server).await,
        _ => {
            reset(&client);
            Ok(())
        }
    }
}

type Flow = (SocketAddr, SocketAddr);

/// Datagrams, until it is dropped.
pub(super) async fn udp(net: Weak<Net>, room: Arc<Room>, socket: OwnedFd) {
    let Ok(socket) = poll::watch(socket, Interest::READABLE) else {
        return;
    };
    let mut flows: HashMap<Flow, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut working = JoinSet::new();
    let mut buffer = vec![0u8; LARGEST];
    loop {
        tokio::select! {
            received = receive(&socket, &mut buffer) => {
                let Some((len, from, to)) = received else { continue };
                let packet = buffer.get(..len).unwrap_or(&[]).to_vec();
                let flow = (from, to);
                if !flows.contains_key(&flow) {
                    let Some(translated) = translated(&net, from, to).filter(|_| flows.len() < PEERS) else {
                        continue;
                    };
                    let Some(seat) = room.take(from.ip()) else { continue };
                    let (sender, packets) = mpsc::channel(64);
                    let net = net.clone();
                    working.spawn(async move {
                        let _ = exchange(net, flow, translated, packets).await;
                        drop(seat);
                        flow
                    });
                    flows.insert(flow, sender);
                }
                let _ = flows.get(&flow).map(|sender| sender.try_send(packet));
            }
            Some(ended) = working.join_next() => {
                if let Ok(flow) = ended {
                    flows.remove(&flow);
                }
            }
        }
    }
}

/// A datagram, from whom, and whom it is meant for.
async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Option<(usize, SocketAddr, SocketAddr)> {
    let mut ready = socket.readable().await.ok()?;
    let mut iov = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(nix::libc::sockaddr_in6);
    let received = recvmsg::<SockaddrStorage>(
        socket.get_ref().as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    );
    let received = match received {
        Err(nix::errno::Errno::EAGAIN) => {
            ready.clear_ready();
            return None;
        }
        received => received.ok()?,
    };
    let from = plain(&received.address?)?;
    let meant = received.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4OrigDstAddr(address) => Some(SocketAddr::V4(SockaddrIn::from(address).into())),
        ControlMessageOwned::Ipv6OrigDstAddr(address) => Some(SocketAddr::V6(SockaddrIn6::from(address).into())),
        _ => None,
    })?;
    Some((received.bytes, from, meant))
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = address
        .as_sockaddr_in()
        .map(|address| SocketAddr::V4((*address).into()));
    ipv4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|address| SocketAddr::V6((*address).into()))
    })
}

/// What one container's socket exchanges with one peer, until neither has sent for a while.
async fn exchange(
    net: Weak<Net>,
    (from, meant): Flow,
    to: SocketAddr,
    mut packets: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let outside = match to {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?,
    };
    outside.connect(to).await?;
    let back = in_the_name_of(net, meant).await?;
    back.connect(from).await?;
    let mut buffer = vec![0u8; LARGEST];
    let mut more = vec![0u8; LARGEST];
    loop {
        tokio::select! {
            packet = packets.recv() => match packet {
                Some(packet) => drop(outside.send(&packet).await),
                None => return Ok(()),
            },
            received = outside.recv(&mut buffer) => match received {
                Ok(len) => drop(back.send(buffer.get(..len).unwrap_or(&[])).await),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            },
            // Once there is a socket with the peer's address, what is meant for the peer arrives there.
            received = back.recv(&mut more) => match received {
                Ok(len) => drop(outside.send(more.get(..len).unwrap_or(&[])).await),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep(FORGET) => return Ok(()),
        }
    }
}

/// A socket of the engine's network with another's address: answers come from whom the container asked.
async fn in_the_name_of(net: Weak<Net>, meant: SocketAddr) -> io::Result<UdpSocket> {
    let net = net.upgrade().ok_or(io::ErrorKind::NotConnected)?;
    let family = if meant.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let made = blocking(move || {
        let step = |errno: nix::errno::Errno| crate::error::Error::os("answer in the name of a peer", errno);
        let socket = net
            .house
            .socket(None, family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0)?;
        setsockopt(&socket, sockopt::IpTransparent, &true).map_err(step)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true).map_err(step)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(meant)).map_err(step)?;
        Ok(socket)
    });
    UdpSocket::from_std(StdUdp::from(made.await.map_err(io::Error::other)?))
}
