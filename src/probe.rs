//! What this host offers to containers, and for each "no", what to do about it.
//!
//! Looks at files and makes harmless system calls; changes nothing, keeps nothing open, and takes some milliseconds. The
//! only process it makes is a child that ends at once in new namespaces: the one way to know whether they are granted.

mod cgroups;
#[cfg(feature = "engine")]
mod chroot;
mod kernel;
mod network;
mod storage;
mod users;

use std::borrow::Cow;
use std::fmt;

/// Whether the host has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It is there and works.
    Yes,
    /// It is not, or it is forbidden.
    No,
    /// It cannot be known without doing it.
    Unknown,
}

impl State {
    /// The word used in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that a host may offer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// A stable name in snake case.
    pub name: &'static str,
    /// Whether it is there.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// For a "no": the command, setting or package that makes it a "yes".
    pub remedy: Option<String>,
}

impl Feature {
    fn yes(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Yes,
            detail: detail.into(),
            remedy: None,
        }
    }

    fn no(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            state: State::No,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn unknown(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Unknown,
            detail: detail.into(),
            remedy: None,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// All features, in a fixed order.
    pub features: Vec<Feature>,
}

impl Probe {
    /// A feature by its name.
    pub fn get(&self, name: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }

    /// Whether a feature is there for sure.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|feature| feature.state == State::Yes)
    }

    /// The features that are missing.
    pub fn missing(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter().filter(|feature| feature.state == State::No)
    }
}

impl fmt::Display for Probe {
    /// A table of name, state and detail, the remedy below each "no".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .features
            .iter()
            .map(|feature| feature.name.len())
            .max()
            .unwrap_or(0);
        for Feature {
            name,
            state,
            detail,
            remedy,
        } in &self.features
        {
            let line: Cow<'_, str> = format!("{name:width$}  {state:7}  {detail}").into();
            writeln!(f, "{}", line.trim_end())?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:width$}  {:7}  -> {remedy}", "", "")?;
            }
        }
        Ok(())
    }
}

/// Looks at this host, as the user who runs this program. Blocks for some milliseconds.
pub fn probe() -> Probe {
    let mut features = Vec::new();
    features.extend(kernel::features());
    features.extend(users::features());
    features.extend(storage::features());
    features.extend(cgroups::features());
    features.extend(network::features());
    #[cfg(feature = "engine")]
    features.push(chroot::feature());
    Probe { features }
}

/// A number of `/proc/sys`, by its name with dots.
fn sysctl(name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The kernel's release (`6.1.0-18-amd64`).
fn release() -> String {
    nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Whether the running kernel has a module at hand, loaded on demand or built in. `None`: there is no list of modules.
fn module(name: &str) -> Option<bool> {
    let dir = std::path::PathBuf::from("/lib/modules").join(release());
    let lists: Vec<String> = ["modules.builtin", "modules.dep"]
        .iter()
        .filter_map(|list| std::fs::read_to_string(dir.join(list)).ok())
        .collect();
    if lists.is_empty() {
        return None;
    }
    let file = format!("/{name}.ko");
    Some(lists.iter().any(|list| list.contains(&file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_no_has_a_remedy_and_names_are_unique() {
        let probe = probe();
        for feature in &probe.features {
            assert!(!feature.detail.is_empty(), "{}", feature.name);
            assert_eq!(feature.remedy.is_some(), feature.state == State::No, "{feature:?}");
        }
        let mut names: Vec<_> = probe.features.iter().map(|feature| feature.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), probe.features.len());
        for name in [
            "kernel",
            "user_namespaces",
            "overlay",
            "cgroup",
            "seccomp",
            "pidfd",
            "nftables",
            "memfd_exec",
        ] {
            assert!(probe.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_table_is_readable() {
        let features = vec![
            Feature::yes("overlay", "found"),
            Feature::no("subuid_range", "none", "`usermod …`"),
        ];
        let text = Probe { features }.to_string();
        assert_eq!(
            text,
            "overlay       yes      found\nsubuid_range  no       none\n                       -> `usermod …`\n"
        );
    }

    #[test]
    fn this_host_is_shown() {
        // Seen with --nocapture; CI keeps it as a record of the machine.
        let text = probe().to_string();
        std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).ok();
        assert!(text.lines().count() >= 15);
    }
}
