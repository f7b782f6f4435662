//! Several Mach-O objects in one image: weak definitions become one, common symbols too, private ones are seen by the others
//! and by nobody else; an archive gives the member that is missing.

use std::sync::Arc;

use objcache_loader::{FixedMemory, InputObject, Loader, NoSymbols, ProcessSymbols, Segment, strip_prefix};

use crate::support::macho::{self, Object, X86_64};
use crate::support::*;

const TARGET: &str = "--target=x86_64-apple-macosx13";

const ONE: &str = "template <class T> struct Count { static int made; static int next() { static int n = 10; made++; return ++n; } };
    template <class T> int Count<T>::made = 0;
    extern \"C\" { int shared[4]; extern int common; __attribute__((visibility(\"hidden\"))) int hidden(int n) { return n + 7; }
    __attribute__((weak)) int chosen(int) { return 1; }
    int one(int) { return Count<int>::next() + Count<int>::made * 100; }
    int ask(int n) { return chosen(n); } }";

const TWO: &str = "template <class T> struct Count { static int made; static int next() { static int n = 10; made++; return ++n; } };
    template <class T> int Count<T>::made = 0;
    extern \"C\" { extern int shared[4]; __attribute__((visibility(\"hidden\"))) int hidden(int);
    int chosen(int n) { return 2 + n; }
    int two(int) { return Count<int>::next() + Count<int>::made * 100; }
    int ask_hidden(int n) { shared[3] = n; return hidden(n) + shared[3]; } }";

#[test]
fn several_objects_are_one_image() {
    if !has(CLANGXX) {
        return;
    }
    let compile = |text| compile_text(CLANGXX, &[TARGET, "-O1", "-fno-inline"], "cpp", text);
    let (one, two) = (compile(ONE), compile(TWO));
    for swapped in [false, true] {
        let mut inputs =
            [InputObject { name: "one.o", bytes: &one }, InputObject { name: "two.o", bytes: &two }];
        if swapped {
            inputs.reverse();
        }
        let (image, map) = Loader::new().load_all(&inputs, &strip_prefix("_", ProcessSymbols)).unwrap();
        let call = |name: &str, n: i32| call_int(&image, name, &[n]);
        // Both count in the same static variables.
        assert_eq!([call("_one", 0), call("_two", 0), call("_one", 0)], [111, 212, 313]);
        assert_eq!(call("_ask", 5), 7, "the strong definition");
        assert_eq!(call("_ask_hidden", 5), 17);
        assert_eq!(image.address("_hidden"), None);
        assert_eq!(map.machine, "x86_64");
        assert!(map.files[0].sections.iter().any(|section| section.name == "__TEXT,__text"));
    }
}

#[test]
fn two_strong_definitions_are_an_error() {
    let mut object = Object::of(X86_64);
    object.section("__TEXT", "__text", macho::CODE, &[0xc3]);
    object.symbol("_f", macho::EXTERNAL | macho::IN_SECTION, 1, 0);
    let bytes = object.build();
    let inputs = [InputObject { name: "a.o", bytes: &bytes }, InputObject { name: "b.o", bytes: &bytes }];
    let error = Loader::new().load_all(&inputs, &NoSymbols).expect_err("twice").to_string();
    assert!(error.contains("`_f`") && error.contains("a.o") && error.contains("b.o"), "{error}");
    // A definition that is private to its object, or weak, does not matter.
    object.symbols[0].description = macho::WEAK_DEFINITION;
    let weak = object.build();
    let inputs = [InputObject { name: "a.o", bytes: &bytes }, InputObject { name: "b.o", bytes: &weak }];
    Loader::new().load_all(&inputs, &NoSymbols).unwrap();
}

#[test]
fn symbols_of_every_kind() {
    let mut object = Object::of(X86_64);
    object.section("__TEXT", "__text", macho::CODE, &[0xc3; 8]).address = 0;
    let data = object.section("__DATA", "__data", 0, &[1, 0, 0, 0, 2, 0, 0, 0]);
    data.address = 0x40;
    object.symbol("nothing", 0x24, 1, 0); // N_FUN, for debuggers
    object.symbol("_code", macho::EXTERNAL | macho::IN_SECTION, 1, 4);
    object.symbol("_data", macho::EXTERNAL | macho::IN_SECTION, 2, 0x44);
    object.symbol("_private", macho::EXTERNAL | macho::PRIVATE | macho::IN_SECTION, 2, 0x40);
    object.symbol("local", macho::IN_SECTION, 2, 0x40);
    object.symbol("_absolute", macho::EXTERNAL | macho::ABSOLUTE, 0, 0x1234);
    object.symbol("_common", macho::EXTERNAL, 0, 24);
    object.symbol("_end", macho::EXTERNAL | macho::IN_SECTION, 2, 0x48);
    let image = Loader::new().load(&object.build(), &NoSymbols).unwrap();
    let names: Vec<_> = image.symbols().map(|symbol| symbol.name.into_owned()).collect();
    assert_eq!(names, ["_code", "_data", "_absolute", "_common", "_end"]);
    assert_eq!(image.address("_absolute"), Some(0x1234));
    assert_eq!(image.address("_common").unwrap() % 32, 0, "aligned to its size, as the object does not say");
    assert_eq!(image.address("_end").unwrap() - image.address("_data").unwrap(), 4);
    // SAFETY: `_data` is an `int` of the image.
    let data = unsafe { image.get::<*const i32>("_data") }.unwrap();
    // SAFETY: the image is alive.
    assert_eq!(unsafe { data.read() }, 2);
}

/// Mach-O has its relocations from the section's end to its start: the load comes before its ADRP.
#[test]
fn accesses_through_the_got_become_direct_on_arm64() {
    let code = [0x9000_0008u32, 0xf940_0108, 0xd65f_03c0];
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (relax, far, expected) in [
        // nop; adr x8, .+0xffc: data is on the page behind the code.
        (true, false, [0xd503_201f, 0x1000_7fe8]),
        // adrp x8, 0x40000 pages on; add x8, x8, #0.
        (true, true, [0x9020_0008, 0x9100_0108]),
    ] {
        let mut object = Object::of(macho::ARM64);
        let relocation = macho::Relocation { external: true, length: 2, ..macho::Relocation::default() };
        let text = object.section("__TEXT", "__text", macho::CODE, &bytes);
        text.relocations = vec![
            macho::Relocation { offset: 4, kind: 6, ..relocation },
            macho::Relocation { offset: 0, kind: 5, relative: true, ..relocation },
        ];
        object.section("__DATA", "__data", 0, &[0; 8]).address = 16;
        object.symbol("_data", macho::EXTERNAL | macho::IN_SECTION, 2, 16);
        let memory = FixedMemory::placed(0x10_0000, move |name: &[u8], _| match name {
            b"__TEXT,__text" => Some(0x10_0000),
            b"__DATA,__data" => Some(if far { 0x4010_0000 } else { 0x10_1000 }),
            _ => None,
        });
        let loader = Loader::builder().memory(Arc::new(memory)).relax(relax).build();
        let image = loader.load(&object.build(), &NoSymbols).unwrap();
        let linked = image.linked_bytes(Segment::Code).unwrap();
        let words: Vec<u32> =
            linked[..8].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, expected, "{words:x?}");
    }
}
