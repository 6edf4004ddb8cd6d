//! A JSON object of a client's, taken apart key by key, so that nothing it asks for is passed over unseen. Keys count in any
//! case, as in Go.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::Failure;
use super::fold;

/// A JSON object, and what it is called in errors.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    name: &'static str,
    rest: Map<String, Value>,
}

impl Object {
    pub(super) fn new(name: &'static str, object: Map<String, Value>) -> Self {
        let rest = fold::names(object);
        Self { name, rest }
    }

    /// Takes a value. `null` counts as none.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, Failure> {
        match self.rest.remove(&key.to_ascii_lowercase()) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let value = fold::read(value);
                value.map(Some).map_err(|error| self.bad(key, error))
            }
        }
    }

    /// Takes a value, or its type's default.
    pub(super) fn take_or_default<T: DeserializeOwned + Default>(&mut self, key: &str) -> Result<T, Failure> {
        Ok(self.take(key)?.unwrap_or_default())
    }

    /// Takes text; an empty one counts as none.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Failure> {
        Ok(self.take::<String>(key)?.filter(|text| !text.is_empty()))
    }

    /// Takes an object within.
    pub(super) fn object(&mut self, key: &'static str) -> Result<Self, Failure> {
        Ok(Self::new(key, self.take_or_default(key)?))
    }

    /// Refuses what is left of a table and says something; what is not in the table is ignored, as Docker ignores it.
    pub(super) fn refuse(&self, table: &[(&str, &str)]) -> Result<(), Failure> {
        let set = |key: &str| self.rest.get(&key.to_ascii_lowercase());
        let asked = table
            .iter()
            .find(|(key, _)| set(key).is_some_and(|value| !says_nothing(value)));
        match asked {
            None => Ok(()),
            Some((key, needs)) => Err(Failure::option(&format!("{}{key}", self.prefix()), *needs)),
        }
    }

    /// A value that can never work.
    pub(super) fn bad(&self, key: &str, why: impl std::fmt::Display) -> Failure {
        Failure::bad(format!("invalid {}{key}: {why}", self.prefix()))
    }

    fn prefix(&self) -> String {
        if self.name.is_empty() {
            return String::new();
        }
        format!("{}.", self.name)
    }
}

/// Whether a value is the one that its type has when nobody sets it.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

/// A list, or one text for a list of one. Docker reads commands so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::Null => Ok(Self(Vec::new())),
            Value::String(text) => Ok(Self(vec![text])),
            list @ Value::Array(_) => serde_json::from_value(list).map(Self).map_err(D::Error::custom),
            _ => Err(D::Error::custom("a text or a list of texts is needed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        let Value::Object(map) = value else { panic!() };
        Object::new("HostConfig", map)
    }

    #[test]
    fn what_says_something_is_refused_and_what_does_not_is_not() {
        let table = [("Privileged", "x"), ("Devices", "y")];
        for fine in [
            json!({}),
            json!({"Privileged": false, "Devices": []}),
            json!({"Privileged": null, "Devices": null, "Unknown": true}),
            json!({"privileged": false}),
        ] {
            object(fine).refuse(&table).unwrap();
        }
        let refused = object(json!({"Devices": [{}]})).refuse(&table).unwrap_err();
        assert_eq!(refused.status, 400);
        assert!(refused.message.contains("HostConfig.Devices"), "{}", refused.message);
        assert!(object(json!({"DEVICES": [{}]})).refuse(&table).is_err());
    }

    #[test]
    fn a_command_is_a_text_or_a_list() {
        let mut of = object(json!({"A": "x y", "b": ["x", "y"], "c": 1, "d": null}));
        assert_eq!(of.take::<OneOrMany>("a").unwrap().unwrap().0, ["x y"]);
        assert_eq!(of.take::<OneOrMany>("b").unwrap().unwrap().0, ["x", "y"]);
        assert_eq!(of.take::<OneOrMany>("c").unwrap_err().status, 400);
        assert_eq!(of.take::<OneOrMany>("d").unwrap(), None);
    }
}
