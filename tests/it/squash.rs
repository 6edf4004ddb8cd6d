//! Programs that change owners and users, above all where one id is mapped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use longshore::{Container, ContainerSpec, ExecSpec, Output, Seccomp};
use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompBuilder, LinuxSyscallBuilder};
use serde_json::json;

use crate::frame::{Check, Stop, fail, skip};
use crate::support::image::{self, Files, busybox_files};
use crate::support::scratch;
use crate::support::world::{FORCE, World, source, text};
use crate::tests;

tests! { "squash":
    kernel_async [
        k3_p13_a_single_id_is_squashed_and_says_so,
        k3_changes_of_owner_and_id_succeed_without_effect,
        k3_what_is_denied_stays_denied,
        k3_a_user_is_the_one_id_under_its_name,
        k3_an_ordinary_user_is_not_lied_to,
        k3_nginx_serves,
        k3_postgres_answers,
    ]
}

async fn single() -> Result<World, Stop> {
    let world = World::new().await?;
    if world.ownership().await? != "squashed" {
        return skip("this user has more than one id");
    }
    Ok(world)
}

async fn k3_p13_a_single_id_is_squashed_and_says_so() -> Check {
    let world = single().await?;
    assert_eq!(
        world.says(world.script("id -u; touch /home/x && echo wrote")).await?,
        "0\nwrote"
    );
    Ok(())
}

/// What root of the busybox image does and sees. In the last line, whether the filter is there.
const CHANGES: &str = "touch /tmp/f && chown app:app /tmp/f && chown -h 7:8 /tmp/f && busybox chgrp 2345 /tmp/f && \
     stat -c %u:%g /tmp/f; chown 0:0 /tmp/f && chown 0 /nowhere 2>/dev/null || echo missing; \
     busybox su app -c 'id -u' && busybox start-stop-daemon -S -c app:app -x /bin/true && echo changed; \
     grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | tr -d '\\t\\n'";

async fn k3_changes_of_owner_and_id_succeed_without_effect() -> Check {
    let world = single().await?;
    let first = "0:0\nmissing\n0\nchanged\n";
    for (spec, last) in [
        (world.script(CHANGES), "NoNewPrivs:0Seccomp:2"),
        (world.script(CHANGES).no_new_privileges(true), "NoNewPrivs:1Seccomp:2"),
        (
            world.script(CHANGES).seccomp(Seccomp::Unconfined),
            "NoNewPrivs:0Seccomp:2",
        ),
        (world.script(CHANGES).init(true), "NoNewPrivs:0Seccomp:2"),
    ] {
        assert_eq!(world.says(spec).await?, format!("{first}{last}"));
    }
    let container = world.started(world.spec().command(["sleep", "1000"])).await?;
    let output = sh(&container, CHANGES, None).await?;
    assert_eq!(
        text(&output.stdout),
        format!("{first}NoNewPrivs:0Seccomp:2"),
        "{output:?}"
    );
    container.remove(FORCE).await?;
    Ok(())
}

async fn k3_what_is_denied_stays_denied() -> Check {
    let world = single().await?;
    let chown = "touch /tmp/f; chown app /tmp/f 2>&1 && echo changed; exit 0";
    // Who has given the capability away is told the truth: in Docker it is "not permitted", here there is no such id.
    let said = world.says(world.script(chown).cap_drop("CHOWN")).await?;
    assert!(said.contains("Invalid argument") && !said.contains("changed"), "{said}");
    let rule = LinuxSyscallBuilder::default()
        .names(["chown", "lchown", "fchown", "fchownat"].map(str::to_owned).to_vec())
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(nix::libc::EACCES as u32)
        .build()?;
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .syscalls(vec![rule])
        .build()?;
    let said = world
        .says(world.script(chown).seccomp(Seccomp::Custom(Box::new(profile))))
        .await?;
    assert!(
        said.contains("Permission denied") && !said.contains("changed"),
        "{said}"
    );
    Ok(())
}

async fn k3_a_user_is_the_one_id_under_its_name() -> Check {
    let world = single().await?;
    let me = nix::unistd::geteuid().as_raw();
    let rights = "id -u; id -g; grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status | tr -d '\\t\\n0'; stat -c :%U /etc; \
                  echo fine > /proc/self/fd/1; ulimit -n";
    for init in [false, true] {
        let mut spec = world
            .script(&format!("{rights}; touch /home/mine; exec sleep 1000"))
            .user("app");
        spec.oom_score_adj = Some(500);
        let container = world.started(spec.init(init).ulimit("nofile", 99, 99)).await?;
        let info = container.inspect().await?;
        assert_eq!(info.ownership, "squashed");
        assert!(info.ownership_meaning().contains("without effect"));
        let maps = [&info.uid_map, &info.gid_map].map(|map| (map[0].inside, map.len()));
        assert_eq!(maps, [(1234, 1), (1234, 1)], "{info:?}");
        assert_eq!(info.uid_map[0].outside, me);
        // The same user, by number and another, and root, who owns everything here.
        let own = sh(&container, rights, None).await?;
        assert_eq!(
            text(&own.stdout),
            "1234\n1234\nCapPrm:CapEff:CapAmb::app\nfine\n99",
            "{own:?}"
        );
        let other = sh(&container, "id -u; id -g; id -G", Some("77:78")).await?;
        assert_eq!(text(&other.stdout), "77\n78\n78", "{other:?}");
        let root = sh(
            &container,
            "id -u; stat -c %u /home/mine; chown app /home/mine && echo done",
            Some("root"),
        )
        .await?;
        assert_eq!(text(&root.stdout), "0\n0\ndone", "{root:?}");
        let killed = sh(&container, "kill -0 1 && echo signal", Some("app")).await?;
        assert_eq!(text(&killed.stdout), "signal", "{killed:?}");
        container.remove(FORCE).await?;
    }
    Ok(())
}

async fn k3_an_ordinary_user_is_not_lied_to() -> Check {
    let world = single().await?;
    let script = "touch /tmp/f; chown root /tmp/f 2>/dev/null || echo refused; busybox start-stop-daemon -S -c root:root -x /bin/true \
                  2>/dev/null || echo refused; mkdir /new 2>/dev/null && stat -c %U /new";
    let said = world.says(world.script(script).user("app")).await?;
    // The directory is the user's, as is every file: there is no other owner.
    assert_eq!(said, "refused\nrefused\napp");
    Ok(())
}

async fn sh(container: &Container, script: &str, user: Option<&str>) -> Result<Output, Stop> {
    let mut spec = ExecSpec::new(["sh", "-c", script]);
    spec.user = user.map(str::to_owned);
    Ok(container.exec(spec).output().await?)
}

/// Programs of the host with the libraries that they need, where the host has them.
fn with_programs(mut files: Files, programs: &[PathBuf], known: &mut BTreeSet<PathBuf>) -> Result<Files, Stop> {
    let mut wanted = BTreeSet::new();
    for program in programs {
        wanted.insert(program.clone());
        let listed = Command::new("ldd").arg(program).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        wanted.extend(
            listed
                .split_whitespace()
                .filter(|word| word.starts_with('/'))
                .map(PathBuf::from),
        );
    }
    for path in wanted {
        files = with_file(files, &path, known)?;
    }
    Ok(files)
}

fn with_file(mut files: Files, path: &Path, known: &mut BTreeSet<PathBuf>) -> Result<Files, Stop> {
    for dir in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
        if dir != Path::new("/") && known.insert(dir.to_owned()) {
            files = files.dir(relative(dir), 0o755);
        }
    }
    if known.insert(path.to_owned()) {
        files = files.file(relative(path), 0o755, fs::read(path)?);
    }
    Ok(files)
}

fn with_tree(mut files: Files, dir: &Path, known: &mut BTreeSet<PathBuf>) -> Result<Files, Stop> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // What a link leads to is what it shows.
        files = match fs::metadata(&path) {
            Ok(seen) if seen.is_dir() => with_tree(files, &path, known)?,
            Ok(seen) if seen.is_file() => with_file(files, &path, known)?,
            _ => files,
        };
    }
    Ok(files)
}

fn relative(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// Busybox and another layer above it.
async fn image(world: &World, files: Files) -> Result<ContainerSpec, Stop> {
    let dir = scratch::fresh("layout");
    let config = json!({ "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] });
    let layout = image::write_layout(dir.path(), &[busybox_files()?, files], &config)?;
    let image = world.engine.pull(source(&layout)).await?;
    Ok(ContainerSpec::image(image.id().to_string()))
}

/// Until a command in the container succeeds.
async fn eventually(container: &Container, script: &str) -> Result<String, Stop> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let output = sh(container, script, None).await?;
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        if Instant::now() > end {
            return fail(format!("{script}: {output:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const NGINX: &str = "user www-data; worker_processes 2; daemon off; error_log stderr; pid /run/nginx.pid; events {}\n\
     http { access_log off; server { listen 127.0.0.1:80; location / { return 200 \"moored\\n\"; } } }\n";

/// The master is root, changes owners of its directories, and its workers change to another user.
async fn k3_nginx_serves() -> Check {
    let program = PathBuf::from("/usr/sbin/nginx");
    if !program.exists() {
        return skip("nginx is not installed (Debian package nginx-light)");
    }
    let world = World::new().await?;
    let squashed = world.ownership().await? == "squashed";
    let mut known = BTreeSet::new();
    let mut files = with_programs(Files::new(), &[program], &mut known)?;
    for dir in [
        "run",
        "etc/nginx",
        "var/lib",
        "var/lib/nginx",
        "var/log",
        "var/log/nginx",
    ] {
        files = files.dir(dir, 0o755);
    }
    let files = files
        .file("etc/nginx/nginx.conf", 0o644, NGINX)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\nwww-data:x:33:\n");
    let spec = image(&world, files).await?;
    let container = world.started(spec.command(["nginx"])).await?;
    let answer = eventually(&container, "busybox wget -q -O - http://127.0.0.1/").await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(stop) => return fail(format!("{stop:?}; {}", logs(&container).await?)),
    };
    assert_eq!(answer, "moored");
    let workers = "for p in /proc/[0-9]*; do grep -q '^nginx: worker' $p/cmdline && stat -c %u $p; done; stat -c %u /var/lib/nginx/body";
    let user = if squashed { "0" } else { "33" };
    let wanted = format!("{user}\n{user}\n{user}");
    // One worker answers before the other has begun.
    let mut seen = sh(&container, workers, None).await?;
    for _ in 0..100 {
        if text(&seen.stdout) == wanted {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        seen = sh(&container, workers, None).await?;
    }
    assert_eq!(text(&seen.stdout), wanted, "{seen:?}");
    container.stop(longshore::StopOptions::default()).await?;
    assert_eq!(container.wait().await?.status.code(), 0);
    container.remove(FORCE).await?;
    Ok(())
}

async fn logs(container: &Container) -> Result<String, Stop> {
    use futures_util::StreamExt as _;
    let mut all = String::new();
    let mut entries = container.logs(longshore::LogQuery::default()).await?;
    while let Some(entry) = entries.next().await {
        all.push_str(&String::from_utf8_lossy(&entry?.bytes));
    }
    Ok(all)
}

/// The newest of Debian's.
fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<_> = versions.flatten().map(|entry| entry.path()).collect();
    found.retain(|dir| dir.join("bin/initdb").exists());
    found.sort();
    found.pop()
}

/// As the official image's entrypoint does: root gives the data directory away, the rest is done as `postgres`, which
/// refuses to be root.
async fn k3_postgres_answers() -> Check {
    let Some(home) = postgres() else {
        return skip("postgres is not installed (Debian package postgresql; ci/test --full installs it)");
    };
    let version = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let world = World::new().await?;
    let mut known = BTreeSet::new();
    let mut programs: Vec<_> = ["initdb", "postgres", "pg_ctl", "psql"]
        .map(|name| home.join("bin").join(name))
        .to_vec();
    programs.extend(["plpgsql.so", "dict_snowball.so"].map(|name| home.join("lib").join(name)));
    programs.retain(|program| program.exists());
    let files = with_programs(Files::new(), &programs, &mut known)?;
    let share = PathBuf::from("/usr/share/postgresql").join(&version);
    let files = with_tree(files, &share, &mut known)?
        .dir("run", 0o755)
        .owned_dir("run/postgresql", 0o2775, 999)
        .dir("var/lib", 0o755)
        .owned_dir("var/lib/data", 0o700, 999)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0::/:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\npostgres:x:999:\n");
    let spec = image(&world, files).await?;
    let spec = spec
        .user("postgres")
        .env("PGDATA", "/var/lib/data")
        .env("PGHOST", "/tmp");
    let container = world.started(spec.command(["sleep", "1000"])).await?;
    let prepared = sh(
        &container,
        "mkdir -p $PGDATA && chown -R postgres:postgres $PGDATA && chmod 700 $PGDATA",
        Some("0"),
    );
    let prepared = prepared.await?;
    assert!(prepared.status.success(), "{prepared:?}");
    let bin = home.join("bin");
    let script = format!(
        "cd /tmp; PATH={}:$PATH; {{ initdb --no-sync --no-locale -E UTF8 -A trust -U postgres && \
         pg_ctl -w -l /tmp/log -o \"-c listen_addresses='' -k /tmp\" start; }} >/tmp/out 2>&1 || {{ cat /tmp/out /tmp/log; exit 1; }}; \
         id -un; psql -U postgres -tAc 'select 1'; stat -c %U $PGDATA/base; pg_ctl -w stop >/dev/null",
        bin.display()
    );
    let said = sh(&container, &script, None).await?;
    assert_eq!(text(&said.stdout), "postgres\n1\npostgres", "{}", text(&said.stderr));
    container.remove(FORCE).await?;
    Ok(())
}
