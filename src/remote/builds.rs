//! Builds over the API: the context is sent, and what comes back are the lines of Docker's own builder.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use super::build_context::{Sent, sent};
use super::client::{Ask, Client};
use super::error::nonsense;
use super::images::Images;
use super::json::{self, number, text_or_empty};
use super::pieces::{self, Lines};
use crate::build::spec::Wish;
use crate::build::{
    BuildOutput, BuildResult, BuildSpec, BuildTimes, BuiltImage, CacheSource, CachedMount, CachedStep, Entitlement,
    ImageBuilder, PruneCache, PrunedCache,
};
use crate::containers::{Limits, NetworkMode};
use crate::error::{Error, Result};
use crate::images::{Credentials, ImageManager as _, Pull, PushRequest};
use crate::progress::{BuildEvent, Progress, ProgressEvent};
use crate::types::{Descriptor, Digest, Filter, ImageId, Reference};

/// Builds of an engine elsewhere.
#[derive(Debug)]
pub(super) struct Builds(pub(super) Client);

#[async_trait]
impl ImageBuilder for Builds {
    async fn build(&self, spec: BuildSpec, progress: Progress) -> Result<BuildResult> {
        let built = self.build_there(spec, &progress).await;
        progress.report(match &built {
            Ok(built) => ProgressEvent::Done { image: built.id },
            Err(error) => ProgressEvent::Failed {
                message: error.to_string(),
            },
        });
        built
    }

    async fn cache(&self) -> Result<Vec<CachedStep>> {
        let lines = self.lines().await?;
        let lines = lines.iter().filter(|line| line["Type"] != MOUNT);
        Ok(lines.filter_map(step).collect())
    }

    async fn mounts(&self) -> Result<Vec<CachedMount>> {
        let lines = self.lines().await?;
        let mount = |line: &Value| CachedMount {
            name: text_or_empty(line, "ID"),
            size_bytes: number(line, "Size"),
            used: json::moment(line, "LastUsedAt").unwrap_or(UNIX_EPOCH),
        };
        Ok(lines.iter().filter(|line| line["Type"] == MOUNT).map(mount).collect())
    }

    async fn prune(&self, options: PruneCache) -> Result<PrunedCache> {
        let mut filter = Filter::new();
        if let Some(since) = options.unused_since {
            filter = filter.with("until", seconds(since).to_string());
        }
        let ask = Ask::post("build/prune")
            .flag("all", !options.unshared)
            .with_some("keep-storage", options.keep.map(|bytes| bytes.get()))
            .filter(&filter);
        // The answer tells names of both without saying which is which.
        let mounts = self.mounts().await?;
        let gone = self.0.json(ask).await?;
        let mut pruned = PrunedCache {
            freed_bytes: number(&gone, "SpaceReclaimed"),
            ..PrunedCache::default()
        };
        for name in json::list(&gone, "CachesDeleted").unwrap_or_default() {
            if mounts.iter().any(|mount| mount.name == name) {
                pruned.mounts.push(name);
            } else {
                // dockerd's names are no digests.
                pruned.steps.extend(format!("sha256:{name}").parse::<Digest>());
            }
        }
        Ok(pruned)
    }
}

const MOUNT: &str = "exec.cachemount";

impl Builds {
    async fn lines(&self) -> Result<Vec<Value>> {
        let usage = self.0.json(Ask::get("system/df").with("type", "build-cache")).await?;
        let lines = usage["BuildCache"].as_array();
        let lines = lines.or_else(|| usage["BuildCacheUsage"]["Items"].as_array());
        Ok(lines.cloned().unwrap_or_default())
    }

    async fn build_there(&self, spec: BuildSpec, progress: &Progress) -> Result<BuildResult> {
        let BuildSpec {
            context,
            contexts,
            wish,
        } = spec;
        refuse(&wish, !contexts.is_empty())?;
        let names = wish.tags.iter().map(|tag| tag.parse());
        let names = names.collect::<Result<Vec<Reference>>>()?;
        // Files are read on the client's own thread: whoever waits here may have no runtime.
        let (recipe, ignore) = (wish.recipe.clone(), wish.ignore.clone());
        let sending = async move { sent(context, &recipe, ignore).await };
        let sent = self.0.spawner().call(sending).await?;
        let answer = self.0.send(ask(&wish, sent)?).await?;
        let mut lines = Lines::new(pieces::bytes(self.0.clone(), answer));
        let mut story = Story::default();
        while let Some(line) = lines.next().await? {
            story.tell(&line, progress);
        }
        story.end_step(progress);
        let id = story.image.ok_or_else(|| nonsense("a build that names no image"))?;
        let images = Images(self.0.clone());
        let image = images.inspect(&id.to_string()).await?;
        let mut descriptor = Some(image.manifest);
        for name in names.iter().filter(|_| wish.outputs.contains(&BuildOutput::Push)) {
            descriptor = Some(push(&images, name, &wish, progress).await?);
        }
        Ok(BuildResult {
            id,
            images: vec![BuiltImage {
                platform: image.platform,
                id,
            }],
            descriptor,
            names,
            steps: story.step,
            cached: story.cached,
            warnings: story.warnings,
            trace: Vec::new(),
        })
    }
}

async fn push(images: &Images, name: &Reference, wish: &Wish, progress: &Progress) -> Result<Descriptor> {
    let mut request = PushRequest::new(name.clone());
    request.credentials = wish.credentials.get(name.host()).cloned();
    let progress = progress.clone();
    let on_the_way = Progress::new(move |event| match event {
        ProgressEvent::Done { .. } | ProgressEvent::Failed { .. } => {}
        event => progress.report(event),
    });
    Ok(images.push(request, on_the_way).await?.manifest)
}

/// What the Engine API has no words for.
fn refuse(wish: &Wish, named_contexts: bool) -> Result<()> {
    let is_here = |output: &BuildOutput| !output.is_listed();
    let is_directory = |source: &CacheSource| matches!(source, CacheSource::Directory(..));
    let unsaid = [
        (named_contexts, "named contexts"),
        (!wish.secrets.is_empty(), "secrets"),
        (!wish.agents.is_empty(), "agents"),
        (wish.known_hosts.is_some(), "keys of hosts"),
        (!wish.no_cache_stages.is_empty(), "stages that are done anew"),
        (wish.platforms.len() > 1, "several platforms"),
        (wish.times != BuildTimes::Fixed, "times"),
        (!wish.cache_to.is_empty(), "an exported cache"),
        (wish.cache_from.iter().any(is_directory), "a cache in a directory"),
        (wish.entitlements.contains(&Entitlement::Insecure), "insecure commands"),
        (!wish.devices.is_empty(), "devices"),
        (wish.outputs.iter().any(is_here), "outputs that are files of this host"),
    ];
    match unsaid.iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, what)) => {
            let needs = "an engine in this process: the Engine API has no option for it";
            Err(Error::unsupported(format!("{what} in a build elsewhere"), needs))
        }
    }
}

/// The request. Source: the Engine API's description, `ImageBuild`.
fn ask(wish: &Wish, sent: Sent) -> Result<Ask> {
    let network = match &wish.network {
        NetworkMode::Named(name) if name == "bridge" => None,
        mode => Some(mode.to_string()),
    };
    let ulimits: Vec<Value> = wish
        .ulimits
        .iter()
        .map(|limit| json!({"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}))
        .collect();
    let hosts = wish.extra_hosts.join(",");
    let mut ask = Ask::post("build")
        .with_some("remote", sent.address)
        .with_some("dockerfile", sent.dockerfile)
        .with_some("target", wish.plan.target.as_ref())
        .with_some("platform", wish.platforms.first())
        .with_some("networkmode", network)
        .with_some("extrahosts", Some(hosts).filter(|hosts| !hosts.is_empty()))
        .with_some("buildargs", object(&wish.plan.arguments))
        .with_some("labels", object(&wish.labels))
        .with_some("shmsize", wish.shm_size.map(|size| size.get()))
        .with_some("ulimits", (!ulimits.is_empty()).then(|| json!(ulimits)))
        .with_some("cachefrom", cache_from(wish))
        .flag("nocache", wish.no_cache)
        .flag("pull", wish.pull != Pull::Missing)
        .with("rm", 1)
        .with("forcerm", 1);
    for tag in &wish.tags {
        ask = ask.with("t", tag);
    }
    ask = limited(ask, &wish.limits);
    if !wish.credentials.is_empty() {
        ask = ask.header("x-registry-config", &registries(&wish.credentials))?;
    }
    Ok(match sent.body {
        Some(body) => ask.stream(body),
        None => ask,
    })
}

fn limited(ask: Ask, limits: &Limits) -> Ask {
    ask.with_some("memory", limits.memory.map(|bytes| bytes.get()))
        .with_some("memswap", limits.memory_swap)
        .with_some("cpushares", limits.cpu_shares)
        .with_some("cpuquota", limits.cpu_quota_us)
        .with_some("cpuperiod", limits.cpu_period_us)
        .with_some("cpusetcpus", limits.cpuset_cpus.as_ref())
        .with_some("cpusetmems", limits.cpuset_mems.as_ref())
}

fn object(map: &BTreeMap<String, String>) -> Option<Value> {
    (!map.is_empty()).then(|| json!(map))
}

fn cache_from(wish: &Wish) -> Option<Value> {
    let name = |source: &CacheSource| match source {
        CacheSource::Registry(name) | CacheSource::Image(name) => Some(name.to_string()),
        CacheSource::Directory(..) => None,
    };
    let names: Vec<String> = wish.cache_from.iter().filter_map(name).collect();
    (!names.is_empty()).then(|| json!(names))
}

fn registries(all: &BTreeMap<String, Credentials>) -> String {
    let told = all.iter().filter_map(|(host, credentials)| match credentials {
        Credentials::Password { user, password } => {
            Some((host.clone(), json!({"username": user, "password": password})))
        }
        Credentials::IdentityToken(token) => Some((host.clone(), json!({"identitytoken": token}))),
        _ => None,
    });
    let told: serde_json::Map<String, Value> = told.collect();
    URL_SAFE.encode(Value::Object(told).to_string())
}

fn step(line: &Value) -> Option<CachedStep> {
    Some(CachedStep {
        key: format!("sha256:{}", line["ID"].as_str()?).parse().ok()?,
        text: text_or_empty(line, "Description"),
        chain: None,
        size_bytes: number(line, "Size"),
        created: json::moment(line, "CreatedAt").unwrap_or(UNIX_EPOCH),
        used: json::moment(line, "LastUsedAt").unwrap_or(UNIX_EPOCH),
        shared: line["Shared"] == true,
    })
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What the lines of a build tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    /// The step that was begun last.
    step: u32,
    /// Whether it is not over.
    open: bool,
    known: bool,
    cached: u32,
    image: Option<ImageId>,
    warnings: Vec<String>,
}

impl Story {
    fn tell(&mut self, line: &Value, progress: &Progress) {
        if let Some(id) = line["aux"]["ID"].as_str().and_then(|id| id.parse().ok()) {
            self.image = Some(id);
        }
        let Some(text) = line["stream"].as_str() else {
            if let Some(status) = line["status"].as_str() {
                progress.report(ProgressEvent::Remote {
                    id: text_or_empty(line, "id"),
                    status: status.trim_end().to_owned(),
                    current: line["progressDetail"]["current"].as_u64(),
                    total: line["progressDetail"]["total"].as_u64(),
                });
            }
            return;
        };
        if let Some((_, instruction)) = text.strip_prefix("Step ").and_then(|rest| rest.split_once(" : ")) {
            self.begin_step(instruction.trim_end(), progress);
        } else if text.trim() == "---> Using cache" {
            self.known = true;
        } else if let Some(warning) = text.strip_prefix("[Warning] ") {
            self.warnings.push(warning.trim_end().to_owned());
        } else if self.open && !is_chatter(text) {
            progress.report(ProgressEvent::Build(BuildEvent::Output {
                step: self.step,
                stderr: false,
                bytes: text.to_owned().into(),
            }));
        }
    }

    fn begin_step(&mut self, text: &str, progress: &Progress) {
        self.end_step(progress);
        self.step += 1;
        self.open = true;
        progress.report(ProgressEvent::Build(BuildEvent::Begun {
            step: self.step,
            stage: String::new(),
            text: text.to_owned(),
        }));
    }

    fn end_step(&mut self, progress: &Progress) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let cached = std::mem::take(&mut self.known);
        self.cached += u32::from(cached);
        let event = BuildEvent::Ended {
            step: self.step,
            cached,
        };
        progress.report(ProgressEvent::Build(event));
    }
}

/// What dockerd says between steps.
fn is_chatter(text: &str) -> bool {
    let text = text.trim();
    let said = [
        "---> ",
        "Removing intermediate container ",
        "Successfully built ",
        "Successfully tagged ",
    ];
    text.is_empty() || said.iter().any(|words| text.starts_with(words))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn b6_lines_of_a_build_become_events() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&told);
        let progress = Progress::new(move |event| listener.lock().unwrap().push(event.to_string()));
        let id = format!("sha256:{}", "a".repeat(64));
        let mut story = Story::default();
        for text in [
            "Step 1/2 : FROM busybox\n",
            " ---> 0123456789ab\n",
            "Step 2/2 : RUN echo x\n",
            " ---> Running in 0123456789ab\n",
            "x\n",
            "[Warning] be careful\n",
            "Step 3 : COPY a b\n",
            " ---> Using cache\n",
            "Successfully built 0123456789ab\n",
        ] {
            story.tell(&json!({"stream": text}), &progress);
        }
        story.tell(&json!({"aux": {"ID": id}}), &progress);
        story.end_step(&progress);
        assert_eq!(
            told.lock().unwrap().as_slice(),
            [
                "#1 [] FROM busybox",
                "#1 done",
                "#2 [] RUN echo x",
                "#2 x",
                "#2 done",
                "#3 [] COPY a b",
                "#3 cached"
            ]
        );
        assert_eq!((story.step, story.cached), (3, 1));
        assert_eq!(story.image.map(|id| id.to_string()), Some(id));
        assert_eq!(story.warnings, ["be careful"]);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let of = |spec: BuildSpec| refuse(&spec.wish, !spec.contexts.is_empty());
        let spec = || BuildSpec::new("/nowhere");
        assert!(of(spec().tag("a").output(BuildOutput::Push)).is_ok());
        for wrong in [
            spec().secret("a", crate::build::Secret::new("b")),
            spec().context("a", "/b"),
            spec().output(BuildOutput::Tar("a".into())),
            spec().times(BuildTimes::Real),
            spec().ssh_agent("a", "/b"),
            spec().no_cache_stage("a"),
        ] {
            assert!(of(wrong).unwrap_err().is_unsupported());
        }
    }
}
