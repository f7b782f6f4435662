//! What the integration tests share: compilers, objects made of fixtures at test time, tools that may be missing.

#![allow(dead_code, unreachable_pub)] // Each test file is a crate and uses its part.

pub mod apart;
pub mod coff;
pub mod counting;
pub mod coverage;
pub mod elf;
pub mod macho;
pub mod twice;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub const GCC: &str = "gcc";
pub const GXX: &str = "g++";
pub const CLANG: &str = "clang-22";
pub const CLANGXX: &str = "clang++-22";
pub const LLD: &str = "ld.lld-22";
pub const LLVM_MC: &str = "llvm-mc-22";
pub const LLD_LINK: &str = "lld-link-22";
pub const MINGW64: &str = "x86_64-w64-mingw32-g++";
pub const MINGW32: &str = "i686-w64-mingw32-g++";

/// Whether a tool runs here. If not, says so; with `OBJCACHE_REQUIRE_ALL=1` that fails the test.
pub fn has(tool: &str) -> bool {
    let runs = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !runs {
        skip(&format!("`{tool}` does not run here"));
    }
    runs
}

/// Notes that a test, or a part of it, cannot run.
pub fn skip(why: &str) {
    assert!(std::env::var_os("OBJCACHE_REQUIRE_ALL").is_none_or(|value| value != "1"), "skipped: {why}");
    eprintln!("skipped: {why}");
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A directory for one test process's files, removed by the operating system's own ways at worst.
pub fn scratch(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("loader-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    });
    directory.join(name)
}

/// Runs a tool and panics with its messages if it fails.
pub fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Compiles a file to an object and returns its bytes.
pub fn compile(compiler: &str, flags: &[&str], source: &Path) -> Vec<u8> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let object = scratch(&format!("{}.o", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let mut arguments = flags.to_vec();
    let (source, object) = (source.to_str().unwrap(), object.to_str().unwrap());
    arguments.extend(["-c", source, "-o", object]);
    run(compiler, &arguments);
    let bytes = std::fs::read(object).unwrap();
    std::fs::remove_file(object).unwrap();
    bytes
}

/// Compiles source text; `suffix` tells the language.
pub fn compile_text(compiler: &str, flags: &[&str], suffix: &str, text: &str) -> Vec<u8> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let source = scratch(&format!("text{}.{suffix}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&source, text).unwrap();
    let bytes = compile(compiler, flags, &source);
    std::fs::remove_file(source).unwrap();
    bytes
}

/// Calls `int name(int…)` of an image, up to two arguments.
#[track_caller]
pub fn call_int(image: &objcache_loader::LoadedImage, name: &str, arguments: &[i32]) -> i32 {
    // SAFETY: C functions of `int` parameters, of our own fixtures; spare arguments are passed in registers and ignored.
    let function = unsafe { image.get::<extern "C" fn(i32, i32) -> i32>(name) };
    let at = |number: usize| arguments.get(number).copied().unwrap_or_default();
    function.unwrap_or_else(|error| panic!("{error}"))(at(0), at(1))
}

/// Runs the initialisers of an image made of our own fixtures.
pub fn initialize(image: &objcache_loader::LoadedImage) {
    // SAFETY: the initialisers are those of our own fixtures; no other thread has the image yet.
    unsafe { image.run_initializers() }
}

/// Numbers of the relocation kinds in what is loaded of an ELF object.
pub fn relocation_kinds(object: &[u8]) -> std::collections::BTreeSet<u32> {
    use object::{Object as _, ObjectSection as _, RelocationFlags, SectionFlags};
    let file = object::File::parse(object).unwrap();
    let is_loaded =
        |flags| matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::ALLOC != 0);
    let sections = file.sections().filter(|section| is_loaded(section.flags()));
    let kinds = sections.flat_map(|section| section.relocations()).filter_map(|(_, relocation)| {
        match relocation.flags() {
            RelocationFlags::Elf { r_type } => Some(r_type.0),
            _ => None,
        }
    });
    kinds.collect()
}

/// A small generator of numbers that are the same in every run (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Keeps what a listener was told of sections: name, segment, offset, address and size.
#[derive(Default)]
pub struct SectionLog(pub parking_lot::Mutex<Vec<LoggedSection>>);

pub struct LoggedSection {
    pub name: String,
    pub segment: objcache_loader::Segment,
    pub offset: usize,
    pub address: u64,
    pub size: usize,
}

impl objcache_loader::EventListener for SectionLog {
    fn notify_loaded(&self, loaded: &objcache_loader::LoadedObject<'_>) {
        *self.0.lock() = loaded
            .sections()
            .map(|section| LoggedSection {
                name: String::from_utf8_lossy(section.name).into_owned(),
                segment: section.segment,
                offset: section.offset as usize,
                address: section.address,
                size: section.size as usize,
            })
            .collect();
    }

    fn notify_freeing(&self, _image: objcache_loader::ImageId) {}
}

/// The permissions of the mapping at an address.
pub fn permissions(address: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapping = maps.lines().find(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let parse = |number| u64::from_str_radix(number, 16).unwrap();
        (parse(start)..parse(end)).contains(&address)
    });
    mapping.and_then(|line| line.split(' ').nth(1)).unwrap_or("none").to_owned()
}

/// Runs a test in a process of its own, where nothing else maps memory.
pub fn alone(test: &str, body: fn()) {
    const INSIDE: &str = "OBJCACHE_LOADER_TEST_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A child process.
pub struct Child(libc::pid_t);

/// Forks; the child runs `body` and ends with success if it returns true.
pub fn fork(body: impl FnOnce() -> bool) -> Child {
    // SAFETY: the child only uses the allocator, which glibc keeps usable, and the loader, which is what is tested; it
    // never returns from here.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
        // SAFETY: `_exit` runs no handlers of the parent.
        unsafe { libc::_exit(if passed { 0 } else { 1 }) };
    }
    assert!(child > 0);
    Child(child)
}

impl Child {
    /// Waits for it.
    pub fn succeeded(self) -> bool {
        let mut status = 0;
        // SAFETY: waits for the child just made, into a local variable.
        let waited = unsafe { libc::waitpid(self.0, &mut status, 0) };
        waited == self.0 && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}
