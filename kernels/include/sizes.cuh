// The sizes of the parameter structs as the host's compiler sees them, checked by the device's.
#pragma once

#include "launch_params.h"

static_assert(sizeof(LayerNormForward) == 88, "LayerNormForward differs from the host's");
static_assert(sizeof(AttentionRows) == 24, "AttentionRows differs from the host's");
static_assert(sizeof(AttentionScores) == 48, "AttentionScores differs from the host's");
static_assert(sizeof(AttentionForward) == 160, "AttentionForward differs from the host's");
static_assert(sizeof(AttentionDelta) == 72, "AttentionDelta differs from the host's");
static_assert(sizeof(AttentionBackward) == 256, "AttentionBackward differs from the host's");
