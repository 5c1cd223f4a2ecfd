// Shadow memory: regions that kernels may touch, with a record of the accesses.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

// Access: a thread, and how many barriers of its block and warp it has passed.
struct Access {
    uint32_t launch, block, thread, block_epoch, warp_epoch;

    // True if an earlier access is ordered before this one.
    bool after(const Access &earlier) const {
        if (earlier.launch != launch) return true;
        if (earlier.block != block) return false;
        if (earlier.thread == thread || earlier.block_epoch < block_epoch) return true;
        return earlier.thread / 32 == thread / 32 && earlier.warp_epoch < warp_epoch;
    }
};

// Shadow of two bytes: the last write, the last read, and whether others have read in the same epoch.
struct Shadow {
    Access write{}, read{};
    bool written = false, many_readers = false;
};

struct Region {
    uintptr_t begin = 0, end = 0;
    std::string name;
    std::vector<Shadow> shadow;  // one for each two bytes
    bool shared = false;

    Region() = default;
    Region(const Region &) = delete;
    Region &operator=(const Region &) = delete;
    Region(Region &&other) noexcept { *this = std::move(other); }
    Region &operator=(Region &&other) noexcept {
        std::swap(begin, other.begin), std::swap(end, other.end);
        std::swap(name, other.name), std::swap(shadow, other.shadow);
        std::swap(shared, other.shared), std::swap(owned, other.owned);
        return *this;
    }
    ~Region() { free(owned); }

    size_t bytes() const { return end - begin; }
    bool contains(uintptr_t address) const { return address >= begin && address < end; }

    // Fresh memory of a block: every byte 0xff, which is a NaN in every float type.
    void allocate(size_t size, size_t alignment, std::string label, bool is_shared) {
        free(owned);
        // Aligned to what the type asks for and no more, as on a GPU no more is promised.
        const size_t most = alignment < 128 ? 128 : alignment;
        const size_t skipped = alignment < most ? alignment : 0;
        owned = aligned_alloc(most, (size + skipped + most - 1) / most * most + most);
        begin = reinterpret_cast<uintptr_t>(owned) + skipped;
        memset(reinterpret_cast<void *>(begin), 0xff, size);
        end = begin + size;
        name = std::move(label);
        shared = is_shared;
        shadow.assign((size + 1) / 2, Shadow{});
    }

    // Records an access; returns the fault, or null.
    const char *note(uintptr_t address, size_t size, bool write, const Access &now) {
        for (size_t at = (address - begin) / 2; at <= (address - begin + size - 1) / 2; at++) {
            Shadow &cell = shadow[at];
            if (!write && shared && !cell.written) return "shared memory that nobody wrote";
            if (cell.written && !now.after(cell.write))
                return write ? "race: after another thread's write, with no barrier between"
                             : "race: another thread's write, with no barrier between";
            if (write) {
                if (cell.read.launch && (!now.after(cell.read) || crowd(cell, now)))
                    return "race: after another thread's read, with no barrier between";
                cell.write = now, cell.written = true;
                cell.read = Access{}, cell.many_readers = false;
            } else {
                const bool same = cell.read.launch == now.launch && cell.read.block == now.block &&
                                  cell.read.block_epoch == now.block_epoch;
                cell.many_readers = same && (cell.many_readers || cell.read.thread != now.thread);
                cell.read = now;
            }
        }
        return nullptr;
    }

  private:
    void *owned = nullptr;

    // True if several threads have read since the last barrier of the block.
    static bool crowd(const Shadow &cell, const Access &now) {
        return cell.many_readers && cell.read.launch == now.launch &&
               cell.read.block == now.block && cell.read.block_epoch == now.block_epoch &&
               cell.read.warp_epoch == now.warp_epoch;
    }
};
