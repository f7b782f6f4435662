//! The record inside an object: its key document and provenance, so that the object alone tells whether it
//! must be rebuilt.
//!
//! In ELF it is one more string of `.comment`, which is where compilers leave their name, and which linkers
//! merge and keep (System V gABI, "Special Sections"). Mach-O and COFF objects get a section of their own for
//! such strings, which linkers leave out. A string may hold no NUL, so the record is base64. Behind it stands a
//! seal, by which one can see whether the object is still the one that was compiled.

mod coff;
mod elf;
mod macho;
mod numbers;
mod splice;

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use crate::document::{Difference, DocumentError, KeyDocument, TlvReader, TlvWriter};
use crate::inputs::{CompileInputs, InputError};
use crate::provenance::Provenance;

/// What every record begins with, and its version. Base64 follows, a dot, and the seal.
const PREFIX: &str = "objcache-record:1:";

/// The seal is BLAKE3 over the whole object, in hexadecimal, with these digits in its own place.
const UNSEALED: [u8; 64] = [b'0'; 64];

/// Bytes of BLAKE3 that guard a record against damage; it is no defence against forgery.
const CHECK_LENGTH: usize = 8;

mod tag {
    pub(super) const KEY_DOCUMENT: u16 = 1;
    pub(super) const PROVENANCE: u16 = 2;
    pub(super) const CHECK: u16 = 3;
}

/// What an object tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it was compiled from, by whom and how.
    pub key_document: KeyDocument,
    /// Where and when.
    pub provenance: Provenance,
}

/// Whether an object is what a compilation of some inputs would give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The inputs are those it was compiled from.
    Fresh,
    /// It must be rebuilt.
    Stale {
        /// What differs: `before` is the object's, `after` the inputs'.
        differences: Vec<Difference>,
    },
}

/// Why an object has no record, or takes none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The object carries none: another program made it.
    #[error("the object carries no objcache record")]
    Absent,
    /// Several different ones, as after `ld -r`: the file is no longer the result of one compilation.
    #[error("the object carries {0} different objcache records: it was linked from several objects")]
    Ambiguous(usize),
    /// A record that is damaged.
    #[error("the objcache record is damaged: {0}")]
    Damaged(String),
    /// A record of another version of objcache.
    #[error("the objcache record has another version: `{0}`")]
    Version(String),
    /// Not a format that a record can be embedded in.
    #[error("records can be kept in relocatable ELF, Mach-O and COFF objects only; this is {0}")]
    UnsupportedFormat(&'static str),
    /// The object does not read.
    #[error("not a well-formed object: {0}")]
    Malformed(String),
    /// The inputs have no signature to compare with.
    #[error(transparent)]
    Inputs(#[from] InputError),
}

/// The object with `record` in it, in place of any record it had. Code, data, symbols and relocations keep
/// their bytes and their places.
///
/// # Errors
/// When `object` is no relocatable ELF, Mach-O or COFF object, or a malformed one.
pub fn embed(object: &[u8], record: &Record) -> Result<Vec<u8>, RecordError> {
    let replace = |comment: &[u8]| {
        let mut strings = Vec::with_capacity(comment.len() + 1024);
        for string in comment.split_inclusive(|&byte| byte == 0) {
            if !string.starts_with(b"objcache-record:") {
                strings.extend(string);
            }
        }
        if strings.last().is_some_and(|&last| last != 0) {
            strings.push(0);
        }
        strings.extend(record.to_text().as_bytes());
        strings.extend(UNSEALED);
        strings.push(0);
        strings
    };
    let mut object = match Format::of(object)? {
        Format::Elf => elf::with_comment(object, replace),
        Format::MachO => macho::with_comment(object, replace),
        Format::Coff => coff::with_comment(object, replace),
    }?;
    let place = seal_place(&object)?;
    let seal = seal_of(&object, &place);
    object[place].copy_from_slice(seal.as_bytes());
    Ok(object)
}

/// The record that an object carries.
///
/// # Errors
/// When it carries none, a damaged one, or several that differ.
pub fn read_record(object: &[u8]) -> Result<Record, RecordError> {
    Record::from_text(record_text(object)?)
}

/// Whether the object is byte for byte what [`embed`] returned: nobody has patched, stripped or cut it since. Only
/// then does its record speak for its code. (A seal finds accidents and honest changes; it is no signature.)
///
/// # Errors
/// When the object carries no record, or several that differ.
pub fn is_untouched(object: &[u8]) -> Result<bool, RecordError> {
    let place = seal_place(object)?;
    Ok(object[place.clone()] == *seal_of(object, &place).as_bytes())
}

/// Whether `object` is what compiling `inputs` would give, from the object alone. One that was changed after it
/// was compiled is stale.
///
/// # Errors
/// When the object has no readable record, or `inputs` no signature.
pub fn verdict(object: &[u8], inputs: &CompileInputs) -> Result<Verdict, RecordError> {
    let recorded = read_record(object)?.key_document;
    let mut differences = recorded.differences(&KeyDocument::of(inputs)?);
    if !is_untouched(object)? {
        let said = |what: &str| Some(what.to_owned());
        let (before, after) = (said("as compiled"), said("changed since"));
        differences.push(Difference { ingredient: "object".to_owned(), before, after });
    }
    match differences.is_empty() {
        true => Ok(Verdict::Fresh),
        false => Ok(Verdict::Stale { differences }),
    }
}

/// The formats that have a place for records. In each it is a section of strings that end with NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Elf,
    MachO,
    Coff,
}

impl Format {
    fn of(object: &[u8]) -> Result<Self, RecordError> {
        let other = match object {
            [0x7f, b'E', b'L', b'F', ..] => return Ok(Self::Elf),
            _ if macho::is_mach_o(object) => return Ok(Self::MachO),
            _ if coff::is_coff(object) => return Ok(Self::Coff),
            [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] => "a big-endian Mach-O file",
            [0xca, 0xfe, 0xba, 0xbe | 0xbf, ..] => "a Mach-O file for several architectures",
            [b'M', b'Z', ..] => "a linked PE file",
            [0, 0, 0xff, 0xff, ..] => "a member of an import library, or of a form of COFF that is not known",
            _ => "not an object file",
        };
        Err(RecordError::UnsupportedFormat(other))
    }
}

/// The contents of every section for records.
fn comments(object: &[u8]) -> Result<Vec<&[u8]>, RecordError> {
    match Format::of(object)? {
        Format::Elf => elf::comments(object),
        Format::MachO => macho::comments(object),
        Format::Coff => coff::comments(object),
    }
}

/// The text of the one record of an object.
fn record_text(object: &[u8]) -> Result<&[u8], RecordError> {
    let mut texts: Vec<&[u8]> = comments(object)?
        .into_iter()
        .flat_map(|comment| comment.split(|&byte| byte == 0))
        .filter(|string| string.starts_with(b"objcache-record:"))
        .collect();
    texts.sort_unstable();
    texts.dedup();
    match texts[..] {
        [] => Err(RecordError::Absent),
        [text] => Ok(text),
        _ => Err(RecordError::Ambiguous(texts.len())),
    }
}

/// Where in the object its seal stands: the last digits of the record.
fn seal_place(object: &[u8]) -> Result<Range<usize>, RecordError> {
    let text = record_text(object)?;
    // The text is a part of the object, so the distance of their first bytes is its offset.
    let end = text.as_ptr().addr() - object.as_ptr().addr() + text.len();
    match end.checked_sub(UNSEALED.len()) {
        Some(start) if text.len() > UNSEALED.len() => Ok(start..end),
        _ => Err(RecordError::Damaged("it has no seal".to_owned())),
    }
}

fn seal_of(object: &[u8], place: &Range<usize>) -> impl std::ops::Deref<Target = str> + use<> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&object[..place.start]).update(&UNSEALED).update(&object[place.end..]);
    hasher.finalize().to_hex()
}

impl Record {
    /// Everything but the seal, which needs the whole object.
    fn to_text(&self) -> String {
        let (document, provenance) = (self.key_document.as_bytes(), self.provenance.encode());
        let mut out = TlvWriter::default();
        out.bytes(tag::KEY_DOCUMENT, document);
        out.bytes(tag::PROVENANCE, &provenance);
        out.bytes(tag::CHECK, &check(document, &provenance));
        format!("{PREFIX}{}.", BASE64.encode(out.finish()))
    }

    fn from_text(text: &[u8]) -> Result<Self, RecordError> {
        let Some(payload) = text.strip_prefix(PREFIX.as_bytes()) else {
            let head = &text[..text.len().min(PREFIX.len())];
            return Err(RecordError::Version(String::from_utf8_lossy(head).into_owned()));
        };
        let (payload, seal) = payload.split_at(payload.len().saturating_sub(UNSEALED.len()));
        let payload = payload.strip_suffix(b".").filter(|_| seal.iter().all(u8::is_ascii_hexdigit));
        let payload = payload.ok_or_else(|| RecordError::Damaged("it has no seal".to_owned()))?;
        let bytes = BASE64.decode(payload).map_err(|error| RecordError::Damaged(error.to_string()))?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let (mut document, mut provenance, mut found) = (None, None, None);
        for item in TlvReader::new(bytes) {
            let item = item?;
            match item.tag {
                tag::KEY_DOCUMENT => document = Some(item.bytes()?),
                tag::PROVENANCE => provenance = Some(item.bytes()?),
                tag::CHECK => found = Some(item.bytes()?),
                _ => {}
            }
        }
        let (Some(document), Some(provenance), Some(found)) = (document, provenance, found) else {
            return Err(RecordError::Damaged("a part is missing".to_owned()));
        };
        if found != check(document, provenance) {
            return Err(RecordError::Damaged("its check sum does not match".to_owned()));
        }
        Ok(Self { key_document: KeyDocument::parse(document)?, provenance: Provenance::decode(provenance)? })
    }
}

fn check(document: &[u8], provenance: &[u8]) -> [u8; CHECK_LENGTH] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(document.len() as u64).to_le_bytes()).update(document).update(provenance);
    let mut check = [0; CHECK_LENGTH];
    hasher.finalize_xof().fill(&mut check);
    check
}

impl From<DocumentError> for RecordError {
    fn from(error: DocumentError) -> Self {
        Self::Damaged(error.to_string())
    }
}
