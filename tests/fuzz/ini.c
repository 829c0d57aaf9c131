/* Each line of a configuration file means one thing: nothing, a section, a setting, or a fault that
 * is told with its number. Values are text without control characters; one that is refused is
 * refused with a reason, and a number that is accepted can be written and read again. */
#include "config/inifile.h"
#include "config/rules.h"
#include "config/settings_table.h"

#include "fuzz.h"

const struct span fuzz_seeds[] = {
	SPAN("\xef\xbb\xbf[upstream]\nurl = https://h:8443/a\nrate_limit=5 ; text\n# x\n"
	     "keepalive = 15s\nmax_message = 16M\ncombine = gets increments\n"),
	SPAN("[listen]\r\nsocket = /run/x\r\n  mode = 0660\r\nmax_line: 5\r\n[log]\r\nlevel=debug"),
	SPAN("[access web]\nuser = root 7\ngroup = nobody\nread = a:* *:b\nwrite = c*\ntoken = "
	     "own\n"
	     "rate = 20\nnexus = yes\nlocal_key_file = /k\n"),
	SPAN("x = 1\n[access]\n[access a] b\n[access a]\n[access a]\nuser=\n[cache]\nkeys = a* "
	     "b\n"),
	SPAN("[listen]\nhttp_address = 127.0.0.1:80, [::1]:81\nhttp_origins = https://a.example "
	     "*\n"),
	SPAN("[metrics]\nlisten = localhost:9\n[upstream]\nproxy_credentials = a\nx\xff=\x01\n=\n"),
};
const size_t fuzz_n_seeds = sizeof(fuzz_seeds) / sizeof(fuzz_seeds[0]);

struct reading {
	struct rules_reader rules;
	struct setting_values values;
	const char *section;
	bool in_rules;
	unsigned line; /* of the last call */
	size_t calls;
};

static void check_text(const char *text)
{
	for (; *text; text++)
		must((unsigned char)*text >= 0x20 || *text == '\t');
}

static void count(struct reading *r, unsigned line)
{
	must(line > r->line); /* no line means two things */
	r->line = line;
	r->calls++;
}

static void on_section(void *owner, unsigned line, const char *name)
{
	struct reading *r = owner;

	count(r, line);
	check_text(name);
	r->in_rules = rules_is_section(name);
	r->section = r->in_rules ? NULL : setting_section_find(name);
	if (r->in_rules)
		rules_section(&r->rules, line, name);
}

/* The value, written as the file would have it, is the same again. */
static void check_number(struct setting_values *v, enum setting_id id)
{
	struct buf text = {0}, why = {0};
	int64_t number = setting_number(v, id);

	setting_print(v, id, &text);
	buf_add(&text, "", 1);
	must(setting_set(v, id, buf_span(&text).p, &why));
	must(setting_number(v, id) == number);
	buf_release(&text);
	buf_release(&why);
}

static bool is_ordered(enum setting_id id)
{
	enum setting_id low, high;

	for (unsigned i = 0; setting_pair(i, &low, &high); i++) {
		if (id == low || id == high)
			return true;
	}
	return false;
}

static void on_setting(void *owner, unsigned line, const char *name, const char *value)
{
	struct reading *r = owner;
	struct buf why = {0};

	count(r, line);
	check_text(name);
	check_text(value);
	if (r->in_rules)
		rules_setting(&r->rules, line, name, value);
	enum setting_id id = r->section ? setting_find(r->section, name) : SET_N;
	if (id == SET_N)
		return;
	if (!setting_set(&r->values, id, value, &why))
		must(buf_len(&why));
	else if (is_ordered(id))
		check_number(&r->values, id);
	buf_release(&why);
}

static void on_fault(void *owner, unsigned line, const char *predicate)
{
	count(owner, line);
	must(predicate[0]);
}

static void on_rules_text(void *owner, unsigned line, const char *text)
{
	(void)owner;
	(void)line;
	must(text[0]);
	check_text(text);
}

static bool on_rules_key(void *owner, unsigned line, const char *section, const char *path,
			 struct local_key *out)
{
	(void)owner;
	(void)line;
	(void)section;
	*out = local_key_of((struct span){path, strlen(path)});
	return true;
}

/* As the format is described: not empty, and not a comment. */
static size_t lines_with_something(struct span text)
{
	size_t n = 0;

	for (bool first = true; text.n; first = false) {
		const char *lf = memchr(text.p, '\n', text.n);
		struct span line = {text.p, lf ? (size_t)(lf - text.p) : text.n};
		size_t whole = line.n + (lf != NULL), at = 0;
		if (first && line.n >= 3 && memcmp(line.p, "\xef\xbb\xbf", 3) == 0)
			at = 3;
		while (at < line.n && memchr(" \t\r\v\f", line.p[at], 5))
			at++;
		n += at < line.n && line.p[at] != '#' && line.p[at] != ';';
		text = (struct span){text.p + whole, text.n - whole};
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct inifile_ops ops = {
		.section = on_section, .setting = on_setting, .fault = on_fault};
	struct reading r = {
		.rules = {.fault = on_rules_text, .warning = on_rules_text, .key = on_rules_key},
		.section = ""};
	struct config *config = calloc(1, sizeof(*config));
	struct span text = {(const char *)data, size};

	must(config != NULL);
	must(inifile_parse(text, &ops, &r) == 0);
	must(r.calls == lines_with_something(text));
	access_rules_free(rules_finish(&r.rules));
	setting_values_release(&r.values);
	*config = r.values.config;
	config_free(config);
	return 0;
}
