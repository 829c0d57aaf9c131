/* record.h - a line of an export: {"key":…,"value":…}, on one line.
 *
 * Key and value are carried as JSON writes them, so that nothing is decoded and encoded again on
 * the way: escapes, numbers of any length and lone surrogates stay as they are. */
#pragma once

#include <hpkv.h>

#include "base/buf.h"
#include "codec/json.h"

struct record {
	struct json_value key, value;
};

/* Reads one. NULL, or why it is none, in memory that the next call overwrites. */
const char *record_read(struct span line, struct record *r);

/* Finds key and value in an element of a range's records. false: it has no key. */
bool record_of(struct span object, struct record *r);

void record_write(struct buf *out, const struct record *r);

/* The value as the service stores it: a string's text, anything else as JSON without the spaces
 * between its tokens. */
void record_stored(struct buf *out, const struct json_value *value);

/* The key's text; p is owned by the caller. */
struct hpkv_bytes record_key(const struct record *r);
