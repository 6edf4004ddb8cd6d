//! An engine on a root of its own, with busybox in it.

use longshore::{Container, ContainerSpec, ContainerSummary, Engine, Image, ListOptions, Output, RemoveOptions};

use super::company;
use super::image::{self, Layout};
use super::root::TempRoot;
use super::runtime;
use crate::frame::{Stop, fail};

/// Dropped in the order of the fields: the engine first, so that what it holds in the root is let go.
#[derive(Debug)]
pub struct World {
    pub engine: Engine,
    pub image: Image,
    pub root: TempRoot,
}

impl World {
    /// A fresh root, with busybox from a layout on disk: no registry takes part.
    /// With company, the root that it shares.
    pub async fn new() -> Result<Self, Stop> {
        if let Some(shared) = company::root() {
            let engine = runtime::builder(shared).open().await?;
            let image = engine.image("busybox").await?;
            return Ok(Self {
                engine,
                image,
                root: TempRoot::shared(shared),
            });
        }
        Self::alone().await
    }

    /// A root of its own with company, too: for what counts all that is in it.
    pub async fn alone() -> Result<Self, Stop> {
        let root = TempRoot::new();
        let engine = runtime::builder(root.path()).open().await?;
        let image = engine.pull(source(image::shared()?)).await?;
        Ok(Self { engine, image, root })
    }

    /// All containers in whatever state, but those of the company.
    pub async fn containers(&self) -> Result<Vec<ContainerSummary>, Stop> {
        let mut all = self
            .engine
            .list(ListOptions {
                all: true,
                ..ListOptions::default()
            })
            .await?;
        all.retain(|container| !container.labels.contains_key(company::LABEL));
        Ok(all)
    }

    /// A container of busybox.
    pub fn spec(&self) -> ContainerSpec {
        self.spec_of(&self.image)
    }

    /// A container of another image.
    pub fn spec_of(&self, image: &Image) -> ContainerSpec {
        runtime::with_a_network(ContainerSpec::image(image.id().to_string()))
    }

    /// A container of busybox with a script for its shell.
    pub fn script(&self, text: &str) -> ContainerSpec {
        self.spec().command(["sh", "-c", text])
    }

    /// Runs to the end.
    pub async fn output(&self, spec: ContainerSpec) -> Result<Output, Stop> {
        Ok(self.engine.run(spec).output().await?)
    }

    /// What a container prints that must end well.
    pub async fn says(&self, spec: ContainerSpec) -> Result<String, Stop> {
        let output = self.output(spec).await?;
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        fail(format!(
            "{}, stdout {:?}, stderr {:?}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        ))
    }

    /// A started container.
    pub async fn started(&self, spec: ContainerSpec) -> Result<Container, Stop> {
        Ok(self.engine.run(spec).await?)
    }

    /// How owners of files are kept here: `direct`, `mapped` or `squashed`.
    pub async fn ownership(&self) -> Result<String, Stop> {
        let container = self.engine.create(self.spec()).await?;
        let ownership = container.inspect().await?.ownership;
        container.remove(FORCE).await?;
        Ok(ownership)
    }
}

/// Removes whatever the state.
pub const FORCE: RemoveOptions = RemoveOptions::force();

/// A layout as a source that an engine understands.
pub fn source(layout: &Layout) -> String {
    format!("oci:{}:latest", layout.dir.display())
}

/// Output as text, without the last newline.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}
