//! Tiny layers made in code: well-behaved ones, and any hostile one that a tar header can express.

use std::io::Write;

use crate::types::Digest;

/// A tar archive in the making. Values are written as given; nothing is checked.
#[derive(Debug, Clone, Default)]
pub struct LayerBuilder {
    bytes: Vec<u8>,
    pending: Vec<(String, Vec<u8>)>,
}

/// The metadata of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time in seconds since the epoch.
    pub mtime: u64,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1_600_000_000,
        }
    }
}

impl Meta {
    /// Owned by root, with this mode.
    pub fn mode(mode: u32) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// With this owner.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }
}

impl LayerBuilder {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file of root's with mode 0644.
    #[must_use]
    pub fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(b'0', path, "", &Meta::default(), data)
    }

    /// A directory of root's with mode 0755.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", &Meta::mode(0o755), b"")
    }

    /// A symlink.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, &Meta::mode(0o777), b"")
    }

    /// A hard link to an earlier entry.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, &Meta::default(), b"")
    }

    /// A whiteout: what the layers below have at `path` is gone.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path
            .rsplit_once('/')
            .map_or(("", path), |(parent, name)| (parent, name));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{slash}.wh.{name}"), b"")
    }

    /// An opaque mark: all that the layers below have in `dir` is gone.
    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), b"")
    }

    /// A PAX record for the next entry.
    #[must_use]
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pending.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// A device node.
    #[must_use]
    pub fn device(mut self, path: &str, kind: u8, major: u32, minor: u32) -> Self {
        self.flush();
        let mut header = header_of(kind, path, "", &Meta::mode(0o600), 0);
        let _ = header.set_device_major(major);
        let _ = header.set_device_minor(minor);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self
    }

    /// Any entry: a type flag, a path, a link target, metadata, data.
    #[must_use]
    pub fn entry(mut self, kind: u8, path: &str, link: &str, meta: &Meta, data: &[u8]) -> Self {
        if path.len() > 100 {
            self.pending.push(("path".to_owned(), path.as_bytes().to_vec()));
        }
        if link.len() > 100 {
            self.pending.push(("linkpath".to_owned(), link.as_bytes().to_vec()));
        }
        self.flush();
        let header = header_of(kind, path, link, meta, data.len() as u64);
        self.raw(header.as_bytes()).padded(data)
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Bytes, and zeros up to a whole block.
    #[must_use]
    pub fn padded(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The archive with its end mark.
    pub fn build(mut self) -> Vec<u8> {
        self.flush();
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// The archive without an end mark.
    pub fn build_open(mut self) -> Vec<u8> {
        self.flush();
        self.bytes
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut body = Vec::new();
        for (key, value) in std::mem::take(&mut self.pending) {
            body.extend_from_slice(&record(&key, &value));
        }
        let header = header_of(b'x', "PaxHeaders/x", "", &Meta::default(), body.len() as u64);
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(&body);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }
}

/// A PAX record: its own length in decimal, a space, `key=value`, a newline.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = 3 + key.len() + value.len();
    let mut length = body;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn header_of(kind: u8, path: &str, link: &str, meta: &Meta, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let fields = header.as_mut_bytes();
    for (field, text) in [(0..100, path), (157..257, link)] {
        let text = &text.as_bytes()[..text.len().min(100)];
        fields[field.start..field.start + text.len()].copy_from_slice(text);
    }
    header.set_mode(meta.mode);
    header.set_uid(meta.uid);
    header.set_gid(meta.gid);
    header.set_mtime(meta.mtime);
    header.set_size(size);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_cksum();
    header
}

/// Bytes as one gzip member.
///
/// # Panics
/// Never: it writes to memory.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes)
        .and_then(|()| out.finish())
        .expect("gzip to memory")
}

/// Bytes as one zstd frame.
///
/// # Panics
/// Never: it writes to memory.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("zstd to memory")
}

/// A layer's diff id.
pub fn diff_id(tar: &[u8]) -> Digest {
    Digest::of(tar)
}
