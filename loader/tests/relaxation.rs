//! Accesses through the GOT that become direct ones must be those that `ld.lld` changes, and must become the same bytes.
//!
//! One section holds every instruction that the assembler marks, with all registers. Its target stands where the distance
//! from the first instructions is in reach and that from the last is not, or the other way round.

mod support;

use std::fmt::Write;
use std::process::Command;
use std::sync::Arc;

use objcache_loader::{FixedMemory, Loader, Segment, from_fn};
use object::{Object as _, ObjectSection as _};
use support::*;

/// The instructions that the assembler marks, and some that look like them.
fn instructions() -> String {
    const OPERATIONS: [&str; 9] = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "mov"];
    let long = (0..16).map(|number| match number {
        0..8 => ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"][number].to_owned(),
        _ => format!("r{number}"),
    });
    let mut text = String::from(".text\n.globl target\nstart:\n");
    for register in long {
        for operation in OPERATIONS {
            writeln!(text, "{operation} target@GOTPCREL(%rip), %{register}").unwrap();
        }
        writeln!(text, "test %{register}, target@GOTPCREL(%rip)").unwrap();
    }
    for register in ["r16", "r20", "r31"] {
        for operation in OPERATIONS {
            writeln!(text, "{operation} target@GOTPCREL(%rip), %{register}").unwrap();
        }
        writeln!(text, "test %{register}, target@GOTPCREL(%rip)").unwrap();
    }
    for register in ["eax", "edi", "r8d", "r15d"] {
        for operation in ["mov", "add", "cmp"] {
            writeln!(text, "{operation} target@GOTPCREL(%rip), %{register}").unwrap();
        }
    }
    for _ in 0..4 {
        text += "call *target@GOTPCREL(%rip)\njmp *target@GOTPCREL(%rip)\npush target@GOTPCREL(%rip)\n";
        text += "movq target@GOTPCREL+4(%rip), %rax\n";
    }
    text + ".section .target,\"aw\",@nobits\n.space 64\ntarget: .space 64\n"
}

/// What the linker makes of `.text`.
fn lld(object: &[u8], [text, got, target]: [u64; 3], what: &str) -> Vec<u8> {
    let [input, commands, output] = ["o", "ld", "elf"].map(|suffix| scratch(&format!("{what}.{suffix}")));
    std::fs::write(&input, object).unwrap();
    let script = format!(
        "SECTIONS {{ .got {got:#x} : {{ *(.got) }} .text {text:#x} : {{ *(.text) }} .target {target:#x} : {{ *(.target) }} }}"
    );
    std::fs::write(&commands, script).unwrap();
    let flags = "-static --no-gc-sections --build-id=none -z norelro --no-check-sections -e 0";
    let mut command = Command::new(LLD);
    command.args(flags.split(' ')).arg("-T").args([&commands, &input]).arg("-o").arg(&output);
    let result = command.output().unwrap();
    assert!(result.status.success(), "{what}: {}", String::from_utf8_lossy(&result.stderr));
    let bytes = std::fs::read(&output).unwrap();
    for path in [input, commands, output] {
        std::fs::remove_file(path).unwrap();
    }
    let file = object::File::parse(&bytes[..]).unwrap();
    file.section_by_name(".text").unwrap().data().unwrap().to_vec()
}

fn ours(object: &[u8], [text, got, target]: [u64; 3]) -> Vec<u8> {
    let memory = FixedMemory::placed(text, move |name: &[u8], _| match name {
        b".got" => Some(got),
        b".target" => Some(target),
        _ => Some(text),
    });
    let loader = Loader::builder().memory(Arc::new(memory)).relax(true).build();
    let image = loader.load(object, &from_fn(|_| None)).unwrap_or_else(|error| panic!("{error}"));
    image.linked_bytes(Segment::Code).unwrap().to_vec()
}

#[test]
fn got_accesses_of_x86_64_are_relaxed_as_lld_does() {
    if !has(LLD) || !has(CLANG) {
        return;
    }
    let object = compile_text(CLANG, &["--target=x86_64-linux-gnu", "-mapxf"], "s", &instructions());
    let plain = Loader::builder().memory(Arc::new(FixedMemory::at(0x1_0000_0000))).build();
    let size =
        plain.load(&object, &from_fn(|_| None)).unwrap().linked_bytes(Segment::Code).unwrap().len() as u64;
    let (low, high) = (0x1000_0000u64, 0x5555_0000_0000u64);
    let reach = 1u64 << 31;
    let mut texts = Vec::new();
    for (number, (text, target)) in [
        (low, low + 0x10_0000),
        (low, reach - 0x1000),
        // The last address that is a constant of 32 bits, and the first that is none.
        (low, reach - 65),
        (low, reach - 64),
        (low, low + reach + size / 2),
        (high, high + 0x10_0000),
        (high, high + reach + size / 2 - 64),
        (high, high + size / 2 - reach - 64),
        (high, 0x20_0000),
    ]
    .into_iter()
    .enumerate()
    {
        let places = [text, text - 0x10_0000, target];
        let what = format!("relaxation{number}");
        let (theirs, ours) = (lld(&object, places, &what), ours(&object, places));
        if let Some(at) = (0..theirs.len()).find(|at| theirs[*at] != ours[*at]) {
            let near = at.saturating_sub(8)..(at + 8).min(theirs.len());
            panic!(
                "{places:x?}: differs at {at:#x}: {:02x?} by lld, {:02x?} by the loader",
                &theirs[near.clone()],
                &ours[near]
            );
        }
        assert_eq!(theirs.len(), ours.len());
        texts.push(ours);
    }
    texts.dedup();
    assert_eq!(texts.len(), 9, "each has an outcome of its own");
}

/// Pairs of instructions that load an address, with every register, and some that are no such pair.
fn aarch64_instructions() -> String {
    let mut text = String::from(".text\n.globl target\nstart:\n");
    for register in 0..31 {
        writeln!(text, "adrp x{register}, :got:target\nldr x{register}, [x{register}, :got_lo12:target]")
            .unwrap();
    }
    text += "adrp x1, :got:target\nldr x2, [x1, :got_lo12:target]\n";
    text += "adrp x2, :got:target\nldr x2, [x1, :got_lo12:target]\n";
    text += "adrp x3, :got:target\nnop\nldr x3, [x3, :got_lo12:target]\n";
    text += "adrp x4, :got:target\nldr x4, [x4, :got_lo12:other]\n";
    text += "adrp x5, :got:other\nldr x5, [x5, :got_lo12:other]\nldr x5, start\n";
    text + ".section .target,\"aw\",@nobits\n.space 64\n.globl other\nother: .space 4\ntarget: .space 60\n"
}

/// A page that serves two loads: nothing of the section may be changed, since one might be missed.
fn aarch64_shared_page() -> String {
    aarch64_instructions().replace(
        "start:\n",
        "start:\nadrp x7, :got:target\nldr x8, [x7, :got_lo12:target]\nldr x7, [x7, :got_lo12:target]\n",
    )
}

#[test]
fn got_accesses_of_aarch64_are_relaxed_as_lld_does() {
    if !has(LLD) || !has(CLANG) {
        return;
    }
    let compile = |text: &str| compile_text(CLANG, &["--target=aarch64-linux-gnu"], "s", text);
    let object = compile(&aarch64_instructions());
    let (low, high) = (0x4000_0000u64, 0x5555_0000_0000u64);
    let (near, far) = (1u64 << 20, 1u64 << 32);
    let mut texts = Vec::new();
    for (number, (text, target)) in [
        (low, low + 0x10_000),
        // Some of the pairs reach with ADR, some do not.
        (high, high + near),
        (high, high - near),
        (high, high + 0x1000_0000),
        // The last page that ADRP reaches, and the first that it does not.
        (high, high + far - 0x1000),
        (high, high + far),
        (high, high - far),
        (high, high - far - 0x1000),
        (high, low),
    ]
    .into_iter()
    .enumerate()
    {
        let places = [text, text - 0x10_000, target];
        let theirs = lld(&object, places, &format!("relaxation-aarch64-{number}"));
        assert!(theirs == ours(&object, places), "{places:x?}");
        texts.push(theirs);
    }
    texts.dedup();
    assert_eq!(texts.len(), 8, "all but the last two have an outcome of their own");
    let object = compile(&aarch64_shared_page());
    let places = [high, high - 0x10_000, high + 0x10_000];
    assert!(lld(&object, places, "relaxation-aarch64-shared") == ours(&object, places));
}
