//! `info`: what this engine is, and what this host offers.

use longshore::{Bytes, Engine, SystemInfo};

use super::say;
use crate::context::Context;
use crate::failure::Failure;

/// Options of `info`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the engine's choices and the probe's table.
pub async fn run(context: &Context, _args: Args) -> Result<u8, Failure> {
    let engine = context.engine().await?;
    let info = engine.system().info().await?;
    for (name, value) in lines(&info) {
        say(&format!("{name}: {value}"))?;
    }
    say("\nThis host:")?;
    for line in Engine::probe().to_string().lines() {
        say(&format!("  {line}"))?;
    }
    Ok(0)
}

fn lines(info: &SystemInfo) -> Vec<(&'static str, String)> {
    let containers = info.containers;
    let root = info
        .root
        .as_ref()
        .map_or_else(String::new, |root| root.display().to_string());
    vec![
        ("Version", info.version.clone()),
        ("Root", root),
        ("ID", info.id.clone()),
        (
            "Storage driver",
            format!("{} ({})", info.storage_driver, info.storage_reason),
        ),
        ("Log driver", info.log_driver.clone()),
        ("Runtime", info.runtime.clone()),
        ("Cgroup driver", info.cgroup_driver.clone()),
        ("Cgroup version", info.cgroup_version.clone()),
        (
            "Containers",
            (containers.running + containers.paused + containers.stopped).to_string(),
        ),
        (" Running", containers.running.to_string()),
        (" Paused", containers.paused.to_string()),
        (" Stopped", containers.stopped.to_string()),
        ("Images", info.images.to_string()),
        ("Name", info.name.clone()),
        ("Kernel version", info.kernel_version.clone()),
        ("Operating system", info.operating_system.clone()),
        ("Architecture", info.architecture.clone()),
        ("CPUs", info.cpus.to_string()),
        ("Total memory", Bytes::new(info.memory_bytes).human()),
        ("Rootless", info.rootless.to_string()),
    ]
}
