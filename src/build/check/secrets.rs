//! Names that tell of a secret.

const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether one of the words of a name, between its underscores, is one for secrets.
pub(super) fn is_secret(name: &str) -> bool {
    let has = |words: &[&str]| {
        let mut parts = name.split('_');
        parts.any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_names_tell() {
        for name in ["PASSWORD", "DB_PASSWORD", "token_x", "a_ApiKey_b", "AUTH"] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "PASSWORDS",
            "MONKEY",
            "PUBLIC_KEY",
            "PASSWORD_FILE",
            "TOKEN_VERSION",
            "",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
