//! Architectures: what a relocation computes, and what a stub looks like.
//!
//! An architecture is one file here and one line of [`machines!`]. It holds pure functions over numbers and byte slices:
//! nothing unsafe, nothing tied to the host, so any of them can be tested anywhere. GOT entries and stubs are made by
//! a pass ([`crate::link::tables`]); a fix-up only sees place, target and addend.

#[cfg(any(feature = "all-arch", target_arch = "aarch64"))]
pub(crate) mod aarch64;
#[cfg(any(feature = "all-arch", target_arch = "arm"))]
pub(crate) mod arm;
mod coff;
#[cfg(all(test, feature = "all-arch"))]
mod coverage;
mod fields;
#[cfg(any(feature = "all-arch", target_arch = "x86"))]
pub(crate) mod i386;
mod local_exec;
#[cfg(any(feature = "all-arch", target_arch = "loongarch64"))]
pub(crate) mod loongarch64;
#[cfg(any(feature = "all-arch", target_arch = "powerpc64"))]
pub(crate) mod ppc64;
#[cfg(any(feature = "all-arch", target_arch = "riscv32", target_arch = "riscv64"))]
pub(crate) mod riscv;
#[cfg(any(feature = "all-arch", target_arch = "s390x"))]
pub(crate) mod s390x;
#[cfg(any(feature = "all-arch", target_arch = "x86_64"))]
pub(crate) mod x86_64;

pub(crate) use fields::*;
pub(crate) use local_exec::*;

use std::collections::BTreeSet;

use crate::error::FixupProblem;
use crate::graph::{Format, Relocation, Symbol, SymbolKind};
use crate::made::Code;

/// Lists the machines with their architectures: the only place, besides its own file, that an architecture is named in.
macro_rules! machines {
    ($($(#[$built:meta])* $machine:ident => $architecture:ty,)*) => {
        /// Instruction set of an object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Machine {
            $($(#[$built])* #[doc = stringify!($machine)] $machine,)*
        }

        impl Machine {
            /// The machine that a format's header names.
            pub(crate) fn find(named: impl Fn(&Identity) -> bool) -> Option<Self> {
                $($(#[$built])* if named(&<$architecture as Architecture>::IDENTITY) {
                    return Some(Machine::$machine);
                })*
                None
            }

            /// Whether this process executes such code.
            pub(crate) fn is_host(self) -> bool {
                match self {
                    $($(#[$built])* Machine::$machine => <$architecture as Architecture>::IDENTITY.is_host,)*
                }
            }

            /// The name that users know it by.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $($(#[$built])* Machine::$machine => <$architecture as Architecture>::IDENTITY.name,)*
                }
            }
        }

        /// Evaluates an expression in which a type stands for the architecture of a machine.
        macro_rules! with_architecture {
            ($machine_value:expr, $parameter:ident => $body:expr) => {
                match $machine_value {
                    $($(#[$built])* $crate::arch::Machine::$machine => {
                        type $parameter = $architecture;
                        $body
                    })*
                }
            };
        }
        pub(crate) use with_architecture;
    };
}

machines! {
    #[cfg(any(feature = "all-arch", target_arch = "x86_64"))]
    X86_64 => crate::arch::x86_64::X86_64,
    #[cfg(any(feature = "all-arch", target_arch = "aarch64"))]
    AArch64 => crate::arch::aarch64::AArch64,
    #[cfg(any(feature = "all-arch", target_arch = "powerpc64"))]
    Ppc64 => crate::arch::ppc64::Ppc64,
    #[cfg(any(feature = "all-arch", target_arch = "s390x"))]
    S390x => crate::arch::s390x::S390x,
    #[cfg(any(feature = "all-arch", target_arch = "riscv64"))]
    Riscv64 => crate::arch::riscv::Riscv<64>,
    #[cfg(any(feature = "all-arch", target_arch = "riscv32"))]
    Riscv32 => crate::arch::riscv::Riscv<32>,
    #[cfg(any(feature = "all-arch", target_arch = "loongarch64"))]
    LoongArch64 => crate::arch::loongarch64::LoongArch64,
    #[cfg(any(feature = "all-arch", target_arch = "x86"))]
    I386 => crate::arch::i386::I386,
    #[cfg(any(feature = "all-arch", target_arch = "arm"))]
    Arm => crate::arch::arm::Arm,
}

/// Ends an error about a machine that nothing is known of.
pub(crate) const NOT_ALL: &str = match cfg!(feature = "all-arch") {
    true => "",
    false => "; the loader was built without `all-arch`, so it knows this process's own machine only",
};

/// How object formats name a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    /// As in a target triple.
    pub(crate) name: &'static str,
    /// ELF: `e_machine`, class and byte order.
    pub(crate) elf: Option<ElfIdentity>,
    /// Mach-O: `cputype`.
    pub(crate) macho: Option<u32>,
    /// COFF: `Machine`.
    pub(crate) coff: Option<u16>,
    /// This process executes such code.
    pub(crate) is_host: bool,
}

/// What of an ELF header tells the instruction set (gABI, "ELF Header").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ElfIdentity {
    pub(crate) e_machine: u16,
    /// 32 or 64.
    pub(crate) class: u8,
    pub(crate) big_endian: bool,
}

/// A relocation that takes nothing but S, A and P.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Simple {
    /// `S + A - P: word32`.
    Relative32,
    /// `S + A - P: word32` of a branch, or `L + A - P`, with stubs of kind 0 that lead to S.
    Branch32,
    /// `S + A: word64`.
    Absolute64,
}

/// The numbers that a format has for simple relocations. Few enough to stay in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SimpleKinds {
    relative32: u64,
    branch32: u64,
    absolute64: u64,
}

impl SimpleKinds {
    /// No number of a format, which have 32 bits.
    const NO_NUMBER: u64 = u64::MAX;

    pub(crate) const NONE: Self =
        SimpleKinds { relative32: Self::NO_NUMBER, branch32: Self::NO_NUMBER, absolute64: Self::NO_NUMBER };

    #[inline(always)]
    pub(crate) fn find(self, raw: u32) -> Option<Simple> {
        match u64::from(raw) {
            raw if raw == self.relative32 => Some(Simple::Relative32),
            raw if raw == self.branch32 => Some(Simple::Branch32),
            raw if raw == self.absolute64 => Some(Simple::Absolute64),
            _ => None,
        }
    }
}

/// What the passes need to know of an architecture.
pub(crate) trait Architecture {
    /// A relocation kind, the same for all formats.
    type Kind: Copy + PartialEq;

    /// How formats name it.
    const IDENTITY: Identity;
    /// Words are stored with the most significant byte first.
    const BIG_ENDIAN: bool = false;
    /// Bytes of an address, and so of a GOT entry.
    const SLOT_SIZE: u64;
    /// Bytes of a stub.
    const STUB_SIZE: u64;
    /// Alignment of a stub.
    const STUB_ALIGN: u64;
    /// The kinds of stub, by number. Most architectures have one.
    const STUB_KINDS: &'static [&'static str] = &["branch"];
    /// A stub reads the target from the symbol's GOT entry. If not, it holds the target itself.
    const STUB_USES_SLOT: bool = true;
    /// How far the shortest branch that may go through a stub reaches, in bytes to either side.
    const BRANCH_REACH: u64 = 1 << 31;
    /// What a gap between code sections is filled with: an instruction that traps.
    const TRAP: &'static [u8];
    /// Distance from the first GOT entry to what the ABI calls the GOT's address, where that is not the same (`.TOC.`).
    const GOT_BIAS: u64 = 0;

    /// Accesses through the GOT are relaxed even when the symbol is none of this link's sections, but a number of its own or
    /// what a resolver gave.
    const RELAXES_EXTERNALS: bool = true;

    /// Where a program's own thread-local block is from the thread pointer.
    const THREAD_BLOCK: ThreadBlock = ThreadBlock::BeforePointer;
    /// What is subtracted from a variable's offset in a thread-local block, where the ABI does (`@dtprel`).
    const BLOCK_BIAS: u64 = 0;

    /// Code is aligned by relocations of operand [`Operand::Alignment`].
    const ALIGNS_BY_RELOCATION: bool = false;

    /// Plain ELF objects are linked in one go ([`crate::link::plain`]). Relocations are then the simple ones, those that
    /// [`relax`](Self::relax) does away with alone, and for symbols of others those of GOT entries; stubs are of kind 0.
    const PLAIN: bool = false;

    /// The simple relocations, where their addends are explicit. On some machines nearly all are simple, so the passes deal
    /// with them before they look any further; [`kind`](Self::kind), [`operand`](Self::operand) and
    /// [`apply`](Self::apply) say the same of them.
    #[inline(always)]
    fn simple(_format: Format) -> SimpleKinds {
        SimpleKinds::NONE
    }

    /// The kind behind a format's number, or what it would need that is not supported. For Mach-O the number is
    /// `r_type | r_length << 8 | r_pcrel << 16`.
    fn kind(format: Format, raw: u32) -> Result<Self::Kind, &'static str>;

    /// The format's own name for a relocation.
    fn name(format: Format, raw: u32) -> String;

    /// What the relocation's value is made from.
    fn operand(kind: Self::Kind) -> Operand;

    /// The same against a thread-local symbol, where a kind serves others as well.
    #[inline]
    fn thread_local_operand(kind: Self::Kind) -> Operand {
        Self::operand(kind)
    }

    /// The addend that is kept in the field itself: of tables that have none of their own (ELF `SHT_REL`, COFF, Mach-O).
    fn implicit_addend(_kind: Self::Kind, _section: &[u8], _offset: u64) -> Result<i64, FixupProblem> {
        Ok(0)
    }

    /// The kind of the relocation that must follow, at the same place, and names what is to be subtracted
    /// ([`Fixup::subtrahend`]).
    fn subtrahend(_kind: Self::Kind) -> Option<Self::Kind> {
        None
    }

    /// This is the high part that low parts ([`Operand::PairedLow`]) refer to by its place.
    fn is_paired_high(_kind: Self::Kind) -> bool {
        false
    }

    /// The padding that a relocation of operand [`Operand::Alignment`] stands at.
    fn padding(_kind: Self::Kind, _relocation: &Relocation) -> Result<Padding, FixupProblem> {
        Err(FixupProblem::Unsupported("alignment by relocation"))
    }

    /// Whether there may be a call in `code` whose target no relocation tells. What is no call may be taken for one.
    fn may_call_indirectly(_code: &[u8]) -> bool {
        true
    }

    /// Fills padding that was cut with instructions that do nothing.
    fn write_nops(_padding: &mut [u8]) {}

    /// Offset of a symbol in its section, and [`Fixup::symbol_flags`] for it.
    #[inline(always)]
    fn symbol_value(symbol: Symbol) -> (u64, u8) {
        (symbol.value, 0)
    }

    /// The same for an address that a resolver gave. `is_function_pointer`: it is one of this process, where the low bit
    /// of an address may tell the instruction set.
    #[inline(always)]
    fn external_value(address: u64, _is_function_pointer: bool) -> (u64, u8) {
        (address, 0)
    }

    /// [`Fixup::symbol_flags`] of a symbol of another object of the link, which has a GOT of its own.
    #[inline(always)]
    fn foreign_flags(symbol_flags: u8) -> u8 {
        symbol_flags
    }

    /// The address of a symbol as a function pointer and as a user sees it.
    #[inline(always)]
    fn pointer_value(address: u64, _symbol_flags: u8) -> u64 {
        address
    }

    /// The addend of a branch to the first byte of its target.
    #[inline]
    fn branch_addend(_kind: Self::Kind) -> i64 {
        0
    }

    /// Whether a stub for the branch leads to `S + A`. Otherwise one for a symbol that is defined elsewhere leads to S, and
    /// the addend counts from the stub: the branch goes to `L + A`.
    #[inline]
    fn addend_leads(_kind: Self::Kind) -> bool {
        false
    }

    /// Whether a relative reference at `offset` of `section` is the operand of a call or a jump, so that it may go
    /// through a stub. Asked for operands of [`Operand::NearSymbol`] in code.
    fn is_branch(_section: &[u8], _offset: u64, _addend: i64) -> bool {
        false
    }

    /// Whether a branch that is in reach needs a stub all the same, to change the instruction set or the like.
    #[inline(always)]
    fn needs_stub(_kind: Self::Kind, _section: &[u8], _offset: u64, _symbol_flags: u8) -> bool {
        false
    }

    /// The kind of stub for a branch to a symbol: an index into [`STUB_KINDS`](Self::STUB_KINDS).
    #[inline]
    fn stub_kind(_kind: Self::Kind, _symbol_flags: u8) -> u8 {
        0
    }

    /// [`Fixup::symbol_flags`] of a stub.
    fn stub_flags(_stub_kind: u8) -> u8 {
        0
    }

    /// Writes the value into the field. Bits around the field stay as they are; those of the field are cleared first.
    fn apply(kind: Self::Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem>;

    /// Whether a section's accesses through the GOT may be relaxed one by one, told from the kinds of its relocations in
    /// order: not if an instruction of one may belong to another access as well.
    fn may_relax(_kinds: impl Iterator<Item = Self::Kind>) -> bool {
        true
    }

    /// Tries to replace an access through the GOT by a direct one; `fixup.target` is the symbol's own address. `next`
    /// is the relocation that follows in the table, marks aside. Changes nothing unless it can be done.
    fn relax(
        _kind: Self::Kind,
        _current: &Relocation,
        _next: Option<(Self::Kind, Relocation)>,
        _section: &mut [u8],
        _fixup: Fixup,
    ) -> Relaxed {
        Relaxed::No
    }

    /// Where local-dynamic accesses become local-exec, their offsets count from the thread pointer: so
    /// `_TLS_MODULE_BASE_` is there. Elsewhere they count from the block.
    const MODULE_IS_AT_THREAD_POINTER: bool = false;

    /// What a relocation of this kind becomes where an access to one of the program's own thread-local variables becomes
    /// local-exec. `None`: it is no part of one.
    #[inline]
    fn local_exec(_kind: Self::Kind) -> Option<LocalExec> {
        None
    }

    /// Whether the instructions at `offset` are those that the ABI has for such a relocation. Asked before anything is
    /// written. `next` is the kind of the relocation that follows in the table.
    fn local_exec_form(
        _kind: Self::Kind,
        _next: Option<Self::Kind>,
        _section: &[u8],
        _offset: u64,
    ) -> LocalExecForm {
        LocalExecForm::Foreign
    }

    /// Rewrites the instructions of an access that [`local_exec_form`](Self::local_exec_form) knows.
    /// `fixup.target` is the variable's offset from the thread pointer.
    fn to_local_exec(
        _kind: Self::Kind,
        _next: Option<Self::Kind>,
        _section: &mut [u8],
        _offset: u64,
        _fixup: Fixup,
    ) -> Result<(), FixupProblem> {
        Err(FixupProblem::Unsupported("an access to a thread-local variable of the program"))
    }

    /// What names of functions begin with that the ABI leaves to the linker.
    const LINKER_FUNCTIONS: &'static [&'static str] = &[];

    /// Makes those of these functions that there are.
    fn linker_functions(_names: &BTreeSet<&str>) -> Vec<Code> {
        Vec::new()
    }

    /// Finds the instructions that count on one distance from the thread pointer to this image's thread-local block in all
    /// threads, and plans a detour round each that is to add the distance in its thread. `None` is an access whose other
    /// part another instruction has, with a detour. `functions` are the offsets at which functions begin, `accesses` the
    /// places of relocations; both are sorted.
    fn plan_detours(
        _code: &[u8],
        _functions: &[u64],
        _accesses: &[(Self::Kind, u64)],
    ) -> Result<Vec<Option<Detour>>, Refused> {
        Err(Refused { access: 0, what: "a thread-local variable at a fixed offset" })
    }

    /// Writes a planned detour, and a branch to it into `code`: a section that is fixed up already, as if the block began
    /// at the thread pointer.
    fn write_detour(
        _detour: &Detour,
        _code: &mut [u8],
        _places: DetourPlaces,
        _bytes: &mut [u8],
    ) -> Result<(), FixupProblem> {
        Err(FixupProblem::WrongInstruction)
    }

    /// Writes a jump to the stub's target into a stub that runs at `place`. `stub` has [`STUB_SIZE`](Self::STUB_SIZE) bytes.
    fn write_stub(stub_kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem>;
}

/// What a relocation refers to by its symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    /// Nothing: the relocation does nothing.
    None,
    /// The symbol's address.
    Symbol,
    /// The symbol's address, in a field that only reaches the lowest 2 GiB of a larger address space.
    LowSymbol,
    /// The symbol's address, relative to the place and in reach of it; a stub may take its place when the reference
    /// is a branch.
    NearSymbol,
    /// The symbol's address or that of a stub for it.
    Branch,
    /// The symbol's address or that of a stub for it, relative to the first byte of the image ([`Fixup::image`]).
    ImageOffset,
    /// The address of the symbol's entry in the GOT.
    Slot(SlotKind),
    /// The address of the GOT; the symbol does not matter.
    Got,
    /// The symbol's size.
    Size,
    /// The symbol is the place of a relocation that has the high part of the same value; the fix-up's target, addend
    /// and place are those of that relocation.
    PairedLow,
    /// The symbol's offset in its section.
    SectionOffset,
    /// The number of the symbol's section in its object, which counts from 1.
    SectionNumber,
    /// The offset of a thread-local symbol from the thread pointer.
    ThreadOffset,
    /// The offset of a thread-local symbol in its image's thread-local block.
    BlockOffset,
    /// Nothing to fix up: padding that may be shortened, so that what follows is aligned.
    Alignment,
}

/// Where the thread-local block of a program is ("ELF Handling For Thread-Local Storage", section 3: variants II and I).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThreadBlock {
    /// It ends at the thread pointer.
    BeforePointer,
    /// It begins after a thread control block of `gap` bytes, and the thread pointer is `bias` bytes after that block's start.
    AfterPointer { gap: u64, bias: u64 },
}

impl ThreadBlock {
    /// Offset from the thread pointer of a block that is linked at `start`, modulo 2^64. `align` is a power of two.
    pub(crate) fn offset(self, start: u64, size: u64, align: u64) -> u64 {
        let low_bits = align.wrapping_sub(1);
        match self {
            ThreadBlock::BeforePointer => {
                let gap = start.wrapping_add(size).wrapping_neg() & low_bits;
                size.wrapping_add(gap).wrapping_neg()
            }
            ThreadBlock::AfterPointer { gap, bias } => {
                gap.wrapping_add(start.wrapping_sub(gap) & low_bits).wrapping_sub(bias)
            }
        }
    }
}

/// What a GOT entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SlotKind {
    /// The symbol's address.
    Address,
    /// A thread-local symbol's offset from the thread pointer.
    ThreadOffset,
    /// A thread-local symbol's offset in its image's thread-local block.
    BlockOffset,
    /// Two words: module and offset of a thread-local symbol, the argument of `__tls_get_addr`.
    ThreadIndex,
    /// The same with offset zero: the module's block.
    ThreadModule,
    /// Two words: a function and its argument, which give the symbol's offset from the thread pointer.
    ThreadDescriptor,
}

/// Bytes that do nothing, at a place that is to be aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padding {
    /// Bytes of padding in the object.
    pub(crate) bytes: u64,
    /// What follows is to be aligned to this: a power of two.
    pub(crate) align: u64,
    /// Aligning is given up when it takes more bytes than this.
    pub(crate) most: u64,
}

/// What became of an attempt to relax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relaxed {
    /// Nothing was changed.
    No,
    /// This relocation is done.
    This,
    /// This relocation and the next are done.
    Both,
}

/// A way round an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detour {
    /// Offset of the instruction in its section, and its bytes.
    pub(crate) instruction: u64,
    pub(crate) length: u64,
    /// Bytes of the detour.
    pub(crate) size: u64,
}

/// The addresses that a detour has to do with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DetourPlaces {
    /// Of the instruction's section.
    pub(crate) section: u64,
    /// Of the detour.
    pub(crate) detour: u64,
    /// Of the TLS descriptor for the start of the image's thread-local block.
    pub(crate) descriptor: u64,
}

/// Why there is no detour for one of several accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Its position among them.
    pub(crate) access: usize,
    pub(crate) what: &'static str,
}

/// Where a stub leads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stub {
    /// Address of the GOT entry that holds the target's address; meaningless without
    /// [`Architecture::STUB_USES_SLOT`].
    pub(crate) slot: u64,
    /// The target, with what [`Architecture::pointer_value`] adds.
    pub(crate) target: u64,
    /// As [`Fixup::got`].
    pub(crate) got: u64,
}

/// The numbers of one fix-up, in the psABI's letters: `target` is S, G + GOT, L, GOT or Z by the kind's
/// [`Operand`], `place` is P.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fixup {
    pub(crate) place: u64,
    pub(crate) target: u64,
    pub(crate) addend: i64,
    /// Address of the GOT (`_GLOBAL_OFFSET_TABLE_`, `.TOC.`).
    pub(crate) got: u64,
    /// Address of the image's first byte (`__ImageBase`).
    pub(crate) image: u64,
    /// What is to be subtracted (address and addend together); 0 if nothing is.
    pub(crate) subtrahend: u64,
    /// What [`Architecture::symbol_value`] or [`Architecture::external_value`] said of the symbol.
    pub(crate) symbol_flags: u8,
    /// `target` is a stub.
    pub(crate) through_stub: bool,
    /// The symbol is weak and defined nowhere; `target` is 0.
    pub(crate) undefined_weak: bool,
}

impl Fixup {
    /// `target + addend`; addresses wrap round, as in the ABI's arithmetic.
    #[inline]
    pub(crate) fn absolute(&self) -> u64 {
        self.target.wrapping_add_signed(self.addend)
    }

    /// `target + addend - place`.
    #[inline]
    pub(crate) fn relative(&self) -> i64 {
        self.absolute().wrapping_sub(self.place) as i64
    }

    /// `target + addend - subtrahend`.
    #[inline]
    pub(crate) fn difference(&self) -> i64 {
        self.absolute().wrapping_sub(self.subtrahend) as i64
    }

    /// `target + addend - GOT`.
    #[inline]
    pub(crate) fn got_relative(&self) -> i64 {
        self.absolute().wrapping_sub(self.got) as i64
    }
}

/// Facts of ARM symbols and the like, for [`Architecture::symbol_value`]: whether a symbol names a function.
pub(crate) fn is_function(symbol: &Symbol) -> bool {
    matches!(symbol.kind, SymbolKind::Function | SymbolKind::IndirectFunction)
}

#[cfg(test)]
mod tests;
