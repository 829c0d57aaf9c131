#include "config/config.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>

#include "base/buf.h"
#include "config/file.h"
#include "config/inifile.h"
#include "config/keyfile.h"
#include "base/mem.h"
#include "config/rules.h"
#include "base/secret.h"
#include "transport/token_client.h"

enum { CONFIG_FILE_MAX = 1 << 20, CA_FILE_MAX = 4 << 20, FAULTS_MAX = 50 };

/* A config in the making: what the table fills, and texts that become something else before they
 * enter the config. */
struct draft {
	struct config config; /* first: settings::place is a place in it, or behind it */
	char *url, *key_file, *proxy_file, *group, *metrics;
};

/* ---- the table of settings ---- */

enum kind { TIME, SIZE, COUNT, MODE, LEVEL, FIELDS, TEXT, KIND_N };

static const struct choice {
	const char *name;
	unsigned value;
} levels[] = {{"error", LOG_LEVEL_ERROR},   {"warning", LOG_LEVEL_WARNING},
	      {"notice", LOG_LEVEL_NOTICE}, {"info", LOG_LEVEL_INFO},
	      {"debug", LOG_LEVEL_DEBUG},   {NULL, 0}},
  subscribe_fields[] = {{"subscribeKeys", TOKEN_CLIENT_SUBSCRIBE_KEYS},
			{"subscribePatterns", TOKEN_CLIENT_SUBSCRIBE_PATTERNS},
			{"both", TOKEN_CLIENT_SUBSCRIBE_KEYS | TOKEN_CLIENT_SUBSCRIBE_PATTERNS},
			{NULL, 0}};
_Static_assert(sizeof(levels) / sizeof(levels[0]) == LOG_LEVEL_N + 1, "a name for each level");
_Static_assert(sizeof(enum log_level) == sizeof(unsigned), "a choice is stored as an unsigned");

enum setting_id {
	SET_URL,
	SET_API_KEY_FILE,
	SET_CA_FILE,
	SET_PROXY_CREDENTIALS,
	SET_ACCESS_PATTERN,
	SET_SUBSCRIBE_FIELD,
	SET_RATE_LIMIT,
	SET_MAX_IN_FLIGHT,
	SET_MAX_FRAME,
	SET_MAX_MESSAGE,
	SET_MAX_HELD,
	SET_CONNECT_TIMEOUT,
	SET_REQUEST_TIMEOUT,
	SET_KEEPALIVE,
	SET_BACKOFF_MIN,
	SET_BACKOFF_MAX,
	SET_TOKEN_LIFETIME,
	SET_SUBSCRIBE_BATCH,
	SET_SOCKET,
	SET_MODE,
	SET_GROUP,
	SET_MAX_CLIENTS,
	SET_MAX_LINE,
	SET_MAX_PIPELINE,
	SET_OUTPUT_SOFT,
	SET_OUTPUT_HARD,
	SET_MAX_QUEUED,
	SET_MAX_CLIENT_QUEUED,
	SET_MAX_SUBSCRIPTIONS,
	SET_MAX_CLIENT_SUBSCRIPTIONS,
	SET_MAX_TOPICS,
	SET_SUBSCRIPTION_MEMORY,
	SET_MAX_TOKEN_REQUESTS,
	SET_METRICS_LISTEN,
	SET_LOG_LEVEL,
	SET_N,
};

enum { MS = 1, S = 1000, M = 60 * S, H = 60 * M, KIB = 1024, MIB = 1024 * KIB };

static const struct setting {
	const char *section, *name;
	enum kind kind;
	int64_t min, max;     /* of a number; of a text, its length in bytes */
	const char *fallback; /* the value when the file gives none, written as in the file */
	size_t place;         /* in struct draft */
} settings[] = {
#define AT(member) offsetof(struct draft, member)
#define U(member) AT(config.upstream.member)
#define L(member) AT(config.listen.member)
	/* clang-format off */
	[SET_URL] = {"upstream", "url", TEXT, 0, 2048, "", AT(url)},
	[SET_API_KEY_FILE] = {"upstream", "api_key_file", TEXT, 1, PATH_MAX - 1, "api-key", AT(key_file)},
	[SET_CA_FILE] = {"upstream", "ca_file", TEXT, 0, PATH_MAX - 1, "", U(ca_file)},
	[SET_PROXY_CREDENTIALS] = {"upstream", "proxy_credentials_file", TEXT, 0, PATH_MAX - 1, "", AT(proxy_file)},
	[SET_ACCESS_PATTERN] = {"upstream", "access_pattern", TEXT, 0, 2048, ".*", U(access_pattern)},
	[SET_SUBSCRIBE_FIELD] = {"upstream", "subscribe_field", FIELDS, 0, 0, "both", U(subscribe_fields)},
	[SET_RATE_LIMIT] = {"upstream", "rate_limit", COUNT, 0, 1000000, "0", U(rate_limit)},
	[SET_MAX_IN_FLIGHT] = {"upstream", "max_in_flight", COUNT, 1, 65535, "256", U(max_in_flight)},
	[SET_MAX_FRAME] = {"upstream", "max_frame", SIZE, 1 * KIB, 32 * MIB, "64K", U(max_frame)},
	[SET_MAX_MESSAGE] = {"upstream", "max_message", SIZE, 64 * KIB, 256 * MIB, "16M", U(max_message)},
	[SET_MAX_HELD] = {"upstream", "max_held", SIZE, 1 * MIB, 1024 * MIB, "32M", U(max_held)},
	[SET_CONNECT_TIMEOUT] = {"upstream", "connect_timeout", TIME, 100, 10 * M, "5s", U(connect_timeout_ms)},
	[SET_REQUEST_TIMEOUT] = {"upstream", "request_timeout", TIME, 1, 10 * M, "10s", U(request_timeout_ms)},
	[SET_KEEPALIVE] = {"upstream", "keepalive", TIME, 100, 1 * H, "20s", U(keepalive_ms)},
	[SET_BACKOFF_MIN] = {"upstream", "backoff_min", TIME, 1, 24 * H, "250ms", U(backoff_min_ms)},
	[SET_BACKOFF_MAX] = {"upstream", "backoff_max", TIME, 1, 24 * H, "30s", U(backoff_max_ms)},
	[SET_TOKEN_LIFETIME] = {"upstream", "token_lifetime", TIME, 1 * S, 168 * H, "2h", U(token_lifetime_ms)},
	[SET_SUBSCRIBE_BATCH] = {"upstream", "subscribe_batch", TIME, 0, 10 * S, "10ms", U(subscribe_batch_ms)},
	[SET_SOCKET] = {"listen", "socket", TEXT, 1, PATH_MAX - 1, "/run/hpkvd/hpkvd.sock", L(socket)},
	[SET_MODE] = {"listen", "mode", MODE, 0, 0777, "0660", L(mode)},
	[SET_GROUP] = {"listen", "group", TEXT, 0, 256, "", AT(group)},
	[SET_MAX_CLIENTS] = {"listen", "max_clients", COUNT, 1, 1000000, "10000", L(max_clients)},
	[SET_MAX_LINE] = {"listen", "max_line", SIZE, 1 * KIB, 16 * MIB, "64K", L(max_line)},
	[SET_MAX_PIPELINE] = {"listen", "max_pipeline", COUNT, 1, 1000000, "1024", L(max_pipeline)},
	[SET_OUTPUT_SOFT] = {"listen", "output_soft", SIZE, 4 * KIB, 1024 * MIB, "256K", L(output_soft)},
	[SET_OUTPUT_HARD] = {"listen", "output_hard", SIZE, 4 * KIB, 1024 * MIB, "8M", L(output_hard)},
	[SET_MAX_QUEUED] = {"listen", "max_queued", SIZE, 64 * KIB, 1024 * MIB, "64M", L(max_queued)},
	[SET_MAX_CLIENT_QUEUED] = {"listen", "max_client_queued", SIZE, 4 * KIB, 1024 * MIB, "1M", L(max_client_queued)},
	[SET_MAX_SUBSCRIPTIONS] = {"listen", "max_subscriptions", COUNT, 1, 100000000, "4194304", L(max_subscriptions)},
	[SET_MAX_CLIENT_SUBSCRIPTIONS] = {"listen", "max_client_subscriptions", COUNT, 1, 100000000, "131072", L(max_client_subscriptions)},
	[SET_MAX_TOPICS] = {"listen", "max_topics", COUNT, 1, 10000000, "262144", L(max_topics)},
	[SET_SUBSCRIPTION_MEMORY] = {"listen", "subscription_memory", SIZE, 64 * KIB, INT64_C(65536) * MIB, "1024M", L(subscription_memory)},
	[SET_MAX_TOKEN_REQUESTS] = {"listen", "max_token_requests", COUNT, 1, 100000, "1024", L(max_token_requests)},
	[SET_METRICS_LISTEN] = {"metrics", "listen", TEXT, 0, PATH_MAX - 1, "", AT(metrics)},
	[SET_LOG_LEVEL] = {"log", "level", LEVEL, 0, 0, "info", AT(config.log.level)},
/* clang-format on */
#undef L
#undef U
#undef AT
};
_Static_assert(sizeof(settings) / sizeof(settings[0]) == SET_N, "a row for each setting");

/* The first of each pair must not be greater than the second. */
static const struct {
	enum setting_id low, high;
} orders[] = {{SET_BACKOFF_MIN, SET_BACKOFF_MAX}, {SET_OUTPUT_SOFT, SET_OUTPUT_HARD}};

/* Units of a kind of number, the smallest first; "" is a number without one. */
static const struct unit {
	const char *name;
	int64_t factor;
} time_units[] = {{"ms", MS}, {"s", S}, {"m", M}, {"h", H}, {NULL, 0}},
  size_units[] = {{"", 1}, {"K", KIB}, {"M", MIB}, {NULL, 0}}, no_units[] = {{"", 1}, {NULL, 0}};

static const struct kind_of_value {
	const char *what;
	int base; /* of a number; 0: one of choices, or a text */
	const struct unit *units;
	const struct choice *choices;
} kinds[KIND_N] = {
	[TIME] = {"a time (e.g. 500ms, 5s, 2m, 1h)", 10, time_units, NULL},
	[SIZE] = {"a size in bytes (e.g. 4096, 64K, 8M)", 10, size_units, NULL},
	[COUNT] = {"a whole number", 10, no_units, NULL},
	[MODE] = {"a file mode (octal, e.g. 0660)", 8, no_units, NULL},
	[LEVEL] = {"a level", 0, NULL, levels},
	[FIELDS] = {"one of its values", 0, NULL, subscribe_fields},
	[TEXT] = {"a text", 0, NULL, NULL},
};

/* ---- what is wrong ---- */

struct loader {
	const struct config_source *source;
	const char *path;
	bool absent; /* the file is not there, and need not be */
	struct draft *draft;
	struct config_report *report;
	const char *section;   /* of the settings that come now; NULL: they were refused with their
				  section */
	unsigned given[SET_N]; /* the line of each setting; 0: not in the file */
	bool bad[SET_N];       /* its value was refused */
	struct rules_reader rules; /* the [access NAME] sections */
	bool in_rules;             /* settings that come now belong to one of them */
};

/* Adds "place message". Fifty are enough to see that this is the wrong file. */
static void report_add(struct config_report *report, const char *place, const char *message)
{
	struct buf b = {0};

	if (report->n > FAULTS_MAX)
		return;
	if (report->n == FAULTS_MAX)
		buf_addf(&b, "there is more like this: the rest is not shown");
	else
		buf_addf(&b, "%s %s", place, message);
	report->text = mem_resize(report->text, (report->n + 1) * sizeof(*report->text));
	report->text[report->n++] = mem_strndup(buf_span(&b).p, buf_len(&b));
	buf_release(&b);
}

__attribute__((format(printf, 3, 4))) static void fault_in_line(struct loader *l, unsigned line,
								const char *format, ...)
{
	char place[PATH_MAX + 64], message[2 * PATH_MAX];
	va_list args;

	if (line)
		snprintf(place, sizeof(place), "%s:%u:", l->path, line);
	else
		snprintf(place, sizeof(place), "%s%s:", l->path,
			 l->absent ? " (no such file)" : "");
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	report_add(l->report, place, message);
}

__attribute__((format(printf, 3, 4))) static void fault(struct loader *l, enum setting_id id,
							const char *format, ...)
{
	char message[2 * PATH_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	fault_in_line(l, l->given[id], "[%s] %s: %s", settings[id].section, settings[id].name,
		      message);
	l->bad[id] = true;
}

/* What of a value is worth repeating: its beginning, not cut within a character. */
static int shown_length(const char *value)
{
	int n = (int)strnlen(value, 80);

	while (n && ((unsigned char)value[n] & 0xc0) == 0x80)
		n--;
	return n;
}

/* ---- values ---- */

static void *place_of(struct loader *l, enum setting_id id)
{
	return (char *)l->draft + settings[id].place;
}

static void store_number(void *place, enum kind kind, int64_t n)
{
	switch (kind) {
	case TIME:
		*(int64_t *)place = n;
		return;
	case SIZE:
		*(size_t *)place = (size_t)n;
		return;
	case COUNT:
	case LEVEL:
	case FIELDS:
		*(unsigned *)place = (unsigned)n;
		return;
	case MODE:
		*(mode_t *)place = (mode_t)n;
		return;
	case TEXT:
	case KIND_N:
		break;
	}
	abort();
}

/* Reads digits and a unit. What is too large for the type becomes INT64_MAX, which no range
 * contains. */
static bool parse_number(const char *value, const struct kind_of_value *kind, int64_t *out)
{
	const struct unit *unit = kind->units;
	const char *p = value;
	int64_t n = 0;

	for (; *p >= '0' && *p < '0' + kind->base; p++) {
		if (__builtin_mul_overflow(n, kind->base, &n) ||
		    __builtin_add_overflow(n, *p - '0', &n))
			n = INT64_MAX /
			    kind->base; /* stays beyond every range, and overflows again */
	}
	if (p == value)
		return false;
	while (unit->name && strcmp(unit->name, p) != 0)
		unit++;
	if (!unit->name && !(n == 0 && *p == '\0')) /* nothing needs no unit */
		return false;
	if (__builtin_mul_overflow(n, unit->name ? unit->factor : 1, out))
		*out = INT64_MAX;
	return true;
}

/* As it would be written in the file: in the largest unit that divides it. */
static const char *print_number(char *out, size_t size, const struct kind_of_value *kind, int64_t n)
{
	const struct unit *best = kind->units;

	for (const struct unit *u = kind->units; u->name; u++) {
		if (n % u->factor == 0)
			best = u;
	}
	if (kind->base == 8)
		snprintf(out, size, "%04llo", (unsigned long long)n);
	else if (n == 0)
		snprintf(out, size, "0");
	else
		snprintf(out, size, "%lld%s", (long long)(n / best->factor), best->name);
	return out;
}

static void set_number(struct loader *l, enum setting_id id, const char *value)
{
	const struct setting *s = &settings[id];
	const struct kind_of_value *kind = &kinds[s->kind];
	char low[32], high[32];
	int64_t n;

	if (!parse_number(value, kind, &n))
		fault(l, id, "'%.*s' is not %s", shown_length(value), value, kind->what);
	else if (n < s->min || n > s->max)
		fault(l, id, "'%.*s' is out of range: it must be %s to %s", shown_length(value),
		      value, print_number(low, sizeof(low), kind, s->min),
		      print_number(high, sizeof(high), kind, s->max));
	else
		store_number(place_of(l, id), s->kind, n);
}

static void set_choice(struct loader *l, enum setting_id id, const char *value)
{
	const struct kind_of_value *kind = &kinds[settings[id].kind];
	const struct choice *c = kind->choices;
	struct buf names = {0};

	while (c->name && strcmp(c->name, value) != 0)
		c++;
	if (c->name) {
		store_number(place_of(l, id), settings[id].kind, c->value);
		return;
	}
	for (c = kind->choices; c->name; c++)
		buf_addf(&names, " %s", c->name);
	fault(l, id, "'%.*s' is not %s:%.*s", shown_length(value), value, kind->what,
	      (int)buf_len(&names), buf_span(&names).p);
	buf_release(&names);
}

/* Comments within a line begin with a semicolon. What was meant as one must not become part of a
 * path or a pattern. */
static bool has_comment(const char *value)
{
	const char *p = value;

	while ((p = strchr(p, '#'))) {
		bool begins = p == value || p[-1] == ' ' || p[-1] == '\t';
		p++;
		if (begins && (*p == '\0' || *p == ' ' || *p == '\t'))
			return true;
	}
	return false;
}

static void set_text(struct loader *l, enum setting_id id, const char *value)
{
	const struct setting *s = &settings[id];
	char **place = place_of(l, id);

	if (strlen(value) < (size_t)s->min) {
		fault(l, id, "is empty");
	} else if (strlen(value) > (size_t)s->max) {
		fault(l, id, "is longer than %lld bytes", (long long)s->max);
	} else if (has_comment(value)) {
		fault(l, id, "'#' by itself: a comment behind a value begins with ;");
	} else {
		free(*place);
		*place = mem_strdup(value);
	}
}

static void set_value(struct loader *l, enum setting_id id, const char *value)
{
	const struct kind_of_value *kind = &kinds[settings[id].kind];

	if (kind->base)
		set_number(l, id, value);
	else if (kind->choices)
		set_choice(l, id, value);
	else
		set_text(l, id, value);
}

/* ---- the file ---- */

static void unknown_section(struct loader *l, unsigned line, const char *name)
{
	struct buf names = {0};

	for (int i = 0; i < SET_N; i++) {
		if (i == 0 || strcmp(settings[i].section, settings[i - 1].section) != 0)
			buf_addf(&names, " [%s]", settings[i].section);
	}
	buf_addf(&names, " [access NAME]");
	fault_in_line(l, line, "[%.*s]: there is no such section; there are:%.*s",
		      shown_length(name), name, (int)buf_len(&names), buf_span(&names).p);
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
	for (int i = 0; i < SET_N && !l->section; i++) {
		if (strcmp(settings[i].section, name) == 0)
			l->section = settings[i].section;
	}
	if (!l->section)
		unknown_section(l, line, name);
}

static void unknown_setting(struct loader *l, unsigned line, const char *name)
{
	struct buf names = {0};

	for (int i = 0; i < SET_N; i++) {
		if (strcmp(settings[i].section, l->section) == 0)
			buf_addf(&names, " %s", settings[i].name);
	}
	fault_in_line(l, line, "[%s] %.*s: there is no such setting; the section has:%.*s",
		      l->section, shown_length(name), name, (int)buf_len(&names),
		      buf_span(&names).p);
	buf_release(&names);
}

static void on_setting(void *owner, unsigned line, const char *name, const char *value)
{
	struct loader *l = owner;
	int id = 0;

	if (l->in_rules) {
		rules_setting(&l->rules, line, name, value);
		return;
	}
	if (!l->section)
		return;
	if (!l->section[0]) {
		fault_in_line(l, line, "%.*s: stands before the first [section]",
			      shown_length(name), name);
		return;
	}
	while (id < SET_N && (strcmp(settings[id].section, l->section) != 0 ||
			      strcmp(settings[id].name, name) != 0))
		id++;
	if (id == SET_N) {
		unknown_setting(l, line, name);
	} else if (l->given[id]) {
		fault_in_line(l, line, "[%s] %s: is set twice, first in line %u", l->section, name,
			      l->given[id]);
	} else {
		l->given[id] = line;
		set_value(l, (enum setting_id)id, value);
	}
}

static void on_fault(void *owner, unsigned line, const char *what)
{
	fault_in_line(owner, line, "the line %s", what);
}

static void on_rules_fault(void *owner, unsigned line, const char *what)
{
	fault_in_line(owner, line, "%s", what);
}

static void on_rules_warning(void *owner, unsigned line, const char *what)
{
	struct loader *l = owner;
	char place[PATH_MAX + 64];

	snprintf(place, sizeof(place), "%s:%u:", l->path, line);
	report_add(&l->draft->config.warnings, place, what);
}

static const struct inifile_ops file_ops = {
	.section = on_section, .setting = on_setting, .fault = on_fault};

/* Whose is a file that says where the key goes? */
static void note_exposure(struct loader *l, const char *path, const struct stat *st,
			  enum config_exposed writable, enum config_exposed foreign)
{
	char **exposed = l->draft->config.exposed;

	if (S_ISREG(st->st_mode) && st->st_mode & S_IWOTH)
		exposed[writable] = mem_strdup(path);
	if (S_ISREG(st->st_mode) && st->st_uid != 0 && st->st_uid != geteuid())
		exposed[foreign] = mem_strdup(path);
}

/* Reads and applies the file. 0 also for one that is not there and need not be; what is wrong in it
 * is in the report. */
static int load_file(struct loader *l)
{
	struct buf b = {0};
	struct stat st;
	int fd = file_open(l->path, l->source->at_once ? FILE_AT_ONCE : FILE_ANY, &st),
	    error = fd < 0 ? fd : file_read(fd, CONFIG_FILE_MAX, &b);

	l->section = "";
	if (fd == -ENOENT && !l->source->required) {
		l->absent = true;
		error = 0;
	} else if (error == -EFBIG) {
		fault_in_line(l, 0, "is longer than 1M: that is no configuration file");
	} else if (error) {
		fault_in_line(l, 0, "cannot be read: %s", strerror(-error));
	} else if (l->source->filled && !buf_len(&b)) {
		fault_in_line(l, 0, "is empty, and was not before: is it being written?");
		error = -EINVAL;
	} else {
		l->draft->config.has_file = true;
		l->draft->config.has_text = buf_len(&b) > 0;
		note_exposure(l, l->path, &st, CONFIG_WRITABLE, CONFIG_FOREIGN);
		error = inifile_parse(buf_span(&b), &file_ops, l);
	}
	if (fd >= 0)
		close(fd);
	buf_release(&b);
	return error;
}

static void set_defaults(struct loader *l)
{
	for (int i = 0; i < SET_N; i++) {
		if (!l->given[i])
			set_value(l, (enum setting_id)i, settings[i].fallback);
	}
}

/* ---- what values mean together and outside of the file ---- */

/* path itself, or below dir; dir NULL: the directory of the configuration file. */
static char *resolve_path(const struct loader *l, const char *dir, const char *path)
{
	const char *slash = strrchr(l->path, '/');
	struct buf b = {0};

	if (path[0] == '/')
		return mem_strdup(path);
	if (dir)
		buf_addf(&b, "%s/%s", dir, path);
	else if (slash)
		buf_addf(&b, "%.*s/%s", (int)(slash - l->path), l->path, path);
	else
		buf_addf(&b, "%s", path);
	char *resolved = mem_strndup(buf_span(&b).p, buf_len(&b));
	buf_release(&b);
	return resolved;
}

static int64_t number_at(struct loader *l, enum setting_id id)
{
	const void *place = place_of(l, id);

	return settings[id].kind == SIZE ? (int64_t) * (const size_t *)place
					 : *(const int64_t *)place;
}

static void check_order(struct loader *l)
{
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		enum setting_id low = orders[i].low, high = orders[i].high;
		const struct kind_of_value *kind = &kinds[settings[low].kind];
		char first[32], second[32];

		if (l->bad[low] || l->bad[high] || number_at(l, low) <= number_at(l, high))
			continue;
		/* Named is the line that was written last. */
		fault(l, l->given[low] > l->given[high] ? low : high,
		      "%s (%s) is greater than %s (%s)", settings[low].name,
		      print_number(first, sizeof(first), kind, number_at(l, low)),
		      settings[high].name,
		      print_number(second, sizeof(second), kind, number_at(l, high)));
	}
}

static void resolve_url(struct loader *l)
{
	const struct config_environment *e = l->source->environment;
	struct url *url = &l->draft->config.upstream.url;
	const char *why, *text = l->draft->url;

	if (l->bad[SET_URL])
		return;
	if (text[0]) {
		if (url_parse(text, url, &why) < 0)
			fault(l, SET_URL, "%s", why);
	} else if (e && e->base_url) {
		if (url_parse(e->base_url, url, &why) < 0)
			report_add(l->report, "HPKV_BASE_URL:", why);
	} else {
		fault(l, SET_URL,
		      "is missing: give the base URL that the HPKV dashboard shows, e.g. "
		      "https://api-eu-2.hpkv.io, here or in HPKV_BASE_URL");
	}
}

/* Once the URL is known. A service that is not encrypted is on this machine. */
static void resolve_proxy(struct loader *l)
{
	const struct config_environment *e = l->source->environment;
	const struct url *url = &l->draft->config.upstream.url;
	const char *why;

	if (!e || !e->https_proxy || !url->host || !url->tls)
		return;
	l->draft->config.upstream.no_proxy_useless = proxy_useless_entry(e->no_proxy);
	if (proxy_is_bypassed(e->no_proxy, url->host, url->port))
		return;
	if (proxy_parse(e->https_proxy, &l->draft->config.upstream.proxy, &why) < 0)
		report_add(l->report, "HTTPS_PROXY:", why);
}

/* Without a setting there are none. */
static void resolve_proxy_login(struct loader *l)
{
	const struct config_environment *e = l->source->environment;
	const char *why;

	if (l->bad[SET_PROXY_CREDENTIALS] || !l->draft->proxy_file[0])
		return;
	char *path = resolve_path(l, e ? e->credentials_directory : NULL, l->draft->proxy_file);
	int error = keyfile_read(path, keyfile_login_fault, &l->draft->config.upstream.proxy_login,
				 &why);
	if (error)
		fault(l, SET_PROXY_CREDENTIALS, "the file %s %s", path,
		      error == -ENOENT ? "does not exist" : why);
	free(path);
}

static void key_from_environment(struct loader *l, const char *path)
{
	const struct config_environment *e = l->source->environment;
	const char *why;

	if (!e || !e->api_key) {
		fault(l, SET_API_KEY_FILE,
		      "there is no key file %s: write the API key that the HPKV dashboard shows "
		      "into it "
		      "(chmod 0600), or set HPKV_API_KEY",
		      path);
	} else if ((why = keyfile_fault(e->api_key))) {
		report_add(l->report, "HPKV_API_KEY:", why);
	} else {
		l->draft->config.upstream.api_key = secret_share(e->api_key);
		l->draft->config.upstream.api_key_source = mem_strdup("HPKV_API_KEY");
	}
}

/* systemd copies a credential whoever may read the file that it comes from: mostly the one that the
 * key is in without systemd. */
static void look_behind_credential(struct loader *l, const char *path)
{
	char *origin = resolve_path(l, NULL, l->draft->key_file);
	struct stat st;

	if (strcmp(origin, path) != 0 && stat(origin, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_mode & S_IRWXO)
		l->draft->config.exposed[CONFIG_ORIGIN_OPEN] = origin;
	else
		free(origin);
}

static void resolve_key(struct loader *l)
{
	const struct config_environment *e = l->source->environment;
	const char *why;

	if (l->bad[SET_API_KEY_FILE])
		return;
	char *path = resolve_path(l, e ? e->credentials_directory : NULL, l->draft->key_file);
	int error = keyfile_read(path, keyfile_fault, &l->draft->config.upstream.api_key, &why);
	if (error == -ENOENT)
		key_from_environment(l, path);
	else if (error)
		fault(l, SET_API_KEY_FILE, "the key file %s %s", path, why);
	else
		l->draft->config.upstream.api_key_source = mem_strdup(path);
	look_behind_credential(l, path);
	free(path);
}

/* Trust anchors have no use for a password, and nobody may be asked for one. */
static int no_password(char *out, int size, int writing, void *user)
{
	(void)out, (void)size, (void)writing, (void)user;
	return -1;
}

/* Can these bytes serve as trust anchors? They are read again where they are used; here it is about
 * saying early, and with the line, what is wrong with them. */
static const char *certificates_fault(struct span pem)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	unsigned n = 0;
	X509 *certificate;

	if (!bio)
		return "could not be checked: out of memory";
	ERR_clear_error();
	while ((certificate = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
		X509_free(certificate);
		n++;
	}
	bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	ERR_clear_error();
	BIO_free(bio);
	if (!ended)
		return "holds a damaged certificate";
	return n ? NULL : "holds no certificate in PEM form";
}

static void resolve_ca_file(struct loader *l)
{
	char **place = &l->draft->config.upstream.ca_file, *path = *place;
	const char *why = NULL;
	struct buf b = {0};
	struct stat st;

	*place = NULL;
	if (path && path[0]) {
		*place = resolve_path(l, NULL, path);
		int fd = file_open(*place, FILE_REGULAR, &st),
		    error = fd < 0 ? fd : file_read(fd, CA_FILE_MAX, &b);
		if (error)
			why = error == -EINVAL ? "is not a regular file" : strerror(-error);
		else
			why = buf_len(&b) ? certificates_fault(buf_span(&b)) : "is empty";
		SHA256((const unsigned char *)buf_span(&b).p, buf_len(&b),
		       l->draft->config.upstream.ca_digest);
		if (why)
			fault(l, SET_CA_FILE, "%s: %s", *place, why);
		else
			note_exposure(l, *place, &st, CONFIG_CA_WRITABLE, CONFIG_CA_FOREIGN);
		if (fd >= 0)
			close(fd);
		buf_release(&b);
	}
	free(path);
}

/* Can a socket be bound there? */
static bool is_socket_path(struct loader *l, enum setting_id id, const char *path)
{
	size_t room = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	bool absolute = path[0] == '/' && path[strlen(path) - 1] != '/';

	if (!absolute)
		fault(l, id, "'%.*s' is not the absolute path of a socket", shown_length(path),
		      path);
	else if (strlen(path) > room)
		fault(l, id, "is longer than %zu bytes, the most that a socket's path can have",
		      room);
	return !l->bad[id];
}

static void check_socket(struct loader *l)
{
	if (!l->bad[SET_SOCKET])
		is_socket_path(l, SET_SOCKET, l->draft->config.listen.socket);
}

/* A name, or a number as chgrp(1) takes it. */
static void resolve_group(struct loader *l)
{
	const char *name = l->draft->group;
	gid_t *out = &l->draft->config.listen.group;
	int64_t number;

	*out = CONFIG_NO_GROUP;
	if (l->bad[SET_GROUP] || !name[0])
		return;
	errno = 0;
	const struct group *group = getgrnam(name);
	if (group)
		*out = group->gr_gid;
	else if (parse_number(name, &kinds[COUNT], &number) && number < (int64_t)CONFIG_NO_GROUP)
		*out = (gid_t)number;
	else
		fault(l, SET_GROUP, "there is no group '%.*s'", shown_length(name), name);
}

/* "HOST:PORT" of this machine alone: the numeric address, to be freed; NULL: it is no such thing.
 * An IPv6 address stands in brackets. */
static char *loopback_address(const char *text, uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	int64_t number;

	if (!colon || colon == text || !parse_number(colon + 1, &kinds[COUNT], &number) ||
	    number < 1 || number > UINT16_MAX)
		return NULL;
	bool brackets = text[0] == '[' && colon[-1] == ']';
	char *host = mem_strndup(text + brackets, (size_t)(colon - text) - 2 * (size_t)brackets);
	if (!url_is_loopback(host) || brackets != (strchr(host, ':') != NULL)) {
		free(host);
		return NULL;
	}
	*port = (uint16_t)number;
	if (strcasecmp(host, "localhost") != 0)
		return host;
	free(host);
	return mem_strdup("127.0.0.1");
}

static void resolve_metrics(struct loader *l)
{
	struct config *c = &l->draft->config;
	const char *text = l->draft->metrics;

	if (l->bad[SET_METRICS_LISTEN] || !text[0])
		return;
	if (text[0] == '/' && !is_socket_path(l, SET_METRICS_LISTEN, text))
		return;
	if (text[0] == '/' && strcmp(text, c->listen.socket) == 0)
		fault(l, SET_METRICS_LISTEN, "is the same as [listen] socket");
	else if (text[0] == '/')
		c->metrics.path = mem_strdup(text);
	else if (!(c->metrics.address = loopback_address(text, &c->metrics.port)))
		fault(l, SET_METRICS_LISTEN,
		      "'%.*s' is not 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or the absolute "
		      "path of a socket: the page is for this machine alone",
		      shown_length(text), text);
}

/* ---- loading ---- */

const char *config_default_path(void)
{
	return SYSCONFDIR "/hpkvd/hpkvd.conf";
}

static void draft_release(struct draft *d)
{
	free(d->url);
	free(d->key_file);
	free(d->proxy_file);
	free(d->group);
	free(d->metrics);
}

int config_load(const struct config_source *source, struct config **out,
		struct config_report *report)
{
	static void (*const steps[])(struct loader *) = {
		set_defaults, check_order,     resolve_url,  resolve_proxy, resolve_proxy_login,
		resolve_key,  resolve_ca_file, check_socket, resolve_group, resolve_metrics,
	};
	struct draft *draft = mem_zalloc(sizeof(*draft));
	struct loader l = {.source = source, .draft = draft, .report = report};
	l.rules = (struct rules_reader){
		.fault = on_rules_fault, .warning = on_rules_warning, .owner = &l};
	size_t before = report->n;

	l.path = source->path ? source->path : config_default_path();
	int error = load_file(&l);
	draft->config.access = rules_finish(&l.rules);
	for (size_t i = 0; !error && i < sizeof(steps) / sizeof(steps[0]); i++)
		steps[i](&l);
	if (!error && report->n > before)
		error = -EINVAL;
	draft_release(draft);
	struct config *config = mem_alloc(sizeof(*config));
	*config = draft->config;
	free(draft);
	if (error)
		config_free(config);
	else
		*out = config;
	return error;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	url_fini(&config->upstream.url);
	proxy_fini(&config->upstream.proxy);
	secret_free(&config->upstream.proxy_login);
	free(config->upstream.no_proxy_useless);
	secret_free(&config->upstream.api_key);
	free(config->upstream.api_key_source);
	free(config->upstream.ca_file);
	free(config->upstream.access_pattern);
	free(config->listen.socket);
	free(config->metrics.path);
	free(config->metrics.address);
	access_rules_free(config->access);
	for (int i = 0; i < CONFIG_EXPOSED_N; i++)
		free(config->exposed[i]);
	config_report_free(&config->warnings);
	free(config);
}

/* ---- what a reload changes ---- */

static bool texts_differ(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) != 0 : a != b;
}

static bool values_differ(const void *a, const void *b, enum kind kind)
{
	switch (kind) {
	case TIME:
		return *(const int64_t *)a != *(const int64_t *)b;
	case SIZE:
		return *(const size_t *)a != *(const size_t *)b;
	case COUNT:
	case LEVEL:
	case FIELDS:
		return *(const unsigned *)a != *(const unsigned *)b;
	case MODE:
		return *(const mode_t *)a != *(const mode_t *)b;
	case TEXT:
		return texts_differ(*(char *const *)a, *(char *const *)b);
	case KIND_N:
		break;
	}
	abort();
}

static bool anchors_differ(const struct config *a, const struct config *b)
{
	return memcmp(a->upstream.ca_digest, b->upstream.ca_digest,
		      sizeof(a->upstream.ca_digest)) != 0;
}

/* Some settings became something else before they entered the config. */
static bool setting_differs(const struct config *a, const struct config *b, enum setting_id id)
{
	size_t place = settings[id].place;

	if (id == SET_URL)
		return texts_differ(a->upstream.url.text, b->upstream.url.text);
	if (id == SET_API_KEY_FILE)
		return texts_differ(a->upstream.api_key, b->upstream.api_key);
	if (id == SET_PROXY_CREDENTIALS)
		return texts_differ(a->upstream.proxy_login, b->upstream.proxy_login);
	if (id == SET_GROUP)
		return a->listen.group != b->listen.group;
	if (id == SET_CA_FILE && anchors_differ(a, b))
		return true;
	if (id == SET_METRICS_LISTEN)
		return texts_differ(a->metrics.path, b->metrics.path) ||
		       texts_differ(a->metrics.address, b->metrics.address) ||
		       a->metrics.port != b->metrics.port;
	return place < sizeof(*a) &&
	       values_differ((const char *)a + place, (const char *)b + place, settings[id].kind);
}

bool config_compare(const struct config *a, const struct config *b, struct buf *names)
{
	bool another = anchors_differ(a, b);

	for (enum setting_id id = 0; id < SET_N; id++) {
		if (!setting_differs(a, b, id))
			continue;
		buf_addf(names, "%s [%s] %s", buf_len(names) ? "," : "", settings[id].section,
			 settings[id].name);
		another |= id == SET_URL || id == SET_API_KEY_FILE || id == SET_PROXY_CREDENTIALS ||
			   id == SET_ACCESS_PATTERN || id == SET_SUBSCRIBE_FIELD;
	}
	if (!access_rules_same(a->access, b->access))
		buf_addf(names, "%s [access ...]", buf_len(names) ? "," : "");
	return another;
}

void config_report_free(struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++)
		free(report->text[i]);
	free(report->text);
	*report = (struct config_report){0};
}

void config_share_key(struct config *config, const struct config *before)
{
	if (texts_differ(config->upstream.api_key, before->upstream.api_key))
		return;
	secret_free(&config->upstream.api_key);
	config->upstream.api_key = secret_share(before->upstream.api_key);
}

/* ---- the environment ---- */

static char *copy_variable(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? mem_strdup(value) : NULL;
}

static char *copy_secret_variable(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? secret_dup(value) : NULL;
}

/* unsetenv() alone only takes the pointer away: the bytes would stay in the block that the kernel
 * shows as /proc/PID/environ. A name may stand there more than once. */
static char *take_variable(const char *name)
{
	char *copy = copy_secret_variable(name);
	size_t n = strlen(name);

	for (char **entry = environ; *entry; entry++) {
		if (strncmp(*entry, name, n) == 0 && (*entry)[n] == '=')
			mem_wipe(*entry + n + 1, strlen(*entry + n + 1));
	}
	unsetenv(name);
	return copy;
}

struct config_environment *config_environment_take(void)
{
	struct config_environment *e = mem_zalloc(sizeof(*e));

	e->config_path = copy_variable("HPKVD_CONFIG");
	e->credentials_directory = copy_variable("CREDENTIALS_DIRECTORY");
	e->base_url = take_variable("HPKV_BASE_URL");
	e->api_key = take_variable("HPKV_API_KEY");
	e->https_proxy = copy_secret_variable("HTTPS_PROXY");
	if (!e->https_proxy)
		e->https_proxy = copy_secret_variable("https_proxy");
	e->no_proxy = copy_variable("NO_PROXY");
	if (!e->no_proxy)
		e->no_proxy = copy_variable("no_proxy");
	return e;
}

void config_environment_free(struct config_environment *environment)
{
	if (!environment)
		return;
	free(environment->config_path);
	free(environment->credentials_directory);
	free(environment->no_proxy);
	secret_free(&environment->https_proxy);
	secret_free(&environment->base_url);
	secret_free(&environment->api_key);
	free(environment);
}
