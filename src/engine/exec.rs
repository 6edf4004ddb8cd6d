//! `exec`: a command in a running container, like [`std::process::Command`].

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::Container;
use super::run::Output;
use crate::containers::{AttachOptions, Attached, ContainerManager, ExecInfo, ExecSpec, SlowReader};
use crate::error::{Error, Result};
use crate::logs::{LogStream, TeeItem};
use crate::types::ExitStatus;

/// A command about to run in a container. Awaiting it yields the started [`RunningExec`].
///
/// ```no_run
/// # async fn example(container: longshore::Container) -> longshore::Result<()> {
/// use longshore::ExecSpec;
/// // To the end, with what it wrote.
/// let output = container.exec(ExecSpec::new(["ls", "/"])).output().await?;
/// assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
///
/// // As another user, with something to read.
/// let sorted = container.exec(ExecSpec::new(["sort"]).user("nobody")).input("b\na\n").output().await?;
/// assert_eq!(sorted.stdout, b"a\nb\n");
///
/// // Side by side with the caller.
/// let running = container.exec(ExecSpec::new(["sleep", "1"])).await?;
/// assert!(running.inspect().await?.running);
/// assert_eq!(running.wait().await?.code(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing runs until it is awaited"]
pub struct ExecBuilder {
    container: Container,
    spec: ExecSpec,
    attach: AttachOptions,
    input: Option<Bytes>,
}

/// A command that was started in a container. Dropping it closes the command's stdin and lets it go on.
#[derive(Debug)]
pub struct RunningExec {
    container: Container,
    id: String,
    /// Its standard streams.
    pub attached: Attached,
}

impl ExecBuilder {
    pub(crate) fn new(container: Container, spec: ExecSpec) -> Self {
        Self {
            container,
            spec,
            attach: AttachOptions::default(),
            input: None,
        }
    }

    /// What becomes of output that the reader does not take in time. Of [`ExecBuilder::output`], nothing is lost.
    pub fn slow(mut self, slow: SlowReader) -> Self {
        self.attach.slow = slow;
        self
    }

    /// What [`ExecBuilder::output`] writes to its stdin before it closes it.
    pub fn input(mut self, bytes: impl Into<Bytes>) -> Self {
        self.input = Some(bytes.into());
        self.spec.stdin = true;
        self
    }

    /// Runs the command to its end and collects what it wrote.
    ///
    /// # Errors
    /// Those of [`exec_create`](crate::ContainerManager::exec_create) and
    /// [`exec_start`](crate::ContainerManager::exec_start). A command that fails is no error: see [`Output::status`].
    ///
    /// # Cancel safety
    /// A dropped call closes the command's stdin; the command goes on.
    pub async fn output(mut self) -> Result<Output> {
        self.attach.slow = SlowReader::Keep;
        let bytes = self.input.take();
        let mut running = self.start().await?;
        let input = running.attached.input.take();
        let writing = async move {
            if let (Some(input), Some(bytes)) = (input, bytes) {
                for piece in bytes.chunks(PIECE) {
                    // A command that does not want more has closed its stdin; how it ended says the rest.
                    if input.write(bytes.slice_ref(piece)).await.is_err() {
                        break;
                    }
                }
            }
        };
        let (collected, ()) = futures_util::future::join(collect(&mut running.attached), writing).await;
        let (stdout, stderr) = collected?;
        let status = running.wait().await?;
        Ok(Output {
            status,
            stdout,
            stderr,
            oom_killed: None,
        })
    }

    async fn start(self) -> Result<RunningExec> {
        let containers = self.container.containers();
        let exec = containers.exec_create(self.container.id().as_str(), self.spec).await?;
        let attached = containers.exec_start(&exec.id, self.attach).await?;
        Ok(RunningExec {
            container: self.container,
            id: exec.id,
            attached,
        })
    }
}

/// Bytes of stdin that are queued at once.
const PIECE: usize = 64 << 10;

/// Everything that comes, to the end.
pub(super) async fn collect(attached: &mut Attached) -> Result<(Vec<u8>, Vec<u8>)> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(item) = attached.output.next().await {
        let TeeItem::Chunk(chunk) = item else {
            return Err(Error::internal("output was lost for a reader that must not lose any"));
        };
        match chunk.stream {
            LogStream::Stdout => stdout.extend_from_slice(&chunk.bytes),
            LogStream::Stderr => stderr.extend_from_slice(&chunk.bytes),
        }
    }
    Ok((stdout, stderr))
}

impl IntoFuture for ExecBuilder {
    type Output = Result<RunningExec>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<RunningExec>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl RunningExec {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`ContainerManager::exec_wait`](crate::ContainerManager::exec_wait).
    pub fn wait(&self) -> impl Future<Output = Result<ExitStatus>> + Send + use<> {
        let (containers, id) = self.parts();
        async move { containers.exec_wait(&id).await }
    }

    /// Everything about it.
    ///
    /// # Errors
    /// As [`ContainerManager::exec_inspect`](crate::ContainerManager::exec_inspect).
    pub fn inspect(&self) -> impl Future<Output = Result<ExecInfo>> + Send + use<> {
        let (containers, id) = self.parts();
        async move { containers.exec_inspect(&id).await }
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// As [`ContainerManager::exec_resize`](crate::ContainerManager::exec_resize).
    pub fn resize(&self, rows: u16, columns: u16) -> impl Future<Output = Result<()>> + Send + use<> {
        let (containers, id) = self.parts();
        async move { containers.exec_resize(&id, rows, columns).await }
    }

    /// What a future needs of it. One that borrowed it would not be `Send`, as its streams are not `Sync`.
    fn parts(&self) -> (Arc<dyn ContainerManager>, String) {
        (Arc::clone(self.container.containers()), self.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::{RemoveOptions, StopOptions};
    use crate::engine::Engine;

    fn sent<F: Future + Send>(_: impl FnOnce() -> F) {}

    /// Whatever a handle gives can be spawned; nothing of it runs here.
    #[test]
    fn futures_of_handles_can_be_sent() {
        let container: fn() -> Container = || unreachable!();
        let running: fn() -> RunningExec = || unreachable!();
        sent(|| async move { container().start().await });
        sent(|| async move { container().wait().await });
        sent(|| async move { container().stop(StopOptions::default()).await });
        sent(|| async move { container().remove(RemoveOptions::force()).await });
        sent(|| async move { container().exec(ExecSpec::new(["true"])).output().await });
        sent(|| async move {
            let running = running();
            (
                running.wait().await,
                running.inspect().await,
                running.resize(1, 1).await,
            )
        });
        let engine: fn() -> Engine = || unreachable!();
        sent(|| async move { engine().run(crate::ContainerSpec::image("x")).output().await });
        sent(|| async move { engine().pull("x").await });
        sent(|| async move { engine().push("x").await });
        sent(|| async move { engine().save(["x"]).await });
    }
}
