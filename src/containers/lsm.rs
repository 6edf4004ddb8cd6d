//! Profiles and labels of security modules: AppArmor, SELinux. What can be had of them is up to the host's kernel, and to who starts
//! the container; nothing that was asked for is left out without a word.

use std::path::Path;

use super::spec::ContainerSpec;
use crate::error::{Error, ObjectKind, Result};

/// The longest name, in bytes: a page is what the kernel takes of one. Source: `proc_pid_attr_write` of fs/proc/base.c.
const LONGEST: usize = 4095;
/// What of a label may be said. Source: go-selinux, `label.InitLabels`.
const PARTS: [&str; 5] = ["user:", "role:", "type:", "level:", "filetype:"];

/// A security module of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    AppArmor,
    SeLinux,
}

impl Module {
    /// Whether this host has it, and it is switched on. Source: proc(5), apparmor(7), selinux(8).
    pub(crate) fn is_on(self) -> bool {
        match self {
            Self::AppArmor => {
                let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
                enabled.is_ok_and(|text| text.trim() == "Y")
            }
            // The file system is mounted where a policy is loaded.
            Self::SeLinux => Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    /// As users know it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "AppArmor",
            Self::SeLinux => "SELinux",
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::AppArmor => {
                "a kernel with AppArmor that is switched on (`apparmor=1 security=apparmor` on its command line): \
                 /sys/module/apparmor/parameters/enabled says Y then"
            }
            Self::SeLinux => {
                "a kernel with SELinux (`security=selinux` on its command line) and a policy that is loaded: there is \
                 /sys/fs/selinux/enforce then"
            }
        }
    }
}

/// The profile that is asked for, if it is one: `unconfined` is what every container is without.
pub(crate) fn profile(spec: &ContainerSpec) -> Option<&str> {
    spec.apparmor.as_deref().filter(|profile| *profile != "unconfined")
}

/// Parts of a label that are asked for.
fn label(spec: &ContainerSpec) -> Vec<&str> {
    let parts = spec.selinux.iter().map(String::as_str);
    parts.filter(|part| *part != "disable").collect()
}

/// Refuses what is no name and no label, whatever the host.
pub(crate) fn validate(spec: &ContainerSpec) -> Result<()> {
    let bad = |what: &str, text: &str, why: &str| {
        let option = if what == "label" { "selinux" } else { "apparmor" };
        Err(Error::invalid(format!("invalid {what} {text:?}: {why}")).with_object(ObjectKind::Option, option))
    };
    let plain = |text: &str| !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control);
    if let Some(profile) = &spec.apparmor
        && !plain(profile)
    {
        return bad("AppArmor profile", profile, "a name of one line");
    }
    for part in &spec.selinux {
        let value = PARTS.iter().find_map(|kind| part.strip_prefix(kind));
        match value {
            _ if part == "disable" => {}
            Some(value) if plain(value) => {}
            _ => {
                return bad(
                    "label",
                    part,
                    "disable, or user:, role:, type:, level: or filetype: with a value",
                );
            }
        }
    }
    Ok(())
}

/// Refuses what this host, or who starts the container, does not have.
///
/// # Errors
/// `Unsupported`, and what it needs.
pub(crate) fn check(spec: &ContainerSpec, runtime: &str) -> Result<()> {
    refuse(spec, runtime, Module::is_on)
}

fn refuse(spec: &ContainerSpec, runtime: &str, is_on: impl Fn(Module) -> bool) -> Result<()> {
    if let Some(profile) = profile(spec) {
        let no = |needs: &str| unsupported(&format!("the AppArmor profile {profile:?}"), needs, "apparmor");
        if !is_on(Module::AppArmor) {
            return no(Module::AppArmor.needs());
        }
        if runtime == "native" {
            return no("a runtime that sets it: runc or crun (ContainerSpec::runtime)");
        }
    }
    let label = label(spec);
    if label.is_empty() {
        return Ok(());
    }
    let no = |needs: &str| unsupported(&format!("the SELinux label {:?}", label.join(",")), needs, "selinux");
    match is_on(Module::SeLinux) {
        true => no("an engine that labels files and processes, which this one does not"),
        false => no(Module::SeLinux.needs()),
    }
}

fn unsupported(what: &str, needs: &str, option: &str) -> Result<()> {
    Err(Error::unsupported(what, needs).with_object(ObjectKind::Option, option))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn spec(profile: Option<&str>, label: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::image("a");
        spec.apparmor = profile.map(str::to_owned);
        spec.selinux = label.iter().map(|part| (*part).to_owned()).collect();
        spec
    }

    #[test]
    fn h12_what_says_nothing_is_had_anywhere() {
        for none in [spec(None, &[]), spec(Some("unconfined"), &["disable"])] {
            validate(&none).unwrap();
            refuse(&none, "native", |_| false).unwrap();
            refuse(&none, "native", |_| true).unwrap();
        }
    }

    #[test]
    fn h12_what_the_host_lacks_is_named() {
        let profile = spec(Some("docker-default"), &[]);
        let label = spec(None, &["type:container_t", "level:s0:c1"]);
        for (asked, module) in [(&profile, Module::AppArmor), (&label, Module::SeLinux)] {
            for runtime in ["native", "runc"] {
                let error = refuse(asked, runtime, |_| false).unwrap_err();
                assert!(error.is_unsupported());
                assert!(error.report().contains(module.name()), "{}", error.report());
                assert!(error.report().contains("command line"), "{}", error.report());
            }
        }
        let native = refuse(&profile, "native", |_| true).unwrap_err();
        assert!(
            native.is_unsupported() && native.report().contains("runc"),
            "{}",
            native.report()
        );
        refuse(&profile, "runc", |_| true).unwrap();
        assert!(refuse(&label, "runc", |_| true).unwrap_err().is_unsupported());
    }

    #[test]
    fn h12_what_is_no_profile_and_no_label() {
        let (long, two) = ("a".repeat(5000), ["disable", "a:b"]);
        for bad in [
            spec(Some(""), &[]),
            spec(Some("a\nb"), &[]),
            spec(Some("a\0b"), &[]),
            spec(Some(&long), &[]),
            spec(None, &["type:"]),
            spec(None, &["type"]),
            spec(None, &[""]),
            spec(None, &["level:s0\n"]),
            spec(None, &two),
        ] {
            assert_eq!(
                validate(&bad).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{bad:?}"
            );
        }
    }
}
