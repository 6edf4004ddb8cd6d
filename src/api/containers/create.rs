//! `containers/create`: Docker's JSON to a [`ContainerSpec`], a pure function, and one call.
//!
//! Every option is taken, refused, or ignored because it says nothing here. What the engine does not have is refused with
//! the option's name and what it would need; `docs/differences.md` lists what is ignored with a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::call::Call;
use super::super::error::Failure;
use super::super::object::{Object, OneOrMany};
use super::super::reply;
use super::super::router::Answer;
use super::{devices, limits, mounts, networking};
use crate::containers::lsm::Module;
use crate::containers::{ContainerSpec, HealthCheck, LogConfig, NamespaceMode, Seccomp, SeccompProfile, Ulimit};
use crate::error::{Error, ObjectKind};
use crate::images::HealthConfig;
use crate::types::{Bytes, Platform};

/// What this version of the engine has not, and what it would take.
const LATER: &str = "a version of longshore that has it";
pub(super) const REFUSED_OF_HOST: &[(&str, &str)] = &[
    ("Cgroup", LATER),
    ("KernelMemory", "a kernel that still has it, which none does"),
    ("KernelMemoryTCP", "a kernel that still has it, which none does"),
    ("CpuCount", "Windows"),
    ("CpuPercent", "Windows"),
    ("IOMaximumIOps", "Windows"),
    ("IOMaximumBandwidth", "Windows"),
];

pub(super) async fn create(mut call: Call) -> Answer {
    let body = call.object().await?;
    if body.is_empty() {
        return Err(Failure::bad("config cannot be empty in order to create a container"));
    }
    let (mut spec, warnings) = spec(body)?;
    limits::check_cpus(&call, &spec.limits).await?;
    if let Some(name) = call.query.get("name") {
        spec.name = Some(valid_name(name.strip_prefix('/').unwrap_or(name), "")?);
    }
    if let Some(platform) = call.query.get("platform") {
        spec.platform = Some(platform.parse::<Platform>()?);
    }
    let (name, image, driver) = (spec.name.clone(), spec.image.clone(), spec.log.driver.clone());
    match call.engine.containers().create(spec).await {
        Ok(created) => {
            let warnings = [warnings, created.warnings].concat();
            let body = json!({"Id": created.id.as_str(), "Warnings": warnings});
            Ok(reply::json(StatusCode::CREATED, &body))
        }
        Err(error) if matches!(error.object(), Some((ObjectKind::Image, _))) && error.is_not_found() => {
            // Clients pull when they read this. Docker names the tag that it assumed.
            let failure = Failure::from(error);
            match image.parse::<crate::types::Reference>() {
                Ok(name) => Err(failure.say(format!("No such image: {}", name.familiar()))),
                Err(_) => Err(failure),
            }
        }
        Err(error)
            if error.is_not_found()
                && matches!(error.object(), Some((ObjectKind::Container | ObjectKind::Network, _))) =>
        {
            // One whose namespace was to be shared, or a network: a mistake in what was sent. Of a 404 clients think that the
            // image is missing, and pull.
            let mut failure = Failure::from(error);
            failure.status = StatusCode::BAD_REQUEST;
            Err(failure)
        }
        Err(error) if matches!(error.object(), Some((ObjectKind::Option, "mount source"))) => {
            let message = format!("invalid mount config for type \"bind\": {error}");
            Err(Failure::from(error).say(message))
        }
        Err(error) if error.object() == Some((ObjectKind::Option, "log driver")) => {
            let driver = driver.unwrap_or_default();
            let message = format!("error looking up logging plugin {driver}: plugin \"{driver}\" not found");
            Err(Failure::from(error).say(message))
        }
        Err(error) if error.is_conflict() => Err(name_taken(&call, &name.unwrap_or_default(), error).await),
        Err(error) => Err(error.into()),
    }
}

/// A name that can be, or Docker's words for one that cannot. Source: moby, `daemon/names`.
pub(super) fn valid_name(name: &str, before: &str) -> Result<String, Failure> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.len() > 0 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest {
        return Ok(name.to_owned());
    }
    let message = format!("{before}Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    Err(Failure::bad(message))
}

/// Docker's words for a name that is taken, which name the container that has it.
pub(super) async fn name_taken(call: &Call, name: &str, error: Error) -> Failure {
    let Ok(other) = call.engine.containers().inspect(name).await else {
        return error.into();
    };
    let message = format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove (or rename) \
         that container to be able to reuse that name.",
        other.id
    );
    Failure::from(error).say(message)
}

/// Docker's JSON to what a manager takes, and what is not quite as asked for.
pub(in crate::api) fn spec(body: Map<String, Value>) -> Result<(ContainerSpec, Vec<String>), Failure> {
    let mut warnings = Vec::new();
    let mut config = Object::new("", body);
    let Some(image) = config.text("Image")? else {
        return Err(Failure::bad("invalid Image: no image was named"));
    };
    let mut spec = ContainerSpec::image(image);
    take_process(&mut config, &mut spec)?;
    let mut host = config.object("HostConfig")?;
    take_isolation(&mut host, &mut spec, &mut warnings)?;
    spec.limits = limits::take(&mut host, limits::For::Create)?;
    devices::take(&mut host, &mut spec)?;
    devices::take_rates(&mut host, &mut spec.limits)?;
    let volumes = config.take_or_default::<BTreeMap<PathBuf, Value>>("Volumes")?;
    mounts::take(&mut host, volumes.into_keys().collect(), &mut spec)?;
    networking::take(&mut config, &mut host, &mut spec, &mut warnings)?;
    host.refuse(REFUSED_OF_HOST)?;
    Ok((spec, warnings))
}

/// What runs, and as whom.
fn take_process(config: &mut Object, spec: &mut ContainerSpec) -> Result<(), Failure> {
    spec.command = list(config, "Cmd")?;
    // One empty word resets the image's entrypoint.
    spec.entrypoint = list(config, "Entrypoint")?.map(|words| if words == [""] { Vec::new() } else { words });
    (spec.env, spec.env_remove) = env(config)?;
    spec.working_dir = working_dir(config)?;
    spec.user = config.text("User")?;
    spec.hostname = config.text("Hostname")?;
    spec.domainname = config.text("Domainname")?;
    spec.tty = config.take_or_default("Tty")?;
    spec.open_stdin = config.take_or_default("OpenStdin")?;
    spec.stdin_once = config.take_or_default("StdinOnce")?;
    spec.labels = config.take_or_default::<BTreeMap<String, String>>("Labels")?;
    spec.stop_signal = config.text("StopSignal")?.map(|name| name.parse()).transpose()?;
    spec.stop_timeout = config
        .take::<i64>("StopTimeout")?
        .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::from(u32::MAX))));
    spec.health = health(config)?;
    Ok(())
}

fn working_dir(config: &mut Object) -> Result<Option<PathBuf>, Failure> {
    match config.text("WorkingDir")? {
        Some(path) if !path.starts_with('/') => Err(Failure::bad(format!(
            "the working directory '{path}' is invalid, it needs to be an absolute path"
        ))),
        path => Ok(path.map(Into::into)),
    }
}

/// What is not said here is as the image has it.
fn health(config: &mut Object) -> Result<HealthCheck, Failure> {
    let mut asked = config.object("Healthcheck")?;
    let asked = HealthConfig {
        test: asked.take_or_default("Test")?,
        interval_ns: asked.take_or_default("Interval")?,
        timeout_ns: asked.take_or_default("Timeout")?,
        start_period_ns: asked.take_or_default("StartPeriod")?,
        start_interval_ns: asked.take_or_default("StartInterval")?,
        retries: asked.take_or_default("Retries")?,
    };
    Ok(HealthCheck::from_config(&asked)?)
}

fn list(config: &mut Object, key: &str) -> Result<Option<Vec<String>>, Failure> {
    let words = config.take::<OneOrMany>(key)?;
    // Docker takes an empty list for none.
    Ok(words.map(|words| words.0).filter(|words| !words.is_empty()))
}

/// `NAME=value`. A name alone takes a variable of the image's away.
fn env(config: &mut Object) -> Result<(BTreeMap<String, String>, BTreeSet<String>), Failure> {
    let (mut env, mut removed) = (BTreeMap::new(), BTreeSet::new());
    for variable in config.take_or_default::<Vec<String>>("Env")? {
        let Some((name, value)) = variable.split_once('=') else {
            env.remove(&variable);
            removed.insert(variable);
            continue;
        };
        if name.is_empty() {
            return Err(Failure::bad(format!("invalid environment variable: {variable}")));
        }
        removed.remove(name);
        env.insert(name.to_owned(), value.to_owned());
    }
    Ok((env, removed))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RestartPolicy {
    name: Option<String>,
    maximum_retry_count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AskedLog {
    #[serde(rename = "Type")]
    driver: Option<String>,
    config: Option<BTreeMap<String, String>>,
}

/// How it is kept apart, and what becomes of it.
fn take_isolation(host: &mut Object, spec: &mut ContainerSpec, warnings: &mut Vec<String>) -> Result<(), Failure> {
    spec.auto_remove = host.take_or_default("AutoRemove")?;
    spec.annotations = host.take_or_default("Annotations")?;
    spec.init = host.take_or_default("Init")?;
    spec.read_only = host.take_or_default("ReadonlyRootfs")?;
    spec.privileged = host.take_or_default("Privileged")?;
    spec.cap_add = host.take_or_default::<OneOrMany>("CapAdd")?.0;
    spec.cap_drop = host.take_or_default::<OneOrMany>("CapDrop")?.0;
    spec.groups = host.take_or_default("GroupAdd")?;
    spec.oom_score_adj = oom_score(host)?;
    spec.masked_paths = host.take("MaskedPaths")?;
    spec.readonly_paths = host.take("ReadonlyPaths")?;
    spec.shm_size = shared_memory(host)?;
    spec.storage_size = storage_size(host)?;
    spec.tty_size = console(host)?;
    spec.ulimits = ulimits(host)?;
    security(host, spec, warnings)?;
    namespaces(host, spec)?;
    spec.restart = take_restart(host)?.unwrap_or_default();
    spec.log = take_log(host)?;
    spec.cgroup_parent = host.text("CgroupParent")?.filter(|parent| !parent.is_empty());
    // "runc" is what Docker's own inspect says of every container, and what clients that make one again pass on: the engine's
    // default. Another name is the engine's to know.
    spec.runtime = host
        .text("Runtime")?
        .filter(|name| !matches!(name.as_str(), "" | "runc"));
    Ok(())
}

/// What happens when it has ended; `None` where nothing is said.
pub(super) fn take_restart(host: &mut Object) -> Result<Option<crate::containers::RestartPolicy>, Failure> {
    let Some(asked) = host.take::<RestartPolicy>("RestartPolicy")? else {
        return Ok(None);
    };
    let Some(name) = asked.name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let retries = u32::try_from(asked.maximum_retry_count)
        .map_err(|_| Failure::bad("invalid restart policy: maximum retry count cannot be negative"))?;
    Ok(Some(crate::containers::RestartPolicy::of(&name, retries)?))
}

fn take_log(host: &mut Object) -> Result<LogConfig, Failure> {
    let asked: AskedLog = host.take_or_default("LogConfig")?;
    Ok(LogConfig {
        driver: asked.driver.filter(|name| !name.is_empty()),
        options: asked.config.unwrap_or_default(),
    })
}

fn oom_score(host: &mut Object) -> Result<Option<i32>, Failure> {
    match host.take::<i32>("OomScoreAdj")? {
        Some(score) if !(-1000..=1000).contains(&score) => Err(Failure::bad(format!(
            "Invalid value {score}, range for oom score adj is [-1000, 1000]"
        ))),
        score => Ok(score.filter(|score| *score != 0)),
    }
}

fn shared_memory(host: &mut Object) -> Result<Option<Bytes>, Failure> {
    match host.take::<i64>("ShmSize")?.map(u64::try_from) {
        None | Some(Ok(0)) => Ok(None),
        Some(Ok(size)) => Ok(Some(Bytes::new(size))),
        Some(Err(_)) => Err(Failure::bad("SHM size can not be less than 0")),
    }
}

/// `size` alone, as with Docker's overlay2.
fn storage_size(host: &mut Object) -> Result<Option<Bytes>, Failure> {
    let options: BTreeMap<String, String> = host.take_or_default("StorageOpt")?;
    let mut size = None;
    for (name, value) in options {
        if !name.eq_ignore_ascii_case("size") {
            return Err(Failure::bad(format!("unknown option {name}")));
        }
        let bytes: Bytes = value
            .parse()
            .map_err(|_| host.bad("StorageOpt", "its size is no number of bytes"))?;
        size = Some(bytes);
    }
    Ok(size)
}

/// Rows and columns; zeros count as none.
fn console(host: &mut Object) -> Result<Option<(u16, u16)>, Failure> {
    match host.take_or_default::<Vec<u16>>("ConsoleSize")?[..] {
        [] | [0, _] | [_, 0] => Ok(None),
        [rows, columns] => Ok(Some((rows, columns))),
        _ => Err(host.bad("ConsoleSize", "two numbers, rows and columns, are needed")),
    }
}

/// A limit as clients write it, of a container and of a build.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct AskedUlimit {
    name: String,
    #[serde(default)]
    soft: i64,
    #[serde(default)]
    hard: i64,
}

impl From<AskedUlimit> for Ulimit {
    fn from(asked: AskedUlimit) -> Self {
        // -1 is no limit.
        let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            name: asked.name,
            soft: number(asked.soft),
            hard: number(asked.hard),
        }
    }
}

fn ulimits(host: &mut Object) -> Result<Vec<Ulimit>, Failure> {
    let asked: Vec<AskedUlimit> = host.take_or_default("Ulimits")?;
    Ok(asked.into_iter().map(Ulimit::from).collect())
}

/// Source: moby, `daemon/daemon_unix.go`, `parseSecurityOpt`; the client sends a seccomp profile as its text.
fn security(host: &mut Object, spec: &mut ContainerSpec, warnings: &mut Vec<String>) -> Result<(), Failure> {
    for option in host.take_or_default::<Vec<String>>("SecurityOpt")? {
        if option == "no-new-privileges" {
            spec.no_new_privileges = true;
            continue;
        }
        // `=` is today's, `:` was yesterday's.
        let parts = option.split_once('=').or_else(|| option.split_once(':'));
        let Some((name, value)) = parts else {
            return Err(Failure::bad(format!("invalid --security-opt 1: {option:?}")));
        };
        let bad = || Failure::bad(format!("invalid --security-opt 2: {option:?}"));
        match (name, value) {
            ("no-new-privileges", value) => spec.no_new_privileges = go_bool(value).ok_or_else(bad)?,
            ("seccomp", "unconfined") => spec.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin" | "") => spec.seccomp = Seccomp::Default,
            ("seccomp", profile) => {
                let parsed = SeccompProfile::parse(profile);
                spec.seccomp = Seccomp::Profile(parsed.map_err(|error| {
                    let message = format!("Decoding seccomp profile failed: {error}");
                    Failure::from(error).say(message)
                })?);
            }
            ("apparmor", "unconfined") | ("label", "disable") => {}
            // As Docker has it on a host without them: what is asked for says nothing. Docker does not even say that.
            ("apparmor" | "label", _) if !module(name).is_on() => {
                warnings.push(format!(
                    "{option:?} is left out: this host has no {}",
                    module(name).name()
                ));
            }
            ("apparmor", profile) => spec.apparmor = Some(profile.to_owned()),
            ("label", part) => spec.selinux.push(part.to_owned()),
            ("systempaths", "unconfined") => {
                spec.masked_paths = Some(Vec::new());
                spec.readonly_paths = Some(Vec::new());
            }
            _ => return Err(bad()),
        }
    }
    Ok(())
}

/// Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whose option it is.
fn module(option: &str) -> Module {
    if option == "apparmor" {
        Module::AppArmor
    } else {
        Module::SeLinux
    }
}

/// Whose namespaces it has. Source: moby, `api/types/container/hostconfig.go` and `runconfig/hostconfig_unix.go`.
fn namespaces(host: &mut Object, spec: &mut ContainerSpec) -> Result<(), Failure> {
    let mut mode = |key: &str, words: &[&str]| -> Result<NamespaceMode, Failure> {
        let asked = host.text(key)?.unwrap_or_default();
        let known =
            asked.is_empty() || words.contains(&asked.as_str()) || (words.contains(&"container:") && named(&asked));
        match known {
            true => Ok(asked.parse()?),
            false => Err(Failure::bad(format!(
                "invalid {} mode: {asked}",
                key.trim_end_matches("Mode")
            ))),
        }
    };
    spec.pid_mode = mode("PidMode", &["private", "host", "container:"])?;
    spec.ipc_mode = mode("IpcMode", &["private", "shareable", "host", "container:"])?;
    spec.uts_mode = mode("UTSMode", &["private", "host"])?;
    spec.cgroup_mode = mode("CgroupnsMode", &["private", "host"])?;
    // Docker's word for no user namespace of its own, the default.
    match host.text("UsernsMode")?.as_deref() {
        None | Some("" | "host") => Ok(()),
        Some(other) => Err(Failure::bad(format!("invalid userns mode: {other}"))),
    }
}

/// Whether another container is named.
fn named(mode: &str) -> bool {
    mode.strip_prefix("container:").is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
