// Packs of elements: one at a time, or as many as sixteen bytes hold, with one text for both.
#pragma once

// Width of a pack as an argument.
template <int count>
struct Width {
    static constexpr int value = count;
};

// Pack of contiguous elements, moved at once where the compiler and their address allow it.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

template <int N, class T>
__device__ __forceinline__ void load(float (&to)[N], const T *from) {
    if constexpr (N == 1) {
        to[0] = to_float(*from);
    } else {
        const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N> *>(from);
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = to_float(pack.at[i]);
    }
}

template <int N, class T>
__device__ __forceinline__ void store(T *to, const float (&from)[N]) {
    if constexpr (N == 1) {
        from_float(*to, from[0]);
    } else {
        Pack<T, N> pack;
#pragma unroll
        for (int i = 0; i < N; i++) from_float(pack.at[i], from[i]);
        *reinterpret_cast<Pack<T, N> *>(to) = pack;
    }
}

// True if all of these begin at multiples of 16 bytes; null does.
template <class... Pointers>
__device__ __forceinline__ bool all_aligned(Pointers... pointers) {
    return ((reinterpret_cast<unsigned long long>(pointers) | ...) & 15) == 0;
}

// Calls body(index, Width<N>) for this thread's share of `count` contiguous elements. A block takes a tile of
// blockDim.x packs. Without `packed` every width is 1. `body` is a struct, not a generic lambda, which NVRTC takes
// for a function of the host.
template <class T, class Body>
__device__ __forceinline__ void each_pack(long long count, bool packed, Body body) {
    constexpr int N = Vector<T>::size;
    const long long tile = static_cast<long long>(blockIdx.x) * blockDim.x * N;
    if (packed) {
        const long long first = tile + static_cast<long long>(threadIdx.x) * N;
        if (first + N <= count) body(first, Width<N>{});
        else
            for (long long i = first; i < count; i++) body(i, Width<1>{});
    } else {
        for (int i = 0; i < N; i++) {
            const long long at = tile + static_cast<long long>(i) * blockDim.x + threadIdx.x;
            if (at < count) body(at, Width<1>{});
        }
    }
}
