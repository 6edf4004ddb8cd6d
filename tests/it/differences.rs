//! What containers changed: diff, export, commit.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use longshore::containers::CommitOptions;
use longshore::events::EventItem;
use longshore::images::{ByteStream, RemoveImageOptions};
use longshore::types::{Change, ChangeKind, IdRange, Signal};
use longshore::{Container, ContainerState, Engine, ErrorKind, RemoveOptions};

use crate::cancel::{Drop, Scene, drop_value, each_drop, under};
use crate::frame::{Check, Stop, fail, skip};
use crate::support::image;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "differences":
    kernel_async [
        e4_diff_lists_what_a_container_changed,
        e4_diff_of_an_untouched_container_is_empty,
        g8_export_holds_what_the_container_shows,
        d3_export_then_import_gives_the_same_tree,
        d4_commit_adds_one_layer,
        d4_commit_takes_the_containers_config,
        d4_commit_pauses_by_default,
        d4_commit_of_nothing_adds_no_layer,
        g8_in_every_state_and_on_vfs,
        g8_what_only_the_container_may_read,
        g8_a_container_with_ids_of_its_own,
        g8_a_hostile_tree_is_read_without_harm,
        e9_an_export_of_a_container_that_goes_fails,
        e9_an_export_of_an_engine_that_goes_fails,
        d4_another_process_s_container,
        a9_a_dropped_diff_or_export,
        a9_a_dropped_commit,
    ]
}

/// Changes of every kind, by a shell in the container.
const CHANGES: &str = "echo new > /etc/new && echo changed > /etc/secret && rm /etc/group && rm -r /home && mkdir /home && \
                       mkdir -p /var/a/b && echo deep > /var/a/b/c && ln -s /nowhere /tmp/link && mv /etc/passwd /etc/moved && \
                       chmod 0711 /root && mkfifo /tmp/fifo";

fn listed(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| format!("{} {}", change.kind.letter(), change.path.display());
    changes.iter().map(line).collect()
}

const LISTED: &[&str] = &[
    "C /etc",
    "D /etc/group",
    "A /etc/moved",
    "A /etc/new",
    "D /etc/passwd",
    "C /etc/secret",
    "C /root",
    "C /tmp",
    "A /tmp/fifo",
    "A /tmp/link",
    "C /var",
    "A /var/a",
    "A /var/a/b",
    "A /var/a/b/c",
];

/// A container that ran a script to its end.
async fn ran(engine: &Engine, world: &World, script: &str) -> Result<Container, Stop> {
    let container = engine.run(world.script(script)).await?;
    let status = container.wait().await?.status;
    if status.success() {
        return Ok(container);
    }
    fail(format!("{script}: {status}"))
}

async fn bytes_of(mut stream: ByteStream) -> Result<Vec<u8>, Stop> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// What an archive says of each path: its type, mode, owner, link and content.
fn entries(tar: &[u8]) -> Result<BTreeMap<String, String>, Stop> {
    let mut out = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut body = Vec::new();
        entry.read_to_end(&mut body)?;
        let (path, header) = (entry.path()?.to_string_lossy().into_owned(), entry.header().clone());
        let link = entry.link_name()?.map(|link| link.to_string_lossy().into_owned());
        let looks = format!(
            "{:?} {:o} {}:{} {link:?} {}",
            header.entry_type(),
            header.mode()?,
            header.uid()?,
            header.gid()?,
            image::digest(&body)
        );
        out.insert(path.trim_start_matches("./").trim_end_matches('/').to_owned(), looks);
    }
    Ok(out)
}

async fn e4_diff_lists_what_a_container_changed() -> Check {
    let world = World::new().await?;
    let container = ran(&world.engine, &world, CHANGES).await?;
    assert_eq!(listed(&container.diff().await?), LISTED);
    container.remove(FORCE).await?;
    let gone = container.diff().await.expect_err("it is gone");
    assert!(gone.is_not_found());
    Ok(())
}

async fn e4_diff_of_an_untouched_container_is_empty() -> Check {
    let world = World::new().await?;
    let created = world.engine.create(world.spec()).await?;
    assert_eq!(created.diff().await?, []);
    created.remove(FORCE).await?;
    let container = ran(&world.engine, &world, "true").await?;
    assert_eq!(container.diff().await?, [], "a start changes nothing");
    container.remove(FORCE).await?;
    Ok(())
}

async fn g8_export_holds_what_the_container_shows() -> Check {
    let world = World::new().await?;
    let container = ran(&world.engine, &world, CHANGES).await?;
    let tar = bytes_of(container.export().await?).await?;
    let entries = entries(&tar)?;
    for there in [
        "bin/busybox",
        "etc/moved",
        "etc/new",
        "var/a/b/c",
        "tmp/fifo",
        "home",
        "proc",
    ] {
        assert!(entries.contains_key(there), "{there}");
    }
    for gone in ["etc/passwd", "etc/group"] {
        assert!(!entries.contains_key(gone), "{gone}");
    }
    assert!(entries["etc/secret"].ends_with(&image::digest(b"changed\n")));
    // Debian's tar reads it, too.
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("x.tar"), &tar)?;
    let listed = std::process::Command::new("tar")
        .args(["-tf", "x.tar"])
        .current_dir(dir.path())
        .output()?;
    assert!(
        listed.status.success() && listed.stderr.is_empty(),
        "{}",
        text(&listed.stderr)
    );
    assert_eq!(text(&listed.stdout).lines().count(), entries.len());
    container.remove(FORCE).await?;
    Ok(())
}

async fn d3_export_then_import_gives_the_same_tree() -> Check {
    let world = World::new().await?;
    let container = ran(&world.engine, &world, CHANGES).await?;
    let tar = bytes_of(container.export().await?).await?;
    container.remove(FORCE).await?;
    let archive: ByteStream = Box::pin(stream::iter([Ok(Bytes::from(tar.clone()))]));
    let image = world
        .engine
        .import(archive)
        .change(r#"CMD ["cat", "/etc/new"]"#)
        .await?;
    let spec = longshore::ContainerSpec::image(image.id().to_string());
    assert_eq!(world.says(spec.clone()).await?, "new");
    let again = world.engine.create(spec).await?;
    let tree = bytes_of(again.export().await?).await?;
    assert_eq!(entries(&tree)?, entries(&tar)?);
    again.remove(FORCE).await?;
    image.remove(RemoveImageOptions::default()).await?;
    Ok(())
}

async fn d4_commit_adds_one_layer() -> Check {
    let world = World::new().await?;
    let container = ran(&world.engine, &world, CHANGES).await?;
    let tree = bytes_of(container.export().await?).await?;
    let options = CommitOptions::new()
        .name("committed:1".parse()?)
        .author("Ann")
        .message("a remark")
        .change("LABEL made=here");
    let image = container.commit(options).await?;
    let info = image.inspect().await?;
    let base = world.image.inspect().await?;
    assert_eq!(info.layers.len(), base.layers.len() + 1);
    assert_eq!(info.layers[..base.layers.len()], base.layers[..]);
    assert_eq!(info.config.author.as_deref(), Some("Ann"));
    let step = info.config.history.last().expect("a step");
    assert_eq!((step.comment.as_deref(), step.empty_layer), (Some("a remark"), false));
    assert_eq!(
        info.config
            .config
            .labels
            .as_ref()
            .and_then(|labels| labels.get("made"))
            .map(String::as_str),
        Some("here")
    );
    container.remove(FORCE).await?;
    let spec = longshore::ContainerSpec::image("committed:1");
    assert_eq!(
        world.says(spec.clone().command(["cat", "/etc/secret"])).await?,
        "changed"
    );
    let again = world.engine.create(spec).await?;
    assert_eq!(entries(&bytes_of(again.export().await?).await?)?, entries(&tree)?);
    // One on top of it is one layer longer again.
    assert_eq!(again.diff().await?, []);
    again.remove(FORCE).await?;
    let more = ran_of(&world, "committed:1", "rm /etc/new").await?;
    let second = more.commit(CommitOptions::new()).await?;
    assert_eq!(second.inspect().await?.layers.len(), info.layers.len() + 1);
    more.remove(FORCE).await?;
    second.remove(RemoveImageOptions::default()).await?;
    image.remove(RemoveImageOptions::default().force(true)).await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn ran_of(world: &World, image: &str, script: &str) -> Result<Container, Stop> {
    let spec = longshore::ContainerSpec::image(image).command(["sh", "-c", script]);
    let container = world.engine.run(spec).await?;
    container.wait().await?;
    Ok(container)
}

async fn d4_commit_takes_the_containers_config() -> Check {
    let world = World::new().await?;
    let spec = world
        .script("exit 0")
        .env("KEY", "value")
        .user("app")
        .working_dir("/tmp")
        .label("l", "v");
    let container = world.engine.create(spec).await?;
    let image = container.commit(CommitOptions::new().change("ENV MORE=1")).await?;
    let config = image.inspect().await?.config.config;
    assert_eq!(config.cmd.as_deref().unwrap_or_default(), ["sh", "-c", "exit 0"]);
    let env = config.env.unwrap_or_default();
    assert!(
        env.contains(&"KEY=value".to_owned()) && env.contains(&"MORE=1".to_owned()),
        "{env:?}"
    );
    assert!(!env.iter().any(|pair| pair.starts_with("HOSTNAME=")));
    assert_eq!(
        (config.user.as_deref(), config.working_dir.as_deref()),
        (Some("app"), Some("/tmp"))
    );
    let bad = container.commit(CommitOptions::new().change("RUN make")).await;
    assert_eq!(bad.expect_err("not for a config").kind(), &ErrorKind::InvalidArgument);
    container.remove(FORCE).await?;
    image.remove(RemoveImageOptions::default()).await?;
    Ok(())
}

async fn d4_commit_pauses_by_default() -> Check {
    let world = World::new().await?;
    let spec = world
        .script("while true; do echo x >> /log; done")
        .stop_signal(Signal::KILL);
    let container = world.started(spec).await?;
    match container.commit(CommitOptions::new()).await {
        Err(error) if error.is_unsupported() => {
            // No freezer here: it is said, and without a pause it goes.
            assert!(error.report().contains("without a pause"), "{}", error.report());
        }
        made => {
            let image = made?;
            let events = actions(&world, &container).await?;
            let tail: Vec<&str> = events.iter().map(String::as_str).rev().take(3).collect();
            assert_eq!(tail, ["commit", "unpause", "pause"]);
            image.remove(RemoveImageOptions::default()).await?;
        }
    }
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    let image = container.commit(CommitOptions::new().pause(false)).await?;
    assert_eq!(container.inspect().await?.state, ContainerState::Running);
    container.remove(FORCE).await?;
    image.remove(RemoveImageOptions::default()).await?;
    Ok(())
}

/// What was told of a container, so far.
async fn actions(world: &World, container: &Container) -> Result<Vec<String>, Stop> {
    let mut query = longshore::EventQuery::default();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    (query.since_ns, query.until_ns) = (Some(0), now.ok().and_then(|now| i64::try_from(now.as_nanos()).ok()));
    let mut events = world.engine.events(query).await?;
    let mut out = Vec::new();
    while let Some(event) = events.next().await {
        if let EventItem::Event(event) = event?
            && event.id == container.id().as_str()
        {
            out.push(event.action);
        }
    }
    Ok(out)
}

async fn d4_commit_of_nothing_adds_no_layer() -> Check {
    let world = World::new().await?;
    let container = world.engine.create(world.spec()).await?;
    let image = container.commit(CommitOptions::new().change("CMD true")).await?;
    let info = image.inspect().await?;
    assert_eq!(info.layers, world.image.inspect().await?.layers);
    assert!(info.config.history.last().is_some_and(|step| step.empty_layer));
    container.remove(FORCE).await?;
    image.remove(RemoveImageOptions::default()).await?;
    Ok(())
}

/// Created, running, paused, exited; on the copying driver, too.
async fn g8_in_every_state_and_on_vfs() -> Check {
    for driver in ["overlayfs", "vfs"] {
        let root = TempRoot::new();
        let engine = match Engine::builder(root.path()).snapshotter(driver).open().await {
            Err(error) if error.is_unsupported() => continue,
            other => other?,
        };
        let image = engine.pull(source(image::shared()?)).await?;
        let spec = longshore::ContainerSpec::image(image.id().to_string())
            .command(["sh", "-c", "echo x > /written; sleep 100"])
            .stop_signal(Signal::KILL);
        let container = engine.create(spec).await?;
        assert_eq!(container.diff().await?, [], "{driver}");
        container.start().await?;
        until_written(&container).await?;
        let written = [Change {
            path: "/written".into(),
            kind: ChangeKind::Added,
        }];
        assert_eq!(container.diff().await?, written, "{driver}");
        let paused = container.pause().await.is_ok();
        check_all(&container, &image, driver, paused).await?;
        if paused {
            assert_eq!(container.inspect().await?.state, ContainerState::Paused);
            container.unpause().await?;
        }
        container.stop(Default::default()).await?;
        check_all(&container, &image, driver, true).await?;
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn until_written(container: &Container) -> Check {
    for _ in 0..3000 {
        if !container.diff().await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fail("nothing was written")
}

async fn check_all(container: &Container, base: &longshore::Image, driver: &str, pause: bool) -> Check {
    assert_eq!(listed(&container.diff().await?), ["A /written"], "{driver}");
    let tar = bytes_of(container.export().await?).await?;
    assert!(entries(&tar)?.contains_key("written"), "{driver}");
    let image = container.commit(CommitOptions::new().pause(pause)).await?;
    assert_eq!(
        image.inspect().await?.layers.len(),
        base.inspect().await?.layers.len() + 1
    );
    image.remove(RemoveImageOptions::default()).await?;
    Ok(())
}

/// Files of other users, which their owners alone may read, and files that nobody may: as an ordinary user too.
async fn g8_what_only_the_container_may_read() -> Check {
    let world = World::new().await?;
    let mapped = world.ownership().await? != "squashed";
    let script = "mkdir -m 700 /tmp/d && echo mine > /tmp/d/f && chmod 0 /tmp/d/f && mkdir -m 0 /tmp/d/none && \
                  ln -s target /tmp/d/link && echo r > /r && chmod 0 /r";
    let script = match mapped {
        true => format!("{script} && chown -R app:app /tmp/d"),
        false => script.to_owned(),
    };
    let container = ran(&world.engine, &world, &script).await?;
    let expect = [
        "A /r",
        "C /tmp",
        "A /tmp/d",
        "A /tmp/d/f",
        "A /tmp/d/link",
        "A /tmp/d/none",
    ];
    assert_eq!(listed(&container.diff().await?), expect);
    let image = container.commit(CommitOptions::new()).await?;
    let owner = if mapped { "1234:1234" } else { "0:0" };
    for tar in [bytes_of(container.export().await?).await?, {
        let again = world
            .engine
            .create(longshore::ContainerSpec::image(image.id().to_string()))
            .await?;
        let tar = bytes_of(again.export().await?).await?;
        again.remove(FORCE).await?;
        tar
    }] {
        let entries = entries(&tar)?;
        assert_eq!(
            entries["tmp/d/f"],
            format!("Regular 0 {owner} None {}", image::digest(b"mine\n"))
        );
        assert!(
            entries["tmp/d/none"].starts_with(&format!("Directory 0 {owner}")),
            "{}",
            entries["tmp/d/none"]
        );
        assert!(entries["tmp/d/link"].contains(&format!("{owner} Some(\"target\")")));
    }
    container.remove(FORCE).await?;
    image.remove(RemoveImageOptions::default()).await?;
    Ok(())
}

/// What the container calls 0 and 1234 is that in a layer, whatever it is on the host.
async fn g8_a_container_with_ids_of_its_own() -> Check {
    let root = TempRoot::new();
    let ids = IdRange::new(0, 1_900_000, 65_536);
    let engine = Engine::builder(root.path()).container_ids(ids).open().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let world = World { engine, image, root };
    if world.ownership().await? == "squashed" {
        return skip("one id is mapped: there are no others to give");
    }
    let script = "echo a > /tmp/root && echo b > /tmp/app && chown app:app /tmp/app && chmod 600 /tmp/app /etc/secret";
    let container = match world.engine.run(world.script(script).user_namespace(true)).await {
        Err(error) if error.is_unsupported() => return skip(error.report()),
        other => other?,
    };
    assert!(container.wait().await?.status.success());
    assert_eq!(
        listed(&container.diff().await?),
        ["C /etc", "C /etc/secret", "C /tmp", "A /tmp/app", "A /tmp/root"]
    );
    let image = container.commit(CommitOptions::new()).await?;
    let again = world
        .engine
        .create(longshore::ContainerSpec::image(image.id().to_string()))
        .await?;
    for container in [container, again] {
        let entries = entries(&bytes_of(container.export().await?).await?)?;
        for (path, owner) in [
            ("tmp/root", "644 0:0"),
            ("tmp/app", "600 1234:1234"),
            ("etc/secret", "600 0:0"),
        ] {
            assert!(
                entries[path].starts_with(&format!("Regular {owner} ")),
                "{path}: {}",
                entries[path]
            );
        }
        container.remove(FORCE).await?;
    }
    image.remove(RemoveImageOptions::default()).await?;
    Ok(())
}

/// Names and files that break readers, swapped all the time while they are read.
async fn g8_a_hostile_tree_is_read_without_harm() -> Check {
    let world = World::new().await?;
    let script = "mkdir /t; touch '/t/.wh.trap' \"/t/$(printf 'a\\nb\\377')\"; i=0; while true; do rm -rf /t/x; \
                  case $((i % 4)) in 0) mkdir /t/x; echo d > /t/x/passwd;; 1) ln -s /etc /t/x;; 2) mkfifo /t/x;; \
                  3) echo f > /t/x;; esac; i=$((i+1)); done";
    let container = world.started(world.script(script).stop_signal(Signal::KILL)).await?;
    until_written(&container).await?;
    let host = std::fs::read_to_string("/etc/passwd")?;
    for _ in 0..40 {
        let tar = bytes_of(container.export().await?).await?;
        for (path, looks) in entries(&tar)? {
            assert!(
                !looks.ends_with(&image::digest(host.as_bytes())),
                "{path} is the host's"
            );
        }
        container.diff().await?;
        let image = container.commit(CommitOptions::new().pause(false)).await?;
        image.remove(RemoveImageOptions::default()).await?;
    }
    container.remove(FORCE).await?;
    Ok(())
}

/// An archive that misses what was removed under its reader does not pass for a whole one.
async fn e9_an_export_of_a_container_that_goes_fails() -> Check {
    let world = World::new().await?;
    let container = ran(
        &world.engine,
        &world,
        "dd if=/dev/zero of=/big bs=1M count=32 2>/dev/null",
    )
    .await?;
    let mut stream = container.export().await?;
    let first = stream.next().await;
    assert!(first.is_some_and(|piece| piece.is_ok()));
    container.remove(RemoveOptions::default()).await?;
    let mut last = None;
    while let Some(piece) = stream.next().await {
        last = Some(piece);
    }
    match last {
        Some(Err(error)) => assert!(error.is_not_found(), "{}", error.report()),
        other => return fail(format!("it ended well: {:?}", other.map(|piece| piece.is_ok()))),
    }
    Ok(())
}

async fn e9_an_export_of_an_engine_that_goes_fails() -> Check {
    let world = World::new().await?;
    let container = ran(
        &world.engine,
        &world,
        "dd if=/dev/zero of=/big bs=1M count=32 2>/dev/null",
    )
    .await?;
    let mut stream = container.export().await?;
    assert!(stream.next().await.is_some_and(|piece| piece.is_ok()));
    let World { engine, image, root } = world;
    std::mem::drop((container, image, engine));
    // Until it has cleared up behind itself.
    for _ in 0..1500 {
        if std::fs::read_dir(root.path().join("containers"))?.count() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut last = None;
    while let Some(piece) = stream.next().await {
        last = Some(piece);
    }
    std::mem::drop(root);
    match last {
        Some(Err(_)) => Ok(()),
        other => fail(format!("it ended well: {:?}", other.map(|piece| piece.is_ok()))),
    }
}

/// From another engine on the same root: all but what needs its owner.
async fn d4_another_process_s_container() -> Check {
    let world = World::new().await?;
    let spec = world.script("echo x > /x; sleep 100").stop_signal(Signal::KILL);
    let container = world.started(spec).await?;
    until_written(&container).await?;
    let other = Engine::open(world.root.path()).await?;
    let (all, id) = (other.containers(), container.id().as_str());
    assert_eq!(listed(&all.diff(id).await?), ["A /x"]);
    assert!(entries(&bytes_of(all.export(id).await?).await?)?.contains_key("x"));
    let refused = all
        .commit(id, CommitOptions::new())
        .await
        .expect_err("it cannot be paused from here");
    assert_eq!(refused.kind(), &ErrorKind::Conflict);
    let image = all.commit(id, CommitOptions::new().pause(false)).await?;
    container.remove(FORCE).await?;
    other
        .images()
        .remove(&image.to_string(), RemoveImageOptions::default())
        .await?;
    Ok(())
}

async fn a9_a_dropped_diff_or_export() -> Check {
    let scene = Scene::new().await?;
    each_drop(async |drop| {
        scene
            .on_container(drop, scene.sleeper(), false, |container| {
                Box::pin(async move { container.diff().await.map(drop_value) })
            })
            .await
    })
    .await?;
    each_drop(async |drop| {
        scene
            .on_container(drop, scene.sleeper(), false, |container| {
                Box::pin(async move {
                    let mut stream = container.export().await?;
                    stream.next().await.transpose().map(drop_value)
                })
            })
            .await
    })
    .await
}

async fn a9_a_dropped_commit() -> Check {
    let scene = Scene::new().await?;
    let pauses = {
        let container = scene.world.started(scene.sleeper()).await?;
        let paused = container.pause().await.is_ok();
        container.remove(FORCE).await?;
        paused
    };
    each_drop(async |drop| {
        let ended = commit_under(&scene, drop, pauses).await?;
        scene.nothing_is_left().await?;
        Ok(ended)
    })
    .await
}

async fn commit_under(scene: &Scene, drop: Drop, pauses: bool) -> Result<bool, Stop> {
    let spec = scene.world.script("mkdir /x; sleep 100").stop_signal(Signal::KILL);
    let container = scene.world.started(spec).await?;
    until_written(&container).await?;
    let committing = container.clone();
    let options = CommitOptions::new().pause(pauses).name("dropped:1".parse()?);
    let ended = under(
        scene.engine(),
        drop,
        Box::pin(async move { committing.commit(options).await.map(drop_value) }),
    )
    .await?;
    // A commit that was dropped at once may pause it after the first look.
    let mut calm = 0;
    for _ in 0..500 {
        calm = match container.inspect().await?.state {
            ContainerState::Running => calm + 1,
            _ => 0,
        };
        if calm == 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(calm, 5, "{drop:?}: it goes on");
    container.remove(FORCE).await?;
    match scene.engine().image("dropped:1").await {
        Ok(image) => {
            // Whole, or not there.
            let spec = longshore::ContainerSpec::image("dropped:1").command(["ls", "-d", "/x"]);
            assert_eq!(scene.world.says(spec).await?, "/x", "{drop:?}");
            image.remove(RemoveImageOptions::default().force(true)).await?;
        }
        Err(error) if error.is_not_found() && !ended => {}
        Err(error) => return Err(error.into()),
    }
    Ok(ended)
}
