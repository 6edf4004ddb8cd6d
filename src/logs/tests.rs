//! Drivers, reader and pump together, with real files and pipes.

use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};

use super::*;
use crate::types::Bytes as Size;

fn target() -> (tempfile::TempDir, LogTarget) {
    let dir = tempfile::tempdir().unwrap();
    let target = LogTarget {
        id: ContainerId::random(),
        dir: dir.path().to_owned(),
        options: BTreeMap::new(),
        subject: LogSubject::default(),
    };
    (dir, target)
}

fn small() -> LocalDriver {
    LocalDriver::new(LocalOptions {
        max_size: Size::new(1000),
        max_files: 3,
        compress: false,
    })
}

fn entry(stream: LogStream, time_ns: i64, text: &str) -> LogEntry {
    LogEntry {
        stream,
        time_ns,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn out(n: i64) -> LogEntry {
    entry(LogStream::Stdout, n, &format!("line {n}\n"))
}

async fn texts(driver: &LocalDriver, target: &LogTarget, query: LogQuery) -> Vec<String> {
    let entries: Vec<_> = driver.read(target, query).unwrap().collect().await;
    entries
        .into_iter()
        .map(|entry| String::from_utf8_lossy(&entry.unwrap().bytes).into_owned())
        .collect()
}

#[tokio::test]
async fn queries() {
    let (_dir, target) = target();
    let driver = LocalDriver::default();
    let sink = driver.open(&target).unwrap();
    sink.write(&[
        out(1),
        entry(LogStream::Stderr, 2, "err\n"),
        entry(LogStream::Stdout, 3, "par"),
        entry(LogStream::Stdout, 4, "tial\n"),
        out(5),
    ])
    .unwrap();
    sink.close().unwrap();
    let all = LogQuery::default();
    assert_eq!(
        texts(&driver, &target, all.clone()).await.concat(),
        "line 1\nerr\npartial\nline 5\n"
    );
    assert_eq!(
        texts(
            &driver,
            &target,
            LogQuery {
                stdout: false,
                ..all.clone()
            }
        )
        .await,
        ["err\n"]
    );
    assert_eq!(
        texts(
            &driver,
            &target,
            LogQuery {
                tail: Some(2),
                ..all.clone()
            }
        )
        .await,
        ["par", "tial\n", "line 5\n"]
    );
    assert_eq!(
        texts(
            &driver,
            &target,
            LogQuery {
                tail: Some(0),
                follow: true,
                ..all.clone()
            }
        )
        .await,
        [""; 0]
    );
    assert_eq!(
        texts(
            &driver,
            &target,
            LogQuery {
                tail: Some(99),
                ..all.clone()
            }
        )
        .await
        .len(),
        5
    );
    let some = LogQuery {
        since_ns: Some(2),
        until_ns: Some(3),
        ..all.clone()
    };
    assert_eq!(texts(&driver, &target, some).await, ["err\n", "par"]);
    let stamped = LogQuery {
        timestamps: true,
        stderr: false,
        ..all
    };
    assert_eq!(
        texts(&driver, &target, stamped).await[1..3],
        ["1970-01-01T00:00:00.000000003Z par", "tial\n"]
    );
    assert_eq!(driver.remove(&target).unwrap(), Outcome::Done);
    assert_eq!(driver.remove(&target).unwrap(), Outcome::Already);
}

#[tokio::test]
async fn rotation_keeps_so_many_files_and_tail_crosses_them() {
    let (dir, target) = target();
    let driver = small();
    let sink = driver.open(&target).unwrap();
    for n in 0..500 {
        sink.write(&[out(n)]).unwrap();
    }
    sink.close().unwrap();
    let sizes: Vec<u64> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
    let expected: Vec<String> = (420..500).map(|n| format!("line {n}\n")).collect();
    let query = LogQuery {
        tail: Some(80),
        ..LogQuery::default()
    };
    assert_eq!(texts(&driver, &target, query).await, expected);
}

/// Followed from this driver (woken by its bell) and from another one (as another process would: by looking).
#[tokio::test]
async fn followers_see_every_byte_across_rotation() {
    let (_dir, target) = target();
    let driver = LocalDriver::new(LocalOptions {
        max_size: Size::kib(8),
        max_files: 1000,
        compress: false,
    });
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let readers = [driver.clone(), LocalDriver::default()].map(|driver| {
        let (target, follow) = (target.clone(), follow.clone());
        tokio::spawn(async move { texts(&driver, &target, follow).await.concat() })
    });
    let sink = driver.open(&target).unwrap();
    let written = tokio::task::spawn_blocking(move || {
        let mut all = String::new();
        for n in 0..20_000 {
            let entry = out(n);
            all.push_str(std::str::from_utf8(&entry.bytes).unwrap());
            sink.write(&[entry]).unwrap();
        }
        sink.close().unwrap();
        all
    });
    let written = written.await.unwrap();
    for reader in readers {
        assert!(reader.await.unwrap() == written);
    }
}

#[tokio::test]
async fn a_reader_that_rotation_overtook_is_told() {
    let (_dir, target) = target();
    let driver = small();
    let sink = driver.open(&target).unwrap();
    sink.write(&[out(0)]).unwrap();
    let mut reader = driver
        .read(
            &target,
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        )
        .unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), out(0));
    for n in 1..1000 {
        sink.write(&[out(n)]).unwrap();
    }
    sink.close().unwrap();
    let rest: Vec<_> = reader.collect().await;
    assert_eq!(rest.iter().filter(|item| item.is_err()).count(), 1);
    assert_eq!(rest.last().unwrap().as_ref().unwrap(), &out(999));
}

#[tokio::test]
async fn a_torn_end_is_cut_and_writing_goes_on() {
    let (dir, target) = target();
    let driver = LocalDriver::default();
    driver.open(&target).unwrap().write(&[out(1), out(2)]).unwrap();
    let file = dir.path().join("log.1");
    let torn = std::fs::read(&file).unwrap();
    std::fs::write(&file, &torn[..torn.len() - 3]).unwrap();
    assert_eq!(texts(&driver, &target, LogQuery::default()).await, ["line 1\n"]);
    let sink = driver.open(&target).unwrap();
    sink.write(&[out(3)]).unwrap();
    sink.close().unwrap();
    assert_eq!(
        texts(
            &driver,
            &target,
            LogQuery {
                follow: true,
                ..LogQuery::default()
            }
        )
        .await,
        ["line 1\n", "line 3\n"]
    );
}

#[tokio::test]
async fn garbage_is_an_error_not_a_hang() {
    let (dir, target) = target();
    std::fs::write(dir.path().join("log.1"), [0xee; 100]).unwrap();
    let items: Vec<_> = LocalDriver::default()
        .read(
            &target,
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        )
        .unwrap()
        .collect()
        .await;
    assert_eq!(items[0].as_ref().unwrap_err().kind(), &crate::ErrorKind::Corrupt);
    assert_eq!(items.len(), 1);
}

#[tokio::test]
async fn the_pump_loses_nothing() {
    let (_dir, target) = target();
    let driver = LocalDriver::default();
    let tee = Tee::new();
    let mut collector = tee.collect();
    let (stdout, mut to_stdout) = std::io::pipe().unwrap();
    let (stderr, mut to_stderr) = std::io::pipe().unwrap();
    let mut expected = Vec::new();
    for n in 0..200_000 {
        expected.extend_from_slice(format!("{n}\n").as_bytes());
    }
    expected.extend_from_slice(&[b'x'; 40_000]);
    let bytes = expected.clone();
    let writer = std::thread::spawn(move || {
        to_stdout.write_all(&bytes).unwrap();
        to_stderr.write_all(b"oops\n").unwrap();
    });
    let streams = vec![(stdout.into(), LogStream::Stdout), (stderr.into(), LogStream::Stderr)];
    let sink = driver.open(&target).unwrap();
    let report = pump_all(streams, Arc::clone(&sink), tee.clone(), PumpOptions::default())
        .await
        .unwrap();
    finish(sink, &tee).await.unwrap();
    writer.join().unwrap();
    assert_eq!((report.bytes, report.lost_entries), (expected.len() as u64 + 5, 0));
    let mut collected = Vec::new();
    while let Some(item) = collector.next().await {
        let TeeItem::Chunk(chunk) = item else {
            panic!("{item:?}")
        };
        if chunk.stream == LogStream::Stdout {
            collected.extend_from_slice(&chunk.bytes);
        }
    }
    assert!(collected == expected);
    let query = LogQuery {
        stderr: false,
        follow: true,
        ..LogQuery::default()
    };
    assert!(texts(&driver, &target, query).await.concat().into_bytes() == expected);
    let query = LogQuery {
        stdout: false,
        ..LogQuery::default()
    };
    assert_eq!(texts(&driver, &target, query).await, ["oops\n"]);
}

/// A sink that is slow, and fails now and then.
#[derive(Debug, Default)]
struct Slow {
    taken: Mutex<usize>,
    times: Mutex<Vec<i64>>,
    fail: bool,
}

impl LogSink for Slow {
    fn write(&self, entries: &[LogEntry]) -> Result<()> {
        std::thread::sleep(Duration::from_millis(30));
        if self.fail {
            return Err(Error::new(crate::ErrorKind::NoSpace, "full"));
        }
        *self.taken.lock().unwrap() += entries.len();
        let times = entries.iter().map(|entry| entry.time_ns);
        self.times.lock().unwrap().extend(times);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

async fn pump_lines(sink: Arc<Slow>, overflow: Overflow) -> PumpReport {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let text = "0123456789abcde\n".repeat(50_000);
    let thread = std::thread::spawn(move || writer.write_all(text.as_bytes()).unwrap());
    let options = PumpOptions {
        buffer_bytes: 100_000,
        overflow,
    };
    let streams = vec![(reader.into(), LogStream::Stdout)];
    let report = pump_all(streams, sink, Tee::new(), options).await.unwrap();
    thread.join().unwrap();
    report
}

#[tokio::test]
async fn a_slow_sink_makes_wait_or_loses_what_is_counted() {
    let sink = Arc::new(Slow::default());
    let report = pump_lines(sink.clone(), Overflow::Wait).await;
    assert_eq!((*sink.taken.lock().unwrap(), report.lost_entries), (50_000, 0));
    let sink = Arc::new(Slow::default());
    let report = pump_lines(sink.clone(), Overflow::Drop).await;
    assert!(report.lost_entries > 0);
    assert_eq!(*sink.taken.lock().unwrap() as u64 + report.lost_entries, 50_000);
    let report = pump_lines(
        Arc::new(Slow {
            fail: true,
            ..Slow::default()
        }),
        Overflow::Wait,
    )
    .await;
    assert_eq!((report.bytes, report.lost_entries), (800_000, 50_000));
    assert_eq!(report.first_error.unwrap().kind(), &crate::ErrorKind::NoSpace);
}

#[tokio::test]
async fn entries_of_all_streams_come_in_the_order_of_their_times_and_none_twice() {
    let (stdout, mut to_stdout) = std::io::pipe().unwrap();
    let (stderr, mut to_stderr) = std::io::pipe().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..20 {
            to_stdout.write_all(&b"much\n".repeat(30_000)).unwrap();
            to_stderr.write_all(b"one\n").unwrap();
        }
    });
    let streams = vec![(stdout.into(), LogStream::Stdout), (stderr.into(), LogStream::Stderr)];
    let sink = Arc::new(Slow::default());
    pump_all(streams, sink.clone(), Tee::new(), PumpOptions::default())
        .await
        .unwrap();
    writer.join().unwrap();
    let times = sink.times.lock().unwrap();
    assert_eq!(times.len(), 20 * 30_001);
    assert!(times.is_sorted_by(|one, next| one < next));
}

#[tokio::test]
async fn a_prompt_without_a_newline_shows_up() {
    let (_dir, target) = target();
    let driver = LocalDriver::default();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let sink = driver.open(&target).unwrap();
    let pumping = tokio::spawn(pump_all(
        vec![(reader.into(), LogStream::Stdout)],
        sink,
        Tee::new(),
        PumpOptions::default(),
    ));
    writer.write_all(b"login: ").unwrap();
    let mut entries = driver
        .read(
            &target,
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        )
        .unwrap();
    let first = tokio::time::timeout(Duration::from_secs(5), entries.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first.bytes, "login: ");
    assert!(first.is_partial());
    drop(writer);
    pumping.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_slow_attached_reader_loses_and_is_told() {
    let tee = Tee::new();
    let mut slow = tee.subscribe(10);
    for text in ["12345", "67890", "abc", "def"] {
        tee.write(LogStream::Stdout, &Bytes::from(text));
    }
    for _ in 0..2 {
        assert!(matches!(slow.next().await, Some(TeeItem::Chunk(_))));
    }
    assert_eq!(slow.next().await, Some(TeeItem::Lagged { missed_bytes: 6 }));
    assert!(slow.next().now_or_never().is_none());
    tee.close();
    assert_eq!(slow.next().await, None);
    assert_eq!(tee.subscribe(1).next().await, None);
}

#[test]
fn options_are_docker_s() {
    let parsed = LocalOptions::parse([("max-size", "5m"), ("max-file", "2")]).unwrap();
    assert_eq!(
        parsed,
        LocalOptions {
            max_size: Size::mib(5),
            max_files: 2,
            compress: false,
        }
    );
    for bad in [
        ("max-size", "0"),
        ("max-file", "0"),
        ("max-file", "x"),
        ("colour", "red"),
    ] {
        assert!(LocalOptions::parse([bad]).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn followers_end_when_the_log_is_removed_or_closed_by_a_sweeper() {
    for sweep in [true, false] {
        let (_dir, target) = target();
        let driver = LocalDriver::default();
        driver.open(&target).unwrap().write(&[out(1)]).unwrap();
        let mut reader = driver
            .read(
                &target,
                LogQuery {
                    follow: true,
                    ..LogQuery::default()
                },
            )
            .unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), out(1));
        match sweep {
            true => LocalDriver::default().open(&target).unwrap().close().unwrap(),
            false => drop(driver.remove(&target).unwrap()),
        }
        let end = tokio::time::timeout(Duration::from_secs(10), reader.next())
            .await
            .unwrap();
        assert!(end.is_none());
    }
}

/// Followed while files are rotated and packed, and read again afterwards; another process sees the end, too.
#[tokio::test]
async fn h19_json_lines_are_followed_across_packed_files() {
    let (dir, target) = target();
    let options = LocalOptions {
        max_size: Size::kib(4),
        max_files: 1000,
        compress: true,
    };
    let driver = JsonFileDriver::new(options);
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let readers = [driver.clone(), JsonFileDriver::default()].map(|driver| {
        let (target, follow) = (target.clone(), follow.clone());
        tokio::spawn(async move {
            let entries: Vec<_> = driver.read(&target, follow).unwrap().collect().await;
            let bytes = entries.into_iter().flat_map(|entry| entry.unwrap().bytes);
            bytes.collect::<Vec<u8>>()
        })
    });
    let sink = driver.open(&target).unwrap();
    let written = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        for n in 0..2_000 {
            let entry = out(n);
            all.extend_from_slice(&entry.bytes);
            sink.write(&[entry]).unwrap();
        }
        sink.close().unwrap();
        all
    });
    let written = written.await.unwrap();
    for reader in readers {
        assert!(reader.await.unwrap() == written);
    }
    let packed = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".gz");
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(names.iter().filter(|name| packed(name)).count() > 10, "{names:?}");
    let tail = LogQuery {
        tail: Some(100),
        since_ns: Some(0),
        ..LogQuery::default()
    };
    let tail: Vec<_> = driver.read(&target, tail).unwrap().collect().await;
    assert_eq!(tail.len(), 100);
    assert_eq!(tail[0].as_ref().unwrap(), &out(1900));
    // Written on after the end: it is a log again, and its torn end is cut.
    std::fs::write(
        dir.path().join("json.999"),
        b"{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:00Z\"}\n{\"log\":",
    )
    .unwrap();
    let sink = driver.open(&target).unwrap();
    sink.write(&[out(7)]).unwrap();
    let all: Vec<_> = driver.read(&target, LogQuery::default()).unwrap().collect().await;
    let last: Vec<_> = all
        .iter()
        .rev()
        .take(2)
        .map(|entry| entry.as_ref().unwrap().bytes.clone())
        .collect();
    assert_eq!(last, ["line 7\n", "x\n"]);
    assert_eq!(driver.remove(&target).unwrap(), Outcome::Done);
}

#[cfg(feature = "conformance")]
#[tokio::test]
async fn h20_our_drivers_pass_the_suite() {
    let drivers: [&dyn LogDriver; 3] = [&LocalDriver::default(), &JsonFileDriver::default(), &NoneDriver::new()];
    for driver in drivers {
        let dir = tempfile::tempdir().unwrap();
        crate::conformance::logs::logs(driver, dir.path()).await;
    }
}
