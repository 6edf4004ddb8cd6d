//! What a step that failed means for the caller.

use std::io;

use super::helper::wire::{Record, STEPS, Step, aux};
use super::plan::Names;
use crate::error::{Error, ErrorKind, ObjectKind};

/// The words for a step's number.
pub(crate) fn words(step: u32) -> &'static str {
    STEPS
        .iter()
        .find(|(known, _)| *known as u32 == step)
        .map_or("unknown step", |(_, words)| *words)
}

/// The error of a record and its text.
pub(crate) fn error(record: &Record, text: &[u8], names: &Names, host: super::plan::Host) -> Error {
    let text = String::from_utf8_lossy(text);
    let is = |step: Step| record.step == step as u32;
    if is(Step::Exec) {
        return exec_error(record, &text, names);
    }
    if is(Step::User) || is(Step::Group) {
        return user_error(record, &text, is(Step::Group));
    }
    let words = words(record.step);
    let subject = subject(record, names);
    let error = Error::os(words, io::Error::from_raw_os_error(record.errno));
    if is(Step::Ids) && record.errno == libc::EINVAL {
        let needs = if host.single_id {
            "a range of ids for this user in /etc/subuid and /etc/subgid, and newuidmap(1), newgidmap(1)"
        } else {
            "an id inside the mapped range"
        };
        return Error::unsupported(format!("running as user {}", names.ids), needs)
            .with_object(ObjectKind::User, &names.ids)
            .with_step(words);
    }
    if is(Step::Groups) && host.single_id {
        return Error::unsupported(
            "groups beside the user's own with a single mapped id",
            "a range of ids for this user in /etc/subuid and /etc/subgid, and newuidmap(1), newgidmap(1)",
        )
        .with_object(ObjectKind::Option, "groups")
        .with_source(error)
        .with_step(words);
    }
    if is(Step::IdMaps) && host.single_id {
        return Error::unsupported(
            format!("running as user {} with a single mapped id", names.ids),
            "a user namespace inside the engine's (max_user_namespaces, or a security module, forbids it), or a range of ids for \
             this user in /etc/subuid and /etc/subgid",
        )
        .with_object(ObjectKind::User, &names.ids)
        .with_source(error)
        .with_step(words);
    }
    if (is(Step::Mount) || is(Step::Proc)) && record.errno == libc::EPERM && host.bind_devices {
        return Error::unsupported(
            format!("mounting {}", subject.as_deref().unwrap_or("proc")),
            "a host whose /proc and /sys are not partly hidden (a container around this process hides them), or \
             Isolation::BestAvailable for the engine, with which containers share them",
        )
        .with_step(words);
    }
    if is(Step::Mount) && record.errno == libc::EXDEV {
        let place = subject.as_deref().unwrap_or("a mount");
        return Error::invalid(format!(
            "the subpath of the mount at {place} leads out of what it is a part of"
        ))
        .with_object(ObjectKind::Option, "mount subpath")
        .with_source(error)
        .with_step(words);
    }
    if is(Step::Mount)
        && record.errno == libc::EINVAL
        && names.copies.contains(&(record.index as usize))
        && copies_need_more(&release())
    {
        let place = subject.as_deref().unwrap_or("a mount");
        return Error::unsupported(
            format!("mounting {place}"),
            "Linux 6.15 or a later one, which copies mounts that are attached nowhere: for volumes that are file systems of their \
             own (type=tmpfs); before, take a directory for the volume",
        )
        .with_object(ObjectKind::Option, "mount")
        .with_source(error)
        .with_step(words);
    }
    if is(Step::IdMappedMount) {
        return Error::unsupported(
            format!(
                "showing {} in a user namespace of the container's own",
                subject.as_deref().unwrap_or("a mount")
            ),
            "id-mapped mounts: Linux 5.12 and a file system that has them (ext4, xfs, btrfs; tmpfs from Linux 6.3 on), for the \
             layers of an overlay Linux 5.19 and one file system for all of them",
        )
        .with_source(error)
        .with_step(words);
    }
    match subject {
        Some(subject) => error.context(format!("{words}: {subject}")),
        None => error,
    }
}

/// Whether this kernel copies a mount that is attached nowhere.
#[cfg(feature = "engine")]
pub(crate) fn copies_mounts() -> bool {
    !copies_need_more(&release())
}

/// The kernel's name for itself, as uname(2) has it.
fn release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned())
}

/// Whether a kernel refuses to copy a mount that is attached nowhere. Source: open_tree(2), `OPEN_TREE_CLONE`; Linux 6.15,
/// `fs/namespace.c`, `may_copy_tree`.
fn copies_need_more(release: &str) -> bool {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (6, 15),
        _ => false,
    }
}

/// The warning of a record that is no failure.
pub(crate) fn warning(record: &Record, text: &[u8], names: &Names) -> Option<String> {
    if record.aux != aux::CLAMPED {
        return None;
    }
    let highest = text.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))?;
    let name = names.rlimits.get(record.index as usize)?;
    Some(format!(
        "{name} lowered to {highest}: more needs CAP_SYS_RESOURCE on the host, or a higher hard limit of this process"
    ))
}

/// Which of the plan's items the record is about.
fn subject(record: &Record, names: &Names) -> Option<String> {
    let index = record.index as usize;
    let step = STEPS
        .iter()
        .find(|(step, _)| *step as u32 == record.step)
        .map(|(step, _)| *step)?;
    match step {
        Step::RootMount => Some("/".to_owned()),
        Step::Mount | Step::IdMappedMount | Step::MountTarget | Step::AttachMount => names.mounts.get(index).cloned(),
        Step::MaskedPath => names.masked.get(index).cloned(),
        Step::ReadonlyPath => names.readonly.get(index).cloned(),
        Step::Device => names.devices.get(index).cloned(),
        Step::Rlimit => names.rlimits.get(index).cloned(),
        Step::Sysctl => names.sysctls.get(index).cloned(),
        Step::WorkingDirectory => Some(names.directory.clone()),
        Step::Ids => Some(names.ids.clone()),
        _ => None,
    }
}

fn exec_error(record: &Record, text: &str, names: &Names) -> Error {
    let errno = io::Error::from_raw_os_error(record.errno);
    let command = &names.command;
    let (kind, message) = match record.errno {
        libc::ENOENT if record.aux == aux::INTERPRETER_MISSING => {
            let interpreter = text.split_once('\0').map_or("", |(_, interpreter)| interpreter);
            let message = match interpreter {
                "" => format!("{command}: its interpreter is missing in the container"),
                name => format!("{command}: its interpreter {name} is missing in the container"),
            };
            (ErrorKind::CommandNotFound, message)
        }
        libc::ENOENT | libc::ENOTDIR => (
            ErrorKind::CommandNotFound,
            format!("{command}: not found in the container"),
        ),
        libc::EISDIR => (ErrorKind::CommandNotExecutable, format!("{command}: is a directory")),
        libc::EACCES | libc::EPERM => (ErrorKind::CommandNotExecutable, format!("{command}: permission denied")),
        libc::ENOEXEC => (
            ErrorKind::CommandNotExecutable,
            format!("{command}: not a program for this machine"),
        ),
        _ => (ErrorKind::Os, format!("{command}: cannot be executed")),
    };
    Error::new(kind, message)
        .with_object(ObjectKind::Command, command)
        .with_step(words(record.step))
        .with_source(errno)
}

fn user_error(record: &Record, text: &str, group: bool) -> Error {
    let what = if group { "group" } else { "user" };
    let step = words(record.step);
    match record.aux {
        aux::UNKNOWN => Error::new(ErrorKind::NotFound, format!("no such {what} in the container: {text}"))
            .with_object(ObjectKind::User, text)
            .with_step(step),
        aux::MALFORMED => Error::invalid(format!("invalid {what}: {text:?}"))
            .with_object(ObjectKind::User, text)
            .with_step(step),
        _ => Error::os(step, io::Error::from_raw_os_error(record.errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j5_kernels_that_copy_no_mount_that_is_attached_nowhere() {
        for old in ["6.1.0-18-cloud-amd64", "5.15.0", "6.14.11+", "4.18"] {
            assert!(copies_need_more(old), "{old}");
        }
        for new in ["6.15.0", "6.15", "6.18.1-rc1", "7.0.0", "", "unknown"] {
            assert!(!copies_need_more(new), "{new}");
        }
    }
}
