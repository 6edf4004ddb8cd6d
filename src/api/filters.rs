//! The `filters` option, in both shapes: `{"label":["a=b"]}` and what Go clients send, `{"label":{"a=b":true}}`.

use serde_json::Value;

use super::error::Failure;
use super::query::Query;
use crate::types::Filter;

/// More than any client sends; a filter is compared with every object there is.
const MAX_TERMS: usize = 1024;

/// Reads the `filters` of a query. A term of the second shape that says `false` counts, as Docker's does.
pub(super) fn read(query: &Query) -> Result<Filter, Failure> {
    query.get("filters").map_or_else(|| Ok(Filter::new()), parse)
}

fn parse(text: &str) -> Result<Filter, Failure> {
    let bad = || {
        Failure::bad(format!(
            "invalid filter: {text:?} is neither {{\"key\":[\"value\"]}} nor {{\"key\":{{\"value\":true}}}}"
        ))
    };
    let Ok(Value::Object(terms)) = serde_json::from_slice(text.as_bytes()) else {
        return Err(bad());
    };
    let mut filter = Filter::new();
    let mut count = 0;
    for (key, values) in terms {
        let values: Vec<String> = match values {
            Value::Array(values) => values.into_iter().map(as_text).collect::<Option<_>>().ok_or_else(bad)?,
            Value::Object(values) => values.into_iter().map(|(value, _)| value).collect(),
            _ => return Err(bad()),
        };
        count += values.len();
        if count > MAX_TERMS {
            return Err(Failure::bad(format!("invalid filter: more than {MAX_TERMS} terms")));
        }
        for value in values {
            filter = filter.with(key.clone(), value);
        }
    }
    Ok(filter)
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a12_both_shapes_say_the_same() {
        let filter = Filter::new().with("label", "a=b").with("status", "exited");
        assert_eq!(parse(r#"{"label":["a=b"],"status":["exited"]}"#).unwrap(), filter);
        assert_eq!(
            parse(r#"{"label":{"a=b":true},"status":{"exited":true}}"#).unwrap(),
            filter
        );
        assert_eq!(parse("{}").unwrap(), Filter::new());
        assert_eq!(
            parse(r#"{"dangling":[true]}"#).unwrap(),
            Filter::new().with("dangling", "true")
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "x",
            "[]",
            "1",
            r#"{"a":"b"}"#,
            r#"{"a":[["b"]]}"#,
            r#"{"a":[null]}"#,
            r#"{"a":["#,
        ] {
            assert_eq!(parse(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn shapes_agree(terms in btree_map("[a-z]{1,8}", vec("[ -~]{0,12}", 0..4), 0..5)) {
            let list = serde_json::to_string(&terms).unwrap();
            let map: serde_json::Map<_, _> = terms
                .iter()
                .map(|(key, values)| {
                    let values = values.iter().map(|value| (value.clone(), Value::Bool(true))).collect();
                    (key.clone(), Value::Object(values))
                })
                .collect();
            let sorted = |filter: &Filter| {
                let values = |key: &str| {
                    let mut values = filter.values(key).to_vec();
                    values.sort();
                    values.dedup();
                    values
                };
                filter.keys().map(|key| (key.to_owned(), values(key))).collect::<Vec<_>>()
            };
            let (list, map) = (parse(&list).unwrap(), parse(&Value::Object(map).to_string()).unwrap());
            prop_assert_eq!(sorted(&list), sorted(&map));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,100}") {
            let _ = parse(&text);
        }
    }
}
