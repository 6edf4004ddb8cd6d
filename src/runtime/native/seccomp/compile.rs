use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Error, Result};

/// Compiles a profile into the bytes of an array of `struct sock_filter` in the host's byte order.
///
/// # Errors
/// `InvalidArgument` for a profile that cannot work, `Unsupported` for an action that is not implemented.
pub fn compile(_profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    Err(Error::unsupported(
        "seccomp",
        "the compiler, which follows in the next commit",
    ))
}
