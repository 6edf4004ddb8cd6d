//! Registries over HTTP by host, each with its own options, each opened once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use super::{HttpOptions, HttpRegistry};
use crate::error::{Error, Result};
use crate::registry::{Credentials, Registry, RegistryProvider};

/// Opens [`HttpRegistry`]s and keeps their connections and tokens for the next pull.
#[derive(Debug, Default)]
pub struct HttpRegistries {
    options: HttpOptions,
    hosts: BTreeMap<String, HttpOptions>,
    open: Mutex<HashMap<String, (Credentials, Arc<HttpRegistry>)>>,
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
