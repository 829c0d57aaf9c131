/* clock-text.h - times and durations as text for people. */
#pragma once

#include <stdint.h>

enum { CLOCK_TEXT_MAX = 48 };

/* Local time of ms since 1970: "12:34:56.789", or with the date and the zone
 * "2025-11-25T12:34:56.789+01:00". */
void clock_text(char out[CLOCK_TEXT_MAX], int64_t ms, int with_date);

/* A duration: "350 ms", "12 s", "3 min 20 s", "2 h 5 min", "4 d 3 h". */
void clock_duration(char out[CLOCK_TEXT_MAX], double ms);
