//! `top`: the processes of a container as `ps` shows them, read from the host's `/proc`. No `ps` is executed: that of the
//! container may be anything, and that of the host may be missing.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::{SysconfVar, sysconf};
use time::OffsetDateTime;

use super::Top;
use super::local::Shared;
use super::state::{ContainerState, Refusal, Verb, decide, refuse};
use crate::error::{Error, ObjectKind, Result};
use crate::sys::order;

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    User,
    Uid,
    Group,
    Gid,
    Pid,
    Ppid,
    Pgid,
    Sid,
    C,
    Cpu,
    Mem,
    Vsz,
    Rss,
    Tty,
    State,
    Start,
    CpuTime,
    Elapsed,
    Comm,
    Cmd,
    Nice,
    Priority,
    Threads,
}

/// Words after `-o`, the column, and its title. Source: ps(1), "standard format specifiers".
const COLUMNS: &[(&str, Column, &str)] = &[
    ("user", Column::User, "USER"),
    ("euser", Column::User, "EUSER"),
    ("uname", Column::User, "USER"),
    ("uid", Column::Uid, "UID"),
    ("euid", Column::Uid, "EUID"),
    ("group", Column::Group, "GROUP"),
    ("egroup", Column::Group, "EGROUP"),
    ("gid", Column::Gid, "GID"),
    ("egid", Column::Gid, "EGID"),
    ("pid", Column::Pid, "PID"),
    ("ppid", Column::Ppid, "PPID"),
    ("pgid", Column::Pgid, "PGID"),
    ("pgrp", Column::Pgid, "PGRP"),
    ("sid", Column::Sid, "SID"),
    ("sess", Column::Sid, "SESS"),
    ("c", Column::C, "C"),
    ("pcpu", Column::Cpu, "%CPU"),
    ("%cpu", Column::Cpu, "%CPU"),
    ("pmem", Column::Mem, "%MEM"),
    ("%mem", Column::Mem, "%MEM"),
    ("vsz", Column::Vsz, "VSZ"),
    ("vsize", Column::Vsz, "VSZ"),
    ("rss", Column::Rss, "RSS"),
    ("tty", Column::Tty, "TT"),
    ("tt", Column::Tty, "TT"),
    ("tname", Column::Tty, "TTY"),
    ("s", Column::State, "S"),
    ("state", Column::State, "S"),
    ("stat", Column::State, "STAT"),
    ("stime", Column::Start, "STIME"),
    ("start", Column::Start, "STARTED"),
    ("start_time", Column::Start, "START"),
    ("bsdstart", Column::Start, "START"),
    ("time", Column::CpuTime, "TIME"),
    ("cputime", Column::CpuTime, "TIME"),
    ("etime", Column::Elapsed, "ELAPSED"),
    ("comm", Column::Comm, "COMMAND"),
    ("ucmd", Column::Comm, "CMD"),
    ("ucomm", Column::Comm, "COMMAND"),
    ("cmd", Column::Cmd, "CMD"),
    ("args", Column::Cmd, "COMMAND"),
    ("command", Column::Cmd, "COMMAND"),
    ("ni", Column::Nice, "NI"),
    ("nice", Column::Nice, "NI"),
    ("pri", Column::Priority, "PRI"),
    ("nlwp", Column::Threads, "NLWP"),
    ("thcount", Column::Threads, "THCNT"),
];

const FULL: &[(Column, &str)] = &[
    (Column::User, "UID"),
    (Column::Pid, "PID"),
    (Column::Ppid, "PPID"),
    (Column::C, "C"),
    (Column::Start, "STIME"),
    (Column::Tty, "TTY"),
    (Column::CpuTime, "TIME"),
    (Column::Cmd, "CMD"),
];

const PLAIN: &[(Column, &str)] = &[
    (Column::Pid, "PID"),
    (Column::Tty, "TTY"),
    (Column::CpuTime, "TIME"),
    (Column::Comm, "CMD"),
];

const BSD: &[(Column, &str)] = &[
    (Column::User, "USER"),
    (Column::Pid, "PID"),
    (Column::Cpu, "%CPU"),
    (Column::Mem, "%MEM"),
    (Column::Vsz, "VSZ"),
    (Column::Rss, "RSS"),
    (Column::Tty, "TTY"),
    (Column::State, "STAT"),
    (Column::Start, "START"),
    (Column::CpuTime, "TIME"),
    (Column::Cmd, "COMMAND"),
];

type Columns = Vec<(Column, String)>;

impl Shared {
    pub(crate) async fn top(&self, name: &str, arguments: Vec<String>) -> Result<Top> {
        let columns = columns(&arguments)?;
        let record = self.find(name).await?;
        decide(&record.id, record.state, Verb::Top)?;
        let not_running = || refuse(&record.id, ContainerState::Exited, Verb::Top, Refusal::NotRunning);
        let process = record.body.process.ok_or_else(not_running)?;
        self.tell(self.event(&record, "top")).await;
        let apart = self.is_bare(&record.body.spec);
        let job = move || table(process.pid, apart, &columns);
        let listed = tokio::task::spawn_blocking(job).await;
        let top = listed.map_err(|error| Error::internal("listing processes panicked").with_source(error))?;
        top.filter(|top| !top.processes.is_empty()).ok_or_else(not_running)
    }
}

fn not_understood(argument: &str) -> Error {
    let message = format!("cannot understand the ps arguments {argument:?}: use -ef, aux, or -o with columns");
    Error::invalid(message).with_object(ObjectKind::Option, "ps arguments")
}

/// The columns that arguments of `ps` ask for: a selection of all processes, with `-f`, `u` or `-o`.
fn columns(arguments: &[String]) -> Result<Columns> {
    let with_titles = |list: &[(Column, &str)]| {
        list.iter()
            .map(|(column, title)| (*column, (*title).to_owned()))
            .collect()
    };
    let words: Vec<&str> = arguments.iter().flat_map(|text| text.split_whitespace()).collect();
    if words.is_empty() {
        return Ok(with_titles(FULL));
    }
    let (mut full, mut bsd, mut chosen) = (false, false, Columns::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (flags, dash) = match word.strip_prefix('-') {
            Some(flags) => (flags, true),
            None => (word, false),
        };
        if let Some(list) = word.strip_prefix("--format=") {
            chosen.extend(choose(list)?);
            continue;
        }
        for (at, flag) in flags.char_indices() {
            match flag {
                'o' => {
                    let rest = flags.get(at + 1..).filter(|rest| !rest.is_empty());
                    let list = rest.or_else(|| words.next()).ok_or_else(|| not_understood(word))?;
                    chosen.extend(choose(list)?);
                    break;
                }
                'f' if dash => full = true,
                'u' if !dash => bsd = true,
                // The selection: it is always the container's processes. Width is never cut.
                'e' | 'A' | 'a' | 'x' | 'w' => {}
                _ => return Err(not_understood(word)),
            }
        }
    }
    match () {
        () if !chosen.is_empty() => Ok(chosen),
        () if bsd => Ok(with_titles(BSD)),
        () if full => Ok(with_titles(FULL)),
        () => Ok(with_titles(PLAIN)),
    }
}

/// `pid,comm`, or with a title of one's own that takes the rest: `pid=Process`.
fn choose(list: &str) -> Result<Columns> {
    let mut chosen = Columns::new();
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let name = &rest[..end];
        let known = COLUMNS.iter().find(|(word, ..)| word.eq_ignore_ascii_case(name));
        let (_, column, title) = known.ok_or_else(|| not_understood(name))?;
        if let Some(own) = rest[end..].strip_prefix('=') {
            chosen.push((*column, own.to_owned()));
            return Ok(chosen);
        }
        chosen.push((*column, (*title).to_owned()));
        rest = rest[end..].strip_prefix(',').unwrap_or("");
    }
    Ok(chosen)
}

/// A process as `/proc` tells of it.
#[derive(Debug, Default)]
struct Process {
    pid: u32,
    ppid: u32,
    pgid: String,
    sid: String,
    state: String,
    tty: u32,
    ticks: u64,
    priority: i64,
    nice: String,
    threads: String,
    start_ticks: u64,
    vsz_bytes: u64,
    rss_pages: u64,
    uid: u32,
    gid: u32,
    comm: String,
    command: String,
}

impl Process {
    /// Source: proc_pid_stat(5).
    fn read(pid: u32) -> Option<Self> {
        let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
        let stat = String::from_utf8_lossy(&file("stat")?).into_owned();
        let (head, tail) = stat.rsplit_once(')')?;
        let comm = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let word = |number: usize| fields.get(number - 3).copied().unwrap_or("0");
        let parse = |number: usize| word(number).parse::<u64>().unwrap_or(0);
        let status = String::from_utf8_lossy(&file("status")?).into_owned();
        let effective = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let command = file("cmdline").unwrap_or_default();
        let command = String::from_utf8_lossy(&command)
            .trim_end_matches('\0')
            .replace('\0', " ");
        Some(Self {
            pid,
            ppid: parse(4) as u32,
            pgid: word(5).into(),
            sid: word(6).into(),
            state: word(3).into(),
            tty: parse(7) as u32,
            ticks: parse(14) + parse(15),
            priority: word(18).parse().unwrap_or(0),
            nice: word(19).into(),
            threads: word(20).into(),
            start_ticks: parse(22),
            vsz_bytes: parse(23),
            rss_pages: parse(24),
            uid: effective("Uid:")?,
            gid: effective("Gid:")?,
            command: if command.is_empty() {
                format!("[{comm}]")
            } else {
                command
            },
            comm,
        })
    }
}

/// What the host says of everything.
struct Host {
    ticks_per_second: u64,
    page_bytes: u64,
    boot: i64,
    now: i64,
    memory_bytes: u64,
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Host {
    fn read() -> Self {
        let config = |variable| sysconf(variable).ok().flatten().unwrap_or(0).max(1) as u64;
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = stat
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        let page_bytes = config(SysconfVar::PAGE_SIZE);
        Self {
            ticks_per_second: config(SysconfVar::CLK_TCK),
            page_bytes,
            boot: boot.unwrap_or(0),
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_secs() as i64),
            memory_bytes: config(SysconfVar::_PHYS_PAGES) * page_bytes,
            users: names("/etc/passwd"),
            groups: names("/etc/group"),
        }
    }

    fn started(&self, process: &Process) -> i64 {
        self.boot + (process.start_ticks / self.ticks_per_second) as i64
    }

    /// CPU time over the time since the start, in tenths of a percent.
    fn per_mille(&self, process: &Process) -> u64 {
        let age = (self.now - self.started(process)).max(1) as u64;
        process.ticks * 1000 / self.ticks_per_second / age
    }

    fn cell(&self, column: Column, process: &Process) -> String {
        let seconds = process.ticks / self.ticks_per_second;
        let tenths = |number: u64| format!("{}.{}", number / 10, number % 10);
        let rss = process.rss_pages * self.page_bytes;
        let name = |names: &HashMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        match column {
            Column::User => name(&self.users, process.uid),
            Column::Uid => process.uid.to_string(),
            Column::Group => name(&self.groups, process.gid),
            Column::Gid => process.gid.to_string(),
            Column::Pid => process.pid.to_string(),
            Column::Ppid => process.ppid.to_string(),
            Column::Pgid => process.pgid.clone(),
            Column::Sid => process.sid.clone(),
            Column::C => (self.per_mille(process) / 10).min(99).to_string(),
            Column::Cpu => tenths(self.per_mille(process)),
            Column::Mem => tenths(rss * 1000 / self.memory_bytes),
            Column::Vsz => (process.vsz_bytes / 1024).to_string(),
            Column::Rss => (rss / 1024).to_string(),
            Column::Tty => tty(process.tty),
            Column::State => process.state.clone(),
            Column::Start => self.clock(self.started(process)),
            Column::CpuTime => {
                format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            Column::Elapsed => elapsed((self.now - self.started(process)).max(0)),
            Column::Comm => process.comm.clone(),
            Column::Cmd => process.command.clone(),
            Column::Nice => process.nice.clone(),
            // As ps counts: 39 is the kernel's 0.
            Column::Priority => (39 - process.priority).to_string(),
            Column::Threads => process.threads.clone(),
        }
    }

    /// The time of a start today, the day of one before. In UTC: the zone of the host is the reader's business.
    fn clock(&self, start: i64) -> String {
        const DAY: i64 = 86_400;
        let Ok(moment) = OffsetDateTime::from_unix_timestamp(start) else {
            return "-".into();
        };
        if self.now - start < DAY {
            return format!("{:02}:{:02}", moment.hour(), moment.minute());
        }
        let month = moment.month().to_string();
        format!("{}{:02}", month.get(..3).unwrap_or("?"), moment.day())
    }
}

fn elapsed(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{:02}", seconds % 60),
        (0, _) => format!("{hours:02}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days}-{hours:02}:{minutes:02}:{:02}", seconds % 60),
    }
}

/// The names of a file in the form of passwd(5).
fn names(file: &str) -> HashMap<u32, String> {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

/// The name of a terminal by its device. Source: proc_pid_stat(5), Documentation/admin-guide/devices.txt.
fn tty(device: u32) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".into(),
    }
}

/// Every process in the first one's pid namespace, and what they have started. Of a container without namespaces (`apart`): all that
/// descend from the first one's parent, its warden. `None`: the first is gone.
fn processes(first: u32, apart: bool) -> Option<Vec<Process>> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(first).filter(|_| !apart);
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut inside: HashSet<u32> = HashSet::from([first]);
    if apart {
        inside.insert(Process::read(first)?.ppid);
    }
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for process in pids.filter_map(Process::read) {
        if process.pid == first || (own.is_some() && namespace(process.pid) == own) {
            inside.insert(process.pid);
            found.push(process);
        } else {
            others.push(process);
        }
    }
    // Those whose namespace this user may not see, and namespaces inside.
    loop {
        let (children, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|process| inside.contains(&process.ppid));
        if children.is_empty() {
            break;
        }
        inside.extend(children.iter().map(|process| process.pid));
        found.extend(children);
        others = rest;
    }
    order::sort_by_key(&mut found, |process| process.pid);
    found.iter().any(|process| process.pid == first).then_some(found)
}

fn table(first: u32, apart: bool, columns: &[(Column, String)]) -> Option<Top> {
    let (found, host) = (processes(first, apart)?, Host::read());
    let row = |process: &Process| columns.iter().map(|(column, _)| host.cell(*column, process)).collect();
    Some(Top {
        titles: columns.iter().map(|(_, title)| title.clone()).collect(),
        processes: found.iter().map(row).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn titles(arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        columns(&arguments)
            .unwrap()
            .into_iter()
            .map(|(_, title)| title)
            .collect()
    }

    #[test]
    fn g7_arguments_of_ps() {
        let full = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
        assert_eq!(titles(&[]), full);
        assert_eq!(titles(&["-ef"]), full);
        assert_eq!(titles(&["-e", "-f"]), full);
        assert_eq!(titles(&["aux"])[..3], ["USER", "PID", "%CPU"]);
        assert_eq!(titles(&["-eo", "pid,comm"]), ["PID", "COMMAND"]);
        assert_eq!(titles(&["-o pid,args"]), ["PID", "COMMAND"]);
        assert_eq!(titles(&["-o", "pid=Process"]), ["Process"]);
        for bad in ["-Z", "--nope", "-o", "-opid,nope", "x;rm"] {
            assert_eq!(
                columns(&[bad.to_owned()]).unwrap_err().kind(),
                &ErrorKind::InvalidArgument,
                "{bad}"
            );
        }
    }

    #[test]
    fn g7_this_process_is_listed() {
        let me = std::process::id();
        let columns = columns(&["-eo".into(), "pid,ppid,rss,etime,user,tty,stat,args".into()]).unwrap();
        let top = table(me, false, &columns).unwrap();
        let row = top.processes.iter().find(|row| row[0] == me.to_string()).unwrap();
        assert!(row[2].parse::<u64>().unwrap() > 0);
        assert!(!row[7].is_empty());
        assert!(table(u32::MAX, false, &columns).is_none());
    }
}
