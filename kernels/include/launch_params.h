/* What kernels take, by value: the one place where host and device agree on it.
 *
 * Plain C, read by bindgen. Pointers are device pointers; sizes are in elements unless they say
 * bytes. Fields are ordered by size, so that no struct has padding inside. Every struct has a
 * static_assert of its size in sizes.cuh; the Rust side has layout tests.
 */
#ifndef AURORA_LAUNCH_PARAMS_H
#define AURORA_LAUNCH_PARAMS_H

/* Layer normalisation of x, or of x + residual: see norm/layer_norm.cu. */
typedef struct LayerNormForward {
    /* (rows, columns), rows x_stride elements apart. */
    const void *x;
    /* (rows, columns), dense, or null. */
    const void *residual;
    /* (columns). */
    const void *weight;
    /* (columns). */
    const void *bias;
    /* (rows, columns), dense. */
    void *y;
    /* x + residual as it was normalised, (rows, columns), dense; null where not wanted. */
    void *sum;
    /* Mean of each row, (rows), f32; null where no backward pass will come. */
    float *mean;
    /* One over the standard deviation of each row, (rows), f32; null likewise. */
    float *rstd;
    /* Distance between rows of x. */
    long long x_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int columns;
    /* Added to the variance. */
    float eps;
} LayerNormForward;

#endif
