//! One request, whatever it takes: the right scheme, a sign-in, other attempts.

use std::sync::Arc;
use std::time::SystemTime;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, RANGE};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, ClientBuilder, NoProxy, Proxy, Response, StatusCode, Url};
use tokio::sync::OnceCell;

use super::auth::{Authenticator, Shown};
use super::challenge;
use super::endpoint::{self, is_loopback, same_server};
use super::fail::{self, Subject};
use super::options::{HttpOptions, without_password};
use super::retry::{Retry, is_transient, retry_after};
use super::tls;
use crate::error::{Error, ErrorKind, ObjectKind, Result};

pub(super) const MAX_REDIRECTS: usize = 8;
/// An upload watches its own progress: the client would count the whole time until the response.
const UNHURRIED: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A GET of something of a repository.
pub(super) struct Call<'a> {
    /// Below the base address.
    pub(super) url: &'a (dyn Fn(&Url) -> Result<Url> + Send + Sync),
    /// The token scope it needs.
    pub(super) scope: &'a str,
    /// Media types to ask for.
    pub(super) accept: Option<&'a str>,
    /// Where in the body to begin, in bytes.
    pub(super) offset: u64,
    /// For messages.
    pub(super) subject: &'a Subject,
}

/// The connections to one registry.
#[derive(Debug)]
pub(super) struct Transport {
    options: Arc<HttpOptions>,
    client: Client,
    /// For requests with a body: it follows no redirects, and has no limit on the time before the response.
    pub(super) uploader: Client,
    pub(super) auth: Authenticator,
    candidates: Vec<Url>,
    base: OnceCell<Url>,
    host: Subject,
}

impl Transport {
    /// Blocking for a moment: it reads the host's certificates.
    pub(super) fn new(host: &str, options: HttpOptions) -> Result<Self> {
        let candidates = endpoint::candidates(host, options.plain_http)?;
        let tls = tls::client_config(&options)?;
        let client = build(client_builder(&options, tls.clone())?.redirect(Policy::custom(redirect)))?;
        let quiet = build(client_builder(&options, tls.clone())?.redirect(Policy::none()))?;
        let unhurried = client_builder(&options, tls)?
            .redirect(Policy::none())
            .read_timeout(UNHURRIED);
        let uploader = build(unhurried)?;
        let options = Arc::new(options);
        let auth = Authenticator::new(Arc::clone(&options), quiet);
        let host = Subject {
            kind: ObjectKind::Registry,
            name: host.to_owned(),
        };
        Ok(Self {
            options,
            client,
            uploader,
            auth,
            candidates,
            base: OnceCell::new(),
            host,
        })
    }

    pub(super) fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// The response's head; its body is still to come. That there is nothing from the offset on (416) is an answer, too.
    pub(super) async fn get(&self, call: &Call<'_>) -> Result<Response> {
        let base = self.base().await?;
        let url = (call.url)(base)?;
        let mut retry = Retry::new(&self.options);
        let mut answered = false;
        loop {
            let shown = self.auth.show(base, call.scope, call.subject).await?;
            let response = match self.send(&url, call, &shown).await {
                Ok(response) => response,
                Err(error) => {
                    let again = fail::is_reset(&error);
                    let error = fail::broken(error, call.subject, self.options.stall_timeout);
                    if !again {
                        return Err(error);
                    }
                    retry.again(error, None).await?;
                    continue;
                }
            };
            let status = response.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE && call.offset > 0 {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !answered && same_server(response.url(), base) {
                answered = true;
                let challenges = challenge::parse_all(response.headers());
                drop(response);
                self.auth
                    .answer(base, call.scope, &shown, &challenges, call.subject)
                    .await?;
                continue;
            }
            let asked = retry_after(response.headers(), SystemTime::now());
            let error = fail::refused(response, call.subject, !self.options.credentials.is_anonymous()).await;
            if !is_transient(status) {
                return Err(error);
            }
            retry.again(error, asked).await?;
        }
    }

    async fn send(&self, url: &Url, call: &Call<'_>, shown: &Shown) -> reqwest::Result<Response> {
        let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if call.offset > 0 {
            request = request.header(RANGE, format!("bytes={}-", call.offset));
        }
        if let Some(header) = &shown.header {
            request = request.header(AUTHORIZATION, header.clone());
        }
        request.send().await
    }

    /// The base address, found out once: where plain HTTP is allowed beside TLS, TLS is tried first.
    pub(super) async fn base(&self) -> Result<&Url> {
        self.base.get_or_try_init(|| self.find_base()).await
    }

    async fn find_base(&self) -> Result<Url> {
        let Some((last, first)) = self.candidates.split_last() else {
            return Err(Error::internal("a registry without an address"));
        };
        for url in first {
            match self.client.get(url.clone()).send().await {
                Ok(_) => return Ok(url.clone()),
                // It speaks TLS, so it must not be spoken to without, however untrusted it is.
                Err(error) if fail::untrusted(&error).is_some() => {
                    return Err(fail::broken(error, &self.host, self.options.stall_timeout));
                }
                // It spoke TLS; what went wrong then is for the request itself to tell.
                Err(error) if !error.is_connect() => return Ok(url.clone()),
                Err(error) => {
                    tracing::debug!(%url, error = %error.without_url(), "no TLS here, trying plain HTTP")
                }
            }
        }
        Ok(last.clone())
    }
}

/// A client for servers that are no registries. Blocking for a moment: it reads the host's certificates.
#[cfg(feature = "build")]
pub(super) fn plain_client(options: &HttpOptions) -> Result<Client> {
    let tls = tls::client_config(options)?;
    build(client_builder(options, tls)?.redirect(Policy::custom(redirect)))
}

fn client_builder(options: &HttpOptions, tls: rustls::ClientConfig) -> Result<ClientBuilder> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(&options.user_agent)
        .referer(false)
        .no_proxy()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.stall_timeout);
    let Some(proxy) = &options.proxy else {
        return Ok(builder);
    };
    let proxy = Proxy::all(proxy)
        .map_err(|_| Error::invalid(format!("invalid proxy address: {:?}", without_password(proxy))))?;
    let except = NoProxy::from_string(&options.no_proxy.join(","));
    Ok(builder.proxy(proxy.no_proxy(except)))
}

fn build(builder: ClientBuilder) -> Result<Client> {
    builder
        .build()
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, "these options make no HTTP client").with_source(error))
}

/// Follows redirects to blob stores, but not from TLS to plain HTTP (which leaks and lets others write), nor for ever.
/// The client drops the sign-in where the server changes.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    let downgrade =
        attempt.url().scheme() == "http" && attempt.previous().last().is_some_and(|last| last.scheme() == "https");
    if downgrade && !is_loopback(attempt.url()) {
        return attempt.error("a redirect from TLS to plain HTTP");
    }
    attempt.follow()
}
