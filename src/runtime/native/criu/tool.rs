//! What CRIU's log says when a run of it fails.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::StdioPlan;
use crate::runtime::native::plan::Host;
use crate::runtime::native::start::Ends;
use crate::runtime::native::tool::{self, Run};
use crate::runtime::native::zygote::Zygote;
use crate::sys::blocking::blocking;
use crate::types::{ContainerId, ExitStatus};

/// How much of the end of a log is read, and how many of its lines are shown.
const TAIL: u64 = 64 * 1024;
const LINES: usize = 4;

/// What a run that failed means: CRIU cannot work here at all, or not with this container.
pub(super) async fn failure(
    zygote: &Arc<Zygote>,
    host: Host,
    id: &ContainerId,
    work: &Work,
    what: &'static str,
    status: ExitStatus,
) -> Error {
    let log = work.file("log");
    let said = blocking(move || Ok(last_errors(&log))).await.unwrap_or_default();
    if let Err(error) = check(zygote, host, id, work).await {
        return error;
    }
    let said = if said.is_empty() {
        format!("criu ended with code {} and no word", status.code())
    } else {
        said
    };
    Error::new(
        ErrorKind::InvalidState,
        format!("criu could not {what} the container: {said}"),
    )
    .with_step(what)
}

/// Whether CRIU works on this kernel, by its own word.
async fn check(zygote: &Arc<Zygote>, host: Host, id: &ContainerId, work: &Work) -> Result<()> {
    let program = super::program()?;
    let arguments = ["check", "-v1", "-W", &super::staged(super::WORK), "-o", "check"];
    let arguments = std::iter::once(program)
        .chain(arguments)
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let plan = work.plan(&arguments, None)?;
    let ends = Ends::new(StdioPlan::default())?;
    let with = tool::alone(&ends)?;
    let (_run, status, _) = Run::to_end(zygote, plan, host, id, ends, with).await?;
    if status.code() == 0 {
        return Ok(());
    }
    let log = work.file("check");
    let said = blocking(move || Ok(last_errors(&log))).await.unwrap_or_default();
    let needs = format!("a criu that works on this kernel; of the one that is here, `criu check` says: {said}");
    Err(Error::unsupported("checkpoints", needs))
}

/// The last lines of a log that tell of errors. Blocking.
fn last_errors(log: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        file.take(TAIL).read_to_end(&mut text)
    });
    if read.is_err() {
        return String::new();
    }
    errors_of(&String::from_utf8_lossy(&text))
}

/// The lines of CRIU that begin with a time and "Error", without what only its makers understand.
fn errors_of(text: &str) -> String {
    let errors: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("Error (").map(|(_, rest)| rest))
        .filter_map(|rest| rest.split_once("): ").map(|(_, said)| said.trim()))
        // It tries things out in children that may end so.
        .filter(|said| !said.is_empty() && !said.starts_with("exited, status="))
        .collect();
    errors[errors.len().saturating_sub(LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g13_the_last_errors_of_a_log_are_told() {
        let log = "(00.01) Error (criu/util.c:642): exited, status=1\n(00.02) Will dump\n\
                   (00.05)      1: Error (criu/files-reg.c:2203): File fd/0 has bad mode 020644 (expect 020666)\n\
                   (00.06) Warn  (criu/x.c:1): nothing\n(00.07) Error (criu/cr-restore.c:2537): Restoring FAILED.\n";
        assert_eq!(
            errors_of(log),
            "File fd/0 has bad mode 020644 (expect 020666); Restoring FAILED."
        );
        assert_eq!(errors_of("nothing\nError (no end"), "");
        assert_eq!(errors_of(""), "");
    }
}
