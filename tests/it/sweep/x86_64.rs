//! The sweep where the program that makes the calls is machine code of x86_64.

use std::collections::BTreeMap;

use longshore::ContainerSpec;
use longshore::containers::Seccomp;
use nix::libc;
use serde_json::Value;
use syscalls::Sysno;

use crate::attacks::{image_with, machine_code};
use crate::frame::{Check, Stop, fail};
use crate::support::world::World;

/// The numbers that are tried: twice as many as there are calls.
const NUMBERS: std::ops::Range<u32> = 0..1024;
/// Bit of the numbers of x32. Source: Linux, `arch/x86/include/uapi/asm/unistd.h`.
const X32: u32 = 0x4000_0000;
/// What a container has unless it asks for others. Source: Docker's documentation, "Runtime privilege and Linux capabilities".
const CAPS: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// Not tried: one waits for ever, one for all of the host's disks, one goes wherever the stack says; and uretprobe and uprobe, which the
/// kernel lets through every filter, as they are its own (Linux 6.14, `kernel/seccomp.c`).
const LEFT_OUT: [i64; 5] = [libc::SYS_pause, libc::SYS_sync, libc::SYS_rt_sigreturn, 335, 336];

/// A program that makes the call whose number is its argument, and ends with 1 for `EPERM`, 38 for `ENOSYS`, and 0 for all else.
fn caller(by_interrupt: bool) -> Vec<u8> {
    let mut code = vec![
        0x48, 0x8b, 0x74, 0x24, 0x10, // mov rsi, [rsp+16]: the argument
        0x31, 0xc0, // xor eax, eax
        0x31, 0xc9, // xor ecx, ecx
        0x8a, 0x0e, // next: mov cl, [rsi]
        0x84, 0xc9, // test cl, cl
        0x74, 0x0d, // jz done
        0x80, 0xe9, 0x30, // sub cl, '0'
        0x6b, 0xc0, 0x0a, // imul eax, eax, 10
        0x01, 0xc8, // add eax, ecx
        0x48, 0xff, 0xc6, // inc rsi
        0xeb, 0xed, // jmp next
    ];
    // done: rdi, rsi, rdx, r10, r8, r9 and ebx, ecx, ebp: -1.
    for set in [
        &[0x48, 0xc7, 0xc7][..],
        &[0x48, 0xc7, 0xc6],
        &[0x48, 0xc7, 0xc2],
        &[0x49, 0xc7, 0xc2],
        &[0x49, 0xc7, 0xc0],
        &[0x49, 0xc7, 0xc1],
        &[0x48, 0xc7, 0xc3],
        &[0x48, 0xc7, 0xc1],
        &[0x48, 0xc7, 0xc5],
    ] {
        code.extend(set);
        code.extend(u32::MAX.to_le_bytes());
    }
    code.extend(if by_interrupt { [0xcd, 0x80] } else { [0x0f, 0x05] });
    code.extend([
        0x31, 0xff, // xor edi, edi
        0x83, 0xf8, 0xff, // cmp eax, -EPERM
        0x75, 0x03, // jne over the next
        0x40, 0xb7, 0x01, // mov dil, 1
        0x83, 0xf8, 0xda, // cmp eax, -ENOSYS
        0x75, 0x03, // jne over the next
        0x40, 0xb7, 0x26, // mov dil, 38
        0xb8, 0x3c, 0x00, 0x00, 0x00, // mov eax, exit
        0x0f, 0x05, // syscall
    ]);
    machine_code(&code)
}

async fn image(world: &World) -> Result<String, Stop> {
    image_with(world, |files| {
        files
            .file("bin/call", 0o755, caller(false))
            .file("bin/old", 0o755, caller(true))
    })
    .await
}

/// What a program ends with for each number.
async fn answers(
    world: &World,
    image: &str,
    (program, seccomp): (&str, Seccomp),
    numbers: impl Iterator<Item = u32>,
) -> Result<BTreeMap<u32, i32>, Stop> {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    let script = format!(
        "ulimit -c 0; for n in {}; do /bin/{program} $n; echo $n $?; done 2>/dev/null",
        numbers.join(" ")
    );
    let spec = ContainerSpec::image(image)
        .command(["sh", "-c", &script])
        .seccomp(seccomp);
    let said = world.says(spec).await?;
    let mut all = BTreeMap::new();
    for line in said.lines() {
        let Some((number, code)) = line.split_once(' ') else {
            return fail(format!("said {line:?}"));
        };
        all.insert(number.parse()?, code.parse()?);
    }
    assert_eq!(all.len(), numbers.len());
    Ok(all)
}

/// What a profile says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Allowed,
    Errno(i32),
    /// Its arguments decide.
    Depends,
}

/// The profile as its words say, for this architecture and the usual capabilities.
fn policy() -> Result<BTreeMap<String, Policy>, Stop> {
    let text = include_str!("../../../src/runtime/native/seccomp/default.json");
    let groups: Vec<Value> = serde_json::from_str(text)?;
    let mut all = BTreeMap::new();
    for group in groups.iter().filter(|group| holds(group)) {
        let said = match (group["args"].is_array(), group["action"].as_str()) {
            (true, _) => Policy::Depends,
            (false, Some("allow")) => Policy::Allowed,
            (false, _) => Policy::Errno(i32::try_from(group["errno"].as_i64().unwrap_or(1))?),
        };
        for name in words(&group["names"]).flat_map(str::split_ascii_whitespace) {
            let known = all.entry(name.to_owned()).or_insert(said);
            // Where it is allowed whatever its arguments are, no other rule matters.
            if *known != Policy::Allowed && (said == Policy::Allowed || *known != said) {
                *known = if said == Policy::Allowed { said } else { Policy::Depends };
            }
        }
    }
    Ok(all)
}

fn words(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn holds(group: &Value) -> bool {
    let has = |name: &str| CAPS.contains(&name);
    let here = |name: &str| name == "amd64";
    words(&group["caps"]).all(has)
        && !words(&group["without_caps"]).any(has)
        && (group["arches"].is_null() || words(&group["arches"]).any(here))
        && !words(&group["without_arches"]).any(here)
}

/// What is said of a number. What is newer than all that the profile knows is no call of this kernel.
fn said_of(number: u32, policy: &BTreeMap<String, Policy>, newest: u32) -> Policy {
    let name = Sysno::new(number as usize).map(|call| call.name());
    match name.and_then(|name| policy.get(name)) {
        Some(said) => *said,
        None if number > newest => Policy::Errno(libc::ENOSYS),
        None => Policy::Errno(libc::EPERM),
    }
}

pub async fn h11_every_call_is_answered_as_the_profile_says() -> Check {
    let world = World::new().await?;
    let image = image(&world).await?;
    let policy = policy()?;
    let named = NUMBERS.filter(|number| Sysno::new(*number as usize).is_some_and(|it| policy.contains_key(it.name())));
    let newest = named.max().unwrap_or(0);
    let tried = NUMBERS.filter(|number| !LEFT_OUT.contains(&i64::from(*number)));
    let answered = answers(&world, &image, ("call", Seccomp::Default), tried).await?;
    // The kernel's own answers, to what is allowed.
    let allowed = |number: &u32| said_of(*number, &policy, newest) == Policy::Allowed;
    let open = answered.keys().copied().filter(allowed);
    let kernels = answers(&world, &image, ("call", Seccomp::Unconfined), open).await?;
    assert!(kernels.len() > 200, "{}", kernels.len());
    let mut wrong = Vec::new();
    for (number, code) in answered {
        let expected = match said_of(number, &policy, newest) {
            Policy::Depends => continue,
            Policy::Errno(errno) => errno,
            Policy::Allowed => kernels[&number],
        };
        if code != expected {
            let name = Sysno::new(number as usize).map_or("no name", |call| call.name());
            wrong.push(format!("{number} ({name}): {code} and not {expected}"));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => fail(wrong.join("\n")),
    }
}

pub async fn h11_other_entries_are_closed_for_every_number() -> Check {
    let world = World::new().await?;
    let image = image(&world).await?;
    let (bad_call, no_entry) = (128 + libc::SIGSYS, 128 + libc::SIGSEGV);
    let x32 = answers(
        &world,
        &image,
        ("call", Seccomp::Default),
        NUMBERS.map(|number| X32 | number),
    )
    .await?;
    let through: Vec<_> = x32.iter().filter(|(_, code)| **code != bad_call).collect();
    assert!(through.is_empty(), "x32: {through:?}");
    // A kernel without the 32-bit entry knows no such interrupt.
    let old = answers(&world, &image, ("old", Seccomp::Default), NUMBERS).await?;
    let through: Vec<_> = old
        .iter()
        .filter(|(_, code)| ![bad_call, no_entry].contains(*code))
        .collect();
    assert!(through.is_empty(), "32 bits: {through:?}");
    Ok(())
}
