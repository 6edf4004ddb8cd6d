//! Profiles and labels of security modules. The hosts of these tests have neither AppArmor nor SELinux switched on, as a rule: what
//! was asked for is then refused with what it needs, or over the Engine API left out with a warning, and never left out in silence.

use std::path::Path;

use longshore::{ContainerSpec, ErrorKind};
use serde_json::json;

use crate::frame::{Check, skip};
use crate::longshored::Daemon;
use crate::support::world::{FORCE, World, text};
use crate::tests;

tests! { "labels":
    kernel_async [
        h12_what_the_host_lacks_is_refused_with_what_it_needs,
        h12_without_a_word_of_them_containers_run,
    ]
    kernel [
        h12_over_the_api_it_is_left_out_with_a_warning,
    ]
}

fn has_apparmor() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.trim() == "Y")
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

async fn h12_what_the_host_lacks_is_refused_with_what_it_needs() -> Check {
    let world = World::new().await?;
    let refused = async |spec: ContainerSpec| -> longshore::Error {
        let created = world.engine.create(spec).await;
        created.expect_err("nobody can give it that")
    };
    // With the native runtime on any host: it leaves processes as they are.
    let profile = refused(world.spec().apparmor("docker-default")).await;
    assert!(profile.is_unsupported(), "{}", profile.report());
    let needs = if has_apparmor() { "runc" } else { "apparmor=1" };
    assert!(profile.report().contains(needs), "{}", profile.report());
    let label = refused(world.spec().selinux("type:container_t").selinux("level:s0:c1,c2")).await;
    assert!(label.is_unsupported(), "{}", label.report());
    if !has_selinux() {
        assert!(label.report().contains("security=selinux"), "{}", label.report());
    }
    for (spec, option) in [
        (world.spec().apparmor("a\nb"), "apparmor"),
        (world.spec().apparmor(""), "apparmor"),
        (world.spec().selinux("nonsense"), "selinux"),
    ] {
        let bad = refused(spec).await;
        assert_eq!(bad.kind(), &ErrorKind::InvalidArgument, "{}", bad.report());
        assert_eq!(bad.object().map(|(_, name)| name), Some(option));
    }
    assert!(world.containers().await?.is_empty());
    Ok(())
}

async fn h12_without_a_word_of_them_containers_run() -> Check {
    let world = World::new().await?;
    let said = world.says(world.script("echo runs")).await?;
    assert_eq!(said, "runs");
    let said = world
        .says(world.script("echo runs").apparmor("unconfined").selinux("disable"))
        .await?;
    assert_eq!(said, "runs");
    let container = world.engine.create(world.spec().apparmor("unconfined")).await?;
    assert_eq!(container.inspect().await?.spec.apparmor.as_deref(), Some("unconfined"));
    container.remove(FORCE).await?;
    Ok(())
}

fn h12_over_the_api_it_is_left_out_with_a_warning() -> Check {
    let daemon = Daemon::start(&[])?;
    let info = daemon.ask("GET", "/info", "")?.expect(200)?.json()?;
    let security = info["SecurityOptions"].to_string();
    assert!(
        !security.contains("apparmor") && !security.contains("selinux"),
        "{security}"
    );
    if has_apparmor() || has_selinux() {
        return skip("this host has a security module");
    }
    let create = |options: serde_json::Value, code: u16| {
        let body = json!({
            "Image": "busybox", "Cmd": ["true"],
            "HostConfig": {"NetworkMode": "none", "SecurityOpt": options},
        });
        daemon
            .ask("POST", "/v1.44/containers/create", &body.to_string())?
            .expect(code)
    };
    let created = create(json!(["apparmor=docker-default", "label=type:container_t"]), 201)?.json()?;
    let warnings = created["Warnings"].to_string();
    for module in ["AppArmor", "SELinux"] {
        assert!(warnings.contains(&format!("this host has no {module}")), "{warnings}");
    }
    let quiet = create(json!(["apparmor=unconfined", "label=disable"]), 201)?.json()?;
    assert_eq!(quiet["Warnings"], json!([]));
    for made in [created, quiet] {
        let id = made["Id"].as_str().unwrap_or_default();
        daemon
            .ask("POST", &format!("/containers/{id}/start"), "")?
            .expect(204)?;
        daemon.ask("POST", &format!("/containers/{id}/wait"), "")?.expect(200)?;
        daemon.ask("DELETE", &format!("/containers/{id}"), "")?.expect(204)?;
    }
    // The client, whose engine is its own: refused, as nobody else is there to hear of it.
    let mut client = std::process::Command::new(crate::platforms::client()?);
    client.arg("--root").arg(daemon.root.path());
    client.args(["run", "--security-opt", "apparmor=docker-default", "busybox"]);
    let output = client.arg("true").output()?;
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("AppArmor"), "{output:?}");
    Ok(())
}
