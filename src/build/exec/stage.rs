//! A stage while its steps are done, and afterwards.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::scope::Scope;
use super::{Work, failure, times};
use crate::build::cache::Key;
use crate::build::copy::{Files, Times};
use crate::build::image::Assembly;
use crate::build::plan::{Action, StageState, Step};
use crate::build::verify::TracedStep;
use crate::error::{Error, Result};
use crate::images::making::chain;
use crate::types::{ChainId, LayerRef, Platform};

/// What a stage is so far.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    /// Its name, or its number.
    pub(super) name: String,
    /// The lowest first.
    pub(super) layers: Vec<LayerRef>,
    pub(super) image: Assembly,
    /// What holds at its beginning, and once it is done, at its end.
    pub(super) state: StageState,
    pub(super) scope: Scope,
    pub(super) platform: Platform,
    pub(super) times: Times,
    /// Whether its steps are done anew, whatever is known.
    pub(super) no_cache: bool,
}

/// What a step made of files just now.
pub(super) struct Fresh {
    /// None: it changed nothing.
    pub(super) layer: Option<LayerRef>,
    /// Whether it is what the key says: files may have changed while they were read.
    pub(super) keep: bool,
}

/// What a step made of files, now or before.
pub(super) struct Made {
    /// None: it changed nothing.
    pub(super) layer: Option<LayerRef>,
    pub(super) cached: bool,
}

impl Stage {
    pub(super) fn chain(&self) -> Option<ChainId> {
        chain(&self.layers)
    }

    /// A key for a step upon what is there so far.
    pub(super) fn key(&self, kind: &str) -> Key {
        self.key_upon(kind, self.chain().as_ref())
    }

    pub(super) fn key_upon(&self, kind: &str, below: Option<&ChainId>) -> Key {
        let mut key = Key::new(kind, below);
        match self.times {
            Times::Fixed(seconds) => key.flag(true).number(seconds),
            Times::Real => key.flag(false),
        };
        key
    }
}

impl Work<'_> {
    /// Does one step.
    pub(super) async fn step(&self, stage: &mut Stage, step: &Step) -> Result<()> {
        let text = shown(stage, step);
        self.cancel.check()?;
        let number = self.tell_begun(&stage.name, &text);
        let made = self.files_of(stage, step, &text, number).await;
        let made = made.map_err(|error| failure::at(error, self.file, step.span.start.line, &text))?;
        let told = stage.image.history.len();
        stage.image.apply(step);
        stage.scope.apply(&step.action);
        let empty = made.as_ref().is_some_and(|made| made.layer.is_none());
        let created = times::text(stage.times)?;
        for entry in stage.image.history.iter_mut().skip(told) {
            entry.created = Some(created.clone());
            entry.empty_layer |= empty;
        }
        let cached = made.as_ref().is_some_and(|made| made.cached);
        let layer = made.and_then(|made| made.layer);
        self.trace(stage, &text, layer.as_ref());
        stage.layers.extend(layer);
        self.tell_ended(number, cached);
        Ok(())
    }

    fn trace(&self, stage: &Stage, text: &str, layer: Option<&LayerRef>) {
        let step = TracedStep {
            platform: self.spec.plan.platform.clone(),
            stage: stage.name.clone(),
            text: text.to_owned(),
            layer: layer.cloned(),
        };
        let mut trace = self.counts.trace.lock().unwrap_or_else(PoisonError::into_inner);
        trace.push(step);
    }

    /// What a step does to files, if it does anything.
    async fn files_of(&self, stage: &Stage, step: &Step, text: &str, number: u32) -> Result<Option<Made>> {
        let made = match &step.action {
            Action::Run(run) => self.run(stage, run, step, text, number).await?,
            Action::Copy(copy) => {
                let files = Files::Copy(copy.clone());
                self.copy(stage, files, copy.from.as_ref(), copy.link, text).await?
            }
            Action::Add(add) => self.copy(stage, Files::Add(add.clone()), None, add.link, text).await?,
            Action::Workdir(path) if path != "/" => self.workdir(stage, path, text).await?,
            _ => return Ok(None),
        };
        Ok(Some(made))
    }

    /// What is known of a step, or else what it makes now. Of several builds that need it at once one does it.
    pub(super) async fn cached(
        &self,
        stage: &Stage,
        key: &Key,
        text: &str,
        make: impl Future<Output = Result<Fresh>>,
    ) -> Result<Made> {
        let key = key.finish();
        self.counts.counted.fetch_add(1, Ordering::Relaxed);
        let lock = format!("build-{}", key.hex());
        let _turn = match stage.no_cache {
            true => None,
            false => Some(self.cancel.or(self.shared.parts.locks.lock(&lock)).await?),
        };
        if !stage.no_cache
            && let Some(found) = self.shared.find_step(self.making, &stage.layers, &key).await?
        {
            self.counts.hits.fetch_add(1, Ordering::Relaxed);
            self.counts
                .used
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(key);
            self.keep_for_others(key, found.layer.as_ref());
            return Ok(Made {
                layer: found.layer,
                cached: true,
            });
        }
        if !stage.no_cache
            && let Some(layer) = self.imported(stage, &key).await?
        {
            self.counts.hits.fetch_add(1, Ordering::Relaxed);
            self.keep_for_others(key, layer.as_ref());
            return Ok(Made { layer, cached: true });
        }
        let waiting = async {
            let closed = |_| Error::internal("a build without permits");
            self.permits.acquire().await.map_err(closed)
        };
        let permit = self.cancel.or(waiting).await?;
        let Fresh { layer, keep } = make.await?;
        drop(permit);
        self.cancel.check()?;
        if keep {
            self.shared.keep_step(&key, text, &stage.layers, layer.as_ref()).await?;
            self.keep_for_others(key, layer.as_ref());
        }
        Ok(Made { layer, cached: false })
    }
}

/// The step as it is written; one that was made in Rust has no text, and is told as histories tell it.
fn shown(stage: &Stage, step: &Step) -> String {
    if !step.text.is_empty() {
        return step.text.clone();
    }
    let mut image = stage.image.clone();
    let told = image.history.len();
    image.apply(step);
    let entry = image.history.get(told).and_then(|entry| entry.created_by.clone());
    entry
        .map(|text| text.trim_end_matches(" # buildkit").to_owned())
        .unwrap_or_default()
}
