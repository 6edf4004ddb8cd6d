//! `update`: limits, of a running container at once.

use oci_spec::runtime::{LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder};

use super::detached::restart_of;
use super::local::Shared;
use super::plan;
use super::policy::RestartPolicy;
use super::spec::Limits;
use super::state::{Verb, decide};
use super::validate;
use crate::error::{Error, Result};

impl Shared {
    pub(crate) async fn update(&self, name: &str, limits: Limits) -> Result<Vec<String>> {
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return elsewhere.update(&limits).await;
        }
        let slot = self.slot_of(&record);
        self.with_shim(&record, &slot).await?;
        let _turn = self.turn(&record.id, &slot).await?;
        let mut record = self.read_in_turn(&record.id, &slot).await?;
        decide(&record.id, record.state, Verb::Update)?;
        only_at_create(&limits)?;
        let merged = merge(&record.body.spec.limits, &limits);
        validate::check_limits(&merged)?;
        let resources = changes(&merged, &limits)?;
        if let Some(live) = self.live(&record, &slot).await? {
            live.task.update(&resources).await?;
        }
        record.body.spec.limits = merged;
        let state = record.state;
        self.record_state(&mut record, state, "update").await?;
        Ok(Vec::new())
    }
}

/// What Docker, too, takes when a container is made and never after.
fn only_at_create(limits: &Limits) -> Result<()> {
    let devices = [
        &limits.device_read_bps,
        &limits.device_write_bps,
        &limits.device_read_iops,
        &limits.device_write_iops,
    ];
    let any = devices.iter().any(|rates| !rates.is_empty());
    if any || !limits.blkio_weight_devices.is_empty() || !limits.huge_pages.is_empty() {
        let needs = "a container that is created with them";
        return Err(Error::unsupported(
            "limits of single devices or of huge pages in an update",
            needs,
        ));
    }
    Ok(())
}

impl Shared {
    pub(crate) async fn set_restart(&self, name: &str, policy: RestartPolicy) -> Result<()> {
        let record = self.find(name).await?;
        if let Some(elsewhere) = self.elsewhere(&record) {
            return elsewhere.set_restart(policy).await;
        }
        let slot = self.slot_of(&record);
        self.with_shim(&record, &slot).await?;
        let _turn = self.turn(&record.id, &slot).await?;
        let mut record = self.read_in_turn(&record.id, &slot).await?;
        decide(&record.id, record.state, Verb::Update)?;
        record.body.spec.restart = policy;
        validate::check_restart(&record.body.spec)?;
        let live = self.live(&record, &slot).await?;
        if let Some(task) = live.and_then(|live| live.detached) {
            task.set_restart(restart_of(policy)).await?;
        }
        let state = record.state;
        self.record_state(&mut record, state, "update").await
    }
}

/// The limits from now on: what is not given stays.
fn merge(old: &Limits, new: &Limits) -> Limits {
    Limits {
        memory: new.memory.or(old.memory),
        memory_reservation: new.memory_reservation.or(old.memory_reservation),
        memory_swap: new.memory_swap.or(old.memory_swap),
        memory_swappiness: new.memory_swappiness.or(old.memory_swappiness),
        oom_kill_disable: new.oom_kill_disable.or(old.oom_kill_disable),
        nano_cpus: new.nano_cpus.or(old.nano_cpus),
        cpu_quota_us: new.cpu_quota_us.or(old.cpu_quota_us),
        cpu_period_us: new.cpu_period_us.or(old.cpu_period_us),
        cpu_rt_runtime_us: new.cpu_rt_runtime_us.or(old.cpu_rt_runtime_us),
        cpu_rt_period_us: new.cpu_rt_period_us.or(old.cpu_rt_period_us),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpuset_cpus: new.cpuset_cpus.clone().or_else(|| old.cpuset_cpus.clone()),
        cpuset_mems: new.cpuset_mems.clone().or_else(|| old.cpuset_mems.clone()),
        pids: new.pids.or(old.pids),
        blkio_weight: new.blkio_weight.or(old.blkio_weight),
        // The rest holds for as long as the container does.
        ..old.clone()
    }
}

/// What of the merged limits must be set anew. A limit that is lifted is set to none, not left out.
fn changes(merged: &Limits, new: &Limits) -> Result<LinuxResources> {
    let planned = plan::resources(merged)?;
    let mut builder = LinuxResourcesBuilder::default();
    if let Some(mut memory) = planned.memory().filter(|_| touches_memory(new)) {
        if new.memory.is_some_and(|limit| limit.get() == 0) {
            memory.set_limit(Some(-1));
            memory.set_swap(Some(-1));
        }
        builder = builder.memory(memory);
    } else if new.memory.is_some_and(|limit| limit.get() == 0) {
        let mut memory = oci_spec::runtime::LinuxMemory::default();
        memory.set_limit(Some(-1)).set_swap(Some(-1));
        builder = builder.memory(memory);
    }
    if touches_cpu(new) {
        let mut cpu = planned.cpu().clone().unwrap_or_default();
        if (new.nano_cpus == Some(0) || new.cpu_quota_us == Some(0)) && cpu.quota().is_none() {
            cpu.set_quota(Some(-1));
        }
        builder = builder.cpu(cpu);
    }
    if let Some(pids) = new.pids {
        let limit = if pids > 0 { pids } else { -1 };
        builder = builder.pids(LinuxPidsBuilder::default().limit(limit).build().map_err(made)?);
    }
    if let Some(limits) = planned.block_io().clone().filter(|_| new.blkio_weight.is_some()) {
        builder = builder.block_io(limits);
    }
    builder.build().map_err(made)
}

fn touches_memory(new: &Limits) -> bool {
    new.memory.is_some()
        || new.memory_reservation.is_some()
        || new.memory_swap.is_some()
        || new.memory_swappiness.is_some()
        || new.oom_kill_disable.is_some()
}

fn touches_cpu(new: &Limits) -> bool {
    new.nano_cpus.is_some()
        || new.cpu_quota_us.is_some()
        || new.cpu_period_us.is_some()
        || new.cpu_rt_runtime_us.is_some()
        || new.cpu_rt_period_us.is_some()
        || new.cpu_shares.is_some()
        || new.cpuset_cpus.is_some()
        || new.cpuset_mems.is_some()
}

fn made(error: oci_spec::OciSpecError) -> Error {
    Error::internal("the limits make no OCI resources").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Bytes;

    #[test]
    fn g9_what_is_not_given_stays() {
        let old = Limits {
            memory: Some(Bytes::mib(64)),
            pids: Some(10),
            nano_cpus: Some(1_000_000_000),
            ..Limits::default()
        };
        let new = Limits {
            memory: Some(Bytes::mib(128)),
            ..Limits::default()
        };
        let merged = merge(&old, &new);
        assert_eq!((merged.memory, merged.pids), (Some(Bytes::mib(128)), Some(10)));
        let changed = changes(&merged, &new).unwrap();
        assert_eq!(changed.memory().as_ref().unwrap().limit(), Some(128 << 20));
        assert!(changed.cpu().is_none() && changed.pids().is_none());
    }

    #[test]
    fn g9_nothing_is_no_limit() {
        let new = Limits {
            memory: Some(Bytes::mib(0)),
            pids: Some(0),
            nano_cpus: Some(0),
            ..Limits::default()
        };
        let changed = changes(&merge(&Limits::default(), &new), &new).unwrap();
        assert_eq!(changed.memory().as_ref().unwrap().limit(), Some(-1));
        assert_eq!(changed.pids().as_ref().unwrap().limit(), -1);
        assert_eq!(changed.cpu().as_ref().unwrap().quota(), Some(-1));
    }
}
