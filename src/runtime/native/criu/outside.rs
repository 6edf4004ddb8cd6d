//! What CRIU must be told of that is not the container's alone: mounts that come from the host, its network, the ends of its
//! streams that others hold. It is written down beside the images, and found again in the container that is to go on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The file beside the images.
pub(super) const FILE: &str = "longshore.json";
/// The network's name in the images.
pub(super) const NETWORK: &str = "longshore";
/// Most bytes of the file.
const LARGEST: u64 = 1024 * 1024;

/// What is outside of a container that was written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outside {
    version: u32,
    /// Mounts that CRIU does not make: where, and the path in the file system that they show.
    pub(super) mounts: Vec<(String, String)>,
    /// Inodes of the pipes that are its streams.
    pub(super) pipes: [Option<u64>; 3],
    /// How CRIU calls its stdin, where that is `/dev/null`.
    pub(super) null: Vec<String>,
    /// Whether its network namespace is not CRIU's to make.
    pub(super) network: bool,
}

/// One line of `/proc/PID/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    id: u64,
    root: &'a str,
    place: String,
    kind: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ');
        let id = fields.next()?.parse().ok()?;
        let root = fields.nth(2)?;
        Some(Self {
            id,
            root,
            place: plain(fields.next()?),
            kind: rest.split(' ').next()?,
        })
    }
}

/// Without the octal escapes of proc(5).
fn plain(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[3..] } else { more };
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Outside {
    /// Looks at a running container. Blocking.
    pub(super) fn of(pid: u32, spec: &Spec, pipes: [Option<u64>; 3], network: bool) -> Result<Self> {
        let os = |error| Error::os("look at the container's mounts", error);
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(os)?;
        let lines: Vec<Line<'_>> = table.lines().filter_map(Line::parse).collect();
        let known: Vec<u64> = lines.iter().map(|line| line.id).collect();
        Ok(Self {
            version: 1,
            mounts: mounts(&lines, spec)?,
            pipes,
            null: nulls(pid, &known),
            network,
        })
    }

    /// Blocking.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let text =
            serde_json::to_vec(self).map_err(|error| Error::internal("a checkpoint's list").with_source(error))?;
        fs::write(directory.join(FILE), text).map_err(|error| Error::os("write a checkpoint", error))
    }

    /// Blocking.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let damaged = || Error::new(ErrorKind::Corrupt, "the checkpoint is damaged: its list cannot be read");
        let length = fs::metadata(&path).map_err(|error| damaged().with_source(error))?.len();
        if length > LARGEST {
            return Err(damaged());
        }
        let text = fs::read(&path).map_err(|error| damaged().with_source(error))?;
        let outside: Self = serde_json::from_slice(&text).map_err(|error| damaged().with_source(error))?;
        match outside.version {
            1 => Ok(outside),
            _ => Err(Error::new(
                ErrorKind::NewerVersion,
                "the checkpoint was made by a newer version of longshore",
            )),
        }
    }

    /// What CRIU is told when it writes down.
    pub(super) fn dumped(&self, network: Option<u64>) -> Vec<String> {
        let mut words = Vec::new();
        for (index, (place, _)) in self.mounts.iter().enumerate() {
            external(&mut words, format!("mnt[{place}]:m{index}"));
        }
        for null in &self.null {
            external(&mut words, null.clone());
        }
        if let Some(inode) = network {
            external(&mut words, format!("net[{inode}]:{NETWORK}"));
        }
        words
    }

    /// What CRIU is told when it restores: `places` are those of the container's mounts in the stage, `at` says where that is,
    /// and the streams and the network have their descriptors from `first` on.
    pub(super) fn restored(
        &self,
        places: &BTreeMap<PathBuf, String>,
        at: impl Fn(&str) -> String,
        first: u32,
    ) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for (index, (place, root)) in self.mounts.iter().enumerate() {
            let found = match (places.get(Path::new(place)), root.strip_prefix('/')) {
                (Some(name), _) => name.clone(),
                // One of its devices, each of which is a mount of a node.
                (None, Some(node)) if is_device(node) => format!("d/{node}"),
                _ => {
                    let message = format!("the checkpoint has a mount at {place} that the container does not have");
                    return Err(Error::invalid(message));
                }
            };
            external(&mut words, format!("mnt[m{index}]:{}", at(&found)));
        }
        let inherit = |words: &mut Vec<String>, number: u32, what: String| {
            words.push("--inherit-fd".to_owned());
            words.push(format!("fd[{}]:{what}", first + number));
        };
        for (number, pipe) in (0..).zip(self.pipes) {
            if let Some(inode) = pipe {
                inherit(&mut words, number, format!("pipe:[{inode}]"));
            }
        }
        for null in self.null.iter().filter(|_| self.pipes[0].is_none()) {
            inherit(&mut words, 0, null.clone());
        }
        if self.network {
            inherit(&mut words, 3, NETWORK.to_owned());
        }
        Ok(words)
    }
}

fn external(words: &mut Vec<String>, what: String) {
    words.push("--external".to_owned());
    words.push(what);
}

/// The name of a node as the helper makes them.
fn is_device(node: &str) -> bool {
    const USUAL: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
    let extra = node
        .strip_prefix('x')
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    extra || USUAL.contains(&node)
}

/// The mounts that CRIU does not make by itself: all but the container's own pseudo file systems.
fn mounts(lines: &[Line<'_>], spec: &Spec) -> Result<Vec<(String, String)>> {
    let masked = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.masked_paths().clone())
        .unwrap_or_default();
    let own = |line: &Line<'_>| match line.kind {
        "proc" | "sysfs" | "devpts" | "mqueue" => true,
        "tmpfs" => line.root == "/" && (is_tmpfs(spec, &line.place) || masked.contains(&line.place)),
        _ => false,
    };
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| line.place != "/" && !own(line)) {
        // Words of CRIU's command line end there.
        if line.place.contains([']', ':']) {
            let needs = "places of mounts without brackets and colons";
            return Err(Error::unsupported(
                format!("a checkpoint with a mount at {}", line.place),
                needs,
            ));
        }
        found.push((line.place.clone(), line.root.to_owned()));
    }
    Ok(found)
}

fn is_tmpfs(spec: &Spec, place: &str) -> bool {
    let of = |mount: &oci_spec::runtime::Mount| {
        mount.typ().as_deref() == Some("tmpfs") && mount.destination().as_path() == Path::new(place)
    };
    spec.mounts().iter().flatten().any(of)
}

/// How CRIU calls descriptors of a `/dev/null` that is in no mount of the container: its stdin. Of any of its processes.
fn nulls(pid: u32, known: &[u64]) -> Vec<String> {
    let mut found = Vec::new();
    for process in super::dump::family(pid) {
        let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else {
            continue;
        };
        for entry in entries.flatten() {
            let is_null = fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str().as_bytes() == b"/null");
            let Some(number) = entry.file_name().to_str().filter(|_| is_null).map(str::to_owned) else {
                continue;
            };
            let Some((mount, inode)) = identity(process, &number) else {
                continue;
            };
            let name = format!("file[{mount:x}:{inode:x}]");
            if !known.contains(&mount) && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

/// The mount and the inode of a descriptor.
fn identity(process: u32, number: &str) -> Option<(u64, u64)> {
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).ok()?;
    let mount = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim()
        .parse()
        .ok()?;
    let stat = nix::sys::stat::stat(Path::new(&format!("/proc/{process}/fd/{number}"))).ok()?;
    Some((mount, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "56 39 0:32 / / rw,nodev,relatime - overlay overlay rw\n\
        55 56 0:34 / /proc rw - proc proc rw\n\
        57 56 0:35 / /dev rw,nosuid - tmpfs tmpfs rw\n\
        62 56 254:0 /c/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw\n\
        63 56 0:77 / /a\\040b rw,relatime - tmpfs volume rw\n\
        65 58 0:25 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw\n\
        46 57 0:39 /null /dev/null rw - tmpfs none rw\n\
        70 55 0:34 /sys /proc/sys ro - proc proc rw\n\
        72 55 0:30 / /proc/acpi ro - tmpfs none rw\n\
        73 55 0:39 /null /proc/kcore rw - tmpfs none rw\n";

    fn spec() -> Spec {
        let text = r#"{"ociVersion":"1.0.0","root":{"path":"r"},"mounts":[{"destination":"/dev","type":"tmpfs"}],
            "linux":{"maskedPaths":["/proc/acpi","/proc/kcore"]}}"#;
        serde_json::from_str(text).unwrap()
    }

    fn outside() -> Outside {
        let lines: Vec<_> = TABLE.lines().filter_map(Line::parse).collect();
        Outside {
            version: 1,
            mounts: mounts(&lines, &spec()).unwrap(),
            pipes: [None, Some(7), Some(8)],
            null: vec!["file[2d:2]".to_owned()],
            network: true,
        }
    }

    #[test]
    fn g13_what_comes_from_outside_is_found() {
        let found: Vec<_> = outside().mounts.into_iter().map(|(place, _)| place).collect();
        assert_eq!(
            found,
            ["/etc/hosts", "/a b", "/sys/fs/cgroup", "/dev/null", "/proc/kcore"]
        );
        let bad = Line::parse("1 2 0:1 /x /a]b rw - ext4 a rw").unwrap();
        assert!(mounts(&[bad], &spec()).unwrap_err().is_unsupported());
        assert_eq!(Line::parse("nonsense"), None);
    }

    #[test]
    fn g13_what_came_from_outside_is_given_again() {
        let outside = outside();
        let mut places = BTreeMap::new();
        for (place, name) in [("/etc/hosts", "1"), ("/a b", "2")] {
            places.insert(PathBuf::from(place), name.to_owned());
        }
        let refused = outside
            .restored(&places, |name| format!("/s/{name}"), 1000)
            .unwrap_err();
        assert!(refused.report().contains("/sys/fs/cgroup"), "{}", refused.report());
        places.insert(PathBuf::from("/sys/fs/cgroup"), "3".to_owned());
        let words = outside.restored(&places, |name| format!("/s/{name}"), 1000).unwrap();
        let words: Vec<_> = words
            .iter()
            .filter(|word| !word.starts_with("--"))
            .map(String::as_str)
            .collect();
        assert_eq!(
            words,
            [
                "mnt[m0]:/s/1",
                "mnt[m1]:/s/2",
                "mnt[m2]:/s/3",
                "mnt[m3]:/s/d/null",
                "mnt[m4]:/s/d/null",
                "fd[1001]:pipe:[7]",
                "fd[1002]:pipe:[8]",
                "fd[1000]:file[2d:2]",
                "fd[1003]:longshore",
            ]
        );
    }

    #[test]
    fn g13_a_damaged_list_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Outside::read(dir.path()).unwrap_err().kind(), &ErrorKind::Corrupt);
        fs::write(dir.path().join(FILE), "{\"version\":1}").unwrap();
        assert_eq!(Outside::read(dir.path()).unwrap_err().kind(), &ErrorKind::Corrupt);
        let mut outside = outside();
        outside.write(dir.path()).unwrap();
        assert_eq!(Outside::read(dir.path()).unwrap(), outside);
        outside.version = 2;
        outside.write(dir.path()).unwrap();
        assert_eq!(Outside::read(dir.path()).unwrap_err().kind(), &ErrorKind::NewerVersion);
    }
}
