//! `--chown`: whose the copies become. Names are those of the base's own files.

use std::io::Read as _;

use crate::build::context::{Paths as _, View};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::layer::name::split;

/// What is read of `/etc/passwd` and `/etc/group`, as in BuildKit.
const FILE_BYTES: u64 = 10 << 20;

/// A user and a group, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    user: Id,
    group: Option<Id>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    Number(u32),
    Name(String),
}

impl Owner {
    /// # Errors
    /// `InvalidArgument` for a number that is no id.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let id = |text: &str| Id::parse(text).ok_or_else(|| bad(text));
        Ok(Self {
            user: if user.is_empty() { Id::Number(0) } else { id(user)? },
            group: group.filter(|group| !group.is_empty()).map(id).transpose()?,
        })
    }

    /// The ids.
    ///
    /// # Errors
    /// `NotFound` for a name that the base does not have, `InvalidArgument` for one where there is no base.
    pub(super) fn ids(&self, base: Option<&View>) -> Result<(u32, u32)> {
        let (uid, own_group) = match &self.user {
            Id::Number(id) => (*id, *id),
            Id::Name(name) => {
                let line = line_of(base, b"etc/passwd", name)?;
                number(&line, 2)
                    .zip(number(&line, 3))
                    .ok_or_else(|| malformed("etc/passwd", name))?
            }
        };
        let gid = match &self.group {
            None => own_group,
            Some(Id::Number(id)) => *id,
            Some(Id::Name(name)) => {
                let line = line_of(base, b"etc/group", name)?;
                number(&line, 2).ok_or_else(|| malformed("etc/group", name))?
            }
        };
        Ok((uid, gid))
    }
}

/// Whose a working directory becomes: those of the user in force. A user that the base does not know is nobody's fault here:
/// it may be given later, and then the directory is root's, as in BuildKit.
///
/// # Errors
/// `Denied`, `Os` of the base's files.
pub(super) fn of_user(user: &str, base: Option<&View>) -> Result<Option<(u32, u32)>> {
    match Owner::parse(user).and_then(|owner| owner.ids(base)) {
        Ok(ids) => Ok(Some(ids)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::Name(text.to_owned()));
        }
        // The last one means "leave as is" to chown(2).
        text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Number)
    }
}

/// The first line of a file whose first field is a name.
fn line_of(base: Option<&View>, path: &[u8], name: &str) -> Result<String> {
    let file = format!("/{}", String::from_utf8_lossy(path));
    let Some(base) = base else {
        let message = format!(
            "--chown names {name:?}, and there is no {file} to look it up in: give a number, or copy without --link onto a base that has it"
        );
        return Err(Error::invalid(message).with_object(ObjectKind::User, name));
    };
    let missing = || {
        let message = format!("--chown: unable to find {name:?} in {file} of the base");
        Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::User, name)
    };
    let led = base.follow(b"", path, true)?;
    let Some(node) = led.node.filter(|node| node.is_file()) else {
        return Err(missing());
    };
    let (parent, last) = split(&led.path);
    let Some(folder) = base.folder(parent)? else {
        return Err(missing());
    };
    let Some((_, _, Some(opened))) = folder.open(last, node.kind)? else {
        return Err(missing());
    };
    let mut text = Vec::new();
    let read = opened.take(FILE_BYTES + 1).read_to_end(&mut text);
    read.map_err(|e| Error::os(format!("read {file} of the base"), e))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(Error::invalid(format!(
            "{file} of the base has more than {FILE_BYTES} bytes"
        )));
    }
    let text = String::from_utf8_lossy(&text);
    let found = text
        .lines()
        .map(str::trim)
        .find(|line| line.split(':').next() == Some(name));
    found.map(str::to_owned).ok_or_else(missing)
}

fn number(line: &str, field: usize) -> Option<u32> {
    line.split(':')
        .nth(field)?
        .trim()
        .parse()
        .ok()
        .filter(|id| *id != u32::MAX)
}

fn malformed(file: &str, name: &str) -> Error {
    Error::invalid(format!("--chown: /{file} of the base has no id for {name:?}")).with_object(ObjectKind::User, name)
}

fn bad(text: &str) -> Error {
    Error::invalid(format!("invalid --chown: {text:?} is no user or group id")).with_object(ObjectKind::User, text)
}
