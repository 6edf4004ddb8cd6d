//! The words of `run`'s options, each turned into what the crate takes. Pure, but for files and variables that a word names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use longshore::containers::{MountFrom, MountSpec, Ulimit};
use longshore::types::{Port, PortBinding, Propagation, Protocol};
use longshore::{Bytes, NetworkMode, Seccomp, SeccompProfile, Tmpfs};

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

/// `[SRC:]DST[:OPTIONS]`: a path of the host, a volume's name, or none for an anonymous volume. A source that starts with
/// `.` is relative to the working directory.
pub fn volume(text: &str) -> Result<MountSpec, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, words] => (source, target, words),
        _ => return Err(format!("invalid volume {text:?} (SRC:DST, NAME:DST, with :ro)")),
    };
    if !target.starts_with('/') {
        return Err(format!("invalid volume {text:?}: {target:?} is not an absolute path"));
    }
    let mut mount = match source {
        "" if parts.len() == 1 => MountSpec::anonymous(target),
        "" => return Err(format!("invalid volume {text:?}: it has no source")),
        path if path.starts_with(['/', '.']) => MountSpec::bind(host_path(path)?, target).create_source(),
        name => MountSpec::volume(name, target),
    };
    mount.short = true;
    for word in words.split(',').filter(|word| !word.is_empty()) {
        mount = match (word, Propagation::parse(word)) {
            ("ro" | "readonly", _) => mount.read_only(),
            ("rw" | "z" | "Z", _) => mount,
            ("nocopy", _) => mount.no_copy(),
            (_, Some(propagation)) => mount.propagation(propagation),
            _ => {
                return Err(format!(
                    "unknown option {word:?} of a volume (ro, rw, nocopy, rslave, …)"
                ));
            }
        };
    }
    Ok(mount)
}

fn host_path(path: &str) -> Result<PathBuf, String> {
    match path.starts_with('.') {
        true => Ok(plain(&std::path::absolute(path).map_err(|error| error.to_string())?)),
        false => Ok(PathBuf::from(path)),
    }
}

/// `type=volume,source=data,target=/x,readonly,…`. Source: docker/cli, `opts/mount.go`.
pub fn mount(text: &str) -> Result<MountSpec, String> {
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let mut rest = Vec::new();
    for word in text.split(',') {
        let (key, value) = word.split_once('=').unwrap_or((word, "true"));
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            _ => rest.push((key.to_ascii_lowercase(), value)),
        }
    }
    let target = target.filter(|target| target.starts_with('/'));
    let target = target.ok_or_else(|| format!("invalid mount {text:?}: target=/PATH is needed"))?;
    let needed = || source.ok_or_else(|| format!("invalid mount {text:?}: source=… is needed"));
    let mut mount = match kind {
        "bind" => MountSpec::bind(host_path(needed()?)?, target),
        "volume" => source.map_or_else(|| MountSpec::anonymous(target), |name| MountSpec::volume(name, target)),
        "tmpfs" => MountSpec::tmpfs(target, Tmpfs::default()),
        "image" => MountSpec::image(needed()?, target),
        kind => return Err(format!("unknown type {kind:?} of a mount (bind, volume, tmpfs, image)")),
    };
    for (key, value) in rest {
        mount = mount_option(mount, &key, value).map_err(|why| format!("invalid mount {text:?}: {why}"))?;
    }
    Ok(mount)
}

fn mount_option(mut mount: MountSpec, key: &str, value: &str) -> Result<MountSpec, String> {
    let bad = || format!("{key}={value} does not go with it");
    let set = || {
        value
            .parse::<bool>()
            .or(if value == "1" { Ok(true) } else { Err(bad()) })
    };
    match (key, &mut mount.source) {
        ("readonly" | "ro", _) => mount.read_only = set()?,
        ("volume-nocopy", MountFrom::Volume(volume)) => volume.no_copy = set()?,
        ("volume-driver", MountFrom::Volume(volume)) => volume.driver = Some(value.to_owned()),
        ("volume-label", MountFrom::Volume(volume)) => {
            let (name, value) = pair(value)?;
            volume.labels.insert(name, value.unwrap_or_default());
        }
        ("volume-opt", MountFrom::Volume(volume)) => {
            let (name, value) = pair(value)?;
            volume.options.insert(name, value.unwrap_or_default());
        }
        ("volume-subpath", MountFrom::Volume(_)) | ("image-subpath", MountFrom::Image(_)) => {
            mount.subpath = Some(value.into());
        }
        ("bind-propagation", MountFrom::Bind(bind)) => {
            bind.propagation = Propagation::parse(value).ok_or_else(bad)?;
        }
        ("bind-recursive", MountFrom::Bind(bind)) => match value {
            "enabled" => {}
            "disabled" => bind.non_recursive = true,
            "writable" => bind.read_only_top = true,
            "readonly" => bind.read_only_all = true,
            _ => return Err(bad()),
        },
        ("bind-nonrecursive", MountFrom::Bind(bind)) => bind.non_recursive = set()?,
        ("bind-create-src", MountFrom::Bind(bind)) => bind.create = set()?,
        // Not Docker's.
        ("bind-container-user", MountFrom::Bind(bind)) => bind.container_user = set()?,
        ("tmpfs-size", MountFrom::Tmpfs(made)) => made.size = Some(value.parse().map_err(|_| bad())?),
        ("tmpfs-mode", MountFrom::Tmpfs(made)) => {
            made.mode = Some(u32::from_str_radix(value, 8).map_err(|_| bad())?);
        }
        ("consistency", _) => {}
        _ => return Err(bad()),
    }
    Ok(mount)
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

/// `none`, `host`, `container:NAME` or a network's name.
pub fn network(text: &str) -> Result<NetworkMode, String> {
    text.parse().map_err(|error: longshore::Error| error.to_string())
}

/// A published port: `[[ADDRESS:]PORT[-PORT]:]PORT[-PORT][/PROTOCOL]`, an address of IPv6 in brackets.
pub fn publish(text: &str) -> Result<Vec<PortBinding>, String> {
    let bad = || format!("invalid port {text:?} ([[ADDRESS:]HOST:]CONTAINER[/PROTOCOL])");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = protocol.parse().map_err(|_| bad())?;
    let (rest, inside) = match ports.rsplit_once(':') {
        Some((rest, inside)) => (Some(rest), inside),
        None => (None, ports),
    };
    let (address, outside) = match rest {
        None => (None, None),
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, outside)) => (Some(address), Some(outside)),
            None => (None, Some(rest)),
        },
    };
    let range = |text: &str| -> Option<(u16, u16)> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some((first, last))
    };
    let (first, last) = range(inside).filter(|(first, _)| *first > 0).ok_or_else(bad)?;
    let outside = match outside.filter(|text| !text.is_empty()) {
        Some(text) => range(text).ok_or_else(bad)?,
        None => (0, 0),
    };
    let host_ip = match address.map(|text| text.trim_start_matches('[').trim_end_matches(']')) {
        None | Some("") => None,
        Some(text) => Some(text.parse::<IpAddr>().map_err(|_| bad())?),
    };
    let one = |number: u16, host_port: u16, host_port_end: u16| PortBinding {
        port: Port { number, protocol },
        host_ip,
        host_port,
        host_port_end,
    };
    let (count, offered) = (last - first, outside.1 - outside.0);
    match outside {
        (0, 0) => Ok((first..=last).map(|number| one(number, 0, 0)).collect()),
        // One port at the first that is free of several.
        (from, to) if count == 0 => Ok(vec![one(first, from, to)]),
        (from, _) if offered == count => Ok((0..=count).map(|at| one(first + at, from + at, from + at)).collect()),
        _ => Err(format!("invalid ranges of ports {text:?}: they differ in length")),
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
    /// The profile of AppArmor.
    AppArmor(String),
    /// A part of the label of SELinux.
    Label(String),
}

/// `seccomp=unconfined`, `seccomp=FILE`, `no-new-privileges[=true|false]`, `apparmor=PROFILE` or `label=PART`; `:` in place of the first `=` is taken too.
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
        ("apparmor", Some(profile)) => Ok(SecurityOption::AppArmor(profile.to_owned())),
        ("label", Some(part)) => Ok(SecurityOption::Label(part.to_owned())),
        _ => Err(format!(
            "unknown or unsupported security option {text:?} (seccomp=unconfined, seccomp=FILE, no-new-privileges, \
             apparmor=PROFILE, label=PART)"
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
    fn j1_h14_volumes_in_docker_s_short_form() {
        let short = |mut mount: MountSpec| {
            mount.short = true;
            mount
        };
        assert_eq!(volume("/a:/b"), Ok(short(MountSpec::bind("/a", "/b").create_source())));
        assert_eq!(
            volume("/a:/b:ro"),
            Ok(short(MountSpec::bind("/a", "/b").create_source().read_only()))
        );
        assert_eq!(
            volume("data:/b:nocopy"),
            Ok(short(MountSpec::volume("data", "/b").no_copy()))
        );
        assert_eq!(volume("/cache"), Ok(short(MountSpec::anonymous("/cache"))));
        let here = std::env::current_dir().unwrap();
        let MountFrom::Bind(bind) = volume("./x/../y:/b").unwrap().source else {
            panic!()
        };
        assert_eq!(bind.source, here.join("y"));
        for bad in ["/a:b", ":/b", "/a:/b:odd", "/a:/b:ro:x", "a:b"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn h14_mounts_in_docker_s_long_form() {
        let made = mount("type=volume,src=data,dst=/d,readonly,volume-nocopy,volume-subpath=a/b").unwrap();
        assert_eq!(
            made,
            MountSpec::volume("data", "/d").read_only().no_copy().subpath("a/b")
        );
        let made = mount("type=bind,source=/s,target=/t,bind-propagation=rslave").unwrap();
        assert_eq!(made, MountSpec::bind("/s", "/t").propagation(Propagation::Rslave));
        assert_eq!(
            mount("type=image,source=assets,target=/t").unwrap(),
            MountSpec::image("assets", "/t")
        );
        for bad in [
            "type=bind,target=/t",
            "type=bind,source=/s",
            "type=odd,target=/t",
            "type=tmpfs,target=/t,volume-nocopy",
            "target=relative",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
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
        assert_eq!(security("apparmor=x"), Ok(SecurityOption::AppArmor("x".to_owned())));
        assert_eq!(
            security("label=type:x_t"),
            Ok(SecurityOption::Label("type:x_t".to_owned()))
        );
        for bad in ["apparmor", "label", "seccomp", "seccomp=/does/not/exist", ""] {
            assert!(security(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn published_ports() {
        let one = |text: &str| {
            let all = publish(text).unwrap();
            let all: Vec<_> = all
                .iter()
                .map(|one| {
                    let at = one.host_ip.map(|address| address.to_string()).unwrap_or_default();
                    format!("{at}:{}-{}:{}", one.host_port, one.host_port_end, one.port)
                })
                .collect();
            all.join(" ")
        };
        assert_eq!(one("80"), ":0-0:80/tcp");
        assert_eq!(one("8080:80"), ":8080-8080:80/tcp");
        assert_eq!(one("127.0.0.1::53/udp"), "127.0.0.1:0-0:53/udp");
        assert_eq!(one("[::1]:8080:80"), "::1:8080-8080:80/tcp");
        assert_eq!(one("8080-8090:80"), ":8080-8090:80/tcp");
        assert_eq!(one("8080-8081:80-81"), ":8080-8080:80/tcp :8081-8081:81/tcp");
        for bad in [
            "",
            "0",
            "x:80",
            "80:x",
            "1-2:3-5",
            "2-1:80",
            "1.2.3:80:80",
            "80/tcq",
            "70000",
        ] {
            assert!(publish(bad).is_err(), "{bad}");
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
        assert_eq!(network("bridge"), Ok(NetworkMode::Named("bridge".into())));
        assert!(network("").is_err());
        assert_eq!(cpus("1.5"), Ok(1.5));
        for bad in ["", "x", "-1", "inf", "nan"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }
}
