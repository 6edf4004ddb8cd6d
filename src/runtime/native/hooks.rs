//! Hooks of the OCI runtime specification: programs of the host's that are run around a container's life, with the
//! container's state on stdin. They run as this process's user, outside the container; each has a while to end, and is killed
//! with its process group when that is over.
//!
//! There are those that the specification has in the runtime's namespaces: `prestart` and `createRuntime` once the container
//! is set up, before its program runs (the first process waits), `poststart` after that, `poststop` when it is gone. The
//! kinds that run inside, `createContainer` and `startContainer`, are `Unsupported`: this runtime sets containers up where no
//! program of the host's is within reach. Source: the specification, `runtime.md`, "Lifecycle", and `config.md`, "POSIX-platform
//! Hooks".

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::Hook;
use serde_json::json;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::runtime::Launch;
use crate::sys::blocking::blocking;
use crate::sys::{memfd, socket};

/// How long a hook may take that says nothing of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may take at most, whatever it says.
const LONGEST: Duration = Duration::from_secs(3600);
/// How much is kept of what a hook writes to stderr: the end of it.
const WORDS: usize = 1024;
/// How often a hook that has closed its stderr is looked at.
const TICK: Duration = Duration::from_millis(5);

/// The hooks of one container.
#[derive(Debug)]
pub(crate) struct Hooks {
    id: String,
    version: String,
    bundle: PathBuf,
    annotations: serde_json::Value,
    /// With the names of their kinds.
    before: Vec<(&'static str, Hook)>,
    after: Vec<(&'static str, Hook)>,
    stop: Vec<(&'static str, Hook)>,
    /// Whether those for the end have run.
    stopped: AtomicBool,
}

impl Hooks {
    /// Those that a container has; `None` if there are none.
    ///
    /// # Errors
    /// `Unsupported` for a kind that this runtime does not have, `InvalidArgument` for one that can never run.
    pub(crate) fn of(launch: &Launch) -> Result<Option<Self>> {
        let Some(hooks) = launch.spec.hooks().as_ref().filter(|_| !launch.hold) else {
            return Ok(None);
        };
        for (kind, list) in [
            ("createContainer", hooks.create_container()),
            ("startContainer", hooks.start_container()),
        ] {
            if let Some(hook) = list.iter().flatten().next() {
                let what = format!("the hook {kind} ({})", hook.path().display());
                let needs = "a hook of the kinds prestart, createRuntime, poststart and poststop: these run outside the container";
                return Err(Error::unsupported(what, needs).with_object(ObjectKind::Option, "hooks"));
            }
        }
        #[allow(deprecated, reason = "devices have them still")]
        let prestart = hooks.prestart();
        let mut before = named("prestart", prestart.as_ref())?;
        before.extend(named("createRuntime", hooks.create_runtime().as_ref())?);
        let all = Self {
            id: launch.name.clone().unwrap_or_else(|| launch.id.as_str().to_owned()),
            version: launch.spec.version().clone(),
            bundle: launch.bundle.clone().unwrap_or_else(|| PathBuf::from("/")),
            annotations: json!(launch.spec.annotations()),
            before,
            after: named("poststart", hooks.poststart().as_ref())?,
            stop: named("poststop", hooks.poststop().as_ref())?,
            stopped: AtomicBool::new(false),
        };
        let none = all.before.is_empty() && all.after.is_empty() && all.stop.is_empty();
        Ok((!none).then_some(all))
    }

    /// Whether the container's program must wait for some.
    pub(crate) fn wait(&self) -> bool {
        !self.before.is_empty()
    }

    /// Runs those before the program; the first that fails is the error.
    pub(crate) async fn before(&self, pid: u32) -> Result<()> {
        for (kind, hook) in &self.before {
            self.run(kind, hook, "creating", Some(pid)).await?;
        }
        Ok(())
    }

    /// Runs those behind the start of the program, all of them. What failed is a warning each.
    pub(crate) async fn started(&self, pid: u32) -> Vec<String> {
        let mut warnings = Vec::new();
        for (kind, hook) in &self.after {
            let ran = self.run(kind, hook, "running", Some(pid)).await;
            warnings.extend(ran.err().map(|error| error.report()));
        }
        warnings
    }

    /// Runs those for the end, all of them, once.
    pub(crate) async fn stopped(&self) {
        if self.stopped.swap(true, Ordering::Relaxed) {
            return;
        }
        for (kind, hook) in &self.stop {
            if let Err(error) = self.run(kind, hook, "stopped", None).await {
                tracing::warn!(container = %self.id, error = error.report(), "a hook failed");
            }
        }
    }

    async fn run(&self, kind: &'static str, hook: &Hook, status: &str, pid: Option<u32>) -> Result<()> {
        let mut state = json!({
            "ociVersion": self.version, "id": self.id, "status": status, "bundle": self.bundle,
        });
        if let Some(pid) = pid {
            state["pid"] = json!(pid);
        }
        if !self.annotations.is_null() {
            state["annotations"] = self.annotations.clone();
        }
        let (hook, text) = (hook.clone(), state.to_string());
        let ran = blocking(move || run(&hook, text.as_bytes())).await;
        ran.map_err(|error| error.context(format!("run the hook {kind}")))
    }
}

fn named(kind: &'static str, hooks: Option<&Vec<Hook>>) -> Result<Vec<(&'static str, Hook)>> {
    let bad = |hook: &Hook, why: &str| {
        let message = format!("the hook {kind} ({}) {why}", hook.path().display());
        Error::invalid(message).with_object(ObjectKind::Option, "hooks")
    };
    let hooks = hooks.into_iter().flatten();
    let checked = hooks.map(|hook| {
        if !hook.path().is_absolute() {
            return Err(bad(hook, "has no absolute path"));
        }
        if hook.timeout().is_some_and(|seconds| seconds <= 0) {
            return Err(bad(hook, "has a timeout that is no time"));
        }
        Ok((kind, hook.clone()))
    });
    checked.collect()
}

/// Runs a hook to its end. Blocking.
fn run(hook: &Hook, state: &[u8]) -> Result<()> {
    let shown = hook.path().display().to_string();
    let os = |error: std::io::Error| Error::os(format!("run {shown}"), error);
    let mut child = command(hook, state_file(state).map_err(os)?).spawn().map_err(os)?;
    let stderr = child
        .stderr
        .take()
        .ok_or_else(|| Error::internal("a hook without stderr"))?;
    socket::set_nonblocking(stderr.as_fd()).map_err(os)?;
    let limit = limit_of(hook);
    let mut said = Said::new(stderr);
    let status = said.until_end(&mut child, limit).map_err(os)?;
    let words = said.words();
    let Some(status) = status else {
        let message = format!(
            "{shown} took more than {} seconds and was killed{words}",
            limit.as_secs()
        );
        return Err(Error::new(ErrorKind::Timeout, message));
    };
    if status.success() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidState,
        format!("{shown} ended with {status}{words}"),
    ))
}

fn limit_of(hook: &Hook) -> Duration {
    let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(PATIENCE, Duration::from_secs).min(LONGEST)
}

/// The state in a file, from its beginning: unlike a pipe it waits for nobody who reads.
fn state_file(state: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd::sealed(c"state", state)?);
    file.rewind()?;
    Ok(file.into())
}

fn command(hook: &Hook, state: OwnedFd) -> Command {
    let mut command = Command::new(hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    let env = hook.env().iter().flatten();
    command.envs(env.map(|pair| pair.split_once('=').unwrap_or((pair, ""))));
    command
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(state))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// The end of what a hook says.
struct Said {
    stderr: Option<ChildStderr>,
    tail: Vec<u8>,
}

impl Said {
    fn new(stderr: ChildStderr) -> Self {
        Self {
            stderr: Some(stderr),
            tail: Vec::new(),
        }
    }

    /// `None`: it took too long, and was killed. One that cannot be waited for is killed, too.
    fn until_end(&mut self, child: &mut Child, limit: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = child.try_wait();
            self.read();
            match ended {
                Ok(None) if Instant::now() < deadline => self.wait(),
                Ok(Some(status)) => return Ok(Some(status)),
                unended => {
                    let group = i32::try_from(child.id()).map(Pid::from_raw);
                    let _ = group.map(|group| killpg(group, Signal::SIGKILL));
                    child.wait()?;
                    return unended;
                }
            }
        }
    }

    fn wait(&self) {
        let Some(stderr) = &self.stderr else {
            std::thread::sleep(TICK);
            return;
        };
        let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO));
    }

    fn read(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut piece = [0u8; 4096];
        loop {
            match stderr.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => {
                    self.tail.extend_from_slice(&piece[..read]);
                    let too_many = self.tail.len().saturating_sub(WORDS);
                    self.tail.drain(..too_many);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.stderr = None;
    }

    fn words(&self) -> String {
        match String::from_utf8_lossy(&self.tail).trim() {
            "" => String::new(),
            words => format!(": {words}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::HookBuilder;

    use super::*;

    fn shell(script: &str) -> Hook {
        HookBuilder::default()
            .path("/bin/sh")
            .args(["name", "-c", script].map(str::to_owned))
            .env(["A=b c".to_owned()])
            .timeout(2)
            .build()
            .unwrap()
    }

    #[test]
    fn h9_a_hook_gets_the_state_and_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        let script = format!(
            "{{ cat; echo; echo $0 $A; pwd; env | grep -c HOME || true; }} > {}",
            file.display()
        );
        run(&shell(&script), b"{\"id\":\"x\"}").unwrap();
        assert_eq!(
            std::fs::read_to_string(file).unwrap(),
            "{\"id\":\"x\"}\nname b c\n/\n0\n"
        );
    }

    #[test]
    fn h9_a_hook_that_fails_says_why() {
        let error = run(&shell("yes x | head -c 100000 >&2; echo gone >&2; exit 3"), b"").unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidState);
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.ends_with("gone") && text.len() < 2 * WORDS,
            "{text}"
        );
        let missing = HookBuilder::default().path("/no/such/hook").build().unwrap();
        assert!(run(&missing, b"").unwrap_err().report().contains("/no/such/hook"));
    }

    #[test]
    fn h9_a_hook_that_hangs_is_killed_with_all_that_it_started() {
        let mut hook = shell("sleep 1000 & sleep 1000");
        hook.set_timeout(Some(1));
        let begun = Instant::now();
        let error = run(&hook, b"").unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        for (said, limit) in [
            (None, PATIENCE),
            (Some(i64::MAX), LONGEST),
            (Some(7), Duration::from_secs(7)),
        ] {
            hook.set_timeout(said);
            assert_eq!(limit_of(&hook), limit, "{said:?}");
        }
        // One that leaves somebody behind has ended nevertheless.
        let begun = Instant::now();
        run(&shell("sleep 3 & exit 0"), b"").unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}
