//! `X-Registry-Auth`: who asks a registry, as JSON in base64.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::call::Call;
use super::error::Failure;
use super::fold;
use crate::images::Credentials;

/// More than any header that holds a password or a token.
const MAX: usize = 64 << 10;

/// What clients say of themselves, in the header and in the body of `POST /auth`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
    /// Where to sign in; the header's is not looked at.
    pub(super) serveraddress: Option<String>,
}

/// Who asks, if the header says so. Docker's clients send an empty object for nobody.
pub(super) fn credentials(call: &Call) -> Result<Option<Credentials>, Failure> {
    match call.header("x-registry-auth").map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => parse(text),
    }
}

fn parse(text: &str) -> Result<Option<Credentials>, Failure> {
    let bad = |why: &str| Failure::bad(format!("invalid X-Registry-Auth header: {why}"));
    if text.len() > MAX {
        return Err(bad("it is too long"));
    }
    let bytes = decode(text).ok_or_else(|| bad("it must be a valid base64url-encoded string"))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let auth = serde_json::from_slice(&bytes).and_then(fold::read);
    let auth: Auth = auth.map_err(|error| bad(&error.to_string()))?;
    from(auth).ok_or_else(|| bad("`auth` is not user:password in base64"))
}

/// Who asks which registry, as `X-Registry-Config` says it: an object of registries in base64.
#[cfg(feature = "build")]
pub(super) fn of_registries(call: &Call) -> Result<Vec<(String, Credentials)>, Failure> {
    let bad = |why: &str| Failure::bad(format!("invalid X-Registry-Config header: {why}"));
    let text = match call.header("x-registry-config").map(str::trim) {
        None | Some("") => return Ok(Vec::new()),
        Some(text) if text.len() > MAX => return Err(bad("it is too long")),
        Some(text) => text,
    };
    let bytes = decode(text).ok_or_else(|| bad("it must be a valid base64url-encoded string"))?;
    let read: Result<Option<std::collections::BTreeMap<String, serde_json::Value>>, _> = serde_json::from_slice(&bytes);
    let mut all = Vec::new();
    for (registry, auth) in read.map_err(|error| bad(&error.to_string()))?.unwrap_or_default() {
        let auth: Auth = fold::read(auth).map_err(|error| bad(&error.to_string()))?;
        let found = from(auth).ok_or_else(|| bad("`auth` is not user:password in base64"))?;
        all.extend(found.map(|credentials| (host_of(&registry).to_owned(), credentials)));
    }
    Ok(all)
}

/// Docker's clients name its own registry by an address of long ago.
#[cfg(feature = "build")]
fn host_of(registry: &str) -> &str {
    let bare = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"));
    let host = bare.unwrap_or(registry).split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// `None`: `auth` cannot be read.
pub(super) fn from(auth: Auth) -> Option<Option<Credentials>> {
    let full = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = full(auth.identitytoken).or_else(|| full(auth.registrytoken)) {
        return Some(Some(Credentials::IdentityToken(token)));
    }
    if let Some(user) = full(auth.username) {
        return Some(Some(Credentials::password(user, auth.password.unwrap_or_default())));
    }
    let Some(pair) = full(auth.auth) else { return Some(None) };
    let pair = String::from_utf8(decode(&pair)?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(Some(Credentials::password(user, password)))
}

/// Both alphabets, with and without padding: clients send all four.
fn decode(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let alphabets = [URL_SAFE, STANDARD];
    alphabets
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose as engine;

    use super::*;

    #[test]
    fn c2_every_way_that_clients_encode() {
        let json = r#"{"username":"a?~ÿ","password":"b>","serveraddress":"x"}"#;
        for text in [
            engine::URL_SAFE.encode(json),
            engine::URL_SAFE_NO_PAD.encode(json),
            engine::STANDARD.encode(json),
            engine::STANDARD_NO_PAD.encode(json),
        ] {
            assert_eq!(
                parse(&text).unwrap(),
                Some(Credentials::password("a?~ÿ", "b>")),
                "{text}"
            );
        }
    }

    #[test]
    fn nobody_a_token_a_pair_and_nonsense() {
        let of = |json: &str| parse(&engine::URL_SAFE.encode(json));
        assert_eq!(of("{}").unwrap(), None);
        assert_eq!(of("").unwrap(), None);
        assert_eq!(
            of(r#"{"identitytoken":"t"}"#).unwrap(),
            Some(Credentials::IdentityToken("t".into()))
        );
        let pair = format!(r#"{{"auth":"{}"}}"#, engine::STANDARD.encode("u:p:q"));
        assert_eq!(of(&pair).unwrap(), Some(Credentials::password("u", "p:q")));
        assert_eq!(of("[1").unwrap_err().status, 400);
        assert_eq!(of(r#"{"auth":"%"}"#).unwrap_err().status, 400);
        assert_eq!(parse("%%%").unwrap_err().status, 400);
    }
}
