//! What is asked of the host, and programs that hang.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use oci_spec::runtime::{HookBuilder, HooksBuilder, Spec};

use super::*;
use crate::runtime::StdioPlan;
use crate::runtime::native::NativeOptions;
use crate::types::Mount;

#[test]
fn h21_a_runtime_that_is_not_installed_is_named() {
    let missing = find("runc", &["/nowhere"]).unwrap_err();
    assert!(missing.is_unsupported());
    assert!(missing.report().contains("/nowhere"), "{}", missing.report());
    assert_eq!(
        find("self", &["/nowhere", "/proc"]).unwrap_err().object().unwrap().1,
        "self"
    );
    assert_eq!(find("exe", &["/proc/self"]).unwrap(), Path::new("/proc/self/exe"));
}

#[test]
fn h21_hooks_have_time_of_their_own() {
    let hook = |timeout| {
        let hook = HookBuilder::default().path("/bin/true");
        match timeout {
            Some(seconds) => hook.timeout(seconds).build().unwrap(),
            None => hook.build().unwrap(),
        }
    };
    let all = HooksBuilder::default()
        .create_container(vec![hook(Some(7)), hook(None)])
        .poststop(vec![hook(Some(30))])
        .build()
        .unwrap();
    assert_eq!(hooks::time_of_all(&all), Duration::from_secs(7 + 60 + 30));
}

/// A program with the command line of crun, which does something or hangs. Where it is run, `/tmp` is another directory.
fn program(hangs: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!(
        "#!/bin/sh
for last; do case $last in create|start|delete) verb=${{verb:-$last}};; esac; done
echo $verb >> {said}
[ $verb = create ] && mkdir -p /tmp/o/s/$last
case $verb in
    {hangs}) sleep 1000 & sleep 1000;;
    create) sleep 1000 & echo $! > /tmp/o/pid;;
esac
",
        said = dir.path().join("said").display()
    );
    let file = dir.path().join("crun");
    fs::write(dir.path().join("script"), script).unwrap();
    // Written by a process that nobody forks from while the file is open for writing: what is open so cannot be executed.
    crate::runtime::copy_program(&dir.path().join("script"), &file);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn launch(root: &Path, bundle: &Path) -> Launch {
    Launch {
        id: ContainerId::random(),
        spec: Spec::default(),
        user: None,
        extra_groups: Vec::new(),
        rootfs: vec![Mount::bind(root, false)],
        stdio: StdioPlan::default(),
        init: false,
        scratch: Vec::new(),
        best_effort_limits: true,
        shared: Vec::new(),
        privileged: false,
        mounts: Vec::new(),
        hold: false,
        bundle: Some(bundle.to_owned()),
        name: None,
        notes: None,
    }
}

/// A start with a program that hangs somewhere: it ends with an error, and of what there was nothing is left.
async fn hang(hangs: &str, patience: Duration) -> Error {
    let native = Arc::new(NativeRuntime::new(NativeOptions::default()));
    let zygote = native.info().unwrap().pid;
    let (dir, root, bundle) = (
        program(hangs),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let runtime = OciRuntime::new(native, "slow", dir.path().join("crun")).patience(patience);
    let error = runtime.start(launch(root.path(), bundle.path())).await.err().unwrap();
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{}", error.report());
    let begun = Instant::now();
    let children = || fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children")).unwrap();
    while !children().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} are left", children());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!bundle.path().join("oci").exists());
    error
}

#[tokio::test]
async fn h21_a_program_that_hangs_is_killed_with_all_that_it_has_started() {
    let error = hang("create", Duration::from_secs(1)).await;
    assert!(error.report().contains("slow create"), "{}", error.report());
    // Also where it cannot even be told to forget the container.
    hang("create|delete", Duration::from_secs(1)).await;
}

#[tokio::test]
async fn h21_a_container_whose_start_hangs_is_killed() {
    // What does not hang has to be done within that time.
    let error = hang("start", Duration::from_secs(30)).await;
    assert!(error.report().contains("slow start"), "{}", error.report());
}
