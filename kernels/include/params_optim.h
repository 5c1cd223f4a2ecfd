/* Parameters of AdamW and moving averages: optim/. See launch_params.h. */
#ifndef AURORA_PARAMS_OPTIM_H
#define AURORA_PARAMS_OPTIM_H

/* A tensor and what AdamW does to it in this step: an element of an array in device memory. See
 * optim/adamw.cu. */
typedef struct AdamWTensor {
    /* (length), f32, changed in place. */
    float *parameter;
    /* (length), of the kernel's element type. */
    const void *gradient;
    /* Running mean of the gradient, (length), f32, changed in place. */
    float *first;
    /* Running mean of its square, likewise. */
    float *second;
    /* Number of elements. */
    long long length;
    /* Block of the launch that has its first elements. */
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
    /* Added to the root. */
    float eps;
    /* rate / (1 - beta1^t). */
    float step_size;
} AdamWTensor;

/* A step of AdamW: see optim/adamw.cu. */
typedef struct AdamW {
    /* In device memory. */
    const AdamWTensor *tensors;
    /* Which of them a block is for, (blocks), in device memory. */
    const int *tensor_of_block;
} AdamW;

/* A tensor and its moving average: an element of an array in device memory. See
 * optim/moving_average.cu. */
typedef struct AveragedTensor {
    /* (length), f32, changed in place. */
    float *average;
    /* (length), of the kernel's element type. */
    const void *live;
    /* Number of elements. */
    long long length;
    /* Block of the launch that has its first elements. */
    int first_block;
    /* Nothing: for the size. */
    int unused;
} AveragedTensor;

/* A step of all moving averages: see optim/moving_average.cu. */
typedef struct MovingAverage {
    /* In device memory. */
    const AveragedTensor *tensors;
    /* Which of them a block is for, (blocks), in device memory. */
    const int *tensor_of_block;
    /* Share of the average that stays. */
    float decay;
    /* 1 - decay. */
    float rest;
} MovingAverage;

#endif
