// Interface of the emulator's runtime, for the shim and for the test harness.
//
// A kernel runs as one fiber per CUDA thread, block after block. Each access to memory is reported
// by the compiler's instrumentation (-fsanitize=thread, whose hooks runtime.cpp defines itself), so
// that the runtime sees every access out of bounds, every use of shared memory that nobody wrote,
// and every race between two threads that no barrier orders.
#pragma once

struct EmulatorIndex {
    unsigned x, y, z;
};

extern "C" {
// Called by the shim, inside a kernel.
EmulatorIndex emulator_thread_index();
EmulatorIndex emulator_block_index();
EmulatorIndex emulator_block_size();
EmulatorIndex emulator_grid_size();
// Waits for all threads of the block. `site` is the line of the call: all have to come to one.
void emulator_block_barrier(int site);
// Waits for the lanes of `mask`, then runs `operation` once on what they brought.
typedef void (*EmulatorOperation)(void *operands[32], unsigned mask);
void emulator_warp_operation(int site, unsigned mask, EmulatorOperation operation, void *operand);
// Orders the memory accesses of a warp's lanes.
void emulator_warp_barrier(int site, unsigned mask);
// Static shared memory, declared by the kernel itself; the same for all threads that ask with one `key`.
void *emulator_static_shared(const void *key, int line, unsigned long bytes, unsigned long alignment);
// Dynamic shared memory, whose size the launch gives.
void *emulator_dynamic_shared();
// An access by the current thread that no instrumentation sees. Returns false (and stops the
// launch) where it is not allowed.
void emulator_access(const void *address, unsigned long bytes, bool write);
// An access by another lane of the current warp, checked the same way.
void emulator_lane_access(int lane, const void *address, unsigned long bytes, bool write);
// Asynchronous copies: they land, and are checked, when they are waited for.
void emulator_async_copy(void *shared, const void *global, unsigned bytes, unsigned valid);
void emulator_async_commit();
void emulator_async_wait(unsigned pending);
// Ends the launch with a message.
[[noreturn]] void emulator_fail(const char *message);

// Called by the harness. Memory that kernels may touch, until it is released; `name` is copied.
void emulator_register(const void *address, unsigned long bytes, const char *name);
void emulator_release(const void *address);
// Runs a kernel; null, or what went wrong (valid until the next call on this thread).
const char *emulator_launch(void (*kernel)(const void *), const void *params,
                            const unsigned grid[3], unsigned block, unsigned shared_bytes);
}
