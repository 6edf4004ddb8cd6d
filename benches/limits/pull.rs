//! The least a pull can cost: every blob from the same registry over a connection of its own, hashed, kept, inflated, hashed
//! again and written, one layer per processor at a time, biggest first; who has no layer left writes files for the others;
//! the blobs on the disk at the end, the trees left to the kernel, as everybody leaves them. It checks the digests, and none of a tar's hostility; it keeps no records, sets no
//! owners, and knows no more of tar than the images here need.
//!
//! The floor of the jobs `pull-large`, `pull-zstd` and `pull-files`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, futimens, mkdirat, mknodat};
use nix::sys::time::TimeSpec;
use nix::unistd::{linkat, symlinkat};
use sha2::{Digest, Sha256};

/// Files that are handed to another thread go in batches of so many bytes.
const BATCH: usize = 512 << 10;
const CHUNK: usize = 256 << 10;

/// Fetches and unpacks the layers, given as digest and size, below `dir`.
///
/// # Errors
/// The first that any layer met.
pub fn pull(from: SocketAddr, repository: &str, layers: &[(String, u64)], dir: &Path) -> io::Result<()> {
    let mut queue: Vec<&(String, u64)> = layers.iter().collect();
    queue.sort_by_key(|(_, size)| *size);
    let pool = Pool {
        layers_left: AtomicUsize::new(queue.len()),
        ..Pool::default()
    };
    let queue = Mutex::new(queue);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || -> io::Result<()> {
            loop {
                let next = queue.lock().expect("not poisoned").pop();
                let Some((digest, size)) = next else { return pool.help() };
                let worked = layer(from, repository, digest, *size, dir, &pool);
                pool.layer_done();
                worked?;
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut ended: Vec<_> = handles
            .into_iter()
            .map(|handle| handle.join().expect("no panic"))
            .collect();
        ended
            .pop()
            .map_or(Ok(()), |last| ended.into_iter().chain([last]).collect())
    })?;
    for (digest, _) in layers {
        File::open(dir.join(format!("{}.blob", digest.replace(':', "-"))))?.sync_data()?;
    }
    File::open(dir)?.sync_all()
}

#[derive(Default)]
struct Pool {
    batches: Mutex<VecDeque<Batch>>,
    more: Condvar,
    idle: AtomicUsize,
    layers_left: AtomicUsize,
}

struct Batch {
    bytes: Vec<u8>,
    files: Vec<(Arc<OwnedFd>, Vec<u8>, Meta, usize)>,
    /// Of the layer that made it.
    unwritten: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
struct Meta {
    mode: u32,
    mtime: i64,
}

impl Pool {
    fn layer_done(&self) {
        self.layers_left.fetch_sub(1, Ordering::AcqRel);
        let _held = self.batches.lock().expect("not poisoned");
        self.more.notify_all();
    }

    /// Writes files for the others until the last layer is done.
    fn help(&self) -> io::Result<()> {
        self.idle.fetch_add(1, Ordering::AcqRel);
        let mut batches = self.batches.lock().expect("not poisoned");
        loop {
            if let Some(batch) = batches.pop_front() {
                drop(batches);
                batch.write()?;
                batches = self.batches.lock().expect("not poisoned");
            } else if self.layers_left.load(Ordering::Acquire) == 0 {
                return Ok(());
            } else {
                batches = self.more.wait(batches).expect("not poisoned");
            }
        }
    }

    fn take_or_write(&self, batch: Batch) -> io::Result<()> {
        if self.idle.load(Ordering::Acquire) == 0 {
            return batch.write();
        }
        let mut batches = self.batches.lock().expect("not poisoned");
        if batches.len() < 2 {
            batches.push_back(batch);
            self.more.notify_one();
            return Ok(());
        }
        drop(batches);
        batch.write()
    }
}

impl Batch {
    fn new(unwritten: &Arc<AtomicUsize>) -> Self {
        unwritten.fetch_add(1, Ordering::AcqRel);
        Self {
            bytes: Vec::with_capacity(BATCH + BATCH / 4),
            files: Vec::new(),
            unwritten: Arc::clone(unwritten),
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut rest = self.bytes.as_slice();
        for (dir, name, meta, size) in &self.files {
            let (body, behind) = rest.split_at(*size);
            rest = behind;
            let mut file = create(dir, name, *meta)?;
            file.write_all(body)?;
            finish(&file, *meta)?;
        }
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.unwritten.fetch_sub(1, Ordering::AcqRel);
    }
}

fn create(dir: &OwnedFd, name: &[u8], meta: Meta) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    Ok(File::from(openat(
        dir,
        name,
        flags,
        Mode::from_bits_truncate(meta.mode),
    )?))
}

fn finish(file: &File, meta: Meta) -> io::Result<()> {
    let time = TimeSpec::new(meta.mtime, 0);
    Ok(futimens(file, &time, &time)?)
}

fn layer(from: SocketAddr, repository: &str, digest: &str, size: u64, dir: &Path, pool: &Pool) -> io::Result<()> {
    let name = digest.replace(':', "-");
    fs::create_dir(dir.join(&name))?;
    let mut stream = TcpStream::connect(from)?;
    write!(
        stream,
        "GET /v2/{repository}/blobs/{digest} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::with_capacity(CHUNK, stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut blob = Kept {
        inner: reader.take(size),
        hasher: Sha256::new(),
        kept: File::create(dir.join(format!("{name}.blob")))?,
        hashed: 0,
    };
    let mut tar = Tar {
        inflate: inflate(&mut blob)?,
        hasher: Sha256::new(),
        buffer: vec![0; CHUNK],
        start: 0,
        end: 0,
    };
    unpack(&mut tar, &dir.join(name), pool)?;
    std::hint::black_box(tar.hasher.finalize_reset());
    drop(tar);
    io::copy(&mut blob, &mut io::sink())?;
    if format!("sha256:{}", hex::encode(blob.hasher.finalize())) != digest {
        return Err(io::Error::other(format!("{digest} is damaged")));
    }
    Ok(())
}

/// gzip, or zstd.
fn inflate<'a>(blob: &'a mut (impl BufRead + 'a)) -> io::Result<Box<dyn Read + 'a>> {
    if blob.fill_buf()?.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(blob)?));
    }
    Ok(Box::new(flate2::bufread::GzDecoder::new(blob)))
}

fn unpack(tar: &mut Tar<impl Read>, dir: &Path, pool: &Pool) -> io::Result<()> {
    let root = Arc::new(OwnedFd::from(File::open(dir)?));
    let (mut at, mut here) = (Vec::new(), Arc::clone(&root));
    let unwritten = Arc::new(AtomicUsize::new(0));
    let mut batch = Batch::new(&unwritten);
    let mut dirs = Vec::new();
    let (mut long, mut long_link) = (None, None);
    loop {
        let header = tar.block()?;
        if header[0] == 0 {
            break;
        }
        let size = octal(&header[124..136]) as usize;
        let meta = Meta {
            mode: octal(&header[100..108]) as u32,
            mtime: octal(&header[136..148]),
        };
        let kind = header[156];
        if kind == b'L' || kind == b'K' {
            let mut text = tar.take(size)?;
            text.truncate(until_nul(&text).len());
            *(if kind == b'L' { &mut long } else { &mut long_link }) = Some(text);
            continue;
        }
        let path = long.take().unwrap_or_else(|| until_nul(&header[..100]).to_vec());
        let link = long_link
            .take()
            .unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        let cut = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = cut.map_or((&[][..], path), |cut| (&path[..cut], &path[cut + 1..]));
        if parent != at {
            at = parent.to_vec();
            here = Arc::new(open_dir(&root, parent)?);
        }
        match kind {
            b'5' => {
                mkdirat(&*here, name, Mode::from_bits_truncate(meta.mode))?;
                dirs.push((path.to_vec(), meta));
            }
            b'2' => symlinkat(link.as_slice(), &*here, name)?,
            b'1' => {
                pool.take_or_write(std::mem::replace(&mut batch, Batch::new(&unwritten)))?;
                while unwritten.load(Ordering::Acquire) > 1 {
                    std::thread::yield_now();
                }
                linkat(&root, link.as_slice(), &*here, name, AtFlags::empty())?;
            }
            _ if name.starts_with(b".wh.") => mknodat(&*here, &name[4..], SFlag::S_IFCHR, Mode::empty(), 0)?,
            _ if size > BATCH / 4 => {
                let mut file = create(&here, name, meta)?;
                tar.pass(size, |piece| file.write_all(piece))?;
                finish(&file, meta)?;
            }
            _ => {
                tar.pass(size, |piece| {
                    batch.bytes.extend_from_slice(piece);
                    Ok(())
                })?;
                batch.files.push((Arc::clone(&here), name.to_vec(), meta, size));
                if batch.bytes.len() >= BATCH || batch.files.len() >= 256 {
                    pool.take_or_write(std::mem::replace(&mut batch, Batch::new(&unwritten)))?;
                }
            }
        }
    }
    tar.drain()?;
    batch.write()?;
    drop(batch);
    while unwritten.load(Ordering::Acquire) > 0 {
        std::thread::yield_now();
    }
    for (path, meta) in dirs.iter().rev() {
        finish(&File::from(open_dir(&root, path)?), *meta)?;
    }
    Ok(())
}

fn open_dir(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    if let Ok(dir) = openat(root, path, flags, Mode::empty()) {
        return Ok(dir);
    }
    // A layer that says nothing of its directories.
    for (cut, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let _ = mkdirat(root, &path[..cut], Mode::from_bits_truncate(0o755));
    }
    let _ = mkdirat(root, path, Mode::from_bits_truncate(0o755));
    Ok(openat(root, path, flags, Mode::empty())?)
}

fn octal(field: &[u8]) -> i64 {
    let digits = field.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |value, digit| value * 8 + i64::from(digit - b'0'))
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What comes out of a layer, hashed.
struct Tar<R> {
    inflate: R,
    hasher: Sha256,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Tar<R> {
    fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            while self.end < CHUNK {
                match self.inflate.read(&mut self.buffer[self.end..])? {
                    0 => break,
                    length => self.end += length,
                }
            }
            self.hasher.update(&self.buffer[..self.end]);
        }
        Ok(self.end - self.start)
    }

    fn pass(&mut self, size: usize, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let take = self.fill()?.min(left);
            if take == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to(&self.buffer[self.start..self.start + take])?;
            self.start += take;
            left -= take;
        }
        let mut padding = size.next_multiple_of(512) - size;
        while padding > 0 {
            let take = self.fill()?.min(padding);
            if take == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.start += take;
            padding -= take;
        }
        Ok(())
    }

    fn block(&mut self) -> io::Result<[u8; 512]> {
        let (mut block, mut filled) = ([0; 512], 0);
        self.pass(512, |piece| {
            block[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
            Ok(())
        })?;
        Ok(block)
    }

    fn take(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.pass(size, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn drain(&mut self) -> io::Result<()> {
        loop {
            self.start = self.end;
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }
}

/// A blob that is hashed and kept as it is read.
struct Kept<R> {
    inner: R,
    hasher: Sha256,
    kept: File,
    /// Bytes of the buffer that were seen.
    hashed: usize,
}

impl<R: BufRead> BufRead for Kept<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let piece = self.inner.fill_buf()?;
        if self.hashed == 0 && !piece.is_empty() {
            self.hasher.update(piece);
            self.kept.write_all(piece)?;
            self.hashed = piece.len();
        }
        Ok(piece)
    }

    fn consume(&mut self, amount: usize) {
        self.hashed -= amount;
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let take = piece.len().min(buffer.len());
        buffer[..take].copy_from_slice(&piece[..take]);
        self.consume(take);
        Ok(take)
    }
}
