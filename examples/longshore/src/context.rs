//! What every verb starts from.

use std::path::PathBuf;
use std::sync::Arc;

use longshore::Engine;
use longshore::registry::http::HttpRegistries;

use crate::auth;
use crate::failure::Failure;

/// The global options, resolved no earlier than a verb needs them.
#[derive(Debug)]
pub struct Context {
    root: Option<PathBuf>,
}

impl Context {
    /// Takes the global options.
    pub fn new(root: Option<PathBuf>, host: Option<&str>) -> Result<Self, Failure> {
        match host {
            None => Ok(Self { root }),
            Some(host) => Err(Failure::ours(format!(
                "cannot talk to {host}: this client runs containers in its own process and cannot reach a daemon yet; leave out --host"
            ))),
        }
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
        let mut builder = Engine::builder(self.root()?);
        if let Some(credentials) = auth::load()? {
            let registries = HttpRegistries::default().with_credentials(Arc::new(credentials));
            builder = builder.registries(Arc::new(registries));
        }
        Ok(builder.open().await?)
    }
}
