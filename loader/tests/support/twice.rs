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
    /// The image was written to before a name was asked for, and no other one was made.
    in_one_go: bool,
    /// Bytes of heap.
    bookkeeping: usize,
}

/// Links in both ways and compares. Whether it was done in one go, as far as others' symbols tell; `None` if it is an error.
#[track_caller]
pub fn link_twice(object: &[u8]) -> Option<bool> {
    compare(object, true)
}

/// The same for objects that are damaged: of relocations whose places overlap it is left open which is done last, and what
/// refers to a place at some distance from a GOT entry finds something else there.
#[track_caller]
pub fn link_damaged_twice(object: &[u8]) -> Option<bool> {
    compare(object, false)
}

#[track_caller]
fn compare(object: &[u8], is_sound: bool) -> Option<bool> {
    let listener = Arc::new(Interested::default());
    let has_thread_locals = Headers(object).has_thread_locals();
    let (plain, plain_asked) = link(object, None);
    let (phases, asked) = link(object, Some(listener.clone()));
    match (plain, phases) {
        // What is done in phases both times has thread-local blocks of two numbers, and detours for them.
        (Ok(plain), Ok(_)) if !plain.in_one_go && (!asked.is_empty() || has_thread_locals) => Some(false),
        (Ok(plain), Ok(phases)) => {
            let [code, read_only, _] = *listener.0.lock().unwrap();
            assert_eq!(plain_asked, asked, "asked once for the same names in the same order");
            assert_eq!(plain.symbols, phases.symbols);
            assert_eq!(plain.unwind, phases.unwind);
            assert!(plain.bookkeeping <= phases.bookkeeping, "{}", plain.bookkeeping);
            assert_eq!(plain.needs_initializers, phases.needs_initializers);
            if phases.needs_initializers {
                return Some(false);
            }
            let images = Images { plain: &plain.bytes, phases: &phases.bytes, code, read_only, is_sound };
            if let Err(difference) = images.compare() {
                assert!(!is_sound && Headers(object).has_overlaps(), "{difference}");
            }
            Some(plain.in_one_go)
        }
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
        in_one_go: *resolver.was_written.lock().unwrap() && *memory.taken.lock().unwrap() == 1,
        bookkeeping: image.bookkeeping_size(),
    });
    (outcome, resolver.asked.into_inner().unwrap())
}

/// The sections of an object by the ELF specification: libraries give up on what is damaged.
struct Headers<'o>(&'o [u8]);

impl Headers<'_> {
    fn number(&self, at: u64, bytes: usize) -> u64 {
        let field = self.0.get(at as usize..).and_then(|rest| rest.get(..bytes)).unwrap_or_default();
        field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Where the header of each section is.
    fn places(&self) -> impl Iterator<Item = u64> {
        let start = self.number(0x28, 8);
        (0..self.number(0x3c, 2)).map(move |section| start.wrapping_add(section * 64))
    }

    fn has_thread_locals(&self) -> bool {
        self.places().any(|header| self.number(header.wrapping_add(8), 8) & 0x400 != 0)
    }

    /// Whether places of relocations overlap, as only those of damaged objects do. Which one is done last is left open.
    fn has_overlaps(&self) -> bool {
        const RELA: u64 = 4;
        self.places().filter(|table| self.number(table.wrapping_add(4), 4) == RELA).any(|table| {
            let entries = self.number(table.wrapping_add(32), 8).min(self.0.len() as u64) / 24;
            let start = self.number(table.wrapping_add(24), 8);
            let place = |entry: u64| {
                let at = start.wrapping_add(entry * 24);
                let (offset, kind) = (self.number(at, 8), self.number(at.wrapping_add(8), 4));
                // Relaxing changes the instruction in front of the field.
                let from = if matches!(kind, 41..=43) { offset.saturating_sub(3) } else { offset };
                let bytes = if matches!(kind, 1 | 24 | 25 | 27..=29 | 31) { 8 } else { 4 };
                from..offset.saturating_add(if kind == 0 { 0 } else { bytes })
            };
            let mut places: Vec<_> = (0..entries).map(place).collect();
            places.sort_unstable_by_key(|place| place.start);
            places.windows(2).any(|pair| pair[1].start < pair[0].end)
        })
    }
}

/// Two images at the same place, and how many bytes of code and of constants are sections'. Behind them are stubs and the
/// GOT: phases have entries there for accesses that became direct ones, too.
struct Images<'i> {
    plain: &'i [Vec<u8>; 3],
    phases: &'i [Vec<u8>; 3],
    code: usize,
    read_only: usize,
    /// Accesses are to whole GOT entries, as the last operand of an instruction.
    is_sound: bool,
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

    /// Whether fields of 32 bits are distances to entries of the two GOTs that hold the same address.
    fn is_same_slot(&self, segment: Segment, field: usize) -> bool {
        let entry = |bytes: &[Vec<u8>; 3], slot: usize| {
            let entry = bytes[Segment::ReadOnly.index()].get(slot..)?.first_chunk()?;
            (slot >= self.read_only && slot % 8 == 0).then(|| u64::from_le_bytes(*entry))
        };
        let distance = |bytes: &[Vec<u8>; 3]| {
            let field = bytes[segment.index()].get(field..)?.first_chunk()?;
            Some(i32::from_le_bytes(*field))
        };
        let [Some(plain), Some(phases)] = [self.plain, self.phases].map(distance) else { return false };
        let start = ApartMemory::start(segment) + field as u64 + 4;
        let slot = |distance: i32| {
            let slot = start.wrapping_add_signed(distance.into());
            slot.wrapping_sub(ApartMemory::start(Segment::ReadOnly)) as usize
        };
        let [one, other] = [entry(self.plain, slot(plain)), entry(self.phases, slot(phases))];
        if self.is_sound || one.is_some() && one == other {
            return one.is_some() && one == other;
        }
        let further = plain.wrapping_sub(phases) as isize;
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
