//! Options that limit a container: of `run` when it begins, of `update` afterwards.

use longshore::{Bytes, Limits};

use crate::options;

/// Limits. What is not given is not limited, or stays as it is.
#[derive(Debug, clap::Args)]
pub struct LimitArgs {
    /// Most memory, say 64m; 0 for no limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Most memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = memory_swap)]
    memory_swap: Option<i64>,
    /// Memory that the kernel tries to leave it
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<Bytes>,
    /// How readily the kernel swaps it out, 0 to 100 (version 1 of cgroups)
    #[arg(long, value_name = "NUMBER")]
    memory_swappiness: Option<u64>,
    /// Let it wait for memory instead of killing it (version 1 of cgroups)
    #[arg(long)]
    oom_kill_disable: bool,
    /// CPUs' worth of time, say 1.5; 0 for no limit
    #[arg(long, value_name = "NUMBER", value_parser = options::cpus)]
    cpus: Option<f64>,
    /// CPU time in each period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The period of the quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Time for realtime tasks in each period, in microseconds (version 1 of cgroups)
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// The period of realtime tasks, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Relative weight of CPU time
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// CPUs to run on, say 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, say 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

impl LimitArgs {
    /// As the engine takes them.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.memory = self.memory;
        limits.memory_swap = self.memory_swap;
        limits.memory_reservation = self.memory_reservation;
        limits.memory_swappiness = self.memory_swappiness;
        limits.oom_kill_disable = self.oom_kill_disable.then_some(true);
        limits.nano_cpus = self.cpus.map(|cpus| (cpus * 1e9) as u64);
        limits.cpu_quota_us = self.cpu_quota;
        limits.cpu_period_us = self.cpu_period;
        limits.cpu_rt_runtime_us = self.cpu_rt_runtime;
        limits.cpu_rt_period_us = self.cpu_rt_period;
        limits.cpu_shares = self.cpu_shares;
        limits.cpuset_cpus = self.cpuset_cpus.clone();
        limits.cpuset_mems = self.cpuset_mems.clone();
        limits.blkio_weight = self.blkio_weight;
        limits.pids = self.pids_limit;
        limits
    }
}

/// A size, or -1 for no limit.
fn memory_swap(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes: Bytes = text.parse().map_err(|error: longshore::Error| error.to_string())?;
    i64::try_from(bytes.get()).map_err(|_| format!("{text} is too much"))
}
