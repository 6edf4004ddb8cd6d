//! Cgroups in a parent that the caller names: `CgroupDriver::create_in` of the native driver.
//!
//! What limits the parent is to limit the container, whichever hierarchy that is in. So a container is in its parent in all of them,
//! and not only where it has a limit of its own.
//!
//! Directories of the parent's path that are not there are made, and removed by whoever finds them empty last. They can be told
//! from those of others by a mark that comes into being with them, in one system call, and that every process sees: the sticky bit
//! in their mode. It changes nothing for who may write there, as it is the owner's own processes that remove anything.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::LinuxResources;

use super::Cgroup;
use super::convert::Setting;
use super::files;
use super::group::{NativeCgroup, Part};
use super::native::{NativeCgroups, Shared, inherit_cpuset};
use super::place::Home;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::{CgroupParent, ContainerId};

/// How often a container's cgroup is tried to be made in a parent that somebody else removes as empty.
const TRIES: usize = 16;

/// A parent in one hierarchy.
struct Spot<'a> {
    home: &'a Home,
    /// Directories from the one that is there in any case to the parent.
    levels: Vec<PathBuf>,
}

impl Spot<'_> {
    /// What may have to be made of the parent, the deepest first.
    fn own_levels(&self) -> impl Iterator<Item = &PathBuf> {
        self.levels.iter().skip(1).rev()
    }

    fn parent(&self) -> &Path {
        self.levels.last().map_or(&self.home.dir, PathBuf::as_path)
    }

    fn part(&self, id: &ContainerId) -> Part {
        Part {
            v2: self.home.v2,
            dir: self.parent().join(id.as_str()),
            parent: self.parent().to_owned(),
            above: Vec::new(),
            controllers: self.home.controllers.clone(),
        }
    }
}

impl NativeCgroups {
    /// See [`super::CgroupDriver::create_in`].
    #[inline(never)]
    pub(super) fn make_in_parent(
        shared: &std::sync::Arc<Shared>,
        parent: &CgroupParent,
        id: &ContainerId,
        resources: &LinuxResources,
        best_effort: bool,
    ) -> Result<Box<dyn Cgroup>> {
        let (settings, warnings) = shared.decide(resources, best_effort)?;
        let parts = shared.make_at(parent, id, &settings)?;
        NativeCgroup::made(shared, id, (parts, warnings), (&settings, resources), best_effort)
    }
}

impl Shared {
    /// See [`super::CgroupDriver::directories_in`].
    #[inline(never)]
    pub(super) fn directories_in(&self, parent: &CgroupParent, id: &ContainerId) -> Result<Vec<PathBuf>> {
        let spots = self.spots(parent)?;
        let own = spots.iter().map(|spot| spot.parent().join(id.as_str()));
        let above = spots.iter().flat_map(Spot::own_levels);
        let ours = |dir: &&PathBuf| !dir.exists() || is_marked(dir);
        Ok(own.chain(above.filter(ours).cloned()).collect())
    }

    /// Where the parent is in each hierarchy.
    fn spots(&self, parent: &CgroupParent) -> Result<Vec<Spot<'_>>> {
        let spot = |home| self.spot(parent, home);
        let spots: Vec<Spot<'_>> = self.all_homes().filter_map(spot).collect();
        if spots.is_empty() {
            let needs = self.places().remedy("memory");
            return Err(about(Error::unsupported(format!("the cgroup parent {parent}"), needs)));
        }
        self.refuse_out_of_reach(parent, &spots).map_err(about)?;
        Ok(spots)
    }

    /// `None` in a hierarchy of which only a part is mounted, and not this one.
    fn spot<'a>(&self, parent: &CgroupParent, home: &'a Home) -> Option<Spot<'a>> {
        let base = match parent.is_absolute() {
            true => self.places().mount_of(home)?,
            false => &home.dir,
        };
        let mut levels = vec![base.to_owned()];
        for name in parent.names() {
            let next = levels.last()?.join(name);
            levels.push(next);
        }
        Some(Spot { home, levels })
    }

    /// A parent that is there in a hierarchy in which this process can make nothing may have limits, and they would not hold.
    fn refuse_out_of_reach(&self, parent: &CgroupParent, spots: &[Spot<'_>]) -> Result<()> {
        if !parent.is_absolute() {
            return Ok(());
        }
        let below: PathBuf = parent.names().collect();
        let trees = self.places().layout.v1.iter().chain(&self.places().layout.v2);
        for tree in trees.filter(|_| !below.as_os_str().is_empty()) {
            let taken = spots.iter().any(|spot| spot.levels.first() == Some(&tree.mount));
            let dir = tree.mount.join(&below);
            if !taken && dir.is_dir() {
                return Err(not_writable(parent, &dir));
            }
        }
        Ok(())
    }

    /// Makes the container's directory in every hierarchy, with what is missing above it.
    fn make_at(&self, parent: &CgroupParent, id: &ContainerId, settings: &[Setting]) -> Result<Vec<Part>> {
        let spots = self.spots(parent)?;
        // A parent that was found here must not be removed as empty by another thread.
        let _guard = self.lock();
        let mut made = Vec::new();
        for spot in &spots {
            let mut done = self.make_spot(parent, spot, id, settings, &mut made);
            for _ in 1..TRIES {
                match &done {
                    // Of another process, which has found it empty.
                    Err(error) if error.errno() == Some(libc::ENOENT) => {}
                    _ => break,
                }
                done = self.make_spot(parent, spot, id, settings, &mut made);
            }
            if let Err(error) = done {
                let _ = self.unmake(&made, Instant::now());
                spots.iter().flat_map(Spot::own_levels).for_each(|dir| leave(dir));
                return Err(about(error));
            }
        }
        for (part, spot) in made.iter_mut().zip(&spots) {
            part.above = spot.own_levels().filter(|dir| is_marked(dir)).cloned().collect();
        }
        Ok(made)
    }

    fn make_spot(
        &self,
        parent: &CgroupParent,
        spot: &Spot<'_>,
        id: &ContainerId,
        settings: &[Setting],
        made: &mut Vec<Part>,
    ) -> Result<()> {
        let part = spot.part(id);
        let cpuset = !part.v2 && part.controllers.iter().any(|name| name == "cpuset");
        for step in spot.levels.windows(2) {
            make_level(parent, &step[1])?;
            if cpuset {
                inherit_cpuset(&step[0], &step[1])?;
            }
        }
        if part.v2 {
            let levels: Vec<&Path> = spot.levels.iter().map(PathBuf::as_path).collect();
            self.enable(&part.controllers, &levels, settings)?;
        }
        fs::create_dir(&part.dir).map_err(|error| not_made(parent, &part.dir, error))?;
        let (above, dir) = (part.parent.clone(), part.dir.clone());
        made.push(part);
        if cpuset { inherit_cpuset(&above, &dir) } else { Ok(()) }
    }

    /// Removes what this engine has made above a container, as far as nothing else is in it.
    pub(super) fn leave_parents(&self, parts: &[Part]) {
        let named: Vec<&PathBuf> = parts.iter().flat_map(|part| &part.above).collect();
        if named.is_empty() {
            return;
        }
        let _guard = self.lock();
        named.into_iter().for_each(|dir| leave(dir));
    }
}

/// What is above a container's directory, and goes when it is empty: the parent of an owner's containers, or what engines have made
/// of a parent that was named.
pub(super) fn above(dir: &Path, mount: &Path, parent_of_owner: &str) -> Vec<PathBuf> {
    let Some(parent) = dir.parent() else { return Vec::new() };
    if parent.file_name() == Some(parent_of_owner.as_ref()) {
        return vec![parent.to_owned()];
    }
    let levels = parent
        .ancestors()
        .take_while(|dir| *dir != mount && dir.starts_with(mount));
    levels.filter(|dir| is_marked(dir)).map(Path::to_owned).collect()
}

/// Whether an engine has made a directory for whoever named it as a parent.
pub(crate) fn is_marked(dir: &Path) -> bool {
    let meta = fs::symlink_metadata(dir);
    meta.is_ok_and(|meta| meta.is_dir() && meta.mode() & libc::S_ISVTX != 0)
}

/// Removes a directory that an engine has made, unless something is in it.
fn leave(dir: &Path) {
    if is_marked(dir) {
        let _ = files::remove_dir(dir);
    }
}

fn make_level(parent: &CgroupParent, dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o755 | libc::S_ISVTX).create(dir);
    match made {
        // A file of the kernel's has that name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !dir.is_dir() => {
            // Or it went just now.
            let gone = !dir.exists();
            let why = format!("{} is no cgroup", dir.display());
            Err(match gone {
                true => Error::os("make the cgroup's parent", io::Error::from_raw_os_error(libc::ENOENT)),
                false => Error::invalid(format!("invalid cgroup parent {parent}: {why}")).with_source(error),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|error| not_made(parent, dir, error)),
    }
}

fn not_made(parent: &CgroupParent, dir: &Path, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => not_writable(parent, dir).with_source(error),
        // Source: cgroup.max.depth and cgroup.max.descendants, Documentation/admin-guide/cgroup-v2.rst.
        Some(libc::EAGAIN) => {
            let needs = format!(
                "room for another cgroup: see cgroup.max.depth and cgroup.max.descendants above {}",
                dir.display()
            );
            Error::unsupported(format!("the cgroup parent {parent}"), needs).with_source(error)
        }
        Some(libc::EEXIST) => {
            let failed = Error::os(format!("make the cgroup {}", dir.display()), error);
            failed.with_kind(ErrorKind::Conflict)
        }
        _ => Error::os(format!("make the cgroup {}", dir.display()), error),
    }
}

fn not_writable(parent: &CgroupParent, dir: &Path) -> Error {
    let user = nix::unistd::geteuid();
    let above = dir.parent().unwrap_or(dir).display();
    let needs = format!(
        "a cgroup that user {user} may write, for {} to be made: {above} is none",
        dir.display()
    );
    Error::unsupported(format!("the cgroup parent {parent}"), needs)
}

fn about(error: Error) -> Error {
    match error.object() {
        Some(_) => error,
        None => error.with_object(ObjectKind::Option, "cgroup_parent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h22_only_what_an_engine_has_made_goes() {
        let top = tempfile::tempdir().unwrap();
        let parent: CgroupParent = "/theirs/ours/both".parse().unwrap();
        let theirs = top.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        let dirs: Vec<PathBuf> = ["theirs", "theirs/ours", "theirs/ours/both"]
            .iter()
            .map(|dir| top.path().join(dir))
            .collect();
        for dir in &dirs {
            make_level(&parent, dir).unwrap();
            make_level(&parent, dir).unwrap();
        }
        assert_eq!(
            dirs.iter().map(|dir| is_marked(dir)).collect::<Vec<_>>(),
            [false, true, true]
        );
        let of_container = dirs[2].join("c");
        assert_eq!(
            above(&of_container, top.path(), "x"),
            [dirs[2].clone(), dirs[1].clone()]
        );
        assert_eq!(above(&of_container, top.path(), "both"), [dirs[2].clone()]);

        // As long as something is in it, it stays.
        dirs.iter().for_each(|dir| leave(dir));
        assert!(!dirs[2].exists() && dirs[1].exists());
        dirs.iter().rev().for_each(|dir| leave(dir));
        assert!(!dirs[1].exists() && theirs.exists());
    }

    #[test]
    fn h22_a_file_is_no_parent() {
        let top = tempfile::tempdir().unwrap();
        let parent: CgroupParent = "/cgroup.procs".parse().unwrap();
        let file = top.path().join("cgroup.procs");
        fs::write(&file, "").unwrap();
        let refused = make_level(&parent, &file).unwrap_err();
        assert_eq!(refused.kind(), &ErrorKind::InvalidArgument);
        let beneath = make_level(&parent, &top.path().join("gone/x")).unwrap_err();
        assert_eq!(beneath.errno(), Some(libc::ENOENT));
    }
}
