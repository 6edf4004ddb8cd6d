//! `commit`: an image of a container's, with what it changed as one layer more.

use std::sync::Arc;

use super::CommitOptions;
use super::local::{Live, Shared, Slot};
use super::record::Record;
use super::spec::ContainerSpec;
use super::state::{ContainerState, Verb, decide};
use crate::driver::Cancel;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::images::merge::{merged, with_changes};
use crate::images::{ExtendRequest, RunConfig};
use crate::types::ImageId;

impl Shared {
    pub(crate) async fn commit(
        self: &Arc<Self>,
        name: &str,
        options: CommitOptions,
        cancel: &Cancel,
    ) -> Result<ImageId> {
        let record = self.find(name).await?;
        let request = self.request(&record, &options).await?;
        // Until it is read: a container of ours that is removed, or started, meanwhile would be another one.
        let ours = self.is_ours(&record) || record.is_detached();
        let slot = ours.then(|| self.slot_of(&record));
        let _turn = match &slot {
            Some(slot) => Some(self.turn(&record.id, slot).await?),
            None => None,
        };
        let mut record = self.read(&record.id).await?;
        decide(&record.id, record.state, Verb::Commit)?;
        cancel.check()?;
        let frozen = match (options.pause && record.state == ContainerState::Running, &slot) {
            (false, _) => None,
            (true, Some(slot)) => self.freeze_to_read(&mut record, slot).await?,
            (true, None) => return Err(pause_is_the_owners(&record)),
        };
        let made = cancel.or(self.make_image(&record, request)).await;
        if let (Some(live), Some(slot)) = (frozen, &slot) {
            self.let_go_on(&mut record, slot, &live).await?;
        }
        let image = made?;
        self.settle();
        let shown = options.name.as_ref().map(|name| name.familiar()).unwrap_or_default();
        let event = self.event(&record, "commit").with("comment", &options.message);
        let event = event.with("imageID", image.to_string()).with("imageRef", shown);
        self.tell(event).await;
        Ok(image)
    }

    /// What the image is to be; whatever is wrong with the request is found before the container is touched.
    async fn request(&self, record: &Record, options: &CommitOptions) -> Result<ExtendRequest> {
        let base = record.body.image_id.to_string();
        let image = self.parts.images.inspect(&base).await?;
        let container = config_of(&record.body.spec, image.config.config);
        let created_by = container.cmd.clone().unwrap_or_default().join(" ");
        let over = options.config.clone().unwrap_or_else(|| container.clone());
        let config = merged(with_changes(over, &options.changes)?, container);
        Ok(ExtendRequest {
            base,
            name: options.name.clone(),
            config,
            author: options.author.clone(),
            message: options.message.clone(),
            created_by,
        })
    }

    async fn make_image(self: &Arc<Self>, record: &Record, request: ExtendRequest) -> Result<ImageId> {
        let layer = self.layer(record).await?;
        self.parts.images.extend(layer, request).await
    }

    async fn freeze_to_read(&self, record: &mut Record, slot: &Arc<Slot>) -> Result<Option<Live>> {
        let Some(live) = self.live(record, slot).await? else {
            return Ok(None);
        };
        live.task
            .pause()
            .await
            .map_err(|error| error.context("pause the container for the commit (or commit it without a pause)"))?;
        if let Err(error) = self.record_state(record, ContainerState::Paused, "pause").await {
            let _ = live.task.resume().await;
            return Err(error);
        }
        Ok(Some(live))
    }

    /// Lets it go on, unless it was killed where it stood.
    async fn let_go_on(&self, record: &mut Record, slot: &Slot, live: &Live) -> Result<()> {
        if let Err(error) = live.task.resume().await {
            return if slot.live().is_some() { Err(error) } else { Ok(()) };
        }
        if self.read(&record.id).await?.state != ContainerState::Paused {
            return Ok(());
        }
        self.record_state(record, ContainerState::Running, "unpause").await
    }
}

fn pause_is_the_owners(record: &Record) -> Error {
    let message = format!(
        "cannot commit container {} while it stands still: it runs in another process, which alone can pause it; commit it \
         without a pause, or ask that process",
        record.id.short()
    );
    Error::new(ErrorKind::Conflict, message).with_object(ObjectKind::Container, record.id.as_str())
}

/// What a container runs, in the words of an image. Triggers and the shell for builds are not a container's. Source: moby,
/// `daemon/commit.go`.
fn config_of(spec: &ContainerSpec, image: RunConfig) -> RunConfig {
    let mut config = image;
    if let Some(entrypoint) = &spec.entrypoint {
        config.entrypoint = Some(entrypoint.clone()).filter(|words| !words.is_empty());
        config.cmd = None;
    }
    if let Some(command) = &spec.command {
        config.cmd = Some(command.clone());
    }
    // The container's own first, as Docker has it.
    let of_image = config.env.take().unwrap_or_default();
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let kept = of_image
        .into_iter()
        .filter(|pair| !spec.env.contains_key(&name(pair)) && !spec.env_remove.contains(&name(pair)));
    let own = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let env: Vec<String> = own.chain(kept).collect();
    config.env = (!env.is_empty()).then_some(env);
    if let Some(dir) = &spec.working_dir {
        config.working_dir = Some(dir.to_string_lossy().into_owned());
    }
    config.user = spec.user.clone().or(config.user);
    config.stop_signal = spec.stop_signal.map(|signal| signal.to_string()).or(config.stop_signal);
    if !spec.labels.is_empty() {
        config.labels.get_or_insert_default().extend(spec.labels.clone());
    }
    config.on_build = None;
    config.shell = None;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d4_a_containers_own_options_are_over_the_images() {
        let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let image = RunConfig {
            cmd: words(&["old"]),
            entrypoint: words(&["/init"]),
            env: words(&["A=1", "B=2", "C=3"]),
            on_build: words(&["RUN x"]),
            user: Some("app".into()),
            ..RunConfig::default()
        };
        let mut spec = ContainerSpec::image("x").env("B", "new").env("D", "4").label("l", "v");
        spec.env_remove = ["C".to_owned()].into();
        let config = config_of(&spec, image.clone());
        assert_eq!(config.env, words(&["B=new", "D=4", "A=1"]));
        assert_eq!((config.cmd, config.entrypoint), (words(&["old"]), words(&["/init"])));
        assert_eq!((config.on_build, config.user.as_deref()), (None, Some("app")));
        let config = config_of(&ContainerSpec::image("x").entrypoint(["sh"]).user("0"), image);
        assert_eq!((config.cmd, config.entrypoint), (None, words(&["sh"])));
        assert_eq!(config.user.as_deref(), Some("0"));
    }
}
