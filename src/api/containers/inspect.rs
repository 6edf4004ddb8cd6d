//! `containers/{id}/json`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::super::call::Call;
use super::super::fields::{self, Shape};
use super::super::images;
use super::super::reply;
use super::super::router::Answer;
use super::super::times;
use super::{devices, list, mounts, networking};
use crate::containers::{ContainerInfo, ContainerSpec, ContainerState, Health, NamespaceMode, Probe, Seccomp};
use crate::images::{ImageInfo, RunConfig};
use crate::runtime::defaults;

const SHM_BYTES: u64 = 64 << 20;

pub(super) async fn inspect(call: Call) -> Answer {
    let info = call.engine.containers().inspect(call.name()).await?;
    // It may have been removed by force; what the container was asked for is known all the same.
    let image = call.engine.images().inspect(&info.image_id.to_string()).await.ok();
    let driver = call.engine.system().info().await.map(|info| info.storage_driver);
    let mut value = body(&info, image.as_ref(), &driver.unwrap_or_default());
    if call.query.flag("size") {
        let counted = call.engine.system().disk_usage().await?.containers;
        value["SizeRw"] = json!(0);
        list::add_sizes(&mut value, &info.id, &counted);
    }
    if !call.version.at_least(45) {
        networking::add_aliases(&mut value, &info);
    }
    fields::fit(Shape::Container, call.version, &mut value);
    Ok(reply::ok(&value))
}

/// The union of all versions' shapes.
pub(in crate::api) fn body(info: &ContainerInfo, image: Option<&ImageInfo>, storage: &str) -> Value {
    let (path, args) = info
        .command
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let defaults = image.map(|image| image.config.config.clone()).unwrap_or_default();
    let host = host_config(info);
    let mut value = json!({
        "Id": info.id.as_str(),
        "Created": times::rfc3339(info.created),
        "Path": path,
        "Args": args,
        "State": state(info),
        "Image": info.image_id.to_string(),
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": info.log_path.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        "Name": format!("/{}", info.name),
        "RestartCount": info.restart_count,
        "Driver": storage,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": info.spec.apparmor.as_deref().unwrap_or_default(),
        // Those of a container that has ended have ended too, and Docker lists them no more.
        "ExecIDs": if info.execs.is_empty() || !info.state.is_alive() { Value::Null } else { json!(info.execs) },
        "HostConfig": host,
        "GraphDriver": {"Name": storage, "Data": null},
        "Storage": {"RootFS": {"Snapshot": {"Name": storage}}},
        "Mounts": mounts::shown(&info.spec.binds, &info.mounts),
        "Config": config(info, &defaults),
        "NetworkSettings": network_settings(info),
    });
    if let Some(image) = image {
        value["ImageManifestDescriptor"] = images::manifest_of(image);
    }
    value
}

fn state(info: &ContainerInfo) -> Value {
    let is = |state| info.state == state;
    let (paused, restarting) = (is(ContainerState::Paused), is(ContainerState::Restarting));
    let mut state = json!({
        "Status": info.state.as_str(),
        // One that is about to be started again counts as running.
        "Running": is(ContainerState::Running) || paused || restarting,
        "Paused": paused,
        "Restarting": restarting,
        "OOMKilled": info.exit.and_then(|exit| exit.oom_killed).unwrap_or(false),
        "Dead": false,
        "Pid": info.pid.unwrap_or(0),
        "ExitCode": info.exit.map_or(0, |exit| exit.status.code()),
        "Error": info.error.as_deref().unwrap_or_default(),
        "StartedAt": times::or_never(info.started),
        "FinishedAt": times::or_never(info.finished),
    });
    if let Some(health) = &info.health {
        state["Health"] = shown_health(health);
    }
    state
}

fn shown_health(health: &Health) -> Value {
    let log = health.log.iter().map(|probe| {
        json!({
            "Start": times::rfc3339(probe.start),
            "End": times::rfc3339(probe.end),
            "ExitCode": probe.exit_code,
            "Output": probe.output,
        })
    });
    json!({
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": log.collect::<Vec<_>>(),
    })
}

/// A JSON object whose values are all empty objects, as Go writes a set.
fn set(names: &[String]) -> Value {
    Value::Object(
        names
            .iter()
            .map(|name| (name.clone(), Value::Object(Map::new())))
            .collect(),
    )
}

fn config(info: &ContainerInfo, image: &RunConfig) -> Value {
    let spec = &info.spec;
    let entrypoint = spec.entrypoint.as_ref().filter(|words| !words.is_empty());
    // An entrypoint of one's own clears the image's command.
    let inherited = if spec.entrypoint.is_some() {
        None
    } else {
        image.cmd.as_ref()
    };
    let mut config = json!({
        "Hostname": spec.hostname.clone().unwrap_or_else(|| info.id.short().to_string()),
        "Domainname": spec.domainname.as_deref().unwrap_or_default(),
        "User": spec.user.as_ref().or(image.user.as_ref()).cloned().unwrap_or_default(),
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": env(spec, image.env.as_deref().unwrap_or_default()),
        "Cmd": spec.command.as_ref().or(inherited),
        "Image": spec.image,
        "Volumes": volumes(spec, image),
        "WorkingDir": working_dir(spec, image),
        "Entrypoint": entrypoint.or_else(|| image.entrypoint.as_ref().filter(|_| spec.entrypoint.is_none())),
        "OnBuild": null,
        "Labels": info.labels,
    });
    let signal = spec.stop_signal.map(|signal| signal.to_string());
    let optional = [
        (
            "StopSignal",
            signal.or_else(|| image.stop_signal.clone()).map(|name| json!(name)),
        ),
        ("ExposedPorts", exposed(info)),
        ("StopTimeout", spec.stop_timeout.map(|length| json!(length.as_secs()))),
        (
            "Healthcheck",
            Some(json!(info.health_check.to_config())).filter(|_| info.health_check.probe != Probe::Inherit),
        ),
        ("Shell", image.shell.as_ref().map(|words| json!(words))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            config[name] = value;
        }
    }
    config
}

fn exposed(info: &ContainerInfo) -> Option<Value> {
    let ports: Vec<String> = info.exposed.iter().map(ToString::to_string).collect();
    (!ports.is_empty()).then(|| set(&ports))
}

/// Places of volumes that nobody named, the image's and the container's.
fn volumes(spec: &ContainerSpec, image: &RunConfig) -> Value {
    let own = spec
        .mounts
        .iter()
        .filter(|mount| mount.short && mounts::is_anonymous(mount));
    let own = own.map(|mount| mount.target.display().to_string());
    let all: Vec<String> = image.volumes.iter().flatten().cloned().chain(own).collect();
    if all.is_empty() && image.volumes.is_none() {
        Value::Null
    } else {
        set(&all)
    }
}

fn working_dir(spec: &ContainerSpec, image: &RunConfig) -> String {
    let own = spec.working_dir.as_ref().map(|path| path.display().to_string());
    own.or_else(|| image.working_dir.clone()).unwrap_or_default()
}

/// The image's environment, and over it the container's.
fn env(spec: &ContainerSpec, image: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let kept = image.iter().filter(|variable| !spec.env.contains_key(&name(variable)));
    let own = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    own.chain(kept.cloned()).collect()
}

fn host_config(info: &ContainerInfo) -> Value {
    let spec = &info.spec;
    let limits = &spec.limits;
    let (rows, columns) = spec.tty_size.unwrap_or((0, 0));
    let binds = mounts::as_binds(spec);
    let mut host = json!({
        "Binds": if binds.is_empty() { Value::Null } else { json!(binds) },
        "NetworkMode": spec.network.to_string(),
        "PidMode": mode(&spec.pid_mode, ""),
        "IpcMode": mode(&spec.ipc_mode, "private"),
        "UTSMode": mode(&spec.uts_mode, ""),
        "CgroupnsMode": mode(&spec.cgroup_mode, "private"),
        "AutoRemove": spec.auto_remove,
        "ConsoleSize": [rows, columns],
        "Privileged": spec.privileged,
        "CgroupParent": spec.cgroup_parent.as_deref().unwrap_or_default(),
        "Runtime": spec.runtime.as_deref().unwrap_or("native"),
        "CapAdd": none_if_empty(&spec.cap_add),
        "CapDrop": none_if_empty(&spec.cap_drop),
        "GroupAdd": none_if_empty(&spec.groups),
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security(spec),
        "ShmSize": spec.shm_size.map_or(SHM_BYTES, |size| size.get()),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory.map_or(0, |memory| memory.get()),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpuRealtimePeriod": limits.cpu_rt_period_us.unwrap_or(0),
        "CpuRealtimeRuntime": limits.cpu_rt_runtime_us.unwrap_or(0),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or_default(),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or_default(),
        "MemoryReservation": limits.memory_reservation.map_or(0, |memory| memory.get()),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "PidsLimit": limits.pids,
        "Ulimits": none_if_no(ulimits(spec)),
        "RestartPolicy": {"Name": spec.restart.as_str(), "MaximumRetryCount": spec.restart.max_retries()},
        // docker-py reads logs back of `json-file` and `journald` alone.
        "LogConfig": {"Type": spec.log.driver.as_deref().unwrap_or("json-file"), "Config": spec.log.options},
        "MaskedPaths": paths(spec, spec.masked_paths.as_deref(), defaults::masked_paths),
        "ReadonlyPaths": paths(spec, spec.readonly_paths.as_deref(), defaults::readonly_paths),
    });
    for more in [unset(), devices::shown(spec)] {
        if let (Value::Object(host), Value::Object(more)) = (&mut host, more) {
            host.extend(more);
        }
    }
    if !spec.sysctls.is_empty() {
        host["Sysctls"] = json!(spec.sysctls);
    }
    if let Some(size) = spec.storage_size {
        host["StorageOpt"] = json!({ "size": size.get().to_string() });
    }
    if let (Value::Object(host), Value::Object(asked)) = (&mut host, networking::asked(spec)) {
        host.extend(asked);
    }
    if !spec.annotations.is_empty() {
        host["Annotations"] = json!(spec.annotations);
    }
    if !spec.tmpfs.is_empty() {
        host["Tmpfs"] = json!(mounts::as_tmpfs(spec));
    }
    let long = mounts::as_mounts(spec);
    if !long.is_empty() {
        host["Mounts"] = json!(long);
    }
    host["VolumesFrom"] = none_if_empty(&spec.volumes_from);
    if spec.init {
        host["Init"] = json!(true);
    }
    host
}

/// A namespace that is the container's own is written in different ways.
fn mode(mode: &NamespaceMode, own: &str) -> String {
    match mode {
        NamespaceMode::Private => own.to_owned(),
        mode => mode.to_string(),
    }
}

/// Options that the engine does not have yet, as they are when nobody sets them.
fn unset() -> Value {
    const TEXTS: &[&str] = &["ContainerIDFile", "VolumeDriver", "Cgroup", "UsernsMode", "Isolation"];
    const NULLS: &[&str] = &["Links"];
    const ZEROS: &[&str] = &[
        "CpuCount",
        "CpuPercent",
        "IOMaximumIOps",
        "IOMaximumBandwidth",
        "KernelMemory",
        "KernelMemoryTCP",
    ];
    let mut host = json!({});
    for (names, value) in [(TEXTS, json!("")), (NULLS, Value::Null), (ZEROS, json!(0))] {
        for name in names {
            host[*name] = value.clone();
        }
    }
    host
}

/// Paths that were asked for, or those that are in force where nobody asks: none for who is privileged.
fn paths(spec: &ContainerSpec, asked: Option<&[PathBuf]>, usual: fn() -> Vec<String>) -> Value {
    match asked {
        Some(paths) => json!(paths),
        None if spec.privileged => Value::Null,
        None => json!(usual()),
    }
}

fn none_if_no(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn none_if_empty(words: &[String]) -> Value {
    if words.is_empty() { Value::Null } else { json!(words) }
}

fn ulimits(spec: &ContainerSpec) -> Vec<Value> {
    let number = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    let limits = spec
        .ulimits
        .iter()
        .map(|limit| json!({"Name": limit.name, "Soft": number(limit.soft), "Hard": number(limit.hard)}));
    limits.collect()
}

fn security(spec: &ContainerSpec) -> Value {
    let mut options = Vec::new();
    if spec.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &spec.seccomp {
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(profile) => options.push(format!("seccomp={}", profile.text())),
        Seccomp::Default | Seccomp::Custom(_) => {}
    }
    options.extend(spec.apparmor.iter().map(|profile| format!("apparmor={profile}")));
    options.extend(spec.selinux.iter().map(|part| format!("label={part}")));
    if spec.privileged && spec.selinux.is_empty() {
        // As Docker adds it.
        options.push("label=disable".to_owned());
    }
    none_if_empty(&options)
}

fn network_settings(info: &ContainerInfo) -> Value {
    let networks = networking::networks_of(&info.spec.network, &info.spec, &info.endpoints);
    let exposed = if info.state.is_alive() {
        info.exposed.as_slice()
    } else {
        &[]
    };
    // Once more where clients of old look: the default network.
    let of_default = info.endpoints.iter().find(|place| place.network == "bridge");
    let mut settings = json!({
        "SandboxID": "", "SandboxKey": "", "Ports": networking::ports(exposed, &info.ports),
        "Bridge": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null,
        "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "",
        "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
        "Networks": networks,
    });
    if let Some(place) = of_default {
        let shown = networking::endpoint(&info.spec, "bridge", Some(place));
        for key in [
            "EndpointID",
            "Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "MacAddress",
        ] {
            settings[key] = shown[key].clone();
        }
    }
    settings
}
