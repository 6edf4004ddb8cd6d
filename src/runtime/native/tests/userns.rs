//! A user namespace of the container's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use oci_spec::runtime::LinuxNamespaceType;

use super::{
    caps, finish, in_own_userns, mount, mounts, read, read_lines, root, runtime_mapping, runtime_with_ids, spec,
};
use crate::error::ErrorKind;
use crate::runtime::native;
use crate::runtime::native::{NativeOptions, NativeRuntime};
use crate::runtime::{Runtime, StdioPlan};
use crate::types::{Mount, Signal};

/// What a process is on the host: its real uid, from outside.
fn host_uid(pid: u32) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/task")).unwrap())
}

#[tokio::test]
async fn h18_a_user_namespace_of_its_own() {
    let root = root();
    let runtime = runtime_with_ids();
    let script = "echo $(id -u):$(id -g); cat /proc/self/uid_map | wc -l; stat -c %u:%g /bin /etc/passwd /dev /dev/shm;
        hostname inside && hostname; ip link set lo down && echo lo; mount -t tmpfs tmpfs /tmp && echo mounted;
        echo x > /tmp/x && stat -c %u:%g /tmp/x; echo again > /dev/stdout; exec sleep 100";
    let mut launch = in_own_userns(root.path(), script);
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&["SYS_ADMIN", "NET_ADMIN", "CHOWN"])));
    let started = runtime.start(launch).await.unwrap();
    let pid = started.task.pid();
    let lines = read_lines(started.stdout, 11).await;
    let (status, uid) = (
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap(),
        host_uid(pid),
    );
    started.task.signal(Signal::KILL, false).await.unwrap();
    started.task.wait().await.unwrap();
    let maps = if native::has_admin() || runtime_mapping() == native::IdMapping::Single {
        "1"
    } else {
        "2"
    };
    let expect = [
        "0:0", maps, "0:0", "0:0", "0:0", "0:0", "inside", "lo", "mounted", "0:0", "again",
    ];
    assert_eq!(lines, expect, "{}", read(started.stderr));
    let real = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    let expect = if native::has_admin() {
        700_000
    } else {
        nix::unistd::getuid().as_raw()
    };
    assert_eq!(
        real.split_whitespace().nth(1),
        Some(expect.to_string().as_str()),
        "{uid}"
    );
}

#[tokio::test]
async fn e5_files_keep_their_owners_through_a_user_namespace() {
    let root = root();
    let data = tempfile::tempdir().unwrap();
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(data.path().join("ours"), "1").unwrap();
    let layers = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(layers.path().join(name)).unwrap();
    }
    fs::write(layers.path().join("lower/deep"), "2\n").unwrap();
    let script = "stat -c %u:%g /data/ours /deep /bin/busybox; echo x > /data/made; echo y > /new; cat /deep; \
                  chown 5:6 /new; stat -c %u:%g /data/made /new";
    let mut launch = in_own_userns(root.path(), script);
    launch.rootfs = vec![Mount {
        source: crate::types::MountSource::Overlay {
            lower: vec![layers.path().join("lower"), root.path().to_owned()],
            upper: Some(layers.path().join("upper")),
            work: Some(layers.path().join("work")),
            user_xattr: !native::has_admin(),
            volatile: false,
        },
        read_only: false,
    }];
    fs::set_permissions(layers.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bind = mount("/data", "bind", &["rbind", "rw"]);
    bind.set_source(Some(data.path().to_owned()));
    let mut all = mounts();
    all.push(bind);
    launch.spec.set_mounts(Some(all));
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&["CHOWN", "DAC_OVERRIDE"])));
    std::os::unix::fs::symlink("busybox", root.path().join("bin/chown")).unwrap();
    let runtime = runtime_with_ids();
    let output = finish(runtime.start(launch).await.unwrap()).await;
    let single = !native::has_admin() && runtime_mapping() == native::IdMapping::Single;
    let new = if single { "0:0" } else { "5:6" };
    assert_eq!(
        output.stdout,
        format!("0:0\n0:0\n0:0\n2\n0:0\n{new}\n"),
        "{}",
        output.stderr
    );
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    let me = nix::unistd::getuid().as_raw();
    assert_eq!(
        owner(&data.path().join("made")),
        me,
        "as if there were no user namespace"
    );
    let inner = owner(&layers.path().join("upper/new"));
    assert!(inner == me || !native::has_admin() || inner == 5, "{inner}");
    if native::has_admin() {
        assert_eq!(inner, 5, "on the disk, the ids of the container");
    }
    let path = layers.path().join("work");
    tokio::task::spawn_blocking(move || {
        let _ = runtime.remove_tree(&path);
        runtime.remove_tree(&path.parent().unwrap().join("upper"))
    })
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test]
async fn h18_capabilities_in_a_user_namespace_do_not_reach_outside() {
    let root = root();
    // With the host's network (whose sysfs shows), every capability, and no filter.
    let script =
        "hostname changed && echo own; mount -t sysfs sysfs /tmp && echo sysfs; mount -t proc proc /tmp && echo proc;
        ip link set lo down 2>/dev/null && echo lo; ip link add x type dummy 2>/dev/null && echo link;
        mknod /tmp/m c 1 1 2>/dev/null && cat /tmp/m 2>/dev/null | wc -c; mount -o remount,rw /proc/sys;
        echo 1 > /proc/sys/kernel/panic && echo sysctl; cat /dev/null && echo end";
    let mut launch = in_own_userns(root.path(), script);
    let linux = launch.spec.linux_mut().as_mut().unwrap();
    let mut namespaces = linux.namespaces().clone().unwrap();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    linux.set_namespaces(Some(namespaces));
    let process = launch.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(Some(caps(&[
        "SYS_ADMIN",
        "NET_ADMIN",
        "MKNOD",
        "DAC_OVERRIDE",
        "SYS_RESOURCE",
        "SYS_PTRACE",
        "CHOWN",
    ])));
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let output = finish(runtime_with_ids().start(launch).await.unwrap()).await;
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines, ["own", "proc", "end"], "{}", output.stderr);
}

#[tokio::test]
async fn ids_for_a_user_namespace_must_come_from_somewhere() {
    if !native::has_admin() {
        return;
    }
    let root = root();
    let runtime = NativeRuntime::new(NativeOptions::default());
    match runtime.start(in_own_userns(root.path(), "echo x")).await {
        Ok(started) => {
            assert!(fs::read_to_string("/etc/subuid").unwrap_or_default().contains("root:"));
            finish(started).await;
        }
        Err(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::Unsupported { .. }),
                "{}",
                error.report()
            );
            assert!(error.report().contains("/etc/subuid"), "{}", error.report());
        }
    }
}

/// What cannot be shown with other owners says so.
#[tokio::test]
async fn e5_a_file_system_without_id_maps_is_named() {
    if !native::has_admin() {
        return;
    }
    let root = root();
    let mut launch = in_own_userns(root.path(), "echo x");
    let mut all = mounts();
    let mut bind = mount("/data", "bind", &["rbind", "rw"]);
    bind.set_source(Some("/proc/self/attr".into()));
    all.push(bind);
    launch.spec.set_mounts(Some(all));
    let error = runtime_with_ids().start(launch).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unsupported { .. }),
        "{}",
        error.report()
    );
    assert!(error.report().contains("/data"), "{}", error.report());
}

/// A command joins the user namespace too, and may open its streams by name.
#[tokio::test]
async fn g3_a_command_in_a_user_namespace_of_its_own() {
    let root = root();
    let started = runtime_with_ids()
        .start(in_own_userns(root.path(), "exec sleep 100"))
        .await
        .unwrap();
    let script = "id -u; cat /proc/self/uid_map | wc -l; echo named > /dev/stdout; readlink /proc/self/ns/user";
    let process = spec(&["sh", "-c", script], true).process().clone().unwrap();
    let exec = crate::runtime::ExecLaunch {
        process,
        user: None,
        extra_groups: Vec::new(),
        stdio: StdioPlan::default(),
        seccomp: None,
        marked: false,
    };
    let command = started.task.exec(exec).await.unwrap();
    let (out, err) = (command.stdout, command.stderr);
    let said = tokio::task::spawn_blocking(move || read(out)).await.unwrap();
    let complained = tokio::task::spawn_blocking(move || read(err)).await.unwrap();
    assert_eq!(command.task.wait().await.unwrap().code(), 0, "{complained}");
    let lines: Vec<&str> = said.lines().collect();
    let own = fs::read_link(format!("/proc/{}/ns/user", started.task.pid())).unwrap();
    assert_eq!(
        (lines[0], lines[2], lines[3]),
        ("0", "named", own.to_str().unwrap()),
        "{complained}"
    );
    started.task.signal(Signal::KILL, true).await.unwrap();
    started.task.wait().await.unwrap();
}
