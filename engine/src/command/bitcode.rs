//! The target triple that LLVM bitcode names, without LLVM.
//!
//! The one idea: the triple is a record of the module that LLVM writes before any record with an abbreviation,
//! so that a reader needs no abbreviations: it skips blocks, reads plain records, and gives up at anything else.
//!
//! Rules: LLVM's "LLVM Bitcode File Format": bitstream, wrapper header, `MODULE_CODE_TRIPLE`.

/// `MODULE_BLOCK_ID` and `MODULE_CODE_TRIPLE`.
const MODULE_BLOCK: u64 = 8;
const MODULE_TRIPLE: u64 = 2;

/// What an abbreviation id means in every block.
const ENTER_SUBBLOCK: u64 = 1;
const UNABBREVIATED_RECORD: u64 = 3;

/// Longer triples are no triples; the text is untrusted.
const LONGEST_TRIPLE: u64 = 256;

/// The triple of the first module in `bitcode`, if it names one.
pub(super) fn triple(bitcode: &[u8]) -> Option<String> {
    let mut bits = Bits { bytes: unwrap(bitcode)?, at: 0 };
    if bits.fixed(32)? != 0xdec0_4342 {
        return None;
    }
    // At the top there are blocks only, with ids of two bits.
    while bits.fixed(2)? == ENTER_SUBBLOCK {
        let block = bits.enter()?;
        if block.id == MODULE_BLOCK {
            return triple_of_module(&mut bits, block.id_width);
        }
        bits.at = block.end;
    }
    None
}

fn triple_of_module(bits: &mut Bits<'_>, id_width: u32) -> Option<String> {
    loop {
        match bits.fixed(id_width)? {
            ENTER_SUBBLOCK => bits.at = bits.enter()?.end,
            UNABBREVIATED_RECORD => {
                let (code, length) = (bits.variable(6)?, bits.variable(6)?);
                if code == MODULE_TRIPLE {
                    return bits.text(length).filter(|triple| !triple.is_empty());
                }
                for _ in 0..length {
                    bits.variable(6)?;
                }
            }
            _ => return None,
        }
    }
}

/// Apple's tools put a header before the bitcode: magic, version, offset, size.
fn unwrap(bytes: &[u8]) -> Option<&[u8]> {
    if !bytes.starts_with(&0x0b17_c0de_u32.to_le_bytes()) {
        return Some(bytes);
    }
    let offset = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
    bytes.get(usize::try_from(offset).ok()?..)
}

struct Block {
    id: u64,
    id_width: u32,
    /// In bits.
    end: usize,
}

/// A stream of bits, the least significant of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    fn fixed(&mut self, width: u32) -> Option<u64> {
        let mut value = 0;
        for index in 0..width {
            let byte = self.bytes.get(self.at / 8)?;
            value |= u64::from(byte >> (self.at % 8) & 1) << index;
            self.at += 1;
        }
        Some(value)
    }

    /// Chunks of `width` bits, whose highest says that another one follows.
    fn variable(&mut self, width: u32) -> Option<u64> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(width as usize - 1) {
            let chunk = self.fixed(width)?;
            let goes_on = 1 << (width - 1);
            value |= (chunk & (goes_on - 1)) << shift;
            if chunk & goes_on == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The head of a block, after its `ENTER_SUBBLOCK`.
    fn enter(&mut self) -> Option<Block> {
        let id = self.variable(8)?;
        let id_width = u32::try_from(self.variable(4)?).ok().filter(|width| (2..=32).contains(width))?;
        self.at = self.at.next_multiple_of(32);
        let words = usize::try_from(self.fixed(32)?).ok()?;
        Some(Block { id, id_width, end: self.at.checked_add(words.checked_mul(32)?)? })
    }

    fn text(&mut self, length: u64) -> Option<String> {
        if length > LONGEST_TRIPLE {
            return None;
        }
        (0..length).map(|_| u8::try_from(self.variable(6)?).ok().map(char::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `llvm-as` of `target triple = "riscv64"`, up to the record.
    #[derive(Default)]
    struct Writer {
        bytes: Vec<u8>,
        at: usize,
    }

    impl Writer {
        fn fixed(&mut self, value: u64, width: usize) {
            for index in 0..width {
                if self.at.is_multiple_of(8) {
                    self.bytes.push(0);
                }
                *self.bytes.last_mut().unwrap() |= ((value >> index & 1) as u8) << (self.at % 8);
                self.at += 1;
            }
        }

        fn variable(&mut self, mut value: u64, width: usize) {
            let goes_on = 1 << (width - 1);
            while value >= goes_on {
                self.fixed(value & (goes_on - 1) | goes_on, width);
                value >>= width - 1;
            }
            self.fixed(value, width);
        }

        fn block(&mut self, outer_width: usize, id: u64, words: u64) {
            self.fixed(ENTER_SUBBLOCK, outer_width);
            self.variable(id, 8);
            self.variable(3, 4);
            self.fixed(0, self.at.next_multiple_of(32) - self.at);
            self.fixed(words, 32);
        }

        fn record(&mut self, code: u64, operands: &[u8]) {
            self.fixed(UNABBREVIATED_RECORD, 3);
            self.variable(code, 6);
            self.variable(operands.len() as u64, 6);
            operands.iter().for_each(|&operand| self.variable(operand.into(), 6));
        }
    }

    fn module(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.fixed(0xdec0_4342, 32);
        writer.block(2, 13, 1);
        writer.fixed(u64::MAX, 32);
        writer.block(2, MODULE_BLOCK, 1000);
        write(&mut writer);
        writer.fixed(0, 64);
        writer.bytes
    }

    #[test]
    fn the_triple_stands_after_other_records_and_blocks() {
        let bitcode = module(|writer| {
            writer.record(1, &[2]);
            writer.block(3, 17, 2);
            writer.fixed(u64::MAX, 64);
            writer.record(MODULE_TRIPLE, b"riscv64-unknown-linux-gnu");
        });
        assert_eq!(triple(&bitcode).as_deref(), Some("riscv64-unknown-linux-gnu"));
        let mut wrapped = 0x0b17_c0de_u32.to_le_bytes().to_vec();
        wrapped.extend([0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0]);
        wrapped.extend(&bitcode);
        assert_eq!(triple(&wrapped).as_deref(), Some("riscv64-unknown-linux-gnu"));
    }

    #[test]
    fn what_has_none_or_is_broken_names_none() {
        assert_eq!(triple(&module(|writer| writer.record(MODULE_TRIPLE, b""))), None);
        assert_eq!(triple(&module(|_| ())), None);
        // An abbreviation is defined: from here on we cannot read.
        assert_eq!(triple(&module(|writer| writer.fixed(2, 3))), None);
        // Lengths beyond all bytes.
        assert_eq!(triple(&module(|writer| writer.block(3, 17, u32::MAX.into()))), None);
        let endless = module(|writer| {
            writer.fixed(UNABBREVIATED_RECORD, 3);
            writer.variable(1, 6);
            writer.variable(u64::MAX, 6);
        });
        assert_eq!(triple(&endless), None);
        let good = module(|writer| writer.record(MODULE_TRIPLE, b"riscv64"));
        for length in 0..good.len() - 8 {
            triple(&good[..length]);
        }
        assert_eq!(triple(b"BC\xc0\xde"), None);
        assert_eq!(triple(&0x0b17_c0de_u32.to_le_bytes()), None);
    }
}
