// The sizes of the parameter structs as the host lays them out, checked by the device's
// compiler. Made by `cargo xtask bindings` from launch_params.h: change that and run it again.
#pragma once

#include "launch_params.h"

static_assert(sizeof(LayerNormForward) == 88, "LayerNormForward: run cargo xtask bindings");
static_assert(sizeof(AttentionRows) == 24, "AttentionRows: run cargo xtask bindings");
static_assert(sizeof(AttentionScores) == 48, "AttentionScores: run cargo xtask bindings");
static_assert(sizeof(AttentionForward) == 160, "AttentionForward: run cargo xtask bindings");
static_assert(sizeof(AttentionDelta) == 72, "AttentionDelta: run cargo xtask bindings");
static_assert(sizeof(AttentionBackward) == 256, "AttentionBackward: run cargo xtask bindings");
