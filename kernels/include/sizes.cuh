// The sizes of the parameter structs as the host lays them out, checked by the device's
// compiler. Made by `cargo xtask bindings` from launch_params.h: change that and run it again.
#pragma once

#include "launch_params.h"

static_assert(sizeof(AttentionRows) == 24, "AttentionRows: run cargo xtask bindings");
static_assert(sizeof(AttentionScores) == 48, "AttentionScores: run cargo xtask bindings");
static_assert(sizeof(AttentionForward) == 160, "AttentionForward: run cargo xtask bindings");
static_assert(sizeof(AttentionDelta) == 72, "AttentionDelta: run cargo xtask bindings");
static_assert(sizeof(AttentionBackward) == 256, "AttentionBackward: run cargo xtask bindings");
static_assert(sizeof(GatedQueryForward) == 104, "GatedQueryForward: run cargo xtask bindings");
static_assert(sizeof(GatedQueryBackward) == 104, "GatedQueryBackward: run cargo xtask bindings");
static_assert(sizeof(GatedQueryFinish) == 80, "GatedQueryFinish: run cargo xtask bindings");
static_assert(sizeof(GatedQueryGates) == 80, "GatedQueryGates: run cargo xtask bindings");
static_assert(sizeof(CpSlice) == 40, "CpSlice: run cargo xtask bindings");
static_assert(sizeof(CpPair) == 40, "CpPair: run cargo xtask bindings");
static_assert(sizeof(CpReconstruct) == 32, "CpReconstruct: run cargo xtask bindings");
static_assert(sizeof(CpFactorGradient) == 168, "CpFactorGradient: run cargo xtask bindings");
static_assert(sizeof(CpApply) == 72, "CpApply: run cargo xtask bindings");
static_assert(sizeof(SoftCrossEntropyForward) == 96, "SoftCrossEntropyForward: run cargo xtask bindings");
static_assert(sizeof(SoftCrossEntropyBackward) == 104, "SoftCrossEntropyBackward: run cargo xtask bindings");
static_assert(sizeof(LossMean) == 24, "LossMean: run cargo xtask bindings");
static_assert(sizeof(LayerNormForward) == 88, "LayerNormForward: run cargo xtask bindings");
static_assert(sizeof(LayerNormBackward) == 80, "LayerNormBackward: run cargo xtask bindings");
static_assert(sizeof(LayerNormParameters) == 64, "LayerNormParameters: run cargo xtask bindings");
static_assert(sizeof(AddBias) == 32, "AddBias: run cargo xtask bindings");
static_assert(sizeof(ColumnSum) == 40, "ColumnSum: run cargo xtask bindings");
static_assert(sizeof(ColumnSumFinish) == 40, "ColumnSumFinish: run cargo xtask bindings");
static_assert(sizeof(GeluForward) == 40, "GeluForward: run cargo xtask bindings");
static_assert(sizeof(GeluBackward) == 56, "GeluBackward: run cargo xtask bindings");
static_assert(sizeof(AdamWTensor) == 72, "AdamWTensor: run cargo xtask bindings");
static_assert(sizeof(AdamW) == 16, "AdamW: run cargo xtask bindings");
static_assert(sizeof(AveragedTensor) == 32, "AveragedTensor: run cargo xtask bindings");
static_assert(sizeof(MovingAverage) == 24, "MovingAverage: run cargo xtask bindings");
