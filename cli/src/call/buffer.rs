//! Memory that a pointer argument points to, written as `f32[1,2,3]`, and read back after the call.
//!
//! | text | what the function gets |
//! |---|---|
//! | `f32[1,2,3]`, also `f64`, `i8`, `i16`, `i32`, `i64` | the elements |
//! | `f32[0.5;1000]` | 1000 times the element |
//! | `zero[4096]` | that many zero bytes |
//! | `str[text]` | the text and a zero byte |

use objcache::call::{ScalarType, Value};
use serde::{Serialize, Serializer};

use super::number::Json;

/// A cache line, and as much as any vector instruction asks for.
const ALIGNMENT: usize = 64;

/// A typing error must not take the machine's memory.
const MAX_BYTES: usize = 4 << 30;

/// The elements of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elements {
    Scalars(ScalarType),
    Bytes,
    Text,
}

/// Bytes at an aligned address that does not change while the buffer lives.
#[derive(Debug)]
pub(crate) struct Buffer {
    elements: Elements,
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// Reads a buffer; `None` when the text does not look like one.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (name, inside) = text.strip_suffix(']')?.split_once('[')?;
        let read = match name {
            "zero" => zeros(inside),
            "str" => text_and_zero(inside),
            _ => scalars(name.parse().ok()?, inside),
        };
        Some(read.map_err(|why| format!("`{}`: {why}", shortened(text))))
    }

    fn with(elements: Elements, length: usize) -> Result<Self, String> {
        let mut memory = Vec::new();
        if length > MAX_BYTES || memory.try_reserve_exact(length + ALIGNMENT).is_err() {
            return Err(format!("{length} bytes are more than can be had"));
        }
        memory.resize(length + ALIGNMENT, 0);
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Ok(Self { elements, memory, start, length })
    }

    fn filled(elements: Elements, bytes: &[u8]) -> Result<Self, String> {
        let mut buffer = Self::with(elements, bytes.len())?;
        buffer.memory[buffer.start..][..bytes.len()].copy_from_slice(bytes);
        Ok(buffer)
    }

    /// Where the function finds it.
    pub(crate) fn address(&mut self) -> u64 {
        self.memory[self.start..].as_mut_ptr() as u64
    }

    /// What is in it now.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.length]
    }

    fn values(&self, scalar: ScalarType) -> impl Iterator<Item = Value> {
        self.bytes().chunks_exact(width(scalar).max(1)).map(move |bytes| value_of(scalar, bytes))
    }

    /// The name of the elements' type: a scalar's, `bytes` or `str`.
    pub(crate) fn type_name(&self) -> String {
        match self.elements {
            Elements::Scalars(scalar) => scalar.to_string(),
            Elements::Bytes => "bytes".to_owned(),
            Elements::Text => "str".to_owned(),
        }
    }

    /// As it could be typed in again, less what is above `limit` elements.
    pub(crate) fn shown(&self, limit: usize) -> String {
        let (mut shown, count) = match self.elements {
            Elements::Text => return format!("str[{}]", self.text()),
            Elements::Bytes => {
                let hex: Vec<_> = self.bytes().iter().take(limit).map(|byte| format!("{byte:02x}")).collect();
                (hex.join(" "), self.length)
            }
            Elements::Scalars(scalar) => {
                let values: Vec<_> = self.values(scalar).take(limit).map(|value| value.to_string()).collect();
                (values.join(","), self.length / width(scalar).max(1))
            }
        };
        if count > limit {
            shown.push_str(&format!(" … {} more", count - limit));
        }
        format!("{}[{shown}]", self.type_name())
    }

    fn text(&self) -> String {
        let bytes = self.bytes();
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

/// Serialises the content: an array of numbers, or a string.
pub(crate) struct Content<'a>(pub(crate) &'a Buffer);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.elements {
            Elements::Scalars(scalar) => to.collect_seq(self.0.values(scalar).map(Json)),
            Elements::Bytes => to.collect_seq(self.0.bytes()),
            Elements::Text => to.serialize_str(&self.0.text()),
        }
    }
}

fn zeros(inside: &str) -> Result<Buffer, String> {
    let length = inside.trim().parse().map_err(|_| format!("`{inside}` is not a number of bytes"))?;
    Buffer::with(Elements::Bytes, length)
}

fn text_and_zero(inside: &str) -> Result<Buffer, String> {
    let mut bytes = inside.as_bytes().to_vec();
    bytes.push(0);
    Buffer::filled(Elements::Text, &bytes)
}

fn scalars(scalar: ScalarType, inside: &str) -> Result<Buffer, String> {
    if matches!(scalar, ScalarType::Void | ScalarType::Ptr) {
        return Err(format!("there are no buffers of {scalar}"));
    }
    let element = |text: &str| Value::parse(scalar, text.trim()).map_err(|error| error.to_string());
    if let Some((value, count)) = inside.split_once(';') {
        let count: usize =
            count.trim().parse().map_err(|_| format!("`{count}` is not a number of elements"))?;
        return repeated(scalar, element(value)?, count);
    }
    let mut bytes = Vec::new();
    let list = inside.trim();
    if !list.is_empty() {
        for text in list.split(',') {
            push(&mut bytes, element(text)?);
        }
    }
    Buffer::filled(Elements::Scalars(scalar), &bytes)
}

fn repeated(scalar: ScalarType, value: Value, count: usize) -> Result<Buffer, String> {
    let mut element = Vec::new();
    push(&mut element, value);
    let mut buffer = Buffer::with(Elements::Scalars(scalar), count.saturating_mul(element.len()))?;
    let (start, length) = (buffer.start, buffer.length);
    for place in buffer.memory[start..][..length].chunks_exact_mut(element.len()) {
        place.copy_from_slice(&element);
    }
    Ok(buffer)
}

fn width(scalar: ScalarType) -> usize {
    match scalar {
        ScalarType::Void => 0,
        ScalarType::I8 => 1,
        ScalarType::I16 => 2,
        ScalarType::I32 | ScalarType::F32 => 4,
        ScalarType::I64 | ScalarType::F64 | ScalarType::Ptr => 8,
    }
}

/// Appends the value as it stands in memory.
fn push(bytes: &mut Vec<u8>, value: Value) {
    match value {
        Value::Void => {}
        Value::I8(value) => bytes.extend(value.to_ne_bytes()),
        Value::I16(value) => bytes.extend(value.to_ne_bytes()),
        Value::I32(value) => bytes.extend(value.to_ne_bytes()),
        Value::I64(value) => bytes.extend(value.to_ne_bytes()),
        Value::F32(value) => bytes.extend(value.to_ne_bytes()),
        Value::F64(value) => bytes.extend(value.to_ne_bytes()),
        Value::Ptr(value) => bytes.extend(value.to_ne_bytes()),
    }
}

/// Reads a value as it stands in memory. `bytes` are as many as the scalar is wide.
fn value_of(scalar: ScalarType, bytes: &[u8]) -> Value {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
    }
    match scalar {
        ScalarType::Void => Value::Void,
        ScalarType::I8 => Value::I8(i8::from_ne_bytes(array(bytes))),
        ScalarType::I16 => Value::I16(i16::from_ne_bytes(array(bytes))),
        ScalarType::I32 => Value::I32(i32::from_ne_bytes(array(bytes))),
        ScalarType::I64 => Value::I64(i64::from_ne_bytes(array(bytes))),
        ScalarType::F32 => Value::F32(f32::from_ne_bytes(array(bytes))),
        ScalarType::F64 => Value::F64(f64::from_ne_bytes(array(bytes))),
        ScalarType::Ptr => Value::Ptr(u64::from_ne_bytes(array(bytes))),
    }
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match Buffer::parse(text) {
            Some(Ok(buffer)) => buffer.shown(4),
            Some(Err(why)) => why,
            None => "none".to_owned(),
        }
    }

    #[test]
    fn what_is_read_is_shown() {
        assert_eq!(shown("f32[1,-2.5, 1e3]"), "f32[1,-2.5,1000]");
        assert_eq!(shown("f64[nan,-inf]"), "f64[NaN,-inf]");
        assert_eq!(shown("i8[-1,255,0x7f]"), "i8[-1,-1,127]");
        assert_eq!(shown("i64[]"), "i64[]");
        assert_eq!(shown("i16[7;6]"), "i16[7,7,7,7 … 2 more]");
        assert_eq!(shown("zero[3]"), "bytes[00 00 00]");
        assert_eq!(shown("str[a [b], c]"), "str[a [b], c]");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(shown("i8[1,300]"), "`i8[1,300]`: `300` is not a value of type i8");
        assert_eq!(shown("f32[1,,2]"), "`f32[1,,2]`: `` is not a value of type f32");
        assert_eq!(shown("ptr[0]"), "`ptr[0]`: there are no buffers of ptr");
        assert_eq!(shown("zero[-1]"), "`zero[-1]`: `-1` is not a number of bytes");
        assert_eq!(
            shown("f64[0;99999999999]"),
            "`f64[0;99999999999]`: 799999999992 bytes are more than can be had"
        );
        for text in ["f128[1]", "[1]", "f32[1", "f32", "0x10", "null"] {
            assert_eq!(shown(text), "none", "{text}");
        }
    }

    #[test]
    fn buffers_are_aligned_and_stay_where_they_are() {
        for text in ["i8[1]", "f64[1,2]", "zero[0]", "str[]"] {
            let mut buffer = Buffer::parse(text).unwrap().unwrap();
            let address = buffer.address();
            assert_eq!(address % ALIGNMENT as u64, 0, "{text}");
            let mut moved = Box::new(buffer);
            assert_eq!(moved.address(), address, "{text}");
        }
    }
}
