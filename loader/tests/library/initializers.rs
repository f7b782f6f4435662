//! Who runs the initialisers of images that generators make, and when.

use std::sync::{Arc, Barrier, Mutex};

use objcache_loader::{AbsoluteSymbols, ArchiveGenerator, Library, LibraryImage};

use crate::code::call;
use crate::names::archive;
use crate::support::{GCC, compile_text, has};

static NOTES: Mutex<Vec<i32>> = Mutex::new(Vec::new());
static TURN: Mutex<()> = Mutex::new(());

extern "C" fn note(what: i32) {
    NOTES.lock().unwrap().push(what);
}

extern "C" fn slowly(what: i32) {
    std::thread::sleep(std::time::Duration::from_millis(20));
    note(what);
}

fn notes() -> Vec<i32> {
    std::mem::take(&mut NOTES.lock().unwrap())
}

/// A function that adds one to what another returns, or to what its initialiser set, which notes that; so does its finaliser.
fn object(name: &str, number: i32, callee: Option<&str>) -> Vec<u8> {
    let (declaration, term) = match callee {
        Some(callee) => (format!("int {callee}(void);"), format!("{callee}()")),
        None => (String::new(), "0".to_owned()),
    };
    let text = format!(
        "void note(int); {declaration} static int ready;
         __attribute__((constructor)) static void begin(void) {{ note({number}); ready = 1; }}
         __attribute__((destructor)) static void end(void) {{ note(-{number}); }}
         int {name}(void) {{ return ready + {term}; }}"
    );
    compile_text(GCC, &["-O1", "-fPIC"], "c", &text)
}

/// `a` needs `b`, and that `c`, of an archive each.
fn library() -> Library {
    let library = Library::new("app");
    for (name, number, callee) in [("c", 1, None), ("b", 2, Some("c")), ("a", 3, Some("b"))] {
        let file = format!("libinit_{name}.a");
        let bytes = archive(&file, &[("member.o", object(name, number, callee))]);
        library.add_generator(ArchiveGenerator::new(file, bytes).unwrap());
    }
    library.add_generator(AbsoluteSymbols::new().with("note", note as *const () as u64));
    library
}

fn run(image: &LibraryImage) {
    // SAFETY: these objects are the test's own, and nobody uses them yet.
    unsafe { image.run_initializers() }
}

#[test]
fn those_of_generated_images_run_first_and_finalisers_last() {
    if !(has(GCC) && has("ar")) {
        return;
    }
    let _turn = TURN.lock().unwrap();
    let library = library();
    let image = library.load("user.o", &object("user", 4, Some("a"))).unwrap();
    assert!(notes().is_empty(), "loading runs no code");
    let names: Vec<_> = library.images().iter().map(|image| image.name().to_owned()).collect();
    assert_eq!(names, ["libinit_c.a(member.o)", "libinit_b.a(member.o)", "libinit_a.a(member.o)", "user.o"]);
    run(&image);
    assert_eq!(notes(), [1, 2, 3, 4]);
    assert_eq!(call(&library, "user"), 4);
    let other = library.load("other.o", &object("other", 5, Some("b"))).unwrap();
    run(&other);
    run(&image);
    assert_eq!(notes(), [5], "each runs once");
    drop((image, other));
    // SAFETY: nobody is in it.
    unsafe { library.clear().free() };
    assert_eq!(notes(), [-5, -4, -3, -2, -1]);
}

/// Images that the client loaded are the client's to initialise.
#[test]
fn those_of_other_images_that_are_used_do_not_run() {
    if !(has(GCC) && has("ar")) {
        return;
    }
    let _turn = TURN.lock().unwrap();
    let library = library();
    let base = library.load("base.o", &object("base", 6, Some("c"))).unwrap();
    let top = library.load("top.o", &object("top", 7, Some("base"))).unwrap();
    run(&top);
    assert_eq!(notes(), [7]);
    run(&base);
    assert_eq!(notes(), [1, 6]);
    drop((base, top));
    // SAFETY: nobody is in it.
    unsafe { library.clear().free() };
    assert_eq!(notes(), [-7, -6, -1]);
}

#[test]
fn those_of_what_a_lookup_brought_in_run_with_the_librarys() {
    if !(has(GCC) && has("ar")) {
        return;
    }
    let _turn = TURN.lock().unwrap();
    let library = library();
    assert!(library.address("b").is_some());
    assert!(notes().is_empty());
    for _ in 0..2 {
        // SAFETY: these objects are the test's own, and nobody uses them yet.
        unsafe { library.run_initializers() };
    }
    assert_eq!(notes(), [1, 2]);
    assert_eq!(call(&library, "b"), 2);
    // SAFETY: nobody is in it.
    unsafe { library.clear().free() };
    assert_eq!(notes(), [-2, -1]);
}

/// Two users of one generated image: its initialiser is done before either's begins.
#[test]
fn threads_wait_for_those_of_what_they_share() {
    if !(has(GCC) && has("ar")) {
        return;
    }
    let _turn = TURN.lock().unwrap();
    let library = Library::new("app");
    let bytes = archive("libinit_slow.a", &[("member.o", object("c", 1, None))]);
    library.add_generator(ArchiveGenerator::new("libinit_slow.a", bytes).unwrap());
    library.add_generator(AbsoluteSymbols::new().with("note", slowly as *const () as u64));
    let users = [("first", 2), ("second", 3)]
        .map(|(name, number)| library.load(name, &object(name, number, Some("c"))).unwrap());
    let start = Arc::new(Barrier::new(2));
    std::thread::scope(|scope| {
        for user in &users {
            let start = Arc::clone(&start);
            scope.spawn(move || {
                start.wait();
                run(user);
            });
        }
    });
    let order = notes();
    assert!(matches!(order[..], [1, 2, 3] | [1, 3, 2]), "{order:?}");
    drop(users);
    // SAFETY: nobody is in it.
    unsafe { library.clear().free() };
    notes();
}

#[test]
fn indirect_functions_of_generated_images_are_bound() {
    if !(has(GCC) && has("ar")) {
        return;
    }
    let text = "static int chosen(void) { return 42; }
                static void *choose(void) { return (void *)chosen; }
                int picked(void) __attribute__((ifunc(\"choose\")));
                int indirect(void) { return picked(); }";
    let member = compile_text(GCC, &["-O1", "-fPIC"], "c", text);
    let library = Library::new("app");
    let bytes = archive("libinit_ifunc.a", &[("member.o", member)]);
    library.add_generator(ArchiveGenerator::new("libinit_ifunc.a", bytes).unwrap());
    let user = "int indirect(void); int f(void) { return indirect(); }";
    let image = library.load("user.o", &compile_text(GCC, &["-O1", "-fPIC"], "c", user)).unwrap();
    run(&image);
    assert_eq!(call(&library, "f"), 42);
}
