//! What a build makes: where it goes, and layers of caches that come from elsewhere.

use std::fs;
use std::path::Path;

use super::support::*;
use crate::driver::Cancel;
use crate::error::{ErrorKind, Result};
use crate::images::making::Making;
use crate::images::making_cache::Repository;
use crate::images::making_out::Unlisted;
use crate::images::*;
use crate::progress::Progress;
use crate::registry::{ManifestBlob, ManifestKey, Registry as _};
use crate::types::{Descriptor, Digest, LayerRef, Platform, Reference, reader_stream};

const FOREIGN: &str = "linux/mips";

async fn layer(making: &Making, below: &[LayerRef], name: &str, content: &[u8]) -> LayerRef {
    let tar = tar(name, content);
    let write = move |out: &mut dyn std::io::Write| {
        out.write_all(&tar).unwrap();
        Ok(())
    };
    let made = making.layer(below, &Cancel::default(), write).await.unwrap();
    made.unwrap()
}

fn config(platform: &str, layers: &[LayerRef]) -> ImageConfig {
    let platform: Platform = platform.parse().unwrap();
    ImageConfig {
        created: None,
        author: None,
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: RunConfig::default(),
        rootfs: RootFs {
            kind: "layers".into(),
            diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
        },
        history: Vec::new(),
        build_cache: None,
    }
}

async fn two(making: &Making) -> (Vec<ImageConfig>, Vec<Unlisted>) {
    let mut found = (Vec::new(), Vec::new());
    for platform in [Platform::host().to_string(), FOREIGN.to_owned()] {
        let layers = [layer(making, &[], "which", platform.as_bytes()).await];
        let config = config(&platform, &layers);
        found.1.push(making.unlisted(&config, &layers).await.unwrap());
        found.0.push(config);
    }
    found
}

fn names(texts: &[&str]) -> Vec<Reference> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn f16_f17_what_is_not_listed_goes_into_archives_and_layouts() {
    let f = Fixture::new();
    let out = tempfile::tempdir().unwrap();
    let making = f.images.making().await.unwrap();
    let (configs, images) = two(&making).await;
    let ids: Vec<ImageId> = configs.iter().map(|config| Making::id_of(config).unwrap()).collect();
    let named = names(&["both:1", "example.com/again:2"]);
    let (archive, place) = (out.path().join("archive.tar"), out.path().join("layout"));
    fs::write(&archive, "an older one").unwrap();
    let top = making
        .archive(&images, &named, &archive, ArchiveFormat::Docker)
        .await
        .unwrap();
    let same = making.layout(&images, &named, &place).await.unwrap();
    assert_eq!((top.digest, top.media_type.0.as_str()), (same.digest, INDEX));
    // One alone, and without a name.
    let plain = out.path().join("plain");
    let alone = making.layout(&images[..1], &[], &plain).await.unwrap();
    assert_eq!(alone.media_type.0, MANIFEST);
    making.end().await.unwrap();
    assert_eq!(f.counts().await, (0, 0, 0), "the engine keeps nothing");
    let left: Vec<String> = fs::read_dir(out.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left.len(), 3, "{left:?}");
    for (number, platform) in [Platform::host(), FOREIGN.parse().unwrap()].into_iter().enumerate() {
        let other = Fixture::new();
        let source = format!("oci:{}:example.com/again:2", place.display());
        let wanted = request(&source).platform(platform.clone());
        let info = other.images.pull(wanted, Progress::default()).await.unwrap();
        assert_eq!((info.id, &info.platform), (ids[number], &platform));
    }
    let other = Fixture::new();
    let stream = reader_stream(fs::File::open(&archive).unwrap()).unwrap();
    other.images.load(stream, None, Progress::default()).await.unwrap();
    let variants = other.images.variants("both:1").await.unwrap();
    let mut found: Vec<ImageId> = variants.iter().map(|image| image.id).collect();
    found.sort_by_key(|id| ids.iter().position(|known| known == id));
    assert_eq!(found, ids);
    assert_eq!(
        other.images.document("both:1").await.unwrap().descriptor.digest,
        top.digest
    );
    let other = Fixture::new();
    let info = other.pull(&format!("oci:{}", plain.display())).await.unwrap();
    assert_eq!((info.id, info.manifest.digest), (ids[0], alone.digest));
    // A place that is none leaves nothing.
    let making = f.images.making().await.unwrap();
    let (_, images) = two(&making).await;
    let failed = making.layout(&images, &named, &archive.join("x")).await;
    assert!(failed.is_err());
    let failed = making
        .archive(&images, &named, &archive.join("x"), ArchiveFormat::Oci)
        .await;
    assert!(failed.is_err());
    making.end().await.unwrap();
    assert_eq!(f.counts().await, (0, 0, 0));
}

#[tokio::test]
async fn f16_f17_what_is_listed_has_an_index_and_is_pushed() {
    let f = Fixture::new();
    let making = f.images.making().await.unwrap();
    let mut ids = Vec::new();
    for platform in [Platform::host().to_string(), FOREIGN.to_owned()] {
        let layers = [layer(&making, &[], "which", platform.as_bytes()).await];
        let packed = making.packed(&layers).await.unwrap();
        assert_eq!(packed[0].diff_id, layers[0].diff_id);
        assert!(packed[0].descriptor.media_type.0.ends_with("+gzip"));
        assert_eq!(making.packed(&layers).await.unwrap(), packed, "always the same bytes");
        let config = config(&platform, &layers);
        let image = making
            .image(&config, &packed, Vec::new(), &Progress::default())
            .await
            .unwrap();
        ids.push(image.id);
    }
    let name = names(&["host/both:1"]);
    let top = making.index(&name, &ids).await.unwrap();
    let turned: Vec<ImageId> = ids.iter().rev().copied().collect();
    assert_eq!(making.index(&name, &turned).await.unwrap(), top, "in whatever order");
    let sent = making.push(&name[0], None, Progress::default()).await.unwrap();
    assert_eq!(sent.digest, top.digest);
    making.end().await.unwrap();
    assert_eq!(f.images.variants("host/both:1").await.unwrap().len(), 2);
    let (images, blobs, layers) = f.counts().await;
    // Of each a config, a manifest and a packed layer; and the index.
    assert_eq!((images, blobs, layers), (2, 7, 2), "the plain layers are gone");
    let key = ManifestKey::Tag("1".into());
    let held = f.registry.manifest("both", &key).await.unwrap();
    assert_eq!(held.descriptor.digest, top.digest);
}

fn document(media_type: &str, text: &str) -> ManifestBlob {
    ManifestBlob {
        descriptor: Descriptor::of(media_type, text.as_bytes()),
        bytes: text.to_owned().into(),
    }
}

/// Sends a layer as a cache, and says what it is called there.
async fn exported(f: &Fixture, to: &Repository, content: &[u8]) -> (LayerRef, LayerRef) {
    let making = f.images.making().await.unwrap();
    let plain = layer(&making, &[], "file", content).await;
    let packed = making.packed(std::slice::from_ref(&plain)).await.unwrap();
    let config = document("application/x", "{}");
    let manifest = document(MANIFEST, r#"{"schemaVersion":2}"#);
    making
        .send_cache(to, "latest", &packed, &config, &manifest)
        .await
        .unwrap();
    making.end().await.unwrap();
    assert_eq!(f.counts().await, (0, 0, 0));
    (plain, packed.into_iter().next().unwrap())
}

async fn fetched(f: &Fixture, from: &Repository, layer: &LayerRef) -> Result<LayerRef> {
    let making = f.images.making().await.unwrap();
    let fetched = making.fetched(from, &[], layer, &Cancel::default()).await;
    if fetched.is_ok() {
        assert_eq!(f.counts().await, (0, 1, 1));
    }
    making.end().await.unwrap();
    assert_eq!(f.counts().await, (0, 0, 0), "nothing needs it any more");
    fetched
}

#[tokio::test]
async fn f15_a_layer_comes_back_plain_and_is_what_it_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("cache");
    let to = Repository::to_directory(&place).await.unwrap();
    let (one, packed) = exported(&Fixture::new(), &to, &[7; 200_000]).await;
    let (other, _) = exported(&Fixture::new(), &to, b"another").await;
    let from = Repository::of_directory(&place).await.unwrap();
    let f = Fixture::new();
    assert_eq!(fetched(&f, &from, &packed).await.unwrap(), one, "to the byte");
    let manifest = from.manifest(&ManifestKey::Tag("latest".into())).await.unwrap();
    assert_eq!(&manifest.bytes[..], br#"{"schemaVersion":2}"#);
    let known = Descriptor::of("application/x", b"{}");
    assert_eq!(from.document(&known).await.unwrap(), b"{}");
    // With digests of its own in order, but another layer.
    let lying = LayerRef {
        diff_id: other.diff_id,
        ..packed.clone()
    };
    let error = fetched(&f, &from, &lying).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::DigestMismatch, "{}", error.report());
    let mut larger = packed.clone();
    larger.descriptor.size += 1;
    let error = fetched(&f, &from, &larger).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::DigestMismatch, "{}", error.report());
    let mut huge = packed.clone();
    huge.descriptor.size = u64::MAX;
    assert!(fetched(&f, &from, &huge).await.is_err());
    let file = blob_file(&place, &packed.descriptor.digest);
    let good = fs::read(&file).unwrap();
    for at in [0, 20, good.len() / 2, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).unwrap();
        let error = fetched(&f, &from, &packed).await.unwrap_err();
        let kinds = [ErrorKind::DigestMismatch, ErrorKind::UnsafeArchive];
        assert!(kinds.contains(error.kind()), "{at}: {}", error.report());
    }
    fs::remove_file(&file).unwrap();
    assert!(fetched(&f, &from, &packed).await.unwrap_err().is_not_found());
    let file = blob_file(&place, &known.digest);
    fs::write(&file, "{ ").unwrap();
    assert_eq!(
        from.document(&known).await.unwrap_err().kind(),
        &ErrorKind::DigestMismatch
    );
    assert!(Repository::of_directory(dir.path()).await.unwrap_err().is_not_found());
}

fn blob_file(place: &Path, digest: &Digest) -> std::path::PathBuf {
    place.join("blobs/sha256").join(digest.hex())
}

#[tokio::test]
async fn f15_a_registry_has_a_cache_as_a_directory_has_it() {
    let f = Fixture::new();
    let name: Reference = "host/cache:main".parse().unwrap();
    let making = f.images.making().await.unwrap();
    let to = making.repository(&name, None).await.unwrap();
    assert!(making.here(&name).await.unwrap().is_none());
    making.end().await.unwrap();
    let (one, packed) = exported(&f, &to, b"content").await;
    assert_eq!(fetched(&f, &to, &packed).await.unwrap(), one);
}
