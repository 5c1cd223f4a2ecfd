/* Parameters of cross-entropy: loss/. See launch_params.h. */
#ifndef AURORA_PARAMS_LOSS_H
#define AURORA_PARAMS_LOSS_H

/* Cross-entropy forward over rows of logits: see loss/soft_cross_entropy.cu. */
typedef struct SoftCrossEntropyForward {
    /* (rows, classes), rows logits_stride elements apart. */
    const void *logits;
    /* (rows, classes), rows targets_stride elements apart; not read where there are labels. */
    const void *targets;
    /* (rows), or null. */
    const unsigned *labels;
    /* (rows, slices, 4), f32; null where a row is one slice. */
    float *partial;
    /* (rows), f32. */
    float *loss;
    /* (rows), f32. */
    float *log_sum;
    /* Sum of each row's targets, (rows), f32, or null. */
    float *weight;
    /* Row stride of logits. */
    long long logits_stride;
    /* Row stride of targets. */
    long long targets_stride;
    /* Number of rows. */
    long long rows;
    /* Length of a row. */
    int classes;
    /* Blocks per row. */
    int slices;
    /* Classes of a slice; the last may have fewer. */
    int slice_length;
    /* Label smoothing: share of a label's weight that goes to all classes alike. */
    float smoothing;
} SoftCrossEntropyForward;

/* Cross-entropy backward: see loss/soft_cross_entropy.cu. */
typedef struct SoftCrossEntropyBackward {
    /* (rows, classes), rows logits_stride elements apart. */
    const void *logits;
    /* (rows, classes), rows targets_stride elements apart; not read where there are labels. */
    const void *targets;
    /* (rows), or null. */
    const unsigned *labels;
    /* Output of the forward pass, (rows), f32. */
    const float *log_sum;
    /* Likewise; not read where there are labels. */
    const float *weight;
    /* Gradient of each row's loss, dloss_stride apart, f32. */
    const float *dloss;
    /* (rows, classes), dense. */
    void *dlogits;
    /* Row stride of logits. */
    long long logits_stride;
    /* Row stride of targets. */
    long long targets_stride;
    /* Stride of the gradients of losses: 0 where all rows have one. */
    long long dloss_stride;
    /* Length of a row. */
    int classes;
    /* Blocks per row. */
    int slices;
    /* Classes of a slice; the last may have fewer. */
    int slice_length;
    /* Label smoothing: share of a label's weight that goes to all classes alike. */
    float smoothing;
    /* Factor of dloss. */
    float scale;
    /* Padding. */
    int unused;
} SoftCrossEntropyBackward;

/* Mean of losses: see loss/soft_cross_entropy.cu. */
typedef struct LossMean {
    /* (rows), f32. */
    const float *loss;
    /* (1), f32. */
    float *mean;
    /* Number of rows. */
    long long rows;
} LossMean;

#endif
