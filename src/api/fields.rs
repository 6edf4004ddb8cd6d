//! What differs between versions of the API, as one table of fields.
//!
//! Verbs make the union of all shapes; [`fit`] takes away what a version does not have. Versions before 1.41 get the shape of
//! 1.41. Source: the API's descriptions at 1.41, 1.44 and 1.56, and its history (moby, `api/docs/CHANGELOG.md`).

use serde_json::Value;

use super::version::ApiVersion;

/// An object of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    ContainerSummary,
}

/// A field that only some versions have: from `since`, and before `until`.
struct Field {
    shape: Shape,
    /// Names down to the field. `*` is every element.
    path: &'static [&'static str],
    since: u16,
    until: u16,
}

/// No end in sight.
const ON: u16 = u16::MAX;

/// The table.
const FIELDS: &[Field] = &[Field {
    shape: Shape::ContainerSummary,
    path: &["Health"],
    since: 52,
    until: ON,
}];

/// Takes away what a version does not have.
pub(super) fn fit(shape: Shape, version: ApiVersion, value: &mut Value) {
    let gone = FIELDS
        .iter()
        .filter(|field| field.shape == shape && !(field.since..field.until).contains(&version.minor()));
    for field in gone {
        remove(value, field.path);
    }
}

fn remove(value: &mut Value, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match (value, *first, rest) {
        (Value::Object(object), name, []) => drop(object.remove(name)),
        (Value::Array(all), "*", rest) => all.iter_mut().for_each(|one| remove(one, rest)),
        (Value::Object(object), "*", rest) => object.values_mut().for_each(|one| remove(one, rest)),
        (Value::Object(object), name, rest) => {
            if let Some(inner) = object.get_mut(name) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}
