#include "note.h"

#include <stdlib.h>

#include "mem.h"

struct note *note_new(size_t n, struct span key)
{
	struct note *note = mem_alloc(sizeof(*note) + n + key.n);
	char *copy = note->text + n;

	*note = (struct note){.refs = 1, .n = (uint32_t)n, .key = {copy, key.n}};
	if (key.n)
		memcpy(copy, key.p, key.n);
	return note;
}

void note_unref(struct note *note)
{
	if (--note->refs)
		return;
	if (note->secret)
		mem_wipe(note->text, note->n);
	free(note);
}
