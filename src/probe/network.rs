//! Firewall rules without a program.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Feature, module};

const NAME: &str = "nftables";

const REMEDY: &str = "as root, `modprobe nf_tables`, or a kernel with CONFIG_NF_TABLES";

pub(super) fn features() -> Vec<Feature> {
    vec![nftables()]
}

fn nftables() -> Feature {
    match generation() {
        Ok(()) => Feature::yes(NAME, "the kernel answers"),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => by_files(),
        Err(error) => Feature::no(NAME, error.to_string(), REMEDY),
    }
}

/// What an ordinary user can see: only the owner of the network namespace may ask.
fn by_files() -> Feature {
    if std::path::Path::new("/sys/module/nf_tables").exists() {
        return Feature::yes(NAME, "the module is loaded");
    }
    match module("nf_tables") {
        Some(true) => Feature::no(NAME, "a module that is not loaded", REMEDY),
        Some(false) => Feature::no(NAME, "the kernel lacks it", REMEDY),
        None => Feature::unknown(NAME, "only root may ask, and there is no list of modules"),
    }
}

/// Asks for the number of the rule set's generation (`NFT_MSG_GETGEN`), which every nf_tables answers.
fn generation() -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(
        &socket,
        ReceiveTimeout,
        &TimeVal::milliseconds(Duration::from_millis(500).as_millis() as i64),
    )?;
    sendto(
        socket.as_raw_fd(),
        &request(),
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut answer = [0u8; 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match error_of(&answer[..length]) {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno).into()),
    }
}

/// `struct nlmsghdr` and `struct nfgenmsg`.
fn request() -> [u8; 20] {
    const LENGTH: u32 = 20;
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    const NFT_MSG_GETGEN: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    let mut message = [0u8; LENGTH as usize];
    message[0..4].copy_from_slice(&LENGTH.to_ne_bytes());
    message[4..6].copy_from_slice(&(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN).to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message
}

/// The errno of an `NLMSG_ERROR`, 0 of anything else that is whole.
fn error_of(answer: &[u8]) -> i32 {
    const NLMSG_ERROR: u16 = 2;
    let Some(head) = answer.get(..20) else {
        return libc::EPROTO;
    };
    if u16::from_ne_bytes([head[4], head[5]]) != NLMSG_ERROR {
        return 0;
    }
    i32::from_ne_bytes([head[16], head[17], head[18], head[19]]).saturating_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let mut answer = [0u8; 36];
        assert_eq!(error_of(&answer), 0);
        answer[4] = 2;
        answer[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(
            error_of(&answer),
            if cfg!(target_endian = "little") { libc::EPERM } else { 0 }
        );
        assert_eq!(error_of(&answer[..7]), libc::EPROTO);
    }
}
