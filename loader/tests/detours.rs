//! Instructions with a thread-local variable at a fixed distance (local-exec, initial-exec): what they do in loaded code,
//! where a detour stands for them, is what the same instructions do in a program that the system's linker made of the
//! same source. Every register, the flags, the red zone and the variables are compared.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::fmt::Write as _;
use std::process::Command;

use objcache_loader::{InputObject, Loader, ProcessSymbols};
use support::*;

const CASES: usize = 1500;

/// General registers in the order of the state; the stack pointer is not one.
const REGISTERS: [&str; 15] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Their lowest 32, 16 and 8 bits.
fn narrow(register: &str, bytes: u64) -> String {
    let old =
        |last: &str| register.strip_prefix('r').map(|rest| format!("{}{last}", rest.trim_end_matches('x')));
    let is_new = register.as_bytes()[1].is_ascii_digit();
    match (bytes, is_new) {
        (8, _) => register.to_owned(),
        (4, true) => format!("{register}d"),
        (2, true) => format!("{register}w"),
        (_, true) => format!("{register}b"),
        (4, false) => format!("e{}", &register[1..]),
        (2, false) => register[1..].to_owned(),
        (_, false) if register.ends_with('x') => old("l").unwrap(),
        (_, false) => format!("{}l", &register[1..]),
    }
}

/// The state in, and per case the state out: registers, flags, vector registers, the red zone, how far the stack pointer
/// moved and the variable.
const HARNESS: &str = r#"
    .macro registers action
        .irp r, rbx, rcx, rdx, rsi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rdi, rax
        \action \r
        .endr
    .endm
    .macro enter state
        push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; sub $8, %rsp
        mov %rsp, stack_pointer(%rip)
        lea \state(%rip), %rdi
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        VLOAD 128+32*\n(%rdi), \n
        mov 8*\n(%rdi), %rax
        mov %rax, -128+8*\n(%rsp)
        .endr
        lea -128(%rsp), %rsp
        pushq 120(%rdi)
        popfq
        lea 128(%rsp), %rsp
        mov 0(%rdi), %rax; mov 8(%rdi), %rbx; mov 16(%rdi), %rcx; mov 24(%rdi), %rdx; mov 32(%rdi), %rsi
        mov 48(%rdi), %rbp; mov 56(%rdi), %r8; mov 64(%rdi), %r9; mov 72(%rdi), %r10; mov 80(%rdi), %r11
        mov 88(%rdi), %r12; mov 96(%rdi), %r13; mov 104(%rdi), %r14; mov 112(%rdi), %r15; mov 40(%rdi), %rdi
    .endm
    .text
    .globl finish
    finish:
        mov %rdi, kept+40(%rip)
        mov result(%rip), %rdi
        mov %rax, 0(%rdi); mov %rbx, 8(%rdi); mov %rcx, 16(%rdi); mov %rdx, 24(%rdi); mov %rsi, 32(%rdi)
        mov kept+40(%rip), %rax
        mov %rax, 40(%rdi)
        mov %rbp, 48(%rdi); mov %r8, 56(%rdi); mov %r9, 64(%rdi); mov %r10, 72(%rdi); mov %r11, 80(%rdi)
        mov %r12, 88(%rdi); mov %r13, 96(%rdi); mov %r14, 104(%rdi); mov %r15, 112(%rdi)
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        mov -128+8*\n(%rsp), %rax
        mov %rax, 640+8*\n(%rdi)
        .endr
        lea -128(%rsp), %rsp
        pushfq
        popq 120(%rdi)
        lea 128(%rsp), %rsp
        cld
        mov %rsp, %rax
        sub stack_pointer(%rip), %rax
        mov %rax, 768(%rdi)
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        VSTORE \n, 128+32*\n(%rdi)
        .endr
        mov stack_pointer(%rip), %rsp
        mov %fs:0, %rax
        lea v@tpoff(%rax), %rsi
        add $776, %rdi
        mov $128, %ecx
        rep movsb
        add $120, %rdi
        mov %rdi, result(%rip)
        # The variable is again what it was.
        lea v@tpoff(%rax), %rdi
        lea initial(%rip), %rsi
        mov $128, %ecx
        rep movsb
        add $8, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
        ret
    .bss
    .balign 64
    .globl results
    results: .skip 1024 * (CASES + 1)
    stack_pointer: .quad 0
    result: .quad 0
    kept: .skip 128
    .text
    .globl run_case
    run_case:
        lea results(%rip), %rax
        mov %rax, result(%rip)
        lea cases(%rip), %rax
        jmp *(%rax,%rdi,8)
    .globl run_all
    run_all:
        sub $8, %rsp
        lea results(%rip), %rax
        mov %rax, result(%rip)
"#;

struct Generator {
    random: Random,
    has_avx: bool,
}

impl Generator {
    fn register(&mut self, but: &[&str]) -> &'static str {
        loop {
            let register = self.random.one_of(&REGISTERS);
            if !but.contains(&register) {
                return register;
            }
        }
    }

    /// What goes before an instruction, its operand, and what makes registers with addresses comparable after it.
    fn memory(&mut self, but: &[&str]) -> (String, String, String) {
        let place = self.random.below(4) * 16;
        let index = self.register(but);
        let pointer = self.register(&[but, &[index]].concat());
        let small = self.random.below(4);
        let scale = self.random.one_of(&[1, 2, 4, 8]);
        let index_is = |scale: u64| format!("mov ${}, %{index}", small * 16 / scale);
        let pointer_is = format!("mov %fs:0, %{pointer}");
        let pointer_was = format!("mov $0, %{pointer}");
        match self.random.below(6) {
            0 | 1 => (String::new(), format!("%fs:v@tpoff+{place}"), String::new()),
            2 => (index_is(1), format!("%fs:v@tpoff+{place}(%{index})"), String::new()),
            3 => (index_is(scale), format!("%fs:v@tpoff+{place}(,%{index},{scale})"), String::new()),
            4 => (pointer_is, format!("v@tpoff+{place}(%{pointer})"), pointer_was),
            _ => (
                format!("{pointer_is}; {}", index_is(scale)),
                format!("v@tpoff+{place}(%{pointer},%{index},{scale})"),
                pointer_was,
            ),
        }
    }

    fn instruction(&mut self) -> String {
        let bytes = self.random.one_of(&[1, 2, 4, 8, 4, 8]);
        let suffix = match bytes {
            1 => "b",
            2 => "w",
            4 => "l",
            _ => "q",
        };
        let full = self.register(&[]);
        let register = narrow(full, bytes);
        let immediate = match bytes {
            1 => self.random.below(128),
            2 => self.random.below(1 << 15),
            _ => {
                let bits = self.random.one_of(&[7, 31]);
                self.random.below(1 << bits)
            }
        };
        let (before, memory, after) = self.memory(&[full, "rax", "rdx", "rcx", "rbx"]);
        let arithmetic =
            self.random.one_of(&["add", "sub", "and", "or", "xor", "adc", "sbb", "cmp", "mov", "test"]);
        let condition =
            self.random.one_of(&["o", "no", "c", "nc", "z", "nz", "be", "a", "s", "ns", "p", "np", "l", "g"]);
        let wide = narrow(full, bytes.max(2));
        let xmm = self.random.below(16);
        let other = self.random.below(16);
        let instruction = match self.random.below(36) {
            0..=4 => format!("{arithmetic}{suffix} {memory}, %{register}"),
            5..=9 => format!("{arithmetic}{suffix} %{register}, {memory}"),
            10..=12 => format!("{arithmetic}{suffix} ${immediate}, {memory}"),
            13 => format!("imul{} {memory}, %{wide}", if bytes == 1 { "w" } else { suffix }),
            14 => format!("imulq ${immediate}, {memory}, %{full}"),
            15 => format!(
                "{} {memory}, %{full}",
                self.random.one_of(&["movzbq", "movswq", "movslq", "movsbq", "movzwq"])
            ),
            16 => format!(
                "{}{suffix} {memory}",
                self.random.one_of(&["inc", "dec", "neg", "not", "mul", "imul"])
            ),
            17 => format!(
                "{}{suffix} ${}, {memory}",
                self.random.one_of(&["shl", "sar", "shr", "rol"]),
                immediate % 8
            ),
            18 => format!("{}{suffix} %cl, {memory}", self.random.one_of(&["shl", "sar", "shr", "ror"])),
            19 => format!("lock cmpxchg{suffix} %{register}, {memory}"),
            20 => format!("lock xadd{suffix} %{register}, {memory}"),
            21 => format!("xchg{suffix} %{register}, {memory}"),
            22 => format!(
                "{} ${}, {memory}",
                self.random.one_of(&["btq", "btsl", "lock btrq", "btcw"]),
                immediate % 16
            ),
            23 => format!("set{condition} {memory}"),
            24 => format!("cmov{condition}q {memory}, %{full}"),
            25 => format!("{} {memory}, %{full}", self.random.one_of(&["bsfq", "bsrq", "popcntq"])),
            26 => format!(
                "{} {memory}, %xmm{xmm}",
                self.random.one_of(&["movups", "movdqa", "movss", "addps", "pxor", "cvtsi2sdq", "addsd"])
            ),
            27 => format!(
                "{} %xmm{xmm}, {memory}",
                self.random.one_of(&["movups", "movdqa", "movss", "movq", "movsd"])
            ),
            28 => format!("pshufd ${}, {memory}, %xmm{xmm}", immediate % 256),
            29 => {
                let high = self.random.one_of(&["ah", "bh", "ch", "dh"]);
                // Registers that came later cannot be in one instruction with these.
                let others =
                    ["rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
                let (before, memory, after) = self.memory(&others);
                let text = match self.random.below(2) {
                    0 => format!("{arithmetic}b %{high}, {memory}"),
                    _ => format!("{arithmetic}b {memory}, %{high}"),
                };
                return format!("{before}; {text}; {after}");
            }
            30 => return format!("{before}; pushq {memory}; {after}; popq %{full}"),
            31 => format!("lock cmpxchg16b {memory}"),
            32 if self.has_avx => format!("vpaddd {memory}, %ymm{xmm}, %ymm{other}"),
            33 if self.has_avx => format!("vinserti128 ${}, {memory}, %ymm{xmm}, %ymm{other}", immediate % 2),
            32 => format!("fldl {memory}; fstpl {memory}"),
            33 => format!("movbeq {memory}, %{full}"),
            34 => {
                // Ways to an address: what is there is compared.
                let pointer = self.register(&[]);
                let text = self.random.one_of(&[
                    "mov %fs:0, %P; lea v@tpoff+16(%P), %P",
                    "mov %fs:0, %P; add $v@tpoff+16, %P",
                    "mov $v@tpoff+16, %P; add %fs:0, %P",
                    "movabs $v@tpoff+16, %P; add %fs:0, %P",
                    "mov v@gottpoff(%rip), %P; add %fs:0, %P",
                    "mov %fs:0, %P; add v@gottpoff(%rip), %P",
                    "mov v@gottpoff(%rip), %P; mov %fs:16(%P), %P; jmp 3f",
                ]);
                // Sums of addresses have flags of their own.
                let text = text.replace("%P", &format!("%{pointer}"));
                return format!("{text}; mov (%{pointer}), %{pointer}; 3: test %{pointer}, %{pointer}");
            }
            _ => {
                // Through pointers in the variable: a call, and jumps to where they lead.
                let text = self.random.one_of(&[
                    "lea 5f(%rip), %r11; mov %r11, %fs:v@tpoff; mov $77, %r11; jmp *%fs:v@tpoff; ud2; 5:",
                    "lea 5f(%rip), %rax; mov %rax, %fs:v@tpoff+8; mov $1, %eax; mov $77, %r11; \
                     jmp *%fs:v@tpoff(,%rax,8); ud2; 5:",
                    "lea callee(%rip), %r11; mov %r11, %fs:v@tpoff; call *%fs:v@tpoff; mov $0, %r11",
                    "lea callee(%rip), %rax; mov %rax, %fs:v@tpoff; mov %fs:0, %rax; call *v@tpoff(%rax); \
                     mov $0, %rax; mov $0, %r11",
                    "lea callee(%rip), %r11; mov %r11, %fs:v@tpoff; mov %fs:0, %r11; call *v@tpoff(%r11); \
                     mov $0, %r11",
                ]);
                // A call uses what is below the stack pointer.
                let cleared =
                    (1..=16).map(|word| format!("; movq $0, -{}(%rsp)", 8 * word)).collect::<String>();
                return format!("{text}; movq $0, %fs:v@tpoff; movq $0, %fs:v@tpoff+8{cleared}");
            }
        };
        format!("{before}; {instruction}; {after}")
    }

    fn source(&mut self) -> String {
        let mut text = HARNESS.replace("CASES", &CASES.to_string());
        let (load, store) = match self.has_avx {
            true => ("vmovdqu \\place, %ymm\\n", "vmovdqu %ymm\\n, \\place"),
            false => ("movdqu \\place, %xmm\\n", "movdqu %xmm\\n, \\place"),
        };
        let macros =
            format!(".macro VLOAD place, n\n{load}\n.endm\n.macro VSTORE n, place\n{store}\n.endm\n");
        text.insert_str(0, &macros);
        for case in 0..CASES {
            writeln!(text, "call case_{case}").unwrap();
        }
        text.push_str("add $8, %rsp\nret\ncallee: cmp $5, %rdi; ret\n");
        let mut states = String::from(".data\n.balign 64\n");
        for case in 0..CASES {
            let instruction = self.instruction();
            // Functions, as far as the loader is told of them, are of one case or of several.
            let kind = if self.random.below(3) == 0 { "@notype" } else { "@function" };
            writeln!(
                text,
                ".type case_{case}, {kind}\ncase_{case}: enter state_{case}\n{instruction}\ncall_finish"
            )
            .unwrap();
            // CF, PF, AF, ZF, SF, DF, OF; interrupts stay on.
            let flags = self.random.next() & 0xcd5 | 0x202;
            let mut words: Vec<u64> = (0..15).map(|_| self.random.next()).collect();
            words.push(flags);
            // Floating-point numbers of any kind, but none that is slow.
            words.extend((0..64).map(|_| self.random.next()));
            let words: Vec<_> = words.iter().map(|word| format!("{word:#x}")).collect();
            writeln!(states, "state_{case}: .quad {}", words.join(", ")).unwrap();
        }
        let cases: Vec<_> = (0..CASES).map(|case| format!("case_{case}")).collect();
        writeln!(states, "cases: .quad {}", cases.join(", ")).unwrap();
        let content: Vec<_> = (0..16).map(|_| format!("{:#x}", self.random.next())).collect();
        let content = content.join(", ");
        let text = text.replace("call_finish", "jmp finish");
        format!(
            "{text}\n{states}\n.section .rodata\ninitial: .quad {content}\n\
             .section .tdata, \"awT\", @progbits\n.balign 64\n.globl v\n.type v, @object\nv: .quad {content}\n.size v, 128\n\
             .section .note.GNU-stack, \"\", @progbits\n"
        )
    }
}

#[test]
fn instructions_do_the_same_through_detours() {
    if !has(CLANG) || !has(GCC) {
        return;
    }
    for seed in [0x9e37_79b9_7f4a_7c15, 0x2545_f491_4f6c_dd1d] {
        let mut generator = Generator { random: Random(seed), has_avx: is_x86_feature_detected!("avx2") };
        let source = generator.source();
        let object = compile_text(CLANG, &[], "s", &source);
        let expected = as_program(&object);
        let image = Loader::new().load(&object, &ProcessSymbols).unwrap_or_else(|error| panic!("{error}"));
        let results = || {
            // SAFETY: of our own source, an array.
            let start = unsafe { *image.get::<*const u8>("results").unwrap() };
            // SAFETY: as many bytes as the source sets aside; one thread at a time.
            unsafe { std::slice::from_raw_parts(start, CASES * 1024) }.to_vec()
        };
        let run_all = || {
            // SAFETY: of our own source, of that type.
            unsafe { image.get::<extern "C" fn()>("run_all").unwrap()() };
            results()
        };
        let [all, expected] = [run_all(), expected].map(|results| {
            assert_eq!(results.len(), CASES * 1024);
            results.chunks(1024).map(<[u8]>::to_vec).collect::<Vec<_>>()
        });
        for case in 0..CASES {
            compare(&source, case, &all[case], &expected[case]);
        }
        // The first access of a thread makes its variables.
        for case in (0..CASES).step_by(7) {
            let run = || {
                // SAFETY: of our own source, of that type.
                unsafe { image.get::<extern "C" fn(usize)>("run_case").unwrap()(case) };
                results()[..1024].to_vec()
            };
            let here = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
            compare(&source, case, &here, &expected[case]);
        }
    }
}

/// Loading runs nothing, so whatever is damaged, it ends in an image or in an error.
#[test]
fn damaged_objects_are_loaded_or_refused() {
    if !has(CLANG) {
        return;
    }
    let source = "
        static __thread int counter = 5; static __thread void (*f)(int); extern __thread long other;
        int next(int n) { f(n); other += n; return counter += n; }
        int *where(void) { return &counter; }
    ";
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut loaded, mut refused) = (0, 0);
    for model in ["-ftls-model=local-exec", "-ftls-model=initial-exec"] {
        let other = compile_text(CLANG, &["-O1", model], "c", "__thread long other = 7;");
        let object = compile_text(CLANG, &["-O1", "-fPIC", "-ffunction-sections", model], "c", source);
        for place in 0..object.len() {
            for change in 0..4 {
                let mut damaged = object.clone();
                damaged[place] = match change {
                    0 => !damaged[place],
                    1 => damaged[place] ^ 1 << random.below(8),
                    2 => damaged[place].wrapping_add(1),
                    _ => random.next() as u8,
                };
                let inputs = [("one", &damaged), ("other", &other)];
                let inputs = inputs.map(|(name, bytes)| InputObject { name, bytes });
                match Loader::new().load_all(&inputs, &ProcessSymbols) {
                    Ok(_) => loaded += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(loaded > 1000 && refused > 1000, "{loaded} loaded, {refused} refused");
}

fn compare(source: &str, case: usize, here: &[u8], there: &[u8]) {
    if here != there {
        let differing: Vec<usize> =
            (0..128).filter(|word| here[8 * word..8 * word + 8] != there[8 * word..8 * word + 8]).collect();
        let start = source.find(&format!("\ncase_{case}: ")).unwrap();
        let text: Vec<_> = source[start..].lines().skip(1).take(2).collect();
        panic!("case {case}: {text:?} differs in words {differing:?}");
    }
}

/// What the object does in a program.
fn as_program(object: &[u8]) -> Vec<u8> {
    let [file, driver, program] = ["cases.o", "driver.c", "program"].map(scratch);
    std::fs::write(&file, object).unwrap();
    let text = format!(
        "#include <stdio.h>\nvoid run_all(void); extern char results[];\n\
         int main(void) {{ run_all(); return fwrite(results, 1024, {CASES}, stdout) != {CASES}; }}\n"
    );
    std::fs::write(&driver, text).unwrap();
    run(GCC, &["-no-pie", driver.to_str().unwrap(), file.to_str().unwrap(), "-o", program.to_str().unwrap()]);
    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    output.stdout
}
