//! Real repositories, made by a git of this host where there is one, behind a server of the test's own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
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
    // Without keys of hosts nobody is talked to.
    let ssh = fetch::repository("git@localhost:r.git").unwrap().unwrap();
    assert!(bench.clone_of(&ssh).unwrap_err().is_unsupported());
    for foreign in ["git://localhost/r.git", "ext::sh -c true", "/etc", "file:///r.git"] {
        let repository = Repository {
            remote: foreign.to_owned(),
            ..Repository::default()
        };
        assert!(bench.clone_of(&repository).unwrap_err().is_unsupported(), "{foreign}");
    }
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

/// OpenSSH's server on loopback, which lets in the user of this test with one key, and an agent that has it.
struct Server {
    dir: PathBuf,
    port: u16,
    known_hosts: String,
    children: Vec<std::process::Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn made_key(path: &Path) -> String {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path);
    assert!(command.status().unwrap().success());
    let public = fs::read_to_string(path.with_extension("pub")).unwrap();
    public.trim().to_owned()
}

fn waited(mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it does not come up");
}

impl Server {
    /// Nothing where the host has none.
    fn start(dir: PathBuf) -> Option<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() || Command::new("ssh-agent").arg("-k").output().is_err() {
            eprintln!("skipped: there is no OpenSSH here, client and server");
            return None;
        }
        fs::create_dir(&dir).unwrap();
        if nix::unistd::geteuid().is_root() {
            // Debian's package has it made when the host starts.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let host = made_key(&dir.join("host"));
        fs::write(dir.join("authorized"), made_key(&dir.join("key"))).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nAcceptEnv GIT_PROTOCOL\n",
            at("host"),
            at("authorized"),
        );
        fs::write(dir.join("config"), config).unwrap();
        let quiet = |command: &mut Command| {
            command
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
        };
        let server = quiet(Command::new(program).args(["-D", "-e", "-f", &at("config")])).unwrap();
        let agent = quiet(Command::new("ssh-agent").args(["-D", "-a", &at("agent")])).unwrap();
        let key = at("key");
        let started = Self {
            known_hosts: format!("[127.0.0.1]:{port} {host}\n"),
            port,
            children: vec![server, agent],
            dir,
        };
        // Its socket has a name before it listens.
        waited(|| UnixStream::connect(started.agent()).is_ok());
        let mut add = Command::new("ssh-add");
        add.args(["-q", &key]).env("SSH_AUTH_SOCK", started.agent());
        assert!(add.status().unwrap().success());
        waited(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(started)
    }

    fn agent(&self) -> PathBuf {
        self.dir.join("agent")
    }
}

#[test]
fn f4_f18_repositories_come_over_ssh() {
    let Some(mut bench) = Bench::new() else { return };
    let Some(server) = Server::start(bench.path("ssh")) else {
        return;
    };
    bench.made("it's");
    let first = bench.commit("it's", &[("a", "1"), ("d/e", "E")]);
    bench.git("it's", &["tag", "v1"]);
    let large: String = (0..40_000).map(|number| format!("{}\n", number * 7919)).collect();
    bench.commit("it's", &[("a", "2"), ("large", &large)]);
    let path = bench.path("it's").display().to_string();
    let of = |path: &str, more: &str| {
        let address = format!("ssh://127.0.0.1:{}{path}{more}", server.port);
        fetch::repository(&address).unwrap().unwrap()
    };
    bench.services.ssh.known_hosts = Some(server.known_hosts.clone());
    bench.services.ssh.agent = Some(server.agent());
    let head = files(&bench.clone_of(&of(&path, "")).unwrap());
    assert_eq!(head[..2], ["a 2", "d/e E"]);
    assert_eq!(head[2], format!("large {large}"));
    for name in ["#v1", &format!("#{first}"), &format!("?tag=v1&commit={}", &first[..8])] {
        assert_eq!(
            files(&bench.clone_of(&of(&path, name)).unwrap()),
            ["a 1", "d/e E"],
            "{name}"
        );
    }
    assert_eq!(files(&bench.clone_of(&of(&path, "#main:d")).unwrap()), ["e E"]);

    let error = |services: &Services, repository: &Repository| {
        let bench = Bench {
            dir: tempfile::tempdir().unwrap(),
            services: services.clone(),
            address: String::new(),
        };
        bench.clone_of(repository).unwrap_err()
    };
    let right = of(&path, "");
    assert!(error(&bench.services, &of(&path, "#nope")).is_not_found());
    let other = error(&bench.services, &of("/no/such/place", ""));
    assert!(other.is_not_found(), "{other:?}");
    let wrong = error(&bench.services, &of(&path, "?tag=v1&commit=1234567"));
    assert_eq!(wrong.kind(), &ErrorKind::DigestMismatch, "{wrong:?}");
    // A name of a repository is no command over there, and no option here.
    let trace = bench.path("trace");
    let hostile = of(&format!("/$(touch {0});'; touch {0};'", trace.display()), "");
    assert!(error(&bench.services, &hostile).is_not_found());
    assert!(!trace.exists());

    let mut nobody = bench.services.clone();
    nobody.ssh.agent = None;
    assert_eq!(error(&nobody, &right).kind(), &ErrorKind::Denied);
    let mut stranger = bench.services.clone();
    let key = made_key(&bench.path("other"));
    for hosts in [String::new(), format!("[127.0.0.1]:{} {key}\n", server.port)] {
        stranger.ssh.known_hosts = Some(hosts);
        assert_eq!(error(&stranger, &right).kind(), &ErrorKind::Denied);
    }
    let gone = of(&path, "");
    drop(server);
    assert_eq!(error(&bench.services, &gone).kind(), &ErrorKind::Unavailable);
}
