// Hooks of the compiler's instrumentation of the kernels: these take the place of the sanitizers' own libraries,
// which are not linked.
#include "runtime.h"

#include <cstdint>
#include <cstdio>
#include <cstring>

extern "C" {

// The hooks of -fsanitize=thread.
#define HOOK(bytes)                                                                        \
    void __tsan_read##bytes(void *p) {                                                     \
        if (bytes > 1 && reinterpret_cast<uintptr_t>(p) % bytes)                           \
            emulator_fail("misaligned: reads " #bytes " bytes");                           \
        emulator_access(p, bytes, false);                                                  \
    }                                                                                      \
    void __tsan_write##bytes(void *p) {                                                    \
        if (bytes > 1 && reinterpret_cast<uintptr_t>(p) % bytes)                           \
            emulator_fail("misaligned: writes " #bytes " bytes");                          \
        emulator_access(p, bytes, true);                                                   \
    }                                                                                      \
    void __tsan_unaligned_read##bytes(void *p) { emulator_access(p, bytes, false); }       \
    void __tsan_unaligned_write##bytes(void *p) { emulator_access(p, bytes, true); }       \
    void __tsan_volatile_read##bytes(void *p) { emulator_access(p, bytes, false); }        \
    void __tsan_volatile_write##bytes(void *p) { emulator_access(p, bytes, true); }        \
    void __tsan_read_write##bytes(void *p) {                                               \
        emulator_access(p, bytes, false), emulator_access(p, bytes, true);                 \
    }
HOOK(1) HOOK(2) HOOK(4) HOOK(8) HOOK(16)
void __tsan_read_range(void *p, unsigned long bytes) { emulator_access(p, bytes, false); }
void __tsan_write_range(void *p, unsigned long bytes) { emulator_access(p, bytes, true); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}

// The hooks of -fsanitize=bounds,alignment,shift,signed-integer-overflow,integer-divide-by-zero. Each gets a record
// that begins with the place in the source.
struct Place {
    const char *file;
    uint32_t line, column;
};
[[noreturn]] static void undefined(const char *what, const Place *place) {
    const char *file = strrchr(place->file, '/');
    char text[300];
    snprintf(text, sizeof text, "%s at %s:%u", what, file ? file + 1 : place->file, place->line);
    emulator_fail(text);
}
#define UNDEFINED(name, what)                                                               \
    void __ubsan_handle_##name##_abort(Place *place, ...) { undefined(what, place); }       \
    void __ubsan_handle_##name(Place *place, ...) { undefined(what, place); }
UNDEFINED(out_of_bounds, "out of bounds of an array")
UNDEFINED(shift_out_of_bounds, "shift by an impossible number of bits")
UNDEFINED(add_overflow, "sum past the range of its type")
UNDEFINED(sub_overflow, "difference past the range of its type")
UNDEFINED(mul_overflow, "product past the range of its type")
UNDEFINED(negate_overflow, "negation past the range of its type")
UNDEFINED(divrem_overflow, "division by zero")
UNDEFINED(type_mismatch_v1, "misaligned or null pointer")

}  // extern "C"
