//! Where a function leads that is not there: the trampoline keeps all registers that a call passes arguments in, has the
//! function made, or an error handled, and goes on where that says, as if the call had gone there.
#![allow(unsafe_code)] // Assembly.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod here {
    use std::arch::global_asm;

    use super::super::function::call_of;
    use crate::tls;

    unsafe extern "C" {
        fn objcache_library_trampoline();
    }

    pub(crate) fn address() -> Option<u64> {
        tls::prepare_to_save_registers();
        Some(objcache_library_trampoline as unsafe extern "C" fn() as usize as u64)
    }

    // The pair's address is in r11, the stack as the caller left it. Kept are all general registers but r11, and the vector
    // registers whole: a callee may have any of them as arguments, by the conventions of System V and Microsoft.
    #[cfg(target_arch = "x86_64")]
    global_asm!(
        ".text",
        ".p2align 4",
        ".globl {trampoline}",
        ".hidden {trampoline}",
        ".type {trampoline}, @function",
        "{trampoline}:",
        ".cfi_startproc",
        "endbr64",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbx, 0",
        "mov rbx, rsp",
        ".cfi_def_cfa_register rbx",
        "push rax",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push r10",
        "mov rdi, r11",
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
        "call {call_of}",
        "mov r11, rax",
        "mov rax, [rip + {state}]",
        "mov rdx, rax",
        "shr rdx, 32",
        "xrstor64 [rsp]",
        "jmp 3f",
        "2:",
        "fxsave64 [rsp]",
        "cld",
        "call {call_of}",
        "mov r11, rax",
        "fxrstor64 [rsp]",
        "3:",
        "lea rsp, [rbx - 64]",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "pop rax",
        "pop rbx",
        ".cfi_def_cfa rsp, 8",
        ".cfi_same_value rbx",
        "jmp r11",
        ".cfi_endproc",
        ".size {trampoline}, . - {trampoline}",
        trampoline = sym objcache_library_trampoline,
        state = sym tls::SAVED_STATE,
        call_of = sym call_of,
    );

    // The pair's address is in x16. Kept are the argument registers, the one that the result's address is passed in, and
    // the link register; of vectors 128 bits, so no arguments in scalable ones (AAPCS64, "Scalable Vector Extension").
    #[cfg(target_arch = "aarch64")]
    global_asm!(
        ".text",
        ".p2align 2",
        ".globl {trampoline}",
        ".hidden {trampoline}",
        ".type {trampoline}, @function",
        "{trampoline}:",
        ".cfi_startproc",
        "hint #34", // bti c
        "sub sp, sp, #224",
        ".cfi_def_cfa_offset 224",
        "stp x29, x30, [sp]",
        ".cfi_offset x29, -224",
        ".cfi_offset x30, -216",
        "mov x29, sp",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "stp x8, x18, [sp, #80]",
        "stp q0, q1, [sp, #96]",
        "stp q2, q3, [sp, #128]",
        "stp q4, q5, [sp, #160]",
        "stp q6, q7, [sp, #192]",
        "mov x0, x16",
        "bl {call_of}",
        "mov x16, x0",
        "ldp q6, q7, [sp, #192]",
        "ldp q4, q5, [sp, #160]",
        "ldp q2, q3, [sp, #128]",
        "ldp q0, q1, [sp, #96]",
        "ldp x8, x18, [sp, #80]",
        "ldp x6, x7, [sp, #64]",
        "ldp x4, x5, [sp, #48]",
        "ldp x2, x3, [sp, #32]",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp]",
        "add sp, sp, #224",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "br x16",
        ".cfi_endproc",
        ".size {trampoline}, . - {trampoline}",
        trampoline = sym objcache_library_trampoline,
        call_of = sym call_of,
    );
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod here {
    pub(crate) fn address() -> Option<u64> {
        None
    }
}

/// Where calls go to have their function made; `None` where there is no such code.
pub(super) fn address() -> Option<u64> {
    here::address()
}
