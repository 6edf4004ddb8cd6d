//! The user namespace of an ordinary user's engine: which ids are mapped, and by whom.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys::pidfd;
use crate::sys::spawn::{Program, Spawn};
use crate::types::IdRange;

/// How ids inside containers relate to the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdMapping {
    /// The same: no user namespace.
    Root,
    /// Root is the caller, the others come from the caller's ranges in `/etc/subuid` and `/etc/subgid`.
    Ranges,
    /// Root is the caller, and there is no other.
    Single,
}

/// The ids of a container's own user namespace, as the zygote knows the outer ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerIds {
    pub(crate) uids: Vec<IdRange>,
    pub(crate) gids: Vec<IdRange>,
}

impl ContainerIds {
    /// All ids that the engine's own user namespace has, unchanged: what there is of an ordinary user's ids.
    pub(crate) fn of_zygote(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|error| Error::os("read the engine's id map", error))?;
            let mut ranges = IdRange::parse_map(&text);
            for range in &mut ranges {
                range.outside = range.inside;
            }
            Ok::<_, Error>(ranges)
        };
        Ok(Self {
            uids: read("uid_map")?,
            gids: read("gid_map")?,
        })
    }

    /// Ids that are said as this process knows them, as those that the engine's own user namespace has for them.
    ///
    /// # Errors
    /// `Unsupported` for ids that it does not have.
    #[inline(never)]
    pub(crate) fn seen_by_zygote(&self, pid: u32) -> Result<Self> {
        let seen = |file: &str, ranges: &[IdRange]| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|error| Error::os("read the engine's id map", error))?;
            let needs = "ids of this user's: its own, and those that /etc/subuid and /etc/subgid give to it";
            translated(ranges, &IdRange::parse_map(&text))
                .ok_or_else(|| Error::unsupported("a user namespace with these ids of the host's", needs))
        };
        Ok(Self {
            uids: seen("uid_map", &self.uids)?,
            gids: seen("gid_map", &self.gids)?,
        })
    }

    /// For root: the ranges that `/etc/subuid` and `/etc/subgid` give to root, from id 0 on.
    ///
    /// # Errors
    /// `Unsupported` without any, with the lines to add.
    pub(crate) fn of_root() -> Result<Self> {
        let read = |file: &str| {
            let ranges = read_ranges(Path::new(file), 0, Some("root"), 0);
            ranges.map_err(|why| {
                Error::unsupported(
                    "a user namespace per container",
                    format!(
                        "ids for it: as root, `echo root:{}:65536 >> {file}`, or the option for them when the engine is \
                         opened ({why})",
                        free_start(&fs::read_to_string(file).unwrap_or_default())
                    ),
                )
            })
        };
        Ok(Self {
            uids: stack(&read("/etc/subuid")?),
            gids: stack(&read("/etc/subgid")?),
        })
    }

    /// All ids as they are.
    pub(crate) fn identity() -> Self {
        let all = vec![IdRange::new(0, 0, u32::MAX)];
        Self {
            uids: all.clone(),
            gids: all,
        }
    }

    /// Whether outer and inner ids are the same.
    pub(crate) fn is_identity(&self) -> bool {
        self.uids
            .iter()
            .chain(&self.gids)
            .all(|range| range.inside == range.outside)
    }

    /// What an id of the container is outside.
    pub(crate) fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
        ranges
            .iter()
            .find(|range| id >= range.inside && id - range.inside < range.count)
            .and_then(|range| range.outside.checked_add(id - range.inside))
    }

    /// The text of a map's file.
    pub(crate) fn text(ranges: &[IdRange]) -> String {
        let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
        ranges.iter().map(line).collect()
    }
}

/// The same ranges as a namespace knows the outer ids, of which this is the map. `None` if it does not have them all.
fn translated(ranges: &[IdRange], map: &[IdRange]) -> Option<Vec<IdRange>> {
    let mut out = Vec::new();
    for range in ranges {
        let mut done = 0;
        while done < range.count {
            let (inside, outside) = (range.inside.checked_add(done)?, range.outside.checked_add(done)?);
            let home = map
                .iter()
                .find(|home| home.outside <= outside && outside - home.outside < home.count)?;
            let offset = outside - home.outside;
            let count = (range.count - done).min(home.count - offset);
            // The last id of all is nobody's (`(uid_t) -1`), so no range ends there or beyond.
            inside.checked_add(count)?;
            out.push(IdRange::new(inside, home.inside.checked_add(offset)?, count));
            done += count;
        }
    }
    Some(out)
}

/// The mapping of a user namespace that has been made before, by a process in it.
pub(crate) fn of(pid: u32) -> Result<IdMapping> {
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map"));
    let map = map.map_err(|error| Error::os("read the id map of a user namespace", error))?;
    Ok(match IdRange::parse_map(&map).as_slice() {
        [only] if only.count == 1 => IdMapping::Single,
        _ => IdMapping::Ranges,
    })
}

/// As [`of`], where what makes containers has no user namespace of its own: it is the root of one that has one id, or of any other.
pub(crate) fn of_root(pid: u32) -> Result<IdMapping> {
    Ok(match of(pid)? {
        IdMapping::Single => IdMapping::Single,
        _ => IdMapping::Root,
    })
}

/// Ranges one after the other, from id 0 on.
fn stack(ranges: &[Range]) -> Vec<IdRange> {
    let mut inside = 0u32;
    let mut out = Vec::new();
    for (start, count) in ranges {
        out.push(IdRange::new(inside, *start, *count));
        inside = inside.saturating_add(*count);
    }
    out
}

/// The first id above all that a file gives away.
fn free_start(text: &str) -> u32 {
    let end = |line: &str| {
        let mut fields = line.trim().split(':').skip(1).map(|field| field.parse::<u32>().ok());
        fields.next()??.checked_add(fields.next()??)
    };
    text.lines().filter_map(end).max().unwrap_or(0).max(100_000)
}

/// `start` and `count` of a range of the host's ids.
type Range = (u32, u32);

/// Writes the maps of a new user namespace; a warning says why there are no ranges.
pub(crate) fn write(pid: u32) -> Result<(IdMapping, Option<String>)> {
    let uid = nix::unistd::geteuid().as_raw();
    let gid = nix::unistd::getegid().as_raw();
    let why = match map_ranges(pid, uid, gid) {
        Ok(()) => return Ok((IdMapping::Ranges, None)),
        Err(why) => why,
    };
    let file = |name: &str, text: String| {
        fs::write(format!("/proc/{pid}/{name}"), text).map_err(|error| Error::os(format!("write {name}"), error))
    };
    file("setgroups", "deny".to_owned())?;
    // Since Linux 5.12 root is mapped by those alone who may set file capabilities. Source: user_namespaces(7).
    if let Err(error) = file("uid_map", format!("0 {uid} 1")) {
        return Err(match uid {
            0 => Error::unsupported(
                "a user namespace that maps root",
                "CAP_SETFCAP for this process (a container around it was made without it), or another user than root",
            )
            .with_source(error),
            _ => error,
        });
    }
    file("gid_map", format!("0 {gid} 1"))?;
    Ok((
        IdMapping::Single,
        Some(format!(
            "one id is mapped, so that changes of owners and users in containers succeed without effect: {why}"
        )),
    ))
}

fn map_ranges(pid: u32, uid: u32, gid: u32) -> Result<(), String> {
    let name = user_name(uid);
    let uids = read_ranges(Path::new("/etc/subuid"), uid, name.as_deref(), uid)?;
    let gids = read_ranges(Path::new("/etc/subgid"), uid, name.as_deref(), gid)?;
    run_mapper("newgidmap", pid, gid, &gids)?;
    run_mapper("newuidmap", pid, uid, &uids)?;
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).map_err(|error| error.to_string())?;
    if map.lines().count() < 2 {
        Err("newuidmap wrote no ranges".to_owned())
    } else {
        Ok(())
    }
}

/// The caller's name, from `/etc/passwd` itself: a look-up through NSS could load foreign code into the process.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn read_ranges(file: &Path, uid: u32, name: Option<&str>, own: u32) -> Result<Vec<Range>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let ranges = parse_ranges(&text, uid, name, own);
    match ranges.is_empty() {
        true => Err(format!("{} has no range for this user", file.display())),
        false => Ok(ranges),
    }
}

/// Ranges of a user, by name or number. One that holds the user's own id, which is mapped to root, is left out.
fn parse_ranges(text: &str, uid: u32, name: Option<&str>, own: u32) -> Vec<Range> {
    let uid = uid.to_string();
    let parse = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (start, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        let ours = owner == uid || Some(owner) == name;
        let end = start.checked_add(count)?;
        (ours && count > 0 && !(start..end).contains(&own)).then_some((start, count))
    };
    text.lines().filter_map(parse).collect()
}

fn run_mapper(tool: &str, pid: u32, own: u32, ranges: &[Range]) -> Result<(), String> {
    let places = [
        format!("/usr/bin/{tool}"),
        format!("/bin/{tool}"),
        format!("/run/wrappers/bin/{tool}"),
    ];
    let place = places.iter().find(|place| Path::new(place).exists());
    let place = place.ok_or_else(|| format!("{tool} is not installed (Debian's package \"uidmap\")"))?;
    let mut argv = vec![
        tool.to_owned(),
        pid.to_string(),
        "0".into(),
        own.to_string(),
        "1".into(),
    ];
    let mut inside = 1u32;
    for (start, count) in ranges {
        argv.extend([inside.to_string(), start.to_string(), count.to_string()]);
        inside = inside.checked_add(*count).ok_or("the ranges are too large")?;
    }
    let code = run(place, &argv).map_err(|error| format!("{place}: {error}"))?;
    if code == 0 {
        Ok(())
    } else {
        Err(format!("{place} refused the ranges (exit code {code})"))
    }
}

fn run(place: &str, argv: &[String]) -> io::Result<i32> {
    let texts = argv
        .iter()
        .map(|text| CString::new(text.as_str()))
        .collect::<Result<Vec<_>, _>>()?;
    let argv: Vec<&CStr> = texts.iter().map(CString::as_c_str).collect();
    let place = CString::new(place)?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    let null: BorrowedFd<'_> = null.as_fd();
    let spawn = Spawn {
        program: Program::Path(&place),
        argv: &argv,
        slots: &[(null, 0), (null, 1), (null, 2)],
        namespaces: 0,
        keep_capabilities: false,
    };
    let child = spawn.run()?;
    pidfd::reap(child.pidfd.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_containers() {
        let ids = stack(&[(100_000, 10), (500_000, 65_536)]);
        assert_eq!(ids, [IdRange::new(0, 100_000, 10), IdRange::new(10, 500_000, 65_536)]);
        assert_eq!(ContainerIds::outside(&ids, 9), Some(100_009));
        assert_eq!(ContainerIds::outside(&ids, 10), Some(500_000));
        assert_eq!(ContainerIds::outside(&ids, 70_000), None);
        let text = ContainerIds::text(&ids);
        assert_eq!(text, "0 100000 10\n10 500000 65536\n");
        assert_eq!(IdRange::parse_map(&text), ids);
        assert_eq!(
            IdRange::parse_map("         0       1000          1\nx y z\n1 2\n"),
            [IdRange::new(0, 1000, 1)]
        );
        assert_eq!(free_start("a:100000:65536\nb:300000:10\nc:x:1\n"), 300_010);
        assert_eq!(free_start(""), 100_000);
    }

    #[test]
    fn oci_ids_of_the_host_are_those_of_the_engine() {
        // Root is 1001, and the others begin at 100000.
        let map = [IdRange::new(0, 1001, 1), IdRange::new(1, 100_000, 65_536)];
        let of = |ranges: &[(u32, u32, u32)]| {
            let ranges: Vec<IdRange> = ranges.iter().map(|(a, b, c)| IdRange::new(*a, *b, *c)).collect();
            translated(&ranges, &map)
        };
        assert_eq!(of(&[(0, 1001, 1)]).unwrap(), [IdRange::new(0, 0, 1)]);
        let both = [IdRange::new(0, 11, 5), IdRange::new(7, 0, 1)];
        assert_eq!(of(&[(0, 100_010, 5), (7, 1001, 1)]).unwrap(), both);
        assert!(of(&[]).unwrap().is_empty());
        for bad in [
            (0, 0, 1),
            (0, 1001, 2),
            (0, 165_535, 2),
            (0, u32::MAX, 2),
            (u32::MAX, 100_000, 2),
        ] {
            assert_eq!(of(&[bad]), None, "{bad:?}");
        }
        // Across two ranges that are beside each other.
        let map = [IdRange::new(0, 10, 2), IdRange::new(50, 12, 4)];
        let split = [IdRange::new(0, 1, 1), IdRange::new(1, 50, 2)];
        assert_eq!(translated(&[IdRange::new(0, 11, 3)], &map).unwrap(), split);
    }

    #[test]
    fn ranges_by_name_and_number() {
        let text = "alice:100000:65536\n1000:300000:10\nbob:1:1\nalice:x:1\nalice:900:200\n\nalice:5\n";
        assert_eq!(
            parse_ranges(text, 1000, Some("alice"), 1000),
            [(100_000, 65_536), (300_000, 10)]
        );
        assert_eq!(parse_ranges(text, 7, Some("carol"), 7), []);
    }
}
