//! What a stage begins with: `FROM`.

use std::sync::Arc;

use super::contexts::Source;
use super::scope::Scope;
use super::stage::Stage;
use super::{Work, failure, times};
use crate::build::copy::Files;
use crate::build::image::Assembly;
use crate::build::plan::{Base, CopyAction, PlannedStage, StageState};
use crate::error::Result;
use crate::images::{ImageInfo, ImageManager as _, PullRequest};
use crate::progress::{Progress, ProgressEvent};
use crate::types::{ImageSource, Platform};

impl Work<'_> {
    /// A stage before its first step.
    pub(super) async fn begin(&self, planned: &PlannedStage) -> Result<Stage> {
        let name = planned.name.clone().unwrap_or_else(|| planned.number.to_string());
        if let Base::Stage(number) = &planned.base {
            let below = self.stage_of(*number).await?;
            return Ok(self.upon_stage(&name, planned, &below));
        }
        let text = format!("FROM {}", shown(&planned.base));
        let step = self.tell_begun(&name, &text);
        let begun = self.begin_anew(&name, planned).await;
        let mut stage = begun.map_err(|error| failure::at(error, self.file, 0, &text))?;
        stage.no_cache = self.no_cache(planned);
        self.tell_ended(step, false);
        Ok(stage)
    }

    async fn begin_anew(&self, name: &str, planned: &PlannedStage) -> Result<Stage> {
        let platform = planned.platform.as_ref();
        match &planned.base {
            Base::Image(reference) => {
                let source = ImageSource::Registry(reference.clone());
                self.upon_image(name, self.pull(source, platform).await?)
            }
            Base::Context { name: context, .. } => match self.contexts.named(context, &self.services).await? {
                Source::Image(source) => self.upon_image(name, self.pull(source.clone(), platform).await?),
                Source::Tree(_) => self.upon_files(name, context, platform).await,
            },
            _ => {
                let stage = self.scratch(name, platform.unwrap_or(&self.spec.plan.platform));
                Ok(stage)
            }
        }
    }

    /// A stage upon nothing.
    pub(super) fn scratch(&self, name: &str, platform: &Platform) -> Stage {
        let image = Assembly::scratch();
        Stage {
            name: name.to_owned(),
            layers: Vec::new(),
            scope: Scope::default().begin(image.config.env.as_deref().unwrap_or_default()),
            image,
            state: StageState::scratch(),
            platform: platform.clone(),
            // Checked when the build begins.
            times: times::upon(self.spec, None).unwrap_or(crate::build::copy::Times::Fixed(0)),
            no_cache: self.spec.no_cache,
        }
    }

    /// A stage upon an image.
    pub(super) fn upon_image(&self, name: &str, info: ImageInfo) -> Result<Stage> {
        let run = info.config.config.clone();
        let env: Vec<(String, String)> = run.env.iter().flatten().map(|pair| halves(pair)).collect();
        let mut state = StageState::image(env);
        if let Some(dir) = &run.working_dir {
            state = state.working_dir(dir.clone());
        }
        state = state
            .shell(run.shell.clone().unwrap_or_default())
            .triggers(run.on_build.clone().unwrap_or_default());
        let image = Assembly::on(info.config.author.clone(), run, info.config.history.clone());
        Ok(Stage {
            name: name.to_owned(),
            layers: info.layers,
            scope: Scope::default().begin(image.config.env.as_deref().unwrap_or_default()),
            image,
            state,
            platform: info.platform,
            times: times::upon(self.spec, info.config.created.as_deref())?,
            no_cache: self.spec.no_cache,
        })
    }

    fn upon_stage(&self, name: &str, planned: &PlannedStage, below: &Arc<Stage>) -> Stage {
        let image = below.image.next_stage();
        let env = image.config.env.clone().unwrap_or_default();
        Stage {
            name: name.to_owned(),
            scope: below.scope.clone().begin(&env),
            image,
            no_cache: self.no_cache(planned),
            ..Stage::clone(below)
        }
    }

    /// A stage upon the files of a context.
    async fn upon_files(&self, name: &str, context: &str, platform: Option<&Platform>) -> Result<Stage> {
        let mut stage = self.scratch(name, platform.unwrap_or(&self.spec.plan.platform));
        let mut copy = CopyAction::new(["."], "/");
        copy.from = Some(crate::build::plan::Origin::Context(context.to_owned()));
        let text = format!("FROM {context}");
        let made = self
            .copy(&stage, Files::Copy(copy.clone()), copy.from.as_ref(), false, &text)
            .await?;
        stage.layers.extend(made.layer);
        Ok(stage)
    }

    /// An image, fetched if it must be. It is held from here on.
    pub(super) async fn pull(&self, source: ImageSource, platform: Option<&Platform>) -> Result<ImageInfo> {
        let wanted = &self.spec.plan.platform;
        // The host's own is not asked for: an image that is there for one platform alone will do.
        let asked = self.among.is_some() || *wanted != Platform::host();
        let asks = match &source {
            ImageSource::Registry(reference) => self.spec.credentials.get(reference.host()).cloned(),
            _ => None,
        };
        let mut request = PullRequest::new(source).policy(self.spec.pull);
        request.platform = platform.or(asked.then_some(wanted)).cloned();
        request.credentials = asks;
        let images = &self.shared.parts.images;
        let info = self.cancel.or(images.pull(request, self.part_of_progress())).await?;
        self.making.base(&info.id.to_string()).await
    }

    /// For a pull within the build, whose end is not the build's.
    pub(super) fn part_of_progress(&self) -> Progress {
        let progress = self.progress.clone();
        Progress::new(move |event| match event {
            ProgressEvent::Done { .. } | ProgressEvent::Failed { .. } => {}
            event => progress.report(event),
        })
    }

    fn no_cache(&self, planned: &PlannedStage) -> bool {
        let stages = &self.spec.no_cache_stages;
        let named = planned
            .name
            .as_ref()
            .is_some_and(|name| stages.contains(&name.to_ascii_lowercase()));
        self.spec.no_cache || named || stages.contains(&planned.number.to_string())
    }
}

fn halves(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (name.to_owned(), value.to_owned())
}

fn shown(base: &Base) -> String {
    match base {
        Base::Scratch => "scratch".to_owned(),
        Base::Image(reference) => reference.familiar(),
        Base::Context { name, .. } => name.clone(),
        Base::Stage(number) => number.to_string(),
    }
}
