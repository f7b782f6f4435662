/* A program of no library that puts an image into memory, runs it, and prints what it reports. For every machine that
   clang makes code for and qemu runs: system calls are all that it needs.

   Built with LINKED it is linked with the objects themselves instead, by a linker we did not write. */

typedef unsigned long word;
typedef unsigned long long u64;

/* ---- What differs between machines: the entry, a system call of six arguments, and their numbers. ---- */

extern long system_call(long number, word a, word b, word c, word d, word e, word f);

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi; and $-16, %rsp; call launch\n"
        "system_call: mov %rdi, %rax; mov %rsi, %rdi; mov %rdx, %rsi; mov %rcx, %rdx; mov %r8, %r10; mov %r9, %r8\n"
        "mov 8(%rsp), %r9; syscall; ret\n");
enum { OPEN_AT = 257, READ = 0, WRITE = 1, MMAP = 9, MPROTECT = 10, EXIT = 60 };
#elif defined(__i386__)
__asm__(".globl _start\n_start: mov %esp, %eax; and $-16, %esp; sub $12, %esp; push %eax; call launch\n"
        "system_call: push %ebx; push %esi; push %edi; push %ebp; mov 20(%esp), %eax; mov 24(%esp), %ebx\n"
        "mov 28(%esp), %ecx; mov 32(%esp), %edx; mov 36(%esp), %esi; mov 40(%esp), %edi; mov 44(%esp), %ebp\n"
        "int $0x80; pop %ebp; pop %edi; pop %esi; pop %ebx; ret\n");
enum { OPEN_AT = 295, READ = 3, WRITE = 4, MMAP = 192, MPROTECT = 125, EXIT = 1 };
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp; bl launch\n"
        "system_call: mov x8, x0; mov x0, x1; mov x1, x2; mov x2, x3; mov x3, x4; mov x4, x5; mov x5, x6; svc #0; ret\n");
enum { OPEN_AT = 56, READ = 63, WRITE = 64, MMAP = 222, MPROTECT = 226, EXIT = 93 };
#elif defined(__arm__)
__asm__(".arm\n.globl _start\n_start: mov r0, sp; bic sp, sp, #7; bl launch\n"
        ".type system_call, %function\n"
        "system_call: push {r4, r5, r7, lr}; mov r7, r0; mov r0, r1; mov r1, r2; mov r2, r3; ldr r3, [sp, #16]\n"
        "ldr r4, [sp, #20]; ldr r5, [sp, #24]; svc #0; pop {r4, r5, r7, pc}\n");
enum { OPEN_AT = 322, READ = 3, WRITE = 4, MMAP = 192, MPROTECT = 125, EXIT = 1 };
#elif defined(__riscv)
__asm__(".globl _start\n_start: mv a0, sp; andi sp, sp, -16; call launch\n"
        "system_call: mv a7, a0; mv a0, a1; mv a1, a2; mv a2, a3; mv a3, a4; mv a4, a5; mv a5, a6; ecall; ret\n");
enum { OPEN_AT = 56, READ = 63, WRITE = 64, MMAP = 222, MPROTECT = 226, EXIT = 93 };
#elif defined(__loongarch__)
__asm__(".globl _start\n_start: move $a0, $sp; bl launch\n"
        "system_call: move $a7, $a0; move $a0, $a1; move $a1, $a2; move $a2, $a3; move $a3, $a4; move $a4, $a5\n"
        "move $a5, $a6; syscall 0; jr $ra\n");
enum { OPEN_AT = 56, READ = 63, WRITE = 64, MMAP = 222, MPROTECT = 226, EXIT = 93 };
#elif defined(__powerpc64__)
/* Errors are a flag, the number positive. */
__asm__(".globl _start\n_start: addis 2, 12, .TOC.-_start@ha; addi 2, 2, .TOC.-_start@l; mr 3, 1; stdu 1, -64(1)\n"
        "bl launch; nop\n"
        "system_call: mr 0, 3; mr 3, 4; mr 4, 5; mr 5, 6; mr 6, 7; mr 7, 8; mr 8, 9; sc; bnslr; neg 3, 3; blr\n");
enum { OPEN_AT = 286, READ = 3, WRITE = 4, MMAP = 90, MPROTECT = 125, EXIT = 1 };
#elif defined(__s390x__)
__asm__(".globl _start\n_start: lgr %r2, %r15; aghi %r15, -160; brasl %r14, launch\n"
        "system_call: stmg %r6, %r7, 48(%r15); lgr %r1, %r2; lgr %r2, %r3; lgr %r3, %r4; lgr %r4, %r5; lgr %r5, %r6\n"
        "lg %r6, 160(%r15); lg %r7, 168(%r15); svc 0; lmg %r6, %r7, 48(%r15); br %r14\n");
enum { OPEN_AT = 288, READ = 3, WRITE = 4, MMAP = 90, MPROTECT = 125, EXIT = 1 };
#else
#error "no system calls for this machine"
#endif

static void *map_fixed(word address, word size) {
    enum { READ_WRITE = 3, PRIVATE_FIXED_ANONYMOUS = 0x32 };
#if defined(__s390x__)
    word arguments[6] = {address, size, READ_WRITE, PRIVATE_FIXED_ANONYMOUS, (word)-1, 0};
    return (void *)system_call(MMAP, (word)arguments, 0, 0, 0, 0, 0);
#else
    return (void *)system_call(MMAP, address, size, READ_WRITE, PRIVATE_FIXED_ANONYMOUS, (word)-1, 0);
#endif
}

/* ---- The thread-local block of the only thread, where the machine's ABI wants it (ELF Handling For Thread-Local Storage). */

#if defined(__x86_64__)
enum { BEFORE = 1, GAP = 0, BIAS = 0, INDEX_BIAS = 0 };
static void set_thread_pointer(char *pointer) {
    enum { ARCH_PRCTL = 158, SET_FS = 0x1002 };
    *(char **)pointer = pointer;
    system_call(ARCH_PRCTL, SET_FS, (word)pointer, 0, 0, 0, 0);
}
#elif defined(__i386__)
enum { BEFORE = 1, GAP = 0, BIAS = 0, INDEX_BIAS = 0 };
static void set_thread_pointer(char *pointer) {
    enum { SET_THREAD_AREA = 243, ANY_ENTRY = -1, WHOLE = 0xfffff, USABLE_PAGES_OF_32_BITS = 0x51, USER_SEGMENT = 3 };
    word description[4] = {(word)ANY_ENTRY, (word)pointer, WHOLE, USABLE_PAGES_OF_32_BITS};
    *(char **)pointer = pointer;
    system_call(SET_THREAD_AREA, (word)description, 0, 0, 0, 0, 0);
    __asm__ volatile("movw %w0, %%gs" : : "r"(description[0] * 8 + USER_SEGMENT));
}
#elif defined(__arm__)
enum { BEFORE = 0, GAP = 8, BIAS = 0, INDEX_BIAS = 0 };
static void set_thread_pointer(char *pointer) {
    enum { SET_TLS = 0xf0005 };
    system_call(SET_TLS, (word)pointer, 0, 0, 0, 0, 0);
}
#elif defined(__s390x__)
enum { BEFORE = 1, GAP = 0, BIAS = 0, INDEX_BIAS = 0 };
static void set_thread_pointer(char *pointer) {
    __asm__ volatile("sar %%a1, %0; srlg %0, %0, 32; sar %%a0, %0" : "+r"(pointer));
}
#elif defined(__aarch64__)
enum { BEFORE = 0, GAP = 16, BIAS = 0, INDEX_BIAS = 0 };
static void set_thread_pointer(char *pointer) { __asm__ volatile("msr tpidr_el0, %0" : : "r"(pointer)); }
#elif defined(__riscv)
enum { BEFORE = 0, GAP = 0, BIAS = 0, INDEX_BIAS = 0x800 };
static void set_thread_pointer(char *pointer) { __asm__ volatile("mv tp, %0" : : "r"(pointer)); }
#elif defined(__loongarch__)
enum { BEFORE = 0, GAP = 0, BIAS = 0, INDEX_BIAS = 0 };
static void set_thread_pointer(char *pointer) { __asm__ volatile("move $tp, %0" : : "r"(pointer)); }
#elif defined(__powerpc64__)
enum { BEFORE = 0, GAP = 0, BIAS = 0x7000, INDEX_BIAS = 0x8000 };
static void set_thread_pointer(char *pointer) { __asm__ volatile("mr 13, %0" : : "r"(pointer)); }
#endif

void *memcpy(void *to, const void *from, word size);

static _Alignas(4096) char thread[8192];
static char *block;

/* Gives this thread its block, a copy of what stands at `start`. */
static void start_thread(word start, word content, word size, word align) {
    char *middle = thread + 4096;
    if (align == 0) { return; }
    block = BEFORE ? middle - size - (-(start + size) & (align - 1)) : middle + GAP + ((start - GAP) & (align - 1));
    memcpy(block, (const void *)start, content);
    set_thread_pointer(middle + BIAS);
}

void *__tls_get_addr(const word *index) { return block + index[1] + INDEX_BIAS; }

/* ---- What images may call and read. ---- */

static char line[64];

static void print(const char *text, word length) {
    system_call(WRITE, 1, (word)text, length, 0, 0, 0);
}

/* Prints `name value`. */
void host_report(const char *name, int value) {
    word used = 0;
    while (*name && used < 40) { line[used++] = *name++; }
    line[used++] = ' ';
    unsigned rest = value < 0 ? 0u - (unsigned)value : (unsigned)value;
    if (value < 0) { line[used++] = '-'; }
    unsigned divisor = 1;
    while (rest / divisor >= 10) { divisor *= 10; }
    for (; divisor; divisor /= 10) { line[used++] = (char)('0' + rest / divisor % 10); }
    line[used++] = '\n';
    print(line, used);
}

int host_counter = 1000;
int host_add(int a, int b) { return a + b + (host_counter++ & 0); }

void *memcpy(void *to, const void *from, word size) {
    for (volatile char *byte = to; size; size--) { *byte++ = *(const char *)from; from = (const char *)from + 1; }
    return to;
}

void *memset(void *to, int value, word size) {
    for (volatile char *byte = to; size; size--) { *byte++ = (char)value; }
    return to;
}

static _Noreturn void leave(const char *why, int code) {
    if (code) { host_report(why, code); }
    for (;;) { system_call(EXIT, (word)code, 0, 0, 0, 0, 0); }
}

void __cxa_pure_virtual(void) { leave("pure virtual function", 107); }

static void initialise(void (**initialisers)(void), word count) {
    for (word number = 0; number < count; number++) { initialisers[number](); }
}

#ifdef LINKED

extern void program(void);
extern void (*__init_array_start[])(void), (*__init_array_end[])(void);

struct header { unsigned char identity[16]; unsigned short type, machine; unsigned version; word entry, segments, sections; };
struct segment {
    unsigned type;
#if __SIZEOF_LONG__ == 8
    unsigned flags;
#endif
    word offset, address, physical, content, size;
#if __SIZEOF_LONG__ == 4
    unsigned flags;
#endif
    word align;
};
extern const struct header __ehdr_start;

_Noreturn void launch(word *stack) {
    (void)stack;
    enum { THREAD_LOCAL = 7, NONE = 0 };
    const struct segment *segment = (const void *)((const char *)&__ehdr_start + __ehdr_start.segments);
    while (segment->type != THREAD_LOCAL && segment->type != NONE && segment->align) { segment++; }
    if (segment->type == THREAD_LOCAL) {
        start_thread(segment->address, segment->content, segment->size, segment->align);
    }
    initialise(__init_array_start, (word)(__init_array_end - __init_array_start));
    program();
    leave("", 0);
}

#else

/* An image file is a header of little-endian 64-bit numbers and the bytes of the segments: address of the program, number
   of segments, number of arrays of pointers to initialisers, address, content, size and alignment of the thread-local block;
   for each segment address, size and protection; for each array address and length. */

static int file;

static void read_all(void *to, word size) {
    while (size) {
        long got = system_call(READ, (word)file, (word)to, size, 0, 0, 0);
        if (got <= 0) { leave("read", 101); }
        to = (char *)to + got;
        size -= (word)got;
    }
}

static word number(void) {
    unsigned char bytes[8];
    u64 value = 0;
    read_all(bytes, 8);
    for (int digit = 7; digit >= 0; digit--) { value = value << 8 | bytes[digit]; }
    return (word)value;
}

_Noreturn void launch(word *stack) {
    enum { HERE = -100, PAGE = 0x10000, MOST = 8 };
    word addresses[MOST], sizes[MOST], protections[MOST], arrays[MOST], lengths[MOST];
    if (stack[0] != 2) { leave("arguments", 102); }
    long opened = system_call(OPEN_AT, (word)HERE, stack[2], 0, 0, 0, 0);
    if (opened < 0) { leave("open", 103); }
    file = (int)opened;
    word program = number(), segments = number(), array_count = number();
    word start = number(), content = number(), block_size = number(), align = number();
    if (segments > MOST || array_count > MOST) { leave("header", 104); }
    for (word segment = 0; segment < segments; segment++) {
        addresses[segment] = number();
        sizes[segment] = number();
        protections[segment] = number();
    }
    for (word array = 0; array < array_count; array++) {
        arrays[array] = number();
        lengths[array] = number();
    }
    for (word segment = 0; segment < segments; segment++) {
        word size = (sizes[segment] + PAGE - 1) & ~(word)(PAGE - 1);
        if (map_fixed(addresses[segment], size) != (void *)addresses[segment]) { leave("mmap", 105); }
        read_all((void *)addresses[segment], sizes[segment]);
        /* qemu sees what is written to code by itself; real processors would want their caches told. */
        if (system_call(MPROTECT, addresses[segment], size, protections[segment], 0, 0, 0)) { leave("mprotect", 106); }
    }
    start_thread(start, content, block_size, align);
    for (word array = 0; array < array_count; array++) { initialise((void (**)(void))arrays[array], lengths[array]); }
    ((void (*)(void))program)();
    leave("", 0);
}

#endif
