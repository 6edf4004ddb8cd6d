//! Images built from Dockerfiles.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use longshore::build::{
    BuildOutput, BuildResult, BuildSpec, BuildTimes, ContextSource, CopyAction, Entitlement, MadeStage, MountAction,
    PruneCache, Secret, StepFailure,
};
use longshore::images::{Credentials, ImageInfo, RemoveImageOptions};
use longshore::progress::BuildEvent;
use longshore::types::Bytes;
use longshore::{ContainerSpec, Engine, Error, ErrorKind, NetworkMode, ProgressEvent};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cancel::{Scene, each_drop, under};
use crate::frame::{Check, Stop, fail};
use crate::longshored::Daemon;
use crate::support::image::Files;
use crate::support::registry::{LOGIN, Options, Registry};
use crate::support::root::TempRoot;
use crate::support::wire;
use crate::support::world::{FORCE, World, source};
use crate::support::{image, scratch};
use crate::tests;

tests! { "build":
    kernel [
        b6_f10_a_build_over_the_api,
        f18_the_client_builds,
    ]
    kernel_async [
        f1_f2_f6_a_dockerfile_makes_an_image,
        c2_credentials_of_a_build_go_to_their_registry_alone,
        f2_a_command_that_fails_says_where_and_what_it_wrote,
        f2_commands_see_what_holds_where_they_are,
        f7_heredocs_run_and_are_copied,
        f8_stages_run_side_by_side_and_only_if_they_are_needed,
        f10_a_second_build_does_nothing_again,
        f10_a_changed_file_counts_from_its_step_on,
        f10_one_of_two_builds_does_a_step,
        f10_forgotten_steps_give_back_what_only_they_needed,
        f11_caches_are_kept_and_shared,
        f12_a_secret_is_nowhere,
        f13_mounts_show_files_and_keep_nothing,
        f13_an_agent_answers_a_command,
        f14_networks_and_privileges_of_commands,
        f16_files_are_an_output,
        f19_p16_two_stores_build_the_same_image,
        f23_steps_made_in_rust_are_the_same_image,
        f23_stages_made_in_rust_are_the_same_image,
        a9_a_dropped_build,
        p14_a_build_leaves_nothing_but_its_image,
    ]
}

/// A context with these files.
pub fn context(files: &[(&str, &str)]) -> Result<TempDir, Stop> {
    let dir = scratch::fresh("context");
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a directory"))?;
        fs::write(path, text)?;
    }
    Ok(dir)
}

/// A world in which `busybox` is a name.
pub async fn world() -> Result<World, Stop> {
    let world = World::new().await?;
    world.image.tag(&"busybox:latest".parse()?).await?;
    Ok(world)
}

/// A build without a network, so that it needs nothing of the host.
pub fn spec(dir: &Path) -> BuildSpec {
    BuildSpec::new(dir.to_path_buf()).network(NetworkMode::None)
}

pub async fn result(engine: &Engine, spec: BuildSpec) -> Result<BuildResult, Error> {
    engine.build(spec).result().await
}

async fn info(engine: &Engine, built: &BuildResult) -> Result<ImageInfo, Stop> {
    Ok(engine.images().inspect(&built.id.to_string()).await?)
}

async fn says(world: &World, built: &BuildResult, script: &str) -> Result<String, Stop> {
    let spec = ContainerSpec::image(built.id.to_string()).entrypoint(["sh", "-c", script]);
    world.says(spec).await
}

fn text_of(output: &longshore::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn f1_f2_f6_a_dockerfile_makes_an_image() -> Check {
    let world = world().await?;
    let dir = context(&[
        (
            "Dockerfile",
            "ARG BASE=busybox\n\
             FROM ${BASE} AS made\n\
             ENV GREETING=hello\n\
             WORKDIR /srv/app\n\
             COPY app/ ./\n\
             RUN echo \"$GREETING $(cat one)\" > said && chmod 640 said\n\
             RUN true\n\
             USER app\n\
             LABEL kind=test\n\
             EXPOSE 80\n\
             VOLUME /data\n\
             STOPSIGNAL SIGUSR1\n\
             CMD [\"cat\", \"said\"]\n",
        ),
        ("app/one", "1"),
        ("app/two", "2"),
    ])?;
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let image = world
        .engine
        .build(spec(dir.path()).tag("made:1").tag("made:also"))
        .progress(move |event| listener.lock().unwrap().push(event))
        .await?;
    let info = image.inspect().await?;
    let names: Vec<String> = info.tags.iter().map(|name| name.familiar()).collect();
    assert_eq!(names, ["made:1", "made:also"]);
    let config = &info.config.config;
    assert_eq!(config.user.as_deref(), Some("app"));
    assert_eq!(config.working_dir.as_deref(), Some("/srv/app"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGUSR1"));
    assert_eq!(config.cmd.as_deref(), Some(&["cat".to_owned(), "said".to_owned()][..]));
    assert_eq!(config.exposed_ports.as_deref(), Some(&["80/tcp".to_owned()][..]));
    assert_eq!(config.volumes.as_deref(), Some(&["/data".to_owned()][..]));
    assert_eq!(
        config
            .labels
            .as_ref()
            .and_then(|labels| labels.get("kind"))
            .map(String::as_str),
        Some("test")
    );
    assert!(config.env.iter().flatten().any(|pair| pair == "GREETING=hello"));
    // WORKDIR, COPY and the first RUN; the second changes nothing.
    let base = world.image.inspect().await?;
    assert_eq!(info.layers.len(), base.layers.len() + 3);
    assert_eq!(info.layers[..base.layers.len()], base.layers[..]);
    let history: Vec<(String, bool)> = info.config.history[base.config.history.len()..]
        .iter()
        .map(|entry| (entry.created_by.clone().unwrap_or_default(), entry.empty_layer))
        .collect();
    assert_eq!(
        history[..5],
        [
            ("ENV GREETING=hello".to_owned(), true),
            ("WORKDIR /srv/app".to_owned(), false),
            ("COPY app/ ./ # buildkit".to_owned(), false),
            (
                "RUN /bin/sh -c echo \"$GREETING $(cat one)\" > said && chmod 640 said # buildkit".to_owned(),
                false
            ),
            ("RUN /bin/sh -c true # buildkit".to_owned(), true),
        ]
    );
    let layers = info.config.history.iter().filter(|entry| !entry.empty_layer).count();
    assert_eq!(layers, info.layers.len(), "readers of images count them");
    // What runs is what was built. The file is root's, so that `app` cannot read it.
    let spec = ContainerSpec::image("made:1").user("0");
    assert_eq!(world.says(spec).await?, "hello 1");
    let stat = ContainerSpec::image("made:1")
        .user("0")
        .command(["stat", "-c", "%a %u", "said", ".", "two"]);
    assert_eq!(world.says(stat).await?, "640 0\n755 0\n644 0");
    let told = told.lock().unwrap();
    let begun: Vec<String> = told
        .iter()
        .filter_map(|event| match event {
            ProgressEvent::Build(BuildEvent::Begun { stage, text, .. }) => Some(format!("{stage} {text}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        begun[..3],
        [
            "made FROM busybox:latest",
            "made ENV GREETING=hello",
            "made WORKDIR /srv/app"
        ]
    );
    assert!(matches!(told.last(), Some(ProgressEvent::Done { image }) if *image == info.id));
    let ends = told
        .iter()
        .filter(|event| matches!(event, ProgressEvent::Done { .. } | ProgressEvent::Failed { .. }));
    assert_eq!(ends.count(), 1, "it ends once");
    let ended = told
        .iter()
        .filter(|event| matches!(event, ProgressEvent::Build(BuildEvent::Ended { .. })));
    assert_eq!(ended.count(), begun.len(), "and so does each step");
    Ok(())
}

async fn f2_a_command_that_fails_says_where_and_what_it_wrote() -> Check {
    let world = world().await?;
    let dir = context(&[(
        "Dockerfile",
        "FROM busybox\n\n# Fails.\nRUN echo first; \\\n    seq 1 100; echo last >&2; exit 7\nRUN echo never\n",
    )])?;
    let lines = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&lines);
    let failed = world
        .engine
        .build(spec(dir.path()))
        .progress(move |event| {
            if let ProgressEvent::Build(BuildEvent::Output { bytes, .. }) = event {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes));
            }
        })
        .await
        .unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::BuildFailed);
    assert!(
        failed.to_string().starts_with("Dockerfile:4: RUN echo first;"),
        "{failed}"
    );
    assert!(failed.to_string().contains("exit code 7"), "{failed}");
    let Some(failure) = StepFailure::of(&failed) else {
        return fail(failed.report());
    };
    assert_eq!(
        (failure.file.as_str(), failure.line, failure.status.code()),
        ("Dockerfile", 4, 7)
    );
    assert!(
        failure.log_tail.ends_with("last") || failure.log_tail.ends_with("100"),
        "{}",
        failure.log_tail
    );
    assert!(!failure.log_tail.contains("first"), "only the end");
    let lines = lines.lock().unwrap().clone();
    assert!(
        lines.contains("first\n") && lines.contains("100\n") && lines.contains("last\n") && !lines.contains("never")
    );
    // A program that is not there, a user that nobody knows.
    for (text, kind) in [
        ("FROM busybox\nRUN [\"/no/such\"]", ErrorKind::CommandNotFound),
        ("FROM scratch\nRUN true", ErrorKind::CommandNotFound),
        ("FROM busybox\nUSER nobody-knows\nRUN true", ErrorKind::NotFound),
        ("FROM busybox\nRUN sh -c 'kill -9 $$' & wait $!", ErrorKind::BuildFailed),
        ("FROM no.such/image:1", ErrorKind::Unavailable),
        ("FROM busybox\nCOPY missing /x", ErrorKind::NotFound),
        ("FROM busybox\nCOPY ../x /x", ErrorKind::NotFound),
    ] {
        let failed = world
            .engine
            .build(spec(dir.path()).dockerfile_text(text))
            .await
            .unwrap_err();
        assert_eq!(failed.kind(), &kind, "{text}: {}", failed.report());
    }
    let failed = world
        .engine
        .build(spec(dir.path()).dockerfile_text("FROM busybox\nRUM x"))
        .await;
    assert!(failed.unwrap_err().to_string().contains("Dockerfile:2:1"));
    Ok(())
}

async fn f2_commands_see_what_holds_where_they_are() -> Check {
    let world = world().await?;
    let text = "FROM busybox\n\
        ARG A=arg\n\
        ENV B=env\n\
        RUN [\"sh\", \"-c\", \"echo $A $B > /exec\"]\n\
        RUN [\"/bin/echo\", \"$B\"]\n\
        SHELL [\"/bin/sh\", \"-e\", \"-c\"]\n\
        RUN echo $A $B $0 > /shell; hostname > /hostname; pwd > /pwd; printenv HOSTNAME > /name || true\n\
        WORKDIR /home\n\
        USER app:extra\n\
        RUN id > /tmp/id; pwd > /tmp/pwd; echo $HOME > /tmp/home\n";
    let dir = context(&[])?;
    let built = result(
        &world.engine,
        spec(dir.path()).dockerfile_text(text).argument("A", "given"),
    )
    .await?;
    let said = says(
        &world,
        &built,
        "cat /exec /shell /hostname /pwd /name /tmp/id /tmp/pwd /tmp/home",
    )
    .await?;
    assert_eq!(
        said,
        "given env\ngiven env /bin/sh\nbuildkitsandbox\n/\nuid=1234(app) gid=2345(extra) groups=2345(extra)\n/home\n/home"
    );
    let config = info(&world.engine, &built).await?.config.config;
    assert!(
        !config.env.iter().flatten().any(|pair| pair.starts_with("A=")),
        "an argument is in no image"
    );
    Ok(())
}

async fn f7_heredocs_run_and_are_copied() -> Check {
    let world = world().await?;
    let text = "FROM busybox\n\
        ENV NAME=tide\n\
        RUN <<EOF\n\
        echo one > /lines\n\
        echo $NAME >> /lines\n\
        EOF\n\
        RUN <<EOF\n\
        #!/bin/cat\n\
        not for a shell $NAME\n\
        EOF\n\
        COPY <<EOF <<\"RAW\" /etc/made/\n\
        name=$NAME\n\
        EOF\n\
        name=$NAME\n\
        RAW\n";
    let dir = context(&[])?;
    let built = result(&world.engine, spec(dir.path()).dockerfile_text(text)).await?;
    let said = says(
        &world,
        &built,
        "cat /lines /etc/made/EOF /etc/made/RAW; ls /dev/pipes 2>&1 || true",
    )
    .await?;
    assert_eq!(
        said,
        "one\ntide\nname=tide\nname=$NAME\nls: /dev/pipes: No such file or directory"
    );
    Ok(())
}

/// Each of two stages waits for the other: one after the other they would wait for ever.
async fn f8_stages_run_side_by_side_and_only_if_they_are_needed() -> Check {
    let world = world().await?;
    let meet = "RUN --mount=type=cache,id=meeting,target=/meet";
    let text = format!(
        "FROM busybox AS a\n\
         {meet} touch /meet/a; until [ -e /meet/b ]; do sleep 0.01; done; echo a > /made\n\
         FROM busybox AS b\n\
         {meet} touch /meet/b; until [ -e /meet/a ]; do sleep 0.01; done; echo b > /made\n\
         FROM busybox AS unneeded\n\
         RUN exit 1\n\
         FROM busybox AS last\n\
         COPY --from=a /made /a\n\
         COPY --from=1 /made /b\n\
         FROM unneeded\n"
    );
    let dir = context(&[])?;
    let spec = || spec(dir.path()).dockerfile_text(text.clone()).target("last").jobs(2);
    let building = world.engine.build(spec()).deadline(Duration::from_secs(60)).result();
    let built = building.await?;
    assert_eq!(
        says(&world, &built, "cat /a /b; ls /meet 2>&1 || true").await?,
        "a\nb\nls: /meet: No such file or directory"
    );
    let failed = world.engine.build(spec().target("")).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::BuildFailed, "{}", failed.report());
    Ok(())
}

const CACHED: &str = "FROM busybox\nRUN head -c 16 /dev/urandom > /once\nWORKDIR /w\nCOPY a b ./\nRUN cat a b > c\n";

async fn f10_a_second_build_does_nothing_again() -> Check {
    let world = world().await?;
    let dir = context(&[("a", "1"), ("b", "2")])?;
    let spec = || spec(dir.path()).dockerfile_text(CACHED);
    let first = result(&world.engine, spec()).await?;
    assert_eq!((first.steps, first.cached), (4, 0));
    let second = result(&world.engine, spec()).await?;
    assert_eq!((second.steps, second.cached), (4, 4));
    assert_eq!(second.id, first.id);
    // Another engine on the same root knows it, too, and so does one that comes later.
    let other = Engine::open(world.root.path()).await?;
    assert_eq!(result(&other, spec()).await?.cached, 4);
    other.close().await;
    let third = result(&world.engine, spec().no_cache(true)).await?;
    assert_eq!((third.steps, third.cached), (4, 0));
    assert_ne!(
        third.id, first.id,
        "a step that makes something else each time was done"
    );
    // Without the image, its steps are still known.
    for built in [&first, &third] {
        let gone = world
            .engine
            .images()
            .remove(&built.id.to_string(), RemoveImageOptions::default())
            .await;
        gone?;
    }
    assert_eq!(result(&world.engine, spec()).await?.cached, 4);
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn f10_a_changed_file_counts_from_its_step_on() -> Check {
    let world = world().await?;
    let dir = context(&[("a", "1"), ("b", "2"), ("ignored", "x"), (".dockerignore", "ignored\n")])?;
    let spec = || spec(dir.path()).dockerfile_text(CACHED);
    let first = result(&world.engine, spec()).await?;
    // Times do not count, nor does what is ignored or not copied.
    let later = SystemTime::now() + Duration::from_secs(1000);
    fs::File::options()
        .write(true)
        .open(dir.path().join("a"))?
        .set_modified(later)?;
    fs::write(dir.path().join("ignored"), "y")?;
    fs::write(dir.path().join("other"), "y")?;
    let second = result(&world.engine, spec()).await?;
    assert_eq!((second.cached, second.id), (4, first.id));
    fs::write(dir.path().join("b"), "3")?;
    let third = result(&world.engine, spec()).await?;
    assert_eq!((third.steps, third.cached), (4, 2), "from COPY on");
    assert_eq!(says(&world, &third, "cat /w/c").await?, "13");
    let layer = async |built: &BuildResult| Ok::<_, Stop>(info(&world.engine, built).await?.layers[1].clone());
    assert_eq!(layer(&third).await?, layer(&first).await?, "made once");
    Ok(())
}

/// Two engines on one root, like two processes: a step that makes something else each time is done once.
async fn f10_one_of_two_builds_does_a_step() -> Check {
    let world = world().await?;
    let other = Engine::open(world.root.path()).await?;
    let dir = context(&[])?;
    let text = "FROM busybox\nRUN head -c 16 /dev/urandom > /once\n";
    let spec = || spec(dir.path()).dockerfile_text(text);
    let builds = [&world.engine, &world.engine, &other, &other].map(|engine| result(engine, spec()));
    let built = futures_util::future::try_join_all(builds).await?;
    other.close().await;
    assert!(built.iter().all(|one| one.id == built[0].id), "{built:?}");
    assert_eq!(built.iter().filter(|one| one.cached == 0).count(), 1, "{built:?}");
    Ok(())
}

async fn f10_forgotten_steps_give_back_what_only_they_needed() -> Check {
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    engine
        .pull(source(image::shared()?))
        .await?
        .tag(&"busybox:latest".parse()?)
        .await?;
    let dir = context(&[])?;
    let text = "FROM busybox AS a\nRUN head -c 100000 /dev/zero > /zeros\nFROM busybox\nRUN echo kept > /kept\nCOPY --from=a /zeros /zeros\n";
    let built = result(&engine, spec(dir.path()).dockerfile_text(text)).await?;
    let steps = engine.builds().cache().await?;
    assert_eq!(steps.len(), 3, "{steps:?}");
    let pruned = engine.builds().prune(PruneCache::all().keep(Bytes::gib(1))).await?;
    assert_eq!((pruned.steps.len(), pruned.freed_bytes), (0, 0));
    let pruned = engine.builds().prune(PruneCache::all()).await?;
    assert_eq!(pruned.steps.len(), 3);
    // The layers of the stage that is in no image. What the image has stays.
    assert!(pruned.freed_bytes >= 100_000, "{pruned:?}");
    assert_eq!(engine.builds().cache().await?, []);
    let spec = ContainerSpec::image(built.id.to_string()).command(["sh", "-c", "cat /kept; wc -c < /zeros"]);
    let output = engine.run(spec).output().await?;
    assert_eq!(text_of(&output), "kept\n100000\n");
    assert_eq!(engine.audit().await?.findings, []);
    Ok(())
}

async fn f11_caches_are_kept_and_shared() -> Check {
    let world = world().await?;
    let dir = context(&[])?;
    let build = async |text: &str| result(&world.engine, spec(dir.path()).dockerfile_text(text)).await;
    let first = "FROM busybox\n\
        RUN --mount=type=cache,target=/c,uid=1234,mode=0750 echo kept > /c/file; stat -c '%a %u' /c > /stat\n";
    let built = build(first).await?;
    // With a single id everything is one user's.
    let owner = if world.ownership().await? == "squashed" {
        0
    } else {
        1234
    };
    let said = says(&world, &built, "cat /stat; ls -d /c 2>/dev/null || true").await?;
    assert_eq!(said, format!("750 {owner}"));
    let layers = info(&world.engine, &built).await?.layers;
    let held = blob_of(&world, &layers[1])?;
    assert!(
        !held.windows(4).any(|part| part == b"kept"),
        "what is in a cache is in no layer"
    );
    let second = "FROM busybox\nRUN --mount=type=cache,id=/c,target=/other cat /other/file > /out\n";
    assert_eq!(says(&world, &build(second).await?, "cat /out").await?, "kept");
    // A build that wants one of its own has another while somebody has it.
    let own = "FROM busybox AS a\n\
        RUN --mount=type=cache,id=own,sharing=private,target=/c --mount=type=cache,id=meet,target=/m \
          echo a > /c/name; touch /m/a; until [ -e /m/b ]; do sleep 0.01; done; ls /c > /seen\n\
        FROM busybox AS b\n\
        RUN --mount=type=cache,id=own,sharing=private,target=/c --mount=type=cache,id=meet,target=/m \
          touch /c/other /m/b; until [ -e /m/a ]; do sleep 0.01; done; ls /c > /seen\n\
        FROM busybox\nCOPY --from=a /seen /a\nCOPY --from=b /seen /b\n";
    assert_eq!(says(&world, &build(own).await?, "cat /a /b").await?, "name\nother");
    // One after the other: each finds nobody else there.
    let alone = |n: u32| {
        format!(
            "RUN --mount=type=cache,id=alone,sharing=locked,target=/c \
               [ ! -e /c/busy ] && touch /c/busy && sleep 0.05 && rm /c/busy && echo {n} > /made\n"
        )
    };
    let locked = format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM busybox\nCOPY --from=a /made /a\nCOPY --from=b /made /b\n",
        alone(1),
        alone(2)
    );
    assert_eq!(says(&world, &build(&locked).await?, "cat /a /b").await?, "1\n2");
    // Twice in one command, and in another order in the other: nobody waits for himself, or for who waits for him.
    let both = |one: &str, other: &str| {
        let mount = |id: &str, n: u32| format!("--mount=type=cache,id={id},sharing=locked,target=/{n}");
        format!(
            "RUN {} {} {} touch /1/x\n",
            mount(one, 1),
            mount(other, 2),
            mount(one, 3)
        )
    };
    let crossed = format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM busybox\nCOPY --from=a /etc/secret /a\nCOPY --from=b /etc/secret /b\n",
        both("x", "y"),
        both("y", "x")
    );
    let crossed = spec(dir.path()).dockerfile_text(crossed).jobs(2);
    world.engine.build(crossed).deadline(Duration::from_secs(60)).await?;
    // It begins with files of an image.
    let from = "FROM busybox\nRUN --mount=type=cache,target=/c,from=busybox,source=/etc cat /c/secret > /out\n";
    assert_eq!(says(&world, &build(from).await?, "cat /out").await?, "the tide table");
    Ok(())
}

/// The bytes of a layer, which is kept plain.
fn blob_of(world: &World, layer: &longshore::types::LayerRef) -> Result<Vec<u8>, Stop> {
    let hex = layer.descriptor.digest.hex();
    Ok(fs::read(world.root.path().join("content/blobs/sha256").join(hex))?)
}

async fn f12_a_secret_is_nowhere() -> Check {
    const SECRET: &str = "s3cret-of-the-tide";
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    let base = engine.pull(source(image::shared()?)).await?;
    base.tag(&"busybox:latest".parse()?).await?;
    let dir = context(&[])?;
    let text = "FROM busybox\n\
        RUN --mount=type=secret,id=key wc -c < /run/secrets/key > /length; stat -c '%a %u' /run/secrets/key > /stat\n\
        RUN --mount=type=secret,id=key,target=/etc/key,mode=0440,uid=1234,gid=1234 stat -c '%a %u' /etc/key > /stat2\n\
        RUN --mount=type=secret,id=key,env=KEY test ${#KEY} = 18 && echo ${#KEY} > /env\n\
        RUN --mount=type=secret,id=other test ! -e /run/secrets/other\n\
        USER app\n\
        RUN --mount=type=secret,id=key,uid=1234 wc -c < /run/secrets/key > /tmp/length\n";
    let spec = || {
        spec(dir.path())
            .dockerfile_text(text)
            .secret("key", Secret::new(SECRET))
    };
    assert!(!format!("{:?}", spec()).contains(SECRET));
    let built = result(&engine, spec()).await?;
    let said = ContainerSpec::image(built.id.to_string()).user("0").command([
        "cat",
        "/length",
        "/stat",
        "/stat2",
        "/env",
        "/tmp/length",
    ]);
    let output = engine.run(said).output().await?;
    let squashed = engine.create(ContainerSpec::image("busybox")).await?;
    let owner = if squashed.inspect().await?.ownership == "squashed" {
        0
    } else {
        1234
    };
    squashed.remove(FORCE).await?;
    assert_eq!(text_of(&output), format!("18\n400 0\n440 {owner}\n18\n18\n"));
    // Another one is no reason to do a step again; a failing step does not tell it.
    let other = spec().secret("key", Secret::new("another-of-the-tide"));
    assert_eq!(result(&engine, other).await?.cached, 5);
    let fails = "FROM busybox\nRUN --mount=type=secret,id=key,env=KEY exit 3\n";
    let failed = engine.build(spec().dockerfile_text(fails)).await.unwrap_err();
    assert!(!format!("{failed:?} {}", failed.report()).contains(SECRET));
    let needed = "FROM busybox\nRUN --mount=type=secret,id=none,required true\n";
    let failed = engine.build(spec().dockerfile_text(needed)).await.unwrap_err();
    assert_eq!(failed.kind(), &ErrorKind::NotFound, "{}", failed.report());
    let found = files_with(root.path(), SECRET.as_bytes());
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

/// Files below a directory that hold these bytes.
fn files_with(dir: &Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_with(&path, bytes)),
            Ok(kind) if kind.is_file() => {
                let text = fs::read(&path).unwrap_or_default();
                found.extend(text.windows(bytes.len()).any(|part| part == bytes).then_some(path));
            }
            _ => {}
        }
    }
    found
}

async fn f13_mounts_show_files_and_keep_nothing() -> Check {
    let world = world().await?;
    let dir = context(&[("dir/x", "of the context\n"), ("y", "other"), (".dockerignore", "y\n")])?;
    let text = "FROM busybox AS made\n\
        RUN echo of a stage > /made\n\
        FROM busybox\n\
        RUN --mount=target=/all --mount=source=dir/x,target=/one cat /all/dir/x /one > /out && test ! -e /all/y\n\
        RUN --mount=from=made,target=/m cat /m/made >> /out && ! touch /m/z 2>/dev/null\n\
        RUN --mount=from=made,source=/made,target=/m,rw echo more >> /m && cat /m > /more\n\
        RUN --mount=from=made,target=/m cat /m/made >> /more\n\
        RUN --mount=type=tmpfs,target=/t,size=1m touch /t/x && ! head -c 2000000 /dev/zero > /t/big\n";
    let spec = || spec(dir.path()).dockerfile_text(text);
    let built = result(&world.engine, spec()).await?;
    assert_eq!(
        says(&world, &built, "cat /out").await?,
        "of the context\nof the context\nof a stage"
    );
    assert_eq!(says(&world, &built, "cat /more").await?, "of a stage\nmore\nof a stage");
    let places = says(&world, &built, "ls -d /all /one /m /t 2>/dev/null || true").await?;
    assert_eq!(places, "", "places for mounts are in no layer");
    // What a mount shows counts.
    assert_eq!(result(&world.engine, spec()).await?.cached, 6);
    fs::write(dir.path().join("dir/x"), "changed")?;
    assert_eq!(result(&world.engine, spec()).await?.cached, 1);
    let missing = spec().dockerfile_text("FROM busybox\nRUN --mount=source=none,target=/m true\n");
    assert_eq!(
        world.engine.build(missing).await.unwrap_err().kind(),
        &ErrorKind::NotFound
    );
    Ok(())
}

async fn f13_an_agent_answers_a_command() -> Check {
    let world = world().await?;
    let (dir, place) = (context(&[])?, scratch::fresh("agent"));
    let socket = place.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket)?;
    let text = "FROM busybox\n\
        RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /place\n\
        RUN test -z \"$SSH_AUTH_SOCK\"\n";
    let spec = spec(dir.path()).dockerfile_text(text).ssh_agent("default", &socket);
    let built = result(&world.engine, spec).await?;
    let said = says(&world, &built, "cat /place; ls $(cat /place) 2>/dev/null || true").await?;
    assert_eq!(said, "/run/buildkit/ssh_agent.0");
    Ok(())
}

async fn f14_networks_and_privileges_of_commands() -> Check {
    let world = world().await?;
    let dir = context(&[])?;
    let build = async |spec: BuildSpec, text: &str| result(&world.engine, spec.dockerfile_text(text)).await;
    let text = "FROM busybox\nRUN --network=none ls /sys/class/net > /links\n";
    let built = build(spec(dir.path()), text).await?;
    assert_eq!(says(&world, &built, "cat /links").await?, "lo");
    let text = "FROM busybox\nRUN --network=host ls /sys/class/net | wc -l > /links\n";
    let denied = build(spec(dir.path()), text).await.unwrap_err();
    assert_eq!(denied.kind(), &ErrorKind::Denied, "{}", denied.report());
    build(spec(dir.path()).allow(Entitlement::HostNetwork), text).await?;
    let text = "FROM busybox\nRUN --security=insecure grep CapBnd /proc/self/status > /caps\n";
    let denied = build(spec(dir.path()), text).await.unwrap_err();
    assert_eq!(denied.kind(), &ErrorKind::Denied, "{}", denied.report());
    build(spec(dir.path()).allow(Entitlement::Insecure), text).await?;
    Ok(())
}

async fn f16_files_are_an_output() -> Check {
    let world = world().await?;
    let (dir, out) = (context(&[("x", "y")])?, scratch::fresh("out"));
    let text = "FROM busybox AS made\nRUN mkdir -p /out/d && echo 1 > /out/d/f && chmod 750 /out/d && chown 1234:1234 /out/d/f \\\n\
        && ln -s f /out/d/l && ln /out/d/f /out/hard\nFROM scratch\nCOPY --from=made /out /\nCOPY x /\n";
    let spec = |output: BuildOutput| spec(dir.path()).dockerfile_text(text).output(output);
    let image = result(&world.engine, spec(BuildOutput::Image)).await?;
    info(&world.engine, &image).await?;
    world
        .engine
        .images()
        .remove(&image.id.to_string(), RemoveImageOptions::default())
        .await?;
    let (local, tar) = (out.path().join("a/local"), out.path().join("tar"));
    let files = result(&world.engine, spec(BuildOutput::Directory(local.clone()))).await?;
    assert_eq!((files.id, files.cached), (image.id, 3));
    assert!(
        world
            .engine
            .images()
            .inspect(&image.id.to_string())
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(fs::read_to_string(local.join("d/f"))?, "1\n");
    assert_eq!(fs::read_link(local.join("d/l"))?, Path::new("f"));
    let (one, other) = (fs::metadata(local.join("d/f"))?, fs::metadata(local.join("hard"))?);
    assert_eq!((one.uid(), one.ino()), (nix::unistd::geteuid().as_raw(), other.ino()));
    assert_eq!(fs::metadata(local.join("d"))?.mode() & 0o7777, 0o750);
    // Again, over what is there.
    fs::write(local.join("x"), "old")?;
    result(&world.engine, spec(BuildOutput::Directory(local.clone()))).await?;
    assert_eq!(fs::read_to_string(local.join("x"))?, "y");
    result(&world.engine, spec(BuildOutput::Tar(tar.clone()))).await?;
    let mut archive = tar::Archive::new(fs::File::open(&tar)?);
    let names: Vec<String> = archive
        .entries()?
        .map(|entry| Ok(entry?.path()?.to_string_lossy().into_owned()))
        .collect::<Result<_, Stop>>()?;
    assert_eq!(names, ["./", "d/", "d/f", "d/l", "hard", "x"]);
    assert_eq!(fs::read_dir(out.path())?.count(), 2, "nothing half-written");
    let named = result(&world.engine, spec(BuildOutput::Tar(tar)).tag("x"))
        .await
        .unwrap_err();
    assert_eq!(named.kind(), &ErrorKind::InvalidArgument);
    Ok(())
}

async fn c2_credentials_of_a_build_go_to_their_registry_alone() -> Check {
    let options = Options {
        basic_auth: true,
        tls: false,
    };
    let registry = Registry::with(options, &[(image::shared()?, "busybox", "1")])?;
    let root = TempRoot::new();
    let engine = Engine::open(root.path()).await?;
    let text = format!("FROM {}\n", registry.reference("busybox:1"));
    let spec = || BuildSpec::new(ContextSource::Empty).dockerfile_text(text.clone());
    let right = Credentials::password(LOGIN.0, LOGIN.1);
    let elsewhere = spec()
        .credentials("127.0.0.1:1", right.clone())
        .credentials("docker.io", right.clone());
    let denied = engine.build(elsewhere).await.unwrap_err();
    assert_eq!(denied.kind(), &ErrorKind::Denied, "{}", denied.report());
    engine
        .build(spec().credentials(registry.addr.to_string(), right))
        .await?;
    Ok(())
}

const SAME: &str = "FROM busybox\n\
    ENV A=1\n\
    WORKDIR /srv\n\
    COPY . .\n\
    RUN mkdir made && cp sub/one made/two && ln made/two made/three && ln -s two made/link && rm /etc/secret\n\
    RUN date > /dev/null\n\
    CMD [\"cat\", \"made/two\"]\n";

async fn f19_p16_two_stores_build_the_same_image() -> Check {
    let mut images = Vec::new();
    for (n, storage) in ["overlayfs", "vfs"].into_iter().enumerate() {
        let root = TempRoot::new();
        let engine = match Engine::builder(root.path()).snapshotter(storage).open().await {
            Err(error) if error.is_unsupported() => continue,
            engine => engine?,
        };
        engine
            .pull(source(image::shared()?))
            .await?
            .tag(&"busybox:latest".parse()?)
            .await?;
        let dir = context(&[("Dockerfile", SAME), ("sub/one", "text"), ("x", "y")])?;
        let then = SystemTime::now() - Duration::from_secs(100_000 * (n as u64 + 1));
        fs::File::options()
            .write(true)
            .open(dir.path().join("sub/one"))?
            .set_modified(then)?;
        let built = result(&engine, spec(dir.path())).await?;
        let info = info(&engine, &built).await?;
        assert_eq!(
            info.config.created.as_deref(),
            Some("2024-01-01T00:00:00Z"),
            "the base's"
        );
        let real = result(&engine, spec(dir.path()).times(BuildTimes::Real)).await?;
        assert_ne!(real.id, built.id);
        images.push((storage, built.id, info.manifest.digest));
    }
    assert!(
        images
            .windows(2)
            .all(|pair| (pair[0].1, pair[0].2) == (pair[1].1, pair[1].2)),
        "{images:?}"
    );
    Ok(())
}

async fn f23_steps_made_in_rust_are_the_same_image() -> Check {
    let world = world().await?;
    let dir = context(&[
        (
            "Dockerfile",
            "FROM busybox\nENV A=1\nCOPY x /etc/x\nRUN echo $A > /made\nWORKDIR /srv\nUSER app\nENTRYPOINT [\"cat\", \"/made\"]\n",
        ),
        ("x", "y"),
    ])?;
    let read = result(&world.engine, spec(dir.path())).await?;
    let made = spec(dir.path()).stage("busybox", |stage| {
        stage
            .env("A", "1")
            .copy(CopyAction::new(["x"], "/etc/x"))
            .run_shell("echo $A > /made")
            .workdir("/srv")
            .user("app")
            .entrypoint(["cat", "/made"])
    });
    let made = result(&world.engine, made).await?;
    assert_eq!((made.id, made.cached), (read.id, 3));
    let scratch = spec(dir.path()).stage("scratch", |stage| stage.copy(CopyAction::new(["x"], "/")).cmd(["/x"]));
    let scratch = result(&world.engine, scratch).await?;
    let text = spec(dir.path()).dockerfile_text("FROM scratch\nCOPY x /\nCMD [\"/x\"]");
    assert_eq!(scratch.id, result(&world.engine, text).await?.id);
    Ok(())
}

async fn f23_stages_made_in_rust_are_the_same_image() -> Check {
    let world = world().await?;
    let dir = context(&[("x", "y")])?;
    let more = context(&[("more/z", "w")])?;
    let text = "FROM busybox AS base\nONBUILD RUN echo on > /on\nWORKDIR /src\n\
                FROM base AS build\nCOPY x .\nRUN --mount=type=tmpfs,target=/memory cat x /on > made\n\
                FROM scratch AS never\nCOPY missing /\n\
                FROM busybox\nCOPY --from=build --chown=1:2 /src/made /a\nCOPY --from=files more/z /b\n\
                COPY --from=busybox /bin/true /c\n\
                RUN --mount=type=bind,from=build,source=/src,target=/built cat /built/made > /d\nCMD [\"cat\", \"/d\"]";
    let spec = || spec(dir.path()).context("files", more.path().to_path_buf());
    let made = || {
        let base = MadeStage::new("busybox", |stage| stage.onbuild("RUN echo on > /on").workdir("/src"));
        let build = MadeStage::new("base", |stage| {
            let stage = stage.copy(CopyAction::new(["x"], "."));
            stage.run_shell_with("cat x /on > made", |run| run.mount(MountAction::tmpfs("/memory")))
        });
        let never = MadeStage::new("scratch", |stage| stage.copy(CopyAction::new(["missing"], "/")));
        let spec = spec().add_stage(base.named("base")).add_stage(build.named("build"));
        spec.add_stage(never.named("never")).stage("busybox", |stage| {
            stage
                .copy(CopyAction::new(["/src/made"], "/a").from("build").owner("1:2"))
                .copy(CopyAction::new(["more/z"], "/b").from("files"))
                .copy(CopyAction::new(["/bin/true"], "/c").from("busybox"))
                .run_shell_with("cat /built/made > /d", |run| {
                    run.mount(MountAction::bind("/built").from("build").source("/src"))
                })
                .cmd(["cat", "/d"])
        })
    };
    let built = result(&world.engine, made()).await?;
    // With a single id everything is one user's.
    let owner = if world.ownership().await? == "squashed" {
        "0:0"
    } else {
        "1:2"
    };
    assert_eq!(
        says(&world, &built, "cat /d; stat -c %u:%g /a; cat /b").await?,
        format!("yon\n{owner}\nw")
    );
    assert_eq!(built.cached, 0);
    let read = result(&world.engine, spec().dockerfile_text(text)).await?;
    assert_eq!((read.id, read.cached), (built.id, read.steps), "every step was known");
    // A target in the middle.
    let part = result(&world.engine, made().target("build")).await?;
    let read = result(&world.engine, spec().dockerfile_text(text).target("build")).await?;
    assert_eq!((part.id, part.steps), (read.id, read.steps));
    let Err(missing) = result(&world.engine, made().target("never")).await else {
        return fail("a file that is not there was copied");
    };
    assert!(missing.report().contains("missing"), "{}", missing.report());
    Ok(())
}

async fn a9_a_dropped_build() -> Check {
    let scene = Scene::new().await?;
    scene.world.image.tag(&"busybox:latest".parse()?).await?;
    let dir = context(&[("x", "y")])?;
    let text = "FROM busybox AS a\nRUN echo a > /a\nFROM busybox\nCOPY x /x\nCOPY --from=a /a /b\nRUN true\n";
    each_drop(async |drop| {
        let (engine, spec) = (scene.engine().clone(), spec(dir.path()).dockerfile_text(text));
        let building = async move { engine.build(spec).result().await.map(|_| ()) };
        let ended = under(scene.engine(), drop, Box::pin(building)).await?;
        // What was done stays known: forgotten here, so that each drop meets the same.
        cleared(&scene).await?;
        Ok(ended)
    })
    .await
}

/// Waits for the tails, forgets all steps and images, and looks at what is left then.
pub async fn cleared(scene: &Scene) -> Check {
    let engine = scene.engine();
    let start = std::time::Instant::now();
    loop {
        for image in engine.list_images(Default::default()).await? {
            if image.id != *scene.world.image.id() {
                let force = RemoveImageOptions::default().force(true);
                engine.images().remove(&image.id.to_string(), force).await?;
            }
        }
        engine.builds().prune(PruneCache::all()).await?;
        engine.reconcile().await?;
        let left: Vec<_> = fs::read_dir(scene.world.root.path().join("builds"))
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        if left.is_empty() && scene.more_on_disk().is_empty() {
            return scene.nothing_is_left().await;
        }
        if start.elapsed() > Duration::from_secs(10) {
            return fail(format!("left: {left:?} {:?}", scene.more_on_disk()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn p14_a_build_leaves_nothing_but_its_image() -> Check {
    let world = world().await?;
    let dir = context(&[("x", "y")])?;
    let text =
        "FROM busybox\nCOPY x /x\nRUN --mount=type=tmpfs,target=/big echo 1 > /big/x; chown 1234:1234 /x || true\n";
    let secret = spec(dir.path())
        .dockerfile_text(text)
        .secret("unused", Secret::new("nobody asks"));
    let built = result(&world.engine, secret).await?;
    assert_eq!(
        says(&world, &built, "cat /x; ls -d /big 2>&1 || true").await?,
        "yls: /big: No such file or directory"
    );
    assert_eq!(world.containers().await?.len(), 0);
    let builds = fs::read_dir(world.root.path().join("builds"))?.count();
    assert_eq!(builds, 0);
    let audit = world.engine.audit().await?;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    Ok(())
}

/// A request whose body is a tar.
fn send(daemon: &Daemon, target: &str, tar: &[u8]) -> Result<wire::Answer, Stop> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        tar.len()
    );
    let bytes = [head.as_bytes(), tar].concat();
    wire::Answer::parse(&wire::exchange(wire::connect(&daemon.socket)?, &bytes)?)
}

fn b6_f10_a_build_over_the_api() -> Check {
    let mut daemon = Daemon::start(&[])?;
    let text = "FROM busybox\nARG WORD\nCOPY x /x\nRUN echo $WORD $(cat /x) | tee /said\n";
    let files = Files::new().file("Dockerfile", 0o644, text).file("x", 0o644, "there");
    let tar = files.tar()?;
    let target = "/v1.44/build?t=made&t=made:2&networkmode=none&labels=%7B%22a%22%3A%22b%22%7D&buildargs=%7B%22WORD%22%3A%22hello%22%7D";
    let built = send(&daemon, target, &tar)?.expect(200)?;
    let said: Vec<Value> = lines(&built)?;
    let stream: String = said.iter().filter_map(|line| line["stream"].as_str()).collect();
    assert!(
        stream.contains("Step 2 : ARG WORD\n") && stream.contains("hello there\n"),
        "{stream}"
    );
    assert!(
        stream.ends_with("Successfully tagged made:latest\nSuccessfully tagged made:2\n"),
        "{stream}"
    );
    let id = said
        .iter()
        .find_map(|line| line["aux"]["ID"].as_str())
        .unwrap_or_default()
        .to_owned();
    let image = daemon
        .ask("GET", "/v1.44/images/made:2/json", "")?
        .expect(200)?
        .json()?;
    assert_eq!(
        (image["Id"].as_str(), image["Config"]["Labels"]["a"].as_str()),
        (Some(id.as_str()), Some("b"))
    );
    let again = send(&daemon, &format!("{target}&q=1"), &tar)?.expect(200)?;
    assert_eq!(lines(&again)?.last(), Some(&json!({"stream": format!("{id}\n")})));
    // What is wrong with the file is said before anything is done; a command that fails, in the stream.
    let bad = Files::new().file("other", 0o644, "FROM busybox\nRUM x\n").tar()?;
    let refused = send(&daemon, "/v1.44/build?dockerfile=other", &bad)?.expect(400)?;
    assert!(refused.message()?.contains("other:2:1"), "{refused:?}");
    send(&daemon, "/v1.44/build", &bad)?.expect(404)?;
    let fails = Files::new()
        .file("Dockerfile", 0o644, "FROM busybox\nRUN exit 3\n")
        .tar()?;
    let failed = send(&daemon, "/v1.44/build?networkmode=none", &fails)?.expect(200)?;
    let last = lines(&failed)?.pop().unwrap_or_default();
    assert_eq!(last["errorDetail"]["code"], 3, "{last}");
    assert_eq!(last["longshore"]["kind"], "build_failed");
    for refused in [
        "outputs=%5B%7B%22Type%22%3A%22local%22%7D%5D",
        "squash=1",
        "buildargs=x",
        "remote=client-session",
        "cgroupparent=x",
        "ulimits=x",
        "shmsize=x",
    ] {
        send(&daemon, &format!("/v1.44/build?{refused}"), &tar)?.expect(400)?;
    }
    // What commands may take, and the host's network, as Docker's own builder has it.
    let limited = Files::new()
        .file(
            "Dockerfile",
            0o644,
            "FROM busybox\nRUN ulimit -n; df /dev/shm | tail -n 1; ls /sys/class/net | head -n 1\n",
        )
        .tar()?;
    let ulimits = "%5B%7B%22Name%22%3A%22nofile%22%2C%22Soft%22%3A77%2C%22Hard%22%3A78%7D%5D";
    let target = format!("/v1.44/build?networkmode=host&shmsize=1048576&nocache=1&ulimits={ulimits}");
    let built = send(&daemon, &target, &limited)?.expect(200)?;
    let said: String = lines(&built)?
        .iter()
        .filter_map(|line| line["stream"].as_str())
        .collect();
    assert!(said.contains("\n77\n") && said.contains(" 1024 "), "{said}");
    daemon.ask("POST", "/v1.44/build/prune?all=1", "")?.expect(200)?;
    send(&daemon, "/v1.44/build?t=made&networkmode=none", &tar)?.expect(200)?;
    let pruned = daemon
        .ask("POST", "/v1.44/build/prune?all=1", "")?
        .expect(200)?
        .json()?;
    assert_eq!(pruned["CachesDeleted"].as_array().map(Vec::len), Some(2), "{pruned}");
    daemon.stop()
}

fn lines(answer: &wire::Answer) -> Result<Vec<Value>, Stop> {
    let text = &answer.body;
    let read = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str);
    Ok(read.collect::<Result<_, _>>()?)
}

fn f18_the_client_builds() -> Check {
    let client = crate::platforms::client()?;
    let root = crate::faults::filled_root()?;
    let dir = context(&[
        (
            "other.file",
            "FROM base\nARG WORD\nCOPY x /x\nCOPY --from=more y /y\nRUN --mount=type=secret,id=s echo $WORD $(cat /x /y) $(wc -c < /run/secrets/s) > /said\n",
        ),
        ("x", "files"),
        ("secret", "four"),
        ("more/y", " of two contexts"),
    ])?;
    let says = |words: &[&str], input: Option<&Path>| -> Result<String, Stop> {
        let mut command = std::process::Command::new(&client);
        command
            .current_dir(dir.path())
            .arg("--root")
            .arg(root.path())
            .args(words);
        command.stdin(match input {
            Some(input) => fs::File::open(input)?.into(),
            None => std::process::Stdio::null(),
        });
        let output = command.output()?;
        let code = output.status.code().unwrap_or(-1);
        Ok(format!(
            "{code} {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    };
    let words = [
        "build",
        "-q",
        "-t",
        "made",
        "-f",
        "other.file",
        "--network",
        "none",
        "--build-arg",
        "WORD=hello",
        "--build-context",
        "base=docker-image://busybox",
        "--build-context",
        "more=more",
        "--secret",
        "id=s,src=secret",
        ".",
    ];
    let built = says(&words, None)?;
    assert!(built.starts_with("0 sha256:") && built.lines().count() == 1, "{built}");
    let ran = says(&["run", "--rm", "--network", "none", "made", "cat", "/said"], None)?;
    assert_eq!(ran, "0 hello files of two contexts 4\n");
    // A Dockerfile on stdin alone, and one that fails.
    fs::write(dir.path().join("alone"), "FROM busybox\nRUN echo told; exit 4\n")?;
    let failed = says(&["build", "--network=none", "-"], Some(&dir.path().join("alone")))?;
    assert!(
        failed.starts_with("1 ") && failed.contains("told") && failed.contains("exit code 4"),
        "{failed}"
    );
    let pruned = says(&["builder", "prune", "-f"], None)?;
    assert!(pruned.starts_with("0 ") && pruned.contains("Total: "), "{pruned}");
    Ok(())
}
