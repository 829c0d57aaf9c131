#include "config/load.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "config/doors.h"
#include "config/draft.h"
#include "config/file.h"
#include "config/inifile.h"
#include "config/references.h"
#include "config/rules.h"
#include "config/settings_table.h"

enum { CONFIG_FILE_MAX = 1 << 20 };

struct loader {
	const struct config_source *source;
	struct draft draft;
	const char *section;       /* of the next settings; NULL: it was refused, with them */
	struct rules_reader rules; /* the [access NAME] sections */
	bool in_rules;             /* the next settings belong to one of them */
};

static void unknown_section(struct loader *l, unsigned line, const char *name)
{
	struct buf names = {0};

	setting_list_sections(&names);
	buf_addf(&names, " [access NAME]");
	draft_fault_in_line(&l->draft, line, "[%.*s]: there is no such section; there are:%.*s",
			    setting_shown(name), name, (int)buf_len(&names), buf_span(&names).p);
	buf_release(&names);
}

static void on_section(void *owner, unsigned line, const char *name)
{
	struct loader *l = owner;

	l->section = NULL;
	l->in_rules = rules_is_section(name);
	if (l->in_rules) {
		rules_section(&l->rules, line, name);
		return;
	}
	l->section = setting_section_find(name);
	if (!l->section)
		unknown_section(l, line, name);
}

static void unknown_setting(struct loader *l, unsigned line, const char *name)
{
	struct buf names = {0};

	setting_list(&names, l->section);
	draft_fault_in_line(&l->draft, line,
			    "[%s] %.*s: there is no such setting; the section has:%.*s", l->section,
			    setting_shown(name), name, (int)buf_len(&names), buf_span(&names).p);
	buf_release(&names);
}

static void on_setting(void *owner, unsigned line, const char *name, const char *value)
{
	struct loader *l = owner;
	struct draft *d = &l->draft;

	if (l->in_rules) {
		rules_setting(&l->rules, line, name, value);
		return;
	}
	if (!l->section)
		return;
	if (!l->section[0]) {
		draft_fault_in_line(&l->draft, line, "%.*s: stands before the first [section]",
				    setting_shown(name), name);
		return;
	}
	enum setting_id id = setting_find(l->section, name);
	if (id == SET_N) {
		unknown_setting(l, line, name);
	} else if (d->given[id]) {
		draft_fault_in_line(&l->draft, line, "[%s] %s: is set twice, first in line %u",
				    l->section, name, d->given[id]);
	} else {
		d->given[id] = line;
		draft_set(d, id, value);
	}
}

static void on_fault(void *owner, unsigned line, const char *predicate)
{
	struct loader *l = owner;

	draft_fault_in_line(&l->draft, line, "the line %s", predicate);
}

static void on_rules_fault(void *owner, unsigned line, const char *text)
{
	struct loader *l = owner;

	draft_fault_in_line(&l->draft, line, "%s", text);
}

static void on_rules_warning(void *owner, unsigned line, const char *text)
{
	struct loader *l = owner;
	char place[PATH_MAX + 64];

	snprintf(place, sizeof(place), "%s:%u:", l->draft.path, line);
	config_report_add(&l->draft.values->config.warnings, place, text);
}

static bool on_rules_key(void *owner, unsigned line, const char *section, const char *path,
			 struct local_key *key)
{
	struct loader *l = owner;

	return doors_section_key(&l->draft, line, section, path, key);
}

static const struct inifile_ops file_ops = {
	.section = on_section, .setting = on_setting, .fault = on_fault};

/* Reads and applies the file. 0 also if it is not there and need not be. The report has its faults.
 */
static int load_file(struct loader *l)
{
	struct config *config = &l->draft.values->config;
	struct buf b = {0};
	struct stat st;
	int fd = file_open(l->draft.path, l->source->at_once ? FILE_AT_ONCE : FILE_ANY, &st),
	    error = fd < 0 ? fd : file_read(fd, CONFIG_FILE_MAX, &b);

	l->section = "";
	if (fd == -ENOENT && !l->source->required) {
		l->draft.absent = true;
		error = 0;
	} else if (error == -EFBIG) {
		draft_fault_in_line(&l->draft, 0,
				    "is longer than 1M: that is no configuration file");
	} else if (error) {
		draft_fault_in_line(&l->draft, 0, "cannot be read: %s", strerror(-error));
	} else if (l->source->filled && !buf_len(&b)) {
		draft_fault_in_line(&l->draft, 0,
				    "is empty, and was not before: is it being written?");
		error = -EINVAL;
	} else {
		config->has_file = true;
		config->has_text = buf_len(&b) > 0;
		draft_note_exposure(&l->draft, l->draft.path, &st, CONFIG_WRITABLE, CONFIG_FOREIGN);
		error = inifile_parse(buf_span(&b), &file_ops, l);
	}
	if (fd >= 0)
		close(fd);
	buf_release(&b);
	return error;
}

static void set_defaults(struct draft *d)
{
	for (enum setting_id id = 0; id < SET_N; id++) {
		if (!d->given[id])
			draft_set(d, id, setting_default(id));
	}
}

const char *config_default_path(void)
{
	return SYSCONFDIR "/hpkvd/hpkvd.conf";
}

int config_load(const struct config_source *source, struct config **out,
		struct config_report *report)
{
	struct setting_values *values = mem_zalloc(sizeof(*values));
	struct loader l = {.source = source,
			   .draft = {.path = source->path ? source->path : config_default_path(),
				     .environment = source->environment,
				     .values = values,
				     .report = report}};
	size_t before = report->n;

	l.rules = (struct rules_reader){.fault = on_rules_fault,
					.warning = on_rules_warning,
					.key = on_rules_key,
					.owner = &l};
	int error = load_file(&l);
	values->config.access = rules_finish(&l.rules);
	if (!error) {
		set_defaults(&l.draft);
		references_resolve(&l.draft);
	}
	if (!error && report->n > before)
		error = -EINVAL;
	setting_values_release(values);
	doors_release(&l.draft);
	struct config *config = mem_alloc(sizeof(*config));
	*config = values->config;
	free(values);
	if (error)
		config_free(config);
	else
		*out = config;
	return error;
}
