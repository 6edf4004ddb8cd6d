//! Users and groups of a container: a strict reader of `passwd(5)` and `group(5)`, and of the user that a caller writes.
//! `core` only. Everything in those files is hostile: a line that does not parse whole is no line at all
//! (CVE-2026-30892 and its kin: a half-read number became another user).

/// Highest id that Docker accepts.
const HIGHEST: u32 = i32::MAX as u32;

/// Why a user or group cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The name has no entry.
    Unknown,
    /// The text is not a user, or not a group.
    Malformed,
}

/// A user's ids and home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User<'a> {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// From the entry, if there is one.
    pub(crate) home: Option<&'a [u8]>,
    /// The entry's name, if there is one: groups list members by it.
    pub(crate) name: Option<&'a [u8]>,
    /// The group was written, so that the groups of the files do not count.
    pub(crate) group_given: bool,
}

/// A number made of digits alone, within the range of ids.
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    let mut value = 0u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(byte - b'0');
    }
    let value = u32::try_from(value).ok()?;
    (value <= HIGHEST).then_some(value)
}

/// Splits `user` or `user:group`.
pub(crate) fn split(text: &[u8]) -> Result<(&[u8], Option<&[u8]>), Problem> {
    let mut parts = text.split(|byte| *byte == b':');
    let user = parts.next().unwrap_or(&[]);
    let group = parts.next();
    if parts.next().is_some() || text.iter().any(|byte| *byte == b'\n' || *byte == 0) {
        return Err(Problem::Malformed);
    }
    Ok((user, group.filter(|group| !group.is_empty())))
}

/// Resolves `user[:group]`. An empty user is 0. Numbers need no entry.
pub(crate) fn user<'a>(text: &[u8], passwd: &'a [u8], group: &[u8]) -> Result<User<'a>, Problem> {
    let (wanted, wanted_group) = split(text)?;
    let wanted = if wanted.is_empty() { b"0" as &[u8] } else { wanted };
    let entry = entry(passwd, wanted);
    let mut found = match (entry, number(wanted)) {
        (Some(user), _) => user,
        (None, Some(uid)) => User {
            uid,
            gid: 0,
            home: None,
            name: None,
            group_given: false,
        },
        (None, None) if wanted.iter().all(u8::is_ascii_digit) => return Err(Problem::Malformed),
        (None, None) => return Err(Problem::Unknown),
    };
    if let Some(wanted) = wanted_group {
        found.gid = group_id(wanted, group)?;
        found.group_given = true;
    }
    Ok(found)
}

/// The id of a group by name or number.
pub(crate) fn group_id(wanted: &[u8], group: &[u8]) -> Result<u32, Problem> {
    for line in lines(group) {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, id) = (fields.next(), fields.nth(1).and_then(number));
        if let (Some(name), Some(id)) = (name, id)
            && name == wanted
        {
            return Ok(id);
        }
    }
    if wanted.iter().all(u8::is_ascii_digit) {
        return number(wanted).ok_or(Problem::Malformed);
    }
    Err(Problem::Unknown)
}

/// The groups that list `name` as a member.
pub(crate) fn memberships<'a>(name: &'a [u8], group: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
    lines(group).filter_map(move |line| {
        let mut fields = line.split(|byte| *byte == b':');
        let id = fields.nth(2).and_then(number)?;
        let members = fields.next()?;
        members
            .split(|byte| *byte == b',')
            .any(|member| member == name)
            .then_some(id)
    })
}

/// The entry of a name, or of an id where no entry has that name.
fn entry<'a>(passwd: &'a [u8], wanted: &[u8]) -> Option<User<'a>> {
    let id = number(wanted);
    let mut by_id = None;
    for line in lines(passwd) {
        let Some(user) = parse(line) else { continue };
        if user.name == Some(wanted) {
            return Some(user);
        }
        if by_id.is_none() && id == Some(user.uid) {
            by_id = Some(user);
        }
    }
    by_id
}

fn parse(line: &[u8]) -> Option<User<'_>> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let _password = fields.next()?;
    let uid = number(fields.next()?)?;
    let gid = number(fields.next()?)?;
    let _comment = fields.next();
    let home = fields.next().filter(|home| home.first() == Some(&b'/'));
    Some(User {
        uid,
        gid,
        home,
        name: Some(name),
        group_given: false,
    })
}

#[allow(
    clippy::manual_contains,
    reason = "the other is vectors of code, which the helper has no room for"
)]
fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n')
        .filter(|line| !line.iter().any(|byte| *byte == 0))
}
