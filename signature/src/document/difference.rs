//! Which ingredients make two key documents differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::tlv::show_bytes;
use super::{KeyDocument, Value, name_of};

/// One ingredient that differs. Members of maps are told apart: `environment.CFLAGS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the ingredient.
    pub ingredient: String,
    /// Its value in the first document, `None` when it is absent there.
    pub before: Option<String>,
    /// Its value in the second document, `None` when it is absent there.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show =
            |value: &Option<String>| value.as_ref().map_or("absent".to_owned(), |text| format!("`{text}`"));
        write!(f, "{}: {} before, {} now", self.ingredient, show(&self.before), show(&self.after))
    }
}

/// What differs, in the order of the ingredients.
pub(super) fn between(before: &KeyDocument, after: &KeyDocument) -> Vec<Difference> {
    let (before, after) = (leaves(before), leaves(after));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(key) != after.get(key))
        .map(|key| Difference {
            ingredient: key.name(),
            before: before.get(key).map(Leaf::to_string),
            after: after.get(key).map(Leaf::to_string),
        })
        .collect()
}

/// An ingredient, or one member of a map.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    tag: u16,
    member: Option<&'a str>,
}

impl Key<'_> {
    fn name(&self) -> String {
        match self.member {
            Some(member) => format!("{}.{member}", name_of(self.tag)),
            None => name_of(self.tag),
        }
    }
}

/// What is compared: values, never their looks. Bytes `00` in hexadecimal look like the text "00".
#[derive(PartialEq)]
enum Leaf<'a> {
    Whole(Value<'a>),
    Member(Option<&'a [u8]>),
}

impl fmt::Display for Leaf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => write!(f, "{value}"),
            Self::Member(Some(value)) => f.write_str(&show_bytes(value)),
            Self::Member(None) => f.write_str("unset"),
        }
    }
}

fn leaves(document: &KeyDocument) -> BTreeMap<Key<'_>, Leaf<'_>> {
    let mut leaves = BTreeMap::new();
    for (tag, value) in document.items() {
        match value {
            Value::Map(pairs) => leaves.extend(
                pairs
                    .into_iter()
                    .map(|(member, value)| (Key { tag, member: Some(member) }, Leaf::Member(value))),
            ),
            whole => {
                leaves.insert(Key { tag, member: None }, Leaf::Whole(whole));
            }
        }
    }
    leaves
}
