//! The images of the pull jobs, made here so that they need no network, in the shape of real ones.
//!
//! - `large`: files of this host's `/usr`, a sample by path of whole host packages (programs, libraries, headers, locales,
//!   documentation) with their modes, times and symlinks: about 640 MB in six layers of unequal size as a distribution, a
//!   language, a server and a compiler make them, and a seventh that removes and replaces a few files.
//! - `files`: busybox, and a layer of 50,000 files of 100 bytes to 20 kB, most of them small, of words.
//!
//! Layers are compressed as registries have them: gzip at its usual level 6.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::support::image::{self, Layout};

/// Megabytes of the layers, lowest first, before the last one.
const LARGE_MB: [u64; 6] = [150, 80, 107, 187, 67, 49];

pub fn large(dir: &Path) -> Result<Layout, String> {
    write(dir, large_tars()?)
}

/// The same, with zstd at its usual level 3.
pub fn large_zstd(dir: &Path) -> Result<Layout, String> {
    const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    let pack = |tar: &[u8]| zstd::encode_all(tar, 3).map_err(text);
    let layers = packed(&large_tars()?, pack)?;
    image::write_packed_as(dir, ZSTD, layers, &serde_json::json!({ "Cmd": ["sh"] })).map_err(crate::host::stop)
}

fn large_tars() -> Result<Vec<Vec<u8>>, String> {
    let sample = sample(&LARGE_MB);
    let mut tars = Vec::new();
    let mut rest = sample.as_slice();
    for megabytes in LARGE_MB {
        let mut bytes = 0;
        let mut count = 0;
        while count < rest.len() && bytes < megabytes << 20 {
            bytes += rest[count].1;
            count += 1;
        }
        tars.push(tar_of_host(&rest[..count])?);
        rest = &rest[count..];
    }
    tars.push(changes(&sample)?);
    Ok(tars)
}

pub fn files(dir: &Path) -> Result<Layout, String> {
    let busybox = image::busybox_files().map_err(crate::host::stop)?;
    write(dir, vec![busybox.tar().map_err(text)?, many_files(50_000)?])
}

/// Busybox and 25,000 files.
pub fn tree(dir: &Path) -> Result<Layout, String> {
    let busybox = image::busybox_files().map_err(crate::host::stop)?;
    write(dir, vec![busybox.tar().map_err(text)?, many_files(25_000)?])
}

fn write(dir: &Path, tars: Vec<Vec<u8>>) -> Result<Layout, String> {
    let layers = packed(&tars, gzip)?;
    image::write_packed(dir, layers, &serde_json::json!({ "Cmd": ["sh"] })).map_err(crate::host::stop)
}

/// Each with the digest of its tar.
fn packed(
    tars: &[Vec<u8>],
    pack: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Sync,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let pack = &pack;
    let blobs = std::thread::scope(|scope| {
        let packing: Vec<_> = tars.iter().map(|tar| scope.spawn(move || pack(tar))).collect();
        let packed = packing.into_iter().map(|thread| thread.join().expect("no panic"));
        packed.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(tars.iter().map(|tar| image::digest(tar)).zip(blobs).collect())
}

fn gzip(tar: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(tar).map_err(text)?;
    encoder.finish().map_err(text)
}

/// Files and symlinks below `/usr`, in the order of their paths, with their sizes: every one if that is little, else so many
/// of each directory, told by a hash of the path, that they make up the wanted size.
fn sample(megabytes: &[u64]) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    walk(Path::new("/usr"), &mut all);
    all.sort();
    let total: u64 = all.iter().map(|(_, bytes)| bytes).sum();
    let wanted = megabytes.iter().sum::<u64>() << 20;
    let share = (wanted as f64 * 1.03 / total.max(1) as f64).min(1.0);
    all.retain(|(path, _)| f64::from(hash(path)) <= share * f64::from(u32::MAX));
    all
}

/// Files of more than 48 MB, of which an image has one or two at most, would make a sample by chance rather than by kind.
const LARGEST: u64 = 48 << 20;

fn walk(dir: &Path, found: &mut Vec<(PathBuf, u64)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (Ok(kind), Ok(meta)) = (entry.file_type(), entry.metadata()) else {
            continue;
        };
        if kind.is_dir() && meta.dev() == fs::metadata("/usr").map_or(0, |usr| usr.dev()) {
            walk(&entry.path(), found);
        } else if kind.is_symlink() || (kind.is_file() && meta.len() <= LARGEST) {
            let bytes = if kind.is_file() { meta.len() } else { 0 };
            found.push((entry.path(), bytes));
        }
    }
}

/// FNV-1a, mixed: the same sample on every run.
fn hash(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    ((hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

fn tar_of_host(files: &[(PathBuf, u64)]) -> Result<Vec<u8>, String> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut known = BTreeSet::new();
    for (path, _) in files {
        let mut dirs: Vec<&Path> = path.ancestors().skip(1).filter(|dir| dir.parent().is_some()).collect();
        dirs.reverse();
        for dir in dirs {
            if known.insert(dir.to_path_buf()) {
                append(&mut archive, dir)?;
            }
        }
        append(&mut archive, path)?;
    }
    archive.into_inner().map_err(text)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &Path) -> Result<(), String> {
    // What goes away meanwhile is left out.
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&meta);
    header.set_mode(meta.permissions().mode() & 0o7777);
    let name = path.strip_prefix("/").map_err(text)?;
    if meta.is_dir() {
        return archive.append_data(&mut header, name, &[][..]).map_err(text);
    }
    header.set_size(0);
    if meta.is_symlink() {
        let target = fs::read_link(path).map_err(text)?;
        return archive.append_link(&mut header, name, target).map_err(text);
    }
    let Ok(body) = fs::read(path) else { return Ok(()) };
    header.set_size(body.len() as u64);
    archive.append_data(&mut header, name, &body[..]).map_err(text)
}

/// A last layer as of a build step that cleans up: ten files gone, ten replaced.
fn changes(sample: &[(PathBuf, u64)]) -> Result<Vec<u8>, String> {
    let mut archive = tar::Builder::new(Vec::new());
    let files: Vec<&PathBuf> = sample
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(path, _)| path)
        .collect();
    for (number, path) in files.iter().step_by((files.len() / 20).max(1)).take(20).enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let mut name = path.strip_prefix("/").map_err(text)?.to_path_buf();
        let mut body = b"replaced\n".to_vec();
        if number % 2 == 0 {
            let file = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.set_file_name(format!(".wh.{file}"));
            body.clear();
        }
        header.set_size(body.len() as u64);
        archive.append_data(&mut header, &name, &body[..]).map_err(text)?;
    }
    archive.into_inner().map_err(text)
}

/// Nine files of 100 to 1,100 bytes to one of up to 20 kB, in directories of 100: about 100 MB as a tar.
fn many_files(count: usize) -> Result<Vec<u8>, String> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..count {
        let dir = format!("srv/app/modules/{:03}", number / 100);
        if number % 100 == 0 {
            directory(&mut archive, &dir)?;
        }
        let size = match random.below(10) {
            0 => 100 + (random.below(141) as usize).pow(2),
            _ => 100 + random.below(1000) as usize,
        };
        let mut header = tar::Header::new_gnu();
        header.set_mode(if number % 20 == 0 { 0o755 } else { 0o644 });
        header.set_mtime(1_700_000_000 + number as u64);
        header.set_size(size as u64);
        let body = words(&mut random, size);
        archive
            .append_data(&mut header, format!("{dir}/file-{number}.js"), &body[..])
            .map_err(text)?;
    }
    archive.into_inner().map_err(text)
}

fn directory(archive: &mut tar::Builder<Vec<u8>>, path: &str) -> Result<(), String> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    archive
        .append_data(&mut header, format!("{path}/"), &[][..])
        .map_err(text)
}

/// Text that packs as source code does, about four to one.
fn words(random: &mut Random, size: usize) -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "const",
        "return",
        "function",
        "module",
        "exports",
        "require",
        "value",
        "options",
        "error",
        "callback",
        "index",
        "length",
        "string",
        "object",
        "default",
        "import",
        "from",
        "async",
        "await",
        "undefined",
        "this",
        "prototype",
        "=> {",
        "});",
    ];
    let mut body = Vec::with_capacity(size + 32);
    while body.len() < size {
        if random.below(4) == 0 {
            body.extend_from_slice(format!("{:x}", random.below(1 << 20)).as_bytes());
        } else {
            body.extend_from_slice(WORDS[random.below(24) as usize].as_bytes());
        }
        body.push(if random.below(8) == 0 { b'\n' } else { b' ' });
    }
    body.truncate(size);
    body
}

/// xorshift64: the same bytes on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
