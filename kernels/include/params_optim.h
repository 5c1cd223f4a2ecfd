/* Parameters of AdamW and moving averages: optim/. See launch_params.h. */
#ifndef AURORA_PARAMS_OPTIM_H
#define AURORA_PARAMS_OPTIM_H

/* AdamW tensor with its state and constants: an element of an array in device memory. See
 * optim/adamw.cu. */
typedef struct AdamWTensor {
    /* (length), f32, changed in place. */
    float *parameter;
    /* (length), of the kernel's element type. */
    const void *gradient;
    /* First moment: running mean of the gradient, (length), f32, changed in place. */
    float *first;
    /* Second moment: running mean of its square, likewise. */
    float *second;
    /* Number of elements. */
    long long length;
    /* First block of the tensor in the launch. */
    int first_block;
    /* 1 - rate decay. */
    float shrink;
    /* 1 - beta1. */
    float blend1;
    /* beta2. */
    float beta2;
    /* 1 - beta2. */
    float blend2;
    /* sqrt(1 - beta2^t). */
    float root_correction2;
    /* Epsilon, added to the root. */
    float eps;
    /* rate / (1 - beta1^t). */
    float step_size;
} AdamWTensor;

/* AdamW step: see optim/adamw.cu. */
typedef struct AdamW {
    /* Table of tensors in device memory. */
    const AdamWTensor *tensors;
    /* Tensor of each block, (blocks), in device memory. */
    const int *tensor_of_block;
} AdamW;

/* Averaged tensor, with the live one: an element of an array in device memory. See
 * optim/moving_average.cu. */
typedef struct AveragedTensor {
    /* (length), f32, changed in place. */
    float *average;
    /* (length), of the kernel's element type. */
    const void *live;
    /* Number of elements. */
    long long length;
    /* First block of the tensor in the launch. */
    int first_block;
    /* Padding. */
    int unused;
} AveragedTensor;

/* Exponential moving average, one step of all: see optim/moving_average.cu. */
typedef struct MovingAverage {
    /* Table of tensors in device memory. */
    const AveragedTensor *tensors;
    /* Tensor of each block, (blocks), in device memory. */
    const int *tensor_of_block;
    /* Decay: share of the average that stays. */
    float decay;
    /* 1 - decay. */
    float rest;
} MovingAverage;

#endif
