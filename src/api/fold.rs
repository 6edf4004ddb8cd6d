//! JSON as Go reads it: names of fields in any case, and `null` as if the field were not there. Docker's clients rely on
//! either. Names of maps (labels, say) are left as they are.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// Reads a value. Source: Go, `encoding/json`, `Unmarshal`.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Folded(value))
}

/// Names in one case. Of names that differ in nothing but case, the first counts.
pub(super) fn names(object: Map<String, Value>) -> Map<String, Value> {
    let mut folded = Map::new();
    for (name, value) in object {
        folded.entry(name.to_ascii_lowercase()).or_insert(value);
    }
    folded
}

/// A value on its way into a type, which says what names it has.
struct Folded(Value);

impl<'de> IntoDeserializer<'de, Error> for Folded {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Folded {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(all) => {
                let mut inner = SeqDeserializer::new(all.into_iter().map(Folded));
                let read = visitor.visit_seq(&mut inner)?;
                inner.end()?;
                Ok(read)
            }
            Value::Object(object) => {
                let mut inner = MapDeserializer::new(object.into_iter().map(|(name, value)| (name, Folded(value))));
                let read = visitor.visit_map(&mut inner)?;
                inner.end()?;
                Ok(read)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let object = match self.0 {
            Value::Object(object) => object,
            Value::Null => Map::new(),
            _ => return Err(Error::custom("an object is needed")),
        };
        let mut known = Map::new();
        for (name, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            if let Some(field) = fields.iter().find(|field| field.eq_ignore_ascii_case(&name)) {
                known.entry(*field).or_insert(value);
            }
        }
        Self(Value::Object(known)).deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Outer {
        read_only: bool,
        count: u32,
        labels: BTreeMap<String, String>,
        inner: Option<Inner>,
        list: Vec<Inner>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        name: String,
    }

    #[test]
    fn p38_names_in_any_case_and_nulls_as_nothing() {
        let whole = json!({
            "READONLY": true, "count": null, "labels": {"Ab": "c", "AB": "d"}, "unknown": [1],
            "inner": {"NAME": "x"}, "List": [{"name": "y"}, {"nAmE": null}],
        });
        let expected = Outer {
            read_only: true,
            count: 0,
            labels: [("Ab", "c"), ("AB", "d")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            inner: Some(Inner { name: "x".into() }),
            list: vec![Inner { name: "y".into() }, Inner::default()],
        };
        assert_eq!(read::<Outer>(whole).unwrap(), expected);
        assert_eq!(read::<Outer>(json!({"Inner": null})).unwrap(), Outer::default());
    }

    #[test]
    fn of_names_that_differ_in_case_alone_one_counts() {
        let both = read::<Inner>(json!({"Name": "a", "name": "b"})).unwrap();
        assert_eq!(both.name, "a");
        let Value::Object(both) = json!({"Name": "a", "name": "b"}) else {
            panic!()
        };
        assert_eq!(Value::Object(names(both)), json!({"name": "a"}));
    }

    #[test]
    fn wrong_types_are_refused() {
        for bad in [
            json!([]),
            json!(1),
            json!({"Inner": 1}),
            json!({"Count": -1}),
            json!({"List": {}}),
        ] {
            assert!(read::<Outer>(bad.clone()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_of_json_is_read_or_refused(text in r#"\{("[a-zA-Z]{1,6}":(null|[0-9]{1,3}|"x"|\[\]|\{\}),?){0,5}\}"#) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = read::<Outer>(value);
            }
        }
    }
}
