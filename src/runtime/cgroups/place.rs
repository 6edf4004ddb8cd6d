//! Where in each hierarchy the owner's parent goes, and, where a controller is out of reach, why.
//!
//! Version 1: below this process's own cgroup, so that what limits the embedder limits its containers.
//!
//! Version 2: a cgroup has either processes or controllers for its children, and the embedder is not moved. So the nearest
//! cgroup, from its own upwards, that this process may write and that has (or can get) the controllers. Cgroups above a
//! delegated one belong to their manager and are passed over, even as root, up to the root of the mount.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::CgroupMode;
use super::files;
use super::layout::{Layout, Tree};

/// The controllers that are switched on for every container where version 2 has them: limits can then be set later.
pub(crate) const USUAL: [&str; 3] = ["memory", "cpu", "pids"];

/// A place for the owner's parent in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) v2: bool,
    pub(crate) dir: PathBuf,
    /// Controllers that children can have.
    pub(crate) controllers: Vec<String>,
}

/// All places.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) layout: Layout,
    pub(crate) v2: Option<Home>,
    pub(crate) v1: Vec<Home>,
    /// Where external runtimes make cgroups, and this engine does not.
    pub(crate) named: Vec<Home>,
}

impl Places {
    /// Looks at this host.
    pub(crate) fn find() -> Self {
        Self::of(Layout::of_this_process())
    }

    pub(crate) fn of(layout: Layout) -> Self {
        let v2 = layout.v2.as_ref().and_then(home_v2);
        let v1 = layout.v1.iter().filter_map(home_v1).collect();
        let named = layout.named.iter().filter_map(home_v1).collect();
        Self { layout, v2, v1, named }
    }

    /// What can be used of the host's cgroups.
    pub(crate) fn mode(&self) -> CgroupMode {
        let usual = |name: &String| USUAL.contains(&name.as_str());
        let on_v2 = self.v2.as_ref().is_some_and(|home| home.controllers.iter().any(usual));
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), false) if !on_v2 => CgroupMode::Hybrid,
            (Some(_), _) => CgroupMode::V2,
            (None, false) => CgroupMode::V1,
            (None, true) => CgroupMode::None,
        }
    }

    /// The place whose children can have a controller. A controller lives in one hierarchy only.
    pub(crate) fn of_controller(&self, controller: &str) -> Option<&Home> {
        let has = |home: &&Home| home.controllers.iter().any(|name| name == controller);
        self.v1.iter().find(has).or_else(|| self.v2.as_ref().filter(has))
    }

    /// Where the hierarchy of a place is mounted.
    pub(crate) fn mount_of(&self, home: &Home) -> Option<&Path> {
        let (v2, v1) = (self.layout.v2.iter(), self.layout.v1.iter().chain(&self.layout.named));
        let mut trees = v2.filter(|_| home.v2).chain(v1.filter(|_| !home.v2));
        let tree = trees.find(|tree| home.dir.starts_with(&tree.mount));
        tree.map(|tree| tree.mount.as_path())
    }

    /// Whether a controller is (or would be) one of version 1 here.
    pub(crate) fn is_v1(&self, controller: &str) -> bool {
        let mounted = |tree: &Tree| tree.controllers.iter().any(|name| name == controller);
        self.layout.v1.iter().any(mounted) || self.layout.v2.is_none()
    }

    /// What to do so that a controller can be used: the exact remedy.
    pub(crate) fn remedy(&self, controller: &str) -> String {
        let tree = self
            .layout
            .v1
            .iter()
            .find(|tree| tree.controllers.iter().any(|name| name == controller));
        if let Some(tree) = tree {
            return remedy_v1(tree, controller);
        }
        match &self.layout.v2 {
            Some(tree) if !self.layout.v1.is_empty() && !offers(&tree.mount, controller) => mount_v1(controller),
            Some(tree) => self.remedy_v2(tree, controller),
            None if self.layout.v1.is_empty() => {
                "mounted cgroups: as root, `mount -t cgroup2 cgroup2 /sys/fs/cgroup`".to_owned()
            }
            None => mount_v1(controller),
        }
    }

    /// What to do so that there is a cgroup of version 2.
    pub(crate) fn remedy_kill(&self) -> String {
        match &self.layout.v2 {
            Some(tree) if !self.layout.v1.is_empty() && !nix::unistd::geteuid().is_root() => {
                remedy_v1(tree, "version 2")
            }
            Some(tree) => unwritable_v2(tree, nix::unistd::geteuid().is_root()),
            None => "as root, `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`"
                .to_owned(),
        }
    }

    fn remedy_v2(&self, tree: &Tree, controller: &str) -> String {
        let root = nix::unistd::geteuid().is_root();
        let Some(home) = &self.v2 else {
            return unwritable_v2(tree, root);
        };
        if !offers(&tree.mount, controller) {
            return format!(
                "the {controller} controller in {}: a kernel that has it, booted without `cgroup_disable={controller}`, or a \
                 container manager that hands it down",
                tree.mount.display()
            );
        }
        let own = tree.own.as_deref().unwrap_or(&home.dir);
        if offers(own, controller) && files::writable(&own.join("cgroup.subtree_control")) {
            return format!(
                "a cgroup without processes above this one (version 2 lets a cgroup have processes or controllers, not both): \
                 start the program in a leaf, `mkdir {0}/main && echo $$ > {0}/main/cgroup.procs`, or by systemd with \
                 `-p Delegate=yes -p DelegateSubgroup=main`",
                own.display()
            );
        }
        if root {
            return format!("write access to {}/cgroup.subtree_control", home.dir.display());
        }
        format!(
            "systemd to delegate the {controller} controller: as root, `mkdir -p /etc/systemd/system/user@.service.d && printf \
             '[Service]\\nDelegate=cpu cpuset io memory pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf && \
             systemctl daemon-reload`, then log in again"
        )
    }
}

fn unwritable_v2(tree: &Tree, root: bool) -> String {
    if root {
        return format!("writable cgroups: `mount -o remount,rw {}`", tree.mount.display());
    }
    "a delegated cgroup: start the program with `systemd-run --user --scope -p Delegate=yes PROGRAM`".to_owned()
}

fn remedy_v1(tree: &Tree, controller: &str) -> String {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return format!("writable cgroups: `mount -o remount,rw {}`", tree.mount.display());
    }
    let dir = tree.own.as_ref().unwrap_or(&tree.mount).display();
    // A new cpuset takes no process until it has both.
    let fill = if tree.controllers.iter().any(|name| name == "cpuset") {
        " && for f in cpuset.cpus cpuset.mems; do cat ../$f > $f; done"
    } else {
        ""
    };
    format!(
        "a {controller} cgroup that user {user} may write: as root, `mkdir -p {dir}/longshore && cd {dir}/longshore{fill} && \
         chown {user} . cgroup.procs && for f in tasks cgroup.subtree_control cgroup.threads; do test ! -e $f || chown {user} \
         $f; done && echo PID > cgroup.procs` with the program's pid"
    )
}

fn mount_v1(controller: &str) -> String {
    format!(
        "the {controller} controller: as root, `mkdir -p /sys/fs/cgroup/{controller} && mount -t cgroup -o {controller} cgroup \
         /sys/fs/cgroup/{controller}` (if /proc/cgroups lists it)"
    )
}

fn home_v1(tree: &Tree) -> Option<Home> {
    let candidates = tree.own.iter().chain([&tree.mount]);
    let dir = candidates
        .into_iter()
        .find(|dir| files::writable(dir) && files::writable(&dir.join("cgroup.procs")))?;
    Some(Home {
        v2: false,
        dir: dir.clone(),
        controllers: tree.controllers.clone(),
    })
}

fn home_v2(tree: &Tree) -> Option<Home> {
    let own = tree.own.as_deref().unwrap_or(&tree.mount);
    let levels = own.ancestors().take_while(|dir| dir.starts_with(&tree.mount));
    let mut best: Option<(usize, Level)> = None;
    for dir in levels {
        if !files::writable(dir) || !files::writable(&dir.join("cgroup.procs")) {
            continue;
        }
        let level = Level::of(dir);
        if dir != own && dir != tree.mount && !level.is_ours() {
            continue;
        }
        let score = USUAL
            .iter()
            .filter(|name| level.attainable.iter().any(|have| have == *name))
            .count();
        if best.as_ref().is_none_or(|(most, _)| score > *most) {
            best = Some((score, level));
        }
    }
    best.map(|(_, level)| Home {
        v2: true,
        dir: level.dir,
        controllers: level.attainable,
    })
}

/// One cgroup of version 2 on the way up.
struct Level {
    dir: PathBuf,
    attainable: Vec<String>,
}

impl Level {
    fn of(dir: &Path) -> Self {
        let on = files::words(&dir.join("cgroup.subtree_control"));
        // Only the true root may have both; it alone has no `cgroup.type`.
        let is_root = !dir.join("cgroup.type").exists();
        let empty = || is_root || files::words(&dir.join("cgroup.procs")).is_empty();
        let can_enable = files::writable(&dir.join("cgroup.subtree_control")) && empty();
        let mut attainable = files::words(&dir.join("cgroup.controllers"));
        attainable.retain(|name| can_enable || on.contains(name));
        Self {
            dir: dir.to_path_buf(),
            attainable,
        }
    }

    /// Given to this user by its owner, or, as root, inside a unit that systemd has delegated: systemd itself makes no
    /// cgroups inside a service or scope, so whoever lives below one has been given it.
    fn is_ours(&self) -> bool {
        let user = nix::unistd::geteuid();
        if user.is_root() {
            return self
                .dir
                .extension()
                .is_some_and(|kind| kind == "service" || kind == "scope");
        }
        self.dir.metadata().is_ok_and(|meta| meta.uid() == user.as_raw())
    }
}

fn offers(dir: &Path, controller: &str) -> bool {
    files::words(&dir.join("cgroup.controllers"))
        .iter()
        .any(|name| name == controller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_says_what_can_be_used() {
        let home = |v2, controllers: &[&str]| Home {
            v2,
            dir: PathBuf::from("/x"),
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        };
        let places = |v2, v1: &[&str]| Places {
            layout: Layout::default(),
            v2,
            v1: if v1.is_empty() {
                Vec::new()
            } else {
                vec![home(false, v1)]
            },
            named: Vec::new(),
        };
        assert_eq!(places(None, &[]).mode(), CgroupMode::None);
        assert_eq!(places(None, &["memory"]).mode(), CgroupMode::V1);
        assert_eq!(places(Some(home(true, &[])), &["memory"]).mode(), CgroupMode::Hybrid);
        assert_eq!(places(Some(home(true, &["memory"])), &[]).mode(), CgroupMode::V2);
        assert_eq!(places(Some(home(true, &[])), &[]).mode(), CgroupMode::V2);
    }

    #[test]
    fn a_populated_cgroup_is_passed_over() {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join("app.service/main");
        std::fs::create_dir_all(&own).unwrap();
        for (dir, procs) in [(top.path(), ""), (&top.path().join("app.service"), ""), (&own, "17\n")] {
            for (file, text) in [
                ("cgroup.procs", procs),
                ("cgroup.controllers", "cpu memory pids\n"),
                ("cgroup.subtree_control", ""),
                ("cgroup.type", "domain\n"),
            ] {
                std::fs::write(dir.join(file), text).unwrap();
            }
        }
        let tree = Tree {
            mount: top.path().to_path_buf(),
            own: Some(own.clone()),
            controllers: Vec::new(),
        };
        let home = home_v2(&tree).unwrap();
        assert_eq!(home.dir, top.path().join("app.service"));
        assert_eq!(home.controllers, ["cpu", "memory", "pids"]);

        std::fs::write(top.path().join("app.service/cgroup.procs"), "16\n").unwrap();
        assert_eq!(home_v2(&tree).unwrap().dir, top.path());

        std::fs::write(top.path().join("cgroup.procs"), "1\n").unwrap();
        let home = home_v2(&tree).unwrap();
        assert_eq!((home.dir, home.controllers.len()), (own, 0));
        let places = Places::of(Layout {
            v2: Some(tree),
            ..Layout::default()
        });
        assert!(
            places.remedy("memory").contains("DelegateSubgroup"),
            "{}",
            places.remedy("memory")
        );
    }

    #[test]
    fn every_gap_has_a_remedy() {
        for name in USUAL {
            assert!(Places::default().remedy(name).contains('`'));
            assert!(!Places::find().remedy(name).is_empty());
        }
    }
}
