/* notification.h - a notification of the service, with what has to be known to tell it from others.
 *
 * The service numbers nothing (no sequence, no id), so two notifications are taken for the same one
 * if key, value and timestamp are the same. Hashes stand for key and value: 64 bits of SipHash
 * under a seed of this process. A value is hashed by what it means, so that a string counts as the
 * same however its characters are escaped, and so does a number that is sent as one and read back
 * as a string. */
#pragma once

#include <stdint.h>

#include "base/span.h"
#include "codec/wire.h"

struct notification {
	uint64_t key_hash;   /* never 0 */
	uint64_t value_hash; /* never 0 */
	int64_t timestamp;   /* 0: none that is a whole number */
	struct span text;    /* the service's object, as it came */
};

/* Never 0, which says "none" wherever such hashes are kept. */
uint64_t notification_key_hash(const struct json_value *key, uint64_t seed);
uint64_t notification_value_hash(const struct json_value *value,
				 uint64_t seed); /* not given: as null */

/* frame is a WIRE_NOTIFICATION. */
struct notification notification_of(const struct wire_frame *frame, uint64_t seed);
