//! Docker's `config.json`, as far as it tells who signs in where: `auths`, `credsStore`, `credHelpers`.
//!
//! The embedder hands in the file's bytes, or those of the variable `DOCKER_AUTH_CONFIG`: nothing is looked for. Credential
//! helpers are programs of the host (`docker-credential-NAME`), which are run only where the file names them and the
//! embedder allows it. Source: docker-login(1); the protocol of docker-credential-helpers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, ObjectKind, Result};
use crate::registry::{Credentials, CredentialsSource};

/// A helper's answer may not be larger, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// Docker's name for Docker Hub in this file.
const HUB: &str = "index.docker.io";
/// A helper's word for an identity token in the place of a user.
const TOKEN_USER: &str = "<token>";

/// Who signs in where. Printed without secrets.
#[derive(Clone, Default)]
pub struct AuthFile {
    auths: BTreeMap<String, Credentials>,
    store: Option<String>,
    helpers: BTreeMap<String, String>,
    programs: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    auths: Option<BTreeMap<String, RawAuth>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawAuth {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl AuthFile {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// `InvalidArgument` where it makes no sense. The message has nothing of its text.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        // The parser's own words may quote what it read.
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            bad(format!(
                "it is not JSON of the right shape (line {line}, column {column})"
            ))
        })?;
        let mut auths = BTreeMap::new();
        for (key, auth) in raw.auths.unwrap_or_default() {
            let host = host_of(&key);
            if let Some(credentials) = credentials_of(auth).map_err(|why| bad(format!("{why} for {host:?}")))? {
                auths.insert(host, credentials);
            }
        }
        let helpers = raw.cred_helpers.unwrap_or_default();
        let helpers = helpers
            .into_iter()
            .map(|(key, helper)| (host_of(&key), helper))
            .collect();
        Ok(Self {
            auths,
            store: raw.creds_store.filter(|store| !store.is_empty()),
            helpers,
            programs: None,
        })
    }

    /// Allows credential helpers, which are looked for in this directory and nowhere else.
    #[must_use]
    pub fn helpers_in(mut self, dir: impl Into<PathBuf>) -> Self {
        self.programs = Some(dir.into());
        self
    }

    /// What the file itself says of a host.
    fn written(&self, host: &str) -> Credentials {
        self.auths.get(&host_of(host)).cloned().unwrap_or_default()
    }

    fn helper(&self, host: &str) -> Option<&str> {
        self.helpers
            .get(&host_of(host))
            .or(self.store.as_ref())
            .map(String::as_str)
    }
}

#[async_trait]
impl CredentialsSource for AuthFile {
    async fn credentials(&self, host: &str) -> Result<Credentials> {
        let Some(helper) = self.helper(host) else {
            return Ok(self.written(host));
        };
        let Some(dir) = &self.programs else {
            return Err(Error::unsupported(
                format!("the credential helper {helper:?} for {host}"),
                "permission to run helpers (AuthFile::helpers_in)",
            ));
        };
        let program = program(dir, helper)?;
        let asked = if host_of(host) == HUB {
            "https://index.docker.io/v1/".to_owned()
        } else {
            host.to_owned()
        };
        let answer = tokio::task::spawn_blocking(move || ask(&program, &asked)).await;
        let answer =
            answer.map_err(|error| Error::internal("a credential helper ended early").with_source(error))??;
        // A store that does not know a host leaves it to the file.
        Ok(answer.unwrap_or_else(|| self.written(host)))
    }
}

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthFile")
            .field("hosts", &self.auths.keys().collect::<Vec<_>>())
            .field("store", &self.store)
            .field("helpers", &self.helpers)
            .finish_non_exhaustive()
    }
}

/// The host of a key, which may be an address. Docker Hub has several names.
fn host_of(key: &str) -> String {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or(bare);
    match host {
        "docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

fn credentials_of(raw: RawAuth) -> Result<Option<Credentials>, &'static str> {
    if let Some(token) = raw.identity_token.filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::IdentityToken(token)));
    }
    if let Some(auth) = raw.auth.filter(|auth| !auth.is_empty()) {
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| "its auth is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "its auth is no text")?;
        let (user, password) = text.split_once(':').ok_or("its auth has no colon")?;
        // Docker once padded with NULs.
        return Ok(Some(Credentials::password(user, password.trim_end_matches('\0'))));
    }
    Ok(match (raw.username, raw.password) {
        (Some(user), Some(password)) => Some(Credentials::password(user, password)),
        _ => None,
    })
}

/// A helper's program; its name must not lead elsewhere.
fn program(dir: &std::path::Path, helper: &str) -> Result<PathBuf> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if helper.is_empty() || !helper.bytes().all(word) {
        return Err(bad(format!("{helper:?} is no name of a credential helper")));
    }
    Ok(dir.join(format!("docker-credential-{helper}")))
}

/// Asks a helper; none where it knows nothing of the host. Blocking.
fn ask(program: &std::path::Path, host: &str) -> Result<Option<Credentials>> {
    let shown = program.display();
    let failed = |error: std::io::Error| Error::os(format!("run {shown}"), error);
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read at all may still answer.
        let _ = stdin.write_all(host.as_bytes());
    }
    let mut bytes = Vec::new();
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(MAX_ANSWER).read_to_end(&mut bytes),
        None => Ok(0),
    };
    let status = child.wait().map_err(failed)?;
    read.map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&bytes);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let message = format!("the credential helper {shown} failed for {host}: {status}");
        return Err(Error::new(ErrorKind::Denied, message).with_object(ObjectKind::Registry, host.to_owned()));
    }
    // No source: the parser's words may quote the secret.
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| {
        Error::new(
            ErrorKind::Denied,
            format!("the credential helper {shown} answered nonsense"),
        )
    })?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(answer.secret),
        user => Credentials::password(user, answer.secret),
    }))
}

fn bad(why: String) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the file of credentials is unusable: {why}"),
    )
    .with_object(ObjectKind::Option, "auth file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn asked(file: &AuthFile, host: &str) -> Credentials {
        file.credentials(host).await.unwrap()
    }

    #[tokio::test]
    async fn c2_every_shape_of_an_entry_is_read() {
        let auth = STANDARD.encode("sailor:kn:ots");
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"host:5000":{{"identitytoken":"tok","auth":"x"}},
                "plain":{{"username":"u","password":"p"}},"empty":{{}}}},"HttpHeaders":{{}}}}"#
        );
        let file = AuthFile::parse(text.as_bytes()).unwrap();
        assert_eq!(
            asked(&file, "docker.io").await,
            Credentials::password("sailor", "kn:ots")
        );
        assert_eq!(
            asked(&file, "host:5000").await,
            Credentials::IdentityToken("tok".into())
        );
        assert_eq!(asked(&file, "plain").await, Credentials::password("u", "p"));
        for unknown in ["empty", "other", "host"] {
            assert_eq!(asked(&file, unknown).await, Credentials::Anonymous, "{unknown}");
        }
        let shown = format!("{file:?}");
        assert!(
            !shown.contains("kn:ots") && !shown.contains("tok\"") && shown.contains("host:5000"),
            "{shown}"
        );
    }

    #[test]
    fn a_file_that_makes_no_sense_is_not_quoted() {
        for text in [
            "",
            r#"{"auths":{"h":{"auth":"secret!"}}}"#,
            r#"{"auths":{"h":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"h":"secret"}}"#,
        ] {
            let error = AuthFile::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), &ErrorKind::InvalidArgument);
            assert!(!error.report().contains("secret"), "{}", error.report());
        }
    }

    #[tokio::test]
    async fn l5_a_helper_is_asked_with_get_and_the_host_and_its_secret_is_shown_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-noted");
        let noted = dir.path().join("noted");
        let script = format!(
            "#!/bin/sh\n{{ echo \"$@\"; cat; }} >{}\necho '{{\"Username\":\"u\",\"Secret\":\"hunter2\"}}'\n",
            noted.display()
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for text in [
            r#"{"credHelpers":{"host:5000":"noted"},"credsStore":"other"}"#,
            r#"{"credsStore":"noted"}"#,
        ] {
            let file = AuthFile::parse(text.as_bytes()).unwrap().helpers_in(dir.path());
            let credentials = asked(&file, "host:5000").await;
            assert_eq!(credentials, Credentials::password("u", "hunter2"));
            assert_eq!(std::fs::read_to_string(&noted).unwrap(), "get\nhost:5000");
            let options = crate::registry::http::HttpOptions::new().credentials(credentials.clone());
            let shown = format!("{credentials:?} {file:?} {options:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[tokio::test]
    async fn c2_helpers_are_asked_where_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, script: &str| {
            let path = dir.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        write(
            "good",
            r#"read host; echo "{\"ServerURL\":\"$host\",\"Username\":\"of-$host\",\"Secret\":\"s\"}""#,
        );
        write("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        write("blank", "echo credentials not found in native keychain; exit 1");
        write("broken", "exit 3");
        write("nonsense", "echo secret");
        let text = r#"{"auths":{"known":{"username":"u","password":"p"}},"credsStore":"good",
            "credHelpers":{"t":"token","known":"blank","b":"broken","n":"nonsense","x":"../evil"}}"#;
        let file = AuthFile::parse(text.as_bytes()).unwrap();
        assert!(file.credentials("any").await.unwrap_err().is_unsupported());
        let file = file.helpers_in(dir.path());
        assert_eq!(asked(&file, "any").await, Credentials::password("of-any", "s"));
        assert_eq!(
            asked(&file, "docker.io").await,
            Credentials::password("of-https://index.docker.io/v1/", "s")
        );
        assert_eq!(asked(&file, "t").await, Credentials::IdentityToken("t".into()));
        assert_eq!(asked(&file, "known").await, Credentials::password("u", "p"));
        for bad in ["b", "n", "x"] {
            let error = file.credentials(bad).await.unwrap_err();
            assert!(!error.report().contains("secret"), "{}", error.report());
        }
    }
}
