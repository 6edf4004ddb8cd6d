//! Real repositories, made by a git of this host where there is one, behind a server of the test's own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::build::context::fetch::{self, Repository};
use crate::build::context::{Services, Tree};
use crate::error::{ErrorKind, Result};

struct Bench {
    dir: tempfile::TempDir,
    services: Services,
    address: String,
}

impl Bench {
    /// Nothing where the host has no git.
    fn new() -> Option<Self> {
        if Command::new("git").arg("version").output().is_err() {
            eprintln!("skipped: there is no git here to make repositories with");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("scratch")).unwrap();
        let services = Services::new(dir.path().join("scratch"));
        let address = serve(dir.path().to_owned());
        Some(Self { dir, services, address })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn git(&self, repository: &str, words: &[&str]) -> String {
        git(&self.path(repository), words)
    }

    fn made(&self, repository: &str) {
        fs::create_dir(self.path(repository)).unwrap();
        self.git(repository, &["init", "-q", "-b", "main"]);
    }

    fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.path(repository).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self.git(repository, &["add", "-A"]);
        self.git(repository, &["commit", "-q", "-m", "more"]);
        self.git(repository, &["rev-parse", "HEAD"])
    }

    fn clone(&self, what: &str) -> Result<Tree> {
        let repository = fetch::repository(&format!("{}/{what}", self.address)).unwrap().unwrap();
        self.clone_of(&repository)
    }

    fn clone_of(&self, repository: &Repository) -> Result<Tree> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(fetch::clone(repository, &self.services))
    }
}

fn git(place: &Path, words: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(words)
        .current_dir(place)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Serves the repositories of a directory: `NAME.git` is the one at `NAME`.
fn serve(root: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            answer(connection, &root);
        }
    });
    address
}

fn answer(mut connection: TcpStream, root: &Path) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    connection.read_exact(&mut body).unwrap();
    let (name, rest) = path.trim_start_matches('/').split_once(".git/").unwrap_or(("", ""));
    let repository = root.join(name);
    let dumb = name == "dumb";
    if name.is_empty() || !repository.exists() && !dumb {
        let _ = connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let mut out = Vec::new();
    if dumb {
        out.extend_from_slice(b"1234567890 refs/heads/main\n");
    } else {
        let mut command = Command::new("git");
        command.args(["-c", "safe.directory=*", "upload-pack", "--stateless-rpc"]);
        if rest.starts_with("info/refs") {
            out.extend_from_slice(b"001e# service=git-upload-pack\n0000");
            command.arg("--http-backend-info-refs");
        }
        let mut child = command
            .stderr(Stdio::null())
            .arg(&repository)
            .env("GIT_PROTOCOL", "version=2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&body).unwrap();
        child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        let _ = child.wait();
    }
    let kind = match (dumb, body.is_empty()) {
        (true, _) => "text/plain",
        (false, true) => "application/x-git-upload-pack-advertisement",
        (false, false) => "application/x-git-upload-pack-result",
    };
    let fields = format!(
        "Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close",
        out.len()
    );
    let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    let _ = connection.write_all(head.as_bytes());
    let _ = connection.write_all(&out);
}

/// Files with their texts, links with their targets.
fn files(tree: &Tree) -> Vec<String> {
    use std::os::fd::AsRawFd as _;
    let root = fs::read_link(format!("/proc/self/fd/{}", tree.root.as_raw_fd())).unwrap();
    let mut out = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if name == ".git" {
                continue;
            }
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            match (kind.is_dir(), kind.is_symlink()) {
                (true, _) => open.push(path),
                (_, true) => out.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display())),
                _ => out.push(format!("{name} {}", fs::read_to_string(&path).unwrap())),
            }
        }
    }
    out.sort();
    out
}

#[test]
fn f4_f18_a_commit_of_a_repository_becomes_files() {
    let Some(bench) = Bench::new() else { return };
    bench.made("r");
    let long = "line\n".repeat(5000);
    let first = bench.commit("r", &[("a", "1"), ("d/long", &long), ("d/e/f", "F")]);
    bench.git("r", &["tag", "-a", "-m", "one", "v1"]);
    std::os::unix::fs::symlink("../a", bench.path("r/d/l")).unwrap();
    let other = long.replacen("line", "other", 1);
    let second = bench.commit("r", &[("a", "2"), ("d/long2", &other), ("d/long", &long)]);
    bench.git("r", &["branch", "side"]);
    bench.git("r", &["gc", "-q"]);

    let head = files(&bench.clone("r.git").unwrap());
    assert_eq!(head[0], "a 2");
    assert_eq!(
        head[1..]
            .iter()
            .map(|line| line.split('\n').next().unwrap())
            .collect::<Vec<_>>(),
        ["d/e/f F", "d/l -> ../a", "d/long line", "d/long2 other",]
    );
    assert_eq!(head[4], format!("d/long2 {other}"));
    let old = ["a 1".to_owned(), "d/e/f F".to_owned(), format!("d/long {long}")];
    for name in ["v1", "refs/tags/v1", &first] {
        assert_eq!(files(&bench.clone(&format!("r.git#{name}")).unwrap()), old, "{name}");
    }
    assert_eq!(files(&bench.clone("r.git?tag=v1").unwrap()), old);
    assert_eq!(files(&bench.clone("r.git#side:d/e").unwrap()), ["f F"]);
    assert_eq!(
        files(&bench.clone(&format!("r.git?commit={}", &second[..10])).unwrap()),
        head
    );

    let error = bench.clone(&format!("r.git?commit={}", &first[..10])).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::DigestMismatch, "{error}");
    for missing in ["r.git#nope", "r.git#main:nope", "r.git#main:a", "none.git"] {
        let error = bench.clone(missing).unwrap_err();
        assert!(error.is_not_found(), "{missing}: {error:?}");
    }
    assert!(bench.clone(&format!("r.git#{}", "1".repeat(40))).is_err());
    assert!(bench.clone("dumb.git").unwrap_err().is_unsupported());
    for odd in ["r.git#a%0ab", "r.git#a%20b"] {
        assert_eq!(
            bench.clone(odd).unwrap_err().kind(),
            &ErrorKind::InvalidArgument,
            "{odd}"
        );
    }
    let ssh = fetch::repository("git@localhost:r.git").unwrap().unwrap();
    assert!(bench.clone_of(&ssh).unwrap_err().is_unsupported());
}

#[test]
fn f4_the_git_directory_is_kept_where_it_is_asked_for() {
    let Some(bench) = Bench::new() else { return };
    bench.made("r");
    bench.commit("r", &[("a", "1"), ("d/b", "2")]);
    bench.git("r", &["tag", "v1.0"]);
    let head = bench.git("r", &["rev-parse", "HEAD"]);
    let repository = fetch::repository(&format!("{}/r.git?tag=v1.0&keep-git-dir=1", bench.address)).unwrap();
    let tree = bench.clone_of(&repository.unwrap()).unwrap();
    use std::os::fd::AsRawFd as _;
    let place = fs::read_link(format!("/proc/self/fd/{}", tree.root.as_raw_fd())).unwrap();
    assert_eq!(git(&place, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&place, &["describe", "--tags", "--dirty"]), "v1.0");
    assert_eq!(git(&place, &["status", "--porcelain"]), "");
    git(&place, &["fsck", "--strict"]);
    assert!(!bench.clone("r.git").is_ok_and(|tree| {
        let place = fs::read_link(format!("/proc/self/fd/{}", tree.root.as_raw_fd())).unwrap();
        place.join(".git").exists()
    }));
}

#[test]
fn f18_submodules_come_along() {
    let Some(bench) = Bench::new() else { return };
    for name in ["inner", "outer"] {
        bench.made(name);
    }
    bench.commit("inner", &[("i", "I")]);
    let inner = bench.path("inner");
    bench.git(
        "outer",
        &["submodule", "--quiet", "add", inner.to_str().unwrap(), "lib/i"],
    );
    fs::write(
        bench.path("outer/.gitmodules"),
        "[submodule \"i\"]\n\tpath = lib/i\n\turl = ../inner.git\n",
    )
    .unwrap();
    bench.commit("outer", &[("o", "O")]);
    // What came later is not what the outer one means.
    bench.commit("inner", &[("i", "J")]);
    let all = files(&bench.clone("outer.git").unwrap());
    assert!(
        all.contains(&"lib/i/i I".to_owned()) && all.contains(&"o O".to_owned()),
        "{all:?}"
    );
    let without = files(&bench.clone("outer.git?submodules=0").unwrap());
    assert!(!without.iter().any(|line| line.starts_with("lib")), "{without:?}");
    fs::write(
        bench.path("outer/.gitmodules"),
        "[submodule \"i\"]\n\tpath = lib/i\n\turl = ../gone.git\n",
    )
    .unwrap();
    bench.commit("outer", &[]);
    let error = bench.clone("outer.git").unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("lib/i"), "{error}");
}
