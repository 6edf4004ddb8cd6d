//! The image manager on a real store, with layers that are really unpacked.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use self::support::*;
use super::*;
use crate::error::ErrorKind;
use crate::progress::ProgressEvent;
use crate::registry::layout::{Compression, LayoutWriter};
use crate::registry::memory::{Fault, MemoryRegistry};
use crate::registry::{BlobStream, ManifestBlob, ManifestKey, Registry};
use crate::store::{ImageRecord, Node};
use crate::types::{ContainerId, Digest};

mod archives;
#[cfg(feature = "build")]
mod makings;
mod restore;
mod support;
mod transfers;

fn two_layers() -> [Vec<u8>; 2] {
    [tar("base", &vec![7; 300_000]), tar("top", b"on top")]
}

#[tokio::test]
async fn a_pulled_image_is_listed_inspected_and_complete() {
    let f = Fixture::new();
    let pushed = push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let events = Events::default();
    let info = f.images.pull(request("app:1"), events.progress()).await.unwrap();
    assert_eq!(
        (info.id, info.manifest.digest),
        (pushed.config.digest, pushed.manifest.digest)
    );
    assert_eq!(info.tags, ["app:1".parse().unwrap()]);
    assert_eq!(
        info.digests,
        [format!("app@{}", pushed.manifest.digest).parse().unwrap()]
    );
    assert_eq!(info.config.config.cmd.as_deref(), Some(&["/bin/x".to_owned()][..]));
    assert!(f.snapshotter.exists(&info.chain.unwrap()).await.unwrap());
    assert!(info.size_bytes >= 300_000);
    assert_eq!(f.images.inspect("app:1").await.unwrap(), info);
    let list = f.images.list(Filter::new()).await.unwrap();
    assert_eq!((list.len(), list[0].id, &list[0].tags), (1, info.id, &info.tags));
    assert_eq!(f.counts().await, (1, 4, 2));

    let ProgressEvent::Resolved {
        manifest,
        layers: 2,
        total_bytes,
    } = events.all()[0].clone()
    else {
        panic!()
    };
    assert_eq!((manifest, total_bytes), (pushed.manifest.digest, pushed.total_bytes()));
    assert_eq!(events.bytes().values().sum::<u64>(), total_bytes);
    for blob in pushed.layers.iter().chain([&pushed.config]) {
        assert_eq!(events.bytes()[&blob.digest], blob.size);
    }
    assert_eq!(events.endings(), 1);
}

#[tokio::test]
async fn policies_ask_as_often_as_they_should() {
    let f = Fixture::new();
    let opened = || *f.provider.opened.lock().unwrap();
    let never = || f.images.pull(request("app:1").policy(Pull::Never), Progress::default());
    assert!(never().await.unwrap_err().is_not_found());
    assert_eq!(opened(), 0);
    let pushed = push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    f.pull("app:1").await.unwrap();
    let requests = f.registry.manifest_requests();
    let events = Events::default();
    f.images.pull(request("app:1"), events.progress()).await.unwrap();
    never().await.unwrap();
    f.images
        .pull(request(&format!("app@{}", pushed.manifest.digest)), Progress::default())
        .await
        .unwrap();
    assert_eq!((opened(), f.registry.manifest_requests()), (1, requests));
    assert_eq!(events.endings(), 1);
    let again = Events::default();
    f.images.pull(always("app:1"), again.progress()).await.unwrap();
    assert_eq!(f.registry.manifest_requests(), requests + 1);
    assert_eq!(f.registry.blob_requests(&pushed.layers[0].digest), 1);
    assert_eq!(again.bytes().values().sum::<u64>(), pushed.total_bytes());
}

#[tokio::test]
async fn twenty_pulls_at_once_fetch_each_blob_once() {
    let f = Fixture::new();
    let pushed = push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let pulls = (0..20).map(|_| f.images.pull(always("app:1"), Progress::default()));
    for result in futures_util::future::join_all(pulls).await {
        assert_eq!(result.unwrap().id, pushed.config.digest);
    }
    for blob in pushed.layers.iter().chain([&pushed.config]) {
        assert_eq!(f.registry.blob_requests(&blob.digest), 1);
    }
    assert_eq!(f.counts().await, (1, 4, 2));
}

#[tokio::test]
async fn a_blob_that_goes_wrong_leaves_no_image() {
    let f = Fixture::new();
    let pushed = push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    for blob in [&pushed.config, &pushed.layers[0], &pushed.layers[1]] {
        let faults = [
            (Fault::Corrupt, ErrorKind::DigestMismatch),
            (Fault::Overlong, ErrorKind::DigestMismatch),
            (Fault::Refuse(ErrorKind::NotFound), ErrorKind::NotFound),
            (Fault::BreakAfter(3), ErrorKind::Unavailable),
        ];
        for (fault, kind) in faults {
            f.registry.fail(blob.digest, fault.clone());
            let events = Events::default();
            let error = f.images.pull(always("app:1"), events.progress()).await.unwrap_err();
            // The tar reader may stumble over wrong bytes before their digest is known.
            let stumbled = fault == Fault::Corrupt && error.kind() == &ErrorKind::UnsafeArchive;
            assert!(error.kind() == &kind || stumbled, "{fault:?}: {error:?}");
            assert_eq!(events.endings(), 1);
            let (images, blobs, snapshots) = f.counts().await;
            assert_eq!(images, 0);
            if kind != ErrorKind::Unavailable {
                assert_eq!((blobs, snapshots), (0, 0), "{fault:?}");
            }
            f.registry.heal();
            f.images.sweep().await.unwrap();
            assert_eq!(f.counts().await, (0, 0, 0));
        }
    }
    f.pull("app:1").await.unwrap();
    assert_eq!(f.counts().await, (1, 4, 2));
}

#[tokio::test]
async fn a_config_that_lies_about_its_layers_is_refused() {
    let f = Fixture::new();
    let tars = two_layers();
    let lies = [
        vec![Digest::of(&tars[0]), Digest::of(b"no")],
        vec![Digest::of(&tars[0])],
        vec![],
    ];
    for (diff_ids, kind) in lies.into_iter().zip([
        ErrorKind::DigestMismatch,
        ErrorKind::InvalidArgument,
        ErrorKind::InvalidArgument,
    ]) {
        push_with(&f.registry, Some("1"), &Platform::host(), &tars, diff_ids, json!({}));
        assert_eq!(f.pull("app:1").await.unwrap_err().kind(), &kind);
        assert_eq!(f.counts().await, (0, 0, 0));
    }
}

#[tokio::test]
async fn platforms_are_chosen_and_missing_ones_listed() {
    let f = Fixture::new();
    let amd = push(&f.registry, None, &"linux/amd64".parse().unwrap(), &[tar("a", b"amd")]);
    let arm = push(
        &f.registry,
        Some("arm"),
        &"linux/arm64".parse().unwrap(),
        &[tar("a", b"arm")],
    );
    let index = push_index(&f.registry, "1", &[("linux/amd64", &amd), ("linux/arm64/v8", &arm)]);
    let pull = |source: &str, platform: &str| {
        f.images
            .pull(always(source).platform(platform.parse().unwrap()), Progress::default())
    };
    let info = pull("app:1", "linux/arm64").await.unwrap();
    assert_eq!(info.id, arm.config.digest);
    assert_eq!(info.digests, [format!("app@{}", index.digest).parse().unwrap()]);
    assert_eq!(pull("app:1", "linux/amd64").await.unwrap().id, amd.config.digest);
    let error = pull("app:1", "linux/s390x").await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("linux/amd64, linux/arm64/v8"),
        "{error}"
    );
    let error = pull("app:arm", "linux/amd64").await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("linux/arm64"),
        "{error}"
    );
    // Nobody asked for a platform, and there is but one.
    f.pull("app:arm").await.unwrap();
    // By the digest of the manifest as well as by that of the index.
    assert_eq!(
        f.images
            .inspect(&format!("app@{}", arm.manifest.digest))
            .await
            .unwrap()
            .id,
        arm.config.digest
    );
    assert!(
        f.images
            .inspect(&format!("other@{}", arm.manifest.digest))
            .await
            .unwrap_err()
            .is_not_found()
    );
    let error = pull("app:none", "linux/amd64").await.unwrap_err();
    assert!(error.is_not_found());
}

#[tokio::test]
async fn a_layout_is_a_source_without_a_registry() {
    let f = Fixture::new();
    let writer = LayoutWriter::create(f.dir.path().join("layout")).unwrap();
    let layers: Vec<_> = two_layers()
        .iter()
        .zip([Compression::Gzip, Compression::Zstd])
        .map(|(tar, compression)| writer.put_layer(&tar[..], compression).unwrap())
        .collect();
    writer
        .put_image(
            Some("example.com/app:2"),
            &Platform::host(),
            json!({ "Cmd": ["/x"] }),
            &layers,
        )
        .unwrap();
    let source = format!("oci:{}", writer.dir().display());
    let info = f
        .images
        .pull(request(&source).policy(Pull::Never), Progress::default())
        .await
        .unwrap();
    assert_eq!(info.tags, ["example.com/app:2".parse().unwrap()]);
    assert_eq!((info.digests.len(), info.layers.len()), (0, 2));
    assert_eq!(*f.provider.opened.lock().unwrap(), 0);
    let error = f.pull(&format!("{source}:other")).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(f.counts().await, (1, 4, 2));

    let plain = LayoutWriter::create(f.dir.path().join("plain")).unwrap();
    plain.put_image(None, &Platform::host(), json!({}), &[]).unwrap();
    let info = f.pull(&format!("oci:{}", plain.dir().display())).await.unwrap();
    assert_eq!((info.tags.len(), info.chain), (0, None));
}

#[tokio::test]
async fn names_move_and_the_last_one_takes_the_image_along() {
    let f = Fixture::new();
    let [base, top] = two_layers();
    push(&f.registry, Some("1"), &Platform::host(), &[base.clone(), top]);
    let other = push(&f.registry, Some("2"), &Platform::host(), &[base, tar("other", b"x")]);
    let first = f.pull("app:1").await.unwrap();
    let second = f.pull("app:2").await.unwrap();
    assert_eq!(f.counts().await, (2, 7, 3));
    let name: Reference = "mine:x".parse().unwrap();
    assert_eq!(f.images.tag("app:1", &name).await.unwrap(), Outcome::Done);
    assert_eq!(f.images.tag("app:1", &name).await.unwrap(), Outcome::Already);
    assert!(f.images.tag("nope", &name).await.unwrap_err().is_not_found());
    let pinned = name.pinned(&other.manifest.digest);
    assert_eq!(
        f.images.tag("app:1", &pinned).await.unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );

    let remove = |image: &str| {
        let image = image.to_owned();
        let images = f.images.clone();
        async move { images.remove(&image, RemoveImageOptions::default()).await }
    };
    assert!(remove(&first.id.hex()).await.unwrap_err().is_conflict());
    assert_eq!(remove("mine:x").await.unwrap(), [Removed::Untagged(name)]);
    let gone = remove("app:1").await.unwrap();
    assert!(
        gone.contains(&Removed::Deleted(first.id)) && gone.contains(&Removed::DeletedLayer(first.chain.unwrap())),
        "{gone:?}"
    );
    // What the other image needs stays.
    assert_eq!(f.counts().await, (1, 4, 2));
    assert!(f.snapshotter.exists(&second.chain.unwrap()).await.unwrap());
    assert!(remove("app:1").await.unwrap_err().is_not_found());
    remove(&second.id.short()).await.unwrap();
    assert_eq!(f.counts().await, (0, 0, 0));
}

#[tokio::test]
async fn an_image_in_use_stays() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let info = f.pull("app:1").await.unwrap();
    let container = ContainerId::random();
    let (holder, target) = (Node::container(&container), Node::image(&info.id));
    f.store.add_ref(&holder, &target).unwrap();
    let error = f
        .images
        .remove("app:1", RemoveImageOptions::default())
        .await
        .unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains(container.short()),
        "{error}"
    );
    let gone = f
        .images
        .remove("app:1", RemoveImageOptions::default().force(true))
        .await
        .unwrap();
    assert!(gone.iter().all(|removed| matches!(removed, Removed::Untagged(_))) && !gone.is_empty());
    assert_eq!(f.counts().await, (1, 4, 2));
    let dangling = f.images.list(Filter::new().with("dangling", "true")).await.unwrap();
    assert_eq!(dangling.len(), 1);
    assert!(
        f.images
            .remove(&info.id.hex(), RemoveImageOptions::default().force(true))
            .await
            .unwrap_err()
            .is_conflict()
    );
    f.store.remove_ref(&holder, &target).unwrap();
    f.images
        .remove(&info.id.hex(), RemoveImageOptions::default())
        .await
        .unwrap();
    assert_eq!(f.counts().await, (0, 0, 0));
}

#[tokio::test]
async fn a_tag_that_moves_leaves_the_old_image_without_it() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &[tar("a", b"old")]);
    let old = f.pull("app:1").await.unwrap();
    push(&f.registry, Some("1"), &Platform::host(), &[tar("a", b"new")]);
    let new = f.pull("app:1").await.unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(f.images.inspect("app:1").await.unwrap().id, new.id);
    assert_eq!(f.images.inspect(&old.id.to_string()).await.unwrap().tags, []);
    let list = f.images.list(Filter::new()).await.unwrap();
    assert_eq!(list.iter().map(|image| image.id).collect::<Vec<_>>(), [new.id, old.id]);
}

#[tokio::test]
async fn the_same_image_in_other_clothes_is_the_same_image() {
    let f = Fixture::new();
    let tar = tar("a", &[1; 1000]);
    let first = push(&f.registry, Some("1"), &Platform::host(), std::slice::from_ref(&tar));
    let id = f.pull("app:1").await.unwrap().id;
    let squeezed = zstd::encode_all(&tar[..], 3).unwrap();
    let layer = f
        .registry
        .put_blob("application/vnd.oci.image.layer.v1.tar+zstd", squeezed);
    let manifest = json!({ "schemaVersion": 2, "config": first.config, "layers": [layer] });
    let manifest = f.registry.put_manifest(Some("2"), MANIFEST, manifest.to_string());
    let info = f.pull("app:2").await.unwrap();
    assert_eq!(
        (info.id, info.manifest.digest, info.tags.len()),
        (id, first.manifest.digest, 2)
    );
    assert_eq!(f.counts().await, (1, 3, 1));
    assert_eq!(
        f.images.inspect(&format!("app@{}", manifest.digest)).await.unwrap().id,
        id
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &[tar("a", b"1")]);
    push(&f.registry, Some("2"), &Platform::host(), &[tar("a", b"2")]);
    f.pull("app:1").await.unwrap();
    f.pull("localhost/other:2").await.unwrap();
    let count = |key: &str, value: &str| {
        let (images, filter) = (f.images.clone(), Filter::new().with(key, value));
        async move { images.list(filter).await.map(|list| list.len()) }
    };
    for (key, value, expected) in [
        ("reference", "app", 1),
        ("reference", "*", 1),
        ("reference", "*/other:*", 1),
        ("reference", "none", 0),
        ("dangling", "false", 2),
        ("dangling", "true", 0),
        ("label", "made", 2),
        ("label", "made=here", 2),
        ("label", "made=there", 0),
        ("since", "app:1", 1),
        ("before", "app:1", 0),
    ] {
        assert_eq!(count(key, value).await.unwrap(), expected, "{key}={value}");
    }
    for (key, value) in [("colour", "red"), ("dangling", "maybe")] {
        assert_eq!(count(key, value).await.unwrap_err().kind(), &ErrorKind::InvalidArgument);
    }
    assert!(count("before", "none").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn the_beginning_of_an_id_must_be_of_one_image() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &[]);
    let info = f.pull("app:1").await.unwrap();
    let model = f.store.image(&info.id).unwrap().unwrap();
    let near = format!("sha256:{}{}", &info.id.hex()[..10], "0".repeat(54))
        .parse::<Digest>()
        .unwrap();
    f.store.put_image(&ImageRecord { id: near, ..model }, &[]).unwrap();
    let error = f.images.inspect(&info.id.hex()[..10]).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    assert_eq!(f.images.inspect(&info.id.hex()[..20]).await.unwrap().id, info.id);
    for name in ["", "sha256:", "xyz", "app:2", &"0".repeat(64), "a b"] {
        assert!(f.images.inspect(name).await.unwrap_err().is_not_found(), "{name:?}");
    }
}

/// Serves blobs that never end.
#[derive(Debug)]
struct Stalling(MemoryRegistry);

#[async_trait]
impl Registry for Stalling {
    async fn manifest(&self, repository: &str, key: &ManifestKey) -> Result<ManifestBlob> {
        self.0.manifest(repository, key).await
    }

    async fn blob(&self, repository: &str, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        let stream = self.0.blob(repository, descriptor, offset).await?;
        if descriptor.media_type.0 != LAYER {
            return Ok(stream);
        }
        Ok(stream.take(1).chain(futures_util::stream::pending()).boxed())
    }
}

#[tokio::test]
async fn a_dropped_pull_leaves_no_image() {
    let registry = MemoryRegistry::new();
    push(&registry, Some("1"), &Platform::host(), &two_layers());
    let f = Fixture::over(std::sync::Arc::new(Stalling(registry)), std::sync::Arc::default());
    let events = Events::default();
    let pull = f.images.pull(always("app:1"), events.progress());
    assert!(tokio::time::timeout(Duration::from_millis(300), pull).await.is_err());
    assert_eq!(events.endings(), 1);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if f.snapshotter.active().await.unwrap().is_empty() {
            break;
        }
    }
    assert_eq!(f.counts().await.0, 0);
    f.images.sweep().await.unwrap();
    assert_eq!(f.counts().await, (0, 0, 0));
}
