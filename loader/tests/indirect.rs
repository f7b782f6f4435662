//! Indirect functions: what the resolver chooses is what is called, by whatever way.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::sync::Arc;

use objcache_loader::{
    FixedMemory, InputObject, LoadedImage, Loader, NoSymbols, PageMemory, ProcessSymbols, SlabMemory,
};
use support::*;

const SOURCE: &str = "
    static int two(void) { return 2; }
    static int three(void) { return 3; }
    int choose = 3;
    int initialized_with;
    static int (*resolve(void))(void) { return choose == 3 ? three : two; }
    int chosen(void) __attribute__((ifunc(\"resolve\")));
    static int local(void) __attribute__((ifunc(\"resolve\")));
    int (*pointer)(void) = chosen;
    int call(void) { return chosen(); }
    int call_local(void) { return 10 * local(); }
    int call_pointer(void) { return pointer == chosen ? pointer() : -1; }
    int tail(void);
    int tail(void) { return chosen(); }
    __attribute__((constructor)) static void initialize(void) { initialized_with = chosen(); }
    int initialized(void) { return initialized_with; }
";

fn loaders() -> [Loader; 2] {
    let pages = Loader::builder().memory(Arc::new(PageMemory::new())).build();
    [Loader::builder().memory(Arc::new(SlabMemory::new())).build(), pages]
}

fn check(image: &LoadedImage) {
    assert!(image.needs_initializers());
    initialize(image);
    assert!(!image.needs_initializers());
    for name in ["chosen", "call", "call_pointer", "tail", "initialized"] {
        assert_eq!(call_int(image, name, &[]), 3, "{name}");
    }
    assert_eq!(call_int(image, "call_local", &[]), 30);
}

#[test]
fn calls_and_pointers_reach_what_was_chosen() {
    for compiler in [GCC, CLANG].into_iter().filter(|compiler| has(compiler)) {
        for model in
            [&["-fPIC"][..], &["-fPIE"], &["-fno-pic"], &["-fPIC", "-mcmodel=large"], &["-fPIC", "-fno-plt"]]
        {
            for level in ["-O0", "-O2"] {
                let object = compile_text(compiler, &[&[level], model].concat(), "c", SOURCE);
                for loader in loaders() {
                    let image = loader.load(&object, &ProcessSymbols);
                    check(&image.unwrap_or_else(|error| panic!("{compiler} {model:?}: {error}")));
                }
            }
        }
    }
}

#[test]
fn other_objects_of_the_link_call_it_too() {
    if !has(GCC) {
        return;
    }
    let user = "int chosen(void); int (*theirs)(void) = chosen; extern int (*pointer)(void);
                int call_it(void) { return theirs == pointer && theirs == chosen ? chosen() + theirs() : -1; }";
    let [definer, user] = [SOURCE, user].map(|source| compile_text(GCC, &["-O1", "-fPIC"], "c", source));
    for objects in [[&definer, &user], [&user, &definer]] {
        let inputs = objects.map(|bytes| InputObject { name: "object", bytes });
        for loader in loaders() {
            let (image, _) = loader.load_all(&inputs, &ProcessSymbols).unwrap();
            check(&image);
            assert_eq!(call_int(&image, "call_it", &[]), 6);
        }
    }
}

#[test]
fn links_for_elsewhere_refuse_it_by_name() {
    if !has(GCC) {
        return;
    }
    let user = "int chosen(void); int call_it(void) { return chosen(); }";
    let definer = "static int two(void) { return 2; } static void *resolve(void) { return two; }
                   int chosen(void) __attribute__((ifunc(\"resolve\")));";
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x10000))).build();
    let [definer, user, both] =
        [definer, user, SOURCE].map(|source| compile_text(GCC, &["-O1", "-fPIC"], "c", source));
    let inputs = [&definer, &user].map(|bytes| InputObject { name: "object", bytes });
    let error = loader.load_all(&inputs, &NoSymbols).unwrap_err().to_string();
    assert!(error.contains("`chosen`: an indirect function (STT_GNU_IFUNC)"), "{error}");
    let error = loader.load(&both, &NoSymbols).unwrap_err().to_string();
    assert!(error.contains("an indirect function (STT_GNU_IFUNC) is not supported"), "{error}");
}

#[test]
fn a_call_before_that_ends_the_process_with_a_message() {
    const CHILD: &str = "OBJCACHE_TEST_CALLS_UNBOUND";
    if !has(GCC) {
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        let object = compile_text(GCC, &["-O1", "-fPIC"], "c", SOURCE);
        call_int(&Loader::new().load(&object, &ProcessSymbols).unwrap(), "call", &[]);
        return;
    }
    let test = "a_call_before_that_ends_the_process_with_a_message";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(message.contains("called before the image's initialisers were run"), "{message}");
}
