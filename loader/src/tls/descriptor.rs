//! Descriptors: a function and its argument which together give a variable's offset from the thread pointer. Code calls
//! the function with its registers full: it must keep all of them but the one that holds the result.
#![allow(unsafe_code)] // Assembly.

use std::arch::global_asm;

use parking_lot::Mutex;

use super::blocks::{Index, get_addr};

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
        prepare();
        let argument = Box::new(Index { module, offset });
        let address = &raw const *argument as usize as u64;
        self.0.lock().push(argument);
        [objcache_tls_address as unsafe extern "C" fn() as usize as u64, address]
    }
}

unsafe extern "C" {
    /// The offset is the argument itself.
    fn objcache_tls_offset();
    /// The offset of what [`get_addr`] says.
    fn objcache_tls_address();
}

/// How vector registers are saved: bits of the state components, and bytes for them.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
struct SavedState {
    components: std::sync::atomic::AtomicU64,
    bytes: std::sync::atomic::AtomicU64,
}

#[cfg(target_arch = "x86_64")]
static SAVED_STATE: SavedState = SavedState {
    components: std::sync::atomic::AtomicU64::new(0),
    bytes: std::sync::atomic::AtomicU64::new(512),
};

/// Finds out which vector registers there are (Intel SDM, volume 1, 13.2 and 13.5): what `XSAVE` is to save. Without it
/// there are none but those that `FXSAVE` saves.
#[cfg(target_arch = "x86_64")]
fn prepare() {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::atomic::Ordering;
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

#[cfg(not(target_arch = "x86_64"))]
fn prepare() {}

// Global, since the compiler may refer to it from another of its objects. The descriptor's address is in rax, and so is the result. All other registers are kept; flags are not.
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
    "lea rsp, [rbx - 64]",
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
    state = sym SAVED_STATE,
    get_addr = sym get_addr,
);

// The descriptor's address is in x0, and so is the result. The call itself overwrote x30 and was through x1; all other
// registers are kept.
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".text",
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
    "sub sp, sp, #672",
    ".cfi_def_cfa_offset 672",
    "stp x29, x30, [sp]",
    ".cfi_offset x29, -672",
    ".cfi_offset x30, -664",
    "mov x29, sp",
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
    "bl {get_addr}",
    "mrs x1, tpidr_el0",
    "sub x0, x0, x1",
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
    ".cfi_def_cfa_offset 0",
    "ret",
    ".cfi_endproc",
    offset = sym objcache_tls_offset,
    address = sym objcache_tls_address,
    get_addr = sym get_addr,
);
