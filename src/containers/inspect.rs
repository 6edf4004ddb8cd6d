//! `inspect`: everything about one container.

use super::local::Shared;
use super::record::{Record, time_of};
use super::state::ContainerState;
use super::{ContainerExit, ContainerInfo};
use crate::error::Result;

impl Shared {
    pub(crate) async fn inspect(&self, name: &str) -> Result<ContainerInfo> {
        let record = self.find(name).await?;
        Ok(info(record, self.parts.ownership))
    }
}

fn info(record: Record, ownership: &str) -> ContainerInfo {
    let (command, labels) = (record.command(), record.labels());
    let running = record.state == ContainerState::Running;
    let body = record.body;
    ContainerInfo {
        id: record.id,
        name: record.name.to_string(),
        image_id: body.image_id,
        spec: body.spec,
        command,
        labels,
        state: record.state,
        pid: body.process.filter(|_| running).map(|process| process.pid),
        created: time_of(record.created_ns),
        started: body.started_ns.map(time_of),
        finished: body.finished_ns.map(time_of),
        exit: body.exit.map(ContainerExit::from),
        error: body.error,
        ownership: ownership.to_owned(),
        execs: Vec::new(),
    }
}
