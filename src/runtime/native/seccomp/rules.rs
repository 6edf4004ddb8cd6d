//! A profile with its names resolved: for each call, what to compare and what to answer.
//!
//! Where several rules name a call, those with comparisons come first, in the profile's order, then the first without.
//! Comparisons of one rule hold together, except that a rule which compares one argument twice means "or", as in runc.

use std::collections::BTreeMap;
use std::str::FromStr;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use syscalls::Sysno;

use crate::error::{Error, Result};
use crate::runtime::caps::CapabilitySet;

/// `SECCOMP_RET_ERRNO` with no error: the call is not made, and says that it was.
pub(super) const NOTHING_DONE: u32 = 0x0005_0000;
/// `SECCOMP_RET_USER_NOTIF`.
const NOTIFY: u32 = 0x7fc0_0000;
/// `SECCOMP_RET_ERRNO | ENOSYS`.
pub(super) const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// What to do with calls, by number.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) calls: BTreeMap<u32, Call>,
    pub(super) default: u32,
    /// Calls from this number on are answered with `ENOSYS`.
    pub(super) unknown_from: Option<u32>,
}

const CHOWN: CapabilitySet = CapabilitySet::from_bits(1);
const SETGID: CapabilitySet = CapabilitySet::from_bits(1 << 6);
const SETUID: CapabilitySet = CapabilitySet::from_bits(1 << 7);

/// Calls that change owners or ids: the capability that they take, and where their arguments are ids of a file's new owner.
///
/// `setfsuid` and `setfsgid` are not among them: they never fail, and who wants to know asks for the id afterwards. Nor are
/// `capset`, which does what it says, and `mknod`, which no user namespace lets make a device.
const OWNERS_AND_IDS: &[(&str, CapabilitySet, &[u32])] = &[
    ("chown", CHOWN, &[1, 2]),
    ("lchown", CHOWN, &[1, 2]),
    ("fchown", CHOWN, &[1, 2]),
    ("fchownat", CHOWN, &[2, 3]),
    ("setuid", SETUID, &[]),
    ("setreuid", SETUID, &[]),
    ("setresuid", SETUID, &[]),
    ("setgid", SETGID, &[]),
    ("setregid", SETGID, &[]),
    ("setresgid", SETGID, &[]),
    ("setgroups", SETGID, &[]),
];

/// What to do with one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) conditional: Vec<(Vec<Comparison>, u32)>,
    pub(super) otherwise: Option<u32>,
}

/// One comparison with one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) index: u32,
    pub(super) op: LinuxSeccompOperator,
    pub(super) value: u64,
    /// What the masked argument must be, for `ScmpCmpMaskedEq`.
    pub(super) masked: u64,
    /// The kernel reads only the low word of this argument.
    pub(super) narrow: bool,
}

impl Rules {
    /// Resolves a profile. Names that this architecture does not have are passed over: profiles name the calls of all.
    pub(super) fn of(profile: &LinuxSeccomp) -> Result<Self> {
        let default = answer(profile.default_action(), profile.default_errno_ret())?;
        let mut rules = Self {
            calls: BTreeMap::new(),
            default,
            unknown_from: None,
        };
        for syscall in profile.syscalls().iter().flatten() {
            rules.add(syscall)?;
        }
        let denies = !matches!(
            profile.default_action(),
            LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
        );
        // A libc that tries a call newer than the profile must see "no such call", so that it falls back, and not "not
        // permitted", as it would from the default.
        rules.unknown_from = rules.calls.keys().next_back().filter(|_| denies).map(|last| last + 1);
        Ok(rules)
    }

    /// Whether there are calls that wait for an agent's answer.
    ///
    /// # Errors
    /// `InvalidArgument` if that by which the agent gets its descriptor is among them.
    pub(super) fn notify(&self) -> Result<bool> {
        let may = |call: &Call| {
            let mut actions = call.conditional.iter().map(|(_, action)| *action).chain(call.otherwise);
            actions.any(|action| action == NOTIFY) || (call.otherwise.is_none() && self.default == NOTIFY)
        };
        let sendmsg = number("sendmsg").and_then(|number| self.calls.get(&number));
        if sendmsg.map_or(self.default == NOTIFY, may) {
            return Err(Error::invalid(
                "seccomp: sendmsg cannot wait for an answer (SCMP_ACT_NOTIFY): whoever answers is told with it",
            ));
        }
        Ok(self.default == NOTIFY || self.calls.values().any(may))
    }

    /// Everything is allowed.
    pub(super) fn none() -> Self {
        Self {
            calls: BTreeMap::new(),
            default: LinuxSeccompAction::ScmpActAllow.as_u32(None),
            unknown_from: None,
        }
    }

    /// Answers with success, and does nothing, where root would change an owner or an id with one of `caps` and there is one
    /// id only. What is denied stays denied, and what can mean something is left to the kernel: a change of owner to root.
    pub(super) fn squash(&mut self, caps: &CapabilitySet) {
        for (name, cap, ids) in OWNERS_AND_IDS {
            if let Some(number) = number(name).filter(|_| caps.contains(*cap)) {
                self.squash_call(number, &real(ids));
            }
        }
    }

    fn squash_call(&mut self, number: u32, real: &[Vec<Comparison>]) {
        let call = self.calls.get(&number).cloned().unwrap_or_default();
        let mut squashed = Call::default();
        for (when, action) in call.conditional {
            if passes(action) {
                let both = real.iter().map(|real| ([when.as_slice(), real].concat(), action));
                squashed.conditional.extend(both);
                squashed.conditional.push((when, NOTHING_DONE));
            } else {
                squashed.conditional.push((when, action));
            }
        }
        let otherwise = call.otherwise.unwrap_or(self.default);
        if passes(otherwise) {
            squashed
                .conditional
                .extend(real.iter().map(|real| (real.clone(), otherwise)));
            squashed.otherwise = Some(NOTHING_DONE);
        } else {
            squashed.otherwise = Some(otherwise);
        }
        self.calls.insert(number, squashed);
    }

    fn add(&mut self, syscall: &LinuxSyscall) -> Result<()> {
        let action = answer(syscall.action(), syscall.errno_ret())?;
        for name in syscall.names() {
            let arguments = syscall.args().as_deref().unwrap_or_default();
            let comparisons = arguments
                .iter()
                .map(|arg| comparison(name, arg))
                .collect::<Result<Vec<_>>>()?;
            let Some(number) = number(name) else { continue };
            let call = self.calls.entry(number).or_default();
            if comparisons.is_empty() {
                call.otherwise.get_or_insert(action);
            } else if repeats(&comparisons) {
                call.conditional
                    .extend(comparisons.into_iter().map(|one| (vec![one], action)));
            } else {
                call.conditional.push((comparisons, action));
            }
        }
        Ok(())
    }
}

/// Whether the call is made.
fn passes(action: u32) -> bool {
    [LinuxSeccompAction::ScmpActAllow, LinuxSeccompAction::ScmpActLog]
        .iter()
        .any(|passing| passing.as_u32(None) == action)
}

/// Each argument is either 0, which is root, or -1, which leaves it as it is.
fn real(ids: &[u32]) -> Vec<Vec<Comparison>> {
    let mut all: Vec<Vec<Comparison>> = match ids {
        [] => return Vec::new(),
        _ => vec![Vec::new()],
    };
    for index in ids {
        let is = |value: u32| Comparison {
            index: *index,
            op: LinuxSeccompOperator::ScmpCmpEq,
            value: u64::from(value),
            masked: 0,
            // `uid_t` and `gid_t` have 32 bits.
            narrow: true,
        };
        all = all
            .iter()
            .flat_map(|known| [0, u32::MAX].map(|value| [known.as_slice(), &[is(value)]].concat()))
            .collect();
    }
    all
}

/// The number of a call on this architecture.
pub(super) fn number(name: &str) -> Option<u32> {
    Sysno::from_str(name)
        .ok()
        .and_then(|sysno| u32::try_from(sysno.id()).ok())
}

fn comparison(name: &str, arg: &LinuxSeccompArg) -> Result<Comparison> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index =
        index.ok_or_else(|| Error::invalid(format!("seccomp: a call has six arguments, not {}", arg.index())))?;
    Ok(Comparison {
        index,
        op: arg.op(),
        value: arg.value(),
        masked: arg.value_two().unwrap_or(0),
        narrow: is_narrow(name, index),
    })
}

/// Arguments that the kernel reads as 32 bits. A filter that compared all 64 would let a program pass a forbidden value with
/// a bit set above, which the kernel then drops (CVE-2019-7303, `ioctl` and `TIOCSTI`).
pub(super) fn is_narrow(name: &str, index: u32) -> bool {
    matches!(
        (name, index),
        ("socket" | "socketpair", 0..=2) | ("personality" | "prctl" | "bpf", 0) | ("ioctl" | "fcntl" | "setns", 1)
    )
}

fn repeats(comparisons: &[Comparison]) -> bool {
    let mut seen = [false; 6];
    comparisons
        .iter()
        .any(|one| std::mem::replace(&mut seen[one.index as usize], true))
}

/// The value that a filter returns for an action.
fn answer(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    /// `MAX_ERRNO` of the kernel; a larger one would be cut to it.
    const LAST_ERRNO: u32 = 4095;
    match (action, errno) {
        (LinuxSeccompAction::ScmpActNotify, _) => Ok(NOTIFY),
        (LinuxSeccompAction::ScmpActErrno, Some(errno)) if errno > LAST_ERRNO => {
            Err(Error::invalid(format!("seccomp: {errno} is not an errno")))
        }
        (LinuxSeccompAction::ScmpActTrace, Some(data)) if data > 0xffff => Err(Error::invalid(format!(
            "seccomp: the tracer's value {data} does not fit 16 bits"
        ))),
        (action, errno) => Ok(action.as_u32(errno)),
    }
}
