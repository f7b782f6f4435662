//! A small writer of Mach-O objects, for objects that no compiler makes: one relocation a section, lies in headers.

/// An object to be written. Section numbers count from 1, symbol numbers from 0.
#[derive(Debug, Default, Clone)]
pub struct Object {
    pub cpu: u32,
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
    /// Load commands behind those of sections and symbols.
    pub commands: Vec<Vec<u8>>,
}

#[derive(Debug, Default, Clone)]
pub struct Section {
    pub segment: String,
    pub name: String,
    pub address: u64,
    pub bytes: Vec<u8>,
    /// Size, if it is not that of `bytes`.
    pub size: Option<u64>,
    /// Exponent of the alignment.
    pub align: u32,
    pub flags: u32,
    pub relocations: Vec<Relocation>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Relocation {
    pub offset: u32,
    /// Number of a symbol, or of a section if not `external`.
    pub number: u32,
    pub external: bool,
    pub kind: u32,
    /// Logarithm of the field's bytes.
    pub length: u32,
    pub relative: bool,
}

#[derive(Debug, Default, Clone)]
pub struct Symbol {
    pub name: String,
    pub kind: u8,
    pub section: u8,
    pub description: u16,
    pub value: u64,
}

pub const X86_64: u32 = 0x0100_0007;
pub const ARM64: u32 = 0x0100_000c;

/// Section flags.
pub const CODE: u32 = 0x8000_0400;
pub const ZEROFILL: u32 = 1;
pub const INITIALIZERS: u32 = 9;

/// Symbol types.
pub const EXTERNAL: u8 = 1;
pub const PRIVATE: u8 = 0x10;
pub const ABSOLUTE: u8 = 2;
pub const IN_SECTION: u8 = 0xe;
pub const INDIRECT: u8 = 0xa;

/// Symbol descriptions.
pub const WEAK_DEFINITION: u16 = 0x80;
pub const WEAK_REFERENCE: u16 = 0x40;

impl Object {
    pub fn of(cpu: u32) -> Self {
        Object { cpu, ..Object::default() }
    }

    pub fn section(&mut self, segment: &str, name: &str, flags: u32, bytes: &[u8]) -> &mut Section {
        let (segment, name, bytes) = (segment.to_owned(), name.to_owned(), bytes.to_vec());
        self.sections.push(Section { segment, name, flags, bytes, ..Section::default() });
        self.sections.last_mut().unwrap()
    }

    /// Returns the symbol's number.
    pub fn symbol(&mut self, name: &str, kind: u8, section: u8, value: u64) -> u32 {
        self.symbols.push(Symbol { name: name.to_owned(), kind, section, value, description: 0 });
        self.symbols.len() as u32 - 1
    }

    pub fn build(&self) -> Vec<u8> {
        let commands: usize = self.commands.iter().map(Vec::len).sum();
        let sizes = [72 + 80 * self.sections.len(), 24, commands];
        let mut content: usize = 32 + sizes.iter().sum::<usize>();
        let (mut headers, mut contents, mut relocations) = (Vec::new(), Vec::<u8>::new(), Vec::new());
        let mut relocation_at =
            content + self.sections.iter().map(|section| section.bytes.len()).sum::<usize>();
        for section in &self.sections {
            headers.extend(field(&section.name));
            headers.extend(field(&section.segment));
            let size = section.size.unwrap_or(section.bytes.len() as u64);
            headers.extend(section.address.to_le_bytes());
            headers.extend(size.to_le_bytes());
            let count = section.relocations.len();
            let words =
                [content as u32, section.align, relocation_at as u32, count as u32, section.flags, 0, 0, 0];
            headers.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            contents.extend(&section.bytes);
            content += section.bytes.len();
            relocations.extend(section.relocations.iter().flat_map(Relocation::bytes));
            relocation_at += 8 * count;
        }
        let mut names = vec![0u8];
        let mut symbols = Vec::new();
        for symbol in &self.symbols {
            symbols.extend((names.len() as u32).to_le_bytes());
            symbols.extend([symbol.kind, symbol.section]);
            symbols.extend(symbol.description.to_le_bytes());
            symbols.extend(symbol.value.to_le_bytes());
            names.extend(symbol.name.bytes());
            names.push(0);
        }
        let mut file = Vec::new();
        let word = |word: u32, file: &mut Vec<u8>| file.extend(word.to_le_bytes());
        let command_count = 2 + self.commands.len() as u32;
        let total = sizes.iter().sum::<usize>() as u32;
        for value in
            [0xfeed_facf, self.cpu, if self.cpu == ARM64 { 0 } else { 3 }, 1, command_count, total, 0, 0]
        {
            word(value, &mut file);
        }
        word(0x19, &mut file);
        word(sizes[0] as u32, &mut file);
        file.extend([0; 16]);
        let memory = self.sections.iter().map(|section| section.address + section.bytes.len() as u64).max();
        let start = 32 + sizes.iter().sum::<usize>() as u64;
        for value in [0, memory.unwrap_or(0), start, contents.len() as u64] {
            file.extend(value.to_le_bytes());
        }
        for value in [7, 7, self.sections.len() as u32, 0] {
            word(value, &mut file);
        }
        file.extend(headers);
        let symbols_at = relocation_at as u32;
        let names_at = symbols_at + symbols.len() as u32;
        for value in [2, 24, symbols_at, self.symbols.len() as u32, names_at, names.len() as u32] {
            word(value, &mut file);
        }
        self.commands.iter().for_each(|command| file.extend(command));
        file.extend(contents);
        file.extend(relocations);
        file.extend(symbols);
        file.extend(names);
        file
    }
}

fn field(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    field[..name.len()].copy_from_slice(name.as_bytes());
    field
}

impl Relocation {
    fn bytes(&self) -> Vec<u8> {
        let Relocation { offset, number, external, kind, length, relative } = *self;
        let bits = u32::from(relative) << 24 | length << 25 | u32::from(external) << 27 | kind << 28;
        [offset.to_le_bytes(), (number & 0xff_ffff | bits).to_le_bytes()].concat()
    }
}
