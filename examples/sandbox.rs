//! The runtime by itself: a directory as a root and a command, like `tokio::process::Command`, with no engine, no image and no
//! database. With `default-features = false` this is all that the crate brings.
//!
//! ```sh
//! cargo run --release --example sandbox                          # a root made of this machine's own static busybox
//! cargo run --release --example sandbox -- /srv/roots/alpine ls  # a root of one's own, and a command for it
//! ```
//!
//! Everything that it starts ends with this process, however that ends.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use longshore::runtime::Command;
use longshore::runtime::native::{NativeOptions, NativeRuntime};
use tokio::io::AsyncWriteExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let mut words = std::env::args().skip(1);
    let root = match words.next() {
        Some(root) => PathBuf::from(root),
        None => make_root(&scratch.path().join("root"))?,
    };
    // One helper process, started at the first use. It is what ends the programs when this process is gone.
    let runtime = Arc::new(NativeRuntime::new(NativeOptions::default()));

    if let Some(program) = words.next() {
        let output = Command::new(runtime, &root, program).args(words).output().await?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        std::process::exit(output.status.code());
    }

    // To its end: the exact status, and what it printed.
    let script = "echo \"process $$ of $(ls /proc | grep -c '^[0-9]'), user $(id -u), on $(hostname)\"; exit 7";
    let command = Command::new(runtime.clone(), &root, "sh").args(["-c", script]);
    let output = command.hostname("box").output().await?;
    print!("printed   {}", String::from_utf8_lossy(&output.stdout));
    println!("status    {}", output.status);
    assert_eq!(output.status.code(), 7);

    // Its streams, while it runs.
    let mut tr = Command::new(runtime.clone(), &root, "tr")
        .args(["a-z", "A-Z"])
        .stdin(true)
        .spawn()
        .await?;
    if let Some(mut stdin) = tr.stdin.take() {
        stdin.write_all(b"written to its stdin\n").await?;
    }
    let output = tr.wait_with_output().await?;
    print!("filtered  {}", String::from_utf8_lossy(&output.stdout));

    // One that does not end by itself.
    let sleeper = Command::new(runtime, &root, "sleep")
        .arg("1000")
        .init(true)
        .spawn()
        .await?;
    println!("running   pid {} on the host", sleeper.id());
    tokio::time::sleep(Duration::from_millis(50)).await;
    println!("killed    {}", sleeper.kill().await?);
    Ok(())
}

/// A root with busybox and its names.
fn make_root(root: &Path) -> std::io::Result<PathBuf> {
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    for name in ["sh", "ls", "grep", "id", "hostname", "tr", "sleep"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    Ok(root.to_owned())
}
