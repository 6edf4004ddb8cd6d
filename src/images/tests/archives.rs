//! Archives: what is written is read again, and what is hostile is refused.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::support::*;
use super::two_layers;
use crate::error::{Error, ErrorKind, Result};
use crate::images::*;
use crate::progress::ProgressEvent;
use crate::types::{Digest, ImageId, Platform};

async fn bytes_of(mut stream: ByteStream) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        out.extend_from_slice(&piece?);
    }
    Ok(out)
}

/// In pieces of an odd size.
fn stream_of(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<Result<Bytes>> = bytes
        .chunks(7777)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces).boxed()
}

async fn save(f: &Fixture, images: &[&str], format: ArchiveFormat) -> Vec<u8> {
    let images: Vec<String> = images.iter().map(|&image| image.to_owned()).collect();
    bytes_of(f.images.save(&images, None, format).await.unwrap())
        .await
        .unwrap()
}

async fn load(f: &Fixture, archive: &[u8]) -> Result<Vec<Loaded>> {
    f.images.load(stream_of(archive), None, Progress::default()).await
}

enum Member<'a> {
    File(&'a str, Vec<u8>),
    Link(&'a str, &'a str),
}

fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        // Names as they are, where the builder would refuse them.
        let raw = |header: &mut tar::Header, name: &str| {
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        };
        match member {
            Member::File(name, bytes) => {
                raw(&mut header, name);
                header.set_size(bytes.len() as u64);
                header.set_cksum();
                out.append(&header, &bytes[..]).unwrap();
            }
            Member::Link(name, target) => {
                raw(&mut header, name);
                header.set_entry_type(tar::EntryType::Symlink);
                header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
                header.set_size(0);
                header.set_cksum();
                out.append(&header, &[][..]).unwrap();
            }
        }
    }
    out.into_inner().unwrap()
}

fn config_of(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let host = Platform::host();
    json!({ "os": host.os, "architecture": host.architecture, "config": { "Cmd": ["/bin/x"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids } })
    .to_string()
    .into_bytes()
}

/// As Docker before 25 wrote it, a layer that occurs twice as a link.
fn old_style() -> (Vec<u8>, Digest) {
    old_style_of(two_layers())
}

fn old_style_of([base, top]: [Vec<u8>; 2]) -> (Vec<u8>, Digest) {
    let layers = [base.clone(), top, base];
    let config = config_of(&layers);
    let id = Digest::of(&config);
    let manifest = json!([{ "Config": format!("{}.json", id.hex()), "RepoTags": ["app:1", "localhost:5000/app:2"],
                            "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"] }]);
    let archive = archive(&[
        Member::File(&format!("{}.json", id.hex()), config),
        Member::File("a/VERSION", b"1.0".to_vec()),
        Member::File("a/layer.tar", layers[0].clone()),
        Member::File("b/layer.tar", layers[1].clone()),
        Member::Link("c/layer.tar", "../a/layer.tar"),
        Member::File("manifest.json", manifest.to_string().into_bytes()),
    ]);
    (archive, id)
}

#[tokio::test]
async fn d2_save_and_load_give_the_same_image() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let info = f.pull("app:1").await.unwrap();
    f.images.tag("app:1", &"other/app:2".parse().unwrap()).await.unwrap();
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        let archive = save(&f, &["app:1", "other/app"], format).await;
        assert_eq!(
            archive,
            save(&f, &["app:1", "other/app"], format).await,
            "not the same twice"
        );
        let to = Fixture::new();
        let events = Events::default();
        let loaded = to
            .images
            .load(stream_of(&archive), None, events.progress())
            .await
            .unwrap();
        assert_eq!(loaded.len(), 1, "{loaded:?}");
        let names: Vec<_> = ["app:1", "other/app:2"].map(|name| name.parse().unwrap()).into();
        assert_eq!((loaded[0].id, &loaded[0].tags), (info.id, &names));
        let there = to.images.inspect("app:1").await.unwrap();
        assert_eq!(
            (there.id, &there.manifest, &there.layers),
            (info.id, &info.manifest, &info.layers)
        );
        assert!(to.snapshotter.exists(&there.chain.unwrap()).await.unwrap());
        // Manifest, config, two layers; what only told of them is gone.
        assert_eq!(to.counts().await, (1, 4, 2));
        assert_eq!(events.endings(), 1);
        assert!(matches!(events.all().last(), Some(ProgressEvent::Done { image }) if *image == info.id));
        assert_eq!(save(&to, &["app:1", "other/app:2"], format).await, archive);
    }
}

#[tokio::test]
async fn d2_several_images_share_their_blobs() {
    let f = Fixture::new();
    let [base, top] = two_layers();
    push(&f.registry, Some("1"), &Platform::host(), &[base.clone(), top]);
    push(&f.registry, Some("2"), &Platform::host(), &[base]);
    let (one, two) = (f.pull("app:1").await.unwrap(), f.pull("app:2").await.unwrap());
    // A repository alone means all its tags.
    let bytes = save(&f, &["app"], ArchiveFormat::Docker).await;
    let mut names: Vec<String> = tar::Archive::new(&bytes[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(&names[..3], ["oci-layout", "index.json", "manifest.json"]);
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "an entry twice");
    let to = Fixture::new();
    let loaded = load(&to, &bytes).await.unwrap();
    let mut ids: Vec<_> = loaded.iter().map(|image| image.id).collect();
    ids.sort();
    let mut expected = vec![one.id, two.id];
    expected.sort();
    assert_eq!(ids, expected);
    assert_eq!(to.counts().await, (2, 6, 2));
    // By id an image has no name in the archive.
    let nameless = save(&f, &[&one.id.to_string()], ArchiveFormat::Docker).await;
    let fresh = Fixture::new();
    assert_eq!(
        load(&fresh, &nameless).await.unwrap(),
        [Loaded {
            id: one.id,
            tags: vec![]
        }]
    );
}

#[tokio::test]
async fn d2_an_image_cannot_lose_its_blobs_while_it_is_saved() {
    let f = Fixture::new();
    push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    let info = f.pull("app:1").await.unwrap();
    let whole = save(&f, &["app:1"], ArchiveFormat::Docker).await;
    let mut saving = f
        .images
        .save(&["app:1".to_owned()], None, ArchiveFormat::Docker)
        .await
        .unwrap();
    let first = saving.next().await.unwrap().unwrap();
    f.images.remove("app:1", RemoveImageOptions::default()).await.unwrap();
    let rest = bytes_of(saving).await.unwrap();
    assert_eq!([first.to_vec(), rest].concat(), whole);
    assert_eq!(
        f.images.sweep().await.unwrap(),
        4,
        "the blobs stayed for the archive, and go with it"
    );
    assert_eq!(f.counts().await, (0, 0, 0));
    assert!(f.images.inspect(&info.id.to_string()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_damaged_blob_is_not_saved() {
    let f = Fixture::new();
    let pushed = push(&f.registry, Some("1"), &Platform::host(), &two_layers());
    f.pull("app:1").await.unwrap();
    let blob = f
        .dir
        .path()
        .join("root/content/blobs/sha256")
        .join(pushed.layers[0].digest.hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let stream = f
        .images
        .save(&["app:1".to_owned()], None, ArchiveFormat::Docker)
        .await
        .unwrap();
    assert_eq!(bytes_of(stream).await.unwrap_err().kind(), &ErrorKind::Corrupt);
}

#[tokio::test]
async fn d2_docker_s_older_archives_are_read() {
    let (plain, id) = old_style();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for bytes in [
        plain.clone(),
        gzip.finish().unwrap(),
        zstd::encode_all(&plain[..], 1).unwrap(),
    ] {
        let f = Fixture::new();
        let loaded = load(&f, &bytes).await.unwrap();
        assert_eq!(loaded[0].id, id);
        let info = f.images.inspect("localhost:5000/app:2").await.unwrap();
        assert_eq!((info.id, info.layers.len(), info.tags.len()), (id, 3, 2));
        // The manifest that was written for it, the config, and the layer that is there twice once.
        assert_eq!(f.counts().await, (1, 4, 3));
        let again = Fixture::new();
        let saved = save(&f, &["app:1"], ArchiveFormat::Docker).await;
        assert_eq!(load(&again, &saved).await.unwrap()[0].id, id);
    }
}

#[tokio::test]
async fn d2_a_platform_can_be_asked_for() {
    let (bytes, id) = old_style();
    let f = Fixture::new();
    let load = |platform: Platform| f.images.load(stream_of(&bytes), Some(platform), Progress::default());
    let error = load("linux/s390x".parse().unwrap()).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(f.counts().await, (0, 0, 0));
    assert_eq!(load(Platform::host()).await.unwrap()[0].id, id);
    let other = Some("linux/s390x".parse().unwrap());
    let error = f
        .images
        .save(&["app:1".to_owned()], other, ArchiveFormat::Oci)
        .await
        .err()
        .unwrap();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn d2_hostile_archives_are_refused_and_leave_nothing() {
    let [base, _] = two_layers();
    let config = config_of(std::slice::from_ref(&base));
    let good = |config_path: &str, layer: &str, tag: &str| {
        json!([{ "Config": config_path, "RepoTags": [tag], "Layers": [layer] }])
            .to_string()
            .into_bytes()
    };
    let with = |manifest: Vec<u8>, more: Vec<Member<'_>>| {
        let mut members = vec![
            Member::File("c.json", config.clone()),
            Member::File("l.tar", base.clone()),
            Member::File("manifest.json", manifest),
        ];
        members.extend(more);
        archive(&members)
    };
    let fine = || good("c.json", "l.tar", "app:1");
    let wrong_name = format!("blobs/sha256/{}", Digest::of(b"something else").hex());
    let mut device = tar::Header::new_gnu();
    device.set_path("disk").unwrap();
    device.set_entry_type(tar::EntryType::Block);
    device.set_size(0);
    device.set_cksum();
    let mut damaged = with(fine(), vec![]);
    damaged[20] ^= 1;
    let other_layers = config_of(&[b"other".to_vec()]);
    use ErrorKind::{DigestMismatch, InvalidArgument, UnsafeArchive};
    let table: Vec<(&str, Vec<u8>, ErrorKind)> = vec![
        ("empty", vec![], InvalidArgument),
        ("no tar", b"hello".repeat(1000), UnsafeArchive),
        ("a damaged header", damaged, UnsafeArchive),
        ("cut short", with(fine(), vec![])[..2000].to_vec(), UnsafeArchive),
        (
            "an absolute path",
            with(fine(), vec![Member::File("/etc/x", vec![1])]),
            UnsafeArchive,
        ),
        (
            "a path out",
            with(fine(), vec![Member::File("a/../../x", vec![1])]),
            UnsafeArchive,
        ),
        (
            "a link out",
            with(fine(), vec![Member::Link("x", "../../etc/passwd")]),
            UnsafeArchive,
        ),
        (
            "an absolute link",
            with(fine(), vec![Member::Link("x", "/etc/passwd")]),
            UnsafeArchive,
        ),
        (
            "a device",
            [device.as_bytes().to_vec(), vec![0; 1024]].concat(),
            UnsafeArchive,
        ),
        (
            "a wrong digest",
            with(fine(), vec![Member::File(&wrong_name, vec![1])]),
            DigestMismatch,
        ),
        (
            "no digest",
            with(
                fine(),
                vec![
                    Member::File("blobs/sha256/../x", vec![1]),
                    Member::File("blobs/sha256/zz", vec![1]),
                ],
            ),
            UnsafeArchive,
        ),
        (
            "no such layer",
            with(good("c.json", "no.tar", "app:1"), vec![]),
            InvalidArgument,
        ),
        (
            "no such config",
            with(good("no.json", "l.tar", "app:1"), vec![]),
            InvalidArgument,
        ),
        (
            "a config outside",
            with(good("../../etc/passwd", "l.tar", "app:1"), vec![]),
            UnsafeArchive,
        ),
        (
            "a circle",
            with(
                good("c.json", "x", "app:1"),
                vec![Member::Link("x", "y"), Member::Link("y", "x")],
            ),
            UnsafeArchive,
        ),
        (
            "a bad name",
            with(good("c.json", "l.tar", "App?:1"), vec![]),
            InvalidArgument,
        ),
        ("no JSON", with(b"{".to_vec(), vec![]), InvalidArgument),
        ("no images", with(b"[]".to_vec(), vec![]), InvalidArgument),
        (
            "other layers",
            with(
                good("d.json", "l.tar", "app:1"),
                vec![Member::File("d.json", other_layers)],
            ),
            DigestMismatch,
        ),
        (
            "a config that is none",
            with(good("l.tar", "l.tar", "app:1"), vec![]),
            InvalidArgument,
        ),
        (
            "an index without blobs",
            archive(&[Member::File(
                "index.json",
                json!({ "schemaVersion": 2, "manifests": [
            { "mediaType": MANIFEST, "digest": Digest::of(b"x"), "size": 1 } ] })
                .to_string()
                .into_bytes(),
            )]),
            InvalidArgument,
        ),
    ];
    let f = Fixture::new();
    for (what, bytes, expected) in table {
        let events = Events::default();
        let error = f
            .images
            .load(stream_of(&bytes), None, events.progress())
            .await
            .expect_err(what);
        assert_eq!(error.kind(), &expected, "{what}: {}", error.report());
        assert_eq!(f.counts().await, (0, 0, 0), "{what}");
        assert_eq!(events.endings(), 1, "{what}");
    }
    assert!(load(&f, &with(fine(), vec![])).await.is_ok());
}

#[tokio::test]
async fn a_broken_or_dropped_load_leaves_nothing() {
    let (bytes, _) = old_style();
    let f = Fixture::new();
    let broken = Error::new(ErrorKind::Unavailable, "the sender went away");
    let half = stream::iter([Ok(Bytes::copy_from_slice(&bytes[..bytes.len() / 2])), Err(broken)]).boxed();
    let error = f.images.load(half, None, Progress::default()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{}", error.report());
    assert_eq!(f.counts().await, (0, 0, 0));

    let stalled = stream::iter([Ok(Bytes::copy_from_slice(&bytes[..bytes.len() / 2]))])
        .chain(stream::pending())
        .boxed();
    let events = Events::default();
    let call = f.images.load(stalled, None, events.progress());
    let waited = tokio::time::timeout(std::time::Duration::from_millis(300), call).await;
    assert!(waited.is_err());
    let start = std::time::Instant::now();
    while !f.content.list().await.unwrap().is_empty() {
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "blobs stay");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(f.counts().await, (0, 0, 0));
    assert_eq!(events.endings(), 1);
}

#[tokio::test]
async fn d2_layers_are_unpacked_while_the_archive_is_read() {
    let (bytes, id) = old_style_of([tar("base", &vec![7; 2_000_000]), tar("top", b"on top")]);
    let f = Fixture::new();
    // The end of the archive, which says whose layers they are, comes when a layer is being unpacked.
    let (bulk, rest) = bytes.split_at(1_000_000);
    let (bulk, rest) = (Bytes::copy_from_slice(bulk), Bytes::copy_from_slice(rest));
    let snapshotter = Arc::clone(&f.snapshotter);
    let pieces = stream::unfold(0, move |number| {
        let (bulk, rest, snapshotter) = (bulk.clone(), rest.clone(), Arc::clone(&snapshotter));
        async move {
            match number {
                0 => Some((Ok(bulk), 1)),
                1 => {
                    while snapshotter.active().await.unwrap().is_empty() {
                        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                    }
                    Some((Ok(rest), 2))
                }
                _ => None,
            }
        }
    });
    let load = f.images.load(pieces.boxed(), None, Progress::default());
    let loaded = tokio::time::timeout(std::time::Duration::from_secs(30), load).await;
    assert_eq!(loaded.expect("it is unpacked ahead").unwrap()[0].id, id);
    // Config, manifest, two layers, of which one is there twice.
    assert_eq!(f.counts().await, (1, 4, 3));
    // Once more: its layers are here, and stay the ones they are.
    assert_eq!(load_of(&f, &bytes).await, id);
    assert_eq!(f.counts().await, (1, 4, 3));
}

async fn load_of(f: &Fixture, bytes: &[u8]) -> ImageId {
    load(f, bytes).await.unwrap()[0].id
}

#[tokio::test]
async fn d1_history_shows_steps_with_their_sizes() {
    let f = Fixture::new();
    let layers = two_layers();
    let mut config: serde_json::Value = serde_json::from_slice(&config_of(&layers)).unwrap();
    config["history"] = json!([
        { "created": "2024-01-01T00:00:00Z", "created_by": "ADD base" },
        { "created_by": "ENV A=b", "empty_layer": true },
        { "created_by": "ADD top", "comment": "done" },
    ]);
    let manifest = json!([{ "Config": "c", "RepoTags": ["app:1"], "Layers": ["0", "1"] }]);
    let bytes = archive(&[
        Member::File("c", config.to_string().into_bytes()),
        Member::File("0", layers[0].clone()),
        Member::File("1", layers[1].clone()),
        Member::File("manifest.json", manifest.to_string().into_bytes()),
    ]);
    let id = load(&f, &bytes).await.unwrap()[0].id;
    let lines = f.images.history("app:1").await.unwrap();
    let words: Vec<&str> = lines.iter().map(|line| line.created_by.as_str()).collect();
    assert_eq!(words, ["ADD top", "ENV A=b", "ADD base"]);
    assert_eq!(
        (lines[0].id, lines[1].id, lines[0].comment.as_str()),
        (Some(id), None, "done")
    );
    assert_eq!(lines[0].tags, ["app:1".parse().unwrap()]);
    assert!(lines[2].size_bytes >= 300_000 && lines[1].size_bytes == 0);
    assert_eq!(
        lines.iter().map(|line| line.size_bytes).sum::<u64>(),
        f.images.inspect("app:1").await.unwrap().size_bytes
    );
    assert!(f.images.history("none").await.unwrap_err().is_not_found());
}
