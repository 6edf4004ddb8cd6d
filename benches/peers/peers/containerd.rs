//! containerd on a root of its own, through `ctr`. It also serves our dockerd.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::{await_daemon, daemon, end, installed};

#[derive(Debug)]
pub struct Containerd {
    child: Child,
    pub socket: PathBuf,
}

impl Containerd {
    pub fn start(disk: &Path) -> Result<Self, String> {
        installed("containerd")?;
        installed("ctr")?;
        let dir = disk.join("containerd");
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let socket = dir.join("sock");
        let settings = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = {socket:?}\n[ttrpc]\n  address = {:?}\n",
            dir.join("root"),
            dir.join("state"),
            dir.join("ttrpc")
        );
        std::fs::write(dir.join("config.toml"), settings).map_err(|error| error.to_string())?;
        let mut command = daemon("containerd", &dir.join("log"))?;
        let child = command
            .arg("--config")
            .arg(dir.join("config.toml"))
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut containerd = Self { child, socket };
        let probe = containerd.socket.clone();
        await_daemon(&mut containerd.child, || {
            let ctr = Command::new("ctr").arg("--address").arg(&probe).arg("version").output();
            ctr.is_ok_and(|output| output.status.success())
        })
        .map_err(|error| format!("containerd {error}"))?;
        Ok(containerd)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ctr(&self, arguments: &[&str]) -> Command {
        ctr(&self.socket, arguments)
    }
}

pub fn ctr(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "bench"])
        .args(arguments);
    command
}

impl Drop for Containerd {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
