//! What `COPY` and `ADD` bring into images, as containers see it, and where it comes from.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use longshore::build::{BuildSpec, ContextSource};
use longshore::{ContainerSpec, ErrorKind, NetworkMode};

use crate::build::{context, result, spec, world};
use crate::frame::{Check, Stop};
use crate::support::image::Files;
use crate::support::world::World;
use crate::tests;

tests! { "copies":
    kernel_async [
        f3_f4_copies_are_in_the_image_as_they_were_asked_for,
        f4_f18_files_come_from_servers,
        f18_contexts_are_archives_and_named_ones_images,
        f3_a_copy_that_fails_says_where,
    ]
}

async fn f3_f4_copies_are_in_the_image_as_they_were_asked_for() -> Check {
    let world = world().await?;
    let dir = context(&[
        ("app/run", "run"),
        ("app/sub/deep", "deep"),
        ("app/notes.md", "notes"),
        ("secret", "secret"),
        (".dockerignore", "secret"),
        (
            "Dockerfile",
            "FROM busybox AS made\n\
             RUN mkdir -p /out/d && echo 1 > /out/d/f && ln /out/d/f /out/hard && chown -R 1234:1234 /out/d \\\n\
             && chmod 640 /out/d/f && chmod 2750 /out/d && echo node:x:77:78::/:/bin/sh >> /etc/passwd && ln -s /srv /www\n\
             FROM made\n\
             COPY --from=made /out /kept\n\
             COPY --chown=node --exclude=*.md app/ /www/\n\
             COPY --from=made --chown=5:6 --chmod=600 /out/d/f /one\n\
             COPY --link app/run /linked/\n\
             COPY --parents app/sub/* /p/\n\
             ADD t.tar /un/\n\
             COPY t.tar *.none /tar/\n\
             COPY . /all/\n",
        ),
    ])?;
    let tar = Files::new()
        .owned_dir("d", 0o711, 9)
        .file("d/f", 0o4755, "F")
        .link("l", "d/f");
    fs::write(dir.path().join("t.tar"), tar.tar()?)?;
    let built = result(&world.engine, spec(dir.path())).await?;
    let script = "stat -c '%n %a %u:%g' /kept/d /kept/d/f /srv /srv/run /one /linked/run /p/app/sub/deep /un/d /un/d/f; \
        stat -c %h /kept/hard; cat /un/l; ls /srv /tar /all";
    let spec_of = ContainerSpec::image(built.id.to_string()).entrypoint(["sh", "-c", script]);
    let said = world.says(spec_of).await?;
    let expected = [
        "/kept/d 2750 1234:1234",
        "/kept/d/f 640 1234:1234",
        "/srv 755 77:78",
        "/srv/run 644 77:78",
        "/one 600 5:6",
        "/linked/run 644 0:0",
        "/p/app/sub/deep 644 0:0",
        "/un/d 711 9:9",
        "/un/d/f 4755 0:0",
        "2",
        "F/all:",
        "Dockerfile\napp\nt.tar\n",
        "/srv:",
        "run\nsub\n",
        "/tar:",
        "t.tar",
    ];
    assert_eq!(said, owned(&world, &expected.join("\n")).await?);
    let again = result(&world.engine, spec(dir.path())).await?;
    assert_eq!((again.id, again.cached), (built.id, again.steps));
    fs::write(dir.path().join("secret"), "another")?;
    let ignored = result(&world.engine, spec(dir.path())).await?;
    assert_eq!((ignored.id, ignored.cached), (built.id, built.steps));
    Ok(())
}

/// What `stat -c '… %u:%g'` says of it here: with a single id, all files are root's.
async fn owned(world: &World, text: &str) -> Result<String, Stop> {
    if world.ownership().await? != "squashed" {
        return Ok(text.to_owned());
    }
    let squashed = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((rest, owner)) if owner.contains(':') => format!("{rest} 0:0"),
        _ => line.to_owned(),
    });
    Ok(squashed.collect::<Vec<_>>().join("\n"))
}

/// Answers every request with the same bytes, until it is dropped.
struct Server {
    address: String,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(body: Vec<u8>) -> Result<Self, Stop> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                answer(connection, &body);
            }
        });
        Ok(Self {
            address,
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // It looks with each connection.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut connection: TcpStream, body: &[u8]) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let sent = connection.write_all(head.as_bytes());
    let _ = sent.and_then(|()| connection.write_all(body));
}

async fn f4_f18_files_come_from_servers() -> Check {
    let world = world().await?;
    let files = Files::new()
        .file("Dockerfile", 0o644, "FROM busybox\nCOPY f /f\n")
        .file("f", 0o640, "F");
    let server = Server::new(files.tar()?)?;
    let address = format!("http://{}", server.address);
    let right = longshore::Digest::of(&files.tar()?);
    let dir = context(&[])?;
    let text = format!(
        "FROM busybox\nADD --checksum={right} {address}/a/b.tar?x /\nADD --unpack=true --chown=3 {address}/c /un/\n"
    );
    let built = result(&world.engine, spec(dir.path()).dockerfile_text(text)).await?;
    let script = "stat -c '%n %a %u:%g' /b.tar /un/f; cat /un/f";
    let spec_of = ContainerSpec::image(built.id.to_string()).entrypoint(["sh", "-c", script]);
    let expected = owned(&world, "/b.tar 600 0:0\n/un/f 640 3:3\nF").await?;
    assert_eq!(world.says(spec_of).await?, expected);
    let text = format!("FROM busybox\nADD --checksum=sha256:{} {address}/x /\n", "0".repeat(64));
    let error = result(&world.engine, spec(dir.path()).dockerfile_text(text))
        .await
        .unwrap_err();
    assert!(
        error.report().contains("checksum") && error.report().contains("Dockerfile:2"),
        "{}",
        error.report()
    );
    let whole = BuildSpec::new(ContextSource::Url(format!("{address}/context.tar"))).network(NetworkMode::None);
    let built = result(&world.engine, whole).await?;
    let spec_of = ContainerSpec::image(built.id.to_string()).entrypoint(["cat", "/f"]);
    assert_eq!(world.says(spec_of).await?, "F");
    Ok(())
}

async fn f18_contexts_are_archives_and_named_ones_images() -> Check {
    let world = world().await?;
    let text = "FROM base\nCOPY --from=more y /y\nCOPY --from=image /bin/busybox /other\nCOPY x /x\n";
    let files = Files::new()
        .file("Dockerfile", 0o644, text)
        .owned_dir("d", 0o755, 7)
        .file("x", 0o644, "X");
    let tar = files.tar()?;
    let stream = || longshore::types::reader_stream(std::io::Cursor::new(tar.clone()));
    let more = context(&[("y", "Y")])?;
    let mut ids = Vec::new();
    for source in [ContextSource::Tar(stream()?), ContextSource::Stream(stream()?)] {
        let spec = BuildSpec::new(source)
            .network(NetworkMode::None)
            .context("base", ContextSource::Image("busybox".parse()?))
            .context("image", ContextSource::Image("busybox".parse()?))
            .context("more", more.path().to_path_buf());
        ids.push(result(&world.engine, spec).await?.id);
    }
    assert_eq!(ids[0], ids[1]);
    let script = "cat /x /y; test -s /other && echo Z";
    let spec_of = ContainerSpec::image(ids[0].to_string()).entrypoint(["sh", "-c", script]);
    assert_eq!(world.says(spec_of).await?, "XYZ");
    Ok(())
}

async fn f3_a_copy_that_fails_says_where() -> Check {
    let world = world().await?;
    let dir = context(&[("src/main.rs", ""), ("hidden", ""), (".dockerignore", "hidden")])?;
    std::os::unix::fs::symlink("/etc", dir.path().join("out"))?;
    for (line, words) in [
        ("COPY src/man.rs /x", &["src/man.rs", "src/main.rs"][..]),
        ("COPY ../../../etc/passwd /x", &["etc/passwd"]),
        ("COPY out/passwd /x", &["out/passwd"]),
        ("COPY hidden /x", &["hidden", ".dockerignore"]),
        ("COPY src /bin/busybox", &["/bin/busybox"]),
        ("COPY --chown=nobody-here src /x", &["nobody-here", "/etc/passwd"]),
        ("COPY --from=busybox /nope /x", &["nope"]),
    ] {
        let text = format!("FROM busybox\n{line}\n");
        let error = result(&world.engine, spec(dir.path()).dockerfile_text(text))
            .await
            .unwrap_err();
        let report = error.report();
        assert!(
            [ErrorKind::NotFound, ErrorKind::InvalidArgument].contains(error.kind()),
            "{line}: {error:?}"
        );
        for word in [&["Dockerfile:2"], words].concat() {
            assert!(report.contains(word), "{line}: {report}");
        }
    }
    Ok(())
}
