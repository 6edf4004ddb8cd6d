//! `images/create`: pull, and import.

use serde_json::json;

use super::super::auth;
use super::super::call::Call;
use super::super::error::Failure;
use super::super::jsonl;
use super::super::router::Answer;
use super::archive;
use super::progress::{self, PULL};
use super::tag::named;
use crate::error::{Error, ErrorKind};
use crate::images::{ImportRequest, Pull, PullRequest};
use crate::progress::Progress;
use crate::types::{ImageSource, Reference};

pub(super) async fn create(call: Call) -> Answer {
    match (call.query.get("fromImage"), call.query.get("fromSrc")) {
        (Some(_), _) => pull(call).await,
        (None, Some(_)) => import(call).await,
        (None, None) => Err(Failure::bad(
            "neither fromImage nor fromSrc says where the image comes from",
        )),
    }
}

async fn pull(call: Call) -> Answer {
    let repository = call.query.get("fromImage").unwrap_or_default();
    let name = named(repository, call.query.get("tag"))?;
    let mut request = PullRequest::new(ImageSource::Registry(name.clone())).policy(Pull::Always);
    request.platform = archive::platform(&call.query)?;
    request.credentials = auth::credentials(&call)?;
    let engine = call.engine.clone();
    jsonl::progress(move |lines| async move {
        let before = engine
            .images()
            .inspect(&name.familiar())
            .await
            .ok()
            .map(|image| image.id);
        let tag = name.tag().map(str::to_owned);
        let shown = tag
            .or_else(|| name.digest().map(|digest| digest.to_string()))
            .unwrap_or_default();
        let begin = json!({"status": format!("Pulling from {}", name.repository()), "id": shown});
        let progress = progress::into_lines(lines.clone(), PULL, Some(begin));
        let image = engine
            .images()
            .pull(request, progress)
            .await
            .map_err(|error| words(&name, error))?;
        lines.put(&json!({"status": format!("Digest: {}", image.manifest.digest)}));
        let news = if before == Some(image.id) {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        lines.put(&json!({"status": format!("Status: {news} {}", name.familiar())}));
        Ok(())
    })
    .await
}

/// Docker's words for an image that a registry does not show. It says the same whether it is missing or hidden.
fn words(name: &Reference, error: Error) -> Failure {
    let kind = error.kind().clone();
    let report = error.report();
    let failure = Failure::from(error);
    match kind {
        ErrorKind::Denied => failure.status(hyper::StatusCode::NOT_FOUND).say(format!(
            "pull access denied for {}, repository does not exist or may require 'docker login': {report}",
            name.familiar_repository()
        )),
        ErrorKind::NotFound => failure.say(format!(
            "manifest for {} not found: manifest unknown: manifest unknown",
            name.familiar()
        )),
        _ => failure,
    }
}

async fn import(mut call: Call) -> Answer {
    let source = call.query.get("fromSrc").unwrap_or_default();
    if source != "-" {
        return Err(Failure::option(
            "fromSrc with an address",
            "the archive itself as the body, with fromSrc=-",
        ));
    }
    let request = ImportRequest {
        name: archive::reference(&call.query, "repo", call.query.get("tag"))?,
        message: call.query.get("message").unwrap_or_default().to_owned(),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        platform: archive::platform(&call.query)?,
    };
    let (archive, engine) = (call.stream(), call.engine.clone());
    jsonl::progress(move |lines| async move {
        let id = engine.images().import(archive, request, Progress::default()).await?;
        lines.put(&json!({"status": id.to_string()}));
        Ok(())
    })
    .await
}
