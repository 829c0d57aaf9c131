/* show.h - prints values and keys on stdout: for people, for other programs, or byte for byte.
 *
 *   on a terminal   characters that move the cursor or change colours are shown as \n, \t, \x1b,
 *                   invisible ones (invisible.h) as \u200b
 *   in a pipe       unchanged, followed by a line end; a record is one line, in which line ends,
 *                   tabs and NULs are \n, \r, \t and \0
 *   --raw           unchanged, nothing behind it; a record is KEY<TAB>VALUE<LF>
 *   -0              unchanged, followed by a NUL; a record is KEY<NUL>VALUE<NUL>; a key or value
 *                   that holds a NUL is not printed, and an error says so
 *   --json          the daemon's line
 *
 * Output is buffered: call show_flush() before waiting. */
#pragma once

#include "cli.h"

enum show_colour { SHOW_PLAIN, SHOW_DIM, SHOW_KEY, SHOW_GOOD, SHOW_BAD, SHOW_COLOUR_N };

/* Prints a key or a value by itself. */
void show_value(const struct cli *c, struct hpkv_bytes value);

/* Prints a record. width: of the column of keys on a terminal. value.p NULL: only the key. */
void show_record(const struct cli *c, struct hpkv_bytes key, struct hpkv_bytes value, size_t width);

/* Prints a line of JSON. On a terminal, characters that could steer it are written as \u009b, which
 * means the same in JSON. */
void show_line(const struct cli *c, struct hpkv_bytes line);

/* Prints a part of a line on a terminal, or of a record in a pipe: escaped, without a line end. */
void show_part(const struct cli *c, struct hpkv_bytes bytes, enum show_colour colour);
void show_pad(size_t n); /* prints n spaces */

/* On a terminal: sets the colour of what follows, until SHOW_PLAIN. */
void show_paint(const struct cli *c, enum show_colour colour);

/* Writes buffered output. 0, or CLI_USAGE if that fails, with an error printed once (none if the
 * reader has gone). */
int show_flush(void);

/* The same at the end of hpkv; also CLI_USAGE if something was not printed as requested. */
int show_end(void);
