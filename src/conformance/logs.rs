//! The suite for [`LogDriver`]. It panics with what is wrong.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::error::ErrorKind;
use crate::logs::{LogDriver, LogEntry, LogQuery, LogStream, LogSubject, LogTarget};
use crate::types::{ContainerId, Outcome};

/// What every log driver does. The directory is empty before, and its own afterwards. Reading is looked at where the driver can
/// read back; text alone is written, since not every driver keeps other bytes. In a tokio runtime.
///
/// # Panics
/// Where the driver does not behave.
#[allow(clippy::missing_panics_doc)]
pub async fn logs(driver: &dyn LogDriver, dir: &Path) {
    assert!(!driver.name().is_empty(), "a driver has a name");
    refuses_what_nobody_has(driver);
    let (one, other) = (target(dir, "one"), target(dir, "other"));
    write(driver, &one, &[out(1), err(2), out(3)]);
    write(driver, &other, &[out(10)]);
    let Ok(entries) = driver.read(&one, LogQuery::default()) else {
        let refused = driver.read(&one, LogQuery::default()).err().expect("refused");
        assert!(
            refused.is_unsupported(),
            "a driver that cannot read back says so: {refused}"
        );
        driver.remove(&one).expect("remove");
        driver.remove(&other).expect("remove");
        return;
    };
    drop(entries);
    if all(driver, &one, LogQuery::default()).await.is_empty() {
        // Keeps nothing.
        return;
    }
    queries(driver, &one).await;
    assert_eq!(
        all(driver, &other, LogQuery::default()).await,
        [out(10)],
        "logs are kept apart"
    );
    goes_on(driver, &one).await;
    assert_eq!(driver.remove(&one).expect("remove"), Outcome::Done);
    assert_eq!(driver.remove(&one).expect("remove again"), Outcome::Already);
    assert_eq!(
        all(driver, &one, LogQuery::default()).await,
        [],
        "what was removed is gone"
    );
    assert_eq!(
        all(driver, &other, LogQuery::default()).await,
        [out(10)],
        "and nothing else"
    );
    driver.remove(&other).expect("remove");
}

fn refuses_what_nobody_has(driver: &dyn LogDriver) {
    driver.check(&BTreeMap::new()).expect("no options are fine");
    let odd = BTreeMap::from([("no-driver-has-this".to_owned(), "1".to_owned())]);
    let refused = driver.check(&odd).expect_err("an option that the driver has not");
    assert_eq!(refused.kind(), &ErrorKind::InvalidArgument);
}

async fn queries(driver: &dyn LogDriver, target: &LogTarget) {
    let query = LogQuery::default;
    assert_eq!(all(driver, target, query()).await, [out(1), err(2), out(3)], "in order");
    let stderr = LogQuery {
        stdout: false,
        ..query()
    };
    assert_eq!(all(driver, target, stderr).await, [err(2)], "by stream");
    let since = LogQuery {
        since_ns: Some(2),
        ..query()
    };
    assert_eq!(all(driver, target, since).await, [err(2), out(3)], "since");
    let until = LogQuery {
        until_ns: Some(2),
        ..query()
    };
    assert_eq!(all(driver, target, until).await, [out(1), err(2)], "until");
    let tail = LogQuery {
        tail: Some(1),
        ..query()
    };
    assert_eq!(all(driver, target, tail).await, [out(3)], "the tail");
    let follow = LogQuery {
        follow: true,
        ..query()
    };
    assert_eq!(
        all(driver, target, follow).await.len(),
        3,
        "who follows a closed log comes to its end"
    );
}

/// A container that is started again.
async fn goes_on(driver: &dyn LogDriver, target: &LogTarget) {
    let sink = driver.open(target).expect("open again");
    let mut reader = driver
        .read(
            target,
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        )
        .expect("read");
    for expected in [out(1), err(2), out(3)] {
        let entry = reader.next().await.expect("an entry").expect("no error");
        assert_eq!(entry, expected, "what was written before stays");
    }
    sink.write(&[out(4)]).expect("write");
    let entry = reader.next().await.expect("an entry").expect("no error");
    assert_eq!(entry, out(4), "what is written while somebody follows");
    sink.close().expect("close");
    assert!(reader.next().await.is_none(), "an end that is told");
}

fn target(dir: &Path, name: &str) -> LogTarget {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    LogTarget {
        id: ContainerId::random(),
        dir,
        options: BTreeMap::new(),
        subject: LogSubject::default(),
    }
}

fn write(driver: &dyn LogDriver, target: &LogTarget, entries: &[LogEntry]) {
    let sink = driver.open(target).expect("open");
    sink.write(entries).expect("write");
    sink.close().expect("close");
}

async fn all(driver: &dyn LogDriver, target: &LogTarget, query: LogQuery) -> Vec<LogEntry> {
    let entries: Vec<_> = driver.read(target, query).expect("read").collect().await;
    entries.into_iter().map(|entry| entry.expect("no error")).collect()
}

fn entry(stream: LogStream, time_ns: i64) -> LogEntry {
    let bytes = Bytes::from(format!("line {time_ns}\n"));
    LogEntry { stream, time_ns, bytes }
}

fn out(time_ns: i64) -> LogEntry {
    entry(LogStream::Stdout, time_ns)
}

fn err(time_ns: i64) -> LogEntry {
    entry(LogStream::Stderr, time_ns)
}
