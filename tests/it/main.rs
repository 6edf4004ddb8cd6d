//! The one integration test binary. `docs/testing.md` tells how it is laid out.
//!
//! Every test says whether it touches the kernel. Those that do run one at a time, and afterwards the machine is compared
//! with what it was before: mounts, namespaces, links, rules, cgroups, processes, descriptors, files. Those that wait for most
//! of their time run last and beside each other, and the machine is compared after them all.
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::field_reassign_with_default
)]

mod additional;
mod api;
mod askers;
mod associations;
mod attacks;
mod attacks_more;
mod build;
mod build_more;
mod build_out;
mod cancel;
mod cancel_more;
mod care;
mod cdi;
mod cgroup_parents;
mod checkpoints;
mod checks;
mod chroot;
mod cni;
mod copies;
mod copy;
mod daemon;
mod detached;
mod devices;
mod differences;
mod doctor;
mod drivers;
mod ends;
mod exec;
mod faults;
mod fixtures;
mod forks;
mod frame;
mod host;
mod hostile;
mod idle;
mod images;
mod inject;
mod keeping;
mod kills;
mod labels;
mod layout;
mod life;
mod logging;
mod longshored;
mod micro_vm;
mod misbehaving;
mod namespaces;
mod neighbours;
mod nested;
mod networking;
mod networks;
mod oci_bundle;
mod oci_runtime;
mod outlive;
mod parents;
mod places;
mod platforms;
mod plugging;
mod plugins;
mod power;
mod process;
mod promotion;
mod pruning;
mod publishing;
mod pull;
mod reboot;
mod refusals;
mod remote;
mod renewing;
mod resume;
mod rows;
mod same;
mod shaping;
mod soak;
mod squash;
mod storage;
mod support;
mod sweep;
mod system;
mod tools;
mod trouble;
mod userns;
mod verbs;
mod volumes;

const GROUPS: &[frame::Group] = &[
    layout::TESTS,
    rows::TESTS,
    fixtures::TESTS,
    host::TESTS,
    places::TESTS,
    userns::TESTS,
    namespaces::TESTS,
    networks::TESTS,
    networking::TESTS,
    neighbours::TESTS,
    refusals::TESTS,
    tools::TESTS,
    process::TESTS,
    devices::TESTS,
    attacks::TESTS,
    attacks_more::TESTS,
    sweep::TESTS,
    squash::TESTS,
    life::TESTS,
    volumes::TESTS,
    copies::TESTS,
    copy::TESTS,
    build::TESTS,
    build_out::TESTS,
    build_more::TESTS,
    nested::TESTS,
    idle::TESTS,
    ends::TESTS,
    exec::TESTS,
    oci_bundle::TESTS,
    oci_runtime::TESTS,
    chroot::TESTS,
    micro_vm::TESTS,
    askers::TESTS,
    verbs::TESTS,
    care::TESTS,
    cdi::TESTS,
    cgroup_parents::TESTS,
    labels::TESTS,
    checkpoints::TESTS,
    logging::TESTS,
    detached::TESTS,
    reboot::TESTS,
    promotion::TESTS,
    renewing::TESTS,
    outlive::TESTS,
    checks::TESTS,
    soak::TESTS,
    inject::TESTS,
    differences::TESTS,
    pull::TESTS,
    images::TESTS,
    faults::TESTS,
    keeping::TESTS,
    forks::TESTS,
    kills::TESTS,
    system::TESTS,
    pruning::TESTS,
    cni::TESTS,
    drivers::TESTS,
    parents::TESTS,
    plugging::TESTS,
    associations::TESTS,
    publishing::TESTS,
    cancel::TESTS,
    cancel_more::TESTS,
    resume::TESTS,
    doctor::TESTS,
    platforms::TESTS,
    plugins::TESTS,
    additional::TESTS,
    misbehaving::TESTS,
    power::TESTS,
    api::TESTS,
    daemon::TESTS,
    same::TESTS,
    shaping::TESTS,
    remote::TESTS,
    hostile::TESTS,
    storage::TESTS,
    trouble::TESTS,
];

/// Those that are run a second time, on a root which they share with others.
const SHARING: &[frame::Group] = &[
    host::TESTS,
    userns::TESTS,
    networks::TESTS,
    process::TESTS,
    life::TESTS,
    idle::TESTS,
    ends::TESTS,
    exec::TESTS,
    verbs::TESTS,
    care::TESTS,
    checkpoints::TESTS,
    detached::TESTS,
    images::TESTS,
    system::TESTS,
    pruning::TESTS,
    publishing::TESTS,
    api::TESTS,
    remote::TESTS,
    trouble::TESTS,
];

/// What lifecycles are made of, which are run with other runtimes, too.
const LIFECYCLE: &[frame::Group] = &[
    process::TESTS,
    life::TESTS,
    ends::TESTS,
    exec::TESTS,
    verbs::TESTS,
    care::TESTS,
    logging::TESTS,
    copy::TESTS,
];

const ROLES: &[(&str, support::embedder::Role)] = &[
    ("echo", fixtures::role_echo),
    ("pull-once", pull::role_pull),
    ("with-volume", volumes::with_volume),
];

fn main() {
    let roles: Vec<_> = ROLES
        .iter()
        .chain(inject::ROLES)
        .chain(faults::ROLES)
        .chain(kills::ROLES)
        .chain(forks::ROLES)
        .chain(exec::ROLES)
        .chain(oci_runtime::ROLES)
        .chain(chroot::ROLES)
        .chain(askers::ROLES)
        .chain(places::ROLES)
        .chain(hostile::ROLES)
        .chain(idle::ROLES)
        .chain(build_more::ROLES)
        .chain(nested::ROLES)
        .chain(cni::ROLES)
        .chain(drivers::ROLES)
        .chain(cgroup_parents::ROLES)
        .chain(parents::ROLES)
        .chain(publishing::ROLES)
        .chain(system::ROLES)
        .chain(doctor::ROLES)
        .chain(networks::ROLES)
        .chain(plugging::ROLES)
        .chain(associations::ROLES)
        .chain(power::ROLES)
        .chain(images::ROLES)
        .chain(detached::ROLES)
        .chain(outlive::ROLES)
        .chain(renewing::ROLES)
        .chain(promotion::ROLES)
        .chain(checks::ROLES)
        .copied()
        .collect();
    if let Some(code) = support::embedder::run_role(&roles) {
        std::process::exit(code);
    }
    support::warnings::collect();
    let scratch = support::scratch::enter();
    // Made before the first comparison of before and after; where it cannot be, the tests that need it say so.
    let _ = support::image::shared();
    faults::warm_up();
    let company = support::company::start(faults::fill).expect("company");
    // With company, those with tests that need no root of their own; else all.
    let groups = match (&company, support::runtime::chosen()) {
        (Some(_), _) => SHARING,
        (None, Some(_)) => LIFECYCLE,
        (None, None) => GROUPS,
    };
    let conclusion = frame::run_all(groups);
    if let Some(company) = company
        && let Err(stop) = company.finish(faults::no_container_left)
    {
        println!("{stop:?}");
        drop(scratch);
        std::process::exit(1);
    }
    drop(scratch);
    conclusion.exit()
}
