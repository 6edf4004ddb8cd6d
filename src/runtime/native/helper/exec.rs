//! The last steps: ids, capabilities, filter, and the program itself.

use core::convert::Infallible;

use crate::container::{Context, Streams};
use crate::fail::{Done, Fail, at, hand};
use crate::sys::{self, AT_FDCWD, Shared, Sys};
use crate::user::{self, Identity};
use crate::wire::{Plan, RECORD_TEXT, Section, Step, aux, flag};

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0";
/// Highest capability that may ever exist.
const LAST_CAP: usize = 63;

/// Gives up everything, and executes the plan's program.
#[unsafe(link_section = "lhchild")]
pub(crate) fn become_program(
    context: &Context<'_>,
    streams: &Streams,
    identity: &Identity,
    status: i32,
) -> Done<Infallible> {
    let plan = &context.plan;
    // Docker lets a user work in a directory that only root could enter.
    let entered = sys::chdir(plan.text(0)).is_ok();
    let filter_first = has_filter(plan, identity) && !plan.has(flag::NO_NEW_PRIVILEGES);
    drop_privileges(plan, identity, filter_first, status)?;
    if plan.has(flag::INIT) {
        crate::init::split(plan, identity, status)?;
    }
    execute(plan, streams, identity, status, (entered, filter_first))
}

/// As [`become_program`], in a sibling of this process, which ends. Only the sibling is in the container's pid namespace,
/// and it has given up everything by then: a program of the container that may trace it gains nothing.
#[unsafe(link_section = "lhchild")]
pub(crate) fn become_sibling(
    context: &Context<'_>,
    streams: &Streams,
    identity: &Identity,
    status: i32,
    told: &Shared,
) -> Done<Infallible> {
    let plan = &context.plan;
    let entered = sys::chdir(plan.text(0)).is_ok();
    let filter_first = has_filter(plan, identity) && !plan.has(flag::NO_NEW_PRIVILEGES);
    at(Step::Clone, told.keep_from_children())?;
    drop_privileges(plan, identity, filter_first, status)?;
    if at(Step::Clone, sys::fork_sibling(told.address()))? != 0 {
        sys::exit(0);
    }
    execute(plan, streams, identity, status, (entered, filter_first))
}

#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn execute(
    plan: &Plan<'_>,
    streams: &Streams,
    identity: &Identity,
    status: i32,
    (entered, filter_first): (bool, bool),
) -> Done<Infallible> {
    session(streams)?;
    for (index, fd) in streams.fds.iter().enumerate() {
        at(Step::Stdio, sys::dup3(*fd, index as i32, 0))?;
    }
    enter(plan.text(0), entered)?;
    let program = Program::find(plan, identity)?;
    if plan.has(flag::NO_NEW_PRIVILEGES) {
        no_new_privileges()?;
    }
    at(Step::Exec, sys::close_range(3, true))?;
    // A listener is served from the moment that its owner has it, so that it goes first.
    let late = has_filter(plan, identity) && !filter_first;
    if late && plan.has(flag::LISTENER) {
        load_filter(plan, identity, status)?;
    }
    ready(status)?;
    if late && !plan.has(flag::LISTENER) {
        load_filter(plan, identity, status)?;
    }
    let errno = sys::execve(program.path(), program.argv, program.env);
    Err(diagnose(program.path(), errno))
}

/// The last word of a start that comes to a good end, unless the program cannot be executed.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn ready(status: i32) -> Done {
    at(Step::Exec, Fail::new(Step::Ready, 0).send(status, None)).map(|_| ())
}

#[unsafe(link_section = "lhchild")]
fn no_new_privileges() -> Done {
    const PR_SET_NO_NEW_PRIVS: usize = 38;
    at(Step::NoNewPrivileges, sys::prctl(PR_SET_NO_NEW_PRIVS, 1, 0)).map(|_| ())
}

/// No new privileges, and the filter, for the pid 1 that does not execute the program.
#[unsafe(link_section = "lhchild")]
pub(crate) fn lock_down(plan: &Plan<'_>, identity: &Identity, status: i32) -> Done {
    no_new_privileges()?;
    if has_filter(plan, identity) {
        load_filter(plan, identity, status)?;
    }
    Ok(())
}

/// Loads the program's filter; its listener, if it has one, goes to the owner.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn load_filter(plan: &Plan<'_>, identity: &Identity, status: i32) -> Done {
    let listens = plan.has(flag::LISTENER);
    let loaded = at(Step::Seccomp, sys::seccomp_filter(filter(plan, identity), listens))?;
    if !listens {
        return Ok(());
    }
    hand(status, Step::Seccomp, loaded as i32)
}

/// The program's filter. Where one id is mapped, root's is another: it answers changes of owners and ids, which mean nothing
/// there. A user's is not, since those are refused to users everywhere.
#[unsafe(link_section = "lhchild")]
fn filter<'a>(plan: &Plan<'a>, identity: &Identity) -> &'a [u8] {
    let squashed = plan.has(flag::SINGLE_ID) && identity.is_root();
    plan.section(if squashed { Section::Squash } else { Section::Seccomp })
}

#[unsafe(link_section = "lhchild")]
fn has_filter(plan: &Plan<'_>, identity: &Identity) -> bool {
    !filter(plan, identity).is_empty()
}

/// A session of its own, with the terminal if there is one.
#[unsafe(link_section = "lhchild")]
fn session(streams: &Streams) -> Done {
    const TIOCSCTTY: usize = 0x540e;
    at(Step::Session, sys::setsid())?;
    if streams.terminal {
        at(Step::Terminal, sys::ioctl(streams.fds[0], TIOCSCTTY, 0))?;
    }
    Ok(())
}

/// Ids and capabilities. With `filter_first` (no no-new-privileges) the filter needs `CAP_SYS_ADMIN`, so that it is loaded
/// before the capabilities go.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn drop_privileges(plan: &Plan<'_>, identity: &Identity, filter_first: bool, status: i32) -> Done {
    const PR_SET_KEEPCAPS: usize = 8;
    let single = plan.has(flag::SINGLE_ID);
    if single && !identity.is_root() {
        user::rename(plan, identity)?;
    }
    if identity.proc >= 0 {
        sys::close(identity.proc);
    }
    if plan.has(flag::HAS_CAPS) {
        drop_bounding(plan.caps(0))?;
    }
    if filter_first {
        load_filter(plan, identity, status)?;
    }
    if !(single && identity.one_group()) {
        at(Step::Groups, sys::setgroups(identity.groups()))?;
    }
    at(Step::Capabilities, sys::prctl(PR_SET_KEEPCAPS, 1, 0))?;
    at(Step::Ids, sys::setresgid(identity.gid))?;
    at(Step::Ids, sys::setresuid(identity.uid))?;
    if plan.has(flag::HAS_CAPS) {
        capabilities(plan)?;
    }
    sys::set_dumpable(false);
    Ok(())
}

#[unsafe(link_section = "lhchild")]
fn drop_bounding(keep: u64) -> Done {
    const PR_CAPBSET_DROP: usize = 24;
    for cap in (0..=LAST_CAP).filter(|cap| keep & 1 << cap == 0) {
        match sys::prctl(PR_CAPBSET_DROP, cap, 0) {
            // The first number that this kernel does not know.
            Err(sys::EINVAL) => break,
            result => at(Step::Capabilities, result)?,
        };
    }
    Ok(())
}

/// Permitted, effective, inheritable, ambient. An exec leaves to a user other than root the ambient set alone, of which the kernel
/// takes only what is inheritable, too: nobody is given more than was said. Source: capabilities(7), and runc, which leaves the
/// rest out as well.
#[unsafe(link_section = "lhchild")]
fn capabilities(plan: &Plan<'_>) -> Done {
    const PR_CAP_AMBIENT: usize = 47;
    let step = Step::Capabilities;
    let _ = sys::prctl(PR_CAP_AMBIENT, 4, 0);
    let known = at(step, known_caps(plan.has(flag::ALL_CAPS)))?;
    let permitted = plan.caps(1) & known;
    let inheritable = plan.caps(3) & permitted;
    let ambient = plan.caps(4) & inheritable;
    at(step, sys::capset(plan.caps(2) & permitted, permitted, inheritable))?;
    for cap in (0..=LAST_CAP).filter(|cap| ambient & 1 << cap != 0) {
        at(step, sys::prctl(PR_CAP_AMBIENT, 2, cap))?;
    }
    Ok(())
}

/// The capabilities that this kernel has; with `bounded`, those of them that can be had here.
#[unsafe(link_section = "lhchild")]
fn known_caps(bounded: bool) -> Sys<u64> {
    const PR_CAPBSET_READ: usize = 23;
    let mut known = 0;
    for cap in 0..=LAST_CAP {
        match sys::prctl(PR_CAPBSET_READ, cap, 0) {
            Err(_) => break,
            Ok(0) if bounded => {}
            Ok(_) => known |= 1 << cap,
        }
    }
    Ok(known)
}

/// Enters the working directory as the container's user, and checks that it lies in the root (CVE-2024-21626).
#[unsafe(link_section = "lhchild")]
fn enter(directory: &[u8], entered: bool) -> Done {
    let step = Step::WorkingDirectory;
    match sys::chdir(directory) {
        Err(sys::EACCES) if entered => {}
        result => {
            at(step, result)?;
        }
    }
    let mut path = [0u8; 4096];
    at(step, sys::getcwd(&mut path))?;
    if path[0] != b'/' {
        return at(step, Err(sys::ENOENT));
    }
    Ok(())
}

/// What to execute: a path, and the arrays that the kernel wants.
struct Program {
    path: [u8; 4096],
    argv: &'static [usize],
    env: &'static [usize],
}

impl Program {
    #[unsafe(link_section = "lhchild")]
    fn path(&self) -> &[u8] {
        let end = self.path.iter().position(|byte| *byte == 0).unwrap_or(0);
        self.path.get(..=end).unwrap_or(b"\0")
    }

    #[unsafe(link_section = "lhchild")]
    fn find(plan: &Plan<'_>, identity: &Identity) -> Done<Self> {
        let name = plan.strings(Section::Argv).next().unwrap_or(b"\0");
        let argv = at(Step::Exec, pointers(plan, Section::Argv, None))?;
        let env = at(Step::Exec, pointers(plan, Section::Env, home(plan, identity)))?;
        let mut program = Self {
            path: [0; 4096],
            argv,
            env,
        };
        if name.len() <= 1 {
            return Err(Fail::new(Step::Exec, sys::ENOENT));
        }
        if name.iter().any(|byte| *byte == b'/') {
            program.set(&[name])?;
            return program.check();
        }
        program.search(plan, name)
    }

    /// Looks in the directories of the container's `PATH`, as `execvp(3)` does.
    #[unsafe(link_section = "lhchild")]
    fn search(mut self, plan: &Plan<'_>, name: &[u8]) -> Done<Self> {
        let mut worst = sys::ENOENT;
        let path = plan
            .strings(Section::Env)
            .find_map(|entry| entry.strip_prefix(b"PATH="))
            .unwrap_or(DEFAULT_PATH);
        for directory in path.split(|byte| *byte == b':' || *byte == 0) {
            // An empty directory means the working directory; Docker ignores it.
            if directory.is_empty() || self.set(&[directory, b"/", name]).is_err() {
                continue;
            }
            match runnable(self.path()) {
                Ok(()) => return Ok(self),
                Err(sys::EACCES) => worst = sys::EACCES,
                Err(_) => {}
            }
        }
        Err(Fail::new(Step::Exec, worst).text(name.get(..name.len() - 1).unwrap_or(&[])))
    }

    #[unsafe(link_section = "lhchild")]
    fn check(self) -> Done<Self> {
        match runnable(self.path()) {
            Ok(()) => Ok(self),
            Err(errno) => Err(Fail::new(Step::Exec, errno).text(bare(self.path()))),
        }
    }

    #[unsafe(link_section = "lhchild")]
    fn set(&mut self, parts: &[&[u8]]) -> Done {
        const ENAMETOOLONG: i32 = 36;
        self.path.fill(0);
        let mut len = 0;
        for byte in parts.iter().flat_map(|part| part.iter()) {
            *self.path.get_mut(len).ok_or(Fail::new(Step::Exec, ENAMETOOLONG))? = *byte;
            len += 1;
        }
        if self.path.last() != Some(&0) {
            Err(Fail::new(Step::Exec, ENAMETOOLONG))
        } else {
            Ok(())
        }
    }
}

#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn runnable(path: &[u8]) -> Sys<()> {
    let stat = sys::statx(AT_FDCWD, path, 0)?;
    if stat.mode & sys::S_IFMT == sys::S_IFDIR {
        return Err(sys::EISDIR);
    }
    if stat.mode & sys::S_IFMT != sys::S_IFREG {
        return Err(sys::EACCES);
    }
    match sys::executable(path) {
        // Before Linux 5.8; the exec itself will tell.
        Err(sys::ENOSYS) => Ok(()),
        result => result.map(|_| ()),
    }
}

#[unsafe(link_section = "lhchild")]
fn bare(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"\0").unwrap_or(path)
}

/// An array of pointers to a list's strings, and one more, and the null at its end.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn pointers(plan: &Plan<'_>, section: Section, last: Option<&'static [u8]>) -> Sys<&'static [usize]> {
    let count = plan.strings(section).count() + usize::from(last.is_some());
    let memory = sys::map((count + 1) * size_of::<usize>())?;
    let list = memory.as_mut_ptr().cast::<usize>();
    for (index, text) in plan.strings(section).chain(last).enumerate() {
        // SAFETY: a mapping is aligned to a page and has room for `count + 1` pointers.
        unsafe { list.add(index).write(text.as_ptr() as usize) };
    }
    // SAFETY: as above; the mapping was zero, so that the array is initialized and ends with a null.
    Ok(unsafe { core::slice::from_raw_parts(list, count + 1) })
}

/// `HOME=` of the user's entry, if the environment has none.
#[unsafe(link_section = "lhchild")]
fn home(plan: &Plan<'_>, identity: &Identity) -> Option<&'static [u8]> {
    if plan.strings(Section::Env).any(|entry| entry.starts_with(b"HOME=")) {
        return None;
    }
    let home = identity.home.unwrap_or(b"/");
    let text = sys::map(home.len() + 6).ok()?;
    for (slot, byte) in text.iter_mut().zip(b"HOME=".iter().chain(home)) {
        *slot = *byte;
    }
    Some(text)
}

/// Why an exec failed: the kernel says `ENOENT` also where the file is there and its interpreter is not.
#[unsafe(link_section = "lhchild")]
fn diagnose(path: &[u8], errno: i32) -> Fail {
    let fail = Fail::new(Step::Exec, errno).text(bare(path));
    if errno != sys::ENOENT || sys::statx(AT_FDCWD, path, 0).is_err() {
        return fail;
    }
    let fail = fail.aux(aux::INTERPRETER_MISSING).text(b"\0");
    let mut head = [0u8; 4096];
    let mut name = [0u8; RECORD_TEXT];
    match interpreter(path, &mut head, &mut name) {
        Some(name) => fail.text(name),
        None => fail,
    }
}

/// The interpreter that a script's first line or an ELF program header names.
#[unsafe(link_section = "lhchild")]
fn interpreter<'a>(path: &[u8], head: &mut [u8; 4096], name: &'a mut [u8; RECORD_TEXT]) -> Option<&'a [u8]> {
    let file = sys::open(AT_FDCWD, path, sys::O_NONBLOCK | sys::O_NOCTTY).ok()?;
    let len = sys::read(file, head).unwrap_or(0);
    sys::close(file);
    let head = head.get(..len)?;
    let found = match head.strip_prefix(b"#!") {
        Some(line) => script(line)?,
        None => elf(head)?,
    };
    let name = name.get_mut(..found.len())?;
    for (slot, byte) in name.iter_mut().zip(found) {
        *slot = *byte;
    }
    Some(name)
}

#[unsafe(link_section = "lhchild")]
fn script(line: &[u8]) -> Option<&[u8]> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    line.split(|byte| *byte == b' ' || *byte == b'\t')
        .find(|word| !word.is_empty())
}

/// `PT_INTERP` of a 64-bit file whose headers lie in its first page, as they do.
#[unsafe(link_section = "lhchild")]
fn elf(head: &[u8]) -> Option<&[u8]> {
    const PT_INTERP: u32 = 3;
    if !head.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let word = |at: usize| crate::wire::u32_at(head, at);
    let table = word(32)? as usize;
    let count = word(56)? & 0xffff;
    for index in 0..count as usize {
        let header = table + index * 56;
        if word(header)? == PT_INTERP {
            let (offset, size) = (word(header + 8)? as usize, word(header + 32)? as usize);
            return head.get(offset..offset.checked_add(size)?.checked_sub(1)?);
        }
    }
    None
}
