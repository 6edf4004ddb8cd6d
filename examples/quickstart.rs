//! The main job, start to end: an image, a container from it, what it said, its limits, its exit code, what was cleaned up.
//!
//!     cargo run --release --example quickstart            an image made of programs of this host; no network needed
//!     cargo run --release --example quickstart -- alpine  an image pulled from a registry

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use longshore::registry::layout::{Compression, LayoutWriter};
use longshore::{Bytes, ContainerSpec, Engine, Image, ListOptions, Platform, ProgressEvent, RemoveOptions};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PROGRAMS: [&str; 4] = ["sh", "cat", "ls", "id"];

const SCRIPT: &str = "echo \"hello from pid $$, user $(id -u), host $(cat /proc/sys/kernel/hostname)\"
echo \"the root file system holds: $(ls -m /)\"
echo \"the network interfaces are: $(ls -m /sys/class/net)\"
echo \"this goes to stderr\" >&2
exit 7";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let scratch = std::env::temp_dir().join(format!("longshore-quickstart-{}", std::process::id()));
    let outcome = quickstart(&scratch, std::env::args().nth(1)).await;
    fs::remove_dir_all(&scratch)?;
    outcome
}

async fn quickstart(scratch: &Path, wanted: Option<String>) -> Outcome {
    let begin = Instant::now();
    let engine = Engine::open(scratch.join("root")).await?;
    let info = engine.info()?;
    println!(
        "engine     open in {:?}; storage {}: {}",
        begin.elapsed(),
        info.storage_driver,
        info.storage_reason
    );

    let image = match wanted {
        Some(reference) => pull(&engine, &reference).await?,
        None => make(&engine, &scratch.join("layout")).await?,
    };
    println!("image      {}", image.id());
    run(&engine, &image).await?;
    show_what_is_left(&engine).await
}

async fn pull(engine: &Engine, reference: &str) -> Outcome<Image> {
    Ok(engine
        .pull(reference)
        .progress(show_progress)
        .deadline(Duration::from_secs(600))
        .await?)
}

fn show_progress(event: ProgressEvent) {
    if !matches!(event, ProgressEvent::Downloaded { .. }) {
        println!("           {event}");
    }
}

/// An image of a shell and a few programs of this host, with the libraries they need, as an OCI layout on disk.
async fn make(engine: &Engine, dir: &Path) -> Outcome<Image> {
    let layout = LayoutWriter::create(dir)?;
    let layer = layout.put_layer(&layer_of_this_host()?[..], Compression::Zstd)?;
    let config = serde_json::json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] });
    layout.put_image(Some("quickstart:1"), &Platform::host(), config, &[layer])?;
    Ok(engine.pull(format!("oci:{}", dir.display())).await?)
}

fn layer_of_this_host() -> Outcome<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut libraries = BTreeSet::new();
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        archive.append_data(&mut header, format!("{dir}/"), &[][..])?;
    }
    for program in PROGRAMS {
        let path = Path::new("/bin").join(program);
        add(&mut archive, &path, &format!("bin/{program}"))?;
        libraries.extend(libraries_of(&path)?);
    }
    for library in libraries {
        let name = library.to_string_lossy().trim_start_matches('/').to_owned();
        add(&mut archive, &library, &name)?;
    }
    Ok(archive.into_inner()?)
}

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &Path, name: &str) -> Outcome {
    let body = fs::read(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(body.len() as u64);
    Ok(archive.append_data(&mut header, name, &body[..])?)
}

/// The absolute paths in what ldd(1) prints; none for a static program.
fn libraries_of(program: &Path) -> Outcome<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| word.trim_end_matches(':').into())
        .collect())
}

async fn run(engine: &Engine, image: &Image) -> Outcome {
    let begin = Instant::now();
    let spec = ContainerSpec::image(image.id().to_string())
        .command(["sh", "-c", SCRIPT])
        .hostname("quickstart")
        .memory(Bytes::mib(64))
        .pids_limit(32)
        .cpus(0.5)
        .best_effort_limits(true);
    let container = engine.create(spec).await?;
    container.start().await?;
    println!(
        "container  {} runs after {:?}",
        &container.id().as_str()[..12],
        begin.elapsed()
    );
    let exit = container.wait().await?;
    let info = container.inspect().await?;
    println!("limits     64 MiB of memory, 32 processes, half a CPU");
    for warning in container.warnings() {
        println!("           not here: {warning}");
    }
    show_log(&container).await?;
    println!(
        "exit code  {} (killed for memory: {:?})",
        exit.status.code(),
        exit.oom_killed
    );
    container.remove(RemoveOptions::default()).await?;
    println!("removed    {} after {:?}", info.name, begin.elapsed());
    Ok(())
}

async fn show_log(container: &longshore::Container) -> Outcome {
    use futures_util::StreamExt as _;
    let mut entries = container.logs(longshore::LogQuery::default()).await?;
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        print!(
            "{:<10} {}",
            format!("{:?}", entry.stream).to_lowercase(),
            String::from_utf8_lossy(&entry.bytes)
        );
    }
    Ok(())
}

async fn show_what_is_left(engine: &Engine) -> Outcome {
    let left = engine
        .list(ListOptions {
            all: true,
            ..ListOptions::default()
        })
        .await?
        .len();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = mounts.lines().filter(|line| line.contains("longshore")).count();
    println!("left       {left} containers, {mounts} mounts; the root goes with this program");
    Ok(())
}
