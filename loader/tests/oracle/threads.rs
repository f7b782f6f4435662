//! Thread-local variables of a program: the distances from the thread pointer that are in the code, local-exec, must be
//! those that `ld.lld` computes, on every machine and for every alignment.

use crate::corpus::{Model, TOOLCHAINS};
use crate::machine::Machine;
use crate::support::{LLD, Random, compile_text, has};
use crate::whole::compare_object;

/// With content and without, of several alignments.
const SOURCE: &str = "
    __thread int first = 5;
    static __thread long zero;
    __thread char text[37] = \"hello\";
    __thread _Alignas(ALIGN) int aligned;
    static __thread short small = 3;
    __thread char large[5000];
    int *address(void) { return &first; }
    long count(void) { return zero++; }
    char *element(int i) { return &text[i]; }
    int *of_aligned(void) { return &aligned; }
    int add(void) { return small += 2; }
    char far_away(void) { return large[4321]; }
";

pub fn compare(machine: &'static Machine) {
    if !has(LLD) {
        return;
    }
    let mut random = Random(machine.name.bytes().fold(11, |seed, byte| seed * 31 + u64::from(byte)));
    let mut links = 0;
    for toolchain in TOOLCHAINS.iter().filter(|toolchain| toolchain.machine == machine.name) {
        if !has(toolchain.c) {
            continue;
        }
        for level in ["-O0", "-O2"] {
            for align in ["-DALIGN=4", "-DALIGN=64", "-DALIGN=1024"] {
                let model = ["-fno-pic", "-ftls-model=local-exec", "-ffreestanding", level, align];
                let no_tables = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
                let flags = [toolchain.flags, &model, &no_tables].concat();
                let object = compile_text(toolchain.c, &flags, "c", SOURCE);
                let what = format!("{} {}", toolchain.c, flags.join(" "));
                let low = Model { flags: &[], is_low: true, is_tiny: false };
                let compared = compare_object(machine, &what, &low, &object, false, &mut random);
                assert!(compared.sections >= 2, "{what}");
                links += 1;
            }
        }
    }
    eprintln!("{}: {links} links with thread-local variables", machine.name);
}
