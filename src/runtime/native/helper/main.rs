//! The helper: a static program without a C library that the library embeds and runs from a sealed memfd. It is the zygote
//! of an engine, and the parent and first steps of every container. See `docs/process-model.md`.
#![no_std]
#![no_main]
#![cfg_attr(not(shim), allow(dead_code, reason = "a shim uses the rest"))]

#[cfg(target_arch = "aarch64")]
#[path = "arch/aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "arch/x86_64.rs"]
mod arch;
mod apart;
#[cfg(shim)]
mod backoff;
mod check;
mod container;
mod dev;
#[cfg(shim)]
mod entry;
mod everyone;
mod exec;
mod fail;
#[cfg(shim)]
#[allow(dead_code, reason = "the library uses the rest")]
mod health;
mod house;
mod init;
mod join;
mod ledger;
mod look;
mod message;
mod mounts;
mod netns;
mod outfit;
mod passwd;
mod path;
#[cfg(shim)]
#[allow(dead_code, reason = "the library uses the rest")]
mod record;
mod remove;
#[cfg(shim)]
mod shim;
mod slim;
mod sys;
#[cfg(shim)]
#[allow(dead_code, reason = "the library uses the rest")]
mod talk;
mod tool;
mod user;
mod warden;
#[allow(dead_code, reason = "the library uses the rest")]
mod wire;
mod worker;
mod zygote;

/// Where the program begins, on an aligned stack.
pub(crate) extern "C" fn entry() -> ! {
    zygote::run()
}

/// No code here panics by design; if it does, the process ends and the kernel ends every container with it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(125)
}

/// Named by the prebuilt `core`, never called: nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
