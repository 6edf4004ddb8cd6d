//! The main job in one page: an image, a container with limits, its output, its exit code, and nothing left behind.
//!
//! ```sh
//! cargo run --release --example quickstart             # no internet: makes an image from this machine's own shell
//! cargo run --release --example quickstart -- busybox  # pulls an image instead
//! ```
//!
//! No daemon runs before, during or after, and an ordinary user can do it as well as root.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore::images::RemoveImageOptions;
use longshore::probe::probe;
use longshore::registry::layout::{Compression, LayoutWriter};
use longshore::runtime::chroot::LOST;
use longshore::types::Platform;
use longshore::{Bytes, ContainerSpec, Engine, Isolation, ListOptions, NetworkMode};

/// What the container runs. A limit shows in a different file under each version of cgroups.
const SCRIPT: &str = r#"
echo "hello from $(cat /etc/hostname 2>/dev/null || hostname): I am process $$, user $(id -u)"
for file in memory.max memory/memory.limit_in_bytes pids.max pids/pids.max; do
    [ -r /sys/fs/cgroup/$file ] && echo "my $file is $(cat /sys/fs/cgroup/$file)"
done
echo "and this is my stderr" >&2
exit 7
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let source = match std::env::args().nth(1) {
        Some(name) => name,
        None => make_image(&scratch.path().join("layout"))?,
    };

    // An engine is a directory and a thread. Every container is bound to it, and ends when it does.
    let (engine, network) = open(scratch.path()).await?;
    let info = engine.system().info().await?;
    println!(
        "opened    {} with {} ({})",
        scratch.path().join("root").display(),
        info.storage_driver,
        info.storage_reason
    );
    println!("isolation {}, network {network}", info.runtime);

    let image = engine
        .pull(&source)
        .progress(|event| println!("pulling   {event}"))
        .await?;

    // Like `std::process::Command`: describe it, run it, look at what came out.
    let spec = ContainerSpec::image(image.id().to_string())
        .command(["sh", "-c", SCRIPT])
        .memory(Bytes::mib(64))
        .pids_limit(32)
        .network(network)
        .best_effort_limits(true); // not every host lets every user set limits
    let output = engine.run(spec).output().await?;

    print!("stdout    {}", indented(&output.stdout));
    print!("stderr    {}", indented(&output.stderr));
    println!("ended     {}", output.status);

    // `output` has removed the container: its processes, mounts, cgroup and files. The image goes when we say so.
    let containers = engine
        .list(ListOptions {
            all: true,
            ..ListOptions::default()
        })
        .await?;
    let removed = image.remove(RemoveImageOptions::default()).await?;
    println!("left      {} containers; removed {removed:?}", containers.len());
    Ok(())
}

/// Opens an engine with the best isolation that this host grants, which is a program's own choice: strict where that is to be had,
/// then whatever namespaces there are, and for root without any, files alone.
async fn open(scratch: &Path) -> Result<(Engine, NetworkMode), longshore::Error> {
    let probe = probe();
    if !probe.has("user_namespaces") && probe.has("chroot") && !may_make_namespaces() {
        println!("weak      this host grants no namespaces, so that containers are kept in by chroot:");
        LOST.iter().for_each(|lost| println!("          - {lost}"));
        let engine = Engine::builder(scratch.join("root")).default_runtime("chroot");
        return Ok((engine.open().await?, NetworkMode::Host));
    }
    let isolation = if probe.has("own_proc") {
        Isolation::Strict
    } else {
        println!("weaker    containers share the /proc of the container around this program");
        Isolation::BestAvailable
    };
    let engine = Engine::builder(scratch.join("root")).isolation(isolation);
    Ok((engine.open().await?, NetworkMode::None))
}

/// Whether this process has CAP_SYS_ADMIN. Source: proc_pid_status(5).
fn may_make_namespaces() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & 1 << 21 != 0)
}

/// Makes an image of this machine's shell and of what the script needs, as an OCI layout in `dir`.
fn make_image(dir: &Path) -> longshore::Result<String> {
    let tar = tar_of_programs(&["sh", "cat", "id", "hostname"])
        .map_err(|error| longshore::Error::os("pack the shell", error))?;
    let layout = LayoutWriter::create(dir)?;
    let layer = layout.put_layer(tar.as_slice(), Compression::Gzip)?;
    let config = serde_json::json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
    layout.put_image(Some("shell"), &Platform::host(), config, &[layer])?;
    Ok(format!("oci:{}:shell", dir.display()))
}

/// A layer: programs of this machine under `/bin`, and the shared libraries they load where they load them from.
fn tar_of_programs(names: &[&str]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut libraries = std::collections::BTreeSet::new();
    for name in names {
        let Some(program) = find(name) else { continue };
        tar.append_path_with_name(&program, format!("bin/{name}"))?;
        libraries.extend(libraries_of(&program)?);
    }
    for library in libraries {
        let real = library.canonicalize()?;
        tar.append_path_with_name(real, library.strip_prefix("/").unwrap_or(&library))?;
    }
    tar.into_inner()
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

/// The paths that `ldd` prints: none for a static program.
fn libraries_of(program: &Path) -> io::Result<Vec<PathBuf>> {
    let printed = Command::new("ldd").arg(program).output()?.stdout;
    let printed = String::from_utf8_lossy(&printed).into_owned();
    Ok(printed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

fn indented(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().replace('\n', "\n          ") + "\n"
}
