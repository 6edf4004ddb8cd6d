//! Volumes that one of Docker's plugins keeps: [`VolumePlugin`], a [`VolumeDriver`] over the volume plugin protocol on a unix
//! socket. Source: moby, `docs/extend/plugins_volume.md` and `pkg/plugins`.
//!
//! A plugin is another's program: it may be slow, gone, or talk nonsense. Every call of the driver ends within the plugin's
//! time, answers are bounded, and what may have been mounted by a call that failed is unmounted.

mod find;
mod wire;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

pub use self::find::PluginPlaces;
pub(crate) use self::find::finder;
use self::wire::{Answer, Wire};
use crate::driver::within;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::sys::blocking::blocking;
use crate::types::{Outcome, VolumeName};
use crate::volumes::{VolumeContext, VolumeDriver, VolumeSource};

/// How long a call of the driver may take. Docker waits for two minutes.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an unmount is waited for.
const UNMOUNT: Duration = Duration::from_secs(5);
/// Longer than any path that the kernel takes. Source: limits.h, `PATH_MAX`.
const LONGEST_PATH: usize = 4096;

/// A volume plugin of Docker's at a unix socket.
///
/// A volume that the plugin has already is taken over as it is by a `create` of its name. What the plugin knows of a volume
/// is asked for where it is needed; where a volume's files are is known while a container uses it, and shown then only.
///
/// ```no_run
/// # async fn example() -> longshore::Result<()> {
/// use std::sync::Arc;
/// use longshore::{CreateVolume, Engine};
/// use longshore::volumes::VolumePlugin;
/// let plugin = VolumePlugin::at("sshfs", "/run/docker/plugins/sshfs.sock");
/// let engine = Engine::builder("/var/lib/app").with_volume_driver("sshfs", Arc::new(plugin)).open().await?;
/// engine.create_volume(CreateVolume::named("home").driver("sshfs").option("sshcmd", "me@box:/home/me")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct VolumePlugin {
    wire: Arc<Wire>,
    limit: Duration,
    /// Whether it said that it keeps volumes.
    active: OnceCell<()>,
    /// By what id a volume is mounted.
    mounts: Mutex<HashMap<VolumeName, String>>,
}

/// How far a plugin's volumes reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VolumeScope {
    /// This host.
    Local,
    /// Every host that has the plugin.
    Global,
}

impl VolumePlugin {
    /// A plugin by its name and its socket. Nothing is asked before the first use.
    pub fn at(name: impl Into<String>, socket: impl Into<PathBuf>) -> Self {
        Self {
            wire: Arc::new(Wire::new(name.into(), socket.into())),
            limit: LIMIT,
            active: OnceCell::new(),
            mounts: Mutex::default(),
        }
    }

    /// How long each call of the driver may take; default a minute.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.wire.name
    }

    /// How far its volumes reach. One that cannot say keeps them on this host, as for Docker.
    ///
    /// # Errors
    /// `Unavailable` for a plugin that is not there or answers nonsense, `Timeout`.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn scope(&self) -> Result<VolumeScope> {
        let answer = self.timed("Capabilities", self.ask("VolumeDriver.Capabilities", json!({})));
        let Answer::Said(said) = answer.await? else {
            return Ok(VolumeScope::Local);
        };
        match said.pointer("/Capabilities/Scope").and_then(Value::as_str) {
            Some("global") => Ok(VolumeScope::Global),
            Some("local" | "") | None => Ok(VolumeScope::Local),
            Some(_) => Err(self
                .wire
                .nonsense("VolumeDriver.Capabilities", "a scope that nobody knows")),
        }
    }

    /// The names of all volumes that it keeps, whoever had them made.
    ///
    /// # Errors
    /// As [`VolumePlugin::scope`]; `Denied` with the plugin's words if it refuses.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn list(&self) -> Result<Vec<String>> {
        self.timed("List", self.names()).await
    }

    async fn names(&self) -> Result<Vec<String>> {
        let said = self.told("VolumeDriver.List", json!({})).await?;
        match &said["Volumes"] {
            Value::Null => Ok(Vec::new()),
            Value::Array(all) => {
                let name = |volume: &Value| volume["Name"].as_str().map(str::to_owned);
                let names: Option<Vec<String>> = all.iter().map(name).collect();
                names.ok_or_else(|| self.wire.nonsense("VolumeDriver.List", "a volume without a name"))
            }
            _ => Err(self.wire.nonsense("VolumeDriver.List", "no list")),
        }
    }

    /// Ends what takes longer than the plugin's time.
    async fn timed<T>(&self, verb: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| {
            let message = format!(
                "the volume plugin {:?} did not answer {verb} within {:?}; look after it, or give it more time",
                self.wire.name, self.limit
            );
            Error::new(ErrorKind::Timeout, message).with_object(ObjectKind::Backend, self.name())
        };
        tokio::time::timeout(self.limit, work).await.map_err(late)?
    }

    /// Asks a plugin that keeps volumes.
    async fn ask(&self, method: &str, body: Value) -> Result<Answer> {
        self.active.get_or_try_init(|| self.activate()).await?;
        self.wire.ask(method, &body).await
    }

    /// As [`VolumePlugin::ask`], of which a refusal is an error.
    async fn told(&self, method: &str, body: Value) -> Result<Value> {
        match self.ask(method, body).await? {
            Answer::Said(said) => Ok(said),
            Answer::Refused(words) => Err(self.wire.refused(method, &words)),
            Answer::Unknown => Err(self.wire.unknown(method)),
        }
    }

    async fn activate(&self) -> Result<()> {
        let method = "Plugin.Activate";
        let said = match self.wire.ask(method, &json!({})).await? {
            Answer::Said(said) => said,
            Answer::Refused(words) => return Err(self.wire.refused(method, &words)),
            Answer::Unknown => return Err(self.wire.unknown(method)),
        };
        let Some(kinds) = said["Implements"].as_array() else {
            return Err(self.wire.nonsense(method, "nothing of what it is"));
        };
        if kinds.iter().any(|kind| kind == "VolumeDriver") {
            return Ok(());
        }
        let needs = "a plugin that implements VolumeDriver";
        let error = Error::unsupported(format!("keeping volumes with the plugin {:?}", self.name()), needs);
        Err(error.with_object(ObjectKind::Backend, self.name()))
    }

    async fn make(&self, volume: &VolumeContext) -> Result<Outcome> {
        let name = volume.name.as_str();
        // Protocols say "no" in many words: whatever the plugin refuses to show is not there. Source: moby,
        // `volume/service/store.go`, `create`.
        if let Answer::Said(said) = self.ask("VolumeDriver.Get", json!({"Name": name})).await?
            && said["Volume"].is_object()
        {
            return Ok(Outcome::Already);
        }
        self.told("VolumeDriver.Create", json!({"Name": name, "Opts": volume.options}))
            .await?;
        Ok(Outcome::Done)
    }

    async fn unmake(&self, volume: &VolumeContext) -> Result<()> {
        let (method, name) = ("VolumeDriver.Remove", volume.name.as_str());
        let refused = match self.ask(method, json!({"Name": name})).await? {
            Answer::Said(_) => return Ok(()),
            Answer::Refused(words) => self.wire.refused(method, &words),
            Answer::Unknown => return Err(self.wire.unknown(method)),
        };
        // It may have been gone already, which the protocol has no word for.
        match self.names().await {
            Ok(names) if !names.iter().any(|there| there == name) => Ok(()),
            _ => Err(refused),
        }
    }

    async fn show(&self, volume: &VolumeContext, id: &str) -> Result<PathBuf> {
        let name = volume.name.as_str();
        let said = self.told("VolumeDriver.Mount", json!({"Name": name, "ID": id})).await?;
        let place = match said["Mountpoint"].as_str() {
            Some(place) if !place.is_empty() => place.to_owned(),
            // Some say it only when asked for it.
            _ => {
                let said = self.told("VolumeDriver.Path", json!({"Name": name})).await?;
                said["Mountpoint"].as_str().unwrap_or_default().to_owned()
            }
        };
        if !is_a_place(&place) {
            let what = "a mount point that is no absolute path";
            return Err(self.wire.nonsense("VolumeDriver.Mount", what));
        }
        let place = PathBuf::from(place);
        let looked = place.clone();
        match blocking(move || Ok(std::fs::metadata(&looked).map(|found| found.is_dir()))).await? {
            Ok(true) => Ok(place),
            found => {
                let what = format!("a mount point that is no directory here, {}", place.display());
                let error = self.wire.nonsense("VolumeDriver.Mount", &what);
                Err(match found {
                    Err(cause) => error.with_source(cause),
                    Ok(_) => error,
                })
            }
        }
    }

    /// A mount whose end nobody knows yet.
    fn unwanted(&self, volume: &VolumeContext, id: &str) -> Unwanted {
        Unwanted {
            wire: Arc::clone(&self.wire),
            name: volume.name.clone(),
            id: id.to_owned(),
            limit: self.limit,
            kept: false,
        }
    }

    fn mounts(&self) -> std::sync::MutexGuard<'_, HashMap<VolumeName, String>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a plugin's word can be where a volume is: an absolute path, below the root, that leads nowhere else by itself.
fn is_a_place(text: &str) -> bool {
    let path = Path::new(text);
    let mut parts = path.components();
    text.len() < LONGEST_PATH
        && !text.contains('\0')
        && parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Tells the plugin that a mount is not wanted that nobody knows the end of, unless all went well.
struct Unwanted {
    wire: Arc<Wire>,
    name: VolumeName,
    id: String,
    limit: Duration,
    kept: bool,
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.kept {
            return;
        }
        let (wire, limit) = (Arc::clone(&self.wire), self.limit);
        let body = json!({"Name": self.name.as_str(), "ID": self.id});
        runtime.spawn(async move {
            let told = tokio::time::timeout(limit, take_back(&wire, &body)).await;
            tracing::debug!(plugin = wire.name, given_up = told.is_err(), "a mount came to nothing");
        });
    }
}

/// Asks until the plugin agrees: what is taken back may have overtaken what it takes back.
async fn take_back(wire: &Wire, body: &Value) {
    let mut pause = Duration::from_millis(20);
    while !matches!(wire.ask("VolumeDriver.Unmount", body).await, Ok(Answer::Said(_))) {
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

#[async_trait]
impl VolumeDriver for VolumePlugin {
    async fn create(&self, volume: &VolumeContext) -> Result<Outcome> {
        self.timed("Create", self.make(volume)).await
    }

    async fn remove(&self, volume: &VolumeContext) -> Result<()> {
        self.timed("Remove", self.unmake(volume)).await
    }

    async fn mount(&self, volume: &VolumeContext) -> Result<VolumeSource> {
        // Not asked before it is known that it would be for nothing: there is nothing to take back then.
        self.timed("Activate", async {
            self.active.get_or_try_init(|| self.activate()).await.map(drop)
        })
        .await?;
        // One of its own for each mount: what is taken back late is not what was mounted since.
        let id = VolumeName::random().to_string();
        let mut unwanted = self.unwanted(volume, &id);
        let place = self.timed("Mount", self.show(volume, &id)).await?;
        unwanted.kept = true;
        self.mounts().insert(volume.name.clone(), id);
        Ok(VolumeSource::Directory(place))
    }

    async fn unmount(&self, volume: &VolumeContext) -> Result<()> {
        let Some(id) = self.mounts().remove(&volume.name) else {
            return Ok(());
        };
        let mut unwanted = self.unwanted(volume, &id);
        let body = json!({"Name": volume.name.as_str(), "ID": id});
        let ask = self.timed("Unmount", self.ask("VolumeDriver.Unmount", body));
        // A container's end waits for this; what takes longer goes on beside it.
        let answer = within(Some(UNMOUNT), ask).await?;
        unwanted.kept = true;
        match answer {
            Answer::Said(_) => Ok(()),
            Answer::Refused(words) => Err(self.wire.refused("VolumeDriver.Unmount", &words)),
            Answer::Unknown => Err(self.wire.unknown("VolumeDriver.Unmount")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j5_only_absolute_paths_are_mount_points() {
        for good in ["/mnt/a", "/a//b", "/a/./b"] {
            assert!(is_a_place(good), "{good}");
        }
        let long = format!("/{}", "x".repeat(5000));
        for bad in ["", "/", "//", "/.", "a", "./a", "/a/../b", "/..", "/a\0b", &long] {
            assert!(!is_a_place(bad), "{bad:?}");
        }
    }
}
