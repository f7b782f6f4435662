//! Thread-local variables of loaded code: every model that compilers know, in several threads, until the last of them
//! and the image are gone.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::sync::Arc;

use objcache_loader::{
    InputObject, LoadedImage, Loader, PageMemory, ProcessSymbols, SharedLibrary, SlabMemory, chain,
};
use support::*;

/// Initialised and zero variables, of two alignments; a pointer that is relocated; a static one.
const VARIABLES: &str = "
    __thread int counter = 40;
    __thread long zero;
    static __thread char buffer[100];
    int target = 7;
    __thread int *pointer = &target;
    __thread _Alignas(64) int aligned = 3;
    int next(void) { return ++counter; }
    int add(int n) { zero += n; buffer[n & 63] = n; return (int)zero + buffer[n & 63]; }
    int through(void) { return *pointer; }
    int is_aligned(void) { return aligned + (int)((unsigned long)&aligned % 64); }
    long where(void) { return (long)&counter; }
    long where_zero(void) { return (long)&zero; }
";

/// No variable has content.
const ZEROS: &str = "
    __thread int counter;
    static __thread long other;
    int next(void) { other += 2; return ++counter; }
    int add(int n) { return other += n; }
    long where(void) { return (long)&counter; }
";

const DYNAMIC: [&[&str]; 4] = [
    &["-fPIC"],
    &["-fPIC", "-ftls-model=global-dynamic"],
    &["-fPIC", "-ftls-model=local-dynamic"],
    &["-fPIC", "-mtls-dialect=gnu2"],
];

const FIXED: [&[&str]; 4] = [
    &["-fPIC", "-ftls-model=initial-exec"],
    &["-fPIE", "-ftls-model=local-exec"],
    &["-fno-pic"],
    &["-fPIC", "-ftls-model=initial-exec", "-mtls-dialect=gnu2"],
];

fn loaders() -> [Loader; 2] {
    let pages = Loader::builder().memory(Arc::new(PageMemory::new())).build();
    [Loader::builder().memory(Arc::new(SlabMemory::new())).build(), pages]
}

fn load(loader: &Loader, object: &[u8]) -> LoadedImage {
    loader.load(object, &ProcessSymbols).unwrap_or_else(|error| panic!("{error}"))
}

fn call_long(image: &LoadedImage, name: &str) -> u64 {
    // SAFETY: functions of our own fixtures, of that type.
    unsafe { image.get::<extern "C" fn() -> u64>(name).unwrap()() }
}

fn compilers() -> impl Iterator<Item = &'static str> {
    [GCC, CLANG].into_iter().filter(|compiler| has(compiler))
}

#[test]
fn each_thread_has_its_own_initialised_variables() {
    for compiler in compilers() {
        for model in DYNAMIC.into_iter().chain(FIXED) {
            for level in ["-O0", "-O2"] {
                let object = compile_text(compiler, &[&[level], model].concat(), "c", VARIABLES);
                for loader in loaders() {
                    let image = load(&loader, &object);
                    assert_eq!(call_int(&image, "next", &[]), 41, "{compiler} {model:?}");
                    std::thread::scope(|scope| {
                        for _ in 0..3 {
                            scope.spawn(|| in_a_fresh_thread(&image));
                        }
                    });
                    assert_eq!(call_int(&image, "next", &[]), 42);
                    in_a_fresh_thread_after(&image);
                }
            }
        }
    }
}

fn in_a_fresh_thread(image: &LoadedImage) {
    for step in 1..=3 {
        assert_eq!(call_int(image, "next", &[]), 40 + step);
    }
    in_a_fresh_thread_after(image);
}

fn in_a_fresh_thread_after(image: &LoadedImage) {
    assert_eq!(call_int(image, "add", &[5]), 10);
    assert_eq!(call_int(image, "add", &[6]), 17);
    assert_eq!(call_int(image, "through", &[]), 7);
    assert_eq!(call_int(image, "is_aligned", &[]), 3);
    assert_eq!(call_long(image, "where"), call_long(image, "where"));
}

#[test]
fn variables_at_fixed_offsets_are_served_while_they_begin_as_zero() {
    for compiler in compilers() {
        for model in FIXED {
            let object = compile_text(compiler, &[&["-O1"], model].concat(), "c", ZEROS);
            for loader in loaders() {
                let image = load(&loader, &object);
                let before = call_long(&image, "where");
                assert_eq!(call_int(&image, "next", &[]), 1, "{compiler} {model:?}");
                let there = std::thread::scope(|scope| {
                    let thread = scope.spawn(|| {
                        assert_eq!(call_int(&image, "next", &[]), 1);
                        assert_eq!(call_int(&image, "next", &[]), 2);
                        assert_eq!(call_int(&image, "add", &[10]), 14);
                        call_long(&image, "where")
                    });
                    thread.join().unwrap()
                });
                assert_ne!(before, there);
                assert_eq!(call_int(&image, "next", &[]), 2);
            }
        }
    }
}

/// Every way that compilers are told to, in threads that ran before the image was there and in later ones: the variables
/// are those of a program that is made of the same source.
#[test]
fn every_model_does_what_a_program_does() {
    if !has(GCC) {
        return;
    }
    let expected = as_program();
    let [source, other] = [fixture("thread-locals.c"), fixture("thread-locals-other.c")];
    let models = ["global-dynamic", "local-dynamic", "initial-exec", "local-exec"]
        .map(|model| format!("-ftls-model={model}"));
    let mut count = 0;
    for compiler in compilers() {
        for level in ["-O0", "-O2"] {
            for place in ["-fPIC", "-fPIE", "-fno-pic", "-mcmodel=large"] {
                for model in &models {
                    let flags = [level, place, model, "-w"];
                    let objects = [compile(compiler, &flags, &source), compile(compiler, &flags, &other)];
                    let inputs = [("one", &objects[0]), ("other", &objects[1])];
                    let inputs = inputs.map(|(name, bytes)| InputObject { name, bytes });
                    in_threads_before_and_after(&expected, || {
                        let (image, _) = Loader::new()
                            .load_all(&inputs, &ProcessSymbols)
                            .unwrap_or_else(|error| panic!("{compiler} {flags:?}: {error}"));
                        image
                    });
                    count += 1;
                }
            }
        }
    }
    eprintln!("{count} pairs of objects, in 4 threads each");
}

/// One thread waits for the image, and is one of the many that are full of other blocks by then.
fn in_threads_before_and_after(expected: &str, load: impl FnOnce() -> LoadedImage) {
    let image = std::sync::OnceLock::new();
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let image = &image;
        scope.spawn(move || {
            wait.recv().unwrap();
            assert_eq!(calls(image.get().unwrap()), expected, "a thread from before");
        });
        image.set(load()).unwrap();
        ready.send(()).unwrap();
        assert_eq!(calls(image.get().unwrap()), expected, "the thread that loads");
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(calls(image.get().unwrap()), expected, "a later thread"));
        }
    });
}

const CALLS: [(&str, i32, i32); 15] = [
    ("next", 0, 0),
    ("next", 0, 0),
    ("add", 3, 0),
    ("add", 4, 0),
    ("through", 0, 0),
    ("is_aligned", 0, 0),
    ("mix", 3, 5),
    ("mix", 7, -2),
    ("called", 0, 0),
    ("jumped", 0, 0),
    ("from_outside", 5, 0),
    ("next", 0, 0),
    ("pushed", 9, 0),
    ("computed", 1, 0),
    ("computed", 0, 0),
];

fn calls(image: &LoadedImage) -> String {
    let call = |(name, a, b)| format!("{name} = {}\n", call_int(image, name, &[a, b]));
    CALLS.into_iter().map(call).collect()
}

/// What the calls return in a program.
fn as_program() -> String {
    let [driver, program] = ["threads-driver.c", "threads-program"].map(scratch);
    let call = |(name, a, b)| format!("{{ int {name}(); printf(\"{name} = %d\\n\", {name}({a}, {b})); }}\n");
    let calls: String = CALLS.into_iter().map(call).collect();
    std::fs::write(&driver, format!("#include <stdio.h>\nint main(void) {{\n{calls}return 0; }}\n")).unwrap();
    let files = [fixture("thread-locals.c"), fixture("thread-locals-other.c"), driver];
    let mut arguments: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    arguments.extend(["-O0", "-w", "-o", program.to_str().unwrap()]);
    run(GCC, &arguments);
    let output = std::process::Command::new(&program).output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A call through a variable returns to where unwind tables know it.
#[test]
fn exceptions_pass_calls_through_variables() {
    let source = "
        static int thrower(int n) { if (n > 2) throw n; return n; }
        static thread_local int (*volatile function)(int) = thrower;
        static thread_local long padding[3] = { 1, 2, 3 };
        extern \"C\" int caught(int n) {
            struct Guard { ~Guard() { padding[1] += 100; } };
            try { Guard guard; return function(n) + 1000; }
            catch (int thrown) { return thrown + (int)padding[1]; }
        }
    ";
    // SAFETY: the library's initialisers prepare itself only.
    let Ok(libstdcxx) = (unsafe { SharedLibrary::open(c"libstdc++.so.6") }) else {
        return skip("there is no libstdc++.so.6");
    };
    let cpp = chain(libstdcxx, ProcessSymbols);
    for compiler in [GXX, CLANGXX].into_iter().filter(|compiler| has(compiler)) {
        // Non-PIC code reaches what is near, which the C++ library is not.
        for model in [FIXED[0], &["-fPIC", "-ftls-model=local-exec"]] {
            for level in ["-O0", "-O2"] {
                let object = compile_text(compiler, &[&[level], model].concat(), "cpp", source);
                for loader in loaders() {
                    let image = loader.load(&object, &cpp).unwrap_or_else(|error| panic!("{error}"));
                    std::thread::scope(|scope| {
                        for _ in 0..2 {
                            scope.spawn(|| {
                                assert_eq!(call_int(&image, "caught", &[1]), 1001);
                                assert_eq!(call_int(&image, "caught", &[7]), 7 + 202);
                                assert_eq!(call_int(&image, "caught", &[8]), 8 + 302);
                            });
                        }
                    });
                }
            }
        }
    }
}

/// What no compiler writes has an error that says where.
#[test]
fn what_no_detour_goes_round_is_refused_by_name() {
    if !has(CLANG) {
        return;
    }
    let cases = [
        ("mov %rsp, %fs:v@tpoff", "in an instruction of this form"),
        ("popq %fs:v@tpoff", "in an instruction of this form"),
        ("pushw %fs:v@tpoff", "in an instruction of this form"),
        ("movq $v@tpoff, 8(%rax)", "in an instruction of this form"),
        ("cmp $v@tpoff, %rax", "in an instruction of this form"),
        ("mov v@tpoff(%eax), %eax", "in an instruction of this form"),
        ("mov v@tpoff(%rsp), %eax", "in an instruction of this form"),
        ("mov v@tpoff(%rip), %eax", "in an instruction of this form"),
        ("call *%fs:v@tpoff(%r11)", "served"),
        ("call *%fs:v@tpoff(,%r11,8)", "in an instruction of this form"),
        ("ljmp *%fs:v@tpoff", "in an instruction of this form"),
        ("cmp v@gottpoff(%rip), %rax", "other than MOV and ADD"),
        ("mov v@gottpoff(%rip), %rsp", "in an instruction of this form"),
        ("mov v@gottpoff(%rip), %r16", "in an instruction of this form"),
        (".byte 6\nmov %fs:v@tpoff, %eax", "does not decode"),
        (".byte 0xa1\n.reloc ., R_X86_64_TPOFF32, v\n.quad 0", "in an instruction of this form"),
        (".data\n.quad v@tpoff", "in data"),
        ("mov %fs:v@tpoff, %eax\n.reloc .-4, R_X86_64_TPOFF32, v", "does not decode"),
        ("mov v@gottpoff(%rip), %rax\n.reloc .-4, R_X86_64_GOTTPOFF, v-4", "second"),
        ("mov %fs:v@tpoff, %rax", "served"),
    ];
    for (text, problem) in cases {
        let source = format!(
            ".globl f\n.type f, @function\nf: {text}\nret\n.section .tdata, \"awT\", @progbits\n\
             .type v, @object\nv: .quad 5\n.size v, 8\n"
        );
        let object = compile_text(CLANG, &[], "s", &source);
        match Loader::new().load(&object, &ProcessSymbols) {
            Ok(_) => assert_eq!(problem, "served", "{text}"),
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("TPOFF") && error.contains(problem), "{text}: {error}");
            }
        }
    }
}

/// What begins as zero has no other place than what has content, once there is no more room at one distance.
#[test]
fn room_at_fixed_offsets_does_not_end() {
    if !has(GCC) {
        return;
    }
    let source = "static __thread char buffer[SIZE]; int next(void) { return buffer[SIZE - 1] += 3; }";
    let aligned = "static _Alignas(4096) __thread char buffer[8]; \
                   int next(void) { return (buffer[0] += 3) + (int)((unsigned long)buffer & 4095); }";
    let object = |size: &str| compile_text(GCC, &["-fno-pic", size], "c", source);
    let [large, many] = [object("-DSIZE=500000"), object("-DSIZE=600")];
    let aligned = compile_text(GCC, &["-fno-pic"], "c", aligned);
    let loader = Loader::new();
    let images: Vec<_> = (0..20).map(|_| load(&loader, &many)).collect();
    for image in images.iter().chain([&load(&loader, &large), &load(&loader, &aligned)]) {
        assert_eq!(call_int(image, "next", &[]), 3);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(call_int(image, "next", &[]), 3));
        });
        assert_eq!(call_int(image, "next", &[]), 6);
    }
}

#[test]
fn variables_of_the_process_are_reached_by_every_model() {
    let source = "
        extern __thread int errno_of_the_process __asm__(\"errno\");
        int get(void) { return errno_of_the_process; }
        void set(int value) { errno_of_the_process = value; }
    ";
    for compiler in compilers() {
        let models: [&[&str]; 4] = [DYNAMIC[0], DYNAMIC[3], FIXED[0], &["-fPIE"]];
        for model in models {
            let object = compile_text(compiler, &[&["-O1"], model].concat(), "c", source);
            for loader in loaders() {
                let image = load(&loader, &object);
                // SAFETY: of our own fixture, of that type.
                let set = unsafe { image.get::<extern "C" fn(i32)>("set").unwrap() };
                set_errno(5);
                assert_eq!(call_int(&image, "get", &[]), 5, "{compiler} {model:?}");
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        set(77);
                        assert_eq!(errno(), 77);
                    });
                });
                // Waiting for a thread may set it, but not to that.
                assert_ne!(errno(), 77);
                assert_eq!(call_int(&image, "get", &[]), errno());
            }
        }
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

unsafe extern "C" {
    safe fn __errno_location() -> *mut i32;
}

fn set_errno(value: i32) {
    // SAFETY: the C library's variable of this thread.
    unsafe { *__errno_location() = value };
}

/// The resolver of descriptors keeps what no other call has to.
#[test]
fn a_descriptor_keeps_all_registers() {
    if !has(CLANG) {
        return;
    }
    let source = "
        .globl check
        check:
            push %rbp
            push %rbx
            push %r12
            push %r13
            push %r14
            push %r15
            sub $8, %rsp
            .irp r, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
            mov $number_\\r, %\\r
            .endr
            .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
            movq %rsp, %xmm\\n
            pinsrw $5, %esp, %xmm\\n
            movdqu %xmm\\n, -128-256(%rsp)
            .endr
            leaq variable@tlsdesc(%rip), %rax
            call *variable@tlscall(%rax)
            .irp r, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
            cmp $number_\\r, %\\r
            jne 1f
            .endr
            .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
            movq %xmm\\n, %rcx
            cmp %rsp, %rcx
            jne 1f
            pextrw $5, %xmm\\n, %ecx
            movzwl %sp, %edx
            cmp %edx, %ecx
            jne 1f
            .endr
            movl %fs:(%rax), %eax
            jmp 2f
        1:  mov $-1, %eax
        2:  add $8, %rsp
            pop %r15
            pop %r14
            pop %r13
            pop %r12
            pop %rbx
            pop %rbp
            ret
            number_rbx = 0x11111111; number_rcx = 0x11111112; number_rdx = 0x11111113; number_rsi = 0x11111114
            number_rdi = 0x11111115; number_rbp = 0x11111116; number_r8 = 0x11111117; number_r9 = 0x11111118
            number_r10 = 0x11111119; number_r11 = 0x1111111a; number_r12 = 0x1111111b; number_r13 = 0x1111111c
            number_r14 = 0x1111111d; number_r15 = 0x1111111e
        .section .tdata, \"awT\", @progbits
        .long 0
        .type variable, @object
        variable: .long 1234
        .size variable, 4
    ";
    let object = compile_text(CLANG, &[], "s", source);
    for loader in loaders() {
        let image = load(&loader, &object);
        // The first call makes the block, the second finds it.
        for _ in 0..2 {
            assert_eq!(call_int(&image, "check", &[]), 1234);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(call_int(&image, "check", &[]), 1234));
        });
    }
}

/// A thread may remember the block of an image that is gone; the next image must not get it.
#[test]
fn an_image_that_goes_takes_its_blocks_along() {
    if !has(GCC) {
        return;
    }
    let object = |start: i32| {
        let source = format!("__thread int v = {start}; int next(void) {{ return ++v; }}");
        compile_text(GCC, &["-O1", "-fPIC"], "c", &source)
    };
    let [first, second] = [object(100), object(200)];
    let loader = Loader::new();
    for _ in 0..200 {
        let image = load(&loader, &first);
        assert_eq!(call_int(&image, "next", &[]), 101);
        let other = load(&loader, &second);
        drop(image);
        assert_eq!(call_int(&other, "next", &[]), 201);
        let again = load(&loader, &first);
        assert_eq!(call_int(&again, "next", &[]), 101);
        assert_eq!(call_int(&other, "next", &[]), 202);
    }
}

/// Threads that come and go while images come and go.
#[test]
fn threads_and_images_end_in_any_order() {
    if !has(GCC) {
        return;
    }
    let source = "__thread int v = 9; static __thread char b[3000]; int next(void) { b[v] = 1; return ++v; }";
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", source);
    let loader = Loader::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let image = Arc::new(load(&loader, &object));
                    let shared = Arc::clone(&image);
                    let thread = std::thread::spawn(move || call_int(&shared, "next", &[]));
                    assert_eq!(call_int(&image, "next", &[]), 10);
                    drop(image);
                    assert_eq!(thread.join().unwrap(), 10);
                }
            });
        }
    });
}

const OBJECTS: &str = r#"
    extern "C" int log_entry(int);
    struct Noisy {
        int number;
        Noisy(int n) : number(n) { log_entry(n); }
        ~Noisy() { log_entry(-number); }
    };
    static int (*logger)(int);
    extern "C" int log_entry(int n) { return logger(n); }
    thread_local Noisy first(1);
    thread_local Noisy second(2);
    extern "C" int touch(int (*l)(int)) { logger = l; return first.number + second.number; }
"#;

static LOG: parking_lot::Mutex<Vec<i32>> = parking_lot::Mutex::new(Vec::new());

extern "C" fn log(entry: i32) -> i32 {
    LOG.lock().push(entry);
    0
}

fn touch(image: &LoadedImage) {
    // SAFETY: of our own fixture, of that type.
    let touch = unsafe { image.get::<extern "C" fn(extern "C" fn(i32) -> i32) -> i32>("touch").unwrap() };
    assert_eq!(touch(log), 3);
}

#[test]
fn thread_local_objects_are_destroyed_with_their_thread_or_image() {
    for compiler in [GXX, CLANGXX].into_iter().filter(|compiler| has(compiler)) {
        for model in [DYNAMIC[0], DYNAMIC[3]].into_iter().chain(FIXED) {
            let object =
                compile_text(compiler, &[&["-O1", "-fno-exceptions"], model].concat(), "cpp", OBJECTS);
            for loader in loaders() {
                let image = load(&loader, &object);
                LOG.lock().clear();
                std::thread::scope(|scope| {
                    let thread = scope.spawn(|| {
                        touch(&image);
                        touch(&image);
                    });
                    // The scope alone does not wait for destructors.
                    thread.join().unwrap();
                });
                assert_eq!(*LOG.lock(), [1, 2, -2, -1], "{compiler}: the thread ends");
                LOG.lock().clear();
                touch(&image);
                drop(image);
                assert_eq!(*LOG.lock(), [1, 2, -2, -1], "{compiler}: the image goes");
            }
        }
    }
}

/// What another thread would still have destroyed is forgotten with the image, instead of run in memory that is gone.
#[test]
fn an_image_that_goes_before_the_thread_is_not_called_by_it() {
    if !has(GXX) {
        return;
    }
    let source = OBJECTS.replace("log_entry(-number);", "__builtin_trap();");
    let object = compile_text(GXX, &["-O1", "-fPIC", "-fno-exceptions"], "cpp", &source);
    let (to_thread, tasks) = std::sync::mpsc::channel::<Arc<LoadedImage>>();
    let (done, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        for image in tasks {
            // Takes no part in the log of the other test.
            extern "C" fn nothing(_: i32) -> i32 {
                0
            }
            // SAFETY: of our own fixture, of that type.
            let touch = unsafe { image.get::<extern "C" fn(extern "C" fn(i32) -> i32) -> i32>("touch") };
            assert_eq!(touch.unwrap()(nothing), 3);
            drop(image);
            done.send(()).unwrap();
        }
    });
    let image = Arc::new(load(&Loader::new(), &object));
    to_thread.send(Arc::clone(&image)).unwrap();
    wait.recv().unwrap();
    assert!(Arc::into_inner(image).is_some(), "the thread gave it back; now it goes");
    drop(to_thread);
    thread.join().unwrap();
}
