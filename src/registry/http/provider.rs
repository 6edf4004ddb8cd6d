//! Registries over HTTP by host, each with its own options, each opened once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use super::mirrors::Mirrored;
use super::{HttpOptions, HttpRegistry};
use crate::error::{Error, Result};
use crate::registry::{Credentials, CredentialsSource, Registry, RegistryProvider};

/// A host, and it with its mirrors.
type WithMirrors = (Arc<HttpRegistry>, Arc<Mirrored>);

/// Opens [`HttpRegistry`]s and keeps their connections and tokens for the next pull.
#[derive(Debug, Default)]
pub struct HttpRegistries {
    options: HttpOptions,
    hosts: BTreeMap<String, HttpOptions>,
    mirrors: BTreeMap<String, Vec<String>>,
    credentials: Option<Arc<dyn CredentialsSource>>,
    open: Mutex<HashMap<String, (Credentials, Arc<HttpRegistry>)>>,
    /// Kept so that a mirror that rests is remembered.
    mirrored: tokio::sync::Mutex<HashMap<String, WithMirrors>>,
}

impl HttpRegistries {
    /// All hosts with these options.
    pub fn new(options: HttpOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// One host with others.
    #[must_use]
    pub fn with_host(mut self, host: impl Into<String>, options: HttpOptions) -> Self {
        self.hosts.insert(host.into(), options);
        self
    }

    /// A mirror of a host, which is asked before it; of several, the first one given first. It has the options that were
    /// given for its own name with [`HttpRegistries::with_host`].
    #[must_use]
    pub fn with_mirror(mut self, host: impl Into<String>, mirror: impl Into<String>) -> Self {
        self.mirrors.entry(host.into()).or_default().push(mirror.into());
        self
    }

    /// Who knows the credentials for hosts that were given none.
    #[must_use]
    pub fn with_credentials(mut self, source: Arc<dyn CredentialsSource>) -> Self {
        self.credentials = Some(source);
        self
    }

    fn known(&self, host: &str, credentials: &Credentials) -> Option<Arc<HttpRegistry>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(host)
            .filter(|(shown, _)| shown == credentials)
            .map(|(_, registry)| Arc::clone(registry))
    }
}

#[async_trait]
impl RegistryProvider for HttpRegistries {
    async fn open(&self, host: &str, credentials: &Credentials) -> Result<Arc<dyn Registry>> {
        let origin = self.host(host, credentials).await?;
        let Some(names) = self.mirrors.get(host) else {
            return Ok(origin);
        };
        let mut known = self.mirrored.lock().await;
        if let Some((_, mirrored)) = known.get(host).filter(|(of, _)| Arc::ptr_eq(of, &origin)) {
            return Ok(Arc::clone(mirrored) as Arc<dyn Registry>);
        }
        let mut mirrors = Vec::new();
        for name in names {
            // What was given for the host itself is not for its mirrors to see.
            mirrors.push(self.host(name, &Credentials::Anonymous).await?);
        }
        let mirrored = Arc::new(Mirrored::new(mirrors, Arc::clone(&origin)));
        known.insert(host.to_owned(), (origin, Arc::clone(&mirrored)));
        Ok(mirrored)
    }
}

impl HttpRegistries {
    async fn host(&self, host: &str, credentials: &Credentials) -> Result<Arc<HttpRegistry>> {
        let mut options = match self.hosts.get(host) {
            Some(options) => options.clone(),
            // Credentials that were given for no host in particular are not shown to every host there is.
            None => HttpOptions {
                credentials: Credentials::Anonymous,
                ..self.options.clone()
            },
        };
        if !credentials.is_anonymous() {
            options.credentials = credentials.clone();
        }
        if options.credentials.is_anonymous()
            && let Some(source) = &self.credentials
        {
            options.credentials = source.credentials(host).await?;
        }
        if let Some(registry) = self.known(host, &options.credentials) {
            return Ok(registry);
        }
        let (name, shown) = (host.to_owned(), options.credentials.clone());
        let made = spawn_blocking(move || HttpRegistry::new(&name, options)).await;
        let made =
            Arc::new(made.map_err(|error| Error::internal("opening a registry ended early").with_source(error))??);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(host.to_owned(), (shown, Arc::clone(&made)));
        Ok(made)
    }
}
