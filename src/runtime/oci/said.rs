//! What a runtime says in its log, as an error that says what to do. Pure, but for reading the file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::ExitStatus;

/// Most bytes of a log that are read.
const LARGEST: u64 = 256 * 1024;
/// Most bytes of what is passed on: the container's own words may be in it.
const LONGEST: usize = 1024;

/// A line of `--log-format json`.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last error of a log, which goes; empty if there is none. Blocking.
pub(super) fn take(log: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|file| file.take(LARGEST).read_to_end(&mut text));
    // A container may run thousands of commands.
    let _ = std::fs::remove_file(log);
    match read {
        Ok(_) => last_error(&String::from_utf8_lossy(&text)),
        Err(_) => String::new(),
    }
}

fn last_error(text: &str) -> String {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut errors = lines.filter(|line| matches!(line.level.as_str(), "error" | "fatal"));
    let last = errors.next_back().map(|line| line.msg).unwrap_or_default();
    last.chars().take(LONGEST).collect()
}

/// What a run that failed means.
pub(super) fn error(name: &str, verb: &str, said: &str, status: ExitStatus) -> Error {
    let said = match said.is_empty() {
        true => format!("it ended with {status}, and no word"),
        false => said.to_owned(),
    };
    let error = Error::new(kind(&said), format!("{name} {verb}: {said}")).with_step(format!("{name} {verb}"));
    match command(&said) {
        Some(command) => error.with_object(ObjectKind::Command, command),
        None => error,
    }
}

/// Both programs' words for what a caller tells apart. Sources: runc's `libcontainer` (`standard_init_linux.go`, Go's
/// `os/exec`), crun's `src/libcrun/container.c` and `linux.c`.
fn kind(said: &str) -> ErrorKind {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let about_program = has(&[
        "exec:",
        "executable file",
        "exec `",
        "exec user process",
        "open executable",
    ]);
    if about_program
        && has(&[
            "not found in $PATH",
            "no such file or directory",
            "No such file or directory",
        ])
    {
        return ErrorKind::CommandNotFound;
    }
    if about_program
        && has(&[
            "permission denied",
            "Permission denied",
            "Operation not permitted",
            "is a directory",
            "Is a directory",
            "exec format error",
        ])
    {
        return ErrorKind::CommandNotExecutable;
    }
    if has(&[
        "container does not exist",
        "does not exist",
        "container not running",
        "stopped container",
        "is not running",
    ]) {
        return ErrorKind::InvalidState;
    }
    ErrorKind::Os
}

/// The program that the words are about: `exec: "sh"`, or crun's `` `sh` ``.
fn command(said: &str) -> Option<String> {
    if !matches!(kind(said), ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable) {
        return None;
    }
    let between = |before: &str, end: char| {
        let rest = said.split_once(before)?.1;
        Some(rest.split_once(end)?.0.to_owned())
    };
    between("exec: \"", '"')
        .or_else(|| between("executable file `", '`'))
        .or_else(|| between("exec `", '`'))
}

/// Whether an error is about a program that cannot be run, so that whoever runs it is to be told of nothing else.
pub(super) fn is_about_program(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable
    )
}

/// The error of a verb, unless the container has ended meanwhile.
pub(super) fn unless_ended<T>(result: Result<T>, ended: bool, not_running: impl FnOnce() -> Error) -> Result<T> {
    match result {
        Err(error) if ended && !is_about_program(&error) => Err(not_running().with_source(error)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &str) -> (ErrorKind, Option<String>) {
        let error = error("runc", "create", said, ExitStatus::exited(1));
        let object = error.object().map(|(_, name)| name.to_owned());
        (error.kind().clone(), object)
    }

    #[test]
    fn h21_what_runtimes_say_is_told_apart() {
        let missing = (ErrorKind::CommandNotFound, Some("nope".to_owned()));
        let runc =
            "runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH";
        assert_eq!(told(runc), missing);
        assert_eq!(
            told("executable file `nope` not found in $PATH: No such file or directory"),
            missing
        );
        let refused = (ErrorKind::CommandNotExecutable, Some("/etc".to_owned()));
        assert_eq!(
            told("unable to start container process: exec: \"/etc\": permission denied"),
            refused
        );
        assert_eq!(
            told("exec: \"/etc\": is a directory").0,
            ErrorKind::CommandNotExecutable
        );
        // crun's words for a directory.
        assert_eq!(
            told("open executable: Operation not permitted").0,
            ErrorKind::CommandNotExecutable
        );
        assert_eq!(told("container does not exist").0, ErrorKind::InvalidState);
        assert_eq!(told("rootfs_linux.go: mounting failed"), (ErrorKind::Os, None));
        assert_eq!(told("").0, ErrorKind::Os);
    }

    #[test]
    fn h21_the_last_error_of_a_log_counts() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"first\"}\nno json\n\
                   {\"msg\":\"last\",\"level\":\"error\",\"time\":\"t\"}\n{\"level\":\"info\",\"msg\":\"i\"}\n";
        assert_eq!(last_error(log), "last");
        assert_eq!(last_error(""), "");
        let long = format!("{{\"level\":\"error\",\"msg\":\"{}\"}}", "x".repeat(5000));
        assert_eq!(last_error(&long).len(), LONGEST);
    }
}
