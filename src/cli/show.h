/* show.h - values and keys on stdout: for people, for other programs, or byte for byte.
 *
 *   on a terminal   what could move the cursor or change the colours is shown as \n, \t, \x1b;
 *                   what nobody would see (invisible.h) as \u200b
 *   in a pipe       as it is, with a line end behind it; in records, where a line is a record, line
 * ends, tabs and NULs within are \n, \r, \t and \0
 *   --raw           as it is, nothing behind it; records as KEY<TAB>VALUE<LF>
 *   -0              as it is, with a NUL behind it: KEY<NUL>VALUE<NUL>; one that holds a NUL is
 *                   not printed, which is said
 *   --json          the daemon's line
 *
 * Output is buffered; show_flush() before anything waits. */
#pragma once

#include "cli.h"

enum show_colour { SHOW_PLAIN, SHOW_DIM, SHOW_KEY, SHOW_GOOD, SHOW_BAD, SHOW_COLOUR_N };

/* A key or value by itself. */
void show_value(const struct cli *c, struct hpkv_bytes value);

/* A key and a value; width: of the column of keys on a terminal. value.p NULL: only the key. */
void show_record(const struct cli *c, struct hpkv_bytes key, struct hpkv_bytes value, size_t width);

/* A line of JSON. On a terminal, what could steer it is written as \u009b, which means the same. */
void show_line(const struct cli *c, struct hpkv_bytes line);

/* A part of a line on a terminal, or of a record in a pipe: escaped, without an end. */
void show_part(const struct cli *c, struct hpkv_bytes bytes, enum show_colour colour);
void show_pad(size_t n);
size_t show_width(struct hpkv_bytes bytes); /* columns that show_part() takes on a terminal */

/* On a terminal: from here on, until SHOW_PLAIN. */
void show_paint(const struct cli *c, enum show_colour colour);

/* Printable whatever it holds, and cut to what out has room for, which is seen. Returns out. */
const char *show_visible(char *out, size_t size, struct hpkv_bytes bytes);

/* The same, for messages, in memory that the next four calls leave alone: a key or a value is cut
 * to a sensible length; a sentence or a path hardly ever. */
const char *show_safe(struct hpkv_bytes bytes);
const char *show_sentence(struct hpkv_bytes bytes);

/* 0, or CLI_USAGE when the output can't be written, which is said once (a reader that has gone is
 * nothing to talk about). */
int show_flush(void);

/* The same at the end; CLI_USAGE also when something could not be printed as it was asked for. */
int show_end(void);
