//! Engines within containers. In a privileged one, containers run as on the host.
//!
//! Builds within an ordinary container, as a cluster's pods and the jobs of CI services are: its own root or a user, Docker's
//! capabilities and masks, no file system in user space, no cgroup that it may write to. User namespaces are allowed.

use std::fs;
use std::path::Path;

use longshore::containers::{NetworkMode, Seccomp, Tmpfs};
use longshore::{ContainerSpec, Engine, ErrorKind, ExecSpec, Isolation, Signal};
use serde_json::json;

use crate::build::{context, result, spec, world};
use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::embedder::Role;
use crate::support::image::{self, Files};
use crate::support::world::{FORCE, World, source, text};
use crate::support::{is_root, scratch};
use crate::tests;

tests! { "nested":
    kernel_async [
        p14_the_root_of_a_container_builds,
        p14_a_user_of_a_container_builds,
        p14_the_one_id_of_a_container_builds,
        p14_a_build_has_its_files_in_those_of_a_container,
        p14_what_a_container_lacks_is_named,
        k6_a_static_program_needs_nothing_of_its_image,
        k7_p36_a_privileged_container_runs_containers,
    ]
}

/// What this binary does as the program of a container.
pub const ROLES: &[(&str, Role)] = &[
    ("build-within", |arguments| said(built_within(Path::new(&arguments[0])))),
    ("run-within", |arguments| said(ran_within(Path::new(&arguments[0])))),
];

fn said(work: impl Future<Output = Result<String, Stop>>) -> i32 {
    match block_on(work) {
        Ok(said) => {
            println!("{said}");
            0
        }
        Err(Stop::Skip(why) | Stop::Fail(why)) => {
            println!("{why}");
            1
        }
    }
}

const TEXT: &str = "FROM busybox\n\
    COPY x /x\n\
    RUN cat /x > /said && chown 0:0 /x && chmod 600 /x && test -w /dev/pts/ptmx -a -w /dev/shm\n\
    USER 1000\n\
    RUN [ $(id -u) = 1000 ]\n\
    USER 0\n\
    RUN [ $(cat /proc/self/cmdline | wc -c) -gt 1 ] && [ -d /sys/class ] && ! [ -e /dev/fuse ] && ! cat /proc/[0-9]*/environ | grep LONGSHORE_IT_ROLE && ln -s x /link\n";

async fn engine(place: &Path) -> Result<Engine, Stop> {
    let strict = std::env::var_os("STRICT").is_some();
    let isolation = if strict {
        Isolation::Strict
    } else {
        Isolation::BestAvailable
    };
    Ok(Engine::builder(place.join("root")).isolation(isolation).open().await?)
}

/// A container, a command in it, and what is left of them.
async fn ran_within(place: &Path) -> Result<String, Stop> {
    let engine = engine(place).await?;
    let image = engine.pull("oci:/layout").await?;
    let spec = ContainerSpec::image(image.id().to_string()).network(NetworkMode::None);
    let container = engine
        .run(spec.command(["sleep", "1000"]).stop_signal(Signal::KILL))
        .await?;
    let script = "echo within > /made && cat /made; id -u; ls /proc | grep -c '^[0-9]'";
    let output = container.exec(ExecSpec::new(["sh", "-c", script])).output().await?;
    container.remove(FORCE).await?;
    let audit = engine.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    let driver = engine.system().info().await?.storage_driver;
    engine.close().await;
    Ok(format!("{driver} {}", text(&output.stdout).replace('\n', " ")))
}

/// The build, and a run of what it made.
async fn built_within(place: &Path) -> Result<String, Stop> {
    let engine = engine(place).await?;
    let base = engine.pull("oci:/layout").await?;
    base.tag(&"busybox:latest".parse()?).await?;
    let files = place.join("context");
    fs::create_dir(&files)?;
    fs::write(files.join("x"), "built within\n")?;
    let built = result(&engine, spec(&files).dockerfile_text(TEXT)).await?;
    let said = ContainerSpec::image(built.id.to_string())
        .network(NetworkMode::None)
        .command(["cat", "/said"]);
    let said = text(&engine.run(said).output().await?.stdout);
    let warnings = engine.system().info().await?.warnings;
    assert!(
        warnings.iter().any(|warning| warning.starts_with("own_proc: ")),
        "{warnings:?}"
    );
    let tracing = ContainerSpec::image("busybox").cap_add("SYS_PTRACE").command(["true"]);
    let refused = engine.run(tracing.network(NetworkMode::None)).output().await;
    let refused = refused.expect_err("it could look into the helper");
    assert!(
        matches!(refused.kind(), ErrorKind::Unsupported { .. }) && refused.report().contains("CAP_SYS_PTRACE"),
        "{}",
        refused.report()
    );
    let audit = engine.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    engine.close().await;
    Ok(format!("{} {said}", built.id))
}

/// A container with this binary and what it is linked to, and nothing of the host beside.
fn ordinary(world: &World, place: &str) -> Result<ContainerSpec, Stop> {
    let binary = std::env::current_exe()?;
    let mut spec = world
        .spec()
        .command(["/it", place])
        .env("LONGSHORE_IT_ROLE", "build-within")
        .env("TMPDIR", place)
        .bind_read_only(binary, "/it")
        .bind_read_only(&image::shared()?.dir, "/layout")
        // As pods have it where no profile is named.
        .seccomp(Seccomp::Unconfined);
    for dir in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(dir).exists() {
            spec = spec.bind_read_only(fs::canonicalize(dir)?, dir);
        }
    }
    Ok(spec)
}

/// As Docker's `--privileged`: the container's own storage is an overlay, on which there can be no other; in memory there can.
async fn k7_p36_a_privileged_container_runs_containers() -> Check {
    let world = world().await?;
    for in_memory in [false, true] {
        let mut spec = ordinary(&world, "/work")?
            .env("LONGSHORE_IT_ROLE", "run-within")
            .privileged(true);
        if is_root() {
            spec = spec.env("STRICT", "1");
        }
        if in_memory {
            spec = spec.tmpfs("/work", Tmpfs::default());
        }
        let said = world.says(spec).await?;
        let words: Vec<&str> = said.split_ascii_whitespace().collect();
        let [driver, made, uid, processes] = words[..] else {
            return fail(said);
        };
        assert!(["overlayfs", "vfs"].contains(&driver), "{said}");
        assert_eq!((made, uid), ("within", "0"));
        // sleep, sh, ls, grep; of those around it, none.
        assert!(processes.parse::<u32>()? <= 5 || !is_root(), "{said}");
    }
    Ok(())
}

/// The client as a static program is the one file of an image, in which it runs a container.
async fn k6_a_static_program_needs_nothing_of_its_image() -> Check {
    let Some(program) = std::env::var_os("LONGSHORE_IT_STATIC") else {
        return skip("LONGSHORE_IT_STATIC names no static program, as ci/test --full builds it");
    };
    let world = world().await?;
    let dir = scratch::fresh("static");
    let alone = Files::new().file("longshore", 0o755, fs::read(program)?);
    let layout = image::write_layout(dir.path(), &[alone], &json!({ "Entrypoint": ["/longshore"] }))?;
    let image = world.engine.pull(source(&layout)).await?;
    let isolation = if is_root() { "strict" } else { "best-available" };
    let run = [
        "--root",
        "/work/root",
        "--isolation",
        isolation,
        "run",
        "--rm",
        "--network",
        "none",
        "oci:/layout",
    ];
    let script = ["sh", "-c", "echo within; id -u; ls / | grep -c longshore; exit 0"];
    let spec = ContainerSpec::image(image.id().to_string())
        .command(run.into_iter().chain(script))
        .privileged(true)
        .tmpfs("/work", Tmpfs::default())
        .bind_read_only(&image::shared()?.dir, "/layout");
    assert_eq!(world.says(spec).await?, "within\n0\n0");
    Ok(())
}

/// What the same build outside says.
async fn expected(world: &World) -> Result<String, Stop> {
    let files = context(&[("x", "built within\n")])?;
    let built = result(&world.engine, spec(files.path()).dockerfile_text(TEXT)).await?;
    Ok(format!("{} built within", built.id))
}

async fn p14_the_root_of_a_container_builds() -> Check {
    let world = world().await?;
    let spec = ordinary(&world, "/work")?.tmpfs("/work", Tmpfs::default());
    assert_eq!(world.says(spec).await?, expected(&world).await?);
    Ok(())
}

async fn p14_a_user_of_a_container_builds() -> Check {
    let world = world().await?;
    let spec = ordinary(&world, "/work")?
        .tmpfs("/work", Tmpfs::default())
        .user("1000:1000");
    assert_eq!(world.says(spec).await?, expected(&world).await?);
    Ok(())
}

async fn p14_the_one_id_of_a_container_builds() -> Check {
    let world = world().await?;
    let mut spec = ordinary(&world, "/work")?.tmpfs("/work", Tmpfs::default());
    for capability in ["SETUID", "SETGID"] {
        spec = spec.cap_drop(capability);
    }
    assert_eq!(world.says(spec).await?, expected(&world).await?);
    Ok(())
}

async fn p14_a_build_has_its_files_in_those_of_a_container() -> Check {
    let world = world().await?;
    let spec = ordinary(&world, "/work")?;
    assert_eq!(world.says(spec).await?, expected(&world).await?);
    Ok(())
}

async fn p14_what_a_container_lacks_is_named() -> Check {
    let world = world().await?;
    let within = || Ok::<_, Stop>(ordinary(&world, "/work")?.tmpfs("/work", Tmpfs::default()));
    let mut bare = within()?;
    bare.cap_drop = vec!["ALL".to_owned()];
    for (spec, lacks) in [
        (
            within()?.seccomp(Seccomp::Default),
            "a seccomp profile around this process that allows clone",
        ),
        (bare, "CAP_SETFCAP"),
        (within()?.env("STRICT", "1"), "Isolation::BestAvailable"),
    ] {
        let output = world.output(spec).await?;
        let said = text(&output.stdout);
        assert!(
            !output.status.success() && said.contains("is not supported here") && said.contains(lacks),
            "{said}"
        );
    }
    Ok(())
}
