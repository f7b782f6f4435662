//! Functions that save and restore registers, which gcc calls when it compiles for size and the ABI leaves to the linker (ELF
//! V2 ABI, 2.3.3, "Register Saving and Restoring Functions"). Each falls through to that of the next register, up to the
//! last one and a common end, so that those below the first that is needed are left out. None uses the TOC.

use std::collections::BTreeSet;

use crate::made::Code;

/// What registers are saved where, by what instructions.
struct Family {
    /// The first register that there is a function for; the last is 31.
    first: u32,
    /// What saves or restores a register.
    step: fn(u32) -> Vec<u32>,
    /// What comes after the last register.
    end: &'static [u32],
}

const BLR: u32 = 0x4e80_0020;
const STD_0: u32 = 0xf801_0010; // std 0,16(1)
const LD_0: u32 = 0xe801_0010; // ld 0,16(1)
const MTLR_0: u32 = 0x7c08_03a6;

/// Names begin with these.
pub(super) const PREFIXES: &[&str] = &[
    "_restgpr0_",
    "_restgpr1_",
    "_savegpr0_",
    "_savegpr1_",
    "_restfpr_",
    "_savefpr_",
    "_restvr_",
    "_savevr_",
];

/// In the order of [`PREFIXES`].
const FAMILIES: [Family; 8] = [
    Family { first: 14, step: |n| vec![by_8(0xe801_0000, n)], end: &[LD_0, MTLR_0, BLR] },
    Family { first: 14, step: |n| vec![by_8(0xe80c_0000, n)], end: &[BLR] },
    Family { first: 14, step: |n| vec![by_8(0xf801_0000, n)], end: &[STD_0, BLR] },
    Family { first: 14, step: |n| vec![by_8(0xf80c_0000, n)], end: &[BLR] },
    Family { first: 14, step: |n| vec![by_8(0xc801_0000, n)], end: &[LD_0, MTLR_0, BLR] },
    Family { first: 14, step: |n| vec![by_8(0xd801_0000, n)], end: &[STD_0, BLR] },
    Family { first: 20, step: |n| by_16(0x7c0c_00ce, n), end: &[BLR] },
    Family { first: 20, step: |n| by_16(0x7c0c_01ce, n), end: &[BLR] },
];

/// `ld`, `std`, `lfd`, `stfd`: registers are in words of 8 bytes below what r1 or r12 points to.
fn by_8(instruction: u32, register: u32) -> u32 {
    instruction | register << 21 | (8 * register).wrapping_sub(8 * 32) & 0xffff
}

/// `li 12,distance; lvx` or `stvx`: registers are in words of 16 bytes below what r0 points to.
fn by_16(instruction: u32, register: u32) -> Vec<u32> {
    const LI_12: u32 = 0x3980_0000;
    vec![LI_12 | (16 * register).wrapping_sub(16 * 32) & 0xffff, instruction | register << 21]
}

/// The families of which something is needed, each as a section of its own.
pub(super) fn make(names: &BTreeSet<&str>) -> Vec<Code> {
    PREFIXES.iter().zip(&FAMILIES).filter_map(|(prefix, family)| family.make(prefix, names)).collect()
}

impl Family {
    fn make(&self, prefix: &str, names: &BTreeSet<&str>) -> Option<Code> {
        let wanted = |register: u32| format!("{prefix}{register}");
        let needed = |register: &u32| names.contains(wanted(*register).as_str());
        let first = (self.first..32).find(needed)?;
        let mut code = Code { section: format!(".text.{prefix}"), ..Code::default() };
        for register in first..32 {
            if needed(&register) {
                code.functions.push((wanted(register), code.bytes.len() as u64));
            }
            (self.step)(register).iter().for_each(|word| code.bytes.extend(word.to_le_bytes()));
        }
        self.end.iter().for_each(|word| code.bytes.extend(word.to_le_bytes()));
        Some(code)
    }
}
