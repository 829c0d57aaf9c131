#include "show.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "visible.h"

static const char *const paints[] = {
	[SHOW_PLAIN] = "\033[0m", [SHOW_DIM] = "\033[2m",  [SHOW_KEY] = "\033[36m",
	[SHOW_GOOD] = "\033[32m", [SHOW_BAD] = "\033[31m",
};
_Static_assert(sizeof(paints) / sizeof(paints[0]) == SHOW_COLOUR_N, "a paint for each colour");

static bool withheld; /* something was not printed; the exit status says so */

/* ---- characters ---- */

static void put_visible(struct hpkv_bytes bytes)
{
	for (size_t i = 0; i < bytes.n;) {
		struct glyph g = glyph_at(bytes.p + i, bytes.n - i);
		if (*g.escape)
			fputs(g.escape, stdout);
		else
			fwrite(bytes.p + i, 1, g.bytes, stdout);
		i += g.bytes;
	}
}

/* Escapes only what would end a record or a field. */
static void put_field(struct hpkv_bytes bytes)
{
	for (size_t i = 0; i < bytes.n; i++) {
		char c = bytes.p[i];
		if (c == '\n')
			fputs("\\n", stdout);
		else if (c == '\r')
			fputs("\\r", stdout);
		else if (c == '\t')
			fputs("\\t", stdout);
		else if (c == '\0') /* a shell drops a NUL silently */
			fputs("\\0", stdout);
		else
			putchar(c);
	}
}

static void put_bytes(struct hpkv_bytes bytes)
{
	if (bytes.n) /* p is NULL when there is nothing */
		fwrite(bytes.p, 1, bytes.n, stdout);
}

/* ---- output ---- */

void show_paint(const struct cli *c, enum show_colour colour)
{
	if (c->colour)
		fputs(paints[colour], stdout);
}

void show_part(const struct cli *c, struct hpkv_bytes bytes, enum show_colour colour)
{
	if (!c->terminal) {
		put_field(bytes);
		return;
	}
	if (colour)
		show_paint(c, colour);
	put_visible(bytes);
	if (colour)
		show_paint(c, SHOW_PLAIN);
}

void show_pad(size_t n)
{
	while (n-- > 0)
		putchar(' ');
}

/* With -0 a NUL within a key or value would make two of one. Prints an error and returns false if
 * there is one. */
static bool stands_alone(const struct cli *c, const char *what, struct hpkv_bytes bytes)
{
	if (!c->nul || !bytes.n || !memchr(bytes.p, '\0', bytes.n))
		return true;
	cli_say("%s: %s %s holds a NUL, which -0 can't print; --json can", c->command->name, what,
		visible_name(bytes));
	withheld = true;
	return false;
}

void show_value(const struct cli *c, struct hpkv_bytes value)
{
	if (!stands_alone(c, "the value", value))
		return;
	if (c->raw || c->nul || !c->terminal)
		put_bytes(value);
	else
		put_visible(value);
	if (c->nul)
		putchar('\0');
	else if (!c->raw)
		putchar('\n');
}

static void show_exact_record(const struct cli *c, struct hpkv_bytes key, struct hpkv_bytes value)
{
	if (!stands_alone(c, "the key", key) || !stands_alone(c, "the value", value))
		return;
	put_bytes(key);
	if (value.p) {
		putchar(c->nul ? '\0' : '\t');
		put_bytes(value);
	}
	putchar(c->nul ? '\0' : '\n');
}

void show_record(const struct cli *c, struct hpkv_bytes key, struct hpkv_bytes value, size_t width)
{
	if (c->raw || c->nul) {
		show_exact_record(c, key, value);
		return;
	}
	show_part(c, key, SHOW_KEY);
	if (value.p) {
		size_t used = c->terminal ? visible_width(key) : 0;
		if (c->terminal)
			show_pad((used < width ? width - used : 0) + 2);
		else
			putchar('\t');
		show_part(c, value, SHOW_PLAIN);
	}
	putchar('\n');
}

/* Writes an escape that JSON has as well. Control characters occur only between tokens, where a
 * space means the same. */
static void put_json_escape(const struct glyph *g, unsigned char byte)
{
	unsigned c = g->wide ? (unsigned)g->wide : byte == 0x7f ? byte : 0xfffd;

	if (byte < 0x20)
		putchar(' ');
	else if (c > 0xffff)
		printf("\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
	else
		printf("\\u%04x", c);
}

void show_line(const struct cli *c, struct hpkv_bytes line)
{
	for (size_t i = 0; c->terminal && i < line.n;) {
		struct glyph g = glyph_at(line.p + i, line.n - i);
		if (*g.escape)
			put_json_escape(&g, (unsigned char)line.p[i]);
		else
			fwrite(line.p + i, 1, g.bytes, stdout);
		i += g.bytes;
	}
	if (!c->terminal)
		put_bytes(line);
	putchar('\n');
}

int show_flush(void)
{
	static bool said;
	int error = output_finish();

	if (!error)
		return CLI_DONE;
	if (!said && !output_is_unread(error))
		cli_say("can't write the output: %s", strerror(-error));
	said = true;
	return CLI_USAGE;
}

int show_end(void)
{
	int status = show_flush();

	return withheld ? CLI_USAGE : status;
}
