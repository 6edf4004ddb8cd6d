//! dockerd on a root, a socket and a bridge of its own, so that it leaves another dockerd of the host alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::containerd::Containerd;
use super::{await_daemon, daemon, end, installed, sh};

/// A bridge of its own rather than none: `--bridge none` would delete the host's `docker0`.
const BRIDGE: &str = "lsbench0";

#[derive(Debug)]
pub struct Docker {
    child: Child,
    pub socket: PathBuf,
}

impl Docker {
    pub fn start(disk: &Path, containerd: &Containerd) -> Result<Self, String> {
        installed("dockerd")?;
        installed("docker")?;
        installed("ip")?;
        let dir = disk.join("docker");
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let _ = sh(Command::new("ip").args(["link", "delete", BRIDGE]));
        sh(Command::new("ip").args(["link", "add", BRIDGE, "type", "bridge"]))?;
        let socket = dir.join("sock");
        let mut command = daemon("dockerd", &dir.join("log"))?;
        command.args(["--bridge", BRIDGE, "--fixed-cidr", "172.31.254.0/24"]);
        command.args([
            "--iptables=false",
            "--ip6tables=false",
            "--ip-masq=false",
            "--userland-proxy=false",
        ]);
        command
            .arg("--data-root")
            .arg(dir.join("root"))
            .arg("--exec-root")
            .arg(dir.join("exec"));
        command
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("--containerd")
            .arg(&containerd.socket);
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        let _ = sh(Command::new("ip").args(["addr", "add", "172.31.254.1/24", "dev", BRIDGE]));
        let _ = sh(Command::new("ip").args(["link", "set", BRIDGE, "up"]));
        let child = command.spawn().map_err(|error| error.to_string())?;
        let mut docker = Self { child, socket };
        let probe = docker.socket.clone();
        await_daemon(&mut docker.child, || {
            docker_command(&probe, &["version"])
                .output()
                .is_ok_and(|output| output.status.success())
        })
        .map_err(|error| format!("dockerd {error}"))?;
        Ok(docker)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn docker(&self, arguments: &[&str]) -> Command {
        docker_command(&self.socket, arguments)
    }
}

pub fn docker_command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command
        .arg("--host")
        .arg(format!("unix://{}", socket.display()))
        .args(arguments);
    command.env_remove("DOCKER_CONTEXT");
    command
}

impl Drop for Docker {
    fn drop(&mut self) {
        end(&mut self.child);
        let _ = sh(Command::new("ip").args(["link", "delete", BRIDGE]));
    }
}
