//! `COPY`, `ADD` and `WORKDIR`: steps that make files without running anything.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Work;
use super::contexts::Source;
use super::stage::{Fresh, Made, Stage};
use crate::build::context::Tree;
use crate::build::copy::{self, Files, Gathered};
use crate::build::plan::Origin;
use crate::error::{Error, Result};
use crate::images::making::chain;
use crate::runtime::native::sight::ZygoteSight;
use crate::storage::layer::Sight;
use crate::sys::blocking::{blocking, elsewhere};
use crate::types::{ChainId, Digest, ImageSource, LayerRef};

impl Work<'_> {
    pub(super) async fn copy(
        &self,
        stage: &Stage,
        files: Files,
        from: Option<&Origin>,
        link: bool,
        text: &str,
    ) -> Result<Made> {
        let below = stage.chain().filter(|_| !link);
        let mut key = stage.key_upon("copy", below.as_ref());
        match &files {
            Files::Copy(copy) => key.text("copy").copy(copy),
            Files::Add(add) => key.text("add").add(add),
        };
        let source = self.origin(from).await?;
        let gathered = Arc::new(self.cancel.or(copy::gather(files, source, &self.services)).await?);
        key.text(&self.digest_of(&gathered).await?.to_string());
        let make = async {
            let base = self.tree(below.as_ref()).await?;
            self.write_files(stage, &stage.layers, &gathered, base).await
        };
        self.cached(stage, &key, text, make).await
    }

    /// What the files are, for the key.
    pub(super) async fn digest_of(&self, gathered: &Arc<Gathered>) -> Result<Digest> {
        let seen = Arc::clone(gathered);
        let work = elsewhere(move || seen.digest());
        self.stopping(gathered, work).await
    }

    /// Makes a layer of files.
    pub(super) async fn write_files(
        &self,
        stage: &Stage,
        below: &[LayerRef],
        gathered: &Arc<Gathered>,
        base: Option<Tree>,
    ) -> Result<Fresh> {
        let (files, times) = (Arc::clone(gathered), stage.times);
        let changed = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&changed);
        let write = move |out: &mut dyn Write| {
            let written = files.write(base.as_ref(), times, out)?;
            told.store(written.changed, Ordering::Relaxed);
            Ok(())
        };
        let work = self.making.layer(below, &self.cancel, write);
        let layer = self.stopping(gathered, work).await?;
        let keep = !changed.load(Ordering::Relaxed);
        Ok(Fresh { layer, keep })
    }

    /// Waits for work on files, which ends soon when the caller goes away.
    async fn stopping<T>(&self, gathered: &Gathered, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => done,
            _ = self.cancel.or(std::future::pending::<Result<()>>()) => {
                gathered.stop().store(true, Ordering::Relaxed);
                work.await
            }
        }
    }

    pub(super) async fn workdir(&self, stage: &Stage, path: &str, text: &str) -> Result<Made> {
        let mut key = stage.key("workdir");
        let user = stage.image.config.user.clone().filter(|user| !user.is_empty());
        key.text(path).maybe(user.as_deref());
        let make = async {
            let base = self.tree(stage.chain().as_ref()).await?;
            let (path, times) = (path.to_owned(), stage.times);
            let write = move |out: &mut dyn Write| copy::make_dirs(base.as_ref(), &path, user.as_deref(), times, out);
            let layer = self.making.layer(&stage.layers, &self.cancel, write).await?;
            Ok(Fresh { layer, keep: true })
        };
        self.cached(stage, &key, text, make).await
    }

    /// The files that a step takes from somewhere; `None` where there are none.
    pub(super) async fn origin(&self, from: Option<&Origin>) -> Result<Option<Tree>> {
        match from {
            None => Ok(Some(self.contexts.main().clone())),
            Some(Origin::Context(name)) => match self.contexts.named(name, &self.services).await? {
                Source::Tree(tree) => Ok(Some(tree.clone())),
                Source::Image(source) => self.tree_of_image(source.clone()).await,
            },
            Some(Origin::Stage(number)) => self.tree(self.stage_of(*number).await?.chain().as_ref()).await,
            Some(Origin::Image(reference)) => self.tree_of_image(ImageSource::Registry(reference.clone())).await,
            Some(Origin::Scratch) => Ok(None),
            Some(Origin::Named(name)) => Err(unplanned(name)),
        }
    }

    /// The layers that a step takes something from; `None` where that is no image and no stage.
    pub(super) async fn layers_of(&self, from: Option<&Origin>) -> Result<Option<Vec<LayerRef>>> {
        Ok(match from {
            Some(Origin::Stage(number)) => Some(self.stage_of(*number).await?.layers.clone()),
            Some(Origin::Image(reference)) => {
                let source = ImageSource::Registry(reference.clone());
                Some(self.pull(source, None).await?.layers)
            }
            Some(Origin::Context(name)) => match self.contexts.named(name, &self.services).await? {
                Source::Image(source) => Some(self.pull(source.clone(), None).await?.layers),
                Source::Tree(_) => None,
            },
            Some(Origin::Scratch) => Some(Vec::new()),
            Some(Origin::Named(name)) => return Err(unplanned(name)),
            None => None,
        })
    }

    async fn tree_of_image(&self, source: ImageSource) -> Result<Option<Tree>> {
        let info = self.pull(source, None).await?;
        self.tree(chain(&info.layers).as_ref()).await
    }

    /// What layers show together.
    pub(super) async fn tree(&self, chain: Option<&ChainId>) -> Result<Option<Tree>> {
        let Some(chain) = chain else { return Ok(None) };
        let parts = &self.shared.parts;
        let view = parts.snapshotter.view(chain).await?;
        let (root, layers, native) = (Arc::clone(&parts.root), parts.layers.clone(), parts.native.clone());
        blocking(move || {
            let sight = native.map(|native| Arc::new(ZygoteSight::new(native)) as Arc<dyn Sight>);
            Ok(Some(Tree::of_rootfs(root.mount(&view)?, layers, sight)))
        })
        .await
    }
}

fn unplanned(name: &str) -> Error {
    Error::internal(format!("a plan left open what {name:?} is"))
}
