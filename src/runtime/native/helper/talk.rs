//! The protocol between a shim and whoever connects to it. `core` only; it compiles into both sides.
//!
//! A shim may be older than the library that connects to it: this protocol only grows. A request that a shim does not know is
//! answered with `ENOSYS`, bytes after those that a side knows are ignored. One message of a `SOCK_SEQPACKET` socket each: a
//! head of four words (magic; operation, and the sender's version in the upper half; number of the request; argument) and a
//! body. The client's first message says what the connection is for.

use super::wire::{put_words, u32_at};

pub(crate) const MAGIC: u32 = 0x6d68_736c;
/// Raised with every addition.
pub(crate) const VERSION: u32 = 2;
/// Bytes of a head.
pub(crate) const HEAD: usize = 16;
/// Longest message to a shim.
pub(crate) const REQUEST: usize = 256;
/// Longest piece of output in one message.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Operations.
pub(crate) mod op {
    /// Tell where the container is in its life, now and whenever that changes. Over such a connection go all requests.
    pub(crate) const WATCH: u32 = 1;
    /// Send what the container prints.
    pub(crate) const OUTPUT: u32 = 2;
    /// Talk as a zygote does (see `wire.rs`), about commands in the container.
    pub(crate) const SESSION: u32 = 3;
    /// Give a descriptor of the first process of the present run.
    pub(crate) const PROCESS: u32 = 16;
    /// Give a descriptor to which stdin, or the terminal's master, is written; none, and no error, where there is neither.
    pub(crate) const INPUT: u32 = 17;
    /// The shim keeps stdin open no longer.
    pub(crate) const CLOSE_INPUT: u32 = 18;
    /// The next end is the last.
    pub(crate) const HALT: u32 = 19;
    /// Change when it is started again; the body are the words of [`super::Restart`].
    pub(crate) const RESTART: u32 = 20;
    /// The shim's first message: the words of [`super::greeting`].
    pub(crate) const GREETING: u32 = 64;
    /// A slot of the state's file.
    pub(crate) const STATE: u32 = 65;
    /// To a request, with its number; the argument is an errno or 0.
    pub(crate) const ANSWER: u32 = 66;
    /// Output; the argument is 1 or 2, for the stream.
    pub(crate) const CHUNK: u32 = 67;
}

/// Words of the greeting.
pub(crate) mod greeting {
    /// [`super::VERSION`] of the shim.
    pub(crate) const VERSION: usize = 0;
    /// The version of plans and of the zygote's protocol that the shim knows.
    pub(crate) const PLANS: usize = 1;
    /// Bits of [`super::config::FLAGS`].
    pub(crate) const FLAGS: usize = 2;
    /// [`super::config::INSIDE`], as they came.
    pub(crate) const INSIDE: usize = 3;
    pub(crate) const COUNT: usize = INSIDE + super::config::INSIDE_COUNT;
}

/// Words of 64 bits that a shim is told first of all.
pub(crate) mod config {
    pub(crate) const FLAGS: usize = 0;
    pub(crate) const RESTART: usize = 1;
    /// The log: bytes of a full file, most files, number and bytes of the present one, number of the oldest.
    pub(crate) const LOG_FULL: usize = 6;
    pub(crate) const LOG_FILES: usize = 7;
    pub(crate) const LOG_NUMBER: usize = 8;
    pub(crate) const LOG_SIZE: usize = 9;
    pub(crate) const LOG_OLDEST: usize = 10;
    pub(crate) const BOOT: usize = 11;
    /// The change that the state's file has.
    pub(crate) const CHANGE: usize = 13;
    /// What a command must know of the container, for the library alone.
    pub(crate) const INSIDE: usize = 14;
    pub(crate) const INSIDE_COUNT: usize = 5;
    /// Of a check: milliseconds between probes, of a probe, of the start period, between probes in that, failures in a row.
    pub(crate) const INTERVAL: usize = INSIDE + INSIDE_COUNT;
    pub(crate) const TIMEOUT: usize = INTERVAL + 1;
    pub(crate) const START_PERIOD: usize = INTERVAL + 2;
    pub(crate) const START_INTERVAL: usize = INTERVAL + 3;
    pub(crate) const RETRIES: usize = INTERVAL + 4;
    /// What happens to a container that becomes unhealthy: nothing, or one of these; how it is told to stop, and for how many
    /// milliseconds that is waited for.
    pub(crate) const ON_UNHEALTHY: usize = INTERVAL + 5;
    pub(crate) const STOP_SIGNAL: usize = INTERVAL + 6;
    pub(crate) const STOP_MS: usize = INTERVAL + 7;
    pub(crate) const KILL: u64 = 1;
    pub(crate) const STOP: u64 = 2;
    pub(crate) const AGAIN: u64 = 3;
    /// After these comes the log's second name, with a NUL.
    pub(crate) const COUNT: usize = INTERVAL + 8;

    /// The log holds frames.
    pub(crate) const FRAMES: u64 = 1;
    /// The log holds lines of JSON.
    pub(crate) const JSON: u64 = 2;
    /// The container has a stdin.
    pub(crate) const INPUT: u64 = 4;
    /// The container has a terminal.
    pub(crate) const TERMINAL: u64 = 8;
    /// The shim probes the container's health. Where older shims say nothing of it, they do not.
    pub(crate) const HEALTH: u64 = 16;
    /// The container runs already: its shim was killed, and this one takes its place. It goes on from the state that is in the
    /// file, and until it has done so it leaves everything as it is.
    pub(crate) const TAKEN: u64 = 32;
    /// With [`TAKEN`]: no shim was there before. The container is a zygote's, which stays its parent, and its streams are
    /// pipes without names, or a terminal. With the plan come, at once behind the pidfd of its first process: the socket over which
    /// the zygote says that the container outlives its owner ([`super::super::wire::KEPT`]), and in the end how it ended; and this
    /// side of stdout and stderr, and of stdin where that is open; or the terminal's master. Until the word has come, everything is
    /// as it was, and if it does not come, this shim ends.
    pub(crate) const GIVEN: u64 = 64;

    /// Positions of the descriptors that come along: the shim's directory, the listening socket, the state's file, the log's
    /// directory and its present file, and, where there is one, the file with the counter of kills for memory.
    pub(crate) const FD_DIR: u32 = 0;
    pub(crate) const FD_LISTENER: u32 = 1;
    pub(crate) const FD_STATE: u32 = 2;
    pub(crate) const FD_LOG_DIR: u32 = 3;
    pub(crate) const FD_LOG: u32 = 4;
    pub(crate) const FD_OOM: u32 = 5;
    /// With [`HEALTH`]: the plan of a probe, and the file of results. The one before these is anything then.
    pub(crate) const FD_PROBE: u32 = 6;
    pub(crate) const FD_RESULTS: u32 = 7;
}

/// When a container is started again: five words of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restart {
    /// 0: never, 1: after a failure, 2: always.
    pub(crate) after: u64,
    /// All ones: no limit.
    pub(crate) most: u64,
    pub(crate) first_ms: u64,
    pub(crate) longest_ms: u64,
    pub(crate) steady_ms: u64,
}

impl Restart {
    pub(crate) const WORDS: usize = 5;

    pub(crate) fn words(&self) -> [u64; Self::WORDS] {
        [self.after, self.most, self.first_ms, self.longest_ms, self.steady_ms]
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| u64_at(bytes, at).unwrap_or(0);
        (bytes.len() >= Self::WORDS * 8).then(|| Self {
            after: word(0),
            most: word(1),
            first_ms: word(2),
            longest_ms: word(3),
            steady_ms: word(4),
        })
    }

    /// Whether a run that ended so is followed by another.
    pub(crate) fn wants(&self, failed: bool, restarts: u32) -> bool {
        match self.after {
            0 => false,
            1 => failed && u64::from(restarts) < self.most,
            _ => u64::from(restarts) < self.most,
        }
    }
}

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) op: u32,
    pub(crate) req: u32,
    pub(crate) arg: u32,
}

impl Head {
    pub(crate) fn encode(&self) -> [u8; HEAD] {
        let mut out = [0u8; HEAD];
        put_words(&mut out, &[MAGIC, self.op & 0xffff | VERSION << 16, self.req, self.arg]);
        out
    }

    /// `None` for what is no message of this protocol, in whatever version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if u32_at(bytes, 0)? != MAGIC {
            return None;
        }
        Some(Self {
            op: u32_at(bytes, 4)? & 0xffff,
            req: u32_at(bytes, 8)?,
            arg: u32_at(bytes, 12)?,
        })
    }
}

/// The `index`-th word of 64 bits.
pub(crate) fn u64_at(bytes: &[u8], index: usize) -> Option<u64> {
    let at = index.checked_mul(8)?;
    let part = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(*part.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_come_back(op in 0u32..65_536, req: u32, arg: u32, tail: Vec<u8>) {
            let head = Head { op, req, arg };
            let mut bytes = head.encode().to_vec();
            prop_assert_eq!(Head::decode(&bytes[..HEAD - 1]), None);
            bytes.extend(tail);
            prop_assert_eq!(Head::decode(&bytes), Some(head));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Head::decode(&bytes);
            prop_assert_eq!(Restart::decode(&bytes).is_some(), bytes.len() >= 40);
        }
    }

    #[test]
    fn which_ends_a_shim_starts_again_after() {
        let policy = |after, most| Restart {
            after,
            most,
            first_ms: 100,
            longest_ms: 1,
            steady_ms: 1,
        };
        for (policy, failed, restarts, expected) in [
            (policy(0, u64::MAX), true, 0, false),
            (policy(1, u64::MAX), true, 1000, true),
            (policy(1, u64::MAX), false, 0, false),
            (policy(1, 3), true, 2, true),
            (policy(1, 3), true, 3, false),
            (policy(2, u64::MAX), false, 1000, true),
        ] {
            assert_eq!(
                policy.wants(failed, restarts),
                expected,
                "{policy:?} {failed} {restarts}"
            );
        }
    }
}
