//! `inspect`: everything about one container.

use super::local::Shared;
use super::record::{Record, time_of};
use super::{ContainerExit, ContainerInfo};
use crate::error::Result;
use crate::types::IdRange;

impl Shared {
    pub(crate) async fn inspect(&self, name: &str) -> Result<ContainerInfo> {
        let record = self.find(name).await?;
        let execs = self.execs.of(&record.id);
        // A driver that this process does not know has no file that it knows.
        let log_path = self
            .log_of(&record)
            .ok()
            .and_then(|(driver, target)| driver.path(&target));
        let mut info = info(record, self.parts.ownership, execs);
        info.log_path = log_path;
        Ok(info)
    }
}

fn info(record: Record, ownership: &str, execs: Vec<String>) -> ContainerInfo {
    let (command, labels) = (record.command(), record.labels());
    let health_check = record.health_check();
    let running = record.state.is_alive();
    let body = record.body;
    let pid = body.process.filter(|_| running).map(|process| process.pid);
    // Only where there is a user namespace: the container's own, or that of an ordinary user's engine.
    let mapped = pid.filter(|_| body.spec.user_namespace || ownership != "direct");
    let [uid_map, gid_map] = ["uid_map", "gid_map"].map(|file| mapped.map_or_else(Vec::new, |pid| id_map(pid, file)));
    ContainerInfo {
        id: record.id,
        name: record.name.to_string(),
        image_id: body.image_id,
        spec: body.spec,
        mounts: body.mounts,
        command,
        labels,
        state: record.state,
        pid,
        created: time_of(record.created_ns),
        started: body.started_ns.map(time_of),
        finished: body.finished_ns.map(time_of),
        exit: body.exit.map(ContainerExit::from),
        error: body.error,
        restart_count: body.restarts,
        health: body.health,
        health_check,
        log_path: None,
        ownership: ownership.to_owned(),
        uid_map,
        gid_map,
        warnings: body.warnings,
        execs,
    }
}

/// As this process sees the outer ids. A process that is gone has none.
fn id_map(pid: u32, file: &str) -> Vec<IdRange> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    IdRange::parse_map(&text)
}
