use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, MountBuilder, ProcessBuilder, SpecBuilder,
};

use super::*;
use crate::runtime::StdioPlan;
use crate::types::ContainerId;

const BUNDLE: &str = "/root/containers/x";

fn host(landlock: u32) -> Host {
    Host {
        landlock,
        own: CapabilitySet::docker(),
    }
}

fn bound(source: &str, target: &str) -> SpecMount {
    let mount = MountBuilder::default().destination(target).source(source).typ("bind");
    mount.build().unwrap()
}

/// What a container of the engine's has that asks for nothing but the host's network.
fn launch(capabilities: CapabilitySet) -> Launch {
    let set = capabilities.to_oci();
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(CapabilitySet::EMPTY.to_oci())
        .ambient(CapabilitySet::EMPTY.to_oci());
    let process = ProcessBuilder::default()
        .args(["true".to_owned()])
        .capabilities(sets.build().unwrap());
    let mut mounts = defaults::mounts();
    for name in ["hosts", "hostname", "resolv.conf"] {
        mounts.push(bound(&format!("{BUNDLE}/{name}"), &format!("/etc/{name}")));
    }
    let own = LinuxNamespaceBuilder::default()
        .typ(LinuxNamespaceType::Pid)
        .build()
        .unwrap();
    let linux = LinuxBuilder::default()
        .namespaces([own])
        .masked_paths(defaults::masked_paths())
        .readonly_paths(defaults::readonly_paths());
    let id = ContainerId::random();
    let mut spec = SpecBuilder::default()
        .process(process.build().unwrap())
        .hostname(id.short())
        .mounts(mounts)
        .linux(linux.build().unwrap())
        .build()
        .unwrap();
    spec.set_root(None);
    Launch {
        id,
        spec,
        user: None,
        extra_groups: Vec::new(),
        rootfs: vec![Mount::bind("/root/snapshots/1", false)],
        stdio: StdioPlan::default(),
        init: true,
        scratch: vec![BUNDLE.into()],
        best_effort_limits: false,
        shared: Vec::new(),
        privileged: false,
        mounts: Vec::new(),
        hold: false,
        bundle: Some(BUNDLE.into()),
        name: None,
        notes: None,
    }
}

fn usual() -> Launch {
    launch(CapabilitySet::docker())
}

fn bounding(launch: &Launch) -> CapabilitySet {
    let process = launch.spec.process().as_ref().unwrap();
    let sets = process.capabilities().as_ref().unwrap();
    CapabilitySet::from_bits(capability_bits(sets.bounding().as_ref().unwrap()))
}

#[test]
fn h21_what_every_container_has_is_left_out_and_told() {
    let asked = ask(usual(), host(7)).unwrap();
    assert_eq!(asked.warnings, LOST);
    assert!(asked.launch.spec.mounts().is_none() && asked.launch.spec.hostname().is_none());
    assert!(!asked.launch.init && asked.launch.shared.is_empty());
    let process = asked.launch.spec.process().as_ref().unwrap();
    assert_eq!(process.no_new_privileges(), Some(true));
    let targets: Vec<&Path> = asked.files.iter().map(|(_, target)| target.as_path()).collect();
    assert_eq!(targets, [Path::new("/etc/hosts"), Path::new("/etc/resolv.conf")]);
}

#[test]
fn h21_capabilities_that_lead_out_are_taken_away() {
    let names = |set: CapabilitySet| set.names().collect::<Vec<_>>();
    let kept = bounding(&ask(usual(), host(7)).unwrap().launch);
    let away = CapabilitySet::docker().minus(kept);
    assert_eq!(names(away), ["CAP_SYS_CHROOT", "CAP_MKNOD"]);
    let asked = ask(usual(), host(5)).unwrap();
    assert!(names(CapabilitySet::docker().minus(bounding(&asked.launch))).contains(&"CAP_KILL"));
    assert!(asked.warnings.iter().any(|warning| warning.contains("CAP_KILL")));
    let poor = Host {
        own: CapabilitySet::docker().minus(CapabilitySet::from_bits(1 << 13)),
        ..host(7)
    };
    let asked = ask(usual(), poor).unwrap();
    assert!(asked.warnings.iter().any(|warning| warning.contains("CAP_NET_RAW")));
    assert!(!names(bounding(&asked.launch)).contains(&"CAP_NET_RAW"));
    let tracing = CapabilitySet::docker().union(CapabilitySet::from_bits(1 << 19));
    let refused = ask(launch(tracing), host(7)).unwrap_err();
    assert!(
        refused.is_unsupported() && refused.to_string().contains("CAP_SYS_PTRACE"),
        "{refused}"
    );
}

#[test]
fn h21_what_is_asked_for_and_cannot_be_had_is_named() {
    let changed = |change: &dyn Fn(&mut Launch)| {
        let mut launch = usual();
        change(&mut launch);
        launch
    };
    let network = || {
        LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .build()
            .unwrap()
    };
    let more = |launch: &mut Launch, mount: SpecMount| {
        let mut mounts = launch.spec.mounts().clone().unwrap();
        mounts.push(mount);
        launch.spec.set_mounts(Some(mounts));
    };
    let cases: [(Launch, &str); 10] = [
        (changed(&|launch| launch.rootfs[0].read_only = true), "read-only root"),
        (changed(&|launch| launch.privileged = true), "privileged"),
        (
            changed(&|launch| {
                launch.spec.set_hostname(Some("own".into()));
            }),
            "host name",
        ),
        (
            changed(&|launch| {
                launch.spec.set_domainname(Some("own".into()));
            }),
            "host name",
        ),
        (
            changed(&|launch| {
                let linux = launch.spec.linux_mut().as_mut().unwrap();
                linux.set_namespaces(Some(vec![network()]));
            }),
            "network",
        ),
        (
            changed(&|launch| {
                let linux = launch.spec.linux_mut().as_mut().unwrap();
                linux.set_masked_paths(Some(vec!["/secret".into()]));
            }),
            "masked paths",
        ),
        (
            changed(&|launch| {
                let linux = launch.spec.linux_mut().as_mut().unwrap();
                linux.set_sysctl(Some([("net.ipv4.ip_forward".into(), "1".into())].into()));
            }),
            "sysctls",
        ),
        (changed(&|launch| more(launch, bound("/srv", "/srv"))), "/srv"),
        (
            changed(&|launch| more(launch, defaults::shm_mount(1 << 20))),
            "/dev/shm",
        ),
        (
            changed(&|launch| {
                let process = launch.spec.process_mut().as_mut().unwrap();
                process.set_oom_score_adj(Some(-5));
            }),
            "OOM",
        ),
    ];
    for (launch, what) in cases {
        let refused = ask(launch, host(7)).unwrap_err();
        assert!(
            refused.is_unsupported() && refused.to_string().contains(what),
            "{what}: {refused}"
        );
    }
}

#[test]
fn h21_files_that_have_to_be_mounted_name_the_storage_driver() {
    let mut launch = usual();
    launch.rootfs[0].source = MountSource::Overlay {
        lower: vec!["/l".into()],
        upper: None,
        work: None,
        user_xattr: false,
        volatile: false,
    };
    let refused = ask(launch, host(7)).unwrap_err();
    assert!(
        refused.is_unsupported() && refused.report().contains("vfs"),
        "{}",
        refused.report()
    );
}

#[test]
fn h21_a_file_at_a_place_of_the_engines_may_be_somebody_elses() {
    let mut launch = usual();
    let mut mounts = launch.spec.mounts().clone().unwrap();
    mounts.retain(|mount| mount.destination() != Path::new("/etc/hosts"));
    mounts.push(bound("/srv/hosts", "/etc/hosts"));
    launch.spec.set_mounts(Some(mounts));
    assert!(ask(launch, host(7)).unwrap_err().to_string().contains("/etc/hosts"));
}
