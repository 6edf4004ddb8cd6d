//! Files of web servers, as builds get them: no registry, no sign-in but what an address carries.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use super::fail;
use super::options::{HttpOptions, without_password};
use super::retry::{Retry, is_transient, retry_after};
use super::transport;
use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::types::ByteStream;

/// Speaks HTTP to any server.
#[derive(Debug, Clone)]
pub(crate) struct PlainClient {
    client: Client,
    options: Arc<HttpOptions>,
}

/// A response whose body is still to come.
pub(crate) struct Fetched {
    pub(crate) headers: HeaderMap,
    pub(crate) body: ByteStream,
}

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) kind: &'static str,
    pub(crate) accept: &'static str,
    pub(crate) body: Bytes,
}

impl PlainClient {
    /// Blocking for a moment: it reads the host's certificates.
    ///
    /// # Errors
    /// `InvalidArgument` for options that cannot work.
    pub(crate) fn new(options: HttpOptions) -> Result<Self> {
        Ok(Self {
            client: transport::plain_client(&options)?,
            options: Arc::new(options),
        })
    }

    /// Asks for a URL, or sends something there. Other attempts are made where the server is busy.
    ///
    /// # Errors
    /// `InvalidArgument` for a URL that is none; `NotFound`, `Denied`, `RateLimited`, `Unavailable`, `Timeout`.
    pub(crate) async fn request(
        &self,
        address: &str,
        headers: &[(HeaderName, HeaderValue)],
        posted: Option<&Posted>,
    ) -> Result<Fetched> {
        let shown = without_password(address);
        let url = Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            return Err(Error::invalid(format!("{shown:?} is no HTTP(S) URL")));
        };
        let mut retry = Retry::new(&self.options);
        loop {
            let error = match self.send(url.clone(), headers, posted).await {
                Ok(response) if response.status().is_success() => return Ok(self.fetched(response, shown)),
                Ok(response) => {
                    let status = response.status();
                    let asked = retry_after(response.headers(), SystemTime::now());
                    let error = of_status(status, &shown);
                    if !is_transient(status) {
                        return Err(error);
                    }
                    retry.again(error, asked).await?;
                    continue;
                }
                Err(error) => error,
            };
            let again = fail::is_reset(&error);
            let error = self.broken(error, &shown);
            if !again {
                return Err(error);
            }
            retry.again(error, None).await?;
        }
    }

    async fn send(
        &self,
        url: Url,
        headers: &[(HeaderName, HeaderValue)],
        posted: Option<&Posted>,
    ) -> reqwest::Result<Response> {
        let mut request = match posted {
            None => self.client.get(url),
            Some(posted) => self
                .client
                .post(url)
                .header(CONTENT_TYPE, posted.kind)
                .header(ACCEPT, posted.accept)
                .body(posted.body.clone()),
        };
        request = request.header(ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await
    }

    fn fetched(&self, response: Response, shown: String) -> Fetched {
        let headers = response.headers().clone();
        let this = self.clone();
        let body = response
            .bytes_stream()
            .map(move |piece| piece.map_err(|error| this.broken(error, &shown)));
        Fetched {
            headers,
            body: body.boxed(),
        }
    }

    fn broken(&self, error: reqwest::Error, shown: &str) -> Error {
        // An address after a redirect may carry a signature that is as good as a password.
        let error = error.without_url();
        if let Some(why) = fail::untrusted(&error) {
            let message = format!("the certificate of {shown} is not trusted: {why}");
            return of(ErrorKind::Denied, message, shown).with_source(error);
        }
        let (kind, message) = match (error.is_timeout(), error.is_connect()) {
            (true, false) => (
                ErrorKind::Timeout,
                format!("the server sent nothing for too long: {shown}"),
            ),
            (true, true) => (ErrorKind::Timeout, format!("cannot connect for {shown}")),
            (false, true) => (ErrorKind::Unavailable, format!("cannot connect for {shown}")),
            (false, false) => (ErrorKind::Unavailable, format!("the connection broke for {shown}")),
        };
        of(kind, message, shown).with_source(error)
    }
}

fn of_status(status: StatusCode, shown: &str) -> Error {
    let message = format!("the server answered {status} for {shown}");
    let kind = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited { retry_at: None },
        _ => ErrorKind::Unavailable,
    };
    of(kind, message, shown)
}

fn of(kind: ErrorKind, message: String, shown: &str) -> Error {
    Error::new(kind, message).with_object(ObjectKind::Option, shown)
}
