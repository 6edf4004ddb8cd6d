//! From a launch to the `config.json` of a bundle. Pure. Most of a launch is in the specification's words already; what is
//! changed here is what this engine does itself, and where the runtime finds things: every path of the host's becomes a place
//! in the stage, which the helper lays out.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, LinuxNamespaceType, LinuxResources, Mount, MountBuilder, Process, RootBuilder, Spec,
};

use super::call::{Flavour, ROOT, STAGE};
use super::cgroup;
use super::identity::Identity;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::caps::CapabilitySet;
use crate::runtime::cgroups::CgroupMode;
use crate::runtime::{Launch, LaunchMount, SharedNamespace, StdioPlan};
use crate::sys::order;
use crate::types::Propagation;

/// The version of the specification whose words are used.
const VERSION: &str = "1.0.2";

/// What of the host matters to a bundle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) flavour: Flavour,
    /// The helper is in a user namespace.
    pub(super) rootless: bool,
    /// Only one id is mapped.
    pub(super) single_id: bool,
    /// The container's network belongs to the host, or was made in another user namespace than the helper's.
    pub(super) foreign_network: bool,
    /// Capabilities that there are to give.
    pub(super) ceiling: CapabilitySet,
}

/// A container's place among the cgroups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) mode: CgroupMode,
    pub(super) directories: &'a [PathBuf],
}

/// A launch whose mounts are places in the stage, as the helper lays them out, and the mounts in it from there, in order.
pub(super) struct Staged {
    pub(super) launch: Launch,
    pub(super) mounts: Vec<Mount>,
}

/// Lays the mounts of a launch out.
pub(super) fn stage(launch: &Launch, place: Place, mode: CgroupMode) -> Result<Staged> {
    let mut staged = launch.clone();
    let mut inside = Vec::new();
    let mut laid = Vec::new();
    let mut count = 0;
    let mut next = move || {
        count += 1;
        PathBuf::from(format!("/{count}"))
    };
    for mount in launch.spec.mounts().iter().flatten() {
        if !is_staged(mount, place) {
            inside.push(made_by_runtime(mount, place, mode)?);
            continue;
        }
        let at = next();
        let words = mount.options().iter().flatten().map(String::as_str);
        let flags: Vec<&str> = words.filter(|word| FLAGS.contains(word)).collect();
        inside.push(bind(&at, mount.destination(), "rprivate", &flags)?);
        let mut moved = mount.clone();
        moved.set_destination(at);
        laid.push(moved);
    }
    staged.spec.set_mounts(Some(laid));
    for mount in &mut staged.mounts {
        let at = next();
        let propagation = match mount.propagation {
            Propagation::Slave => "slave",
            Propagation::Rslave => "rslave",
            _ => "rprivate",
        };
        inside.push(bind(&at, &mount.target, propagation, &flags_of(mount))?);
        mount.target = at;
    }
    // Mount points are made in it.
    staged.rootfs.iter_mut().for_each(|root| root.read_only = false);
    staged.bundle = None;
    // What is in another comes after it; of the rest the order stays.
    order::sort_by_key(&mut inside, |mount| mount.destination().components().count());
    Ok(Staged {
        launch: staged,
        mounts: inside,
    })
}

/// Whether a mount of the specification is made by the helper: what comes from the host, and a `/sys` that can only be shown again.
fn is_staged(mount: &Mount, place: Place) -> bool {
    match mount.typ().as_deref() {
        Some("sysfs") => place.rootless && place.foreign_network,
        Some("proc" | "devpts" | "mqueue" | "tmpfs" | "cgroup" | "cgroup2") => false,
        _ => true,
    }
}

fn made_by_runtime(mount: &Mount, place: Place, mode: CgroupMode) -> Result<Mount> {
    let mut mount = mount.clone();
    let words = mount.options().clone().unwrap_or_default();
    match mount.typ().as_deref() {
        // The group of terminals is not mapped.
        Some("devpts") if place.single_id => {
            mount.set_options(Some(
                words.into_iter().filter(|word| !word.starts_with("gid=")).collect(),
            ));
        }
        // On hosts with version 1 an empty place, as with the native runtime: those hierarchies are not the container's to see.
        Some("cgroup" | "cgroup2") if mode != CgroupMode::V2 => {
            let words = ["ro", "nosuid", "noexec", "nodev", "mode=755"].map(str::to_owned);
            mount.set_typ(Some("tmpfs".to_owned()));
            mount.set_source(Some("tmpfs".into()));
            mount.set_options(Some(words.into()));
        }
        _ => {}
    }
    Ok(mount)
}

/// What a mount is restricted to, which has to be said of its bind, too: crun takes away what is not.
const FLAGS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

fn flags_of(mount: &LaunchMount) -> Vec<&'static str> {
    let set = [mount.read_only, mount.no_suid, !mount.devices, false];
    let said = FLAGS.into_iter().zip(set);
    said.filter_map(|(word, is_set)| is_set.then_some(word)).collect()
}

fn bind(at: &Path, target: &Path, propagation: &str, flags: &[&str]) -> Result<Mount> {
    let below = at.strip_prefix("/").unwrap_or(at);
    let words = ["rbind", propagation].into_iter().chain(flags.iter().copied());
    let words: Vec<String> = words.map(str::to_owned).collect();
    MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(Path::new(STAGE).join(below))
        .options(words)
        .build()
        .map_err(build_error)
}

/// The specification of a bundle.
pub(super) fn config(
    launch: &Launch,
    mounts: Vec<Mount>,
    place: Place,
    identity: &Identity,
    held: Option<Held<'_>>,
) -> Result<Spec> {
    let mut spec = launch.spec.clone();
    spec.set_version(VERSION.to_owned());
    let read_only = launch.rootfs.iter().any(|root| root.read_only);
    let root = RootBuilder::default()
        .path(Path::new(STAGE).join(ROOT))
        .readonly(read_only);
    spec.set_root(Some(root.build().map_err(build_error)?));
    spec.set_mounts(Some(mounts));
    let asked = launch
        .spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::invalid("the spec has no process"))?;
    spec.set_process(Some(process(asked, launch.stdio, place, identity)?));
    let shared = |kind| {
        launch
            .shared
            .iter()
            .any(|one| matches!(one, SharedNamespace::Host(host) if *host == kind))
    };
    if shared(LinuxNamespaceType::Uts) {
        spec.set_hostname(None).set_domainname(None);
    }
    let domain = match place.flavour {
        Flavour::Runc => spec.domainname().clone(),
        Flavour::Crun => None,
    };
    if domain.is_some() && place.rootless {
        let what = "a domain name with runc for an ordinary user";
        return Err(Error::unsupported(what, "the native runtime, or crun"));
    }
    if domain.is_some() {
        spec.set_domainname(None);
    }
    let Some(linux) = spec.linux_mut() else { return Ok(spec) };
    if let Some(domain) = domain {
        // Before version 1.2 runc does not know the word, and leaves the name out. So Docker does it, too.
        let mut sysctls = linux.sysctl().clone().unwrap_or_default();
        sysctls.insert("kernel.domainname".to_owned(), domain);
        linux.set_sysctl(Some(sysctls));
    }
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|one| !shared(one.typ()));
    linux.set_namespaces(Some(namespaces));
    let devices = linux.devices().clone().unwrap_or_default();
    let rules = cgroup::device_rules(linux.resources().as_ref(), &devices, launch.privileged);
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(rules.map_err(build_error)?));
    // The driver has set all limits; crun, which is told to leave cgroups alone, has no use for the rest either.
    linux.set_resources((place.flavour == Flavour::Runc).then_some(resources));
    let named = linux.cgroups_path().clone();
    let path = held.and_then(|held| cgroup::path(held.directories, held.mode, named.as_deref()));
    linux.set_cgroups_path(path.filter(|_| place.flavour == Flavour::Runc).map(PathBuf::from));
    Ok(spec)
}

/// A process in the runtime's words: of a container, or a command in one.
pub(super) fn process(asked: &Process, stdio: StdioPlan, place: Place, identity: &Identity) -> Result<Process> {
    let mut process = asked.clone();
    let mut user = process.user().clone();
    user.set_uid(identity.uid).set_gid(identity.gid);
    user.set_additional_gids(Some(identity.groups.clone()).filter(|groups| !groups.is_empty()));
    let umask = user.umask().unwrap_or(0o022);
    user.set_umask(Some(umask)).set_username(None);
    process.set_user(user);
    process.set_terminal(Some(stdio.terminal.is_some()));
    if let Some((rows, columns)) = stdio.terminal {
        let size = BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns));
        process.set_console_size(Some(size.build().map_err(build_error)?));
    }
    if let Some(mut capabilities) = process.capabilities().clone() {
        let within = |set: &Option<oci_spec::runtime::Capabilities>| {
            let kept = set.iter().flatten().filter(|one| place.has(one)).copied();
            Some(kept.collect::<oci_spec::runtime::Capabilities>())
        };
        let bounding = within(capabilities.bounding());
        let (effective, permitted) = (within(capabilities.effective()), within(capabilities.permitted()));
        let (inheritable, ambient) = (within(capabilities.inheritable()), within(capabilities.ambient()));
        capabilities
            .set_bounding(bounding)
            .set_effective(effective)
            .set_permitted(permitted);
        capabilities.set_inheritable(inheritable).set_ambient(ambient);
        process.set_capabilities(Some(capabilities));
    }
    Ok(process)
}

impl Place {
    /// Whether a capability is there to give: a runtime that cannot give one gives none.
    fn has(&self, capability: &oci_spec::runtime::Capability) -> bool {
        self.ceiling.to_oci().contains(capability)
    }
}

fn build_error(error: OciSpecError) -> Error {
    Error::new(ErrorKind::Internal, "a launch does not make an OCI bundle").with_source(error)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capability, LinuxNamespaceBuilder};

    use super::*;
    use crate::runtime::{LaunchSource, defaults};
    use crate::types::ContainerId;

    const PLACE: Place = Place {
        flavour: Flavour::Runc,
        rootless: false,
        single_id: false,
        foreign_network: true,
        ceiling: CapabilitySet::ALL,
    };

    fn launch() -> Launch {
        let text = r#"{"ociVersion":"1.0.0","hostname":"h","annotations":{"a":"b"},
            "process":{"user":{"uid":0,"gid":0},"args":["sh"],"env":["A=1"],"cwd":"/w","oomScoreAdj":7,"noNewPrivileges":true,
              "rlimits":[{"type":"RLIMIT_NOFILE","hard":9,"soft":8}],
              "capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"],"effective":["CAP_CHOWN"],"permitted":["CAP_CHOWN"]}},
            "linux":{"maskedPaths":["/m"],"readonlyPaths":["/ro"],"sysctl":{"kernel.msgmax":"1"},
              "seccomp":{"defaultAction":"SCMP_ACT_ERRNO"},
              "uidMappings":[{"containerID":0,"hostID":5,"size":6}],
              "resources":{"memory":{"limit":1000}},
              "devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229}]}}"#;
        let mut spec: Spec = serde_json::from_str(text).unwrap();
        let kinds = ["mount", "pid", "ipc", "uts", "cgroup"].map(|kind| {
            let kind = serde_json::from_str::<LinuxNamespaceType>(&format!("\"{kind}\"")).unwrap();
            LinuxNamespaceBuilder::default().typ(kind).build().unwrap()
        });
        spec.linux_mut().as_mut().unwrap().set_namespaces(Some(kinds.into()));
        let mut mounts = defaults::mounts();
        mounts.insert(
            0,
            bind(Path::new("/x"), Path::new("/dev/shm/deep"), "rprivate", &[]).unwrap(),
        );
        spec.set_mounts(Some(mounts));
        Launch {
            id: ContainerId::random(),
            spec,
            user: None,
            extra_groups: Vec::new(),
            rootfs: vec![crate::types::Mount::bind("/layers/1", true)],
            stdio: StdioPlan::default(),
            init: false,
            scratch: Vec::new(),
            best_effort_limits: false,
            shared: Vec::new(),
            privileged: false,
            mounts: vec![LaunchMount {
                target: "/data".into(),
                source: LaunchSource::Host("/host/data".into()),
                subpath: None,
                read_only: true,
                read_only_below: true,
                recursive: true,
                no_suid: true,
                devices: false,
                propagation: Propagation::Rslave,
                swap: None,
            }],
            hold: false,
            bundle: None,
            name: None,
            notes: None,
        }
    }

    fn made(launch: &Launch, place: Place, mode: CgroupMode) -> Spec {
        let staged = stage(launch, place, mode).unwrap();
        let directories = [PathBuf::from("/sys/fs/cgroup/longshore-1/c")];
        let held = Held {
            mode,
            directories: &directories,
        };
        let identity = Identity {
            uid: 7,
            gid: 8,
            groups: vec![9],
        };
        config(launch, staged.mounts, place, &identity, Some(held)).unwrap()
    }

    fn mount<'a>(spec: &'a Spec, target: &str) -> &'a Mount {
        let mut all = spec.mounts().iter().flatten();
        all.find(|mount| mount.destination() == Path::new(target)).unwrap()
    }

    #[test]
    fn h21_the_process_and_the_root_of_a_bundle() {
        let mut launch = launch();
        launch.stdio.terminal = Some((3, 4));
        let spec = made(&launch, PLACE, CgroupMode::V2);
        let process = spec.process().as_ref().unwrap();
        let user = process.user();
        assert_eq!((user.uid(), user.gid(), user.umask()), (7, 8, Some(0o022)));
        assert_eq!(user.additional_gids().as_deref(), Some(&[9][..]));
        assert_eq!(process.args().as_deref().unwrap(), ["sh"]);
        assert_eq!(process.env().as_deref().unwrap(), ["A=1"]);
        assert_eq!(process.cwd(), Path::new("/w"));
        assert_eq!(
            (process.oom_score_adj(), process.no_new_privileges()),
            (Some(7), Some(true))
        );
        assert_eq!(process.rlimits().as_ref().unwrap()[0].soft(), 8);
        assert_eq!(process.terminal(), Some(true));
        assert_eq!(process.console_size().as_ref().unwrap().height(), 3);
        let root = spec.root().as_ref().unwrap();
        assert_eq!(
            (root.path().as_path(), root.readonly()),
            (Path::new("/tmp/r"), Some(true))
        );
        assert_eq!(spec.hostname().as_deref(), Some("h"));
        assert_eq!(spec.annotations().as_ref().unwrap()["a"], "b");
    }

    #[test]
    fn h21_a_domain_name_is_a_sysctl_for_runc() {
        let mut launch = launch();
        launch.spec.set_domainname(Some("example.org".to_owned()));
        let told = |place| {
            let spec = made(&launch, place, CgroupMode::V2);
            let sysctls = spec.linux().as_ref().unwrap().sysctl().clone().unwrap();
            assert_eq!(sysctls["kernel.msgmax"], "1");
            (spec.domainname().clone(), sysctls.get("kernel.domainname").cloned())
        };
        let name = Some("example.org".to_owned());
        assert_eq!(told(PLACE), (None, name.clone()));
        let crun = Place {
            flavour: Flavour::Crun,
            ..PLACE
        };
        assert_eq!(told(crun), (name, None));
        let rootless = Place {
            rootless: true,
            ..PLACE
        };
        let nobody = Identity {
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
        let refused = config(&launch, Vec::new(), rootless, &nobody, None).unwrap_err();
        assert!(refused.is_unsupported(), "{}", refused.report());
    }

    #[test]
    fn h21_capabilities_stay_within_those_that_there_are() {
        let place = Place {
            ceiling: CapabilitySet::docker(),
            ..PLACE
        };
        let spec = made(&launch(), place, CgroupMode::V2);
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        let chown: oci_spec::runtime::Capabilities = [Capability::Chown].into_iter().collect();
        assert_eq!(sets.bounding(), &Some(chown.clone()));
        assert_eq!(
            (sets.effective(), sets.permitted()),
            (&Some(chown.clone()), &Some(chown))
        );
        let all = made(&launch(), PLACE, CgroupMode::V2);
        let bounding = all
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .as_ref()
            .unwrap()
            .bounding()
            .clone();
        assert_eq!(bounding.unwrap().len(), 2);
    }

    #[test]
    fn h21_mounts_come_from_the_stage() {
        let launch = launch();
        let staged = stage(&launch, PLACE, CgroupMode::V2).unwrap();
        assert_eq!(staged.launch.mounts[0].target, Path::new("/2"));
        assert!(!staged.launch.rootfs[0].read_only);
        assert_eq!(staged.launch.spec.mounts().as_ref().unwrap().len(), 1);
        let spec = made(&launch, PLACE, CgroupMode::V2);
        assert_eq!(mount(&spec, "/data").source().as_deref(), Some(Path::new("/tmp/2")));
        assert_eq!(
            mount(&spec, "/data").options().as_deref().unwrap(),
            ["rbind", "rslave", "ro", "nosuid", "nodev"]
        );
        let places: Vec<_> = spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mount.destination().as_path())
            .collect();
        let at = |path: &str| places.iter().position(|place| *place == Path::new(path));
        assert!(at("/dev") < at("/dev/shm") && at("/dev/shm") < at("/dev/shm/deep"));
        let text = serde_json::to_string(&spec).unwrap();
        assert!(!text.contains("/host/data") && !text.contains("/layers"), "{text}");
    }

    #[test]
    fn h21_pseudo_file_systems_as_the_host_can_have_them() {
        let launch = launch();
        let on_v2 = made(&launch, PLACE, CgroupMode::V2);
        assert_eq!(mount(&on_v2, "/sys/fs/cgroup").typ().as_deref(), Some("cgroup"));
        assert_eq!(mount(&on_v2, "/sys").typ().as_deref(), Some("sysfs"));
        let place = Place {
            rootless: true,
            single_id: true,
            ..PLACE
        };
        let on_v1 = made(&launch, place, CgroupMode::Hybrid);
        assert_eq!(mount(&on_v1, "/sys/fs/cgroup").typ().as_deref(), Some("tmpfs"));
        assert_eq!(mount(&on_v1, "/sys").typ().as_deref(), Some("bind"));
        let gid = |spec: &Spec| {
            mount(spec, "/dev/pts")
                .options()
                .iter()
                .flatten()
                .any(|word| word == "gid=5")
        };
        assert!(gid(&on_v2) && !gid(&on_v1));
    }

    #[test]
    fn h21_namespaces_cgroups_and_what_is_hidden() {
        let mut launch = launch();
        launch.shared = vec![SharedNamespace::Host(LinuxNamespaceType::Uts)];
        let spec = made(&launch, PLACE, CgroupMode::V2);
        assert_eq!(spec.hostname(), &None);
        let linux = spec.linux().as_ref().unwrap();
        let kinds: Vec<_> = linux
            .namespaces()
            .iter()
            .flatten()
            .map(|one| one.typ().to_string())
            .collect();
        assert_eq!(kinds, ["mnt", "pid", "ipc", "cgroup"]);
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/longshore-1/c")));
        let resources = linux.resources().as_ref().unwrap();
        assert!(resources.memory().is_none() && resources.devices().as_ref().unwrap().len() > 5);
        assert_eq!(linux.masked_paths().as_deref().unwrap(), ["/m"]);
        assert_eq!(linux.readonly_paths().as_deref().unwrap(), ["/ro"]);
        assert_eq!(linux.sysctl().as_ref().unwrap()["kernel.msgmax"], "1");
        assert!(linux.seccomp().is_some());
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].size(), 6);
        assert_eq!(linux.devices().as_ref().unwrap()[0].minor(), 229);
        let place = Place {
            flavour: Flavour::Crun,
            ..PLACE
        };
        let crun = made(&launch, place, CgroupMode::V2);
        let linux = crun.linux().as_ref().unwrap();
        assert!(linux.resources().is_none() && linux.cgroups_path().is_none());
    }
}
