//! Blobs over HTTP: a stream of exactly as many bytes as the manifest announces, resumed where the connection breaks.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::HttpRegistry;
use super::endpoint;
use super::fail::{self, Subject};
use super::transport::{Call, Transport};
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::BlobStream;
use crate::types::{Descriptor, Digest};

pub(super) async fn open(
    registry: &HttpRegistry,
    repository: &str,
    descriptor: &Descriptor,
    offset: u64,
) -> Result<BlobStream> {
    if offset > descriptor.size {
        return Err(Error::invalid(format!(
            "offset {offset} is behind the end of {}",
            descriptor.digest
        )));
    }
    if offset == descriptor.size && offset > 0 {
        return Ok(stream::empty().boxed());
    }
    let mut reader = Reader {
        transport: Arc::clone(&registry.transport),
        repository: repository.to_owned(),
        digest: descriptor.digest,
        size: descriptor.size,
        position: offset,
        resumes_left: registry.transport.options().resumes,
        ranges: true,
        subject: Subject {
            kind: ObjectKind::Blob,
            name: format!("{}/{repository}@{}", registry.host, descriptor.digest),
        },
        body: None,
    };
    reader.connect().await?;
    Ok(stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|chunk| (chunk, reader)))
    })
    .boxed())
}

type Body = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

struct Reader {
    transport: Arc<Transport>,
    repository: String,
    digest: Digest,
    size: u64,
    position: u64,
    resumes_left: u32,
    /// Whether the registry is asked for parts: not after it gave a part that nobody asked for, or none.
    ranges: bool,
    subject: Subject,
    body: Option<Body>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let chunk = match &mut self.body {
                Some(body) => body.next().await,
                None => return Ok(None),
            };
            match chunk {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => return self.take(chunk).map(Some),
                // All bytes are here: how the connection ends is of no interest.
                _ if self.position == self.size => return Ok(None),
                None => self.resume(self.cut_short()).await?,
                Some(Err(error)) => {
                    let error = fail::broken(error, &self.subject, self.transport.options().stall_timeout);
                    self.resume(error).await?;
                }
            }
        }
    }

    fn take(&mut self, chunk: Bytes) -> Result<Bytes> {
        self.position += chunk.len() as u64;
        if self.position > self.size {
            self.body = None;
            return Err(self.wrong_size("more"));
        }
        Ok(chunk)
    }

    async fn resume(&mut self, error: Error) -> Result<()> {
        self.body = None;
        if self.resumes_left == 0 {
            return Err(error);
        }
        self.resumes_left -= 1;
        tracing::debug!(blob = %self.digest, position = self.position, error = %error, "resuming a blob");
        self.connect().await
    }

    async fn connect(&mut self) -> Result<()> {
        let (repository, digest) = (&self.repository, self.digest);
        let url = |base: &reqwest::Url| endpoint::blob(base, repository, &digest);
        let scope = super::pull_scope(repository);
        let call = Call {
            url: &url,
            scope: &scope,
            accept: None,
            offset: if self.ranges { self.position } else { 0 },
            subject: &self.subject,
        };
        let mut response = self.transport.get(&call).await?;
        if !self.is_part(&response) {
            tracing::debug!(blob = %self.digest, status = %response.status(), "no use asking for parts here");
            self.ranges = false;
            let call = Call { offset: 0, ..call };
            response = self.transport.get(&call).await?;
        }
        let skip = self.check(&response)?;
        self.body = Some(skipping(response, skip));
        Ok(())
    }

    /// Whether a response can be what was asked for: the whole, or the part from where we are.
    fn is_part(&self, response: &Response) -> bool {
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => false,
            StatusCode::PARTIAL_CONTENT => range_of(response).is_some_and(|(first, _)| first == self.position),
            _ => true,
        }
    }

    /// How many bytes of the body are known already.
    fn check(&self, response: &Response) -> Result<u64> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return match response.content_length() {
                Some(length) if length != self.size => {
                    Err(self.wrong_size(if length > self.size { "more" } else { "fewer" }))
                }
                _ => Ok(self.position),
            };
        }
        match range_of(response) {
            Some((first, total)) if first == self.position && total.is_none_or(|total| total == self.size) => Ok(0),
            Some((first, _)) if first == self.position => Err(self.wrong_size("a different number of")),
            _ => Err(self.subject.error(
                ErrorKind::Unavailable,
                format!("the registry sent another part of {}", self.subject.name),
            )),
        }
    }

    fn cut_short(&self) -> Error {
        let (position, size) = (self.position, self.size);
        self.subject.error(
            ErrorKind::Unavailable,
            format!("{} ended after {position} of {size} bytes", self.subject.name),
        )
    }

    fn wrong_size(&self, how: &str) -> Error {
        let message = format!(
            "the registry has {how} bytes of {} than the {} announced",
            self.subject.name, self.size
        );
        self.subject.error(ErrorKind::DigestMismatch, message)
    }
}

/// A body without its first bytes, for servers that do not know ranges.
fn skipping(response: Response, mut skip: u64) -> Body {
    let body = response.bytes_stream().map(move |chunk| {
        let mut chunk = chunk?;
        let cut = skip.min(chunk.len() as u64);
        skip -= cut;
        Ok(chunk.split_off(cut as usize))
    });
    body.boxed()
}

fn range_of(response: &Response) -> Option<(u64, Option<u64>)> {
    let value = response.headers().get(CONTENT_RANGE)?;
    content_range(value.to_str().ok()?)
}

/// `bytes 100-199/200`: the first byte, and the whole if it is known.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.parse().ok()?;
    Some((first, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn reads_content_ranges() {
        assert_eq!(content_range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(content_range("bytes 0-1/*"), Some((0, None)));
        for bad in ["", "bytes", "bytes */200", "bits 0-1/2", "bytes x-1/2", "bytes 1/2"] {
            assert_eq!(content_range(bad), None, "{bad:?}");
        }
    }
}
