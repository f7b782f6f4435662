//! What images in slabs promise beyond what all memory managers do: they are small, they are reused, they survive
//! forks. Tests that look at all of the process run alone, in a process of their own.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use objcache_loader::{
    LoadError, LoadedImage, Loader, MemoryManager, MemoryRequest, NoSymbols, PageMemory, Segment,
    SegmentRequest, SharedLibrary, SlabMemory, conformance, from_fn,
};
use support::elf::{self, Object, tiny};
use support::*;

#[test]
fn data_of_a_slab_is_private_and_code_has_no_file_to_it() {
    let request = MemoryRequest { segments: [SegmentRequest { size: 10, align: 16 }; 3], low_2gib: false };
    let memory = SlabMemory::new().allocate(&request).unwrap();
    assert_eq!(permissions(memory.target(Segment::Data)), "rw-p");
    assert_eq!(permissions(memory.target(Segment::Code)), "r-xs");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("memfd"));
}

/// Number of mappings and kilobytes of resident memory.
fn footprint() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (maps, resident.trim().trim_end_matches(" kB").parse().unwrap())
}

#[test]
fn memory_is_reused() {
    alone("memory_is_reused", || {
        let object = tiny(1);
        let big = {
            let mut object = Object::default();
            object.section(".text", elf::EXEC, &vec![0xc3; 300_000]);
            object.section(".data", elf::WRITE, &[1; 100]);
            object.build()
        };
        let managers: [(&str, usize, Arc<dyn MemoryManager>); 2] =
            [("pages", 5_000, Arc::new(PageMemory::new())), ("slabs", 100_000, Arc::new(SlabMemory::new()))];
        for (name, loads, manager) in managers {
            let loader = Loader::builder().memory(manager).build();
            let load_and_drop = |count: usize| {
                for number in 0..count {
                    let image = loader.load(&object, &NoSymbols).unwrap();
                    if number % 100 == 0 {
                        drop(loader.load(&big, &NoSymbols).unwrap());
                    }
                    drop(image);
                }
            };
            load_and_drop(2_000);
            let (mappings, resident) = footprint();
            load_and_drop(loads);
            let (mappings_after, resident_after) = footprint();
            assert!(mappings_after <= mappings, "{name}: {mappings} mappings became {mappings_after}");
            assert!(resident_after <= resident + 2_000, "{name}: {resident} kB became {resident_after} kB");
        }
    });
}

/// Memory that nobody had yet comes a page fault at a time; that of a large image which just went is in caches.
#[test]
fn a_large_image_gets_the_memory_of_the_one_before() {
    let large = {
        let mut object = Object::default();
        object.section(".text", elf::EXEC, &vec![0xc3; 100_000]);
        object.build()
    };
    let loader = Loader::builder().memory(Arc::new(SlabMemory::new())).build();
    let range_of_next = || loader.load(&large, &NoSymbols).unwrap().segment_range(Segment::Code);
    let first = range_of_next();
    drop(loader.load(&tiny(1), &NoSymbols).unwrap());
    assert_eq!([range_of_next(), range_of_next()], [first.clone(), first]);
}

#[test]
fn a_live_object_in_a_slab_is_small_and_needs_no_mapping() {
    alone("a_live_object_in_a_slab_is_small_and_needs_no_mapping", || {
        const COUNT: usize = 50_000;
        let loader = Loader::new();
        let object = tiny(5);
        let first = loader.load(&object, &NoSymbols).unwrap();
        let (mappings, resident) = footprint();
        let images: Vec<_> = (0..COUNT).map(|_| loader.load(&object, &NoSymbols).unwrap()).collect();
        let (mappings_after, resident_after) = footprint();
        assert!(images.iter().step_by(999).all(|image| call_int(image, "number", &[]) == 5));
        assert_eq!(call_int(&first, "number", &[]), 5);
        assert!(mappings_after <= mappings + 5, "{mappings} mappings became {mappings_after}");
        let each = (resident_after - resident) * 1024 / COUNT;
        eprintln!("{each} bytes resident per tiny image");
        assert!(each < 1000, "{each} bytes each");
    });
}

/// With `OBJCACHE_SOAK=1` a million times.
#[test]
fn loads_and_unloads_leave_memory_mappings_and_files_flat() {
    alone("loads_and_unloads_leave_memory_mappings_and_files_flat", || {
        let soak = std::env::var_os("OBJCACHE_SOAK").is_some_and(|value| value == "1");
        let cycles = if soak { 1_000_000 } else { 30_000 };
        // SAFETY: the library's initialisers only set up its own streams and locales.
        let runtime = unsafe { SharedLibrary::open(c"libstdc++.so.6") }.ok().filter(|_| has(GXX));
        let catching = runtime.is_some().then(|| {
            let text = "extern \"C\" int catches(int n) { try { if (n) throw n; } catch (int c) { return c; } return 0; }";
            compile_text(GXX, &["-O1", "-fPIC"], "cpp", text)
        });
        let managers: [(&str, usize, Arc<dyn MemoryManager>); 2] = [
            ("slabs", cycles, Arc::new(SlabMemory::new())),
            ("pages", cycles / 10, Arc::new(PageMemory::new())),
        ];
        for (name, cycles, manager) in managers {
            let loader = Loader::builder().memory(manager).build();
            let mut live = std::collections::VecDeque::new();
            let mut cycle = |number: usize| {
                let image = loader.load(&tiny(number as i32), &NoSymbols).unwrap();
                assert_eq!(call_int(&image, "number", &[]), number as i32);
                live.push_back(image);
                if let (0, Some(object), Some(runtime)) = (number % 8, &catching, &runtime) {
                    let image = loader.load(object, runtime).unwrap();
                    if number % 64 == 0 {
                        assert_eq!(call_int(&image, "catches", &[5]), 5);
                    }
                    live.push_back(image);
                }
                while live.len() > 100 {
                    live.pop_front();
                }
            };
            (0..cycles / 10).for_each(&mut cycle);
            let (mappings, resident) = footprint();
            let files = open_files();
            (0..cycles).for_each(&mut cycle);
            let (mappings_after, resident_after) = footprint();
            eprintln!(
                "{name}: {cycles} cycles, {mappings} mappings then {mappings_after}, {resident} kB then {resident_after} kB"
            );
            assert!(mappings_after <= mappings + 2, "{name}: {mappings} mappings became {mappings_after}");
            assert!(resident_after <= resident + 2_000, "{name}: {resident} kB became {resident_after} kB");
            assert_eq!(open_files(), files);
        }
    });
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn memory_of_dropped_images_is_given_back_when_asked_and_when_much_is_unused() {
    alone("memory_of_dropped_images_is_given_back_when_asked_and_when_much_is_unused", || {
        let big = {
            let mut object = Object::default();
            object.section(".text", elf::EXEC, &vec![0xc3; 1 << 20]);
            object.section(".rodata", 0, &vec![1; 1 << 20]);
            object.section(".data", elf::WRITE, &vec![1; 1 << 20]);
            object.build()
        };
        const MEGABYTE: usize = 1024;
        let memory = SlabMemory::new();
        let loader = Loader::builder().memory(Arc::new(memory.clone())).build();
        let kept = loader.load(&tiny(3), &NoSymbols).unwrap();
        let (_, before) = footprint();
        let load = |count| -> Vec<_> { (0..count).map(|_| loader.load(&big, &NoSymbols).unwrap()).collect() };
        let images = load(20);
        let last = loader.load(&tiny(4), &NoSymbols).unwrap();
        let (_, during) = footprint();
        // The views of code and constants are touched when they are written, and not where they run.
        assert!(during > before + 50 * MEGABYTE, "{before} kB became {during} kB");
        drop(images);
        let inherited = fork(|| call_int(&kept, "number", &[]) == 3 && call_int(&last, "number", &[]) == 4);
        assert!(inherited.succeeded());
        memory.release_unused();
        let (_, frozen) = footprint();
        assert!(frozen > before + 50 * MEGABYTE, "what a child may use stays");

        let images = load(20);
        drop(images);
        memory.release_unused();
        let (_, after) = footprint();
        assert!(after < frozen + 3 * MEGABYTE, "{frozen} kB became {after} kB");
        assert_eq!([call_int(&kept, "number", &[]), call_int(&last, "number", &[])], [3, 4]);
        let again = load(3);
        assert_eq!(again[0].segment_size(Segment::Data), 1 << 20);
        drop(again);

        // More than three quarters of a slab, and nothing left: without being asked.
        memory.release_unused();
        let (_, before) = footprint();
        drop(load(50));
        let (_, after) = footprint();
        assert!(after < before + 3 * MEGABYTE, "{before} kB became {after} kB");
    });
}

#[test]
fn dropped_code_is_poisoned() {
    let loader = Loader::new();
    let kept = loader.load(&tiny(3), &NoSymbols).unwrap();
    let image = loader.load(&tiny(4), &NoSymbols).unwrap();
    let address = image.address("number").unwrap();
    drop(image);
    // SAFETY: the slab stays mapped while the loader lives, and nothing is loaded meanwhile.
    let code = unsafe { std::slice::from_raw_parts(address as *const u8, 6) };
    assert_eq!(code, [0xcc; 6]);
    assert_eq!(call_int(&kept, "number", &[]), 3);
}

/// A variable of an image.
fn variable(image: &LoadedImage) -> &AtomicUsize {
    // SAFETY: the variable is eight-byte aligned, and the four bytes behind its own are the image's too.
    let variable = unsafe { image.get::<*const AtomicUsize>("variable") }.unwrap();
    // SAFETY: it lives as long as the image.
    unsafe { &**variable }
}

#[test]
fn parent_and_child_go_their_own_ways_after_a_fork() {
    alone("parent_and_child_go_their_own_ways_after_a_fork", || {
        let loader = Loader::new();
        let mut object = Object::default();
        object.symbol("number", elf::GLOBAL | elf::FUNC, 1, 0);
        object.symbol("variable", elf::GLOBAL, 2, 0);
        object.section(".text", elf::EXEC, &[0xb8, 7, 0, 0, 0, 0xc3]);
        object.section(".data", elf::WRITE, &[0; 8]).align = 8;
        let inherited = loader.load(&object.build(), &NoSymbols).unwrap();
        let dropped_by_parent = loader.load(&tiny(8), &NoSymbols).unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();

        let child = fork(|| {
            // Wait until the parent dropped, and loaded others.
            std::io::Read::read_exact(&mut reader, &mut [0]).unwrap();
            let calls = (0..500).all(|number| {
                let image = loader.load(&tiny(number), &NoSymbols).unwrap();
                call_int(&image, "number", &[]) == number
            });
            calls
                && call_int(&inherited, "number", &[]) == 7
                && call_int(&dropped_by_parent, "number", &[]) == 8
                && variable(&inherited).load(Ordering::SeqCst) == 0
        });
        variable(&inherited).store(1, Ordering::SeqCst);
        drop(dropped_by_parent);
        let others: Vec<_> =
            (0..1000).map(|number| loader.load(&tiny(number), &NoSymbols).unwrap()).collect();
        std::io::Write::write_all(&mut writer, &[1]).unwrap();
        assert!(child.succeeded(), "the child saw wrong code or data");
        assert!(others.iter().zip(0..).all(|(image, number)| call_int(image, "number", &[]) == number));
        assert_eq!(call_int(&inherited, "number", &[]), 7);

        // The child drops what it inherited and loads in its place: the parent does not notice.
        let child = fork(|| {
            // SAFETY: a second owner, but in the child alone, whose memory is a copy and which drops nothing else.
            drop(unsafe { std::ptr::read(&inherited) });
            (0..100).all(|number| {
                call_int(&loader.load(&tiny(number), &NoSymbols).unwrap(), "number", &[]) == number
            })
        });
        assert!(child.succeeded());
        assert_eq!(call_int(&inherited, "number", &[]), 7);
    });
}

#[test]
fn a_fork_in_the_middle_of_a_load_leaves_it_to_the_parent() {
    alone("a_fork_in_the_middle_of_a_load_leaves_it_to_the_parent", || {
        let mut object = Object::default();
        object.symbol("number", elf::GLOBAL | elf::FUNC, 1, 0);
        let asked = object.symbol("asked", elf::GLOBAL, 0, 0);
        object.section(".text", elf::EXEC, &[0xb8, 9, 0, 0, 0, 0xc3]);
        object.section(".data", elf::WRITE, &[0; 8]).relocate(0, 1, asked, 0);
        let object = object.build();
        let parent = std::process::id();
        let resolver = from_fn(|_| {
            // SAFETY: as in `fork` above; here the child goes on and is told from the parent by its number.
            let child = unsafe { libc::fork() };
            if child > 0 {
                let mut status = 0;
                // SAFETY: waits for the child just made.
                unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!(status, 0);
            }
            Some(1)
        });
        let loader = Loader::new();
        let loaded = loader.load(&object, &resolver);
        if std::process::id() != parent {
            let refused = matches!(&loaded, Err(LoadError::Memory(error)) if error.why.contains("forked"));
            let again =
                loader.load(&tiny(5), &NoSymbols).is_ok_and(|image| call_int(&image, "number", &[]) == 5);
            // SAFETY: `_exit` runs no handlers of the parent.
            unsafe { libc::_exit(if refused && again { 0 } else { 1 }) };
        }
        assert_eq!(call_int(&loaded.unwrap(), "number", &[]), 9);
    });
}

#[test]
fn forks_among_loading_threads_do_not_hang() {
    alone("forks_among_loading_threads_do_not_hang", || {
        let loader = Loader::new();
        let stop = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (loader, stop) = (&loader, &stop);
                scope.spawn(move || {
                    while stop.load(Ordering::Relaxed) == 0 {
                        let image = loader.load(&tiny(thread), &NoSymbols).unwrap();
                        assert_eq!(call_int(&image, "number", &[]), thread);
                    }
                });
            }
            for number in 0..30 {
                let child = fork(|| {
                    (0..20).all(|_| {
                        call_int(&loader.load(&tiny(number), &NoSymbols).unwrap(), "number", &[]) == number
                    })
                });
                assert!(child.succeeded());
            }
            stop.store(1, Ordering::Relaxed);
        });
    });
}

#[test]
fn memory_is_to_be_had_where_no_right_to_execute_may_be_gained() {
    alone("memory_is_to_be_had_where_no_right_to_execute_may_be_gained", || {
        const PR_SET_MDWE: libc::c_int = 65;
        const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
        // SAFETY: takes integers, and forbids this process what no other test does here.
        let forbidden = unsafe {
            libc::prctl(
                PR_SET_MDWE,
                REFUSE_EXEC_GAIN,
                0 as libc::c_ulong,
                0 as libc::c_ulong,
                0 as libc::c_ulong,
            )
        };
        if forbidden != 0 {
            return skip("this kernel has no PR_SET_MDWE");
        }
        let managers: [Arc<dyn MemoryManager>; 3] = [
            Arc::new(SlabMemory::new()),
            Arc::new(PageMemory::new()),
            Arc::new(PageMemory::new().at(0x5000_0000)),
        ];
        for memory in managers {
            conformance::check(&*memory);
            let loader = Loader::builder().memory(memory).build();
            let images: Vec<_> =
                (0..20).map(|number| loader.load(&tiny(number), &NoSymbols).unwrap()).collect();
            for (number, image) in (0..).zip(&images) {
                assert_eq!(call_int(image, "number", &[]), number);
            }
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            assert!(!maps.contains(" rwx"), "{maps}");
            // What a process inherits stays what it was.
            assert!(fork(|| call_int(&images[7], "number", &[]) == 7).succeeded());
        }
    });
}
