// Reductions: sums and maxima over a warp and over a block, in an order that depends on the shape alone.
#pragma once

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int bits = kWarpSize / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(kWholeWarp, x, bits);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int bits = kWarpSize / 2; bits > 0; bits /= 2)
        x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, bits));
    return x;
}

// One number for each warp of a block, in shared memory.
struct WarpNumbers {
    float at[32];
};

// Block sum over the block's threads, in all of them. All threads call; `scratch` may be used again after the call.
__device__ __forceinline__ float block_sum(float x, WarpNumbers &scratch) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const int warps = (blockDim.x + kWarpSize - 1) / kWarpSize;
    x = warp_sum(x);
    if (lane == 0) scratch.at[warp] = x;
    __syncthreads();
    x = warp_sum(lane < warps ? scratch.at[lane] : 0.0f);
    __syncthreads();
    return x;
}

// Block maximum over the block's threads, likewise.
__device__ __forceinline__ float block_max(float x, WarpNumbers &scratch) {
    const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
    const int warps = (blockDim.x + kWarpSize - 1) / kWarpSize;
    x = warp_max(x);
    if (lane == 0) scratch.at[warp] = x;
    __syncthreads();
    x = warp_max(lane < warps ? scratch.at[lane] : -infinity());
    __syncthreads();
    return x;
}
