//! Embedders that are killed while they take templates and fork them: what is kept of that is whole, and goes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use longshore::images::RemoveImageOptions;
use longshore::types::Filter;
use longshore::{ContainerSpec, CreateVolume, Engine};

use crate::faults::filled_root;
use crate::frame::{Check, Stop, block_on};
use crate::kills::{FILES, kill_again_and_again};
use crate::support::embedder::Role;
use crate::support::image::Files;
use crate::support::world::FORCE;
use crate::{faults, tests};

tests! { "forks":
    kernel [
        m9_kills_during_forks_leave_whole_templates,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("fork-forever", |arguments| {
    block_on(faults::role(fork_forever(&arguments[0])))
})];

/// What the container that is forked has written.
const STATE: &str = "for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=/state/$i bs=64k count=2 2>/dev/null; done";

/// Templates, two forks of each, and the end of all of it; every other template stays.
async fn fork_forever(root: &str) -> longshore::Result<()> {
    let engine = Engine::open(root).await?;
    let script = format!("mkdir /state; {STATE}");
    let spec = ContainerSpec::image("busybox")
        .command(["sh", "-c", &script])
        .volume("data", "/data");
    let prepared = engine.run(spec).await?;
    prepared.wait().await?;
    println!("open");
    for number in 0.. {
        let template = prepared.template().await?;
        for start in [true, false] {
            let fork = template.fork().await?;
            if start {
                fork.start().await?;
            }
            fork.remove(FORCE).await?;
        }
        if number % 2 == 0 {
            template.remove().await?;
        }
    }
    Ok(())
}

/// A template's image has all that the container had written, its volumes all that they were copied from; forks and their
/// volumes go with whom they are bound to.
fn m9_kills_during_forks_leave_whole_templates() -> Check {
    let root = filled_root()?;
    block_on(async {
        let engine = Engine::open(root.path()).await?;
        let mut files = Files::new();
        for number in 0..FILES {
            files = files.file(format!("{number}"), 0o644, format!("{number} ").repeat(2000));
        }
        let tar = stream::iter([Ok(Bytes::from(files.tar()?))]).boxed();
        engine.import_volume(CreateVolume::named("data"), tar).await?;
        Ok::<_, Stop>(())
    })?;
    let span = Duration::from_millis(250);
    kill_again_and_again(root.path(), "fork-forever", &[], span, 0x5eed_0018)?;
    let (templates, copies) = whole(root.path())?;
    assert!(
        templates > 0 && copies > 0,
        "no kill left a template: {templates}, {copies}"
    );
    Ok(())
}

/// How many templates and copies of volumes there are: all of them whole, and all of them gone afterwards.
fn whole(root: &Path) -> Result<(usize, usize), Stop> {
    block_on(async {
        let engine = Engine::open(root).await?;
        assert!(
            engine.doctor(false).await?.is_healthy(),
            "something is not what it should be"
        );
        let mut templates = 0;
        for image in engine.images().list(Filter::new()).await? {
            if !image.tags.is_empty() {
                continue;
            }
            templates += 1;
            let count = ["sh", "-c", "cat /state/* | wc -c"];
            let spec = ContainerSpec::image(image.id.to_string()).command(count);
            let output = engine.run(spec).output().await?;
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            assert_eq!(said, (8 * 128 * 1024).to_string(), "{}", image.id);
            let id = image.id.to_string();
            engine.images().remove(&id, RemoveImageOptions::default()).await?;
        }
        let mut copies = 0;
        for volume in engine.volumes().list(Filter::new()).await? {
            let place = volume.mountpoint.expect("a directory");
            assert_eq!(fs::read_dir(&place)?.count(), FILES, "files of {}", volume.name);
            for entry in fs::read_dir(&place)? {
                let length = entry?.metadata()?.len();
                assert!(length >= 4000, "a file of {length} bytes in {}", volume.name);
            }
            if volume.name != "data" {
                copies += 1;
                engine.volume(&volume.name).await?.remove().await?;
            }
        }
        engine.reconcile().await?;
        assert_eq!(engine.audit().await?.findings, []);
        assert_eq!(
            fs::read_dir(root.join("volumes"))?.count(),
            1,
            "directories of no volume"
        );
        Ok((templates, copies))
    })
}
