// Runtime of the emulator: fibers, barriers, and memory checks. See runtime.h; hooks.cpp has the entry points of the
// compiler's instrumentation.
//
// Everything is per OS thread, so that tests may run side by side.
#include "runtime.h"

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <sys/mman.h>
#include <vector>

#include "fiber.h"
#include "shadow.h"

extern "C" char __ehdr_start __attribute__((visibility("hidden")));
extern "C" char _end __attribute__((visibility("hidden")));

namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 256 * 1024;

enum class State { Ready, AtBarrier, AtWarp, Done };

struct Copy {
    void *shared;
    const void *global;
    unsigned bytes, valid;
};

struct Thread {
    Fiber fiber;
    char *stack = nullptr;
    EmulatorIndex index{};
    State state = State::Done;
    int site = 0;
    unsigned mask = 0;
    EmulatorOperation operation = nullptr;
    void *operand = nullptr;
    std::vector<Copy> open;                    // copies not yet in a group
    std::vector<std::vector<Copy>> committed;  // groups not yet waited for
};

struct Machine {
    std::map<uintptr_t, Region> global;
    std::map<const void *, Region> static_shared;
    Region dynamic_shared;
    std::vector<Thread> threads;
    Fiber scheduler;
    unsigned current = 0, count = 0;
    unsigned launch = 0, linear_block = 0;
    unsigned block_epoch = 0;
    std::vector<unsigned> warp_epoch;
    EmulatorIndex block{}, block_size{}, grid{};
    void (*kernel)(const void *) = nullptr;
    const void *params = nullptr;
    bool running = false, failed = false;
    std::string message;
    const Region *recent = nullptr;
};

Machine &machine() {
    thread_local Machine it;
    return it;
}

Thread &self() { return machine().threads[machine().current]; }

// Back to the scheduler until it wakes this thread.
void pause_thread() {
    Machine &m = machine();
    fiber_switch(m.threads[m.current].fiber, m.scheduler);
}

[[noreturn]] void fail(const char *format, ...) {
    Machine &m = machine();
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const EmulatorIndex &t = m.threads[m.current].index;
    if (!m.failed) {
        char place[160];
        snprintf(place, sizeof place, " (thread %u,%u,%u of block %u,%u,%u)", t.x, t.y, t.z,
                 m.block.x, m.block.y, m.block.z);
        m.message = std::string(text) + place;
        m.failed = true;
    }
    for (;;) pause_thread();
}

Access access_of(unsigned thread) {
    Machine &m = machine();
    return {m.launch, m.linear_block, thread, m.block_epoch, m.warp_epoch[thread / kWarp]};
}

// Region of an address, if any.
Region *region_of(uintptr_t address) {
    Machine &m = machine();
    if (m.recent && m.recent->contains(address)) return const_cast<Region *>(m.recent);
    Region *found = nullptr;
    if (m.dynamic_shared.contains(address)) found = &m.dynamic_shared;
    for (auto &[key, region] : m.static_shared)
        if (!found && region.contains(address)) found = &region;
    if (!found && !m.global.empty()) {
        auto next = m.global.upper_bound(address);
        if (next != m.global.begin() && std::prev(next)->second.contains(address))
            found = &std::prev(next)->second;
    }
    m.recent = found;
    return found;
}

// Region nearest to an address that lies in none, for messages.
std::string nearest(uintptr_t address) {
    Machine &m = machine();
    const Region *best = nullptr;
    uintptr_t distance = UINTPTR_MAX;
    auto consider = [&](const Region &region) {
        if (!region.bytes()) return;
        uintptr_t away = address < region.begin ? region.begin - address : address - region.end + 1;
        if (away < distance) distance = away, best = &region;
    };
    for (auto &[start, region] : m.global) consider(region);
    for (auto &[key, region] : m.static_shared) consider(region);
    consider(m.dynamic_shared);
    if (!best) return "no memory at all";
    char text[200];
    if (address < best->begin)
        snprintf(text, sizeof text, "%zu bytes before %s", size_t(best->begin - address),
                 best->name.c_str());
    else
        snprintf(text, sizeof text, "%zu bytes past the end of %s (%zu bytes)",
                 size_t(address - best->end), best->name.c_str(), best->bytes());
    return text;
}

void check(unsigned thread, const void *pointer, size_t bytes, bool write) {
    Machine &m = machine();
    if (!m.running || m.failed) return;
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    const auto stack = reinterpret_cast<uintptr_t>(m.threads[m.current].stack);
    if (address - stack < kStack) return;
    Region *region = region_of(address);
    if (!region || address + bytes > region->end) {
        const auto image = reinterpret_cast<uintptr_t>(&__ehdr_start);
        if (!region && !write && address >= image &&
            address + bytes <= reinterpret_cast<uintptr_t>(&_end))
            return;  // a constant of the compiled kernel
        const char *verb = write ? "writes" : "reads";
        fail("out of bounds: %s %zu bytes at %s", verb, bytes,
             nearest(region ? address + bytes - 1 : address).c_str());
    }
    const char *problem = region->note(address, bytes, write, access_of(thread));
    if (problem)
        fail("%s: %s %zu bytes at byte %zu of %s", problem, write ? "writes" : "reads", bytes,
             size_t(address - region->begin), region->name.c_str());
}

void land(const std::vector<Copy> &group) {
    for (const Copy &copy : group) {
        check(machine().current, copy.shared, copy.bytes, true);
        if (copy.valid) check(machine().current, copy.global, copy.valid, false);
        memcpy(copy.shared, copy.global, copy.valid);
        memset(static_cast<char *>(copy.shared) + copy.valid, 0, copy.bytes - copy.valid);
    }
}

void thread_main() {
    Machine &m = machine();
    m.kernel(m.params);
    Thread &t = self();
    if (!t.open.empty() || !t.committed.empty())
        fail("an asynchronous copy was never waited for");
    t.state = State::Done;
    for (;;) pause_thread();
}

// Runs a warp's operation on behalf of the lane that came last; false while lanes are missing.
bool try_warp() {
    Machine &m = machine();
    const Thread &head = m.threads[m.current];
    const unsigned first = m.current / kWarp * kWarp;
    void *operands[kWarp] = {};
    for (unsigned lane = 0; lane < kWarp; lane++) {
        if (!(head.mask >> lane & 1)) continue;
        if (first + lane >= m.count) return false;
        const Thread &t = m.threads[first + lane];
        if (t.state != State::AtWarp || t.site != head.site || t.mask != head.mask) return false;
        operands[lane] = t.operand;
    }
    if (head.operation) head.operation(operands, head.mask);
    else m.warp_epoch[first / kWarp]++;
    for (unsigned lane = 0; lane < kWarp; lane++)
        if (head.mask >> lane & 1) m.threads[first + lane].state = State::Ready;
    return true;
}

// Called when no thread can go on: either all wait at one barrier, or the kernel is wrong.
void resolve() {
    Machine &m = machine();
    unsigned waiting = 0, done = 0, line = 0;
    for (unsigned i = 0; i < m.count; i++) {
        const Thread &t = m.threads[i];
        m.current = i;
        if (t.state == State::Done) { done++; continue; }
        if (t.state == State::AtWarp) {
            char text[200];
            snprintf(text, sizeof text,
                     "divergent warp operation at line %d: not all lanes of mask %08x came", t.site,
                     t.mask);
            m.message = text, m.failed = true;
            return;
        }
        if (waiting && unsigned(t.site) != line) {
            char text[200];
            snprintf(text, sizeof text,
                     "divergent barrier: some threads of a block wait at line %u, some at line %d",
                     line, t.site);
            m.message = text, m.failed = true;
            return;
        }
        line = unsigned(t.site), waiting++;
    }
    if (waiting && done) {
        char text[200];
        snprintf(text, sizeof text,
                 "divergent barrier: %u threads wait at line %u, %u have left the kernel", waiting,
                 line, done);
        m.message = text, m.failed = true;
        return;
    }
    m.block_epoch++;
    for (unsigned i = 0; i < m.count; i++)
        if (m.threads[i].state == State::AtBarrier) m.threads[i].state = State::Ready;
}

void run_block() {
    Machine &m = machine();
    m.block_epoch = 0;
    m.warp_epoch.assign((m.count + kWarp - 1) / kWarp, 0);
    for (unsigned i = 0; i < m.count; i++) {
        Thread &t = m.threads[i];
        t.index = {i, 0, 0};
        t.state = State::Ready;
        t.open.clear(), t.committed.clear();
        fiber_start(t.fiber, t.stack, kStack, thread_main);
    }
    for (;;) {
        bool moved = false, left = false;
        for (unsigned i = 0; i < m.count && !m.failed; i++) {
            Thread &t = m.threads[i];
            if (t.state == State::Ready) {
                m.current = i, moved = true;
                fiber_switch(m.scheduler, t.fiber);
            }
            left |= t.state != State::Done;
        }
        if (m.failed || !left) return;
        if (!moved) resolve();
    }
}

}  // namespace

extern "C" {

EmulatorIndex emulator_thread_index() { return self().index; }
EmulatorIndex emulator_block_index() { return machine().block; }
EmulatorIndex emulator_block_size() { return machine().block_size; }
EmulatorIndex emulator_grid_size() { return machine().grid; }

void emulator_block_barrier(int site) {
    Thread &t = self();
    t.state = State::AtBarrier, t.site = site;
    pause_thread();
}

void emulator_warp_operation(int site, unsigned mask, EmulatorOperation operation, void *operand) {
    Thread &t = self();
    const unsigned lane = machine().current % kWarp;
    if (!(mask >> lane & 1)) fail("line %d: a lane that mask %08x does not name", site, mask);
    t.state = State::AtWarp, t.site = site, t.mask = mask;
    t.operation = operation, t.operand = operand;
    if (!try_warp()) pause_thread();
}

void emulator_warp_barrier(int site, unsigned mask) {
    emulator_warp_operation(site, mask, nullptr, nullptr);
}

void *emulator_static_shared(const void *key, int line, unsigned long bytes,
                             unsigned long alignment) {
    Machine &m = machine();
    Region &region = m.static_shared[key];
    if (!region.bytes()) {
        region.allocate(bytes, alignment, "the shared memory of line " + std::to_string(line), true);
        m.recent = nullptr;
    }
    return reinterpret_cast<void *>(region.begin);
}

void *emulator_dynamic_shared() {
    return reinterpret_cast<void *>(machine().dynamic_shared.begin);
}

void emulator_access(const void *address, unsigned long bytes, bool write) {
    check(machine().current, address, bytes, write);
}

void emulator_lane_access(int lane, const void *address, unsigned long bytes, bool write) {
    Machine &m = machine();
    // In an operation the current thread is the one that came last; its warp is the warp.
    check(m.current / kWarp * kWarp + unsigned(lane), address, bytes, write);
}

void emulator_async_copy(void *shared, const void *global, unsigned bytes, unsigned valid) {
    if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes)
        fail("misaligned: an asynchronous copy of %u bytes", bytes);
    self().open.push_back({shared, global, bytes, valid});
}

void emulator_async_commit() {
    Thread &t = self();
    t.committed.push_back(std::move(t.open));
    t.open.clear();
}

void emulator_async_wait(unsigned pending) {
    Thread &t = self();
    while (t.committed.size() > pending) {
        land(t.committed.front());
        t.committed.erase(t.committed.begin());
    }
}

void emulator_fail(const char *message) { fail("%s", message); }

void emulator_register(const void *address, unsigned long bytes, const char *name) {
    Region region;
    region.begin = reinterpret_cast<uintptr_t>(address);
    region.end = region.begin + bytes;
    region.name = name;
    region.shadow.resize((bytes + 1) / 2);
    machine().global[region.begin] = std::move(region);
    machine().recent = nullptr;
}

void emulator_release(const void *address) {
    machine().global.erase(reinterpret_cast<uintptr_t>(address));
    machine().recent = nullptr;
}

const char *emulator_launch(void (*kernel)(const void *), const void *params,
                            const unsigned grid[3], unsigned block, unsigned shared_bytes) {
    Machine &m = machine();
    m.kernel = kernel, m.params = params;
    m.grid = {grid[0], grid[1], grid[2]};
    m.block_size = {block, 1, 1};
    m.count = block;
    m.failed = false;
    m.message.clear();
    m.launch++;
    while (m.threads.size() < block) {
        m.threads.emplace_back();
        void *stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) {
            m.threads.pop_back();
            return m.message = "no memory for the stacks of the threads", m.message.c_str();
        }
        m.threads.back().stack = static_cast<char *>(stack);
    }
    m.running = true;
    m.linear_block = 0;
    for (m.block.z = 0; m.block.z < grid[2] && !m.failed; m.block.z++)
        for (m.block.y = 0; m.block.y < grid[1] && !m.failed; m.block.y++)
            for (m.block.x = 0; m.block.x < grid[0] && !m.failed; m.block.x++) {
                m.static_shared.clear();
                m.recent = nullptr;
                m.dynamic_shared.allocate(shared_bytes, 1024, "dynamic shared memory", true);
                run_block();
                m.linear_block++;
                if (m.failed) break;
            }
    m.running = false;
    return m.failed ? m.message.c_str() : nullptr;
}

}  // extern "C"
