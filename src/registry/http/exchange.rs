//! One request of a push: any method, with a body or without, signed in as it must be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::challenge;
use super::endpoint::{is_loopback, same_server};
use super::fail::{self, Subject};
use super::retry::{Retry, is_transient, retry_after};
use super::transport::{MAX_REDIRECTS, Transport};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::{BlobStream, Upload};

/// How long a registry may take to answer once it has all bytes: some hash them only then.
const COMMIT: Duration = Duration::from_secs(300);

/// What to send.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) scope: &'a str,
    pub(super) headers: &'a [(HeaderName, String)],
    pub(super) body: Payload<'a>,
    /// For messages.
    pub(super) subject: &'a Subject,
    /// Whether it is sent again where the registry is busy or the connection breaks.
    pub(super) retry: bool,
}

/// The body of a request.
pub(super) enum Payload<'a> {
    None,
    Whole(&'a Bytes),
    /// So many bytes of a blob from an offset.
    Part(&'a Upload, u64, u64),
}

/// Why there is no good answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether asking again may help.
    pub(super) transient: bool,
    /// How long the registry asks to wait.
    pub(super) asked: Option<Duration>,
}

impl Failed {
    /// An answer that broke off: the same may come whole at the next attempt.
    pub(super) fn broken_off(error: reqwest::Error, subject: &Subject, stall: Duration) -> Self {
        let transient = fail::is_reset(&error);
        Self {
            error: fail::broken(error, subject, stall),
            transient,
            asked: None,
        }
    }

    /// Waits for the next attempt, where there is one to make.
    pub(super) async fn again(self, retry: &mut Retry<'_>) -> Result<(), Error> {
        match self.transient {
            true => retry.again(self.error, self.asked).await,
            false => Err(self.error),
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            transient: false,
            asked: None,
        }
    }
}

impl Transport {
    /// The response's head; its status is a success.
    pub(super) async fn exchange(&self, ask: &Ask<'_>) -> Result<Response, Failed> {
        let mut retry = Retry::new(self.options());
        loop {
            let failed = match self.signed_in(ask).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            if !ask.retry || !failed.transient {
                return Err(failed);
            }
            retry.again(failed.error, failed.asked).await?;
        }
    }

    /// Follows redirects, and answers a refusal once.
    async fn signed_in(&self, ask: &Ask<'_>) -> Result<Response, Failed> {
        let base = self.base().await?.clone();
        let mut url = ask.url.clone();
        let (mut answered, mut redirects) = (false, 0);
        loop {
            let ours = same_server(&url, &base);
            let shown = self.auth.show(&base, ask.scope, ask.subject).await?;
            let header = shown.header.clone().filter(|_| ours);
            let response = self.once(&url, header, ask).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
                redirects += 1;
                url = next_place(&url, &response, redirects, ask.subject)?;
                continue;
            }
            if status == StatusCode::UNAUTHORIZED && !answered && ours {
                answered = true;
                let challenges = challenge::parse_all(response.headers());
                drop(response);
                self.auth
                    .answer(&base, ask.scope, &shown, &challenges, ask.subject)
                    .await?;
                continue;
            }
            let asked = retry_after(response.headers(), SystemTime::now());
            let error = fail::refused(response, ask.subject, !self.options().credentials.is_anonymous()).await;
            let transient = is_transient(status);
            return Err(Failed {
                error,
                transient,
                asked,
            });
        }
    }

    async fn once(
        &self,
        url: &Url,
        header: Option<reqwest::header::HeaderValue>,
        ask: &Ask<'_>,
    ) -> Result<Response, Failed> {
        let mut request = self.uploader.request(ask.method.clone(), url.clone());
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header);
        }
        let pace = Arc::new(Pace::new());
        match ask.body {
            Payload::None if ask.method == Method::HEAD || ask.method == Method::GET => pace.finish(),
            // Registries behind some proxies refuse a POST or PUT that does not say how long its body is.
            Payload::None => {
                request = request.header(CONTENT_LENGTH, "0");
                pace.finish();
            }
            Payload::Whole(bytes) => {
                request = request.body(bytes.clone());
                pace.finish();
            }
            Payload::Part(upload, offset, length) => {
                let stream = upload.source.open(offset).await?;
                let body = paced(stream, offset, length, Arc::clone(&pace), upload);
                request = request.header(CONTENT_LENGTH, length).body(Body::wrap_stream(body));
            }
        }
        let stall = self.options().stall_timeout;
        let patience = if matches!(ask.body, Payload::Part(..)) {
            COMMIT.max(stall)
        } else {
            stall
        };
        let sent = tokio::select! {
            sent = request.send() => sent,
            () = pace.stalled(stall, patience) => {
                let message = format!("the registry took nothing for {} s while sending {}", stall.as_secs_f32(), ask.subject.name);
                let error = ask.subject.error(ErrorKind::Timeout, message);
                return Err(Failed { error, transient: true, asked: None });
            }
        };
        sent.map_err(|error| {
            pace.own_error()
                .map_or_else(|| broken(error, ask.subject, stall), Failed::from)
        })
    }
}

fn broken(error: reqwest::Error, subject: &Subject, stall: Duration) -> Failed {
    let transient = fail::is_reset(&error);
    Failed {
        error: fail::broken(error, subject, stall),
        transient,
        asked: None,
    }
}

/// Where a redirect leads: not from TLS to plain HTTP, nor for ever.
fn next_place(url: &Url, response: &Response, redirects: usize, subject: &Subject) -> Result<Url> {
    if redirects > MAX_REDIRECTS {
        return Err(subject.error(ErrorKind::Unavailable, "too many redirects".to_owned()));
    }
    place(url, response, subject)
}

/// The `Location` of a response.
pub(super) fn place(url: &Url, response: &Response, subject: &Subject) -> Result<Url> {
    let nowhere = || {
        let message = format!("the registry does not say where to go on with {}", subject.name);
        subject.error(ErrorKind::Unavailable, message)
    };
    let text = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = url.join(text.ok_or_else(nowhere)?).map_err(|_| nowhere())?;
    let safe = match next.scheme() {
        "https" => true,
        "http" => url.scheme() == "http" || is_loopback(&next),
        _ => false,
    };
    if safe { Ok(next) } else { Err(nowhere()) }
}

/// When a body last moved on.
#[derive(Debug)]
struct Pace {
    start: Instant,
    moved_ms: AtomicU64,
    finished: AtomicBool,
    error: std::sync::Mutex<Option<Error>>,
}

impl Pace {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            moved_ms: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            error: std::sync::Mutex::default(),
        }
    }

    fn moved(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Ordering::Release);
    }

    fn finish(&self) {
        self.moved();
        self.finished.store(true, Ordering::Release);
    }

    /// An error of the source travels through the client as a broken connection; this is the one that says why.
    fn failed(&self, error: Error) {
        *self.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
    }

    fn own_error(&self) -> Option<Error> {
        self.error
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }

    /// Returns once nothing moved for the limit; once all is sent, for `patience`.
    async fn stalled(&self, limit: Duration, patience: Duration) {
        loop {
            let limit = if self.finished.load(Ordering::Acquire) {
                patience
            } else {
                limit
            };
            let due = Duration::from_millis(self.moved_ms.load(Ordering::Acquire)).saturating_add(limit);
            let left = due.saturating_sub(self.start.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(limit)).await;
        }
    }
}

/// So many bytes of a stream, told of as they go.
fn paced(stream: BlobStream, offset: u64, length: u64, pace: Arc<Pace>, upload: &Upload) -> BlobStream {
    let reached = Arc::clone(&upload.reached);
    let mut left = length;
    let pieces = stream.map(move |piece| {
        let mut piece = piece.inspect_err(|error| {
            pace.failed(Error::new(error.kind().clone(), error.report()));
        })?;
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
        left -= piece.len() as u64;
        pace.moved();
        if left == 0 {
            pace.finish();
        }
        reached(offset + length - left);
        Ok(piece)
    });
    let mut taken = 0;
    let enough = move |piece: &Result<Bytes>| {
        let go_on = taken < length || length == 0 && taken == 0;
        taken += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        std::future::ready(go_on)
    };
    pieces.take_while(enough).boxed()
}
