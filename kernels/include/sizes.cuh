// The sizes of the parameter structs as the host's compiler sees them, checked by the device's.
#pragma once

#include "launch_params.h"

static_assert(sizeof(LayerNormForward) == 88, "LayerNormForward differs from the host's");

static_assert(sizeof(CpSlice) == 40, "CpSlice differs from the host's");
static_assert(sizeof(CpPair) == 40, "CpPair differs from the host's");
static_assert(sizeof(CpReconstruct) == 32, "CpReconstruct differs from the host's");
static_assert(sizeof(CpFactorGradient) == 168, "CpFactorGradient differs from the host's");
static_assert(sizeof(CpApply) == 72, "CpApply differs from the host's");
