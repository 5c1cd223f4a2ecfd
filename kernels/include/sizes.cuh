// The sizes of the parameter structs as the host lays them out, checked by the device's
// compiler. Made by `cargo xtask bindings` from launch_params.h: change that and run it again.
#pragma once

#include "launch_params.h"

static_assert(sizeof(LayerNormForward) == 88, "LayerNormForward");
static_assert(sizeof(LayerNormBackward) == 80, "LayerNormBackward");
static_assert(sizeof(LayerNormParameters) == 64, "LayerNormParameters");
static_assert(sizeof(AddBias) == 32, "AddBias");
static_assert(sizeof(ColumnSum) == 40, "ColumnSum");
static_assert(sizeof(ColumnSumFinish) == 40, "ColumnSumFinish");
static_assert(sizeof(GeluForward) == 40, "GeluForward");
static_assert(sizeof(GeluBackward) == 56, "GeluBackward");
static_assert(sizeof(GatedQueryForward) == 104, "GatedQueryForward");
static_assert(sizeof(GatedQueryBackward) == 104, "GatedQueryBackward");
static_assert(sizeof(GatedQueryFinish) == 80, "GatedQueryFinish");
static_assert(sizeof(GatedQueryGates) == 80, "GatedQueryGates");
static_assert(sizeof(AdamWTensor) == 72, "AdamWTensor");
static_assert(sizeof(AdamW) == 16, "AdamW");
static_assert(sizeof(AveragedTensor) == 32, "AveragedTensor");
static_assert(sizeof(MovingAverage) == 24, "MovingAverage");
static_assert(sizeof(SoftCrossEntropyForward) == 96, "SoftCrossEntropyForward");
static_assert(sizeof(SoftCrossEntropyBackward) == 104, "SoftCrossEntropyBackward");
static_assert(sizeof(LossMean) == 24, "LossMean");
