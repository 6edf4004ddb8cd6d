//! Where a caller wants a container's cgroup to be.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ContainerId;
use crate::error::{Error, ObjectKind, Result};

/// The longest one, in bytes. Paths of the kernel end at 4096, and the mount, the container's id and what it makes itself are in
/// them too.
const LONGEST: usize = 1024;
/// The longest name of a directory. Source: `NAME_MAX` of the kernel.
const LONGEST_NAME: usize = 255;
/// What the names begin with of cgroups that engines make for themselves, and remove with all that is in them.
const OURS: &str = "longshore-";

/// A cgroup for containers to be made in, whose limits hold for all of them together. Docker's `--cgroup-parent`, for its
/// `cgroupfs` driver.
///
/// With a `/` in front it is below the root of each hierarchy, as the host mounts it; without, below the cgroup in which the
/// engine makes its own, which an ordinary user may write to where anything was delegated to him. The container's is in it, under the
/// container's id.
///
/// ```
/// use longshore::types::CgroupParent;
/// let parent: CgroupParent = "/machines/web".parse().unwrap();
/// assert!(parent.is_absolute());
/// assert!("../elsewhere".parse::<CgroupParent>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupParent(String);

impl CgroupParent {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is below the root of each hierarchy.
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with('/')
    }

    /// The names on the way to it; none is the root itself.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .trim_start_matches('/')
            .split('/')
            .filter(|name| !name.is_empty())
    }

    /// A container's cgroup in it: `linux.cgroupsPath` of the runtime specification.
    pub fn path_of(&self, id: &ContainerId) -> PathBuf {
        Path::new(&self.0).join(id.as_str())
    }

    /// The parent in the path of a container's cgroup.
    ///
    /// # Errors
    /// `Unsupported` if the cgroup is not named by the container's id, by which it is found; `InvalidArgument` as for parsing.
    pub(crate) fn in_path(path: &Path, id: &ContainerId) -> Result<Self> {
        let above = path.parent().filter(|_| path.file_name() == Some(id.as_str().as_ref()));
        let Some(above) = above else {
            let what = format!("the cgroup {} for container {}", path.display(), id.short());
            return Err(Error::unsupported(what, "a cgroup that is named by the container's id"));
        };
        let text = above
            .to_str()
            .ok_or_else(|| bad(&above.to_string_lossy(), "it is not UTF-8"))?;
        text.parse()
    }
}

impl FromStr for CgroupParent {
    type Err = Error;

    /// Refuses whatever leads elsewhere than it says: `..`, `.`, empty names, control characters; and names that begin with
    /// `longshore-`, which are the engines' own.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(bad(text, "it is empty"));
        }
        if text.len() > LONGEST {
            return Err(bad("", &format!("it is longer than {LONGEST} bytes")));
        }
        // The kernel refuses a line feed; nobody means the others.
        if text.chars().any(char::is_control) {
            return Err(bad(text, "it has a control character in it"));
        }
        let below = text.strip_prefix('/').unwrap_or(text);
        if !below.is_empty() {
            below.split('/').try_for_each(|name| check_name(text, name))?;
        }
        Ok(Self(text.to_owned()))
    }
}

fn check_name(text: &str, name: &str) -> Result<()> {
    let plain = matches!(
        Path::new(name).components().collect::<Vec<_>>()[..],
        [Component::Normal(one)] if one == name
    );
    if !plain {
        return Err(bad(
            text,
            "each name in it is one of a directory, not empty, and neither . nor ..",
        ));
    }
    if name.len() > LONGEST_NAME {
        return Err(bad("", &format!("a name in it is longer than {LONGEST_NAME} bytes")));
    }
    if name.starts_with(OURS) {
        return Err(bad(
            text,
            "names that begin with longshore- are those of engines, which remove what is in them",
        ));
    }
    Ok(())
}

fn bad(text: &str, why: &str) -> Error {
    let said = if text.is_empty() {
        String::new()
    } else {
        format!(" {text:?}")
    };
    Error::invalid(format!("invalid cgroup parent{said}: {why}")).with_object(ObjectKind::Option, "cgroup_parent")
}

impl fmt::Display for CgroupParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CgroupParent {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<CgroupParent> for String {
    fn from(parent: CgroupParent) -> Self {
        parent.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn h22_a_parent_is_a_plain_path() {
        for (text, absolute, names) in [
            ("web", false, vec!["web"]),
            ("/a/b.slice", true, vec!["a", "b.slice"]),
            ("a/b c", false, vec!["a", "b c"]),
            ("/", true, vec![]),
        ] {
            let parent: CgroupParent = text.parse().unwrap();
            assert_eq!(
                (parent.is_absolute(), parent.names().collect::<Vec<_>>()),
                (absolute, names)
            );
            let id = ContainerId::random();
            assert_eq!(CgroupParent::in_path(&parent.path_of(&id), &id).unwrap(), parent);
        }
    }

    #[test]
    fn h22_what_leads_elsewhere_is_no_parent() {
        let (long, deep) = ("a".repeat(256), "/abcdefg".repeat(129));
        let bad = [
            "",
            "..",
            ".",
            "//",
            "//a",
            "a//b",
            "a/",
            "/a/",
            "a/./b",
            "../a",
            "/a/../../b",
            "a\0b",
            "a\nb",
            "/longshore-1/x",
            "longshore-",
            &long,
            &deep,
        ];
        for text in bad {
            let refused = text.parse::<CgroupParent>().unwrap_err();
            assert_eq!(refused.kind(), &ErrorKind::InvalidArgument, "{text:?}");
            assert_eq!(refused.object().unwrap().1, "cgroup_parent", "{text:?}");
            assert!(serde_json::from_value::<CgroupParent>(text.into()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn h22_a_cgroup_has_the_name_of_its_container() {
        let id = ContainerId::random();
        for path in ["/a/b", "", "/", "/a/.."] {
            assert!(
                CgroupParent::in_path(Path::new(path), &id)
                    .unwrap_err()
                    .is_unsupported(),
                "{path}"
            );
        }
        let below = Path::new("/a/../b").join(id.as_str());
        assert_eq!(
            CgroupParent::in_path(&below, &id).unwrap_err().kind(),
            &ErrorKind::InvalidArgument
        );
        // At the top, without a parent.
        assert!(CgroupParent::in_path(Path::new(id.as_str()), &id).is_err());
    }
}
