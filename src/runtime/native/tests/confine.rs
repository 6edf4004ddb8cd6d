//! What a container is kept from: paths, capabilities, devices, limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use oci_spec::runtime::Capability;

use super::{caps, finish, launch, mount, mounts, root, run, runtime, sh, spec};
use crate::runtime::Runtime;
use crate::runtime::native;
use crate::runtime::native::{NativeOptions, NativeRuntime};
use crate::types::Mount;

#[tokio::test]
async fn paths_are_masked_and_read_only() {
    let output = sh(
        "wc -c < /proc/version; echo 1 > /proc/sys/kernel/domainname; ls /sys/firmware | wc -l; \
                     echo x > /sys/fs/cgroup/x; echo x > /writable && cat /writable",
    )
    .await;
    assert!(output.stdout.starts_with("0\n"), "{} {}", output.stdout, output.stderr);
    assert!(output.stdout.ends_with("0\nx\n"), "{} {}", output.stdout, output.stderr);
    assert_eq!(
        output.stderr.matches("ead-only file system").count(),
        2,
        "{}",
        output.stderr
    );
}

#[tokio::test]
async fn a_read_only_root() {
    let root = root();
    let mut launch = launch(
        root.path(),
        &["sh", "-c", "echo x > /x; echo y > /dev/shm/y && cat /dev/shm/y"],
    );
    launch.rootfs[0].read_only = true;
    let output = run(launch).await.unwrap();
    assert!(output.stderr.contains("ead-only file system"), "{}", output.stderr);
    assert_eq!(output.stdout, "y\n");
}

#[tokio::test]
async fn capabilities_filter_and_limits() {
    let root = root();
    let mut launch = launch(
        root.path(),
        &["sh", "-c", "cat /proc/self/status; ulimit -n; ls /proc/self/fd"],
    );
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&["CHOWN", "KILL"])));
    let limit = oci_spec::runtime::PosixRlimitBuilder::default()
        .typ(oci_spec::runtime::PosixRlimitType::RlimitNofile)
        .soft(100u64)
        .hard(200u64)
        .build()
        .unwrap();
    process.set_rlimits(Some(vec![limit]));
    process.set_no_new_privileges(Some(true));
    process.set_oom_score_adj(Some(500));
    let output = run(launch).await.unwrap();
    for line in [
        "CapEff:\t0000000000000021",
        "CapBnd:\t0000000000000021",
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(output.stdout.contains(line), "{line}: {}", output.stdout);
    }
    // Three streams, and the directory that ls reads.
    assert!(output.stdout.ends_with("100\n0\n1\n2\n3\n"), "{}", output.stdout);
}

#[tokio::test]
async fn the_hosts_network() {
    let root = root();
    let mut launch = launch(root.path(), &["sh", "-c", "ls -l /proc/self/ns/net; ls /sys/class/net"]);
    launch.spec = {
        let mut spec = spec(&[], false);
        let args = launch.spec.process().as_ref().unwrap().args().clone();
        spec.process_mut().as_mut().unwrap().set_args(args);
        spec
    };
    let output = run(launch).await.unwrap();
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(
        output.stdout.contains(ours.to_str().unwrap()),
        "{} {}",
        output.stdout,
        output.stderr
    );
}

#[tokio::test]
async fn binds_and_overlays() {
    let (root, data) = (root(), root());
    let layers = tempfile::tempdir().unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(layers.path().join(name)).unwrap();
    }
    let mut launch = launch(
        root.path(),
        &[
            "sh",
            "-c",
            "echo 1 > /a; cat /data/etc/group | wc -l; echo x > /data/x; echo y > /rw/y",
        ],
    );
    launch.rootfs = vec![Mount {
        source: crate::types::MountSource::Overlay {
            lower: vec![root.path().to_owned()],
            upper: Some(layers.path().join("upper")),
            work: Some(layers.path().join("work")),
            user_xattr: !native::has_admin(),
            volatile: true,
        },
        read_only: false,
    }];
    let mut all = mounts();
    let bind = |target: &str, options: &[&str]| {
        let mut mount = mount(target, "bind", options);
        mount.set_source(Some(data.path().to_owned()));
        mount
    };
    all.push(bind("/data", &["rbind", "ro"]));
    all.push(bind("/rw", &["rbind", "rw", "nosuid"]));
    launch.spec.set_mounts(Some(all));
    let output = run(launch).await.unwrap();
    assert_eq!(output.stdout, "3\n", "{}", output.stderr);
    assert!(output.stderr.contains("ead-only"), "{}", output.stderr);
    assert!(layers.path().join("upper/a").exists(), "{}", output.stderr);
    assert!(data.path().join("y").exists() && !data.path().join("x").exists());
    let work = layers.path().join("work");
    let runtime = std::sync::Arc::new(runtime());
    runtime.info().unwrap();
    tokio::task::spawn_blocking(move || runtime.remove_tree(&work))
        .await
        .unwrap()
        .unwrap();
    assert!(!layers.path().join("work").exists());
}

#[tokio::test]
async fn one_tree_is_removed_by_several_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = std::sync::Arc::new(runtime());
    runtime.info().unwrap();
    for round in 0..20 {
        let tree = dir.path().join(round.to_string());
        for inner in 0..300 {
            let deep = tree.join(format!("{}/{}/{}", inner % 3, inner % 10, inner));
            std::fs::create_dir_all(&deep).unwrap();
            std::fs::write(deep.join("file"), "").unwrap();
        }
        let removals: Vec<_> = (0..4)
            .map(|_| {
                let (runtime, tree) = (runtime.clone(), tree.clone());
                tokio::task::spawn_blocking(move || runtime.remove_tree(&tree))
            })
            .collect();
        for removal in removals {
            removal.await.unwrap().unwrap();
        }
        assert!(!tree.exists());
    }
}

#[tokio::test]
async fn limits_hold_and_the_filter_is_loaded() {
    use crate::runtime::cgroups::{CgroupDriver, CgroupMode, NativeCgroups};
    use oci_spec::runtime::{LinuxPidsBuilder, LinuxResourcesBuilder};
    let driver = NativeCgroups::new(&crate::types::OwnerId::random());
    if driver.mode() == CgroupMode::None || !native::has_admin() {
        eprintln!("skipped: no cgroup that this user may use");
        return;
    }
    let root = root();
    let options = NativeOptions {
        cgroups: Some(std::sync::Arc::new(driver)),
        ..NativeOptions::default()
    };
    let runtime = NativeRuntime::new(options);
    let mut launch = launch(
        root.path(),
        &[
            "sh",
            "-c",
            "cat /proc/self/cgroup; grep Seccomp: /proc/self/status; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait",
        ],
    );
    let caps = crate::runtime::caps::CapabilitySet::docker();
    let pids = LinuxPidsBuilder::default().limit(5i64).build().unwrap();
    if let Some(linux) = launch.spec.linux_mut() {
        linux.set_resources(Some(LinuxResourcesBuilder::default().pids(pids).build().unwrap()));
        linux.set_seccomp(Some(native::seccomp::default_profile(&caps)));
    }
    let started = runtime.start(launch).await.unwrap();
    assert!(started.warnings.is_empty());
    let output = finish(started).await;
    assert!(
        output.stderr.contains("can't fork"),
        "{} {}",
        output.stdout,
        output.stderr
    );
    assert!(output.stdout.contains("Seccomp:\t2"), "{}", output.stdout);
    assert!(
        output.stdout.contains(":pids:/\n") || output.stdout.contains("0::/\n"),
        "{}",
        output.stdout
    );
}

/// Docker's capabilities allow `mknod(2)`, and no devices cgroup is used: what a container makes must open nothing.
#[tokio::test]
async fn a_device_that_a_container_makes_opens_nothing() {
    let root = root();
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = "for dir in /tmp /dev /dev/shm /run /host; do
            mknod $dir/made c 1 5 && dd if=$dir/made of=/dev/null bs=1 count=1 && echo \"opened in $dir\"
            mknod $dir/memory c 1 1 && cat $dir/memory && echo \"opened in $dir\"
            mknod $dir/disk b 8 0 && cat $dir/disk && echo \"opened in $dir\"
        done 2>/dev/null
        for node in null zero full random urandom; do test -c /dev/$node || echo \"no $node\"; done
        echo x > /dev/null && cat /dev/null
        dd if=/dev/zero bs=16 count=1 2>/dev/null | wc -c
        dd if=/dev/urandom bs=16 count=1 2>/dev/null | wc -c
        echo x > /dev/full || echo full
        chmod 600 /dev/null; chmod 600 /proc/acpi; chmod 600 /dev/fd/0; echo done";
    let mut launch = launch(root.path(), &["sh", "-c", script]);
    let mut mounts = mounts();
    mounts.push(mount("/run", "tmpfs", &["nosuid"]));
    let mut bind = mount("/host", "bind", &["rbind", "rw"]);
    bind.set_source(Some(host.path().to_owned()));
    mounts.push(bind);
    launch.spec.set_mounts(Some(mounts));
    let process = launch.spec.process_mut().as_mut().unwrap();
    let mut allowed = caps(&["CHOWN"]);
    let set = std::collections::HashSet::from([Capability::Mknod, Capability::Fowner, Capability::Chown]);
    allowed.set_bounding(Some(set.clone()));
    allowed.set_permitted(Some(set.clone()));
    allowed.set_effective(Some(set));
    process.set_capabilities(Some(allowed));
    let output = run(launch).await.unwrap();
    assert_eq!(output.stdout, "16\n16\nfull\ndone\n", "{}", output.stderr);
    let mode = fs::metadata("/dev/null").unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "a container changed the host's /dev/null");
}

#[tokio::test]
async fn a_limit_above_the_hosts_is_lowered_with_a_warning() {
    let root = root();
    let mut launch = launch(root.path(), &["sh", "-c", "ulimit -Hn"]);
    // Above `fs.nr_open`, which holds for root too.
    let limit = oci_spec::runtime::PosixRlimitBuilder::default()
        .typ(oci_spec::runtime::PosixRlimitType::RlimitNofile)
        .soft(64u64)
        .hard(1u64 << 40)
        .build()
        .unwrap();
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_rlimits(Some(vec![limit]));
    let runtime = runtime();
    let started = runtime.start(launch).await.unwrap();
    let warnings = started.warnings.clone();
    let output = finish(started).await;
    let wanted = format!("lowered to {}:", output.stdout.trim());
    assert!(
        matches!(warnings.as_slice(), [one] if one.contains(&wanted)),
        "{warnings:?} {wanted}"
    );
}

#[tokio::test]
async fn h18_a_sysctl_of_a_namespace_of_the_hosts_is_refused() {
    use oci_spec::runtime::LinuxNamespaceType;

    use crate::runtime::SharedNamespace;
    let root = root();
    let with = |own_network: bool, name: &str, shared: Vec<SharedNamespace>| {
        let mut launch = launch(root.path(), &["sh", "-c", ":"]);
        launch.spec = spec(&["sh", "-c", ":"], own_network);
        let linux = launch.spec.linux_mut().as_mut().unwrap();
        linux.set_sysctl(Some([(name.to_owned(), "1".to_owned())].into()));
        launch.shared = shared;
        launch
    };
    let host = |kind| vec![SharedNamespace::Host(kind)];
    for launch in [
        with(true, "kernel.shm_rmid_forced", host(LinuxNamespaceType::Ipc)),
        with(true, "kernel/hostname", host(LinuxNamespaceType::Uts)),
        with(false, "net.ipv4.ip_forward", Vec::new()),
    ] {
        let error = run(launch).await.err().unwrap();
        assert_eq!(error.kind(), &crate::ErrorKind::InvalidArgument, "{}", error.report());
        assert!(error.to_string().contains("of the host"), "{error}");
    }
    let own = with(true, "kernel.shm_rmid_forced", Vec::new());
    assert_eq!(run(own).await.unwrap().code, 0);
    let others = vec![SharedNamespace::Host(LinuxNamespaceType::Pid)];
    let error = run(with(true, "net.ipv4.ip_forward", others)).await.err().unwrap();
    assert!(error.is_unsupported(), "{}", error.report());
}
