// The sizes of the parameter structs as the host's compiler sees them, checked by the device's.
#pragma once

#include "launch_params.h"

static_assert(sizeof(LayerNormForward) == 88, "LayerNormForward differs from the host's");
static_assert(sizeof(LayerNormBackward) == 80, "LayerNormBackward differs from the host's");
static_assert(sizeof(LayerNormParameters) == 64, "LayerNormParameters differs from the host's");
static_assert(sizeof(AddBias) == 32, "AddBias differs from the host's");
static_assert(sizeof(ColumnSum) == 40, "ColumnSum differs from the host's");
static_assert(sizeof(ColumnSumFinish) == 40, "ColumnSumFinish differs from the host's");
static_assert(sizeof(GeluForward) == 40, "GeluForward differs from the host's");
static_assert(sizeof(GeluBackward) == 56, "GeluBackward differs from the host's");
static_assert(sizeof(GatedQueryForward) == 104, "GatedQueryForward differs from the host's");
static_assert(sizeof(GatedQueryBackward) == 104, "GatedQueryBackward differs from the host's");
static_assert(sizeof(GatedQueryFinish) == 80, "GatedQueryFinish differs from the host's");
static_assert(sizeof(GatedQueryGates) == 80, "GatedQueryGates differs from the host's");
static_assert(sizeof(AdamWTensor) == 72, "AdamWTensor differs from the host's");
static_assert(sizeof(AdamW) == 16, "AdamW differs from the host's");
static_assert(sizeof(AveragedTensor) == 32, "AveragedTensor differs from the host's");
static_assert(sizeof(MovingAverage) == 24, "MovingAverage differs from the host's");
static_assert(sizeof(SoftCrossEntropyForward) == 96,
              "SoftCrossEntropyForward differs from the host's");
static_assert(sizeof(SoftCrossEntropyBackward) == 104,
              "SoftCrossEntropyBackward differs from the host's");
static_assert(sizeof(LossMean) == 24, "LossMean differs from the host's");
