//! Writes a running container's processes down.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::outside::Outside;
use super::tool::failure;
use super::{IMAGES, WORK, Work, only_for_root, program, staged};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::native::plan::Host;
use crate::runtime::native::start::Ends;
use crate::runtime::native::tool::{self, Run};
use crate::runtime::native::zygote::Zygote;
use crate::runtime::{Dump, StdioPlan};
use crate::sys::blocking::blocking;
use crate::types::ContainerId;

/// What is known of the container.
pub(crate) struct Subject {
    pub(crate) zygote: Arc<Zygote>,
    pub(crate) host: Host,
    pub(crate) id: ContainerId,
    /// Of its first process, here.
    pub(crate) pid: u32,
    /// The same as the zygote knows it.
    pub(crate) inner: i32,
    pub(crate) pipes: [Option<u64>; 3],
    pub(crate) own_network: bool,
}

/// Runs CRIU to its end. Where it fails the processes go on as they were, by CRIU's own doing.
pub(crate) async fn dump(subject: Subject, wanted: Dump) -> Result<()> {
    only_for_root(subject.host.bind_devices)?;
    let program = program()?;
    let (pid, keeper) = (subject.pid, subject.zygote.pid());
    let (spec, pipes, network) = (wanted.spec.clone(), subject.pipes, subject.own_network);
    let (work, directory) = (wanted.work.clone(), wanted.directory.clone());
    let (work, words) = blocking(move || {
        nobody_else(pid, keeper)?;
        let outside = Outside::of(pid, &spec, pipes, network)?;
        outside.write(&directory)?;
        let network = network.then(|| namespace(pid)).transpose()?;
        Ok((Work::make(&work)?, outside.dumped(network)))
    })
    .await?;
    let inner = subject.inner.to_string();
    let (images, log) = (staged(IMAGES), staged(WORK));
    let mut arguments: Vec<String> = [
        program, "dump", "-v4", "-W", &log, "-o", "log", "-D", &images, "-t", &inner,
    ]
    .map(str::to_owned)
    .to_vec();
    // Its cgroup is the engine's, before as after. Without connections there is nothing to lock, but what locks must be there:
    // the kernel's part of nftables needs no program.
    arguments.extend(["--manage-cgroups=ignore", "--file-locks", "--network-lock", "nftables"].map(str::to_owned));
    if wanted.leave_running {
        arguments.push("--leave-running".to_owned());
    }
    arguments.extend(words);
    let plan = work.plan(&arguments, Some(&wanted.directory))?;
    let ends = Ends::new(StdioPlan::default())?;
    let with = tool::alone(&ends)?;
    let Subject { zygote, host, id, .. } = &subject;
    let (_run, status, _) = Run::to_end(zygote, plan, *host, id, ends, with).await?;
    match status.code() {
        0 => Ok(()),
        _ => Err(failure(zygote, *host, id, &work, "checkpoint", status).await),
    }
}

/// The number of a process' network namespace. Blocking.
fn namespace(pid: u32) -> Result<u64> {
    let os = |error| Error::os("look at the container's network", error);
    let link = fs::read_link(format!("/proc/{pid}/ns/net")).map_err(os)?;
    let text = link.to_string_lossy();
    let number = text.split(['[', ']']).nth(1).and_then(|number| number.parse().ok());
    number.ok_or_else(|| Error::internal("a network namespace without a number"))
}

/// CRIU writes down a first process and its descendants. A command beside it has the zygote as its parent, and would be gone.
fn nobody_else(pid: u32, keeper: u32) -> Result<()> {
    let others = family(pid).into_iter().filter(|process| *process != pid);
    let commands = others.filter(|process| parent(*process) == Some(keeper)).count();
    if commands == 0 {
        return Ok(());
    }
    let message =
        format!("{commands} commands run in the container beside its own program; wait until they have ended");
    Err(Error::new(ErrorKind::InvalidState, message))
}

/// The processes of a container, by their pid namespace.
pub(super) fn family(pid: u32) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/pid")).ok();
    let Some(own) = namespace(pid) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| namespace(*process).as_ref() == Some(&own))
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}
