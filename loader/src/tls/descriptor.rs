//! Descriptors: a function and its argument which together give a variable's offset from the thread pointer. Code calls
//! the function with its registers full: it must keep all of them but the one that holds the result.
#![allow(unsafe_code)] // Assembly.

use std::arch::global_asm;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::blocks::{Index, get_addr, table_offset};
use crate::fork;

/// The descriptor of what is at the same offset in every thread.
pub(crate) fn of_offset(offset: u64) -> [u64; 2] {
    [objcache_tls_offset as unsafe extern "C" fn() as usize as u64, offset]
}

/// The arguments of one module's descriptors, which are there as long as its image.
#[derive(Debug, Default)]
#[allow(clippy::vec_box)] // Code has their addresses.
pub(super) struct Arguments(Mutex<Vec<Box<Index>>>);

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.module, self.offset)
    }
}

impl Arguments {
    pub(super) fn of_variable(&self, module: u64, offset: u64) -> [u64; 2] {
        static PREPARED: LazyLock<()> = LazyLock::new(|| {
            TABLE_OFFSET.store(table_offset().unwrap_or(0), Ordering::Relaxed);
            prepare();
        });
        fork::force(&PREPARED);
        let argument = Box::new(Index { module, offset });
        let address = &raw const *argument as usize as u64;
        self.0.lock().push(argument);
        [objcache_tls_address as unsafe extern "C" fn() as usize as u64, address]
    }
}

unsafe extern "C" {
    /// The offset is the argument itself.
    fn objcache_tls_offset();
    /// The offset of what [`get_addr`] says. It looks into this thread's table by itself, since calling any function means
    /// saving all vector registers first.
    fn objcache_tls_address();
}

/// From the thread pointer to the address of this thread's table; 0 if that is not the same in every thread, or not known yet.
static TABLE_OFFSET: AtomicU64 = AtomicU64::new(0);

/// How vector registers are saved: bits of the state components, and bytes for them.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
pub(crate) struct SavedState {
    components: AtomicU64,
    bytes: AtomicU64,
}

#[cfg(target_arch = "x86_64")]
pub(crate) static SAVED_STATE: SavedState =
    SavedState { components: AtomicU64::new(0), bytes: AtomicU64::new(512) };

/// Finds out which vector registers there are (Intel SDM, volume 1, 13.2 and 13.5): what `XSAVE` is to save. Without it
/// there are none but those that `FXSAVE` saves.
#[cfg(target_arch = "x86_64")]
pub(crate) fn prepare() {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// x87, SSE, AVX, the three of AVX-512, and the further general registers: what functions of Rust and C may use.
    const USED: u64 = 1 | 2 | 4 | 0xe0 | 1 << 19;
    const OSXSAVE: u32 = 1 << 27;
    // SAFETY: every processor of this architecture has leaf 1.
    #[allow(unused_unsafe)]
    if unsafe { __cpuid(1) }.ecx & OSXSAVE == 0 || SAVED_STATE.components.load(Ordering::Relaxed) != 0 {
        return;
    }
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE says that the instruction is there.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    let components = (u64::from(high) << 32 | u64::from(low)) & USED;
    // The legacy region and the header, and whatever component ends last.
    let mut bytes = 512 + 64;
    for component in (2..64).filter(|component| components & 1 << component != 0) {
        // SAFETY: leaf 0xd is there with XSAVE.
        #[allow(unused_unsafe)]
        let place = unsafe { __cpuid_count(0xd, component) };
        bytes = bytes.max(u64::from(place.ebx) + u64::from(place.eax));
    }
    SAVED_STATE.bytes.store(bytes, Ordering::Relaxed);
    // Released last: whoever sees the components sees the bytes; images are handed to other threads by the program.
    SAVED_STATE.components.store(components, Ordering::Release);
}

/// Not 0: there are the registers of the Scalable Vector Extension, which functions of C may use.
#[cfg(target_arch = "aarch64")]
static HAS_SVE: AtomicU64 = AtomicU64::new(0);

#[cfg(target_arch = "aarch64")]
pub(crate) fn prepare() {
    const HWCAP_SVE: u64 = 1 << 22;
    // SAFETY: takes a number and gives one.
    let hwcap = unsafe { libc::getauxval(libc::AT_HWCAP) };
    HAS_SVE.store(hwcap & HWCAP_SVE, Ordering::Relaxed);
}

// Global, since the compiler may refer to it from another of its objects. The descriptor's address is in rax, and so is the
// result. All other registers are kept, and the flags, for the sake of detours: up to the return nothing changes them, and
// what comes then saves them.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".text",
    ".p2align 4",
    ".globl {offset}",
    ".hidden {offset}",
    ".type {offset}, @function",
    "{offset}:",
    ".cfi_startproc",
    "endbr64",
    "mov rax, [rax + 8]",
    "ret",
    ".cfi_endproc",
    ".p2align 4",
    ".globl {address}",
    ".hidden {address}",
    ".type {address}, @function",
    "{address}:",
    ".cfi_startproc",
    "endbr64",
    "push rcx",
    ".cfi_adjust_cfa_offset 8",
    "push rdx",
    ".cfi_adjust_cfa_offset 8",
    "push rsi",
    ".cfi_adjust_cfa_offset 8",
    "push rdi",
    ".cfi_adjust_cfa_offset 8",
    "mov rcx, [rip + {table}]",
    "jrcxz 1f",
    "mov rcx, fs:[rcx]",
    "jrcxz 1f",
    // The argument; its module has the index in the low half.
    "mov rdx, [rax + 8]",
    "mov esi, [rdx]",
    "mov rdi, rcx",
    // The index less the length: negative, that is with a first byte of 255, if there is such an entry.
    "mov rcx, [rdi + 8]",
    "not rcx",
    "lea rcx, [rcx + rsi + 1]",
    "bswap rcx",
    "movzx ecx, cl",
    "lea ecx, [rcx - 255]",
    "jrcxz 2f",
    "jmp 1f",
    "2:",
    "mov rdi, [rdi]",
    "lea rsi, [rsi + rsi]",
    "lea rdi, [rdi + 8 * rsi]",
    // The entry's module less the argument's.
    "mov rcx, [rdx]",
    "not rcx",
    "mov rsi, [rdi]",
    "lea rcx, [rcx + rsi + 1]",
    "jrcxz 3f",
    "jmp 1f",
    "3:",
    "mov rcx, fs:0",
    "not rcx",
    "mov rax, [rdi + 8]",
    "mov rdx, [rdx + 8]",
    "lea rax, [rax + rdx + 1]",
    "lea rax, [rax + rcx]",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "ret",
    "1:",
    "pop rdi",
    ".cfi_adjust_cfa_offset -8",
    "pop rsi",
    ".cfi_adjust_cfa_offset -8",
    "pop rdx",
    ".cfi_adjust_cfa_offset -8",
    "pop rcx",
    ".cfi_adjust_cfa_offset -8",
    "push rbx",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset rbx, 0",
    "mov rbx, rsp",
    ".cfi_def_cfa_register rbx",
    "push rdi",
    "push rsi",
    "push rdx",
    "push rcx",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "pushfq",
    "mov rdi, [rax + 8]",
    "sub rsp, [rip + {state} + 8]",
    "and rsp, -64",
    "mov rax, [rip + {state}]",
    "test rax, rax",
    "jz 2f",
    // XSAVE wants its header to begin as zero.
    "xor ecx, ecx",
    "mov [rsp + 512], rcx",
    "mov [rsp + 520], rcx",
    "mov [rsp + 528], rcx",
    "mov [rsp + 536], rcx",
    "mov [rsp + 544], rcx",
    "mov [rsp + 552], rcx",
    "mov [rsp + 560], rcx",
    "mov [rsp + 568], rcx",
    "mov rdx, rax",
    "shr rdx, 32",
    "xsave64 [rsp]",
    "cld",
    "call {get_addr}",
    "mov rdi, rax",
    "mov rax, [rip + {state}]",
    "mov rdx, rax",
    "shr rdx, 32",
    "xrstor64 [rsp]",
    "jmp 3f",
    "2:",
    "fxsave64 [rsp]",
    "cld",
    "call {get_addr}",
    "mov rdi, rax",
    "fxrstor64 [rsp]",
    "3:",
    "mov rax, rdi",
    "sub rax, fs:0",
    "lea rsp, [rbx - 72]",
    "popfq",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "pop rbx",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    offset = sym objcache_tls_offset,
    address = sym objcache_tls_address,
    table = sym TABLE_OFFSET,
    state = sym SAVED_STATE,
    get_addr = sym get_addr,
);

// The descriptor's address is in x0, and so is the result. The call itself overwrote x30 and was through x1; all other
// registers are kept, but not the flags. Saving the vectors of SVE saves the others, which are parts of them.
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".text",
    ".arch_extension sve",
    ".p2align 2",
    ".globl {offset}",
    ".hidden {offset}",
    ".type {offset}, @function",
    "{offset}:",
    ".cfi_startproc",
    "ldr x0, [x0, #8]",
    "ret",
    ".cfi_endproc",
    ".globl {address}",
    ".hidden {address}",
    ".type {address}, @function",
    "{address}:",
    ".cfi_startproc",
    "stp x2, x3, [sp, #-32]!",
    ".cfi_def_cfa_offset 32",
    "stp x4, x5, [sp, #16]",
    "adrp x2, {table}",
    "ldr x2, [x2, :lo12:{table}]",
    "cbz x2, 1f",
    "mrs x3, tpidr_el0",
    "ldr x2, [x3, x2]",
    "cbz x2, 1f",
    // The argument; its module has the index in the low half.
    "ldr x4, [x0, #8]",
    "ldr x5, [x4]",
    "ldr x3, [x2, #8]",
    "cmp x3, w5, uxtw",
    "b.ls 1f",
    "ldr x2, [x2]",
    "add x2, x2, w5, uxtw #4",
    "ldp x2, x3, [x2]",
    "cmp x2, x5",
    "b.ne 1f",
    "ldr x4, [x4, #8]",
    "mrs x2, tpidr_el0",
    "add x0, x3, x4",
    "sub x0, x0, x2",
    "ldp x4, x5, [sp, #16]",
    "ldp x2, x3, [sp], #32",
    "ret",
    "1:",
    "ldp x4, x5, [sp, #16]",
    "ldp x2, x3, [sp], #32",
    ".cfi_def_cfa_offset 0",
    "sub sp, sp, #672",
    ".cfi_def_cfa_offset 672",
    "stp x29, x30, [sp]",
    ".cfi_offset x29, -672",
    ".cfi_offset x30, -664",
    "mov x29, sp",
    ".cfi_def_cfa_register x29",
    "stp x1, x2, [sp, #16]",
    "stp x3, x4, [sp, #32]",
    "stp x5, x6, [sp, #48]",
    "stp x7, x8, [sp, #64]",
    "stp x9, x10, [sp, #80]",
    "stp x11, x12, [sp, #96]",
    "stp x13, x14, [sp, #112]",
    "stp x15, x16, [sp, #128]",
    "stp x17, x18, [sp, #144]",
    "stp q0, q1, [sp, #160]",
    "stp q2, q3, [sp, #192]",
    "stp q4, q5, [sp, #224]",
    "stp q6, q7, [sp, #256]",
    "stp q8, q9, [sp, #288]",
    "stp q10, q11, [sp, #320]",
    "stp q12, q13, [sp, #352]",
    "stp q14, q15, [sp, #384]",
    "stp q16, q17, [sp, #416]",
    "stp q18, q19, [sp, #448]",
    "stp q20, q21, [sp, #480]",
    "stp q22, q23, [sp, #512]",
    "stp q24, q25, [sp, #544]",
    "stp q26, q27, [sp, #576]",
    "stp q28, q29, [sp, #608]",
    "stp q30, q31, [sp, #640]",
    "ldr x0, [x0, #8]",
    "adrp x1, {sve}",
    "ldr x1, [x1, :lo12:{sve}]",
    "cbz x1, 2f",
    "addvl sp, sp, #-32",
    "str z0, [sp, #0, mul vl]",
    "str z1, [sp, #1, mul vl]",
    "str z2, [sp, #2, mul vl]",
    "str z3, [sp, #3, mul vl]",
    "str z4, [sp, #4, mul vl]",
    "str z5, [sp, #5, mul vl]",
    "str z6, [sp, #6, mul vl]",
    "str z7, [sp, #7, mul vl]",
    "str z8, [sp, #8, mul vl]",
    "str z9, [sp, #9, mul vl]",
    "str z10, [sp, #10, mul vl]",
    "str z11, [sp, #11, mul vl]",
    "str z12, [sp, #12, mul vl]",
    "str z13, [sp, #13, mul vl]",
    "str z14, [sp, #14, mul vl]",
    "str z15, [sp, #15, mul vl]",
    "str z16, [sp, #16, mul vl]",
    "str z17, [sp, #17, mul vl]",
    "str z18, [sp, #18, mul vl]",
    "str z19, [sp, #19, mul vl]",
    "str z20, [sp, #20, mul vl]",
    "str z21, [sp, #21, mul vl]",
    "str z22, [sp, #22, mul vl]",
    "str z23, [sp, #23, mul vl]",
    "str z24, [sp, #24, mul vl]",
    "str z25, [sp, #25, mul vl]",
    "str z26, [sp, #26, mul vl]",
    "str z27, [sp, #27, mul vl]",
    "str z28, [sp, #28, mul vl]",
    "str z29, [sp, #29, mul vl]",
    "str z30, [sp, #30, mul vl]",
    "str z31, [sp, #31, mul vl]",
    // Seventeen predicates of an eighth of a vector.
    "addvl sp, sp, #-3",
    "str p0, [sp, #0, mul vl]",
    "str p1, [sp, #1, mul vl]",
    "str p2, [sp, #2, mul vl]",
    "str p3, [sp, #3, mul vl]",
    "str p4, [sp, #4, mul vl]",
    "str p5, [sp, #5, mul vl]",
    "str p6, [sp, #6, mul vl]",
    "str p7, [sp, #7, mul vl]",
    "str p8, [sp, #8, mul vl]",
    "str p9, [sp, #9, mul vl]",
    "str p10, [sp, #10, mul vl]",
    "str p11, [sp, #11, mul vl]",
    "str p12, [sp, #12, mul vl]",
    "str p13, [sp, #13, mul vl]",
    "str p14, [sp, #14, mul vl]",
    "str p15, [sp, #15, mul vl]",
    "rdffr p0.b",
    "str p0, [sp, #16, mul vl]",
    "2:",
    "bl {get_addr}",
    "mrs x1, tpidr_el0",
    "sub x0, x0, x1",
    "cmp sp, x29",
    "b.eq 2f",
    "ldr p0, [sp, #16, mul vl]",
    "wrffr p0.b",
    "ldr p0, [sp, #0, mul vl]",
    "ldr p1, [sp, #1, mul vl]",
    "ldr p2, [sp, #2, mul vl]",
    "ldr p3, [sp, #3, mul vl]",
    "ldr p4, [sp, #4, mul vl]",
    "ldr p5, [sp, #5, mul vl]",
    "ldr p6, [sp, #6, mul vl]",
    "ldr p7, [sp, #7, mul vl]",
    "ldr p8, [sp, #8, mul vl]",
    "ldr p9, [sp, #9, mul vl]",
    "ldr p10, [sp, #10, mul vl]",
    "ldr p11, [sp, #11, mul vl]",
    "ldr p12, [sp, #12, mul vl]",
    "ldr p13, [sp, #13, mul vl]",
    "ldr p14, [sp, #14, mul vl]",
    "ldr p15, [sp, #15, mul vl]",
    "addvl sp, sp, #3",
    "ldr z0, [sp, #0, mul vl]",
    "ldr z1, [sp, #1, mul vl]",
    "ldr z2, [sp, #2, mul vl]",
    "ldr z3, [sp, #3, mul vl]",
    "ldr z4, [sp, #4, mul vl]",
    "ldr z5, [sp, #5, mul vl]",
    "ldr z6, [sp, #6, mul vl]",
    "ldr z7, [sp, #7, mul vl]",
    "ldr z8, [sp, #8, mul vl]",
    "ldr z9, [sp, #9, mul vl]",
    "ldr z10, [sp, #10, mul vl]",
    "ldr z11, [sp, #11, mul vl]",
    "ldr z12, [sp, #12, mul vl]",
    "ldr z13, [sp, #13, mul vl]",
    "ldr z14, [sp, #14, mul vl]",
    "ldr z15, [sp, #15, mul vl]",
    "ldr z16, [sp, #16, mul vl]",
    "ldr z17, [sp, #17, mul vl]",
    "ldr z18, [sp, #18, mul vl]",
    "ldr z19, [sp, #19, mul vl]",
    "ldr z20, [sp, #20, mul vl]",
    "ldr z21, [sp, #21, mul vl]",
    "ldr z22, [sp, #22, mul vl]",
    "ldr z23, [sp, #23, mul vl]",
    "ldr z24, [sp, #24, mul vl]",
    "ldr z25, [sp, #25, mul vl]",
    "ldr z26, [sp, #26, mul vl]",
    "ldr z27, [sp, #27, mul vl]",
    "ldr z28, [sp, #28, mul vl]",
    "ldr z29, [sp, #29, mul vl]",
    "ldr z30, [sp, #30, mul vl]",
    "ldr z31, [sp, #31, mul vl]",
    "mov sp, x29",
    "b 3f",
    "2:",
    "ldp q30, q31, [sp, #640]",
    "ldp q28, q29, [sp, #608]",
    "ldp q26, q27, [sp, #576]",
    "ldp q24, q25, [sp, #544]",
    "ldp q22, q23, [sp, #512]",
    "ldp q20, q21, [sp, #480]",
    "ldp q18, q19, [sp, #448]",
    "ldp q16, q17, [sp, #416]",
    "ldp q14, q15, [sp, #384]",
    "ldp q12, q13, [sp, #352]",
    "ldp q10, q11, [sp, #320]",
    "ldp q8, q9, [sp, #288]",
    "ldp q6, q7, [sp, #256]",
    "ldp q4, q5, [sp, #224]",
    "ldp q2, q3, [sp, #192]",
    "ldp q0, q1, [sp, #160]",
    "3:",
    "ldp x17, x18, [sp, #144]",
    "ldp x15, x16, [sp, #128]",
    "ldp x13, x14, [sp, #112]",
    "ldp x11, x12, [sp, #96]",
    "ldp x9, x10, [sp, #80]",
    "ldp x7, x8, [sp, #64]",
    "ldp x5, x6, [sp, #48]",
    "ldp x3, x4, [sp, #32]",
    "ldp x1, x2, [sp, #16]",
    "ldp x29, x30, [sp]",
    "add sp, sp, #672",
    ".cfi_def_cfa sp, 0",
    "ret",
    ".cfi_endproc",
    ".arch_extension nosve",
    offset = sym objcache_tls_offset,
    address = sym objcache_tls_address,
    table = sym TABLE_OFFSET,
    sve = sym HAS_SVE,
    get_addr = sym get_addr,
);
