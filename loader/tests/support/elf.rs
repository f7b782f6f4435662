//! A small writer of ELF x86-64 objects, for objects that no compiler makes: one relocation a section, lies in
//! headers.

/// An object to be written. Section numbers count from 1, in the order of `section` calls; symbol numbers from 1.
#[derive(Debug, Default, Clone)]
pub struct Object {
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
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
        let mut names = vec![0];
        let mut headers = vec![[0u8; 64]];
        let mut file = vec![0u8; 64];
        for section in &self.sections {
            let offset = file.len() as u64;
            file.extend(&section.bytes);
            let size = section.size.unwrap_or(section.bytes.len() as u64);
            let name = add_string(&mut names, &section.name);
            let link = if section.kind == GROUP { symbol_table } else { section.link };
            let fields = [section.flags, 0, offset, size];
            let entry = if section.kind == GROUP { 4 } else { 0 };
            headers.push(header(name, section.kind, fields, link, section.info, section.align, entry));
        }
        for number in relocated {
            let section = &self.sections[number];
            let offset = file.len() as u64;
            for relocation in &section.relocations {
                file.extend(relocation.offset.to_le_bytes());
                file.extend((u64::from(relocation.symbol) << 32 | u64::from(relocation.kind)).to_le_bytes());
                file.extend(relocation.addend.to_le_bytes());
            }
            let name = add_string(&mut names, &format!(".rela{}", section.name));
            let fields = [0x40, 0, offset, file.len() as u64 - offset];
            headers.push(header(name, 4, fields, symbol_table, number as u32 + 1, 8, 24));
        }
        let mut strings = vec![0];
        let offset = file.len() as u64;
        file.extend([0; 24]);
        for symbol in &self.symbols {
            file.extend((add_string(&mut strings, &symbol.name)).to_le_bytes());
            file.extend([symbol.info, symbol.other]);
            file.extend(symbol.section.to_le_bytes());
            file.extend(symbol.value.to_le_bytes());
            file.extend(symbol.size.to_le_bytes());
        }
        let locals = self.symbols.iter().take_while(|symbol| symbol.info >> 4 == 0).count() as u32 + 1;
        let name = add_string(&mut names, ".symtab");
        let fields = [0, 0, offset, file.len() as u64 - offset];
        headers.push(header(name, 2, fields, symbol_table + 1, locals, 8, 24));
        for (name, strings) in [(".strtab", Some(strings)), (".shstrtab", None)] {
            let name = add_string(&mut names, name);
            let strings = strings.unwrap_or_else(|| names.clone());
            let offset = file.len() as u64;
            file.extend(&strings);
            headers.push(header(name, 3, [0, 0, offset, strings.len() as u64], 0, 0, 1, 0));
        }
        let table = file.len() as u64;
        file.extend(headers.concat());
        file[..64].copy_from_slice(&file_header(table, headers.len() as u16));
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

fn header(name: u32, kind: u32, fields: [u64; 4], link: u32, info: u32, align: u64, entry: u64) -> [u8; 64] {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(name.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    fields.iter().for_each(|field| bytes.extend(field.to_le_bytes()));
    bytes.extend(link.to_le_bytes());
    bytes.extend(info.to_le_bytes());
    bytes.extend(align.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
    bytes.try_into().unwrap()
}

fn file_header(table: u64, count: u16) -> [u8; 64] {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(1u16.to_le_bytes()); // ET_REL
    bytes.extend(62u16.to_le_bytes()); // EM_X86_64
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(table.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    for field in [64u16, 0, 0, 64, count, count - 1] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.try_into().unwrap()
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
