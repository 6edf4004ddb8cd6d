//! `build`: images of Dockerfiles, in the lines of Docker's own builder, and its cache.
//!
//! Clients that ask for BuildKit with a session (`version=2`) get the same lines: they carry the image's id as BuildKit's do.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::auth;
use super::call::Call;
use super::containers::AskedUlimit;
use super::error::Failure;
use super::filters;
use super::images::platform_of;
use super::jsonl::{self, Lines};
use super::query::Query;
use super::reply;
use super::router::{Answer, Route, routes};
use crate::build::{BuildSpec, CacheSource, ContextSource, Entitlement, PruneCache, PrunedCache, StepFailure};
use crate::containers::{Limits, NetworkMode};
use crate::error::Error;
use crate::images::Pull;
use crate::progress::{BuildEvent, Progress, ProgressEvent};
use crate::types::{Bytes, Reference, until};

/// Routes of builds.
pub(super) const ROUTES: &[Route] = routes! {
    POST "build" => build;
    POST "build/prune" => prune;
};

async fn build(mut call: Call) -> Answer {
    let spec = spec(&mut call)?;
    let tags: Vec<String> = call.query.all("t").map(str::to_owned).collect();
    let (engine, quiet) = (call.engine.clone(), call.query.flag("q"));
    jsonl::progress(move |lines| async move {
        let progress = match quiet {
            true => Progress::default(),
            false => told(lines.clone()),
        };
        let built = match engine.builds().build(spec, progress).await {
            Ok(built) => built,
            Err(error) => match failed(&error) {
                Some(line) => {
                    lines.put(&line);
                    return Ok(());
                }
                None => return Err(words(error)),
            },
        };
        if !quiet {
            let words = |warning: &String| json!({"stream": format!("[Warning] {warning}\n")});
            built.warnings.iter().for_each(|warning| lines.put(&words(warning)));
        }
        let id = built.id.to_string();
        lines.put(&json!({"id": "moby.image.id", "aux": {"ID": id}}));
        if quiet {
            lines.put(&json!({"stream": format!("{id}\n")}));
            return Ok(());
        }
        let short: String = built.id.hex().chars().take(12).collect();
        lines.put(&json!({"stream": format!("Successfully built {short}\n")}));
        for tag in tags {
            let name: Reference = tag.parse()?;
            lines.put(&json!({"stream": format!("Successfully tagged {}\n", name.familiar())}));
        }
        Ok(())
    })
    .await
}

/// What the query says. Options that only say how to clean up after a build have nothing to say here.
fn spec(call: &mut Call) -> Result<BuildSpec, Failure> {
    for (option, needs) in [
        ("outputs", "an image, which can be saved or exported"),
        ("squash", "a build in several stages"),
    ] {
        if call.query.get(option).is_some_and(|text| text != "[]") && (option == "outputs" || call.query.flag(option)) {
            return Err(Failure::option(option, needs));
        }
    }
    let context = match call.query.get("remote") {
        Some("client-session") => {
            let needs = "the context as the body of the request: DOCKER_BUILDKIT=0 at the client";
            return Err(Failure::option("remote=client-session", needs));
        }
        Some(url) if url.starts_with("github.com/") => ContextSource::Git(url.to_owned()),
        // Of a repository, too, where it looks like one.
        Some(url) => ContextSource::Url(url.to_owned()),
        None => ContextSource::Tar(call.stream()),
    };
    let query = &call.query;
    let mut spec = BuildSpec::new(context).no_cache(query.flag("nocache"));
    if let Some(path) = query.get("dockerfile") {
        spec = spec.dockerfile(path);
    }
    if let Some(target) = query.get("target") {
        spec = spec.target(target);
    }
    if let Some(platform) = query.get("platform") {
        spec = spec.platform(platform_of(platform)?);
    }
    if query.flag("pull") {
        spec = spec.pull(Pull::Always);
    }
    for tag in query.all("t").filter(|tag| !tag.is_empty()) {
        spec = spec.tag(tag);
    }
    for name in list::<String>(query, "cachefrom")? {
        spec = spec.cache_from(CacheSource::Image(name.parse()?));
    }
    for (name, value) in map::<Option<String>>(query, "buildargs")? {
        // Without a value it is as if it were not given: Docker's clients send those of their own environment.
        if let Some(value) = value {
            spec = spec.argument(name, value);
        }
    }
    for (name, value) in map::<String>(query, "labels")? {
        spec = spec.label(name, value);
    }
    for line in query.all("extrahosts").flat_map(|lines| lines.split(',')) {
        if !line.is_empty() {
            spec = spec.extra_host(line);
        }
    }
    match query.get("networkmode") {
        None | Some("default") => {}
        Some(mode) => spec = spec.network(mode.parse::<NetworkMode>()?),
    }
    if query.get("networkmode") == Some("host") {
        // Docker's own builder asks for nothing more.
        spec = spec.allow(Entitlement::HostNetwork);
    }
    if query.get("cgroupparent").is_some_and(|parent| !parent.is_empty()) {
        return Err(Failure::option(
            "cgroupparent",
            "the engine's own cgroup for commands of builds",
        ));
    }
    for limit in list::<AskedUlimit>(query, "ulimits")? {
        spec = spec.ulimit(limit.into());
    }
    if let Some(size) = query.parsed::<u64>("shmsize")?.filter(|bytes| *bytes > 0) {
        spec = spec.shm_size(Bytes::new(size));
    }
    spec = spec.limits(limits(query)?);
    for (registry, credentials) in auth::of_registries(call)? {
        spec = spec.credentials(registry, credentials);
    }
    Ok(spec)
}

fn limits(query: &Query) -> Result<Limits, Failure> {
    Ok(Limits {
        memory: query
            .parsed::<u64>("memory")?
            .filter(|bytes| *bytes > 0)
            .map(Bytes::new),
        memory_swap: query.parsed::<i64>("memswap")?.filter(|bytes| *bytes != 0),
        cpu_shares: query.parsed::<u64>("cpushares")?.filter(|shares| *shares > 0),
        cpu_quota_us: query.parsed::<i64>("cpuquota")?.filter(|quota| *quota != 0),
        cpu_period_us: query.parsed::<u64>("cpuperiod")?.filter(|period| *period > 0),
        cpuset_cpus: query.get("cpusetcpus").map(str::to_owned),
        cpuset_mems: query.get("cpusetmems").map(str::to_owned),
        ..Limits::default()
    })
}

/// A list in JSON.
fn list<T: DeserializeOwned>(query: &Query, name: &str) -> Result<Vec<T>, Failure> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    let read: Result<Option<Vec<T>>, _> = serde_json::from_str(text);
    read.map(Option::unwrap_or_default)
        .map_err(|error| Failure::bad(format!("invalid {name}: a JSON array is needed: {error}")))
}

/// A map in JSON.
fn map<T: DeserializeOwned>(query: &Query, name: &str) -> Result<BTreeMap<String, T>, Failure> {
    let Some(text) = query.get(name) else {
        return Ok(BTreeMap::new());
    };
    let read: Result<Option<BTreeMap<String, T>>, _> = serde_json::from_str(text);
    read.map(Option::unwrap_or_default)
        .map_err(|error| Failure::bad(format!("invalid {name}: a JSON object is needed: {error}")))
}

fn told(lines: Lines) -> Progress {
    Progress::new(move |event| {
        let ProgressEvent::Build(event) = event else { return };
        let text = match event {
            BuildEvent::Begun { step, text, .. } => format!("Step {step} : {text}\n"),
            BuildEvent::Output { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
            BuildEvent::Ended { cached: true, .. } => " ---> Using cache\n".to_owned(),
            BuildEvent::Ended { .. } => return,
        };
        lines.put(&json!({"stream": text}));
    })
}

/// The line of a command that failed: its exit code is that of the client. Source: moby, `builder/dockerfile/dispatchers.go`.
fn failed(error: &Error) -> Option<Value> {
    let failure = StepFailure::of(error)?;
    let code = failure.status.code();
    let command = failure.text.strip_prefix("RUN ").unwrap_or(&failure.text);
    let message = format!("The command '{command}' returned a non-zero code: {code}: {error}");
    Some(json!({
        "errorDetail": {"code": code, "message": message},
        "error": message,
        "longshore": {"kind": error.kind().as_str()},
    }))
}

fn words(error: Error) -> Failure {
    let report = error.report();
    Failure::from(error).say(report)
}

async fn prune(call: Call) -> Answer {
    let pruned = match options(&call.query)? {
        Some(options) => call.engine.builds().prune(options).await?,
        None => PrunedCache::default(),
    };
    let mut steps: Vec<String> = pruned.steps.iter().map(crate::types::Digest::hex).collect();
    steps.extend(pruned.mounts);
    Ok(reply::ok(&json!({
        "CachesDeleted": if steps.is_empty() { Value::Null } else { json!(steps) },
        "SpaceReclaimed": pruned.freed_bytes,
    })))
}

/// What to keep: without `all` what images have, and what another option says. Of the filters, what says how long nothing was
/// used. `docker system prune` sends the labels that it was given here, too: nothing is meant where one is asked for, since
/// steps have none.
fn options(query: &Query) -> Result<Option<PruneCache>, Failure> {
    let mut options = PruneCache::all();
    if !query.flag("all") {
        options = options.unshared();
    }
    for option in ["reserved-space", "max-used-space", "keep-storage"] {
        if let Some(bytes) = query.parsed::<u64>(option)?.filter(|bytes| *bytes > 0) {
            options = options.keep(Bytes::new(bytes));
        }
    }
    let filter = filters::read(query)?;
    for key in filter.keys() {
        match key {
            "until" | "unused-for" => {
                for value in filter.values(key) {
                    options = options.unused_since(moment(value)?);
                }
            }
            "label" | "label!" => {}
            _ => return Err(Failure::option("filters", "one of the filters until and unused-for")),
        }
    }
    Ok(Some(options).filter(|_| filter.values("label").is_empty()))
}

fn moment(text: &str) -> Result<SystemTime, Failure> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    let ns = until::parse(text, now)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns.max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_what_a_prune_keeps() {
        let of = |text: &str| options(&Query::parse(text)).map_err(|failure| failure.status.as_u16());
        assert_eq!(of("all=1"), Ok(Some(PruneCache::all())));
        assert_eq!(of(""), Ok(Some(PruneCache::all().unshared())));
        let kept = PruneCache::all().keep(Bytes::new(1000));
        assert_eq!(of("all=1&keep-storage=1000"), Ok(Some(kept)));
        assert_eq!(of("all=1&keep-storage=0"), Ok(Some(PruneCache::all())));
        let since = of("all=1&filters=%7B%22until%22%3A%5B%221000%22%5D%7D").unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(since, Some(PruneCache::all().unused_since(at)));
        assert_eq!(of("filters=%7B%22label%22%3A%5B%22a%22%5D%7D"), Ok(None));
        let without = of("all=1&filters=%7B%22label%21%22%3A%5B%22a%22%5D%7D");
        assert_eq!(without, Ok(Some(PruneCache::all())));
        assert_eq!(of("keep-storage=x"), Err(400));
        assert_eq!(of("filters=%7B%22id%22%3A%5B%22x%22%5D%7D"), Err(400));
        assert_eq!(of("filters=%7B%22until%22%3A%5B%22soon%22%5D%7D"), Err(400));
    }

    #[test]
    fn maps_are_json_objects() {
        let of = |text: &str| map::<Option<String>>(&Query::parse(text), "buildargs");
        assert!(of("").unwrap().is_empty() && of("buildargs=null").unwrap().is_empty());
        let read = of("buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D").unwrap();
        assert_eq!(
            read,
            BTreeMap::from([("A".into(), Some("1".into())), ("B".into(), None)])
        );
        assert_eq!(of("buildargs=%5B%5D").unwrap_err().status, 400);
    }
}
