// Rows in global memory, read and written 16 bytes at a time where their addresses allow it.
#pragma once

#include "aurora.cuh"

// True if 16-byte accesses to rows of T are aligned.
template <class T>
__device__ __forceinline__ bool rows_aligned(const void *data, long long stride) {
    return reinterpret_cast<unsigned long long>(data) % 16 == 0 && stride % Vector<T>::size == 0;
}

// Sixteen bytes of a row, kept as words, so that 16-bit elements share registers.
struct alignas(16) Words {
    unsigned at[4];
};

template <class T>
__device__ __forceinline__ T element(const Words &words, int e) {
    if constexpr (sizeof(T) == 2)
        return {static_cast<unsigned short>(words.at[e / 2] >> 16 * (e % 2))};
    else return __int_as_float(static_cast<int>(words.at[e]));
}

// Loads as many elements as fit, of which `left` are inside the matrix; zeros for the rest.
template <class T>
__device__ __forceinline__ Words read_words(const T *from, int left, bool aligned) {
    if (aligned && left >= Vector<T>::size) return *reinterpret_cast<const Words *>(from);
    Words words = {};
#pragma unroll
    for (int e = 0; e < Vector<T>::size; e++) {
        if (e >= left) continue;
        if constexpr (sizeof(T) == 2)
            words.at[e / 2] |= static_cast<unsigned>(from[e].bits) << 16 * (e % 2);
        else words.at[e] = static_cast<unsigned>(__float_as_int(from[e]));
    }
    return words;
}

template <class T>
__device__ __forceinline__ void write_words(T *to, int left, bool aligned, const Words &words) {
    if (aligned && left >= Vector<T>::size) {
        *reinterpret_cast<Words *>(to) = words;
        return;
    }
#pragma unroll
    for (int e = 0; e < Vector<T>::size; e++)
        if (e < left) to[e] = element<T>(words, e);
}
