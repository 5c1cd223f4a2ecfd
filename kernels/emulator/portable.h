// Portable C++ for the helpers of aurora.cuh that are PTX on a GPU: conversions, asynchronous copies, and the
// tensor-core instructions with the fragment layouts of the PTX manual.
#pragma once

// Conversion to bf16: to nearest, ties to even; NaN stays NaN.
EMULATOR_PLAIN inline unsigned short float_to_bf16_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<unsigned short>((uint64_t(bits) + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

EMULATOR_PLAIN inline float half_bits_to_float(unsigned short h) {
    const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 1023u;
    if (exponent == 0) {
        const float tiny = float(mantissa) * 0x1p-24f;
        return sign ? -tiny : tiny;
    }
    const uint32_t bits = exponent == 31 ? sign | 0x7f800000u | mantissa << 13
                                         : sign | (exponent + 112) << 23 | mantissa << 13;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

EMULATOR_PLAIN inline unsigned short float_to_half_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const auto sign = static_cast<unsigned short>(bits >> 16 & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and above round to infinity
    if (magnitude < 0x38800000u) {                        // subnormal: in units of 2^-24
        float absolute;
        memcpy(&absolute, &magnitude, 4);
        return sign | static_cast<unsigned short>(nearbyintf(absolute * 0x1p24f));
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
    return sign | static_cast<unsigned short>((rounded - 0x38000000u) >> 13);
}

EMULATOR_PLAIN inline float power_of_two(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

EMULATOR_PLAIN inline void async_copy_16(void *shared, const void *global, bool valid) {
    emulator_async_copy(shared, global, 16, valid ? 16 : 0);
}
EMULATOR_PLAIN inline void async_commit() { emulator_async_commit(); }
template <int pending>
EMULATOR_PLAIN inline void async_wait() { emulator_async_wait(pending); }

namespace emulator {

template <class T>
EMULATOR_PLAIN inline float element(unsigned packed, int which) {
    return T::widen(static_cast<unsigned short>(packed >> 16 * which));
}
struct HalfBits {
    EMULATOR_PLAIN static float widen(unsigned short bits) { return half_bits_to_float(bits); }
};
struct Bf16Bits {
    EMULATOR_PLAIN static float widen(unsigned short bits) { return __int_as_float(int(uint32_t(bits) << 16)); }
};

struct Mma {
    float *c;
    const unsigned *a, *b;
};

// Matrix multiply-accumulate c (16, 8) += a (16, 16) b (16, 8); lane = 4 group + pair.
template <class T>
EMULATOR_PLAIN inline void mma(void *operands[32], unsigned mask) {
    if (mask != 0xffffffffu) emulator_fail("a matrix instruction needs the whole warp");
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const auto &own = *static_cast<Mma *>(operands[lane]);
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int r = 0; r < 4; r++)
            for (int e = 0; e < 2; e++)
                a[group + r % 2 * 8][pair + r / 2 * 8 + e] = element<T>(own.a[r], e);
        for (int r = 0; r < 2; r++)
            for (int e = 0; e < 2; e++) b[pair + r * 8 + e][group] = element<T>(own.b[r], e);
    }
    for (int lane = 0; lane < 32; lane++) {
        const auto &own = *static_cast<Mma *>(operands[lane]);
        for (int r = 0; r < 4; r++) {
            const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
            float sum = own.c[r];
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            own.c[r] = sum;
        }
    }
}

template <class T>
EMULATOR_PLAIN inline void multiplied(int site, float *c, const unsigned *a, const unsigned *b) {
    Mma operand{c, a, b};
    emulator_warp_operation(site, 0xffffffffu, mma<T>, &operand);
}

struct LoadMatrix {
    unsigned *registers;
    const void *row;
};

// Lane l gives the address of row l % 8 of matrix l / 8.
template <int count, bool transposed>
EMULATOR_PLAIN inline void load_matrix(void *operands[32], unsigned mask) {
    if (mask != 0xffffffffu) emulator_fail("a matrix load needs the whole warp");
    for (int matrix = 0; matrix < count; matrix++) {
        unsigned short at[8][8];
        for (int row = 0; row < 8; row++) {
            const int lane = matrix * 8 + row;
            const void *address = static_cast<LoadMatrix *>(operands[lane])->row;
            if (reinterpret_cast<uintptr_t>(address) % 16) emulator_fail("misaligned: a matrix row");
            emulator_lane_access(lane, address, 16, false);
            memcpy(at[row], address, 16);
        }
        for (int lane = 0; lane < 32; lane++) {
            const int i = lane / 4, j = lane % 4 * 2;
            const unsigned low = transposed ? at[j][i] : at[i][j];
            const unsigned high = transposed ? at[j + 1][i] : at[i][j + 1];
            static_cast<LoadMatrix *>(operands[lane])->registers[matrix] = low | high << 16;
        }
    }
}

template <int count, bool transposed>
EMULATOR_PLAIN inline void loaded_matrix(int site, unsigned *registers, const void *row) {
    LoadMatrix operand{registers, row};
    emulator_warp_operation(site, 0xffffffffu, load_matrix<count, transposed>, &operand);
}

}  // namespace emulator

// The call's line stands for the instruction: lanes have to come to the same one.
#define mma_16x8x16_half(c, a, b) emulator::multiplied<emulator::HalfBits>(__LINE__, c, a, b)
#define mma_16x8x16_bf16(c, a, b) emulator::multiplied<emulator::Bf16Bits>(__LINE__, c, a, b)
#define load_matrix_x4(registers, row) emulator::loaded_matrix<4, false>(__LINE__, registers, row)
#define load_matrix_x2(registers, row) emulator::loaded_matrix<2, false>(__LINE__, registers, row)
#define load_matrix_x4_transposed(registers, row) \
    emulator::loaded_matrix<4, true>(__LINE__, registers, row)
#define load_matrix_x2_transposed(registers, row) \
    emulator::loaded_matrix<2, true>(__LINE__, registers, row)
