//! Commands of another processor's programs need someone to run them: said before the first of them.

use std::collections::HashMap;

use super::stage::Stage;
use super::{Work, failure};
use crate::build::plan::{Action, Base, Plan, Step};
use crate::error::{Error, Result};
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

fn is_run_here(wanted: &Platform) -> bool {
    let host = Platform::host();
    host.os == wanted.os && (host.architecture == wanted.architecture || is_emulated(&wanted.architecture))
}

/// Whether the kernel has an interpreter for programs of that processor, one that it opened when it was registered. Source:
/// Linux, Documentation/admin-guide/binfmt-misc.rst.
fn is_emulated(architecture: &str) -> bool {
    let name = match architecture {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "ppc64le" | "s390x" | "riscv64" | "arm" | "mips64le" | "loong64" => match architecture {
            "mips64le" => "mips64el",
            "loong64" => "loongarch64",
            same => same,
        },
        _ => return false,
    };
    // 32 bits of the same family run as they are.
    if (architecture, Platform::host().architecture.as_str()) == ("386", "amd64") {
        return true;
    }
    let registered = std::fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{name}")).unwrap_or_default();
    let flags = registered.lines().find_map(|line| line.strip_prefix("flags:"));
    registered.starts_with("enabled") && flags.is_some_and(|flags| flags.contains('F'))
}
