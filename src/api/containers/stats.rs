//! `stats`.

use futures_util::StreamExt as _;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::super::fields::{self, Shape};
use super::super::jsonl;
use super::super::reply::{self, Body};
use super::super::router::Answer;
use super::super::times;
use super::super::version::ApiVersion;
use crate::containers::{BlockStats, CpuStats, Stats, StatsOptions};

pub(super) async fn stats(call: Call) -> Answer {
    let stream = call.query.flag_or("stream", true);
    let options = StatsOptions {
        stream,
        one_shot: call.query.flag("one-shot"),
    };
    if stream && options.one_shot {
        return Err(Failure::bad("cannot have stream=true and one-shot=true"));
    }
    let info = call.engine.containers().inspect(call.name()).await?;
    let mut readings = call.engine.containers().stats(info.id.as_str(), options).await?;
    let (id, name) = (info.id.to_string(), format!("/{}", info.name));
    if !stream {
        let reading = match readings.next().await {
            Some(reading) => reading?,
            None => Stats::default(),
        };
        return Ok(reply::ok(&shaped(&reading, &id, &name, call.version)));
    }
    let version = call.version;
    let lines = readings.map(move |reading| reading.map(|reading| jsonl::line(&shaped(&reading, &id, &name, version))));
    Ok(reply::typed(StatusCode::OK, reply::JSON, Body::stream(lines)))
}

fn shaped(reading: &Stats, id: &str, name: &str, version: ApiVersion) -> Value {
    let mut value = body(reading, id, name);
    fields::fit(Shape::Stats, version, &mut value);
    value
}

/// A reading, in Docker's shape. What the host does not count is left out, or 0 where clients calculate with it.
fn body(reading: &Stats, id: &str, name: &str) -> Value {
    let (before, cpu_before) = match &reading.previous {
        Some((at, cpu)) => (Some(*at), *cpu),
        None => (None, CpuStats::default()),
    };
    json!({
        "id": id,
        "name": name,
        "os_type": "linux",
        "read": times::or_never(reading.read),
        "preread": times::or_never(before),
        "pids_stats": {"current": reading.pids.current, "limit": reading.pids.limit},
        "num_procs": 0,
        "blkio_stats": block(&reading.block),
        "storage_stats": {},
        "cpu_stats": cpu(&reading.cpu),
        "precpu_stats": cpu(&cpu_before),
        "memory_stats": {
            "usage": reading.memory.usage_bytes,
            "limit": reading.memory.limit_bytes,
            "stats": reading.memory.detail,
        },
    })
}

fn cpu(cpu: &CpuStats) -> Value {
    let mut value = json!({
        "cpu_usage": {
            "total_usage": cpu.total_ns.unwrap_or(0),
            "usage_in_kernelmode": cpu.system_ns.unwrap_or(0),
            "usage_in_usermode": cpu.user_ns.unwrap_or(0),
        },
        "throttling_data": {
            "periods": 0,
            "throttled_periods": cpu.throttled_periods.unwrap_or(0),
            "throttled_time": cpu.throttled_ns.unwrap_or(0),
        },
    });
    // A reading before the first has neither.
    if let Some(host) = cpu.host_ns {
        value["system_cpu_usage"] = json!(host);
    }
    if let Some(cpus) = cpu.online_cpus {
        value["online_cpus"] = json!(cpus);
    }
    value
}

fn block(block: &BlockStats) -> Value {
    let entry =
        |op: &str, bytes: Option<u64>| bytes.map(|value| json!({"major": 0, "minor": 0, "op": op, "value": value}));
    let bytes: Vec<Value> = [entry("read", block.read_bytes), entry("write", block.written_bytes)]
        .into_iter()
        .flatten()
        .collect();
    json!({
        "io_service_bytes_recursive": bytes,
        "io_serviced_recursive": [],
        "io_queue_recursive": [],
        "io_service_time_recursive": [],
        "io_wait_time_recursive": [],
        "io_merged_recursive": [],
        "io_time_recursive": [],
        "sectors_recursive": [],
    })
}
