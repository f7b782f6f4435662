//! The layout: what a linked image holds and where, as a JSON document (`JSON.md`) or as a table.

use std::fmt::Write as _;
use std::io;

use objcache::loader::{FileMap, LinkMap, LoadedImage, MappedSection};
use serde::Serialize;

use super::target::Target;
use crate::failure::Failure;
use crate::output::table::{Column, table};
use crate::output::{Report, Text};

/// The version of the document: fields are only ever added.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(crate) struct Layout {
    version: u32,
    #[serde(flatten)]
    target: Target,
    /// Where the image begins.
    base: u64,
    pub(crate) files: Vec<File>,
    absolute: Vec<Absolute>,
}

#[derive(Debug, Serialize)]
pub(crate) struct File {
    name: String,
    pub(crate) sections: Vec<Section>,
    symbols: Vec<Symbol>,
    got: Vec<Slot>,
    stubs: Vec<Stub>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Section {
    name: String,
    pub(crate) addr: u64,
    size: u64,
    /// Absent for a section that is all zeros.
    #[serde(rename = "bytes", skip_serializing_if = "Option::is_none", serialize_with = "hexadecimal")]
    pub(crate) content: Option<Vec<u8>>,
}

#[derive(Debug, Serialize)]
struct Symbol {
    name: String,
    addr: u64,
    size: u64,
    flags: u32,
}

#[derive(Debug, Serialize)]
struct Slot {
    target: String,
    addr: u64,
    size: u64,
}

#[derive(Debug, Serialize)]
struct Stub {
    target: String,
    addr: u64,
    size: u64,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct Absolute {
    name: String,
    addr: u64,
}

/// [`Symbol::flags`] of Thumb code.
const THUMB: u32 = 1;

impl Layout {
    pub(crate) fn new(image: &LoadedImage, map: &LinkMap, target: Target) -> Self {
        let absolute = map.absolute.iter().map(|(name, addr)| Absolute { name: name.clone(), addr: *addr });
        Layout {
            version: VERSION,
            target,
            base: map.image,
            files: map.files.iter().map(|file| File::new(image, file)).collect(),
            absolute: absolute.collect(),
        }
    }

    pub(crate) fn to_json(&self) -> Result<String, Failure> {
        let mut text = serde_json::to_string(self).map_err(|error| Failure::unreadable(&error))?;
        text.push('\n');
        Ok(text)
    }
}

impl File {
    fn new(image: &LoadedImage, file: &FileMap) -> Self {
        File {
            name: file.name.clone(),
            sections: file.sections.iter().map(|section| Section::new(image, section)).collect(),
            symbols: file
                .symbols
                .iter()
                .map(|symbol| Symbol {
                    name: symbol.name.clone(),
                    addr: symbol.address,
                    size: symbol.size,
                    flags: if symbol.thumb { THUMB } else { 0 },
                })
                .collect(),
            got: file
                .got
                .iter()
                .map(|slot| Slot { target: slot.target.clone(), addr: slot.address, size: slot.size })
                .collect(),
            stubs: file
                .stubs
                .iter()
                .map(|stub| Stub {
                    target: stub.target.clone(),
                    addr: stub.address,
                    size: stub.size,
                    kind: stub.kind,
                })
                .collect(),
        }
    }
}

impl Section {
    fn new(image: &LoadedImage, section: &MappedSection) -> Self {
        let end = section.offset + section.size as usize;
        let bytes = image.linked_bytes(section.segment).and_then(|bytes| bytes.get(section.offset..end));
        Section {
            name: section.name.clone(),
            addr: section.address,
            size: section.size,
            content: bytes.filter(|_| !section.zero_fill).map(<[u8]>::to_vec),
        }
    }
}

fn hexadecimal<S: serde::Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = bytes.as_deref().unwrap_or_default();
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    serializer.serialize_str(&text)
}

impl Report for Layout {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let columns =
            [Column::Left("FILE"), Column::Left("SECTION"), Column::Right("ADDRESS"), Column::Right("SIZE")];
        let rows = self.files.iter().flat_map(|file| {
            file.sections.iter().map(|section| {
                let (address, size) = (format!("{:#x}", section.addr), format!("{:#x}", section.size));
                vec![file.name.clone(), section.name.clone(), address, size]
            })
        });
        text.laid_out(&table(&columns, rows, text.styled))
    }
}
