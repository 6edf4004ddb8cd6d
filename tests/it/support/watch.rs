//! A test that takes very long says where it and its processes are, before somebody ends the whole run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::leaks::all_processes;
use super::names_in;

/// The first time it is said; then at double the time, and so on.
const LONG: Duration = Duration::from_secs(120);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    _over: Sender<()>,
}

/// Watches a test.
pub fn over(name: &'static str) -> Watch {
    let (sender, over) = channel();
    std::thread::spawn(move || {
        let mut since = LONG;
        let mut patience = LONG;
        while over.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            println!("{name} has been running for {since:?}:\n{}", family());
            patience = since;
            since *= 2;
        }
    });
    Watch { _over: sender }
}

/// Each thread of this process and of those below: its state, and what it waits for in the kernel as far as that may be read.
fn family() -> String {
    let mut text = String::new();
    for process in all_processes() {
        if !process.descendant && process.pid != std::process::id() {
            continue;
        }
        let _ = writeln!(
            text,
            "  {} {} {}, child of {}",
            process.pid, process.name, process.state, process.parent
        );
        let tasks = format!("/proc/{}/task", process.pid);
        for thread in names_in(Path::new(&tasks)) {
            let read = |file: &str| fs::read_to_string(format!("{tasks}/{thread}/{file}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "    {thread} {}: {} [{}] {}",
                read("comm").trim(),
                read("wchan"),
                read("syscall").trim(),
                read("stack").trim().replace('\n', " ")
            );
        }
    }
    text
}
