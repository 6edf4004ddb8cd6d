//! Manifests over HTTP.

use futures_util::StreamExt;
use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    Versioned,
};
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;

use super::HttpRegistry;
use super::endpoint;
use super::exchange::Failed;
use super::fail::Subject;
use super::retry::Retry;
use super::transport::Call;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::{MAX_MANIFEST, ManifestBlob, ManifestKey};
use crate::types::{Descriptor, Digest, MediaType};

pub(super) async fn fetch(registry: &HttpRegistry, repository: &str, key: &ManifestKey) -> Result<ManifestBlob> {
    let subject = Subject {
        kind: ObjectKind::Image,
        name: full_name(&registry.host, repository, key),
    };
    let accept = accepted();
    let url = |base: &reqwest::Url| endpoint::manifest(base, repository, key);
    let scope = super::pull_scope(repository);
    let call = Call {
        url: &url,
        scope: &scope,
        accept: Some(&accept),
        offset: 0,
        subject: &subject,
    };
    let mut retry = Retry::new(registry.transport.options());
    loop {
        let response = registry.transport.get(&call).await?;
        let stated = media_type(&response);
        match read(registry, response, &subject).await {
            Ok(bytes) => return check(stated, bytes.into(), key, &subject),
            Err(failed) => failed.again(&mut retry).await?,
        }
    }
}

/// Every kind of manifest this crate knows how to read. Without the list kinds a registry would choose a platform for us.
fn accepted() -> String {
    [
        OCI_IMAGE_INDEX_MEDIA_TYPE,
        IMAGE_MANIFEST_LIST_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
        IMAGE_MANIFEST_MEDIA_TYPE,
    ]
    .join(", ")
}

fn full_name(host: &str, repository: &str, key: &ManifestKey) -> String {
    match key {
        ManifestKey::Tag(tag) => format!("{host}/{repository}:{tag}"),
        ManifestKey::Digest(digest) => format!("{host}/{repository}@{digest}"),
    }
}

fn media_type(response: &Response) -> Option<String> {
    let text = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    let bare = text.split(';').next()?.trim();
    // What a plain web server says of any file says nothing.
    (!matches!(
        bare,
        "" | "application/json" | "application/octet-stream" | "text/plain"
    ))
    .then(|| bare.to_owned())
}

/// Stops reading at the limit, whatever the registry announces.
async fn read(registry: &HttpRegistry, response: Response, subject: &Subject) -> Result<Vec<u8>, Failed> {
    let too_long = || {
        let message = format!("the manifest of {} is larger than {MAX_MANIFEST} bytes", subject.name);
        subject.error(ErrorKind::InvalidArgument, message)
    };
    let announced = response.content_length();
    if announced.is_some_and(|length| length > MAX_MANIFEST) {
        return Err(too_long().into());
    }
    let stall = registry.transport.options().stall_timeout;
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0) as usize);
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Failed::broken_off(error, subject, stall))?;
        if (bytes.len() + chunk.len()) as u64 > MAX_MANIFEST {
            return Err(too_long().into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The digest is computed here. What the registry says it is (`Docker-Content-Digest`) is not even read.
fn check(stated: Option<String>, bytes: bytes::Bytes, key: &ManifestKey, subject: &Subject) -> Result<ManifestBlob> {
    let digest = Digest::of(&bytes);
    if let ManifestKey::Digest(wanted) = key
        && *wanted != digest
    {
        let message = format!("the registry sent {digest} for {}", subject.name);
        return Err(
            Error::new(ErrorKind::DigestMismatch, message).with_object(ObjectKind::Manifest, wanted.to_string())
        );
    }
    let media_type = stated
        .or_else(|| inner_media_type(&bytes))
        .unwrap_or_else(|| OCI_IMAGE_MEDIA_TYPE.to_owned());
    let descriptor = Descriptor {
        media_type: MediaType(media_type),
        digest,
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    };
    Ok(ManifestBlob { descriptor, bytes })
}

fn inner_media_type(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<Versioned>(bytes).ok()?.media_type
}
