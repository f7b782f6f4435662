//! Sections and symbols of an object file, as `show` lists them.

use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind, SymbolSection};
use serde::Serialize;

use crate::output::table::{Column, table};

/// What there is in an object.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) sections: Vec<Section>,
    pub(crate) symbols: Vec<Symbol>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Section {
    name: String,
    kind: &'static str,
    bytes: u64,
    align: u64,
    relocations: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Symbol {
    name: String,
    kind: &'static str,
    binding: &'static str,
    /// Its section's name; `None` for a symbol that another object defines.
    section: Option<String>,
    bytes: u64,
}

impl Summary {
    /// What there is in `bytes`.
    ///
    /// # Errors
    /// When they are no object file of a format that is known here.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, String> {
        let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            sections: file.sections().map(|section| Section::of(&section)).collect(),
            symbols: file.symbols().filter(is_named).map(|symbol| Symbol::of(&file, &symbol)).collect(),
        })
    }

    pub(crate) fn section_table(&self, styled: bool) -> String {
        let columns = [
            Column::Left("SECTION"),
            Column::Left("KIND"),
            Column::Right("BYTES"),
            Column::Right("ALIGN"),
            Column::Right("RELOCATIONS"),
        ];
        let rows = self.sections.iter().map(|section| {
            vec![
                section.name.clone(),
                section.kind.to_owned(),
                section.bytes.to_string(),
                section.align.to_string(),
                section.relocations.to_string(),
            ]
        });
        table(&columns, rows, styled)
    }

    pub(crate) fn symbol_table(&self, styled: bool) -> String {
        let columns = [
            Column::Left("SYMBOL"),
            Column::Left("KIND"),
            Column::Left("BINDING"),
            Column::Right("BYTES"),
            Column::Left("SECTION"),
        ];
        let rows = self.symbols.iter().map(|symbol| {
            vec![
                symbol.name.clone(),
                symbol.kind.to_owned(),
                symbol.binding.to_owned(),
                symbol.bytes.to_string(),
                symbol.section.clone().unwrap_or_else(|| "(undefined)".to_owned()),
            ]
        });
        table(&columns, rows, styled)
    }
}

impl Section {
    fn of(section: &object::Section<'_, '_>) -> Self {
        Self {
            name: lossy(section.name_bytes()),
            kind: section_kind(section.kind()),
            bytes: section.size(),
            align: section.align(),
            relocations: section.relocations().count() as u64,
        }
    }
}

/// Symbols of sections and files only mark places.
fn is_named(symbol: &object::Symbol<'_, '_>) -> bool {
    !matches!(symbol.kind(), SymbolKind::Section | SymbolKind::File)
        && symbol.name_bytes().is_ok_and(|name| !name.is_empty())
}

impl Symbol {
    fn of(file: &object::File<'_>, symbol: &object::Symbol<'_, '_>) -> Self {
        Self {
            name: lossy(symbol.name_bytes()),
            kind: symbol_kind(symbol.kind()),
            binding: match (symbol.is_local(), symbol.is_weak()) {
                (true, _) => "local",
                (false, true) => "weak",
                (false, false) => "global",
            },
            section: match symbol.section() {
                SymbolSection::Undefined => None,
                SymbolSection::Common => Some("(common)".to_owned()),
                SymbolSection::Absolute => Some("(absolute)".to_owned()),
                SymbolSection::Section(index) => Some(
                    file.section_by_index(index)
                        .map_or("?".to_owned(), |section| lossy(section.name_bytes())),
                ),
                _ => Some("?".to_owned()),
            },
            bytes: symbol.size(),
        }
    }
}

fn lossy(name: object::Result<&[u8]>) -> String {
    name.map_or("?".to_owned(), |name| String::from_utf8_lossy(name).into_owned())
}

fn section_kind(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Text => "code",
        SectionKind::Data => "data",
        SectionKind::ReadOnlyData | SectionKind::ReadOnlyString | SectionKind::ReadOnlyDataWithRel => {
            "constants"
        }
        SectionKind::UninitializedData => "zero",
        SectionKind::Tls | SectionKind::UninitializedTls | SectionKind::TlsVariables => "thread-local",
        SectionKind::Debug | SectionKind::DebugString => "debug",
        SectionKind::Note => "note",
        SectionKind::Metadata => "metadata",
        SectionKind::OtherString => "strings",
        SectionKind::Linker => "linker",
        _ => "other",
    }
}

fn symbol_kind(kind: SymbolKind) -> &'static str {
    match kind {
        SymbolKind::Text => "function",
        SymbolKind::Data => "data",
        SymbolKind::Tls => "thread-local",
        SymbolKind::Label => "label",
        _ => "unknown",
    }
}
