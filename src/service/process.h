/* process.h - what the kernel knows of this process, for its figures. */
#pragma once

#include "codec/stats.h"

/* Sets all of STATS_PROCESS(), NAN what can't be found out. The start is the caller's to know: wall
 * clock, in ms. */
void process_figures(int64_t started_wall_ms, struct stats_gauges *g);
