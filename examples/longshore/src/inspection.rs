//! What `inspect` prints, in the field names of Docker's Engine API. Fields that nothing here stands behind are left out.

use longshore::containers::Ulimit;
use longshore::images::ImageInfo;
use longshore::{BindMount, ContainerInfo, ContainerSpec, ContainerState, Health, Reference, Seccomp, Tmpfs};
use serde_json::{Map, Value, json};

use crate::human::{timestamp, timestamp_or_never};

/// A container.
pub fn container(info: &ContainerInfo) -> Value {
    let (program, arguments) = info
        .command
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    json!({
        "Id": info.id.as_str(),
        "Created": timestamp(info.created),
        "Path": program,
        "Args": arguments,
        "State": state(info),
        "Image": info.image_id.to_string(),
        "Name": format!("/{}", info.name),
        "RestartCount": info.restart_count,
        "LogPath": info.log_path,
        "Platform": "linux",
        "HostConfig": host_config(&info.spec),
        "Mounts": info.spec.binds.iter().map(mount).chain(info.mounts.iter().map(point)).collect::<Vec<_>>(),
        "Config": config(info),
        "Ownership": info.ownership,
        "OwnershipMeaning": info.ownership_meaning(),
    })
}

/// An image.
pub fn image(info: &ImageInfo) -> Value {
    let (config, run) = (&info.config, &info.config.config);
    let names = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
    let set = |keys: &Option<Vec<String>>| {
        keys.iter()
            .flatten()
            .map(|key| (key.clone(), json!({})))
            .collect::<Map<_, _>>()
    };
    json!({
        "Id": info.id.to_string(),
        "RepoTags": names(&info.tags),
        "RepoDigests": names(&info.digests),
        "Created": config.created,
        "Author": config.author.as_deref().unwrap_or(""),
        "Architecture": config.architecture,
        "Variant": config.variant.as_deref().unwrap_or(""),
        "Os": config.os,
        "Size": info.size_bytes,
        "RootFS": {
            "Type": "layers",
            "Layers": config.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "Metadata": { "LastTagTime": timestamp(info.pulled_at) },
        "Config": {
            "User": run.user.as_deref().unwrap_or(""),
            "Env": run.env,
            "Cmd": run.cmd,
            "Entrypoint": run.entrypoint,
            "WorkingDir": run.working_dir.as_deref().unwrap_or(""),
            "Labels": run.labels,
            "StopSignal": run.stop_signal.as_deref().unwrap_or(""),
            "ExposedPorts": set(&run.exposed_ports),
            "Volumes": set(&run.volumes),
        },
    })
}

fn state(info: &ContainerInfo) -> Value {
    let restarting = info.state == ContainerState::Restarting;
    json!({
        "Status": info.state.as_str(),
        "Running": info.state.is_alive() || restarting,
        "Paused": info.state == ContainerState::Paused,
        "Restarting": restarting,
        "OOMKilled": info.exit.and_then(|exit| exit.oom_killed).unwrap_or(false),
        "Dead": false,
        "Pid": info.pid.unwrap_or(0),
        "ExitCode": info.exit.map_or(0, |exit| exit.status.code()),
        "Error": info.error.as_deref().unwrap_or(""),
        "StartedAt": timestamp_or_never(info.started),
        "FinishedAt": timestamp_or_never(info.finished),
        "Health": info.health.as_ref().map(health),
    })
}

fn health(health: &Health) -> Value {
    let log = health.log.iter().map(|probe| {
        json!({
            "Start": timestamp(probe.start),
            "End": timestamp(probe.end),
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

fn config(info: &ContainerInfo) -> Value {
    let spec = &info.spec;
    json!({
        "Hostname": spec.hostname.as_deref().unwrap_or(info.id.short()),
        "Domainname": spec.domainname.as_deref().unwrap_or(""),
        "User": spec.user.as_deref().unwrap_or(""),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "Env": spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "Cmd": spec.command,
        "Entrypoint": spec.entrypoint,
        "Image": spec.image,
        "WorkingDir": spec.working_dir.as_deref().unwrap_or("".as_ref()),
        "Labels": info.labels,
        "StopSignal": spec.stop_signal.map(|signal| signal.to_string()),
        "StopTimeout": spec.stop_timeout.map(|timeout| timeout.as_secs()),
        "Healthcheck": info.health_check.to_config(),
    })
}

fn host_config(spec: &ContainerSpec) -> Value {
    let limits = &spec.limits;
    let bytes = |size: Option<longshore::Bytes>| size.map_or(0, longshore::Bytes::get);
    json!({
        "Binds": spec.binds.iter().map(bind).collect::<Vec<_>>(),
        "NetworkMode": spec.network.to_string(),
        "PidMode": spec.pid_mode.to_string(),
        "IpcMode": spec.ipc_mode.to_string(),
        "UTSMode": spec.uts_mode.to_string(),
        "CgroupnsMode": spec.cgroup_mode.to_string(),
        "AutoRemove": spec.auto_remove,
        "RestartPolicy": { "Name": spec.restart.as_str(), "MaximumRetryCount": spec.restart.max_retries() },
        "LogConfig": { "Type": spec.log.driver.as_deref().unwrap_or("local"), "Config": spec.log.options },
        "Privileged": spec.privileged,
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "GroupAdd": spec.groups,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security(spec),
        "ShmSize": spec.shm_size.map_or(64 << 20, longshore::Bytes::get),
        "Tmpfs": spec.tmpfs.iter().map(|(path, options)| (path.display().to_string(), tmpfs(options).into())).collect::<Map<_, _>>(),
        "Ulimits": spec.ulimits.iter().map(ulimit).collect::<Vec<_>>(),
        "Init": spec.init,
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "Memory": bytes(limits.memory),
        "MemoryReservation": bytes(limits.memory_reservation),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "PidsLimit": limits.pids,
    })
}

fn bind(bind: &BindMount) -> String {
    let mode = if bind.read_only { ":ro" } else { "" };
    format!("{}:{}{mode}", bind.source.display(), bind.target.display())
}

fn point(point: &longshore::containers::MountPoint) -> Value {
    let mut value = json!({
        "Type": point.spec.kind(),
        "Source": point.source,
        "Destination": point.spec.target,
        "RW": !point.spec.read_only,
    });
    if let Some(name) = point.volume() {
        value["Name"] = json!(name);
        value["Driver"] = json!(point.driver);
    }
    value
}

fn mount(bind: &BindMount) -> Value {
    json!({
        "Type": "bind",
        "Source": bind.source,
        "Destination": bind.target,
        "Mode": if bind.read_only { "ro" } else { "" },
        "RW": !bind.read_only,
        "Propagation": "rprivate",
    })
}

fn security(spec: &ContainerSpec) -> Vec<String> {
    let seccomp = match &spec.seccomp {
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Custom(_) => Some("seccomp=custom".to_owned()),
        Seccomp::Profile(profile) => Some(format!("seccomp={}", profile.text())),
        _ => None,
    };
    let nothing_new = spec.no_new_privileges.then(|| "no-new-privileges".to_owned());
    seccomp.into_iter().chain(nothing_new).collect()
}

fn tmpfs(options: &Tmpfs) -> String {
    let mut words = Vec::new();
    words.extend(options.size.map(|size| format!("size={}", size.get())));
    words.extend(options.mode.map(|mode| format!("mode={mode:o}")));
    words.extend(options.uid.map(|uid| format!("uid={uid}")));
    words.extend(options.gid.map(|gid| format!("gid={gid}")));
    words.extend(options.exec.then(|| "exec".to_owned()));
    words.join(",")
}

/// Docker writes "no limit" as -1.
fn ulimit(limit: &Ulimit) -> Value {
    let number = |limit| i64::try_from(limit).unwrap_or(-1);
    json!({ "Name": limit.name, "Soft": number(limit.soft), "Hard": number(limit.hard) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore::Bytes;

    #[test]
    fn options_come_back_in_docker_s_names() {
        let spec = ContainerSpec::image("busybox")
            .memory(Bytes::mib(64))
            .cpus(1.5)
            .bind_read_only("/a", "/b")
            .ulimit("nofile", 10, u64::MAX)
            .tmpfs(
                "/tmp",
                Tmpfs {
                    size: Some(Bytes::new(100)),
                    exec: true,
                    ..Tmpfs::default()
                },
            )
            .seccomp(Seccomp::Unconfined);
        let value = host_config(&spec);
        assert_eq!(value["Memory"], 64 << 20);
        assert_eq!(value["NanoCpus"], 1_500_000_000_u64);
        assert_eq!(value["Binds"][0], "/a:/b:ro");
        assert_eq!(value["Ulimits"][0], json!({ "Name": "nofile", "Soft": 10, "Hard": -1 }));
        assert_eq!(value["Tmpfs"]["/tmp"], "size=100,exec");
        assert_eq!(value["SecurityOpt"], json!(["seccomp=unconfined"]));
    }
}
