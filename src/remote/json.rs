//! Reading answers: Docker leaves out, nulls and empties what it has not, so each look says what counts as nothing.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::nonsense;
use crate::error::Result;
use crate::types::Reference;

/// Text that is not empty.
pub(super) fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Text that may be missing or empty.
pub(super) fn text_or_empty(value: &Value, key: &str) -> String {
    text(value, key).unwrap_or_default()
}

/// What must be there and parse.
pub(super) fn required<T: FromStr>(value: &Value, key: &str) -> Result<T> {
    let found = value[key].as_str().and_then(|text| text.parse().ok());
    found.ok_or_else(|| nonsense(format_args!("{key} is {}", value[key])))
}

pub(super) fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}

/// A number that is not negative; anything else is 0.
pub(super) fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// The same as a count.
pub(super) fn count(value: &Value, key: &str) -> usize {
    usize::try_from(number(value, key)).unwrap_or(usize::MAX)
}

/// A number above 0.
pub(super) fn positive(value: &Value, key: &str) -> Option<u64> {
    value[key].as_u64().filter(|number| *number > 0)
}

/// A number other than 0.
pub(super) fn nonzero(value: &Value, key: &str) -> Option<i64> {
    value[key].as_i64().filter(|number| *number != 0)
}

/// Texts of a list; null is none.
pub(super) fn list(value: &Value, key: &str) -> Option<Vec<String>> {
    let texts = value[key].as_array()?.iter().filter_map(Value::as_str);
    Some(texts.map(str::to_owned).collect())
}

/// Texts by name.
pub(super) fn map(value: &Value, key: &str) -> BTreeMap<String, String> {
    let pairs = value[key].as_object().into_iter().flatten();
    pairs
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Objects of a list.
pub(super) fn objects<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// References of a list. Docker's `<none>` is none.
pub(super) fn references(value: &Value, key: &str) -> Vec<Reference> {
    let names = list(value, key).unwrap_or_default();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// A moment in RFC 3339; Go's time without a value is none.
pub(super) fn moment(value: &Value, key: &str) -> Option<SystemTime> {
    let at = OffsetDateTime::parse(value[key].as_str()?, &Rfc3339).ok()?;
    (at.year() > 1).then(|| at.into())
}

/// Seconds since the epoch.
pub(super) fn seconds(value: &Value, key: &str) -> SystemTime {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(number(value, key)));
    at.unwrap_or(UNIX_EPOCH)
}

/// Nanoseconds since the epoch as the seconds with a fraction that queries take.
pub(super) fn stamp(time_ns: i64) -> String {
    let (seconds, nanos) = (time_ns.div_euclid(1_000_000_000), time_ns.rem_euclid(1_000_000_000));
    format!("{seconds}.{nanos:09}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_all_its_forms() {
        let value =
            json!({"a": "", "b": null, "c": 0, "d": "0001-01-01T00:00:00Z", "e": "2024-01-31T12:00:00.5Z", "f": -1});
        assert_eq!(
            (text(&value, "a"), text(&value, "b"), text(&value, "z")),
            (None, None, None)
        );
        assert_eq!(
            (positive(&value, "c"), positive(&value, "f"), nonzero(&value, "f")),
            (None, None, Some(-1))
        );
        assert_eq!((list(&value, "b"), moment(&value, "d")), (None, None));
        let at = moment(&value, "e").unwrap().duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(at, Duration::from_millis(1_706_702_400_500));
        assert_eq!(stamp(1_500_000_000), "1.500000000");
        assert!(required::<Reference>(&value, "z").is_err());
        assert!(references(&json!({"a": ["<none>:<none>"]}), "a").is_empty());
    }
}
