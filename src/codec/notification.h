/* notification.h - the identity of a notification.
 *
 * The service's notifications have no sequence number and no id. Two notifications are taken to be
 * the same if key, value and timestamp are equal. Key and value are compared as hashes: 64 bits of
 * SipHash with a seed of this process. The hash of a value is of its meaning: a string has the same
 * hash however its characters are escaped, and a number the same as the string with its text. */
#pragma once

#include <stdint.h>

#include "base/span.h"
#include "codec/wire.h"

struct notification {
	uint64_t key_hash;   /* never 0 */
	uint64_t value_hash; /* never 0 */
	int64_t timestamp;   /* 0: none, or not a whole number */
	struct span text;    /* the service's object, as received */
};

/* Never 0, which means "none". */
uint64_t notification_key_hash(const struct json_value *key, uint64_t seed);
uint64_t notification_bytes_hash(struct span key, uint64_t seed); /* the same, of a decoded one */
uint64_t notification_value_hash(const struct json_value *value,
				 uint64_t seed); /* not given: the same as null */

/* frame: a WIRE_NOTIFICATION. */
struct notification notification_of(const struct wire_frame *frame, uint64_t seed);
