/* settings_table.h - the settings of the file: name, kind, range, default and place, a row each.
 *
 * Reads the text of a value into its place, and writes it back as the file would have it. The
 * sections of access rules are no settings (rules.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "config/config.h"

enum setting_id {
	SET_URL,
	SET_API_KEY_FILE,
	SET_TOKEN_URL,
	SET_TOKEN_HEADER_FILE,
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
	SET_COMBINE,
	SET_NEXUS_URL,
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
	SET_CACHE_KEYS,
	SET_CACHE_MIRROR,
	SET_CACHE_MEMORY,
	SET_CACHE_MAX_AGE,
	SET_CACHE_MAX_STALE,
	SET_CACHE_VALUES,
	SET_HTTP,
	SET_HTTP_ADDRESS,
	SET_HTTP_ORIGINS,
	SET_LOCAL_KEY_FILE,
	SET_METRICS_LISTEN,
	SET_LOG_LEVEL,
	SET_N,
};

/* Where the values go: a config, and texts that become something else before they enter it. */
struct setting_values {
	struct config config;
	char *url, *key_file, *token_url, *token_header_file, *proxy_file, *group, *metrics;
	char *nexus_url, *http_address, *local_key_file;
};
/* Frees the texts alone. */
void setting_values_release(struct setting_values *v);

/* Returns the section as the table has it, or NULL: there is none of that name. */
const char *setting_section_find(const char *name);
/* Returns SET_N if the section has no such setting. */
enum setting_id setting_find(const char *section, const char *name);
/* Append the names, each after a space. */
void setting_list_sections(struct buf *out);
void setting_list(struct buf *out, const char *section);

const char *setting_section(enum setting_id id);
const char *setting_name(enum setting_id id);
const char *setting_default(enum setting_id id);

/* Reads the value into its place. False: it is wrong, and why says so; nothing has changed. */
bool setting_set(struct setting_values *v, enum setting_id id, const char *value, struct buf *why);

/* The i-th pair of settings of which low must not be greater than high. False: there is none. */
bool setting_pair(unsigned i, enum setting_id *low, enum setting_id *high);
/* The value of a time or size. */
int64_t setting_number(const struct setting_values *v, enum setting_id id);
/* Appends the number as the file would have it. */
void setting_print(const struct setting_values *v, enum setting_id id, struct buf *out);

/* A whole number without a unit. */
bool setting_parse_count(const char *text, int64_t *out);
/* How many bytes of a value to repeat in a message: its beginning, not cut within a character. */
int setting_shown(const char *value);

/* Appends " [section] name" for each setting that differs, a comma between them; the sections of
 * access rules count as one. Returns whether the difference takes another connection to the
 * service: another address or key, other trust anchors, or tokens of another kind. */
bool setting_changes(const struct config *a, const struct config *b, struct buf *names);
