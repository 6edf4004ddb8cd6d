//! What containers have broken out by, tried again: each attack that `docs/security.md` names, on the real kernel.

use std::fs;

use longshore::{Container, ContainerSpec, ExecSpec, Signal, Tmpfs};
use serde_json::json;

#[cfg(not(target_arch = "x86_64"))]
use crate::frame::skip;
use crate::frame::{Check, Stop};
use crate::support::image::{self, Files, busybox_files};
use crate::support::scratch;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "attacks":
    kernel_async [
        the_engines_own_program_is_out_of_reach,
        programs_seen_inside_are_the_images,
        a_descriptor_of_the_host_is_no_directory,
        links_in_the_place_of_kernel_file_systems,
        links_in_the_place_of_files_of_etc,
        masks_hold_whatever_the_image_has_at_dev_null,
        a_mount_over_proc_catches_no_setting,
        a_target_that_is_exchanged_while_containers_start,
        groups_of_the_host_and_release_agents,
        no_capability_is_handed_on,
        system_calls_that_are_denied,
        system_calls_of_another_architecture,
        the_hosts_memory_and_keys,
    ]
}

/// An image of busybox with something else in it.
pub async fn image_with(world: &World, change: impl FnOnce(Files) -> Files) -> Result<String, Stop> {
    let dir = scratch::fresh("layout");
    let config = json!({ "Env": ["PATH=/bin"] });
    let layout = image::write_layout(dir.path(), &[busybox_files()?, change(Files::new())], &config)?;
    Ok(world.engine.pull(source(&layout)).await?.id().to_string())
}

fn script(image: &str, text: &str) -> ContainerSpec {
    ContainerSpec::image(image).command(["sh", "-c", text])
}

async fn sleeper(world: &World) -> Result<Container, Stop> {
    world
        .started(world.spec().command(["sleep", "1000"]).stop_signal(Signal::KILL))
        .await
}

fn sh(text: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", text])
}

/// CVE-2019-5736: the program that sets a container up was run by way of `/proc/self/exe`, and overwritten.
async fn the_engines_own_program_is_out_of_reach() -> Check {
    let world = World::new().await?;
    let own = fs::read("/proc/self/exe")?;
    for program in ["/proc/self/exe", "/proc/1/exe"] {
        let tried = world
            .engine
            .run(world.spec().entrypoint([program]).command(["--help"]))
            .output()
            .await;
        assert!(!tried.is_ok_and(|output| output.status.success()), "{program} ran");
    }
    // By a script's interpreter, as the exploit does.
    let image = image_with(&world, |files| files.file("bin/trap", 0o755, "#!/proc/self/exe\n")).await?;
    let tried = world
        .engine
        .run(ContainerSpec::image(&image).command(["/bin/trap"]))
        .output()
        .await;
    assert!(
        !tried.is_ok_and(|output| output.status.success()),
        "the interpreter ran"
    );
    let container = world
        .started(script(&image, "sleep 1000").stop_signal(Signal::KILL))
        .await?;
    let tried = container.exec(ExecSpec::new(["/bin/trap"])).output().await;
    assert!(
        !tried.is_ok_and(|output| output.status.success()),
        "the interpreter ran"
    );
    container.remove(FORCE).await?;
    assert!(fs::read("/proc/self/exe")? == own, "the test's own program has changed");
    Ok(())
}

/// The same from within: a container that watches for the program that joins it.
async fn programs_seen_inside_are_the_images() -> Check {
    let world = World::new().await?;
    let watch = "until [ -e /stop ]; do for p in /proc/[0-9]*; do readlink $p/exe && (echo x >> $p/exe) 2>/dev/null && \
                 echo written; done; done 2>/dev/null | sort -u > /seen; touch /end; sleep 1000";
    let container = world.started(world.script(watch).stop_signal(Signal::KILL)).await?;
    for _ in 0..60 {
        assert!(container.exec(ExecSpec::new(["true"])).output().await?.status.success());
    }
    let seen = container
        .exec(sh("touch /stop; until [ -e /end ]; do sleep 0.01; done; cat /seen"))
        .output()
        .await?;
    assert_eq!(text(&seen.stdout), "/bin/busybox");
    container.remove(FORCE).await?;
    Ok(())
}

/// CVE-2024-21626: a working directory by way of a descriptor that was left open.
async fn a_descriptor_of_the_host_is_no_directory() -> Check {
    let world = World::new().await?;
    for number in 3..24 {
        let dir = format!("/proc/self/fd/{number}");
        let led = world
            .engine
            .run(world.script("pwd -P; ls /").working_dir(dir))
            .output()
            .await;
        no_way_out(number, led);
    }
    let image = image_with(&world, |files| files.link("srv", "/proc/self/fd/7")).await?;
    let led = world
        .engine
        .run(script(&image, "pwd -P; ls /").working_dir("/srv"))
        .output()
        .await;
    no_way_out(7, led);
    Ok(())
}

/// The way to the directory itself is of descriptors, which lie in the container's own proc; there is no other.
fn no_way_out(number: u32, led: longshore::Result<longshore::Output>) {
    let Ok(output) = led else { return };
    let said = text(&output.stdout);
    assert_eq!(
        said.lines().next(),
        Some("/proc/1/fd"),
        "descriptor {number} leads somewhere: {output:?}"
    );
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2025-52881: an image in which `/proc` is a link, so that what is
/// written "below /proc" lands elsewhere.
async fn links_in_the_place_of_kernel_file_systems() -> Check {
    let world = World::new().await?;
    for place in ["proc", "sys", "dev"] {
        let image = image_with(&world, |files| {
            let files = files.dir("elsewhere", 0o755).file(format!(".wh.{place}"), 0o644, "");
            files.link(place, "/elsewhere")
        })
        .await?;
        let tried = world.engine.run(script(&image, "mount")).output().await;
        match tried {
            Err(error) => assert!(error.report().contains(&format!("/{place}")), "{}", error.report()),
            // The link itself was left alone, and what it leads to is not taken for the file system.
            Ok(output) => assert!(!text(&output.stdout).contains("/elsewhere"), "{output:?}"),
        }
    }
    Ok(())
}

/// CVE-2024-45310 and its kin: files that are made at a place that a link leads away from.
async fn links_in_the_place_of_files_of_etc() -> Check {
    let world = World::new().await?;
    let host = scratch::fresh("host");
    let made = host.path().join("made");
    let image = image_with(&world, |files| {
        let up = format!("../../../../../../../..{}", made.display());
        files
            .link("etc/hosts", up.clone())
            .link("etc/resolv.conf", made.display().to_string())
            .link("etc/hostname", "/proc/sysrq-trigger")
            .link("srv", up)
    })
    .await?;
    let spec = script(&image, "cat /proc/mounts").tmpfs("/srv/below", Tmpfs::default());
    let _ = world.engine.run(spec).output().await;
    assert!(!made.exists(), "made on the host");
    Ok(())
}

/// CVE-2025-31133: a mask that is a bind of whatever the image has at `/dev/null`.
async fn masks_hold_whatever_the_image_has_at_dev_null() -> Check {
    let world = World::new().await?;
    let image = image_with(&world, |files| {
        files
            .link("dev/null", "/proc/sysrq-trigger")
            .link("dev/console", "/etc/passwd")
    })
    .await?;
    let script = script(
        &image,
        "wc -c < /proc/timer_list; wc -c < /proc/keys; ls /proc/acpi /sys/firmware 2>/dev/null | wc -l; [ -c /dev/null ] && echo null; \
         (echo h > /proc/sysrq-trigger) 2>/dev/null && echo wrote",
    );
    let output = world.output(script.tty(true)).await?;
    let said = text(&output.stdout).replace('\r', "");
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| *line != "/sys/firmware:" && *line != "/proc/acpi:")
        .collect();
    assert_eq!(lines[..2], ["0", "0"], "{said}");
    assert!(lines.contains(&"null") && !lines.contains(&"wrote"), "{said}");
    Ok(())
}

/// CVE-2023-27561, CVE-2025-52881: settings that are written through a `/proc` of the attacker's making.
async fn a_mount_over_proc_catches_no_setting() -> Check {
    let world = World::new().await?;
    let before = fs::read_to_string("/proc/sys/net/core/somaxconn")?;
    for place in ["/proc/sys", "/proc/sys/net", "/proc/self", "/proc"] {
        let script = "cat /proc/sys/net/core/somaxconn; ls /proc/sys/net/core 2>/dev/null | wc -l";
        let spec = world
            .script(script)
            .sysctl("net.core.somaxconn", "91")
            .tmpfs(place, Tmpfs::default());
        if let Ok(output) = world.engine.run(spec).output().await {
            // The tmpfs was mounted, and nothing was written into it.
            let said = text(&output.stdout);
            assert!(
                said.lines()
                    .all(|line| line == "0" || line == "91" || line.parse::<u32>().is_ok_and(|n| n > 1)),
                "{place}: {said}"
            );
        }
    }
    assert_eq!(fs::read_to_string("/proc/sys/net/core/somaxconn")?, before);
    Ok(())
}

/// CVE-2021-30465: a container swaps a directory for a link, again and again, while another mounts something below it.
async fn a_target_that_is_exchanged_while_containers_start() -> Check {
    let world = World::new().await?;
    let shared = scratch::fresh("shared");
    let secret = scratch::fresh("secret");
    fs::write(secret.path().join("target"), "of the host")?;
    fs::create_dir_all(shared.path().join("a/target"))?;
    let swap = "cd /s; while true; do mv a b 2>/dev/null; ln -s /../../../../../../../.. a; mv a c; mv b a; mv a b; mv c a; rm a; mv b a; done";
    let swapper = world
        .started(world.script(swap).bind(shared.path(), "/s").stop_signal(Signal::KILL))
        .await?;
    for _ in 0..30 {
        let spec = world
            .script("cut -d ' ' -f 5 /proc/self/mountinfo")
            .bind(shared.path(), "/s")
            .bind_read_only(secret.path(), "/s/a/target");
        // Whether it starts is a matter of luck; where it does, all that is mounted lies in its root.
        if let Ok(output) = world.engine.run(spec).output().await {
            let said = text(&output.stdout);
            let strange = said
                .lines()
                .find(|place| place.contains("..") || place.starts_with("//"));
            assert_eq!(strange, None, "{said}");
        }
    }
    swapper.remove(FORCE).await?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(
        !mounts.contains(&secret.path().display().to_string()),
        "mounted on the host"
    );
    Ok(())
}

/// CVE-2022-0492: a container that writes the host's `release_agent`, or moves itself elsewhere.
async fn groups_of_the_host_and_release_agents() -> Check {
    let world = World::new().await?;
    let tries = [
        "for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs 2>/dev/null); do \
         (echo 1 > $f) 2>/dev/null && echo wrote $f; done",
        "for c in memory cpu devices rdma misc; do mount -t cgroup -o $c cgroup /tmp 2>/dev/null && echo mounted $c; done",
        "mount -t cgroup2 cgroup2 /tmp 2>/dev/null && echo mounted",
        "mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted",
        "unshare -UrC true 2>/dev/null && echo unshared",
    ];
    for tried in tries {
        let said = world.says(world.script(&format!("{tried}; true"))).await?;
        assert_eq!(said, "", "{tried}");
    }
    let path = world
        .says(world.script("cut -d : -f 3 /proc/self/cgroup | sort -u"))
        .await?;
    assert!(
        path.lines().all(|line| line == "/" || !line.contains("longshore")),
        "the host's path: {path}"
    );
    Ok(())
}

/// CVE-2022-24769, CVE-2022-27650, CVE-2022-29162: capabilities that programs inherit, which file capabilities then raise.
async fn no_capability_is_handed_on() -> Check {
    let world = World::new().await?;
    let sets = "grep -E '^Cap(Inh|Amb)' /proc/self/status | tr -d '\\t'";
    let none = "CapInh:0000000000000000\nCapAmb:0000000000000000";
    for spec in [
        world.script(sets),
        world.script(sets).privileged(true),
        world.script(sets).cap_add("ALL"),
    ] {
        assert_eq!(world.says(spec).await?, none);
    }
    let container = sleeper(&world).await?;
    for exec in [sh(sets), sh(sets).privileged(true)] {
        assert_eq!(text(&container.exec(exec).output().await?.stdout), none);
    }
    container.remove(FORCE).await?;
    Ok(())
}

/// A program of a few machine instructions: no program of the host's makes calls of another architecture.
#[cfg(target_arch = "x86_64")]
pub fn machine_code(code: &[u8]) -> Vec<u8> {
    let length = (120 + code.len()) as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2u16, 62] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes());
    for word in [0x40_0078u64, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes());
    out.extend(5u32.to_le_bytes());
    for word in [0, 0x40_0000, 0x40_0000, length, length, 0x1000] {
        out.extend(u64::to_le_bytes(word));
    }
    out.extend(code);
    out
}

/// Makes a call with arguments that can do no harm, and ends with the error's number.
#[cfg(target_arch = "x86_64")]
fn caller(number: u32, by_interrupt: bool) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    // rdi, rsi, rdx, r10, r8, r9 and ebx, ecx: -1.
    for set in [
        &[0x48, 0xc7, 0xc7][..],
        &[0x48, 0xc7, 0xc6],
        &[0x48, 0xc7, 0xc2],
        &[0x49, 0xc7, 0xc2],
        &[0x49, 0xc7, 0xc0],
        &[0x49, 0xc7, 0xc1],
        &[0x48, 0xc7, 0xc3],
        &[0x48, 0xc7, 0xc1],
    ] {
        code.extend(set);
        code.extend(u32::MAX.to_le_bytes());
    }
    code.extend(if by_interrupt { [0xcd, 0x80] } else { [0x0f, 0x05] });
    // edi = -eax; exit(edi).
    code.extend([0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    machine_code(&code)
}

/// Each call that Docker's profile denies, on the real kernel: by the filter, not by its arguments, which are bad too.
#[cfg(target_arch = "x86_64")]
async fn system_calls_that_are_denied() -> Check {
    use nix::libc;
    let denied = [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_reboot,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_open_by_handle_at,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_acct,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_userfaultfd,
        libc::SYS_move_pages,
        libc::SYS_mbind,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_fsconfig,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_mount_setattr,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_quotactl,
        libc::SYS_lookup_dcookie,
        libc::SYS_vhangup,
        libc::SYS_ioperm,
        libc::SYS_iopl,
    ];
    let world = World::new().await?;
    let programs: Vec<(i64, Vec<u8>)> = denied
        .iter()
        .map(|number| (*number, caller(*number as u32, false)))
        .collect();
    let image = image_with(&world, |files| {
        programs.iter().fold(files, |files, (number, code)| {
            files.file(format!("bin/call{number}"), 0o755, code.clone())
        })
    })
    .await?;
    let names: Vec<String> = denied.iter().map(ToString::to_string).collect();
    let each = format!("for n in {}; do /bin/call$n; echo $n $?; done", names.join(" "));
    let said = world.says(script(&image, &each)).await?;
    for line in said.lines() {
        assert!(line.ends_with(&format!(" {}", libc::EPERM)), "call {line}");
    }
    assert_eq!(said.lines().count(), denied.len());
    Ok(())
}

/// A denied call by the 32-bit entry, and by the numbers of x32.
#[cfg(target_arch = "x86_64")]
async fn system_calls_of_another_architecture() -> Check {
    /// Numbers of `asm/unistd_32.h`: getpid, mount, keyctl, bpf, unshare.
    const OLD: [(u32, bool); 5] = [(20, true), (21, false), (288, false), (357, false), (310, false)];
    const X32: u32 = 0x4000_0000;
    let world = World::new().await?;
    let image = image_with(&world, |files| {
        let files = OLD.iter().fold(files, |files, (number, _)| {
            files.file(format!("bin/old{number}"), 0o755, caller(*number, true))
        });
        // mount and getpid of x32.
        files
            .file("bin/x165", 0o755, caller(X32 | 165, false))
            .file("bin/x39", 0o755, caller(X32 | 39, false))
    })
    .await?;
    for (number, allowed) in OLD {
        let output = world
            .output(ContainerSpec::image(&image).command([format!("/bin/old{number}")]))
            .await?;
        let code = output.status.code();
        match allowed {
            // The pid, 1, negated: no error. A host without the 32-bit entry kills.
            true => assert!(code == 255 || output.status.signal().is_some(), "{number}: {output:?}"),
            false => assert!(code == 1 || output.status.signal().is_some(), "{number}: {output:?}"),
        }
    }
    for name in ["x165", "x39"] {
        let output = world
            .output(ContainerSpec::image(&image).command([format!("/bin/{name}")]))
            .await?;
        let code = output.status.code();
        // EPERM by the filter, ENOSYS by a kernel without x32, or a kill.
        assert!(
            [1, 38].contains(&code) || output.status.signal().is_some(),
            "{name}: {output:?}"
        );
    }
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
async fn system_calls_that_are_denied() -> Check {
    skip("machine code of x86_64")
}

#[cfg(not(target_arch = "x86_64"))]
async fn system_calls_of_another_architecture() -> Check {
    skip("machine code of x86_64")
}

/// What shows or takes the host's memory, time, keys and module list.
async fn the_hosts_memory_and_keys() -> Check {
    let world = World::new().await?;
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts; do [ -e $f ] && \
                  head -c 8 $f 2>/dev/null | wc -c; done | sort -u; \
                  for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/irq/default_smp_affinity; \
                  do (echo x > $f) 2>/dev/null && echo wrote $f; done; \
                  for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do ls $d 2>/dev/null; done; true";
    assert_eq!(world.says(world.script(script)).await?, "0");
    Ok(())
}
