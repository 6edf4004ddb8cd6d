//! Docker's form of a profile: that of the runtime specification, with conditions on capabilities, architectures and kernels.
//! Source: moby's `profiles/seccomp` (`seccomp.go`, `seccomp_linux.go`).

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSyscall};
use serde::{Deserialize, Serialize};

use super::compile::compile;
use super::profile::{KERNEL, NATIVE, version};
use crate::error::{Error, Result};
use crate::runtime::caps::CapabilitySet;

/// A seccomp profile in the form that Docker's `--security-opt seccomp=FILE` takes; the plain form of the OCI runtime
/// specification is one too.
///
/// Its conditions (`includes`, `excludes`) hold or not for a container's capabilities, this architecture and this kernel. As
/// everywhere in longshore, this architecture's own calls are let through and no others, whatever `archMap` says, and
/// `flags` change nothing.
///
/// ```
/// use longshore::SeccompProfile;
/// let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}"#;
/// assert_eq!(SeccompProfile::parse(text)?.text(), text);
/// assert!(SeccompProfile::parse("{}").is_err());
/// # Ok::<(), longshore::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeccompProfile(String);

impl SeccompProfile {
    /// Reads a profile.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no profile, or can never work.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let profile = Self(text.into());
        for caps in [CapabilitySet::EMPTY, CapabilitySet::ALL] {
            compile(&profile.resolve(&caps)?)?;
        }
        Ok(profile)
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What of it holds for a container with these capabilities, here.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn resolve(&self, caps: &CapabilitySet) -> Result<LinuxSeccomp> {
        let profile: Profile = serde_json::from_slice(self.0.as_bytes())
            .map_err(|error| Error::invalid(format!("seccomp profile: {error}")))?;
        profile.resolve(caps, *KERNEL)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Profile {
    fn resolve(self, caps: &CapabilitySet, kernel: (u32, u32)) -> Result<LinuxSeccomp> {
        let mut syscalls = Vec::new();
        for rule in self.syscalls.into_iter().flatten() {
            if rule.holds(caps, kernel)? {
                syscalls.push(rule.to_oci()?);
            }
        }
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(Some(vec![NATIVE.1]))
            .set_syscalls(Some(syscalls));
        Ok(profile)
    }
}

impl Rule {
    /// Nothing that excludes it is so, and all that includes it is.
    fn holds(&self, caps: &CapabilitySet, kernel: (u32, u32)) -> Result<bool> {
        let excluded = match &self.excludes {
            Some(condition) => condition
                .parts(caps, kernel)?
                .into_iter()
                .flatten()
                .any(|part| part.any),
            None => false,
        };
        let included = match &self.includes {
            Some(condition) => condition
                .parts(caps, kernel)?
                .into_iter()
                .flatten()
                .all(|part| part.all),
            None => true,
        };
        Ok(included && !excluded)
    }

    fn to_oci(&self) -> Result<LinuxSyscall> {
        let names = match (self.name.as_str(), self.names.as_deref().unwrap_or_default()) {
            ("", names) => names.to_vec(),
            (name, []) => vec![name.to_owned()],
            (name, _) => {
                return Err(Error::invalid(format!(
                    "seccomp profile: a rule has both a name ({name:?}) and names; use one of them"
                )));
            }
        };
        let mut syscall = LinuxSyscall::default();
        syscall
            .set_names(names)
            .set_action(self.action)
            .set_errno_ret(self.errno_ret)
            .set_args(self.args.clone().filter(|args| !args.is_empty()));
        Ok(syscall)
    }
}

/// Whether one thing that is listed is so, and whether all are. Of architectures, one of the list is enough.
struct Part {
    any: bool,
    all: bool,
}

impl Condition {
    /// Each part that says something.
    fn parts(&self, caps: &CapabilitySet, kernel: (u32, u32)) -> Result<[Option<Part>; 3]> {
        let named = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
        let arches = named(&self.arches).map(|arches| arches.iter().any(|arch| arch == NATIVE.0));
        let has = |name: &String| name.parse().is_ok_and(|one| caps.contains(one));
        let caps = named(&self.caps).map(|caps| Part {
            any: caps.iter().any(has),
            all: caps.iter().all(has),
        });
        let kernel = match &self.min_kernel {
            Some(least) if !least.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(Error::invalid(format!(
                    "seccomp profile: {least:?} is no version of a kernel"
                )));
            }
            least => least.as_deref().map(|least| kernel >= version(least)),
        };
        let single = |holds| Part { any: holds, all: holds };
        Ok([arches.map(single), caps, kernel.map(single)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, caps: &str) -> Vec<String> {
        let caps: CapabilitySet = if caps.is_empty() {
            CapabilitySet::EMPTY
        } else {
            caps.parse().unwrap()
        };
        let profile: Profile = serde_json::from_str(text).unwrap();
        let profile = profile.resolve(&caps, (6, 1)).unwrap();
        let rules = profile.syscalls().iter().flatten();
        rules.flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn h11_conditions_of_dockers_form() {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}}],
               "syscalls": [
                 {{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {{}}, "excludes": {{}}}},
                 {{"name": "b", "action": "SCMP_ACT_ALLOW", "args": [], "includes": {{"caps": ["CAP_SYS_ADMIN"]}}}},
                 {{"names": ["c"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {{"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}}},
                 {{"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {{"arches": ["s390x", "{}"]}}}},
                 {{"names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": {{"arches": ["s390x"]}}}},
                 {{"names": ["f"], "action": "SCMP_ACT_ALLOW", "includes": {{"minKernel": "4.8"}}}},
                 {{"names": ["g"], "action": "SCMP_ACT_ALLOW", "includes": {{"minKernel": "9.8"}}}},
                 {{"names": ["h"], "action": "SCMP_ACT_ALLOW", "includes": {{"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}}}}]}}"#,
            NATIVE.0
        );
        assert_eq!(names(&text, ""), ["a", "c", "d", "f"]);
        assert_eq!(names(&text, "SYS_ADMIN"), ["a", "b", "d", "f"]);
        assert_eq!(names(&text, "BPF"), ["a", "d", "f"]);
    }

    #[test]
    fn h11_profiles_that_cannot_be() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_NOTHING"}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "x"}}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9999}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
        ] {
            let error = SeccompProfile::parse(bad).unwrap_err();
            assert_eq!(error.kind(), &crate::ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
