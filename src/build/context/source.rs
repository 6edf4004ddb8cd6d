//! Where a context comes from, and what of it a build looks at first: its Dockerfile and its ignore file.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fetch;
use super::services::Waiting;
use super::spool::{is_archive, read_text, unpack, unpack_file};
use super::tree::Paths as _;
use super::{Services, Tree, View};
use crate::build::ignore::IgnoreFile;
use crate::build::limits;
use crate::build::suggest::nearest_variable;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::storage::inflow::on_thread;
use crate::storage::layer::name::split;
use crate::sys::blocking::blocking;
use crate::types::{ByteStream, Reference};

/// The name of a Dockerfile that nobody named.
const DOCKERFILE: &str = "Dockerfile";
/// What is taken from a stream or a URL.
const STREAM_BYTES: u64 = 512 << 30;

/// Where the files of a build come from.
#[non_exhaustive]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// A tar archive, plain or compressed.
    Tar(ByteStream),
    /// A Dockerfile alone, or a tar archive: what `docker build -` reads.
    Stream(ByteStream),
    /// A Dockerfile alone.
    Dockerfile(String),
    /// An HTTP(S) URL of a tar archive, or of a Dockerfile.
    Url(String),
    /// A repository: `https://host/name.git#ref:directory`.
    Git(String),
    /// The files of an image. For named contexts.
    Image(Reference),
    /// An image in an OCI layout on disk, by tag or digest if there are several. For named contexts.
    Layout(PathBuf, Option<String>),
    /// No files.
    Empty,
}

impl fmt::Debug for ContextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Tar(_) => f.write_str("Tar"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Dockerfile(_) => f.write_str("Dockerfile"),
            // Addresses may carry passwords.
            Self::Url(_) => f.write_str("Url"),
            Self::Git(_) => f.write_str("Git"),
            Self::Image(image) => f.debug_tuple("Image").field(image).finish(),
            Self::Layout(path, name) => f.debug_tuple("Layout").field(path).field(name).finish(),
            Self::Empty => f.write_str("Empty"),
        }
    }
}

impl ContextSource {
    /// The same once more.
    ///
    /// # Errors
    /// `InvalidArgument` for a stream.
    pub(crate) fn again(&self) -> Result<Self> {
        Ok(match self {
            Self::Directory(path) => Self::Directory(path.clone()),
            Self::Dockerfile(text) => Self::Dockerfile(text.clone()),
            Self::Url(url) => Self::Url(url.clone()),
            Self::Git(url) => Self::Git(url.clone()),
            Self::Image(image) => Self::Image(image.clone()),
            Self::Layout(path, name) => Self::Layout(path.clone(), name.clone()),
            Self::Empty => Self::Empty,
            Self::Tar(_) | Self::Stream(_) => {
                return Err(Error::invalid(
                    "a context that is a stream can be read once only: give a directory, a URL or a repository",
                ));
            }
        })
    }
}

impl From<&Path> for ContextSource {
    fn from(path: &Path) -> Self {
        Self::Directory(path.to_owned())
    }
}

impl From<&str> for ContextSource {
    /// A directory.
    fn from(path: &str) -> Self {
        Self::Directory(path.into())
    }
}

impl From<PathBuf> for ContextSource {
    fn from(path: PathBuf) -> Self {
        Self::Directory(path)
    }
}

/// An image that stands for a context: the caller finds it.
#[derive(Debug, Clone)]
pub(crate) enum ImageSource {
    Reference(Reference),
    Layout(PathBuf, Option<String>),
}

/// A context that was opened.
#[derive(Debug)]
pub(crate) enum Opened {
    Context(Context),
    Image(ImageSource),
}

/// The files of a build.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    tree: Tree,
    /// The Dockerfile, where the source says it.
    text: Option<Vec<u8>>,
}

/// Opens a context; what is not a directory is put into one of the build.
///
/// # Errors
/// `NotFound`, `InvalidArgument`, `UnsafeArchive`, `Unsupported`, what a URL or a repository says, `NoSpace`, `Os`.
///
/// # Cancel safety
/// What was received is in the directory of the build, and goes with it.
pub(crate) async fn open(source: ContextSource, services: &Services) -> Result<Opened> {
    let context = match source {
        ContextSource::Image(image) => return Ok(Opened::Image(ImageSource::Reference(image))),
        ContextSource::Layout(path, name) => return Ok(Opened::Image(ImageSource::Layout(path, name))),
        ContextSource::Directory(path) => Context::of(blocking(move || directory(&path)).await?),
        ContextSource::Tar(stream) => {
            let directory = services.fresh("context");
            Context::of(on_thread(stream, move |inflow| unpack(inflow, &directory)).await?)
        }
        ContextSource::Stream(stream) => Context::of_stream(stream, services).await?,
        ContextSource::Dockerfile(text) => Context {
            tree: services.empty_tree().await?,
            text: Some(text.into_bytes()),
        },
        ContextSource::Url(url) => match fetch::repository(&url)? {
            Some(repository) => Context::of(fetch::clone(&repository, services).await?),
            None => Context::of_stream(fetch::stream(&url, services).await?, services).await?,
        },
        ContextSource::Git(url) => {
            let Some(repository) = fetch::repository_of_context(&url)? else {
                return Err(Error::invalid(
                    "this is no address of a repository: https://host/name.git#ref:directory",
                ));
            };
            Context::of(fetch::clone(&repository, services).await?)
        }
        ContextSource::Empty => Context::of(services.empty_tree().await?),
    };
    Ok(Opened::Context(context))
}

fn directory(path: &Path) -> Result<Tree> {
    let named = |error: Error| error.context(format!("open the build context {}", path.display()));
    Tree::open(path).map_err(named)
}

impl Context {
    fn of(tree: Tree) -> Self {
        Self { tree, text: None }
    }

    async fn of_stream(stream: ByteStream, services: &Services) -> Result<Self> {
        let (_, _, path) = services.spool(stream, STREAM_BYTES).await?;
        let place = services.fresh("context");
        let waiting = Waiting::default();
        let stop = waiting.flag();
        let opened = blocking(move || {
            let file = File::open(&path).map_err(|e| Error::os("read the build context", e))?;
            if !is_archive(&file)? {
                let text = std::io::Seek::rewind(&mut &file).map_err(|e| Error::os("read the build context", e));
                text?;
                return Ok((None, Some(read_text(&file, "the Dockerfile", limits::FILE_BYTES)?)));
            }
            let tree = unpack_file(file, &place, stop)?;
            // It is only in the way by now.
            let _ = std::fs::remove_file(&path);
            Ok((Some(tree), None))
        });
        let opened = opened.await?;
        drop(waiting);
        match opened {
            (Some(tree), _) => Ok(Self::of(tree)),
            (None, text) => Ok(Self {
                tree: services.empty_tree().await?,
                text,
            }),
        }
    }

    /// The files, without those that are ignored once the ignore file is known.
    pub(crate) fn tree(&self) -> Tree {
        self.tree.clone()
    }

    /// Reads the Dockerfile, and the ignore file that belongs to it: the name as errors show it, and the text. Blocking.
    ///
    /// # Errors
    /// `NotFound` with what is near; `InvalidArgument` for one that is too large, and for an ignore file with a pattern that
    /// is none; `Denied`, `Os`.
    pub(crate) fn dockerfile(&mut self, name: Option<&str>) -> Result<(String, Vec<u8>)> {
        if let Some(text) = &self.text {
            return Ok((name.unwrap_or(DOCKERFILE).to_owned(), text.clone()));
        }
        let view = Tree {
            ignore: None,
            ..self.tree.clone()
        }
        .view()?;
        let wanted = name.unwrap_or(DOCKERFILE);
        let mut found = read_file(&view, wanted, "the Dockerfile", limits::FILE_BYTES)?.map(|text| (wanted, text));
        if found.is_none() && wanted == DOCKERFILE {
            // As BuildKit does.
            found =
                read_file(&view, "dockerfile", "the Dockerfile", limits::FILE_BYTES)?.map(|text| ("dockerfile", text));
        }
        let Some((shown, text)) = found else {
            return Err(no_dockerfile(&view, wanted)?);
        };
        self.ignore_by(&view, Some(shown))?;
        Ok((shown.to_owned(), text))
    }

    /// Takes the ignore file of a Dockerfile that comes from elsewhere, or of none. Blocking.
    ///
    /// # Errors
    /// `InvalidArgument`, `Denied`, `Os`.
    pub(crate) fn set_ignore(&mut self, dockerfile: Option<&str>) -> Result<()> {
        let view = Tree {
            ignore: None,
            ..self.tree.clone()
        }
        .view()?;
        self.ignore_by(&view, dockerfile)
    }

    /// Takes an ignore file that is elsewhere.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn set_ignore_text(&mut self, text: &str) -> Result<()> {
        self.tree.ignore = Some(Arc::new(IgnoreFile::parse_named(".dockerignore", text)?));
        Ok(())
    }

    fn ignore_by(&mut self, view: &View, dockerfile: Option<&str>) -> Result<()> {
        let names = IgnoreFile::names(dockerfile.unwrap_or_default());
        let own = usize::from(dockerfile.is_none());
        self.tree.ignore = None;
        for name in names.iter().skip(own) {
            let Some(text) = read_file(view, name, name, limits::IGNORE_BYTES)? else {
                continue;
            };
            self.tree.ignore = Some(Arc::new(IgnoreFile::parse_named(name, text)?));
            return Ok(());
        }
        Ok(())
    }
}

/// The text of a file in a context; `None` if there is no such file.
fn read_file(view: &View, path: &str, what: &str, most: usize) -> Result<Option<Vec<u8>>> {
    let led = view.follow(b"", path.as_bytes(), true)?;
    let Some(node) = led.node else { return Ok(None) };
    if !node.is_file() {
        let message = format!("{path} is no regular file");
        return Err(Error::invalid(message).with_object(ObjectKind::Option, path));
    }
    let (parent, name) = split(&led.path);
    let Some(folder) = view.folder(parent)? else {
        return Ok(None);
    };
    let Some((_, _, Some(file))) = folder.open(name, node.kind)? else {
        return Ok(None);
    };
    read_text(file, what, most).map(Some)
}

fn no_dockerfile(view: &View, wanted: &str) -> Result<Error> {
    let (parent, name) = wanted.rsplit_once('/').unwrap_or(("", wanted));
    let led = view.follow(b"", parent.as_bytes(), true)?;
    let mut message = format!("there is no {wanted} in the build context");
    if let Some(folder) = view.folder(&led.path)? {
        let names = folder.names()?;
        let names: Vec<&str> = names
            .iter()
            .filter_map(|(name, _)| std::str::from_utf8(name).ok())
            .collect();
        if let Some(near) = nearest_variable(name, names) {
            message += &format!(" (did you mean {near}?)");
        }
    }
    Ok(Error::new(ErrorKind::NotFound, message).with_object(ObjectKind::Option, wanted))
}
