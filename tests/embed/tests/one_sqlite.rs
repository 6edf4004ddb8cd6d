//! A program can link one SQLite only. This one uses it through longshore, through sqlx and through diesel, and runs a
//! container in between. Beside that, nothing of the process may have changed.
//!
//! Needs `/bin/busybox`, linked statically. Runs as root and as an ordinary user.

use std::collections::BTreeMap;
use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};
use longshore::registry::layout::{Compression, LayoutWriter};
use longshore::types::Platform;
use longshore::{ContainerSpec, Engine, ListOptions};
use sqlx::sqlite::SqliteConnectOptions;

type Failure = Box<dyn std::error::Error>;

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = Integer)]
    count: i32,
}

/// One after the other: what a process is, is seen by all its threads.
#[tokio::test]
async fn one_sqlite_serves_longshore_sqlx_and_diesel_and_the_process_stays_as_it_was() -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let mut others = Others::open(scratch.path()).await?;
    others.write().await?;
    let before = Process::now();

    let engine = Engine::open(scratch.path().join("root")).await?;
    others.write().await?;
    let image = engine.pull(make_image(&scratch.path().join("layout"))?).await?;
    let spec = ContainerSpec::image(image.id().to_string()).command(["sh", "-c", "cat /word; exit 7"]);
    let (output, written) = tokio::join!(engine.run(spec).output(), others.write());
    written?;
    let output = output?;
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (7, &b"made here\n"[..]),
        "{output:?}"
    );

    // It fails, but not before there is a client that could do TLS.
    let refused = engine.pull("127.0.0.1:1/nothing:here").await;
    assert!(refused.is_err(), "somebody listens at port 1");

    assert_eq!(Process::now(), before, "while the engine is open");
    let all = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    assert!(engine.list(all).await?.is_empty());
    drop((image, engine));
    assert_eq!(Process::now(), before, "when the engine is gone");
    assert_eq!(others.written().await?, (3, 3));
    Ok(())
}

/// The other two users of SQLite, each with a database on disk.
struct Others {
    diesel: SqliteConnection,
    sqlx: sqlx::SqlitePool,
}

impl Others {
    async fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("diesel.db");
        let mut diesel = SqliteConnection::establish(path.to_str().ok_or("a path that is no text")?)?;
        diesel::sql_query("create table words (word text)").execute(&mut diesel)?;
        let options = SqliteConnectOptions::new()
            .filename(dir.join("sqlx.db"))
            .create_if_missing(true);
        let sqlx = sqlx::SqlitePool::connect_with(options).await?;
        sqlx::query("create table words (word text)").execute(&sqlx).await?;

        let of_diesel: Vec<Version> = diesel::sql_query("select sqlite_version() as version").load(&mut diesel)?;
        let of_sqlx: String = sqlx::query_scalar("select sqlite_version()").fetch_one(&sqlx).await?;
        assert_eq!(of_diesel[0].version, of_sqlx);
        Ok(Self { diesel, sqlx })
    }

    async fn write(&mut self) -> Result<(), Failure> {
        diesel::sql_query("insert into words values ('a word')").execute(&mut self.diesel)?;
        sqlx::query("insert into words values ('a word')")
            .execute(&self.sqlx)
            .await?;
        Ok(())
    }

    async fn written(&mut self) -> Result<(i32, i32), Failure> {
        let of_diesel: Vec<Count> =
            diesel::sql_query("select cast(count(*) as integer) as count from words").load(&mut self.diesel)?;
        let of_sqlx: i32 = sqlx::query_scalar("select count(*) from words")
            .fetch_one(&self.sqlx)
            .await?;
        Ok((of_diesel[0].count, of_sqlx))
    }
}

/// What belongs to the whole process, and so to the program rather than to a library.
#[derive(Debug, PartialEq)]
struct Process {
    /// Ids, umask, signals blocked, ignored and caught, capabilities, `no_new_privs`, seccomp: proc_pid_status(5).
    status: BTreeMap<String, String>,
    limits: String,
    directory: std::path::PathBuf,
    environment: BTreeMap<std::ffi::OsString, std::ffi::OsString>,
    subreaper: bool,
    /// Whether somebody installed a default provider of cryptography for rustls.
    tls_default: bool,
}

impl Process {
    fn now() -> Self {
        let kept = ["Umask", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp"];
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("a status");
        Self {
            status: status
                .lines()
                .filter_map(|line| line.split_once(':'))
                .filter(|(name, _)| kept.contains(name) || is_signal_set(name) || name.starts_with("Cap"))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            limits: std::fs::read_to_string("/proc/self/limits").expect("limits"),
            directory: std::env::current_dir().expect("a directory"),
            environment: std::env::vars_os().collect(),
            subreaper: nix::sys::prctl::get_child_subreaper().expect("an answer"),
            tls_default: rustls::crypto::CryptoProvider::get_default().is_some(),
        }
    }
}

/// Pending signals come and go: a child that ends sends one.
fn is_signal_set(name: &str) -> bool {
    ["SigBlk", "SigIgn", "SigCgt"].contains(&name)
}

/// An image of this machine's busybox and a file, as an OCI layout in `dir`.
fn make_image(dir: &Path) -> Result<String, Failure> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["busybox", "sh", "cat"] {
        tar.append_path_with_name("/bin/busybox", format!("bin/{name}"))?;
    }
    let word = b"made here\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(word.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "word", &word[..])?;

    let layout = LayoutWriter::create(dir)?;
    let layer = layout.put_layer(tar.into_inner()?.as_slice(), Compression::Gzip)?;
    let config = serde_json::json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
    layout.put_image(Some("shell"), &Platform::host(), config, &[layer])?;
    Ok(format!("oci:{}:shell", dir.display()))
}
