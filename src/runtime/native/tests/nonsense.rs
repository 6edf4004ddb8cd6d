//! What is no request, and what is no plan: the helper refuses it, says so, and does no part of it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::{LinuxDeviceBuilder, LinuxDeviceType, PosixRlimitBuilder, PosixRlimitType};
use proptest::prelude::*;

use super::*;
use crate::runtime::native;
use crate::runtime::native::helper::check;
use crate::runtime::native::helper::wire::{
    FLAG_MEMFD, HEADER, Header, LARGEST, NO_FD, Plan, RECORD, RECORD_TEXT, Record, SECTIONS, Section, Step, field,
    flag, mount, op, u32_at,
};
use crate::runtime::native::idmap::IdMapping;
use crate::runtime::native::plan::{self, Host};
use crate::runtime::native::start::{Ends, plan_of};
use crate::runtime::native::zygote::{Spawned, ZygoteOptions, spawn};
use crate::sys::{memfd, pidfd, socket};

/// Longer than the helper ever needs.
const PATIENCE: u16 = 30_000;

/// A zygote, to be talked to byte by byte.
struct Helper {
    spawned: Spawned,
    next: Cell<u64>,
}

/// What it said.
struct Reply {
    header: Header,
    fds: Vec<OwnedFd>,
}

/// What became of a start.
struct Outcome {
    /// The errno of a refusal, of the zygote's or of the first process.
    errno: Option<i32>,
    /// Whether the program was executed, as the helper says.
    ran: bool,
    /// Whether it was, as what it does says.
    marked: bool,
}

impl Helper {
    fn new() -> Self {
        let admin = native::has_admin();
        let spawned = spawn(&ZygoteOptions {
            lock: None,
            userns: !admin,
            join_userns: None,
            bind_devices: !admin,
            clean_up: &[],
            agent: None,
            shim: false,
            apart: false,
            program: None,
            reactor: None,
        });
        Self {
            spawned: spawned.unwrap(),
            next: Cell::new(1000),
        }
    }

    fn host(&self) -> Host {
        Host {
            bind_devices: !native::has_admin(),
            single_id: self.spawned.mapping == IdMapping::Single,
            ..Host::default()
        }
    }

    fn fresh(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    fn send(&self, header: &Header, body: &[u8], fds: &[BorrowedFd<'_>]) {
        socket::send(self.spawned.control.as_fd(), [&header.encode(), body], fds).unwrap();
    }

    /// The next message; `None` at the end of the conversation.
    fn hear(&self) -> Option<Reply> {
        let mut buffer = [0u8; HEADER + 16];
        let (len, fds) = message(self.spawned.control.as_fd(), &mut buffer)?;
        let header = Header::decode(&buffer[..len]).unwrap();
        Some(Reply { header, fds })
    }

    /// The next message about a request.
    fn answer(&self, req: u64) -> Reply {
        loop {
            let reply = self.hear().expect("it has hung up");
            if reply.header.req == req {
                return reply;
            }
        }
    }

    /// Asks, and says with what errno that was refused.
    fn refusal(&self, op: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Option<i32> {
        let req = self.fresh();
        self.send(&header(op, req, body.len()), body, fds);
        errno_of(&self.answer(req).header)
    }

    /// It answers still.
    fn is_sane(&self) {
        assert_eq!(self.refusal(u16::MAX, b"", &[]), Some(libc::ENOSYS));
    }

    fn start(&self, op: u16, made: &Made, blob: &[u8]) -> Outcome {
        let ends = Ends::new(StdioPlan::default()).unwrap();
        let req = self.fresh();
        {
            let (_, fds) = ends.positions(std::iter::empty(), None);
            self.send(&header(op, req, blob.len()), blob, &fds);
        }
        let (status, _stdio) = ends.split();
        let reply = self.answer(req);
        let mut outcome = Outcome {
            errno: errno_of(&reply.header),
            ran: false,
            marked: false,
        };
        for record in records(&status) {
            outcome.ran |= record.step == Step::Ready as u32;
            if record.errno != 0 {
                outcome.errno = Some(record.errno);
            }
        }
        if reply.header.op == op::STARTED {
            assert_eq!(self.answer(req).header.op, op::EXITED);
            self.send(&header(op::FORGET, req, 0), b"", &[]);
        }
        outcome.marked = made.marker.exists();
        let _ = fs::remove_file(&made.marker);
        outcome
    }

    /// A start that must come to a good end.
    fn works(&self, made: &Made) {
        let good = self.start(op::START, made, &made.blob);
        assert_eq!((good.errno, good.ran, good.marked), (None, true, true));
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        socket::finish(self.spawned.control.as_fd());
        let _ = pidfd::reap(self.spawned.child.pidfd.as_fd());
    }
}

fn header(op: u16, req: u64, len: usize) -> Header {
    Header {
        op,
        req,
        len: len as u32,
        arg: 0,
        flags: 0,
    }
}

fn errno_of(header: &Header) -> Option<i32> {
    (header.op == op::FAILED).then_some(header.arg)
}

/// One message; `None` once nobody can send any more.
fn message(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Option<(usize, Vec<OwnedFd>)> {
    let mut wanted = [PollFd::new(socket, PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut wanted, PollTimeout::from(PATIENCE)).unwrap(),
        1,
        "it is silent"
    );
    match socket::receive(socket, buffer) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        received => received
            .ok()
            .filter(|received| received.len > 0)
            .map(|it| (it.len, it.fds)),
    }
}

/// All that a first process says until it has executed its program, or ended.
fn records(status: &OwnedFd) -> Vec<Record> {
    let mut all = Vec::new();
    let mut buffer = [0u8; RECORD + RECORD_TEXT];
    while let Some((len, _)) = message(status.as_fd(), &mut buffer) {
        all.extend(Record::decode(&buffer[..len]));
    }
    all
}

/// A plan that is one, with something in nearly every section, whose program leaves a mark.
struct Made {
    _root: tempfile::TempDir,
    marker: PathBuf,
    blob: Vec<u8>,
}

impl Made {
    fn new(host: Host) -> Self {
        let root = root();
        let mut launch = launch(root.path(), &["sh", "-c", "echo ran > /ran"]);
        let process = launch.spec.process_mut().as_mut().unwrap();
        let limit = PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .soft(100u64)
            .hard(200u64)
            .build();
        process.set_rlimits(Some(vec![limit.unwrap()]));
        if !host.single_id {
            let mut user = process.user().clone();
            user.set_additional_gids(Some(vec![10]));
            process.set_user(user);
        }
        let linux = launch.spec.linux_mut().as_mut().unwrap();
        let device = LinuxDeviceBuilder::default()
            .path("/dev/other")
            .typ(LinuxDeviceType::C)
            .major(1)
            .minor(3)
            .build();
        linux.set_devices((!host.bind_devices).then(|| vec![device.unwrap()]));
        linux.set_sysctl(Some([("net.ipv4.ip_default_ttl".to_owned(), "61".to_owned())].into()));
        let caps = crate::runtime::caps::CapabilitySet::docker();
        linux.set_seccomp(Some(native::seccomp::default_profile(&caps)));
        let plan = plan_of(&launch, host, None, false).unwrap();
        let ends = Ends::new(StdioPlan::default()).unwrap();
        let positions = ends.positions(std::iter::empty(), None).0;
        Self {
            marker: root.path().join("ran"),
            _root: root,
            blob: plan.encode(positions),
        }
    }

    /// The same plan with a word changed.
    fn with(&self, at: usize, word: u32) -> Vec<u8> {
        let mut blob = self.blob.clone();
        blob[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        blob
    }

    fn word(&self, at: usize) -> u32 {
        u32_at(&self.blob, at).unwrap()
    }

    /// Where a section is, and how long.
    fn place(&self, section: Section) -> (usize, usize) {
        let at = section as usize * 8;
        (self.word(at) as usize, self.word(at + 4) as usize)
    }

    /// The same plan with a section of another length.
    fn cut(&self, section: Section, len: usize) -> Vec<u8> {
        self.with(section as usize * 8 + 4, len as u32)
    }

    fn field(&self, index: usize) -> usize {
        self.place(Section::Fixed).0 + index * 4
    }

    /// The bytes of mounts' records that are their strings.
    fn strings_of_mounts(&self) -> Vec<usize> {
        let (start, len) = self.place(Section::Mounts);
        let (mut at, mut all) = (start, Vec::new());
        while at < start + len {
            let bytes = self.word(at + 12) as usize;
            all.extend(at + 16..at + 16 + bytes);
            at += 16 + bytes;
        }
        all
    }

    /// The bytes of a list without its last item.
    fn without_last(&self, section: Section) -> usize {
        let (start, len) = self.place(section);
        let mut at = 0;
        loop {
            let next = at + self.word(start + at) as usize + 5;
            if next >= len {
                return at;
            }
            at = next;
        }
    }
}

/// A list as the protocol has it.
fn list(items: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        plan::push_string(&mut out, item).unwrap();
    }
    out
}

/// Plans that are none, each in one way.
fn tampered(made: &Made) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |what: String, blob: Vec<u8>| all.push((what, blob));
    for section in 0..SECTIONS {
        add(
            format!("section {section} is elsewhere"),
            made.with(section * 8, u32::MAX),
        );
        add(
            format!("section {section} is endless"),
            made.with(section * 8 + 4, u32::MAX),
        );
    }
    for section in [
        Section::Argv,
        Section::Env,
        Section::Texts,
        Section::Masked,
        Section::Readonly,
        Section::Sysctls,
    ] {
        let (start, len) = made.place(section);
        let first = made.word(start);
        add(format!("{section:?}: cut"), made.cut(section, len - 1));
        add(format!("{section:?}: an item too long"), made.with(start, first + 1));
        add(format!("{section:?}: an item too short"), made.with(start, first - 1));
        let mut with_nul = made.blob.clone();
        with_nul[start + 4] = 0;
        add(format!("{section:?}: a NUL within"), with_nul);
    }
    for section in [Section::Rlimits, Section::Seccomp, Section::Gids, Section::Devices] {
        let (_, len) = made.place(section);
        for less in [1, 4] {
            // A group less is a plan.
            if len > 0 && !(section == Section::Gids && less == 4) {
                add(format!("{section:?}: {less} bytes less"), made.cut(section, len - less));
            }
        }
    }
    for section in [Section::Texts, Section::Sysctls, Section::DevicePaths] {
        if made.place(section).1 > 0 {
            let len = made.without_last(section);
            add(format!("{section:?}: one less"), made.cut(section, len));
        }
    }
    add("no program".into(), made.cut(Section::Argv, 0));
    let mut mapped = made.with(Section::IdMaps as usize * 8, made.place(Section::Argv).0 as u32);
    let at = Section::IdMaps as usize * 8 + 4;
    mapped[at..at + 4].copy_from_slice(&(made.place(Section::Argv).1 as u32).to_ne_bytes());
    add("maps of no namespace".into(), mapped);
    tamper_with_words(made, &mut add);
    tamper_with_mounts(made, &mut add);
    all
}

fn tamper_with_words(made: &Made, add: &mut impl FnMut(String, Vec<u8>)) {
    const CLONE_VM: u32 = 0x100;
    const CLONE_PARENT: u32 = 0x8000;
    let flags = made.field(field::FLAGS);
    add(
        "a flag that there is not".into(),
        made.with(flags, made.word(flags) | 1 << 30),
    );
    add(
        "ids, and no maps".into(),
        made.with(flags, made.word(flags) | flag::OWN_USERNS),
    );
    add(
        "a container that is a tool".into(),
        made.with(flags, made.word(flags) | flag::TOOL),
    );
    let namespaces = made.field(field::NAMESPACES);
    for bit in [CLONE_VM, CLONE_PARENT] {
        let blob = made.with(namespaces, made.word(namespaces) | bit);
        add(format!("no namespace: {bit:x}"), blob);
    }
    for index in [
        field::FD_STATUS,
        field::FD_STDIN,
        field::FD_STDOUT,
        field::FD_STDERR,
        field::FD_CGROUP,
        field::FD_JOIN_PID,
        field::FD_JOIN_IPC,
        field::FD_JOIN_NET,
        field::FD_JOIN_SHM,
    ] {
        add(
            format!("the descriptor of word {index} is not there"),
            made.with(made.field(index), 60),
        );
        add(
            format!("that of word {index} is none"),
            made.with(made.field(index), 1 << 31),
        );
    }
    add("nobody to tell".into(), made.with(made.field(field::FD_STATUS), NO_FD));
    for count in [1, 61, u32::MAX] {
        let mut blob = made.with(made.field(field::V1_COUNT), count);
        let first = made.field(field::FD_V1_FIRST);
        blob[first..first + 4].copy_from_slice(&(u32::MAX - 3).to_ne_bytes());
        add(format!("{count} cgroups that are not there"), blob);
    }
}

fn tamper_with_mounts(made: &Made, add: &mut impl FnMut(String, Vec<u8>)) {
    let (start, len) = made.place(Section::Mounts);
    // The first is the root, a bind: kind, attributes, flags, bytes of its strings.
    let (flags, bytes) = (made.word(start + 8), made.word(start + 12));
    for kind in [0, 6, 99, mount::OVERLAY, mount::FILESYSTEM, mount::SHARED_MEMORY] {
        add(format!("a root of kind {kind}"), made.with(start, kind));
    }
    for bit in [mount::OWN_MAP, mount::SUBPATH, 1 << 13, 1 << 15, 1 << mount::FD_SHIFT] {
        add(format!("a root with {bit:x}"), made.with(start + 8, flags | bit));
    }
    let mut tree = made.with(start, mount::TREE);
    tree[start + 8..start + 12].copy_from_slice(&(60u32 << mount::FD_SHIFT).to_ne_bytes());
    add("a tree that did not come along".into(), tree);
    for wrong in [bytes - 1, bytes + 1, u32::MAX, 0] {
        add(format!("a root of {wrong} bytes"), made.with(start + 12, wrong));
    }
    add("a mount that is cut".into(), made.cut(Section::Mounts, len - 1));
}

#[test]
fn a_plan_that_is_none_is_refused_and_no_part_of_it_is_run() {
    let helper = Helper::new();
    let made = Made::new(helper.host());
    helper.works(&made);
    for (what, blob) in tampered(&made) {
        let outcome = helper.start(op::START, &made, &blob);
        assert!(!outcome.ran && !outcome.marked, "{what}");
        // Where there is nobody to tell, the process ends all the same.
        assert!(
            [Some(libc::EBADMSG), None].contains(&outcome.errno),
            "{what}: {:?}",
            outcome.errno
        );
        // As a command of no container it is none, either.
        let outcome = helper.start(op::EXEC, &made, &blob);
        assert!(!outcome.ran && !outcome.marked, "{what}");
    }
    let outcome = helper.start(op::EXEC, &made, &made.blob);
    assert!(!outcome.ran && !outcome.marked);
    helper.works(&made);
    helper.is_sane();
}

/// The same by the code alone, so that none of them passes for a reason that is not there.
#[test]
fn a_plan_that_is_none_is_told_by_its_bytes() {
    let is_plan = |blob: &[u8]| Plan::decode(blob).is_some_and(|plan| check::is_whole(&plan, &|position| position < 4));
    let made = Made::new(Host::default());
    assert!(is_plan(&made.blob));
    for (what, blob) in tampered(&made) {
        assert!(!is_plan(&blob), "{what}");
    }
}

/// Bytes that turn into others anywhere in the texts of a plan, or in where they are: what comes of it is a start as any other, or
/// none; never a program without READY, nor a helper that is confused.
#[test]
fn a_plan_with_other_bytes_is_refused_or_run_as_a_whole() {
    let helper = Helper::new();
    let made = Made::new(helper.host());
    // Not those that say which namespaces, devices, settings and propagation are meant: on this host they would be.
    let sections = [
        Section::Argv,
        Section::Env,
        Section::Texts,
        Section::Masked,
        Section::Readonly,
    ];
    let mut places = made.strings_of_mounts();
    for section in sections {
        let (start, len) = made.place(section);
        places.extend(start..start + len);
        places.extend(section as usize * 8..section as usize * 8 + 8);
    }
    let change = (proptest::sample::select(places), any::<u8>());
    runner(300)
        .run(&proptest::collection::vec(change, 1..4), |changes| {
            let mut blob = made.blob.clone();
            for (at, byte) in changes {
                blob[at] = byte;
            }
            let outcome = helper.start(op::START, &made, &blob);
            prop_assert!(outcome.ran || !outcome.marked);
            Ok(())
        })
        .unwrap();
    helper.is_sane();
}

fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

#[test]
fn a_request_that_is_none_is_refused() {
    let helper = Helper::new();
    // Neither what removes trees, nor lists of what is removed at the end.
    let ops = [
        op::HELLO,
        op::START,
        op::EXEC,
        op::FORGET,
        op::CHOWN,
        op::MOUNT,
        op::KILL,
        op::SIGNAL,
        op::LOOK,
        op::HOUSE,
        op::SHIM,
        op::KEPT,
        op::ADOPT,
        op::STARTED,
        op::EXITED,
    ];
    let op = prop_oneof![proptest::sample::select(ops.to_vec()), 22u16..];
    let bytes = proptest::collection::vec(any::<u8>(), 0..600);
    let lie = proptest::option::of(any::<u32>());
    runner(500)
        .run(
            &(op, 0u64..900, any::<u32>(), lie, bytes),
            |(op, req, flags, lie, body)| {
                let mut head = header(op, req, body.len());
                head.flags = flags;
                head.len = lie.unwrap_or(head.len);
                helper.send(&head, &body, &[]);
                helper.is_sane();
                Ok(())
            },
        )
        .unwrap();
    helper.works(&Made::new(helper.host()));
}

#[test]
fn lengths_and_files_that_are_not_so_are_refused() {
    let helper = Helper::new();
    let made = Made::new(helper.host());
    let refused = |len: usize, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]| {
        let mut head = header(op::START, helper.fresh(), len);
        head.flags = flags;
        helper.send(&head, body, fds);
        assert_eq!(
            errno_of(&helper.answer(head.req).header),
            Some(libc::EBADMSG),
            "{len} {flags}"
        );
    };
    let len = made.blob.len();
    for wrong in [0, 1, len - 1, len + 1, usize::MAX] {
        refused(wrong, 0, &made.blob, &[]);
    }
    let file = memfd::sealed(c"plan", &made.blob).unwrap();
    refused(len, FLAG_MEMFD, b"", &[]);
    for wrong in [0, len + 1, LARGEST + 1, usize::MAX] {
        refused(wrong, FLAG_MEMFD, b"", &[file.as_fd()]);
    }
    assert!(!made.marker.exists());
    helper.works(&made);
}

#[test]
fn what_is_no_message_ends_the_conversation_and_runs_nothing() {
    let made = Made::new(Helper::new().host());
    let good = header(op::START, 7, made.blob.len()).encode();
    let mut older = good;
    older[4] ^= 1;
    let mut other = good;
    other[0] ^= 1;
    let blob = made.blob.as_slice();
    for parts in [
        [&older[..], blob],
        [&other, blob],
        [&good[..HEADER - 1], b""],
        [b"x", b""],
    ] {
        let helper = Helper::new();
        socket::send(helper.spawned.control.as_fd(), parts, &[]).unwrap();
        assert!(helper.hear().is_none());
        assert!(!made.marker.exists());
    }
}

#[test]
fn a_list_that_is_cut_short_removes_and_changes_nothing() {
    let helper = Helper::new();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    let path = tree.to_str().unwrap().as_bytes();
    let good = list(&[path]);
    for rest in [&b"\x01\0\0\0"[..], b"x", b"\x02\0\0\0a\0\0"] {
        let cut = [&good[..], rest].concat();
        assert_eq!(helper.refusal(op::REMOVE, &cut, &[]), Some(libc::EBADMSG));
        assert!(tree.join("a/b").is_dir());
        let scratch = [&list(&[&[b"s", path].concat()])[..], rest].concat();
        assert_eq!(helper.refusal(op::SCRATCH, &scratch, &[]), Some(libc::EBADMSG));
        let adopted = [&7i32.to_ne_bytes()[..], &scratch].concat();
        assert!(helper.refusal(op::ADOPT, &adopted, &[]).is_some());
    }
    two_records_or_none(&helper, dir.path());
    // None of what was refused is done when the helper ends.
    drop(helper);
    assert!(tree.join("a/b").is_dir());
    let helper = Helper::new();
    assert_eq!(helper.refusal(op::REMOVE, &good, &[]), None);
    assert!(!tree.exists());
}

/// Owners and modes of several files, and one mount of several.
fn two_records_or_none(helper: &Helper, dir: &Path) {
    let files = ["one", "other"].map(|name| {
        let path = dir.join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::File::open(path).unwrap()
    });
    let mode = |file: &fs::File| file.metadata().unwrap().permissions().mode() & 0o777;
    let record = |attributes: u32, bytes: u32| -> Vec<u8> {
        let words = [0, 0, 0o644, attributes, bytes];
        words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
    };
    let fds = files.each_ref().map(|file| file.as_fd());
    let good = record(0, 0);
    for second in [
        good[..19].to_vec(),
        record(0, 1),
        record(1, 0),
        record(u32::MAX, 0),
        [record(0, 1), vec![0]].concat(),
        [record(1, 6), b"\x01\0\0\0a\0".to_vec()].concat(),
    ] {
        let both = [good.clone(), second].concat();
        assert_eq!(helper.refusal(op::CHOWN, &both, &fds), Some(libc::EBADMSG));
        assert_eq!(files.each_ref().map(mode), [0o600; 2]);
    }
    let both = [good.clone(), good.clone()].concat();
    assert_eq!(helper.refusal(op::CHOWN, &both, &fds[..1]), Some(libc::EBADMSG));
    assert_eq!(files.each_ref().map(mode), [0o600; 2]);
    assert_eq!(helper.refusal(op::CHOWN, &both, &fds), None);
    assert_eq!(files.each_ref().map(mode), [0o644; 2]);
    let mut record = Vec::new();
    plan::root_record(&Mount::bind(dir, false))
        .unwrap()
        .write(&mut record)
        .unwrap();
    for wrong in [
        [&record[..], &record].concat(),
        [&record[..], b"x"].concat(),
        record[..15].to_vec(),
    ] {
        assert_eq!(helper.refusal(op::MOUNT, &wrong, &[]), Some(libc::EBADMSG));
    }
    let req = helper.fresh();
    helper.send(&header(op::MOUNT, req, record.len()), &record, &[]);
    assert_eq!(helper.answer(req).fds.len(), 1);
}
