//! Typed progress of long verbs.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::types::Digest;

/// Something that happened on the way of a pull, a push or an unpack. Byte events of one blob add up to its size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressEvent {
    /// The manifest was found.
    Resolved {
        /// Digest of the manifest of the chosen platform.
        manifest: Digest,
        /// How many layers it has.
        layers: usize,
        /// Sum of the sizes of config and layers, in bytes, as the manifest states them.
        total_bytes: u64,
    },
    /// A blob is already here; all its bytes count as done.
    Exists {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// More bytes of a blob arrived.
    Downloaded {
        /// The blob.
        digest: Digest,
        /// Bytes since the last event of this blob.
        bytes: u64,
        /// The blob's size in bytes.
        size: u64,
    },
    /// More bytes of a blob were sent. What has to be sent again is not told of twice.
    Uploaded {
        /// The blob.
        digest: Digest,
        /// Bytes since the last event of this blob.
        bytes: u64,
        /// The blob's size in bytes.
        size: u64,
    },
    /// A layer is unpacked.
    Unpacked {
        /// The layer's blob.
        digest: Digest,
    },
    /// What an engine elsewhere says of its progress, in its own words.
    Remote {
        /// What it is about: the beginning of a layer's digest, a tag; empty for the whole.
        id: String,
        /// What it says: `Downloading`, `Pull complete`.
        status: String,
        /// Bytes done, if it counts them.
        current: Option<u64>,
        /// Bytes there are, if it knows.
        total: Option<u64>,
    },
    /// What happens in a build.
    Build(BuildEvent),
    /// The verb ended well. The last event.
    Done {
        /// Id of the image.
        image: Digest,
    },
    /// The verb failed or was cancelled. The last event.
    Failed {
        /// What the error says.
        message: String,
    },
}

impl fmt::Display for ProgressEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved { manifest, layers, .. } => write!(f, "{}: found, {layers} layers", manifest.short()),
            Self::Exists { digest, .. } => write!(f, "{}: already exists", digest.short()),
            Self::Downloaded { digest, bytes, size } => write!(f, "{}: {bytes} of {size} bytes more", digest.short()),
            Self::Uploaded { digest, bytes, size } => write!(f, "{}: {bytes} of {size} bytes sent", digest.short()),
            Self::Unpacked { digest } => write!(f, "{}: unpacked", digest.short()),
            Self::Remote {
                id,
                status,
                current,
                total,
            } => {
                let colon = if id.is_empty() { "" } else { ": " };
                write!(f, "{id}{colon}{status}")?;
                match current.zip(*total) {
                    Some((current, total)) => write!(f, " ({current} of {total})"),
                    None => Ok(()),
                }
            }
            Self::Build(event) => event.fmt(f),
            Self::Done { image } => write!(f, "{}: done", image.short()),
            Self::Failed { message } => write!(f, "failed: {message}"),
        }
    }
}

/// A step of a build: begun, telling, over. Steps of stages that do not need each other come between each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildEvent {
    /// A step begins.
    Begun {
        /// The step's number in this build, from 1 in the order in which they begin.
        step: u32,
        /// The name of its stage, or its number.
        stage: String,
        /// The instruction as it is written.
        text: String,
    },
    /// The command of a step wrote something: a line, or a part of a long one.
    Output {
        /// The step.
        step: u32,
        /// Whether to stderr.
        stderr: bool,
        /// What it wrote.
        bytes: Bytes,
    },
    /// A step is over.
    Ended {
        /// The step.
        step: u32,
        /// Whether an earlier build had done it.
        cached: bool,
    },
}

impl fmt::Display for BuildEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { step, stage, text } => write!(f, "#{step} [{stage}] {text}"),
            Self::Output { step, bytes, .. } => {
                write!(f, "#{step} {}", String::from_utf8_lossy(bytes).trim_end_matches('\n'))
            }
            Self::Ended { step, cached: true } => write!(f, "#{step} cached"),
            Self::Ended { step, .. } => write!(f, "#{step} done"),
        }
    }
}

/// Where progress goes. Cheap to clone; the default goes nowhere.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(ProgressEvent) + Send + Sync>>);

impl Progress {
    /// Sends progress to a function, which is called on the engine's threads and must return quickly.
    pub fn new(report: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }

    /// Reports an event.
    pub fn report(&self, event: ProgressEvent) {
        if let Some(report) = &self.0 {
            report(event);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Progress(..)"
        } else {
            "Progress(none)"
        })
    }
}
