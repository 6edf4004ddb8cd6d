//! One line of comma-separated values, with RFC 4180's double quotes: what `--mount` and `--device` are.

use super::Word;
use super::fault::{Fault, Parsed};

/// The fields of a value.
pub(crate) fn fields(value: &Word) -> Parsed<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = value.text.as_str();
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside).ok_or_else(|| bad(value))?,
            None => {
                let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (field.to_owned(), after)
            }
        };
        if !rest.starts_with('"') && field.contains('"') {
            return Err(bad(value));
        }
        found.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(found),
            None => return Err(bad(value)),
        }
    }
}

fn bad(value: &Word) -> Fault {
    Fault::new(
        value.span,
        format!("the quotes of {:?} do not match", value.text),
        "fields between commas, a quoted one as a whole: key=value,\"key=a,b\"",
    )
}

/// A field behind its opening quote, and what follows the closing one.
fn quoted(inside: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = inside;
    loop {
        let at = rest.find('"')?;
        field.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Vec<String>> {
        let value = Word {
            text: text.into(),
            ..Word::default()
        };
        fields(&value).ok()
    }

    #[test]
    fn quoted_fields_hold_commas_and_quotes() {
        assert_eq!(of("a=1,b").unwrap(), ["a=1", "b"]);
        assert_eq!(of(r#""a=1,2",b="#).unwrap(), ["a=1,2", "b="]);
        assert_eq!(of(r#""a=""x""""#).unwrap(), [r#"a="x""#]);
        assert_eq!(of(",").unwrap(), ["", ""]);
        for bad in [r#""a"#, r#""a"b"#, r#"a="b""#] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
