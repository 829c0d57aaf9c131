#include "config/draft.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

void draft_fault_in_line(struct draft *d, unsigned line, const char *format, ...)
{
	char place[PATH_MAX + 64], message[2 * PATH_MAX];
	va_list args;

	if (line)
		snprintf(place, sizeof(place), "%s:%u:", d->path, line);
	else
		snprintf(place, sizeof(place), "%s%s:", d->path,
			 d->absent ? " (no such file)" : "");
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	config_report_add(d->report, place, message);
}

void draft_fault(struct draft *d, enum setting_id id, const char *format, ...)
{
	char message[2 * PATH_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	draft_fault_in_line(d, d->given[id], "[%s] %s: %s", setting_section(id), setting_name(id),
			    message);
	d->bad[id] = true;
}

void draft_set(struct draft *d, enum setting_id id, const char *value)
{
	struct buf why = {0};

	if (!setting_set(d->values, id, value, &why))
		draft_fault(d, id, "%.*s", (int)buf_len(&why), buf_span(&why).p);
	buf_release(&why);
}

char *draft_resolve_path(const struct draft *d, const char *dir, const char *path)
{
	const char *slash = strrchr(d->path, '/');
	struct buf b = {0};

	if (path[0] == '/')
		return mem_strdup(path);
	if (dir)
		buf_addf(&b, "%s/%s", dir, path);
	else if (slash)
		buf_addf(&b, "%.*s/%s", (int)(slash - d->path), d->path, path);
	else
		buf_addf(&b, "%s", path);
	char *resolved = mem_strndup(buf_span(&b).p, buf_len(&b));
	buf_release(&b);
	return resolved;
}

void draft_note_exposure(struct draft *d, const char *path, const struct stat *st,
			 enum config_exposed writable, enum config_exposed foreign)
{
	char **exposed = d->values->config.exposed;

	if (S_ISREG(st->st_mode) && st->st_mode & S_IWOTH)
		exposed[writable] = mem_strdup(path);
	if (S_ISREG(st->st_mode) && st->st_uid != 0 && st->st_uid != geteuid())
		exposed[foreign] = mem_strdup(path);
}
