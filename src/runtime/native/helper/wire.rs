//! The protocol between the library and its helper: message header, plan sections, step records. `core` only; it compiles
//! into both, so the two cannot disagree. All integers are in the host's byte order: both ends are the same machine.
//!
//! A plan is a blob that starts with a table of sections (offset and length each). Lists hold strings as a `u32` length,
//! the bytes and a NUL, so that the helper passes them to the kernel in place. Every bound is checked here although the
//! peer is trusted.

/// First word of every message.
pub(crate) const MAGIC: u32 = 0x3153_4c48;
/// Raised with every change of this file that the other side must know.
pub(crate) const VERSION: u16 = 2;
/// Bytes of a header.
pub(crate) const HEADER: usize = 32;
/// Largest blob that travels inside a message; larger ones come in a sealed memfd, the last descriptor.
pub(crate) const INLINE: usize = 32 * 1024;
/// Largest blob at all.
pub(crate) const LARGEST: usize = 8 * 1024 * 1024;
/// Most descriptors in one message (`SCM_MAX_FD` is 253).
pub(crate) const MOST_FDS: usize = 64;
/// Most mounts in one plan.
pub(crate) const MOST_MOUNTS: usize = 512;

/// What the process that looks at files is asked, with the descriptor that it is about: two words and a text that ends with
/// NUL. It answers with an errno, and the value or a descriptor.
pub(crate) mod look {
    /// Bytes before the text.
    pub(crate) const HEAD: usize = 8;
    /// Open a path beneath the directory; the second word are the flags.
    pub(crate) const OPEN: u32 = 1;
    /// The value of an extended attribute.
    pub(crate) const ATTRIBUTE: u32 = 2;
}

/// What the process that holds the engine's network is asked: four words and a text. A descriptor that comes along is a
/// network namespace, and stands in the place of its own. It answers with an errno, and a descriptor where one was asked for.
pub(crate) mod house {
    /// Bytes before the text.
    pub(crate) const HEAD: usize = 16;
    /// Its own network namespace.
    pub(crate) const HOME: u32 = 1;
    /// A new network namespace with its loopback interface up.
    pub(crate) const MAKE: u32 = 2;
    /// A socket made in the namespace: domain, type and protocol are the other words.
    pub(crate) const SOCKET: u32 = 3;
    /// Write a file below `/proc/sys/net` as the namespace has it: its path and the value, each with a NUL.
    pub(crate) const SYSCTL: u32 = 4;
}

/// Requests and events.
pub(crate) mod op {
    /// First message: the id map is written (flag [`super::FLAG_USERNS`] if there is a user namespace). Reply: READY.
    pub(crate) const HELLO: u16 = 1;
    /// Start a container. Reply: STARTED with the pidfd, or FAILED. Later, after STARTED: EXITED.
    pub(crate) const START: u16 = 2;
    /// Forget an ended container: its clean-up is the caller's again. `req` is the START's.
    pub(crate) const FORGET: u16 = 3;
    /// Keep a list of things to delete if the owner dies, under `req`.
    pub(crate) const SCRATCH: u16 = 4;
    /// Apply owners, modes and attributes to descriptors.
    pub(crate) const CHOWN: u16 = 5;
    /// Remove trees.
    pub(crate) const REMOVE: u16 = 6;
    /// Carry out a description of a mount. Reply: DONE with the detached mount.
    pub(crate) const MOUNT: u16 = 7;
    /// Kill the first process of a container, or a command in one, whose descriptor did not arrive. `req` is that of its
    /// request. Reply: DONE, also if there is none.
    pub(crate) const KILL: u16 = 8;
    /// Send a signal (a word) to every process but the first of the container whose pidfd comes along.
    pub(crate) const SIGNAL: u16 = 16;
    /// Run a command in a running container. Reply: STARTED with the pidfd (none if it has ended already), or FAILED.
    /// Later, after STARTED: EXITED.
    pub(crate) const EXEC: u16 = 9;
    /// Look at files for the owner, over the socket that comes along: see [`super::look`]. Reply: DONE once it is there.
    pub(crate) const LOOK: u16 = 17;
    /// Hold a network for the owner, over the socket that comes along: see [`super::house`]. Reply: DONE once it is there.
    pub(crate) const HOUSE: u16 = 18;
    /// To a shim, after HELLO and before START: the words of `config` in `talk.rs`. Reply: DONE.
    pub(crate) const SHIM: u16 = 19;
    /// To a shim whose container's start has come to a good end: it lives on without its starter. No reply.
    pub(crate) const KEPT: u16 = 20;
    /// Take a child over that a program of [`super::flag::TOOL`] has made: its pid as the zygote knows it, and what to clean up
    /// as of a container. Reply: STARTED with the pidfd (none if it has ended already), or FAILED. Later, after STARTED: EXITED.
    pub(crate) const ADOPT: u16 = 21;
    /// Let a container outlive the owner: the body is the number of its START, two words. The socket that comes along leads to
    /// whoever looks after it from then on, and is sent two messages of a word each: that this is so ([`super::KEPT`]), and the
    /// wait status in the end. EXITED does not come, and nothing of its clean-up list is touched. Reply: DONE, or FAILED, and then
    /// nothing has changed.
    pub(crate) const KEEP: u16 = 22;
    /// To a zygote of [`super::FLAG_APART`]: fork a warden, which takes START and EXEC of one container over the socket that
    /// comes along, in the root directory behind it. A word, the version of Landlock to use, or 0, and what to clean up as of a
    /// container. Reply: STARTED with the warden's pidfd, or FAILED. Later, after STARTED: EXITED.
    pub(crate) const APART: u16 = 23;
    /// A container was cloned.
    pub(crate) const STARTED: u16 = 64;
    /// A request was done.
    pub(crate) const DONE: u16 = 65;
    /// A request failed; `arg` is the errno, the first word of the blob the step.
    pub(crate) const FAILED: u16 = 66;
    /// A container's first process, or a command in one, ended; `arg` is the wait status.
    pub(crate) const EXITED: u16 = 67;
}

/// The word that a container outlives its owner.
pub(crate) const KEPT: u32 = 0x7470_656b;

/// The blob is in the last descriptor.
pub(crate) const FLAG_MEMFD: u32 = 1;
/// The helper lives in a user namespace of its own.
pub(crate) const FLAG_USERNS: u32 = 2;
/// Flag of HELLO: devices cannot be made, only bound from the host.
pub(crate) const FLAG_BIND_DEVICES: u32 = 4;

/// Flag of HELLO: this is a shim, whose one container may outlive whoever starts it.
pub(crate) const FLAG_SHIM: u32 = 8;
/// Flag of HELLO: there are no namespaces. Containers are started by wardens.
pub(crate) const FLAG_APART: u32 = 32;

/// Flag of HELLO to a shim: the user namespace that comes along is the one to live in. It is mapped already. Another HELLO
/// follows, without this flag, and only that is answered, unless the namespace cannot be entered.
pub(crate) const FLAG_JOIN_USERNS: u32 = 16;

/// A message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) op: u16,
    pub(crate) req: u64,
    pub(crate) len: u32,
    pub(crate) arg: i32,
    pub(crate) flags: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0u8; HEADER];
        let [low, high] = halves(self.req);
        let kind = if cfg!(target_endian = "little") {
            u32::from(VERSION) | u32::from(self.op) << 16
        } else {
            u32::from(VERSION) << 16 | u32::from(self.op)
        };
        put_words(
            &mut out,
            &[MAGIC, kind, low, high, self.len, self.arg as u32, self.flags],
        );
        out
    }

    /// `None` for anything that is not a message of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER || u32_at(bytes, 0)? != MAGIC || u16_at(bytes, 4)? != VERSION {
            return None;
        }
        let low = u64::from(u32_at(bytes, 8)?);
        let high = u64::from(u32_at(bytes, 12)?);
        let req = if cfg!(target_endian = "little") {
            low | high << 32
        } else {
            high | low << 32
        };
        Some(Self {
            op: u16_at(bytes, 6)?,
            req,
            len: u32_at(bytes, 16)?,
            arg: u32_at(bytes, 20)? as i32,
            flags: u32_at(bytes, 24)?,
        })
    }
}

/// The two words of a longer one, in the order in which they lie in memory.
fn halves(long: u64) -> [u32; 2] {
    let halves = [long as u32, (long >> 32) as u32];
    if cfg!(target_endian = "little") {
        halves
    } else {
        [halves[1], halves[0]]
    }
}

/// Writes words one after the other, as far as there is room.
#[inline(never)]
pub(crate) fn put_words(out: &mut [u8], words: &[u32]) {
    for (slot, word) in out.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let part = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes([*part.first()?, *part.get(1)?]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([
        *part.first()?,
        *part.get(1)?,
        *part.get(2)?,
        *part.get(3)?,
    ]))
}

/// Sections of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Section {
    /// Words, see [`field`].
    Fixed = 0,
    /// Program and arguments.
    Argv,
    /// Environment.
    Env,
    /// Working directory, host name, domain name, user as written.
    Texts,
    /// Groups to add, as written.
    Groups,
    /// Group ids to add, as words.
    Gids,
    /// Mount records; the first is the root.
    Mounts,
    /// Paths to hide.
    Masked,
    /// Paths to make read-only.
    Readonly,
    /// Devices: six words each (type, major, minor, mode, and uid and gid as the zygote knows them), and a list of paths in `DevicePaths`.
    Devices,
    /// Paths of the devices.
    DevicePaths,
    /// Limits: five words each (resource, soft low and high, hard low and high).
    Rlimits,
    /// Sysctls: path below `/proc/sys`, value, and so on in turn.
    Sysctls,
    /// An array of `struct sock_filter`.
    Seccomp,
    /// What to delete if the owner dies: `c` and a cgroup directory, or `s` and a scratch directory. Of a shim's container: what
    /// to delete when it has ended, `c` as before, and `p` and a directory that is removed only if nothing is in it.
    Cleanup,
    /// Of a container with a user namespace of its own: the texts of its `uid_map` and `gid_map`.
    IdMaps,
    /// Where one id is mapped: the filter of a program that runs as root, in the place of [`Self::Seccomp`].
    Squash,
}

/// How many sections there are.
pub(crate) const SECTIONS: usize = 17;

/// Positions in [`Section::Fixed`].
pub(crate) mod field {
    pub(crate) const FLAGS: usize = 0;
    /// To make; of a command in a running container, to join.
    pub(crate) const NAMESPACES: usize = 1;
    pub(crate) const FD_STATUS: usize = 2;
    pub(crate) const FD_STDIN: usize = 3;
    pub(crate) const FD_STDOUT: usize = 4;
    pub(crate) const FD_STDERR: usize = 5;
    pub(crate) const FD_CGROUP: usize = 6;
    pub(crate) const FD_V1_FIRST: usize = 7;
    pub(crate) const V1_COUNT: usize = 8;
    pub(crate) const UID: usize = 9;
    pub(crate) const GID: usize = 10;
    pub(crate) const UMASK: usize = 11;
    pub(crate) const OOM_SCORE_ADJ: usize = 12;
    pub(crate) const ROWS: usize = 13;
    pub(crate) const COLUMNS: usize = 14;
    /// Five sets of two words (low, high): bounding, permitted, effective, inheritable, ambient.
    pub(crate) const CAPS: usize = 15;
    /// The container's root as the zygote knows it, where the container has a user namespace of its own.
    pub(crate) const ROOT_UID: usize = 25;
    pub(crate) const ROOT_GID: usize = 26;
    /// Of a command in a running container: the pidfd of the container's first process. Of a container that a shim is to take
    /// over: the pidfd of its first process, which runs.
    pub(crate) const FD_TARGET: usize = 27;
    /// Namespaces of other containers to join: of processes, of System V IPC, the network, and the mounts whose `/dev/shm` is
    /// shown.
    pub(crate) const FD_JOIN_PID: usize = 28;
    pub(crate) const FD_JOIN_IPC: usize = 29;
    pub(crate) const FD_JOIN_NET: usize = 30;
    pub(crate) const FD_JOIN_SHM: usize = 31;
    pub(crate) const COUNT: usize = 32;
}

/// Positions of descriptors in the plan of a probe, which a shim fills in: that of the records, stdin, where it prints, the pidfd
/// of the container's first process, and the container's cgroups.
pub(crate) mod probe {
    pub(crate) const FD_STATUS: u32 = 0;
    pub(crate) const FD_STDIN: u32 = 1;
    pub(crate) const FD_OUTPUT: u32 = 2;
    pub(crate) const FD_TARGET: u32 = 3;
    pub(crate) const FD_CGROUP: u32 = 4;
    pub(crate) const FD_V1_FIRST: u32 = 5;
}

/// Bits of [`field::FLAGS`].
pub(crate) mod flag {
    pub(crate) const TERMINAL: u32 = 1;
    pub(crate) const INIT: u32 = 1 << 1;
    pub(crate) const NO_NEW_PRIVILEGES: u32 = 1 << 2;
    pub(crate) const READ_ONLY_ROOT: u32 = 1 << 3;
    /// Look the user up by the text instead of taking the ids.
    pub(crate) const USER_TEXT: u32 = 1 << 4;
    pub(crate) const HAS_OOM_SCORE_ADJ: u32 = 1 << 5;
    /// Device nodes cannot be made; bind the host's.
    pub(crate) const BIND_DEVICES: u32 = 1 << 6;
    /// One id is mapped: `setgroups` is forbidden.
    pub(crate) const SINGLE_ID: u32 = 1 << 7;
    pub(crate) const HAS_CAPS: u32 = 1 << 8;
    /// `/dev` is a tmpfs of the plan: fill it.
    pub(crate) const FILL_DEV: u32 = 1 << 9;
    /// The filter has a listener, which goes to the owner.
    pub(crate) const LISTENER: u32 = 1 << 14;
    /// The cgroup namespace is the zygote's.
    pub(crate) const HOST_CGROUP: u32 = 1 << 10;
    /// All capabilities are wanted, that is those that the helper has.
    pub(crate) const ALL_CAPS: u32 = 1 << 13;
    /// The container has a user namespace of its own.
    pub(crate) const OWN_USERNS: u32 = 1 << 11;
    /// Nothing is run: the first process waits to be killed.
    pub(crate) const HOLD: u32 = 1 << 15;
    /// No container, but a program of the host's beside it, with what a container is made of within reach: see `tool.rs`.
    pub(crate) const TOOL: u32 = 1 << 16;
    /// Hooks run before the program: the first process says that it is set up, and waits for a byte.
    pub(crate) const HOOKS: u32 = 1 << 17;
    /// The host's `/proc` is partly hidden, so that none can be made: it is bound instead.
    pub(crate) const BIND_PROC: u32 = 1 << 18;
    /// Its ids are not the zygote's: mounts that ask for it are id-mapped.
    pub(crate) const ID_MAPPED: u32 = 1 << 12;
    /// A command whose processes can be told from all others of the container's, wherever they go: it has a UTS namespace of its
    /// own, which goes to whoever asked for the command.
    pub(crate) const MARKED: u32 = 1 << 19;
    /// Of a [`TOOL`]: the streams that come along are its own, and it gets nothing else.
    pub(crate) const STREAMS: u32 = 1 << 20;
    /// Of a [`TOOL`]: it sees no cgroups.
    pub(crate) const NO_CGROUPS: u32 = 1 << 21;
    /// Started by a warden: in no namespace, and nothing is mounted. The terminal comes along in the place of stdin.
    pub(crate) const APART: u32 = 1 << 22;
    /// All of these.
    pub(crate) const ALL: u32 = (1 << 23) - 1;
}

/// What [`field::NAMESPACES`] may say: flags of clone(2) that are about namespaces, and no other.
const NAMESPACES: u32 = 0x7e02_0000;

/// Numbers of the descriptors of a program of [`flag::TOOL`]: the standard streams of the container, one after the other,
/// and the network namespace behind them.
pub(crate) const TOOL_FDS: u32 = 1000;

/// Kinds of mount records.
pub(crate) mod mount {
    /// Strings: target, source.
    pub(crate) const BIND: u32 = 1;
    /// Strings: target, upper or empty, work or empty, lower directories from the top.
    pub(crate) const OVERLAY: u32 = 2;
    /// Strings: target, type, source, options as `key=value` or `flag`.
    pub(crate) const FILESYSTEM: u32 = 3;

    /// Strings: target, and one that is empty. The mount whose descriptor's position is in the flags, copied.
    pub(crate) const TREE: u32 = 5;

    /// Strings: target. `/dev/shm` of the container whose IPC is shared.
    pub(crate) const SHARED_MEMORY: u32 = 4;

    /// Overlay keeps its attributes in `user.*`.
    pub(crate) const USER_XATTR: u32 = 1;
    /// Overlay never waits for the disk.
    pub(crate) const VOLATILE: u32 = 2;
    /// Bind the mounts below, too.
    pub(crate) const RECURSIVE: u32 = 4;
    /// The target is a pseudo file system's place: no symbolic link in any component.
    pub(crate) const STRICT: u32 = 8;
    /// Of a bind: `nodev`, unless it is a single file.
    pub(crate) const NO_DEVICES: u32 = 16;
    /// Show the owners of files through the ids of the container's user namespace.
    pub(crate) const ID_MAP: u32 = 32;
    /// The last string is a path beneath the source: that part alone.
    pub(crate) const SUBPATH: u32 = 64;
    /// Read-only, but not what is mounted below.
    pub(crate) const READ_ONLY_TOP: u32 = 128;
    /// Mounts that are made later on the host are seen.
    pub(crate) const SLAVE: u32 = 256;
    /// Mounts that are made later are seen on both sides.
    pub(crate) const SHARED: u32 = 512;
    /// The propagation is not that of what is mounted below, which is private.
    pub(crate) const PROPAGATE_TOP: u32 = 1024;
    /// Of a bind or a tree: the third and fourth string are id maps to show owners through.
    pub(crate) const OWN_MAP: u32 = 2048;
    /// The mount itself that came along, not a copy.
    pub(crate) const GIVEN: u32 = 4096;
    /// All of these.
    pub(crate) const ALL: u32 = 8191;
    /// Where the position of a descriptor begins.
    pub(crate) const FD_SHIFT: u32 = 16;
}

/// No descriptor.
pub(crate) const NO_FD: u32 = u32::MAX;

/// A step of a start, for errors. The order is that of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Step {
    Plan = 1,
    Clone,
    Cgroup,
    CgroupNamespace,
    Loopback,
    Proc,
    RootMount,
    Mount,
    MountNamespace,
    AttachRoot,
    MountTarget,
    AttachMount,
    Devices,
    Device,
    Terminal,
    ReadonlyPath,
    MaskedPath,
    ReadonlyRoot,
    Pivot,
    Hostname,
    Sysctl,
    Rlimit,
    User,
    Group,
    WorkingDirectory,
    Stdio,
    Groups,
    Ids,
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    Session,
    Exec,
    Init,
    Join,
    ViewNamespace,
    SlimNamespace,
    Identity,
    Privileged,
    IdMaps,
    IdMappedMount,
    Outfit,
    Hooks,
    Restrict,
    Orphans,
    Ready = 1000,
}

/// All steps with the words for them.
pub(crate) const STEPS: &[(Step, &str)] = &[
    (Step::Plan, "read the plan"),
    (Step::Clone, "clone into new namespaces"),
    (Step::Cgroup, "join the cgroup"),
    (Step::CgroupNamespace, "make the cgroup namespace"),
    (Step::Loopback, "bring the loopback interface up"),
    (Step::Proc, "make a private proc"),
    (Step::RootMount, "make the root mount"),
    (Step::Mount, "make a mount"),
    (Step::MountNamespace, "make the mount namespace"),
    (Step::AttachRoot, "attach the root"),
    (Step::MountTarget, "find or make the target of a mount"),
    (Step::AttachMount, "attach a mount"),
    (Step::Devices, "fill /dev"),
    (Step::Device, "make a device"),
    (Step::Terminal, "set the terminal up"),
    (Step::ReadonlyPath, "make a path read-only"),
    (Step::MaskedPath, "mask a path"),
    (Step::ReadonlyRoot, "make the root read-only"),
    (Step::Pivot, "change the root"),
    (Step::Hostname, "set the host name"),
    (Step::Sysctl, "set a sysctl"),
    (Step::Rlimit, "set a resource limit"),
    (Step::User, "look the user up"),
    (Step::Group, "look a group up"),
    (Step::WorkingDirectory, "enter the working directory"),
    (Step::Stdio, "set the standard streams up"),
    (Step::Groups, "set the supplementary groups"),
    (Step::Ids, "change to the user"),
    (Step::Capabilities, "set the capabilities"),
    (Step::NoNewPrivileges, "forbid new privileges"),
    (Step::Seccomp, "load the seccomp filter"),
    (Step::Session, "make the session"),
    (Step::Exec, "execute the program"),
    (Step::Init, "start the program under init"),
    (Step::Join, "join the container's namespaces"),
    (Step::ViewNamespace, "open the host's mount namespace"),
    (Step::SlimNamespace, "make the empty mount namespace"),
    (Step::Identity, "become root of the user namespace"),
    (Step::Privileged, "change files"),
    (Step::IdMaps, "write the id maps of the user namespace"),
    (Step::IdMappedMount, "make an id-mapped mount"),
    (Step::Outfit, "receive the container's mounts"),
    (Step::Hooks, "wait for the hooks"),
    (Step::Restrict, "restrict programs to the container's root"),
    (
        Step::Orphans,
        "see what children leave behind (the /proc of this pid namespace, of a kernel with CONFIG_PROC_CHILDREN)",
    ),
    (Step::Ready, "ready"),
];

/// Bytes of a step record, before its text.
pub(crate) const RECORD: usize = 24;
/// Longest text after a record.
pub(crate) const RECORD_TEXT: usize = 256;

/// What a starting container reports: READY, or the step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) step: u32,
    pub(crate) index: u32,
    pub(crate) errno: i32,
    /// Depends on the step; see [`aux`].
    pub(crate) aux: u32,
}

/// Values of [`Record::aux`].
pub(crate) mod aux {
    /// Exec: the text is the program that was tried, and it exists; its interpreter follows a NUL.
    pub(crate) const INTERPRETER_MISSING: u32 = 1;
    /// User or group: there is no such entry.
    pub(crate) const UNKNOWN: u32 = 2;
    /// User or group: the text, or the file, cannot be understood.
    pub(crate) const MALFORMED: u32 = 3;
    /// No failure: a limit was set to the host's own, which is in the text as eight bytes.
    pub(crate) const CLAMPED: u32 = 4;
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; RECORD] {
        let mut out = [0u8; RECORD];
        put_words(
            &mut out,
            &[MAGIC, self.step, self.index, self.errno as u32, self.aux, 0],
        );
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if u32_at(bytes, 0)? != MAGIC || bytes.len() < RECORD {
            return None;
        }
        Some(Self {
            step: u32_at(bytes, 4)?,
            index: u32_at(bytes, 8)?,
            errno: u32_at(bytes, 12)? as i32,
            aux: u32_at(bytes, 16)?,
        })
    }
}

/// A plan as the helper reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    blob: &'a [u8],
}

impl<'a> Plan<'a> {
    /// The plan of one who has none yet.
    pub(crate) const fn empty() -> Self {
        Self { blob: &[] }
    }

    /// Checks the table of sections and the lists in it. What a list means is checked in `check.rs`.
    pub(crate) fn decode(blob: &'a [u8]) -> Option<Self> {
        let plan = Self { blob };
        for index in 0..SECTIONS {
            plan.section_at(index)?;
        }
        if plan.words(Section::Fixed).len() < field::COUNT || plan.field(field::NAMESPACES) & !NAMESPACES != 0 {
            return None;
        }
        for list in [
            Section::Argv,
            Section::Env,
            Section::Texts,
            Section::Groups,
            Section::Masked,
            Section::Readonly,
            Section::DevicePaths,
            Section::Sysctls,
            Section::Cleanup,
            Section::IdMaps,
        ] {
            if !Strings(plan.section(list)).well_formed() {
                return None;
            }
        }
        let mut mounts = plan.mounts();
        while mounts.next().is_some() {}
        mounts.0.is_empty().then_some(plan)
    }

    fn section_at(&self, index: usize) -> Option<&'a [u8]> {
        let offset = u32_at(self.blob, index.checked_mul(8)?)? as usize;
        let len = u32_at(self.blob, index.checked_mul(8)?.checked_add(4)?)? as usize;
        self.blob.get(offset..offset.checked_add(len)?)
    }

    pub(crate) fn section(&self, section: Section) -> &'a [u8] {
        self.section_at(section as usize).unwrap_or(&[])
    }

    pub(crate) fn words(&self, section: Section) -> Words<'a> {
        Words(self.section(section))
    }

    pub(crate) fn field(&self, index: usize) -> u32 {
        self.words(Section::Fixed).get(index).unwrap_or(0)
    }

    #[inline(never)]
    pub(crate) fn has(&self, bit: u32) -> bool {
        self.field(field::FLAGS) & bit != 0
    }

    /// The `index`-th of the five capability sets.
    pub(crate) fn caps(&self, index: usize) -> u64 {
        let low = self.field(field::CAPS + index * 2);
        let high = self.field(field::CAPS + index * 2 + 1);
        u64::from(low) | u64::from(high) << 32
    }

    pub(crate) fn strings(&self, section: Section) -> Strings<'a> {
        Strings(self.section(section))
    }

    /// The `index`-th of the single texts, with its NUL.
    pub(crate) fn text(&self, index: usize) -> &'a [u8] {
        self.strings(Section::Texts).nth(index).unwrap_or(b"\0")
    }

    pub(crate) fn mounts(&self) -> Mounts<'a> {
        Mounts(self.section(Section::Mounts))
    }
}

/// An array of words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a>(&'a [u8]);

impl Words<'_> {
    pub(crate) fn len(&self) -> usize {
        self.0.len() / 4
    }

    pub(crate) fn get(&self, index: usize) -> Option<u32> {
        u32_at(self.0, index.checked_mul(4)?)
    }
}

/// A list of strings; each item ends with its NUL and has no other.
#[derive(Debug, Clone)]
pub(crate) struct Strings<'a>(pub(crate) &'a [u8]);

impl Strings<'_> {
    pub(crate) fn well_formed(mut self) -> bool {
        while self.next().is_some() {}
        self.0.is_empty()
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let len = u32_at(self.0, 0)? as usize;
        let end = len.checked_add(5)?;
        let item = self.0.get(4..end)?;
        let nul = item.iter().position(|byte| *byte == 0)?;
        if nul != len {
            return None;
        }
        self.0 = self.0.get(end..)?;
        Some(item)
    }
}

/// One mount record.
#[derive(Debug, Clone)]
pub(crate) struct MountRecord<'a> {
    pub(crate) kind: u32,
    pub(crate) attributes: u32,
    pub(crate) flags: u32,
    pub(crate) strings: Strings<'a>,
}

/// The mount records.
#[derive(Debug, Clone)]
pub(crate) struct Mounts<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Mounts<'a> {
    type Item = MountRecord<'a>;

    fn next(&mut self) -> Option<MountRecord<'a>> {
        let len = u32_at(self.0, 12)? as usize;
        let end = len.checked_add(16)?;
        let strings = Strings(self.0.get(16..end)?);
        if !strings.clone().well_formed() {
            return None;
        }
        let record = MountRecord {
            kind: u32_at(self.0, 0)?,
            attributes: u32_at(self.0, 4)?,
            flags: u32_at(self.0, 8)?,
            strings,
        };
        self.0 = self.0.get(end..)?;
        Some(record)
    }
}
