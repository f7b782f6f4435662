//! A library with stubs: a function that is made at its first call with all its arguments, one that threads call while it is
//! redefined, and one that cannot be made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use objcache_loader::{Implementation, Library, Loader, PageMemory, pin};

use crate::Counting;

/// As in `library.c`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
struct Big {
    a: i64,
    b: i64,
    c: i64,
    d: f64,
}

type Arguments = extern "C" fn(
    i32,
    i64,
    u8,
    f64,
    f32,
    i32,
    i32,
    i64,
    i32,
    i32,
    i64,
    f64,
    f64,
    f64,
    f64,
    f64,
    f64,
    f64,
) -> Big;

type Version = extern "C" fn(i32, i32) -> i32;

extern "C" fn instead(a: i32, b: i32) -> i32 {
    a - b
}

/// `objects`: that with `arguments`, that with `caller`, and versions of `version`.
pub(crate) fn run(objects: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let objects: Vec<Vec<u8>> = objects.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    let [arguments, caller, versions @ ..] = &objects[..] else { return Err("too few objects".into()) };
    let cache = Arc::new(Counting::default());
    let loader = Loader::builder().memory(Arc::new(PageMemory::with_cache(cache.clone()))).build();
    let library = Library::builder("app")
        .loader(loader)
        .on_failure(|error| {
            println!("{error}");
            instead as Version as usize as u64
        })
        .build();
    first_call(&library, arguments)?;
    library.define_lazy("broken", |_| Err("no luck".into()))?;
    // SAFETY: that is the type of what runs instead.
    println!("broken = {}", unsafe { library.get::<Version>("broken") }?(7, 4));

    let first = library.link("first", &versions[0])?;
    library.define_lazy("version", move |_| Ok(Implementation::from(&first)))?;
    library.load("caller", caller)?;
    redefined_while_called(&library, versions)?;
    println!("made visible = {}", cache.0.load(Ordering::Relaxed) > 4096 / 2);
    Ok(())
}

fn first_call(library: &Library, object: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let object = object.to_vec();
    library.define_lazy("arguments", move |library| {
        // Some work with numbers of all kinds.
        assert!((0..100).map(f64::from).map(f64::sqrt).sum::<f64>() > 600.0);
        Ok(Implementation::from(&library.link("arguments", &object)?))
    })?;
    // SAFETY: that is its type.
    let arguments = unsafe { library.get::<Arguments>("arguments") }?;
    let call = || arguments(1, 2, 3, 0.5, 1.5, 4, 5, 6, 7, 8, 9, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5);
    let first = call();
    println!("arguments = {first:?}, again: {}", call() == first);
    Ok(())
}

fn redefined_while_called(library: &Library, versions: &[Vec<u8>]) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: that is its type.
    let caller = unsafe { library.get::<Version>("caller") }?;
    println!("caller = {}", caller(1, 2));
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _guard = pin();
                    let version = caller(1, 2) - 1000 - 120;
                    assert!((1..=2).contains(&version), "{version}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let redefine = |number: usize| -> Result<(), Box<dyn std::error::Error>> {
            let image = library.link("next", &versions[number % 2])?;
            // SAFETY: the type is the same, and calls are made under guards.
            drop(unsafe { library.redefine("version", &image) }?);
            match caller(1, 2) - 1120 - (number % 2) as i32 {
                1 => Ok(()),
                other => Err(format!("a stale version: {other}").into()),
            }
        };
        let result = (0..300).try_for_each(redefine);
        done.store(true, Ordering::Relaxed);
        result
    })?;
    println!("caller = {}, called meanwhile: {}", caller(1, 2), calls.into_inner() > 0);
    Ok(())
}
