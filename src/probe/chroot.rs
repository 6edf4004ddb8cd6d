//! Containers without namespaces.

use super::Feature;
use crate::runtime::chroot::{Host, missing};

const NAME: &str = "chroot";

/// The runtime of that name: weak, and for whoever asks for it.
pub(super) fn feature() -> Feature {
    if !nix::unistd::geteuid().is_root() {
        return Feature::unknown(
            NAME,
            "containers without namespaces are for root alone; an ordinary user needs user namespaces",
        );
    }
    if let Err(error) = missing() {
        return Feature::no(
            NAME,
            error.report(),
            "give the container around this process the capabilities of Docker's default (CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, \
             SETUID, SETPCAP, SYS_CHROOT)",
        );
    }
    let open = Host::here().open_sides().map(|open| format!("; {open}"));
    Feature::yes(
        NAME,
        format!(
            "where namespaces are not to be had, and weak: files alone are kept apart; processes, IPC, host name, users and network are \
             shared, there is no /proc, what is left behind is ended as far as it is found{}",
            open.unwrap_or_default()
        ),
    )
}
