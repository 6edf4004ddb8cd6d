//! Networks over the API.

use async_trait::async_trait;
use serde_json::Value;

use super::client::{Ask, Client, segment};
use super::error::nonsense;
use super::json::{text, text_or_empty};
use crate::error::{Error, ObjectKind, Result};
use crate::networks::{NetworkInfo, NetworkManager};

/// Networks of an engine elsewhere.
#[derive(Debug)]
pub(super) struct Networks(pub(super) Client);

#[async_trait]
impl NetworkManager for Networks {
    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        let networks = self.0.json(Ask::get("networks")).await?;
        let networks = networks.as_array().ok_or_else(|| nonsense("no list of networks"))?;
        let mut found = networks.iter().map(info).collect::<Result<Vec<_>>>()?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn inspect(&self, name: &str) -> Result<NetworkInfo> {
        if name.is_empty() {
            return Err(Error::not_found(ObjectKind::Network, name));
        }
        info(&self.0.json(Ask::get(format!("networks/{}", segment(name)))).await?)
    }
}

/// The API does not tell of the host's interfaces.
fn info(value: &Value) -> Result<NetworkInfo> {
    Ok(NetworkInfo {
        name: text(value, "Name").ok_or_else(|| nonsense("a network without a name"))?,
        driver: text_or_empty(value, "Driver"),
        links: Vec::new(),
    })
}
