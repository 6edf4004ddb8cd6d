//! What loads networks, the same for all contestants: this program in a role, which enters a network namespace and serves,
//! sends, connects and asks there with plain sockets. What differs between contestants is their network alone.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::measure::timed;
use crate::worker::Deed;

/// The port of the container at which it serves.
pub const PORT: u16 = 5201;
/// How many connect at once, and how many answer.
const CONNECTING: usize = 4;
/// Nothing here takes so long; whoever waits longer waits for nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// When a question over UDP is asked again, and how often.
const AGAIN: Duration = Duration::from_millis(500);
const QUESTIONS: usize = 5;
/// Where containers have their resolver, with Docker as with us.
const RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// What is sent and received at once.
const PIECE: usize = 128 << 10;

/// The first byte of a connection says what comes: bytes to the end, which are then acknowledged, or one to be answered.
const BULK: u8 = b'b';
const GREETING: u8 = b'g';

/// Enters a network namespace for good.
pub fn role(namespace: &Path) -> Deed {
    let entered = enter(namespace);
    Box::new(move |line| {
        entered.as_ref().map_err(ToString::to_string)?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["serve"] => timed(serve),
            ["send", to, bytes] => {
                let (to, bytes) = (parsed(to)?, parsed(bytes)?);
                timed(|| send(to, bytes))
            }
            ["connect", to, count] => {
                let (to, count) = (parsed(to)?, parsed(count)?);
                timed(|| at_once(CONNECTING, count, || greet(to)))
            }
            ["ask", name, clients, count] => {
                let (clients, count): (usize, usize) = (parsed(clients)?, parsed(count)?);
                timed(|| ask(name, clients, count))
            }
            _ => Err(format!("no such deed: {line}")),
        }
    })
}

fn enter(namespace: &Path) -> Result<()> {
    let namespace = File::open(namespace)?;
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

fn parsed<T: std::str::FromStr>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} makes no sense here"))
}

/// Answers until the process ends, from before it returns.
fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    for _ in 0..CONNECTING {
        let listener = listener.try_clone()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream);
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    patient(&stream)?;
    let mut piece = vec![0; PIECE];
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind[0] == BULK {
        while stream.read(&mut piece)? > 0 {}
    }
    stream.write_all(&kind)
}

fn patient(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn connected(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    patient(&stream)?;
    Ok(stream)
}

/// So many bytes on one connection, up to the word that all of them have arrived.
fn send(to: SocketAddr, bytes: usize) -> Result<()> {
    let mut stream = connected(to)?;
    let piece = vec![BULK; PIECE];
    let mut left = bytes;
    while left > 0 {
        left -= stream.write(&piece[..left.min(PIECE)])?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    acknowledged(&mut stream, BULK)
}

/// A connection, a byte there and back, and its end: who listens may not be who serves.
fn greet(to: SocketAddr) -> Result<()> {
    let mut stream = connected(to)?;
    stream.write_all(&[GREETING])?;
    acknowledged(&mut stream, GREETING)
}

fn acknowledged(stream: &mut TcpStream, word: u8) -> Result<()> {
    let mut said = [0];
    stream.read_exact(&mut said)?;
    match said[0] == word {
        true => Ok(()),
        false => Err(Error::from(ErrorKind::InvalidData)),
    }
}

/// So many deeds in all, by so many threads.
fn at_once(threads: usize, count: usize, deed: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = || (0..count / threads).try_for_each(|_| deed());
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .try_for_each(|handle| handle.join().expect("no panic"))
    })
}

/// So many questions for the address of a name, by so many clients that ask one after the other.
fn ask(name: &str, clients: usize, count: usize) -> Result<()> {
    let question = question(name);
    at_once(clients, clients, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(RESOLVER)?;
        socket.set_read_timeout(Some(AGAIN))?;
        (0..count / clients).try_for_each(|number| one_question(&socket, &question, number as u16))
    })
}

fn one_question(socket: &UdpSocket, question: &[u8], number: u16) -> Result<()> {
    let packet = [&number.to_be_bytes()[..], question].concat();
    let mut answer = [0; 1500];
    for _ in 0..QUESTIONS {
        socket.send(&packet)?;
        while let Ok(len) = socket.recv(&mut answer) {
            if answer[..2] == packet[..2] {
                return check(&answer[..len]);
            }
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// A question of RFC 1035 without its number: recursion desired, one question, class IN, type A.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// An answer of RFC 1035 without an error and with a record.
fn check(answer: &[u8]) -> Result<()> {
    let good = answer.len() > 12 && answer[2] & 0x80 != 0 && answer[3] & 0x0f == 0 && answer[6..8] != [0, 0];
    match good {
        true => Ok(()),
        false => Err(Error::other("the resolver does not know the name")),
    }
}
