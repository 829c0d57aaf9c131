/* router_ops.h - the functions of struct router_ops that a test has no use for. */
#pragma once

#include "base/mem.h"
#include "requests/router.h"

/* The frame that is sent, as a string that the caller frees. */
static inline char *frame_text(struct span head, struct span body)
{
	char *text = mem_alloc(head.n + body.n + 1);

	memcpy(text, head.p, head.n);
	memcpy(text + head.n, body.p, body.n);
	text[head.n + body.n] = '\0';
	return text;
}

static inline bool always_sendable(void *owner)
{
	(void)owner;
	return true;
}

static inline long no_reconnect_ms(void *owner)
{
	(void)owner;
	return -1;
}

static inline void ignore_changed(void *owner, struct peer *peer)
{
	(void)owner, (void)peer;
}

static inline void ignore_wake_at(void *owner, int64_t at)
{
	(void)owner, (void)at;
}

static inline void ignore_connection_idle(void *owner, uint32_t connection)
{
	(void)owner, (void)connection;
}

static inline void ignore_deferred_turn(void *owner, struct pending *p)
{
	(void)owner, (void)p;
}

static inline const char *forbid_nothing(void *owner, struct peer *peer,
					 const struct request *request)
{
	(void)owner, (void)peer, (void)request;
	return NULL;
}
