//! The one error type of the crate: a stable [`ErrorKind`] to branch on, the object, the step, and a source chain.
//!
//! This module imports nothing else of the crate. Every other module keeps its own detailed errors private and converts
//! them upwards with [`Error::new`]. `Display` shows one level only; walk [`std::error::Error::source`] or use
//! [`Error::report`] for the whole chain.

#[cfg(any(feature = "engine", feature = "remote"))]
pub(crate) mod wire;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::SystemTime;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a caller can do about an error. Stable: kinds are added, never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named object does not exist.
    NotFound,
    /// The name is taken, or the object is in use.
    Conflict,
    /// The caller gave a value that can never work.
    InvalidArgument,
    /// The verb is not possible in the object's present state.
    InvalidState,
    /// The registry, the kernel or the owner of the root refused.
    Denied,
    /// This host, backend or version cannot do it; `needs` names what is missing and how to get it.
    Unsupported {
        /// What is missing, in words that name the remedy.
        needs: String,
    },
    /// A registry asks to come back later.
    RateLimited {
        /// When to try again, if the registry said so.
        retry_at: Option<SystemTime>,
    },
    /// A peer (registry, proxy, daemon) cannot be reached, or answered nonsense. Trying again may help.
    Unavailable,
    /// Bytes do not hash to their digest, or are not as many as announced.
    DigestMismatch,
    /// A layer or archive tries to leave its root, or is malformed.
    UnsafeArchive,
    /// A deadline passed.
    Timeout,
    /// The caller went away; the work was undone.
    Cancelled,
    /// The disk, a quota or a table is full.
    NoSpace,
    /// No subnet or no address is left to give out.
    IpamExhausted,
    /// The root directory cannot be written.
    ReadOnly,
    /// The program to run does not exist in the container (exit code 127 in Docker's terms).
    CommandNotFound,
    /// The program exists but cannot be executed (exit code 126 in Docker's terms).
    CommandNotExecutable,
    /// A command of a build failed; its exit code, its place and what it wrote last are in
    /// [`StepFailure`](crate::build::StepFailure).
    BuildFailed,
    /// A file of the root is damaged.
    Corrupt,
    /// The root was made by a newer version of this crate.
    NewerVersion,
    /// The kernel refused a step; the errno is in [`Error::errno`].
    Os,
    /// A bug in this crate. Please report it.
    Internal,
}

impl ErrorKind {
    /// A short, stable, snake-case word for logs and wire formats.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::InvalidArgument => "invalid_argument",
            Self::InvalidState => "invalid_state",
            Self::Denied => "denied",
            Self::Unsupported { .. } => "unsupported",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::DigestMismatch => "digest_mismatch",
            Self::UnsafeArchive => "unsafe_archive",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::NoSpace => "no_space",
            Self::IpamExhausted => "ipam_exhausted",
            Self::ReadOnly => "read_only",
            Self::CommandNotFound => "command_not_found",
            Self::CommandNotExecutable => "command_not_executable",
            Self::BuildFailed => "build_failed",
            Self::Corrupt => "corrupt",
            Self::NewerVersion => "newer_version",
            Self::Os => "os",
            Self::Internal => "internal",
        }
    }
}

/// The sort of thing an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectKind {
    /// An image, by reference or id.
    Image,
    /// A container, by name or id.
    Container,
    /// A command run in a container, by its id.
    Exec,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A blob of the content store.
    Blob,
    /// A layer of an image.
    Layer,
    /// A snapshot of the storage driver.
    Snapshot,
    /// A manifest or index.
    Manifest,
    /// A registry host.
    Registry,
    /// The engine's root directory.
    Root,
    /// A user or group inside a container.
    User,
    /// A program inside a container.
    Command,
    /// A cgroup.
    Cgroup,
    /// An option of a request.
    Option,
    /// A backend chosen by name.
    Backend,
    /// A device of the Container Device Interface, by its whole name.
    CdiDevice,
}

impl ObjectKind {
    /// The word used in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Container => "container",
            Self::Exec => "exec",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Snapshot => "snapshot",
            Self::Manifest => "manifest",
            Self::Registry => "registry",
            Self::Root => "root directory",
            Self::User => "user",
            Self::Command => "command",
            Self::Cgroup => "cgroup",
            Self::Option => "option",
            Self::Backend => "backend",
            Self::CdiDevice => "CDI device",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of the engine: a kind, the object it is about, the step that failed, and what lies beneath.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    object: Option<(ObjectKind, String)>,
    step: Option<Cow<'static, str>>,
    source: Option<Source>,
}

impl Error {
    /// Makes an error of a kind with a message that says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            object: None,
            step: None,
            source: None,
        }))
    }

    /// An object that does not exist.
    pub fn not_found(object: ObjectKind, name: impl Into<String>) -> Self {
        let name = name.into();
        Self::new(ErrorKind::NotFound, format!("no such {object}: {name}")).with_object(object, name)
    }

    /// A value of the caller that can never work.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Something this host or backend cannot do; `needs` names what is missing.
    pub fn unsupported(what: impl fmt::Display, needs: impl Into<String>) -> Self {
        let needs = needs.into();
        let message = format!("{what} is not supported here: {needs}");
        Self::new(ErrorKind::Unsupported { needs }, message)
    }

    /// A verb that the chosen backend does not implement.
    pub fn unsupported_verb(verb: &'static str) -> Self {
        Self::unsupported(verb, format!("a backend that implements the verb {verb:?}"))
    }

    /// A bug of this crate.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A failed system call or file operation; the kind follows from the errno.
    pub fn os(step: impl Into<Cow<'static, str>>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = kind_of_io(&source);
        let step = step.into();
        Self::new(kind, format!("{step} failed"))
            .with_step(step)
            .with_source(source)
    }

    /// Names the object the error is about.
    #[must_use]
    pub fn with_object(mut self, kind: ObjectKind, name: impl Into<String>) -> Self {
        self.0.object = Some((kind, name.into()));
        self
    }

    /// Names the step that failed.
    #[must_use]
    pub fn with_step(mut self, step: impl Into<Cow<'static, str>>) -> Self {
        self.0.step = Some(step.into());
        self
    }

    /// Adds what lies beneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Wraps this error in a message of the next level up; kind and object stay.
    #[must_use]
    pub fn context(self, message: impl Into<Cow<'static, str>>) -> Self {
        let kind = self.kind().clone();
        let object = self.0.object.clone();
        let step = self.0.step.clone();
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            object,
            step,
            source: Some(Box::new(self)),
        }))
    }

    /// Puts a place before the message: it is still the same error, of the same level.
    #[must_use]
    #[cfg(all(feature = "engine", feature = "build"))]
    pub(crate) fn placed(mut self, place: &str) -> Self {
        self.0.message = format!("{place}: {}", self.0.message).into();
        self
    }

    /// Replaces the kind, where a level above knows better what it means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What a caller can branch on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The object that the error is about, if it is about one.
    pub fn object(&self) -> Option<(ObjectKind, &str)> {
        self.0.object.as_ref().map(|(kind, name)| (*kind, name.as_str()))
    }

    /// The step that failed, if the work has steps.
    pub fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// The errno of the nearest system call in the chain.
    pub fn errno(&self) -> Option<i32> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                return Some(code);
            }
            next = error.source();
        }
        None
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind(), ErrorKind::NotFound)
    }

    /// Whether a name is taken or an object is in use.
    pub fn is_conflict(&self) -> bool {
        matches!(self.kind(), ErrorKind::Conflict)
    }

    /// Whether the host or backend cannot do it.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unsupported { .. })
    }

    /// Whether the same call may work later without a change of the request.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::RateLimited { .. } | ErrorKind::Unavailable | ErrorKind::Timeout
        )
    }

    /// The whole chain in one line, outermost first.
    pub fn report(&self) -> String {
        let mut line = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            line.push_str(": ");
            line.push_str(&error.to_string());
            next = error.source();
        }
        line
    }
}

/// What an I/O error means for the caller.
fn kind_of_io(error: &io::Error) -> ErrorKind {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => return ErrorKind::NoSpace,
        Some(libc::EROFS) => return ErrorKind::ReadOnly,
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Os,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some((kind, name)) = &self.0.object {
            out.field("object", &format_args!("{kind} {name}"));
        }
        if let Some(step) = &self.0.step {
            out.field("step", step);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_says_one_level_and_report_the_chain() {
        let error = Error::os("open config", io::Error::from_raw_os_error(libc::ENOSPC)).context("pull busybox");
        assert_eq!(error.to_string(), "pull busybox");
        assert_eq!(error.kind(), &ErrorKind::NoSpace);
        assert_eq!(error.errno(), Some(libc::ENOSPC));
        assert_eq!(error.step(), Some("open config"));
        assert!(
            error
                .report()
                .starts_with("pull busybox: open config failed: No space left")
        );
    }
}
