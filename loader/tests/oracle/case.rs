//! Cases: one relocation in a section of its own, everything about it chosen at random, most of all the values at which
//! something changes.

use std::fmt;

use crate::machine::{Form, Kind, Machine, Second, Value, Word};
use crate::support::Random;
use crate::support::elf::{self, Object};

/// The thread-local block: the first section of an object that has one.
pub const THREAD_SECTION: &str = ".tdata";
const THREAD_BLOCK: u64 = 0x400;
/// `STT_TLS`.
const TLS_SYMBOL: u8 = 6;

/// One relocation, or two that belong together.
#[derive(Clone)]
pub struct Case {
    pub machine: &'static Machine,
    pub kind: &'static Kind,
    /// Address of the section.
    pub section: u64,
    /// Offset of the relocation.
    pub offset: usize,
    pub bytes: Vec<u8>,
    pub symbol: Target,
    pub addend: i64,
    /// Of [`Second::Same`].
    pub second: Target,
    pub second_addend: i64,
    /// What the addend of a GOT access is to add up to; known once the linker made the GOT.
    pub wanted: Option<u64>,
    /// Where there are no addends: the distance of the GOT entry, for which the section moves.
    pub distance: Option<u64>,
    /// Where that entry is.
    pub slot: Option<u64>,
}

/// A symbol that a case refers to.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub form: Form,
    /// Address, or offset in the section.
    pub value: u64,
    pub size: u64,
    pub function: bool,
    pub other: u8,
}

/// What the linker's addresses are.
#[derive(Clone, Copy)]
pub struct Places {
    pub got: u64,
}

impl Case {
    pub fn new(
        machine: &'static Machine,
        kind: &'static Kind,
        section: u64,
        places: Places,
        random: &mut Random,
    ) -> Self {
        let mut case = Case {
            machine,
            kind,
            section,
            offset: 0,
            bytes: Vec::new(),
            symbol: Target::external(0),
            addend: 0,
            second: Target::external(0),
            second_addend: 0,
            wanted: None,
            distance: None,
            slot: None,
        };
        let bits = random.one_of(kind.bits);
        let at_limit = random.below(3) != 0;
        let value = value(kind, bits, random);
        case.addend = case.choose_addend(random);
        case.fill(at_limit, random);
        case.symbol = case.choose_symbol(random);
        case.aim(value, places, random);
        if let Second::Same { .. } = kind.second {
            let near = case.symbol.value.wrapping_sub(random.below(300)).wrapping_add(random.below(40));
            let far = random.next() >> random.one_of(&[1, 33]);
            case.second = Target {
                form: Form::Absolute,
                ..Target::external(machine.address(random.one_of(&[near, near, near, far])))
            };
            case.second_addend = random.below(20) as i64;
        }
        case
    }

    fn choose_addend(&self, random: &mut Random) -> i64 {
        if self.kind.plain {
            return self.kind.addend;
        }
        match random.below(6) {
            0 | 1 => self.kind.addend,
            2 => -(random.below(200) as i64),
            3 => random.below(200) as i64,
            4 => self.kind.addend + self.kind.step as i64 * (random.below(400) as i64 - 200),
            _ => (random.next() as i64) >> random.one_of(&[33, 40, 48, 56]),
        }
    }

    /// The section's bytes. The place is at its end as often as not.
    fn fill(&mut self, at_limit: bool, random: &mut Random) {
        let kind = self.kind;
        let tail = random.below(2) as usize;
        if kind.code.is_empty() {
            let before = random.below(12) as usize;
            self.push_filler(before, random);
            self.offset = before;
            if self.machine.target.explicit_addends {
                self.bytes.extend((0..kind.width).map(|_| random.next() as u8));
            } else {
                self.addend = sign_extend(self.addend as u64, kind.width as u32 * 8);
                self.bytes.extend(self.machine.target.number(self.addend as u64, kind.width));
            }
            self.push_filler(tail * 5, random);
            return;
        }
        let align = self.machine.code_align as usize;
        let before = random.below(4) as usize * align;
        self.push_filler(before, random);
        self.offset = before + kind.at;
        // Without explicit addends the field is one: the description's at a limit, anything elsewhere.
        let keeps_field = !self.machine.target.explicit_addends && (at_limit || kind.plain);
        if keeps_field {
            self.addend = kind.addend;
        }
        let low = match kind.second {
            Second::Low { word, .. } | Second::Next { word, .. } => Some(word),
            _ => None,
        };
        for word in kind.code.iter().copied().chain(low) {
            self.push_word(word, keeps_field, random);
        }
        self.push_filler(tail * align, random);
    }

    fn push_word(&mut self, word: Word, keeps_field: bool, random: &mut Random) {
        let free = if keeps_field { word.random } else { word.random | word.field };
        let number = word.bits & !free | random.next() & free;
        self.bytes.extend(self.machine.target.number(number, word.width));
    }

    /// Sets the addend to that of a branch to its target.
    pub fn reset_addend(&mut self) {
        self.addend = self.kind.addend;
        if self.machine.target.explicit_addends {
            return;
        }
        let mut at = self.offset - self.kind.at;
        for word in self.kind.code {
            let target = &self.machine.target;
            let [bits, field] = [word.bits, word.field].map(|number| target.number(number, word.width));
            for ((byte, bits), field) in self.bytes[at..].iter_mut().zip(bits).zip(field) {
                *byte = *byte & !field | bits & field;
            }
            at += word.width;
        }
    }

    /// Bytes that are no opcode of a branch.
    fn push_filler(&mut self, count: usize, random: &mut Random) {
        self.bytes.extend((0..count).map(|_| 0x41 + random.below(0x1e) as u8));
    }

    fn choose_symbol(&self, random: &mut Random) -> Target {
        let form = match random.below(16) {
            _ if self.kind.value == Value::Size => Form::Absolute,
            0..7 => Form::External,
            7..13 => Form::Absolute,
            15 if !self.kind.defined => Form::UndefinedWeak,
            _ => Form::Own,
        };
        let other = match form {
            Form::Absolute | Form::Own => random.one_of(self.kind.others),
            _ => 0,
        };
        Target { form, function: random.below(2) == 0, other, ..Target::external(0) }
    }

    /// Chooses the symbol's address, or the addend if there is nothing to choose about that, for the value.
    fn aim(&mut self, value: u64, places: Places, random: &mut Random) {
        let machine = self.machine;
        let place = self.section + self.offset as u64;
        let page = |address: u64| address & !0xfff;
        // What S + A has to be.
        let wanted = match self.kind.value {
            Value::Absolute | Value::Size | Value::Slot => value,
            Value::ThreadOffset | Value::BlockOffset => value,
            Value::Relative | Value::Got | Value::SlotRelative => place.wrapping_add(value),
            Value::Page | Value::SlotPage => page(place).wrapping_add(value),
            Value::GotOffset | Value::SlotOffset => places.got.wrapping_add(value),
        };
        let explicit = machine.target.explicit_addends && !self.kind.plain;
        let anywhere = random.next() >> random.one_of(&[0, 16, 33]);
        match self.kind.value {
            Value::Size => {
                self.symbol.value = machine.address(anywhere);
                self.symbol.size = machine.address(wanted.wrapping_sub(self.addend as u64));
            }
            Value::ThreadOffset | Value::BlockOffset => {
                self.symbol.form = Form::Thread;
                self.symbol.value = random.below(THREAD_BLOCK) & !(self.kind.step - 1);
                if explicit {
                    let block = match self.kind.value {
                        Value::BlockOffset => machine.block_bias.wrapping_neg() as i64,
                        _ => machine.thread_block,
                    };
                    self.addend =
                        (wanted as i64).wrapping_sub(block.wrapping_add_unsigned(self.symbol.value));
                }
            }
            Value::Got => {
                self.symbol.form = Form::Absolute;
                self.symbol.value = machine.address(anywhere);
                if explicit {
                    self.addend = wanted.wrapping_sub(places.got) as i64;
                }
            }
            value if value.is_slot() => {
                // Told from each other by their values.
                self.symbol.value = machine.address(random.next() & !1);
                self.symbol.form = match self.symbol.form {
                    _ if self.kind.thread => Form::Thread,
                    _ if self.kind.imported => Form::External,
                    Form::Absolute => Form::Absolute,
                    _ => Form::External,
                };
                if explicit && random.below(3) == 0 {
                    self.wanted = Some(wanted);
                }
                if (self.kind.thread || self.kind.imported) && self.kind.plain && random.below(2) == 0 {
                    self.distance = Some(wanted.wrapping_sub(place));
                }
                if explicit && self.wanted.is_none() && random.below(2) == 0 {
                    self.addend = 0;
                }
            }
            _ => match self.symbol.form {
                Form::Own => {
                    self.symbol.value = random.below(self.bytes.len() as u64 + 1) & !(self.kind.step - 1);
                    if explicit {
                        let symbol = self.section + self.symbol.value;
                        self.addend = wanted.wrapping_sub(symbol) as i64;
                    }
                }
                Form::UndefinedWeak => {
                    if explicit && random.below(2) == 0 {
                        self.addend = wanted as i64;
                    }
                }
                Form::External | Form::Absolute | Form::Thread => {
                    self.symbol.value = machine.address(wanted.wrapping_sub(self.addend as u64));
                }
            },
        }
        if machine.has_thumb && self.symbol.function && random.below(2) == 0 {
            self.symbol.value |= 1;
        }
        if machine.target.class == 32 {
            self.addend = i64::from(self.addend as i32);
        }
    }

    /// Puts the relocation's place to an address, if one can link there.
    pub fn move_to(&mut self, place: u64) {
        let section = place.wrapping_sub(self.offset as u64) & !(self.machine.code_align - 1);
        if (0x1000..1 << 47).contains(&section) {
            self.section = section;
        }
    }

    /// Puts the relocation's place to address 0, with the same value.
    pub fn move_to_zero(&mut self) {
        let place = self.section + self.offset as u64;
        self.wanted = self.wanted.map(|wanted| wanted.wrapping_sub(place));
        self.section = 0;
    }

    /// The way to the target leads round the end of the address space.
    pub fn wraps(&self) -> bool {
        let place = self.section + self.offset as u64;
        place.checked_add_signed(self.distance()).is_none()
    }

    /// `S + A - P`.
    pub fn distance(&self) -> i64 {
        self.sum().wrapping_sub(self.section + self.offset as u64) as i64
    }

    /// `S + A`.
    pub fn sum(&self) -> u64 {
        let own = if self.symbol.form == Form::Own { self.section } else { 0 };
        own.wrapping_add(self.symbol.value).wrapping_add_signed(self.addend)
    }

    /// Puts the case's section and symbols into an object whose local symbols, if any, are there already.
    pub fn add_to(&self, object: &mut Object, number: usize, label: Option<u32>) {
        let section = object.sections.len() as u16 + 1;
        let symbol = self.symbol.add_to(object, &format!("s{number}"), section);
        let second = match self.kind.second {
            Second::Same { .. } => self.second.add_to(object, &format!("r{number}"), section),
            Second::Call { .. } => object.symbol(&format!("c{number}"), elf::WEAK, 0, 0),
            _ => 0,
        };
        let flags = if self.kind.code.is_empty() { elf::WRITE } else { elf::EXEC };
        let place = self.offset as u64;
        let section = object.section(&format!(".t.{number}"), flags, &self.bytes);
        section.relocate(place, self.kind.number, symbol, self.addend);
        let start = place - self.kind.at as u64;
        match self.kind.second {
            Second::None => {}
            Second::Mark { number, at, .. } => {
                section.relocate(start + at as u64, number, symbol, 0);
            }
            Second::Call { number, at, .. } => {
                section.relocate(start + at as u64, number, second, 0);
            }
            Second::Low { number, .. } => {
                section.relocate(self.low() as u64, number, label.unwrap(), 0);
            }
            Second::Next { number, .. } => {
                section.relocate(self.low() as u64, number, symbol, self.addend);
            }
            Second::Same { number, .. } => {
                section.relocate(place, number, second, self.second_addend);
            }
        }
    }

    /// Offset of the relocation of [`Second::Low`] and [`Second::Next`].
    pub fn low(&self) -> usize {
        let length: usize = self.kind.code.iter().map(|word| word.width).sum();
        self.offset + length - self.kind.at
    }

    /// The symbols with addresses that the linker or a resolver gives.
    pub fn externals(&self, number: usize) -> Vec<(String, u64)> {
        let is_external = self.symbol.form == Form::External && !self.kind.imported;
        is_external.then(|| (format!("s{number}"), self.symbol.value)).into_iter().collect()
    }

    /// An object of cases with their numbers.
    pub fn object<'c>(machine: &Machine, cases: impl Iterator<Item = (usize, &'c Case)> + Clone) -> Object {
        let mut object = Object { target: machine.target, ..Object::default() };
        let mut labels = Vec::new();
        if cases.clone().any(|(_, case)| case.symbol.form == Form::Thread) {
            let block = object.section(THREAD_SECTION, elf::WRITE | elf::TLS, &[0; THREAD_BLOCK as usize]);
            block.align = 16;
        }
        let first = object.sections.len() + 1;
        for (position, (number, case)) in cases.clone().enumerate() {
            let has_low = matches!(case.kind.second, Second::Low { .. });
            labels.push(has_low.then(|| {
                object.symbol(
                    &format!("l{number}"),
                    elf::LOCAL,
                    (first + position) as u16,
                    case.offset as u64,
                )
            }));
        }
        for ((number, case), label) in cases.zip(labels) {
            case.add_to(&mut object, number, label);
        }
        (machine.adorn)(&mut object);
        object
    }
}

impl Target {
    pub fn external(value: u64) -> Self {
        Target { form: Form::External, value, size: 0, function: false, other: 0 }
    }

    fn add_to(&self, object: &mut Object, name: &str, section: u16) -> u32 {
        let kind = if self.function { elf::FUNC } else { 0 };
        let (info, place, value) = match self.form {
            Form::External => (elf::GLOBAL, 0, 0),
            Form::UndefinedWeak => (elf::WEAK, 0, 0),
            Form::Absolute => (elf::GLOBAL | kind, elf::ABS, self.value),
            Form::Own => (elf::GLOBAL | kind, section, self.value),
            Form::Thread => (elf::GLOBAL | TLS_SYMBOL, 1, self.value),
        };
        let symbol = object.symbol(name, info, place, value);
        let added = object.symbols.last_mut().unwrap();
        (added.size, added.other) = (self.size, self.other);
        symbol
    }
}

/// A value inside, at, or just past one of the limits of a field, near or far away.
fn value(kind: &Kind, bits: u32, random: &mut Random) -> u64 {
    let step = kind.step as i64;
    let aligned = |value: i64| value & -step;
    let value = match random.below(16) {
        0..8 if bits < 64 => {
            let half = 1i64 << (bits - 1);
            let limit =
                random.one_of(&[half, half, -half, -half, half.wrapping_mul(2), half.wrapping_mul(-2), 0]);
            let near = step * (random.below(5) as i64 - 2);
            let rounded = random.one_of(&[0, kind.round, -kind.round]);
            limit.wrapping_add(near).wrapping_add(rounded)
        }
        8..11 if bits < 63 => aligned((random.next() as i64) >> (65 - bits)),
        11..13 => aligned(random.below(0x2000) as i64 - 0x1000),
        13 => aligned(random.next() as i64) >> random.one_of(&[0, 8, 17, 30, 33]),
        _ => aligned((random.next() as i64) >> random.one_of(&[1, 16, 31, 33, 40])),
    };
    let misaligned = step > 1 && random.below(12) == 0;
    (if misaligned { value.wrapping_add(1 + random.below(step as u64 - 1) as i64) } else { value }) as u64
}

pub fn sign_extend(value: u64, bits: u32) -> i64 {
    if bits >= 64 { value as i64 } else { ((value << (64 - bits)) as i64) >> (64 - bits) }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { machine, kind, section, offset, bytes, symbol, addend, .. } = self;
        write!(f, "{} at {section:#x}+{offset:#x} of {bytes:02x?}", machine.kind_name(kind))?;
        write!(
            f,
            " against {:?}{} {:#x}",
            symbol.form,
            if symbol.function { " function" } else { "" },
            symbol.value
        )?;
        if symbol.size != 0 {
            write!(f, " (size {:#x})", symbol.size)?;
        }
        write!(f, " {}{:#x}", if *addend < 0 { "-" } else { "+" }, addend.unsigned_abs())?;
        match kind.second {
            Second::Same { .. } => write!(f, " and {:#x}+{:#x}", self.second.value, self.second_addend),
            _ => Ok(()),
        }
    }
}
