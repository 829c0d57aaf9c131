/* say.h - messages on stderr. */
#pragma once

/* Prints "hpkv: ..." as one line; control characters are escaped. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "1 record", "2 records", in static memory that the next three calls do not reuse. */
const char *say_count(long n, const char *what);
