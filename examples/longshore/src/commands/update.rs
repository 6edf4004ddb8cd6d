//! `update`: changes the limits of containers, of running ones at once.

use longshore::{Bytes, Limits};

use super::each;
use crate::context::Context;
use crate::failure::Failure;
use crate::options;

/// Options of `update`. What is not given stays as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Most memory: 64m, 1g; 0 is no limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Memory that the kernel tries to leave it
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<Bytes>,
    /// CPUs: 1.5; 0 is no limit
    #[arg(long, value_name = "NUMBER", value_parser = options::cpus)]
    cpus: Option<f64>,
    /// Relative weight
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// CPUs to run on: 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Most processes and threads; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Updates containers.
pub async fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let mut limits = Limits::default();
    limits.memory = args.memory;
    limits.memory_reservation = args.memory_reservation;
    limits.nano_cpus = args.cpus.map(|cpus| (cpus * 1e9) as u64);
    limits.cpu_shares = args.cpu_shares;
    limits.cpuset_cpus = args.cpuset_cpus;
    limits.pids = args.pids_limit;
    each(&args.containers, async |name| {
        let warnings = engine.containers().update(name, limits.clone()).await?;
        for warning in warnings {
            eprintln!("longshore: {warning}");
        }
        Ok(())
    })
    .await
}
