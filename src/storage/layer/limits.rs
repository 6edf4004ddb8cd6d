//! Bounds on what a layer may ask for.

/// Bounds that keep a hostile layer from eating the machine. The disk and its quotas remain the real limit on size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the uncompressed tar, padding included.
    pub stream_bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of one PAX header or GNU long name.
    pub header_bytes: u64,
    /// Bytes of a path (`PATH_MAX`).
    pub path_bytes: usize,
    /// Components of a path.
    pub path_depth: usize,
}

impl Default for Limits {
    /// 512 GiB, 16 million entries, headers of 1 MiB, paths of 4,096 bytes and 256 components.
    fn default() -> Self {
        Self {
            stream_bytes: 512 << 30,
            entries: 16_000_000,
            header_bytes: 1 << 20,
            path_bytes: 4096,
            path_depth: 256,
        }
    }
}
