//! AArch64, by the ELF for the Arm 64-bit Architecture (aaelf64, "Relocation types"), and by the PE format.
//!
//! The ABI's relocations are an operation and a field: what is computed, and which immediate of which instruction it goes
//! into, after which check. So is [`Kind`] here, and so are the relocations of other formats, whose numbers are mapped
//! to the same pairs. Two oddities: a group relocation of a signed value chooses between MOVZ and MOVN, since the
//! sign is the instruction's; and a branch to an undefined weak symbol goes to the instruction behind it.
//!
//! Ranges are those of the ABI with one exception, which `ld.lld` makes too: data of 16 and 32 bits may hold any number
//! that fits in either reading, signed or unsigned, which is what "-2^31 <= X < 2^32" says.

mod detour;
mod elf;
mod local_exec;
mod macho;
mod pe;
mod relax;

use super::{
    Architecture, Detour, DetourPlaces, ElfIdentity, Fixup, Identity, LocalExec, LocalExecForm, Operand,
    Refused, Relaxed, SlotKind, Stub, ThreadBlock, aligned, bytes_at, change_u32, coff, either, field,
    insert, sign_extend, signed, unsigned,
};
use crate::error::FixupProblem;
use crate::graph::{Format, Relocation};

pub(crate) enum AArch64 {}

/// What a relocation computes, and where that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    value: Value,
    field: Field,
}

/// The ABI's operations. `Page(x)` is `x & !0xfff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// Nothing.
    None,
    /// Nothing: marks the call of a descriptor's function.
    DescriptorCall,
    /// `S + A`.
    Symbol,
    /// `S + A - P`.
    Relative,
    /// `S + A - P` of data that only a function is reached by, so that a stub will do.
    Function,
    /// `S + A - P` of a branch that may go through a stub.
    Branch,
    /// `S + A - P` of a branch for which no linker makes a stub.
    ShortBranch,
    /// `Page(S + A) - Page(P)`.
    Page,
    /// `S + A` less another symbol's address.
    Difference,
    /// `S + A - GOT`.
    FromGot,
    /// `G(GDAT(S)) + A`: the address of a GOT entry. Likewise for the other kinds of entry.
    Slot(SlotKind),
    /// `G(GDAT(S)) + A - P`.
    SlotRelative(SlotKind),
    /// `Page(G(GDAT(S)) + A) - Page(P)`.
    SlotPage(SlotKind),
    /// `G(GDAT(S)) + A - GOT`.
    SlotFromGot(SlotKind),
    /// `G(GDAT(S)) + A - Page(GOT)`.
    SlotFromGotPage,
    /// `TPREL(S + A)`.
    ThreadOffset,
    /// `DTPREL(S + A)`.
    BlockOffset,
    /// `S + A - P`, where A counts from the end of the field.
    RelativeToEnd,
    /// `S + A - section`.
    SectionOffset,
    /// What COFF has on every machine, with fields of its own.
    Coff(coff::Common),
}

/// Fields, with the check that precedes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// The instruction is only marked.
    None,
    Data64,
    /// Signed or unsigned.
    Data32,
    /// Signed or unsigned.
    Data16,
    /// Signed.
    Signed32,
    /// B, BL: words, 26 bits.
    Branch26,
    /// B.cond, CBZ, CBNZ and loads of literals: words, 19 bits.
    Branch19,
    /// TBZ, TBNZ: words, 14 bits.
    Branch14,
    /// ADR: bytes, 21 bits.
    Adr,
    /// ADRP: pages, 21 bits.
    Adrp,
    /// ADRP, without a check.
    AdrpNoCheck,
    /// ADD and SUB (immediate), loads and stores (unsigned immediate): bits 0 to 11 of the value, counted in units of so
    /// many bits (their logarithm); no check but of the alignment.
    Low12 {
        scale: u8,
    },
    /// The same, of a value that must fit.
    All12 {
        scale: u8,
    },
    /// The same, where the instruction itself tells the unit.
    Low12ByInstruction,
    /// ADD (immediate), shifted: bits 12 to 23 of a value that must fit in 24.
    High12,
    /// LDR of 64 bits: a value that must fit in 15.
    Low15,
    /// MOVZ, MOVK: 16 bits of the value, from bit `16 * group` up; those above must be zero. Groups 0 to 2.
    MovUnsigned {
        group: u8,
    },
    /// The same; no matter what is above.
    MovNoCheck {
        group: u8,
    },
    /// MOVZ or MOVN, by the value's sign: 16 bits of the value. Groups 0 to 2.
    MovSigned {
        group: u8,
    },
    /// MOVZ, MOVN, MOVK: 16 bits of the value. No matter what is above, except that the next bit tells MOVN from MOVZ.
    MovSignedNoCheck {
        group: u8,
    },
}

/// The kinds that other formats have as well, by the instructions they go with.
impl Kind {
    pub(crate) const NONE: Kind = Kind::of(Value::None, Field::None);
    /// B and BL.
    pub(crate) const BRANCH26: Kind = Kind::of(Value::Branch, Field::Branch26);
    /// ADRP.
    pub(crate) const PAGE21: Kind = Kind::of(Value::Page, Field::Adrp);
    /// ADR.
    pub(crate) const ADR21: Kind = Kind::of(Value::Relative, Field::Adr);
    /// ADD, loads and stores after an ADRP.
    pub(crate) const PAGE_OFFSET12: Kind = Kind::of(Value::Symbol, Field::Low12ByInstruction);
    /// ADRP to a GOT entry.
    pub(crate) const GOT_PAGE21: Kind = Kind::of(Value::SlotPage(SlotKind::Address), Field::Adrp);
    /// LDR of a GOT entry after an ADRP.
    pub(crate) const GOT_PAGE_OFFSET12: Kind =
        Kind::of(Value::Slot(SlotKind::Address), Field::Low12ByInstruction);
    /// A pointer.
    pub(crate) const POINTER64: Kind = Kind::of(Value::Symbol, Field::Data64);

    const fn of(value: Value, field: Field) -> Self {
        Kind { value, field }
    }

    fn is_got_page(self) -> bool {
        self == Self::GOT_PAGE21
    }

    fn is_got_load(self) -> bool {
        self.value == Value::Slot(SlotKind::Address)
            && matches!(self.field, Field::Low12 { scale: 3 } | Field::Low12ByInstruction)
    }
}

impl Architecture for AArch64 {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: "aarch64",
        elf: Some(ElfIdentity { e_machine: 183, class: 64, big_endian: false }),
        macho: Some(0x0100_000c),
        coff: Some(0xaa64),
        is_host: cfg!(all(target_arch = "aarch64", target_pointer_width = "64", target_endian = "little")),
    };
    const SLOT_SIZE: u64 = 8;
    const THREAD_BLOCK: ThreadBlock = ThreadBlock::AfterPointer { gap: 16, bias: 0 };
    const STUB_SIZE: u64 = 12;
    const STUB_ALIGN: u64 = 4;
    const BRANCH_REACH: u64 = 1 << 27;
    const TRAP: &'static [u8] = &[0x00, 0x00, 0x20, 0xd4]; // brk #0

    #[inline]
    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        match format {
            Format::Elf => elf::kind(raw),
            Format::MachO => macho::kind(raw),
            Format::Coff => pe::kind(raw),
        }
    }

    fn name(format: Format, raw: u32) -> String {
        match format {
            Format::Elf => elf::name(raw),
            Format::MachO => macho::name(raw),
            Format::Coff => pe::name(raw),
        }
    }

    #[inline]
    fn operand(kind: Kind) -> Operand {
        match (kind.value, kind.field) {
            (Value::None | Value::DescriptorCall, _) => Operand::None,
            // Of an address, these hold 32 bits or less.
            (Value::Symbol, Field::Data32 | Field::Signed32 | Field::Data16) => Operand::LowSymbol,
            (Value::Symbol, Field::MovUnsigned { group: 0 | 1 } | Field::MovSigned { group: 0 | 1 }) => {
                Operand::LowSymbol
            }
            (Value::Symbol | Value::Difference | Value::FromGot | Value::ShortBranch, _) => Operand::Symbol,
            (Value::Relative, Field::Data64) => Operand::Symbol,
            (Value::Relative | Value::RelativeToEnd | Value::Page, _) => Operand::NearSymbol,
            (Value::SectionOffset, _) => Operand::SectionOffset,
            (Value::Coff(kind), _) => kind.operand(),
            (Value::Branch | Value::Function, _) => Operand::Branch,
            (Value::SlotFromGotPage, _) => Operand::Slot(SlotKind::Address),
            (
                Value::Slot(slot)
                | Value::SlotRelative(slot)
                | Value::SlotPage(slot)
                | Value::SlotFromGot(slot),
                _,
            ) => Operand::Slot(slot),
            (Value::ThreadOffset, _) => Operand::ThreadOffset,
            (Value::BlockOffset, _) => Operand::BlockOffset,
        }
    }

    fn implicit_addend(kind: Kind, section: &[u8], offset: u64) -> Result<i64, FixupProblem> {
        match (kind.value, kind.field) {
            (Value::Coff(kind), _) => kind.implicit_addend(section, offset),
            (Value::RelativeToEnd, field) => Ok(field.addend(section, offset)? - 4),
            (_, field) => field.addend(section, offset),
        }
    }

    /// `blr`, and its forms that authenticate.
    fn may_call_indirectly(code: &[u8]) -> bool {
        let word = |word: &[u8]| word.try_into().map_or(0, u32::from_le_bytes);
        code.chunks_exact(4).any(|bytes| word(bytes) & 0xfeff_f000 == 0xd63f_0000)
    }

    /// aaelf64 has no L: a veneer is not to be seen. Data is another matter: the addend there says what it counts from.
    #[inline]
    fn addend_leads(kind: Kind) -> bool {
        kind.value == Value::Branch
    }

    #[inline]
    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        match kind.value {
            Value::Coff(kind) => kind.apply(section, offset, fixup),
            // One that cannot even reach the next instruction has an addend that means nothing.
            Value::Branch if fixup.undefined_weak && fixup.through_stub => Err(FixupProblem::Unsupported(
                "a branch to a distance from a weak symbol that nobody defines",
            )),
            value => kind.field.write(section, offset, value.of(&fixup)),
        }
    }

    /// ADRP and LDR of GOT entries come in pairs throughout: nothing else uses what an ADRP leaves in its register, and no
    /// LDR is reached from two. Mach-O has its relocations from the section's end to its start.
    fn may_relax(kinds: impl Iterator<Item = Kind>) -> bool {
        let mut kinds = kinds.peekable();
        let mut order = None;
        while let Some(kind) = kinds.next() {
            if !kind.is_got_page() && !kind.is_got_load() {
                continue;
            }
            let page_first = *order.get_or_insert(kind.is_got_page());
            let is_other = |other: &Kind| if page_first { other.is_got_load() } else { other.is_got_page() };
            if kind.is_got_page() != page_first || kinds.next_if(is_other).is_none() {
                return false;
            }
        }
        true
    }

    /// `adrp xn, :got:S; ldr xn, [xn, :got_lo12:S]` becomes `adrp xn, S; add xn, xn, :lo12:S`, or
    /// `nop; adr xn, S` if that reaches.
    fn relax(
        kind: Kind,
        current: &Relocation,
        next: Option<(Kind, Relocation)>,
        section: &mut [u8],
        fixup: Fixup,
    ) -> Relaxed {
        let Some((next_kind, next)) = next else { return Relaxed::No };
        let is_pair = current.symbol == next.symbol && fixup.addend == 0 && next.addend == 0;
        let relaxed = if !is_pair {
            None
        } else if kind.is_got_page()
            && next_kind.is_got_load()
            && current.offset.checked_add(4) == Some(next.offset)
        {
            relax::got_access(section, current.offset, &fixup)
        } else if kind.is_got_load()
            && next_kind.is_got_page()
            && next.offset.checked_add(4) == Some(current.offset)
        {
            let of_page = Fixup { place: fixup.place.wrapping_sub(4), ..fixup };
            relax::got_access(section, next.offset, &of_page)
        } else {
            None
        };
        match relaxed {
            Some(()) => Relaxed::Both,
            None => Relaxed::No,
        }
    }

    #[inline]
    fn local_exec(kind: Kind) -> Option<LocalExec> {
        local_exec::of(kind)
    }

    fn local_exec_form(kind: Kind, _next: Option<Kind>, section: &[u8], offset: u64) -> LocalExecForm {
        local_exec::form(kind, section, offset)
    }

    fn to_local_exec(
        kind: Kind,
        _next: Option<Kind>,
        section: &mut [u8],
        offset: u64,
        fixup: Fixup,
    ) -> Result<(), FixupProblem> {
        local_exec::rewrite(kind, section, offset, &fixup)
    }

    fn plan_detours(
        code: &[u8],
        _functions: &[u64],
        accesses: &[(Kind, u64)],
    ) -> Result<Vec<Option<Detour>>, Refused> {
        detour::plan(code, accesses)
    }

    fn write_detour(
        detour: &Detour,
        code: &mut [u8],
        places: DetourPlaces,
        bytes: &mut [u8],
    ) -> Result<(), FixupProblem> {
        detour::write(detour, code, places, bytes)
    }

    /// `adrp x16, slot; ldr x16, [x16, :lo12:slot]; br x16`. X16 is what the procedure call standard gives to veneers; a
    /// branch through it may go to a function that begins with `bti c`, too.
    fn write_stub(_kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem> {
        for (number, instruction) in [0x9000_0010u32, 0xf940_0210, 0xd61f_0200].into_iter().enumerate() {
            *field(stub, 4 * number as u64)? = instruction.to_le_bytes();
        }
        let fixup = Fixup { place, target: leads.slot, ..Fixup::default() };
        Self::apply(Kind::PAGE21, stub, 0, fixup)?;
        Self::apply(Kind::PAGE_OFFSET12, stub, 4, fixup)
    }
}

const fn page(address: u64) -> u64 {
    address & !0xfff
}

impl Value {
    #[inline]
    fn of(self, fixup: &Fixup) -> i64 {
        if fixup.undefined_weak {
            return self.of_undefined_weak(fixup);
        }
        let value = fixup.absolute();
        match self {
            Value::None | Value::DescriptorCall | Value::Coff(_) => 0,
            Value::SectionOffset => value as i64,
            Value::Symbol | Value::Slot(_) | Value::ThreadOffset | Value::BlockOffset => value as i64,
            Value::Relative
            | Value::RelativeToEnd
            | Value::Function
            | Value::Branch
            | Value::ShortBranch
            | Value::SlotRelative(_) => fixup.relative(),
            Value::Page | Value::SlotPage(_) => page(value).wrapping_sub(page(fixup.place)) as i64,
            Value::Difference => fixup.difference(),
            Value::FromGot | Value::SlotFromGot(_) => fixup.got_relative(),
            Value::SlotFromGotPage => value.wrapping_sub(page(fixup.got)) as i64,
        }
    }

    /// aaelf64, "Weak references": a branch does nothing, another relative reference is to the place. (Nothing compilers
    /// emit relies on the latter: they reach weak symbols through the GOT.)
    #[cold]
    fn of_undefined_weak(self, fixup: &Fixup) -> i64 {
        let assumed = match self {
            Value::Branch | Value::ShortBranch => fixup.place.wrapping_add(4),
            Value::Relative | Value::Function | Value::Page => fixup.place,
            _ => fixup.target,
        };
        self.of(&Fixup { target: assumed, undefined_weak: false, ..*fixup })
    }
}

impl Field {
    #[inline]
    fn write(self, section: &mut [u8], offset: u64, value: i64) -> Result<(), FixupProblem> {
        match self {
            Field::None => return Ok(()),
            Field::Data64 => *field(section, offset)? = value.to_le_bytes(),
            Field::Data32 => *field(section, offset)? = (either(value as u64, 32)? as u32).to_le_bytes(),
            Field::Data16 => *field(section, offset)? = (either(value as u64, 16)? as u16).to_le_bytes(),
            Field::Signed32 => *field(section, offset)? = (signed(value, 32)? as i32).to_le_bytes(),
            _ => return change_u32(section, offset, |word| self.insert(word, value)),
        }
        Ok(())
    }

    /// The instruction with the value in it.
    #[inline]
    fn insert(self, word: u32, value: i64) -> Result<u32, FixupProblem> {
        let bits = value as u64;
        Ok(match self {
            Field::None | Field::Data64 | Field::Data32 | Field::Data16 | Field::Signed32 => word,
            Field::Branch26 => insert(word, 0, 26, (signed(aligned(value, 4)?, 28)? >> 2) as u64),
            Field::Branch19 => insert(word, 5, 19, (signed(aligned(value, 4)?, 21)? >> 2) as u64),
            Field::Branch14 => insert(word, 5, 14, (signed(aligned(value, 4)?, 16)? >> 2) as u64),
            Field::Adr => insert_adr(word, signed(value, 21)? as u64),
            Field::Adrp => insert_adr(word, (signed(value, 33)? >> 12) as u64),
            Field::AdrpNoCheck => insert_adr(word, bits >> 12),
            Field::Low12 { scale } => insert_low12(word, value, scale)?,
            Field::All12 { scale } => insert_low12(word, unsigned(bits, 12)? as i64, scale)?,
            Field::Low12ByInstruction => insert_low12(word, value, scale_of(word))?,
            Field::High12 => insert(word, 10, 12, unsigned(bits, 24)? >> 12),
            Field::Low15 => insert(word, 10, 12, unsigned(aligned(value, 8)? as u64, 15)? >> 3),
            Field::MovUnsigned { group } => {
                let width = 16 * (u32::from(group) + 1);
                insert(word, 5, 16, unsigned(bits, width)? >> (width - 16))
            }
            Field::MovNoCheck { group } => insert(word, 5, 16, bits >> (16 * group)),
            Field::MovSigned { group } => {
                let width = 16 * (u32::from(group) + 1);
                insert_mov(word, signed(value, width + 1)? >> (width - 16))
            }
            // The sign of a whole value is in the highest group itself.
            Field::MovSignedNoCheck { group } => insert_mov(word, (bits >> (16 * group)) as i64),
        })
    }

    /// What the field holds, in bytes and with its sign (aaelf64, "Addends and PC-bias"). MOV and ADRP are not
    /// shifted, so that all the instructions that make up an address can hold the same addend.
    fn addend(self, section: &[u8], offset: u64) -> Result<i64, FixupProblem> {
        let word = || bytes_at(section, offset).map(u32::from_le_bytes);
        Ok(match self {
            Field::None => 0,
            Field::Data64 => i64::from_le_bytes(bytes_at(section, offset)?),
            Field::Data32 | Field::Signed32 => i32::from_le_bytes(bytes_at(section, offset)?).into(),
            Field::Data16 => i16::from_le_bytes(bytes_at(section, offset)?).into(),
            Field::Branch26 => sign_extend(extract(word()?, 0, 26) << 2, 28),
            Field::Branch19 => sign_extend(extract(word()?, 5, 19) << 2, 21),
            Field::Branch14 => sign_extend(extract(word()?, 5, 14) << 2, 16),
            Field::Adr | Field::Adrp | Field::AdrpNoCheck => {
                let word = word()?;
                sign_extend(extract(word, 5, 19) << 2 | extract(word, 29, 2), 21)
            }
            Field::Low12 { scale: 0 } | Field::All12 { scale: 0 } | Field::High12 => {
                sign_extend(extract(word()?, 10, 12), 12)
            }
            Field::Low12 { scale } | Field::All12 { scale } => (extract(word()?, 10, 12) << scale) as i64,
            Field::Low12ByInstruction => {
                let word = word()?;
                (extract(word, 10, 12) << scale_of(word)) as i64
            }
            Field::Low15 => (extract(word()?, 10, 12) << 3) as i64,
            Field::MovUnsigned { .. }
            | Field::MovNoCheck { .. }
            | Field::MovSigned { .. }
            | Field::MovSignedNoCheck { .. } => sign_extend(extract(word()?, 5, 16), 16),
        })
    }
}

/// `width` bits of the word from `low` up.
const fn extract(word: u32, low: u32, width: u32) -> u64 {
    ((word >> low) & ((1 << width) - 1)) as u64
}

/// ADR and ADRP have the two lowest bits of the immediate above the others.
const fn insert_adr(word: u32, immediate: u64) -> u32 {
    insert(insert(word, 29, 2, immediate), 5, 19, immediate >> 2)
}

/// Bits 0 to 11 of the value in units of `1 << scale` bytes.
fn insert_low12(word: u32, value: i64, scale: u8) -> Result<u32, FixupProblem> {
    let low = aligned(value, 1 << scale)? as u64 & 0xfff;
    Ok(insert(word, 10, 12, low >> scale))
}

/// The unit of a load's or store's unsigned immediate, as a logarithm. (A64, "Loads and stores, unsigned immediate": bits
/// 30 and 31 are the size, except of 128-bit registers.) That of ADD counts in bytes.
const fn scale_of(word: u32) -> u8 {
    const VECTOR_OF_16: u32 = 0x0480_0000;
    match word >> 30 {
        _ if word & 0x3b00_0000 != 0x3900_0000 => 0,
        0 if word & VECTOR_OF_16 == VECTOR_OF_16 => 4,
        size => size as u8,
    }
}

/// MOVZ of a value from zero up, MOVN of the complement of one below; MOVK takes the bits as they are. The sign is the bit
/// above the sixteen.
const fn insert_mov(word: u32, value: i64) -> u32 {
    const KEEP: u32 = 1 << 29;
    const NOT_INVERTED: u32 = 1 << 30;
    if word & KEEP != 0 {
        insert(word, 5, 16, value as u64)
    } else if value & 0x1_0000 != 0 {
        insert(word & !NOT_INVERTED, 5, 16, !value as u64)
    } else {
        insert(word | NOT_INVERTED, 5, 16, value as u64)
    }
}

#[cfg(test)]
mod tests;
