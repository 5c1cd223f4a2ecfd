// The sizes of the parameter structs as the host's compiler sees them, checked by the device's.
#pragma once

#include "launch_params.h"

static_assert(sizeof(LayerNormForward) == 88, "LayerNormForward differs from the host's");
