//! Detours round the instructions that know a thread-local variable by one distance from the thread pointer (initial-exec,
//! local-exec: "ELF Handling For Thread-Local Storage", 4.4.3 and 4.4.4), where each thread has the variable's block
//! elsewhere.
//!
//! The image is linked as if its block began at the thread pointer. A jump replaces the instruction; the detour asks
//! for the distance from the thread pointer to this thread's block, and runs the instruction with that added to the
//! address. All registers, flags and the 128 bytes below the stack pointer are kept.
//!
//! `R_X86_64_TPOFF32` only says where a displacement is. The instruction around it is found by decoding all that
//! stand before it in the function, and refused unless the field is exactly its displacement or immediate.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, InstructionInfoFactory, MemoryOperand,
    OpKind, Register,
};

use super::Kind;
use crate::arch::{Detour, DetourPlaces, Refused, bytes_at};
use crate::error::FixupProblem;

/// E8 or E9 and four bytes.
const BRANCH: usize = 5;
const NOP: u8 = 0x90;
const TRAP: u8 = 0xcc;

/// What the function may use below the stack pointer (psABI, 3.2.2).
const RED_ZONE: i32 = 128;

const NO_FORM: &str =
    "a thread-local access in an instruction of this form, to a variable that each thread has elsewhere,";

/// Finds the instructions that have the fields. Both lists are sorted.
pub(super) fn plan(
    code: &[u8],
    functions: &[u64],
    accesses: &[(Kind, u64)],
) -> Result<Vec<Option<Detour>>, Refused> {
    let mut walk = Walk::new(code);
    let mut writer = Writer::new();
    let mut detours = Vec::with_capacity(accesses.len());
    for (access, (kind, field)) in accesses.iter().enumerate() {
        let refused = |what| Refused { access, what };
        let found = match kind {
            Kind::GotTpOff => slot_access(code, *field),
            Kind::TpOff32 | Kind::TpOff64 => {
                let function = functions.partition_point(|start| start <= field);
                let function = function.checked_sub(1).map_or(0, |number| functions[number]);
                walk.instruction_with(function, *field, if *kind == Kind::TpOff64 { 8 } else { 4 })
            }
            _ => Err(NO_FORM),
        };
        let instruction = found.map_err(refused)?;
        // Nowhere yet: only the length matters.
        let places =
            DetourPlaces { section: 0, detour: instruction.next_ip(), descriptor: instruction.next_ip() };
        let way = writer.way(instruction, &places).map_err(refused)?;
        let (start, length) = (instruction.ip(), instruction.len() as u64);
        detours.push(Some(Detour { instruction: start, length, size: way.bytes.len() as u64 }));
    }
    Ok(detours)
}

/// Writes the detour, and the branch to it over the instruction, which is fixed up already.
pub(super) fn write(
    detour: &Detour,
    code: &mut [u8],
    places: DetourPlaces,
    bytes: &mut [u8],
) -> Result<(), FixupProblem> {
    let range = detour.instruction as usize..(detour.instruction + detour.length) as usize;
    let field = code.get_mut(range).ok_or(FixupProblem::OutsideSection)?;
    let at = places.section.wrapping_add(detour.instruction);
    let instruction = Decoder::with_ip(64, field, at, DecoderOptions::NONE).decode();
    let way = Writer::new().way(instruction, &places).map_err(FixupProblem::Unsupported)?;
    if way.bytes.len() != bytes.len() || field.len() < BRANCH {
        return Err(FixupProblem::WrongInstruction);
    }
    bytes.copy_from_slice(&way.bytes);
    // What a call returns to is what unwind tables know: the instruction behind.
    let (filler, branch) = match way.is_call {
        true => (NOP, field.len() - BRANCH),
        false => (TRAP, 0),
    };
    let from = at.wrapping_add((branch + BRANCH) as u64);
    let distance = places.detour.wrapping_sub(from) as i64;
    let distance =
        i32::try_from(distance).map_err(|_| FixupProblem::OutOfRange { value: distance, bits: 32 })?;
    field.fill(filler);
    field[branch] = if way.is_call { 0xe8 } else { 0xe9 };
    field[branch + 1..branch + BRANCH].copy_from_slice(&distance.to_le_bytes());
    Ok(())
}

/// MOV or ADD of a GOT entry to a register: the psABI allows no other. They have three bytes before the field.
fn slot_access(code: &[u8], field: u64) -> Result<Instruction, &'static str> {
    let bytes = field.checked_sub(3).and_then(|start| bytes_at::<7>(code, start).ok().zip(Some(start)));
    match bytes {
        Some(([rex @ (0x48 | 0x4c), opcode @ (0x8b | 0x03), mod_rm, ..], start)) if mod_rm & 0xc7 == 0x05 => {
            // Whatever is in the field is overwritten.
            let bytes = [rex, opcode, mod_rm, 0, 0, 0, 0];
            Ok(Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE).decode())
        }
        _ => Err(
            "an initial-exec access in an instruction other than MOV and ADD, to a variable that each thread has \
                  elsewhere,",
        ),
    }
}

/// Decodes a section from function to function, as far as accesses need it: no instruction twice.
struct Walk<'c> {
    code: &'c [u8],
    decoder: Decoder<'c>,
}

impl<'c> Walk<'c> {
    fn new(code: &'c [u8]) -> Self {
        Walk { code, decoder: Decoder::with_ip(64, code, 0, DecoderOptions::NONE) }
    }

    /// The instruction whose displacement or immediate the field of so many bytes is.
    fn instruction_with(
        &mut self,
        function: u64,
        field: u64,
        bytes: usize,
    ) -> Result<Instruction, &'static str> {
        const UNKNOWN: &str = "a local-exec access in code that does not decode, to a variable that each thread has \
                               elsewhere,";
        if (self.decoder.position() as u64) < function {
            let position = usize::try_from(function).map_err(|_| UNKNOWN)?;
            self.decoder.set_position(position).map_err(|_| UNKNOWN)?;
            self.decoder.set_ip(function);
        }
        while self.decoder.position() as u64 <= field {
            let instruction = self.decoder.decode();
            if instruction.is_invalid() {
                return Err(UNKNOWN);
            }
            if field < self.decoder.position() as u64 {
                return self.checked(&instruction, field, bytes);
            }
        }
        Err(UNKNOWN)
    }

    /// The instruction with zero in the field: whatever is there is overwritten.
    fn checked(
        &self,
        instruction: &Instruction,
        field: u64,
        size: usize,
    ) -> Result<Instruction, &'static str> {
        const LONGEST: usize = 15;
        let offsets = self.decoder.get_constant_offsets(instruction);
        let at = (field - instruction.ip()) as usize;
        let is_displacement = offsets.has_displacement() && offsets.displacement_offset() == at;
        let is_immediate = offsets.has_immediate() && offsets.immediate_offset() == at;
        let found = match () {
            () if is_displacement && !instruction.is_ip_rel_memory_operand() => offsets.displacement_size(),
            () if is_immediate && is_immediate_form(instruction) => offsets.immediate_size(),
            () => return Err(NO_FORM),
        };
        if found != size {
            return Err(NO_FORM);
        }
        let mut bytes = [0; LONGEST];
        let start = instruction.ip() as usize;
        bytes[..instruction.len()].copy_from_slice(&self.code[start..start + instruction.len()]);
        bytes[at..at + size].fill(0);
        let zeroed =
            Decoder::with_ip(64, &bytes[..instruction.len()], instruction.ip(), DecoderOptions::NONE)
                .decode();
        if zeroed.len() != instruction.len() {
            return Err(NO_FORM);
        }
        Ok(zeroed)
    }
}

/// A register gets the distance, or it is added.
fn is_immediate_form(instruction: &Instruction) -> bool {
    let to_register = instruction.op0_kind() == OpKind::Register;
    to_register
        && matches!(
            instruction.code(),
            Code::Add_rm64_imm32 | Code::Add_RAX_imm32 | Code::Mov_rm64_imm32 | Code::Mov_r64_imm64
        )
}

/// The instructions of a detour.
struct Way {
    bytes: Vec<u8>,
    /// It is called, instead of jumped to.
    is_call: bool,
}

struct Writer {
    encoder: Encoder,
    registers: InstructionInfoFactory,
    /// Where the next instruction will stand.
    end: u64,
}

impl Writer {
    fn new() -> Self {
        Writer { encoder: Encoder::new(64), registers: InstructionInfoFactory::new(), end: 0 }
    }

    fn way(&mut self, instruction: Instruction, places: &DetourPlaces) -> Result<Way, &'static str> {
        self.end = places.detour;
        let done = self.write(&instruction, places);
        let bytes = self.encoder.take_buffer();
        let is_call = done.ok_or(NO_FORM)?;
        Ok(Way { bytes, is_call })
    }

    /// Says whether the detour is to be called. `None`: there is no detour round such an instruction.
    fn write(&mut self, instruction: &Instruction, places: &DetourPlaces) -> Option<bool> {
        let registers = Registers::of(instruction, &mut self.registers)?;
        let scratch = registers.scratch;
        let behind = instruction.next_ip();
        match instruction.code() {
            code @ (Code::Mov_r64_rm64 | Code::Add_r64_rm64) if instruction.is_ip_rel_memory_operand() => {
                self.enter(&registers, places, Some(instruction.ip_rel_memory_address()))?;
                self.put(Instruction::with2(code, instruction.op0_register(), scratch))?;
                self.leave(scratch, RED_ZONE, behind)?;
            }
            _ if instruction.is_ip_rel_memory_operand() => return None,
            code if is_immediate_form(instruction) => {
                let offset = i32::try_from(instruction.immediate(1) as i64).ok()?;
                self.enter(&registers, places, None)?;
                self.put(Instruction::with2(Code::Lea_r64_m, scratch, wide(scratch, offset)))?;
                let code = match code {
                    Code::Mov_rm64_imm32 | Code::Mov_r64_imm64 => Code::Mov_r64_rm64,
                    _ => Code::Add_r64_rm64,
                };
                self.put(Instruction::with2(code, instruction.op0_register(), scratch))?;
                self.leave(scratch, RED_ZONE, behind)?;
            }
            _ if !registers.has_memory => return None,
            // A part of what is below the stack pointer becomes what is at it.
            Code::Push_rm64 => {
                self.enter(&registers, places, None)?;
                self.load(&registers, instruction)?;
                let pushed = MemoryOperand::with_base_displ(Register::RSP, RED_ZONE.into());
                self.put(Instruction::with2(Code::Mov_rm64_r64, pushed, scratch))?;
                self.leave(scratch, RED_ZONE - 8, behind)?;
            }
            // Nothing below the stack pointer is alive at a call, and nobody expects anything of R11 (psABI, 3.2.3).
            Code::Call_rm64 => {
                let target = Register::R11;
                if registers.index == target {
                    return None;
                }
                let registers = Registers { scratch: target, ..registers };
                self.ask(&registers, places, None)?;
                let mut jump = registers.moved(instruction);
                jump.set_code(Code::Jmp_rm64);
                self.put(Ok(jump))?;
                return Some(true);
            }
            // It need not leave the function, so all registers may be alive.
            Code::Jmp_rm64 => {
                self.put(Instruction::with2(
                    Code::Lea_r64_m,
                    Register::RSP,
                    wide(Register::RSP, -RED_ZONE - 8),
                ))?;
                self.put(Instruction::with1(Code::Push_r64, scratch))?;
                self.ask(&registers, places, None)?;
                self.load(&registers, instruction)?;
                let target = MemoryOperand::with_base_displ(Register::RSP, 8);
                self.put(Instruction::with2(Code::Mov_rm64_r64, target, scratch))?;
                self.put(Instruction::with1(Code::Pop_r64, scratch))?;
                self.put(Instruction::with1(Code::Retnq_imm16, RED_ZONE))?;
            }
            _ if instruction.flow_control() != FlowControl::Next || instruction.is_stack_instruction() => {
                return None;
            }
            _ => {
                self.enter(&registers, places, None)?;
                self.put(Ok(registers.moved(instruction)))?;
                self.leave(scratch, RED_ZONE, behind)?;
            }
        }
        Some(false)
    }

    /// Frees the scratch register and puts the distance into it.
    fn enter(&mut self, registers: &Registers, places: &DetourPlaces, slot: Option<u64>) -> Option<()> {
        self.raw(&[0x48, 0x8d, 0x64, 0x24, -RED_ZONE as u8]); // lea -128(%rsp), %rsp
        self.raw_with(0x50, registers.scratch); // push
        self.ask(registers, places, slot)
    }

    /// Asks for the distance, and adds the instruction's own base register or what is in the GOT entry. All registers but
    /// the scratch register are kept, and the flags: the descriptor keeps them, and nothing here changes them.
    fn ask(&mut self, registers: &Registers, places: &DetourPlaces, slot: Option<u64>) -> Option<()> {
        let Registers { scratch, base, .. } = *registers;
        self.raw(&[0x50]); // push %rax
        self.raw_relative(&[0x48, 0x8d, 0x05], places.descriptor)?; // lea descriptor(%rip), %rax
        self.raw(&[0xff, 0x10]); // call *(%rax)
        if base != scratch {
            let number = scratch.number() as u8;
            self.raw(&[0x48 | number >> 3, 0x89, 0xc0 | number & 7]); // mov %rax, scratch
        }
        if let Some(slot) = slot {
            self.raw_relative(&[0x48, 0x8b, 0x05], slot)?; // mov slot(%rip), %rax
        }
        if base == scratch || slot.is_some() {
            let sum = MemoryOperand::with_base_index(scratch, Register::RAX);
            self.put(Instruction::with2(Code::Lea_r64_m, scratch, sum))?;
        }
        self.raw(&[0x58]); // pop %rax
        if base != Register::None && base != scratch {
            let sum = MemoryOperand::with_base_index(scratch, base);
            self.put(Instruction::with2(Code::Lea_r64_m, scratch, sum))?;
        }
        Some(())
    }

    /// What the instruction reads, into the scratch register.
    fn load(&mut self, registers: &Registers, instruction: &Instruction) -> Option<()> {
        let memory = MemoryOperand::new(
            registers.scratch,
            registers.index,
            instruction.memory_index_scale(),
            instruction.memory_displacement64() as i64,
            instruction.memory_displ_size(),
            false,
            instruction.segment_prefix(),
        );
        self.put(Instruction::with2(Code::Mov_r64_rm64, registers.scratch, memory))
    }

    /// Undoes what `enter` did, and goes on behind the instruction.
    fn leave(&mut self, scratch: Register, above: i32, behind: u64) -> Option<()> {
        self.raw_with(0x58, scratch); // pop
        let [a, b, c, d] = above.to_le_bytes();
        self.raw(&[0x48, 0x8d, 0xa4, 0x24, a, b, c, d]); // lea above(%rsp), %rsp
        self.raw_relative(&[0xe9], behind) // jmp
    }

    fn put(&mut self, instruction: Result<Instruction, iced_x86::IcedError>) -> Option<()> {
        self.end += self.encoder.encode(&instruction.ok()?, self.end).ok()? as u64;
        Some(())
    }

    /// What is the same in all detours, since encoding takes its time.
    fn raw(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.encoder.write_u8(*byte));
        self.end += bytes.len() as u64;
    }

    /// PUSH or POP.
    fn raw_with(&mut self, opcode: u8, register: Register) {
        let number = register.number() as u8;
        match number {
            0..8 => self.raw(&[opcode | number]),
            _ => self.raw(&[0x41, opcode | number & 7]),
        }
    }

    /// An instruction that ends in a distance of 32 bits.
    fn raw_relative(&mut self, bytes: &[u8], target: u64) -> Option<()> {
        let behind = self.end.wrapping_add(bytes.len() as u64 + 4);
        let distance = i32::try_from(target.wrapping_sub(behind) as i64).ok()?;
        self.raw(bytes);
        self.raw(&distance.to_le_bytes());
        Some(())
    }
}

/// The registers that matter.
#[derive(Clone, Copy)]
struct Registers {
    /// The instruction does not use it.
    scratch: Register,
    base: Register,
    index: Register,
    has_memory: bool,
}

impl Registers {
    /// Only the first three can go with AH, BH, CH or DH in one instruction.
    const SCRATCH: [Register; 7] = [
        Register::RSI,
        Register::RDI,
        Register::RBP,
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
    ];

    /// `None`: the instruction uses the stack pointer, or addresses of 32 bits.
    fn of(instruction: &Instruction, factory: &mut InstructionInfoFactory) -> Option<Self> {
        let has_memory =
            (0..instruction.op_count()).any(|number| instruction.op_kind(number) == OpKind::Memory);
        let none = Register::None;
        let (base, index) = match has_memory && !instruction.is_ip_rel_memory_operand() {
            true => (instruction.memory_base(), instruction.memory_index()),
            false => (none, none),
        };
        let is_64 = |register: Register| register == none || register.is_gpr64();
        let uses_stack_pointer = (0..instruction.op_count()).any(|number| {
            instruction.op_kind(number) == OpKind::Register
                && instruction.op_register(number).full_register() == Register::RSP
        });
        let is_narrow = base == none && index == none && instruction.memory_displ_size() == 4;
        if uses_stack_pointer
            || base == Register::RSP
            || !is_64(base)
            || index.is_gpr32()
            || has_memory && !instruction.is_ip_rel_memory_operand() && is_narrow
        {
            return None;
        }
        let used = factory.info(instruction).used_registers();
        let is_used = |register| used.iter().any(|used| used.register().full_register() == register);
        let needs_no_rex = (0..instruction.op_count()).any(|number| {
            let high_bytes = [Register::AH, Register::CH, Register::DH, Register::BH];
            high_bytes.contains(&instruction.op_register(number))
        });
        let candidates = if needs_no_rex { &Self::SCRATCH[..3] } else { &Self::SCRATCH };
        let scratch = *candidates.iter().find(|register| !is_used(**register))?;
        Some(Registers { scratch, base, index, has_memory })
    }

    /// The instruction with the scratch register in place of its base.
    fn moved(&self, instruction: &Instruction) -> Instruction {
        let mut moved = *instruction;
        moved.set_memory_base(self.scratch);
        moved
    }
}

/// An operand whose displacement has 32 bits whatever it is.
fn wide(base: Register, displacement: i32) -> MemoryOperand {
    MemoryOperand::new(base, Register::None, 1, displacement.into(), 8, false, Register::None)
}
