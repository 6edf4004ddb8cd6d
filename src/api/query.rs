//! The query of a request, read as Docker's server reads it: the first of repeated options counts, unknown ones are
//! ignored, and whatever is not a word for no is true.

use std::str::FromStr;

use super::error::Failure;

/// The options of a query, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`. What is not valid UTF-8 is replaced, as nothing that we read may hold it.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of an option; an empty one counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let first = self.0.iter().find(|(known, _)| known == name);
        first.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of an option.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether an option is set. Source: moby, `httputils.BoolValue`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// Whether an option is set, and what holds where it is left out.
    pub(super) fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.all(name).next() {
            None => default,
            Some(value) => !matches!(
                value.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            ),
        }
    }

    /// A number or another value that is read from text.
    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let value = text.trim().parse();
        value
            .map(Some)
            .map_err(|_| Failure::bad(format!("invalid value {text:?} for {name}")))
    }
}

/// Undoes percent-encoding, and in a query `+` too. A `%` that no two digits follow stays as it is.
pub(super) fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) if plus => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match hex(*high).zip(hex(*low)) {
                Some((high, low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                None => out.push(b'%'),
            },
            (byte, _) => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_for_no_and_everything_else() {
        let query = Query::parse("a=1&b=true&c=True&d=0&e=false&f=no&g=&h=none&i=x&j");
        for yes in ["a", "b", "c", "i"] {
            assert!(query.flag(yes), "{yes}");
        }
        for no in ["d", "e", "f", "g", "h", "j", "absent"] {
            assert!(!query.flag(no), "{no}");
        }
        assert!(query.flag_or("absent", true));
        assert!(!query.flag_or("d", true));
    }

    #[test]
    fn the_first_of_repeated_options_counts() {
        let query = Query::parse("t=5&t=9&names=a&names=b&%74x=a+b%2Fc&bad=%zz%");
        assert_eq!(query.get("t"), Some("5"));
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.get("tx"), Some("a b/c"));
        assert_eq!(query.get("bad"), Some("%zz%"));
        assert!(query.parsed::<u32>("names").is_err());
    }

    proptest! {
        #[test]
        fn any_query_is_read(text in ".{0,200}") {
            let query = Query::parse(&text);
            query.flag("a");
        }

        #[test]
        fn encoded_text_comes_back(text in ".{0,60}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decode(&encoded, true), text);
        }
    }
}
