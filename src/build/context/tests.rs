//! Contexts from everywhere, and what servers and archives may try.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::source::Context;
use super::*;
use crate::conformance::layers::{LayerBuilder, Meta, gzip};
use crate::error::{ErrorKind, Result};
use crate::types::{ByteStream, Digest};

struct Bench {
    dir: tempfile::TempDir,
    services: Services,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("scratch")).unwrap();
        for (path, text) in files {
            let path = dir.path().join("context").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let services = Services::new(dir.path().join("scratch"));
        Self { dir, services }
    }

    fn services(&self) -> Services {
        self.services.clone()
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    fn open(&self, source: ContextSource) -> Result<Context> {
        let services = self.services();
        match run(open(source, &services))? {
            Opened::Context(context) => Ok(context),
            Opened::Image(image) => panic!("{image:?}"),
        }
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

fn stream(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<Result<Bytes>> = bytes
        .chunks(1000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    futures_util::stream::iter(pieces).boxed()
}

fn names(context: &Context, path: &str) -> Vec<String> {
    let view = context.tree().view().unwrap();
    let folder = view.folder(path.as_bytes()).unwrap().unwrap();
    let names = folder.names().unwrap();
    names
        .into_iter()
        .map(|(name, _)| String::from_utf8(name).unwrap())
        .collect()
}

#[test]
fn f18_archives_are_contexts() {
    let tar = LayerBuilder::new()
        .file("Dockerfile", b"FROM scratch")
        .entry(b'5', "d", "", &Meta::mode(0o750).owner(7, 8), b"")
        .entry(b'0', "d/f", "", &Meta::mode(0o640).owner(7, 8), b"F")
        .symlink("l", "/etc")
        .file(".dockerignore", b"*.log")
        .file("x.log", b"")
        .build();
    let zst = zstd::encode_all(tar.as_slice(), 3).unwrap();
    for packed in [tar.clone(), gzip(&tar), zst] {
        let bench = Bench::new(&[]);
        for source in [
            ContextSource::Tar(stream(&packed)),
            ContextSource::Stream(stream(&packed)),
        ] {
            let mut context = bench.open(source).unwrap();
            assert_eq!(
                context.dockerfile(None).unwrap(),
                ("Dockerfile".to_owned(), b"FROM scratch".to_vec())
            );
            assert_eq!(names(&context, ""), [".dockerignore", "Dockerfile", "d", "l"]);
            let view = context.tree().view().unwrap();
            let folder = view.folder(b"d").unwrap().unwrap();
            let node = folder.look(b"f").unwrap().unwrap();
            assert_eq!(node.mode, 0o640);
            // Owners of archives do not count: the files are the caller's.
            assert_eq!(node.uid, nix::unistd::geteuid().as_raw());
        }
    }
}

#[test]
fn f18_a_stream_may_be_a_dockerfile_alone() {
    let bench = Bench::new(&[]);
    let text = b"FROM scratch\nLABEL a=b\n";
    for source in [
        ContextSource::Stream(stream(text)),
        ContextSource::Dockerfile(String::from_utf8_lossy(text).into_owned()),
    ] {
        let mut context = bench.open(source).unwrap();
        assert_eq!(context.dockerfile(None).unwrap().1, text);
        assert!(names(&context, "").is_empty());
    }
    let empty = bench
        .open(ContextSource::Stream(stream(b"")))
        .unwrap()
        .dockerfile(None)
        .unwrap();
    assert!(empty.1.is_empty());
    let large = vec![b'#'; (4 << 20) + 1];
    assert_eq!(
        bench.open(ContextSource::Stream(stream(&large))).unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );
}

#[test]
fn f18_hostile_archives_write_nothing_outside() {
    for tar in [
        LayerBuilder::new().file("../../../x", b"x").build(),
        LayerBuilder::new()
            .symlink("l", "../..")
            .file("l/../../x", b"x")
            .build(),
        LayerBuilder::new().hard_link("a", "../../secret").build(),
        LayerBuilder::new().file("a", &[b'x'; 2000]).build()[..1500].to_vec(),
    ] {
        let bench = Bench::new(&[]);
        fs::write(bench.dir.path().join("secret"), "secret").unwrap();
        let before = fs::read_dir(bench.dir.path()).unwrap().count();
        let error = bench.open(ContextSource::Tar(stream(&tar))).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::UnsafeArchive, "{}", error.report());
        assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), before);
        assert_eq!(fs::metadata(bench.dir.path().join("secret")).unwrap().nlink(), 1);
    }
    let through = LayerBuilder::new().symlink("l", "../../..").file("l/f", b"x").build();
    let bench = Bench::new(&[]);
    let context = bench.open(ContextSource::Tar(stream(&through))).unwrap();
    assert_eq!(names(&context, ""), ["f", "l"], "links lead inside");
    let cut = bench.open(ContextSource::Tar(stream(b"BZh91AY&SY"))).unwrap_err();
    assert_eq!(cut.kind(), &ErrorKind::UnsafeArchive, "{}", cut.report());
}

#[test]
fn f18_dockerfiles_are_found_inside_the_context() {
    let bench = Bench::new(&[("app/Dockerfile.dev", "FROM a"), ("real", "FROM b"), ("d/x", "")]);
    let root = bench.context();
    std::os::unix::fs::symlink("real", root.join("Dockerfile")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("out")).unwrap();
    let open = || bench.open(ContextSource::from(root.as_path())).unwrap();
    assert_eq!(open().dockerfile(None).unwrap().1, b"FROM b");
    assert_eq!(open().dockerfile(Some("app/Dockerfile.dev")).unwrap().1, b"FROM a");
    let missing = open().dockerfile(Some("app/Dockerfile.deb")).unwrap_err();
    assert!(
        missing.is_not_found() && missing.to_string().contains("Dockerfile.dev"),
        "{missing}"
    );
    assert!(open().dockerfile(Some("out")).unwrap_err().is_not_found());
    assert!(
        open()
            .dockerfile(Some("../../../etc/passwd"))
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(
        open().dockerfile(Some("d")).unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );
    assert!(
        bench
            .open(ContextSource::Directory(root.join("nope")))
            .unwrap_err()
            .is_not_found()
    );
    assert!(bench.open(ContextSource::Directory(root.join("real"))).is_err());
    let lower = Bench::new(&[("dockerfile", "FROM c")]);
    let mut context = lower.open(ContextSource::from(lower.context())).unwrap();
    assert_eq!(
        context.dockerfile(None).unwrap(),
        ("dockerfile".to_owned(), b"FROM c".to_vec())
    );
}

#[test]
fn f9_a_dockerfile_may_have_an_ignore_file_of_its_own() {
    let files = [
        ("Dockerfile", ""),
        ("app/Dockerfile", ""),
        ("app/Dockerfile.dockerignore", "b"),
        (".dockerignore", "a\nDockerfile"),
        ("a", ""),
        ("b", ""),
    ];
    let bench = Bench::new(&files);
    let open = || bench.open(ContextSource::from(bench.context())).unwrap();
    let mut context = open();
    context.dockerfile(None).unwrap();
    assert_eq!(names(&context, ""), [".dockerignore", "app", "b"]);
    let mut context = open();
    context.dockerfile(Some("app/Dockerfile")).unwrap();
    assert_eq!(names(&context, ""), [".dockerignore", "Dockerfile", "a", "app"]);
    let mut context = open();
    assert_eq!(names(&context, "").len(), 5);
    context.set_ignore(None).unwrap();
    assert_eq!(names(&context, ""), [".dockerignore", "app", "b"]);
    fs::write(bench.context().join(".dockerignore"), "[").unwrap();
    let error = open().set_ignore(None).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
    assert!(error.to_string().contains(".dockerignore:1"), "{error}");
}

#[test]
fn f18_named_contexts_may_be_images() {
    let bench = Bench::new(&[]);
    let services = bench.services();
    let image = run(open(ContextSource::Image("busybox".parse().unwrap()), &services)).unwrap();
    assert!(matches!(image, Opened::Image(ImageSource::Reference(_))));
    let layout = ContextSource::Layout("/x".into(), Some("v1".into()));
    assert!(matches!(
        run(open(layout, &services)).unwrap(),
        Opened::Image(ImageSource::Layout(..))
    ));
    assert!(names(&bench.open(ContextSource::Empty).unwrap(), "").is_empty());
    assert_eq!(
        bench.open(ContextSource::Git("nonsense".into())).unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );
}

/// A server that answers each path as it is told, once per connection.
fn server(answers: Vec<(&'static str, String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read > 0) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = answers.iter().find(|(known, ..)| *known == path);
            let (head, body) = match answer {
                Some((_, head, body)) => (head.clone(), body.clone()),
                None => ("404 Not Found".to_owned(), Vec::new()),
            };
            let head = format!(
                "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = connection.write_all(head.as_bytes());
            let _ = connection.write_all(&body);
        }
    });
    address
}

#[cfg(feature = "registry")]
#[test]
fn f4_files_of_urls_are_downloaded_with_name_date_and_checksum() {
    let dated = "200 OK\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    let address = server(vec![
        ("/a/b.txt?x=1", dated, b"hello".to_vec()),
        ("/moved", "302 Found\r\nLocation: /a/b.txt?x=1".to_owned(), Vec::new()),
        ("/denied", "403 Forbidden".to_owned(), Vec::new()),
    ]);
    let bench = Bench::new(&[]);
    let services = bench.services();
    let get =
        |path: &str, checksum: Option<&str>| run(fetch::download(&format!("{address}{path}"), checksum, &services));
    let right = Digest::of(b"hello").to_string();
    for (path, name) in [("/a/b.txt?x=1", "b.txt"), ("/moved", "moved")] {
        let file = get(path, Some(&right)).unwrap();
        assert_eq!(file.name, name);
        let view = file.tree.view().unwrap();
        let (node, _) = view.at(SINGLE).unwrap().unwrap();
        assert_eq!((node.size, node.mode, node.mtime.0), (5, 0o600, 784_111_777));
    }
    let wrong = Digest::of(b"other").to_string();
    let error = get("/a/b.txt?x=1", Some(&wrong)).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::DigestMismatch, "{error}");
    assert!(get("/nope", None).unwrap_err().is_not_found());
    assert_eq!(get("/denied", None).unwrap_err().kind(), &ErrorKind::Denied);
    let secret = address.replace("http://", "http://user:hunter2@") + "/nope";
    let error = run(fetch::download(&secret, None, &services)).unwrap_err();
    assert!(
        !format!("{error:?} {}", error.report()).contains("hunter2"),
        "{error:?}"
    );
}

#[cfg(feature = "registry")]
#[test]
fn f18_urls_are_contexts() {
    let tar = LayerBuilder::new()
        .file("Dockerfile", b"FROM scratch")
        .file("f", b"F")
        .build();
    let ok = || "200 OK".to_owned();
    let address = server(vec![
        ("/c.tgz", ok(), gzip(&tar)),
        ("/Dockerfile", ok(), b"FROM x".to_vec()),
    ]);
    let bench = Bench::new(&[]);
    let context = bench.open(ContextSource::Url(format!("{address}/c.tgz"))).unwrap();
    assert_eq!(names(&context, ""), ["Dockerfile", "f"]);
    let mut context = bench.open(ContextSource::Url(format!("{address}/Dockerfile"))).unwrap();
    assert_eq!(context.dockerfile(None).unwrap().1, b"FROM x");
    assert!(
        bench
            .open(ContextSource::Url(format!("{address}/nope")))
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(
        bench.open(ContextSource::Url("ftp://x".into())).unwrap_err().kind(),
        &ErrorKind::InvalidArgument
    );
}
