//! What the link does with symbols, groups, stubs and hooks, on objects made for the purpose.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use objcache_loader::{
    AbsoluteSymbols, EventListener, FixedMemory, ImageId, LoadError, LoadedImage, LoadedObject, Loader,
    LookupError, NoSymbols, NoUnwind, ProcessSymbols, Segment, SymbolKind, SymbolResolver, UnwindInfo,
    UnwindRegistrar, UnwindRegistration, from_fn,
};
use parking_lot::Mutex;
use support::elf::{self, Object};
use support::*;

const RET: u8 = 0xc3;

fn load(object: &Object, resolver: &dyn SymbolResolver) -> LoadedImage {
    Loader::new().load(&object.build(), resolver).unwrap_or_else(|error| panic!("{error}"))
}

fn link(object: &Object, resolver: &dyn SymbolResolver) -> Result<LoadedImage, LoadError> {
    Loader::builder().memory(Arc::new(FixedMemory::at(0x10_0000))).build().load(&object.build(), resolver)
}

/// `int number(void)` with a far call in front of its `ret`: `sub $8, %rsp; <opcode> far; add $8, %rsp; ret`.
fn far_caller(relocation: u32) -> Object {
    let mut object = Object::default();
    object.symbol("number", elf::GLOBAL | elf::FUNC, 1, 0);
    let far = object.symbol("far", elf::GLOBAL, 0, 0);
    let code = [0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 8, RET];
    object.section(".text", elf::EXEC, &code).relocate(5, relocation, far, -4);
    object
}

extern "C" fn far() -> i32 {
    4711
}

#[test]
fn calls_reach_the_program_whatever_relocation_they_have() {
    const PC32: u32 = 2;
    const PLT32: u32 = 4;
    for relocation in [PC32, PLT32] {
        let host = AbsoluteSymbols::new().with("far", far as *const () as u64);
        let image = load(&far_caller(relocation), &host);
        let distance = image.address("number").unwrap().abs_diff(far as *const () as u64);
        assert!(distance > 1 << 31, "out of reach without a stub");
        assert_eq!(call_int(&image, "number", &[]), 4711);
        let absolute = {
            let mut object = far_caller(relocation);
            (object.symbols[1].section, object.symbols[1].value) = (elf::ABS, far as *const () as u64);
            object
        };
        assert_eq!(call_int(&load(&absolute, &NoSymbols), "number", &[]), 4711);
    }
}

#[test]
fn data_out_of_reach_is_an_error_that_says_so() {
    let mut object = far_caller(2);
    object.sections[0].bytes[4] = 0x8b; // no call
    let error = link(&object, &from_fn(|_| Some(0x7000_0000_0000))).unwrap_err().to_string();
    assert_eq!(
        error,
        ".text+0x5: cannot relocate R_X86_64_PC32 against `far`: 0x6fffffeffff7 does not fit in 32 bits"
    );
}

#[test]
fn a_weak_symbol_that_nobody_defines_is_zero() {
    let mut object = Object::default();
    let weak = object.symbol("weak", elf::WEAK, 0, 0);
    object.section(".data", elf::WRITE, &[0xff; 16]).relocate(0, 1, weak, 0).relocate(8, 1, weak, 5);
    let linked = link(&object, &NoSymbols).unwrap();
    assert_eq!(
        linked.linked_bytes(Segment::Data),
        Some(&[0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0][..])
    );
    let linked = link(&object, &from_fn(|_| Some(3))).unwrap();
    assert_eq!(linked.linked_bytes(Segment::Data).unwrap()[0], 3);
}

#[test]
fn symbols_that_nothing_refers_to_need_no_definition() {
    let mut object = Object::default();
    object.symbol("unused", elf::GLOBAL, 0, 0);
    object.section(".text", elf::EXEC, &[RET]);
    assert!(link(&object, &from_fn(|name| panic!("asked for {name}"))).is_ok());
}

/// Two groups of one name, each with a section that holds a function `f`.
fn twice_defined() -> Object {
    let mut object = Object::default();
    let first = object.symbol("f", elf::WEAK | elf::FUNC, 1, 0);
    let second = object.symbol("f", elf::WEAK | elf::FUNC, 2, 1);
    object.section(".text.f", elf::EXEC, &[1]);
    object.section(".text.f", elf::EXEC, &[2, 2]);
    for (symbol, member) in [(first, 1), (second, 2)] {
        let group = object.section(".group", 0, &[1, 0, 0, 0, member, 0, 0, 0]);
        (group.kind, group.info, group.flags, group.align) = (elf::GROUP, symbol, 0, 4);
    }
    object.section(".data", elf::WRITE, &[0; 16]).relocate(0, 1, first, 0).relocate(8, 1, second, 0);
    object
}

#[test]
fn of_two_groups_of_one_name_one_is_kept() {
    let linked = link(&twice_defined(), &NoSymbols).unwrap();
    assert_eq!(linked.linked_bytes(Segment::Code), Some(&[1][..]));
    assert_eq!(linked.symbols().count(), 1);
    let kept = linked.address("f").unwrap().to_le_bytes();
    assert_eq!(linked.linked_bytes(Segment::Data).unwrap(), [kept, kept].concat());
}

#[test]
fn a_reference_into_a_discarded_group_is_an_error_except_in_unwind_tables() {
    let mut object = twice_defined();
    object
        .symbols
        .insert(0, elf::Symbol { name: String::new(), info: 3, other: 0, section: 2, value: 0, size: 0 });
    for group in 2..4 {
        object.sections[group].info += 1;
    }
    let references = |object: &mut Object| object.sections.last_mut().unwrap().relocations = Vec::new();
    references(&mut object);
    object.sections[4].relocate(0, 1, 1, 0);
    let error = link(&object, &NoSymbols).unwrap_err().to_string();
    assert_eq!(
        error,
        ".data+0x0: cannot relocate R_X86_64_64 against `.text.f`: the symbol's section is not loaded"
    );
    references(&mut object);
    object.section(".eh_frame", 0, &[0; 32]).relocate(8, 2, 1, 0);
    link(&object, &NoSymbols).unwrap();
}

/// Unwinders take an entry whose address is written as zero for none; anything else they take for a function.
#[test]
fn unwind_entries_of_discarded_functions_stay_zero() {
    let mut object = twice_defined();
    object.sections.pop();
    object
        .symbols
        .insert(0, elf::Symbol { name: String::new(), info: 3, other: 0, section: 2, value: 0, size: 0 });
    for group in 2..4 {
        object.sections[group].info += 1;
    }
    // At low addresses what is not there is in reach: PC32, PC64 and 64 all could be done.
    object
        .section(".eh_frame", 0, &[0; 32])
        .relocate(4, 2, 1, 4)
        .relocate(8, 24, 1, 8)
        .relocate(16, 1, 1, 16)
        .relocate(24, 1, 2, 0);
    let linked = link(&object, &NoSymbols).unwrap();
    let (discarded, kept) = linked.linked_bytes(Segment::ReadOnly).unwrap()[..32].split_at(24);
    assert_eq!(discarded, [0; 24]);
    assert_eq!(kept, linked.address("f").unwrap().to_le_bytes());
}

#[test]
fn a_symbol_is_no_longer_than_its_section() {
    let mut object = Object::default();
    object.section(".data", elf::WRITE, &[0; 16]);
    for (name, value) in [("front", 0), ("middle", 10), ("end", 16)] {
        object.symbol(name, elf::GLOBAL, 1, value);
        object.symbols.last_mut().unwrap().size = 12;
    }
    let image = load(&object, &NoSymbols);
    let sizes: Vec<_> = image.symbols().map(|symbol| symbol.size).collect();
    assert_eq!(sizes, [12, 6, 0]);
}

#[test]
fn common_symbols_get_room_and_alignment() {
    let mut object = Object::default();
    for (name, align, size) in [("a", 1, 3), ("b", 64, 100), ("c", 4, 4)] {
        object.symbol(name, elf::GLOBAL, elf::COMMON, align);
        object.symbols.last_mut().unwrap().size = size;
    }
    let linked = link(&object, &NoSymbols).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| linked.address(name).unwrap());
    assert_eq!((b - a, c - a, b % 64), (64, 164, 0));
    assert_eq!(linked.segment_size(Segment::Data), 168);
    assert!(linked.linked_bytes(Segment::Data).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn only_what_is_visible_is_exported() {
    const HIDDEN: u8 = 2;
    const PROTECTED: u8 = 3;
    let mut object = Object::default();
    object.symbol("local", elf::LOCAL, 1, 0);
    for (name, other) in [("visible", 0), ("hidden", HIDDEN), ("protected", PROTECTED)] {
        object.symbol(name, elf::GLOBAL | elf::FUNC, 1, 0);
        object.symbols.last_mut().unwrap().other = other;
    }
    object.symbol("absolute", elf::GLOBAL, elf::ABS, 77);
    object.section(".text", elf::EXEC, &[RET]);
    object.symbols[1].size = 1;
    let linked = link(&object, &NoSymbols).unwrap();
    let names: Vec<_> = linked.symbols().map(|symbol| symbol.name.into_owned()).collect();
    assert_eq!(names, ["visible", "protected", "absolute"]);
    assert_eq!(linked.address("absolute"), Some(77));
    let visible = linked.symbols().next().unwrap();
    assert_eq!((visible.size, visible.kind), (1, SymbolKind::Function));
    assert_eq!(linked.address("hidden"), None);
    assert_eq!(linked.address("visibl"), None);
    assert_eq!(linked.address("visible\0"), None);
    assert_eq!(linked.address(""), None);
}

#[test]
fn each_of_many_symbols_is_found() {
    let mut object = Object::default();
    let name = |number: u64| format!("symbol_{number}_{}", "x".repeat(number as usize % 30));
    for number in 0..3000 {
        object.symbol(&name(number), elf::GLOBAL, 1, number);
    }
    object.section(".rodata", 0, &[0; 3000]);
    let linked = link(&object, &NoSymbols).unwrap();
    let base = linked.address(&name(0)).unwrap();
    assert!((0..3000).all(|number| linked.address(&name(number)) == Some(base + number)));
    assert_eq!(linked.address("symbol_3000_"), None);
}

#[test]
fn a_symbol_is_a_pointer_or_an_error() {
    let mut object = Object::default();
    object.symbol("f", elf::GLOBAL | elf::FUNC, 1, 0);
    object.section(".text", elf::EXEC, &[RET]);
    let image = load(&object, &NoSymbols);
    // SAFETY: nothing is called; the types are only looked at for their size.
    let wrong = unsafe { image.get::<u32>("f") }.unwrap_err();
    assert_eq!(wrong.to_string(), "`f`: a symbol is 8 bytes, the requested type has 4");
    // SAFETY: as above.
    let missing = unsafe { image.get::<extern "C" fn()>("g") }.unwrap_err();
    assert_eq!(missing, LookupError::NotFound("g".to_owned()));
    // SAFETY: the code is `ret`.
    unsafe { image.get::<extern "C" fn()>("f") }.unwrap()();
    let linked = link(&object, &NoSymbols).unwrap();
    // SAFETY: nothing is called.
    assert!(unsafe { linked.get::<extern "C" fn()>("f") }.is_err(), "not an address of this process");
}

#[test]
fn initialisers_run_by_priority_and_ctors_backwards() {
    static ORDER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    extern "C" fn note<const N: u8>() {
        ORDER.lock().push(N);
    }
    let mut object = Object::default();
    let functions: [extern "C" fn(); 8] =
        [note::<0>, note::<1>, note::<2>, note::<3>, note::<4>, note::<5>, note::<6>, note::<7>];
    let symbols = [0, 1, 2, 3, 4, 5, 6, 7].map(|number: usize| {
        object.symbol(&format!("f{number}"), elf::GLOBAL, elf::ABS, functions[number] as usize as u64)
    });
    let mut array = |name: &str, entries: &[usize]| {
        let section = object.section(name, elf::WRITE, &vec![0; entries.len() * 8]);
        for (number, entry) in entries.iter().enumerate() {
            section.relocate(number as u64 * 8, 1, symbols[*entry], 0);
        }
    };
    array(".init_array", &[5, 6]);
    array(".init_array.00200", &[2]);
    array(".ctors.65435", &[1, 0]); // priority 100
    array(".init_array.300", &[3]);
    array(".ctors", &[7]);
    array(".preinit_array", &[]);
    array(".fini_array", &[0, 1]);
    array(".fini_array.5", &[2]);
    array(".dtors", &[3]);
    // An entry that marks the end, and one that marks the beginning, of an old `.ctors`.
    object.sections[4].bytes.extend([0; 8]);
    object.sections[4].bytes.extend([0xff; 8]);
    let image = load(&object, &NoSymbols);
    assert!(ORDER.lock().is_empty());
    initialize(&image);
    initialize(&image);
    assert_eq!(std::mem::take(&mut *ORDER.lock()), [0, 1, 2, 3, 5, 6, 7]);
    drop(image);
    assert_eq!(std::mem::take(&mut *ORDER.lock()), [3, 1, 0, 2]);
    drop(load(&object, &NoSymbols));
    assert!(ORDER.lock().is_empty(), "finalisers run only after initialisers");
}

/// Writes down what happens.
#[derive(Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl EventListener for Log {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let names: Vec<_> = loaded.symbols().map(|symbol| symbol.name.into_owned()).collect();
        let sections = loaded.sections().count();
        assert_eq!(&loaded.object()[..4], b"\x7fELF");
        self.0.lock().push(format!("loaded {names:?}, {sections} sections"));
    }
    fn notify_freeing(&self, _image: ImageId) {
        self.0.lock().push("freeing".to_owned());
    }
}

impl UnwindRegistrar for Log {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        if info.eh_frames[0].size == 16 {
            return Err("sixteen is too much".to_owned());
        }
        self.0.lock().push(format!("registered {} bytes, catches: {}", info.eh_frames[0].size, info.catches));
        Ok(Some(Box::new(Registered(Arc::clone(&self.0)))))
    }
}

struct Registered(Arc<Mutex<Vec<String>>>);

impl UnwindRegistration for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.lock().push("deregistered".to_owned());
    }
}

#[test]
fn listeners_and_unwinders_hear_in_order() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let loader = Loader::builder()
        .listener(Arc::new(Log(Arc::clone(&events))))
        .unwind(Arc::new(Log(Arc::clone(&events))))
        .build();
    let mut object = Object::default();
    object.symbol("f", elf::GLOBAL | elf::FUNC, 1, 0);
    object.section(".text", elf::EXEC, &[RET]);
    object.section(".eh_frame", 0, &[0; 8]);
    object.section(".gcc_except_table.f", 0, &[0]);
    drop(loader.load(&object.build(), &NoSymbols).unwrap());
    let expected =
        ["registered 8 bytes, catches: true", "loaded [\"f\"], 3 sections", "freeing", "deregistered"];
    assert_eq!(std::mem::take(&mut *events.lock()), expected);
    object.sections[1].bytes = vec![0; 16];
    let error = loader.load(&object.build(), &NoSymbols).unwrap_err();
    assert_eq!(error.to_string(), "unwind information: sixteen is too much");
    assert!(events.lock().is_empty());
}

#[test]
fn strange_unwind_tables_are_refused_before_anybody_reads_them() {
    let mut object = Object::default();
    object.section(".eh_frame", 0, &[0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    object.section(".gcc_except_table", 0, &[0]);
    let error = Loader::new().load(&object.build(), &NoSymbols).unwrap_err().to_string();
    assert_eq!(
        error,
        "unwind information: .eh_frame+0x0: the record is malformed: it is longer than the table"
    );
    let indifferent = Loader::builder().unwind(Arc::new(NoUnwind)).build();
    assert!(indifferent.load(&object.build(), &NoSymbols).is_ok());
}

/// Else any object could decide how the program's own functions are unwound.
#[test]
fn unwind_tables_about_the_code_of_others_are_refused() {
    let mut object = Object::default();
    object.section(".text", elf::EXEC, &[RET; 16]);
    let section = object.symbol("", 3, 1, 0);
    let host = object.symbol("host", elf::GLOBAL, 0, 0);
    // A CIE `zR` with absolute addresses of eight bytes, and an FDE.
    let mut table = vec![12, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1];
    table[0] = 16;
    table.extend([0, 0, 0, 0]);
    table.extend([24, 0, 0, 0, 24, 0, 0, 0]);
    table.extend([0; 20]);
    table[28 + 8] = 16;
    object.section(".eh_frame", 0, &table);
    object.section(".gcc_except_table", 0, &[0]);
    let resolver = AbsoluteSymbols::new().with("host", far as *const () as u64);
    let mut load_for = |symbol| {
        object.sections[1].relocations.clear();
        object.sections[1].relocate(28, 1, symbol, 0);
        Loader::new().load(&object.build(), &resolver).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(load_for(section), Ok(()));
    let refused = load_for(host).unwrap_err();
    assert!(refused.ends_with("its range is not in the code of this object"), "{refused}");
}

#[test]
fn the_object_may_lie_at_any_address() {
    let mut object = Object::default();
    object.symbol("number", elf::GLOBAL | elf::FUNC, 1, 0);
    object.section(".text", elf::EXEC, &[0xb8, 42, 0, 0, 0, RET]);
    let bytes = object.build();
    let mut buffer = vec![0; bytes.len() + 16];
    for shift in 0..16 {
        buffer[shift..shift + bytes.len()].copy_from_slice(&bytes);
        let image = Loader::new().load(&buffer[shift..shift + bytes.len()], &NoSymbols).unwrap();
        assert_eq!(call_int(&image, "number", &[]), 42);
    }
}

#[test]
fn a_resolver_that_panics_leaves_the_loader_usable() {
    let loader = Loader::new();
    let object = far_caller(4).build();
    let loading = std::panic::AssertUnwindSafe(|| loader.load(&object, &from_fn(|_| panic!("resolver"))));
    assert!(std::panic::catch_unwind(loading).is_err());
    assert!(loader.load(&object, &from_fn(|_| Some(1))).is_ok());
}

#[test]
fn a_resolver_is_asked_once_for_each_symbol() {
    let asked = AtomicU32::new(0);
    let mut object = far_caller(4);
    object.section(".data", elf::WRITE, &[0; 64]);
    for place in 0..8 {
        object.sections[1].relocate(place * 8, 1, 2, 0);
    }
    let resolver = from_fn(|name| {
        asked.fetch_add(1, Ordering::SeqCst);
        assert_eq!(name, "far");
        Some(5)
    });
    load(&object, &resolver);
    assert_eq!(asked.into_inner(), 1);
}

#[test]
fn functions_of_the_c_library_are_found() {
    let mut object = far_caller(4);
    object.symbols[1].name = "getpid".to_owned();
    let image = load(&object, &ProcessSymbols);
    assert_eq!(call_int(&image, "number", &[]) as u32, std::process::id());
}

#[test]
fn unwind_tables_among_the_code_are_only_code() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let loader = Loader::builder().unwind(Arc::new(Log(Arc::clone(&events)))).build();
    let mut object = Object::default();
    object.section(".eh_frame", elf::EXEC, &[0; 8]);
    object.section(".gcc_except_table", 0, &[0]);
    assert!(loader.load(&object.build(), &NoSymbols).is_ok());
    assert!(events.lock().is_empty());
}
