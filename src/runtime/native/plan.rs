//! Turns a [`Launch`] into the plan that the helper carries out. Pure: no system call, no look at the host. What the helper
//! could not do, or must not be asked to do, is refused here.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::Arc;

use oci_spec::runtime::{
    Capabilities, Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, LinuxSeccomp, Process, Spec,
};

use super::helper::wire::{NO_FD, SECTIONS, Section, field, flag, mount};
use super::hidden::Hidden;
use super::hooks::Hooks;
use super::idmap::ContainerIds;
use super::options::{self, Options};
use super::seccomp;
use crate::error::{Error, Result};
use crate::runtime::caps::CapabilitySet;
use crate::runtime::{ExecLaunch, Launch, LaunchMount, LaunchSource, SharedNamespace, StdioPlan, sysctls};
use crate::sys::order;
use crate::types::{IdRange, Mount, MountSource, Propagation};

/// Where the descriptors of mounts begin among those that travel with a plan: behind that of the status.
const TREES: u32 = 1;
/// Most of them: there is room for 64 in all.
const MOST_TREES: u32 = 32;

/// What of the host matters to a plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Host {
    /// The helper is in a user namespace: devices cannot be made.
    pub(crate) bind_devices: bool,
    /// Only one id is mapped.
    pub(crate) single_id: bool,
    /// `/sys/fs/cgroup` is of version 2.
    pub(crate) cgroup_v2: bool,
    /// The helper is a shim, in the host's pid namespace.
    pub(crate) host_pids: bool,
    /// There are no namespaces, and nothing is mounted.
    pub(crate) apart: bool,
    /// What cannot be mounted anew.
    pub(crate) hidden: Hidden,
}

/// What stands between a container's programs and the kernel, compiled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters {
    /// Of the profile, if there is one.
    pub(crate) own: Option<Arc<[u8]>>,
    /// In its place for programs that run as root, where one id is mapped.
    pub(crate) squashed: Option<Arc<[u8]>>,
    /// Some calls wait for an agent's answer.
    pub(crate) listener: bool,
}

impl Filters {
    /// Compiles what a container needs.
    ///
    /// # Errors
    /// As [`seccomp::compile`]; `Unsupported` for a profile that wants an agent where there is none.
    pub(crate) fn new(
        profile: Option<&LinuxSeccomp>,
        process: Option<&Process>,
        host: Host,
        agent: bool,
    ) -> Result<Self> {
        let listener = profile.map(seccomp::notifies).transpose()?.unwrap_or(false);
        if listener && !agent {
            return Err(Error::unsupported(
                "the seccomp action SCMP_ACT_NOTIFY",
                "an engine that was opened with somebody who answers (EngineBuilder::seccomp_agent)",
            ));
        }
        let caps = process.and_then(|process| process.capabilities().as_ref());
        let bounding = caps.and_then(|caps| caps.bounding().as_ref());
        let caps = CapabilitySet::from_bits(bounding.map_or(0, capability_bits));
        host.hidden.check(caps)?;
        Ok(Self {
            own: profile.map(seccomp::compile_cached).transpose()?,
            squashed: match host.single_id {
                true => Some(seccomp::squashed_cached(profile, &caps)?),
                false => None,
            },
            listener,
        })
    }
}

/// Positions of the descriptors that travel with a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FdPositions {
    pub(crate) status: u32,
    pub(crate) stdin: u32,
    pub(crate) stdout: u32,
    pub(crate) stderr: u32,
    pub(crate) cgroup: u32,
    pub(crate) v1_first: u32,
    pub(crate) v1_count: u32,
    pub(crate) target: u32,
    pub(crate) shared: [u32; 4],
}

impl Default for FdPositions {
    fn default() -> Self {
        Self {
            status: 0,
            stdin: NO_FD,
            stdout: NO_FD,
            stderr: NO_FD,
            cgroup: NO_FD,
            v1_first: 0,
            v1_count: 0,
            target: NO_FD,
            shared: [NO_FD; 4],
        }
    }
}

/// A plan, and the names of its parts for error messages.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    sections: [Vec<u8>; SECTIONS],
    words: [u32; field::COUNT],
    /// Namespaces of other containers, as flags of clone(2).
    joined: u32,
    pub(crate) names: Names,
}

/// What an index in a step record stands for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) command: String,
    pub(crate) directory: String,
    pub(crate) mounts: Vec<String>,
    /// Those of the mounts that are copied from one that is attached nowhere.
    pub(crate) copies: Vec<usize>,
    pub(crate) masked: Vec<String>,
    pub(crate) readonly: Vec<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) rlimits: Vec<String>,
    pub(crate) sysctls: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) ids: String,
}

impl Plan {
    /// Converts a launch.
    ///
    /// # Errors
    /// `InvalidArgument` for values that can never work, `Unsupported` for what this runtime does not do.
    pub(crate) fn new(launch: &Launch, host: Host, filters: Filters, ids: Option<&ContainerIds>) -> Result<Self> {
        let mut plan = Self {
            sections: std::array::from_fn(|_| Vec::new()),
            words: [0; field::COUNT],
            joined: 0,
            names: Names::default(),
        };
        plan.words[field::FLAGS] = flag::HAS_CAPS;
        plan.set_if(host.bind_devices, flag::BIND_DEVICES);
        plan.set_if(host.single_id, flag::SINGLE_ID);
        plan.set_if(host.hidden.proc, flag::BIND_PROC);
        let spec = &launch.spec;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::invalid("the spec has no process"))?;
        plan.process(process)?;
        plan.user(launch.user.as_ref(), &launch.extra_groups, process)?;
        plan.streams(launch.stdio);
        plan.set_if(launch.init, flag::INIT);
        plan.set_if(launch.hold, flag::HOLD);
        let hooks = Hooks::of(launch)?;
        plan.set_if(hooks.is_some_and(|hooks| hooks.wait()), flag::HOOKS);
        plan.names_of_host(spec, process)?;
        let default;
        let linux = match spec.linux() {
            Some(linux) => linux,
            None => {
                default = Linux::default();
                &default
            }
        };
        let own_network = plan.namespaces(linux)?;
        let own_network = plan.share(&launch.shared, host.host_pids)? || own_network;
        plan.mounts(launch, host, own_network, ids)?;
        plan.linux(linux, host)?;
        plan.seccomp(filters)?;
        if host.apart {
            plan.set_if(true, flag::APART | flag::HOST_CGROUP);
            plan.words[field::NAMESPACES] = 0;
        }
        for directory in &launch.scratch {
            plan.clean_up(b's', directory)?;
        }
        Ok(plan)
    }

    /// Converts a command for a running container, whose namespaces (flags of clone(2)) it joins.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub(crate) fn exec(exec: &ExecLaunch, host: Host, namespaces: u32, filters: Filters) -> Result<Self> {
        let mut plan = Self {
            sections: std::array::from_fn(|_| Vec::new()),
            words: [0; field::COUNT],
            joined: 0,
            names: Names::default(),
        };
        plan.words[field::FLAGS] = flag::HAS_CAPS;
        plan.set_if(host.single_id, flag::SINGLE_ID);
        plan.set_if(exec.marked, flag::MARKED);
        plan.set_if(host.apart, flag::APART);
        plan.words[field::NAMESPACES] = namespaces;
        plan.process(&exec.process)?;
        plan.user(exec.user.as_ref(), &exec.extra_groups, &exec.process)?;
        plan.streams(exec.stdio);
        plan.names_of_host(&Spec::default(), &exec.process)?;
        plan.seccomp(filters)?;
        Ok(plan)
    }

    /// What such a command starts can be found, wherever it goes.
    #[cfg(feature = "engine")]
    pub(crate) fn mark(&mut self) {
        self.set_if(true, flag::MARKED);
    }

    /// A program of the host's beside a container. At `place` the helper mounts a memory file system and lays out what it needs: to
    /// begin with, these directories under their names.
    ///
    /// # Errors
    /// `InvalidArgument` for a NUL in a word, or a path that is not absolute.
    #[cfg(feature = "engine")]
    pub(crate) fn tool(arguments: &[String], place: &Path, directories: &[(&str, &Path)]) -> Result<Self> {
        let mut plan = Self {
            sections: std::array::from_fn(|_| Vec::new()),
            words: [0; field::COUNT],
            joined: 0,
            names: Names::default(),
        };
        plan.words[field::FLAGS] = flag::TOOL | flag::HOST_CGROUP;
        plan.names.command = arguments.first().cloned().unwrap_or_default();
        for argument in arguments {
            plan.string(Section::Argv, argument.as_bytes())?;
        }
        // CRIU packs the contents of memory file systems with programs of the host; runtimes have hooks.
        plan.string(
            Section::Env,
            b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )?;
        plan.string(
            Section::Texts,
            clean_absolute(place, "the place for what a tool needs")?,
        )?;
        for (name, directory) in directories {
            let source = clean_absolute(directory, "a directory for a tool")?.to_vec();
            plan.record(RecordParts {
                kind: mount::BIND,
                attributes: 0,
                flags: 0,
                strings: vec![format!("/{name}").into_bytes(), source],
            })?;
        }
        Ok(plan)
    }

    /// Adds what a container is made of to [`Plan::tool`]: its cgroup and network to run in, its mounts and devices to find.
    ///
    /// # Errors
    /// As [`Plan::new`].
    #[cfg(feature = "engine")]
    pub(crate) fn stage(&mut self, launch: &Launch, host: Host) -> Result<()> {
        self.words[field::FLAGS] &= !flag::HOST_CGROUP;
        let default = Linux::default();
        let linux = launch.spec.linux().as_ref().unwrap_or(&default);
        let own_network = self.namespaces(linux)?;
        let own_network = self.share(&launch.shared, host.host_pids)? || own_network;
        self.words[field::NAMESPACES] &= libc::CLONE_NEWNET as u32;
        self.mounts(launch, host, own_network, None)?;
        for device in linux.devices().as_deref().unwrap_or(&[]) {
            self.device(device, host)?;
        }
        for directory in &launch.scratch {
            self.clean_up(b's', directory)?;
        }
        Ok(())
    }

    /// The same for an OCI runtime, which makes the container itself, cgroup and devices included: its mounts to find, and the
    /// network of others to run in. The streams that come along are its own.
    ///
    /// # Errors
    /// As [`Plan::new`].
    #[cfg(feature = "engine")]
    pub(crate) fn stage_for_runtime(&mut self, launch: &Launch, host: Host) -> Result<()> {
        self.with_streams(host);
        let default = Linux::default();
        let linux = launch.spec.linux().as_ref().unwrap_or(&default);
        let own_network = self.namespaces(linux)?;
        let own_network = self.share(&launch.shared, host.host_pids)? || own_network;
        self.words[field::NAMESPACES] = 0;
        self.set_if(true, flag::HOST_CGROUP);
        self.mounts(launch, host, own_network, None)?;
        for directory in &launch.scratch {
            self.clean_up(b's', directory)?;
        }
        Ok(())
    }

    /// The streams that come along are the tool's own, and it is given nothing else of a container.
    #[cfg(feature = "engine")]
    pub(crate) fn with_streams(&mut self, host: Host) {
        self.set_if(true, flag::STREAMS);
        self.set_if(host.bind_devices, flag::BIND_DEVICES);
        self.set_if(host.hidden.proc, flag::BIND_PROC);
    }

    /// The tool sees no cgroups.
    #[cfg(feature = "engine")]
    pub(crate) fn hide_cgroups(&mut self) {
        self.set_if(true, flag::NO_CGROUPS);
    }

    /// What is to be deleted if the owner dies, as the zygote's ledger has it.
    #[cfg(feature = "engine")]
    pub(crate) fn clean_ups(&self) -> &[u8] {
        &self.sections[Section::Cleanup as usize]
    }

    /// The container's root as the zygote knows it: user and group.
    pub(crate) fn root(&self) -> [u32; 2] {
        [self.words[field::ROOT_UID], self.words[field::ROOT_GID]]
    }

    pub(crate) fn set_root(&mut self, root: [u32; 2]) {
        [self.words[field::ROOT_UID], self.words[field::ROOT_GID]] = root;
    }

    /// The namespaces that a container of this plan lives in.
    pub(crate) fn all_namespaces(&self) -> u32 {
        let cgroup = if self.has(flag::HOST_CGROUP) {
            0
        } else {
            libc::CLONE_NEWCGROUP
        };
        self.words[field::NAMESPACES] | self.joined | (libc::CLONE_NEWNS | cgroup) as u32
    }

    /// Whether its processes are in a namespace that ends with it.
    pub(crate) fn own_processes(&self) -> bool {
        self.joined & libc::CLONE_NEWPID as u32 == 0 && !self.has(flag::APART)
    }

    fn seccomp(&mut self, filters: Filters) -> Result<()> {
        self.set_if(filters.listener, flag::LISTENER);
        for (section, filter) in [(Section::Seccomp, filters.own), (Section::Squash, filters.squashed)] {
            let Some(filter) = filter else { continue };
            if filter.is_empty() || filter.len() % 8 != 0 || filter.len() / 8 > usize::from(u16::MAX) {
                return Err(Error::internal("the seccomp compiler made no valid filter"));
            }
            self.sections[section as usize] = filter.to_vec();
        }
        Ok(())
    }

    /// Adds a directory that is deleted if the owner dies: `c` for a cgroup's, `s` for any other.
    pub(crate) fn clean_up(&mut self, kind: u8, directory: &Path) -> Result<()> {
        let text = clean_absolute(directory, "a directory to clean up")?;
        let mut item = vec![kind];
        item.extend_from_slice(text);
        self.string(Section::Cleanup, &item)
    }

    /// Has the first process wait before its program, whether there are hooks or not.
    pub(crate) fn wait(&mut self) {
        self.set_if(true, flag::HOOKS);
    }

    /// The blob for the helper.
    pub(crate) fn encode(&self, fds: FdPositions) -> Vec<u8> {
        let mut words = self.words;
        words[field::FD_STATUS] = fds.status;
        words[field::FD_STDIN] = fds.stdin;
        words[field::FD_STDOUT] = fds.stdout;
        words[field::FD_STDERR] = fds.stderr;
        words[field::FD_CGROUP] = fds.cgroup;
        words[field::FD_V1_FIRST] = fds.v1_first;
        words[field::V1_COUNT] = fds.v1_count;
        words[field::FD_TARGET] = fds.target;
        for (word, fd) in (field::FD_JOIN_PID..).zip(fds.shared) {
            words[word] = fd;
        }
        let fixed: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut sections: [&[u8]; SECTIONS] = std::array::from_fn(|section| self.sections[section].as_slice());
        sections[Section::Fixed as usize] = &fixed;
        let padded = |section: &&[u8]| section.len().next_multiple_of(8);
        let mut offset = SECTIONS * 8;
        let mut blob = Vec::with_capacity(offset + sections.iter().map(padded).sum::<usize>());
        for section in sections {
            blob.extend_from_slice(&(offset as u32).to_ne_bytes());
            blob.extend_from_slice(&(section.len() as u32).to_ne_bytes());
            // Aligned, so that the filter's instructions are.
            offset += section.len().next_multiple_of(8);
        }
        for section in sections {
            blob.extend_from_slice(section);
            blob.resize(blob.len().next_multiple_of(8), 0);
        }
        blob
    }

    fn set_if(&mut self, condition: bool, bit: u32) {
        if condition {
            self.words[field::FLAGS] |= bit;
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.words[field::FLAGS] & bit != 0
    }

    fn string(&mut self, section: Section, text: &[u8]) -> Result<()> {
        push_string(&mut self.sections[section as usize], text)
    }

    fn word(&mut self, section: Section, word: u32) {
        self.sections[section as usize].extend_from_slice(&word.to_ne_bytes());
    }

    fn process(&mut self, process: &Process) -> Result<()> {
        let args = process.args().as_deref().unwrap_or(&[]);
        let command = args.first().filter(|command| !command.is_empty());
        self.names.command = command.ok_or_else(|| Error::invalid("no command to run"))?.clone();
        for argument in args {
            self.string(Section::Argv, argument.as_bytes())?;
        }
        for entry in process.env().as_deref().unwrap_or(&[]) {
            if entry.find('=').is_none_or(|at| at == 0) {
                return Err(Error::invalid(format!(
                    "invalid environment entry {entry:?}: NAME=value is needed"
                )));
            }
            self.string(Section::Env, entry.as_bytes())?;
        }
        self.set_if(process.no_new_privileges().unwrap_or(false), flag::NO_NEW_PRIVILEGES);
        if let Some(score) = process.oom_score_adj() {
            if !(-1000..=1000).contains(&score) {
                return Err(Error::invalid(format!("oom_score_adj {score} is not in -1000 to 1000")));
            }
            self.set_if(true, flag::HAS_OOM_SCORE_ADJ);
            self.words[field::OOM_SCORE_ADJ] = score as u32;
        }
        refuse_labels(process)?;
        self.capabilities(process);
        self.rlimits(process)
    }

    fn capabilities(&mut self, process: &Process) {
        let Some(caps) = process.capabilities() else {
            return;
        };
        let sets = [
            caps.bounding(),
            caps.permitted(),
            caps.effective(),
            caps.inheritable(),
            caps.ambient(),
        ];
        let all = caps.bounding().as_ref().map_or(0, capability_bits) == CapabilitySet::ALL.bits();
        self.set_if(all, flag::ALL_CAPS);
        for (index, set) in sets.into_iter().enumerate() {
            let bits = set.as_ref().map_or(0, capability_bits);
            self.words[field::CAPS + index * 2] = bits as u32;
            self.words[field::CAPS + index * 2 + 1] = (bits >> 32) as u32;
        }
    }

    fn rlimits(&mut self, process: &Process) -> Result<()> {
        for limit in process.rlimits().as_deref().unwrap_or(&[]) {
            let (soft, hard) = (limit.soft(), limit.hard());
            let name = limit.typ().to_string();
            if soft > hard {
                return Err(Error::invalid(format!(
                    "{name}: the soft limit {soft} is above the hard limit {hard}"
                )));
            }
            for word in [
                options::rlimit_number(limit.typ()),
                soft as u32,
                (soft >> 32) as u32,
                hard as u32,
                (hard >> 32) as u32,
            ] {
                self.word(Section::Rlimits, word);
            }
            self.names.rlimits.push(name);
        }
        Ok(())
    }

    fn user(&mut self, text: Option<&String>, groups: &[String], process: &Process) -> Result<()> {
        let user = process.user();
        self.words[field::UID] = user.uid();
        self.words[field::GID] = user.gid();
        self.words[field::UMASK] = user.umask().unwrap_or(0o022) & 0o777;
        self.names.ids = format!("{}:{}", user.uid(), user.gid());
        for gid in user.additional_gids().as_deref().unwrap_or(&[]) {
            self.word(Section::Gids, *gid);
        }
        if let Some(text) = text {
            self.set_if(true, flag::USER_TEXT);
            self.names.ids.clone_from(text);
        }
        for group in groups {
            self.string(Section::Groups, group.as_bytes())?;
            self.names.groups.push(group.clone());
        }
        Ok(())
    }

    fn streams(&mut self, stdio: StdioPlan) {
        let Some((rows, columns)) = stdio.terminal else {
            return;
        };
        self.set_if(true, flag::TERMINAL);
        self.words[field::ROWS] = u32::from(rows);
        self.words[field::COLUMNS] = u32::from(columns);
    }

    fn names_of_host(&mut self, spec: &Spec, process: &Process) -> Result<()> {
        let directory = process.cwd();
        let directory = if directory.as_os_str().is_empty() {
            Path::new("/")
        } else {
            directory
        };
        self.names.directory = directory.display().to_string();
        let text = clean_absolute(directory, "the working directory")?.to_vec();
        self.string(Section::Texts, &text)?;
        for name in [spec.hostname(), spec.domainname()] {
            let name = name.as_deref().unwrap_or("");
            if name.len() > 64 {
                return Err(Error::invalid(format!(
                    "host or domain name of more than 64 bytes: {name:?}"
                )));
            }
            self.string(Section::Texts, name.as_bytes())?;
        }
        let user = match self.words[field::FLAGS] & flag::USER_TEXT {
            0 => String::new(),
            _ => self.names.ids.clone(),
        };
        self.string(Section::Texts, user.as_bytes())
    }

    /// Sets the namespaces to make; whether the network is the container's own.
    fn namespaces(&mut self, linux: &Linux) -> Result<bool> {
        const MADE_LATER: u64 = libc::CLONE_NEWNS as u64 | libc::CLONE_NEWCGROUP as u64;
        let mut flags = libc::CLONE_NEWPID as u64 | libc::CLONE_NEWIPC as u64 | libc::CLONE_NEWUTS as u64;
        let mut own_network = false;
        for namespace in linux.namespaces().as_deref().unwrap_or(&[]) {
            if let Some(path) = namespace.path() {
                return Err(Error::unsupported(
                    format!("joining the namespace {}", path.display()),
                    "a container with namespaces of its own",
                ));
            }
            match namespace.typ() {
                LinuxNamespaceType::Network => own_network = true,
                LinuxNamespaceType::User => {
                    flags |= libc::CLONE_NEWUSER as u64;
                    self.set_if(true, flag::OWN_USERNS);
                }
                LinuxNamespaceType::Time => {
                    return Err(Error::unsupported("a time namespace", "the host's time"));
                }
                _ => {}
            }
        }
        if own_network {
            flags |= libc::CLONE_NEWNET as u64;
        }
        flags &= !MADE_LATER;
        // The mount namespace at once: the container's ids may not leave the zygote's.
        if flags & libc::CLONE_NEWUSER as u64 != 0 {
            flags |= libc::CLONE_NEWNS as u64;
        }
        self.words[field::NAMESPACES] = flags as u32;
        Ok(own_network)
    }

    /// Takes out what is not the container's own; whether its network is another container's.
    fn share(&mut self, shared: &[SharedNamespace], host_pids: bool) -> Result<bool> {
        if !shared.is_empty() && self.has(flag::OWN_USERNS) {
            return Err(Error::unsupported(
                "sharing namespaces from within a user namespace of the container's own",
                "a container in the engine's user namespace",
            ));
        }
        let mut network = false;
        for namespace in shared {
            let (kind, host) = match namespace {
                SharedNamespace::Host(kind) => (*kind, true),
                SharedNamespace::Of(kind, _) => (*kind, false),
                SharedNamespace::SharedMemory(_) => continue,
            };
            let bit = match (kind, host) {
                (LinuxNamespaceType::Cgroup, true) => {
                    self.set_if(true, flag::HOST_CGROUP);
                    continue;
                }
                (LinuxNamespaceType::Pid, false) => libc::CLONE_NEWPID,
                (LinuxNamespaceType::Ipc, _) => libc::CLONE_NEWIPC,
                (LinuxNamespaceType::Uts, true) => libc::CLONE_NEWUTS,
                (LinuxNamespaceType::Network, _) => libc::CLONE_NEWNET,
                // Its cgroup is what ends all of it: an ordinary user's may have none, nor may he mount that namespace's proc.
                (LinuxNamespaceType::Pid, true) if host_pids => libc::CLONE_NEWPID,
                (LinuxNamespaceType::Pid, true) => {
                    return Err(Error::unsupported(
                        "the host's pid namespace",
                        "root, and a container that is not bound to its engine, whose helper has a pid namespace of its own",
                    ));
                }
                (kind, _) => {
                    return Err(Error::unsupported(
                        format!("sharing a namespace of kind {kind}"),
                        "one of the kinds pid, ipc, uts, network and cgroup",
                    ));
                }
            } as u32;
            self.words[field::NAMESPACES] &= !bit;
            self.joined |= if host { 0 } else { bit };
            network |= !host && kind == LinuxNamespaceType::Network;
        }
        Ok(network)
    }

    fn mounts(&mut self, launch: &Launch, host: Host, own_network: bool, ids: Option<&ContainerIds>) -> Result<()> {
        let [root] = launch.rootfs.as_slice() else {
            return Err(Error::invalid(format!(
                "{} mounts for the root; one is needed",
                launch.rootfs.len()
            )));
        };
        let mut record = root_record(root)?;
        if !launch.privileged {
            record.attributes |= options::NO_DEV;
        }
        record.flags |= mount::ID_MAP;
        if self.has(flag::TOOL) {
            record.strings[0] = b"/r".to_vec();
            record.attributes |= if root.read_only { options::READ_ONLY } else { 0 };
        }
        self.record(record)?;
        let mut records = Vec::new();
        for mount in launch.spec.mounts().as_deref().unwrap_or(&[]) {
            let target = clean_absolute(mount.destination(), "the target of a mount")?.to_vec();
            if target == b"/" {
                return Err(Error::invalid("a mount on / itself"));
            }
            let memory = |one: &SharedNamespace| matches!(one, SharedNamespace::SharedMemory(_));
            if target == b"/dev/shm" && launch.shared.iter().any(memory) {
                records.push(RecordParts {
                    kind: mount::SHARED_MEMORY,
                    attributes: 0,
                    flags: mount::STRICT,
                    strings: vec![target],
                });
                continue;
            }
            let options = Options::parse(mount.options().as_deref().unwrap_or(&[]), host)?;
            let devices = options.devices;
            let foreign_network = !own_network && (host.bind_devices || self.has(flag::OWN_USERNS));
            let foreign_cgroup = self.has(flag::HOST_CGROUP) && host.bind_devices;
            let foreign = Foreign {
                network: foreign_network,
                cgroup: foreign_cgroup,
            };
            let mut record = spec_record(mount, target, options, host, foreign)?;
            let is_dev = record.strings[0] == b"/dev" && record.kind == mount::FILESYSTEM;
            if !launch.privileged && (is_dev || !devices) {
                no_devices(&mut record);
            }
            self.set_if(is_dev, flag::FILL_DEV);
            records.push(record);
        }
        let mut trees = 0;
        for mount in &launch.mounts {
            records.push(Self::launch_mount(mount, launch, ids, &mut trees)?);
        }
        // What is in another comes after it; of the rest the order stays.
        order::sort_by_key(&mut records, depth);
        records.into_iter().try_for_each(|record| self.record(record))
    }

    /// The record of a mount beside those of the spec.
    fn launch_mount(
        wanted: &LaunchMount,
        launch: &Launch,
        ids: Option<&ContainerIds>,
        trees: &mut u32,
    ) -> Result<RecordParts> {
        let target = clean_absolute(&wanted.target, "the target of a mount")?.to_vec();
        if target == b"/" {
            return Err(Error::invalid("a mount on / itself"));
        }
        let mut record = match &wanted.source {
            LaunchSource::Host(path) => {
                let source = clean_absolute(path, "the source of a bind mount")?.to_vec();
                RecordParts {
                    kind: mount::BIND,
                    attributes: 0,
                    flags: mount::ID_MAP,
                    strings: vec![target, source],
                }
            }
            LaunchSource::Tree(_) | LaunchSource::Given(_) => {
                let position = TREES + *trees;
                *trees += 1;
                if *trees > MOST_TREES {
                    return Err(Error::invalid(format!(
                        "more than {MOST_TREES} volumes that are file systems"
                    )));
                }
                let kept = match wanted.source {
                    // Who serves its files has thought of their owners.
                    LaunchSource::Given(_) => mount::GIVEN,
                    _ => mount::ID_MAP,
                };
                RecordParts {
                    kind: mount::TREE,
                    attributes: 0,
                    flags: kept | position << mount::FD_SHIFT,
                    strings: vec![target, Vec::new()],
                }
            }
            LaunchSource::Mount(described) => {
                let mut record = root_record(described)?;
                if let Some(place) = record.strings.first_mut() {
                    *place = target;
                }
                record
            }
        };
        let place = record.strings.first().map_or(&[] as &[u8], Vec::as_slice);
        if is_strict(place) {
            record.flags |= mount::STRICT;
        }
        if let Some(swap) = wanted.swap {
            if !matches!(record.kind, mount::BIND | mount::TREE) {
                return Err(Error::invalid("ids change places in directories and volumes alone"));
            }
            let identity;
            let ids = match ids {
                Some(ids) => ids,
                None => {
                    identity = ContainerIds::identity();
                    &identity
                }
            };
            record.flags = record.flags & !mount::ID_MAP | mount::OWN_MAP;
            record
                .strings
                .push(swap_map(&ids.uids, swap.outside.0, swap.inside.0).into_bytes());
            record
                .strings
                .push(swap_map(&ids.gids, swap.outside.1, swap.inside.1).into_bytes());
        }
        if let Some(part) = &wanted.subpath {
            record.flags |= mount::SUBPATH;
            record.strings.push(clean_relative(part)?.to_vec());
        }
        options_of(&mut record, wanted, launch.privileged);
        Ok(record)
    }

    fn record(&mut self, record: RecordParts) -> Result<()> {
        let target = String::from_utf8_lossy(record.strings.first().map_or(b"", Vec::as_slice)).into_owned();
        // What is given is moved, and only a part of it is a copy.
        let moved = record.flags & mount::GIVEN != 0 && record.flags & mount::SUBPATH == 0;
        if record.kind == mount::TREE && !moved {
            self.names.copies.push(self.names.mounts.len());
        }
        self.names.mounts.push(target);
        record.write(&mut self.sections[Section::Mounts as usize])
    }

    fn linux(&mut self, linux: &Linux, host: Host) -> Result<()> {
        if let Some(label) = linux.mount_label().as_deref().filter(|label| !label.is_empty()) {
            let needs = "a runtime that labels files: runc or crun";
            return Err(Error::unsupported(
                format!("the SELinux label {label:?} of mounts"),
                needs,
            ));
        }
        for path in linux.masked_paths().as_deref().unwrap_or(&[]) {
            let text = clean_absolute(Path::new(path), "a masked path")?.to_vec();
            self.string(Section::Masked, &text)?;
            self.names.masked.push(path.clone());
        }
        for path in linux.readonly_paths().as_deref().unwrap_or(&[]) {
            let text = clean_absolute(Path::new(path), "a read-only path")?.to_vec();
            self.string(Section::Readonly, &text)?;
            self.names.readonly.push(path.clone());
        }
        for device in linux.devices().as_deref().unwrap_or(&[]) {
            self.device(device, host)?;
        }
        let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
        order::sort(&mut sysctls);
        for (name, value) in sysctls {
            let path = sysctls::path(name)?;
            self.sysctl_is_own(name)?;
            self.string(Section::Sysctls, path.as_bytes())?;
            self.string(Section::Sysctls, value.as_bytes())?;
            self.names.sysctls.push(name.clone());
        }
        Ok(())
    }

    /// What belongs to a namespace of the host is not a container's to change.
    fn sysctl_is_own(&self, name: &str) -> Result<()> {
        let (namespace, whose) = sysctls::namespace(name);
        let bit = match namespace {
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            _ => libc::CLONE_NEWIPC,
        };
        if (self.words[field::NAMESPACES] | self.joined) & bit as u32 != 0 {
            return Ok(());
        }
        Err(sysctls::of_the_host(name, whose))
    }

    fn device(&mut self, device: &LinuxDevice, host: Host) -> Result<()> {
        let target = clean_absolute(device.path(), "the path of a device")?.to_vec();
        if host.bind_devices {
            let strings = vec![target.clone(), target];
            return self.record(RecordParts {
                kind: mount::BIND,
                attributes: 0,
                flags: mount::STRICT,
                strings,
            });
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(Error::invalid("a device of type \"a\" cannot be made"));
            }
        };
        let number = |value: i64| u32::try_from(value).map_err(|_| Error::invalid("a negative device number"));
        let words = [
            kind,
            number(device.major())?,
            number(device.minor())?,
            device.file_mode().unwrap_or(0o666) & 0o777,
            device.uid().unwrap_or(0),
            device.gid().unwrap_or(0),
        ];
        for word in words {
            self.word(Section::Devices, word);
        }
        self.names.devices.push(device.path().display().to_string());
        self.string(Section::DevicePaths, &target)
    }

    /// The ids of the container's own user namespace. Where the engine chose them, mounts are mapped, so that files keep their
    /// owners; who names ids has made the files theirs (OCI runtime specification, "User namespace mappings": they "should
    /// not modify the ownership of referenced filesystems").
    pub(crate) fn user_namespace(&mut self, ids: &ContainerIds, are_named: bool) -> Result<()> {
        let needs = || Error::unsupported("a user namespace without root", "id maps that map the id 0");
        self.words[field::ROOT_UID] = ContainerIds::outside(&ids.uids, 0).ok_or_else(needs)?;
        self.words[field::ROOT_GID] = ContainerIds::outside(&ids.gids, 0).ok_or_else(needs)?;
        for ranges in [&ids.uids, &ids.gids] {
            self.string(Section::IdMaps, ContainerIds::text(ranges).as_bytes())?;
        }
        self.set_if(!are_named && !ids.is_identity(), flag::ID_MAPPED);
        for device in self.sections[Section::Devices as usize].chunks_exact_mut(24) {
            for (at, ranges) in [(16, &ids.uids), (20, &ids.gids)] {
                let Some(word) = device.get_mut(at..at + 4) else {
                    continue;
                };
                let id = helper_word(word);
                let outside = ContainerIds::outside(ranges, id).ok_or_else(|| {
                    Error::invalid(format!("the owner {id} of a device is not mapped in the container"))
                })?;
                word.copy_from_slice(&outside.to_ne_bytes());
            }
        }
        Ok(())
    }

    /// The read-only root is a property of the spec's root or of the root's mount.
    pub(crate) fn read_only_root(&mut self, read_only: bool) {
        self.set_if(read_only, flag::READ_ONLY_ROOT);
    }
}

fn helper_word(bytes: &[u8]) -> u32 {
    super::helper::wire::u32_at(bytes, 0).unwrap_or(0)
}

/// A mount record before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordParts {
    pub(crate) kind: u32,
    pub(crate) attributes: u32,
    pub(crate) flags: u32,
    pub(crate) strings: Vec<Vec<u8>>,
}

impl RecordParts {
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut list = Vec::new();
        for text in &self.strings {
            push_string(&mut list, text)?;
        }
        for word in [self.kind, self.attributes, self.flags, list.len() as u32] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&list);
        Ok(())
    }
}

/// Appends one item of a list.
/// The helper leaves a process under what it is under itself: it must not seem to be confined that is not.
fn refuse_labels(process: &Process) -> Result<()> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty() && text != "unconfined");
    let needs = "a runtime that sets it: runc or crun";
    if let Some(profile) = said(process.apparmor_profile()) {
        return Err(Error::unsupported(format!("the AppArmor profile {profile:?}"), needs));
    }
    match said(process.selinux_label()) {
        Some(label) => Err(Error::unsupported(format!("the SELinux label {label:?}"), needs)),
        None => Ok(()),
    }
}

pub(crate) fn push_string(out: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    if text.contains(&0) {
        return Err(Error::invalid(format!(
            "a NUL byte in {:?}",
            String::from_utf8_lossy(text)
        )));
    }
    out.extend_from_slice(&(text.len() as u32).to_ne_bytes());
    out.extend_from_slice(text);
    out.push(0);
    Ok(())
}

/// The record of a mount that a snapshotter describes.
pub(crate) fn root_record(root: &Mount) -> Result<RecordParts> {
    // The root's own flag comes last, after the mount points in it were made.
    let target = b"/".to_vec();
    match &root.source {
        MountSource::Bind { path } => {
            let source = clean_absolute(path, "the root")?.to_vec();
            Ok(RecordParts {
                kind: mount::BIND,
                attributes: 0,
                flags: 0,
                strings: vec![target, source],
            })
        }
        MountSource::FileSystem { kind, source, options } => {
            let mut strings = vec![target, kind.clone().into_bytes(), source.clone().into_bytes()];
            strings.extend(options.iter().map(|word| word.clone().into_bytes()));
            Ok(RecordParts {
                kind: mount::FILESYSTEM,
                attributes: 0,
                flags: 0,
                strings,
            })
        }
        MountSource::Overlay {
            lower,
            upper,
            work,
            user_xattr,
            volatile,
        } => {
            let optional = |path: &Option<std::path::PathBuf>| match path {
                Some(path) => clean_absolute(path, "a directory of an overlay").map(<[u8]>::to_vec),
                None => Ok(Vec::new()),
            };
            let (upper, work) = (optional(upper)?, optional(work)?);
            if lower.is_empty() || upper.is_empty() != work.is_empty() {
                return Err(Error::invalid(
                    "an overlay needs a lower directory, and upper and work together",
                ));
            }
            let lower = lower
                .iter()
                .map(|path| clean_absolute(path, "a layer").map(<[u8]>::to_vec))
                .collect::<Result<Vec<_>>>()?;
            if upper.is_empty() && lower.len() == 1 {
                let strings = [vec![target], lower].concat();
                return Ok(RecordParts {
                    kind: mount::BIND,
                    attributes: 0,
                    flags: 0,
                    strings,
                });
            }
            let mut flags = 0;
            if *user_xattr {
                flags |= mount::USER_XATTR;
            }
            if *volatile {
                flags |= mount::VOLATILE;
            }
            let strings = [vec![target, upper, work], lower].concat();
            Ok(RecordParts {
                kind: mount::OVERLAY,
                attributes: 0,
                flags,
                strings,
            })
        }
    }
}

/// Whether a place is a pseudo file system's.
fn is_strict(target: &[u8]) -> bool {
    let under = |top: &str| Path::new(std::ffi::OsStr::from_bytes(target)).starts_with(top);
    under("/proc") || under("/sys") || under("/dev")
}

/// How deep a mount lies. The root's is not among them.
fn depth(record: &RecordParts) -> usize {
    let target = record.strings.first().map_or(&[] as &[u8], Vec::as_slice);
    target
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .count()
}

/// What is said of a mount, as the helper reads it.
fn options_of(record: &mut RecordParts, wanted: &LaunchMount, privileged: bool) {
    if record.kind == mount::OVERLAY {
        record.attributes |= options::NO_DEV;
        if wanted.read_only {
            record.attributes |= options::READ_ONLY;
        }
        return;
    }
    if wanted.recursive {
        record.flags |= mount::RECURSIVE;
    }
    match (wanted.read_only, wanted.read_only_below) {
        (true, true) => record.attributes |= options::READ_ONLY,
        (true, false) => record.flags |= mount::READ_ONLY_TOP,
        (false, _) => {}
    }
    if wanted.no_suid && !privileged {
        record.attributes |= options::NO_SUID;
    }
    if !wanted.devices && !privileged {
        record.flags |= mount::NO_DEVICES;
    }
    record.flags |= match wanted.propagation {
        Propagation::Slave => mount::SLAVE | mount::PROPAGATE_TOP,
        Propagation::Rslave => mount::SLAVE,
        Propagation::Shared | Propagation::Rshared => mount::SHARED,
        _ => 0,
    };
}

/// The map of ids in which two change places: those on the disk to those that the kernel knows the container's by. `ranges`
/// are the container's; a place that its ids have none for is left out.
fn swap_map(ranges: &[IdRange], one: u32, other: u32) -> String {
    let mut lines = String::new();
    let (low, high) = (one.min(other), one.max(other));
    for range in ranges {
        let end = u64::from(range.inside) + u64::from(range.count);
        let mut at = u64::from(range.inside);
        while at < end {
            let here = u32::try_from(at).unwrap_or(u32::MAX);
            let (disk, until) = match here {
                here if here == low => (high, at + 1),
                here if here == high => (low, at + 1),
                here if here < low => (here, u64::from(low)),
                here if here < high => (here, u64::from(high)),
                here => (here, end),
            };
            let until = until.min(end);
            let known = u64::from(range.outside) + (at - u64::from(range.inside));
            lines += &format!("{disk} {known} {}\n", until - at);
            at = until;
        }
    }
    lines
}

/// The bytes of a relative path without `..`.
fn clean_relative(path: &Path) -> Result<&[u8]> {
    let bad = |why: &str| Error::invalid(format!("the subpath {}: {why}", path.display()));
    if path.is_absolute() || path.as_os_str().is_empty() {
        return Err(bad("a relative path is needed"));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(bad("\"..\" is not allowed"));
    }
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= libc::PATH_MAX as usize || bytes.contains(&0) {
        return Err(bad("too long, or with a NUL byte"));
    }
    Ok(bytes)
}

/// No device that the container makes may work (`mknod(2)` is among Docker's capabilities, and there is no devices
/// cgroup). Only `devpts` makes its own, and lets nobody else make any.
fn no_devices(record: &mut RecordParts) {
    if record.kind == mount::BIND {
        record.flags |= mount::NO_DEVICES;
    } else if record.strings.get(1).is_none_or(|kind| kind != b"devpts") {
        record.attributes |= options::NO_DEV;
    }
}

/// Namespaces that the helper's user namespace does not own: what shows them cannot be made, but only bound from the host.
#[derive(Debug, Clone, Copy)]
struct Foreign {
    network: bool,
    cgroup: bool,
}

/// The record of a mount of the spec.
fn spec_record(
    spec: &oci_spec::runtime::Mount,
    target: Vec<u8>,
    options: Options,
    host: Host,
    foreign: Foreign,
) -> Result<RecordParts> {
    let kind = spec.typ().as_deref().unwrap_or("bind");
    let source = spec.source().as_deref();
    let flags = if is_strict(&target) { mount::STRICT } else { 0 };
    let attributes = options.attributes;
    let bind = |source: Vec<u8>, recursive: bool, attributes: u32, target: Vec<u8>| {
        let flags = if recursive { flags | mount::RECURSIVE } else { flags };
        RecordParts {
            kind: mount::BIND,
            attributes,
            flags,
            strings: vec![target, source],
        }
    };
    let filesystem = |kind: &str, data: Vec<Vec<u8>>, target: Vec<u8>| {
        let mut strings = vec![target, kind.into(), kind.into()];
        strings.extend(data);
        RecordParts {
            kind: mount::FILESYSTEM,
            attributes,
            flags,
            strings,
        }
    };
    if options.bind || kind == "bind" || kind == "rbind" {
        let source = source.ok_or_else(|| Error::invalid("a bind mount without a source"))?;
        let source = clean_absolute(source, "the source of a bind mount")?.to_vec();
        let mut record = bind(source, options.recursive || kind == "rbind", attributes, target);
        record.flags |= mount::ID_MAP;
        return Ok(record);
    }
    match kind {
        "proc" if host.hidden.proc => Ok(bind(b"/proc".to_vec(), true, attributes, target)),
        "proc" | "mqueue" => Ok(filesystem(kind, Vec::new(), target)),
        "tmpfs" | "devpts" => Ok(filesystem(kind, options.data, target)),
        // Shows the network namespace of its maker, which must belong to the maker's user namespace.
        "sysfs" if foreign.network || host.hidden.sys => {
            Ok(bind(b"/sys".to_vec(), true, attributes | options::READ_ONLY, target))
        }
        "sysfs" => Ok(filesystem(kind, Vec::new(), target)),
        // So does this: the cgroup namespace of its maker.
        "cgroup" | "cgroup2" if host.cgroup_v2 && foreign.cgroup => {
            let read_only = attributes | options::READ_ONLY;
            Ok(bind(b"/sys/fs/cgroup".to_vec(), true, read_only, target))
        }
        "cgroup" | "cgroup2" if host.cgroup_v2 => {
            let mut record = filesystem("cgroup2", Vec::new(), target);
            if !options.writable {
                record.attributes |= options::READ_ONLY;
            }
            Ok(record)
        }
        // Version 1 has a hierarchy per controller, none of which is a container's to see.
        "cgroup" | "cgroup2" => {
            let mut record = filesystem("tmpfs", vec![b"mode=755".to_vec(), b"size=4k".to_vec()], target);
            record.attributes |= options::READ_ONLY;
            Ok(record)
        }
        _ => Err(Error::unsupported(
            format!("a mount of type {kind:?}"),
            "one of bind, tmpfs, proc, sysfs, devpts, mqueue, cgroup",
        )),
    }
}

/// The bytes of an absolute path without `..`.
pub(crate) fn clean_absolute<'a>(path: &'a Path, what: &str) -> Result<&'a [u8]> {
    let bad = |why: &str| Error::invalid(format!("{what} {}: {why}", path.display()));
    if !path.is_absolute() {
        return Err(bad("an absolute path is needed"));
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(bad("\"..\" is not allowed"));
    }
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= libc::PATH_MAX as usize || bytes.contains(&0) {
        return Err(bad("too long, or with a NUL byte"));
    }
    Ok(bytes)
}

pub(crate) fn capability_bits(set: &Capabilities) -> u64 {
    set.iter()
        .filter_map(|cap| options::capability_number(*cap))
        .fold(0, |bits, number| bits | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h12_no_label_is_left_out_in_silence() {
        let of = |words: &str| {
            let text = format!(r#"{{"user":{{"uid":0,"gid":0}},"args":["a"],"cwd":"/",{words}}}"#);
            refuse_labels(&serde_json::from_str::<Process>(&text).unwrap())
        };
        for none in [
            r#""env":[]"#,
            r#""apparmorProfile":"","selinuxLabel":"""#,
            r#""apparmorProfile":"unconfined""#,
        ] {
            of(none).unwrap();
        }
        for (some, name) in [
            (r#""apparmorProfile":"docker-default""#, "docker-default"),
            (r#""selinuxLabel":"system_u:system_r:container_t:s0""#, "container_t"),
        ] {
            let refused = of(some).unwrap_err();
            assert!(
                refused.is_unsupported() && refused.report().contains(name),
                "{}",
                refused.report()
            );
        }
    }
}
