// Parameters of the kernels in faults.cu.
#pragma once

struct Exchanged {
    const float *x;
    float *y;
    int fault;
    int one;  // 1, which the compiler must not know
};

struct Multiplied {
    const unsigned short *a, *b;
    float *c;
};
