//! From rules to a program: the architecture, then a binary search over ranges of call numbers, then arguments.
//!
//! A filter runs before every system call, so depth counts: Docker's default profile has some 350 calls in 30 to 60 ranges,
//! which is 5 or 6 comparisons. The kernel also runs a filter once per call number when it is loaded, to learn which calls
//! are always allowed.
//!
//! Only this machine's own calls are let through. A call by another entry (32-bit `int 0x80`, x32) has other numbers, so it
//! kills the process; 32-bit programs therefore do not run under a profile, whatever its `architectures` say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator};

use super::bpf::{self, Insn, branch, plain};
use super::rules::{Call, Comparison, NO_SUCH_CALL, Rules};
use crate::error::{Error, Result};
use crate::runtime::caps::CapabilitySet;

/// `SECCOMP_RET_KILL_PROCESS`.
const KILL_PROCESS: u32 = 0x8000_0000;

/// `AUDIT_ARCH_*` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e;
/// `AUDIT_ARCH_*` of `linux/audit.h`.
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7;

/// `__X32_SYSCALL_BIT`. On aarch64, no call has a number that high either.
const X32_BIT: u32 = 0x4000_0000;

/// `BPF_MAXINSNS`.
const MOST_INSTRUCTIONS: usize = 4096;

/// Compiles a profile into the bytes of an array of `struct sock_filter` in the host's byte order.
///
/// # Errors
/// `InvalidArgument` for a profile that cannot work.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    let rules = Rules::of(profile)?;
    rules.notify()?;
    assemble(&rules, KILL_PROCESS)
}

/// Whether a profile has calls that wait for an agent's answer.
///
/// # Errors
/// As [`compile`].
pub(crate) fn notifies(profile: &LinuxSeccomp) -> Result<bool> {
    // Most have none: looking at each rule's action is cheaper than resolving names.
    let action = LinuxSeccompAction::ScmpActNotify;
    let named = profile.syscalls().iter().flatten().any(|rule| rule.action() == action);
    if !named && profile.default_action() != action {
        return Ok(false);
    }
    Rules::of(profile)?.notify()
}

/// A profile, or none, for root of a container where one id is mapped: what would change an owner or an id, and cannot,
/// succeeds without an effect, if root has the capability for it among `caps`. Without a profile, calls by another entry
/// are let through as they are.
///
/// # Errors
/// As [`compile`].
fn compile_squashed(profile: Option<&LinuxSeccomp>, caps: &CapabilitySet) -> Result<Vec<u8>> {
    let mut rules = profile.map_or_else(|| Ok(Rules::none()), Rules::of)?;
    rules.squash(caps);
    assemble(
        &rules,
        match profile {
            Some(_) => KILL_PROCESS,
            None => LinuxSeccompAction::ScmpActAllow.as_u32(None),
        },
    )
}

fn assemble(rules: &Rules, foreign: u32) -> Result<Vec<u8>> {
    let mut program = head(foreign);
    program.extend(search(&ranges(rules)));
    if program.len() > MOST_INSTRUCTIONS {
        let message = format!(
            "seccomp: the profile needs {} instructions, the kernel takes {MOST_INSTRUCTIONS}",
            program.len()
        );
        return Err(Error::invalid(message));
    }
    Ok(bpf::bytes(&program))
}

/// A profile, and the capabilities of the root for whom it is squashed.
type Wanted = (Option<LinuxSeccomp>, Option<CapabilitySet>);
/// Profiles that were compiled last, with their programs.
static CACHE: Mutex<VecDeque<(Wanted, Arc<[u8]>)>> = Mutex::new(VecDeque::new());
const CACHED: usize = 16;

/// As [`compile`], remembering the last few profiles: an engine starts many containers with few of them.
///
/// # Errors
/// As [`compile`].
pub fn compile_cached(profile: &LinuxSeccomp) -> Result<Arc<[u8]>> {
    cached(Some(profile), None)
}

/// For root of a container where one id is mapped: what would change an owner or an id, and cannot, succeeds without an
/// effect, as far as the profile, if there is one, allows the call and root has the capability for it among `caps`.
///
/// # Errors
/// As [`compile`].
pub fn squashed_cached(profile: Option<&LinuxSeccomp>, caps: &CapabilitySet) -> Result<Arc<[u8]>> {
    cached(profile, Some(caps))
}

fn cached(profile: Option<&LinuxSeccomp>, squash: Option<&CapabilitySet>) -> Result<Arc<[u8]>> {
    let known = |cache: &VecDeque<(Wanted, Arc<[u8]>)>| {
        cache
            .iter()
            .find(|((known, caps), _)| known.as_ref() == profile && caps.as_ref() == squash)
            .map(|(_, program)| Arc::clone(program))
    };
    if let Some(program) = known(&CACHE.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(program);
    }
    let program: Arc<[u8]> = match (profile, squash) {
        (profile, Some(caps)) => compile_squashed(profile, caps)?,
        (Some(profile), None) => compile(profile)?,
        (None, None) => assemble(&Rules::none(), LinuxSeccompAction::ScmpActAllow.as_u32(None))?,
    }
    .into();
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    cache.push_front(((profile.cloned(), squash.copied()), Arc::clone(&program)));
    cache.truncate(CACHED);
    Ok(program)
}

/// Checks the architecture and leaves the call's number in the accumulator. Calls by another entry are answered as `foreign`.
fn head(foreign: u32) -> Vec<Insn> {
    vec![
        plain(bpf::LOAD, bpf::ARCH),
        branch(bpf::JUMP_EQ, NATIVE, 1, 0),
        plain(bpf::RETURN, foreign),
        plain(bpf::LOAD, bpf::NUMBER),
        branch(bpf::JUMP_GE, X32_BIT, 0, 2),
        // -1 is no call of x32: programs and tracers use it for "none".
        branch(bpf::JUMP_EQ, u32::MAX, 1, 0),
        plain(bpf::RETURN, foreign),
    ]
}

/// Calls from `first` up to the next range's first, which are all treated alike.
struct Range {
    first: u32,
    code: Vec<Insn>,
}

/// All numbers, cut into as few ranges as possible.
fn ranges(rules: &Rules) -> Vec<Range> {
    let default = || vec![plain(bpf::RETURN, rules.default)];
    let mut ranges = vec![Range {
        first: 0,
        code: default(),
    }];
    let mut next = 0;
    for (&number, call) in &rules.calls {
        if number > next {
            push(&mut ranges, next, default());
        }
        push(&mut ranges, number, call_code(call, rules.default));
        next = number + 1;
    }
    let rest = rules
        .unknown_from
        .map_or_else(default, |_| vec![plain(bpf::RETURN, NO_SUCH_CALL)]);
    push(&mut ranges, next, rest);
    ranges
}

/// Begins a range, or carries the last one on.
fn push(ranges: &mut Vec<Range>, first: u32, code: Vec<Insn>) {
    match ranges.last_mut() {
        Some(last) if last.code == code => {}
        Some(last) if last.first == first => last.code = code,
        _ => ranges.push(Range { first, code }),
    }
}

/// A tree of comparisons over ranges. All jumps are relative and forward, so that pieces can be put together freely.
fn search(ranges: &[Range]) -> Vec<Insn> {
    match ranges {
        [] => Vec::new(),
        [one] => one.code.clone(),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let below = search(lower);
            let mut out = skip_if_at_least(upper[0].first, below.len());
            out.extend(below);
            out.extend(search(upper));
            out
        }
    }
}

/// Skips `distance` instructions if the accumulator is at least `bound`. A conditional jump reaches 255 at most.
fn skip_if_at_least(bound: u32, distance: usize) -> Vec<Insn> {
    match u8::try_from(distance) {
        Ok(near) => vec![branch(bpf::JUMP_GE, bound, near, 0)],
        Err(_) => {
            let far = u32::try_from(distance).unwrap_or(u32::MAX);
            vec![branch(bpf::JUMP_GE, bound, 0, 1), plain(bpf::JUMP, far)]
        }
    }
}

/// Tries the rules of one call, in order.
fn call_code(call: &Call, default: u32) -> Vec<Insn> {
    let mut out: Vec<Insn> = call
        .conditional
        .iter()
        .flat_map(|(all, action)| rule_code(all, *action))
        .collect();
    out.push(plain(bpf::RETURN, call.otherwise.unwrap_or(default)));
    out
}

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum To {
    /// To the next instruction.
    Next,
    /// The comparison holds: behind its last instruction.
    Holds,
    /// It does not: behind the rule's last instruction.
    Fails,
}

/// Answers if all comparisons hold, and runs past its own end if not.
fn rule_code(comparisons: &[Comparison], action: u32) -> Vec<Insn> {
    let steps: Vec<_> = comparisons.iter().map(comparison_code).collect();
    // At most 6 comparisons of a profile and 2 of ours, of 5 instructions each: all distances fit a byte.
    let total: usize = steps.iter().map(Vec::len).sum::<usize>() + 1;
    let mut out = Vec::with_capacity(total);
    for step in steps {
        let end = out.len() + step.len();
        for (mut insn, yes, no) in step {
            let here = out.len() + 1;
            let distance = |to| match to {
                To::Next => 0,
                To::Holds => (end - here) as u8,
                To::Fails => (total - here) as u8,
            };
            (insn.jt, insn.jf) = (distance(yes), distance(no));
            out.push(insn);
        }
    }
    out.push(plain(bpf::RETURN, action));
    out
}

type Step = (Insn, To, To);

/// Compares 64 bits by words, the high one first.
fn comparison_code(comparison: &Comparison) -> Vec<Step> {
    use LinuxSeccompOperator as Op;
    use To::{Fails, Holds, Next};
    let Comparison {
        index,
        op,
        value,
        masked,
        narrow,
    } = *comparison;
    let (high, low) = ((value >> 32) as u32, value as u32);
    let load_high = if narrow {
        plain(bpf::LOAD_CONSTANT, 0)
    } else {
        plain(bpf::LOAD, bpf::high_word(index))
    };
    let load = |insn| (insn, Next, Next);
    let jump = |code, k, yes, no| (plain(code, k), yes, no);
    let mut out = vec![load(load_high)];
    match op {
        Op::ScmpCmpMaskedEq => out.extend([
            load(plain(bpf::AND, high)),
            jump(bpf::JUMP_EQ, (masked >> 32) as u32, Next, Fails),
        ]),
        Op::ScmpCmpEq => out.push(jump(bpf::JUMP_EQ, high, Next, Fails)),
        Op::ScmpCmpNe => out.push(jump(bpf::JUMP_EQ, high, Next, Holds)),
        Op::ScmpCmpGt | Op::ScmpCmpGe => {
            out.extend([
                jump(bpf::JUMP_GT, high, Holds, Next),
                jump(bpf::JUMP_EQ, high, Next, Fails),
            ]);
        }
        Op::ScmpCmpLt | Op::ScmpCmpLe => {
            out.extend([
                jump(bpf::JUMP_GT, high, Fails, Next),
                jump(bpf::JUMP_EQ, high, Next, Holds),
            ]);
        }
    }
    out.push(load(plain(bpf::LOAD, bpf::low_word(index))));
    match op {
        Op::ScmpCmpMaskedEq => out.extend([
            load(plain(bpf::AND, low)),
            jump(bpf::JUMP_EQ, masked as u32, Next, Fails),
        ]),
        Op::ScmpCmpEq => out.push(jump(bpf::JUMP_EQ, low, Next, Fails)),
        Op::ScmpCmpNe => out.push(jump(bpf::JUMP_EQ, low, Fails, Next)),
        Op::ScmpCmpGt => out.push(jump(bpf::JUMP_GT, low, Next, Fails)),
        Op::ScmpCmpGe => out.push(jump(bpf::JUMP_GE, low, Next, Fails)),
        Op::ScmpCmpLt => out.push(jump(bpf::JUMP_GE, low, Fails, Next)),
        Op::ScmpCmpLe => out.push(jump(bpf::JUMP_GT, low, Fails, Next)),
    }
    out
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{
        LinuxSeccompAction as Action, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscall, LinuxSyscallBuilder,
    };
    use syscalls::Sysno;

    use super::super::rules::NOTHING_DONE;
    use super::super::{default_profile, rules};
    use super::*;
    use crate::runtime::caps::CapabilitySet;

    fn data(arch: u32, number: u32, args: [u64; 6]) -> [u8; 64] {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (index, arg) in args.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
        }
        data
    }

    fn run(program: &[u8], number: u32, args: [u64; 6]) -> u32 {
        bpf::run(program, &data(NATIVE, number, args)).unwrap()
    }

    /// The profile read as its words say, without any of the compiler's steps.
    fn naive(profile: &LinuxSeccomp, number: u32, args: [u64; 6]) -> u32 {
        let name = Sysno::new(number as usize).map(|sysno| sysno.name());
        let all: Vec<&LinuxSyscall> = profile.syscalls().iter().flatten().collect();
        let named = |rule: &&&LinuxSyscall| name.is_some_and(|name| rule.names().iter().any(|n| n == name));
        let has_args = |rule: &LinuxSyscall| rule.args().as_ref().is_some_and(|args| !args.is_empty());
        let mut last = None;
        for rule in &all {
            last = last.max(rule.names().iter().filter_map(|name| rules::number(name)).max());
        }
        let permissive = matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog);
        if !permissive && last.is_some_and(|last| number > last) {
            return 0x50026;
        }
        let matching = |rule: &&&LinuxSyscall| {
            let args_of = rule.args().as_deref().unwrap_or_default();
            let holds = |arg: &oci_spec::runtime::LinuxSeccompArg| {
                let narrow = rules::is_narrow(name.unwrap_or_default(), arg.index() as u32);
                let have = args[arg.index()] & if narrow { 0xffff_ffff } else { u64::MAX };
                match arg.op() {
                    LinuxSeccompOperator::ScmpCmpNe => have != arg.value(),
                    LinuxSeccompOperator::ScmpCmpLt => have < arg.value(),
                    LinuxSeccompOperator::ScmpCmpLe => have <= arg.value(),
                    LinuxSeccompOperator::ScmpCmpEq => have == arg.value(),
                    LinuxSeccompOperator::ScmpCmpGe => have >= arg.value(),
                    LinuxSeccompOperator::ScmpCmpGt => have > arg.value(),
                    LinuxSeccompOperator::ScmpCmpMaskedEq => have & arg.value() == arg.value_two().unwrap_or(0),
                }
            };
            let mut indexes: Vec<_> = args_of.iter().map(|arg| arg.index()).collect();
            indexes.sort_unstable();
            indexes.dedup();
            if indexes.len() < args_of.len() {
                args_of.iter().any(holds)
            } else {
                args_of.iter().all(holds)
            }
        };
        let conditional = all.iter().filter(named).filter(|rule| has_args(rule)).find(matching);
        let found = conditional.or_else(|| all.iter().filter(named).find(|rule| !has_args(rule)));
        found.map_or(profile.default_action().as_u32(profile.default_errno_ret()), |rule| {
            rule.action().as_u32(rule.errno_ret())
        })
    }

    const WORDS: [u64; 19] = [
        0,
        1,
        7,
        8,
        9,
        37,
        38,
        39,
        40,
        41,
        0x20000,
        0x20008,
        0x7e02_0000,
        0x1000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0028,
        0x1_0000_0026,
        u64::MAX,
    ];

    fn agree(profile: &LinuxSeccomp) {
        agree_on(profile, (0..1024).chain([5000, X32_BIT - 1, u32::MAX]));
    }

    fn agree_on(profile: &LinuxSeccomp, numbers: impl Iterator<Item = u32>) {
        let program = compile(profile).unwrap();
        for number in numbers {
            for (at, word) in WORDS.iter().enumerate() {
                let args = [
                    *word,
                    WORDS[(at * 7 + 3) % 19],
                    WORDS[(at * 5 + 1) % 19],
                    3,
                    *word,
                    WORDS[18 - at],
                ];
                assert_eq!(
                    run(&program, number, args),
                    naive(profile, number, args),
                    "call {number} {args:x?}"
                );
            }
        }
    }

    fn profile(default: Action, rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
        LinuxSeccompBuilder::default()
            .default_action(default)
            .syscalls(rules)
            .build()
            .unwrap()
    }

    fn rule(name: &str, action: Action, args: &[(usize, LinuxSeccompOperator, u64, u64)]) -> LinuxSyscall {
        let arg = |&(index, op, value, two): &(usize, LinuxSeccompOperator, u64, u64)| {
            LinuxSeccompArgBuilder::default()
                .index(index)
                .op(op)
                .value(value)
                .value_two(two)
                .build()
                .unwrap()
        };
        let args: Vec<_> = args.iter().map(arg).collect();
        LinuxSyscallBuilder::default()
            .names(vec![name.to_owned()])
            .action(action)
            .args(args)
            .build()
            .unwrap()
    }

    #[test]
    fn dockers_profile_means_what_it_says() {
        for caps in [CapabilitySet::EMPTY, CapabilitySet::docker(), CapabilitySet::ALL] {
            agree(&default_profile(&caps));
        }
    }

    #[test]
    fn every_operator_on_both_words() {
        use LinuxSeccompOperator as Op;
        for op in [
            Op::ScmpCmpNe,
            Op::ScmpCmpLt,
            Op::ScmpCmpLe,
            Op::ScmpCmpEq,
            Op::ScmpCmpGe,
            Op::ScmpCmpGt,
            Op::ScmpCmpMaskedEq,
        ] {
            for value in [0, 8, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0028, u64::MAX] {
                for two in [0, 8, 0x1_0000_0000] {
                    let listed = vec![
                        rule("read", Action::ScmpActAllow, &[(0, op, value, two)]),
                        rule(
                            "read",
                            Action::ScmpActErrno,
                            &[(5, op, value, two), (1, Op::ScmpCmpGe, 8, 0)],
                        ),
                        rule("ioctl", Action::ScmpActTrap, &[(1, op, value, two)]),
                    ];
                    let numbers = ["read", "write", "ioctl"].iter().filter_map(|name| rules::number(name));
                    agree_on(&profile(Action::ScmpActKillProcess, listed), numbers);
                }
            }
        }
    }

    #[test]
    fn several_rules_of_one_call() {
        use LinuxSeccompOperator as Op;
        let either = rule(
            "openat",
            Action::ScmpActAllow,
            &[(0, Op::ScmpCmpEq, 1, 0), (0, Op::ScmpCmpEq, 8, 0)],
        );
        let rules = vec![
            rule("write", Action::ScmpActLog, &[]),
            rule("write", Action::ScmpActErrno, &[(0, Op::ScmpCmpEq, 8, 0)]),
            either,
            rule("no_such_call_at_all", Action::ScmpActAllow, &[]),
        ];
        agree(&profile(Action::ScmpActAllow, rules.clone()));
        agree(&profile(Action::ScmpActErrno, rules));
        agree(&profile(Action::ScmpActKill, Vec::new()));
    }

    #[test]
    fn far_jumps_and_too_long_programs() {
        use LinuxSeccompOperator as Op;
        let many = |each: u64| {
            let numbers = (0..300).filter_map(Sysno::new);
            let rules = numbers.flat_map(|sysno| {
                let value = sysno.id() as u64;
                (0..each).map(move |n| rule(sysno.name(), Action::ScmpActAllow, &[(0, Op::ScmpCmpEq, value + n, 0)]))
            });
            profile(Action::ScmpActErrno, rules.collect())
        };
        agree(&many(1));
        assert!(compile(&many(1)).unwrap().len() > 255 * 8);
        assert!(compile(&many(12)).is_err());
    }

    #[test]
    fn foreign_entries_kill() {
        let program = compile(&default_profile(&CapabilitySet::ALL)).unwrap();
        let write = rules::number("write").unwrap();
        for arch in [0, 0x4000_0003, 0x4000_0028, 0xc000_003e, 0xc000_00b7]
            .into_iter()
            .filter(|arch| *arch != NATIVE)
        {
            assert_eq!(bpf::run(&program, &data(arch, write, [0; 6])).unwrap(), KILL_PROCESS);
        }
        assert_eq!(run(&program, X32_BIT + 1, [0; 6]), KILL_PROCESS);
        assert_eq!(run(&program, u32::MAX - 1, [0; 6]), KILL_PROCESS);
        assert_eq!(run(&program, u32::MAX, [0; 6]), NO_SUCH_CALL);
        assert_eq!(run(&program, 5000, [0; 6]), NO_SUCH_CALL);
    }

    #[test]
    fn high_words_do_not_smuggle() {
        let program = compile(&default_profile(&CapabilitySet::docker())).unwrap();
        let socket = rules::number("socket").unwrap();
        let domain = |domain: u64| run(&program, socket, [domain, 1, 0, 0, 0, 0]);
        let allow = Action::ScmpActAllow.as_u32(None);
        assert_eq!(domain(libc::AF_INET as u64), allow);
        assert_ne!(domain(libc::AF_VSOCK as u64), allow);
        assert_ne!(domain(libc::AF_VSOCK as u64 | 1 << 32), allow);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        use LinuxSeccompOperator as Op;
        let bad = [
            rule("sendmsg", Action::ScmpActNotify, &[]),
            rule("read", Action::ScmpActAllow, &[(6, Op::ScmpCmpEq, 0, 0)]),
            LinuxSyscallBuilder::default()
                .names(vec!["read".to_owned()])
                .action(Action::ScmpActErrno)
                .errno_ret(4096u32)
                .build()
                .unwrap(),
        ];
        let kinds = bad.map(|rule| compile(&profile(Action::ScmpActErrno, vec![rule])).unwrap_err());
        assert_eq!(kinds[0].kind(), &crate::ErrorKind::InvalidArgument);
        assert_eq!(kinds[1].kind(), &crate::ErrorKind::InvalidArgument);
        assert_eq!(kinds[2].kind(), &crate::ErrorKind::InvalidArgument);
    }

    #[test]
    fn k3_owners_and_ids_are_squashed_where_the_profile_lets_them_be_changed() {
        const ALLOW: u32 = 0x7fff_0000;
        const MINUS: u64 = 0xffff_ffff;
        let number = |name: &str| rules::number(name).unwrap();
        let docker = CapabilitySet::docker();
        let profile = default_profile(&docker);
        for program in [
            compile_squashed(Some(&profile), &docker).unwrap(),
            compile_squashed(None, &docker).unwrap(),
        ] {
            let fchownat = |uid: u64, gid: u64| run(&program, number("fchownat"), [3, 8, uid, gid, 0, 0]);
            // To the one id there is, and "as it is", in 32 bits or sign-extended: the kernel's to answer.
            for id in [
                (0, 0),
                (0, MINUS),
                (MINUS, 0),
                (MINUS, MINUS),
                (u64::MAX, 0),
                (1 << 32, 0),
            ] {
                assert_eq!(fchownat(id.0, id.1), ALLOW, "{id:x?}");
            }
            for id in [(101, 0), (0, 101), (101, MINUS), (MINUS, 101), (1 << 32 | 7, 0)] {
                assert_eq!(fchownat(id.0, id.1), NOTHING_DONE, "{id:x?}");
            }
            for name in [
                "setuid",
                "setreuid",
                "setresuid",
                "setgid",
                "setregid",
                "setresgid",
                "setgroups",
            ] {
                assert_eq!(run(&program, number(name), [101; 6]), NOTHING_DONE, "{name}");
            }
            for name in ["setfsuid", "capset", "read", "fchmodat"] {
                assert_eq!(run(&program, number(name), [101; 6]), ALLOW, "{name}");
            }
        }
        // Whoever gave the capability away sees that.
        let without = docker.tweak::<&str, _>(&[], &["CHOWN", "SETGID"]).unwrap();
        let program = compile_squashed(Some(&default_profile(&without)), &without).unwrap();
        for (name, answer) in [("fchownat", ALLOW), ("setgroups", ALLOW), ("setuid", NOTHING_DONE)] {
            assert_eq!(run(&program, number(name), [101; 6]), answer, "{name}");
        }
    }

    #[test]
    fn k3_what_a_profile_denies_stays_denied() {
        use LinuxSeccompOperator as Op;
        const DENIED: u32 = 0x0005_0001;
        const ALLOW: u32 = 0x7fff_0000;
        let rules = vec![
            rule("fchownat", Action::ScmpActAllow, &[(4, Op::ScmpCmpEq, 0, 0)]),
            rule("setuid", Action::ScmpActErrno, &[]),
            rule("setgid", Action::ScmpActErrno, &[(0, Op::ScmpCmpEq, 7, 0)]),
            rule("setgid", Action::ScmpActAllow, &[]),
        ];
        let squashed = compile_squashed(Some(&profile(Action::ScmpActErrno, rules)), &CapabilitySet::ALL).unwrap();
        let call = |name: &str, args| run(&squashed, rules::number(name).unwrap(), args);
        assert_eq!(call("fchownat", [3, 8, 5, 5, 0, 0]), NOTHING_DONE);
        assert_eq!(call("fchownat", [3, 8, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call("fchownat", [3, 8, 0, 0, 1, 0]), DENIED);
        assert_eq!(call("fchownat", [3, 8, 5, 5, 1, 0]), DENIED);
        assert_eq!(call("setuid", [5; 6]), DENIED);
        assert_eq!(call("setgid", [7; 6]), DENIED);
        assert_eq!(call("setgid", [8; 6]), NOTHING_DONE);
        // Not named, and the default denies.
        assert_eq!(call("fchown", [5; 6]), DENIED);
    }

    #[test]
    fn k3_without_a_profile_other_entries_stay_open() {
        let program = compile_squashed(None, &CapabilitySet::ALL).unwrap();
        let write = rules::number("write").unwrap();
        assert_eq!(
            bpf::run(&program, &data(0x4000_0003, write, [0; 6])).unwrap(),
            0x7fff_0000
        );
        let profile = default_profile(&CapabilitySet::ALL);
        let program = compile_squashed(Some(&profile), &CapabilitySet::ALL).unwrap();
        assert_eq!(
            bpf::run(&program, &data(0x4000_0003, write, [0; 6])).unwrap(),
            KILL_PROCESS
        );
        assert!(program.len() < 400 * 8, "{} instructions", program.len() / 8);
    }

    #[test]
    fn the_cache_gives_the_same_program() {
        let profile = default_profile(&CapabilitySet::docker());
        let first = compile_cached(&profile).unwrap();
        assert_eq!(&first[..], compile(&profile).unwrap());
        assert!(Arc::ptr_eq(&first, &compile_cached(&profile).unwrap()));
        assert!(first.len() < 250 * 8, "{} instructions", first.len() / 8);
    }
}
