use serde_json::json;

use super::*;

fn of(value: Value) -> Result<(ContainerSpec, Vec<String>), Failure> {
    let Value::Object(body) = value else {
        panic!("an object")
    };
    spec(body)
}

/// What `docker run -i --rm -m 64m busybox cat` sends (docker 28), shortened to what is not a default twice.
fn from_the_client() -> Value {
    json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
        "Tty": false, "OpenStdin": true, "StdinOnce": true, "Env": null, "Cmd": ["cat"], "Image": "busybox",
        "Volumes": {}, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
        "HostConfig": {
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "none",
            "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": true,
            "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null,
            "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null,
            "IpcMode": "", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
            "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
            "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 67108864, "NanoCpus": 0, "CgroupParent": "",
            "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "CpuPeriod": 0, "CpuQuota": 0,
            "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
            "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0,
            "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0,
            "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null,
        },
        "NetworkingConfig": {"EndpointsConfig": {}},
    })
}

#[test]
fn p38_what_the_client_sends_by_default() {
    let (made, warnings) = of(from_the_client()).unwrap();
    let mut expected = ContainerSpec::image("busybox")
        .command(["cat"])
        .open_stdin(true)
        .auto_remove(true)
        .memory(Bytes::mib(64));
    expected.stdin_once = true;
    assert_eq!(made, expected);
    assert!(warnings.is_empty());
}

#[test]
fn e6_the_limit_of_a_writable_layer() {
    let (made, _) = of(json!({"Image": "a", "HostConfig": {"StorageOpt": {"Size": "1G"}}})).unwrap();
    assert_eq!(made.storage_size, Some(Bytes::mib(1024)));
    assert_eq!(
        of(json!({"Image": "a", "HostConfig": {"StorageOpt": null}}))
            .unwrap()
            .0
            .storage_size,
        None
    );
}

#[test]
fn networks_and_ports() {
    use crate::containers::NetworkMode;
    let with = |mode: &str| of(json!({"Image": "a", "HostConfig": {"NetworkMode": mode}}));
    let (made, warnings) = with("default").unwrap();
    assert_eq!((made.network, warnings.len()), (NetworkMode::None, 1));
    for name in ["bridge", "web"] {
        let (made, warnings) = with(name).unwrap();
        assert_eq!((made.network, warnings.len()), (NetworkMode::Named(name.into()), 0));
    }
    assert_eq!(with("host").unwrap().0.network, NetworkMode::Host);
    assert_eq!(
        with("container:x").unwrap().0.network,
        NetworkMode::Container("x".into())
    );
    assert_eq!(with("container:").unwrap_err().status, 400);
    let endpoint = json!({"web": {"Aliases": ["w"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}, "MacAddress": ""}});
    let (made, _) = of(json!({"Image": "a", "NetworkingConfig": {"EndpointsConfig": endpoint}})).unwrap();
    assert_eq!(made.network, NetworkMode::Named("web".into()));
    assert_eq!(made.endpoints["web"].aliases, ["w"]);
    assert_eq!(made.endpoints["web"].ipv4.unwrap().to_string(), "10.0.0.9");
    let host = json!({"NetworkMode": "web", "Links": ["/db:/one/store", "cache"]});
    let (made, _) = of(json!({"Image": "a", "HostConfig": host})).unwrap();
    let links: Vec<String> = made.endpoints["web"].links.iter().map(ToString::to_string).collect();
    assert_eq!(links, ["db:store", "cache:cache"]);
    let host = json!({
        "PortBindings": {"80/tcp": [{"HostPort": "8080-8090", "HostIp": "127.0.0.1"}], "53/udp": []},
        "Dns": ["192.0.2.1"], "ExtraHosts": ["a:host-gateway"],
    });
    let (made, warnings) = of(json!({"Image": "a", "ExposedPorts": {"90/tcp": {}}, "HostConfig": host})).unwrap();
    assert_eq!(
        (made.network, warnings.len()),
        (NetworkMode::Named("bridge".into()), 0),
        "a port needs one"
    );
    let ports: Vec<_> = made
        .ports
        .iter()
        .map(|one| (one.port.to_string(), one.host_port, one.host_port_end))
        .collect();
    assert_eq!(ports, [("53/udp".to_owned(), 0, 0), ("80/tcp".to_owned(), 8080, 8090)]);
    assert_eq!(
        made.expose.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["90/tcp"]
    );
    for bad in [
        json!({"PortBindings": {"x": []}}),
        json!({"PortBindings": {"80": [{"HostPort": "x"}]}}),
        json!({"PortBindings": {"80": [{"HostPort": "9-8"}]}}),
        json!({"PortBindings": {"80": [{"HostIp": "x"}]}}),
        json!({"Dns": ["x"]}),
        json!({"Links": ["db"]}),
        json!({"Links": ["db"], "NetworkMode": "bridge"}),
        json!({"Links": ["db:"], "NetworkMode": "web"}),
    ] {
        assert_eq!(
            of(json!({"Image": "a", "HostConfig": bad})).unwrap_err().status,
            400,
            "{bad}"
        );
    }
}

#[test]
fn what_there_is_not_is_refused_by_name() {
    let option = "DeviceRequests";
    let value = json!([{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]);
    let refused = of(json!({"Image": "a", "HostConfig": {option: value}})).unwrap_err();
    assert_eq!(refused.status, 400);
    // Docker's words may not name it; ours beside them do.
    let text = refused.detail["text"].as_str().unwrap();
    assert!(text.contains(option), "{text}");
    assert_eq!(refused.detail["kind"], "unsupported");
    let (spec, _) = of(json!({"Image": "a", "Volumes": {"/data": {}}})).unwrap();
    assert_eq!(spec.mounts.first().unwrap().kind(), "volume");
}

#[test]
fn h21_a_runtime_by_name() {
    let of_host = |name: &str| of(json!({"Image": "a", "HostConfig": {"Runtime": name}})).unwrap().0;
    assert_eq!(of_host("crun").runtime.as_deref(), Some("crun"));
    // What inspect says of every container of Docker's.
    assert_eq!(of_host("runc").runtime, None);
    assert_eq!(of_host("").runtime, None);
}

#[test]
fn h9_devices_by_name_in_both_places() {
    let (spec, _) = of(json!({"Image": "a", "HostConfig": {
        "Devices": [{"PathOnHost": "a.com/b=c"}, {"PathOnHost": "/dev/null"}],
        "DeviceRequests": [
            {"Driver": "cdi", "Count": 0, "DeviceIDs": ["a.com/b=d", "a.com/b=e"], "Capabilities": null, "Options": null},
        ],
    }}))
    .unwrap();
    assert_eq!(spec.cdi_devices, ["a.com/b=c", "a.com/b=d", "a.com/b=e"]);
    assert_eq!(spec.devices.len(), 1);
    let bad = json!({"Image": "a", "HostConfig": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["gpu"]}]}});
    let refused = of(bad).unwrap_err();
    assert_eq!(
        (refused.status.as_u16(), &refused.detail["kind"]),
        (400, &json!("invalid_argument"))
    );
}

#[test]
fn g10_g11_h19_restarts_probes_and_logs() {
    let spec = of(json!({
        "Image": "a",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Retries": 2},
        "HostConfig": {
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        },
    }));
    let spec = spec.unwrap().0;
    assert_eq!(spec.restart.to_string(), "on-failure:3");
    let check = HealthCheck::command(["true"])
        .interval(Duration::from_secs(2))
        .retries(2);
    assert_eq!(spec.health, check);
    assert_eq!(spec.log, LogConfig::driver("json-file").option("max-size", "1m"));
    let none = of(json!({"Image": "a", "Healthcheck": {"Test": ["NONE"]}, "HostConfig": {"LogConfig": {"Type": ""}}}));
    let none = none.unwrap().0;
    assert_eq!((none.health, none.log), (HealthCheck::disabled(), LogConfig::default()));
    for bad in [
        json!({"Image": "a", "Healthcheck": {"Test": ["WHAT"]}}),
        json!({"Image": "a", "Healthcheck": {"Test": ["CMD", "a"], "Interval": -1}}),
        json!({"Image": "a", "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}}}),
        json!({"Image": "a", "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}}}),
        json!({"Image": "a", "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": 1}}}}),
    ] {
        assert_eq!(of(bad.clone()).unwrap_err().status, 400, "{bad}");
    }
}

#[test]
fn what_can_never_work_is_refused_by_name() {
    for bad in [
        json!({}),
        json!({"Image": ""}),
        json!({"Image": 1}),
        json!({"Image": "a", "Cmd": 1}),
        json!({"Image": "a", "Tty": "yes"}),
        json!({"Image": "a", "HostConfig": []}),
        json!({"Image": "a", "HostConfig": {"Memory": -1}}),
        json!({"Image": "a", "HostConfig": {"Memory": 1e30}}),
        json!({"Image": "a", "HostConfig": {"ConsoleSize": [1]}}),
        json!({"Image": "a", "HostConfig": {"NanoCpus": 1, "CpuQuota": 1}}),
        json!({"Image": "a", "HostConfig": {"Ulimits": [{"Soft": 1}]}}),
        json!({"Image": "a", "StopSignal": "SIGNOPE"}),
        json!({"Image": "a", "WorkingDir": "b/c"}),
        json!({"Image": "a", "Env": ["=x"]}),
        json!({"Image": "a", "HostConfig": {"OomScoreAdj": 1001}}),
        json!({"Image": "a", "HostConfig": {"ShmSize": -1}}),
        json!({"Image": "a", "HostConfig": {"StorageOpt": {"size": "much"}}}),
        json!({"Image": "a", "HostConfig": {"StorageOpt": {"inodes": "7"}}}),
        json!({"Image": "a", "HostConfig": {"BlkioWeight": 9}}),
        json!({"Image": "a", "HostConfig": {"DeviceCgroupRules": ["c 1"]}}),
        json!({"Image": "a", "HostConfig": {"Devices": [{"PathOnHost": "/dev/fuse", "CgroupPermissions": "x"}]}}),
        json!({"Image": "a", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}),
        json!({"Image": "a", "HostConfig": {"Binds": ["/a:/x", "/b:/x"]}}),
        json!({"Image": "a", "HostConfig": {"Binds": ["/a:/x"], "Tmpfs": {"/x": ""}}}),
        json!({"Image": "a", "HostConfig": {"Mounts": [{"Type": "tmpfs"}]}}),
        json!({"Image": "a", "HostConfig": {"Mounts": [{"Type": "nope", "Target": "/x"}]}}),
    ] {
        let refused = of(bad.clone()).unwrap_err();
        assert_eq!(refused.status, 400, "{bad}");
        assert_eq!(refused.detail["kind"], "invalid_argument", "{bad}");
    }
}

#[test]
fn options_that_say_the_same_in_other_words() {
    let host = |value: Value| of(json!({"Image": "a", "HostConfig": value})).unwrap().0;
    let limits = host(json!({
        "CpuPeriod": 50_000, "CpuQuota": 75_000, "CpuRealtimePeriod": 1_000_000, "CpuRealtimeRuntime": 950_000,
        "CpusetMems": "0", "MemorySwappiness": 0, "OomKillDisable": true,
    }))
    .limits;
    assert_eq!(
        (limits.cpu_period_us, limits.cpu_quota_us),
        (Some(50_000), Some(75_000))
    );
    assert_eq!(
        (limits.cpu_rt_period_us, limits.cpu_rt_runtime_us),
        (Some(1_000_000), Some(950_000))
    );
    assert_eq!(
        (
            limits.cpuset_mems.as_deref(),
            limits.memory_swappiness,
            limits.oom_kill_disable
        ),
        (Some("0"), Some(0), Some(true))
    );
    let annotated = host(json!({"Annotations": {"a": "b"}}));
    assert_eq!(annotated.annotations["a"], "b");
    assert_eq!(host(json!({"PidsLimit": -1})).limits.pids, None);
    assert!(host(json!({"SecurityOpt": ["no-new-privileges"]})).no_new_privileges);
    assert_eq!(
        host(json!({"SecurityOpt": ["seccomp:unconfined"]})).seccomp,
        Seccomp::Unconfined
    );
    let shared =
        host(json!({"PidMode": "container:a", "IpcMode": "shareable", "UTSMode": "host", "CgroupnsMode": "host"}));
    assert_eq!(shared.pid_mode, NamespaceMode::Container("a".into()));
    assert_eq!(
        (shared.ipc_mode, shared.uts_mode, shared.cgroup_mode),
        (NamespaceMode::Shareable, NamespaceMode::Host, NamespaceMode::Host)
    );
    for (key, bad) in [
        ("PidMode", "shareable"),
        ("UTSMode", "container:a"),
        ("IpcMode", "container:"),
        ("UsernsMode", "x"),
    ] {
        let refused = of(json!({"Image": "a", "HostConfig": {key: bad}})).unwrap_err();
        assert_eq!(refused.status, 400, "{key}");
    }
    assert!(host(json!({"Privileged": true})).privileged);
    let limit = &host(json!({"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": -1}]})).ulimits[0];
    assert_eq!((limit.soft, limit.hard), (5, u64::MAX));
    let reset = of(json!({"Image": "a", "Entrypoint": [""], "Cmd": "x y"})).unwrap().0;
    assert_eq!(
        (reset.entrypoint, reset.command),
        (Some(Vec::new()), Some(vec!["x y".to_owned()]))
    );
    let env = of(json!({"Image": "a", "Env": ["A=1", "A=2=3", "B="]})).unwrap().0.env;
    assert_eq!(env.get("A").map(String::as_str), Some("2=3"));
    assert_eq!(env.get("B").map(String::as_str), Some(""));
}

#[test]
fn h11_options_of_security() {
    let host = |options: Value| of(json!({"Image": "a", "HostConfig": {"SecurityOpt": options}}));
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}"#;
    let spec = host(json!([
        format!("seccomp={profile}"),
        "no-new-privileges:true",
        "apparmor=unconfined",
        "label=disable"
    ]));
    let spec = spec.unwrap().0;
    assert!(matches!(&spec.seccomp, Seccomp::Profile(taken) if taken.text() == profile));
    assert!(spec.no_new_privileges);
    let spec = host(json!([
        "no-new-privileges=true",
        "no-new-privileges=0",
        "seccomp=builtin"
    ]))
    .unwrap()
    .0;
    assert_eq!((spec.no_new_privileges, spec.seccomp), (false, Seccomp::Default));
    // Source: moby, `parseSecurityOpt`, on a host with neither module.
    for module in ["apparmor=docker-default", "label=type:svirt_lxc_net_t"] {
        let (spec, warnings) = host(json!([module])).unwrap();
        let asked = spec.apparmor.is_some() || !spec.selinux.is_empty();
        // On a host that has it, it is the engine's to say.
        assert!(
            asked != warnings.iter().any(|warning| warning.contains("left out")),
            "{module}: {warnings:?}"
        );
    }
    for (bad, words) in [
        ("nonsense", "invalid --security-opt 1: \"nonsense\""),
        ("non=sense", "invalid --security-opt 2: \"non=sense\""),
        (
            "no-new-privileges=maybe",
            "invalid --security-opt 2: \"no-new-privileges=maybe\"",
        ),
        ("seccomp={", "Decoding seccomp profile failed"),
        ("seccomp=/a/file", "Decoding seccomp profile failed"),
    ] {
        let refused = host(json!([bad])).unwrap_err();
        assert_eq!(refused.status, 400, "{bad}");
        assert!(refused.message.starts_with(words), "{}", refused.message);
    }
}

#[test]
fn p38_keys_in_any_case_say_the_same() {
    let as_written = of(json!({
        "Image": "a", "Cmd": ["b"], "Labels": {"Case": "kept"},
        "HostConfig": {"ReadonlyRootfs": true, "Memory": 64 << 20, "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
            "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true}]},
    }));
    let otherwise = of(json!({
        "image": "a", "CMD": ["b"], "labels": {"Case": "kept"},
        "hostconfig": {"readOnlyRootFS": true, "memory": 64 << 20, "ULIMITS": [{"name": "nofile", "SOFT": 1, "hard": 2}],
            "mounts": [{"type": "bind", "source": "/a", "target": "/b", "readonly": true}]},
    }));
    assert_eq!(as_written.unwrap().0, otherwise.unwrap().0);
    let refused = of(json!({"image": "a", "hostconfig": {"cgroup": "container:a"}})).unwrap_err();
    assert!(refused.message.contains("Cgroup"), "{}", refused.message);
}

#[test]
fn h22_a_cgroup_to_be_in() {
    let parent = |said: serde_json::Value| of(json!({"Image": "a", "HostConfig": {"CgroupParent": said}}));
    assert_eq!(parent(json!("/web")).unwrap().0.cgroup_parent.as_deref(), Some("/web"));
    for none in [json!(""), json!(null)] {
        assert_eq!(parent(none).unwrap().0.cgroup_parent, None);
    }
    assert_eq!(parent(json!(["/web"])).unwrap_err().status, 400);
}

#[test]
fn b7_names_that_can_be_and_that_cannot() {
    for good in ["ab", "a.b-c_9"] {
        assert_eq!(valid_name(good, "").unwrap(), good);
    }
    for bad in ["", "a", "?", "-ab", "a b", "ä1"] {
        let refused = valid_name(bad, "").unwrap_err();
        assert_eq!(refused.status, 400, "{bad:?}");
        assert!(
            refused.message.starts_with("Invalid container name ("),
            "{}",
            refused.message
        );
    }
}

#[test]
fn h8_h17_devices_and_what_is_limited_by_device() {
    let host = json!({
        "Devices": [{"PathOnHost": "/dev/fuse"}, {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}],
        "DeviceCgroupRules": ["c 42:* rwm"],
        "Sysctls": {"net.core.somaxconn": "7"},
        "BlkioWeight": 60,
        "BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 100}],
        "BlkioDeviceReadBps": [{"Path": "/dev/a", "Rate": 1}],
        "BlkioDeviceWriteBps": [{"Path": "/dev/a", "Rate": 2}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/a", "Rate": 3}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/a", "Rate": 4}],
    });
    let spec = of(json!({"Image": "a", "HostConfig": host.clone()})).unwrap().0;
    assert_eq!(
        (
            spec.devices[0].target.to_str(),
            spec.devices[0].access.to_string().as_str()
        ),
        (Some("/dev/fuse"), "rwm")
    );
    assert_eq!(spec.devices[1].access.to_string(), "r");
    assert_eq!(spec.sysctls["net.core.somaxconn"], "7");
    let mut shown = super::super::devices::shown(&spec);
    shown["Sysctls"] = json!(spec.sysctls);
    let mut asked = host;
    asked["DeviceRequests"] = json!(null);
    asked["Devices"][0] =
        json!({"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"});
    assert_eq!(shown, asked);
}
