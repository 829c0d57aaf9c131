/* topics.h - what a handle is subscribed to, so that it can be subscribed to again.
 *
 * A topic is added when the request that names it is sent, taken out again when that is refused,
 * and live once it was answered. The requests are read as they were sent, so that one of the user's
 * own text counts like any other. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "span.h"

struct topic {
	TAILQ_ENTRY(topic) link; /* topics::all */
	uint64_t by;             /* the request that named it first */
	bool pattern;
	bool live;
	size_t n;
	char name[];
};

TAILQ_HEAD(topic_list, topic);

struct topics {
	struct topic_list all;
	void *tree; /* the same, for looking up (tsearch) */
	size_t n_live;
};

/* The request in line, which subscribes (or else unsubscribes), is being sent. 0 or -ENOMEM. */
int topics_sent(struct topics *t, struct span line, uint64_t id, bool subscribes);

/* … was answered. */
void topics_answered(struct topics *t, struct span line, uint64_t id, bool accepted);

void topics_drop(struct topics *t, struct topic *topic);
void topics_clear(struct topics *t);

static inline struct span topic_name(const struct topic *topic)
{
	return (struct span){topic->name, topic->n};
}
