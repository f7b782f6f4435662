//! The language of `jitlink-check` (LLVM, "JITLink and ORC's testing tools"; `RuntimeDyldChecker`): two expressions and an
//! equals sign between them. Operators have no precedence, all are done from left to right.

use objcache_loader::{FileMap, LinkMap, LoadedImage};

use crate::disassemble::{Instruction, first_instruction};

/// A linked image, as checks look at it.
pub(crate) struct Linked<'l> {
    pub(crate) image: &'l LoadedImage,
    pub(crate) map: &'l LinkMap,
    pub(crate) definitions: &'l [(String, u64)],
    pub(crate) triple: &'l str,
    pub(crate) features: &'l str,
}

type Value = Result<u64, String>;

/// A token and what it does.
type Operator = (&'static str, fn(u64, u64) -> u64);

impl Linked<'_> {
    /// Whether a check holds; if not, both sides.
    pub(crate) fn holds(&self, check: &str) -> Result<Result<(), (u64, u64)>, String> {
        let (left, right) = check.split_once('=').ok_or("no equals sign")?;
        let (left, right) = (self.value(left)?, self.value(right)?);
        Ok(if left == right { Ok(()) } else { Err((left, right)) })
    }

    fn value(&self, text: &str) -> Value {
        let mut rest = Rest { text: text.trim(), linked: self };
        let value = rest.expression()?;
        if rest.text.is_empty() { Ok(value) } else { Err(format!("`{}` is left over", rest.text)) }
    }

    fn symbol(&self, name: &str) -> Value {
        let symbols = self.map.files.iter().flat_map(|file| &file.symbols);
        let known = symbols.filter(|symbol| symbol.name == name).map(|symbol| symbol.address).next();
        let defined =
            || self.definitions.iter().find(|(defined, _)| defined == name).map(|(_, address)| *address);
        known.or_else(defined).ok_or_else(|| format!("no symbol `{name}`"))
    }

    fn file(&self, name: &str) -> Result<&FileMap, String> {
        self.map.files.iter().find(|file| file.name == name).ok_or_else(|| format!("no file `{name}`"))
    }

    /// The bytes from an address to the end of its section.
    fn bytes(&self, address: u64) -> Result<&[u8], String> {
        let sections = self.map.files.iter().flat_map(|file| &file.sections);
        let mut homes =
            sections.filter(|section| (section.address..section.address + section.size).contains(&address));
        let section = homes.next().ok_or_else(|| format!("{address:#x} is in no section"))?;
        let memory = self.image.linked_bytes(section.segment).ok_or("no bytes")?;
        let start = section.offset + (address - section.address) as usize;
        Ok(&memory[start..section.offset + section.size as usize])
    }

    fn word(&self, address: u64, size: u64) -> Value {
        let bytes = self.bytes(address)?.get(..size as usize).ok_or("the section ends")?;
        let join = |value, byte: &u8| value << 8 | u64::from(*byte);
        Ok(match self.map.big_endian {
            true => bytes.iter().fold(0, join),
            false => bytes.iter().rev().fold(0, join),
        })
    }

    fn instruction(&self, address: u64) -> Result<Instruction, String> {
        let bytes = self.bytes(address)?;
        first_instruction(self.triple, self.features, &bytes[..bytes.len().min(16)])
    }
}

/// What is left of an expression.
struct Rest<'r, 'l> {
    text: &'r str,
    linked: &'r Linked<'l>,
}

impl<'r> Rest<'r, '_> {
    fn eat(&mut self, token: &str) -> bool {
        let rest = self.text.strip_prefix(token).map(str::trim_start);
        self.text = rest.unwrap_or(self.text);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("`{token}` is missing before `{}`", self.text)) }
    }

    fn expression(&mut self) -> Value {
        let mut value = self.sliced()?;
        loop {
            let operators: [Operator; 6] = [
                ("<<", |a, b| a.checked_shl(b as u32).unwrap_or(0)),
                (">>", |a, b| a.checked_shr(b as u32).unwrap_or(0)),
                ("+", u64::wrapping_add),
                ("-", u64::wrapping_sub),
                ("&", |a, b| a & b),
                ("|", |a, b| a | b),
            ];
            let Some((_, operator)) = operators.into_iter().find(|(token, _)| self.eat(token)) else {
                return Ok(value);
            };
            value = operator(value, self.sliced()?);
        }
    }

    /// A simple expression, of which `[high:low]` takes bits.
    fn sliced(&mut self) -> Value {
        let value = self.simple()?;
        if !self.eat("[") {
            return Ok(value);
        }
        let high = self.number()?;
        self.expect(":")?;
        let low = self.number()?;
        self.expect("]")?;
        let mask = u64::MAX >> (63 - (high - low));
        Ok(value >> low & mask)
    }

    fn simple(&mut self) -> Value {
        if self.eat("(") {
            let value = self.expression()?;
            self.expect(")")?;
            return Ok(value);
        }
        if self.eat("*") {
            self.expect("{")?;
            let size = self.number()?;
            self.expect("}")?;
            let address = self.simple()?;
            return self.linked.word(address, size);
        }
        if self.text.starts_with(|first: char| first.is_ascii_digit()) {
            return self.number();
        }
        let name = self.name();
        match name {
            "decode_operand" => self.decode_operand(),
            "next_pc" => {
                self.expect("(")?;
                let address = self.expression()?;
                self.expect(")")?;
                Ok(address + self.linked.instruction(address)?.length)
            }
            "got_addr" | "stub_addr" | "section_addr" => self.place(name),
            _ => self.linked.symbol(name),
        }
    }

    fn decode_operand(&mut self) -> Value {
        self.expect("(")?;
        let address = self.expression()?;
        self.expect(",")?;
        let number = self.number()? as usize;
        self.expect(")")?;
        let instruction = self.linked.instruction(address)?;
        let operand = instruction.operands.get(number).copied().flatten();
        operand.map(|operand| operand as u64).ok_or_else(|| format!("operand {number} is no number"))
    }

    /// `(file, name)` or `(file, name, kind)`.
    fn place(&mut self, what: &str) -> Value {
        self.expect("(")?;
        let file = self.linked.file(self.name())?;
        self.expect(",")?;
        let name = self.name();
        let kind = if self.eat(",") { Some(self.name()) } else { None };
        self.expect(")")?;
        let found = match what {
            "got_addr" => file.got.iter().find(|slot| slot.target == name).map(|slot| slot.address),
            "section_addr" => {
                file.sections.iter().find(|section| section.name == name).map(|section| section.address)
            }
            _ => {
                let mut stubs = file.stubs.iter().filter(|stub| stub.target == name);
                stubs.find(|stub| kind.is_none_or(|kind| stub.kind == kind)).map(|stub| stub.address)
            }
        };
        found.ok_or_else(|| format!("no {what}({name})"))
    }

    fn name(&mut self) -> &'r str {
        let is_part = |character: char| character.is_ascii_alphanumeric() || "_.$".contains(character);
        let end = self.text.find(|character| !is_part(character)).unwrap_or(self.text.len());
        let (name, rest) = self.text.split_at(end);
        self.text = rest.trim_start();
        name
    }

    fn number(&mut self) -> Value {
        let text = self.name();
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.map_err(|error| format!("`{text}`: {error}"))
    }
}
