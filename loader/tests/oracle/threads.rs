//! Thread-local variables of a program: every way to reach them that compilers know becomes, or stays, what `ld.lld` makes
//! of it, on every machine; and the distances from the thread pointer are those that it computes, for every alignment.

use std::collections::BTreeSet;

use objcache_loader::{FixedMemory, InputObject, LinkMap, LoadError, Loader, PhonySymbols};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

use crate::corpus::{Model, TOOLCHAINS, Toolchain};
use crate::machine::Machine;
use crate::support::{CLANG, LLD, Random, compile, compile_text, coverage, fixture, has, relocation_kinds};
use crate::whole::{Compared, compare_objects};

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

const WEAK: &str = "
    extern __attribute__((weak)) __thread int absent;
    __thread int present = 1;
    int *where(int n) { return n ? &absent : &present; }
";

/// How the variables of `tls.c` are reached, besides in every code model.
const ACCESSES: &[&[&str]] = &[
    &["-fPIC", "-O0"],
    &["-fPIC", "-O2", "-ftls-model=local-dynamic"],
    &["-fPIC", "-O1", "-ftls-model=initial-exec"],
    &["-fno-pic", "-O2", "-ftls-model=initial-exec"],
];
/// The other dialect than the default one, where there are two; `-fno-plt` calls `__tls_get_addr` through the GOT.
const DIALECTS: &[(&str, &[&[&str]])] = &[
    (
        "x86_64",
        &[
            &["-fPIC", "-O2", "-mtls-dialect=gnu2"],
            &["-fPIC", "-O2", "-mtls-dialect=gnu2", "-ftls-model=local-dynamic"],
            &["-fPIC", "-O2", "-fno-plt"],
            &["-fPIC", "-O2", "-fno-plt", "-ftls-model=local-dynamic"],
            &["-fPIC", "-O2", "-ftls-model=initial-exec", "-mapxf"],
        ],
    ),
    (
        "i386",
        &[
            // Of descriptors lld takes no register but %eax.
            &["-fPIC", "-O2", "-mtls-dialect=gnu2", "-DNO_LOOP"],
            &["-fPIC", "-O2", "-mtls-dialect=gnu2", "-ftls-model=local-dynamic", "-DNO_LOOP"],
            &["-fPIC", "-O2", "-fno-plt"],
            &["-fPIC", "-O2", "-fno-plt", "-ftls-model=local-dynamic"],
        ],
    ),
    ("riscv64", DESCRIPTORS),
    ("riscv32", DESCRIPTORS),
    ("loongarch64", DESCRIPTORS),
];
/// Only clang has these.
const OF_CLANG: [&str; 2] = ["-mtls-dialect=desc", "-mapxf"];
const DESCRIPTORS: &[&[&str]] =
    &[&["-fPIC", "-O2", "-mtls-dialect=desc"], &["-fPIC", "-O0", "-mtls-dialect=desc"]];
/// Of `tls.cpp`.
const OF_CPP: &[&[&str]] =
    &[&["-fPIC", "-O2"], &["-fPIC", "-O0", "-ftls-model=local-dynamic"], &["-fPIE", "-O2"]];
/// Unwind tables are for other tests.
const COMMON: &[&str] = &[
    "-w",
    "-ffreestanding",
    "-fdata-sections",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fno-exceptions",
];
/// The functions that dynamic accesses call.
const CALLED: [&str; 3] = ["__tls_get_addr", "___tls_get_addr", "__tls_get_offset"];

pub fn compare(machine: &'static Machine) {
    if !has(LLD) {
        return;
    }
    let mut random = Random(machine.name.bytes().fold(11, |seed, byte| seed * 31 + u64::from(byte)));
    let (mut links, mut without_got, mut kinds, mut all) = (0, 0, BTreeSet::new(), true);
    for toolchain in TOOLCHAINS.iter().filter(|toolchain| toolchain.machine == machine.name) {
        if !has(toolchain.c) || !has(toolchain.cpp) {
            all = false;
            continue;
        }
        for align in ["-DALIGN=4", "-DALIGN=64", "-DALIGN=1024"] {
            let model = ["-fno-pic", "-ftls-model=local-exec", "-O2", align];
            let flags = [toolchain.flags, &model, COMMON].concat();
            let object = compile_text(toolchain.c, &flags, "c", SOURCE);
            let compared = compare_link(
                machine,
                &format!("{} {}", toolchain.c, flags.join(" ")),
                &[&object],
                &mut random,
            );
            assert!(compared.sections >= 2);
            links += 1;
        }
        for level in ["-O0", "-O2"] {
            let flags = [toolchain.flags, COMMON, &["-fPIC", level]].concat();
            let object = compile_text(toolchain.c, &flags, "c", WEAK);
            compare_link(machine, &format!("{} weak", toolchain.c), &[&object], &mut random);
            links += 1;
        }
        let other = compile(toolchain.c, &[toolchain.flags, COMMON].concat(), &fixture("tls_other.c"));
        for (compiler, source, flags) in accesses(toolchain) {
            let flags = [toolchain.flags, COMMON, &flags].concat();
            let what = format!("{compiler} {} {source}", flags.join(" "));
            let object = compile(compiler, &flags, &fixture(source));
            let compared = compare_link(machine, &what, &[&object, &other], &mut random);
            links += 1;
            without_got += usize::from(compared.without_got);
            kinds.extend(relocation_kinds(&object));
        }
    }
    eprintln!(
        "{}: {links} links with thread-local variables, {without_got} of dynamic accesses without a GOT",
        machine.name
    );
    if all {
        let kinds = coverage::names("elf", machine.architecture(), kinds);
        let of_threads =
            |name: &String| ["TLS", "TPOFF", "DTP", "TPREL"].iter().any(|part| name.contains(part));
        let kinds = kinds.into_iter().filter(of_threads).collect();
        coverage::keep_at_least("compared-threads", "elf", machine.architecture(), &kinds);
    }
}

fn accesses(toolchain: &Toolchain) -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let dialects = DIALECTS.iter().filter(|(machine, _)| *machine == toolchain.machine);
    let is_new = toolchain.c == CLANG;
    let dialects = dialects.flat_map(|(_, dialects)| dialects.iter());
    let dialects = dialects.filter(|flags| is_new || !flags.iter().any(|flag| OF_CLANG.contains(flag)));
    let of_c = ACCESSES.iter().chain(dialects).map(|flags| (toolchain.c, "tls.c", flags.to_vec()));
    let of_cpp = OF_CPP.iter().map(|flags| (toolchain.cpp, "tls.cpp", flags.to_vec()));
    let models = toolchain.models.iter().filter(|model| !is_beyond(toolchain, model));
    let models = models.map(|model| (toolchain.c, "tls.c", [model.flags, &["-O2"]].concat()));
    of_c.chain(of_cpp).chain(models).collect()
}

/// What was rewritten has no GOT entry, and calls nothing.
fn compare_link(machine: &Machine, what: &str, objects: &[&[u8]], random: &mut Random) -> Compared {
    let low = Model { flags: &[], is_low: true, is_tiny: false };
    let compared = compare_objects(machine, what, &low, objects, false, random);
    if compared.without_got {
        for (object, file) in objects.iter().zip(&compared.map.files) {
            let object = object::File::parse(*object).unwrap();
            let slot = file.got.iter().find(|slot| {
                let named = object.symbols().find(|symbol| symbol.name() == Ok(&slot.target));
                named.is_none_or(|symbol| symbol.kind() == SymbolKind::Tls)
            });
            assert!(slot.is_none(), "{what}: lld has no GOT entry, we have {slot:?}");
        }
        let called = compared.map.absolute.iter().find(|(name, _)| CALLED.contains(&name.as_str()));
        assert!(called.is_none(), "{what}: nothing calls {called:?}");
    }
    compared
}

/// Links one object as a program, whatever its code refers to.
fn link(object: &[u8]) -> Result<LinkMap, LoadError> {
    let memory = FixedMemory::at(0x40_0000);
    let loader = Loader::builder().memory(std::sync::Arc::new(memory)).build();
    let resolver = PhonySymbols::below(0x40_0000);
    let program = InputObject { name: "program", bytes: object };
    Ok(loader.load_all(&[program], &resolver)?.1)
}

/// Accesses that the ABI does not have keep their GOT entries, of which a program has all but descriptors.
#[test]
fn other_accesses_stay_or_are_refused() {
    if !has(CLANG) {
        return;
    }
    let assemble = |code: &str| {
        let text = format!("{code}\n.section .tdata,\"awT\",@progbits\nx: .quad 5");
        compile_text(CLANG, &["--target=x86_64-linux-gnu"], "s", &text)
    };
    let known = "movq x@gottpoff(%rip), %rax";
    assert_eq!(link(&assemble(known)).unwrap().files[0].got.len(), 0);
    let compared = "cmpq x@gottpoff(%rip), %rax";
    assert_eq!(link(&assemble(compared)).unwrap().files[0].got.len(), 1);
    // One such access, and no other of its model in the object is rewritten.
    assert_eq!(link(&assemble(&format!("{known}\n{compared}"))).unwrap().files[0].got.len(), 1);
    let without_prefix = "leaq x@tlsgd(%rip), %rdi\ncall __tls_get_addr@plt";
    let map = link(&assemble(without_prefix)).unwrap();
    assert_eq!((map.files[0].got[0].target.as_str(), map.files[0].got[0].size), ("x", 16));
    assert!(map.absolute.iter().any(|(name, _)| name == "__tls_get_addr"));
    let error = link(&assemble("movq x@tlsdesc(%rip), %rax\ncall *x@tlscall(%rax)")).unwrap_err();
    assert!(error.to_string().contains("a thread-local descriptor without a dynamic linker"), "{error}");
}

/// What C compilers make for the large code model calls `__tls_get_addr` by an address of 64 bits: it stays.
#[test]
fn the_large_code_model_calls_the_resolvers_function() {
    if !has("gcc") {
        return;
    }
    let flags = ["-fPIC", "-mcmodel=large", "-O1"];
    let object = compile_text("gcc", &flags, "c", "__thread int x = 1; int *address(void) { return &x; }");
    let map = link(&object).unwrap();
    assert!(map.absolute.iter().any(|(name, _)| name == "__tls_get_addr"), "{map:?}");
}

/// What of the code models there is nothing to compare with.
fn is_beyond(toolchain: &Toolchain, model: &Model) -> bool {
    let is_clang = toolchain.c == CLANG;
    match (toolchain.machine, model.flags) {
        // Clang has no thread-local variables in the one, and lld does not know TLSIE_LD_GOTTPREL_PREL19 of the other.
        ("aarch64", ["-fno-pic", "-mcmodel=large"]) => is_clang,
        ("aarch64", ["-fno-pic", "-mcmodel=tiny"]) => true,
        // lld crashes on GOT_TLSLD16.
        ("powerpc64le", ["-fPIC", "-mcmodel=small"]) => !is_clang,
        // lld refuses the call of an address of 64 bits.
        ("x86_64", ["-fPIC", "-mcmodel=large"]) => !is_clang,
        // lld makes initial-exec entries that nothing refers to, for R_LARCH_GOT64_PC_LO20 of general-dynamic accesses.
        ("loongarch64", ["-fPIC", "-mcmodel=extreme"]) => true,
        _ => false,
    }
}
