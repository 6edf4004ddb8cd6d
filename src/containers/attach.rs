//! `attach` and `resize`: the caller's side of standard streams.

use std::collections::VecDeque;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};

use super::local::{Place, Shared, Slot};
pub(crate) use super::output::{chunks, reader};
use super::record::Record;
use super::state::{ContainerState, Refusal, Verb, decide, refuse};
use super::{AttachOptions, Attached, BoxStream, Input, SlowReader};
use crate::error::{Error, ErrorKind, Result};
use crate::logs::{Chunk, Cut, LogEntries, LogEntry, LogQuery, Tee, TeeItem};

impl Shared {
    pub(crate) async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        let (id, slot) = match self.place_of(name).await? {
            Place::Here(id, slot) => (id, slot),
            Place::Elsewhere(elsewhere) => return elsewhere.attach(options).await,
        };
        let record = self.read_settled(&id, &slot).await?;
        decide(&record.id, record.state, Verb::Attach)?;
        if record.is_detached() && record.state.is_alive() {
            return self.attach_to_shim(&record, &slot, options).await;
        }
        let attached = self.streams_of(&record, &slot, options)?;
        self.tell(self.event(&record, "attach")).await;
        Ok(attached)
    }

    /// The caller's side of the streams of a container of ours: of this run, or of the next.
    pub(super) fn streams_of(&self, record: &Record, slot: &Slot, options: AttachOptions) -> Result<Attached> {
        let tee = match record.state.is_alive() {
            true => slot.output(),
            false => slot.next_output(),
        };
        let output = match options.logs {
            false => chunks(reader(&tee, options.slow)),
            true => self.with_log(record, &tee, options.slow)?,
        };
        let input = record.body.spec.open_stdin.then(|| Input::new(&slot.input));
        Ok(Attached { output, input })
    }

    /// What was logged, then what lies between the log and now, then what comes.
    fn with_log(&self, record: &Record, tee: &Tee, slow: SlowReader) -> Result<BoxStream<TeeItem>> {
        let (reader, cut) = tee.with_cut(|tee| reader(tee, slow));
        let query = LogQuery {
            until_ns: Some(cut.until_ns),
            ..LogQuery::default()
        };
        let begun: VecDeque<_> = cut.begun.iter().cloned().map(TeeItem::Chunk).collect();
        let logged = self.logged(record, query, tee.clone(), cut)?;
        let all = logged.chain(stream::iter(begun)).chain(chunks(reader));
        Ok(Box::pin(all))
    }

    /// The log up to a cut, read on the driver.
    fn logged(&self, record: &Record, query: LogQuery, tee: Tee, cut: Cut) -> Result<BoxStream<TeeItem>> {
        let (logs, target) = self.log_of(record)?;
        // A driver that cannot read back says so now.
        drop(logs.read(&target, query.clone())?);
        let read = async move {
            tee.logged(&cut).await;
            match logs.read(&target, query) {
                Ok(entries) => history(entries),
                Err(error) => {
                    tracing::warn!(error = error.report(), "a log could not be read");
                    Box::pin(stream::empty()) as Pin<Box<dyn Stream<Item = TeeItem> + Send>>
                }
            }
        };
        let source = Box::pin(stream::once(read).flatten());
        Ok(self.parts.spawner.stream(source, 64))
    }

    pub(crate) async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return elsewhere.resize(rows, columns).await;
        }
        decide(&record.id, record.state, Verb::Resize)?;
        if !record.body.spec.tty {
            let message = format!("container {} has no terminal", record.id.short());
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let slot = self.slot_of(&record);
        self.with_shim(&record, &slot).await?;
        let live = self.live(&record, &slot).await?;
        let live = live.ok_or_else(|| refuse(&record.id, ContainerState::Exited, Verb::Resize, Refusal::NotRunning))?;
        live.task.resize(rows, columns).await?;
        let event = self.event(&record, "resize");
        self.tell(
            event
                .with("height", rows.to_string())
                .with("width", columns.to_string()),
        )
        .await;
        Ok(())
    }
}

/// Entries as chunks. Where rotation was faster than the reader, a gap is told; its size is not known.
pub(super) fn history(entries: LogEntries) -> Pin<Box<dyn Stream<Item = TeeItem> + Send>> {
    let item = |entry: Result<LogEntry>| match entry {
        Ok(LogEntry { stream, bytes, .. }) => TeeItem::Chunk(Chunk { stream, bytes }),
        Err(error) => {
            tracing::warn!(error = error.report(), "a part of a log could not be read");
            TeeItem::Lagged { missed_bytes: 0 }
        }
    };
    Box::pin(entries.map(item))
}
