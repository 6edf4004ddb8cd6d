//! Calls that a profile hands to the embedder: the action `SCMP_ACT_NOTIFY`.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use syscalls::Sysno;

use crate::error::{Error, Result};
use crate::sys::seccomp::{self, Answer, Call};
use crate::types::ContainerId;

/// Answers system calls of containers whose seccomp profile has the action `SCMP_ACT_NOTIFY`.
///
/// # What it must not do
///
/// It must not decide about what arguments point to. They are addresses in the memory of a program that goes on running
/// (in other threads, or in whoever shares its memory) and may have put something else there by the time that the kernel
/// looks: [`SeccompAnswer::Continue`] after a look into memory is a race that a program can win, and no security boundary. Source:
/// seccomp_unotify(2), "Design goals". Safe are decisions by number and by arguments that are numbers, and doing the work
/// oneself and answering with a value.
pub trait SeccompAgent: Debug + Send + Sync + 'static {
    /// Answers one call. It blocks that program, and no other container; it is called on a thread that each listener has for
    /// itself, not in an async runtime. A panic is answered with `ENOSYS`.
    fn answer(&self, call: &SeccompCall) -> SeccompAnswer;
}

/// A system call that waits for an answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeccompCall {
    /// The container.
    pub container: ContainerId,
    /// The calling thread, as this process sees it; 0 if it cannot. The number may be another's as soon as
    /// [`Self::is_waiting`] says no.
    pub pid: u32,
    /// The call's number.
    pub number: i32,
    /// Its name on this architecture.
    pub name: Option<&'static str>,
    /// `AUDIT_ARCH_…` of `linux/audit.h`.
    pub arch: u32,
    /// Its arguments; see the trait about those that are addresses.
    pub arguments: [u64; 6],
    id: u64,
    listener: Arc<OwnedFd>,
}

impl SeccompCall {
    /// Whether the call waits still: that is to be asked after every look at `/proc/PID`, since the program may have been
    /// killed, and its number given to another.
    pub fn is_waiting(&self) -> bool {
        seccomp::is_valid(self.listener.as_fd(), self.id)
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeccompAnswer {
    /// It fails with this errno and is not made.
    Errno(i32),
    /// It returns this value and is not made.
    Value(i64),
    /// The kernel makes it. No security decision: see [`SeccompAgent`].
    Continue,
}

/// Serves a listener on a thread of its own, until no process is left under its filter.
///
/// # Errors
/// `Os` if there can be no thread.
pub(crate) fn serve(listener: OwnedFd, agent: Arc<dyn SeccompAgent>, container: ContainerId) -> Result<()> {
    let listener = Arc::new(listener);
    let served = std::thread::Builder::new()
        .name("longshore-calls".to_owned())
        .spawn(move || {
            while let Some(call) = next(&listener, &container) {
                let answer = catch_unwind(AssertUnwindSafe(|| agent.answer(&call)));
                let answer = answer.unwrap_or_else(|_| {
                    tracing::warn!(container = %container, call = call.number, "the seccomp agent panicked");
                    SeccompAnswer::Errno(libc::ENOSYS)
                });
                // Whoever was killed needs no answer.
                let _ = seccomp::send(listener.as_fd(), raw(call.id, answer));
            }
        });
    served
        .map(drop)
        .map_err(|error| Error::os("start a thread for seccomp notifications", error))
}

/// The next call; `None` once nobody can make any.
fn next(listener: &Arc<OwnedFd>, container: &ContainerId) -> Option<SeccompCall> {
    loop {
        let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
            Ok(_) => {}
        }
        let ready = wanted[0].revents().unwrap_or(PollFlags::empty());
        if !ready.contains(PollFlags::POLLIN) {
            return None;
        }
        match seccomp::receive(listener.as_fd()) {
            Ok(call) => return Some(typed(&call, listener, container)),
            // Killed before it could be taken, or a signal to this thread.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
            Err(error) => {
                lost(container, &error);
                return None;
            }
        }
    }
}

fn lost(container: &ContainerId, error: &io::Error) {
    tracing::warn!(container = %container, %error, "seccomp notifications of a container are lost");
}

fn typed(call: &Call, listener: &Arc<OwnedFd>, container: &ContainerId) -> SeccompCall {
    let native = call.arch == super::compile::NATIVE;
    let number = usize::try_from(call.number).ok().filter(|_| native);
    SeccompCall {
        container: container.clone(),
        pid: call.pid,
        number: call.number,
        name: number.and_then(Sysno::new).map(|sysno| sysno.name()),
        arch: call.arch,
        arguments: call.arguments,
        id: call.id,
        listener: Arc::clone(listener),
    }
}

fn raw(id: u64, answer: SeccompAnswer) -> Answer {
    let none = Answer {
        id,
        ..Answer::default()
    };
    match answer {
        // 0 would be success, and the kernel takes no others.
        SeccompAnswer::Errno(errno) => Answer {
            error: -errno.clamp(1, 4095),
            ..none
        },
        SeccompAnswer::Value(value) => Answer { value, ..none },
        SeccompAnswer::Continue => Answer {
            flags: seccomp::CONTINUE,
            ..none
        },
    }
}
