//! The words of `run`'s options, each turned into what the crate takes. Pure, but for files and variables that a word names.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use longshore::containers::Ulimit;
use longshore::{BindMount, Bytes, NetworkMode, Seccomp, SeccompProfile, Tmpfs};

/// Capabilities, say, or limits: a name with an optional value behind `=`.
pub type Pair = (String, Option<String>);

/// `KEY=VALUE` or `KEY`.
pub fn pair(text: &str) -> Result<Pair, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() || key.contains('\0') {
        return Err(format!("{text:?} has no name (KEY=VALUE or KEY)"));
    }
    Ok((key.to_owned(), value))
}

/// A length of time in Go's words: `30s`, `1m30s`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no length of time (30s, 1m30s, 500ms)");
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * seconds;
        rest = tail;
    }
    match text.is_empty() {
        true => Err(bad()),
        false => Duration::try_from_secs_f64(total).map_err(|_| bad()),
    }
}

/// The environment of `--env-file` and `-e`, the latter over the former. A name without a value takes the client's own
/// variable, and is left out where there is none, as with Docker.
pub fn environment(files: &[PathBuf], given: &[Pair]) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        pairs.extend(env_file(&text).map_err(|error| format!("{}: {error}", file.display()))?);
    }
    pairs.extend_from_slice(given);
    let own = |key: &str| std::env::var(key).ok();
    Ok(pairs
        .into_iter()
        .filter_map(|(key, value)| value.or_else(|| own(&key)).map(|value| (key, value)))
        .collect())
}

/// Docker's format: a line each, `#` starts a comment line, values are taken as they stand, quotes included.
fn env_file(text: &str) -> Result<Vec<Pair>, String> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
    let wanted = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    wanted
        .map(|line| match pair(line) {
            Ok((key, _)) if key.contains(char::is_whitespace) => Err(format!("variable {key:?} contains whitespace")),
            other => other,
        })
        .collect()
}

/// `SRC:DST[:ro|rw]`. A source that starts with `.` is relative to the working directory.
pub fn bind(text: &str) -> Result<BindMount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] => (source, target, false),
        [source, target, mode] => (source, target, access(mode)?),
        _ => return Err(format!("invalid bind {text:?} (SRC:DST or SRC:DST:ro)")),
    };
    let source = if source.starts_with('.') {
        plain(&std::path::absolute(source).map_err(|error| error.to_string())?)
    } else {
        PathBuf::from(source)
    };
    if !source.is_absolute() {
        return Err(format!(
            "{text:?} names a volume, and there are none yet: the source must be a path (start it with / or ./)"
        ));
    }
    if !target.starts_with('/') {
        return Err(format!("invalid bind {text:?}: {target:?} is not an absolute path"));
    }
    Ok(BindMount {
        source,
        target: target.into(),
        read_only,
    })
}

fn access(mode: &str) -> Result<bool, String> {
    let mut read_only = false;
    for word in mode.split(',') {
        match word {
            "ro" | "readonly" => read_only = true,
            "rw" => read_only = false,
            other => return Err(format!("unknown mode {other:?} of a bind (ro or rw)")),
        }
    }
    Ok(read_only)
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// `size=BYTES`.
pub fn storage_size(text: &str) -> Result<Bytes, String> {
    match text.split_once('=') {
        Some((name, size)) if name.eq_ignore_ascii_case("size") => {
            size.parse().map_err(|error: longshore::Error| error.to_string())
        }
        _ => Err(format!("unknown storage option {text:?} (size=BYTES)")),
    }
}

/// `PATH[:size=64m,mode=1777,uid=0,gid=0,exec]`.
pub fn tmpfs(text: &str) -> Result<(PathBuf, Tmpfs), String> {
    let (path, words) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(format!("invalid tmpfs {text:?}: {path:?} is not an absolute path"));
    }
    let mut options = Tmpfs::default();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        tmpfs_option(&mut options, word)?;
    }
    Ok((path.into(), options))
}

fn tmpfs_option(options: &mut Tmpfs, word: &str) -> Result<(), String> {
    let bad = || format!("unknown or unsupported tmpfs option {word:?} (size=, mode=, uid=, gid=, exec)");
    match pair(word)? {
        (key, Some(value)) => match key.as_str() {
            "size" => options.size = Some(value.parse::<Bytes>().map_err(|error| error.to_string())?),
            "mode" => options.mode = Some(u32::from_str_radix(&value, 8).map_err(|_| bad())?),
            "uid" => options.uid = Some(value.parse().map_err(|_| bad())?),
            "gid" => options.gid = Some(value.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        },
        (key, None) => match key.as_str() {
            "exec" => options.exec = true,
            "noexec" => options.exec = false,
            // What it is anyway.
            "rw" | "nosuid" | "nodev" => {}
            _ => return Err(bad()),
        },
    }
    Ok(())
}

/// `NAME=SOFT[:HARD]`, where -1 is no limit.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("invalid ulimit {text:?} (NAME=SOFT or NAME=SOFT:HARD, say nofile=1024:2048)");
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        digits => digits.parse().map_err(|_| bad()),
    };
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(format!("invalid ulimit {text:?}: the soft limit is above the hard one"));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// `none` or `host`.
pub fn network(text: &str) -> Result<NetworkMode, String> {
    match text {
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => match other.strip_prefix("container:") {
            Some(name) if !name.is_empty() => Ok(NetworkMode::Container(name.to_owned())),
            _ => Err(format!(
                "network {other:?} is not there yet (none, host or container:NAME)"
            )),
        },
    }
}

/// A number of CPUs, `1.5`.
pub fn cpus(text: &str) -> Result<f64, String> {
    let cpus = text
        .parse::<f64>()
        .ok()
        .filter(|cpus| cpus.is_finite() && (0.0..=1e6).contains(cpus));
    cpus.ok_or_else(|| format!("invalid number of CPUs: {text:?} (say 1.5)"))
}

/// What `--security-opt` says.
#[derive(Debug, Clone, PartialEq)]
pub enum SecurityOption {
    /// Which system calls may be made.
    Seccomp(Seccomp),
    /// Whether setuid programs gain nothing.
    NoNewPrivileges(bool),
    /// What is so anyway.
    Nothing,
}

/// `seccomp=unconfined`, `seccomp=FILE` or `no-new-privileges[=true|false]`; `:` in place of the first `=` is taken too.
pub fn security(text: &str) -> Result<SecurityOption, String> {
    let (key, value) = match text.split_once(['=', ':']) {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    match (key, value) {
        ("seccomp", Some("unconfined")) => Ok(SecurityOption::Seccomp(Seccomp::Unconfined)),
        ("seccomp", Some("builtin" | "default")) => Ok(SecurityOption::Seccomp(Seccomp::Default)),
        ("seccomp", Some(file)) => seccomp_file(Path::new(file)).map(SecurityOption::Seccomp),
        ("no-new-privileges", None | Some("true")) => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", Some("false")) => Ok(SecurityOption::NoNewPrivileges(false)),
        // Nothing of them is in force.
        ("apparmor", Some("unconfined")) | ("label", Some("disable")) => Ok(SecurityOption::Nothing),
        _ => Err(format!(
            "unknown or unsupported security option {text:?} (seccomp=unconfined, seccomp=FILE, no-new-privileges)"
        )),
    }
}

/// A profile in Docker's form, or in that of the OCI runtime specification.
fn seccomp_file(path: &Path) -> Result<Seccomp, String> {
    let bad = |error: &dyn std::fmt::Display| format!("seccomp profile {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| bad(&error))?;
    let profile = SeccompProfile::parse(text).map_err(|error| bad(&error))?;
    Ok(Seccomp::Profile(profile))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(key: &str, value: &str) -> Pair {
        (key.into(), Some(value.into()))
    }

    #[test]
    fn h1_environment_in_docker_s_way() {
        let file = "# comment\n\n  A=1\nB=\"kept quotes\"\nC=x=y\nLONGSHORE_NOT_SET\n";
        let pairs = env_file(file).unwrap();
        assert_eq!(
            pairs,
            [
                some("A", "1"),
                some("B", "\"kept quotes\""),
                some("C", "x=y"),
                ("LONGSHORE_NOT_SET".into(), None)
            ]
        );
        assert!(env_file("a b=1").is_err());
        assert!(env_file("=1").is_err());
        let env = environment(
            &[],
            &[
                some("A", "1"),
                some("A", "2"),
                ("LONGSHORE_NOT_SET".into(), None),
                ("PATH".into(), None),
            ],
        )
        .unwrap();
        assert_eq!(env["A"], "2");
        assert_eq!(env["PATH"], std::env::var("PATH").unwrap());
        assert_eq!(env.len(), 2);
    }

    #[test]
    fn binds() {
        let expect = |source: &str, target: &str, read_only| BindMount {
            source: source.into(),
            target: target.into(),
            read_only,
        };
        assert_eq!(bind("/a:/b"), Ok(expect("/a", "/b", false)));
        assert_eq!(bind("/a:/b:ro"), Ok(expect("/a", "/b", true)));
        assert_eq!(bind("/a:/b:rw"), Ok(expect("/a", "/b", false)));
        let here = std::env::current_dir().unwrap();
        assert_eq!(bind("./x/../y:/b").unwrap().source, here.join("y"));
        for bad in ["", "/a", "/a:b", "data:/b", "/a:/b:zz", "/a:/b:ro:x", ":/b"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_file_systems() {
        let (path, options) = tmpfs("/tmp:size=64m,mode=755,uid=5,exec,nosuid").unwrap();
        let expected = Tmpfs {
            size: Some(Bytes::mib(64)),
            mode: Some(0o755),
            uid: Some(5),
            gid: None,
            exec: true,
        };
        assert_eq!((path, options), ("/tmp".into(), expected));
        assert_eq!(tmpfs("/tmp"), Ok(("/tmp".into(), Tmpfs::default())));
        for bad in ["tmp", "/tmp:size=x", "/tmp:mode=9", "/tmp:bogus", "/tmp:uid"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn h6_ulimits() {
        let expect = |soft, hard| Ulimit {
            name: "nofile".into(),
            soft,
            hard,
        };
        assert_eq!(ulimit("nofile=10:20"), Ok(expect(10, 20)));
        assert_eq!(ulimit("nofile=10"), Ok(expect(10, 10)));
        assert_eq!(ulimit("nofile=10:-1"), Ok(expect(10, u64::MAX)));
        for bad in ["nofile", "nofile=", "nofile=x", "nofile=2:1", "nofile=-1:5"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn security_options() {
        assert_eq!(
            security("seccomp=unconfined"),
            Ok(SecurityOption::Seccomp(Seccomp::Unconfined))
        );
        assert_eq!(
            security("seccomp:unconfined"),
            Ok(SecurityOption::Seccomp(Seccomp::Unconfined))
        );
        assert_eq!(security("no-new-privileges"), Ok(SecurityOption::NoNewPrivileges(true)));
        assert_eq!(
            security("no-new-privileges:false"),
            Ok(SecurityOption::NoNewPrivileges(false))
        );
        for bad in ["apparmor=x", "seccomp", "seccomp=/does/not/exist", ""] {
            assert!(security(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "5", "x", "-1s", "1y", "1s2"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_and_cpus() {
        assert_eq!(network("host"), Ok(NetworkMode::Host));
        assert!(network("bridge").unwrap_err().contains("not there yet"));
        assert_eq!(cpus("1.5"), Ok(1.5));
        for bad in ["", "x", "-1", "inf", "nan"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }
}
