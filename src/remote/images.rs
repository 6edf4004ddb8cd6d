//! Images over the API.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use super::client::{Ask, Client, image_path};
use super::error::nonsense;
use super::json::{self, list, references, required, text, text_or_empty};
use super::pieces::{self, Lines};
use crate::error::{Error, ObjectKind, Result};
use crate::images::{
    ArchiveFormat, ByteStream, Credentials, Distribution, HistoryLine, ImageConfig, ImageDocument, ImageInfo,
    ImageManager, ImageSummary, ImportRequest, IndexRequest, Loaded, PrunedImages, Pull, PullRequest, PushRequest,
    Pushed, RemoveImageOptions, Removed, RootFs, RunConfig,
};
use crate::progress::{Progress, ProgressEvent};
use crate::sys::order;
use crate::types::{Descriptor, DiffId, Digest, Filter, ImageId, ImageSource, MediaType, Outcome, Platform, Reference};

/// Images of an engine elsewhere.
#[derive(Debug)]
pub(super) struct Images(pub(super) Client);

const AUTH: &str = "x-registry-auth";

fn of(image: &str, verb: &str) -> Result<String> {
    if image.is_empty() {
        return Err(Error::not_found(ObjectKind::Image, image));
    }
    Ok(format!("images/{}{verb}", image_path(image)))
}

/// Adds a repository and what stands behind its colon or `@`, under two names.
pub(super) fn named(ask: Ask, repository: &str, tag: &str, name: &Reference) -> Ask {
    let behind = name.digest().map(|digest| digest.to_string());
    let behind = behind.or_else(|| name.tag().map(str::to_owned));
    ask.with(repository, name.familiar_repository()).with_some(tag, behind)
}

/// What the header carries. Source: the Engine API's description, "Authentication".
fn auth(credentials: Option<&Credentials>, registry: &str) -> String {
    let told = match credentials {
        None | Some(Credentials::Anonymous) => json!({}),
        Some(Credentials::Password { user, password }) => {
            json!({"username": user, "password": password, "serveraddress": registry})
        }
        Some(Credentials::IdentityToken(token)) => json!({"identitytoken": token, "serveraddress": registry}),
    };
    URL_SAFE.encode(told.to_string())
}

/// Platforms are objects in JSON where lists of them may be asked for.
fn platform_json(platform: &Platform) -> String {
    let mut value = json!({"os": platform.os, "architecture": platform.architecture});
    if let Some(variant) = &platform.variant {
        value["variant"] = json!(variant);
    }
    value.to_string()
}

/// Ends progress with exactly one event.
fn told<T>(result: Result<T>, progress: &Progress, image: impl FnOnce(&T) -> Option<Digest>) -> Result<T> {
    match &result {
        Err(error) => progress.report(ProgressEvent::Failed {
            message: error.report(),
        }),
        Ok(value) => {
            if let Some(image) = image(value) {
                progress.report(ProgressEvent::Done { image });
            }
        }
    }
    result
}

/// A line of progress in the other end's words.
fn event(line: &Value) -> Option<ProgressEvent> {
    let status = text(line, "status").or_else(|| text(line, "stream"))?;
    let detail = &line["progressDetail"];
    Some(ProgressEvent::Remote {
        id: text_or_empty(line, "id"),
        status: status.trim_end().to_owned(),
        current: detail["current"].as_u64(),
        total: detail["total"].as_u64(),
    })
}

impl Images {
    /// Sends a request whose answer is lines of progress; `each` sees them all.
    async fn follow(&self, ask: Ask, progress: &Progress, mut each: impl FnMut(&Value) + Send) -> Result<()> {
        let answer = self.0.send(ask).await?;
        let mut lines = Lines::new(pieces::bytes(self.0.clone(), answer));
        while let Some(line) = lines.next().await? {
            each(&line);
            if let Some(event) = event(&line) {
                progress.report(event);
            }
        }
        Ok(())
    }

    async fn fetch(&self, request: &PullRequest, name: &Reference, progress: &Progress) -> Result<ImageInfo> {
        let ask = named(Ask::post("images/create"), "fromImage", "tag", name)
            .with_some("platform", request.platform.as_ref())
            .header(AUTH, &auth(request.credentials.as_ref(), name.host()))?;
        self.follow(ask, progress, |_| {}).await?;
        self.here(request, name).await
    }

    /// The image of that name, for the platform that is asked for. Before 1.49 the other end tells of one alone.
    async fn here(&self, request: &PullRequest, name: &Reference) -> Result<ImageInfo> {
        let platform = request.platform.as_ref().map(platform_json);
        let ask = Ask::get(of(&name.familiar(), "/json")?).with_some("platform", platform);
        info(&self.0.json(ask).await?)
    }

    async fn pull_by_policy(&self, request: &PullRequest, progress: &Progress) -> Result<ImageInfo> {
        let ImageSource::Registry(name) = &request.source else {
            let needs = "an engine in this process; send the archive with load";
            return Err(Error::unsupported("an image on this host's disk", needs));
        };
        match request.policy {
            Pull::Never => self.here(request, name).await,
            Pull::Always => self.fetch(request, name, progress).await,
            Pull::Missing => match self.here(request, name).await {
                Err(error) if error.is_not_found() => self.fetch(request, name, progress).await,
                here => here,
            },
            Pull::Newer => match self.fetch(request, name, progress).await {
                Err(error) if error.is_retryable() => self.here(request, name).await.map_err(|_| error),
                fetched => fetched,
            },
        }
    }
}

#[async_trait]
impl ImageManager for Images {
    async fn pull(&self, request: PullRequest, progress: Progress) -> Result<ImageInfo> {
        let pulled = self.pull_by_policy(&request, &progress).await;
        told(pulled, &progress, |image| Some(image.id))
    }

    async fn list(&self, filter: Filter) -> Result<Vec<ImageSummary>> {
        // A line says neither the platform nor the full date, so each image is looked at.
        let lines = self.0.json(Ask::get("images/json").filter(&filter)).await?;
        let lines = lines.as_array().ok_or_else(|| nonsense("no list of images"))?;
        let mut found = Vec::new();
        for line in lines {
            let id: ImageId = required(line, "Id")?;
            match self.inspect(&id.to_string()).await {
                Ok(image) => found.push(summary(image)),
                // Removed meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn inspect(&self, image: &str) -> Result<ImageInfo> {
        info(&self.0.json(Ask::get(of(image, "/json")?)).await?)
    }

    /// Where the other end tells of several (since 1.49).
    async fn variants(&self, image: &str) -> Result<Vec<ImageInfo>> {
        let value = self
            .0
            .json(Ask::get(of(image, "/json")?).flag("manifests", true))
            .await?;
        let mut found = vec![info(&value)?];
        for manifest in json::objects(&value, "Manifests") {
            let Ok(platform) = serde_json::from_value::<Platform>(manifest["ImageData"]["Platform"].clone()) else {
                continue;
            };
            if manifest["Available"] != true || platform.accepts(&found[0].platform) {
                continue;
            }
            let ask = Ask::get(of(image, "/json")?).with("platform", platform_json(&platform));
            match self.0.json(ask).await {
                Ok(value) => found.push(info(&value)?),
                // Removed meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let mut ids = std::collections::HashSet::new();
        found.retain(|image| ids.insert(image.id));
        Ok(found)
    }

    async fn tag(&self, image: &str, name: &Reference) -> Result<Outcome> {
        if name.digest().is_some() {
            return Err(Error::invalid(format!("a tag is needed, not the digest of {name}")));
        }
        let ask = named(Ask::post(of(image, "/tag")?), "repo", "tag", name);
        self.0.tell(ask).await?;
        Ok(Outcome::Done)
    }

    async fn remove(&self, image: &str, options: RemoveImageOptions) -> Result<Vec<Removed>> {
        let platform = options.platform.as_ref().map(platform_json);
        let ask = Ask::delete(of(image, "")?)
            .flag("force", options.force)
            .with_some("platforms", platform);
        let lines = self.0.json(ask).await?;
        Ok(removed(lines.as_array().map_or(&[], Vec::as_slice)))
    }

    async fn history(&self, image: &str) -> Result<Vec<HistoryLine>> {
        let lines = self.0.json(Ask::get(of(image, "/history")?)).await?;
        let lines = lines.as_array().ok_or_else(|| nonsense("no history"))?;
        Ok(lines.iter().map(step).collect())
    }

    async fn push(&self, request: PushRequest, progress: Progress) -> Result<Pushed> {
        let name = &request.name;
        let pushed = async {
            if request.to.is_some() {
                let needs = "an engine in this process; or tag the image, or save it";
                return Err(Error::unsupported("a push elsewhere than an image's name says", needs));
            }
            let image = format!("images/{}/push", image_path(&name.familiar_repository()));
            let platform = request.platform.as_ref().map(platform_json);
            let ask = Ask::post(image)
                .with_some("tag", name.tag())
                .with_some("platform", platform)
                .header(AUTH, &auth(request.credentials.as_ref(), name.host()))?;
            let mut manifest = None;
            let see = |line: &Value| manifest = manifest.take().or_else(|| pushed_manifest(line));
            self.follow(ask, &progress, see).await?;
            let manifest = manifest.ok_or_else(|| nonsense("a push that names no manifest"))?;
            Ok(Pushed { manifest })
        };
        let pushed = pushed.await;
        let image = match &pushed {
            Ok(_) => Some(self.inspect(&name.familiar()).await.map(|image| image.id)),
            Err(_) => None,
        };
        told(pushed, &progress, |pushed| match image {
            Some(Ok(id)) => Some(id),
            _ => Some(pushed.manifest.digest),
        })
    }

    async fn login(&self, registry: &str, credentials: Credentials) -> Result<()> {
        let body = match credentials {
            Credentials::Password { user, password } => {
                json!({"username": user, "password": password, "serveraddress": registry})
            }
            Credentials::IdentityToken(token) => json!({"identitytoken": token, "serveraddress": registry}),
            Credentials::Anonymous => return Err(Error::invalid("nobody can sign in without credentials")),
        };
        self.0.tell(Ask::post("auth").json(&body)).await.map(drop)
    }

    async fn distribution(&self, image: &Reference, credentials: Credentials) -> Result<Distribution> {
        let path = format!("distribution/{}/json", image_path(&image.familiar()));
        let ask = Ask::get(path).header(AUTH, &auth(Some(&credentials), image.host()))?;
        let found = self.0.json(ask).await?;
        let descriptor = &found["Descriptor"];
        let digest = descriptor["digest"].as_str().and_then(|digest| digest.parse().ok());
        let digest = digest.ok_or_else(|| nonsense("no descriptor"))?;
        let media_type = descriptor["mediaType"].as_str().unwrap_or(MANIFEST);
        let size = descriptor["size"].as_u64().unwrap_or(0);
        let platforms = found["Platforms"].as_array().into_iter().flatten();
        let platforms = platforms.filter_map(|one| serde_json::from_value(one.clone()).ok());
        Ok(Distribution::new(
            descriptor_of(media_type, digest, size),
            platforms.collect(),
        ))
    }

    async fn document(&self, image: &str) -> Result<ImageDocument> {
        let needs = "an engine in this process; the Engine API tells of manifests, and sends none";
        Err(Error::unsupported("the manifest of an image elsewhere", needs).with_object(ObjectKind::Image, image))
    }

    async fn make_index(&self, request: IndexRequest) -> Result<Descriptor> {
        let needs = "an engine in this process, or a program that makes the index in a registry; the Engine API has no request \
                     for it";
        let name = request.name.familiar();
        Err(Error::unsupported("making an index elsewhere", needs).with_object(ObjectKind::Image, name))
    }

    async fn save(&self, images: &[String], platform: Option<Platform>, format: ArchiveFormat) -> Result<ByteStream> {
        if format == ArchiveFormat::Oci {
            let needs = "an engine in this process; Docker's archives are OCI layouts that hold more";
            return Err(Error::unsupported("an archive that is an OCI layout alone", needs));
        }
        let ask = images
            .iter()
            .fold(Ask::get("images/get"), |ask, image| ask.with("names", image));
        let ask = ask.with_some("platform", platform.as_ref().map(platform_json));
        let answer = self.0.send(ask).await?;
        Ok(pieces::bytes(self.0.clone(), answer))
    }

    async fn load(&self, archive: ByteStream, platform: Option<Platform>, progress: Progress) -> Result<Vec<Loaded>> {
        let loaded = async {
            let ask = Ask::post("images/load").with_some("platform", platform.as_ref().map(platform_json));
            let mut names = Vec::new();
            let see = |line: &Value| names.extend(loaded_name(line));
            self.follow(ask.stream(archive), &progress, see).await?;
            let mut loaded: Vec<Loaded> = Vec::new();
            for name in names {
                let image = self.inspect(&name).await?;
                let tag = name.parse::<Reference>().ok().filter(|_| !name.starts_with("sha256:"));
                match loaded.iter_mut().find(|known| known.id == image.id) {
                    Some(known) => known.tags.extend(tag),
                    None => loaded.push(Loaded {
                        id: image.id,
                        tags: tag.into_iter().collect(),
                    }),
                }
            }
            Ok(loaded)
        };
        told(loaded.await, &progress, |loaded| loaded.last().map(|image| image.id))
    }

    async fn import(&self, archive: ByteStream, request: ImportRequest, progress: Progress) -> Result<ImageId> {
        let imported = async {
            let mut ask = Ask::post("images/create").with("fromSrc", "-");
            if let Some(name) = &request.name {
                ask = named(ask, "repo", "tag", name);
            }
            ask = ask.with_some("platform", request.platform.as_ref());
            ask = ask.with_some("message", Some(&request.message).filter(|message| !message.is_empty()));
            ask = request
                .changes
                .iter()
                .fold(ask, |ask, change| ask.with("changes", change));
            let mut id = None;
            let see = |line: &Value| id = line["status"].as_str().and_then(|word| word.parse().ok()).or(id);
            self.follow(ask.stream(archive), &progress, see).await?;
            id.ok_or_else(|| nonsense("an import that names no image"))
        };
        told(imported.await, &progress, |id| Some(*id))
    }

    async fn prune(&self, filter: Filter) -> Result<PrunedImages> {
        let pruned = self.0.json(Ask::post("images/prune").filter(&filter)).await?;
        let lines: Vec<Value> = json::objects(&pruned, "ImagesDeleted").cloned().collect();
        Ok(PrunedImages {
            removed: removed(&lines),
            reclaimed_bytes: json::number(&pruned, "SpaceReclaimed"),
        })
    }
}

/// `Loaded image: NAME` and `Loaded image ID: sha256:…`. Source: moby, `image/tarexport/load.go`.
fn loaded_name(line: &Value) -> Option<String> {
    let words = line["stream"].as_str()?.trim();
    let name = words
        .strip_prefix("Loaded image ID: ")
        .or_else(|| words.strip_prefix("Loaded image: "))?;
    Some(name.to_owned())
}

/// The line that tells of the manifest, as moby's clients read it, or as it is written for people.
fn pushed_manifest(line: &Value) -> Option<Descriptor> {
    if let Some(digest) = line["aux"]["Digest"].as_str() {
        let size = line["aux"]["Size"].as_u64().unwrap_or(0);
        return Some(descriptor_of(MANIFEST, digest.parse().ok()?, size));
    }
    let words = line["status"].as_str()?;
    let (_, rest) = words.split_once("digest: ")?;
    let (digest, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let size = rest.strip_prefix("size: ").and_then(|size| size.trim().parse().ok());
    Some(descriptor_of(MANIFEST, digest.parse().ok()?, size.unwrap_or(0)))
}

/// What a manifest is where nobody says.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn descriptor_of(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: MediaType(media_type.to_owned()),
        digest,
        size,
        platform: None,
        annotations: Default::default(),
    }
}

/// The manifest as it is told since 1.48; before that its digest by a name of the image, and of an image without one the
/// digest of its config. A size that is not told is 0.
fn manifest(value: &Value, id: ImageId, digests: &[Reference]) -> Descriptor {
    let told = &value["Descriptor"];
    if let Some(digest) = told["digest"].as_str().and_then(|digest| digest.parse().ok()) {
        let media_type = text(told, "mediaType").unwrap_or_else(|| MANIFEST.to_owned());
        return descriptor_of(&media_type, digest, json::number(told, "size"));
    }
    let digest = digests.iter().find_map(Reference::digest);
    descriptor_of(MANIFEST, digest.unwrap_or(id), 0)
}

fn info(value: &Value) -> Result<ImageInfo> {
    let id: ImageId = required(value, "Id")?;
    let diff_ids = list(&value["RootFS"], "Layers").unwrap_or_default();
    let diff_ids: Result<Vec<DiffId>> = diff_ids.iter().map(|layer| layer.parse()).collect();
    let diff_ids = diff_ids.map_err(|error| nonsense("a layer that is no digest").with_source(error))?;
    let chain = diff_ids
        .iter()
        .fold(None, |parent, layer| Some(Digest::chain(parent.as_ref(), layer)));
    let platform = Platform {
        os: text_or_empty(value, "Os"),
        architecture: text_or_empty(value, "Architecture"),
        variant: text(value, "Variant"),
    };
    let mut digests = references(value, "RepoDigests");
    let mut tags = references(value, "RepoTags");
    order::sort_by_key(&mut tags, Reference::to_string);
    order::sort_by_key(&mut digests, Reference::to_string);
    let config = ImageConfig {
        created: json::moment(value, "Created").and_then(|_| text(value, "Created")),
        author: text(value, "Author"),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: platform.os.clone(),
        config: run_config(&value["Config"])?,
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids,
        },
        history: Vec::new(),
        build_cache: None,
    };
    Ok(ImageInfo {
        id,
        manifest: manifest(value, id, &digests),
        tags,
        digests,
        platform,
        config,
        chain,
        layers: Vec::new(),
        size_bytes: json::number(value, "Size"),
        pulled_at: json::moment(&value["Metadata"], "LastTagTime").unwrap_or(std::time::UNIX_EPOCH),
    })
}

/// What Docker empties is what the image does not say.
fn run_config(value: &Value) -> Result<RunConfig> {
    let Value::Object(fields) = value else {
        return Ok(RunConfig::default());
    };
    let says =
        |value: &Value| !matches!(value, Value::Null) && value != "" && *value != json!([]) && *value != json!({});
    let said = fields.iter().filter(|(_, value)| says(value));
    let said = Value::Object(said.map(|(name, value)| (name.clone(), value.clone())).collect());
    serde_json::from_value(said).map_err(|failed| nonsense("the config of an image").with_source(failed))
}

fn summary(image: ImageInfo) -> ImageSummary {
    ImageSummary {
        id: image.id,
        tags: image.tags,
        digests: image.digests,
        platform: image.platform,
        created: image.config.created,
        size_bytes: image.size_bytes,
        pulled_at: image.pulled_at,
        lent_by: None,
    }
}

/// What is deleted and no longer has a name that tells is an image first, then its layers.
fn removed(lines: &[Value]) -> Vec<Removed> {
    let mut images = 0;
    let part = |line: &Value| {
        if let Some(name) = line["Untagged"].as_str() {
            images = 0;
            return Some(Removed::Untagged(name.parse().ok()?));
        }
        let digest: Digest = line["Deleted"].as_str()?.parse().ok()?;
        images += 1;
        Some(match images {
            1 => Removed::Deleted(digest),
            _ => Removed::DeletedLayer(digest),
        })
    };
    lines.iter().filter_map(part).collect()
}

fn step(line: &Value) -> HistoryLine {
    let seconds = line["Created"].as_i64().filter(|seconds| *seconds != 0);
    let created = seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    HistoryLine {
        id: line["Id"].as_str().and_then(|id| id.parse().ok()),
        created: created.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok()),
        created_by: text_or_empty(line, "CreatedBy"),
        tags: references(line, "Tags"),
        size_bytes: json::number(line, "Size"),
        comment: text_or_empty(line, "Comment"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_dockerd_says_of_an_image() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let shown = json!({
            "Id": digest("a"), "RepoTags": ["busybox:latest"], "RepoDigests": [format!("busybox@{}", digest("b"))],
            "Created": "2024-01-31T12:00:00Z", "Author": "", "Os": "linux", "Architecture": "amd64", "Size": 7,
            "Config": {"Cmd": ["sh"], "Env": null, "User": "", "Labels": {}, "Volumes": {"/v": {}}, "Hostname": ""},
            "RootFS": {"Type": "layers", "Layers": [digest("c"), digest("d")]},
        });
        let read = info(&shown).unwrap();
        assert_eq!(read.tags[0].familiar(), "busybox:latest");
        assert_eq!(read.manifest.digest.to_string(), digest("b"));
        let chain = Digest::chain(Some(&digest("c").parse().unwrap()), &digest("d").parse().unwrap());
        assert_eq!(read.chain, Some(chain));
        let expected = RunConfig {
            cmd: Some(vec!["sh".into()]),
            volumes: Some(vec!["/v".into()]),
            ..RunConfig::default()
        };
        assert_eq!(read.config.config, expected);
        assert_eq!(info(&json!({"Id": "x"})).unwrap_err().kind(), &ErrorKind::Unavailable);
    }

    #[test]
    fn lines_that_tell_what_came_of_it() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let aux = json!({"progressDetail": {}, "aux": {"Tag": "1", "Digest": digest, "Size": 528}});
        let words = json!({"status": format!("1: digest: {digest} size: 528")});
        for line in [aux, words] {
            let manifest = pushed_manifest(&line).unwrap();
            assert_eq!((manifest.digest.to_string(), manifest.size), (digest.clone(), 528));
        }
        assert_eq!(loaded_name(&json!({"stream": "Loaded image: a:1\n"})).unwrap(), "a:1");
        assert!(loaded_name(&json!({"stream": "x"})).is_none());
        let gone = removed(&[
            json!({"Untagged": "a:1"}),
            json!({"Deleted": digest}),
            json!({"Deleted": digest}),
        ]);
        assert!(matches!(
            gone[..],
            [Removed::Untagged(_), Removed::Deleted(_), Removed::DeletedLayer(_)]
        ));
        let header = auth(Some(&Credentials::password("u", "p")), "host:1");
        let header = URL_SAFE.decode(header).unwrap();
        assert_eq!(header, br#"{"password":"p","serveraddress":"host:1","username":"u"}"#);
        let event = event(&json!({"status": "Downloading", "id": "abc", "progressDetail": {"current": 1, "total": 2}}));
        assert_eq!(event.unwrap().to_string(), "abc: Downloading (1 of 2)");
    }
}
