/* What a program is linked to in place of a CUDA library: each function looks the library up when
 * it is first called, passes the call on, and reports an error where there is no such library.
 *
 * Compiled by `cargo xtask cuda-stubs`, once for each library, with a `library.h` that defines
 * LIBRARY, a prefix of its own; NAMES, the library's file names; ABSENT, what its functions return
 * where it is missing; LACKING, what they return where it is older than they; and
 * FUNCTIONS(code, text), which calls one of the two with the number and the name of every function,
 * `text` for those that return a string. x86-64 with the System V calling convention.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

#include "library.h"

#define JOIN(a, b) a##b
#define PREFIXED(a, b) JOIN(a, b)
#define TEXT(a) #a
#define QUOTED(a) TEXT(a)
#define SLOTS PREFIXED(LIBRARY, _slots)
#define RESOLVE PREFIXED(LIBRARY, _resolve)
#define FIRST PREFIXED(LIBRARY, _first)

static const char *const files[] = {NAMES, NULL};

#define NAME(index, function) #function,
static const char *const names[] = {FUNCTIONS(NAME, NAME)};

#define IS_CODE(index, function) 0,
#define IS_TEXT(index, function) 1,
static const char returns_text[] = {FUNCTIONS(IS_CODE, IS_TEXT)};

enum { COUNT = sizeof(names) / sizeof(names[0]) };

/* The library's functions, null until they are looked up. */
__attribute__((visibility("hidden"))) void *SLOTS[COUNT];

static long absent(void) { return ABSENT; }
static long lacking(void) { return LACKING; }
static const char *no_text(void) { return "the CUDA library is not there"; }

/* Called by the first call of a function. Two threads may do it at once and find the same. */
__attribute__((visibility("hidden"))) void *RESOLVE(unsigned long index) {
    void *library = NULL;
    for (size_t i = 0; files[i] && !library; i++) library = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
    void *found = library ? dlsym(library, names[index]) : NULL;
    if (found) {
        __atomic_store_n(&SLOTS[index], found, __ATOMIC_RELEASE);
        return found;
    }
    if (returns_text[index]) return (void *)no_text;
    return library ? (void *)lacking : (void *)absent;
}

/* Saves what arguments are passed in, asks RESOLVE for function %r11 and goes there. */
__asm__(".text\n.type " QUOTED(FIRST) ", @function\n" QUOTED(FIRST) ":\n"
        "push %rdi\npush %rsi\npush %rdx\npush %rcx\npush %r8\npush %r9\npush %rax\n"
        "sub $128, %rsp\n"
        "movups %xmm0, (%rsp)\nmovups %xmm1, 16(%rsp)\nmovups %xmm2, 32(%rsp)\n"
        "movups %xmm3, 48(%rsp)\nmovups %xmm4, 64(%rsp)\nmovups %xmm5, 80(%rsp)\n"
        "movups %xmm6, 96(%rsp)\nmovups %xmm7, 112(%rsp)\n"
        "mov %r11, %rdi\ncall " QUOTED(RESOLVE) "\nmov %rax, %r11\n"
        "movups (%rsp), %xmm0\nmovups 16(%rsp), %xmm1\nmovups 32(%rsp), %xmm2\n"
        "movups 48(%rsp), %xmm3\nmovups 64(%rsp), %xmm4\nmovups 80(%rsp), %xmm5\n"
        "movups 96(%rsp), %xmm6\nmovups 112(%rsp), %xmm7\n"
        "add $128, %rsp\n"
        "pop %rax\npop %r9\npop %r8\npop %rcx\npop %rdx\npop %rsi\npop %rdi\n"
        "jmp *%r11\n");

/* The functions themselves. */
#define ENTRY(index, function)                                                                  \
    __asm__(".text\n.globl " #function "\n.type " #function ", @function\n" #function ":\n"     \
            "mov " QUOTED(SLOTS) "+8*" #index "(%rip), %r11\n"                                  \
            "test %r11, %r11\njz 1f\njmp *%r11\n"                                              \
            "1: mov $" #index ", %r11d\njmp " QUOTED(FIRST) "\n");
FUNCTIONS(ENTRY, ENTRY)

/* Nothing here needs a stack that can be executed. */
__asm__(".section .note.GNU-stack,\"\",@progbits\n");
