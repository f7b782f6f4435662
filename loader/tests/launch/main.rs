//! Code of other machines, run: the loader links an image on this one, a small launcher without any library puts it into
//! memory under qemu and calls it, and what it reports is what the same sources report when a linker we did not write
//! made a program of them.
//!
//! The launcher is linked at a low fixed address, and images refer to its functions and data by name. Images are linked
//! near it and far from it, so that calls go directly and through stubs.

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use objcache_loader::{FixedMemory, InputObject, LinkMap, LoadedImage, Loader, Segment, from_fn};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use support::*;

/// A machine and how its code is made and run.
struct Machine {
    /// As the loader calls it.
    name: &'static str,
    /// Of its compiler, always.
    flags: &'static [&'static str],
    /// What runs its programs; none: this machine does.
    emulator: Option<&'static str>,
    /// Code models with the addresses at which they are tried.
    models: &'static [(&'static [&'static str], &'static [u64])],
}

/// Within reach of the launcher for every branch.
const NEAR: u64 = 0x0200_0000;
/// Out of reach of short branches, but not of 31-bit addresses.
const LOW: u64 = 0x6000_0000;
/// Out of reach of all but addresses in full.
const FAR: u64 = 0x12_3450_0000;

/// The largest pages that any of the machines has.
const PAGE: u64 = 0x1_0000;

const LLVM_READELF: &str = "llvm-readelf-22";

const MACHINES: &[Machine] = &[
    Machine {
        name: "x86_64",
        flags: &["--target=x86_64-linux-gnu"],
        emulator: None,
        models: &[
            (&["-fPIC"], &[LOW, FAR]),
            (&["-fno-pic"], &[LOW]),
            (&["-fno-pic", "-mcmodel=large"], &[FAR]),
            (&["-fPIC", "-mtls-dialect=gnu2"], &[LOW]),
            (&["-fPIC", "-ftls-model=local-dynamic", "-fno-plt"], &[LOW]),
            (&["-fPIC", "-ftls-model=initial-exec"], &[FAR]),
        ],
    },
    Machine {
        name: "riscv64",
        flags: &["--target=riscv64-linux-gnu"],
        emulator: Some("qemu-riscv64"),
        models: &[
            (&["-march=rv64gc", "-fPIC"], &[LOW, FAR]),
            (&["-march=rv64gc", "-fPIC", "-mno-relax"], &[FAR]),
            (&["-march=rv64gc", "-fPIC", "-mtls-dialect=desc"], &[LOW]),
            (&["-march=rv64gc", "-fno-pic", "-mcmodel=medlow"], &[NEAR, LOW]),
            (&["-march=rv64gc", "-fno-pic", "-mcmodel=medany"], &[LOW]),
            (&["-march=rv64g", "-fno-pic", "-mcmodel=medany"], &[LOW]),
        ],
    },
    Machine {
        name: "riscv32",
        flags: &["--target=riscv32-linux-gnu"],
        emulator: Some("qemu-riscv32"),
        models: &[
            (&["-march=rv32gc", "-mabi=ilp32d", "-fPIC"], &[LOW]),
            (&["-march=rv32gc", "-mabi=ilp32d", "-fno-pic", "-mcmodel=medlow"], &[NEAR, LOW]),
            (&["-march=rv32g", "-mabi=ilp32d", "-fno-pic", "-mcmodel=medany", "-mno-relax"], &[LOW]),
        ],
    },
    Machine {
        name: "loongarch64",
        flags: &["--target=loongarch64-linux-gnu", "-mno-lsx"],
        emulator: Some("qemu-loongarch64"),
        models: &[
            (&["-fPIC"], &[NEAR, LOW, FAR]),
            (&["-fno-pic", "-mno-relax"], &[NEAR, LOW]),
            (&["-fPIC", "-mcmodel=medium"], &[LOW, FAR]),
            (&["-fPIC", "-mcmodel=extreme"], &[LOW, FAR]),
            (&["-fPIC", "-mtls-dialect=desc"], &[LOW]),
            (&["-fPIC", "-ftls-model=initial-exec"], &[FAR]),
        ],
    },
    Machine {
        name: "i386",
        flags: &["--target=i386-linux-gnu"],
        emulator: Some("qemu-i386"),
        models: &[
            (&["-fPIC"], &[LOW]),
            (&["-fno-pic"], &[LOW]),
            (&["-fPIC", "-mtls-dialect=gnu2"], &[LOW]),
            (&["-fPIC", "-ftls-model=local-dynamic"], &[LOW]),
            (&["-fPIC", "-ftls-model=initial-exec"], &[LOW]),
            (&["-fno-pic", "-ftls-model=initial-exec"], &[LOW]),
        ],
    },
    Machine {
        name: "powerpc64le",
        flags: &["--target=powerpc64le-linux-gnu"],
        emulator: Some("qemu-ppc64le"),
        models: &[
            (&["-fPIC"], &[NEAR, LOW, FAR]),
            (&["-fno-pic"], &[LOW]),
            (&["-fPIC", "-ftls-model=local-dynamic"], &[LOW]),
            (&["-fPIC", "-ftls-model=initial-exec"], &[LOW]),
        ],
    },
    Machine {
        name: "s390x",
        flags: &["--target=s390x-linux-gnu"],
        emulator: Some("qemu-s390x"),
        models: &[
            (&["-fPIC"], &[LOW, FAR]),
            (&["-fno-pic"], &[LOW]),
            (&["-fPIC", "-ftls-model=local-dynamic"], &[LOW]),
            (&["-fPIC", "-ftls-model=initial-exec"], &[LOW]),
        ],
    },
    Machine {
        name: "aarch64",
        flags: &["--target=aarch64-linux-gnu"],
        emulator: Some("qemu-aarch64"),
        models: &[
            (&["-fPIC"], &[NEAR, LOW, FAR]),
            (&["-fno-pic"], &[NEAR, LOW]),
            (&["-fPIC", "-ftls-model=initial-exec"], &[LOW]),
            // Clang does not compile thread-local variables for this model.
            (&["-fno-pic", "-mcmodel=large", "-DNO_THREADS"], &[FAR]),
        ],
    },
    Machine {
        name: "arm",
        flags: &["--target=armv7-linux-gnueabihf", "-mcpu=cortex-a15"],
        emulator: Some("qemu-arm"),
        models: &[
            (&["-marm", "-fPIC"], &[LOW]),
            (&["-marm", "-fno-pic"], &[NEAR, LOW]),
            (&["-mthumb", "-fPIC"], &[LOW]),
            // Not near: the launcher's functions are ARM code, which their addresses do not tell a `bl`.
            (&["-mthumb", "-fno-pic"], &[LOW]),
        ],
    },
];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launch").join(name)
}

/// The sources' objects, with their names.
struct Objects {
    model: Vec<&'static str>,
    files: [(&'static str, Vec<u8>); 2],
}

impl Machine {
    fn compile(&self, compiler: &str, model: &[&str], name: &str) -> Vec<u8> {
        let mut flags = self.flags.to_vec();
        flags.extend(["-ffreestanding", "-fno-asynchronous-unwind-tables", "-w"]);
        flags.extend(["-fno-stack-protector", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"]);
        flags.extend(model);
        compile(compiler, &flags, &source(name))
    }

    fn objects(&self, model: &[&'static str], level: &'static str) -> Objects {
        let mut flags = vec![level, "-fcommon", "-ffunction-sections"];
        flags.extend(model);
        let program = self.compile(CLANG, &flags, "program.c");
        let more = self.compile(CLANGXX, &flags, "more.cpp");
        Objects { model: flags, files: [("program.o", program), ("more.o", more)] }
    }

    /// Links files with the launcher.
    fn program(&self, launcher: &[u8], objects: &[(&str, Vec<u8>)], what: &str) -> PathBuf {
        let mut paths = vec![scratch(&format!("{what}.launcher.o"))];
        std::fs::write(&paths[0], launcher).unwrap();
        for (name, bytes) in objects {
            let path = scratch(&format!("{what}.{name}"));
            std::fs::write(&path, bytes).unwrap();
            paths.push(path);
        }
        let output = scratch(&format!("{what}.elf"));
        let mut arguments =
            vec!["-static", "--image-base=0x1000000", "-z", "separate-code", "-o", output.to_str().unwrap()];
        arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
        run(LLD, &arguments);
        output
    }

    fn run(&self, program: &Path, arguments: &[&Path]) -> String {
        let mut command = match self.emulator {
            Some(emulator) => Command::new(emulator),
            None => Command::new(program),
        };
        if self.emulator.is_some() {
            command.arg(program);
        }
        let output = command.args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}\n{text}\n{errors}", self.name, output.status);
        text
    }
}

/// Links the objects for an address, with the launcher's functions and data.
fn link(objects: &Objects, base: u64, launcher: &[u8]) -> (LoadedImage, LinkMap) {
    let launcher = object::File::parse(launcher).unwrap();
    let host = |name: &str| {
        let symbol = launcher.symbols().find(|symbol| symbol.is_global() && symbol.name() == Ok(name));
        symbol.filter(|symbol| symbol.is_definition()).map(|symbol| symbol.address())
    };
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(base).with_pages_of(PAGE))).build();
    let inputs = objects.files.each_ref().map(|(name, bytes)| InputObject { name, bytes });
    loader.load_all(&inputs, &from_fn(host)).unwrap_or_else(|error| panic!("{:?}: {error}", objects.model))
}

/// The file that the launcher reads.
fn image_file(objects: &Objects, image: &LoadedImage, map: &LinkMap) -> Vec<u8> {
    let sections = || map.files.iter().flat_map(|file| &file.sections);
    let segments: Vec<(u64, &[u8], u64)> = Segment::ALL
        .into_iter()
        .filter_map(|segment| {
            let first = sections().find(|section| section.segment == segment && section.size != 0)?;
            let protection = match segment {
                Segment::Code => 5,
                Segment::ReadOnly => 1,
                _ => 3,
            };
            Some((first.address - first.offset as u64, image.linked_bytes(segment)?, protection))
        })
        .collect();
    // By object, as a linker would have them: none of these has a priority.
    let arrays: Vec<_> = sections().filter(|section| section.name.starts_with(".init_array")).collect();
    let program = image.address("program").unwrap();
    let mut numbers = vec![program, segments.len() as u64, arrays.len() as u64];
    numbers.extend(thread_block(objects, map));
    for (address, bytes, protection) in &segments {
        numbers.extend([*address, bytes.len() as u64, *protection]);
    }
    numbers.extend(arrays.iter().flat_map(|array| [array.address, array.size / map.address_size]));
    let header = numbers.iter().flat_map(|number| number.to_le_bytes());
    header.chain(segments.iter().flat_map(|(_, bytes, _)| bytes.iter().copied())).collect()
}

fn is_thread_local(section: &str) -> bool {
    matches!(section, ".tdata" | ".tbss")
}

/// Address, content, size and alignment of the thread-local block.
fn thread_block(objects: &Objects, map: &LinkMap) -> [u64; 4] {
    let sections = map.files.iter().flat_map(|file| &file.sections);
    let parts: Vec<_> = sections.filter(|section| is_thread_local(&section.name)).collect();
    let Some(start) = parts.iter().map(|part| part.address).min() else { return [0; 4] };
    let end = |zero_fill| {
        let parts = parts.iter().filter(|part| zero_fill || !part.zero_fill);
        parts.map(|part| part.address + part.size).max().unwrap_or(start)
    };
    let aligns = objects.files.iter().flat_map(|(_, bytes)| {
        let file = object::File::parse(&bytes[..]).unwrap();
        let parts = file.sections().filter(|section| section.name().is_ok_and(is_thread_local));
        parts.map(|section| section.align()).collect::<Vec<_>>()
    });
    [start, end(false) - start, end(true) - start, aligns.max().unwrap_or(1)]
}

/// The names of the relocations of an object, as LLVM calls them. All that has any is loaded: there is no debug information.
fn kinds(object: &[u8], what: &str) -> BTreeSet<String> {
    let path = scratch(&format!("{what}.kinds.o"));
    std::fs::write(&path, object).unwrap();
    let output = Command::new(LLVM_READELF).arg("-r").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    names.filter(|name| name.starts_with("R_")).map(str::to_owned).collect()
}

/// Runs the sources on a machine in all ways.
fn launch(machine: &Machine) {
    let tools = [CLANG, LLD, LLVM_READELF].into_iter().chain(machine.emulator);
    if tools.filter(|tool| !has(tool)).count() > 0 {
        return; // All that are missing were named.
    }
    let expected = expected();
    let launcher = machine.compile(CLANG, &["-O1", "-fno-pic"], "launcher.c");
    let linked_launcher = machine.compile(CLANG, &["-O1", "-fno-pic", "-DLINKED"], "launcher.c");
    let launcher = machine.program(&launcher, &[], &format!("{}-launcher", machine.name));
    let launcher_bytes = std::fs::read(&launcher).unwrap();
    let (mut images, mut executed) = (0, BTreeSet::new());
    for (number, (model, bases)) in machine.models.iter().enumerate() {
        for level in if number == 0 { &["-O0", "-O2"][..] } else { &["-O2"] } {
            let objects = machine.objects(model, level);
            let what = format!("{}-{images}", machine.name);
            let program = machine.program(&linked_launcher, &objects.files, &what);
            assert_eq!(machine.run(&program, &[]), expected, "{} {:?} by lld", machine.name, objects.model);
            for base in *bases {
                let (image, map) = link(&objects, *base, &launcher_bytes);
                let file = scratch(&format!("{what}.image"));
                std::fs::write(&file, image_file(&objects, &image, &map)).unwrap();
                let output = machine.run(&launcher, &[&file]);
                assert_eq!(output, expected, "{} {:?} at {base:#x}", machine.name, objects.model);
                images += 1;
            }
            objects.files.iter().for_each(|(_, bytes)| executed.extend(kinds(bytes, &what)));
        }
    }
    eprintln!(
        "{}: {images} images, as lld's programs, with {} kinds of relocations",
        machine.name,
        executed.len()
    );
    coverage::keep_at_least("executed-launch", "elf", machine.name, &executed);
}

/// What the sources report, by this machine's own compiler and linker.
fn expected() -> &'static str {
    static EXPECTED: OnceLock<String> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let native = &MACHINES[0];
        let launcher = native.compile(CLANG, &["-O1", "-fno-pic", "-DLINKED"], "launcher.c");
        let objects = native.objects(&["-fno-pic"], "-O1");
        native.run(&native.program(&launcher, &objects.files, "expected"), &[])
    })
}

macro_rules! tests {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            launch(MACHINES.iter().find(|machine| machine.name == $name).unwrap());
        })*
    };
}

tests! {
    x86_64: "x86_64",
    riscv64: "riscv64",
    riscv32: "riscv32",
    loongarch64: "loongarch64",
    i386: "i386",
    powerpc64le: "powerpc64le",
    s390x: "s390x",
    aarch64: "aarch64",
    arm: "arm",
}
