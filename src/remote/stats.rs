//! Readings of counters, out of Docker's JSON. Pure.

use serde_json::Value;

use super::json::{moment, objects};
use crate::containers::{BlockStats, CpuStats, MemoryStats, PidsStats, Stats};

/// A reading; what the other end does not count is `None`.
pub(super) fn read(value: &Value) -> Stats {
    Stats {
        read: moment(value, "read"),
        previous: moment(value, "preread").map(|at| (at, cpu(&value["precpu_stats"]))),
        cpu: cpu(&value["cpu_stats"]),
        memory: memory(&value["memory_stats"]),
        pids: PidsStats {
            current: value["pids_stats"]["current"].as_u64(),
            limit: value["pids_stats"]["limit"].as_u64(),
        },
        block: block(&value["blkio_stats"]),
    }
}

fn cpu(value: &Value) -> CpuStats {
    let usage = &value["cpu_usage"];
    let throttling = &value["throttling_data"];
    CpuStats {
        total_ns: usage["total_usage"].as_u64(),
        system_ns: usage["usage_in_kernelmode"].as_u64(),
        user_ns: usage["usage_in_usermode"].as_u64(),
        host_ns: value["system_cpu_usage"].as_u64(),
        online_cpus: value["online_cpus"].as_u64().and_then(|cpus| u32::try_from(cpus).ok()),
        throttled_periods: throttling["throttled_periods"].as_u64(),
        throttled_ns: throttling["throttled_time"].as_u64(),
    }
}

fn memory(value: &Value) -> MemoryStats {
    let detail = value["stats"].as_object().into_iter().flatten();
    MemoryStats {
        usage_bytes: value["usage"].as_u64(),
        limit_bytes: value["limit"].as_u64(),
        detail: detail
            .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
            .collect(),
    }
}

/// All devices together.
fn block(value: &Value) -> BlockStats {
    let sum = |op: &str| {
        let entries = objects(value, "io_service_bytes_recursive");
        let bytes = entries
            .filter(|entry| entry["op"].as_str().is_some_and(|word| word.eq_ignore_ascii_case(op)))
            .filter_map(|entry| entry["value"].as_u64());
        bytes.fold(None, |sum: Option<u64>, bytes| {
            Some(sum.unwrap_or(0).saturating_add(bytes))
        })
    };
    BlockStats {
        read_bytes: sum("read"),
        written_bytes: sum("write"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn g7_a_reading_of_dockerd_s() {
        let stats = read(&json!({
            "read": "2024-01-31T12:00:01Z", "preread": "0001-01-01T00:00:00Z",
            "cpu_stats": {"cpu_usage": {"total_usage": 5}, "online_cpus": 2},
            "memory_stats": {"usage": 7, "limit": 9, "stats": {"cache": 1, "odd": "x"}},
            "pids_stats": {"current": 3},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"major": 8, "op": "Read", "value": 1}, {"major": 9, "op": "read", "value": 2},
            ]},
        }));
        assert_eq!(
            (stats.cpu.total_ns, stats.cpu.online_cpus, stats.previous),
            (Some(5), Some(2), None)
        );
        assert_eq!((stats.memory.usage_bytes, stats.memory.detail["cache"]), (Some(7), 1));
        assert_eq!((stats.block.read_bytes, stats.block.written_bytes), (Some(3), None));
        assert_eq!(read(&json!({})), Stats::default());
    }
}
