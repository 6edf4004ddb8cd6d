//! Health checks that a shim makes: what it is told of one, and what it has written down of its probes.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::HEALTH;
use crate::error::{Error, Result};
use crate::runtime::cgroups::Cgroup;
use crate::runtime::detached::{
    DetachedAction, DetachedCheck, DetachedHealth, DetachedHealthStatus, DetachedProbe, ProbeOutcome,
};
use crate::runtime::native::helper::health::{Health, KEPT, Probe, SLOT, outcome, status};
use crate::runtime::native::helper::talk::config;
use crate::runtime::native::helper::wire::{LARGEST, Step, probe};
use crate::runtime::native::plan::{FdPositions, Filters, Host, Plan};
use crate::runtime::native::{step_name, task};
use crate::sys::memfd;

/// What a shim is told of a check.
pub(super) struct Probing {
    /// The words from [`config::INTERVAL`] on.
    pub(super) words: [u64; config::COUNT - config::INTERVAL],
    /// The plan of a probe, in a file.
    pub(super) plan: OwnedFd,
}

impl Probing {
    /// Of a check in the container that a plan starts.
    pub(super) fn of(check: &DetachedCheck, container: &Plan, host: Host, cgroup: Option<&dyn Cgroup>) -> Result<Self> {
        let exec = &check.probe;
        let filters = Filters::new(exec.seccomp.as_ref(), Some(&exec.process), host, false)?;
        let mut plan = Plan::exec(exec, host, container.all_namespaces(), filters)?;
        plan.set_root(container.root());
        plan.mark();
        let blob = plan.encode(positions(cgroup));
        if blob.len() > LARGEST {
            return Err(Error::invalid(format!(
                "a probe with arguments and environment of {} bytes",
                blob.len()
            )));
        }
        let file = memfd::sealed(c"longshore-probe", &blob);
        Ok(Self {
            words: words(check),
            plan: file.map_err(|error| Error::os("make the file of a probe's plan", error))?,
        })
    }
}

fn positions(cgroup: Option<&dyn Cgroup>) -> FdPositions {
    let mut positions = FdPositions {
        status: probe::FD_STATUS,
        stdin: probe::FD_STDIN,
        stdout: probe::FD_OUTPUT,
        stderr: probe::FD_OUTPUT,
        target: probe::FD_TARGET,
        v1_first: probe::FD_V1_FIRST,
        ..FdPositions::default()
    };
    if let Some(cgroup) = cgroup {
        positions.v1_count = cgroup.v1_procs().len() as u32;
        if cgroup.v2_dir().is_some() {
            positions.cgroup = probe::FD_CGROUP;
        }
    }
    positions
}

fn words(check: &DetachedCheck) -> [u64; config::COUNT - config::INTERVAL] {
    // What is less than the shim's unit is one of it, but for a start period, which may be none.
    let milliseconds = |time: Duration| u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    let (action, signal, patience) = match check.on_unhealthy {
        DetachedAction::Nothing => (0, 0, Duration::ZERO),
        DetachedAction::Kill => (config::KILL, 0, Duration::ZERO),
        DetachedAction::Stop { signal, patience } => (config::STOP, signal.number(), patience),
        DetachedAction::Restart { signal, patience } => (config::AGAIN, signal.number(), patience),
    };
    [
        milliseconds(check.interval).max(1),
        milliseconds(check.timeout).max(1),
        milliseconds(check.start_period),
        milliseconds(check.start_interval).max(1),
        u64::from(check.retries.max(1)),
        action,
        signal as u64,
        milliseconds(patience),
    ]
}

/// As the library's users see it. What cannot be read of the probes is left out: the state alone counts.
pub(super) fn shown(health: &Health, run_ns: i64, dir: &Path) -> DetachedHealth {
    let bytes = fs::read(dir.join(HEALTH)).unwrap_or_default();
    let mut probes: Vec<(Probe, &[u8])> = bytes.chunks_exact(SLOT).filter_map(Probe::decode).collect();
    // A later probe may have been written meanwhile, in the place of an earlier one.
    probes.retain(|(probe, _)| probe.run_ns == run_ns && probe.number <= health.probes);
    probes.retain(|(probe, _)| probe.number.saturating_add(KEPT) > health.probes);
    probes.sort_by_key(|(probe, _)| probe.number);
    DetachedHealth {
        status: match health.status {
            status::HEALTHY => DetachedHealthStatus::Healthy,
            status::UNHEALTHY => DetachedHealthStatus::Unhealthy,
            _ => DetachedHealthStatus::Starting,
        },
        failing_streak: health.streak,
        changes: health.turns,
        changed_ns: health.since_ns,
        probes: probes
            .into_iter()
            .map(|(probe, output)| shown_probe(&probe, output))
            .collect(),
    }
}

fn shown_probe(probe: &Probe, output: &[u8]) -> DetachedProbe {
    DetachedProbe {
        start_ns: probe.start_ns,
        end_ns: probe.end_ns,
        outcome: match probe.outcome {
            outcome::ENDED => ProbeOutcome::Exited(task::status(probe.value)),
            outcome::OVERRAN => ProbeOutcome::Overran,
            _ => ProbeOutcome::Failed {
                step: step_name(probe.step),
                errno: probe.value,
                code: shell_code(probe),
            },
        },
        output: output.to_vec(),
    }
}

/// A program that is not there, or cannot be executed.
fn shell_code(probe: &Probe) -> Option<i32> {
    match probe.value {
        _ if probe.step != Step::Exec as u32 => None,
        libc::ENOENT | libc::ENOTDIR => Some(127),
        _ => Some(126),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, probes: &[(u64, i64)]) {
        use crate::runtime::native::helper::health::{FILE, HEAD};
        let mut file = vec![0; FILE];
        for (number, run_ns) in probes {
            let probe = Probe {
                number: *number,
                start_ns: 10 * *number as i64,
                end_ns: 10 * *number as i64 + 5,
                outcome: outcome::ENDED,
                value: 0x100,
                step: 0,
                len: 3,
                run_ns: *run_ns,
            };
            let slot = &mut file[probe.place()..][..SLOT];
            slot[HEAD..HEAD + 3].copy_from_slice(b"no\n");
            probe.encode(slot);
        }
        fs::write(dir.join(HEALTH), file).unwrap();
    }

    #[test]
    fn g11_probes_of_the_run_that_the_state_knows_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health {
            probes: 7,
            ..Health::NEW
        };
        let seen = || -> Vec<i64> {
            let shown = shown(&health, 1, dir.path());
            shown.probes.iter().map(|probe| probe.start_ns / 10).collect()
        };
        assert_eq!(seen(), [0i64; 0], "no file");
        written(dir.path(), &[(3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]);
        assert_eq!(seen(), [3, 4, 5, 6, 7]);
        // The eighth is there, and not told of yet.
        written(dir.path(), &[(8, 1), (4, 1), (5, 1), (6, 1), (7, 1)]);
        assert_eq!(seen(), [4, 5, 6, 7]);
        // Some are of the run before; one is not whole.
        written(dir.path(), &[(3, 0), (4, 0), (5, 0), (6, 1), (7, 1)]);
        assert_eq!(seen(), [6, 7]);
        let mut bytes = fs::read(dir.path().join(HEALTH)).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(dir.path().join(HEALTH), bytes).unwrap();
        assert!(seen().len() <= 2);
        let shown = shown(&health, 1, dir.path());
        assert_eq!(shown.status, DetachedHealthStatus::Starting);
        assert!(shown.probes.iter().all(|probe| probe.output == b"no\n"));
    }
}
