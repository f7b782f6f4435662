//! Tag, type, length, payload: the encoding under the key document and the provenance.
//!
//! One value has one encoding: tags ascend, lengths are 64 bits wide, sets and maps are sorted and without
//! repetition, an absent item is left out. All numbers are little-endian. The reader accepts nothing else,
//! and trusts no length it has not compared with the bytes it holds.
//!
//! ```text
//! item    = tag:u16 type:u8 length:u64 payload
//! number  = u64                 text, bytes = the bytes themselves
//! list    = count:u64 { length:u64 text }
//! set     = list, ascending, each once
//! map     = count:u64 { length:u64 key  present:u8 [ length:u64 bytes ] }, keys as in a set
//! ```

use std::fmt;

const NUMBER: u8 = 1;
const TEXT: u8 = 2;
const BYTES: u8 = 3;
const LIST: u8 = 4;
const SET: u8 = 5;
const MAP: u8 = 6;

const HEADER: usize = 2 + 1 + 8;

/// Why bytes are no key document, record or provenance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {problem}")]
pub struct DocumentError {
    offset: usize,
    problem: &'static str,
}

impl DocumentError {
    pub(crate) fn at(offset: usize, problem: &'static str) -> Self {
        Self { offset, problem }
    }
}

/// A key and its value; `None` is "unset", which is not empty.
pub type Pair<'a> = (&'a str, Option<&'a [u8]>);

/// One decoded value of a key document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Number(u64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Texts whose order counts.
    List(Vec<&'a str>),
    /// Texts whose order does not count, sorted.
    Set(Vec<&'a str>),
    /// Values by key, sorted by key.
    Map(Vec<Pair<'a>>),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) => f.write_str(&show_bytes(bytes)),
            Self::List(texts) | Self::Set(texts) => f.write_str(&texts.join(" ")),
            Self::Map(pairs) => {
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| match value {
                        Some(value) => format!("{key}={}", show_bytes(value)),
                        None => format!("{key} unset"),
                    })
                    .collect();
                f.write_str(&pairs.join(" "))
            }
        }
    }
}

/// Printable text as it stands, anything else in hexadecimal.
pub(crate) fn show_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Writes items in ascending order of their tags.
#[derive(Default)]
pub(crate) struct TlvWriter {
    out: Vec<u8>,
    last_tag: u16,
}

impl TlvWriter {
    pub(crate) fn number(&mut self, tag: u16, value: u64) {
        self.item(tag, NUMBER, |out| out.extend(value.to_le_bytes()));
    }

    pub(crate) fn text(&mut self, tag: u16, value: &str) {
        self.item(tag, TEXT, |out| out.extend(value.as_bytes()));
    }

    pub(crate) fn bytes(&mut self, tag: u16, value: &[u8]) {
        self.item(tag, BYTES, |out| out.extend(value));
    }

    pub(crate) fn optional_number(&mut self, tag: u16, value: Option<u64>) {
        if let Some(value) = value {
            self.number(tag, value);
        }
    }

    pub(crate) fn optional_text(&mut self, tag: u16, value: Option<&str>) {
        if let Some(value) = value {
            self.text(tag, value);
        }
    }

    pub(crate) fn list<T: AsRef<str>>(&mut self, tag: u16, texts: impl ExactSizeIterator<Item = T>) {
        self.texts(tag, LIST, texts);
    }

    /// `texts` must ascend, as an ordered set's do.
    pub(crate) fn set<T: AsRef<str>>(&mut self, tag: u16, texts: impl ExactSizeIterator<Item = T>) {
        self.texts(tag, SET, texts);
    }

    fn texts<T: AsRef<str>>(&mut self, tag: u16, kind: u8, texts: impl ExactSizeIterator<Item = T>) {
        self.item(tag, kind, |out| {
            out.extend((texts.len() as u64).to_le_bytes());
            texts.for_each(|text| prefixed(out, text.as_ref().as_bytes()));
        });
    }

    /// `pairs` must ascend by key, as an ordered map's do.
    pub(crate) fn map<'k, V: AsRef<[u8]>>(
        &mut self,
        tag: u16,
        pairs: impl ExactSizeIterator<Item = (&'k String, Option<V>)>,
    ) {
        self.item(tag, MAP, |out| {
            out.extend((pairs.len() as u64).to_le_bytes());
            for (key, value) in pairs {
                prefixed(out, key.as_bytes());
                out.push(u8::from(value.is_some()));
                if let Some(value) = value {
                    prefixed(out, value.as_ref());
                }
            }
        });
    }

    fn item(&mut self, tag: u16, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
        assert!(tag > self.last_tag, "tags ascend: {tag} after {}", self.last_tag);
        self.last_tag = tag;
        self.out.extend(tag.to_le_bytes());
        self.out.push(kind);
        let length_at = self.out.len();
        self.out.extend([0; 8]);
        payload(&mut self.out);
        let length = (self.out.len() - length_at - 8) as u64;
        self.out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }
}

fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// One item as read.
pub(crate) struct TlvItem<'a> {
    pub(crate) tag: u16,
    pub(crate) value: Value<'a>,
    offset: usize,
}

impl<'a> TlvItem<'a> {
    pub(crate) fn text(&self) -> Result<&'a str, DocumentError> {
        match self.value {
            Value::Text(text) => Ok(text),
            _ => Err(DocumentError::at(self.offset, "another type where a text belongs")),
        }
    }

    pub(crate) fn number(&self) -> Result<u64, DocumentError> {
        match self.value {
            Value::Number(number) => Ok(number),
            _ => Err(DocumentError::at(self.offset, "another type where a number belongs")),
        }
    }

    pub(crate) fn bytes(&self) -> Result<&'a [u8], DocumentError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(DocumentError::at(self.offset, "another type where bytes belong")),
        }
    }
}

/// Reads items; after an error it yields nothing more.
pub(crate) struct TlvReader<'a> {
    input: Cursor<'a>,
    last_tag: u16,
}

impl<'a> TlvReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { input: Cursor { bytes, offset: 0 }, last_tag: 0 }
    }

    fn item(&mut self) -> Result<TlvItem<'a>, DocumentError> {
        let offset = self.input.offset;
        let header = self.input.take(HEADER)?;
        let tag = u16::from_le_bytes([header[0], header[1]]);
        if tag <= self.last_tag {
            return Err(DocumentError::at(offset, "tags do not ascend"));
        }
        self.last_tag = tag;
        let length = u64::from_le_bytes(header[3..].try_into().expect("the header ends in eight bytes"));
        let payload_at = self.input.offset;
        let payload = Cursor { bytes: self.input.take_u64(length)?, offset: payload_at };
        Ok(TlvItem { tag, value: value(header[2], payload)?, offset })
    }
}

impl<'a> Iterator for TlvReader<'a> {
    type Item = Result<TlvItem<'a>, DocumentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.input.bytes.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_err() {
            self.input.bytes = &[];
        }
        Some(item)
    }
}

fn value(kind: u8, mut payload: Cursor<'_>) -> Result<Value<'_>, DocumentError> {
    let start = payload.offset;
    let value = match kind {
        NUMBER => Value::Number(payload.number()?),
        TEXT => Value::Text(payload.rest_as_text()?),
        BYTES => Value::Bytes(payload.rest()),
        LIST => Value::List(payload.texts()?),
        SET => Value::Set(ascending(payload.texts()?, |text| text, start)?),
        MAP => Value::Map(ascending(payload.pairs()?, |pair| pair.0, start)?),
        _ => return Err(DocumentError::at(start, "unknown type")),
    };
    if !payload.bytes.is_empty() {
        return Err(DocumentError::at(payload.offset, "bytes left over behind a value"));
    }
    Ok(value)
}

fn ascending<'a, T>(
    values: Vec<T>,
    key: impl Fn(&T) -> &'a str,
    offset: usize,
) -> Result<Vec<T>, DocumentError> {
    if values.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])) {
        Ok(values)
    } else {
        Err(DocumentError::at(offset, "a set or map is not sorted"))
    }
}

/// Bytes not read yet, and where they stand in the whole.
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DocumentError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(DocumentError::at(self.offset, "cut short"));
        };
        self.bytes = rest;
        self.offset += count;
        Ok(taken)
    }

    fn take_u64(&mut self, count: u64) -> Result<&'a [u8], DocumentError> {
        // A count beyond the address space is beyond the bytes at hand too.
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn number(&mut self) -> Result<u64, DocumentError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    fn prefixed(&mut self) -> Result<&'a [u8], DocumentError> {
        let length = self.number()?;
        self.take_u64(length)
    }

    fn prefixed_text(&mut self) -> Result<&'a str, DocumentError> {
        let offset = self.offset;
        text(self.prefixed()?, offset)
    }

    fn rest(&mut self) -> &'a [u8] {
        self.offset += self.bytes.len();
        std::mem::take(&mut self.bytes)
    }

    fn rest_as_text(&mut self) -> Result<&'a str, DocumentError> {
        let offset = self.offset;
        text(self.rest(), offset)
    }

    /// No capacity is reserved for `count`: a hostile one then ends at "cut short", not in an allocation.
    fn texts(&mut self) -> Result<Vec<&'a str>, DocumentError> {
        let count = self.number()?;
        (0..count).map(|_| self.prefixed_text()).collect()
    }

    fn pairs(&mut self) -> Result<Vec<Pair<'a>>, DocumentError> {
        let count = self.number()?;
        (0..count).map(|_| Ok((self.prefixed_text()?, self.optional()?))).collect()
    }

    fn optional(&mut self) -> Result<Option<&'a [u8]>, DocumentError> {
        match self.take(1)? {
            [0] => Ok(None),
            [1] => self.prefixed().map(Some),
            _ => Err(DocumentError::at(self.offset - 1, "neither present nor absent")),
        }
    }
}

fn text(bytes: &[u8], offset: usize) -> Result<&str, DocumentError> {
    std::str::from_utf8(bytes).map_err(|_| DocumentError::at(offset, "text that is not UTF-8"))
}
