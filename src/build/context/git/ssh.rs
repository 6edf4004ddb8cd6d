//! Repositories over SSH: the same protocol, over the pipes of the host's `ssh` program.
//!
//! A program, and not a library: those that speak SSH bring a second set of ciphers and more than fifty crates, for what is
//! rarely asked for. Nothing of the user's own configuration holds; what holds is what the build was given: an agent, and the
//! keys of hosts. A host whose key is not among those is not talked to.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;

use super::Id;
use super::client::{ANSWER, PACK, check_reference, check_wanted, no_reference, shown};
use super::wire::{self, Packet, Packets};
use crate::build::context::fetch::Repository;
use crate::build::context::{Services, Ssh};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::blocking::elsewhere;

/// The longest that is kept of what the program says of itself.
const WORDS: u64 = 4096;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// How long a server may take until it answers, in seconds, and how often it may then be silent for as long.
const PATIENCE: [&str; 3] = [
    "-oConnectTimeout=30",
    "-oServerAliveInterval=30",
    "-oServerAliveCountMax=4",
];
/// No configuration, no questions, no keys but the agent's, nothing that runs or forwards anything here.
const STRICT: [&str; 14] = [
    "-F/dev/null",
    "-T",
    "-oBatchMode=yes",
    "-oStrictHostKeyChecking=yes",
    "-oUserKnownHostsFile=known_hosts",
    "-oGlobalKnownHostsFile=/dev/null",
    "-oUpdateHostKeys=no",
    "-oIdentityFile=none",
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oPermitLocalCommand=no",
    "-oProxyCommand=none",
    "-oControlPath=none",
    "-oSendEnv=GIT_PROTOCOL",
];

/// Where a repository is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
}

/// Whether an address is one of these at all.
pub(super) fn is_ssh(remote: &str) -> bool {
    match remote.split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
        None => remote
            .split_once('@')
            .is_some_and(|(user, rest)| !user.contains([':', '/']) && rest.contains(':')),
    }
}

impl Address {
    /// `ssh://user@host:port/path`, or `user@host:path`. Neither a user, a host nor a path may look like an option.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(super) fn parse(remote: &str) -> Result<Self> {
        let bad = |what: &str| Error::invalid(format!("the repository's address has {what}: {:?}", shown(remote)));
        let (place, path) = match remote.split_once("://") {
            Some((_, rest)) => {
                let (place, path) = rest.split_once('/').ok_or_else(|| bad("no path"))?;
                // `/~user` is relative to a home, as with git.
                let path = match path.starts_with('~') {
                    true => path.to_owned(),
                    false => format!("/{path}"),
                };
                (place, path)
            }
            None => {
                let (place, path) = remote.split_once(':').ok_or_else(|| bad("no path"))?;
                (place, path.to_owned())
            }
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, place),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port.map(str::parse).transpose().map_err(|_| bad("no such port"))?;
        let is_word = |text: &str, more: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(known)
        };
        if !is_word(host, "-.:_") {
            return Err(bad("a host that can be none"));
        }
        if user.is_some_and(|user| !is_word(user, "-._+")) {
            return Err(bad("a user that can be none, or a password"));
        }
        let odd = path.chars().any(char::is_control) || path.starts_with('-') || path.trim_matches('/').is_empty();
        if odd {
            return Err(bad("a path that can be none"));
        }
        Ok(Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port,
            path,
        })
    }

    /// The program with its arguments, in a directory with the file `known_hosts`.
    fn command(&self, ssh: &Ssh, place: &std::path::Path) -> Command {
        let mut command = Command::new("ssh");
        command.args(STRICT).args(PATIENCE);
        command
            .current_dir(place)
            .env("GIT_PROTOCOL", "version=2")
            .env("LC_ALL", "C");
        match &ssh.agent {
            // By the variable: a path may have what the option takes for its own.
            Some(agent) => command.arg("-oIdentityAgent=SSH_AUTH_SOCK").env("SSH_AUTH_SOCK", agent),
            None => command.arg("-oIdentityAgent=none").env_remove("SSH_AUTH_SOCK"),
        };
        if let Some(port) = self.port {
            command.arg(format!("-p{port}"));
        }
        if let Some(user) = &self.user {
            command.arg(format!("-l{user}"));
        }
        command.arg("--").arg(&self.host);
        command.arg(format!("git-upload-pack {}", quoted(&self.path)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// One word for the shell on the other side. Source: git, `quote.c`, `sq_quote_buf`.
fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '!' => out.extend(["'\\", c.encode_utf8(&mut [0; 4]), "'"]),
            c => out.push(c),
        }
    }
    out + "'"
}

/// The program: killed when nobody waits for what it brings.
#[derive(Clone)]
struct Running(Arc<Mutex<Child>>);

struct KilledOnDrop(Running);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // Whoever reads from it sees its end, and takes its status.
        let _ = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

/// The commit that is wanted with the name of its reference, and a file with its pack.
///
/// # Errors
/// `InvalidArgument` for an address that is none; `Unsupported` without the program, or without keys of hosts; `Denied`,
/// `NotFound`, `Unavailable`; `DigestMismatch`; `NoSpace`, `Os`.
///
/// # Cancel safety
/// The program is killed.
pub(super) async fn fetch(repository: &Repository, services: &Services) -> Result<((Id, Option<String>), PathBuf)> {
    let address = Address::parse(&repository.remote)?;
    check_reference(repository.reference.as_deref())?;
    let ssh = services.ssh.clone();
    let Some(hosts) = ssh.known_hosts.clone() else {
        return Err(Error::unsupported(
            "reading a repository over SSH",
            "the keys of its host, in the words of known_hosts: BuildSpec::known_hosts",
        ));
    };
    let place = services.fresh("ssh");
    let wanted = repository.clone();
    let (running, pipes) = elsewhere(move || {
        let kept = std::fs::create_dir(&place).and_then(|()| std::fs::write(place.join("known_hosts"), hosts));
        kept.map_err(|e| Error::os("write the keys of hosts", e))?;
        let mut child = address.command(&ssh, &place).spawn().map_err(missing)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok((Running(Arc::new(Mutex::new(child))), pipes))
    })
    .await?;
    let guard = KilledOnDrop(running.clone());
    let pack = services.fresh("pack");
    let path = pack.clone();
    let answer = elsewhere(move || {
        let (Some(stdin), Some(stdout), Some(mut stderr)) = pipes else {
            return Err(Error::internal("a program without its pipes"));
        };
        let words = thread::spawn(move || {
            let mut words = Vec::new();
            let _ = stderr.by_ref().take(WORDS).read_to_end(&mut words);
            // Whoever says more is heard out: it would end at a pipe that is closed.
            let _ = io::copy(&mut stderr, &mut io::sink());
            words
        });
        let talked = Talk::new(stdin, stdout).take(&wanted, &pack);
        // Its pipes are closed: it ends, unless it hangs, and then it need not.
        if talked.is_err() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
        let mut child = running.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = child.try_wait().ok().flatten();
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        let words = words.join().unwrap_or_default();
        talked.map_err(|error| match ended {
            _ if words.is_empty() || !matches!(error.kind(), ErrorKind::Unavailable) => error,
            _ => refused(&words, &wanted.remote),
        })
    })
    .await;
    drop(guard);
    answer.map(|commit| (commit, path))
}

fn missing(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::unsupported("reading a repository over SSH", "the program ssh (OpenSSH) on the host")
                .with_source(error)
        }
        _ => Error::os("run ssh", error),
    }
}

/// What the program says when it ends early: its own words, or those of the server.
fn refused(words: &[u8], remote: &str) -> Error {
    let text = String::from_utf8_lossy(words);
    let has = |part: &str| text.contains(part);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let words: String = lines.collect::<Vec<_>>().join("; ");
    let words: String = words.chars().filter(|c| !c.is_control()).take(300).collect();
    let kind = if has("Host key verification failed") || has("Permission denied") {
        ErrorKind::Denied
    } else if has("does not appear to be a git repository") || has("not found") || has("does not exist") {
        ErrorKind::NotFound
    } else {
        ErrorKind::Unavailable
    };
    let message = format!("the repository {} cannot be read over SSH: {words}", shown(remote));
    Error::new(kind, message).with_object(ObjectKind::Option, shown(remote))
}

/// What is said, from the first word of the server to the end of the pack.
struct Talk {
    stdin: std::process::ChildStdin,
    stdout: ChildStdout,
    packets: Packets,
    buffer: Vec<u8>,
}

impl Talk {
    fn new(stdin: std::process::ChildStdin, stdout: ChildStdout) -> Self {
        Self {
            stdin,
            stdout,
            packets: Packets::default(),
            buffer: vec![0; PIECE],
        }
    }

    /// Blocking.
    fn take(mut self, wanted: &Repository, pack: &std::path::Path) -> Result<(Id, Option<String>)> {
        wire::check_advertisement(&self.lines()?)?;
        let name = wanted.reference.as_deref();
        let commit = match name.and_then(|name| name.parse().ok()) {
            Some(id) => (id, None),
            None => {
                self.say(&wire::list_references(name))?;
                let found = wire::choose(&self.lines()?, name)?;
                found
                    .map(|(id, name)| (id, Some(name)))
                    .ok_or_else(|| no_reference(name, &wanted.remote))?
            }
        };
        check_wanted(&commit.0, wanted)?;
        self.say(&wire::fetch(&commit.0))?;
        self.pack(pack)?;
        Ok(commit)
    }

    fn say(&mut self, request: &[u8]) -> Result<()> {
        let said = self.stdin.write_all(request).and_then(|()| self.stdin.flush());
        said.map_err(|e| wire::unexpected("it does not listen").with_source(e))
    }

    fn next(&mut self) -> Result<Packet> {
        loop {
            if let Some(packet) = self.packets.next()? {
                return Ok(packet);
            }
            let length = self.stdout.read(&mut self.buffer);
            match length.map_err(|e| Error::os("read what ssh brings", e))? {
                0 => return Err(wire::unexpected("it ends early")),
                length => self.packets.push(&self.buffer[..length]),
            }
        }
    }

    /// The lines of a short answer.
    fn lines(&mut self) -> Result<Vec<Bytes>> {
        let (mut lines, mut size) = (Vec::new(), 0);
        loop {
            match self.next()? {
                Packet::Flush => return Ok(lines),
                Packet::Delimiter => {}
                Packet::Data(line) => {
                    size += line.len();
                    if size > ANSWER {
                        return Err(wire::unexpected("it is too long"));
                    }
                    lines.push(line);
                }
            }
        }
    }

    fn pack(&mut self, path: &std::path::Path) -> Result<()> {
        let failed = |e| Error::os("keep what is received", e);
        let mut file = io::BufWriter::with_capacity(256 << 10, File::create_new(path).map_err(failed)?);
        let (mut in_pack, mut size) = (false, 0u64);
        loop {
            match self.next()? {
                Packet::Data(line) if !in_pack => in_pack = line.trim_ascii() == b"packfile",
                Packet::Data(line) => match line.split_first() {
                    Some((1, bytes)) => {
                        size += bytes.len() as u64;
                        if size > PACK {
                            return Err(Error::invalid(format!("a repository of more than {PACK} bytes")));
                        }
                        file.write_all(bytes).map_err(failed)?;
                    }
                    Some((3, words)) => return Err(wire::said(words)),
                    _ => {}
                },
                Packet::Flush if in_pack => return file.flush().map_err(failed),
                Packet::Flush => return Err(wire::unexpected("it ends before the pack does")),
                Packet::Delimiter => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f4_f18_addresses_over_ssh() {
        let of = |text: &str| {
            let found = Address::parse(text).unwrap();
            (found.user.unwrap_or_default(), found.host, found.port, found.path)
        };
        let made = |user: &str, host: &str, port, path: &str| (user.to_owned(), host.to_owned(), port, path.to_owned());
        assert_eq!(of("git@h.example:o/r.git"), made("git", "h.example", None, "o/r.git"));
        assert_eq!(of("ssh://git@h:22/o/r.git"), made("git", "h", Some(22), "/o/r.git"));
        assert_eq!(of("ssh://h/~me/r"), made("", "h", None, "~me/r"));
        assert_eq!(of("ssh://me@[::1]:2222/r"), made("me", "::1", Some(2222), "/r"));
        for bad in [
            "ssh://-oProxyCommand=touch x/r",
            "ssh://-oProxyCommand=x/r",
            "git@-oProxyCommand=x:r",
            "-oProxyCommand=x@h:r",
            "ssh://-l@h/r",
            "git@h:-upload-pack",
            "git@h:",
            "ssh://h",
            "ssh://h/",
            "ssh://h:99999/r",
            "ssh://h:-1/r",
            "ssh://u:password@h/r",
            "ssh://h;touch x/r",
            "ssh://h\n/r",
            "git@h:a\nb",
            "ssh:///r",
        ] {
            assert_eq!(
                Address::parse(bad).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{bad:?}"
            );
        }
        for none in [
            "ext::sh -c x",
            "file:///r",
            "git://h/r",
            "https://git@h/r:x",
            "/a@b:c",
            "fd::3",
        ] {
            assert!(!is_ssh(none), "{none}");
        }
        assert!(is_ssh("git@h:r") && is_ssh("SSH://h/r"));
    }

    #[test]
    fn f4_paths_are_one_word_for_the_shell_over_there() {
        for text in ["a b", "it's", "a!b", "$(touch x)", "`x`;y&&z", "'; touch x; '"] {
            let script = format!("printf %s {}", quoted(text));
            let out = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stdout), text);
        }
    }
}
