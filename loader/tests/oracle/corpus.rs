//! What whole objects are made from: compilers, their flags, and the machines they compile for.

use crate::support::{CLANG, CLANGXX, compile, fixture, has, run, scratch};

/// A compiler for a machine, with the code models it has.
pub struct Toolchain {
    pub machine: &'static str,
    pub c: &'static str,
    pub cpp: &'static str,
    pub flags: &'static [&'static str],
    pub models: &'static [Model],
}

pub struct Model {
    pub flags: &'static [&'static str],
    /// Code that expects to be in the lowest 2 GiB.
    pub is_low: bool,
    /// Code that expects everything within a megabyte.
    pub is_tiny: bool,
}

const fn anywhere(flags: &'static [&'static str]) -> Model {
    Model { flags, is_low: false, is_tiny: false }
}

const fn low(flags: &'static [&'static str]) -> Model {
    Model { flags, is_low: true, is_tiny: false }
}

const fn clang(machine: &'static str, flags: &'static [&'static str], models: &'static [Model]) -> Toolchain {
    Toolchain { machine, c: CLANG, cpp: CLANGXX, flags, models }
}

const SECTIONS: &[&str] = &["-fPIE", "-ffunction-sections", "-fdata-sections"];
const PIC: Model = anywhere(&["-fPIC"]);
const PIE: Model = anywhere(SECTIONS);
const LOW: Model = low(&["-fno-pic"]);

const X86_64: &[Model] = &[
    PIC,
    PIE,
    LOW,
    low(&["-fno-pic", "-mcmodel=medium"]),
    anywhere(&["-fno-pic", "-mcmodel=large"]),
    anywhere(&["-fPIC", "-mcmodel=large"]),
    anywhere(&["-fPIC", "-fno-plt"]),
];
const AARCH64: &[Model] = &[
    PIC,
    PIE,
    anywhere(&["-fno-pic"]),
    anywhere(&["-fno-pic", "-mcmodel=large"]),
    Model { flags: &["-fno-pic", "-mcmodel=tiny"], is_low: false, is_tiny: true },
    Model { flags: &["-fPIC", "-mcmodel=tiny"], is_low: false, is_tiny: true },
];
const PPC64: &[Model] =
    &[PIC, PIE, LOW, anywhere(&["-fPIC", "-mcmodel=large"]), anywhere(&["-fPIC", "-mcmodel=small"])];

pub const TOOLCHAINS: &[Toolchain] = &[
    clang("x86_64", &["--target=x86_64-linux-gnu"], X86_64),
    Toolchain { machine: "x86_64", c: "gcc", cpp: "g++", flags: &[], models: X86_64 },
    clang("i386", &["--target=i686-linux-gnu"], &[PIC, PIE, LOW]),
    Toolchain {
        machine: "i386",
        c: "i686-linux-gnu-gcc",
        cpp: "i686-linux-gnu-g++",
        flags: &[],
        models: &[PIC, PIE, LOW],
    },
    clang("aarch64", &["--target=aarch64-linux-gnu"], AARCH64),
    Toolchain {
        machine: "aarch64",
        c: "aarch64-linux-gnu-gcc",
        cpp: "aarch64-linux-gnu-g++",
        flags: &[],
        models: AARCH64,
    },
    clang("arm", &["--target=armv7-linux-gnueabihf", "-marm"], &[PIC, PIE, LOW]),
    clang("arm", &["--target=armv7-linux-gnueabihf", "-mthumb"], &[PIC, PIE, LOW]),
    Toolchain {
        machine: "arm",
        c: "arm-linux-gnueabihf-gcc",
        cpp: "arm-linux-gnueabihf-g++",
        flags: &["-marm"],
        models: &[PIC, LOW],
    },
    Toolchain {
        machine: "arm",
        c: "arm-linux-gnueabihf-gcc",
        cpp: "arm-linux-gnueabihf-g++",
        flags: &["-mthumb"],
        models: &[PIC, LOW],
    },
    clang(
        "riscv64",
        &["--target=riscv64-linux-gnu", "-mno-relax"],
        &[PIC, PIE, low(&["-fno-pic", "-mcmodel=medlow"]), LOW],
    ),
    clang(
        "riscv64",
        &["--target=riscv64-linux-gnu", "-mrelax", "-falign-functions=16"],
        &[PIC, PIE, anywhere(&["-march=rv64g", "-fno-pic", "-mcmodel=medany"])],
    ),
    Toolchain {
        machine: "riscv64",
        c: "riscv64-linux-gnu-gcc",
        cpp: "riscv64-linux-gnu-g++",
        flags: &[],
        models: &[PIC, PIE, low(&["-fno-pic", "-mcmodel=medlow"])],
    },
    clang("riscv32", &["--target=riscv32-linux-gnu", "-mno-relax"], &[PIC, LOW]),
    clang(
        "riscv32",
        &["--target=riscv32-linux-gnu", "-mrelax", "-falign-functions=16"],
        &[PIC, low(&["-march=rv32g", "-fno-pic", "-mcmodel=medlow"])],
    ),
    clang("powerpc64le", &["--target=powerpc64le-linux-gnu"], PPC64),
    clang("powerpc64le", &["--target=powerpc64le-linux-gnu", "-mcpu=pwr10"], &[PIC]),
    Toolchain {
        machine: "powerpc64le",
        c: "powerpc64le-linux-gnu-gcc",
        cpp: "powerpc64le-linux-gnu-g++",
        flags: &[],
        models: PPC64,
    },
    clang(
        "loongarch64",
        &["--target=loongarch64-linux-gnu", "-mno-relax"],
        &[
            PIC,
            PIE,
            LOW,
            anywhere(&["-fPIC", "-mcmodel=medium"]),
            anywhere(&["-fno-pic", "-mcmodel=extreme"]),
        ],
    ),
    clang(
        "loongarch64",
        &["--target=loongarch64-linux-gnu", "-mrelax", "-falign-functions=16"],
        &[PIC, PIE, anywhere(&["-fPIC", "-mcmodel=extreme"])],
    ),
    clang("s390x", &["--target=s390x-linux-gnu"], &[PIC, PIE, LOW]),
    Toolchain {
        machine: "s390x",
        c: "s390x-linux-gnu-gcc",
        cpp: "s390x-linux-gnu-g++",
        flags: &[],
        models: &[PIC, PIE, LOW],
    },
];

/// Machines of which thread-local variables are compared, with the ways of reaching them that lld leaves as they are.
const THREADS: &[(&str, &[&[&str]])] = &[
    ("riscv64", &[LOCAL_EXEC, INITIAL_EXEC]),
    ("riscv32", &[LOCAL_EXEC, INITIAL_EXEC]),
    ("loongarch64", &[LOCAL_EXEC]),
];
const LOCAL_EXEC: &[&str] = &["-ftls-model=local-exec"];
const INITIAL_EXEC: &[&str] = &["-ftls-model=initial-exec", "-DONE_VARIABLE"];

fn each_with_threads(toolchain: &Toolchain, mut check: impl FnMut(&str, &Model, &[u8])) {
    let Some((_, accesses)) = THREADS.iter().find(|(machine, _)| *machine == toolchain.machine) else {
        return;
    };
    if !has(toolchain.c) {
        return;
    }
    for model in toolchain.models {
        for access in *accesses {
            let flags = [&["-w", "-ffreestanding", "-O1"], toolchain.flags, model.flags, access].concat();
            let object = compile(toolchain.c, &flags, &fixture("threads.c"));
            check(&format!("{} {} threads.c", toolchain.c, flags.join(" ")), model, &object);
        }
    }
}

/// Every object that a toolchain makes of the sources.
pub fn each(toolchain: &Toolchain, mut check: impl FnMut(&str, &Model, &[u8])) {
    each_with_threads(toolchain, &mut check);
    let levels = ["-O0", "-O2", "-Os"];
    for (compiler, source) in [(toolchain.c, "corpus.c"), (toolchain.cpp, "kernel.cpp")] {
        if !has(compiler) {
            continue;
        }
        for model in toolchain.models {
            for level in levels {
                let mut flags = [&["-w", "-ffreestanding", level], toolchain.flags, model.flags].concat();
                if source.ends_with(".c") {
                    flags.extend(["-fcommon", "-fno-asynchronous-unwind-tables"]);
                }
                let object = compile(compiler, &flags, &fixture(source));
                check(&format!("{compiler} {} {source}", flags.join(" ")), model, &object);
            }
        }
    }
}

/// Objects of your own: those in the folder of the machine's name in the one that `OBJCACHE_ORACLE_OBJECTS` names. They are
/// linked in the lowest 2 GiB if their name begins with `low`. Section names must be unique (`-ffunction-sections`).
pub fn each_of_yours(machine: &str, mut check: impl FnMut(&str, &Model, &[u8])) {
    let Some(folder) = std::env::var_os("OBJCACHE_ORACLE_OBJECTS") else { return };
    let Ok(files) = std::fs::read_dir(std::path::Path::new(&folder).join(machine)) else { return };
    for path in files.map(|file| file.unwrap().path()) {
        let is_low = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("low"));
        let model = Model { flags: &[], is_low, is_tiny: false };
        check(&path.display().to_string(), &model, &std::fs::read(&path).unwrap());
    }
}

/// What rustc makes for this machine; [`each_of_rust_elsewhere`] has the others.
pub fn each_of_rust(mut check: impl FnMut(&str, &Model, &[u8])) {
    if !has("rustc") {
        return;
    }
    for (model, is_low) in [("pic", false), ("static", true)] {
        for level in ["0", "2", "s"] {
            let options = [format!("relocation-model={model}"), format!("opt-level={level}")];
            let mut flags = vec!["--edition=2024", "--emit=obj", "-Ccodegen-units=1"];
            options.iter().for_each(|option| flags.extend(["-C", option]));
            let output = scratch(&format!("rust-{model}-{level}.o"));
            flags.extend(["-o", output.to_str().unwrap()]);
            let source = fixture("corpus.rs");
            flags.push(source.to_str().unwrap());
            run("rustc", &flags);
            let model = Model { flags: &[], is_low, is_tiny: false };
            check(&format!("rustc {}", flags.join(" ")), &model, &std::fs::read(output).unwrap());
        }
    }
}

/// What rustc makes for other machines: fixtures, written by `loader/rust-objects`, since it would need their libraries.
pub fn each_of_rust_elsewhere(machine: &str, mut check: impl FnMut(&str, &Model, &[u8])) {
    for suffix in ["", "-thumb"] {
        let path = fixture(&format!("rust/elf-{machine}{suffix}.o"));
        if let Ok(object) = std::fs::read(&path) {
            check(&format!("rustc, {}", path.display()), &PIC, &object);
        }
    }
}

/// What Cranelift makes for a machine, as far as it has it: fixtures, written by `loader/cranelift`.
pub fn each_of_cranelift(machine: &str, mut check: impl FnMut(&str, &Model, &[u8])) {
    for (suffix, is_low) in [("", false), ("-static", true)] {
        let path = fixture(&format!("cranelift/elf-{machine}{suffix}.o"));
        if let Ok(object) = std::fs::read(&path) {
            let model = Model { flags: &[], is_low, is_tiny: false };
            check(&format!("Cranelift, {}", path.display()), &model, &object);
        }
    }
}
