//! 64-bit PowerPC, little-endian, by the OpenPOWER ELF V2 ABI ("64-Bit ELF V2 ABI Specification, Power Architecture",
//! sections 2.3 and 3.5).
//!
//! Oddities: a relocation is a value and a field, and nearly every pair of the two exists, so a kind here is such a pair
//! and a table says which numbers mean which. Register r2 holds the TOC pointer, `.TOC.`, 0x8000 after the GOT's first
//! entry. A function has two entries: at the global one it makes r2 out of its own address in r12, at the local one, some
//! instructions later, r2 is there already. A call that stays in the image goes to the local entry; any other goes
//! through a stub that saves r2 and loads r12, and the `nop` that compilers leave after such calls becomes the load that
//! brings r2 back. Code for Power10 needs no r2 (`NOTOC`), but the functions that it calls may: it, too, sets up r12.

use std::collections::BTreeSet;

use super::{
    Architecture, ElfIdentity, Fixup, Identity, LocalExec, LocalExecForm, Operand, SlotKind, Stub,
    ThreadBlock, aligned, bytes_at, change_u32, either, field, signed,
};
use crate::error::FixupProblem;
use crate::graph::{Format, Symbol, SymbolPlace};
use crate::made::Code;

use Field::*;
use Support::{Does, Refused};
use Value::*;

mod local_exec;
mod save_restore;

pub(crate) enum Ppc64 {}

/// What a relocation writes, and where in the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    value: Value,
    field: Field,
}

/// The expressions of the ABI's table of relocation types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// Nothing: marks an instruction for linkers that rewrite it.
    Marker,
    /// Nothing: the instruction of an initial-exec access that adds the thread pointer.
    TlsMarker,
    /// Nothing: the call of a general-dynamic access, and of a local-dynamic one.
    GdMarker,
    LdMarker,
    /// `S + A`.
    Address,
    /// `L + A`, where L is the local entry of S.
    LocalEntry,
    /// `S + A - P`.
    Relative,
    /// `S + A - P` to the local entry, or to a stub that keeps r2.
    Call,
    /// `S + A - P` from code without r2, or to a stub that needs none.
    CallNoToc,
    /// `S + A - .TOC.`
    TocOffset,
    /// `.TOC. + A`.
    Toc,
    /// `G + A - .TOC.`, G the address of a GOT entry.
    Slot(SlotKind),
    /// `G + A - P`.
    SlotRelative(SlotKind),
    /// `@tprel`.
    ThreadOffset,
    /// `@dtprel`.
    BlockOffset,
}

/// The fields of the ABI, with their range checks; `#lo` and so on are its operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// No field.
    Nowhere,
    /// half16*, read as signed or unsigned.
    Half,
    /// half16*, signed.
    SignedHalf,
    /// half16ds*: the lowest bits belong to the opcode.
    HalfDs,
    /// half16 `#lo`.
    Lo,
    /// half16ds `#lo`.
    LoDs,
    /// half16* `#hi`.
    Hi,
    /// half16* `#ha`: made up for the sign of the low half.
    Ha,
    /// half16 `#high`, which is `#hi` unchecked, and so on.
    High,
    HighA,
    Higher,
    HigherA,
    Highest,
    HighestA,
    /// low14*: conditional branches.
    Low14,
    /// low24*: branches.
    Low24,
    /// word32*, read as signed or unsigned.
    Word32,
    /// word32*, signed.
    SignedWord32,
    /// doubleword64.
    Word64,
    /// prefix34*: 18 bits in the prefix, 16 in the instruction.
    Prefix34,
}

/// What is done about a relocation.
#[derive(Debug, Clone, Copy)]
enum Support {
    Does(Value, Field),
    Refused(&'static str),
}

const DYNAMIC: Support = Refused("a relocation of the dynamic linker in an object file");
const HINTS: Support = Refused("a branch with prediction by relocation");
const SECTION: Support = Refused("an offset in a section");
const POWER9: Support = Refused("a stub for code without TOC on Power9");
const OTHER: Support = Refused("this kind of relocation");
const MARKER: Support = Does(Marker, Nowhere);

const ADDRESS: SlotKind = SlotKind::Address;
const INDEX: SlotKind = SlotKind::ThreadIndex;
const MODULE: SlotKind = SlotKind::ThreadModule;
const OFFSET: SlotKind = SlotKind::ThreadOffset;
const BLOCK: SlotKind = SlotKind::BlockOffset;

/// Numbers, names without `R_PPC64_`, and meanings (ELF V2 ABI, 3.5.4).
#[rustfmt::skip]
const ELF: [(u32, &str, Support); 161] = [
    (0, "NONE", MARKER),
    (1, "ADDR32", Does(Address, Word32)),
    (2, "ADDR24", Does(Address, Low24)),
    (3, "ADDR16", Does(Address, Half)),
    (4, "ADDR16_LO", Does(Address, Lo)),
    (5, "ADDR16_HI", Does(Address, Hi)),
    (6, "ADDR16_HA", Does(Address, Ha)),
    (7, "ADDR14", Does(Address, Low14)),
    (8, "ADDR14_BRTAKEN", HINTS),
    (9, "ADDR14_BRNTAKEN", HINTS),
    (10, "REL24", Does(Call, Low24)),
    (11, "REL14", Does(Call, Low14)),
    (12, "REL14_BRTAKEN", HINTS),
    (13, "REL14_BRNTAKEN", HINTS),
    (14, "GOT16", Does(Slot(ADDRESS), Half)),
    (15, "GOT16_LO", Does(Slot(ADDRESS), Lo)),
    (16, "GOT16_HI", Does(Slot(ADDRESS), Hi)),
    (17, "GOT16_HA", Does(Slot(ADDRESS), Ha)),
    (19, "COPY", DYNAMIC),
    (20, "GLOB_DAT", DYNAMIC),
    (21, "JMP_SLOT", DYNAMIC),
    (22, "RELATIVE", DYNAMIC),
    (24, "UADDR32", Does(Address, Word32)),
    (25, "UADDR16", Does(Address, Half)),
    (26, "REL32", Does(Relative, SignedWord32)),
    (27, "PLT32", OTHER),
    (28, "PLTREL32", OTHER),
    (29, "PLT16_LO", Does(Slot(ADDRESS), Lo)),
    (30, "PLT16_HI", Does(Slot(ADDRESS), Hi)),
    (31, "PLT16_HA", Does(Slot(ADDRESS), Ha)),
    (33, "SECTOFF", SECTION),
    (34, "SECTOFF_LO", SECTION),
    (35, "SECTOFF_HI", SECTION),
    (36, "SECTOFF_HA", SECTION),
    (37, "REL30", OTHER),
    (38, "ADDR64", Does(Address, Word64)),
    (39, "ADDR16_HIGHER", Does(Address, Higher)),
    (40, "ADDR16_HIGHERA", Does(Address, HigherA)),
    (41, "ADDR16_HIGHEST", Does(Address, Highest)),
    (42, "ADDR16_HIGHESTA", Does(Address, HighestA)),
    (43, "UADDR64", Does(Address, Word64)),
    (44, "REL64", Does(Relative, Word64)),
    (45, "PLT64", OTHER),
    (46, "PLTREL64", OTHER),
    (47, "TOC16", Does(TocOffset, Half)),
    (48, "TOC16_LO", Does(TocOffset, Lo)),
    (49, "TOC16_HI", Does(TocOffset, Hi)),
    (50, "TOC16_HA", Does(TocOffset, Ha)),
    (51, "TOC", Does(Toc, Word64)),
    (52, "PLTGOT16", OTHER),
    (53, "PLTGOT16_LO", OTHER),
    (54, "PLTGOT16_HI", OTHER),
    (55, "PLTGOT16_HA", OTHER),
    (56, "ADDR16_DS", Does(Address, HalfDs)),
    (57, "ADDR16_LO_DS", Does(Address, LoDs)),
    (58, "GOT16_DS", Does(Slot(ADDRESS), HalfDs)),
    (59, "GOT16_LO_DS", Does(Slot(ADDRESS), LoDs)),
    (60, "PLT16_LO_DS", Does(Slot(ADDRESS), LoDs)),
    (61, "SECTOFF_DS", SECTION),
    (62, "SECTOFF_LO_DS", SECTION),
    (63, "TOC16_DS", Does(TocOffset, HalfDs)),
    (64, "TOC16_LO_DS", Does(TocOffset, LoDs)),
    (65, "PLTGOT16_DS", OTHER),
    (66, "PLTGOT16_LO_DS", OTHER),
    (67, "TLS", Does(TlsMarker, Nowhere)),
    (68, "DTPMOD64", DYNAMIC),
    (69, "TPREL16", Does(ThreadOffset, SignedHalf)),
    (70, "TPREL16_LO", Does(ThreadOffset, Lo)),
    (71, "TPREL16_HI", Does(ThreadOffset, Hi)),
    (72, "TPREL16_HA", Does(ThreadOffset, Ha)),
    (73, "TPREL64", DYNAMIC),
    (74, "DTPREL16", Does(BlockOffset, Half)),
    (75, "DTPREL16_LO", Does(BlockOffset, Lo)),
    (76, "DTPREL16_HI", Does(BlockOffset, Hi)),
    (77, "DTPREL16_HA", Does(BlockOffset, Ha)),
    (78, "DTPREL64", Does(BlockOffset, Word64)),
    (79, "GOT_TLSGD16", Does(Slot(INDEX), Half)),
    (80, "GOT_TLSGD16_LO", Does(Slot(INDEX), Lo)),
    (81, "GOT_TLSGD16_HI", Does(Slot(INDEX), Hi)),
    (82, "GOT_TLSGD16_HA", Does(Slot(INDEX), Ha)),
    (83, "GOT_TLSLD16", Does(Slot(MODULE), Half)),
    (84, "GOT_TLSLD16_LO", Does(Slot(MODULE), Lo)),
    (85, "GOT_TLSLD16_HI", Does(Slot(MODULE), Hi)),
    (86, "GOT_TLSLD16_HA", Does(Slot(MODULE), Ha)),
    (87, "GOT_TPREL16_DS", Does(Slot(OFFSET), HalfDs)),
    (88, "GOT_TPREL16_LO_DS", Does(Slot(OFFSET), LoDs)),
    (89, "GOT_TPREL16_HI", Does(Slot(OFFSET), Hi)),
    (90, "GOT_TPREL16_HA", Does(Slot(OFFSET), Ha)),
    (91, "GOT_DTPREL16_DS", Does(Slot(BLOCK), HalfDs)),
    (92, "GOT_DTPREL16_LO_DS", Does(Slot(BLOCK), LoDs)),
    (93, "GOT_DTPREL16_HI", Does(Slot(BLOCK), Hi)),
    (94, "GOT_DTPREL16_HA", Does(Slot(BLOCK), Ha)),
    (95, "TPREL16_DS", Does(ThreadOffset, HalfDs)),
    (96, "TPREL16_LO_DS", Does(ThreadOffset, LoDs)),
    (97, "TPREL16_HIGHER", Does(ThreadOffset, Higher)),
    (98, "TPREL16_HIGHERA", Does(ThreadOffset, HigherA)),
    (99, "TPREL16_HIGHEST", Does(ThreadOffset, Highest)),
    (100, "TPREL16_HIGHESTA", Does(ThreadOffset, HighestA)),
    (101, "DTPREL16_DS", Does(BlockOffset, HalfDs)),
    (102, "DTPREL16_LO_DS", Does(BlockOffset, LoDs)),
    (103, "DTPREL16_HIGHER", Does(BlockOffset, Higher)),
    (104, "DTPREL16_HIGHERA", Does(BlockOffset, HigherA)),
    (105, "DTPREL16_HIGHEST", Does(BlockOffset, Highest)),
    (106, "DTPREL16_HIGHESTA", Does(BlockOffset, HighestA)),
    (107, "TLSGD", Does(GdMarker, Nowhere)),
    (108, "TLSLD", Does(LdMarker, Nowhere)),
    (109, "TOCSAVE", MARKER),
    (110, "ADDR16_HIGH", Does(Address, High)),
    (111, "ADDR16_HIGHA", Does(Address, HighA)),
    (112, "TPREL16_HIGH", Does(ThreadOffset, High)),
    (113, "TPREL16_HIGHA", Does(ThreadOffset, HighA)),
    (114, "DTPREL16_HIGH", Does(BlockOffset, High)),
    (115, "DTPREL16_HIGHA", Does(BlockOffset, HighA)),
    (116, "REL24_NOTOC", Does(CallNoToc, Low24)),
    (117, "ADDR64_LOCAL", Does(LocalEntry, Word64)),
    (118, "ENTRY", MARKER),
    (119, "PLTSEQ", MARKER),
    (120, "PLTCALL", MARKER),
    (121, "PLTSEQ_NOTOC", MARKER),
    (122, "PLTCALL_NOTOC", MARKER),
    (123, "PCREL_OPT", MARKER),
    (124, "REL24_P9NOTOC", POWER9),
    (128, "D34", Does(Address, Prefix34)),
    (129, "D34_LO", OTHER),
    (130, "D34_HI30", OTHER),
    (131, "D34_HA30", OTHER),
    (132, "PCREL34", Does(Relative, Prefix34)),
    (133, "GOT_PCREL34", Does(SlotRelative(ADDRESS), Prefix34)),
    (134, "PLT_PCREL34", Does(SlotRelative(ADDRESS), Prefix34)),
    (135, "PLT_PCREL34_NOTOC", Does(SlotRelative(ADDRESS), Prefix34)),
    (136, "ADDR16_HIGHER34", OTHER),
    (137, "ADDR16_HIGHERA34", OTHER),
    (138, "ADDR16_HIGHEST34", OTHER),
    (139, "ADDR16_HIGHESTA34", OTHER),
    (140, "REL16_HIGHER34", OTHER),
    (141, "REL16_HIGHERA34", OTHER),
    (142, "REL16_HIGHEST34", OTHER),
    (143, "REL16_HIGHESTA34", OTHER),
    (144, "D28", OTHER),
    (145, "PCREL28", OTHER),
    (146, "TPREL34", Does(ThreadOffset, Prefix34)),
    (147, "DTPREL34", Does(BlockOffset, Prefix34)),
    (148, "GOT_TLSGD_PCREL34", Does(SlotRelative(INDEX), Prefix34)),
    (149, "GOT_TLSLD_PCREL34", Does(SlotRelative(MODULE), Prefix34)),
    (150, "GOT_TPREL_PCREL34", Does(SlotRelative(OFFSET), Prefix34)),
    (151, "GOT_DTPREL_PCREL34", Does(SlotRelative(BLOCK), Prefix34)),
    (240, "REL16_HIGH", Does(Relative, High)),
    (241, "REL16_HIGHA", Does(Relative, HighA)),
    (242, "REL16_HIGHER", Does(Relative, Higher)),
    (243, "REL16_HIGHERA", Does(Relative, HigherA)),
    (244, "REL16_HIGHEST", Does(Relative, Highest)),
    (245, "REL16_HIGHESTA", Does(Relative, HighestA)),
    (246, "REL16DX_HA", OTHER),
    (247, "JMP_IREL", DYNAMIC),
    (248, "IRELATIVE", DYNAMIC),
    (249, "REL16", Does(Relative, SignedHalf)),
    (250, "REL16_LO", Does(Relative, Lo)),
    (251, "REL16_HI", Does(Relative, Hi)),
    (252, "REL16_HA", Does(Relative, Ha)),
    (253, "GNU_VTINHERIT", MARKER),
    (254, "GNU_VTENTRY", MARKER),
];

/// The table again, by number: relocations are looked up one by one.
static BY_NUMBER: [Support; 256] = {
    let mut by_number = [OTHER; 256];
    let mut row = 0;
    while row < ELF.len() {
        by_number[ELF[row].0 as usize] = ELF[row].2;
        row += 1;
    }
    by_number
};

/// The symbol is not in this image: what is called there has another TOC.
const EXTERNAL: u8 = 0x80;

/// `st_other` says how far the local entry is from the global one, or that it needs no r2 and does not keep it (1);
/// 7 is reserved (ELF V2 ABI, 3.4.1).
fn local_entry_code(flags: u8) -> u8 {
    flags & 7
}

fn local_entry_distance(flags: u8) -> Result<i64, FixupProblem> {
    match local_entry_code(flags) {
        0 | 1 => Ok(0),
        7 => Err(FixupProblem::Unsupported("a reserved local entry (`st_other`)")),
        logarithm => Ok(1 << logarithm),
    }
}

/// Whether r2 is another after a call of the symbol.
fn changes_toc(flags: u8) -> bool {
    flags & EXTERNAL != 0 || local_entry_code(flags) == 1
}

const NOP: u32 = 0x6000_0000; // ori 0,0,0
const LOAD_TOC: u32 = 0xe841_0018; // ld 2,24(1)

impl Architecture for Ppc64 {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: "powerpc64le",
        elf: Some(ElfIdentity { e_machine: 21, class: 64, big_endian: false }),
        macho: None,
        coff: None,
        is_host: cfg!(all(target_arch = "powerpc64", target_endian = "little")),
    };
    const SLOT_SIZE: u64 = 8;
    const STUB_SIZE: u64 = 24;
    const STUB_ALIGN: u64 = 8;
    const STUB_KINDS: &'static [&'static str] = &["long", "toc", "notoc"];
    const BRANCH_REACH: u64 = 1 << 25;
    const TRAP: &'static [u8] = &0x7fe0_0008u32.to_le_bytes(); // trap
    const GOT_BIAS: u64 = 0x8000;
    // ELF V2 ABI, 3.7.2.
    const THREAD_BLOCK: ThreadBlock = ThreadBlock::AfterPointer { gap: 0, bias: 0x7000 };
    const BLOCK_BIAS: u64 = 0x8000;

    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        if format != Format::Elf {
            return Err("this object format");
        }
        match BY_NUMBER.get(raw as usize).copied().unwrap_or(OTHER) {
            Does(value, field) => Ok(Kind { value, field }),
            Refused(why) => Err(why),
        }
    }

    fn name(_format: Format, raw: u32) -> String {
        match ELF.iter().find(|(number, ..)| *number == raw) {
            Some((_, name, _)) => format!("R_PPC64_{name}"),
            None => format!("relocation type {raw}"),
        }
    }

    fn operand(kind: Kind) -> Operand {
        match kind.value {
            Marker | TlsMarker | GdMarker | LdMarker => Operand::None,
            Address if kind.field == Word32 => Operand::LowSymbol,
            Address | LocalEntry | TocOffset => Operand::Symbol,
            Relative if kind.field == Word64 => Operand::Symbol,
            Relative => Operand::NearSymbol,
            Call | CallNoToc => Operand::Branch,
            Toc => Operand::Got,
            Slot(slot) | SlotRelative(slot) => Operand::Slot(slot),
            ThreadOffset => Operand::ThreadOffset,
            BlockOffset => Operand::BlockOffset,
        }
    }

    fn symbol_value(symbol: Symbol) -> (u64, u8) {
        let elsewhere = if symbol.place == SymbolPlace::Undefined { EXTERNAL } else { 0 };
        (symbol.value, symbol.other >> 5 | elsewhere)
    }

    fn external_value(address: u64, _is_function_pointer: bool) -> (u64, u8) {
        (address, if address == 0 { 0 } else { EXTERNAL })
    }

    /// A function that does not use r2 keeps the caller's.
    fn foreign_flags(symbol_flags: u8) -> u8 {
        if local_entry_code(symbol_flags) == 0 { symbol_flags } else { symbol_flags | EXTERNAL }
    }

    /// One that changes the TOC pointer; without a TOC pointer, one that makes its own.
    fn needs_stub(kind: Kind, _section: &[u8], _offset: u64, symbol_flags: u8) -> bool {
        match kind.value {
            Call => changes_toc(symbol_flags),
            CallNoToc => symbol_flags & EXTERNAL != 0 || local_entry_code(symbol_flags) > 1,
            _ => false,
        }
    }

    fn stub_kind(kind: Kind, symbol_flags: u8) -> u8 {
        match kind.value {
            CallNoToc => NOTOC,
            _ if changes_toc(symbol_flags) => TOC,
            _ => LONG,
        }
    }

    fn addend_leads(_kind: Kind) -> bool {
        true
    }

    fn stub_flags(stub_kind: u8) -> u8 {
        if stub_kind == TOC { EXTERNAL } else { 0 }
    }

    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        let value = match kind.value {
            Marker | TlsMarker | GdMarker | LdMarker => return Ok(()),
            Address | Toc | ThreadOffset | BlockOffset => fixup.absolute() as i64,
            LocalEntry => (fixup.absolute() as i64).wrapping_add(local_entry_distance(fixup.symbol_flags)?),
            Relative | SlotRelative(_) => fixup.relative(),
            Call | CallNoToc if fixup.through_stub => {
                if fixup.addend != 0 {
                    return Err(FixupProblem::Unsupported("a call into the middle of a function elsewhere"));
                }
                let displacement = fixup.relative();
                if kind.value == Call && changes_toc(fixup.symbol_flags) {
                    signed(displacement, if kind.field == Low14 { 16 } else { 26 })?;
                    restore_toc(section, offset)?;
                }
                displacement
            }
            // A symbol that is nowhere: the code is never run.
            Call if fixup.absolute() == 0 => 0,
            Call => fixup.relative().wrapping_add(local_entry_distance(fixup.symbol_flags)?),
            CallNoToc => fixup.relative(),
            TocOffset | Slot(_) => fixup.got_relative(),
        };
        kind.field.write(section, offset, value)
    }

    fn local_exec(kind: Kind) -> Option<LocalExec> {
        local_exec::of(kind)
    }

    fn local_exec_form(kind: Kind, next: Option<Kind>, section: &[u8], offset: u64) -> LocalExecForm {
        local_exec::form(kind, next, section, offset)
    }

    fn to_local_exec(
        kind: Kind,
        next: Option<Kind>,
        section: &mut [u8],
        offset: u64,
        fixup: Fixup,
    ) -> Result<(), FixupProblem> {
        local_exec::rewrite(kind, next, section, offset, &fixup)
    }

    const LINKER_FUNCTIONS: &'static [&'static str] = save_restore::PREFIXES;

    fn linker_functions(names: &BTreeSet<&str>) -> Vec<Code> {
        save_restore::make(names)
    }

    /// Through the slot to the global entry, which wants its own address in r12. r2 is the caller's, or, for `notoc`,
    /// unknown.
    fn write_stub(kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem> {
        const SAVE_TOC: u32 = 0xf841_0018; // std 2,24(1)
        const ADDIS_12_2: u32 = 0x3d82_0000; // addis 12,2,0
        const LD_12_12: u32 = 0xe98c_0000; // ld 12,0(12)
        const PLD_12: [u32; 2] = [0x0410_0000, 0xe580_0000]; // pld 12,0(0),1
        const TO_R12: [u32; 2] = [0x7d89_03a6, 0x4e80_0420]; // mtctr 12; bctr
        let mut words = [u32::from_le_bytes([Self::TRAP[0], Self::TRAP[1], Self::TRAP[2], Self::TRAP[3]]); 6];
        let from_toc = leads.slot.wrapping_sub(leads.got) as i64;
        match kind {
            LONG => words[..4].copy_from_slice(&[ADDIS_12_2, LD_12_12, TO_R12[0], TO_R12[1]]),
            TOC => words[..5].copy_from_slice(&[SAVE_TOC, ADDIS_12_2, LD_12_12, TO_R12[0], TO_R12[1]]),
            // The prefix and its instruction are in one block of 64 bytes, since stubs are aligned to 8.
            _ => words[..4].copy_from_slice(&[PLD_12[0], PLD_12[1], TO_R12[0], TO_R12[1]]),
        }
        for (number, word) in words.iter().enumerate() {
            *field(stub, 4 * number as u64)? = word.to_le_bytes();
        }
        match kind {
            LONG | TOC => {
                let load = 4 * u64::from(kind);
                Ha.write(stub, load, from_toc)?;
                LoDs.write(stub, load + 4, from_toc)
            }
            _ => Prefix34.write(stub, 0, leads.slot.wrapping_sub(place) as i64),
        }
    }
}

// Indices into `STUB_KINDS`.
const LONG: u8 = 0;
const TOC: u8 = 1;
const NOTOC: u8 = 2;

/// The stub of a call saved r2; the `nop` after the call becomes the load of it.
fn restore_toc(section: &mut [u8], call: u64) -> Result<(), FixupProblem> {
    const LACKS_NOP: FixupProblem =
        FixupProblem::Unsupported("a call that changes the TOC pointer, without a nop after it,");
    let after = call.wrapping_add(4);
    if bytes_at(section, after) != Ok(NOP.to_le_bytes()) {
        return Err(LACKS_NOP);
    }
    *field(section, after)? = LOAD_TOC.to_le_bytes();
    Ok(())
}

impl Field {
    fn write(self, section: &mut [u8], offset: u64, value: i64) -> Result<(), FixupProblem> {
        let adjusted = value.wrapping_add(0x8000);
        match self {
            Nowhere => Ok(()),
            Half => half(section, offset, either(value as u64, 16)? as i64),
            SignedHalf => half(section, offset, signed(value, 16)?),
            HalfDs => half_ds(section, offset, signed(value, 16)?),
            Lo => half(section, offset, value),
            LoDs => half_ds(section, offset, value),
            Hi => half(section, offset, signed(value, 32)? >> 16),
            Ha => half(section, offset, signed(adjusted, 32)? >> 16),
            High => half(section, offset, value >> 16),
            HighA => half(section, offset, adjusted >> 16),
            Higher => half(section, offset, value >> 32),
            HigherA => half(section, offset, adjusted >> 32),
            Highest => half(section, offset, value >> 48),
            HighestA => half(section, offset, adjusted >> 48),
            Low14 => word_bits(section, offset, 0xfffc, aligned(signed(value, 16)?, 4)?),
            Low24 => word_bits(section, offset, 0x03ff_fffc, aligned(signed(value, 26)?, 4)?),
            Word32 => {
                *field(section, offset)? = (either(value as u64, 32)? as u32).to_le_bytes();
                Ok(())
            }
            SignedWord32 => {
                *field(section, offset)? = (signed(value, 32)? as i32).to_le_bytes();
                Ok(())
            }
            Word64 => {
                *field(section, offset)? = value.to_le_bytes();
                Ok(())
            }
            Prefix34 => prefix34(section, offset, signed(value, 34)?),
        }
    }
}

/// The lowest 16 bits of the value.
fn half(section: &mut [u8], offset: u64, value: i64) -> Result<(), FixupProblem> {
    *field(section, offset)? = (value as u16).to_le_bytes();
    Ok(())
}

/// The same, but for the two or, in a DQ-form instruction, four bits that belong to the opcode.
fn half_ds(section: &mut [u8], offset: u64, value: i64) -> Result<(), FixupProblem> {
    let opcode_bits: u16 = if is_dq_form(section, offset) { 0xf } else { 3 };
    aligned(value & 0xffff, u64::from(opcode_bits) + 1)?;
    let field = field(section, offset)?;
    *field = (u16::from_le_bytes(*field) & opcode_bits | value as u16).to_le_bytes();
    Ok(())
}

/// `lxvp` and `stxvp`, `lq`, and of the primary opcode 61 those with 01 in the lowest bits, `lxv` and `stxv` (Power ISA
/// 3.1, 1.6.1.5).
fn is_dq_form(section: &[u8], offset: u64) -> bool {
    let Ok(instruction) = bytes_at(section, offset).map(u32::from_le_bytes) else { return false };
    match instruction >> 26 {
        6 | 56 => true,
        61 => instruction & 3 == 1,
        _ => false,
    }
}

fn word_bits(section: &mut [u8], offset: u64, bits: u32, value: i64) -> Result<(), FixupProblem> {
    change_u32(section, offset, |word| Ok(word & !bits | value as u32 & bits))
}

/// The prefix comes first in memory, in either byte order.
fn prefix34(section: &mut [u8], offset: u64, value: i64) -> Result<(), FixupProblem> {
    let whole: &mut [u8; 8] = field(section, offset)?;
    word_bits(whole, 0, 0x3_ffff, value >> 16)?;
    word_bits(whole, 4, 0xffff, value)
}

#[cfg(test)]
mod tests;
