/* Launch parameters of the kernels, taken by value: the one place where host and device agree on them.
 *
 * Plain C, read by bindgen. Pointers are device pointers; sizes are in elements unless they say
 * bytes. Fields are ordered by size, so that no struct has padding inside. Every struct has a
 * static_assert of its size in sizes.cuh; the Rust side has layout tests.
 */
#ifndef AURORA_LAUNCH_PARAMS_H
#define AURORA_LAUNCH_PARAMS_H

#include "params_attention.h"
#include "params_cp.h"
#include "params_loss.h"
#include "params_norm.h"
#include "params_optim.h"

#endif
