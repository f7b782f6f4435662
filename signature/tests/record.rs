//! Records in real compilers' objects: embedded, read back, and every other tool still content.

mod common;

use common::{full, tool, with_object};
use objcache_signature::*;

const SOURCE: &str = "int g; static int t[4] = {1,2,3,4}; int f(int x) { return t[x & 3] + g; }";

fn record() -> Record {
    let provenance = Provenance { source_path: Some("k.c".to_owned()), ..Provenance::default() };
    Record { key_document: KeyDocument::of(&full()).unwrap(), provenance }
}

fn other_record() -> Record {
    let mut inputs = full();
    inputs.flags.push("-g".to_owned());
    Record { key_document: KeyDocument::of(&inputs).unwrap(), provenance: Provenance::default() }
}

/// Embeds, reads back, embeds another in its place.
fn round_trip(object: &[u8]) -> Vec<u8> {
    assert_eq!(read_record(object), Err(RecordError::Absent));
    let with = embed(object, &record()).unwrap();
    assert_eq!(read_record(&with), Ok(record()));
    let replaced = embed(&with, &other_record()).unwrap();
    assert_eq!(read_record(&replaced), Ok(other_record()));
    with
}

#[test]
fn objects_of_all_classes_and_byte_orders_take_a_record() {
    for target in
        ["x86_64-linux-gnu", "aarch64-linux-gnu", "i386-linux-gnu", "s390x-linux-gnu", "powerpc-linux-gnu"]
    {
        with_object("clang-22", &["-target", target], "classes.c", SOURCE, |path, object| {
            std::fs::write(path, round_trip(&object)).unwrap();
            let dump = tool(
                "llvm-readobj-22",
                &["--sections", "--symbols", "--relocations", path.to_str().unwrap()],
            );
            assert!(dump.is_none_or(|dump| String::from_utf8_lossy(&dump).contains(".comment")), "{target}");
        });
    }
}

#[test]
fn an_object_without_a_comment_gets_one() {
    let source = ".text\n.globl f\nf: ret\n.data\n.quad f\n";
    with_object("gcc", &[], "bare.s", source, |path, object| {
        let with = round_trip(&object);
        std::fs::write(path, with).unwrap();
        tool("readelf", &["--wide", "--all", path.to_str().unwrap()]);
    });
}

#[test]
fn linkers_and_objcopy_keep_the_record_and_the_code() {
    with_object("gcc", &["-O2", "-fPIC"], "kept.c", SOURCE, |path, object| {
        let before = sections(path);
        std::fs::write(path, round_trip(&object)).unwrap();
        assert_eq!(sections(path), before, "code, data and relocations are unchanged");

        let path = path.to_str().unwrap();
        let stripped = format!("{path}.stripped.o");
        tool("objcopy", &["--strip-debug", path, &stripped]);
        assert_eq!(read_record(&std::fs::read(&stripped).unwrap()), Ok(record()));

        let shared = format!("{path}.so");
        tool("gcc", &["-shared", "-o", &shared, path]);
        let comments = tool("readelf", &["-p", ".comment", &shared]).unwrap();
        assert!(String::from_utf8_lossy(&comments).contains("objcache-record:1:"));
    });
}

/// Contents of all sections but `.comment`, as objdump shows them.
fn sections(path: &std::path::Path) -> String {
    let out = tool("objdump", &["-s", "-r", "-t", path.to_str().unwrap()]).unwrap();
    let text = String::from_utf8(out).unwrap();
    let head = text.find("Contents of section .comment").unwrap();
    let tail = text[head + 1..].find("Contents of section").map_or(text.len(), |at| head + 1 + at);
    text[..head].to_owned() + &text[tail..]
}

#[test]
fn two_objects_linked_into_one_are_ambiguous() {
    with_object("gcc", &[], "one.c", "int one;", |one, first| {
        with_object("gcc", &[], "two.c", "int two;", |two, second| {
            std::fs::write(one, embed(&first, &record()).unwrap()).unwrap();
            std::fs::write(two, embed(&second, &other_record()).unwrap()).unwrap();
            let both = format!("{}.both.o", one.display());
            tool("ld", &["-r", "-o", &both, one.to_str().unwrap(), two.to_str().unwrap()]);
            assert_eq!(read_record(&std::fs::read(both).unwrap()), Err(RecordError::Ambiguous(2)));
        });
    });
}

#[test]
fn an_object_with_more_sections_than_fit_sixteen_bits_takes_a_record() {
    let mut source = String::new();
    for index in 0..66_000 {
        source += &format!(".section .t{index}\n.byte 1\n");
    }
    with_object("gcc", &[], "many.s", &source, |path, object| {
        std::fs::write(path, round_trip(&object)).unwrap();
        let header = tool("readelf", &["-h", path.to_str().unwrap()]).unwrap();
        assert!(String::from_utf8_lossy(&header).contains("(66"), "extended numbering");
    });
}

#[test]
fn the_verdict_names_what_differs() {
    with_object("gcc", &[], "verdict.c", SOURCE, |_, object| {
        let object = embed(&object, &record()).unwrap();
        assert_eq!(verdict(&object, &full()), Ok(Verdict::Fresh));

        let mut now = full();
        now.optimization = OptLevel::O0;
        now.environment.insert("CFLAGS".to_owned(), None);
        let Ok(Verdict::Stale { differences }) = verdict(&object, &now) else { panic!("must be stale") };
        let shown: Vec<_> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["optimization: `3` before, `0` now", "environment.CFLAGS: `-g` before, `unset` now"]
        );
    });
}

#[test]
fn a_changed_object_is_stale_whatever_its_record_says() {
    with_object("gcc", &["-O2"], "changed.c", SOURCE, |path, object| {
        let sealed = embed(&object, &record()).unwrap();
        assert_eq!(is_untouched(&sealed), Ok(true));
        for at in [4, 0x40, object.len() / 2, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 4;
            assert_ne!(verdict(&changed, &full()), Ok(Verdict::Fresh), "byte {at}");
        }

        std::fs::write(path, &sealed).unwrap();
        let stripped = format!("{}.stripped.o", path.display());
        tool("objcopy", &["--remove-section=.eh_frame", path.to_str().unwrap(), &stripped]);
        let stripped = std::fs::read(stripped).unwrap();
        assert_eq!(is_untouched(&stripped), Ok(false));
        let Ok(Verdict::Stale { differences }) = verdict(&stripped, &full()) else { panic!("must be stale") };
        assert_eq!(differences[0].to_string(), "object: `as compiled` before, `changed since` now");
    });
}

#[test]
fn a_damaged_record_is_damaged_and_not_another() {
    with_object("gcc", &[], "damaged.c", SOURCE, |_, object| {
        let object = embed(&object, &record()).unwrap();
        let start = object.windows(16).rposition(|bytes| bytes == b"objcache-record:").unwrap();
        for at in start..object.len() {
            let mut damaged = object.clone();
            damaged[at] ^= 1;
            match read_record(&damaged) {
                // A digit of the seal became another.
                Ok(_) => assert_eq!(is_untouched(&damaged), Ok(false), "byte {at} of {}", object.len()),
                Err(RecordError::Damaged(_) | RecordError::Absent | RecordError::Version(_)) => {}
                other => panic!("byte {at} of {}: {other:?}", object.len()),
            }
        }
    });
}

#[test]
fn a_broken_object_is_refused_with_a_reason() {
    assert!(matches!(embed(b"", &record()), Err(RecordError::UnsupportedFormat(_))));
    assert!(matches!(
        embed(b"\x7fELF", &record()),
        Err(RecordError::UnsupportedFormat(_) | RecordError::Malformed(_))
    ));
    with_object("gcc", &[], "broken.c", SOURCE, |_, object| {
        for length in 0..object.len() {
            let _ = embed(&object[..length], &record());
            let _ = read_record(&object[..length]);
        }
        for at in 0..object.len() {
            for value in [0x00, 0xff, object[at] ^ 0x80, object[at].wrapping_add(1)] {
                let mut broken = object.clone();
                broken[at] = value;
                let _ = embed(&broken, &record()).map(|with| read_record(&with));
            }
        }
    });
}
