#include "config/settings_table.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "access/access.h"
#include "base/log.h"
#include "base/mem.h"
#include "transport/token_client.h"

enum kind { TIME, SIZE, COUNT, MODE, LEVEL, FIELDS, COMBINE, VALUES, FLAG, TEXT, KIND_N };

static const struct choice {
	const char *name;
	unsigned value;
} levels[] = {{"error", LOG_LEVEL_ERROR},   {"warning", LOG_LEVEL_WARNING},
	      {"notice", LOG_LEVEL_NOTICE}, {"info", LOG_LEVEL_INFO},
	      {"debug", LOG_LEVEL_DEBUG},   {NULL, 0}},
  subscribe_fields[] = {{"subscribeKeys", TOKEN_CLIENT_SUBSCRIBE_KEYS},
			{"subscribePatterns", TOKEN_CLIENT_SUBSCRIBE_PATTERNS},
			{"both", TOKEN_CLIENT_SUBSCRIBE_KEYS | TOKEN_CLIENT_SUBSCRIBE_PATTERNS},
			{NULL, 0}},
  combined[] = {{"", 0},
		{"gets", CONFIG_COMBINE_GETS},
		{"increments", CONFIG_COMBINE_INCREMENTS},
		{"gets increments", CONFIG_COMBINE_GETS | CONFIG_COMBINE_INCREMENTS},
		{NULL, 0}},
  notification_values[] = {{"reread", 0}, {"trust", 1}, {NULL, 0}},
  flags[] = {{"yes", 1}, {"no", 0}, {NULL, 0}};
_Static_assert(sizeof(levels) / sizeof(levels[0]) == LOG_LEVEL_N + 1, "a name for each level");
_Static_assert(sizeof(enum log_level) == sizeof(unsigned), "a choice is stored as an unsigned");

enum { MS = 1, S = 1000, M = 60 * S, H = 60 * M, KIB = 1024, MIB = 1024 * KIB };

static const struct setting {
	const char *section, *name;
	enum kind kind;
	int64_t min, max;     /* of a number; of a text, its length in bytes */
	const char *fallback; /* the value when the file gives none, written as in the file */
	size_t place;         /* in struct setting_values */
	bool another;         /* a change of it takes another connection */
} settings[] = {
#define AT(member) offsetof(struct setting_values, member)
#define U(member) AT(config.upstream.member)
#define L(member) AT(config.listen.member)
	/* clang-format off */
	[SET_URL] = {"upstream", "url", TEXT, 0, 2048, "", AT(url), true},
	[SET_API_KEY_FILE] = {"upstream", "api_key_file", TEXT, 1, PATH_MAX - 1, "api-key", AT(key_file), true},
	[SET_TOKEN_URL] = {"upstream", "token_url", TEXT, 0, 2048, "", AT(token_url), true},
	[SET_TOKEN_HEADER_FILE] = {"upstream", "token_header_file", TEXT, 0, PATH_MAX - 1, "", AT(token_header_file), true},
	[SET_CA_FILE] = {"upstream", "ca_file", TEXT, 0, PATH_MAX - 1, "", U(ca_file), false},
	[SET_PROXY_CREDENTIALS] = {"upstream", "proxy_credentials_file", TEXT, 0, PATH_MAX - 1, "", AT(proxy_file), true},
	[SET_ACCESS_PATTERN] = {"upstream", "access_pattern", TEXT, 0, 2048, ".*", U(access_pattern), true},
	[SET_SUBSCRIBE_FIELD] = {"upstream", "subscribe_field", FIELDS, 0, 0, "both", U(subscribe_fields), true},
	[SET_RATE_LIMIT] = {"upstream", "rate_limit", COUNT, 0, 1000000, "0", U(rate_limit), false},
	[SET_MAX_IN_FLIGHT] = {"upstream", "max_in_flight", COUNT, 1, 65535, "256", U(max_in_flight), false},
	[SET_MAX_FRAME] = {"upstream", "max_frame", SIZE, 1 * KIB, 32 * MIB, "64K", U(max_frame), false},
	[SET_MAX_MESSAGE] = {"upstream", "max_message", SIZE, 64 * KIB, 256 * MIB, "16M", U(max_message), false},
	[SET_MAX_HELD] = {"upstream", "max_held", SIZE, 1 * MIB, 1024 * MIB, "32M", U(max_held), false},
	[SET_CONNECT_TIMEOUT] = {"upstream", "connect_timeout", TIME, 100, 10 * M, "5s", U(connect_timeout_ms), false},
	[SET_REQUEST_TIMEOUT] = {"upstream", "request_timeout", TIME, 1, 10 * M, "10s", U(request_timeout_ms), false},
	[SET_KEEPALIVE] = {"upstream", "keepalive", TIME, 100, 1 * H, "20s", U(keepalive_ms), false},
	[SET_BACKOFF_MIN] = {"upstream", "backoff_min", TIME, 1, 24 * H, "250ms", U(backoff_min_ms), false},
	[SET_BACKOFF_MAX] = {"upstream", "backoff_max", TIME, 1, 24 * H, "30s", U(backoff_max_ms), false},
	[SET_TOKEN_LIFETIME] = {"upstream", "token_lifetime", TIME, 1 * S, 168 * H, "2h", U(token_lifetime_ms), false},
	[SET_SUBSCRIBE_BATCH] = {"upstream", "subscribe_batch", TIME, 0, 10 * S, "10ms", U(subscribe_batch_ms), false},
	[SET_COMBINE] = {"upstream", "combine", COMBINE, 0, 0, "gets", U(combine), false},
	[SET_NEXUS_URL] = {"upstream", "nexus_url", TEXT, 0, 2048, "", AT(nexus_url), false},
	[SET_SOCKET] = {"listen", "socket", TEXT, 1, PATH_MAX - 1, "/run/hpkvd/hpkvd.sock", L(socket), false},
	[SET_MODE] = {"listen", "mode", MODE, 0, 0777, "0660", L(mode), false},
	[SET_GROUP] = {"listen", "group", TEXT, 0, 256, "", AT(group), false},
	[SET_MAX_CLIENTS] = {"listen", "max_clients", COUNT, 1, 1000000, "10000", L(max_clients), false},
	[SET_MAX_LINE] = {"listen", "max_line", SIZE, 1 * KIB, 16 * MIB, "64K", L(max_line), false},
	[SET_MAX_PIPELINE] = {"listen", "max_pipeline", COUNT, 1, 1000000, "1024", L(max_pipeline), false},
	[SET_OUTPUT_SOFT] = {"listen", "output_soft", SIZE, 4 * KIB, 1024 * MIB, "256K", L(output_soft), false},
	[SET_OUTPUT_HARD] = {"listen", "output_hard", SIZE, 4 * KIB, 1024 * MIB, "8M", L(output_hard), false},
	[SET_MAX_QUEUED] = {"listen", "max_queued", SIZE, 64 * KIB, 1024 * MIB, "64M", L(max_queued), false},
	[SET_MAX_CLIENT_QUEUED] = {"listen", "max_client_queued", SIZE, 4 * KIB, 1024 * MIB, "1M", L(max_client_queued), false},
	[SET_MAX_SUBSCRIPTIONS] = {"listen", "max_subscriptions", COUNT, 1, 100000000, "4194304", L(max_subscriptions), false},
	[SET_MAX_CLIENT_SUBSCRIPTIONS] = {"listen", "max_client_subscriptions", COUNT, 1, 100000000, "131072", L(max_client_subscriptions), false},
	[SET_MAX_TOPICS] = {"listen", "max_topics", COUNT, 1, 10000000, "262144", L(max_topics), false},
	[SET_SUBSCRIPTION_MEMORY] = {"listen", "subscription_memory", SIZE, 64 * KIB, INT64_C(65536) * MIB, "1024M", L(subscription_memory), false},
	[SET_MAX_TOKEN_REQUESTS] = {"listen", "max_token_requests", COUNT, 1, 100000, "1024", L(max_token_requests), false},
	[SET_CACHE_KEYS] = {"cache", "keys", TEXT, 0, 8192, "", AT(config.cache.keys_text), false},
	[SET_CACHE_MIRROR] = {"cache", "mirror", TEXT, 0, 8192, "", AT(config.cache.mirror_text), false},
	[SET_CACHE_MEMORY] = {"cache", "memory", SIZE, 64 * KIB, INT64_C(65536) * MIB, "64M", AT(config.cache.memory), false},
	[SET_CACHE_MAX_AGE] = {"cache", "max_age", TIME, 1 * S, 24 * H, "10m", AT(config.cache.max_age_ms), false},
	[SET_CACHE_MAX_STALE] = {"cache", "max_stale", TIME, 0, 24 * H, "0", AT(config.cache.max_stale_ms), false},
	[SET_CACHE_VALUES] = {"cache", "notification_values", VALUES, 0, 0, "reread", AT(config.cache.trust), false},
	[SET_HTTP] = {"listen", "http", FLAG, 0, 0, "yes", L(http), false},
	[SET_HTTP_ADDRESS] = {"listen", "http_address", TEXT, 0, 1024, "", AT(http_address), false},
	[SET_HTTP_ORIGINS] = {"listen", "http_origins", TEXT, 0, 8192, "", L(http_origins_text), false},
	[SET_LOCAL_KEY_FILE] = {"listen", "local_key_file", TEXT, 0, PATH_MAX - 1, "", AT(local_key_file), false},
	[SET_METRICS_LISTEN] = {"metrics", "listen", TEXT, 0, PATH_MAX - 1, "", AT(metrics), false},
	[SET_LOG_LEVEL] = {"log", "level", LEVEL, 0, 0, "info", AT(config.log.level), false},
/* clang-format on */
#undef L
#undef U
#undef AT
};
_Static_assert(sizeof(settings) / sizeof(settings[0]) == SET_N, "a row for each setting");

/* The value of low must not be greater than that of high. */
static const struct {
	enum setting_id low, high;
} pairs[] = {{SET_BACKOFF_MIN, SET_BACKOFF_MAX}, {SET_OUTPUT_SOFT, SET_OUTPUT_HARD}};

/* Units of a kind of number, the smallest first; "" is a number without one. */
static const struct unit {
	const char *name;
	int64_t factor;
} time_units[] = {{"ms", MS}, {"s", S}, {"m", M}, {"h", H}, {NULL, 0}},
  size_units[] = {{"", 1}, {"K", KIB}, {"M", MIB}, {NULL, 0}}, no_units[] = {{"", 1}, {NULL, 0}};

static const struct kind_of_value {
	const char *noun;
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
	[COMBINE] = {"one of its values", 0, NULL, combined},
	[VALUES] = {"one of its values", 0, NULL, notification_values},
	[FLAG] = {"one of its values", 0, NULL, flags},
	[TEXT] = {"a text", 0, NULL, NULL},
};

/* ---- look-up ---- */

const char *setting_section_find(const char *name)
{
	for (enum setting_id id = 0; id < SET_N; id++) {
		if (strcmp(settings[id].section, name) == 0)
			return settings[id].section;
	}
	return NULL;
}

enum setting_id setting_find(const char *section, const char *name)
{
	enum setting_id id = 0;

	while (id < SET_N &&
	       (strcmp(settings[id].section, section) != 0 || strcmp(settings[id].name, name) != 0))
		id++;
	return id;
}

void setting_list_sections(struct buf *out)
{
	for (enum setting_id id = 0; id < SET_N; id++) {
		if (id == 0 || strcmp(settings[id].section, settings[id - 1].section) != 0)
			buf_addf(out, " [%s]", settings[id].section);
	}
}

void setting_list(struct buf *out, const char *section)
{
	for (enum setting_id id = 0; id < SET_N; id++) {
		if (strcmp(settings[id].section, section) == 0)
			buf_addf(out, " %s", settings[id].name);
	}
}

const char *setting_section(enum setting_id id)
{
	return settings[id].section;
}

const char *setting_name(enum setting_id id)
{
	return settings[id].name;
}

const char *setting_default(enum setting_id id)
{
	return settings[id].fallback;
}

/* ---- values ---- */

int setting_shown(const char *value)
{
	int n = (int)strnlen(value, 80);

	while (n && ((unsigned char)value[n] & 0xc0) == 0x80)
		n--;
	return n;
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
	case COMBINE:
	case VALUES:
	case FLAG:
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

/* Reads digits and a unit. A number too large for the type becomes INT64_MAX, which no range
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
	if (!unit->name && !(n == 0 && *p == '\0')) /* 0 needs no unit */
		return false;
	if (__builtin_mul_overflow(n, unit->name ? unit->factor : 1, out))
		*out = INT64_MAX;
	return true;
}

/* As the file would have it: in the largest unit that divides it. */
static void print_number(struct buf *out, const struct kind_of_value *kind, int64_t n)
{
	const struct unit *best = kind->units;

	for (const struct unit *u = kind->units; u->name; u++) {
		if (n % u->factor == 0)
			best = u;
	}
	if (kind->base == 8)
		buf_addf(out, "%04llo", (unsigned long long)n);
	else if (n == 0)
		buf_addf(out, "0");
	else
		buf_addf(out, "%lld%s", (long long)(n / best->factor), best->name);
}

static bool set_number(void *place, const struct setting *s, const char *value, struct buf *why)
{
	const struct kind_of_value *kind = &kinds[s->kind];
	int64_t n;

	if (!parse_number(value, kind, &n)) {
		buf_addf(why, "'%.*s' is not %s", setting_shown(value), value, kind->noun);
		return false;
	}
	if (n < s->min || n > s->max) {
		buf_addf(why, "'%.*s' is out of range: it must be ", setting_shown(value), value);
		print_number(why, kind, s->min);
		buf_addf(why, " to ");
		print_number(why, kind, s->max);
		return false;
	}
	store_number(place, s->kind, n);
	return true;
}

static bool set_choice(void *place, const struct setting *s, const char *value, struct buf *why)
{
	const struct kind_of_value *kind = &kinds[s->kind];
	const struct choice *c = kind->choices;

	while (c->name && strcmp(c->name, value) != 0)
		c++;
	if (c->name) {
		store_number(place, s->kind, c->value);
		return true;
	}
	buf_addf(why, "'%.*s' is not %s:", setting_shown(value), value, kind->noun);
	for (c = kind->choices; c->name; c++)
		buf_addf(why, " %s", c->name);
	return false;
}

/* A comment behind a value begins with a semicolon. One that begins with # must not become part of
 * a path or a pattern. */
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

static bool set_text(char **place, const struct setting *s, const char *value, struct buf *why)
{
	if (strlen(value) < (size_t)s->min) {
		buf_addf(why, "is empty");
	} else if (strlen(value) > (size_t)s->max) {
		buf_addf(why, "is longer than %lld bytes", (long long)s->max);
	} else if (has_comment(value)) {
		buf_addf(why, "'#' by itself: a comment behind a value begins with ;");
	} else {
		free(*place);
		*place = mem_strdup(value);
		return true;
	}
	return false;
}

bool setting_set(struct setting_values *v, enum setting_id id, const char *value, struct buf *why)
{
	const struct setting *s = &settings[id];
	void *place = (char *)v + s->place;

	if (kinds[s->kind].base)
		return set_number(place, s, value, why);
	if (kinds[s->kind].choices)
		return set_choice(place, s, value, why);
	return set_text(place, s, value, why);
}

void setting_values_release(struct setting_values *v)
{
	free(v->url);
	free(v->key_file);
	free(v->token_url);
	free(v->token_header_file);
	free(v->proxy_file);
	free(v->group);
	free(v->metrics);
	free(v->nexus_url);
	free(v->http_address);
	free(v->local_key_file);
}

bool setting_parse_count(const char *text, int64_t *out)
{
	return parse_number(text, &kinds[COUNT], out);
}

bool setting_pair(unsigned i, enum setting_id *low, enum setting_id *high)
{
	if (i >= sizeof(pairs) / sizeof(pairs[0]))
		return false;
	*low = pairs[i].low;
	*high = pairs[i].high;
	return true;
}

int64_t setting_number(const struct setting_values *v, enum setting_id id)
{
	const void *place = (const char *)v + settings[id].place;

	return settings[id].kind == SIZE ? (int64_t) * (const size_t *)place
					 : *(const int64_t *)place;
}

void setting_print(const struct setting_values *v, enum setting_id id, struct buf *out)
{
	print_number(out, &kinds[settings[id].kind], setting_number(v, id));
}

/* ---- differences ---- */

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
	case COMBINE:
	case VALUES:
	case FLAG:
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

static bool addresses_differ(const struct config *a, const struct config *b)
{
	size_t n = a->listen.n_http_addresses;

	if (n != b->listen.n_http_addresses)
		return true;
	for (size_t i = 0; i < n; i++) {
		const struct config_address *x = &a->listen.http_address[i];
		const struct config_address *y = &b->listen.http_address[i];
		if (x->port != y->port || strcmp(x->address, y->address) != 0)
			return true;
	}
	return false;
}

static bool local_keys_differ(const struct config *a, const struct config *b)
{
	return a->listen.has_local_key != b->listen.has_local_key ||
	       !local_key_same(&a->listen.local_key, &b->listen.local_key);
}

static bool anchors_differ(const struct config *a, const struct config *b)
{
	return memcmp(a->upstream.ca_digest, b->upstream.ca_digest,
		      sizeof(a->upstream.ca_digest)) != 0;
}

/* Some settings became something else before they entered the config. Secrets are compared, not
 * shown. */
static bool setting_differs(const struct config *a, const struct config *b, enum setting_id id)
{
	size_t place = settings[id].place;

	if (id == SET_URL)
		return texts_differ(a->upstream.url.text, b->upstream.url.text);
	if (id == SET_API_KEY_FILE)
		return texts_differ(a->upstream.api_key, b->upstream.api_key);
	if (id == SET_TOKEN_URL)
		return texts_differ(a->upstream.token.url.text, b->upstream.token.url.text);
	if (id == SET_TOKEN_HEADER_FILE)
		return texts_differ(a->upstream.token.header_file, b->upstream.token.header_file);
	if (id == SET_PROXY_CREDENTIALS)
		return texts_differ(a->upstream.proxy_login, b->upstream.proxy_login);
	if (id == SET_GROUP)
		return a->listen.group != b->listen.group;
	if (id == SET_NEXUS_URL)
		return texts_differ(a->upstream.nexus_url.text, b->upstream.nexus_url.text);
	if (id == SET_HTTP_ADDRESS)
		return addresses_differ(a, b);
	if (id == SET_LOCAL_KEY_FILE)
		return local_keys_differ(a, b);
	if (id == SET_CA_FILE && anchors_differ(a, b))
		return true;
	if (id == SET_METRICS_LISTEN)
		return texts_differ(a->metrics.path, b->metrics.path) ||
		       texts_differ(a->metrics.address, b->metrics.address) ||
		       a->metrics.port != b->metrics.port;
	return values_differ((const char *)a + place, (const char *)b + place, settings[id].kind);
}

bool setting_changes(const struct config *a, const struct config *b, struct buf *names)
{
	bool another = anchors_differ(a, b);

	for (enum setting_id id = 0; id < SET_N; id++) {
		if (!setting_differs(a, b, id))
			continue;
		buf_addf(names, "%s [%s] %s", buf_len(names) ? "," : "", settings[id].section,
			 settings[id].name);
		another |= settings[id].another;
	}
	if (!access_rules_same(a->access, b->access))
		buf_addf(names, "%s [access ...]", buf_len(names) ? "," : "");
	return another;
}
