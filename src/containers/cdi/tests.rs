//! Specifications in directories, and what they come to.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ProcessBuilder, SpecBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Two directories, of which the second counts.
fn directories() -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let both = ["static", "dynamic"].map(|name| dir.path().join(name));
    both.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    (dir, both.to_vec())
}

fn put(dir: &Path, name: &str, spec: Value) {
    fs::write(dir.join(name), spec.to_string()).unwrap();
}

fn of_device(name: &str, edits: Value) -> Value {
    json!({"cdiVersion": "1.1.0", "kind": "vendor.com/class", "devices": [{"name": name, "containerEdits": edits}]})
}

fn edits(directories: &[PathBuf], names: &[&str]) -> Result<Edits> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Registry::load(directories).edits(&names)
}

#[test]
fn h9_what_devices_say_is_put_into_a_plan_exactly() {
    let (_dir, all) = directories();
    let spec = json!({
        "cdiVersion": "0.7.0", "kind": "vendor.com/class",
        "devices": [
            {"name": "one", "containerEdits": {
                "env": ["A=one", "B=2"],
                "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null", "permissions": "r", "fileMode": 0o600}],
                "mounts": [{"hostPath": "/lib/v", "containerPath": "/v", "options": ["ro", "nosuid"]}],
                "hooks": [{"hookName": "createRuntime", "path": "/h", "args": ["h", "x"], "env": ["K=v"], "timeout": 3}],
                "additionalGids": [7, 0],
            }},
            {"name": "two", "containerEdits": {"env": ["A=two"]}},
        ],
        "containerEdits": {"env": ["ALL=1"], "hooks": [{"hookName": "poststop", "path": "/s"}]},
    });
    put(&all[0], "v.json", spec);
    let found = edits(
        &all,
        &["vendor.com/class=one", "vendor.com/class=two", "vendor.com/class=one"],
    )
    .unwrap();
    assert_eq!(
        found.env,
        ["ALL=1", "A=one", "B=2", "A=two"],
        "what is for all counts once"
    );
    assert_eq!(found.gids, BTreeSet::from([7]));
    assert_eq!(found.nodes.len(), 1);
    let process = ProcessBuilder::default()
        .env(["PATH=/bin".to_owned(), "A=0".to_owned()])
        .build()
        .unwrap();
    let mut planned = SpecBuilder::default()
        .process(process)
        .mounts(Vec::new())
        .build()
        .unwrap();
    apply(&mut planned, &found).unwrap();
    let written = serde_json::to_value(&planned).unwrap();
    assert_eq!(written["process"]["env"], json!(["PATH=/bin", "A=two", "ALL=1", "B=2"]));
    assert_eq!(
        written["mounts"],
        json!([{"destination": "/v", "source": "/lib/v", "type": "bind", "options": ["rbind", "ro", "nosuid"]}])
    );
    assert_eq!(
        written["hooks"]["createRuntime"],
        json!([{"path": "/h", "args": ["h", "x"], "env": ["K=v"], "timeout": 3}])
    );
    assert_eq!(written["hooks"]["poststop"], json!([{"path": "/s"}]));
}

#[test]
fn h9_a_device_that_is_not_there_says_where_was_looked_and_what_is_there() {
    let (_dir, all) = directories();
    put(&all[0], "v.json", of_device("here", json!({})));
    put(&all[0], "bad.json", json!({"cdiVersion": "9.9"}));
    let error = edits(&all, &["vendor.com/class=gone"]).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::NotFound);
    assert_eq!(error.object(), Some((ObjectKind::CdiDevice, "vendor.com/class=gone")));
    let text = error.to_string();
    for part in [
        "static",
        "dynamic",
        "there are: vendor.com/class=here",
        "bad.json: missing field `kind`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Directories that are not there are none.
    let none = edits(&[PathBuf::from("/nowhere/cdi")], &["vendor.com/class=gone"]).unwrap_err();
    assert!(none.to_string().ends_with("there are: none"), "{none}");
}

#[test]
fn h9_of_two_directories_the_later_counts_and_of_two_files_neither() {
    let (_dir, all) = directories();
    put(&all[0], "a.json", of_device("x", json!({"env": ["FROM=a"]})));
    put(&all[1], "b.json", of_device("x", json!({"env": ["FROM=b"]})));
    assert_eq!(edits(&all, &["vendor.com/class=x"]).unwrap().env, ["FROM=b"]);
    put(&all[1], "c.json", of_device("x", json!({})));
    put(&all[1], "d.json", of_device("y", json!({"env": ["FROM=d"]})));
    let error = edits(&all, &["vendor.com/class=x"]).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Conflict);
    assert!(
        error.to_string().contains("b.json") && error.to_string().contains("c.json"),
        "{error}"
    );
    assert_eq!(
        edits(&all, &["vendor.com/class=y"]).unwrap().env,
        ["FROM=d"],
        "others are as they were"
    );
    assert!(Registry::load(&all).names().eq(["vendor.com/class=y"]));
}

#[test]
fn h9_hostile_files_are_told_and_hurt_no_other() {
    let (dir, all) = directories();
    put(&all[0], "good.json", of_device("x", json!({"env": ["A=1"]})));
    let good = || json!({"cdiVersion": "1.1.0", "kind": "vendor.com/class", "devices": []});
    let with = |key: &str, value: Value| {
        let mut spec = good();
        spec[key] = value;
        spec.to_string()
    };
    let edit = |value: Value| of_device("y", value).to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"cdiVersion\": \"1.1.0\", \"containerEdits\": {{\"intelRdt\": {deep}}}}}");
    let files: Vec<(&str, String, &str)> = vec![
        ("cut", "{\"cdiVersion\"".into(), "EOF"),
        ("deep", deep, "recursion limit"),
        ("list", "[]".into(), "invalid"),
        (
            "version",
            with("cdiVersion", json!("0.1.0")),
            "cdiVersion \"0.1.0\" is not known",
        ),
        ("kind", with("kind", json!("../x")), "the kind"),
        ("more", with("surprise", json!(1)), "unknown field `surprise`"),
        ("name", of_device("a b", json!({})).to_string(), "device \"a b\""),
        (
            "twice",
            with("devices", json!([{"name": "a"}, {"name": "a"}])),
            "it is there twice",
        ),
        ("env", edit(json!({"env": ["=x"]})), "is not NAME=value"),
        (
            "node",
            edit(json!({"deviceNodes": [{"path": "dev/x"}]})),
            "not absolute",
        ),
        (
            "up",
            edit(json!({"deviceNodes": [{"path": "/dev/../etc/passwd"}]})),
            "has .. in it",
        ),
        (
            "host",
            edit(json!({"deviceNodes": [{"path": "/dev/x", "hostPath": "/a/../b"}]})),
            "has .. in it",
        ),
        (
            "type",
            edit(json!({"deviceNodes": [{"path": "/dev/x", "type": "z"}]})),
            "of type \"z\"",
        ),
        (
            "number",
            edit(json!({"deviceNodes": [{"path": "/dev/x", "type": "c", "major": -1, "minor": 0}]})),
            "numbers",
        ),
        (
            "access",
            edit(json!({"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]})),
            "permissions",
        ),
        (
            "root",
            edit(json!({"mounts": [{"hostPath": "/", "containerPath": "/"}]})),
            "upon the root",
        ),
        (
            "mount",
            edit(json!({"mounts": [{"hostPath": "/x", "containerPath": "/a/../../b"}]})),
            "has .. in it",
        ),
        (
            "hook",
            edit(json!({"hooks": [{"hookName": "often", "path": "/x"}]})),
            "a hook \"often\"",
        ),
        (
            "timeout",
            edit(json!({"hooks": [{"hookName": "poststop", "path": "/x", "timeout": 0}]})),
            "no time",
        ),
        (
            "nul",
            edit(json!({"hooks": [{"hookName": "poststop", "path": "/x", "args": ["a\0"]}]})),
            "that is none",
        ),
        ("huge", " ".repeat((4 << 20) + 1), "more than 4194304 bytes"),
    ];
    for (name, text, why) in &files {
        fs::write(all[1].join(format!("{name}.json")), text).unwrap();
        let registry = Registry::load(&all);
        let told = registry.missing("v/c=x").to_string();
        assert!(
            told.contains(&format!("{name}.json: ")) && told.contains(why),
            "{name}: {told}"
        );
        assert_eq!(
            registry.edits(&["vendor.com/class=x".into()]).unwrap().env,
            ["A=1"],
            "{name}"
        );
        fs::remove_file(all[1].join(format!("{name}.json"))).unwrap();
    }
    // What is no file holds nobody up.
    nix::unistd::mkfifo(&all[1].join("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", all[1].join("zero.json")).unwrap();
    fs::create_dir(all[1].join("dir.json")).unwrap();
    let told = Registry::load(&all).missing("v/c=x").to_string();
    assert_eq!(told.matches("no plain file").count(), 3, "{told}");
    drop(dir);
}

#[test]
fn h9_yaml_is_read_as_far_as_it_is_json() {
    let (_dir, all) = directories();
    put(&all[0], "json.yaml", of_device("x", json!({"env": ["A=1"]})));
    fs::write(
        all[0].join("real.yaml"),
        "cdiVersion: \"0.6.0\"\nkind: vendor.com/other\n",
    )
    .unwrap();
    fs::write(all[0].join("notes.txt"), "nothing").unwrap();
    assert_eq!(edits(&all, &["vendor.com/class=x"]).unwrap().env, ["A=1"]);
    let error = edits(&all, &["vendor.com/other=x"]).unwrap_err().to_string();
    assert!(
        error.contains("real.yaml: only JSON is read here, not YAML") && !error.contains("notes"),
        "{error}"
    );
}

#[test]
fn h9_versions_have_what_they_have() {
    let (_dir, all) = directories();
    let node = json!({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null"}]});
    let mount = json!({"mounts": [{"hostPath": "/x", "containerPath": "/y", "type": "bind"}]});
    for (version, name, more, needed) in [
        (
            "0.3.0",
            "x",
            mount.clone(),
            Some("type of a mount needs cdiVersion 0.4.0"),
        ),
        ("0.4.0", "x", mount, None),
        (
            "0.4.0",
            "x",
            node.clone(),
            Some("hostPath of a node needs cdiVersion 0.5.0"),
        ),
        ("0.5.0", "x", node, None),
        (
            "0.4.0",
            "0",
            json!({}),
            Some("begins with a digit needs cdiVersion 0.5.0"),
        ),
        ("0.5.0", "0", json!({}), None),
        (
            "0.6.0",
            "x",
            json!({"additionalGids": [1]}),
            Some("additionalGids needs cdiVersion 0.7.0"),
        ),
        ("1.0.0", "x", json!({"additionalGids": [1]}), None),
        (
            "1.0.0",
            "x",
            json!({"netDevices": [{}]}),
            Some("netDevices needs cdiVersion 1.1.0"),
        ),
    ] {
        let mut spec = of_device(name, more);
        spec["cdiVersion"] = json!(version);
        put(&all[0], "v.json", spec);
        let device = format!("vendor.com/class={name}");
        match needed {
            None => drop(edits(&all, &[&device]).unwrap()),
            Some(why) => {
                let error = edits(&all, &[&device]).unwrap_err().to_string();
                assert!(error.contains(why), "{version}: {error}");
            }
        }
    }
}

#[test]
fn h9_what_no_container_here_can_have_is_unsupported_by_name() {
    let (_dir, all) = directories();
    for (edit, part) in [
        (
            json!({"intelRdt": {"closID": "a"}}),
            "intelRdt of the CDI device vendor.com/class=x",
        ),
        (
            json!({"netDevices": [{"hostInterfaceName": "eth9", "name": "eth0"}]}),
            "netDevices of the CDI device",
        ),
        (
            json!({"hooks": [{"hookName": "createContainer", "path": "/usr/bin/hook"}]}),
            "the hook createContainer (/usr/bin/hook) of the CDI device vendor.com/class=x",
        ),
        (
            json!({"hooks": [{"hookName": "startContainer", "path": "/h"}]}),
            "the hook startContainer (/h)",
        ),
    ] {
        put(&all[0], "v.json", of_device("x", edit));
        let error = edits(&all, &["vendor.com/class=x"]).unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(part), "{error}");
        assert_eq!(error.object(), Some((ObjectKind::CdiDevice, "vendor.com/class=x")));
    }
}
