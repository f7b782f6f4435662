//! Workloads in C, made here: functions that call each other and the C library, with tables, strings and
//! switches, as a compiler's output for a real program has them.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One kernel that is nearly nothing.
pub(crate) const TINY: &str = "void entry(long n, float a, const float *x, float *y) { for (long i = 0; i < n; i++) y[i] += a * x[i]; }\n";

/// A program of `count` functions; `entry` calls into it.
pub(crate) fn program(count: usize) -> String {
    part_of_program(count, 0..count)
}

/// Some functions of a program of `count`; `entry` is in the part that has the first.
pub(crate) fn part_of_program(count: usize, part: Range<usize>) -> String {
    let mut random = Random(12345 + part.start as u64);
    let mut source = String::from(
        "extern unsigned long strlen(const char *); extern int abs(int); extern int atoi(const char *);\n",
    );
    for index in 0..count {
        writeln!(source, "__attribute__((noinline)) long f{index}(long depth, long x);").unwrap();
    }
    for index in part.clone() {
        function(&mut source, &mut random, index, count);
    }
    if part.start != 0 {
        return source;
    }
    let table: Vec<_> = (0..count).map(|_| format!("f{}", random.below(count))).collect();
    writeln!(source, "long (*table[])(long, long) = {{ {} }};", table.join(", ")).unwrap();
    writeln!(source, "long counter = 1; static long zeros[1024];").unwrap();
    writeln!(
        source,
        "long entry(long x) {{ counter += x; zeros[x & 1023]++; return f0(3, x) + counter + table[x % {count}](1, x); }}"
    )
    .unwrap();
    source
}

fn function(source: &mut String, random: &mut Random, index: usize, count: usize) {
    let numbers: Vec<_> = (0..8).map(|_| random.below(1000).to_string()).collect();
    writeln!(source, "static const int numbers{index}[8] = {{ {} }};", numbers.join(", ")).unwrap();
    writeln!(source, "long f{index}(long depth, long x) {{").unwrap();
    writeln!(source, "  if (depth <= 0) return x + {index};").unwrap();
    writeln!(source, "  long s = numbers{index}[x & 7];").unwrap();
    for bit in 0..3 {
        let (callee, factor) = (random.below(count), random.below(90) + 3);
        writeln!(source, "  if (x & {}) s += f{callee}(depth - 1, x * {factor} + {bit});", 1 << bit).unwrap();
    }
    let text = random.below(1 << 30);
    writeln!(source, "  if (x == -77777) s += strlen(\"text {text}\") + atoi(\"{text}\");").unwrap();
    if index.is_multiple_of(5) {
        writeln!(source, "  switch (s & 7) {{").unwrap();
        for case in 0..7 {
            let (mask, factor) = (random.below(99), random.below(9));
            writeln!(source, "  case {case}: s += abs((int)s ^ {mask}) * {factor}; break;").unwrap();
        }
        writeln!(source, "  }}").unwrap();
    }
    writeln!(source, "  return s;\n}}").unwrap();
}

/// The assembly of a program with a section for each of `count` functions, all called from others.
pub(crate) fn sections(count: usize) -> String {
    let mut random = Random(12345);
    let mut source = String::from(".text\n.globl entry\nentry: call f0\nret\n");
    for index in 0..count {
        let (near, far) = ((index + 1) % count, random.below(count));
        writeln!(
            source,
            ".section .text.f{index},\"ax\",@progbits\n.p2align 4\n.globl f{index}\n.type f{index},@function"
        )
        .unwrap();
        writeln!(source, "f{index}: .cfi_startproc\ncall f{near}\nleaq f{far}(%rip), %rax").unwrap();
        writeln!(source, "call strlen@PLT\nret\n.cfi_endproc\n.size f{index}, .-f{index}").unwrap();
    }
    source
}

/// A linear congruential generator: the same program every time (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// The same code as an object, and as a shared object that is ready for `dlopen`.
pub(crate) struct Built {
    pub(crate) object: Vec<u8>,
    pub(crate) shared: PathBuf,
}

/// Assembles `source`; `None` when there is no C compiler.
pub(crate) fn assemble(folder: &Path, name: &str, source: &str) -> Option<Vec<u8>> {
    let [text, object] = ["s", "o"].map(|extension| folder.join(name).with_extension(extension));
    std::fs::write(&text, source).expect("a source file");
    let compiler = compiler()?;
    let status = Command::new(compiler).args(["-c", "-o"]).arg(&object).arg(&text).status();
    assert!(status.is_ok_and(|status| status.success()), "{compiler} assembles {name}");
    Some(std::fs::read(object).expect("the object"))
}

fn compiler() -> Option<&'static str> {
    ["clang-22", "clang", "gcc", "cc"].into_iter().find(|name| runs(name))
}

/// Compiles `source`; `None`, with a word why, when there is no C compiler.
pub(crate) fn build(folder: &Path, name: &str, source: &str) -> Option<Built> {
    let path = |extension| folder.join(name).with_extension(extension);
    std::fs::write(path("c"), source).expect("a source file");
    let Some(compiler) = compiler() else {
        println!("\nskipped: there is no C compiler to make the workloads with");
        return None;
    };
    let cc = |arguments: &[&str], from: &Path, to: &Path| {
        let status = Command::new(compiler).args(arguments).arg(from).arg("-o").arg(to).status();
        assert!(status.is_ok_and(|status| status.success()), "{compiler} makes {}", to.display());
    };
    cc(&["-O2", "-fPIC", "-c"], &path("c"), &path("o"));
    cc(&["-shared", "-nostdlib", "-Wl,-Bsymbolic,-z,now"], &path("o"), &path("so"));
    Some(Built { object: std::fs::read(path("o")).expect("the object"), shared: path("so") })
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
