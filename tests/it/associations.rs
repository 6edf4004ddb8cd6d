//! Ports of SCTP, where the kernel has it: that of the machine of `ci/vm` does.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use longshore::types::{Port, Protocol};
use longshore::{ContainerSpec, NetworkMode};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, listen, recvmsg,
    sendmsg, socket,
};

use crate::frame::{Check, Stop, skip};
use crate::support::embedder::Role;
use crate::support::patience::until;
use crate::support::world::{FORCE, World};
use crate::tests;

tests! { "associations":
    kernel_async [
        i4_a_port_of_sctp_where_the_kernel_has_it,
    ]
}

/// What this binary does as the program of a container.
pub const ROLES: &[(&str, Role)] = &[("echo-messages", |_| i32::from(echo().is_err()))];

const PORT: u16 = 7003;

fn made() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Sctp,
    )
}

/// A message, and whether it is a whole one; none at the end.
fn receive(from: &impl std::os::fd::AsRawFd) -> Result<Option<(Vec<u8>, bool)>, Stop> {
    let mut buffer = vec![0u8; 1 << 18];
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg::<()>(from.as_raw_fd(), &mut iov, None, MsgFlags::empty())?;
    let (len, whole) = (received.bytes, received.flags.contains(MsgFlags::MSG_EOR));
    buffer.truncate(len);
    Ok((len > 0).then_some((buffer, whole)))
}

fn send(to: &impl std::os::fd::AsRawFd, message: &[u8]) -> Check {
    sendmsg::<()>(
        to.as_raw_fd(),
        &[IoSlice::new(message)],
        &[],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Sends back what comes, message by message; the second association that ends is the last.
fn echo() -> Check {
    let asked = made()?;
    bind(
        asked.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT)),
    )?;
    listen(&asked, Backlog::new(8)?)?;
    let asked = TcpListener::from(asked);
    for _ in 0..2 {
        let (peer, _) = asked.accept()?;
        while let Some((message, _)) = receive(&peer)? {
            send(&peer, &message)?;
        }
    }
    Ok(())
}

/// A container with this binary and what it is linked to.
fn echoing(world: &World) -> Result<ContainerSpec, Stop> {
    let spec = world.spec().command(["/it"]).env("LONGSHORE_IT_ROLE", "echo-messages");
    let spec = spec
        .env("TMPDIR", "/tmp")
        .bind_read_only(std::env::current_exe()?, "/it");
    ["/lib", "/lib64", "/usr/lib"]
        .into_iter()
        .filter(|dir| Path::new(dir).exists())
        .try_fold(spec, |spec, dir| {
            Ok(spec.bind_read_only(std::fs::canonicalize(dir)?, dir))
        })
}

async fn i4_a_port_of_sctp_where_the_kernel_has_it() -> Check {
    let world = World::new().await?;
    let port = Port {
        protocol: Protocol::Sctp,
        ..Port::tcp(PORT)
    };
    let spec = echoing(&world)?
        .network(NetworkMode::Named("bridge".into()))
        .publish(port, 0);
    let container = world.engine.create(spec).await?;
    if let Err(Errno::EPROTONOSUPPORT) = made() {
        let refused = container.start().await.expect_err("the kernel has none");
        assert!(
            refused.is_unsupported() && refused.report().contains("modprobe sctp"),
            "{}",
            refused.report()
        );
        container.remove(FORCE).await?;
        return skip("the kernel has no SCTP (that of ci/vm has)");
    }
    container.start().await?;
    let ports = container.inspect().await?.ports;
    let published = ports
        .iter()
        .find(|port| port.host_ip.is_ipv4())
        .expect("it is published");
    let at = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, published.host_port));
    // Until the server listens, associations are ended at once.
    let mut first = None;
    until("it answers", async || {
        let asking = made()?;
        connect(asking.as_raw_fd(), &at)?;
        let answered = send(&asking, b"there?").is_ok() && matches!(receive(&asking), Ok(Some(_)));
        first = Some(asking).filter(|_| answered);
        Ok(answered)
    })
    .await?;
    let first = first.expect("it answered");
    let messages = [b"a".to_vec(), vec![b'b'; 60_000], b"cc".to_vec()];
    for message in &messages {
        send(&first, message)?;
    }
    for message in messages {
        assert!(
            receive(&first)? == Some((message, true)),
            "a message did not come back whole"
        );
    }
    drop(first);
    let second = made()?;
    connect(second.as_raw_fd(), &at)?;
    send(&second, b"again")?;
    assert_eq!(receive(&second)?, Some((b"again".to_vec(), true)));
    drop(second);
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(FORCE).await?;
    Ok(())
}
