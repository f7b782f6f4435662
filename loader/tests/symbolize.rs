//! Addresses to functions and lines: compared with what llvm-symbolizer says of the same object linked by ld.lld at the
//! same addresses, and asked through a real backtrace.

#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "symbolize"))]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use objcache_loader::{
    AbsoluteSymbols, EventListener, FixedMemory, ImageId, InputObject, LoadedImage, LoadedObject, Loader,
    NoSymbols, PhonySymbols, ProcessSymbols, Segment, SharedLibrary, SourceFrame, chain,
};
use parking_lot::Mutex;
use support::*;

const SYMBOLIZER: &str = "llvm-symbolizer-22";

/// Function, file, line and column, as llvm-symbolizer prints them.
type Frame = (String, String);

fn of_ours(frames: Vec<SourceFrame>) -> Vec<Frame> {
    let frame = |frame: SourceFrame| {
        let number = |number: Option<u32>| number.unwrap_or(0);
        let file = frame.file.as_deref().unwrap_or("??");
        let place = format!("{file}:{}:{}", number(frame.line), number(frame.column));
        (frame.function.unwrap_or("??".to_owned()), place)
    };
    frames.into_iter().map(frame).collect()
}

/// Asks llvm-symbolizer.
fn theirs(program: &Path, addresses: &[u64]) -> Vec<Vec<Frame>> {
    let mut command = Command::new(SYMBOLIZER);
    command.args(["--no-demangle", "--inlines", "--output-style=LLVM", "--obj"]).arg(program);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let questions = addresses.iter().fold(String::new(), |mut text, address| {
        writeln!(text, "{address:#x}").unwrap();
        text
    });
    let writer = std::thread::spawn(move || stdin.write_all(questions.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = |block: &str| {
        let lines: Vec<&str> = block.lines().collect();
        lines.chunks(2).map(|frame| (frame[0].to_owned(), normal(frame[1]))).collect()
    };
    let is_known = |frames: &Vec<Frame>| frames.iter().any(|(name, _)| name != "??");
    let known = |block| Some(answer(block)).filter(is_known).unwrap_or_default();
    text.trim_end().split("\n\n").map(known).collect()
}

/// A column of no line is none.
fn normal(place: &str) -> String {
    let (line, _column) = place.rsplit_once(':').unwrap();
    if line.ends_with(":0") { format!("{line}:0") } else { place.to_owned() }
}

/// Where there is no debug information, llvm-symbolizer takes the file for which the symbol table has a symbol.
fn without_guess(mut theirs: Vec<Frame>, ours: &[Frame]) -> Vec<Frame> {
    if let ([(_, guess)], [(_, ours)]) = (&mut theirs[..], ours) {
        if ours == "??:0:0" && guess.ends_with(":0:0") {
            guess.clone_from(ours);
        }
    }
    theirs
}

/// Complete and base object constructors (and destructors) may be one function with two names.
fn one_of_aliases(frames: Vec<Frame>) -> Vec<Frame> {
    let rename = |name: String| name.replace("C1E", "C2E").replace("D1E", "D2E");
    frames.into_iter().map(|(name, place)| (rename(name), place)).collect()
}

/// Links the object with ld.lld so that each section is where ours is.
fn link_at(object: &Path, log: &SectionLog, program: &Path) {
    let mut script = "SECTIONS {\n".to_owned();
    let mut sections: Vec<_> = log.0.lock().iter().map(|it| (it.address, it.name.clone(), it.size)).collect();
    sections.sort();
    for (address, name, size) in sections.into_iter().filter(|section| section.2 != 0) {
        let _ = size;
        writeln!(script, "  \"{name}\" {address:#x} : {{ KEEP(*(\"{name}\")) }}").unwrap();
    }
    script.push_str("}\n");
    let file = program.with_extension("ld");
    std::fs::write(&file, script).unwrap();
    let arguments =
        ["-T", file.to_str().unwrap(), "--unresolved-symbols=ignore-all", "--no-gc-sections", "-e", "0"];
    let output = Command::new(LLD)
        .args(arguments)
        .args([
            "--no-relax",
            "--discard-locals",
            "--no-check-sections",
            "--noinhibit-exec",
            "-o",
            program.to_str().unwrap(),
            object.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Keeps the symbol file that debuggers are given.
#[derive(Default)]
struct SymbolFile(Mutex<Vec<u8>>);

impl EventListener for SymbolFile {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        *self.0.lock() = loaded.symbol_file().unwrap();
    }

    fn notify_freeing(&self, _image: ImageId) {}
}

/// llvm-dwarfdump finds nothing wrong with the symbol file.
fn verify(name: &str, object: &Path) {
    let path = object.with_extension("symbols");
    let output = Command::new("llvm-dwarfdump-22").arg("--verify").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name}: {said}");
}

/// How many addresses are in inlined functions, and what differs between our frames and theirs, over the object's code.
fn compare(name: &str, object: &Path) -> (usize, String) {
    let bytes = std::fs::read(object).unwrap();
    let log = Arc::new(SectionLog::default());
    let files = Arc::new(SymbolFile::default());
    let loader = Loader::builder()
        .memory(Arc::new(FixedMemory::at(0x1000_0000)))
        .listener(Arc::clone(&log) as _)
        .listener(Arc::clone(&files) as _)
        .keep_debug_info(true)
        .build();
    let image = loader
        .load(&bytes, &PhonySymbols::below(0x1000_0000))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    std::fs::write(object.with_extension("symbols"), &*files.0.lock()).unwrap();
    // On what gcc writes, linked by ld.lld or not, it takes longer than a test may.
    if !name.starts_with(GXX) {
        verify(name, object);
    }
    let program = object.with_extension("elf");
    link_at(object, &log, &program);
    let mut addresses = Vec::new();
    for section in log.0.lock().iter().filter(|section| section.segment == Segment::Code) {
        addresses.extend(section.address..section.address + section.size as u64);
    }
    // Of much code a part, not in step with instructions.
    let step = addresses.len().div_ceil(6000).max(1);
    let addresses: Vec<u64> = addresses.into_iter().step_by(step).collect();
    let expected = theirs(&program, &addresses);
    let in_symbol_file = theirs(&object.with_extension("symbols"), &addresses);
    for ((address, one), other) in addresses.iter().zip(&in_symbol_file).zip(&expected) {
        // Our file has no symbols for files, of which llvm-symbolizer would take a guess.
        let of = |frames: &[Frame]| {
            let frames = one_of_aliases(frames.to_vec()).into_iter();
            let known = |place: String| Some(place).filter(|place| !place.ends_with(":0:0"));
            frames.map(|(name, place)| (name, known(place))).collect::<Vec<_>>()
        };
        assert_eq!(of(one), of(other), "{name}: the symbol file at {address:#x}");
    }
    assert_eq!(expected.len(), addresses.len());
    let mut differences = String::new();
    let (mut different, mut inlined) = (0, 0);
    for (address, expected) in addresses.iter().zip(&expected) {
        let ours = one_of_aliases(of_ours(image.symbolize(*address).unwrap()));
        let expected = &one_of_aliases(without_guess(expected.clone(), &ours));
        inlined += usize::from(ours.len() > 1);
        if ours != *expected {
            different += 1;
            if different < 4 {
                writeln!(differences, "{address:#x}\n  ours   {ours:?}\n  theirs {expected:?}").unwrap();
            }
        }
    }
    eprintln!("{name}: {} addresses, {inlined} in inlined functions, {different} differ", addresses.len());
    (
        inlined,
        if different == 0 { String::new() } else { format!("{name}: {different} differ:\n{differences}") },
    )
}

#[test]
fn frames_are_those_of_llvm_symbolizer() {
    if !has(LLD) || !has(SYMBOLIZER) {
        return;
    }
    let (mut inlined, mut all_differences) = (0, String::new());
    for compiler in [CLANGXX, GXX].into_iter().filter(|compiler| has(compiler)) {
        for flags in [
            &["-O0", "-gdwarf-5"][..],
            &["-O1", "-gdwarf-4"],
            &["-O2", "-gdwarf-5"],
            &["-O2", "-gdwarf-4", "-ffunction-sections"],
            &["-O3", "-gdwarf-5", "-ffunction-sections", "-fdebug-types-section"],
        ] {
            let name = format!("{compiler} {flags:?}");
            let object =
                scratch(&format!("inlined{}.o", name.replace(|letter: char| !letter.is_alphanumeric(), "")));
            let flags = [flags, &["-fPIC", "-w"]].concat();
            std::fs::write(&object, compile(compiler, &flags, &fixture("inlined.cpp"))).unwrap();
            let (of_inlined, differences) = compare(&name, &object);
            inlined += of_inlined;
            all_differences.push_str(&differences);
        }
    }
    assert!(all_differences.is_empty(), "{all_differences}");
    assert!(inlined > 1000, "only {inlined} addresses are in inlined functions");
}

/// Machines of either class and byte order, with addends in the table and in the field.
#[test]
fn frames_of_other_machines_are_those_of_llvm_symbolizer() {
    if !has(LLD) || !has(SYMBOLIZER) || !has(CLANG) {
        return;
    }
    let source = "static inline int twice(int a) { return a + a; }\nstatic inline int most(int a, int b) {\n    \
                  return a > b ? twice(a) : b;\n}\nint away(int); int grid[9];\nint one(int a) {\n    int n = away(grid[a]);\n    \
                  return n + most(a, n);\n}\nint two(int a) {\n    int total = 0;\n    for (int i = 0; i < a; i++)\n        \
                  total += one(i) + twice(i);\n    return total;\n}\n";
    let mut all_differences = String::new();
    for target in ["aarch64", "i386", "armv7", "riscv64", "powerpc64le", "s390x", "loongarch64"] {
        for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
            let triple = format!("--target={target}-linux-gnu");
            let mut flags = vec![&*triple, "-O2", dwarf, "-ffreestanding", "-ffunction-sections"];
            if matches!(target, "riscv64" | "loongarch64") {
                flags.push("-mno-relax");
            }
            let object = scratch(&format!("{target}{dwarf}.o"));
            std::fs::write(&object, compile_text(CLANG, &flags, "c", source)).unwrap();
            let (inlined, differences) = compare(&format!("{target} {dwarf}"), &object);
            assert!(inlined > 10);
            all_differences.push_str(&differences);
        }
    }
    assert!(all_differences.is_empty(), "{all_differences}");
}

/// The frames of the backtrace that the host function took, from the inside out.
static BACKTRACE: Mutex<Vec<u64>> = Mutex::new(Vec::new());

extern "C" fn take_backtrace(value: i32) -> i32 {
    let mut frames = [std::ptr::null_mut(); 64];
    // SAFETY: the array has room for as many.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), frames.len() as i32) };
    *BACKTRACE.lock() = frames[..count as usize].iter().map(|frame| *frame as u64).collect();
    value
}

fn libstdcxx() -> Option<SharedLibrary> {
    // SAFETY: the C++ library's initialisers only set up its own streams and locales.
    let library = unsafe { SharedLibrary::open(c"libstdc++.so.6") }.ok();
    if library.is_none() {
        skip("there is no libstdc++.so.6");
    }
    library
}

#[test]
fn a_backtrace_through_loaded_code_is_symbolised() {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let text = std::fs::read_to_string(fixture("inlined.cpp")).unwrap();
    let line = |part: &str| text.lines().position(|line| line.contains(part)).unwrap() as u32 + 1;
    for compiler in [CLANGXX, GXX].into_iter().filter(|compiler| has(compiler)) {
        let Some(library) = libstdcxx() else { return };
        let object = compile(compiler, &["-O2", "-g", "-fPIC"], &fixture("inlined.cpp"));
        let host = AbsoluteSymbols::new().with("host_callback", take_backtrace as *const () as u64);
        let loader = Loader::builder().keep_debug_info(true).build();
        let image = loader.load(&object, &chain(host, chain(library, ProcessSymbols))).unwrap();
        assert_eq!(call_int(&image, "chain", &[5]), 14 + 7 + 3);
        let frames: Vec<SourceFrame> = BACKTRACE
            .lock()
            .iter()
            // A return address is behind its call.
            .flat_map(|address| image.symbolize(address - 1).unwrap())
            .collect();
        let found: Vec<_> = frames
            .iter()
            .map(|frame| (frame.function.as_deref().unwrap(), frame.line.unwrap(), frame.inlined))
            .collect();
        // gcc gives local functions no linkage name.
        let plain = ["deepest", "deeper", "deep"];
        let names = if compiler == GXX { plain } else { ["_ZL7deepesti", "_ZL6deeperi", "_ZL4deepi"] };
        let expected = [
            (names[0], line("return twice(value) + host_callback(value);"), true),
            (names[1], line("return deepest(value + 1) + 1;"), true),
            (names[2], line("return deeper(value + 1) + 1;"), true),
            ("chain", line("return deep(value) + 1;"), false),
        ];
        assert_eq!(found, expected, "{compiler}");
        assert!(frames.iter().all(|frame| frame.file.as_deref().unwrap().ends_with("/inlined.cpp")));
    }
}

const SIMPLE: &str = "static __attribute__((noinline)) int hidden(int a) { return a * 3 + 1; }\n\
                      int shown(int a) { return hidden(a) + hidden(a + 1); }\n";

fn symbol(image: &LoadedImage, name: &str) -> u64 {
    image.address(name).unwrap()
}

#[test]
fn without_debug_information_the_symbols_answer() {
    if !has(GCC) {
        return;
    }
    let object = compile_text(GCC, &["-O1", "-g0", "-fPIC", "-fno-ipa-sra", "-fno-ipa-cp"], "c", SIMPLE);
    let keeping = Loader::builder().keep_debug_info(true).build();
    for (loader, knows_local) in [(Loader::new(), false), (keeping, true)] {
        let image = loader.load(&object, &NoSymbols).unwrap();
        let shown = symbol(&image, "shown");
        let frames = image.symbolize(shown + 3).unwrap();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].to_string(), "shown+0x3");
        assert_eq!((frames[0].line, frames[0].inlined), (None, false));
        // The local function is in front.
        let frames = image.symbolize(shown - 1).unwrap();
        assert_eq!(frames.iter().any(|frame| frame.function.as_deref() == Some("hidden")), knows_local);
        for nowhere in [0, 1, u64::MAX, compressed_debug_information_is_refused_by_name as *const () as u64] {
            assert_eq!(image.symbolize(nowhere).unwrap(), [], "{nowhere:#x}");
        }
    }
}

#[test]
fn plain_loads_keep_nothing() {
    if !has(GCC) {
        return;
    }
    let plain = compile_text(GCC, &["-O1", "-g0", "-fPIC"], "c", SIMPLE);
    let debug = compile_text(GCC, &["-O1", "-g", "-fPIC"], "c", SIMPLE);
    let size = |loader: &Loader, object: &[u8]| loader.load(object, &NoSymbols).unwrap().bookkeeping_size();
    assert_eq!(size(&Loader::new(), &plain), size(&Loader::new(), &debug));
    let keeping = Loader::builder().keep_debug_info(true).build();
    assert!(size(&keeping, &debug) > size(&Loader::new(), &debug) + 200);
}

#[test]
fn each_of_several_objects_is_asked_for_its_own_code() {
    if !has(CLANG) {
        return;
    }
    let one =
        compile_text(CLANG, &["-O1", "-gdwarf-5", "-fPIC"], "c", "int one(int a) {\n  return a + 1;\n}\n");
    let two = compile_text(
        CLANG,
        &["-O1", "-gdwarf-4", "-fPIC"],
        "c",
        "\n\nint one(int);\nint two(int a) {\n  return one(a) * 2;\n}\n",
    );
    let inputs = [InputObject { name: "one.o", bytes: &one }, InputObject { name: "two.o", bytes: &two }];
    let (image, _) = Loader::builder().keep_debug_info(true).build().load_all(&inputs, &NoSymbols).unwrap();
    for (name, line) in [("one", 2), ("two", 4)] {
        let frames = image.symbolize(symbol(&image, name)).unwrap();
        assert_eq!((frames[0].function.as_deref(), frames[0].line), (Some(name), Some(line)));
    }
}

#[test]
fn compressed_debug_information_is_refused_by_name() {
    if !has(GCC) {
        return;
    }
    let object = compile_text(GCC, &["-O1", "-g", "-gz=zlib", "-fPIC"], "c", SIMPLE);
    let image = Loader::builder().keep_debug_info(true).build().load(&object, &NoSymbols).unwrap();
    let error = image.symbolize(symbol(&image, "shown")).unwrap_err().to_string();
    assert!(error.contains("compressed debug information"), "{error}");
}
