//! The engine as a whole: what it says of itself, what happens, what it takes on disk.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use longshore::events::EventItem;
use longshore::{Engine, ErrorKind, EventQuery, Filter};

use crate::frame::{Check, fail, skip};
use crate::support::is_root;
use crate::support::world::{FORCE, World};
use crate::tests;

tests! { "system":
    kernel_async [
        k1_info_is_true,
        k1_disk_usage_is_what_du_says,
        events_are_told_across_engines_and_end_in_time,
    ]
}

async fn k1_info_is_true() -> Check {
    let world = World::new().await?;
    let created = world.engine.create(world.spec()).await?;
    let running = world.started(world.script("sleep 100")).await?;
    let info = world.engine.system().info().await?;
    assert_eq!((info.containers.running, info.containers.stopped), (1, 1), "{info:?}");
    assert_eq!(info.images, 1);
    assert_eq!(info.root.as_deref(), Some(world.root.path().canonicalize()?.as_path()));
    assert_eq!(info.rootless, !is_root());
    assert_eq!((info.runtime.as_str(), info.log_driver.is_empty()), ("native", false));
    let uname = Command::new("uname").arg("-rm").output()?;
    let uname = String::from_utf8_lossy(&uname.stdout).trim().to_owned();
    assert_eq!(uname, format!("{} {}", info.kernel_version, info.architecture));
    let nproc = Command::new("nproc").env_remove("OMP_NUM_THREADS").output()?;
    assert_eq!(String::from_utf8_lossy(&nproc.stdout).trim(), info.cpus.to_string());
    let missing = Engine::probe().missing().count();
    assert_eq!(info.warnings.len(), missing, "{:?}", info.warnings);
    running.remove(FORCE).await?;
    created.remove(FORCE).await?;
    let second = Engine::open(world.root.path()).await?;
    let again = second.system().info().await?;
    assert_eq!((&again.id, again.containers), (&info.id, Default::default()));
    assert_ne!(again.owner, info.owner);
    Ok(())
}

async fn k1_disk_usage_is_what_du_says() -> Check {
    let world = World::new().await?;
    if world.ownership().await? == "mapped" {
        return skip("with several ids in the user namespace, du cannot look into directories of the others");
    }
    let writer = world
        .started(world.script("dd if=/dev/zero of=/data bs=1M count=3 && sync /data; sleep 100"))
        .await?;
    let before = SystemTime::now();
    let usage = loop {
        let usage = world.engine.system().disk_usage().await?;
        if usage.containers[0].writable_bytes >= 3 << 20 {
            break usage;
        }
        assert!(before.elapsed()? < Duration::from_secs(20), "{usage:?}");
    };
    let (du, total) = (du(world.root.path())?, usage.total_bytes());
    assert!(
        du.abs_diff(total) * 100 <= du,
        "du says {du}, we say {total}: {usage:?}"
    );
    let image = &usage.images[0];
    assert_eq!((image.containers, image.shared_bytes), (1, 0));
    assert!(
        image.size_bytes > 0 && usage.layers_bytes >= image.size_bytes,
        "{usage:?}"
    );
    assert_eq!(
        usage.containers[0].total_bytes,
        usage.containers[0].writable_bytes + image.size_bytes
    );
    writer.remove(FORCE).await?;
    Ok(())
}

fn du(path: &Path) -> Result<u64, crate::frame::Stop> {
    let output = Command::new("du").args(["-s", "-B1"]).arg(path).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split('\t').next().and_then(|number| number.parse().ok()) {
        Some(bytes) => Ok(bytes),
        None => fail(format!(
            "du says {text:?}, {:?}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i64)
}

async fn events_are_told_across_engines_and_end_in_time() -> Check {
    let world = World::new().await?;
    let other = Engine::open(world.root.path()).await?;
    let mut query = EventQuery::default();
    query.filter = Filter::new().with("type", "container");
    let mut live = other.events(query.clone()).await?;
    let begun = now_ns();
    let output = world.output(world.spec().name("seen").command(["true"])).await?;
    assert!(output.status.success());
    let mut heard = Vec::new();
    while heard.last().is_none_or(|action| action != "destroy") {
        match live.next().await {
            Some(Ok(EventItem::Event(event))) if event.attributes["name"] == "seen" => heard.push(event.action),
            Some(Ok(_)) => {}
            other => return fail(format!("{other:?} after {heard:?}")),
        }
    }
    assert_eq!(heard, ["create", "start", "die", "destroy"]);
    drop(live);
    query.since_ns = Some(begun);
    query.until_ns = Some(now_ns() + 200_000_000);
    query.filter = query.filter.with("container", "seen").with("event", "die");
    let replayed: Vec<_> = other.events(query.clone()).await?.collect().await;
    assert_eq!(replayed.len(), 1, "{replayed:?}");
    query.filter = Filter::new().with("colour", "red");
    let refused = other.events(query).await.err().map(|error| error.kind().clone());
    assert_eq!(refused, Some(ErrorKind::InvalidArgument));
    Ok(())
}
