//! Where the host's cgroups are and which of them this process is in. Pure: text in, paths out.

use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// The directory of this process's own cgroup, if the mount shows it.
    pub(crate) own: Option<PathBuf>,
    /// Its controllers. Of version 2, they are read from the directory instead.
    pub(crate) controllers: Vec<String>,
}

/// All mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) v2: Option<Tree>,
    pub(crate) v1: Vec<Tree>,
    /// Hierarchies of version 1 without controllers, `name=systemd`: external runtimes make cgroups in them too.
    pub(crate) named: Vec<Tree>,
}

impl Layout {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`. What cannot be read counts as absent.
    pub(crate) fn of_this_process() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::parse(&mounts, &own)
    }

    /// Parses the two files, see proc(5) and cgroups(7). The first mount of a hierarchy counts.
    pub(crate) fn parse(mountinfo: &str, self_cgroup: &str) -> Self {
        let mut layout = Self::default();
        for mount in mountinfo.lines().filter_map(MountLine::parse) {
            match mount.kind {
                "cgroup2" if layout.v2.is_none() => {
                    let own = own_path(self_cgroup, |controllers| controllers.is_empty());
                    layout.v2 = Some(mount.tree(own, Vec::new()));
                }
                "cgroup" => layout.add_v1(&mount, self_cgroup),
                _ => {}
            }
        }
        layout
    }

    fn add_v1(&mut self, mount: &MountLine<'_>, self_cgroup: &str) {
        let controllers: Vec<String> = mount.controllers().map(str::to_owned).collect();
        let known = |name: &String| self.v1.iter().any(|tree| tree.controllers.contains(name));
        if let Some(name) = mount.name() {
            let own = own_path(self_cgroup, |list| list.split(',').any(|word| word == name));
            self.named.push(mount.tree(own, Vec::new()));
            return;
        }
        if controllers.is_empty() || controllers.iter().any(known) {
            return;
        }
        let own = own_path(self_cgroup, |list| {
            list.split(',').any(|name| controllers.iter().any(|c| c == name))
        });
        let tree = mount.tree(own, controllers);
        self.v1.push(tree);
    }
}

struct MountLine<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> MountLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let root = PathBuf::from(unescape(left.next()?));
        let point = PathBuf::from(unescape(left.next()?));
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1).unwrap_or_default();
        Some(Self {
            root,
            point,
            kind,
            options,
        })
    }

    /// Controllers among the options of the super block. Named hierarchies (`name=systemd`) have none.
    fn controllers(&self) -> impl Iterator<Item = &'a str> {
        const OTHERS: [&str; 7] = [
            "rw",
            "ro",
            "noprefix",
            "clone_children",
            "xattr",
            "none",
            "cpuset_v2_mode",
        ];
        self.options
            .split(',')
            .filter(|option| !option.contains('=') && !OTHERS.contains(option) && !option.is_empty())
    }

    /// `name=systemd`, of a hierarchy that has a name and no controllers.
    fn name(&self) -> Option<&'a str> {
        let mut words = self.options.split(',');
        words.find(|option| option.starts_with("name=") && self.controllers().next().is_none())
    }

    fn tree(&self, own: Option<&str>, controllers: Vec<String>) -> Tree {
        let own = own.and_then(|own| {
            // The mount may show only a part (a bind mount, an outer cgroup namespace).
            let inside = Path::new(own).strip_prefix(&self.root).ok()?;
            let plain = inside
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            plain.then(|| {
                if inside.as_os_str().is_empty() {
                    self.point.clone()
                } else {
                    self.point.join(inside)
                }
            })
        });
        Tree {
            mount: self.point.clone(),
            own,
            controllers,
        }
    }
}

/// The path of the line whose controller list `wanted` accepts.
fn own_path(self_cgroup: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    self_cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        (wanted(controllers) && !path.ends_with(" (deleted)")).then_some(path)
    })
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
pub(crate) fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let Some(code) = code else {
            out.push('\\');
            rest = &rest[at + 1..];
            continue;
        };
        out.push(char::from(code));
        rest = &rest[at + 4..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:32 /a /mnt/memory rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn hybrid_hosts_have_both() {
        let layout = Layout::parse(
            HYBRID,
            "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/s/y.service\n",
        );
        let v2 = layout.v2.unwrap();
        assert_eq!(v2.own.unwrap(), Path::new("/sys/fs/cgroup/unified/s/y.service"));
        assert_eq!(layout.v1.len(), 2);
        assert_eq!(layout.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(
            layout.v1[0].own.as_deref(),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))
        );
        assert_eq!(
            layout.v1[1].own.as_deref(),
            Some(Path::new("/sys/fs/cgroup/memory/a/b"))
        );
    }

    #[test]
    fn pure_version_two() {
        let mounts = "25 30 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        let layout = Layout::parse(mounts, "0::/user.slice/user-1000.slice/session-1.scope\n");
        assert!(layout.v1.is_empty());
        let own = layout.v2.unwrap().own.unwrap();
        assert_eq!(
            own,
            Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/session-1.scope")
        );
    }

    #[test]
    fn mounts_that_do_not_show_this_process() {
        let bind = "25 30 0:23 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let own = |text| Layout::parse(bind, text).v2.unwrap().own;
        assert_eq!(own("0::/docker/abc/x\n"), Some(PathBuf::from("/sys/fs/cgroup/x")));
        assert_eq!(own("0::/docker/abc\n"), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(own("0::/docker/abcd\n"), None);
        assert_eq!(own("0::/../other\n"), None);
        assert_eq!(own("0::/docker/abc/../x\n"), None);
        assert_eq!(own("0::/docker/abc/x (deleted)\n"), None);
    }

    #[test]
    fn nothing_mounted_and_escapes() {
        assert_eq!(Layout::parse("", ""), Layout::default());
        let odd = "1 2 0:1 / /a\\040b\\134c rw - cgroup2 none rw\n";
        assert_eq!(Layout::parse(odd, "0::/\n").v2.unwrap().mount, Path::new("/a b\\c"));
        assert_eq!(unescape("x\\9z\\"), "x\\9z\\");
    }
}
