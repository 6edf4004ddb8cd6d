//! The records and locks with several processes: children are this test binary again, told by a variable what to be.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;
use crate::events::{Event, EventKind, History as _};
use crate::types::{ContainerId, Descriptor, Digest, MediaType, Outcome, OwnerId, Platform, Reference};

const ROLE: &str = "LONGSHORE_TEST_STORE_ROLE";
const ROOT: &str = "LONGSHORE_TEST_STORE_ROOT";

fn root() -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(&dir.path().join("root")).unwrap();
    (dir, root)
}

fn row(name: &str, owner: Option<&OwnerId>) -> ContainerRow {
    ContainerRow {
        id: ContainerId::random(),
        name: name.parse().unwrap(),
        owner: owner.cloned(),
        state: "created".into(),
        created_ns: crate::events::now_ns(),
        body: "{}".into(),
    }
}

fn descriptor(text: &str) -> Descriptor {
    Descriptor {
        media_type: MediaType("x/y".into()),
        digest: Digest::of(text.as_bytes()),
        size: text.len() as u64,
        platform: None,
        annotations: Default::default(),
    }
}

fn image(name: &str) -> ImageRecord {
    let layer = |n: &str| LayerRecord {
        descriptor: descriptor(&format!("{n}.gz")),
        diff_id: Digest::of(n.as_bytes()),
    };
    ImageRecord {
        id: Digest::of(name.as_bytes()),
        manifest: descriptor(&format!("{name} manifest")),
        config: descriptor(name),
        layers: vec![layer("base"), layer(name)],
        platform: Platform::host(),
        created: None,
        size: 7,
        pulled_at_ns: 1,
        lent_by: None,
    }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn spawn(role: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::child", "--nocapture"])
        .env(ROLE, role)
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a child says after a mark, so that the test harness's own lines do not disturb.
fn words(child: Child) -> Vec<String> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split_once("child says ").map(|(_, word)| word.to_owned()))
        .collect()
}

#[allow(clippy::print_stdout, reason = "a child process talks to its test")]
fn say(word: &str) {
    println!("\nchild says {word}");
}

/// Not a test: what the children do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let path = std::path::PathBuf::from(std::env::var_os(ROOT).unwrap());
    let root = Root::open(&path).unwrap();
    match role.as_str() {
        "open" => {
            let store = Store::open(&root).unwrap();
            let owner = root.owners().register().unwrap();
            let inserted =
                store.insert_container(&row(&format!("c-{}", owner.id().short()), Some(owner.id())), None, None);
            assert_eq!(inserted.unwrap(), Insert::Done);
            say("opened");
        }
        "race" => {
            let store = Store::open(&root).unwrap();
            let owner = root.owners().register().unwrap();
            let detached = std::process::id().is_multiple_of(2);
            let row = row("the-name", (!detached).then_some(owner.id()));
            match store.insert_container(&row, None, None) {
                Ok(Insert::Done) => {
                    say("won");
                    std::thread::sleep(Duration::from_secs(60));
                }
                Ok(Insert::Taken { .. }) => say("taken"),
                Err(error) => say(error.kind().as_str()),
            }
        }
        "commit" => {
            let store = Store::open(&root).unwrap();
            for n in 0.. {
                let event = Event::now(EventKind::Container, "create", n.to_string());
                let _ = store
                    .insert_container(&row(&format!("d-{}-{n}", std::process::id()), None), None, Some(&event))
                    .unwrap();
                store
                    .put_image(&image(&format!("i-{}-{n}", std::process::id())), &[])
                    .unwrap();
                if n == 3 {
                    say("going");
                }
            }
        }
        "own" => {
            let owner = root.owners().register().unwrap();
            // Somebody else keeps the lock: a program that knows nothing of it, on its stdin.
            let lock = Stdio::from(owner.dup_lock().unwrap());
            #[expect(clippy::zombie_processes, reason = "the parent of this role reaps it")]
            let keeper = Command::new("sleep")
                .arg("60")
                .stdin(lock)
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            say(&format!("{} {}", owner.id(), keeper.id()));
        }
        other => panic!("unknown role {other}"),
    }
}

fn wait_for_word(child: &mut Child) -> String {
    // The pipe stays open: the child's test harness prints its own lines to the end.
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    loop {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, word)) = line.split_once("child says ") {
            return word.to_owned();
        }
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn root_is_made_private_and_reopens() {
    let (dir, root) = root();
    assert_eq!(fs::metadata(root.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(root.content().is_dir() && root.snapshots().is_dir() && root.containers().is_dir());
    let deep = Root::open(&dir.path().join("a/b/c")).unwrap();
    Root::open(deep.path()).unwrap();
    root.recorded_backend("snapshotter", "overlayfs").unwrap();
    root.recorded_backend("snapshotter", "overlayfs").unwrap();
    let error = root.recorded_backend("snapshotter", "vfs").unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("overlayfs") && error.to_string().contains("vfs"),
        "{error}"
    );
}

fn refused(path: &Path) -> ErrorKind {
    Root::open(path).unwrap_err().kind().clone()
}

#[test]
fn root_refuses_what_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(refused(&file), ErrorKind::InvalidArgument);
    assert_eq!(refused(&file.join("below")), ErrorKind::InvalidArgument);
    assert_eq!(refused(dir.path()), ErrorKind::InvalidArgument);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was put into a foreign directory"
    );
    let root = Root::open(&dir.path().join("root")).unwrap();
    let version = root.path().join("version");
    let good = fs::read_to_string(&version).unwrap();
    fs::write(&version, good.replace("version 1", "version 2")).unwrap();
    assert_eq!(refused(root.path()), ErrorKind::NewerVersion);
    fs::write(&version, "nonsense").unwrap();
    assert_eq!(refused(root.path()), ErrorKind::Corrupt);
    fs::write(
        &version,
        good.lines().take(2).collect::<Vec<_>>().join("\n") + "\nuid 4242\n",
    )
    .unwrap();
    let error = Root::open(root.path()).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied);
    assert!(error.to_string().contains("4242"), "{error}");
}

#[test]
fn another_user_s_root_and_network_file_systems_are_refused() {
    let root_user = nix::unistd::geteuid().is_root();
    let other = if root_user { 4242 } else { 0 };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    if root_user {
        Root::open(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(other), None).unwrap();
        assert_eq!(refused(&path), ErrorKind::Denied);
    } else {
        assert_eq!(refused(Path::new("/")), ErrorKind::Denied);
        Root::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
        assert_eq!(refused(&path), ErrorKind::ReadOnly);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    for magic in [0x6969, 0xff53_4d42, 0x0102_1997, 0x6573_5546] {
        assert!(layout::refuse_magic(magic, &path).unwrap_err().is_unsupported());
    }
    assert!(layout::refuse_magic(0xef53, &path).is_ok());
}

/// What comes of it in a while: a process that another test's thread is just starting has, for a moment, the lock of an owner that
/// went.
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn owners_live_as_long_as_somebody_holds_the_lock() {
    let (_dir, root) = root();
    let owners = root.owners();
    let alive: Vec<Owner> = (0..64).map(|_| owners.register().unwrap()).collect();
    assert!(owners.dead().unwrap().is_empty());
    assert!(owners.try_take(alive[0].id()).unwrap().is_none());
    let mut child = spawn("own", root.path());
    let word = wait_for_word(&mut child);
    child.wait().unwrap();
    let (id, keeper) = word.split_once(' ').unwrap();
    let id: OwnerId = id.parse().unwrap();
    assert!(
        owners.is_alive(&id).unwrap(),
        "the keeper holds the lock of the process that has ended"
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(keeper.parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    soon("the end of the keeper", || {
        (!owners.is_alive(&id).unwrap()).then_some(())
    });
    assert_eq!(owners.dead().unwrap(), [id.clone()]);
    let dead = owners.try_take(&id).unwrap().unwrap();
    assert!(owners.try_take(&id).unwrap().is_none(), "one sweeper at a time");
    owners.forget(dead).unwrap();
    assert!(owners.try_take(&id).unwrap().is_none());
    assert!(!owners.is_alive(&id).unwrap());
    owners.tidy().unwrap();
    assert_eq!(owners.list().unwrap().len(), alive.len());
}

#[tokio::test]
async fn locks_exclude_across_handles_and_keys_cannot_escape() {
    let (_dir, root) = root();
    let (here, there) = (root.locks(), root.locks());
    for key in ["pull", "../../x", "", &"k".repeat(500)] {
        let guard = here.lock(key).await.unwrap();
        assert!(here.try_lock(key).unwrap().is_none());
        assert!(there.try_lock(key).unwrap().is_none());
        assert!(
            tokio::time::timeout(Duration::from_millis(30), there.lock(key))
                .await
                .is_err()
        );
        drop(guard);
        drop(there.lock(key).await.unwrap());
    }
    assert_eq!(fs::read_dir(root.path().join("locks")).unwrap().count(), 0);
}

#[test]
fn locks_exclude_many_threads() {
    let (_dir, root) = root();
    let inside = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let locks = root.locks();
                for _ in 0..100 {
                    let _guard = locks.lock_blocking("one").unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn images_and_names() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let (old, new) = (image("old"), image("new"));
    store.put_image(&old, &[name("busybox:1")]).unwrap();
    store
        .put_image(&new, &[name("busybox:1"), name("busybox").pinned(&new.manifest.digest)])
        .unwrap();
    assert_eq!(store.image_by_name(&name("busybox:1")).unwrap().unwrap(), new);
    let entries = store.images().unwrap();
    let dangling = entries.iter().find(|entry| entry.record == old).unwrap();
    assert!(dangling.tags.is_empty() && dangling.digests.is_empty());
    let named = entries.iter().find(|entry| entry.record == new).unwrap();
    assert_eq!((named.tags.len(), named.digests.len()), (1, 1));
    assert_eq!(store.images_by_prefix(&new.id.short()).unwrap(), [new.clone()]);
    assert!(store.images_by_prefix("%' OR 1").unwrap().is_empty());
    assert_eq!(store.tag(&name("other"), &old.id).unwrap(), Outcome::Done);
    assert_eq!(store.tag(&name("other"), &old.id).unwrap(), Outcome::Already);
    assert!(
        store
            .tag(&name("other"), &Digest::of(b"nothing"))
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(store.untag(&name("other")).unwrap(), Outcome::Done);
    assert_eq!(store.untag(&name("other")).unwrap(), Outcome::Already);
    let freed = store.delete_image(&old.id).unwrap();
    assert!(store.delete_image(&old.id).unwrap_err().is_not_found());
    let gone = store.remove_unreferenced(&freed, |_| Ok(())).unwrap();
    assert!(
        !gone.contains(&Node::blob(&Digest::of(b"base.gz"))),
        "the other image needs the base layer"
    );
    assert!(gone.contains(&Node::blob(&Digest::of(b"old.gz"))));
    assert_eq!(gone.len(), 4, "manifest, config, own layer, own snapshot: {gone:?}");
}

#[test]
fn d7_a_name_stands_for_the_platforms_of_one_index() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let on = |platform: &str, text: &str| {
        let mut image = image(text);
        image.platform = platform.parse().unwrap();
        image
    };
    let sign = |platform: &str, top: &str| Sign {
        platform: platform.parse().unwrap(),
        top: Digest::of(top.as_bytes()),
    };
    let host = Platform::host().to_string();
    let (first, second) = (on("linux/mips", "first"), on(&host, "second"));
    let app = name("app:1");
    for (image, platform) in [(&first, "linux/mips"), (&second, host.as_str())] {
        store
            .put_image_as(image, &[(app.clone(), sign(platform, "index"))])
            .unwrap();
    }
    let ids = |name: &Reference| -> Vec<_> {
        let all = store.images_by_name(name).unwrap();
        all.into_iter().map(|one| one.record.id).collect()
    };
    assert_eq!(ids(&app), [second.id, first.id], "the host's first");
    // The name holds the index; a copy of the name does, too.
    let index = Node::blob(&Digest::of(b"index"));
    let copy = name("copy:1");
    assert_eq!(store.tag_like(&copy, &app).unwrap().0, Outcome::Done);
    assert_eq!(store.tag_like(&copy, &app).unwrap().0, Outcome::Already);
    assert_eq!(store.holders(&index).unwrap(), [Node::name(&app), Node::name(&copy)]);
    // Another index takes the place of the first, on all platforms.
    let newer = on("linux/mips", "newer");
    let freed = store
        .put_image_as(&newer, &[(app.clone(), sign("linux/mips", "another"))])
        .unwrap();
    assert_eq!(freed, [index.clone()]);
    assert_eq!(ids(&app), [newer.id]);
    // One platform goes, then the other, then the index.
    assert_eq!(
        store.untag_from(&copy, Some(&first.id)).unwrap(),
        (Outcome::Done, Vec::new())
    );
    assert_eq!(ids(&copy), [second.id]);
    let freed = store.delete_image(&second.id).unwrap();
    assert!(freed.contains(&index) && ids(&copy).is_empty());
    assert!(store.holders(&index).unwrap().is_empty());
    assert!(store.unreferenced(&freed).unwrap().contains(&index));
}

#[test]
fn names_of_the_first_version_are_taken_over() {
    let (_dir, root) = root();
    let record = image("old");
    let old = rusqlite::Connection::open(root.store_db()).unwrap();
    old.pragma_update(None, "journal_mode", "wal").unwrap();
    old.execute_batch(include_str!("db/migrations/store/0001_init.sql"))
        .unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let body = serde_json::to_string(&record).unwrap();
    let id = record.id.to_string();
    old.execute("INSERT INTO images VALUES (?1, ?2)", [&id, &body]).unwrap();
    let app = name("app:1");
    old.execute("INSERT INTO image_names VALUES (?1, ?2, 0)", [&app.to_string(), &id])
        .unwrap();
    old.close().unwrap();
    let store = Store::open(&root).unwrap();
    let [found] = &store.images_by_name(&app).unwrap()[..] else {
        panic!("one image")
    };
    assert_eq!((&found.record, &found.sign), (&record, &Sign::of(&record)));
    assert_eq!(store.tag(&app, &record.id).unwrap(), Outcome::Already);
}

#[test]
fn an_image_in_use_stays() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let owner = root.owners().register().unwrap();
    let used = image("used");
    store.put_image(&used, &[]).unwrap();
    for owner in [Some(owner.id()), None] {
        let row = row("user", owner);
        assert_eq!(
            store.insert_container(&row, Some(&used.id), None).unwrap(),
            Insert::Done
        );
        assert_eq!(
            store.holders(&Node::image(&used.id)).unwrap(),
            [Node::container(&row.id)]
        );
        assert!(store.delete_image(&used.id).unwrap_err().is_conflict());
        // Pulling it again keeps the edge.
        store.put_image(&used, &[]).unwrap();
        assert_eq!(store.delete_container(&row.id, &[]).unwrap(), Outcome::Done);
        assert_eq!(store.delete_container(&row.id, &[]).unwrap(), Outcome::Already);
    }
    store.delete_image(&used.id).unwrap();
    assert!(
        store
            .insert_container(&row("late", None), Some(&used.id), None)
            .unwrap_err()
            .is_not_found()
    );
    assert!(store.containers().unwrap().is_empty(), "a refused row leaves nothing");
}

#[test]
fn leases_protect_while_their_owner_lives() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let owner = root.owners().register().unwrap();
    let blob = [Node::blob(&Digest::of(b"blob"))];
    let lease = store.lease(owner.id()).unwrap();
    lease.add(&blob).unwrap();
    assert!(store.unreferenced(&blob).unwrap().is_empty());
    lease.release().unwrap();
    assert_eq!(store.unreferenced(&blob).unwrap(), blob);
    let lease = store.lease(owner.id()).unwrap();
    lease.add(&blob).unwrap();
    drop(lease);
    store.record_event(&Event::now(EventKind::Image, "pull", "x")).unwrap();
    assert_eq!(
        store.unreferenced(&blob).unwrap(),
        blob,
        "a dropped lease goes with the next write"
    );
    store.lease(owner.id()).unwrap().add(&blob).unwrap();
    let lease = store.lease(owner.id()).unwrap();
    lease.add(&blob).unwrap();
    drop(owner);
    soon("a dead owner's lease is void", || {
        (store.unreferenced(&blob).unwrap() == blob).then_some(())
    });
}

#[test]
fn p39_an_event_that_may_have_been_told_is_told_once() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let event = |action: &str, id: &str, time| Event::now(EventKind::Container, action, id).at(time);
    let all = [
        event("die", "a", 7),
        event("die", "a", 8),
        event("start", "a", 7),
        event("die", "b", 7),
    ];
    for event in all.iter().chain(&all) {
        store.record_event_once(event).unwrap();
    }
    assert_eq!(store.newest().unwrap(), 4);
    let told: Vec<Event> = store
        .after(0, 100)
        .unwrap()
        .into_iter()
        .map(|(_, event)| event)
        .collect();
    assert_eq!(told, all);
    let counted = |id, action, after| store.count_events(id, action, after).unwrap();
    assert_eq!(
        (counted("a", "die", 6), counted("a", "die", 7), counted("a", "die", 8)),
        (2, 1, 0)
    );
    assert_eq!(
        (counted("a", "", 0), counted("a", "di%", 0), counted("c", "die", 0)),
        (3, 0, 0)
    );
}

#[test]
fn containers_change_state_once() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let owner = root.owners().register().unwrap();
    for owner in [Some(owner.id()), None] {
        let row = row("web", owner);
        let _ = store
            .insert_container(
                &row,
                None,
                Some(&Event::now(EventKind::Container, "create", row.id.as_str())),
            )
            .unwrap();
        let before = store.newest().unwrap();
        let start = Event::now(EventKind::Container, "start", row.id.as_str());
        assert!(
            store
                .update_container(&row.id, "created", "running", "{\"a\":1}", std::slice::from_ref(&start))
                .unwrap()
        );
        assert!(
            !store
                .update_container(&row.id, "created", "running", "{}", std::slice::from_ref(&start))
                .unwrap()
        );
        assert_eq!(store.newest().unwrap(), before + 1, "a lost race tells of no event");
        let now = store.container_by_name(&row.name).unwrap().unwrap();
        assert_eq!((now.state.as_str(), now.body.as_str()), ("running", "{\"a\":1}"));
        assert_eq!(store.containers_by_prefix(row.id.short()).unwrap(), [now]);
        assert_eq!(
            store.rename_container(&row.id, &"db-1".parse().unwrap(), None).unwrap(),
            Outcome::Done
        );
        assert_eq!(store.containers_of(&OwnerId::random()).unwrap(), []);
        assert_eq!(
            store.containers_of(owner.unwrap_or(&OwnerId::random())).unwrap().len(),
            usize::from(owner.is_some())
        );
        store.delete_container(&row.id, &[]).unwrap();
    }
}

/// A container that has become detached takes along what it holds, whoever is killed on the way.
#[test]
fn g16_a_promoted_container_s_row_is_one_that_stays() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let owner = root.owners().register().unwrap();
    let record = image("a");
    store.put_image(&record, &[name("a")]).unwrap();
    let bound = row("web", Some(owner.id()));
    let volume = VolumeRow {
        name: "data".parse().unwrap(),
        owner: Some(owner.id().clone()),
        created_ns: 7,
        body: "{}".into(),
    };
    let uses = Uses {
        fresh: vec![volume.clone()],
        ..Uses::default()
    };
    let inserted = store.insert_container_with(&bound, Some(&record.id), &uses, None);
    assert_eq!(inserted.unwrap(), Insert::Done);
    let next = ContainerRow {
        owner: None,
        body: "{\"next\":1}".into(),
        ..bound.clone()
    };
    // Twice: as after a kill between both databases, whose bound row is read first.
    for _ in 0..2 {
        store.promote_container(&next, None).unwrap();
        assert_eq!(store.container(&bound.id).unwrap(), Some(next.clone()));
        assert_eq!(store.containers().unwrap(), [next.clone()]);
        assert_eq!(store.containers_of(owner.id()).unwrap(), []);
        assert_eq!(store.detached_containers().unwrap(), [next.clone()]);
        let kept = VolumeRow {
            owner: None,
            ..volume.clone()
        };
        assert_eq!(store.volumes().unwrap(), [kept]);
        assert_eq!(store.volumes_of(owner.id()).unwrap(), []);
        let holder = Node::container(&bound.id);
        assert_eq!(store.holders(&Node::image(&record.id)).unwrap(), [holder.clone()]);
        assert_eq!(store.holders(&Node::volume(&volume.name)).unwrap(), [holder]);
    }
    let renamed = ContainerRow {
        name: "other".parse().unwrap(),
        ..next.clone()
    };
    // What is there stays as it is.
    store.promote_container(&renamed, None).unwrap();
    assert_eq!(store.container(&bound.id).unwrap(), Some(next));
}

#[test]
fn a_dead_owner_s_name_is_told() {
    let (_dir, root) = root();
    let store = Store::open(&root).unwrap();
    let dead = root.owners().register().unwrap();
    let first = row("web", Some(dead.id()));
    assert_eq!(store.insert_container(&first, None, None).unwrap(), Insert::Done);
    let error = store.insert_container(&row("web", None), None, None).unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains(first.id.as_str()),
        "{error}"
    );
    drop(dead);
    let insert = soon("the name of a dead owner's container", || {
        store.insert_container(&row("web", None), None, None).ok()
    });
    assert_eq!(insert, Insert::Taken { by: first.clone() });
    store.delete_container(&first.id, &[]).unwrap();
    assert_eq!(
        store.insert_container(&row("web", None), None, None).unwrap(),
        Insert::Done
    );
}

#[test]
fn another_boot_drops_run_db_even_if_it_is_damaged() {
    let (_dir, root) = root();
    let owner = root.owners().register().unwrap();
    let store = Store::open(&root).unwrap();
    let _ = store
        .insert_container(&row("bound", Some(owner.id())), None, None)
        .unwrap();
    let _ = store.insert_container(&row("detached", None), None, None).unwrap();
    drop(store);
    fs::write(root.path().join("run.boot"), "another boot").unwrap();
    fs::write(root.run_db(), "torn by a power loss").unwrap();
    let rows = Store::open(&root).unwrap().containers().unwrap();
    assert_eq!(
        rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["detached"]
    );
}

#[test]
fn damaged_and_newer_databases_are_named() {
    let (_dir, root) = root();
    drop(Store::open(&root).unwrap());
    let newer = rusqlite::Connection::open(root.store_db()).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    newer.close().unwrap();
    let error = Store::open(&root).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::NewerVersion);
    fs::write(root.store_db(), vec![b'x'; 8192]).unwrap();
    let error = Store::open(&root).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    assert!(error.to_string().contains("store.db"), "{error}");
}

#[test]
fn a_used_root_without_its_records_is_refused_and_left_alone() {
    type Damage = fn(&Root);
    let damages: [(&str, Damage); 3] = [
        ("is empty", |root| fs::write(root.store_db(), "").unwrap()),
        ("is missing", |root| fs::remove_file(root.store_db()).unwrap()),
        ("lacks its tables", |root| {
            // What SQLite leaves of a database whose first commits were in a journal that somebody deleted.
            fs::remove_file(root.store_db()).unwrap();
            let shell = rusqlite::Connection::open(root.store_db()).unwrap();
            shell.pragma_update(None, "journal_mode", "wal").unwrap();
        }),
    ];
    for (what, damage) in damages {
        let (_dir, root) = root();
        drop(Store::open(&root).unwrap());
        root.recorded_backend("snapshotter", "vfs").unwrap();
        damage(&root);
        fs::write(root.path().join("store.db-wal"), "the last commits").unwrap();
        for _ in 0..2 {
            if what == "lacks its tables" {
                fs::remove_file(root.path().join("store.db-wal")).ok();
            }
            let error = Store::open(&root).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::Corrupt, "{what}");
            assert!(error.to_string().contains(what), "{error}");
        }
        if what != "lacks its tables" {
            let journal = fs::read_to_string(root.path().join("store.db-wal")).unwrap();
            assert_eq!(journal, "the last commits");
        }
    }
}

#[test]
fn a_root_whose_first_opening_was_cut_short_is_made_whole() {
    let (_dir, root) = root();
    fs::write(root.store_db(), "").unwrap();
    assert!(Store::open(&root).unwrap().images().unwrap().is_empty());
}

#[test]
fn many_processes_open_a_new_root_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    let children: Vec<Child> = (0..64).map(|_| spawn("open", &path)).collect();
    for child in children {
        assert_eq!(words(child), ["opened"]);
    }
    let root = Root::open(&path).unwrap();
    assert_eq!(Store::open(&root).unwrap().containers().unwrap().len(), 64);
    assert_eq!(root.owners().dead().unwrap().len(), 64);
}

#[test]
fn one_process_wins_a_name() {
    let (_dir, root) = root();
    let mut children: Vec<Child> = (0..8).map(|_| spawn("race", root.path())).collect();
    let said: Vec<String> = children.iter_mut().map(wait_for_word).collect();
    children.into_iter().for_each(kill);
    assert_eq!(said.iter().filter(|word| *word == "won").count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|word| *word == "conflict").count(), 7, "{said:?}");
}

#[test]
fn kill_9_in_a_loop_of_commits_leaves_whole_records() {
    let (_dir, root) = root();
    for round in 0..10 {
        let mut child = spawn("commit", root.path());
        wait_for_word(&mut child);
        std::thread::sleep(Duration::from_millis(round * 3));
        kill(child);
        let store = Store::open(&root).unwrap();
        assert!(store.containers().unwrap().len() >= 4);
        for entry in store.images().unwrap() {
            assert_eq!(
                store.targets(&Node::image(&entry.record.id)).unwrap().len(),
                entry.record.needs().len()
            );
        }
        let check = rusqlite::Connection::open(root.store_db()).unwrap();
        let verdict: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "figures for who looks")]
fn open_is_flat_in_records() {
    let (_dir, root) = root();
    for size in [0, 1000] {
        let store = Store::open(&root).unwrap();
        for n in 0..size {
            let row = row(&format!("c-{n}"), Some(&OwnerId::random()));
            let _ = store
                .insert_container(&row, None, Some(&Event::now(EventKind::Container, "create", "x")))
                .unwrap();
            store
                .put_image(&image(&format!("i-{n}")), &[name(&format!("i:{n}"))])
                .unwrap();
        }
        let mut kept = Some(store);
        for with_others in [true, false] {
            if !with_others {
                kept = None;
            }
            let opened = || Store::open(&Root::open(root.path()).unwrap()).unwrap();
            let mut times: Vec<(Duration, Duration)> = (0..20)
                .map(|_| {
                    let begin = Instant::now();
                    let store = opened();
                    let opened = begin.elapsed();
                    drop(store);
                    (opened, begin.elapsed() - opened)
                })
                .collect();
            times.sort();
            println!(
                "{size} records, others open {with_others}: (open, close) median {:?}, worst {:?}",
                times[10], times[19]
            );
        }
        drop(kept);
    }
    let store = Store::open(&root).unwrap();
    let owner = root.owners().register().unwrap();
    let mut times: Vec<Duration> = (0..200)
        .map(|n| {
            let row = row(&format!("t-{n}"), Some(owner.id()));
            let event = Event::now(EventKind::Container, "create", row.id.as_str());
            timed(|| drop(store.insert_container(&row, None, Some(&event)).unwrap()))
        })
        .collect();
    times.sort();
    println!(
        "insert of a bound container with its event: median {:?}, worst {:?}",
        times[100], times[199]
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// Threads with handles of their own, bound and detached mixed, while the image they need is being deleted.
#[test]
fn names_and_images_under_threads() {
    let (_dir, root) = root();
    let owner = root.owners().register().unwrap();
    let used = image("used");
    Store::open(&root).unwrap().put_image(&used, &[]).unwrap();
    let (won, deleted) = std::thread::scope(|scope| {
        let insert = |n: usize| {
            let store = Store::open(&root).unwrap();
            let row = row("one", n.is_multiple_of(2).then_some(owner.id()));
            store.insert_container(&row, Some(&used.id), None)
        };
        let inserts: Vec<_> = (0..8).map(|n| scope.spawn(move || insert(n))).collect();
        let delete = scope.spawn(|| Store::open(&root).unwrap().delete_image(&used.id).is_ok());
        let won = inserts
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(Result::is_ok)
            .count();
        (won, delete.join().unwrap())
    });
    let store = Store::open(&root).unwrap();
    assert_eq!(store.containers().unwrap().len(), won);
    assert_eq!(store.image(&used.id).unwrap().is_none(), deleted);
    assert_eq!(
        won,
        usize::from(!deleted),
        "either the image went, or one container has it"
    );
}
