//! What logs say beside lines, and readers that stand still while a container floods.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use futures_util::StreamExt as _;
use longshore::containers::LogConfig;
use longshore::logs::TeeItem;
use longshore::{AttachOptions, Container, ContainerSpec, ErrorKind, Lifetime, LogQuery, ObjectKind, SlowReader};

use crate::frame::{Check, Stop, fail};
use crate::support::long_loops;
use crate::support::world::{FORCE, World};
use crate::tests;

tests! { "logging":
    kernel_async [
        h19_json_file_says_who_it_is_beside_each_line,
        h19_what_a_log_cannot_say,
        g5_readers_that_stand_still_hold_nothing_up,
    ]
}

/// The lines of a container's file, as they are.
async fn lines(container: &Container) -> Result<Vec<String>, Stop> {
    let path = container.inspect().await?.log_path.expect("json-file has a file");
    Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

async fn h19_json_file_says_who_it_is_beside_each_line() -> Check {
    let world = World::new().await?;
    let log = LogConfig::driver("json-file")
        .option("labels", "tier,nothere")
        .option("labels-regex", "^com\\.")
        .option("env", "COLOUR,PATH")
        .option("env-regex", "^X_")
        .option("tag", "{{.Name}}|{{.ID}}|{{.ImageName}}|{{.Command}}");
    let spec = world
        .script("echo out; echo err >&2")
        .name("teller")
        .label("tier", "<front>")
        .label("com.example.team", "a\tb")
        .label("secret", "no")
        .env("COLOUR", "red=\"1\"")
        .env("X_1", "")
        .env("OTHER", "no")
        .log(log);
    let image = spec.image.clone();
    let container = world.started(spec).await?;
    container.wait().await?;
    let id = container.id().short();
    for _ in 0..2 {
        let lines = lines(&container).await?;
        assert!(!lines.is_empty());
        for line in &lines {
            let value: serde_json::Value = serde_json::from_str(line)?;
            let attributes: BTreeMap<String, String> = serde_json::from_value(value["attrs"].clone())?;
            let expected = [
                ("COLOUR", "red=\"1\""),
                ("PATH", attributes["PATH"].as_str()),
                ("X_1", ""),
                ("com.example.team", "a\tb"),
                ("tag", &format!("teller|{id}|{image}|sh -c echo out; echo err >&2")),
                ("tier", "<front>"),
            ];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(attributes, BTreeMap::from(expected), "{line}");
            assert!(attributes["PATH"].contains("/bin"), "{line}");
            // Docker's order, and Go's escapes.
            let (before, after) = line
                .split_once(",\"attrs\":{\"COLOUR\":\"red=\\\"1\\\"\",")
                .expect("in order");
            assert!(
                before.ends_with("\"stdout\"") || before.ends_with("\"stderr\""),
                "{line}"
            );
            assert!(
                after.contains("\"tier\":\"\\u003cfront\\u003e\"},\"time\":\"2"),
                "{line}"
            );
            assert!(after.contains("\"com.example.team\":\"a\\tb\""), "{line}");
        }
        // What is read back is what was printed.
        let mut entries = container.logs(LogQuery::default()).await?;
        let mut read = Vec::new();
        while let Some(entry) = entries.next().await {
            read.push(String::from_utf8_lossy(&entry?.bytes).into_owned());
        }
        assert_eq!(read.len(), lines.len());
        assert!(read.iter().all(|line| line == "out\n" || line == "err\n"), "{read:?}");
        // With the rest before it, if that is asked for.
        let detailed = LogQuery {
            details: true,
            tail: Some(1),
            ..LogQuery::default()
        };
        let mut entries = container.logs(detailed).await?;
        let shown = entries.next().await.expect("a line")?;
        let shown = String::from_utf8_lossy(&shown.bytes).into_owned();
        assert!(shown.starts_with("COLOUR=red%3D%221%22,PATH=%2F"), "{shown}");
        assert!(shown.contains(",X_1=,com.example.team=a%09b,tag=teller%7C"), "{shown}");
        let command = "sh+-c+echo+out%3B+echo+err+%3E%262,tier=%3Cfront%3E ";
        assert!(
            shown.ends_with(&format!("{command}out\n")) || shown.ends_with(&format!("{command}err\n")),
            "{shown}"
        );
        // And so it is after the next start.
        container.start().await?;
        container.wait().await?;
    }
    assert_eq!(lines(&container).await?.len(), 6);
    container.remove(FORCE).await?;
    // Nothing to say is nothing said.
    let log = LogConfig::driver("json-file").option("labels", "nothere");
    let container = world.started(world.script("echo out").log(log)).await?;
    container.wait().await?;
    assert!(!lines(&container).await?.concat().contains("attrs"));
    container.remove(FORCE).await?;
    Ok(())
}

async fn refused(world: &World, spec: ContainerSpec) -> Result<longshore::Error, Stop> {
    match world.engine.create(spec).await {
        Err(error) => Ok(error),
        Ok(_) => fail("it was created"),
    }
}

async fn h19_what_a_log_cannot_say() -> Check {
    let world = World::new().await?;
    let json = || LogConfig::driver("json-file");
    for (log, option) in [
        (json().option("labels-regex", "("), "labels-regex"),
        (json().option("env-regex", "*"), "env-regex"),
        (json().option("tag", "{{.Colour}}"), "tag"),
        (json().option("tag", "{{.ID"), "tag"),
        (LogConfig::driver("local").option("labels", "a"), "labels"),
        (LogConfig::driver("none").option("tag", "a"), "tag"),
    ] {
        let error = refused(&world, world.spec().log(log)).await?;
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
        assert_eq!(error.object(), Some((ObjectKind::Option, option)));
    }
    let spec = world
        .spec()
        .log(json().option("labels", "a"))
        .lifetime(Lifetime::Detached);
    let error = refused(&world, spec).await?;
    assert!(error.is_unsupported(), "{}", error.report());
    // More than fits beside a line: the container runs, and the engine says what is missing.
    let spec = world
        .script("echo out")
        .env("LONG", "x".repeat(100_000))
        .log(json().option("env", "LONG"));
    let container = world.started(spec).await?;
    assert_eq!(container.wait().await?.status.code(), 0);
    let told = container.inspect().await?.error.unwrap_or_default();
    assert!(told.contains("log") && told.contains("bytes"), "{told:?}");
    container.remove(FORCE).await?;
    Ok(())
}

/// As much as a container can print, of three sorts; the last line says that it has come to its end.
const FLOODS: [(&str, &str); 3] = [
    (
        "without a newline",
        "head -c 1048576 /dev/zero | tr '\\0' x > /dev/shm/a",
    ),
    (
        "lines of a megabyte",
        "head -c 1048575 /dev/zero | tr '\\0' y > /dev/shm/a; echo >> /dev/shm/a",
    ),
    (
        "binary",
        "cat /bin/busybox /bin/busybox /bin/busybox | head -c 1048576 > /dev/shm/a",
    ),
];

async fn g5_readers_that_stand_still_hold_nothing_up() -> Check {
    // More than twice of what is kept, and than what is held for a reader who skips.
    let (megabytes, kept) = if long_loops() {
        (192_usize, None)
    } else {
        (66, Some("3m"))
    };
    let world = World::new().await?;
    for (number, driver) in ["local", "json-file", "none"].into_iter().enumerate() {
        for (kind, (what, make)) in FLOODS.into_iter().enumerate() {
            // Each with each in the long form only.
            if !long_loops() && kind != number {
                continue;
            }
            let script = format!(
                "{make}; i=0; while [ $i -lt {megabytes} ]; do cat /dev/shm/a; i=$((i+1)); done; echo; echo the end"
            );
            let files = kept.filter(|_| driver != "none");
            let log = files
                .into_iter()
                .fold(LogConfig::driver(driver), |log, size| log.option("max-size", size));
            let container = world.engine.create(world.script(&script).log(log)).await?;
            let mut stalled = container.attach(AttachOptions::slow(SlowReader::Skip)).await?;
            container.start().await?;
            let follow = LogQuery {
                follow: true,
                ..LogQuery::default()
            };
            let mut follower = match container.logs(follow).await {
                Ok(mut entries) => {
                    assert!(entries.next().await.is_some(), "{driver}, {what}");
                    Some(entries)
                }
                Err(error) => {
                    assert!(driver == "none" && error.is_unsupported(), "{}", error.report());
                    None
                }
            };
            // Neither of them is read from here on.
            let Ok(exit) = tokio::time::timeout(Duration::from_secs(120), container.wait()).await else {
                return fail(format!("{driver}, {what}: it waits for a reader"));
            };
            assert_eq!(exit?.status.code(), 0, "{driver}, {what}");
            // What one missed it is told, to the byte.
            let (mut seen, mut missed) = (0, 0);
            while let Some(item) = stalled.output.next().await {
                match item {
                    TeeItem::Chunk(chunk) => seen += chunk.bytes.len(),
                    TeeItem::Lagged { missed_bytes } => missed += usize::try_from(missed_bytes)?,
                    other => return fail(format!("{other:?}")),
                }
            }
            assert_eq!(
                seen + missed,
                (megabytes << 20) + "\nthe end\n".len(),
                "{driver}, {what}"
            );
            assert!(
                missed > 0,
                "{driver}, {what}: nothing was missed by whoever read nothing"
            );
            // And so is the other: files that were rotated away are a gap that is told, and then comes the end.
            if let Some(entries) = &mut follower {
                let (mut gaps, mut last) = (0, Vec::new());
                while let Some(entry) = entries.next().await {
                    match entry {
                        Ok(entry) => last = entry.bytes.to_vec(),
                        Err(error) if error.kind() == &ErrorKind::Unavailable => gaps += 1,
                        Err(error) => return Err(error.into()),
                    }
                }
                assert_eq!(String::from_utf8_lossy(&last), "the end\n", "{driver}, {what}");
                assert!(gaps > 0, "{driver}, {what}: {megabytes} MB were kept in three files");
            }
            let error = container.inspect().await?.error;
            assert_eq!(error, None, "{driver}, {what}");
            container.remove(FORCE).await?;
        }
    }
    Ok(())
}
