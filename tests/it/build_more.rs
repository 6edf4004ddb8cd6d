//! Builds and what is around them: agents, servers of repositories, processors that are emulated, layers of any size.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use longshore::build::{BuildOutput, BuildSpec, ContextSource, Secret};
use longshore::types::Platform;
use longshore::{ContainerSpec, Engine, ErrorKind};
use serde_json::json;

use crate::build::{context, result, spec, world};
use crate::build_out::runs;
use crate::frame::{Check, Stop, block_on, fail, skip};
use crate::support::disk::Disk;
use crate::support::embedder::{Embedder, Role};
use crate::support::root::TempRoot;
use crate::support::world::source;
use crate::support::{image, is_root, program, scratch};
use crate::tests;

tests! { "build_more":
    kernel [
        f17_commands_of_another_processor_run_under_an_emulator,
    ]
    kernel_async [
        f4_f18_repositories_come_over_ssh,
        f9_an_ignore_file_may_be_beside_a_dockerfile_elsewhere,
        f12_a_secret_that_a_command_keeps_is_told,
        f13_an_agent_answers_whom_a_mount_says,
        f13_an_agent_that_is_not_there,
        f17_a_platform_that_runs_here_is_built,
        f21_nothing_but_namespaces_is_needed,
        p15_memory_does_not_grow_with_a_layer,
    ]
}

/// What this binary does as a child.
pub const ROLES: &[(&str, Role)] = &[("build-emulated", |arguments| {
    block_on(async { build_emulated(Path::new(&arguments[0])).await })
})];

async fn f12_a_secret_that_a_command_keeps_is_told() -> Check {
    let world = world().await?;
    let dir = context(&[])?;
    let text = "FROM busybox\n\
        RUN --mount=type=secret,id=key wc -c < /run/secrets/key > /length\n\
        RUN --mount=type=secret,id=key cp /run/secrets/key /kept\n";
    let secret = || Secret::new(format!("a-secret-of-{}", std::process::id()));
    let built = result(
        &world.engine,
        spec(dir.path()).dockerfile_text(text).secret("key", secret()),
    )
    .await?;
    assert_eq!(built.warnings.len(), 1, "{:?}", built.warnings);
    assert!(
        built.warnings[0].contains("the secret key is in the layer of RUN")
            && built.warnings[0].contains("cp /run/secrets/key /kept"),
        "{:?}",
        built.warnings
    );
    Ok(())
}

/// 32 bits of the same family: the kernel runs them as they are.
async fn f17_a_platform_that_runs_here_is_built() -> Check {
    if Platform::host().architecture != "amd64" {
        return skip("the programs of another platform that this host runs without an emulator are those of i386");
    }
    let world = world().await?;
    let (dir, base) = (context(&[])?, scratch::fresh("base"));
    let of = |architecture: &str| -> Result<image::Layout, Stop> {
        let files = image::busybox_files()?.file("which", 0o644, architecture);
        image::write_layout_for(
            &base.path().join(architecture),
            architecture,
            &[files],
            &json!({ "Env": ["PATH=/bin"] }),
        )
    };
    let layout = of("386")?;
    let text = "FROM base\nRUN echo built for $(cat /which) > /said\nCMD [\"cat\", \"/said\"]\n";
    let spec = spec(dir.path())
        .dockerfile_text(text)
        .platforms(["linux/386".parse()?])
        .context("base", ContextSource::Layout(layout.dir.clone(), None));
    let built = result(&world.engine, spec).await?;
    assert_eq!(built.images[0].platform, "linux/386".parse()?);
    assert_eq!(runs(&world.engine, &built.id.to_string()).await?, "built for 386");
    Ok(())
}

async fn f21_nothing_but_namespaces_is_needed() -> Check {
    let world = world().await?;
    let dir = context(&[("x", "1")])?;
    let text = "FROM busybox\nCOPY x /x\nRUN cat /proc/self/mountinfo > /mounts && chown 0:0 /x && chmod 600 /x\n";
    let built = result(&world.engine, spec(dir.path()).dockerfile_text(text).no_cache(true)).await?;
    let mounts = ContainerSpec::image(built.id.to_string()).command(["cat", "/mounts"]);
    let mounts = world.says(mounts).await?;
    assert!(!mounts.contains(" - fuse"), "{mounts}");
    let fuse = fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|target| target == Path::new("/dev/fuse"));
    assert!(!fuse, "no file system in user space takes part");
    Ok(())
}

/// A layer of half a GiB, and of 8 in the long form: what is held of it does not depend on its size.
async fn p15_memory_does_not_grow_with_a_layer() -> Check {
    let asked = std::env::var("LONGSHORE_LAYER_MIB").ok();
    let large: u64 = asked.as_deref().and_then(|text| text.parse().ok()).unwrap_or(512);
    let disk = if asked.is_some() {
        Some(compressed_disk(large)?)
    } else {
        None
    };
    let (root, own) = match &disk {
        Some(disk) => (disk.path().join("root"), None),
        None => {
            let own = TempRoot::new();
            (own.path().to_owned(), Some(own))
        }
    };
    let engine = Engine::open(&root).await?;
    let image = engine.pull(source(image::shared()?)).await?;
    image.tag(&"busybox:latest".parse()?).await?;
    let dir = context(&[])?;
    let before = kibibytes("VmRSS:")?;
    let peak = async |mebibytes: u64| -> Result<u64, Stop> {
        let text = format!("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count={mebibytes}\n");
        // The peak so far is forgotten. Source: proc_pid_clear_refs(5).
        fs::write("/proc/self/clear_refs", "5")?;
        let built = result(&engine, spec(dir.path()).dockerfile_text(text)).await?;
        let size = engine.images().inspect(&built.id.to_string()).await?.size_bytes;
        assert!(size >= mebibytes << 20, "{size} bytes");
        kibibytes("VmHWM:")
    };
    let small = peak(16).await?;
    let most = peak(large).await?;
    println!("{small} KiB with 16 MiB, {most} KiB with {large} MiB");
    let grown = most.saturating_sub(small);
    assert!(
        grown < 100 * 1024 && most.saturating_sub(before) < 200 * 1024,
        "{before} KiB before, {small} KiB with 16 MiB, {most} KiB with {large} MiB"
    );
    engine.close().await;
    drop((own, disk));
    Ok(())
}

/// Where zeros take no place, so that a layer may have any size.
fn compressed_disk(mebibytes: u64) -> Result<Disk, Stop> {
    let btrfs = program("btrfs")?;
    let disk = Disk::of_kind("btrfs", (mebibytes + 2048) << 20)?;
    let mut command = Command::new(btrfs);
    command
        .args(["property", "set"])
        .arg(disk.path())
        .args(["compression", "zstd"]);
    assert!(command.status()?.success());
    Ok(disk)
}

fn kibibytes(name: &str) -> Result<u64, Stop> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .map_or_else(|| fail(format!("no {name}")), Ok)
}

async fn f9_an_ignore_file_may_be_beside_a_dockerfile_elsewhere() -> Check {
    let world = world().await?;
    let dir = context(&[("kept", "1"), ("left", "2"), (".dockerignore", "kept\n")])?;
    let spec = spec(dir.path())
        .dockerfile_text("FROM busybox\nCOPY . /all\n")
        .ignore_text("left\n.dockerignore\n");
    let built = result(&world.engine, spec).await?;
    let list = ContainerSpec::image(built.id.to_string()).command(["ls", "-A", "/all"]);
    assert_eq!(world.says(list).await?, "kept");

    // The client finds it, as Docker's does.
    let client = crate::platforms::client()?;
    let elsewhere = context(&[
        ("Dockerfile", "FROM scratch\nCOPY . /all\n"),
        ("Dockerfile.dockerignore", "left\n.dockerignore\n"),
    ])?;
    let mut command = Command::new(client);
    command.arg("--root").arg(world.root.path());
    command
        .args(["build", "-q", "-o", "out", "-f"])
        .arg(elsewhere.path().join("Dockerfile"))
        .arg(dir.path());
    let output = command.current_dir(elsewhere.path()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: Vec<_> = fs::read_dir(elsewhere.path().join("out/all"))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    assert_eq!(names, ["kept"]);
    Ok(())
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn quiet(command: &mut Command) -> Result<Killed, Stop> {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Killed(silent.spawn()?))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> Check {
    for _ in 0..500 {
        if done() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fail(format!("{what} does not come up"))
}

/// An agent with one key, which refuses all but its own user, as OpenSSH's does.
struct Agent {
    _process: Killed,
    socket: PathBuf,
    public: String,
}

fn made_key(path: &Path) -> Result<String, Stop> {
    let mut command = Command::new(program("ssh-keygen")?);
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "of a test", "-f"])
        .arg(path);
    assert!(command.status()?.success());
    Ok(fs::read_to_string(path.with_extension("pub"))?.trim().to_owned())
}

impl Agent {
    fn start(dir: &Path) -> Result<Self, Stop> {
        let (agent, add) = (program("ssh-agent")?, program("ssh-add")?);
        let public = made_key(&dir.join("key"))?;
        let socket = dir.join("agent");
        let process = quiet(Command::new(agent).arg("-D").arg("-a").arg(&socket))?;
        // Its socket has a name before it listens.
        wait_for("the agent", || UnixStream::connect(&socket).is_ok())?;
        let mut command = Command::new(add);
        command.arg("-q").arg(dir.join("key")).env("SSH_AUTH_SOCK", &socket);
        assert!(command.status()?.success());
        Ok(Self {
            _process: process,
            socket,
            public,
        })
    }
}

/// A program of the host with the libraries that it wants, at their paths below a directory.
fn with_libraries(program: &Path, below: &Path) -> Check {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([program.to_str().expect("a path")]) {
        let place = below.join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().expect("a directory"))?;
        fs::copy(path, &place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// `ssh-add -l` in a command: by root, by another user whom the mount names, and not by one whom it does not.
async fn f13_an_agent_answers_whom_a_mount_says() -> Check {
    let world = world().await?;
    let dir = context(&[])?;
    let place = scratch::fresh("agent");
    let agent = Agent::start(place.path())?;
    let add = program("ssh-add")?;
    with_libraries(&add, &dir.path().join("host"))?;
    let name = add.display();
    let one_id = world.ownership().await? == "squashed";
    let others = match one_id {
        // Nobody is another there.
        true => String::new(),
        false => format!(
            "RUN mkdir -m 777 /said\n\
             USER 1234:1234\n\
             RUN --mount=type=ssh,uid=1234 {name} -L > /said/named && stat -c '%u %g %a' $SSH_AUTH_SOCK > /said/mode\n\
             RUN --mount=type=ssh,mode=0666 {name} -L > /said/open\n\
             RUN --mount=type=ssh ! {name} -L > /said/closed 2>&1\n"
        ),
    };
    let text = format!("FROM busybox\nCOPY host /\nRUN --mount=type=ssh {name} -L > /keys\n{others}");
    let asked = spec(dir.path())
        .dockerfile_text(text)
        .ssh_agent("default", &agent.socket);
    let built = result(&world.engine, asked).await?;
    let shown = async |path: &str| -> Result<String, Stop> {
        let spec = ContainerSpec::image(built.id.to_string())
            .user("0")
            .command(["cat", path]);
        world.says(spec).await
    };
    assert_eq!(shown("/keys").await?, agent.public);
    if !one_id {
        assert_eq!(shown("/said/named").await?, agent.public);
        assert_eq!(shown("/said/mode").await?, "1234 0 600");
        assert_eq!(shown("/said/open").await?, agent.public);
        assert!(!shown("/said/closed").await?.contains("ssh-ed25519"));
    }
    Ok(())
}

async fn f13_an_agent_that_is_not_there() -> Check {
    let world = world().await?;
    let dir = context(&[("file", "no socket")])?;
    for (path, kind) in [("nothing", ErrorKind::NotFound), ("file", ErrorKind::InvalidArgument)] {
        let asked = spec(dir.path()).dockerfile_text("FROM busybox\nRUN --mount=type=ssh true\n");
        let asked = asked.ssh_agent("default", dir.path().join(path));
        let error = result(&world.engine, asked).await.unwrap_err();
        assert_eq!(error.kind(), &kind, "{}", error.report());
    }
    Ok(())
}

/// `ADD` and a context from a real sshd on loopback, by a key that only an agent has, of a host that is known.
async fn f4_f18_repositories_come_over_ssh() -> Check {
    let (sshd, git) = (program("sshd")?, program("git")?);
    let world = world().await?;
    let place = scratch::fresh("sshd");
    let at = |name: &str| place.path().join(name);
    let agent = Agent::start(place.path())?;
    if is_root() {
        // Debian's package has it made when the host starts.
        fs::create_dir_all("/run/sshd")?;
    }
    let host = made_key(&at("host"))?;
    fs::write(at("authorized"), &agent.public)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin yes\nAcceptEnv GIT_PROTOCOL\n",
        at("host").display(),
        at("authorized").display(),
    );
    fs::write(at("config"), config)?;
    let _server = quiet(Command::new(sshd).args(["-D", "-e", "-f"]).arg(at("config")))?;
    wait_for("sshd", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;

    let repository = context(&[("Dockerfile", "FROM busybox\nCOPY said /said\n"), ("said", "over ssh")])?;
    let git = |words: &[&str]| -> Check {
        let mut command = Command::new(&git);
        command
            .current_dir(repository.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null");
        command.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(words);
        let output = command.output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    git(&["init", "-q", "-b", "main"])?;
    git(&["add", "-A"])?;
    git(&["commit", "-q", "-m", "one"])?;
    let address = format!("ssh://127.0.0.1:{port}{}", repository.path().display());
    let known = format!("[127.0.0.1]:{port} {host}\n");
    let shown = async |spec: BuildSpec| -> Result<String, Stop> {
        let built = result(&world.engine, spec.network(longshore::NetworkMode::None)).await?;
        world
            .says(ContainerSpec::image(built.id.to_string()).command(["cat", "/said"]))
            .await
    };
    let context = BuildSpec::new(ContextSource::Git(address.clone()));
    let context = context.ssh_agent("default", &agent.socket).known_hosts(&known);
    assert_eq!(shown(context).await?, "over ssh");
    let text = format!("FROM busybox\nADD {address}#main /r\nRUN ! test -e /r/.git && cp /r/said /said\n");
    let added = || {
        BuildSpec::new(ContextSource::Empty)
            .dockerfile_text(&text)
            .ssh_agent("default", &agent.socket)
    };
    assert_eq!(shown(added().known_hosts(&known)).await?, "over ssh");
    // A host that nobody knows gets nothing.
    let error = result(&world.engine, added().no_cache(true)).await.unwrap_err();
    assert!(
        error.is_unsupported() && error.report().contains("known_hosts"),
        "{}",
        error.report()
    );
    let stranger = known.replace(&host, &made_key(&at("stranger"))?);
    let error = result(&world.engine, added().no_cache(true).known_hosts(stranger))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Denied, "{}", error.report());
    for hostile in ["ssh://-oProxyCommand=touch%20x/r.git", "git@-oProxyCommand:r"] {
        let text = format!("FROM scratch\nADD {hostile} /r\n");
        let asked = BuildSpec::new(ContextSource::Empty)
            .dockerfile_text(text)
            .known_hosts(&known);
        let error = result(&world.engine, asked).await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidArgument, "{}", error.report());
    }
    Ok(())
}

/// A program for aarch64 that writes the machine's name, as uname(2) has it, to `/said`:
///
/// ```text
/// mov x8, #160; adr x1, .; sub sp, sp, #400; mov x0, sp; svc #0            // uname(sp)
/// mov x8, #56; mov x0, #-100; adr x1, path; mov x2, #0101; mov x3, #0644; svc #0  // openat
/// mov x8, #64; add x1, sp, #260; mov x2, #7; svc #0                        // write(fd, machine, 7)
/// mov x8, #93; mov x0, #0; svc #0                                          // exit(0)
/// path: .asciz "/said"
/// ```
const PROGRAM: &str = "081480d241020050ff4306d1e0030091010000d4080780d2600c809261010010220880d2833480d2010000d4080880d2e1130491e20080d2\
    010000d4a80b80d2000080d2010000d42f7361696400";

/// The code as an ELF file of one segment. Source: `elf(5)`.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend([2u16, machine].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(1u32.to_le_bytes());
    out.extend([BASE + HEADERS, 64, 0].iter().flat_map(|word: &u64| word.to_le_bytes()));
    out.extend(0u32.to_le_bytes());
    out.extend([64u16, 56, 1, 64, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    out.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(
        [0, BASE, BASE, size, size, 0x1000]
            .iter()
            .flat_map(|word: &u64| word.to_le_bytes()),
    );
    out.extend_from_slice(code);
    out
}

/// Registers an emulator for this user namespace alone, and goes on as the role, as an ordinary user in another one below. Source: Linux,
/// Documentation/admin-guide/binfmt-misc.rst; since 6.7 each user namespace may have its own.
const REGISTER: &str = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null || { echo skip binfmt_misc cannot be mounted here; exit; }\n\
    emulator=$1; shift\n\
    printf '%s' \":qemu-aarch64:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
    \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:$emulator:F\" \
    >/proc/sys/fs/binfmt_misc/register || exit 1\n\
    exec unshare --user --map-user=1000 --map-group=1000 \"$@\"";

/// A build for arm64 whose command is emulated, and which says so by what it sees.
fn f17_commands_of_another_processor_run_under_an_emulator() -> Check {
    if Platform::host().architecture != "amd64" {
        return skip("the program of this test is for another processor than arm64");
    }
    let emulator = program("qemu-aarch64-static")?;
    let place = scratch::fresh("emulated");
    fs::write(
        place.path().join("program"),
        elf(183, &hex::decode(PROGRAM).expect("hex")),
    )?;
    fs::set_permissions(place.path().join("program"), fs::Permissions::from_mode(0o755))?;
    let (emulator, place) = (emulator.display().to_string(), place.path().display().to_string());
    let unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        REGISTER,
        "sh",
        &emulator,
    ];
    let role = Embedder::start_under(&unshare, "build-emulated", &[&place])?;
    let said = role.line(Duration::from_secs(60))?;
    match said.split_once(' ') {
        _ if said == "aarch64" => Ok(()),
        Some(("skip", why)) => skip(why),
        _ => fail(said),
    }
}

async fn build_emulated(place: &Path) -> i32 {
    match emulated(place).await {
        Ok(said) => println!("{said}"),
        Err(Stop::Skip(why)) => println!("skip {why}"),
        Err(Stop::Fail(why)) => println!("fail {}", why.replace('\n', " ")),
    }
    0
}

async fn emulated(place: &Path) -> Result<String, Stop> {
    let engine = Engine::open(place.join("root")).await?;
    let (dir, out) = (place.join("context"), place.join("out"));
    fs::create_dir(&dir)?;
    fs::copy(place.join("program"), dir.join("program"))?;
    let text = "FROM scratch\nCOPY program /program\nRUN [\"/program\"]\n";
    let asked = || {
        spec(&dir)
            .dockerfile_text(text)
            .platforms(["linux/arm64".parse().expect("a platform")])
    };
    result(&engine, asked().output(BuildOutput::Directory(out.clone()))).await?;
    let image = result(&engine, asked()).await?;
    assert_eq!(
        (image.images[0].platform.architecture.as_str(), image.cached),
        ("arm64", 2)
    );
    engine.close().await;
    Ok(fs::read_to_string(out.join("said"))?)
}
