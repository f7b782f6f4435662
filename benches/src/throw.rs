//! A C++ exception that the host throws and catches, while 10,000 images are loaded that could catch one: older unwinders
//! look through everything that was registered with them. And what loading and unloading such an image costs.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use objcache::loader::{LoadedImage, Loader, NoUnwind, PageMemory, SharedLibrary};

use crate::measure::{Contender, compare, median, show, thread_time};
use crate::native::{Shared, c_string, call_entry_through_here, cpp_runtime};

const IMAGES: usize = 10_000;

/// `entry` throws and catches that many times, through functions of the library and of this program.
const HOST: &str = "
    __attribute__((noinline)) static long innermost(long n) { if (n >= 0) throw n; return n; }
    __attribute__((noinline)) static long inner(long n) { long r = innermost(n); asm volatile(\"\"); return r; }
    extern \"C\" long entry(long n, long (*through)(long (*)(long), long)) {
        long sum = 0;
        for (long i = 0; i < n; i++) try { through(inner, i); } catch (long caught) { sum += caught; }
        return sum;
    }
";

/// One of many: catches, and has something to clean up.
const LOADED: &str = "
    extern \"C\" void throws(int);
    struct Guard { int *to; ~Guard() { ++*to; } };
    extern \"C\" int catches(int n) {
        int cleaned = 0;
        try { Guard guard{&cleaned}; if (n > 3) throw n; } catch (int caught) { return caught + cleaned; }
        return cleaned;
    }
";

pub(crate) fn bench() {
    let folder = tempfile::tempdir().expect("a folder for the workloads");
    let made = |name: &str, source: &str, flags: &[&str]| make(folder.path(), name, source, flags);
    let (Some(host), Some(object)) = (made("host.so", HOST, &["-shared"]), made("loaded.o", LOADED, &["-c"]))
    else {
        return println!("\nskipped: there is no C++ compiler to make the workloads with");
    };
    let (_host, entry) = Shared::open(&c_string(Path::new(&host)), &c"entry".to_owned());
    let object = std::fs::read(object).expect("the object");
    let slabs = Loader::new();
    let pages = Loader::builder().memory(Arc::new(PageMemory::new())).build();
    let silent = Loader::builder().unwind(Arc::new(NoUnwind)).build();

    println!("\na throw and catch in the host");
    let base = throws(entry, None, &object);
    for (name, time) in [
        ("no image loaded", base),
        ("10,000 images in SlabMemory", throws(entry, Some(&slabs), &object)),
        ("10,000 images in PageMemory", throws(entry, Some(&pages), &object)),
    ] {
        println!("  {name:<52} {:>10}  {:>8.2}x", show(time), time.as_secs_f64() / base.as_secs_f64());
    }

    compare(
        "load of an object that catches, 200 alive at once",
        None,
        200,
        vec![
            Contender::new("objcache: SlabMemory", |_| load(&slabs, &object)),
            Contender::new("objcache: SlabMemory, nothing registered", |_| load(&silent, &object)),
        ],
    );
    let _others: Vec<_> = (0..IMAGES).map(|_| load(&slabs, &object)).collect();
    compare(
        "load and unload of an object that catches, beside 10,000 others",
        None,
        200,
        vec![
            Contender::new("objcache: SlabMemory", |_| drop(load(&slabs, &object))),
            Contender::new("objcache: SlabMemory, nothing registered", |_| drop(load(&silent, &object))),
            Contender::new("objcache: SlabMemory, and a throw after each", |_| {
                let image = load(&slabs, &object);
                call_entry_through_here(entry, 1);
                drop(image);
            }),
        ],
    );
}

/// Median time of one throw, with a loader's images alive, in turns with none.
fn throws(entry: usize, loader: Option<&Loader>, object: &[u8]) -> Duration {
    const THROWS: i64 = 5_000;
    let mut times = Vec::new();
    for _ in 0..7 {
        let _images: Vec<_> =
            loader.iter().flat_map(|loader| (0..IMAGES).map(|_| load(loader, object))).collect();
        // The first throw after registrations sorts them.
        call_entry_through_here(entry, 10);
        let started = thread_time();
        call_entry_through_here(entry, THROWS);
        times.push((thread_time() - started) / THROWS as u32);
    }
    median(&mut times)
}

fn load(loader: &Loader, object: &[u8]) -> LoadedImage {
    static RUNTIME: OnceLock<SharedLibrary> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| cpp_runtime().expect("the C++ runtime"));
    loader.load(object, runtime).expect("the object loads")
}

/// Compiles C++; the path of what was made.
fn make(folder: &Path, name: &str, source: &str, flags: &[&str]) -> Option<String> {
    let (text, made) = (folder.join(name).with_extension("cpp"), folder.join(name));
    std::fs::write(&text, source).expect("a source file");
    let mut command = Command::new("g++");
    command.args(["-O2", "-fPIC"]).args(flags).arg(&text).arg("-o").arg(&made);
    command.status().is_ok_and(|status| status.success()).then(|| made.to_string_lossy().into_owned())
}
