/* topics.h - what a handle is subscribed to, so that it can be subscribed to again.
 *
 * A topic is added when the first request that names it is sent, live once one of them was
 * accepted, and taken out again when all were refused. The requests are read as they were sent, so
 * that one of the user's own text counts like any other. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/span.h"

struct topic {
	TAILQ_ENTRY(topic) link; /* topics::all */
	uint64_t by;             /* the request that named it first: older ones are of no account */
	unsigned claims;         /* requests that name it and were not answered yet */
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

/* A subscription has ended, and nobody asked for that. */
void topics_ended(struct topics *t, bool pattern, struct span name);

void topics_clear(struct topics *t);

static inline struct span topic_name(const struct topic *topic)
{
	return (struct span){topic->name, topic->n};
}
