//! Signing in: Basic, and tokens from a token service, fetched once for each scope however many requests wait for one.
//!
//! Secrets go to the registry's own server and to the token service it names, never to where a redirect leads, and never
//! over plain HTTP unless the registry itself is spoken to that way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use oci_distribution::token_cache::RegistryToken;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Request, RequestBuilder, Response, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::endpoint::is_loopback;
use super::exchange::Failed;
use super::fail::{self, Subject};
use super::options::HttpOptions;
use super::retry::{Retry, is_transient, retry_after};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Credentials;

/// A token service's answer may not be larger than this, in bytes.
const MAX_TOKEN_BODY: usize = 1 << 20;
/// How long a token holds where its service does not say. Source: the token specification of the distribution project.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// Holds what was granted, by scope.
#[derive(Debug)]
pub(super) struct Authenticator {
    options: Arc<HttpOptions>,
    client: Client,
    scopes: Mutex<HashMap<String, Arc<Mutex<Grant>>>>,
}

/// What was granted for a scope. The generation counts grants, so that of many requests which were refused with the same
/// one, the first fetches a new one and the others find it.
#[derive(Default)]
struct Grant {
    header: Option<HeaderValue>,
    generation: u64,
    expires: Option<Instant>,
    challenge: Option<Challenge>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Grant {{ generation: {}, held: {} }}",
            self.generation,
            self.header.is_some()
        )
    }
}

/// What to send with a request, and which grant it is.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) header: Option<HeaderValue>,
    generation: u64,
}

impl Authenticator {
    /// `client` must not follow redirects.
    pub(super) fn new(options: Arc<HttpOptions>, client: Client) -> Self {
        Self {
            options,
            client,
            scopes: Mutex::default(),
        }
    }

    /// What to show with a request for a scope; a token that has run out is replaced first.
    pub(super) async fn show(&self, registry: &Url, scope: &str, subject: &Subject) -> Result<Shown> {
        let grant = self.grant(scope).await;
        let mut grant = grant.lock().await;
        if grant.expires.is_some_and(|at| Instant::now() >= at)
            && let Some(challenge) = grant.challenge.clone()
        {
            self.renew(&mut grant, registry, scope, challenge, subject).await?;
        }
        Ok(Shown {
            header: grant.header.clone(),
            generation: grant.generation,
        })
    }

    /// Answers a refusal. Returns once there is something newer to show than what was refused.
    ///
    /// # Errors
    /// `Denied` where there is nothing to answer with.
    pub(super) async fn answer(
        &self,
        registry: &Url,
        scope: &str,
        refused: &Shown,
        challenges: &[Challenge],
        subject: &Subject,
    ) -> Result<()> {
        let grant = self.grant(scope).await;
        let mut grant = grant.lock().await;
        if grant.generation != refused.generation {
            return Ok(());
        }
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or_else(|| challenges.first()) else {
            return Err(denied(subject, "the registry does not say how to sign in"));
        };
        self.renew(&mut grant, registry, scope, challenge.clone(), subject)
            .await
    }

    async fn grant(&self, scope: &str) -> Arc<Mutex<Grant>> {
        let mut scopes = self.scopes.lock().await;
        Arc::clone(scopes.entry(scope.to_owned()).or_default())
    }

    fn renew<'a>(
        &'a self,
        grant: &'a mut Grant,
        registry: &'a Url,
        scope: &'a str,
        challenge: Challenge,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (header, life) = match &challenge {
                Challenge::Basic => (self.basic(registry, subject)?, None),
                Challenge::Bearer { realm, service, .. } => {
                    let realm = safe_realm(realm, registry, subject)?;
                    self.token(realm, service.as_deref(), scope, subject).await?
                }
            };
            grant.header = Some(header);
            grant.expires = life.map(|life| Instant::now() + life);
            grant.generation += 1;
            grant.challenge = Some(challenge);
            Ok(())
        })
    }

    fn basic(&self, registry: &Url, subject: &Subject) -> Result<HeaderValue> {
        let Credentials::Password { user, password } = &self.options.credentials else {
            let why = "the registry wants a user name and a password: give them in the request's credentials";
            return Err(denied(subject, why));
        };
        let request = self
            .client
            .get(registry.clone())
            .basic_auth(user, Some(password))
            .build();
        let request: Request =
            request.map_err(|error| denied(subject, "these credentials cannot be sent").with_source(error))?;
        request
            .headers()
            .get(AUTHORIZATION)
            .cloned()
            .ok_or_else(|| Error::internal("no header made of the credentials"))
    }

    async fn token(
        &self,
        realm: Url,
        service: Option<&str>,
        scope: &str,
        subject: &Subject,
    ) -> Result<(HeaderValue, Option<Duration>)> {
        let body = self.ask(&realm, service, scope, subject).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|error| {
            subject
                .error(
                    ErrorKind::Unavailable,
                    "the token service's answer is not a token".into(),
                )
                .with_source(error)
        })?;
        let mut header = HeaderValue::from_str(&answer.token.bearer_token()).map_err(|error| {
            subject
                .error(
                    ErrorKind::Unavailable,
                    "the token service's token cannot be sent".into(),
                )
                .with_source(error)
        })?;
        header.set_sensitive(true);
        Ok((header, Some(life(answer.expires_in))))
    }

    /// The token service's answer as a whole.
    async fn ask(&self, realm: &Url, service: Option<&str>, scope: &str, subject: &Subject) -> Result<Vec<u8>> {
        let mut retry = Retry::new(&self.options);
        loop {
            match self.ask_once(realm, service, scope, subject).await {
                Ok(body) => return Ok(body),
                Err(failed) => failed.again(&mut retry).await?,
            }
        }
    }

    async fn ask_once(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        subject: &Subject,
    ) -> Result<Vec<u8>, Failed> {
        let stall = self.options.stall_timeout;
        let sent = self.token_request(realm, service, scope).send().await;
        let response = sent.map_err(|error| Failed::broken_off(error, subject, stall))?;
        if response.status().is_success() {
            return bounded_body(response, subject, stall).await;
        }
        let transient = is_transient(response.status());
        let asked = retry_after(response.headers(), SystemTime::now());
        let error = fail::refused(response, subject, !self.options.credentials.is_anonymous()).await;
        Err(Failed {
            error: error.context(format!("signing in for {} failed", subject.name)),
            transient,
            asked,
        })
    }

    /// GET with Basic (or nothing) for a token; POST to trade an identity token in.
    fn token_request(&self, realm: &Url, service: Option<&str>, scope: &str) -> RequestBuilder {
        let service = service.map(|service| ("service", service));
        match &self.options.credentials {
            Credentials::IdentityToken(token) => {
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "longshore"),
                    ("refresh_token", token),
                    ("scope", scope),
                ];
                let body = form(fields.into_iter().chain(service));
                self.client
                    .post(realm.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body)
            }
            Credentials::Password { user, password } => {
                let pairs = scopes(scope).chain([("account", user.as_str())]).chain(service);
                let url = with_query(realm, pairs);
                self.client.get(url).basic_auth(user, Some(password))
            }
            Credentials::Anonymous => self.client.get(with_query(realm, scopes(scope).chain(service))),
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(flatten)]
    token: RegistryToken,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// How long to use a token: a tenth less than its life, so that it does not run out on the way. A day at most.
fn life(expires_in: Option<u64>) -> Duration {
    let whole = expires_in.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds.min(86_400)));
    whole.max(Duration::from_secs(1)).mul_f32(0.9)
}

/// A token service must not be less protected than the registry that names it.
fn safe_realm(realm: &str, registry: &Url, subject: &Subject) -> Result<Url> {
    let url = Url::parse(realm)
        .map_err(|error| denied(subject, "the registry names no usable token service").with_source(error))?;
    let plain_is_fine = registry.scheme() == "http" || is_loopback(&url);
    match url.scheme() {
        "https" => Ok(url),
        "http" if plain_is_fine => Ok(url),
        _ => Err(denied(subject, "the registry names a token service without TLS")),
    }
}

/// Several scopes, which a form lists with spaces in between, are repeated in a query. Source: the token specification of
/// the distribution project, "Requesting a Token".
fn scopes(scope: &str) -> impl Iterator<Item = (&str, &str)> {
    scope.split(' ').filter(|one| !one.is_empty()).map(|one| ("scope", one))
}

fn with_query<'a>(url: &Url, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

/// A form's body: what a query would be.
fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let Ok(blank) = Url::parse("form:") else {
        return String::new();
    };
    with_query(&blank, pairs).query().unwrap_or_default().to_owned()
}

fn denied(subject: &Subject, why: &str) -> Error {
    subject.error(ErrorKind::Denied, format!("access to {} denied: {why}", subject.name))
}

async fn bounded_body(response: Response, subject: &Subject, stall: Duration) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        body.extend_from_slice(&chunk.map_err(|error| Failed::broken_off(error, subject, stall))?);
        if body.len() > MAX_TOKEN_BODY {
            let message = "the token service's answer is far too long".into();
            return Err(subject.error(ErrorKind::Unavailable, message).into());
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ObjectKind;

    fn subject() -> Subject {
        Subject {
            kind: ObjectKind::Image,
            name: "example.com/app:1".into(),
        }
    }

    #[test]
    fn a_token_service_is_at_least_as_safe_as_its_registry() {
        let tls = Url::parse("https://example.com/v2/").unwrap();
        let plain = Url::parse("http://127.0.0.1:5000/v2/").unwrap();
        assert!(safe_realm("https://auth.example.com/token", &tls, &subject()).is_ok());
        assert!(safe_realm("http://auth.example.com/token", &plain, &subject()).is_ok());
        for realm in ["http://auth.example.com/token", "file:///etc/passwd", "token", ""] {
            assert_eq!(
                safe_realm(realm, &tls, &subject()).unwrap_err().kind(),
                &ErrorKind::Denied,
                "{realm:?}"
            );
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            form([("scope", "repository:a/b:pull"), ("t", "a b&c=d+")].into_iter()),
            "scope=repository%3Aa%2Fb%3Apull&t=a+b%26c%3Dd%2B"
        );
    }

    #[test]
    fn tokens_end_before_their_time() {
        assert_eq!(life(Some(100)), Duration::from_secs(90));
        assert!(life(Some(0)) < Duration::from_secs(1));
        assert!(life(Some(u64::MAX)) <= Duration::from_secs(86_400));
        assert!(life(None) < DEFAULT_LIFE);
    }
}
