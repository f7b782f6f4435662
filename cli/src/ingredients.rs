//! Key documents as people and programs read them.

use objcache::signature::{KeyDocument, Value};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::output::table::pairs;

/// Serialises a key document as an object: ingredients by name. Numbers are numbers, lists and sets arrays, maps
/// objects with null for what is unset, and everything else is a string; bytes that are no text are written in
/// hexadecimal.
pub(crate) struct Ingredients<'a>(pub(crate) &'a KeyDocument);

impl Serialize for Ingredients<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.ingredients().map(|ingredient| (ingredient.name, JsonValue(ingredient.value))))
    }
}

struct JsonValue<'a>(Value<'a>);

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Number(number) => to.serialize_u64(*number),
            Value::List(texts) | Value::Set(texts) => to.collect_seq(texts),
            Value::Map(members) => {
                let mut map = to.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, &value.map(|bytes| Value::Bytes(bytes).to_string()))?;
                }
                map.end()
            }
            text => to.collect_str(text),
        }
    }
}

/// One line per ingredient; one per member of a map. What is empty is left out.
pub(crate) fn lines(document: &KeyDocument, width: Option<usize>) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    for ingredient in document.ingredients() {
        match ingredient.value {
            Value::Map(members) => lines.extend(members.into_iter().map(|(key, value)| {
                let value = value.map_or("(unset)".to_owned(), |bytes| Value::Bytes(bytes).to_string());
                (format!("{}.{key}", ingredient.name), value)
            })),
            value => lines.push((ingredient.name, value.to_string())),
        }
    }
    let filled = lines.iter().filter(|(_, value)| !value.is_empty());
    pairs(filled.map(|(name, value)| (name.as_str(), value.clone())), width)
}
