//! Contestants that run inside a process of their own: this same program in a role. It does one thing per line it is told,
//! and answers with the nanoseconds that took.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::limits::start::Starter;
use crate::measure::timed;
use crate::networks::load;
use crate::ours;

const ROLE: &str = "LONGSHORE_BENCH_ROLE";

/// Runs the role that this process was started for, if any.
pub fn run_role() -> Option<i32> {
    let role = std::env::var(ROLE).ok()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Some(match (role.as_str(), arguments.as_slice()) {
        ("limit", [dir, lower]) => serve(limit(Path::new(dir), Path::new(lower))),
        ("limit-once", [dir, lower]) => once(Path::new(dir), Path::new(lower)),
        ("load", [namespace]) => serve(load::role(Path::new(namespace))),
        ("ours", [root, ballast]) => serve(ours::role(Path::new(root), ballast.parse().unwrap_or(0))),
        _ => 125,
    })
}

/// What a role does with a line.
pub type Deed = Box<dyn FnMut(&str) -> Result<Duration, String>>;

fn serve(mut deed: Deed) -> i32 {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match deed(&line) {
            Ok(time) => println!("{}", time.as_nanos()),
            Err(reason) => println!("error {}", reason.replace('\n', " ")),
        }
    }
    0
}

fn limit(dir: &Path, lower: &Path) -> Deed {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    let starter = starter(dir, lower);
    Box::new(move |line| {
        let starter = starter.as_ref().map_err(ToString::to_string)?;
        let start = || starter.once(SERIAL.fetch_add(1, Ordering::Relaxed));
        match line.split_once(' ') {
            None => timed(start),
            Some((_, count)) => timed(|| in_threads(count.parse().unwrap_or(1), &start)),
        }
    })
}

/// The bare-kernel program, with the filter that ours loads by default.
pub fn starter(dir: &Path, lower: &Path) -> std::io::Result<Starter> {
    use longshore::runtime::caps::CapabilitySet;
    use longshore::runtime::native::seccomp::{compile, default_profile};
    let filter = compile(&default_profile(&CapabilitySet::docker())).map_err(std::io::Error::other)?;
    Starter::new(dir, lower, filter)
}

/// So many starts, a thread each: much of a start is waiting for the kernel's grace periods, not work.
fn in_threads(count: usize, start: &(dyn Fn() -> std::io::Result<()> + Sync)) -> std::io::Result<()> {
    let left = AtomicUsize::new(count);
    let take = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
    };
    let work = || {
        while take() {
            start()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        handles
            .into_iter()
            .try_for_each(|handle| handle.join().expect("no panic"))
    })
}

fn once(dir: &Path, lower: &Path) -> i32 {
    match starter(dir, lower).and_then(|starter| starter.once(0)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

/// This program in a role, as a command.
pub fn command(role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(ROLE, role).args(arguments);
    command
}

/// A role that is running; ends when dropped.
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(role: &str, arguments: &[&str]) -> Result<Self, String> {
        let child = command(role, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| error.to_string())?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Self { child, input, output })
    }

    /// Has one thing done, and returns how long that took there.
    pub fn tell(&mut self, line: &str) -> Result<Duration, String> {
        let input = self.input.as_mut().ok_or("closed")?;
        writeln!(input, "{line}").map_err(|error| error.to_string())?;
        let mut answer = String::new();
        self.output.read_line(&mut answer).map_err(|error| error.to_string())?;
        match answer.trim().parse() {
            Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
            Err(_) if answer.is_empty() => Err("the worker ended".to_owned()),
            Err(_) => Err(answer.trim().trim_start_matches("error ").to_owned()),
        }
    }

    /// The processor time that the worker has taken so far.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }

    /// The worker's resident memory in bytes, if it can be told.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }
}

/// The processor time that a process has taken, with those of its children that have ended; in steps of 10 ms. Source:
/// proc_pid_stat(5).
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
