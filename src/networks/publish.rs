//! Published ports: sockets of the host's that this process listens at, and passes on to the container. A firewall of the
//! host has its say on them as on every other socket; who connects stays visible to the container; and with the process,
//! or the container, the port is gone.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener, UdpSocket as StdUdp};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::associations;
use super::net::Net;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, Port, PortBinding, Protocol, PublishedPort};

/// How much is under way in each direction of a connection.
const BUFFER: usize = 128 * 1024;
/// How long a peer that sends datagrams is remembered after the last one.
pub(super) const FORGET: Duration = Duration::from_secs(60);
/// How many peers of one port are remembered.
pub(super) const PEERS: usize = 4096;
/// How often a pair of ports, one for IPv4 and one for IPv6, is looked for.
const TRIES: usize = 32;
const LARGEST: usize = 65535;

/// A port that is open.
#[derive(Debug)]
pub(super) struct Listening {
    published: PublishedPort,
    socket: OwnedFd,
}

impl Listening {
    pub(super) fn published(&self) -> PublishedPort {
        self.published
    }
}

/// Opens every port: what answers is known from here on, and nobody else can take it. Blocks.
///
/// # Errors
/// `Conflict` for one in use, `Denied` for one that this user may not open, `Unsupported` for SCTP where the kernel has none.
pub(super) fn listen(wanted: &[PortBinding], default: Option<IpAddr>) -> Result<Vec<Listening>> {
    let mut all = Vec::new();
    for binding in wanted {
        all.extend(one(binding, binding.host_ip.or(default))?);
    }
    Ok(all)
}

fn one(binding: &PortBinding, address: Option<IpAddr>) -> Result<Vec<Listening>> {
    let last = binding.host_port_end.max(binding.host_port);
    let mut refused = None;
    for port in binding.host_port..=last {
        match at(binding.port, address, port) {
            Ok(open) => return Ok(open),
            Err(error) => refused = Some((port, error)),
        }
    }
    let (port, error) = refused.unwrap_or((binding.host_port, Errno::EADDRINUSE));
    Err(refusal(binding, address, port, error))
}

fn refusal(binding: &PortBinding, address: Option<IpAddr>, port: u16, errno: Errno) -> Error {
    if errno == Errno::EPROTONOSUPPORT && binding.port.protocol == Protocol::Sctp {
        let needs = "SCTP in the kernel: as root, modprobe sctp";
        return Error::unsupported(format!("publishing the port {}", binding.port), needs)
            .with_object(ObjectKind::Option, "ports");
    }
    let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let place = SocketAddr::new(address, port);
    let (kind, why) = match errno {
        Errno::EADDRINUSE => (ErrorKind::Conflict, "port is already allocated"),
        Errno::EACCES => (
            ErrorKind::Denied,
            "ports below sysctl net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
        ),
        Errno::EADDRNOTAVAIL => (ErrorKind::InvalidArgument, "the host has no such address"),
        _ => return Error::os(format!("open the port {place}/{}", binding.port.protocol), errno),
    };
    // Docker's words.
    Error::new(kind, format!("Bind for {place} failed: {why}"))
        .with_object(ObjectKind::Option, "ports")
        .with_source(io::Error::from(errno))
}

fn at(port: Port, address: Option<IpAddr>, number: u16) -> std::result::Result<Vec<Listening>, Errno> {
    if let Some(address) = address {
        return Ok(vec![open(port, SocketAddr::new(address, number))?]);
    }
    let mut refused = Errno::EADDRINUSE;
    for _ in 0..TRIES {
        let first = open(port, SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), number))?;
        let same = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), first.published.host_port);
        match open(port, same) {
            Ok(second) => return Ok(vec![first, second]),
            // A host without IPv6.
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => return Ok(vec![first]),
            // Taken for IPv6 alone: where any will do, there is another.
            Err(errno) if number == 0 => refused = errno,
            Err(errno) => return Err(errno),
        }
    }
    Err(refused)
}

fn open(port: Port, address: SocketAddr) -> std::result::Result<Listening, Errno> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let kind = if port.protocol == Protocol::Udp {
        SockType::Datagram
    } else {
        SockType::Stream
    };
    let protocol = (port.protocol == Protocol::Sctp).then_some(SockProtocol::Sctp);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // Connections of an earlier container that wait for their last packet are not in the way.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        nix::sys::socket::listen(&socket, Backlog::new(4096).unwrap_or(Backlog::MAXCONN))?;
    }
    let bound: SockaddrStorage = nix::sys::socket::getsockname(socket.as_raw_fd())?;
    let number = bound.as_sockaddr_in().map(SockaddrIn::port);
    let number = number.or_else(|| bound.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port));
    Ok(Listening {
        published: PublishedPort {
            port,
            host_ip: address.ip(),
            host_port: number.unwrap_or(address.port()),
        },
        socket,
    })
}

/// Passes on what comes in, until it is dropped.
pub(super) async fn forward(net: Weak<Net>, container: ContainerId, listening: Listening) {
    let port = listening.published.port;
    let target = Target { net, container, port };
    match port.protocol {
        Protocol::Udp => datagrams(target, listening.socket).await,
        _ => connections(target, listening.socket).await,
    }
}

/// A port of a container.
#[derive(Clone)]
struct Target {
    net: Weak<Net>,
    container: ContainerId,
    port: Port,
}

impl Target {
    /// A socket of the engine's network that bears the peer's address, and where it is to connect to. Over SCTP it comes from the
    /// gateway: the kernel finds no such socket for what the container answers to another's address.
    async fn socket(&self, kind: i32, peer: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let net = self.net.upgrade().ok_or_else(gone)?;
        let address = net.address_of(&self.container).ok_or_else(gone)?;
        let sctp = self.port.protocol == Protocol::Sctp;
        let protocol = if sctp { libc::IPPROTO_SCTP } else { 0 };
        let socket = blocking(move || {
            let socket = net
                .house
                .socket(None, libc::AF_INET, kind | libc::SOCK_NONBLOCK, protocol)?;
            match sctp {
                true => associations::prepare(&socket).map_err(|error| Error::os("prepare an association", error))?,
                false => bear(&socket, peer),
            }
            Ok(socket)
        });
        let socket = socket.await.map_err(io::Error::other)?;
        Ok((socket, SocketAddr::new(address.into(), self.port.number)))
    }
}

/// Takes a peer's address, so that the container sees who it is. A peer on this host's loopback, or one of IPv6, comes from
/// the network's gateway.
fn bear(socket: &OwnedFd, peer: SocketAddr) {
    let SocketAddr::V4(peer) = peer else { return };
    if peer.ip().is_loopback() || setsockopt(socket, sockopt::IpTransparent, &true).is_err() {
        return;
    }
    if bind(socket.as_raw_fd(), &SockaddrIn::from(peer)).is_err() {
        // Its port is in use with another container: the address is what counts.
        let _ = bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(*peer.ip(), 0)));
    }
}

async fn connections(target: Target, socket: OwnedFd) {
    let Ok(listener) = TcpListener::from_std(StdListener::from(socket)) else {
        return;
    };
    let mut working = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while working.try_join_next().is_some() {}
        match accepted {
            Ok((client, peer)) => {
                let target = target.clone();
                working.spawn(async move {
                    let _ = connection(target, client, peer).await;
                });
            }
            // No descriptor left, say: others will be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(target: Target, mut client: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let connected = async {
        let (socket, address) = target.socket(libc::SOCK_STREAM, peer).await?;
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    };
    let sctp = target.port.protocol == Protocol::Sctp;
    match connected.await {
        Ok(server) if sctp => associations::join(client.into_std()?.into(), server.into_std()?.into()).await,
        Ok(mut server) => join(&mut client, &mut server).await,
        Err(error) => {
            reset(&client);
            Err(error)
        }
    }
}

/// Passes everything on in both directions; each ends for itself.
pub(super) async fn join(a: &mut TcpStream, b: &mut TcpStream) -> io::Result<()> {
    let _ = (a.set_nodelay(true), b.set_nodelay(true));
    let joined = copy_bidirectional_with_sizes(a, b, BUFFER, BUFFER).await;
    if joined.is_err() {
        reset(a);
        reset(b);
    }
    joined.map(|_| ())
}

/// Ends a connection as one that is refused: with a reset.
pub(super) fn reset(stream: &TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = setsockopt(stream, sockopt::Linger, &at_once);
}

async fn datagrams(target: Target, socket: OwnedFd) {
    let Ok(socket) = UdpSocket::from_std(StdUdp::from(socket)) else {
        return;
    };
    let socket = Arc::new(socket);
    let mut peers: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut working = JoinSet::new();
    let mut buffer = vec![0u8; LARGEST];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((len, peer)) = received else { continue };
                let packet = buffer.get(..len).unwrap_or(&[]).to_vec();
                if !peers.contains_key(&peer) {
                    if peers.len() >= PEERS {
                        continue;
                    }
                    let (sender, packets) = mpsc::channel(64);
                    let (target, socket) = (target.clone(), Arc::clone(&socket));
                    working.spawn(async move {
                        let _ = exchange(target, socket, peer, packets).await;
                        peer
                    });
                    peers.insert(peer, sender);
                }
                // A container that is too slow loses packets, as with any network.
                let _ = peers.get(&peer).map(|sender| sender.try_send(packet));
            }
            Some(ended) = working.join_next() => {
                if let Ok(peer) = ended {
                    peers.remove(&peer);
                }
            }
        }
    }
}

/// One peer's datagrams, and the answers to them, until neither has come for a while.
async fn exchange(
    target: Target,
    host: Arc<UdpSocket>,
    peer: SocketAddr,
    mut packets: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let (socket, address) = target.socket(libc::SOCK_DGRAM, peer).await?;
    let inside = UdpSocket::from_std(StdUdp::from(socket))?;
    inside.connect(address).await?;
    let mut buffer = vec![0u8; LARGEST];
    loop {
        tokio::select! {
            packet = packets.recv() => match packet {
                Some(packet) => drop(inside.send(&packet).await),
                None => return Ok(()),
            },
            received = inside.recv(&mut buffer) => match received {
                Ok(len) => drop(host.send_to(buffer.get(..len).unwrap_or(&[]), peer).await),
                // Nobody listens there yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep(FORGET) => return Ok(()),
        }
    }
}
