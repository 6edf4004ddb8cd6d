//! Device rules as a program that the kernel asks, for version 2, which has no files for them. Pure.
//!
//! The rules mean what they mean in version 1: all that stand in the list hold after each other, so the last that fits an
//! access decides, and an access that none fits is refused.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::sys::bpf::Instruction;

// What an access is: `struct bpf_cgroup_dev_ctx` of `linux/bpf.h`.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const EVERY: i32 = MKNOD | READ | WRITE;

// Instruction codes: `linux/bpf_common.h`, `linux/bpf.h`.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const MOVE: u8 = 0xb7;
const COPY: u8 = 0xbf;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_UNLESS_SAME: u8 = 0x5d;
const JUMP_IF_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

// What the registers hold.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// A rule in numbers. `None` fits all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

/// The program for a list of rules.
pub(crate) fn program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    let mut out = vec![
        instruction(LOAD_WORD, KIND | CONTEXT << 4, 0, 0),
        instruction(COPY, ACCESS | KIND << 4, 0, 0),
        instruction(AND, KIND, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        Instruction {
            jump: 4,
            ..instruction(LOAD_WORD, MAJOR | CONTEXT << 4, 0, 0)
        },
        Instruction {
            jump: 8,
            ..instruction(LOAD_WORD, MINOR | CONTEXT << 4, 0, 0)
        },
    ];
    // What comes last decides, so it is asked first.
    for rule in merged(rules).iter().rev() {
        out.extend(rule.instructions());
        if rule.fits_all() {
            // The kernel refuses programs with a part that is never reached.
            return out;
        }
    }
    out.extend(verdict(false));
    out
}

fn instruction(code: u8, registers: u8, jump: i16, number: i32) -> Instruction {
    Instruction {
        code,
        registers,
        jump,
        number,
    }
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [
        instruction(MOVE, RESULT, 0, i32::from(allow)),
        instruction(EXIT, 0, 0, 0),
    ]
}

/// Neighbours that allow more and more of the same device are one rule: an access may ask for all of it at once.
fn merged(rules: &[LinuxDeviceCgroup]) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules.iter().map(Rule::of) {
        match out.last_mut() {
            Some(last) if last.allow == rule.allow && last.device() == rule.device() => last.access |= rule.access,
            _ => out.push(rule),
        }
    }
    out
}

impl Rule {
    fn of(rule: &LinuxDeviceCgroup) -> Self {
        let number = |value: Option<i64>| value.filter(|n| *n >= 0).and_then(|n| i32::try_from(n).ok());
        let kind = match rule.typ() {
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
            _ => None,
        };
        let letters = rule.access().as_deref().filter(|letters| !letters.is_empty());
        let bit = |letter| match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => 0,
        };
        Self {
            allow: rule.allow(),
            // A rule for all kinds is one for all devices, as in version 1.
            major: number(rule.major()).filter(|_| kind.is_some()),
            minor: number(rule.minor()).filter(|_| kind.is_some()),
            kind,
            access: letters.map_or(EVERY, |letters| letters.chars().map(bit).fold(0, |all, bit| all | bit)),
        }
    }

    fn device(&self) -> (Option<i32>, Option<i32>, Option<i32>) {
        (self.kind, self.major, self.minor)
    }

    fn fits_all(&self) -> bool {
        self.device() == (None, None, None) && self.access == EVERY
    }

    /// Falls through to what follows where the rule does not fit.
    fn instructions(&self) -> Vec<Instruction> {
        let mut tests: Vec<Instruction> = Vec::new();
        for (register, number) in [(KIND, self.kind), (MAJOR, self.major), (MINOR, self.minor)] {
            tests.extend(number.map(|number| instruction(JUMP_UNLESS_EQUAL, register, 0, number)));
        }
        if self.access != EVERY {
            tests.push(instruction(COPY, CONTEXT | ACCESS << 4, 0, 0));
            tests.push(instruction(AND, CONTEXT, 0, self.access));
            // What is allowed must be all that is asked for; what is denied need be a part of it only.
            tests.push(match self.allow {
                true => instruction(JUMP_UNLESS_SAME, CONTEXT | ACCESS << 4, 0, 0),
                false => instruction(JUMP_IF_EQUAL, CONTEXT, 0, 0),
            });
        }
        let length = tests.len() + 2;
        for (index, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, JUMP_UNLESS_EQUAL | JUMP_UNLESS_SAME | JUMP_IF_EQUAL) {
                test.jump = (length - index - 1) as i16;
            }
        }
        tests.extend(verdict(self.allow));
        tests
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    use super::*;

    fn rule(allow: bool, typ: LinuxDeviceType, numbers: (i64, i64), access: &str) -> LinuxDeviceCgroup {
        let rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(typ).access(access);
        rule.major(numbers.0).minor(numbers.1).build().unwrap()
    }

    /// What the kernel would do with the program.
    fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i64; 11];
        let mut at = 0usize;
        loop {
            let Instruction {
                code,
                registers: r,
                jump,
                number,
            } = program[at];
            let (to, from) = (usize::from(r & 15), usize::from(r >> 4));
            let mut jumps = false;
            match code {
                LOAD_WORD => registers[to] = i64::from(context[jump as usize / 4]),
                AND => registers[to] &= i64::from(number),
                SHIFT_RIGHT => registers[to] >>= number,
                MOVE => registers[to] = i64::from(number),
                COPY => registers[to] = registers[from],
                JUMP_UNLESS_EQUAL => jumps = registers[to] != i64::from(number),
                JUMP_UNLESS_SAME => jumps = registers[to] != registers[from],
                JUMP_IF_EQUAL => jumps = registers[to] == i64::from(number),
                EXIT => return registers[0] != 0,
                other => panic!("no such code {other:#x}"),
            }
            at = at + 1 + if jumps { jump as usize } else { 0 };
        }
    }

    #[test]
    fn h8_the_last_rule_that_fits_decides() {
        use LinuxDeviceType::{A, B, C};
        let program = program(&[
            rule(false, A, (-1, -1), "rwm"),
            rule(true, C, (-1, -1), "m"),
            rule(true, C, (1, 3), "r"),
            rule(true, C, (1, 3), "w"),
            rule(true, B, (8, -1), "rw"),
            rule(false, B, (8, 5), "w"),
        ]);
        for (kind, access, major, minor, allowed) in [
            (CHAR, READ | WRITE, 1, 3, true),
            (CHAR, READ, 1, 3, true),
            (CHAR, MKNOD, 1, 3, true),
            (CHAR, MKNOD | READ, 1, 3, false),
            (CHAR, READ, 1, 5, false),
            (CHAR, MKNOD, 9, 9, true),
            (BLOCK, READ | WRITE, 8, 1, true),
            (BLOCK, READ | WRITE, 8, 5, false),
            (BLOCK, READ, 8, 5, true),
            (BLOCK, MKNOD, 8, 1, false),
            (BLOCK, READ, 1, 3, false),
        ] {
            assert_eq!(
                run(&program, kind, access, major, minor),
                allowed,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn h8_no_rule_allows_nothing_and_a_rule_for_all_everything() {
        assert!(!run(&program(&[]), CHAR, READ, 1, 3));
        let all = rule(true, LinuxDeviceType::A, (1, 3), "rwm");
        assert!(run(&program(&[all]), BLOCK, EVERY, 8, 0));
    }

    #[test]
    fn h8_the_kernel_takes_the_programs() {
        use LinuxDeviceType::{A, B, C};
        let lists = [
            vec![],
            vec![rule(false, A, (-1, -1), "rwm"), rule(true, C, (1, -1), "rw")],
            vec![
                rule(true, A, (-1, -1), "rwm"),
                rule(false, B, (8, 0), "w"),
                rule(true, A, (-1, -1), "rwm"),
            ],
            vec![rule(true, C, (-1, -1), "m"), rule(false, A, (-1, -1), "r")],
        ];
        for rules in lists {
            match crate::sys::bpf::load_device_filter(&program(&rules)) {
                Ok(program) => drop(program),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{rules:?}: {error}"),
            }
        }
    }
}
