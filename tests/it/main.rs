//! The one integration test binary. `docs/testing.md` tells how it is laid out.
//!
//! Every test says whether it touches the kernel. Those that do run one at a time, and afterwards the machine is compared
//! with what it was before: mounts, namespaces, links, rules, cgroups, processes, descriptors, files.
#![allow(unreachable_pub, missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod fixtures;
mod frame;
mod layout;
mod support;

use libtest_mimic::Arguments;

const GROUPS: &[frame::Group] = &[layout::TESTS, fixtures::TESTS];

const ROLES: &[(&str, support::embedder::Role)] = &[("echo", fixtures::role_echo)];

fn main() {
    if let Some(code) = support::embedder::run_role(ROLES) {
        std::process::exit(code);
    }
    let scratch = support::scratch::enter();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), frame::trials(GROUPS));
    drop(scratch);
    conclusion.exit()
}
