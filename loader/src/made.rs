//! Functions that an ABI leaves to the linker: they become one more object of the link, made when objects refer to such names
//! and none of them defines them.

use std::collections::BTreeSet;

use crate::arch::{Architecture, ElfIdentity, Machine, with_architecture};
use crate::error::LoadError;
use crate::graph::{Binding, Format, SymbolPlace};
use crate::limits::{Limits, NameBudget};
use crate::link::Object;

/// What the object is called in link maps and messages.
pub(crate) const NAME: &str = "(functions of the linker)";

/// A section of code.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub(crate) section: String,
    pub(crate) bytes: Vec<u8>,
    /// Names with their offsets.
    pub(crate) functions: Vec<(String, u64)>,
}

/// The object with what the others lack, if they lack any.
pub(crate) fn of(
    machine: Machine,
    objects: &[Object<'_>],
    limits: &Limits,
) -> Result<Option<Vec<u8>>, LoadError> {
    with_architecture!(machine, A => object::<A>(objects, limits))
}

fn object<A: Architecture>(objects: &[Object<'_>], limits: &Limits) -> Result<Option<Vec<u8>>, LoadError> {
    let Some(identity) = A::IDENTITY.elf.filter(|_| !A::LINKER_FUNCTIONS.is_empty()) else { return Ok(None) };
    let (mut wanted, mut defined) = (BTreeSet::new(), BTreeSet::new());
    let mut budget = NameBudget::of(limits);
    for Object { graph, .. } in objects.iter().filter(|object| object.graph.format == Format::Elf) {
        graph.symbols.try_for_each(|_, symbol| {
            if symbol.binding == Binding::Local {
                return Ok(());
            }
            let name = graph.symbols.name(&symbol)?;
            budget.spend(name)?;
            let name = std::str::from_utf8(name).unwrap_or_default();
            if A::LINKER_FUNCTIONS.iter().any(|prefix| name.starts_with(prefix)) {
                let names = if symbol.place == SymbolPlace::Undefined { &mut wanted } else { &mut defined };
                names.insert(name);
            }
            Ok(())
        })?;
    }
    wanted.retain(|name| !defined.contains(name));
    let sections = if wanted.is_empty() { Vec::new() } else { A::linker_functions(&wanted) };
    Ok((!sections.is_empty()).then(|| elf(identity, &sections)))
}

/// An ELF object of 64 bits, little-endian, with no more than code and hidden functions (gABI, "Object Files").
fn elf(identity: ElfIdentity, sections: &[Code]) -> Vec<u8> {
    const HEADER: usize = 64;
    const SECTION_HEADER: usize = 64;
    const SYMBOL: usize = 24;
    let mut names = vec![0u8];
    let mut name = |text: &str| {
        let offset = names.len() as u32;
        names.extend(text.as_bytes());
        names.push(0);
        offset
    };
    let mut symbols = vec![0u8; SYMBOL];
    let mut contents = Vec::new();
    let mut headers = vec![[0u64; 10]];
    for (number, Code { section, bytes, functions }) in sections.iter().enumerate() {
        const PROGBITS: u64 = 1;
        const ALLOC_AND_EXECUTE: u64 = 2 | 4;
        let offset = (HEADER + contents.len()) as u64;
        let size = bytes.len() as u64;
        headers.push([name(section).into(), PROGBITS, ALLOC_AND_EXECUTE, 0, offset, size, 0, 0, 4, 0]);
        contents.extend(bytes);
        for (function, offset) in functions {
            const GLOBAL_FUNCTION: u8 = 1 << 4 | 2;
            const HIDDEN: u8 = 2;
            symbols.extend(name(function).to_le_bytes());
            symbols.extend([GLOBAL_FUNCTION, HIDDEN]);
            symbols.extend((number as u16 + 1).to_le_bytes());
            symbols.extend(offset.to_le_bytes());
            symbols.extend(0u64.to_le_bytes());
        }
    }
    let [symbol_table, string_table] = [".symtab", ".strtab"].map(&mut name);
    let strings = headers.len() as u64 + 1;
    contents.resize(contents.len().next_multiple_of(8), 0);
    let offset = (HEADER + contents.len()) as u64;
    // The first global symbol is that after the empty one.
    headers.push([symbol_table.into(), 2, 0, 0, offset, symbols.len() as u64, strings, 1, 8, SYMBOL as u64]);
    contents.extend(symbols);
    let offset = (HEADER + contents.len()) as u64;
    headers.push([string_table.into(), 3, 0, 0, offset, names.len() as u64, 0, 0, 1, 0]);
    contents.extend(names);
    contents.resize(contents.len().next_multiple_of(8), 0);

    let mut object = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const RELOCATABLE: u16 = 1;
    object.extend(RELOCATABLE.to_le_bytes());
    object.extend(identity.e_machine.to_le_bytes());
    object.extend(1u32.to_le_bytes());
    object.extend([0u8; 16]); // no entry, no program headers
    object.extend(((HEADER + contents.len()) as u64).to_le_bytes());
    object.extend(0u32.to_le_bytes()); // flags, which no reader of ours looks at
    let sizes = [HEADER as u16, 0, 0, SECTION_HEADER as u16, headers.len() as u16, headers.len() as u16 - 1];
    sizes.iter().for_each(|size| object.extend(size.to_le_bytes()));
    object.extend(contents);
    for [name, kind, flags, address, offset, size, link, info, align, entry] in headers {
        object.extend((name as u32).to_le_bytes());
        object.extend((kind as u32).to_le_bytes());
        [flags, address, offset, size].iter().for_each(|field| object.extend(field.to_le_bytes()));
        object.extend((link as u32).to_le_bytes());
        object.extend((info as u32).to_le_bytes());
        [align, entry].iter().for_each(|field| object.extend(field.to_le_bytes()));
    }
    object
}
