//! `attach` and `resize`: the caller's side of standard streams.

use tokio::sync::mpsc;

use super::local::{InputEnds, Shared};
use super::state::{ContainerState, Refusal, Verb, decide, refuse};
use super::{AttachOptions, Attached, BoxStream, Input, SlowReader};
use crate::error::{Error, ErrorKind, Result};
use crate::logs::{TeeItem, TeeReader};

/// Chunks of stdin that may wait.
pub(crate) const INPUT_AHEAD: usize = 16;
/// Bytes that may wait for one reader.
const READER_LIMIT: usize = 64 << 20;

fn stream(reader: TeeReader) -> BoxStream<TeeItem> {
    Box::pin(futures_util::stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    }))
}

impl Shared {
    pub(crate) async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        let record = self.find(name).await?;
        self.must_be_ours(&record, "attach to")?;
        if !matches!(record.state, ContainerState::Created | ContainerState::Running) {
            return Err(refuse(&record.id, record.state, Verb::Resize, Refusal::NotRunning));
        }
        let slot = self.slot(&record.id);
        let tee = slot.output();
        let reader = match options.slow {
            SlowReader::Skip => tee.subscribe(READER_LIMIT),
            SlowReader::Keep => tee.collect(),
            SlowReader::Wait => return Err(Error::unsupported_verb("attach that holds the container up")),
        };
        let spec = &record.body.spec;
        let input = (spec.open_stdin).then(|| {
            let mut ends = slot.input();
            // The slot keeps no sender once one was handed out: stdin closes with the last attached writer.
            let sender = match ends.sender.take() {
                Some(sender) => sender,
                None => {
                    let (sender, receiver) = mpsc::channel(INPUT_AHEAD);
                    *ends = InputEnds {
                        sender: None,
                        receiver: Some(receiver),
                    };
                    sender
                }
            };
            Input { sender }
        });
        Ok(Attached {
            output: stream(reader),
            input,
        })
    }

    pub(crate) async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let record = self.find(name).await?;
        self.must_be_ours(&record, "resize")?;
        decide(&record.id, record.state, Verb::Resize)?;
        if !record.body.spec.tty {
            let message = format!("container {} has no terminal", record.id.short());
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let live = self.slot(&record.id).live();
        let live = live.ok_or_else(|| refuse(&record.id, ContainerState::Exited, Verb::Resize, Refusal::NotRunning))?;
        live.task.resize(rows, columns).await
    }
}
