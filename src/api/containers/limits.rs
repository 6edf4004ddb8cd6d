//! Limits of a container: Docker's JSON to [`Limits`], and Docker's words for those that cannot be.

use super::super::call::Call;
use super::super::error::Failure;
use super::super::object::Object;
use super::devices;
use crate::containers::Limits;
use crate::types::Bytes;

/// Docker's least, and the engine's.
const LEAST_MEMORY: u64 = 6 << 20;

/// What limits are for: some hold only where there is nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Create,
    Update,
}

/// Takes all of them. Source of the rules and words: moby, `daemon/daemon_unix.go`, `verifyPlatformContainerResources`.
pub(super) fn take(host: &mut Object, wanted: For) -> Result<Limits, Failure> {
    let mut limits = Limits {
        memory: memory(host, "Memory", "Minimum memory limit allowed is 6MB")?,
        memory_reservation: memory(host, "MemoryReservation", "Minimum memory reservation allowed is 6MB")?,
        memory_swap: host.take::<i64>("MemorySwap")?.filter(|swap| *swap != 0),
        ..Limits::default()
    };
    check_memory(&limits, wanted)?;
    limits.cpu_shares = unsigned(host, "CpuShares")?;
    limits.cpuset_cpus = host.text("CpusetCpus")?;
    limits.pids = host.take::<i64>("PidsLimit")?.filter(|pids| *pids > 0);
    limits.cpuset_mems = host.text("CpusetMems")?;
    limits.oom_kill_disable = host.take::<bool>("OomKillDisable")?.filter(|disable| *disable);
    limits.memory_swappiness = swappiness(host)?;
    limits.cpu_rt_period_us = unsigned(host, "CpuRealtimePeriod")?;
    limits.cpu_rt_runtime_us = host.take::<i64>("CpuRealtimeRuntime")?.filter(|runtime| *runtime != 0);
    take_cpu_time(host, &mut limits)?;
    devices::take_weight(host, &mut limits)?;
    Ok(limits)
}

/// -1 and none leave it to the kernel.
fn swappiness(host: &mut Object) -> Result<Option<u64>, Failure> {
    match host.take::<i64>("MemorySwappiness")? {
        None | Some(-1) => Ok(None),
        Some(value) => match u64::try_from(value) {
            Ok(value @ ..=100) => Ok(Some(value)),
            _ => {
                let message = format!("Invalid value: {value}, valid memory swappiness range is 0-100");
                Err(Failure::bad(message))
            }
        },
    }
}

fn memory(host: &mut Object, key: &str, too_little: &'static str) -> Result<Option<Bytes>, Failure> {
    match host.take::<i64>(key)? {
        None | Some(0) => Ok(None),
        Some(bytes) => match u64::try_from(bytes) {
            Ok(bytes) if bytes >= LEAST_MEMORY => Ok(Some(Bytes::new(bytes))),
            _ => Err(Failure::bad(too_little)),
        },
    }
}

/// Swap is counted together with memory. -1 is as much as there is.
fn check_memory(limits: &Limits, wanted: For) -> Result<(), Failure> {
    let swap = limits.memory_swap.and_then(|swap| u64::try_from(swap).ok());
    let bad = match (limits.memory, swap, limits.memory_reservation) {
        (Some(memory), Some(swap), _) if swap < memory.get() => {
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        }
        (None, Some(_), _) if wanted == For::Create => {
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        }
        (Some(memory), _, Some(reservation)) if memory < reservation => {
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        }
        _ => return Ok(()),
    };
    Err(Failure::bad(bad))
}

/// CPUs, or a quota of a period, which is the same.
fn take_cpu_time(host: &mut Object, limits: &mut Limits) -> Result<(), Failure> {
    limits.nano_cpus = unsigned(host, "NanoCpus")?;
    limits.cpu_period_us = unsigned(host, "CpuPeriod")?;
    limits.cpu_quota_us = host.take::<i64>("CpuQuota")?.filter(|quota| *quota != 0);
    let (period, quota) = (limits.cpu_period_us, limits.cpu_quota_us);
    let second = match (period, quota) {
        _ if limits.nano_cpus.is_none() => None,
        (Some(_), _) => Some("Period"),
        (None, quota) => quota.map(|_| "Quota"),
    };
    if let Some(second) = second {
        let message = format!("Conflicting options: Nano CPUs and CPU {second} cannot both be set");
        return Err(Failure::bad(message));
    }
    if period.is_some_and(|period| !(1_000..=1_000_000).contains(&period)) {
        let message = "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
        return Err(Failure::bad(message));
    }
    // Whatever is below zero is no limit.
    limits.cpu_quota_us = quota.map(|quota| quota.max(-1));
    if quota.is_some_and(|quota| (1..1_000).contains(&quota)) {
        return Err(Failure::bad("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    Ok(())
}

/// More CPUs than the host has are a mistake. The host is asked only where CPUs are.
pub(super) async fn check_cpus(call: &Call, limits: &Limits) -> Result<(), Failure> {
    let Some(nano) = limits.nano_cpus else {
        return Ok(());
    };
    let cpus = call.engine.system().info().await?.cpus;
    let most = u64::try_from(cpus).unwrap_or(u64::MAX).saturating_mul(1_000_000_000);
    if nano <= most {
        return Ok(());
    }
    let message = format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available");
    Err(Failure::bad(message))
}

/// A number that cannot be negative; 0 is none.
pub(super) fn unsigned(host: &mut Object, key: &str) -> Result<Option<u64>, Failure> {
    match host.take::<i64>(key)? {
        None | Some(0) => Ok(None),
        Some(value) => match u64::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(host.bad(key, "it cannot be negative")),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(value: Value, wanted: For) -> Result<Limits, Failure> {
        let Value::Object(map) = value else { panic!() };
        take(&mut Object::new("HostConfig", map), wanted)
    }

    #[test]
    fn b7_limits_that_cannot_be_in_docker_s_words() {
        for (asked, words) in [
            (json!({"Memory": 1024}), "Minimum memory limit allowed is 6MB"),
            (json!({"Memory": -5}), "Minimum memory limit allowed is 6MB"),
            (json!({"MemoryReservation": 1}), "Minimum memory reservation allowed"),
            (json!({"MemorySwap": 64 << 20}), "always set the Memory limit"),
            (
                json!({"Memory": 64 << 20, "MemorySwap": 32 << 20}),
                "should be larger than memory limit",
            ),
            (
                json!({"Memory": 64 << 20, "MemoryReservation": 65 << 20}),
                "less than memory reservation limit",
            ),
            (json!({"NanoCpus": 1, "CpuQuota": 50000}), "Nano CPUs and CPU Quota"),
            (json!({"NanoCpus": 1, "CpuPeriod": 50000}), "Nano CPUs and CPU Period"),
            (json!({"CpuPeriod": 10}), "CPU cfs period can not be"),
            (json!({"CpuQuota": 10}), "CPU cfs quota can not be"),
            (json!({"CpuShares": -1}), "cannot be negative"),
            (
                json!({"MemorySwappiness": 101}),
                "valid memory swappiness range is 0-100",
            ),
        ] {
            let refused = of(asked.clone(), For::Create).unwrap_err();
            assert_eq!(refused.status, 400, "{asked}");
            assert!(refused.message.contains(words), "{asked}: {}", refused.message);
        }
    }

    #[test]
    fn limits_that_can_be() {
        let made = of(
            json!({"memory": 64 << 20, "MEMORYSWAP": -1, "CpuQuota": 50000, "PidsLimit": -1, "MemorySwappiness": -1}),
            For::Create,
        )
        .unwrap();
        assert_eq!(made.memory, Some(Bytes::mib(64)));
        assert_eq!(
            (made.memory_swap, made.nano_cpus, made.cpu_quota_us, made.pids),
            (Some(-1), None, Some(50_000), None)
        );
        // The container may have a limit of memory already.
        assert!(of(json!({"MemorySwap": 64 << 20}), For::Update).is_ok());
    }
}
