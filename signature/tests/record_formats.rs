//! Records in Mach-O and COFF objects, and in ELF of every class: linkers and other tools find code, data,
//! symbols and relocations as they were, and damage is seen.

mod common;

use std::path::Path;

use common::{full, tool, with_object};
use objcache_signature::*;
use proptest::prelude::*;

/// Calls, data with addresses, zero-fill, constants, unwind tables: all that has relocations.
const SOURCE: &str = "int g, zero[9]; extern int ext(int); static const char *names[] = {\"a\", \"bb\"};
static int t[4] = {1, 2, 3, 4};
int f(int x) { return t[x & 3] + g + ext(x) + names[x & 1][0] + zero[x & 7]; }
double h(double a) { return a * 3.25 + g; }";

const MACHO: [&str; 2] = ["x86_64-apple-darwin", "arm64-apple-darwin"];
const COFF: [&str; 3] = ["x86_64-pc-windows-msvc", "aarch64-pc-windows-msvc", "i686-pc-windows-msvc"];
/// And with an emulation of lld.
const ELF: [(&str, &str); 10] = [
    ("x86_64-linux-gnu", "elf_x86_64"),
    ("aarch64-linux-gnu", "aarch64linux"),
    ("aarch64_be-linux-gnu", "aarch64linuxb"),
    ("i386-linux-gnu", "elf_i386"),
    ("armv7-linux-gnueabihf", "armelf_linux_eabi"),
    ("riscv64-linux-gnu", "elf64lriscv"),
    ("riscv32-linux-gnu", "elf32lriscv"),
    ("powerpc64le-linux-gnu", "elf64lppc"),
    ("loongarch64-linux-gnu", "elf64loongarch"),
    ("s390x-linux-gnu", "elf64_s390"),
];

fn record() -> Record {
    let provenance = Provenance { source_path: Some("k.c".to_owned()), ..Provenance::default() };
    Record { key_document: KeyDocument::of(&full()).unwrap(), provenance }
}

/// One of another length.
fn other_record() -> Record {
    let mut inputs = full();
    inputs.flags.push("-g".to_owned());
    Record { key_document: KeyDocument::of(&inputs).unwrap(), provenance: Provenance::default() }
}

/// Objects of `target` in a few forms, each with and without a record, and the path of the one with.
fn each_object(target: &str, name: &str, check: impl Fn(&str, &str, &[u8])) {
    for flags in [&["-O0"][..], &["-O2", "-g"], &["-Os", "-ffunction-sections", "-fdata-sections"]] {
        let flags = [&["-target", target, "-ffreestanding"], flags].concat();
        with_object("clang-22", &flags, name, SOURCE, |path, object| {
            let (plain, with) = (path.to_str().unwrap(), format!("{}.with.o", path.display()));
            let embedded = round_trip(&object);
            std::fs::write(&with, &embedded).unwrap();
            check(plain, &with, &embedded);
        });
    }
}

/// Embeds, reads back, embeds another in its place and the first one again.
fn round_trip(object: &[u8]) -> Vec<u8> {
    assert_eq!(read_record(object), Err(RecordError::Absent));
    let with = embed(object, &record()).unwrap();
    assert_eq!(read_record(&with), Ok(record()));
    assert_eq!(verdict(&with, &full()), Ok(Verdict::Fresh));
    let replaced = embed(&with, &other_record()).unwrap();
    assert_eq!((read_record(&replaced), is_untouched(&replaced)), (Ok(other_record()), Ok(true)));
    if !with.starts_with(b"\x7fELF") {
        assert!(replaced == embed(object, &other_record()).unwrap(), "nothing is left of the first");
        assert!(with == embed(&replaced, &record()).unwrap());
    }
    with
}

fn text(out: Option<Vec<u8>>) -> String {
    String::from_utf8(out.unwrap_or_default()).unwrap()
}

/// What llvm-objdump shows of an object but for the section of the record: headers, contents, symbols and
/// relocations. `skip` is the section's name.
fn dump(path: &str, skip: &str) -> String {
    let headers = text(tool("llvm-objdump-22", &["-h", path]));
    let rest = text(tool("llvm-objdump-22", &["-s", "-r", "-t", path]));
    let mut kept: Vec<&str> = headers.lines().filter(|line| !line.contains(skip)).collect();
    let mut skipping = false;
    for line in rest.lines() {
        if line.starts_with("Contents of section") || !line.starts_with(' ') {
            skipping = line.starts_with("Contents of section") && line.contains(skip);
        }
        if !skipping {
            kept.push(line);
        }
    }
    kept.retain(|line| !line.contains("file format"));
    kept.join("\n")
}

/// All other tools accept the object, see in it what was in it before, and copy it with its record.
fn tools_are_content(plain: &str, with: &str, section: &str) {
    assert_eq!(dump(with, section), dump(plain, section), "{with}");
    for arguments in [
        &["--headers", "--sections", "--symbols", "--relocations", "--section-data"][..],
        &["--section-relocations", "--unwind"],
    ] {
        tool("llvm-readobj-22", &[arguments, &[with]].concat());
    }
    let names = |path| text(tool("llvm-nm-22", &[path]));
    assert_eq!(names(with), names(plain));

    let copy = format!("{with}.copy.o");
    for arguments in [&[][..], &["--strip-debug"]] {
        if tool("llvm-objcopy-22", &[arguments, &[with, &copy]].concat()).is_none() {
            return;
        }
        let copied = std::fs::read(&copy).unwrap();
        assert_eq!(read_record(&copied), Ok(record()), "{with}: llvm-objcopy {arguments:?}");
        // It lays the file out anew, as strip does, so this is for the reader's information only.
        let again = embed(&copied, &other_record()).unwrap();
        assert_eq!((read_record(&again), is_untouched(&again)), (Ok(other_record()), Ok(true)));
        std::fs::write(format!("{with}.again.o"), again).unwrap();
        assert_eq!(dump(&format!("{with}.again.o"), section), dump(&copy, section), "{copy}");
    }
}

/// Links both alone and in the same place, and compares what was linked, all of it.
fn links_alike(plain: &str, with: &str, link: impl Fn(&str) -> Option<()>) -> Option<()> {
    let linked = |path: &str| {
        // The same name for both, since linkers keep names.
        let input = format!("{plain}.input.o");
        std::fs::copy(path, &input).unwrap();
        link(&input)?;
        Some(std::fs::read(format!("{input}.linked")).unwrap())
    };
    let (before, after) = (linked(plain)?, linked(with)?);
    assert!(before == after, "{with}: it links to {} and {} bytes", before.len(), after.len());
    assert!(!after.windows(16).any(|bytes| bytes == b"objcache-record:"), "{with}: the record was linked");
    Some(())
}

#[test]
fn mach_o_objects_carry_a_record_that_linkers_leave_out() {
    for target in MACHO {
        each_object(target, "macho.c", |plain, with, _| {
            tools_are_content(plain, with, "__objcache");
            links_alike(plain, with, |input| {
                let arch = target.split('-').next().unwrap();
                let output = format!("{input}.linked");
                let arguments = ["-arch", arch, "-platform_version", "macos", "13.0", "13.0", "-dylib"];
                let more = ["-undefined", "dynamic_lookup", "-no_adhoc_codesign", "-o", &output, input];
                // A dylib with a debug map has the time of its objects in it.
                tool("ld64.lld-22", &[&arguments[..], &more, &["-S", "-no_uuid"]].concat()).map(drop)
            });
        });
    }
}

#[test]
fn coff_objects_carry_a_record_that_linkers_leave_out() {
    for target in COFF {
        each_object(target, "coff.c", |plain, with, _| {
            tools_are_content(plain, with, ".comment");
            links_alike(plain, with, |input| link_coff(target, input));
        });
    }
}

fn link_coff(target: &str, input: &str) -> Option<()> {
    let out = format!("/out:{input}.linked");
    let pdb = format!("/pdb:{input}.pdb");
    let options = ["/dll", "/noentry", "/nodefaultlib", "/force:unresolved", "/debug:full", "/brepro"];
    let machine = match target.split('-').next().unwrap() {
        "x86_64" => "/machine:x64",
        "aarch64" => "/machine:arm64",
        _ => "/machine:x86",
    };
    tool("lld-link-22", &[&options[..], &[machine, &out, &pdb, "/safeseh:no", input]].concat()).map(drop)
}

#[test]
fn coff_objects_of_gnu_and_of_bigobj_form_carry_a_record() {
    for (machine, flags, assembler) in
        [("x86_64", &["-O2"][..], &[][..]), ("x86_64", &["-O1"], &["-mbig-obj"]), ("i686", &["-Os"], &[])]
    {
        with_gnu_object(machine, flags, assembler, SOURCE, |path, object| {
            let (plain, with) = (path.to_str().unwrap(), format!("{}.with.o", path.display()));
            assert_eq!(object.starts_with(&[0, 0, 0xff, 0xff]), assembler.contains(&"-mbig-obj"));
            std::fs::write(&with, round_trip(&object)).unwrap();
            assert_eq!(dump(&with, ".comment"), dump(plain, ".comment"));
            let gnu = |name: &str| format!("{machine}-w64-mingw32-{name}");
            links_alike(plain, &with, |input| {
                let output = format!("{input}.linked");
                let options = ["-shared", "--no-insert-timestamp", "--image-base=0x10000000", "-s"];
                let external = ["--defsym=ext=0x10000000", "--defsym=_ext=0x10000000", "-o", &output, input];
                tool(&gnu("ld"), &[&options[..], &external].concat()).map(drop)
            });
            links_alike(plain, &with, |input| link_coff(machine, input));

            let copy = format!("{with}.copy.o");
            if tool(&gnu("objcopy"), &["--strip-debug", &with, &copy]).is_some() {
                let copied = std::fs::read(&copy).unwrap();
                assert_eq!(read_record(&copied), Ok(record()), "{machine} {flags:?}");
                assert_eq!(read_record(&embed(&copied, &other_record()).unwrap()), Ok(other_record()));
            }
        });
    }
}

#[test]
fn elf_objects_of_every_class_link_as_before() {
    for (target, emulation) in ELF {
        each_object(target, "elf.c", |plain, with, _| {
            assert_eq!(dump(with, ".comment"), dump(plain, ".comment"), "{with}");
            let link = |input: &str| {
                let output = format!("{input}.linked");
                let options = ["-shared", "-z", "notext", "-Bsymbolic", "--build-id=none"];
                tool("ld.lld-22", &[&options[..], &["-m", emulation, "-o", &output, input]].concat())?;
                // The record is linked, as every string of `.comment` is.
                tool("llvm-objcopy-22", &["--remove-section=.comment", &output]).map(drop)
            };
            links_alike(plain, with, link);
        });
    }
}

/// Compiles for Windows and assembles with GNU's assembler, which is the one that can be asked for `/bigobj`.
fn with_gnu_object(
    machine: &str,
    flags: &[&str],
    assembler: &[&str],
    source: &str,
    check: impl FnOnce(&Path, Vec<u8>),
) {
    let target = format!("{machine}-w64-windows-gnu");
    let name = format!("gnu{}{}.c", source.len(), assembler.concat());
    // GNU's assembler of today knows not all that clang says of unwinding.
    let flags = [&["-target", &target, "-fno-asynchronous-unwind-tables"], flags].concat();
    with_object("clang-22", &flags, &name, source, |path, _| {
        let from = path.with_file_name(&name);
        let (input, to) = (format!("{}.s", path.display()), format!("{}.gnu.o", path.display()));
        let assembly = ["-fno-addrsig", "-S", "-o", &input, from.to_str().unwrap()];
        tool("clang-22", &[&flags[..], &assembly].concat());
        let assembled =
            tool(&format!("{machine}-w64-mingw32-as"), &[assembler, &["-o", &to, &input]].concat());
        if assembled.is_some() {
            check(Path::new(&to), std::fs::read(&to).unwrap());
        }
    });
}

/// One small object of each form, for what is done to every byte.
fn small(check: impl Fn(&str, &[u8])) {
    let targets = [
        "x86_64-linux-gnu",
        "armv7-linux-gnueabihf",
        "s390x-linux-gnu",
        MACHO[0],
        MACHO[1],
        COFF[0],
        COFF[2],
    ];
    let source = "int g; int f(int x) { return x + g; }";
    // The 32-bit form of Mach-O has other fields.
    for target in targets.into_iter().chain(["i386-apple-darwin"]) {
        let arguments = ["-target", target, "-O1", "-fno-asynchronous-unwind-tables"];
        with_object("clang-22", &arguments, "small.c", source, |_, object| check(target, &object));
    }
    with_gnu_object("x86_64", &["-O1"], &["-mbig-obj"], source, |_, object| check("bigobj", &object));
}

#[test]
fn a_change_of_any_byte_is_seen() {
    small(|target, object| {
        let sealed = round_trip(object);
        for at in 0..sealed.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = sealed.clone();
                changed[at] ^= change;
                if let Ok(found) = read_record(&changed) {
                    assert_eq!(found, record(), "{target}: byte {at:#x}");
                    let found = verdict(&changed, &full());
                    assert!(matches!(found, Ok(Verdict::Stale { .. })), "{target}: byte {at:#x}: {found:?}");
                }
            }
        }
    });
}

#[test]
fn a_broken_object_of_any_format_is_refused_or_taken_whole() {
    small(|target, object| {
        let sealed = embed(object, &record()).unwrap();
        // What becomes of damage in the record itself is another test's business.
        let start = sealed.windows(16).position(|bytes| bytes == b"objcache-record:").unwrap();
        let end = start + sealed[start..].iter().position(|&byte| byte == 0).unwrap();
        for (whole, left_out) in [(object, 0..0), (&sealed, start + 16..end)] {
            for at in (0..whole.len()).filter(|at| !left_out.contains(at)) {
                try_all(target, &whole[..at]);
                for value in [0x00, 0xff, whole[at].wrapping_add(1)] {
                    let mut broken = whole.to_vec();
                    broken[at] = value;
                    try_all(target, &broken);
                }
            }
        }
    });
}

/// Whatever the object is, what comes out of `embed` has the record, and it is whole.
fn try_all(target: &str, object: &[u8]) {
    let _ = (read_record(object), is_untouched(object), verdict(object, &full()));
    if let Ok(with) = embed(object, &other_record()) {
        assert_eq!(read_record(&with), Ok(other_record()), "{target}");
        assert_eq!(is_untouched(&with), Ok(true), "{target}");
    }
}

#[test]
fn what_is_no_relocatable_object_is_refused() {
    let refused = |object: &[u8]| match embed(object, &record()) {
        Err(RecordError::UnsupportedFormat(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(b""), "not an object file");
    assert_eq!(refused(b"!<arch>\n"), "not an object file");
    assert_eq!(refused(b"MZ\x90\0"), "a linked PE file");
    assert_eq!(refused(b"\xfe\xed\xfa\xcf\x01\0\0\x12"), "a big-endian Mach-O file");
    assert_eq!(refused(b"\xca\xfe\xba\xbe\0\0\0\x02"), "a Mach-O file for several architectures");
    assert!(refused(b"\0\0\xff\xff\0\0\x64\x86").contains("import library"));
    with_object("clang-22", &["-target", MACHO[0]], "refused.c", SOURCE, |_, mut object| {
        object[12] = 6; // MH_DYLIB
        assert_eq!(refused(&object), "a linked Mach-O file");
    });
}

fn write(object: &mut [u8], at: usize, values: &[u8]) {
    for (place, value) in object.iter_mut().skip(at).zip(values) {
        *place = *value;
    }
}

#[test]
fn random_damage_in_many_places_does_no_harm() {
    small(|target, object| {
        let sealed = embed(object, &record()).unwrap();
        let places = 0..sealed.len();
        // Most of what decides stands in front.
        let place = prop_oneof![0..256.min(sealed.len()), places];
        let number = prop_oneof![any::<u32>(), 0..64u32, Just(u32::MAX), Just(0x7fff_ffff), 0..0x2000u32];
        let damage = prop::collection::vec((place, number), 1..6);
        proptest!(ProptestConfig::with_cases(600), |(damage in damage)| {
            let mut broken = sealed.clone();
            for (at, number) in damage {
                write(&mut broken, at & !3, &number.to_le_bytes());
            }
            try_all(target, &broken);
        });
    });
}

/// A tool of the system the object is for reads it, where there is one; here llvm-otool, which prints strings.
#[test]
fn the_record_can_be_looked_at_with_other_tools() {
    let shown = |target: &str, program: &str, arguments: &[&str]| {
        with_object("clang-22", &["-target", target], "shown.c", SOURCE, |path, object| {
            std::fs::write(path, embed(&object, &record()).unwrap()).unwrap();
            let path: &Path = path;
            let out = tool(program, &[arguments, &[path.to_str().unwrap()]].concat());
            assert!(out.is_none_or(|out| String::from_utf8_lossy(&out).contains("objcache-record:1:")));
        });
    };
    shown(COFF[0], "llvm-readobj-22", &["--string-dump=.comment"]);
    shown(MACHO[1], "llvm-readobj-22", &["--string-dump=__objcache"]);
    shown(ELF[0].0, "llvm-readelf-22", &["--string-dump=.comment"]);
}
