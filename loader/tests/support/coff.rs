//! A small writer of COFF objects of either shape, for objects that no compiler makes: one relocation a section, lies in
//! headers.

/// An object to be written. Section numbers count from 1, in the order of `section` calls; symbol numbers from 0, with
/// auxiliary records.
#[derive(Debug, Default, Clone)]
pub struct Object {
    pub machine: u16,
    /// Written as `/bigobj`.
    pub big: bool,
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
}

#[derive(Debug, Default, Clone)]
pub struct Section {
    pub name: String,
    pub flags: u32,
    pub bytes: Vec<u8>,
    /// Size, if it is not that of `bytes`.
    pub size: Option<u32>,
    /// Where the bytes are said to be, if not where they are.
    pub at: Option<u32>,
    /// How many relocations there are said to be.
    pub count: Option<u16>,
    pub relocations: Vec<Relocation>,
}

#[derive(Debug, Clone, Copy)]
pub struct Relocation {
    pub offset: u32,
    pub symbol: u32,
    pub kind: u16,
}

#[derive(Debug, Default, Clone)]
pub struct Symbol {
    pub name: String,
    pub value: u32,
    pub section: i32,
    pub kind: u16,
    pub class: u8,
    pub records: Vec<[u8; 18]>,
    /// How many records there are said to be.
    pub record_count: Option<u8>,
}

pub const X86_64: u16 = 0x8664;
pub const ARM64: u16 = 0xaa64;
pub const I386: u16 = 0x014c;

pub const CODE: u32 = 0x6000_0020;
pub const DATA: u32 = 0xc000_0040;
pub const READ_ONLY: u32 = 0x4000_0040;
pub const BSS: u32 = 0xc000_0080;
pub const COMDAT: u32 = 0x1000;
pub const REMOVE: u32 = 0x800;
pub const ALIGN_1: u32 = 0x0010_0000;
pub const ALIGN_16: u32 = 0x0050_0000;
pub const OVERFLOW: u32 = 0x0100_0000;

pub const EXTERNAL: u8 = 2;
pub const STATIC: u8 = 3;
pub const LABEL: u8 = 6;
pub const WEAK: u8 = 105;
pub const FUNCTION: u16 = 0x20;
pub const ABSOLUTE: i32 = -1;
pub const DEBUG: i32 = -2;

pub const ANY: u8 = 2;
pub const ASSOCIATIVE: u8 = 5;

/// The class of `/bigobj`: {D1BAA1C7-BAEE-4ba9-AF20-FAF66AA4DCB8}.
const BIG_CLASS: [u8; 16] =
    [0xc7, 0xa1, 0xba, 0xd1, 0xee, 0xba, 0xa9, 0x4b, 0xaf, 0x20, 0xfa, 0xf6, 0x6a, 0xa4, 0xdc, 0xb8];

impl Object {
    pub fn new(machine: u16) -> Self {
        Object { machine, ..Object::default() }
    }

    pub fn section(&mut self, name: &str, flags: u32, bytes: &[u8]) -> &mut Section {
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        self.sections.push(Section { name, flags, bytes, ..Section::default() });
        self.sections.last_mut().unwrap()
    }

    /// Returns the symbol's number.
    pub fn symbol(&mut self, name: &str, class: u8, section: i32, value: u32) -> u32 {
        let number = self.symbols.iter().map(|symbol| 1 + symbol.records.len()).sum::<usize>();
        self.symbols.push(Symbol { name: name.to_owned(), value, section, class, ..Symbol::default() });
        number as u32
    }

    /// The symbol that defines a COMDAT section, with its auxiliary record.
    pub fn definition(&mut self, section: i32, selection: u8, associated: u32) -> u32 {
        let name = self.sections[section as usize - 1].name.clone();
        let number = self.symbol(&name, STATIC, section, 0);
        let mut record = [0; 18];
        let [low, high] = [associated as u16, (associated >> 16) as u16];
        record[12..14].copy_from_slice(&low.to_le_bytes());
        record[14] = selection;
        record[16..18].copy_from_slice(&high.to_le_bytes());
        self.symbols.last_mut().unwrap().records.push(record);
        number
    }

    /// A weak external with its default.
    pub fn weak(&mut self, name: &str, default: u32, search: u32) -> u32 {
        let number = self.symbol(name, WEAK, 0, 0);
        let mut record = [0; 18];
        record[..4].copy_from_slice(&default.to_le_bytes());
        record[4..8].copy_from_slice(&search.to_le_bytes());
        self.symbols.last_mut().unwrap().records.push(record);
        number
    }

    /// The object's bytes: header, section headers, contents with relocations, symbols, strings.
    pub fn build(&self) -> Vec<u8> {
        let header = if self.big { 56 } else { 20 };
        let mut file = vec![0u8; header + 40 * self.sections.len()];
        let mut strings = vec![0; 4];
        let mut headers = Vec::new();
        for section in &self.sections {
            headers.extend(section.build(&mut file, &mut strings));
        }
        file[header..][..headers.len()].copy_from_slice(&headers);
        let symbols_at = file.len() as u32;
        let mut count = 0u32;
        for symbol in &self.symbols {
            symbol.build(self.big, &mut file, &mut strings);
            count += 1 + symbol.records.len() as u32;
        }
        let size = strings.len() as u32;
        strings[..4].copy_from_slice(&size.to_le_bytes());
        file.extend(strings);
        let header = self.header(symbols_at, count);
        file[..header.len()].copy_from_slice(&header);
        file
    }

    fn header(&self, symbols_at: u32, symbols: u32) -> Vec<u8> {
        let sections = self.sections.len() as u32;
        let mut header = Vec::new();
        if self.big {
            header.extend([0, 0, 0xff, 0xff, 2, 0]);
            header.extend(self.machine.to_le_bytes());
            header.extend(0u32.to_le_bytes());
            header.extend(BIG_CLASS);
            header.extend([0; 16]);
            [sections, symbols_at, symbols].iter().for_each(|word| header.extend(word.to_le_bytes()));
        } else {
            header.extend(self.machine.to_le_bytes());
            header.extend((sections as u16).to_le_bytes());
            [0, symbols_at, symbols, 0].iter().for_each(|word: &u32| header.extend(word.to_le_bytes()));
        }
        header
    }
}

impl Section {
    pub fn relocate(&mut self, offset: u32, kind: u16, symbol: u32) -> &mut Self {
        self.relocations.push(Relocation { offset, symbol, kind });
        self
    }

    /// Appends contents and relocations, and returns the header.
    fn build(&self, file: &mut Vec<u8>, strings: &mut Vec<u8>) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(match self.name.as_bytes() {
            short if short.len() <= 8 => padded(short),
            long => padded(format!("/{}", add_string(strings, long)).as_bytes()),
        });
        let at = if self.bytes.is_empty() { 0 } else { file.len() as u32 };
        file.extend(&self.bytes);
        let size = self.size.unwrap_or(self.bytes.len() as u32);
        let relocations_at = if self.relocations.is_empty() { 0 } else { file.len() as u32 };
        for Relocation { offset, symbol, kind } in &self.relocations {
            file.extend(offset.to_le_bytes());
            file.extend(symbol.to_le_bytes());
            file.extend(kind.to_le_bytes());
        }
        [0, 0, size, self.at.unwrap_or(at), relocations_at, 0]
            .iter()
            .for_each(|word: &u32| header.extend(word.to_le_bytes()));
        let count = self.count.unwrap_or(self.relocations.len() as u16);
        header.extend(count.to_le_bytes());
        header.extend([0, 0]);
        header.extend(self.flags.to_le_bytes());
        header
    }
}

impl Symbol {
    fn build(&self, big: bool, file: &mut Vec<u8>, strings: &mut Vec<u8>) {
        match self.name.as_bytes() {
            short if short.len() <= 8 => file.extend(padded(short)),
            long => {
                file.extend([0; 4]);
                file.extend(add_string(strings, long).to_le_bytes());
            }
        }
        file.extend(self.value.to_le_bytes());
        match big {
            true => file.extend(self.section.to_le_bytes()),
            false => file.extend((self.section as i16).to_le_bytes()),
        }
        file.extend(self.kind.to_le_bytes());
        file.extend([self.class, self.record_count.unwrap_or(self.records.len() as u8)]);
        for record in &self.records {
            file.extend(record);
            file.extend(if big { &[0, 0][..] } else { &[] });
        }
    }
}

fn padded(name: &[u8]) -> [u8; 8] {
    let mut padded = [0; 8];
    padded[..name.len()].copy_from_slice(name);
    padded
}

fn add_string(table: &mut Vec<u8>, string: &[u8]) -> u32 {
    let offset = table.len() as u32;
    table.extend(string);
    table.push(0);
    offset
}
