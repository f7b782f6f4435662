//! What a name means, and what is an error.

use objcache_loader::{
    AbsoluteSymbols, ArchiveGenerator, Generated, Generator, GeneratorRequest, InputObject, Library,
    LookupError, ProcessSymbols, filtered, from_fn,
};

use crate::code::{Functions, call, calling, returning};
use crate::support::{GCC, compile_text, has, run, scratch};

#[test]
fn symbols_resolve_across_images_and_libraries_in_order() {
    let [app, first, second] = ["app", "first", "second"].map(Library::new);
    app.search(&first);
    app.search(&second);
    first.load("a.o", &returning("in_first", 1)).unwrap();
    first.load("b.o", &returning("in_both", 11)).unwrap();
    second.load("a.o", &returning("in_both", 12)).unwrap();
    second.load("b.o", &returning("in_second", 2)).unwrap();
    second.load("c.o", &calling("calls_first", "in_first")).unwrap_err();
    app.load("own.o", &returning("own", 3)).unwrap();
    for (caller, callee, result) in
        [("f", "own", 3), ("g", "in_first", 1), ("h", "in_second", 2), ("i", "in_both", 11)]
    {
        app.load("caller.o", &calling(caller, callee)).unwrap();
        assert_eq!(call(&app, caller), result);
        assert_eq!(call(&app, callee), result);
    }
    app.load("both.o", &returning("in_both", 13)).unwrap();
    assert_eq!(call(&app, "in_both"), 13, "a library's own symbols come first");
    assert_eq!(call(&app, "i"), 11, "what was linked stays linked");
    assert!(app.defines("in_both") && !app.defines("in_second"));
}

#[test]
fn a_library_is_not_searched_through_another() {
    let [app, middle, far] = ["app", "middle", "far"].map(Library::new);
    app.search(&middle);
    middle.search(&far);
    far.load("a.o", &returning("f", 1)).unwrap();
    assert_eq!(middle.address("f"), far.address("f"));
    assert_eq!(app.address("f"), None);
    app.search(&far);
    assert_eq!(app.address("f"), far.address("f"));
    app.stop_searching();
    assert_eq!(app.address("f"), None);
}

#[test]
fn two_strong_definitions_are_an_error_that_names_both() {
    let library = Library::new("app");
    library.load("one.o", &returning("f", 1)).unwrap();
    let object = Functions::default().returning("before", 0).returning("f", 2).returning("after", 0).build();
    let error = library.load("two.o", &object).unwrap_err();
    assert_eq!(error.to_string(), "symbol `f`: it is defined by image `one.o` and by image `two.o`");
    assert!(!library.defines("before") && !library.defines("after"), "nothing of the second is there");
    assert_eq!(library.images().len(), 1);
    assert_eq!(call(&library, "f"), 1);
    let error = library.define("f", 5).unwrap_err();
    assert_eq!(error.to_string(), "symbol `f`: it is defined by image `one.o` and by an absolute definition");
    library.define("at_five", 5).unwrap();
    let error = library.load("three.o", &returning("at_five", 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "symbol `at_five`: it is defined by an absolute definition and by image `three.o`"
    );
    let error = library.define_lazy("f", |_| unreachable!()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "symbol `f`: it is defined by image `one.o` and by the function of library `app`"
    );
    library.load_redirectable("four.o", &returning("g", 4)).unwrap();
    let error = library.load("five.o", &returning("g", 5)).unwrap_err();
    assert_eq!(error.to_string(), "symbol `g`: it is defined by image `four.o` and by image `five.o`");
}

#[test]
fn a_weak_definition_gives_way_to_one_that_is_there() {
    let library = Library::new("app");
    library.load("strong.o", &returning("f", 1)).unwrap();
    let object = Functions::default().weakly_returning("f", 2).calling("calls_f", "f").build();
    let image = library.load("weak.o", &object).unwrap();
    assert_eq!((call(&library, "f"), call(&library, "calls_f")), (1, 1));
    assert_eq!(image.address("f"), None, "it is not this image's any more");

    library
        .load("weak.o", &Functions::default().weakly_returning("g", 3).calling("calls_g", "g").build())
        .unwrap();
    library
        .load("later.o", &Functions::default().weakly_returning("g", 4).calling("too", "g").build())
        .unwrap();
    assert_eq!((call(&library, "g"), call(&library, "too")), (3, 3), "the first of two weak ones");
    library.load("strong.o", &returning("g", 5)).unwrap();
    assert_eq!(
        (call(&library, "g"), call(&library, "calls_g")),
        (5, 3),
        "the name alone goes to a strong one"
    );
}

/// As C++ has it: a variable of an inline function is one, whichever image uses it.
#[test]
fn variables_of_inline_functions_are_one() {
    if !has("g++") {
        return;
    }
    let text = "struct Counter { int value = 40; Counter() {} };\n\
        inline int &counter() { static Counter it; return it.value; }\n\
        template <class T> struct Kept { static T value; };\n\
        template <class T> T Kept<T>::value = 7;\n\
        extern \"C\" int NAME() { return ++counter() + Kept<int>::value++; }\n";
    for flags in [&["-fPIC", "-O1"][..], &["-fPIC", "-O0"], &["-fPIC", "-O2", "-fno-gnu-unique"]] {
        let library = Library::new("app");
        library.add_generator(ProcessSymbols);
        // The C++ library's guards of static variables are not in every test program.
        library.add_generator(
            AbsoluteSymbols::new()
                .with("__cxa_guard_acquire", acquire as *const () as u64)
                .with("__cxa_guard_release", release as *const () as u64),
        );
        for name in ["first", "second"] {
            let define = format!("-DNAME={name}");
            let flags = [flags, &[&define]].concat();
            let image = library.load(name, &compile_text("g++", &flags, "cpp", text)).unwrap();
            // SAFETY: they are the compiler's, of the text above.
            unsafe { image.run_initializers() };
        }
        assert_eq!((call(&library, "first"), call(&library, "second")), (41 + 7, 42 + 8), "{flags:?}");
    }
}

extern "C" fn acquire(guard: *mut u8) -> i32 {
    // SAFETY: the guard of a static variable, of which this thread alone knows.
    i32::from(unsafe { *guard } == 0)
}

extern "C" fn release(guard: *mut u8) {
    // SAFETY: as above.
    unsafe { *guard = 1 };
}

#[test]
fn hidden_symbols_are_their_images_own() {
    let library = Library::new("app");
    let object = Functions::default().returning("secret", 1).hidden().calling("open", "secret").build();
    library.load("one.o", &object).unwrap();
    assert_eq!(call(&library, "open"), 1);
    assert!(library.address("secret").is_none());
    let error = library.load("two.o", &calling("f", "secret")).unwrap_err().to_string();
    assert!(error.contains("`secret`") && error.contains("two.o"), "{error}");
    library.load("three.o", &returning("secret", 3)).unwrap();
    assert_eq!(call(&library, "secret"), 3);
    // What is linked as one image shares what is hidden.
    let user = calling("uses", "other_secret");
    let owner = Functions::default().returning("other_secret", 7).hidden().build();
    let inputs = [("user.o", &user), ("owner.o", &owner)].map(|(name, bytes)| InputObject { name, bytes });
    let image = library.link_all("both", &inputs).unwrap();
    library.add(&image).unwrap();
    assert_eq!(call(&library, "uses"), 7);
    assert!(!library.defines("other_secret"));
}

#[test]
fn generators_are_asked_in_order_and_filters_keep_names_out() {
    let library = Library::new("app");
    library.add_generator(from_fn(|name| (name == "f").then_some(0x1000)));
    library.add_generator(from_fn(|name| matches!(name, "f" | "g").then_some(0x2000)));
    library.add_generator(filtered(ProcessSymbols, |name| name == "getpid"));
    assert_eq!(library.address("f"), Some(0x1000));
    assert_eq!(library.address("g"), Some(0x2000));
    assert!(library.address("getpid").is_some());
    assert_eq!(library.address("getppid"), None);
    library.load("a.o", &calling("calls_getpid", "getpid")).unwrap();
    assert_eq!(call(&library, "calls_getpid") as u32, std::process::id());
    assert!(library.load("b.o", &calling("calls_getppid", "getppid")).is_err());
    library.define("g", 0x3000).unwrap();
    assert_eq!(library.address("g"), Some(0x3000));
    drop(library.undefine("g"));
    assert_eq!(library.address("g"), Some(0x2000));
    // SAFETY: nothing is called.
    let missing = unsafe { library.get::<extern "C" fn()>("h") }.unwrap_err();
    assert_eq!(missing, LookupError::NotInLibrary { library: "app".to_owned(), name: "h".to_owned() });
}

pub(crate) fn archive(name: &str, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let folder = scratch(&format!("{name}.folder"));
    std::fs::create_dir_all(&folder).unwrap();
    let archive = folder.join(name);
    let archive = archive.to_str().unwrap().to_owned();
    let mut arguments = vec!["rcs".to_owned(), archive.clone()];
    for (member, bytes) in members {
        let path = folder.join(member);
        std::fs::write(&path, bytes).unwrap();
        arguments.push(path.to_str().unwrap().to_owned());
    }
    run("ar", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let bytes = std::fs::read(&archive).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    bytes
}

#[test]
fn members_of_archives_are_loaded_when_they_are_needed() {
    if !has("ar") {
        return;
    }
    let members = [
        ("even.o", Functions::default().calling("even", "odd").returning("even_too", 1).build()),
        ("odd.o", Functions::default().calling("odd", "base").calling("back", "even").build()),
        ("base.o", returning("base", 21)),
        ("unused.o", returning("unused", 0)),
        ("broken.o", calling("broken", "nowhere")),
    ];
    let library = Library::new("runtime");
    library.add_generator(ArchiveGenerator::new("libeven.a", archive("libeven.a", &members)).unwrap());
    let app = Library::new("app");
    app.search(&library);
    assert_eq!(library.images().len(), 0);
    app.load("a.o", &calling("f", "even")).unwrap();
    assert_eq!(call(&app, "f"), 21);
    assert!(["even", "odd", "base", "back"].iter().all(|name| library.defines(name)));
    assert!(
        !library.defines("unused") && !app.defines("even"),
        "they are in the library that has the archive"
    );
    assert_eq!(library.images()[0].name(), "libeven.a(even.o)");
    assert_eq!(call(&app, "base"), 21);
    assert_eq!(library.images().len(), 1);

    let error = app.load("b.o", &calling("g", "broken")).unwrap_err().to_string();
    assert!(error.starts_with("image `libeven.a(broken.o)`: ") && error.contains("`nowhere`"), "{error}");
    // SAFETY: nothing is called.
    let error = unsafe { app.get::<extern "C" fn()>("broken") }.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot make a definition of `broken`: ") && error.contains("`nowhere`"),
        "{error}"
    );
    assert!(!library.defines("broken") && !app.defines("g"));
}

/// One asks for what the other has, and that for the first again.
#[test]
fn archives_that_need_each_other_in_a_circle_end_in_an_error() {
    if !has("ar") {
        return;
    }
    let library = Library::new("app");
    for (name, function, needs) in [("liba.a", "a", "b"), ("libb.a", "b", "a")] {
        let bytes = archive(name, &[("member.o", calling(function, needs))]);
        library.add_generator(ArchiveGenerator::new(name, bytes).unwrap());
    }
    let error = library.load("user.o", &calling("f", "a")).unwrap_err().to_string();
    assert!(error.contains("liba.a(member.o)") || error.contains("libb.a(member.o)"), "{error}");
    assert_eq!(library.images().len(), 0);
}

#[test]
fn a_weak_reference_takes_no_member_out_of_an_archive() {
    if !(has("ar") && has(GCC)) {
        return;
    }
    let library = Library::new("app");
    let bytes = archive("libw.a", &[("w.o", returning("w", 5))]);
    library.add_generator(ArchiveGenerator::new("libw.a", bytes).unwrap());
    let text = "__attribute__((weak)) int w(void); int f(void) { return w ? w() : -1; }";
    let object = compile_text(GCC, &["-fPIC"], "c", text);
    let image = library.load("f.o", &object).unwrap();
    assert_eq!(call(&library, "f"), -1);
    assert_eq!(call(&library, "w"), 5, "a lookup takes it");
    drop(library.remove(&image));
    library.load("f.o", &object).unwrap();
    assert_eq!(call(&library, "f"), 5);
}

/// Promises `f`, and makes an object that has not got it.
struct Mistaken;

impl Generator for Mistaken {
    fn generate(
        &self,
        request: &GeneratorRequest<'_>,
    ) -> Result<Option<Generated>, Box<dyn std::error::Error + Send + Sync>> {
        let objects = || Generated::Objects(vec![("g.o".to_owned(), returning("g", 1))]);
        Ok((request.name() == "f").then(objects))
    }
}

#[test]
fn nothing_stays_of_what_lacks_the_name_it_was_generated_for() {
    let library = Library::new("app");
    library.add_generator(Mistaken);
    for _ in 0..2 {
        let error = library.load("user.o", &calling("user", "f")).unwrap_err();
        assert_eq!(error.to_string(), "image `g.o` defines no `f`");
        assert!(library.images().is_empty() && !library.defines("g"));
    }
}

/// It is whole, and others may use it.
#[test]
fn what_was_generated_for_a_load_that_fails_stays() {
    if !has("ar") {
        return;
    }
    let library = Library::new("app");
    let bytes = archive("libstays.a", &[("f.o", returning("f", 1))]);
    library.add_generator(ArchiveGenerator::new("libstays.a", bytes).unwrap());
    let object = Functions::default().calling("user", "f").calling("other", "nowhere").build();
    for _ in 0..2 {
        let error = library.load("user.o", &object).unwrap_err().to_string();
        assert!(error.contains("`nowhere`"), "{error}");
        assert_eq!(library.images().len(), 1);
        assert!(library.defines("f") && !library.defines("user"));
        assert_eq!(call(&library, "f"), 1);
    }
    drop(library.remove(&library.images()[0]));
    assert!(!library.defines("f"));
}

#[test]
fn names_that_nobody_can_ask_for_are_not_entered() {
    let library = Library::new("app");
    let long = "x".repeat(70_000);
    for (image, ordinary) in [("one.o", "f"), ("two.o", "g")] {
        let object = Functions::default().returning("", 1).returning(&long, 2).returning(ordinary, 3).build();
        library.load(image, &object).unwrap();
        assert_eq!(call(&library, ordinary), 3);
    }
    assert!(library.address("").is_none() && library.address(&long).is_none());
    assert!(library.address(&long[..65_536]).is_none() && library.address(&long[..65_535]).is_none());
    assert!(format!("{library:?}").contains("names: 2"), "{library:?}");
}

#[test]
fn a_load_that_fails_leaves_the_table_as_it_was() {
    let library = Library::new("app");
    library.load("a.o", &Functions::default().returning("a", 1).weakly_returning("w", 2).build()).unwrap();
    let before = format!("{library:?}");
    for object in [
        calling("f", "nowhere"),
        Functions::default().returning("w", 3).returning("b", 1).returning("a", 1).build(),
        vec![0; 100],
        Vec::new(),
    ] {
        library.load("broken.o", &object).unwrap_err();
        library.load_redirectable("broken.o", &object).unwrap_err();
        assert_eq!(format!("{library:?}"), before);
        assert_eq!((call(&library, "a"), call(&library, "w")), (1, 2));
        assert_eq!(library.images().len(), 1);
    }
}

/// Whatever an object says of its names, what the library has stays as it was.
#[test]
fn damaged_objects_end_in_an_image_or_an_error() {
    let library = Library::new("app");
    library.load("base", &Functions::default().returning("base", 1).returning("w", 2).build()).unwrap();
    let before = format!("{library:?}");
    let object = Functions::default()
        .weakly_returning("w", 5)
        .calling("f", "w")
        .weakly_returning("v", 6)
        .calling("g", "base")
        .build();
    let mut loaded = 0;
    for place in 0..object.len() * 8 {
        let mut damaged = object.clone();
        damaged[place / 8] ^= 1 << (place % 8);
        // Nothing is called: the code is damaged as well.
        if let Ok(image) = library.load("damaged", &damaged) {
            drop(library.remove(&image));
            loaded += 1;
        }
        if let Ok(image) = library.load_redirectable("damaged", &damaged) {
            drop(library.remove(&image));
            loaded += 1;
        }
    }
    assert!(loaded > 1000, "{loaded}");
    assert_eq!(format!("{library:?}"), before);
    assert_eq!((call(&library, "base"), call(&library, "w")), (1, 2));
}
