//! `RUN`: a command on what is there so far, with the isolation of the engine's containers.

use std::path::PathBuf;
use std::sync::Arc;

use super::Work;
use super::failure::StepFailure;
use super::mounts::Mounted;
use super::output::Output;
use super::redact::needles;
use super::stage::{Fresh, Made, Stage};
use crate::build::copy::Times;
use crate::build::dockerfile::{NetworkFlag, SecurityFlag};
use crate::build::plan::{PREDEFINED, RunAction, Step};
use crate::build::spec::Entitlement;
use crate::containers::step::Step as Command;
use crate::containers::{ContainerSpec, NetworkMode};
use crate::error::{Error, ErrorKind, Result};
use crate::logs::LogSink;
use crate::types::LayerRef;

/// The same for every build: it may find its way into files. BuildKit's.
const HOSTNAME: &str = "buildkitsandbox";

impl Work<'_> {
    pub(super) async fn run(
        &self,
        stage: &Stage,
        run: &RunAction,
        step: &Step,
        text: &str,
        number: u32,
    ) -> Result<Made> {
        let mut spec = self.container(stage, run)?;
        spec.cdi_devices = self.devices_of(run).await?;
        let mut key = stage.key("run");
        key.run(run);
        if !run.devices.is_empty() {
            // One that a command can do without makes a difference where it is.
            key.list(spec.cdi_devices.iter().map(String::as_str));
        }
        let env: Vec<String> = stage
            .scope
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        key.list(env.iter().map(String::as_str));
        key.maybe(spec.user.as_deref());
        key.text(&spec.working_dir.clone().unwrap_or_default().to_string_lossy());
        let sources = self.sources(stage, run, &mut key).await?;
        let make = async {
            let mut mounted = self.mount(stage, run, &sources).await?;
            let made = self.run_in(stage, spec, &mut mounted, step, text, number).await;
            mounted.end(self).await;
            let layer = made?;
            if let Some(layer) = &layer {
                self.look_for_secrets(run, layer, text).await?;
            }
            Ok(Fresh { layer, keep: true })
        };
        self.cached(stage, &key, text, make).await
    }

    async fn run_in(
        &self,
        stage: &Stage,
        mut spec: ContainerSpec,
        mounted: &mut Mounted,
        step: &Step,
        text: &str,
        number: u32,
    ) -> Result<Option<LayerRef>> {
        let output = Arc::new(Output::new(number, self.progress.clone(), needles(&self.spec.secrets)));
        spec.env.extend(std::mem::take(&mut mounted.env));
        spec.tmpfs.extend(std::mem::take(&mut mounted.tmpfs));
        let sink = Arc::clone(&output) as Arc<dyn LogSink>;
        let mut command = Command::new(spec, stage.chain(), self.place.path("run"), sink);
        command.mounts = std::mem::take(&mut mounted.mounts);
        let containers = &self.shared.parts.containers.0;
        let ran = containers.run_step(&command, &self.cancel).await;
        output.end();
        let layer = match ran {
            Ok(exit) if exit.status.success() => self.layer_of(stage, &command).await,
            Ok(exit) => Err(StepFailure {
                file: self.file.to_owned(),
                line: step.span.start.line,
                text: text.to_owned(),
                stage: stage.name.clone(),
                status: exit.status,
                oom_killed: exit.oom_killed,
                log_tail: output.tail(),
            }
            .into_error()),
            Err(error) => Err(error),
        };
        containers.end_step(&command).await;
        layer
    }

    async fn layer_of(&self, stage: &Stage, command: &Command) -> Result<Option<LayerRef>> {
        let mut reader = self.shared.parts.containers.0.read_step(command).await?;
        if let Times::Fixed(seconds) = stage.times {
            reader = reader.not_after(seconds);
        }
        let write = move |out: &mut dyn std::io::Write| reader.write_layer(out).map(drop);
        self.making.layer(&stage.layers, &self.cancel, write).await
    }

    /// What a container would be asked for.
    fn container(&self, stage: &Stage, run: &RunAction) -> Result<ContainerSpec> {
        let config = &stage.image.config;
        let mut spec = ContainerSpec::image("a stage of a build").command(run.args.clone());
        for (name, value) in self.proxies().chain(stage.scope.iter()) {
            spec.env.insert(name.to_owned(), value.to_owned());
        }
        if !spec.env.contains_key("HOSTNAME") {
            spec.env_remove.insert("HOSTNAME".to_owned());
        }
        spec.user.clone_from(&config.user);
        let directory = config.working_dir.clone().filter(|dir| !dir.is_empty());
        spec.working_dir = Some(PathBuf::from(directory.unwrap_or_else(|| "/".to_owned())));
        spec.hostname = Some(HOSTNAME.to_owned());
        spec.extra_hosts.clone_from(&self.spec.extra_hosts);
        spec.limits = self.spec.limits.clone();
        spec.ulimits.clone_from(&self.spec.ulimits);
        spec.shm_size = self.spec.shm_size;
        spec.network = match run.network {
            NetworkFlag::Default => self.spec.network.clone(),
            NetworkFlag::None => NetworkMode::None,
            NetworkFlag::Host => {
                self.must_be_allowed(Entitlement::HostNetwork, "--network=host")?;
                NetworkMode::Host
            }
        };
        if run.security == SecurityFlag::Insecure {
            self.must_be_allowed(Entitlement::Insecure, "--security=insecure")?;
            spec.privileged = true;
        }
        Ok(spec)
    }

    fn must_be_allowed(&self, entitlement: Entitlement, flag: &str) -> Result<()> {
        if self.spec.entitlements.contains(&entitlement) {
            return Ok(());
        }
        let message = format!(
            "{flag} is not allowed: whoever builds must allow it, with BuildSpec::allow(Entitlement::{entitlement:?})"
        );
        Err(Error::new(ErrorKind::Denied, message))
    }

    /// Proxies that whoever builds names: commands have them without `ARG`, and no image and no key has them.
    fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        let given = &self.spec.plan.arguments;
        PREDEFINED
            .iter()
            .filter_map(|name| Some((*name, given.get(*name)?.as_str())))
    }
}
