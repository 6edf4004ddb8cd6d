//! `images/{name}/tag`.

use hyper::StatusCode;

use super::super::call::Call;
use super::super::error::Failure;
use super::super::reply;
use super::super::router::Answer;
use crate::types::Reference;

pub(super) async fn tag(call: Call) -> Answer {
    let Some(repository) = call.query.get("repo") else {
        return Err(Failure::bad("invalid reference format: repo is missing"));
    };
    let name = named(repository, call.query.get("tag"))?;
    call.engine.images().tag(call.name(), &name).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

/// A reference from a repository and a tag or digest beside it.
pub(super) fn named(repository: &str, tag: Option<&str>) -> Result<Reference, Failure> {
    let text = match tag {
        None => repository.to_owned(),
        Some(digest) if digest.contains(':') => format!("{repository}@{digest}"),
        Some(tag) => format!("{repository}:{tag}"),
    };
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_with_a_tag_or_a_digest_beside_it() {
        let of = |repository, tag| named(repository, tag).map(|name| name.familiar());
        assert_eq!(of("a", None).unwrap(), "a:latest");
        assert_eq!(of("host:5000/a/b", Some("1")).unwrap(), "host:5000/a/b:1");
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(of("a", Some(&digest)).unwrap(), format!("a@{digest}"));
        assert_eq!(of("a b", None).unwrap_err().status, 400);
    }
}
