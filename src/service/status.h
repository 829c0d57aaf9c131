/* status.h - the answers to status and stats, and the metrics page.
 *
 * They are asked for rarely, so cJSON writes the status. Its names are those of the local protocol;
 * stats.h has the names of the figures. None of them holds a secret. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "cache/cache.h"
#include "clients/client.h"
#include "config/config.h"
#include "subscriptions/subscriptions.h"
#include "requests/budget.h"
#include "requests/router.h"
#include "codec/stats.h"
#include "upstream/upstream.h"

struct status_source {
	const struct config *config;
	const struct router *router;
	const struct subscriptions *subscriptions;
	const struct cache *cache;
	const struct upstream *upstream;
	const struct stats *stats;
	const struct clients *clients;
	const struct peer *peer;       /* the client that asks; NULL: none */
	struct budget *const *budgets; /* of the access sections */
	size_t n_budgets;
	int64_t now_ms, uptime_ms;
	int64_t started_wall_ms;
	bool misconfigured;                /* the last reload was refused */
	const struct client_activity *top; /* the busiest clients; NULL: not asked for */
	unsigned n_top;
};

/* Each appends one JSON object on one line, without a line end. */
void status_write(const struct status_source *s, struct buf *out);
void status_write_stats(const struct status_source *s, struct buf *out);
/* Appends the metrics page, with the same figures (metrics_text.h). */
void status_write_page(const struct status_source *s, struct buf *out);
