//! Devices of the Container Device Interface, in containers, over the API, by the client, and in builds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore::build::{BuildResult, BuildSpec};
use longshore::containers::Lifetime;
use longshore::{ContainerSpec, Engine, Error, ErrorKind, Image, NetworkMode, ObjectKind};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::frame::{Check, Stop, fail};
use crate::longshored::Daemon;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, source, text};
use crate::support::{image, scratch};
use crate::tests;

tests! { "cdi":
    kernel [
        h9_devices_over_the_api_and_by_the_client,
    ]
    kernel_async [
        h9_a_device_brings_what_its_specification_says,
        h9_hooks_come_in_their_order_and_can_fail,
        h9_a_device_that_is_not_there_fails_the_start,
        f14_h9_commands_have_the_devices_that_are_allowed,
    ]
}

/// An engine with directories of specifications of its own. The engine goes first.
struct Scene {
    engine: Engine,
    image: Image,
    dir: TempDir,
    _root: TempRoot,
}

/// A directory that a user of a container may look into, too.
fn directory() -> Result<TempDir, Stop> {
    let dir = scratch::fresh("cdi");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    for name in ["specs", "files", "told"] {
        fs::create_dir(dir.path().join(name))?;
    }
    fs::write(dir.path().join("files/lib"), "a library\n")?;
    Ok(dir)
}

impl Scene {
    async fn new() -> Result<Self, Stop> {
        let (root, dir) = (TempRoot::new(), directory()?);
        let builder = Engine::builder(root.path()).cdi_directories([dir.path().join("none"), dir.path().join("specs")]);
        let engine = builder.open().await?;
        let image = engine.pull(source(image::shared()?)).await?;
        Ok(Self {
            engine,
            image,
            dir,
            _root: root,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A specification of one device.
    fn device(&self, name: &str, edits: Value) -> Check {
        put(self.dir.path(), name, edits)
    }

    fn script(&self, script: &str) -> ContainerSpec {
        let spec = ContainerSpec::image(self.image.id().to_string()).network(NetworkMode::None);
        spec.command(["sh", "-c", script])
    }

    async fn says(&self, spec: ContainerSpec) -> Result<String, Stop> {
        let output = self.engine.run(spec).output().await?;
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => fail(format!("{output:?}")),
        }
    }

    /// Why a container does not start.
    async fn refused(&self, spec: ContainerSpec) -> Result<Error, Stop> {
        let container = self.engine.create(spec).await?;
        let started = container.start().await;
        container.remove(FORCE).await?;
        match started {
            Err(error) => Ok(error),
            Ok(_) => fail("it started"),
        }
    }
}

fn put(dir: &Path, name: &str, edits: Value) -> Check {
    let spec = json!({
        "cdiVersion": "0.7.0", "kind": "vendor.com/class", "devices": [{"name": name, "containerEdits": edits}],
    });
    fs::write(dir.join("specs").join(format!("{name}.json")), spec.to_string())?;
    Ok(())
}

/// A hook that runs a script of the host's shell.
fn hook(kind: &str, script: &str) -> Value {
    let env = ["PATH=/usr/local/bin:/usr/bin:/bin", "WORD=mine"];
    json!({"hookName": kind, "path": "/bin/sh", "args": ["sh", "-c", script], "env": env, "timeout": 20})
}

/// What a file says as soon as it is there and whole.
fn awaited(path: &Path) -> Result<String, Stop> {
    let begun = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return Ok(text),
            _ if begun.elapsed() > Duration::from_secs(30) => return fail(format!("no {}", path.display())),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

async fn h9_a_device_brings_what_its_specification_says() -> Check {
    let scene = Scene::new().await?;
    let told = scene.path("told");
    // The bundle goes with the container: what is in it is copied while it is there.
    let copied = r#"cp "$(grep -o '"bundle":"[^"]*' DIR/state | cut -d '"' -f 4)/config.json" DIR"#;
    let created = format!(
        "cat > {told}/state; echo hooked $WORD > {files}/hooked; {}",
        copied.replace("DIR", &told.display().to_string()),
        told = told.display(),
        files = scene.path("files").display(),
    );
    scene.device(
        "fake",
        json!({
            "env": ["FAKE=of a vendor"],
            "deviceNodes": [{"path": "/dev/fake", "hostPath": "/dev/zero"}],
            "mounts": [{"hostPath": scene.path("files"), "containerPath": "/opt/fake", "options": ["ro", "nosuid", "nodev", "bind"]}],
            "hooks": [hook("createRuntime", &created), hook("poststop", &format!("cat > {0}/s; echo >> {0}/s; mv {0}/s {0}/stop", told.display()))],
        }),
    )?;
    let script = "echo $FAKE; [ -c /dev/fake ] && head -c 3 /dev/fake | wc -c; cat /opt/fake/lib /opt/fake/hooked; \
                  touch /opt/fake/x 2>/dev/null || echo read-only";
    let spec = scene
        .script(script)
        .env("FAKE", "of the caller")
        .cdi_device("vendor.com/class=fake");
    assert_eq!(
        scene.says(spec).await?,
        "of a vendor\n3\na library\nhooked mine\nread-only"
    );
    let state: Value = serde_json::from_str(&fs::read_to_string(told.join("state"))?)?;
    assert_eq!(state["status"], "creating", "{state}");
    assert!(
        state["pid"].as_u64().is_some_and(|pid| pid > 1) && state["ociVersion"].is_string(),
        "{state}"
    );
    let plan: Value = serde_json::from_str(&fs::read_to_string(told.join("config.json"))?)?;
    assert_eq!(plan["hooks"]["poststop"][0]["path"], "/bin/sh");
    let stopped: Value = serde_json::from_str(&awaited(&told.join("stop"))?)?;
    assert_eq!((&stopped["status"], &stopped["id"]), (&json!("stopped"), &state["id"]));
    // Without the name there is nothing of it.
    let plain = scene.script("echo ${FAKE-none}; ls /dev/fake /opt 2>/dev/null | wc -l");
    assert_eq!(scene.says(plain).await?, "none\n0");
    Ok(())
}

async fn h9_hooks_come_in_their_order_and_can_fail() -> Check {
    let scene = Scene::new().await?;
    let told = scene.path("told");
    let note = |word: &str| format!("echo {word} >> {}/order", told.display());
    scene.device(
        "order",
        json!({"hooks": [
            hook("poststop", &note("poststop")), hook("poststart", &note("poststart")),
            hook("createRuntime", &note("createRuntime")), hook("prestart", &note("prestart")),
        ]}),
    )?;
    let container = scene
        .engine
        .create(scene.script("sleep 1000").cdi_device("vendor.com/class=order"))
        .await?;
    container.start().await?;
    let order = fs::read_to_string(told.join("order"))?;
    assert_eq!(order, "prestart\ncreateRuntime\npoststart\n", "before start returned");
    container.remove(FORCE).await?;
    let begun = Instant::now();
    while !fs::read_to_string(told.join("order"))?.ends_with("poststop\n") {
        assert!(begun.elapsed() < Duration::from_secs(30), "no poststop");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One that fails before the program keeps it from running; those for the end run nevertheless.
    let (ran, ended) = (scene.path("files/ran"), told.join("ended"));
    let files = json!([{"hostPath": scene.path("files"), "containerPath": "/f", "options": ["rw"]}]);
    scene.device(
        "bad",
        json!({"mounts": files, "hooks": [
            hook("createRuntime", "echo not today >&2; exit 7"), hook("poststop", &format!("echo x > {}", ended.display())),
        ]}),
    )?;
    let error = scene
        .refused(scene.script("touch /f/ran").cdi_device("vendor.com/class=bad"))
        .await?;
    let report = error.report();
    assert!(
        report.contains("createRuntime") && report.contains("exit status: 7: not today"),
        "{report}"
    );
    assert!(!ran.exists() && ended.exists());
    // One that hangs is killed in its time.
    let mut slow = hook("createRuntime", "sleep 1000");
    slow["timeout"] = json!(1);
    scene.device("slow", json!({ "hooks": [slow] }))?;
    let error = scene
        .refused(scene.script("true").cdi_device("vendor.com/class=slow"))
        .await?;
    assert_eq!(error.kind(), &ErrorKind::Timeout, "{}", error.report());
    // What cannot be had is said by name.
    scene.device("inside", json!({"hooks": [hook("createContainer", "true")]}))?;
    let error = scene
        .refused(scene.script("true").cdi_device("vendor.com/class=inside"))
        .await?;
    assert!(
        error.is_unsupported() && error.report().contains("the hook createContainer"),
        "{}",
        error.report()
    );
    let outliving = scene
        .script("true")
        .cdi_device("vendor.com/class=order")
        .lifetime(Lifetime::Detached);
    let error = scene.refused(outliving).await?;
    assert!(
        error.is_unsupported() && error.report().contains("hooks"),
        "{}",
        error.report()
    );
    Ok(())
}

async fn h9_a_device_that_is_not_there_fails_the_start() -> Check {
    let scene = Scene::new().await?;
    scene.device("here", json!({"env": ["A=1"]}))?;
    fs::write(scene.path("specs/bad.json"), "{")?;
    let error = scene
        .refused(scene.script("true").cdi_device("vendor.com/class=gone"))
        .await?;
    assert_eq!(error.kind(), &ErrorKind::NotFound);
    assert_eq!(error.object(), Some((ObjectKind::CdiDevice, "vendor.com/class=gone")));
    let report = error.report();
    for part in ["specs", "vendor.com/class=here", "bad.json"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert_eq!(
        scene
            .says(scene.script("echo $A").cdi_device("vendor.com/class=here"))
            .await?,
        "1"
    );
    scene.device("lost", json!({"deviceNodes": [{"path": "/dev/lost"}]}))?;
    let error = scene
        .refused(scene.script("true").cdi_device("vendor.com/class=lost"))
        .await?;
    assert!(
        error
            .report()
            .contains("the node /dev/lost of the CDI device vendor.com/class=lost"),
        "{}",
        error.report()
    );
    let bad = scene
        .engine
        .create(scene.script("true").cdi_device("no name"))
        .await
        .expect_err("no name");
    assert_eq!(bad.kind(), &ErrorKind::InvalidArgument);
    // Its files can be looked at when the device has gone.
    let container = scene
        .engine
        .create(scene.script("echo x > /made").cdi_device("vendor.com/class=here"))
        .await?;
    container.start().await?;
    container.wait().await?;
    fs::remove_file(scene.path("specs/here.json"))?;
    assert_eq!(container.stat_path("/made").await?.size, 2);
    container.remove(FORCE).await?;
    let info = scene.engine.system().info().await?;
    assert_eq!(info.cdi_directories, [scene.path("none"), scene.path("specs")]);
    assert_eq!(info.cdi_devices, ["vendor.com/class=lost"]);
    Ok(())
}

fn h9_devices_over_the_api_and_by_the_client() -> Check {
    let dir = directory()?;
    put(
        dir.path(),
        "fake",
        json!({"env": ["FAKE=1"], "deviceNodes": [{"path": "/dev/fake", "hostPath": "/dev/zero"}]}),
    )?;
    put(dir.path(), "more", json!({"env": ["MORE=2"]}))?;
    let specs = dir.path().join("specs").display().to_string();
    let daemon = Daemon::start(&["--cdi-spec-dir", &specs])?;
    let info = |version: &str| daemon.ask("GET", &format!("/{version}/info"), "")?.expect(200)?.json();
    let found = info("v1.50")?;
    assert_eq!(found["CDISpecDirs"], json!([specs]));
    let ids =
        json!([{"Source": "cdi", "ID": "vendor.com/class=fake"}, {"Source": "cdi", "ID": "vendor.com/class=more"}]);
    assert_eq!(found["DiscoveredDevices"], ids);
    assert!(info("v1.49")?.get("DiscoveredDevices").is_none() && info("v1.43")?.get("CDISpecDirs").is_none());
    let create = |host: Value, code: u16| {
        let body =
            json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo $FAKE$MORE; [ -c /dev/fake ]"], "HostConfig": host});
        daemon
            .ask("POST", "/v1.44/containers/create", &body.to_string())?
            .expect(code)
    };
    let both = json!({
        "NetworkMode": "none", "Devices": [{"PathOnHost": "vendor.com/class=fake"}],
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=more"]}],
    });
    let created = create(both, 201)?.json()?;
    let id = created["Id"].as_str().unwrap_or_default();
    daemon
        .ask("POST", &format!("/containers/{id}/start"), "")?
        .expect(204)?;
    let ended = daemon
        .ask("POST", &format!("/containers/{id}/wait"), "")?
        .expect(200)?
        .json()?;
    assert_eq!(ended["StatusCode"], 0);
    let shown = daemon
        .ask("GET", &format!("/containers/{id}/json"), "")?
        .expect(200)?
        .json()?;
    let request = &shown["HostConfig"]["DeviceRequests"][0];
    assert_eq!(
        request["DeviceIDs"],
        json!(["vendor.com/class=fake", "vendor.com/class=more"]),
        "{request}"
    );
    let gone = create(
        json!({"NetworkMode": "none", "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["v.com/c=x"]}]}),
        201,
    )?;
    let gone = gone.json()?;
    let gone = gone["Id"].as_str().unwrap_or_default();
    let message = daemon
        .ask("POST", &format!("/containers/{gone}/start"), "")?
        .expect(500)?
        .message()?;
    assert!(
        message.contains("CDI device injection failed: unresolvable CDI devices v.com/c=x"),
        "{message}"
    );
    create(
        json!({"DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]}),
        400,
    )?;
    // The client, and with it an engine elsewhere.
    let client = crate::platforms::client()?;
    let mut command = Command::new(client);
    command.arg("--host").arg(format!("unix://{}", daemon.socket.display()));
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "--device",
        "vendor.com/class=fake",
        "--device",
        "/dev/zero:/dev/nought",
    ];
    let command = command.args(words).args([
        "busybox",
        "sh",
        "-c",
        "echo $FAKE; [ -c /dev/nought ] && [ -c /dev/fake ]",
    ]);
    let output = command.stdin(Stdio::null()).output()?;
    assert!(output.status.success() && text(&output.stdout) == "1", "{output:?}");
    Ok(())
}

async fn f14_h9_commands_have_the_devices_that_are_allowed() -> Check {
    let scene = Scene::new().await?;
    scene.image.tag(&"busybox:latest".parse()?).await?;
    scene.device(
        "fake",
        json!({"env": ["FAKE=1"], "deviceNodes": [{"path": "/dev/fake", "hostPath": "/dev/zero"}]}),
    )?;
    let spec = |text: &str| {
        BuildSpec::new(scene.path("files"))
            .network(NetworkMode::None)
            .dockerfile_text(text)
    };
    let build = async |spec: BuildSpec| -> Result<BuildResult, Error> { scene.engine.build(spec).result().await };
    let says = async |built: &BuildResult| {
        let spec = ContainerSpec::image(built.id.to_string()).network(NetworkMode::None);
        scene
            .says(spec.command(["sh", "-c", "cat /said; ls /dev/fake 2>&1 | grep -c No"]))
            .await
    };
    let needed = "FROM busybox\nRUN --device=vendor.com/class=fake,required [ -c /dev/fake ] && echo $FAKE > /said";
    let denied = build(spec(needed)).await.expect_err("not allowed");
    assert_eq!(denied.kind(), &ErrorKind::Denied, "{}", denied.report());
    assert!(
        denied
            .report()
            .contains("BuildSpec::allow_device(\"vendor.com/class=fake\")"),
        "{}",
        denied.report()
    );
    build(spec(needed).allow_device("vendor.com/other"))
        .await
        .expect_err("not that one");
    for allowed in ["vendor.com/class=fake", "vendor.com/class"] {
        let built = build(spec(needed).allow_device(allowed)).await?;
        assert_eq!(says(&built).await?, "1\n1", "nothing of the device is in the image");
    }
    // One that it can do without.
    let optional = "FROM busybox\nRUN --device=vendor.com/class=fake,required=false echo ${FAKE-none} > /said";
    let without = build(spec(optional)).await?;
    assert_eq!(says(&without).await?, "none\n1");
    let warned = without
        .warnings
        .iter()
        .any(|warning| warning.contains("vendor.com/class=fake: it is not allowed"));
    assert!(warned, "{:?}", without.warnings);
    let with = build(spec(optional).allow_device("vendor.com/class")).await?;
    assert_eq!(
        (says(&with).await?.as_str(), with.cached),
        ("1\n1", 0),
        "another step than without"
    );
    let gone = "FROM busybox\nRUN --device=vendor.com/class=gone,required true";
    let missing = build(spec(gone).allow_device("vendor.com/class"))
        .await
        .expect_err("not there");
    assert_eq!(missing.kind(), &ErrorKind::NotFound, "{}", missing.report());
    assert!(
        missing.report().contains("vendor.com/class=fake"),
        "{}",
        missing.report()
    );
    let bad = build(spec("FROM busybox\nRUN --device=gpu true"))
        .await
        .expect_err("no name");
    assert_eq!(bad.kind(), &ErrorKind::InvalidArgument, "{}", bad.report());
    // The same made in Rust.
    let made = BuildSpec::new(scene.path("files"))
        .network(NetworkMode::None)
        .stage("busybox", |stage| {
            stage.run_shell_with("[ -c /dev/fake ] && echo $FAKE > /said", |run| {
                run.device("vendor.com/class=fake")
            })
        });
    let made = build(made.allow_device("vendor.com/class=fake")).await?;
    assert_eq!((says(&made).await?.as_str(), made.cached), ("1\n1", 1));
    Ok(())
}
