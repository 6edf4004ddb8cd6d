//! `stats`: the counters of a container's cgroups, read from outside: whoever's container it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, stream};

use super::local::Shared;
use super::record::Record;
use super::{BlockStats, BoxStream, CpuStats, MemoryStats, PidsStats, Stats, StatsOptions};
use crate::error::Result;
use crate::runtime::cgroups::layout::Layout;
use crate::types::ContainerId;

/// Between two readings.
const PERIOD: Duration = Duration::from_secs(1);

/// A stream of readings under way.
struct Series {
    shared: Arc<Shared>,
    id: ContainerId,
    previous: Option<(SystemTime, CpuStats)>,
    stream: bool,
    done: bool,
}

impl Shared {
    pub(crate) async fn stats(self: &Arc<Self>, name: &str, options: StatsOptions) -> Result<BoxStream<Result<Stats>>> {
        let record = self.find(name).await?;
        let mut series = Series {
            shared: Arc::clone(self),
            id: record.id.clone(),
            previous: None,
            stream: options.stream,
            done: false,
        };
        if !options.stream && !options.one_shot && record.state.is_alive() {
            let first = self.reading(record).await;
            series.previous = first.read.map(|read| (read, first.cpu));
        }
        let readings: Pin<Box<dyn Stream<Item = Result<Stats>> + Send>> =
            Box::pin(stream::unfold(series, Series::next));
        Ok(self.parts.spawner.stream(readings, 1))
    }

    /// One that does not run has no counters.
    async fn reading(&self, record: Record) -> Stats {
        let Some(process) = record.body.process.filter(|_| record.state.is_alive()) else {
            return Stats {
                read: Some(SystemTime::now()),
                ..Stats::default()
            };
        };
        let read = tokio::task::spawn_blocking(move || read(process.pid, &record.id)).await;
        read.unwrap_or_default()
    }
}

impl Series {
    async fn next(mut self) -> Option<(Result<Stats>, Self)> {
        if self.done {
            return None;
        }
        if self.previous.is_some() {
            tokio::time::sleep(PERIOD).await;
        }
        let record = match self.shared.find(self.id.as_str()).await {
            // It is gone: so are its counters.
            Err(error) if error.is_not_found() && self.stream => return None,
            Err(error) => {
                self.done = true;
                return Some((Err(error), self));
            }
            Ok(record) => record,
        };
        let mut stats = self.shared.reading(record).await;
        stats.previous = self.previous.take();
        self.previous = stats.read.map(|read| (read, stats.cpu));
        self.done = !self.stream;
        Some((Ok(stats), self))
    }
}

/// The container's own directories, by hierarchy. One that it shares with the engine says nothing about it.
#[derive(Default)]
struct Places {
    v2: Option<PathBuf>,
    v1: Vec<(Vec<String>, PathBuf)>,
}

impl Places {
    fn of(pid: u32, id: &ContainerId) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let layout = Layout::parse(&mounts, &groups);
        let v1 = layout.v1.into_iter();
        Self {
            v2: layout.v2.and_then(|tree| named(&tree.own?, id)),
            v1: v1
                .filter_map(|tree| Some((tree.controllers, named(&tree.own?, id)?)))
                .collect(),
        }
    }

    fn v1(&self, controller: &str) -> Option<&Path> {
        let has = |(controllers, _): &&(Vec<String>, PathBuf)| controllers.iter().any(|name| name == controller);
        self.v1.iter().find(has).map(|(_, dir)| dir.as_path())
    }
}

/// The directory that bears the container's id: its first process may be in one below.
fn named(dir: &Path, id: &ContainerId) -> Option<PathBuf> {
    let own = |dir: &&Path| dir.file_name().is_some_and(|name| name == id.as_str());
    dir.ancestors().find(own).map(Path::to_path_buf)
}

fn read(pid: u32, id: &ContainerId) -> Stats {
    let places = Places::of(pid, id);
    Stats {
        read: Some(SystemTime::now()),
        previous: None,
        cpu: cpu(&places),
        memory: memory(&places),
        pids: pids(&places),
        block: block(&places),
    }
}

fn text(dir: Option<&Path>, file: &str) -> Option<String> {
    fs::read_to_string(dir?.join(file)).ok()
}

/// A number in a file of its own. `max` and the greatest that version 1 knows are none.
fn number(dir: Option<&Path>, file: &str) -> Option<u64> {
    const NO_LIMIT_V1: u64 = 0x7fff_ffff_ffff_0000;
    let number = text(dir, file)?.trim().parse().ok()?;
    (number < NO_LIMIT_V1).then_some(number)
}

/// A file of `key number` lines.
fn table(dir: Option<&Path>, file: &str) -> BTreeMap<String, u64> {
    let text = text(dir, file).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (key, number) = line.split_once(' ')?;
        Some((key.to_owned(), number.trim().parse().ok()?))
    });
    pairs.collect()
}

fn cpu(places: &Places) -> CpuStats {
    let v2 = places.v2.as_deref();
    let table = table(v2, "cpu.stat");
    let micros = |key: &str| table.get(key).map(|micros| micros * 1000);
    let account = places.v1("cpuacct");
    let (host_ns, online_cpus) = host_cpu();
    let throttle = self::table(places.v1("cpu"), "cpu.stat");
    CpuStats {
        total_ns: number(account, "cpuacct.usage").or_else(|| micros("usage_usec")),
        system_ns: number(account, "cpuacct.usage_sys").or_else(|| micros("system_usec")),
        user_ns: number(account, "cpuacct.usage_user").or_else(|| micros("user_usec")),
        host_ns,
        online_cpus,
        throttled_periods: throttle
            .get("nr_throttled")
            .or_else(|| table.get("nr_throttled"))
            .copied(),
        throttled_ns: throttle
            .get("throttled_time")
            .copied()
            .or_else(|| micros("throttled_usec")),
    }
}

/// CPU time of the host, in ticks of 10 ms (`USER_HZ` is 100 on every architecture here), and how many CPUs it has.
fn host_cpu() -> (Option<u64>, Option<u32>) {
    const TICK_NS: u64 = 10_000_000;
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    // Guest time is in user time already. Source: proc_stat(5).
    let ticks = first.map(|line| {
        line.split_whitespace()
            .take(8)
            .filter_map(|word| word.parse::<u64>().ok())
            .sum()
    });
    let cpus = text.lines().skip(1).filter(|line| line.starts_with("cpu")).count();
    (
        ticks.map(|ticks: u64| ticks * TICK_NS),
        u32::try_from(cpus).ok().filter(|cpus| *cpus > 0),
    )
}

fn memory(places: &Places) -> MemoryStats {
    let (v1, v2) = (places.v1("memory"), places.v2.as_deref());
    let usage_bytes = number(v1, "memory.usage_in_bytes").or_else(|| number(v2, "memory.current"));
    let dir = v1.or(v2);
    let limit = number(v1, "memory.limit_in_bytes").or_else(|| number(v2, "memory.max"));
    MemoryStats {
        usage_bytes,
        limit_bytes: limit.or_else(host_memory),
        detail: table(dir, "memory.stat"),
    }
}

fn host_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn pids(places: &Places) -> PidsStats {
    let (v1, v2) = (places.v1("pids"), places.v2.as_deref());
    // Without the controller, threads can be counted all the same.
    let counted = || text(v2, "cgroup.threads").map(|list| list.lines().count() as u64);
    PidsStats {
        current: number(v1, "pids.current")
            .or_else(|| number(v2, "pids.current"))
            .or_else(counted),
        limit: number(v1, "pids.max").or_else(|| number(v2, "pids.max")),
    }
}

fn block(places: &Places) -> BlockStats {
    if let Some(text) = text(places.v2.as_deref(), "io.stat") {
        let sum = |key: &str| {
            let words = text
                .split_whitespace()
                .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
            Some(words.sum())
        };
        return BlockStats {
            read_bytes: sum("rbytes="),
            written_bytes: sum("wbytes="),
        };
    }
    let Some(text) = text(places.v1("blkio"), "blkio.throttle.io_service_bytes") else {
        return BlockStats::default();
    };
    let sum = |verb: &str| {
        let numbers = text
            .lines()
            .filter_map(|line| line.split_once(&format!(" {verb} "))?.1.parse::<u64>().ok());
        Some(numbers.sum())
    };
    BlockStats {
        read_bytes: sum("Read"),
        written_bytes: sum("Write"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn g7_counters_of_version_2() {
        let dir = fake(&[
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_throttled 3\nthrottled_usec 7\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 100\nfile 200\n"),
            ("pids.current", "2\n"),
            ("pids.max", "20\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n"),
        ]);
        let places = Places {
            v2: Some(dir.path().into()),
            v1: Vec::new(),
        };
        let cpu = cpu(&places);
        assert_eq!(
            (cpu.total_ns, cpu.user_ns, cpu.system_ns),
            (Some(1_500_000), Some(1_000_000), Some(500_000))
        );
        assert_eq!((cpu.throttled_periods, cpu.throttled_ns), (Some(3), Some(7000)));
        let memory = memory(&places);
        assert_eq!((memory.usage_bytes, memory.limit_bytes), (Some(4096), host_memory()));
        assert_eq!(memory.detail["file"], 200);
        assert_eq!(
            pids(&places),
            PidsStats {
                current: Some(2),
                limit: Some(20)
            }
        );
        let expected = BlockStats {
            read_bytes: Some(11),
            written_bytes: Some(22),
        };
        assert_eq!(block(&places), expected);
    }

    #[test]
    fn g7_counters_of_version_1() {
        let dir = fake(&[
            ("cpuacct.usage", "1500\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            (
                "blkio.throttle.io_service_bytes",
                "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
            ),
        ]);
        let all = ["cpuacct", "memory", "pids", "blkio"].map(str::to_owned).to_vec();
        let places = Places {
            v2: None,
            v1: vec![(all, dir.path().into())],
        };
        assert_eq!(cpu(&places).total_ns, Some(1500));
        let memory = memory(&places);
        assert_eq!((memory.usage_bytes, memory.limit_bytes), (Some(4096), host_memory()));
        assert_eq!(
            pids(&places),
            PidsStats {
                current: Some(2),
                limit: None
            }
        );
        let expected = BlockStats {
            read_bytes: Some(10),
            written_bytes: Some(20),
        };
        assert_eq!(block(&places), expected);
    }

    #[test]
    fn only_a_directory_of_its_own_counts() {
        let id = ContainerId::random();
        let own = PathBuf::from(format!("/sys/fs/cgroup/x/{id}"));
        assert_eq!(named(&own.join("inner"), &id), Some(own));
        assert_eq!(named(Path::new("/sys/fs/cgroup/session"), &id), None);
    }
}
