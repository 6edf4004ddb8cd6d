//! Debian's `docker-registry` on a free port of loopback: plain, with TLS, with a password.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::image::Layout;
use super::{program, scratch};
use crate::frame::{Stop, fail};

/// The name and password of a registry that asks for one.
pub const LOGIN: (&str, &str) = ("sailor", "knots");

/// How a registry is to be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// HTTPS, with a certificate of its own authority.
    pub tls: bool,
    /// Basic authentication with [`LOGIN`].
    pub basic_auth: bool,
}

/// A running registry; killed when dropped.
#[derive(Debug)]
pub struct Registry {
    pub addr: SocketAddr,
    dir: TempDir,
    child: Child,
}

impl Registry {
    /// An empty registry over plain HTTP.
    pub fn plain() -> Result<Self, Stop> {
        Self::with(Options::default(), &[])
    }

    /// A registry with images in it, each under a repository and a tag.
    pub fn with(options: Options, images: &[(&Layout, &str, &str)]) -> Result<Self, Stop> {
        let dir = scratch::fresh("registry");
        let (addr, child) = serve(dir.path(), Options::default())?;
        let mut registry = Self { addr, dir, child };
        for (layout, repository, tag) in images {
            layout.push(addr, repository, tag)?;
        }
        if options.tls || options.basic_auth {
            registry.stop();
            (registry.addr, registry.child) = serve(registry.dir.path(), options)?;
        }
        Ok(registry)
    }

    /// `127.0.0.1:PORT/repository:tag`.
    pub fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.addr)
    }

    /// The certificate of the authority that signed the server's, as a PEM file.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// How many GETs of a blob it answered.
    pub fn downloads(&self, digest: &str) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let wanted = format!("/blobs/{digest} ");
        log.lines()
            .filter(|line| line.contains("\"GET ") && line.contains(&wanted))
            .count()
    }

    /// All requests it answered, in its own words.
    pub fn requests(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(" HTTP/1.1\" ")).count()
    }

    /// How many uploads of a blob were begun.
    pub fn uploads(&self) -> usize {
        self.lines(|line| line.contains("\"POST ") && line.contains("/blobs/uploads/"))
    }

    /// How many requests brought bytes of a blob.
    pub fn blobs_received(&self) -> usize {
        let brings = |line: &str| line.contains("\"PUT ") || line.contains("\"PATCH ");
        self.lines(|line| brings(line) && line.contains("/blobs/uploads/"))
    }

    fn lines(&self, wanted: impl Fn(&str) -> bool) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| wanted(line)).count()
    }

    /// The file of a blob, to damage.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(dir: &Path, options: Options) -> Result<(SocketAddr, Child), Stop> {
    let program = program("docker-registry")?;
    let addr = free_port()?;
    let config = dir.join("config.yml");
    fs::write(&config, settings(dir, addr, options)?)?;
    let log = fs::File::create(dir.join("log"))?;
    // The registry must not outlive the tests, however they end.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .arg("serve")
        .arg(&config)
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    await_port(addr, child)
}

fn await_port(addr: SocketAddr, mut child: Child) -> Result<(SocketAddr, Child), Stop> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if TcpStream::connect(addr).is_ok() {
            return Ok((addr, child));
        }
        if let Some(status) = child.try_wait()? {
            return fail(format!("docker-registry ended early: {status}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    fail("docker-registry does not listen after 20 s")
}

fn settings(dir: &Path, addr: SocketAddr, options: Options) -> Result<String, Stop> {
    let mut text = format!(
        "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {addr}\n",
        dir.join("data").display()
    );
    if options.tls {
        let (certificate, key) = certificates(dir)?;
        text.push_str(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        ));
    }
    if options.basic_auth {
        text.push_str(&format!(
            "auth:\n  htpasswd:\n    realm: tests\n    path: {}\n",
            passwords(dir)?.display()
        ));
    }
    Ok(text)
}

fn certificates(dir: &Path) -> Result<(PathBuf, PathBuf), Stop> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "the tests' authority");
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key))?;
    fs::write(dir.join("ca.pem"), authority_certificate.pem())?;
    fs::write(dir.join("server.pem"), certificate.pem())?;
    fs::write(dir.join("server.key"), key.serialize_pem())?;
    Ok((dir.join("server.pem"), dir.join("server.key")))
}

fn passwords(dir: &Path) -> Result<PathBuf, Stop> {
    let output = Command::new(program("htpasswd")?)
        .args(["-Bbn", "-C", "4", LOGIN.0, LOGIN.1])
        .output()?;
    let path = dir.join("htpasswd");
    fs::write(&path, output.stdout)?;
    Ok(path)
}

/// A port of loopback that was free a moment ago.
pub fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
