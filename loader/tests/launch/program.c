/* What is run on machines that are not this one: code of every kind that compilers make relocations for. It reports
   numbers that are the same on all machines. Integers have 32 bits, so that none needs a library. */

typedef unsigned int u32;
typedef __SIZE_TYPE__ size_t;

extern void host_report(const char *name, int value); /* functions and data of the launcher, far away */
extern int host_add(int a, int b);
extern int host_counter;
extern int nobody(int) __attribute__((weak));
extern int nobody_data __attribute__((weak));

extern int more(int n); /* the other object */
extern int more_data[4];
extern void more_reports(void);

#define HIDDEN __attribute__((visibility("hidden")))
#define NOINLINE __attribute__((noinline))

/* Arm has two instruction sets; this is code of the other one than the rest of the file is. */
#if defined(__thumb__)
#define OTHER_STATE __attribute__((target("arm")))
#elif defined(__arm__)
#define OTHER_STATE __attribute__((target("thumb")))
#else
#define OTHER_STATE
#endif

/* Static data with addresses; .data, .bss, common. */
static NOINLINE int one(void) { return 1; }
static NOINLINE int two(void) { return 2; }
static int (*const constant_table[])(void) = {one, two};
static int (*variable_table[])(void) = {two, one};
const char *words[] = {"zero", "one", "three"};
int counter = 40;
int *pointer_to_counter = &counter;
int zeros[5000];
int *into_zeros = &zeros[4999];
int common_one;
short common_two[3];
HIDDEN int hidden_data = 7;
static int local_data = 3;
static const int constants[] = {3, 1, 4, 1, 5, 9, 2, 6};
static const double factors[] = {0.5, 1.25, 1.75};

NOINLINE int through_tables(int n) { return constant_table[n & 1]() * 10 + variable_table[n & 1](); }

NOINLINE int length(const char *text) {
    int length = 0;
    while (text[length]) { length++; }
    return length;
}

NOINLINE HIDDEN int hidden(int a) { return a + hidden_data + local_data++; }

/* A switch that becomes a table. */
NOINLINE int choose(int n) {
    switch (n) {
    case 0: return host_add(n, 11);
    case 1: return one() * 5;
    case 2: return 33 + hidden(n);
    case 3: return -4;
    case 4: return more(n);
    case 5: return counter;
    case 6: return 77 * n;
    case 7: return length(words[2]);
    case 8: return constants[n - 3];
    default: return -1;
    }
}

NOINLINE int labels(int n) {
    static void *const places[] = {&&first, &&second, &&third};
    int sum = 0;
    goto *places[n % 3];
first:
    sum += 100;
second:
    sum += 10;
third:
    return sum + n;
}

NOINLINE int floats(int n) {
    double sum = 0.0;
    for (int i = 0; i < n; i++) { sum = sum * factors[i % 3] + 3.1415926 * i; }
    float single = (float)sum * 1.7f;
    return (int)single;
}

NOINLINE int loops(u32 n) {
    u32 hash = 2166136261u;
    for (u32 i = 0; i < n; i++) {
        hash = (hash ^ i) * 16777619u;
        zeros[hash % 5000] += (int)i;
        if ((hash & 255) == 3) { hash += (u32)more((int)(i & 7)); }
    }
    int sum = 0;
    for (int i = 0; i < 5000; i++) { sum = sum * 31 + zeros[i]; zeros[i] = 0; }
    return sum;
}

__attribute__((weak)) NOINLINE int weak_definition(void) { return 17; }
NOINLINE int weak(void) { return (nobody ? nobody(1) : 3) + (&nobody_data ? nobody_data : 4) + weak_definition(); }

NOINLINE int tail(int a) { return host_add(a, a + 1); }
NOINLINE int recursive(int n) { return n < 2 ? n : recursive(n - 1) + recursive(n - 2); }
NOINLINE int (*address_of(int n))(int, int) { extern int host_add(int, int); return n ? host_add : 0; }

/* Jumps, calls and pointers from either instruction set to either. */
NOINLINE int same_state(int n);
OTHER_STATE NOINLINE int other_state(int n) { return n == 0 ? 5 : same_state(n - 1); }
NOINLINE int same_state(int n) { return n == 0 ? 7 : other_state(n - 1); }
static int (*const states[])(int) = {same_state, other_state};
OTHER_STATE NOINLINE int into_both(int n) {
    int sum = same_state(n) * 100 + other_state(n) * 10 + states[n & 1](n) + more(n);
    return sum + (n > 2 ? hidden_data : counter);
}
OTHER_STATE NOINLINE int to_the_other_object(int n) { return n < 0 ? 0 : more(n); }

struct pair { int a; short b; char c; int rest[20]; };
struct pair pair = {1, -2, 3, {4, 5, 6}};
NOINLINE int structs(const struct pair *from) {
    struct pair copy = *from;
    copy.rest[7] += copy.b;
    return copy.a * 1000 + copy.rest[1] * 100 + copy.rest[7] + copy.c;
}

static int constructed = 1;
__attribute__((constructor)) static void construct(void) { constructed = constructed * 10 + hidden_data; }

/* Thread-local variables: the launcher gives its thread a block. */
#ifdef NO_THREADS
#define THREAD
#else
#define THREAD __thread
#endif
static THREAD int thread_counter = 40;
THREAD long thread_zeros[5];
HIDDEN THREAD short thread_short = 3;
extern THREAD int more_thread;
THREAD int *thread_pointer = &counter;

NOINLINE int threads(int n) {
    thread_counter += n;
    thread_zeros[n] += thread_counter;
    thread_short *= 2;
    int *pointer = &more_thread;
    *pointer += n;
    return thread_counter * 1000 + (int)thread_zeros[n] + more_thread + thread_short + *thread_pointer;
}

/* Relocations that compilers rarely make, or leave to the assembler. `asm_sizes` are distances of 5, in fields of all
   widths; `asm_far` are distances to a function and to an entry of the GOT. */
#if defined(__riscv)
#define DIFFERENCE(first, second, field) \
    ".reloc ., R_RISCV_" first ", asm_end; .reloc ., R_RISCV_" second ", asm_start; " field "\n"
__asm__(".text\n.globl asm_one\nasm_one: beqz a0, asm_two; jal t0, asm_link; addi a0, a0, 1; ret\n"
        "asm_link: addi a0, a0, 10; jr t0\n"
        ".globl asm_two\nasm_two: la a0, counter; lw a0, 0(a0); ret\n"
        ".p2align 4\n.globl asm_three\nasm_three: lla a1, asm_stored\n"
        "asm_store: auipc a1, %pcrel_hi(asm_stored); sw a0, %pcrel_lo(asm_store)(a1); lla a0, asm_stored; lw a0, 0(a0); ret\n"
        ".section .rodata.asm, \"a\"\nasm_start: .byte 1, 2, 3, 4, 5\nasm_end:\n"
        ".globl asm_sizes\nasm_sizes:\n"
        DIFFERENCE("ADD8", "SUB8", ".byte 0") DIFFERENCE("ADD16", "SUB16", ".byte 0, 0")
        DIFFERENCE("ADD32", "SUB32", ".byte 0, 0, 0, 0") DIFFERENCE("ADD64", "SUB64", ".byte 0, 0, 0, 0, 0, 0, 0, 0")
        DIFFERENCE("SET8", "SUB8", ".byte 9") DIFFERENCE("SET16", "SUB16", ".byte 9, 9") DIFFERENCE("SET6", "SUB6", ".byte 9")
        DIFFERENCE("SET_ULEB128", "SUB_ULEB128", ".byte 0x80, 0")
        ".p2align 2\n.globl asm_far\nasm_far: .reloc ., R_RISCV_PLT32, host_add; .word 0\n"
        ".reloc ., R_RISCV_GOT32_PCREL, counter; .word 0\n.reloc ., R_RISCV_32_PCREL, asm_start; .word 0\n"
        ".data\n.p2align 2\nasm_stored: .word 0\n.text\n");
enum { SIZES = 8 };
#elif defined(__loongarch__)
#define DIFFERENCE(width, field) ".reloc ., R_LARCH_ADD" width ", asm_end; .reloc ., R_LARCH_SUB" width ", asm_start; " field "\n"
__asm__(".text\n.globl asm_one\nasm_one: beqz $a0, asm_two; blt $zero, $a0, asm_more; b asm_two\n"
        "asm_more: addi.d $a0, $a0, 11; jr $ra\n"
        ".globl asm_two\nasm_two: la.abs $a0, counter; lu12i.w $a1, %got_hi20(counter); ori $a1, $a1, %got_lo12(counter)\n"
        "lu32i.d $a1, %got64_lo20(counter); lu52i.d $a1, $a1, %got64_hi12(counter); ld.d $a1, $a1, 0\n"
        "bne $a0, $a1, asm_two; ld.w $a0, $a0, 0; jr $ra\n"
        ".p2align 4\n.globl asm_three\nasm_three: la.local $a1, asm_stored; st.w $a0, $a1, 0; pcaddi $a1, %pcrel_20(asm_near)\n"
        "ld.w $a0, $a1, 0; move $a3, $ra; .reloc ., R_LARCH_CALL30, asm_load; pcaddu12i $ra, 0; jirl $ra, $ra, 0\n"
        "add.w $a0, $a0, $a1; jr $a3\n"
        "asm_load: .reloc ., R_LARCH_PCADD_HI20, asm_stored; pcaddu12i $a1, 0\n"
        ".reloc ., R_LARCH_PCADD_LO12, asm_load; ld.w $a1, $a1, 0; jr $ra\n"
        ".p2align 2\nasm_near: .word 0\n"
        ".section .rodata.asm, \"a\"\nasm_start: .byte 1, 2, 3, 4, 5\nasm_end:\n"
        ".globl asm_sizes\nasm_sizes:\n"
        DIFFERENCE("8", ".byte 0") DIFFERENCE("16", ".byte 0, 0") DIFFERENCE("32", ".byte 0, 0, 0, 0")
        DIFFERENCE("64", ".byte 0, 0, 0, 0, 0, 0, 0, 0") DIFFERENCE("6", ".byte 0") DIFFERENCE("_ULEB128", ".byte 0x80, 0")
        ".p2align 2\n.globl asm_far\nasm_far: .word 0, 0\n.reloc ., R_LARCH_32_PCREL, asm_start; .word 0\n"
        ".reloc ., R_LARCH_64_PCREL, asm_start; .word 0, 0\n"
        ".data\n.p2align 2\nasm_stored: .word 0\n.text\n");
enum { SIZES = 6 };
#elif defined(__arm__)
/* The code is that of both instruction sets; whatever is reached in two ways makes a difference of zero. */
#define R(kind, symbol) ".reloc ., R_ARM_" kind ", " symbol "; "
__asm__(".syntax unified\n.section .text.asm, \"ax\", %progbits\n.p2align 2\n"
        ".thumb\n.globl asm_one\n.type asm_one, %function\nasm_one: cmp r0, #0\n"
        R("THM_JUMP19", "asm_two") ".inst.w 0xf43faffe\n" /* beq.w, to the other instruction set */
        R("THM_JUMP8", "asm_more") ".inst.n 0xd1fe\n" /* bne */
        "asm_link: adds r0, #1; bx lr\n"
        "asm_more: adds r0, #10\n" R("THM_JUMP11", "asm_link") ".inst.n 0xe7fe\n" /* b */
        ".arm\n.p2align 2\n.globl asm_two\n.type asm_two, %function\n"
        "asm_two: " R("LDR_PC_G0", "asm_address") ".inst 0xe51f1008\nldr r0, [r1]; bx lr\n"
        ".globl asm_three\n.type asm_three, %function\nasm_three: push {r4, lr}\n"
        R("LDR_PC_G0", "asm_address") ".inst 0xe51f3008\n" /* ldr r3 */
        R("ALU_PC_G0", "asm_address") ".inst 0xe24f1008\nldr r1, [r1]; sub r1, r1, r3; add r0, r0, r1\n"
        R("ALU_PC_G0_NC", "asm_distant") ".inst 0xe24f1008\n" /* add or sub r1, pc */
        R("LDR_PC_G1", "asm_distant") ".inst 0xe5111004\nsub r1, r1, #77; add r0, r0, r1\n"
        R("LDRS_PC_G0", "asm_half") ".inst 0xe15f10b8\nsub r1, r1, #33; add r0, r0, r1\n"
        "movw r1, #:lower16:(counter - asm_here - 8); movt r1, #:upper16:(counter - asm_here - 8)\n"
        "asm_here: add r1, pc, r1; sub r1, r1, r3; add r0, r0, r1\n"
        R("CALL", "asm_thumb") ".inst 0xebfffffe\npop {r4, pc}\n" /* bl, to the other instruction set */
        "asm_address: .word counter\nasm_half: .short 33, 0\n"
        ".thumb\n.p2align 2\n.type asm_thumb, %function\nasm_thumb: nop\n"
        R("THM_PC8", "asm_near") ".inst.n 0x49ff\nsubs r1, r1, r3; adds r0, r0, r1\n"
        R("THM_PC12", "asm_near") ".inst.w 0xf85f1004\nsubs r1, r1, r3; adds r0, r0, r1\n"
        R("THM_ALU_PREL_11_0", "asm_near") ".inst.w 0xf2af0104\nldr r1, [r1]; subs r1, r1, r3; adds r0, r0, r1\n"
        "movw r1, #:lower16:(counter - asm_there - 4); movt r1, #:upper16:(counter - asm_there - 4)\n"
        "asm_there: add r1, pc; subs r1, r1, r3; adds r0, r0, r1\n"
        R("THM_ALU_ABS_G3", "counter") ".inst.n 0x2100; lsls r1, r1, #8\n"
        R("THM_ALU_ABS_G2_NC", "counter") ".inst.n 0x3100; lsls r1, r1, #8\n"
        R("THM_ALU_ABS_G1_NC", "counter") ".inst.n 0x3100; lsls r1, r1, #8\n"
        R("THM_ALU_ABS_G0_NC", "counter") ".inst.n 0x3100; subs r1, r1, r3; adds r0, r0, r1; bx lr\n"
        ".p2align 2\nasm_near: .word counter\n.space 5000\nasm_distant: .word 77\n"
        ".section .rodata.asm, \"a\"\nasm_start: .byte 1, 2, 3, 4, 5\n.globl asm_sizes\nasm_sizes: .byte 5\n"
        ".p2align 2\n.globl asm_far\nasm_far: .word host_add - ., counter(GOT_PREL), asm_start - .\n"
        ".globl asm_got\nasm_got: " R("BASE_PREL", "_GLOBAL_OFFSET_TABLE_") ".word 0\n"
        R("GOTOFF32", "counter") ".word 0\n" R("GOT_BREL", "counter") ".word 0\n"
        R("TARGET2", "counter") ".word 0\n" R("PREL31", "counter") ".word 0\n.text\n");
enum { SIZES = 1 };
extern const int asm_got[];
#endif

/* Pointers made of distances that Arm's linkers know. Returns how many are wrong. */
static int distances(void) {
    int wrong = 0;
#if defined(__arm__)
    const char *got = (const char *)asm_got + asm_got[0];
    wrong += got + asm_got[1] != (const char *)&counter;
    wrong += *(int *const *)(got + asm_got[2]) != &counter;
    wrong += *(int *const *)((const char *)&asm_got[3] + asm_got[3]) != &counter;
    wrong += (const char *)&asm_got[4] + (asm_got[4] << 1 >> 1) != (const char *)&counter;
#endif
    return wrong;
}

#if defined(__riscv) || defined(__loongarch__) || defined(__arm__)
extern int asm_one(int), asm_two(void), asm_three(int);
extern const unsigned char asm_sizes[];
extern const int asm_far[];

static void assembler(void) {
    int sum = 0, wrong = distances();
    for (const unsigned char *byte = asm_sizes; byte < (const unsigned char *)asm_far; byte++) {
        sum += *byte & 127; /* the mark of a long number aside */
    }
    host_report("branches", asm_one(0) * 100 + asm_one(5));
    host_report("addresses", asm_two() + asm_three(6));
    host_report("differences", sum / SIZES);
    if (asm_far[0]) {
        wrong += ((int (*)(int, int))((const char *)asm_far + asm_far[0]))(3, 4) != 7;
        wrong += **(int **)((const char *)&asm_far[1] + asm_far[1]) != counter;
    }
    host_report("distances", ((const char *)&asm_far[2] + asm_far[2])[3] + wrong);
}
#else
static void assembler(void) {
    host_report("branches", counter * 100 + 16);
    host_report("addresses", counter + 6);
    host_report("differences", 5);
    host_report("distances", 4);
}
#endif

void program(void) {
    for (int n = 0; n < 10; n++) { host_report("choose", choose(n)); }
    for (int n = 0; n < 4; n++) { host_report("labels", labels(n)); }
    host_report("tables", through_tables(0) * 100 + through_tables(1));
    host_report("length", length(words[0]) * 10 + length("immediate"));
    host_report("floats", floats(20));
    host_report("loops", loops(3000));
    host_report("weak", weak());
    host_report("tail", tail(20));
    host_report("recursive", recursive(15));
    host_report("address", address_of(1)(30, 4));
    host_report("structs", structs(&pair));
    host_report("states", states[0](5) * 10 + states[1](5));
    host_report("both states", into_both(3) + into_both(2));
    host_report("other object", to_the_other_object(2) + into_both(1));
    host_report("constructed", constructed);
    *into_zeros = 5;
    host_report("pointers", zeros[4999] + *pointer_to_counter + (int)(into_zeros - zeros));
    common_one += 3;
    common_two[2] = 9;
    host_report("common", common_one + common_two[2] + common_two[0]);
    host_report("more", more_data[2] + more(3));
    host_counter += 5;
    host_report("host", host_counter > 1000 && host_add(1, 2) == 3);
    assembler();
    host_report("threads", threads(2));
    host_report("threads", threads(3) + threads(2));
    more_reports();
}
