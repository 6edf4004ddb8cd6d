//! `images/{name}/push`.

use serde_json::json;

use super::super::auth;
use super::super::call::Call;
use super::super::error::Failure;
use super::super::jsonl;
use super::super::router::Answer;
use super::archive;
use super::progress::{self, PUSH};
use super::tag::named;
use crate::error::ObjectKind;
use crate::images::PushRequest;

pub(super) async fn push(call: Call) -> Answer {
    let name = named(call.name(), call.query.get("tag"))?;
    let mut request = PushRequest::new(name.clone());
    request.platform = archive::platform(&call.query)?;
    request.credentials = auth::credentials(&call)?;
    let engine = call.engine.clone();
    jsonl::progress(move |lines| async move {
        let text = format!("The push refers to repository [{}/{}]", name.host(), name.repository());
        lines.put(&json!({"status": text}));
        let progress = progress::into_lines(lines.clone(), PUSH, None);
        let pushed = engine.images().push(request, progress).await.map_err(|error| {
            let missing = error.is_not_found() && matches!(error.object(), Some((ObjectKind::Image, _)));
            let failure = Failure::from(error);
            match missing {
                true => failure.say(format!("tag does not exist: {}", name.familiar())),
                false => failure,
            }
        })?;
        let tag = name.tag().unwrap_or_default();
        let (digest, size) = (pushed.manifest.digest.to_string(), pushed.manifest.size);
        lines.put(&json!({"status": format!("{tag}: digest: {digest} size: {size}")}));
        lines.put(&json!({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": size}}));
        Ok(())
    })
    .await
}
