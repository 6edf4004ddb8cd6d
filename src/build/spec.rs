//! What a caller asks of a build.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::cache::{CacheSource, CacheTarget};
use super::context::ContextSource;
use super::output::BuildOutput;
use super::plan::{MadeStage, PlanOptions, StageBuilder};
use crate::containers::{Limits, NetworkMode, Ulimit};
use crate::images::{Credentials, Pull};
use crate::types::{Bytes, Platform};

/// What is made at which times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildTimes {
    /// The same for the same Dockerfile and files, whenever and wherever it is built: the time of the base image, and 1970
    /// upon `scratch`. Files of the context have just that time, all other files at most that. `SOURCE_DATE_EPOCH` among the
    /// build arguments is another time for the same.
    #[default]
    Fixed,
    /// That time, in seconds since the epoch.
    At(i64),
    /// When it really happens: files of the context keep their times, and two builds are two images.
    Real,
}

/// What commands may do that could harm the host, or tell more of it than a build should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Entitlement {
    /// `RUN --network=host`.
    HostNetwork,
    /// `RUN --security=insecure`.
    Insecure,
}

/// Something that commands may read and no image may hold. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(crate) Arc<[u8]>);

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum Recipe {
    /// The Dockerfile of this name in the context.
    File(Option<String>),
    /// A Dockerfile that is elsewhere.
    Text(String),
    /// Stages that are made in Rust.
    Stages(Vec<MadeStage>),
}

/// An image to build.
///
/// ```no_run
/// # async fn example(engine: longshore::Engine) -> longshore::Result<()> {
/// use longshore::build::BuildSpec;
/// let image = engine.build(BuildSpec::new("./app").tag("app:1").argument("VERSION", "1.2")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BuildSpec {
    pub(crate) context: ContextSource,
    pub(crate) contexts: BTreeMap<String, ContextSource>,
    pub(crate) wish: Wish,
}

/// All that is asked for but the files, which can be read once only.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) recipe: Recipe,
    /// The ignore file of a Dockerfile that is not in the context.
    pub(crate) ignore: Option<String>,
    pub(crate) plan: PlanOptions,
    pub(crate) tags: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) pull: Pull,
    pub(crate) credentials: BTreeMap<String, Credentials>,
    pub(crate) no_cache: bool,
    pub(crate) cache_from: Vec<CacheSource>,
    pub(crate) cache_to: Vec<CacheTarget>,
    pub(crate) no_cache_stages: BTreeSet<String>,
    pub(crate) times: BuildTimes,
    pub(crate) network: NetworkMode,
    pub(crate) extra_hosts: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) shm_size: Option<Bytes>,
    pub(crate) entitlements: BTreeSet<Entitlement>,
    /// Names of CDI devices, or kinds of them.
    pub(crate) devices: BTreeSet<String>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) agents: BTreeMap<String, PathBuf>,
    pub(crate) known_hosts: Option<String>,
    pub(crate) jobs: Option<usize>,
    pub(crate) attestations: Vec<String>,
    /// None is an image.
    pub(crate) outputs: Vec<BuildOutput>,
    /// None is the host's.
    pub(crate) platforms: Vec<Platform>,
}

impl BuildSpec {
    /// Builds what the `Dockerfile` of a context says.
    pub fn new(context: impl Into<ContextSource>) -> Self {
        Self {
            context: context.into(),
            contexts: BTreeMap::new(),
            wish: Wish {
                recipe: Recipe::File(None),
                ignore: None,
                plan: PlanOptions::new(),
                tags: Vec::new(),
                labels: BTreeMap::new(),
                pull: Pull::Missing,
                credentials: BTreeMap::new(),
                no_cache: false,
                cache_from: Vec::new(),
                cache_to: Vec::new(),
                no_cache_stages: BTreeSet::new(),
                times: BuildTimes::Fixed,
                network: NetworkMode::Named("bridge".to_owned()),
                extra_hosts: Vec::new(),
                limits: Limits::default(),
                ulimits: Vec::new(),
                shm_size: None,
                entitlements: BTreeSet::new(),
                devices: BTreeSet::new(),
                secrets: BTreeMap::new(),
                agents: BTreeMap::new(),
                known_hosts: None,
                jobs: None,
                attestations: Vec::new(),
                outputs: Vec::new(),
                platforms: Vec::new(),
            },
        }
    }

    /// Takes another Dockerfile of the context, by its path there.
    #[must_use]
    pub fn dockerfile(mut self, path: impl Into<String>) -> Self {
        self.wish.recipe = Recipe::File(Some(path.into()));
        self
    }

    /// Takes a Dockerfile that is not in the context: its text.
    #[must_use]
    pub fn dockerfile_text(mut self, text: impl Into<String>) -> Self {
        self.wish.recipe = Recipe::Text(text.into());
        self
    }

    /// Takes an ignore file that is not in the context: its text, which holds instead of any there. For a Dockerfile that is
    /// elsewhere, beside which it is (`NAME.dockerignore`).
    #[must_use]
    pub fn ignore_text(mut self, text: impl Into<String>) -> Self {
        self.wish.ignore = Some(text.into());
        self
    }

    /// Does without a Dockerfile: a stage upon an image, or upon `scratch`, whose steps are made in Rust. The image is the
    /// same as that of a Dockerfile that says so. Called again, one more stage; see [`BuildSpec::add_stage`].
    ///
    /// ```no_run
    /// # async fn example(engine: longshore::Engine) -> longshore::Result<()> {
    /// use longshore::build::{BuildSpec, CopyAction};
    /// let spec = BuildSpec::new("./app").stage("busybox", |stage| {
    ///     stage.copy(CopyAction::new(["app"], "/bin/")).run_shell("app --check").entrypoint(["/bin/app"])
    /// });
    /// let image = engine.build(spec).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stage(
        self,
        base: impl Into<String>,
        steps: impl Fn(StageBuilder) -> StageBuilder + Send + Sync + 'static,
    ) -> Self {
        self.add_stage(MadeStage::new(base, steps))
    }

    /// The same with a name, by which later stages, their copies and mounts, and the target mean it. The last stage is built,
    /// and those that it needs.
    ///
    /// ```no_run
    /// # async fn example(engine: longshore::Engine) -> longshore::Result<()> {
    /// use longshore::build::{BuildSpec, CopyAction, MadeStage, MountAction};
    /// let build = MadeStage::new("rust:1", |stage| {
    ///     stage.workdir("/src").run_shell_with("cargo build --release --target-dir /out", |run| {
    ///         run.mount(MountAction::bind(".")).mount(MountAction::cache("/usr/local/cargo/registry"))
    ///     })
    /// });
    /// let spec = BuildSpec::new("./app")
    ///     .add_stage(build.named("build"))
    ///     .stage("scratch", |stage| stage.copy(CopyAction::new(["/out/release/app"], "/app").from("build")).cmd(["/app"]));
    /// let image = engine.build(spec).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn add_stage(mut self, stage: MadeStage) -> Self {
        match &mut self.wish.recipe {
            Recipe::Stages(stages) => stages.push(stage),
            other => *other = Recipe::Stages(vec![stage]),
        }
        self
    }

    /// Gives the image a name. Called again, one more.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>) -> Self {
        self.wish.tags.push(name.into());
        self
    }

    /// The stage to build, by name or number, in place of the last.
    #[must_use]
    pub fn target(mut self, name: impl Into<String>) -> Self {
        self.wish.plan = self.wish.plan.target(name);
        self
    }

    /// A value for a variable that the Dockerfile declares with `ARG`.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.wish.plan = self.wish.plan.argument(name, value);
        self
    }

    /// The platform that the image is for. Default the host's.
    #[must_use]
    pub fn platform(self, platform: Platform) -> Self {
        self.platforms([platform])
    }

    /// The platforms that images are for: one of each, and an index of them that has the names. Those of another processor than
    /// the host's need an emulator that the kernel knows of where they have a `RUN`; that is looked at before anything runs.
    #[must_use]
    pub fn platforms(mut self, platforms: impl IntoIterator<Item = Platform>) -> Self {
        self.wish.platforms = platforms.into_iter().collect();
        self
    }

    /// A named context: it stands in for the stage or the image of that name.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, context: impl Into<ContextSource>) -> Self {
        let name = name.into();
        self.wish.plan = self.wish.plan.context(name.clone());
        self.contexts.insert(name, context.into());
        self
    }

    /// A label of the image, over those of the Dockerfile.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.wish.labels.insert(name.into(), value.into());
        self
    }

    /// When to ask the registry for images that it builds upon. Default [`Pull::Missing`].
    #[must_use]
    pub fn pull(mut self, policy: Pull) -> Self {
        self.wish.pull = policy;
        self
    }

    /// Who asks a registry, by its host: `docker.io`, `example.com:5000`. No other registry learns of it.
    #[must_use]
    pub fn credentials(mut self, registry: impl Into<String>, credentials: Credentials) -> Self {
        self.wish.credentials.insert(registry.into(), credentials);
        self
    }

    /// Does every step anew, whatever is known from before.
    #[must_use]
    pub fn no_cache(mut self, no_cache: bool) -> Self {
        self.wish.no_cache = no_cache;
        self
    }

    /// Does the steps of one stage anew, by its name or number. Called again, of one more.
    #[must_use]
    pub fn no_cache_stage(mut self, stage: impl Into<String>) -> Self {
        self.wish.no_cache_stages.insert(stage.into().to_ascii_lowercase());
        self
    }

    /// Looks for steps that this root does not know in a cache elsewhere. Called again, in one more.
    #[must_use]
    pub fn cache_from(mut self, source: CacheSource) -> Self {
        self.wish.cache_from.push(source);
        self
    }

    /// Puts what is known of the steps into a cache elsewhere, before the image is listed. Called again, into one more.
    #[must_use]
    pub fn cache_to(mut self, target: CacheTarget) -> Self {
        self.wish.cache_to.push(target);
        self
    }

    /// What is made at which times. Default [`BuildTimes::Fixed`]: the same Dockerfile and files make the same image.
    #[must_use]
    pub fn times(mut self, times: BuildTimes) -> Self {
        self.wish.times = times;
        self
    }

    /// The network of commands that do not say another. Default `bridge`.
    #[must_use]
    pub fn network(mut self, network: NetworkMode) -> Self {
        self.wish.network = network;
        self
    }

    /// A line for `/etc/hosts` of commands: `NAME:ADDRESS`.
    #[must_use]
    pub fn extra_host(mut self, line: impl Into<String>) -> Self {
        self.wish.extra_hosts.push(line.into());
        self
    }

    /// What each command may take. Default no limit.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.wish.limits = limits;
        self
    }

    /// Limits the resources of each process of commands, by the names that `ulimit` has for them.
    #[must_use]
    pub fn ulimit(mut self, limit: Ulimit) -> Self {
        self.wish.ulimits.push(limit);
        self
    }

    /// Sets the size of `/dev/shm` for commands.
    #[must_use]
    pub fn shm_size(mut self, size: Bytes) -> Self {
        self.wish.shm_size = Some(size);
        self
    }

    /// Lets commands do what the Dockerfile cannot allow itself.
    #[must_use]
    pub fn allow(mut self, entitlement: Entitlement) -> Self {
        self.wish.entitlements.insert(entitlement);
        self
    }

    /// Lets commands have a device that they ask for with `RUN --device`: by its name in the Container Device Interface,
    /// `vendor.com/class=name`, or every one of a kind, `vendor.com/class`. Default none. Called again, one more.
    #[must_use]
    pub fn allow_device(mut self, name: impl Into<String>) -> Self {
        self.wish.devices.insert(name.into());
        self
    }

    /// A secret for `RUN --mount=type=secret,id=ID`.
    #[must_use]
    pub fn secret(mut self, id: impl Into<String>, secret: Secret) -> Self {
        self.wish.secrets.insert(id.into(), secret);
        self
    }

    /// An SSH agent's socket for `RUN --mount=type=ssh`; the id that mounts mean that say none is `default`. That one also
    /// says who the build is to a server of a repository over SSH (`ADD git@…`, contexts).
    #[must_use]
    pub fn ssh_agent(mut self, id: impl Into<String>, socket: impl Into<PathBuf>) -> Self {
        self.wish.agents.insert(id.into(), socket.into());
        self
    }

    /// Keys of hosts, line by line as OpenSSH's `known_hosts` has them: repositories are read over SSH from these alone, by the
    /// host's program `ssh`, which reads no configuration. Default none.
    #[must_use]
    pub fn known_hosts(mut self, lines: impl Into<String>) -> Self {
        self.wish.known_hosts = Some(lines.into());
        self
    }

    /// Where goes what was built. Default an image of the engine's. Called again, one more. With nothing but files no image is
    /// made, and names are `InvalidArgument`.
    #[must_use]
    pub fn output(mut self, output: BuildOutput) -> Self {
        self.wish.outputs.push(output);
        self
    }

    /// Asks for an attestation, `provenance` or `sbom`. None is made: a warning at the end says so.
    #[must_use]
    pub fn attestation(mut self, kind: impl Into<String>) -> Self {
        self.wish.attestations.push(kind.into());
        self
    }

    /// The same once more, with no outputs but the image: for building it elsewhere.
    pub(crate) fn again(&self) -> crate::error::Result<Self> {
        let contexts = self.contexts.iter();
        let contexts = contexts.map(|(name, context)| Ok((name.clone(), context.again()?)));
        let mut wish = self.wish.clone();
        wish.outputs = Vec::new();
        wish.cache_from = Vec::new();
        // Inline it is a part of the image.
        wish.cache_to.retain(|target| *target == CacheTarget::Inline);
        Ok(Self {
            context: self.context.again()?,
            contexts: contexts.collect::<crate::error::Result<_>>()?,
            wish,
        })
    }

    /// How many commands and copies are worked on at once. Default as many as there are processors.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.wish.jobs = Some(jobs);
        self
    }
}
