// Element types of tensors: float, Half (f16) and Bf16, computed with in float.
#pragma once

struct Half {
    unsigned short bits;
};
struct Bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(Half x) { return half_bits_to_float(x.bits); }
__device__ __forceinline__ float to_float(Bf16 x) {
    return __int_as_float(static_cast<int>(static_cast<unsigned>(x.bits) << 16));
}

__device__ __forceinline__ void from_float(float &to, float x) { to = x; }
__device__ __forceinline__ void from_float(Half &to, float x) { to.bits = float_to_half_bits(x); }
__device__ __forceinline__ void from_float(Bf16 &to, float x) { to.bits = float_to_bf16_bits(x); }

template <class T>
__device__ __forceinline__ T round_to(float x) {
    T to;
    from_float(to, x);
    return to;
}

// Two elements in one register, the first in the low half.
template <class T>
__device__ __forceinline__ unsigned pack(float low, float high) {
    return static_cast<unsigned>(round_to<T>(low).bits) |
           static_cast<unsigned>(round_to<T>(high).bits) << 16;
}

// Sixteen bytes of elements, moved at once.
template <class T>
struct alignas(16) Vector {
    static constexpr int size = 16 / sizeof(T);
    T at[size];
};

template <class T>
__device__ __forceinline__ bool vector_aligned(const T *p) {
    return reinterpret_cast<unsigned long long>(p) % 16 == 0;
}

template <class T>
__device__ __forceinline__ Vector<T> load_vector(const T *p) {
    return *reinterpret_cast<const Vector<T> *>(p);
}

template <class T>
__device__ __forceinline__ void store_vector(T *p, const Vector<T> &v) {
    *reinterpret_cast<Vector<T> *>(p) = v;
}

// Matrix multiply-accumulate c += a b over a warp; see mma_16x8x16_half. A macro, because the emulator tells
// instructions apart by their line.
#define MMA_16X8X16(T, c, a, b)                                            \
    do {                                                                   \
        if constexpr (is_half<T>) mma_16x8x16_half(c, a, b);               \
        else mma_16x8x16_bf16(c, a, b);                                    \
    } while (0)

template <class T>
constexpr bool is_half = false;
template <>
constexpr bool is_half<Half> = true;

// Instantiates a kernel for each element type.
#define FOR_EACH_ELEMENT(DEFINE) DEFINE(float, f32) DEFINE(Half, f16) DEFINE(Bf16, bf16)

constexpr int kWarpSize = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
