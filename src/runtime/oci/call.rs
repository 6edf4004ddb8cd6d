//! The command line of runc and crun, and one run of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use super::said;
use crate::error::{Error, Result};
use crate::runtime::StdioPlan;
use crate::runtime::cgroups::{Cgroup, CgroupMode};
use crate::runtime::native::plan::{FdPositions, Plan};
use crate::runtime::native::start::{Ends, Stdio};
use crate::runtime::native::tool::{self, Bench, Run};
use crate::sys::blocking::blocking;
use crate::types::ContainerId;
use std::os::fd::OwnedFd;

/// Where a run finds what it needs: a memory file system of its own, over whatever the host has there.
pub(super) const STAGE: &str = "/tmp";
/// The name of the root in it.
pub(super) const ROOT: &str = "r";
/// The directory in it that is the container's on the host.
const OWN: &str = "o";

/// Whose words a program understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Runc,
    /// It leaves cgroups alone if asked to: then it is started where the container belongs. Those of hybrid hosts it refuses.
    Crun,
}

/// An OCI runtime on the host.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    pub(super) flavour: Flavour,
}

impl Program {
    pub(super) fn at(path: PathBuf) -> Self {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let flavour = if name.contains("crun") {
            Flavour::Crun
        } else {
            Flavour::Runc
        };
        Self { path, flavour }
    }

    /// The words of a run that leaves its log under a name.
    fn words(&self, log: &str, verb: &[&str]) -> Result<Vec<String>> {
        let path = self
            .path
            .to_str()
            .ok_or_else(|| Error::invalid("the path of the runtime is no UTF-8"))?;
        let mut words: Vec<String> = [path, "--root", &own("s"), "--log", &own(log), "--log-format", "json"]
            .map(str::to_owned)
            .to_vec();
        if self.flavour == Flavour::Crun {
            words.push("--cgroup-manager=disabled".to_owned());
        }
        words.extend(verb.iter().map(|word| (*word).to_owned()));
        Ok(words)
    }

    /// crun refuses hosts with both versions, also where it is told to leave cgroups alone; of hosts that have none it thinks
    /// that they have version 1. Source: `libcrun_cgroup_enter()` of crun 1.8.
    fn is_afraid_of_cgroups(&self) -> bool {
        self.flavour == Flavour::Crun && Path::new("/sys/fs/cgroup/unified").is_dir()
    }

    /// Whether it is started in the container's cgroup: of version 2 and version 1.
    pub(super) fn starts_inside(&self, mode: CgroupMode) -> (bool, bool) {
        match (self.flavour, mode) {
            (Flavour::Crun, _) => (true, true),
            // runc looks at the hierarchies of version 1 alone there.
            (Flavour::Runc, CgroupMode::Hybrid) => (true, false),
            (Flavour::Runc, _) => (false, false),
        }
    }
}

/// The place of a file of the container's own, as a run sees it.
pub(super) fn own(name: &str) -> String {
    format!("{STAGE}/{OWN}/{name}")
}

/// A container's directory for its runtime: the bundle, what the runtime keeps, logs, sockets.
#[derive(Debug)]
pub(super) struct Work {
    dir: PathBuf,
    next: AtomicU64,
}

impl Work {
    /// Makes it anew. Blocking.
    pub(super) fn make(bundle: &Path) -> Result<Self> {
        let dir = bundle.join("oci");
        let os = |error| Error::os("make a directory for the runtime", error);
        remove(&dir).map_err(os)?;
        fs::create_dir_all(dir.join("s")).map_err(os)?;
        fs::create_dir(dir.join(ROOT)).map_err(os)?;
        private(&dir).map_err(os)?;
        Ok(Self {
            dir,
            next: AtomicU64::new(0),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A name that no run has had.
    pub(super) fn fresh(&self, what: &str) -> String {
        format!("{what}{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Blocking.
    pub(super) fn remove(&self) -> Result<()> {
        remove(&self.dir).map_err(|error| Error::os("remove what a runtime has kept", error))
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Nobody else's: whoever connects to a console's socket there is the runtime.
fn private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// One run: what it is about, and what is told of it where it fails.
pub(super) struct Call<'a> {
    pub(super) bench: &'a Bench,
    pub(super) program: &'a Program,
    /// The runtime, as the caller knows it.
    pub(super) name: &'a str,
    pub(super) id: &'a ContainerId,
    pub(super) work: &'a Work,
}

impl Call<'_> {
    /// The plan of a run, and the name of its log.
    pub(super) fn plan(&self, verb: &[&str]) -> Result<(Plan, String)> {
        let log = self.work.fresh("log");
        let words = self.program.words(&log, verb)?;
        let root = self.work.file(ROOT);
        let mut places = vec![(OWN, self.work.dir())];
        if verb.first() != Some(&"create") {
            // runc goes there first, whatever it is about to do.
            places.push((ROOT, root.as_path()));
        }
        let mut plan = Plan::tool(&words, Path::new(STAGE), &places)?;
        plan.with_streams(self.bench.host);
        if self.program.is_afraid_of_cgroups() {
            plan.hide_cgroups();
        }
        Ok((plan, log))
    }

    /// Runs to the end with streams and all.
    ///
    /// # Errors
    /// What the runtime says, if it ends with another status than 0.
    pub(super) async fn run(
        &self,
        verb: &'static str,
        (plan, log): (Plan, String),
        ends: Ends,
        with: (FdPositions, Vec<OwnedFd>),
    ) -> Result<(Run, Stdio)> {
        let Bench { zygote, host, .. } = self.bench;
        let (run, status, stdio) = Run::to_end(zygote, plan, *host, self.id, ends, with).await?;
        let log = self.work.file(&log);
        let read = blocking(move || Ok(said::take(&log))).await.unwrap_or_default();
        match status.success() {
            true => Ok((run, stdio)),
            false => Err(said::error(self.name, verb, &read, status)),
        }
    }

    /// Runs a verb that is given nothing of the container.
    pub(super) async fn verb(&self, verb: &'static str, words: &[&str]) -> Result<()> {
        let ends = Ends::new(StdioPlan::default())?;
        let with = tool::alone(&ends)?;
        self.run(verb, self.plan(words)?, ends, with).await.map(drop)
    }

    /// Descriptors for a run: those that come along, and the container's cgroup as far as the program is started in it.
    pub(super) fn positions(
        &self,
        ends: &Ends,
        trees: Vec<std::os::fd::BorrowedFd<'_>>,
        cgroup: Option<&dyn Cgroup>,
    ) -> Result<(FdPositions, Vec<OwnedFd>)> {
        let (v2, v1) = cgroup.map_or((false, false), |cgroup| self.program.starts_inside(cgroup.mode()));
        let (mut positions, fds) = ends.positions(trees.into_iter(), cgroup.filter(|_| v2 || v1));
        if !v2 {
            positions.cgroup = FdPositions::default().cgroup;
        }
        if !v1 {
            positions.v1_count = 0;
        }
        Ok((positions, tool::copies(fds.into_iter())?))
    }
}

/// The number in a file that a run has left.
///
/// # Errors
/// `Internal` if there is none.
pub(super) fn pid_in(file: &Path) -> Result<i32> {
    let text = fs::read_to_string(file).map_err(|error| Error::os("read what the runtime has started", error))?;
    text.trim()
        .parse()
        .map_err(|_| Error::internal("the runtime wrote no pid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h21_the_command_lines_of_runc_and_crun() {
        let runc = Program::at("/usr/sbin/runc".into());
        assert_eq!(
            runc.words("log1", &["start", "id"]).unwrap().join(" "),
            "/usr/sbin/runc --root /tmp/o/s --log /tmp/o/log1 --log-format json start id"
        );
        let crun = Program::at("/opt/crun-1.2".into());
        let words = crun.words("log2", &["delete", "--force", "id"]).unwrap().join(" ");
        assert!(
            words.contains(" --cgroup-manager=disabled delete --force id"),
            "{words}"
        );
        assert_eq!(crun.starts_inside(CgroupMode::V2), (true, true));
        assert_eq!(runc.starts_inside(CgroupMode::V2), (false, false));
        assert_eq!(runc.starts_inside(CgroupMode::Hybrid), (true, false));
    }

    #[test]
    fn h21_a_directory_of_an_earlier_start_goes() {
        let bundle = tempfile::tempdir().unwrap();
        let work = Work::make(bundle.path()).unwrap();
        fs::write(work.file("pid"), "x").unwrap();
        assert!(pid_in(&work.file("pid")).is_err());
        let work = Work::make(bundle.path()).unwrap();
        assert!(!work.file("pid").exists() && work.file("s").is_dir());
        assert_ne!(work.fresh("log"), work.fresh("log"));
        fs::write(work.file("pid"), "17").unwrap();
        assert_eq!(pid_in(&work.file("pid")).unwrap(), 17);
        work.remove().unwrap();
        work.remove().unwrap();
    }
}
