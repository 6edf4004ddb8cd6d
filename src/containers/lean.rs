//! A specification without what is as it is anyway: a list of containers reads each of them, and each change writes one. Each field
//! is written out, and left out if that gives the usual text.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::ser::{Error as _, Impossible, SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use super::spec::{ContainerSpec, Limits};

/// The fields of a structure, as JSON.
type Usual = HashMap<&'static str, Vec<u8>>;

/// Looked through itself: of limits mostly one is set.
const LIMITS: &str = "limits";

/// Writes a specification without what it has of [`ContainerSpec::default`].
pub(super) fn spec<S: Serializer>(spec: &ContainerSpec, serializer: S) -> Result<S::Ok, S::Error> {
    static USUAL: OnceLock<Option<Usual>> = OnceLock::new();
    match USUAL.get_or_init(|| usual(&ContainerSpec::default())) {
        Some(usual) => spec.serialize(Lean { usual, serializer }),
        None => spec.serialize(serializer),
    }
}

fn limits<T: Serialize + ?Sized>(limits: &T) -> Limited<'_, T> {
    static USUAL: OnceLock<Option<Usual>> = OnceLock::new();
    let usual = USUAL.get_or_init(|| usual(&Limits::default())).as_ref();
    Limited { limits, usual }
}

struct Limited<'a, T: ?Sized> {
    limits: &'a T,
    usual: Option<&'static Usual>,
}

impl<T: Serialize + ?Sized> Serialize for Limited<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.usual {
            Some(usual) => self.limits.serialize(Lean { usual, serializer }),
            None => self.limits.serialize(serializer),
        }
    }
}

/// What the fields are of one that is as usual.
fn usual<T: Serialize>(value: &T) -> Option<Usual> {
    let mut fields = Usual::new();
    value.serialize(Taking(&mut fields)).ok()?;
    Some(fields)
}

/// Writes a structure as a map of those of its fields that are not as usual.
struct Lean<S> {
    usual: &'static Usual,
    serializer: S,
}

struct LeanFields<M> {
    usual: &'static Usual,
    map: M,
    text: Vec<u8>,
}

impl<M: SerializeMap> SerializeStruct for LeanFields<M> {
    type Ok = M::Ok;
    type Error = M::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), M::Error> {
        if name == LIMITS {
            return self.map.serialize_entry(name, &limits(value));
        }
        self.text.clear();
        serde_json::to_writer(&mut self.text, value).map_err(M::Error::custom)?;
        match self.usual.get(name) == Some(&self.text) {
            true => Ok(()),
            false => self.map.serialize_entry(name, value),
        }
    }

    fn end(self) -> Result<M::Ok, M::Error> {
        self.map.end()
    }
}

/// Takes the fields of a structure down.
struct Taking<'a>(&'a mut Usual);

impl SerializeStruct for Taking<'_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> serde_json::Result<()> {
        self.0.insert(name, serde_json::to_vec(value)?);
        Ok(())
    }

    fn end(self) -> serde_json::Result<()> {
        Ok(())
    }
}

/// Everything of a serializer but what structures need: nothing else is asked of these.
macro_rules! structures_alone {
    () => {
        type SerializeSeq = Impossible<Self::Ok, Self::Error>;
        type SerializeTuple = Impossible<Self::Ok, Self::Error>;
        type SerializeTupleStruct = Impossible<Self::Ok, Self::Error>;
        type SerializeTupleVariant = Impossible<Self::Ok, Self::Error>;
        type SerializeMap = Impossible<Self::Ok, Self::Error>;
        type SerializeStructVariant = Impossible<Self::Ok, Self::Error>;

        structures_alone! {
            serialize_bool(bool) -> Self::Ok;
            serialize_i8(i8) -> Self::Ok;
            serialize_i16(i16) -> Self::Ok;
            serialize_i32(i32) -> Self::Ok;
            serialize_i64(i64) -> Self::Ok;
            serialize_u8(u8) -> Self::Ok;
            serialize_u16(u16) -> Self::Ok;
            serialize_u32(u32) -> Self::Ok;
            serialize_u64(u64) -> Self::Ok;
            serialize_f32(f32) -> Self::Ok;
            serialize_f64(f64) -> Self::Ok;
            serialize_char(char) -> Self::Ok;
            serialize_str(&str) -> Self::Ok;
            serialize_bytes(&[u8]) -> Self::Ok;
            serialize_none() -> Self::Ok;
            serialize_unit() -> Self::Ok;
            serialize_unit_struct(&'static str) -> Self::Ok;
            serialize_unit_variant(&'static str, u32, &'static str) -> Self::Ok;
            serialize_seq(Option<usize>) -> Self::SerializeSeq;
            serialize_tuple(usize) -> Self::SerializeTuple;
            serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
            serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
            serialize_map(Option<usize>) -> Self::SerializeMap;
            serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
        }

        fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, Self::Error> {
            Err(Self::Error::custom("no structure"))
        }

        fn serialize_newtype_struct<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: &T,
        ) -> Result<Self::Ok, Self::Error> {
            Err(Self::Error::custom("no structure"))
        }

        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<Self::Ok, Self::Error> {
            Err(Self::Error::custom("no structure"))
        }
    };
    ($($name:ident($($argument:ty),*) -> $given:ty;)*) => {
        $(fn $name(self, $(_: $argument),*) -> Result<$given, Self::Error> {
            Err(Self::Error::custom("no structure"))
        })*
    };
}

impl<S: Serializer> Serializer for Lean<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeStruct = LeanFields<S::SerializeMap>;

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, S::Error> {
        Ok(LeanFields {
            usual: self.usual,
            map: self.serializer.serialize_map(None)?,
            text: Vec::new(),
        })
    }

    structures_alone! {}
}

impl<'a> Serializer for Taking<'a> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeStruct = Taking<'a>;

    fn serialize_struct(self, _: &'static str, _: usize) -> serde_json::Result<Self> {
        Ok(self)
    }

    structures_alone! {}
}
