//! podman with a store of its own.

use std::path::Path;
use std::process::Command;

/// Limits that every host lets it set: by default it asks for more open files than a host may allow.
pub const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

/// A podman command on the store below `dir`.
pub fn podman(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("podman");
    command
        .arg("--root")
        .arg(dir.join("podman/root"))
        .arg("--runroot")
        .arg(dir.join("podman/run"));
    command.args([
        "--storage-driver",
        "overlay",
        "--cgroup-manager",
        "cgroupfs",
        "--runtime",
        "runc",
        "--events-backend",
        "none",
    ]);
    command.args(arguments);
    command
}
