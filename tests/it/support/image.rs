//! Images made here: busybox of the host in an OCI layout, and layers of any files one likes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::http;
use crate::frame::{Stop, fail, skip};

/// An OCI layout on disk with one image in it.
#[derive(Debug, Clone)]
pub struct Layout {
    pub dir: PathBuf,
    /// `sha256:…` of the manifest.
    pub manifest: String,
    /// `sha256:…` of the config.
    pub config: String,
    /// `sha256:…` and size of each layer blob, lowest first.
    pub layers: Vec<(String, u64)>,
}

/// Files of a layer, by path without a leading slash.
#[derive(Debug, Default)]
pub struct Files(Vec<(String, Entry)>);

#[derive(Debug)]
enum Entry {
    Dir(u32, u64),
    File(u32, Vec<u8>),
    Link(String),
    HardLink(String),
}

impl Files {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn dir(mut self, path: impl Into<String>, mode: u32) -> Self {
        self.0.push((path.into(), Entry::Dir(mode, 0)));
        self
    }

    /// A directory of a user and of the group with the same number.
    pub fn owned_dir(mut self, path: impl Into<String>, mode: u32, owner: u64) -> Self {
        self.0.push((path.into(), Entry::Dir(mode, owner)));
        self
    }

    pub fn file(mut self, path: impl Into<String>, mode: u32, body: impl Into<Vec<u8>>) -> Self {
        self.0.push((path.into(), Entry::File(mode, body.into())));
        self
    }

    pub fn link(mut self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.0.push((path.into(), Entry::Link(target.into())));
        self
    }

    /// Another name of an earlier file.
    pub fn hard_link(mut self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.0.push((path.into(), Entry::HardLink(target.into())));
        self
    }

    pub fn tar(&self) -> std::io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(1_700_000_000);
            header.set_uid(0);
            header.set_gid(0);
            match entry {
                Entry::Dir(mode, owner) => {
                    header.set_uid(*owner);
                    header.set_gid(*owner);
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    archive.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Entry::File(mode, body) => {
                    header.set_mode(*mode);
                    header.set_size(body.len() as u64);
                    archive.append_data(&mut header, path, &body[..])?;
                }
                Entry::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)?;
                }
                Entry::HardLink(target) => {
                    header.set_entry_type(tar::EntryType::Link);
                    header.set_mode(0o644);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)?;
                }
            }
        }
        archive.into_inner()
    }
}

/// The files of a small system around the host's static busybox.
pub fn busybox_files() -> Result<Files, Stop> {
    const APPLETS: &str = "sh cat echo true false sleep ls id env pwd hostname touch mkdir rm mount ps kill head dd df stat \
                           wc grep tr seq date ip yes chown chmod cp mv printenv unshare mkfifo sort uname nproc whoami tail test expr readlink tee find sync du";
    let Ok(busybox) = fs::read("/bin/busybox") else {
        return skip("no /bin/busybox (Debian package busybox-static)");
    };
    if memchr_interp(&busybox) {
        return skip("/bin/busybox is not static (Debian package busybox-static)");
    }
    let mut files = Files::new().dir("bin", 0o755).file("bin/busybox", 0o755, busybox);
    for applet in APPLETS.split_whitespace() {
        files = files.link(format!("bin/{applet}"), "busybox");
    }
    for dir in ["dev", "etc", "home", "proc", "sys", "var"] {
        files = files.dir(dir, 0o755);
    }
    Ok(files
        .dir("tmp", 0o1777)
        .dir("root", 0o700)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234:app:/home:/bin/sh\n",
        )
        .file("etc/secret", 0o644, "the tide table")
        .file("etc/group", 0o644, "root:x:0:\napp:x:1234:\nextra:x:2345:app\n"))
}

/// Whether an ELF file names a dynamic linker, told by the name's usual bytes.
fn memchr_interp(elf: &[u8]) -> bool {
    elf[..elf.len().min(4096)].windows(7).any(|window| window == b"ld-linu")
}

/// Busybox in a layout: one layer, `sh` as its command, and a `PATH`.
pub fn busybox(dir: &Path) -> Result<Layout, Stop> {
    let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] });
    write_layout(dir, &[busybox_files()?], &config)
}

/// A layout of gzip layers with `config` as the image's own settings.
pub fn write_layout(dir: &Path, layers: &[Files], config: &Value) -> Result<Layout, Stop> {
    let mut packed = Vec::new();
    for layer in layers {
        let tar = layer.tar()?;
        packed.push((digest(&tar), gzip(&tar)?));
    }
    write_packed(dir, packed, config)
}

/// A layout of layers that are packed already, each with the digest of its tar.
pub fn write_packed(dir: &Path, layers: Vec<(String, Vec<u8>)>, config: &Value) -> Result<Layout, Stop> {
    write_packed_for(dir, architecture(), LAYER, layers, config)
}

/// As [`write_packed`], of layers of another media type.
pub fn write_packed_as(
    dir: &Path,
    media_type: &str,
    layers: Vec<(String, Vec<u8>)>,
    config: &Value,
) -> Result<Layout, Stop> {
    write_packed_for(dir, architecture(), media_type, layers, config)
}

/// As [`write_layout`], for a processor in Go's words.
pub fn write_layout_for(dir: &Path, architecture: &str, layers: &[Files], config: &Value) -> Result<Layout, Stop> {
    let mut packed = Vec::new();
    for layer in layers {
        let tar = layer.tar()?;
        packed.push((digest(&tar), gzip(&tar)?));
    }
    write_packed_for(dir, architecture, LAYER, packed, config)
}

fn write_packed_for(
    dir: &Path,
    architecture: &str,
    media_type: &str,
    layers: Vec<(String, Vec<u8>)>,
    config: &Value,
) -> Result<Layout, Stop> {
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    let mut diff_ids = Vec::new();
    let mut blobs = Vec::new();
    for (diff_id, blob) in layers {
        diff_ids.push(diff_id);
        blobs.push((put(dir, &blob)?, blob.len() as u64));
    }
    let config = json!({
        "architecture": architecture, "os": "linux", "config": config, "created": "2024-01-01T00:00:00Z",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": diff_ids.iter().map(|_| json!({ "created": "2024-01-01T00:00:00Z", "created_by": "test" })).collect::<Vec<_>>(),
    });
    let config = serde_json::to_vec(&config)?;
    let config_digest = put(dir, &config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config.len() as u64),
        "layers": blobs.iter().map(|(digest, size)| descriptor(media_type, digest, *size)).collect::<Vec<_>>(),
    }))?;
    let digest = put(dir, &manifest)?;
    let mut entry = descriptor(MANIFEST, &digest, manifest.len() as u64);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] });
    fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(Layout {
        dir: dir.to_path_buf(),
        manifest: digest,
        config: config_digest,
        layers: blobs,
    })
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Layout {
    /// The bytes of a blob.
    pub fn blob(&self, digest: &str) -> std::io::Result<Vec<u8>> {
        fs::read(blob_path(&self.dir, digest))
    }

    /// Bytes of config and layers together, as progress events must add up to.
    pub fn total_bytes(&self) -> Result<u64, Stop> {
        let config = self.blob(&self.config)?.len() as u64;
        Ok(config + self.layers.iter().map(|(_, size)| size).sum::<u64>())
    }

    /// Uploads everything to a registry that speaks plain HTTP and asks for no password.
    pub fn push(&self, to: std::net::SocketAddr, repository: &str, tag: &str) -> Result<(), Stop> {
        for digest in self.layers.iter().map(|(digest, _)| digest).chain([&self.config]) {
            push_blob(to, repository, digest, &self.blob(digest)?)?;
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        expect(
            201,
            &http::request(to, "PUT", &path, MANIFEST, &self.blob(&self.manifest)?)?,
        )
    }
}

fn push_blob(to: std::net::SocketAddr, repository: &str, digest: &str, body: &[u8]) -> Result<(), Stop> {
    let begun = http::request(
        to,
        "POST",
        &format!("/v2/{repository}/blobs/uploads/"),
        "text/plain",
        b"",
    )?;
    expect(202, &begun)?;
    let Some(location) = begun.header("location") else {
        return fail("no place to upload to");
    };
    let path = location.find("/v2/").map_or(location, |at| &location[at..]);
    let mark = if path.contains('?') { '&' } else { '?' };
    let done = http::request(
        to,
        "PUT",
        &format!("{path}{mark}digest={digest}"),
        "application/octet-stream",
        body,
    )?;
    expect(201, &done)
}

fn expect(status: u16, response: &http::Response) -> Result<(), Stop> {
    if response.status == status {
        return Ok(());
    }
    fail(format!(
        "the registry answered {}: {}",
        response.status,
        String::from_utf8_lossy(&response.body)
    ))
}

/// The digest of bytes, with its algorithm in front.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The architecture in Go's words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": digest, "size": size })
}

fn blob_path(dir: &Path, digest: &str) -> PathBuf {
    dir.join("blobs").join(digest.replace(':', "/"))
}

fn put(dir: &Path, bytes: &[u8]) -> std::io::Result<String> {
    let digest = digest(bytes);
    fs::write(blob_path(dir, &digest), bytes)?;
    Ok(digest)
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Busybox in a layout that is made once per run of the tests.
pub fn shared() -> Result<&'static Layout, Stop> {
    static SHARED: std::sync::OnceLock<Layout> = std::sync::OnceLock::new();
    if let Some(layout) = SHARED.get() {
        return Ok(layout);
    }
    let layout = busybox(&super::scratch::dir().join("busybox"))?;
    Ok(SHARED.get_or_init(|| layout))
}
