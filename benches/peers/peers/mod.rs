//! The peers: programs of the distribution, each on a root of its own.

pub mod containerd;
pub mod docker;
pub mod networked;
pub mod podman;
pub mod runc;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command whose output matters only if it fails.
pub fn sh(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().to_string_lossy().into_owned();
    Err(format!(
        "{program}: {}: {}",
        output.status,
        said.trim().lines().next_back().unwrap_or_default()
    ))
}

/// Whether a program is installed.
pub fn installed(name: &str) -> Result<(), String> {
    match crate::support::program(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{name} is not installed")),
    }
}

/// A daemon that must not outlive the measurement: a child that dies with us.
pub fn daemon(program: &str, log: &std::path::Path) -> Result<Command, String> {
    let mut command = Command::new("setpriv");
    let log = std::fs::File::create(log).map_err(|error| error.to_string())?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    command
        .args(["--pdeathsig", "TERM", "--", program])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    Ok(command)
}

/// Waits until a daemon answers.
pub fn await_daemon(child: &mut Child, mut answers: impl FnMut() -> bool) -> Result<(), String> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        if answers() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("ended early: {status}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("does not answer after 30 s".to_owned())
}

/// Asks a daemon to end, and waits.
pub fn end(child: &mut Child) {
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    );
    for _ in 0..100 {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// So many runs of a command at once, until the last has ended.
pub fn at_once(count: usize, mut command: impl FnMut(usize) -> Command) -> Result<Duration, String> {
    let start = Instant::now();
    let mut children = Vec::new();
    for number in 0..count {
        let mut command = command(number);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        children.push(quiet.spawn().map_err(|error| error.to_string())?);
    }
    let mut failed = 0;
    for mut child in children {
        failed += usize::from(!child.wait().is_ok_and(|status| status.success()));
    }
    let time = start.elapsed();
    if failed > 0 {
        Err(format!("{failed} of {count} failed"))
    } else {
        Ok(time)
    }
}
