//! Objects that lie: each lie is refused with a sentence that names it. (Every byte of compilers' objects is damaged in
//! `mutated.rs`; here it is every byte of one that has everything.)

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use objcache_loader::{FixedMemory, Limits, Loader, from_fn};

use crate::support::coff::{self, Object};
use crate::support::counting::processor_time;

/// An object with something of everything.
fn everything(big: bool) -> Object {
    let mut object = Object::new(coff::X86_64);
    object.big = big;
    object.section(".text$mn", coff::CODE | coff::ALIGN_16, &[0; 32]);
    object.section(".data", coff::DATA, &[0; 32]);
    object.section(".bss", coff::BSS, &[]).size = Some(64);
    object.section(".a_long_section_name", coff::READ_ONLY | coff::COMDAT, &[1; 12]);
    object.section(".xdata", coff::READ_ONLY | coff::COMDAT, &[2; 8]);
    object.section(".CRT$XCU", coff::READ_ONLY, &[0; 8]);
    object.section(".drectve", coff::REMOVE, b"-aligncomm:\"common\",4 /EXPORT:f");
    object.symbol(".file", 103, coff::DEBUG, 0);
    object.symbols[0].records.push([b'x'; 18]);
    object.definition(4, coff::ANY, 0);
    let group = object.symbol("group", coff::EXTERNAL, 4, 0);
    object.definition(5, coff::ASSOCIATIVE, 4);
    let function = object.symbol("f", coff::EXTERNAL, 1, 4);
    let default = object.symbol("default", coff::EXTERNAL, 2, 8);
    let weak = object.weak("weak_with_a_long_name", default, 3);
    let import = object.symbol("__imp_host", coff::EXTERNAL, 0, 0);
    let common = object.symbol("common", coff::EXTERNAL, 0, 24);
    let constant = object.symbol("constant", coff::EXTERNAL, coff::ABSOLUTE, 7);
    let kinds = [(0, 4, function), (4, 5, import), (8, 3, weak), (12, 11, group), (16, 2, constant)];
    kinds.iter().for_each(|(at, kind, symbol)| _ = object.sections[0].relocate(*at, *kind, *symbol));
    object.sections[1].relocate(0, 1, common).relocate(8, 10, group);
    object.sections[5].relocate(0, 1, function);
    object
}

fn loader() -> Loader {
    let mut limits = Limits::default();
    limits.image_bytes = 1 << 20;
    Loader::builder().memory(Arc::new(FixedMemory::at(0x2000_0000))).limits(limits).build()
}

/// Loads; says whether that went well. Panics are the test's to report.
fn survives(loader: &Loader, object: &[u8]) -> bool {
    let start = processor_time();
    let resolver = from_fn(|name| Some(0x2100_0000 + name.len() as u64));
    let outcome = catch_unwind(AssertUnwindSafe(|| loader.load(object, &resolver).is_ok()));
    assert!(processor_time() - start < Duration::from_secs(5));
    outcome.unwrap_or_else(|_| panic!("{object:02x?}"))
}

#[test]
fn every_byte_damaged_eleven_ways_and_every_length() {
    let loader = loader();
    let mut outcomes = [0u32; 2];
    for big in [false, true] {
        let object = everything(big).build();
        assert!(survives(&loader, &object), "the object itself is fine");
        for length in 0..object.len() {
            outcomes[usize::from(survives(&loader, &object[..length]))] += 1;
        }
        let mut damaged = object.clone();
        for at in 0..object.len() {
            let byte = object[at];
            for damage in (0..8).map(|bit| byte ^ 1 << bit).chain([0, 0xff, byte.wrapping_add(1)]) {
                damaged[at] = damage;
                outcomes[usize::from(survives(&loader, &damaged))] += 1;
            }
            damaged[at] = byte;
        }
    }
    let [refused, linked] = outcomes;
    eprintln!("{linked} linked, {refused} refused");
    assert!(linked > 1000 && refused > 1000);
}

/// Tells a lie, and expects an error with these words.
#[track_caller]
fn liar(lie: impl FnOnce(&mut Object), expected: &str) {
    let mut object = everything(false);
    lie(&mut object);
    let error = loader().load(&object.build(), &from_fn(|_| Some(0x2100_0000))).expect_err("must be refused");
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn liars_are_named() {
    liar(|o| o.sections[0].size = Some(u32::MAX), ".text$mn: its bytes are not in the file, or reach past");
    liar(|o| o.sections[0].at = Some(0), ".text$mn: its bytes are not in the file");
    liar(|o| o.sections[0].at = Some(u32::MAX), ".text$mn: its bytes are not in the file");
    liar(|o| o.sections[2].size = Some(u32::MAX), "the size of the image is 4294967");
    liar(|o| o.sections[0].flags |= 0x00f0_0000, ".text$mn: its alignment is none that there is");
    liar(|o| o.sections[0].flags |= 0x8000_0000, ".text$mn: a section that is both writable and executable");
    liar(|o| o.sections[0].flags |= 0x80, ".text$mn: executable, but without content");
    liar(|o| o.sections[0].count = Some(60_000), "relocations of .text$mn: the table reaches past the end");
    liar(|o| o.sections[1].name = ".tls$".to_owned(), ".tls$: thread-local storage");
    liar(|o| o.sections[5].name = ".CRT$XLB".to_owned(), ".CRT$XLB: functions to run for each thread");
    liar(|o| o.sections[1].name = "/999999".to_owned(), "section 2: its name is no name, outside");
    liar(|o| o.sections[1].name = "/12x".to_owned(), "section 2: its name is no name, outside");
    liar(|o| o.sections[1].name = "//!!!!".to_owned(), "section 2: its name is no name, outside");
    liar(|o| o.symbols[4].value = 33, "`f`: its offset 0x21 is outside of its section of 0x20 bytes");
    liar(|o| o.symbols[4].section = 99, "symbol 7: it is in section 99, which is not there");
    liar(|o| o.symbols[4].section = -3, "symbol 7: it is in section -3, which is not there");
    liar(|o| o.symbols[4].class = 107, "symbol 7: its storage class 107 is not supported");
    liar(
        |o| (o.symbols[4].class, o.symbols[4].section) = (coff::STATIC, 0),
        "symbol 7: it is local, but undefined",
    );
    liar(|o| o.symbols[6].section = 1, "symbol 9: it is a weak external, but defined");
    liar(|o| o.symbols[6].records.clear(), "symbol 9: it is a weak external without an auxiliary record");
    liar(
        |o| o.symbols.last_mut().unwrap().record_count = Some(5),
        "symbol 13: its auxiliary records reach past the end of the table",
    );
    liar(|o| o.symbols[8].value = u32::MAX, "the size of the common symbols is 4294967");
    liar(
        |o| o.sections[6].bytes = b"-aligncomm:common,40".to_vec(),
        "the alignment of a common symbol is 1099511627776",
    );
    liar(
        |o| {
            let directives = o.sections[6].clone();
            o.sections.extend(vec![coff::Section { at: Some(20), size: Some(600), ..directives }; 3]);
        },
        "sections: they overlap in the file",
    );
}

#[test]
fn relocations_that_lie_are_named() {
    let relocate = |offset: u32, kind: u16, symbol: u32, expected: &str| {
        liar(|o| _ = o.sections[1].relocate(offset, kind, symbol), expected);
    };
    relocate(29, 4, 7, ".data+0x1d: cannot relocate IMAGE_REL_AMD64_REL32 against `f`: the place is outside");
    relocate(u32::MAX, 1, 7, ".data+0xffffffff: cannot relocate IMAGE_REL_AMD64_ADDR64 against `f`");
    relocate(0, 1, 99, ".data+0x0: the relocation is against symbol 99, which is not there");
    relocate(0, 200, 7, "cannot relocate relocation type 200 against `f`: this kind of relocation is not");
    relocate(0, 13, 7, "cannot relocate IMAGE_REL_AMD64_TOKEN against `f`: managed code is not supported");
    // Auxiliary records and what is for debuggers are no symbols.
    for nothing in [0, 1, 3, 6, 10] {
        relocate(0, 1, nothing, "the symbol's section is not loaded");
    }
    liar(|o| _ = o.sections[2].relocate(0, 1, 7), ".bss+0x0: cannot relocate IMAGE_REL_AMD64_ADDR64");
}

#[test]
fn more_relocations_than_can_be_counted() {
    let object = |count: u32| {
        let mut object = Object::new(coff::X86_64);
        let symbol = object.symbol("s", coff::EXTERNAL, coff::ABSOLUTE, 7);
        let section = object.section(".data", coff::DATA | coff::OVERFLOW, &vec![0; 8 * 70_000]);
        section.relocate(count, 0, 0);
        (0..70_000).for_each(|number| _ = section.relocate(8 * number, 1, symbol));
        section.count = Some(u16::MAX);
        object.build()
    };
    let image = loader().load(&object(70_001), &from_fn(|_| None)).unwrap();
    let data = image.linked_bytes(objcache_loader::Segment::Data).unwrap();
    assert!(data.chunks(8).all(|word| word == [7, 0, 0, 0, 0, 0, 0, 0]));
    let refused = |count| loader().load(&object(count), &from_fn(|_| None)).unwrap_err().to_string();
    assert!(refused(0).contains("relocations of .data: there are none, where there must be one"));
    assert!(refused(u32::MAX).contains("relocations of .data: the table reaches past the end of the file"));
}

#[test]
fn other_files_are_refused_by_name() {
    let with = |at: usize, bytes: &[u8]| {
        let mut object = everything(at >= 20).build();
        object[at..at + bytes.len()].copy_from_slice(bytes);
        loader().load(&object, &from_fn(|_| None)).unwrap_err().to_string()
    };
    assert!(with(0, &[0x41, 0xa6]).contains("COFF machine 0xa641 (ARM64EC)"));
    assert!(with(0, &[0xc4, 0x01]).contains("COFF machine 0x01c4 (ARM (Thumb-2))"));
    assert!(with(18, &[2]).contains("a linked COFF image; a relocatable object is needed"));
    assert!(with(2, &[0xff, 0xff]).contains("section table: the table reaches past the end of the file"));
    assert!(with(12, &[0xff; 4]).contains("the number of symbols is 4294967295, more than the limit"));
    assert!(with(8, &[0xff; 4]).contains("symbol table: the table reaches past the end of the file"));
    assert!(with(20, &[0; 16]).contains("an anonymous COFF object of unknown class"));
    let anonymous = |version: u8| {
        let bytes = [&[0, 0, 0xff, 0xff, version, 0][..], &[0; 60]].concat();
        loader().load(&bytes, &from_fn(|_| None)).unwrap_err().to_string()
    };
    assert!(anonymous(0).contains("a short import object"));
    assert!(anonymous(1).contains("intermediate code of a compiler"));
}

/// A section for every one of many functions takes time in proportion.
#[test]
fn chains_of_associations_are_walked_once() {
    let mut object = Object::new(coff::X86_64);
    object.big = true;
    const LENGTH: u32 = 50_000;
    for _ in 0..LENGTH {
        object.section(".rdata", coff::READ_ONLY | coff::COMDAT, &[0]);
    }
    object.symbols.reserve(LENGTH as usize);
    for number in 1..=LENGTH {
        let (selection, with) =
            if number == LENGTH { (coff::ANY, 0) } else { (coff::ASSOCIATIVE, number + 1) };
        let mut record = [0; 18];
        record[12..14].copy_from_slice(&(with as u16).to_le_bytes());
        record[14] = selection;
        record[16..18].copy_from_slice(&((with >> 16) as u16).to_le_bytes());
        object.symbols.push(coff::Symbol {
            name: ".rdata".to_owned(),
            section: number as i32,
            class: coff::STATIC,
            records: vec![record],
            ..coff::Symbol::default()
        });
    }
    let bytes = object.build();
    let start = processor_time();
    loader().load(&bytes, &from_fn(|_| None)).unwrap();
    let taken = processor_time() - start;
    assert!(taken < Duration::from_secs(5), "{taken:?}");
}
