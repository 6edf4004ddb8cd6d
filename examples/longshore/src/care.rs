//! Options of `run` that look after a container: restarts, health checks, logs.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore::containers::Probe;
use longshore::{ContainerSpec, OnUnhealthy, RestartPolicy};

use crate::options::{self, Pair};

/// What is done for a container while it lives.
#[derive(Debug, clap::Args)]
pub struct CareArgs {
    /// When to start it again: no, always, unless-stopped or on-failure[:RETRIES]
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub restart: RestartPolicy,
    /// Line for the shell that tells whether it is well
    #[arg(long, value_name = "LINE", conflicts_with = "no_healthcheck")]
    health_cmd: Option<String>,
    /// Time between probes, say 30s
    #[arg(long, value_name = "TIME", value_parser = options::duration)]
    health_interval: Option<Duration>,
    /// Time that a probe may take
    #[arg(long, value_name = "TIME", value_parser = options::duration)]
    health_timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "TIME", value_parser = options::duration)]
    health_start_period: Option<Duration>,
    /// Time between probes within the start period
    #[arg(long, value_name = "TIME", value_parser = options::duration)]
    health_start_interval: Option<Duration>,
    /// Probe nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
    /// What to do when it becomes unhealthy: none, restart, stop or kill
    #[arg(long, value_name = "ACTION", default_value = "none")]
    health_on_failure: OnUnhealthy,
    /// Where its output is logged: local, json-file or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Option of the log driver: max-size, max-file, compress, mode, max-buffer-size
    #[arg(long, value_name = "KEY=VALUE", value_parser = options::pair)]
    log_opt: Vec<Pair>,
}

impl CareArgs {
    /// Puts them into a specification.
    pub fn apply(&self, spec: &mut ContainerSpec) {
        spec.restart = self.restart;
        spec.on_unhealthy = self.health_on_failure;
        spec.health.probe = match &self.health_cmd {
            _ if self.no_healthcheck => Probe::Disabled,
            Some(line) => Probe::Shell(line.clone()),
            None => Probe::Inherit,
        };
        spec.health.interval = self.health_interval;
        spec.health.timeout = self.health_timeout;
        spec.health.retries = self.health_retries;
        spec.health.start_period = self.health_start_period;
        spec.health.start_interval = self.health_start_interval;
        spec.log.driver = self.log_driver.clone();
        let options = self.log_opt.iter();
        let options = options.map(|(key, value)| (key.clone(), value.clone().unwrap_or_default()));
        spec.log.options = options.collect::<BTreeMap<_, _>>();
    }
}
