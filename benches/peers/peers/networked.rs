//! A dockerd with all of its networking, in a network namespace of its own: its bridges, rules and parameters are not the
//! host's. What is its host's loopback is that namespace's. It runs containerd itself.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::docker::docker_command;
use super::{await_daemon, daemon, end, installed, sh};
use crate::host::stop;
use crate::measure::timed;
use crate::networks::load::PORT;
use crate::networks::{CLIENT, Place, SERVED, SERVER};
use crate::support::image::Layout;
use crate::support::wire;

/// The name under which it has busybox: it reaches no registry.
pub const IMAGE: &str = "busybox:bench";
/// Nothing that is asked of it takes so long.
const PATIENCE: Duration = Duration::from_secs(300);
/// Room for more than the thirty networks of the default.
const POOL: &str = "base=10.192.0.0/11,size=24";

#[derive(Debug)]
pub struct Networked {
    child: Child,
    pub socket: PathBuf,
}

impl Networked {
    pub fn start(disk: &Path, busybox: &Layout) -> Result<Self, String> {
        for program in ["dockerd", "docker", "containerd", "docker-proxy", "iptables", "ip"] {
            installed(program)?;
        }
        let dir = disk.join("networked");
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let socket = dir.join("sock");
        let mut command = daemon("unshare", &dir.join("log"))?;
        // Its mounts end with it. A signal for dockerd is for this process: each program becomes the next.
        let script = "ip link set lo up && exec dockerd \"$@\"";
        command.args(["--net", "--mount", "sh", "-c", script, "dockerd"]);
        command.arg("--data-root").arg(dir.join("root"));
        command.arg("--exec-root").arg(dir.join("exec"));
        command.arg("--pidfile").arg(dir.join("pid"));
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        command.args(["--default-address-pool", POOL]);
        let child = command.spawn().map_err(|error| error.to_string())?;
        let mut networked = Self { child, socket };
        let probe = networked.socket.clone();
        await_daemon(&mut networked.child, || {
            sh(&mut docker_command(&probe, &["version"])).is_ok()
        })
        .map_err(|error| format!("dockerd in a network namespace {error}"))?;
        networked.import(&dir, busybox)?;
        sh(&mut networked.docker(&["network", "create", SERVED]))?;
        Ok(networked)
    }

    fn import(&self, dir: &Path, busybox: &Layout) -> Result<(), String> {
        let layer = busybox.blob(&busybox.layers[0].0).map_err(|error| error.to_string())?;
        let file = dir.join("busybox.tar.gz");
        std::fs::write(&file, layer).map_err(|error| error.to_string())?;
        sh(&mut self.docker(&["import", &file.display().to_string(), IMAGE]))
    }

    /// The process, which is in the network that it takes for the host's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        docker_command(&self.socket, arguments)
    }

    /// A container that lives on a network of users', with a published port, in the place of one of that name.
    pub fn served(&self, name: &str) -> Result<Place, String> {
        let _ = sh(&mut self.docker(&["rm", "--force", name]));
        let publish = format!("127.0.0.1::{PORT}");
        let run = [
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            SERVED,
            "--publish",
            &publish,
        ];
        sh(&mut self.docker(&[&run[..], &[IMAGE, "sleep", "100000"]].concat()))?;
        let asked = wire::ask(&self.socket, "GET", &format!("/containers/{name}/json"), "").map_err(stop)?;
        let told = asked.json().map_err(stop)?;
        let networks = &told["NetworkSettings"];
        let place = || {
            Some(Place {
                pid: u32::try_from(told["State"]["Pid"].as_u64()?).ok()?,
                inside: format!("{}:{PORT}", networks["Networks"][SERVED]["IPAddress"].as_str()?)
                    .parse()
                    .ok()?,
                published: format!(
                    "127.0.0.1:{}",
                    networks["Ports"][format!("{PORT}/tcp")][0]["HostPort"].as_str()?
                )
                .parse()
                .ok()?,
            })
        };
        place().ok_or_else(|| format!("docker does not say where {name} is"))
    }

    /// What is asked of it over the API: a client's process for each deed would take as long as dockerd.
    pub fn api(&self) -> Api {
        Api {
            socket: self.socket.clone(),
        }
    }
}

/// dockerd without its client.
#[derive(Clone)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    /// How long one of so many networks takes, made and removed.
    pub fn make_and_remove(&self, count: usize) -> Result<Duration, String> {
        let all = timed(|| {
            for number in 0..count {
                let body = format!(r#"{{"Name":"many-{number}","CheckDuplicate":true}}"#);
                self.ask("POST", "/networks/create", &body, 201)?;
            }
            (0..count).try_for_each(|number| {
                self.ask("DELETE", &format!("/networks/many-{number}"), "", 204)
                    .map(drop)
            })
        });
        Ok(all? / count.max(1) as u32)
    }

    /// A container with `true`, from its making to its removal. What it is to have is a part of `HostConfig`.
    pub fn run(&self, host: &str) -> Result<(), String> {
        let body =
            format!(r#"{{"Image":"{IMAGE}","Cmd":["true"],"ExposedPorts":{{"80/tcp":{{}}}},"HostConfig":{{{host}}}}}"#);
        let made = self
            .ask("POST", "/containers/create", &body, 201)?
            .json()
            .map_err(stop)?;
        let id = made["Id"].as_str().ok_or("no id")?;
        self.ask("POST", &format!("/containers/{id}/start"), "", 204)?;
        let ended = self.ask("POST", &format!("/containers/{id}/wait"), "", 200)?;
        let ended = ended.json().map_err(stop)?;
        if ended["StatusCode"] != 0 {
            return Err(format!("true is not true: {ended}"));
        }
        self.ask("DELETE", &format!("/containers/{id}"), "", 204).map(drop)
    }

    /// So many of them at once, until the last is removed.
    pub fn run_at_once(&self, count: usize, host: &str) -> Result<Duration, String> {
        timed(|| {
            std::thread::scope(|scope| {
                let handles: Vec<_> = (0..count).map(|_| scope.spawn(|| self.run(host))).collect();
                handles
                    .into_iter()
                    .try_for_each(|handle| handle.join().expect("no panic"))
            })
        })
    }

    fn ask(&self, method: &str, target: &str, body: &str, code: u16) -> Result<wire::Answer, String> {
        // Many starts at once take longer than a test waits.
        let exchanged = UnixStream::connect(&self.socket).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            wire::exchange(stream, wire::request(method, target, body).as_bytes())
        });
        let answer = wire::Answer::parse(&exchanged.map_err(|error| error.to_string())?);
        answer.and_then(|answer| answer.expect(code)).map_err(stop)
    }
}

impl Drop for Networked {
    fn drop(&mut self) {
        // Or it would wait for each to end by itself.
        for name in [SERVER, CLIENT] {
            let _ = sh(&mut self.docker(&["rm", "--force", name]));
        }
        end(&mut self.child);
    }
}
