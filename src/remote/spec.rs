//! A [`ContainerSpec`] in Docker's JSON, and back as far as Docker tells it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::json::{flag, list, map, nonzero, objects, positive, text};
use crate::containers::{
    BindMount, ContainerSpec, DeviceMapping, DeviceRate, DeviceWeight, HealthCheck, Limits, LogConfig, MountFrom,
    MountPoint, MountSpec, NamespaceMode, NetworkMode, OnUnhealthy, RestartPolicy, Seccomp, SeccompProfile, Tmpfs,
    Ulimit,
};
use crate::error::{Error, ObjectKind, Result};
use crate::images::HealthConfig;
use crate::types::{Bytes, Propagation};

/// The body of `containers/create`.
pub(super) fn body(spec: &ContainerSpec) -> Result<Value> {
    let swapped = |mount: &MountSpec| matches!(&mount.source, MountFrom::Bind(bind) if bind.container_user);
    let copied = |mount: &MountSpec| matches!(&mount.source, MountFrom::Volume(volume) if volume.copy_of.is_some());
    if spec.mounts.iter().any(|mount| swapped(mount) || copied(mount)) || !spec.files.is_empty() {
        let needs = "an engine in this process: the API has no word for it; files can be copied in before the start";
        return Err(Error::unsupported(
            "mounts for the container's user, copies of volumes, and files put there by create",
            needs,
        )
        .with_object(ObjectKind::Option, "mounts"));
    }
    if spec.on_unhealthy != OnUnhealthy::Nothing {
        let needs = "an engine in this process: the API has no word for it";
        return Err(Error::unsupported("an action on an unhealthy container", needs)
            .with_object(ObjectKind::Option, "on_unhealthy"));
    }
    if spec.user_namespace {
        let needs = "an engine in this process: the API can only take a user namespace away";
        return Err(
            Error::unsupported("a user namespace of its own", needs).with_object(ObjectKind::Option, "user_namespace")
        );
    }
    if spec.umask.is_some() || !spec.limits.huge_pages.is_empty() {
        let needs = "an engine in this process: the API has no word for them";
        return Err(
            Error::unsupported("a mask of file modes, or a limit of huge pages", needs)
                .with_object(ObjectKind::Option, "umask"),
        );
    }
    if spec.timezone.is_some() {
        let needs = "an engine in this process: the API has no word for it";
        return Err(Error::unsupported("a time zone", needs).with_object(ObjectKind::Option, "timezone"));
    }
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    env.extend(spec.env_remove.iter().cloned());
    let mut body = json!({
        "Image": spec.image,
        "Env": env,
        "User": spec.user.as_deref().unwrap_or_default(),
        "WorkingDir": spec.working_dir,
        "Hostname": spec.hostname.as_deref().unwrap_or_default(),
        "Domainname": spec.domainname.as_deref().unwrap_or_default(),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        // As with an engine in this process, the last writer's end is the container's.
        "StdinOnce": spec.open_stdin,
        "Labels": spec.labels,
        "HostConfig": host(spec)?,
    });
    if let Some(command) = &spec.command {
        body["Cmd"] = json!(command);
    }
    if let Some(entrypoint) = &spec.entrypoint {
        // An empty list says nothing; one empty word resets the image's.
        body["Entrypoint"] = if entrypoint.is_empty() {
            json!([""])
        } else {
            json!(entrypoint)
        };
    }
    if spec.health != HealthCheck::default() {
        body["Healthcheck"] = json!(spec.health.to_config());
    }
    if let Some(signal) = spec.stop_signal {
        body["StopSignal"] = json!(signal.to_string());
    }
    if let Some(timeout) = spec.stop_timeout {
        body["StopTimeout"] = json!(timeout.as_secs());
    }
    if !spec.expose.is_empty() {
        let ports = spec.expose.iter().map(|port| (port.to_string(), json!({})));
        body["ExposedPorts"] = Value::Object(ports.collect());
    }
    if !spec.endpoints.is_empty() {
        body["NetworkingConfig"] = json!({"EndpointsConfig": super::places::asked_endpoints(&spec.endpoints)});
    }
    Ok(body)
}

fn host(spec: &ContainerSpec) -> Result<Value> {
    let binds = spec
        .binds
        .iter()
        .map(|bind| json!({"Type": "bind", "Source": bind.source, "Target": bind.target, "ReadOnly": bind.read_only}));
    let tmpfs = spec
        .tmpfs
        .iter()
        .map(|(path, made)| (path.display().to_string(), json!(tmpfs_options(made))));
    let ulimits = spec.ulimits.iter().map(|limit| {
        let number = |value: u64| i64::try_from(value).unwrap_or(-1);
        json!({"Name": limit.name, "Soft": number(limit.soft), "Hard": number(limit.hard)})
    });
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for one in &spec.ports {
        let port = match one.host_port_end > one.host_port {
            true => format!("{}-{}", one.host_port, one.host_port_end),
            false => one.host_port.to_string(),
        };
        let address = one.host_ip.map(|address| address.to_string()).unwrap_or_default();
        let binding = json!({"HostIp": address, "HostPort": port});
        bindings.entry(one.port.to_string()).or_default().push(binding);
    }
    if !spec.host_ports.is_empty() {
        let needs = "an engine in this process: the API has no word for it";
        return Err(Error::unsupported("reaching ports of the host's loopback", needs)
            .with_object(ObjectKind::Option, "host_ports"));
    }
    let mut host = json!({
        "PortBindings": bindings,
        "PublishAllPorts": spec.publish_all,
        "Dns": spec.dns,
        "DnsSearch": spec.dns_search,
        "DnsOptions": spec.dns_options,
        "ExtraHosts": spec.extra_hosts,
        "AutoRemove": spec.auto_remove,
        "NetworkMode": spec.network.to_string(),
        "PidMode": word(&spec.pid_mode),
        "IpcMode": word(&spec.ipc_mode),
        "UTSMode": word(&spec.uts_mode),
        "CgroupnsMode": word(&spec.cgroup_mode),
        "ReadonlyRootfs": spec.read_only,
        "Init": spec.init,
        "Privileged": spec.privileged,
        "CgroupParent": spec.cgroup_parent,
        "Runtime": spec.runtime,
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "GroupAdd": spec.groups,
        "SecurityOpt": security(spec)?,
        "Mounts": binds.chain(spec.mounts.iter().map(mount)).collect::<Vec<_>>(),
        "VolumesFrom": spec.volumes_from,
        "Tmpfs": tmpfs.collect::<Map<_, _>>(),
        "Ulimits": ulimits.collect::<Vec<_>>(),
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
    });
    let devices = spec.devices.iter().map(|device| {
        let access = device.access.to_string();
        json!({"PathOnHost": device.source, "PathInContainer": device.target, "CgroupPermissions": access})
    });
    host["Devices"] = json!(devices.collect::<Vec<_>>());
    if !spec.cdi_devices.is_empty() {
        host["DeviceRequests"] = json!([{"Driver": "cdi", "DeviceIDs": spec.cdi_devices}]);
    }
    host["DeviceCgroupRules"] = json!(spec.device_rules.iter().map(ToString::to_string).collect::<Vec<_>>());
    host["Sysctls"] = json!(spec.sysctls);
    if spec.restart != RestartPolicy::No {
        host["RestartPolicy"] = restart(spec.restart);
    }
    if spec.log != LogConfig::default() {
        host["LogConfig"] = json!({"Type": spec.log.driver.as_deref().unwrap_or_default(), "Config": spec.log.options});
    }
    if let Some((rows, columns)) = spec.tty_size {
        host["ConsoleSize"] = json!([rows, columns]);
    }
    if let Some(size) = spec.shm_size {
        host["ShmSize"] = json!(size.get());
    }
    if let Some(size) = spec.storage_size {
        host["StorageOpt"] = json!({ "size": size.get().to_string() });
    }
    if !spec.annotations.is_empty() {
        host["Annotations"] = json!(spec.annotations);
    }
    if let Some(paths) = &spec.masked_paths {
        host["MaskedPaths"] = json!(paths);
    }
    if let Some(paths) = &spec.readonly_paths {
        host["ReadonlyPaths"] = json!(paths);
    }
    if let (Value::Object(host), Value::Object(limits)) = (&mut host, limits(&spec.limits)) {
        host.extend(limits);
    }
    Ok(host)
}

/// One of `Mounts`. What Docker has no word for is an error before anything is asked.
fn mount(mount: &MountSpec) -> Value {
    let mut value = json!({"Type": mount.kind(), "Target": mount.target, "ReadOnly": mount.read_only});
    match &mount.source {
        MountFrom::Bind(bind) => {
            value["Source"] = json!(bind.source);
            value["BindOptions"] = json!({
                "Propagation": bind.propagation.as_str(),
                "NonRecursive": bind.non_recursive,
                "CreateMountpoint": bind.create,
                "ReadOnlyNonRecursive": bind.read_only_top,
                "ReadOnlyForceRecursive": bind.read_only_all,
            });
        }
        MountFrom::Volume(volume) => {
            value["Source"] = json!(volume.name.as_deref().unwrap_or_default());
            let mut options = json!({"NoCopy": volume.no_copy, "Labels": volume.labels});
            if volume.driver.is_some() || !volume.options.is_empty() {
                let name = volume.driver.as_deref().unwrap_or_default();
                options["DriverConfig"] = json!({"Name": name, "Options": volume.options});
            }
            if let Some(part) = &mount.subpath {
                options["Subpath"] = json!(part);
            }
            value["VolumeOptions"] = options;
        }
        MountFrom::Tmpfs(made) => {
            let pair = |name: &str, id: u32| json!([name, id.to_string()]);
            let words = made.uid.map(|uid| pair("uid", uid)).into_iter();
            let words = words.chain(made.gid.map(|gid| pair("gid", gid)));
            let words: Vec<Value> = words.chain(made.exec.then(|| json!(["exec"]))).collect();
            value["TmpfsOptions"] = json!({
                "SizeBytes": made.size.map_or(0, |size| size.get()),
                "Mode": made.mode.unwrap_or(0),
                "Options": words,
            });
        }
        MountFrom::Image(image) => {
            value["Source"] = json!(image);
            if let Some(part) = &mount.subpath {
                value["ImageOptions"] = json!({"Subpath": part});
            }
        }
    }
    value
}

/// What was asked for by one of `Mounts`; `None` for what is said by `binds`.
fn asked_mount(value: &Value) -> Option<MountSpec> {
    let target = text(value, "Target")?;
    let source = text(value, "Source");
    let mut mount = match value["Type"].as_str()? {
        "bind" => {
            let options = &value["BindOptions"];
            let mut mount = MountSpec::bind(source?, target);
            if let MountFrom::Bind(bind) = &mut mount.source {
                let word = options["Propagation"].as_str().and_then(Propagation::parse);
                bind.propagation = word.unwrap_or_default();
                bind.non_recursive = flag(options, "NonRecursive");
                bind.create = flag(options, "CreateMountpoint");
                bind.read_only_top = flag(options, "ReadOnlyNonRecursive");
                bind.read_only_all = flag(options, "ReadOnlyForceRecursive");
            }
            if mount == MountSpec::bind(text(value, "Source")?, text(value, "Target")?) {
                return None;
            }
            mount
        }
        "volume" => {
            let options = &value["VolumeOptions"];
            let mut mount = MountSpec::anonymous(target);
            if let MountFrom::Volume(volume) = &mut mount.source {
                volume.name = source;
                volume.no_copy = flag(options, "NoCopy");
                volume.labels = map(options, "Labels");
                volume.driver = text(&options["DriverConfig"], "Name");
                volume.options = map(&options["DriverConfig"], "Options");
            }
            mount.subpath = text(options, "Subpath").map(Into::into);
            mount
        }
        "tmpfs" => {
            let options = &value["TmpfsOptions"];
            let mut made = Tmpfs {
                size: positive(options, "SizeBytes").map(Bytes::new),
                mode: positive(options, "Mode").and_then(|mode| u32::try_from(mode).ok()),
                ..Tmpfs::default()
            };
            for pair in objects(options, "Options") {
                let id = pair[1].as_str().and_then(|id| id.parse().ok());
                match pair[0].as_str() {
                    Some("uid") => made.uid = id,
                    Some("gid") => made.gid = id,
                    Some("exec") => made.exec = true,
                    _ => {}
                }
            }
            MountSpec::tmpfs(target, made)
        }
        "image" => {
            let mut mount = MountSpec::image(source?, target);
            mount.subpath = text(&value["ImageOptions"], "Subpath").map(Into::into);
            mount
        }
        _ => return None,
    };
    mount.read_only = flag(value, "ReadOnly");
    Some(mount)
}

/// Volumes and images as an inspection or a list shows them.
pub(super) fn points(info: &Value) -> Vec<MountPoint> {
    let points = objects(info, "Mounts").filter_map(|shown| {
        let target = text(shown, "Destination")?;
        let mut mount = match shown["Type"].as_str()? {
            "volume" => MountSpec::volume(text(shown, "Name")?, target),
            "image" => MountSpec::image(text(shown, "Source")?, target),
            _ => return None,
        };
        mount.read_only = !flag(shown, "RW") && mount.kind() == "volume";
        let mut point = MountPoint::new(mount);
        point.driver = text(shown, "Driver");
        point.source = text(shown, "Source")
            .filter(|_| point.spec.kind() == "volume")
            .map(Into::into);
        Some(point)
    });
    points.collect()
}

/// A restart policy in Docker's JSON.
pub(super) fn restart(policy: RestartPolicy) -> Value {
    json!({"Name": policy.as_str(), "MaximumRetryCount": policy.max_retries()})
}

/// What limits there are, and nothing of those that are not.
pub(super) fn limits(limits: &Limits) -> Value {
    let all = [
        ("Memory", limits.memory.map(|memory| json!(memory.get()))),
        (
            "MemoryReservation",
            limits.memory_reservation.map(|memory| json!(memory.get())),
        ),
        ("MemorySwap", limits.memory_swap.map(Value::from)),
        ("MemorySwappiness", limits.memory_swappiness.map(Value::from)),
        ("OomKillDisable", limits.oom_kill_disable.map(Value::from)),
        ("NanoCpus", limits.nano_cpus.map(Value::from)),
        ("CpuQuota", limits.cpu_quota_us.map(Value::from)),
        ("CpuPeriod", limits.cpu_period_us.map(Value::from)),
        ("CpuRealtimeRuntime", limits.cpu_rt_runtime_us.map(Value::from)),
        ("CpuRealtimePeriod", limits.cpu_rt_period_us.map(Value::from)),
        ("CpuShares", limits.cpu_shares.map(Value::from)),
        ("CpusetCpus", limits.cpuset_cpus.clone().map(Value::from)),
        ("CpusetMems", limits.cpuset_mems.clone().map(Value::from)),
        ("PidsLimit", limits.pids.map(Value::from)),
        ("BlkioWeight", limits.blkio_weight.map(Value::from)),
        (
            "BlkioWeightDevice",
            by_device(
                &limits.blkio_weight_devices,
                |device| json!({"Path": device.path, "Weight": device.weight}),
            ),
        ),
        ("BlkioDeviceReadBps", by_device(&limits.device_read_bps, rate)),
        ("BlkioDeviceWriteBps", by_device(&limits.device_write_bps, rate)),
        ("BlkioDeviceReadIOps", by_device(&limits.device_read_iops, rate)),
        ("BlkioDeviceWriteIOps", by_device(&limits.device_write_iops, rate)),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(set.collect())
}

fn by_device<T>(all: &[T], shown: fn(&T) -> Value) -> Option<Value> {
    (!all.is_empty()).then(|| all.iter().map(shown).collect())
}

fn rate(device: &DeviceRate) -> Value {
    json!({"Path": device.path, "Rate": device.rate})
}

/// Docker has no word for a private namespace of some kinds.
fn word(mode: &NamespaceMode) -> String {
    match mode {
        NamespaceMode::Private => String::new(),
        mode => mode.to_string(),
    }
}

fn tmpfs_options(made: &Tmpfs) -> String {
    let all = [
        made.size.map(|size| format!("size={}", size.get())),
        made.mode.map(|mode| format!("mode={mode:o}")),
        made.uid.map(|uid| format!("uid={uid}")),
        made.gid.map(|gid| format!("gid={gid}")),
        made.exec.then(|| "exec".to_owned()),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(",")
}

fn security(spec: &ContainerSpec) -> Result<Vec<String>> {
    let mut options = Vec::new();
    if spec.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    options.extend(spec.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    options.extend(spec.selinux.iter().map(|part| format!("label={part}")));
    match &spec.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(profile) => options.push(format!("seccomp={}", profile.text())),
        Seccomp::Custom(_) => {
            let needs =
                "an engine in this process: Docker's profiles have a form of their own, which OCI's cannot be put into";
            return Err(Error::unsupported("a seccomp profile in the OCI form", needs)
                .with_object(ObjectKind::Option, "seccomp"));
        }
    }
    Ok(options)
}

/// What was asked for, as an inspection tells it: what the image brings counts as asked for too.
pub(super) fn asked(info: &Value) -> ContainerSpec {
    let (config, host) = (&info["Config"], &info["HostConfig"]);
    let mut spec = ContainerSpec::image(text(config, "Image").unwrap_or_default());
    spec.name = text(info, "Name").map(|name| name.trim_start_matches('/').to_owned());
    spec.command = list(config, "Cmd");
    spec.entrypoint = list(config, "Entrypoint");
    (spec.env, spec.env_remove) = environment(&list(config, "Env").unwrap_or_default());
    spec.working_dir = text(config, "WorkingDir").map(Into::into);
    spec.user = text(config, "User");
    spec.hostname = text(config, "Hostname");
    spec.domainname = text(config, "Domainname");
    spec.tty = flag(config, "Tty");
    spec.open_stdin = flag(config, "OpenStdin");
    spec.stdin_once = flag(config, "StdinOnce");
    spec.labels = map(config, "Labels");
    spec.stop_signal = text(config, "StopSignal").and_then(|name| name.parse().ok());
    spec.stop_timeout = config["StopTimeout"].as_u64().map(Duration::from_secs);
    spec.health = check(&config["Healthcheck"]);
    take_host(host, &mut spec);
    let binds = objects(info, "Mounts")
        .filter(|mount| mount["Type"] == "bind")
        .filter_map(|mount| {
            Some(BindMount {
                source: text(mount, "Source")?.into(),
                target: text(mount, "Destination")?.into(),
                read_only: !flag(mount, "RW"),
            })
        });
    spec.mounts = objects(host, "Mounts").filter_map(asked_mount).collect();
    spec.volumes_from = list(host, "VolumesFrom").unwrap_or_default();
    if matches!(spec.network, NetworkMode::Named(_)) {
        spec.endpoints = super::places::asked_of(&info["NetworkSettings"]);
    }
    let others: BTreeSet<_> = spec.mounts.iter().map(|mount| mount.target.clone()).collect();
    spec.binds = binds.filter(|bind| !others.contains(&bind.target)).collect();
    spec
}

fn check(shown: &Value) -> HealthCheck {
    let config = serde_json::from_value::<Option<HealthConfig>>(shown.clone());
    let config = config.ok().flatten().unwrap_or_default();
    HealthCheck::from_config(&config).unwrap_or_default()
}

fn take_host(host: &Value, spec: &mut ContainerSpec) {
    spec.auto_remove = flag(host, "AutoRemove");
    let policy = &host["RestartPolicy"];
    let retries = positive(policy, "MaximumRetryCount").and_then(|most| u32::try_from(most).ok());
    let word = text(policy, "Name").unwrap_or_default();
    spec.restart = RestartPolicy::of(&word, retries.unwrap_or(0)).unwrap_or_default();
    spec.log.driver = text(&host["LogConfig"], "Type");
    spec.log.options = map(&host["LogConfig"], "Config");
    spec.network = mode(host["NetworkMode"].as_str().unwrap_or_default());
    let mode = |key: &str| {
        host[key]
            .as_str()
            .and_then(|word| word.parse().ok())
            .unwrap_or_default()
    };
    (spec.pid_mode, spec.ipc_mode) = (mode("PidMode"), mode("IpcMode"));
    (spec.uts_mode, spec.cgroup_mode) = (mode("UTSMode"), mode("CgroupnsMode"));
    spec.publish_all = flag(host, "PublishAllPorts");
    spec.ports = super::places::asked_ports(&host["PortBindings"]);
    spec.dns = list(host, "Dns")
        .unwrap_or_default()
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    spec.dns_search = list(host, "DnsSearch").unwrap_or_default();
    spec.dns_options = list(host, "DnsOptions").unwrap_or_default();
    spec.extra_hosts = list(host, "ExtraHosts").unwrap_or_default();
    spec.read_only = flag(host, "ReadonlyRootfs");
    spec.init = flag(host, "Init");
    spec.privileged = flag(host, "Privileged");
    spec.cgroup_parent = text(host, "CgroupParent");
    spec.runtime = text(host, "Runtime").filter(|name| name != "native");
    spec.cap_add = list(host, "CapAdd").unwrap_or_default();
    spec.cap_drop = list(host, "CapDrop").unwrap_or_default();
    spec.groups = list(host, "GroupAdd").unwrap_or_default();
    spec.oom_score_adj = nonzero(host, "OomScoreAdj").and_then(|score| i32::try_from(score).ok());
    spec.shm_size = positive(host, "ShmSize").map(Bytes::new);
    spec.storage_size = map(host, "StorageOpt").get("size").and_then(|size| size.parse().ok());
    spec.annotations = map(host, "Annotations");
    let paths = |key: &str| Some(list(host, key)?.into_iter().map(Into::into).collect());
    spec.masked_paths = paths("MaskedPaths");
    spec.readonly_paths = paths("ReadonlyPaths");
    let tmpfs = map(host, "Tmpfs").into_iter();
    spec.tmpfs = tmpfs
        .map(|(path, options)| (path.into(), read_tmpfs(&options)))
        .collect();
    spec.ulimits = objects(host, "Ulimits").filter_map(ulimit).collect();
    spec.limits = read_limits(host);
    spec.sysctls = map(host, "Sysctls");
    spec.devices = objects(host, "Devices").filter_map(device).collect();
    let cdi = objects(host, "DeviceRequests").filter(|request| request["Driver"] == "cdi");
    spec.cdi_devices = cdi
        .flat_map(|request| list(request, "DeviceIDs").unwrap_or_default())
        .collect();
    let rules = list(host, "DeviceCgroupRules").unwrap_or_default();
    spec.device_rules = rules.iter().filter_map(|rule| rule.parse().ok()).collect();
    for option in list(host, "SecurityOpt").unwrap_or_default() {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => spec.no_new_privileges = true,
            "seccomp=unconfined" | "seccomp:unconfined" => spec.seccomp = Seccomp::Unconfined,
            other => {
                spec.apparmor = other
                    .strip_prefix("apparmor=")
                    .map(str::to_owned)
                    .or(spec.apparmor.take());
                // Which is so for every privileged container, whoever asked.
                let part = other.strip_prefix("label=").filter(|part| *part != "disable");
                spec.selinux.extend(part.map(str::to_owned));
                let profile = other.strip_prefix("seccomp=").map(SeccompProfile::parse);
                if let Some(Ok(profile)) = profile {
                    spec.seccomp = Seccomp::Profile(profile);
                }
            }
        }
    }
    let size: Vec<u64> = objects(host, "ConsoleSize").filter_map(Value::as_u64).collect();
    if let [rows @ 1..=65535, columns @ 1..=65535] = size[..] {
        spec.tty_size = u16::try_from(rows).ok().zip(u16::try_from(columns).ok());
    }
}

/// What these types have no word for is shown as none; `docs/remote.md` says so.
pub(super) fn mode(word: &str) -> NetworkMode {
    match word {
        // Docker's words for the network that it takes by itself.
        "default" => NetworkMode::Named("bridge".into()),
        word => word.parse().unwrap_or_default(),
    }
}

fn environment(variables: &[String]) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let (mut env, mut removed) = (BTreeMap::new(), BTreeSet::new());
    for variable in variables {
        match variable.split_once('=') {
            Some((name, value)) => {
                env.insert(name.to_owned(), value.to_owned());
            }
            None => {
                removed.insert(variable.clone());
            }
        }
    }
    (env, removed)
}

fn ulimit(value: &Value) -> Option<Ulimit> {
    let number = |key: &str| {
        value[key]
            .as_i64()
            .map(|limit| u64::try_from(limit).unwrap_or(u64::MAX))
    };
    Some(Ulimit {
        name: text(value, "Name")?,
        soft: number("Soft")?,
        hard: number("Hard")?,
    })
}

fn device(value: &Value) -> Option<DeviceMapping> {
    Some(DeviceMapping {
        source: text(value, "PathOnHost")?.into(),
        target: text(value, "PathInContainer")?.into(),
        access: text(value, "CgroupPermissions")?.parse().ok()?,
    })
}

fn rates(host: &Value, key: &str) -> Vec<DeviceRate> {
    let rates = objects(host, key).filter_map(|value| {
        Some(DeviceRate {
            path: text(value, "Path")?.into(),
            rate: value["Rate"].as_u64()?,
        })
    });
    rates.collect()
}

fn weight(value: &Value) -> Option<DeviceWeight> {
    Some(DeviceWeight {
        path: text(value, "Path")?.into(),
        weight: value["Weight"].as_u64()?.try_into().ok()?,
    })
}

fn read_limits(host: &Value) -> Limits {
    Limits {
        memory: positive(host, "Memory").map(Bytes::new),
        memory_reservation: positive(host, "MemoryReservation").map(Bytes::new),
        memory_swap: nonzero(host, "MemorySwap"),
        memory_swappiness: host["MemorySwappiness"].as_u64(),
        oom_kill_disable: host["OomKillDisable"].as_bool().filter(|disable| *disable),
        nano_cpus: positive(host, "NanoCpus"),
        cpu_quota_us: nonzero(host, "CpuQuota"),
        cpu_period_us: positive(host, "CpuPeriod"),
        cpu_rt_runtime_us: nonzero(host, "CpuRealtimeRuntime"),
        cpu_rt_period_us: positive(host, "CpuRealtimePeriod"),
        cpu_shares: positive(host, "CpuShares"),
        cpuset_cpus: text(host, "CpusetCpus"),
        cpuset_mems: text(host, "CpusetMems"),
        pids: nonzero(host, "PidsLimit"),
        blkio_weight: positive(host, "BlkioWeight").and_then(|weight| weight.try_into().ok()),
        blkio_weight_devices: objects(host, "BlkioWeightDevice").filter_map(weight).collect(),
        device_read_bps: rates(host, "BlkioDeviceReadBps"),
        device_write_bps: rates(host, "BlkioDeviceWriteBps"),
        device_read_iops: rates(host, "BlkioDeviceReadIOps"),
        device_write_iops: rates(host, "BlkioDeviceWriteIOps"),
        ..Limits::default()
    }
}

fn read_tmpfs(options: &str) -> Tmpfs {
    let mut made = Tmpfs::default();
    for option in options.split(',') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "size" => made.size = bytes(value).map(Bytes::new),
            "mode" => made.mode = u32::from_str_radix(value, 8).ok(),
            "uid" => made.uid = value.parse().ok(),
            "gid" => made.gid = value.parse().ok(),
            "exec" => made.exec = true,
            _ => {}
        }
    }
    made
}

/// A number in the kernel's units: `64m`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rich() -> ContainerSpec {
        let mut spec = ContainerSpec::image("busybox")
            .command(["sh", "-c", "true"])
            .env("A", "1");
        spec.entrypoint = Some(vec!["/init".into()]);
        spec.working_dir = Some("/tmp".into());
        spec.user = Some("1:2".into());
        spec.groups = vec!["audio".into()];
        spec.hostname = Some("h".into());
        spec.open_stdin = true;
        spec.stdin_once = true;
        spec.labels = BTreeMap::from([("a".into(), "b".into())]);
        spec.annotations = BTreeMap::from([("x".into(), "y".into())]);
        spec.cgroup_parent = Some("/web".into());
        spec.apparmor = Some("web".into());
        spec.selinux = vec!["type:web_t".into(), "level:s0".into()];
        spec.stop_signal = "INT".parse().ok();
        spec.stop_timeout = Some(Duration::from_secs(3));
        spec.init = true;
        spec.read_only = true;
        spec.limits.memory = Some(Bytes::mib(64));
        spec.limits.memory_swap = Some(-1);
        spec.limits.nano_cpus = Some(1_500_000_000);
        spec.limits.cpuset_cpus = Some("0".into());
        spec.limits.pids = Some(10);
        let tmpfs = Tmpfs {
            size: Some(Bytes::mib(1)),
            mode: Some(0o700),
            uid: Some(1),
            gid: Some(2),
            exec: true,
        };
        spec.tmpfs = BTreeMap::from([("/scratch".into(), tmpfs)]);
        spec.shm_size = Some(Bytes::mib(8));
        spec.storage_size = Some(Bytes::mib(100));
        spec.network = NetworkMode::Host;
        spec.cap_add = vec!["NET_ADMIN".into()];
        spec.cap_drop = vec!["ALL".into()];
        spec.no_new_privileges = true;
        spec.seccomp = Seccomp::Unconfined;
        let unlimited = Ulimit {
            name: "core".into(),
            soft: 0,
            hard: u64::MAX,
        };
        spec.ulimits = vec![unlimited];
        spec.masked_paths = Some(vec!["/proc/kcore".into()]);
        spec.readonly_paths = Some(Vec::new());
        spec.oom_score_adj = Some(100);
        spec.restart = RestartPolicy::OnFailure { max_retries: Some(3) };
        spec.health = HealthCheck::shell("true").interval(Duration::from_secs(2)).retries(7);
        spec.log = LogConfig::driver("json-file").option("max-size", "1m");
        spec.tty_size = Some((24, 100));
        spec.mounts = vec![
            MountSpec::volume("data", "/data").no_copy().subpath("a/b").read_only(),
            MountSpec::anonymous("/anonymous"),
            MountSpec::bind("/src", "/dst")
                .propagation(Propagation::Rslave)
                .create_source(),
            MountSpec::image("assets", "/assets").subpath("public"),
            MountSpec::tmpfs(
                "/fast",
                Tmpfs {
                    uid: Some(3),
                    ..Tmpfs::default()
                },
            ),
        ];
        spec.volumes_from = vec!["other:ro".into()];
        spec
    }

    #[test]
    fn h10_h11_h18_what_keeps_it_apart_is_sent_and_read() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        let mut spec = ContainerSpec::image("x").privileged(true);
        spec.seccomp = Seccomp::Profile(SeccompProfile::parse(profile).unwrap());
        spec.network = NetworkMode::Container("web".into());
        spec.pid_mode = NamespaceMode::Container("web".into());
        spec.ipc_mode = NamespaceMode::Shareable;
        spec.uts_mode = NamespaceMode::Host;
        spec.cgroup_mode = NamespaceMode::Host;
        let sent = body(&spec).unwrap();
        let host = &sent["HostConfig"];
        assert_eq!(host["SecurityOpt"], json!([format!("seccomp={profile}")]));
        assert_eq!(
            (&host["PidMode"], &host["IpcMode"]),
            (&json!("container:web"), &json!("shareable"))
        );
        let read = asked(&json!({"Config": sent, "HostConfig": host}));
        assert!(read.privileged);
        assert_eq!((read.seccomp, read.network), (spec.seccomp, spec.network));
        assert_eq!((read.pid_mode, read.ipc_mode), (spec.pid_mode, spec.ipc_mode));
        assert_eq!((read.uts_mode, read.cgroup_mode), (spec.uts_mode, spec.cgroup_mode));
    }

    /// An inspection shows what was sent, so reading it gives what was asked for.
    #[test]
    fn what_is_sent_is_what_is_read() {
        let spec = rich();
        let sent = body(&spec).unwrap();
        let inspected = json!({"Config": sent, "HostConfig": sent["HostConfig"]});
        assert_eq!(asked(&inspected), spec);
    }

    #[test]
    fn binds_and_what_the_api_cannot_say() {
        let bind = BindMount {
            source: "/a:b".into(),
            target: "/c".into(),
            read_only: true,
        };
        let mut spec = ContainerSpec::image("x");
        spec.binds = vec![bind.clone()];
        let sent = body(&spec).unwrap();
        assert_eq!(
            sent["HostConfig"]["Mounts"],
            json!([{"Type": "bind", "Source": "/a:b", "Target": "/c", "ReadOnly": true}])
        );
        let shown = json!({"Mounts": [
            {"Type": "bind", "Source": "/a:b", "Destination": "/c", "RW": false},
            {"Type": "volume", "Source": "/v", "Destination": "/d", "RW": true},
        ]});
        assert_eq!(asked(&shown).binds, [bind]);
        spec.user_namespace = true;
        assert!(body(&spec).unwrap_err().is_unsupported());
        let reset = ContainerSpec {
            entrypoint: Some(Vec::new()),
            ..ContainerSpec::image("x")
        };
        assert_eq!(body(&reset).unwrap()["Entrypoint"], json!([""]));
    }

    #[test]
    fn nothing_is_asked_of_what_docker_leaves_out() {
        assert_eq!(asked(&json!({})), ContainerSpec::default());
        let nulls = json!({"Config": {"Cmd": null, "Env": null}, "HostConfig": {"Ulimits": null, "MaskedPaths": null}});
        assert_eq!(asked(&nulls), ContainerSpec::default());
        assert_eq!(bytes("64m"), Some(64 << 20));
        assert_eq!(bytes("x"), None);
    }
}
