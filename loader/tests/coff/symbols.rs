//! What names mean: COMDAT sections of every selection, weak externals, imports, the image's start.

use std::sync::Arc;

use objcache_loader::{FixedMemory, InputObject, LinkMap, LoadError, Loader, NoSymbols, Segment, from_fn};

use crate::lld;
use crate::support::coff::{self, Object};
use crate::support::*;

const BASE: u64 = 0x1000_0000;
const ADDR64: u16 = 1;

/// Links objects, and returns the bytes of the data segment with the map.
fn load(objects: &[&[u8]], externals: &[(&str, u64)]) -> Result<(Vec<u8>, LinkMap), LoadError> {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(BASE))).build();
    let names = ["0.o", "1.o", "2.o"];
    let inputs: Vec<_> = objects.iter().zip(names).map(|(bytes, name)| InputObject { name, bytes }).collect();
    let externals: Vec<_> = externals.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
    let resolver =
        from_fn(move |name| externals.iter().find(|(other, _)| other == name).map(|(_, address)| *address));
    let (image, map) = loader.load_all(&inputs, &resolver)?;
    Ok((image.linked_bytes(Segment::Data).unwrap().to_vec(), map))
}

fn refusal(objects: &[&[u8]], externals: &[(&str, u64)]) -> String {
    load(objects, externals).expect_err("must be refused").to_string()
}

fn word(data: &[u8], number: usize) -> u64 {
    u64::from_le_bytes(data[8 * number..][..8].try_into().unwrap())
}

/// An object with pointers to symbols in `.data`. The symbols are numbered by what `add` returns.
fn pointers(add: impl FnOnce(&mut Object) -> Vec<u32>) -> Object {
    let mut object = Object::new(coff::X86_64);
    let symbols = add(&mut object);
    let bytes = vec![0; 8 * symbols.len()];
    let section = object.section(".data", coff::DATA | coff::ALIGN_16, &bytes);
    for (number, symbol) in symbols.into_iter().enumerate() {
        section.relocate(8 * number as u32, ADDR64, symbol);
    }
    object
}

/// An object with a COMDAT section `f` of that selection, and a pointer to it.
fn comdat(selection: u8, bytes: &[u8]) -> Vec<u8> {
    let object = pointers(|object| {
        object.section(".rdata", coff::READ_ONLY | coff::COMDAT | coff::ALIGN_16, bytes);
        object.definition(1, selection, 0);
        vec![object.symbol("f", coff::EXTERNAL, 1, 0)]
    });
    object.build()
}

/// The bytes of the copy that is kept, or why none is.
fn kept(objects: &[&[u8]]) -> Result<Vec<u8>, LoadError> {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(BASE))).build();
    let inputs: Vec<_> = objects.iter().map(|bytes| InputObject { name: "object", bytes }).collect();
    let (image, map) = loader.load_all(&inputs, &NoSymbols)?;
    let sections: Vec<_> = map.files.iter().flat_map(|file| &file.sections).collect();
    let copies: Vec<_> = sections.iter().filter(|section| section.name == ".rdata").collect();
    assert_eq!(copies.len(), 1);
    // Both pointers lead there.
    let pointers: Vec<_> = sections.iter().filter(|section| section.name == ".data").collect();
    let data = image.linked_bytes(Segment::Data).unwrap();
    for pointer in pointers {
        assert_eq!(word(&data[pointer.offset..], 0), copies[0].address);
    }
    let bytes = &image.linked_bytes(Segment::ReadOnly).unwrap()[copies[0].offset..];
    Ok(bytes[..copies[0].size as usize].to_vec())
}

#[test]
fn selections_keep_what_lld_keeps() {
    let has_lld = has(LLD_LINK);
    let (one, same, other, long) = ([1; 8], [1; 8], [2; 8], [3; 16]);
    for (selection, second, expected) in [
        (1, &same[..], Err("there are two, and there must be one only")),
        (2, &other[..], Ok(&one[..])),
        (2, &long[..], Ok(&one[..])),
        (3, &other[..], Ok(&one[..])),
        (3, &long[..], Err("there are two of different sizes")),
        (4, &same[..], Ok(&one[..])),
        (4, &other[..], Err("there are two with different content")),
        (6, &long[..], Ok(&long[..])),
        (6, &other[..], Ok(&one[..])),
    ] {
        let objects = [comdat(selection, &one), comdat(selection, second)];
        let objects = [&objects[0][..], &objects[1]];
        let ours = kept(&objects);
        match (&ours, expected) {
            (Ok(ours), Ok(expected)) => assert_eq!(ours, expected, "selection {selection}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            other => panic!("selection {selection}: {other:?}"),
        }
        if has_lld {
            let linked = lld::link(coff::X86_64, BASE, &objects, &[]);
            assert_eq!(linked.image.is_empty(), ours.is_err(), "selection {selection}: {}", linked.messages);
            if let (Some(f), Ok(ours)) = (linked.publics.get("f"), &ours) {
                assert_eq!(linked.bytes(*f, ours.len()).unwrap(), ours, "selection {selection}");
            }
        }
    }
}

/// `f` in a COMDAT section, and a chain of sections that belong to it, the last first.
fn chained(big: bool, links: &[(u32, u32)]) -> Object {
    let mut object = Object::new(coff::X86_64);
    object.big = big;
    for number in 0..=links.len() {
        let name = format!(".rdata${number}");
        object.section(&name, coff::READ_ONLY | coff::COMDAT, &[number as u8; 4]);
    }
    object.definition(1, coff::ANY, 0);
    object.symbol("f", coff::EXTERNAL, 1, 0);
    for (section, with) in links {
        object.definition(*section as i32, coff::ASSOCIATIVE, *with);
    }
    object
}

#[test]
fn associated_sections_stand_or_fall_together() {
    for big in [false, true] {
        let chain = [(2, 3), (3, 4), (4, 1)];
        let objects = [chained(big, &chain).build(), chained(big, &chain).build()];
        let (_, map) = load(&[&objects[0], &objects[1]], &[]).unwrap();
        assert_eq!(map.files.iter().map(|file| file.sections.len()).collect::<Vec<_>>(), [4, 0]);
    }
    // With a section that is not loaded nothing is.
    let mut removed = chained(false, &[(2, 1)]);
    removed.sections[0].flags |= coff::REMOVE;
    let (_, map) = load(&[&removed.build()], &[]).unwrap();
    assert!(map.files[0].sections.is_empty());
}

#[test]
fn associations_that_lead_nowhere_are_refused() {
    let refused = |links: &[(u32, u32)]| refusal(&[&chained(false, links).build()], &[]);
    let round = "the sections it is associated with go round";
    assert!(refused(&[(2, 2)]).contains(round));
    assert!(refused(&[(2, 3), (3, 2)]).contains(round));
    assert!(refused(&[(2, 3), (3, 4), (4, 3)]).contains(round));
    assert!(refused(&[(2, 0)]).contains("it is associated with section 0, which is not there"));
    assert!(refused(&[(2, 99)]).contains("it is associated with section 99, which is not there"));
    assert!(refusal(&[&comdat(7, &[1])], &[]).contains("IMAGE_COMDAT_SELECT_NEWEST"));
    assert!(refusal(&[&comdat(8, &[1])], &[]).contains("its COMDAT selection 8 is unknown"));
}

/// GNU compilers' unwind tables belong to a function by their names only.
#[test]
fn unwind_tables_of_gnu_tools_go_with_their_function() {
    let object = || {
        let mut object = Object::new(coff::X86_64);
        object.section(".text$f", coff::CODE | coff::COMDAT, &[0xc3]);
        object.section(".pdata$f", coff::READ_ONLY | coff::COMDAT, &[0; 12]).relocate(0, 3, 4);
        object.definition(1, coff::ANY, 0);
        object.definition(2, coff::ANY, 0);
        object.symbol("f", coff::EXTERNAL, 1, 0);
        object.build()
    };
    let (_, map) = load(&[&object(), &object()], &[]).unwrap();
    assert_eq!(map.files.iter().map(|file| file.sections.len()).collect::<Vec<_>>(), [2, 0]);
}

const NO_LIBRARY: u32 = 1;
const LIBRARY: u32 = 2;
const ALIAS: u32 = 3;
const ANTI_DEPENDENCY: u32 = 4;

#[test]
fn weak_externals_fall_back_to_their_defaults() {
    for search in [NO_LIBRARY, LIBRARY, ALIAS, ANTI_DEPENDENCY] {
        // A default in the object.
        let object = pointers(|object| {
            let default = object.symbol("default", coff::EXTERNAL, 1, 8);
            vec![object.weak("weak", default, search), default]
        });
        let (data, _) = load(&[&object.build()], &[]).unwrap();
        assert_eq!([word(&data, 0), word(&data, 1)], [BASE + 8; 2]);
        // One that is undefined itself, or zero.
        let object = pointers(|object| {
            let default = object.symbol("default", coff::EXTERNAL, 0, 0);
            let nothing = object.symbol("nothing", coff::EXTERNAL, coff::ABSOLUTE, 0);
            vec![object.weak("one", default, search), object.weak("two", nothing, search)]
        });
        let object = object.build();
        let words = |externals| load(&[&object], externals).map(|(data, _)| [word(&data, 0), word(&data, 1)]);
        assert_eq!(words(&[("default", 5)]).unwrap(), [5, 0]);
        assert_eq!(words(&[("one", 6), ("two", 7)]).unwrap(), [6, 7]);
        let message = refusal(&[&object], &[]);
        assert_eq!(message, "0.o: unresolved symbols: `one` (needed at .data+0x0)");
    }
    // A definition in another object is stronger.
    let object = pointers(|object| {
        let default = object.symbol("default", coff::EXTERNAL, 1, 0);
        vec![object.weak("weak", default, ALIAS)]
    });
    let mut other = Object::new(coff::X86_64);
    other.symbol("weak", coff::EXTERNAL, coff::ABSOLUTE, 0x77);
    let (data, _) = load(&[&object.build(), &other.build()], &[]).unwrap();
    assert_eq!(word(&data, 0), 0x77);
    // In the library's sense a resolver is asked even if the default is at hand.
    let object = pointers(|object| {
        let default = object.symbol("default", coff::EXTERNAL, 1, 0);
        vec![object.weak("weak", default, LIBRARY)]
    });
    let (data, _) = load(&[&object.build()], &[("weak", 0x99)]).unwrap();
    assert_eq!(word(&data, 0), 0x99);
}

#[test]
fn chains_of_weak_externals_end() {
    let chain = |last_search: u32, last: u32| {
        pointers(|object| {
            let end = object.symbol("end", coff::EXTERNAL, 1, 0);
            let third = object.weak("third", last.min(end), last_search);
            let second = object.weak("second", third, ALIAS);
            vec![object.weak("first", second, ALIAS)]
        })
        .build()
    };
    let (data, _) = load(&[&chain(ALIAS, 0)], &[]).unwrap();
    assert_eq!(word(&data, 0), BASE);
    assert!(refusal(&[&chain(ANTI_DEPENDENCY, 0)], &[]).contains("its default is an anti-dependency"));
    let refused = |default: u32, search: u32| {
        let object = pointers(|object| vec![object.weak("weak", default, search)]);
        refusal(&[&object.build()], &[])
    };
    assert!(refused(0, ALIAS).contains("symbol 0: the weak externals behind it go round, or too far"));
    assert!(refused(1, ALIAS).contains("symbol 0: its default is symbol 1, which is not there"));
    assert!(refused(9, ALIAS).contains("symbol 0: its default is symbol 9, which is not there"));
    assert!(refused(0, 5).contains("symbol 0: its search characteristics 5 are unknown"));
}

#[test]
fn imports_are_pointers_that_the_loader_makes() {
    let object = pointers(|object| {
        let imports = ["__imp_far", "__imp_own", "__imp_ready"];
        let numbers = imports.map(|name| object.symbol(name, coff::EXTERNAL, 0, 0));
        object.symbol("own", coff::EXTERNAL, 1, 16);
        numbers.to_vec()
    });
    let externals = [("far", 0x1234_5678_9abc), ("own", 0x66), ("__imp_ready", 0x42)];
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(BASE))).build();
    let resolver = from_fn(|name| externals.iter().find(|(other, _)| *other == name).map(|(_, at)| *at));
    let image = loader.load(&object.build(), &resolver).unwrap();
    let data = image.linked_bytes(Segment::Data).unwrap();
    let [far, own, ready] = [0, 1, 2].map(|number| word(data, number));
    assert_eq!((own - far, ready), (8, 0x42));
    let slots = image.linked_bytes(Segment::ReadOnly).unwrap();
    assert_eq!(word(slots, 0), 0x1234_5678_9abc);
    assert_eq!(word(slots, 1), word(data, 0) + (word(slots, 1) - word(data, 0)));
    // The object's own definition comes first.
    let own_address = image.address("own").unwrap();
    assert_eq!(word(slots, 1), own_address);
    assert!(image.address("__imp_own").is_none());
    let message = refusal(&[&object.build()], &[("__imp_ready", 1)]);
    assert_eq!(message, "0.o: unresolved symbols: `__imp_far` (needed at .data+0x0)");
}

#[test]
fn the_image_has_a_start() {
    for name in ["__ImageBase", "___ImageBase", "__image_base__", "___image_base__"] {
        let object = pointers(|object| vec![object.symbol(name, coff::EXTERNAL, 0, 0)]);
        assert_eq!(word(&load(&[&object.build()], &[]).unwrap().0, 0), BASE);
    }
}

#[test]
fn both_shapes_mean_the_same() {
    let mut object = pointers(|object| {
        let long = object.symbol("a_name_longer_than_eight_bytes", coff::EXTERNAL, 1, 4);
        object.symbol(".file", 103, coff::DEBUG, 0);
        object.symbols.last_mut().unwrap().records.push(*b"a source file.c\0\0\0");
        vec![long, object.symbol("short", coff::STATIC, 1, 8)]
    });
    for big in [false, true] {
        object.big = big;
        let bytes = object.build();
        let (data, _) = load(&[&bytes], &[]).unwrap();
        assert_eq!([word(&data, 0), word(&data, 1)], [BASE + 4, BASE + 8]);
        let image = Loader::builder().memory(Arc::new(FixedMemory::at(BASE))).build();
        let image = image.load(&bytes, &NoSymbols).unwrap();
        assert_eq!(image.address("a_name_longer_than_eight_bytes"), Some(BASE + 4));
        assert_eq!(image.symbols().count(), 1);
    }
}
