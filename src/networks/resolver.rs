//! The resolver of a container: its sockets are in the container's namespace, and this process answers. Names of containers
//! come from the engine's networks; everything else is asked of the host's resolvers, from the host's network.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdp};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::dns::{self, Code, Question, Read};
use super::net::Net;
use super::room::Seat;
use crate::types::ContainerId;

/// How long another resolver may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many questions of one container are under way at once.
const AT_ONCE: usize = 256;
/// Largest message over TCP.
const LARGEST: usize = 65535;
/// How long a client may keep a connection open without a word.
const IDLE: Duration = Duration::from_secs(10);

/// Answers the questions of one container.
pub(super) struct Server {
    net: Weak<Net>,
    container: ContainerId,
    upstream: Vec<SocketAddr>,
    turn: AtomicUsize,
    under_way: Arc<Semaphore>,
}

impl Server {
    pub(super) fn new(net: Weak<Net>, container: ContainerId, dns: Vec<IpAddr>) -> Self {
        let upstream = if dns.is_empty() { of_host() } else { dns };
        Self {
            net,
            container,
            upstream: upstream
                .into_iter()
                .map(|address| SocketAddr::new(address, 53))
                .collect(),
            turn: AtomicUsize::new(0),
            under_way: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The answer to a packet; none to what deserves none.
    async fn answer(&self, packet: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let question = match dns::read(packet) {
            Read::Question(question) => question,
            Read::Refuse(answer) => return Some(answer),
            Read::Ignore => return None,
        };
        let (known, leads_out) = {
            let net = self.net.upgrade()?;
            (self.known(&net, &question, tcp), net.leads_out(&self.container))
        };
        if let Some(answer) = known {
            return Some(answer);
        }
        if !leads_out {
            // Nobody else is there to have it.
            return Some(question.with_code(Code::NoSuchName));
        }
        let asked = match self.seat() {
            Some(_seat) => self.ask(&question, packet, tcp).await,
            None => None,
        };
        Some(asked.unwrap_or_else(|| question.with_code(Code::ServerFailure)))
    }

    /// A place for a descriptor of this process.
    fn seat(&self) -> Option<Seat> {
        self.net.upgrade()?.room_for(&self.container)
    }

    /// What the engine's networks know.
    fn known(&self, net: &Net, question: &Question, tcp: bool) -> Option<Vec<u8>> {
        if !question.is_plain() {
            return None;
        }
        if let Some(address) = question.reverse() {
            return net.name_of(&self.container, address).map(|name| question.named(&name));
        }
        let mut addresses = net.look_up(&self.container, &question.name)?;
        if !addresses.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len();
            addresses.rotate_left(turn);
        }
        Some(question.addresses(&addresses, if tcp { LARGEST } else { dns::UDP }))
    }

    /// Asks others, one after another.
    async fn ask(&self, question: &Question, packet: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for server in &self.upstream {
            let asking = async {
                match tcp {
                    true => over_tcp(*server, question, packet).await,
                    false => over_udp(*server, question, packet).await,
                }
            };
            if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asking).await {
                return Some(answer);
            }
        }
        None
    }
}

/// With a number of our own: whoever cannot see the question cannot guess the answer's number and port.
fn renumbered(packet: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut id = [0u8; 2];
    getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
    let mut question = packet.to_vec();
    if let Some(place) = question.get_mut(..2) {
        place.copy_from_slice(&id);
    }
    Ok((u16::from_be_bytes(id), question))
}

fn with_number_of(question: &Question, mut answer: Vec<u8>) -> Vec<u8> {
    if let Some(place) = answer.get_mut(..2) {
        place.copy_from_slice(&question.id.to_be_bytes());
    }
    answer
}

async fn over_udp(server: SocketAddr, question: &Question, packet: &[u8]) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).await?;
    // From then on nothing of anybody else's arrives.
    socket.connect(server).await?;
    let (id, asked) = renumbered(packet)?;
    socket.send(&asked).await?;
    let mut buffer = vec![0u8; LARGEST];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..len).unwrap_or(&[]);
        if question.is_answered_by(id, answer) {
            return Ok(with_number_of(question, answer.to_vec()));
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (id, asked) = renumbered(packet)?;
    write(&mut stream, &asked).await?;
    let answer = read(&mut stream).await?;
    match question.is_answered_by(id, &answer) {
        true => Ok(with_number_of(question, answer)),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0u8; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let whole = [&len.to_be_bytes()[..], message].concat();
    stream.write_all(&whole).await
}

/// Serves datagrams until it is dropped.
pub(super) async fn udp(server: Arc<Server>, socket: OwnedFd) {
    let Ok(socket) = UdpSocket::from_std(StdUdp::from(socket)) else {
        return;
    };
    let socket = Arc::new(socket);
    let mut working = JoinSet::new();
    let mut buffer = vec![0u8; LARGEST];
    loop {
        let received = socket.recv_from(&mut buffer).await;
        while working.try_join_next().is_some() {}
        let (len, client) = match received {
            Ok(received) => received,
            // A client that is gone: the next one is not.
            Err(_) => continue,
        };
        let packet = buffer.get(..len).unwrap_or(&[]).to_vec();
        let Ok(permit) = Arc::clone(&server.under_way).try_acquire_owned() else {
            continue;
        };
        let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
        working.spawn(async move {
            let _permit = permit;
            if let Some(answer) = server.answer(&packet, false).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

/// Serves connections until it is dropped.
pub(super) async fn tcp(server: Arc<Server>, socket: OwnedFd) {
    let Ok(listener) = TcpListener::from_std(socket.into()) else {
        return;
    };
    let mut working = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while working.try_join_next().is_some() {}
        let Ok((mut stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let permit = Arc::clone(&server.under_way).try_acquire_owned();
        let (Ok(permit), Some(seat)) = (permit, server.seat()) else {
            continue;
        };
        let server = Arc::clone(&server);
        working.spawn(async move {
            let _held = (permit, seat);
            while let Ok(Ok(packet)) = tokio::time::timeout(IDLE, read(&mut stream)).await {
                let Some(answer) = server.answer(&packet, true).await else {
                    return;
                };
                if write(&mut stream, &answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The resolvers of the host. Source: resolv.conf(5).
fn of_host() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())??
            .parse()
            .ok()
    });
    servers.take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn i3_a_forged_answer_is_not_believed() {
        let packet = [
            &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
            b"\x03web\x07example\0\0\x01\0\x01",
        ]
        .concat();
        let Read::Question(question) = dns::read(&packet) else {
            panic!("it is a question");
        };
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0u8; 512];
            let (len, client) = server.recv_from(&mut buffer).await.unwrap();
            let asked = &buffer[..len];
            let answer = |last: u8, change: fn(&mut Vec<u8>)| {
                let mut answer = asked.to_vec();
                (answer[2], answer[7]) = (0x81, 1);
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, last]);
                change(&mut answer);
                answer
            };
            // From another port; with another number; to another question; a question itself; a piece.
            stranger.send_to(&answer(1, |_| ()), client).await.unwrap();
            for forged in [
                answer(2, |answer| answer[0] ^= 1),
                answer(3, |answer| answer[13] = b'x'),
                answer(4, |answer| answer[2] &= 0x7f),
                asked[..5].to_vec(),
                answer(5, |_| ()),
            ] {
                server.send_to(&forged, client).await.unwrap();
            }
        });
        let got = over_udp(at, &question, &packet).await.unwrap();
        assert_eq!(got[..2], [0x12, 0x34]);
        assert!(got.ends_with(&[10, 0, 0, 5]), "{got:?}");
    }
}
