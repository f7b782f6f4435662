//! The name of a compilation: BLAKE3-256 over its key document.
//!
//! The hash runs in BLAKE3's derive-key mode, with a context of our own. That separates it from every other
//! use of BLAKE3 over the same bytes (BLAKE3 specification, section 2.3).

use std::fmt;
use std::str::FromStr;

use crate::document::KeyDocument;
use crate::inputs::{CompileInputs, InputError};

/// Changing the meaning of any ingredient means a new context, never a reused one.
const CONTEXT: &str = "objcache 2026-11-21 key document v1";

/// Names one compilation. Equal signatures mean equal inputs; the object may then be used in place of a
/// compilation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature([u8; 32]);

impl Signature {
    /// The signature of these inputs.
    ///
    /// # Errors
    /// When the inputs do not decide the object yet: see [`InputError`].
    pub fn of(inputs: &CompileInputs) -> Result<Self, InputError> {
        Ok(KeyDocument::of(inputs)?.signature())
    }

    pub(crate) fn of_document(document: &[u8]) -> Self {
        Self(blake3::Hasher::new_derive_key(CONTEXT).update(document).finalize().into())
    }

    /// A signature from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

/// The text is not a signature: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a signature: 64 hexadecimal digits are")]
pub struct ParseSignatureError(String);

impl FromStr for Signature {
    type Err = ParseSignatureError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match blake3::Hash::from_hex(text) {
            Ok(hash) => Ok(Self(hash.into())),
            Err(_) => Err(ParseSignatureError(text.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let signature = Signature::from_bytes([0xa7; 32]);
        assert_eq!(signature.to_string(), "a7".repeat(32));
        assert_eq!(signature.to_string().parse(), Ok(signature));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "a7", &"a7".repeat(33), &"zz".repeat(32), &"a7".repeat(1000)] {
            assert!(text.parse::<Signature>().is_err(), "{text}");
        }
    }
}
