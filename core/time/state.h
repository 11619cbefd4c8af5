/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <tessera/state.h>

extern const TesStateOps tes_state_time;
