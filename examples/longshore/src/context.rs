//! What every verb starts from.

use std::path::PathBuf;
use std::sync::Arc;

use longshore::registry::http::HttpRegistries;
use longshore::{Engine, Isolation};

use crate::auth;
use crate::failure::Failure;

/// The global options, resolved no earlier than a verb needs them.
#[derive(Debug)]
pub struct Context {
    root: Option<PathBuf>,
    additional: Vec<PathBuf>,
    host: Option<String>,
    isolation: Isolation,
    runtime: Option<String>,
}

impl Context {
    /// Takes the global options.
    pub fn new(
        root: Option<PathBuf>,
        additional: Vec<PathBuf>,
        host: Option<String>,
        isolation: Isolation,
        runtime: Option<String>,
    ) -> Result<Self, Failure> {
        if host.is_some() && (root.is_some() || !additional.is_empty() || runtime.is_some()) {
            return Err(Failure::ours(
                "--root, --additional-store and --default-runtime are of an engine in this process, and --host of one elsewhere; \
                 leave one out",
            ));
        }
        Ok(Self {
            root,
            additional,
            host,
            isolation,
            runtime,
        })
    }

    /// Whether containers are those of an engine elsewhere.
    pub fn is_elsewhere(&self) -> bool {
        self.host.is_some()
    }

    /// The root directory.
    pub fn root(&self) -> Result<PathBuf, Failure> {
        Ok(match &self.root {
            Some(root) => std::path::absolute(root)?,
            None => Engine::default_root()?,
        })
    }

    /// Opens the engine.
    pub async fn engine(&self) -> Result<Engine, Failure> {
        if let Some(host) = &self.host {
            return Ok(Engine::connect(host).await?);
        }
        let mut builder = Engine::builder(self.root()?).isolation(self.isolation);
        if let Some(runtime) = &self.runtime {
            builder = builder.default_runtime(runtime);
        }
        for store in &self.additional {
            builder = builder.additional_store(store);
        }
        if let Some(credentials) = auth::load()? {
            let registries = HttpRegistries::default().with_credentials(Arc::new(credentials));
            builder = builder.registries(Arc::new(registries));
        }
        Ok(builder.open().await?)
    }
}
