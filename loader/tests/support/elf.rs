//! A small writer of ELF objects, for objects that no compiler makes: one relocation a section, lies in headers. Of
//! either class and byte order, with or without explicit addends; x86-64 unless told otherwise.

/// An object to be written. Section numbers count from 1, in the order of `section` calls; symbol numbers from 1.
#[derive(Debug, Default, Clone)]
pub struct Object {
    pub target: Target,
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
}

/// What the ELF header says of the machine, and the form of relocation tables that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub machine: u16,
    /// 32 or 64.
    pub class: u8,
    pub big_endian: bool,
    /// Relocations have addends of their own (`SHT_RELA`).
    pub explicit_addends: bool,
    /// `e_flags`.
    pub flags: u32,
}

impl Default for Target {
    fn default() -> Self {
        Target { machine: 62, class: 64, big_endian: false, explicit_addends: true, flags: 0 }
    }
}

impl Target {
    /// Bytes of a number as the target stores it.
    pub fn number(&self, value: u64, width: usize) -> Vec<u8> {
        let mut bytes = value.to_le_bytes()[..width].to_vec();
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    /// Bytes of an address.
    pub fn word(&self) -> usize {
        usize::from(self.class) / 8
    }

    /// Numbers of the given widths, one after the other; 0 stands for that of an address.
    fn record(&self, fields: &[(u64, usize)]) -> Vec<u8> {
        let width = |width| if width == 0 { self.word() } else { width };
        fields.iter().flat_map(|(value, bytes)| self.number(*value, width(*bytes))).collect()
    }

    fn symbol(&self, name: u32, symbol: &Symbol) -> Vec<u8> {
        let name = (u64::from(name), 4);
        let info =
            [(u64::from(symbol.info), 1), (u64::from(symbol.other), 1), (u64::from(symbol.section), 2)];
        let value = [(symbol.value, 0), (symbol.size, 0)];
        let [first, last] = if self.class == 64 { [&info[..], &value[..]] } else { [&value[..], &info[..]] };
        self.record(&[&[name], first, last].concat())
    }

    fn relocation(&self, relocation: &Relocation) -> Vec<u8> {
        let kind_bits = if self.class == 64 { 32 } else { 8 };
        let info = u64::from(relocation.symbol) << kind_bits | u64::from(relocation.kind);
        let mut record = self.record(&[(relocation.offset, 0), (info, 0)]);
        if self.explicit_addends {
            record.extend(self.number(relocation.addend as u64, self.word()));
        }
        record
    }

    fn section_header(&self, header: &Header) -> Vec<u8> {
        let [flags, address, offset, size] = header.fields.map(|field| (field, 0));
        self.record(&[
            (u64::from(header.name), 4),
            (u64::from(header.kind), 4),
            flags,
            address,
            offset,
            size,
            (u64::from(header.link), 4),
            (u64::from(header.info), 4),
            (header.align, 0),
            (header.entry, 0),
        ])
    }

    fn file_header(&self, table: u64, count: u64) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', self.class / 32, 1 + u8::from(self.big_endian), 1];
        bytes.resize(16, 0);
        bytes.extend(self.record(&[
            (1, 2), // ET_REL
            (u64::from(self.machine), 2),
            (1, 4),
            (0, 0),
            (0, 0),
            (table, 0),
            (u64::from(self.flags), 4),
            (self.file_header_size(), 2),
            (0, 2),
            (0, 2),
            (self.section_header_size(), 2),
            (count, 2),
            (count - 1, 2),
        ]));
        bytes
    }

    fn file_header_size(&self) -> u64 {
        if self.class == 64 { 64 } else { 52 }
    }

    fn section_header_size(&self) -> u64 {
        if self.class == 64 { 64 } else { 40 }
    }
}

/// A section header.
#[derive(Default)]
struct Header {
    name: u32,
    kind: u32,
    /// Flags, address, offset, size.
    fields: [u64; 4],
    link: u32,
    info: u32,
    align: u64,
    entry: u64,
}

#[derive(Debug, Clone)]
pub struct Section {
    pub name: String,
    pub kind: u32,
    pub flags: u64,
    pub bytes: Vec<u8>,
    /// Size, if it is not that of `bytes`.
    pub size: Option<u64>,
    pub align: u64,
    pub link: u32,
    pub info: u32,
    pub relocations: Vec<Relocation>,
}

#[derive(Debug, Clone, Copy)]
pub struct Relocation {
    pub offset: u64,
    pub kind: u32,
    pub symbol: u32,
    pub addend: i64,
}

#[derive(Debug, Clone)]
pub struct Symbol {
    pub name: String,
    pub info: u8,
    pub other: u8,
    pub section: u16,
    pub value: u64,
    pub size: u64,
}

pub const PROGBITS: u32 = 1;
pub const NOBITS: u32 = 8;
pub const GROUP: u32 = 17;
pub const WRITE: u64 = 1;
pub const ALLOC: u64 = 2;
pub const EXEC: u64 = 4;
pub const TLS: u64 = 0x400;
pub const COMPRESSED: u64 = 0x800;
pub const ABS: u16 = 0xfff1;
pub const COMMON: u16 = 0xfff2;
pub const LOCAL: u8 = 0;
pub const GLOBAL: u8 = 0x10;
pub const WEAK: u8 = 0x20;
pub const FUNC: u8 = 2;

impl Object {
    pub fn section(&mut self, name: &str, flags: u64, bytes: &[u8]) -> &mut Section {
        self.sections.push(Section {
            name: name.to_owned(),
            kind: PROGBITS,
            flags: ALLOC | flags,
            bytes: bytes.to_vec(),
            size: None,
            align: 1,
            link: 0,
            info: 0,
            relocations: Vec::new(),
        });
        self.sections.last_mut().unwrap()
    }

    /// Returns the symbol's number. Local symbols must come before all others.
    pub fn symbol(&mut self, name: &str, info: u8, section: u16, value: u64) -> u32 {
        let name = name.to_owned();
        self.symbols.push(Symbol { name, info, other: 0, section, value, size: 0 });
        self.symbols.len() as u32
    }

    /// The object's bytes: header, section contents, tables, section headers.
    pub fn build(&self) -> Vec<u8> {
        let relocated: Vec<usize> = (0..self.sections.len())
            .filter(|number| !self.sections[*number].relocations.is_empty())
            .collect();
        let symbol_table = (1 + self.sections.len() + relocated.len()) as u32;
        let target = &self.target;
        let mut names = vec![0];
        let mut headers = vec![Header::default()];
        let mut file = vec![0u8; target.file_header_size() as usize];
        for section in &self.sections {
            let offset = file.len() as u64;
            file.extend(&section.bytes);
            let size = section.size.unwrap_or(section.bytes.len() as u64);
            let is_group = section.kind == GROUP;
            headers.push(Header {
                name: add_string(&mut names, &section.name),
                kind: section.kind,
                fields: [section.flags, 0, offset, size],
                link: if is_group { symbol_table } else { section.link },
                info: section.info,
                align: section.align,
                entry: if is_group { 4 } else { 0 },
            });
        }
        let (prefix, kind) = if target.explicit_addends { (".rela", 4) } else { (".rel", 9) };
        let word = target.word() as u64;
        for number in relocated {
            let section = &self.sections[number];
            let offset = file.len() as u64;
            for relocation in &section.relocations {
                file.extend(target.relocation(relocation));
            }
            headers.push(Header {
                name: add_string(&mut names, &format!("{prefix}{}", section.name)),
                kind,
                fields: [0x40, 0, offset, file.len() as u64 - offset],
                link: symbol_table,
                info: number as u32 + 1,
                align: word,
                entry: if target.explicit_addends { 3 * word } else { 2 * word },
            });
        }
        let mut strings = vec![0];
        let offset = file.len() as u64;
        let symbol_size = if target.class == 64 { 24 } else { 16 };
        file.resize(file.len() + symbol_size, 0);
        for symbol in &self.symbols {
            let name = add_string(&mut strings, &symbol.name);
            file.extend(target.symbol(name, symbol));
        }
        let locals = self.symbols.iter().take_while(|symbol| symbol.info >> 4 == 0).count() as u32 + 1;
        headers.push(Header {
            name: add_string(&mut names, ".symtab"),
            kind: 2,
            fields: [0, 0, offset, file.len() as u64 - offset],
            link: symbol_table + 1,
            info: locals,
            align: word,
            entry: symbol_size as u64,
        });
        for (name, strings) in [(".strtab", Some(strings)), (".shstrtab", None)] {
            let name = add_string(&mut names, name);
            let strings = strings.unwrap_or_else(|| names.clone());
            let fields = [0, 0, file.len() as u64, strings.len() as u64];
            file.extend(&strings);
            headers.push(Header { name, kind: 3, fields, align: 1, ..Header::default() });
        }
        let table = file.len() as u64;
        for header in &headers {
            file.extend(target.section_header(header));
        }
        let header = target.file_header(table, headers.len() as u64);
        file[..header.len()].copy_from_slice(&header);
        file
    }
}

impl Section {
    pub fn relocate(&mut self, offset: u64, kind: u32, symbol: u32, addend: i64) -> &mut Self {
        self.relocations.push(Relocation { offset, kind, symbol, addend });
        self
    }
}

fn add_string(table: &mut Vec<u8>, string: &str) -> u32 {
    let offset = table.len() as u32;
    table.extend(string.as_bytes());
    table.push(0);
    offset
}

/// `mov $number, %eax; ret`, with read-only data and a variable.
pub fn tiny(number: i32) -> Vec<u8> {
    let mut object = Object::default();
    object.symbol("number", GLOBAL | FUNC, 1, 0);
    let variable = object.symbol("variable", GLOBAL, 2, 0);
    let mut code = vec![0xb8, 0, 0, 0, 0, 0xc3];
    code[1..5].copy_from_slice(&number.to_le_bytes());
    object.section(".text", EXEC, &code).align = 16;
    object.section(".data", WRITE, &number.to_le_bytes()).align = 8;
    object.section(".data.rel.ro", WRITE, &[0; 8]).relocate(0, 1, variable, 0).align = 8;
    object.build()
}
