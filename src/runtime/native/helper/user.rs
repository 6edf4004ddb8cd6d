//! Who the program runs as: the container's own files say, read with bounds and never through a link out of the root.

use crate::fail::{Done, Fail, at};
use crate::passwd::{self, Problem};
use crate::slim::NODES;
use crate::sys::{self, AT_FDCWD, Sys};
use crate::wire::{Plan, Section, Step, aux, field, flag};

/// Largest `passwd` or `group` that is read.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Most supplementary groups (`NGROUPS_MAX` is larger; nobody needs more).
const MOST_GROUPS: usize = 1024;

/// The program's ids.
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    groups: [u32; MOST_GROUPS],
    count: usize,
    pub(crate) home: Option<&'static [u8]>,
}

impl Identity {
    #[unsafe(link_section = "lhchild")]
    pub(crate) fn groups(&self) -> &[u32] {
        self.groups.get(..self.count).unwrap_or(&[])
    }

    #[unsafe(link_section = "lhchild")]
    fn add(&mut self, gid: u32) -> Done {
        if self.groups().contains(&gid) {
            return Ok(());
        }
        let slot = self
            .groups
            .get_mut(self.count)
            .ok_or(Fail::new(Step::Groups, sys::EINVAL))?;
        *slot = gid;
        self.count += 1;
        Ok(())
    }
}

/// Resolves the plan's user and groups inside the root.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
pub(crate) fn resolve(plan: &Plan<'_>) -> Done<Identity> {
    let (uid, gid) = (plan.field(field::UID), plan.field(field::GID));
    let mut identity = Identity {
        uid,
        gid,
        groups: [0; MOST_GROUPS],
        count: 0,
        home: None,
    };
    for index in 0..plan.words(Section::Gids).len() {
        identity.add(plan.words(Section::Gids).get(index).unwrap_or(0))?;
    }
    let by_text = plan.has(flag::USER_TEXT);
    let extra = !plan.section(Section::Groups).is_empty();
    let passwd = at(Step::User, read_file(b"/etc/passwd\0"))?;
    let group = if by_text || extra {
        at(Step::Group, read_file(b"/etc/group\0"))?
    } else {
        &[]
    };
    if by_text {
        apply_text(&mut identity, bare(plan.text(3)), passwd, group)?;
    } else {
        let mut text = [0u8; 10];
        identity.home = passwd::user(digits(&mut text, uid), passwd, &[])
            .ok()
            .and_then(|user| user.home);
    }
    for (index, name) in plan.strings(Section::Groups).enumerate() {
        let gid = passwd::group_id(bare(name), group)
            .map_err(|problem| failure(Step::Group, problem, bare(name)).index(index))?;
        identity.add(gid)?;
    }
    Ok(identity)
}

#[unsafe(link_section = "lhchild")]
fn apply_text(identity: &mut Identity, wanted: &[u8], passwd: &'static [u8], group: &'static [u8]) -> Done {
    let user = passwd::user(wanted, passwd, group).map_err(|problem| failure(Step::User, problem, wanted))?;
    identity.uid = user.uid;
    identity.gid = user.gid;
    identity.home = user.home;
    // Without it, leaving the group would be a way around its negative permissions (CVE-2022-36109).
    identity.add(user.gid)?;
    if let (Some(name), false) = (user.name, user.group_given) {
        for gid in passwd::memberships(name, group) {
            identity.add(gid)?;
        }
    }
    Ok(())
}

#[unsafe(link_section = "lhchild")]
fn failure(step: Step, problem: Problem, name: &[u8]) -> Fail {
    let aux = match problem {
        Problem::Unknown => aux::UNKNOWN,
        Problem::Malformed => aux::MALFORMED,
    };
    Fail::new(step, sys::EINVAL).aux(aux).text(name)
}

#[unsafe(link_section = "lhchild")]
fn bare(text: &[u8]) -> &[u8] {
    text.get(..text.len().saturating_sub(1)).unwrap_or(&[])
}

#[unsafe(link_section = "lhchild")]
fn digits(buffer: &mut [u8; 10], number: u32) -> &[u8] {
    let mut at = buffer.len();
    let mut rest = number;
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return buffer.get(at..).unwrap_or(&[]);
        }
    }
}

/// A whole regular file, or nothing if there is none. Links inside the root are followed (images have them), devices and
/// FIFOs are refused before they are opened for reading.
#[inline(never)]
#[unsafe(link_section = "lhchild")]
fn read_file(path: &[u8]) -> Sys<&'static [u8]> {
    let root = sys::openat(AT_FDCWD, b"/\0", sys::O_PATH | sys::O_DIRECTORY, 0)?;
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
    let opened = open_regular(root, path, resolve);
    sys::close(root);
    let (file, size) = match opened {
        Err(errno) if crate::fail::missing(errno) => return Ok(&[]),
        result => result?,
    };
    let text = read_all(file, size);
    sys::close(file);
    text
}

#[unsafe(link_section = "lhchild")]
fn open_regular(root: i32, path: &[u8], resolve: u64) -> Sys<(i32, u64)> {
    let file = sys::openat2(root, path, sys::O_NONBLOCK | sys::O_NOCTTY, resolve)?;
    let stat = sys::stat_fd(file)?;
    // A masked file: there is none.
    if stat.mode & sys::S_IFMT == sys::S_IFCHR && stat.rdev == NODES[0].device {
        return Err(sys::ENOENT);
    }
    if stat.mode & sys::S_IFMT != sys::S_IFREG {
        return Err(sys::EINVAL);
    }
    if stat.size > LARGEST {
        return Err(sys::EFBIG);
    }
    Ok((file, stat.size))
}

#[unsafe(link_section = "lhchild")]
fn read_all(file: i32, size: u64) -> Sys<&'static [u8]> {
    if size == 0 {
        return Ok(&[]);
    }
    let buffer = sys::map(size as usize)?;
    let mut len = 0;
    loop {
        let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) else {
            break;
        };
        match sys::read(file, rest)? {
            0 => break,
            count => len += count,
        }
    }
    Ok(buffer.get(..len).unwrap_or(&[]))
}
