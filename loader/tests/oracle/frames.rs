//! Unwind tables (LSB, "Exception Frames"), which lld writes anew, without what says the same twice: they are compared by
//! what they say of each function.

use objcache_loader::{LinkMap, LoadedImage};

use crate::lld::LinkedFile;
use crate::machine::Machine;
use crate::support::elf::Target;

/// What is said of a function, with all addresses resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Frame {
    start: u64,
    size: u64,
    augmentation: String,
    /// Alignments of code and data, the return address, the encodings of pointers.
    common: Vec<u8>,
    personality: Option<u64>,
    lsda: Option<u64>,
    /// The CIE's and the FDE's own, without what pads them.
    instructions: [Vec<u8>; 2],
}

/// Compares all functions of an object, and returns how many there are.
pub fn compare(
    machine: &Machine,
    image: &LoadedImage,
    map: &LinkMap,
    linked: &LinkedFile,
    what: &str,
) -> usize {
    let Some(section) = map.files[0].sections.iter().find(|section| section.name == ".eh_frame") else {
        return 0;
    };
    let segment = image.linked_bytes(section.segment).unwrap();
    let bytes = &segment[section.offset..][..section.size as usize];
    let ours = frames(&machine.target, section.address, bytes);
    let (address, bytes) = &linked.sections[".eh_frame"];
    let theirs = frames(&machine.target, *address, bytes);
    assert_eq!(ours.len(), theirs.len(), "{what}: unwind tables of other lengths");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "{what}: unwind tables, first ours, then lld's");
    }
    ours.len()
}

/// All records of a section, in the order of the functions.
fn frames(target: &Target, address: u64, bytes: &[u8]) -> Vec<Frame> {
    let mut reader = Reader { target, address, bytes, at: 0 };
    let mut frames = Vec::new();
    while reader.at + 4 <= bytes.len() {
        let length = reader.number(4) as usize;
        let start = reader.at;
        if length == 0 {
            continue; // lld's terminator, or that of one of several tables.
        }
        let back = reader.number(4) as usize;
        if back != 0 {
            frames.push(reader.description(start - back, start + length));
        }
        reader.at = start + length;
    }
    frames.sort();
    frames
}

#[derive(Clone, Copy)]
struct Reader<'r> {
    target: &'r Target,
    address: u64,
    bytes: &'r [u8],
    at: usize,
}

/// What of a CIE is needed to read its FDEs.
struct Common {
    frame: Frame,
    pointer: u8,
    lsda: Option<u8>,
}

impl Reader<'_> {
    fn number(&mut self, width: usize) -> u64 {
        let mut bytes = self.bytes[self.at..][..width].to_vec();
        if !self.target.big_endian {
            bytes.reverse();
        }
        self.at += width;
        bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn leb128(&mut self) -> u64 {
        let mut number = 0;
        for position in 0.. {
            let byte = self.number(1);
            number |= (byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    /// A pointer of an encoding (DW_EH_PE_…): its format in the low half, in the high half what it counts from.
    fn pointer(&mut self, encoding: u8) -> u64 {
        let place = self.address + self.at as u64;
        let width = match encoding & 7 {
            0 => self.target.word(),
            2 => 2,
            3 => 4,
            4 => 8,
            _ => panic!("pointers of encoding {encoding:#x}"),
        };
        let value = self.number(width);
        let is_signed = encoding & 8 != 0;
        let value = if is_signed { crate::case::sign_extend(value, width as u32 * 8) as u64 } else { value };
        let value = match encoding & 0x70 {
            0 => value,
            _ if value == 0 => return 0,
            0x10 => place.wrapping_add(value),
            _ => panic!("pointers of encoding {encoding:#x}"),
        };
        if self.target.class == 32 { value & 0xffff_ffff } else { value }
    }

    /// Up to the end, but for what pads it: DW_CFA_nop.
    fn instructions(&mut self, end: usize) -> Vec<u8> {
        let bytes = &self.bytes[self.at..end];
        let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes[..length].to_vec()
    }

    fn common(mut self, cie: usize) -> Common {
        self.at = cie;
        let length = self.number(4) as usize;
        let end = self.at + length;
        assert_eq!(self.number(4), 0, "a CIE");
        let version = self.number(1);
        let mut augmentation = String::new();
        loop {
            match self.number(1) as u8 {
                0 => break,
                letter => augmentation.push(char::from(letter)),
            }
        }
        let before = self.at;
        self.leb128();
        self.leb128();
        if version == 1 {
            self.number(1)
        } else {
            self.leb128()
        };
        let mut common = self.bytes[before..self.at].to_vec();
        let (mut pointer, mut lsda, mut personality) = (0, None, None);
        for letter in augmentation.chars() {
            match letter {
                'z' => drop(self.leb128()),
                'R' => pointer = self.number(1) as u8,
                'L' => lsda = Some(self.number(1) as u8),
                'P' => {
                    let encoding = self.number(1) as u8;
                    common.push(encoding);
                    personality = Some(self.pointer(encoding));
                }
                'S' | 'B' => {}
                _ => panic!("augmentation {augmentation}"),
            }
        }
        common.extend([pointer, lsda.unwrap_or(0xff)]);
        let instructions = [self.instructions(end), Vec::new()];
        let frame = Frame { start: 0, size: 0, augmentation, common, personality, lsda: None, instructions };
        Common { frame, pointer, lsda }
    }

    fn description(&mut self, cie: usize, end: usize) -> Frame {
        let Common { mut frame, pointer, lsda } = self.common(cie);
        frame.start = self.pointer(pointer);
        frame.size = self.pointer(pointer & 0xf);
        if frame.augmentation.starts_with('z') {
            let length = self.leb128() as usize;
            let after = self.at + length;
            frame.lsda = lsda.map(|encoding| self.pointer(encoding));
            self.at = after;
        }
        frame.instructions[1] = self.instructions(end);
        frame
    }
}
