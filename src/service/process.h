/* process.h - figures of this process that the kernel has. */
#pragma once

#include "codec/stats.h"

/* Sets all of STATS_PROCESS(); NAN: unknown. started_wall_ms: wall clock. */
void process_figures(int64_t started_wall_ms, struct stats_gauges *g);
