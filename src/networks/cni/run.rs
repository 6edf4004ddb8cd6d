//! One run of a plugin: a program of the host's, as this process's user, with its configuration on stdin, and its answer on stdout.
//! Its time and its words are bounded; what it started is in its process group, and is killed with it.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::socket;

/// Where plugins look for programs: iptables, say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The largest answer.
const ANSWER: usize = 1 << 20;
/// How much is kept of what a plugin writes to stderr: the end of it.
const WORDS: usize = 1024;
/// How often a plugin is looked at that says nothing.
const TICK: Duration = Duration::from_millis(5);

/// How a plugin ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs a plugin to its end. `stdin` is the file that it reads, and keeps open to its end: a lock of it is held as long. Blocks.
///
/// # Errors
/// `Timeout`; `Unavailable` for one that says too much; `Os`, where it cannot be run.
pub(super) fn run(
    program: &Path,
    environment: &[(&str, String)],
    stdin: &mut File,
    request: &[u8],
    until: Instant,
) -> Result<Answer> {
    let shown = program.display().to_string();
    let os =
        |error: io::Error| Error::os(format!("run {shown}"), error).with_object(ObjectKind::Backend, shown.clone());
    let written = stdin.set_len(0).and_then(|()| stdin.rewind());
    written
        .and_then(|()| stdin.write_all(request))
        .and_then(|()| stdin.rewind())
        .map_err(os)?;
    let mut child = Command::new(program)
        .env_clear()
        .env("PATH", PATH)
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(stdin.try_clone().map_err(os)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(os)?;
    match follow(&mut child, until) {
        Ok(Followed::Ended(answer)) => Ok(answer),
        other => {
            let group = i32::try_from(child.id()).map(Pid::from_raw);
            let _ = group.map(|group| killpg(group, Signal::SIGKILL));
            child.wait().map_err(os)?;
            let (kind, why) = match other {
                Err(error) => return Err(os(error)),
                Ok(Followed::TooMuch) => (ErrorKind::Unavailable, format!("said more than {ANSWER} bytes")),
                _ => (ErrorKind::Timeout, "took too long".to_owned()),
            };
            let message = format!("the CNI plugin {shown} {why}, and was killed");
            Err(Error::new(kind, message).with_object(ObjectKind::Backend, shown))
        }
    }
}

enum Followed {
    Ended(Answer),
    TooMuch,
    TooLong,
}

fn follow(child: &mut Child, until: Instant) -> io::Result<Followed> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    for pipe in [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)]
        .into_iter()
        .flatten()
    {
        socket::set_nonblocking(pipe)?;
    }
    let (mut answer, mut words) = (Vec::new(), Vec::new());
    loop {
        let ended = child.try_wait()?;
        read(&mut stdout, &mut answer, ANSWER + 1)?;
        read(&mut stderr, &mut words, usize::MAX)?;
        words.drain(..words.len().saturating_sub(WORDS));
        if answer.len() > ANSWER {
            return Ok(Followed::TooMuch);
        }
        match ended {
            // What it left behind may have the pipes open still: nobody waits for that.
            Some(status) => {
                return Ok(Followed::Ended(Answer {
                    success: status.success(),
                    stdout: answer,
                    stderr: words,
                }));
            }
            None if Instant::now() >= until => return Ok(Followed::TooLong),
            None => wait(&[stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)]),
        }
    }
}

/// Reads what is there. A pipe that ends is put away. Of stderr, whose end alone counts, a piece at a time is enough.
fn read(pipe: &mut Option<impl Read>, into: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut piece = [0u8; 4096];
    for _ in 0..64 {
        let Some(open) = pipe else { return Ok(()) };
        if into.len() >= most {
            return Ok(());
        }
        match open.read(&mut piece) {
            Ok(0) => *pipe = None,
            Ok(read) => into.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(pipes: &[Option<BorrowedFd<'_>>]) {
    let open = pipes.iter().flatten();
    let mut fds: Vec<PollFd<'_>> = open.map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    // A plugin that has closed both is waited for all the same.
    let _ = poll(&mut fds, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn ran(script: &str, limit: Duration) -> Result<Answer> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("plugin");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut stdin = tempfile::tempfile().unwrap();
        stdin.write_all(&[b'x'; 100]).unwrap();
        let environment = [("CNI_COMMAND", "ADD".to_owned())];
        for _ in 0..100 {
            let until = Instant::now() + limit;
            match run(&program, &environment, &mut stdin, b"{\"a\": 1}", until) {
                // Another test's fork may have it open for writing for a moment.
                Err(error) if error.errno() == Some(libc::ETXTBSY) => std::thread::sleep(TICK),
                ran => return ran,
            }
        }
        panic!("somebody keeps the program open");
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn k8_a_plugin_reads_its_configuration_and_has_an_environment_of_its_own() {
        let answer = ran("cat; echo $CNI_COMMAND $HOME; pwd; echo why >&2", LONG).unwrap();
        assert!(answer.success);
        assert_eq!(String::from_utf8_lossy(&answer.stdout), "{\"a\": 1}ADD\n/\n");
        assert_eq!(answer.stderr, b"why\n");
        assert!(!ran("exit 3", LONG).unwrap().success);
    }

    #[test]
    fn k8_a_plugin_that_says_too_much_or_never_ends_is_killed() {
        let error = ran("yes x", LONG).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
        let error = ran("sleep 1000 & sleep 1000", Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Timeout, "{error}");
        let answer = ran("yes x | head -c 1000000 >&2", LONG).unwrap();
        assert!(answer.success && answer.stderr.len() <= WORDS);
    }

    #[test]
    fn k8_what_a_plugin_leaves_behind_holds_nobody_up() {
        let answer = ran("sleep 60 & echo {}", LONG).unwrap();
        assert_eq!(answer.stdout, b"{}\n");
    }
}
