//! Commands of another processor's programs need someone to run them: said before the first of them.

use std::collections::HashMap;

use super::stage::Stage;
use super::{Work, failure};
use crate::build::plan::{Action, Base, Plan, Step};
use crate::error::{Error, Result};
use crate::runtime::foreign::is_run_here;
use crate::types::Platform;

impl Work<'_> {
    /// Looks at all stages that the target needs, as far as the Dockerfile says for which platform they are. What only an
    /// image says is looked at when its stage begins.
    pub(super) fn refuse_foreign_plan(&self, plan: &Plan) -> Result<()> {
        let mut platforms: HashMap<usize, Platform> = HashMap::new();
        for number in plan.order() {
            let Some(stage) = plan.stages().get(*number) else {
                continue;
            };
            let below = match &stage.base {
                Base::Stage(below) => platforms.get(below).cloned(),
                _ => None,
            };
            let platform = stage.platform.clone().or(below);
            let platform = platform.unwrap_or_else(|| self.spec.plan.platform.clone());
            if let Some((line, text)) = plan.first_command(*number)
                && !is_run_here(&platform)
            {
                return Err(failure::at(missing(&platform), self.file, line, &text));
            }
            platforms.insert(*number, platform);
        }
        Ok(())
    }

    /// Looks at the steps of a stage whose image is known.
    pub(super) fn refuse_foreign_commands(&self, stage: &Stage, steps: &[Step]) -> Result<()> {
        let runs = |step: &&Step| matches!(step.action, Action::Run(_));
        match steps.iter().find(runs) {
            Some(first) if !is_run_here(&stage.platform) => {
                let error = missing(&stage.platform);
                Err(failure::at(error, self.file, first.span.start.line, &first.text))
            }
            _ => Ok(()),
        }
    }
}

fn missing(wanted: &Platform) -> Error {
    let needs = format!(
        "an emulator for {} that the kernel knows of (binfmt_misc, with the flag F: qemu-user-static registers them), or \
         --platform=$BUILDPLATFORM for the stage",
        wanted.architecture
    );
    Error::unsupported(format!("running programs for {wanted} on {}", Platform::host()), needs)
}
