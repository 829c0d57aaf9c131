/* topics.h - the subscriptions of a handle, kept to subscribe again after a lost connection.
 *
 * A topic is added when the first request that names it is sent. It is live once such a request was
 * accepted, and removed when all were refused. Topics are read from the requests' lines, so that a
 * request of the user's own text (HPKV_JSON) counts as well. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/span.h"

struct topic {
	TAILQ_ENTRY(topic) link; /* topics::all */
	uint64_t by;             /* the request that named it first; older ones do not concern it */
	unsigned claims;         /* unanswered requests that name it */
	bool pattern;
	bool live;
	size_t n;
	char name[];
};

TAILQ_HEAD(topic_list, topic);

struct topics {
	struct topic_list all;
	void *tree; /* the same topics, for looking up (tsearch) */
	size_t n_live;
};

/* Takes note of a request that is being sent; it subscribes or unsubscribes. 0 or -ENOMEM. */
int topics_sent(struct topics *t, struct span line, uint64_t id, bool subscribes);

/* Takes note of the answer to a subscribe. */
void topics_answered(struct topics *t, struct span line, uint64_t id, bool accepted);

/* A subscription has ended, unasked. */
void topics_ended(struct topics *t, bool pattern, struct span name);

void topics_clear(struct topics *t); /* forgets all */

static inline struct span topic_name(const struct topic *topic)
{
	return (struct span){topic->name, topic->n};
}
