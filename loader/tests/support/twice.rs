//! Links an object for this process in two ways: in one go, as far as it is plain, and in phases, as for a listener that wants
//! to know of everything. Both must come to the same.

#![allow(unsafe_code)] // The unwinder that is told takes notes.

use std::sync::{Arc, Mutex};

use objcache_loader::{
    EventListener, ImageId, Limits, LoadError, LoadedObject, Loader, Segment, SymbolResolver, UnwindInfo,
    UnwindRegistrar, UnwindRegistration,
};

use super::apart::{ApartMemory, CODE};

/// What came out.
struct Outcome {
    /// Of the segments.
    bytes: [Vec<u8>; 3],
    /// Name, address, size, kind, weak.
    symbols: Vec<String>,
    unwind: Vec<UnwindInfo>,
    needs_initializers: bool,
    /// The image was written to before a name was asked for: only what is linked in one go is.
    in_one_go: bool,
}

/// Links in both ways and compares. Whether it was done in one go, as far as others' symbols tell; `None` if it is an error.
#[track_caller]
pub fn link_twice(object: &[u8]) -> Option<bool> {
    let listener = Arc::new(Interested::default());
    let (plain, plain_asked) = link(object, None);
    let (phases, asked) = link(object, Some(listener.clone()));
    match (plain, phases) {
        // What is done in phases both times has thread-local blocks of two numbers.
        (Ok(plain), Ok(_)) if !plain.in_one_go && !asked.is_empty() => Some(false),
        (Ok(plain), Ok(phases)) => {
            let [code, read_only, _] = *listener.0.lock().unwrap();
            assert_eq!(plain_asked, asked, "asked once for the same names in the same order");
            assert_eq!(plain.symbols, phases.symbols);
            assert_eq!(plain.unwind, phases.unwind);
            assert_eq!(plain.needs_initializers, phases.needs_initializers);
            if phases.needs_initializers {
                return Some(false);
            }
            let images = Images { plain: &plain.bytes, phases: &phases.bytes, code, read_only };
            if let Err(difference) = images.compare() {
                assert!(has_overlaps(object), "{difference}");
            }
            Some(plain.in_one_go)
        }
        // Symbols are looked at when there is memory.
        (Err(LoadError::Memory(_)), Err(_)) => None,
        (Err(plain), Err(phases)) => {
            assert_eq!(plain.to_string(), phases.to_string());
            assert_eq!(plain_asked, asked, "{phases}");
            None
        }
        (plain, phases) => panic!("{:?} in one go, {:?} in phases", plain.err(), phases.err()),
    }
}

fn link(object: &[u8], listener: Option<Arc<Interested>>) -> (Result<Outcome, LoadError>, Vec<String>) {
    let memory = ApartMemory::default();
    let resolver =
        Recorder { asked: Mutex::default(), memory: memory.clone(), was_written: Mutex::default() };
    let told = Arc::new(Told::default());
    let mut limits = Limits::default();
    limits.image_bytes = 1 << 20;
    let mut builder = Loader::builder().memory(Arc::new(memory.clone())).unwind(told.clone()).limits(limits);
    if let Some(listener) = listener {
        builder = builder.listener(listener);
    }
    let image = builder.build().load(object, &resolver);
    let outcome = image.map(|image| Outcome {
        bytes: Segment::ALL.map(|segment| image.linked_bytes(segment).unwrap().to_vec()),
        symbols: image.symbols().map(|symbol| format!("{symbol:x?}")).collect(),
        unwind: std::mem::take(&mut told.0.lock().unwrap()),
        needs_initializers: image.needs_initializers(),
        in_one_go: *resolver.was_written.lock().unwrap(),
    });
    (outcome, resolver.asked.into_inner().unwrap())
}

/// Whether places of relocations may overlap, as only those of damaged objects do. Which one is done last is then left open.
fn has_overlaps(object: &[u8]) -> bool {
    // By the ELF specification, since libraries give up on what is damaged.
    const RELA: u64 = 4;
    const EXECUTABLE: u64 = 4;
    let number = |at: u64, bytes: usize| -> u64 {
        let field = object.get(at as usize..).and_then(|rest| rest.get(..bytes)).unwrap_or_default();
        field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let headers = number(0x28, 8);
    let header = |section: u64| headers + section * 64;
    (0..number(0x3c, 2)).map(header).filter(|table| number(table + 4, 4) == RELA).any(|table| {
        let is_code = number(header(number(table + 44, 4)) + 8, 8) & EXECUTABLE != 0;
        let entries = number(table + 32, 8).min(object.len() as u64) / 24;
        let mut places: Vec<u64> =
            (0..entries).map(|entry| number(number(table + 24, 8) + entry * 24, 8)).collect();
        places.sort_unstable();
        // Relaxing changes the instruction in front of the field.
        places.windows(2).any(|pair| pair[1] - pair[0] < if is_code { 8 } else { 4 })
    })
}

/// Two images at the same place, and how many bytes of code and of constants are sections'. Behind them are stubs and the
/// GOT: phases have entries there for accesses that became direct ones, too.
struct Images<'i> {
    plain: &'i [Vec<u8>; 3],
    phases: &'i [Vec<u8>; 3],
    code: usize,
    read_only: usize,
}

impl Images<'_> {
    fn compare(&self) -> Result<(), String> {
        self.compare_sections(Segment::Code, self.code)?;
        self.compare_sections(Segment::ReadOnly, self.read_only)?;
        self.compare_sections(Segment::Data, self.phases[Segment::Data.index()].len())?;
        let [plain, phases] = [self.plain, self.phases].map(|bytes| &bytes[Segment::Code.index()]);
        let stubs = self.code.next_multiple_of(8);
        assert!(plain.len() >= phases.len());
        for stub in (stubs..phases.len()).step_by(8) {
            assert_eq!(plain[stub..stub + 2], [0xff, 0x25], "jmp *slot(%rip)");
            assert!(self.is_same_slot(Segment::Code, stub + 2));
        }
        assert!(plain[phases.len()..].iter().all(|byte| *byte == 0xcc), "traps where there is nothing");
        Ok(())
    }

    /// The same, but for distances to GOT entries.
    fn compare_sections(&self, segment: Segment, len: usize) -> Result<(), String> {
        let [plain, phases] = [self.plain, self.phases].map(|bytes| &bytes[segment.index()][..len]);
        let mut at = 0;
        while let Some(different) = plain[at..].iter().zip(&phases[at..]).position(|(a, b)| a != b) {
            let different = at + different;
            let mut fields = different.saturating_sub(3)..=different;
            let field = fields.find(|field| *field >= at && self.is_same_slot(segment, *field));
            at = 4 + field.ok_or_else(|| format!("{segment:?}+{different:#x} differs"))?;
        }
        Ok(())
    }

    /// Whether fields of 32 bits may be distances to entries of the two GOTs that hold the same address.
    fn is_same_slot(&self, segment: Segment, field: usize) -> bool {
        let distance = |bytes: &[Vec<u8>; 3]| {
            let field = bytes[segment.index()].get(field..)?.first_chunk()?;
            Some(i32::from_le_bytes(*field))
        };
        let [Some(plain), Some(phases)] = [self.plain, self.phases].map(distance) else { return false };
        let further = plain.wrapping_sub(phases) as isize;
        let entry = |bytes: &[Vec<u8>; 3], slot: usize| {
            let entry = bytes[Segment::ReadOnly.index()].get(slot..)?.first_chunk()?;
            (slot >= self.read_only).then(|| u64::from_le_bytes(*entry))
        };
        let first = self.read_only.next_multiple_of(8);
        (first..self.phases[Segment::ReadOnly.index()].len()).step_by(8).any(|slot| {
            let other = slot.checked_add_signed(further).and_then(|slot| entry(self.plain, slot));
            other.is_some_and(|entry_of_plain| entry(self.phases, slot) == Some(entry_of_plain))
        })
    }
}

/// Knows names but for those that begin with `missing`: some near the image, some far, always at the same place.
struct Recorder {
    asked: Mutex<Vec<String>>,
    memory: ApartMemory,
    was_written: Mutex<bool>,
}

impl SymbolResolver for Recorder {
    fn resolve(&self, name: &str) -> Option<u64> {
        *self.was_written.lock().unwrap() |= *self.memory.asked.lock().unwrap() != 0;
        self.asked.lock().unwrap().push(name.to_owned());
        let hash = name.bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let near = hash % 2 == 0;
        let base = if near { CODE + (1 << 30) } else { 0x1000_0000_0000 };
        (!name.starts_with("missing")).then_some(base + hash % 4096 * 16)
    }
}

/// Wants to know where the sections of each segment end.
#[derive(Default)]
struct Interested(Mutex<[usize; 3]>);

impl EventListener for Interested {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let mut ends = self.0.lock().unwrap();
        for section in loaded.sections() {
            let end = &mut ends[section.segment.index()];
            *end = (*end).max((section.offset + section.size) as usize);
        }
    }

    fn notify_freeing(&self, _image: ImageId) {}
}

#[derive(Default)]
struct Told(Mutex<Vec<UnwindInfo>>);

impl UnwindRegistrar for Told {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        let mut info = info.clone();
        // Room behind the code is code to unwinders.
        info.code.end = info.code.start;
        self.0.lock().unwrap().push(info);
        Ok(None)
    }
}
