//! The objects that are loaded, compiled once and kept: C that calls itself and the C library, with tables, strings and
//! switches, in one `.text` or with a section for each function; tiny kernels; and C++ that throws.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::c_code;
use crate::foreign::c_string;
use crate::peers::Code;

/// Where workloads are kept.
pub struct Workloads {
    folder: PathBuf,
}

/// How many tiny objects there are.
pub const TINY: usize = 1000;

impl Workloads {
    /// Workloads in a folder, which is made.
    pub fn in_folder(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("kernels")).expect("a folder for the workloads");
        Workloads { folder: folder.to_owned() }
    }

    /// A program of so many functions; `long entry(long)` calls into it.
    pub fn program(&self, functions: usize) -> Code {
        self.code(&format!("program{functions}"), |path, object| {
            // A compiler wants gigabytes for all at once.
            let parts = (0..functions).step_by(Self::PART).map(|start| {
                let part = start..functions.min(start + Self::PART);
                let [source, object] =
                    ["c", "o"].map(|extension| path.with_extension(format!("{start}.{extension}")));
                compile(&source, &c_code::part_of_program(functions, part), &[], &object);
                object
            });
            let mut link = Command::new("ld.lld-22");
            run(link.args(["-r", "-o"]).arg(object).args(parts));
        })
    }

    const PART: usize = 1000;

    /// The same with a section for each function.
    pub fn sections(&self, functions: usize) -> Code {
        self.code(&format!("sections{functions}"), |path, object| {
            compile(&path.with_extension("c"), &c_code::program(functions), &["-ffunction-sections"], object)
        })
    }

    /// Kernels `k0`, `k1`, …
    pub fn tiny(&self) -> Vec<Code> {
        let tiny = |number| {
            let name = format!("k{number}");
            self.code(&format!("kernels/{name}"), |path, object| {
                compile(&path.with_extension("c"), &kernel(&name, number), &KERNEL_FLAGS, object)
            })
        };
        (0..TINY).map(tiny).collect()
    }

    /// A kernel whose name, [`RENAMED`], may be replaced by another of that length in the object's bytes.
    pub fn renamable(&self) -> Code {
        self.code("kernels/renamable", |path, object| {
            compile(&path.with_extension("c"), &kernel(RENAMED, 7), &KERNEL_FLAGS, object);
        })
    }

    /// `long NAME(long)` throws an exception and catches it. The name is [`RENAMED`], to be replaced.
    pub fn throwing(&self) -> Code {
        self.code("throwing", |path, object| {
            let source = format!(
                "extern \"C\" long {RENAMED}(long x) {{\n    \
                 try {{ if (x) throw 42; }} catch (int v) {{ return v; }}\n    return 0;\n}}\n"
            );
            compile(&path.with_extension("cpp"), &source, &[], object);
        })
    }

    /// What `make` compiles when it is not there yet, given a path without extension and that of the object; and the same
    /// linked.
    fn code(&self, name: &str, make: impl FnOnce(&Path, &Path)) -> Code {
        let path = self.folder.join(name);
        let [object, half, shared] = ["o", "half", "so"].map(|extension| path.with_extension(extension));
        if !shared.exists() {
            eprintln!("making {name}");
            make(&path, &object);
            let mut link = Command::new("ld.lld-22");
            run(link
                .args(["-shared", "-Bsymbolic", "-z", "now", "--hash-style=gnu", "--eh-frame-hdr"])
                .arg(&object)
                .arg("-o")
                .arg(&half));
            // An interrupted run leaves nothing that looks complete.
            fs::rename(half, &shared).expect("a linked object");
        }
        Code { object: fs::read(object).expect("an object"), shared: c_string(&shared) }
    }
}

fn compile(source: &Path, text: &str, further: &[&str], object: &Path) {
    fs::write(source, text).expect("a source file");
    let mut compiler = Command::new("clang-22");
    run(compiler.args(["-O2", "-fPIC", "-c"]).args(further).arg(source).arg("-o").arg(object));
}

/// A name of the length that numbered ones have.
pub const RENAMED: &str = "kRENAME0";

/// What [`RENAMED`] is replaced by.
pub fn numbered(number: usize) -> String {
    format!("k{number:07}")
}

/// Where [`RENAMED`] is in an object's bytes.
pub fn find_renamed(code: &Code) -> usize {
    let found = code.object.windows(RENAMED.len()).position(|bytes| bytes == RENAMED.as_bytes());
    found.expect("the name is in the string table")
}

/// A loop that is vectorised, with a constant for each form of it: code that refers to two sections of constants.
fn kernel(name: &str, number: usize) -> String {
    format!(
        "void {name}(long n, float a, const float *x, float *y) {{\n    \
         for (long i = 0; i < n; i++) y[i] += a * x[i] + {number}.5f;\n}}\n"
    )
}

const KERNEL_FLAGS: [&str; 1] = ["-fno-unroll-loops"];

fn run(command: &mut Command) {
    let status = command.status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
}
