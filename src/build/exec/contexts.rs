//! The build's contexts: the one that it is given, and those with names, which are opened when they are needed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::build::context::{self, ContextSource, Opened, Services, Tree};
use crate::build::spec::{BuildSpec, Recipe, Wish};
use crate::error::{Error, ObjectKind, Result};
use crate::sys::blocking::blocking;
use crate::types::ImageSource;

/// Files, or an image that is to be had.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Tree(Tree),
    Image(ImageSource),
}

pub(super) struct Contexts {
    main: Tree,
    named: BTreeMap<String, Named>,
}

struct Named {
    source: Mutex<Option<ContextSource>>,
    opened: OnceCell<Source>,
}

/// A Dockerfile's name and text.
pub(super) type File = (String, Vec<u8>);

/// Opens the context, and reads the Dockerfile if there is one.
pub(super) async fn open(spec: BuildSpec, services: &Services) -> Result<(Contexts, Option<File>, Wish)> {
    let BuildSpec {
        context,
        contexts,
        wish,
    } = spec;
    let named = contexts.into_iter().map(|(name, source)| {
        let named = Named {
            source: Mutex::new(Some(source)),
            opened: OnceCell::new(),
        };
        (name, named)
    });
    let named = named.collect();
    let Opened::Context(mut context) = crate::build::context::open(context, services).await? else {
        let message = "the context of a build is files: give an image as a named context";
        return Err(Error::invalid(message).with_object(ObjectKind::Option, "context"));
    };
    let (path, text) = match &wish.recipe {
        Recipe::File(name) => (name.clone(), None),
        Recipe::Text(text) => (None, Some(text.clone())),
        Recipe::Stages(_) => (None, Some(String::new())),
    };
    let ignore = wish.ignore.clone();
    let has_file = !matches!(wish.recipe, Recipe::Stages(_));
    let (context, file) = blocking(move || {
        let file = match text {
            Some(text) => {
                context.set_ignore(None)?;
                ("Dockerfile".to_owned(), text.into_bytes())
            }
            None => context.dockerfile(path.as_deref())?,
        };
        if let Some(ignore) = ignore {
            context.set_ignore_text(&ignore)?;
        }
        Ok((context, file))
    })
    .await?;
    let main = context.tree();
    Ok((Contexts { main, named }, has_file.then_some(file), wish))
}

fn of_image(image: context::ImageSource) -> ImageSource {
    match image {
        context::ImageSource::Reference(reference) => ImageSource::Registry(reference),
        context::ImageSource::Layout(dir, name) => ImageSource::OciLayout { dir, name },
    }
}

impl Contexts {
    pub(super) fn main(&self) -> &Tree {
        &self.main
    }

    /// A named context; opened at the first call.
    pub(super) async fn named(&self, name: &str, services: &Services) -> Result<&Source> {
        let missing = || Error::invalid(format!("there is no context {name:?}: name it beside the Dockerfile"));
        let named = self.named.get(name).ok_or_else(missing)?;
        let opening = async {
            let source = named.source.lock().unwrap_or_else(PoisonError::into_inner).take();
            let source = source.ok_or_else(|| Error::internal("a context that could not be opened before"))?;
            match context::open(source, services).await? {
                Opened::Image(image) => Ok(Source::Image(of_image(image))),
                Opened::Context(mut context) => {
                    let tree = move || {
                        context.set_ignore(None)?;
                        Ok(Source::Tree(context.tree()))
                    };
                    blocking(tree).await
                }
            }
        };
        let opened: Result<&Source> = named.opened.get_or_try_init(|| opening).await;
        opened.map_err(|error| error.context(format!("open the context {name:?}")))
    }
}
