//! `WWW-Authenticate`, parsed. Pure. Source: RFC 9110, section 11.6.1; the token scheme of the distribution project.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// More than any registry sends; the rest is ignored.
const MAX_CHALLENGES: usize = 16;

/// What a registry wants to see. The scope it suggests is left out: this crate asks for what it needs and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user name and a password with every request.
    Basic,
    /// A token from a token service.
    Bearer {
        /// The token service's address.
        realm: String,
        /// What to tell it the token is for.
        service: Option<String>,
    },
}

/// All challenges of a response that this crate can answer, in the registry's order.
pub(super) fn parse_all(headers: &HeaderMap) -> Vec<Challenge> {
    let texts = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    texts.flat_map(parse).take(MAX_CHALLENGES).collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((scheme, params, after)) = next_challenge(rest) {
        out.extend(challenge(scheme, &params));
        rest = after;
    }
    out
}

fn challenge(scheme: &str, params: &[(String, String)]) -> Option<Challenge> {
    let get = |key: &str| {
        params
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.clone())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Some(Challenge::Bearer {
        realm: get("realm")?,
        service: get("service"),
    })
}

type Params = Vec<(String, String)>;

/// One scheme with its parameters, and what follows.
fn next_challenge(text: &str) -> Option<(&str, Params, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (scheme, mut rest) = token(text)?;
    let mut params = Vec::new();
    while let Some((name, value, after)) = next_param(rest) {
        params.push((name.to_owned(), value));
        rest = after;
    }
    Some((scheme, params, rest))
}

/// `name=value` or `name="value"`. A bare word is the next scheme and stops the list.
fn next_param(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (name, rest) = token(text)?;
    let rest = rest
        .trim_start_matches([' ', '\t'])
        .strip_prefix('=')?
        .trim_start_matches([' ', '\t']);
    match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted).map(|(value, after)| (name, value, after)),
        None => token(rest).map(|(value, after)| (name, value.to_owned(), after)),
    }
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// A run of characters other than separators. Wider than the standard's `token`: unquoted addresses are seen in the wild.
fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.find([' ', '\t', ',', '=', '"']).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_owned),
        }
    }

    #[test]
    fn what_registries_send() {
        let full =
            r#"Bearer realm="https://auth.example.com/token",service="example.com",scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse(full),
            [bearer("https://auth.example.com/token", Some("example.com"))]
        );
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        assert_eq!(parse(r#"bearer  realm = "x" , Service=y"#), [bearer("x", Some("y"))]);
        assert_eq!(
            parse(r#"Negotiate, Basic realm="a, b", Bearer realm="q\"q""#),
            [Challenge::Basic, bearer("q\"q", None)]
        );
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in [
            "",
            ",,,",
            "Bearer",
            "Bearer realm",
            r#"Bearer realm="open"#,
            "=",
            "\"",
            "Digest realm=x",
            r#"Bearer service="s""#,
        ] {
            assert_eq!(parse(text), [], "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "\\PC{0,200}") {
            parse(&text);
        }
    }
}
