//! The command line, and the file that says the same.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use longshore::Isolation;
use longshore::api::Limits;
use serde::Deserialize;

use crate::failure::Failure;

/// A Docker-compatible daemon over longshore.
#[derive(Debug, Parser)]
#[command(name = "longshored", version)]
pub struct Options {
    /// Where images and containers are kept; by custom `/var/lib/longshore`, or a directory of the user's.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where to listen: `unix:///PATH`, `tcp://ADDRESS:PORT`, or `fd://` for sockets handed in. Can be given several times.
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Asks clients of TCP sockets for a certificate that the authority of `--tlscacert` signed.
    #[arg(long)]
    pub tlsverify: bool,
    /// The authority that signs clients' certificates, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// The server's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// The key of the server's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Lets anybody who can reach an address that is not loopback in, without TLS: whoever connects is as good as root here.
    #[arg(long)]
    pub insecure_tcp: bool,
    /// The group that may use unix sockets; default `docker` where there is one that the user may give files to, else his own.
    #[arg(short = 'G', long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Permission bits of unix sockets, in octal; by custom 660.
    #[arg(long, value_name = "MODE", value_parser = octal)]
    pub socket_mode: Option<u32>,
    /// Containers outlive the daemon: they run on when it ends or is killed, and the next one on the same root has them. Only
    /// those with the network `none` or `host` can, so far.
    #[arg(long)]
    pub live_restore: bool,
    /// Where specifications of CDI devices are; default /etc/cdi and /var/run/cdi. Several: the later one counts.
    #[arg(long, value_name = "DIRECTORY")]
    pub cdi_spec_dir: Vec<PathBuf>,
    /// What becomes of containers where this host cannot keep them apart as they should be, within another container, say:
    /// `strict` (the default: an error that names what is missing), `best-available`.
    #[arg(long, value_name = "WORD")]
    pub isolation: Option<Isolation>,
    /// What containers are started with that name nothing: `native` (the default), `runc`, `crun`, or `chroot`, for root where there
    /// are no namespaces; that is for all of them.
    #[arg(long, value_name = "NAME")]
    pub default_runtime: Option<String>,
    /// Ends after so many seconds without a connection and a running container.
    #[arg(long, value_name = "SECONDS")]
    pub exit_idle: Option<u64>,
    /// How long requests and streams may go on after SIGTERM, in seconds; default 10.
    #[arg(long, value_name = "SECONDS")]
    pub shutdown_timeout: Option<u64>,
    /// A JSON file with these options, named as here: `hosts`, `root`, `tlsverify`, … What the command line says goes first.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What the file can say. `data-root` is Docker's word for `root`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(alias = "data-root")]
    root: Option<PathBuf>,
    hosts: Option<Vec<String>>,
    tlsverify: Option<bool>,
    tlscacert: Option<PathBuf>,
    tlscert: Option<PathBuf>,
    tlskey: Option<PathBuf>,
    insecure_tcp: Option<bool>,
    group: Option<String>,
    socket_mode: Option<String>,
    live_restore: Option<bool>,
    cdi_spec_dir: Option<Vec<PathBuf>>,
    isolation: Option<String>,
    default_runtime: Option<String>,
    exit_idle: Option<u64>,
    shutdown_timeout: Option<u64>,
}

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address.
    Tcp(SocketAddr),
    /// Whatever sockets were handed in.
    Inherited,
}

impl Options {
    /// The command line with the file's options where it says nothing.
    pub fn load() -> Result<Self, Failure> {
        let mut options = Self::parse();
        if let Some(path) = options.config.clone() {
            options.merge(read(&path)?)?;
        }
        Ok(options)
    }

    fn merge(&mut self, file: File) -> Result<(), Failure> {
        self.root = self.root.take().or(file.root);
        if self.hosts.is_empty() {
            self.hosts = file.hosts.unwrap_or_default();
        }
        self.tlsverify |= file.tlsverify.unwrap_or_default();
        self.tlscacert = self.tlscacert.take().or(file.tlscacert);
        self.tlscert = self.tlscert.take().or(file.tlscert);
        self.tlskey = self.tlskey.take().or(file.tlskey);
        self.insecure_tcp |= file.insecure_tcp.unwrap_or_default();
        self.group = self.group.take().or(file.group);
        let mode = file.socket_mode.map(|mode| octal(&mode)).transpose();
        self.socket_mode = self.socket_mode.or(mode.map_err(Failure::new)?);
        self.live_restore |= file.live_restore.unwrap_or_default();
        if let (None, Some(word)) = (self.isolation, file.isolation) {
            self.isolation = Some(word.parse()?);
        }
        self.default_runtime = self.default_runtime.take().or(file.default_runtime);
        if self.cdi_spec_dir.is_empty() {
            self.cdi_spec_dir = file.cdi_spec_dir.unwrap_or_default();
        }
        self.exit_idle = self.exit_idle.or(file.exit_idle);
        self.shutdown_timeout = self.shutdown_timeout.or(file.shutdown_timeout);
        Ok(())
    }

    /// Where to listen, each place once.
    pub fn places(&self) -> Result<Vec<Host>, Failure> {
        if self.hosts.is_empty() {
            return Err(Failure::new(
                "say where to listen, for instance --host unix:///run/longshore.sock",
            ));
        }
        let distinct: BTreeSet<&str> = self.hosts.iter().map(String::as_str).collect();
        let places: Result<Vec<Host>, String> = distinct.into_iter().map(host).collect();
        let places = places.map_err(Failure::new)?;
        for place in &places {
            self.check(place)?;
        }
        Ok(places)
    }

    /// Plain TCP gives root to whoever can connect.
    fn check(&self, place: &Host) -> Result<(), Failure> {
        let Host::Tcp(address) = place else { return Ok(()) };
        if address.ip().is_loopback() || self.tls() || self.insecure_tcp {
            return Ok(());
        }
        Err(Failure::new(format!(
            "tcp://{address} without TLS would give this machine to anybody who can reach it; \
             use --tlsverify --tlscacert --tlscert --tlskey, listen on loopback, or insist with --insecure-tcp"
        )))
    }

    /// Whether TCP sockets speak TLS.
    pub fn tls(&self) -> bool {
        self.tlsverify || self.tlscert.is_some()
    }

    /// Permission bits of unix sockets.
    pub fn socket_mode(&self) -> u32 {
        self.socket_mode.unwrap_or(0o660)
    }

    /// After how long without work to end.
    pub fn idle(&self) -> Option<Duration> {
        self.exit_idle.map(Duration::from_secs)
    }

    /// What the server bears.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(seconds) = self.shutdown_timeout {
            limits.drain_within = Duration::from_secs(seconds);
        }
        limits
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let at = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let text = std::fs::read(path).map_err(|error| at(&error))?;
    serde_json::from_slice(&text).map_err(|error| at(&error))
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is no permission; 660 is one")),
    }
}

fn host(text: &str) -> Result<Host, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        let path = PathBuf::from(path);
        return match path.is_absolute() {
            true => Ok(Host::Unix(path)),
            false => Err(format!(
                "{text}: the path of a socket must be absolute: unix:///run/longshore.sock"
            )),
        };
    }
    if let Some(address) = text.strip_prefix("tcp://") {
        let address = address.replacen("localhost", "127.0.0.1", 1);
        let parsed = address.parse().map(Host::Tcp);
        return parsed.map_err(|_| format!("{text}: give an address and a port: tcp://127.0.0.1:2376"));
    }
    if text.starts_with("fd://") {
        return Ok(Host::Inherited);
    }
    Err(format!("{text}: a host is unix:///PATH, tcp://ADDRESS:PORT or fd://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        Options::parse_from(["longshored"].iter().chain(arguments))
    }

    #[test]
    fn hosts_are_what_docker_calls_them() {
        assert_eq!(host("unix:///run/x").unwrap(), Host::Unix("/run/x".into()));
        assert_eq!(
            host("tcp://localhost:1").unwrap(),
            Host::Tcp(([127, 0, 0, 1], 1).into())
        );
        assert_eq!(host("fd://").unwrap(), Host::Inherited);
        for bad in ["unix://run/x", "tcp://:1", "tcp://1.2.3.4", "/run/x", "ssh://a"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_open_door_must_be_asked_for_by_name() {
        assert!(options(&["-H", "tcp://0.0.0.0:1"]).places().is_err());
        for arguments in [
            &["-H", "tcp://0.0.0.0:1", "--insecure-tcp"][..],
            &["-H", "tcp://127.0.0.1:1"],
            &["-H", "tcp://[::1]:1"],
            &["-H", "tcp://0.0.0.0:1", "--tlsverify"],
        ] {
            assert_eq!(options(arguments).places().unwrap().len(), 1, "{arguments:?}");
        }
        assert!(options(&[]).places().is_err());
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let mut options = options(&["--root", "/a", "-H", "fd://"]);
        let file = r#"{"data-root": "/b", "hosts": ["unix:///c"], "exit-idle": 3, "socket-mode": "600", "shutdown-timeout": 2}"#;
        options.merge(serde_json::from_str(file).unwrap()).unwrap();
        assert_eq!(options.root, Some("/a".into()));
        assert_eq!(options.places().unwrap(), [Host::Inherited]);
        assert_eq!(
            (options.idle(), options.socket_mode()),
            (Some(Duration::from_secs(3)), 0o600)
        );
        assert_eq!(options.limits().drain_within, Duration::from_secs(2));
        let mut said = self::options(&["--socket-mode", "640"]);
        said.merge(serde_json::from_str(file).unwrap()).unwrap();
        assert_eq!(said.socket_mode(), 0o640);
        assert!(serde_json::from_str::<File>(r#"{"colour": "red"}"#).is_err());
    }
}
