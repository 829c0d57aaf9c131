#include "stats.h"

#include <stddef.h>

static const struct {
	const char *name, *help;
	size_t offset;
} table[] = {
#define STATS_ROW(name, help) {"hpkvd_" #name "_total", help, offsetof(struct stats, name)},
	STATS_TABLE(STATS_ROW)
#undef STATS_ROW
};

int stats_row(const struct stats *s, unsigned i, struct stats_row *row)
{
	if (i >= sizeof(table) / sizeof(table[0]))
		return 0;
	row->name = table[i].name;
	row->help = table[i].help;
	row->value = *(const uint64_t *)(const void *)((const char *)s + table[i].offset);
	return 1;
}
