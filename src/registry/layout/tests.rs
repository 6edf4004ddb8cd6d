use std::os::unix::fs::symlink;

use futures_util::TryStreamExt;
use serde_json::json;

use super::*;
use crate::types::Platform;

fn layout() -> (tempfile::TempDir, LayoutWriter) {
    let dir = tempfile::tempdir().unwrap();
    let writer = LayoutWriter::create(dir.path().join("layout")).unwrap();
    (dir, writer)
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

async fn read(registry: &LayoutRegistry, descriptor: &Descriptor, offset: u64) -> Result<Vec<u8>> {
    let chunks: Vec<Bytes> = registry.blob("", descriptor, offset).await?.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn an_image_comes_back_as_it_was_written() {
    let (_dir, writer) = layout();
    let tar: Vec<u8> = (0..700_000u32).map(|n| (n % 251) as u8).collect();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layer = writer.put_layer(&tar[..], compression).unwrap();
        assert_eq!(layer.diff_id, Digest::of(&tar));
        let image = writer
            .put_image(
                Some("app:1"),
                &Platform::host(),
                json!({ "Cmd": ["/x"] }),
                std::slice::from_ref(&layer),
            )
            .unwrap();
        let registry = LayoutRegistry::open(writer.dir()).await.unwrap();
        let manifest = registry.select(None).await.unwrap();
        assert_eq!(manifest.descriptor.digest, image.digest);
        assert_eq!(
            registry
                .manifest("", &ManifestKey::Tag("app:1".into()))
                .await
                .unwrap()
                .bytes,
            manifest.bytes
        );
        let blob = read(&registry, &layer.descriptor, 0).await.unwrap();
        assert_eq!(Digest::of(&blob), layer.descriptor.digest);
        assert_eq!(read(&registry, &layer.descriptor, 100).await.unwrap(), blob[100..]);
    }
    assert!(
        !std::fs::read_dir(writer.dir())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with(".new") })
    );
}

#[tokio::test]
async fn names_choose_and_platforms_join() {
    let (_dir, writer) = layout();
    let amd = writer
        .put_image(Some("a"), &platform("linux/amd64"), json!({}), &[])
        .unwrap();
    let arm = writer
        .put_image(Some("a"), &platform("linux/arm64"), json!({}), &[])
        .unwrap();
    let registry = LayoutRegistry::open(writer.dir()).await.unwrap();
    let joined = registry.select(Some("a")).await.unwrap();
    let digests: Vec<Digest> = index::entries(&joined.bytes)
        .unwrap()
        .iter()
        .map(|entry| entry.digest)
        .collect();
    assert_eq!(digests, [amd.digest, arm.digest]);
    assert!(index::is_index(&joined.descriptor.media_type.0));

    let other = writer
        .put_image(Some("b"), &platform("linux/amd64"), json!({ "Cmd": ["b"] }), &[])
        .unwrap();
    assert_eq!(
        registry.select(Some("b")).await.unwrap().descriptor.digest,
        other.digest
    );
    let error = registry.select(None).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    let error = registry.select(Some("c")).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("a, b"), "{error}");
}

#[tokio::test]
async fn names_are_found_in_nested_indexes() {
    let (_dir, writer) = layout();
    let mut inner = writer
        .put_blob("application/vnd.oci.image.manifest.v1+json", b"{}")
        .unwrap();
    inner.annotations.insert(REF_NAME.into(), "deep".into());
    let mut bytes = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [inner] })).unwrap();
    for _ in 0..2 {
        let nested = writer
            .put_blob("application/vnd.oci.image.index.v1+json", &bytes)
            .unwrap();
        bytes = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [nested] })).unwrap();
    }
    std::fs::write(writer.dir().join("index.json"), &bytes).unwrap();
    let registry = LayoutRegistry::open(writer.dir()).await.unwrap();
    assert_eq!(registry.select(Some("deep")).await.unwrap().bytes, "{}");
}

#[tokio::test]
async fn links_fifos_and_lies_are_refused() {
    let (dir, writer) = layout();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let blob = writer.put_blob("x", b"secret").unwrap();
    let path = writer.dir().join("blobs/sha256").join(blob.digest.hex());
    let registry = LayoutRegistry::open(writer.dir()).await.unwrap();

    std::fs::remove_file(&path).unwrap();
    assert!(read(&registry, &blob, 0).await.unwrap_err().is_not_found());
    symlink(&secret, &path).unwrap();
    assert_eq!(
        read(&registry, &blob, 0).await.unwrap_err().kind(),
        &ErrorKind::UnsafeArchive
    );
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        read(&registry, &blob, 0).await.unwrap_err().kind(),
        &ErrorKind::UnsafeArchive
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "longer than announced").unwrap();
    assert_eq!(
        read(&registry, &blob, 0).await.unwrap_err().kind(),
        &ErrorKind::DigestMismatch
    );
    let key = ManifestKey::Digest(blob.digest);
    assert_eq!(
        registry.manifest("", &key).await.unwrap_err().kind(),
        &ErrorKind::DigestMismatch
    );
    File::create(&path).unwrap().set_len(MAX_MANIFEST + 1).unwrap();
    assert_eq!(
        registry.manifest("", &key).await.unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );

    let real = dir.path().join("elsewhere");
    std::fs::rename(writer.dir().join("blobs"), &real).unwrap();
    symlink(&real, writer.dir().join("blobs")).unwrap();
    assert_eq!(
        read(&registry, &blob, 0).await.unwrap_err().kind(),
        &ErrorKind::UnsafeArchive
    );
    std::fs::remove_file(writer.dir().join("index.json")).unwrap();
    symlink("/etc/passwd", writer.dir().join("index.json")).unwrap();
    assert_eq!(
        registry.select(None).await.unwrap_err().kind(),
        &ErrorKind::UnsafeArchive
    );
}

#[tokio::test]
async fn other_directories_are_no_layouts() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        LayoutRegistry::open(dir.path().join("none"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(LayoutRegistry::open(dir.path()).await.unwrap_err().is_not_found());
    std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(LayoutRegistry::open(dir.path()).await.unwrap_err().is_unsupported());
    std::fs::write(dir.path().join("oci-layout"), "hello").unwrap();
    assert_eq!(
        LayoutRegistry::open(dir.path()).await.unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn conforms() {
    use crate::conformance::registry::{Content, registry};
    let (_dir, writer) = layout();
    let blob = writer.put_blob("application/x", &[5; 700_000]).unwrap();
    let manifest = writer
        .put_manifest(Some("1"), "application/vnd.oci.image.manifest.v1+json", b"{}", None)
        .unwrap();
    assert_eq!((blob.size, manifest.size), (700_000, 2));
    let layout = LayoutRegistry::open(writer.dir()).await.unwrap();
    registry(
        &layout,
        Content {
            repository: "",
            tag: "1",
            manifest: b"{}",
            blob: &[5; 700_000],
        },
    )
    .await;
}
