//! Push, import, prune, and the filters of lists.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::support::*;
use super::two_layers;
use crate::error::{ErrorKind, Result};
use crate::images::*;
use crate::progress::{Progress, ProgressEvent};
use crate::registry::memory::Fault;
use crate::types::{Digest, Filter, Platform};

fn stream_of(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<Result<Bytes>> = bytes
        .chunks(9000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces).boxed()
}

fn sent(events: &Events) -> u64 {
    let bytes = events.all().into_iter().map(|event| match event {
        ProgressEvent::Uploaded { bytes, .. } => bytes,
        _ => 0,
    });
    bytes.sum()
}

/// Bytes of blobs and layers, as the file system has them.
async fn store_bytes(f: &Fixture) -> u64 {
    let blobs: u64 = f.content.list().await.unwrap().iter().map(|blob| blob.size).sum();
    let mut layers = 0;
    for chain in f.snapshotter.list().await.unwrap() {
        layers += f.snapshotter.layer_usage(&chain).await.unwrap().bytes;
    }
    blobs + layers
}

#[tokio::test]
async fn c3_the_second_push_sends_no_blob() {
    let f = Fixture::new();
    let pushed = push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let info = f.pull("app:1").await.unwrap();
    let other = Fixture::new();
    let to = |name: &str| PushRequest::new(name.parse().unwrap());
    let images = LocalImages::new(LocalImagesParts {
        registries: other.provider.clone(),
        ..(*f.images.parts).clone()
    });
    images.tag("app:1", &"host/team/app:2".parse().unwrap()).await.unwrap();
    let events = Events::default();
    let done = images.push(to("host/team/app:2"), events.progress()).await.unwrap();
    assert_eq!(done.manifest, info.manifest);
    assert_eq!(sent(&events), pushed.total_bytes());
    assert_eq!(other.registry.uploaded_bytes(), pushed.total_bytes());
    assert_eq!(events.endings(), 1);
    let again = Events::default();
    images.push(to("host/team/app:2"), again.progress()).await.unwrap();
    assert_eq!(
        (sent(&again), other.registry.uploaded_bytes()),
        (0, pushed.total_bytes())
    );
    // It has the digest's name there now, and whoever pulls it gets the same.
    let pinned = format!("host/team/app@{}", info.manifest.digest);
    assert_eq!(images.inspect(&pinned).await.unwrap().id, info.id);
    assert_eq!(other.pull("host/team/app:2").await.unwrap().manifest, info.manifest);
}

#[tokio::test]
async fn a_push_that_fails_says_so_and_writes_no_manifest() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let info = f.pull("app:1").await.unwrap();
    let other = Fixture::new();
    let images = LocalImages::new(LocalImagesParts {
        registries: other.provider.clone(),
        ..(*f.images.parts).clone()
    });
    other
        .registry
        .fail(info.layers[0].descriptor.digest, Fault::Refuse(ErrorKind::Denied));
    let events = Events::default();
    let request = PushRequest::new("app:1".parse().unwrap());
    let error = images.push(request.clone(), events.progress()).await.unwrap_err();
    assert_eq!((error.kind(), events.endings()), (&ErrorKind::Denied, 1));
    assert!(other.pull("app:1").await.unwrap_err().is_not_found());
    let wrong = request.clone().platform("linux/s390x".parse().unwrap());
    assert!(
        images
            .push(wrong, Progress::default())
            .await
            .unwrap_err()
            .is_not_found()
    );
    let missing = PushRequest::new("none:1".parse().unwrap());
    assert!(
        images
            .push(missing, Progress::default())
            .await
            .unwrap_err()
            .is_not_found()
    );
}

/// The end of a stream that only comes when a layer of it is being unpacked.
fn end_waits(f: &Fixture, bytes: Vec<u8>) -> ByteStream {
    let snapshotter = Arc::clone(&f.snapshotter);
    let rest = bytes[1_000_000..].to_vec();
    let first = stream::iter([Ok(Bytes::from(bytes[..1_000_000].to_vec()))]);
    let last = stream::once(async move {
        while snapshotter.active().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Bytes::from(rest))
    });
    first.chain(last).boxed()
}

#[tokio::test]
async fn d3_a_tar_is_unpacked_while_it_is_imported() {
    let f = Fixture::new();
    let root = tar("base", &vec![7; 2_000_000]);
    let import = f
        .images
        .import(end_waits(&f, root.clone()), ImportRequest::new(), Progress::default());
    let imported = tokio::time::timeout(Duration::from_secs(30), import).await;
    let id = imported.expect("it is unpacked ahead").unwrap();
    // Config, manifest, one layer; and on it another, that comes in the same way.
    assert_eq!(f.counts().await, (1, 3, 1));
    let request = ExtendRequest::new(id.to_string(), RunConfig::default());
    let more = end_waits(&f, tar("top", &vec![8; 2_000_000]));
    let extended = tokio::time::timeout(Duration::from_secs(30), f.images.extend(more, request)).await;
    let top = extended.expect("it is unpacked ahead").unwrap();
    let info = f.images.inspect(&top.to_string()).await.unwrap();
    assert_eq!(info.layers.len(), 2);
    assert_eq!(f.counts().await, (2, 6, 2));
}

#[tokio::test]
async fn d3_an_imported_tar_is_an_image() {
    let root = tar("bin/x", b"program");
    let zst = zstd::encode_all(&root[..], 3).unwrap();
    let f = Fixture::new();
    let mut chains = Vec::new();
    for (bytes, name) in [(&root, "plain:1"), (&zst, "zst:1")] {
        let request = ImportRequest::new()
            .name(name.parse().unwrap())
            .message("by hand")
            .change("CMD [\"/bin/x\"]")
            .change("ENV A=b");
        let events = Events::default();
        let id = f
            .images
            .import(stream_of(bytes), request, events.progress())
            .await
            .unwrap();
        let info = f.images.inspect(name).await.unwrap();
        assert_eq!((info.id, info.layers.len(), info.platform), (id, 1, Platform::host()));
        assert_eq!(info.config.config.cmd.as_deref(), Some(&["/bin/x".to_owned()][..]));
        assert_eq!(info.layers[0].diff_id, Digest::of(&root));
        assert_eq!(
            info.layers[0].descriptor.digest,
            Digest::of(bytes),
            "the archive is kept as it came"
        );
        assert_eq!(f.images.history(name).await.unwrap()[0].comment, "by hand");
        assert_eq!(events.endings(), 1);
        chains.push(info.chain);
    }
    assert_eq!(chains[0], chains[1]);
}

#[tokio::test]
async fn d3_what_cannot_be_imported_leaves_nothing() {
    let f = Fixture::new();
    let plain = tar("x", b"y");
    let table: [(&[u8], &str, ErrorKind); 5] = [
        (&plain, "RUN make", ErrorKind::InvalidArgument),
        (b"", "CMD x", ErrorKind::InvalidArgument),
        (b"no tar at all", "CMD x", ErrorKind::UnsafeArchive),
        (&plain[..700], "CMD x", ErrorKind::UnsafeArchive),
        (b"\x1f\x8bnot gzip at all", "CMD x", ErrorKind::UnsafeArchive),
    ];
    for (bytes, change, kind) in table {
        let request = ImportRequest::new().change(change);
        let error = f
            .images
            .import(stream_of(bytes), request, Progress::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &kind, "{change}: {}", error.report());
        assert_eq!(f.counts().await, (0, 0, 0), "{}", bytes.len());
    }
}

#[tokio::test]
async fn d5_prune_takes_what_nobody_uses_and_counts_it_right() {
    let f = Fixture::new();
    let [base, top] = two_layers();
    push(&f.registry, Some("1"), &Platform::host(), &[base.clone(), top]);
    let first = f.pull("app:1").await.unwrap();
    push(&f.registry, Some("1"), &Platform::host(), std::slice::from_ref(&base));
    let second = f.pull("app:1").await.unwrap();
    assert_eq!(f.counts().await.0, 2);
    let before = store_bytes(&f).await;
    let pruned = f.images.prune(Filter::new()).await.unwrap();
    assert_eq!(f.images.list(Filter::new()).await.unwrap()[0].id, second.id);
    assert!(pruned.removed.contains(&Removed::Deleted(first.id)), "{pruned:?}");
    assert_eq!(pruned.reclaimed_bytes, before - store_bytes(&f).await);
    assert!(pruned.reclaimed_bytes > 0);
    assert_eq!(f.images.prune(Filter::new()).await.unwrap(), PrunedImages::default());
    // A container keeps its image, and `until` what is newer.
    let user = crate::store::Node::new(crate::store::NodeKind::Volume, "somebody");
    f.store.add_ref(&user, &crate::store::Node::image(&second.id)).unwrap();
    let all = || Filter::new().with("dangling", "false");
    assert_eq!(f.images.prune(all()).await.unwrap().removed, []);
    f.store
        .remove_ref(&user, &crate::store::Node::image(&second.id))
        .unwrap();
    assert_eq!(f.images.prune(all().with("until", "1h")).await.unwrap().removed, []);
    assert_eq!(
        f.images.prune(all().with("label", "made=there")).await.unwrap().removed,
        []
    );
    assert_eq!(f.images.prune(all().with("label!", "made")).await.unwrap().removed, []);
    let before = store_bytes(&f).await;
    let pruned = f
        .images
        .prune(all().with("until", "0s").with("label", "made=here"))
        .await
        .unwrap();
    assert_eq!(pruned.reclaimed_bytes, before);
    assert_eq!(f.counts().await, (0, 0, 0));
    for bad in [
        Filter::new().with("color", "red"),
        all().with("until", "soon"),
        all().with("until", "1h").with("until", "2h"),
    ] {
        assert_eq!(
            f.images.prune(bad).await.unwrap_err().kind(),
            &ErrorKind::InvalidArgument
        );
    }
}

#[tokio::test]
async fn d1_lists_take_every_filter() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    f.pull("app:1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    push(&f.registry, Some("2"), &Platform::host(), &[tar("z", b"z")]);
    f.pull("app:2").await.unwrap();
    let count = |key: &'static str, value: String| {
        let images = &f.images;
        async move { images.list(Filter::new().with(key, value)).await.map(|list| list.len()) }
    };
    let now = SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let table = [
        ("reference", "app".to_owned(), 2),
        ("reference", "app:2".to_owned(), 1),
        ("reference", "other*".to_owned(), 0),
        ("label", "made=here".to_owned(), 2),
        ("label!", "made".to_owned(), 0),
        ("label!", "made=there".to_owned(), 2),
        ("before", "app:2".to_owned(), 1),
        ("since", "app:1".to_owned(), 1),
        ("until", "1h".to_owned(), 0),
        ("until", format!("{}", now + 60), 2),
        ("dangling", "true".to_owned(), 0),
        ("dangling", "false".to_owned(), 2),
    ];
    for (key, value, expected) in table {
        assert_eq!(count(key, value.clone()).await.unwrap(), expected, "{key}={value}");
    }
    assert_eq!(
        count("until", "x".to_owned()).await.unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );
    assert!(count("before", "none".to_owned()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn c8_newer_takes_what_is_here_where_the_registry_is_out_of_reach() {
    let f = Fixture::new();
    let first = push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let newer = || f.images.pull(request("app:1").policy(Pull::Newer), Progress::default());
    assert_eq!(newer().await.unwrap().id, first.config.digest);
    let second = push(&f.registry, Some("1"), &Platform::host(), &[tar("z", b"z")]);
    f.registry
        .fail(second.manifest.digest, Fault::Refuse(ErrorKind::Unavailable));
    assert_eq!(newer().await.unwrap().id, first.config.digest);
    f.registry
        .fail(second.manifest.digest, Fault::Refuse(ErrorKind::Denied));
    assert_eq!(newer().await.unwrap_err().kind(), &ErrorKind::Denied);
    f.registry.heal();
    assert_eq!(newer().await.unwrap().id, second.config.digest);
    f.images.remove("app:1", RemoveImageOptions::default()).await.unwrap();
    f.registry
        .fail(second.manifest.digest, Fault::Refuse(ErrorKind::Unavailable));
    assert_eq!(newer().await.unwrap_err().kind(), &ErrorKind::Unavailable);
}
