//! Files in and out of containers.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use longshore::containers::{CopyInOptions, MountSpec};
use longshore::images::ByteStream;
use longshore::{Container, Engine, ErrorKind, Tmpfs};

use crate::frame::{Check, Stop, fail, skip};
use crate::support::patience::until;
use crate::support::root::TempRoot;
use crate::support::world::{FORCE, World, source};
use crate::support::{image, scratch};
use crate::tests;
use crate::volumes::fuse_is_ours;

tests! { "copy":
    kernel_async [
        g6_a_round_trip_in_every_state,
        g6_links_stay_inside_the_container,
        g6_what_is_mounted_is_there,
        g6_what_cannot_be,
        g6_a_container_with_ids_of_its_own,
        g6_directories_and_their_content,
        a9_a_dropped_copy_leaves_the_container_free,
        g6_what_is_swapped_meanwhile_leads_nowhere_else,
        g6_a_node_that_is_swapped_changes_no_mode_outside,
        j7_copies_into_a_directory_of_the_callers,
        j7_copies_that_cannot_get_there_say_so,
    ]
}

async fn bytes_of(mut stream: ByteStream) -> Result<Vec<u8>, Stop> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

pub fn stream_of(bytes: Vec<u8>) -> ByteStream {
    Box::pin(stream::iter([Ok(Bytes::from(bytes))]))
}

/// What a tar holds: type, mode, owner, time, link and content by path.
fn entries(tar: &[u8]) -> Result<BTreeMap<String, String>, Stop> {
    let mut out = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut body = String::new();
        entry.read_to_string(&mut body)?;
        let header = entry.header().clone();
        let link = entry.link_name()?.map(|link| link.to_string_lossy().into_owned());
        let looks = format!(
            "{:?} {:o} {}:{} {} {} {body}",
            header.entry_type(),
            header.mode()?,
            header.uid()?,
            header.gid()?,
            header.mtime()?,
            link.unwrap_or_default()
        );
        out.insert(entry.path()?.to_string_lossy().trim_end_matches('/').to_owned(), looks);
    }
    Ok(out)
}

/// A tree with files of every sort that matters.
fn tree(owner: u64) -> Result<Vec<u8>, Stop> {
    tree_at("tree", owner)
}

fn tree_at(top: &str, owner: u64) -> Result<Vec<u8>, Stop> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, link: &str, body: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(1_600_000_000);
        header.set_size(body.len() as u64);
        let path = path.replacen("tree", top, 1);
        match link {
            "" => archive.append_data(&mut header, path, body),
            link => archive.append_link(&mut header, path, link),
        }
    };
    put("tree/", tar::EntryType::Directory, 0o750, "", b"")?;
    put("tree/file", tar::EntryType::Regular, 0o640, "", b"content")?;
    put("tree/link", tar::EntryType::Symlink, 0o777, "file", b"")?;
    put("tree/tool", tar::EntryType::Regular, 0o4755, "", b"#!")?;
    put("tree/sub/", tar::EntryType::Directory, 0o700, "", b"")?;
    put("tree/sub/.wh.name", tar::EntryType::Regular, 0o600, "", b"no whiteout")?;
    Ok(archive.into_inner()?)
}

async fn there_and_back(container: &Container, top: &str, owner: u64) -> Check {
    let sent = tree_at(top, owner)?;
    container
        .copy_in("/tmp", stream_of(sent.clone()), CopyInOptions::new())
        .await?;
    let back = container.copy_out(&format!("/tmp/{top}")).await?;
    assert!(
        back.stat.is_dir() && back.stat.name == top && back.stat.mode & 0o777 == 0o750,
        "{:?}",
        back.stat
    );
    assert_eq!(entries(&bytes_of(back.archive).await?)?, entries(&sent)?);
    let stat = container.stat_path(&format!("/tmp/{top}/file")).await?;
    assert_eq!((stat.name.as_str(), stat.size, stat.mode & 0o777), ("file", 7, 0o640));
    let link = container.stat_path(&format!("/tmp/{top}/link")).await?;
    assert_eq!(link.link_target, Some(format!("/tmp/{top}/file")));
    let one = entries(&bytes_of(container.copy_out(&format!("/tmp/{top}/file")).await?.archive).await?)?;
    assert_eq!(one.keys().collect::<Vec<_>>(), ["file"]);
    Ok(())
}

async fn g6_a_round_trip_in_every_state() -> Check {
    let world = World::new().await?;
    let owner = if world.ownership().await? == "squashed" {
        0
    } else {
        1234
    };
    let script = "cat /tmp/tree/file > /root/part 2>/dev/null; mv /root/part /root/seen; sleep 1000";
    let container = world.engine.create(world.script(script)).await?;
    there_and_back(&container, "tree", owner).await?;
    container.start().await?;
    while container.stat_path("/root/seen").await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    there_and_back(&container, "tree2", owner).await?;
    if container.pause().await.is_ok() {
        there_and_back(&container, "tree3", owner).await?;
        container.unpause().await?;
    }
    container.kill(longshore::Signal::KILL).await?;
    container.wait().await?;
    there_and_back(&container, "tree4", owner).await?;
    let seen = entries(&bytes_of(container.copy_out("/root/seen").await?.archive).await?)?;
    assert!(
        seen["seen"].ends_with("content"),
        "it was there before the first process: {seen:?}"
    );
    // What is copied in is a change as any other.
    let changed = container.diff().await?;
    assert!(
        changed.iter().any(|change| change.path.ends_with("tmp/tree/sub")),
        "{changed:?}"
    );
    container.start().await?;
    container.remove(FORCE).await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

async fn g6_links_stay_inside_the_container() -> Check {
    let world = World::new().await?;
    let work = "mkdir /in && ln -s /in /absolute && ln -s ../../../../../../etc /up && ln -s /proc/self/root /magic && \
                echo inside > /etc/passwd && ln -s loop /loop && sleep 1000";
    let container = world.started(world.script(work)).await?;
    while container.stat_path("/loop").await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        container
            .copy_in("/absolute", stream_of(tree(0)?), CopyInOptions::new())
            .await?;
        assert!(
            container.stat_path("/in/tree/file").await.is_ok(),
            "the link was followed inside"
        );
        let passwd = entries(&bytes_of(container.copy_out("/up/passwd").await?.archive).await?)?;
        assert!(passwd["passwd"].ends_with("inside\n"), "{passwd:?}");
        for nowhere in ["/loop/", "/magic/etc/hostname/x", "/absolute/none", "/in/tree/file/x"] {
            let refused = container.copy_out(nowhere).await.expect_err(nowhere);
            assert!(refused.is_not_found(), "{nowhere}: {}", refused.report());
        }
        // An archive that tries to leave, by its names or by links that it makes.
        let mut bad = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        bad.append_link(&mut header, "way", "/../../../../tmp")?;
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        bad.append_data(&mut header, "way/escaped-from-a-container", &b"x"[..])?;
        container
            .copy_in("/in", stream_of(bad.into_inner()?), CopyInOptions::new())
            .await?;
        assert!(container.stat_path("/tmp/escaped-from-a-container").await.is_ok());
        assert!(!std::path::Path::new("/tmp/escaped-from-a-container").exists());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        let name = b"../../escaped";
        header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        let mut bad = tar::Builder::new(Vec::new());
        bad.append(&header, &b"x"[..])?;
        let refused = container
            .copy_in("/in", stream_of(bad.into_inner()?), CopyInOptions::new())
            .await;
        assert_eq!(refused.expect_err("it leaves").kind(), &ErrorKind::UnsafeArchive);
        container
            .stop(longshore::StopOptions {
                signal: None,
                timeout: Some(std::time::Duration::ZERO),
            })
            .await?;
    }
    container.remove(FORCE).await?;
    Ok(())
}

async fn g6_what_is_mounted_is_there() -> Check {
    let world = World::alone().await?;
    let spec = world
        .script("sleep 1000")
        .volume("data", "/data")
        .mount(MountSpec::volume("fixed", "/fixed").read_only())
        .tmpfs("/memory", Tmpfs::default());
    let container = world.engine.create(spec).await?;
    for _ in 0..2 {
        container
            .copy_in("/data", stream_of(tree(0)?), CopyInOptions::new())
            .await?;
        let refused = container
            .copy_in("/fixed", stream_of(tree(0)?), CopyInOptions::new())
            .await;
        assert_eq!(refused.expect_err("it is read-only").kind(), &ErrorKind::ReadOnly);
        let all = entries(&bytes_of(container.copy_out("/data").await?.archive).await?)?;
        assert!(all.contains_key("data/tree/file"), "{all:?}");
        container.start().await?;
    }
    container.remove(FORCE).await?;
    let place = world
        .engine
        .volume("data")
        .await?
        .inspect()
        .await?
        .mountpoint
        .expect("a directory");
    assert_eq!(std::fs::read_to_string(place.join("tree/file"))?, "content");
    let mut read_only = world.script("sleep 1000");
    read_only.read_only = true;
    let container = world.engine.create(read_only).await?;
    let refused = container
        .copy_in("/tmp", stream_of(tree(0)?), CopyInOptions::new())
        .await;
    assert_eq!(refused.expect_err("it is read-only").kind(), &ErrorKind::ReadOnly);
    container.remove(FORCE).await?;
    Ok(())
}

async fn g6_what_cannot_be() -> Check {
    let world = World::new().await?;
    let container = world.engine.create(world.spec()).await?;
    let file = container
        .copy_in("/etc/passwd", stream_of(tree(0)?), CopyInOptions::new())
        .await;
    assert_eq!(file.expect_err("it is a file").kind(), &ErrorKind::InvalidArgument);
    let missing = container
        .copy_in("/nope", stream_of(tree(0)?), CopyInOptions::new())
        .await;
    assert!(missing.expect_err("it is not there").is_not_found());
    container
        .copy_in("/tmp", stream_of(tree(0)?), CopyInOptions::new())
        .await?;
    let mut over = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    over.append_data(&mut header, "tree", &b"x"[..])?;
    let over = over.into_inner()?;
    let kept = container
        .copy_in("/tmp", stream_of(over.clone()), CopyInOptions::new().keep_kinds(true))
        .await;
    assert_eq!(
        kept.expect_err("a directory is there").kind(),
        &ErrorKind::InvalidArgument
    );
    container.copy_in("/tmp", stream_of(over), CopyInOptions::new()).await?;
    assert!(!container.stat_path("/tmp/tree").await?.is_dir());
    let cut = tree(0)?[..700].to_vec();
    let refused = container.copy_in("/tmp", stream_of(cut), CopyInOptions::new()).await;
    assert_eq!(refused.expect_err("it is cut short").kind(), &ErrorKind::UnsafeArchive);
    container.remove(FORCE).await?;
    assert!(container.stat_path("/").await.expect_err("it is gone").is_not_found());
    Ok(())
}

async fn g6_a_container_with_ids_of_its_own() -> Check {
    let root = TempRoot::new();
    let ids = longshore::types::IdRange::new(0, 100_000, 65_536);
    let engine = Engine::builder(root.path()).container_ids(ids).open().await?;
    let image = engine.pull(source(image::shared()?)).await?;
    let mut spec = longshore::ContainerSpec::image(image.id().to_string()).command(["sleep", "1000"]);
    spec.user_namespace = true;
    let container = engine.create(spec).await?;
    if let Err(error) = container.start().await {
        container.remove(FORCE).await?;
        return crate::frame::skip(error.report());
    }
    let owner = if container.inspect().await?.ownership == "squashed" {
        0
    } else {
        1234
    };
    there_and_back(&container, "tree5", owner).await?;
    container
        .stop(longshore::StopOptions {
            signal: None,
            timeout: Some(std::time::Duration::ZERO),
        })
        .await?;
    there_and_back(&container, "tree6", owner).await?;
    container.remove(FORCE).await?;
    Ok(())
}

async fn g6_directories_and_their_content() -> Check {
    let world = World::new().await?;
    let container = world.engine.create(world.spec().user("app")).await?;
    container
        .copy_in("/tmp", stream_of(tree(0)?), CopyInOptions::new().own_by_user(true))
        .await?;
    let content = entries(&bytes_of(container.copy_out("/tmp/tree/.").await?.archive).await?)?;
    let names: Vec<_> = content
        .keys()
        .map(|name| name.trim_start_matches("./").to_owned())
        .collect();
    assert!(
        names.contains(&"file".to_owned()) && names.contains(&"sub/.wh.name".to_owned()),
        "{names:?}"
    );
    if world.ownership().await? != "squashed" {
        assert!(content.values().any(|looks| looks.contains("1234:1234")), "{content:?}");
    }
    let all = container.copy_out("/").await?;
    assert_eq!(all.stat.name, "/");
    drop(all);
    container.remove(FORCE).await?;
    Ok(())
}

/// A container that makes a directory a link out of it, again and again, while files are copied in and out of it.
async fn g6_what_is_swapped_meanwhile_leads_nowhere_else() -> Check {
    let world = World::new().await?;
    let outside = crate::support::scratch::fresh("outside");
    std::fs::write(outside.path().join("victim"), "of the host")?;
    let place = outside.path().display().to_string();
    let swap = format!(
        "mkdir -p /tmp/real /tmp/kept && echo inside > /tmp/real/victim && ln -s {place} /tmp/kept/abs && ln -s ../../../..{place} /tmp/kept/up; \
         cd /tmp; while true; do for l in abs up; do mv real kept/real; mv kept/$l real; mv real kept/$l; mv kept/real real; done; done"
    );
    let container = world.started(world.script(&swap)).await?;
    while container.stat_path("/tmp/real/victim").await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    archive.append_data(&mut header, "victim", &b"evil"[..])?;
    let evil = archive.into_inner()?;
    let (mut inward, mut outward) = (0, 0);
    for _ in 0..60 {
        let copied = container
            .copy_in("/tmp/real", stream_of(evil.clone()), CopyInOptions::new())
            .await;
        inward += usize::from(copied.is_ok());
        if let Ok(out) = container.copy_out("/tmp/real/victim").await
            && let Ok(bytes) = bytes_of(out.archive).await
        {
            outward += 1;
            let host = b"of the host";
            assert!(
                !bytes.windows(host.len()).any(|part| part == host),
                "a file of the host came out"
            );
        }
        assert_eq!(std::fs::read_to_string(outside.path().join("victim"))?, "of the host");
        assert_eq!(crate::support::names_in(outside.path()), ["victim"]);
    }
    println!("{inward} went in and {outward} came out");
    container.remove(FORCE).await?;
    Ok(())
}

/// Modes that the umask keeps a file from being made with are set afterwards: not by a name, which may be a link by then.
async fn g6_a_node_that_is_swapped_changes_no_mode_outside() -> Check {
    let world = World::new().await?;
    let outside = scratch::fresh("outside");
    let victim = outside.path().join("victim");
    fs::write(&victim, "of the host")?;
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600))?;
    let swap = format!(
        "mkdir /in && cd /in && touch begun && while true; do ln -s {} link; mv -f link node; done",
        victim.display()
    );
    let container = world.started(world.script(&swap)).await?;
    until("it swaps", async || Ok(container.stat_path("/in/begun").await.is_ok())).await?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Fifo);
    header.set_size(0);
    header.set_mode(0o666);
    archive.append_data(&mut header, "node", &[][..])?;
    let fifo = archive.into_inner()?;
    let mut inward = 0;
    for _ in 0..200 {
        let copied = container.copy_in("/in", stream_of(fifo.clone()), CopyInOptions::new());
        inward += usize::from(copied.await.is_ok());
        assert_eq!(fs::metadata(&victim)?.mode() & 0o7777, 0o600);
    }
    println!("{inward} went in");
    container.remove(FORCE).await?;
    Ok(())
}

async fn a9_a_dropped_copy_leaves_the_container_free() -> Check {
    let world = World::new().await?;
    let container = world.engine.create(world.script("sleep 1000")).await?;
    drop(container.copy_out("/bin").await?);
    let endless: ByteStream = Box::pin(stream::pending());
    let copying = container.copy_in("/tmp", endless, CopyInOptions::new());
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(300), copying)
            .await
            .is_err()
    );
    tokio::time::timeout(std::time::Duration::from_secs(10), container.start()).await??;
    container.remove(FORCE).await?;
    assert!(world.engine.audit().await?.is_clean());
    Ok(())
}

/// A bind that belongs to the container's user takes copies as it takes what the container writes: outside they are the
/// caller's.
async fn j7_copies_into_a_directory_of_the_callers() -> Check {
    if let Err(why) = fuse_is_ours() {
        return skip(why);
    }
    let world = World::new().await?;
    let dir = scratch::fresh("given");
    fs::create_dir(dir.path().join("d"))?;
    std::os::unix::fs::symlink("/etc", dir.path().join("out"))?;
    let bind = || MountSpec::bind(dir.path(), "/src").map_to_container_user();
    let spec = world.script("sleep 1000").user("999:999").mount(bind());
    let container = world.started(spec).await?;
    let own = nix::unistd::geteuid().as_raw();
    for (state, place) in [("running", "/src/d"), ("stopped", "/src")] {
        if state == "stopped" {
            container.kill(longshore::types::Signal::KILL).await?;
            container.wait().await?;
        }
        let copied = container
            .copy_in(place, stream_of(tree_at(state, 999)?), CopyInOptions::new())
            .await;
        if let Err(error) = copied {
            return fail(format!("{state}: {}", error.report()));
        }
        let top = dir
            .path()
            .join(place.trim_start_matches("/src").trim_start_matches('/'))
            .join(state);
        for path in [top.clone(), top.join("file")] {
            assert_eq!(fs::symlink_metadata(&path)?.uid(), own, "{}", path.display());
        }
        let back = container.copy_out(&format!("{place}/{state}")).await?;
        let back = entries(&bytes_of(back.archive).await?)?;
        let file = &back[&format!("{state}/file")];
        assert!(file.contains(" 640 999:999 "), "{state}: {file}");
        assert!(container.stat_path(place).await?.is_dir(), "{state}");
        let all = container.copy_out("/src").await?;
        assert!(entries(&bytes_of(all.archive).await?)?.contains_key("src/d"), "{state}");
    }
    let looked = world
        .script("stat -c %u /src/d/running/file")
        .user("999:999")
        .mount(bind());
    assert_eq!(world.says(looked).await?, "999", "its own in the container");
    container.remove(FORCE).await?;
    Ok(())
}

/// What leads into such a directory in another way is refused where this process may not go, and writes nothing anywhere.
async fn j7_copies_that_cannot_get_there_say_so() -> Check {
    if let Err(why) = fuse_is_ours() {
        return skip(why);
    }
    let world = World::new().await?;
    if world.ownership().await? != "mapped" {
        return skip("only an engine that serves directories itself may not go there");
    }
    let dir = scratch::fresh("given");
    std::os::unix::fs::symlink("/etc", dir.path().join("out"))?;
    let bind = |target: &str| MountSpec::bind(dir.path(), target).map_to_container_user();
    let spec = world
        .script("sleep 1000")
        .user("999:999")
        .mount(bind("/src"))
        .mount(bind("/kept").read_only());
    let container = world.started(spec).await?;
    let copy = async |place: &str, top: &str| {
        let copied = container.copy_in(place, stream_of(tree_at(top, 0)?), CopyInOptions::new());
        Ok::<_, Stop>(copied.await.expect_err("it cannot be"))
    };
    let across = copy("/", "src").await?;
    assert!(
        matches!(across.kind(), ErrorKind::Unsupported { .. }),
        "{}",
        across.report()
    );
    assert_eq!(copy("/kept", "x").await?.kind(), &ErrorKind::ReadOnly);
    let through = copy("/src/out", "x").await?;
    assert_eq!(through.kind(), &ErrorKind::InvalidArgument, "{}", through.report());
    assert!(copy("/src/nope", "x").await?.is_not_found());
    assert_eq!(fs::read_dir(dir.path())?.count(), 1, "nothing was written");
    container.remove(FORCE).await?;
    Ok(())
}
