//! A program in a sandbox, in the manner of [`std::process::Command`]: a directory as its root, and no engine around it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilitiesBuilder, MountBuilder, ProcessBuilder, Spec, SpecBuilder, UserBuilder,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::caps::CapabilitySet;
use super::native::seccomp;
use super::{Launch, Runtime, SharedNamespace, StdioPlan, Task, defaults};
use crate::error::{Error, Result};
use crate::types::{ContainerId, ExitStatus, Mount, Signal};

type Change = Box<dyn FnOnce(&mut Spec) + Send>;

/// A program to run with a directory as its root: in namespaces of its own, without a network, with Docker's default
/// capabilities, its seccomp profile, and its masked paths. As root and as an ordinary user.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use longshore::runtime::Command;
/// use longshore::runtime::native::NativeRuntime;
///
/// # async fn example() -> longshore::Result<()> {
/// let runtime = Arc::new(NativeRuntime::new(Default::default()));
/// let output = Command::new(runtime, "/srv/roots/alpine", "/bin/sh").args(["-c", "echo hello"]).output().await?;
/// assert!(output.status.success());
/// assert_eq!(output.stdout, b"hello\n");
/// # Ok(())
/// # }
/// ```
///
/// What it starts ends with the runtime's last handle, and with this process, however that ends. Its futures need a tokio
/// runtime with I/O around them.
#[must_use = "nothing runs until it is spawned"]
pub struct Command {
    runtime: Arc<dyn Runtime>,
    root: PathBuf,
    read_only: bool,
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
    dir: PathBuf,
    user: Option<String>,
    hostname: String,
    binds: Vec<(PathBuf, PathBuf, bool)>,
    stdio: StdioPlan,
    init: bool,
    host_network: bool,
    change: Option<Change>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("root", &self.root)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}

/// A running program. Dropping it does not end the program.
#[derive(Debug)]
pub struct Child {
    task: Arc<dyn Task>,
    /// Its stdin, if [`Command::stdin`] asked for it. Dropping it closes it.
    pub stdin: Option<pipe::Sender>,
    /// What it prints; none with a terminal.
    pub stdout: Option<pipe::Receiver>,
    /// What it prints to stderr; none with a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// Our side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

/// How a program ended and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed to stdout.
    pub stdout: Vec<u8>,
    /// What it printed to stderr.
    pub stderr: Vec<u8>,
}

impl Command {
    /// A program, looked for in `PATH` below the root unless it has a slash.
    pub fn new(runtime: Arc<dyn Runtime>, root: impl Into<PathBuf>, program: impl Into<String>) -> Self {
        Self {
            runtime,
            root: root.into(),
            read_only: false,
            arguments: vec![program.into()],
            env: BTreeMap::from([("PATH".to_owned(), defaults::PATH.to_owned())]),
            dir: PathBuf::from("/"),
            user: None,
            hostname: "sandbox".to_owned(),
            binds: Vec::new(),
            stdio: StdioPlan::default(),
            init: false,
            host_network: false,
            change: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. Nothing of this process's environment is passed on by itself.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the directory it starts in, below the root. Default `/`.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Sets the user: `name`, `uid`, `name:group` or `uid:gid`, looked up in the root's own files. Default root, which is this
    /// process's user where that is an ordinary one.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the host name that it sees.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = name.into();
        self
    }

    /// Lets it write nothing to its root.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Shows it a directory or file of the host.
    pub fn bind(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>, read_only: bool) -> Self {
        self.binds.push((source.into(), target.into(), read_only));
        self
    }

    /// Gives it a stdin to write to, [`Child::stdin`]; otherwise it is empty.
    pub fn stdin(mut self, open: bool) -> Self {
        self.stdio.stdin = open;
        self
    }

    /// Gives it a terminal of so many rows and columns, [`Child::terminal`].
    pub fn terminal(mut self, rows: u16, columns: u16) -> Self {
        self.stdio.terminal = Some((rows, columns));
        self
    }

    /// Puts a small init in as pid 1, which passes signals on and reaps orphans.
    pub fn init(mut self, init: bool) -> Self {
        self.init = init;
        self
    }

    /// Leaves it in the host's network.
    pub fn host_network(mut self, host: bool) -> Self {
        self.host_network = host;
        self
    }

    /// Changes the OCI specification that is made of all this, at the last moment: limits, capabilities, mounts.
    pub fn configure(mut self, change: impl FnOnce(&mut Spec) + Send + 'static) -> Self {
        self.change = Some(Box::new(change));
        self
    }

    /// Starts it. Returns once it runs.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    ///
    /// # Cancel safety
    /// As [`Runtime::start`].
    pub async fn spawn(self) -> Result<Child> {
        let runtime = Arc::clone(&self.runtime);
        let started = runtime.start(self.launch()?).await?;
        let child = Child {
            task: started.task,
            stdin: None,
            stdout: None,
            stderr: None,
            terminal: started.terminal,
        };
        match connect(started.stdin, [started.stdout, started.stderr]) {
            Ok((stdin, [stdout, stderr])) => Ok(Child {
                stdin,
                stdout,
                stderr,
                ..child
            }),
            Err(error) => {
                child.kill().await?;
                Err(error)
            }
        }
    }

    /// Runs it to its end, and collects what it prints. With a terminal, that is [`Child::terminal`]'s to tell.
    ///
    /// # Errors
    /// As [`Command::spawn`]. A program that fails is no error: see [`Output::status`].
    ///
    /// # Cancel safety
    /// As [`Command::spawn`]; once it runs it goes on.
    pub async fn output(self) -> Result<Output> {
        self.spawn().await?.wait_with_output().await
    }

    /// Runs it to its end. What it prints goes nowhere.
    ///
    /// # Errors
    /// As [`Command::output`].
    ///
    /// # Cancel safety
    /// As [`Command::output`].
    pub async fn status(self) -> Result<ExitStatus> {
        Ok(self.output().await?.status)
    }

    fn launch(mut self) -> Result<Launch> {
        let mut spec = self.spec().map_err(made)?;
        if let Some(change) = self.change.take() {
            change(&mut spec);
        }
        let shared = match self.host_network {
            true => vec![SharedNamespace::Host(oci_spec::runtime::LinuxNamespaceType::Network)],
            false => Vec::new(),
        };
        Ok(Launch {
            id: ContainerId::random(),
            spec,
            user: self.user,
            extra_groups: Vec::new(),
            rootfs: vec![Mount::bind(&self.root, self.read_only)],
            stdio: self.stdio,
            init: self.init,
            scratch: Vec::new(),
            best_effort_limits: false,
            shared,
            privileged: false,
            mounts: Vec::new(),
            hold: false,
            bundle: None,
            name: None,
            notes: None,
        })
    }

    fn spec(&self) -> Result<Spec, OciSpecError> {
        let set = CapabilitySet::docker();
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(set.to_oci())
            .effective(set.to_oci())
            .permitted(set.to_oci())
            .inheritable(CapabilitySet::EMPTY.to_oci())
            .ambient(CapabilitySet::EMPTY.to_oci())
            .build()?;
        let env = self.env.iter().map(|(name, value)| format!("{name}={value}"));
        let process = ProcessBuilder::default()
            .terminal(self.stdio.terminal.is_some())
            .user(UserBuilder::default().uid(0u32).gid(0u32).build()?)
            .args(self.arguments.clone())
            .env(env.collect::<Vec<_>>())
            .cwd(&self.dir)
            .capabilities(capabilities)
            .no_new_privileges(true)
            .build()?;
        let mut mounts = defaults::mounts();
        for (source, target, read_only) in &self.binds {
            let access = if *read_only { "ro" } else { "rw" };
            let mount = MountBuilder::default()
                .destination(target)
                .typ("bind")
                .source(source)
                .options(vec!["rbind".to_owned(), access.to_owned()])
                .build()?;
            mounts.push(mount);
        }
        let mut namespaces = defaults::namespaces();
        if self.host_network {
            namespaces.retain(|namespace| namespace.typ() != oci_spec::runtime::LinuxNamespaceType::Network);
        }
        let linux = LinuxBuilder::default()
            .namespaces(namespaces)
            .masked_paths(defaults::masked_paths())
            .readonly_paths(defaults::readonly_paths())
            .seccomp(seccomp::default_profile(&set))
            .build()?;
        let mut spec = SpecBuilder::default()
            .process(process)
            .hostname(&self.hostname)
            .mounts(mounts)
            .linux(linux)
            .build()?;
        spec.set_root(None);
        Ok(spec)
    }
}

fn made(error: OciSpecError) -> Error {
    Error::internal("the command makes no OCI runtime spec").with_source(error)
}

type Pipes = (Option<pipe::Sender>, [Option<pipe::Receiver>; 2]);

fn connect(stdin: Option<OwnedFd>, outputs: [Option<OwnedFd>; 2]) -> Result<Pipes> {
    let step = |error| Error::os("connect to a program's streams", error);
    let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose().map_err(step)?;
    let [stdout, stderr] = outputs.map(|fd| fd.map(pipe::Receiver::from_owned_fd).transpose());
    Ok((stdin, [stdout.map_err(step)?, stderr.map_err(step)?]))
}

impl Child {
    /// Its pid on the host.
    pub fn id(&self) -> u32 {
        self.task.pid()
    }

    /// The running program as runtimes see it: pause, further commands in it, limits.
    pub fn task(&self) -> &Arc<dyn Task> {
        &self.task
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `InvalidState` if it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.task.signal(signal, false).await
    }

    /// Kills it, with everything that it has started, and waits for its end.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub async fn kill(&self) -> Result<ExitStatus> {
        // One that has ended needs none.
        let _ = self.task.signal(Signal::KILL, true).await;
        self.wait().await
    }

    /// Waits for its end. Any number of callers may, before and after it.
    ///
    /// # Errors
    /// Those of the runtime.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn wait(&self) -> Result<ExitStatus> {
        let exit = self.task.wait().await?;
        // Twice is no harm: whoever comes first has done it.
        let _ = self.task.remove().await;
        Ok(exit.status)
    }

    /// Closes its stdin, waits for its end, and collects what it prints until then.
    ///
    /// # Errors
    /// As [`Child::wait`], and `Os` where its output cannot be read.
    ///
    /// # Cancel safety
    /// A dropped call loses what it has read; the program goes on.
    pub async fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let (out, err) = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr, status) = tokio::join!(collect(out), collect(err), self.wait());
        Ok(Output {
            status: status?,
            stdout: stdout?,
            stderr: stderr?,
        })
    }
}

async fn collect(stream: Option<pipe::Receiver>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let read = stream.read_to_end(&mut bytes).await;
        read.map_err(|error| Error::os("read a program's output", error))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use tokio::io::AsyncWriteExt as _;

    use super::super::native::{NativeOptions, NativeRuntime};
    use super::*;

    /// A root with busybox, and nothing else.
    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "data"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        crate::runtime::copy_program(Path::new("/bin/busybox"), &dir.path().join("bin/busybox"));
        for name in ["sh", "cat", "sleep", "ps", "tty", "ls"] {
            symlink("busybox", dir.path().join("bin").join(name)).unwrap();
        }
        dir
    }

    fn runtime() -> Arc<NativeRuntime> {
        Arc::new(NativeRuntime::new(NativeOptions::default()))
    }

    async fn says(root: &Path, script: &str) -> Output {
        let command = Command::new(runtime(), root, "sh").args(["-c", script]);
        command.output().await.unwrap()
    }

    #[tokio::test]
    async fn p11_status_output_and_streams_as_of_a_command() {
        let root = root();
        let out = says(root.path(), "echo out; echo err >&2; exit 7").await;
        assert_eq!(
            (out.status.code(), out.stdout, out.stderr),
            (7, b"out\n".to_vec(), b"err\n".to_vec())
        );
        // The first process of a namespace is deaf to its own signals; its children are not.
        let killed = says(root.path(), "sh -c 'kill -9 $$'; exit $?").await;
        assert_eq!((killed.status.signal(), killed.status.code()), (None, 137));

        let cat = Command::new(runtime(), root.path(), "cat").stdin(true);
        let mut cat = cat.spawn().await.unwrap();
        let mut stdin = cat.stdin.take().unwrap();
        stdin.write_all(b"through").await.unwrap();
        drop(stdin);
        assert_eq!(cat.wait_with_output().await.unwrap().stdout, b"through");

        let env = Command::new(runtime(), root.path(), "sh")
            .args(["-c", "echo $A $HOME; pwd; hostname 2>/dev/null || busybox hostname"])
            .env("A", "b")
            .current_dir("/tmp")
            .hostname("box");
        assert_eq!(env.output().await.unwrap().stdout, b"b /\n/tmp\nbox\n");

        let missing = Command::new(runtime(), root.path(), "nothing")
            .spawn()
            .await
            .unwrap_err();
        assert_eq!(missing.kind(), &crate::ErrorKind::CommandNotFound);
    }

    #[tokio::test]
    async fn p11_it_is_kept_apart() {
        let root = root();
        let seen = says(
            root.path(),
            "echo $$; ls /proc | busybox grep -c '^[0-9]'; busybox grep NoNewPrivs /proc/self/status; \
             busybox grep Seccomp: /proc/self/status; busybox wc -l < /proc/net/dev; busybox unshare -U true 2>/dev/null; echo $?",
        );
        let seen = String::from_utf8(seen.await.stdout).unwrap();
        let lines: Vec<&str> = seen
            .lines()
            .map(|line| line.split_whitespace().last().unwrap())
            .collect();
        // Its own processes alone; no new privileges; a filter; two lines of heading and loopback; no further user namespace.
        assert_eq!(
            (lines[0], lines[2], lines[3], lines[4], lines[5]),
            ("1", "1", "2", "3", "1"),
            "{seen}"
        );
        assert!(lines[1].parse::<u32>().unwrap() <= 4, "{seen}");

        let host = tempfile::tempdir().unwrap();
        fs::set_permissions(host.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(host.path().join("in"), "host").unwrap();
        let bound = Command::new(runtime(), root.path(), "sh")
            .args([
                "-c",
                "cat /data/in; echo box > /data/out; touch /no 2>/dev/null; test ! -e /no; echo $?",
            ])
            .bind(host.path(), "/data", false)
            .read_only(true);
        assert_eq!(bound.output().await.unwrap().stdout, b"host0\n");
        assert_eq!(fs::read(host.path().join("out")).unwrap(), b"box\n");
    }

    #[tokio::test]
    async fn p11_a_child_is_killed_with_all_it_started_and_has_a_terminal_if_asked() {
        let root = root();
        let child = Command::new(runtime(), root.path(), "sh").args(["-c", "sleep 1000 & sleep 1000 & wait"]);
        let child = child.init(true).spawn().await.unwrap();
        assert!(Path::new(&format!("/proc/{}", child.id())).exists());
        assert_eq!(child.kill().await.unwrap().signal(), Some(9));
        assert_eq!(child.wait().await.unwrap().code(), 137);
        assert!(child.signal(Signal::TERM).await.is_err());

        let child = Command::new(runtime(), root.path(), "tty")
            .terminal(30, 100)
            .spawn()
            .await
            .unwrap();
        assert!(child.terminal.is_some() && child.stdout.is_none());
        assert_eq!(child.wait().await.unwrap().code(), 0);
    }
}
