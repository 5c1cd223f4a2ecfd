// Fibers: stacks that are switched by hand.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

struct Fiber {
    void *stack_pointer = nullptr;
};

// Saves the registers that the System V calling convention preserves, and resumes on another stack.
extern "C" void fiber_switch_stack(void **save, void *load);
asm(R"(
.text
.hidden fiber_switch_stack
.globl fiber_switch_stack
.type fiber_switch_stack,@function
fiber_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size fiber_switch_stack,.-fiber_switch_stack
)");

inline void fiber_switch(Fiber &from, Fiber &to) {
    fiber_switch_stack(&from.stack_pointer, to.stack_pointer);
}

inline void fiber_start(Fiber &fiber, char *stack, size_t bytes, void (*entry)()) {
    auto top = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15));
    *--top = nullptr;  // where `entry` would return to; it never does
    *--top = reinterpret_cast<void *>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber.stack_pointer = top;
}

#else

#include <ucontext.h>

struct Fiber {
    ucontext_t context;
};

inline void fiber_switch(Fiber &from, Fiber &to) { swapcontext(&from.context, &to.context); }

inline void fiber_start(Fiber &fiber, char *stack, size_t bytes, void (*entry)()) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
}

#endif
